//! A tenant's own limits, over sockets: requests over the limits wait or get `Retry-After`, and other tenants are
//! not affected.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real time is what is tested, and a test may panic"
)]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    ACME, Call, Client, GLOBEX, Reply, Scripted, World, act, eventually, header_of,
};

/// Two threads serve requests, and acme has these limits.
fn world(limits: &str) -> World {
    World::edited(|toml| limited(&toml, limits))
}

fn limited(toml: &str, limits: &str) -> String {
    toml.replace("threads = 1", "threads = 2") + "\n[tenants.acme.limits]\n" + limits
}

fn globex(world: &World, method: &str, target: &str) -> Call {
    Call::new(world.gateway.addr, method, target).signed_by(GLOBEX)
}

#[track_caller]
fn assert_slow_down(reply: &Reply) {
    reply.assert_error(503, "SlowDown");
    let seconds = reply.header("retry-after").map(str::parse::<u64>);
    assert!(matches!(seconds, Some(Ok(1..=2))), "{reply:?}");
}

/// Asserts that `run` takes as long as this many bytes at this rate: at no time a fifth less, and at most a fifth and a
/// second more. A machine that pauses makes it longer, so that `run` has three attempts.
#[track_caller]
fn assert_takes(bytes: usize, rate: usize, mut run: impl FnMut() -> Duration) {
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let expected = bytes as f64 / rate as f64;
    let is_slow = |_: &i32| {
        let seconds = run().as_secs_f64();
        assert!(
            seconds >= expected * 0.8,
            "{seconds}, expected {expected} s"
        );
        seconds >= expected * 1.2 + 1.0
    };
    let slow = (1..=3).take_while(is_slow).count();
    assert!(
        slow < 3,
        "each of {slow} attempts took longer than {expected} s"
    );
}

#[test]
fn requests_over_the_rate_get_retry_after() {
    let world = world("requests_per_second = 40\nburst = 10");
    let started = Instant::now();
    let served: u32 = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(world.gateway.addr);
                    let mut served = 0;
                    while started.elapsed() < Duration::from_secs(2) {
                        client.write(&world.signed("GET", "/photos?location").bytes());
                        let reply = client.read_reply("GET");
                        if reply.status == 200 {
                            served += 1;
                        } else {
                            assert_slow_down(&reply);
                            thread::sleep(Duration::from_millis(2));
                        }
                    }
                    served
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    // The burst, and 40 in each of two seconds.
    assert!((72..=108).contains(&served), "{served}");
    let counted = world
        .gateway
        .metric("cosgate_limited_requests_total", "rate");
    assert!(counted > 100, "{counted}");
    globex(&world, "GET", "/photos?location")
        .fetch()
        .assert_ok();
}

#[test]
fn wrong_signature_uses_no_quota() {
    let world = world("requests_per_second = 1\nburst = 1");
    for _ in 0..5 {
        let forged = Call::new(world.gateway.addr, "GET", "/photos?location");
        forged
            .signed_by((ACME.0, "wrong"))
            .fetch()
            .assert_error(403, "SignatureDoesNotMatch");
    }
    world.fetch("GET", "/photos?location").assert_ok();
    assert_slow_down(&world.fetch("GET", "/photos?location"));
}

#[test]
fn disconnected_client_releases_its_slot() {
    let goes_on = act(|peer| {
        peer.head();
        peer.respond("HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n");
        for _ in 0..2000 {
            peer.respond(&"x".repeat(10_000));
        }
    });
    let world = Scripted::with(
        vec![goes_on],
        "[tenants.acme.limits]\nconcurrent_requests = 1",
    );
    let probe = || world.signed("GET", "/photos?location").fetch();
    let upload = world
        .signed("PUT", "/photos/acme/x")
        .payload("UNSIGNED-PAYLOAD");
    let upload = upload.header("content-length", "1000");
    for call in [upload, world.signed("GET", "/photos/acme/x")] {
        let mut client = Client::connect(world.gateway.addr);
        client.write(&call.head());
        eventually("the place is taken", || probe().status == 503);
        assert_slow_down(&probe());
        let other = Call::new(world.gateway.addr, "GET", "/photos?location");
        other.signed_by(GLOBEX).fetch().assert_ok();
        drop(client);
        eventually("the place is free", || probe().status == 200);
        probe().assert_ok();
    }
    let metric = "cosgate_limited_requests_total";
    assert!(world.gateway.metric(metric, "concurrency") > 0);
}

#[test]
fn uploads_share_the_tenants_rate() {
    const RATE: usize = 2 << 20;
    let world = world("upload_rate = \"2MiB\"");
    let body = vec![7; 3 << 20];
    assert_takes(2 * body.len(), RATE, || two_uploads(&world, &body));
    assert_eq!(
        world.stored("acme/1").map(|object| object.len()),
        Some(3 << 20)
    );
}

/// The time of the longer one of two uploads that begin at once.
fn two_uploads(world: &World, body: &[u8]) -> Duration {
    let start = Barrier::new(2);
    let times: Vec<Duration> = thread::scope(|scope| {
        let uploads: Vec<_> = (0..2)
            .map(|index| {
                let start = &start;
                scope.spawn(move || {
                    let call = world.signed("PUT", &format!("/photos/acme/{index}"));
                    let call = call.body(body.to_vec()).payload("UNSIGNED-PAYLOAD");
                    start.wait();
                    let started = Instant::now();
                    call.fetch().assert_ok();
                    started.elapsed()
                })
            })
            .collect();
        uploads
            .into_iter()
            .map(|upload| upload.join().unwrap())
            .collect()
    });
    times.iter().max().copied().unwrap_or_default()
}

