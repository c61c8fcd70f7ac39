//! `cosgate serve`: the proxy.

use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use cosgate::config::{Config, Listen};
use cosgate::downstream::listen::Listening;
use cosgate::downstream::{admin, server, tls};
use cosgate::observe::{Metrics, ProgramLog, access_log};
use cosgate::proxy::Shared;
use cosgate::transport::descriptors;
use tokio::sync::Notify;

use super::process::{self, Process, Signals};
use super::{USAGE, check};

/// How long the log's last lines may take at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Run the proxy.
///
/// SIGTERM, SIGINT or SIGQUIT ends it: no new connections, requests in flight get `drain_timeout`. A
/// second signal ends it at once. Uploads that are not finished are cut short of their length, so that
/// nothing half is stored. SIGHUP is logged and ignored; SIGUSR1 and SIGUSR2 are ignored.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate serve --config /etc/cosgate.toml
  COSGATE_SERVER_LISTEN=127.0.0.1:9100 cosgate serve -c config/example.toml")]
pub(super) struct Arguments {
    /// The TOML file to serve.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let process = match Process::start() {
        Ok(process) => process,
        Err(error) => return super::cannot_start(&error),
    };
    let tell = |problem: &dyn Display| process.log().write_line(&problem);
    let Some(config) = check::load_telling(&arguments.config, &tell) else {
        return ExitCode::from(USAGE);
    };
    warn_of_few_descriptors(config.server.limits.connections);
    let ready = |listen: &Listen| tracing::info!(%listen, "cosgate serves");
    process.run(async |signals, log| serve(config, "[server] listen", signals, log, ready).await)
}

/// Serves `config` until a signal ends it. `ready` is called when connections are accepted.
/// `listen_key` is what the user sets to have another address.
pub(super) async fn serve(
    config: Config,
    listen_key: &str,
    mut signals: Signals,
    log: &ProgramLog,
    ready: impl FnOnce(&Listen),
) -> io::Result<()> {
    signals.catch_ends()?;
    let (listen, mode) = (&config.server.listen, config.server.socket_mode);
    let listener =
        Listening::bind(listen, mode).map_err(|error| cannot_listen(listen, &error, listen_key))?;
    let admin_listener = match config.server.admin {
        None => None,
        Some(address) => Some(
            TcpListener::bind(address)
                .map_err(|error| cannot_listen(&address, &error, "[server] admin"))?,
        ),
    };
    let tls = tls::acceptor(&config.server)?;
    let metrics = Metrics::new(config.server.threads).with_program_log(log.lost());
    let out = process::unlocked(&io::stdout())?;
    let (access_log, log_writer) = access_log::start(out, metrics.core(0))?;
    let shared = Shared::start(config, metrics, access_log)?;
    if let Some(listener) = admin_listener {
        tracing::info!(admin = %listener.local_addr()?, "admin pages are ready");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Err(error) = admin::run(listener, shared).await;
            tracing::error!(%error, "the admin listener failed");
        });
    }
    ready(&listener.local()?);
    let (first, second) = (Notify::new(), Notify::new());
    let listen_for_signals = async {
        let signal = signals.end().await;
        tracing::info!(signal, "drain begins; a second signal ends it");
        first.notify_one();
        let signal = signals.end().await;
        tracing::warn!(signal, "second signal: the drain ends at once");
        second.notify_one();
        std::future::pending::<()>().await; // it is ending already
    };
    let served = tokio::select! {
        served = server::run(listener, shared, tls, first.notified(), second.notified()) => served,
        () = listen_for_signals => Ok(()),
    };
    log_writer.finish(LOG_FLUSH);
    served
}

/// Says what to do when the system gives fewer descriptors than `connections` need.
fn warn_of_few_descriptors(connections: usize) {
    if let Some((limit, needed)) = descriptors::too_low_for(connections) {
        tracing::warn!(
            limit,
            needed,
            connections,
            "the limit of file descriptors is too low for [server.limits] connections: \
             raise it (systemd: LimitNOFILE, shell: ulimit -n), or lower connections"
        );
    }
}

fn cannot_listen(place: &impl Display, error: &io::Error, key: &str) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot listen on {place}: {error}; choose another address with {key}"),
    )
}
