//! Heads that are too large or malformed, and the admin pages.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Client, World};

fn refused(world: &World, bytes: &[u8]) -> (u16, String) {
    let mut client = Client::connect(world.gateway.addr);
    client.write(bytes);
    let reply = client.read_reply("GET");
    reply.assert_presentable();
    reply.assert_error(reply.status, &reply.code());
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(client.closes_within(Duration::from_secs(5)));
    (reply.status, reply.code())
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /photos/public/a HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n").into_bytes()
}

fn fields(count: usize) -> String {
    let lines: Vec<_> = (0..count).map(|i| format!("a{i}: b\r\n")).collect();
    lines.concat()
}

#[test]
fn rejects_too_large_heads_with_s3_errors() {
    let world = World::new();
    let large = format!("a: {}\r\n", "x".repeat(17 << 10));
    let many = fields(101);
    for head in [&large, &many] {
        let response = refused(&world, &get(head));
        assert_eq!(response, (431, "InvalidRequest".to_owned()));
    }
    let max = fields(98);
    let mut client = Client::connect(world.gateway.addr);
    client.write(&get(&max));
    client.read_reply("GET").assert_error(404, "NoSuchKey");
}

#[test]
fn rejects_malformed_http_with_s3_errors() {
    let world = World::new();
    let bad = (400, "InvalidRequest".to_owned());
    for head in [
        "hello\r\n\r\n",
        "GET /photos/public/a HTTP/1.1\r\nhost 127.0.0.1\r\n\r\n",
        "GET /photos/public/a HTTP/1.1\r\nhost: 127.0.0.1\r\nbad name: x\r\n\r\n",
        "GET /photos/public/a HTTP/1.1\nhost: 127.0.0.1\n\n",
        "GET /photos/public/a HTTP/1.1\r\nhost: 127.0.0.1\r\na: b\nx-amz-acl: public-read\r\n\r\n",
        "GET /photos/public/a HTTP/9.9\r\nhost: 127.0.0.1\r\n\r\n",
        "GET /photos/public/a b HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        "PUT /photos/public/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: x\r\n\r\n",
        "PUT /photos/public/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -1\r\n\r\n",
    ] {
        assert_eq!(refused(&world, head.as_bytes()), bad, "{head:?}");
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn admin_pages_report_health_and_metrics() {
    let world = World::new();
    world.put("/photos/acme/a", "hello");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let live = Arc::clone(&world.gateway.live);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _ = runtime.block_on(cosgate::downstream::admin::run(listener, live, None));
    });
    let page_as = |path: &str, hosts: &str| {
        let mut client = Client::connect(addr);
        client.write(format!("GET {path} HTTP/1.1\r\n{hosts}\r\n").as_bytes());
        client.read_reply("GET")
    };
    let page = |path: &str| page_as(path, "host: localhost:9001\r\n");
    // A web page can use a host name of its own for this address (DNS rebinding).
    for hosts in [
        "host: evil.example\r\n",
        "host: evil.example:9001\r\n",
        "host: 127.0.0.1.evil.example\r\n",
        "host: localhost.evil.example\r\n",
        "host: localhost\r\nhost: evil.example\r\n",
        "host: \r\n",
    ] {
        for path in ["/metrics", "/readyz", "/livez", "/x"] {
            let reply = page_as(path, hosts);
            assert!(matches!(reply.status, 400 | 421), "{hosts}: {reply:?}");
            assert!(!reply.text().contains("cosgate_"), "{hosts}");
        }
    }
    for host in [
        "127.0.0.1:1",
        "[::1]",
        "192.0.2.1",
        "LOCALHOST",
        "a.localhost:9001",
    ] {
        assert_eq!(
            page_as("/livez", &format!("host: {host}\r\n")).status,
            200,
            "{host}"
        );
    }
    assert_eq!(page("/livez").status, 200);
    assert_eq!(page("/readyz").status, 200);
    assert_eq!(page("/metrics?x").assert_ok().status, 200);
    assert_eq!(page("/photos/acme/a").status, 404);
    let metrics = page("/metrics").text();
    assert!(
        metrics
            .lines()
            .any(|line| line.contains("PutObject") && line.contains("200") && line.ends_with(" 1")),
        "{metrics}"
    );
    world.gateway.shared.drain();
    assert_eq!(page("/livez").status, 200);
    assert_eq!(page("/readyz").status, 503);
}
