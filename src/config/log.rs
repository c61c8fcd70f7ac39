//! `[log]`: what the access log and the program log write, and where.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::Mistake;
use super::section::Section;

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `access`: how the access log writes a request.
    pub access: AccessFormat,
    /// `access_file`: where it does so, in place of standard output.
    pub access_file: Option<PathBuf>,
    /// `access_share`: of successes; all other requests are always written.
    pub access_share: SampleShare,
    /// `access_slow`: a request that takes as long is always written.
    pub access_slow: Duration,
    /// `access_user_agent`: write what clients say of themselves.
    pub access_user_agent: bool,
    /// `program`: how the program log writes an event.
    pub program: ProgramFormat,
}

/// How the access log writes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// The combined format of Apache and nginx.
    Combined,
    /// One JSON object.
    Json,
    /// Not at all.
    Off,
    /// The main fields in columns, for a person.
    Short,
}

/// How the program log writes an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgramFormat {
    /// One JSON object.
    Json,
    /// A line for a person.
    #[default]
    Text,
}

/// A share of requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleShare(u32);

const MILLION: u32 = 1_000_000;
/// Decimals of a percentage that is a whole number of millionths.
const DECIMALS: usize = 4;

impl SampleShare {
    /// Every request.
    pub const ALL: Self = Self(MILLION);
    /// No request.
    pub const NONE: Self = Self(0);

    /// Whether a request that drew `number`, any at random, is in the share.
    pub fn takes(self, number: u32) -> bool {
        number % MILLION < self.0
    }

    /// Reads a percentage, `"2.5%"`.
    pub(super) fn read(text: &str) -> Result<Self, Mistake> {
        let refused = || {
            let message = format!("`{}` is not a percentage", super::problem::printable(text));
            Mistake::new(
                message,
                "write a share between \"0%\" and \"100%\", as \"2.5%\"",
            )
        };
        let number = text.strip_suffix('%').ok_or_else(refused)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str, max: usize| {
            (1..=max).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(whole, 3) || !is_number(decimals, DECIMALS) {
            return Err(refused());
        }
        let millionths = format!("{whole}{decimals:0<DECIMALS$}").parse::<u32>();
        let share = millionths.ok().filter(|share| *share <= MILLION);
        share.map(Self).ok_or_else(refused)
    }
}

/// As the file has it.
impl fmt::Display for SampleShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = MILLION / 100;
        let (whole, rest) = (self.0 / percent, self.0 % percent);
        let decimals = format!("{rest:0DECIMALS$}");
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            decimals => write!(f, "{whole}.{decimals}%"),
        }
    }
}

pub(super) fn log(section: Section<'_>) -> Option<LogConfig> {
    let access = section.choice("access", |word| match word {
        "combined" => Some(AccessFormat::Combined),
        "json" => Some(AccessFormat::Json),
        "off" => Some(AccessFormat::Off),
        "short" => Some(AccessFormat::Short),
        _ => None,
    });
    let program = section.choice("program", |word| match word {
        "json" => Some(ProgramFormat::Json),
        "text" => Some(ProgramFormat::Text),
        _ => None,
    });
    let file = section.text("access_file");
    let access_share = section.parsed("access_share", SampleShare::read);
    let access_slow = section.duration("access_slow").value;
    let access_user_agent = section.flag("access_user_agent").value;
    let access_file = file.map(|path| section.resolve(&path.value));
    section.finish();
    Some(LogConfig {
        access: access?.value,
        access_file,
        access_share: access_share?.value,
        access_slow,
        access_user_agent,
        program: program?.value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_percentages_to_a_millionth() {
        for (text, millionths) in [
            ("0%", 0),
            ("100%", MILLION),
            ("2.5%", 25_000),
            ("0.0001%", 1),
            ("007%", 70_000),
        ] {
            assert_eq!(
                SampleShare::read(text),
                Ok(SampleShare(millionths)),
                "{text}"
            );
        }
        for text in [
            "",
            "%",
            "5",
            "101%",
            "100.0001%",
            "-1%",
            "1.%",
            ".5%",
            "0.00001%",
            "1e1%",
            "+1%",
        ] {
            assert!(SampleShare::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shows_a_share_as_the_file_has_it() {
        for text in ["0%", "100%", "2.5%", "0.0001%", "33.3333%"] {
            let share = SampleShare::read(text).map(|share| share.to_string());
            assert_eq!(share.as_deref(), Ok(text));
        }
    }

    #[test]
    fn takes_its_share_of_all_numbers() {
        let part = |share: SampleShare| (0..MILLION).filter(|number| share.takes(*number)).count();
        assert_eq!(part(SampleShare(0)), 0);
        assert_eq!(part(SampleShare(25_000)), 25_000);
        assert_eq!(part(SampleShare::ALL), MILLION as usize);
        assert!(SampleShare::ALL.takes(u32::MAX));
    }
}
