//! Virtual buckets: a tenant's key `x` is `root/x` in the real bucket, and no response reveals that.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

use crate::support::{
    self, ACCOUNT, Act, BUCKET, Call, Client, GLOBEX, Gateway, Log, Reply, SIGNATURES, Scripted,
    World, act, cos_error, element, elements, header_of,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::secret::Secret;

/// A second bucket, in another region.
const FAR: &str = "far-1250000000";
/// The root of `photos`: every encoding changes its bytes. No response may contain `c4n4ry`.
const ROOT: &str = "c4n4ry (1)/中+/";

/// The tenants: acme has two virtual buckets in one real bucket, one in another region and a plain one. globex
/// sees the whole real bucket.
fn grants(toml: &str) -> String {
    let mut toml = toml.replace("actions = [", "shared = true\nactions = [");
    toml = toml.replacen("prefixes = [\"globex/*\"]", "prefixes = [\"*\"]", 1);
    let photos = format!("root = \"{ROOT}\"");
    toml = toml.replacen("prefixes = [\"acme/*\"]", &photos, 1);
    for (name, bucket, region, keys) in [
        (
            "inbox",
            BUCKET,
            "ap-guangzhou",
            "root = \"c4n4ry-inbox/\"\nprefixes = [\"in/*\", \"one.txt\"]",
        ),
        ("away", FAR, "ap-beijing", "root = \"c4n4ry-far/\""),
        ("plain", FAR, "ap-beijing", "prefixes = [\"acme/*\"]"),
    ] {
        toml += &format!(
            "\n[[tenants.acme.grants]]\nname = \"{name}\"\nbucket = \"{bucket}\"\nregion = \"{region}\"\n\
             {keys}\nshared = true\nactions = [\"read\", \"write\", \"list\"]\n"
        );
    }
    toml
}

fn world(signature: &str) -> World {
    let emulator = Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![
            (BUCKET.to_owned(), "ap-guangzhou".to_owned()),
            (FAR.to_owned(), "ap-beijing".to_owned()),
        ],
        ..EmulatorConfig::default()
    })
    .unwrap();
    let toml = support::toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let spoken = format!("[upstream]\nsignature = \"{signature}\"");
    let gateway = Gateway::start(&grants(&toml.replacen("[upstream]", &spoken, 1)));
    World { gateway, emulator }
}

/// Stores an object under its real key.
#[track_caller]
fn plant(world: &World, real: &str, body: &str) {
    let put = Call::new(world.gateway.addr, "PUT", &format!("/photos/{}", url(real)));
    put.body(body).signed_by(GLOBEX).fetch().assert_ok();
}

/// The same in the other bucket.
fn plant_far(world: &World, real: &str, body: &str) {
    world
        .emulator
        .put_object(FAR, real, body.as_bytes())
        .unwrap();
}

/// Percent-encodes every byte, slashes too.
fn url(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// Asserts that a response reveals nothing of the real store.
#[track_caller]
fn assert_says_nothing(reply: &Reply) {
    let shown = format!("{:?} {}", reply.headers, reply.text());
    for canary in [
        "c4n4ry",
        "shared-",
        "far-1",
        "1250000000",
        "myqcloud",
        "ap-beijing",
        "AKID",
        "q-sign",
        "TOKEN",
        "evil",
    ] {
        assert!(!shown.contains(canary), "{canary} is shown: {shown}");
    }
}

const KEYS: [&str; 6] = ["a b+", "b/1", "b/2&", "c", "d/中", "e"];

fn filled(signature: &str) -> World {
    let world = world(signature);
    for key in KEYS {
        world.put(&format!("/photos/{}", url(key).replace("%2F", "/")), key);
    }
    // Objects beside the root, and the folder itself as a console creates it.
    plant(&world, ROOT, "");
    plant(&world, "c4n4ry (1)/x", "outside");
    plant(&world, "c4n4ry%20(1)/中+/x", "outside");
    plant(&world, "z", "outside");
    world
}

#[test]
fn stores_keys_below_the_root() {
    for signature in SIGNATURES {
        let world = filled(signature);
        for key in KEYS {
            assert_eq!(world.stored(&format!("{ROOT}{key}")).as_deref(), Some(key));
            let target = format!("/photos/{}", url(key).replace("%2F", "/"));
            let got = world.fetch("GET", &target);
            assert_eq!(got.assert_ok().text(), key);
            world.fetch("HEAD", &target).assert_ok();
        }
        // The real name is another key in the virtual bucket.
        let real = format!("/photos/{}a", url(ROOT));
        world.fetch("GET", &real).assert_error(404, "NoSuchKey");
        world
            .fetch("GET", "/photos/z")
            .assert_error(404, "NoSuchKey");
        world.fetch("DELETE", "/photos/c").assert_ok();
        assert_eq!(world.stored(&format!("{ROOT}c")), None);
        let heads = world.emulator.counters().heads();
        let root = url(ROOT).replace("%2F", "/");
        let ours = heads.iter().filter(|head| head.target.contains("/b/1"));
        assert!(ours.count() > 0);
        for head in heads.iter().filter(|head| head.target.contains("/b/1")) {
            assert!(head.target.starts_with(&format!("/{root}")), "{head:?}");
        }
    }
}

#[test]
fn applies_prefixes_to_client_names() {
    let world = world("s3");
    world.put("/inbox/in/x", "x");
    world.put("/inbox/one.txt", "1");
    assert_eq!(world.stored("c4n4ry-inbox/in/x").as_deref(), Some("x"));
    for target in [
        "/inbox/out",
        "/inbox/in",
        "/inbox/one.txt2",
        "/inbox?prefix=",
        "/inbox?list-type=2&prefix=ou",
        "/inbox?versions",
        "/inbox?uploads&prefix=one.txt",
    ] {
        let reply = world.fetch("GET", target);
        reply.assert_error(403, "AccessDenied");
        assert_says_nothing(&reply);
    }
    let listed = world.fetch("GET", "/inbox?prefix=in%2F");
    assert_eq!(elements(&listed.assert_ok().text(), "Key"), ["in/x"]);
    let above = world.fetch("GET", "/inbox?prefix=i&list-type=2");
    assert_eq!(elements(&above.assert_ok().text(), "Key"), ["in/x"]);
    assert_says_nothing(&above);
}

#[test]
fn limits_root_and_key_to_850_bytes() {
    let world = world("s3");
    let room = 850 - ROOT.len();
    let fits = format!("/photos/{}", "x".repeat(room));
    world.put(&fits, "fits");
    assert_eq!(world.fetch("GET", &fits).text(), "fits");
    world.emulator.counters().reset();
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        let reply = world.fetch(method, &format!("{fits}x"));
        assert_eq!(reply.status, 400, "{method}");
    }
    let long = world.fetch("GET", &format!("{fits}x"));
    long.assert_error(400, "KeyTooLongError");
    assert!(long.text().contains(&room.to_string()));
    let copy = world.signed("PUT", "/photos/y");
    let copy = copy
        .header("x-amz-copy-source", &format!("{fits}x"))
        .fetch();
    copy.assert_error(400, "KeyTooLongError");
    assert_eq!(world.upstream_requests(), 0);
}

