//! `cosgate man`: the manual, a page for each command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::{Args, CommandFactory as _};
use clap_mangen::generate_to;

use super::USAGE;

/// Write the manual as man pages, one for each command.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  cosgate man /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// The folder to write to; cosgate makes it if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match write(&arguments.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let folder = arguments.folder.display();
            super::complain(&format_args!("cosgate: error: {folder}: {error}"));
            ExitCode::from(USAGE)
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    generate_to(super::Arguments::command(), folder)
}
