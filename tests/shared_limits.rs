//! Limits that three replicas keep together through a real Redis. A process of their own: they send hundreds of requests a
//! second for seconds, and other tests measure waits.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "credentials/redis_server.rs"]
mod redis_server;
#[path = "support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cosgate::emulator::Emulator;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use redis_server::{Redis, free_port, url};
use support::{ACME, Authority, Call, Client, GLOBEX, Gateway, Reply, emulator, eventually, toml};

const REPLICAS: usize = 3;
const KEY: &str = "a-key-of-the-shared-cache-0123456789";
/// Replicas of a test whose machine may be slow: it measures limits, and not waits.
const PATIENT: &str = "limits_timeout = \"1s\"";
const DECISIONS: &str = "cosgate_shared_limit_decisions_total";
const UP: &str = "cosgate_shared_limits_up";

impl Redis {
    /// Stops it from responding, until [`Redis::resume`].
    pub(crate) fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }
}

/// A configuration whose limits are shared through the Redis at `redis`. `acme` has `limits`.
fn shared(emulator: &Emulator, redis: &str, more: &str, limits: &str) -> String {
    let more = format!(
        "[credentials.shared]\nredis = \"{redis}\"\nkey = \"{KEY}\"\nlimits = true\n{more}\n\
         [tenants.acme.limits]\n{limits}\n"
    );
    toml(emulator.cos_addr(), emulator.sts_addr(), &more)
}

/// A gateway that has reached its Redis.
fn reached(toml: &str) -> Gateway {
    let gateway = Gateway::start(toml);
    eventually("the Redis is reached", || gateway.metric(UP, "") == 1);
    gateway
}

/// What the Redis has.
fn names(connection: &mut redis::Connection) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query(connection).unwrap()
}

/// The name of the only rate that the Redis has.
fn only_name(connection: &mut redis::Connection) -> String {
    let [name] = names(connection).try_into().unwrap();
    name
}

/// `HEAD` of the bucket: cosgate responds to it without COS.
fn head(gateway: &Gateway, key: (&str, &str)) -> Reply {
    Call::new(gateway.addr, "HEAD", "/photos")
        .signed_by(key)
        .send()
}

/// Sends to each of `gateways` as fast as it responds, until `count` requests are let in altogether. Gives how
/// many were, and how long it took.
fn flood(gateways: &[Gateway], count: u64) -> (u64, Duration) {
    let admitted = AtomicU64::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for gateway in gateways {
            let admitted = &admitted;
            scope.spawn(move || {
                let call = Call::new(gateway.addr, "HEAD", "/photos").signed_by(ACME);
                let mut client = Client::connect(gateway.addr);
                while admitted.load(Ordering::Relaxed) < count {
                    client.write(&call.bytes());
                    match client.read_reply("HEAD").status {
                        200 => _ = admitted.fetch_add(1, Ordering::Relaxed),
                        status => assert_eq!(status, 503),
                    }
                }
            });
        }
    });
    (admitted.load(Ordering::Relaxed), began.elapsed())
}

#[test]
fn requests_of_all_replicas_together_keep_to_the_rate() {
    let Some(redis) = Redis::start() else { return };
    let emulator = emulator();
    // With the first rate one request is leased at a time, with the second more.
    for (rate, burst) in [(60, 30), (150, 150)] {
        let limits = format!("requests_per_second = {rate}\nburst = {burst}");
        let toml = shared(&emulator, &url(redis.port), PATIENT, &limits);
        let gateways = [0; REPLICAS].map(|_| reached(&toml));
        let (admitted, took) = flood(&gateways, burst + rate * 3);
        let as_float = |count: u64| f64::from(u32::try_from(count).unwrap());
        let expected = as_float(burst) + as_float(rate) * took.as_secs_f64();
        let share = as_float(admitted) / expected;
        assert!(
            (0.95..1.05).contains(&share),
            "{admitted} in {took:?}: {share}"
        );
        for gateway in &gateways {
            assert_eq!(gateway.metric(DECISIONS, "own"), 0);
            assert!(gateway.metric(DECISIONS, "shared") > 0);
        }
        let mut connection = redis.connection();
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap(); // the credit is whole again
    }
}

