//! Secrets are values that cannot print and are wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text: a secret key, a session token, a policy's base key.
///
/// It has no `Display`, its `Debug` is a placeholder, and its memory is wiped on drop. The only way
/// out is [`Secret::expose`], so `grep expose` lists every place that handles one in the open.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself. Never log, store or return what this gives.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// For configurations that are compared. It takes as long for secrets that differ as for the same.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (own, other) = (self.0.as_bytes(), other.0.as_bytes());
        aws_lc_rs::constant_time::verify_slices_are_equal(own, other).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
