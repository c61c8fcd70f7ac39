//! Who asks: local keys, presigned URLs, or the anonymous tenant of a loopback listener.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::Tenant;
use super::anonymous::AnonymousRule;
use crate::config::Config;
use crate::payload::{ChunkSignatures, Mode};
use crate::s3::{Code, ObjectKey, S3Error, S3Request};
use crate::secret::Secret;
use crate::sign::encoding::percent_decode;
use crate::sign::form::FormClaim;
use crate::sign::sigv4::{CONTENT_SHA256, Claim, CredentialScope, SigningKey, UNSIGNED_PAYLOAD};
use crate::sign::{Signable, sigv2};
use crate::timestamp::Timestamp;

/// How far a client's clock may be from ours, in seconds: AWS's and COS's 15 minutes.
pub(super) const MAX_SKEW: i64 = 900;
const SERVICE: &str = "s3";
const SECURITY_TOKEN: &str = "x-amz-security-token";

/// All tenants and their local keys. Immutable once made, but for the signing keys it has at hand.
#[derive(Debug)]
pub struct Tenants {
    all: Vec<Tenant>,
    pub(super) keys: HashMap<String, LocalKey>,
    /// Stands in for a key that nobody has, so that an unknown id takes the path of a known one.
    pub(super) nobody: LocalKey,
    anonymous: AnonymousRule,
    /// The only region taken, under `strict_region`.
    region: Option<String>,
    /// The longest life of a presigned URL, in seconds.
    pub(super) max_presign: u64,
    pub(super) allow_sigv2_presign: bool,
}

/// A caller that has proved who they are.
#[derive(Clone, Debug)]
pub struct Authenticated<'t> {
    tenant: &'t Tenant,
    identity: Identity<'t>,
    payload: Mode,
    chunks: Option<ChunkSignatures>,
}

/// By what a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'t> {
    /// The anonymous tenant.
    Anonymous,
    /// A form whose policy is signed with this local key id.
    Form(&'t str),
    /// A SigV4 `Authorization` header under this local key id.
    Header(&'t str),
    /// A presigned URL under this local key id.
    Presigned(&'t str),
    /// A presigned URL of Signature Version 2 under this local key id.
    PresignedV2(&'t str),
}

impl<'t> Identity<'t> {
    /// The word that the access log has for it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Form(_) => "form",
            Self::Header(_) => "sigv4",
            Self::Presigned(_) => "presigned",
            Self::PresignedV2(_) => "sigv2",
        }
    }

    /// The local key's id, if there is one.
    pub fn key_id(self) -> Option<&'t str> {
        match self {
            Self::Anonymous => None,
            Self::Form(id) | Self::Header(id) | Self::Presigned(id) | Self::PresignedV2(id) => {
                Some(id)
            }
        }
    }
}

/// What is known of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The listener's and the peer's addresses are both loopback.
    pub loopback: bool,
    /// The connection is TLS.
    pub tls: bool,
}

/// One of a tenant's access keys.
pub(super) struct LocalKey {
    pub(super) id: String,
    pub(super) tenant: usize,
    secret: Secret,
    /// The signing key of the day and region that this key was last used for.
    at_hand: ArcSwapOption<DayKey>,
}

struct DayKey {
    date: String,
    region: String,
    key: SigningKey,
}

impl Tenants {
    /// The tenants of the configuration, which has made sure that no two share a key id.
    pub fn new(config: &Config) -> Self {
        let tenants = config.tenants.iter().enumerate();
        let keys = tenants.clone().flat_map(|(index, tenant)| {
            tenant.access_keys.iter().map(move |key| {
                (
                    key.id.clone(),
                    LocalKey::new(key.id.clone(), index, key.secret.clone()),
                )
            })
        });
        Self {
            keys: keys.collect(),
            all: tenants
                .map(|(index, tenant)| Tenant::new(index, tenant))
                .collect(),
            nobody: LocalKey::new(String::new(), usize::MAX, Secret::new("")),
            anonymous: AnonymousRule::new(config),
            region: config
                .server
                .strict_region
                .then(|| config.server.region.clone()),
            max_presign: config.server.max_presign.as_secs(),
            allow_sigv2_presign: config.server.allow_sigv2_presign,
        }
    }

    /// All tenants, in the configuration's order.
    pub fn tenants(&self) -> &[Tenant] {
        &self.all
    }

