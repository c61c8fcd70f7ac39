//! Unsupported requests: they get the right error code, and COS gets no request.

use crate::support::World;

#[test]
fn stores_no_framing_inside_the_body() {
    let world = World::new();
    let put = || world.signed("PUT", "/photos/acme/a").body("x\r\n0\r\n\r\n");
    for (call, code) in [
        (
            put().payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            "MissingContentLength",
        ),
        (
            put().payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            "MissingContentLength",
        ),
        (
            put()
                .payload("UNSIGNED-PAYLOAD")
                .header("content-encoding", "gzip,aws-chunked"),
            "MissingContentLength",
        ),
        (
            put()
                .payload("UNSIGNED-PAYLOAD")
                .header("x-amz-decoded-content-length", "1"),
            "IncompleteBody",
        ),
        (
            put().header("x-amz-decoded-content-length", "1"),
            "InvalidRequest",
        ),
    ] {
        assert_eq!(call.fetch().code(), code);
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_unsupported_methods_and_queries() {
    let world = World::new();
    for (method, target, status, code) in [
        ("PUT", "/photos?acl", 403, "AccessDenied"),
        ("PUT", "/photos?policy", 501, "NotImplemented"),
        ("PUT", "/photos?versioning", 403, "AccessDenied"),
        ("PUT", "/photos?tagging", 403, "AccessDenied"),
        ("DELETE", "/photos?lifecycle", 403, "AccessDenied"),
        ("DELETE", "/photos?versioning", 501, "NotImplemented"),
        ("GET", "/photos?acl&policy", 400, "InvalidArgument"),
        ("PUT", "/photos?referer", 403, "AccessDenied"),
        (
            "POST",
            "/photos/acme/a?append&position=0",
            403,
            "AccessDenied",
        ),
        ("DELETE", "/photos", 403, "AccessDenied"),
        ("POST", "/photos", 412, "PreconditionFailed"),
        ("PATCH", "/photos/acme/a", 405, "MethodNotAllowed"),
        ("get", "/photos/acme/a", 405, "MethodNotAllowed"),
        ("POST", "/photos/acme/a", 405, "MethodNotAllowed"),
        ("PUT", "/photos/acme/a?acl", 501, "NotImplemented"),
        ("GET", "/photos/acme/a?versioning", 501, "NotImplemented"),
        ("POST", "/photos/acme/a?restore", 403, "AccessDenied"),
        (
            "POST",
            "/photos/acme/a?select&select-type=2",
            501,
            "NotImplemented",
        ),
        ("PUT", "/photos/acme/a?attributes", 405, "MethodNotAllowed"),
        ("GET", "/photos/acme/a?torrent", 501, "NotImplemented"),
        ("GET", "/photos/acme/a?partNumber=0", 400, "InvalidArgument"),
        ("PUT", "/photos/acme/a?unheard-of", 400, "InvalidArgument"),
        ("GET", "/photos/acme/a?prefix=x", 400, "InvalidArgument"),
        (
            "GET",
            "/photos/acme/a?tagging&uploadId=1",
            400,
            "InvalidArgument",
        ),
        ("PUT", "/photos/acme/a?uploadId=1", 400, "InvalidArgument"),
        (
            "PUT",
            "/photos/acme/a?partNumber=0&uploadId=1",
            400,
            "InvalidArgument",
        ),
        (
            "PUT",
            "/photos/acme/a?partNumber=10001&uploadId=1",
            400,
            "InvalidArgument",
        ),
        (
            "GET",
            "/photos?prefix=acme%2F&max-keys=-1",
            400,
            "InvalidArgument",
        ),
        (
            "GET",
            "/photos?prefix=acme%2F&list-type=3",
            400,
            "InvalidArgument",
        ),
        (
            "GET",
            "/photos?prefix=acme%2F&encoding-type=x",
            400,
            "InvalidArgument",
        ),
        ("GET", "/Photos/acme/a", 400, "InvalidBucketName"),
    ] {
        let reply = world.fetch(method, target);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{method} {target}"
        );
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_unsupported_headers_of_writes() {
    let world = World::new();
    for (name, value, status, code) in [
        ("x-amz-unheard-of", "1", 400, "InvalidArgument"),
        ("x-amz-meta-under_score", "1", 400, "InvalidArgument"),
        ("x-cos-forbid-overwrite", "true", 501, "NotImplemented"),
        ("content-range", "bytes 0-9/100", 400, "InvalidRequest"),
        ("x-amz-acl", "public-read", 403, "AccessDenied"),
        ("x-amz-storage-class", "GLACIER", 403, "AccessDenied"),
        (
            "x-amz-server-side-encryption",
            "AES256",
            403,
            "AccessDenied",
        ),
        ("x-amz-object-lock-mode", "GOVERNANCE", 403, "AccessDenied"),
        ("x-amz-expected-bucket-owner", "1", 403, "AccessDenied"),
        (
            "x-amz-copy-source-range",
            "bytes=0-1",
            400,
            "InvalidArgument",
        ),
    ] {
        let put = world.signed("PUT", "/photos/acme/a").header(name, value);
        let reply = put.body("x").fetch();
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{name}"
        );
    }
    let put = world.signed("PUT", "/photos/acme/a");
    let put = put.header("x-amz-meta-a", &"x".repeat(2049)).body("x");
    put.fetch().assert_error(400, "MetadataTooLarge");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn requires_a_length_for_uploads() {
    let world = World::new();
    let put = world.signed("PUT", "/photos/acme/a");
    let chunked = put.clone().header("transfer-encoding", "chunked");
    let chunked = chunked.body("1\r\nx\r\n0\r\n\r\n");
    chunked.send().assert_error(411, "MissingContentLength");
    let huge = put.header("content-length", "5368709121");
    huge.fetch().assert_error(400, "EntityTooLarge");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_malformed_xml_bodies() {
    let world = World::new();
    let many = "<Object><Key>acme/a</Key></Object>".repeat(1001);
    for body in [
        "",
        "no xml",
        "<Delete></Delete>",
        "<Delete><Object></Object></Delete>",
        "<Delete><Object><Key>acme/a</Key><Key>globex/a</Key></Object></Delete>",
        "<!DOCTYPE d [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><Delete><Object><Key>acme/&e;</Key></Object></Delete>",
        "<Delete><Object><Key>acme/&e;</Key></Object></Delete>",
        &format!("<Delete>{many}</Delete>"),
    ] {
        let reply = world.signed("POST", "/photos?delete").body(body).fetch();
        assert_eq!((reply.status, reply.code().as_str()), (400, "MalformedXML"));
    }
    let large = format!("<Delete><!--{}--></Delete>", "x".repeat(2 << 20));
    let reply = world.signed("POST", "/photos?delete").body(large).fetch();
    reply.assert_error(400, "MalformedXML");
    let delete = "<Delete><Object><Key>acme/a</Key></Object></Delete>";
    let wrong = world.signed("POST", "/photos?delete").body(delete);
    let wrong = wrong.header("content-md5", "XUFAKrxLKna5cZ2REBfFkg==");
    wrong.fetch().assert_error(400, "BadDigest");
    assert_eq!(world.upstream_requests(), 0);
}

/// A script whose variable is empty must not delete the present object. S3 refuses it too.
#[test]
fn deletes_nothing_for_an_empty_version() {
    let world = World::new();
    world.put("/photos/acme/a", "kept");
    for (method, target) in [
        ("DELETE", "/photos/acme/a?versionId="),
        ("DELETE", "/photos/acme/a?versionId"),
        ("DELETE", "/photos/acme/a?tagging&versionId="),
    ] {
        let reply = world.fetch(method, target);
        reply.assert_error(400, "InvalidArgument");
    }
    assert_eq!(
        world.fetch("GET", "/photos/acme/a?versionId=").text(),
        "kept"
    );
}

/// Web frameworks add it to the addresses of their files.
#[test]
fn ignores_the_parameter_id_of_an_object() {
    let world = World::new();
    world.put("/photos/acme/app.js", "script");
    let reply = world.fetch("GET", "/photos/acme/app.js?id=68eb5c");
    assert_eq!(reply.assert_ok().text(), "script");
}
