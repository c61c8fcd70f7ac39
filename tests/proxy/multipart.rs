//! Multipart uploads: created, filled, listed, completed or aborted.

use crate::support::{SIGNATURES, World, element, elements};

const KEY: &str = "/photos/acme/big%20one";
/// The minimum size of a part in COS, except the last.
const MIN_PART: usize = 1 << 20;

fn create(world: &World) -> String {
    let created = world
        .signed("POST", &format!("{KEY}?uploads"))
        .header("content-type", "text/css")
        .header("x-amz-meta-color", "blue")
        .fetch();
    let text = created.assert_ok().text();
    assert_eq!(element(&text, "Bucket"), "photos");
    assert_eq!(element(&text, "Key"), "acme/big one");
    element(&text, "UploadId")
}

fn completion(etags: &[String]) -> String {
    let parts = etags.iter().enumerate().map(|(index, etag)| {
        let number = index + 1;
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    });
    let parts: String = parts.collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

#[test]
fn joins_uploaded_and_copied_parts() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put("/photos/acme/source", "0123456789");
        let id = create(&world);
        let uploads = world.fetch("GET", "/photos?uploads&prefix=acme%2F");
        assert_eq!(element(&uploads.assert_ok().text(), "UploadId"), id);

        let part = |number: usize| format!("{KEY}?partNumber={number}&uploadId={id}");
        let first = world
            .signed("PUT", &part(1))
            .body(vec![b'x'; MIN_PART])
            .fetch();
        let copied = world
            .signed("PUT", &part(2))
            .header("x-amz-copy-source", "/photos/acme/source")
            .header("x-amz-copy-source-range", "bytes=2-5")
            .fetch();
        let beyond = world
            .signed("PUT", &part(2))
            .header("x-amz-copy-source", "/photos/acme/source")
            .header("x-amz-copy-source-range", "bytes=2-5000");
        beyond.fetch().assert_error(400, "InvalidArgument");
        let etags = [
            first.assert_ok().header("etag").unwrap().to_owned(),
            element(&copied.assert_ok().text(), "ETag"),
        ];
        let parts = world.fetch("GET", &format!("{KEY}?uploadId={id}"));
        let text = parts.assert_ok().text();
        assert_eq!(elements(&text, "Size"), ["1048576", "4"], "{signature}");
        assert_eq!(element(&text, "Key"), "acme/big one");
        assert_eq!(element(&element(&text, "Owner"), "ID"), "acme");
        assert_eq!(world.stored("acme/big one"), None);

        let completed = world
            .signed("POST", &format!("{KEY}?uploadId={id}"))
            .body(completion(&etags))
            .fetch();
        let text = completed.assert_ok().text();
        assert_eq!(element(&text, "Bucket"), "photos");
        assert_eq!(element(&text, "Key"), "acme/big one");
        let location = format!("http://{}/photos/acme/big%20one", world.gateway.addr);
        assert_eq!(element(&text, "Location"), location);
        assert!(element(&text, "ETag").contains("-2"));
        let stored = world.stored("acme/big one").unwrap();
        assert_eq!(stored.len(), MIN_PART + 4);
        assert!(stored.ends_with("x2345"));
        let head = world.fetch("HEAD", KEY);
        assert_eq!(head.header("content-type"), Some("text/css"));
        assert_eq!(head.header("x-amz-meta-color"), Some("blue"));
        let uploads = world.fetch("GET", "/photos?uploads&prefix=acme%2F");
        assert_eq!(element(&uploads.assert_ok().text(), "UploadId"), "");
    }
}

#[test]
fn removes_an_aborted_upload() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let id = create(&world);
        let target = format!("{KEY}?uploadId={id}");
        assert_eq!(world.fetch("DELETE", &target).status, 204);
        world
            .fetch("GET", &target)
            .assert_error(404, "NoSuchUpload");
        let part = world.signed("PUT", &format!("{target}&partNumber=1"));
        part.body("x").fetch().assert_error(404, "NoSuchUpload");
        assert_eq!(world.stored("acme/big one"), None);
    }
}

#[test]
fn rejects_an_invalid_completion() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let id = create(&world);
        let mut etags = Vec::new();
        for number in 1..=2 {
            let target = format!("{KEY}?partNumber={number}&uploadId={id}");
            let part = world.signed("PUT", &target).body("small").fetch();
            etags.push(part.assert_ok().header("etag").unwrap().to_owned());
        }
        let complete = |body: &str| {
            let call = world.signed("POST", &format!("{KEY}?uploadId={id}"));
            call.body(body).fetch()
        };
        complete(&completion(&etags)).assert_error(400, "EntityTooSmall");
        etags[1] = "\"0\"".to_owned();
        complete(&completion(&etags)).assert_error(400, "InvalidPart");
        let seen = world.upstream_requests();
        for xml in [
            "",
            "<CompleteMultipartUpload/>",
            "<CompleteMultipartUpload><Part><PartNumber>2</PartNumber><ETag>a</ETag></Part>",
            "<!DOCTYPE x><CompleteMultipartUpload/>",
            "<Delete/>",
        ] {
            complete(xml).assert_error(400, "MalformedXML");
        }
        assert_eq!(world.upstream_requests(), seen);
        assert_eq!(world.stored("acme/big one"), None);
    }
}
