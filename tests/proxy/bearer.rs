//! Callers with a token of an identity provider: which tokens are valid, what each subject may access, and how
//! keys change.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::tokens::{CORP, STRANGER, claims, encoded, identity_toml, identity_with};
use crate::support::{
    self, Act, Call, Gateway, Reply, Script, World, act, element, elements, eventually,
};
use cosgate::clock::wall_clock;
use cosgate::observe::admin;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// cosgate that accepts tokens; the folder contains `jwks.json`.
fn world() -> (World, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(&identity_toml(&folder));
    (world, folder)
}

fn call(addr: SocketAddr, method: &str, path: &str, token: &str) -> Call {
    Call::new(addr, method, path).header("authorization", &format!("Bearer {token}"))
}

fn send(world: &World, method: &str, path: &str, token: &str) -> Reply {
    call(world.gateway.addr, method, path, token).fetch()
}

/// Asserts that `token` is refused with this code and a text with `why`, without a request to COS.
#[track_caller]
fn assert_refused(world: &World, token: &str, status: u16, code: &str, why: &str) {
    let before = world.upstream_requests();
    let reply = send(world, "GET", "/photos/users/alice/k", token);
    reply.assert_error(status, code);
    assert!(
        reply.text().contains(why),
        "{why} is not in {}",
        reply.text()
    );
    if token.len() > 40 {
        assert!(
            !reply.text().contains(token),
            "the response contains the token"
        );
    }
    assert_eq!(world.upstream_requests(), before);
}

#[test]
fn accepts_every_algorithm() {
    let (world, _folder) = world();
    for (algorithm, key) in [("RS256", "r1"), ("ES256", "e1"), ("EdDSA", "o1")] {
        let header = json!({ "alg": algorithm, "kid": key });
        let token = CORP.token(&header, &claims(&json!({ "sub": algorithm })));
        let path = format!("/photos/users/{algorithm}/k");
        let put = call(world.gateway.addr, "PUT", &path, &token).body("mine");
        put.fetch().assert_ok();
        assert_eq!(
            send(&world, "GET", &path, &token).assert_ok().text(),
            "mine"
        );
        assert_eq!(
            world.stored(&format!("users/{algorithm}/k")).as_deref(),
            Some("mine")
        );
        let path = format!("/photos?list-type=2&prefix=users/{algorithm}/");
        let listed = send(&world, "GET", &path, &token);
        assert_eq!(
            elements(&listed.text(), "Key"),
            [format!("users/{algorithm}/k")]
        );
        let log = format!(
            "\"tenant\":\"web/{algorithm}\",\"identity\":\"bearer\",\"subject\":\"{algorithm}\""
        );
        world.gateway.log.assert_contains(&log);
        assert!(
            !world.gateway.log.text().contains(&token[..60]),
            "the log has the token"
        );
    }
    // A token is verified once, and a key is fetched once for each subject.
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), 3);
}

#[test]
fn verifies_declared_hashes_of_bodies() {
    let (world, _folder) = world();
    let token = CORP.of("alice");
    let put = || call(world.gateway.addr, "PUT", "/photos/users/alice/k", &token).body("whole");
    put()
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .fetch()
        .assert_ok();
    let hash = cosgate::encoding::hex::sha256_hex(b"whole");
    put()
        .header("x-amz-content-sha256", &hash)
        .fetch()
        .assert_ok();
    let wrong = cosgate::encoding::hex::sha256_hex(b"other");
    let wrong = put().header("x-amz-content-sha256", &wrong).fetch();
    wrong.assert_error(400, "XAmzContentSHA256Mismatch");
    let wrong = put()
        .header("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")
        .fetch();
    wrong.assert_error(400, "BadDigest");
    let chained = put()
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .fetch();
    assert!((400..500).contains(&chained.status), "{chained:?}");
    assert_eq!(world.stored("users/alice/k").as_deref(), Some("whole"));
}

