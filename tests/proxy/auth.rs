//! Authentication: valid and invalid signatures, bodies that differ from the signed one, anonymous callers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

use cosgate::clock::wall_clock;
use cosgate::secret::Secret;
use cosgate::sign::sigv2;
use http::HeaderMap;

use crate::support::{
    self, ACME, BUCKET, Call, Client, GLOBEX, Reply, SIGNATURES, World, exchange,
};

const KEY: &str = "/photos/acme/a";
const MINUTE: i64 = 60;
const WEEK: u32 = 604_800;

/// A world with one object of acme.
fn world() -> World {
    let world = World::new();
    world.put(KEY, "hello");
    world.emulator.counters().reset();
    world
}

/// The head of `call`, with `from` replaced after signing.
fn forged(call: &Call, from: &str, to: &str) -> Reply {
    let bytes = String::from_utf8(call.bytes()).unwrap();
    assert!(bytes.contains(from), "{from} is not in {bytes}");
    exchange(
        call.addr,
        &call.method,
        bytes.replacen(from, to, 1).as_bytes(),
    )
}

/// A signature with its last digit changed.
fn damaged(call: &Call, field: &str) -> Reply {
    let bytes = String::from_utf8(call.bytes()).unwrap();
    let at = bytes.find(field).unwrap() + field.len() + 63;
    let other = if &bytes[at..=at] == "0" { "1" } else { "0" };
    let bytes = format!("{}{other}{}", &bytes[..at], &bytes[at + 1..]);
    exchange(call.addr, &call.method, bytes.as_bytes())
}

#[test]
fn accepts_signatures_in_header_and_query() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let put = world.signed("PUT", KEY).body("hello");
        put.fetch().assert_ok();
        put.clone().payload("UNSIGNED-PAYLOAD").fetch().assert_ok();
        let put = put.presigned(60).body("presigned");
        put.fetch().assert_ok();
        assert_eq!(world.stored("acme/a").as_deref(), Some("presigned"));
        let get = world.signed("GET", KEY);
        for skew in [-14 * MINUTE, 0, 14 * MINUTE] {
            let at = get.clone().at(get.time.plus(skew));
            assert_eq!(at.fetch().assert_ok().text(), "presigned");
            assert_eq!(at.presigned(WEEK).fetch().text(), "presigned");
        }
        let old = get.clone().at(get.time.plus(-i64::from(WEEK) + MINUTE));
        assert_eq!(old.presigned(WEEK).fetch().text(), "presigned");
        assert_eq!(get.presigned(1).fetch().text(), "presigned");
    }
}

