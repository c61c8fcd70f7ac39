//! Session keys: the STS calls that return them, the calls that are refused, and the use of the keys.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::support::http2::{Http2, request};
use crate::support::tokens::{CORP, STRANGER, claims, identity_toml};
use crate::support::{ACME, Authority, Call, Client, Reply, World, element, eventually};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use cosgate::clock::wall_clock;
use cosgate::encoding::hex::{hex, sha256_hex};
use cosgate::encoding::percent::push_encoded;
use cosgate::seal;
use cosgate::secret::Secret;
use cosgate::sign::Signable;
use cosgate::sign::sigv4::{self, CredentialScope, SigningKey};
use cosgate::timestamp::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tempfile::TempDir;

const SECRET: &str = "session-secret-0123456789-0123456789";
const OTHER: &str = "another-secret-0123456789-0123456789";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const ROLE: &str = "&RoleArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Arole%2Fapp&RoleSessionName=app-1";

/// Keys as an SDK reads them.
struct Keys {
    id: String,
    secret: String,
    token: String,
}

fn world_with(server: &str) -> (World, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let identity = identity_toml(&folder);
    let world = World::edited(|toml| {
        let server = format!("[server]\n{server}\n");
        toml.replacen("[server]\n", &server, 1) + &identity
    });
    (world, folder)
}

fn world() -> (World, TempDir) {
    world_with(&format!("session_secret = \"{SECRET}\""))
}

fn post(addr: SocketAddr, form: &str) -> Call {
    Call::new(addr, "POST", "/")
        .header("content-type", FORM)
        .body(form)
}

fn web_identity(addr: SocketAddr, token: &str) -> Call {
    let mut form =
        format!("Action=AssumeRoleWithWebIdentity&Version=2011-06-15{ROLE}&WebIdentityToken=");
    push_encoded(&mut form, token.as_bytes());
    post(addr, &form)
}

/// An STS call with the signature of a local key, as SDKs sign it: without `x-amz-content-sha256`.
pub(crate) fn signed(
    addr: SocketAddr,
    form: &str,
    (id, secret): (&str, &str),
    service: &str,
) -> Call {
    signed_call(post(addr, form), (id, secret), service)
}

fn signed_call(call: Call, (id, secret): (&str, &str), service: &str) -> Call {
    let amz_date = call.time.amz();
    let call = call.header("x-amz-date", &amz_date);
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let request = Signable {
        method: "POST",
        path: b"/",
        query: &[],
        headers: &headers,
    };
    let scope = CredentialScope {
        date: &amz_date[..8],
        region: "us-east-1",
        service,
    };
    let key = SigningKey::derive(&Secret::new(secret), scope.date, scope.region, service);
    let hash = sha256_hex(&call.body);
    let signature = sigv4::SigV4Signer {
        access_key: id,
        key: &key,
        scope: &scope,
        amz_date: &amz_date,
    }
    .authorization(&request, &hash);
    call.header("authorization", &signature)
}

#[track_caller]
fn keys(reply: &Reply) -> Keys {
    let text = reply.assert_ok().text();
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    Keys {
        id: element(&text, "AccessKeyId"),
        secret: element(&text, "SecretAccessKey"),
        token: element(&text, "SessionToken"),
    }
}

/// Asserts an error in the form for STS clients.
#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    let text = reply.text();
    assert_eq!(
        (reply.status, element(&text, "Code").as_str()),
        (status, code),
        "{text}"
    );
    assert!(text.contains("<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"));
    assert!(text.contains("<Type>Sender</Type>"), "{text}");
    assert_eq!(
        Some(element(&text, "RequestId").as_str()),
        reply.header("x-amz-request-id")
    );
    assert!(!text.contains("SecretAccessKey"));
}

impl Keys {
    fn call(&self, addr: SocketAddr, method: &str, path: &str) -> Call {
        Call::new(addr, method, path)
            .header("x-amz-security-token", &self.token)
            .signed_by((&self.id, &self.secret))
    }

    /// A presigned URL with the token in its query.
    fn presigned(&self, addr: SocketAddr, method: &str, path: &str) -> Call {
        let target = format!("{path}?X-Amz-Security-Token={}", self.token);
        Call::new(addr, method, &target)
            .signed_by((&self.id, &self.secret))
            .presigned(300)
    }
}

#[test]
fn token_gives_keys_with_its_permissions() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let reply = web_identity(addr, &CORP.of("alice")).send();
    let alice = keys(&reply);
    let text = reply.text();
    assert_eq!(element(&text, "SubjectFromWebIdentityToken"), "alice");
    assert_eq!(
        element(&text, "Arn"),
        "arn:aws:iam::000000000000:role/app/app-1"
    );
    assert!(element(&text, "Expiration").ends_with('Z'));

    let key = "/photos/users/alice/k";
    let put = alice.call(addr, "PUT", key).body("mine");
    put.fetch().assert_ok();
    assert_eq!(
        alice.call(addr, "GET", key).fetch().assert_ok().text(),
        "mine"
    );
    let url = alice.presigned(addr, "GET", key);
    assert_eq!(url.fetch().assert_ok().text(), "mine");
    for path in [
        "/photos/users/bob/k",
        "/photos/acme/k",
        "/photos/public/k",
        "/photos?prefix=users/b",
    ] {
        alice
            .call(addr, "GET", path)
            .fetch()
            .assert_error(403, "AccessDenied");
    }
    alice
        .presigned(addr, "GET", "/photos/users/bob/k")
        .fetch()
        .assert_error(403, "AccessDenied");

    let log = format!(
        "\"tenant\":\"web/alice\",\"identity\":\"session\",\"key_id\":\"{}\",\"subject\":\"alice\"",
        alice.id
    );
    world.gateway.log.assert_contains(&log);
    world
        .gateway
        .log
        .assert_contains("\"operation\":\"GetObject\"");
    let log = world.gateway.log.text();
    for secret in [&alice.secret, &alice.token] {
        assert!(!log.contains(&**secret), "the log has a secret");
    }
    // Two keys of one subject share its scope.
    let again = keys(&web_identity(addr, &CORP.with(&json!({ "n": 1 }))).send());
    assert_ne!(again.id, alice.id);
    again.call(addr, "GET", key).fetch().assert_ok();
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), 1);
}

