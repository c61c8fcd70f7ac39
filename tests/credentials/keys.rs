//! Temporary keys in requests: a client, cosgate, an STS and a COS, and failures of each.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cosgate::credentials::Credential;
use cosgate::emulator::{CosFault, Faults, StsFault};
use cosgate::timestamp::Timestamp;
use tokio::time::Instant;

use crate::support::{self, BUCKET, Call, Client, GLOBEX, Gateway, Reply, World, emulator, toml};

/// Both signatures for COS.
const SIGNATURES: [&str; 2] = ["s3", "cos"];
/// COS's host for the bucket that the tenants share.
const HOST: &str = "shared-1250000000.cos.ap-guangzhou.myqcloud.com";

/// Tries all cases at once, because each test mostly waits.
fn each<C: Send>(cases: impl IntoIterator<Item = C>, test: impl Fn(C) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

fn world(signature: &str) -> World {
    let emulator = emulator();
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let text = text.replace(
        "[upstream]",
        &format!("[upstream]\nsignature = \"{signature}\""),
    );
    let gateway = Gateway::start(&text);
    World { gateway, emulator }
}

/// A world with one object, so that acme has a key.
fn warm(signature: &str) -> World {
    let world = world(signature);
    put(&world, "kept", b"kept").assert_ok();
    world
}

fn put(world: &World, name: &str, body: &[u8]) -> Reply {
    let call = world.signed("PUT", &format!("/photos/acme/{name}"));
    call.body(body).send()
}

fn get(world: &World) -> Reply {
    world.signed("GET", "/photos/acme/kept").send()
}

fn sts_fault(world: &World, fault: StsFault, times: Option<u32>) {
    world.emulator.faults().change(|faults| {
        faults.sts = Some(fault);
        faults.sts_times = times;
    });
}

fn sts_error(code: &str) -> StsFault {
    StsFault::Error(code.to_owned())
}

fn sts_calls(world: &World) -> u64 {
    world.emulator.counters().counts().sts_calls
}

/// Asserts a response with `Retry-After`, and gives its seconds.
#[track_caller]
fn come_back(reply: &Reply, code: &str) -> u32 {
    reply.assert_error(503, code);
    let after = reply.header("retry-after").unwrap();
    after.parse().unwrap()
}

/// The key that cosgate uses for the tenant with this index.
fn key_of(world: &World, tenant: usize) -> Arc<Credential> {
    let entry = world.gateway.shared.credentials().entry(tenant).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(entry.get()).unwrap()
}

/// A request to COS itself with that key.
fn direct(world: &World, key: &Credential, method: &str, target: &str) -> Reply {
    let token = key.token.as_ref().unwrap().expose();
    Call::new(world.emulator.cos_addr(), method, target)
        .header("host", HOST)
        .header("x-amz-security-token", token)
        .signed_by((&key.secret_id, key.secret_key.expose()))
        .send()
}

#[test]
fn thousand_cold_requests_make_one_call() {
    const REQUESTS: usize = 1000;
    let world = world("s3");
    world.emulator.faults().set(Faults {
        sts_latency_ms: 1000, // all requests arrive before the key
        ..Faults::default()
    });
    let call = world.signed("GET", "/photos?list-type=2&prefix=acme%2F");
    let bytes = call.bytes();
    let mut clients: Vec<Client> = (0..REQUESTS)
        .map(|_| {
            let mut client = Client::connect(world.gateway.addr);
            client.write(&bytes);
            client
        })
        .collect();
    for client in &mut clients {
        client.read_reply("GET").assert_ok();
    }
    assert_eq!(sts_calls(&world), 1);
    let by_name = world.emulator.counters().counts().sts_by_name;
    assert_eq!(
        by_name.into_iter().collect::<Vec<_>>(),
        [("acme".to_owned(), 1)]
    );
    assert_eq!(world.gateway.metric("cosgate_sts_calls_total", "ok"), 1);
    let misses = world
        .gateway
        .metric("cosgate_credential_cache_total", "miss");
    assert!(misses > 100, "only {misses} requests were cold");
}

#[test]
fn disconnected_client_does_not_cancel_the_call() {
    let world = world("s3");
    world.emulator.faults().set(Faults {
        sts_latency_ms: 500,
        ..Faults::default()
    });
    let call = world.signed("GET", "/photos?list-type=2&prefix=acme%2F");
    let mut first = Client::connect(world.gateway.addr);
    first.write(&call.bytes());
    support::eventually("the call to STS", || sts_calls(&world) == 1);
    let mut second = Client::connect(world.gateway.addr);
    second.write(&call.bytes());
    drop(first);
    second.read_reply("GET").assert_ok();
    assert_eq!(sts_calls(&world), 1);
}

#[test]
fn key_serves_its_lifetime_while_sts_is_down() {
    each(SIGNATURES, |signature| {
        let world = world(signature);
        world.emulator.faults().set(Faults {
            sts_lifetime: Some(4), // used for three seconds
            ..Faults::default()
        });
        put(&world, "kept", b"kept").assert_ok();
        let born = Instant::now();
        sts_fault(&world, StsFault::Down, None);
        let mut served = 0;
        while born.elapsed() < Duration::from_millis(2800) {
            get(&world).assert_ok();
            served += 1;
        }
        assert!(served > 50, "{served}");
        let tried = sts_calls(&world);
        assert!((2..=6).contains(&tried), "{tried} calls to STS");

        // A wait for STS is useless from here on. Without it the test is shorter.
        sts_fault(&world, sts_error("AuthFailure.SecretIdNotFound"), None);
        let over = loop {
            let reply = get(&world);
            if reply.status != 200 {
                break reply;
            }
        };
        assert!(born.elapsed() >= Duration::from_millis(2900));
        assert_eq!(over.status, 503);
        assert!(over.text().contains("The key service "), "{}", over.text());
    });
}

#[test]
fn renews_a_key_while_requests_are_served() {
    let world = world("s3");
    world.emulator.faults().set(Faults {
        sts_lifetime: Some(4),
        ..Faults::default()
    });
    put(&world, "kept", b"kept").assert_ok();
    let born = Instant::now();
    while born.elapsed() < Duration::from_millis(3700) {
        get(&world).assert_ok();
    }
    // The first key was used for up to three seconds.
    let calls = sts_calls(&world);
    assert!((2..=3).contains(&calls), "{calls} calls to STS");
}

#[test]
fn replaces_a_revoked_key_without_client_errors() {
    each(SIGNATURES, |signature| {
        let world = warm(signature);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let is_over = || world.gateway.metric("cosgate_sts_calls_total", "ok") > 1;
                    let mut after = 0;
                    while after < 20 {
                        let over = is_over();
                        assert_eq!(get(&world).assert_ok().text(), "kept");
                        after += u32::from(over);
                    }
                });
            }
            let requests = || world.emulator.counters().counts().cos_requests;
            support::eventually("all are in flight", || requests() > 40);
            world.emulator.revoke_all_keys();
        });
        assert_eq!(sts_calls(&world), 2, "{signature}");
        let gateway = &world.gateway;
        assert_eq!(gateway.metric("cosgate_keys_rejected_total", ""), 1);
        assert_eq!(gateway.metric("cosgate_sts_calls_total", "ok"), 2);
    });
}

