//! Requests that a scoped key could not make: cosgate responds itself, and COS gets no request.

use crate::support::{Call, GLOBEX, SIGNATURES, World, element, elements};

#[test]
fn lists_own_buckets_by_alias() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let listed = world.fetch("GET", "/");
        let text = listed.assert_ok().text();
        assert_eq!(elements(&element(&text, "Buckets"), "Name"), ["photos"]);
        assert_eq!(element(&text, "ID"), "acme");
        let theirs = Call::new(world.gateway.addr, "GET", "/").signed_by(GLOBEX);
        assert_eq!(element(&theirs.fetch().text(), "ID"), "globex");
        let anyone = Call::new(world.gateway.addr, "GET", "/").fetch();
        assert_eq!(element(&anyone.assert_ok().text(), "ID"), "anyone");
        assert_eq!(world.upstream_requests(), 0);
    }
}

#[test]
fn responds_to_bucket_probes_without_cos() {
    let world = World::new();
    let head = world.fetch("HEAD", "/photos");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("x-amz-bucket-region"), Some("ap-guangzhou"));
    let location = world.fetch("GET", "/photos?location");
    assert!(location.assert_ok().text().contains(">ap-guangzhou<"));
    let head = world.fetch("HEAD", "/theirs");
    assert_eq!((head.status, head.text().as_str()), (404, ""));
    world
        .fetch("GET", "/theirs?location")
        .assert_error(404, "NoSuchBucket");

    let create = "<CreateBucketConfiguration><LocationConstraint>ap-guangzhou</LocationConstraint>\
        </CreateBucketConfiguration>";
    for body in ["", create] {
        let created = world.signed("PUT", "/photos").body(body).fetch();
        created.assert_error(409, "BucketAlreadyOwnedByYou");
    }
    world
        .fetch("PUT", "/theirs")
        .assert_error(403, "AccessDenied");
    assert_eq!(world.upstream_requests(), 0);
    assert_eq!(world.emulator.counters().counts().sts_calls, 0);
}

#[test]
fn creates_an_own_bucket_again_in_the_oldest_region() {
    let world = World::edited(|toml| {
        toml.replacen("region = \"ap-guangzhou\"", "region = \"us-east-1\"", 1)
    });
    let created = world.signed("PUT", "/photos").fetch();
    assert_eq!(created.assert_ok().header("location"), Some("/photos"));
    world
        .fetch("PUT", "/theirs")
        .assert_error(403, "AccessDenied");
    assert_eq!(world.upstream_requests(), 0);
}

/// Tools that clean up send it with each delete.
#[test]
fn deletes_whether_or_not_a_retention_is_to_be_lifted() {
    let world = World::new();
    world.put("/photos/acme/a", "x");
    let call = world.signed("DELETE", "/photos/acme/a");
    let call = call.header("x-amz-bypass-governance-retention", "true");
    assert_eq!(call.fetch().status, 204);
    assert_eq!(world.stored("acme/a"), None);
}
