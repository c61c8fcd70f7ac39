//! Toward COS and STS: connection pool, dialling, the one-shot client, response guard, and retry rules.

pub mod dial;
pub(crate) mod one_shot;
pub(crate) mod pool;
pub(crate) mod response_guard;
pub mod retry;
