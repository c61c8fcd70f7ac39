//! Conditions: each is enforced, or refused by name.

use std::time::Duration;

use cosgate::timestamp::Timestamp;

use crate::support::{BUCKET, Call, Client, SIGNATURES, Scripted, World, act, cos_error, element};

const KEY: &str = "/photos/acme/a.txt";
const STORED: &str = "acme/a.txt";

/// A multipart upload to [`KEY`] with one part, ready to be completed.
fn completion(world: &World, body: &str) -> Call {
    let created = world.signed("POST", &format!("{KEY}?uploads")).fetch();
    let id = element(&created.assert_ok().text(), "UploadId");
    let part = world.signed("PUT", &format!("{KEY}?partNumber=1&uploadId={id}"));
    let part = part.body(body).fetch();
    let etag = part.assert_ok().header("etag").unwrap();
    let xml = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let complete = world.signed("POST", &format!("{KEY}?uploadId={id}"));
    complete.body(xml)
}

fn copy(world: &World) -> Call {
    let copy = world.signed("PUT", KEY);
    copy.header("x-amz-copy-source", "/photos/acme/from")
}

fn methods_seen(world: &World) -> Vec<String> {
    let heads = world.emulator.counters().heads();
    heads.into_iter().map(|head| head.method).collect()
}

#[test]
fn create_only_writes_do_not_overwrite() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put("/photos/acme/from", "copied");
        for (name, body) in [
            ("put", "put"),
            ("copy", "copied"),
            ("complete", "completed"),
        ] {
            let call = |body: &str| {
                let call = match name {
                    "put" => world.signed("PUT", KEY).body(body),
                    "copy" => copy(&world),
                    _ => completion(&world, body),
                };
                call.header("if-none-match", "*")
            };
            call(body).fetch().assert_ok();
            assert_eq!(world.stored(STORED).as_deref(), Some(body), "{signature}");
            world.put(KEY, "kept");
            let refused = call("lost").fetch();
            refused.assert_error(412, "PreconditionFailed");
            // By these s3fs tells that the file exists.
            let said = ["Condition", "Message"].map(|name| element(&refused.text(), name));
            let message = "At least one of the pre-conditions you specified did not hold";
            assert_eq!(said, ["If-None-Match", message], "{signature} {name}");
            assert_eq!(
                world.stored(STORED).as_deref(),
                Some("kept"),
                "{signature} {name}"
            );
            world.fetch("DELETE", KEY).assert_ok();
        }
    }
}

#[test]
fn translates_create_only_for_each_signature() {
    for (signature, methods, name, value) in [
        ("s3", &["HEAD", "PUT"][..], "if-none-match", "*"),
        ("cos", &["PUT"], "x-cos-forbid-overwrite", "true"),
    ] {
        let world = World::speaking(signature);
        let put = world.signed("PUT", KEY).header("if-none-match", "*");
        put.body("x").fetch().assert_ok();
        assert_eq!(methods_seen(&world), methods);
        let heads = world.emulator.counters().heads();
        let sent = |name: &str| {
            let mut headers = heads.last().unwrap().headers.iter();
            headers
                .find(|(sent, _)| sent == name)
                .map(|(_, value)| value.clone())
        };
        assert_eq!(sent(name).as_deref(), Some(value), "{signature}");
        let either = ["if-none-match", "x-cos-forbid-overwrite"];
        let shown = either.into_iter().filter(|name| sent(name).is_some());
        assert_eq!(shown.collect::<Vec<_>>(), [name], "{signature}");
    }
}

#[test]
fn finds_an_existing_object_before_the_body() {
    let world = World::new();
    world.put(KEY, "kept");
    let call = world.signed("PUT", KEY).header("if-none-match", "*");
    let call = call.header("expect", "100-continue").body("lost");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    client
        .read_one("PUT")
        .assert_error(412, "PreconditionFailed");
    assert!(client.closes_within(Duration::from_secs(5)));
    assert_eq!(world.stored(STORED).as_deref(), Some("kept"));

    let call = world
        .signed("PUT", "/photos/acme/new")
        .header("if-none-match", "*");
    let call = call.header("expect", "100-continue").body("first");
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    assert_eq!(client.read_one("PUT").status, 100);
    client.write(b"first");
    client.read_one("PUT").assert_ok();
}

