//! Failures of COS and of the connection to it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::large_stack_arrays,
    reason = "a test may panic, and measures real time"
)]

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    self, Act, Call, Client, Gateway, Peer, Scripted, World, act, cos_error, eventually, header_of,
    toml,
};
use cosgate::emulator::{CosFault, Faults};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: \"e\"\r\n\r\nok";
const STORED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"e\"\r\n\r\n";
const GET: &str = "/photos/acme/k";

/// Responds to every request with `response`.
fn always(response: impl Into<String>) -> Act {
    let response = response.into();
    act(move |peer| peer.always(&response))
}

/// Reads one head, responds with `response`, and reads the rest.
fn once(response: impl Into<String>) -> Act {
    let response = response.into();
    act(move |peer| {
        if peer.head().is_some() {
            peer.respond(&response);
        }
    })
}

/// Reads one head and closes the connection, with a reset if `reset`.
fn breaks(reset: bool) -> Act {
    act(move |peer| {
        peer.head();
        if reset {
            peer.reset();
        }
    })
}

fn body_of(head: &str) -> usize {
    header_of(head, "content-length").map_or(0, |length| length.parse().unwrap())
}

#[test]
fn requests_share_one_connection() {
    let world = World::new();
    for n in 0..50 {
        let target = format!("/photos/acme/{}", n % 7);
        world.signed("PUT", &target).body("x").send().assert_ok();
        world.signed("GET", &target).send().assert_ok();
        world.signed("HEAD", &target).send().assert_ok();
        assert_eq!(world.signed("GET", "/photos/acme/none").send().status, 404);
    }
    let counts = world.emulator.counters().counts();
    assert_eq!((counts.cos_requests, counts.cos_connections), (200, 1));
}

#[test]
fn does_not_forward_expect() {
    let world = World::new();
    let call = world
        .signed("PUT", "/photos/acme/e")
        .header("expect", "100-continue")
        .body("hello");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    assert_eq!(client.read_one("PUT").status, 100);
    client.write(b"hello");
    client.read_one("PUT").assert_ok();
    let heads = world.emulator.counters().heads();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].headers.iter().all(|(name, _)| name != "expect"));
}

#[test]
fn refused_request_gets_no_100_continue() {
    let world = World::new();
    for (call, code) in [
        (
            world.signed("PUT", "/photos/globex/e"),
            (403, "AccessDenied"),
        ),
        (
            Call::new(world.gateway.addr, "PUT", "/photos/acme/e")
                .signed_by(("ACMEKEY0000000000001", "not-the-secret-000000000000000")),
            (403, "SignatureDoesNotMatch"),
        ),
    ] {
        let call = call.header("expect", "100-continue").body("hello");
        let mut client = Client::connect(world.gateway.addr);
        client.write(&call.head());
        client.read_one("PUT").assert_error(code.0, code.1);
        assert!(client.closes_within(Duration::from_secs(5)));
    }
    assert_eq!(world.emulator.counters().counts().cos_requests, 0);
}

#[test]
fn rejects_other_expectations() {
    let world = World::new();
    let reply = world
        .signed("PUT", "/photos/acme/e")
        .header("expect", "a-pony")
        .body("hello")
        .send();
    assert_eq!(reply.status, 417);
    assert_eq!(world.emulator.counters().counts().cos_requests, 0);
}

#[test]
fn forwards_an_early_response_and_closes_the_connection() {
    for (status, code) in [(403, "AccessDenied"), (413, "EntityTooLarge")] {
        let early = cos_error(status, code, "no");
        let ended = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&ended);
        let world = Scripted::new(vec![
            act(move |peer| {
                let head = peer.head().unwrap();
                peer.body(1);
                peer.respond(&early);
                let got = peer.body(body_of(&head)) + 1;
                assert!(got < body_of(&head), "the whole body came");
                assert!(peer.head().is_none(), "the connection was used again");
                seen.fetch_add(1, Ordering::SeqCst);
            }),
            always(OK),
        ]);
        let call = world.signed("PUT", GET).body(vec![7; 4 << 20]);
        let mut client = Client::connect(world.gateway.addr);
        client.write(&call.head());
        client.write(&call.body[..1 << 20]);
        let reply = client.read_one("PUT");
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(reply.code(), code);
        assert_eq!(reply.header("connection"), Some("close"));
        world.signed("GET", GET).send().assert_ok();
        eventually("the first connection ends", || {
            ended.load(Ordering::SeqCst) == 1
        });
        assert_eq!(world.connections(), 2);
    }
}

/// A body whose end is wrong fails, even if COS reported success early.
#[test]
fn early_success_is_no_success() {
    let world = Scripted::new(vec![
        act(|peer| {
            peer.head();
            peer.body(1);
            peer.respond(STORED);
            while peer.client.fill() {}
        }),
        always(OK),
    ]);
    let call = world.signed("PUT", GET).body(vec![7; 4 << 20]);
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    client.write(&call.body[..1 << 20]);
    let reply = client.read_one("PUT");
    reply.assert_error(502, "BadGateway");
    assert_eq!(reply.header("connection"), Some("close"));
    world.signed("GET", GET).send().assert_ok();
    assert_eq!(world.connections(), 2);
}

