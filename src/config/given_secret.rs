//! [`GivenSecret`]: a secret and where it came from.

use std::fmt;
use std::path::{Path, PathBuf};

use super::grammar;
use crate::secret::Secret;

/// A secret as it was when the configuration was read, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenSecret {
    /// The secret.
    pub value: Secret,
    /// Where it came from.
    pub source: SecretSource,
}

/// Where a secret came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// `file:PATH`: it may change there.
    File(PathBuf),
    /// It stands in the configuration itself.
    Literal,
    /// `env:NAME`, or the variable that sets the key.
    Variable(String),
}

impl GivenSecret {
    /// The file that it came from.
    pub fn file(&self) -> Option<&Path> {
        match &self.source {
            SecretSource::File(path) => Some(path),
            SecretSource::Literal | SecretSource::Variable(_) => None,
        }
    }

    /// The secret that a file or variable holds: its text without the white space around it, which editors,
    /// `echo` and mounted secrets add. The error quotes nothing.
    pub fn parse(text: &str) -> Result<Secret, String> {
        grammar::secret(text.trim()).map_err(|mistake| mistake.message)
    }
}

/// Without the secret: it may be shown.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Literal => f.write_str("(in the configuration itself)"),
            Self::Variable(name) => write!(f, "env:{name}"),
        }
    }
}
