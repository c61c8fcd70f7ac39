//! Reads of a bucket's configuration that tools make first. cosgate responds as S3 does for a bucket without
//! such a configuration, and COS gets no request.

use cosgate::error::Code;
use cosgate::s3::{Local, Operation, Performer};

use crate::support::{SIGNATURES, World, element};

const KEY: &str = "/photos/acme/a";

#[test]
fn responds_to_bucket_configuration_reads_without_cos() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        for (name, status, text) in [
            ("accelerate", 200, "<AccelerateConfiguration"),
            ("acl", 200, "<Permission>FULL_CONTROL</Permission>"),
            ("cors", 404, "NoSuchCORSConfiguration"),
            (
                "encryption",
                404,
                "ServerSideEncryptionConfigurationNotFoundError",
            ),
            ("lifecycle", 404, "NoSuchLifecycleConfiguration"),
            ("logging", 200, "<BucketLoggingStatus"),
            ("notification", 200, "<NotificationConfiguration"),
            ("object-lock", 404, "ObjectLockConfigurationNotFoundError"),
            ("ownershipControls", 404, "OwnershipControlsNotFoundError"),
            ("policy", 404, "NoSuchBucketPolicy"),
            ("policyStatus", 404, "NoSuchBucketPolicy"),
            (
                "publicAccessBlock",
                404,
                "NoSuchPublicAccessBlockConfiguration",
            ),
            ("replication", 404, "ReplicationConfigurationNotFoundError"),
            ("requestPayment", 200, "<Payer>BucketOwner</Payer>"),
            ("tagging", 404, "NoSuchTagSet"),
            ("versioning", 200, "<VersioningConfiguration"),
            ("website", 404, "NoSuchWebsiteConfiguration"),
        ] {
            let reply = world.fetch("GET", &format!("/photos?{name}"));
            assert_eq!(reply.status, status, "{name}: {}", reply.text());
            assert!(reply.text().contains(text), "{name}: {}", reply.text());
            let other = world.fetch("GET", &format!("/another?{name}"));
            other.assert_error(404, "NoSuchBucket");
        }
        let owner = world.fetch("GET", "/photos?acl");
        assert_eq!(element(&owner.text(), "ID"), "acme");
        assert_eq!(world.upstream_requests(), 0, "COS got requests");
    }
}

#[test]
fn responds_to_object_configuration_reads_within_the_grant() {
    let world = World::new();
    for (name, status, text) in [
        ("acl", 200, "<Permission>FULL_CONTROL</Permission>"),
        ("legal-hold", 404, "NoSuchObjectLockConfiguration"),
        ("retention", 404, "NoSuchObjectLockConfiguration"),
    ] {
        let reply = world.fetch("GET", &format!("{KEY}?{name}"));
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        assert!(reply.text().contains(text), "{name}: {}", reply.text());
        let other = world.fetch("GET", &format!("/photos/globex/a?{name}"));
        other.assert_error(403, "AccessDenied");
    }
    assert_eq!(world.upstream_requests(), 0, "COS got requests");
}

#[test]
fn tests_every_local_response() {
    let local = |operation: &&Operation| {
        let (Performer::Cosgate(local) | Performer::CosIfGranted(local)) = operation.performer()
        else {
            return false;
        };
        matches!(
            local,
            Local::Absent(_) | Local::OwnersAcl | Local::Unset(..)
        )
    };
    assert_eq!(Operation::ALL.iter().filter(local).count(), 20);
    let is_404 = |operation: &Operation| match operation.performer() {
        Performer::Cosgate(Local::Absent(code)) | Performer::CosIfGranted(Local::Absent(code)) => {
            code.status() == 404
        }
        _ => true,
    };
    assert!(Operation::ALL.iter().all(is_404));
    assert_eq!(Code::NoSuchBucketPolicy.status(), 404);
}

