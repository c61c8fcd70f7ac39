//! Local session keys: a signature of Version 4 or of COS's own with a token of ours, and who gets one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::local_key::LocalKey;
use super::sigv4::wrong_scope;
use super::{
    Authenticated, Connection, Identified, Identity, Tenants, unknown_key, wrong_signature,
};
use crate::config::SessionPolicy;
use crate::config::cam::LIKELY_BYTES;
use crate::encoding::hex::sha256_hex;
use crate::error::{Code, S3Error};
use crate::payload::Mode;
use crate::s3::Query;
use crate::s3::headers::values_of;
use crate::s3::sts::{StsAction, StsRequest, too_large};
use crate::sign::Signable;
use crate::sign::sigv4::{SigV4Claim, SigningKey};
use crate::tenant::identity_provider::IdentityProvider;
use crate::tenant::policy::{Statement, tenant_policy};
use crate::tenant::session::{
    Session, SessionHolder, SessionKey, SessionSeal, SessionTenant, Trust,
};
use crate::tenant::{Grant, Tenant};
use crate::timestamp::Timestamp;

pub(super) const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
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
    name: &HeaderName,
    headers: &'a HeaderMap,
    query: &'a [(Cow<'_, str>, Cow<'_, str>)],
) -> Result<Option<&'a str>, S3Error> {
    let in_query = query
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name.as_str()))
        .map(|(_, value)| Some(&**value));
    let in_headers = values_of(headers, name.clone());
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
        "cosgate did not issue the provided token. Use a local access key without a session token (unset \
         AWS_SESSION_TOKEN), or fetch new session keys.",
    )
}

