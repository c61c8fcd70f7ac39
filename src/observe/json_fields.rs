//! Fields of a log's line as JSON. Each begins with a comma: something stands before it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::encoding::visible::{is_hidden, push_json_escape};

/// Longer texts are cut. A COS key (850 bytes) is never cut.
pub(super) const FIELD_BYTES: usize = 1024;
/// The end of a text that is cut.
const CUT: char = '…';

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
    let Some(value) = value else { return };
    if !is_plain(value.as_bytes(), FIELD_BYTES) {
        return cut_text(json, name, value.as_bytes(), FIELD_BYTES);
    }
    push_name(json, name);
    json.push('"');
    json.push_str(value);
    json.push('"');
}

/// The same of what need not be UTF-8.
pub(super) fn bytes(json: &mut String, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        cut_text(json, name, value, FIELD_BYTES);
    }
}

/// The same with another bound: what a reader of the JSON gets has at most `max` bytes. A longer text is cut at a
/// character and ends in `…`.
pub(super) fn cut_text(json: &mut String, name: &str, value: &[u8], max: usize) {
    push_name(json, name);
    json.push('"');
    match str::from_utf8(value) {
        Ok(text) if is_plain(value, max) => json.push_str(text),
        _ => escape(json, value, max),
    }
    json.push('"');
}

/// Whether `value` can be written as it is. Looks at all bytes at once, where `all` would look at one after the other.
fn is_plain(value: &[u8], max: usize) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    value.len() <= max
        && value
            .iter()
            .fold(true, |so_far, byte| so_far & plain(*byte))
}

/// The address of a client.
pub(super) fn address(json: &mut String, name: &str, value: IpAddr) {
    push_name(json, name);
    json.push('"');
    match value {
        // Four times as quick as `write!`.
        IpAddr::V4(address) => {
            for (index, part) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    json.push('.');
                }
                json.push_str(itoa::Buffer::new().format(part));
            }
        }
        // Writing to a String cannot fail.
        IpAddr::V6(address) => _ = write!(json, "{address}"),
    }
    json.push('"');
}

/// What comes before a field's value. Every request is logged: `write!` costs several times as much.
fn push_name(json: &mut String, name: &str) {
    json.push_str(",\"");
    json.push_str(name);
    json.push_str("\":");
}

fn escape(json: &mut String, text: &[u8], max: usize) {
    let mut read_bytes = 0;
    // Where the text ends if it has to be cut.
    let mut cut = json.len();
    for c in lossy_chars(text) {
        read_bytes += c.len_utf8();
        if read_bytes > max {
            json.truncate(cut);
            json.push(CUT);
            return;
        }
        match c {
            '"' | '\\' => {
                json.push('\\');
                json.push(c);
            }
            c if is_hidden(c) => push_json_escape(json, c),
            c => json.push(c),
        }
        if read_bytes + CUT.len_utf8() <= max {
            cut = json.len();
        }
    }
}

/// The characters of `text`; U+FFFD for what is no UTF-8.
fn lossy_chars(text: &[u8]) -> impl Iterator<Item = char> {
    text.utf8_chunks().flat_map(|chunk| {
        let invalid = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(invalid)
    })
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

    #[test]
    fn escapes_hidden_characters_and_leaves_others() {
        let mut json = String::new();
        text(&mut json, "a", Some("照片\u{2028}\u{202e}gpj.exe\u{e0041}"));
        assert_eq!(json, ",\"a\":\"照片\\u2028\\u202egpj.exe\\udb40\\udc41\"");
    }

    #[test]
    fn holds_the_bound_and_cuts_at_a_character() {
        for value in [
            "x".repeat(9).into_bytes(),
            "é".repeat(5).into_bytes(),
            "照".repeat(3).into_bytes(),
            "📷".repeat(3).into_bytes(),
            b"\xff".repeat(8),
            b"xxxxxxx\xe4".to_vec(),
            "\n".repeat(9).into_bytes(),
        ] {
            let mut json = String::new();
            cut_text(&mut json, "a", &value, 8);
            let object: serde_json::Value =
                serde_json::from_str(&format!("{{\"b\":0{json}}}")).unwrap();
            let read = object["a"].as_str().unwrap();
            let (start, end) = read.split_at(read.len() - CUT.len_utf8());
            assert!(read.len() <= 8 && end == "…", "{read}");
            assert!(
                String::from_utf8_lossy(&value).starts_with(start) && start.len() > 1,
                "{read}"
            );
        }
        let mut json = String::new();
        cut_text(&mut json, "a", "照x照x".as_bytes(), 8);
        assert_eq!(json, ",\"a\":\"照x照x\"", "it fits");
    }
}
