//! Clients of COS's own API: requests signed with q-sign by a local key, in the header or the query.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::format_push_string,
    reason = "a test may panic"
)]

use std::borrow::Cow;

use cosgate::clock::wall_clock;
use cosgate::encoding;
use cosgate::secret::Secret;
use cosgate::sign::Signable;
use cosgate::sign::cos::{KeyTime, SignKey, SignedNames, authorization_over};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::support::tokens::{CORP, identity_toml};
use crate::support::{
    self, ACME, BUCKET, Call, Reply, SIGNATURES, Scripted, World, act, element, elements,
    md5_base64,
};

const HOST: &str = "photos.s3.localhost";
const MINUTE: i64 = 60;

/// A request as COS's SDKs make it.
#[derive(Clone)]
struct Native {
    call: Call,
    key: (&'static str, &'static str),
    /// The lifetime in seconds from now.
    sign_time: (i64, i64),
    key_time: (i64, i64),
    /// The names that are left out of the signature.
    unsigned: Vec<&'static str>,
    /// The host that is signed in place of the real one.
    signed_host: Option<&'static str>,
}

impl Native {
    fn new(world: &World, method: &str, target: &str) -> Self {
        Self {
            call: Call::new(world.gateway.addr, method, target).header("host", HOST),
            key: ACME,
            sign_time: (-MINUTE, 10_000),
            key_time: (-MINUTE, 10_000),
            unsigned: Vec::new(),
            signed_host: None,
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.call = self.call.header(name, value);
        self
    }

    fn body(mut self, body: &str) -> Self {
        self.call = self
            .call
            .header("content-length", &body.len().to_string())
            .body(body);
        self
    }

    fn life(mut self, start: i64, end: i64) -> Self {
        self.sign_time = (start, end);
        self.key_time = (start, end);
        self
    }

    fn without(mut self, name: &'static str) -> Self {
        self.unsigned.push(name);
        self
    }

    fn signature(&self) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.call.headers {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        if let Some(host) = self.signed_host {
            headers.insert("host", HeaderValue::from_static(host));
        }
        let (path, query) = self
            .call
            .target
            .split_once('?')
            .unwrap_or((&self.call.target, ""));
        let path = encoding::percent::percent_decode(path).unwrap();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query: Vec<(Cow<'_, str>, Cow<'_, str>)> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let covered: HeaderMap = headers
            .iter()
            .filter(|(name, _)| !self.unsigned.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let covered_query: Vec<_> = query
            .iter()
            .filter(|(name, _)| !self.unsigned.contains(&&**name))
            .cloned()
            .collect();
        let request = Signable {
            method: &self.call.method,
            path: &path,
            query: &covered_query,
            headers: &covered,
        };
        let now = wall_clock();
        let time = |(start, end)| KeyTime {
            start: now.plus(start),
            end: now.plus(end),
        };
        let (sign_time, key_time) = (time(self.sign_time), time(self.key_time));
        let key = SignKey::derive(&Secret::new(self.key.1), &key_time);
        let names = SignedNames::of(&request);
        let text = authorization_over(&request, &names, self.key.0, &key, &sign_time);
        text.replace(
            &format!("q-key-time={sign_time}"),
            &format!("q-key-time={key_time}"),
        )
    }

    fn signed(&self) -> Call {
        self.call.clone().header("authorization", &self.signature())
    }

    fn presigned(&self) -> Call {
        let mut call = self.call.clone();
        let separator = if call.target.contains('?') { '&' } else { '?' };
        call.target = format!("{}{separator}{}", call.target, self.signature());
        call
    }

    #[track_caller]
    fn send(&self) -> Reply {
        presentable(self.signed().send())
    }
}

/// Checks every response to a native client.
#[track_caller]
fn presentable(reply: Reply) -> Reply {
    let id = reply.header("x-cos-request-id").unwrap_or_default();
    assert_eq!(id.len(), 16, "no request id: {reply:?}");
    let shown = format!("{:?} {}", reply.headers, reply.text());
    for hidden in ["x-amz-", BUCKET, "1250000000", "myqcloud", "AKID"] {
        assert!(!shown.contains(hidden), "{hidden} is shown: {shown}");
    }
    reply
}

#[track_caller]
fn assert_refused(reply: Reply, status: u16, code: &str) {
    let reply = presentable(reply);
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (status, code),
        "{}",
        reply.text()
    );
    let id = reply.header("x-cos-request-id").map(str::to_owned);
    for name in ["RequestId", "TraceId"] {
        assert_eq!(Some(element(&reply.text(), name)), id, "{name}");
    }
}

#[test]
fn serves_objects_over_the_native_api() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let put = Native::new(&world, "PUT", "/acme/a%20b%2Bc")
            .header("x-cos-meta-owner", "me")
            .header("x-cos-storage-class", "STANDARD")
            .header("content-type", "text/x")
            .body("hello");
        put.send().assert_ok();
        assert_eq!(world.stored("acme/a b+c").unwrap(), "hello");
        let got = Native::new(&world, "GET", "/acme/a%20b%2Bc").send();
        assert_eq!(got.assert_ok().text(), "hello");
        assert_eq!(got.header("x-cos-meta-owner"), Some("me"));
        assert_eq!(got.header("content-type"), Some("text/x"));
        let head = Native::new(&world, "HEAD", "/acme/a%20b%2Bc").send();
        assert_eq!(head.assert_ok().header("content-length"), Some("5"));
        let listed = Native::new(&world, "GET", "/?prefix=acme/&max-keys=5").send();
        assert_eq!(elements(&listed.assert_ok().text(), "Key"), ["acme/a b+c"]);
        let copy = Native::new(&world, "PUT", "/acme/copy")
            .header(
                "x-cos-copy-source",
                "photos.s3.localhost:9000/acme/a%20b%2Bc",
            )
            .header("x-cos-metadata-directive", "Replaced")
            .header("x-cos-meta-owner", "you")
            .body("");
        copy.send().assert_ok();
        let head = Native::new(&world, "HEAD", "/acme/copy").send();
        assert_eq!(head.header("x-cos-meta-owner"), Some("you"));
        Native::new(&world, "DELETE", "/acme/copy")
            .send()
            .assert_ok();
        assert_eq!(world.stored("acme/copy"), None);
        let path_style =
            Native::new(&world, "GET", "/photos/acme/a%20b%2Bc").header("host", "127.0.0.1");
        path_style.send().assert_ok();
    }
}

