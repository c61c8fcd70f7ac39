//! Requests that the real COS refuses; nothing of them is stored.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use cosgate::emulator::Faults;
use cosgate::encoding::hex::sha256_hex;
use cosgate::secret::Secret;

use crate::client::{
    BUCKET, Credential, REGION, Reply, TestRequest, account, connect, emulator, now, policy,
    temporary_key,
};

/// A digest of the right form, but of no body.
const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        reply.refusal(),
        (status, code.to_owned()),
        "{}",
        reply.text()
    );
    assert!(reply.header("x-cos-request-id").is_some());
    assert!(
        reply
            .text()
            .starts_with("<?xml version='1.0' encoding='utf-8' ?>")
    );
    assert!(reply.element("RequestId").is_some() && reply.element("Resource").is_some());
}

/// A client may send its head and its body apart, and its next request on the same connection.
#[test]
fn a_refused_upload_ends_its_connection_in_words_or_not_at_all() {
    let emulator = emulator();
    let request = |length: usize| {
        let request = TestRequest::new("PUT", "/k").header("content-length", &length.to_string());
        let head = String::from_utf8(request.head()).unwrap();
        head.replace("connection: close\r\n", "")
    };
    let closes = |stream: &mut TcpStream| {
        let mut head = [0; 4096];
        let read = stream.read(&mut head).unwrap();
        let head = std::str::from_utf8(&head[..read]).unwrap();
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        head.to_lowercase().contains("connection: close")
    };
    let mut stream = connect(emulator.cos_addr());
    for seen in 1..=3 {
        stream.write_all(request(7).as_bytes()).unwrap();
        while emulator.counters().counts().cos_requests < seen {
            std::thread::yield_now();
        }
        stream.write_all(b"content").unwrap();
        assert!(!closes(&mut stream), "request {seen} ends it");
    }
    for length in [8, 1_000_000] {
        let mut stream = connect(emulator.cos_addr());
        let start = format!("{}content", request(length));
        stream.write_all(start.as_bytes()).unwrap();
        assert!(closes(&mut stream), "of {length} bytes, 7 came");
    }
}

#[test]
fn rejects_path_style_and_unknown_hosts() {
    let emulator = emulator();
    let at = |host: &str, target: &str| {
        TestRequest::new("GET", target)
            .header("host", host)
            .s3(&account())
            .send(emulator.cos_addr())
    };
    let path_style = at(
        &format!("cos.{REGION}.myqcloud.com"),
        &format!("/{BUCKET}/k"),
    );
    refused(&path_style, 403, "PathStyleDomainForbidden");
    refused(&at("127.0.0.1:9000", "/k"), 404, "NoSuchBucket");
    refused(
        &at("nope-1250000000.cos.ap-guangzhou.myqcloud.com", "/k"),
        404,
        "NoSuchBucket",
    );
    refused(
        &at(&format!("{BUCKET}.cos.ap-beijing.myqcloud.com"), "/k"),
        404,
        "NoSuchBucket",
    );
}

#[test]
fn rejects_missing_double_and_wrong_signatures() {
    let emulator = emulator();
    let send = |request: TestRequest| request.send(emulator.cos_addr());
    refused(&send(TestRequest::new("GET", "/k")), 403, "AccessDenied");
    refused(
        &send(TestRequest::new("GET", "/k").header("authorization", "AWS id:sig")),
        400,
        "InvalidArgument",
    );
    let both = TestRequest::new("GET", "/k")
        .s3_presigned(&account(), now(), 60)
        .s3(&account());
    refused(&send(both), 400, "InvalidArgument");
    let stranger = Credential {
        id: "AKIDnobody".into(),
        ..account()
    };
    let impostor = Credential {
        secret: Secret::new("guess"),
        ..account()
    };
    for sign in [TestRequest::s3, TestRequest::cos] {
        refused(
            &send(sign(TestRequest::new("GET", "/k"), &stranger)),
            403,
            "InvalidAccessKeyId",
        );
        let mismatch = send(sign(TestRequest::new("GET", "/k"), &impostor));
        refused(&mismatch, 403, "SignatureDoesNotMatch");
        assert!(mismatch.element("StringToSign").is_some());
    }
    let moved = TestRequest {
        path: "/other".into(),
        ..TestRequest::new("GET", "/k").s3(&account())
    };
    refused(&send(moved), 403, "SignatureDoesNotMatch");
    let moved = TestRequest {
        path: "/other".into(),
        ..TestRequest::new("GET", "/k").cos(&account())
    };
    refused(&send(moved), 403, "SignatureDoesNotMatch");
}