#[test]
fn isolates_subjects() {
    let (world, _folder) = world();
    let (alice, bob) = (CORP.of("alice"), CORP.of("bob"));
    let secret = call(world.gateway.addr, "PUT", "/photos/users/alice/k", &alice);
    secret.body("secret").fetch().assert_ok();
    let before = world.upstream_requests();
    for (method, path) in [
        ("GET", "/photos/users/alice/k"),
        ("HEAD", "/photos/users/alice/k"),
        ("PUT", "/photos/users/alice/k"),
        ("DELETE", "/photos/users/alice/k"),
        ("GET", "/photos/users/bob/../alice/k"),
        ("GET", "/photos/users/bob/%2e%2e/alice/k"),
        ("GET", "/photos/users/Bob/k"),
        ("GET", "/photos/users/bob2/k"),
        ("GET", "/photos/acme/k"),
        ("GET", "/photos/robots/k"),
        ("GET", "/photos?prefix=users/a"),
        ("GET", "/photos?prefix=users/alice/"),
    ] {
        let reply = send(&world, method, path, &bob);
        assert!(
            (400..404).contains(&reply.status),
            "{method} {path}: {reply:?}"
        );
    }
    let copy = call(world.gateway.addr, "PUT", "/photos/users/bob/k", &bob)
        .header("x-amz-copy-source", "/photos/users/alice/k");
    copy.fetch().assert_error(403, "AccessDenied");
    let delete = call(world.gateway.addr, "POST", "/photos?delete", &bob)
        .body("<Delete><Object><Key>users/alice/k</Key></Object></Delete>");
    assert_eq!(element(&delete.fetch().text(), "Code"), "AccessDenied");
    assert_eq!(world.upstream_requests(), before);
    assert_eq!(world.stored("users/alice/k").as_deref(), Some("secret"));
}

#[test]
fn template_gives_each_subject_its_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = "prefixes = [\"users/{claim.sub}/*\"]";
    let identity = identity_toml(&folder);
    assert!(identity.contains(prefix));
    let root = "root = \"users/{claim.sub}/\"";
    let world = World::with(&identity.replace(prefix, root));
    let (alice, bob) = (CORP.of("alice"), CORP.of("bob"));
    for (token, subject) in [(&alice, "alice"), (&bob, "bob")] {
        let put = call(world.gateway.addr, "PUT", "/photos/k", token);
        put.body(subject).fetch().assert_ok();
        let real = format!("users/{subject}/k");
        assert_eq!(world.stored(&real).as_deref(), Some(subject));
    }
    for token in [&alice, &bob] {
        let list = send(&world, "GET", "/photos?list-type=2", token);
        let text = list.assert_ok().text();
        assert_eq!(elements(&text, "Key"), ["k"], "{text}");
        assert!(!text.contains("users/"), "{text}");
    }
    send(&world, "GET", "/photos/users/alice/k", &bob).assert_error(404, "NoSuchKey");
    let before = world.upstream_requests();
    for path in ["/photos/../alice/k", "/photos/%2e%2e/alice/k"] {
        let reply = send(&world, "GET", path, &bob);
        assert!((400..404).contains(&reply.status), "{path}: {reply:?}");
    }
    assert_eq!(world.upstream_requests(), before);
}

/// A template with more keys.
fn template_with(more: &str) -> (World, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let identity = identity_toml(&folder);
    let grants = "[[templates.web.grants]]";
    let more = format!("{more}\n{grants}");
    (World::with(&identity.replacen(grants, &more, 1)), folder)
}

#[test]
fn limits_subjects_across_tokens() {
    let limits = "requests_per_second = 1\nburst = 3\nobject_size = \"1KiB\"";
    let (world, _folder) = template_with(&format!("[templates.web.limits]\n{limits}"));
    let alice = |n: u32| {
        let token = CORP.with(&json!({ "sub": "alice", "n": n })); // each token is different
        send(&world, "GET", "/photos?location", &token).status
    };
    let served = (0..8).filter(|n| alice(*n) == 200).count();
    assert!((3..=4).contains(&served), "{served}");
    let refused = send(&world, "GET", "/photos?location", &CORP.of("alice"));
    refused.assert_error(503, "SlowDown");
    let bob = CORP.of("bob");
    send(&world, "GET", "/photos?location", &bob).assert_ok();
    let large = call(world.gateway.addr, "PUT", "/photos/users/bob/k", &bob);
    let large = large.body("x".repeat(1025)).fetch();
    large.assert_error(400, "EntityTooLarge");
    let metric = "cosgate_limited_requests_total";
    assert!(world.gateway.metric(metric, "rate") >= 4);
}