#[test]
fn replays_a_head_under_a_revoked_key() {
    each(SIGNATURES, |signature| {
        let world = warm(signature);
        world.emulator.revoke_all_keys();
        world.signed("HEAD", "/photos/acme/kept").send().assert_ok();
        assert_eq!(sts_calls(&world), 2);
    });
}

#[test]
fn each_error_code_of_a_dead_key_replaces_it() {
    each(
        [
            (400, "ExpiredToken"),
            (400, "InvalidToken"),
            (403, "InvalidAccessKeyId"),
        ],
        |(status, code)| {
            let world = warm("s3");
            world.emulator.faults().set(Faults {
                cos: Some(CosFault::Error {
                    status,
                    code: code.to_owned(),
                }),
                cos_times: Some(1),
                ..Faults::default()
            });
            get(&world).assert_ok();
            assert_eq!(sts_calls(&world), 2, "{code}");
        },
    );
}

#[test]
fn replays_a_head_after_an_expired_token() {
    let world = warm("s3");
    world.emulator.faults().set(Faults {
        cos: Some(CosFault::Error {
            status: 400, // without a body that gives the reason: see `is_key_refused`
            code: "ExpiredToken".to_owned(),
        }),
        cos_times: Some(2),
        ..Faults::default()
    });
    world.signed("HEAD", "/photos/acme/kept").send().assert_ok();
    assert_eq!(sts_calls(&world), 2);
}

