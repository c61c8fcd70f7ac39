//! Multipart uploads: parts are blobs with sidecars of their own until they become an object.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use super::transfer::Received;
use super::versions::Versioning;
use super::{Attributes, Store, StoreError, StoredObject, hex, list, random_name, read_json};
use crate::emulator::store::list::{Listing, StorePage};
use crate::timestamp::Timestamp;

/// An upload that is not completed.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct Upload {
    pub(in crate::emulator) about: UploadAbout,
    pub(in crate::emulator) parts: BTreeMap<i32, StoredPart>,
}

/// The properties of an upload.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::emulator) struct UploadAbout {
    pub(in crate::emulator) id: String,
    pub(in crate::emulator) key: String,
    /// The creation time in Unix seconds.
    pub(in crate::emulator) initiated: i64,
    attributes: Attributes,
}

/// One part of an upload.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::emulator) struct StoredPart {
    pub(in crate::emulator) number: i32,
    pub(in crate::emulator) size: u64,
    md5: [u8; 16],
    pub(in crate::emulator) crc64: u64,
    /// The upload time in Unix seconds.
    pub(in crate::emulator) modified: i64,
    blob: String,
}

impl StoredPart {
    /// The entity tag, without quotes.
    pub(in crate::emulator) fn etag(&self) -> String {
        hex(&self.md5)
    }

    /// The file name of the content.
    pub(super) fn blob(&self) -> &str {
        &self.blob
    }
}

