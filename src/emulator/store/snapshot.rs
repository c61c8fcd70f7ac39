//! Snapshots of the whole store: saved and restored.
//!
//! Files of the store never change in place, so that a snapshot is a hard link to each.

use std::fs;
use std::io;
use std::path::Path;

use super::{Store, load, random_name};

/// The folder of a snapshot, and the temporary folders of a snapshot and of a reset.
const SNAPSHOT: &str = "snapshot";
const NEXT_SNAPSHOT: &str = "snapshot.next";
const NEXT_BUCKETS: &str = "buckets.next";

impl Store {
    /// Saves the state in place of an earlier snapshot. Blocks.
    pub(in crate::emulator) fn snapshot(&self) -> io::Result<()> {
        let _unchanged = self.lock();
        let next = self.root.join(NEXT_SNAPSHOT);
        remove(&next)?;
        link(&self.root.join("buckets"), &next)?;
        let folder = self.root.join(SNAPSHOT);
        remove(&folder)?;
        fs::rename(next, folder)
    }

    /// Restores the state of the snapshot; `false` when there is none. Blocks.
    pub(in crate::emulator) fn reset(&self) -> io::Result<bool> {
        let mut buckets = self.lock();
        let snapshot = self.root.join(SNAPSHOT);
        if !snapshot.is_dir() {
            return Ok(false);
        }
        let (folder, next) = (self.root.join("buckets"), self.root.join(NEXT_BUCKETS));
        remove(&next)?;
        link(&snapshot, &next)?;
        let old = self.root.join("tmp").join(random_name()?);
        fs::rename(&folder, &old)?;
        fs::rename(next, &folder)?;
        *buckets = load(&folder)?;
        remove(&old)?;
        Ok(true)
    }
}

/// Completes a reset that was interrupted between its two renames.
pub(super) fn recover(root: &Path) -> io::Result<()> {
    let (folder, next) = (root.join("buckets"), root.join(NEXT_BUCKETS));
    if folder.exists() {
        return remove(&next);
    }
    if next.exists() {
        fs::rename(next, folder)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Links each file below `from` to a name below `to`. Copies it if the file system has no hard links.
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
