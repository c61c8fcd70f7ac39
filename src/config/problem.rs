//! A problem of a configuration: what is wrong, where, and how to fix it.

use std::fmt;

/// One thing that is wrong, printed as a compiler would:
///
/// ```text
/// config.toml:12:5: error: unknown key `lissten` in server
///   help: did you mean `listen`?
/// ```
///
/// No part of it ever holds a secret's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub location: Location,
    /// Whether the configuration can be used in spite of it.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub fix: String,
}

/// Where a value was written. In the order of a report: the file from its top, then variables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// In the file.
    File {
        /// Its name as the user gave it.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In this environment variable, which overrides the file.
    Variable(String),
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but is likely not what was meant.
    Warning,
}

/// What is wrong with a value and how to fix it; the caller knows the location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) fix: String,
}

impl Mistake {
    pub(super) fn new(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}: {severity}: {}\n  help: {}",
            self.location, self.message, self.fix
        )
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A user's word made safe for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}

/// The one of `known` that `written` was likely meant to be.
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_ascii_lowercase();
    let allowed = (written.chars().count() / 2).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(&written, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein distance: insertions, deletions and substitutions between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(x != *y))
                .min(left + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, want) in [
            ("", "", 0),
            ("kitten", "sitting", 3),
            ("a", "", 1),
            ("", "ab", 2),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }

    #[test]
    fn finds_the_word_that_was_meant_and_none_that_was_not() {
        let known = ["admin", "listen", "region"];
        assert_eq!(nearest("lissten", known), Some("listen"));
        assert_eq!(nearest("Region", known), Some("region"));
        assert_eq!(nearest("tls", known), None);
    }
}
