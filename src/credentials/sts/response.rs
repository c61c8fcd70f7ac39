//! The response of STS: a key or an error.

use std::time::Duration;

use serde::Deserialize;

use super::error::{StsClass, StsError};
use crate::credentials::credential::{BadToken, Credential, is_visible};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// Limit of a `TmpSecretId` or `TmpSecretKey`, in bytes (1150/49457).
const SECRET_BYTES: usize = 1024;
/// Limit of a `Token`, in bytes (1150/49457).
const TOKEN_BYTES: usize = 4096;

/// A key as STS gave it.
#[derive(Debug)]
pub struct Issued {
    /// `TmpSecretId`
    pub secret_id: String,
    /// `TmpSecretKey`
    pub secret_key: Secret,
    /// `Token`
    pub token: Secret,
    /// `ExpiredTime`
    pub expires: Timestamp,
    /// How long it lives from the response on, by the server's own clock.
    pub life: Duration,
    /// `RequestId`
    pub request_id: String,
}

impl Issued {
    /// The key to sign with.
    pub(crate) fn credential(self) -> Result<Credential, BadToken> {
        let (id, secret) = (self.secret_id, self.secret_key);
        let mut key = Credential::new(id, secret, Some(self.token), Some(self.expires))?;
        key.request_id = self.request_id;
        Ok(key)
    }
}

/// Reads the body of a response with `status` that came at Tencent's time `now`.
pub fn parse_response(status: u16, body: &[u8], now: Timestamp) -> Result<Issued, StsError> {
    if status != 200 {
        let what = format!("the gateway returned status {status}");
        return Err(StsError::new(StsClass::Retry, "Http", what));
    }
    // serde's own error could quote the response, secrets included, so that only its position is kept.
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        unreadable(format!(
            "not the JSON of an STS response (line {line}, column {column})"
        ))
    })?;
    let StsResponse {
        error,
        credentials,
        expired_time,
        request_id,
    } = envelope.response;
    let request_id = request_id.filter(|id| is_visible(id)).unwrap_or_default();
    if let Some(error) = error {
        return Err(StsError::from_code(
            &error.code,
            &error.message,
            &request_id,
        ));
    }
    let (Some(credentials), Some(expired_time)) = (credentials, expired_time) else {
        return Err(unreadable("Credentials or ExpiredTime is missing"));
    };
    let fits = |text: &str, max: usize| is_visible(text) && text.len() <= max;
    if !fits(&credentials.secret_id, SECRET_BYTES)
        || !fits(&credentials.secret_key, SECRET_BYTES)
        || !fits(&credentials.token, TOKEN_BYTES)
    {
        return Err(unreadable(
            "a part of Credentials is empty, too long or not plain text",
        ));
    }
    let expires = Timestamp::from_unix(expired_time);
    let life = match u64::try_from(expires.since(now)) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => {
            let what = format!("the key expired at {expires} already; Tencent's time is {now}");
            return Err(StsError::new(StsClass::Retry, "ExpiredKey", what));
        }
    };
    Ok(Issued {
        secret_id: credentials.secret_id,
        secret_key: Secret::new(credentials.secret_key),
        token: Secret::new(credentials.token),
        expires,
        life,
        request_id,
    })
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Response")]
    response: StsResponse,
}

