//! The embedded STS: `AssumeRole`, `AssumeRoleWithWebIdentity`, `GetFederationToken` and `GetCallerIdentity`
//! of Tencent's API 3.0, as strict as the real one.
//!
//! <https://www.tencentcloud.com/document/product/1312/48195>

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use s3s::Body;
use serde_json::{Map, Value, json};

use crate::emulator::EmulatorRole;
use crate::emulator::cam::{ParsedPolicy, ParsedPolicyError};
use crate::emulator::clock;
use crate::emulator::counters::Counters;
use crate::emulator::fault_body::PacedBody;
use crate::emulator::fault_switch::{Circumstances, FaultSwitch};
use crate::emulator::fault_target::FaultTarget;
use crate::emulator::faults::{FaultService, StsFault};
use crate::emulator::keys::{AccountKey, AccountKeys, NewKey, random};
use crate::emulator::store::hex;
use crate::emulator::sts_v1;
use crate::emulator::wire::{ArrivingBody, Cut, WirePeer};
use crate::encoding::percent::form_decode;
use crate::sign::tc3::{ApiCall, ApiClaim, ApiClaimError};
use crate::timestamp::Timestamp;

/// Maximum size of a call's body in bytes.
const BODY_LIMIT: usize = 256 * 1024;
/// Maximum lifetime of a sub-account's federation token.
const DURATION_LIMIT: i64 = 129_600;
const DURATION_DEFAULT: i64 = 1800;
/// Bytes of [`StsFault::Huge`].
const HUGE: usize = 64 << 20;
/// Maximum lifetime of a role's key.
const ROLE_DURATION_LIMIT: i64 = 43_200;
const ROLE_DURATION_DEFAULT: i64 = 7200;
const TAGS_LIMIT: usize = 50;
const VERSION: &str = "2018-08-13";

/// The embedded STS.
#[derive(Debug)]
pub(super) struct EmbeddedSts {
    pub(super) counters: Arc<Counters>,
    pub(super) faults: Arc<FaultSwitch>,
    pub(super) keys: Arc<AccountKeys>,
    /// Maximum length of a decoded policy in characters.
    pub(super) policy_limit: usize,
    /// Accounts and their roles.
    pub(super) roles: Vec<(String, EmulatorRole)>,
}

/// The key that a call requests.
struct RequestedKey<'a> {
    /// The account.
    appid: &'a str,
    /// The policy and its length.
    policy: Option<(ParsedPolicy, usize)>,
    /// The lifetime in seconds.
    duration: i64,
    name: &'a str,
}

/// An error response: Tencent's code and a message.
type StsFailure = (String, String);

