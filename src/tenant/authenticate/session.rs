//! Local session keys: a signature of Version 4 or of COS's own with a token of ours, and who gets one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;

use super::local_key::LocalKey;
use super::sigv4::wrong_scope;
use super::{
    Authenticated, Connection, Identified, Identity, Tenants, unknown_key, wrong_signature,
};
use crate::encoding::hex::sha256_hex;
use crate::error::{Code, S3Error};
use crate::payload::Mode;
use crate::s3::Query;
use crate::s3::sts::{StsAction, StsRequest};
use crate::sign::Signable;
use crate::sign::sigv4::{SigV4Claim, SigningKey};
use crate::tenant::Tenant;
use crate::tenant::identity::IdentityProvider;
use crate::tenant::session::{Session, SessionHolder, SessionKey, Whose};
use crate::timestamp::Timestamp;

pub(super) const SECURITY_TOKEN: &str = "x-amz-security-token";
/// The service in the scope of a call of STS.
const SERVICE: &str = "sts";

/// A session token that has been opened.
#[derive(Debug)]
pub(in crate::tenant) struct OpenSession {
    pub(super) key: LocalKey,
    pub(super) tenant: Arc<Tenant>,
    session: Session,
}

impl OpenSession {
    pub(in crate::tenant) fn identity(&self) -> Identity {
        Identity::Session {
            key_id: Arc::clone(&self.key.id),
            subject: self.session.subject.clone(),
            access_key: self.session.access_key.clone(),
        }
    }
}

/// The session token of a request under this name: in a header or in the query, once.
pub(super) fn session_token<'a>(
    name: &str,
    headers: &'a HeaderMap,
    query: &'a [(Cow<'_, str>, Cow<'_, str>)],
) -> Result<Option<&'a str>, S3Error> {
    let in_query = query
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| Some(&**value));
    let in_headers = headers.get_all(name).iter();
    let mut all = in_headers.map(|value| value.to_str().ok()).chain(in_query);
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(Some(token)), None) => Ok(Some(token)),
        _ => Err(not_ours()),
    }
}

/// The refusal of a session token that was not issued here.
pub(super) fn not_ours() -> S3Error {
    S3Error::new(
        Code::InvalidToken,
        "The provided token is not one that was issued here: use a local access key, which has no \
         session token (unset AWS_SESSION_TOKEN)",
    )
}

/// The refusal of a session whose tenant, key or identity provider is gone, or is another one now. SDKs
/// fetch new keys on it, and learn there what is wrong.
fn ended() -> S3Error {
    S3Error::new(
        Code::ExpiredToken,
        "The session has ended: what its keys were got with counts no more. Fetch new session keys.",
    )
}

