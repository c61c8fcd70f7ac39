//! Who calls ([`Tenants::authenticate`]), and what they may do ([`Authenticated::authorize`]). Pure.
//!
//! The two proofs are types: only an [`Authenticated`] can be authorized, and only the [`Permit`]
//! that comes of it can be rewritten for COS.

mod authenticate;
mod authorize;
mod cors;
mod form;
mod grant;
mod identity_provider;
mod jwk;
mod jwt;
pub mod limits;
mod listing;
pub mod policy;
pub(crate) mod rate;
mod session;
pub mod shared_rate;
pub mod subject_limits;
mod template;
pub mod vend;

pub use authenticate::Certified;
pub use authenticate::EndingKeys;
pub use authenticate::Network;
pub use authenticate::Source;
pub use authenticate::{Authenticated, Caller, Connection, Identity, Peer, Tenants, UnixUser};
pub(crate) use authenticate::{
    Identified, KEY_ENDS, SignedCall, bearer_token, may_need_newer_keys,
};
pub use authorize::Permit;
pub use cors::{AllowedPreflight, CorsRules, CrossOrigin, PageRequest, Readable};
pub use grant::Counted;
pub use grant::{Grant, Tenant};
pub use identity_provider::KeyState;
pub(crate) use jwk::{KEY_SET_BYTES, KeySet};
pub(crate) use listing::ListingPage;
pub(crate) use session::SessionKey;