    /// The tenant at `index` of the configuration.
    pub fn get(&self, index: usize) -> Option<&Tenant> {
        self.all.get(index)
    }

    /// Finds out who sent `head`. `now` is the local clock.
    ///
    /// Any mark of a signature makes the request one that must be signed well: nothing falls back
    /// from a failed signature to the anonymous tenant.
    pub fn authenticate(
        &self,
        head: &Parts,
        asked: &S3Request<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Authenticated<'_>, S3Error> {
        let query = asked.query.pairs();
        let in_query = Claim::is_in_query(query) || sigv2::Claim::is_in_query(query);
        if in_query && head.headers.contains_key(AUTHORIZATION) {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "Only one auth mechanism allowed",
            ));
        }
        refuse_token(&head.headers, query)?;
        if let Some(claim) = Claim::from_headers(&head.headers)? {
            return self.signed(head, asked, &claim, now);
        }
        if sigv2::Claim::is_in_query(query) && !self.allow_sigv2_presign {
            return Err(S3Error::new(
                Code::InvalidRequest,
                "The authorization mechanism you have provided is not supported. Please use \
                 AWS4-HMAC-SHA256, or set [server] allow_sigv2_presign = true.",
            ));
        }
        if let Some(claim) = sigv2::Claim::from_query(query, &head.headers)? {
            return self.presigned_v2(head, asked, &claim, now);
        }
        if let Some(claim) = Claim::from_query(query, &head.headers)? {
            return self.signed(head, asked, &claim, now);
        }
        let tenant = self.anonymous_tenant(&head.headers, connection)?;
        if asked
            .query
            .iter()
            .any(|(name, _)| name.starts_with("response-"))
        {
            // A link could else make a page of any object.
            return Err(S3Error::new(
                Code::InvalidRequest,
                "Request specific response headers cannot be used for anonymous GET requests.",
            ));
        }
        let payload = content_sha256(&head.headers)?.map_or(Ok(Mode::Unsigned), Mode::parse)?;
        Ok(Authenticated::new(tenant, Identity::Anonymous, payload))
    }

    /// The anonymous tenant, if it may send a request with `headers`.
    pub(super) fn anonymous_tenant(
        &self,
        headers: &HeaderMap,
        connection: Connection,
    ) -> Result<&Tenant, S3Error> {
        let tenant = self.anonymous.check(headers, connection)?;
        self.all.get(tenant).ok_or_else(unknown_key)
    }

    /// Checks a claim. The head is verified whole before the body's mode is looked at.
    fn signed(
        &self,
        head: &Parts,
        asked: &S3Request<'_>,
        claim: &Claim<'_>,
        now: Timestamp,
    ) -> Result<Authenticated<'_>, S3Error> {
        self.check_scope(&claim.scope, |why| wrong_scope(claim, why))?;
        self.check_time(claim, now)?;
        let path = decoded_path(head)?;
        let query = asked.query.pairs();
        let request = Signable {
            method: head.method.as_str(),
            path: &path,
            query,
            headers: &head.headers,
        };
        let (signed_payload, payload) = claimed_payload(claim, &head.headers, query)?;

        let known = self.keys.get(claim.access_key);
        let verified = known
            .unwrap_or(&self.nobody)
            .verify(claim, &request, signed_payload, now);
        let (key, tenant) = known
            .and_then(|key| Some((key, self.all.get(key.tenant)?)))
            .ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        let identity = match claim.expires {
            Some(_) => Identity::Presigned(&key.id),
            None => Identity::Header(&key.id),
        };
        let payload = Mode::parse(payload)?;
        // The chain starts at the signature of an Authorization header: a presigned URL has none.
        let chained = payload.signs_chunks() && claim.expires.is_none();
        Ok(Authenticated {
            tenant,
            identity,
            payload,
            chunks: chained.then(|| {
                let signing_key = key.signing_key(&claim.scope);
                let amz_date = claim.time.amz();
                ChunkSignatures::new(signing_key, &amz_date, &claim.scope, claim.signature())
            }),
        })
    }

    /// Checks a presigned URL of Signature Version 2. As in [`Tenants::signed`], all but the body's
    /// mode is verified first.
    fn presigned_v2(
        &self,
        head: &Parts,
        asked: &S3Request<'_>,
        claim: &sigv2::Claim<'_>,
        now: Timestamp,
    ) -> Result<Authenticated<'_>, S3Error> {
        claim.check_life(now, self.max_presign)?;
        let path = decoded_path(head)?;
        let key = asked.key.as_ref().map_or("", ObjectKey::as_str);
        // Where the host names the bucket, the path is the key and nothing else.
        let path_is_key = path.strip_prefix(b"/") == Some(key.as_bytes());
        let request = sigv2::Request {
            method: head.method.as_str(),
            bucket: asked.bucket.filter(|_| path_is_key),
            path: head.uri.path(),
            raw_query: head.uri.query().unwrap_or_default(),
            query: asked.query.pairs(),
            headers: &head.headers,
        };
        let payload = content_sha256(&head.headers)?;

        let known = self.keys.get(claim.access_key);
        let verified = claim.verify(&request, &known.unwrap_or(&self.nobody).secret);
        let (key, tenant) = known
            .and_then(|key| Some((key, self.all.get(key.tenant)?)))
            .ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        let payload = payload.map_or(Ok(Mode::Unsigned), Mode::parse)?;
        Ok(Authenticated::new(
            tenant,
            Identity::PresignedV2(&key.id),
            payload,
        ))
    }

    /// Checks a credential's scope; `wrong` makes the refusal of it.
    pub(super) fn check_scope(
        &self,
        scope: &CredentialScope<'_>,
        wrong: impl Fn(&str) -> S3Error,
    ) -> Result<(), S3Error> {
        let CredentialScope {
            region, service, ..
        } = *scope;
        if service != SERVICE {
            return Err(wrong("the credential scope's service must be s3"));
        }
        if region.is_empty() {
            return Err(wrong(
                "the credential scope has no region; set one in the client",
            ));
        }
        match &self.region {
            Some(expected) if expected != region => Err(wrong(&format!(
                "the region is wrong; expecting '{expected}'"
            ))),
            _ => Ok(()),
        }
    }

    fn check_time(&self, claim: &Claim<'_>, now: Timestamp) -> Result<(), S3Error> {
        let age = now.since(claim.time);
        let Some(expires) = claim.expires else {
            if age.abs() <= MAX_SKEW {
                return Ok(());
            }
            return Err(S3Error::new(
                Code::RequestTimeTooSkewed,
                "The difference between the request time and the current time is too large: \
                 set the client's clock",
            ));
        };
        if u64::from(expires) > self.max_presign {
            let text = format!(
                "X-Amz-Expires must be at most {} seconds here",
                self.max_presign
            );
            return Err(S3Error::new(Code::AuthorizationQueryParametersError, text));
        }
        if age < -MAX_SKEW {
            return Err(S3Error::new(Code::AccessDenied, "Request is not valid yet"));
        }
        if age > i64::from(expires) {
            return Err(S3Error::new(Code::AccessDenied, "Request has expired"));
        }
        Ok(())
    }
}

