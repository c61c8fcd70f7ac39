//! The query, parsed once.

use std::borrow::Cow;

/// Decoded pairs in the client's order. A parameter without `=` has an empty value.
#[derive(Clone, Debug, Default)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// The value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))
    }

    /// Stand-in.
    pub fn parse(text: &'a str) -> Result<Self, super::S3Error> {
        Ok(Self(
            text.split('&')
                .filter(|p| !p.is_empty())
                .map(|p| {
                    let (n, v) = p.split_once('=').unwrap_or((p, ""));
                    (
                        Cow::Borrowed(n),
                        percent_encoding::percent_decode_str(v).decode_utf8_lossy(),
                    )
                })
                .collect(),
        ))
    }
}
