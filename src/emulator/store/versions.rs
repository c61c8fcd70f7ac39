//! Versions of objects (436/19883, 436/19884): older versions that a bucket keeps besides the current object.
//!
//! Each version has a sidecar of its own, and its order says which one is the newest. A change therefore writes or
//! removes only one file.

use std::fs::{self, File};
use std::sync::Arc;

use super::list::{self, Listing, StorePage};
use super::{Attributes, Bucket, Store, StoreError, StoredObject, random_name};
use crate::timestamp::Timestamp;

/// The version id of an object that is stored while versioning is off.
pub(in crate::emulator) const NULL: &str = "null";

/// The versioning of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::emulator) enum Versioning {
    Never,
    Enabled,
    Suspended,
}

/// The result of a removal.
#[derive(Debug, Default)]
pub(in crate::emulator) struct Removed {
    /// The version that was removed, or the new marker; `None` without versioning.
    pub(in crate::emulator) version: Option<String>,
    /// Whether that version is a delete marker.
    pub(in crate::emulator) is_marker: bool,
}

/// A version in a listing.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct ListedVersion {
    pub(in crate::emulator) object: Arc<StoredObject>,
    pub(in crate::emulator) is_latest: bool,
}

impl Bucket {
    pub(super) fn versioning(&self) -> Versioning {
        let setting = self.about.settings.get("versioning");
        match setting.map_or("", String::as_str) {
            text if text.contains("<Status>Enabled</Status>") => Versioning::Enabled,
            text if text.contains("<Status>Suspended</Status>") => Versioning::Suspended,
            _ => Versioning::Never,
        }
    }

    /// The version and the order of the next write.
    pub(super) fn next_version(&mut self) -> std::io::Result<(String, u64)> {
        self.last_order += 1;
        let version = match self.versioning() {
            Versioning::Enabled => random_name()?,
            Versioning::Never | Versioning::Suspended => NULL.to_owned(),
        };
        Ok((version, self.last_order))
    }

    /// All versions of a key, the newest first.
    fn versions(&self, key: &str) -> Vec<Arc<StoredObject>> {
        let current = self.objects.get(key).into_iter();
        let older = self.history.get(key).into_iter().flatten();
        current.chain(older).cloned().collect()
    }

    /// Stores all versions of a key: the newest one is the object unless it is a marker.
    pub(super) fn set_versions(&mut self, key: &str, mut versions: Vec<Arc<StoredObject>>) {
        versions.sort_by_key(|version| std::cmp::Reverse(version.order));
        self.objects.remove(key);
        self.history.remove(key);
        if versions.first().is_some_and(|newest| !newest.is_marker) {
            self.objects.insert(key.to_owned(), versions.remove(0));
        }
        if !versions.is_empty() {
            self.history.insert(key.to_owned(), versions);
        }
    }
}

impl Store {
    /// A version of an object, or the object itself.
    pub(in crate::emulator) fn version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Arc<StoredObject>, StoreError> {
        let buckets = self.lock();
        let found = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        // Without versioning, `null` names the object; if it is absent, the key is absent.
        let is_object = |name: &&str| *name == NULL && found.versioning() == Versioning::Never;
        let Some(version) = version.filter(|name| !is_object(name)) else {
            let hidden = found.history.get(key).and_then(|versions| versions.first());
            return match (found.objects.get(key), hidden) {
                (Some(object), _) => Ok(Arc::clone(object)),
                (None, Some(marker)) => Err(StoreError::Hidden(marker.version.clone())),
                (None, None) => Err(StoreError::NoSuchKey),
            };
        };
        let mut versions = found.versions(key).into_iter();
        let found = versions.find(|known| known.version == version);
        match found.ok_or(StoreError::NoSuchVersion)? {
            marker if marker.is_marker => Err(StoreError::Marker(marker.version.clone())),
            object => Ok(object),
        }
    }

    /// A version and its content. The file stays readable when the key changes meanwhile.
    pub(in crate::emulator) fn open_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<(Arc<StoredObject>, File), StoreError> {
        // The blob may be removed between the two steps; then the key has another version or none.
        for _ in 0..3 {
            let object = self.version(bucket, key, version)?;
            if let Ok(file) = File::open(self.blob(bucket, &object.blob)) {
                return Ok((object, file));
            }
        }
        Err(StoreError::NoSuchKey)
    }

    /// Whether the bucket has, or has had, versions.
    pub(in crate::emulator) fn versioning(&self, bucket: &str) -> Versioning {
        let buckets = self.lock();
        let found = buckets.get(bucket);
        found.map_or(Versioning::Never, Bucket::versioning)
    }

