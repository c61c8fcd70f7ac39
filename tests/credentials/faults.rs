//! Every fault of an STS, with and without a live key.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::thread;
use std::time::Duration;

use cosgate::emulator::{Emulator, EmulatorConfig, EmulatorRole, Faults, StsFault};
use cosgate::secret::Secret;
use tokio::time::Instant;

use crate::support::{self, ACCOUNT, BUCKET, Call, GLOBEX, Gateway, World, emulator, toml};

/// The response to a client without a key.
#[derive(Clone, Copy, PartialEq)]
enum Cold {
    /// 503 with `Retry-After`, in time.
    ComeBack,
    /// Success: the fault is overcome.
    Served,
}
use Cold::{ComeBack, Served};

const LIFE: i64 = 6;
/// A key of [`LIFE`] is used for three quarters of it, minus a margin for a slow test.
const USED: Duration = Duration::from_millis(4_300);
/// A client waits for up to five seconds, with a margin for a slow machine.
const WAIT: Duration = Duration::from_millis(5_900);
/// The margin grows by the time of a request that needs no key, but never to the length of two waits.
const MAX_DELAY: Duration = Duration::from_secs(4);
const CLIENTS: usize = 20;
/// Maximum calls for one tenant in [`WAIT`]: they are a second apart, and more after each failure.
const CALLS: u64 = 7;

fn each_fault() -> Vec<(&'static str, Cold, Faults)> {
    let responses = |fault| Faults {
        sts: Some(fault),
        ..Faults::default()
    };
    let lives = |seconds| Faults {
        sts_lifetime: Some(seconds),
        ..Faults::default()
    };
    let slow = Faults {
        sts_latency_ms: 20_000,
        ..Faults::default()
    };
    let throttled = StsFault::Error("RequestLimitExceeded".to_owned());
    vec![
        ("64 MiB", ComeBack, responses(StsFault::Huge)),
        ("HTML", ComeBack, responses(StsFault::Html)),
        ("HTTP 500", ComeBack, responses(StsFault::Http500)),
        ("expired already", ComeBack, lives(-10)),
        ("five seconds of life", Served, lives(5)),
        ("null token", ComeBack, responses(StsFault::NullToken)),
        ("resets", ComeBack, responses(StsFault::Down)),
        ("silent", ComeBack, responses(StsFault::Hang)),
        ("slow", ComeBack, slow),
        ("throttled", ComeBack, responses(throttled)),
        ("wrong types", ComeBack, responses(StsFault::WrongTypes)),
    ]
}

/// The source of the keys, and the number of calls for each key.
#[derive(Clone, Copy)]
enum Maker {
    /// A role that is assumed with the key of another role. Each key has its own lifetime.
    Chain = 2,
    Federation = 1,
}

impl Maker {
    fn world(self) -> World {
        if matches!(self, Self::Federation) {
            return World::new();
        }
        let arn = |name| format!("qcs::cam::uin/100000000001:roleName/{name}");
        let role = |name| EmulatorRole {
            arn: arn(name),
            external_id: None,
            web_identity: None,
        };
        let emulator = Emulator::start(EmulatorConfig {
            keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
            buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
            roles: vec![role("one"), role("two")],
            ..EmulatorConfig::default()
        })
        .unwrap();
        let text = toml(emulator.cos_addr(), emulator.sts_addr(), "").replacen(
            "[issuers.main]\nkind = \"federation\"\n",
            &format!(
                "[issuers.main]\nkind = \"assume-role\"\nrole_arn = \"{}\"\nbase = \"one\"\n\
                 [issuers.one]\nkind = \"assume-role\"\nrole_arn = \"{}\"\n",
                arn("two"),
                arn("one")
            ),
            1,
        );
        let gateway = Gateway::start(&text);
        World { gateway, emulator }
    }

    fn calls(self) -> u64 {
        self as u64
    }
}

/// Between the starts of two faults.
const APART: Duration = Duration::from_millis(70);

/// Tries all faults at once, because each test mostly waits.
fn each(test: impl Fn(&str, Maker, Cold, Faults) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for maker in [Maker::Chain, Maker::Federation] {
            for (name, cold, faults) in each_fault() {
                scope.spawn(move || test(name, maker, cold, faults));
                // Each has its busy moments, as when a wait ends: they are not to meet, for the others' times are measured.
                thread::sleep(APART);
            }
        }
    });
}

fn get(world: &World) -> support::Reply {
    world.signed("GET", "/photos/acme/kept").send()
}

fn sts_calls(world: &World) -> u64 {
    world.emulator.counters().counts().sts_calls
}

