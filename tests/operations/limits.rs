//! What a client may not do, and the error that it gets.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::large_stack_arrays,
    reason = "a test may panic, and measures real time"
)]

use std::io::{Read as _, Write as _};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::{
    self, ACME, Call, Client, Program, Reply, Scripted, World, act, eventually, run, toml,
};

const KEY: &str = "/photos/acme/k";
const SECOND: Duration = Duration::from_secs(1);

/// Sends raw bytes and reads the response; then the connection must end.
fn refused(world: &World, bytes: &[u8]) -> Reply {
    let mut client = Client::connect(world.gateway.addr);
    client.write(bytes);
    let reply = client.read_one("GET");
    assert!(client.closes_within(5 * SECOND));
    reply
}

#[test]
fn a_head_that_is_too_large_or_has_too_many_fields_is_refused() {
    let world = World::new();
    let large = world
        .signed("GET", KEY)
        .header("x-large", &"x".repeat(16 << 10));
    let mut many = world.signed("GET", KEY);
    for n in 0..100 {
        many = many.header(&format!("x-{n}"), "x");
    }
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(20 << 10));
    for bytes in [large.bytes(), many.bytes(), endless.into_bytes()] {
        refused(&world, &bytes).assert_error(431, "InvalidRequest");
    }
    let long = world.signed("GET", &format!("/photos/acme/{}", "k".repeat(17 << 10)));
    let reply = refused(&world, &long.bytes());
    assert!(matches!(reply.status, 414 | 431), "{}", reply.status);
    eventually("a line for each", || {
        world.gateway.log.text().lines().count() == 4
    });
    world
        .signed("GET", KEY)
        .send()
        .assert_error(404, "NoSuchKey");
}

#[test]
fn a_malformed_head_gets_an_s3_error_with_a_request_id() {
    let world = World::new();
    for head in [
        "\0\u{1}\u{2}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/3.9\r\n\r\n",
        "GET /photos/acme/k HTTP/1.1\nHost: x\n\n",
        "GET /photos/acme/k HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /photos/acme/k HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /photos/acme/k HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET /photos/acme/k HTTP/1.1\r\nHost: x\0y\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775808\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551614\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\ncontent-length:18446744073709551616\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 000000000000000000000000000000000000000000000000000000000001\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1 1\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "PUT /photos/acme/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let reply = refused(&world, head.as_bytes());
        assert_eq!(reply.status, 400, "{head:?}");
        reply.assert_error(400, &reply.code());
        assert_ne!(reply.code(), "", "{head:?}");
    }
    for head in [
        "GET /photos/acme/k HTTP/1.1\r\n\r\n",
        "GET /photos/acme/k HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut client = Client::connect(world.gateway.addr);
        client.write(head.as_bytes());
        let reply = client.read_one("GET");
        reply.assert_error(400, &reply.code());
    }
}

