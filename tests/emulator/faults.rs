//! Faults on demand, counters, and the life of the emulator itself.

use std::time::Duration;

use cosgate::emulator::{CosFault, EmulatorConfig, Faults, StsFault};
use serde_json::Value;

use crate::client::{
    Ask, BUCKET, Reply, account, connect, emulator, emulator_with, federation, now, policy, sts,
};

fn cos(fault: CosFault, times: u32) -> Faults {
    Faults {
        cos: Some(fault),
        cos_times: Some(times),
        ..Faults::default()
    }
}

#[test]
fn cos_breaks_as_it_is_told_and_then_no_more() {
    let emulator = emulator();
    let put = || {
        Ask::new("PUT", "/k")
            .body(vec![b'x'; 500_000])
            .s3(&account())
    };
    let get = || Ask::new("GET", "/k").s3(&account());
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
    assert!(cut.is_none_or(|reply| reply.body.len() <= 1000));
    emulator
        .faults()
        .set(cos(CosFault::ResetAfterReceived(1000), 1));
    let over = Ask::new("PUT", "/k")
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
    assert!(Reply::read(&mut stream, false).unwrap().body.len() <= 1000);

    let whole = get().send(emulator.cos_addr());
    assert_eq!(whole.status, 200);
    assert!(whole.body == vec![b'x'; 500_000]);
}

#[test]
fn sts_breaks_as_it_is_told() {
    let emulator = emulator();
    let body = federation(&policy(&["name/cos:GetObject"], &[&format!("{BUCKET}/*")]));
    let plain = || {
        Ask::new("POST", "/")
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
    let date =
        cosgate::timestamp::Timestamp::parse_http_date(reply.header("date").unwrap()).unwrap();
    assert!((1195..=1205).contains(&now().since(date)));
    emulator.faults().set(Faults {
        sts_lifetime: Some(5),
        ..Faults::default()
    });
    let left = call().1["ExpiredTime"].as_i64().unwrap() - now().unix();
    assert!((3..=5).contains(&left));
}

#[test]
fn what_came_can_be_looked_at() {
    let emulator = emulator();
    let ask = Ask::new("GET", "/a%20b?x=1")
        .header("user-agent", "test")
        .s3(&account());
    ask.send(emulator.cos_addr());
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
fn faults_are_set_over_http_too() {
    let admin = Some(([127, 0, 0, 1], 0).into());
    let emulator = emulator_with(EmulatorConfig {
        admin_listen: admin,
        ..EmulatorConfig::default()
    });
    let admin = emulator.admin_addr().unwrap();
    let ask = |method: &'static str, target: &str, host: &str| {
        Ask::new(method, target).header("host", host)
    };
    let put = |body: &str| {
        let ask = ask("PUT", "/faults", "localhost:9102").body(body);
        ask.send(admin).status
    };
    assert_eq!(put(r#"{"cos": "slow-down"}"#), 200);
    assert_eq!(emulator.faults().current().cos, Some(CosFault::SlowDown));
    assert_eq!(put(r#"{"cos": "nonsense"}"#), 400);
    // A page in a browser can have a name of its own lead here.
    for (method, target) in [
        ("DELETE", "/faults"),
        ("DELETE", "/keys"),
        ("GET", "/heads"),
    ] {
        let misdirected = ask(method, target, "rebound.example:9102").send(admin);
        assert_eq!(misdirected.status, 421, "{target}");
    }
    assert_eq!(emulator.faults().current().cos, Some(CosFault::SlowDown));
    let cleared = ask("DELETE", "/faults", &admin.to_string()).send(admin);
    assert_eq!(cleared.status, 200);
    assert_eq!(emulator.faults().current(), Faults::default());
    let counters = ask("GET", "/counters", "127.0.0.1").send(admin);
    assert!(serde_json::from_slice::<Value>(&counters.body).unwrap()["cos_requests"].is_number());
}

#[test]
fn objects_outlive_the_emulator_when_they_have_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        emulator_with(EmulatorConfig {
            data: Some(folder.path().into()),
            ..EmulatorConfig::default()
        })
    };
    let first = start();
    let put = Ask::new("PUT", "/k")
        .header("x-amz-meta-a", "b")
        .body("x")
        .s3(&account());
    assert_eq!(put.send(first.cos_addr()).status, 200);
    let addr = first.cos_addr();
    drop(first);
    assert!(std::net::TcpStream::connect(addr).is_err());
    let second = start();
    let get = Ask::new("GET", "/k").s3(&account()).send(second.cos_addr());
    assert_eq!(
        (get.text().as_str(), get.header("x-amz-meta-a")),
        ("x", Some("b"))
    );
}
