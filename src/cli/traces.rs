//! Traces of `cosgate serve`: the exporter, if one was built and is configured.

use std::io;
use std::time::Duration;

use cosgate::config::TracesConfig;
use cosgate::observe::{Metrics, TraceQueue};
#[cfg(feature = "otel")]
use cosgate::upstream::trace_export::TraceExporter;

/// The exporter, and the queue that it empties.
#[derive(Default)]
pub(super) struct Traces {
    pub(super) queue: Option<TraceQueue>,
    #[cfg(feature = "otel")]
    exporter: Option<TraceExporter>,
}

impl Traces {
    /// Starts the exporter. A program that was built without one refuses a configuration with a collector.
    #[cfg(feature = "otel")]
    pub(super) fn start(config: &TracesConfig) -> io::Result<Self> {
        let Some(collector) = &config.collector else {
            return Ok(Self::default());
        };
        let (queue, exporter) = TraceExporter::start(collector)?;
        Ok(Self {
            queue: Some(queue),
            exporter: Some(exporter),
        })
    }

    /// The same.
    #[cfg(not(feature = "otel"))]
    #[expect(clippy::unnecessary_wraps, reason = "the other can fail")]
    pub(super) fn start(_: &TracesConfig) -> io::Result<Self> {
        Ok(Self::default())
    }

    /// Has `metrics` show what became of spans.
    pub(super) fn counted(&self, metrics: Metrics) -> Metrics {
        match &self.queue {
            Some(queue) => metrics.with_traces(queue.counters()),
            None => metrics,
        }
    }

    /// Waits until the last requests are sent, at most for `limit`.
    #[cfg_attr(
        not(feature = "otel"),
        expect(clippy::unused_self, reason = "there is no exporter")
    )]
    pub(super) fn finish(self, limit: Duration) {
        #[cfg(feature = "otel")]
        if let Some(exporter) = self.exporter {
            exporter.finish(limit);
        }
        #[cfg(not(feature = "otel"))]
        let _ = limit;
    }
}
