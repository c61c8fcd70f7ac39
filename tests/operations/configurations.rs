//! What is configured of buckets, access rights and restores: passed on with the action that is granted for them
//! and put into COS's words and back, in both signatures; else served here or refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

use crate::support::{Reply, SIGNATURES, SITE, World};

const ACTIONS: [&str; 32] = [
    "DeleteBucketCORS",
    "DeleteBucketEncryption",
    "DeleteBucketLifecycle",
    "DeleteBucketReplication",
    "DeleteBucketTagging",
    "DeleteBucketWebsite",
    "GetBucketACL",
    "GetBucketAccelerate",
    "GetBucketCORS",
    "GetBucketEncryption",
    "GetBucketLifecycle",
    "GetBucketLogging",
    "GetBucketObjectLockConfiguration",
    "GetBucketReplication",
    "GetBucketTagging",
    "GetBucketVersioning",
    "GetBucketWebsite",
    "GetObjectACL",
    "GetObjectRetention",
    "PostObjectRestore",
    "PutBucketACL",
    "PutBucketAccelerate",
    "PutBucketCORS",
    "PutBucketEncryption",
    "PutBucketLifecycle",
    "PutBucketLogging",
    "PutBucketObjectLockConfiguration",
    "PutBucketTagging",
    "PutBucketVersioning",
    "PutBucketWebsite",
    "PutObjectACL",
    "PutObjectRetention",
];

/// A kind of configuration.
struct Kind {
    parameter: &'static str,
    root: &'static str,
    /// The inside of the document that S3's client sends.
    s3: &'static str,
    /// What COS gets for it.
    cos: &'static str,
    /// What the client reads again, if it is not what it sent.
    back: &'static str,
    /// S3's code where it is not configured; empty for an empty document.
    absent: &'static str,
}

/// What S3 and COS can change and not delete.
const KEPT: [&str; 4] = ["accelerate", "logging", "object-lock", "versioning"];

