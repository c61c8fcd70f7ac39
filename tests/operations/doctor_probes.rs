//! Each probe of `cosgate doctor` against both behaviours of the embedded COS: what it finds, and what it says to
//! change.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::sync::LazyLock;

use cosgate::emulator::CosBehaviour::{self, *};
use cosgate::emulator::{
    CommonFault, CosFault, Emulator, EmulatorConfig, FaultEntry, FaultService, Faults, StsFault,
};
use cosgate::secret::Secret;
use serde_json::Value;

use crate::cli::{File, run, stderr, stdout};
use crate::support::{ACCOUNT, BUCKET, World, emulator, toml};

/// A finding: verdict, a part of what came, and how the change begins.
type Found<'t> = (&'t str, &'t str, &'t str);

/// What doctor finds with the embedded COS as it is.
static AS_IT_IS: LazyLock<Value> = LazyLock::new(|| examine(&emulator(), "", &[]));

fn examine(emulator: &Emulator, more: &str, options: &[&str]) -> Value {
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), more);
    examine_with(&text, "acme", options)
}

fn examine_with(text: &str, tenant: &str, options: &[&str]) -> Value {
    let file = File::new(text);
    let mut arguments = vec!["doctor", "-c", file.path(), "-t", tenant, "--json"];
    arguments.extend(options);
    let output = run(&arguments);
    let report = serde_json::from_str(&stdout(&output));
    let report: Value = report.unwrap_or_else(|_| Value::String(stderr(&output)));
    assert!(report.is_object(), "{report}");
    report
}

/// What doctor finds of acme while these faults are in force.
fn examine_under(faults: Vec<FaultEntry>, options: &[&str]) -> Value {
    let emulator = emulator();
    emulator
        .put_object(BUCKET, "acme/other.txt", b"of a customer")
        .unwrap();
    emulator.faults().set(Faults {
        faults,
        ..Faults::default()
    });
    examine(&emulator, "", options)
}

fn behaves(behaviour: CosBehaviour) -> FaultEntry {
    FaultEntry::cos(CosFault::Behaves(behaviour))
}

#[track_caller]
fn assert_found(report: &Value, check: &str, expected: &[Found<'_>]) {
    let all = report["findings"].as_array().unwrap().iter();
    let found: Vec<_> = all.filter(|finding| finding["check"] == check).collect();
    assert_eq!(found.len(), expected.len(), "{check}: {found:#?}");
    for (finding, (verdict, came, change)) in found.iter().zip(expected) {
        let text = |field: &str| finding[field].as_str().unwrap_or_default();
        assert_eq!(text("verdict"), *verdict, "{finding:#}");
        assert!(text("came").contains(came), "{finding:#}");
        assert_eq!(text("change").is_empty(), change.is_empty(), "{finding:#}");
        assert!(text("change").starts_with(change), "{finding:#}");
    }
}

/// Behaviours that do not touch each other's probes: doctor runs once for all of a group.
const GROUPS: [&[CosBehaviour]; 3] = [
    &[
        AcceptsAwsForms,
        AcceptsChunkedUploads,
        AcceptsEitherCopySource,
        AcceptsLongKeys,
        AcceptsOddMetadata,
        AcceptsPathStyle,
        AcceptsUnsignedHeaders,
        CleansKeys,
        DeniesWrongTokens,
        IgnoresForbidOverwrite,
        IgnoresPartChecksums,
        IgnoresPolicies,
        IgnoresTime,
        KeepsIfNoneMatch,
        ListsByVersion2,
        LosesKeysBetweenPages,
        ReadsFirstParameter,
        ReadsPlusAsSpace,
        ReadsS3Acl,
        ReadsS3Metadata,
        RefusesExpect,
        RefusesGlacier,
        RefusesTextMetadata,
        RefusesUpperCaseMetadata,
        StoresCutParts,
        StoresCutUploads,
        TellsNoCrc64,
    ],
    &[
        AcceptsSignedChunks,
        ChecksPartChecksums,
        IgnoresTokens,
        ReadsLastParameter,
        ReadsS3CopySource,
        RepeatsKeysOnPages,
        TellsWrongCrc64,
    ],
    &[IgnoresPrefix, TellsNoDigest],
];
static REPORTS: [LazyLock<Value>; 3] = [
    LazyLock::new(|| examine_group(0)),
    LazyLock::new(|| examine_group(1)),
    LazyLock::new(|| examine_group(2)),
];

fn examine_group(group: usize) -> Value {
    examine_under(GROUPS[group].iter().copied().map(behaves).collect(), &[])
}

/// What doctor finds where COS behaves so.
fn report_of(behaviour: CosBehaviour) -> &'static Value {
    let group = GROUPS.iter().position(|group| group.contains(&behaviour));
    &REPORTS[group.unwrap()]
}

