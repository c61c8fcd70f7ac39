//! Completeness of listings: every listing shows all keys of the store on all pages. Covers both signatures, with
//! a root, a prefix or neither. A client may get an error, but never fewer keys.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

use crate::support::{
    self, ACME, BUCKET, Call, Client, Gateway, SIGNATURES, Scripted, act, element, elements,
};
use cosgate::emulator::Emulator;
use cosgate::encoding::percent::{percent_decode, push_encoded};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The root of the bucket `rooted`: every encoding changes its bytes.
const ROOT: &str = "c4n4ry (1)/中+/";
/// The prefix of the bucket `photos`.
const PREFIX: &str = "acme/";

/// The prefixes of the bucket `several`: they touch, do not end at a delimiter, and include an empty one.
const SEVERAL: [&str; 6] = [PREFIX, ROOT, "ac%me", "acmf", "nei", "nej"];

/// One real bucket in four views: `photos` with a prefix, `rooted` with a root, `whole` with all keys, and
/// `several` with some prefixes, listed from above.
fn gateway(emulator: &Emulator, signature: &str) -> Gateway {
    let toml = support::toml(emulator.cos_addr(), emulator.sts_addr(), "");
    Gateway::start(&grants(&toml, signature))
}

fn grants(toml: &str, signature: &str) -> String {
    let spoken = format!("[upstream]\nsignature = \"{signature}\"");
    let mut toml = toml.replacen("[upstream]", &spoken, 1);
    toml = toml.replace("actions = [", "shared = true\nactions = [");
    for (name, keys) in [
        ("rooted", format!("root = \"{ROOT}\"")),
        ("whole", "prefixes = [\"*\"]".to_owned()),
        (
            "several",
            format!("prefixes = [\"{}*\"]", SEVERAL.join("*\", \"")),
        ),
    ] {
        toml += &format!(
            "\n[[tenants.acme.grants]]\nname = \"{name}\"\nbucket = \"{BUCKET}\"\nregion = \"ap-guangzhou\"\n\
             {keys}\nshared = true\nactions = [\"read\", \"write\", \"list\"]\n"
        );
    }
    toml
}

/// The buckets and prefixes to list.
const VIEWS: [(&str, &str); 5] = [
    ("photos", PREFIX),
    ("rooted", ""),
    ("whole", ""),
    ("several", ""),
    ("several", "ac"),
];

/// A kind of listing, and how a client reads its pages.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Form {
    query: &'static str,
    size: &'static str,
    /// The elements that name the next page, and the parameters for them.
    next: &'static [(&'static str, &'static str)],
}

const FORMS: [Form; 4] = [
    Form {
        query: "",
        size: "max-keys",
        next: &[("NextMarker", "marker")],
    },
    Form {
        query: "list-type=2&",
        size: "max-keys",
        next: &[("NextContinuationToken", "continuation-token")],
    },
    Form {
        query: "versions&",
        size: "max-keys",
        next: &[
            ("NextKeyMarker", "key-marker"),
            ("NextVersionIdMarker", "version-id-marker"),
        ],
    },
    Form {
        query: "uploads&",
        size: "max-uploads",
        next: &[
            ("NextKeyMarker", "key-marker"),
            ("NextUploadIdMarker", "upload-id-marker"),
        ],
    },
];

#[derive(Clone, Copy, Debug)]
struct Walk {
    bucket: &'static str,
    prefix: &'static str,
    size: usize,
    delimiter: &'static str,
    encoded: bool,
}

/// A client of one connection.
struct Walker<'g> {
    gateway: &'g Gateway,
    client: Client,
}

impl<'g> Walker<'g> {
    fn new(gateway: &'g Gateway) -> Self {
        let client = Client::connect(gateway.addr);
        Self { gateway, client }
    }

