//! Versions of objects: ids, delete markers, listings and restarts.

use std::collections::BTreeMap;

use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::encoding::percent::{percent_decode, push_encoded_path};

use crate::client::{BUCKET, Reply, TestRequest, account, emulator, emulator_with};

const ID: &str = "x-amz-version-id";
const MARKER: &str = "x-amz-delete-marker";

fn send(emulator: &Emulator, method: &'static str, target: &str) -> Reply {
    TestRequest::new(method, target)
        .s3(&account())
        .send(emulator.cos_addr())
}

fn put(emulator: &Emulator, key: &str, content: &str) -> Option<String> {
    let put = TestRequest::new("PUT", key).body(content).s3(&account());
    let reply = put.send(emulator.cos_addr());
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header(ID).map(str::to_owned)
}

fn set(emulator: &Emulator, status: &str) {
    let document =
        format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    emulator.configure(BUCKET, "versioning", &document).unwrap();
}

/// The keys and ids of a whole listing of versions in their order: each entry with its kind, and whether it is the
/// latest.
fn listed(emulator: &Emulator, page: usize) -> Vec<(&'static str, String, String, bool)> {
    let (mut all, mut markers) = (Vec::new(), (String::new(), String::new()));
    loop {
        let mut request = TestRequest::new("GET", "/?versions&encoding-type=url");
        request.query.push(("max-keys".into(), page.to_string()));
        if !markers.0.is_empty() {
            request.query.push(("key-marker".into(), markers.0.clone()));
            request
                .query
                .push(("version-id-marker".into(), markers.1.clone()));
        }
        let reply = request.s3(&account()).send(emulator.cos_addr());
        let text = reply.text();
        let before = all.len();
        for entry in text.split("<Version>").flat_map(by_kind) {
            all.extend(entry);
        }
        assert!(all.len() - before <= page);
        if reply.element("IsTruncated").as_deref() != Some("true") {
            return all;
        }
        let next = |name: &str| reply.element(name).unwrap_or_default();
        markers = (decoded(&next("NextKeyMarker")), next("NextVersionIdMarker"));
    }
}

/// The entries of a part of a listing that starts with a version: it, and the delete markers that follow.
fn by_kind(part: &str) -> Vec<Option<(&'static str, String, String, bool)>> {
    let entries = part.split("<DeleteMarker>").enumerate();
    let read = |(index, entry): (usize, &str)| {
        let field = |name: &str| {
            let (_, rest) = entry.split_once(&format!("<{name}>"))?;
            Some(rest.split('<').next()?.to_owned())
        };
        let kind = if index == 0 { "version" } else { "marker" };
        let is_latest = field("IsLatest")? == "true"; // the head of the document has none
        Some((
            kind,
            decoded(&field("Key")?),
            field("VersionId")?,
            is_latest,
        ))
    };
    entries.map(read).collect()
}

