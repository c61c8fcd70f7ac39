//! The syntax of each kind of value. Every error says how to fix it, and none quotes a secret.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Mistake, nearest, printable};
use crate::secret::Secret;

/// COS refuses a bucket whose host name would be longer (436/13312).
const BUCKET_BYTES: usize = 60;
/// An S3 bucket name has 3 to 63 characters.
const ALIAS_BYTES: RangeInclusive<usize> = 3..=63;
const NAME_BYTES: usize = 64;
const ACCESS_KEY_ID_BYTES: RangeInclusive<usize> = 3..=128;

/// `true` or `false`, as a variable writes it.
pub(super) fn flag(text: &str) -> Result<bool, Mistake> {
    text.parse().map_err(|_| {
        Mistake::new(
            format!("`{}` is not true or false", printable(text)),
            "write true or false",
        )
    })
}

/// `text` where one of `words` was wanted.
pub(super) fn not_one_of(text: &str, words: &[&str]) -> Mistake {
    let listed: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let listed = listed.join(", ");
    let fix = match nearest(text, words.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"? Allowed are {listed}"),
        None => format!("write one of {listed}"),
    };
    Mistake::new(format!("`{}` is not allowed here", printable(text)), fix)
}

/// `127.0.0.1:9000`
pub(super) fn address(text: &str) -> Result<SocketAddr, Mistake> {
    text.parse().map_err(|_| {
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        let bare = bare.trim_end_matches('/');
        let port = (bare.strip_prefix("localhost:"))
            .or_else(|| bare.strip_prefix(':'))
            .unwrap_or(bare);
        let fix = if port.parse::<u16>().is_ok() {
            format!("write \"127.0.0.1:{port}\" (this machine only)")
        } else if bare != text && bare.parse::<SocketAddr>().is_ok() {
            format!("write \"{bare}\", without a scheme")
        } else {
            "write an IP address and a port: 127.0.0.1:9000, 0.0.0.0:9000 or [::1]:9000".to_owned()
        };
        Mistake::new(format!("`{}` is not an address", printable(text)), fix)
    })
}

