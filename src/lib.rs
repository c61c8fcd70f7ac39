//! **cosgate** is an S3-compatible signing reverse proxy for Tencent Cloud COS.
//!
//! The library is [`credentials::get_credential()`] and what it takes: one temporary key that can do no more
//! than its scope. All other modules are the program's own. They are public for its binary, tests and
//! benches, hidden from this documentation, and change without notice. `ARCHITECTURE.md` describes them.
//!
//! The life of a request, one module a step:
//!
//! 1. `downstream` accepts the connection, keeps its limits and passes each request on with the time;
//! 2. `s3` parses the head into typed parts;
//! 3. `tenant` authenticates the caller and authorizes the request;
//! 4. `decision` says what becomes of it: a response made here, a refusal, or what COS gets;
//! 5. `rewrite` builds a fresh head for COS from the permit, and `proxy` carries the decision out;
//! 6. `body` streams the payload through `payload`, which decodes and verifies it, and holds back its last bytes until then;
//! 7. `credentials` has a live temporary key ready;
//! 8. `sign` signs with it, `upstream` sends on a pooled connection and streams the response back;
//! 9. `observe` writes one log line and counts, whatever happened.
//!
//! The order of the modules below is the order of `ARCHITECTURE.md`: none imports one above it.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "most of the documentation is for those who read the source, where these links lead"
)]

#[cfg(feature = "load")]
pub mod load;

#[doc(hidden)]
pub mod doctor;

#[cfg(feature = "emulator")]
#[doc(hidden)]
pub mod emulator;

#[doc(hidden)]
pub mod downstream;
#[doc(hidden)]
pub mod proxy;

pub mod credentials;
#[doc(hidden)]
pub mod upstream;

#[doc(hidden)]
pub mod body;
#[doc(hidden)]
pub mod observe;
#[doc(hidden)]
pub mod transport;

#[doc(hidden)]
pub mod clock;

// Pure from here on: no IO, no clock.
#[doc(hidden)]
pub mod decision;
#[doc(hidden)]
pub mod rewrite;
#[doc(hidden)]
pub mod tenant;

#[doc(hidden)]
pub mod payload;
#[doc(hidden)]
pub mod sign;

#[doc(hidden)]
pub mod s3;

#[doc(hidden)]
pub mod config;

#[doc(hidden)]
pub mod encoding;
#[doc(hidden)]
pub mod error;
mod json;
#[doc(hidden)]
pub mod seal;
pub mod secret;
pub mod timestamp;
