//! Load balancers that forward connections: the PROXY protocol, and loopback as a trusted proxy.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic, and measures real time"
)]

use std::time::{Duration, Instant};

use crate::support::http2::Http2;
use crate::support::{Authority, Call, Client, Reply, World, eventually, tls_client};
use rustls::version::{TLS12, TLS13};

const KEY: &str = "/photos/acme/a";
const PUBLIC: &str = "/photos/public/a";
const REFUSED: &str = "cosgate_proxy_headers_refused_total";
/// The addresses from which acme may call.
const INSIDE: &str = "PROXY TCP4 10.1.2.3 198.51.100.1 50000 443\r\n";
const OUTSIDE: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 50000 443\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// acme may call only from `10.0.0.0/8`; `server` contains keys of `[server]`.
fn world_with(server: &str, more: &str) -> World {
    World::edited(|toml| {
        let server = format!("threads = 1\n{server}");
        let allowed = "[tenants.acme]\nallowed_ips = [\"10.0.0.0/8\"]";
        let toml = toml.replacen("threads = 1", &server, 1);
        toml.replacen("[tenants.acme]", allowed, 1) + more
    })
}

/// The load balancer is on loopback, and another proxy is at `192.0.2.1`.
fn world(server: &str) -> World {
    let trusted = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\", \"192.0.2.1\"]\n";
    world_with(&format!("{trusted}{server}"), "")
}

fn send(header: &[u8], call: &Call) -> Reply {
    let mut client = Client::connect(call.addr).behind(header);
    client.write(&call.bytes());
    client.read_reply(&call.method)
}

/// Whether the connection ends without a response.
fn is_closed(world: &World, bytes: &[u8]) -> bool {
    let mut client = Client::connect(world.gateway.addr).behind(bytes);
    matches!(client.try_fill(), Ok(0) | Err(_))
}

/// Version 2 for an IPv4 client, with values after its addresses.
fn v2(source: [u8; 4], values: &[u8]) -> Vec<u8> {
    let addresses = [&source[..], &[198, 51, 100, 1, 0xc3, 0x50, 1, 0xbb]].concat();
    let length = u16::try_from(addresses.len() + values.len()).unwrap();
    let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    [&start[..], &length.to_be_bytes(), &addresses, values].concat()
}

