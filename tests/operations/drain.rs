//! The end of the program: what is in flight is finished or cut, never half stored.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::large_stack_arrays,
    reason = "a test may panic, and measures real time"
)]

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{self, ACME, BUCKET, Call, Client, Program, World, eventually, toml};

const KEY: &str = "/photos/acme/k";
const SECOND: Duration = Duration::from_secs(1);

/// An upload with its first half sent, and the bytes of the other.
fn half_sent(call: &Call) -> (Client, Vec<u8>) {
    let mut client = Client::connect(call.addr);
    let (first, second) = call.body.split_at(call.body.len() / 2);
    client.write(&call.head());
    client.write(first);
    (client, second.to_vec())
}

fn upload(world: &World) -> Call {
    world
        .signed("PUT", KEY)
        .payload("UNSIGNED-PAYLOAD")
        .body(vec![3; 1 << 20])
}

fn reached_cos(world: &World) {
    let requests = || world.emulator.counters().counts().cos_requests;
    eventually("the upload has reached COS", || requests() > 0);
}

#[test]
fn what_is_in_flight_is_finished_and_nothing_else_is_taken() {
    let mut world = World::new();
    let (mut client, rest) = half_sent(&upload(&world));
    reached_cos(&world);
    let mut idle = Client::connect(world.gateway.addr);
    idle.write(&world.signed("GET", KEY).bytes());
    assert_eq!(idle.read_one("GET").status, 404);

    world.gateway.drain();
    assert!(idle.closes_within(5 * SECOND), "an idle connection stays");
    let addr = world.gateway.addr;
    eventually("new connections are refused", || {
        TcpStream::connect(addr).is_err()
    });
    client.write(&rest);
    let reply = client.read_one("PUT");
    reply.assert_ok();
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(client.closes_within(5 * SECOND));
    assert!(world.gateway.join() < 5 * SECOND);
    let stored = world.emulator.object_bytes(BUCKET, "acme/k").unwrap();
    assert_eq!(stored.len(), 1 << 20);
}

#[test]
fn a_download_in_flight_is_finished_too() {
    let mut world = World::new();
    let put = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
    put.body(vec![3; 32 << 20]).send().assert_ok();
    let mut client = Client::connect(world.gateway.addr);
    client.write(&world.signed("GET", KEY).bytes());
    client.stream.peek(&mut [0]).unwrap();
    world.gateway.drain();
    let addr = world.gateway.addr;
    eventually("new connections are refused", || {
        TcpStream::connect(addr).is_err()
    });
    let reply = client.read_one("GET");
    assert_eq!(reply.assert_ok().body.len(), 32 << 20);
    assert!(world.gateway.join() < 5 * SECOND);
}

#[test]
fn what_is_not_finished_in_time_is_cut_and_not_stored() {
    let mut world = World::with("[server.limits]\ndrain_timeout = \"500ms\"");
    let (mut client, _) = half_sent(&upload(&world));
    reached_cos(&world);
    let started = Instant::now();
    world.gateway.drain();
    world.gateway.join();
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(450) && took < 5 * SECOND,
        "{took:?}"
    );
    assert!(client.closes_within(SECOND));
    assert_eq!(world.emulator.object_bytes(BUCKET, "acme/k"), None);
    assert!(world.gateway.log.text().contains("\"PutObject\""));
}

#[test]
fn a_gateway_without_requests_ends_soon() {
    let mut world = World::new();
    let _silent = Client::connect(world.gateway.addr);
    let mut idle = Client::connect(world.gateway.addr);
    idle.write(&world.signed("GET", KEY).bytes());
    idle.read_one("GET");
    world.gateway.drain();
    // Two seconds are for clients that do not close their side.
    assert!(world.gateway.join() < 5 * SECOND);
}

/// A connection that is accepted as the drain begins does not hold up the end.
#[test]
fn connections_that_come_with_the_drain_do_not_delay_it() {
    for _ in 0..10 {
        let mut world = World::new();
        let addr = world.gateway.addr;
        let connected = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connected);
        let flood = std::thread::spawn(move || {
            while let Ok(stream) = TcpStream::connect(addr) {
                count.fetch_add(1, Ordering::Relaxed);
                drop(stream);
            }
        });
        eventually("a flood", || connected.load(Ordering::Relaxed) > 100);
        world.gateway.drain();
        assert!(world.gateway.join() < 5 * SECOND);
        flood.join().unwrap();
    }
}

#[test]
fn serve_ends_well_on_a_signal() {
    for signal in ["TERM", "INT", "QUIT"] {
        let emulator = support::emulator();
        let mut program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
        let call = Call::new(program.addr, "PUT", KEY)
            .payload("UNSIGNED-PAYLOAD")
            .body(vec![3; 1 << 20])
            .signed_by(ACME);
        let (mut client, rest) = half_sent(&call);
        eventually("the upload has reached COS", || {
            emulator.counters().counts().cos_requests > 0
        });
        program.signal(signal);
        let addr = program.addr;
        eventually("new connections are refused", || {
            TcpStream::connect(addr).is_err()
        });
        client.write(&rest);
        client.read_one("PUT").assert_ok();
        assert_eq!(program.wait(), Some(0));
        assert!(emulator.object_bytes(BUCKET, "acme/k").is_some());
    }
}

#[test]
fn dev_ends_well_on_a_signal() {
    for signal in ["TERM", "INT", "QUIT"] {
        let mut program = Program::dev();
        let put = Call::new(program.addr, "PUT", "/demo/public/k").body("x");
        put.send().assert_ok();
        program.signal(signal);
        assert_eq!(program.wait(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let emulator = support::emulator();
    let mut program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let call = Call::new(program.addr, "PUT", KEY)
        .payload("UNSIGNED-PAYLOAD")
        .body(vec![3; 1 << 20])
        .signed_by(ACME);
    let (mut client, _) = half_sent(&call);
    eventually("the upload has reached COS", || {
        emulator.counters().counts().cos_requests > 0
    });
    program.signal("TERM");
    eventually("the drain begins", || {
        program.printed().contains("drain begins")
    });
    program.signal("HUP"); // it counts for nothing
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(program.process.try_wait().unwrap(), None, "it did not wait");
    let second = Instant::now();
    program.signal("INT");
    assert_eq!(program.wait(), Some(0));
    assert!(second.elapsed() < 10 * SECOND, "{:?}", second.elapsed());
    let printed = program.printed();
    assert!(
        printed.contains("second signal: the drain ends at once signal=\"SIGINT\""),
        "{printed}"
    );
    for counted in ["connections=1 requests=1", "cut_short=1"] {
        assert!(printed.contains(counted), "{counted}: {printed}");
    }
    assert!(client.closes_within(SECOND));
    assert_eq!(emulator.object_bytes(BUCKET, "acme/k"), None);
}

/// Nothing is repaired after a kill, since nothing half was there.
#[test]
fn a_killed_program_leaves_no_half_object() {
    let emulator = support::emulator();
    let program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let call = Call::new(program.addr, "PUT", KEY)
        .payload("UNSIGNED-PAYLOAD")
        .body(vec![3; 1 << 20])
        .signed_by(ACME);
    let _client = half_sent(&call);
    eventually("the upload has reached COS", || {
        emulator.counters().counts().cos_requests > 0
    });
    drop(program);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(emulator.object_bytes(BUCKET, "acme/k"), None);
}
