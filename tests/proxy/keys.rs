//! Keys that other proxies change in transit.

use crate::support::{SIGNATURES, World, element, elements};

/// A path under `/photos/`, its key, and the target that COS must get.
const ODD: [(&str, &str, &str); 14] = [
    ("acme/a%20b", "acme/a b", "/acme/a%20b"),
    ("acme/a%2520b", "acme/a%20b", "/acme/a%2520b"),
    ("acme/100%25", "acme/100%", "/acme/100%25"),
    ("acme/a+b", "acme/a+b", "/acme/a%2Bb"),
    ("acme/a%2Bb2", "acme/a+b2", "/acme/a%2Bb2"),
    ("acme/a//b", "acme/a//b", "/acme/a//b"),
    ("acme//", "acme//", "/acme//"),
    ("acme/dir/", "acme/dir/", "/acme/dir/"),
    (
        "acme/%E4%B8%AD%E6%96%87.txt",
        "acme/中文.txt",
        "/acme/%E4%B8%AD%E6%96%87.txt",
    ),
    ("acme/'()*~", "acme/'()*~", "/acme/%27%28%29%2A~"),
    (
        "acme/!$&,:;=@",
        "acme/!$&,:;=@",
        "/acme/%21%24%26%2C%3A%3B%3D%40",
    ),
    ("acme/a%3Fb%23c", "acme/a?b#c", "/acme/a%3Fb%23c"),
    ("acme/...", "acme/...", "/acme/..."),
    ("acme/a%2Fb", "acme/a/b", "/acme/a/b"),
];

#[test]
fn forwards_unusual_keys_unchanged() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for (path, key, target) in ODD {
            let path = format!("/photos/{path}");
            world.put(&path, key);
            assert_eq!(world.stored(key).as_deref(), Some(key), "{signature}");
            let heads = world.emulator.counters().heads();
            assert_eq!(heads.last().unwrap().target, target, "{signature}");
            assert_eq!(world.fetch("GET", &path).assert_ok().text(), key);
            world.signed("GET", &path).presigned(60).fetch().assert_ok();
            world.fetch("HEAD", &path).assert_ok();
        }
        let listing = world.fetch("GET", "/photos?prefix=acme%2F");
        let listed = elements(&listing.assert_ok().text(), "Key");
        assert_eq!(listed.len(), ODD.len());
        for (path, key, _) in ODD {
            let shown = key.replace('&', "&amp;").replace('\'', "&apos;");
            assert!(
                listed
                    .iter()
                    .any(|listed| *listed == shown || listed == key),
                "{signature} {key} not in {listed:?}"
            );
            assert_eq!(
                world.fetch("DELETE", &format!("/photos/{path}")).status,
                204
            );
            assert_eq!(world.stored(key), None, "{signature}");
        }
    }
}

#[test]
fn copies_from_unusual_keys() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for (path, key, _) in ODD {
            world.put(&format!("/photos/{path}"), key);
            let path = path.replace('+', "%2B"); // S3 reads a + in this header as a space
            let copy = world
                .signed("PUT", "/photos/acme/copy")
                .header("x-amz-copy-source", &format!("/photos/{path}"))
                .fetch();
            copy.assert_ok();
            assert_eq!(world.stored("acme/copy").as_deref(), Some(key));
        }
    }
}

#[test]
fn multi_delete_accepts_unusual_keys() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for (path, key, _) in ODD {
            world.put(&format!("/photos/{path}"), key);
            let body = format!(
                "<Delete><Object><Key>{}</Key></Object></Delete>",
                key.replace('&', "&amp;")
            );
            let reply = world.signed("POST", "/photos?delete").body(body).fetch();
            assert_eq!(element(&reply.assert_ok().text(), "Error"), "");
            assert_eq!(world.stored(key), None, "{signature} {key}");
        }
    }
}

#[test]
fn accepts_virtual_hosted_style() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let port = world.gateway.addr.port();
        let host = format!("photos.s3.localhost:{port}");
        let hosted =
            |method: &str, target: &str| world.signed(method, target).header("host", &host);

        hosted("PUT", "/acme/a%20b")
            .body("hello")
            .fetch()
            .assert_ok();
        assert_eq!(world.stored("acme/a b").as_deref(), Some("hello"));
        assert_eq!(hosted("GET", "/acme/a%20b").fetch().text(), "hello");
        assert_eq!(world.fetch("GET", "/photos/acme/a%20b").text(), "hello");
        let presigned = hosted("GET", "/acme/a%20b").presigned(60);
        assert_eq!(presigned.fetch().text(), "hello");
        let listing = hosted("GET", "/?list-type=2&prefix=acme%2F").fetch();
        assert_eq!(element(&listing.assert_ok().text(), "Name"), "photos");
        assert_eq!(element(&listing.text(), "Key"), "acme/a b");
        assert_eq!(hosted("HEAD", "/").fetch().status, 200);
        // The whole path is the key.
        hosted("GET", "/photos/acme/a%20b")
            .fetch()
            .assert_error(403, "AccessDenied");
    }
}