impl Store {
    /// Creates an upload and gives its id.
    pub(in crate::emulator) fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        let id = random_name().map_err(StoreError::Io)?;
        let about = UploadAbout {
            id: id.clone(),
            key: key.into(),
            initiated: now.unix(),
            attributes,
        };
        let folder = self.upload(bucket, &id);
        fs::create_dir_all(&folder).map_err(StoreError::Io)?;
        self.write_json(&folder.join("upload.json"), &about)
            .map_err(StoreError::Io)?;
        found.uploads.insert(
            id.clone(),
            Upload {
                about,
                parts: BTreeMap::new(),
            },
        );
        Ok(id)
    }

    /// An upload of `key`, with its parts.
    pub(in crate::emulator) fn find_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<Upload, StoreError> {
        let buckets = self.lock();
        let found = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        let upload = found.uploads.get(id).filter(|u| u.about.key == key);
        upload.cloned().ok_or(StoreError::NoSuchUpload)
    }

    /// Stores received content as the part `number` of the upload `id`, in place of an earlier one.
    pub(in crate::emulator) fn put_part(
        &self,
        (bucket, key, id): (&str, &str, &str),
        number: i32,
        received: Received,
        now: Timestamp,
    ) -> Result<StoredPart, StoreError> {
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        let upload = found.uploads.get_mut(id).filter(|u| u.about.key == key);
        let upload = upload.ok_or(StoreError::NoSuchUpload)?;
        let (size, md5, crc64) = (received.size, received.md5, received.crc64);
        let blob = self.keep(bucket, received).map_err(StoreError::Io)?;
        let part = StoredPart {
            number,
            size,
            md5,
            crc64,
            modified: now.unix(),
            blob,
        };
        let sidecar = self.upload(bucket, id).join(format!("{number}.json"));
        self.write_json(&sidecar, &part).map_err(StoreError::Io)?;
        if let Some(old) = upload.parts.insert(number, part.clone()) {
            fs::remove_file(self.blob(bucket, &old.blob)).map_err(StoreError::Io)?;
        }
        Ok(part)
    }

    /// CRC-32 of a part's content. Blocks.
    pub(in crate::emulator) fn part_crc32(
        &self,
        bucket: &str,
        part: &StoredPart,
    ) -> io::Result<u32> {
        let content = fs::read(self.blob(bucket, &part.blob))?;
        let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, &content);
        u32::try_from(crc).map_err(io::Error::other)
    }

    /// Joins `parts`, in this order, into the object. Blocks while it copies. The upload does not exist afterwards.
    pub(in crate::emulator) fn complete_upload(
        &self,
        bucket: &str,
        upload: &Upload,
        parts: &[StoredPart],
        now: Timestamp,
        condition: impl FnOnce(Option<&StoredObject>, Versioning) -> s3s::S3Result<()>,
    ) -> Result<Arc<StoredObject>, StoreError> {
        let mut file = self.scratch().map_err(StoreError::Io)?;
        let (mut size, mut crc64, mut digests) = (0, 0, Md5::new());
        for part in parts {
            let mut source =
                File::open(self.blob(bucket, &part.blob)).map_err(|_| StoreError::NoSuchUpload)?;
            io::copy(&mut source, file.as_file_mut()).map_err(StoreError::Io)?;
            crc64 = crc_fast::checksum_combine(CrcAlgorithm::Crc64Xz, crc64, part.crc64, part.size);
            digests.update(part.md5);
            size += part.size;
        }
        let received = Received {
            file,
            size,
            md5: digests.finalize().into(),
            crc64,
        };
        let etag = format!("{}-{}", hex(&received.md5), parts.len());
        let UploadAbout {
            id,
            key,
            attributes,
            ..
        } = &upload.about;

        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        if !found.uploads.contains_key(id) {
            return Err(StoreError::NoSuchUpload);
        }
        let there = found.objects.get(key).map(Arc::as_ref);
        condition(there, found.versioning()).map_err(StoreError::Refused)?;
        let (version, order) = found.next_version().map_err(StoreError::Io)?;
        let object = StoredObject {
            key: key.clone(),
            size,
            etag,
            crc64,
            modified: now.unix(),
            attributes: attributes.clone(),
            blob: self.keep(bucket, received).map_err(StoreError::Io)?,
            version,
            order,
            is_marker: false,
            is_appendable: false,
        };
        let object = self.replace(found, object).map_err(StoreError::Io)?;
        if let Some(upload) = found.uploads.remove(id) {
            self.discard(bucket, &upload).map_err(StoreError::Io)?;
        }
        Ok(object)
    }

    /// Ends an upload without an object.
    pub(in crate::emulator) fn abort_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<(), StoreError> {
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        if found.uploads.get(id).is_none_or(|u| u.about.key != key) {
            return Err(StoreError::NoSuchUpload);
        }
        match found.uploads.remove(id) {
            Some(upload) => self.discard(bucket, &upload).map_err(StoreError::Io),
            None => Ok(()),
        }
    }

    /// One page of a bucket's uploads, by key and id, after `listing.after` and the id `after_id`.
    pub(in crate::emulator) fn list_uploads(
        &self,
        bucket: &str,
        listing: &Listing<'_>,
        after_id: &str,
    ) -> Result<StorePage<UploadAbout>, StoreError> {
        let buckets = self.lock();
        let found = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        let mut uploads: Vec<&UploadAbout> = found
            .uploads
            .values()
            .map(|u| &u.about)
            .filter(|u| {
                u.key.as_str() > listing.after
                    || (u.key == listing.after && !after_id.is_empty() && u.id.as_str() > after_id)
            })
            .collect();
        uploads.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        Ok(list::page(
            uploads.into_iter().map(|u| (u.key.as_str(), u.clone())),
            listing,
        ))
    }

    fn discard(&self, bucket: &str, upload: &Upload) -> io::Result<()> {
        // Without this file there is no upload, even if other files remain.
        let folder = self.upload(bucket, &upload.about.id);
        fs::remove_file(folder.join("upload.json"))?;
        self.sync_folder(&folder.join("upload.json"))?;
        for part in upload.parts.values() {
            fs::remove_file(self.blob(bucket, &part.blob))?;
        }
        fs::remove_dir_all(folder)
    }

    fn upload(&self, bucket: &str, id: &str) -> PathBuf {
        self.folder(bucket).join("uploads").join(id)
    }
}

/// Reads the uploads that were unfinished when the emulator last ended.
pub(super) fn load(folder: &Path) -> io::Result<BTreeMap<String, Upload>> {
    let mut uploads = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let folder = entry?.path();
        if !folder.join("upload.json").exists() {
            fs::remove_dir_all(folder)?; // left by a process that was killed
            continue;
        }
        let about: UploadAbout = read_json(&folder.join("upload.json"))?;
        let mut parts = BTreeMap::new();
        for sidecar in fs::read_dir(&folder)? {
            let sidecar = sidecar?.path();
            if sidecar
                .file_name()
                .is_some_and(|name| name != "upload.json")
            {
                let part: StoredPart = read_json(&sidecar)?;
                parts.insert(part.number, part);
            }
        }
        uploads.insert(about.id.clone(), Upload { about, parts });
    }
    Ok(uploads)
}
