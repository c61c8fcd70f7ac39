//! Where a request is signed for COS.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};

use super::exchange::internal;
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

/// Signs `request` in the language `signature` with `credential` at COS's time `now`. `sha256` is the
/// body's, where it is known.
pub fn sign(
    request: &mut UpstreamRequest,
    signature: UpstreamSignature,
    credential: &Credential,
    region: &str,
    sha256: Option<[u8; 32]>,
    now: Timestamp,
) -> Result<(), S3Error> {
    let authorization = match signature {
        UpstreamSignature::Cos => {
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
        UpstreamSignature::S3 => {
            let amz_date = now.amz();
            let payload = sha256.map_or(Cow::Borrowed(UNSIGNED_PAYLOAD), |hash| {
                Cow::Owned(hex(&hash))
            });
            let headers = &mut request.headers;
            headers.insert(
                AMZ_DATE,
                HeaderValue::from_str(&amz_date).map_err(internal)?,
            );
            let payload_header = match &payload {
                Cow::Borrowed(text) => HeaderValue::from_static(text),
                Cow::Owned(text) => HeaderValue::from_str(text).map_err(internal)?,
            };
            headers.insert(AMZ_CONTENT_SHA256, payload_header);
            if let Some(token) = credential.token_header() {
                headers.insert(AMZ_TOKEN, token.clone());
            }
            let date = amz_date.get(..8).unwrap_or_default();
            let scope = CredentialScope {
                date,
                region,
                service: "s3",
            };
            let key = credential.sigv4_key(date, region);
            sigv4::authorization(
                &signable(request),
                &key,
                &credential.secret_id,
                &scope,
                &amz_date,
                &payload,
            )
        }
    };
    let mut value = HeaderValue::try_from(authorization).map_err(internal)?;
    value.set_sensitive(true);
    request.headers.insert(AUTHORIZATION, value);
    Ok(())
}

fn signable(request: &UpstreamRequest) -> Signable<'_> {
    Signable {
        method: request.method.as_str(),
        path: request.path.as_bytes(),
        query: &request.query,
        headers: &request.headers,
    }
}
