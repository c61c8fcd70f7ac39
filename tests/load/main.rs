//! `cosgate load`: each option over sockets, and each kind of damage.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic, and its modules are its own"
)]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod faults;
mod honesty;
mod operations;
mod store;
mod truth;

use std::net::SocketAddr;

use cosgate::load::{Environment, FaultControl, Live, PlanInputs, Report, Scenario};
use tokio::sync::watch;

use support::{ACME, GLOBEX, World};

/// Runs a scenario that is written as in a file.
fn run(text: &str) -> Report {
    run_with(text, FaultControl::None)
}

fn run_with(text: &str, faults: FaultControl) -> Report {
    try_run(text, faults).unwrap()
}

fn try_run(text: &str, faults: FaultControl) -> Result<Report, String> {
    let scenario = Scenario::parse(text).unwrap();
    let (_stop, interrupted) = watch::channel(false);
    let environment = Environment {
        inputs: PlanInputs {
            env: &|_| None,
            cores: 2,
        },
        faults,
        proxy_pid: scenario.proxy_pid,
        interrupted,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cosgate::load::run(
        &scenario,
        environment,
        &mut Live::silent(),
    ))
}

/// Two tenants of [`World`], for the end of a scenario.
fn two_tenants(addr: SocketAddr, more: &str) -> String {
    format!(
        r#"
endpoint = "http://{addr}"
bucket = "photos"
{more}
[[tenants]]
name = "acme"
prefix = "acme"
access_key = "{}"
secret_key = "{}"
[[tenants]]
name = "globex"
prefix = "globex"
access_key = "{}"
secret_key = "{}"
"#,
        ACME.0, ACME.1, GLOBEX.0, GLOBEX.1
    )
}

/// One tenant of a store without authentication.
fn one_tenant(addr: SocketAddr, more: &str) -> String {
    format!("endpoint = \"http://{addr}\"\nbucket = \"b\"\n{more}\n")
}

fn objects(world: &World) -> Vec<String> {
    world.emulator.object_keys(support::BUCKET)
}

#[track_caller]
fn assert_passed(report: &Report) {
    let errors: Vec<_> = report.sides.iter().map(|side| &side.errors).collect();
    assert!(
        report.failures.is_empty(),
        "{:?} {:?} {errors:?}",
        report.failures,
        report.truth
    );
}