const KINDS: [Kind; 9] = [
    Kind {
        parameter: "accelerate",
        root: "AccelerateConfiguration",
        s3: "<Status>Suspended</Status>",
        cos: "",
        back: "",
        absent: "",
    },
    Kind {
        parameter: "logging",
        root: "BucketLoggingStatus",
        s3: "<LoggingEnabled><TargetBucket>site</TargetBucket><TargetPrefix>日志/</TargetPrefix></LoggingEnabled>",
        cos: "<LoggingEnabled><TargetBucket>site-1250000000</TargetBucket><TargetPrefix>日志/</TargetPrefix></LoggingEnabled>",
        back: "",
        absent: "",
    },
    Kind {
        parameter: "object-lock",
        root: "ObjectLockConfiguration",
        s3: "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days>\
             </DefaultRetention></Rule>",
        cos: "",
        back: "",
        absent: "ObjectLockConfigurationNotFoundError",
    },
    Kind {
        parameter: "cors",
        root: "CORSConfiguration",
        s3: "<CORSRule><ID>shop</ID><AllowedOrigin>https://shop.example</AllowedOrigin><AllowedMethod>GET</AllowedMethod>\
             <AllowedMethod>PUT</AllowedMethod><AllowedHeader>*</AllowedHeader><ExposeHeader>ETag</ExposeHeader>\
             <MaxAgeSeconds>600</MaxAgeSeconds></CORSRule>",
        cos: "",
        back: "",
        absent: "NoSuchCORSConfiguration",
    },
    Kind {
        parameter: "lifecycle",
        root: "LifecycleConfiguration",
        s3: "<Rule><ID>logs</ID><Prefix>日志/a &amp; b/</Prefix><Status>Enabled</Status><Transition><Days>30</Days>\
             <StorageClass>GLACIER</StorageClass></Transition></Rule><Rule><Filter><And><Prefix>tmp/</Prefix><Tag><Key>k</Key>\
             <Value>v</Value></Tag></And></Filter><Status>Disabled</Status><Expiration><Days>7</Days></Expiration>\
             <AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>",
        cos: "<Rule><ID>logs</ID><Filter><Prefix>日志/a &amp; b/</Prefix></Filter><Status>Enabled</Status><Transition><Days>30</Days>\
              <StorageClass>ARCHIVE</StorageClass></Transition></Rule><Rule><Filter><And><Prefix>tmp/</Prefix><Tag><Key>k</Key>\
              <Value>v</Value></Tag></And></Filter><Status>Disabled</Status><Expiration><Days>7</Days></Expiration>\
              <AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>",
        back: "<Rule><ID>logs</ID><Filter><Prefix>日志/a &amp; b/</Prefix></Filter><Status>Enabled</Status><Transition><Days>30</Days>\
               <StorageClass>GLACIER</StorageClass></Transition></Rule><Rule><Filter><And><Prefix>tmp/</Prefix><Tag><Key>k</Key>\
               <Value>v</Value></Tag></And></Filter><Status>Disabled</Status><Expiration><Days>7</Days></Expiration>\
               <AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>",
        absent: "NoSuchLifecycleConfiguration",
    },
    Kind {
        parameter: "tagging",
        root: "Tagging",
        s3: "<TagSet><Tag><Key>team</Key><Value>图片 &lt;1&gt;</Value></Tag></TagSet>",
        cos: "",
        back: "",
        absent: "NoSuchTagSet",
    },
    Kind {
        parameter: "versioning",
        root: "VersioningConfiguration",
        s3: "<MfaDelete>Disabled</MfaDelete><Status>Enabled</Status>",
        cos: "<Status>Enabled</Status>",
        back: "<Status>Enabled</Status>",
        absent: "",
    },
    Kind {
        parameter: "encryption",
        root: "ServerSideEncryptionConfiguration",
        s3: "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault>\
             <BucketKeyEnabled>false</BucketKeyEnabled></Rule>",
        cos: "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>KMS</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>",
        back: "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>",
        absent: "ServerSideEncryptionConfigurationNotFoundError",
    },
    Kind {
        parameter: "website",
        root: "WebsiteConfiguration",
        s3: "<IndexDocument><Suffix>index.html</Suffix></IndexDocument><ErrorDocument><Key>404.html</Key></ErrorDocument>\
             <RoutingRules><RoutingRule><Condition><KeyPrefixEquals>old/</KeyPrefixEquals></Condition><Redirect>\
             <ReplaceKeyPrefixWith>new/</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules>",
        cos: "",
        back: "",
        absent: "NoSuchWebsiteConfiguration",
    },
];

impl Kind {
    /// The document as S3's clients send it.
    fn sent(&self) -> String {
        let root = self.root;
        let s3 = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
        format!("<{root} {s3}>{}</{root}>", self.s3)
    }

    fn can_be_deleted(&self) -> bool {
        !KEPT.contains(&self.parameter)
    }

    fn for_cos(&self) -> &'static str {
        if self.cos.is_empty() {
            self.s3
        } else {
            self.cos
        }
    }

    fn back(&self) -> &'static str {
        if self.back.is_empty() {
            self.s3
        } else {
            self.back
        }
    }
}

const WHOLE: &str = "prefixes = [\"*\"]";

fn put(world: &World, target: &str, document: &str) -> Reply {
    world.signed("PUT", target).body(document).send()
}

