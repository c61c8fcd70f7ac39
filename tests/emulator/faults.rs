//! Faults on demand, counters, and data that outlives the emulator.

use std::io::Write as _;
use std::time::{Duration, Instant};

use cosgate::emulator::{
    ByteSize, CommonFault, CosFault, Emulator, EmulatorConfig, FaultEntry, FaultLatency,
    FaultService, Faults, Share, StsFault,
};
use cosgate::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::client::{
    BUCKET, OTHER, Reply, TestRequest, account, connect, emulator, emulator_with, federation, now,
    policy, sts, temporary_key,
};

fn cos(fault: CosFault, times: u32) -> Faults {
    Faults {
        cos: Some(fault),
        cos_times: Some(times),
        ..Faults::default()
    }
}

#[test]
fn cos_meets_a_counted_fault_and_recovers() {
    let emulator = emulator();
    let put = || {
        TestRequest::new("PUT", "/k")
            .body(vec![b'x'; 500_000])
            .s3(&account())
    };
    let get = || TestRequest::new("GET", "/k").s3(&account());
    assert_eq!(put().send(emulator.cos_addr()).status, 200);

    emulator.faults().set(cos(CosFault::SlowDown, 1));
    assert_eq!(
        get().send(emulator.cos_addr()).refusal(),
        (503, "SlowDown".into())
    );
    emulator.faults().set(cos(
        CosFault::Error {
            status: 403,
            code: "ExpiredToken".into(),
        },
        1,
    ));
    assert_eq!(
        get().send(emulator.cos_addr()).refusal(),
        (403, "ExpiredToken".into())
    );
    emulator.faults().set(cos(CosFault::Reset, 1));
    assert!(get().try_send(emulator.cos_addr()).is_none());
    emulator
        .faults()
        .set(cos(CosFault::ResetAfterSent(1000), 1));
    let cut = get().try_send(emulator.cos_addr());
    assert_eq!(cut.unwrap().body.len(), 1000);
    emulator
        .faults()
        .set(cos(CosFault::ResetAfterReceived(1000), 1));
    let over = TestRequest::new("PUT", "/k")
        .body(vec![b'y'; 500_000])
        .s3(&account());
    assert!(over.try_send(emulator.cos_addr()).is_none());
    emulator
        .faults()
        .set(cos(CosFault::StallAfterSent(1000), 1));
    let mut stream = connect(emulator.cos_addr());
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    std::io::Write::write_all(&mut stream, &get().head()).unwrap();
    assert_eq!(Reply::read(&mut stream, false).unwrap().body.len(), 1000);

    let whole = get().send(emulator.cos_addr());
    assert_eq!(whole.status, 200);
    assert!(whole.body == vec![b'x'; 500_000]);
}

#[test]
fn sts_meets_its_faults() {
    let emulator = emulator();
    let body = federation(&policy(&["name/cos:GetObject"], &[&format!("{BUCKET}/*")]));
    let plain = || {
        TestRequest::new("POST", "/")
            .body("{}")
            .try_send(emulator.sts_addr())
    };
    let set = |fault| {
        emulator.faults().set(Faults {
            sts: Some(fault),
            ..Faults::default()
        });
    };
    set(StsFault::Down);
    assert!(plain().is_none());
    set(StsFault::Http500);
    assert_eq!(plain().unwrap().status, 500);
    set(StsFault::Html);
    assert!(plain().unwrap().text().starts_with("<html>"));
    set(StsFault::Error("RequestLimitExceeded".into()));
    let call = || {
        sts(
            emulator.sts_addr(),
            &account(),
            "GetFederationToken",
            &body,
            now(),
        )
    };
    assert_eq!(call().1["Error"]["Code"], "RequestLimitExceeded");
    emulator.faults().set(Faults {
        sts_clock_offset: -1200,
        ..Faults::default()
    });
    let (reply, json) = call();
    assert_eq!(json["Error"]["Code"], "AuthFailure.SignatureExpire");
    let date = Timestamp::parse_http_date(reply.header("date").unwrap()).unwrap();
    assert!((1195..=1205).contains(&now().since(date)));
    emulator.faults().set(Faults {
        sts_lifetime: Some(5),
        ..Faults::default()
    });
    let left = call().1["ExpiredTime"].as_i64().unwrap() - now().unix();
    assert!((3..=5).contains(&left));
}