#[test]
fn access_denied_keeps_the_key() {
    let world = warm("s3");
    world.emulator.faults().set(Faults {
        cos: Some(CosFault::Error {
            status: 403,
            code: "AccessDenied".to_owned(),
        }),
        cos_times: Some(1),
        ..Faults::default()
    });
    get(&world).assert_error(403, "AccessDenied");
    get(&world).assert_ok();
    assert_eq!(sts_calls(&world), 1);
}

#[test]
fn short_lived_keys_cause_no_storm() {
    let world = warm("s3");
    world.emulator.faults().set(Faults {
        cos: Some(CosFault::Error {
            status: 403,
            code: "InvalidAccessKeyId".to_owned(),
        }),
        ..Faults::default()
    });
    let end = Instant::now() + Duration::from_secs(6);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                while Instant::now() < end {
                    come_back(&get(&world), "ServiceUnavailable");
                }
            });
        }
    });
    // The first key, its replacement at once, and then one after 1 to 2 s, 2 to 4 s, 2 to 4 s, ...
    let calls = sts_calls(&world);
    assert!((4..=6).contains(&calls), "{calls}");
    // No request is repeated with a refused key: each client uses each key once.
    let requests = world.emulator.counters().counts().cos_requests;
    assert!(requests <= 2 + 20 * calls, "{requests}");
    world.emulator.faults().clear();
    // No client waits in vain for the fourth new key. A client that retries gets it in time.
    let before = Instant::now();
    let served = std::iter::repeat_with(|| get(&world)).find(|reply| {
        if reply.status == 503 {
            come_back(reply, "ServiceUnavailable");
            thread::sleep(Duration::from_millis(100));
        }
        reply.status != 503
    });
    served.unwrap().assert_ok();
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn replaces_a_second_revoked_key_at_once() {
    each(SIGNATURES, |signature| {
        let world = warm(signature);
        let started = Instant::now();
        for revoked in 1..=5 {
            world.emulator.revoke_all_keys();
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| assert_eq!(get(&world).assert_ok().text(), "kept"));
                }
            });
            assert_eq!(sts_calls(&world), 1 + revoked, "one call for all");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        let rejected = world.gateway.metric("cosgate_keys_rejected_total", "");
        assert_eq!(rejected, 5);
    });
}

#[test]
fn recovers_within_five_seconds_after_an_outage() {
    each([StsFault::Down, StsFault::Http500], |fault| {
        let world = world("s3");
        sts_fault(&world, fault, None);
        let fetch_until_served = || {
            loop {
                let reply = get(&world);
                if reply.status == 404 {
                    return Instant::now(); // NoSuchKey: there is a key
                }
                let after = come_back(&reply, "SlowDown");
                assert!(reply.text().contains("The key service cannot be reached"));
                thread::sleep(Duration::from_secs(after.into()));
            }
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(fetch_until_served)).collect();
            // The length of the outage does not matter: lanes.rs tests hours on paused time.
            let opened = || world.gateway.metric("cosgate_sts_breaker_opened_total", "");
            support::eventually("the breaker has opened again", || opened() >= 2);
            world.emulator.faults().clear();
            let back = Instant::now();
            for client in clients {
                let waited = client.join().unwrap() - back;
                assert!(waited < Duration::from_secs(6), "{waited:?}");
            }
        });
        let calls = sts_calls(&world);
        assert!((5..=31).contains(&calls), "{calls}");
    });
}

