//! Operations that a key with the right policy can do, with both signatures.

use std::io::{Read as _, Write as _};

use crate::client::{
    BUCKET, Credential, OTHER, REGION, TestRequest, account, connect, emulator, now, policy,
    temporary_key,
};

/// Signs in one of the two ways.
type Sign = fn(TestRequest, &Credential) -> TestRequest;

const BOTH: [Sign; 2] = [TestRequest::s3, TestRequest::cos];

fn tenant(emulator: &cosgate::emulator::Emulator) -> Credential {
    temporary_key(
        emulator,
        &policy(&["name/cos:*"], &[&format!("{BUCKET}/t1/*")]),
    )
}

#[test]
fn stores_and_returns_an_object_with_both_signatures() {
    let emulator = emulator();
    let key = tenant(&emulator);
    for (sign, prefix) in BOTH.into_iter().zip(["x-amz", "x-cos"]) {
        let put = TestRequest::new("PUT", "/t1/a%20b%2B%E4%B8%AD%27()%2A~")
            .header("content-type", "text/plain")
            .header(&format!("{prefix}-meta-colour"), "blue")
            .body("hello world");
        let put = sign(put, &key).send(emulator.cos_addr());
        assert_eq!(put.status, 200, "{}", put.text());
        assert_eq!(
            put.header("etag"),
            Some("\"5eb63bbbe01eeed093cb22bb8f5acdc3\"")
        );
        assert_eq!(
            put.header("x-cos-hash-crc64ecma"),
            Some("5981764153023615706")
        );
        assert!(put.header("x-cos-request-id").is_some());
        assert_eq!(put.header("server"), Some("tencent-cos"));
        assert_eq!(
            emulator.object_bytes(BUCKET, "t1/a b+中'()*~").unwrap(),
            b"hello world"
        );

        let target = "/t1/a%20b%2B%E4%B8%AD%27()%2A~";
        let get = sign(TestRequest::new("GET", target), &key).send(emulator.cos_addr());
        assert_eq!((get.status, get.text().as_str()), (200, "hello world"));
        assert_eq!(get.header(&format!("{prefix}-meta-colour")), Some("blue"));
        assert_eq!(get.header("content-type"), Some("text/plain"));

        let part = TestRequest::new("GET", target).header("range", "bytes=6-");
        let part = sign(part, &key).send(emulator.cos_addr());
        assert_eq!((part.status, part.text().as_str()), (206, "world"));
        assert_eq!(part.header("content-range"), Some("bytes 6-10/11"));

        let head = sign(TestRequest::new("HEAD", target), &key).send(emulator.cos_addr());
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("11"))
        );

        let overridden = TestRequest::new(
            "GET",
            "/t1/a%20b%2B%E4%B8%AD%27()%2A~?response-content-type=text%2Fcss",
        );
        let overridden = sign(overridden, &key).send(emulator.cos_addr());
        assert_eq!(
            overridden.header("content-type"),
            Some("text/css"),
            "{}",
            overridden.text()
        );

        let delete = sign(TestRequest::new("DELETE", target), &key).send(emulator.cos_addr());
        assert_eq!(delete.status, 204);
        assert!(!emulator.object_exists(BUCKET, "t1/a b+中'()*~"));
    }
}

/// Some SDKs read header names as they arrive, and one adds a header after signing.
#[test]
fn accepts_what_sdks_of_cos_send() {
    let emulator = emulator();
    let put = TestRequest::new("PUT", "/t1/a")
        .body("x")
        .cos(&tenant(&emulator));
    let put = put.header("x-cos-sdk-log-debug", "off");
    let mut stream = connect(emulator.cos_addr());
    stream.write_all(&[put.head(), put.body].concat()).unwrap();
    let mut shown = String::new();
    stream.read_to_string(&mut shown).unwrap();
    assert!(shown.starts_with("HTTP/1.1 200 "), "{shown}");
    for name in ["Content-Length", "ETag", "x-cos-request-id"] {
        assert!(
            shown.contains(&format!("\r\n{name}: ")),
            "{name} in {shown}"
        );
    }
}

