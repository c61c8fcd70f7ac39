//! `cosgate load`: load, verification, faults, and one report.

use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use cosgate::config::{Config, Listen, Sources};
use cosgate::load;
use cosgate::load::{
    Embedded, Environment, FaultControl, Live, PlanInputs, ProxyProgram, Report, Scenario,
};
use cosgate::timestamp::Timestamp;
use cosgate::transport::descriptors;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::process::Process;
use super::serve::{ServeOptions, serve};
use super::{USAGE, cores};

/// Drive load of many tenants on an S3 endpoint, break things on time, verify, and report.
///
/// Without --endpoint it starts an embedded COS and cosgate in front of it, and ends with a report after
/// 30 seconds. Exit status: 0 if the run passed, 1 if it failed (--fail-if, verification, isolation), 2 if the
/// arguments are wrong.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  cosgate load
  cosgate load --html report.html --against direct
  cosgate load --rate 500 --duration 2m --mix put=20,get=80 --fail-if 'p99>50ms' --fail-if 'errors>0.1%'
  cosgate load config/load/noisy-neighbour.toml
  AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… cosgate load --endpoint http://127.0.0.1:9000 --bucket demo --prefix alice
  cosgate load compare before.json after.json"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<LoadCommand>,
    /// A scenario file; flags win over what it says
    #[arg(value_name = "SCENARIO")]
    file: Option<PathBuf>,
    #[command(flatten)]
    flags: Box<Scenario>,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Compare two results
    Compare {
        /// The JSON of the earlier run
        before: PathBuf,
        /// The JSON of the later run
        after: PathBuf,
    },
    /// Join the results of the shards of one run, exactly
    Merge {
        /// The JSON of each shard
        #[arg(required = true)]
        parts: Vec<PathBuf>,
        /// Write the whole as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Write one line of CSV for each interval
        #[arg(long, value_name = "FILE")]
        csv: Option<PathBuf>,
        /// Write the report as one HTML file
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// The proxy of the embedded target
    #[command(hide = true)]
    Proxy,
}

/// The largest result that is read.
const RESULT_LIMIT: u64 = 256 << 20;

pub(super) fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        None => drive(arguments.file.as_deref(), *arguments.flags),
        Some(LoadCommand::Compare { before, after }) => compare(&before, &after),
        Some(LoadCommand::Merge {
            parts,
            json,
            csv,
            html,
        }) => merge(&parts, json.as_deref(), csv.as_deref(), html.as_deref()),
        Some(LoadCommand::Proxy) => proxy(),
    }
}

fn refuse(error: &str) -> ExitCode {
    super::complain(&format_args!("cosgate: error: {error}"));
    ExitCode::from(USAGE)
}