#[test]
fn counts_requests_in_flight_per_subject() {
    let (world, _folder) =
        template_with("[templates.web.limits]\nconcurrent_requests = 1\nupload_rate = \"64KiB\"");
    let path = "/photos/users/alice/k";
    let probe = |subject: &str, n: u32| {
        let token = CORP.with(&json!({ "sub": subject, "n": n }));
        send(&world, "GET", "/photos?location", &token).status
    };
    let upload = call(world.gateway.addr, "PUT", path, &CORP.of("alice"));
    let upload = upload.header("content-length", "1000");
    let mut client = support::Client::connect(world.gateway.addr);
    client.write(&upload.head());
    eventually("the place is taken", || probe("alice", 1) == 503);
    assert_eq!((probe("alice", 2), probe("bob", 1)), (503, 200));
    drop(client);
    eventually("the place is free", || probe("alice", 3) == 200);
}

#[test]
fn template_limits_addresses_of_its_subjects() {
    let (world, _folder) = template_with("allowed_ips = [\"10.0.0.0/8\"]");
    let before = world.upstream_requests();
    let reply = send(&world, "GET", "/photos/users/alice/k", &CORP.of("alice"));
    reply.assert_error(403, "AccessDenied");
    assert!(reply.text().contains("<Message>Access Denied.</Message>"));
    let log = "127.0.0.1 is not in allowed_ips of the tenant web/alice";
    world.gateway.log.assert_contains(log);
    assert_eq!(world.upstream_requests(), before);
    // The tenant that a token names has its own rules.
    let robot = CORP.with(&json!({ "cosgate_tenant": "robots" }));
    let path = "/photos/robots/k";
    send(&world, "GET", path, &robot).assert_error(404, "NoSuchKey");
    let (here, _folder) = template_with("allowed_ips = [\"127.0.0.1\"]");
    let reply = send(&here, "GET", "/photos/users/alice/k", &CORP.of("alice"));
    reply.assert_error(404, "NoSuchKey");
}

#[test]
fn listing_without_a_prefix_shows_only_own_keys() {
    let (world, _folder) = world();
    for subject in ["alice", "bob"] {
        let path = format!("/photos/users/{subject}/k");
        let put = call(world.gateway.addr, "PUT", &path, &CORP.of(subject));
        put.body("x").fetch().assert_ok();
    }
    let list = send(&world, "GET", "/photos?list-type=2", &CORP.of("alice"));
    let text = list.assert_ok().text();
    assert_eq!(elements(&text, "Key"), ["users/alice/k"], "{text}");
    let before = world.upstream_requests();
    let list = "/photos?list-type=2&delimiter=/&prefix=users/";
    let list = send(&world, "GET", list, &CORP.of("bob"));
    let text = list.assert_ok().text();
    assert_eq!(
        element(&text, "CommonPrefixes"),
        "<Prefix>users/bob/</Prefix>"
    );
    assert_eq!(world.upstream_requests(), before);
}

#[test]
fn rejects_subjects_that_are_no_path_segment() {
    let (world, _folder) = world();
    for subject in [
        "a/../b",
        "..",
        ".",
        "a*",
        "*",
        "a?",
        "?",
        "a/b",
        "/",
        "a\\b",
        "${a}",
        "{claim.sub}",
        "a b",
        "a\"",
        "a'",
        "a\n",
        "a\u{0}",
        "%2e%2e",
        "ａ",
        "é",
    ] {
        assert_refused(&world, &CORP.of(subject), 403, "AccessDenied", "claim sub");
    }
    assert_refused(&world, &CORP.of(""), 403, "AccessDenied", "claim sub");
    for more in [
        json!({ "sub": null }),
        json!({ "sub": 7 }),
        json!({ "sub": ["alice"] }),
    ] {
        assert_refused(&world, &CORP.with(&more), 403, "AccessDenied", "claim sub");
    }
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), 0);
}