/// The rest of a body after an early response is not read as a request.
#[test]
fn sends_nothing_after_an_early_response() {
    let early = cos_error(403, "AccessDenied", "no");
    let world = Scripted::new(vec![act(move |peer| {
        peer.head();
        peer.body(1);
        peer.respond(&early);
        while peer.client.fill() {}
    })]);
    let forbidden = world.signed("PUT", "/photos/globex/k");
    for (n, call) in [world.signed("PUT", GET), forbidden]
        .into_iter()
        .enumerate()
    {
        for _ in 0..10 {
            let call = call.clone().body(vec![b'\n'; 32 << 20]);
            let call = call.payload("UNSIGNED-PAYLOAD");
            let mut client = Client::connect(world.gateway.addr);
            let mut writer = client.stream.try_clone().unwrap();
            let writing = thread::spawn(move || {
                use std::io::Write as _;
                let _ = writer.write_all(&call.head());
                let _ = writer.write_all(&call.body);
            });
            let reply = client.read_one("PUT");
            reply.assert_error(403, "AccessDenied");
            assert_eq!(reply.header("connection"), Some("close"));
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
            assert_eq!(String::from_utf8_lossy(&rest), "");
            writing.join().unwrap();
        }
        let requests = world.gateway.metric("cosgate_requests_total", "");
        assert_eq!(requests, 10 * (n as u64 + 1));
    }
}

#[test]
fn retries_a_get_once_after_a_broken_connection() {
    for reset in [false, true] {
        let world = Scripted::new(vec![breaks(reset), always(OK)]);
        world.signed("GET", GET).send().assert_ok();
        assert_eq!(world.connections(), 2);
        let world = Scripted::new(vec![breaks(reset)]);
        world
            .signed("GET", GET)
            .send()
            .assert_error(502, "BadGateway");
        assert_eq!(world.connections(), 2);
    }
}

#[test]
fn does_not_retry_a_streamed_upload() {
    let world = Scripted::new(vec![
        act(|peer| {
            peer.head();
            peer.body(100_000);
            peer.reset();
        }),
        always(STORED),
    ]);
    world
        .signed("PUT", GET)
        .body(vec![1; 4 << 20])
        .send()
        .assert_error(502, "BadGateway");
    assert_eq!(world.connections(), 1);
    world.signed("PUT", GET).body("x").send().assert_ok();
}

#[test]
fn retries_a_small_upload_once() {
    let world = Scripted::new(vec![breaks(true), always(STORED)]);
    world.signed("PUT", GET).body("small").send().assert_ok();
    assert_eq!(world.connections(), 2);
}

/// The first attempt may have succeeded. The second would then report that the object exists.
#[test]
fn does_not_retry_a_conditional_upload() {
    let exists = cos_error(412, "PreconditionFailed", "exists");
    let absent = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let world = Scripted::new(vec![once(absent), breaks(false), always(exists)]);
    let put = world.signed("PUT", GET).body("small");
    let reply = put.header("if-none-match", "*").fetch();
    reply.assert_error(502, "BadGateway");
    let heads = world.script.heads();
    assert_eq!(heads.len(), 2, "{heads:?}");
    assert!(heads[0].starts_with("HEAD "), "{heads:?}");
}

#[test]
fn does_not_retry_non_idempotent_requests() {
    let complete = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part></CompleteMultipartUpload>";
    for (target, body) in [
        ("/photos/acme/k?uploadId=u", complete),
        ("/photos/acme/k?uploads", ""),
    ] {
        let world = Scripted::new(vec![
            act(|peer| {
                let head = peer.head().unwrap();
                peer.body(body_of(&head));
            }),
            always(OK),
        ]);
        let reply = world.signed("POST", target).body(body).send();
        reply.assert_error(502, "BadGateway");
        assert_eq!(world.connections(), 1, "{target}");
    }
}

/// COS closes each connection after one response without announcing it.
#[test]
fn hides_stale_pooled_connections() {
    for pause in [0, 1, 3] {
        let world = Scripted::new(vec![once(OK)]);
        for _ in 0..200 {
            world.signed("GET", GET).send().assert_ok();
            thread::sleep(Duration::from_millis(pause));
        }
    }
}

#[test]
fn retries_a_refused_connection_once() {
    let emulator = support::emulator();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    let gateway = Gateway::start(&toml(addr, emulator.sts_addr(), ""));
    let started = Instant::now();
    for method in ["GET", "PUT"] {
        Call::new(gateway.addr, method, GET)
            .signed_by(support::ACME)
            .send()
            .assert_error(502, "BadGateway");
    }
    assert!(started.elapsed() < Duration::from_secs(6));
    assert_eq!(gateway.metric("cosgate_upstream_retries_total", ""), 2);
}

#[test]
fn times_out_without_a_response_head() {
    let world = Scripted::with(
        vec![act(|peer| {
            peer.head();
            while peer.client.fill() {}
        })],
        "[upstream.limits]\nhead_timeout = \"1s\"",
    );
    for call in [
        world.signed("GET", GET),
        world.signed("PUT", GET).body("small"),
        world.signed("PUT", GET).body(vec![0; 1 << 20]),
    ] {
        let started = Instant::now();
        call.send().assert_error(504, "GatewayTimeout");
        assert_lasted(started, Duration::from_secs(1));
    }
    assert_eq!(world.connections(), 3);
}

