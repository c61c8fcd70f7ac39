//! An identity provider: whose tokens are believed, and with which keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::jwk::{KeySet, SignatureVerdict};
use super::jwt::{Claims, Jwt, invalid};
use super::session::Trust;
use crate::config;
use crate::error::{Code, S3Error};
use crate::timestamp::Timestamp;

/// Keys that have not been read yet, in place of the time.
const NEVER: i64 = i64::MIN;
/// When a client may try again whose token cannot be checked: a provider is called as often as this.
const RETRY_SECONDS: u32 = 10;

/// An identity provider of the configuration, with the keys that it signs with at the moment.
#[derive(Debug)]
pub(super) struct IdentityProvider {
    /// What it was made of.
    configured: config::IdentityProviderConfig,
    name: String,
    issuer: String,
    audience: String,
    pub(super) tenant_claim: Option<String>,
    /// Keys count for so many seconds after they were last read.
    max_key_age: i64,
    keys: ArcSwap<NumberedKeySet>,
    /// When the keys were last read, in Unix seconds, the same ones or others; or [`NEVER`].
    read: AtomicI64,
    /// The last attempt to read them has failed.
    is_failing: AtomicBool,
    /// Counts all that may change what a token proves.
    changes: AtomicU64,
}

/// How things stand with a provider's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// NAME in `[identities.NAME]`.
    pub name: String,
    /// Seconds since they were last read; `None`: they never were.
    pub age: Option<i64>,
    /// Tokens can be checked with them.
    pub usable: bool,
}

/// A key set, and how many there were before it.
#[derive(Debug, Default)]
struct NumberedKeySet {
    set: KeySet,
    revision: u64,
}

impl IdentityProvider {
    /// Without keys, which come by [`IdentityProvider::replace_keys`].
    pub(super) fn new(identity: &config::IdentityProviderConfig) -> Self {
        Self {
            configured: identity.clone(),
            name: identity.name.clone(),
            issuer: identity.issuer.clone(),
            audience: identity.audience.clone(),
            tenant_claim: identity.tenant_claim.clone(),
            max_key_age: i64::try_from(identity.max_key_age.as_secs()).unwrap_or(i64::MAX),
            keys: ArcSwap::default(),
            read: AtomicI64::new(NEVER),
            is_failing: AtomicBool::new(false),
            changes: AtomicU64::new(0),
        }
    }

    /// The same after a reload: the keys of `old`, if that is the same provider, go on counting.
    pub(super) fn succeeding(
        identity: &config::IdentityProviderConfig,
        old: Option<&Self>,
    ) -> Self {
        let new = Self::new(identity);
        if let Some(old) = old.filter(|old| old.configured == *identity) {
            new.keys.store(old.keys.load_full());
            let (read, is_failing) = (&old.read, &old.is_failing);
            new.read
                .store(read.load(Ordering::Relaxed), Ordering::Relaxed);
            let is_failing = is_failing.load(Ordering::Relaxed);
            new.is_failing.store(is_failing, Ordering::Relaxed);
        }
        new
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

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// From now on only `set` counts, for tokens that have been seen before too.
    pub(super) fn replace_keys(&self, set: KeySet) {
        let revision = self.revision() + 1; // one thread replaces
        self.keys.store(Arc::new(NumberedKeySet { set, revision }));
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The keys that are in use were read at `now`.
    pub(super) fn confirm_keys(&self, now: Timestamp) {
        let was_usable = self.is_usable(now);
        self.read.store(now.unix(), Ordering::Relaxed);
        if self.is_failing.swap(false, Ordering::Relaxed) || !was_usable {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The keys could not be read.
    pub(super) fn miss_keys(&self) {
        self.is_failing.store(true, Ordering::Relaxed);
    }

    /// Counts all that may change what a token proves.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// How things stand with the keys at `now`.
    pub(super) fn key_state(&self, now: Timestamp) -> KeyState {
        let age = self.key_age(now);
        KeyState {
            name: self.name.clone(),
            age,
            usable: self.is_usable(now),
        }
    }

    /// Whether tokens can be checked at `now`.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        let age = self.key_age(now);
        age.is_some_and(|age| age <= self.max_key_age)
    }

    /// Never less than none: the clock may have been set back.
    fn key_age(&self, now: Timestamp) -> Option<i64> {
        let read = self.read.load(Ordering::Relaxed);
        (read != NEVER).then(|| now.since(Timestamp::from_unix(read)).max(0))
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
    pub(super) fn verify(&self, token: &Jwt<'_>, now: Timestamp) -> Result<u64, S3Error> {
        if !self.is_usable(now) {
            return Err(self.unreachable(now));
        }
        let keys = self.keys.load();
        match token.verify(&keys.set) {
            SignatureVerdict::Good => Ok(keys.revision),
            // It may be a newer key, for which the provider cannot be called.
            SignatureVerdict::NoKey if self.is_failing.load(Ordering::Relaxed) => {
                Err(self.unreachable(now))
            }
            SignatureVerdict::NoKey => {
                Err(invalid("the identity provider has no such key (kid, alg)"))
            }
            SignatureVerdict::Wrong => {
                Err(invalid("its signature is not that of the key it names"))
            }
        }
    }

    /// Whether no key counts that could have made the token's signature: there may be a newer set.
    pub(super) fn lacks_key_of(&self, token: &Jwt<'_>, now: Timestamp) -> bool {
        !self.is_usable(now) || !token.has_key_in(&self.keys.load().set)
    }

    /// The refusal of a token that may be good, but cannot be checked.
    fn unreachable(&self, now: Timestamp) -> S3Error {
        let detail = match self.key_age(now) {
            None => "its keys have not been read since the start".to_owned(),
            Some(age) => format!("its keys were last read {age} s ago"),
        };
        let name = &self.name;
        let text = format!(
            "The identity provider {name} cannot be reached, so its tokens cannot be checked now. Try again later."
        );
        S3Error::new(Code::ServiceUnavailable, text)
            .detail(format!("identities.{name}: {detail}"))
            .retry_after(RETRY_SECONDS)
    }
}