/// A duration (`30s`, `2h`, `1h30m`, `250ms`) that lies within `range`.
pub(super) fn duration_within(
    text: &str,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, Mistake> {
    let duration = duration(text)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (min, max) = (spell(*range.start()), spell(*range.end()));
    let message = format!("`{}` is out of range", printable(text));
    Err(Mistake::new(message, format!("write {min} to {max}")))
}

/// A number that lies within `range`, with an optional unit if it `is_size`.
pub(super) fn number_within(
    text: &str,
    range: &RangeInclusive<u64>,
    is_size: bool,
) -> Result<u64, Mistake> {
    let is_whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_size && !is_whole {
        let message = format!("`{}` is not a whole number", printable(text));
        return Err(Mistake::new(
            message,
            "write a number such as 100, in digits alone",
        ));
    }
    let spell = |number: u64| {
        if is_size {
            spell_size(number)
        } else {
            number.to_string()
        }
    };
    size(text).and_then(|number| {
        if range.contains(&number) {
            return Ok(number);
        }
        let message = format!("`{}` is out of range", printable(text));
        let fix = format!("write {} to {}", spell(*range.start()), spell(*range.end()));
        Err(Mistake::new(message, fix))
    })
}

/// A number with an optional unit of bytes: `16384`, `16KiB`, `2MiB`. One that does not fit is as large as
/// numbers are.
pub(super) fn size(text: &str) -> Result<u64, Mistake> {
    let (digits, unit) = split_number(text);
    let factor = match unit {
        "" | "B" => Some(1_u64),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let Some(factor) = factor.filter(|_| !digits.is_empty()) else {
        let message = format!("`{}` is not a size", printable(text));
        let unit = unit.trim_start().get(..1).map(str::to_ascii_uppercase);
        let fix = match unit.filter(|unit| !digits.is_empty() && "KMGT".contains(unit.as_str())) {
            Some(unit) => format!("write {digits}{unit}iB"),
            None => "write a number of bytes, or with a unit: 16KiB, 2MiB, 1GiB".to_owned(),
        };
        return Err(Mistake::new(message, fix));
    };
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    Ok(number.saturating_mul(factor))
}

/// `ap-guangzhou`
pub(super) fn region(text: &str) -> Result<String, Mistake> {
    let valid = (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(is_bucket_byte);
    if valid {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is not a region", printable(text));
    Err(Mistake::new(
        message,
        "write it as COS does: lower-case letters, digits and `-`, such as ap-guangzhou",
    ))
}

/// `photos-1250000000`: the name, and the APPID after the last `-`.
pub(super) fn bucket(text: &str) -> Result<String, Mistake> {
    let refuse =
        |what: &str, fix: &str| Err(Mistake::new(format!("`{}` {what}", printable(text)), fix));
    if text.is_empty()
        || !text.bytes().all(is_bucket_byte)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        return refuse(
            "is not a COS bucket",
            "write <name>-<appid>: lower-case letters, digits and inner `-`, such as photos-1250000000",
        );
    }
    if appid(text).is_none() {
        return refuse(
            "is a bucket without APPID",
            "write <name>-<appid>, as the COS console shows it: photos-1250000000",
        );
    }
    if text.len() > BUCKET_BYTES {
        return refuse("is too long", "COS takes 60 characters, APPID included");
    }
    Ok(text.to_owned())
}

/// The APPID of a bucket: all that follows its last `-`.
pub(super) fn appid(bucket: &str) -> Option<&str> {
    let (name, appid) = bucket.rsplit_once('-')?;
    let digits = !appid.is_empty() && appid.bytes().all(|b| b.is_ascii_digit());
    (digits && !name.is_empty()).then_some(appid)
}

/// The bucket name that a client uses, as S3 names buckets.
pub(super) fn alias(text: &str) -> Result<String, Mistake> {
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let valid = ALIAS_BYTES.contains(&text.len())
        && text.bytes().all(|b| is_bucket_byte(b) || b == b'.')
        && text.split('.').all(label)
        && text.parse::<std::net::Ipv4Addr>().is_err();
    if valid {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is not an S3 bucket name", printable(text));
    Err(Mistake::new(
        message,
        "3 to 63 lower-case letters, digits, `-` and `.`, a letter or digit at both ends",
    ))
}

/// The name of a tenant or issuer: it appears in logs, metrics and variables.
pub(super) fn name(text: &str) -> Result<String, Mistake> {
    let valid = (1..=NAME_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if valid {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is not a name", printable(text));
    Err(Mistake::new(
        message,
        "1 to 64 letters, digits, `-`, `_` and `.`",
    ))
}

/// The id of a local access key: it stands in `Credential=ID/date/…` and in query strings.
pub(super) fn access_key_id(text: &str) -> Result<String, Mistake> {
    let valid = ACCESS_KEY_ID_BYTES.contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if valid {
        return Ok(text.to_owned());
    }
    // Not quoted: an id and a secret are easily swapped.
    Err(Mistake::new(
        "not an access key id",
        "3 to 128 letters, digits, `-`, `_` and `.`; `cosgate keygen` makes one",
    ))
}

/// A secret's text. The mistake never quotes it.
pub(super) fn secret(text: &str) -> Result<Secret, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new("the secret is empty", "give it a value"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let message = "the secret ([secret]) holds white space or a control character";
        return Err(Mistake::new(message, "give the secret alone, on one line"));
    }
    Ok(Secret::new(text))
}

/// The lower-case name of a request header.
pub(super) fn header(text: &str) -> Result<String, Mistake> {
    let name = http::HeaderName::from_bytes(text.as_bytes());
    name.map(|name| name.as_str().to_owned()).map_err(|_| {
        let message = format!("`{}` is not a header's name", printable(text));
        Mistake::new(message, "write a name such as x-amz-storage-class")
    })
}

/// Letters, digits and `others`, so many of them.
pub(super) fn limited(
    text: &str,
    what: &str,
    length: RangeInclusive<usize>,
    others: &str,
) -> Result<String, Mistake> {
    let known = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    if length.contains(&text.len()) && text.chars().all(known) {
        return Ok(text.to_owned());
    }
    let spelt: Vec<_> = others.chars().map(|c| format!("`{c}`")).collect();
    let message = format!("`{}` is not {what}", printable(text));
    let fix = format!(
        "{} to {} letters, digits and {}",
        length.start(),
        length.end(),
        spelt.join(" ")
    );
    Err(Mistake::new(message, fix))
}

/// A duration: `30s`, `2h`, `1h30m`, `250ms`.
pub(super) fn duration(text: &str) -> Result<Duration, Mistake> {
    duration_of(text).ok_or_else(|| {
        let (digits, unit) = split_number(text);
        let number = digits.parse::<u64>().ok();
        let unit = unit.trim_start().to_ascii_lowercase();
        let fix = match (number, unit.as_str()) {
            (Some(number), "") => format!("add the unit: \"{number}s\" for seconds"),
            (Some(number), "d" | "day" | "days") if number < 10_000 => {
                format!("write \"{}h\"", number * 24)
            }
            (Some(number), "h" | "hr" | "hour" | "hours") => format!("write \"{number}h\""),
            (Some(number), "min" | "mins" | "minute" | "minutes" | "m") => {
                format!("write \"{number}m\"")
            }
            (Some(number), "s" | "sec" | "secs" | "second" | "seconds") => {
                format!("write \"{number}s\"")
            }
            _ => "write numbers with the units h, m, s, ms: 30s, 2h, 1h30m, 250ms".to_owned(),
        };
        let what = match (number, unit.as_str()) {
            (Some(_), "") => "has no unit",
            _ => "is not a duration",
        };
        Mistake::new(format!("`{}` {what}", printable(text)), fix)
    })
}

fn duration_of(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut units = ["h", "m", "s", "ms"]
        .iter()
        .zip([3_600_000_u64, 60_000, 1000, 1]);
    while !rest.is_empty() {
        let (digits, tail) = split_number(rest);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at_checked(letters)?;
        // Each unit once, from the largest down: the iterator does not go back.
        let (_, factor) = units.find(|(name, _)| **name == unit)?;
        let number: u64 = digits.parse().ok()?;
        total = total.checked_add(Duration::from_millis(number.checked_mul(factor)?))?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// A duration as it is written.
pub(super) fn spell(duration: Duration) -> String {
    let millis = duration.as_millis();
    match (millis % 3_600_000, millis % 60_000, millis % 1000) {
        (0, ..) if millis > 0 => format!("{}h", millis / 3_600_000),
        (_, 0, _) if millis > 0 => format!("{}m", millis / 60_000),
        (_, _, 0) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// A number of bytes as it is written.
pub(super) fn spell_size(bytes: u64) -> String {
    let unit = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = unit
        .iter()
        .find(|(_, bits)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    match unit {
        Some((name, bits)) => format!("{}{name}", bytes >> bits),
        None => bytes.to_string(),
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at_checked(digits).unwrap_or(("", text))
}

fn is_bucket_byte(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("30s", 30_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1m1s1ms", 61_001),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "1x",
            "-1s",
            "1.5h",
            "1s1h",
            "1s2s",
            " 1s",
            "99999999999999999999s",
            "18446744073709551615h",
            "1é",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spells_a_range_as_it_is_written() {
        for text in ["7h", "90m", "60ms", "36h", "5s", "0s"] {
            assert_eq!(spell(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn reads_sizes_within_their_range() {
        let range = 1..=1 << 31;
        for (text, size) in [
            ("16KiB", 16_384),
            ("100", 100),
            ("2MiB", 2 << 20),
            ("1GiB", 1 << 30),
            ("7B", 7),
        ] {
            assert_eq!(number_within(text, &range, true), Ok(size), "{text}");
        }
        for text in [
            "",
            "KiB",
            "16KB",
            "-1",
            "0",
            "3GiB",
            "99999999999999999999",
            "1 KiB",
        ] {
            assert!(number_within(text, &range, true).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bucket_ends_in_its_appid() {
        for text in ["photos-1250000000", "a-b-1", "0-1"] {
            assert!(bucket(text).is_ok(), "{text}");
        }
        for text in [
            "photos",
            "photos-abc",
            "-1250000000",
            "Photos-1",
            "photos-",
            "a.b-1",
            "",
        ] {
            assert!(bucket(text).is_err(), "{text}");
        }
        assert!(bucket(&format!("{}-1", "a".repeat(59))).is_err());
    }

    #[test]
    fn an_alias_is_an_s3_bucket_name() {
        for text in ["photos", "a.b-c", "123"] {
            assert!(alias(text).is_ok(), "{text}");
        }
        for text in [
            "ab",
            "Photos",
            "-ab",
            "ab-",
            "a..b",
            ".ab",
            "127.0.0.1",
            "a_b",
            &"a".repeat(64),
        ] {
            assert!(alias(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refused_secret_or_id_is_not_quoted() {
        let Err(mistake) = secret("CANARY value") else {
            panic!()
        };
        assert!(!format!("{mistake:?}").contains("CANARY"));
        let Err(mistake) = access_key_id("CANARY/value") else {
            panic!()
        };
        assert!(!format!("{mistake:?}").contains("CANARY"));
    }
}
