//! Who calls ([`Tenants::authenticate`]), and what they may do ([`Authenticated::authorize`]). Pure.
//!
//! The two proofs are types: only an [`Authenticated`] can be authorized, and only the [`Permit`]
//! that comes of it can be rewritten for COS.

mod authenticate;
mod authorize;
mod form;
mod grant;
mod identity;
mod jwk;
mod jwt;
pub mod limits;
mod listing;
pub mod policy;
pub(crate) mod rate;
mod session;
pub mod subject_limits;
mod template;
pub mod vend;

pub use authenticate::{
    Authenticated, Caller, Certified, Connection, Identified, Identity, Network, Peer, SignedCall,
    Source, Tenants, UnixUser, bearer_token, may_need_newer_keys,
};
pub use authorize::Permit;
pub use form::FormCaller;
pub use grant::{Counted, Grant, Tenant};
pub use identity::KeyState;
pub use jwk::{BadKeySet, KEY_SET_BYTES, KeySet};
pub use listing::ListingPage;
pub use session::SessionKey;
