//! `sessions_not_before` and `revoked_sessions`: session keys that are revoked before they expire.

use super::model::RevokedSessions;
use super::problem::{Mistake, printable};
use super::section::Section;
use crate::timestamp::Timestamp;

/// The longest subject that a token may have.
const SUBJECT_BYTES: usize = 255;

/// The keys of a tenant or a template.
pub(super) fn revoked(section: &Section<'_>) -> RevokedSessions {
    let before = not_before(section);
    let mut subjects = Vec::new();
    for entry in section.tables("revoked_sessions") {
        let subject = entry.required("subject", subject);
        let before = entry.required("before", time);
        entry.finish();
        subjects.extend(
            subject
                .zip(before)
                .map(|(subject, before)| (subject.value, before.value)),
        );
    }
    RevokedSessions { before, subjects }
}

/// `sessions_not_before`
pub(super) fn not_before(section: &Section<'_>) -> Option<Timestamp> {
    let found = section.parsed("sessions_not_before", time);
    found.map(|found| found.value)
}

fn subject(text: &str) -> Result<String, Mistake> {
    if (1..=SUBJECT_BYTES).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        "a subject has 1 to 255 bytes",
        "write the sub of the tokens",
    ))
}

pub(super) fn time(text: &str) -> Result<Timestamp, Mistake> {
    Timestamp::parse_iso8601(text).ok_or_else(|| {
        Mistake::new(
            format!("`{}` is not a time", printable(text)),
            "write it in UTC: \"2026-01-31T12:00:00Z\" (`date -u +%FT%TZ` says the present one)",
        )
    })
}