impl Tenants {
    /// What `token` says, if it is one of ours and still good at `now`.
    pub(in crate::tenant) fn session(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<OpenSession>, S3Error> {
        if self.seal.is_empty() {
            return Err(not_ours());
        }
        let opened = self.sessions.get(token, |_| true, || self.open(token))?;
        if opened.session.is_over(now) {
            return Err(S3Error::new(
                Code::ExpiredToken,
                "The provided token has expired: fetch new session keys.",
            ));
        }
        let of_tenant = self.revoked.get(opened.tenant.index);
        let mut rules = of_tenant.into_iter().chain([&self.revoked_of_all]);
        if rules.any(|revoked| opened.session.is_revoked(revoked)) {
            return Err(S3Error::new(
                Code::ExpiredToken, // SDKs fetch new keys on it
                "The provided token has been revoked: fetch new session keys.",
            ));
        }
        Ok(opened)
    }

    fn open(&self, token: &str) -> Result<OpenSession, S3Error> {
        let opened = self.seal.open(token).ok_or_else(not_ours)?;
        let session = &opened.session;
        let tenant = self.tenant_of_session(session).ok_or_else(ended)?;
        let rests = if let Some(id) = session.access_key.as_deref() {
            let key = self.keys.get(id);
            key.is_some_and(|key| key.tenant == tenant.index && opened.rests_on(&key.trust()))
        } else {
            let identity = self.identity_of(&session.whose);
            identity.is_some_and(|identity| opened.rests_on(&identity.trust()))
        };
        if !rests {
            return Err(ended());
        }
        Ok(OpenSession {
            key: LocalKey::new(&session.key_id, tenant.index, opened.secret),
            tenant,
            session: opened.session,
        })
    }

    /// The tenant that the session is of, as the configuration has it now.
    fn tenant_of_session(&self, session: &Session) -> Option<Arc<Tenant>> {
        match &session.whose {
            Whose::Tenant(name) => self.all.iter().find(|tenant| tenant.name == *name).cloned(),
            Whose::Template(name, claims) => {
                let mut templates = self.templates.iter();
                let (_, template) = templates.find(|(_, template)| template.name() == name)?;
                let claim = |name: &str| {
                    let mut claims = claims.iter();
                    let (_, value) = claims.find(|(known, _)| known == name)?;
                    Some(value.as_str())
                };
                template.tenant(claim).ok().map(Arc::new)
            }
        }
    }

    /// The provider whose tokens may be for `whose` requests now.
    fn identity_of(&self, whose: &Whose) -> Option<&IdentityProvider> {
        let index = match whose {
            Whose::Tenant(name) => {
                let mut trusting = self.trusting.iter();
                trusting.position(|names| names.contains_key(name))?
            }
            Whose::Template(name, _) => {
                let mut templates = self.templates.iter();
                templates.find(|(_, template)| template.name() == name)?.0
            }
        };
        self.identities.get(index)
    }

    /// Checks a call of STS, whose body is `form`, and makes the keys that it asks for. They are to be
    /// given to a caller who is admitted.
    pub(crate) fn issue(
        &self,
        asked: &StsRequest,
        head: &Parts,
        form: &[u8],
        connection: Connection,
        now: Timestamp,
    ) -> Result<(Identified, SessionKey), S3Error> {
        if self.seal.is_empty() {
            return Err(S3Error::new(
                Code::AccessDenied,
                "No session keys are given here: set [server] session_secret.",
            ));
        }
        self.check_secrecy(connection)?;
        if asked.duration > self.max_session {
            let most = self.max_session.as_secs();
            let text = format!("The call is refused: DurationSeconds must be at most {most} here.");
            return Err(S3Error::new(Code::InvalidArgument, text));
        }
        let (tenant, trust, whose, subject, access_key) = match &asked.action {
            StsAction::AssumeRoleWithWebIdentity { token, .. } => {
                let proof = self.prove(token, connection.source(), now)?;
                let identity = self.identities.get(proof.identity());
                (
                    Arc::clone(proof.tenant()),
                    identity.ok_or_else(unknown_key)?.trust(),
                    proof.whose(),
                    Some(proof.subject()),
                    None,
                )
            }
            StsAction::AssumeRole(_) | StsAction::GetSessionToken => {
                let check = || self.signed_call(head, form, now);
                let (tenant, key) = self.strangers.hold(connection.source(), now, check)?;
                let whose = Whose::Tenant(tenant.name.clone());
                let id = Some(Arc::clone(&key.id));
                (Arc::clone(tenant), key.trust(), whose, None, id)
            }
        };
        let expires = now.plus(seconds(asked.duration));
        let holder = SessionHolder {
            whose,
            subject: subject.clone(),
            access_key: access_key.clone(),
        };
        let key = self.seal.make(&trust, holder, now, expires);
        let key =
            key.ok_or_else(|| S3Error::new(Code::InternalError, "No session key could be made."))?;
        let identity = Identity::Session {
            key_id: Arc::clone(&key.id),
            subject,
            access_key,
        };
        let caller = Authenticated::new(&tenant, identity, Mode::Unsigned);
        Ok((Identified(caller), key))
    }

    /// Whose key, and which, has signed a call of STS. A session key cannot: it would live for ever.
    fn signed_call(
        &self,
        head: &Parts,
        form: &[u8],
        now: Timestamp,
    ) -> Result<(&Arc<Tenant>, &LocalKey), S3Error> {
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        if session_token(SECURITY_TOKEN, &head.headers, query.pairs())?.is_some() {
            return Err(S3Error::new(
                Code::AccessDenied,
                "Access Denied: session keys cannot ask for session keys; use a local access key.",
            ));
        }
        let claim = SigV4Claim::from_headers(&head.headers)?.ok_or_else(|| {
            S3Error::new(
                Code::MissingAuthenticationToken,
                "The call is not signed: sign it with a local access key.",
            )
        })?;
        self.check_scope(&claim.scope, SERVICE, |why| wrong_scope(&claim, why))?;
        self.check_time(&claim, now)?;
        let request = Signable {
            method: head.method.as_str(),
            path: b"/",
            query: query.pairs(),
            headers: &head.headers,
        };
        let known = self.keys.get(claim.access_key);
        let secret = &known.unwrap_or(&self.nobody).secret;
        let signing = SigningKey::derive(secret, claim.scope.date, claim.scope.region, SERVICE);
        let verified = claim.verify(&request, &signing, &sha256_hex(form));
        let (key, tenant) = known
            .and_then(|key| Some((key, self.all.get(key.tenant)?)))
            .ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        Ok((tenant, key))
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