#[test]
fn rejects_unsigned_headers_and_parameters() {
    let emulator = emulator();
    let send = |request: TestRequest| request.send(emulator.cos_addr());
    for name in ["x-amz-copy-source", "x-amz-acl", "x-amz-meta-a"] {
        let late = TestRequest::new("PUT", "/k")
            .body("x")
            .s3(&account())
            .header(name, "v");
        refused(&send(late), 403, "AccessDenied");
    }
    for name in [
        "x-cos-copy-source",
        "x-cos-acl",
        "x-cos-meta-a",
        "content-type",
    ] {
        let late = TestRequest::new("PUT", "/k")
            .body("x")
            .cos(&account())
            .header(name, "v");
        refused(&send(late), 403, "AccessDenied");
    }
    let mut late = TestRequest::new("GET", "/?prefix=a").cos(&account());
    late.query.push(("delimiter".into(), "/".into()));
    refused(&send(late), 403, "AccessDenied");
    assert!(!emulator.object_exists(BUCKET, "k"));
}

#[test]
fn rejects_stale_signatures() {
    let emulator = emulator();
    for skew in [-960, 960] {
        let old = TestRequest::new("GET", "/k").s3_at(&account(), now().plus(skew), UNSIGNED);
        refused(&old.send(emulator.cos_addr()), 403, "RequestTimeTooSkewed");
    }
    let past = TestRequest::new("GET", "/k")
        .cos_at(&account(), now().plus(-1000))
        .send(emulator.cos_addr());
    refused(&past, 403, "AccessDenied");
    assert_eq!(
        past.element("Message").as_deref(),
        Some("Request has expired")
    );
}

#[test]
fn temporary_key_needs_its_token_and_expires() {
    let emulator = emulator();
    let all = policy(&["name/cos:*"], &[&format!("{BUCKET}/*")]);
    let key = temporary_key(&emulator, &all);
    let tokenless = Credential {
        token: None,
        ..key.clone()
    };
    let other = Credential {
        token: temporary_key(&emulator, &all).token,
        ..key.clone()
    };
    for sign in [TestRequest::s3, TestRequest::cos] {
        let send = |key: &Credential| {
            sign(TestRequest::new("GET", "/?prefix=x"), key).send(emulator.cos_addr())
        };
        assert_eq!(send(&key).status, 200);
        refused(&send(&tokenless), 403, "InvalidAccessKeyId");
        refused(&send(&other), 403, "InvalidAccessKeyId");
    }
    emulator.faults().set(Faults {
        sts_lifetime: Some(-1),
        ..Faults::default()
    });
    let dead = temporary_key(&emulator, &all);
    let request = || {
        TestRequest::new("GET", "/?prefix=x")
            .s3(&dead)
            .send(emulator.cos_addr())
    };
    refused(&request(), 403, "InvalidAccessKeyId");
    emulator.faults().set(Faults {
        expired_token_code: true,
        ..Faults::default()
    });
    refused(&request(), 400, "ExpiredToken");
    assert!(emulator.revoke_key(&key.id));
    let revoked = TestRequest::new("GET", "/?prefix=x")
        .s3(&key)
        .send(emulator.cos_addr());
    refused(&revoked, 403, "InvalidAccessKeyId");
}

