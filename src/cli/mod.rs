//! The command line: one file a command.

mod certs;
mod check;
mod completions;
mod credentials;
#[cfg(feature = "emulator")]
mod dev;
mod doctor;
#[cfg(feature = "emulator")]
mod emulator;
mod explain;
mod health;
mod keygen;
#[cfg(feature = "load")]
mod load;
mod man;
mod process;
mod reload;
mod schema;
mod serve;
mod systemd;
mod traces;
mod version;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::{Parser, Subcommand};

/// S3-compatible signing reverse proxy for Tencent Cloud COS.
#[derive(Debug, Parser)]
#[command(name = "cosgate", version, long_version = version::long_version(), about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Certs(certs::Arguments),
    Check(check::Arguments),
    Completions(completions::Arguments),
    Credentials(Box<credentials::Arguments>),
    #[cfg(feature = "emulator")]
    Dev(dev::Arguments),
    Doctor(doctor::Arguments),
    #[cfg(feature = "emulator")]
    Emulator(emulator::Arguments),
    Explain(Box<explain::Arguments>),
    Health(health::Arguments),
    Keygen(keygen::Arguments),
    #[cfg(feature = "load")]
    Load(Box<load::Arguments>),
    Man(man::Arguments),
    Schema(schema::Arguments),
    Serve(serve::Arguments),
}

/// What could not be done because of what the user gave: arguments, files, configuration.
const USAGE: u8 = 2;

impl Arguments {
    /// Does what was requested.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Certs(arguments) => certs::run(&arguments),
            Command::Check(arguments) => check::run(&arguments),
            Command::Completions(arguments) => completions::run(&arguments),
            Command::Credentials(arguments) => credentials::run(&arguments),
            #[cfg(feature = "emulator")]
            Command::Dev(arguments) => dev::run(&arguments),
            Command::Doctor(arguments) => doctor::run(&arguments),
            #[cfg(feature = "emulator")]
            Command::Emulator(arguments) => emulator::run(&arguments),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Health(arguments) => health::run(&arguments),
            Command::Keygen(arguments) => keygen::run(&arguments),
            #[cfg(feature = "load")]
            Command::Load(arguments) => load::run(*arguments),
            Command::Man(arguments) => man::run(&arguments),
            Command::Schema(arguments) => schema::run(&arguments),
            Command::Serve(arguments) => serve::run(&arguments),
        }
    }
}

/// Says why a command that serves cannot begin.
fn cannot_start(error: &io::Error) -> ExitCode {
    complain(&format_args!("cosgate: error: cannot start: {error}"));
    ExitCode::FAILURE
}

/// How many cores this machine has.
fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Prints a command's result. A reader that has left, as `head` does, is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// The same, with the exit status that follows from it.
fn printed(text: &str) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format_args!(
                "cosgate: error: cannot write to standard output: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line for the user to standard error, if anybody reads it.
fn complain(line: &impl Display) {
    // In one call: standard error has no buffer, and a configuration may have thousands of warnings.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A word as a shell takes it: in quotes where it has a character that shells may read otherwise.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