/// A test of one behaviour: what each check finds without it and with it.
macro_rules! probes {
    ($($name:ident: $behaviour:expr => [$(($check:expr, $before:expr, $after:expr)),* $(,)?];)*) => {$(
        #[test]
        fn $name() {
            let report = report_of($behaviour);
            $(
                assert_found(&AS_IT_IS, $check, $before);
                assert_found(report, $check, $after);
            )*
        }
    )*};
}

const OUTSIDE: &str = "report this with `--json`";
const MD5: &str = "[upstream] stored_check = \"md5\"";
const OFF: &str = "[upstream] stored_check = \"off\"";
const CREATE: &str = "If-None-Match: * on an object that exists";
const STRICT: &str = "report this with `--json`, the date when the bucket was created";
const UNVERSIONED: &str = "use a bucket that never had versioning";
const FORBID: &str = "x-cos-forbid-overwrite on an object that exists";
const CHECKSUMS: &str = "checksums of parts in CompleteMultipartUpload";
const TWICE: &str = "a parameter that is sent twice";
const PAGES: [&str; 2] = [
    "pages of a listing by NextMarker",
    "pages of a listing by NextContinuationToken",
];
const NOT_COPIED: Found<'_> = ("note", "200; nothing is copied", "");
const TOKENS: [&str; 2] = ["a key without its token", "a key with a wrong token"];

