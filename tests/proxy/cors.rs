//! CORS: the responses before and after a browser's request. They show no bucket to a page that no rule names.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use super::session_keys::signed;
use crate::support::tokens::{CORP, claims, identity_toml};
use crate::support::{
    ACME, Call, GLOBEX, Reply, SIGNATURES, Scripted, World, act, element, elements,
};
use serde_json::json;

const APP: &str = "https://app.example.com";
const GLOBEX_APP: &str = "https://globex.example.com";
const BLOG: &str = "https://blog.example.com";
const EVIL: &str = "https://evil.example";
const VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";
/// Three tenants have a bucket `photos`, each with its own rules; `plain` has none.
const RULES: &str = r#"
[[tenants.acme.grants.cors]]
origins = ["https://app.example.com", "http://localhost:*"]
methods = ["GET", "PUT", "POST", "HEAD"]
headers = ["content-type", "X-Amz-*", "authorization"]
expose = ["x-cos-force-download"]
max_age = "10m"

[[tenants.acme.grants.cors]]
origins = ["*"]
methods = ["HEAD"]

[[tenants.globex.grants.cors]]
origins = ["https://globex.example.com"]
methods = ["DELETE", "GET"]
headers = ["*"]

[[tenants.anyone.grants.cors]]
origins = ["https://blog.example.com"]
methods = ["GET", "POST"]

[[tenants.acme.grants]]
name = "plain"
bucket = "shared-1250000000"
region = "ap-guangzhou"
root = "plain/"
actions = ["read", "write", "list"]
"#;

fn world() -> World {
    World::with(RULES)
}

fn preflight(world: &World, target: &str, origin: &str, method: &str) -> Call {
    Call::new(world.gateway.addr, "OPTIONS", target)
        .header("origin", origin)
        .header("access-control-request-method", method)
}

/// The CORS headers, sorted.
fn shown(reply: &Reply) -> Vec<(&str, &str)> {
    let headers = reply.headers.iter();
    let about = |name: &str| name == "vary" || name.starts_with("access-control-");
    let mut shown: Vec<_> = headers
        .filter(|(name, _)| about(name))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    shown.sort_unstable();
    shown
}

fn allowed(reply: &Reply) -> Option<&str> {
    reply.header("access-control-allow-origin")
}

/// The headers that a page may read.
fn exposed(reply: &Reply) -> Vec<&str> {
    let names = reply.header("access-control-expose-headers");
    names.unwrap_or_default().split(", ").collect()
}

#[test]
fn responds_to_preflights_without_a_signature() {
    let world = world();
    for (target, host) in [
        ("/photos/acme/a%20b", ""),
        ("/acme/a%20b", "photos.s3.localhost"),
    ] {
        let mut call = preflight(&world, target, APP, "PUT").header(
            "access-control-request-headers",
            "Content-Type, x-amz-meta-a",
        );
        if !host.is_empty() {
            call = call.header("host", host);
        }
        let reply = call.fetch();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(
            shown(&reply),
            [
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-headers", "content-type, x-amz-meta-a"),
                ("access-control-allow-methods", "GET, PUT, POST, HEAD"),
                ("access-control-allow-origin", APP),
                ("access-control-max-age", "600"),
                ("vary", VARY),
            ]
        );
    }
    let port = preflight(&world, "/photos", "http://localhost:5173", "POST").fetch();
    assert_eq!(allowed(&port), Some("http://localhost:5173"));
    // A rule for all pages names none, and allows no credentials.
    let any = preflight(&world, "/photos/acme/a", EVIL, "HEAD").fetch();
    assert_eq!(
        shown(&any),
        [
            ("access-control-allow-methods", "HEAD"),
            ("access-control-allow-origin", "*"),
            ("access-control-max-age", "3600"),
            ("vary", VARY),
        ]
    );
    assert_eq!(world.upstream_requests(), 0, "COS got requests");
    world
        .gateway
        .log
        .assert_contains("\"operation\":\"Preflight\",\"bucket\":\"photos\"");
}

