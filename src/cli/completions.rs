//! `cosgate completions`: completion scripts for shells.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

/// Print a script that makes a shell complete commands and options.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate completions bash > /etc/bash_completion.d/cosgate
  cosgate completions zsh > ~/.zfunc/_cosgate
  cosgate completions fish > ~/.config/fish/completions/cosgate.fish")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let mut script = Vec::new();
    generate(
        arguments.shell,
        &mut super::Arguments::command(),
        "cosgate",
        &mut script,
    );
    super::printed(&String::from_utf8_lossy(&script))
}
