//! Browser forms: cosgate stores exactly the files that their policy allows.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::format_push_string,
    reason = "a test may panic, and measures real time"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::http2::{Http2, request, send_data};
use crate::support::{
    self, ACME, Authority, BUCKET, Call, Client, GLOBEX, Program, Reply, SIGNATURES, Scripted,
    World, act, element, eventually, exchange, header_of, toml,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cosgate::clock::wall_clock;
use cosgate::encoding::hex::hex;
use cosgate::payload::checksum::Checks;
use cosgate::payload::{Declared, FormFile, Intake, Mode};
use cosgate::s3::form::{Boundary, Form, FormPolicy, FormReader};
use cosgate::secret::Secret;
use cosgate::sign::form::{FormClaim, FormSignature};
use cosgate::sign::sigv2;
use cosgate::sign::sigv4::SigningKey;
use cosgate::timestamp::Timestamp;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

const BOUNDARY: &str = "----WebKitFormBoundary7MA4YWxkTrZu0gW";
const KEY_ANY: &str = r#"["starts-with", "$key", ""]"#;

/// A form as a browser posts it.
#[derive(Clone)]
struct Post {
    addr: std::net::SocketAddr,
    target: String,
    headers: Vec<(String, String)>,
    /// The conditions of the policy, except those for the signature and the bucket.
    conditions: Vec<String>,
    bucket: String,
    expires_in: i64,
    /// Seconds since it was signed.
    age: i64,
    signed_by: Option<(String, String)>,
    version_two: bool,
    fields: Vec<(String, String)>,
    filename: String,
    file: Vec<u8>,
    /// The bytes after the file.
    end: String,
}

impl Post {
    fn new(addr: std::net::SocketAddr, key: &str) -> Self {
        Self {
            addr,
            target: "/photos".into(),
            headers: Vec::new(),
            conditions: vec![KEY_ANY.into()],
            bucket: "photos".into(),
            expires_in: 300,
            age: 0,
            signed_by: Some((ACME.0.into(), ACME.1.into())),
            version_two: false,
            fields: vec![("key".into(), key.into())],
            filename: "f.txt".into(),
            file: b"what the file holds".to_vec(),
            end: format!("\r\n--{BOUNDARY}--\r\n"),
        }
    }

    fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    fn condition(mut self, json: &str) -> Self {
        self.conditions.push(json.into());
        self
    }

    /// A field and the condition that covers it.
    fn covered(self, name: &str, value: &str) -> Self {
        let condition = format!("[\"starts-with\", \"${name}\", \"\"]");
        self.field(name, value).condition(&condition)
    }

    fn file(mut self, file: impl Into<Vec<u8>>) -> Self {
        self.file = file.into();
        self
    }

    fn end(mut self, end: &str) -> Self {
        self.end = end.replace("BOUNDARY", BOUNDARY);
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn by(mut self, (id, secret): (&str, &str)) -> Self {
        self.signed_by = Some((id.into(), secret.into()));
        self
    }

    fn anonymous(mut self) -> Self {
        self.signed_by = None;
        self
    }

    fn signed_fields(&self) -> Vec<(String, String)> {
        let mut fields = self.fields.clone();
        let Some((id, secret)) = &self.signed_by else {
            return fields;
        };
        let now = wall_clock().plus(-self.age);
        let (date, credential) = (
            now.amz(),
            format!("{id}/{}/ap-guangzhou/s3/aws4_request", now.date()),
        );
        let mut conditions = self.conditions.clone();
        conditions.push(format!("{{\"bucket\": \"{}\"}}", self.bucket));
        if !self.version_two {
            conditions.push(format!(
                "{{\"x-amz-date\": \"{date}\", \"x-amz-credential\": \"{credential}\"}}"
            ));
            conditions.push("{\"x-amz-algorithm\": \"AWS4-HMAC-SHA256\"}".into());
        }
        let policy = format!(
            "{{\"expiration\": \"{}\", \"conditions\": [{}]}}",
            now.plus(self.expires_in).iso8601(),
            conditions.join(", ")
        );
        let policy = BASE64_STANDARD.encode(policy);
        let secret = Secret::new(secret.as_str());
        let mut add = |name: &str, value: String| fields.push((name.into(), value));
        if self.version_two {
            add("signature", sigv2::signature(&policy, &secret));
            add("AWSAccessKeyId", id.clone());
        } else {
            let key = SigningKey::derive(&secret, &now.date(), "ap-guangzhou", "s3");
            add("x-amz-signature", hex(&key.sign(policy.as_bytes())));
            add("x-amz-algorithm", "AWS4-HMAC-SHA256".into());
            add("x-amz-credential", credential);
            add("x-amz-date", date);
        }
        add("policy", policy);
        fields
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.front();
        body.extend_from_slice(&self.file);
        body.extend_from_slice(self.end.as_bytes());
        body
    }

    /// The bytes before the file.
    fn front(&self) -> Vec<u8> {
        let mut text = String::new();
        for (name, value) in self.signed_fields() {
            text.push_str(&format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        text.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: text/plain\r\n\r\n",
            self.filename
        ));
        text.into_bytes()
    }

    fn head(&self, length: usize) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\n", self.target);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            head.push_str(&format!("host: {}\r\n", self.addr));
        }
        if !self.headers.iter().any(|(name, _)| name == "content-type") {
            head.push_str(&format!(
                "content-type: multipart/form-data; boundary={BOUNDARY}\r\n"
            ));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {length}\r\n\r\n"));
        head.into_bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        let body = self.body();
        [self.head(body.len()), body].concat()
    }

    #[track_caller]
    fn send(&self) -> Reply {
        exchange(self.addr, "POST", &self.bytes())
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) -> Reply {
        let reply = self.send();
        reply.assert_error(status, code);
        reply
    }
}

impl Post {
    /// For clients of COS's own API too, whose errors have COS's form.
    #[track_caller]
    fn refused_in_any_words(&self, status: u16) {
        let mut client = Client::connect(self.addr);
        client.write(&self.bytes());
        let reply = client.read_reply("POST");
        assert_eq!(reply.status, status, "{}", reply.text());
    }
}

fn post(world: &World, key: &str) -> Post {
    Post::new(world.gateway.addr, key)
}

/// Asserts that COS got no request.
#[track_caller]
fn assert_untouched(world: &World) {
    let heads = world.emulator.counters().heads();
    assert!(heads.is_empty(), "COS got requests: {heads:?}");
}

#[test]
fn stores_the_file_of_a_signed_form() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let form = post(&world, "acme/in/${filename}")
            .condition(r#"["content-length-range", 1, 100]"#)
            .covered("Content-Type", "text/x-note")
            .covered("x-amz-meta-from", "a form")
            .covered("Cache-Control", "no-store")
            .covered("acl", "private")
            .field("x-ignore-button", "Upload");
        let reply = form.send();
        assert_eq!(reply.status, 204, "{}", reply.text());
        assert!(
            reply
                .header("etag")
                .is_some_and(|etag| etag.starts_with('"'))
        );
        let url = format!("http://{}/photos/acme/in/f.txt", world.gateway.addr);
        assert_eq!(reply.header("location"), Some(url.as_str()));
        assert_eq!(
            world.stored("acme/in/f.txt").as_deref(),
            Some("what the file holds")
        );

        let got = world.fetch("GET", "/photos/acme/in/f.txt");
        assert_eq!(got.assert_ok().text(), "what the file holds");
        assert_eq!(got.header("content-type"), Some("text/x-note"));
        assert_eq!(got.header("x-amz-meta-from"), Some("a form"));
        assert_eq!(got.header("cache-control"), Some("no-store"));
        world
            .gateway
            .log
            .assert_contains("\"operation\":\"PostObject\"");
        let log = world.gateway.log.text();
        let line = log
            .lines()
            .find(|line| line.contains("PostObject"))
            .unwrap();
        for shown in [
            "acme/in/f.txt",
            ACME.0,
            "\"tenant\":\"acme\"",
            "\"bucket\":\"photos\"",
        ] {
            assert!(line.contains(shown), "{shown} is not in {line}");
        }
    }
}