/// The timeout counts from the end of this request, whatever was sent on the connection before.
#[test]
fn reused_connection_has_its_own_head_timeout() {
    let world = Scripted::with(
        vec![act(|peer| {
            peer.head();
            peer.respond(OK);
            peer.head();
            while peer.client.fill() {}
        })],
        "[upstream.limits]\nhead_timeout = \"1s\"",
    );
    world.signed("GET", GET).send().assert_ok();
    thread::sleep(Duration::from_millis(700));
    let started = Instant::now();
    let reply = world.signed("GET", GET).send();
    reply.assert_error(504, "GatewayTimeout");
    assert_lasted(started, Duration::from_secs(1));
    assert_eq!(world.connections(), 1);
}

/// The timeout of a slow upload starts with its last byte and has its configured length.
#[test]
fn head_timeout_of_a_slow_upload_is_as_configured() {
    let world = Scripted::with(
        vec![act(|peer| {
            peer.head();
            while peer.client.fill() {}
        })],
        "[upstream.limits]\nhead_timeout = \"1s\"",
    );
    let call = world.signed("PUT", GET).body(vec![3; 100_000]);
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    for part in call.body.chunks(20_000) {
        thread::sleep(Duration::from_millis(330));
        client.write(part);
    }
    let sent = Instant::now();
    client.read_one("PUT").assert_error(504, "GatewayTimeout");
    assert_lasted(sent, Duration::from_secs(1));
}

fn assert_lasted(since: Instant, limit: Duration) {
    let lasted = since.elapsed();
    assert!(
        (limit * 19 / 20..limit * 3 / 2).contains(&lasted),
        "{lasted:?}"
    );
}

/// An upload may take longer than `head_timeout` while its bytes move.
#[test]
fn head_timeout_starts_at_the_last_byte() {
    let world = Scripted::with(
        vec![always(STORED)],
        "[upstream.limits]\nhead_timeout = \"200ms\"",
    );
    let call = world.signed("PUT", GET).body(vec![3; 80_000]);
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    for part in call.body.chunks(10_000) {
        thread::sleep(Duration::from_millis(100));
        client.write(part);
    }
    client.read_one("PUT").assert_ok();
}

