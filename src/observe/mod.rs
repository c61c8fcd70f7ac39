//! What is seen from outside: counters, one line for each request, the program's own log, and the admin pages.

pub mod access_log;
pub mod admin;
mod credential_counters;
mod exposition;
pub(crate) mod histogram;
mod history;
mod last_errors;
mod log_writer;
pub(crate) mod metrics;
mod metrics_text;
pub mod paging;
mod process_stats;
pub(crate) mod program_log;
mod short_line;

pub use access_log::AccessLog;
pub use access_log::LogBuffer;
pub use access_log::{AccessLine, LineFormat};
pub use credential_counters::CacheCounters;
pub use exposition::TextFormat;
pub use history::{ProgramTotals, RateHistory, RateSample};
pub use last_errors::FailedRequest;
pub use log_writer::LogWriter;
pub use metrics::CoreMetrics;
pub use metrics::EndedRequest;
pub use metrics::Event;
pub use metrics::Metrics;
pub use metrics::TenantTraffic;
pub use metrics_text::{COMMIT, FEATURES, MetricsView};
pub use program_log::{LogLines, ProgramLog};