#[test]
fn verifies_chunk_signatures_of_session_keys() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let robots =
        keys(&web_identity(addr, &CORP.with(&json!({ "cosgate_tenant": "robots" }))).send());
    let put = robots.call(addr, "PUT", "/photos/robots/k").body("0");
    let chained = put.payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let chained = chained.header("x-amz-decoded-content-length", "1");
    let reply = chained.fetch(); // wrong framing: it was read as signed chunks
    assert!((400..500).contains(&reply.status), "{reply:?}");
    assert_eq!(world.stored("robots/k"), None);
    robots
        .call(addr, "PUT", "/photos/robots/k")
        .body("x")
        .fetch()
        .assert_ok();
}

#[test]
fn local_key_gives_keys_of_its_tenant() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    for form in [
        "Action=GetSessionToken&Version=2011-06-15&DurationSeconds=900".to_owned(),
        format!("Action=AssumeRole&Version=2011-06-15{ROLE}"),
    ] {
        let acme = keys(&signed(addr, &form, ACME, "sts").send());
        acme.call(addr, "PUT", "/photos/acme/k")
            .body("x")
            .fetch()
            .assert_ok();
        let other = acme.call(addr, "GET", "/photos/globex/k").fetch();
        other.assert_error(403, "AccessDenied");
        // The log names the session key for the call and for each request, with the key that requested it.
        let known = format!("\"key_id\":\"{}\",\"session_of\":\"{}\",", acme.id, ACME.0);
        let action = form.split(['=', '&']).nth(1).unwrap();
        for (method, operation) in [("PUT", "PutObject"), ("POST", action)] {
            let line = format!("{known}\"method\":\"{method}\",\"operation\":\"{operation}\"");
            world.gateway.log.assert_contains(&line);
        }
        let elsewhere = signed(addr, &form, ACME, "sts").header("x-forwarded-for", "10.0.0.1");
        assert_refused(&elsewhere.send(), 403, "AccessDenied"); // the connection is not private
        let wrong = signed(addr, &form, (ACME.0, "wrong"), "sts").send();
        assert_refused(&wrong, 403, "SignatureDoesNotMatch");
        let nobody = signed(addr, &form, ("NOBODYKEY00000000001", "wrong"), "sts").send();
        assert_refused(&nobody, 403, "InvalidClientTokenId");
        let s3 = signed(addr, &form, ACME, "s3").send();
        assert_refused(&s3, 400, "AuthorizationHeaderMalformed");
        assert_refused(&post(addr, &form).send(), 403, "MissingAuthenticationToken");
        let changed = signed(addr, &form, ACME, "sts").body(form.replace("Version", "version"));
        assert_ne!(changed.send().status, 200);
        let session = signed(addr, &form, (&acme.id, &acme.secret), "sts");
        let session = session.header("x-amz-security-token", &acme.token).send();
        assert_refused(&session, 403, "AccessDenied");
    }
    // A signature for STS is not valid for S3.
    let get = signed(addr, "", ACME, "sts");
    let mut get = get.header("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    get.method = "GET".into();
    assert_ne!(get.send().status, 200);
}

#[test]
fn session_keys_get_a_cos_key_but_presigned_urls_do_not() {
    let world = World::edited(|toml| {
        let server = format!("[server]\nsession_secret = \"{SECRET}\"\n");
        toml.replacen("[server]\n", &server, 1).replacen(
            "[tenants.acme]\n",
            "[tenants.acme]\nvend = true\n",
            1,
        )
    });
    let (addr, path) = (world.gateway.addr, "/.cosgate/credentials");
    let form = "Action=GetSessionToken&Version=2011-06-15&DurationSeconds=900";
    let acme = keys(&signed(addr, form, ACME, "sts").send());
    let given = acme.call(addr, "POST", path).body("{}").send();
    assert_eq!(given.status, 200, "{}", given.text());
    let form = format!(
        "{}{}",
        form.replace("GetSessionToken", "AssumeRole"),
        of_a_table()
    );
    let table = keys(&signed(addr, &form, ACME, "sts").send());
    let narrow = table.call(addr, "POST", path).body("{}").send();
    assert_eq!(narrow.status, 200, "{}", narrow.text());
    assert_ne!(narrow.text(), given.text());
    assert!(
        narrow.text().contains("\"acme/ns/t/*\""),
        "{}",
        narrow.text()
    );
    let other = r#"{"bucket":"photos","key":"acme/ns/u/x"}"#;
    let other = table.call(addr, "POST", path).body(other).send();
    assert_eq!(other.status, 403, "{}", other.text());
    for link in [
        acme.presigned(addr, "POST", path),
        acme.call(addr, "POST", &format!("{path}?x=y")),
    ] {
        let refused = link.send();
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(refused.text().contains("presigned"));
    }
}

/// SDKs send the content of a token's file with its white space.
#[test]
fn accepts_white_space_around_a_token() {
    let (world, _folder) = world();
    for (before, after) in [("", "\n"), ("", "\r\n"), (" \t", " \n\n")] {
        let token = format!("{before}{}{after}", CORP.of("alice"));
        keys(&web_identity(world.gateway.addr, &token).send());
    }
    for token in ["\n", "", &CORP.of("alice").replacen('.', ".\n", 1)] {
        let reply = web_identity(world.gateway.addr, token).send();
        assert_eq!(reply.status, 400, "{}", reply.text());
    }
}

