//! The command line: one file a command.

mod certs;
mod check;
mod credentials;
#[cfg(feature = "emulator")]
mod dev;
#[cfg(feature = "emulator")]
mod emulator;
mod explain;
mod keygen;
mod serve;

use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracing_subscriber::EnvFilter;

/// S3-compatible signing reverse proxy for Tencent Cloud COS.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Certs(certs::Arguments),
    Check(check::Arguments),
    Credentials(Box<credentials::Arguments>),
    #[cfg(feature = "emulator")]
    Dev(dev::Arguments),
    #[cfg(feature = "emulator")]
    Emulator(emulator::Arguments),
    Explain(Box<explain::Arguments>),
    Keygen(keygen::Arguments),
    Serve(serve::Arguments),
}

/// What could not be done because of what the user gave: arguments, files, configuration.
const USAGE: u8 = 2;

impl Arguments {
    /// Does what was asked.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Certs(arguments) => certs::run(&arguments),
            Command::Check(arguments) => check::run(&arguments),
            Command::Credentials(arguments) => credentials::run(&arguments),
            #[cfg(feature = "emulator")]
            Command::Dev(arguments) => dev::run(&arguments),
            #[cfg(feature = "emulator")]
            Command::Emulator(arguments) => emulator::run(&arguments),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Keygen(arguments) => keygen::run(&arguments),
            Command::Serve(arguments) => serve::run(&arguments),
        }
    }
}

/// How many cores this machine has.
fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Keeps what is in memory out of core files, and of other processes of the same user. It is the last
/// fence and not the first: where the system refuses, the program runs all the same.
fn guard_memory() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core files cannot be turned off");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process stays open to debuggers of its user");
    }
}

/// What the program says of itself goes to standard error; `COSGATE_LOG` filters it, as `RUST_LOG`
/// does elsewhere (default `info`). Standard output is the access log's.
fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("COSGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info,s3s=off"));
    // A second call finds the first one's subscriber, which is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
