//! The calls that make keys, as text, and their answer as a key or an error. Pure.
//!
//! <https://www.tencentcloud.com/document/product/1312/48195>,
//! <https://www.tencentcloud.com/document/product/1312/48197>

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::is_visible;
use super::names::{audit_name, session_name};
use crate::config::{Role, WebIdentity};
use crate::encoding::percent::push_encoded;
use crate::secret::Secret;
use crate::sign::tc3;
use crate::timestamp::Timestamp;

/// `X-TC-Action` with a permanent key.
pub const ACTION: &str = "GetFederationToken";
/// `X-TC-Action` with a role.
pub const ASSUME_ROLE: &str = "AssumeRole";
/// `X-TC-Action` with a token of another provider.
pub const WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";
/// `X-TC-Version`
pub const VERSION: &str = "2018-08-13";
const SERVICE: &str = "sts";
const CONTENT_TYPE: &str = "application/json";
/// The `Authorization` of a call that nobody signs, as Tencent's SDKs send it.
const UNSIGNED: &str = "SKIP";
/// Bytes of a `TmpSecretId` or `TmpSecretKey` at most (1150/49457).
const SECRET_BYTES: usize = 1024;
/// Bytes of a `Token` at most (1150/49457).
const TOKEN_BYTES: usize = 4096;
/// Characters of STS's own message that an error keeps.
const MESSAGE_CHARS: usize = 200;

/// One call, ready to be sent: `POST /` with these headers and this body.
pub struct StsRequest {
    /// Lower-case names and values, `host` and `authorization` included.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body, as it was hashed.
    pub body: Zeroizing<String>,
}

/// Its signature could be sent again for some minutes, and its body may hold a token: the names of the
/// headers are enough.
impl fmt::Debug for StsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("StsRequest")
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// Who calls, and where.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The `Host`, its port included where the endpoint has one.
    pub host: &'a str,
    /// `X-TC-Region`
    pub region: &'a str,
    /// The issuer's own `SecretId`.
    pub secret_id: &'a str,
    /// The issuer's own `SecretKey`.
    pub secret_key: &'a Secret,
    /// `X-TC-Token`, when that key is a temporary one.
    pub token: Option<&'a Secret>,
}

impl StsRequest {
    /// Asks for a key that `policy` (plain compact JSON) fences, signed at Tencent's time `now`.
    pub fn federation_token(
        caller: &Caller<'_>,
        tenant: &str,
        policy: &str,
        duration: Duration,
        now: Timestamp,
    ) -> Self {
        let body = json!({
            "DurationSeconds": duration.as_secs(),
            "Name": audit_name(tenant),
            "Policy": encoded(policy),
        });
        Self::signed(caller, ACTION, body.to_string(), now)
    }

    /// Asks for a key of `role` that lives for `duration` and that `policy` (plain compact JSON)
    /// narrows, if there is one.
    pub fn assume_role(
        caller: &Caller<'_>,
        role: &Role,
        tenant: &str,
        policy: Option<&str>,
        duration: Duration,
        now: Timestamp,
    ) -> Self {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        put("RoleArn", role.arn.as_str().into());
        let session = session_name(&role.session_name, tenant);
        put("RoleSessionName", session.into());
        put("DurationSeconds", duration.as_secs().into());
        if let Some(policy) = policy {
            put("Policy", encoded(policy).into());
        }
        if let Some(id) = &role.external_id {
            put("ExternalId", id.as_str().into());
        }
        if !role.tags.is_empty() {
            let tag = |(key, value): &(String, String)| json!({"Key": key, "Value": value});
            put("Tags", role.tags.iter().map(tag).collect());
        }
        if let Some(identity) = &role.source_identity {
            put("SourceIdentity", identity.as_str().into());
        }
        Self::signed(caller, ASSUME_ROLE, Value::Object(body).to_string(), now)
    }

    /// Asks for a key of the role of `web` with `token`, which its provider has issued. The call has no
    /// signature, and STS takes no policy with it.
    pub fn web_identity(
        host: &str,
        region: &str,
        web: &WebIdentity,
        token: &Secret,
        tenant: &str,
        now: Timestamp,
    ) -> Self {
        let body = json!({
            "ProviderId": web.provider_id,
            "WebIdentityToken": token.expose(),
            "RoleArn": web.role_arn,
            "RoleSessionName": session_name(&web.session_name, tenant),
            "DurationSeconds": web.duration.as_secs(),
        });
        let mut headers = headers(host, region, WEB_IDENTITY, now);
        headers.push(("authorization", UNSIGNED.to_owned()));
        Self {
            headers,
            body: Zeroizing::new(body.to_string()),
        }
    }

