//! The side of COS and STS: the connection pool, dialling, the one-shot client, the guard of responses, and when to try again.

pub mod dial;
pub(crate) mod one_shot;
pub mod pool;
mod response_guard;
pub mod retry;
