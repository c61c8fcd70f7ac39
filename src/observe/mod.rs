//! What is seen from outside: counters, one line for each request, the program's own log, and the admin pages.

pub mod access_log;
pub mod admin;
mod credential_counters;
mod log_writer;
pub mod metrics;
pub mod program_log;
mod verdict;

pub use access_log::{AccessLine, AccessLog, LogBuffer};
pub use admin::Readiness;
pub use credential_counters::CacheCounters;
pub use log_writer::LogWriter;
pub use metrics::{CoreMetrics, Event, Metrics};
pub use program_log::ProgramLog;
pub use verdict::{Step, Verdict};
