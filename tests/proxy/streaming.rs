//! Streamed bodies: stored completely or not at all, and with little memory.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::large_stack_arrays,
    reason = "a test may panic, and measures real time"
)]

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{
    self, ACME, BUCKET, Call, Client, Gateway, Script, Scripted, World, act, header_of,
};
use cosgate::emulator::{CosFault, Faults};
use cosgate::encoding::hex::sha256_hex;

const KEY: &str = "/photos/acme/k";
const STORED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"e\"\r\n\r\n";

/// Bytes without repetition.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn withholds_the_end_of_a_wrong_body() {
    for length in [100_000, 3 << 20] {
        let received = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&received);
        let world = Scripted::new(vec![act(move |peer| {
            while let Some(head) = peer.head() {
                let announced = header_of(&head, "content-length").unwrap().parse().unwrap();
                let got = peer.body(announced);
                seen.lock().unwrap().push((announced, got));
                if got < announced {
                    return;
                }
                peer.respond(STORED);
            }
        })]);
        // The body has two parts, so that it is streamed. The wrong byte is the last one.
        let call = world.signed("PUT", KEY).body(noise(length));
        let mut wrong = call.body.clone();
        wrong[length - 1] ^= 1;
        let mut client = Client::connect(world.gateway.addr);
        client.write(&call.head());
        client.write(&wrong[..length / 2]);
        client.wait_until_read();
        client.write(&wrong[length / 2..]);
        let reply = client.read_one("PUT");
        reply.assert_error(400, "XAmzContentSHA256Mismatch");
        support::eventually("COS sees the end", || received.lock().unwrap().len() == 1);
        let (announced, got) = received.lock().unwrap()[0];
        assert_eq!(announced, length);
        assert!(got < announced, "{got} of {announced}");
        assert_eq!(world.gateway.metric("cosgate_bodies_withheld_total", ""), 1);

        world.signed("PUT", KEY).body("right").send().assert_ok();
    }
}

#[test]
fn stores_no_wrong_body() {
    let world = World::new();
    world.signed("PUT", KEY).body("old").send().assert_ok();
    for length in [1, 10_000, 5 << 20] {
        let reply = world
            .signed("PUT", KEY)
            .payload(&sha256_hex(b"something else"))
            .body(noise(length))
            .send();
        reply.assert_error(400, "XAmzContentSHA256Mismatch");
        let stored = world.emulator.object_bytes(BUCKET, "acme/k").unwrap();
        assert_eq!(stored, b"old");
    }
}

/// A small wrong body causes no request to COS.
#[test]
fn small_wrong_body_sends_nothing_to_cos() {
    let world = Scripted::new(vec![act(|peer| peer.always(STORED))]);
    let reply = world
        .signed("PUT", KEY)
        .payload(&sha256_hex(b"a"))
        .body("b")
        .send();
    reply.assert_error(400, "XAmzContentSHA256Mismatch");
    assert_eq!(world.script.heads().len(), 0);
}

#[test]
fn returns_what_was_uploaded() {
    let world = World::new();
    for length in [0, 1, 8191, 8192, 1 << 20, 64 << 20] {
        let body = noise(length);
        let hash = sha256_hex(&body);
        world.signed("PUT", KEY).body(body).send().assert_ok();
        let reply = world.signed("GET", KEY).send();
        assert_eq!(reply.assert_ok().body.len(), length);
        assert_eq!(sha256_hex(&reply.body), hash);
    }
}

#[test]
fn disconnected_client_leaves_no_object_and_no_connection() {
    let world = World::new();
    let length = 4 << 20;
    for reset in [false, true] {
        let call = world
            .signed("PUT", "/photos/acme/half")
            .payload("UNSIGNED-PAYLOAD")
            .body(noise(length));
        let mut client = Client::connect(world.gateway.addr);
        client.write(&call.head());
        client.write(&call.body[..length - 1]);
        if reset {
            let linger = Some(Duration::ZERO);
            socket2::SockRef::from(&client.stream)
                .set_linger(linger)
                .unwrap();
        }
        drop(client);
        support::eventually("the upload ends", || {
            world.gateway.log.text().lines().count() > usize::from(reset) * 2
        });
        let reply = world.signed("GET", "/photos/acme/half").send();
        assert_eq!(reply.status, 404);
    }
    world.signed("PUT", KEY).body("next").send().assert_ok();
}

