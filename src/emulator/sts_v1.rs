//! STS calls in the older form, which the COS STS SDKs still use: a form with a signature of version 1
//! (HMAC-SHA1 or HMAC-SHA256). It is translated to the head and parameters of API 3.0 for `sts`.
//!
//! <https://cloud.tencent.com/document/api/1312/48201>

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::Mac as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};
use serde_json::{Map, Number, Value};

use crate::encoding::percent::form_decode;
use crate::secret::Secret;
use crate::sign::mac::{hmac_sha1, hmac_sha256};
use crate::sign::tc3::ApiClaimError;
use crate::timestamp::Timestamp;

/// The host that the Java SDK signs when the real host is not one of STS's own: an address, or a gateway.
const OWN_HOST: &str = "sts.tencentcloudapi.com";
/// Maximum difference in seconds between a call's time and the server's.
const TOLERANCE: i64 = 300;
/// Parameters that are headers in API 3.0.
const COMMON: [(&str, &str); 5] = [
    ("Action", "x-tc-action"),
    ("Region", "x-tc-region"),
    ("Timestamp", "x-tc-timestamp"),
    ("Token", "x-tc-token"),
    ("Version", "x-tc-version"),
];
/// Parameters of the signature.
const OF_SIGNATURE: [&str; 4] = ["Nonce", "SecretId", "Signature", "SignatureMethod"];

/// A call that is parsed but not yet verified.
pub(super) struct ApiCallV1<'a> {
    head: &'a Parts,
    /// The parameters, sorted by name as for the signature.
    parameters: Vec<(String, String)>,
}

