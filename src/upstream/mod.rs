//! The side of COS and STS: the connection pool, dialling, the guard of responses, and when to try again.

pub mod dial;
pub mod pool;
mod response_guard;
pub mod retry;
