//! Temporary keys for clients, over sockets: who gets one, what it allows at COS itself, and which requests are
//! refused.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::tokens::{CORP, identity_toml};
use crate::support::{self, ACME, BUCKET, Call, Client, GLOBEX, Reply, World};
use cosgate::emulator::{Emulator, Faults, StsFault};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::Instant;

const PATH: &str = "/.cosgate/credentials";
const TOKEN: &str = "acme-container-token-0000000000";

/// A world in which the tenant acme vends keys.
fn world() -> World {
    world_with("vend = true\nvend_duration = \"40m\"\n")
}

fn world_with(vend: &str) -> World {
    let emulator = support::emulator();
    let mut token = NamedTempFile::new().unwrap();
    writeln!(token, "{TOKEN}").unwrap();
    let tokens = if vend.is_empty() {
        String::new()
    } else {
        format!("vend_tokens = [\"file:{}\"]\n", token.path().display())
    };
    let toml = support::toml(emulator.cos_addr(), emulator.sts_addr(), "").replacen(
        "[tenants.acme]\n",
        &format!("[tenants.acme]\n{vend}{tokens}"),
        1,
    );
    let gateway = support::Gateway::start(&toml);
    World { gateway, emulator }
}

fn sent(call: &Call) -> Reply {
    call.send()
}

fn by_token(world: &World, token: &str) -> Reply {
    sent(&Call::new(world.gateway.addr, "GET", PATH).header("authorization", token))
}

fn send(world: &World, body: &Value) -> Reply {
    sent(&world.signed("POST", PATH).body(body.to_string()))
}