    fn signed(caller: &Caller<'_>, action: &'static str, body: String, now: Timestamp) -> Self {
        let call = tc3::Call {
            method: "POST",
            host: caller.host,
            service: SERVICE,
            content_type: CONTENT_TYPE,
            query: "",
            payload: body.as_bytes(),
            time: now,
        };
        let key = tc3::SigningKey::derive(caller.secret_key, &now.date_dashed(), SERVICE);
        let mut headers = headers(caller.host, caller.region, action, now);
        headers.push((
            "authorization",
            tc3::authorization(&call, caller.secret_id, &key),
        ));
        if let Some(token) = caller.token {
            headers.push(("x-tc-token", token.expose().to_owned())); // sent and not signed
        }
        Self {
            headers,
            body: Zeroizing::new(body),
        }
    }
}

fn headers(host: &str, region: &str, action: &str, now: Timestamp) -> Vec<(&'static str, String)> {
    vec![
        ("host", host.to_owned()),
        ("content-type", CONTENT_TYPE.to_owned()),
        ("x-tc-action", action.to_owned()),
        ("x-tc-version", VERSION.to_owned()),
        ("x-tc-timestamp", now.unix().to_string()),
        ("x-tc-region", region.to_owned()),
    ]
}

/// STS decodes the policy once more than the transport does, so it is encoded once more.
fn encoded(policy: &str) -> String {
    let mut encoded = String::with_capacity(3 * policy.len());
    push_encoded(&mut encoded, policy.as_bytes());
    encoded
}

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
    /// How long it lives from the answer on, by the server's own clock.
    pub life: Duration,
    /// `RequestId`
    pub request_id: String,
}

/// Reads the body of an answer with `status` that came at Tencent's time `now`.
pub fn parse_answer(status: u16, body: &[u8], now: Timestamp) -> Result<Issued, StsError> {
    if status != 200 {
        let what = format!("the gateway answered status {status}");
        return Err(StsError::new(StsClass::Retry, "Http", what));
    }
    // serde's own error could quote the answer, secrets included, so that only its place is kept.
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        unreadable(format!(
            "not the JSON of an STS answer (line {line}, column {column})"
        ))
    })?;
    let Answer {
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
    let fits = |text: &str, most: usize| is_visible(text) && text.len() <= most;
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
    response: Answer,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Error")]
    error: Option<AnswerError>,
    #[serde(rename = "Credentials")]
    credentials: Option<AnswerCredentials>,
    #[serde(rename = "ExpiredTime")]
    expired_time: Option<i64>,
    #[serde(rename = "RequestId")]
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

#[derive(Deserialize)]
struct AnswerCredentials {
    #[serde(rename = "TmpSecretId")]
    secret_id: String,
    #[serde(rename = "TmpSecretKey")]
    secret_key: String,
    #[serde(rename = "Token")]
    token: String,
}

/// What to do about an error of STS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StsClass {
    /// Our time is more than five minutes off: learn it and call again.
    Clock,
    /// The tenant's policy or the duration is refused.
    ConfigWrong,
    /// The issuer's own key is refused: every tenant of it is affected.
    IssuerBroken,
    /// The issuer may not make this key.
    NotAllowed,
    /// STS itself is in trouble, or was not reached: it may pass, and every call is affected.
    Retry,
    /// STS answered with a code that is not known: it may pass, and says nothing about other calls.
    Unknown,
}

impl StsClass {
    /// The class of Tencent's error `code`.
    pub fn of(code: &str) -> Self {
        match code {
            "AuthFailure.SignatureExpire" => Self::Clock,
            "AuthFailure.UnauthorizedOperation"
            | "InternalError.IllegalRole"
            | "ResourceNotFound.RoleNotFound"
            | "UnauthorizedOperation" => Self::NotAllowed,
            // A pod's token is the issuer's own key: it is refused for every tenant.
            "FailedOperation.TempKeyNotAllowed"
            | "InvalidParameter.AccessKeyNotSupport"
            | "InvalidParameter.AccountNotAvaliable"
            | "InvalidParameter.WebIdentityTokenError" => Self::IssuerBroken,
            "InvalidParameter.OverLimit" => Self::Retry, // a rate limit, despite its name
            _ if code.starts_with("AuthFailure.") => Self::IssuerBroken,
            _ if code.starts_with("UnauthorizedOperation.") => Self::NotAllowed,
            _ if [
                "InvalidParameter",
                "InvalidParameterValue",
                "MissingParameter",
                "UnknownParameter",
            ]
            .contains(&code.split('.').next().unwrap_or_default()) =>
            {
                Self::ConfigWrong
            }
            _ if [
                "InternalError",
                "RequestLimitExceeded",
                "ServiceUnavailable",
            ]
            .contains(&code.split('.').next().unwrap_or_default()) =>
            {
                Self::Retry
            }
            _ => Self::Unknown,
        }
    }

