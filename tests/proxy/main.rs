//! The whole of it: a client's bytes in, cosgate, an embedded COS that checks everything, and the
//! same bytes or the right refusal out.

#[path = "../support/mod.rs"]
mod support;

mod connections;
mod keys;
mod limits;
mod listings;
mod local;
mod multipart;
mod objects;
mod refusals;