impl EmbeddedSts {
    /// Responds to one request, or cuts its connection when a fault says so.
    pub(super) async fn respond(
        &self,
        request: Request<ArrivingBody>,
        peer: WirePeer,
    ) -> Result<Response<Body>, Cut> {
        self.counters.sts_call();
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                return Ok(failed(
                    failure("RequestSizeLimitExceeded", "The request is too large."),
                    clock(),
                ));
            }
        };
        let target = || FaultTarget::of_sts(&head, &body);
        let met = self.faults.meet(FaultService::Sts, target);
        met.revoked.iter().for_each(|keys| self.keys.forget(keys));
        if !met.latency.is_zero() {
            tokio::time::sleep(met.latency).await;
        }
        let circumstances = met.circumstances(clock());
        let response = match fault_response(met.sts.as_ref(), circumstances.now, &peer).await? {
            Some(broken) => broken,
            None => match self.act(&head, &body, circumstances) {
                Ok(mut content) => {
                    corrupt(&mut content, met.sts.as_ref());
                    json_response(content, circumstances.now)
                }
                Err(failure) => failed(failure, circumstances.now),
            },
        };
        Ok(match met.bandwidth {
            Some(rate) => response.map(|body| Body::http_body_unsync(PacedBody::new(body, rate))),
            None => response,
        })
    }

    fn act(
        &self,
        head: &Parts,
        body: &[u8],
        circumstances: Circumstances,
    ) -> Result<Map<String, Value>, StsFailure> {
        let now = circumstances.now;
        if let Some(call) = sts_v1::ApiCallV1::parse(head, body) {
            let call = call.map_err(refused)?;
            let key = self.key(call.secret_id())?;
            call.verify(key.secret(), now).map_err(refused)?;
            let (head, parameters) = call.into_api3();
            check_token(&head, &key)?;
            return self.perform(&head, Some(&key), &parameters, circumstances);
        }
        let is_unsigned = header(head, "x-tc-action") == Some("AssumeRoleWithWebIdentity");
        let key = if is_unsigned {
            if header(head, "authorization") != Some("SKIP") {
                return Err(failure(
                    "AuthFailure.SignatureFailure",
                    "This action is called without a signature.",
                ));
            }
            None
        } else {
            Some(self.authenticate(head, body, now)?)
        };
        let parameters = parameters(head, body)?;
        self.perform(head, key.as_ref(), &parameters, circumstances)
    }

    /// The action of a call whose `key` is known.
    fn perform(
        &self,
        head: &Parts,
        key: Option<&AccountKey>,
        parameters: &Map<String, Value>,
        circumstances: Circumstances,
    ) -> Result<Map<String, Value>, StsFailure> {
        if header(head, "x-tc-version") != Some(VERSION) {
            return Err(failure(
                "InvalidParameterValue",
                "The version is not 2018-08-13.",
            ));
        }
        match (header(head, "x-tc-action"), key) {
            (Some("AssumeRole"), Some(key)) => {
                self.assume_role(head, key, parameters, circumstances)
            }
            (Some("AssumeRoleWithWebIdentity"), _) => {
                self.assume_role_with_web_identity(head, parameters, circumstances)
            }
            (Some("GetFederationToken"), Some(key)) => {
                self.get_federation_token(head, key, parameters, circumstances)
            }
            (Some("GetCallerIdentity"), _) => Ok(fields(&json!({
                "Arn": "qcs::cam::uin/100000000001:uin/100000000001",
                "AccountId": "100000000001",
                "UserId": "100000000001",
                "PrincipalId": "100000000001",
                "Type": "RootAccount",
            }))),
            _ => Err(failure("InvalidAction", "The request action is not found.")),
        }
    }

    /// Authenticates the caller by the signature of API 3.0.
    fn authenticate(
        &self,
        head: &Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<AccountKey, StsFailure> {
        let wrong = || refused(ApiClaimError::SignatureFailure);
        let claim = head
            .headers
            .get(AUTHORIZATION)
            .and_then(|v| v.to_str().ok());
        let claim = ApiClaim::parse(claim.unwrap_or_default()).map_err(|_| wrong())?;
        let key = self.key(claim.secret_id)?;
        let time = header(head, "x-tc-timestamp")
            .and_then(|t| t.parse().ok())
            .ok_or_else(wrong)?;
        let host = head
            .headers
            .get(HOST)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let call = ApiCall {
            method: head.method.as_str(),
            host,
            service: "sts",
            content_type: header(head, "content-type").unwrap_or_default(),
            query: head.uri.query().unwrap_or_default(),
            payload: match header(head, "x-tc-content-sha256") {
                Some("UNSIGNED-PAYLOAD") => b"UNSIGNED-PAYLOAD",
                _ => body,
            },
            time: Timestamp::from_unix(time),
        };
        // Some SDKs sign the bare host name, and others sign its port too.
        let bare = ApiCall {
            host: host.split(':').next().unwrap_or_default(),
            ..call
        };
        let verified = claim
            .verify(&call, key.secret(), now)
            .or_else(|refusal| match refusal {
                ApiClaimError::SignatureExpire => Err(refusal),
                ApiClaimError::SignatureFailure => claim.verify(&bare, key.secret(), now),
            });
        verified.map_err(refused)?;
        check_token(head, &key)?;
        Ok(key)
    }

    fn key(&self, id: &str) -> Result<AccountKey, StsFailure> {
        let unknown = || failure("AuthFailure.SecretIdNotFound", "The SecretId is not found.");
        self.keys.find(id).ok_or_else(unknown)
    }

    fn get_federation_token(
        &self,
        head: &Parts,
        key: &AccountKey,
        parameters: &Map<String, Value>,
        circumstances: Circumstances,
    ) -> Result<Map<String, Value>, StsFailure> {
        if matches!(key, AccountKey::Temporary(_)) {
            return Err(failure(
                "FailedOperation.TempKeyNotAllowed",
                "A temporary key cannot request one.",
            ));
        }
        require_region(head)?;
        let name = text(parameters, "Name")?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') {
            return Err(failure(
                "InvalidParameter.ParamError",
                "Name is of letters only.",
            ));
        }
        let duration = duration(head, parameters, DURATION_DEFAULT, DURATION_LIMIT)?;
        let appid = key.appid();
        let new = RequestedKey {
            appid,
            policy: Some(self.policy(text(parameters, "Policy")?, appid)?),
            duration,
            name,
        };
        self.issue(new, circumstances)
    }

    fn assume_role(
        &self,
        head: &Parts,
        key: &AccountKey,
        parameters: &Map<String, Value>,
        circumstances: Circumstances,
    ) -> Result<Map<String, Value>, StsFailure> {
        require_region(head)?;
        let (appid, role) = self.role(parameters)?;
        let name = session(parameters)?;
        if role.web_identity.is_some()
            || key.appid() != appid
            || (role.external_id.is_some()
                && role.external_id.as_deref() != external_id(parameters)?)
        {
            return Err(failure(
                "UnauthorizedOperation",
                "The role does not trust this caller.",
            ));
        }
        check_tags(parameters)?;
        let duration = duration(head, parameters, ROLE_DURATION_DEFAULT, ROLE_DURATION_LIMIT)?;
        let policy = match parameters.get("Policy") {
            None => None,
            Some(_) => Some(self.policy(text(parameters, "Policy")?, appid)?),
        };
        let new = RequestedKey {
            appid,
            policy,
            duration,
            name,
        };
        self.issue(new, circumstances)
    }

    /// This action has no Policy. A call with one is refused, as API 3.0 refuses an unknown parameter.
    fn assume_role_with_web_identity(
        &self,
        head: &Parts,
        parameters: &Map<String, Value>,
        circumstances: Circumstances,
    ) -> Result<Map<String, Value>, StsFailure> {
        const KNOWN: [&str; 5] = [
            "ProviderId",
            "WebIdentityToken",
            "RoleArn",
            "RoleSessionName",
            "DurationSeconds",
        ];
        require_region(head)?;
        if let Some(name) = parameters
            .keys()
            .find(|name| !KNOWN.contains(&name.as_str()))
        {
            let message = format!("The parameter {name} is not recognized.");
            return Err(failure("UnknownParameter", &message));
        }
        let (provider, token) = (
            text(parameters, "ProviderId")?,
            text(parameters, "WebIdentityToken")?,
        );
        let (appid, role) = self.role(parameters)?;
        let name = session(parameters)?;
        let is_trusted = role
            .web_identity
            .as_ref()
            .is_some_and(|(trusted, good)| trusted == provider && good.expose() == token);
        if !is_trusted {
            return Err(failure(
                "InvalidParameter.WebIdentityTokenError",
                "The web identity token is wrong.",
            ));
        }
        let duration = duration(head, parameters, ROLE_DURATION_DEFAULT, ROLE_DURATION_LIMIT)?;
        let new = RequestedKey {
            appid,
            policy: None,
            duration,
            name,
        };
        self.issue(new, circumstances)
    }

    /// A role and its account.
    fn role(&self, parameters: &Map<String, Value>) -> Result<(&str, &EmulatorRole), StsFailure> {
        let arn = text(parameters, "RoleArn")?;
        let role = self.roles.iter().find(|(_, role)| role.arn == arn);
        let role = role.map(|(appid, role)| (appid.as_str(), role));
        role.ok_or_else(|| failure("ResourceNotFound.RoleNotFound", "The role is not found."))
    }

    /// A policy and its length.
    fn policy(&self, encoded: &str, appid: &str) -> Result<(ParsedPolicy, usize), StsFailure> {
        let policy_text = decode_policy(encoded).ok_or_else(|| {
            failure(
                "InvalidParameter.StrategyFormatError",
                "The policy cannot be decoded.",
            )
        })?;
        if policy_text.chars().count() > self.policy_limit {
            return Err(failure(
                "InvalidParameter.PolicyTooLong",
                "The policy is too long.",
            ));
        }
        let policy = ParsedPolicy::parse(&policy_text).map_err(|error| match error {
            ParsedPolicyError::Format(why) => failure("InvalidParameter.StrategyFormatError", &why),
            ParsedPolicyError::Invalid(why) => failure("InvalidParameter.StrategyInvalid", &why),
        })?;
        let policy = policy.of_account(appid);
        if let Some(account) = policy.other_account(appid) {
            return Err(failure("InvalidParameter.GrantOtherResource", account));
        }
        Ok((policy, policy_text.len()))
    }

    fn issue(
        &self,
        requested: RequestedKey<'_>,
        circumstances: Circumstances,
    ) -> Result<Map<String, Value>, StsFailure> {
        let life = circumstances.lifetime.unwrap_or(requested.duration);
        let new = NewKey {
            appid: requested.appid,
            session: requested.name,
            policy: requested.policy,
            expires: clock().plus(life),
        };
        let issued = self.keys.issue(new, clock());
        let issued = issued.ok_or_else(|| failure("InternalError.SystemError", "No more keys."))?;
        self.counters.key_issued(requested.name);
        let expires = circumstances.now.plus(life);
        Ok(fields(&json!({
            "Credentials": {
                "Token": issued.token.expose(),
                "TmpSecretId": issued.id,
                "TmpSecretKey": issued.secret.expose(),
            },
            "ExpiredTime": expires.unix(),
            "Expiration": expires.iso8601(),
        })))
    }
}