#[test]
fn spells_response_headers_as_cos_does() {
    let world = World::new();
    world.put("/photos/acme/a", "x");
    let spelling = |bytes: Vec<u8>| {
        let mut client = support::Client::connect(world.gateway.addr);
        client.write(&bytes);
        let mut shown = vec![0; 4096];
        let read = std::io::Read::read(&mut client.stream, &mut shown).unwrap();
        String::from_utf8_lossy(&shown[..read]).into_owned()
    };
    let shown = spelling(Native::new(&world, "GET", "/acme/a").signed().bytes());
    for name in [
        "Content-Length",
        "Content-Type",
        "ETag",
        "Last-Modified",
        "x-cos-request-id",
    ] {
        assert!(
            shown.contains(&format!("\r\n{name}: ")),
            "{name} in {shown}"
        );
    }
    let shown = spelling(world.signed("GET", "/photos/acme/a").bytes());
    assert!(shown.contains("\r\ncontent-length: "), "{shown}");
}

#[test]
fn configures_a_bucket_over_the_native_api() {
    let rule = "<Rule><Filter><Prefix>log/</Prefix></Filter><Status>Enabled</Status><Transition><Days>30</Days>\
                <StorageClass>ARCHIVE</StorageClass></Transition></Rule>";
    let document = format!("<LifecycleConfiguration>{rule}</LifecycleConfiguration>");
    let actions = [
        "GetBucketLifecycle",
        "PutBucketLifecycle",
        "GetObjectACL",
        "PutObjectACL",
    ];
    for signature in SIGNATURES {
        let world = World::of_site(signature, "prefixes = [\"*\"]", &actions);
        let send = |method: &str, target: &str| {
            Native::new(&world, method, target).header("host", "site.s3.localhost")
        };
        let put = send("PUT", "/?lifecycle");
        let put = put.header("content-md5", &md5_base64(document.as_bytes()));
        put.body(&document).send().assert_ok();
        let read = send("GET", "/?lifecycle").send();
        assert!(
            read.assert_ok().text().ends_with(&document),
            "{}",
            read.text()
        );

        world.put("/site/a.jpg", "a photo");
        for acl in ["public-read", "default"] {
            let put = send("PUT", "/a.jpg?acl").header("x-cos-acl", acl);
            put.body("").send().assert_ok();
            let rights = send("GET", "/a.jpg?acl").send();
            let rights = rights.assert_ok().text();
            let group = "<URI>http://cam.qcloud.com/groups/global/AllUsers</URI>";
            assert_eq!(rights.contains(group), acl == "public-read", "{rights}");
            assert!(
                rights.contains("<ID>acme</ID>") && !rights.contains("uin"),
                "{rights}"
            );
        }
    }
}