#[derive(Deserialize)]
struct StsResponse {
    #[serde(rename = "Error")]
    error: Option<ResponseError>,
    #[serde(rename = "Credentials")]
    credentials: Option<ResponseCredentials>,
    #[serde(rename = "ExpiredTime")]
    expired_time: Option<i64>,
    #[serde(rename = "RequestId")]
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct ResponseError {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

#[derive(Deserialize)]
struct ResponseCredentials {
    #[serde(rename = "TmpSecretId")]
    secret_id: String,
    #[serde(rename = "TmpSecretKey")]
    secret_key: String,
    #[serde(rename = "Token")]
    token: String,
}

fn unreadable(message: impl Into<String>) -> StsError {
    StsError::new(StsClass::Retry, "Unreadable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_768_480_245;

    fn parse(body: &str) -> Result<Issued, StsError> {
        parse_response(200, body.as_bytes(), Timestamp::from_unix(NOW))
    }

    fn response(token: &str, expired: &str) -> String {
        format!(
            r#"{{"Response":{{"Credentials":{{"Token":{token},"TmpSecretId":"AKIDT","TmpSecretKey":"SECRET="}},"ExpiredTime":{expired},"Expiration":null,"RequestId":"r-1"}}}}"#
        )
    }

    #[test]
    fn reads_a_key() {
        let issued = parse(&response("\"TOKEN\"", &(NOW + 7200).to_string())).unwrap();
        assert_eq!(issued.secret_id, "AKIDT");
        assert_eq!(issued.secret_key.expose(), "SECRET=");
        assert_eq!(issued.token.expose(), "TOKEN");
        assert_eq!(
            (issued.life.as_secs(), issued.request_id.as_str()),
            (7200, "r-1")
        );
    }

    #[test]
    fn rejects_other_responses_without_quoting_secrets() {
        let good = response("\"TOKEN\"", &(NOW + 7200).to_string());
        let long = format!("\"{}\"", "t".repeat(TOKEN_BYTES + 1));
        let wrong = [
            String::new(),
            "<html>Bad Gateway</html>".to_owned(),
            "{}".to_owned(),
            "null".to_owned(),
            r#"{"Response":{}}"#.to_owned(),
            r#"{"Response":{"Credentials":null,"ExpiredTime":9999999999}}"#.to_owned(),
            good[..good.len() - 2].to_owned(),
            response("null", "9999999999"),
            response("\"\"", "9999999999"),
            response("7", "9999999999"),
            response("\"a\\r\\nb\"", "9999999999"),
            response(&long, "9999999999"),
            response("\"TOKEN\"", "null"),
            response("\"TOKEN\"", "\"9999999999\""),
            response("\"TOKEN\"", "1.5"),
            response("\"TOKEN\"", &NOW.to_string()),
            response("\"TOKEN\"", "-1"),
        ];
        for body in wrong {
            let error = parse(&body).unwrap_err();
            assert_eq!(error.class, StsClass::Retry, "{body}");
            assert!(!error.to_string().contains("SECRET="), "{body}");
        }
        assert_eq!(
            parse_response(502, good.as_bytes(), Timestamp::default())
                .unwrap_err()
                .code,
            "Http"
        );
    }

    #[test]
    fn classifies_error_codes() {
        for (code, class) in [
            ("AuthFailure.SignatureExpire", StsClass::Clock),
            ("AuthFailure.SecretIdNotFound", StsClass::IssuerBroken),
            ("AuthFailure.SignatureFailure", StsClass::IssuerBroken),
            ("AuthFailure.UnauthorizedOperation", StsClass::NotAllowed),
            ("FailedOperation.TempKeyNotAllowed", StsClass::IssuerBroken),
            ("InternalError.DbError", StsClass::Retry),
            ("InternalError.IllegalRole", StsClass::NotAllowed),
            (
                "InvalidParameter.AccessKeyNotSupport",
                StsClass::IssuerBroken,
            ),
            ("InvalidParameter.GrantOtherResource", StsClass::ConfigWrong),
            ("InvalidParameter.OverLimit", StsClass::Retry),
            ("InvalidParameter.PolicyTooLong", StsClass::ConfigWrong),
            ("InvalidParameterValue", StsClass::ConfigWrong),
            ("RequestLimitExceeded.UinLimitExceeded", StsClass::Retry),
            ("ServiceUnavailable", StsClass::Retry),
            ("SomethingNew", StsClass::Unknown),
            ("FailedOperation.SomethingNew", StsClass::Unknown),
            ("LimitExceeded", StsClass::Unknown),
            ("UnauthorizedOperation", StsClass::NotAllowed),
        ] {
            let body = format!(
                r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"m\nn"}},"RequestId":"r"}}}}"#
            );
            let error = parse(&body).unwrap_err();
            assert_eq!(error.class, class, "{code}");
            assert!(!error.to_string().contains('\n'), "{code}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn no_response_panics(body: Vec<u8>, status: u16, now: i64) {
            let _ = parse_response(status, &body, Timestamp::from_unix(now));
        }
    }
}