/// Subjects of real providers, letter by letter: in keys, in the policy of the key, and in its condition.
#[test]
fn accepted_subjects_work_at_cosgate_and_cos() {
    let (world, _folder) = world();
    for (subject, path) in [
        (
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "auth0%7C5f7c8ec7c33c6c004bbafe82",
        ),
        (
            "system:serviceaccount:ns:app",
            "system%3Aserviceaccount%3Ans%3Aapp",
        ),
        ("a.b+c=d@example-x_y.com", "a.b%2Bc%3Dd%40example-x_y.com"),
        ("...", "..."),
    ] {
        let token = CORP.of(subject);
        let key = format!("/photos/users/{path}/k");
        let put = call(world.gateway.addr, "PUT", &key, &token).body("mine");
        put.fetch().assert_ok();
        assert_eq!(
            world.stored(&format!("users/{subject}/k")).as_deref(),
            Some("mine")
        );
        assert_eq!(send(&world, "GET", &key, &token).assert_ok().text(), "mine");
        let list = format!("/photos?list-type=2&prefix=users%2F{path}%2F");
        let listed = send(&world, "GET", &list, &token);
        assert_eq!(
            elements(&listed.assert_ok().text(), "Key"),
            [format!("users/{subject}/k")]
        );
    }
}

#[test]
fn rejects_invalid_tokens() {
    let (world, _folder) = world();
    let now = wall_clock().unix();
    let signed_as = |header: &Value| CORP.token(header, &claims(&json!({})));
    let refused = |token: &str, why: &str| assert_refused(&world, token, 400, "InvalidToken", why);

    refused(&signed_as(&json!({ "alg": "none" })), "alg");
    refused(&signed_as(&json!({ "alg": "none", "kid": "r1" })), "alg");
    refused(&signed_as(&json!({ "alg": "HS256", "kid": "r1" })), "alg");
    refused(&signed_as(&json!({ "alg": "RS256", "kid": "e1" })), "kid");
    refused(&signed_as(&json!({ "alg": "ES256", "kid": "r1" })), "kid");
    refused(
        &signed_as(&json!({ "alg": "ES256", "kid": "e1", "crit": ["x"], "x": 1 })),
        "crit",
    );
    refused(&signed_as(&json!({ "alg": "ES256", "kid": "e9" })), "kid");

    // Signed with another key, which the token contains.
    let jwk: Value = serde_json::from_str(&STRANGER.jwks("1")).unwrap();
    for header in [
        json!({ "alg": "ES256", "kid": "e1" }),
        json!({ "alg": "ES256", "kid": "e1", "jwk": jwk["keys"][1] }),
        json!({ "alg": "ES256", "jwk": jwk["keys"][1] }),
        json!({ "alg": "RS256", "kid": "r1", "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/" }),
    ] {
        refused(&STRANGER.token(&header, &claims(&json!({}))), "signature");
    }

    for (more, why) in [
        (json!({ "iss": "https://login.example.com" }), "iss and aud"),
        (json!({ "iss": null }), "iss and aud"),
        (
            json!({ "iss": ["https://login.example.com/"] }),
            "iss and aud",
        ),
        (json!({ "aud": "other" }), "iss and aud"),
        (json!({ "aud": null }), "iss and aud"),
        (json!({ "aud": ["other"] }), "iss and aud"),
        (json!({ "exp": null }), "no exp"),
        (json!({ "exp": "soon" }), "numbers of seconds"),
        (json!({ "nbf": now + 120 }), "not valid yet"),
        (json!({ "iat": now + 120 }), "not valid yet"),
    ] {
        refused(&CORP.with(&more), why);
    }
    let expired = CORP.with(&json!({ "exp": now - 61 }));
    assert_refused(&world, &expired, 400, "ExpiredToken", "expired");

    let good = CORP.of("alice");
    let [header, body, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = encoded(claims(&json!({ "sub": "bob" })).to_string().as_bytes());
    refused(&format!("{header}.{other}.{signature}"), "signature");
    refused(
        &format!("{header}.{body}.{}", encoded(&[0; 64])),
        "signature",
    );
    refused(&format!("{header}.{body}."), "signature");
    refused(&format!("{header}.{body}"), "three parts");
    refused(&format!("{good}="), "three parts");
    refused("x", "three parts");
    let twice = r#"{"iss":"https://login.example.com/","aud":"cosgate","sub":"alice","sub":"bob","exp":9999999999}"#;
    refused(
        &CORP.raw(r#"{"alg":"ES256","kid":"e1"}"#, twice),
        "distinct",
    );
    refused(&CORP.with(&json!({ "long": "x".repeat(6200) })), "8192");
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), 0);
}

