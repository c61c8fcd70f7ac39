//! Authentication and authorization: every way to call, the limits of a tenant's access, and its rates.

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod auth;
mod bearer;
mod cors;
mod fence;
mod isolation;
mod native;
mod session_keys;
mod tenant_limits;
mod virtual_buckets;
