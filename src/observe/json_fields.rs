//! Fields of a log's line as JSON. Each begins with a comma: something stands before it.

use std::fmt::Write as _;
use std::time::Duration;

/// Longer texts are cut. A COS key (850 bytes) is never cut.
pub(super) const FIELD_BYTES: usize = 1024;

pub(super) fn number(json: &mut String, name: &str, value: u64) {
    push_name(json, name);
    json.push_str(itoa::Buffer::new().format(value));
}

/// Milliseconds, with three decimals.
pub(super) fn milliseconds(json: &mut String, name: &str, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(json, name, micros / 1000);
    json.push('.');
    for place in [100, 10, 1] {
        let digit = u32::try_from(micros / place % 10).unwrap_or_default();
        json.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
}

pub(super) fn text(json: &mut String, name: &str, value: Option<&str>) {
    bytes(json, name, value.map(str::as_bytes));
}

/// The same of what need not be UTF-8.
pub(super) fn bytes(json: &mut String, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        cut_text(json, name, value, FIELD_BYTES);
    }
}

/// The same, cut after `most` bytes.
pub(super) fn cut_text(json: &mut String, name: &str, value: &[u8], most: usize) {
    push_name(json, name);
    json.push('"');
    let shown = value.get(..most).unwrap_or(value);
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    // Looks at all bytes at once, where `all` would look at one after the other.
    let is_plain = shown
        .iter()
        .fold(true, |so_far, byte| so_far & plain(*byte));
    match str::from_utf8(shown) {
        Ok(shown) if is_plain => json.push_str(shown),
        _ => escape(json, shown, shown.len() < value.len()),
    }
    if shown.len() < value.len() {
        json.push('…');
    }
    json.push('"');
}

/// What comes before a field's value. Every request is logged: `write!` costs several times as much.
fn push_name(json: &mut String, name: &str) {
    json.push_str(",\"");
    json.push_str(name);
    json.push_str("\":");
}

/// `is_cut`: what is left of a last character is none.
fn escape(json: &mut String, text: &[u8], is_cut: bool) {
    let mut chunks = text.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => {
                    json.push('\\');
                    json.push(c);
                }
                // C1 controls too: a terminal obeys them.
                c if c.is_control() => {
                    // Writing to a String cannot fail.
                    let _ = write!(json, "\\u{:04x}", u32::from(c));
                }
                c => json.push(c),
            }
        }
        if !chunk.invalid().is_empty() && (chunks.peek().is_some() || !is_cut) {
            json.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_milliseconds_with_three_decimals() {
        for (micros, spelt) in [
            (0, ",\"t\":0.000"),
            (7, ",\"t\":0.007"),
            (1_500, ",\"t\":1.500"),
            (61_000_045, ",\"t\":61000.045"),
        ] {
            let mut json = String::new();
            milliseconds(&mut json, "t", Duration::from_micros(micros));
            assert_eq!(json, spelt);
        }
    }

    #[test]
    fn replaces_invalid_utf8() {
        let mut json = String::new();
        bytes(&mut json, "a", Some(b"x\xffy\"\n\xe4\xb8"));
        assert_eq!(json, ",\"a\":\"x\u{fffd}y\\\"\\u000a\u{fffd}\"");
    }
}
