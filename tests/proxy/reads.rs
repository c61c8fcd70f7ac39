//! GET and HEAD of objects: parts, ranges and conditions as S3 reads them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use crate::support::{Act, GLOBEX, Reply, SIGNATURES, Scripted, World, act, element};

const KEY: &str = "/photos/acme/a";

fn world_in(signature: &str) -> World {
    let world = World::speaking(signature);
    world.put(KEY, "acme's");
    world.put("/photos/acme/empty", "");
    world
}

fn length(reply: &Reply) -> &str {
    reply.header("content-length").unwrap()
}

#[test]
fn part_number_1_is_the_whole_object() {
    for signature in SIGNATURES {
        let world = world_in(signature);
        let target = format!("{KEY}?partNumber=1");
        for method in ["GET", "HEAD"] {
            let reply = world.fetch(method, &target);
            assert_eq!(reply.status, 206, "{method}");
            assert_eq!(reply.header("content-range"), Some("bytes 0-5/6"));
            assert_eq!(length(&reply), "6");
            assert_eq!(reply.header("x-amz-mp-parts-count"), None);
            let body = if method == "GET" { "acme's" } else { "" };
            assert_eq!(reply.text(), body);
            assert!(reply.header("etag").is_some());

            let empty = world.fetch(method, "/photos/acme/empty?partNumber=1");
            assert_eq!((empty.status, length(&empty)), (200, "0"), "{method}");
            assert_eq!(empty.header("content-range"), None);
            let none = world.fetch(method, "/photos/acme/none?partNumber=1");
            assert_eq!(none.status, 404, "{method}");
            let empty_value = world.fetch(method, &format!("{KEY}?partNumber="));
            assert_eq!(empty_value.status, 200, "as absent");
        }
        let etag = world.fetch("HEAD", KEY).header("etag").unwrap().to_owned();
        let same = world.signed("GET", &target).header("if-none-match", &etag);
        assert_eq!(same.fetch().status, 304);
        for head in world.emulator.counters().heads() {
            assert!(!head.target.contains("partNumber"), "{}", head.target);
        }
    }
}

#[test]
fn rejects_part_number_2() {
    for signature in SIGNATURES {
        let world = world_in(signature);
        for part in ["2", "10000"] {
            let reply = world.fetch("GET", &format!("{KEY}?partNumber={part}"));
            reply.assert_error(416, "InvalidPartNumber");
            assert_eq!(element(&reply.text(), "PartNumberRequested"), part);
            assert_eq!(element(&reply.text(), "ActualPartCount"), "1");
            let reply = world.fetch("HEAD", &format!("{KEY}?partNumber={part}"));
            assert_eq!(reply.status, 416);
            let reply = world.fetch("GET", &format!("/photos/acme/none?partNumber={part}"));
            assert_eq!(reply.status, 404);
        }
        for part in ["0", "10001", "-1", "x"] {
            let reply = world.fetch("GET", &format!("{KEY}?partNumber={part}"));
            reply.assert_error(400, "InvalidArgument");
        }
        let both = world.signed("GET", &format!("{KEY}?partNumber=1"));
        let both = both.header("range", "bytes=0-1").fetch();
        both.assert_error(400, "InvalidRequest");
        let other = world.signed("GET", &format!("{KEY}?partNumber=2"));
        assert_eq!(other.signed_by(GLOBEX).fetch().status, 403);
        let mixed = world.fetch("GET", &format!("{KEY}?partNumber=1&uploadId=u"));
        mixed.assert_error(400, "InvalidArgument");
    }
}

#[test]
fn last_bytes_of_an_empty_object_are_all_of_it() {
    for signature in SIGNATURES {
        let world = world_in(signature);
        for method in ["GET", "HEAD"] {
            let call = world.signed(method, "/photos/acme/empty");
            let reply = call.header("range", "bytes=-5").fetch();
            assert_eq!(reply.status, 200, "{signature} {method}");
            assert_eq!(reply.header("content-range"), None);
            assert!(reply.body.is_empty());
        }
    }
}

#[test]
fn refused_range_reports_the_object_size() {
    for signature in SIGNATURES {
        let world = world_in(signature);
        for (path, range, size) in [
            ("/photos/acme/empty", "bytes=0-1023", "0"),
            ("/photos/acme/empty", "bytes=0-", "0"),
            (KEY, "bytes=6-", "6"),
        ] {
            let reply = world.signed("GET", path).header("range", range).fetch();
            reply.assert_error(416, "InvalidRange");
            assert_eq!(element(&reply.text(), "ActualObjectSize"), size, "{range}");
            assert_eq!(element(&reply.text(), "RangeRequested"), range);
            let head = world.signed("HEAD", path).header("range", range).fetch();
            assert_eq!(head.status, 416);
        }
    }
}

/// RFC 9110 section 14.2: several ranges, other units and malformed ranges get the whole object. cosgate does not
/// forward them to COS.
#[test]
fn ignores_ranges_and_dates_that_s3_ignores() {
    let acts: Vec<Act> = (0..7)
        .map(|_| {
            act(|peer| {
                let head = peer.head().unwrap().to_ascii_lowercase();
                assert!(!head.contains("\nrange:"), "{head}");
                assert!(!head.contains("\nif-"), "{head}");
                peer.respond("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"e\"\r\n\r\nx");
            })
        })
        .collect();
    let scripted = Scripted::new(acts);
    for (name, value) in [
        ("range", "bytes=0-0,2-3"),
        ("range", "items=0-1"),
        ("range", "bytes=5-2"),
        ("range", "bytes"),
        ("if-modified-since", "yesterday"),
        ("if-modified-since", ""),
        ("if-unmodified-since", "0"),
    ] {
        let reply = scripted.signed("GET", KEY).header(name, value).send();
        assert_eq!(reply.assert_ok().text(), "x", "{name}: {value}");
        assert_eq!(reply.status, 200);
    }
    for signature in SIGNATURES {
        let world = world_in(signature);
        let range = |range: &str| {
            let reply = world.signed("GET", KEY).header("range", range).fetch();
            (reply.status, reply.text())
        };
        assert_eq!(range("bytes=0-1,3-4"), (200, "acme's".to_owned()));
        assert_eq!(range("bytes=0-1"), (206, "ac".to_owned()));
        assert_eq!(range("bytes=-2"), (206, "'s".to_owned()));
        assert_eq!(range("bytes=4-"), (206, "'s".to_owned()));
    }
}