/// Follows `next` from page to page. Gives all keys and common prefixes, sorted.
#[track_caller]
fn pages(world: &World, query: &str, next: &str, marker: &str) -> Vec<String> {
    let (mut count, mut seen) = (0, Vec::new());
    let mut from = String::new();
    loop {
        let reply = world.fetch("GET", &format!("/photos?{query}{from}"));
        assert_says_nothing(&reply);
        let text = reply.assert_ok().text();
        count += 1;
        assert!(count < 20, "it never ends: {text}");
        seen.extend(elements(&text, "Key"));
        for group in elements(&text, "CommonPrefixes") {
            seen.push(element(&group, "Prefix"));
        }
        if element(&text, "IsTruncated") == "false" {
            break;
        }
        let at = element(&text, next);
        assert!(!at.is_empty(), "{text}");
        if next == "NextContinuationToken" {
            let token = BASE64_URL_SAFE_NO_PAD.decode(&at).unwrap();
            assert!(!String::from_utf8(token).unwrap().contains("c4n4ry"));
        }
        let at = if query.contains("encoding-type") && next != "NextContinuationToken" {
            at.replace('+', "%20") // unchanged, because it is encoded
        } else {
            url(&at.replace("&amp;", "&"))
        };
        from = format!("&{marker}={at}");
    }
    if query.contains("encoding-type") {
        seen = seen.iter().map(|name| decoded(name)).collect();
    }
    let mut seen: Vec<_> = seen.iter().map(|name| name.replace("&amp;", "&")).collect();
    seen.sort();
    seen
}

fn decoded(name: &str) -> String {
    let bytes = cosgate::encoding::percent::percent_decode(name).unwrap();
    String::from_utf8(bytes.into_owned()).unwrap()
}

#[test]
fn lists_client_names() {
    for signature in SIGNATURES {
        let world = filled(signature);
        for (form, next, marker) in [
            ("", "NextMarker", "marker"),
            (
                "list-type=2&",
                "NextContinuationToken",
                "continuation-token",
            ),
            ("versions&", "NextKeyMarker", "key-marker"),
        ] {
            for encoding in ["", "&encoding-type=url"] {
                let list = |query: &str| {
                    let query = format!("{form}max-keys=1{query}{encoding}");
                    pages(&world, &query, next, marker)
                };
                assert_eq!(list(""), KEYS, "{signature} {form}");
                assert_eq!(list("&prefix="), KEYS);
                assert_eq!(list("&prefix=b%2F"), ["b/1", "b/2&"]);
                assert_eq!(list("&delimiter=%2F"), ["a b+", "b/", "c", "d/", "e"]);
                assert_eq!(list("&delimiter=%2F&prefix=d%2F"), ["d/中"]);
                // A delimiter that occurs only in the root finds nothing.
                assert_eq!(list("&delimiter=4n"), KEYS);
                let real = format!("/photos?{form}prefix={}", url(ROOT));
                let real = world.fetch("GET", &real).assert_ok().text();
                assert!(elements(&real, "Key").is_empty());
            }
        }
    }
}

