//! The Helm chart: what it renders from the values in `packaging/helm/cosgate/tests`, and what it refuses.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use crate::cli::{self, stderr, stdout};
use crate::support::ACME;

const CHART: &str = "packaging/helm/cosgate";
const VALUES: [&str; 3] = ["minimal", "whole", "load"];

/// helm's output. `None`, with a message, if helm is not installed. `TEST_HELM` makes that an error.
fn helm(arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new("helm");
    command
        .args(arguments)
        .args(["--kube-version", "1.30.0"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(std::env::var_os("TEST_HELM").is_none(), "no helm");
            eprintln!("skipped: helm is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn values(name: &str) -> String {
    format!("{CHART}/tests/{name}.yaml")
}

/// What the chart renders from these values.
fn rendered(name: &str) -> Option<String> {
    let output = helm(&["template", name, CHART, "--values", &values(name)])?;
    assert!(output.status.success(), "{name}: {}", stderr(&output));
    Some(stdout(&output))
}

/// The file `name` of a rendered `ConfigMap`.
fn file(rendered: &str, name: &str) -> String {
    let (_, block) = rendered.split_once(&format!("  {name}: |\n")).unwrap();
    let lines = block.lines().map_while(|line| line.strip_prefix("    "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What `whole` mounts, below `folder`.
fn mount(folder: &Path) {
    let certificates = folder.join("certs");
    let made = cli::run(&["certs", certificates.to_str().unwrap()]);
    assert!(made.status.success(), "{}", stderr(&made));
    for name in ["admin", "redis-ca", "secrets", "tenants", "tls"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let example = fs::read_to_string("config/example.toml").unwrap();
    let tenants = example.find("[tenants.acme]").unwrap();
    fs::write(folder.join("tenants/all.toml"), &example[tenants..]).unwrap();
    fs::write(folder.join("admin/token"), "0123456789abcdef").unwrap();
    fs::write(folder.join("secrets/acme"), ACME.1).unwrap();
    for (from, to) in [
        ("ca.pem", "redis-ca/ca.pem"),
        ("server.pem", "tls/tls.crt"),
        ("server.key", "tls/tls.key"),
    ] {
        fs::copy(certificates.join(from), folder.join(to)).unwrap();
    }
}

#[test]
fn helm_finds_no_fault_in_the_chart() {
    for name in VALUES {
        let Some(output) = helm(&["lint", "--strict", CHART, "--values", &values(name)]) else {
            return;
        };
        let printed = stdout(&output) + &stderr(&output);
        assert!(output.status.success(), "{name}: {printed}");
    }
}

#[test]
fn check_accepts_every_configuration_that_the_chart_renders() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path());
    for name in VALUES {
        let Some(rendered) = rendered(name) else {
            return;
        };
        let mounted = format!("{}/", folder.path().display());
        let text = file(&rendered, "cosgate.toml").replace("/etc/cosgate/", &mounted);
        let path = folder.path().join(format!("{name}.toml"));
        fs::write(&path, &text).unwrap();
        let mut check = cli::cosgate(&["check", "--config", path.to_str().unwrap()]);
        for key in [
            "TENCENTCLOUD_SECRET_ID",
            "TENCENTCLOUD_SECRET_KEY",
            "ID",
            "KEY",
        ] {
            check.env(key, "0123456789abcdef0123456789abcdef");
        }
        check
            .env("COSGATE_CHART_REDIS_URL", "rediss://:password@master")
            .env(
                "COSGATE_CHART_REDIS_KEY",
                "0123456789abcdef0123456789abcdef",
            );
        let output = check.output().unwrap();
        assert!(
            output.status.success(),
            "{name}: {}\n{text}",
            stderr(&output)
        );
    }
}

#[test]
fn the_documented_values_are_valid() {
    let page = fs::read_to_string("docs/packages.md").unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    let values: String = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.yaml");
    fs::write(&path, values).unwrap();
    let arguments = ["template", "s3", CHART, "--values", path.to_str().unwrap()];
    let Some(output) = helm(&arguments) else {
        return;
    };
    let rendered = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for text in [
        "[[tenants.acme.grants]]",
        "--shard=$(JOB_COMPLETION_INDEX)+1/3",
        "name: s3-cosgate\n",
    ] {
        assert!(rendered.contains(text), "{text}");
    }
}

#[test]
fn the_chart_writes_whole_numbers_and_keeps_the_others() {
    let Some(rendered) = rendered("minimal") else {
        return;
    };
    let text = file(&rendered, "cosgate.toml");
    assert!(text.contains("\nrequests_per_second = 200\n"), "{text}");
    let output = helm(&[
        "template",
        "x",
        CHART,
        "--values",
        &values("minimal"),
        "--set-json",
        r#"config.a={"b.c":{"half":0.5,"none":null,"text":"a\"\\ü\n","map":[{"x":[1,true]}],"empty":[]}}"#,
    ]);
    let text = file(&stdout(&output.unwrap()), "cosgate.toml");
    let table: toml::Table = text.parse().unwrap();
    let expected: toml::Table =
        "\"b.c\" = { half = 0.5, text = \"a\\\"\\\\ü\\n\", map = [{ x = [1, true] }], empty = [] }"
            .parse()
            .unwrap();
    assert_eq!(table.get("a").unwrap().as_table(), Some(&expected));
}

#[test]
fn a_pod_has_longer_to_end_than_the_drain_takes() {
    for name in VALUES {
        let Some(rendered) = rendered(name) else {
            return;
        };
        let seconds = |key: &str| -> u64 {
            let (_, rest) = rendered.split_once(key).unwrap();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        };
        let drain = seconds("drain_delay = \"") + seconds("drain_timeout = \"");
        assert!(seconds("terminationGracePeriodSeconds: ") > drain, "{name}");
    }
}

#[test]
fn pods_run_without_root_on_a_disk_that_they_cannot_write() {
    for name in VALUES {
        let Some(rendered) = rendered(name) else {
            return;
        };
        let pods = rendered.matches("containers:").count();
        for setting in [
            "runAsNonRoot: true",
            "readOnlyRootFilesystem: true",
            "allowPrivilegeEscalation: false",
            "drop: [ALL]",
            "automountServiceAccountToken: false\n      ",
        ] {
            let count = rendered.matches(setting).count();
            assert!(count >= pods, "{name}: {setting}");
        }
    }
}

#[cfg(feature = "load")]
#[test]
fn each_pod_of_the_load_job_drives_its_part_of_a_valid_scenario() {
    use cosgate::load::{Scenario, Shard};
    let Some(rendered) = rendered("load") else {
        return;
    };
    let scenario = Scenario::parse(&file(&rendered, "scenario.toml")).unwrap();
    assert_eq!(scenario.bucket.as_deref(), Some("photos"));
    let (_, shard) = rendered.split_once("--shard=").unwrap();
    let shard = shard.lines().next().unwrap();
    let last = shard.replace("$(JOB_COMPLETION_INDEX)", "2").parse();
    assert_eq!(last, Ok(Shard { index: 2, count: 3 }));
}

#[test]
fn the_chart_refuses_values_that_it_does_not_know_and_keys_that_it_sets() {
    for (value, message) in [
        (
            "replicaCount=many",
            "'/replicaCount': got string, want integer",
        ),
        ("replicas=3", "additional properties 'replicas' not allowed"),
        (
            "config.server.listen=[::]:1",
            "config.server.listen is set by the chart",
        ),
        (
            "config.server.limits.drain_timeout=1s",
            "config.server.limits.drain_timeout is set",
        ),
        ("image.repository=", "set image.repository"),
        ("redis.enabled=true", "set redis.existingSecret"),
        ("load.enabled=true", "load.scenario needs `endpoint`"),
    ] {
        let values = values("minimal");
        let arguments = ["template", "x", CHART, "--values", &values, "--set", value];
        let Some(output) = helm(&arguments) else {
            return;
        };
        let printed = stderr(&output);
        assert!(
            !output.status.success() && printed.contains(message),
            "{value}: {printed}"
        );
    }
}