#[test]
fn stores_files_of_every_size_and_keeps_the_connection() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let mut client = Client::connect(world.gateway.addr);
        for length in [
            0,
            1,
            100,
            60_000,
            64 << 10,
            (64 << 10) + 1,
            200_000,
            3 << 20,
        ] {
            let file: Vec<u8> = (0..length).map(|i: u32| (i * 31 % 251) as u8).collect();
            let form = post(&world, "acme/sized").file(file.clone());
            client.write(&form.bytes());
            let reply = client.read_reply("POST");
            assert_eq!(reply.status, 204, "{length}: {}", reply.text());
            let stored = world.emulator.object_bytes(BUCKET, "acme/sized").unwrap();
            assert!(stored == file, "{length} bytes changed on their way");
        }
    }
}

#[test]
fn reads_a_form_in_pieces() {
    let world = World::new();
    for cut in [1, 7, 300] {
        let form = post(&world, "acme/pieces").file("abc\r\n--def\r\n------WebKit");
        let mut client = Client::connect(world.gateway.addr);
        for piece in form.bytes().chunks(cut) {
            client.write(piece);
        }
        let reply = client.read_reply("POST");
        assert_eq!(reply.status, 204, "{}", reply.text());
        let stored = world.stored("acme/pieces").unwrap();
        assert_eq!(stored, "abc\r\n--def\r\n------WebKit");
    }
}

#[test]
fn success_response_follows_the_form_fields() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let key = "acme/a b&中.txt";
        let form = post(&world, key);
        let status = |status| form.clone().covered("success_action_status", status).send();
        assert_eq!(
            (status("200").status, status("200").text().as_str()),
            (200, "")
        );
        assert_eq!(status("204").status, 204);
        assert_eq!(status("500").status, 204);
        let document = status("201");
        assert_eq!(document.status, 201);
        assert_eq!(document.header("content-type"), Some("application/xml"));
        let text = document.text();
        assert_eq!(element(&text, "Bucket"), "photos");
        assert_eq!(element(&text, "Key"), "acme/a b&amp;中.txt");
        assert_eq!(
            Some(element(&text, "ETag").replace("&quot;", "\"").as_str()),
            document.header("etag")
        );
        let location = format!(
            "http://{}/photos/acme/a%20b%26%E4%B8%AD.txt",
            world.gateway.addr
        );
        assert_eq!(element(&text, "Location"), location);
        assert_eq!(document.header("location"), Some(location.as_str()));

        for name in ["success_action_redirect", "redirect"] {
            let form = form.clone().covered("success_action_status", "201");
            let reply = form
                .covered(name, "https://app.example/done?x=1#top")
                .send();
            assert_eq!(reply.status, 303);
            let to = reply.header("location").unwrap();
            let front = "https://app.example/done?x=1&bucket=photos&key=acme%2Fa%20b%26%E4%B8%AD.txt&etag=%22";
            assert!(to.starts_with(front) && to.ends_with("%22#top"), "{to}");
        }
        let mut hosted = form.clone().header("host", "photos.s3.localhost");
        hosted.target = "/".into();
        let reply = hosted.send();
        let url = "http://photos.s3.localhost/acme/a%20b%26%E4%B8%AD.txt";
        assert_eq!((reply.status, reply.header("location")), (204, Some(url)));
        assert_eq!(world.stored(key).as_deref(), Some("what the file holds"));
    }
}