#[test]
fn listing_repeats_client_parameters() {
    for signature in SIGNATURES {
        let world = filled(signature);
        for (form, expected) in [
            (
                "marker=b%2F1&",
                vec![("Marker", "b/1"), ("Name", "photos"), ("Prefix", "b/")],
            ),
            (
                "list-type=2&start-after=b%2F1&",
                vec![("StartAfter", "b/1"), ("KeyCount", "1"), ("Prefix", "b/")],
            ),
            (
                "versions&key-marker=b%2F1&",
                vec![("KeyMarker", "b/1"), ("Name", "photos"), ("Prefix", "b/")],
            ),
            (
                "uploads&key-marker=b%2F1&",
                vec![("KeyMarker", "b/1"), ("Bucket", "photos"), ("Prefix", "b/")],
            ),
        ] {
            for encoding in ["", "&encoding-type=url"] {
                let target = format!("/photos?{form}prefix=b%2F&delimiter=%2F{encoding}");
                let reply = world.fetch("GET", &target);
                assert_says_nothing(&reply);
                let text = reply.assert_ok().text();
                for (name, value) in &expected {
                    let shown = decoded(&element(&text, name));
                    assert_eq!(shown, *value, "{signature} {form} {text}");
                }
                assert_eq!(decoded(&element(&text, "Delimiter")), "/");
                if !form.starts_with("uploads") {
                    let keys: Vec<_> = elements(&text, "Key").iter().map(|k| decoded(k)).collect();
                    assert_eq!(
                        keys,
                        [if encoding.is_empty() {
                            "b/2&amp;"
                        } else {
                            "b/2&"
                        }]
                    );
                }
            }
        }
    }
}

#[test]
fn token_only_continues_its_listing() {
    for signature in SIGNATURES {
        let world = filled(signature);
        plant(&world, "c4n4ry-inbox/in/k", "inbox's");
        for marker in ["", "../", "zzz", "c4n4ry-inbox/in/", "c4n4ry", "\u{1}"] {
            let token = BASE64_URL_SAFE_NO_PAD.encode(marker);
            let target = format!("/photos?list-type=2&continuation-token={token}");
            let reply = world.fetch("GET", &target);
            for key in elements(&reply.assert_ok().text(), "Key") {
                assert!(KEYS.contains(&key.replace("&amp;", "&").as_str()), "{key}");
            }
            assert_eq!(element(&reply.text(), "ContinuationToken"), token);
        }
        for token in ["*", "YQ==", "_w", "%00"] {
            let target = format!("/photos?list-type=2&continuation-token={token}");
            world
                .fetch("GET", &target)
                .assert_error(400, "InvalidArgument");
        }
        // The token of another grant means a key in one's own names.
        let page = world.fetch("GET", "/photos?list-type=2&max-keys=1");
        let token = element(&page.assert_ok().text(), "NextContinuationToken");
        let target = format!("/inbox?list-type=2&prefix=in%2F&continuation-token={token}");
        let reply = world.fetch("GET", &target);
        assert_eq!(elements(&reply.assert_ok().text(), "Key"), ["in/k"]);
        let lone = world.fetch("GET", "/photos?versions&version-id-marker=x");
        lone.assert_error(400, "InvalidArgument");
    }
}

#[test]
fn uploads_use_client_names() {
    for signature in SIGNATURES {
        let world = filled(signature);
        let key = "up/ü &";
        let path = format!("/photos/{}", url(key).replace("%2F", "/"));
        let created = world.fetch("POST", &format!("{path}?uploads"));
        let id = element(&created.assert_ok().text(), "UploadId");
        let part = world.signed("PUT", &format!("{path}?partNumber=1&uploadId={id}"));
        let part = part.header("x-amz-copy-source", "/photos/c").fetch();
        let etag = element(&part.assert_ok().text(), "ETag");
        let other = world.fetch("POST", "/photos/up/z?uploads");
        let other = element(&other.assert_ok().text(), "UploadId");

        let listed = world.fetch("GET", "/photos?uploads&max-uploads=1&prefix=up%2F");
        let text = listed.assert_ok().text();
        assert_eq!(elements(&text, "Key"), ["up/z"]);
        assert_eq!(element(&text, "NextKeyMarker"), "up/z");
        let target = format!("/photos?uploads&key-marker=up%2Fz&upload-id-marker={other}");
        let next = world.fetch("GET", &target);
        assert_eq!(elements(&next.assert_ok().text(), "Key"), ["up/ü &amp;"]);
        let folded = world.fetch("GET", "/photos?uploads&delimiter=%2F&encoding-type=url");
        let group = element(&folded.assert_ok().text(), "CommonPrefixes");
        assert_eq!(decoded(&element(&group, "Prefix")), "up/");

        let parts = world.fetch("GET", &format!("{path}?uploadId={id}"));
        assert_eq!(element(&parts.assert_ok().text(), "PartNumber"), "1");
        let body = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        );
        let complete = world.signed("POST", &format!("{path}?uploadId={id}"));
        let complete = complete.body(body).fetch();
        assert_eq!(
            element(&complete.assert_ok().text(), "Location"),
            format!(
                "http://{}/photos/{}",
                world.gateway.addr,
                url(key).replace("%2F", "/")
            )
        );
        for reply in [created, listed, next, folded, parts, complete] {
            assert_says_nothing(&reply);
            for name in ["Key", "Bucket"] {
                let all = elements(&reply.text(), name);
                let own = ["up/ü &amp;", "up/z", "photos"];
                assert!(
                    all.iter().all(|text| own.contains(&text.as_str())),
                    "{all:?}"
                );
            }
        }
        assert_eq!(world.stored(&format!("{ROOT}{key}")).as_deref(), Some("c"));
        world
            .fetch("DELETE", &format!("/photos/up/z?uploadId={other}"))
            .assert_ok();
    }
}

