//! The first content of the store, from a folder: its subfolders become buckets, and their files become objects.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::store::{Attributes, NewObject, Store, StoreError};
use super::{REGION, clock};

/// Maximum depth of folders: a symbolic link could lead in a circle.
const DEPTH: usize = 64;

/// Adds the content of `folder` that the store does not have yet. A folder gets `appid` unless its name ends in one.
pub(super) fn seed(store: &Store, folder: &Path, appid: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder).map_err(|error| named(folder, &error))? {
        let path = entry?.path();
        if !path.is_dir() {
            let hint = "the seed has a folder for each bucket; put the file into one";
            return Err(named(&path, &io::Error::other(hint)));
        }
        let name = file_name(&path)?;
        let has_appid = name
            .rsplit_once('-')
            .is_some_and(|(_, end)| end.len() >= 4 && end.bytes().all(|b| b.is_ascii_digit()));
        let bucket = if has_appid {
            name
        } else {
            format!("{name}-{appid}")
        };
        store.create_bucket(&bucket, REGION, clock())?;
        put_folder(store, &bucket, &path, (String::new(), 0))?;
    }
    Ok(())
}

fn put_folder(
    store: &Store,
    bucket: &str,
    folder: &Path,
    (prefix, depth): (String, usize),
) -> io::Result<()> {
    if depth > DEPTH {
        let hint = format!("more than {DEPTH} folders below each other");
        return Err(named(folder, &io::Error::other(hint)));
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let key = format!("{prefix}{}", file_name(&path)?);
        if path.is_dir() {
            put_folder(store, bucket, &path, (key + "/", depth + 1))?;
        } else if store.object(bucket, &key).is_err() {
            put(store, bucket, &key, &path).map_err(|error| named(&path, &error))?;
        }
    }
    Ok(())
}

fn put(store: &Store, bucket: &str, key: &str, path: &Path) -> io::Result<()> {
    let new = NewObject {
        received: store.copy(File::open(path)?, 0, u64::MAX)?,
        attributes: Attributes::default(),
        modified: clock(),
    };
    let put = store.put_object(bucket, key, new, |_, _| Ok(()));
    put.map(drop).map_err(StoreError::into_io)
}

fn file_name(path: &Path) -> io::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| named(path, &io::Error::other("the name is not UTF-8")))?;
    Ok(name.to_owned())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("seed {}: {error}", path.display()))
}