/// Sets faults, as `PUT /faults` and a file would.
fn set(emulator: &Emulator, faults: &[Value]) {
    let faults = serde_json::from_value(json!({"faults": faults})).unwrap();
    emulator.faults().set(faults);
}

fn put(key: &str, content: &[u8]) -> TestRequest {
    TestRequest::new("PUT", key).body(content).s3(&account())
}

fn get(target: &str) -> TestRequest {
    TestRequest::new("GET", target).s3(&account())
}

/// The current time of the client.
#[expect(clippy::disallowed_methods, reason = "the emulator has a real clock")]
fn timed<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (action(), start.elapsed())
}

/// Sends a head and a part of the body, and reads the response within a time limit.
fn half_sent(emulator: &Emulator, request: &TestRequest, sent: usize) -> Option<Reply> {
    let mut stream = connect(emulator.cos_addr());
    let patience = Duration::from_millis(300);
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(&request.head()).unwrap();
    stream.write_all(&request.body[..sent]).unwrap();
    Reply::read(&mut stream, false)
}

#[test]
fn limits_faults_by_operation_bucket_prefix_and_tenant() {
    let emulator = emulator();
    for key in ["/a/k", "/b/k"] {
        assert_eq!(put(key, b"x").send(emulator.cos_addr()).status, 200);
    }
    set(
        &emulator,
        &[
            json!({"service": "cos", "operation": ["GetObject", "ListObjects"], "bucket": BUCKET,
                "prefix": "a/", "do": "slow-down"}),
            json!({"service": "cos", "bucket": OTHER, "do": {"error": {"status": 500, "code": "InternalError"}}}),
            json!({"service": "cos", "tenant": "acme", "do": {"error": {"status": 403, "code": "AccessDenied"}}}),
        ],
    );
    let status = |request: TestRequest| request.send(emulator.cos_addr()).status;
    assert_eq!(status(get("/a/k")), 503);
    assert_eq!(status(get("/?prefix=a%2Fk")), 503);
    assert_eq!(status(get("/b/k")), 200);
    assert_eq!(status(put("/a/k", b"y")), 200);
    let other = TestRequest::new("GET", "/")
        .header("host", &format!("{OTHER}.cos.ap-guangzhou.myqcloud.com"));
    assert_eq!(status(other.s3(&account())), 500);
    let all = policy(&["name/cos:*"], &[&format!("{BUCKET}/*")]);
    let acme = temporary_key(&emulator, &all);
    assert_eq!(status(TestRequest::new("GET", "/b/k").s3(&acme)), 403);
    assert_eq!(status(TestRequest::new("GET", "/b/k").cos(&acme)), 403);
    let met: Vec<u64> = emulator
        .faults()
        .met()
        .iter()
        .map(|count| count.met)
        .collect();
    assert_eq!(met, [2, 1, 2]);
}

#[test]
fn adds_latencies_and_limits_bandwidth() {
    let emulator = emulator();
    let content = vec![b'x'; 40_000];
    put("/k", &content).send(emulator.cos_addr());
    let latency = |text: &str| CommonFault::Latency(FaultLatency::Fixed(text.parse().unwrap()));
    emulator.faults().set(Faults {
        faults: vec![
            FaultEntry::common(FaultService::Cos, latency("150ms")),
            FaultEntry::common(FaultService::Cos, latency("100ms")),
            FaultEntry::common(FaultService::Sts, latency("200ms")),
        ],
        ..Faults::default()
    });
    let (reply, took) = timed(|| get("/k").send(emulator.cos_addr()));
    assert!(
        reply.status == 200 && took >= Duration::from_millis(250),
        "{took:?}"
    );
    let body = federation(&policy(&["name/cos:GetObject"], &[&format!("{BUCKET}/*")]));
    let call = || {
        sts(
            emulator.sts_addr(),
            &account(),
            "GetFederationToken",
            &body,
            now(),
        )
    };
    let ((_, json), took) = timed(call);
    assert!(
        json["Credentials"].is_object() && took >= Duration::from_millis(200),
        "{took:?}"
    );

    let slow = CommonFault::Bandwidth(ByteSize(100_000));
    emulator.faults().set(Faults {
        faults: vec![FaultEntry::common(FaultService::Cos, slow)],
        ..Faults::default()
    });
    let (reply, took) = timed(|| get("/k").send(emulator.cos_addr()));
    assert!(
        reply.body == content && took >= Duration::from_millis(300),
        "{took:?}"
    );
    let (reply, took) = timed(|| put("/k", &content).send(emulator.cos_addr()));
    assert!(
        reply.status == 200 && took >= Duration::from_millis(300),
        "{took:?}"
    );
}

