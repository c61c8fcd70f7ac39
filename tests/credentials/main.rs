//! Temporary keys: their sources, caching, sharing and vending, and failures of each.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod faults;
mod issuers;
mod keys;
mod redis_server;
mod shared_credentials;
mod vend;
