//! Percent-encoding (RFC 3986 section 2.1): encoded as all signatures write it, decoded once.

use std::borrow::Cow;

use super::hex::{digit, nibble, push_ascii};

const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `bytes`, percent-encoded: all but RFC 3986's unreserved characters, hex digits upper case.
pub fn push_encoded(out: &mut String, bytes: &[u8]) {
    push_keeping(out, bytes, is_unreserved);
}

/// As [`push_encoded`], but keeps `/`: the canonical URI of S3, whose path is encoded only once.
pub fn push_encoded_path(out: &mut String, bytes: &[u8]) {
    push_keeping(out, bytes, |byte| is_unreserved(byte) || byte == b'/');
}

/// RFC 3986 section 2.3: letters, digits, `-`, `_`, `.` and `~`.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

/// The bytes that `text` encodes. `None` if a `%` is not followed by two hex digits. `+` is a plus.
pub fn percent_decode(text: &str) -> Option<Cow<'_, [u8]>> {
    decode(text, false)
}

/// As [`percent_decode`], but `+` is a space, as in a form (`application/x-www-form-urlencoded`).
pub(crate) fn form_decode(text: &str) -> Option<Cow<'_, [u8]>> {
    decode(text, true)
}

/// The bytes that a careless reader takes `text` for: an invalid escape stands for itself.
pub(crate) fn decode_leniently(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, after) = escape(rest).unwrap_or((first, tail));
        decoded.push(byte);
        rest = after;
    }
    decoded
}

fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, [u8]>> {
    let is_coded = |byte: &u8| *byte == b'%' || (*byte == b'+' && plus_is_space);
    let Some(first) = text.as_bytes().iter().position(is_coded) else {
        return Some(Cow::Borrowed(text.as_bytes()));
    };
    let (head, mut rest) = text.as_bytes().split_at(first);
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(head);
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => escape(rest)?,
            b'+' if plus_is_space => (b' ', tail),
            other => (other, tail),
        };
        out.push(byte);
        rest = after;
    }
    Some(Cow::Owned(out))
}

/// The byte of the escape that `bytes` begins with, and what follows it.
fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, after @ ..] = bytes else {
        return None;
    };
    Some((digit(*high)? << 4 | digit(*low)?, after))
}

/// Copies runs of kept bytes whole: most names and values are one run.
fn push_keeping(out: &mut String, bytes: &[u8], keep: impl Fn(u8) -> bool) {
    let mut rest = bytes;
    loop {
        let run = rest
            .iter()
            .position(|byte| !keep(*byte))
            .unwrap_or(rest.len());
        let (kept, tail) = rest.split_at(run);
        push_ascii(out, kept);
        let [byte, after @ ..] = tail else {
            return;
        };
        out.push('%');
        out.push(char::from(nibble(UPPER, byte >> 4)));
        out.push(char::from(nibble(UPPER, *byte)));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_a_percent_without_two_hex_digits() {
        for text in ["%", "%4", "a%zz", "%%41", "100%", "%g0", "%+1"] {
            assert_eq!(percent_decode(text), None, "{text}");
            assert_eq!(form_decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_plus_is_a_space_only_in_a_form() {
        assert_eq!(
            percent_decode("a+b%2B%20").as_deref(),
            Some(b"a+b+ ".as_slice())
        );
        assert_eq!(form_decode("a+b%2B").as_deref(), Some(b"a b+".as_slice()));
    }

    #[test]
    fn a_careless_reader_keeps_an_invalid_escape() {
        assert_eq!(decode_leniently("%2e%2E%zz%2"), b"..%zz%2");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_encoded_decodes_to_the_same_bytes(bytes: Vec<u8>) {
            let (mut component, mut path) = (String::new(), String::new());
            push_encoded(&mut component, &bytes);
            push_encoded_path(&mut path, &bytes);
            prop_assert_eq!(percent_decode(&component).unwrap(), bytes.as_slice());
            prop_assert_eq!(percent_decode(&path).unwrap(), bytes.as_slice());
            prop_assert_eq!(decode_leniently(&component), bytes);
            prop_assert!(component.bytes().all(|b| is_unreserved(b) || b == b'%'));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in ".*") {
            let _ = percent_decode(&text);
            let _ = form_decode(&text);
            let _ = decode_leniently(&text);
        }
    }
}