#[test]
fn cos_responds_early_and_stalls_during_uploads() {
    let emulator = emulator();
    set(
        &emulator,
        &[json!({"service": "cos", "times": 1,
            "do": {"respond-after-received": {"bytes": 1000, "status": 403, "code": "AccessDenied"}}})],
    );
    let request = put("/k", &vec![b'x'; 500_000]);
    let early = half_sent(&emulator, &request, 2000).unwrap();
    assert_eq!(early.refusal(), (403, "AccessDenied".into()));
    set(
        &emulator,
        &[json!({"service": "cos", "do": {"stall-after-received": 1000}})],
    );
    assert!(half_sent(&emulator, &request, request.body.len()).is_none());
    emulator.faults().clear();
    assert_eq!(get("/k").send(emulator.cos_addr()).status, 404);
}

#[test]
fn flips_a_byte_in_both_directions() {
    let emulator = emulator();
    put("/k", b"abcdef").send(emulator.cos_addr());
    set(
        &emulator,
        &[json!({"service": "cos", "do": {"flip-after-sent": 2}})],
    );
    assert_eq!(get("/k").send(emulator.cos_addr()).text(), "abbdef");
    assert_eq!(emulator.object_bytes(BUCKET, "k").unwrap(), b"abcdef");
    set(
        &emulator,
        &[json!({"service": "cos", "do": {"flip-after-received": 2}})],
    );
    let unsigned =
        TestRequest::new("PUT", "/k")
            .body("abcdef")
            .s3_at(&account(), now(), "UNSIGNED-PAYLOAD");
    assert_eq!(unsigned.send(emulator.cos_addr()).status, 200);
    assert_eq!(emulator.object_bytes(BUCKET, "k").unwrap(), b"abbdef");
}

#[test]
fn partial_listing_is_truncated() {
    let emulator = emulator();
    for key in ["a", "b", "c"] {
        emulator.put_object(BUCKET, key, b"x").unwrap();
    }
    set(
        &emulator,
        &[json!({"service": "cos", "do": {"partial-listing": 2}})],
    );
    let page = get("/?list-type=2").send(emulator.cos_addr());
    assert_eq!(page.elements("Key"), ["a", "b"]);
    assert_eq!(page.element("IsTruncated").as_deref(), Some("true"));
    assert_eq!(page.element("MaxKeys").as_deref(), Some("1000"));
    let token = page.element("NextContinuationToken").unwrap();
    let mut rest = TestRequest::new("GET", "/?list-type=2");
    rest.query.push(("continuation-token".into(), token));
    let rest = rest.s3(&account()).send(emulator.cos_addr());
    assert_eq!(rest.elements("Key"), ["c"]);
}

#[test]
fn changes_clocks_lifetimes_and_keys() {
    let emulator = emulator();
    emulator.put_object(BUCKET, "k", b"x").unwrap();
    let all = policy(&["name/cos:*"], &[&format!("{BUCKET}/*")]);
    let acme = temporary_key(&emulator, &all);
    set(
        &emulator,
        &[json!({"service": "cos", "do": {"clock-offset": 1200}})],
    );
    let skewed = get("/k").send(emulator.cos_addr());
    assert_eq!(skewed.refusal(), (403, "RequestTimeTooSkewed".into()));
    let date = Timestamp::parse_http_date(skewed.header("date").unwrap()).unwrap();
    assert!((1195..=1205).contains(&date.since(now())));
    let native = TestRequest::new("GET", "/k")
        .cos(&account())
        .send(emulator.cos_addr());
    assert_eq!(native.refusal(), (403, "AccessDenied".into()));

    set(
        &emulator,
        &[
            json!({"service": "sts", "do": {"lifetime": -1}}),
            json!({"service": "sts", "operation": "AssumeRole", "do": "down"}),
            json!({"service": "cos", "do": "expired-token-code"}),
        ],
    );
    let dead = temporary_key(&emulator, &all);
    let expired = TestRequest::new("GET", "/k")
        .s3(&dead)
        .send(emulator.cos_addr());
    assert_eq!(expired.refusal(), (400, "ExpiredToken".into()));

    let read = || {
        TestRequest::new("GET", "/k")
            .s3(&acme)
            .send(emulator.cos_addr())
    };
    set(
        &emulator,
        &[json!({"service": "cos", "tenant": "other", "do": "revoke-keys"})],
    );
    assert_eq!(read().status, 200);
    set(
        &emulator,
        &[json!({"service": "cos", "tenant": "acme", "do": "revoke-keys"})],
    );
    assert_eq!(read().refusal(), (403, "InvalidAccessKeyId".into()));
    let fresh = temporary_key(&emulator, &all);
    let read = TestRequest::new("GET", "/k")
        .s3(&fresh)
        .send(emulator.cos_addr());
    assert_eq!(read.status, 200, "an event happens once");
}