#[test]
fn live_key_hides_faults_until_it_expires() {
    each(|name, maker, cold, faults| {
        let world = maker.world();
        world.emulator.faults().set(Faults {
            sts_lifetime: Some(LIFE),
            ..Faults::default()
        });
        let call = world.signed("PUT", "/photos/acme/kept").body("kept");
        let born = Instant::now(); // the key arrives and expires later than this
        call.send().assert_ok();
        world.emulator.faults().set(faults);
        let mut served = 0;
        while born.elapsed() < USED {
            let reply = get(&world);
            if born.elapsed() >= USED {
                break; // on a slow machine the last request may be too late
            }
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (200, "kept"),
                "{name}"
            );
            served += 1;
            thread::sleep(Duration::from_millis(10));
        }
        let calls = sts_calls(&world);
        println!("{name}: {served} requests served while STS was called {calls} times");
        let (min, max) = (maker.calls() + 1, maker.calls() * CALLS);
        assert!((min..=max).contains(&calls), "{name}: {calls} calls");
        if cold == ComeBack {
            let good = world.gateway.metric("cosgate_sts_calls_total", "ok");
            assert_eq!(good, maker.calls());
        }
    });
}

/// The longest time of a request that needs no key, while `clients` wait.
fn slowest_local<T>(world: &World, clients: &[thread::ScopedJoinHandle<'_, T>]) -> Duration {
    let mut longest = Duration::ZERO;
    while !clients.iter().all(thread::ScopedJoinHandle::is_finished) {
        let began = Instant::now();
        world.signed("GET", "/photos?location").send().assert_ok();
        longest = longest.max(began.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    longest
}

#[test]
fn without_a_key_clients_get_retry_after() {
    each(|name, maker, cold, faults| {
        let world = maker.world();
        world.emulator.faults().set(faults);
        let mut longest = WAIT;
        let replies: Vec<_> = thread::scope(|scope| {
            let client = || {
                let began = Instant::now();
                (get(&world), began.elapsed())
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            longest += slowest_local(&world, &clients).min(MAX_DELAY);
            clients
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for reply in replies {
            let (reply, took) = reply.unwrap();
            assert!(took < longest, "{name}: {took:?}, {longest:?}");
            if cold == Served {
                assert_eq!(reply.code(), "NoSuchKey", "{name}: {}", reply.text());
                continue;
            }
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (503, "SlowDown"),
                "{name}"
            );
            let after: u32 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&after), "{name}: {after}");
        }
        let calls = sts_calls(&world);
        let max = maker.calls() * CALLS;
        assert!((1..=max).contains(&calls), "{name}: {calls} calls");
        world.emulator.faults().clear();
        support::eventually(name, || get(&world).status == 404);
    });
}

#[test]
fn unreachable_sts_gives_retry_after() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = closed.local_addr().unwrap().to_string(); // the port is closed again
    for sts in [closed.as_str(), "sts.cosgate.invalid:80"] {
        let emulator = emulator();
        let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
        let there = format!("connect_to = \"{}\"", emulator.sts_addr());
        let gateway = Gateway::start(&text.replace(&there, &format!("connect_to = \"{sts}\"")));
        let world = World { gateway, emulator };
        let began = Instant::now();
        get(&world).assert_error(503, "SlowDown");
        assert!(began.elapsed() < WAIT, "{sts}");
        assert_eq!(sts_calls(&world), 0);
    }
}

#[test]
fn wrong_clock_costs_one_more_call() {
    for late in [1200, -1200] {
        let emulator = emulator();
        let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
        let gateway = Gateway::start_late([127, 0, 0, 1].into(), &text, late);
        let world = World { gateway, emulator };
        get(&world).assert_error(404, "NoSuchKey");
        let call = world.signed("PUT", "/photos/acme/kept").body("kept");
        call.send().assert_ok();
        get(&world).assert_ok();
        assert_eq!(sts_calls(&world), 2, "refused, learnt, and called anew");
    }
}

/// A world with this many more tenants, and a limit of calls for their issuer.
fn crowd(tenants: usize, calls_per_second: u32) -> World {
    let emulator = emulator();
    let more: Vec<_> = (0..tenants).map(tenant_toml).collect();
    let more = more.concat();
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), &more);
    let rate = format!("calls_per_second = {calls_per_second}\nburst = {calls_per_second}\n");
    let text = text.replacen("[issuers.main]\n", &format!("[issuers.main]\n{rate}"), 1);
    // A tenant waits for its turn longer than the test takes.
    let text = format!("{text}\n[server.limits]\ndrain_timeout = \"1s\"\n");
    let gateway = Gateway::start(&text);
    World { gateway, emulator }
}

