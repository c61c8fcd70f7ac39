//! The addresses from which a tenant may call, and the proxies that are trusted for them.
#![allow(clippy::panic, reason = "a test may panic")]

use crate::support::{ACME, Call, GLOBEX, Reply, World};

const KEY: &str = "/photos/acme/a";
const PUBLIC: &str = "/photos/public/a";

/// acme may call only from `10.0.0.0/8` and `2001:db8::/32`; `more` contains keys of `[server]`.
fn world(more: &str) -> World {
    World::edited(|toml| {
        let toml = toml.replacen("threads = 1", &format!("threads = 1\n{more}"), 1);
        let allowed = "[tenants.acme]\nallowed_ips = [\"10.0.0.0/8\", \"2001:db8::/32\"]";
        toml.replacen("[tenants.acme]", allowed, 1)
    })
}

#[track_caller]
fn assert_denied(reply: &Reply) {
    reply.assert_error(403, "AccessDenied");
    assert!(
        reply.text().contains("<Message>Access Denied.</Message>"),
        "{}",
        reply.text()
    );
}

#[test]
fn denies_keys_from_other_addresses() {
    let world = world("");
    assert_denied(&world.fetch("GET", KEY));
    assert_denied(&world.signed("PUT", KEY).body("x").fetch());
    assert_denied(&world.signed("GET", KEY).presigned(60).fetch());
    // No proxy is trusted, so the header has no effect.
    let forged = world
        .signed("GET", KEY)
        .header("x-forwarded-for", "10.0.0.1");
    assert_denied(&forged.fetch());
    let call = Call::new(world.gateway.addr, "GET", KEY);
    let wrong = call.clone().signed_by((ACME.0, "wrong"));
    wrong.fetch().assert_error(403, "SignatureDoesNotMatch");
    let unknown = call.signed_by(("NOBODY", "wrong"));
    unknown.fetch().assert_error(403, "InvalidAccessKeyId");
    assert_eq!(world.upstream_requests(), 0);
    world
        .gateway
        .log
        .assert_contains("127.0.0.1 is not in allowed_ips of the tenant acme");
    // The log names the key that was stolen.
    for known in ["sigv4", "presigned"] {
        let by = format!(
            "\"tenant\":\"acme\",\"identity\":\"{known}\",\"key_id\":\"{}\"",
            ACME.0
        );
        world.gateway.log.assert_contains(&by);
    }
    world
        .gateway
        .log
        .assert_contains("\"client\":\"127.0.0.1\"");
    // Other tenants have their own rules.
    let globex = Call::new(world.gateway.addr, "PUT", "/photos/globex/a").signed_by(GLOBEX);
    globex.body("x").fetch().assert_ok();
}

#[test]
fn trusts_forwarded_address_of_a_trusted_proxy() {
    let world = world("trusted_proxies = [\"127.0.0.1\", \"192.0.2.0/24\"]");
    let from = |forwarded: &[&str]| {
        let mut call = world.signed("PUT", KEY).body("x");
        for line in forwarded {
            call = call.header("X-Forwarded-For", line);
        }
        call.fetch()
    };
    for forwarded in [
        &["10.1.2.3"][..],
        &["8.8.8.8, 10.1.2.3"],
        &["8.8.8.8, 10.1.2.3, 192.0.2.7"],
        &["8.8.8.8", "10.1.2.3", "192.0.2.7"],
        &["junk, 10.1.2.3:5000"],
        &["2001:db8::1"],
        &["[2001:db8::1]:443"],
        &["::ffff:10.1.2.3"],
    ] {
        from(forwarded).assert_ok();
    }
    world
        .gateway
        .log
        .assert_contains("\"client\":\"2001:db8::1\"");
    let served = world.upstream_requests();
    for forwarded in [
        &[][..],
        &["8.8.8.8"],
        &["10.1.2.3, 8.8.8.8"],
        &["10.1.2.3", "8.8.8.8"],
        &["10.1.2.3, 127.0.0.1, 192.0.2.7, 8.8.8.8, 192.0.2.1"],
        &["2001:db9::1"],
    ] {
        assert_denied(&from(forwarded));
    }
    for forwarded in [
        &["junk"][..],
        &[""],
        &["unknown"],
        &["10.1.2.3, x, 192.0.2.7"],
        &["10.1.2.3,"],
    ] {
        from(forwarded).assert_error(400, "InvalidRequest");
    }
    assert_eq!(world.upstream_requests(), served);
}

#[test]
fn forwarded_request_is_not_local() {
    let put = |world: &World, header: Option<(&str, &str)>| {
        let mut call = Call::new(world.gateway.addr, "PUT", PUBLIC).body("x");
        if let Some((name, value)) = header {
            call = call.header(name, value);
        }
        call.fetch()
    };
    let plain = world("");
    put(&plain, None).assert_ok();
    let served = plain.upstream_requests();
    for header in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-for", "8.8.8.8"),
        ("x-forwarded-for", "junk"),
        ("forwarded", "for=127.0.0.1"),
    ] {
        put(&plain, Some(header)).assert_error(403, "AccessDenied");
    }
    assert_eq!(plain.upstream_requests(), served);
    // A trusted proxy never counts as a local client.
    let behind = world("trusted_proxies = [\"127.0.0.0/8\"]");
    for header in [
        None,
        Some(("x-forwarded-for", "127.0.0.1")),
        Some(("x-forwarded-for", "8.8.8.8")),
    ] {
        put(&behind, header).assert_error(403, "AccessDenied");
    }
    assert_eq!(behind.upstream_requests(), 0);
}