#[test]
fn copies_between_own_buckets() {
    for signature in SIGNATURES {
        let world = filled(signature);
        world.put("/plain/acme/p%20q", "plain's");
        world.put("/away/from", "far");
        for (source, target, real_bucket, real, body) in [
            (
                "/photos/b/2%26",
                "/away/to/x%2B",
                FAR,
                "c4n4ry-far/to/x+",
                "b/2&",
            ),
            ("photos/b%2F1", "/plain/acme/y", FAR, "acme/y", "b/1"),
            (
                "/plain/acme/p+q",
                "/photos/back",
                BUCKET,
                "c4n4ry (1)/中+/back",
                "plain's",
            ),
            (
                "/away/to/x%2B",
                "/inbox/in/z",
                BUCKET,
                "c4n4ry-inbox/in/z",
                "b/2&",
            ),
            ("/away/from", "/plain/acme/z", FAR, "acme/z", "far"),
            ("/photos/c", "/inbox/in/c", BUCKET, "c4n4ry-inbox/in/c", "c"),
            (
                "/photos/c?versionId=null",
                "/photos/c2",
                BUCKET,
                "c4n4ry (1)/中+/c2",
                "c",
            ),
        ] {
            world.emulator.counters().reset();
            let copy = world.signed("PUT", target);
            let copy = copy.header("x-amz-copy-source", source).fetch();
            assert_says_nothing(&copy);
            let away = |path: &str| path.contains("away") || path.contains("plain");
            if signature == "s3" && away(source) != away(target) {
                copy.assert_error(501, "NotImplemented");
                assert!(copy.text().contains("signature = "));
                assert_eq!(world.upstream_requests(), 0, "{source}");
                continue;
            }
            assert!(copy.assert_ok().text().contains("<CopyObjectResult"));
            let stored = world.emulator.object_bytes(real_bucket, real).unwrap();
            assert_eq!(String::from_utf8(stored).unwrap(), body, "{source}");
            let heads = world.emulator.counters().heads();
            let sent = heads[0].headers.iter();
            let (_, sent) = sent
                .clone()
                .find(|(name, _)| name.ends_with("copy-source"))
                .unwrap();
            assert_eq!(
                sent.ends_with("?versionId=null"),
                source.contains('?'),
                "{sent}"
            );
            if signature == "cos" {
                let away = source.contains("plain") || source.contains("away");
                let region = if away { "ap-beijing" } else { "ap-guangzhou" };
                assert!(sent.contains(&format!(".cos.{region}.")), "{sent}");
            }
        }
        world.emulator.counters().reset();
        for source in [
            "/inbox/out",
            "/plain/other/x",
            "/photos/../x",
            "/shared-1250000000/z",
            "/globex/z",
        ] {
            let copy = world.signed("PUT", "/photos/stolen");
            let copy = copy.header("x-amz-copy-source", source).fetch();
            assert!(matches!(copy.status, 400 | 403), "{source}");
            assert_says_nothing(&copy);
        }
        for (source, code) in [
            ("arn:aws:s3:::photos/c", "InvalidArgument"),
            ("photos.cos.ap-guangzhou.myqcloud.com/c", "InvalidArgument"),
            ("", "InvalidArgument"),
        ] {
            let copy = world.signed("PUT", "/photos/stolen");
            copy.header("x-amz-copy-source", source)
                .fetch()
                .assert_error(400, code);
        }
        let twice = world.signed("PUT", "/photos/stolen");
        let twice = twice.header("x-amz-copy-source", "/photos/c");
        let twice = twice.header("x-amz-copy-source", "/photos/c").fetch();
        twice.assert_error(400, "InvalidArgument");
        let into = world.signed("PUT", "/inbox/out");
        let into = into.header("x-amz-copy-source", "/photos/c").fetch();
        into.assert_error(403, "AccessDenied");
        assert_eq!(world.upstream_requests(), 0);
    }
}

#[test]
fn multi_delete_responds_with_client_names() {
    for signature in SIGNATURES {
        let world = filled(signature);
        world.put("/inbox/in/x", "x");
        for quiet in [false, true] {
            world.put("/inbox/in/y", "y");
            let objects: String = ["in/y", "in/absent", "out", "../z", "c4n4ry-inbox/in/x"]
                .map(|key| format!("<Object><Key>{key}</Key></Object>"))
                .concat();
            let body = format!("<Delete><Quiet>{quiet}</Quiet>{objects}</Delete>");
            let reply = world.signed("POST", "/inbox?delete").body(body).fetch();
            let text = reply.assert_ok().text();
            let keys = |name: &str| -> Vec<String> {
                let mut keys: Vec<_> = elements(&text, name)
                    .iter()
                    .map(|e| element(e, "Key"))
                    .collect();
                keys.sort();
                keys
            };
            let deleted: &[&str] = if quiet { &[] } else { &["in/absent", "in/y"] };
            assert_eq!(keys("Deleted"), deleted);
            assert_eq!(keys("Error"), ["../z", "c4n4ry-inbox/in/x", "out"]);
            assert_eq!(elements(&text, "Code"), ["AccessDenied"; 3]);
            assert_eq!(world.stored("c4n4ry-inbox/in/y"), None);
        }
        assert_eq!(world.stored("c4n4ry-inbox/in/x").as_deref(), Some("x"));
        assert_eq!(world.stored("z").as_deref(), Some("outside"));
        // cosgate allows it, but the temporary key does not. The error of COS must have the client's key.
        let body = "<Delete><Object><Key>c</Key></Object></Delete>";
        let reply = world.signed("POST", "/photos?delete").body(body).fetch();
        assert_eq!(element(&reply.assert_ok().text(), "Key"), "c");
        assert_says_nothing(&reply);
    }
}

