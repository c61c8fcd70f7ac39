//! Appendable objects (436/7741). A blob never changes, so each append makes a new one of the old content and the
//! appended bytes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use s3s::{S3Error, S3ErrorCode, S3Result};

use super::transfer::Received;
use super::versions::{NULL, Versioning};
use super::{NewObject, Store, StoreError, StoredObject};

/// Maximum size of an appendable object in bytes.
const LIMIT: u64 = 5 * 1024 * 1024 * 1024;

impl Store {
    /// Appends to the object of exactly `position` bytes, or makes an appendable one at position 0. An object keeps the
    /// attributes that it was made with. Blocks.
    pub(in crate::emulator) fn append(
        &self,
        (bucket, key): (&str, &str),
        position: u64,
        new: NewObject,
    ) -> Result<Arc<StoredObject>, StoreError> {
        let old = match self.open_version(bucket, key, None) {
            Ok(old) => Some(old),
            Err(StoreError::NoSuchKey | StoreError::Hidden(_)) => None,
            Err(error) => return Err(error),
        };
        let there = old.as_ref().map(|(object, _)| Arc::clone(object));
        check(there.as_deref(), position, new.received.size).map_err(StoreError::Refused)?;
        let attributes = match &there {
            Some(there) => there.attributes.clone(),
            None => new.attributes,
        };
        let received = match old {
            Some((object, content)) => self
                .join(content, object.size, &new.received)
                .map_err(StoreError::Io)?,
            None => new.received,
        };
        let mut buckets = self.lock();
        let found = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        if found.versioning() != Versioning::Never {
            return Err(StoreError::Refused(conflict(
                "InvalidBucketState",
                "A bucket with versions has no appendable objects.",
            )));
        }
        // Another write may have come first.
        let is_same = match (found.objects.get(key), &there) {
            (Some(current), Some(there)) => current.blob == there.blob,
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            return Err(StoreError::Refused(wrong_position()));
        }
        found.last_order += 1;
        let object = StoredObject {
            key: key.into(),
            size: received.size,
            etag: received.etag(),
            crc64: received.crc64,
            modified: new.modified.unix(),
            attributes,
            blob: self.keep(bucket, received).map_err(StoreError::Io)?,
            version: NULL.to_owned(),
            order: found.last_order,
            is_marker: false,
            is_appendable: true,
        };
        self.replace(found, object).map_err(StoreError::Io)
    }

    /// The first `size` bytes of `content` and what was received.
    fn join(&self, content: File, size: u64, appended: &Received) -> io::Result<Received> {
        let mut intake = self.intake()?;
        io::copy(&mut io::Read::take(content, size), &mut intake)?;
        io::copy(&mut appended.file.reopen()?, &mut intake)?;
        Ok(intake.finish())
    }
}

fn check(there: Option<&StoredObject>, position: u64, length: u64) -> S3Result<()> {
    if there.is_some_and(|there| !there.is_appendable) {
        return Err(conflict(
            "ObjectNotAppendable",
            "The object you specified is not appendable.",
        ));
    }
    if there.map_or(0, |there| there.size) != position {
        return Err(wrong_position());
    }
    if position.saturating_add(length) > LIMIT {
        return Err(S3ErrorCode::EntityTooLarge.into());
    }
    Ok(())
}

/// The code is that of the table of errors (436/7730). The page of the operation names the status alone.
fn wrong_position() -> S3Error {
    conflict(
        "AppendPositionErr",
        "The position is not the length of the object.",
    )
}

fn conflict(code: &'static str, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(http::StatusCode::CONFLICT);
    error
}