/// The inside of a document, whose root must be S3's.
fn inside(reply: &Reply, root: &str) -> String {
    reply.assert_ok();
    let text = reply.text();
    let start = format!("<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("{text}"));
    let end = format!("</{root}>");
    rest.strip_suffix(&end)
        .unwrap_or_else(|| panic!("{text}"))
        .to_owned()
}

fn tells_nothing_of_cos(reply: &Reply) {
    let text = reply.text();
    for hidden in ["1250000000", "qcs::", "myqcloud", "100000000001"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
}

#[test]
fn a_configuration_is_put_read_and_deleted_in_s3s_words() {
    for signature in SIGNATURES {
        let world = World::of_site(signature, WHOLE, &ACTIONS);
        for kind in &KINDS {
            let target = format!("/site?{}", kind.parameter);
            let absent = |reply: &Reply| match kind.absent {
                "" => assert_eq!(inside(reply, kind.root), ""),
                code => reply.assert_error(404, code),
            };
            absent(&world.fetch("GET", &target));
            put(&world, &target, &kind.sent()).assert_ok();
            let stored = world.emulator.setting(SITE, kind.parameter).unwrap();
            let for_cos = format!("<{0}>{1}</{0}>", kind.root, kind.for_cos());
            assert!(stored.ends_with(&for_cos), "{stored}");
            let read = world.fetch("GET", &target);
            assert_eq!(inside(&read, kind.root), kind.back(), "{signature}");
            tells_nothing_of_cos(&read);
            if !kind.can_be_deleted() {
                world
                    .fetch("DELETE", &target)
                    .assert_error(501, "NotImplemented");
                continue;
            }
            assert_eq!(world.fetch("DELETE", &target).status, 204);
            absent(&world.fetch("GET", &target));
        }
    }
}

#[test]
fn without_the_action_a_question_is_served_here_and_a_change_is_refused() {
    let world = World::of_site("s3", WHOLE, &[]);
    for kind in &KINDS {
        world
            .emulator
            .configure(SITE, kind.parameter, "<Secret/>")
            .unwrap();
        let target = format!("/site?{}", kind.parameter);
        let read = world.fetch("GET", &target);
        match kind.absent {
            "" => assert_eq!(inside(&read, kind.root), ""),
            code => read.assert_error(404, code),
        }
        put(&world, &target, &kind.sent()).assert_error(403, "AccessDenied");
        if kind.can_be_deleted() {
            world
                .fetch("DELETE", &target)
                .assert_error(403, "AccessDenied");
        }
    }
    let object = "/site/photo-0001.jpg";
    world.put(object, "a photo");
    world.emulator.counters().reset();
    for target in ["/site?acl", "/site/photo-0001.jpg?acl"] {
        let rights = inside(&world.fetch("GET", target), "AccessControlPolicy");
        assert!(rights.contains("<ID>acme</ID>"), "{rights}");
        let canned = world
            .signed("PUT", target)
            .header("x-amz-acl", "public-read");
        // s3cmd goes on after a copy only if the store has no ACLs of objects.
        let refused = if target == "/site?acl" {
            (403, "AccessDenied")
        } else {
            (501, "NotImplemented")
        };
        canned.send().assert_error(refused.0, refused.1);
    }
    let restore = world
        .signed("POST", "/site/photo-0001.jpg?restore")
        .body(RESTORE);
    restore.send().assert_error(403, "AccessDenied");
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn a_part_of_a_bucket_and_a_virtual_bucket_are_not_configured() {
    for reach in [
        "prefixes = [\"acme/*\"]",
        "root = \"acme/\"",
        "root = \"acme/\"\nprefixes = [\"*\"]",
    ] {
        let world = World::of_site("s3", reach, &ACTIONS);
        for kind in &KINDS {
            world
                .emulator
                .configure(SITE, kind.parameter, "<Secret/>")
                .unwrap();
            let target = format!("/site?{}", kind.parameter);
            let read = world.fetch("GET", &target);
            match kind.absent {
                "" => assert_eq!(inside(&read, kind.root), ""),
                code => read.assert_error(404, code),
            }
            put(&world, &target, &kind.sent()).assert_error(403, "AccessDenied");
        }
        let acl = world
            .signed("PUT", "/site?acl")
            .header("x-amz-acl", "public-read");
        acl.send().assert_error(403, "AccessDenied");
        assert_eq!(world.upstream_requests(), 0);
        if reach.starts_with("root") {
            let object = world.signed("PUT", "/site/a.jpg?acl");
            let object = object.header("x-amz-acl", "public-read").send();
            object.assert_error(403, "AccessDenied");
            let restore = world.signed("POST", "/site/a.jpg?restore").body(RESTORE);
            restore.send().assert_error(403, "AccessDenied");
            assert_eq!(world.upstream_requests(), 0);
        }
    }
}

#[test]
fn what_cos_cannot_do_and_what_is_malformed_never_reaches_it() {
    let world = World::of_site("cos", WHOLE, &ACTIONS);
    let rule = |inside: &str| format!("<Rule><Status>Enabled</Status>{inside}</Rule>");
    let lock = |inside: &str| {
        format!(
            "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{inside}</DefaultRetention></Rule>"
        )
    };
    let logs_to = |bucket: &str| {
        format!("<LoggingEnabled><TargetBucket>{bucket}</TargetBucket></LoggingEnabled>")
    };
    for (parameter, root, inside, status, code) in [
        ("cors", "CORSConfiguration", String::new(), 400, "MalformedXML"),
        ("cors", "CORSConfiguration", "<CORSRule><AllowedOrigin>*</AllowedOrigin></CORSRule>".into(), 400, "MalformedXML"),
        ("cors", "CORSConfiguration", "<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>PATCH</AllowedMethod></CORSRule>".into(), 400, "MalformedXML"),
        ("cors", "Tagging", "<TagSet/>".into(), 400, "MalformedXML"),
        ("lifecycle", "LifecycleConfiguration", rule("<Status>Enabled</Status>"), 400, "MalformedXML"),
        ("lifecycle", "LifecycleConfiguration", rule("<Extra/>"), 400, "MalformedXML"),
        ("lifecycle", "LifecycleConfiguration", rule("<Transition><Days>1e3</Days><StorageClass>GLACIER</StorageClass></Transition>"), 400, "MalformedXML"),
        ("lifecycle", "LifecycleConfiguration", rule("<Transition><Days>1</Days><StorageClass>GLACIER_IR</StorageClass></Transition>"), 501, "NotImplemented"),
        ("lifecycle", "LifecycleConfiguration", rule("<NoncurrentVersionExpiration><NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration>"), 501, "NotImplemented"),
        ("versioning", "VersioningConfiguration", "<MfaDelete>Enabled</MfaDelete>".into(), 501, "NotImplemented"),
        ("encryption", "ServerSideEncryptionConfiguration", "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule>".into(), 501, "NotImplemented"),
        ("website", "WebsiteConfiguration", "<RedirectAllRequestsTo><HostName>a.example</HostName></RedirectAllRequestsTo>".into(), 501, "NotImplemented"),
        ("tagging", "Tagging", "<TagSet><Tag><Key>a</Key></Tag></TagSet>".into(), 400, "MalformedXML"),
        ("acl", "AccessControlPolicy", "<AccessControlList/>".into(), 501, "NotImplemented"),
        ("accelerate", "AccelerateConfiguration", "<Status>Disabled</Status>".into(), 400, "MalformedXML"),
        ("accelerate", "AccelerateConfiguration", "<Type>COS</Type>".into(), 400, "MalformedXML"),
        ("logging", "BucketLoggingStatus", "<LoggingEnabled><TargetPrefix>a</TargetPrefix></LoggingEnabled>".into(), 400, "MalformedXML"),
        ("logging", "BucketLoggingStatus", logs_to("site-1250000000"), 403, "AccessDenied"),
        ("logging", "BucketLoggingStatus", logs_to("shared-1250000000"), 403, "AccessDenied"),
        ("logging", "BucketLoggingStatus", logs_to("site</TargetBucket><TargetObjectKeyFormat><SimplePrefix/></TargetObjectKeyFormat><TargetBucket>"), 501, "NotImplemented"),
        ("logging", "BucketLoggingStatus", logs_to("site</TargetBucket><TargetGrants><Grant><Permission>READ</Permission></Grant></TargetGrants><TargetBucket>"), 501, "NotImplemented"),
        ("object-lock", "ObjectLockConfiguration", lock("<Mode>GOVERNANCE</Mode><Days>1</Days>"), 501, "NotImplemented"),
        ("object-lock", "ObjectLockConfiguration", lock("<Mode>COMPLIANCE</Mode><Years>1</Years>"), 501, "NotImplemented"),
        ("object-lock", "ObjectLockConfiguration", lock("<Days>1</Days>"), 400, "MalformedXML"),
    ] {
        let document = format!("<{root}>{inside}</{root}>");
        let reply = put(&world, &format!("/site?{parameter}"), &document);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{document}: {}", reply.text());
    }
    let long = format!(
        "<Tagging><TagSet><!--{}--></TagSet></Tagging>",
        "x".repeat(65 << 10)
    );
    put(&world, "/site?tagging", &long).assert_error(400, "MalformedXML");
    let replication = put(&world, "/site?replication", "<ReplicationConfiguration/>");
    replication.assert_error(501, "NotImplemented");
    assert!(
        replication.text().contains("names the account"),
        "{}",
        replication.text()
    );
    let policy = put(&world, "/site?policy", "{}");
    policy.assert_error(501, "NotImplemented");
    assert!(
        policy.text().contains("Ask the operator"),
        "{}",
        policy.text()
    );
    assert_eq!(world.upstream_requests(), 0);
}

#[test]
fn what_s3_cannot_say_is_an_error_and_never_left_out() {
    let world = World::of_site("s3", WHOLE, &ACTIONS);
    let rule = "<Rule><Filter><And><Prefix>a/</Prefix><PrefixNotEquals>a/b/</PrefixNotEquals></And></Filter><Status>Enabled</Status></Rule>";
    for (parameter, document) in [
        ("lifecycle", format!("<LifecycleConfiguration>{rule}</LifecycleConfiguration>")),
        ("website", "<WebsiteConfiguration><RedirectAllRequestsTo><Protocol>https</Protocol></RedirectAllRequestsTo></WebsiteConfiguration>".to_owned()),
    ] {
        world.emulator.configure(SITE, parameter, &document).unwrap();
        let read = world.fetch("GET", &format!("/site?{parameter}"));
        read.assert_error(501, "NotImplemented");
        assert!(read.text().contains("COS console"), "{}", read.text());
    }
    world
        .emulator
        .configure(
            SITE,
            "cors",
            "<CORSConfiguration><Surprise/></CORSConfiguration>",
        )
        .unwrap();
    world
        .fetch("GET", "/site?cors")
        .assert_error(502, "BadGateway");
    let key = "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>KMS</SSEAlgorithm><KMSMasterKeyID>kms-1250000000</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule>";
    let document =
        format!("<ServerSideEncryptionConfiguration>{key}</ServerSideEncryptionConfiguration>");
    world
        .emulator
        .configure(SITE, "encryption", &document)
        .unwrap();
    let read = world.fetch("GET", "/site?encryption");
    assert!(inside(&read, "ServerSideEncryptionConfiguration").contains("aws:kms"));
    tells_nothing_of_cos(&read);
}

/// The document that gives everybody `permissions`, and the owner all.
fn rights(owner: &str, permissions: &[&str]) -> String {
    let grant = |grantee: &str, permission: &str| {
        format!(
            "<Grant><Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"x\">{grantee}</Grantee><Permission>{permission}</Permission></Grant>"
        )
    };
    let all = "<URI>http://acs.amazonaws.com/groups/global/AllUsers</URI>";
    let mut list = grant(&format!("<ID>{owner}</ID>"), "FULL_CONTROL");
    for permission in permissions {
        list += &grant(all, permission);
    }
    format!(
        "<AccessControlPolicy><Owner><ID>{owner}</ID></Owner><AccessControlList>{list}</AccessControlList></AccessControlPolicy>"
    )
}

#[test]
fn access_rights_are_given_to_everybody_or_to_nobody_else() {
    for signature in SIGNATURES {
        let world = World::of_site(signature, WHOLE, &ACTIONS);
        world.put("/site/photo-0001.jpg", "a photo");
        for target in ["/site?acl", "/site/photo-0001.jpg?acl"] {
            let read = || {
                let reply = world.fetch("GET", target);
                tells_nothing_of_cos(&reply);
                let rights = inside(&reply, "AccessControlPolicy");
                assert!(rights.starts_with("<Owner><ID>acme</ID>"), "{rights}");
                let permissions = rights.split("<Permission>").skip(1);
                let permissions =
                    permissions.map(|rest| rest.split('<').next().unwrap().to_owned());
                permissions.collect::<Vec<_>>()
            };
            assert_eq!(read(), ["FULL_CONTROL"], "{target}");
            let canned = world
                .signed("PUT", target)
                .header("x-amz-acl", "public-read");
            canned.send().assert_ok();
            assert_eq!(read(), ["READ", "FULL_CONTROL"], "{target}");
            put(&world, target, &rights("acme", &["READ", "WRITE"])).assert_ok();
            assert_eq!(read(), ["READ", "WRITE", "FULL_CONTROL"], "{target}");
            let private = world.signed("PUT", target).header("x-amz-acl", "private");
            private.send().assert_ok();
            assert_eq!(read(), ["FULL_CONTROL"], "{target}");

            put(&world, target, &rights("globex", &[])).assert_error(403, "AccessDenied");
            put(&world, target, &rights("acme", &["READ_ACP"])).assert_error(501, "NotImplemented");
            put(&world, target, "").assert_error(400, "MissingSecurityHeader");
            let both = world.signed("PUT", target).header("x-amz-acl", "private");
            both.body(rights("acme", &[]))
                .send()
                .assert_error(400, "InvalidRequest");
            assert_eq!(read(), ["FULL_CONTROL"], "{target}");
            let grant = |value: &str| {
                let call = world.signed("PUT", target);
                call.header("x-amz-grant-read", value)
            };
            let accounts = "id=\"100000000002\", id=\"100000000003/100000000004\"";
            let both = grant(accounts).header("x-amz-acl", "private");
            both.send().assert_error(400, "InvalidRequest");
            let both = grant(accounts).body(rights("acme", &[]));
            both.send().assert_error(400, "InvalidRequest");
            for elsewhere in [
                "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"",
                "emailAddress=\"a@example.com\"",
                "id=\"79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be\"",
                "id=\"1\",",
                "",
            ] {
                let reply = grant(elsewhere).send();
                assert_eq!(reply.status, 501, "{elsewhere}: {}", reply.text());
            }
            assert_eq!(read(), ["FULL_CONTROL"], "{target}");
            let writer = grant(accounts).header("x-amz-grant-write-acp", "id=\"100000000002\"");
            writer.send().assert_ok();
            assert_eq!(
                read(),
                ["READ", "READ", "WRITE_ACP", "FULL_CONTROL"],
                "{target}"
            );
        }
    }
}

#[test]
fn a_replication_is_read_and_removed_and_never_set_up() {
    let document = |bucket: &str| {
        format!(
            "<ReplicationConfiguration><Role>qcs::cam::uin/100000000001:uin/100000000001</Role><Rule><Status>Enabled</Status>\
             <ID>copy</ID><Prefix>照片/</Prefix><Destination><Bucket>{bucket}</Bucket><StorageClass>ARCHIVE</StorageClass>\
             </Destination><DeleteMarkerReplication><Status>Disabled</Status></DeleteMarkerReplication></Rule></ReplicationConfiguration>"
        )
    };
    let shown = "<Rule><Status>Enabled</Status><ID>copy</ID><Prefix>照片/</Prefix><Destination><Bucket>arn:aws:s3:::site</Bucket>\
        <StorageClass>GLACIER</StorageClass></Destination><DeleteMarkerReplication><Status>Disabled</Status></DeleteMarkerReplication></Rule>";
    for signature in SIGNATURES {
        let world = World::of_site(signature, WHOLE, &ACTIONS);
        let read = || world.fetch("GET", "/site?replication");
        let configure = |bucket: &str| {
            let document = document(bucket);
            world
                .emulator
                .configure(SITE, "replication", &document)
                .unwrap();
        };
        read().assert_error(404, "ReplicationConfigurationNotFoundError");
        configure(&format!("qcs::cos:ap-guangzhou::{SITE}"));
        assert_eq!(inside(&read(), "ReplicationConfiguration"), shown);
        tells_nothing_of_cos(&read());
        for other in [
            format!("qcs::cos:ap-beijing::{SITE}"),
            "qcs::cos:ap-guangzhou::backup-1250000000".to_owned(),
            SITE.to_owned() + "x",
        ] {
            configure(&other);
            read().assert_error(501, "NotImplemented");
            tells_nothing_of_cos(&read());
        }
        assert_eq!(world.fetch("DELETE", "/site?replication").status, 204);
        read().assert_error(404, "ReplicationConfigurationNotFoundError");
    }
}

#[test]
fn an_object_is_locked_until_a_date_and_its_retention_is_read() {
    let until = "<RetainUntilDate>2030-01-31T00:00:00.000Z</RetainUntilDate>";
    let retention = format!("<Mode>COMPLIANCE</Mode>{until}");
    let document = |inside: &str| format!("<Retention>{inside}</Retention>");
    for signature in SIGNATURES {
        let world = World::of_site(signature, WHOLE, &ACTIONS);
        let target = "/site/2024/账本.xlsx?retention";
        world.put("/site/2024/账本.xlsx", "a ledger");
        let read = || world.fetch("GET", target);
        read().assert_error(404, "NoSuchObjectLockConfiguration");
        put(&world, target, &document(&retention)).assert_ok();
        assert_eq!(inside(&read(), "Retention"), retention);
        for (inside, status, code) in [
            (
                format!("<Mode>GOVERNANCE</Mode>{until}"),
                501,
                "NotImplemented",
            ),
            (until.to_owned(), 400, "MalformedXML"),
            (String::new(), 400, "MalformedXML"),
        ] {
            put(&world, target, &document(&inside)).assert_error(status, code);
        }
        world
            .fetch("DELETE", target)
            .assert_error(501, "NotImplemented");
        world
            .fetch("GET", "/site/none?retention")
            .assert_error(404, "NoSuchKey");
    }
    let world = World::of_site("s3", WHOLE, &[]);
    world.put("/site/a.txt", "a");
    world
        .fetch("GET", "/site/a.txt?retention")
        .assert_error(404, "NoSuchObjectLockConfiguration");
    put(&world, "/site/a.txt?retention", &document(&retention)).assert_error(403, "AccessDenied");
}

#[test]
fn logs_are_not_reported_to_go_to_the_bucket_of_another() {
    let world = World::of_site("cos", WHOLE, &ACTIONS);
    let document = "<BucketLoggingStatus><LoggingEnabled><TargetBucket>audit-1250000000</TargetBucket></LoggingEnabled></BucketLoggingStatus>";
    world.emulator.configure(SITE, "logging", document).unwrap();
    let read = world.fetch("GET", "/site?logging");
    read.assert_error(501, "NotImplemented");
    tells_nothing_of_cos(&read);
    put(&world, "/site?logging", "<BucketLoggingStatus/>").assert_ok();
    assert_eq!(
        inside(&world.fetch("GET", "/site?logging"), "BucketLoggingStatus"),
        ""
    );
}

const RESTORE: &str = "<RestoreRequest><Days>3</Days><GlacierJobParameters><Tier>Bulk</Tier></GlacierJobParameters></RestoreRequest>";

#[test]
fn an_object_in_cold_storage_is_restored() {
    for signature in SIGNATURES {
        let world = {
            let storage = "headers = [\"x-amz-storage-class\"]\nprefixes = [\"*\"]";
            World::of_site(signature, storage, &ACTIONS)
        };
        let cold = world
            .signed("PUT", "/site/2019.tar")
            .header("x-amz-storage-class", "GLACIER");
        cold.body("cold").send().assert_ok();
        world.put("/site/2024.tar", "warm");
        // Clients that leave out archived objects know S3's name of the class alone.
        let head = world.fetch("HEAD", "/site/2019.tar");
        assert_eq!(head.header("x-amz-storage-class"), Some("GLACIER"));
        let restore =
            |target: &str, document: &str| world.signed("POST", target).body(document).send();
        assert_eq!(restore("/site/2019.tar?restore", RESTORE).status, 202);
        restore("/site/2024.tar?restore", RESTORE).assert_error(405, "MethodNotAllowed");
        world.emulator.counters().reset();
        let select = "<RestoreRequest><Days>1</Days><Type>SELECT</Type></RestoreRequest>";
        restore("/site/2019.tar?restore", select).assert_error(501, "NotImplemented");
        restore("/site/2019.tar?restore", "<RestoreRequest/>").assert_error(400, "MalformedXML");
        assert_eq!(world.upstream_requests(), 0);
    }
}
