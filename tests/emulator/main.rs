//! The emulator over sockets: its operations, and everything that it must refuse.

mod append;
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]
mod client;
mod cos;
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]
mod faults;
mod multipart;
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]
mod product;
mod refusals;
mod sts;
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tls;
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod versions;
