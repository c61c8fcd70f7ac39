//! What is refused before there is a request has a line in the program log and a counter with a reason.

use crate::support::{Authority, Client, Log, PATIENCE, World, eventually};

const HEADS: &str = "cosgate_heads_refused_total";

/// Waits until `reason` is counted once under `name`, and a line of the log has it and the client.
#[track_caller]
fn assert_recorded(world: &World, client: &Client, name: &str, reason: &str) {
    eventually(reason, || {
        world.gateway.metric(name, &format!("\"{reason}\"")) == 1
    });
    let peer = client.stream.local_addr().unwrap().to_string();
    let is_it = |line: &str| {
        line.contains(&format!("cause=\"{reason}\"")) && line.contains(&format!("peer={peer}"))
    };
    let log = Log::of_program();
    eventually("it is logged", || log.text().lines().any(is_it));
}

#[test]
fn records_refused_heads_by_reason() {
    let log = Log::of_program();
    let world = World::new();
    let large = format!("GET /{} HTTP/1.1\r\n", "a".repeat(20_000));
    let target = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    let big = World::with("[server.limits]\nhead_bytes = \"128KiB\"");
    for (world, head, reason) in [
        (&world, "GET / HTTP/1.1\r\nhost: x\n\r\n", "framing"),
        (
            &world,
            "GET /a#CANARY HTTP/1.1\r\nhost: x\r\n\r\n",
            "fragment",
        ),
        (&world, "CANARY\r\n\r\n", "malformed"),
        (&world, &large, "too_large"),
        (&big, &target, "target_too_long"),
    ] {
        let mut client = Client::connect(world.gateway.addr);
        client.write(head.as_bytes());
        assert!(client.read_reply("GET").status >= 400, "{reason}");
        assert_recorded(world, &client, HEADS, reason);
    }
    let lines = log.text();
    let logged = lines
        .lines()
        .filter(|line| line.contains("a request head is refused"));
    assert!(logged.clone().count() >= 5 && !logged.clone().any(|line| line.contains("CANARY")));
}

#[test]
fn records_late_heads() {
    let _log = Log::of_program();
    let world = World::with("[server.limits]\nhead_timeout = \"200ms\"");
    let mut half = Client::connect(world.gateway.addr);
    half.write(b"GET / HTTP/1.1\r\nHost: x\r\n");
    let mut silent = Client::connect(world.gateway.addr);
    assert!(half.closes_within(PATIENCE) && silent.closes_within(PATIENCE));
    assert_recorded(&world, &half, HEADS, "timeout");
    assert_recorded(&world, &silent, HEADS, "silent");
}

/// The time of a connection that waits for its next request is no head's.
#[test]
fn records_no_end_of_an_idle_connection() {
    let world = World::with("[server.limits]\nhead_timeout = \"200ms\"\nidle_timeout = \"300ms\"");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&world.signed("GET", "/").bytes());
    client.read_reply("GET").assert_ok();
    assert!(client.closes_within(PATIENCE));
    assert_eq!(world.gateway.metric(HEADS, ""), 0);
}

#[test]
fn records_failed_handshakes() {
    let _log = Log::of_program();
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let mut plain = Client::connect(world.gateway.addr);
    plain.write(&world.signed("GET", "/").bytes());
    assert!(plain.closes_within(PATIENCE));
    let name = "cosgate_tls_handshake_failures_total";
    assert_recorded(&world, &plain, name, "not_tls");
}

#[test]
fn records_refused_proxy_headers_by_reason() {
    let _log = Log::of_program();
    let world = World::edited(|toml| {
        let server = "threads = 1\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
                      limits = { head_timeout = \"200ms\" }\n";
        toml.replacen("threads = 1\n", server, 1)
    });
    let name = "cosgate_proxy_headers_refused_total";
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], "missing"),
        (b"PROXY TCP4 10.1.2.3 198.51.100.256 5 443\r\n", "address"),
        (b"PROXY TCP4 10.1.2.3 198.51.100.1 5 443\nGET", "malformed"),
        (b"PROXY TCP4 10", "timeout"),
    ] {
        let mut client = Client::connect(world.gateway.addr);
        client.write(bytes);
        assert!(client.closes_within(PATIENCE), "{reason}");
        assert_recorded(&world, &client, name, reason);
    }
}

#[test]
fn records_pauses_of_accepting() {
    let log = Log::of_program();
    let world = World::with("[server.limits]\nconnections = 2");
    let held: Vec<_> = (0..2)
        .map(|_| Client::connect(world.gateway.addr))
        .collect();
    let name = "cosgate_accept_pauses_total";
    eventually("it is counted", || {
        world.gateway.metric(name, "\"connections\"") == 1
    });
    log.assert_contains("accepting pauses: there are as many connections as");
    let mut waiting = Client::connect(world.gateway.addr);
    waiting.write(&world.signed("GET", "/").bytes());
    drop(held);
    waiting.read_reply("GET").assert_ok();
}
