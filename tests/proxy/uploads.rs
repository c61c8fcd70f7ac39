//! Upload forms: COS gets one plain body for each form of S3 clients, and nothing of a wrong one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use crate::support::frames::{chunks, http_chunks, signed_chunks};
use crate::support::{self, Call, Client, Reply, World, find};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cosgate::encoding::hex::sha256_hex;
use crc_fast::CrcAlgorithm;

const KEY: &str = "/photos/acme/k";
const STORED: &str = "acme/k";

fn crc32(bytes: &[u8]) -> String {
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, bytes);
    BASE64_STANDARD.encode(u32::try_from(crc).unwrap().to_be_bytes())
}

/// A body as boto3 sends it over HTTPS: unsigned chunks, then a checksum.
fn unsigned_trailer(object: &[u8], chunk: usize, checksum: &str) -> Vec<u8> {
    let mut body = chunks(object, chunk, None);
    body.extend_from_slice(format!("x-amz-checksum-crc32:{checksum}\r\n\r\n").as_bytes());
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

/// The same body in HTTP chunks of `piece` bytes, as boto3 sends it.
fn in_http_chunks(call: Call, body: &[u8], piece: usize) -> (Call, Vec<u8>) {
    let call = call.header("transfer-encoding", "chunked");
    (call, http_chunks(body, piece))
}

fn send(call: &Call, body: &[u8]) -> Reply {
    let mut client = Client::connect(call.addr);
    client.write(&call.head());
    client.write(body);
    client.read_reply("PUT")
}

/// A presigned `PUT` of this body with `more` in its query, as SDKs make URLs for other clients.
fn presigned(world: &World, more: &str, body: &[u8]) -> Call {
    let call = world.signed("PUT", &format!("{KEY}?{more}")).body(body);
    call.presigned(300)
}

/// Asserts that COS got at least one request, and none with a checksum header.
fn assert_cos_knows_no_checksum(world: &World) {
    let heads = world.emulator.counters().heads();
    assert!(!heads.is_empty());
    for head in heads {
        let target = head.target.to_ascii_lowercase();
        assert!(!target.contains("checksum"), "{target}");
        for (name, _) in head.headers {
            assert!(!name.contains("checksum"), "{name}");
            assert!(!name.contains("mp-object-size"), "{name}");
        }
    }
}

fn object(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

#[test]
fn stores_unsigned_trailer_upload_and_returns_checksum() {
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
            let stored = world.fetch("GET", KEY);
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
fn rejects_wrong_trailer_checksum() {
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
fn rejects_truncated_and_overlong_bodies() {
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

/// `tests/proxy/falsified.rs` covers chunks with wrong signatures.
#[test]
fn stores_signed_chunks_plain() {
    let world = World::new();
    for (length, chunk) in [(0, 1), (1, 65_536), (200_000, 65_536), (1 << 20, 300_000)] {
        let object = object(length);
        {
            let (call, body) = signed_chunks(world.signed("PUT", KEY), &object, chunk);
            send(&call, &body).assert_ok();
        };
        let stored = world.emulator.object_bytes(support::BUCKET, STORED);
        assert_eq!(stored.unwrap(), object);
    }
}

#[test]
fn verifies_and_returns_a_header_checksum() {
    let world = World::new();
    let object = object(100_000);
    let put = |checksum: &str| {
        let call = world
            .signed("PUT", KEY)
            .header("x-amz-checksum-crc32", checksum);
        call.body(object.clone())
            .payload("UNSIGNED-PAYLOAD")
            .fetch()
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
fn keeps_the_content_encoding() {
    let world = World::new();
    let object = object(1000);
    let body = unsigned_trailer(&object, 1000, &crc32(&object));
    let mut call = trailer_call(&world, &object).header("content-length", &body.len().to_string());
    call.headers.retain(|(name, _)| name != "content-encoding");
    send(&call.header("content-encoding", "aws-chunked,gzip"), &body).assert_ok();
    assert_eq!(
        world.fetch("HEAD", KEY).header("content-encoding"),
        Some("gzip")
    );
}

#[test]
fn rejects_signed_chunks_without_a_signature() {
    let world = World::new();
    let call = Call::new(world.gateway.addr, "PUT", "/photos/public/k")
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .header("x-amz-decoded-content-length", "1")
        .header("content-length", "100");
    send(&call, b"1;chunk-signature=").assert_error(400, "InvalidRequest");
}

#[test]
fn holds_or_refuses_uploads_of_unknown_length() {
    let put = |world: &World, object: &[u8]| {
        let call = world.signed("PUT", KEY).payload(&sha256_hex(object));
        let (call, framed) = in_http_chunks(call, object, 5000);
        send(&call, &framed)
    };
    let world = World::new();
    put(&world, &object(10)).assert_error(411, "MissingContentLength");
    // An empty body has a known length.
    put(&world, b"").assert_ok();
    let stored = world.emulator.object_bytes(support::BUCKET, STORED);
    assert_eq!(stored.unwrap(), b"");
    let call = world.signed("PUT", KEY).payload(&sha256_hex(b"another"));
    let (call, framed) = in_http_chunks(call, b"", 50);
    send(&call, &framed).assert_error(400, "XAmzContentSHA256Mismatch");
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

#[test]
fn empty_chunked_body_is_no_body() {
    let world = World::new();
    world.signed("PUT", KEY).body("x").send().assert_ok();
    for (method, target) in [
        ("GET", KEY),
        ("GET", "/photos?list-type=2&prefix=acme/"),
        ("POST", "/photos/acme/up?uploads"),
        ("DELETE", "/photos/acme/none"),
    ] {
        let (call, framed) = in_http_chunks(world.signed(method, target), b"", 5);
        let reply = send(&call, &framed);
        assert!(matches!(reply.status, 200 | 204), "{method} {target}");
        let requests = world.emulator.counters().heads().len();
        let (call, framed) = in_http_chunks(world.signed(method, target), b"x", 5);
        send(&call, &framed).assert_error(400, "InvalidRequest");
        assert_eq!(world.emulator.counters().heads().len(), requests);
    }
}

#[test]
fn joins_content_encoding_lines() {
    let world = World::new();
    let put = world.signed("PUT", KEY);
    let put = put.header("content-encoding", "gzip");
    let put = put.header("content-encoding", "br").body("x");
    put.send().assert_ok();
    let stored = world.signed("GET", KEY).send();
    assert_eq!(stored.header("content-encoding"), Some("gzip, br"));

    let framed = b"1\r\ny\r\n0\r\n\r\n";
    let put = world
        .signed("PUT", KEY)
        .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    let put = put
        .header("content-encoding", "gzip")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", "1")
        .header("content-length", &framed.len().to_string());
    send(&put, framed).assert_ok();
    let stored = world.signed("GET", KEY).send();
    assert_eq!(stored.header("content-encoding"), Some("gzip"));
    assert_eq!(stored.text(), "y");
}

/// The checksums of `body` in base64 by every algorithm of S3, computed by awscrt 0.38 and hashlib.
const SUMS_OF_BODY: [(&str, &str); 10] = [
    ("crc32", "26gLsg=="),
    ("crc32c", "Jj/JUA=="),
    ("crc64nvme", "mI+Ji1NHP80="),
    ("md5", "hBotaJrYa9FhFEdFPCLG/A=="),
    ("sha1", "Agg/RXngimEkJcDBoX7ket14O5Q="),
    ("sha256", "Iw2DWNyOiJC0xY3utikS7i8gNXrpKlzIYbmOaP4xrLU="),
    (
        "sha512",
        "VRDrvaXtTaAHxVpi/XB1xyLsAx8HOY7z6QubUOD+lQmFR2xHRBTSs4bo8IzVBftQa1KABqMKv+nKDrC2e352Cw==",
    ),
    ("xxhash64", "MXJKtDE9LQ8="),
    ("xxhash3", "hPLI7hh/4fo="),
    ("xxhash128", "F3rvzP+m90rL8cSX6sduEA=="),
];

/// Uploads a body with the checksum `name: value`.
type Put<'a> = &'a dyn Fn(&str, &str, &str) -> Reply;

/// A body in one `aws-chunked` chunk with the trailer `name: value`.
fn with_trailer(world: &World, object: &[u8], name: &str, value: &str) -> Reply {
    let length = object.len();
    let body = [
        format!("{length:x}\r\n").as_bytes(),
        object,
        format!("\r\n0\r\n{name}:{value}\r\n\r\n").as_bytes(),
    ]
    .concat();
    let mut call = trailer_call(world, object);
    call.headers.retain(|(name, _)| name != "x-amz-trailer");
    let call = call
        .header("x-amz-trailer", name)
        .header("content-length", &body.len().to_string());
    send(&call, &body)
}

#[test]
fn verifies_every_algorithm_in_header_trailer_and_query() {
    let world = World::new();
    let in_header = |body: &str, name: &str, value: &str| {
        let call = world.signed("PUT", KEY).header(name, value).body(body);
        call.payload("UNSIGNED-PAYLOAD").fetch()
    };
    let in_query = |body: &str, name: &str, value: &str| {
        let encoded = value.replace('+', "%2B").replace('/', "%2F");
        presigned(&world, &format!("{name}={encoded}"), body.as_bytes()).fetch()
    };
    let in_trailer =
        |body: &str, name: &str, value: &str| with_trailer(&world, body.as_bytes(), name, value);
    let places: [Put<'_>; 3] = [&in_header, &in_query, &in_trailer];
    for (name, value) in SUMS_OF_BODY {
        let header = format!("x-amz-checksum-{name}");
        for place in places {
            place("Body", &header, value).assert_error(400, "BadDigest");
            for malformed in ["AAAA", "not base64", "AAAAAAAAAAAAAAAAAAAA"] {
                place("body", &header, malformed).assert_error(400, "InvalidRequest");
            }
            assert_eq!(world.stored(STORED), None, "{name}");
            let reply = place("body", &header, value);
            assert_eq!(reply.assert_ok().header(&header), Some(value));
            assert_eq!(world.stored(STORED).as_deref(), Some("body"));
            world.fetch("DELETE", KEY).assert_ok();
        }
    }
    assert_cos_knows_no_checksum(&world);
}

#[test]
fn rejects_an_unknown_algorithm_that_is_the_only_check() {
    let world = World::new();
    let name = "x-amz-checksum-sha3-256";
    let header = |payload: &str| {
        let call = world.signed("PUT", KEY).header(name, "any").body("body");
        call.payload(payload)
    };
    let unsigned = header("UNSIGNED-PAYLOAD").fetch();
    unsigned.assert_error(400, "InvalidRequest");
    assert!(unsigned.text().contains(name), "{}", unsigned.text());
    assert!(unsigned.text().contains("XXHASH128"), "{}", unsigned.text());
    let query = presigned(&world, &format!("{name}=any"), b"body").fetch();
    query.assert_error(400, "InvalidRequest");
    with_trailer(&world, &object(300_000), name, "any").assert_error(400, "InvalidRequest");
    let form = world.signed("POST", "/photos?delete").header(name, "any");
    let form = form.body("<Delete><Object><Key>acme/k</Key></Object></Delete>");
    form.payload("UNSIGNED-PAYLOAD")
        .fetch()
        .assert_error(400, "InvalidRequest");
    assert_eq!(world.upstream_requests(), 0);

    let field = format!("\"unchecked_checksum\":\"{name}\"");
    let hashed = header(&sha256_hex(b"body")).fetch();
    assert_eq!(hashed.assert_ok().header(name), None);
    world.gateway.log.assert_contains(&field);
    header("UNSIGNED-PAYLOAD")
        .header("content-md5", &support::md5_base64(b"body"))
        .fetch()
        .assert_ok();
    assert_cos_knows_no_checksum(&world);
}

#[test]
fn verifies_the_checksum_of_a_document() {
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let delete = "<Delete><Object><Key>acme/k</Key></Object></Delete>";
    for signature in support::SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "kept");
        for (method, target, xml) in [
            ("PUT", "/photos/acme/k?tagging", tags),
            ("POST", "/photos?delete", delete),
        ] {
            let seen = world.upstream_requests();
            let call = |value: &str| {
                let call = world.signed(method, target).body(xml);
                call.header("x-amz-checksum-crc32", value).fetch()
            };
            call(&crc32(b"another")).assert_error(400, "BadDigest");
            call("AAAA").assert_error(400, "InvalidRequest");
            let both = world.signed(method, target).body(xml);
            both.header("x-amz-checksum-crc32", &crc32(xml.as_bytes()))
                .header("x-amz-checksum-sha256", "AAAA")
                .fetch()
                .assert_error(400, "InvalidRequest");
            let announced = world.signed(method, target).body(xml);
            announced
                .header("x-amz-trailer", "x-amz-checksum-crc32")
                .fetch()
                .assert_error(400, "MalformedTrailerError");
            assert_eq!(world.upstream_requests(), seen);
            call(&crc32(xml.as_bytes())).assert_ok();
        }
        assert_eq!(world.stored(STORED), None);
        assert_cos_knows_no_checksum(&world);
    }
}

/// It is the checksum of the object, or is computed from those of its parts.
#[test]
fn rejects_a_malformed_checksum_of_a_completed_upload() {
    let world = World::new();
    let complete = |value: &str| {
        let xml = "<CompleteMultipartUpload><Part><ETag>e</ETag><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>";
        let call = world.signed("POST", &format!("{KEY}?uploadId=u"));
        call.header("x-amz-checksum-crc32", value).body(xml).fetch()
    };
    for value in [
        "",
        "AAAA",
        "AAAAAA==-",
        "AAAAAA==-x",
        "AAAAAA==-1-1",
        "AAAA-1",
    ] {
        complete(value).assert_error(400, "InvalidRequest");
    }
    assert_eq!(world.upstream_requests(), 0);
    for value in ["AAAAAA==", "AAAAAA==-10"] {
        complete(value).assert_error(404, "NoSuchUpload");
    }
}

#[test]
fn verifies_a_checksum_in_a_presigned_query() {
    let world = World::new();
    let query = |text: &str| text.replace('+', "%2B").replace('/', "%2F");
    let good = query(&crc32(b"body"));
    let wrong = query(&crc32(b"another"));
    for name in ["x-amz-checksum-crc32", "X-Amz-Checksum-Crc32"] {
        let sdk = "x-amz-sdk-checksum-algorithm=CRC32";
        let reply = presigned(&world, &format!("{name}={wrong}&{sdk}"), b"body").fetch();
        reply.assert_error(400, "BadDigest");
        assert_eq!(world.stored(STORED), None);
        let reply = presigned(&world, &format!("{name}={good}&{sdk}"), b"body").fetch();
        let echo = reply.assert_ok().header("x-amz-checksum-crc32");
        assert_eq!(echo, Some(&*crc32(b"body")));
        world.fetch("DELETE", KEY).assert_ok();
    }
    // In both places: equal values are accepted, others are not.
    let with_header = |more: &str, name: &str, value: &str| {
        let call = world.signed("PUT", &format!("{KEY}?{more}"));
        call.header(name, value).body("body").presigned(300).fetch()
    };
    let named = format!("x-amz-checksum-crc32={good}");
    with_header(&named, "x-amz-checksum-crc32", &crc32(b"body")).assert_ok();
    world.fetch("DELETE", KEY).assert_ok();
    let seen = world.upstream_requests();
    for (more, name, value) in [
        (&named, "x-amz-checksum-crc32", crc32(b"another")),
        (&named, "x-amz-checksum-sha3", "any".to_owned()),
        (
            &format!("{named}&X-Amz-Checksum-Crc32={good}"),
            "x-a",
            "b".to_owned(),
        ),
        (
            &"x-amz-checksum-crc32=AAAA".to_owned(),
            "x-a",
            "b".to_owned(),
        ),
        (&"x-amz-checksum-crc32=".to_owned(), "x-a", "b".to_owned()),
    ] {
        with_header(more, name, &value).assert_error(400, "InvalidRequest");
    }
    assert_eq!(world.upstream_requests(), seen);
    let sdk_alone = presigned(&world, "x-amz-sdk-checksum-algorithm=CRC32", b"body");
    sdk_alone.fetch().assert_ok();
    assert_cos_knows_no_checksum(&world);
}

/// The AWS SDK for JavaScript has no body when it makes a URL, and signs the checksum of an empty body. S3 then
/// accepts any body.
#[test]
fn ignores_the_empty_checksum_in_a_presigned_query() {
    let world = World::new();
    for (name, value) in [
        ("x-amz-checksum-crc32", "AAAAAA%3D%3D"),
        ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA%3D"),
        ("x-amz-checksum-sha1", "2jmj7l5rSw0yVb%2FvlWAYkK%2FYBwk%3D"),
        (
            "x-amz-checksum-sha256",
            "47DEQpj8HBSa%2B%2FTImW%2B5JCeuQeRkm5NMpJWZG3hSuFU%3D",
        ),
        ("x-amz-checksum-md5", "1B2M2Y8AsgTpgAmY7PhCfg%3D%3D"),
        ("x-amz-checksum-xxhash64", "70bbN1HY6Zk%3D"),
        ("x-amz-checksum-xxhash3", "LQaABTjTlMI%3D"),
        ("x-amz-checksum-xxhash128", "maoG0wFHmNhgAcMkRo1Jfw%3D%3D"),
    ] {
        let more = format!("{name}={value}&x-amz-sdk-checksum-algorithm=CRC32&x-id=PutObject");
        let reply = presigned(&world, &more, b"a body that nobody knew").fetch();
        assert_eq!(reply.assert_ok().header(name), None);
        let field = format!("\"unchecked_checksum\":\"{name}\"");
        world.gateway.log.assert_contains(&field);
    }
    let header = world
        .signed("PUT", KEY)
        .header("x-amz-checksum-crc32", "AAAAAA==");
    header.body("body").fetch().assert_error(400, "BadDigest");
    assert_cos_knows_no_checksum(&world);
}

#[test]
fn forwards_no_aws_checksum_headers() {
    for signature in support::SIGNATURES {
        let world = World::speaking(signature);
        let created = world
            .signed("POST", &format!("{KEY}?uploads"))
            .header("x-amz-checksum-algorithm", "CRC32")
            .header("x-amz-checksum-type", "COMPOSITE")
            .fetch();
        let id = support::element(&created.assert_ok().text(), "UploadId");
        let part = world
            .signed("PUT", &format!("{KEY}?partNumber=1&uploadId={id}"))
            .header("x-amz-sdk-checksum-algorithm", "CRC32")
            .header("x-amz-checksum-crc32", &crc32(b"body"))
            .body("body")
            .fetch();
        let etag = part.assert_ok().header("etag").unwrap();
        let xml = format!(
            "<CompleteMultipartUpload><Part><ETag>{etag}</ETag><ChecksumCRC32>{}</ChecksumCRC32><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
            crc32(b"body")
        );
        world
            .signed("POST", &format!("{KEY}?uploadId={id}"))
            .header("x-amz-checksum-crc32", &crc32(b"body"))
            .header("x-amz-checksum-type", "FULL_OBJECT")
            .header("x-amz-mp-object-size", "4")
            .body(xml)
            .fetch()
            .assert_ok();
        let log = &world.gateway.log;
        log.assert_contains("\"unchecked_checksum\":\"x-amz-checksum-crc32\"");
        let get = world.signed("GET", KEY);
        let got = get.header("x-amz-checksum-mode", "ENABLED").fetch();
        assert_eq!(got.assert_ok().text(), "body");
        let copy = world.signed("PUT", "/photos/acme/copy");
        copy.header("x-amz-copy-source", "photos/acme/k")
            .header("x-amz-checksum-algorithm", "SHA256")
            .fetch()
            .assert_ok();
        assert_cos_knows_no_checksum(&world);
    }
}