#[test]
fn rejects_invalid_sts_calls() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let refused = |form: &str, status, code| assert_refused(&post(addr, form).send(), status, code);
    refused("", 400, "ValidationError");
    refused("Action=DecodeAuthorizationMessage", 400, "InvalidAction");
    refused(
        "Action=GetCallerIdentity",
        403,
        "MissingAuthenticationToken",
    );
    refused(
        &format!("Action=AssumeRoleWithWebIdentity{ROLE}"),
        400,
        "ValidationError",
    );
    refused("Action=%zz", 400, "ValidationError");
    let large = post(addr, &"a".repeat(33_000)).send();
    assert_refused(&large, 400, "ValidationError");
    assert!(
        large.text().contains("larger than 32 KiB"),
        "{}",
        large.text()
    );
    let token = |token: &str, more: &str| {
        let call = web_identity(addr, token);
        let form = String::from_utf8(call.body.clone()).unwrap() + more;
        call.body(form).send()
    };
    let good = CORP.of("alice");
    assert_refused(
        &token(&good, "&DurationSeconds=3601"),
        400,
        "ValidationError",
    );
    assert_refused(&token(&good, "&DurationSeconds=60"), 400, "ValidationError");
    for (policy, code) in [
        ("&Policy=%7B%7D".to_owned(), "MalformedPolicyDocument"),
        (
            policy_parameter(
                &json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/acme/*"}),
            ),
            "MalformedPolicyDocument", // it contains nothing of alice
        ),
        (
            policy_parameter(
                &json!({"Effect": "Allow", "Action": "s3:*", "Resource": vec!["arn:aws:s3:::photos/users/alice/a*"; 100]}),
            ),
            "PackedPolicyTooLarge",
        ),
    ] {
        assert_refused(&token(&good, &policy), 400, code);
    }
    assert_refused(&token("x", ""), 400, "InvalidIdentityToken");
    assert_refused(
        &token(&STRANGER.of("alice"), ""),
        400,
        "InvalidIdentityToken",
    );
    let none = CORP.token(&json!({ "alg": "none" }), &claims(&json!({})));
    assert_refused(&token(&none, ""), 400, "InvalidIdentityToken");
    let old = CORP.with(&json!({ "exp": 1 }));
    assert_refused(&token(&old, ""), 400, "ExpiredTokenException");
    assert_refused(&token(&CORP.of("a/../b"), ""), 403, "AccessDenied");
    assert_eq!(world.upstream_requests(), 0);
}

/// `&Policy=` with this statement.
fn policy_parameter(statement: &serde_json::Value) -> String {
    let policy = json!({"Version": "2012-10-17", "Statement": statement});
    let mut form = "&Policy=".to_owned();
    push_encoded(&mut form, policy.to_string().as_bytes());
    form
}

/// The policy of Apache Polaris for a table in the folder `acme/ns/t/`.
fn of_a_table() -> String {
    let (bucket, keys) = ("arn:aws:s3:::photos", "arn:aws:s3:::photos/acme/ns/t/*");
    policy_parameter(&json!([
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"], "Resource": keys},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket, "Condition": {"StringLike": {"s3:prefix": "acme/ns/t/*"}}},
        {"Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": bucket},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": keys},
    ]))
}

#[test]
fn policy_narrows_a_session() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let call = |keys: &Keys, method: &str, path: &str| keys.call(addr, method, path);
    let form = format!("Action=AssumeRole&Version=2011-06-15{ROLE}{}", of_a_table());
    let table = keys(&signed(addr, &form, ACME, "sts").send());
    let own = "Action=GetSessionToken&Version=2011-06-15";
    let whole = keys(&signed(addr, own, ACME, "sts").send());

    let key = "/photos/acme/ns/t/data%2000001.parquet";
    call(&table, "PUT", key).body("rows").fetch().assert_ok();
    assert_eq!(call(&table, "GET", key).fetch().assert_ok().text(), "rows");
    let listing = "/photos?list-type=2&prefix=acme/ns/t/";
    let listed = call(&table, "GET", listing).fetch().assert_ok().text();
    assert!(listed.contains("data 00001.parquet"), "{listed}");
    call(&table, "GET", "/photos?location").fetch().assert_ok();
    let other = "/photos/acme/ns/u/data.parquet";
    call(&whole, "PUT", other)
        .body("theirs")
        .fetch()
        .assert_ok();
    for (method, path) in [
        ("GET", other),
        ("PUT", other),
        ("DELETE", other),
        ("GET", "/photos?list-type=2&prefix=acme/ns/u/"),
        ("GET", "/photos?versions&prefix=acme/ns/t/"),
        ("GET", "/photos/acme/ns/t/data%2000001.parquet?tagging"),
        (
            "DELETE",
            "/photos/acme/ns/t/data%2000001.parquet?versionId=1",
        ),
        ("GET", "/photos/acme/ns/u/x?acl"),
    ] {
        let reply = call(&table, method, path).fetch();
        reply.assert_error(403, "AccessDenied");
    }
    let copy = call(&table, "PUT", "/photos/acme/ns/t/copy");
    let copy = copy.header("x-amz-copy-source", "/photos/acme/ns/u/data.parquet");
    copy.signed_by((&table.id, &table.secret))
        .fetch()
        .assert_error(403, "AccessDenied");
    let link = table.presigned(addr, "GET", other).fetch();
    link.assert_error(403, "AccessDenied");
    assert_eq!(
        call(&whole, "GET", other).fetch().assert_ok().text(),
        "theirs"
    );
    // The session has its own key for COS: one call for the tenant's scope, and one for the session's.
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), 2);
    let again = keys(&signed(addr, &form, ACME, "sts").send());
    call(&again, "GET", key).fetch().assert_ok();
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), 2);
}

/// Nessie names a table's folder in six ways, for tables that spread their files over a bucket. The policy of the
/// key for COS must stay short.
#[test]
fn merges_equal_policy_patterns() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let table = "acme/ns/t";
    let under = |front: &str| format!("arn:aws:s3:::photos/{front}{table}/*");
    let policy = policy_parameter(&json!([
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::photos", "Condition": {"StringLike": {"s3:prefix": [
            table, format!("{table}/*"), format!("*/{table}"), format!("*/{table}/*"),
            format!("*/*/*/*/{table}"), format!("*/*/*/*/{table}/*")]}}},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject"],
         "Resource": [under(""), under("*/"), under("*/*/*/*/")]},
    ]));
    let form = format!("Action=AssumeRole{policy}");
    let keys = keys(&signed(addr, &form, ACME, "sts").send());
    for key in [
        "acme/ns/t/a",
        "acme/0f/acme/ns/t/a",
        "acme/1/2/3/acme/ns/t/a",
    ] {
        let put = keys.call(addr, "PUT", &format!("/photos/{key}"));
        put.body("x").fetch().assert_ok();
    }
    let listing = "/photos?prefix=acme/ns/t/";
    keys.call(addr, "GET", listing).fetch().assert_ok();
    let other = keys.call(addr, "GET", "/photos/acme/ns/u/a").fetch();
    other.assert_error(403, "AccessDenied");
}

#[test]
fn multi_delete_of_a_narrowed_session_keeps_other_keys() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let form = format!("Action=AssumeRole{}", of_a_table());
    let table = keys(&signed(addr, &form, ACME, "sts").send());
    let body = "<Delete><Object><Key>acme/ns/t/a</Key></Object><Object><Key>acme/ns/u/a</Key></Object>\
                <Object><Key>acme/ns/t/b</Key><VersionId>1</VersionId></Object></Delete>";
    let deleted = table
        .call(addr, "POST", "/photos?delete")
        .body(body)
        .fetch();
    let text = deleted.assert_ok().text();
    assert!(text.contains("<Deleted><Key>acme/ns/t/a</Key>"), "{text}");
    assert_eq!(
        text.matches("<Code>AccessDenied</Code>").count(),
        2,
        "{text}"
    );
}