fn sts_calls(world: &World) -> u64 {
    world.emulator.counters().counts().sts_calls
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// A key that is used at COS without the proxy.
struct Key {
    id: String,
    secret: String,
    token: String,
}

impl Key {
    fn of(reply: &Reply) -> Self {
        assert_eq!(
            reply.status,
            200,
            "{}",
            String::from_utf8_lossy(&reply.body)
        );
        let json = json_of(reply);
        let text = |sdk: &str, aws: &str| {
            let found = json.pointer(sdk).or_else(|| json.pointer(aws));
            found.and_then(Value::as_str).unwrap().to_owned()
        };
        Self {
            id: text("/credentials/tmpSecretId", "/AccessKeyId"),
            secret: text("/credentials/tmpSecretKey", "/SecretAccessKey"),
            token: text("/credentials/sessionToken", "/Token"),
        }
    }

    fn status(&self, emulator: &Emulator, method: &str, target: &str) -> u16 {
        let host = format!("{BUCKET}.cos.ap-guangzhou.myqcloud.com");
        let call = Call::new(emulator.cos_addr(), method, target)
            .header("host", &host)
            .header("x-amz-security-token", &self.token)
            .signed_by((&self.id, &self.secret));
        sent(&call).status
    }
}

#[test]
fn token_gets_the_key_of_its_tenant() {
    let world = world();
    let reply = by_token(&world, TOKEN);
    let key = Key::of(&reply);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert!(
        json_of(&reply)["Expiration"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(key.status(&world.emulator, "PUT", "/acme/a"), 200);
    assert_eq!(key.status(&world.emulator, "GET", "/acme/a"), 200);
    for (method, target) in [("GET", "/globex/a"), ("PUT", "/globex/a"), ("GET", "/")] {
        assert_eq!(
            key.status(&world.emulator, method, target),
            403,
            "{method} {target}"
        );
    }
    // The same key while enough of its lifetime is left.
    assert_eq!(Key::of(&by_token(&world, TOKEN)).id, key.id);
    assert_eq!(world.emulator.counters().counts().sts_calls, 1);
    assert_eq!(world.gateway.metric("cosgate_keys_vended_total", ""), 2);
    world
        .gateway
        .log
        .assert_contains("\"operation\":\"VendCredentials\"");
    let log = world.gateway.log.text();
    assert!(
        log.contains("\"identity\":\"vend-token\"") && log.contains("\"tenant\":\"acme\""),
        "{log}"
    );
    for secret in [&key.id, &key.secret, &key.token, TOKEN] {
        assert!(!log.contains(secret));
    }
}

#[test]
fn narrows_a_key_and_never_widens_it() {
    let world = world();
    let body =
        json!({"bucket": "photos", "key": "acme/one.jpg", "allowActions": ["name/cos:PutObject"]});
    let reply = send(&world, &body);
    let key = Key::of(&reply);
    let scope = &json_of(&reply)["scopes"][0];
    assert_eq!(
        (&scope["bucket"], &scope["prefixes"][0]),
        (&json!(BUCKET), &json!("acme/one.jpg"))
    );
    let life =
        |json: &Value| json["expiredTime"].as_i64().unwrap() - json["startTime"].as_i64().unwrap();
    assert_eq!(life(&json_of(&reply)), 2400);
    assert_eq!(key.status(&world.emulator, "PUT", "/acme/one.jpg"), 200);
    for (method, target) in [
        ("GET", "/acme/one.jpg"),
        ("PUT", "/acme/two.jpg"),
        ("DELETE", "/acme/one.jpg"),
    ] {
        assert_eq!(
            key.status(&world.emulator, method, target),
            403,
            "{method} {target}"
        );
    }
    let folder = json!({"bucket": "photos", "allowPrefix": "acme/in/*", "durationSeconds": 1800});
    let reply = send(&world, &folder);
    assert_eq!(life(&json_of(&reply)), 1800);
    let key = Key::of(&reply);
    assert_eq!(key.status(&world.emulator, "PUT", "/acme/in/x"), 200);
    assert_eq!(key.status(&world.emulator, "PUT", "/acme/x"), 403);
    for (body, status) in [
        (json!({"bucket": "photos", "key": "globex/x"}), 403),
        (json!({"bucket": "photos", "allowPrefixes": ["*"]}), 403),
        (
            json!({"bucket": "photos", "allowActions": ["PutObjectACL"]}),
            403,
        ),
        (json!({"bucket": "else"}), 403),
        (json!({"bucket": "photos", "allowActions": ["*"]}), 400),
        (json!({"durationSeconds": 60}), 400),
        (json!({"durationSeconds": 7200}), 400),
        (json!({"policy": {}}), 400),
        (json!("x".repeat(20_000)), 400),
    ] {
        let reply = send(&world, &body);
        assert_eq!(reply.status, status, "{body}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(json_of(&reply)["code"].is_string());
    }
}

#[test]
fn refuses_keys_to_other_callers() {
    let world = world();
    let plain = |method: &str| Call::new(world.gateway.addr, method, PATH);
    let refusals = [
        (by_token(&world, "acme-container-token-0000000001"), 403),
        (by_token(&world, &format!("Bearer {TOKEN}")), 403),
        (sent(&plain("GET")), 403),
        (sent(&plain("POST")), 403),
        (sent(&world.signed("GET", PATH)), 403),
        (sent(&plain("POST").header("authorization", TOKEN)), 400),
        (sent(&plain("POST").signed_by(GLOBEX)), 403),
        (sent(&plain("POST").signed_by((ACME.0, GLOBEX.1))), 403),
        (sent(&plain("PUT").signed_by(ACME)), 405),
        (sent(&plain("DELETE").signed_by(ACME)), 405),
        (
            sent(
                &plain("GET")
                    .header("authorization", TOKEN)
                    .header("origin", "null"),
            ),
            403,
        ),
        (
            sent(
                &world
                    .signed("POST", PATH)
                    .header("origin", "https://example.com"),
            ),
            403,
        ),
        // The body is not the signed one.
        (
            sent(
                &world
                    .signed("POST", PATH)
                    .body("{}")
                    .payload(&"0".repeat(64)),
            ),
            400,
        ),
        // The hash of the body is missing.
        (
            sent(
                &world
                    .signed("POST", PATH)
                    .body("{}")
                    .payload("UNSIGNED-PAYLOAD"),
            ),
            403,
        ),
        // A token is valid only for vending.
        (
            sent(
                &Call::new(world.gateway.addr, "GET", "/photos/acme/a")
                    .header("authorization", TOKEN),
            ),
            400,
        ),
    ];
    for (index, (reply, status)) in refusals.iter().enumerate() {
        let shown = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, *status, "{index}: {shown}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    assert_eq!(world.emulator.counters().counts().sts_calls, 0);
}

#[test]
fn vends_no_keys_by_default() {
    let world = world_with("");
    assert_eq!(send(&world, &json!({})).status, 403);
    assert_eq!(by_token(&world, TOKEN).status, 403);
    assert_eq!(world.emulator.counters().counts().sts_calls, 0);
}

#[test]
fn vend_path_is_an_object_in_virtual_hosted_style() {
    let world = world();
    let reply = sent(
        &world
            .signed("GET", PATH)
            .header("host", "photos.s3.localhost"),
    );
    assert_eq!((reply.status, reply.code().as_str()), (403, "AccessDenied"));
    assert_eq!(reply.header("content-type"), Some("application/xml"));
}

#[test]
fn vends_no_key_that_expires_soon() {
    let world = world();
    let key = Key::of(&by_token(&world, TOKEN));
    let faults = world.emulator.faults();
    faults.set(Faults {
        sts_lifetime: Some(1100),
        ..Faults::default()
    });
    let reply = send(&world, &json!({"bucket": "photos"}));
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    faults.set(Faults {
        sts_lifetime: None,
        sts: Some(StsFault::Down),
        ..Faults::default()
    });
    assert_eq!(send(&world, &json!({"bucket": "photos"})).status, 503);
    // The key that was fetched before is still valid.
    assert_eq!(Key::of(&by_token(&world, TOKEN)).id, key.id);
}

/// Some clients time out first, as AWS's SDKs do after two seconds. The next client finds the key.
#[test]
fn disconnected_client_does_not_cancel_a_vended_key() {
    let world = world();
    world.emulator.faults().set(Faults {
        sts_latency_ms: 700,
        ..Faults::default()
    });
    let call = Call::new(world.gateway.addr, "GET", PATH).header("authorization", TOKEN);
    let mut hasty = Client::connect(world.gateway.addr);
    hasty.write(&call.bytes());
    support::eventually("the call to STS", || sts_calls(&world) == 1);
    drop(hasty);
    let log = &world.gateway.log;
    support::eventually("its request is over", || !log.text().is_empty());
    Key::of(&by_token(&world, TOKEN));
    assert_eq!(sts_calls(&world), 1);
}

#[test]
fn concurrent_clients_share_one_sts_response() {
    for (fault, latency) in [(Some(StsFault::Http500), 300), (Some(StsFault::Hang), 0)] {
        let world = world();
        world.emulator.faults().set(Faults {
            sts: fault,
            sts_latency_ms: latency,
            ..Faults::default()
        });
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    let reply = by_token(&world, TOKEN);
                    assert_eq!(reply.status, 503);
                    assert!(reply.header("retry-after").is_some());
                });
            }
        });
        assert!(
            began.elapsed() < Duration::from_secs(7),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(sts_calls(&world), 1);
    }
}

#[test]
fn remembers_permanent_refusals_of_sts() {
    let world = world();
    world.emulator.faults().set(Faults {
        sts: Some(StsFault::Error("InvalidParameter.PolicyTooLong".to_owned())),
        ..Faults::default()
    });
    for _ in 0..10 {
        let reply = by_token(&world, TOKEN);
        assert_eq!((reply.status, reply.header("retry-after")), (503, None));
    }
    assert_eq!(sts_calls(&world), 1);
}

#[test]
fn unknown_refusal_affects_only_its_scope() {
    let world = world();
    let faults = world.emulator.faults();
    faults.set(Faults {
        sts: Some(StsFault::Error("FailedOperation.SomethingNew".to_owned())),
        ..Faults::default()
    });
    for _ in 0..10 {
        assert_eq!(send(&world, &json!({"bucket": "photos"})).status, 503);
    }
    faults.clear();
    let began = Instant::now();
    world.signed("PUT", "/photos/acme/a").send().assert_ok();
    assert!(began.elapsed() < Duration::from_secs(1));
    let opened = world.gateway.metric("cosgate_sts_breaker_opened_total", "");
    assert_eq!(opened, 0);
}

/// The proxy's own calls share this breaker: it counts these calls too, and blocks them.
#[test]
fn open_breaker_blocks_vend_calls() {
    let world = world();
    let faults = world.emulator.faults();
    faults.set(Faults {
        sts: Some(StsFault::Http500),
        ..Faults::default()
    });
    for _ in 0..20 {
        assert_eq!(send(&world, &json!({"bucket": "photos"})).status, 503);
    }
    assert_eq!(sts_calls(&world), 5, "it opens after five failures");
    let began = Instant::now();
    let own = world.signed("GET", "/photos/acme/a").send();
    assert_eq!(own.status, 503);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(sts_calls(&world), 5);
    assert_eq!(
        world.gateway.metric("cosgate_sts_breaker_opened_total", ""),
        1
    );
    assert_eq!(
        world
            .gateway
            .metric("cosgate_sts_calls_total", "result=\"retry\""),
        5
    );
    faults.set(Faults::default());
    support::eventually("the breaker closes", || {
        send(&world, &json!({"bucket": "photos"})).status == 200
    });
    world.signed("PUT", "/photos/acme/a").send().assert_ok();
}

#[test]
fn limits_vended_keys_per_second() {
    let world = world();
    let mut given = 0;
    let began = Instant::now();
    for _ in 0..200 {
        let reply = send(&world, &json!({"bucket": "photos"}));
        match reply.status {
            200 => given += 1,
            status => assert_eq!((status, reply.header("retry-after")), (503, Some("1"))),
        }
    }
    let max = 41 + 20 * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
    assert!((40..=max).contains(&given), "{given}");
    assert_eq!(sts_calls(&world), given as u64);
    // The limit does not affect the tenant's own traffic.
    world.signed("PUT", "/photos/acme/a").send().assert_ok();
}

/// Tenants and subjects of one issuer with a limit of calls for their keys.
fn shared_world(calls_per_second: u32) -> World {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let rate = format!("calls_per_second = {calls_per_second}\nburst = {calls_per_second}\n");
    let toml = support::toml(
        emulator.cos_addr(),
        emulator.sts_addr(),
        &identity_toml(&folder),
    );
    let toml = [
        ("issuers.main", rate.as_str()),
        ("tenants.acme", "vend = true\n"),
        ("templates.web", "vend = true\n"),
    ]
    .iter()
    .fold(toml, |toml, (section, more)| {
        toml.replacen(
            &format!("[{section}]\n"),
            &format!("[{section}]\n{more}"),
            1,
        )
    });
    let gateway = support::Gateway::start(&toml);
    World { gateway, emulator }
}

fn fetch_as(world: &World, token: &str, body: &Value) -> Reply {
    let call = Call::new(world.gateway.addr, "POST", PATH);
    sent(
        &call
            .header("authorization", &format!("Bearer {token}"))
            .body(body.to_string()),
    )
}

/// Ends a flood, even if the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One subject requests narrowed keys as fast as it can. Each one is fetched again.
#[test]
fn flood_of_one_subject_does_not_block_others() {
    let world = shared_world(20);
    let narrowed = json!({"bucket": "photos"});
    let (mallory, bob) = (CORP.of("mallory"), CORP.of("bob"));
    let stopped = AtomicBool::new(false);
    let given = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stopped);
        for _ in 0..24 {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let reply = fetch_as(&world, &mallory, &narrowed);
                    match reply.status {
                        200 => _ = given.fetch_add(1, Ordering::Relaxed),
                        status => {
                            assert_eq!((status, reply.header("retry-after")), (503, Some("1")));
                        }
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        support::eventually("a flood", || given.load(Ordering::Relaxed) > 40);
        let others = [
            scope.spawn(|| {
                (0..40)
                    .map(|_| fetch_as(&world, &bob, &narrowed).status)
                    .collect()
            }),
            scope.spawn(|| (0..30).map(|_| send(&world, &narrowed).status).collect()),
        ];
        let others: Vec<Vec<u16>> = others.map(|other| other.join().unwrap()).into();
        // A key of a whole scope has priority, and the tenant's own requests need none of these calls.
        let began = Instant::now();
        assert_eq!(fetch_as(&world, &bob, &json!({})).status, 200);
        assert_eq!(send(&world, &json!({})).status, 200);
        world.signed("PUT", "/photos/acme/a").send().assert_ok();
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(others, [vec![200; 40], vec![200; 30]]);
    });
    assert!(given.load(Ordering::Relaxed) > 60, "it has its own share");
}

