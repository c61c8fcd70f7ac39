//! Who calls ([`Tenants::authenticate`]), and what they may do ([`Authenticated::authorize`]). Pure.
//!
//! The two proofs are types: only an [`Authenticated`] can be authorized, and only the [`Permit`]
//! that comes of it can be rewritten for COS.

mod anonymous;
mod authenticate;
mod authorize;
mod form;
mod grant;
pub mod limits;
pub mod policy;

pub use authenticate::{Authenticated, Connection, Identity, Tenants};
pub use authorize::Permit;
pub use form::FormCaller;
pub use grant::{Grant, Tenant};
