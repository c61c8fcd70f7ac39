//! Scheduled faults: they start and end on time, are marked in the report, and recovery is measured.

use std::sync::Arc;

use cosgate::emulator::{Emulator, EmulatorConfig, Faults};
use cosgate::load::FaultControl;
use cosgate::secret::Secret;

use crate::support::{ACCOUNT, BUCKET, Gateway, World, emulator, toml};
use crate::{objects, run_with, try_run, two_tenants};

const SLOW_DOWN: &str = r#"
duration = "4s"
concurrency = 4
mix = "get=10,put=1"
sizes = "1KiB"
[[faults]]
name = "slow down"
from = "1s"
until = "2s"
service = "cos"
do = "slow-down"
[[faults]]
service = "cos"
from = "2500ms"
do = "revoke-keys"
"#;

#[test]
fn marks_a_fault_and_measures_recovery() {
    let emulator = Arc::new(emulator());
    let gateway = Gateway::start(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let control = FaultControl::Embedded(Arc::clone(&emulator));
    let report = run_with(&two_tenants(gateway.addr, SLOW_DOWN), control);
    let side = &report.sides[0];
    assert!(
        side.errors
            .iter()
            .any(|error| error.error.contains("SlowDown")),
        "{:?}",
        side.errors
    );
    let errors_between = |from: u64, to: u64| -> u64 {
        let rows = report.series.rows.iter();
        rows.filter(|row| (from..to).contains(&row.start_ms))
            .map(|row| row.sides[0].errors)
            .sum()
    };
    assert_eq!(errors_between(0, 800), 0);
    assert!(errors_between(1000, 2000) > 0);
    let fault = &report.faults[0];
    assert_eq!(
        (fault.name.as_str(), fault.from, fault.until),
        ("slow down", 1.0, 2.0)
    );
    let recovery = fault.recovery.unwrap();
    assert!(recovery < 1.8, "{recovery}");
    assert_eq!(report.faults[1].name, "cos revoke-keys");
    assert_eq!(emulator.faults().current(), Faults::default());
    assert!(
        report.failures.is_empty(),
        "{:?} {:?}",
        report.failures,
        report.truth
    );
}

#[test]
fn sets_faults_through_the_admin_listener() {
    let emulator = Emulator::start(EmulatorConfig {
        admin_listen: Some(([127, 0, 0, 1], 0).into()),
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        ..EmulatorConfig::default()
    })
    .unwrap();
    let gateway = Gateway::start(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let admin = FaultControl::Admin(format!("http://{}", emulator.admin_addr().unwrap()));
    let report = run_with(&two_tenants(gateway.addr, SLOW_DOWN), admin);
    let errors = &report.sides[0].errors;
    assert!(
        errors.iter().any(|error| error.error.contains("SlowDown")),
        "{errors:?}"
    );
    assert_eq!(emulator.faults().current(), Faults::default());
}

#[test]
fn rejects_a_schedule_without_fault_control() {
    let error = try_run(
        &two_tenants(([127, 0, 0, 1], 9).into(), SLOW_DOWN),
        FaultControl::None,
    );
    assert!(error.unwrap_err().contains("--faults-admin"));
}

#[test]
fn a_schedule_that_cannot_be_set_leaves_nothing_behind() {
    let world = World::new();
    let text = "duration = \"1h\"\n[[faults]]\nservice = \"cos\"\ndo = \"reset\"";
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let ran = try_run(
        &two_tenants(world.gateway.addr, text),
        FaultControl::Admin(url),
    );
    assert!(ran.unwrap_err().contains("cannot set faults"));
    assert!(objects(&world).is_empty());
}