    fn page(&mut self, target: &str) -> String {
        let call = Call::new(self.gateway.addr, "GET", target).signed_by(ACME);
        self.client.write(&call.bytes());
        let reply = self.client.read_reply("GET");
        assert!(reply.whole && reply.status == 200, "{target}: {reply:?}");
        reply.text()
    }

    /// Everything that the pages show, in the client's names and in order; and the number of pages.
    fn walk(&mut self, form: Form, walk: Walk) -> (usize, Vec<String>) {
        let mut base = format!("/{}?{}{}={}", walk.bucket, form.query, form.size, walk.size);
        for (name, value) in [("prefix", walk.prefix), ("delimiter", walk.delimiter)] {
            if !value.is_empty() {
                base += &parameter(name, value);
            }
        }
        if walk.encoded {
            base += "&encoding-type=url";
        }
        let (mut pages, mut seen, mut from) = (0, Vec::new(), String::new());
        loop {
            let text = self.page(&(base.clone() + &from));
            pages += 1;
            assert!(text.contains(" xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"));
            assert_eq!(
                element(&text, "EncodingType") == "url",
                walk.encoded,
                "{text}"
            );
            let before = seen.len();
            for entry in ["Contents", "Version", "Upload"] {
                seen.extend(elements(&text, entry).iter().map(|one| element(one, "Key")));
            }
            let groups = elements(&text, "CommonPrefixes");
            seen.extend(groups.iter().map(|one| element(one, "Prefix")));
            let shown = seen.len() - before;
            assert!(shown <= walk.size, "{shown} on a page: {base}");
            if element(&text, "IsTruncated") == "false" {
                return (
                    pages,
                    seen.iter().map(|name| read(name, walk.encoded)).collect(),
                );
            }
            // With a prefix, a page may be empty. The next page then starts at another key.
            let may_be_empty = walk.bucket == "several";
            assert!(
                (shown > 0 || may_be_empty) && pages < 3000,
                "it never ends: {base}"
            );
            let last = std::mem::take(&mut from);
            for (name, parameter_name) in form.next {
                let is_name = name.ends_with("KeyMarker") || *name == "NextMarker";
                let next = read(&element(&text, name), walk.encoded && is_name);
                if !next.is_empty() {
                    from += &parameter(parameter_name, &next);
                }
            }
            assert!(!from.is_empty() && from != last, "{text}");
        }
    }
}

fn parameter(name: &str, value: &str) -> String {
    let mut text = format!("&{name}=");
    push_encoded(&mut text, value.as_bytes());
    text
}

/// A name as a client reads it.
fn read(text: &str, encoded: bool) -> String {
    let text = quick_xml::escape::unescape(text).unwrap().into_owned();
    if !encoded {
        return text;
    }
    String::from_utf8(percent_decode(&text).unwrap().into_owned()).unwrap()
}

/// The entries that a listing must show of `names`, sorted.
fn expected(names: impl Iterator<Item = String>, walk: Walk) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut groups = Vec::new();
    for name in names.filter(|name| name.starts_with(walk.prefix)) {
        let rest = &name[walk.prefix.len()..];
        match rest.find(walk.delimiter) {
            Some(at) if !walk.delimiter.is_empty() => {
                groups.push(name[..walk.prefix.len() + at + walk.delimiter.len()].to_owned());
            }
            _ => all.push(name),
        }
    }
    groups.sort();
    groups.dedup();
    all.extend(groups);
    all.sort();
    all
}

/// The client's names of the store's keys in a bucket.
fn own(bucket: &str, stored: &[String]) -> Vec<String> {
    if bucket == "several" {
        let is_own = |key: &&String| SEVERAL.iter().any(|start| key.starts_with(start));
        return stored.iter().filter(is_own).cloned().collect();
    }
    let root = if bucket == "rooted" { ROOT } else { "" };
    let below = stored.iter().filter_map(|key| key.strip_prefix(root));
    below.map(str::to_owned).collect()
}

fn corpus() -> Vec<String> {
    let text = include_str!("../vectors/keys.txt");
    text.lines().map(str::to_owned).collect()
}