#[test]
fn a_burst_is_let_in_once_over_all_replicas_and_other_tenants_have_their_own() {
    let Some(redis) = Redis::start() else { return };
    let emulator = emulator();
    let limits = "requests_per_second = 1\nburst = 20\n[tenants.globex.limits]\nrequests_per_second = 1\nburst = 6";
    let toml = shared(&emulator, &url(redis.port), PATIENT, limits);
    let gateways = [0; REPLICAS].map(|_| reached(&toml));
    let began = Instant::now();
    let admitted = |key| {
        let gateways = gateways.iter().cycle().take(30);
        gateways
            .filter(|gateway| head(gateway, key).status == 200)
            .count()
    };
    let of_acme = admitted(ACME);
    let refused = head(&gateways[0], ACME);
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    let of_globex = admitted(GLOBEX);
    let more = usize::try_from(began.elapsed().as_secs()).unwrap() + 1; // as time goes by
    assert!((20..=20 + more).contains(&of_acme), "{of_acme}");
    assert!((6..=6 + more).contains(&of_globex), "{of_globex}");
    let limited = |gateway: &Gateway| gateway.metric("cosgate_limited_requests_total", "rate");
    let limited: u64 = gateways.iter().map(limited).sum();
    assert_eq!(limited, 61 - (of_acme + of_globex) as u64);

    // What the Redis has names nobody, and expires.
    let mut connection = redis.connection();
    let mut names = names(&mut connection);
    names.retain(|name| name.starts_with("cosgate:limit:1:"));
    assert_eq!(names.len(), 2, "{names:?}");
    for name in names {
        assert!(!name.contains("acme") && !name.contains("globex"), "{name}");
        let left: i64 = redis::cmd("PTTL")
            .arg(&name)
            .query(&mut connection)
            .unwrap();
        assert!((1..=21_000).contains(&left), "{left}");
    }
}

#[test]
fn a_clock_of_the_redis_that_was_set_back_shuts_nobody_out() {
    let Some(redis) = Redis::start() else { return };
    let emulator = emulator();
    let limits = "requests_per_second = 10\nburst = 1";
    let gateway = reached(&shared(&emulator, &url(redis.port), PATIENT, limits));
    head(&gateway, ACME).assert_ok();
    let mut connection = redis.connection();
    let name = only_name(&mut connection);
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query(&mut connection).unwrap();
    let later = format!("{}000000", seconds + 3600);
    let mut set = redis::cmd("SET");
    set.arg(&name).arg(later).exec(&mut connection).unwrap();
    eventually("the tenant is let in again", || {
        head(&gateway, ACME).status == 200
    });
}

#[test]
fn a_value_that_is_no_time_is_replaced_and_the_redis_stays_in_use() {
    let Some(redis) = Redis::start() else { return };
    let emulator = emulator();
    let limits = "requests_per_second = 10\nburst = 5"; // no lease lasts for two requests
    let gateway = reached(&shared(&emulator, &url(redis.port), PATIENT, limits));
    head(&gateway, ACME).assert_ok();
    let mut connection = redis.connection();
    let name = only_name(&mut connection);
    for (command, value) in [
        ("LPUSH", "x"),
        ("SET", "nan"),
        ("SET", "x"),
        ("SET", "-inf"),
    ] {
        redis::cmd("DEL").arg(&name).exec(&mut connection).unwrap();
        redis::cmd(command)
            .arg(&name)
            .arg(value)
            .exec(&mut connection)
            .unwrap();
        eventually("the value is replaced", || {
            let status = head(&gateway, ACME).status;
            assert!([200, 503].contains(&status), "{status}");
            let stored: Result<f64, _> = redis::cmd("GET").arg(&name).query(&mut connection);
            stored.is_ok_and(|time| time > 1e15)
        });
    }
    assert_eq!(gateway.metric(DECISIONS, "own"), 0);
    assert_eq!(
        gateway.metric("cosgate_shared_limit_calls_total", "failed"),
        0
    );
}

/// Sends `count` requests, of which none may take long, to a gateway whose Redis is no more.
fn assert_undelayed(gateway: &Gateway, count: u32) {
    let before = gateway.metric(DECISIONS, "own");
    let began = Instant::now();
    for _ in 0..count {
        let started = Instant::now();
        assert_eq!(head(gateway, ACME).status, 200);
        let took = started.elapsed();
        assert!(took < Duration::from_millis(400), "{took:?}"); // of a busy machine
    }
    let took = began.elapsed();
    // Were each to wait for the Redis, it would be more.
    assert!(took < Duration::from_millis(50) * count, "{took:?}");
    // Units of the lease before, and of the call in flight then, may have served a few of them.
    let own = gateway.metric(DECISIONS, "own") - before;
    assert!(
        (u64::from(count) - 3..=u64::from(count)).contains(&own),
        "{own}"
    );
}

