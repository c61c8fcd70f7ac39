//! `cosgate doctor`: probes of a real bucket and STS.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cosgate::doctor::{DoctorOptions, Finding, ProbeArea, examine};
use cosgate::tenant::Tenants;

use super::{USAGE, check, complain, print, printed};

/// Probe the configured STS and COS with the configured keys: what works, how the store behaves, and what to change.
///
/// It connects to each endpoint, compares clocks, fetches temporary keys, checks what they can do and what
/// they cannot, and tries what the documents of COS leave open. It writes below one new prefix of each
/// grant, which it prints and removes again; with --read-only it writes nothing. Exit status: 0 if no probe failed, 1 if one
/// did, 2 if the configuration or an option is wrong.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate doctor --config /etc/cosgate.toml
  cosgate doctor -c /etc/cosgate.toml --tenant acme --json >doctor.json")]
pub(super) struct Arguments {
    /// The TOML file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Probe this tenant alone; else the first five. A template's tenant is TEMPLATE/SUBJECT
    #[arg(long, short, value_name = "NAME")]
    tenant: Option<String>,
    /// Write nothing: the store's own behaviour is not probed
    #[arg(long)]
    read_only: bool,
    /// Also wait until a temporary key has expired, and see what it gets: a minute, or what STS gives at least
    #[arg(long)]
    wait: bool,
    /// Print the findings as JSON, for a bug report: it holds names of buckets and hosts, and no secret
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    super::process::guard_memory();
    let Some(config) = check::load(&arguments.config) else {
        return ExitCode::from(USAGE);
    };
    let options = DoctorOptions {
        tenant: arguments.tenant.clone(),
        read_only: arguments.read_only,
        waits: arguments.wait,
    };
    if let Some(name) = &options.tenant
        && Tenants::new(&config).named(name).is_none()
    {
        complain(&super::credentials::unknown_tenant(name, &config));
        return ExitCode::from(USAGE);
    }
    let stop = async {
        if super::process::end_signal().await.is_err() {
            std::future::pending::<()>().await; // it goes on to its end
        }
    };
    let mut last = None;
    let mut show = |finding: &Finding| {
        if !arguments.json {
            let _ = print(&shown(finding, &mut last)); // the report goes on without a reader
        }
    };
    let examined = super::process::block_on(examine(&config, &options, stop, &mut show));
    let report = match examined {
        Ok(Ok(report)) => report,
        Err(error) => return super::cannot_start(&error),
        Ok(Err(error)) => {
            complain(&format_args!("cosgate: error: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).map(|json| json + "\n")
    } else {
        Ok(report.to_string())
    };
    let status = match text {
        Ok(text) => printed(&text),
        Err(error) => super::cannot_start(&std::io::Error::other(error)),
    };
    if report.has_failed() {
        ExitCode::FAILURE
    } else {
        status
    }
}

/// A finding, below the name of its section if it is the first.
fn shown(finding: &Finding, last: &mut Option<ProbeArea>) -> String {
    let before = last.replace(finding.part);
    if before == Some(finding.part) {
        return finding.to_string();
    }
    let gap = if before.is_some() { "\n" } else { "" };
    format!("{gap}{}\n{finding}", finding.part)
}