#[test]
fn enforces_every_condition() {
    let world = World::new();
    let form = post(&world, "acme/x");
    let strict = |conditions: &[&str]| {
        let mut form = form.clone();
        form.conditions = conditions.iter().map(|json| (*json).to_owned()).collect();
        form
    };
    let failed = "Invalid according to Policy: Policy Condition failed";
    for conditions in [
        &[r#"{"key": "acme/y"}"#][..],
        &[r#"["eq", "$key", "acme/X"]"#],
        &[r#"["starts-with", "$key", "acme/in/"]"#],
        &[KEY_ANY, r#"["starts-with", "$Content-Type", ""]"#],
        &[KEY_ANY, r#"{"success_action_status": "201"}"#],
    ] {
        let reply = strict(conditions).refused(403, "AccessDenied");
        assert!(reply.text().contains(failed), "{}", reply.text());
    }
    let typed = strict(&[KEY_ANY, r#"["starts-with", "$Content-Type", "image/"]"#]);
    typed
        .clone()
        .field("Content-Type", "text/html")
        .refused(403, "AccessDenied");
    typed
        .field("Content-Type", "image/a,text/b")
        .refused(403, "AccessDenied");
    let redirect = strict(&[
        KEY_ANY,
        r#"{"success_action_redirect": "https://a.example/"}"#,
    ]);
    redirect
        .field("success_action_redirect", "https://b.example/")
        .refused(403, "AccessDenied");
    for extra in ["acl", "x-amz-meta-a", "success_action_status", "odd"] {
        let reply = form
            .clone()
            .field(extra, "private")
            .refused(403, "AccessDenied");
        let shown = format!("Invalid according to Policy: Extra input fields: {extra}");
        assert!(reply.text().contains(&shown), "{}", reply.text());
    }
    let length = strict(&[KEY_ANY, r#"["content-length-range", 5, 10]"#]);
    length.clone().file("1234").refused(400, "EntityTooSmall");
    length
        .clone()
        .file("12345678901")
        .refused(400, "EntityTooLarge");
    length
        .clone()
        .file(vec![7; 1 << 20])
        .refused(400, "EntityTooLarge");
    let mut other = form.clone();
    other.bucket = "inbox".into();
    other.refused(403, "AccessDenied");
    let mut old = form.clone();
    old.expires_in = -1;
    let reply = old.refused(403, "AccessDenied");
    assert!(
        reply
            .text()
            .contains("Invalid according to Policy: Policy expired.")
    );
    let mut long = form.clone();
    long.expires_in = 30 * 24 * 3600;
    long.age = 8 * 24 * 3600;
    let reply = long.refused(403, "AccessDenied");
    assert!(reply.text().contains("valid for at most 604800 seconds"));
    assert_untouched(&world);
    long.age = 6 * 24 * 3600;
    assert_eq!(long.send().status, 204, "its key is a day of the last week");
    assert_eq!(length.file("1234567890").send().status, 204);
}

#[test]
fn accepts_only_a_correct_signature() {
    let world = World::new();
    let form = post(&world, "acme/x");
    form.clone()
        .by((ACME.0, GLOBEX.1))
        .refused(403, "SignatureDoesNotMatch");
    form.clone()
        .by(("NOBODY", ACME.1))
        .refused(403, "InvalidAccessKeyId");
    let spoil = |from: &str, to: &str| {
        let text = String::from_utf8(form.bytes()).unwrap();
        assert!(text.contains(from), "{from}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let body = body.replacen(from, to, 1);
        let length = format!("content-length: {}", body.len());
        let head: Vec<_> = head
            .lines()
            .map(|line| {
                if line.starts_with("content-length") {
                    &length
                } else {
                    line
                }
            })
            .collect();
        exchange(
            form.addr,
            "POST",
            format!("{}\r\n\r\n{body}", head.join("\r\n")).as_bytes(),
        )
    };
    spoil("AWS4-HMAC-SHA256\r\n", "AWS4-HMAC-SHA1\r\n").assert_error(400, "InvalidArgument");
    spoil("/ap-guangzhou/", "/us-east-1/").assert_error(403, "SignatureDoesNotMatch");
    spoil("/s3/aws4_request", "/sts/aws4_request").assert_error(400, "InvalidArgument");
    for name in [
        "x-amz-signature",
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "policy",
        "key",
    ] {
        let reply = spoil(&format!("name=\"{name}\""), "name=\"x-ignore-it\"");
        assert!(
            matches!(reply.code().as_str(), "InvalidArgument" | "AccessDenied"),
            "{name}: {}",
            reply.text()
        );
        assert!(reply.status >= 400);
    }
    form.clone()
        .covered("x-amz-security-token", "t")
        .refused(400, "InvalidToken");
    form.clone()
        .header("authorization", "AWS4-HMAC-SHA256 x")
        .refused(400, "InvalidArgument");
    let mut presigned = form.clone();
    presigned.target = "/photos?X-Amz-Signature=a".into();
    presigned.refused(400, "InvalidArgument");
    assert_untouched(&world);

    let strict =
        World::edited(|toml| toml.replacen("[server]", "[server]\nstrict_region = true", 1));
    assert_eq!(post(&strict, "acme/x").send().status, 204);
    let strict = World::edited(|toml| {
        let toml = toml.replacen("[server]", "[server]\nstrict_region = true", 1);
        toml.replacen("region = \"ap-guangzhou\"", "region = \"ap-beijing\"", 1)
    });
    post(&strict, "acme/x").refused(400, "InvalidArgument");
}

#[test]
fn accepts_signature_version_2_only_if_allowed() {
    let world = World::new();
    let mut form = post(&world, "acme/x");
    form.version_two = true;
    let reply = form.refused(400, "InvalidRequest");
    assert!(reply.text().contains("allow_sigv2_presign"));
    assert_untouched(&world);

    let world =
        World::edited(|toml| toml.replacen("[server]", "[server]\nallow_sigv2_presign = true", 1));
    let mut form = post(&world, "acme/x");
    form.version_two = true;
    assert_eq!(form.send().status, 204);
    form.clone()
        .by((ACME.0, GLOBEX.1))
        .refused(403, "SignatureDoesNotMatch");
    form.clone()
        .covered("x-amz-signature", "0")
        .refused(400, "InvalidArgument");
    form.clone()
        .field("acl", "private")
        .refused(403, "AccessDenied");
    form.expires_in = 8 * 24 * 3600;
    form.refused(403, "AccessDenied");
}

#[test]
fn keeps_forms_within_the_prefix() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let form = |key: &str| post(&world, key);
        for key in ["globex/x", "x", "acme", "ACME/x", "public/x"] {
            form(key).refused(403, "AccessDenied");
        }
        for key in [
            "acme/../globex/x",
            "/acme/x",
            "acme/./x",
            "acme/%2e%2e/globex/x",
            "acme/\u{0}x",
            "",
        ] {
            let reply = form(key).send();
            assert!(reply.status >= 400, "{key}: {}", reply.status);
        }
        let mut named = form("acme/${filename}");
        for filename in ["..", "../../globex/x", "..\\globex\\.."] {
            named.filename = filename.into();
            let reply = named.send();
            // The path in a file's name is removed.
            assert!(
                reply.status >= 400 || filename.ends_with("/x"),
                "{filename}: {}",
                reply.status
            );
            assert!(world.stored("globex/x").is_none());
        }
        form("globex/x").by(GLOBEX).send().assert_ok();
        let mut inbox = form("acme/x");
        inbox.bucket = "inbox".into();
        inbox.target = "/inbox".into();
        inbox.refused(403, "AccessDenied");
        let mut real = form("acme/x");
        real.bucket = BUCKET.into();
        real.target = format!("/{BUCKET}");
        let bytes = real.bytes();
        let mut client = Client::connect(real.addr);
        client.write(&bytes);
        client.read_reply("POST").assert_error(403, "AccessDenied");
    }
}

#[test]
fn form_fields_need_the_permission_of_their_headers() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let form = post(&world, "acme/x");
        for (name, value, code) in [
            ("acl", "public-read", "AccessDenied"),
            ("x-amz-acl", "public-read", "AccessDenied"),
            ("x-amz-storage-class", "GLACIER", "AccessDenied"),
            ("x-amz-server-side-encryption", "AES256", "AccessDenied"),
            ("x-amz-website-redirect-location", "/", "AccessDenied"),
            ("x-cos-acl", "public-read", "InvalidArgument"),
            ("pic-operations", "{}", "InvalidArgument"),
            ("x-amz-copy-source", "photos/globex/x", "InvalidArgument"),
            ("x-amz-meta-my_name", "v", "InvalidArgument"),
            ("x-amz-new-thing", "v", "InvalidArgument"),
            ("x-amz-decoded-content-length", "1", "InvalidArgument"),
            ("Content-Encoding", "aws-chunked", "InvalidArgument"),
        ] {
            let reply = form.clone().covered(name, value).send();
            assert_eq!(reply.code(), code, "{name}: {}", reply.text());
        }
        for (name, value) in [
            ("if-none-match", "*"),
            ("content-encoding", "gzip"),
            ("x-amz-acl", "private"),
            ("x-amz-meta-a", "b"),
            ("x-amz-checksum-crc32", "AAAAAA=="),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
        ] {
            let headed = form.clone().header(name, value);
            headed.refused(400, "InvalidArgument");
        }
        assert_untouched(&world);
        let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
        let tagged = form.clone().covered("tagging", tags).send();
        assert_eq!(tagged.status, 204, "{}", tagged.text());
        let read = world.fetch("GET", "/photos/acme/x?tagging");
        assert_eq!(element(&read.text(), "Value"), "b");
    }
}

#[test]
fn verifies_and_returns_checksums_in_fields() {
    let world = World::new();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, b"what the file holds");
    let crc = BASE64_STANDARD.encode(u32::try_from(crc).unwrap().to_be_bytes());
    for size in [0, 1 << 20] {
        let form = |value: &str| {
            let file = [&b"what the file holds"[..], &vec![0; size]].concat();
            post(&world, "acme/summed")
                .file(file)
                .covered("x-amz-checksum-crc32", value)
        };
        form("AAAAAA==").refused(400, "BadDigest");
        form("no sum").refused(400, "InvalidRequest");
        let md5 = post(&world, "acme/summed").file(vec![1; size + 1]);
        md5.covered("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==")
            .refused(400, "BadDigest");
    }
    let form = post(&world, "acme/summed").covered("x-amz-checksum-crc32", &crc);
    let reply = form
        .clone()
        .covered("x-amz-checksum-algorithm", "CRC32")
        .send();
    assert_eq!(
        (reply.status, reply.header("x-amz-checksum-crc32")),
        (204, Some(crc.as_str()))
    );
    form.covered("x-amz-checksum-algorithm", "SHA1")
        .refused(400, "InvalidRequest");
    let unsummed = post(&world, "acme/x").covered("x-amz-checksum-algorithm", "CRC32");
    unsummed.refused(400, "InvalidRequest");
    assert!(world.stored("acme/x").is_none());
}

#[test]
fn rejects_malformed_forms() {
    let world = World::new();
    let form = post(&world, "acme/x");
    form.clone()
        .covered("Key", "acme/y")
        .refused(400, "InvalidArgument");
    form.clone()
        .covered("x-amz-meta-a", "1")
        .field("X-Amz-Meta-A", "2")
        .refused(400, "InvalidArgument");
    form.clone()
        .covered("x-amz-meta-a", &"v".repeat(20 * 1024))
        .refused(400, "MaxPostPreDataLengthExceededError");
    for content_type in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
    ] {
        form.clone()
            .header("content-type", content_type)
            .refused(400, "MalformedPOSTRequest");
    }
    form.clone()
        .header("content-type", "text/plain")
        .refused(412, "PreconditionFailed");
    let mut acl = form.clone();
    acl.target = "/photos?acl".into();
    acl.refused(501, "NotImplemented");
    // No file: one form ends after its fields, and one is cut there.
    let front = String::from_utf8(form.front()).unwrap();
    let fields = &front[..front.rfind("\r\n--").unwrap()];
    for none in [format!("{fields}\r\n--{BOUNDARY}--\r\n"), fields.to_owned()] {
        let bytes = [form.head(none.len()), none.into_bytes()].concat();
        exchange(form.addr, "POST", &bytes)
            .assert_error(400, "IncorrectNumberOfFilesInPostRequest");
    }
    // No content length.
    let head = String::from_utf8(form.head(0)).unwrap();
    for framing in ["", "transfer-encoding: chunked\r\n"] {
        let head = head.replace("content-length: 0\r\n", framing);
        exchange(form.addr, "POST", head.as_bytes()).assert_error(411, "MissingContentLength");
    }
    let huge = form.head(6 << 30);
    exchange(form.addr, "POST", &huge).assert_error(400, "EntityTooLarge");
    assert_untouched(&world);
}

/// Forms that do not end right after their file, with the error of each.
const WRONG_ENDS: [&str; 8] = [
    "\r\n--BOUNDARY\r\nContent-Disposition: form-data; name=\"submit\"\r\n\r\nUpload\r\n--BOUNDARY--\r\n",
    "\r\n--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"g\"\r\n\r\nanother\r\n--BOUNDARY--\r\n",
    "\r\n--BOUNDARY--\r\nepilogue",
    "\r\n--BOUNDARY--\r\n\r\n",
    "\r\n--BOUNDARY--\r\n\r\n--BOUNDARY--\r\n",
    "\r\n--BOUNDARY\r\n",
    "\r\n--BOUNDARX--\r\n",
    "",
];

#[test]
fn rejects_data_after_the_file() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for size in [0, 100, 100_000, 3 << 20] {
            for end in WRONG_ENDS {
                let form = post(&world, "acme/x").file(vec![b'x'; size]).end(end);
                let reply = form.refused(400, "MalformedPOSTRequest");
                assert!(
                    reply.text().contains("Nothing was stored"),
                    "{}",
                    reply.text()
                );
                assert!(world.stored("acme/x").is_none(), "{size} {end:?}");
            }
            let inside = post(&world, "acme/x").file(
                [
                    vec![b'x'; size],
                    format!("\r\n--{BOUNDARY}--\r\n").into_bytes(),
                    vec![b'y'; size],
                ]
                .concat(),
            );
            inside.refused(400, "MalformedPOSTRequest");
            assert!(world.stored("acme/x").is_none(), "{size}");
            // The text of the boundary is data unless it begins a line.
            let mut file = vec![b'x'; size];
            file.extend_from_slice(format!("x--{BOUNDARY}--\r\n\n--{BOUNDARY}").as_bytes());
            let data = post(&world, "acme/data").file(file.clone());
            assert_eq!(data.send().status, 204);
            assert!(world.emulator.object_bytes(BUCKET, "acme/data").unwrap() == file);
        }
        assert!(world.gateway.metric("cosgate_bodies_withheld_total", "") > 0);
    }
}

#[test]
fn accepts_a_form_without_its_last_line_end() {
    let world = World::new();
    let bare = "\r\n--BOUNDARY--";
    let small = post(&world, "acme/small").file("a small file").end(bare);
    assert_eq!(small.send().status, 204);
    assert_eq!(world.stored("acme/small").as_deref(), Some("a small file"));
    let large = post(&world, "acme/large").file(vec![1; 100_000]).end(bare);
    let reply = large.refused(400, "MalformedPOSTRequest");
    assert!(reply.text().contains("a line end"), "{}", reply.text());
    assert!(world.stored("acme/large").is_none());
    // `fetch` of Node.js 22 and older, which large files come from too.
    let bytes = large.bytes();
    let of_node = format!("{:0<1$}", "----formdata-undici-0", BOUNDARY.len());
    let mut client = Client::connect(large.addr);
    client.write(&replaced(&bytes, BOUNDARY.as_bytes(), of_node.as_bytes()));
    assert_eq!(client.read_reply("POST").status, 204);
    // What is too long by its policy is refused before it is held: the rest of it never comes.
    let limited = large.condition("[\"content-length-range\", 0, 90000]");
    let bytes = replaced(&limited.bytes(), BOUNDARY.as_bytes(), of_node.as_bytes());
    let mut client = Client::connect(limited.addr);
    client.write(&bytes[..bytes.len() - 50_000]);
    let reply = client.read_reply("POST");
    reply.assert_error(400, "EntityTooLarge");
    assert_eq!(
        world.emulator.object_bytes(BUCKET, "acme/large").unwrap(),
        vec![1; 100_000]
    );
}

/// `bytes` with each `old` made `new`, which is as long.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..=bytes.len() - old.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
    }
    bytes
}