    /// Whether calling again soon cannot help.
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::ConfigWrong | Self::IssuerBroken | Self::NotAllowed
        )
    }

    /// Whether other calls of the same issuer would most likely fail as well.
    pub(super) fn affects_all_calls(self) -> bool {
        matches!(self, Self::Clock | Self::Retry)
    }
}

/// STS gave no usable key. The text is for the log and for whoever runs cosgate; it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsError {
    /// What to do about it.
    pub class: StsClass,
    /// Tencent's code, or a word of ours: `BadHeader`, `Cancelled`, `ExpiredKey`, `Http`, `KeyRefused`,
    /// `Network`, `NoBaseKey`, `ShortKey`, `Timeout`, `TokenFile`, `Unreadable`.
    pub code: String,
    /// What happened, in one line.
    pub message: String,
    /// The issuer's name in the configuration; empty without one.
    pub issuer: String,
    /// No call was made: STS has refused the same key of the issuer a short time ago.
    pub is_repeated: bool,
}

impl StsError {
    pub(super) fn new(class: StsClass, code: &str, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.to_owned(),
            message: message.into(),
            issuer: String::new(),
            is_repeated: false,
        }
    }

    /// The same of the issuer of this name. What was told by a base of it keeps the base's name.
    pub(super) fn of_issuer(mut self, name: &str) -> Self {
        if self.issuer.is_empty() {
            name.clone_into(&mut self.issuer);
        }
        self
    }

    /// The same, told again without a call.
    pub(super) fn repeated(mut self) -> Self {
        self.is_repeated = true;
        self
    }

    /// Whether the policy is too long for STS.
    pub(super) fn is_of_long_policy(&self) -> bool {
        matches!(
            self.code.as_str(),
            "InvalidParameter.PolicyTooLong" | "InvalidParameter.ExtendStrategyOverSize"
        )
    }

    /// An error that STS itself answered.
    fn from_code(code: &str, message: &str, request_id: &str) -> Self {
        let class = StsClass::of(code);
        let code: String = printable(code, 64);
        // What STS says of a refused signature may quote the call, so that only the code is kept.
        let said = match class {
            StsClass::Clock | StsClass::IssuerBroken => String::new(),
            _ => printable(message, MESSAGE_CHARS),
        };
        let message = format!("{said} (request {request_id})");
        Self::new(class, &code, message.trim_start())
    }

    /// How to fix it, where that is the operator's to do.
    pub fn mend(&self) -> Option<Cow<'static, str>> {
        let fix = match (self.class, self.code.as_str()) {
            (StsClass::Clock, _) => "set this machine's clock: it is more than five minutes off",
            (_, "FailedOperation.TempKeyNotAllowed") => {
                "GetFederationToken takes a permanent key only: set the issuer's secret_id and secret_key to one"
            }
            (_, "InvalidParameter.GrantOtherResource") => {
                "a bucket of the grants belongs to another account: check its APPID and the issuer's key"
            }
            (_, "InvalidParameter.OverTimeError") => {
                "duration is too long: at most 2h for a root account's key, 36h for a sub-account's, what CAM says for a role's"
            }
            _ if self.is_of_long_policy() => {
                "the policy is too long for STS: give the tenant fewer prefixes or actions"
            }
            (_, "InvalidParameter.WebIdentityTokenError") => {
                "the token of token_file is refused: check its audience, its life and provider_id"
            }
            (_, "ResourceNotFound.RoleNotFound" | "InternalError.IllegalRole") => {
                "check role_arn: there is no such role, or it trusts nobody like this issuer"
            }
            (_, "NoBaseKey") => "fix what the issuer's own key comes from",
            (_, "TokenFile") => "fix token_file",
            (StsClass::ConfigWrong, _) => {
                "check the tenant's grants, the duration and the region of [sts]"
            }
            (StsClass::IssuerBroken, _) => return Some(self.mend_key()),
            (StsClass::NotAllowed, _) => {
                "allow the issuer sts:GetFederationToken in CAM, or sts:AssumeRole and let the role trust it"
            }
            (StsClass::Retry | StsClass::Unknown, _) => return None,
        };
        Some(fix.into())
    }

    fn mend_key(&self) -> Cow<'static, str> {
        if self.issuer.is_empty() {
            return "check the SecretId and SecretKey, and that CAM has the key enabled".into();
        }
        let name = &self.issuer;
        format!("check secret_id and secret_key of [issuers.{name}], or what its key comes from, and that CAM has the key enabled").into()
    }
}