/// A key whose length with the root is at most 850 bytes.
fn name() -> impl Strategy<Value = String> {
    let room = 850 - ROOT.len();
    prop_oneof![
        4 => prop::sample::select(corpus()),
        3 => "[a-c./%+&;<>\"' =~_中é😀-]{1,12}",
        1 => "(token|secret|signature|akid|1250000000|shared-1250000000|a\\.b|%2F|%)(/|\\.|)[a-z]{0,3}",
        1 => ("[a-z中%. ]{1,3}", "[x%中]").prop_map(move |(start, fill)| {
            let mut long = start;
            while long.len() + fill.len() <= room {
                long += &fill;
            }
            long
        }),
    ]
    .prop_filter("room for the root", move |name| name.len() <= room)
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![1..=3usize, 4..=40usize, 41..=1000usize]
}

#[test]
fn lists_exactly_the_keys_of_the_store_page_by_page() {
    let emulator = support::emulator();
    let gateways = SIGNATURES.map(|signature| gateway(&emulator, signature));
    let mut walkers: Vec<_> = gateways.iter().map(Walker::new).collect();
    let keys = prop::collection::btree_set(name(), 1..80);
    let delimiter = prop::sample::select(vec!["", "/", "%", "a"]);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(12)
    };
    let walkers = std::cell::RefCell::new(&mut walkers);
    let outcome = TestRunner::new(config).run(
        &(keys, size(), delimiter, any::<bool>()),
        |(keys, size, delimiter, encoded)| {
            emulator.empty_bucket(BUCKET).unwrap();
            for key in keys.iter().take(size * 10) {
                for before in [PREFIX, ROOT] {
                    emulator
                        .put_object(BUCKET, &format!("{before}{key}"), b"")
                        .unwrap();
                    emulator
                        .create_upload(BUCKET, &format!("{before}{key}"))
                        .unwrap();
                }
                // A key may have more than one upload.
                if key.len() % 3 == 0 {
                    emulator
                        .create_upload(BUCKET, &format!("{PREFIX}{key}"))
                        .unwrap();
                }
            }
            for key in ["neighbour", "acm", "acme", "ac%me", "ac%n", "z"] {
                emulator.put_object(BUCKET, key, b"").unwrap();
                emulator.create_upload(BUCKET, key).unwrap();
            }
            let objects = emulator.object_keys(BUCKET);
            let uploads: Vec<_> = emulator
                .uploads(BUCKET)
                .into_iter()
                .map(|(key, _)| key)
                .collect();
            for walker in walkers.borrow_mut().iter_mut() {
                for (bucket, prefix) in VIEWS {
                    let walk = Walk {
                        bucket,
                        prefix,
                        size,
                        delimiter,
                        encoded,
                    };
                    for form in FORMS {
                        let stored = if form.query == "uploads&" {
                            &uploads
                        } else {
                            &objects
                        };
                        let (_, mut seen) = walker.walk(form, walk);
                        seen.sort();
                        prop_assert_eq!(seen, expected(own(bucket, stored).into_iter(), walk));
                    }
                }
            }
            Ok(())
        },
    );
    outcome.unwrap();
}

#[test]
fn lists_the_natural_names_of_the_corpus_in_any_page_size() {
    let emulator = support::emulator();
    for key in corpus() {
        for before in [PREFIX, ROOT] {
            if before.len() + key.len() <= 850 {
                emulator
                    .put_object(BUCKET, &format!("{before}{key}"), b"")
                    .unwrap();
            }
        }
    }
    let objects = emulator.object_keys(BUCKET);
    for signature in SIGNATURES {
        let gateway = gateway(&emulator, signature);
        let mut walker = Walker::new(&gateway);
        for (bucket, prefix) in VIEWS {
            for (size, delimiter, encoded) in [(97, "", false), (1000, "", true), (7, "/", true)] {
                let walk = Walk {
                    bucket,
                    prefix,
                    size,
                    delimiter,
                    encoded,
                };
                for form in &FORMS[..3] {
                    let (_, mut seen) = walker.walk(*form, walk);
                    seen.sort();
                    let expected = expected(own(bucket, &objects).into_iter(), walk);
                    assert_eq!(seen, expected, "{signature} {form:?} {walk:?}");
                }
            }
        }
    }
}

