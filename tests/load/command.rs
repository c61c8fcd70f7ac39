//! The command line: the embedded target, the files, the exit status.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};

use cosgate::load::Report;
use rustix::process::{Pid, Signal};

use crate::support::World;
use crate::{objects, two_tenants};

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .arg("load")
        .args(arguments)
        .env_remove("AWS_ACCESS_KEY_ID")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn uses_and_reports_the_embedded_target_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (json, csv, html) = (path("r.json"), path("r.csv"), path("r.html"));
    let output = load(&[
        "--duration",
        "2s",
        "--against",
        "direct",
        "--probe-isolation",
        "5%",
        "--sizes",
        "1KiB",
        "--tenant-count",
        "3",
        "--json",
        &json,
        "--csv",
        &csv,
        "--html",
        &html,
    ]);
    let output_text = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{output_text}");
    for part in [
        "target http://127.0.0.1:",
        "direct http://cos.",
        "tenant-003",
        "added by the target",
        "passed",
    ] {
        assert!(output_text.contains(part), "{part}\n{output_text}");
    }
    let report: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!((report.sides.len(), report.tenants.len()), (2, 3));
    let [target, direct] = [0, 1].map(|side| report.sides[side].all.count);
    assert!(
        target > 0 && target.abs_diff(direct) <= 40,
        "{target} {direct}"
    );
    if cfg!(target_os = "linux") {
        assert!(report.proxy.unwrap().peak_memory > 1 << 20);
        assert!(output_text.contains("proxy process: "), "{output_text}");
    }
    assert!(fs::read_to_string(&csv).unwrap().contains(",direct,"));
    assert!(
        fs::read_to_string(&html)
            .unwrap()
            .contains("Memory of the proxy")
    );
    let all = fs::read_to_string(&json).unwrap() + &fs::read_to_string(&html).unwrap();
    assert!(
        !all.contains("cosgate-load-secret"),
        "a report shows a secret"
    );

    let output = load(&["compare", &json, &json]);
    assert!(
        text(&output.stdout).contains("+0.0 % same"),
        "{}",
        text(&output.stdout)
    );
    let merged = path("merged.json");
    let output = load(&["merge", &json, &json, "--json", &merged, "--html", &html]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let whole: Report = serde_json::from_str(&fs::read_to_string(&merged).unwrap()).unwrap();
    assert_eq!(whole.sides[0].all.count, 2 * target);
}

#[test]
fn reads_tenants_from_a_file_and_measures_the_proxy() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, json) = (path("tenants.toml"), path("r.json"));
    let scenario = two_tenants(world.gateway.addr, "");
    let (_, tenants) = scenario.split_once("[[tenants]]").unwrap();
    fs::write(&file, format!("[[tenants]]{tenants}")).unwrap();
    let endpoint = format!("http://{}", world.gateway.addr);
    let own = std::process::id().to_string();
    let output = load(&[
        "--endpoint",
        &endpoint,
        "--region",
        "ap-guangzhou",
        "--bucket",
        "photos",
        "--tenants",
        &file,
        "--skew",
        "noisy:globex",
        "--proxy-pid",
        &own,
        "--requests",
        "120",
        "--quiet",
        "--json",
        &json,
    ]);
    let output_text = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{output_text}");
    let report: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let counts: Vec<_> = report
        .tenants
        .iter()
        .map(|tenant| (tenant.name.as_str(), tenant.totals.count))
        .collect();
    let [("acme", few), ("globex", many)] = *counts else {
        panic!("{counts:?}");
    };
    assert!(few > 0 && many > 4 * few, "{counts:?}");
    if cfg!(target_os = "linux") {
        let proxy = report.proxy.unwrap();
        assert!(proxy.cpu_seconds > 0.0 && proxy.peak_memory > 1 << 20);
    }
    assert!(
        world
            .emulator
            .object_keys(crate::support::BUCKET)
            .is_empty(),
        "all was removed"
    );
}