#[test]
fn responds_to_a_truncated_upload() {
    let world = World::new();
    let call = world
        .signed("PUT", "/photos/acme/half")
        .payload("UNSIGNED-PAYLOAD")
        .body(noise(300_000));
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    client.write(&call.body[..200_000]);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.read_one("PUT").assert_error(400, "IncompleteBody");
    assert_eq!(world.emulator.object_bytes(BUCKET, "acme/half"), None);
}

#[test]
fn responds_to_a_half_closed_client() {
    let world = World::new();
    let mut client = Client::connect(world.gateway.addr);
    client.write(&world.signed("PUT", KEY).body("whole").bytes());
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.read_one("PUT").assert_ok();
}

#[test]
fn cut_upload_closes_its_connection_to_cos() {
    let ended = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&ended);
    let world = Scripted::new(vec![act(move |peer| {
        let head = peer.head().unwrap();
        let length: usize = header_of(&head, "content-length").unwrap().parse().unwrap();
        if peer.body(length) < length {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    })]);
    let call = world.signed("PUT", KEY).body(noise(1 << 20));
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    client.write(&call.body[..1 << 19]);
    drop(client);
    support::eventually("COS sees the end", || ended.load(Ordering::SeqCst) == 1);
}

#[test]
fn aborted_download_closes_its_connection_to_cos() {
    let ended = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&ended);
    let world = Scripted::new(vec![
        act(move |peer| {
            peer.head();
            peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
            while peer.client.stream.write_all(&[7; 65536]).is_ok() {}
            seen.fetch_add(1, Ordering::SeqCst);
        }),
        act(|peer| peer.always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),
    ]);
    let mut client = Client::connect(world.gateway.addr);
    client.write(&world.signed("GET", KEY).bytes());
    client.stream.read_exact(&mut [0; 100_000]).unwrap();
    drop(client);
    support::eventually("COS sees the end", || ended.load(Ordering::SeqCst) == 1);
    let reply = world.signed("GET", KEY).send();
    assert_eq!(reply.assert_ok().text(), "ok");
}

#[test]
fn upload_fails_when_cos_disconnects() {
    let world = World::new();
    world.emulator.faults().set(Faults {
        cos: Some(CosFault::ResetAfterReceived(100_000)),
        cos_times: Some(1),
        ..Faults::default()
    });
    let call = world.signed("PUT", KEY).body(noise(4 << 20));
    call.send().assert_error(502, "BadGateway");
    assert_eq!(world.emulator.object_bytes(BUCKET, "acme/k"), None);
    call.send().assert_ok();
}

#[test]
fn download_is_cut_when_cos_disconnects() {
    let world = World::new();
    let body = noise(4 << 20);
    world.signed("PUT", KEY).body(body.clone()).send();
    world.emulator.faults().set(Faults {
        cos: Some(CosFault::ResetAfterSent(1_000_000)),
        cos_times: Some(1),
        ..Faults::default()
    });
    let reply = world.signed("GET", KEY).send();
    assert_eq!((reply.status, reply.whole), (200, false));
    assert_eq!(reply.body, body[..reply.body.len()]);
    assert!(reply.header("content-length").is_some());
    let again = world.signed("GET", KEY).send();
    assert_eq!(again.assert_ok().body, body);
    world.gateway.log.assert_contains("COS ended the response");
}

#[test]
fn slow_peers_get_every_byte() {
    let world = World::new();
    let body = noise(300_000);
    let call = world.signed("PUT", KEY).body(body.clone());
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    for part in body.chunks(10_000) {
        client.write(part);
        std::thread::sleep(Duration::from_millis(10));
    }
    client.read_one("PUT").assert_ok();

    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&world.gateway.addr.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    let call = world.signed("GET", KEY).header("connection", "close");
    stream.write_all(&call.bytes()).unwrap();
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let n = stream.read(&mut part).unwrap();
        if n == 0 {
            break;
        }
        all.extend_from_slice(&part[..n]);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(all.ends_with(&body));
}