#[test]
fn refuses_new_connections_and_keeps_open_ones() {
    let emulator = emulator();
    let head = |request: TestRequest| {
        let head = String::from_utf8(request.head()).unwrap();
        head.replace("connection: close\r\n", "")
    };
    let mut open = connect(emulator.cos_addr());
    open.write_all(head(get("/none")).as_bytes()).unwrap();
    let mut first = [0; 12];
    std::io::Read::read_exact(&mut open, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 404");
    emulator.faults().set(Faults {
        faults: [FaultService::Cos, FaultService::Sts]
            .map(|service| FaultEntry::common(service, CommonFault::RefuseConnections))
            .into(),
        ..Faults::default()
    });
    assert!(get("/none").try_send(emulator.cos_addr()).is_none());
    assert!(
        TestRequest::new("POST", "/")
            .body("{}")
            .try_send(emulator.sts_addr())
            .is_none()
    );
    open.write_all(&get("/none").head()).unwrap();
    let rest = String::from_utf8(std::io::Read::bytes(open).map(Result::unwrap).collect()).unwrap();
    assert!(rest.contains("HTTP/1.1 404"), "{rest}");
    emulator.faults().clear();
    assert_eq!(get("/none").send(emulator.cos_addr()).status, 404);
}

#[test]
fn same_seed_selects_the_same_share() {
    let emulator = emulator();
    let run = |seed| {
        emulator.faults().set(Faults {
            faults: vec![FaultEntry {
                share: Some(Share(0.3)),
                ..FaultEntry::cos(CosFault::SlowDown)
            }],
            seed,
            ..Faults::default()
        });
        let statuses = (0..60).map(|_| get("/none").send(emulator.cos_addr()).status);
        statuses.collect::<Vec<u16>>()
    };
    let first = run(1);
    let slow = first.iter().filter(|status| **status == 503).count();
    assert!((8..=30).contains(&slow), "{slow}");
    assert_eq!(run(1), first);
    assert_ne!(run(2), first);
}

#[test]
fn faults_page_names_every_kind() {
    let page = std::fs::read_to_string("docs/faults.md").unwrap();
    for service in ["cos", "sts"] {
        let none = json!({"service": service, "do": "?"});
        let error = serde_json::from_value::<FaultEntry>(none)
            .unwrap_err()
            .to_string();
        let (_, known) = error.split_once("expected one of").unwrap();
        let (own, common) = known.split_once("(either service: ").unwrap();
        let own = own.split('`').skip(1).step_by(2);
        let names: Vec<&str> = own
            .chain(common.trim_end_matches(')').split(", "))
            .collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(
                page.contains(&format!("`{name}")),
                "docs/faults.md lacks {name}"
            );
        }
    }
    // The examples of the page are parsed as files.
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).collect();
    assert!(blocks.len() > 1);
    for block in blocks {
        let text = block.split("```").next().unwrap();
        cosgate::emulator::FaultFile::parse("docs/faults.md", text).unwrap();
    }
}

#[test]
fn records_heads_and_counts() {
    let emulator = emulator();
    let request = TestRequest::new("GET", "/a%20b?x=1")
        .header("user-agent", "test")
        .s3(&account());
    request.send(emulator.cos_addr());
    let heads = emulator.counters().heads();
    assert_eq!(
        (heads[0].method.as_str(), heads[0].target.as_str()),
        ("GET", "/a%20b?x=1")
    );
    assert!(
        heads[0]
            .headers
            .contains(&("user-agent".into(), "test".into()))
    );
    let counts = emulator.counters().counts();
    assert_eq!(
        (
            counts.cos_requests,
            counts.cos_connections,
            counts.sts_calls
        ),
        (1, 1, 0)
    );
}

