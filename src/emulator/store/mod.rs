//! Buckets and objects as files under one folder, with an index in memory.
//!
//! An object is an immutable blob and a JSON sidecar that names it. Both are written to temporary files and renamed,
//! so that a reader, or the next start, finds only whole objects. File names are hashes of keys: every key is
//! possible on every file system.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::emulator::keys::random;
use crate::timestamp::Timestamp;

mod append;
pub(super) mod list;
pub(super) mod multipart;
mod snapshot;
pub(super) mod transfer;
pub(super) mod versions;

use list::{Listing, StorePage};
use multipart::{StoredPart, Upload};
use transfer::Received;
use versions::{NULL, Versioning};

/// When acknowledged writes reach the disk. They always outlive the emulator's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before the acknowledgement: a write outlives a power failure too.
    Always,
    /// When the operating system chooses.
    #[default]
    Never,
}

/// All buckets.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    fsync: Fsync,
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    about: BucketAbout,
    objects: BTreeMap<String, Arc<StoredObject>>,
    /// Versions and markers of a key besides its current object, the newest first.
    history: BTreeMap<String, Vec<Arc<StoredObject>>>,
    uploads: BTreeMap<String, Upload>,
    /// The highest order of a version.
    last_order: u64,
}

/// The properties of a bucket.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct BucketAbout {
    pub(super) name: String,
    pub(super) region: String,
    /// The creation time in Unix seconds.
    pub(super) created: i64,
    /// The configuration: documents by the parameter that selects them.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, String>,
}

/// The content and attributes of a new object.
#[derive(Debug)]
pub(super) struct NewObject {
    pub(super) received: Received,
    pub(super) attributes: Attributes,
    pub(super) modified: Timestamp,
}

/// The properties of an object.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct StoredObject {
    pub(super) key: String,
    pub(super) size: u64,
    /// The entity tag, without quotes.
    pub(super) etag: String,
    /// CRC-64/XZ of the content.
    pub(super) crc64: u64,
    /// The time of the last change in Unix seconds.
    pub(super) modified: i64,
    pub(super) attributes: Attributes,
    /// The file name of the content.
    blob: String,
    #[serde(default = "null_version")]
    pub(super) version: String,
    /// The order of the versions of a key: later versions have a higher one.
    #[serde(default)]
    order: u64,
    /// A delete marker: it hides the key and has no content.
    #[serde(default)]
    pub(super) is_marker: bool,
    /// An append made it, and others may follow.
    #[serde(default)]
    pub(super) is_appendable: bool,
}

fn null_version() -> String {
    NULL.to_owned()
}

/// The attributes that the writer of an object gave it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Attributes {
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_type: Option<String>,
    /// The time of the `Expires` header in Unix seconds.
    pub(super) expires: Option<i64>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) storage_class: Option<String>,
    pub(super) tags: Vec<(String, String)>,
    /// The document of its access rights; `None` means the owner's only.
    #[serde(default)]
    pub(super) acl: Option<String>,
    /// The document of its retention (436/58039). The store does not enforce it.
    #[serde(default)]
    pub(super) retention: Option<String>,
}

/// The reasons why the store refuses an operation.
#[derive(Debug)]
pub(super) enum StoreError {
    Io(io::Error),
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NoSuchVersion,
    /// The object is hidden by the marker with this version.
    Hidden(String),
    /// The version is a marker.
    Marker(String),
    /// The caller's own condition did not hold.
    Refused(s3s::S3Error),
}

impl StoreError {
    /// For callers that have no client to report to.
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        }
    }
}

impl Store {
    /// Opens the folder `root`, made if missing, and reads what is in it.
    pub(super) fn open(root: PathBuf, fsync: Fsync) -> io::Result<Self> {
        if root.join("tmp").exists() {
            fs::remove_dir_all(root.join("tmp"))?; // left by a process that was killed
        }
        fs::create_dir_all(root.join("tmp"))?;
        snapshot::recover(&root)?;
        fs::create_dir_all(root.join("buckets"))?;
        let buckets = load(&root.join("buckets"))?;
        Ok(Self {
            root,
            fsync,
            buckets: Mutex::new(buckets),
        })
    }