#[test]
fn rejects_chunked_bodies_and_missing_lengths() {
    let emulator = emulator();
    let send = |request: TestRequest| request.send(emulator.cos_addr());
    let streaming = TestRequest::new("PUT", "/k")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", "1")
        .body("1\r\nx\r\n0\r\n\r\n")
        .s3_at(&account(), now(), "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    refused(&send(streaming), 501, "NotImplemented");
    let no_length = TestRequest {
        body: b"1\r\nx\r\n0\r\n\r\n".into(),
        ..TestRequest::new("PUT", "/k")
    }
    .header("transfer-encoding", "chunked")
    .s3_at(&account(), now(), UNSIGNED);
    refused(&send(no_length), 411, "MissingContentLength");
    assert!(!emulator.object_exists(BUCKET, "k"));
}

#[test]
fn requires_and_verifies_digests() {
    let emulator = emulator();
    let send = |request: TestRequest| request.s3(&account()).send(emulator.cos_addr());
    let delete = "<Delete><Object><Key>k</Key></Object></Delete>";
    let missing = send(TestRequest::new("POST", "/?delete=").body(delete));
    refused(&missing, 400, "InvalidRequest");
    let message = "Missing required header for this request: Content-MD5";
    assert_eq!(missing.element("Message").as_deref(), Some(message));
    refused(
        &send(
            TestRequest::new("POST", "/?delete=")
                .header("content-md5", ZEROS)
                .body(delete),
        ),
        400,
        "BadDigest",
    );
    refused(
        &send(
            TestRequest::new("PUT", "/k")
                .header("content-md5", ZEROS)
                .body("x"),
        ),
        400,
        "BadDigest",
    );
    refused(
        &send(
            TestRequest::new("PUT", "/k")
                .header("content-md5", "?")
                .body("x"),
        ),
        400,
        "InvalidDigest",
    );
    refused(
        &send(TestRequest::new("PUT", "/?tagging=").body("<Tagging/>")),
        400,
        "InvalidRequest",
    );
    let wrong_hash =
        TestRequest::new("PUT", "/k")
            .body("x")
            .s3_at(&account(), now(), &sha256_hex(b"y"));
    refused(
        &wrong_hash.send(emulator.cos_addr()),
        400,
        "XAmzContentSHA256Mismatch",
    );
    assert!(!emulator.object_exists(BUCKET, "k"));
}

#[test]
fn limits_keys_and_metadata() {
    let emulator = emulator();
    let put = |target: &str| {
        TestRequest::new("PUT", target)
            .body("x")
            .s3(&account())
            .send(emulator.cos_addr())
    };
    assert_eq!(put(&format!("/{}", "k".repeat(850))).status, 200);
    refused(&put(&format!("/{}", "k".repeat(851))), 400, "KeyTooLong");
    refused(&put("//k"), 400, "InvalidObjectName");
    refused(&put("/%5Ck"), 400, "InvalidObjectName");
    refused(&put("/%2Fk"), 400, "InvalidObjectName");
    assert_eq!(put("/a//b/../c/./").status, 200);
    assert!(emulator.object_exists(BUCKET, "a//b/../c/./"));
    let with = |name: &str, value: &str| {
        TestRequest::new("PUT", "/m")
            .header(name, value)
            .body("x")
            .s3(&account())
            .send(emulator.cos_addr())
    };
    refused(&with("x-amz-meta-a_b", "v"), 400, "InvalidArgument");
    refused(
        &with("x-amz-meta-a", &"v".repeat(2049)),
        400,
        "MetadataTooLarge",
    );
    assert_eq!(with("x-amz-meta-a", &"v".repeat(2048)).status, 200);
}

#[test]
fn stores_nothing_of_a_truncated_body() {
    let emulator = emulator();
    for sign in [TestRequest::s3, TestRequest::cos] {
        let request = sign(
            TestRequest::new("PUT", "/k").body(vec![b'x'; 100_000]),
            &account(),
        );
        let mut stream = connect(emulator.cos_addr());
        stream.write_all(&request.head()).unwrap();
        stream.write_all(&request.body[..99_999]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let reply = Reply::read(&mut stream, false);
        assert!(reply.is_none_or(|r| r.status == 400));
        assert!(!emulator.object_exists(BUCKET, "k"));
    }
}

#[test]
fn rejects_unsupported_operations() {
    let emulator = emulator();
    for target in ["/?policy=", "/?notification=", "/?requestPayment="] {
        let reply = TestRequest::new("GET", target)
            .s3(&account())
            .send(emulator.cos_addr());
        refused(&reply, 501, "NotImplemented");
    }
}
