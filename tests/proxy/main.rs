//! The whole proxy over sockets: a client, cosgate, and an embedded COS that checks everything. The result is the
//! same bytes or the right error.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod before_requests;
mod conditions;
mod connections;
mod falsified;
mod http2;
mod keys;
mod limits;
mod listings;
mod local;
mod multipart;
mod objects;
mod post_object;
mod proxy_protocol;
mod questions;
mod reads;
mod refusals;
mod reload;
mod streaming;
mod tls;
mod unix_socket;
mod uploads;
mod upstream;
mod upstream_tls;
mod whole_listings;