#[test]
fn rejects_ambiguous_multi_deletes() {
    let world = filled("s3");
    world.emulator.counters().reset();
    let object = "<Object><Key>c</Key></Object>";
    let many = format!("<Delete>{}</Delete>", object.repeat(1001));
    let utf16: Vec<u8> =
        format!("<?xml version='1.0' encoding='utf-16'?><Delete>{object}</Delete>")
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
    for body in [
        many.into_bytes(),
        utf16,
        format!("<?xml version='1.0' encoding='latin1'?><Delete>{object}</Delete>").into_bytes(),
        format!("<!DOCTYPE Delete><Delete>{object}</Delete>").into_bytes(),
        b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><Delete><Object><Key>&e;</Key></Object></Delete>".to_vec(),
        b"<Delete><Object><Key>&unknown;</Key></Object></Delete>".to_vec(),
        b"<Delete><Object><Key>c</Key><Key>e</Key></Object></Delete>".to_vec(),
        b"<Delete><Object><Key>c</Key><VersionId>1</VersionId><VersionId>2</VersionId></Object></Delete>".to_vec(),
        format!("<Delete><Quiet>true</Quiet><Quiet>false</Quiet>{object}</Delete>").into_bytes(),
        format!("<Delete>{object}</Delete><Delete>{object}</Delete>").into_bytes(),
        b"<Delete><Object><Key>c<!-- -->d</Key></Object></Delete>".to_vec(),
        b"<Delete><Object><Key>c\xff</Key></Object></Delete>".to_vec(),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(90)]).into_owned();
        let reply = world.signed("POST", "/photos?delete").body(body).fetch();
        assert_eq!((reply.status, reply.code().as_str()), (400, "MalformedXML"), "{shown}");
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn listing_without_a_prefix_shows_the_grant() {
    for signature in SIGNATURES {
        let world = world(signature);
        for key in ["x", "d/y"] {
            world.put(&format!("/plain/acme/{key}"), key);
        }
        plant_far(&world, "acm", "outside");
        for form in ["", "list-type=2&", "versions&"] {
            for prefix in ["", "a", "acme"] {
                let target = format!("/plain?{form}max-keys=5&prefix={prefix}");
                let text = world.fetch("GET", &target).assert_ok().text();
                assert_eq!(elements(&text, "Key"), ["acme/d/y", "acme/x"], "{target}");
                assert_eq!(element(&text, "Prefix"), prefix);
                let text = world.fetch("GET", &format!("{target}&delimiter=/"));
                let text = text.assert_ok().text();
                let shown = elements(&text, "CommonPrefixes");
                assert_eq!(shown, ["<Prefix>acme/</Prefix>"], "{target}");
                assert!(elements(&text, "Key").is_empty(), "{text}");
            }
            for prefix in ["b", "acmes", "%2F", "other%2F"] {
                let target = format!("/plain?{form}prefix={prefix}");
                world
                    .fetch("GET", &target)
                    .assert_error(403, "AccessDenied");
            }
            // Its own folder and one key are granted. COS would show other keys beside that one.
            let target = format!("/inbox?{form}max-keys=5");
            world
                .fetch("GET", &target)
                .assert_error(403, "AccessDenied");
        }
        let uploads = world.fetch("GET", "/plain?uploads");
        assert_eq!(element(&uploads.assert_ok().text(), "Prefix"), "");
        // A client that treats the bucket as a file system finds the folder, whether an object has its name or not. It finds
        // no object of the name without its slash.
        assert_eq!(world.fetch("HEAD", "/plain").status, 200);
        let folder = world.fetch("HEAD", "/plain/acme/");
        assert_eq!(folder.status, 200);
        assert_eq!(folder.header("content-length"), Some("0"));
        world
            .fetch("GET", "/plain/acme/")
            .assert_error(404, "NoSuchKey");
        for (target, status) in [
            ("/plain/acme/e/", 404),
            ("/plain/acme", 404),
            ("/plain/ac", 403),
            ("/plain/other/", 403),
        ] {
            assert_eq!(world.fetch("HEAD", target).status, status, "{target}");
        }
        world.put("/plain/acme/", "made");
        let folder = world.fetch("HEAD", "/plain/acme/");
        assert_eq!(folder.header("content-length"), Some("4"));
    }
}

#[test]
fn accepts_keys_that_begin_with_a_slash() {
    for signature in SIGNATURES {
        let world = world(signature);
        for (key, target) in [("/x", "/photos//x"), ("//y z", "/photos/%2F%2Fy%20z")] {
            world.put(target, key);
            assert_eq!(world.stored(&format!("{ROOT}{key}")).as_deref(), Some(key));
            assert_eq!(world.fetch("GET", target).assert_ok().text(), key);
            assert_eq!(world.fetch("HEAD", target).status, 200);
        }
        let copy = world.signed("PUT", "/photos//copy");
        let copy = copy.header("x-amz-copy-source", "photos//x");
        copy.fetch().assert_ok();
        let list = world.fetch("GET", "/photos?list-type=2&prefix=/");
        let text = list.assert_ok().text();
        assert_eq!(elements(&text, "Key"), ["//y z", "/copy", "/x"]);
        let list = world.fetch("GET", "/photos?delimiter=/&prefix=");
        let text = list.assert_ok().text();
        assert_eq!(
            elements(&text, "CommonPrefixes"),
            ["<Prefix>/</Prefix>"],
            "{text}"
        );
        let body =
            "<Delete><Object><Key>/x</Key></Object><Object><Key>/copy</Key></Object></Delete>";
        let delete = world.signed("POST", "/photos?delete").body(body);
        let text = delete.fetch().assert_ok().text();
        assert_eq!(elements(&text, "Deleted").len(), 2, "{text}");
        assert_eq!(world.stored(&format!("{ROOT}/x")), None);
        for target in ["/photos//../x", "/photos/%2F%2E%2E%2Fx", "/plain//x"] {
            world.fetch("GET", target).assert_error(400, "InvalidURI");
        }
    }
}

