//! Single objects: put, get, head, delete, copy, tag, and conditions on each.

use cosgate::timestamp::Timestamp;

use crate::support::{SIGNATURES, World, element, elements};

const KEY: &str = "/photos/acme/a.txt";
/// MD5 of `hello`, as an `ETag` and as `Content-MD5`.
const HELLO_ETAG: &str = "\"5d41402abc4b2a76b9719d911017c592\"";
const HELLO_MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";

#[test]
fn stores_and_returns_an_object_with_its_headers() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let put = world
            .signed("PUT", KEY)
            .header("content-type", "text/plain; charset=utf-8")
            .header("cache-control", "max-age=60")
            .header("content-disposition", "attachment; filename=\"a.txt\"")
            .header("content-language", "de")
            .header("content-encoding", "x-own")
            .header("x-amz-meta-color", "light blue")
            .header("content-md5", HELLO_MD5)
            .body("hello")
            .fetch();
        assert_eq!(put.assert_ok().header("etag"), Some(HELLO_ETAG));
        assert_eq!(world.stored("acme/a.txt").as_deref(), Some("hello"));

        let get = world.fetch("GET", KEY);
        let head = world.fetch("HEAD", KEY);
        assert_eq!(get.assert_ok().text(), "hello");
        assert_eq!(head.assert_ok().text(), "");
        for reply in [&get, &head] {
            for (name, value) in [
                ("content-type", "text/plain; charset=utf-8"),
                ("cache-control", "max-age=60"),
                ("content-disposition", "attachment; filename=\"a.txt\""),
                ("content-language", "de"),
                ("content-encoding", "x-own"),
                ("x-amz-meta-color", "light blue"),
                ("content-length", "5"),
                ("accept-ranges", "bytes"),
                ("etag", HELLO_ETAG),
            ] {
                assert_eq!(reply.header(name), Some(value), "{signature} {name}");
            }
            assert!(reply.header("last-modified").is_some());
        }

        assert_eq!(world.fetch("DELETE", KEY).status, 204);
        assert_eq!(world.stored("acme/a.txt"), None);
        assert_eq!(world.fetch("DELETE", KEY).status, 204);
        world.fetch("GET", KEY).assert_error(404, "NoSuchKey");
        let head = world.fetch("HEAD", KEY);
        assert_eq!((head.status, head.text().as_str()), (404, ""));
    }
}

#[test]
fn stores_an_empty_object() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "");
        assert_eq!(world.stored("acme/a.txt").as_deref(), Some(""));
        let get = world.fetch("GET", KEY);
        assert_eq!(get.assert_ok().header("content-length"), Some("0"));
    }
}

#[test]
fn transfers_a_large_body_unchanged() {
    let body: Vec<u8> = (0..3_u32 << 20).map(|i| (i % 251) as u8).collect();
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let put = world.signed("PUT", KEY).body(body.clone());
        put.fetch().assert_ok();
        put.payload("UNSIGNED-PAYLOAD").fetch().assert_ok();
        assert!(world.fetch("GET", KEY).assert_ok().body == body);
    }
}

#[test]
fn returns_the_requested_range() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "0123456789");
        for (range, part, content_range) in [
            ("bytes=0-3", "0123", "bytes 0-3/10"),
            ("bytes=7-", "789", "bytes 7-9/10"),
            ("bytes=-2", "89", "bytes 8-9/10"),
        ] {
            let get = world.signed("GET", KEY).header("range", range).fetch();
            assert_eq!((get.status, get.text().as_str()), (206, part));
            assert_eq!(get.header("content-range"), Some(content_range));
            let head = world.signed("HEAD", KEY).header("range", range).fetch();
            assert_eq!(head.status, 206, "{range}");
        }
        let beyond = world
            .signed("GET", KEY)
            .header("range", "bytes=99-")
            .fetch();
        beyond.assert_error(416, "InvalidRange");
    }
}

#[test]
fn keeps_conditions_of_reads() {
    let (past, future) = (
        Timestamp::from_unix(1_000_000_000).http_date(),
        Timestamp::from_unix(4_000_000_000).http_date(),
    );
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "hello");
        for (name, value, status) in [
            ("if-match", HELLO_ETAG, 200),
            ("if-match", "\"0\"", 412),
            ("if-none-match", HELLO_ETAG, 304),
            ("if-none-match", "\"0\"", 200),
            ("if-modified-since", past.as_str(), 200),
            ("if-modified-since", future.as_str(), 304),
            ("if-unmodified-since", past.as_str(), 412),
            ("if-unmodified-since", future.as_str(), 200),
        ] {
            let get = world.signed("GET", KEY).header(name, value).fetch();
            let head = world.signed("HEAD", KEY).header(name, value).fetch();
            assert_eq!(get.status, status, "{signature} {name}: {value}");
            assert_eq!(head.status, status, "{signature} {name}: {value}");
            match status {
                304 => assert_eq!(get.text(), ""),
                412 => get.assert_error(412, "PreconditionFailed"),
                _ => assert_eq!(get.text(), "hello"),
            }
        }
    }
}