    /// Removes an object. With versioning, a marker hides it instead. Succeeds when there is none.
    pub(in crate::emulator) fn delete_object(
        &self,
        bucket: &str,
        key: &str,
        now: Timestamp,
    ) -> Result<Removed, StoreError> {
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        if found.versioning() == Versioning::Never {
            self.remove(found, key, NULL)?;
            return Ok(Removed::default());
        }
        let (version, order) = found.next_version().map_err(StoreError::Io)?;
        let marker = StoredObject {
            key: key.to_owned(),
            size: 0,
            etag: String::new(),
            crc64: 0,
            modified: now.unix(),
            attributes: Attributes::default(),
            blob: String::new(),
            version: version.clone(),
            order,
            is_marker: true,
            is_appendable: false,
        };
        self.replace(found, marker).map_err(StoreError::Io)?;
        Ok(Removed {
            version: Some(version),
            is_marker: true,
        })
    }

    /// Removes one version permanently. Succeeds when there is none.
    pub(in crate::emulator) fn delete_version(
        &self,
        bucket: &str,
        key: &str,
        version: &str,
    ) -> Result<Removed, StoreError> {
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        let removed = self.remove(found, key, version)?;
        Ok(Removed {
            version: Some(version.to_owned()),
            is_marker: removed.is_some_and(|removed| removed.is_marker),
        })
    }

    fn remove(
        &self,
        bucket: &mut Bucket,
        key: &str,
        version: &str,
    ) -> Result<Option<Arc<StoredObject>>, StoreError> {
        let mut versions = bucket.versions(key);
        let Some(at) = versions.iter().position(|known| known.version == version) else {
            return Ok(None);
        };
        let removed = versions.remove(at);
        let name = bucket.about.name.clone();
        let sidecar = self.sidecar(&name, key, version);
        fs::remove_file(&sidecar).map_err(StoreError::Io)?;
        bucket.set_versions(key, versions);
        self.sync_folder(&sidecar).map_err(StoreError::Io)?;
        self.drop_blob(&name, &removed).map_err(StoreError::Io)?;
        Ok(Some(removed))
    }

    /// Stores `object` in place of the same version. Removes the content of a version that it replaces.
    pub(super) fn replace(
        &self,
        bucket: &mut Bucket,
        object: StoredObject,
    ) -> std::io::Result<Arc<StoredObject>> {
        let name = bucket.about.name.clone();
        let object = Arc::new(object);
        self.write_json(&self.sidecar(&name, &object.key, &object.version), &*object)?;
        let mut versions = bucket.versions(&object.key);
        let old = versions
            .iter()
            .position(|known| known.version == object.version)
            .map(|at| versions.remove(at));
        versions.push(Arc::clone(&object));
        bucket.set_versions(&object.key, versions);
        if let Some(old) = old.filter(|old| old.blob != object.blob) {
            self.drop_blob(&name, &old)?;
        }
        Ok(object)
    }

    fn drop_blob(&self, bucket: &str, object: &StoredObject) -> std::io::Result<()> {
        if object.is_marker {
            return Ok(());
        }
        fs::remove_file(self.blob(bucket, &object.blob))
    }

    /// One page of a bucket's versions, by key and from the newest. It starts after the version `after_version` of
    /// `listing.after`.
    pub(in crate::emulator) fn list_versions(
        &self,
        bucket: &str,
        listing: &Listing<'_>,
        after_version: &str,
    ) -> Result<StorePage<ListedVersion>, StoreError> {
        let buckets = self.lock();
        let found = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        let mut keys: Vec<&String> = found.objects.keys().chain(found.history.keys()).collect();
        keys.sort();
        keys.dedup();
        let after = listing.after;
        keys.retain(|key| {
            key.as_str() > after || (key.as_str() == after && !after_version.is_empty())
        });
        let entries = keys.into_iter().flat_map(|key| {
            let mut versions: Vec<ListedVersion> = found
                .versions(key)
                .into_iter()
                .enumerate()
                .map(|(index, object)| ListedVersion {
                    object,
                    is_latest: index == 0,
                })
                .collect();
            if key == after {
                let mut is_behind = false;
                versions.retain(|listed| {
                    let keeps = is_behind;
                    is_behind |= listed.object.version == after_version;
                    keeps
                });
            }
            versions
                .into_iter()
                .map(move |version| (key.as_str(), version))
        });
        Ok(list::page(entries, listing))
    }
}
