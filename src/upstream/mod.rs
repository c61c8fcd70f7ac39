//! Toward COS, STS and a Redis: connection pool, dialling, the one-shot client, response guard, retry rules, shared
//! limits, and the exporter of traces.

pub mod dial;
pub(crate) mod one_shot;
#[cfg(feature = "otel")]
mod otlp;
pub(crate) mod pool;
pub(crate) mod redis_link;
pub(crate) mod response_guard;
pub mod retry;
pub mod shared_limits;
#[cfg(feature = "otel")]
pub mod trace_export;
