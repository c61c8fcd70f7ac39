//! A moment in UTC, as the protocols write it. Pure: `clock.rs` alone reads the clock.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use crate::encoding::split::split_once;

/// Seconds since the Unix epoch, UTC. Years 1970 to 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// `20260115T123045Z`: `x-amz-date`, and the day of a credential scope in it. Every request has two, so it is on the
/// stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AmzDate([u8; 16]);

/// The calendar form of a [`Timestamp`].
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// The numbers below 100, each in two digits.
const PAIRS: &str = "00010203040506070809101112131415161718192021222324\
    25262728293031323334353637383940414243444546474849\
    50515253545556575859606162636465666768697071727374\
    75767778798081828384858687888990919293949596979899";
const SECONDS_A_DAY: i64 = 86_400;
/// 9999-12-31T23:59:59Z: later moments have no four-digit year.
const LAST: i64 = 253_402_300_799;

impl AmzDate {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // ASCII by construction
    }

    /// `20260115`.
    pub fn day(&self) -> &str {
        self.as_str().get(..8).unwrap_or_default()
    }
}

impl fmt::Debug for AmzDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Timestamp {
    /// From Unix seconds, held within the years 1970 to 9999.
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds.clamp(0, LAST))
    }

    /// Unix seconds.
    pub fn unix(self) -> i64 {
        self.0
    }

    /// This moment moved by `seconds`, which may be negative.
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self::from_unix(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this moment; negative when `earlier` is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// `20260115`: the date of an AWS credential scope.
    pub fn date(self) -> String {
        let mut text = String::with_capacity(8);
        self.civil().push_date(&mut text, "");
        text
    }

    /// `2026-01-15`: the date of a TC3 credential scope.
    pub fn date_dashed(self) -> String {
        let mut text = String::with_capacity(10);
        self.civil().push_date(&mut text, "-");
        text
    }

    /// `20260115T123045Z`: `x-amz-date`.
    pub fn amz(self) -> String {
        self.amz_date().as_str().to_owned()
    }

    /// What [`Timestamp::amz`] gives, without an allocation.
    pub fn amz_date(self) -> AmzDate {
        AmzDate(self.civil().fill(*b"00000000T000000Z"))
    }

    /// `2026-01-15T12:30:45Z`: RFC 3339, as STS and S3's XML write times.
    pub fn iso8601(self) -> String {
        let mut text = String::with_capacity(20);
        self.push_iso8601(&mut text);
        text
    }

    /// Appends what [`Timestamp::iso8601`] gives. Each request is logged with it, so it must be quick.
    pub fn push_iso8601(self, text: &mut String) {
        let written = self.civil().fill(*b"0000-00-00T00:00:00Z");
        text.push_str(std::str::from_utf8(&written).unwrap_or_default()); // ASCII by construction
    }

    /// Appends `15/Jan/2026:12:30:45 +0000`: the date of Apache's and nginx's access logs.
    pub fn push_log_date(self, text: &mut String) {
        let c = self.civil();
        push_two(text, c.day);
        let month = usize::try_from(c.month - 1).unwrap_or_default();
        let month = MONTHS.get(month).copied().unwrap_or_default();
        text.extend(["/", month, "/"]);
        push_two(text, c.year / 100);
        push_two(text, c.year % 100);
        text.push(':');
        c.push_time(text, ":");
        text.push_str(" +0000");
    }

    /// `Thu, 15 Jan 2026 12:30:45 GMT`: an HTTP date (RFC 9110 section 5.6.7).
    pub fn http_date(self) -> String {
        let seconds = u64::try_from(self.0).unwrap_or_default(); // never negative, nor after 9999
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Reads `20260115T123045Z`.
    pub fn parse_amz(text: &str) -> Option<Self> {
        let (date, time) = split_once(text, b'T')?;
        let time = time.strip_suffix('Z')?;
        if date.len() != 8 || time.len() != 6 {
            return None;
        }
        let hms = (
            digits(time, 0, 2)?,
            digits(time, 2, 4)?,
            digits(time, 4, 6)?,
        );
        Self::from_civil(
            digits(date, 0, 4)?,
            digits(date, 4, 6)?,
            digits(date, 6, 8)?,
            hms,
        )
    }

    /// Reads `2026-01-15T12:30:45Z`, with or without a fraction of a second, which is cut off.
    pub fn parse_iso8601(text: &str) -> Option<Self> {
        let (date, time) = split_once(text, b'T')?;
        let time = time.strip_suffix('Z')?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let punctuated = |text: &str, mark: u8, at: [usize; 2]| {
            at.iter().all(|at| text.as_bytes().get(*at) == Some(&mark))
        };
        if date.len() != 10
            || time.len() != 8
            || !punctuated(date, b'-', [4, 7])
            || !punctuated(time, b':', [2, 5])
            || !(1..=9).contains(&fraction.len())
            || !fraction.bytes().all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let hms = (
            digits(time, 0, 2)?,
            digits(time, 3, 5)?,
            digits(time, 6, 8)?,
        );
        Self::from_civil(
            digits(date, 0, 4)?,
            digits(date, 5, 7)?,
            digits(date, 8, 10)?,
            hms,
        )
    }

    /// Reads an HTTP date in one of the three forms of RFC 9110 section 5.6.7.
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let time = httpdate::parse_http_date(text).ok()?;
        let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
        i64::try_from(seconds).ok().map(Self::from_unix)
    }

    /// From a calendar date (days since the epoch by Howard Hinnant's `days_from_civil`).
    fn from_civil(year: i64, month: i64, day: i64, (h, m, s): (i64, i64, i64)) -> Option<Self> {
        if !(1970..=9999).contains(&year)
            || !(1..=12).contains(&month)
            || h > 23
            || m > 59
            || s > 60
        {
            return None;
        }
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let length = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if !(1..=length).contains(&day) {
            return None;
        }
        let y = year - i64::from(month <= 2);
        let era = y / 400;
        let year_of_era = y % 400;
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        Some(Self::from_unix(
            days * SECONDS_A_DAY + h * 3600 + m * 60 + s,
        ))
    }

    /// To a calendar date (Howard Hinnant's `civil_from_days`).
    fn civil(self) -> Civil {
        let z = self.0 / SECONDS_A_DAY + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let year_of_era = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let day_of_year = doe - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let mp = (5 * day_of_year + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * mp + 2) / 5 + 1,
            second_of_day: self.0 % SECONDS_A_DAY,
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso8601())
    }
}

