//! cosgate against other proxies on this machine, and what a request costs it: see `benches/race/run` and `docs/performance.md`.
//!
//! This process is the client and the upstream; each proxy is one of its own, with a core of its own where there are two.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "it may panic, measures real time, and prints three digits"
)]

mod counts;
mod load;
mod peers;
mod poll;
mod table;
mod upstream;
mod usage;

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use peers::{Proxy, Site};
use rustix::process::{Resource, getrlimit, setrlimit};
use table::{Effort, GIB, KIB};
use upstream::Objects;

#[derive(Parser)]
struct Arguments {
    /// The program to measure.
    #[arg(long)]
    cosgate: PathBuf,
    /// Envoy's program.
    #[arg(long, default_value = "envoy")]
    envoy: PathBuf,
    /// The core that the proxies have for themselves.
    #[arg(long)]
    core: Option<usize>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures cosgate and the other proxies that are installed.
    Table {
        /// About a minute: fewer rounds, without `HAProxy`, njs and the minute of quiet.
        #[arg(long)]
        quick: bool,
        /// cosgate alone, as a training for its compiler.
        #[arg(long)]
        alone: bool,
    },
    /// Measures what cosgate holds for streams whose readers have stopped.
    Memory {
        /// Without the minute of quiet.
        #[arg(long)]
        quick: bool,
    },
    /// Compares the instructions and allocations of a request with those in `counts.toml`.
    Count {
        /// How the program is built.
        #[arg(long, value_enum, default_value = "dist")]
        build: counts::Build,
        /// Writes them there.
        #[arg(long)]
        save: bool,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("race: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<bool> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let folder = tempfile::tempdir()?;
    let mut site = Site {
        folder: folder.path().to_owned(),
        cosgate: arguments.cosgate.clone(),
        envoy: arguments.envoy.clone(),
        plain: ([127, 0, 0, 1], 0).into(),
        tls: None,
        core: arguments.core,
    };
    match arguments.task {
        Task::Count { build, save } => {
            site.plain = upstream::start(Arc::new(Objects::new(&[KIB])), None)?;
            counts::check(&site, build, save)
        }
        Task::Memory { quick } => {
            site.plain = upstream::start(Arc::new(Objects::new(&[KIB, GIB])), None)?;
            table::memory(&site, &[Proxy::Cosgate], &effort(quick))?;
            Ok(true)
        }
        Task::Table { quick, alone } => {
            let objects = Arc::new(Objects::new(&[KIB, 64 * KIB, GIB]));
            site.plain = upstream::start(Arc::clone(&objects), None)?;
            site.tls = Some(upstream::start(objects, Some(certified(&site)?))?);
            table::run(&site, &installed(&site, quick, alone), &effort(quick))?;
            Ok(true)
        }
    }
}

fn effort(quick: bool) -> Effort {
    if quick {
        Effort {
            rounds: 3,
            measurement: Duration::from_millis(300),
            latency: Duration::from_millis(700),
            quiet: None,
        }
    } else {
        Effort {
            rounds: 7,
            measurement: Duration::from_millis(1500),
            latency: Duration::from_secs(3),
            quiet: Some(Duration::from_mins(1)),
        }
    }
}

/// The proxies that are here; a line says which are not.
fn installed(site: &Site, quick: bool, alone: bool) -> Vec<Proxy> {
    let wanted = Proxy::ALL.into_iter().filter(|proxy| match proxy {
        Proxy::Cosgate => true,
        Proxy::Haproxy | Proxy::NginxNjs => !quick && !alone,
        Proxy::Nginx | Proxy::Nginx128k | Proxy::Envoy => !alone,
    });
    let here = |proxy: &Proxy| {
        let program = proxy.program(site);
        let mut version = Command::new(&program);
        version
            .arg("-v")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let found = *proxy == Proxy::Cosgate || version.status().is_ok();
        if !found {
            println!("left out: no {}", program.display());
        }
        found
    };
    wanted.filter(here).collect()
}

/// A certificate for the upstream, which proxies find in `upstream.pem`.
fn certified(site: &Site) -> io::Result<Arc<rustls::ServerConfig>> {
    let made = rcgen::generate_simple_self_signed([peers::COS.to_owned()]);
    let made = made.map_err(io::Error::other)?;
    std::fs::write(site.folder.join("upstream.pem"), made.cert.pem())?;
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            let config = config.with_no_client_auth();
            config.with_single_cert(vec![made.cert.der().clone()], key)
        });
    config.map(Arc::new).map_err(io::Error::other)
}
