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
use cosgate::listen::Listening;
use cosgate::observe::{Metrics, access_log};
use cosgate::proxy::Shared;
use cosgate::{admin, server, tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::{USAGE, check};

/// How long the log's last lines may take at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Run the proxy.
///
/// It ends on SIGTERM or SIGINT: no new connections, requests in flight get `drain_timeout` or until a
/// second signal, and then uploads are cut short of their length, so that nothing half is stored.
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
    let Some(config) = check::load(&arguments.config) else {
        return ExitCode::from(USAGE);
    };
    super::log_to_stderr();
    super::guard_memory();
    match serve(
        config,
        "[server] listen",
        |listen| tracing::info!(%listen, "cosgate serves"),
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cosgate: error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves `config` until a signal ends it. `ready` is called when connections are accepted.
/// `listen_key` is what the user sets to have another address.
pub(super) fn serve(
    config: Config,
    listen_key: &str,
    ready: impl FnOnce(&Listen),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (listen, mode) = (&config.server.listen, config.server.socket_mode);
        let listener = Listening::bind(listen, mode)
            .map_err(|error| cannot_listen(listen, &error, listen_key))?;
        let admin_listener = match config.server.admin {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address)
                    .map_err(|error| cannot_listen(&address, &error, "[server] admin"))?,
            ),
        };
        let tls = tls::acceptor(&config.server)?;
        let metrics = Metrics::new(config.server.threads);
        let (access_log, log_writer) = access_log::start(io::stdout(), metrics.core(0))?;
        let shared = Shared::start(config, metrics, access_log)?;
        let mut signals = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ];
        let (first, second) = (Notify::new(), Notify::new());
        if let Some(listener) = admin_listener {
            tracing::info!(admin = %listener.local_addr()?, "admin pages are ready");
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let Err(error) = admin::run(listener, shared).await;
                tracing::error!(%error, "the admin listener failed");
            });
        }
        ready(&listener.local()?);
        // The first signal begins the drain, the second ends it.
        let listen_for_signals = async {
            for heard in [&first, &second] {
                let [terminate, interrupt] = &mut signals;
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                heard.notify_one();
            }
            std::future::pending::<io::Result<()>>().await
        };
        let served = tokio::select! {
            served = server::run(listener, shared, tls, first.notified(), second.notified()) => served,
            never = listen_for_signals => never,
        };
        log_writer.finish(LOG_FLUSH);
        served
    })
}

fn cannot_listen(place: &impl Display, error: &io::Error, key: &str) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot listen on {place}: {error}; choose another address with {key}"),
    )
}