#[test]
fn exit_status_reports_the_outcome() {
    let output = load(&[
        "--requests",
        "20",
        "--quiet",
        "--fail-if",
        "rate>0",
        "--fail-if",
        "p99>1h",
    ]);
    assert_eq!(output.status.code(), Some(2)); // an hour is not a unit of latency
    let output = load(&["--requests", "20", "--quiet", "--fail-if", "rate>0"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("FAILED\n  rate>0"));
    for wrong in [
        &["--rate", "5", "--concurrency", "5"][..],
        &["--bucket", "b"],
        &["--connect-to", "127.0.0.1:1"],
        &["no-such-file.toml"],
        &["--endpoint", "ftp://x", "--bucket", "b"],
        &["compare", "none.json", "none.json"],
    ] {
        let output = load(wrong);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{wrong:?} {}",
            text(&output.stderr)
        );
        assert!(text(&output.stderr).contains("error"), "{wrong:?}");
    }
}

/// A load in a process group of its own, as a shell starts it.
fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .arg("load")
        .args(arguments)
        .env_remove("AWS_ACCESS_KEY_ID")
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a line on standard error, and keeps reading there.
fn wait_for_line(child: &mut Child, part: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(part)), "{part}");
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn interrupt_from_a_terminal_still_verifies_and_removes() {
    let mut child = start(&["--duration", "1h", "--mix", "put=1", "--sizes", "1KiB"]);
    wait_for_line(&mut child, " s  ");
    // A terminal sends the signal to the whole group.
    let group = Pid::from_child(&child);
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let summary = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{summary}");
    assert!(summary.contains("FAILED\n  interrupted\n"), "{summary}");
    assert!(
        summary.contains("0 lost, 0 corrupted, 0 phantom"),
        "{summary}"
    );
    assert!(!summary.contains("could not be removed"), "{summary}");
}

#[test]
fn termination_before_the_start_leaves_nothing_behind() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("load.toml");
    let later = "start_at = \"2099-01-01T00:00:00Z\"";
    fs::write(&scenario, two_tenants(world.gateway.addr, later)).unwrap();
    let mut child = start(&[scenario.to_str().unwrap()]);
    wait_for_line(&mut child, "waiting");
    assert!(!objects(&world).is_empty());
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("interrupted"));
    assert!(objects(&world).is_empty());
}

#[test]
fn rejects_an_output_that_cannot_be_written_before_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("none/r.json").display().to_string();
    for option in ["--json", "--csv", "--html"] {
        let output = load(&["--duration", "1h", option, &inside]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("cannot write"), "{option}");
    }
    let good = folder.path().join("r.json");
    let wrong = ["--bucket", "b", "--json", good.to_str().unwrap()];
    assert_eq!(load(&wrong).status.code(), Some(2));
    assert!(!good.exists(), "an attempt leaves no file");
}

#[test]
fn runs_every_scenario_of_the_repository() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/load");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text_of = fs::read_to_string(&path).unwrap();
        let mut scenario = cosgate::load::Scenario::parse(&text_of).unwrap();
        assert!(scenario.name.is_some(), "{}", path.display());
        count += 1;
        // The load takes a second; the faults are unchanged.
        scenario.stages.clear();
        let rate = if scenario.rate.is_some() {
            &["--rate", "20"][..]
        } else {
            &[]
        };
        let mut arguments = vec![
            path.to_str().unwrap(),
            "--requests",
            "30",
            "--duration",
            "1s",
            "--objects",
            "10",
            "--quiet",
            "--sizes",
            "1KiB",
            "--tenant-count",
            "3",
        ];
        arguments.extend(rate);
        let output = load(&arguments);
        let output_text = text(&output.stdout) + &text(&output.stderr);
        assert_ne!(
            output.status.code(),
            Some(2),
            "{}: {output_text}",
            path.display()
        );
        assert!(
            output_text.contains("0 lost, 0 corrupted, 0 phantom"),
            "{}: {output_text}",
            path.display()
        );
    }
    assert!(count >= 8, "{count}");
}