#[test]
fn rejects_responses_without_an_end() {
    for fields in [
        "Content-Type: text/plain",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: two",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
    ] {
        let world = Scripted::new(vec![once(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"))]);
        let reply = world.signed("GET", GET).send();
        assert_eq!(reply.status, 502, "{fields}");
        reply.assert_error(502, "BadGateway");
    }
}

#[test]
fn rejects_responses_with_ambiguous_framing() {
    const CHUNKS: &str = "2\r\nok\r\n0\r\n\r\n";
    for (head, body) in [
        (
            "200 OK\r\nContent-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n",
            CHUNKS,
        ),
        (
            "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n",
            CHUNKS,
        ),
        (
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            CHUNKS,
        ),
        ("200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", CHUNKS),
        (
            "200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
            "ok",
        ),
        ("200 OK\r\nContent-Length: 2, 2\r\n\r\n", "ok"),
        ("200 OK\nContent-Length: 2\n\n", "ok"),
        ("200 OK\r\nX-Y: z\nContent-Length: 2\r\n\r\n", "ok"),
        (
            "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n",
            CHUNKS,
        ),
        (
            "404 Not Found\r\nContent-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n",
            CHUNKS,
        ),
    ] {
        // A valid response first: the next one arrives on a reused connection, and in pieces.
        let closed = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&closed);
        let poisoned = act(move |peer| {
            peer.head();
            peer.respond(OK);
            peer.head();
            let (start, rest) = head.split_at(head.len() - 9);
            peer.respond(&format!("HTTP/1.1 {start}"));
            peer.client.wait_until_read();
            peer.respond(&format!("{rest}{body}"));
            is_over.store(peer.head().is_none(), Ordering::Relaxed);
        });
        let world = Scripted::new(vec![poisoned, always(OK)]);
        world.signed("GET", GET).send().assert_ok();
        world
            .signed("GET", GET)
            .send()
            .assert_error(502, "BadGateway");
        eventually("the connection is closed", || {
            closed.load(Ordering::Relaxed)
        });
        assert_eq!(world.connections(), 1, "{head:?} was tried again");
        world.gateway.log.assert_contains("can be read in two ways");
        world.signed("GET", GET).send().assert_ok();
        assert_eq!(world.connections(), 2, "{head:?}");
    }
}

#[test]
fn ambiguous_response_fails_the_upload() {
    let world = Scripted::new(vec![once(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )]);
    let reply = world.signed("PUT", GET).body("hello").send();
    reply.assert_error(502, "BadGateway");
    assert_eq!(world.connections(), 1);
}

#[test]
fn forwards_a_chunked_response() {
    let world = Scripted::new(vec![always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )]);
    for _ in 0..3 {
        let reply = world.signed("GET", GET).send();
        assert_eq!(reply.assert_ok().text(), "hello world");
    }
    assert_eq!(world.connections(), 1);
}

#[test]
fn cuts_a_truncated_response() {
    for (head, reset) in [
        ("Content-Length: 100000", false),
        ("Content-Length: 100000", true),
        ("Transfer-Encoding: chunked", false),
    ] {
        let world = Scripted::new(vec![
            act(move |peer| {
                peer.head();
                peer.respond(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n400\r\n"));
                peer.respond(&"x".repeat(1024));
                if reset {
                    peer.client.wait_until_read();
                    peer.reset();
                }
            }),
            always(OK),
        ]);
        let reply = world.signed("GET", GET).send();
        assert_eq!(reply.status, 200);
        assert!(!reply.whole, "{head}");
        world.signed("GET", GET).send().assert_ok();
    }
}

#[test]
fn rejects_responses_that_are_not_final() {
    for response in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 999 Unheard Of\r\nContent-Length: 0\r\n\r\n",
    ] {
        let world = Scripted::new(vec![always(response)]);
        let reply = world.signed("GET", GET).fetch();
        reply.assert_error(502, "BadGateway");
    }
}

#[test]
fn does_not_follow_redirects() {
    for status in [301, 302, 307, 308] {
        let world = Scripted::new(vec![once(format!(
            "HTTP/1.1 {status} Moved\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n"
        ))]);
        let reply = world.signed("GET", GET).send();
        reply.assert_error(502, "BadGateway");
        assert_eq!(reply.header("location"), None);
        assert_eq!(world.connections(), 1);
    }
}

#[test]
fn write_with_a_304_response_fails() {
    let world = Scripted::new(vec![always("HTTP/1.1 304 Not Modified\r\n\r\n")]);
    let put = world.signed("PUT", GET);
    put.body("x").fetch().assert_error(502, "BadGateway");
    assert_eq!(world.signed("GET", GET).send().status, 304);
}

#[test]
fn forwards_slow_down_without_a_retry() {
    let world = Scripted::new(vec![always(cos_error(503, "SlowDown", "reduce"))]);
    let reply = world.signed("GET", GET).send();
    reply.assert_error(503, "SlowDown");
    assert!(reply.header("retry-after").is_some());
    assert_eq!(world.script.heads().len(), 1);
}

fn response(fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

/// cosgate forwards nothing of a response that should be empty, and closes its connection.
#[test]
fn rejects_false_success_responses() {
    const ERROR: &str =
        "<Error><Code>InternalError</Code><Message>shared-1250000000</Message></Error>";
    const ETAG: &str = "ETag: \"e\"\r\n";
    let small: &[u8] = b"small";
    let large = vec![7; 1 << 20];
    let part = "/photos/acme/k?partNumber=1&uploadId=u";
    for (response, is_upload_fault) in [
        (response("", ""), true),
        (response("ETag:\r\n", ""), true),
        (response("ETag: \"e\"\r\nETag: \"f\"\r\n", ""), true),
        (response("Content-Type: application/xml\r\n", ERROR), false),
        (response(ETAG, ERROR), false),
        (response(ETAG, "ok"), false),
        (
            format!(
                "HTTP/1.1 200 OK\r\n{ETAG}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
            ),
            false,
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{ETAG}Content-Length: 9\r\n\r\ncut"),
            false,
        ),
    ] {
        let bytes = response.clone();
        let world = Scripted::new(vec![act(move |peer| {
            let head = peer.head().unwrap_or_default();
            peer.body(body_of(&head));
            peer.respond(&bytes);
        })]);
        let mut refused = 0;
        for (method, target, body) in [
            ("PUT", GET, small),
            ("PUT", GET, &large),
            ("PUT", part, small),
            ("PUT", part, &large),
            ("DELETE", GET, b""),
            ("DELETE", "/photos/acme/k?uploadId=u", b""),
            ("DELETE", "/photos/acme/k?tagging", b""),
        ] {
            if is_upload_fault && method == "DELETE" {
                continue;
            }
            let reply = world.signed(method, target).body(body).send();
            reply.assert_error(502, "BadGateway");
            assert!(!reply.text().contains("InternalError"), "{}", reply.text());
            refused += 1;
        }
        let metric = "cosgate_answers_unusable_total";
        assert_eq!(world.gateway.metric(metric, ""), refused, "{response}");
        world
            .gateway
            .log
            .assert_contains("COS reported a success with");
    }
    let chunked = format!("HTTP/1.1 200 OK\r\n{ETAG}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let world = Scripted::new(vec![always(chunked)]);
    world.signed("PUT", GET).body("x").send().assert_ok();
    world.signed("PUT", GET).body("x").send().assert_ok();
    assert_eq!(world.connections(), 1);
}

/// A client that joins parts, or requests the whole object, does not check what it got.
#[test]
fn rejects_a_range_that_was_not_requested() {
    let range = |value: &str| format!("Content-Range: {value}\r\n");
    let response_with = |status: u16, fields: &str| {
        format!("HTTP/1.1 {status} X\r\nETag: \"e\"\r\n{fields}Content-Length: 5\r\n\r\nhello")
    };
    let first = range("bytes 0-4/11");
    for (response, range, status) in [
        (response_with(206, &first), Some("bytes=0-4"), 206),
        (response_with(200, ""), Some("bytes=0-4"), 200),
        (response_with(206, &first), None, 502),
        (response_with(206, ""), Some("bytes=0-4"), 502),
        (
            response_with(206, &range("bytes 5-9/11")),
            Some("bytes=0-4"),
            502,
        ),
        (
            response_with(206, &range("bytes 0-8/11")),
            Some("bytes=0-8"),
            502,
        ),
        (
            response_with(206, &format!("{first}{first}")),
            Some("bytes=0-4"),
            502,
        ),
        (response_with(203, ""), None, 502),
        (
            "HTTP/1.1 204 No Content\r\nETag: \"e\"\r\n\r\n".to_owned(),
            None,
            502,
        ),
    ] {
        let world = Scripted::new(vec![always(&*response)]);
        let mut call = world.signed("GET", GET);
        if let Some(range) = range {
            call = call.header("range", range);
        }
        let reply = call.send();
        assert_eq!(reply.status, status, "{response}");
        let refused = u64::from(status == 502);
        let metric = "cosgate_answers_unusable_total";
        assert_eq!(world.gateway.metric(metric, ""), refused, "{response}");
    }
}

/// Many versions of nginx use HTTP/1.0. Without a length, they see only the end of the connection.
#[test]
fn sends_no_object_without_length_over_http_1_0() {
    let cut = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    let whole = format!("{cut}0\r\n\r\n");
    let listing = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    for (response, target, status) in [
        (cut.to_owned(), GET, 501),
        (whole, GET, 501),
        (OK.to_owned(), GET, 200),
        (response("", listing), "/photos?prefix=acme/", 200),
    ] {
        let world = Scripted::new(vec![once(response)]);
        let head = String::from_utf8(world.signed("GET", target).head()).unwrap();
        let mut client = Client::connect(world.gateway.addr);
        client.write(head.replace(" HTTP/1.1\r\n", " HTTP/1.0\r\n").as_bytes());
        let reply = client.read_reply("GET");
        assert_eq!(reply.status, status, "{}", reply.text());
    }
}

/// A client does not look for an error in a listing and would read it as empty.
#[test]
fn error_document_is_no_listing() {
    const ERROR: &str =
        "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>m</Message></Error>";
    let world = Scripted::new(vec![always(response("", ERROR))]);
    let mut refused = 0;
    for (method, target) in [
        ("GET", "/photos?prefix=acme/"),
        ("GET", "/photos?list-type=2&prefix=acme/"),
        ("GET", "/photos?versions&prefix=acme/"),
        ("GET", "/photos?uploads&prefix=acme/"),
        ("GET", "/photos/acme/k?uploadId=u"),
        ("POST", "/photos/acme/k?uploads"),
    ] {
        let reply = world.signed(method, target).send();
        reply.assert_error(502, "BadGateway");
        refused += 1;
        let metric = "cosgate_answers_unusable_total";
        assert_eq!(world.gateway.metric(metric, ""), refused, "{target}");
    }
}

/// cosgate has verified the bytes that it sends. A wrong digest at COS means damage in transit.
#[test]
fn retries_a_body_damaged_in_transit() {
    let delete = "<Delete><Object><Key>acme/k</Key></Object></Delete>";
    let deleted = "<DeleteResult><Deleted><Key>acme/k</Key></Deleted></DeleteResult>";
    let metric = |world: &Scripted, name| world.gateway.metric(name, "");
    for (status, code) in [
        (400, "XAmzContentSHA256Mismatch"),
        (400, "BadDigest"),
        (400, "InvalidDigest"),
        (400, "IncompleteBody"),
        (411, "MissingContentLength"),
    ] {
        let refusal = cos_error(status, code, "not what was sent");
        for (method, target, body, success) in [
            ("POST", "/photos?delete", delete, response("", deleted)),
            ("PUT", "/photos/acme/k", "small", STORED.to_owned()),
        ] {
            let world = Scripted::new(vec![always(&*refusal), always(success)]);
            let call = world.signed(method, target).body(body);
            call.send().assert_ok();
            assert_eq!(world.script.heads().len(), 2, "{code} {target}");
            assert_eq!(world.connections(), 2, "{code} {target}");
            assert_eq!(metric(&world, "cosgate_bodies_damaged_total"), 1);
            assert_eq!(metric(&world, "cosgate_upstream_retries_total"), 1);

            let world = Scripted::new(vec![always(&*refusal)]);
            let call = world.signed(method, target).body(body);
            call.send().assert_error(500, "InternalError");
            assert_eq!(world.script.heads().len(), 2, "{code} {target}");
        }
        let world = Scripted::new(vec![always(&*refusal), always(STORED)]);
        let call = world.signed("PUT", GET).body(vec![7; 1 << 20]);
        let call = call.header("content-md5", &support::md5_base64(&vec![7; 1 << 20]));
        call.send().assert_error(500, "InternalError");
        assert_eq!(world.script.heads().len(), 1, "{code}");
        call.send().assert_ok();
    }
}

#[test]
fn returns_one_request_id() {
    let ids = "x-cos-request-id: own\r\nx-amz-request-id: theirs\r\n";
    let world = Scripted::new(vec![always(response(ids, "ok"))]);
    let reply = world.signed("GET", GET).send();
    let named = |wanted: &str| {
        let fields = reply.headers.iter();
        fields.filter(|(name, _)| name == wanted).count()
    };
    assert_eq!(named("x-cos-request-id"), 1);
    assert_eq!(named("x-amz-request-id"), 1);
    assert_eq!(reply.header("x-cos-request-id"), Some("own"));
    world.gateway.log.assert_contains("own");
}

/// COS starts a response with status 200 before it knows that a copy or a complete fails (436/10881).
#[test]
fn forwards_a_success_with_an_error_inside() {
    let error = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>We encountered an internal error.</Message><RequestId>a</RequestId></Error>";
    let world = Scripted::new(vec![always(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{error}",
        error.len()
    ))]);
    let complete = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part></CompleteMultipartUpload>";
    let copy = world
        .signed("PUT", GET)
        .header("x-amz-copy-source", "/photos/acme/from");
    let calls = [
        copy,
        world
            .signed("POST", "/photos/acme/k?uploadId=u")
            .body(complete),
    ];
    for call in calls {
        let reply = call.send();
        assert_eq!((reply.status, reply.whole), (200, true));
        assert_eq!(reply.code(), "InternalError", "{}", reply.text());
    }
}

fn tokens(heads: &[String]) -> Vec<String> {
    heads
        .iter()
        .map(|head| header_of(head, "x-amz-security-token").unwrap().to_owned())
        .collect()
}

#[test]
fn replaces_a_refused_key_and_retries() {
    // All at once, because a refused new key is replaced only after a second or two.
    thread::scope(|scope| {
        for (status, code, message) in [
            (403, "InvalidAccessKeyId", "no such key"),
            (400, "ExpiredToken", "expired"),
            (403, "InvalidToken", "bad"),
            (403, "AccessDenied", "Request has expired"),
        ] {
            for (method, body) in [("GET", ""), ("PUT", "small"), ("DELETE", "")] {
                let refusal = cos_error(status, code, message);
                scope.spawn(move || a_refused_key_is_replaced(refusal, method, body));
            }
        }
    });
}

fn a_refused_key_is_replaced(refusal: String, method: &str, body: &str) {
    let world = Scripted::new(vec![act(move |peer| {
        let mut refused = None;
        while let Some(head) = peer.head() {
            peer.body(body_of(&head));
            let token = header_of(&head, "x-amz-security-token").map(str::to_owned);
            if refused.is_none() || refused == token {
                refused = token;
                peer.respond(&refusal);
            } else {
                peer.respond(STORED);
            }
        }
    })]);
    world.signed(method, GET).body(body).send().assert_ok();
    let tokens = tokens(&world.script.heads());
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1]);
}