impl<'t> Authenticated<'t> {
    /// A caller whose body has no chunk signatures.
    pub(super) fn new(tenant: &'t Tenant, identity: Identity<'t>, payload: Mode) -> Self {
        Self {
            tenant,
            identity,
            payload,
            chunks: None,
        }
    }

    /// Whose request it is.
    pub fn tenant(&self) -> &'t Tenant {
        self.tenant
    }

    /// By what the caller is known.
    pub fn identity(&self) -> Identity<'t> {
        self.identity
    }

    /// What the client said of its body, and so what must be checked while it streams.
    pub fn payload(&self) -> Mode {
        self.payload
    }

    /// The chain of chunk signatures, where the body has one.
    pub fn chunk_signatures(&self) -> Option<&ChunkSignatures> {
        self.chunks.as_ref()
    }
}

impl LocalKey {
    fn new(id: String, tenant: usize, secret: Secret) -> Self {
        Self {
            id,
            tenant,
            secret,
            at_hand: ArcSwapOption::empty(),
        }
    }

    /// Whether `claim` is signed with this key. A signing key that has proved good today is kept:
    /// neither an old presigned URL nor a stranger who knows the id can push it out.
    fn verify(
        &self,
        claim: &Claim<'_>,
        request: &Signable<'_>,
        payload: &str,
        now: Timestamp,
    ) -> bool {
        let CredentialScope { date, region, .. } = claim.scope;
        if let Some(kept) = &*self.at_hand.load()
            && kept.date == date
            && kept.region == region
        {
            return claim.verify(request, &kept.key, payload);
        }
        let key = SigningKey::derive(&self.secret, date, region, SERVICE);
        let verified = claim.verify(request, &key, payload);
        if verified && now.date() == date {
            let day_key = DayKey {
                date: date.to_owned(),
                region: region.to_owned(),
                key,
            };
            self.at_hand.store(Some(Arc::new(day_key)));
        }
        verified
    }

