//! Every operation and every form of an upload, through the proxy to the embedded COS.

use cosgate::load::{LoadOperation, Report};

use crate::support::{Authority, BUCKET, World};
use crate::{assert_passed, objects, run, try_run, two_tenants};

fn count(report: &Report, operation: LoadOperation) -> u64 {
    let operations = &report.sides[0].operations;
    let mut found = operations
        .iter()
        .filter(|result| result.operation == operation);
    found.next().map_or(0, |result| result.totals.count)
}

#[test]
fn drives_verifies_and_removes_every_operation() {
    let world = World::new();
    for other in ["acme/mine.txt", "acme/cosgate-load-0/other", "globex/x"] {
        world
            .emulator
            .put_object(BUCKET, other, b"another's")
            .unwrap();
    }
    let before = objects(&world);
    let report = run(&two_tenants(
        world.gateway.addr,
        r#"
requests = 480
duration = "60s"
concurrency = 8
objects = 20
overwrite = "20%"
sizes = "0:5,1:5,1KiB:60,100KiB:30"
multipart_sizes = "6MiB"
seed = 7
fail_if = ["errors>0"]
mix = "put=30,get=10,head=5,list=5,range=10,multipart=3,copy=8,delete=8,multi-delete=2,presigned-get=5,presigned-put=5,post-form=5"
"#,
    ));
    assert_passed(&report);
    assert_eq!(report.sides[0].all.count, 480);
    for operation in LoadOperation::ALL {
        assert!(count(&report, operation) > 0, "{operation}");
    }
    let truth = &report.truth;
    assert!(truth.reads_verified > 30 && truth.swept > 20, "{truth:?}");
    let tenants: Vec<u64> = report
        .tenants
        .iter()
        .map(|tenant| tenant.totals.count)
        .collect();
    assert_eq!(tenants.iter().sum::<u64>(), 480);
    assert!(tenants.iter().all(|count| *count > 100), "{tenants:?}");
    assert_eq!(objects(&world), before);
    assert_eq!(world.emulator.uploads(BUCKET), []);
}

#[test]
fn proxy_accepts_every_upload_form() {
    let world = World::new();
    let checksums = [
        "crc32",
        "crc32c",
        "crc64nvme",
        "sha1",
        "sha256",
        "sha512",
        "xxhash64",
        "xxhash3",
        "xxhash128",
        "md5",
    ];
    let mut forms = vec![
        "signed".to_owned(),
        "unsigned".into(),
        "chunked".into(),
        "signed/content-md5".into(),
    ];
    for framing in ["signed", "unsigned", "chunked-trailer", "unsigned-trailer"] {
        forms.extend(
            checksums
                .iter()
                .map(|checksum| format!("{framing}/{checksum}")),
        );
    }
    let report = run(&two_tenants(
        world.gateway.addr,
        &format!(
            "requests = 300\nmix = \"put=1\"\nsizes = \"0:1,1:1,70KiB:8\"\nuploads = \"{}\"\nfail_if = [\"errors>0\"]",
            forms.join(",")
        ),
    ));
    assert_passed(&report);
    assert_eq!(report.truth.swept, 300);
}

#[test]
fn drives_requests_over_http2_and_tls() {
    let authority = Authority::new("load test");
    let world = authority.serve("");
    let port = world.gateway.addr.port();
    for http2 in [true, false] {
        let text = two_tenants(
            world.gateway.addr,
            &format!(
                "requests = 60\nhttp2 = {http2}\nca_file = \"{}\"\nconnect_to = \"127.0.0.1:{port}\"\nfail_if = [\"errors>0\"]",
                authority.ca().display()
            ),
        );
        let text = text.replace(
            &format!("http://{}", world.gateway.addr),
            &format!("https://localhost:{port}"),
        );
        let report = run(&text);
        assert_passed(&report);
        assert_eq!(report.sides[0].all.count, 60);
    }
}

#[test]
fn opens_a_connection_for_each_request() {
    let world = World::new();
    let driven = |more: &str| {
        let text = two_tenants(
            world.gateway.addr,
            &format!("requests = 50\nmix = \"get=1\"\nconcurrency = 2\n{more}"),
        );
        let report = run(&text);
        assert_passed(&report);
        report.sides[0].connections
    };
    assert_eq!(driven("no_keep_alive = true"), 50);
    assert!(driven("") <= 2);
}

