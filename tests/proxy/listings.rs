//! Listings: versions 1 and 2 and object versions, page by page, with the client's names.

use cosgate::encoding::percent::push_encoded;

use crate::support::{SIGNATURES, World, element, elements};

const KEYS: [&str; 6] = ["a", "b/1", "b/2", "c", "d/3", "e"];

fn world(signature: &str) -> World {
    let world = World::speaking(signature);
    for key in KEYS {
        world.put(&format!("/photos/acme/{key}"), key);
    }
    world
}

/// Follows `next` from page to page. Gives all keys and common prefixes.
fn pages(world: &World, query: &str, next: &str, marker: &str) -> (usize, Vec<String>) {
    let (mut count, mut seen) = (0, Vec::new());
    let mut from = String::new();
    loop {
        let reply = world.fetch("GET", &format!("/photos?{query}{from}"));
        let text = reply.assert_ok().text();
        count += 1;
        assert_eq!(element(&text, "Name"), "photos");
        assert_eq!(element(&text, "Prefix"), "acme/");
        seen.extend(elements(&text, "Key"));
        for group in elements(&text, "CommonPrefixes") {
            seen.push(element(&group, "Prefix"));
        }
        if element(&text, "IsTruncated") == "false" {
            seen.sort();
            return (count, seen);
        }
        let at = element(&text, next);
        assert!(!at.is_empty() && count < 10, "{text}");
        from = format!("&{marker}=");
        push_encoded(&mut from, at.as_bytes());
    }
}

fn expected(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| format!("acme/{key}")).collect()
}

#[test]
fn list_v1_pages_by_marker() {
    for signature in SIGNATURES {
        let world = world(signature);
        let query = "prefix=acme%2F&max-keys=2";
        let (count, seen) = pages(&world, query, "NextMarker", "marker");
        assert_eq!((count, seen), (3, expected(&KEYS)), "{signature}");
        let query = "prefix=acme%2F&max-keys=2&delimiter=%2F";
        let (count, seen) = pages(&world, query, "NextMarker", "marker");
        assert_eq!((count, seen), (3, expected(&["a", "b/", "c", "d/", "e"])));
    }
}

/// XML has no form for some of them, so clients have names encoded.
#[test]
fn lists_keys_with_control_characters() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for n in 0..5 {
            world.put(&format!("/photos/acme/tab%09{n}%07"), "x");
        }
        let (mut from, mut seen) = (String::new(), Vec::new());
        while seen.len() < 5 {
            let query = "prefix=acme%2Ftab%09&max-keys=2&encoding-type=url";
            let reply = world.fetch("GET", &format!("/photos?{query}{from}"));
            let text = reply.assert_ok().text();
            let keys = elements(&text, "Key");
            assert!(!keys.is_empty(), "{text}");
            from = format!("&marker={}", keys[keys.len() - 1].replace('/', "%2F"));
            seen.extend(keys);
        }
        let expected: Vec<_> = (0..5).map(|n| format!("acme/tab%09{n}%07")).collect();
        assert_eq!(seen, expected, "{signature}");
        for name in ["delimiter", "encoding-type"] {
            let reply = world.fetch("GET", &format!("/photos?prefix=acme%2F&{name}=%09"));
            reply.assert_error(400, "InvalidArgument");
        }
    }
}

#[test]
fn list_v2_pages_by_token() {
    for signature in SIGNATURES {
        let world = world(signature);
        let query = "list-type=2&prefix=acme%2F&max-keys=2";
        let (next, marker) = ("NextContinuationToken", "continuation-token");
        let (count, seen) = pages(&world, query, next, marker);
        assert_eq!((count, seen), (3, expected(&KEYS)), "{signature}");
        let query = "list-type=2&prefix=acme%2F&max-keys=2&delimiter=%2F";
        let (count, seen) = pages(&world, query, next, marker);
        assert_eq!((count, seen), (3, expected(&["a", "b/", "c", "d/", "e"])));
        let rest = world.fetch(
            "GET",
            "/photos?list-type=2&prefix=acme%2F&start-after=acme%2Fc&fetch-owner=true",
        );
        let text = rest.assert_ok().text();
        assert_eq!(elements(&text, "Key"), expected(&["d/3", "e"]));
        assert_eq!(element(&text, "KeyCount"), "2", "{signature} {text}");
        assert_eq!(element(&text, "StartAfter"), "acme/c");
        let owner = element(&text, "Owner");
        assert_eq!(element(&owner, "ID"), "acme", "{signature} {text}");
    }
}

#[test]
fn pages_versions_by_key_marker() {
    for signature in SIGNATURES {
        let world = world(signature);
        let query = "versions&prefix=acme%2F&max-keys=2";
        let (count, seen) = pages(&world, query, "NextKeyMarker", "key-marker");
        assert_eq!((count, seen), (3, expected(&KEYS)), "{signature}");
    }
}

#[test]
fn encodes_keys_on_request() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put("/photos/acme/a%20b%2Bc", "x");
        for query in ["", "list-type=2&", "versions&"] {
            let target = format!("/photos?{query}prefix=acme%2F&encoding-type=url");
            let reply = world.fetch("GET", &target);
            let key = element(&reply.assert_ok().text(), "Key");
            let plain = key.replace('+', " ").replace("%20", " ");
            let plain = plain.replace("%2B", "+").replace("%2F", "/");
            assert_eq!(plain, "acme/a b+c", "{signature} {query}: {key}");
            assert_eq!(element(&reply.text(), "EncodingType"), "url");
        }
    }
}

#[test]
fn pages_uploads_and_parts() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let mut ids = Vec::new();
        for key in ["a", "b"] {
            let reply = world.fetch("POST", &format!("/photos/acme/{key}?uploads"));
            ids.push(element(&reply.assert_ok().text(), "UploadId"));
        }
        let first = world.fetch("GET", "/photos?uploads&prefix=acme%2F&max-uploads=1");
        let text = first.assert_ok().text();
        assert_eq!(element(&text, "Bucket"), "photos");
        assert_eq!(element(&text, "IsTruncated"), "true");
        assert_eq!(elements(&text, "Key"), ["acme/a"]);
        let (key, id) = (
            element(&text, "NextKeyMarker").replace('/', "%2F"),
            element(&text, "NextUploadIdMarker"),
        );
        let next = world.fetch(
            "GET",
            &format!("/photos?uploads&prefix=acme%2F&key-marker={key}&upload-id-marker={id}"),
        );
        assert_eq!(elements(&next.assert_ok().text(), "Key"), ["acme/b"]);

        for number in 1..=3 {
            let target = format!("/photos/acme/a?partNumber={number}&uploadId={}", ids[0]);
            world.put(&target, "part");
        }
        let target = format!("/photos/acme/a?uploadId={}&max-parts=2", ids[0]);
        let parts = world.fetch("GET", &target);
        let text = parts.assert_ok().text();
        assert_eq!(elements(&text, "PartNumber"), ["1", "2"]);
        assert_eq!(element(&text, "Bucket"), "photos");
        assert_eq!(element(&text, "NextPartNumberMarker"), "2");
        let parts = world.fetch("GET", &format!("{target}&part-number-marker=2"));
        assert_eq!(elements(&parts.assert_ok().text(), "PartNumber"), ["3"]);
    }
}