#[test]
fn preflight_without_a_rule_hides_the_bucket() {
    let world = world();
    let refused = |target: &str, origin: &str, method: &str, headers: &str| {
        let call = preflight(&world, target, origin, method);
        let reply = call
            .header("access-control-request-headers", headers)
            .fetch();
        reply.assert_error(403, "AccessForbidden");
        assert_eq!(shown(&reply), [("vary", VARY)]);
        let text = reply.text();
        let text = text.replace(&element(&text, "RequestId"), "");
        let resource = format!("<Resource>{}</Resource>", element(&text, "Resource"));
        text.replace(&resource, "")
    };
    let unknown = refused("/no-such-bucket/a", EVIL, "PUT", "content-type");
    for target in ["/photos/a", "/photos", "/plain/a", "/X/a", "/"] {
        assert_eq!(
            refused(target, EVIL, "PUT", "content-type"),
            unknown,
            "{target}"
        );
    }
    for (origin, method, headers) in [
        (APP, "DELETE", ""),
        (APP, "PUT", "x-other"),
        (APP, "PUT", "content-type, x-other"),
        (APP, "PUT", "not a header"),
        ("null", "PUT", ""),
        ("https://app.example.com.evil.example", "PUT", ""),
        ("https://app.example.com/", "PUT", ""),
        ("HTTPS://APP.EXAMPLE.COM", "PUT", ""),
        ("http://localhost:1/.evil.example", "PUT", ""),
        (GLOBEX_APP, "PUT", ""),
    ] {
        refused("/photos/a", origin, method, headers);
        refused("/plain/a", origin, method, headers);
    }
    assert_eq!(world.upstream_requests(), 0, "COS got requests");
}

#[test]
fn rejects_malformed_preflights() {
    let world = world();
    let call = |headers: &[(&str, &str)]| {
        let call = Call::new(world.gateway.addr, "OPTIONS", "/photos/acme/a");
        let call = headers
            .iter()
            .fold(call, |call, (name, value)| call.header(name, value));
        let reply = call.fetch();
        reply.assert_error(400, "BadRequest");
        assert_eq!(allowed(&reply), None);
    };
    call(&[]);
    call(&[("origin", APP)]);
    call(&[("access-control-request-method", "PUT")]);
    call(&[("origin", APP), ("access-control-request-method", "PATCH")]);
    call(&[("origin", APP), ("access-control-request-method", "put")]);
    let twice = [
        ("origin", APP),
        ("origin", APP),
        ("access-control-request-method", "PUT"),
    ];
    call(&twice);
}

