//! A request's line in the combined format of Apache and nginx.
//!
//! The request's target is written from its bucket and key: no query, where signatures and tokens are.

use std::fmt::Write as _;
use std::str;

use http::Version;

use super::access_log::AccessLine;
use super::json_fields::FIELD_BYTES;
use crate::encoding::percent::push_encoded_path;

/// Appends the line.
pub(super) fn write(text: &mut String, line: &AccessLine<'_>) {
    // Writing to a String cannot fail.
    let _ = match line.client {
        Some(client) => write!(text, "{client}"),
        None => write!(text, "-"),
    };
    text.push_str(" - ");
    push_escaped(text, line.tenant.unwrap_or("-").as_bytes());
    text.push_str(" [");
    line.time.push_log_date(text);
    text.push_str("] \"");
    push_request(text, line);
    let status = line.status.as_u16();
    let _ = write!(text, "\" {status} {} \"", line.sent);
    push_escaped(text, line.referer_host.unwrap_or(b"-"));
    text.push_str("\" \"");
    push_escaped(text, line.user_agent.unwrap_or(b"-"));
    text.push_str("\"\n");
}

/// `GET /bucket/key HTTP/1.1`; a `-` for a head that was not read.
fn push_request(text: &mut String, line: &AccessLine<'_>) {
    let Some(method) = line.method else {
        text.push('-');
        return;
    };
    text.push_str(method);
    text.push_str(" /");
    if let Some(bucket) = line.bucket {
        push_encoded_path(text, cut(bucket));
    }
    if let Some(key) = line.key {
        text.push('/');
        push_encoded_path(text, cut(key));
    }
    text.push_str(match line.http {
        Version::HTTP_2 => " HTTP/2.0",
        Version::HTTP_10 => " HTTP/1.0",
        _ => " HTTP/1.1",
    });
}

fn cut(text: &str) -> &[u8] {
    let end = text.floor_char_boundary(FIELD_BYTES);
    text.get(..end).unwrap_or(text).as_bytes()
}

/// What is no printable ASCII, a quote or a backslash as `\xhh`, as nginx does.
fn push_escaped(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                let _ = write!(text, "\\x{byte:02X}");
            }
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::timestamp::Timestamp;

    fn written(line: &AccessLine<'_>) -> String {
        let mut text = String::new();
        write(&mut text, line);
        text
    }

    #[test]
    fn writes_the_combined_format() {
        let line = AccessLine {
            time: Timestamp::from_unix(1_768_480_245),
            client: Some([192, 0, 2, 7].into()),
            tenant: Some("acme"),
            method: Some("GET"),
            http: Version::HTTP_2,
            bucket: Some("photos"),
            key: Some("a b/\"中\".jpg"),
            status: StatusCode::PARTIAL_CONTENT,
            sent: 512,
            referer_host: Some(b"example.com"),
            user_agent: Some(b"curl/8 \"x\"\n\xff"),
            ..AccessLine::default()
        };
        assert_eq!(
            written(&line),
            "192.0.2.7 - acme [15/Jan/2026:12:30:45 +0000] \"GET /photos/a%20b/%22%E4%B8%AD%22.jpg HTTP/2.0\" \
             206 512 \"example.com\" \"curl/8 \\x22x\\x22\\x0A\\xFF\"\n"
        );
    }

    #[test]
    fn writes_a_dash_for_what_is_unknown() {
        let line = AccessLine {
            status: StatusCode::BAD_REQUEST,
            ..AccessLine::default()
        };
        assert_eq!(
            written(&line),
            "- - - [01/Jan/1970:00:00:00 +0000] \"-\" 400 0 \"-\" \"-\"\n"
        );
    }
}