#[test]
fn stores_nothing_of_an_aborted_form() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for size in [1000, 1 << 20] {
            let form = post(&world, "acme/x").file(vec![b'x'; size]);
            let bytes = form.bytes();
            for sent in [
                bytes.len() - 1,
                bytes.len() - size / 2,
                bytes.len() - form.body().len() + 10,
            ] {
                let mut client = Client::connect(form.addr);
                client.write(&bytes[..sent]);
                client.wait_until_read();
                drop(client);
            }
        }
        let log = &world.gateway.log;
        eventually("a line for each", || log.text().lines().count() == 6);
        assert_eq!(log.text().matches("IncompleteBody").count(), 6);
        assert!(world.stored("acme/x").is_none());
    }
}

#[test]
fn times_out_a_slow_form() {
    let limits = "[server.limits]\nbody_rate = \"1KiB\"\nbody_window = \"300ms\"";
    let world = World::with(limits);
    let form = post(&world, "acme/x").file(vec![b'x'; 1000]);
    let bytes = form.bytes();
    for sent in [bytes.len() - form.body().len() + 10, bytes.len() - 100] {
        let mut client = Client::connect(form.addr);
        client.write(&bytes[..sent]);
        client
            .read_reply("POST")
            .assert_error(400, "RequestTimeout");
    }
    assert_untouched(&world);
}

