//! An identity provider: whose tokens are believed, and with which keys.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::jwk::{KeySet, Verdict};
use super::jwt::{Claims, Jwt, invalid};
use super::session::Trust;
use crate::config;
use crate::s3::S3Error;

/// An identity provider of the configuration, with the keys that it signs with at the moment.
#[derive(Debug)]
pub(super) struct IdentityProvider {
    name: String,
    issuer: String,
    audience: String,
    pub(super) tenant_claim: Option<String>,
    keys: ArcSwap<Keys>,
}

/// A key set, and how many there were before it.
#[derive(Debug, Default)]
struct Keys {
    set: KeySet,
    revision: u64,
}

impl IdentityProvider {
    /// Without keys, which come by [`IdentityProvider::replace_keys`].
    pub(super) fn new(identity: &config::IdentityProvider) -> Self {
        Self {
            name: identity.name.clone(),
            issuer: identity.issuer.clone(),
            audience: identity.audience.clone(),
            tenant_claim: identity.tenant_claim.clone(),
            keys: ArcSwap::default(),
        }
    }

    /// What a session rests on that was got with one of its tokens.
    pub(super) fn trust(&self) -> Trust<'_> {
        Trust::Identity {
            name: &self.name,
            issuer: &self.issuer,
            audience: &self.audience,
            tenant_claim: self.tenant_claim.as_deref(),
        }
    }

    /// From now on only `set` counts, for tokens that have been seen before too.
    pub(super) fn replace_keys(&self, set: KeySet) {
        let revision = self.revision() + 1; // one thread replaces
        self.keys.store(Arc::new(Keys { set, revision }));
    }

    /// How many key sets there have been.
    pub(super) fn revision(&self) -> u64 {
        self.keys.load().revision
    }

    /// Whether it is the one that says it made the token, and made it for us. Both texts are compared
    /// as they are (RFC 7519 section 4.1.1).
    pub(super) fn claims(&self, claims: &Claims) -> bool {
        claims.text("iss") == Some(&self.issuer) && claims.is_for(&self.audience)
    }

    /// Checks the signature. Gives the revision of the key set that found it good.
    pub(super) fn verify(&self, token: &Jwt<'_>) -> Result<u64, S3Error> {
        let keys = self.keys.load();
        match token.verify(&keys.set) {
            Verdict::Good => Ok(keys.revision),
            Verdict::NoKey => Err(invalid("the identity provider has no such key (kid, alg)")),
            Verdict::Wrong => Err(invalid("its signature is not that of the key it names")),
        }
    }

    /// Whether no key could have made the token's signature: there may be a newer set.
    pub(super) fn lacks_key_of(&self, token: &Jwt<'_>) -> bool {
        !token.has_key_in(&self.keys.load().set)
    }
}