#[test]
fn signed_requests_override_response_headers() {
    let overrides = "response-content-type=text%2Fcss&response-cache-control=no-store\
        &response-content-disposition=attachment%3B%20filename%3D%22x%20y.css%22\
        &response-content-language=fr&response-expires=Thu%2C%2001%20Jan%202026%2000%3A00%3A00%20GMT";
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "hello");
        let by_header = world.signed("GET", &format!("{KEY}?{overrides}"));
        let by_query = by_header.clone().presigned(60);
        for call in [by_header, by_query] {
            let get = call.fetch();
            assert_eq!(get.assert_ok().text(), "hello");
            for (name, value) in [
                ("content-type", "text/css"),
                ("cache-control", "no-store"),
                ("content-disposition", "attachment; filename=\"x y.css\""),
                ("content-language", "fr"),
                ("expires", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ] {
                assert_eq!(get.header(name), Some(value), "{signature}");
            }
        }
    }
}

#[test]
fn copy_keeps_or_replaces_metadata() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let put = world.signed("PUT", "/photos/acme/from");
        let put = put.header("x-amz-meta-a", "1").body("hello");
        put.fetch().assert_ok();
        let copy = |target: &str| {
            world
                .signed("PUT", target)
                .header("x-amz-copy-source", "/photos/acme/from")
        };

        let kept = copy("/photos/acme/kept").fetch();
        assert_eq!(
            element(&kept.assert_ok().text(), "ETag").replace("&quot;", "\""),
            HELLO_ETAG
        );
        let replaced = copy("/photos/acme/replaced")
            .header("x-amz-metadata-directive", "REPLACE")
            .header("x-amz-meta-b", "2");
        replaced.fetch().assert_ok();
        let refused = copy("/photos/acme/refused").header("x-amz-copy-source-if-match", "\"0\"");
        refused.fetch().assert_error(412, "PreconditionFailed");

        assert_eq!(world.stored("acme/kept").as_deref(), Some("hello"));
        let head = world.fetch("HEAD", "/photos/acme/kept");
        assert_eq!(head.header("x-amz-meta-a"), Some("1"), "{signature}");
        let head = world.fetch("HEAD", "/photos/acme/replaced");
        assert_eq!(head.header("x-amz-meta-a"), None, "{signature}");
        assert_eq!(head.header("x-amz-meta-b"), Some("2"), "{signature}");
        assert_eq!(world.stored("acme/refused"), None);
        copy("/photos/acme/kept")
            .header("x-amz-copy-source", "/photos/acme/from")
            .fetch()
            .assert_error(400, "InvalidArgument");
    }
}

#[test]
fn copy_of_an_absent_object_fails() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let copy = world.signed("PUT", KEY);
        let copy = copy
            .header("x-amz-copy-source", "photos/acme/absent")
            .fetch();
        copy.assert_error(404, "NoSuchKey");
    }
}

#[test]
fn puts_gets_and_deletes_tags() {
    let tags =
        "<Tagging><TagSet><Tag><Key>team</Key><Value>a &amp; b</Value></Tag></TagSet></Tagging>";
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "hello");
        let target = format!("{KEY}?tagging");
        world.signed("PUT", &target).body(tags).fetch().assert_ok();
        let got = world.fetch("GET", &target);
        assert_eq!(element(&got.assert_ok().text(), "Key"), "team");
        assert_eq!(element(&got.text(), "Value"), "a &amp; b");
        assert_eq!(world.fetch("DELETE", &target).status, 204);
        let got = world.fetch("GET", &target);
        assert_eq!(element(&got.assert_ok().text(), "Tag"), "");
        assert_eq!(world.stored("acme/a.txt").as_deref(), Some("hello"));
    }
}

#[test]
fn multi_delete_reports_each_key() {
    let body = "<Delete><Object><Key>acme/a</Key></Object><Object><Key>globex/b</Key></Object>\
        <Object><Key>acme/&amp;&lt;c</Key></Object><Object><Key>acme/absent</Key></Object></Delete>";
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put("/photos/acme/a", "1");
        world.put("/photos/acme/%26%3Cc", "2");
        let reply = world.signed("POST", "/photos?delete").body(body).fetch();

        let failed = element(&reply.assert_ok().text(), "Error");
        assert_eq!(element(&failed, "Key"), "globex/b");
        assert_eq!(element(&failed, "Code"), "AccessDenied");
        let deleted: Vec<_> = elements(&reply.text(), "Deleted")
            .iter()
            .map(|deleted| element(deleted, "Key"))
            .collect();
        assert_eq!(deleted, ["acme/a", "acme/&amp;&lt;c", "acme/absent"]);
        assert_eq!(world.stored("acme/a"), None);
        assert_eq!(world.stored("acme/&<c"), None);
        let heads = world.emulator.counters().heads();
        assert!(
            heads
                .last()
                .unwrap()
                .headers
                .iter()
                .any(|(name, _)| name == "content-md5")
        );
    }
}

#[test]
fn quiet_multi_delete_reports_only_failures() {
    let body = "<Delete><Quiet>true</Quiet><Object><Key>acme/a</Key></Object>\
        <Object><Key>other</Key></Object></Delete>";
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put("/photos/acme/a", "1");
        let reply = world.signed("POST", "/photos?delete").body(body).fetch();
        assert!(elements(&reply.assert_ok().text(), "Deleted").is_empty());
        assert_eq!(elements(&reply.text(), "Key"), ["other"]);
        assert_eq!(world.stored("acme/a"), None);
    }
}