#[test]
fn presigned_urls_work_until_they_expire() {
    let emulator = emulator();
    let key = tenant(&emulator);
    TestRequest::new("PUT", "/t1/x")
        .body("x")
        .s3(&key)
        .send(emulator.cos_addr());
    let request = |age: i64, expires| {
        TestRequest::new("GET", "/t1/x")
            .s3_presigned(&key, now().plus(-age), expires)
            .send(emulator.cos_addr())
    };
    assert_eq!(request(0, 60).status, 200);
    assert_eq!(request(120, 60).refusal(), (403, "AccessDenied".into()));
    assert_eq!(
        request(0, 604_801).refusal(),
        (400, "InvalidArgument".into())
    );
    let native = |age: i64| {
        let request = TestRequest::new("GET", "/t1/x?response-content-type=a%2Fb");
        request
            .cos_presigned(&key, now().plus(-age))
            .send(emulator.cos_addr())
    };
    let live = native(0);
    assert_eq!(
        (live.status, live.header("content-type")),
        (200, Some("a/b"))
    );
    assert_eq!(native(1000).refusal(), (403, "AccessDenied".into()));
}

#[test]
fn enforces_a_policy_inside_and_outside_its_prefix() {
    let emulator = emulator();
    let key = tenant(&emulator);
    for name in ["t1/x", "t2/x"] {
        let put = TestRequest::new("PUT", &format!("/{name}"))
            .body(name)
            .s3(&account())
            .send(emulator.cos_addr());
        assert_eq!(put.status, 200);
    }
    let denied = (403, "AccessDenied".to_owned());
    for sign in BOTH {
        let status = |request: TestRequest| sign(request, &key).send(emulator.cos_addr()).refusal();
        assert_eq!(status(TestRequest::new("GET", "/t1/x")).0, 200);
        assert_eq!(status(TestRequest::new("GET", "/t2/x")), denied);
        assert_eq!(status(TestRequest::new("PUT", "/t2/y").body("y")), denied);
        assert_eq!(status(TestRequest::new("DELETE", "/t2/x")), denied);
        assert_eq!(status(TestRequest::new("GET", "/?prefix=t1%2F")).0, 200);
        assert_eq!(status(TestRequest::new("GET", "/?prefix=t2%2F")), denied);
        assert_eq!(status(TestRequest::new("GET", "/")), denied);
        assert_eq!(
            status(TestRequest::new("GET", "/?versions=&prefix=t1%2F")).0,
            200
        );
        assert_eq!(
            status(TestRequest::new("GET", "/?uploads=&prefix=t2%2F")),
            denied
        );
        assert_eq!(status(TestRequest::new("POST", "/t2/x?uploads=")), denied);
    }
    assert!(!emulator.object_exists(BUCKET, "t2/y"));
    assert!(emulator.object_exists(BUCKET, "t2/x"));
}

#[test]
fn copy_needs_both_permissions() {
    let emulator = emulator();
    let key = tenant(&emulator);
    for name in ["t1/x", "t2/x"] {
        TestRequest::new("PUT", &format!("/{name}"))
            .body(name)
            .s3(&account())
            .send(emulator.cos_addr());
    }
    let s3 = |to: &str, from: &str| {
        let request =
            TestRequest::new("PUT", to).header("x-amz-copy-source", &format!("/{BUCKET}{from}"));
        request.s3(&key).send(emulator.cos_addr())
    };
    let native = |to: &str, from: &str| {
        let source = format!("{BUCKET}.cos.{REGION}.myqcloud.com{from}");
        TestRequest::new("PUT", to)
            .header("x-cos-copy-source", &source)
            .cos(&key)
            .send(emulator.cos_addr())
    };
    let good = s3("/t1/y", "/t1/x");
    assert_eq!(good.status, 200, "{}", good.text());
    assert!(good.text().contains("<CopyObjectResult"));
    assert_eq!(native("/t1/z", "/t1/x").status, 200);
    assert_eq!(emulator.object_bytes(BUCKET, "t1/z").unwrap(), b"t1/x");
    for (to, from) in [("/t1/y", "/t2/x"), ("/t2/y", "/t1/x")] {
        assert_eq!(s3(to, from).refusal(), (403, "AccessDenied".into()));
        assert_eq!(native(to, from).refusal(), (403, "AccessDenied".into()));
    }
    let bare =
        TestRequest::new("PUT", "/t1/y").header("x-cos-copy-source", &format!("/{BUCKET}/t1/x"));
    assert_eq!(
        bare.cos(&key).send(emulator.cos_addr()).refusal(),
        (400, "InvalidCopySource".into())
    );
}