probes! {
    finds_a_checksum_that_is_not_told: TellsNoCrc64 => [
        ("checksum of an upload", &[("ok", "11051210869376104954", "")], &[("fail", "the MD5 as ETag", MD5)]),
    ];
    finds_that_no_digest_is_told: TellsNoDigest => [
        ("checksum of an upload", &[("ok", "11051210869376104954", "")], &[("fail", "not the MD5", OFF)]),
    ];
    finds_a_wrong_checksum: TellsWrongCrc64 => [
        ("checksum of an upload", &[("ok", "11051210869376104954", "")], &[("fail", "ecma: 1", MD5)]),
    ];
    finds_path_style: AcceptsPathStyle => [
        ("path style", &[("note", "403 PathStyleDomainForbidden", "")], &[("note", "200", "")]),
    ];
    finds_a_store_that_ignores_tokens: IgnoresTokens => [
        (TOKENS[0], &[("ok", "403 InvalidAccessKeyId", ""); 2], &[("fail", "200", "do not use temporary keys"); 2]),
        (TOKENS[1], &[("ok", "403 InvalidAccessKeyId", ""); 2], &[("fail", "200", "do not use temporary keys"); 2]),
    ];
    finds_a_wrong_token_that_looks_like_a_missing_right: DeniesWrongTokens => [
        (TOKENS[0], &[("ok", "403 InvalidAccessKeyId", ""); 2], &[("note", "403 AccessDenied", ""); 2]),
        (TOKENS[1], &[("ok", "403 InvalidAccessKeyId", ""); 2], &[("note", "403 AccessDenied", ""); 2]),
    ];
    finds_strict_mode: AcceptsUnsignedHeaders => [
        ("a header that is not signed", &[("note", "200", ""), ("note", "403 AccessDenied", STRICT)], &[("note", "200", ""); 2]),
    ];
    finds_a_store_that_ignores_the_time: IgnoresTime => [
        ("signed times of the past and the future",
            &[("note", "-7200 s: 403 RequestTimeTooSkewed", "")], &[("note", "-7200 s: 200", "")]),
    ];
    finds_metadata_in_s3_s_words: ReadsS3Metadata => [
        ("metadata in S3's terms beside COS's signature",
            &[("note", "HEAD has: x-cos-meta-cos", "")], &[("note", "x-cos-meta-s3", "")]),
    ];
    finds_listings_of_version_2: ListsByVersion2 => [
        ("ListObjectsV2 beside COS's signature",
            &[("note", "of version 1", "")], &[("note", "of version 2", "")]),
    ];
    finds_if_none_match: KeepsIfNoneMatch => [
        (CREATE, &[("warning", "is overwritten", ""), ("note", "is overwritten", "")], &[("ok", "412", ""); 2]),
    ];
    finds_forbid_overwrite: IgnoresForbidOverwrite => [
        (FORBID,
            &[("ok", "409 FileAlreadyExists", "")], &[("warning", "overwritten; no version is reported", UNVERSIONED)]),
    ];
    finds_the_forms_of_a_copy_s_source: AcceptsEitherCopySource => [
        ("a copy's source",
            &[("note", "200", ""), ("note", "403", ""), ("note", "200", ""), ("note", "400 InvalidCopySource", ""), NOT_COPIED],
            &[("note", "200", ""), ("note", "200", ""), ("note", "200", ""), ("note", "200", ""), NOT_COPIED]),
    ];
    finds_that_an_s3_copy_source_is_read: ReadsS3CopySource => [
        ("a copy's source",
            &[("note", "200", ""), ("note", "403", ""), ("note", "200", ""), ("note", "400 InvalidCopySource", ""), NOT_COPIED],
            &[("note", "200", ""), ("note", "403", ""), ("note", "200", ""), ("note", "400 InvalidCopySource", ""), ("note", "200", "")]),
    ];
    finds_that_an_s3_acl_is_read: ReadsS3Acl => [
        ("x-amz-acl beside COS's signature",
            &[("note", "200; with x-cos-acl: 400 InvalidArgument", "")], &[("note", "400 InvalidArgument; with", "")]),
    ];
    finds_half_a_part: StoresCutParts => [
        ("a part that is cut", &[("ok", "no part is listed", "")], &[("fail", "a part", "do not put this store behind cosgate")]),
    ];
    finds_signed_chunks: AcceptsSignedChunks => [
        ("uploads with signed chunks", &[("note", "501 NotImplemented", "")], &[("note", "200; decoded", "")]),
    ];
    finds_forms_of_aws: AcceptsAwsForms => [
        ("a browser's form with AWS's policy", &[("note", "403 AccessDenied", "")], &[("note", "204; decoded", "")]),
    ];
    finds_checksums_that_are_ignored: IgnoresPartChecksums => [
        (CHECKSUMS, &[("note", "400 MalformedXML, then 400 MalformedXML", "")], &[("note", "200", "")]),
    ];
    finds_checksums_that_are_compared: ChecksPartChecksums => [
        (CHECKSUMS, &[("note", "400 MalformedXML, then 400 MalformedXML", "")], &[("note", "400 BadDigest, then 200", "")]),
    ];
    finds_the_first_parameter: ReadsFirstParameter => [
        (TWICE, &[("note", "400 InvalidRequest", "")], &[("note", "the first counts", "")]),
    ];
    finds_the_last_parameter: ReadsLastParameter => [
        (TWICE, &[("note", "400 InvalidRequest", "")], &[("note", "the last counts", "")]),
    ];
    finds_keys_lost_between_pages: LosesKeysBetweenPages => [
        (PAGES[0], &[("ok", "6 keys on 6 pages", "")], &[("fail", "lost: `", OUTSIDE)]),
        (PAGES[1], &[("ok", "6 keys on 6 pages", "")], &[("fail", "lost: `", OUTSIDE)]),
    ];
    finds_keys_that_are_listed_twice: RepeatsKeysOnPages => [
        (PAGES[0], &[("ok", "6 keys on 6 pages", "")], &[("fail", "twice: `", OUTSIDE)]),
        (PAGES[1], &[("ok", "6 keys on 6 pages", "")], &[("fail", "twice: `", OUTSIDE)]),
    ];
    finds_upper_case_metadata: RefusesUpperCaseMetadata => [
        ("metadata with an upper-case name", &[("note", "200 OK; HEAD has: x-amz-meta-doctor", "")], &[("note", "400 Bad Request", "")]),
    ];
    finds_half_an_upload: StoresCutUploads => [
        ("an upload that is cut", &[("ok", "404 NoSuchKey", "")], &[("fail", "an object", "do not put this store behind cosgate")]),
    ];
    finds_expect: RefusesExpect => [
        ("Expect: 100-continue", &[("note", "100 Continue", "")], &[("note", "417", "")]),
    ];
    finds_chunked_uploads: AcceptsChunkedUploads => [
        ("aws-chunked uploads", &[("note", "501 NotImplemented", "")], &[("note", "stored with its frames", "")]),
    ];
    finds_the_name_of_a_class: RefusesGlacier => [
        ("storage class GLACIER", &[("note", "HEAD says GLACIER", "")], &[("note", "400 InvalidStorageClass", "")]),
    ];
    finds_keys_that_are_cleaned: CleansKeys => [
        ("a key with an empty segment", &[("ok", "it is read", "")], &[("warning", "it is not read", "")]),
        ("a key with `/` after the prefix", &[("ok", "it is read", "")], &[("warning", "it is not read", "")]),
        ("a key with `.` as a segment", &[("ok", "it is read", "")], &[("warning", "it is not read", "")]),
        ("a key with `..` as a segment", &[("ok", "it is read", "")], &[("warning", "it is not read", "")]),
    ];
    finds_the_limit_of_keys: AcceptsLongKeys => [
        ("a key of 850 bytes", &[("ok", "200", "")], &[("ok", "200", "")]),
        ("a key of 851 bytes", &[("ok", "400 KeyTooLong", "")], &[("note", "200", "")]),
    ];
    finds_a_plus_that_is_a_space: ReadsPlusAsSpace => [
        ("`+` in a query, encoded", &[("ok", "the key is listed", "")], &[("warning", "not listed", "")]),
    ];
    finds_names_of_metadata: AcceptsOddMetadata => [
        ("metadata with `_` in its name", &[("note", "400 InvalidArgument", "")], &[("note", "it is kept", "")]),
        ("metadata of 2049 bytes", &[("note", "400 MetadataTooLarge", "")], &[("note", "it is kept", "")]),
    ];
    finds_metadata_beyond_ascii: RefusesTextMetadata => [
        ("metadata beyond ASCII", &[("note", "200", "")], &[("note", "400 InvalidArgument", "")]),
    ];
    finds_keys_without_a_fence: IgnoresPolicies => [
        ("GetObject outside the grant", &[("ok", "403 AccessDenied", "")], &[("fail", "404 NoSuchKey", OUTSIDE)]),
        ("ListObjects outside the grant", &[("ok", "403 AccessDenied", "")], &[("fail", "200", OUTSIDE)]),
        ("PutObject outside the grant", &[("ok", "403 AccessDenied", "")], &[("fail", "200", OUTSIDE)]),
        ("another action: GetBucketACL", &[("ok", "403 AccessDenied", "")], &[("fail", "200", OUTSIDE)]),
        ("what was written outside the grant", &[], &[("ok", "204", "")]),
    ];
    removes_nothing_of_others_where_prefixes_are_ignored: IgnoresPrefix => [
        ("what doctor wrote", &[("ok", "none is listed", "")], &[("fail", "keys of other prefixes", "do not use this store")]),
    ];
}