fn refused(refusal: ApiClaimError) -> StsFailure {
    match refusal {
        ApiClaimError::SignatureExpire => failure(
            "AuthFailure.SignatureExpire",
            "Signature expired: more than 5 minutes off the server's time.",
        ),
        ApiClaimError::SignatureFailure => failure(
            "AuthFailure.SignatureFailure",
            "The provided credentials could not be validated.",
        ),
    }
}

/// Checks the token of a temporary key.
fn check_token(head: &Parts, key: &AccountKey) -> Result<(), StsFailure> {
    let AccountKey::Temporary(temporary) = key else {
        return Ok(());
    };
    let token = header(head, "x-tc-token");
    if token != Some(temporary.token.expose()) || temporary.expires <= clock() {
        return Err(failure(
            "AuthFailure.TokenFailure",
            "The token is wrong or has expired.",
        ));
    }
    Ok(())
}

/// The response that `fault` demands in place of the normal one.
async fn fault_response(
    fault: Option<&StsFault>,
    now: Timestamp,
    peer: &WirePeer,
) -> Result<Option<Response<Body>>, Cut> {
    Ok(match fault {
        None | Some(StsFault::Lifetime(_) | StsFault::NullToken | StsFault::WrongTypes) => None,
        Some(StsFault::Down) => return Err(peer.cut()),
        Some(StsFault::Error(code)) => {
            Some(failed((code.clone(), "A fault on demand.".into()), now))
        }
        Some(StsFault::Hang) => std::future::pending().await,
        Some(StsFault::Html) => {
            let text = "<html><body>Please log in</body></html>".to_owned();
            let mut page = Response::new(Body::from(text));
            page.headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            Some(page)
        }
        Some(StsFault::Http500) => {
            let mut broken = Response::new(Body::from("internal server error".to_owned()));
            *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Some(broken)
        }
        Some(StsFault::Huge) => Some(Response::new(Body::from(vec![b' '; HUGE]))),
    })
}

