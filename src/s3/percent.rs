//! Percent-decoding of a request's text, with S3's refusals.

use std::borrow::Cow;

use crate::encoding::percent::{form_decode, percent_decode};
use crate::error::{Code, S3Error};

/// How `+` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// As itself: in a path.
    Literal,
    /// As a space: in a query.
    Space,
}

/// Decodes `raw` once. Refuses a `%` without two hexadecimal digits, and what is not UTF-8 (overlong
/// forms included).
pub(super) fn decode(raw: &str, plus: Plus) -> Result<Cow<'_, str>, S3Error> {
    let decoded = match plus {
        Plus::Literal => percent_decode(raw),
        Plus::Space => form_decode(raw),
    };
    match decoded.ok_or_else(lone_percent)? {
        Cow::Borrowed(_) => Ok(Cow::Borrowed(raw)),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| {
            S3Error::new(
                Code::InvalidURI,
                "A percent-encoded text is not UTF-8; encode the bytes of its UTF-8 form.",
            )
        }),
    }
}

fn lone_percent() -> S3Error {
    S3Error::new(
        Code::InvalidURI,
        "A % is not followed by two hexadecimal digits; write % itself as %25.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plus_is_a_space_only_in_a_query() {
        assert_eq!(decode("a+b", Plus::Literal).unwrap(), "a+b");
        assert_eq!(decode("a+b%2B", Plus::Space).unwrap(), "a b+");
    }

    #[test]
    fn bad_escapes_are_refused() {
        for raw in [
            "%",
            "a%",
            "%2",
            "%zz",
            "%2g",
            "%+1",
            "%c0%ae",
            "%ff",
            "%ed%a0%80",
        ] {
            assert_eq!(
                decode(raw, Plus::Literal).unwrap_err().code(),
                Code::InvalidURI,
                "{raw}"
            );
        }
    }
}
