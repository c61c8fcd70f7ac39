//! **cosgate** is an S3-compatible signing reverse proxy for Tencent Cloud COS.
//!
//! The life of a request, one module a step:
//!
//! 1. [`downstream`] accepts the connection, keeps its limits and passes each request on with the time;
//! 2. [`s3`] parses the head into typed parts;
//! 3. [`tenant`] authenticates the caller and authorizes the request;
//! 4. [`proxy`] answers requests that a scoped key cannot make;
//! 5. [`rewrite`] builds a fresh head for COS from the permit;
//! 6. [`body`] streams the payload through [`payload`], which decodes and verifies it, and holds back its last bytes until then;
//! 7. [`credentials`] has a live temporary key ready;
//! 8. [`sign`] signs with it, [`upstream`] sends on a pooled connection and streams the response back;
//! 9. [`observe`] writes one log line and counts, whatever happened.
//!
//! The order of the modules below is the order of `ARCHITECTURE.md`: none imports one above it.

#[cfg(feature = "load")]
pub mod load;

#[cfg(feature = "emulator")]
pub mod emulator;

pub mod downstream;
pub mod proxy;

pub mod credentials;
pub mod upstream;

pub mod body;
pub mod observe;
pub mod transport;

pub mod clock;

// Pure from here on: no IO, no clock.
pub mod rewrite;
pub mod tenant;

pub mod payload;
pub mod sign;

pub mod s3;

pub mod config;

pub mod encoding;
pub mod error;
mod json;
pub mod seal;
pub mod secret;
pub mod timestamp;
