//! Small files, read whole up to a limit: a file that grows while it is read is refused too.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

/// What the file holds, at most `max` bytes. It is erased from memory afterwards, since some files hold secrets.
/// The error's text names the file.
pub(crate) fn read_file(file: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let wrong = |error: io::Error| {
        let text = format!("cannot read {}: {error}", file.display());
        io::Error::new(error.kind(), text)
    };
    let mut open = File::open(file).map_err(wrong)?.take(max.saturating_add(1));
    // Room for all of it: a buffer that grows would leave copies behind.
    let length = open.get_ref().metadata().map_err(wrong)?.len();
    let room = usize::try_from(length.min(max)).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let read = open.read_to_end(&mut bytes).map_err(wrong)?;
    if read as u64 > max {
        let text = format!("{} is larger than {} KiB", file.display(), max >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// The same for text.
pub(crate) fn read_text_file(file: &Path, max: u64) -> io::Result<Zeroizing<String>> {
    let mut bytes = read_file(file, max)?;
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        let text = format!("cannot read {}: it is not UTF-8", file.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    });
    text.map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit_and_no_byte_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a name.json");
        std::fs::write(&file, vec![b'x'; 2048]).unwrap();
        assert_eq!(read_text_file(&file, 2048).unwrap().len(), 2048);
        let error = read_file(&file, 2047).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(
            error
                .to_string()
                .contains("a name.json is larger than 1 KiB")
        );
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("none");
        let error = read_file(&file, 1).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read ") && error.contains("/none: "),
            "{error}"
        );
        std::fs::write(&file, b"\xff").unwrap();
        let error = read_text_file(&file, 1).unwrap_err().to_string();
        assert!(error.ends_with("/none: it is not UTF-8"), "{error}");
    }

    /// What has no length, such as a device, has a limit too.
    #[test]
    fn reads_no_endless_file() {
        let error = read_file(Path::new("/dev/zero"), 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