/// The response to a HEAD has only status 403. cosgate must find out whether the key is refused.
#[test]
fn detects_a_refused_key_for_head() {
    let refusal = cos_error(403, "InvalidAccessKeyId", "no such key");
    let world = Scripted::new(vec![act(move |peer| {
        let mut refused = None;
        while let Some(head) = peer.head() {
            let token = header_of(&head, "x-amz-security-token").map(str::to_owned);
            if refused.is_none() || refused == token {
                refused = token;
                let end = refusal.find("\r\n\r\n").unwrap() + 4;
                let bare = head.starts_with("HEAD");
                peer.respond(if bare { &refusal[..end] } else { &refusal });
            } else {
                peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
            }
        }
    })]);
    world.signed("HEAD", GET).send().assert_ok();
    let heads = world.script.heads();
    let tokens = tokens(&heads);
    assert_eq!(tokens.len(), 3);
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
    assert!(heads[1].starts_with("GET "), "{}", heads[1]);
}

/// Its response comes by HEAD from COS, though the client sends GET.
#[test]
fn detects_a_refused_key_for_the_attributes_of_an_object() {
    let refusal = cos_error(403, "InvalidAccessKeyId", "no such key");
    let world = Scripted::new(vec![act(move |peer| {
        let mut refused = None;
        while let Some(head) = peer.head() {
            let token = header_of(&head, "x-amz-security-token").map(str::to_owned);
            if refused.is_none() || refused == token {
                refused = token;
                let end = refusal.find("\r\n\r\n").unwrap() + 4;
                let bare = head.starts_with("HEAD");
                peer.respond(if bare { &refusal[..end] } else { &refusal });
            } else {
                peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: \"e\"\r\n\r\n");
            }
        }
    })]);
    let call = world.signed("GET", &format!("{GET}?attributes"));
    call.header("x-amz-object-attributes", "ETag")
        .send()
        .assert_ok();
    assert_eq!(tokens(&world.script.heads()).len(), 3);
}