#[test]
fn reads_attributes_with_a_head() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        world.put(KEY, "acme's");
        let send = |target: &str, names: &str| {
            let call = world.signed("GET", target);
            call.header("x-amz-object-attributes", names).fetch()
        };
        let reply = send(
            &format!("{KEY}?attributes"),
            "ETag,ObjectSize,StorageClass,Checksum",
        );
        assert_eq!(reply.status, 200, "{}", reply.text());
        let etag = world.fetch("HEAD", KEY).header("etag").unwrap().to_owned();
        assert_eq!(element(&reply.text(), "ETag"), etag.trim_matches('"'));
        assert_eq!(element(&reply.text(), "ObjectSize"), "6");
        assert_eq!(element(&reply.text(), "StorageClass"), "STANDARD");
        assert!(reply.header("last-modified").is_some());
        assert!(reply.header("etag").is_none());
        let size = send(&format!("{KEY}?attributes"), "ObjectSize").text();
        assert!(!size.contains("ETag"), "{size}");
        assert_eq!(send("/photos/acme/none?attributes", "ETag").status, 404);
        assert_eq!(send("/photos/globex/a?attributes", "ETag").status, 403);
        send(&format!("{KEY}?attributes"), "Size").assert_error(400, "InvalidArgument");
        world
            .fetch("GET", &format!("{KEY}?attributes"))
            .assert_error(400, "InvalidRequest");
        for head in world.emulator.counters().heads() {
            assert!(!head.target.contains("attributes"), "{}", head.target);
        }
    }
}

#[test]
fn pages_buckets_by_prefix_and_region() {
    let grant = |name: &str| {
        format!(
            "[[tenants.acme.grants]]\nname = \"{name}\"\nbucket = \"other-1250000000\"\n\
             region = \"ap-guangzhou\"\nprefixes = [\"*\"]\nactions = [\"read\"]\n"
        )
    };
    let world = World::with(&["videos", "albums"].map(grant).concat());
    let all = world.fetch("GET", "/").text();
    let names = crate::support::elements(&all, "Name");
    assert!(names.len() > 1, "{all}");
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let page = world
            .fetch(
                "GET",
                &format!("/?max-buckets=1&continuation-token={token}"),
            )
            .text();
        paged.extend(crate::support::elements(&page, "Name"));
        match crate::support::elements(&page, "ContinuationToken").pop() {
            Some(next) => token = next,
            None => break,
        }
    }
    let mut sorted = names;
    sorted.sort();
    assert_eq!(paged, sorted);
    let some = world.fetch("GET", "/?prefix=pho").text();
    assert_eq!(crate::support::elements(&some, "Name"), ["photos"]);
    let region = element(&all, "BucketRegion");
    assert_eq!(
        world
            .fetch("GET", &format!("/?bucket-region={region}"))
            .text(),
        all
    );
    let none = world.fetch("GET", "/?bucket-region=eu-west-1").text();
    assert!(!none.contains("<Bucket>"), "{none}");
    for wrong in ["0", "10001", "x"] {
        let reply = world.fetch("GET", &format!("/?max-buckets={wrong}"));
        reply.assert_error(400, "InvalidArgument");
    }
}

#[test]
fn reads_headers_in_a_presigned_query() {
    for signature in SIGNATURES {
        let world = World::speaking(signature);
        let target = format!("{KEY}?x-amz-meta-colour=blue%20green&x-amz-acl=private");
        let put = world
            .signed("PUT", &target)
            .body("six by")
            .presigned(60)
            .fetch();
        put.assert_ok();
        let head = world.fetch("HEAD", KEY);
        assert_eq!(head.header("x-amz-meta-colour"), Some("blue green"));
        let acl = world
            .signed("PUT", &format!("{KEY}?x-amz-acl=public-read"))
            .body("six");
        acl.presigned(60).fetch().assert_error(403, "AccessDenied");
        let differs = world
            .signed("PUT", &format!("{KEY}?x-amz-meta-a=1"))
            .body("six");
        let differs = differs.presigned(60).header("x-amz-meta-a", "2");
        differs.fetch().assert_error(400, "InvalidArgument");
        // S3 reads no headers from the query of a request that is signed in its head.
        let plain = world.signed("PUT", &target).body("six by").fetch();
        plain.assert_error(400, "InvalidArgument");
    }
}
