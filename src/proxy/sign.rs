//! Where a request is signed for COS.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};

use crate::config::UpstreamSignature;
use crate::credentials::Credential;
use crate::encoding::hex::hex;
use crate::error::S3Error;
use crate::rewrite::UpstreamRequest;
use crate::sign::sigv4::{CredentialScope, UNSIGNED_PAYLOAD};
use crate::sign::{Signable, cos, sigv4};
use crate::timestamp::Timestamp;

const AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const AMZ_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const COS_TOKEN: HeaderName = HeaderName::from_static("x-cos-security-token");

/// How, where and when a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'s> {
    /// The language of the signature.
    pub signature: UpstreamSignature,
    /// The bucket's region.
    pub region: &'s str,
    /// COS's time.
    pub now: Timestamp,
}

/// Signs `request` with `credential`. `sha256` is the body's, where it is known.
pub fn sign(
    request: &mut UpstreamRequest,
    credential: &Credential,
    sha256: Option<[u8; 32]>,
    signing: Signing<'_>,
) -> Result<(), S3Error> {
    let authorization = match signing.signature {
        UpstreamSignature::Cos => cos_authorization(request, credential, signing.now),
        UpstreamSignature::S3 => s3_authorization(request, credential, sha256, signing)?,
    };
    let mut value = HeaderValue::try_from(authorization).map_err(S3Error::internal)?;
    value.set_sensitive(true);
    request.headers.insert(AUTHORIZATION, value);
    Ok(())
}

fn cos_authorization(
    request: &mut UpstreamRequest,
    credential: &Credential,
    now: Timestamp,
) -> String {
    if let Some(token) = credential.token_header() {
        request.headers.insert(COS_TOKEN, token.clone());
    }
    let key = credential.cos_key(now);
    let (key_time, sign_key) = &*key;
    cos::authorization(
        &signable(request),
        &credential.secret_id,
        sign_key,
        key_time,
    )
}

fn s3_authorization(
    request: &mut UpstreamRequest,
    credential: &Credential,
    sha256: Option<[u8; 32]>,
    Signing { region, now, .. }: Signing<'_>,
) -> Result<String, S3Error> {
    let amz_date = now.amz_date();
    let payload = sha256.map_or(Cow::Borrowed(UNSIGNED_PAYLOAD), |hash| {
        Cow::Owned(hex(&hash))
    });
    let headers = &mut request.headers;
    headers.insert(
        AMZ_DATE,
        HeaderValue::from_str(amz_date.as_str()).map_err(S3Error::internal)?,
    );
    let payload_header = match &payload {
        Cow::Borrowed(text) => HeaderValue::from_static(text),
        Cow::Owned(text) => HeaderValue::from_str(text).map_err(S3Error::internal)?,
    };
    headers.insert(AMZ_CONTENT_SHA256, payload_header);
    if let Some(token) = credential.token_header() {
        headers.insert(AMZ_TOKEN, token.clone());
    }
    let date = amz_date.day();
    let scope = CredentialScope {
        date,
        region,
        service: "s3",
    };
    let key = credential.sigv4_key(date, region);
    Ok(sigv4::SigV4Signer {
        access_key: &credential.secret_id,
        key: &key,
        scope: &scope,
        amz_date: amz_date.as_str(),
    }
    .authorization(&signable(request), &payload))
}

fn signable(request: &UpstreamRequest) -> Signable<'_> {
    Signable {
        method: request.method.as_str(),
        path: request.path.as_bytes(),
        query: &request.query,
        headers: &request.headers,
    }
}