    /// Creates a bucket; `false` if it exists already.
    pub(super) fn create_bucket(
        &self,
        name: &str,
        region: &str,
        now: Timestamp,
    ) -> io::Result<bool> {
        let mut buckets = self.lock();
        if buckets.contains_key(name) {
            return Ok(false);
        }
        let folder = self.folder(name);
        for part in ["objects", "blobs", "uploads"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let about = BucketAbout {
            name: name.into(),
            region: region.into(),
            created: now.unix(),
            settings: BTreeMap::new(),
        };
        self.write_json(&folder.join("bucket.json"), &about)?;
        let bucket = Bucket {
            about,
            objects: BTreeMap::new(),
            history: BTreeMap::new(),
            uploads: BTreeMap::new(),
            last_order: 0,
        };
        buckets.insert(name.into(), bucket);
        Ok(true)
    }

    /// Removes an empty bucket; `false` if it is not empty.
    pub(super) fn delete_bucket(&self, name: &str) -> Result<bool, StoreError> {
        let mut buckets = self.lock();
        let found = buckets.get(name).ok_or(StoreError::NoSuchBucket)?;
        if !found.objects.is_empty() || !found.history.is_empty() || !found.uploads.is_empty() {
            return Ok(false);
        }
        let aside = random_name().map(|name| self.root.join("tmp").join(name));
        let aside = aside.map_err(StoreError::Io)?;
        fs::rename(self.folder(name), &aside).map_err(StoreError::Io)?;
        buckets.remove(name);
        fs::remove_dir_all(aside).map_err(StoreError::Io)?;
        Ok(true)
    }

    /// All buckets, by name.
    pub(super) fn buckets(&self) -> Vec<BucketAbout> {
        self.lock().values().map(|b| b.about.clone()).collect()
    }

    /// One bucket.
    pub(super) fn bucket(&self, name: &str) -> Option<BucketAbout> {
        self.lock().get(name).map(|b| b.about.clone())
    }

    /// Changes the properties of a bucket.
    pub(super) fn change_bucket(
        &self,
        name: &str,
        change: impl FnOnce(&mut BucketAbout),
    ) -> Result<(), StoreError> {
        let mut buckets = self.lock();
        let found = buckets.get_mut(name).ok_or(StoreError::NoSuchBucket)?;
        let mut about = found.about.clone();
        change(&mut about);
        self.write_json(&self.folder(name).join("bucket.json"), &about)
            .map_err(StoreError::Io)?;
        found.about = about;
        Ok(())
    }

    /// An object.
    pub(super) fn object(&self, bucket: &str, key: &str) -> Result<Arc<StoredObject>, StoreError> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        bucket
            .objects
            .get(key)
            .map(Arc::clone)
            .ok_or(StoreError::NoSuchKey)
    }