#[test]
fn withholds_the_end_of_an_invalid_form() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&received);
    let world = Scripted::new(vec![act(move |peer| {
        let Some(head) = peer.head() else { return };
        let announced: usize = header_of(&head, "content-length").unwrap().parse().unwrap();
        let got = peer.body(announced);
        seen.lock().unwrap().push((announced, got));
    })]);
    for end in WRONG_ENDS {
        let form = Post::new(world.gateway.addr, "acme/x").file(vec![7; 1 << 20]);
        form.end(end).refused(400, "MalformedPOSTRequest");
    }
    eventually("COS sees the ends", || {
        received.lock().unwrap().len() == WRONG_ENDS.len()
    });
    for (announced, got) in received.lock().unwrap().iter() {
        assert!(got < announced, "{got} of {announced}");
    }
    let head = &world.script.heads()[0];
    assert!(head.starts_with("PUT /acme/x HTTP/1.1\r\n"), "{head}");
    for name in [
        "policy",
        "x-amz-algorithm",
        "x-amz-credential",
        "content-disposition",
        "multipart",
    ] {
        assert!(
            !head.to_ascii_lowercase().contains(name),
            "{name} in {head}"
        );
    }
}

#[test]
fn create_only_form_does_not_overwrite() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let form = post(&world, "acme/once").covered("if-none-match", "*");
        assert_eq!(form.send().status, 204, "{signature}");
        world.put("/photos/acme/once", "kept");
        form.refused(412, "PreconditionFailed");
        assert_eq!(world.stored("acme/once").as_deref(), Some("kept"));
        for (name, value) in [
            ("if-none-match", "\"e\""),
            ("if-match", "\"e\""),
            ("if-unmodified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("x-amz-if-match-size", "1"),
        ] {
            let form = post(&world, "acme/other").covered(name, value);
            form.refused(501, "NotImplemented");
        }
        assert_eq!(world.stored("acme/other"), None);
    }
}

