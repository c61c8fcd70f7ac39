//! HTTP/2: everything that HTTP/1 does, with concurrent streams and the same limits.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::large_stack_arrays,
    reason = "a test may panic, and measures real time"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::support::http2::{Http2, reply, request, send_data, tls};
use crate::support::{
    self, Act, Authority, BUCKET, Call, Gateway, Log, PATIENCE, Scripted, World, act, eventually,
    header_of,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use h2::Reason;
use h2::client::Builder;
use http::{Request, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep, timeout};
use tokio_rustls::client::TlsStream;

const KEY: &str = "/photos/acme/k";
const STORED: &str = "acme/k";

fn object(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

/// An upload as SDKs send it over TLS; the checksum is that of `checksummed`.
fn unsigned_trailer(world: &World, object: &[u8], checksummed: &[u8]) -> Call {
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, checksummed);
    let crc = BASE64_STANDARD.encode(u32::try_from(crc).unwrap().to_be_bytes());
    let head = format!("{:x}\r\n", object.len());
    let trailer = format!("\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n");
    world
        .signed("PUT", KEY)
        .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .header("x-amz-decoded-content-length", &object.len().to_string())
        .body([head.as_bytes(), object, trailer.as_bytes()].concat())
}

/// cosgate over TLS in front of a scripted COS.
fn scripted(authority: &Authority, acts: Vec<Act>, more: &str) -> Scripted {
    Scripted::with(acts, &authority.tls(more))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_and_reads_back_every_upload_form() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    for length in [1, 5000, 300_000, 3 << 20] {
        let object = object(length);
        let put = world.signed("PUT", KEY);
        let plain = put.clone().body(object.clone());
        let unsigned = plain.clone().payload("UNSIGNED-PAYLOAD");
        let trailer = unsigned_trailer(&world, &object, &object);
        let (chunked, body) = support::frames::signed_chunks(put, &object, 65_536);
        for call in [plain, unsigned, trailer, chunked.body(body)] {
            let without_length = |mut request: Request<()>| {
                request.headers_mut().remove("content-length");
                request
            };
            client.send(&call).await.assert_ok();
            let reply = client.send(&world.signed("GET", KEY)).await;
            assert!(
                reply.assert_ok().body == object,
                "{length} {:?}",
                call.payload
            );
            assert!(world.emulator.object_bytes(BUCKET, STORED) == Some(object.clone()));
            if call.head().windows(8).any(|name| name == b"decoded-") {
                let request = without_length(request(&call));
                client
                    .exchange(request, &call.body)
                    .await
                    .unwrap()
                    .assert_ok();
            }
        }
    }
    client.send(&world.signed("PUT", KEY)).await.assert_ok();
    assert_eq!(world.stored(STORED).as_deref(), Some(""));
    client.send(&world.signed("HEAD", KEY)).await.assert_ok();
    client.send(&world.signed("DELETE", KEY)).await.assert_ok();
    world.gateway.log.assert_contains("\"http\":\"2\"");
    assert_eq!(
        world
            .gateway
            .metric("cosgate_connections_accepted_total", ""),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachment_grant_adds_content_disposition() {
    let authority = Authority::new("ours");
    let page = act(|peer| {
        peer.always(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Disposition: inline\r\nContent-Length: 2\r\n\r\nok",
        );
    });
    let grant = "[[tenants.globex.grants]]\nname = \"saved\"\nbucket = \"shared-1250000000\"\nregion = \"ap-guangzhou\"
                 prefixes = [\"pages/*\"]\nactions = [\"read\"]\nattachment = true";
    let world = scripted(&authority, vec![page], grant);
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let addr = world.gateway.addr;
    let get = Call::new(addr, "GET", "/saved/pages/a").signed_by(support::GLOBEX);
    let reply = client.send(&get).await;
    let shown = ["content-disposition", "x-content-type-options"].map(|name| reply.header(name));
    assert_eq!(reply.assert_ok().body, b"ok");
    assert_eq!(shown, [Some("attachment"), Some("nosniff")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_http1_without_alpn_or_when_disabled() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let stream = tls(&authority, world.gateway.addr, &["http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let off = authority.serve("[server.limits]\nstreams = 0");
    let mut stream = tls(&authority, off.gateway.addr, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream
        .write_all(&off.signed("GET", KEY).bytes())
        .await
        .unwrap();
    let mut response = [0; 12];
    stream.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, b"HTTP/1.1 404");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_do_not_block_others() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let large = object(1 << 20);
    let client = Arc::new(Http2::connect(&authority, world.gateway.addr).await);
    client
        .send(&world.signed("PUT", KEY).body(large.clone()))
        .await
        .assert_ok();
    // Ten uploads stop in the middle, and ten responses are not read.
    let mut stalled = Vec::new();
    for n in 0..10 {
        let call = world.signed("PUT", &format!("/photos/acme/stalled{n}"));
        let call = call.payload("UNSIGNED-PAYLOAD").body(large.clone());
        let (response, mut stream) = client.start(request(&call)).await;
        send_data(&mut stream, &large[..50_000], false)
            .await
            .unwrap();
        stalled.push((response, stream));
    }
    let others = (0..60).map(|n| {
        let (client, object) = (Arc::clone(&client), object(100_000 + n));
        let target = format!("/photos/acme/{n}");
        let (put, get) = (world.signed("PUT", &target), world.signed("GET", &target));
        tokio::spawn(async move {
            client.send(&put.body(object.clone())).await.assert_ok();
            assert!(client.send(&get).await.assert_ok().body == object);
        })
    });
    for other in others.collect::<Vec<_>>() {
        other.await.unwrap();
    }
    for (n, (response, mut stream)) in stalled.into_iter().enumerate() {
        send_data(&mut stream, &large[50_000..], true)
            .await
            .unwrap();
        reply(response).await.unwrap().assert_ok();
        let stored = world
            .emulator
            .object_bytes(BUCKET, &format!("acme/stalled{n}"));
        assert!(stored.as_ref() == Some(&large));
    }
    eventually("a line each", || {
        world.gateway.log.text().matches("\"status\":200").count() == 1 + 10 + 120
    });
    assert_eq!(world.gateway.metric(HEADS_REFUSED, ""), 0);
}

/// A COS that reads one upload. Gives the number of bytes of its body.
fn counting(count: &Arc<std::sync::Mutex<Option<usize>>>) -> Act {
    let count = Arc::clone(count);
    act(move |peer| {
        let head = peer.head().unwrap();
        let length = header_of(&head, "content-length").unwrap().parse().unwrap();
        let got = peer.body(length);
        *count.lock().unwrap() = Some(got);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_an_upload_that_the_client_resets() {
    let authority = Authority::new("ours");
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let count = Arc::default();
        let world = scripted(&authority, vec![counting(&count)], "");
        let client = Http2::connect(&authority, world.gateway.addr).await;
        let call = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
        let call = call.body(vec![7; 1 << 20]);
        let (_response, mut stream) = client.start(request(&call)).await;
        send_data(&mut stream, &call.body[..500_000], false)
            .await
            .unwrap();
        eventually("the upload has begun", || !world.script.heads().is_empty());
        stream.send_reset(reason);
        eventually("COS sees the end", || count.lock().unwrap().is_some());
        let got = count.lock().unwrap().unwrap();
        assert!(got < 1 << 20, "{reason:?}: {got}");
        world.gateway.log.assert_contains("\"PutObject\"");
    }
}

/// hyper treats a reset with `NO_ERROR` as the end of a body. A body of unknown length would seem complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_a_body_of_unknown_length_until_end_of_stream() {
    let authority = Authority::new("ours");
    let spooling = |signed: String| {
        signed.replacen(
            "[upstream]",
            "[upstream]\nspool_unknown_length = \"1MiB\"",
            1,
        )
    };
    let tls = authority.tls("");
    let world = World::edited(|toml| spooling(toml) + &tls);
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let call = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
    let call = call.body(object(100_000));
    let unknown = || {
        let mut request = request(&call);
        request.headers_mut().remove("content-length");
        request
    };
    let (_response, mut stream) = client.start(unknown()).await;
    send_data(&mut stream, &call.body[..50_000], false)
        .await
        .unwrap();
    // The bytes sent before this request have arrived when its response arrives.
    let other = world.signed("GET", "/photos/acme/other");
    client.send(&other).await;
    stream.send_reset(Reason::NO_ERROR);
    client.send(&other).await;
    assert_eq!(world.emulator.object_bytes(BUCKET, STORED), None);
    client
        .exchange(unknown(), &call.body)
        .await
        .unwrap()
        .assert_ok();
    assert!(world.emulator.object_bytes(BUCKET, STORED) == Some(call.body.clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_an_upload_without_a_length() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let call = world
        .signed("PUT", KEY)
        .payload("UNSIGNED-PAYLOAD")
        .body("x");
    let mut unknown = request(&call);
    unknown.headers_mut().remove("content-length");
    let refused = client.exchange(unknown, b"x").await.unwrap();
    refused.assert_error(411, "MissingContentLength");
    for (body, status) in [("", 200), ("x", 400)] {
        let mut begin = request(&world.signed("POST", &format!("{KEY}?uploads")));
        begin.headers_mut().remove("content-length");
        let (response, mut stream) = client.start(begin).await;
        client.send(&world.signed("GET", KEY)).await; // arrives after that head
        stream.send_data(Bytes::from(body), true).unwrap();
        let reply = reply(response).await.unwrap();
        assert_eq!(reply.status, status, "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_no_falsified_or_wrongly_sized_body() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let object = object(300_000);
    let mut spoilt = world.signed("PUT", KEY).body(object.clone());
    spoilt = spoilt.payload(&"0".repeat(64));
    let put = world.signed("PUT", KEY);
    let (chunked, mut body) = support::frames::signed_chunks(put, &object, 65_536);
    body[200_000] ^= 1;
    for (call, code) in [
        (spoilt, "XAmzContentSHA256Mismatch"),
        (unsigned_trailer(&world, &object, b"another"), "BadDigest"),
        (chunked.body(body), "SignatureDoesNotMatch"),
    ] {
        let reply = client.send(&call).await;
        reply.assert_error(reply.status, code);
        assert!(reply.whole && reply.header("connection").is_none());
        assert_eq!(world.emulator.object_bytes(BUCKET, STORED), None);
    }
    let call = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
    let call = call.body(object.clone());
    let short = client.exchange(request(&call), &object[1..]).await;
    assert_eq!(
        short.err().and_then(|error| error.reason()),
        Some(Reason::PROTOCOL_ERROR)
    );
    // One byte too many, in a frame of its own.
    let (response, mut stream) = client.start(request(&call)).await;
    send_data(&mut stream, &object, false).await.unwrap();
    client.send(&world.signed("GET", KEY)).await; // arrives after that data
    assert_eq!(world.emulator.object_bytes(BUCKET, STORED), None);
    send_data(&mut stream, b"x", true).await.unwrap();
    assert_eq!(
        reply(response).await.err().and_then(|error| error.reason()),
        Some(Reason::PROTOCOL_ERROR)
    );
    assert_eq!(world.emulator.object_bytes(BUCKET, STORED), None);
    // The connection stays open.
    client.send(&call).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignores_trailers_of_a_client() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let call = world.signed("PUT", KEY).body("abc");
    let (response, mut stream) = client.start(request(&call)).await;
    send_data(&mut stream, b"abc", false).await.unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-amz-meta-late", "x".parse().unwrap());
    trailers.insert("x-amz-checksum-crc32", "AAAAAA==".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    reply(response).await.unwrap().assert_ok();
    let head = client.send(&world.signed("HEAD", KEY)).await;
    assert_eq!(head.header("x-amz-meta-late"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_upload_ends_only_its_stream() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let call = world
        .signed("PUT", "/photos/globex/k")
        .payload("UNSIGNED-PAYLOAD");
    let call = call.body(vec![7; 1 << 20]);
    let (response, mut stream) = client.start(request(&call)).await;
    let reply = reply(response).await.unwrap();
    reply.assert_error(403, "AccessDenied");
    assert_eq!(reply.header("connection"), None);
    let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    assert_eq!(reset.unwrap(), Reason::NO_ERROR);
    client
        .send(&world.signed("PUT", KEY).body("x"))
        .await
        .assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_must_match_authority() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    client
        .send(&world.signed("PUT", KEY).body("x"))
        .await
        .assert_ok();
    let send = async |host: &str, more: Option<&str>, authority: Option<&str>| {
        let get = world.signed("GET", KEY).header("host", host);
        let mut request = request(&get);
        if let Some(authority) = authority {
            *request.uri_mut() = format!("https://{authority}{KEY}").parse().unwrap();
        }
        if let Some(host) = more {
            request.headers_mut().append("host", host.parse().unwrap());
        }
        client.exchange(request, b"").await.unwrap()
    };
    send("localhost", None, None).await.assert_ok();
    send("localhost", Some("localhost"), None).await.assert_ok();
    send("localhost", Some("LOCALHOST"), None)
        .await
        .assert_error(403, "SignatureDoesNotMatch");
    send("localhost", Some("other"), None)
        .await
        .assert_error(400, "InvalidRequest");
    send("localhost", None, Some("other"))
        .await
        .assert_error(403, "SignatureDoesNotMatch");
    send("localhost", None, Some("me@localhost"))
        .await
        .assert_error(400, "InvalidRequest");
    // The bucket is in the host name.
    let get = world
        .signed("GET", "/acme/k")
        .header("host", "photos.s3.localhost");
    client.send(&get).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_malformed_heads() {
    let log = Log::of_program();
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let odd = |method: &str, uri: &str| {
        let request = Request::builder().method(method).uri(uri);
        request.version(Version::HTTP_2).body(()).unwrap()
    };
    let response = async |request| client.exchange(request, b"").await.unwrap();
    response(odd("GET", "ftp://localhost/photos/acme/k"))
        .await
        .assert_error(400, "InvalidRequest");
    let connect = response(odd("CONNECT", "localhost:443")).await;
    assert_eq!(connect.status, 400);
    let mut many = request(&world.signed("GET", KEY));
    for n in 0..100 {
        let name: http::HeaderName = format!("x-{n}").parse().unwrap();
        many.headers_mut().insert(name, "x".parse().unwrap());
    }
    response(many).await.assert_error(431, "InvalidRequest");
    let large = |bytes: usize| {
        request(
            &world
                .signed("GET", KEY)
                .header("x-large", &"x".repeat(bytes)),
        )
    };
    response(large(17 << 10))
        .await
        .assert_error(431, "InvalidRequest");
    assert_eq!(response(large(40 << 10)).await.status, 431);
    world.gateway.log.assert_contains("\"status\":431");
    for (name, value) in [
        ("connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
    ] {
        let mut raw = Raw::connect(&authority, world.gateway.addr).await;
        raw.head(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", KEY),
            (":authority", "x"),
            (name, value),
        ])
        .await;
        assert_eq!(
            raw.next_of(&[HEADERS, RST_STREAM]).await,
            Some(RST_STREAM),
            "{name}"
        );
    }
    // h2 resets an invalid path. A path that it accepts gets a response, and has no effect.
    for (path, shown) in [
        ("x", RST_STREAM),
        ("/a b", RST_STREAM),
        ("*", HEADERS),
        ("?a", HEADERS),
    ] {
        let mut raw = Raw::connect(&authority, world.gateway.addr).await;
        raw.head(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", path),
            (":authority", "x"),
        ])
        .await;
        let first = raw.next_of(&[HEADERS, RST_STREAM]).await;
        assert_eq!(first, Some(shown), "{path}");
    }
    let mut hostless = Raw::connect(&authority, world.gateway.addr).await;
    hostless
        .head(&[(":method", "GET"), (":scheme", "https"), (":path", KEY)])
        .await;
    assert_eq!(
        hostless.next_of(&[HEADERS, RST_STREAM]).await,
        Some(HEADERS)
    );
    eventually("they are refused", || {
        let log = world.gateway.log.text();
        log.matches("\"status\":400").count() == 2 + 3
    });
    // Four fields, two paths, and the head that h2 found too large.
    let unserved = || world.gateway.metric(HEADS_REFUSED, "\"http2\"");
    eventually("those that h2 refused are counted", || unserved() == 7);
    let is_logged = |line: &&str| {
        line.contains("a request head is refused") && line.contains("cause=\"http2\"")
    };
    eventually("they are logged", || {
        log.text().lines().filter(is_logged).count() > 0
    });
    assert_eq!(world.upstream_requests(), 0);
    client
        .send(&world.signed("PUT", KEY).body("x"))
        .await
        .assert_ok();
}

/// `:path` and `/photos/public/hash#frag` in Huffman code, each after its length.
const HUFFMAN_NAME: [u8; 5] = [0x84, 0xb9, 0x58, 0xd3, 0x3f];
const HUFFMAN_PATH: [u8; 19] = [
    0x92, 0x62, 0xb9, 0xce, 0x93, 0xa1, 0x8a, 0xed, 0x8e, 0x83, 0x11, 0x89, 0xc6, 0x89, 0xff, 0xea,
    0x5b, 0x07, 0x37,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_a_fragment_in_every_encoding() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let http2 = Http2::connect(&authority, world.gateway.addr).await;
    let kept = world.signed("PUT", KEY).body("kept");
    http2.send(&kept).await.assert_ok();
    let public = Call::new(world.gateway.addr, "PUT", "/photos/public/hash");
    let public = public.header("host", "localhost").body("kept");
    http2.send(&public).await.assert_ok();
    let requests = world.upstream_requests();

    let plain = [&[24][..], b"/photos/public/hash#frag"].concat();
    let mut paths = Vec::new();
    for value in [&plain[..], &HUFFMAN_PATH] {
        for kind in [0x40, 0x00, 0x10] {
            // The name from the static table, in letters, and in Huffman code.
            paths.push([&[kind | 4][..], value].concat());
            paths.push([&[kind, 5][..], b":path", value].concat());
            paths.push([&[kind][..], &HUFFMAN_NAME, value].concat());
        }
    }
    for method in ["PUT", "DELETE", "GET"] {
        let before = block(&[(":method", method), (":scheme", "https")]);
        let after = block(&[(":authority", "localhost"), ("content-length", "0")]);
        for path in &paths {
            let fields = [&before[..], path, &after].concat();
            for split in [None, Some(before.len() + path.len() / 2)] {
                let mut raw = Raw::connect(&authority, world.gateway.addr).await;
                match split {
                    None => raw.write(HEADERS, 5, 1, &fields).await.unwrap(),
                    Some(at) => {
                        let (a, b) = fields.split_at(at);
                        raw.write(HEADERS, 1, 1, a).await.unwrap();
                        raw.write(CONTINUATION, 4, 1, b).await.unwrap();
                    }
                }
                assert_eq!(raw.status(1).await, Some(400), "{method} {path:x?}");
            }
        }
    }
    // Again from the dynamic table, then in new letters under a name from there, and with a query.
    let mut raw = Raw::connect(&authority, world.gateway.addr).await;
    let before = block(&[(":method", "PUT"), (":scheme", "https")]);
    let after = block(&[(":authority", "localhost"), ("content-length", "0")]);
    let paths = [
        [&[0x44][..], &HUFFMAN_PATH].concat(),
        vec![0xbe], // entry 62 is the newest
        [&[0x7e, 14][..], b"/photos/pub#x/"].concat(),
        [&[0x0f, 62 - 15, 10][..], b"/b/k?x=y#z"].concat(),
    ];
    for (n, path) in paths.iter().enumerate() {
        let stream = u32::try_from(2 * n + 1).unwrap();
        let fields = [&before[..], path, &after].concat();
        raw.write(HEADERS, 5, stream, &fields).await.unwrap();
        assert_eq!(raw.status(stream).await, Some(400), "{path:x?}");
    }
    raw.ends().await; // even though it is not idle for long

    assert_eq!(world.upstream_requests(), requests);
    assert_eq!(world.stored("public/hash").as_deref(), Some("kept"));
    // Other connections are not affected.
    http2.send(&kept).await.assert_ok();
}

/// h2 resets a length that it cannot parse. No such request is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_invalid_content_lengths() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    for (length, expected) in [
        ("18446744073709551615", None),
        ("18446744073709551616", None),
        ("99999999999999999999", None),
        ("+1", None),
        ("1 1", None),
        ("1, 2", None),
        ("0x1", None),
        ("9223372036854775807", Some(400)),
        ("5368709121", Some(400)),
    ] {
        let mut raw = Raw::connect(&authority, world.gateway.addr).await;
        let fields = block(&[
            (":method", "PUT"),
            (":scheme", "https"),
            (":path", "/photos/public/k"),
            (":authority", "localhost"),
            ("content-length", length),
        ]);
        raw.write(HEADERS, 4, 1, &fields).await.unwrap();
        assert_eq!(raw.status(1).await, expected, "{length}");
    }
    assert_eq!(world.upstream_requests(), 0);
}

/// h2 and hyper must read a target as its client wrote it, or refuse it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_changes_the_target() {
    const PIECES: [&str; 24] = [
        "a",
        "/",
        "//",
        "?",
        "#",
        "%23",
        "%2F",
        "%3f",
        "%",
        "%zz",
        "\\",
        "\t",
        " ",
        "\u{1}",
        "\u{7f}",
        "中",
        "%E4%B8%AD",
        "\"",
        "<",
        "{",
        "|",
        "+",
        ";",
        "@",
    ];
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let mut random = 42_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % below
    };
    let plain = World::new();
    let mut served = 0;
    for _ in 0..150 {
        let tail: String = (0..=next(4)).map(|_| PIECES[next(PIECES.len())]).collect();
        let target = format!("/photos/public/k{tail}");
        for world in [&world, &plain] {
            world.emulator.counters().reset();
        }
        let mut raw = Raw::connect(&authority, world.gateway.addr).await;
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "localhost"),
        ];
        raw.head(&[&fields[..], &[(":path", &*target)]].concat())
            .await;
        let status = raw.status(1).await;
        served += usize::from(status == Some(404));
        check(&world, &target, status);

        let mut client = support::Client::connect(plain.gateway.addr);
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.write(head.as_bytes());
        check(&plain, &target, Some(client.read_reply("GET").status));
    }
    assert!(served > 20, "{served}");
}

/// If `target` reaches COS, it has the right key there.
fn check(world: &World, target: &str, status: Option<u16>) {
    let heads = world.emulator.counters().heads();
    let Some(head) = heads.first() else {
        assert!(
            matches!(status, None | Some(400 | 403 | 501)),
            "{target:?} {status:?}"
        );
        return;
    };
    let sent = target.strip_prefix("/photos").unwrap();
    assert!(!sent.contains('#'), "{target:?} became {:?}", head.target);
    let key = |target: &str| {
        let path = target.split('?').next().unwrap().to_owned();
        cosgate::encoding::percent::percent_decode(&path)
            .unwrap()
            .to_vec()
    };
    assert_eq!(
        key(&head.target),
        key(sent),
        "{target:?} became {:?}",
        head.target
    );
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// A client that writes single frames.
struct Raw(TlsStream<TcpStream>);

impl Raw {
    async fn connect(authority: &Authority, addr: SocketAddr) -> Self {
        let mut raw = Self(tls(authority, addr, &["h2"]).await);
        raw.0
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        raw.write(SETTINGS, 0, 0, &[]).await.unwrap();
        raw
    }

    async fn write(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }

    /// A complete request without a body on the first stream.
    async fn head(&mut self, fields: &[(&str, &str)]) {
        self.write(HEADERS, 5, 1, &block(fields)).await.unwrap();
    }

    /// The next frame: kind, stream, payload; `None` when the connection has ended.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [_, a, b, c, ..] = [0, head[0], head[1], head[2]];
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some((head[3], stream, payload))
    }

    /// The first frame of these kinds, or the end.
    async fn next_of(&mut self, kinds: &[u8]) -> Option<u8> {
        loop {
            let next = timeout(PATIENCE, self.next()).await.unwrap();
            let (kind, ..) = next?;
            if kinds.contains(&kind) {
                return Some(kind);
            }
        }
    }

    /// The status of the response on `stream`; `None` when the stream is reset or the connection ends.
    async fn status(&mut self, stream: u32) -> Option<u16> {
        loop {
            match timeout(PATIENCE, self.next()).await.unwrap()? {
                // RFC 7541 appendix A; h2 encodes other statuses in letters.
                (HEADERS, of, payload) if of == stream => {
                    return Some(match payload[0] {
                        0x88 => 200,
                        0x8c => 400,
                        0x8d => 404,
                        _ => coded_status(&payload),
                    });
                }
                (RST_STREAM, of, _) if of == stream => return None,
                _ => {}
            }
        }
    }

    async fn ends(&mut self) {
        while timeout(PATIENCE, self.next()).await.unwrap().is_some() {}
    }
}

/// A status in letters under a name of the static table. Digits have five or six bits each.
fn coded_status(field: &[u8]) -> u16 {
    assert_eq!(field[0] & 0xcf, 0x48, "{field:x?}");
    let length = usize::from(field[1] & 0x7f);
    let text = &field[2..2 + length];
    if field[1] & 0x80 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    let bits = text
        .iter()
        .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let (mut left, mut status) = (8 * text.len(), 0);
    for _ in 0..3 {
        let digit = bits >> (left - 5) & 0x1f;
        let (digit, length) = if digit <= 2 {
            (digit, 5)
        } else {
            ((bits >> (left - 6) & 0x3f) - 0x19 + 3, 6)
        };
        status = status * 10 + u16::try_from(digit).unwrap();
        left -= length;
    }
    status
}

/// A header block without compression.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn anonymous() -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/photos/public/k"),
        (":authority", "localhost"),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_the_connection_after_a_reset_flood() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    // All at once, as an attacker sends them, and one by one, so that each request starts.
    for pause in [0, 1] {
        let mut raw = Raw::connect(&authority, world.gateway.addr).await;
        let mut sent = 0;
        for stream in 0..2000 {
            let stream = stream * 2 + 1;
            if raw.write(HEADERS, 5, stream, &anonymous()).await.is_err() {
                break;
            }
            if pause > 0 {
                sleep(Duration::from_millis(pause)).await;
            }
            let cancel = 8_u32.to_be_bytes();
            if raw.write(RST_STREAM, 0, stream, &cancel).await.is_err() {
                break;
            }
            sent += 1;
        }
        raw.ends().await;
        assert!(sent < 2000 || pause == 0, "{sent}");
        let requests = world.upstream_requests();
        assert!(requests < 500, "{requests}");
    }
    eventually("it is counted", || failures(&world, "flood") == 2);
    let client = Http2::connect(&authority, world.gateway.addr).await;
    client
        .send(&world.signed("PUT", KEY).body("x"))
        .await
        .assert_ok();
}

const FAILURES: &str = "cosgate_http2_failures_total";
const HEADS_REFUSED: &str = "cosgate_heads_refused_total";

fn failures(world: &World, reason: &str) -> u64 {
    world.gateway.metric(FAILURES, &format!("\"{reason}\""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_breaches_of_the_protocol() {
    let log = Log::of_program();
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let mut gone = Raw::connect(&authority, world.gateway.addr).await;
    gone.next_of(&[SETTINGS]).await;
    drop(gone);
    let mut broken = Raw::connect(&authority, world.gateway.addr).await;
    let peer = broken.0.get_ref().0.local_addr().unwrap();
    // A ping has eight bytes (RFC 9113 section 6.7).
    broken.write(PING, 0, 0, &[0; 7]).await.unwrap();
    broken.ends().await;
    eventually("it is counted", || failures(&world, "protocol") == 1);
    let is_it =
        |line: &str| line.contains("cause=\"protocol\"") && line.contains(&format!("peer={peer}"));
    eventually("it is logged", || log.text().lines().any(is_it));
    assert_eq!(world.gateway.metric(FAILURES, ""), 1);
}

const SHORT: &str = r#"
[server.limits]
head_timeout = "300ms"
idle_timeout = "700ms"
body_window = "400ms"
body_rate = 10000
"#;

fn assert_about(life: Duration, millis: u64) {
    let limit = Duration::from_millis(millis);
    assert!(
        life + Duration::from_millis(50) >= limit && life < limit + Duration::from_secs(3),
        "{life:?} is not about {limit:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_out_slow_header_blocks() {
    let authority = Authority::new("ours");
    let world = authority.serve(SHORT);
    let mut silent = Raw::connect(&authority, world.gateway.addr).await;
    let started = Instant::now();
    silent.ends().await;
    assert_about(started.elapsed(), 300);
    // The limit does not depend on other streams or on the rate of the bytes.
    for kind in [HEADERS, CONTINUATION] {
        let mut slow = Raw::connect(&authority, world.gateway.addr).await;
        let upload = block(&[
            (":method", "PUT"),
            (":scheme", "https"),
            (":path", "/photos/public/k"),
            (":authority", "localhost"),
            ("content-length", "100000000"),
        ]);
        slow.write(HEADERS, 4, 1, &upload).await.unwrap();
        slow.write(DATA, 0, 1, &[7; 10_000]).await.unwrap();
        let started = Instant::now();
        if kind == CONTINUATION {
            slow.write(HEADERS, 0, 3, &anonymous()).await.unwrap();
            while slow
                .write(CONTINUATION, 0, 3, &block(&[("x", "y")]))
                .await
                .is_ok()
            {
                sleep(Duration::from_millis(50)).await;
            }
        } else {
            slow.0
                .write_all(&[0, 1, 0, HEADERS, 4, 0, 0, 0, 3])
                .await
                .unwrap();
            while slow.0.write_all(b"\0").await.is_ok() {
                slow.0.flush().await.unwrap_or_default();
                sleep(Duration::from_millis(50)).await;
            }
        }
        slow.ends().await;
        assert_about(started.elapsed(), 300);
    }
    let late = || world.gateway.metric(HEADS_REFUSED, "\"timeout\"");
    // h2 ends the one whose block has too many frames.
    let ended = || late() + failures(&world, "flood");
    eventually("they are counted", || ended() == 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_goaway_to_idle_connections() {
    let authority = Authority::new("ours");
    let world = authority.serve(SHORT);
    let mut raw = Raw::connect(&authority, world.gateway.addr).await;
    raw.write(HEADERS, 5, 1, &anonymous()).await.unwrap();
    assert_eq!(raw.next_of(&[HEADERS]).await, Some(HEADERS));
    let started = Instant::now();
    // Frames that are not requests do not keep the connection open.
    sleep(Duration::from_millis(400)).await;
    raw.write(PING, 0, 0, &[0; 8]).await.unwrap();
    assert_eq!(raw.next_of(&[GOAWAY]).await, Some(GOAWAY));
    assert_about(started.elapsed(), 700);
    raw.ends().await; // although it never responds to our ping
    let client = Http2::connect(&authority, world.gateway.addr).await;
    client
        .send(&world.signed("GET", KEY))
        .await
        .assert_error(404, "NoSuchKey");
    assert!(
        timeout(PATIENCE, client.driver)
            .await
            .unwrap()
            .unwrap()
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_out_a_stalled_upload_only() {
    let authority = Authority::new("ours");
    let world = authority.serve(SHORT);
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let call = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
    let call = call.body(vec![7; 1 << 20]);
    let (slow, mut stopped) = client.start(request(&call)).await;
    send_data(&mut stopped, &call.body[..20_000], false)
        .await
        .unwrap();
    let other = world
        .signed("PUT", "/photos/acme/other")
        .payload("UNSIGNED-PAYLOAD");
    let other = other.body(vec![7; 40_000]);
    let (response, mut stream) = client.start(request(&other)).await;
    for part in other.body.chunks(1000) {
        send_data(&mut stream, part, false).await.unwrap();
        sleep(Duration::from_millis(25)).await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    reply(response).await.unwrap().assert_ok();
    reply(slow)
        .await
        .unwrap()
        .assert_error(400, "RequestTimeout");
    assert_eq!(world.emulator.object_bytes(BUCKET, STORED), None);
}

/// A COS that responds with this many bytes, and reports when its connection ended before they were sent.
fn endless(ended: &Arc<std::sync::Mutex<bool>>) -> Act {
    let ended = Arc::clone(ended);
    act(move |peer| {
        use std::io::Write as _;
        peer.head();
        peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while peer.client.stream.write_all(&[7; 8192]).is_ok() {}
        *ended.lock().unwrap() = true;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_a_response_that_is_read_too_slowly() {
    let authority = Authority::new("ours");
    for window in [0, 65_535] {
        let ended = Arc::default();
        let world = scripted(&authority, vec![endless(&ended)], SHORT);
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        let client = Http2::connect_as(&authority, world.gateway.addr, &builder).await;
        let started = Instant::now();
        let mut body = client.fetch(&world.signed("GET", KEY)).await.into_body();
        eventually("COS is rid of it", || *ended.lock().unwrap());
        assert_about(started.elapsed(), 400);
        let end = loop {
            if let Err(end) = body.data().await.unwrap() {
                break end;
            }
        };
        assert_eq!(end.reason(), Some(Reason::CANCEL));
        world
            .gateway
            .log
            .assert_contains("the client read the response too slowly");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_memory_of_unread_refusals() {
    let authority = Authority::new("ours");
    let world = authority.serve("[server.limits]\nstranger_bytes = \"4MiB\"");
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let wrong = Call::new(world.gateway.addr, "GET", KEY).signed_by((support::ACME.0, "wrong"));
    let mut clients = Vec::new();
    let mut heads = Vec::new();
    for n in 0..200 {
        if n % 100 == 0 {
            clients.push(Http2::connect_as(&authority, world.gateway.addr, &builder).await);
        }
        let client: &Http2 = clients.last().unwrap();
        heads.push(client.fetch(&wrong).await);
    }
    assert!(heads.iter().all(|head| head.status() == 403));
    let length = |head: &http::Response<_>| head.headers()["content-length"].clone();
    let (mut ended, kept): (Vec<_>, Vec<_>) =
        heads.into_iter().partition(|head| length(head) == "0");
    assert!((30..=64).contains(&kept.len()), "{}", kept.len());
    for head in &mut ended {
        let end = timeout(PATIENCE, head.body_mut().data()).await.unwrap();
        assert!(end.is_none(), "the stream ends with its head");
    }
    // Other clients get their refusals whole as soon as these are gone.
    drop((clients, kept, ended));
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let mut reply = client.send(&wrong).await;
    for _ in 0..100 {
        if !reply.body.is_empty() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
        reply = client.send(&wrong).await;
    }
    reply.assert_error(403, "SignatureDoesNotMatch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_a_slow_reader_within_the_pace() {
    let authority = Authority::new("ours");
    // It reads for several windows, each long enough for a machine that pauses.
    let limits = "[server.limits]\nbody_window = \"2s\"\nbody_rate = 10000\n";
    let world = authority.serve(limits);
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let object = object(400_000);
    client
        .send(&world.signed("PUT", KEY).body(object.clone()))
        .await
        .assert_ok();
    let mut body = client.fetch(&world.signed("GET", KEY)).await.into_body();
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        read.extend_from_slice(&data);
        sleep(Duration::from_millis(50)).await;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert!(read == object);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_completes_streams_and_sends_goaway() {
    let authority = Authority::new("ours");
    let mut world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let idle = Http2::connect(&authority, world.gateway.addr).await;
    idle.send(&world.signed("GET", KEY))
        .await
        .assert_error(404, "NoSuchKey");
    let call = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
    let call = call.body(object(1 << 20));
    let (response, mut stream) = client.start(request(&call)).await;
    send_data(&mut stream, &call.body[..500_000], false)
        .await
        .unwrap();
    eventually("the upload has reached COS", || {
        world.upstream_requests() > 1
    });
    world.gateway.drain();
    assert!(idle.end().await.is_ok());
    send_data(&mut stream, &call.body[500_000..], true)
        .await
        .unwrap();
    reply(response).await.unwrap().assert_ok();
    assert!(client.end().await.is_ok());
    assert!(joined(&mut world.gateway) < Duration::from_secs(5));
    assert!(world.emulator.object_bytes(BUCKET, STORED) == Some(call.body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_timeout_stores_no_unfinished_upload() {
    let authority = Authority::new("ours");
    let mut world = authority.serve("[server.limits]\ndrain_timeout = \"500ms\"");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let call = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
    let call = call.body(object(1 << 20));
    let (response, mut stream) = client.start(request(&call)).await;
    send_data(&mut stream, &call.body[..500_000], false)
        .await
        .unwrap();
    eventually("the upload has reached COS", || {
        world.upstream_requests() > 0
    });
    world.gateway.drain();
    assert!(joined(&mut world.gateway) < Duration::from_secs(5));
    assert!(reply(response).await.is_err());
    assert_eq!(world.emulator.object_bytes(BUCKET, STORED), None);
    assert!(world.gateway.log.text().contains("\"PutObject\""));
}

/// Waits for the end while the clients of this test continue.
fn joined(gateway: &mut Gateway) -> Duration {
    tokio::task::block_in_place(|| gateway.join())
}
