//! The findings of doctor: one a probe, as a table and as JSON. No field holds a secret.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::encoding::visible::Visible;

/// What a probe says about the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeResult {
    /// It works as it must.
    Ok,
    /// How this store behaves. Nothing needs to change.
    Note,
    /// It works, but the operator should know or change something.
    Warning,
    /// It does not work, or is not safe.
    Fail,
    /// It was not probed; the meaning says why.
    Skipped,
}

/// One probe and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The section of the report.
    pub part: ProbeArea,
    /// The host, issuer, tenant or grant that it is about.
    pub subject: String,
    /// What was checked.
    pub check: &'static str,
    /// What follows.
    pub verdict: ProbeResult,
    /// What was sent, without keys and signatures.
    pub sent: String,
    /// What came back.
    pub came: String,
    /// What it means.
    pub meaning: String,
    /// What to change in the configuration or in CAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

/// A section of the report, in the order of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeArea {
    /// Names, connections, TLS and the clock.
    Network,
    /// Temporary keys.
    Keys,
    /// What a temporary key can and cannot do.
    Fence,
    /// What the documents of COS leave open.
    Store,
    /// The removal of what was written.
    Cleanup,
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The version of cosgate.
    pub version: &'static str,
    /// The folders that were written to, as bucket and prefix.
    pub folders: Vec<String>,
    /// In the order of the probes.
    pub findings: Vec<Finding>,
}

/// Findings as they come: kept, and shown at once.
pub(super) struct Findings<'f> {
    pub(super) all: Vec<Finding>,
    show: &'f mut dyn FnMut(&Finding),
}

impl<'f> Findings<'f> {
    pub(super) fn new(show: &'f mut dyn FnMut(&Finding)) -> Self {
        Self {
            all: Vec::new(),
            show,
        }
    }

    pub(super) fn push(&mut self, finding: Finding) {
        (self.show)(&finding);
        self.all.push(finding);
    }

    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.push(finding);
        }
    }
}

impl Finding {
    /// A finding about `subject`, as good as it can be; the methods below fill it.
    pub(super) fn new(part: ProbeArea, subject: impl Into<String>, check: &'static str) -> Self {
        Self {
            part,
            subject: subject.into(),
            check,
            verdict: ProbeResult::Ok,
            sent: String::new(),
            came: String::new(),
            meaning: String::new(),
            change: None,
        }
    }

    #[must_use]
    pub(super) fn sent(mut self, sent: impl fmt::Display) -> Self {
        self.sent = printable(&sent.to_string());
        self
    }

    #[must_use]
    pub(super) fn came(mut self, came: impl fmt::Display) -> Self {
        self.came = printable(&came.to_string());
        self
    }

    #[must_use]
    pub(super) fn is(mut self, verdict: ProbeResult, meaning: impl Into<String>) -> Self {
        (self.verdict, self.meaning) = (verdict, meaning.into());
        self
    }

    #[must_use]
    pub(super) fn change(mut self, change: impl Into<String>) -> Self {
        self.change = Some(change.into());
        self
    }
}

impl Diagnosis {
    /// Whether a probe failed.
    pub fn has_failed(&self) -> bool {
        self.count(ProbeResult::Fail) > 0
    }

    fn count(&self, verdict: ProbeResult) -> usize {
        let of_verdict = |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(of_verdict).count()
    }
}

/// The last line of the table, for people; the findings stand above it.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [failed, warnings] = [ProbeResult::Fail, ProbeResult::Warning].map(|of| self.count(of));
        writeln!(
            f,
            "\n{} probes: {failed} failed, {warnings} with a warning",
            self.findings.len()
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, check, .. } = self;
        let mut text = format!("  {:<8}{subject}: {check}\n", self.verdict.label());
        let lines = [
            ("sent", Some(&self.sent)),
            ("came", Some(&self.came)),
            ("means", Some(&self.meaning)),
            ("change", self.change.as_ref()),
        ];
        for (label, line) in lines {
            if let Some(line) = line.filter(|line| !line.is_empty()) {
                writeln!(text, "          {label:<7}{line}")?;
            }
        }
        f.write_str(&text)
    }
}

impl fmt::Display for ProbeArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "Network",
            Self::Keys => "Temporary keys",
            Self::Fence => "What the temporary keys can do",
            Self::Store => "How the store behaves",
            Self::Cleanup => "Clean-up",
        })
    }
}

impl ProbeResult {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fail => "FAIL",
            Self::Skipped => "skipped",
        }
    }
}

/// Text of a stranger, for a terminal: hidden characters are escaped, and it is cut.
fn printable(text: &str) -> String {
    const CHARS: usize = 300;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", Visible(text.get(..end).unwrap_or_default())),
        None => Visible(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_was_found_and_counts() {
        let finding = |verdict| {
            Finding::new(
                ProbeArea::Fence,
                "acme/photos",
                "PutObject inside the grant",
            )
            .sent("PUT /a")
            .came("200\u{1b}[31m\u{202e}")
            .is(verdict, "it works")
        };
        let failed = finding(ProbeResult::Fail).change("[tenants.acme]");
        let text = failed.to_string();
        assert!(text.starts_with("  FAIL    acme/photos: PutObject inside the grant\n"));
        assert!(
            text.contains("change [tenants.acme]\n") && text.contains("200\\u{1b}[31m\\u{202e}")
        );
        let mut shown = 0;
        let mut show = |_: &Finding| shown += 1;
        let mut findings = Findings::new(&mut show);
        findings.push(failed);
        findings.extend([finding(ProbeResult::Ok), finding(ProbeResult::Warning)]);
        let report = Diagnosis {
            version: "0",
            folders: Vec::new(),
            findings: findings.all,
        };
        assert_eq!(shown, 3);
        assert_eq!(
            report.to_string(),
            "\n3 probes: 1 failed, 1 with a warning\n"
        );
        assert!(report.has_failed());
    }
}