    /// An object and its content. The file stays readable when the key changes meanwhile.
    pub(super) fn open_object(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<(Arc<StoredObject>, File), StoreError> {
        self.open_version(bucket, key, None)
    }

    /// Stores received content as the object `key`, if `condition` accepts the current one.
    pub(super) fn put_object(
        &self,
        bucket: &str,
        key: &str,
        new: NewObject,
        condition: impl FnOnce(Option<&StoredObject>, Versioning) -> s3s::S3Result<()>,
    ) -> Result<Arc<StoredObject>, StoreError> {
        let NewObject {
            received,
            attributes,
            modified,
        } = new;
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        let there = found.objects.get(key).map(Arc::as_ref);
        condition(there, found.versioning()).map_err(StoreError::Refused)?;
        let (version, order) = found.next_version().map_err(StoreError::Io)?;
        let (size, etag, crc64) = (received.size, received.etag(), received.crc64);
        let object = StoredObject {
            key: key.into(),
            size,
            etag,
            crc64,
            modified: modified.unix(),
            attributes,
            blob: self.keep(bucket, received).map_err(StoreError::Io)?,
            version,
            order,
            is_marker: false,
            is_appendable: false,
        };
        self.replace(found, object).map_err(StoreError::Io)
    }

    /// Changes an object's attributes in place.
    pub(super) fn change_object(
        &self,
        bucket: &str,
        key: &str,
        change: impl FnOnce(&mut Attributes),
    ) -> Result<(), StoreError> {
        self.change_version((bucket, key), None, change)
    }

    /// Changes the attributes of a version, or of the object itself, in place.
    pub(super) fn change_version(
        &self,
        (bucket, key): (&str, &str),
        version: Option<&str>,
        change: impl FnOnce(&mut Attributes),
    ) -> Result<(), StoreError> {
        let mut object = self.version(bucket, key, version)?.as_ref().clone();
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        change(&mut object.attributes);
        self.replace(found, object)
            .map(drop)
            .map_err(StoreError::Io)
    }

    /// One page of a bucket's objects.
    pub(super) fn list(
        &self,
        bucket: &str,
        listing: &Listing<'_>,
    ) -> Result<StorePage<Arc<StoredObject>>, StoreError> {
        let buckets = self.lock();
        let found = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        let start = match listing.after {
            after if after >= listing.prefix && !after.is_empty() => Bound::Excluded(after),
            _ => Bound::Included(listing.prefix),
        };
        let entries = found.objects.range::<str, _>((start, Bound::Unbounded));
        Ok(list::page(
            entries.map(|(key, object)| (key.as_str(), Arc::clone(object))),
            listing,
        ))
    }

    /// The keys of all objects of a bucket, sorted.
    pub(super) fn keys(&self, bucket: &str) -> Vec<String> {
        let buckets = self.lock();
        let found = buckets.get(bucket);
        found.map_or_else(Vec::new, |bucket| bucket.objects.keys().cloned().collect())
    }

    /// The uploads of a bucket: key and id, sorted.
    pub(super) fn uploads(&self, bucket: &str) -> Vec<(String, String)> {
        let buckets = self.lock();
        let found = buckets.get(bucket).into_iter();
        let uploads = found.flat_map(|bucket| bucket.uploads.values());
        let mut named: Vec<_> = uploads
            .map(|upload| (upload.about.key.clone(), upload.about.id.clone()))
            .collect();
        named.sort();
        named
    }

    /// A new temporary file: it is removed unless it is kept.
    pub(super) fn scratch(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.root.join("tmp"))
    }

    /// Keeps the received content as a blob of `bucket` and gives its name.
    fn keep(&self, bucket: &str, received: Received) -> io::Result<String> {
        let name = random_name()?;
        self.persist(received.file, &self.blob(bucket, &name))?;
        Ok(name)
    }

    /// Writes `value` atomically: the file is either the old or the new one.
    fn write_json(&self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        let mut file = self.scratch()?;
        file.write_all(&serde_json::to_vec(value)?)?;
        self.persist(file, path)
    }

    /// Gives a complete file its final name.
    fn persist(&self, file: NamedTempFile, path: &Path) -> io::Result<()> {
        if self.fsync == Fsync::Always {
            file.as_file().sync_all()?;
        }
        file.persist(path).map_err(|e| e.error)?;
        self.sync_folder(path)
    }

    /// Writes the folder to the disk, so that the file's name outlives a power failure.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.fsync == Fsync::Always => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }

    fn folder(&self, bucket: &str) -> PathBuf {
        self.root.join("buckets").join(bucket)
    }

    fn blob(&self, bucket: &str, name: &str) -> PathBuf {
        self.folder(bucket).join("blobs").join(name)
    }

