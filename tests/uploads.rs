//! Every upload form that S3 clients send becomes one plain body for COS, and a wrong one nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cosgate::sign::encoding::sha256_hex;
use crc_fast::CrcAlgorithm;
use support::{Call, Client, Reply, World, find};

const KEY: &str = "/photos/acme/k";
const STORED: &str = "acme/k";

fn crc32(bytes: &[u8]) -> String {
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, bytes);
    BASE64_STANDARD.encode(u32::try_from(crc).unwrap().to_be_bytes())
}

/// What boto3 sends over HTTPS: chunks without signatures, then a checksum.
fn unsigned_trailer(object: &[u8], chunk: usize, checksum: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for part in object.chunks(chunk) {
        body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n").as_bytes());
    body
}

fn trailer_call(world: &World, object: &[u8]) -> Call {
    world
        .signed("PUT", KEY)
        .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .header("x-amz-decoded-content-length", &object.len().to_string())
}

/// The same body in HTTP's own chunks, each `piece` bytes long, as boto3 sends it.
fn in_http_chunks(call: Call, body: &[u8], piece: usize) -> (Call, Vec<u8>) {
    let mut framed = Vec::new();
    for part in body.chunks(piece) {
        framed.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        framed.extend_from_slice(part);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    (call.header("transfer-encoding", "chunked"), framed)
}

fn send(call: &Call, body: &[u8]) -> Reply {
    let mut client = Client::connect(call.addr);
    client.write(&call.head());
    client.write(body);
    client.read_reply("PUT")
}

fn signed_chunks(world: &World, object: &[u8], chunk: usize, spoil: Option<usize>) -> Reply {
    let (call, body) = support::signed_chunks(world.signed("PUT", KEY), object, chunk, spoil);
    send(&call, &body)
}

fn object(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

#[test]
fn an_unsigned_trailer_upload_is_stored_plain_and_its_checksum_comes_back() {
    for signature in support::SIGNATURES {
        let world = World::speaking(signature);
        for (length, chunk) in [
            (0, 1),
            (1, 1),
            (5000, 1024),
            (300_000, 65_536),
            (3 << 20, 1 << 20),
        ] {
            let object = object(length);
            let body = unsigned_trailer(&object, chunk, &crc32(&object));
            for piece in [usize::MAX >> 1, 8192, 1000] {
                let (call, framed) =
                    in_http_chunks(trailer_call(&world, &object), &body, piece.min(body.len()));
                let reply = send(&call, &framed);
                assert_eq!(
                    reply.assert_ok().header("x-amz-checksum-crc32"),
                    Some(&*crc32(&object))
                );
                assert_eq!(
                    world
                        .emulator
                        .object_bytes(support::BUCKET, STORED)
                        .unwrap(),
                    object
                );
            }
            let call =
                trailer_call(&world, &object).header("content-length", &body.len().to_string());
            send(&call, &body).assert_ok();
            let stored = world.ask("GET", KEY);
            assert_eq!(stored.body, object);
            assert_eq!(stored.header("content-encoding"), None);
        }
        let heads = world.emulator.counters().heads();
        let puts = heads.iter().filter(|head| head.method == "PUT");
        for (name, _) in puts.flat_map(|head| &head.headers) {
            assert!(
                !name.starts_with("x-amz-trailer") && !name.starts_with("x-amz-checksum"),
                "{name}"
            );
            assert!(
                !["transfer-encoding", "x-amz-decoded-content-length"].contains(&name.as_str()),
                "{name}"
            );
        }
    }
}

#[test]
fn a_wrong_trailer_checksum_leaves_no_object() {
    let world = World::new();
    for length in [0, 10, 200_000, 2 << 20] {
        let object = object(length);
        let body = unsigned_trailer(&object, 65_536, &crc32(b"another"));
        let call = trailer_call(&world, &object).header("content-length", &body.len().to_string());
        send(&call, &body).assert_error(400, "BadDigest");
        assert!(
            !world.emulator.object_exists(support::BUCKET, STORED),
            "{length}"
        );
    }
}

#[test]
fn a_body_that_stops_early_or_goes_on_too_long_leaves_no_object() {
    let world = World::new();
    let object = object(100_000);
    let whole = unsigned_trailer(&object, 65_536, &crc32(&object));
    let without_end = whole[..find(&whole, b"\r\n0\r\n").unwrap() + 2].to_vec();
    let short = unsigned_trailer(&object[..99_999], 65_536, &crc32(&object[..99_999]));
    let long = [&whole[..], b"more"].concat();
    for body in [without_end, short, long] {
        let (call, framed) = in_http_chunks(trailer_call(&world, &object), &body, 10_000);
        let reply = send(&call, &framed);
        assert!((400..500).contains(&reply.status), "{}", reply.text());
        assert!(!world.emulator.object_exists(support::BUCKET, STORED));
    }
}

#[test]
fn signed_chunks_are_checked_one_by_one() {
    let world = World::new();
    for (length, chunk) in [(0, 1), (1, 65_536), (200_000, 65_536), (1 << 20, 300_000)] {
        let object = object(length);
        signed_chunks(&world, &object, chunk, None).assert_ok();
        assert_eq!(
            world
                .emulator
                .object_bytes(support::BUCKET, STORED)
                .unwrap(),
            object
        );
    }
    world.ask("DELETE", KEY).assert_ok();
    let object = object(200_000);
    for spoilt in 0..4 {
        signed_chunks(&world, &object, 65_536, Some(spoilt))
            .assert_error(403, "SignatureDoesNotMatch");
        assert!(
            !world.emulator.object_exists(support::BUCKET, STORED),
            "{spoilt}"
        );
    }
}

#[test]
fn a_checksum_in_the_head_is_checked_and_comes_back() {
    let world = World::new();
    let object = object(100_000);
    let put = |checksum: &str| {
        let call = world
            .signed("PUT", KEY)
            .header("x-amz-checksum-crc32", checksum);
        call.body(object.clone()).payload("UNSIGNED-PAYLOAD").ask()
    };
    put(&crc32(b"another")).assert_error(400, "BadDigest");
    assert!(!world.emulator.object_exists(support::BUCKET, STORED));
    let reply = put(&crc32(&object));
    assert_eq!(
        reply.assert_ok().header("x-amz-checksum-crc32"),
        Some(&*crc32(&object))
    );
}

#[test]
fn the_encoding_of_the_object_itself_is_kept() {
    let world = World::new();
    let object = object(1000);
    let body = unsigned_trailer(&object, 1000, &crc32(&object));
    let mut call = trailer_call(&world, &object).header("content-length", &body.len().to_string());
    call.headers.retain(|(name, _)| name != "content-encoding");
    send(&call.header("content-encoding", "aws-chunked,gzip"), &body).assert_ok();
    assert_eq!(
        world.ask("HEAD", KEY).header("content-encoding"),
        Some("gzip")
    );
}

#[test]
fn nobody_without_a_signature_has_signed_chunks() {
    let world = World::new();
    let call = Call::new(world.gateway.addr, "PUT", "/photos/public/k")
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .header("x-amz-decoded-content-length", "1")
        .header("content-length", "100");
    send(&call, b"1;chunk-signature=").assert_error(400, "InvalidRequest");
}

#[test]
fn an_upload_of_unknown_length_is_refused_or_held_until_it_is_known() {
    let put = |world: &World, object: &[u8]| {
        let call = world.signed("PUT", KEY).payload(&sha256_hex(object));
        let (call, framed) = in_http_chunks(call, object, 5000);
        send(&call, &framed)
    };
    let world = World::new();
    put(&world, &object(10)).assert_error(411, "MissingContentLength");
    let spool = "[upstream]\nspool_unknown_length = \"64KiB\"";
    let world = World::edited(|toml| toml.replacen("[upstream]", spool, 1));
    for length in [1, 10_000, 65_536] {
        put(&world, &object(length)).assert_ok();
        let stored = world.emulator.object_bytes(support::BUCKET, STORED);
        assert_eq!(stored.unwrap(), object(length));
    }
    put(&world, &object(65_537)).assert_error(411, "MissingContentLength");
    let call = world.signed("PUT", KEY).payload(&sha256_hex(b"another"));
    let (call, framed) = in_http_chunks(call, &object(100), 50);
    send(&call, &framed).assert_error(400, "XAmzContentSHA256Mismatch");
    let stored = world.emulator.object_bytes(support::BUCKET, STORED);
    assert_eq!(stored.unwrap().len(), 65_536, "the last good one");
}