#[test]
fn pages_listings_as_cos_does() {
    let emulator = emulator();
    for name in ["a", "d/1", "d/2", "e", "%E4%B8%AD"] {
        TestRequest::new("PUT", &format!("/{name}"))
            .body("x")
            .s3(&account())
            .send(emulator.cos_addr());
    }
    let get = |target: &str| {
        TestRequest::new("GET", target)
            .s3(&account())
            .send(emulator.cos_addr())
    };
    let first = get("/?max-keys=2");
    assert_eq!(first.elements("Key"), ["a", "d/1"], "{}", first.text());
    assert_eq!(first.element("NextMarker").as_deref(), Some("d/1"));
    assert_eq!(get("/?marker=d%2F1").elements("Key"), ["d/2", "e", "中"]);
    let rolled = get("/?delimiter=%2F&encoding-type=url");
    assert_eq!(rolled.elements("Key"), ["a", "e", "%E4%B8%AD"]);
    assert!(
        rolled
            .text()
            .contains("<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>")
    );
    let v2 = get("/?list-type=2&max-keys=3");
    assert_eq!(v2.element("KeyCount").as_deref(), Some("3"));
    let token = v2.element("NextContinuationToken").unwrap();
    let mut target = "/?list-type=2&continuation-token=".to_owned();
    cosgate::encoding::percent::push_encoded(&mut target, token.as_bytes());
    assert_eq!(get(&target).elements("Key"), ["e", "中"]);
    let versions = get("/?versions=");
    assert_eq!(versions.elements("VersionId"), ["null"; 5]);
    // The native API has only the first version of the listing.
    let native = TestRequest::new("GET", "/?list-type=2")
        .cos(&account())
        .send(emulator.cos_addr());
    assert_eq!((native.status, native.element("KeyCount")), (200, None));
}

#[test]
fn multi_delete_reports_each_key() {
    let emulator = emulator();
    let key = tenant(&emulator);
    for name in ["t1/x", "t1/y", "t2/x"] {
        TestRequest::new("PUT", &format!("/{name}"))
            .body("x")
            .s3(&account())
            .send(emulator.cos_addr());
    }
    let body = "<Delete><Object><Key>t1/x</Key></Object><Object><Key>t2/x</Key></Object>\
                <Object><Key>t1/none</Key></Object></Delete>";
    let request = TestRequest::new("POST", "/?delete=")
        .header("content-md5", &md5(body))
        .body(body);
    for sign in BOTH {
        let reply = sign(request.clone(), &key).send(emulator.cos_addr());
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(
            reply.text().matches("<Deleted>").count(),
            2,
            "{}",
            reply.text()
        );
        assert_eq!(reply.element("Code").as_deref(), Some("AccessDenied"));
    }
    assert!(emulator.object_exists(BUCKET, "t2/x"));
    assert!(!emulator.object_exists(BUCKET, "t1/x"));
    assert!(emulator.object_exists(BUCKET, "t1/y"));
}

#[test]
fn stores_tags_with_both_signatures() {
    let emulator = emulator();
    for (sign, prefix) in BOTH.into_iter().zip(["x-amz", "x-cos"]) {
        let put = TestRequest::new("PUT", "/k")
            .header(&format!("{prefix}-tagging"), "a=1&b=%20")
            .body("x");
        assert_eq!(sign(put, &account()).send(emulator.cos_addr()).status, 200);
        let tags =
            || sign(TestRequest::new("GET", "/k?tagging="), &account()).send(emulator.cos_addr());
        assert_eq!(tags().elements("Value"), ["1", " "], "{}", tags().text());
        let body = "<Tagging><TagSet><Tag><Key>c</Key><Value>2</Value></Tag></TagSet></Tagging>";
        let put = TestRequest::new("PUT", "/k?tagging=")
            .header("content-md5", &md5(body))
            .body(body);
        assert_eq!(sign(put, &account()).send(emulator.cos_addr()).status, 200);
        assert_eq!(tags().elements("Key"), ["c"]);
        let delete =
            sign(TestRequest::new("DELETE", "/k?tagging="), &account()).send(emulator.cos_addr());
        assert_eq!(delete.status, 204);
        assert!(tags().elements("Key").is_empty());
    }
}