#[test]
fn limits_small_uploads_and_documents() {
    let world = world("upload_rate = \"64KiB\"");
    let body = "x".repeat(8 << 10);
    world.put("/photos/acme/warm", "");
    assert_takes(16 * body.len(), 64 << 10, || {
        let started = Instant::now();
        for _ in 0..16 {
            world.put("/photos/acme/small", &body);
        }
        started.elapsed()
    });
}

#[test]
fn downloads_keep_to_the_rate() {
    const RATE: usize = 1 << 20;
    let world = world("download_rate = \"1MiB\"");
    let body = "y".repeat(4 * RATE);
    world.put("/photos/acme/object", &body);
    assert_takes(body.len(), RATE, || {
        let started = Instant::now();
        let reply = world.fetch("GET", "/photos/acme/object");
        let taken = started.elapsed();
        assert!(reply.assert_ok().body == body.as_bytes());
        taken
    });
}

#[test]
fn rate_limited_transfer_is_no_timeout() {
    let world = World::edited(|toml| {
        let limits = "upload_rate = \"256KiB\"\ndownload_rate = \"256KiB\"";
        limited(&toml, limits)
            + "\n[server.limits]\nbody_window = \"300ms\"\nbody_rate = \"1KiB\"\n"
    });
    let body = "z".repeat(640 << 10);
    world.put("/photos/acme/object", &body);
    let reply = world.fetch("GET", "/photos/acme/object");
    assert!(reply.assert_ok().body == body.as_bytes());
}

#[test]
fn rejects_too_large_objects_before_the_body() {
    let world = World::edited(|toml| {
        limited(&toml, "object_size = \"1KiB\"").replacen(
            "[upstream]",
            "[upstream]\nspool_unknown_length = \"4KiB\"",
            1,
        )
    });
    world.put("/photos/acme/fits", &"x".repeat(1024));
    let before = world.upstream_requests();
    for target in ["/photos/acme/x", "/photos/acme/x?partNumber=1&uploadId=u"] {
        let call = world.signed("PUT", target).payload("UNSIGNED-PAYLOAD");
        let call = call
            .header("content-length", "1025")
            .header("expect", "100-continue");
        let mut client = Client::connect(world.gateway.addr);
        client.write(&call.head());
        client.read_one("PUT").assert_error(400, "EntityTooLarge");
    }
    let chunked = world
        .signed("PUT", "/photos/acme/x")
        .payload("UNSIGNED-PAYLOAD");
    let chunked = chunked.header("transfer-encoding", "chunked");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&chunked.head());
    client.write(format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(0x401)).as_bytes());
    client.read_reply("PUT").assert_error(400, "EntityTooLarge");
    assert_eq!(world.upstream_requests(), before);
    assert_eq!(
        world
            .gateway
            .metric("cosgate_limited_requests_total", "object_size"),
        3
    );
    globex(&world, "PUT", "/photos/globex/x")
        .body(vec![0; 2000])
        .fetch()
        .assert_ok();
}

#[test]
fn retries_count_once() {
    let breaks = act(|peer| {
        peer.head();
    });
    let responses = act(|peer| {
        while let Some(head) = peer.head() {
            peer.body(header_of(&head, "content-length").map_or(0, |l| l.parse().unwrap()));
            peer.respond("HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: \"e\"\r\n\r\n");
        }
    });
    let limits = "[tenants.acme.limits]\nrequests_per_second = 1\nburst = 2";
    let scripted = Scripted::with(vec![breaks, responses], limits);
    let put = scripted
        .signed("PUT", "/photos/acme/x")
        .body("x".repeat(1 << 10));
    put.fetch().assert_ok();
    assert_eq!(scripted.connections(), 2);
    scripted
        .signed("GET", "/photos?location")
        .fetch()
        .assert_ok();
}

#[test]
fn limited_tenant_does_not_delay_others() {
    let world = world("requests_per_second = 50\nconcurrent_requests = 8\nupload_rate = \"1MiB\"");
    world.put("/photos/acme/object", "hello");
    globex(&world, "PUT", "/photos/globex/object")
        .body("hello")
        .fetch()
        .assert_ok();
    let slowest_of_99_percent = || {
        let mut client = Client::connect(world.gateway.addr);
        let mut times: Vec<Duration> = (0..300)
            .map(|_| {
                let call = globex(&world, "GET", "/photos/globex/object").bytes();
                let started = Instant::now();
                client.write(&call);
                client.read_reply("GET").assert_ok();
                started.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() * 99 / 100]
    };
    let alone = slowest_of_99_percent();
    let done = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        for index in 0..6 {
            let (world, done) = (&world, &done);
            scope.spawn(move || {
                let body = vec![1; 256 << 10];
                while !done.load(Ordering::Relaxed) {
                    let call = if index < 2 {
                        world.signed("PUT", "/photos/acme/up").body(body.clone())
                    } else {
                        world.signed("GET", "/photos/acme/object")
                    };
                    call.send();
                }
            });
        }
        let beside = slowest_of_99_percent();
        done.store(true, Ordering::Relaxed);
        beside
    });
    assert!(world.gateway.metric("cosgate_limited_requests_total", "") > 0);
    let bound = alone * 20 + Duration::from_millis(100);
    assert!(
        beside < bound,
        "{beside:?} beside the other, {alone:?} alone"
    );
}