/// All requests for the bucket `photos`: method, target, body, copy source.
const REQUESTS: [(&str, &str, &str, &str); 26] = [
    ("GET", "/photos/k", "", ""),
    ("HEAD", "/photos/k", "", ""),
    ("PUT", "/photos/k", "x", ""),
    ("DELETE", "/photos/k", "", ""),
    ("PUT", "/photos/k", "", "/photos/c"),
    ("GET", "/photos/k?tagging", "", ""),
    (
        "PUT",
        "/photos/k?tagging",
        "<Tagging><TagSet/></Tagging>",
        "",
    ),
    ("DELETE", "/photos/k?tagging", "", ""),
    ("POST", "/photos/k?uploads", "", ""),
    ("PUT", "/photos/k?partNumber=1&uploadId=u", "x", ""),
    ("PUT", "/photos/k?partNumber=1&uploadId=u", "", "/away/c"),
    ("GET", "/photos/k?uploadId=u", "", ""),
    (
        "POST",
        "/photos/k?uploadId=u",
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>",
        "",
    ),
    ("DELETE", "/photos/k?uploadId=u", "", ""),
    ("GET", "/photos", "", ""),
    ("GET", "/photos?list-type=2&fetch-owner=true", "", ""),
    ("GET", "/photos?versions", "", ""),
    ("GET", "/photos?uploads", "", ""),
    ("GET", "/photos?encoding-type=url&prefix=k", "", ""),
    (
        "POST",
        "/photos?delete",
        "<Delete><Object><Key>k</Key></Object></Delete>",
        "",
    ),
    ("GET", "/", "", ""),
    ("HEAD", "/photos", "", ""),
    ("GET", "/photos?location", "", ""),
    ("PUT", "/photos", "", ""),
    ("GET", "/unknown/k", "", ""),
    ("GET", "/inbox/out", "", ""),
];

fn send_all_requests(addr: std::net::SocketAddr) -> Vec<Reply> {
    let send = |(method, target, body, source): &(&str, &str, &str, &str)| {
        let mut call = Call::new(addr, method, target).body(*body);
        if !source.is_empty() {
            call = call.header("x-amz-copy-source", source);
        }
        let reply = call.signed_by(support::ACME).send();
        assert_says_nothing(&reply);
        reply
    };
    REQUESTS.iter().map(send).collect()
}

#[test]
fn responses_hide_the_real_store() {
    for signature in SIGNATURES {
        let world = filled(signature);
        let replies = send_all_requests(world.gateway.addr);
        let ok = replies.iter().filter(|reply| reply.status < 300).count();
        assert!(ok > 12, "{ok}");
        for key in world.emulator.issued_keys() {
            for reply in &replies {
                let shown = format!("{:?} {}", reply.headers, reply.text());
                assert!(!shown.contains(&key));
            }
        }
    }
}

/// A response that reveals everything: in its headers, and in every element of an error.
fn indiscreet(status: u16, code: &str) -> String {
    let root = "c4n4ry (1)/中+/k";
    let document = format!(
        "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{code}</Code>\
         <Message>{root} in {BUCKET} of 1250000000 by AKIDevil</Message><Key>{root}</Key>\
         <Resource>/{BUCKET}/{root}</Resource><BucketName>{BUCKET}</BucketName>\
         <HostId>{BUCKET}.cos.ap-guangzhou.myqcloud.com</HostId><StringToSign>q-sign TOKEN</StringToSign>\
         <Endpoint>{BUCKET}.cos.ap-beijing.myqcloud.com</Endpoint><AWSAccessKeyId>AKIDevil</AWSAccessKeyId>\
         <RequestId>NWQ=</RequestId></Error>"
    );
    format!(
        "HTTP/1.1 {status} {BUCKET}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         x-cos-request-id: NWQ=\r\nLocation: https://{BUCKET}.cos.ap-beijing.myqcloud.com/c4n4ry\r\n\
         x-amz-copy-source: /{BUCKET}/c4n4ry\r\nx-cos-copy-source: {BUCKET}/c4n4ry\r\nServer: evil\r\n\
         Set-Cookie: TOKEN\r\nx-cos-security-token: TOKEN\r\nx-cos-unheard: {BUCKET}\r\n\
         Content-Location: /c4n4ry\r\nLink: <c4n4ry>\r\nVia: evil\r\nWWW-Authenticate: q-sign\r\n\
         x-amz-website-redirect-location: /c4n4ry\r\n\r\n{document}",
        document.len()
    )
}

/// cosgate with the grants of these tests in front of a scripted COS.
fn scripted(signature: &str, acts: Vec<Act>) -> Scripted {
    let emulator = support::emulator();
    let script = support::Script::new(acts);
    let toml = support::toml(script.addr, emulator.sts_addr(), "");
    let spoken = format!("[upstream]\nsignature = \"{signature}\"");
    let gateway = Gateway::start(&grants(&toml.replacen("[upstream]", &spoken, 1)));
    Scripted {
        gateway,
        script,
        emulator,
    }
}