#[test]
fn lists_more_than_a_page_of_photos() {
    let emulator = support::emulator();
    let names: Vec<_> = (0..1100)
        .map(|n| format!("acme/photo-{n:04}.jpg"))
        .collect();
    for name in &names {
        emulator.put_object(BUCKET, name, b"").unwrap();
    }
    for signature in SIGNATURES {
        let gateway = gateway(&emulator, signature);
        let mut walker = Walker::new(&gateway);
        for bucket in ["photos", "whole"] {
            for form in &FORMS[..3] {
                let walk = Walk {
                    bucket,
                    prefix: PREFIX,
                    size: 1000,
                    delimiter: "",
                    encoded: false,
                };
                assert_eq!(
                    walker.walk(*form, walk),
                    (2, names.clone()),
                    "{signature} {form:?}"
                );
            }
        }
        // The store's own token, unchanged: such tokens have lost pages in an earlier version.
        if signature == "s3" {
            let page = walker.page("/photos?list-type=2&prefix=acme%2F");
            let token = element(&page, "NextContinuationToken");
            assert!(
                token.len() > 512 && token.starts_with("1/secret.token=signature+"),
                "{token}"
            );
            assert!(token.contains("%2F") && token.matches('.').count() == 2);
        }
    }
}

#[test]
fn pages_end_and_begin_at_common_prefixes() {
    let emulator = support::emulator();
    for key in ["a/1", "a/2", "b", "c/1", "c/2", "d"] {
        emulator
            .put_object(BUCKET, &format!("acme/{key}"), b"")
            .unwrap();
    }
    for signature in SIGNATURES {
        let gateway = gateway(&emulator, signature);
        let mut walker = Walker::new(&gateway);
        for form in &FORMS[..3] {
            for encoded in [false, true] {
                let walk = Walk {
                    bucket: "photos",
                    prefix: PREFIX,
                    size: 1,
                    delimiter: "/",
                    encoded,
                };
                let (pages, seen) = walker.walk(*form, walk);
                assert_eq!(seen, ["acme/a/", "acme/b", "acme/c/", "acme/d"]);
                assert_eq!(pages, 4);
                let none = Walk { size: 0, ..walk };
                assert_eq!(walker.walk(*form, none), (1, Vec::new()), "{form:?}");
            }
            let first = if form.query == "versions&" {
                "key-marker"
            } else if form.query.is_empty() {
                "marker"
            } else {
                "start-after"
            };
            let target = format!(
                "/photos?{}prefix=acme/&delimiter=/&{first}=acme/a/1",
                form.query
            );
            let text = walker.page(&target);
            let groups = elements(&text, "CommonPrefixes");
            let groups: Vec<_> = groups.iter().map(|one| element(one, "Prefix")).collect();
            assert_eq!(groups, ["acme/a/", "acme/c/"], "{signature} {form:?}");
        }
    }
}

