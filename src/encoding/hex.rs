//! Lower-case hexadecimal.

use sha2::{Digest as _, Sha256};

const LOWER: &[u8; 16] = b"0123456789abcdef";

/// `bytes` as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    push_hex(&mut out, bytes);
    out
}

/// Appends `bytes` as lower-case hex.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
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
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    let mut out = [0; N];
    let mut all = 0;
    for (slot, [high, low]) in out.iter_mut().zip(pairs) {
        let (high, low) = (lower_digit(*high), lower_digit(*low));
        all |= high | low;
        *slot = high << 4 | low & 15;
    }
    (all <= 15).then_some(out)
}

/// The value of a lower-case hexadecimal digit; more than 15 for any other byte.
fn lower_digit(byte: u8) -> u8 {
    let decimal = byte.wrapping_sub(b'0');
    let letter = byte.wrapping_sub(b'a');
    if decimal < 10 {
        decimal
    } else if letter < 6 {
        letter + 10
    } else {
        u8::MAX
    }
}

/// The SHA-256 of `bytes` in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The digit of the low four bits of `byte`.
pub(super) fn nibble(digits: &[u8; 16], byte: u8) -> u8 {
    #[expect(clippy::indexing_slicing, reason = "four bits index sixteen digits")]
    digits[usize::from(byte & 15)]
}

/// The value of a hexadecimal digit of either case.
pub(super) fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Appends bytes that are ASCII by construction.
pub(super) fn push_ascii(out: &mut String, bytes: &[u8]) {
    out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse_hex32(&text);
        }
    }
}
