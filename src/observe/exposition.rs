//! The text that a scraper reads: Prometheus's format 0.0.4, or `OpenMetrics` 1.0.
//!
//! Written here because `prometheus-client` encodes only the second and `prometheus` only the first, and both want the
//! counters in their own atomics, where each core has a block of its own. `promtool` checks the text in the tests.

use std::fmt::{Display, Write as _};

use super::histogram::HistogramTotal;

/// The format, as the request's `Accept` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// `application/openmetrics-text`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Prometheus,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// A text that is written family by family.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    format: TextFormat,
    family: &'static str,
}

impl TextFormat {
    /// The format for a request with this `Accept`.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// The `Content-Type` of the text.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

// Writing to a String cannot fail.
impl Exposition {
    pub(super) fn new(format: TextFormat) -> Self {
        Self {
            text: String::with_capacity(16 * 1024),
            format,
            family: "",
        }
    }

    /// Begins a family. `OpenMetrics` names a counter without `_total`, which its samples have.
    pub(super) fn family(&mut self, name: &'static str, help: &str, kind: MetricKind) {
        self.family = name;
        let described = match (self.format, kind) {
            (TextFormat::OpenMetrics, MetricKind::Counter) => name.trim_end_matches("_total"),
            _ => name,
        };
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let _ = writeln!(
            self.text,
            "# HELP {described} {help}\n# TYPE {described} {kind}"
        );
    }

    /// A sample of the family. `labels` are empty, or in braces.
    pub(super) fn sample(&mut self, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{}{labels} {value}", self.family);
    }

    /// A whole family of one sample.
    pub(super) fn single(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricKind,
        value: impl Display,
    ) {
        self.family(name, help, kind);
        self.sample("", value);
    }

    /// The samples of a histogram of the family. `labels` are empty, or such as `operation="GetObject"`.
    pub(super) fn histogram(&mut self, labels: &str, total: &HistogramTotal) {
        let (name, count) = (self.family, total.count());
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in total.cumulative() {
            let _ = writeln!(
                self.text,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
            );
        }
        let braced = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let seconds = total.seconds();
        let _ = writeln!(
            self.text,
            "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n{name}_sum{braced} {seconds}\n{name}_count{braced} {count}"
        );
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == TextFormat::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A label's value: what would end it is escaped.
pub(super) fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text
}
