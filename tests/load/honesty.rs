//! Latencies of the load generator are true: a stall of the target shows in an open loop.

use std::time::Duration;

use cosgate::load::Report;

use crate::store::{Damage, Store};
use crate::{assert_passed, one_tenant, run};

const STALL: Duration = Duration::from_secs(1);

fn stalled(load: &str) -> Report {
    let store = Store::new(Damage {
        stall: Some((Duration::from_millis(800), STALL)),
        ..Damage::default()
    });
    let report = run(&one_tenant(
        store.addr,
        &format!("mix = \"get=1\"\nsizes = \"100\"\nduration = \"4s\"\nobjects = 20\n{load}"),
    ));
    assert_passed(&report);
    report
}

#[test]
fn open_loop_shows_a_stall_that_a_closed_loop_hides() {
    for spacing in ["fixed", "poisson"] {
        // If fewer may be in flight than arrive during the stall, many can only start after it.
        let open = stalled(&format!(
            "rate = 100.0\narrivals = \"{spacing}\"\nmax_in_flight = 8"
        ));
        let latency = &open.sides[0].all.latency;
        // A quarter of the requests is planned during the stall. On average they wait half of it.
        assert!(latency.max() > 900_000, "{spacing}: {}", latency.max());
        assert!(
            latency.quantile(0.99) > 800_000,
            "{spacing}: {}",
            latency.quantile(0.99)
        );
        assert!(
            latency.quantile(0.9) > 300_000,
            "{spacing}: {}",
            latency.quantile(0.9)
        );
        assert_eq!(open.not_started, 0);
    }
    let closed = stalled("concurrency = 1");
    let latency = &closed.sides[0].all.latency;
    assert!(latency.max() > 900_000);
    assert!(
        latency.quantile(0.99) < 300_000,
        "{}",
        latency.quantile(0.99)
    );
}

#[test]
fn counts_operations_that_were_not_started() {
    let store = Store::new(Damage {
        serial: Some(Duration::from_millis(20)),
        ..Damage::default()
    });
    let report = run(&one_tenant(
        store.addr,
        "mix = \"get=1\"\nsizes = \"10\"\nrate = 500.0\narrivals = \"fixed\"\nmax_in_flight = 4\nduration = \"1s\"\nthreads = 1\nfail_if = [\"not-started>0\"]\nobjects = 5",
    ));
    let count = report.sides[0].all.count;
    assert_eq!(count + report.not_started, 500);
    assert!(report.not_started > 350, "{}", report.not_started);
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
}

#[test]
fn ramp_follows_its_stages() {
    let store = Store::new(Damage::default());
    let report = run(&one_tenant(
        store.addr,
        "mix = \"get=1\"\nsizes = \"10\"\nstages = [\"2s:0/s..200/s\", \"1s:0/s\", \"1s:50/s\"]\narrivals = \"fixed\"\nobjects = 5",
    ));
    assert_passed(&report);
    assert_eq!(report.sides[0].all.count, 250);
    let within = |from: u64, to: u64| -> u64 {
        let rows = report.series.rows.iter();
        rows.filter(|row| (from..to).contains(&row.start_ms))
            .map(|row| row.sides[0].count)
            .sum()
    };
    let (early, late) = (within(0, 900), within(1100, 1900));
    assert!(early < late, "{early} {late}");
    assert!(within(2300, 2800) <= 5, "{}", within(2300, 2800));
}

#[test]
fn finds_the_knee_below_the_capacity() {
    // One at a time, 5 ms each: the maximum is 200 each second. At 230, the last of a second waits for 150 ms.
    let store = Store::new(Damage {
        serial: Some(Duration::from_millis(5)),
        ..Damage::default()
    });
    let report = run(&one_tenant(
        store.addr,
        "mix = \"get=1\"\nsizes = \"10\"\nfind_knee = true\nrate = 40.0\narrivals = \"fixed\"\nknee_step = \"1s\"\nknee_bounds = [\"p99>120ms\"]\nobjects = 5",
    ));
    assert_passed(&report);
    let knee = report.knee.unwrap();
    let rate = knee.rate.unwrap();
    assert!((40.0..230.0).contains(&rate), "{knee:?}");
    assert!(
        knee.steps.iter().any(|step| step.passed.is_some()),
        "{knee:?}"
    );
}