/// Reads every request with its body, and responds with `response`; to HEAD without its body.
fn always(response: String) -> Act {
    act(move |peer| {
        while let Some(head) = peer.head() {
            let length = header_of(&head, "content-length").map_or(0, |l| l.parse().unwrap());
            peer.body(length);
            if head.starts_with("HEAD") {
                let (head, _) = response.split_once("\r\n\r\n").unwrap();
                peer.respond(&format!("{head}\r\n\r\n"));
            } else {
                peer.respond(&response);
            }
        }
    })
}

#[test]
fn errors_hide_the_real_store() {
    for signature in SIGNATURES {
        for (status, code) in [
            (301, "PermanentRedirect"),
            (307, "TemporaryRedirect"),
            (400, "InvalidArgument"),
            (400, "KeyTooLong"),
            (403, "AccessDenied"),
            (403, "InvalidAccessKeyId"),
            (403, "PathStyleDomainForbidden"),
            (403, "RequestTimeTooSkewed"),
            (403, "SignatureDoesNotMatch"),
            (404, "NoSuchBucket"),
            (404, "NoSuchKey"),
            (404, "NoSuchUpload"),
            (405, "MethodNotAllowed"),
            (409, "PathConflict"),
            (412, "PreconditionFailed"),
            (416, "InvalidRange"),
            (429, "SlowDown"),
            (451, "UnavailableForLegalReasons"),
            (500, "InternalError"),
            (503, "ServiceUnavailable"),
            (504, "Timeout"),
        ] {
            let world = scripted(signature, vec![always(indiscreet(status, code))]);
            for (reply, request) in send_all_requests(world.gateway.addr).iter().zip(REQUESTS) {
                let local = matches!(request.1, "/" | "/photos?location")
                    || matches!((request.0, request.1), ("HEAD", "/photos"));
                assert!(reply.status >= 400 || local, "{request:?} {status}");
            }
        }
    }
}

#[test]
fn errors_in_a_200_hide_the_real_store() {
    for signature in SIGNATURES {
        let world = scripted(signature, vec![always(indiscreet(200, "InternalError"))]);
        for (method, target, body, source) in REQUESTS {
            let rewritten = !source.is_empty()
                || method == "POST"
                || (method == "GET" && (target.contains("uploadId") || !target.contains("/k")));
            if !rewritten {
                continue; // an object's bytes may be anything
            }
            let mut call = Call::new(world.gateway.addr, method, target).body(body);
            if !source.is_empty() {
                call = call.header("x-amz-copy-source", source);
            }
            let reply = call.signed_by(support::ACME).send();
            assert_says_nothing(&reply);
        }
    }
}

/// Each text of COS that could reveal the store, one at a time.
const REVEALING: [&str; 11] = [
    "shared-1250000000",
    "of the account 1250000000",
    "c4n4ry (1)/中+/k is gone",
    "c4n4ry%20(1)/%E4%B8%AD%2B/k",
    "c4n4ry%20%281%29%2F%E4%B8%AD%2B%2Fk",
    "c4n4ry+(1)/中+/k",
    "no folder c4n4ry (1)/中+",
    "no source c4n4ry-far/c",
    "no source c4n4ry-far",
    "evil.example",
    "key AKIDx",
];

/// Responds with failures that contain `revealing`: deletes and parts inside a success, others as errors.
fn failing(revealing: &'static str) -> Act {
    act(move |peer| {
        while let Some(head) = peer.head() {
            let length = header_of(&head, "content-length").map_or(0, |l| l.parse().unwrap());
            peer.body(length);
            if head.starts_with("POST") {
                let result = format!(
                    "<DeleteResult><Error><Key>{ROOT}k</Key><Code>{revealing}</Code>\
                     <Message>{revealing}</Message></Error></DeleteResult>"
                );
                let length = result.len();
                peer.respond(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{result}"
                ));
            } else if head.contains("partNumber=1&") {
                peer.respond(&cos_error(200, "Failed", revealing));
            } else if head.contains("partNumber=") {
                peer.respond(&cos_error(200, revealing, ""));
            } else {
                peer.respond(&cos_error(404, "NoSuchKey", revealing));
            }
        }
    })
}

#[test]
fn removes_texts_that_reveal_the_store() {
    for signature in SIGNATURES {
        for revealing in REVEALING {
            let world = scripted(signature, vec![failing(revealing)]);
            for target in [
                "/photos/k",
                "/photos/k?partNumber=1&uploadId=u",
                "/photos/k?partNumber=2&uploadId=u",
            ] {
                let copy = world.signed("PUT", target);
                let copy = copy.header("x-amz-copy-source", "/away/c");
                assert_says_nothing(&copy.signed_by(support::ACME).send());
            }
            if revealing.contains("far") {
                continue; // other requests do not concern that grant
            }
            let body = "<Delete><Object><Key>k</Key></Object></Delete>";
            let reply = world.signed("POST", "/photos?delete").body(body).fetch();
            assert_eq!(element(&reply.text(), "Key"), "k");
            assert_says_nothing(&reply);
        }
    }
}