#[test]
fn tries_a_replaced_issuer_key_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "revoked").unwrap();
    let emulator = emulator();
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let secret = format!("secret_key = \"file:{}\"", file.display());
    let text = text.replace("secret_key = \"env:ACCOUNT_SECRET\"", &secret);
    assert!(text.contains(&secret), "{text}");
    let gateway = Gateway::start(&text);
    let world = World { gateway, emulator };
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2500) {
        let refused = get(&world);
        refused.assert_error(503, "ServiceUnavailable");
        assert!(refused.header("retry-after").is_none() && !refused.text().contains("try again"));
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        sts_calls(&world),
        1,
        "the same key is not tried again so soon"
    );
    let log = world.gateway.log.text();
    assert!(
        log.contains("check secret_id and secret_key of [issuers.main]"),
        "{log}"
    );
    std::fs::write(&file, support::ACCOUNT.1).unwrap();
    let replaced = Instant::now();
    support::eventually("the new key", || get(&world).status == 404);
    assert!(
        replaced.elapsed() < Duration::from_millis(1500),
        "{:?}",
        replaced.elapsed()
    );
}

#[test]
fn streamed_upload_under_a_revoked_key_is_not_stored() {
    each(SIGNATURES, |signature| {
        let world = warm(signature);
        let large = vec![b'x'; 8 << 20];
        world.emulator.revoke_all_keys();
        let refused = put(&world, "large", &large);
        come_back(&refused, "ServiceUnavailable");
        assert!(!world.emulator.object_exists(BUCKET, "acme/large"));

        put(&world, "large", &large).assert_ok();
        assert_eq!(
            world.emulator.object_bytes(BUCKET, "acme/large"),
            Some(large)
        );
        assert_eq!(sts_calls(&world), 2);
    });
}

#[test]
fn waits_at_most_five_seconds_for_a_key() {
    let world = world("s3");
    sts_fault(&world, StsFault::Hang, None);
    let started = Instant::now();
    let replies: Vec<Reply> = thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| get(&world))).collect();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let waited = started.elapsed();
    assert!(waited < Duration::from_millis(5900), "{waited:?}");
    for reply in &replies {
        come_back(reply, "SlowDown");
    }
    // The first call times out at the end of the clients' wait, and the next one starts.
    assert!((1..=2).contains(&sts_calls(&world)));
}

#[test]
fn hides_short_failures_of_sts() {
    each(
        [
            StsFault::Down,
            StsFault::Html,
            StsFault::Http500,
            sts_error("InternalError.SystemError"),
            sts_error("RequestLimitExceeded"),
        ],
        |fault| {
            let world = world("s3");
            sts_fault(&world, fault.clone(), Some(1));
            put(&world, "kept", b"kept").assert_ok();
            assert_eq!(sts_calls(&world), 2, "{fault:?}");
            assert_eq!(
                world.gateway.metric("cosgate_sts_calls_total", "retry"),
                1,
                "{fault:?}"
            );
        },
    );
}

#[test]
fn reports_permanent_refusals_at_once() {
    each(
        [
            ("AuthFailure.SecretIdNotFound", "issuer_broken"),
            ("AuthFailure.SignatureFailure", "issuer_broken"),
            ("AuthFailure.UnauthorizedOperation", "not_allowed"),
            ("InvalidParameter.StrategyInvalid", "config_wrong"),
        ],
        |(code, result)| {
            let world = world("s3");
            sts_fault(&world, sts_error(code), None);
            let started = Instant::now();
            for _ in 0..10 {
                let refused = get(&world);
                refused.assert_error(503, "ServiceUnavailable");
                assert!(refused.header("retry-after").is_none());
                assert!(!refused.text().contains("try again"), "{}", refused.text());
            }
            assert!(started.elapsed() < Duration::from_secs(2), "{code}");
            assert_eq!(sts_calls(&world), 1, "{code}");
            assert_eq!(
                world.gateway.metric("cosgate_sts_calls_total", result),
                1,
                "{code}"
            );
            // The log names the tenant and the reason for the operator.
            support::eventually("the reason in the access log", || {
                world.gateway.log.text().contains(code)
            });
            // Another tenant makes its own call.
            world.emulator.faults().clear();
            let started = Instant::now();
            support::eventually("globex's key", || {
                let call = Call::new(world.gateway.addr, "PUT", "/photos/globex/a");
                call.signed_by(GLOBEX).send().status == 200
            });
            assert!(started.elapsed() < Duration::from_secs(6));
        },
    );
}