/// Some clients send the call in the query and without a role.
#[test]
fn accepts_sts_calls_in_the_query() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let token = CORP.of("alice");
    let target = format!(
        "/?Action=AssumeRoleWithWebIdentity&DurationSeconds=3600&Version=2011-06-15&WebIdentityToken={token}"
    );
    let reply = Call::new(addr, "POST", &target).send();
    let alice = keys(&reply);
    assert!(!reply.text().contains("AssumedRoleUser"));
    alice
        .call(addr, "PUT", "/photos/users/alice/k")
        .body("x")
        .fetch()
        .assert_ok();
    let log = world.gateway.log.text();
    assert!(!log.contains(&*token), "the log has a token");
}

#[test]
fn returns_the_caller_identity() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    let text = signed(addr, who, ACME, "sts").send().assert_ok().text();
    assert_eq!(element(&text, "Account"), "acme");
    assert_eq!(element(&text, "UserId"), ACME.0);
    assert_eq!(
        element(&text, "Arn"),
        format!("arn:aws:iam::acme:user/{}", ACME.0)
    );
    let form = "Action=GetSessionToken&Version=2011-06-15";
    let session = keys(&signed(addr, form, ACME, "sts").send());
    let by_session = |token: &str| {
        let call = post(addr, who).header("x-amz-security-token", token);
        signed_call(call, (&session.id, &session.secret), "sts").send()
    };
    let text = by_session(&session.token).assert_ok().text();
    assert_eq!(element(&text, "UserId"), session.id);
    assert!(element(&text, "Arn").starts_with("arn:aws:sts::acme:assumed-role/"));
    for secret in [ACME.1, &session.secret, &session.token, "1250000000"] {
        assert!(!text.contains(secret));
    }
    assert_eq!(by_session("x").status, 400);
    let wrong = signed(addr, who, (ACME.0, "wrong"), "sts").send();
    assert_refused(&wrong, 403, "SignatureDoesNotMatch");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn no_session_keys_without_a_session_secret() {
    let (world, _folder) = world_with("");
    let addr = world.gateway.addr;
    let reply = web_identity(addr, &CORP.of("alice")).send();
    assert_refused(&reply, 403, "AccessDenied");
    assert!(reply.text().contains("session_secret"));
    let (issuer, _folder) = self::world();
    let foreign = keys(&web_identity(issuer.gateway.addr, &CORP.of("alice")).send());
    let get = foreign.call(addr, "GET", "/photos/users/alice/k").fetch();
    get.assert_error(400, "InvalidToken");
}

#[test]
fn session_key_needs_its_own_token() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let path = "/photos/users/alice/none";
    let alice = keys(&web_identity(addr, &CORP.of("alice")).send());
    let bob = keys(&web_identity(addr, &CORP.of("bob")).send());
    let with = |id: &str, secret: &str, token: &str| Keys {
        id: id.to_owned(),
        secret: secret.to_owned(),
        token: token.to_owned(),
    };
    let mut damaged = alice.token.clone().into_bytes();
    damaged[30] = if damaged[30] == b'A' { b'B' } else { b'A' };
    let damaged = String::from_utf8(damaged).unwrap();
    for (key, status, code) in [
        (
            with(&bob.id, &bob.secret, &alice.token),
            403,
            "InvalidAccessKeyId",
        ),
        (
            with(&alice.id, &alice.secret, &bob.token),
            403,
            "InvalidAccessKeyId",
        ),
        (
            with(&alice.id, &bob.secret, &alice.token),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            with(&alice.id, &alice.secret, &damaged),
            400,
            "InvalidToken",
        ),
        (with(&alice.id, &alice.secret, "x"), 400, "InvalidToken"),
        (
            with(ACME.0, ACME.1, &alice.token),
            403,
            "InvalidAccessKeyId",
        ),
    ] {
        key.call(addr, "GET", path)
            .fetch()
            .assert_error(status, code);
        key.presigned(addr, "GET", path)
            .fetch()
            .assert_error(status, code);
    }
    // A session key without its token is refused.
    let bare = Call::new(addr, "GET", path).signed_by((&alice.id, &alice.secret));
    bare.fetch().assert_error(403, "InvalidAccessKeyId");
    bare.presigned(60)
        .fetch()
        .assert_error(403, "InvalidAccessKeyId");
    // A token that was added after signing, a second token, and a token on another kind of request.
    let token = format!("x-amz-security-token: {}", alice.token);
    let bare = Call::new(addr, "GET", path).signed_by((&alice.id, &alice.secret));
    bare.fetch_with_line(&token)
        .assert_error(403, "AccessDenied");
    let twice = alice.call(addr, "GET", path);
    twice
        .fetch_with_line(&token)
        .assert_error(400, "InvalidToken");
    let both = alice.presigned(addr, "GET", path);
    both.fetch_with_line(&token)
        .assert_error(400, "InvalidToken");
    let unsigned = Call::new(addr, "GET", "/photos/public/k");
    unsigned
        .fetch_with_line(&token)
        .assert_error(400, "InvalidToken");
    alice
        .call(addr, "GET", path)
        .fetch()
        .assert_error(404, "NoSuchKey");
}

#[test]
fn previous_secret_is_valid_until_it_is_dropped() {
    let (old, _folder) = world();
    let alice = keys(&web_identity(old.gateway.addr, &CORP.of("alice")).send());
    let both = format!("session_secret = \"{OTHER}\"\nprevious_session_secret = \"{SECRET}\"");
    let (rotated, _folder) = world_with(&both);
    let path = "/photos/users/alice/none";
    let reply = alice.call(rotated.gateway.addr, "GET", path).fetch();
    reply.assert_error(404, "NoSuchKey");
    let (dropped, _folder) = world_with(&format!("session_secret = \"{OTHER}\""));
    let reply = alice.call(dropped.gateway.addr, "GET", path).fetch();
    reply.assert_error(400, "InvalidToken");
}