#[test]
fn listing_hides_the_account() {
    for signature in SIGNATURES {
        for target in [
            "/photos",
            "/photos?list-type=2&fetch-owner=true",
            "/photos?versions",
        ] {
            let root = root_of(target);
            let listing = format!(
                "<{root}><IsTruncated>false</IsTruncated><Contents><Key>{ROOT}k</Key><Bucket>{BUCKET}</Bucket>\
                 <Owner><ID>1250000000</ID><UIN>1250000000</UIN><No>1250000000</No></Owner></Contents></{root}>"
            );
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{listing}",
                listing.len()
            );
            let world = scripted(signature, vec![always(response)]);
            let reply = world.signed("GET", target).fetch();
            assert_eq!(element(&reply.text(), "Key"), "k");
            assert_says_nothing(&reply);
        }
    }
}

/// The root element of a listing.
fn root_of(target: &str) -> &'static str {
    if target.contains("versions") {
        "ListVersionsResult"
    } else if target.contains("uploads") {
        "ListMultipartUploadsResult"
    } else {
        "ListBucketResult"
    }
}

/// Waits for the alarm about the request of this response in the program's log.
#[track_caller]
fn assert_alarm(reply: &Reply) {
    let id = reply.header("x-amz-request-id").unwrap();
    let is_alarm = |line: &str| line.contains("ERROR") && line.contains(id);
    let log = Log::of_program();
    support::eventually("an alarm", || log.text().lines().any(is_alarm));
}

#[test]
fn cuts_a_listing_outside_the_grant() {
    Log::of_program();
    let inside = "<Contents><Key>c4n4ry (1)/中+/a</Key></Contents>";
    for signature in SIGNATURES {
        for (target, shown) in [
            ("/photos", "<Contents><Key>evil</Key></Contents>"),
            ("/photos", "<Contents><Key>c4n4ry (1)/evil</Key></Contents>"),
            (
                "/photos",
                "<CommonPrefixes><Prefix>c4n4ry (1)/</Prefix></CommonPrefixes>",
            ),
            ("/photos", "<NextMarker>evil</NextMarker>"),
            ("/photos?list-type=2", "<NextMarker>evil</NextMarker>"),
            (
                "/photos?list-type=2",
                "<Contents><Key>evil</Key></Contents>",
            ),
            ("/photos?versions", "<Version><Key>evil</Key></Version>"),
            (
                "/photos?versions",
                "<DeleteMarker><Key>evil</Key></DeleteMarker>",
            ),
            ("/photos?uploads", "<Upload><Key>evil</Key></Upload>"),
            ("/photos?uploads", "<NextKeyMarker>evil</NextKeyMarker>"),
            ("/photos", "<Unheard><Key>evil</Key></Unheard>"),
            (
                "/inbox?prefix=in%2F",
                "<Contents><Key>c4n4ry-inbox/out</Key></Contents>",
            ),
        ] {
            let first = if target.starts_with("/photos") {
                inside
            } else {
                ""
            };
            let root = root_of(target);
            let start = format!("<{root}>{first}");
            let rest = format!("{shown}{inside}</{root}>");
            for at_once in [true, false] {
                let (start, rest) = (start.clone(), rest.clone());
                let world = scripted(signature, vec![in_two(start, rest, at_once)]);
                let mut client = Client::connect(world.gateway.addr);
                client.write(&world.signed("GET", target).bytes());
                let reply = client.read_reply("GET");
                if at_once {
                    reply.assert_error(502, "BadGateway");
                } else {
                    assert!(!reply.whole, "{target} {shown}: {}", reply.text());
                }
                assert_says_nothing(&reply);
                let name = "cosgate_answers_out_of_scope_total";
                support::eventually("it is counted", || world.gateway.metric(name, "") == 1);
                assert_alarm(&reply);
                world
                    .gateway
                    .log
                    .assert_contains("outside the caller's grants");
            }
        }
    }
}

/// Responds with a document in two parts: both at once, or the second after the first was read.
fn in_two(start: String, rest: String, at_once: bool) -> Act {
    act(move |peer| {
        while peer.head().is_some() {
            let length = start.len() + rest.len();
            peer.respond(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: application/xml\r\n\r\n"
            ));
            if at_once {
                peer.respond(&format!("{start}{rest}"));
            } else {
                peer.respond(&start);
                peer.client.wait_until_read();
                peer.respond(&rest);
            }
        }
    })
}

#[test]
fn hides_delete_results_outside_the_grant() {
    Log::of_program();
    for result in [
        "<Deleted><Key>evil</Key></Deleted>",
        "<Error><Key>c4n4ry (1)/evil</Key><Code>AccessDenied</Code></Error>",
    ] {
        let document = format!("<DeleteResult>{result}</DeleteResult>");
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: application/xml\r\n\r\n{document}",
            document.len()
        );
        let world = scripted("s3", vec![always(response)]);
        let body = "<Delete><Object><Key>k</Key></Object></Delete>";
        let reply = world.signed("POST", "/photos?delete").body(body).fetch();
        reply.assert_error(502, "BadGateway");
        assert_says_nothing(&reply);
        let name = "cosgate_answers_out_of_scope_total";
        assert_eq!(world.gateway.metric(name, ""), 1);
        assert_alarm(&reply);
    }
}

#[test]
fn unknown_document_raises_no_alarm() {
    let response = cos_error(200, "x", "x").replace("Error>", "Html>");
    let world = scripted("s3", vec![always(response)]);
    let reply = world.signed("GET", "/photos").fetch();
    reply.assert_error(502, "BadGateway");
    world.gateway.log.assert_contains("cannot be read");
    let name = "cosgate_answers_out_of_scope_total";
    assert_eq!(world.gateway.metric(name, ""), 0);
}
