//! A key as JSON: the response of the metadata service, or the output of a command. Pure.

use serde::Deserialize;

use super::credential::is_visible;
use crate::encoding::hex::sha256_hex;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// Limit of such a document, in bytes.
pub(super) const DOCUMENT_BYTES: usize = 64 * 1024;

/// The key that an issuer signs its calls with.
#[derive(Debug)]
pub(super) struct CallerKey {
    pub(super) secret_id: String,
    pub(super) secret_key: Secret,
    /// `None`: the key is a permanent one.
    pub(super) token: Option<Secret>,
}

impl CallerKey {
    /// Distinguishes it from every other key.
    pub(super) fn digest(&self) -> String {
        let token = self.token.as_ref().map_or("", Secret::expose);
        // Each part is hashed for itself, so that no two keys can be written alike.
        let parts = [self.secret_id.as_str(), self.secret_key.expose(), token];
        sha256_hex(
            parts
                .map(|part| sha256_hex(part.as_bytes()))
                .concat()
                .as_bytes(),
        )
    }
}

/// Both spellings: Tencent's (metadata service and tools) and that of AWS's `credential_process`.
#[derive(Deserialize)]
struct KeyDocument {
    #[serde(rename = "Code")]
    code: Option<String>,
    #[serde(rename = "TmpSecretId", alias = "SecretId", alias = "AccessKeyId")]
    secret_id: Option<String>,
    #[serde(
        rename = "TmpSecretKey",
        alias = "SecretKey",
        alias = "SecretAccessKey"
    )]
    secret_key: Option<String>,
    #[serde(rename = "Token", alias = "SessionToken")]
    token: Option<String>,
    #[serde(rename = "ExpiredTime")]
    expired_time: Option<i64>,
    #[serde(rename = "Expiration")]
    expiration: Option<String>,
}

/// The key and its end, if it has one. The error quotes nothing of the document but its `Code`.
pub(super) fn parse(text: &[u8]) -> Result<(CallerKey, Option<Timestamp>), String> {
    let document: KeyDocument = serde_json::from_slice(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("not the JSON of a key (line {line}, column {column})")
    })?;
    let KeyDocument {
        code,
        secret_id,
        secret_key,
        token,
        expired_time,
        expiration,
    } = document;
    let (secret_key, token) = (secret_key.map(Secret::new), token.map(Secret::new));
    if let Some(code) = code.filter(|code| code != "Success") {
        let code: String = code.chars().take(64).collect();
        return Err(format!("the code is {}", code.escape_debug()));
    }
    let token = token.filter(|token| !token.expose().is_empty());
    let (Some(secret_id), Some(secret_key)) = (secret_id, secret_key) else {
        return Err("it has no TmpSecretId and TmpSecretKey (or AccessKeyId and …)".to_owned());
    };
    let is_token_visible = token
        .as_ref()
        .is_none_or(|token| is_visible(token.expose()));
    if !is_visible(&secret_id) || !is_visible(secret_key.expose()) || !is_token_visible {
        return Err("a part of the key is empty or not plain text".to_owned());
    }
    let expires = match (expired_time, expiration) {
        (Some(seconds), _) => Some(Timestamp::from_unix(seconds)),
        (None, Some(text)) => {
            let time = Timestamp::parse_iso8601(&text);
            Some(time.ok_or("Expiration is not a time such as 2026-01-15T12:30:45Z")?)
        }
        (None, None) => None,
    };
    let key = CallerKey {
        secret_id,
        secret_key,
        token,
    };
    Ok((key, expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_documents_of_the_metadata_service_and_of_aws() {
        let metadata = br#"{"TmpSecretId":"AKID","TmpSecretKey":"KEY=","ExpiredTime":1768480245,"Expiration":"2026-01-15T12:30:45Z","Token":"TOKEN","Code":"Success"}"#;
        let (key, expires) = parse(metadata).unwrap();
        assert_eq!(
            (key.secret_id.as_str(), key.secret_key.expose()),
            ("AKID", "KEY=")
        );
        assert!(key.token.is_some_and(|token| token.expose() == "TOKEN"));
        assert_eq!(expires.unwrap().unix(), 1_768_480_245);
        let process = br#"{"Version":1,"AccessKeyId":"AKID","SecretAccessKey":"KEY","SessionToken":"T","Expiration":"2026-01-15T12:30:45Z"}"#;
        assert_eq!(parse(process).unwrap().1, expires);
        let permanent = br#"{"SecretId":"AKID","SecretKey":"KEY","Token":""}"#;
        let (key, expires) = parse(permanent).unwrap();
        assert!(key.token.is_none() && expires.is_none());
    }

    #[test]
    fn rejects_other_documents_without_quoting_them() {
        for text in [
            "",
            "<html>",
            "{}",
            "null",
            "[]",
            r#"{"Code":"Failed"}"#,
            r#"{"TmpSecretId":"CANARY","TmpSecretKey":7}"#,
            r#"{"TmpSecretId":"CANARY","TmpSecretKey":""}"#,
            r#"{"TmpSecretId":"CANARY","TmpSecretKey":"CANARY\r\nx"}"#,
            r#"{"TmpSecretId":"CANARY","TmpSecretKey":"CANARY","Expiration":"CANARY"}"#,
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(!error.contains("CANARY"), "{error}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
        #[test]
        fn no_document_panics(text: Vec<u8>) {
            let _ = parse(&text);
        }
    }
}