#[test]
fn distinguishes_wrong_keys_from_wrong_signatures() {
    let world = world();
    let get = world.signed("GET", KEY);
    let nobody = get.clone().signed_by(("NOBODYKEY00000000001", ACME.1));
    nobody.fetch().assert_error(403, "InvalidAccessKeyId");
    let nobody = nobody.presigned(60);
    nobody.fetch().assert_error(403, "InvalidAccessKeyId");
    for secret in [GLOBEX.1, "", "x"] {
        let wrong = get.clone().signed_by((ACME.0, secret));
        wrong.fetch().assert_error(403, "SignatureDoesNotMatch");
        let wrong = wrong.presigned(60);
        wrong.fetch().assert_error(403, "SignatureDoesNotMatch");
    }
    damaged(&get, "Signature=").assert_error(403, "SignatureDoesNotMatch");
    damaged(&get.presigned(60), "X-Amz-Signature=").assert_error(403, "SignatureDoesNotMatch");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_changes_after_signing() {
    let world = world();
    let get = world.signed("GET", &format!("{KEY}?response-content-type=text%2Fcss"));
    let presigned = get.clone().presigned(60);
    for call in [&get, &presigned] {
        for (from, to) in [
            ("acme/a?", "acme/b?"),
            ("acme/a?", "acme/a%20?"),
            ("text%2Fcss", "text%2Fhtml"),
            ("host: 127.0.0.1", "host: localhost"),
        ] {
            forged(call, from, to).assert_error(403, "SignatureDoesNotMatch");
        }
    }
    let plain = world.signed("GET", KEY);
    for call in [&plain, &plain.clone().presigned(60)] {
        forged(call, "GET /", "DELETE /").assert_error(403, "SignatureDoesNotMatch");
    }
    let put = world
        .signed("PUT", KEY)
        .header("x-amz-meta-a", "1")
        .body("x");
    forged(&put, "x-amz-meta-a: 1", "x-amz-meta-a: 2").assert_error(403, "SignatureDoesNotMatch");
    forged(&presigned, "X-Amz-Expires=60", "X-Amz-Expires=61")
        .assert_error(403, "SignatureDoesNotMatch");
    assert_eq!(world.upstream_requests(), 0);
    assert_eq!(world.stored("acme/a").as_deref(), Some("hello"));
}

#[test]
fn rejects_stale_and_future_signatures() {
    let world = world();
    let get = world.signed("GET", KEY);
    for skew in [-16 * MINUTE, 16 * MINUTE, -24 * 60 * MINUTE] {
        let at = get.clone().at(get.time.plus(skew));
        at.fetch().assert_error(403, "RequestTimeTooSkewed");
    }
    let expired = get.clone().at(get.time.plus(-2 * MINUTE)).presigned(60);
    let reply = expired.fetch();
    reply.assert_error(403, "AccessDenied");
    assert!(reply.text().contains("Request has expired"));
    let early = get.clone().at(get.time.plus(16 * MINUTE)).presigned(60);
    early.fetch().assert_error(403, "AccessDenied");
    for expires in [0, WEEK + 1, u32::MAX] {
        let reply = get.clone().presigned(expires).fetch();
        reply.assert_error(400, "AuthorizationQueryParametersError");
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_two_signatures() {
    let world = world();
    let get = world.signed("GET", KEY);
    let presigned = get.clone().presigned(60);
    let both = presigned.clone().signed_by(ACME);
    both.fetch().assert_error(400, "InvalidArgument");
    let head = String::from_utf8(get.bytes()).unwrap();
    let line = head
        .lines()
        .find(|line| line.starts_with("authorization"))
        .unwrap();
    get.fetch_with_line(line)
        .assert_error(400, "InvalidArgument");
    presigned
        .fetch_with_line("authorization: Basic eDp5")
        .assert_error(400, "InvalidArgument");
    for line in [
        "authorization: Basic eDp5",
        "authorization: Bearer x",
        "authorization: AWS ACMEKEY0000000000001:x",
        "authorization: AWS4-ECDSA-P256-SHA256 Credential=x",
        "authorization: ",
    ] {
        let unsigned = Call::new(world.gateway.addr, "GET", "/photos/public/a");
        let reply = unsigned.fetch_with_line(line);
        assert_eq!(reply.status, 400, "{line} {}", reply.text());
    }
    let v2 = "/photos/public/a?AWSAccessKeyId=x&Expires=9999999999&Signature=x";
    let reply = Call::new(world.gateway.addr, "GET", v2).fetch();
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn accepts_presigned_urls_of_version_2_only_if_configured() {
    let target = |path: &str, bucket: Option<&str>| {
        let request = sigv2::SigV2Request {
            method: "GET",
            bucket,
            path,
            raw_query: "response-content-type=text%2Fcss",
            query: &[("response-content-type".into(), "text/css".into())],
            headers: &HeaderMap::new(),
        };
        let expires = wall_clock().plus(MINUTE).unix();
        let query = sigv2::presigned_query(&request, ACME.0, &Secret::new(ACME.1), expires);
        format!("{path}?{query}")
    };
    let allowed = "threads = 1\nallow_sigv2_presign = true";
    let world = World::edited(|toml| toml.replacen("threads = 1", allowed, 1));
    world.put(KEY, "hello");
    let get = |target: &str| Call::new(world.gateway.addr, "GET", target);
    let reply = get(&target(KEY, None)).fetch();
    assert_eq!(reply.assert_ok().text(), "hello");
    assert_eq!(reply.header("content-type"), Some("text/css"));
    let by_host = get(&target("/acme/a", Some("photos")));
    let by_host = by_host.header("host", "photos.s3.localhost").fetch();
    assert_eq!(by_host.assert_ok().text(), "hello");
    world.emulator.counters().reset();
    let other = target(KEY, None).replacen("acme/a", "acme/b", 1);
    get(&other)
        .fetch()
        .assert_error(403, "SignatureDoesNotMatch");
    assert_eq!(world.upstream_requests(), 0);

    let world = self::world();
    let refused = Call::new(world.gateway.addr, "GET", &target(KEY, None)).fetch();
    refused.assert_error(400, "InvalidRequest");
    assert!(refused.text().contains("allow_sigv2_presign"));
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_malformed_claims() {
    let world = world();
    let get = world.signed("GET", KEY);
    for (from, to) in [
        ("/s3/", "/ec2/"),
        ("/aws4_request", "/aws4"),
        ("SignedHeaders=host;", "SignedHeaders=Host;"),
        ("SignedHeaders=host;", "SignedHeaders=host;host;"),
        ("SignedHeaders=host;", "SignedHeaders=;"),
        ("Signature=", "Signature=F"),
        ("Credential=", "Credential=x, Credential="),
    ] {
        forged(&get, from, to).assert_error(400, "AuthorizationHeaderMalformed");
    }
    let presigned = get.presigned(60);
    for (from, to) in [
        ("X-Amz-Algorithm=AWS4-HMAC", "X-Amz-Algorithm=AWS9-HMAC"),
        ("%2Fs3%2F", "%2Fec2%2F"),
        ("X-Amz-Expires=60", "X-Amz-Expires=-1"),
        ("X-Amz-Expires=60", "X-Amz-Expires=x"),
        ("X-Amz-Expires=60&", ""),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=Host"),
    ] {
        forged(&presigned, from, to).assert_error(400, "AuthorizationQueryParametersError");
    }
    for (from, to) in [
        ("&X-Amz-Expires", "&X-Amz-Expires=60&X-Amz-Expires"),
        ("X-Amz-Expires", "x-amz-expires"),
        ("X-Amz-Signature", "x-amz-signature"),
    ] {
        forged(&presigned, from, to).assert_error(400, "InvalidArgument");
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_unsigned_headers() {
    let world = world();
    let put = world.signed("PUT", KEY).body("x");
    let presigned = put.clone().presigned(60);
    for call in [&put, &presigned] {
        for line in [
            "x-amz-meta-a: b",
            "x-amz-acl: public-read",
            "x-amz-copy-source: /photos/acme/a",
            "X-AMZ-Tagging: a=b",
            "x-amz-unheard-of: 1",
        ] {
            let reply = call.fetch_with_line(line);
            assert!(
                matches!(reply.status, 400 | 403),
                "{line} {} {}",
                reply.status,
                reply.text()
            );
        }
    }
    forged(&put, "SignedHeaders=host;", "SignedHeaders=").assert_error(403, "AccessDenied");
    let date = "X-Amz-SignedHeaders=date";
    forged(&presigned, "X-Amz-SignedHeaders=host", date).assert_error(403, "AccessDenied");
    assert_eq!(world.upstream_requests(), 0);
    assert_eq!(world.stored("acme/a").as_deref(), Some("hello"));
}

#[test]
fn rejects_foreign_session_tokens() {
    let world = world();
    let get = || world.signed("GET", KEY);
    let by_header = get().header("x-amz-security-token", "t");
    by_header.fetch().assert_error(400, "InvalidToken");
    let by_query = world.signed("GET", &format!("{KEY}?X-Amz-Security-Token=t"));
    let reply = by_query.presigned(60).fetch();
    reply.assert_error(400, "InvalidToken");
    let native = get().header("x-cos-security-token", "t").fetch();
    assert_eq!(native.status, 400);
    let unsigned = Call::new(world.gateway.addr, "GET", "/photos/public/a");
    let unsigned = unsigned.header("x-amz-security-token", "t");
    unsigned.fetch().assert_error(400, "InvalidToken");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_a_body_other_than_the_signed_one() {
    let wrong = "0".repeat(64);
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for size in [0, 1, 5, 64 << 10, 5 << 20] {
            let put = world.signed("PUT", KEY).body(vec![b'x'; size]);
            let reply = put.payload(&wrong).fetch();
            reply.assert_error(400, "XAmzContentSHA256Mismatch");
            assert!(!world.emulator.object_exists(BUCKET, "acme/a"), "{size}");
        }
        world.put(KEY, "before");
        let put = world.signed("PUT", KEY).body(vec![b'x'; 3 << 20]);
        let reply = put.payload(&wrong).fetch();
        reply.assert_error(400, "XAmzContentSHA256Mismatch");
        assert_eq!(world.stored("acme/a").as_deref(), Some("before"));
    }
}

#[test]
fn verifies_the_hash_of_parts_and_documents() {
    let wrong = "0".repeat(64);
    let world = world();
    let created = world.fetch("POST", &format!("{KEY}?uploads"));
    let id = support::element(&created.assert_ok().text(), "UploadId");
    let part = world.signed("PUT", &format!("{KEY}?partNumber=1&uploadId={id}"));
    let part = part.body(vec![b'x'; 2 << 20]).payload(&wrong);
    part.fetch().assert_error(400, "XAmzContentSHA256Mismatch");
    let parts = world.fetch("GET", &format!("{KEY}?uploadId={id}"));
    assert_eq!(support::element(&parts.text(), "PartNumber"), "");
    let delete = "<Delete><Object><Key>acme/a</Key></Object></Delete>";
    let delete = world.signed("POST", "/photos?delete").body(delete);
    let reply = delete.payload(&wrong).fetch();
    reply.assert_error(400, "XAmzContentSHA256Mismatch");
    assert_eq!(world.stored("acme/a").as_deref(), Some("hello"));
    let get = world.signed("GET", KEY).payload(&wrong).fetch();
    get.assert_error(400, "XAmzContentSHA256Mismatch");
    let odd = world.signed("PUT", KEY).body("x").payload("sha256-of-x");
    odd.fetch().assert_error(400, "InvalidArgument");
}

#[test]
fn stores_no_truncated_body() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for size in [10, 3 << 20] {
            let put = world.signed("PUT", KEY).payload("UNSIGNED-PAYLOAD");
            let put = put.header("content-length", &(size + 1).to_string());
            let mut client = Client::connect(world.gateway.addr);
            client.write(&put.head());
            client.write(&vec![b'x'; size]);
            drop(client);
        }
        support::eventually("both requests are over", || {
            world.gateway.log.text().lines().count() == 2
        });
        // COS sees the cut later than the log.
        world.put("/photos/acme/after", "");
        assert!(!world.emulator.object_exists(BUCKET, "acme/a"));
    }
}

#[test]
fn serves_anonymous_clients_on_loopback() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let port = world.gateway.addr.port();
        let call = |method: &str, target: &str| Call::new(world.gateway.addr, method, target);
        let put = call("PUT", "/photos/public/a").body("hello");
        put.fetch().assert_ok();
        for host in [
            format!("localhost:{port}"),
            "127.0.0.1".to_owned(),
            format!("[::1]:{port}"),
            format!("s3.localhost:{port}"),
        ] {
            let get = call("GET", "/photos/public/a").header("host", &host);
            assert_eq!(get.fetch().assert_ok().text(), "hello", "{host}");
        }
        let hosted = call("GET", "/public/a").header("host", "photos.s3.localhost");
        assert_eq!(hosted.fetch().text(), "hello");
        let hashed = call("PUT", "/photos/public/b").body("hello");
        let hashed = hashed.header("x-amz-content-sha256", &"0".repeat(64));
        hashed
            .fetch()
            .assert_error(400, "XAmzContentSHA256Mismatch");
        assert!(!world.emulator.object_exists(BUCKET, "public/b"));

        world.put(KEY, "private");
        for target in [
            KEY,
            "/photos/globex/a",
            "/photos/public",
            "/photos/publicity/a",
        ] {
            call("GET", target)
                .fetch()
                .assert_error(403, "AccessDenied");
        }
        call("GET", "/photos?prefix=acme%2F")
            .fetch()
            .assert_error(403, "AccessDenied");
    }
}

#[test]
fn anonymous_clients_cannot_override_response_headers() {
    let world = world();
    let call = |method: &str, target: &str| Call::new(world.gateway.addr, method, target);
    let put = call("PUT", "/photos/public/a").body("<script></script>");
    put.fetch().assert_ok();
    let get = call("GET", "/photos/public/a?response-content-type=text%2Fhtml");
    get.fetch().assert_error(400, "InvalidRequest");
}

#[test]
fn rejects_web_pages_as_anonymous_tenant() {
    let world = world();
    let port = world.gateway.addr.port();
    let addr = world.gateway.addr;
    let refused = |name: &str, value: &str| {
        for method in ["GET", "PUT", "DELETE"] {
            let call = Call::new(addr, method, "/photos/public/a").header(name, value);
            call.fetch().assert_error(403, "AccessDenied");
        }
    };
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("referer", "https://evil.example/page"),
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("host", "localhost.evil.example"),
        ("host", "192.0.2.1"),
        ("host", "2130706433"),
    ] {
        refused(name, value);
    }
    refused("host", &format!("evil.example:{port}"));
    let preflight = Call::new(addr, "OPTIONS", "/photos/public/a");
    let preflight = preflight
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "PUT");
    let reply = preflight.fetch();
    reply.assert_error(403, "AccessForbidden");
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert_eq!(world.upstream_requests(), 0);
    // The headers of a browser for a page that the user opened directly.
    let direct = Call::new(addr, "GET", "/photos/public/a").header("sec-fetch-site", "none");
    direct.fetch().assert_error(404, "NoSuchKey");
}

#[test]
fn requires_signatures_without_an_anonymous_tenant() {
    let key = r#"access_keys = [{ id = "ANYONEKEY00000000001", secret = "env:ACME_SECRET" }]"#;
    let world = World::edited(|toml| toml.replace("anonymous = true", key));
    for target in ["/", "/photos", "/photos/public/a"] {
        let call = Call::new(world.gateway.addr, "GET", target);
        call.fetch().assert_error(403, "AccessDenied");
    }
    assert_eq!(world.upstream_requests(), 0);
}