/// A HEAD that neither finds the object nor reports it absent: cosgate sends no further request.
#[test]
fn failed_head_before_create_only_is_the_response() {
    let no_body = |status: u16| format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
    for (response, status) in [
        (no_body(500), 502),
        (no_body(503), 503),
        (no_body(302), 502),
        (no_body(400), 400),
        (no_body(403), 403),
        (no_body(405), 405),
    ] {
        let shown = response.clone();
        let world = Scripted::new(vec![act(move |peer| peer.always(&shown))]);
        let put = world
            .signed("PUT", KEY)
            .header("if-none-match", "*")
            .body("x");
        let reply = put.fetch();
        assert_eq!(reply.status, status, "{response}: {}", reply.text());
        let heads = world.script.heads();
        assert!(
            heads.iter().all(|head| !head.starts_with("PUT ")),
            "{heads:?}"
        );
    }
}

#[test]
fn create_only_without_read_permission_needs_support_of_cos() {
    for signature in SIGNATURES {
        let world = World::edited(|toml| {
            toml.replacen(
                "actions = [\"read\", \"write\", \"list\"]",
                "actions = [\"write\"]",
                1,
            )
            .replacen(
                "[upstream]",
                &format!("[upstream]\nsignature = \"{signature}\""),
                1,
            )
        });
        let put = |body: &str| {
            let put = world.signed("PUT", KEY).header("if-none-match", "*");
            put.body(body).fetch()
        };
        if signature == "cos" {
            put("first").assert_ok();
            put("second").assert_error(412, "PreconditionFailed");
            assert_eq!(world.stored(STORED).as_deref(), Some("first"));
        } else {
            let refused = put("first");
            refused.assert_error(501, "NotImplemented");
            assert!(
                refused.text().contains("name/cos:HeadObject"),
                "{}",
                refused.text()
            );
            assert_eq!(world.upstream_requests(), 0);
            assert_eq!(world.stored(STORED), None);
        }
    }
}

#[test]
fn rejects_unsupported_conditions() {
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "kept");
        world.put("/photos/acme/from", "copied");
        let seen = world.upstream_requests();
        let upload = format!("{KEY}?uploadId=u");
        let part = format!("{KEY}?uploadId=u&partNumber=1");
        let uploads = format!("{KEY}?uploads");
        let tagging = format!("{KEY}?tagging");
        let etag_conditions = [
            ("if-match", "\"0\""),
            ("if-match", "*"),
            ("if-none-match", "\"0\""),
        ];
        let dates = [("if-modified-since", date), ("if-unmodified-since", date)];
        let create = [("if-none-match", "*")];
        let deletes = [
            ("x-amz-if-match-size", "3"),
            ("x-amz-if-match-last-modified-time", date),
        ];
        let always: Vec<_> = etag_conditions.iter().chain(&dates).collect();
        for (method, target, source, more) in [
            ("PUT", KEY, false, &[][..]),
            ("PUT", KEY, true, &[]),
            ("POST", &upload, false, &[]),
            ("POST", &uploads, false, &create),
            ("PUT", &part, false, &create),
            ("PUT", &part, true, &create),
            ("PUT", &tagging, false, &create),
            ("DELETE", &tagging, false, &create),
            (
                "DELETE",
                &upload,
                false,
                &[("x-amz-if-match-initiated-time", date)],
            ),
            ("DELETE", KEY, false, &deletes),
            ("DELETE", KEY, false, &create),
            ("POST", "/photos?delete", false, &create),
        ] {
            for (name, value) in always.iter().copied().chain(more) {
                let mut call = world.signed(method, target).header(name, value);
                if source {
                    call = call.header("x-amz-copy-source", "/photos/acme/from");
                }
                let reply = call.fetch();
                reply.assert_error(501, "NotImplemented");
                let text = reply.text();
                assert!(text.contains(name), "{method} {target} {name}: {text}");
            }
        }
        for element in ["ETag", "LastModifiedTime", "Size"] {
            let xml = format!(
                "<Delete><Object><Key>{STORED}</Key><{element}>0</{element}></Object></Delete>"
            );
            let reply = world.signed("POST", "/photos?delete").body(xml).fetch();
            reply.assert_error(501, "NotImplemented");
            assert!(reply.text().contains(element), "{}", reply.text());
        }
        assert_eq!(world.upstream_requests(), seen, "{signature}");
        assert_eq!(world.stored(STORED).as_deref(), Some("kept"));
    }
}

