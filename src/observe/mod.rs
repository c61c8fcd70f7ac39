//! Observability: metrics, one line for each request, the program's own log, and the data of the admin pages.

pub mod access_log;
pub mod admin;
mod combined_line;
mod credential_counters;
mod cut_text;
mod exposition;
pub(crate) mod histogram;
mod history;
mod json_fields;
mod last_errors;
mod log_file;
mod log_writer;
pub(crate) mod metrics;
mod metrics_text;
pub mod paging;
mod process_stats;
mod program_line;
pub(crate) mod program_log;
mod request_trace;
mod short_line;
mod trace_context;

pub use access_log::AccessLine;
pub use access_log::AccessLog;
pub use access_log::LogBuffer;
pub use credential_counters::CacheCounters;
pub use cut_text::CutText;
pub use exposition::TextFormat;
pub use history::{ProgramTotals, RateHistory, RateSample};
pub use last_errors::FailedRequest;
pub use log_writer::LogWriter;
pub use metrics::CoreMetrics;
pub use metrics::EndedRequest;
pub use metrics::Event;
pub use metrics::Metrics;
pub use metrics::TenantTraffic;
pub use metrics_text::{COMMIT, FEATURES, MetricsView, SharedLimitsView};
pub use program_log::{LogLines, ProgramLog};
#[cfg(feature = "otel")]
pub(crate) use request_trace::spans;
#[cfg(all(test, feature = "otel"))]
pub(crate) use request_trace::tests::trace as test_trace;
pub use request_trace::{
    RequestTrace, TraceCounters, TracePart, TracePartKind, TraceQueue, TraceValue,
};
pub use trace_context::{TraceContext, TraceId};
