//! Issuing temporary keys.

use cosgate::emulator::{EmulatorConfig, EmulatorRole};
use cosgate::secret::Secret;
use serde_json::{Value, json};

use crate::client::{
    BUCKET, Credential, TestRequest, account, emulator, emulator_with, federation, now, policy,
    sts, temporary_key,
};

#[expect(
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]
fn code(emulator: &cosgate::emulator::Emulator, key: &Credential, body: &Value) -> String {
    let (reply, json) = sts(emulator.sts_addr(), key, "GetFederationToken", body, now());
    assert_eq!(reply.status, 200);
    json["Error"]["Code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn some_policy() -> Value {
    policy(&["name/cos:GetObject"], &[&format!("{BUCKET}/t1/*")])
}

#[test]
fn key_response_has_tencents_form() {
    let emulator = emulator();
    let body = federation(&some_policy());
    let (reply, json) = sts(
        emulator.sts_addr(),
        &account(),
        "GetFederationToken",
        &body,
        now(),
    );
    assert_eq!(reply.status, 200);
    assert!(reply.header("date").is_some());
    let expires = json["ExpiredTime"].as_i64().unwrap();
    assert!((1795..=1805).contains(&(expires - now().unix())));
    assert!(json["Expiration"].as_str().unwrap().ends_with('Z'));
    assert!(json["RequestId"].is_string());
    let token = json["Credentials"]["Token"].as_str().unwrap();
    assert!((400..=1700).contains(&token.len()), "{}", token.len());
    assert_eq!(emulator.counters().counts().sts_by_name["acme"], 1);
    assert_eq!(emulator.issued_keys().len(), 1);
}

#[test]
fn reports_identity_of_any_key() {
    let emulator = emulator();
    let temporary = temporary_key(&emulator, &some_policy());
    for key in [account(), temporary] {
        let (_, json) = sts(
            emulator.sts_addr(),
            &key,
            "GetCallerIdentity",
            &json!({}),
            now(),
        );
        assert_eq!(json["AccountId"], "100000000001", "{json}");
    }
}

#[test]
fn rejects_callers_with_wrong_signatures() {
    let emulator = emulator();
    let body = federation(&some_policy());
    let stranger = Credential {
        id: "AKIDnobody".into(),
        ..account()
    };
    assert_eq!(
        code(&emulator, &stranger, &body),
        "AuthFailure.SecretIdNotFound"
    );
    let impostor = Credential {
        secret: Secret::new("guess"),
        ..account()
    };
    assert_eq!(
        code(&emulator, &impostor, &body),
        "AuthFailure.SignatureFailure"
    );
    let temporary = temporary_key(&emulator, &some_policy());
    assert_eq!(
        code(&emulator, &temporary, &body),
        "FailedOperation.TempKeyNotAllowed"
    );
    let tokenless = Credential {
        token: None,
        ..temporary
    };
    assert_eq!(
        code(&emulator, &tokenless, &body),
        "AuthFailure.TokenFailure"
    );
    for skew in [-310, 310] {
        let (_, json) = sts(
            emulator.sts_addr(),
            &account(),
            "GetFederationToken",
            &body,
            now().plus(skew),
        );
        assert_eq!(json["Error"]["Code"], "AuthFailure.SignatureExpire");
    }
    let unsigned = TestRequest::new("POST", "/")
        .body("{}")
        .send(emulator.sts_addr());
    assert!(unsigned.text().contains("AuthFailure.SignatureFailure"));
}

#[test]
fn rejects_invalid_parameters() {
    let emulator = emulator_with(EmulatorConfig {
        policy_limit: 1000,
        ..EmulatorConfig::default()
    });
    let with = |field: &str, value: Value| {
        let mut body = federation(&some_policy());
        body[field] = value;
        code(&emulator, &account(), &body)
    };
    assert_eq!(with("DurationSeconds", json!(1)), "");
    assert_eq!(with("DurationSeconds", json!(129_600)), "");
    assert_eq!(
        with("DurationSeconds", json!(129_601)),
        "InvalidParameter.OverTimeError"
    );
    assert_eq!(
        with("DurationSeconds", json!(0)),
        "InvalidParameter.ParamError"
    );
    assert_eq!(with("Name", json!("acme_1")), "InvalidParameter.ParamError");
    assert_eq!(with("Name", json!("cos-sts-python")), "");
    assert_eq!(
        with("Policy", json!("{")),
        "InvalidParameter.StrategyFormatError"
    );
    assert_eq!(
        with("Policy", json!("undefined")),
        "InvalidParameter.StrategyFormatError"
    );
    assert_eq!(
        with("Policy", json!("%zz")),
        "InvalidParameter.StrategyFormatError"
    );
    assert_eq!(with("Policy", Value::Null), "MissingParameter");
    let policy_code = |policy: &Value| code(&emulator, &account(), &federation(policy));
    let odd = json!({"version": "2.0", "statement": [{"effect": "Allow", "action": "*", "resource": "*"}]});
    assert_eq!(policy_code(&odd), "InvalidParameter.StrategyInvalid");
    let foreign = json!({"version": "2.0", "statement": [{"effect": "allow", "action": ["name/cos:GetObject"],
        "resource": ["qcs::cos:ap-guangzhou:uid/1250000001:b-1250000001/*"]}]});
    assert_eq!(policy_code(&foreign), "InvalidParameter.GrantOtherResource");
    let long = policy(
        &["name/cos:GetObject"],
        &[&format!("{BUCKET}/{}", "k".repeat(1000))],
    );
    assert_eq!(policy_code(&long), "InvalidParameter.PolicyTooLong");
}

#[test]
fn decodes_a_policy_in_a_get_twice() {
    use cosgate::encoding::percent::push_encoded;
    use cosgate::sign::tc3;
    let emulator = emulator();
    let mut policy = String::new();
    let encoded = federation(&some_policy())["Policy"]
        .as_str()
        .unwrap()
        .to_owned();
    push_encoded(&mut policy, encoded.as_bytes());
    let query = format!("DurationSeconds=900&Name=acme&Policy={policy}");
    let (key, time, host) = (account(), now(), "sts.tencentcloudapi.com");
    let call = tc3::ApiCall {
        method: "GET",
        host,
        service: "sts",
        content_type: "application/x-www-form-urlencoded",
        query: &query,
        payload: b"",
        time,
    };
    let signing = tc3::ApiSigningKey::derive(&key.secret, &time.date_dashed(), "sts");
    let reply = TestRequest::new("GET", &format!("/?{query}"))
        .header("host", host)
        .header("content-type", call.content_type)
        .header("x-tc-action", "GetFederationToken")
        .header("x-tc-version", "2018-08-13")
        .header("x-tc-region", "ap-guangzhou")
        .header("x-tc-timestamp", &time.unix().to_string())
        .header(
            "authorization",
            &tc3::authorization(&call, &key.id, &signing),
        )
        .send(emulator.sts_addr());
    assert!(reply.text().contains("TmpSecretKey"), "{}", reply.text());
}

/// A call in the older form, as the COS STS SDKs make it. `host` is signed and may differ from the real one.
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
fn form_call(
    emulator: &cosgate::emulator::Emulator,
    key: &Credential,
    host: &str,
    parameters: &[(&str, &str)],
) -> Value {
    use base64::Engine as _;
    use cosgate::encoding::percent::push_encoded;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let time = now().unix().to_string();
    let mut all = vec![
        ("Nonce", "12345"),
        ("Region", "ap-guangzhou"),
        ("SecretId", &key.id),
        ("Timestamp", &time),
        ("Version", "2018-08-13"),
    ];
    all.extend(key.token.as_deref().map(|token| ("Token", token)));
    all.extend(parameters);
    all.sort_unstable();
    let pairs: Vec<_> = (all.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    let text = format!("POST{host}/?{}", pairs.join("&"));
    let secret = key.secret.expose().as_bytes();
    let mac = if all.contains(&("SignatureMethod", "HmacSHA256")) {
        let mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
        mac.chain_update(text).finalize().into_bytes().to_vec()
    } else {
        let mac = Hmac::<sha1::Sha1>::new_from_slice(secret).unwrap();
        mac.chain_update(text).finalize().into_bytes().to_vec()
    };
    let signature = base64::prelude::BASE64_STANDARD.encode(mac);
    all.push(("Signature", &signature));
    let mut body = String::new();
    for (name, value) in all {
        body.push_str(name);
        body.push('=');
        push_encoded(&mut body, value.as_bytes());
        body.push('&');
    }
    let reply = TestRequest::new("POST", "/")
        .header("host", "127.0.0.1:9101")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .send(emulator.sts_addr());
    assert_eq!(reply.status, 200);
    serde_json::from_slice::<Value>(&reply.body).unwrap()["Response"].clone()
}

#[test]
fn serves_the_older_form_of_calls_strictly() {
    let arn = "qcs::cam::uin/100000000001:roleName/r";
    let emulator = emulator_with(EmulatorConfig {
        roles: vec![EmulatorRole {
            arn: arn.to_owned(),
            external_id: None,
            web_identity: None,
        }],
        ..EmulatorConfig::default()
    });
    let policy = some_policy().to_string();
    let federation = [
        ("Action", "GetFederationToken"),
        ("DurationSeconds", "900"),
        ("Name", "cos-sts-java"),
        ("Policy", &policy),
    ];
    let shown = |key: &Credential, host, parameters: &[_]| {
        let json = form_call(&emulator, key, host, parameters);
        let code = json["Error"]["Code"].as_str().unwrap_or_default();
        (code.to_owned(), json)
    };
    // The Java SDK always signs STS's own name. The others sign the host that they are configured with.
    for host in ["127.0.0.1:9101", "127.0.0.1", "sts.tencentcloudapi.com"] {
        let (code, json) = shown(&account(), host, &federation);
        assert_eq!(code, "", "{json}");
        let left = json["ExpiredTime"].as_i64().unwrap() - now().unix();
        assert!((895..=905).contains(&left), "{left}");
    }
    let role = [
        ("Action", "AssumeRole"),
        ("RoleArn", arn),
        ("RoleSessionName", "cos-sts-java"),
        ("SignatureMethod", "HmacSHA256"),
    ];
    let (code, json) = shown(&account(), "sts.tencentcloudapi.com", &role);
    assert_eq!(code, "", "{json}");

    let failure = "AuthFailure.SignatureFailure";
    let host = "sts.tencentcloudapi.com";
    assert_eq!(shown(&account(), "sts.example.com", &federation).0, failure);
    let impostor = Credential {
        secret: Secret::new("guess"),
        ..account()
    };
    assert_eq!(shown(&impostor, host, &federation).0, failure);
    let temporary = temporary_key(&emulator, &some_policy());
    let (code, _) = shown(&temporary, host, &federation);
    assert_eq!(code, "FailedOperation.TempKeyNotAllowed");
    let tokenless = Credential {
        token: None,
        ..temporary
    };
    let (code, _) = shown(&tokenless, host, &federation);
    assert_eq!(code, "AuthFailure.TokenFailure");
    let undefined = [
        ("Action", "GetFederationToken"),
        ("Name", "cos"),
        ("Policy", "undefined"),
    ];
    let (code, _) = shown(&account(), host, &undefined);
    assert_eq!(code, "InvalidParameter.StrategyFormatError");
}

/// The codes of `AssumeRole` after these changes to a valid body, on an account with one role.
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
fn role_code(action: &str, change: &Value) -> String {
    let arn = "qcs::cam::uin/100000000001:roleName/r";
    let emulator = emulator_with(EmulatorConfig {
        keys: vec![(account().id, account().secret)],
        roles: vec![EmulatorRole {
            arn: arn.to_owned(),
            external_id: Some("ext:1".to_owned()),
            web_identity: None,
        }],
        ..EmulatorConfig::default()
    });
    let mut body = json!({"RoleArn": arn, "RoleSessionName": "acme", "ExternalId": "ext:1"});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    let (reply, json) = sts(emulator.sts_addr(), &account(), action, &body, now());
    assert_eq!(reply.status, 200);
    json["Error"]["Code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn assumes_roles_as_documented() {
    let wrong = "InvalidParameter.ParamError";
    let tag = json!({"Key": "k", "Value": "v"});
    for (change, code) in [
        (json!({}), ""),
        (
            json!({"DurationSeconds": 43_200, "Tags": [tag], "SourceIdentity": "1"}),
            "",
        ),
        (
            json!({"DurationSeconds": 43_201}),
            "InvalidParameter.OverTimeError",
        ),
        (json!({"DurationSeconds": 0}), wrong),
        (json!({"DurationSeconds": "7200"}), wrong),
        (json!({"RoleSessionName": "a"}), wrong),
        (json!({"RoleSessionName": "a/b"}), wrong),
        (json!({"RoleSessionName": "a".repeat(129)}), wrong),
        (json!({"ExternalId": "a b"}), wrong),
        (json!({"ExternalId": "ext:2"}), "UnauthorizedOperation"),
        (
            json!({"RoleArn": "qcs::cam::uin/1:roleName/none"}),
            "ResourceNotFound.RoleNotFound",
        ),
        (json!({"Tags": vec![tag; 51]}), wrong),
        (
            json!({"Tags": [{"Key": "k".repeat(129), "Value": "v"}]}),
            wrong,
        ),
        (
            json!({"Policy": "{"}),
            "InvalidParameter.StrategyFormatError",
        ),
    ] {
        assert_eq!(role_code("AssumeRole", &change), code, "{change}");
    }
    assert_eq!(
        role_code("AssumeRoleWithWebIdentity", &json!({})),
        "AuthFailure.SignatureFailure",
        "it is called without a signature"
    );
}