#[test]
fn rejects_a_token_after_it_expires() {
    let (world, _folder) = world();
    let token = CORP.with(&json!({ "exp": wall_clock().unix() - 57 }));
    let status = || send(&world, "GET", "/photos/users/alice/none", &token).status;
    assert_eq!(status(), 404);
    eventually("it is refused", || status() == 400);
}

#[test]
fn rejects_two_kinds_of_credentials() {
    let (world, _folder) = world();
    let token = CORP.of("alice");
    let presigned = world.signed("GET", "/photos/acme/k").presigned(60);
    let both = presigned.header("authorization", &format!("Bearer {token}"));
    both.fetch().assert_error(400, "InvalidArgument");
    let signed = world.signed("GET", "/photos/acme/k");
    let both = signed.fetch_with_line(&format!("authorization: Bearer {token}"));
    both.assert_error(400, "InvalidArgument");
    let twice = call(world.gateway.addr, "GET", "/photos/users/alice/k", &token);
    let twice = twice.header("authorization", &format!("Bearer {token}"));
    twice.fetch().assert_error(400, "InvalidArgument");
    let session = call(world.gateway.addr, "GET", "/photos/users/alice/k", &token);
    let session = session.header("x-amz-security-token", "x");
    session.fetch().assert_error(400, "InvalidToken");
    // An invalid token does not make its bearer the anonymous tenant.
    send(&world, "GET", "/photos/public/k", "x").assert_error(400, "InvalidToken");
    let lower = Call::new(world.gateway.addr, "GET", "/photos/users/alice/none");
    let lower = lower.header("authorization", &format!("bEARER {token}"));
    lower.fetch().assert_error(404, "NoSuchKey");
}

#[test]
fn rejects_tokens_without_an_identity() {
    let world = World::new();
    let reply = send(&world, "GET", "/photos/acme/k", &CORP.of("alice"));
    reply.assert_error(400, "InvalidArgument");
    assert!(reply.text().contains("[identities.NAME]"));
}

#[test]
fn claim_selects_a_tenant_of_the_identity() {
    let (world, _folder) = world();
    let named = |name: Value| CORP.with(&json!({ "cosgate_tenant": name }));
    let robots = named("robots".into());
    let put = call(world.gateway.addr, "PUT", "/photos/robots/k", &robots);
    put.body("beep").fetch().assert_ok();
    world
        .gateway
        .log
        .assert_contains("\"tenant\":\"robots\",\"identity\":\"bearer\",\"subject\":\"alice\"");
    send(&world, "GET", "/photos/users/alice/k", &robots).assert_error(403, "AccessDenied");
    // acme does not accept this identity. A claim that is present is never ignored.
    for name in [
        json!("acme"),
        json!("ROBOTS"),
        json!(""),
        json!(1),
        json!(null),
        json!("web/alice"),
    ] {
        let mut all = claims(&json!({}));
        all["cosgate_tenant"] = name;
        let token = CORP.token(&json!({ "alg": "ES256", "kid": "e1" }), &all);
        assert_refused(&world, &token, 403, "AccessDenied", "cosgate_tenant");
    }
}

#[test]
fn reloads_a_changed_key_file() {
    let (world, folder) = world();
    let old = CORP.of("alice");
    let status = |token: &str| send(&world, "GET", "/photos/users/alice/none", token).status;
    assert_eq!(status(&old), 404);
    std::fs::write(folder.path().join("jwks.json"), "{").unwrap();
    let header = json!({ "alg": "ES256", "kid": "e2" });
    assert_eq!(
        status(&CORP.token(&header, &claims(&json!({})))),
        400,
        "it cannot be read"
    );
    assert_eq!(status(&old), 404, "the keys that were there still serve");
    std::fs::write(folder.path().join("jwks.json"), STRANGER.jwks("2")).unwrap();
    let new = STRANGER.token(&header, &claims(&json!({})));
    // A file is read at most once a second.
    eventually("a token of a new key is taken", || status(&new) == 404);
    assert_eq!(status(&old), 400, "a token that was good goes with its key");
}

/// A provider's key set over HTTP: its responses, and the number of requests.
struct KeyServer {
    script: Script,
    response: Arc<Mutex<Option<String>>>,
}