impl<'a> ApiCallV1<'a> {
    /// `None` when the call does not have this form; an error when its form is malformed.
    pub(super) fn parse(head: &'a Parts, body: &[u8]) -> Option<Result<Self, ApiClaimError>> {
        if head.headers.contains_key(AUTHORIZATION) {
            return None;
        }
        let text = match head.method {
            Method::GET => head.uri.query()?,
            Method::POST if is_form(&head.headers) => str::from_utf8(body).ok()?,
            _ => return None,
        };
        let decode = |text: &str| String::from_utf8(form_decode(text)?.into_owned()).ok();
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((decode(name)?, decode(value)?))
        });
        let read = pairs
            .collect::<Option<Vec<_>>>()
            .filter(|pairs| pairs.iter().any(|(name, _)| name == "Signature"))
            .map(|mut parameters| {
                parameters.sort();
                Self { head, parameters }
            });
        Some(read.ok_or(ApiClaimError::SignatureFailure))
    }

    /// The id of the key that verifies the signature.
    pub(super) fn secret_id(&self) -> &str {
        self.parameter("SecretId").unwrap_or_default()
    }

    /// Checks the signature, in constant time, and that the call's time is close to `now`.
    pub(super) fn verify(&self, secret: &Secret, now: Timestamp) -> Result<(), ApiClaimError> {
        let number = |name| self.parameter(name).and_then(|text| text.parse().ok());
        let (Some(time), Some(_)) = (number("Timestamp"), number("Nonce")) else {
            return Err(ApiClaimError::SignatureFailure);
        };
        if now.since(Timestamp::from_unix(time)).abs() > TOLERANCE {
            return Err(ApiClaimError::SignatureExpire);
        }
        let signature = BASE64_STANDARD
            .decode(self.parameter("Signature").unwrap_or_default())
            .map_err(|_| ApiClaimError::SignatureFailure)?;
        let sent = (self.head.headers.get(HOST)).and_then(|host| host.to_str().ok());
        let sent = sent.unwrap_or_default();
        let bare = sent.split(':').next().unwrap_or_default();
        let is_signed_for = |host: &str| {
            let expected = self.signature(host, secret);
            expected.is_some_and(|it| verify_slices_are_equal(&it, &signature).is_ok())
        };
        if [sent, bare, OWN_HOST].into_iter().any(is_signed_for) {
            return Ok(());
        }
        Err(ApiClaimError::SignatureFailure)
    }

    /// The head of the call in API 3.0, and the parameters of its action.
    pub(super) fn into_api3(self) -> (Parts, Map<String, Value>) {
        let mut head = self.head.clone();
        for (_, header) in COMMON {
            head.headers.remove(header); // the signature does not cover these headers
        }
        let mut parameters = Map::new();
        for (name, value) in self.parameters {
            if let Some((_, header)) = COMMON.iter().find(|(common, _)| *common == name) {
                if let Ok(value) = HeaderValue::try_from(value) {
                    head.headers.insert(HeaderName::from_static(header), value);
                }
            } else if !OF_SIGNATURE.contains(&&*name) {
                let value = match value.parse::<Number>() {
                    Ok(number) if name == "DurationSeconds" => Value::Number(number),
                    _ => Value::String(value),
                };
                parameters.insert(name, value);
            }
        }
        (head, parameters)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn signature(&self, host: &str, secret: &Secret) -> Option<Vec<u8>> {
        let text = self.string_to_sign(host);
        let key = secret.expose().as_bytes();
        Some(match self.parameter("SignatureMethod") {
            None | Some("HmacSHA1") => {
                let mac = hmac_sha1(key).chain_update(text);
                mac.finalize().into_bytes().to_vec()
            }
            Some("HmacSHA256") => {
                let mac = hmac_sha256(key).chain_update(text);
                mac.finalize().into_bytes().to_vec()
            }
            Some(_) => return None,
        })
    }

    /// The text that is signed. Its values are not encoded.
    fn string_to_sign(&self, host: &str) -> String {
        let signed = (self.parameters.iter()).filter(|(name, _)| name != "Signature");
        let pairs: Vec<_> = signed
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!("{}{host}/?{}", self.head.method, pairs.join("&"))
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::encoding::percent::push_encoded;

    fn vectors() -> Vec<Value> {
        let text = include_str!("../../tests/vectors/tc3.json");
        let mut all: Value = serde_json::from_str(text).unwrap();
        all["v1_signatures"].take().as_array().unwrap().clone()
    }

    fn form(vector: &Value, signature: &str) -> (Parts, Vec<u8>) {
        let mut body = String::new();
        let parameters = vector["params"].as_object().unwrap();
        let mut push = |name: &str, value: &str| {
            push_encoded(&mut body, name.as_bytes());
            body.push('=');
            push_encoded(&mut body, value.as_bytes());
            body.push('&');
        };
        for (name, value) in parameters {
            push(name, value.as_str().unwrap());
        }
        push("Signature", signature);
        let head = Request::post("/")
            .header(HOST, vector["host"].as_str().unwrap())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(())
            .unwrap();
        (head.into_parts().0, body.into_bytes())
    }

    #[test]
    fn verifies_signatures_of_the_sdks() {
        let vectors = vectors();
        assert!(vectors.len() >= 4);
        for vector in vectors {
            let signature = vector["expected_signature"].as_str().unwrap();
            let (head, body) = form(&vector, signature);
            let call = ApiCallV1::parse(&head, &body).unwrap().unwrap();
            assert_eq!(call.secret_id(), vector["secret_id"]);
            let host = vector["host"].as_str().unwrap();
            assert_eq!(call.string_to_sign(host), vector["string_to_sign"]);
            let time = vector["params"]["Timestamp"].as_str().unwrap();
            let time = Timestamp::from_unix(time.parse().unwrap());
            let secret = Secret::new(vector["secret_key"].as_str().unwrap());
            assert_eq!(call.verify(&secret, time), Ok(()), "{}", vector["name"]);
            let other = call.verify(&Secret::new("another"), time);
            assert_eq!(other, Err(ApiClaimError::SignatureFailure));
            let late = call.verify(&secret, time.plus(TOLERANCE + 1));
            assert_eq!(late, Err(ApiClaimError::SignatureExpire));
            let (head, parameters) = call.into_api3();
            assert_eq!(head.headers["x-tc-version"], "2018-08-13");
            assert!(
                parameters
                    .keys()
                    .all(|name| !OF_SIGNATURE.contains(&&**name))
            );
            assert!(parameters["DurationSeconds"].is_number());
        }
    }

    #[test]
    fn rejects_unsigned_form_and_ignores_other_calls() {
        let vector = vectors().remove(0);
        let (head, _) = form(&vector, "");
        let unsigned = ApiCallV1::parse(&head, b"Action=GetFederationToken").unwrap();
        assert_eq!(unsigned.err(), Some(ApiClaimError::SignatureFailure));
        let json = Request::post("/").body(()).unwrap().into_parts().0;
        assert!(ApiCallV1::parse(&json, b"{}").is_none());
    }
}
