//! The calls that make keys, as text.
//!
//! <https://www.tencentcloud.com/document/product/1312/48195>,
//! <https://www.tencentcloud.com/document/product/1312/48197>

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::config::{Role, WebIdentity};
use crate::credentials::names::{audit_name, session_name};
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
/// The `Authorization` of an unsigned call, as Tencent's SDKs send it.
const UNSIGNED: &str = "SKIP";

/// One call, ready to be sent: `POST /` with these headers and this body.
pub struct StsCall {
    /// Lower-case names and values, `host` and `authorization` included.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body, as it was hashed.
    pub body: Zeroizing<String>,
}

/// Its signature could be sent again for some minutes, and its body may hold a token: the names of the
/// headers are enough.
impl fmt::Debug for StsCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("StsCall")
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// Where STS is.
#[derive(Clone, Copy, Debug)]
pub struct StsEndpoint<'a> {
    /// The `Host`, its port included where the endpoint has one.
    pub host: &'a str,
    /// `X-TC-Region`
    pub region: &'a str,
}

/// Who calls, and where.
#[derive(Clone, Copy, Debug)]
pub struct StsCaller<'a> {
    /// Where STS is.
    pub endpoint: StsEndpoint<'a>,
    /// The issuer's own `SecretId`.
    pub secret_id: &'a str,
    /// The issuer's own `SecretKey`.
    pub secret_key: &'a Secret,
    /// `X-TC-Token`, when that key is a temporary one.
    pub token: Option<&'a Secret>,
}

impl StsCall {
    /// Requests a key that `policy` (plain compact JSON) fences, signed at Tencent's time `now`.
    pub fn federation_token(
        caller: &StsCaller<'_>,
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

    /// Requests a key of `role`, which `policy` (plain compact JSON) narrows if there is one.
    pub fn assume_role(
        caller: &StsCaller<'_>,
        role: &Role,
        tenant: &str,
        policy: Option<&str>,
        now: Timestamp,
    ) -> Self {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        put("RoleArn", role.arn.as_str().into());
        let session = session_name(&role.session_name, tenant);
        put("RoleSessionName", session.into());
        put("DurationSeconds", role.duration.as_secs().into());
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

    /// Requests a key of the role of `web` with `token`, which its provider has issued. The call has no
    /// signature, and STS takes no policy with it.
    pub fn web_identity(
        endpoint: &StsEndpoint<'_>,
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
        let mut headers = headers(endpoint, WEB_IDENTITY, now);
        headers.push(("authorization", UNSIGNED.to_owned()));
        Self {
            headers,
            body: Zeroizing::new(body.to_string()),
        }
    }

    fn signed(caller: &StsCaller<'_>, action: &'static str, body: String, now: Timestamp) -> Self {
        let call = tc3::ApiCall {
            method: "POST",
            host: caller.endpoint.host,
            service: SERVICE,
            content_type: CONTENT_TYPE,
            query: "",
            payload: body.as_bytes(),
            time: now,
        };
        let key = tc3::ApiSigningKey::derive(caller.secret_key, &now.date_dashed(), SERVICE);
        let mut headers = headers(&caller.endpoint, action, now);
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

fn headers(
    endpoint: &StsEndpoint<'_>,
    action: &str,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    vec![
        ("host", endpoint.host.to_owned()),
        ("content-type", CONTENT_TYPE.to_owned()),
        ("x-tc-action", action.to_owned()),
        ("x-tc-version", VERSION.to_owned()),
        ("x-tc-timestamp", now.unix().to_string()),
        ("x-tc-region", endpoint.region.to_owned()),
    ]
}

/// STS decodes the policy once more than the transport does, so it is encoded once more.
fn encoded(policy: &str) -> String {
    let mut encoded = String::with_capacity(3 * policy.len());
    push_encoded(&mut encoded, policy.as_bytes());
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::error::StsError;
    use super::*;

    const NOW: i64 = 1_768_480_245;

    #[test]
    fn signs_calls_as_the_vectors_do() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/tc3.json")).unwrap();
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
        let caller = StsCaller {
            endpoint: StsEndpoint {
                host: text("host"),
                region: text("region"),
            },
            secret_id: text("secret_id"),
            secret_key: &secret_key,
            token: None,
        };
        let request = StsCall::federation_token(
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
        let call = tc3::ApiCall {
            method: "POST",
            host: caller.endpoint.host,
            service: SERVICE,
            content_type: header("content-type"),
            query: "",
            payload: request.body.as_bytes(),
            time: now,
        };
        let claim = tc3::ApiClaim::parse(header("authorization")).unwrap();
        assert_eq!(claim.secret_id, caller.secret_id);
        assert_eq!(claim.verify(&call, &secret_key, now), Ok(()));
    }

    #[test]
    fn assumes_roles_as_the_vectors_do() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/tc3.json")).unwrap();
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
            let caller = StsCaller {
                endpoint: StsEndpoint {
                    host: case["host"].as_str().unwrap(),
                    region: case["region"].as_str().unwrap(),
                },
                secret_id: case["secret_id"].as_str().unwrap(),
                secret_key: &secret_key,
                token: token.as_ref(),
            };
            let now = Timestamp::from_unix(case["timestamp"].as_i64().unwrap());
            let policy = policy.as_deref();
            let call = StsCall::assume_role(&caller, &role, "", policy, now);
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
    fn sends_a_web_identity_unsigned_and_hides_its_token() {
        let web = WebIdentity {
            provider_id: "OIDC".into(),
            token_file: "/token".into(),
            role_arn: "qcs::cam::uin/1:roleName/r".into(),
            session_name: "cosgate-{tenant}".into(),
            duration: Duration::from_hours(2),
        };
        let now = Timestamp::from_unix(NOW);
        let endpoint = StsEndpoint {
            host: "sts",
            region: "r",
        };
        let token = Secret::new("CANARY");
        let call = StsCall::web_identity(&endpoint, &web, &token, "web/alice", now);
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
        let code = "InvalidParameter.WebIdentityTokenError";
        let error = StsError::from_code(code, "token CANARY", "r");
        assert!(!error.to_string().contains("CANARY"));
    }
}
