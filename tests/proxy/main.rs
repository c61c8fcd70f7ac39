//! The whole proxy over sockets: a client, cosgate, and an embedded COS that checks everything. The result is the
//! same bytes or the right error. Every way to call is tried, and every limit of a tenant's access.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod auth;
mod bearer;
mod before_requests;
mod buckets;
mod client_tls;
mod complete_listings;
mod conditions;
mod connections;
mod cors;
mod falsified;
mod fence;
mod http2;
mod isolation;
mod keys;
mod limits;
mod listings;
mod local;
mod multipart;
mod native;
mod objects;
mod post_object;
mod proxy_protocol;
mod questions;
mod reads;
mod refusals;
mod reload;
mod session_keys;
mod streaming;
mod tenant_limits;
mod unix_socket;
mod uploads;
mod upstream;
mod upstream_tls;
