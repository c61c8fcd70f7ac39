//! Which bucket and key a request names.

use std::borrow::Cow;

/// An object key, decoded and checked against COS's rules (UTF-8, 1 to 850 bytes, no leading `/` or
/// `\`, no `.` or `..` segment however encoded, no NUL and no control character that COS refuses).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey<'a>(Cow<'a, str>);

impl<'a> ObjectKey<'a> {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Stand-in.
    pub fn parse(key: impl Into<Cow<'a, str>>) -> Result<Self, super::S3Error> {
        Ok(Self(key.into()))
    }
}