/// What doctor finds in a bucket with versions, and that it leaves none.
fn examine_versions(status: &str, faults: Vec<FaultEntry>) -> Value {
    let world = World::new();
    let document =
        format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    let emulator = &world.emulator;
    emulator.configure(BUCKET, "versioning", &document).unwrap();
    emulator.faults().set(Faults {
        faults,
        ..Faults::default()
    });
    let report = examine(emulator, "", &[]);
    let left = world.signed("GET", "/photos?versions&prefix=acme/").send();
    assert!(
        !left.assert_ok().text().contains("<Key>"),
        "{}",
        left.text()
    );
    report
}

#[test]
fn finds_versions_and_removes_them() {
    let removed = ("ok", " versions are removed, and none is listed", "");
    for status in ["Enabled", "Suspended"] {
        let report = examine_versions(status, Vec::new());
        let ignored = (
            "warning",
            "overwritten; the bucket has versions",
            UNVERSIONED,
        );
        assert_found(&report, FORBID, &[ignored]);
        assert_found(&report, "what doctor wrote", &[removed]);
    }
    let report = examine_versions("Enabled", vec![behaves(KeepsForbidOverwrite)]);
    let kept = ("ok", "is kept; the bucket has versions", "");
    assert_found(&report, FORBID, &[kept]);
    assert_found(&report, "what doctor wrote", &[removed]);
}

#[test]
fn aborts_the_uploads_that_a_probe_left() {
    let fails = |times| FaultEntry {
        operations: vec!["AbortMultipartUpload".into()],
        times,
        ..FaultEntry::cos(CosFault::SlowDown)
    };
    let check = "what doctor wrote";
    let report = examine_under(vec![fails(Some(2))], &[]);
    let aborted = "2 unfinished uploads are removed, and none is listed";
    assert_found(&report, check, &[("ok", aborted, "")]);
    let report = examine_under(vec![fails(None)], &[]);
    let left = ("warning", "503 SlowDown", "remove what is below acme/");
    assert_found(&report, check, &[left]);
}

