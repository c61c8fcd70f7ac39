//! `Authorization: Bearer`: a token of an identity provider that is configured.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::{Authenticated, Connection, Identity, Source, Tenants, payload_mode};
use crate::error::{Code, S3Error};
use crate::sign::one_authorization;
use crate::tenant::Tenant;
use crate::tenant::identity_provider::IdentityProvider;
use crate::tenant::jwt::{Claims, Jwt, Validity, invalid};
use crate::tenant::session::SessionTenant;
use crate::timestamp::Timestamp;

/// What a good token has proved.
#[derive(Debug)]
pub(super) struct Proof {
    tenant: Arc<Tenant>,
    /// The same by names, for a session.
    whose: SessionTenant,
    subject: Arc<str>,
    validity: Validity,
    identity: usize,
    /// Of the key set that it was checked with.
    revision: u64,
}

impl Proof {
    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    pub(super) fn whose(&self) -> SessionTenant {
        self.whose.clone()
    }

    /// The index of the provider that made the token.
    pub(super) fn identity(&self) -> usize {
        self.identity
    }

    pub(super) fn subject(&self) -> Arc<str> {
        Arc::clone(&self.subject)
    }
}

/// The token in the `Authorization` header, if it is of this kind. The scheme's case does not matter
/// (RFC 9110 section 11.1).
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    const SCHEME: &[u8] = b"bearer ";
    let value = headers.get(AUTHORIZATION)?;
    let scheme = value.as_bytes().get(..SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    value.to_str().ok()?.get(SCHEME.len()..)
}

/// Whether a token that was refused with `error` may pass with newer keys of its provider.
pub(crate) fn may_need_newer_keys(error: &S3Error) -> bool {
    matches!(error.code(), Code::InvalidToken | Code::ServiceUnavailable)
}

impl Tenants {
    /// Checks a token. Nothing that it states reaches the client or the log before it is verified.
    pub(super) fn bearer(
        &self,
        token: &str,
        head: &Parts,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Authenticated, S3Error> {
        if head.headers.get_all(AUTHORIZATION).iter().count() > 1 {
            return Err(one_authorization());
        }
        self.check_secrecy(connection)?;
        let proof = self.prove(token, connection.source(), now)?;
        let payload = payload_mode(&head.headers)?;
        let identity = Identity::Bearer(Arc::clone(&proof.subject));
        Ok(Authenticated::new(&proof.tenant, identity, payload))
    }

    /// Refuses a connection on which others could read a token or a key.
    pub(in crate::tenant) fn check_secrecy(&self, connection: Connection) -> Result<(), S3Error> {
        if connection.is_private() || self.allow_plain_bearer {
            return Ok(());
        }
        Err(S3Error::new(
            Code::AccessDenied,
            "Access Denied: tokens and keys are sent over TLS or on loopback only. Use https, or ask the operator to \
             set [server.tls], or allow_plain_bearer = true behind a proxy that terminates TLS.",
        ))
    }

    /// The index of the identity provider whose keys cannot have made `token`, or do not count at `now`,
    /// so that it is worth requesting newer ones.
    pub(crate) fn lacks_key_of(&self, token: &str, now: Timestamp) -> Option<usize> {
        let token = Jwt::parse(token).ok()?;
        let (index, identity) = self.provider_of(&token)?;
        identity.lacks_key_of(&token, now).then_some(index)
    }

    /// Counts what has changed in the keys of all providers: while it stays, what was refused is refused again.
    pub(crate) fn key_changes(&self) -> u64 {
        self.identities.iter().map(IdentityProvider::changes).sum()
    }

    /// What `token`, which came from `source`, proves at `now`.
    pub(super) fn prove(
        &self,
        token: &str,
        source: Source,
        now: Timestamp,
    ) -> Result<Arc<Proof>, S3Error> {
        if self.identities.is_empty() {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "This endpoint accepts no tokens. Sign the request with a local access key, or ask the operator to \
                 add [identities.NAME].",
            ));
        }
        let is_current = |proof: &Proof| {
            let identity = self.identities.get(proof.identity);
            identity.is_some_and(|identity| {
                identity.revision() == proof.revision && identity.is_usable(now)
            })
        };
        let check = || {
            let check = || self.check(token, now);
            self.strangers.hold(source, now, check)
        };
        let proof = self.proofs.get(token, is_current, check)?;
        proof.validity.check(now)?;
        Ok(proof)
    }

    fn check(&self, token: &str, now: Timestamp) -> Result<Proof, S3Error> {
        let token = Jwt::parse(token)?;
        let (index, identity) = self
            .provider_of(&token)
            .ok_or_else(|| invalid("no configured identity provider has its iss and aud"))?;
        let revision = identity.verify(&token, now)?;
        let claims = token.unverified();
        let validity = claims.validity()?;
        validity.check(now)?;
        let (tenant, whose) = self.tenant_of(index, identity, claims)?;
        Ok(Proof {
            tenant,
            whose,
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
    ) -> Result<(Arc<Tenant>, SessionTenant), S3Error> {
        let named = identity
            .tenant_claim
            .as_ref()
            .filter(|name| claims.has(name));
        if let Some(claim) = named {
            // Only a tenant that has declared so is named by this provider.
            let tenant = claims.text(claim).and_then(|name| {
                let trusting = self.trusting.get(index)?;
                trusting.get(name).and_then(|tenant| self.all.get(*tenant))
            });
            let tenant = tenant.ok_or_else(|| {
                S3Error::new(
                    Code::AccessDenied,
                    format!("Access Denied: the token's claim {claim} names no tenant that accepts tokens of this identity provider."),
                )
            })?;
            return Ok((
                Arc::clone(tenant),
                SessionTenant::Tenant(tenant.name.clone()),
            ));
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
        let tenant = template.tenant(|name| claims.text(name))?;
        let used = template.claims().iter();
        let used = used.filter_map(|name| Some((name.clone(), claims.text(name)?.to_owned())));
        let whose = SessionTenant::Template(template.name().to_owned(), used.collect());
        Ok((Arc::new(tenant), whose))
    }
}