#[test]
fn session_key_expires_on_time() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let reply = web_identity(addr, &CORP.of("alice")).send();
    keys(&reply);
    let text = element(&reply.text(), "Expiration").replace(['-', ':'], "");
    let end = Timestamp::parse_amz(&text).unwrap();
    let left = end.since(wall_clock());
    assert!((3590..=3600).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_sts_over_http2() {
    let authority = Authority::new("ours");
    let folder = tempfile::tempdir().unwrap();
    let tls = authority.tls("") + &identity_toml(&folder);
    let world = World::edited(|toml| {
        let server = format!("[server]\nsession_secret = \"{SECRET}\"\n");
        toml.replacen("[server]\n", &server, 1) + &tls
    });
    let addr = world.gateway.addr;
    let client = Http2::connect(&authority, addr).await;
    let alice = keys(&client.send(&web_identity(addr, &CORP.of("alice"))).await);
    let put = alice.call(addr, "PUT", "/photos/users/alice/k").body("x");
    client.send(&put).await.assert_ok();
    let other = alice.call(addr, "GET", "/photos/users/bob/k");
    client.send(&other).await.assert_error(403, "AccessDenied");
    let stranger = client
        .send(&web_identity(addr, &STRANGER.of("alice")))
        .await;
    assert_refused(&stranger, 400, "InvalidIdentityToken");
    world.gateway.log.assert_contains("\"http\":\"2\"");
    world
        .gateway
        .log
        .assert_contains("\"operation\":\"AssumeRoleWithWebIdentity\"");
}

#[test]
fn sts_respects_addresses_and_limits() {
    let form = "Action=GetSessionToken&Version=2011-06-15";
    let world_of = |acme: &str| {
        World::edited(|toml| {
            let server = format!("[server]\nsession_secret = \"{SECRET}\"\n");
            let toml = toml.replacen("[server]\n", &server, 1);
            toml.replacen("[tenants.acme]", &format!("[tenants.acme]\n{acme}"), 1)
        })
    };
    let elsewhere = world_of("allowed_ips = [\"10.0.0.0/8\"]");
    let call = signed(elsewhere.gateway.addr, form, ACME, "sts");
    assert_refused(&call.send(), 403, "AccessDenied");
    let limited = world_of("limits = { requests_per_second = 1, burst = 1 }");
    let call = signed(limited.gateway.addr, form, ACME, "sts");
    keys(&call.send());
    let again = call.send();
    assert_eq!((again.status, again.code().as_str()), (503, "Throttling"));
}

#[test]
fn session_keys_and_tokens_share_limits() {
    let folder = tempfile::tempdir().unwrap();
    let limits =
        "[templates.web.limits]\nrequests_per_second = 1\nburst = 4\n[[templates.web.grants]]";
    let identity = identity_toml(&folder).replacen("[[templates.web.grants]]", limits, 1);
    let world = World::edited(|toml| {
        let server = format!("[server]\nsession_secret = \"{SECRET}\"\n");
        toml.replacen("[server]\n", &server, 1) + &identity
    });
    let addr = world.gateway.addr;
    let token = CORP.of("alice");
    let (one, other) = (
        keys(&web_identity(addr, &token).send()),
        keys(&web_identity(addr, &token).send()),
    );
    let bearer = Call::new(addr, "GET", "/photos?location");
    let bearer = bearer.header("authorization", &format!("Bearer {token}"));
    let mut served = 0;
    for _ in 0..4 {
        for keys in [&one, &other] {
            let reply = keys.call(addr, "GET", "/photos?location").fetch();
            served += usize::from(reply.status == 200);
        }
        served += usize::from(bearer.fetch().status == 200);
    }
    assert!((2..=3).contains(&served), "{served}"); // two of the calls were for the keys
    bearer.fetch().assert_error(503, "SlowDown");
}

/// If each token were verified twice, each would count twice.
#[test]
fn verifies_a_bad_token_once() {
    let (world, _folder) = world_with("");
    let vend = |token: &str| {
        let call = Call::new(world.gateway.addr, "POST", "/.cosgate/credentials");
        call.header("authorization", &format!("Bearer {token}"))
            .fetch()
    };
    for n in 0..100 {
        let reply = vend(&STRANGER.with(&json!({ "n": n })));
        assert_eq!(reply.status, 400, "{n}: {}", reply.text());
        assert!(reply.text().contains("InvalidToken"), "{}", reply.text());
    }
    assert_eq!(vend(&STRANGER.with(&json!({ "n": 100 }))).status, 503);
}

#[test]
fn delays_callers_after_repeated_failures() {
    let server = "trusted_proxies = [\"127.0.0.1\"]\nallow_plain_bearer = true\n";
    let (world, _folder) = world_with(&format!("{server}session_secret = \"{SECRET}\""));
    let addr = world.gateway.addr;
    let from = |call: Call, address: &str| call.header("x-forwarded-for", address);
    let known = CORP.of("alice");
    let bearer = |token: &str, address: &str| {
        let call = Call::new(addr, "GET", "/photos?location");
        let call = call.header("authorization", &format!("Bearer {token}"));
        from(call, address).fetch()
    };
    let alice = keys(&from(web_identity(addr, &known), "192.0.2.1").send());
    // Tokens for STS and S3 and signed calls count together.
    let form = "Action=GetSessionToken&Version=2011-06-15";
    for n in 0..50 {
        let forged = STRANGER.with(&json!({ "n": n }));
        let call = from(web_identity(addr, &forged), "192.0.2.1");
        assert_refused(&call.send(), 400, "InvalidIdentityToken");
        if n % 2 == 0 {
            bearer(&forged, "192.0.2.1").assert_error(400, "InvalidToken");
        } else {
            let call = signed(addr, form, (ACME.0, "wrong"), "sts");
            let call = from(call, "192.0.2.1").send();
            assert_refused(&call, 403, "SignatureDoesNotMatch");
        }
    }
    let held = from(web_identity(addr, &CORP.of("bob")), "192.0.2.1").send();
    assert_eq!((held.status, held.code().as_str()), (503, "Throttling"));
    assert!(held.text().contains("<Type>Receiver</Type>"));
    assert!(held.header("retry-after").is_some());
    bearer(&CORP.of("bob"), "192.0.2.1").assert_error(503, "SlowDown");
    let call = from(signed(addr, form, ACME, "sts"), "192.0.2.1").send();
    assert_eq!(call.code(), "Throttling");
    // A caller that was verified before needs no check, and other addresses are not limited.
    bearer(&known, "192.0.2.1").assert_ok();
    keys(&from(web_identity(addr, &known), "192.0.2.1").send());
    let get = alice.call(addr, "GET", "/photos?location");
    from(get, "192.0.2.1").fetch().assert_ok();
    let get = Call::new(addr, "GET", "/photos?location").signed_by(ACME);
    from(get, "192.0.2.1").fetch().assert_ok();
    keys(&from(web_identity(addr, &CORP.of("bob")), "192.0.2.2").send());
}

#[test]
fn counts_failures_by_forwarded_address() {
    let server =
        "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\nallow_plain_bearer = true\n";
    let (world, _folder) = world_with(&format!("{server}session_secret = \"{SECRET}\""));
    let addr = world.gateway.addr;
    let behind = |address: &str| {
        let header = format!("PROXY TCP4 {address} 198.51.100.1 50000 443\r\n");
        Client::connect(addr).behind(header.as_bytes())
    };
    let send = |client: &mut Client, call: &Call| {
        client.write(&call.bytes());
        client.read_reply("POST")
    };
    let mut failing = behind("192.0.2.1");
    for n in 0..100 {
        let forged = STRANGER.with(&json!({ "n": n }));
        let refused = send(&mut failing, &web_identity(addr, &forged));
        assert_refused(&refused, 400, "InvalidIdentityToken");
    }
    let good = web_identity(addr, &CORP.of("bob"));
    let held = send(&mut behind("192.0.2.1"), &good);
    assert_eq!((held.status, held.code().as_str()), (503, "Throttling"));
    keys(&send(&mut behind("192.0.2.2"), &good));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsent_forms_do_not_block_the_sts() {
    let authority = Authority::new("ours");
    let folder = tempfile::tempdir().unwrap();
    let limits = "[server.limits]\nstranger_bytes = \"4MiB\"\n";
    let more = authority.tls(limits) + &identity_toml(&folder);
    let world = World::edited(|toml| {
        let server =
            format!("[server]\nsession_secret = \"{SECRET}\"\ntrusted_proxies = [\"127.0.0.1\"]\n");
        toml.replacen("[server]\n", &server, 1) + &more
    });
    let addr = world.gateway.addr;
    // Each form sends only its head. This number uses up the memory for unknown callers.
    let announced = web_identity(addr, &"x".repeat(60_000));
    let mut clients = Vec::new();
    let mut waiting = Vec::new();
    for n in 0..800 {
        if n % 100 == 0 {
            clients.push(Http2::connect(&authority, addr).await);
        }
        let from = format!("198.51.{}.1", n % 40);
        let call = announced.clone().header("x-forwarded-for", &from);
        let client: &Http2 = clients.last().unwrap();
        waiting.push(client.start(request(&call)).await);
    }
    let honest = Http2::connect(&authority, addr).await;
    for n in 0..20 {
        let call = web_identity(addr, &CORP.of(&format!("alice-{n}")));
        let call = call.header("x-forwarded-for", "203.0.113.1");
        keys(&honest.send(&call).await);
    }
    // The forms that were dropped got an error.
    world.gateway.log.assert_contains("\"code\":\"SlowDown\"");
    drop(waiting);
}

#[test]
fn truncated_forms_count_as_failures() {
    let (world, _folder) = world_with(&format!(
        "trusted_proxies = [\"127.0.0.1\"]\nallow_plain_bearer = true\nsession_secret = \"{SECRET}\""
    ));
    let addr = world.gateway.addr;
    let call = |subject: &str, from: &str| {
        web_identity(addr, &CORP.of(subject)).header("x-forwarded-for", from)
    };
    let bytes = call("alice", "192.0.2.1").bytes();
    for _ in 0..100 {
        Client::connect(addr).write(&bytes[..bytes.len() - 10]);
    }
    let mut n = 0;
    eventually("no more are checked", || {
        n += 1; // a token that was valid before would be accepted
        call(&format!("bob-{n}"), "192.0.2.1").send().code() == "Throttling"
    });
    keys(&call("carol", "192.0.2.2").send());
}

/// A new cosgate with the same secret, keys of `[server]`, and keys of the sections `acme` and `web`.
fn restarted(server: &str, acme: &str, web: &str) -> (World, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let grants = "[[templates.web.grants]]";
    let identity = identity_toml(&folder).replacen(grants, &format!("{web}\n{grants}"), 1);
    let world = World::edited(|toml| {
        let server = format!("[server]\nsession_secret = \"{SECRET}\"\n{server}\n");
        let acme = format!("[tenants.acme]\n{acme}\n");
        let toml = toml.replacen("[server]\n", &server, 1);
        toml.replacen("[tenants.acme]\n", &acme, 1) + &identity
    });
    (world, folder)
}

#[test]
fn session_keys_end_with_their_local_key() {
    let (world, _folder) = world();
    let form = "Action=GetSessionToken&Version=2011-06-15";
    let acme = keys(&signed(world.gateway.addr, form, ACME, "sts").send());
    let (same, _folder) = restarted("", "", "");
    assert_eq!(
        acme.call(same.gateway.addr, "GET", "/photos?location")
            .fetch()
            .status,
        200
    );
    let other = World::edited(|toml| {
        let server = format!("[server]\nsession_secret = \"{SECRET}\"\n");
        toml.replacen("[server]\n", &server, 1)
            .replacen(ACME.0, "ACMEKEY0000000000009", 1)
    });
    let reply = acme
        .call(other.gateway.addr, "GET", "/photos?location")
        .fetch();
    assert_eq!((reply.status, reply.code().as_str()), (400, "ExpiredToken"));
}

#[test]
fn revokes_sessions_of_a_tenant_or_subject() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let form = "Action=GetSessionToken&Version=2011-06-15";
    let acme = keys(&signed(addr, form, ACME, "sts").send());
    let alice = keys(&web_identity(addr, &CORP.of("alice")).send());
    let bob = keys(&web_identity(addr, &CORP.of("bob")).send());
    let later = wall_clock().plus(1).iso8601();
    let earlier = wall_clock().plus(-60).iso8601();
    let not_before = |time: &str| format!("sessions_not_before = \"{time}\"");
    let of_alice =
        |time: &str| format!("revoked_sessions = [{{ subject = \"alice\", before = \"{time}\" }}]");
    for (server, tenant, web, revoked) in [
        (
            not_before(&earlier),
            not_before(&earlier),
            of_alice(&earlier),
            [false, false, false],
        ),
        (
            not_before(&later),
            String::new(),
            String::new(),
            [true, true, true],
        ),
        (
            String::new(),
            not_before(&later),
            String::new(),
            [true, false, false],
        ),
        (
            String::new(),
            String::new(),
            not_before(&later),
            [false, true, true],
        ),
        (
            String::new(),
            String::new(),
            of_alice(&later),
            [false, true, false],
        ),
    ] {
        let (world, _folder) = restarted(&server, &tenant, &web);
        let addr = world.gateway.addr;
        for (keys, revoked) in [&acme, &alice, &bob].into_iter().zip(revoked) {
            let calls = [
                keys.call(addr, "GET", "/photos?location"),
                keys.presigned(addr, "GET", "/photos/users/bob/x"),
            ];
            for call in calls {
                let reply = call.fetch();
                assert_eq!(reply.code() == "ExpiredToken", revoked, "{}", reply.text());
                assert_eq!(reply.text().contains("revoked"), revoked);
            }
        }
    }
    // Sessions that are issued afterwards are valid.
    let (world, _folder) = restarted(&not_before(&later), "", "");
    let addr = world.gateway.addr;
    eventually("new keys count", || {
        let fresh = keys(&web_identity(addr, &CORP.of("alice")).send());
        let get = fresh.call(addr, "GET", "/photos?location").fetch();
        get.status == 200
    });
}

/// A browser's form that stores `key`, with a policy signed by session keys.
fn form_of(addr: SocketAddr, keys: &Keys, key: &str, token_in_policy: bool) -> Call {
    let now = wall_clock();
    let (date, day) = (now.amz(), now.date());
    let credential = format!("{}/{day}/ap-guangzhou/s3/aws4_request", keys.id);
    let mut conditions = json!([
        { "bucket": "photos" }, { "key": key }, { "x-amz-date": date },
        { "x-amz-credential": credential }, { "x-amz-algorithm": "AWS4-HMAC-SHA256" },
    ]);
    if token_in_policy {
        let token = json!({ "x-amz-security-token": keys.token });
        conditions.as_array_mut().unwrap().push(token);
    }
    let policy = json!({ "expiration": now.plus(300).iso8601(), "conditions": conditions });
    let policy = BASE64_STANDARD.encode(policy.to_string());
    let secret = Secret::new(keys.secret.as_str());
    let signing = SigningKey::derive(&secret, &day, "ap-guangzhou", "s3");
    let signature = hex(&signing.sign(policy.as_bytes()));
    let mut body = String::new();
    for (name, value) in [
        ("key", key),
        ("policy", &policy),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", &credential),
        ("x-amz-date", &date),
        ("x-amz-security-token", &keys.token),
        ("x-amz-signature", &signature),
        ("file", "from a form"),
    ] {
        let front = "--b\r\nContent-Disposition: form-data; name";
        write!(body, "{front}=\"{name}\"\r\n\r\n{value}\r\n").unwrap();
    }
    Call::new(addr, "POST", "/photos")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body + "--b--\r\n")
}