/// What doctor finds of an expired key. STS gives its third key, which is for this probe, for a second.
fn examine_expired(more: Vec<FaultEntry>) -> Value {
    let mut faults = more;
    faults.push(FaultEntry {
        operations: vec!["GetFederationToken".into()],
        every: Some(3),
        times: Some(1),
        ..FaultEntry::sts(StsFault::Lifetime(1))
    });
    examine_under(faults, &["--wait"])
}

#[test]
fn finds_what_an_expired_key_gets() {
    let check = "an expired key";
    assert_found(&AS_IT_IS, check, &[("skipped", "", "")]);
    let report = examine_expired(Vec::new());
    assert_found(&report, check, &[("ok", "403 InvalidAccessKeyId", ""); 2]);
    let report = examine_expired(vec![FaultEntry::cos(CosFault::ExpiredTokenCode)]);
    assert_found(&report, check, &[("ok", "400 ExpiredToken", ""); 2]);
    let report = examine_expired(vec![behaves(IgnoresExpiry)]);
    let served = ("fail", "404 NoSuchKey", "do not use temporary keys");
    assert_found(&report, check, &[served; 2]);
}

#[test]
fn finds_what_sts_gives() {
    let check = "a temporary key for the tenant";
    assert_found(&AS_IT_IS, check, &[("ok", "lives for 1800 s", "")]);
    let report = examine_under(
        vec![FaultEntry::sts(StsFault::Lifetime(900))],
        &["--read-only"],
    );
    let short = ("warning", "lives for 900 s", "write a `duration`");
    assert_found(&report, check, &[short]);
    let denied = StsFault::Error("UnauthorizedOperation".into());
    let report = examine_under(vec![FaultEntry::sts(denied)], &["--read-only"]);
    assert_found(
        &report,
        check,
        &[("fail", "UnauthorizedOperation", "see the reason")],
    );
}

#[test]
fn finds_what_cam_does_not_allow() {
    let refused = FaultEntry {
        operations: vec!["PutObject".into()],
        ..FaultEntry::cos(CosFault::Error {
            status: 403,
            code: "AccessDenied".into(),
        })
    };
    let check = "PutObject within the grant";
    assert_found(&AS_IT_IS, check, &[("ok", "200", "")]);
    let report = examine_under(vec![refused], &[]);
    let change = "in CAM, allow the issuer's own identity name/cos:PutObject";
    assert_found(&report, check, &[("fail", "403 AccessDenied", change)]);
}

#[test]
fn finds_a_bucket_in_another_region() {
    let check = "the bucket, its APPID and its region";
    assert_found(&AS_IT_IS, check, &[("ok", "404 NoSuchKey", "")]);
    let emulator = emulator();
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let moved = text.replacen("ap-guangzhou\"\nprefixes", "ap-beijing\"\nprefixes", 1);
    let report = examine_with(&moved, "acme", &["--read-only"]);
    let change = "check `bucket` (with its APPID) and `region`";
    assert_found(&report, check, &[("fail", "404 NoSuchBucket", change)]);
    // STS gives no key for the bucket of another account.
    let other = text.replacen("-1250000000", "-1260000000", 1);
    let report = examine_with(&other, "acme", &["--read-only"]);
    let key = "a temporary key for the tenant";
    assert_found(&report, key, &[("fail", "", "see the reason")]);
    let moved = FaultEntry::cos(CosFault::Error {
        status: 301,
        code: "PermanentRedirect".into(),
    });
    let report = examine_under(vec![moved], &["--read-only"]);
    assert_found(
        &report,
        check,
        &[("fail", "301 PermanentRedirect", "check `region`")],
    );
}

#[test]
fn finds_a_clock_that_is_off() {
    assert_found(&AS_IT_IS, "clock", &[("ok", "s from this clock", "")]);
    for (seconds, verdict) in [(-60, "warning"), (4000, "fail")] {
        let offset = FaultEntry::common(FaultService::Cos, CommonFault::ClockOffset(seconds));
        let report = examine_under(vec![offset], &["--read-only"]);
        assert_found(
            &report,
            "clock",
            &[(verdict, "s from this clock", "set this machine's clock")],
        );
    }
}

