//! The state of the whole store, kept and brought back.
//!
//! Files of the store never change in place, so a snapshot is a second name for each.

use std::fs;
use std::io;
use std::path::Path;

use super::{Store, load, random_name};

/// A snapshot, and what is on its way to be the snapshot or the state.
const SNAPSHOT: &str = "snapshot";
const NEXT_SNAPSHOT: &str = "snapshot.next";
const NEXT_BUCKETS: &str = "buckets.next";

impl Store {
    /// Keeps the state as it is, in place of an earlier snapshot. Blocks.
    pub(in crate::emulator) fn snapshot(&self) -> io::Result<()> {
        let _unchanged = self.lock();
        let next = self.root.join(NEXT_SNAPSHOT);
        remove(&next)?;
        link(&self.root.join("buckets"), &next)?;
        let place = self.root.join(SNAPSHOT);
        remove(&place)?;
        fs::rename(next, place)
    }

    /// Brings the snapshot's state back; `false` when there is no snapshot. Blocks.
    pub(in crate::emulator) fn reset(&self) -> io::Result<bool> {
        let mut buckets = self.lock();
        let snapshot = self.root.join(SNAPSHOT);
        if !snapshot.is_dir() {
            return Ok(false);
        }
        let (place, next) = (self.root.join("buckets"), self.root.join(NEXT_BUCKETS));
        remove(&next)?;
        link(&snapshot, &next)?;
        let old = self.root.join("tmp").join(random_name()?);
        fs::rename(&place, &old)?;
        fs::rename(next, &place)?;
        *buckets = load(&place)?;
        remove(&old)?;
        Ok(true)
    }
}

/// Ends a reset that was cut short between its two renames.
pub(super) fn recover(root: &Path) -> io::Result<()> {
    let (place, next) = (root.join("buckets"), root.join(NEXT_BUCKETS));
    if place.exists() {
        return remove(&next);
    }
    if next.exists() {
        fs::rename(next, place)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives each file below `from` a second name below `to`, or copies it where the file system has no such names.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link(&entry.path(), &name)?;
        } else if fs::hard_link(entry.path(), &name).is_err() {
            fs::copy(entry.path(), &name)?;
        }
    }
    Ok(())
}