fn tenant_toml(number: usize) -> String {
    let secret = secret_of(number);
    format!(
        "[tenants.tenant{number}]\nissuer = \"main\"\n\
         access_keys = [{{ id = \"KEYOFTHETENANT{number:06}\", secret = \"{secret}\" }}]\n\
         [[tenants.tenant{number}.grants]]\nname = \"photos\"\nbucket = \"{BUCKET}\"\n\
         region = \"ap-guangzhou\"\nprefixes = [\"{number}/*\"]\nactions = [\"read\"]\n"
    )
}

fn secret_of(number: usize) -> String {
    format!("secretsecretsecretsecretsecret{number:06}")
}

fn get_as(world: &World, number: usize) -> support::Reply {
    let target = format!("/photos/{number}/none");
    let (id, secret) = (format!("KEYOFTHETENANT{number:06}"), secret_of(number));
    let call = Call::new(world.gateway.addr, "GET", &target);
    call.signed_by((&id, &secret)).send()
}

#[test]
fn cold_tenants_wait_for_the_call_rate() {
    const TENANTS: usize = 160;
    let world = crowd(TENANTS, 20);
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..TENANTS {
            let world = &world;
            scope.spawn(move || get_as(world, number).assert_error(404, "NoSuchKey"));
        }
    });
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(6),
        "beyond five seconds: {took:?}"
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(sts_calls(&world), TENANTS as u64);
}

#[test]
fn long_queue_gives_retry_after_and_a_log_line() {
    const TENANTS: usize = 60;
    let world = crowd(TENANTS, 1);
    let _waiting: Vec<_> = (0..TENANTS - 1)
        .map(|number| {
            let target = format!("/photos/{number}/none");
            let (id, secret) = (format!("KEYOFTHETENANT{number:06}"), secret_of(number));
            let call = Call::new(world.gateway.addr, "GET", &target);
            let mut client = support::Client::connect(world.gateway.addr);
            client.write(&call.signed_by((&id, &secret)).bytes());
            client
        })
        .collect();
    let waiting = || {
        let name = "cosgate_credential_cache_total";
        world.gateway.metric(name, "miss")
    };
    support::eventually("all the others wait", || waiting() == TENANTS as u64 - 1);
    let began = Instant::now();
    let reply = get_as(&world, TENANTS - 1);
    let took = began.elapsed();
    reply.assert_error(503, "SlowDown");
    assert!(took < Duration::from_secs(2), "at once: {took:?}");
    let after: u32 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&after), "{after}");
    let text = reply.text();
    assert!(
        text.contains("Retry-After") && !text.contains("calls_per_second"),
        "{text}"
    );
    world
        .gateway
        .log
        .assert_contains("issuers.main.calls_per_second = 1");
}

#[test]
fn open_breaker_fails_fast() {
    let world = World::new();
    world.emulator.faults().set(Faults {
        sts: Some(StsFault::Http500),
        ..Faults::default()
    });
    // Two tenants fail for five seconds, each at its own rate. The breaker opens in that time.
    thread::scope(|scope| {
        scope.spawn(|| get(&world).assert_error(503, "SlowDown"));
        scope.spawn(|| {
            let call = Call::new(world.gateway.addr, "GET", "/photos/globex/a");
            call.signed_by(GLOBEX).send().assert_error(503, "SlowDown");
        });
    });
    support::eventually("an open breaker", || {
        get(&world);
        world.gateway.metric("cosgate_sts_breaker_opened_total", "") > 0
    });
    let began = Instant::now();
    for _ in 0..50 {
        let call = Call::new(world.gateway.addr, "GET", "/photos?location");
        call.send().assert_ok(); // needs no key, and measures the speed of this machine
    }
    let local = began.elapsed();
    support::eventually("an open breaker again", || {
        let reply = get(&world);
        reply.assert_error(503, "SlowDown");
        reply.header("retry-after").unwrap().parse::<u32>().unwrap() > 1
    });
    let calls = sts_calls(&world);
    let began = Instant::now();
    for _ in 0..50 {
        let reply = Call::new(world.gateway.addr, "GET", "/photos/public/a").send();
        reply.assert_error(503, "SlowDown");
        assert!(reply.header("retry-after").is_some());
    }
    let took = began.elapsed();
    let max = Duration::from_millis(900).max(local * 3);
    assert!(took < max, "refused at once: {took:?}, {local:?}");
    let probes = sts_calls(&world) - calls;
    assert!(probes <= 1 + took.as_secs(), "{probes} in {took:?}");
}
