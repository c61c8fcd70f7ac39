//! Temporary keys: where they come from, how they are kept, shared and handed out, and troubles of each.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod faults;
mod issuers;
mod keys;
mod shared_credentials;
mod vend;