#[test]
fn rejects_keys_that_are_about_to_expire() {
    each([-10, 0, 2], |life| {
        let world = world("s3");
        world.emulator.faults().set(Faults {
            sts_lifetime: Some(life),
            ..Faults::default()
        });
        let early = thread::scope(|scope| {
            let waiting = scope.spawn(|| get(&world));
            support::eventually("the key is requested again", || sts_calls(&world) >= 2);
            assert_eq!(world.emulator.counters().counts().cos_requests, 0);
            world.emulator.faults().clear();
            waiting.join().unwrap()
        });
        early.assert_error(404, "NoSuchKey"); // as soon as there is a valid key
        let calls = sts_calls(&world);
        assert!((2..=3).contains(&calls), "{calls} calls for {life} s");
    });
}

#[test]
fn tenant_key_allows_only_its_folder() {
    let world = warm("s3");
    Call::new(world.gateway.addr, "PUT", "/photos/globex/secret")
        .signed_by(GLOBEX)
        .body("globex's")
        .send()
        .assert_ok();
    let (acme, globex) = (key_of(&world, 0), key_of(&world, 1));
    assert_ne!(acme.secret_id, globex.secret_id);
    assert_eq!(sts_calls(&world), 2); // the keys that the requests used

    assert_eq!(direct(&world, &acme, "GET", "/acme/kept").text(), "kept");
    direct(&world, &acme, "PUT", "/acme/b").assert_ok();
    let list = "/?prefix=acme%2F";
    direct(&world, &acme, "GET", list).assert_ok();
    direct(&world, &globex, "GET", "/globex/secret").assert_ok();
    for (method, target) in [
        ("DELETE", "/globex/secret"),
        ("GET", "/"),
        ("GET", "/?prefix=globex%2F"),
        ("GET", "/?uploads"),
        ("GET", "/acmeandmore"),
        ("GET", "/globex/secret"),
        ("PUT", "/globex/planted"),
    ] {
        let refused = direct(&world, &acme, method, target);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "AccessDenied"),
            "{method} {target}: {}",
            refused.text()
        );
    }
    assert!(world.emulator.object_exists(BUCKET, "globex/secret"));
}

#[test]
fn sts_date_corrects_the_clock() {
    // The emulated COS keeps the correct time. It accepts only a q-sign-time that has started.
    each(
        [("s3", 600), ("s3", -600), ("cos", -600)],
        |(signature, offset)| {
            let world = world(signature);
            world.emulator.faults().set(Faults {
                sts_clock_offset: offset,
                ..Faults::default()
            });
            put(&world, "kept", b"kept").assert_ok();
            assert_eq!(sts_calls(&world), 2); // refused, clock corrected, signed again
            let gateway = &world.gateway;
            assert_eq!(gateway.metric("cosgate_sts_calls_total", "clock"), 1);
            assert_eq!(gateway.metric("cosgate_sts_calls_total", "ok"), 1);

            let signed = signed_time(&world);
            let ours = cosgate::clock::wall_clock();
            let ahead = signed.since(ours);
            assert!((offset - 125..=offset + 5).contains(&ahead), "{ahead}");
            // cosgate still judges clients by its own clock.
            let late = ours.plus(offset + offset.signum() * 400);
            let stale = world.signed("GET", "/photos/acme/kept").at(late).send();
            stale.assert_error(403, "RequestTimeTooSkewed");
        },
    );
}

