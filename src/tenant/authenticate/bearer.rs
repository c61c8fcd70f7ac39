//! `Authorization: Bearer`: a token of an identity provider that is configured.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::{Authenticated, Connection, Identity, Tenants, content_sha256};
use crate::payload::Mode;
use crate::s3::{Code, S3Error};
use crate::tenant::Tenant;
use crate::tenant::identity::IdentityProvider;
use crate::tenant::jwt::{Claims, Jwt, Validity, invalid};
use crate::timestamp::Timestamp;

/// Tokens that need not be checked anew; twice as many are kept at most.
const REMEMBERED: usize = 16 * 1024;
/// Tables that they are spread over, so that cores seldom wait for each other.
const SHARDS: usize = 16;

/// What a good token has proved.
#[derive(Debug)]
pub(super) struct Proof {
    tenant: Arc<Tenant>,
    subject: Arc<str>,
    validity: Validity,
    identity: usize,
    /// Of the key set that it was checked with.
    revision: u64,
}

/// Proofs by the hash of their token. Only tokens that were found good get in, so that a stranger
/// can push nobody out; the oldest half goes at once, when there are too many.
pub(super) struct Proofs([Mutex<Generations>; SHARDS]);

#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Arc<Proof>>,
    old: HashMap<[u8; 32], Arc<Proof>>,
}

/// The token in the `Authorization` header, if it is of this kind. The scheme's case does not matter
/// (RFC 9110 section 11.1).
pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

impl Tenants {
    /// Checks a token. Nothing that it says is told to the client or the log before it is verified.
    pub(super) fn bearer(
        &self,
        token: &[u8],
        head: &Parts,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Authenticated, S3Error> {
        if head.headers.get_all(AUTHORIZATION).iter().count() > 1 {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "Only one Authorization header is allowed",
            ));
        }
        if !(connection.tls || connection.loopback || self.allow_plain_bearer) {
            return Err(S3Error::new(
                Code::AccessDenied,
                "Access Denied: a token is taken over TLS or on loopback only, since whoever reads it \
                 can use it: set [server.tls], or allow_plain_bearer = true behind a proxy that \
                 speaks TLS. This one must be taken back.",
            ));
        }
        let token = std::str::from_utf8(token).map_err(|_| invalid("it is not ASCII"))?;
        let proof = self.prove(token, now)?;
        let payload = content_sha256(&head.headers)?.map_or(Ok(Mode::Unsigned), Mode::parse)?;
        Ok(Authenticated {
            tenant: Arc::clone(&proof.tenant),
            identity: Identity::Bearer(Arc::clone(&proof.subject)),
            payload,
            chunks: None,
        })
    }

    /// The index of the identity provider whose keys cannot have made the token of `headers`, so that
    /// it is worth asking for newer ones.
    pub fn lacks_key_of(&self, headers: &HeaderMap) -> Option<usize> {
        let token = std::str::from_utf8(bearer_token(headers)?).ok()?;
        let token = Jwt::parse(token).ok()?;
        let (index, identity) = self.provider_of(&token)?;
        identity.lacks_key_of(&token).then_some(index)
    }

    /// What `token` proves at `now`.
    pub(super) fn prove(&self, token: &str, now: Timestamp) -> Result<Arc<Proof>, S3Error> {
        if self.identities.is_empty() {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "No tokens are taken here: sign the request with a local access key, or add \
                 [identities.NAME].",
            ));
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(proof) = self.proofs.get(&hash)
            && (self.identities.get(proof.identity))
                .is_some_and(|identity| identity.revision() == proof.revision)
        {
            proof.validity.check(now)?;
            return Ok(proof);
        }
        let proof = Arc::new(self.check(token, now)?);
        self.proofs.put(hash, &proof);
        Ok(proof)
    }

    fn check(&self, token: &str, now: Timestamp) -> Result<Proof, S3Error> {
        let token = Jwt::parse(token)?;
        let (index, identity) = self
            .provider_of(&token)
            .ok_or_else(|| invalid("no [identities.*] has its iss and aud"))?;
        let revision = identity.verify(&token)?;
        let claims = token.unverified();
        let validity = claims.validity()?;
        validity.check(now)?;
        Ok(Proof {
            tenant: self.tenant_of(index, identity, claims)?,
            subject: claims.subject()?.into(),
            validity,
            identity: index,
            revision,
        })
    }

    fn provider_of(&self, token: &Jwt<'_>) -> Option<(usize, &IdentityProvider)> {
        let mut all = self.identities.iter().enumerate();
        all.find(|(_, identity)| identity.claims(token.unverified()))
    }

    /// Whose token it is: the tenant's that it names, or one of the identity's template.
    fn tenant_of(
        &self,
        index: usize,
        identity: &IdentityProvider,
        claims: &Claims,
    ) -> Result<Arc<Tenant>, S3Error> {
        let named = identity
            .tenant_claim
            .as_ref()
            .filter(|name| claims.has(name));
        if let Some(claim) = named {
            // Only a tenant that has said so is named by this provider.
            let tenant = claims.text(claim).and_then(|name| {
                let trusting = self.trusting.get(index)?;
                trusting.get(name).and_then(|tenant| self.all.get(*tenant))
            });
            return tenant.map(Arc::clone).ok_or_else(|| {
                S3Error::new(
                    Code::AccessDenied,
                    format!("Access Denied: the token's claim {claim} names no tenant that takes its identity."),
                )
            });
        }
        let template = self
            .templates
            .iter()
            .find(|(identity, _)| *identity == index);
        let (_, template) = template.ok_or_else(|| {
            S3Error::new(
                Code::AccessDenied,
                "Access Denied: the token names no tenant.",
            )
        })?;
        template.tenant(|name| claims.text(name)).map(Arc::new)
    }
}

impl Proofs {
    pub(super) fn new() -> Self {
        Self(Default::default())
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Arc<Proof>> {
        let mut shard = self
            .shard(hash)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(proof) = shard.young.get(hash) {
            return Some(Arc::clone(proof));
        }
        let proof = shard.old.remove(hash)?;
        shard.put(*hash, &proof);
        Some(proof)
    }

    fn put(&self, hash: [u8; 32], proof: &Arc<Proof>) {
        let shard = self.shard(&hash).lock();
        shard
            .unwrap_or_else(PoisonError::into_inner)
            .put(hash, proof);
    }

    fn shard(&self, hash: &[u8; 32]) -> &Mutex<Generations> {
        let [first, ..] = self.0.each_ref();
        let at = hash.first().map_or(0, |byte| usize::from(*byte) % SHARDS);
        self.0.get(at).unwrap_or(first)
    }
}

impl Generations {
    fn put(&mut self, hash: [u8; 32], proof: &Arc<Proof>) {
        if self.young.len() >= REMEMBERED / SHARDS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, Arc::clone(proof));
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").finish_non_exhaustive()
    }
}
