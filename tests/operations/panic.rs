//! A panic while a request is served: it is that request's alone, and tells nobody's secrets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{ACCOUNT, ACME, Call, Gateway, Log, emulator, eventually, toml};
use cosgate::clock::wall_clock;
use cosgate::observe::ProgramLog;
use tracing_subscriber::filter::Targets;

const COOKIE: &str = "canaryCookie0000000000000000001";
/// Set in the process that panics: its log, and what it does at a panic, are the whole process's.
const CHILD: &str = "COSGATE_TEST_PANICS";

#[test]
fn a_panic_is_one_requests_alone_and_tells_no_secret() {
    if std::env::var_os(CHILD).is_some() {
        serve_and_panic();
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg(name_of_test())
        .env(CHILD, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&child.stdout);
    let wrong = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{printed}\n{wrong}");
    assert!(printed.contains("1 passed"), "{printed}");
}

/// The test's name, wherever its module stands.
fn name_of_test() -> String {
    let (_, module) = module_path!().split_once("::").unwrap_or_default();
    let separator = if module.is_empty() { "" } else { "::" };
    format!("{module}{separator}a_panic_is_one_requests_alone_and_tells_no_secret")
}

fn serve_and_panic() {
    let log = Log::default();
    // Not of hyper: the COS of this process reads signatures with it.
    let filter = "cosgate=trace".parse::<Targets>().unwrap();
    let _program_log = ProgramLog::start(filter, log.clone()).unwrap();
    let outcome = std::panic::catch_unwind(|| panics_once(&log));
    if outcome.is_err() {
        println!("{}", log.text()); // it has the panic of this test, too
        panic!("see the log");
    }
}

/// One request panics, and its neighbours do not notice.
fn panics_once(log: &Log) {
    let emulator = emulator();
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    // The clock is read when a request is signed for COS: then it knows all secrets there are.
    let clock = move || {
        assert!(
            !breaks.swap(false, Ordering::Relaxed),
            "the clock is broken"
        );
        wall_clock()
    };
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let gateway = Gateway::start_by(Ipv4Addr::LOCALHOST.into(), &text, clock);
    let signed = |method| Call::new(gateway.addr, method, "/photos/acme/a").signed_by(ACME);
    signed("PUT").body("hello").send().assert_ok(); // it has a key now

    broken.store(true, Ordering::Relaxed);
    let reply = signed("GET").header("cookie", COOKIE).send();

    reply.assert_error(500, "InternalError");
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(gateway.metric("cosgate_panics_total", ""), 1);
    let id = reply.header("x-amz-request-id").unwrap();
    gateway.log.assert_contains(id);
    let lines = gateway.log.text();
    let line = lines.lines().find(|line| line.contains(id)).unwrap();
    assert!(
        line.contains(r#""verdict":"failed","step":"upstream""#),
        "{line}"
    );
    eventually("the panic is logged", || {
        log.text().contains("panicked: the clock is broken")
    });
    // It was one request's alone.
    signed("GET").send().assert_ok();
    let printed = format!("{}{:?}{}{}", lines, reply.headers, reply.text(), log.text());
    for secret in [COOKIE, ACME.1, ACCOUNT.1, "Signature="] {
        assert!(!printed.contains(secret), "{secret} got: {printed}");
    }
}