#[test]
fn a_redis_that_dies_or_hangs_delays_no_request_and_is_used_again() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let emulator = emulator();
    let limits = "requests_per_second = 50\nburst = 1000"; // one unit is leased at a time
    let toml = shared(
        &emulator,
        &url(redis.port),
        "limits_timeout = \"200ms\"",
        limits,
    );
    let gateway = reached(&toml);
    let is_shared = || {
        let before = gateway.metric(DECISIONS, "shared");
        head(&gateway, ACME).assert_ok();
        gateway.metric(DECISIONS, "shared") > before
    };
    assert!(is_shared());

    redis.suspend();
    assert_undelayed(&gateway, 40);
    assert_eq!(gateway.metric(UP, ""), 0);
    redis.resume();
    eventually("it is used again", is_shared);

    redis.kill();
    assert_undelayed(&gateway, 40);
    assert_eq!(gateway.metric(UP, ""), 0);
    assert!(gateway.metric("cosgate_shared_limit_calls_total", "failed") >= 1);
    let port = redis.port;
    let _redis = Redis::start_with(port, &["--port", &port.to_string()]);
    eventually("it is used again", is_shared);
}

#[test]
fn without_a_redis_each_replica_keeps_to_its_own_limit() {
    let emulator = emulator();
    let limits = "requests_per_second = 1\nburst = 4";
    let toml = shared(&emulator, &url(free_port()), "", limits);
    let gateways = [0; 2].map(|_| Gateway::start(&toml));
    for gateway in &gateways {
        let began = Instant::now();
        let admitted = (0..8).filter(|_| head(gateway, ACME).status == 200).count();
        let more = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        assert!((4..=4 + more).contains(&admitted), "{admitted}");
        assert_eq!(gateway.metric(DECISIONS, "own"), 8);
    }
}

#[test]
fn replicas_share_limits_over_tls_and_a_reload_ends_and_begins_it() {
    let authority = Authority::new("Redis CA");
    let Some((_redis, port)) = Redis::start_with_tls(&authority, "sesame") else {
        return;
    };
    let emulator = emulator();
    let ca = authority.ca();
    let more = format!("ca_file = \"{}\"\n{PATIENT}", ca.display());
    let url = format!("rediss://:sesame@localhost:{port}");
    let limits = "requests_per_second = 1\nburst = 4";
    let on = shared(&emulator, &url, &more, limits);
    let gateways = [0; 2].map(|_| reached(&on));
    let began = Instant::now();
    let admitted = |gateway| (0..8).filter(|_| head(gateway, ACME).status == 200).count();
    let of_both = admitted(&gateways[0]) + admitted(&gateways[1]);
    let more = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((4..=4 + more).contains(&of_both), "{of_both}");

    // The second has its own count from now on, of which it has used nearly nothing.
    let off = on.replace("limits = true", "limits = false");
    gateways[1].reload(&off).unwrap();
    let shared = gateways[1].metric(DECISIONS, "shared");
    assert!(admitted(&gateways[1]) >= 3);
    assert_eq!(gateways[1].metric(DECISIONS, "shared"), shared);
    gateways[1].reload(&on).unwrap();
    eventually("limits are shared again", || {
        head(&gateways[1], ACME);
        gateways[1].metric(DECISIONS, "shared") > shared
    });
}

#[test]
fn bodies_of_all_replicas_together_keep_to_the_rate() {
    let Some(redis) = Redis::start() else { return };
    let emulator = emulator();
    let toml = shared(
        &emulator,
        &url(redis.port),
        PATIENT,
        "download_rate = \"4MiB\"",
    );
    let gateways = [0; REPLICAS].map(|_| reached(&toml));
    let size = 8 << 20;
    let target = "/photos/acme/a";
    let put = Call::new(gateways[0].addr, "PUT", target).signed_by(ACME);
    put.body(vec![b'x'; size]).send().assert_ok();
    let began = Instant::now();
    thread::scope(|scope| {
        for gateway in &gateways {
            scope.spawn(move || {
                let get = Call::new(gateway.addr, "GET", target).signed_by(ACME);
                assert_eq!(get.send().assert_ok().body.len(), size);
            });
        }
    });
    let share = 6.0 / began.elapsed().as_secs_f64();
    println!("{share} of the rate");
    // A machine that is busy moves less than it may, and never more.
    assert!((0.92..1.05).contains(&share), "{share} of the rate");
}
