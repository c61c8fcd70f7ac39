//! Percent-encoding and hexadecimal, as all three signatures write them.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";
/// The block of SHA-1 and of SHA-256, in bytes (RFC 2104 section 2 pads an HMAC key to it).
const BLOCK: usize = 64;

/// Appends `bytes`, percent-encoded: all but RFC 3986's unreserved characters, hex digits upper case.
pub fn push_encoded(out: &mut String, bytes: &[u8]) {
    push_keeping(out, bytes, is_unreserved);
}

/// As [`push_encoded`], but keeps `/`: the canonical URI of S3, whose path is encoded only once.
pub fn push_encoded_path(out: &mut String, bytes: &[u8]) {
    push_keeping(out, bytes, |byte| is_unreserved(byte) || byte == b'/');
}

/// RFC 3986 section 2.3: letters, digits, `-`, `_`, `.` and `~`.
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

/// The bytes that `text` writes. `None` when a `%` is not followed by two hex digits. `+` is a plus.
pub fn percent_decode(text: &str) -> Option<Cow<'_, [u8]>> {
    let Some(first) = text.find('%') else {
        return Some(Cow::Borrowed(text.as_bytes()));
    };
    let (head, mut rest) = text.as_bytes().split_at(first);
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(head);
    loop {
        match rest {
            [] => return Some(Cow::Owned(out)),
            [b'%', high, low, tail @ ..] => {
                out.push(digit(*high)? << 4 | digit(*low)?);
                rest = tail;
            }
            [b'%', ..] => return None,
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

/// `bytes` as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    push_hex(&mut out, bytes);
    out
}

/// Appends `bytes` as lower-case hex.
pub fn push_hex(out: &mut String, bytes: &[u8]) {
    for piece in bytes.chunks(32) {
        let mut text = [[0; 2]; 32];
        for (pair, byte) in text.iter_mut().zip(piece) {
            *pair = [nibble(LOWER, byte >> 4), nibble(LOWER, *byte)];
        }
        let text = text
            .as_flattened()
            .get(..2 * piece.len())
            .unwrap_or_default();
        push_ascii(out, text);
    }
}

/// Reads exactly 64 lower-case hex digits: a SHA-256 or a signature. Upper case is refused, because
/// no client writes it and one value should have one spelling.
pub fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    parse_hex(text)
}

/// Reads exactly `2 * N` lower-case hex digits.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut out = [0; N];
    for (slot, [high, low]) in out.iter_mut().zip(pairs) {
        *slot = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// The SHA-256 of `bytes` in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// HMAC-SHA1 ready under `key`.
pub(crate) fn hmac_sha1(key: &[u8]) -> Hmac<Sha1> {
    Hmac::new((&*block_key::<Sha1>(key)).into())
}

/// HMAC-SHA256 ready under `key`.
pub(crate) fn hmac_sha256(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new((&*block_key::<Sha256>(key)).into())
}

/// RFC 2104 section 2: a key longer than the block is hashed, then zeros fill the block.
fn block_key<D: Digest>(key: &[u8]) -> Zeroizing<[u8; BLOCK]> {
    let mut block = Zeroizing::new([0; BLOCK]);
    if key.len() > BLOCK {
        fill(&mut block, &D::digest(key));
    } else {
        fill(&mut block, key);
    }
    block
}

fn fill(block: &mut [u8; BLOCK], bytes: &[u8]) {
    for (slot, byte) in block.iter_mut().zip(bytes) {
        *slot = *byte;
    }
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

/// Appends bytes that are ASCII by construction.
fn push_ascii(out: &mut String, bytes: &[u8]) {
    out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
}

fn nibble(digits: &[u8; 16], byte: u8) -> u8 {
    #[expect(clippy::indexing_slicing, reason = "four bits index sixteen digits")]
    digits[usize::from(byte & 15)]
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_a_percent_without_two_hex_digits() {
        for text in ["%", "%4", "a%zz", "%%41", "100%", "%g0", "%+1"] {
            assert_eq!(percent_decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_plus_is_a_plus() {
        assert_eq!(
            percent_decode("a+b%2B%20").as_deref(),
            Some(b"a+b+ ".as_slice())
        );
    }

    #[test]
    fn refuses_hex_of_another_length_or_case() {
        let good = sha256_hex(b"");
        assert_eq!(
            parse_hex32(&good).map(|hash| hex(&hash)),
            Some(good.clone())
        );
        for bad in [
            &good[1..],
            &good[2..],
            &good.to_uppercase(),
            &format!("{good}00"),
            &good.replace('e', "g"),
            "",
        ] {
            assert_eq!(parse_hex32(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_longer_than_the_block_is_hashed_first() {
        use hmac::Mac;
        let long = [0xaa; 131];
        let ours = hmac_sha256(&long)
            .chain_update(b"x")
            .finalize()
            .into_bytes();
        let theirs = Hmac::<Sha256>::new_from_slice(&long)
            .unwrap()
            .chain_update(b"x")
            .finalize()
            .into_bytes();
        assert_eq!(ours, theirs);
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
            prop_assert!(component.bytes().all(|b| is_unreserved(b) || b == b'%'));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in ".*") {
            let _ = percent_decode(&text);
            let _ = parse_hex32(&text);
        }
    }
}
