//! Who calls, and what each may touch: every way in, the fence around a tenant, its limits.

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
