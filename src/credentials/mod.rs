//! Temporary keys: fetched from STS, kept, and renewed before they expire.

mod backlog;
mod base;
mod breaker;
pub(crate) mod cache;
mod call_limiter;
mod call_state;
mod credential;
pub(crate) mod entry;
mod fetched_key;
pub mod get_credential;
mod issue_error;
pub(crate) mod issuer;
mod issuers;
mod key_command;
mod key_document;
mod key_files;
pub(crate) mod key_sets;
mod lanes;
mod metadata;
mod names;
mod redis_link;
mod schedule;
mod scopes;
pub mod shapes;
mod shared;
mod sharing_identity;
mod single_flight;
#[doc(hidden)]
pub mod sts;
mod turns;
pub(crate) mod vendor;
mod whole_keys;

#[doc(hidden)]
pub use cache::{Cache, StartError};
pub use credential::{BadToken, Credential};
#[doc(hidden)]
pub use entry::Entry;
pub use get_credential::{AssumedRole, GetCredentialError, Host, Options, Scope, get_credential};
#[doc(hidden)]
pub use issue_error::{IssueError, NoKey};
#[doc(hidden)]
pub use issuer::StsIssuer;
#[doc(hidden)]
pub use names::{audit_name, session_name};
pub use sts::{StsClass, StsError};
pub(crate) use whole_keys::Vended;

pub use crate::config::cam::{Condition, Policy, PolicyError};
pub use crate::upstream::dial::{DialError, HttpProxy};
