//! The command line: one file a command.

mod check;
mod keygen;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// S3-compatible signing reverse proxy for Tencent Cloud COS.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    Keygen(keygen::Arguments),
}

/// What could not be done because of what the user gave: arguments, files, configuration.
const USAGE: u8 = 2;

impl Arguments {
    /// Does what was asked.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Check(arguments) => check::run(&arguments),
            Command::Keygen(arguments) => keygen::run(&arguments),
        }
    }
}