#[test]
fn lists_all_parts_in_any_page_size() {
    let emulator = support::emulator();
    for signature in SIGNATURES {
        let gateway = gateway(&emulator, signature);
        let call =
            |method: &str, target: &str| Call::new(gateway.addr, method, target).signed_by(ACME);
        for bucket in ["photos", "rooted", "whole"] {
            let key = format!("/{bucket}/acme/a%20b%25.token");
            let created = call("POST", &format!("{key}?uploads")).fetch();
            let id = element(&created.assert_ok().text(), "UploadId");
            let mut walker = Walker::new(&gateway);
            for number in (1..=27).map(|n| n * 3) {
                let part = call("PUT", &format!("{key}?partNumber={number}&uploadId={id}"));
                part.body("x").fetch().assert_ok();
            }
            for size in [1, 2, 13, 26, 27, 1000] {
                for encoding in ["", "&encoding-type=url"] {
                    let (mut seen, mut from) = (Vec::new(), String::new());
                    loop {
                        let target =
                            format!("{key}?uploadId={id}&max-parts={size}{encoding}{from}");
                        let text = walker.page(&target);
                        let before = seen.len();
                        seen.extend(elements(&text, "PartNumber"));
                        assert!(seen.len() > before && seen.len() - before <= size, "{text}");
                        if element(&text, "IsTruncated") == "false" {
                            break;
                        }
                        from = parameter(
                            "part-number-marker",
                            &element(&text, "NextPartNumberMarker"),
                        );
                    }
                    let all: Vec<_> = (1..=27).map(|n| (n * 3).to_string()).collect();
                    assert_eq!(seen, all, "{signature} {bucket} {size}");
                }
            }
        }
    }
}

/// cosgate with these grants in front of a store that responds to each request with `document`.
fn scripted(signature: &str, document: &str) -> Scripted {
    let emulator = support::emulator();
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: application/xml\r\n\r\n{document}",
        document.len()
    );
    let script = support::Script::new(vec![act(move |peer| peer.always(&response))]);
    let toml = support::toml(script.addr, emulator.sts_addr(), "");
    let gateway = Gateway::start(&grants(&toml, signature));
    Scripted {
        gateway,
        script,
        emulator,
    }
}

#[test]
fn cuts_a_truncated_listing_without_next_marker() {
    let entry = "<Contents><Key>acme/a</Key></Contents>";
    for (target, document) in [
        (
            "/photos?list-type=2&prefix=acme/",
            format!("<ListBucketResult><IsTruncated>true</IsTruncated>{entry}<NextPage>x</NextPage></ListBucketResult>"),
        ),
        (
            "/photos?prefix=acme/",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>".to_owned(),
        ),
        (
            "/photos?versions&prefix=acme/",
            "<ListVersionsResult><IsTruncated>true</IsTruncated>\
             <NextVersionIdMarker>x</NextVersionIdMarker></ListVersionsResult>"
                .to_owned(),
        ),
        (
            "/photos?uploads&prefix=acme/",
            "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>"
                .to_owned(),
        ),
        (
            "/photos/acme/a?uploadId=u",
            "<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>".to_owned(),
        ),
    ] {
        let cos = scripted("s3", &document);
        let reply = cos.signed("GET", target).send();
        assert!(!reply.whole || reply.status >= 500, "{target} {reply:?}");
        let name = "cosgate_answers_unusable_total";
        support::eventually("it is counted", || cos.gateway.metric(name, "") == 1);
        cos.gateway.log.assert_contains("goes on and does not say where");
    }
}

#[test]
fn forwards_tokens_unchanged() {
    let token = "1250000000.shared%2Ftoken+secret=&~/\u{4e2d}.v1";
    let document = format!(
        "<ListBucketResult><IsTruncated>true</IsTruncated>\
         <NextContinuationToken>{}</NextContinuationToken></ListBucketResult>",
        token.replace('&', "&amp;")
    );
    let cos = scripted("s3", &document);
    for bucket in ["photos", "whole"] {
        let sent = parameter("continuation-token", token);
        let target = format!("/{bucket}?list-type=2&prefix=acme/{sent}");
        let reply = cos.signed("GET", &target).send();
        let shown = element(&reply.assert_ok().text(), "NextContinuationToken");
        assert_eq!(read(&shown, false), token);
        assert!(cos.script.heads().last().unwrap().contains(&sent), "{sent}");
    }
}