#[test]
fn reports_failures_of_cos() {
    for (status, expected) in [(302, 502), (304, 502), (412, 412), (503, 503)] {
        let response = format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n");
        let world = Scripted::new(vec![act(move |peer| {
            let Some(head) = peer.head() else { return };
            assert!(head.starts_with("HEAD "), "{head}");
            peer.respond("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            let Some(head) = peer.head() else { return };
            peer.body(header_of(&head, "content-length").unwrap().parse().unwrap());
            peer.respond(&response);
        })]);
        let form = Post::new(world.gateway.addr, "acme/x").covered("if-none-match", "*");
        assert_eq!(form.send().status, expected, "COS responds {status}");
    }
}

#[test]
fn unsigned_form_belongs_to_the_anonymous_tenant() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let form = |key: &str| post(&world, key).anonymous();
        assert_eq!(form("public/x").send().status, 204);
        assert_eq!(
            world.stored("public/x").as_deref(),
            Some("what the file holds")
        );
        form("acme/x").refused(403, "AccessDenied");
        form("public/x")
            .field("odd", "1")
            .refused(400, "InvalidArgument");
        assert_eq!(
            form("public/x").field("x-ignore-odd", "1").send().status,
            204
        );
        // A web page must not make a browser send it.
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("referer", "https://evil.example/"),
            ("host", "evil.example"),
        ] {
            let mut form = form("public/x").header(name, value);
            form.target = "/photos".into();
            form.refused(403, "AccessDenied");
        }
        form("public/x")
            .field("policy", "e30=")
            .refused(400, "InvalidArgument");
    }
    let world = World::edited(|toml| {
        toml.replace("anonymous = true", "access_keys = [{ id = \"ANYONEKEY00000000001\", secret = \"some-secret-00000000000000000000000000\" }]")
    });
    post(&world, "public/x")
        .anonymous()
        .refused(403, "AccessDenied");
    // A signed form may come from any page.
    let signed = post(&world, "acme/x").header("origin", "https://app.example");
    assert_eq!(signed.send().status, 204);
}

