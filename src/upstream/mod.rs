//! Toward COS and STS: connection pool, dialling, response guard, and retry rules.

pub mod dial;
pub mod pool;
pub mod response_guard;
pub mod retry;