#[test]
fn pages_read_responses_of_their_own_grant() {
    for signature in SIGNATURES {
        let world = World::edited(|toml| {
            toml.replacen(
                "[upstream]",
                &format!("[upstream]\nsignature = \"{signature}\""),
                1,
            ) + RULES
        });
        let put = world
            .signed("PUT", "/photos/acme/a.txt")
            .header("origin", APP);
        let put = put
            .header("x-amz-meta-colour", "blue")
            .body("hello")
            .fetch();
        assert_eq!(put.status, 200, "{}", put.text());
        assert_eq!(allowed(&put), Some(APP));
        assert!(exposed(&put).contains(&"etag"), "{put:?}");

        let get = world
            .signed("GET", "/photos/acme/a.txt")
            .header("origin", APP);
        let get = get.header("range", "bytes=0-1").fetch();
        assert_eq!(get.status, 206);
        assert_eq!(get.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(get.header("vary"), Some(VARY));
        for name in [
            "etag",
            "content-range",
            "accept-ranges",
            "x-amz-meta-colour",
            "x-amz-request-id",
            "x-cos-force-download",
        ] {
            assert!(exposed(&get).contains(&name), "{name}: {get:?}");
        }
        for name in exposed(&get) {
            let is_there = get.header(name).is_some() || name == "x-cos-force-download";
            assert!(is_there && name != "*", "{name}: {get:?}");
        }
        // Only the rules of the caller's tenant apply.
        let other = world
            .signed("GET", "/photos/acme/a.txt")
            .header("origin", GLOBEX_APP)
            .fetch();
        assert_eq!((other.status, shown(&other)), (200, vec![("vary", VARY)]));
        let theirs = Call::new(world.gateway.addr, "GET", "/photos/globex/a").signed_by(GLOBEX);
        let theirs = theirs.header("origin", GLOBEX_APP).fetch();
        assert_eq!((theirs.status, allowed(&theirs)), (404, Some(GLOBEX_APP)));
        // A rule for all pages allows no credentials.
        let any = world
            .signed("HEAD", "/photos/acme/a.txt")
            .header("origin", EVIL)
            .fetch();
        assert_eq!((any.status, allowed(&any)), (200, Some("*")));
        assert_eq!(any.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn pages_read_errors() {
    let world = world();
    for (call, status, code) in [
        (world.signed("GET", "/photos/acme/none"), 404, "NoSuchKey"),
        (world.signed("GET", "/photos/globex/a"), 403, "AccessDenied"),
        (
            world.signed("GET", "/photos/acme/a?torrent"),
            501,
            "NotImplemented",
        ),
        (
            world
                .signed("PUT", "/photos/acme/a")
                .header("x-amz-acl", "public-read"),
            403,
            "AccessDenied",
        ),
        // Before the caller is known, the rules of all buckets with this name apply.
        (
            world
                .signed("GET", "/photos/acme/a")
                .signed_by((ACME.0, "wrong")),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            world
                .signed("GET", "/photos/acme/a")
                .signed_by(("NOBODY", "wrong")),
            403,
            "InvalidAccessKeyId",
        ),
        (
            Call::new(world.gateway.addr, "PUT", "/photos/acme/a"),
            403,
            "AccessDenied",
        ),
        (
            Call::new(world.gateway.addr, "GET", "/photos/acme/%zz"),
            400,
            "InvalidURI",
        ),
    ] {
        let reply = call.clone().header("origin", APP).fetch();
        reply.assert_error(status, code);
        assert_eq!(allowed(&reply), Some(APP), "{}", call.target);
        assert!(exposed(&reply).contains(&"x-amz-request-id"), "{reply:?}");
        let evil = call.header("origin", EVIL).fetch();
        evil.assert_error(status, code);
        assert_eq!(shown(&evil), [("vary", VARY)]);
    }
    // The responses do not reveal which buckets exist.
    for target in ["/photos/a", "/plain/a", "/no-such-bucket/a"] {
        let unsigned = Call::new(world.gateway.addr, "PUT", target)
            .header("origin", EVIL)
            .fetch();
        assert_eq!(
            (unsigned.status, shown(&unsigned)),
            (403, vec![("vary", VARY)]),
            "{target}"
        );
        let plain = Call::new(world.gateway.addr, "PUT", target)
            .signed_by(("NOBODY", "x"))
            .fetch();
        assert_eq!(
            (plain.status, shown(&plain)),
            (403, vec![("vary", VARY)]),
            "{target}"
        );
    }
    let foreign = world
        .signed("GET", "/no-such-bucket/a")
        .header("origin", APP)
        .fetch();
    assert_eq!(
        (foreign.status, shown(&foreign)),
        (403, vec![("vary", VARY)])
    );
}

#[test]
fn sends_vary_for_caches() {
    let world = world();
    world.put("/photos/acme/a", "x");
    world.put("/plain/a", "x");
    assert_eq!(
        shown(&world.fetch("GET", "/photos/acme/a")),
        [("vary", VARY)]
    );
    assert_eq!(shown(&world.fetch("GET", "/plain/a")), []);
    let without = World::new();
    without.put("/photos/acme/a", "x");
    for method in ["GET", "HEAD", "DELETE"] {
        let call = without
            .signed(method, "/photos/acme/a")
            .header("origin", APP);
        assert_eq!(shown(&call.fetch()), []);
    }
    preflight(&without, "/photos/acme/a", APP, "GET")
        .fetch()
        .assert_error(403, "AccessForbidden");
}

#[test]
fn removes_cors_headers_of_cos() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"e\"\r\nVary: Accept-Encoding, origin\r\n\
        Access-Control-Allow-Origin: https://evil.example\r\nAccess-Control-Allow-Credentials: true\r\n\
        Access-Control-Expose-Headers: x-secret\r\nAccess-Control-Max-Age: 9\r\n\r\nx";
    let scripted = Scripted::with(vec![act(|peer| peer.always(response))], RULES);
    let get = scripted
        .signed("GET", "/photos/acme/a")
        .header("origin", EVIL)
        .fetch();
    let vary = format!("Accept-Encoding, {VARY}");
    assert_eq!(
        (get.status, shown(&get)),
        (200, vec![("vary", vary.as_str())])
    );
    let own = scripted
        .signed("GET", "/photos/acme/a")
        .header("origin", APP)
        .fetch();
    assert_eq!(allowed(&own), Some(APP));
    assert!(!exposed(&own).contains(&"x-secret"));
    assert_eq!(own.header("access-control-max-age"), None);
    for head in scripted.script.heads() {
        assert!(!head.to_ascii_lowercase().contains("\r\norigin:"), "{head}");
    }
}

#[test]
fn page_uses_presigned_urls() {
    let world = world();
    let put = world
        .signed("PUT", "/photos/acme/photo-0001.jpg")
        .presigned(60);
    let put = put
        .header("origin", APP)
        .header("content-type", "image/jpeg")
        .body("jpeg")
        .fetch();
    assert_eq!((put.status, allowed(&put)), (200, Some(APP)));
    assert!(exposed(&put).contains(&"etag"));
    let get = world
        .signed("GET", "/photos/acme/photo-0001.jpg")
        .presigned(60);
    let get = get.header("origin", APP).fetch();
    assert_eq!((get.text().as_str(), allowed(&get)), ("jpeg", Some(APP)));
}

/// An unsigned form.
fn form(world: &World, origin: &str) -> Reply {
    let field = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = [
        field("key", "public/a b.txt"),
        field("success_action_status", "201"),
        field("file", "from a page"),
        "--b--\r\n".to_owned(),
    ];
    Call::new(world.gateway.addr, "POST", "/photos")
        .header("content-type", "multipart/form-data; boundary=b")
        .header("origin", origin)
        .header("sec-fetch-site", "cross-site")
        .body(body.concat())
        .fetch()
}

#[test]
fn page_reads_the_response_to_its_form() {
    let world = world();
    let posted = form(&world, BLOG);
    assert_eq!(
        (posted.status, allowed(&posted)),
        (201, Some(BLOG)),
        "{}",
        posted.text()
    );
    assert_eq!(element(&posted.text(), "Key"), "public/a b.txt");
    assert!(exposed(&posted).contains(&"location"), "{posted:?}");
    assert_eq!(
        world.stored("public/a b.txt").as_deref(),
        Some("from a page")
    );
    let refused = form(&world, EVIL);
    refused.assert_error(403, "AccessDenied");
    assert_eq!(shown(&refused), [("vary", VARY)]);
}

#[test]
fn page_uses_the_anonymous_tenant_if_a_rule_allows() {
    let world = world();
    let call = |method: &str| Call::new(world.gateway.addr, method, "/photos/public/a.png");
    call("PUT").body("png").fetch().assert_ok();
    // A `fetch`, then an image, which has no `Origin`.
    let fetched = call("GET")
        .header("origin", BLOG)
        .header("sec-fetch-site", "cross-site")
        .fetch();
    assert_eq!(
        (fetched.text().as_str(), allowed(&fetched)),
        ("png", Some(BLOG))
    );
    let image = |referer: Option<&str>| {
        let call = call("GET").header("sec-fetch-site", "cross-site");
        let call = match referer {
            Some(referer) => call.header("referer", referer),
            None => call,
        };
        call.fetch().status
    };
    assert_eq!(image(Some("https://blog.example.com/")), 200);
    assert_eq!(image(Some("https://blog.example.com/a page?x#y")), 200);
    assert_eq!(image(Some("https://blog.example.com.evil.example/")), 403);
    assert_eq!(
        image(Some("https://evil.example/https://blog.example.com/")),
        403
    );
    assert_eq!(image(None), 403, "nobody says whose page it is");
    let before = world.upstream_requests();
    for refused in [
        call("GET").header("origin", EVIL),
        call("GET").header("origin", "null"),
        call("GET").header("origin", APP), // another tenant's rule
        call("PUT").header("origin", BLOG),
        call("DELETE").header("origin", BLOG),
        call("GET")
            .header("origin", BLOG)
            .header("host", "evil.example"),
        call("GET")
            .header("origin", EVIL)
            .header("referer", "https://blog.example.com/"),
        call("GET").header("origin", BLOG).header("origin", EVIL),
    ] {
        refused.fetch().assert_error(403, "AccessDenied");
    }
    assert_eq!(world.upstream_requests(), before, "COS got requests");
    // The same for a rule that allows all pages.
    let public = World::edited(|toml| {
        toml + "[[tenants.anyone.grants.cors]]\norigins = [\"*\"]\nmethods = [\"GET\"]\n"
    });
    let call = Call::new(public.gateway.addr, "GET", "/photos/public/a");
    let image = call.clone().header("sec-fetch-site", "cross-site").fetch();
    image.assert_error(404, "NoSuchKey");
    let fetched = call.clone().header("origin", "null").fetch();
    assert_eq!((fetched.status, allowed(&fetched)), (404, Some("*")));
    let rebound = call
        .header("origin", EVIL)
        .header("host", "evil.example")
        .fetch();
    rebound.assert_error(403, "AccessDenied");
}

#[test]
fn applies_rules_of_a_template() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "\n[[templates.web.grants.cors]]\norigins = [\"https://app.example.com\"]\nmethods = [\"PUT\"]\nheaders = [\"authorization\"]\n";
    let world = World::with(&(identity_toml(&folder) + rule));
    let response = preflight(&world, "/photos/users/alice/k", APP, "PUT");
    let response = response
        .header("access-control-request-headers", "authorization")
        .fetch();
    assert_eq!((response.status, allowed(&response)), (200, Some(APP)));
    let token = CORP.token(
        &json!({ "alg": "EdDSA", "kid": "o1" }),
        &claims(&json!({ "sub": "alice" })),
    );
    let put = Call::new(world.gateway.addr, "PUT", "/photos/users/alice/k");
    let put = put.header("authorization", &format!("Bearer {token}"));
    let put = put.header("origin", APP).body("x").fetch();
    assert_eq!(
        (put.status, allowed(&put)),
        (200, Some(APP)),
        "{}",
        put.text()
    );
    let acme = world
        .signed("PUT", "/photos/acme/k")
        .header("origin", APP)
        .body("x")
        .fetch();
    assert_eq!(
        (acme.status, allowed(&acme)),
        (200, None),
        "another tenant's rule"
    );
}

#[test]
fn page_lists_buckets_if_a_rule_names_its_origin() {
    let world = world();
    let list = |origin: &str| world.signed("GET", "/").header("origin", origin).fetch();
    let own = list(APP);
    assert_eq!((own.status, allowed(&own)), (200, Some(APP)));
    assert_eq!(elements(&own.text(), "Name").len(), 2);
    for other in [EVIL, GLOBEX_APP] {
        assert_eq!(shown(&list(other)), [("vary", VARY)], "{other}");
    }
    assert_eq!(preflight(&world, "/", APP, "GET").fetch().status, 200);
    // A rule for all pages applies only to the objects of its bucket.
    preflight(&world, "/", EVIL, "HEAD")
        .fetch()
        .assert_error(403, "AccessForbidden");
}

#[test]
fn gives_keys_to_pages_that_a_rule_names() {
    let secret = "session_secret = \"session-secret-0123456789-0123456789\"";
    let world = World::edited(|toml| {
        let toml = toml.replacen("threads = 1", &format!("threads = 1\n{secret}"), 1);
        toml.replacen("[tenants.acme]", "[tenants.acme]\nvend = true", 1) + RULES
    });
    let form = "Action=GetSessionToken&Version=2011-06-15";
    let sts = |origin: &str| {
        let call = signed(world.gateway.addr, form, ACME, "sts");
        call.header("origin", origin).send()
    };
    let vend = |origin: &str| {
        world
            .signed("POST", "/.cosgate/credentials")
            .header("origin", origin)
            .send()
    };
    for (what, send) in [("sts", &sts as &dyn Fn(&str) -> Reply), ("vend", &vend)] {
        let own = send(APP);
        assert_eq!(
            (own.status, allowed(&own)),
            (200, Some(APP)),
            "{what}: {}",
            own.text()
        );
        for other in [EVIL, GLOBEX_APP, "null"] {
            let reply = send(other);
            assert_eq!(
                (reply.status, shown(&reply)),
                (403, vec![("vary", VARY)]),
                "{what} {other}"
            );
        }
    }
    for target in ["/", "/.cosgate/credentials"] {
        let response = preflight(&world, target, APP, "POST");
        let response = response
            .header("access-control-request-headers", "authorization,x-amz-date")
            .fetch();
        assert_eq!(
            (response.status, allowed(&response)),
            (200, Some(APP)),
            "{target}"
        );
        preflight(&world, target, EVIL, "POST")
            .fetch()
            .assert_error(403, "AccessForbidden");
    }
}