#[test]
fn form_respects_addresses_and_limits() {
    let elsewhere = World::edited(|toml| {
        let acme = "[tenants.acme]\nallowed_ips = [\"10.0.0.0/8\"]";
        let toml = toml.replacen("[tenants.acme]", acme, 1);
        toml.replacen(
            "threads = 1",
            "threads = 1\ntrusted_proxies = [\"127.0.0.1\"]",
            1,
        )
    });
    post(&elsewhere, "acme/x").refused(403, "AccessDenied");
    assert_untouched(&elsewhere);
    let form = post(&elsewhere, "acme/x").header("x-forwarded-for", "10.1.1.1");
    assert_eq!(form.send().status, 204);
    let world = World::with("[tenants.acme.limits]\nrequests_per_second = 1\nburst = 1");
    assert_eq!(post(&world, "acme/x").send().status, 204);
    post(&world, "acme/x").refused(503, "SlowDown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_memory_of_unauthenticated_fields_by_address() {
    let authority = Authority::new("ours");
    let more = authority.tls("");
    let world = World::edited(|toml| {
        let server = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";
        toml.replacen("[server]\n", server, 1) + &more
    });
    let posted = |post: &Post, from: &str| {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let call = Call::new(post.addr, "POST", &post.target);
        let call = call.header("content-type", &kind);
        call.header("x-forwarded-for", from).body(post.body())
    };
    let form = post(&world, "acme/x").field("x-ignore-a", &"x".repeat(20_000));
    let call = posted(&form, "192.0.2.1");
    let mut clients = Vec::new();
    let mut waiting = Vec::new();
    for n in 0..180 {
        if n % 60 == 0 {
            clients.push(Http2::connect(&authority, world.gateway.addr).await);
        }
        let client: &Http2 = clients.last().unwrap();
        let (response, mut stream) = client.start(request(&call)).await;
        let _ = send_data(&mut stream, &call.body[..20_000], false).await; // the server may refuse it
        waiting.push((response, stream));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut held = 0;
    for (response, _stream) in waiting {
        match tokio::time::timeout(Duration::from_millis(20), response).await {
            Ok(response) => assert_eq!(response.unwrap().status(), 503),
            Err(_) => held += 1,
        }
    }
    // 2 MiB, minus the cost of a stream and twice the fields: as they arrived, and as parsed.
    assert!((10..=43).contains(&held), "{held}");
    let honest = Http2::connect(&authority, world.gateway.addr).await;
    let form = posted(&post(&world, "acme/y"), "192.0.2.2");
    assert_eq!(honest.send(&form).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepts_a_form_over_http2() {
    let authority = Authority::new("ours");
    let world = authority.serve("");
    let client = Http2::connect(&authority, world.gateway.addr).await;
    let sent = |post: &Post| {
        Call::new(post.addr, "POST", &post.target)
            .header(
                "content-type",
                &format!("multipart/form-data; boundary={BOUNDARY}"),
            )
            .body(post.body())
    };
    for length in [0, 100, 300_000] {
        let file = vec![b'f'; length];
        let form = post(&world, "acme/two").file(file.clone());
        let reply = client.send(&sent(&form)).await;
        assert_eq!(reply.status, 204, "{}", reply.text());
        let stored = world.emulator.object_bytes(BUCKET, "acme/two").unwrap();
        assert!(stored == file, "{length} bytes changed on their way");
    }
    let outside = client.send(&sent(&post(&world, "globex/two"))).await;
    outside.assert_error(403, "AccessDenied");
    let wrong = post(&world, "acme/two").by((ACME.0, "wrong"));
    let wrong = client.send(&sent(&wrong)).await;
    wrong.assert_error(403, "SignatureDoesNotMatch");
    world.gateway.log.assert_contains("\"identity\":\"form\"");
}

#[test]
fn rejects_a_form_with_another_signature() {
    let world = World::new();
    for (name, value) in [
        ("authorization", "q-sign-algorithm=sha1&q-ak=x"),
        ("authorization", "Bearer x"),
    ] {
        let form = post(&world, "acme/x").header(name, value);
        form.refused_in_any_words(400);
    }
    for query in ["q-signature=x", "X-Amz-Signature=x"] {
        let mut form = post(&world, "acme/x");
        form.target = format!("/photos?{query}");
        form.refused_in_any_words(400);
    }
    assert_untouched(&world);
}

#[test]
fn large_file_needs_little_memory() {
    let emulator = support::emulator();
    let program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let form = Post::new(program.addr, "acme/large");
    assert_eq!(form.send().status, 204);
    let before = program.memory("VmHWM");
    let file = vec![7; 64 << 20];
    let form = form.file(file);
    assert_eq!(form.send().status, 204);
    let took = program.memory("VmHWM") - before;
    assert!(took < 8 * 1024, "{took} KiB");
    eventually("it is there", || {
        emulator.object_exists(BUCKET, "acme/large")
    });
    assert_eq!(
        emulator
            .object_bytes(BUCKET, "acme/large")
            .map(|bytes| bytes.len()),
        Some(64 << 20)
    );
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/post-policy.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let pairs = value.as_array().unwrap().iter();
    pairs
        .map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned()))
        .collect()
}

/// The parsed form with these fields.
fn form_of(fields: &[(String, String)]) -> Form {
    let mut body = String::new();
    for (name, value) in fields {
        body +=
            &format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    body += "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    let mut headers = HeaderMap::new();
    headers.insert(
        "content-type",
        HeaderValue::from_static("multipart/form-data; boundary=b"),
    );
    let mut reader = FormReader::new(&Boundary::read(&headers).unwrap());
    reader.push(&mut Bytes::from(body)).unwrap().unwrap()
}

#[test]
fn verifies_forms_that_sdks_signed() {
    let now = Timestamp::parse_amz("20260115T123045Z").unwrap();
    let (file, older) = (vectors(), include_str!("../vectors/sigv4.json"));
    let older: Value = serde_json::from_str(older).unwrap();
    let mut seen = 0;
    for case in file["cases"]
        .as_array()
        .unwrap()
        .iter()
        .chain(older["post_policy_cases"].as_array().unwrap())
    {
        let name = text(&case["name"]);
        let fields = match &case["fields"] {
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.clone(), text(value).to_owned()))
                .collect(),
            list => pairs(list),
        };
        let form = form_of(&fields);
        let claim = FormClaim::read(&form).unwrap().unwrap();
        let secret = Secret::new(text(&case["secret_key"]));
        let region = text(&case["region"]);
        let derive = |secret: &Secret| {
            let secret = secret.clone();
            move |scope: &cosgate::sign::sigv4::CredentialScope<'_>| {
                assert_eq!(scope.region, region);
                SigningKey::derive(&secret, scope.date, scope.region, scope.service)
            }
        };
        assert_eq!(claim.access_key, text(&case["access_key"]), "{name}");
        assert_eq!(
            matches!(claim.signature, FormSignature::Two(_)),
            case["version"] == 2,
            "{name}"
        );
        assert!(claim.verify(&secret, derive(&secret)), "{name}");
        let other = Secret::new("another");
        assert!(!claim.verify(&other, derive(&other)), "{name}");
        assert_eq!(
            BASE64_STANDARD.decode(claim.policy).unwrap(),
            text(&case["policy"]).as_bytes()
        );
        let policy = FormPolicy::parse(claim.policy).unwrap();
        policy
            .check(&form, "examplebucket", claim.unlisted(), now)
            .unwrap();
        assert!(
            policy.check(&form, "other", claim.unlisted(), now).is_err(),
            "{name}"
        );
        assert!(
            policy
                .check(&form, "examplebucket", claim.unlisted(), now.plus(3600))
                .is_err(),
            "{name}"
        );
        seen += 1;
    }
    assert_eq!(seen, 9);
}