impl Civil {
    fn time(&self) -> (i64, i64, i64) {
        let s = self.second_of_day;
        (s / 3600, s / 60 % 60, s % 60)
    }

    /// `form` with its fourteen zeros replaced by the digits of year, month, day, hour, minute and second.
    fn fill<const N: usize>(&self, form: [u8; N]) -> [u8; N] {
        let (h, m, s) = self.time();
        let numbers = [
            self.year / 100,
            self.year % 100,
            self.month,
            self.day,
            h,
            m,
            s,
        ];
        let pairs = numbers.map(|number| {
            let number = u8::try_from(number).unwrap_or_default();
            [b'0' + number / 10 % 10, b'0' + number % 10]
        });
        let mut digits = pairs.as_flattened().iter();
        form.map(|byte| match byte {
            b'0' => digits.next().copied().unwrap_or(byte),
            mark => mark,
        })
    }

    fn push_date(&self, text: &mut String, between: &str) {
        push_two(text, self.year / 100);
        push_two(text, self.year % 100);
        text.push_str(between);
        push_two(text, self.month);
        text.push_str(between);
        push_two(text, self.day);
    }

    fn push_time(&self, text: &mut String, between: &str) {
        let (h, m, s) = self.time();
        push_two(text, h);
        text.push_str(between);
        push_two(text, m);
        text.push_str(between);
        push_two(text, s);
    }
}

