//! [`LogFile`]: a file that a log is appended to, and that is opened again when it was moved away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The owner writes it, and their group may read it: it names people and their files.
const MODE: u32 = 0o640;

/// The file of a log.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Somebody has moved it away.
    moved: Arc<AtomicBool>,
}

impl LogFile {
    /// Opens the file at `path`, or makes it. `moved` is set when it must be opened again.
    pub(super) fn open(path: &Path, moved: Arc<AtomicBool>) -> io::Result<Self> {
        let file = open(path).map_err(|error| {
            let kind = error.kind();
            io::Error::new(kind, format!("cannot open {}: {error}", path.display()))
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            moved,
        })
    }
}

fn open(path: &Path) -> io::Result<File> {
    // To open a pipe would wait for its reader, and no signal would end that.
    if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        let why = "it is a pipe; write the path of a file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).open(path)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Called between two batches of whole lines. A file that cannot be opened is no reason to lose lines.
    fn flush(&mut self) -> io::Result<()> {
        if self.moved.swap(false, Ordering::Relaxed) {
            match open(&self.path) {
                Ok(file) => {
                    self.file = file;
                    tracing::info!(path = %self.path.display(), "the log file was opened again");
                }
                Err(error) => tracing::error!(
                    path = %self.path.display(),
                    %error,
                    "the log file cannot be opened again; lines go to the old one"
                ),
            }
        }
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_pipe_and_does_not_wait_for_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let error = LogFile::open(&path, Arc::default()).unwrap_err();
        assert!(error.to_string().contains("it is a pipe"), "{error}");
    }

    #[test]
    fn reopens_a_moved_file_between_batches() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        fs::write(&path, "before\n").unwrap();
        let moved = Arc::new(AtomicBool::new(false));
        let mut file = LogFile::open(&path, Arc::clone(&moved)).unwrap();
        let mut write = |line: &str| {
            file.write_all(line.as_bytes()).unwrap();
            file.flush().unwrap();
        };
        write("a\n");
        fs::rename(&path, &old).unwrap();
        write("b\n");
        moved.store(true, Ordering::Relaxed);
        write("c\n");
        write("d\n");
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\na\nb\nc\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\n");
    }

    #[test]
    fn keeps_the_old_file_if_it_cannot_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let moved = Arc::new(AtomicBool::new(false));
        let mut file = LogFile::open(&logs.join("log"), Arc::clone(&moved)).unwrap();
        let away = folder.path().join("away");
        fs::rename(&logs, &away).unwrap();
        moved.store(true, Ordering::Relaxed);
        file.flush().unwrap();
        file.write_all(b"a\n").unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read_to_string(away.join("log")).unwrap(), "a\n");
    }

    #[test]
    fn names_a_file_that_cannot_be_opened() {
        let error = LogFile::open(Path::new("/no/such/folder/log"), Arc::default()).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/log"), "{error}");
    }
}