/// The refusal of a session whose tenant, key or identity provider is gone, or is another one now. SDKs
/// fetch new keys on it, and learn there what is wrong.
fn ended() -> S3Error {
    S3Error::new(
        Code::ExpiredToken,
        "The session has ended: the key or token that it was issued for is not accepted any more. Fetch new session keys.",
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
        let key = (opened.session.access_key.as_deref()).and_then(|id| self.keys.get(id));
        if key.is_some_and(|key| key.has_ended(now)) {
            return Err(ended());
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
        let policy = session.policy.as_ref();
        let policy = policy.map(|policy| SessionPolicy::parse(&policy.to_string()));
        // What is not understood any more is not passed over.
        let policy = policy.transpose().map_err(|_| ended())?;
        let narrowed = policy.map(|policy| Arc::new(tenant.narrowed(&Arc::new(policy))));
        Ok(OpenSession {
            key: LocalKey::new(&session.key_id, tenant.index, opened.secret),
            tenant: narrowed.unwrap_or(tenant),
            session: opened.session,
        })
    }

    /// The tenant that the session is of, as the configuration has it now.
    fn tenant_of_session(&self, session: &Session) -> Option<Arc<Tenant>> {
        match &session.whose {
            SessionTenant::Tenant(name) => {
                self.all.iter().find(|tenant| tenant.name == *name).cloned()
            }
            SessionTenant::Template(name, claims) => {
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
    fn identity_of(&self, whose: &SessionTenant) -> Option<&IdentityProvider> {
        let index = match whose {
            SessionTenant::Tenant(name) => {
                let mut trusting = self.trusting.iter();
                trusting.position(|names| names.contains_key(name))?
            }
            SessionTenant::Template(name, _) => {
                let mut templates = self.templates.iter();
                templates.find(|(_, template)| template.name() == name)?.0
            }
        };
        self.identities.get(index)
    }

    /// Checks a call of STS, whose body is `form`, and makes the keys that it requests, if it requests any.
    /// They are to be given to a caller who is admitted.
    pub(crate) fn issue(
        &self,
        requested: &StsRequest,
        call: &SignedCall<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<(Identified, Option<SessionKey>), S3Error> {
        if self.seal.is_empty() {
            return Err(S3Error::new(
                Code::AccessDenied,
                "This endpoint issues no session keys. Ask the operator to set [server] session_secret.",
            ));
        }
        self.check_secrecy(connection)?;
        if matches!(requested.action, StsAction::GetCallerIdentity) {
            let check = || self.caller_of(call, now);
            let (tenant, identity) = self.strangers.hold(connection.source(), now, check)?;
            let caller = Authenticated::new(&tenant, identity, Mode::Unsigned);
            return Ok((Identified(caller), None));
        }
        if requested.duration > self.max_session {
            let max = self.max_session.as_secs();
            let text = format!("The call is refused: DurationSeconds must be at most {max} here.");
            return Err(S3Error::new(Code::InvalidArgument, text));
        }
        let (tenant, trust, holder) = self.holder(requested, call, connection, now)?;
        let expires = now.plus(seconds(requested.duration));
        let (subject, access_key) = (holder.subject.clone(), holder.access_key.clone());
        let key = self.seal.make(&trust, holder, now, expires);
        let key =
            key.ok_or_else(|| S3Error::new(Code::InternalError, "No session key could be made."))?;
        if !SessionSeal::takes(&key.token) {
            return Err(too_large("with all else that the session token must hold"));
        }
        let identity = Identity::Session {
            key_id: Arc::clone(&key.id),
            subject,
            access_key,
        };
        let caller = Authenticated::new(&tenant, identity, Mode::Unsigned);
        Ok((Identified(caller), Some(key)))
    }

    /// Who gets a session, and what that rests on.
    fn holder<'t>(
        &'t self,
        requested: &StsRequest,
        call: &SignedCall<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<(Arc<Tenant>, Trust<'t>, SessionHolder), S3Error> {
        let policy = requested.policy.clone();
        let (tenant, trust, holder) =
            if let StsAction::AssumeRoleWithWebIdentity { token, .. } = &requested.action {
                let proof = self.prove(token, connection.source(), now)?;
                let identity = self.identities.get(proof.identity());
                let holder = SessionHolder {
                    whose: proof.whose(),
                    subject: Some(proof.subject()),
                    access_key: None,
                    policy,
                };
                let trust = identity.ok_or_else(unknown_key)?.trust();
                (Arc::clone(proof.tenant()), trust, holder)
            } else {
                let check = || self.signer(call, now);
                let (tenant, key) = self.strangers.hold(connection.source(), now, check)?;
                let holder = SessionHolder {
                    whose: SessionTenant::Tenant(tenant.name.clone()),
                    subject: None,
                    access_key: Some(Arc::clone(&key.id)),
                    policy,
                };
                (Arc::clone(tenant), key.trust(), holder)
            };
        if let Some(policy) = &holder.policy {
            check_narrowed(&tenant, policy)?;
        }
        Ok((tenant, trust, holder))
    }

    /// Whose key, and which, has signed a call for session keys. A session key cannot: it would live for
    /// ever.
    fn signer(
        &self,
        call: &SignedCall<'_>,
        now: Timestamp,
    ) -> Result<(&Arc<Tenant>, &LocalKey), S3Error> {
        let query = call.query()?;
        if session_token(&SECURITY_TOKEN, &call.head.headers, query.pairs())?.is_some() {
            return Err(S3Error::new(
                Code::AccessDenied,
                "Access Denied: session keys cannot request session keys; use a local access key.",
            ));
        }
        let claim = call.claim()?;
        let known = self.known(claim.access_key, None);
        self.check_call(call, &claim, known.map(|(key, _)| key), now)?;
        let (key, tenant) = known.ok_or_else(unknown_key)?;
        Ok((tenant, key))
    }

    /// Who has signed a call that requests who they are: a session key may.
    fn caller_of(
        &self,
        call: &SignedCall<'_>,
        now: Timestamp,
    ) -> Result<(Arc<Tenant>, Identity), S3Error> {
        let query = call.query()?;
        let token = session_token(&SECURITY_TOKEN, &call.head.headers, query.pairs())?;
        let session = token.map(|token| self.session(token, now)).transpose()?;
        let session = session.as_deref();
        let claim = call.claim()?;
        let known = self.known(claim.access_key, session);
        self.check_call(call, &claim, known.map(|(key, _)| key), now)?;
        let (key, tenant) = known.ok_or_else(unknown_key)?;
        let own = || Identity::Header(Arc::clone(&key.id));
        let identity = session.map_or_else(own, OpenSession::identity);
        Ok((Arc::clone(tenant), identity))
    }

    /// Checks the signature of a call against the key that it names; an unknown one takes the same path.
    fn check_call(
        &self,
        call: &SignedCall<'_>,
        claim: &SigV4Claim<'_>,
        known: Option<&LocalKey>,
        now: Timestamp,
    ) -> Result<(), S3Error> {
        self.check_scope(&claim.scope, SERVICE, |why| wrong_scope(claim, why))?;
        self.check_time(claim, now)?;
        let query = call.query()?;
        let request = Signable {
            method: call.head.method.as_str(),
            path: b"/",
            query: query.pairs(),
            headers: &call.head.headers,
        };
        let secret = &known.unwrap_or(&self.nobody).secret;
        let signing = SigningKey::derive(secret, claim.scope.date, claim.scope.region, SERVICE);
        let verified = claim.verify(&request, &signing, &sha256_hex(call.form));
        let key = known.ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        key.check_end(now)
    }
}

/// A call of STS as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignedCall<'c> {
    /// Its head.
    pub head: &'c Parts,
    /// Its body.
    pub form: &'c [u8],
}

impl<'c> SignedCall<'c> {
    fn query(&self) -> Result<Query<'c>, S3Error> {
        Query::parse(self.head.uri.query().unwrap_or_default())
    }

    fn claim(&self) -> Result<SigV4Claim<'c>, S3Error> {
        SigV4Claim::from_headers(&self.head.headers)?.ok_or_else(|| {
            S3Error::new(
                Code::MissingAuthenticationToken,
                "The call is not signed: sign it with a local access key.",
            )
        })
    }
}

/// Refuses a policy that leaves nothing of `tenant`, that cannot be kept of a grant which is a policy
/// itself, or that makes a policy which STS would most likely refuse.
fn check_narrowed(tenant: &Tenant, policy: &Arc<SessionPolicy>) -> Result<(), S3Error> {
    let narrowed = tenant.narrowed(policy);
    let is_cut = |grant: &&Grant| !grant.is_reached() && policy.reaches(&grant.name);
    if let Some(grant) = narrowed.grants.iter().find(is_cut) {
        let name = &grant.name;
        return Err(malformed(&format!(
            "the grant of bucket {name} is a policy itself, of which a session has all or nothing; allow \
             s3:* on arn:aws:s3:::{name} and arn:aws:s3:::{name}/*, or name other buckets"
        )));
    }
    let key = tenant_policy(&narrowed);
    if !key.statement.iter().any(Statement::allows) {
        return Err(malformed(
            "it allows nothing that you may do here; name your buckets as ListBuckets shows them, and \
             keys and actions of yours",
        ));
    }
    let bytes = key.json().len();
    if bytes > LIKELY_BYTES && bytes > tenant_policy(tenant).json().len() {
        return Err(too_large("as the policy of a key of COS"));
    }
    Ok(())
}

fn malformed(why: &str) -> S3Error {
    S3Error::new(
        Code::MalformedPolicyDocument,
        format!("The Policy is refused: {why}."),
    )
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