#[test]
fn finds_a_host_that_refuses_connections() {
    let check = "name, connection, TLS";
    assert_found(&AS_IT_IS, check, &[("ok", "no TLS", ""); 2]);
    let refused = FaultEntry::common(FaultService::Sts, CommonFault::RefuseConnections);
    let report = examine_under(vec![refused], &["--read-only"]);
    let change = "check `endpoint` and `connect_to` in [sts]";
    assert_found(
        &report,
        check,
        &[("fail", "", change), ("ok", "no TLS", "")],
    );
}

/// An emulator with TLS, and a configuration that trusts its authority.
fn with_tls(folder: &std::path::Path) -> (Emulator, String) {
    let names = ["*.cos.ap-guangzhou.myqcloud.com", "sts.tencentcloudapi.com"];
    let mut arguments = vec!["certs", folder.to_str().unwrap()];
    arguments.extend(names.iter().flat_map(|name| ["--name", *name]));
    let made = run(&arguments);
    assert!(made.status.success(), "{}", stderr(&made));
    let emulator = Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        tls: Some((folder.join("server.pem"), folder.join("server.key"))),
        ..EmulatorConfig::default()
    });
    let emulator = emulator.unwrap();
    let ca = format!("ca_file = \"{}\"\n", folder.join("ca.pem").display());
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "").replace("http://", "https://");
    let text = text.replacen("[upstream]\n", &format!("[upstream]\n{ca}"), 1);
    let text = text.replacen("[sts]\n", &format!("[sts]\n{ca}"), 1);
    (emulator, text)
}

#[test]
fn finds_certificates_and_http2() {
    let folder = tempfile::tempdir().unwrap();
    let (emulator, text) = with_tls(folder.path());
    let (network, http2) = ("name, connection, TLS", "HTTP/2 offered in TLS (ALPN)");
    let report = examine_with(&text, "acme", &[]);
    assert_found(&report, network, &[("ok", "TLS", ""); 2]);
    assert_found(&report, http2, &[("note", "NoApplicationProtocol", "")]);
    emulator.faults().set(Faults {
        faults: vec![behaves(OffersHttp2)],
        ..Faults::default()
    });
    let report = examine_with(&text, "acme", &[]);
    assert_found(&report, http2, &[("note", "h2 is chosen", "")]);
    let untrusting = text.replacen("ca_file", "# ca_file", 1);
    let report = examine_with(&untrusting, "acme", &[]);
    let untrusted = ("fail", "", "set `ca_file` in [upstream]");
    assert_found(&report, network, &[("ok", "TLS", ""), untrusted]);
}

#[test]
fn probes_one_subject_of_a_template() {
    let emulator = emulator();
    let more = format!(
        "[identities.corp]\nissuer = \"https://id.example\"\naudience = \"cosgate\"\njwks = \"https://id.example/keys\"\n\
         [templates.web]\nissuer = \"main\"\nidentity = \"corp\"\n\
         [[templates.web.grants]]\nname = \"photos\"\nbucket = \"{BUCKET}\"\nregion = \"ap-guangzhou\"\n\
         prefixes = [\"users/{{claim.sub}}/*\"]\nactions = [\"read\", \"write\", \"list\"]\n"
    );
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), &more);
    let report = examine_with(&text, "web/alice", &[]);
    assert_found(&report, "PutObject within the grant", &[("ok", "200", "")]);
    assert_found(
        &report,
        "PutObject outside the grant",
        &[("ok", "403 AccessDenied", "")],
    );
    assert_found(
        &report,
        "what doctor wrote",
        &[("ok", "none is listed", "")],
    );
    let folder = report["folders"][0].as_str().unwrap();
    assert!(
        folder.starts_with(&format!("{BUCKET}/users/alice/")),
        "{folder}"
    );
    let file = File::new(&text);
    for name in ["web", "web/", "web/..", "web/a/b", "nobody/alice"] {
        let output = run(&["doctor", "-c", file.path(), "-t", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
    // Without a tenant of its own, the report says how to name one.
    let start = text.find("[tenants.acme]").unwrap();
    let end = text.find("[identities.corp]").unwrap();
    let file = File::new(&[&text[..start], &text[end..]].concat());
    let output = run(&["doctor", "-c", file.path(), "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let change = "a template's keys are made for each subject: run doctor for one, with `--tenant web/SUBJECT`";
    assert_found(&report, "a temporary key", &[("warning", "", change)]);
}
