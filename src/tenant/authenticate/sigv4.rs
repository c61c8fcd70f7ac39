//! Signature Version 4: an `Authorization` header, or a presigned URL.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;

use super::local_key::LocalKey;
use super::session::OpenSession;
use super::{
    Authenticated, Identity, MAX_SKEW, Tenants, content_sha256, decoded_path, unknown_key,
    wrong_signature,
};
use crate::error::{Code, S3Error};
use crate::payload::{ChunkSignatures, Mode};
use crate::s3::S3Request;
use crate::sign::sigv4::{CONTENT_SHA256, CredentialScope, SigV4Claim, UNSIGNED_PAYLOAD};
use crate::sign::{Signable, expired};
use crate::tenant::Tenant;
use crate::timestamp::Timestamp;

pub(in crate::tenant) const SERVICE: &str = "s3";

impl Tenants {
    /// Checks a claim. The head is verified whole before the body's mode is looked at.
    pub(super) fn signed(
        &self,
        head: &Parts,
        requested: &S3Request<'_>,
        claim: &SigV4Claim<'_>,
        session: Option<&OpenSession>,
        now: Timestamp,
    ) -> Result<Authenticated, S3Error> {
        self.check_scope(&claim.scope, SERVICE, |why| wrong_scope(claim, why))?;
        self.check_time(claim, now)?;
        let path = decoded_path(head)?;
        let query = requested.query.pairs();
        let request = Signable {
            method: head.method.as_str(),
            path: &path,
            query,
            headers: &head.headers,
        };
        let (signed_payload, payload) = claimed_payload(claim, &head.headers, query)?;

        let known = self.known(claim.access_key, session);
        let verified =
            known
                .map_or(&self.nobody, |(key, _)| key)
                .verify(claim, &request, signed_payload, now);
        let (key, tenant) = known.ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        key.check_end(now)?;
        let identity = match (session, claim.expires) {
            (Some(session), _) => session.identity(),
            (None, Some(_)) => Identity::Presigned(Arc::clone(&key.id)),
            (None, None) => Identity::Header(Arc::clone(&key.id)),
        };
        let payload = Mode::parse(payload)?;
        // The chain starts at the signature of an Authorization header: a presigned URL has none.
        let chained = payload.signs_chunks() && claim.expires.is_none();
        Ok(Authenticated {
            tenant: Arc::clone(tenant),
            identity,
            payload,
            chunks: chained.then(|| {
                let signing_key = key.signing_key(&claim.scope);
                let amz_date = claim.time.amz();
                let signature = claim.signature();
                let chain = ChunkSignatures::new(signing_key, &amz_date, &claim.scope, signature);
                Box::new(chain)
            }),
        })
    }

    /// The key of this id, and whose it is: the session's, where there is one, and else a local key.
    pub(in crate::tenant) fn known<'k>(
        &'k self,
        id: &str,
        session: Option<&'k OpenSession>,
    ) -> Option<(&'k LocalKey, &'k Arc<Tenant>)> {
        let known = match session {
            Some(session) => Some((&session.key, &session.tenant)),
            None => (self.keys.get(id)).and_then(|key| Some((key, self.all.get(key.tenant)?))),
        };
        known.filter(|(key, _)| *key.id == *id)
    }

    /// Checks that a credential's scope is of the `expected` service; `wrong` makes the refusal of it.
    pub(in crate::tenant) fn check_scope(
        &self,
        scope: &CredentialScope<'_>,
        expected: &str,
        wrong: impl Fn(&str) -> S3Error,
    ) -> Result<(), S3Error> {
        let CredentialScope {
            region, service, ..
        } = *scope;
        if service != expected {
            return Err(wrong(&format!(
                "the credential scope's service must be {expected}"
            )));
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

    pub(super) fn check_time(&self, claim: &SigV4Claim<'_>, now: Timestamp) -> Result<(), S3Error> {
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
            return Err(expired());
        }
        Ok(())
    }
}

/// The payload as it stands in the canonical request, and as the body will be checked.
///
/// A presigned URL is made before its body is known: it covers the header only if it signs it, or the
/// parameter that the AWS SDK for JavaScript puts in its place.
fn claimed_payload<'a>(
    claim: &SigV4Claim<'_>,
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

pub(super) fn wrong_scope(claim: &SigV4Claim<'_>, why: &str) -> S3Error {
    if claim.expires.is_some() {
        let text = format!("Error parsing the X-Amz-Credential parameter; {why}");
        return S3Error::new(Code::AuthorizationQueryParametersError, text);
    }
    let text = format!("The authorization header is malformed; {why}");
    S3Error::new(Code::AuthorizationHeaderMalformed, text)
}