#[test]
fn caches_a_subjects_key_for_that_subject_only() {
    let world = shared_world(20);
    let key = |subject: &str| Key::of(&fetch_as(&world, &CORP.of(subject), &json!({}))).id;
    let (alice, bob) = (key("alice"), key("bob"));
    assert_ne!(alice, bob);
    for _ in 0..60 {
        assert_eq!((key("alice"), key("bob")), (alice.clone(), bob.clone()));
    }
    assert_eq!(sts_calls(&world), 2);
    let faults = Faults {
        sts: Some(StsFault::Down),
        ..Faults::default()
    };
    world.emulator.faults().set(faults);
    for _ in 0..10 {
        let reply = fetch_as(&world, &CORP.of("carol"), &json!({"bucket": "photos"}));
        assert_eq!(reply.status, 503);
    }
    assert_eq!(key("alice"), alice, "whatever STS says");
}

#[test]
fn rejects_too_long_policies_before_sts() {
    let world = world();
    let long = |prefixes: usize| {
        let prefix = |number: usize| format!("acme/{number}/{}/*", "x".repeat(60));
        let prefixes: Vec<_> = (0..prefixes).map(prefix).collect();
        json!({"bucket": "photos", "allowPrefixes": prefixes, "allowActions": ["name/cos:GetObject"]})
    };
    let reply = send(&world, &long(32));
    assert_eq!((reply.status, sts_calls(&world)), (400, 0));
    let shown = json_of(&reply)["message"].to_string();
    assert!(shown.contains("fewer or shorter prefixes"), "{shown}");
    world
        .gateway
        .log
        .assert_contains("STS may refuse more than 2048");
    assert_eq!(send(&world, &long(4)).status, 200);
    // STS may find a shorter policy too long: that error concerns only this request.
    let fault = StsFault::Error("InvalidParameter.PolicyTooLong".to_owned());
    world.emulator.faults().set(Faults {
        sts: Some(fault),
        ..Faults::default()
    });
    for _ in 0..10 {
        let reply = send(&world, &long(4));
        assert_eq!((reply.status, reply.header("retry-after")), (400, None));
        assert!(
            json_of(&reply)["message"]
                .to_string()
                .contains("Name one bucket")
        );
    }
    world.emulator.faults().clear();
    assert_eq!(send(&world, &long(4)).status, 200);
}

