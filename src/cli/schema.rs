//! `cosgate schema`: the JSON schema of the configuration.

use std::process::ExitCode;

use clap::Args;
use cosgate::config::schema;

/// Print the JSON schema of the configuration, for editors.
///
/// It says which keys there are, and what may be written for each. `cosgate check` says more: what is missing,
/// and what does not go together.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  cosgate schema > cosgate.schema.json, and `#:schema ./cosgate.schema.json` as the first line of cosgate.toml")]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> ExitCode {
    super::printed(&format!("{:#}\n", schema()))
}