#[test]
fn a_head_behind_another_is_looked_at_too() {
    let world = World::new();
    let mut bytes = world.signed("GET", KEY).bytes();
    bytes.extend_from_slice(
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let mut client = Client::connect(world.gateway.addr);
    client.write(&bytes);
    let _ = client.stream.shutdown(std::net::Shutdown::Write);
    let mut all = String::new();
    client.stream.read_to_string(&mut all).unwrap();
    assert!(all.contains("not both"), "{all}");
    assert!(!all.contains(" 200 "), "{all}");
}

#[test]
fn requests_in_one_segment_are_served_in_order() {
    let world = World::new();
    let put = world.signed("PUT", KEY).body("abc\n").bytes();
    let get = world.signed("GET", KEY).bytes();
    let mut client = Client::connect(world.gateway.addr);
    client.write(&[put, get.clone(), get].concat());
    client.read_one("PUT").assert_ok();
    assert_eq!(client.read_one("GET").assert_ok().text(), "abc\n");
    assert_eq!(client.read_one("GET").assert_ok().text(), "abc\n");
}

/// What an HTTP library writes by itself when it refuses a head.
const BARE_REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sun, 29 Nov 2026 00:00:00 GMT\r\n\r\n";

#[test]
fn an_object_that_looks_like_a_refused_head_is_delivered_whole() {
    let world = World::new();
    for repeats in [1, 100, 20_000] {
        let object = BARE_REFUSAL.repeat(repeats);
        let put = world.signed("PUT", KEY).body(object.clone());
        put.send().assert_ok();
        let get = world.signed("GET", KEY).bytes();
        let mut client = Client::connect(world.gateway.addr);
        // The heads behind the first, whole or not, are there while the object is written.
        let half = &get[..get.len() / 2];
        client.write(&[&get[..], &get, half].concat());
        std::thread::sleep(Duration::from_millis(50));
        assert!(client.read_one("GET").assert_ok().text() == object);
        assert!(client.read_one("GET").assert_ok().text() == object);
        client.write(&get[half.len()..]);
        assert!(client.read_one("GET").assert_ok().text() == object);
    }
}

#[test]
fn the_head_limits_can_be_raised_to_their_maximum() {
    let world = World::with("[server.limits]\nhead_bytes = \"1MiB\"\nhead_fields = 1000");
    world.put(KEY, "x");
    let mut many = world
        .signed("GET", KEY)
        .header("large", &"x".repeat(900 << 10));
    for n in 0..900 {
        many = many.header(&format!("x-{n}"), "x");
    }
    assert_eq!(many.send().assert_ok().text(), "x");
    let larger = many.header("larger", &"x".repeat(200 << 10));
    refused(&world, &larger.bytes()).assert_error(431, "InvalidRequest");
}

#[test]
fn a_chunked_document_is_read() {
    let world = World::new();
    world.signed("PUT", KEY).body("x").send().assert_ok();
    let body = "<Delete><Object><Key>acme/k</Key></Object></Delete>";
    let call = world
        .signed("POST", "/photos?delete")
        .header("transfer-encoding", "chunked")
        .payload(&cosgate::encoding::hex::sha256_hex(body.as_bytes()));
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    client.write(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes());
    let reply = client.read_one("POST");
    assert!(reply.assert_ok().text().contains("<Deleted>"));
}

/// However its bytes arrive: the head may come in one piece with what is wrong behind it.
#[test]
fn a_chunked_document_that_is_framed_wrongly_gets_a_response() {
    let world = World::new();
    let body = "<Delete><Object><Key>acme/k</Key></Object></Delete>";
    let call = world
        .signed("POST", "/photos?delete")
        .header("transfer-encoding", "chunked")
        .payload(&cosgate::encoding::hex::sha256_hex(body.as_bytes()));
    for chunks in [
        format!("0x{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        format!("{:x};a\nb\r\n{body}\r\n0\r\n\r\n", body.len()),
        format!("{:x}\r\n{body}\r\n0\r\nA: b\n\r\n", body.len()),
    ] {
        let whole = [&call.head(), chunks.as_bytes()].concat();
        let mut at_once = Client::connect(world.gateway.addr);
        at_once.write(&whole);
        let reply = at_once.read_reply("POST");
        reply.assert_error(400, "IncompleteBody");
        let mut in_two = Client::connect(world.gateway.addr);
        in_two.write(&call.head());
        in_two.wait_until_read();
        in_two.write(chunks.as_bytes());
        let reply = in_two.read_reply("POST");
        reply.assert_error(400, "IncompleteBody");
    }
}

/// Asserts that a head alone is refused so, before the client is requested its body, and that nobody
/// upstream hears of it.
#[track_caller]
fn refused_early(method: &str, target: &str, headers: &[(&str, &str)], status: u16, code: &str) {
    let world = World::new();
    let mut call = world.signed(method, target).payload("UNSIGNED-PAYLOAD");
    for (name, value) in headers {
        call = call.header(name, value);
    }
    let mut client = Client::connect(call.addr);
    client.write(&call.header("expect", "100-continue").head());
    let reply = client.read_one(method);
    reply.assert_error(status, code);
    reply.assert_presentable();
    let counts = world.emulator.counters().counts();
    assert_eq!((counts.cos_connections, counts.sts_calls), (0, 0));
}

#[test]
fn more_than_5_gib_in_one_request_is_refused_early() {
    let (most, over) = ("5368709120", "5368709121");
    let part = format!("{KEY}?partNumber=1&uploadId=u");
    for target in [KEY, &*part] {
        for headers in [
            &[("content-length", over)][..],
            &[
                ("x-amz-decoded-content-length", over),
                ("transfer-encoding", "chunked"),
            ],
            &[
                ("x-amz-decoded-content-length", over),
                ("content-length", "5400000000"),
            ],
        ] {
            refused_early("PUT", target, headers, 400, "EntityTooLarge");
        }
        // Not one byte less: the framing of a body is no part of it.
        let world = World::new();
        let call = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
        let call = call.header("expect", "100-continue");
        for call in [
            call.clone().header("content-length", most),
            call.header("x-amz-decoded-content-length", most)
                .header("content-length", "5400000000"),
        ] {
            let mut client = Client::connect(call.addr);
            client.write(&call.head());
            assert_eq!(client.read_one("PUT").status, 100);
        }
    }
}

#[test]
fn a_part_number_that_cos_does_not_take_is_refused_early() {
    for number in ["0", "10001", "-1", "1.5", "x", "", "4294967297"] {
        let target = format!("{KEY}?partNumber={number}&uploadId=u");
        let length = [("content-length", "1")];
        refused_early("PUT", &target, &length, 400, "InvalidArgument");
        let copy = [("x-amz-copy-source", "photos/acme/a")];
        refused_early("PUT", &target, &copy, 400, "InvalidArgument");
    }
}

#[test]
fn a_copied_range_that_fits_no_part_is_refused_early() {
    for (range, code) in [
        ("bytes=0-5368709120", "InvalidRequest"),
        ("bytes=0-", "InvalidArgument"),
        ("bytes=-1", "InvalidArgument"),
        ("bytes=2-1", "InvalidArgument"),
        ("bytes=0-1,2-3", "InvalidArgument"),
        ("0-1", "InvalidArgument"),
        ("", "InvalidArgument"),
    ] {
        let target = format!("{KEY}?partNumber=1&uploadId=u");
        let headers = [
            ("x-amz-copy-source", "photos/acme/a"),
            ("x-amz-copy-source-range", range),
        ];
        refused_early("PUT", &target, &headers, 400, code);
    }
}

#[test]
fn metadata_that_cos_does_not_take_is_refused_early() {
    let large = "v".repeat(2048);
    let half = "v".repeat(1022);
    let puts: &[(&[(&str, &str)], &str)] = &[
        (&[("x-amz-meta-a", &large)], "MetadataTooLarge"),
        (
            &[("x-amz-meta-aa", &half), ("x-amz-meta-bbb", &half)],
            "MetadataTooLarge",
        ),
        (&[("x-amz-meta-a_b", "v")], "InvalidArgument"),
        (&[("x-amz-meta-a.b", "v")], "InvalidArgument"),
        (&[("x-amz-meta-", "v")], "InvalidArgument"),
        (&[("x-amz-meta-a", "\u{e9}")], "InvalidArgument"),
    ];
    for (metadata, code) in puts {
        let with = |more: (&'static str, &'static str)| {
            let more: [(&str, &str); 1] = [more];
            [metadata, &more[..]].concat()
        };
        let put = with(("content-length", "1"));
        refused_early("PUT", KEY, &put, 400, code);
        let copy = with(("x-amz-copy-source", "photos/acme/a"));
        refused_early("PUT", KEY, &copy, 400, code);
        let create = format!("{KEY}?uploads");
        refused_early("POST", &create, metadata, 400, code);
    }
    let world = World::new();
    let call = world.signed("PUT", KEY).body("x");
    let call = call.header("x-amz-meta-aa", &half);
    let call = call.header("x-amz-meta-bb", &half);
    call.fetch().assert_ok();
}

#[test]
fn a_key_that_cos_does_not_take_is_refused_early() {
    let long = format!("/photos/acme/{}", "%E4%B8%AD".repeat(282)); // 5 + 846 bytes
    let source = format!("photos/acme/{}", "k".repeat(846));
    let length = [("content-length", "1")];
    refused_early("PUT", &long, &length, 400, "KeyTooLongError");
    refused_early("GET", &long, &[], 400, "KeyTooLongError");
    let create = format!("{long}?uploads");
    refused_early("POST", &create, &[], 400, "KeyTooLongError");
    let copy = [("x-amz-copy-source", &*source)];
    refused_early("PUT", KEY, &copy, 400, "KeyTooLongError");
    for key in ["a%00b", "a%18b", "a/../b", "a%2F%2E%2E%2Fb"] {
        let target = format!("/photos/acme/{key}");
        refused_early("PUT", &target, &length, 400, "InvalidURI");
    }
    let world = World::new();
    let longest = format!("/photos/acme/{}", "k".repeat(845));
    world.put(&longest, "x");
}

/// A part of less than 1 MiB may be the last one, so COS alone can judge it, once it knows all of them.
#[test]
fn a_completion_that_cos_cannot_take_is_refused_early() {
    let part = |number: usize| {
        let etag = "<ETag>\"d41d8cd98f00b204e9800998ecf8427e\"</ETag>";
        let checksum = format!("<ChecksumSHA256>{}=</ChecksumSHA256>", "A".repeat(43));
        format!("<Part>{etag}{checksum}<PartNumber>{number}</PartNumber></Part>")
    };
    let complete = |world: &World, numbers: &mut dyn Iterator<Item = usize>| {
        let parts: String = numbers.map(part).collect();
        let xml = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let call = world.signed("POST", &format!("{KEY}?uploadId=u"));
        call.body(xml).fetch()
    };
    let world = World::new();
    for (numbers, code) in [
        (&[2, 1][..], "InvalidPartOrder"),
        (&[1, 1], "InvalidPartOrder"),
        (&[0], "InvalidArgument"),
        (&[10_001], "InvalidArgument"),
        (&[], "MalformedXML"),
    ] {
        complete(&world, &mut numbers.iter().copied()).assert_error(400, code);
    }
    complete(&world, &mut (1..=10_001)).assert_error(400, "InvalidArgument");
    let counts = world.emulator.counters().counts();
    assert_eq!((counts.cos_connections, counts.sts_calls), (0, 0));
    complete(&world, &mut (1..=10_000)).assert_error(404, "NoSuchUpload");
}

const SHORT: &str = r#"
[server.limits]
head_timeout = "300ms"
idle_timeout = "700ms"
body_window = "400ms"
body_rate = 10000
xml_bytes = 1024
connections = 3
"#;

/// How long until the peer closes.
fn life(client: &mut Client) -> Duration {
    let started = Instant::now();
    assert!(client.closes_within(10 * SECOND));
    started.elapsed()
}

fn assert_about(life: Duration, millis: u64) {
    let limit = Duration::from_millis(millis);
    assert!(
        life + Duration::from_millis(50) >= limit && life < limit + 3 * SECOND,
        "{life:?} is not about {limit:?}"
    );
}

#[test]
fn a_head_must_arrive_in_its_time() {
    let world = World::with(SHORT);
    let mut silent = Client::connect(world.gateway.addr);
    assert_about(life(&mut silent), 300);
    let mut half = Client::connect(world.gateway.addr);
    half.write(b"GET / HTTP/1.1\r\nHost: x\r\n");
    assert_about(life(&mut half), 300);
    let mut slow = Client::connect(world.gateway.addr);
    let started = Instant::now();
    let mut writer = slow.stream.try_clone().unwrap();
    std::thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    life(&mut slow);
    assert_about(started.elapsed(), 300);
}

#[test]
fn a_second_head_must_arrive_in_its_time_too() {
    let world = World::with(SHORT);
    let mut client = Client::connect(world.gateway.addr);
    client.write(&world.signed("GET", KEY).bytes());
    assert_eq!(client.read_one("GET").status, 404);
    std::thread::sleep(Duration::from_millis(100));
    client.write(b"GET /");
    assert_about(life(&mut client), 300);
}

#[test]
fn an_idle_connection_is_kept_for_its_time() {
    let world = World::with(SHORT);
    let mut client = Client::connect(world.gateway.addr);
    for _ in 0..3 {
        client.write(&world.signed("GET", KEY).bytes());
        assert_eq!(client.read_one("GET").status, 404);
        std::thread::sleep(Duration::from_millis(400));
    }
    client.write(&world.signed("GET", KEY).bytes());
    assert_eq!(client.read_one("GET").status, 404);
    assert_about(life(&mut client), 700);
}

#[test]
fn a_body_that_comes_too_slowly_is_a_timeout() {
    let world = World::with(SHORT);
    // Not a byte; a stop in the middle; a trickle.
    for (first, pause) in [(0, 0), (20_000, 0), (1000, 50)] {
        let call = world
            .signed("PUT", KEY)
            .payload("UNSIGNED-PAYLOAD")
            .body(vec![1; 1 << 20]);
        let mut client = Client::connect(world.gateway.addr);
        let started = Instant::now();
        client.write(&call.head());
        client.write(&call.body[..first]);
        if pause > 0 {
            let mut writer = client.stream.try_clone().unwrap();
            std::thread::spawn(move || {
                while writer.write_all(&[1; 100]).is_ok() {
                    std::thread::sleep(Duration::from_millis(pause));
                }
            });
        }
        let reply = client.read_one("PUT");
        reply.assert_error(400, "RequestTimeout");
        assert_about(started.elapsed(), 400);
        let stored = world.emulator.object_bytes(support::BUCKET, "acme/k");
        assert_eq!(stored, None);
    }
    // COS has not heard of the one of which no byte came.
    assert_eq!(world.emulator.counters().counts().cos_requests, 2);
}

#[test]
fn a_document_that_comes_too_slowly_is_a_timeout() {
    let world = World::with(SHORT);
    let call = world.signed("POST", "/photos?delete").body("<Delete>...");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    client.write(b"<");
    client.read_one("POST").assert_error(400, "RequestTimeout");
}

#[test]
fn a_reader_that_stops_is_cut() {
    let world = World::with(SHORT);
    let body = vec![5; 32 << 20];
    world
        .signed("PUT", KEY)
        .payload("UNSIGNED-PAYLOAD")
        .body(body)
        .send()
        .assert_ok();
    let mut client = Client::connect(world.gateway.addr);
    client.write(&world.signed("GET", KEY).bytes());
    let cut = || {
        world
            .gateway
            .log
            .text()
            .contains("read the response too slowly")
    };
    eventually("the reader is cut", cut);
    let mut read = 0;
    let mut part = vec![0; 1 << 20];
    while let Ok(n) = client.stream.read(&mut part) {
        read += n;
        if n == 0 {
            break;
        }
    }
    assert!(read < 32 << 20, "{read}");
}

#[test]
fn a_store_that_stops_reading_or_sending_is_given_up() {
    let limits = "[server.limits]\nbody_window = \"400ms\"";
    let (over, is_over) = mpsc::channel::<()>();
    let is_over = Mutex::new(is_over);
    let world = Scripted::with(
        vec![
            act(move |peer| {
                peer.head();
                let _ = is_over.lock().unwrap().recv(); // the body is not read
            }),
            act(|peer| {
                peer.head();
                peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun");
                while peer.client.fill() {}
            }),
        ],
        limits,
    );
    let call = world
        .signed("PUT", KEY)
        .payload("UNSIGNED-PAYLOAD")
        .body(vec![5; 32 << 20]);
    call.send().assert_error(504, "GatewayTimeout");
    drop(over);
    let reply = world.signed("GET", KEY).send();
    assert_eq!((reply.status, reply.whole), (200, false));
    world
        .gateway
        .log
        .assert_contains("COS sent the response too slowly");
}

#[test]
fn at_the_limit_of_connections_the_next_waits() {
    let world = World::with(SHORT);
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(world.gateway.addr);
            client.write(&world.signed("GET", KEY).bytes());
            assert_eq!(client.read_one("GET").status, 404);
            client
        })
        .collect();
    let mut next = Client::connect(world.gateway.addr);
    next.write(&world.signed("GET", KEY).bytes());
    let wait = Some(Duration::from_millis(300));
    next.stream.set_read_timeout(wait).unwrap();
    assert!(next.stream.peek(&mut [0]).is_err(), "a fourth was served");
    drop(busy);
    next.stream
        .set_read_timeout(Some(support::PATIENCE))
        .unwrap();
    assert_eq!(next.read_one("GET").status, 404);
}

