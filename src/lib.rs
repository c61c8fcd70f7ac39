//! **cosgate** is an S3-compatible signing reverse proxy for Tencent Cloud COS.
//!
//! The life of a request, one module a step:
//!
//! 1. [`server`] accepts the connection, keeps its limits and reads the clock, once;
//! 2. [`s3`] parses the head into typed parts: what is asked;
//! 3. [`tenant`] authenticates the caller and authorizes the request: who asks, and may they;
//! 4. [`proxy`] answers here what a scoped key cannot ask COS;
//! 5. [`rewrite`] builds a fresh head for COS from the permit;
//! 6. [`body`] streams the payload through [`payload`], which decodes and checks it and holds back its end until every check has passed;
//! 7. [`credentials`] has a live temporary key at hand;
//! 8. [`sign`] signs with it, [`upstream`] sends on a pooled connection and streams the answer back;
//! 9. [`observe`] writes one line and counts, whatever happened.

pub mod admin;
pub mod answers;
pub mod body;
pub mod certificate;
mod client_verifier;
pub mod config;
mod connection_limit;
pub mod counted;
pub mod credentials;
pub mod descriptors;
pub mod dial;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod frames;
pub mod front;
pub mod handshake;
pub mod header_block;
pub mod http2;
mod json;
pub mod jwks;
mod line;
pub mod listen;
#[cfg(feature = "load")]
pub mod load;
pub mod observe;
pub mod payload;
mod proxied;
pub mod proxy;
pub mod proxy_header;
pub mod rewrite;
pub mod s3;
pub mod seal;
pub mod secret;
pub mod server;
pub mod shape;
pub mod sign;
pub mod tenant;
pub mod timestamp;
pub mod tls;
pub mod upstream;