/// Changes a successful response as `fault` demands.
fn corrupt(content: &mut Map<String, Value>, fault: Option<&StsFault>) {
    let Some(Value::Object(credentials)) = content.get_mut("Credentials") else {
        return;
    };
    match fault {
        Some(StsFault::NullToken) => {
            credentials.insert("Token".into(), Value::Null);
        }
        Some(StsFault::WrongTypes) => {
            credentials.insert("TmpSecretId".into(), json!([1]));
            content.insert("ExpiredTime".into(), json!("soon"));
        }
        _ => {}
    }
}

fn require_region(head: &Parts) -> Result<(), StsFailure> {
    if header(head, "x-tc-region").is_none_or(str::is_empty) {
        return Err(failure(
            "MissingParameter",
            "The request is missing the parameter Region.",
        ));
    }
    Ok(())
}

fn duration(
    head: &Parts,
    parameters: &Map<String, Value>,
    default: i64,
    limit: i64,
) -> Result<i64, StsFailure> {
    let wrong = |message: &str| failure("InvalidParameter.ParamError", message);
    let duration = match parameters.get("DurationSeconds") {
        None => default,
        Some(Value::Number(n)) => n.as_i64().unwrap_or(0),
        Some(Value::String(s)) if head.method == Method::GET => s.parse().unwrap_or(0),
        Some(_) => return Err(wrong("DurationSeconds is a number.")),
    };
    if duration < 1 {
        return Err(wrong("DurationSeconds is at least 1."));
    }
    if duration > limit {
        let message = format!("DurationSeconds is at most {limit}.");
        return Err(failure("InvalidParameter.OverTimeError", &message));
    }
    Ok(duration)
}