/// Every split of a client's body gives the same fields and the same file.
#[test]
fn reads_client_forms_at_every_split() {
    let file = vectors();
    let bodies = file["bodies"].as_array().unwrap();
    assert_eq!(bodies.len(), 5);
    for case in bodies {
        let name = text(&case["name"]);
        let body = BASE64_STANDARD.decode(text(&case["body_base64"])).unwrap();
        let expected = BASE64_STANDARD.decode(text(&case["file_base64"])).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            HeaderValue::from_str(text(&case["content_type"])).unwrap(),
        );
        let boundary = Boundary::read(&headers).unwrap();
        for at in 1..body.len() {
            let mut reader = FormReader::new(&boundary);
            let mut pieces = [&body[..at], &body[at..]]
                .into_iter()
                .map(Bytes::copy_from_slice);
            let mut input = Bytes::new();
            let form = loop {
                match reader.push(&mut input).unwrap() {
                    Some(form) => break form,
                    None => input = pieces.next().unwrap(),
                }
            };
            let fields: Vec<_> = form
                .fields()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect();
            assert_eq!(fields, pairs(&case["fields"]), "{name}");
            let rest = body.len() as u64 - form.file_at();
            let end = FormFile::new(boundary.as_str(), rest, None).unwrap();
            assert_eq!(end.length(), expected.len() as u64, "{name}");
            let none = HeaderMap::new();
            let checks =
                Checks::new(&Declared::read(Mode::Unsigned, &none).unwrap(), &none).unwrap();
            let mut intake = Intake::of_form(end, checks);
            let mut got = Vec::new();
            for mut input in std::iter::once(input).chain(pieces) {
                while let Some(bytes) = intake.push(&mut input).unwrap() {
                    got.extend_from_slice(&bytes);
                }
            }
            got.extend_from_slice(&intake.finish().unwrap().0);
            assert_eq!(got, expected, "{name} split at {at}");
        }
    }
}