#[test]
fn proxy_header_gives_the_client_address() {
    let world = world("");
    let put = world.signed("PUT", KEY).body("x");
    for header in [
        INSIDE.as_bytes(),
        b"PROXY TCP6 ::ffff:10.1.2.3 ::1 50000 443\r\n",
        &v2([10, 1, 2, 3], b""),
        &v2([10, 1, 2, 3], &[&[0xea, 8, 0][..], &[7; 2048]].concat()),
    ] {
        send(header, &put).assert_ok();
    }
    world.gateway.log.assert_contains("\"client\":\"10.1.2.3\"");
    let served = world.upstream_requests();
    for header in [OUTSIDE.as_bytes(), &v2([203, 0, 113, 9], b"")] {
        send(header, &put).assert_error(403, "AccessDenied");
    }
    world
        .gateway
        .log
        .assert_contains("\"client\":\"203.0.113.9\"");
    assert_eq!(world.upstream_requests(), served);
    // All requests of a connection belong to that client, and the header may arrive in pieces.
    let mut client = Client::connect(world.gateway.addr);
    for byte in INSIDE.as_bytes() {
        client.write(&[*byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..2 {
        client.write(&put.bytes());
        client.read_reply("PUT").assert_ok();
    }
}

#[test]
fn closes_connections_with_a_bad_proxy_header() {
    let world = world("limits = { head_timeout = \"300ms\" }\n");
    let request = world.signed("GET", KEY).bytes();
    let twice = [INSIDE.as_bytes(), INSIDE.as_bytes(), &request].concat();
    for (at, bytes) in [
        &request[..],
        b"PROXY TCP4 10.1.2.3 198.51.100.1 50000 443\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4 10.1.2.3 198.51.100.256 50000 443\r\n",
        format!("PROXY UNKNOWN {}", "x".repeat(107)).as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and more",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(is_closed(&world, bytes), "{at}");
        let counted = u64::try_from(at).unwrap() + 1;
        eventually("it is counted", || {
            world.gateway.metric(REFUSED, "") == counted
        });
    }
    // A second header is not a request.
    let mut client = Client::connect(world.gateway.addr).behind(&twice);
    assert_eq!(client.read_reply("GET").status, 400);
    // cosgate does not wait long for a missing header.
    let started = Instant::now();
    assert!(is_closed(&world, &INSIDE.as_bytes()[..20]));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(world.upstream_requests(), 0);
    eventually("it is counted", || world.gateway.metric(REFUSED, "") == 7);
}

#[test]
fn ignores_proxy_headers_of_untrusted_peers() {
    for server in [
        "proxy_protocol = true\ntrusted_proxies = [\"192.0.2.1\"]\n",
        "trusted_proxies = [\"127.0.0.1\"]\n",
    ] {
        let world = world_with(server, "");
        let get = world.signed("GET", KEY);
        let mut client = Client::connect(world.gateway.addr).behind(INSIDE.as_bytes());
        client.write(&get.bytes());
        assert_eq!(client.read_reply("GET").status, 400, "{server}");
        send(b"", &get).assert_error(403, "AccessDenied");
        assert_eq!(world.upstream_requests(), 0);
    }
}

#[test]
fn trusts_forwarded_addresses_of_the_proxy_only() {
    let world = world("");
    let put = world
        .signed("PUT", KEY)
        .header("x-forwarded-for", "10.1.2.3")
        .body("x");
    let behind_another = b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\n";
    send(behind_another, &put).assert_ok();
    send(LOCAL, &put).assert_ok();
    let served = world.upstream_requests();
    for header in [
        OUTSIDE,
        "PROXY UNKNOWN\r\n",
        "\r\n\r\n\0\r\nQUIT\n\u{21}\0\0\0",
    ] {
        send(header.as_bytes(), &put).assert_error(403, "AccessDenied");
    }
    assert_eq!(world.upstream_requests(), served);
}

#[test]
fn client_behind_a_proxy_is_not_local() {
    let world = world("");
    let put = Call::new(world.gateway.addr, "PUT", PUBLIC).body("x");
    for header in [
        b"PROXY TCP4 127.0.0.1 127.0.0.1 50000 443\r\n",
        LOCAL,
        b"PROXY UNKNOWN\r\n",
        &v2([127, 0, 0, 1], b""),
    ] {
        send(header, &put).assert_error(403, "AccessDenied");
    }
}

#[test]
fn trusted_loopback_has_no_local_permissions() {
    // With this key there can be no anonymous tenant, because no client counts as local.
    let world = |server: &str| {
        let key = "access_keys = [{ id = \"ANYONEKEY00000000001\", secret = \"anyone\" }]";
        World::edited(|toml| {
            let server = format!("threads = 1\n{server}");
            toml.replacen("threads = 1", &server, 1)
                .replacen("anonymous = true", key, 1)
                .replacen("[tenants.acme]", "[tenants.acme]\nvend = true", 1)
        })
    };
    for (server, status) in [
        ("", 200),
        ("loopback_is_proxy = true\n", 403),
        ("loopback_is_proxy = true\nallow_plain_bearer = true\n", 200),
    ] {
        let world = world(server);
        let vended = world.signed("POST", "/.cosgate/credentials").body("{}");
        assert_eq!(vended.send().status, status, "{server}");
        world.signed("PUT", KEY).body("x").fetch().assert_ok();
    }
    // A tenant for all local clients would be open to every client behind a proxy.
    let remote = "threads = 1\nloopback_is_proxy = true\nallow_remote_anonymous = true";
    let world = World::edited(|toml| toml.replacen("threads = 1", remote, 1));
    let put = Call::new(world.gateway.addr, "PUT", PUBLIC).body("x");
    put.fetch().assert_ok();
}

#[test]
fn counts_connections_by_proxy_header_address() {
    let world = world("limits = { connections_per_address = 2 }\n");
    let connect = |header: &str| Client::connect(world.gateway.addr).behind(header.as_bytes());
    let mut held: Vec<_> = (0..2).map(|_| connect(OUTSIDE)).collect();
    let get = world.signed("GET", KEY);
    for client in &mut held {
        client.write(&get.bytes());
        client.read_reply("GET").assert_error(403, "AccessDenied");
    }
    assert!(is_closed(&world, OUTSIDE.as_bytes()));
    let refused = || {
        world
            .gateway
            .metric("cosgate_connections_refused_total", "")
    };
    eventually("it is counted", || refused() == 1);
    // The limit affects neither another client nor the proxy itself.
    send(INSIDE.as_bytes(), &get).assert_error(404, "NoSuchKey");
    let _alive: Vec<_> = (0..4)
        .map(|_| send(LOCAL, &get).assert_error(403, "AccessDenied"))
        .collect();
    drop(held);
    eventually("it has room again", || {
        let mut client = connect(OUTSIDE);
        client.write(&get.bytes());
        client.fill()
    });
}

#[test]
fn counts_trusted_loopback_by_address() {
    let limits = "limits = { connections_per_address = 1 }\n";
    let world = World::edited(|toml| {
        let keys = format!("threads = 1\nloopback_is_proxy = true\n{limits}");
        let key = "access_keys = [{ id = \"ANYONEKEY00000000001\", secret = \"anyone\" }]";
        toml.replacen("threads = 1", &keys, 1)
            .replacen("anonymous = true", key, 1)
    });
    let get = world.signed("GET", KEY);
    let mut held = Client::connect(world.gateway.addr);
    held.write(&get.bytes());
    held.read_reply("GET").assert_error(404, "NoSuchKey");
    assert!(is_closed(&world, &get.bytes()));
}

#[test]
fn port_probe_is_no_failure() {
    let world = world("");
    drop(Client::connect(world.gateway.addr));
    send(INSIDE.as_bytes(), &world.signed("GET", KEY)).assert_error(404, "NoSuchKey");
    eventually("it is closed", || {
        world.gateway.metric("cosgate_connections_closed_total", "") >= 2
    });
    assert_eq!(world.gateway.metric(REFUSED, ""), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_proxy_header_before_tls() {
    let authority = Authority::new("ours");
    let server = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let world = world_with(server, &authority.tls(""));
    let put = world.signed("PUT", KEY).body("x");
    for version in [&TLS12, &TLS13] {
        for (header, status) in [(INSIDE, 200), (OUTSIDE, 403)] {
            let tls = tls_client(&authority.ca(), None, &[version]);
            let client = Client::connect_tls(world.gateway.addr, "localhost", tls);
            let mut client = client.behind(header.as_bytes());
            client.write(&put.bytes());
            assert_eq!(client.read_reply("PUT").status, status, "{header}");
        }
    }
    for (header, status) in [
        (INSIDE.as_bytes(), 200),
        (&v2([10, 1, 2, 3], b""), 200),
        (OUTSIDE.as_bytes(), 403),
    ] {
        let client = Http2::behind(&authority, world.gateway.addr, header).await;
        for _ in 0..2 {
            assert_eq!(client.send(&put).await.status, status);
        }
    }
    // TLS without a header is refused.
    let tls = tls_client(&authority.ca(), None, &[&TLS13]);
    let mut client = Client::connect_tls(world.gateway.addr, "localhost", tls);
    client.write(&put.bytes());
    assert!(matches!(client.try_fill(), Ok(0) | Err(_)));
    eventually("it is counted", || world.gateway.metric(REFUSED, "") == 1);
}