#[test]
fn connections_over_loopback_are_not_counted_by_address() {
    let world = World::with("[server.limits]\nconnections_per_address = 1");
    let mut clients: Vec<_> = (0..3)
        .map(|_| Client::connect(world.gateway.addr))
        .collect();
    for client in &mut clients {
        client.write(&world.signed("GET", KEY).bytes());
        assert_eq!(client.read_one("GET").status, 404);
    }
}

#[test]
fn documents_that_are_only_announced_leave_room_for_others() {
    let world = World::new();
    let announced = world
        .signed("POST", "/photos?delete")
        .payload("UNSIGNED-PAYLOAD")
        .body(vec![b' '; 2 << 20]);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut client = Client::connect(world.gateway.addr);
            client.write(&announced.head());
            client.write(b" ");
            client
        })
        .collect();
    waiting.iter().for_each(Client::wait_until_read);
    let body = "<Delete><Object><Key>acme/a</Key></Object></Delete>";
    for _ in 0..5 {
        let delete = world.signed("POST", "/photos?delete").body(body);
        delete.send().assert_ok();
    }
    drop(waiting);
}

#[test]
fn a_document_over_the_limit_is_malformed() {
    let world = World::with(SHORT);
    let body = format!("<Delete><!--{}--></Delete>", "x".repeat(1024));
    for length in [1025, body.len()] {
        let reply = world
            .signed("POST", "/photos?delete")
            .body(&body.as_bytes()[..length])
            .send();
        reply.assert_error(400, "MalformedXML");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    assert_eq!(world.emulator.counters().counts().cos_requests, 0);
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on() {
    let emulator = support::emulator();
    let program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let get = || Call::new(program.addr, "GET", KEY).signed_by(ACME);
    assert_eq!(get().send().status, 404);
    let pid = program.process.id().to_string();
    run("prlimit", &["--pid", &pid, "--nofile=48"]);
    let mut many: Vec<_> = (0..80).map(|_| Client::connect(program.addr)).collect();
    // Who was accepted before the descriptors ran out is served as ever, by the connection to COS that
    // is there already: nobody else requests it yet.
    many[0].write(&get().bytes());
    assert_eq!(many[0].read_one("GET").status, 404);
    for client in &mut many[1..] {
        client.write(&get().bytes());
    }
    let before = cpu_ticks(&pid);
    std::thread::sleep(SECOND);
    let spent = cpu_ticks(&pid) - before;
    assert!(spent < 30, "it spins: {spent} ticks of 10 ms in a second");
    for mut client in many.drain(1..) {
        client
            .stream
            .set_read_timeout(Some(support::PATIENCE))
            .unwrap();
        let reply = client.read_one("GET");
        assert!(matches!(reply.status, 404 | 502), "{}", reply.status);
    }
    assert_eq!(get().send().status, 404);
}

/// CPU time of a process, user and system.
fn cpu_ticks(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = after.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
