//! Appendable objects.

use std::io::Write as _;
use std::net::Shutdown;

use cosgate::emulator::{Emulator, EmulatorConfig};

use crate::client::{
    BUCKET, Reply, TestRequest, account, connect, emulator, emulator_with, policy, temporary_key,
};

const NEXT: &str = "x-cos-next-append-position";
const TYPE: &str = "x-cos-object-type";

fn append_request(position: &str, content: &str) -> TestRequest {
    TestRequest::new("POST", &format!("/log.txt?append&position={position}")).body(content)
}

fn append(emulator: &Emulator, position: &str, content: &str) -> Reply {
    let request = append_request(position, content).s3(&account());
    request.send(emulator.cos_addr())
}

fn send(emulator: &Emulator, method: &'static str, target: &str) -> Reply {
    let request = TestRequest::new(method, target).s3(&account());
    request.send(emulator.cos_addr())
}

#[test]
fn appends_at_the_end_only() {
    let emulator = emulator();
    assert_eq!(
        append(&emulator, "5", "x").refusal(),
        (409, "AppendPositionErr".into())
    );
    let first = append_request("0", "one ")
        .header("content-type", "text/plain")
        .header("x-amz-meta-of", "first")
        .s3(&account());
    let first = first.send(emulator.cos_addr());
    assert_eq!((first.status, first.header(NEXT)), (200, Some("4")));
    // SHA-1 of what was appended.
    let sha1 = Some("ad782ecdac770fc6eb9a62e44f90873fb97fb26b");
    let second = append_request("4", "two")
        .cos(&account())
        .send(emulator.cos_addr());
    assert_eq!((second.status, second.header(NEXT)), (200, Some("7")));
    assert_eq!(second.header("x-cos-content-sha1"), sha1);
    for position in ["0", "4", "8"] {
        let refused = append(&emulator, position, "x").refusal();
        assert_eq!(refused, (409, "AppendPositionErr".into()), "{position}");
    }
    let got = send(&emulator, "GET", "/log.txt");
    assert_eq!(got.text(), "one two");
    assert_eq!(got.header("content-type"), Some("text/plain"));
    assert_eq!(got.header("x-amz-meta-of"), Some("first"));
    let crc = "x-cos-hash-crc64ecma";
    assert_eq!(got.header(crc), second.header(crc));
    let head = send(&emulator, "HEAD", "/log.txt");
    assert_eq!(
        (head.header(TYPE), head.header(NEXT)),
        (Some("appendable"), Some("7"))
    );
}

#[test]
fn rejects_appends_to_other_objects() {
    let emulator = emulator();
    for (target, code) in [
        ("/k?append", "InvalidArgument"),
        ("/k?append&position=-1", "InvalidArgument"),
        ("/k?append&position=x", "InvalidArgument"),
    ] {
        let request = TestRequest::new("POST", target).body("x").s3(&account());
        let refusal = request.send(emulator.cos_addr()).refusal();
        assert_eq!(refusal, (400, code.into()), "{target}");
    }
    assert_eq!(append(&emulator, "0", "one").status, 200);
    let copy = TestRequest::new("PUT", "/copy")
        .header("x-amz-copy-source", &format!("/{BUCKET}/log.txt"))
        .s3(&account());
    assert_eq!(copy.send(emulator.cos_addr()).status, 403);
    // A put makes it a normal object.
    emulator.put_object(BUCKET, "log.txt", b"put").unwrap();
    assert_eq!(
        append(&emulator, "3", "x").refusal(),
        (409, "ObjectNotAppendable".into())
    );
    assert_eq!(send(&emulator, "HEAD", "/log.txt").header(TYPE), None);
    send(&emulator, "DELETE", "/log.txt");
    assert_eq!(append(&emulator, "0", "again").status, 200);
    assert_eq!(emulator.object_bytes(BUCKET, "log.txt").unwrap(), b"again");
    let versioned = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    emulator.configure(BUCKET, "versioning", versioned).unwrap();
    assert_eq!(append(&emulator, "5", "x").status, 409);
}

#[test]
fn verifies_what_is_appended() {
    let emulator = emulator();
    let content_md5 = append_request("0", "x").header("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==");
    let hash = append_request("0", "x").s3_at(&account(), crate::client::now(), &"0".repeat(64));
    for request in [content_md5.s3(&account()), hash] {
        assert_eq!(request.send(emulator.cos_addr()).status, 400);
    }
    let short = append_request("0", "whole").s3(&account());
    let mut stream = connect(emulator.cos_addr());
    stream.write_all(&short.head()).unwrap();
    stream.write_all(b"who").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(Reply::read(&mut stream, false).is_none_or(|reply| reply.status == 400));
    assert!(!emulator.object_exists(BUCKET, "log.txt"));
    let key = |action| {
        let policy = policy(&[action], &[&format!("{BUCKET}/*")]);
        temporary_key(&emulator, &policy)
    };
    let by = |key| append_request("0", "x").s3(&key).send(emulator.cos_addr());
    assert_eq!(
        by(key("name/cos:PutObject")).refusal(),
        (403, "AccessDenied".into())
    );
    assert_eq!(by(key("name/cos:AppendObject")).status, 200);
}

#[test]
fn restart_keeps_objects_appendable() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        emulator_with(EmulatorConfig {
            data: Some(data.path().into()),
            ..EmulatorConfig::default()
        })
    };
    assert_eq!(append(&start(), "0", "one ").status, 200);
    let second = start();
    assert_eq!(append(&second, "4", "two").status, 200);
    assert_eq!(second.object_bytes(BUCKET, "log.txt").unwrap(), b"one two");
}

#[test]
fn one_of_two_appends_at_a_position_succeeds() {
    let emulator = emulator();
    let content = "x".repeat(100_000);
    let (mut position, rounds) = (0, 5);
    for _ in 0..rounds {
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let append = || append(&emulator, &position.to_string(), &content).status;
            let appends = [(); 3].map(|()| scope.spawn(append));
            appends.map(|append| append.join().unwrap()).into()
        });
        let count = |status| statuses.iter().filter(|found| **found == status).count();
        assert_eq!((count(200), count(409)), (1, 2));
        position += content.len();
    }
    let stored = emulator.object_bytes(BUCKET, "log.txt").unwrap();
    assert_eq!(stored.len(), rounds * content.len());
}