#[test]
fn enforces_conditions_of_reads_and_writes() {
    let emulator = emulator();
    let send = |request: TestRequest| request.s3(&account()).send(emulator.cos_addr());
    let etag = send(TestRequest::new("PUT", "/k").body("x"))
        .header("etag")
        .unwrap()
        .to_owned();
    let get =
        |name: &str, value: &str| send(TestRequest::new("GET", "/k").header(name, value)).status;
    assert_eq!(get("if-match", &etag), 200);
    assert_eq!(get("if-match", "\"0\""), 412);
    assert_eq!(get("if-none-match", &etag), 304);
    let unchanged = send(TestRequest::new("GET", "/k").header("if-none-match", &etag));
    assert_eq!(unchanged.header("etag"), Some(etag.as_str()));
    assert_eq!(get("if-modified-since", &now().plus(60).http_date()), 304);
    assert_eq!(
        get("if-unmodified-since", &now().plus(-60).http_date()),
        412
    );
    let native = TestRequest::new("PUT", "/k")
        .header("x-cos-forbid-overwrite", "true")
        .body("y")
        .cos(&account());
    assert_eq!(
        native.send(emulator.cos_addr()).refusal(),
        (409, "FileAlreadyExists".into())
    );
    assert_eq!(emulator.object_bytes(BUCKET, "k").unwrap(), b"x");
    let fresh = TestRequest::new("PUT", "/new")
        .header("x-cos-forbid-overwrite", "true")
        .body("y");
    assert_eq!(fresh.cos(&account()).send(emulator.cos_addr()).status, 200);
    // No page of COS documents any other condition of a write.
    for (name, value) in [
        ("if-none-match", "*"),
        ("if-match", "\"0\""),
        ("x-cos-forbid-overwrite", "true"),
        ("x-amz-forbid-overwrite", "true"),
    ] {
        let put = TestRequest::new("PUT", "/k").header(name, value).body("z");
        assert_eq!(send(put).status, 200, "{name}");
    }
    let delete = TestRequest::new("DELETE", "/k").header("if-match", "\"0\"");
    assert_eq!(send(delete).status, 204);
}

#[test]
fn lists_finds_and_creates_buckets() {
    let emulator = emulator();
    let service = |request: TestRequest| {
        request
            .header("host", "service.cos.myqcloud.com")
            .s3(&account())
    };
    let list = service(TestRequest::new("GET", "/")).send(emulator.cos_addr());
    assert_eq!(list.elements("Name"), [BUCKET, OTHER], "{}", list.text());
    let of_region = |region: &str| {
        let request =
            TestRequest::new("GET", "/").header("host", &format!("cos.{region}.myqcloud.com"));
        request
            .s3(&account())
            .send(emulator.cos_addr())
            .elements("Name")
    };
    assert_eq!(of_region(REGION), [BUCKET, OTHER]);
    assert!(of_region("ap-beijing").is_empty());
    let location = TestRequest::new("GET", "/?location=")
        .s3(&account())
        .send(emulator.cos_addr());
    assert!(location.text().contains(REGION));
    assert_eq!(
        TestRequest::new("HEAD", "/")
            .s3(&account())
            .send(emulator.cos_addr())
            .status,
        200
    );
    let on = |bucket: &str, request: TestRequest| {
        let host = format!("{bucket}.cos.{REGION}.myqcloud.com:9100");
        request
            .header("host", &host)
            .s3(&account())
            .send(emulator.cos_addr())
    };
    assert_eq!(
        on("new-1250000000", TestRequest::new("HEAD", "/")).status,
        404
    );
    let made = on("new-1250000000", TestRequest::new("PUT", "/").body(""));
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(
        on("new-1250000000", TestRequest::new("HEAD", "/")).status,
        200
    );
    let again = on("new-1250000000", TestRequest::new("PUT", "/").body(""));
    assert_eq!(again.refusal(), (409, "BucketAlreadyOwnedByYou".into()));
    assert_eq!(
        on("new-1250000001", TestRequest::new("PUT", "/").body("")).refusal(),
        (404, "NoSuchBucket".into())
    );
}

fn md5(body: &str) -> String {
    use base64::Engine as _;
    use md5::Digest as _;
    base64::engine::general_purpose::STANDARD.encode(md5::Md5::digest(body))
}
