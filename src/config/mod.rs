//! The configuration: the file as written becomes [`Config`], which the program may rely on.
//!
//! Nothing is read here: the text, the environment and files come in through [`Sources`]. `keys/` lists
//! every key; `section.rs` reads tables by that list; the other files each know one table.

pub(crate) mod actions;
mod admission;
pub mod aws_actions;
mod base_key;
pub mod cam;
mod changes;
mod claims;
mod cors;
mod endpoint;
mod file;
mod given_secret;
mod grammar;
mod grants;
mod identities;
mod include;
mod issuers;
mod key_glob;
mod keys;
mod limits;
mod log;
mod model;
mod named_file;
mod names;
mod overlaps;
mod parse;
mod prefix;
mod problem;
mod profile;
pub(crate) mod raw_policy;
#[cfg(test)]
mod reference;
mod regions;
mod role;
mod schema;
mod secrets;
mod section;
mod server;
mod session_policy;
mod sessions;
mod shown;
mod syntax;
mod templates;
mod tenants;
mod traces;
mod unix;
mod vend;

use std::time::Duration;

pub use cors::{CORS_METHODS, CorsRule, Wildcard};
pub use endpoint::EndpointTemplate;
pub(crate) use endpoint::is_loopback;
pub use file::Sources;
pub use given_secret::{GivenSecret, SecretSource};
pub use key_glob::KeyGlob;
pub(crate) use keys::MAX_HEAD_FIELDS;
pub use log::{AccessFormat, LogConfig, ProgramFormat, SampleShare};
pub use model::*;
pub use named_file::{FileKind, NamedFile};
pub use prefix::PrefixPattern;
pub use problem::{Location, Problem, Severity, nearest};
pub(crate) use profile::Profile;
pub use raw_policy::{PolicyRule, RawPolicy};
pub use regions::REGIONS;
pub(crate) use role::TENANT;
pub use schema::schema;
pub(crate) use session_policy::SESSION_POLICY_BYTES;
pub use session_policy::{SessionPolicy, SessionStatement};
pub use shown::ShownTable;
pub use traces::{CollectorConfig, TracesConfig};

/// Reads a duration as configurations write it (`30s`, `1h30m`, `250ms`). The error names the fix.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    grammar::duration(text).map_err(|mistake| format!("{}; {}", mistake.message, mistake.fix))
}

/// Reads a size as configurations write it (`100`, `16KiB`, `2MiB`, `1GiB`). The error names the fix.
pub fn read_size(text: &str) -> Result<u64, String> {
    grammar::size(text).map_err(|mistake| format!("{}; {}", mistake.message, mistake.fix))
}

/// A length of time as the configuration has it (`30s`, `2h`, `1h30m`), or whole seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let read = grammar::duration(text);
    read.map_err(|mistake| format!("{}; {}", mistake.message, mistake.fix))
}

/// The full names of what a preset or an action of COS stands for, as in a grant's `actions`.
pub(crate) fn unfold_action(text: &str) -> Result<Vec<String>, String> {
    actions::unfold(text).map_err(|mistake| mistake.message)
}

impl Config {
    /// Reads the configuration `text` of the file `file_name`, and checks it whole.
    ///
    /// Gives the configuration and its warnings, or, if anything is wrong, everything that is. A
    /// scalar key may be overridden by its `COSGATE_…` variable; relative paths are relative to the
    /// file's directory.
    pub fn parse(
        file_name: &str,
        text: &str,
        sources: &Sources<'_>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        parse::parse(file_name, text, sources)
    }
}