    /// Whether the form's policy is signed with this key.
    pub(super) fn verify_form(&self, claim: &FormClaim<'_>) -> bool {
        claim.verify(&self.secret, |scope| self.signing_key(scope))
    }

    /// The signing key of `scope`: the one at hand, or a fresh one.
    fn signing_key(&self, scope: &CredentialScope<'_>) -> SigningKey {
        let kept = self.at_hand.load();
        match &*kept {
            Some(kept) if kept.date == scope.date && kept.region == scope.region => {
                kept.key.clone()
            }
            _ => SigningKey::derive(&self.secret, scope.date, scope.region, SERVICE),
        }
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// No local key has a session token, so one is a sign that the client uses a key of somebody else.
fn refuse_token(
    headers: &HeaderMap,
    query: &[(Cow<'_, str>, Cow<'_, str>)],
) -> Result<(), S3Error> {
    let in_query = query
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case(SECURITY_TOKEN));
    if !in_query && !headers.contains_key(SECURITY_TOKEN) {
        return Ok(());
    }
    Err(S3Error::new(
        Code::InvalidToken,
        "The provided token is not one that was issued here: use a local access key, which has no \
         session token (unset AWS_SESSION_TOKEN)",
    ))
}

/// The payload as it stands in the canonical request, and as the body will be checked.
///
/// A presigned URL is made before its body is known: it covers the header only if it signs it, or the
/// parameter that the AWS SDK for JavaScript puts in its place.
fn claimed_payload<'a>(
    claim: &Claim<'_>,
    headers: &'a HeaderMap,
    query: &'a [(Cow<'_, str>, Cow<'_, str>)],
) -> Result<(&'a str, &'a str), S3Error> {
    let header = content_sha256(headers)?;
    if claim.expires.is_none() {
        let value = header.ok_or_else(|| {
            S3Error::new(
                Code::InvalidRequest,
                "Missing required header for this request: x-amz-content-sha256",
            )
        })?;
        return Ok((value, value));
    }
    let parameter = query
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_SHA256));
    let parameter = parameter.map(|(_, value)| &**value);
    let signed_header = header.filter(|_| claim.signs(CONTENT_SHA256));
    let signed = parameter.or(signed_header).unwrap_or(UNSIGNED_PAYLOAD);
    // A header that was not signed may promise more of the body than the URL does, never less.
    match header {
        Some(header) if signed == UNSIGNED_PAYLOAD || header == signed => Ok((signed, header)),
        Some(_) => Err(S3Error::new(
            Code::InvalidArgument,
            "x-amz-content-sha256 does not say what X-Amz-Content-Sha256 in the presigned URL says",
        )),
        None => Ok((signed, signed)),
    }
}

/// `x-amz-content-sha256`: absent, or one visible value.
fn content_sha256(headers: &HeaderMap) -> Result<Option<&str>, S3Error> {
    let mut values = headers.get_all(CONTENT_SHA256).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value)),
        _ => Err(S3Error::new(
            Code::InvalidArgument,
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a SHA-256 in lower-case hex, once",
        )),
    }
}

fn decoded_path(head: &Parts) -> Result<Cow<'_, [u8]>, S3Error> {
    percent_decode(head.uri.path())
        .ok_or_else(|| S3Error::new(Code::InvalidURI, "The path has a % without two hex digits"))
}

pub(super) fn wrong_signature() -> S3Error {
    S3Error::new(
        Code::SignatureDoesNotMatch,
        "The request signature we calculated does not match the signature you provided. \
         Check your secret key, and that nothing between changes the path, query or headers.",
    )
}

fn wrong_scope(claim: &Claim<'_>, why: &str) -> S3Error {
    if claim.expires.is_some() {
        let text = format!("Error parsing the X-Amz-Credential parameter; {why}");
        return S3Error::new(Code::AuthorizationQueryParametersError, text);
    }
    let text = format!("The authorization header is malformed; {why}");
    S3Error::new(Code::AuthorizationHeaderMalformed, text)
}

pub(super) fn unknown_key() -> S3Error {
    S3Error::new(
        Code::InvalidAccessKeyId,
        "The AWS Access Key Id you provided does not exist in our records: use a key of [tenants.*] \
         access_keys",
    )
}