/// The time in the signature of the last request to COS.
fn signed_time(world: &World) -> Timestamp {
    let heads = world.emulator.counters().heads();
    let headers = &heads.last().unwrap().headers;
    let header = |wanted: &str| {
        let found = headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    if let Some(date) = header("x-amz-date") {
        return Timestamp::parse_amz(date).unwrap();
    }
    let authorization = header("authorization").unwrap();
    let (_, rest) = authorization.split_once("q-sign-time=").unwrap();
    let (start, _) = rest.split_once(';').unwrap();
    Timestamp::from_unix(start.parse().unwrap())
}

#[test]
fn live_key_needs_no_wait() {
    let world = warm("s3");
    sts_fault(&world, StsFault::Hang, None);
    for _ in 0..20 {
        let started = Instant::now();
        get(&world).assert_ok();
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    assert_eq!(sts_calls(&world), 1);
}

#[test]
fn each_part_uses_the_current_key() {
    const PARTS: usize = 60;
    const LIFE: u64 = 5; // seconds of each key, which is used for less than four
    let world = world("s3");
    world.emulator.faults().set(Faults {
        sts_lifetime: i64::try_from(LIFE).ok(),
        ..Faults::default()
    });
    let begun = world.signed("POST", "/photos/acme/long?uploads").send();
    let id = support::element(&begun.assert_ok().text(), "UploadId");
    let part = vec![b'p'; 1 << 20];
    let pause = 4 * Duration::from_secs(LIFE) / u32::try_from(PARTS).unwrap();
    let started = Instant::now();
    let mut listed = Vec::new();
    for number in 1..=PARTS {
        let target = format!("/photos/acme/long?partNumber={number}&uploadId={id}");
        let sent = world.signed("PUT", &target).body(part.clone()).send();
        let etag = sent.assert_ok().header("etag").unwrap();
        listed.push(format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        ));
        let next = started + pause * u32::try_from(number).unwrap();
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(4 * LIFE), "{took:?}");
    let listed = listed.concat();
    let all = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    let target = format!("/photos/acme/long?uploadId={id}");
    world.signed("POST", &target).body(all).send().assert_ok();
    let object = world.emulator.object_bytes(BUCKET, "acme/long").unwrap();
    assert_eq!(object.len(), PARTS << 20);

    let mut keys = keys_of_parts(&world);
    assert_eq!(keys.len(), PARTS, "no part was sent twice");
    keys.dedup();
    let calls = usize::try_from(sts_calls(&world)).unwrap();
    println!("{PARTS} parts in {took:?} under {} keys", keys.len());
    assert!((5..=calls).contains(&keys.len()), "{} keys", keys.len());
    keys.sort();
    keys.dedup();
    assert!(keys.len() >= 5, "no key came back after the next one");
}

/// The ids of the keys for each part at COS, in order.
fn keys_of_parts(world: &World) -> Vec<String> {
    let heads = world.emulator.counters().heads();
    let parts = heads
        .iter()
        .filter(|head| head.target.contains("partNumber"));
    let key = |headers: &[(String, String)]| {
        let mut fields = headers.iter().filter(|(name, _)| name == "authorization");
        let (_, rest) = fields.next().unwrap().1.split_once("Credential=").unwrap();
        rest.split_once('/').unwrap().0.to_owned()
    };
    parts.map(|head| key(&head.headers)).collect()
}

#[test]
fn presigned_url_outlives_the_temporary_key() {
    const LIFE: i64 = 5;
    let world = world("s3");
    world.emulator.faults().set(Faults {
        sts_lifetime: Some(LIFE),
        ..Faults::default()
    });
    put(&world, "kept", b"kept").assert_ok();
    let made = Instant::now();
    let long = world.signed("GET", "/photos/acme/kept").presigned(9);
    let short = world.signed("GET", "/photos/acme/kept").presigned(1);
    short.send().assert_ok();
    while made.elapsed() < Duration::from_secs(7) {
        assert_eq!(long.send().assert_ok().text(), "kept");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(
        sts_calls(&world) >= 2,
        "the key that it was made under is gone"
    );
    short.send().assert_error(403, "AccessDenied"); // while the key lives
    support::eventually("its end", || long.send().status != 200);
    assert!(made.elapsed() >= Duration::from_secs(9));
    long.send().assert_error(403, "AccessDenied");
}
