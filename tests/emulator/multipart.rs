//! Multipart uploads with both signatures.

use crate::client::{BUCKET, Credential, REGION, Reply, TestRequest, account, emulator};

const MIB: usize = 1024 * 1024;

fn complete_body(parts: &[(u32, &str)]) -> String {
    let parts = parts.iter().map(|(number, etag)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    });
    format!(
        "<CompleteMultipartUpload>{}</CompleteMultipartUpload>",
        parts.collect::<String>()
    )
}

#[test]
fn joins_parts_with_both_signatures() {
    let signs: [fn(TestRequest, &Credential) -> TestRequest; 2] =
        [TestRequest::s3, TestRequest::cos];
    for (sign, prefix) in signs.into_iter().zip(["x-amz", "x-cos"]) {
        let emulator = emulator();
        let send =
            |request: TestRequest| -> Reply { sign(request, &account()).send(emulator.cos_addr()) };
        send(TestRequest::new("PUT", "/source").body(vec![b's'; 100]));
        let begun = TestRequest::new("POST", "/big?uploads=")
            .header(&format!("{prefix}-meta-a"), "b")
            .body("");
        let begun = send(begun);
        let id = begun
            .element("UploadId")
            .unwrap_or_else(|| panic!("{}", begun.text()));

        let part = |number: u32, content: Vec<u8>| {
            let reply = send(
                TestRequest::new("PUT", &format!("/big?partNumber={number}&uploadId={id}"))
                    .body(content),
            );
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply.header("etag").unwrap().to_owned()
        };
        let (first, second) = (part(1, vec![b'1'; MIB]), part(2, vec![b'2'; MIB]));
        let source = match prefix {
            "x-amz" => format!("{BUCKET}/source"),
            _ => format!("{BUCKET}.cos.{REGION}.myqcloud.com/source"),
        };
        let copied = TestRequest::new("PUT", &format!("/big?partNumber=3&uploadId={id}"))
            .header(&format!("{prefix}-copy-source"), &source)
            .header(&format!("{prefix}-copy-source-range"), "bytes=0-9");
        let copied = send(copied);
        let third = copied
            .element("ETag")
            .unwrap_or_else(|| panic!("{}", copied.text()))
            .replace("&quot;", "\"");

        let listed = send(TestRequest::new(
            "GET",
            &format!("/big?uploadId={id}&max-parts=2"),
        ));
        assert_eq!(
            listed.elements("PartNumber"),
            ["1", "2"],
            "{}",
            listed.text()
        );
        assert_eq!(listed.element("NextPartNumberMarker").as_deref(), Some("2"));
        let uploads = send(TestRequest::new("GET", "/?uploads="));
        assert_eq!(
            uploads.elements("UploadId"),
            std::slice::from_ref(&id),
            "{}",
            uploads.text()
        );

        let target = format!("/big?uploadId={id}");
        let complete = |parts: &[(u32, &str)]| {
            send(TestRequest::new("POST", &target).body(complete_body(parts)))
        };
        assert_eq!(
            complete(&[(1, "\"0\"")]).refusal(),
            (400, "InvalidPart".into())
        );
        assert_eq!(
            complete(&[(2, &second), (1, &first)]).refusal(),
            (400, "InvalidPartOrder".into())
        );
        assert_eq!(complete(&[(3, &third), (3, &third)]).refusal().0, 400);
        assert!(!emulator.object_exists(BUCKET, "big"));
        let done = complete(&[(1, &first), (2, &second), (3, &third)]);
        assert_eq!(done.status, 200, "{}", done.text());
        assert!(done.element("ETag").unwrap().contains("-3"));
        let content = [vec![b'1'; MIB], vec![b'2'; MIB], vec![b's'; 10]].concat();
        assert!(emulator.object_bytes(BUCKET, "big").unwrap() == content);

        let whole = send(TestRequest::new("PUT", "/whole").body(content));
        let head = send(TestRequest::new("HEAD", "/big"));
        assert_eq!(
            head.header("x-cos-hash-crc64ecma"),
            whole.header("x-cos-hash-crc64ecma")
        );
        assert_eq!(head.header(&format!("{prefix}-meta-a")), Some("b"));
        assert_eq!(
            complete(&[(1, &first)]).refusal(),
            (404, "NoSuchUpload".into())
        );
    }
}

#[test]
fn removes_an_aborted_upload() {
    let emulator = emulator();
    let send = |request: TestRequest| request.s3(&account()).send(emulator.cos_addr());
    let id = send(TestRequest::new("POST", "/k?uploads=").body(""))
        .element("UploadId")
        .unwrap();
    let part = || TestRequest::new("PUT", &format!("/k?partNumber=1&uploadId={id}")).body("x");
    assert_eq!(send(part()).status, 200);
    for number in ["0", "10001"] {
        let odd =
            TestRequest::new("PUT", &format!("/k?partNumber={number}&uploadId={id}")).body("x");
        assert_eq!(send(odd).refusal(), (400, "InvalidArgument".into()));
    }
    let other_key =
        TestRequest::new("PUT", &format!("/other?partNumber=1&uploadId={id}")).body("x");
    assert_eq!(send(other_key).refusal(), (404, "NoSuchUpload".into()));
    assert_eq!(
        send(TestRequest::new("DELETE", &format!("/k?uploadId={id}"))).status,
        204
    );
    assert_eq!(send(part()).refusal(), (404, "NoSuchUpload".into()));
    assert!(
        send(TestRequest::new("GET", "/?uploads="))
            .elements("UploadId")
            .is_empty()
    );
}

#[test]
fn rejects_small_parts_before_the_last() {
    let emulator = emulator();
    let send = |request: TestRequest| request.s3(&account()).send(emulator.cos_addr());
    let id = send(TestRequest::new("POST", "/k?uploads=").body(""))
        .element("UploadId")
        .unwrap();
    let etags: Vec<String> = (1..=2)
        .map(|number| {
            let part =
                TestRequest::new("PUT", &format!("/k?partNumber={number}&uploadId={id}")).body("x");
            send(part).header("etag").unwrap().to_owned()
        })
        .collect();
    let body = complete_body(&[(1, &etags[0]), (2, &etags[1])]);
    let done = send(TestRequest::new("POST", &format!("/k?uploadId={id}")).body(body));
    assert_eq!(done.refusal(), (400, "EntityTooSmall".into()));
}