/// A copy or a complete may take minutes, in which COS sends white space (436/7742). Another response must come
/// at its pace.
#[test]
fn waits_for_a_long_copy_as_long_as_cos_sends_white_space() {
    let limits = "[server.limits]\nbody_window = \"1500ms\"\nbody_rate = \"1MiB\"";
    let copied = "<CopyObjectResult><ETag>\"e\"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></CopyObjectResult>";
    let slow = act(move |peer| {
        while let Some(head) = peer.head() {
            peer.body(body_of(&head));
            peer.respond("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n");
            peer.respond("28\r\n<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\n\r\n");
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(300));
                peer.respond("1\r\n \r\n");
            }
            peer.respond(&format!("{:x}\r\n{copied}\r\n0\r\n\r\n", copied.len()));
        }
    });
    let world = Scripted::with(vec![slow], limits);
    let copy = world
        .signed("PUT", GET)
        .header("x-amz-copy-source", "/photos/acme/from");
    let reply = copy.send();
    assert_eq!((reply.status, reply.whole), (200, true));
    assert!(
        reply.text().contains("CopyObjectResult"),
        "{}",
        reply.text()
    );
    let other = world.signed("GET", GET).send();
    assert_eq!((other.status, other.whole), (200, false));
}

/// The first try has aborted the upload.
#[test]
fn an_abort_that_is_tried_again_finds_its_upload_aborted() {
    let gone = cos_error(404, "NoSuchUpload", "none");
    let abort = "/photos/acme/k?uploadId=u";
    let world = Scripted::new(vec![breaks(false), always(gone.clone())]);
    assert_eq!(world.signed("DELETE", abort).send().status, 204);
    let world = Scripted::new(vec![always(gone)]);
    let first = world.signed("DELETE", abort).send();
    first.assert_error(404, "NoSuchUpload");
}