impl fmt::Display for StsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.issuer.is_empty() {
            write!(f, "issuers.{}: ", self.issuer)?;
        }
        write!(f, "STS: {}: {}", self.code, self.message)?;
        match self.mend() {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StsError {}

fn unreadable(message: impl Into<String>) -> StsError {
    StsError::new(StsClass::Retry, "Unreadable", message)
}

/// A stranger's text in one line, fit for the log.
fn printable(text: &str, most: usize) -> String {
    text.chars()
        .take(most)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_768_480_245;

    fn parse(body: &str) -> Result<Issued, StsError> {
        parse_answer(200, body.as_bytes(), Timestamp::from_unix(NOW))
    }

    fn answer(token: &str, expired: &str) -> String {
        format!(
            r#"{{"Response":{{"Credentials":{{"Token":{token},"TmpSecretId":"AKIDT","TmpSecretKey":"SECRET="}},"ExpiredTime":{expired},"Expiration":null,"RequestId":"r-1"}}}}"#
        )
    }

    #[test]
    fn the_call_is_signed_as_the_vectors_say() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/tc3.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        let case = cases
            .iter()
            .find(|case| case["name"] == "node-federation-token-encoded")
            .unwrap();
        let text = |name: &str| case[name].as_str().unwrap();
        let body: Value = serde_json::from_str(text("body")).unwrap();
        let encoded = body["Policy"].as_str().unwrap();
        let policy = crate::encoding::percent::percent_decode(encoded).unwrap();
        let secret_key = Secret::new(text("secret_key"));
        let caller = Caller {
            host: text("host"),
            region: text("region"),
            secret_id: text("secret_id"),
            secret_key: &secret_key,
            token: None,
        };
        let request = StsRequest::federation_token(
            &caller,
            body["Name"].as_str().unwrap(),
            std::str::from_utf8(&policy).unwrap(),
            Duration::from_secs(body["DurationSeconds"].as_u64().unwrap()),
            Timestamp::from_unix(case["timestamp"].as_i64().unwrap()),
        );
        // Node leaves `*` as it is; every byte that is not unreserved is safer encoded.
        let same = request.body.replace("%2A", "*");
        assert_eq!(serde_json::from_str::<Value>(&same).unwrap(), body);
        let header = |wanted: &str| {
            let found = request.headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.as_str()).unwrap()
        };
        for (name, value) in case["headers"].as_object().unwrap() {
            assert_eq!(header(&name.to_ascii_lowercase()), value.as_str().unwrap());
        }
        let now = Timestamp::from_unix(case["timestamp"].as_i64().unwrap());
        let call = tc3::Call {
            method: "POST",
            host: caller.host,
            service: SERVICE,
            content_type: header("content-type"),
            query: "",
            payload: request.body.as_bytes(),
            time: now,
        };
        let claim = tc3::Claim::parse(header("authorization")).unwrap();
        assert_eq!(claim.secret_id, caller.secret_id);
        assert_eq!(claim.verify(&call, &secret_key, now), Ok(()));
    }

    #[test]
    fn a_role_is_asked_for_as_the_vectors_say() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/tc3.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        for name in [
            "assume-role-basic",
            "assume-role-policy",
            "assume-role-external-id-tags",
            "assume-role-with-token",
        ] {
            let case = cases.iter().find(|case| case["name"] == name).unwrap();
            let wanted: Value = serde_json::from_str(case["body"].as_str().unwrap()).unwrap();
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let role = Role {
                arn: text(&wanted["RoleArn"]).unwrap(),
                session_name: text(&wanted["RoleSessionName"]).unwrap(),
                external_id: text(&wanted["ExternalId"]),
                tags: wanted["Tags"].as_array().map_or_else(Vec::new, |tags| {
                    let tag =
                        |tag: &Value| (text(&tag["Key"]).unwrap(), text(&tag["Value"]).unwrap());
                    tags.iter().map(tag).collect()
                }),
                source_identity: text(&wanted["SourceIdentity"]),
                duration: Duration::from_secs(wanted["DurationSeconds"].as_u64().unwrap()),
            };
            let policy = wanted["Policy"].as_str().map(|encoded| {
                let policy = crate::encoding::percent::percent_decode(encoded).unwrap();
                String::from_utf8(policy.into_owned()).unwrap()
            });
            let (secret_key, token) = (
                Secret::new(case["secret_key"].as_str().unwrap()),
                case["token"].as_str().map(Secret::new),
            );
            let caller = Caller {
                host: case["host"].as_str().unwrap(),
                region: case["region"].as_str().unwrap(),
                secret_id: case["secret_id"].as_str().unwrap(),
                secret_key: &secret_key,
                token: token.as_ref(),
            };
            let now = Timestamp::from_unix(case["timestamp"].as_i64().unwrap());
            let policy = policy.as_deref();
            let call = StsRequest::assume_role(&caller, &role, "", policy, role.duration, now);
            let body: Value = serde_json::from_str(&call.body).unwrap();
            assert_eq!(body, wanted, "{name}");
            for (header, value) in case["headers"].as_object().unwrap() {
                let header = header.to_ascii_lowercase();
                let sent = call.headers.iter().find(|(name, _)| *name == header);
                assert_eq!(sent.unwrap().1, value.as_str().unwrap(), "{name}");
            }
        }
    }

    #[test]
    fn a_web_identity_signs_nothing_and_shows_no_token() {
        let web = WebIdentity {
            provider_id: "OIDC".into(),
            token_file: "/token".into(),
            role_arn: "qcs::cam::uin/1:roleName/r".into(),
            session_name: "cosgate-{tenant}".into(),
            duration: Duration::from_hours(2),
        };
        let now = Timestamp::from_unix(NOW);
        let token = Secret::new("CANARY");
        let call = StsRequest::web_identity("sts", "r", &web, &token, "web/alice", now);
        let body: Value = serde_json::from_str(&call.body).unwrap();
        assert_eq!(body["WebIdentityToken"], "CANARY");
        assert!(
            body["RoleSessionName"]
                .as_str()
                .unwrap()
                .starts_with("cosgate-web-alice-")
        );
        assert!(call.headers.contains(&("authorization", "SKIP".to_owned())));
        assert!(!format!("{call:?}").contains("CANARY"));
        let error = parse(
            r#"{"Response":{"Error":{"Code":"InvalidParameter.WebIdentityTokenError","Message":"token CANARY"}}}"#,
        );
        assert!(!error.unwrap_err().to_string().contains("CANARY"));
    }

    #[test]
    fn a_good_answer_is_a_key() {
        let issued = parse(&answer("\"TOKEN\"", &(NOW + 7200).to_string())).unwrap();
        assert_eq!(issued.secret_id, "AKIDT");
        assert_eq!(issued.secret_key.expose(), "SECRET=");
        assert_eq!(issued.token.expose(), "TOKEN");
        assert_eq!(
            (issued.life.as_secs(), issued.request_id.as_str()),
            (7200, "r-1")
        );
    }

    #[test]
    fn whatever_is_not_a_good_answer_is_refused_without_its_secrets() {
        let good = answer("\"TOKEN\"", &(NOW + 7200).to_string());
        let long = format!("\"{}\"", "t".repeat(TOKEN_BYTES + 1));
        let wrong = [
            String::new(),
            "<html>Bad Gateway</html>".to_owned(),
            "{}".to_owned(),
            "null".to_owned(),
            r#"{"Response":{}}"#.to_owned(),
            r#"{"Response":{"Credentials":null,"ExpiredTime":9999999999}}"#.to_owned(),
            good[..good.len() - 2].to_owned(),
            answer("null", "9999999999"),
            answer("\"\"", "9999999999"),
            answer("7", "9999999999"),
            answer("\"a\\r\\nb\"", "9999999999"),
            answer(&long, "9999999999"),
            answer("\"TOKEN\"", "null"),
            answer("\"TOKEN\"", "\"9999999999\""),
            answer("\"TOKEN\"", "1.5"),
            answer("\"TOKEN\"", &NOW.to_string()),
            answer("\"TOKEN\"", "-1"),
        ];
        for body in wrong {
            let error = parse(&body).unwrap_err();
            assert_eq!(error.class, StsClass::Retry, "{body}");
            assert!(!error.to_string().contains("SECRET="), "{body}");
        }
        assert_eq!(
            parse_answer(502, good.as_bytes(), Timestamp::default())
                .unwrap_err()
                .code,
            "Http"
        );
    }

    #[test]
    fn errors_have_the_class_of_their_code() {
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
        fn no_answer_panics(body: Vec<u8>, status: u16, now: i64) {
            let _ = parse_answer(status, &body, Timestamp::from_unix(now));
        }
    }
}
