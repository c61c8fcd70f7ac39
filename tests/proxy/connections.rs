//! Several requests on one connection, and bodies announced with `Expect`.

use std::time::Duration;

use crate::support::{Client, SIGNATURES, World};

#[test]
fn serves_many_requests_on_a_connection() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let mut client = Client::connect(world.gateway.addr);
        for round in 0..5 {
            let (target, body) = (format!("/photos/acme/{round}"), format!("round {round}"));
            for call in [
                world.signed("PUT", &target).body(body.clone()),
                world.signed("GET", &target),
                world.signed("HEAD", &target),
                world.signed("GET", "/photos/acme/absent"),
                world.signed("HEAD", "/photos/acme/absent"),
                world.signed("GET", "/photos/globex/x"),
            ] {
                client.write(&call.bytes());
                let reply = client.read_reply(&call.method);
                reply.assert_presentable();
                if call.method == "GET" && call.target == target {
                    assert_eq!(reply.assert_ok().text(), body);
                }
            }
        }
        assert_eq!(world.gateway.metric("cosgate_connections ", ""), 1);
        let upstream = world.emulator.counters().counts().cos_connections;
        assert_eq!(upstream, 1, "{signature}: connections to COS are kept");
    }
}

#[test]
fn responds_to_pipelined_requests_in_order() {
    let world = World::new();
    let mut bytes = Vec::new();
    let calls: Vec<_> = (0..20)
        .flat_map(|round| {
            let target = format!("/photos/acme/{round}");
            [
                world.signed("PUT", &target).body(round.to_string()),
                world.signed("GET", &target),
                world.signed("HEAD", "/photos/acme/absent"), // its response has no body
                world.signed("GET", "/photos/globex/x"),
            ]
        })
        .collect();
    for call in &calls {
        bytes.extend_from_slice(&call.bytes());
    }
    let mut client = Client::connect(world.gateway.addr);
    client.write(&bytes);
    for (index, call) in calls.iter().enumerate() {
        let reply = client.read_reply(&call.method);
        reply.assert_presentable();
        match index % 4 {
            0 => assert_eq!(reply.status, 200, "{index}"),
            1 => assert_eq!(reply.text(), (index / 4).to_string()),
            2 => assert_eq!(reply.status, 404),
            _ => reply.assert_error(403, "AccessDenied"),
        }
    }
}

#[test]
fn responds_to_expect_itself() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let put = world.signed("PUT", "/photos/acme/a");
        let put = put.header("expect", "100-continue").body("hello");
        let mut client = Client::connect(world.gateway.addr);
        client.write(&put.head());
        assert_eq!(client.read_one("PUT").status, 100);
        client.write(&put.body);
        assert_eq!(client.read_one("PUT").status, 200);
        assert_eq!(world.stored("acme/a").as_deref(), Some("hello"));
        let heads = world.emulator.counters().heads();
        let mut names = heads.iter().flat_map(|head| &head.headers);
        assert!(!names.any(|(name, _)| name == "expect"));
    }
}

#[test]
fn refused_upload_gets_no_100_continue() {
    let world = World::new();
    for (target, header, status) in [
        ("/photos/globex/a", ("x-amz-meta-a", "b"), 403),
        ("/photos/acme/a?unheard-of", ("x-amz-meta-a", "b"), 400),
        ("/photos/acme/a", ("x-amz-acl", "public-read"), 403),
        ("/photos/acme/a", ("x-amz-unheard-of", "b"), 400),
    ] {
        let put = world.signed("PUT", target).header(header.0, header.1);
        let put = put.header("expect", "100-continue").body("hello");
        let mut client = Client::connect(world.gateway.addr);
        client.write(&put.head());
        let reply = client.read_one("PUT");
        assert_eq!(reply.status, status, "{target} {header:?}");
        reply.assert_presentable();
    }
    let odd = world.signed("PUT", "/photos/acme/a").body("hello");
    let odd = odd.header("expect", "a-pony").fetch();
    odd.assert_error(417, "ExpectationFailed");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn responds_after_the_client_closes_its_sending_side() {
    let world = World::new();
    world.put("/photos/acme/a", "hello");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&world.signed("GET", "/photos/acme/a").bytes());
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read_reply("GET").text(), "hello");
    assert!(client.closes_within(Duration::from_secs(5)));
}

#[test]
fn honours_connection_close() {
    let world = World::new();
    let call = world.signed("GET", "/photos").header("connection", "close");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.bytes());
    assert_eq!(client.read_reply("GET").header("connection"), Some("close"));
    assert!(client.closes_within(Duration::from_secs(5)));
}

#[test]
fn never_reads_a_refused_body_as_a_request() {
    let world = World::new();
    world.put("/photos/acme/a", "hello");
    for size in [1, 100, 10 << 10, 100 << 10, 1 << 20] {
        for apart in [false, true] {
            let put = world.signed("PUT", "/photos/globex/a");
            let put = put.body("x\n".repeat(size / 2 + 1));
            let mut client = Client::connect(world.gateway.addr);
            client.write(&put.head());
            if apart {
                client.wait_until_read();
            }
            client.write(&put.body);
            client.write(&world.signed("GET", "/photos/acme/a").bytes());
            let reply = client.read_reply("PUT");
            reply.assert_error(403, "AccessDenied");
            // The next response belongs to the next request, or there is none.
            if client.fill() {
                let next = client.read_reply("GET");
                assert_eq!(next.assert_ok().text(), "hello", "{size} {apart}");
            } else {
                assert!(
                    client.closes_within(Duration::from_secs(1)),
                    "{size} {apart}"
                );
            }
        }
    }
}

#[test]
fn reads_a_chunked_document_exactly_to_its_end() {
    let world = World::new();
    let delete = "<Delete><Object><Key>acme/a</Key></Object></Delete>";
    let (first, second) = delete.split_at(20);
    let chunk = |part: &str| format!("{:x};a=b\r\n{part}\r\n", part.len());
    let post = world.signed("POST", "/photos?delete");
    let post = post.header("transfer-encoding", "chunked");
    let post = post.payload("UNSIGNED-PAYLOAD");

    world.put("/photos/acme/a", "hello");
    let mut bytes = post.head();
    let body = format!("{}{}0\r\na: b\r\n\r\n", chunk(first), chunk(second));
    bytes.extend_from_slice(body.as_bytes());
    bytes.extend_from_slice(&world.signed("GET", "/photos/acme/a").bytes());
    let mut client = Client::connect(world.gateway.addr);
    for piece in bytes.chunks(7) {
        client.write(piece);
    }
    client.read_reply("POST").assert_ok();
    client.read_reply("GET").assert_error(404, "NoSuchKey");

    world.put("/photos/acme/a", "hello");
    for broken in ["x\r\n", "-1\r\n", "\r\n", "1g\r\n", "5\nhello\n0\n\n"] {
        let mut client = Client::connect(world.gateway.addr);
        client.write(&post.head());
        client.write(format!("{}{broken}", chunk(first)).as_bytes());
        assert!(client.closes_within(Duration::from_secs(5)), "{broken:?}");
    }
    assert_eq!(world.stored("acme/a").as_deref(), Some("hello"));
}