impl KeyServer {
    fn new() -> Self {
        let response = Arc::new(Mutex::new(None::<String>));
        let shown = Arc::clone(&response);
        let serve: Act = act(move |peer| {
            if peer.head().is_some() {
                let response = shown.lock().unwrap().clone();
                if let Some(response) = response {
                    peer.respond(&response);
                }
            }
        });
        Self {
            script: Script::new(vec![serve]),
            response,
        }
    }

    fn respond_with(&self, status: u16, body: &str) {
        let response = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        *self.response.lock().unwrap() = Some(response);
    }

    fn world(&self) -> World {
        let jwks = format!("http://{}/keys.json", self.script.addr);
        World::with(&identity_with(&jwks))
    }

    fn requests(&self) -> usize {
        self.script.heads().len()
    }
}

#[test]
fn fetches_keys_from_a_url_once() {
    let server = KeyServer::new();
    server.respond_with(200, &CORP.jwks("1"));
    let world = server.world();
    let all: Vec<_> = (0..8)
        .map(|n| {
            call(
                world.gateway.addr,
                "GET",
                "/photos/users/u/none",
                &CORP.with(&json!({ "sub": "u", "n": n })),
            )
        })
        .map(|call| std::thread::spawn(move || call.send().status))
        .collect();
    for one in all {
        assert_eq!(one.join().unwrap(), 404);
    }
    assert_eq!(server.requests(), 1);
    assert!(server.script.heads()[0].starts_with("GET /keys.json HTTP/1.1\r\n"));
    // No client can cause more than one request in ten seconds.
    for kid in 0..20 {
        let header = json!({ "alg": "ES256", "kid": format!("made-up-{kid}") });
        let token = STRANGER.token(&header, &claims(&json!({})));
        assert_refused(&world, &token, 400, "InvalidToken", "kid");
    }
    assert_eq!(server.requests(), 1);
}

#[test]
fn fetches_a_new_key_that_a_token_names() {
    let server = KeyServer::new();
    server.respond_with(200, &CORP.jwks("1"));
    let world = server.world();
    let status = |token: &str| send(&world, "GET", "/photos/users/alice/none", token).status;
    assert_eq!(status(&CORP.of("alice")), 404);
    let rotated = Instant::now();
    server.respond_with(200, &STRANGER.jwks("2"));
    let new = STRANGER.token(&json!({ "alg": "RS256", "kid": "r2" }), &claims(&json!({})));
    eventually("the new key is found", || status(&new) == 404);
    assert!(rotated.elapsed() < Duration::from_secs(15));
    assert_eq!(server.requests(), 2);
    assert_eq!(status(&CORP.of("alice")), 400, "the old key is gone");
}

