//! Toward COS and STS: connection pool, dialling, the one-shot client, response guard, retry rules, and the exporter
//! of traces.

pub mod dial;
pub(crate) mod one_shot;
#[cfg(feature = "otel")]
mod otlp;
pub(crate) mod pool;
pub(crate) mod response_guard;
pub mod retry;
#[cfg(feature = "otel")]
pub mod trace_export;