fn session(parameters: &Map<String, Value>) -> Result<&str, StsFailure> {
    let name = text(parameters, "RoleSessionName")?;
    named("RoleSessionName", name, "_+=,.@-")
}

fn external_id(parameters: &Map<String, Value>) -> Result<Option<&str>, StsFailure> {
    match parameters.get("ExternalId") {
        None => Ok(None),
        Some(_) => named("ExternalId", text(parameters, "ExternalId")?, "_+=,.@:/-").map(Some),
    }
}

/// Checks for 2 to 128 letters, digits and `others`.
fn named<'a>(parameter: &str, name: &'a str, others: &str) -> Result<&'a str, StsFailure> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    if (2..=128).contains(&name.len()) && name.chars().all(is_known) {
        return Ok(name);
    }
    let message = format!("{parameter} is not of its form.");
    Err(failure("InvalidParameter.ParamError", &message))
}

fn check_tags(parameters: &Map<String, Value>) -> Result<(), StsFailure> {
    let within = |tag: &Value, name: &str, max: usize| {
        let text = tag.get(name).and_then(Value::as_str);
        text.is_some_and(|text| text.chars().count() <= max)
    };
    let good = match parameters.get("Tags") {
        None => true,
        Some(Value::Array(tags)) => {
            let is_tag = |tag: &Value| within(tag, "Key", 128) && within(tag, "Value", 256);
            tags.len() <= TAGS_LIMIT && tags.iter().all(is_tag)
        }
        Some(_) => false,
    };
    if good {
        return Ok(());
    }
    Err(failure(
        "InvalidParameter.ParamError",
        "Tags are not of their form.",
    ))
}

/// The parameters: a JSON object, or the query of a GET.
fn parameters(head: &Parts, body: &[u8]) -> Result<Map<String, Value>, StsFailure> {
    let odd = || failure("InvalidParameter", "The parameters cannot be read.");
    match head.method {
        Method::POST => match serde_json::from_slice(body) {
            Ok(Value::Object(parameters)) => Ok(parameters),
            _ => Err(odd()),
        },
        Method::GET => {
            let pairs = head
                .uri
                .query()
                .unwrap_or_default()
                .split('&')
                .filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((name.to_owned(), Value::String(decode_policy(value)?)))
            });
            pairs.collect::<Option<_>>().ok_or_else(odd)
        }
        _ => Err(failure("UnsupportedProtocol", "Only GET and POST.")),
    }
}

fn text<'a>(parameters: &'a Map<String, Value>, name: &str) -> Result<&'a str, StsFailure> {
    let value = parameters.get(name).and_then(Value::as_str);
    value.ok_or_else(|| {
        failure(
            "MissingParameter",
            &format!("The request is missing the parameter {name}."),
        )
    })
}

/// Decodes a policy. The server does this after it has decoded the transport; a `+` becomes a space (1312/48195).
fn decode_policy(text: &str) -> Option<String> {
    String::from_utf8(form_decode(text)?.into_owned()).ok()
}

fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

fn failure(code: &str, message: &str) -> StsFailure {
    (code.to_owned(), message.to_owned())
}

fn fields(json: &Value) -> Map<String, Value> {
    json.as_object().cloned().unwrap_or_default()
}

fn failed((code, message): StsFailure, now: Timestamp) -> Response<Body> {
    json_response(
        fields(&json!({"Error": {"Code": code, "Message": message}})),
        now,
    )
}

/// The response always has status 200, as in Tencent's API 3.0.
fn json_response(mut content: Map<String, Value>, now: Timestamp) -> Response<Body> {
    let request_id = hex(&random(16).unwrap_or_default());
    content.insert("RequestId".into(), request_id.into());
    let mut response = Response::new(Body::from(json!({"Response": content}).to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(date) = HeaderValue::from_str(&now.http_date()) {
        response.headers_mut().insert(DATE, date);
    }
    response
}