fn decoded(text: &str) -> String {
    let bytes = percent_decode(text).unwrap().into_owned();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn lists_versions_and_markers_by_key_and_from_the_newest() {
    let emulator = emulator();
    set(&emulator, "Enabled");
    let keys = include_str!("../vectors/keys.txt").lines();
    let mut expected = BTreeMap::new();
    for (index, key) in keys.step_by(4).enumerate() {
        let mut target = String::from("/");
        push_encoded_path(&mut target, key.as_bytes());
        let history = [&["put"][..], &["put", "delete"], &["put", "delete", "put"]];
        let more = &["put", "put", "delete", "delete"][..];
        let history = history.get(index % 4).copied().unwrap_or(more);
        let mut of_key = Vec::new();
        for action in history {
            of_key.push(if *action == "put" {
                ("version", put(&emulator, &target, key).unwrap())
            } else {
                let deleted = send(&emulator, "DELETE", &target);
                ("marker", deleted.header(ID).unwrap().to_owned())
            });
        }
        expected.insert(key.to_owned(), of_key);
    }
    assert!(expected.len() > 100);
    let expected: Vec<_> = expected
        .into_iter()
        .flat_map(|(key, of_key)| {
            let newest_first = of_key.into_iter().rev().enumerate();
            newest_first.map(move |(index, (kind, id))| (kind, key.clone(), id, index == 0))
        })
        .collect();
    for page in [3, 7, 1000] {
        assert!(listed(&emulator, page) == expected, "pages of {page}");
    }
}

#[test]
fn keeps_no_versions_without_versioning() {
    let emulator = emulator();
    assert_eq!(put(&emulator, "/k", "one"), None);
    put(&emulator, "/k", "two");
    assert_eq!(send(&emulator, "GET", "/k").header(ID), None);
    assert_eq!(send(&emulator, "GET", "/k?versionId=null").text(), "two");
    assert_eq!(
        send(&emulator, "GET", "/k?versionId=abc").refusal(),
        (404, "NoSuchVersion".into())
    );
    for version in ["", "?versionId=null"] {
        let source = format!("/{BUCKET}/k{version}");
        let onto_itself = TestRequest::new("PUT", "/k").header("x-amz-copy-source", &source);
        let reply = onto_itself.s3(&account()).send(emulator.cos_addr());
        assert_eq!(reply.refusal(), (400, "InvalidRequest".into()), "{version}");
    }
    let deleted = send(&emulator, "DELETE", "/k");
    assert_eq!((deleted.status, deleted.header(MARKER)), (204, None));
    assert!(listed(&emulator, 10).is_empty());
}

#[test]
fn writes_create_versions_and_deletes_hide_them() {
    let emulator = emulator();
    put(&emulator, "/k", "zero");
    set(&emulator, "Enabled");
    let first = put(&emulator, "/k", "one").unwrap();
    let second = put(&emulator, "/k", "two").unwrap();
    let of = |version: &str| format!("/k?versionId={version}");
    for (target, content, id) in [
        ("/k".to_owned(), "two", &second),
        (of(&second), "two", &second),
        (of(&first), "one", &first),
        (of("null"), "zero", &"null".to_owned()),
    ] {
        let got = send(&emulator, "GET", &target);
        assert_eq!(
            (got.text().as_str(), got.header(ID)),
            (content, Some(id.as_str()))
        );
        let head = send(&emulator, "HEAD", &target);
        assert_eq!(head.header(ID), Some(id.as_str()));
    }
    let deleted = send(&emulator, "DELETE", "/k");
    assert_eq!(
        (deleted.status, deleted.header(MARKER)),
        (204, Some("true"))
    );
    let marker = deleted.header(ID).unwrap().to_owned();
    let hidden = send(&emulator, "GET", "/k");
    assert_eq!(hidden.refusal(), (404, "NoSuchKey".into()));
    assert_eq!(hidden.header(MARKER), Some("true"));
    assert_eq!(
        send(&emulator, "GET", &of(&marker)).refusal(),
        (405, "MethodNotAllowed".into())
    );
    assert_eq!(send(&emulator, "GET", &of(&first)).text(), "one");
    assert!(
        send(&emulator, "GET", "/?list-type=2")
            .elements("Key")
            .is_empty()
    );
    let key = || "k".to_owned();
    let all = [
        ("marker", key(), marker.clone(), true),
        ("version", key(), second.clone(), false),
        ("version", key(), first.clone(), false),
        ("version", key(), "null".into(), false),
    ];
    for page in [10, 1] {
        assert_eq!(listed(&emulator, page), all);
    }

    // Without the marker, the newest version is the object again.
    let unhidden = send(&emulator, "DELETE", &of(&marker));
    assert_eq!(unhidden.header(MARKER), Some("true"));
    assert_eq!(send(&emulator, "GET", "/k").text(), "two");
    send(&emulator, "DELETE", &of(&second));
    assert_eq!(send(&emulator, "GET", "/k").text(), "one");
    assert_eq!(
        send(&emulator, "DELETE", "/").refusal(),
        (409, "BucketNotEmpty".into())
    );
    send(&emulator, "DELETE", &of(&first));
    send(&emulator, "DELETE", &of("null"));
    assert_eq!(send(&emulator, "GET", "/k").header(MARKER), None);
    assert!(listed(&emulator, 10).is_empty());
    assert_eq!(send(&emulator, "DELETE", "/").status, 204);
}

#[test]
fn copies_tags_and_multi_deletes_accept_version_ids() {
    let emulator = emulator();
    set(&emulator, "Enabled");
    let first = put(&emulator, "/k", "one").unwrap();
    let second = put(&emulator, "/k", "two").unwrap();
    let copy = TestRequest::new("PUT", "/k")
        .header(
            "x-amz-copy-source",
            &format!("/{BUCKET}/k?versionId={first}"),
        )
        .s3(&account())
        .send(emulator.cos_addr());
    assert_eq!(
        copy.header("x-amz-copy-source-version-id"),
        Some(first.as_str())
    );
    let third = copy.header(ID).unwrap().to_owned();
    assert_eq!(send(&emulator, "GET", "/k").text(), "one");

    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let tagged = TestRequest::new("PUT", &format!("/k?tagging&versionId={second}")).body(tags);
    assert_eq!(tagged.s3(&account()).send(emulator.cos_addr()).status, 200);
    let tags_of = |version: &str| {
        send(&emulator, "GET", &format!("/k?tagging&versionId={version}")).elements("Value")
    };
    assert_eq!(tags_of(&second), ["b"]);
    assert!(tags_of(&third).is_empty());
    assert_eq!(
        send(&emulator, "GET", "/k").text(),
        "one",
        "the order is as before"
    );

    let delete = format!(
        "<Delete><Object><Key>k</Key><VersionId>{second}</VersionId></Object><Object><Key>k</Key></Object></Delete>"
    );
    let digest = md5(delete.as_bytes());
    let many = TestRequest::new("POST", "/?delete")
        .header("content-md5", &digest)
        .body(delete);
    let many = many.s3(&account()).send(emulator.cos_addr());
    assert_eq!(many.elements("VersionId"), [second]);
    let marker = many.element("DeleteMarkerVersionId").unwrap();
    let ids: Vec<String> = listed(&emulator, 10)
        .into_iter()
        .map(|entry| entry.2)
        .collect();
    assert_eq!(ids, [marker, third, first]);
}

fn md5(bytes: &[u8]) -> String {
    use base64::Engine as _;
    use md5::Digest as _;
    base64::engine::general_purpose::STANDARD.encode(md5::Md5::digest(bytes))
}

#[test]
fn suspended_bucket_has_one_null_version() {
    let emulator = emulator();
    set(&emulator, "Enabled");
    let first = put(&emulator, "/k", "one").unwrap();
    set(&emulator, "Suspended");
    assert_eq!(put(&emulator, "/k", "two"), None);
    put(&emulator, "/k", "three");
    let got = send(&emulator, "GET", "/k");
    assert_eq!(
        (got.text().as_str(), got.header(ID)),
        ("three", Some("null"))
    );
    assert_eq!(listed(&emulator, 10).len(), 2);
    let deleted = send(&emulator, "DELETE", "/k");
    assert_eq!(
        (deleted.header(MARKER), deleted.header(ID)),
        (Some("true"), Some("null"))
    );
    let left: Vec<_> = listed(&emulator, 10)
        .into_iter()
        .map(|entry| (entry.0, entry.2))
        .collect();
    assert_eq!(left, [("marker", "null".into()), ("version", first)]);
    // A header that forbids overwriting has no effect on a bucket with versions.
    put(&emulator, "/k", "four");
    let forbids = TestRequest::new("PUT", "/k")
        .header("x-cos-forbid-overwrite", "true")
        .body("five");
    assert_eq!(
        forbids.cos(&account()).send(emulator.cos_addr()).status,
        200
    );
}

#[test]
fn restart_keeps_versions_and_markers() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        emulator_with(EmulatorConfig {
            data: Some(data.path().into()),
            ..EmulatorConfig::default()
        })
    };
    let before = {
        let emulator = start();
        set(&emulator, "Enabled");
        for content in ["one", "two", "three"] {
            put(&emulator, "/a", content);
            put(&emulator, "/b", content);
        }
        send(&emulator, "DELETE", "/a");
        listed(&emulator, 1000)
    };
    assert_eq!(before.len(), 7);
    let emulator = start();
    assert_eq!(listed(&emulator, 1000), before);
    assert_eq!(send(&emulator, "GET", "/a").header(MARKER), Some("true"));
    assert_eq!(send(&emulator, "GET", "/b").text(), "three");
    put(&emulator, "/a", "four");
    assert_eq!(send(&emulator, "GET", "/a").text(), "four");
    let oldest = &before.iter().rfind(|entry| entry.1 == "b").unwrap().2;
    assert_eq!(
        send(&emulator, "GET", &format!("/b?versionId={oldest}")).text(),
        "one"
    );
}
