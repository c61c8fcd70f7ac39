//! TC3-HMAC-SHA256, the signature of Tencent Cloud's API (STS here), made and checked.
//!
//! <https://www.tencentcloud.com/document/product/1150/49447>

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::mac::{derived, mac_of};
use crate::encoding::hex::{parse_hex32, push_hex};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const TERMINATOR: &str = "tc3_request";
/// The headers that Tencent's SDKs sign.
const SIGNED_HEADERS: &str = "content-type;host";
/// How far a call's time may be from the server's, in seconds.
const TOLERANCE: i64 = 300;

/// The parts of an API call that its signature covers.
#[derive(Clone, Copy, Debug)]
pub struct ApiCall<'a> {
    /// `POST` or `GET`.
    pub method: &'a str,
    /// The `Host` header as sent, its port included.
    pub host: &'a str,
    /// The service: `sts`.
    pub service: &'a str,
    /// The `Content-Type` header as sent.
    pub content_type: &'a str,
    /// The query as sent, encoded.
    pub query: &'a str,
    /// What is hashed: the body, or `UNSIGNED-PAYLOAD` when `X-TC-Content-SHA256` says so.
    pub payload: &'a [u8],
    /// The `X-TC-Timestamp` header.
    pub time: Timestamp,
}

/// The key of one secret, day and service, kept as an HMAC that is already keyed. Wiped on drop.
#[derive(Clone)]
pub struct ApiSigningKey(Hmac<Sha256>);

impl ApiSigningKey {
    /// `date` is `YYYY-MM-DD`, UTC.
    pub fn derive(secret: &Secret, date: &str, service: &str) -> Self {
        let start = Zeroizing::new(format!("TC3{}", secret.expose()));
        Self(derived(&start, &[date, service, TERMINATOR]))
    }

    /// The MAC of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        mac_of(&self.0, message)
    }
}

impl fmt::Debug for ApiSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[signing key]")
    }
}

/// The canonical request. Every call is to the path `/`.
pub fn canonical_request(call: &ApiCall<'_>) -> String {
    let ApiCall {
        method,
        query,
        content_type,
        host,
        ..
    } = call;
    let mut out = format!(
        "{method}\n/\n{query}\ncontent-type:{content_type}\nhost:{host}\n\n{SIGNED_HEADERS}\n"
    );
    push_hex(&mut out, &Sha256::digest(call.payload));
    out
}

/// The string to sign over `canonical_request`.
pub fn string_to_sign(call: &ApiCall<'_>, canonical_request: &str) -> String {
    let mut out = format!(
        "{ALGORITHM}\n{}\n{}/{}/{TERMINATOR}\n",
        call.time.unix(),
        call.time.date_dashed(),
        call.service
    );
    push_hex(&mut out, &Sha256::digest(canonical_request));
    out
}

/// The `Authorization` value of `call`. `key` must be that of the call's day and service.
pub fn authorization(call: &ApiCall<'_>, secret_id: &str, key: &ApiSigningKey) -> String {
    let signature = key.sign(string_to_sign(call, &canonical_request(call)).as_bytes());
    let mut out = format!(
        "{ALGORITHM} Credential={secret_id}/{}/{}/{TERMINATOR}, SignedHeaders={SIGNED_HEADERS}, Signature=",
        call.time.date_dashed(),
        call.service
    );
    push_hex(&mut out, &signature);
    out
}

/// What a caller declares of its signature, read but not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiClaim<'a> {
    /// Whose secret to verify with.
    pub secret_id: &'a str,
    date: &'a str,
    service: &'a str,
    signature: [u8; 32],
}

/// Why a call is refused, in the words of Tencent's error codes (`AuthFailure.…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiClaimError {
    /// `AuthFailure.SignatureExpire`: more than five minutes from the server's time.
    SignatureExpire,
    /// `AuthFailure.SignatureFailure`: not the signature of this call, or not of its form.
    SignatureFailure,
}