/// Appends a number below 100 in two digits.
fn push_two(text: &mut String, number: i64) {
    let at = usize::try_from(number).unwrap_or_default() * 2;
    text.push_str(PAIRS.get(at..at + 2).unwrap_or("00"));
}

/// The number that the ASCII digits `from..to` of `text` write, if they are all digits.
fn digits(text: &str, from: usize, to: usize) -> Option<i64> {
    let part = text.get(from..to)?;
    part.bytes().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: i64 = 1_768_480_245;

    #[test]
    fn writes_the_forms_that_the_protocols_use() {
        let t = Timestamp::from_unix(EXAMPLE);
        assert_eq!(t.date(), "20260115");
        assert_eq!(t.date_dashed(), "2026-01-15");
        assert_eq!(t.amz(), "20260115T123045Z");
        assert_eq!(t.iso8601(), "2026-01-15T12:30:45Z");
        assert_eq!(t.http_date(), "Thu, 15 Jan 2026 12:30:45 GMT");
    }

    #[test]
    fn reads_what_it_writes_on_every_day_of_four_centuries() {
        for day in 0..146_097 {
            let t = Timestamp::from_unix(day * SECONDS_A_DAY + day % SECONDS_A_DAY);
            let (mut logged, date) = (String::new(), t.http_date());
            t.push_log_date(&mut logged);
            assert_eq!(logged[..11].replace('/', " "), date[5..16]);
            assert_eq!(logged[12..], format!("{} +0000", &date[17..25]));
            assert_eq!(Timestamp::parse_amz(&t.amz()), Some(t));
            assert_eq!(Timestamp::parse_http_date(&t.http_date()), Some(t));
            assert_eq!(Timestamp::parse_iso8601(&t.iso8601()), Some(t));
        }
    }

    #[test]
    fn refuses_dates_that_do_not_exist() {
        for text in [
            "20260230T000000Z",
            "20261301T000000Z",
            "2026011T123045Z",
            "20260115T246060Z",
            "x",
            "",
        ] {
            assert_eq!(Timestamp::parse_amz(text), None, "{text}");
        }
        assert!(Timestamp::parse_amz("20240229T000000Z").is_some());
    }

    #[test]
    fn reads_an_http_date_in_each_of_its_three_forms() {
        for text in [
            "Thu, 15 Jan 2026 12:30:45 GMT",
            "Thursday, 15-Jan-26 12:30:45 GMT",
            "Thu Jan 15 12:30:45 2026",
        ] {
            let read = Timestamp::parse_http_date(text);
            assert_eq!(read, Some(Timestamp::from_unix(EXAMPLE)), "{text}");
        }
        for text in [
            "Fri, 15 Jan 2026 12:30:45 GMT",
            "Thu, 15 Jan 2026 12:30:45 UTC",
            "Mon, 30 Feb 2026 12:30:45 GMT",
            "Thu, 15 Jan 2026 25:30:45 GMT",
            "2026-01-15T12:30:45Z",
            "é",
            "",
        ] {
            assert_eq!(Timestamp::parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn a_fraction_of_a_second_is_cut_off_and_nothing_else_is_taken() {
        let with = Timestamp::parse_iso8601("2026-01-15T12:30:45.999Z");
        assert_eq!(with, Some(Timestamp::from_unix(EXAMPLE)));
        for text in [
            "2026-01-15T12:30:45",
            "2026-01-15T12:30:45+00:00",
            "2026-01-15 12:30:45Z",
            "2026/01/15T12:30:45Z",
            "2026-01-15T12:30:45.Z",
            "2026-01-15T12:30:45.1234567890Z",
            "2026-02-30T12:30:45Z",
            "20260115T123045Z",
            "",
        ] {
            assert_eq!(Timestamp::parse_iso8601(text), None, "{text}");
        }
    }
}
