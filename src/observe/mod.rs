//! What is seen from outside: counters, one line for each request, and the admin pages.

pub mod access_log;
pub mod admin;
pub mod metrics;
mod verdict;

pub use access_log::{AccessLine, AccessLog, AccessLogWriter, LogBuffer};
pub use admin::Readiness;
pub use metrics::{CoreMetrics, Event, Metrics};
pub use verdict::{Step, Verdict};