#[test]
fn issuer_rate_limits_vended_keys() {
    let emulator = support::emulator();
    let toml = support::toml(emulator.cos_addr(), emulator.sts_addr(), "")
        .replacen("[tenants.acme]\n", "[tenants.acme]\nvend = true\n", 1)
        .replacen(
            "[issuers.main]\n",
            "[issuers.main]\ncalls_per_second = 1\nburst = 2\n",
            1,
        );
    let gateway = support::Gateway::start(&toml);
    let world = World { gateway, emulator };
    let began = Instant::now();
    let given = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                let reply = send(&world, &json!({"bucket": "photos"}));
                match reply.status {
                    200 => _ = given.fetch_add(1, Ordering::Relaxed),
                    // A client whose turn would be too late gets an error at once.
                    status => {
                        let after = reply.header("retry-after").unwrap();
                        assert_eq!((status, after), (503, "5"));
                        assert!(began.elapsed() < Duration::from_secs(3));
                    }
                }
            });
        }
    });
    let max = 3 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let given = given.load(Ordering::Relaxed);
    assert!((5..=max).contains(&given), "{given}");
}

/// A grant with a policy: cosgate evaluates it, and COS does too, with its conditions.
#[test]
fn raw_policy_limits_requests_at_proxy_and_cos() {
    let emulator = support::emulator();
    let base = format!("qcs::cos:ap-guangzhou:uid/1250000000:{BUCKET}");
    let mut policy = NamedTempFile::new().unwrap();
    let statement = json!([
        {"effect": "allow", "action": ["name/cos:PutObject", "name/cos:GetObject"], "resource": [format!("{base}/acme/*")]},
        {"effect": "allow", "action": "name/cos:DeleteObject", "resource": format!("{base}/acme/*"),
            "condition": {"ip_equal": {"qcs:ip": "192.0.2.0/24"}}},
        {"effect": "deny", "action": "name/cos:GetObject", "resource": format!("{base}/acme/secret/*")},
    ]);
    write!(
        policy,
        "{}",
        json!({"version": "2.0", "statement": statement})
    )
    .unwrap();
    let toml = support::toml(emulator.cos_addr(), emulator.sts_addr(), "").replacen(
        "prefixes = [\"acme/*\"]\nactions = [\"read\", \"write\", \"list\"]\n",
        &format!("policy = \"file:{}\"\n", policy.path().display()),
        1,
    );
    let gateway = support::Gateway::start(&toml);
    let world = World { gateway, emulator };
    for key in ["acme/a", "acme/secret/a"] {
        world
            .signed("PUT", &format!("/photos/{key}"))
            .body("x")
            .send()
            .assert_ok();
    }
    world.signed("GET", "/photos/acme/a").send().assert_ok();
    let before = world.emulator.counters().counts().cos_requests;
    for (method, target) in [
        ("GET", "/photos/acme/secret/a"),
        ("PUT", "/photos/globex/a"),
        ("GET", "/photos?list-type=2&prefix=acme%2F"),
        ("GET", "/photos/acme/a?tagging"),
    ] {
        assert_eq!(
            world.signed(method, target).send().status,
            403,
            "{method} {target}"
        );
    }
    assert_eq!(
        world.emulator.counters().counts().cos_requests,
        before,
        "refused here"
    );
    // COS evaluates the condition: it sees an address of another network.
    assert_eq!(world.signed("DELETE", "/photos/acme/a").send().status, 403);
    assert!(world.emulator.counters().counts().cos_requests > before);
}
