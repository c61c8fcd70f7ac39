//! Percent-decoding, once and strictly (RFC 3986 section 2.1).

use std::borrow::Cow;

use super::{Code, S3Error};

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
    let is_coded = |b: u8| b == b'%' || (b == b'+' && plus == Plus::Space);
    if !raw.bytes().any(is_coded) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => octet(bytes.next(), bytes.next()).ok_or_else(lone_percent)?,
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| {
        S3Error::new(
            Code::InvalidURI,
            "A percent-encoded text is not UTF-8; encode the bytes of its UTF-8 form.",
        )
    })
}

/// Decodes as a careless reader would: what is no escape stays as it is.
pub(super) fn decode_leniently(raw: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                octet(Some(*high), Some(*low)).map(|octet| (octet, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((first, tail));
        decoded.push(byte);
        rest = after;
    }
    decoded
}

fn octet(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    Some(digit(high?)? << 4 | digit(low?)?)
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        b'A'..=b'F' => Some(hex - b'A' + 10),
        _ => None,
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

    #[test]
    fn a_careless_reader_keeps_what_is_no_escape() {
        assert_eq!(decode_leniently("%2e%2E%zz%2"), b"..%zz%2");
    }
}