    fn sidecar(&self, bucket: &str, key: &str, version: &str) -> PathBuf {
        let mut digest = Sha256::new_with_prefix(key);
        if version != NULL {
            digest.update([0]);
            digest.update(version);
        }
        self.folder(bucket)
            .join("objects")
            .join(hex(&digest.finalize()) + ".json")
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the buckets below `root`. Removes what a killed process has left unfinished.
fn load(root: &Path) -> io::Result<BTreeMap<String, Bucket>> {
    let mut buckets = BTreeMap::new();
    for entry in fs::read_dir(root)? {
        let folder = entry?.path();
        if !folder.join("bucket.json").exists() {
            fs::remove_dir_all(folder)?;
            continue;
        }
        let about: BucketAbout = read_json(&folder.join("bucket.json"))?;
        let mut versions: BTreeMap<String, Vec<Arc<StoredObject>>> = BTreeMap::new();
        for sidecar in fs::read_dir(folder.join("objects"))? {
            let object: StoredObject = read_json(&sidecar?.path())?;
            let of_key = versions.entry(object.key.clone()).or_default();
            of_key.push(Arc::new(object));
        }
        let uploads = multipart::load(&folder.join("uploads"))?;
        let parts = uploads.values().flat_map(|upload| upload.parts.values());
        let mut kept: HashSet<&str> = parts.map(StoredPart::blob).collect();
        let all = || versions.values().flatten();
        kept.extend(all().map(|object| object.blob.as_str()));
        remove_others(&folder.join("blobs"), &kept)?;
        let mut bucket = Bucket {
            about,
            objects: BTreeMap::new(),
            history: BTreeMap::new(),
            last_order: all().map(|object| object.order).max().unwrap_or_default(),
            uploads: BTreeMap::new(),
        };
        bucket.uploads = uploads;
        for (key, versions) in versions {
            bucket.set_versions(&key, versions);
        }
        buckets.insert(bucket.about.name.clone(), bucket);
    }
    Ok(buckets)
}

fn remove_others(folder: &Path, kept: &HashSet<&str>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| kept.contains(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn random_name() -> io::Result<String> {
    random(16)
        .map(|bytes| hex(&bytes))
        .ok_or_else(|| io::Error::other("no randomness"))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_768_480_245;

    fn received(store: &Store, content: &[u8]) -> Received {
        let mut file = store.scratch().unwrap();
        file.write_all(content).unwrap();
        Received {
            file,
            size: content.len() as u64,
            md5: [7; 16],
            crc64: 9,
        }
    }

    fn put(store: &Store, key: &str, content: &[u8]) {
        let now = Timestamp::from_unix(NOW);
        let new = NewObject {
            received: received(store, content),
            attributes: Attributes::default(),
            modified: now,
        };
        store.put_object("b-1", key, new, |_, _| Ok(())).unwrap();
    }

    #[test]
    fn keeps_every_key_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let long = "é".repeat(425);
        let keys = [
            "/lead",
            "a//b",
            "..",
            "a/../b",
            "\\x",
            "中文 +%.txt",
            "k/",
            &long,
        ];
        {
            let store = Store::open(folder.path().into(), Fsync::Always).unwrap();
            assert!(
                store
                    .create_bucket("b-1", "ap-guangzhou", Timestamp::from_unix(NOW))
                    .unwrap()
            );
            for key in keys {
                put(&store, key, key.as_bytes());
            }
        }
        let store = Store::open(folder.path().into(), Fsync::Always).unwrap();
        for key in keys {
            let (object, file) = store.open_object("b-1", key).unwrap();
            assert_eq!(io::read_to_string(file).unwrap(), key);
            assert_eq!(object.size, key.len() as u64);
        }
        let all = Listing {
            prefix: "",
            delimiter: "",
            after: "",
            limit: 1000,
        };
        assert_eq!(store.list("b-1", &all).unwrap().items.len(), keys.len());
    }

    #[test]
    fn removes_files_of_replaced_and_removed_objects() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().into(), Fsync::Always).unwrap();
        store
            .create_bucket("b-1", "r", Timestamp::from_unix(NOW))
            .unwrap();
        put(&store, "k", b"old");
        let (_, old) = store.open_object("b-1", "k").unwrap();
        put(&store, "k", b"new");
        drop(received(&store, b"never kept"));
        let files = |part: &str| fs::read_dir(folder.path().join(part)).unwrap().count();
        assert_eq!(
            (
                files("buckets/b-1/blobs"),
                files("buckets/b-1/objects"),
                files("tmp")
            ),
            (1, 1, 0)
        );
        assert_eq!(io::read_to_string(old).unwrap(), "old");
        store
            .delete_object("b-1", "k", Timestamp::from_unix(NOW))
            .unwrap();
        assert_eq!(
            (files("buckets/b-1/blobs"), files("buckets/b-1/objects")),
            (0, 0)
        );
    }
}