#[test]
fn empty_response_is_no_empty_listing() {
    for target in [
        "/photos?list-type=2&prefix=acme/",
        "/photos?versions&prefix=acme/",
    ] {
        for document in ["", "<Error><Code>InternalError</Code></Error>"] {
            let cos = scripted("s3", document);
            cos.signed("GET", target)
                .send()
                .assert_error(502, "BadGateway");
        }
    }
}

#[test]
fn reads_listings_of_stores_without_encoding() {
    let text = "50% &amp; 1+1%2F";
    let page = |root: &str| {
        format!(
            "<ListBucketResult><Name>{BUCKET}</Name><Prefix>{root}{text}</Prefix><Marker>{root}{text}</Marker>\
             <Delimiter>%</Delimiter><IsTruncated>true</IsTruncated><NextMarker>{root}{text}b%</NextMarker>\
             <Contents><Key>{root}{text}a</Key></Contents>\
             <CommonPrefixes><Prefix>{root}{text}b%</Prefix></CommonPrefixes></ListBucketResult>"
        )
    };
    let prefix = "50%25%20%26%201%2B1%252F";
    for signature in SIGNATURES {
        for (bucket, root) in [("rooted", ROOT), ("whole", "")] {
            let cos = scripted(signature, &page(root));
            let query = format!("prefix={prefix}&marker={prefix}&delimiter=%25&encoding-type=url");
            let reply = cos.signed("GET", &format!("/{bucket}?{query}")).send();
            let expected = page("").replace(BUCKET, bucket);
            let expected = expected.replacen(
                '>',
                " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
                1,
            );
            assert_eq!(reply.assert_ok().text(), expected, "{signature}");
        }
    }
}

#[test]
fn root_element_depends_on_the_client() {
    let emulator = support::emulator();
    emulator.put_object(BUCKET, "acme/k", b"").unwrap();
    for signature in SIGNATURES {
        let gateway = gateway(&emulator, signature);
        for (query, root) in [
            ("prefix=acme/", "ListBucketResult"),
            ("list-type=2&prefix=acme/", "ListBucketResult"),
            ("versions&prefix=acme/", "ListVersionsResult"),
            ("uploads&prefix=acme/", "ListMultipartUploadsResult"),
        ] {
            let target = format!("/photos?{query}");
            let reply = Call::new(gateway.addr, "GET", &target)
                .signed_by(ACME)
                .fetch();
            let start = format!("<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
            assert!(
                reply.assert_ok().text().contains(&start),
                "{}",
                reply.text()
            );
        }
    }
}

#[test]
fn lists_a_page_of_the_longest_keys() {
    let emulator = support::emulator();
    for n in 0..1000 {
        let name = format!("acme/{n:04}{}", "%".repeat(841));
        emulator.put_object(BUCKET, &name, b"").unwrap();
    }
    let gateway = gateway(&emulator, "s3");
    let walk = Walk {
        bucket: "photos",
        prefix: PREFIX,
        size: 1000,
        delimiter: "",
        encoded: true,
    };
    let (pages, seen) = Walker::new(&gateway).walk(FORMS[1], walk);
    assert_eq!((pages, seen.len()), (1, 1000));
    assert!(seen.iter().all(|name| name.len() == 850));
}

#[test]
fn multi_delete_reports_keys_without_a_result() {
    let document = "<DeleteResult><Deleted><Key>acme/a</Key></Deleted></DeleteResult>";
    let cos = scripted("s3", document);
    for (quiet, failures) in [(false, vec!["acme/b"]), (true, vec![])] {
        let body = format!(
            "<Delete><Quiet>{quiet}</Quiet><Object><Key>acme/a</Key></Object>\
             <Object><Key>acme/b</Key></Object></Delete>"
        );
        let reply = cos.signed("POST", "/photos?delete").body(body).send();
        let errors = elements(&reply.assert_ok().text(), "Error");
        let keys: Vec<_> = errors.iter().map(|one| element(one, "Key")).collect();
        assert_eq!(keys, failures);
    }
}
