//! The files that a configuration is read from, or names.

use std::path::PathBuf;

/// A file that belongs to a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
}

/// What a file is to the configuration that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// PEM: a certificate, a key or authorities.
    Certificate,
    /// A part of the configuration.
    Configuration,
    /// A folder with parts of the configuration.
    Folder,
    /// A secret (`file:PATH`).
    Secret,
}
