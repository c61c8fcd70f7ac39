//! How each kind of value is written. Every refusal says how to mend it, and none quotes a secret.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::printable;
use super::problem::Refusal;
use crate::secret::Secret;

/// COS refuses a bucket whose host name would be longer (436/13312).
const BUCKET_BYTES: usize = 60;
/// An S3 bucket name has 3 to 63 characters.
const ALIAS_BYTES: RangeInclusive<usize> = 3..=63;
const NAME_BYTES: usize = 64;
const ACCESS_KEY_ID_BYTES: RangeInclusive<usize> = 3..=128;

/// `true` or `false`, as a variable writes it.
pub(super) fn flag(text: &str) -> Result<bool, Refusal> {
    text.parse().map_err(|_| {
        Refusal::new(
            format!("`{}` is not true or false", printable(text)),
            "write true or false",
        )
    })
}

/// `127.0.0.1:9000`
pub(super) fn address(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| {
        let fix = match text
            .strip_prefix("localhost:")
            .or_else(|| text.strip_prefix(':'))
        {
            Some(port) => format!("write 127.0.0.1:{} (this machine only)", printable(port)),
            None => "write an IP address and a port: 127.0.0.1:9000, 0.0.0.0:9000 or [::1]:9000"
                .to_owned(),
        };
        Refusal::new(format!("`{}` is not an address", printable(text)), fix)
    })
}

/// A duration (`30s`, `2h`, `1h30m`, `250ms`) that lies within `range`.
pub(super) fn duration_within(
    text: &str,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, Refusal> {
    let duration = duration(text)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (spell(*range.start()), spell(*range.end()));
    let message = format!("`{}` is out of range", printable(text));
    Err(Refusal::new(message, format!("give {least} to {most}")))
}

/// A number with an optional unit of bytes (`16384`, `16KiB`, `2MiB`) that lies within `range`.
pub(super) fn size_within(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Refusal> {
    let (digits, unit) = split_number(text);
    let factor = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let Some(factor) = factor.filter(|_| !digits.is_empty()) else {
        let message = format!("`{}` is not a size", printable(text));
        return Err(Refusal::new(
            message,
            "write a number of bytes, or with a unit: 16KiB, 2MiB, 1GiB",
        ));
    };
    let size = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    size.filter(|size| range.contains(size)).ok_or_else(|| {
        let message = format!("`{}` is out of range", printable(text));
        Refusal::new(
            message,
            format!("give {} to {}", range.start(), range.end()),
        )
    })
}

/// `ap-guangzhou`
pub(super) fn region(text: &str) -> Result<String, Refusal> {
    let valid = (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(is_bucket_byte);
    if valid {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is not a region", printable(text));
    Err(Refusal::new(
        message,
        "write it as COS does: lower-case letters, digits and `-`, such as ap-guangzhou",
    ))
}

/// `photos-1250000000`: the name, and the APPID after the last `-`.
pub(super) fn bucket(text: &str) -> Result<String, Refusal> {
    let refuse =
        |what: &str, fix: &str| Err(Refusal::new(format!("`{}` {what}", printable(text)), fix));
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
pub(super) fn alias(text: &str) -> Result<String, Refusal> {
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let valid = ALIAS_BYTES.contains(&text.len())
        && text.bytes().all(|b| is_bucket_byte(b) || b == b'.')
        && text.split('.').all(label)
        && text.parse::<std::net::Ipv4Addr>().is_err();
    if valid {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is not an S3 bucket name", printable(text));
    Err(Refusal::new(
        message,
        "3 to 63 lower-case letters, digits, `-` and `.`, a letter or digit at both ends",
    ))
}

/// The name of a tenant or issuer: it appears in logs, metrics and variables.
pub(super) fn name(text: &str) -> Result<String, Refusal> {
    let valid = (1..=NAME_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if valid {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is not a name", printable(text));
    Err(Refusal::new(
        message,
        "1 to 64 letters, digits, `-`, `_` and `.`",
    ))
}

/// The id of a local access key: it stands in `Credential=ID/date/…` and in query strings.
pub(super) fn access_key_id(text: &str) -> Result<String, Refusal> {
    let valid = ACCESS_KEY_ID_BYTES.contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if valid {
        return Ok(text.to_owned());
    }
    // Not quoted: an id and a secret are easily swapped.
    Err(Refusal::new(
        "not an access key id",
        "3 to 128 letters, digits, `-`, `_` and `.`; `cosgate keygen` makes one",
    ))
}

/// A secret's text. The refusal never quotes it.
pub(super) fn secret(text: &str) -> Result<Secret, Refusal> {
    if text.is_empty() {
        return Err(Refusal::new("the secret is empty", "give it a value"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let message = "the secret ([secret]) holds white space or a control character";
        return Err(Refusal::new(message, "give the secret alone, on one line"));
    }
    Ok(Secret::new(text))
}

/// The lower-case name of a request header.
pub(super) fn header(text: &str) -> Result<String, Refusal> {
    let name = http::HeaderName::from_bytes(text.as_bytes());
    name.map(|name| name.as_str().to_owned()).map_err(|_| {
        let message = format!("`{}` is not a header's name", printable(text));
        Refusal::new(message, "write a name such as x-amz-storage-class")
    })
}

/// Letters, digits and `others`, so many of them.
pub(super) fn limited(
    text: &str,
    what: &str,
    length: RangeInclusive<usize>,
    others: &str,
) -> Result<String, Refusal> {
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
    Err(Refusal::new(message, fix))
}

/// A duration: `30s`, `2h`, `1h30m`, `250ms`.
pub(super) fn duration(text: &str) -> Result<Duration, Refusal> {
    let refuse = || {
        let message = format!("`{}` is not a duration", printable(text));
        Refusal::new(
            message,
            "write numbers with units h, m, s, ms: 30s, 2h, 1h30m, 250ms",
        )
    };
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
        let (unit, next) = tail.split_at_checked(letters).ok_or_else(refuse)?;
        // Each unit once, from the largest down: the iterator does not go back.
        let (_, factor) = units.find(|(name, _)| **name == unit).ok_or_else(refuse)?;
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        let part = number
            .checked_mul(factor)
            .map(Duration::from_millis)
            .ok_or_else(refuse)?;
        total = total.checked_add(part).ok_or_else(refuse)?;
        rest = next;
    }
    if text.is_empty() {
        return Err(refuse());
    }
    Ok(total)
}

fn spell(duration: Duration) -> String {
    let millis = duration.as_millis();
    match (millis % 3_600_000, millis % 60_000, millis % 1000) {
        (0, ..) if millis > 0 => format!("{}h", millis / 3_600_000),
        (_, 0, _) if millis > 0 => format!("{}m", millis / 60_000),
        (_, _, 0) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
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
            assert_eq!(size_within(text, &range), Ok(size), "{text}");
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
            assert!(size_within(text, &range).is_err(), "{text}");
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
        let Err(refusal) = secret("CANARY value") else {
            panic!()
        };
        assert!(!format!("{refusal:?}").contains("CANARY"));
        let Err(refusal) = access_key_id("CANARY/value") else {
            panic!()
        };
        assert!(!format!("{refusal:?}").contains("CANARY"));
    }
}