#[test]
fn keeps_objects_on_request_and_stores_the_result() {
    let world = World::new();
    let text = "requests = 20\nmix = \"put=1\"\nkeep = true\njson_key = \"results/load.json\"";
    let report = run(&two_tenants(world.gateway.addr, text));
    assert_passed(&report);
    let keys = objects(&world);
    assert_eq!(
        keys.iter()
            .filter(|key| key.contains("/cosgate-load-"))
            .count(),
        20
    );
    let stored = world
        .emulator
        .object_bytes(BUCKET, "acme/results/load.json")
        .unwrap();
    let stored: Report = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored.sides[0].all.count, 20);
    assert!(
        !serde_json::to_string(&stored)
            .unwrap()
            .contains(crate::ACME.1)
    );
}

#[test]
fn merged_shards_equal_the_whole() {
    let world = World::new();
    let parts = ["1/3", "2/3", "3/3"].map(|shard| {
        let text = format!("requests = 100\nthreads = 2\nshard = \"{shard}\"");
        run(&two_tenants(world.gateway.addr, &text))
    });
    let counts = parts.each_ref().map(|part| part.sides[0].all.count);
    assert_eq!(counts.iter().sum::<u64>(), 100);
    assert!(
        counts.iter().all(|count| (30..=40).contains(count)),
        "{counts:?}"
    );
    let whole = cosgate::load::merge(parts.into()).unwrap();
    assert_passed(&whole);
    assert_eq!((whole.sides[0].all.count, whole.processes), (100, 3));
    assert_eq!(whole.sides[0].all.latency.count(), 100);
    // Rows of the same time are added, and not listed twice.
    let starts: Vec<u64> = whole.series.rows.iter().map(|row| row.start_ms).collect();
    assert!(
        starts.windows(2).all(|pair| pair[1] - pair[0] >= 100),
        "{starts:?}"
    );
}

#[test]
fn more_threads_than_slots_do_all_requests() {
    let world = World::new();
    let start = cosgate::clock::wall_clock().plus(12);
    let text = format!(
        "requests = 30\nconcurrency = 1\nthreads = 3\nstart_at = \"{}\"",
        start.iso8601()
    );
    let report = run(&two_tenants(world.gateway.addr, &text));
    assert_passed(&report);
    assert_eq!(report.sides[0].all.count, 30);
    assert_eq!(report.started, start.iso8601());
    let late = two_tenants(
        world.gateway.addr,
        "requests = 1\nstart_at = \"2020-01-01T00:00:00Z\"",
    );
    assert!(
        try_run(&late, cosgate::load::FaultControl::None)
            .unwrap_err()
            .contains("passed")
    );
}

#[test]
fn noisy_neighbour_sends_ten_times_as_much() {
    let world = World::new();
    let text = "requests = 660\nmix = \"head=1\"\nskew = \"noisy:globex\"\nseed = 1\nobjects = 60";
    let report = run(&two_tenants(world.gateway.addr, text));
    assert_passed(&report);
    let counts: Vec<u64> = report
        .tenants
        .iter()
        .map(|tenant| tenant.totals.count)
        .collect();
    assert!(
        (30..100).contains(&counts[0]) && counts[1] > 500,
        "{counts:?}"
    );
}

#[test]
fn fails_when_the_target_refuses_everything() {
    let world = World::new();
    let text = two_tenants(world.gateway.addr, "requests = 10\nmix = \"get=1\"")
        .replace("globex-local", "wrong");
    let text = text.replace("acme-local", "wrong");
    let error = try_run(&text, cosgate::load::FaultControl::None).unwrap_err();
    assert!(
        error.contains("cannot put the first object: 403 SignatureDoesNotMatch"),
        "{error}"
    );
}

#[test]
fn a_result_that_cannot_be_stored_is_reported_all_the_same() {
    let world = World::new();
    let key = "k".repeat(900);
    let text = format!("requests = 20\nmix = \"put=1\"\njson_key = \"{key}\"");
    let report = run(&two_tenants(world.gateway.addr, &text));
    assert_eq!(report.sides[0].all.count, 20);
    let [failure] = &report.failures[..] else {
        panic!("{:?}", report.failures)
    };
    assert!(
        failure.contains("cannot store") && failure.contains("400"),
        "{failure}"
    );
}