#[test]
fn accepts_forms_signed_with_session_keys() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let alice = keys(&web_identity(addr, &CORP.of("alice")).send());
    let stored = form_of(addr, &alice, "users/alice/form", true).send();
    assert_eq!(stored.status, 204, "{}", stored.text());
    assert_eq!(
        world.stored("users/alice/form").as_deref(),
        Some("from a form")
    );
    world
        .gateway
        .log
        .assert_contains("\"identity\":\"session\"");
    let before = world.upstream_requests();
    let other = form_of(addr, &alice, "users/bob/form", true).send();
    other.assert_error(403, "AccessDenied");
    // The token is a field like others, so that the policy must contain it.
    let extra = form_of(addr, &alice, "users/alice/form", false).send();
    extra.assert_error(403, "AccessDenied");
    let bob = keys(&web_identity(addr, &CORP.of("bob")).send());
    let mixed = Keys {
        token: bob.token,
        ..alice
    };
    let mixed = form_of(addr, &mixed, "users/alice/form", true).send();
    mixed.assert_error(403, "InvalidAccessKeyId");
    assert_eq!(world.upstream_requests(), before);
}

/// The tenant that tokens name, and the same tenant with a key in place of its identity.
const ROBOTS: &str = "[tenants.robots]\nissuer = \"main\"\n";
const ROBOTS_BY_KEY: &str = "[tenants.robots]\nissuer = \"main\"
access_keys = [{ id = \"ROBOTKEY000000000001\", secret = \"robots-secret\" }]\n";

/// A new cosgate with the same secret and an edited configuration.
fn changed(edit: impl Fn(String) -> String) -> (World, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let identity = identity_toml(&folder);
    let world = World::edited(|toml| {
        let server = format!("[server]\nsession_secret = \"{SECRET}\"\n");
        edit(toml.replacen("[server]\n", &server, 1) + &identity)
    });
    (world, folder)
}

/// Replaces text that must be present.
#[track_caller]
fn swapped(toml: &str, from: &str, to: &str) -> String {
    assert!(toml.contains(from), "{from}");
    toml.replacen(from, to, 1)
}

/// Another provider with the same signing keys.
fn second_identity(toml: &str) -> String {
    let jwks = toml.lines().find(|line| line.starts_with("jwks")).unwrap();
    let head = "[identities.second]\nissuer = \"https://second.example.com/\"\n";
    format!("{toml}\n{head}audience = \"cosgate\"\ntenant_claim = \"cosgate_tenant\"\n{jwks}\n")
}

/// Each change, with its effect on the sessions of acme's key, of a token that names robots, and of alice.
type Change = (&'static str, fn(String) -> String, [bool; 3]);

fn changes_of_tenants_and_keys() -> Vec<Change> {
    vec![
        ("nothing has changed", |toml| toml, [false; 3]),
        (
            "other tenants, keys and providers have come",
            |toml| {
                let more = "access_keys = [{ id = \"ACMEKEY0000000000009\", secret = \"another-secret\" }, { id";
                swapped(&second_identity(&toml), "access_keys = [{ id", more)
            },
            [false; 3],
        ),
        (
            "the tenant has no identity any more",
            |toml| {
                swapped(
                    &toml,
                    &format!("{ROBOTS}identity = \"corp\"\n"),
                    ROBOTS_BY_KEY,
                )
            },
            [false, true, false],
        ),
        (
            "the tenant has another identity",
            |toml| {
                let robots = format!("{ROBOTS}identity = ");
                let (from, to) = (format!("{robots}\"corp\""), format!("{robots}\"second\""));
                swapped(&second_identity(&toml), &from, &to)
            },
            [false, true, false],
        ),
        (
            "the key id is another tenant's, with another secret",
            |toml| {
                let toml = swapped(&toml, "env:ACME_SECRET", "a-secret-of-its-own");
                let (acme, globex) = (ACME.0, "GLOBEXKEY00000000001");
                let toml = swapped(&toml, acme, "MOVED");
                swapped(&swapped(&toml, globex, acme), "MOVED", globex)
            },
            [true, false, false],
        ),
        (
            "the key id is another tenant's, with the same secret",
            |toml| {
                let keys = format!(
                    "access_keys = [{{ id = \"{}\", secret = \"env:ACME_SECRET\" }}]\n",
                    ACME.0
                );
                let toml = swapped(
                    &toml,
                    &keys,
                    "access_keys = [{ id = \"ACMEKEY0000000000009\", secret = \"new\" }]\n",
                );
                swapped(&toml, ROBOTS, &format!("{ROBOTS}{keys}"))
            },
            [true, false, false],
        ),
        (
            "the key has another secret",
            |toml| swapped(&toml, "env:ACME_SECRET", "a-new-secret"),
            [true, false, false],
        ),
    ]
}

fn changes_of_templates_and_identities() -> Vec<Change> {
    vec![
        (
            "the template is bound to another identity",
            |toml| {
                let web = "[templates.web]\nissuer = \"main\"\nidentity = ";
                let (from, to) = (format!("{web}\"corp\""), format!("{web}\"second\""));
                swapped(&second_identity(&toml), &from, &to)
            },
            [false, false, true],
        ),
        (
            "the identity of this name is another provider",
            |toml| {
                swapped(
                    &toml,
                    "https://login.example.com/",
                    "https://other.example.com/",
                )
            },
            [false, true, true],
        ),
        (
            "the tokens are for another audience",
            |toml| swapped(&toml, "audience = \"cosgate\"", "audience = \"another\""),
            [false, true, true],
        ),
        (
            "another claim names the tenant",
            |toml| {
                swapped(
                    &toml,
                    "tenant_claim = \"cosgate_tenant\"",
                    "tenant_claim = \"org\"",
                )
            },
            [false, true, true],
        ),
        (
            "the template is gone",
            |toml| {
                swapped(&toml, "[templates.web]", "[templates.other]")
                    .replace("templates.web.", "templates.other.")
            },
            [false, false, true],
        ),
        (
            "the template's folders are distinguished by another claim",
            |toml| swapped(&toml, "{claim.sub}", "{claim.email}"),
            [false, false, true],
        ),
        (
            "the tenants were removed and others have their names",
            |toml| {
                let toml = swapped(&toml, ACME.0, "ACMEKEY0000000000009");
                swapped(
                    &toml,
                    &format!("{ROBOTS}identity = \"corp\"\n"),
                    ROBOTS_BY_KEY,
                )
            },
            [true, true, false],
        ),
    ]
}

#[test]
fn session_ends_when_its_source_is_not_trusted() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let form = "Action=GetSessionToken&Version=2011-06-15";
    let acme = keys(&signed(addr, form, ACME, "sts").send());
    let robots = json!({ "cosgate_tenant": "robots" });
    let robots = keys(&web_identity(addr, &CORP.with(&robots)).send());
    let alice = keys(&web_identity(addr, &CORP.of("alice")).send());
    let changes = changes_of_templates_and_identities();
    for (what, edit, ends) in changes_of_tenants_and_keys().into_iter().chain(changes) {
        let (world, _folder) = changed(edit);
        let addr = world.gateway.addr;
        for (keys, ends) in [&acme, &robots, &alice].into_iter().zip(ends) {
            let calls = [
                keys.call(addr, "GET", "/photos?location"),
                keys.presigned(addr, "GET", "/photos/elsewhere/k"),
            ];
            for call in calls {
                let reply = call.fetch();
                let has_ended = reply.code() == "ExpiredToken";
                assert_eq!(has_ended, ends, "{what}: {}", reply.text());
            }
        }
        assert_eq!(world.upstream_requests(), 0, "{what}");
    }
}

#[test]
fn session_has_the_current_permissions() {
    let (world, _folder) = world();
    let addr = world.gateway.addr;
    let form = "Action=GetSessionToken&Version=2011-06-15";
    let acme = keys(&signed(addr, form, ACME, "sts").send());
    let alice = keys(&web_identity(addr, &CORP.of("alice")).send());
    for (keys, path) in [(&acme, "/photos/acme/k"), (&alice, "/photos/users/alice/k")] {
        let put = keys.call(addr, "PUT", path).body("x");
        put.fetch().assert_ok();
    }
    let (narrowed, _folder) = changed(|toml| {
        let all = "actions = [\"read\", \"write\", \"list\"]";
        let toml = swapped(
            &toml,
            "prefixes = [\"acme/*\"]",
            "prefixes = [\"acme/in/*\"]",
        );
        toml.replace(all, "actions = [\"read\"]")
    });
    let addr = narrowed.gateway.addr;
    for (keys, method, path, status) in [
        (&acme, "GET", "/photos/acme/k", 403),
        (&acme, "PUT", "/photos/acme/in/k", 403),
        (&acme, "GET", "/photos/acme/in/k", 404),
        (&alice, "PUT", "/photos/users/alice/k", 403),
        (&alice, "GET", "/photos/users/alice/k", 404),
    ] {
        let reply = keys.call(addr, method, path).fetch();
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
    }
}

/// A session token of the previous version, and its key.
fn of_version_1(what: &str) -> Keys {
    let id = "SESSAAAAAAAAAAAAAAAA";
    let end = wall_clock().plus(600).unix();
    let text = format!("{{\"k\":\"{id}\",{what},\"i\":1,\"e\":{end}}}");
    let secret = Secret::new(SECRET);
    let seal = seal::Seal::new(&secret, b"session token").unwrap();
    let sealed = seal.seal(b"cosgate session token 1", text.as_bytes());
    let derived = seal::derive(&secret, b"session secret").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*derived);
    Keys {
        id: id.to_owned(),
        secret: BASE64_STANDARD.encode(hmac::sign(&key, id.as_bytes())),
        token: BASE64_URL_SAFE_NO_PAD.encode(sealed.unwrap()),
    }
}

#[test]
fn accepts_session_tokens_of_the_previous_version() {
    let acme = of_version_1(&format!("\"w\":{{\"n\":\"acme\"}},\"p\":\"{}\"", ACME.0));
    let robots = of_version_1("\"w\":{\"n\":\"robots\"},\"s\":\"r\"");
    let alice = of_version_1("\"w\":{\"t\":[\"web\",[[\"sub\",\"alice\"]]]},\"s\":\"alice\"");
    let location = |world: &World, keys: &Keys| {
        let get = keys.call(world.gateway.addr, "GET", "/photos?location");
        get.fetch()
    };
    let (same, _folder) = changed(|toml| toml);
    for keys in [&acme, &robots, &alice] {
        location(&same, keys).assert_ok();
    }
    let other = alice.call(same.gateway.addr, "GET", "/photos/users/bob/k");
    other.fetch().assert_error(403, "AccessDenied");
    let (moved, _folder) = changed(|toml| {
        let toml = swapped(&toml, ACME.0, "MOVED");
        let toml = swapped(&toml, "GLOBEXKEY00000000001", ACME.0);
        let toml = swapped(&toml, "MOVED", "GLOBEXKEY00000000001");
        let robots = format!("{ROBOTS}identity = \"corp\"\n");
        let toml = swapped(&toml, &robots, ROBOTS_BY_KEY);
        swapped(&toml, "[templates.web]", "[templates.other]")
            .replace("templates.web.", "templates.other.")
    });
    for keys in [&acme, &robots, &alice] {
        location(&moved, keys).assert_error(400, "ExpiredToken");
    }
}
