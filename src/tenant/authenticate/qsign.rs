//! COS's own signature (`q-sign-algorithm=sha1`) by a local key or a session key: an `Authorization` header, or a
//! presigned URL. As strict as Signature Version 4, though the scheme itself lets its signer choose.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::request::Parts;

use super::{
    Authenticated, Identity, MAX_SKEW, OpenSession, SECURITY_TOKEN, Tenants, decoded_path,
    not_ours, session_token, unknown_key, wrong_signature,
};
use crate::error::{Code, S3Error};
use crate::payload::Mode;
use crate::s3::headers::must_be_signed;
use crate::s3::{Query, native};
use crate::secret::Secret;
use crate::sign::cos::{CosClaim, CosClaimError};
use crate::sign::{Signable, expired, one_authorization};
use crate::timestamp::Timestamp;

const COS_TOKEN: HeaderName = HeaderName::from_static(native::TOKEN);

impl Tenants {
    /// Checks `head`, which is as it came: nothing of it has been put into S3's terms.
    pub(super) fn native(&self, head: &Parts, now: Timestamp) -> Result<Authenticated, S3Error> {
        self.check_native_allowed()?;
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        let presigned = native::is_presigned(head);
        let claim = if presigned {
            CosClaim::from_query(query.pairs()).map_err(refused)?
        } else {
            Some(CosClaim::from_authorization(authorization(head)?).map_err(refused)?)
        };
        let claim = claim.ok_or_else(malformed)?;
        if session_token(&SECURITY_TOKEN, &head.headers, query.pairs())?.is_some() {
            return Err(not_ours()); // S3's name for it, beside COS's signature
        }
        // SDKs differ on whether they sign it (436/7728 leaves it open). It need not be: it is sealed,
        // and says which key it belongs to, so that another's would not go with this signature.
        let token = session_token(&COS_TOKEN, &head.headers, query.pairs())?;
        let session = token.map(|token| self.session(token, now)).transpose()?;
        let session = session.as_deref();
        check_coverage(&claim, head, &query)?;
        self.check_life(&claim, presigned, now)?;
        let path = decoded_path(head)?;
        let request = Signable {
            method: head.method.as_str(),
            path: &path,
            query: query.pairs(),
            headers: &head.headers,
        };

        let known = self.known(claim.secret_id, session);
        let secret = &known.map_or(&self.nobody, |(key, _)| key).secret;
        let verified = is_signed(&claim, &request, secret);
        let (key, tenant) = known.ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        key.check_end(now)?;
        let own = || {
            let id = Arc::clone(&key.id);
            if presigned {
                Identity::Presigned(id)
            } else {
                Identity::Qsign(id)
            }
        };
        let identity = session.map_or_else(own, OpenSession::identity);
        // The scheme has no word for the body.
        Ok(Authenticated::new(tenant, identity, Mode::Unsigned))
    }

    /// Refuses COS's own signature, whoever signs, where the configuration does not allow it.
    pub(super) fn check_native_allowed(&self) -> Result<(), S3Error> {
        if self.allow_qsign {
            return Ok(());
        }
        Err(S3Error::new(
            Code::InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use \
             AWS4-HMAC-SHA256, or ask the operator to set [server] allow_qsign = true.",
        ))
    }

    /// A signer says itself from when to when its signature is good, so the longest life of a presigned
    /// URL bounds both forms: a URL that claims more is refused, a header that does ends early (SDKs
    /// claim hours for each request).
    fn check_life(
        &self,
        claim: &CosClaim<'_>,
        presigned: bool,
        now: Timestamp,
    ) -> Result<(), S3Error> {
        let life = claim.life();
        let longest = i64::try_from(self.max_presign).unwrap_or(i64::MAX);
        if presigned && life.end.since(life.start) > longest {
            return Err(denied(format!(
                "A signature can be valid for at most {longest} seconds"
            )));
        }
        let age = now.since(life.start);
        if age < -MAX_SKEW {
            return Err(denied("Request is not valid yet: set the client's clock"));
        }
        if now > life.end || age > longest {
            return Err(expired());
        }
        Ok(())
    }
}

/// Whether `secret` signed `request`. The Python SDK and coscmd sign a host without the port that they
/// send; it is this listener's own, so nothing depends on it.
fn is_signed(claim: &CosClaim<'_>, request: &Signable<'_>, secret: &Secret) -> bool {
    if claim.is_signature_of(request, secret) {
        return true;
    }
    let host = request
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let name = host
        .and_then(|host| host.rsplit_once(':'))
        .and_then(|(name, _)| HeaderValue::from_str(name).ok());
    let Some(name) = name else { return false };
    let mut headers = request.headers.clone();
    headers.insert(HOST, name);
    let without_port = Signable {
        headers: &headers,
        ..*request
    };
    claim.is_signature_of(&without_port, secret)
}

/// What somebody on the way could else add: another host, a header with a meaning, a parameter. Two
/// parameters that differ in letter case alone would be one to the signature.
fn check_coverage(claim: &CosClaim<'_>, head: &Parts, query: &Query<'_>) -> Result<(), S3Error> {
    let must_sign =
        |name: &&str| *name != native::TOKEN && must_be_signed(name) && !native::is_of_sdk(name);
    let mut headers = head.headers.keys().map(HeaderName::as_str);
    if let Some(name) = headers.find(|name| must_sign(name) && !claim.names.has_header(name)) {
        return Err(denied(format!(
            "There were headers present in the request which were not signed: {name}"
        )));
    }
    if !claim.names.has_header(HOST.as_str()) {
        return Err(denied("q-header-list must include host"));
    }
    let pairs = query.pairs();
    for (index, (name, _)) in pairs.iter().enumerate() {
        if native::is_of_signature(name) {
            continue;
        }
        let mut later = pairs.iter().skip(index + 1);
        let again = later.any(|(other, _)| name.eq_ignore_ascii_case(other));
        if again || !claim.names.has_parameter(name) {
            return Err(denied(
                "There were parameters present in the request which were not signed, or not once",
            ));
        }
    }
    Ok(())
}

/// Whether the signature in the `Authorization` of `head` covers its header `name`.
pub(in crate::tenant) fn qsign_covers(head: &Parts, name: &HeaderName) -> bool {
    let claim = authorization(head).ok();
    let claim = claim.and_then(|text| CosClaim::from_authorization(text).ok());
    head.headers.contains_key(name)
        && claim.is_some_and(|claim| claim.names.has_header(name.as_str()))
}

fn authorization(head: &Parts) -> Result<&str, S3Error> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(value)), None) => Ok(value),
        (_, Some(_)) => Err(one_authorization()),
        _ => Err(malformed()),
    }
}

fn refused(refusal: CosClaimError) -> S3Error {
    match refusal {
        CosClaimError::Expired => expired(),
        CosClaimError::Malformed => malformed(),
        CosClaimError::WrongSignature => wrong_signature(),
    }
}

fn malformed() -> S3Error {
    S3Error::new(
        Code::AuthorizationHeaderMalformed,
        "The authorization must have q-sign-algorithm=sha1, q-ak, q-sign-time, q-key-time, \
         q-header-list, q-url-param-list and q-signature, once each",
    )
}

fn denied(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::AccessDenied, message)
}
