//! [`FileState`]: whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

/// What changes when a file is written or replaced, at the end of its symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    modified: SystemTime,
    length: u64,
    /// Device and inode.
    identity: (u64, u64),
}

impl FileState {
    /// The state of the file, or `None` while there is none that can be looked at.
    pub fn of(file: &Path) -> Option<Self> {
        let found = std::fs::metadata(file).ok()?;
        Some(Self {
            modified: found.modified().ok()?,
            length: found.len(),
            identity: (found.dev(), found.ino()),
        })
    }
}