#[test]
fn sets_faults_over_http() {
    let admin = Some(([127, 0, 0, 1], 0).into());
    let emulator = emulator_with(EmulatorConfig {
        admin_listen: admin,
        ..EmulatorConfig::default()
    });
    let admin = emulator.admin_addr().unwrap();
    let request = |method: &'static str, target: &str, host: &str| {
        TestRequest::new(method, target).header("host", host)
    };
    let put = |body: &str| {
        let request = request("PUT", "/faults", "localhost:9102").body(body);
        request.send(admin).status
    };
    assert_eq!(put(r#"{"cos": "slow-down"}"#), 200);
    assert_eq!(emulator.faults().current().cos, Some(CosFault::SlowDown));
    assert_eq!(put(r#"{"cos": "nonsense"}"#), 400);
    let listed = r#"{"seed": 3, "faults": [{"service": "cos", "name": "down", "every": 2, "do": "slow-down"}]}"#;
    assert_eq!(put(listed), 200);
    let met: Vec<u16> = (0..4)
        .map(|_| get("/none").send(emulator.cos_addr()).status)
        .collect();
    assert_eq!(met, [404, 503, 404, 503]);
    let met = request("GET", "/faults/met", "localhost").send(admin);
    let met: Value = serde_json::from_slice(&met.body).unwrap();
    assert_eq!(met, json!([{"fault": "down", "met": 2}]));
    assert_eq!(put(r#"{"cos": "slow-down"}"#), 200);
    // A web page could use a name of its own for this address.
    for (method, target) in [
        ("DELETE", "/faults"),
        ("DELETE", "/keys"),
        ("GET", "/heads"),
    ] {
        let misdirected = request(method, target, "rebound.example:9102").send(admin);
        assert_eq!(misdirected.status, 421, "{target}");
    }
    assert_eq!(emulator.faults().current().cos, Some(CosFault::SlowDown));
    let cleared = request("DELETE", "/faults", &admin.to_string()).send(admin);
    assert_eq!(cleared.status, 200);
    assert_eq!(emulator.faults().current(), Faults::default());
    let counters = request("GET", "/counters", "127.0.0.1").send(admin);
    assert!(serde_json::from_slice::<Value>(&counters.body).unwrap()["cos_requests"].is_number());
}

#[test]
fn data_folder_keeps_objects() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        emulator_with(EmulatorConfig {
            data: Some(folder.path().into()),
            ..EmulatorConfig::default()
        })
    };
    let first = start();
    let put = TestRequest::new("PUT", "/k")
        .header("x-amz-meta-a", "b")
        .body("x")
        .s3(&account());
    assert_eq!(put.send(first.cos_addr()).status, 200);
    let addr = first.cos_addr();
    drop(first);
    assert!(std::net::TcpStream::connect(addr).is_err());
    let second = start();
    let get = TestRequest::new("GET", "/k")
        .s3(&account())
        .send(second.cos_addr());
    assert_eq!(
        (get.text().as_str(), get.header("x-amz-meta-a")),
        ("x", Some("b"))
    );
}

#[test]
fn faults_name_operations_that_the_proxy_lacks() {
    let emulator = emulator();
    let put = TestRequest::new("PUT", "/k").body("x").s3(&account());
    let delete = TestRequest::new("DELETE", "/").s3(&account());
    let append = TestRequest::new("POST", "/log?append&position=0")
        .body("x")
        .s3(&account());
    for (operation, request, refused) in [
        ("DeleteBucket", &delete, true),
        ("DeleteBucket", &put, false),
        ("AppendObject", &append, true),
        ("AppendObject", &put, false),
    ] {
        emulator.faults().set(Faults {
            faults: vec![FaultEntry {
                operations: vec![operation.to_owned()],
                ..FaultEntry::cos(CosFault::SlowDown)
            }],
            ..Faults::default()
        });
        let reply = request.send(emulator.cos_addr());
        assert_eq!(reply.status == 503, refused, "{operation} {}", request.path);
    }
}