#[test]
fn concurrent_bodies_do_not_mix() {
    let world = World::new();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let world = &world;
            scope.spawn(move || {
                let target = format!("/photos/acme/{n}");
                let mut body = noise(200_000 + n * 7919);
                body[0] = u8::try_from(n).unwrap();
                for _ in 0..4 {
                    let put = world.signed("PUT", &target).body(body.clone());
                    put.send().assert_ok();
                    let got = world.signed("GET", &target).send();
                    assert_eq!(got.assert_ok().body, body);
                }
            });
        }
    });
}

/// A store that changes one byte before it writes to the disk, once.
fn flipping(world: &World) {
    world.emulator.faults().set(Faults {
        cos: Some(CosFault::FlipAfterReceived(70_000)),
        cos_times: Some(1),
        ..Faults::default()
    });
}

#[test]
fn upload_fails_when_cos_stores_other_bytes() {
    for operation in ["PutObject", "UploadPart"] {
        let world = World::new();
        let target = if operation == "UploadPart" {
            let begun = world.fetch("POST", &format!("{KEY}?uploads")).text();
            let id = support::element(&begun, "UploadId");
            format!("{KEY}?partNumber=1&uploadId={id}")
        } else {
            KEY.to_owned()
        };
        let body = noise(100_000);
        let call = world
            .signed("PUT", &target)
            .payload("UNSIGNED-PAYLOAD")
            .body(body.clone());
        flipping(&world);
        let reply = call.send();
        reply.assert_error(500, "InternalError");
        assert!(reply.header("etag").is_none(), "{operation}");
        let metric = |name| world.gateway.metric(name, "");
        assert_eq!(metric("cosgate_stored_otherwise_total"), 1, "{operation}");
        let sent = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Xz, &body);
        let mut flipped = body.clone();
        flipped[70_000] ^= 1;
        let stored = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Xz, &flipped);
        world.gateway.log.assert_contains(&format!(
            "the CRC-64/ECMA of what was sent is {sent}, COS reports \\\"{stored}\\\""
        ));
        call.send().assert_ok();
        assert_eq!(metric("cosgate_stored_otherwise_total"), 1, "{operation}");
    }
}

#[test]
fn verifies_digests_of_cos_as_configured() {
    let wrong_crc = "x-cos-hash-crc64ecma: 7\r\nETag: \"e\"\r\n";
    let wrong_md5 = "ETag: \"00000000000000000000000000000000\"\r\n";
    let responses: [(&str, &str, bool); 7] = [
        ("crc64ecma", wrong_crc, false),
        ("crc64ecma", wrong_md5, true),
        ("crc64ecma", "ETag: \"e\"\r\n", true),
        ("md5", wrong_md5, false),
        (
            "md5",
            "ETag: \"6d0bb00954ceb7fbee436bb55a8397a9\"\r\n",
            true,
        ),
        ("off", wrong_crc, true),
        ("off", wrong_md5, true),
    ];
    for (check, field, passes) in responses {
        let response = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 0\r\n\r\n");
        let script = act(move |peer| peer.always(&response));
        let (script, emulator) = (Script::new(vec![script]), support::emulator());
        let config = support::toml(script.addr, emulator.sts_addr(), "");
        let keyed = format!("[upstream]\nstored_check = \"{check}\"");
        let gateway = Gateway::start(&config.replacen("[upstream]", &keyed, 1));
        // 100 zero bytes: MD5 6d0bb00954ceb7fbee436bb55a8397a9.
        let call = Call::new(gateway.addr, "PUT", KEY).signed_by(ACME);
        let reply = call.body(vec![0; 100]).send();
        let expected = if passes { 200 } else { 500 };
        assert_eq!(reply.status, expected, "{check} {field}");
    }
}