#[test]
fn accepts_native_presigned_urls() {
    let world = World::new();
    let put = Native::new(&world, "PUT", "/acme/a").life(-1, 300);
    presentable(put.presigned().body("hello").send()).assert_ok();
    let get = Native::new(&world, "GET", "/acme/a").life(-1, 300);
    let call = get.presigned();
    assert_eq!(presentable(call.send()).text(), "hello");
    world.emulator.counters().reset();
    let changed = |from: &str, to: &str| {
        let mut call = call.clone();
        assert!(call.target.contains(from));
        call.target = call.target.replacen(from, to, 1);
        call.send()
    };
    assert_refused(changed("/acme/a", "/acme/b"), 403, "SignatureDoesNotMatch");
    assert_refused(
        changed("q-ak=ACMEKEY", "q-ak=NOBODY"),
        403,
        "InvalidAccessKeyId",
    );
    assert_refused(
        changed("q-sign-time=", "q-sign-time=1"),
        403,
        "AccessDenied",
    );
    assert_refused(
        changed("q-sign-algorithm=sha1", "q-sign-algorithm=md5"),
        400,
        "AuthorizationHeaderMalformed",
    );
    assert_refused(
        changed("q-signature=", "q-signature=0"),
        400,
        "AuthorizationHeaderMalformed",
    );
    assert_refused(
        changed("?", "?response-content-type=text/html&"),
        403,
        "AccessDenied",
    );
    let mut delete = call.clone();
    delete.method = "DELETE".to_owned();
    assert_refused(delete.send(), 403, "SignatureDoesNotMatch");
    let acl = call.clone().header("x-cos-acl", "public-read");
    assert_refused(acl.send(), 403, "AccessDenied");
    let both = call.clone().signed_by(ACME);
    assert_refused(both.send(), 400, "InvalidArgument");
    let doubled = changed("?", "?X-Amz-Signature=0&");
    assert_refused(doubled, 400, "InvalidArgument");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn rejects_unsigned_native_headers() {
    let world = World::new();
    let put = || Native::new(&world, "PUT", "/acme/a").body("x");
    for (call, status, code) in [
        (put().without("host"), 403, "AccessDenied"),
        (
            put().header("x-cos-meta-a", "1").without("x-cos-meta-a"),
            403,
            "AccessDenied",
        ),
        (
            put()
                .header("x-cos-copy-source", "photos.s3.localhost/acme/b")
                .without("x-cos-copy-source"),
            400, // refused at once: a copy has no body
            "InvalidRequest",
        ),
        (put().header("x-amz-acl", "private"), 400, "InvalidArgument"),
        (
            put().header("x-cos-security-token", "t"),
            400,
            "InvalidToken",
        ),
        (
            put()
                .header("pic-operations", "{}")
                .without("pic-operations"),
            403,
            "AccessDenied",
        ),
    ] {
        assert_refused(call.send(), status, code);
    }
    let list = Native::new(&world, "GET", "/?prefix=acme/&marker=acme/a");
    assert_refused(list.clone().without("marker").send(), 403, "AccessDenied");
    assert_refused(list.without("prefix").send(), 403, "AccessDenied");
    // A header that was added later and has no meaning comes from the network, or from COS's SDK for Java.
    let mut seen = put().signed();
    seen = seen.header("x-forwarded-for", "10.0.0.1");
    seen = seen.header("x-cos-sdk-log-debug", "off");
    presentable(seen.send()).assert_ok();
    assert_eq!(world.upstream_requests(), 1);
}

#[test]
fn rejects_wrong_keys_times_and_hosts() {
    let world = World::new();
    world.put("/photos/acme/a", "x");
    world.emulator.counters().reset();
    let get = || Native::new(&world, "GET", "/acme/a");
    let with_key = |key| {
        let mut native = get();
        native.key = key;
        native.send()
    };
    assert_refused(with_key((ACME.0, "wrong")), 403, "SignatureDoesNotMatch");
    assert_refused(with_key(("NOBODY", ACME.1)), 403, "InvalidAccessKeyId");
    for (start, end) in [
        (-7200, -1),
        (16 * MINUTE, 60 * MINUTE),
        (-8 * 86_400, MINUTE),
    ] {
        assert_refused(get().life(start, end).send(), 403, "AccessDenied");
    }
    for (start, end) in [(14 * MINUTE, 60 * MINUTE), (-MINUTE, 30 * 86_400)] {
        get().life(start, end).send().assert_ok();
    }
    // Both times limit the signature.
    let (mut by_key, mut by_sign) = (get(), get());
    by_key.key_time = (-7200, -1);
    by_sign.sign_time = (-7200, -1);
    assert_refused(by_key.send(), 403, "AccessDenied");
    assert_refused(by_sign.send(), 403, "AccessDenied");
    let long = get().life(-1, 8 * 86_400).presigned();
    assert_refused(long.send(), 403, "AccessDenied");
    // The Python SDK signs the host without its port.
    let mut python = get().header("host", "photos.s3.localhost:9000");
    python.signed_host = Some(HOST);
    python.send().assert_ok();
    python.signed_host = Some("other.s3.localhost");
    assert_refused(python.send(), 403, "SignatureDoesNotMatch");
    let twice = get().signed();
    let again = twice.headers.last().unwrap().1.clone();
    assert_refused(
        twice.header("authorization", &again).send(),
        400,
        "InvalidArgument",
    );
    assert_eq!(world.upstream_requests(), 3);
}

#[test]
fn native_requests_stay_within_the_grant() {
    let world = World::new();
    let copy = |source| {
        Native::new(&world, "PUT", "/acme/c")
            .header("x-cos-copy-source", source)
            .body("")
    };
    for (native, status, code) in [
        (Native::new(&world, "GET", "/globex/a"), 403, "AccessDenied"),
        (
            Native::new(&world, "GET", "/acme/..%2fglobex/a"),
            400,
            "InvalidURI",
        ),
        (
            Native::new(&world, "GET", "/?prefix=globex/"),
            403,
            "AccessDenied",
        ),
        (
            Native::new(&world, "GET", "/a").header("host", "theirs.s3.localhost"),
            403,
            "AccessDenied",
        ),
        (Native::new(&world, "PUT", "/?acl"), 403, "AccessDenied"),
        (
            Native::new(&world, "POST", "/acme/a?append&position=0"),
            403,
            "AccessDenied",
        ),
        (
            Native::new(&world, "GET", "/acme/a?ci-process=x"),
            403,
            "AccessDenied",
        ),
        (copy("photos.s3.localhost/globex/a"), 403, "AccessDenied"),
        (copy("theirs.s3.localhost/acme/a"), 403, "AccessDenied"),
        (
            copy("photos.cos.ap-guangzhou.myqcloud.com/globex/a"),
            403,
            "AccessDenied",
        ),
        (
            copy("shared-1250000000.cos.ap-guangzhou.myqcloud.com/acme/a"),
            403,
            "AccessDenied",
        ),
        (copy("photos.evil.example/acme/a"), 400, "InvalidArgument"),
        (copy("photos.s3.localhost/acme/a+b"), 400, "InvalidArgument"),
        (
            copy("photos.s3.localhost/acme/../globex/a"),
            400,
            "InvalidURI",
        ),
        (copy("/photos/acme/a"), 400, "InvalidArgument"),
    ] {
        let what = format!(
            "{} {} {:?}",
            native.call.method, native.call.target, native.call.headers
        );
        let reply = presentable_or(native.signed().send());
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{what}"
        );
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn extra_permissions_need_their_own_grant() {
    let world = World::new();
    for (native, status, code) in [
        (
            Native::new(&world, "PUT", "/acme/b")
                .header("x-cos-acl", "public-read")
                .body("x"),
            403,
            "AccessDenied",
        ),
        (
            Native::new(&world, "PUT", "/acme/b")
                .header("x-cos-storage-class", "ARCHIVE")
                .body("x"),
            403,
            "AccessDenied",
        ),
        (
            Native::new(&world, "PUT", "/acme/b")
                .header("x-cos-traffic-limit", "1")
                .body("x"),
            400,
            "InvalidArgument",
        ),
        (
            Native::new(&world, "PUT", "/acme/b")
                .header("pic-operations", "{}")
                .body("x"),
            400,
            "InvalidArgument",
        ),
        (
            Native::new(&world, "POST", "/acme/b?uploads")
                .header("x-cos-forbid-overwrite", "true")
                .body(""),
            501,
            "NotImplemented",
        ),
    ] {
        let what = format!(
            "{} {} {:?}",
            native.call.method, native.call.target, native.call.headers
        );
        let reply = presentable_or(native.signed().send());
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{what}"
        );
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn forbid_overwrite_prevents_overwriting() {
    let world = World::new();
    world.put("/photos/acme/a", "x");
    let once = Native::new(&world, "PUT", "/acme/a").header("x-cos-forbid-overwrite", "true");
    assert_refused(once.body("again").send(), 409, "FileAlreadyExists");
    assert_eq!(world.stored("acme/a").unwrap(), "x");
    let create = |world: &World, key: &str, value: &str| {
        let create = Native::new(world, "POST", &format!("/acme/{key}?uploads"));
        create
            .header("x-cos-forbid-overwrite", value)
            .body("")
            .send()
    };
    let refused = create(&world, "a", "true");
    assert!(
        !refused.text().contains("If-None-Match"),
        "{}",
        refused.text()
    );
    assert_refused(refused, 501, "NotImplemented");
    create(&world, "a", "false").assert_ok();

    // The native API has this header when an upload is created too (436/7746).
    let world = World::speaking("cos");
    world.put("/photos/acme/a", "x");
    assert_refused(create(&world, "a", "true"), 409, "FileAlreadyExists");
    create(&world, "b", "true").assert_ok();
}

/// The response may repeat the client's own text, but not in S3's names.
#[track_caller]
fn presentable_or(reply: Reply) -> Reply {
    assert!(!reply.text().contains("x-amz-"), "{}", reply.text());
    reply
}

#[test]
fn serves_native_multi_delete_and_bucket_lists() {
    let world = World::new();
    world.put("/photos/acme/a", "x");
    let delete =
        "<Delete><Object><Key>acme/a</Key></Object><Object><Key>globex/a</Key></Object></Delete>";
    let shown = Native::new(&world, "POST", "/?delete").body(delete).send();
    assert_eq!(
        elements(&shown.assert_ok().text(), "Key"),
        ["acme/a", "globex/a"]
    );
    assert_eq!(element(&shown.text(), "Code"), "AccessDenied");
    let service = Native::new(&world, "GET", "/").header("host", "s3.localhost");
    assert_eq!(elements(&service.send().text(), "Name"), ["photos"]);
    let probe = Native::new(&world, "HEAD", "/").send();
    assert_eq!(
        probe.assert_ok().header("x-cos-bucket-region"),
        Some("ap-guangzhou")
    );
}

#[test]
fn listing_of_an_ancestor_has_coss_form() {
    let world = World::new();
    Native::new(&world, "PUT", "/acme/k")
        .body("x")
        .send()
        .assert_ok();
    let before = world.upstream_requests();
    for (query, root) in [
        ("delimiter=/", "<ListBucketResult>"),
        ("uploads&delimiter=/", "<ListMultipartUploadsResult>"),
        ("delimiter=/&prefix=ac&max-keys=1", "<ListBucketResult>"),
    ] {
        let list = Native::new(&world, "GET", &format!("/?{query}")).send();
        let text = list.assert_ok().text();
        assert!(text.contains(root), "{text}"); // no namespace
        let groups = elements(&text, "CommonPrefixes");
        assert_eq!(groups, ["<Prefix>acme/</Prefix>"], "{text}");
    }
    assert_eq!(world.upstream_requests(), before);
    let text = Native::new(&world, "GET", "/?prefix=a")
        .send()
        .assert_ok()
        .text();
    assert_eq!(elements(&text, "Key"), ["acme/k"], "{text}");
    assert_eq!(element(&text, "Prefix"), "a");
}

#[test]
fn serves_virtual_buckets_to_native_clients() {
    for signature in SIGNATURES {
        let world = World::edited(|toml| {
            let spoken = format!("[upstream]\nsignature = \"{signature}\"");
            let toml = toml.replacen("[upstream]", &spoken, 1);
            toml.replacen("prefixes = [\"acme/*\"]", "root = \"acme/in/\"", 1)
        });
        for key in ["a", "d/b"] {
            let put = Native::new(&world, "PUT", &format!("/{key}")).body(key);
            put.send().assert_ok();
        }
        assert_eq!(world.stored("acme/in/d/b").as_deref(), Some("d/b"));
        let get = Native::new(&world, "GET", "/d/b");
        assert_eq!(get.send().assert_ok().text(), "d/b");
        assert_eq!(get.presigned().send().assert_ok().text(), "d/b");
        let list = Native::new(&world, "GET", "/?prefix=d").send();
        let text = list.assert_ok().text();
        assert_eq!(elements(&text, "Key"), ["d/b"], "{text}");
        assert_eq!(element(&text, "Name"), "photos");
        let copy = Native::new(&world, "PUT", "/c")
            .header("x-cos-copy-source", "photos.s3.localhost/d/b")
            .send();
        copy.assert_ok();
        assert_eq!(world.stored("acme/in/c").as_deref(), Some("d/b"));
        let none = Native::new(&world, "GET", "/none").send();
        assert_eq!(none.code(), "NoSuchKey");
        let all = Native::new(&world, "GET", "/").send();
        for reply in [&list, &copy, &none, &all] {
            let shown = format!("{:?} {}", reply.headers, reply.text());
            assert!(!shown.contains("acme/in"), "{shown}");
        }
    }
}

#[test]
fn native_api_can_be_disabled() {
    let off = |toml: String| toml.replacen("threads = 1", "threads = 1\nallow_qsign = false", 1);
    let world = World::edited(off);
    let get = Native::new(&world, "GET", "/acme/a");
    assert_refused(get.send(), 400, "InvalidRequest");
    assert_refused(get.presigned().send(), 400, "InvalidRequest");
    assert_eq!(world.upstream_requests(), 0);
}

/// Session keys as an SDK reads them.
#[derive(Clone, Copy)]
struct Keys {
    pair: (&'static str, &'static str),
    token: &'static str,
}

impl Keys {
    /// The session keys of `subject`, from a web identity token.
    fn of(addr: std::net::SocketAddr, subject: &str) -> Self {
        let mut form = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=app-1\
                        &RoleArn=arn:aws:iam::000000000000:role/app&WebIdentityToken="
            .to_owned();
        encoding::percent::push_encoded(&mut form, CORP.of(subject).as_bytes());
        let reply = Call::new(addr, "POST", "/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send();
        let text = reply.assert_ok().text();
        let part = |name| &*element(&text, name).leak();
        Self {
            pair: (part("AccessKeyId"), part("SecretAccessKey")),
            token: part("SessionToken"),
        }
    }
}

/// `more` contains keys of `[server]`; the folder contains the keys of the identity provider.
fn session_toml(folder: &tempfile::TempDir, toml: &str, more: &str) -> String {
    let secret = "session_secret = \"session-secret-0123456789-0123456789\"";
    let toml = toml.replacen("[server]", &format!("[server]\n{secret}\n{more}"), 1);
    toml + &identity_toml(folder)
}

/// A request with session keys and the token in a header, as COS's SDKs send it.
fn with_keys(world: &World, method: &str, target: &str, keys: Keys) -> Native {
    let mut native = Native::new(world, method, target);
    native.key = keys.pair;
    native.header("x-cos-security-token", keys.token)
}

/// The same as a URL: the token is in the query, signed or added after signing.
fn url_with_keys(world: &World, method: &str, path: &str, keys: Keys, signs_token: bool) -> Call {
    let token = format!("x-cos-security-token={}", keys.token);
    let target = if signs_token {
        format!("{path}?{token}")
    } else {
        path.to_owned()
    };
    let mut native = Native::new(world, method, &target).life(-1, 300);
    native.key = keys.pair;
    let mut call = native.presigned();
    if !signs_token {
        call.target += &format!("&{token}");
    }
    call
}

#[test]
fn accepts_session_keys_with_signed_or_unsigned_token() {
    let folder = tempfile::tempdir().unwrap();
    for signature in SIGNATURES {
        let world = World::edited(|toml| {
            let spoken = format!("[upstream]\nsignature = \"{signature}\"");
            session_toml(&folder, &toml.replacen("[upstream]", &spoken, 1), "")
        });
        let alice = Keys::of(world.gateway.addr, "alice");
        let path = "/users/alice/a%20b";
        let put = with_keys(&world, "PUT", path, alice).header("x-cos-meta-a", "b");
        put.body("mine").send().assert_ok();
        assert_eq!(world.stored("users/alice/a b").as_deref(), Some("mine"));
        let get = with_keys(&world, "GET", path, alice); // the Python and Go SDKs sign it
        assert_eq!(get.send().assert_ok().text(), "mine");
        let get = get.without("x-cos-security-token"); // the Node and Java SDKs do not
        assert_eq!(get.send().assert_ok().text(), "mine");
        for signs_token in [true, false] {
            let url = url_with_keys(&world, "GET", path, alice, signs_token);
            assert_eq!(presentable(url.send()).assert_ok().text(), "mine");
            let url = url_with_keys(&world, "PUT", path, alice, signs_token);
            presentable(url.body("mine").send()).assert_ok();
        }
        for head in world.emulator.counters().heads() {
            let shown = format!("{head:?}");
            assert!(
                !shown.contains(alice.token),
                "the token went upstream: {shown}"
            );
        }
        let other = with_keys(&world, "GET", "/users/bob/k", alice);
        assert_refused(other.send(), 403, "AccessDenied");
        let log = format!(
            "\"tenant\":\"web/alice\",\"identity\":\"session\",\"key_id\":\"{}\",\"subject\":\"alice\"",
            alice.pair.0
        );
        world.gateway.log.assert_contains(&log);
        assert!(!world.gateway.log.text().contains(alice.token));
    }
}

#[test]
fn session_token_needs_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::edited(|toml| session_toml(&folder, &toml, ""));
    let addr = world.gateway.addr;
    let (alice, bob) = (Keys::of(addr, "alice"), Keys::of(addr, "bob"));
    let path = "/users/alice/k";
    let with = |pair, token| with_keys(&world, "GET", path, Keys { pair, token });
    let forged = (alice.pair.0, bob.pair.1);
    let damaged: &str = alice.token.replace(&alice.token[40..44], "AAAA").leak();
    for (pair, token, status, code) in [
        (alice.pair, bob.token, 403, "InvalidAccessKeyId"),
        (bob.pair, alice.token, 403, "InvalidAccessKeyId"),
        (ACME, alice.token, 403, "InvalidAccessKeyId"),
        (forged, alice.token, 403, "SignatureDoesNotMatch"),
        (alice.pair, damaged, 400, "InvalidToken"),
        (alice.pair, "x", 400, "InvalidToken"),
    ] {
        let keys = Keys { pair, token };
        assert_refused(with(pair, token).send(), status, code);
        let unsigned = with(pair, token).without("x-cos-security-token");
        assert_refused(unsigned.send(), status, code);
        for signs_token in [true, false] {
            let url = url_with_keys(&world, "GET", path, keys, signs_token);
            assert_refused(url.send(), status, code);
        }
    }
    // Without its token, with two tokens, and with the token under S3's name.
    let mut bare = Native::new(&world, "GET", path);
    bare.key = alice.pair;
    assert_refused(bare.send(), 403, "InvalidAccessKeyId");
    let both = url_with_keys(&world, "GET", path, alice, true);
    let both = both.header("x-cos-security-token", alice.token);
    assert_refused(both.send(), 400, "InvalidToken");
    let mut twice = url_with_keys(&world, "GET", path, alice, false);
    twice.target += &format!("&x-cos-security-token={}", alice.token);
    assert_refused(twice.send(), 400, "InvalidArgument");
    let target = format!("{path}?X-Amz-Security-Token={}", alice.token);
    let mut other_name = Native::new(&world, "GET", &target);
    other_name.key = alice.pair;
    for reply in [other_name.send(), other_name.presigned().send()] {
        assert_refused(reply, 400, "InvalidToken");
    }
    // A token alone is not a signature.
    let mut alone = Call::new(addr, "GET", "/photos/public/k");
    alone.target += &format!("?x-cos-security-token={}", alice.token);
    assert!((400..404).contains(&alone.send().status));
    assert_eq!(world.upstream_requests(), 0);
}

/// The rules of the signature, implemented a second time from the documentation.
#[test]
fn verifies_session_keys_as_documented() {
    use cosgate::encoding::hex::hex;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha1::{Digest as _, Sha1};

    let folder = tempfile::tempdir().unwrap();
    let responses =
        act(|peer| peer.always("HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: \"e\"\r\n\r\n"));
    let emulator = support::emulator();
    let script = support::Script::new(vec![responses]);
    let toml = support::toml(script.addr, emulator.sts_addr(), "");
    let gateway = support::Gateway::start(&session_toml(&folder, &toml, ""));
    let world = Scripted {
        gateway,
        script,
        emulator,
    };
    let alice = Keys::of(world.gateway.addr, "alice");
    let mac = |key: &str, text: &str| {
        let mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).unwrap();
        hex(&mac.chain_update(text).finalize().into_bytes())
    };
    let now = wall_clock().unix();
    let time = format!("{};{}", now - 60, now + 600);
    let sign_key = mac(alice.pair.1, &time);
    let string = format!(
        "get\n/users/alice/k\n\nhost={HOST}&x-cos-security-token={}\n",
        alice.token
    );
    let digest = hex(&Sha1::digest(&string));
    let signature = mac(&sign_key, &format!("sha1\n{time}\n{digest}\n"));
    let authorization = format!(
        "q-sign-algorithm=sha1&q-ak={}&q-sign-time={time}&q-key-time={time}\
         &q-header-list=host;x-cos-security-token&q-url-param-list=&q-signature={signature}",
        alice.pair.0
    );
    let get = Call::new(world.gateway.addr, "GET", "/users/alice/k")
        .header("host", HOST)
        .header("x-cos-security-token", alice.token)
        .header("authorization", &authorization);
    presentable(get.send()).assert_ok();
    let heads = world.script.heads();
    assert!(heads[0].starts_with("GET /users/alice/k HTTP/1.1"));
    assert!(!heads.concat().contains(alice.token));
}

#[test]
fn session_expires_for_native_requests() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::edited(|toml| session_toml(&folder, &toml, ""));
    let alice = Keys::of(world.gateway.addr, "alice");
    let tenants = world.gateway.shared.tenants();
    let connection = cosgate::tenant::Connection {
        loopback: true,
        tls: false,
        certificate: None,
        address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        user: None,
    };
    let mut native = with_keys(&world, "GET", "/users/alice/k", alice);
    native = native.life(0, 3 * 3600);
    let mut head = http::Request::get(&native.call.target);
    for (name, value) in &native.signed().headers {
        head = head.header(name, value);
    }
    let (head, ()) = head.body(()).unwrap().into_parts();
    let domains = ["s3.localhost".to_owned()];
    let at = |seconds| {
        let shown = cosgate::s3::native::to_s3(&head, &domains)
            .unwrap()
            .unwrap();
        let request = cosgate::s3::S3Request::parse(&shown, &domains).unwrap();
        let now = wall_clock().plus(seconds);
        let caller = tenants.authenticate(&head, &request, connection, now);
        caller.map(drop).map_err(|error| error.code().as_str())
    };
    assert_eq!(at(3590), Ok(()));
    assert_eq!(at(3601), Err("ExpiredToken"));
}

/// A request to the listener for a key of COS.
fn vending(world: &World, method: &str, target: &str) -> Native {
    Native::new(world, method, target).header("host", "127.0.0.1")
}

/// COS's own signature covers only the head: there is no body, or the head has a signed digest of it.
#[test]
fn native_signature_gets_a_key_if_it_covers_the_body() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::edited(|toml| {
        let toml = session_toml(&folder, &toml, "");
        let toml = toml.replacen("[tenants.acme]\n", "[tenants.acme]\nvend = true\n", 1);
        toml.replacen("[templates.web]\n", "[templates.web]\nvend = true\n", 1)
    });
    let path = "/.cosgate/credentials";
    let alice = Keys::of(world.gateway.addr, "alice");
    let with_session = |method: &str| {
        let mut native = vending(&world, method, path);
        native.key = alice.pair;
        native.header("x-cos-security-token", alice.token)
    };
    let narrowing = "{\"bucket\":\"photos\"}";
    let digest = md5_base64(narrowing.as_bytes());
    let narrowed = |native: Native| native.body(narrowing).header("content-md5", &digest);
    for (native, member) in [
        (vending(&world, "GET", path), "AccessKeyId"),
        (with_session("GET"), "AccessKeyId"),
        (narrowed(vending(&world, "POST", path)), "tmpSecretId"),
        (narrowed(with_session("POST")), "tmpSecretId"),
    ] {
        let reply = native.signed().send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.text().contains(member), "{}", reply.text());
    }
    let calls = world.emulator.counters().counts().sts_calls;
    let other = vending(&world, "POST", path).body("{}");
    let reply = other.header("content-md5", &digest).signed().send();
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("BadDigest"), "{}", reply.text());
    for (call, why) in [
        (
            vending(&world, "POST", path).body(narrowing).signed(),
            "does not cover the body",
        ),
        (
            narrowed(vending(&world, "POST", path))
                .without("content-md5")
                .signed(),
            "does not cover the body",
        ),
        (
            with_session("POST").body("{}").signed(),
            "does not cover the body",
        ),
        (
            vending(&world, "GET", path).body(narrowing).signed(),
            "does not cover the body",
        ),
        (
            with_session("GET").body(narrowing).signed(),
            "does not cover the body",
        ),
        (
            vending(&world, "GET", path).life(-1, 300).presigned(),
            "presigned",
        ),
        (
            vending(&world, "GET", &format!("{path}?x=y")).signed(),
            "presigned",
        ),
    ] {
        let reply = call.send();
        assert_eq!(reply.status, 403, "{why}: {}", reply.text());
        assert!(reply.text().contains(why), "{why}: {}", reply.text());
    }
    let mut wrong = vending(&world, "GET", path);
    wrong.key = (ACME.0, "wrong");
    assert_eq!(wrong.signed().send().status, 403);
    assert_eq!(world.emulator.counters().counts().sts_calls, calls);
}