#[test]
fn says_that_a_delete_marker_hides_an_object() {
    for (status, words) in [(404, "x-cos-"), (404, "x-amz-"), (405, "x-cos-")] {
        let refusal = format!(
            "HTTP/1.1 {status} No\r\n{words}delete-marker: true\r\n{words}version-id: v7\r\nContent-Length: 0\r\n\r\n"
        );
        let world = Scripted::new(vec![always(refusal)]);
        let reply = world.signed("GET", GET).send();
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("x-amz-delete-marker"), Some("true"));
        assert_eq!(reply.header("x-amz-version-id"), Some("v7"));
    }
}

#[test]
fn permanently_refused_key_costs_one_retry() {
    let world = Scripted::new(vec![always(cos_error(403, "InvalidAccessKeyId", "no"))]);
    let first = Instant::now();
    for _ in 0..5 {
        let reply = world.signed("GET", GET).send();
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.header("retry-after").is_some());
    }
    let tokens = tokens(&world.script.heads());
    let keys: HashSet<&String> = tokens.iter().collect();
    assert_eq!(keys.len(), tokens.len(), "a refused key was sent again");
    // Then a new key every two to four seconds at most.
    let later = usize::try_from(first.elapsed().as_secs() / 2).unwrap();
    assert!((2..=2 + later).contains(&keys.len()), "{}", keys.len());
}

#[test]
fn does_not_replay_a_streamed_upload() {
    let refusal = cos_error(403, "InvalidAccessKeyId", "no");
    let world = Scripted::new(vec![
        act(move |peer| {
            let head = peer.head().unwrap();
            peer.body(body_of(&head));
            peer.respond(&refusal);
        }),
        always(STORED),
    ]);
    let call = world.signed("PUT", GET).body(vec![1; 2 << 20]);
    assert_eq!(call.send().status, 503);
    call.send().assert_ok();
    let tokens = tokens(&world.script.heads());
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn missing_permission_keeps_the_key() {
    let world = Scripted::new(vec![always(cos_error(
        403,
        "AccessDenied",
        "Access Denied.",
    ))]);
    for method in ["GET", "DELETE"] {
        world
            .signed(method, GET)
            .send()
            .assert_error(403, "AccessDenied");
    }
    assert_eq!(world.emulator.counters().counts().sts_calls, 1);
    assert_eq!(world.script.heads().len(), 2);
}

#[test]
fn sends_a_length_and_never_chunks() {
    let world = Scripted::new(vec![always(STORED)]);
    for length in [0, 1, 70_000, 1 << 20] {
        world
            .signed("PUT", GET)
            .body(vec![9; length])
            .send()
            .assert_ok();
    }
    world.signed("POST", "/photos/acme/k?uploads").send();
    world.signed("GET", GET).send();
    world.signed("DELETE", GET).send();
    let heads = world.script.heads();
    let lengths: Vec<_> = heads
        .iter()
        .map(|head| header_of(head, "content-length"))
        .collect();
    let zero = Some("0");
    assert_eq!(
        lengths,
        [
            zero,
            Some("1"),
            Some("70000"),
            Some("1048576"),
            zero,
            None,
            None
        ]
    );
    assert!(
        heads
            .iter()
            .all(|head| header_of(head, "transfer-encoding").is_none())
    );
}

#[test]
fn multi_delete_sends_md5_and_parsed_keys_only() {
    let result = "<DeleteResult><Deleted><Key>acme/a</Key></Deleted></DeleteResult>";
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&bodies);
    let world = Scripted::new(vec![act(move |peer: &mut Peer| {
        let head = peer.head().unwrap();
        kept.lock().unwrap().push(peer.take(body_of(&head)));
        peer.respond(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{result}",
            result.len()
        ));
    })]);
    let body = "<Delete><!-- canary --><Object><Key>acme/a</Key></Object><Object><Key>globex/b</Key></Object></Delete>";
    let reply = world.signed("POST", "/photos?delete").body(body).send();
    let text = reply.assert_ok().text();
    assert!(text.contains("<Deleted><Key>acme/a</Key>"), "{text}");
    assert!(text.contains("<Key>globex/b</Key>") && text.contains("AccessDenied"));
    let sent = bodies.lock().unwrap()[0].clone();
    let sent = String::from_utf8(sent).unwrap();
    assert!(sent.contains("acme/a") && !sent.contains("globex") && !sent.contains("canary"));
    let heads = world.script.heads();
    assert_eq!(
        header_of(&heads[0], "content-md5"),
        Some(support::md5_base64(sent.as_bytes()).as_str())
    );
}