impl<'a> ApiClaim<'a> {
    /// Reads the `Authorization` header. Only `content-type;host` is taken as the signed headers,
    /// which is what every Tencent SDK signs.
    pub fn parse(text: &'a str) -> Result<Self, ApiClaimError> {
        let read = || {
            let fields = text.strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
            let mut fields = fields.split(',').map(str::trim);
            let credential = fields.next()?.strip_prefix("Credential=")?;
            (fields.next()?.strip_prefix("SignedHeaders=")? == SIGNED_HEADERS).then_some(())?;
            let signature = parse_hex32(fields.next()?.strip_prefix("Signature=")?)?;
            let mut parts = credential.split('/');
            let (secret_id, date, service) = (parts.next()?, parts.next()?, parts.next()?);
            let ends =
                parts.next()? == TERMINATOR && parts.next().is_none() && fields.next().is_none();
            ends.then_some(Self {
                secret_id,
                date,
                service,
                signature,
            })
        };
        read().ok_or(ApiClaimError::SignatureFailure)
    }

    /// Checks the signature of `call`, in constant time, and that its time is close to `now`.
    pub fn verify(
        &self,
        call: &ApiCall<'_>,
        secret: &Secret,
        now: Timestamp,
    ) -> Result<(), ApiClaimError> {
        if now.since(call.time).abs() > TOLERANCE {
            return Err(ApiClaimError::SignatureExpire);
        }
        if self.service != call.service || self.date != call.time.date_dashed() {
            return Err(ApiClaimError::SignatureFailure);
        }
        let message = string_to_sign(call, &canonical_request(call));
        let key = ApiSigningKey::derive(secret, self.date, self.service);
        let mac = key.0.chain_update(message);
        mac.verify_slice(&self.signature)
            .map_err(|_| ApiClaimError::SignatureFailure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168";

    #[test]
    fn a_claim_of_another_form_fails() {
        let good = format!(
            "TC3-HMAC-SHA256 Credential=AKID/2019-02-25/sts/tc3_request, SignedHeaders=content-type;host, Signature={SIGNATURE}"
        );
        assert!(ApiClaim::parse(&good).is_ok());
        for (from, to) in [
            ("TC3-HMAC-SHA256", "TC3-HMAC-SHA1"),
            ("/tc3_request", ""),
            ("/tc3_request", "/tc3_request/x"),
            ("content-type;host", "host"),
            ("Signature=72", "Signature="),
            ("SignedHeaders", "Headers"),
            (", Signature", ", Extra=1, Signature"),
        ] {
            let text = good.replace(from, to);
            assert_eq!(
                ApiClaim::parse(&text),
                Err(ApiClaimError::SignatureFailure),
                "{text}"
            );
        }
        assert_eq!(
            ApiClaim::parse("SKIP"),
            Err(ApiClaimError::SignatureFailure)
        );
    }

    #[test]
    fn a_claim_of_another_day_or_service_fails() {
        let time = Timestamp::from_unix(1_700_000_000);
        let call = ApiCall {
            method: "POST",
            host: "sts.tencentcloudapi.com",
            service: "sts",
            content_type: "application/json",
            query: "",
            payload: b"{}",
            time,
        };
        let secret = Secret::new("s");
        let key = ApiSigningKey::derive(&secret, &time.date_dashed(), "sts");
        let text = authorization(&call, "AKID", &key);
        let claim = ApiClaim::parse(&text).unwrap();
        assert_eq!(claim.verify(&call, &secret, time), Ok(()));
        for changed in [
            ApiCall {
                service: "cvm",
                ..call
            },
            ApiCall {
                payload: b"{ }",
                ..call
            },
            ApiCall {
                host: "sts.internal.tencentcloudapi.com",
                ..call
            },
            ApiCall {
                content_type: "application/json; charset=utf-8",
                ..call
            },
            ApiCall {
                time: time.plus(1),
                ..call
            },
        ] {
            assert_eq!(
                claim.verify(&changed, &secret, time),
                Err(ApiClaimError::SignatureFailure),
                "{changed:?}"
            );
        }
        let tomorrow = ApiCall {
            time: time.plus(86_400),
            ..call
        };
        let refused = claim.verify(&tomorrow, &secret, tomorrow.time);
        assert_eq!(refused, Err(ApiClaimError::SignatureFailure));
        assert_eq!(format!("{key:?}"), "[signing key]");
    }
}