fn drive(file: Option<&Path>, flags: Scenario) -> ExitCode {
    let scenario = match Scenario::read(file, flags) {
        Ok(scenario) => scenario,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = descriptors::raise_limit() {
        super::complain(&format_args!(
            "cosgate: the limit of file descriptors cannot be raised: {error}"
        ));
    }
    let outputs = [&scenario.json, &scenario.csv, &scenario.html];
    if let Err(error) = outputs.into_iter().flatten().try_for_each(try_output) {
        return refuse(&error);
    }
    let report = match super::process::block_on(measured(scenario)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return refuse(&error),
        Err(error) => return super::cannot_start(&error),
    };
    let scenario = &report.scenario;
    let written = write(
        &report,
        scenario.json.as_deref(),
        scenario.csv.as_deref(),
        scenario.html.as_deref(),
    );
    ended(&report, written)
}

/// Tries to open an output before the load, because afterwards its result would be lost.
fn try_output(path: &PathBuf) -> Result<(), String> {
    let is_special = |found: std::fs::Metadata| !found.is_file() && !found.is_dir();
    let is_new = !path.exists();
    if path.metadata().is_ok_and(is_special) {
        return Ok(()); // such as a pipe, whose reader would see an end
    }
    let options = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    options.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    if is_new {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Prints the summary, also if no file could be `written`. The exit status follows from the verdict.
fn ended(report: &Report, written: Result<(), String>) -> ExitCode {
    let printed = super::printed(&load::summary(report));
    if let Err(error) = written {
        return refuse(&error);
    }
    if report.failures.is_empty() {
        printed
    } else {
        ExitCode::FAILURE
    }
}

async fn measured(mut scenario: Scenario) -> Result<Report, String> {
    let embedded = start_target(&mut scenario)?;
    let interrupted = interruption().map_err(|error| format!("cannot catch signals: {error}"))?;
    let faults = match (&embedded, &scenario.faults_admin) {
        (_, Some(url)) => FaultControl::Admin(url.clone()),
        (Some(embedded), None) => FaultControl::Embedded(Arc::clone(embedded.emulator())),
        (None, None) => FaultControl::None,
    };
    let environment = Environment {
        inputs: PlanInputs {
            env: &|name| std::env::var(name).ok(),
            cores: u32::try_from(cores()).unwrap_or(1),
        },
        faults,
        proxy_pid: scenario
            .proxy_pid
            .or_else(|| embedded.as_ref().map(Embedded::proxy_pid)),
        interrupted,
    };
    let mut live = if scenario.quiet {
        Live::silent()
    } else {
        Live::on_stderr()
    };
    load::run(&scenario, environment, &mut live).await
}

/// Becomes true at the first Ctrl-C or SIGTERM. The second one ends the process at once, whatever is left behind.
fn interruption() -> io::Result<watch::Receiver<bool>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, interrupted) = watch::channel(false);
    tokio::spawn(async move {
        for is_second in [false, true] {
            let status = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if is_second {
                std::process::exit(status);
            }
            let _ = stop.send(true);
        }
    });
    Ok(interrupted)
}

/// The embedded target, unless the scenario names another.
fn start_target(scenario: &mut Scenario) -> Result<Option<Embedded>, String> {
    if scenario.endpoint.is_some() {
        return Ok(None);
    }
    let of_another = [
        ("--bucket", scenario.bucket.is_some()),
        ("--prefix", scenario.prefix.is_some()),
        ("--tenants", scenario.tenants_file.is_some()),
        ("--connect-to", scenario.connect_to.is_some()),
        ("--ca-file", scenario.ca_file.is_some()),
        ("--access-key", scenario.access_key.is_some()),
        ("--secret-key", scenario.secret_key.is_some()),
        ("--session-token", scenario.session_token.is_some()),
        ("--bearer", scenario.bearer.is_some()),
    ];
    if let Some((option, _)) = of_another.iter().find(|(_, is_set)| *is_set) {
        return Err(format!(
            "{option} needs --endpoint; the embedded target has its own"
        ));
    }
    let program = ProxyProgram {
        program: std::env::current_exe()
            .map_err(|error| format!("cannot find this program: {error}"))?,
        arguments: vec!["load".to_owned(), "proxy".to_owned()],
    };
    let embedded = Embedded::start(scenario, &program)?;
    embedded.set_target(scenario);
    Ok(Some(embedded))
}

fn write(
    report: &Report,
    json: Option<&Path>,
    csv: Option<&Path>,
    html: Option<&Path>,
) -> Result<(), String> {
    let store = |path: &Path, text: String| {
        std::fs::write(path, text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = json {
        let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
        store(path, text + "\n")?;
    }
    if let Some(path) = csv {
        store(path, load::csv(report))?;
    }
    if let Some(path) = html {
        store(path, load::html(report))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Report, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| cannot(&error))?;
    let mut text = String::new();
    file.take(RESULT_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| cannot(&error))?;
    serde_json::from_str(&text).map_err(|error| cannot(&error))
}

fn compare(before: &Path, after: &Path) -> ExitCode {
    match (read(before), read(after)) {
        (Ok(before), Ok(after)) => super::printed(&load::compare(&before, &after)),
        (Err(error), _) | (_, Err(error)) => refuse(&error),
    }
}

fn merge(
    parts: &[PathBuf],
    json: Option<&Path>,
    csv: Option<&Path>,
    html: Option<&Path>,
) -> ExitCode {
    let parts: Result<Vec<Report>, String> = parts.iter().map(|path| read(path)).collect();
    match parts.and_then(load::merge) {
        Ok(report) => ended(&report, write(&report, json, csv, html)),
        Err(error) => refuse(&error),
    }
}

/// Serves the configuration that comes on standard input, until that ends.
fn proxy() -> ExitCode {
    let process = match Process::start() {
        Ok(process) => process,
        Err(error) => return super::cannot_start(&error),
    };
    let mut text = String::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line == ProxyProgram::END {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    let sources = Sources {
        env: &|_| None,
        file: &|_| Err(io::ErrorKind::NotFound.into()),
        env_names: &Vec::new,
        cores: cores(),
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    let config = match Config::parse("cosgate load", &text, &sources) {
        Ok((config, _)) => config,
        Err(problems) => {
            for problem in problems {
                super::complain(&problem);
            }
            return ExitCode::from(USAGE);
        }
    };
    std::thread::spawn(|| {
        // Until the load ends, however it ends.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    });
    let options = ServeOptions {
        listen_key: "the embedded target",
        admin_key: "the embedded target",
        source: None,
    };
    let ready = |listen: &Listen, _| {
        if let Listen::Tcp(address) = listen {
            super::complain(&ProxyProgram::ready(address));
        }
    };
    process.run(async |signals, log| serve(config, options, signals, log, ready).await)
}