#[test]
fn multi_delete_errors_hide_the_store() {
    let result = "<DeleteResult><Error><Key>acme/a</Key><Code>AccessDenied</Code>\
        <Message>no right on qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000/acme/a</Message></Error>\
        <Error><Key>acme/b</Key><Code>InternalError</Code><Message>Try again.</Message></Error></DeleteResult>";
    let world = Scripted::new(vec![always(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{result}",
        result.len()
    ))]);
    let body =
        "<Delete><Object><Key>acme/a</Key></Object><Object><Key>acme/b</Key></Object></Delete>";
    let reply = world.signed("POST", "/photos?delete").body(body).fetch();
    let text = reply.assert_ok().text();
    assert!(text.contains("<Code>AccessDenied</Code>"), "{text}");
    assert!(text.contains("<Message>Try again.</Message>"), "{text}");
}

#[test]
fn forwards_no_unlisted_headers() {
    let world = Scripted::new(vec![always(OK)]);
    world
        .signed("GET", GET)
        .header("connection", "keep-alive, x-hop-canary")
        .header("x-hop-canary", "canary")
        .header("keep-alive", "timeout=canary")
        .header("proxy-authorization", "Basic canary")
        .header("te", "trailers, canary")
        .header("cookie", "canary=1")
        .header("forwarded", "for=canary")
        .header("x-forwarded-for", "canary")
        .header("user-agent", "canary")
        .header("referer", "http://canary/")
        .header("accept-encoding", "gzip;q=canary")
        .send()
        .assert_ok();
    let head = world.script.heads().remove(0).to_ascii_lowercase();
    for word in ["canary", "acmekey", "127.0.0.1", "keep-alive", "proxy-"] {
        assert!(!head.contains(word), "{word} in {head}");
    }
    let (local, amz) = (support::ACME.0.to_ascii_lowercase(), "credential=akid");
    assert!(head.contains(amz) && !head.contains(&local), "{head}");
    assert_eq!(
        header_of(&head, "host"),
        Some("shared-1250000000.cos.ap-guangzhou.myqcloud.com")
    );
}

#[test]
fn if_range_requests_the_whole_object() {
    let world = Scripted::new(vec![always(OK)]);
    let resumed = world.signed("GET", GET).header("range", "bytes=1-");
    resumed.header("if-range", "\"old\"").fetch().assert_ok();
    let heads = world.script.heads();
    assert_eq!(header_of(&heads[0], "range"), None);
    assert_eq!(header_of(&heads[0], "if-range"), None);
}

#[test]
fn forwards_no_presigned_parameters() {
    let world = Scripted::new(vec![always(OK)]);
    let url = support::presigned(world.gateway.addr, "GET", GET, support::ACME);
    Call::new(world.gateway.addr, "GET", &url)
        .send()
        .assert_ok();
    let head = world.script.heads().remove(0);
    assert!(head.starts_with("GET /acme/k HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("ACMEKEY"));
}

#[test]
fn recovers_after_faults_of_cos() {
    let world = World::new();
    world.signed("PUT", GET).body("whole").send().assert_ok();
    for fault in [
        CosFault::Reset,
        CosFault::ResetAfterSent(1),
        CosFault::SlowDown,
        CosFault::Error {
            status: 500,
            code: "InternalError".to_owned(),
        },
    ] {
        world.emulator.faults().set(Faults {
            cos: Some(fault.clone()),
            ..Faults::default()
        });
        let reply = world.signed("GET", GET).send();
        assert!(reply.status >= 500 || !reply.whole, "{fault:?}");
        world.emulator.faults().clear();
        let reply = world.signed("GET", GET).send();
        assert_eq!(reply.assert_ok().text(), "whole");
    }
}

/// The request guard replaces hyper's own refusals. It must not mistake the bytes of an object for one.
#[test]
fn forwards_an_object_that_looks_like_a_refusal() {
    const OBJECT: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let world = Scripted::new(vec![act(|peer| {
        while peer.head().is_some() {
            peer.respond(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                OBJECT.len()
            ));
            peer.client.wait_until_read();
            peer.respond(OBJECT);
        }
    })]);
    let mut client = Client::connect(world.gateway.addr);
    for _ in 0..2 {
        client.write(&world.signed("GET", GET).bytes());
        assert_eq!(client.read_reply("GET").assert_ok().text(), OBJECT);
    }
    client.write(b"GET bad HTTP/1.1\r\n\r\n");
    assert_eq!(client.read_reply("GET").status, 400);
}