#[test]
fn copy_keeps_conditions_on_its_source() {
    let now = Timestamp::from_unix(1_767_225_600);
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let etag = world
            .signed("PUT", "/photos/acme/from")
            .body("hello")
            .fetch();
        let etag = etag.assert_ok().header("etag").unwrap().to_owned();
        let (past, future) = (
            now.plus(-86_400).http_date(),
            now.plus(10 * 365 * 86_400).http_date(),
        );
        for (name, value, holds) in [
            ("x-amz-copy-source-if-match", etag.as_str(), true),
            ("x-amz-copy-source-if-match", "\"0\"", false),
            ("x-amz-copy-source-if-none-match", "\"0\"", true),
            ("x-amz-copy-source-if-none-match", &etag, false),
            ("x-amz-copy-source-if-modified-since", &past, true),
            ("x-amz-copy-source-if-unmodified-since", &past, false),
            ("x-amz-copy-source-if-unmodified-since", &future, true),
        ] {
            let seen = world.upstream_requests();
            let reply = copy(&world).header(name, value).fetch();
            let prechecks = u64::from(signature == "s3");
            if holds {
                reply.assert_ok();
                assert_eq!(
                    world.upstream_requests() - seen,
                    1 + prechecks,
                    "{signature} {name}"
                );
            } else {
                reply.assert_error(412, "PreconditionFailed");
                assert_eq!(world.upstream_requests() - seen, 1, "{signature} {name}");
            }
        }
        let gone = world
            .signed("PUT", KEY)
            .header("x-amz-copy-source", "/photos/acme/gone");
        let gone = gone.header("x-amz-copy-source-if-match", "\"0\"").fetch();
        gone.assert_error(404, "NoSuchKey");
        assert!(world.emulator.object_exists(BUCKET, STORED));
    }
}

#[test]
fn reads_ignore_conditions_that_s3_ignores() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "x");
        let list = world.signed("GET", "/photos?prefix=acme/");
        let list = list
            .header("if-none-match", "*")
            .header("if-match", "\"0\"");
        assert_eq!(element(&list.fetch().assert_ok().text(), "Key"), STORED);
    }
}

#[test]
fn replaces_a_key_that_cos_refuses_at_the_head() {
    let world = Scripted::new(vec![act(|peer| {
        let mut tries = 0;
        while let Some(head) = peer.head() {
            let response = match (head.split(' ').next(), tries) {
                (Some("HEAD"), 0) => "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
                (Some("GET"), _) => cos_error(403, "InvalidAccessKeyId", "expired"),
                (Some("HEAD"), _) => "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => {
                    peer.body(1);
                    "HTTP/1.1 200 OK\r\nETag: \"9dd4e461268c8034f5c8564e155c67a6\"\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
            };
            tries += u32::from(head.starts_with("GET "));
            peer.respond(&response);
        }
    })]);
    let put = world
        .signed("PUT", KEY)
        .header("if-none-match", "*")
        .body("x");
    put.fetch().assert_ok();
    let methods: Vec<_> = world
        .script
        .heads()
        .iter()
        .map(|h| h.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(methods, ["HEAD", "GET", "HEAD", "PUT"]);
}