#[test]
fn keeps_known_keys_while_the_url_fails() {
    for (status, body) in [
        (500, "{}".to_owned()),
        (302, STRANGER.jwks("2")),
        (200, "<html>".to_owned()),
        (200, r#"{"keys":[]}"#.to_owned()),
        (
            200,
            format!("{}{}", STRANGER.jwks("2"), " ".repeat(300 * 1024)),
        ),
    ] {
        let server = KeyServer::new();
        server.respond_with(200, &CORP.jwks("1"));
        let jwks = format!("http://{}/keys.json", server.script.addr);
        let toml = identity_with(&jwks).replacen("jwks =", "refresh = \"10s\"\njwks =", 1);
        let world = World::with(&toml);
        let send = |token: &str| send(&world, "GET", "/photos/users/alice/none", token).status;
        assert_eq!(send(&CORP.of("alice")), 404);
        server.respond_with(status, &body);
        let new = STRANGER.token(&json!({ "alg": "ES256", "kid": "e2" }), &claims(&json!({})));
        assert_eq!(send(&new), 400);
        assert_eq!(send(&CORP.of("bob")), 403, "bob has another folder");
        assert_eq!(send(&CORP.of("alice")), 404);
    }
}

#[test]
fn limits_the_wait_for_a_silent_key_url() {
    let server = KeyServer::new();
    let world = server.world();
    let started = Instant::now();
    let why = "corp cannot be reached";
    assert_refused(&world, &CORP.of("alice"), 503, "ServiceUnavailable", why);
    assert!(started.elapsed() < Duration::from_secs(9));
}

/// The response of `/readyz`.
fn readyz(world: &World) -> (u16, String) {
    let keys = world.gateway.shared.tenants().key_states(wall_clock());
    let readiness = admin::Readiness {
        is_draining: false,
        parts: keys.iter().map(admin::identity_part).collect(),
    };
    let page = admin::readyz(&Method::GET, false, &readiness);
    (page.status().as_u16(), page.into_body())
}

#[test]
fn provider_outage_affects_only_its_callers() {
    let server = KeyServer::new();
    server.respond_with(500, "{}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("second.json");
    std::fs::write(&file, CORP.jwks("1")).unwrap();
    let second = format!(
        "[identities.second]\nissuer = \"https://second.example.com/\"\naudience = \"cosgate\"\n\
         tenant_claim = \"cosgate_tenant\"\njwks = \"file:{}\"\n",
        file.display()
    );
    let jwks = format!("http://{}/keys.json", server.script.addr);
    let identity = identity_with(&jwks).replacen(
        "[tenants.robots]\nissuer = \"main\"\nidentity = \"corp\"",
        "[tenants.robots]\nissuer = \"main\"\nvend = true\nidentity = \"second\"",
        1,
    );
    let world = World::edited(|toml| {
        let secret = "[server]\nsession_secret = \"session-secret-0123456789-0123456789\"\n";
        toml.replacen("[server]\n", secret, 1) + &identity + &second
    });
    let addr = world.gateway.addr;
    let sts = |token: &str| {
        let form = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=app\
                    &RoleArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Arole%2Fapp&WebIdentityToken=";
        Call::new(addr, "POST", "/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("{form}{token}"))
            .send()
    };
    let vend = |token: &str| call(addr, "POST", "/.cosgate/credentials", token).send();
    let of_second = |n: u32| {
        let more =
            json!({ "iss": "https://second.example.com/", "cosgate_tenant": "robots", "n": n });
        CORP.with(&more)
    };
    // More failures than the limit for unknown callers: these callers are known.
    for n in 0..120 {
        let reply = send(
            &world,
            "GET",
            "/photos/users/alice/k",
            &CORP.with(&json!({ "n": n })),
        );
        reply.assert_error(503, "ServiceUnavailable");
        assert!(reply.header("retry-after").is_some());
        let text = reply.text();
        assert!(text.contains("corp cannot be reached"), "{text}");
        assert!(!text.contains(&server.script.addr.to_string()), "{text}");
    }
    let refused = sts(&CORP.of("alice"));
    let code = element(&refused.text(), "Code");
    assert_eq!(
        (refused.status, code.as_str()),
        (503, "IDPCommunicationError")
    );
    assert!(refused.text().contains("<Type>Receiver</Type>"));
    assert_eq!(vend(&CORP.of("alice")).status, 503);
    assert_eq!(
        readyz(&world),
        (
            200,
            "ok\nidentity corp: keys not read since the start, tokens get 503\n".to_owned()
        )
    );
    let usable = |name| world.gateway.metric("cosgate_identity_keys_usable", name);
    assert_eq!((usable("corp"), usable("second")), (0, 1));
    // Other callers are served at their first token.
    send(&world, "GET", "/photos?location", &of_second(1)).assert_ok();
    sts(&of_second(2)).assert_ok();
    assert_eq!(vend(&of_second(3)).status, 200);
    let made_up = CORP.token(
        &json!({ "alg": "ES256", "kid": "made-up" }),
        &claims(&json!({ "iss": "https://second.example.com/" })),
    );
    assert_refused(&world, &made_up, 400, "InvalidToken", "kid");
    world
        .gateway
        .log
        .assert_contains("identities.corp: its keys have not been read since the start");
    server.respond_with(200, &CORP.jwks("1"));
    eventually("the provider is back", || {
        send(&world, "GET", "/photos/users/alice/k", &CORP.of("alice")).status == 404
    });
    assert_eq!(readyz(&world), (200, "ok\n".to_owned()));
    sts(&CORP.of("alice")).assert_ok();
}

#[test]
fn expires_keys_of_an_unreachable_provider() {
    let server = KeyServer::new();
    server.respond_with(200, &CORP.jwks("1"));
    let jwks = format!("http://{}/keys.json", server.script.addr);
    let keys = "refresh = \"10s\"\nmax_key_age = \"20s\"\njwks =";
    let world = World::with(&identity_with(&jwks).replacen("jwks =", keys, 1));
    let path = "/photos/users/alice/none";
    let (known, started) = (CORP.of("alice"), Instant::now());
    send(&world, "GET", path, &known).assert_error(404, "NoSuchKey");
    server.respond_with(500, "{}");
    let mut good = 0;
    loop {
        let reply = send(&world, "GET", path, &known);
        if reply.status == 503 {
            break;
        }
        reply.assert_error(404, "NoSuchKey");
        good += 1;
        assert!(started.elapsed() < Duration::from_secs(30), "never too old");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(good > 5 && started.elapsed() >= Duration::from_secs(19));
    let why = "corp cannot be reached";
    assert_refused(&world, &CORP.of("bob"), 503, "ServiceUnavailable", why);
    // An unknown key may be a new one.
    let new = STRANGER.token(&json!({ "alg": "ES256", "kid": "e2" }), &claims(&json!({})));
    assert_refused(&world, &new, 503, "ServiceUnavailable", why);
    assert!(
        readyz(&world)
            .1
            .starts_with("ok\nidentity corp: keys not read for 2")
    );
    server.respond_with(200, &CORP.jwks("1"));
    eventually("the same keys are read again", || {
        send(&world, "GET", path, &known).status == 404
    });
    assert_refused(&world, &new, 400, "InvalidToken", "kid");
}

#[test]
fn evicts_the_least_recently_used_entry() {
    let folder = tempfile::tempdir().unwrap();
    let more = format!("[credentials]\nentries = 3\n{}", identity_toml(&folder));
    let world = World::with(&more);
    let use_as = |subject: &str| {
        let path = format!("/photos/users/{subject}/none");
        send(&world, "GET", &path, &CORP.of(subject)).assert_error(404, "NoSuchKey");
    };
    let calls = || world.gateway.metric("cosgate_sts_calls_total", "ok");
    for subject in ["a", "b", "c", "a"] {
        use_as(subject);
    }
    assert_eq!(calls(), 3);
    use_as("d"); // evicts b: it is the oldest, because a was used twice
    use_as("a");
    use_as("c");
    assert_eq!(calls(), 4);
    use_as("b");
    assert_eq!(calls(), 5);
    use_as("a");
    assert_eq!(calls(), 5, "who is at work stays");
    let (kept, evicted) = world.gateway.shared.credentials().scopes();
    assert_eq!((kept, evicted), (3, 2));
}

#[test]
fn flood_of_subjects_evicts_no_other_keys() {
    let folder = tempfile::tempdir().unwrap();
    let more = format!("[credentials]\nentries = 20\n{}", identity_toml(&folder));
    let world = World::with(&more);
    let get = |subject: &str| {
        let path = format!("/photos/users/{subject}/none");
        send(&world, "GET", &path, &CORP.of(subject)).status
    };
    for subject in ["alice", "bob", "alice", "bob"] {
        assert_eq!(get(subject), 404);
    }
    for n in 0..60 {
        assert_eq!(get(&format!("new{n}")), 404);
    }
    let calls = world.gateway.metric("cosgate_sts_calls_total", "ok");
    assert_eq!((get("alice"), get("bob")), (404, 404));
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), calls);
    assert!(world.gateway.shared.credentials().scopes().0 <= 20);
    // A tenant of the configuration is not in this table.
    assert_eq!(world.fetch("GET", "/photos/acme/none").status, 404);
}

#[test]
fn rejects_tokens_over_remote_plain_http() {
    let Some(outside) = outside_address() else {
        return; // this machine has loopback only
    };
    let folder = tempfile::tempdir().unwrap();
    let emulator = support::emulator();
    let identity = identity_toml(&folder);
    let toml = support::toml(emulator.cos_addr(), emulator.sts_addr(), &identity);
    for (more, status, code) in [
        ("", 403, "AccessDenied"),
        ("allow_plain_bearer = true\n", 404, "NoSuchKey"),
    ] {
        let server = format!("[server]\n{more}");
        let gateway = Gateway::start_on(outside, &toml.replacen("[server]\n", &server, 1));
        let reply = call(
            gateway.addr,
            "GET",
            "/photos/users/alice/none",
            &CORP.of("alice"),
        )
        .fetch();
        reply.assert_error(status, code);
    }
}

/// An address of this machine other than loopback.
fn outside_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?; // sends nothing
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
