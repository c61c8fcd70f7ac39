//! A request's line for a person at a terminal: method, bucket and key, status, bytes, time, tenant.

use std::fmt::Write as _;
use std::time::Duration;

use super::access_log::AccessLine;
use crate::encoding::visible::Visible;
use crate::s3::Operation;

/// Columns that the next one keeps clear of; a longer name moves the rest of its line.
const NAME_WIDTH: usize = 40;
const RESET: &str = "\x1b[0m";

/// Appends the line.
pub(super) fn write(text: &mut String, line: &AccessLine<'_>, in_color: bool) {
    let method = line.operation.map_or("", Operation::method);
    let method = if method.is_empty() { "-" } else { method };
    let name = name(line);
    let (color, reset) = if in_color {
        (color(line.status.as_u16()), RESET)
    } else {
        ("", "")
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{method:<6} {name:<NAME_WIDTH$} {color}{}{reset} {:>10} {:>8} {}",
        line.status.as_u16(),
        bytes(line.received.max(line.sent)),
        time(line.duration),
        Visible(line.tenant.unwrap_or("-"))
    );
    if let Some(code) = line.code {
        let _ = write!(text, " {color}{}{reset}", Visible(code));
    }
    text.push('\n');
}

/// `bucket/key`, or what was requested in place of one.
fn name(line: &AccessLine<'_>) -> String {
    match (line.bucket, line.key) {
        (Some(bucket), Some(key)) => format!("{}/{}", Visible(bucket), Visible(key)),
        (Some(bucket), None) => Visible(bucket).to_string(),
        (None, _) => line
            .sts_action
            .or_else(|| line.operation.map(Operation::name))
            .unwrap_or("-")
            .to_owned(),
    }
}

/// Green for a success, cyan for a redirect or 304, yellow for a mistake of the client, red for others.
fn color(status: u16) -> &'static str {
    match status {
        200..=299 => "\x1b[32m",
        300..=399 => "\x1b[36m",
        400..=499 => "\x1b[33m",
        _ => "\x1b[31m",
    }
}

/// A number of bytes with one decimal.
fn bytes(count: u64) -> String {
    let mut unit = "B";
    let mut tenths = count.saturating_mul(10);
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if tenths < 10 * 1024 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    if unit == "B" {
        return format!("{count} B");
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

fn time(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn written(line: &AccessLine<'_>, in_color: bool) -> String {
        let mut text = String::new();
        write(&mut text, line, in_color);
        text
    }

    fn upload() -> AccessLine<'static> {
        AccessLine {
            operation: Some(Operation::PutObject),
            bucket: Some("demo"),
            key: Some("alice/README.md"),
            status: StatusCode::OK,
            received: 12_600,
            duration: Duration::from_micros(4_100),
            tenant: Some("alice"),
            ..AccessLine::default()
        }
    }

    #[test]
    fn writes_one_line_a_request() {
        let text = written(&upload(), false);
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "PUT",
                "demo/alice/README.md",
                "200",
                "12.3",
                "KiB",
                "4",
                "ms",
                "alice"
            ]
        );
        assert_eq!(text.matches('\n').count(), 1);
        let refused = AccessLine {
            status: StatusCode::FORBIDDEN,
            code: Some("AccessDenied"),
            tenant: None,
            operation: None,
            ..upload()
        };
        let text = written(&refused, false);
        assert!(
            text.starts_with("- ") && text.ends_with(" - AccessDenied\n"),
            "{text}"
        );
    }

    #[test]
    fn colors_the_status_only_where_colors_are_wanted() {
        assert!(!written(&upload(), false).contains('\x1b'));
        assert!(written(&upload(), true).contains("\x1b[32m200\x1b[0m"));
    }

    #[test]
    fn no_key_can_command_the_terminal() {
        let line = AccessLine {
            key: Some("a\x1b[2Jb\r\nc\u{9b}d\u{202e}e"),
            ..upload()
        };
        let text = written(&line, false);
        let body = text.trim_end_matches('\n');
        assert!(
            !body.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{text:?}"
        );
        assert!(text.contains("\\u{1b}[2J"), "{text:?}");
    }

    #[test]
    fn spells_sizes_and_times() {
        for (count, spelt) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "1677721.5 TiB"),
        ] {
            assert_eq!(bytes(count), spelt);
        }
        for (micros, spelt) in [(12, "12 µs"), (4_100, "4 ms"), (12_000_000, "12 s")] {
            assert_eq!(time(Duration::from_micros(micros)), spelt);
        }
    }
}
