//! `cosgate serve`: the proxy.

use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use cosgate::config::{Config, Listen, Server};
use cosgate::downstream::listen::{Listening, bind_tcp};
use cosgate::downstream::live::LiveConfig;
use cosgate::downstream::reloads::Reloads;
use cosgate::downstream::{admin, server};
use cosgate::observe::{Metrics, ProgramLog, access_log};
use cosgate::proxy::Shared;
use cosgate::transport::descriptors;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::USAGE;
use super::process::{self, Process, Signals};
use super::reload::{ConfigSource, Reloader};
use super::systemd::{self, Sockets};
use super::traces::Traces;

/// How long the log's last lines may take at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Run the proxy.
///
/// SIGTERM, SIGINT or SIGQUIT ends it: no new connections, requests in flight get `drain_timeout`. A
/// second signal ends it at once. Uploads that are not finished are cut short of their length, so that
/// nothing half is stored. SIGHUP reads the configuration again: no request is lost, and one with a problem
/// changes nothing. SIGUSR1 opens the file of the access log again. SIGUSR2 is ignored.
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
    let Some((source, config)) = ConfigSource::open(&arguments.config, &tell) else {
        return ExitCode::from(USAGE);
    };
    process.log().set_format(config.log.program);
    warn_of_few_descriptors(config.server.limits.connections);
    let ready = |listen: &Listen, _| tracing::info!(%listen, "cosgate serves");
    let options = ServeOptions {
        listen_key: "[server] listen",
        admin_key: "[server] admin",
        source: Some(source),
    };
    process.run(async |signals, log| serve(config, options, signals, log, ready).await)
}

/// What differs between the commands that serve.
pub(super) struct ServeOptions {
    /// What the user sets to have another address.
    pub(super) listen_key: &'static str,
    /// The same of the admin pages.
    pub(super) admin_key: &'static str,
    /// What a reload reads.
    pub(super) source: Option<ConfigSource>,
}

/// Serves `config` until a signal ends it. `ready` is called when connections are accepted, with the
/// addresses of the proxy and of the admin pages.
pub(super) async fn serve(
    config: Config,
    options: ServeOptions,
    mut signals: Signals,
    log: &ProgramLog,
    ready: impl FnOnce(&Listen, Option<SocketAddr>),
) -> io::Result<()> {
    signals.catch_ends()?;
    let mut sockets = Sockets::inherited();
    let listener = listener(&config.server, &mut sockets, options.listen_key)?;
    let admin_listener = match sockets.admin()? {
        None => bind_admin(&config.server, options.admin_key)?,
        inherited => inherited,
    };
    let admin_address = admin_listener.as_ref().map(TcpListener::local_addr);
    let admin_address = admin_address.transpose()?;
    let traces = Traces::start(&config.traces)?;
    let metrics = Metrics::with_tenants(config.server.threads, config.server.tenant_metrics);
    let metrics = traces.counted(metrics.with_program_log(log.lost()));
    let out = process::unlocked(&io::stdout())?;
    let (access_log, log_writer) = access_log::start(&config.log, out, metrics.core(0))?;
    let access_log = access_log.in_color(process::is_stdout_in_color());
    let reopen = access_log.clone();
    let live = LiveConfig::new(Shared::start(
        config,
        metrics,
        access_log,
        traces.queue.clone(),
    )?)?;
    let reloads = match options.source {
        Some(source) => Some(watch(source, &live, log)?),
        None => None,
    };
    let admin_pages =
        admin_listener.map(|listener| serve_admin(listener, Arc::clone(&live), reloads.clone()));
    ready(&listener.local()?, admin_address);
    systemd::ready();
    let (first, second) = (Notify::new(), Notify::new());
    let on_hangup = || match &reloads {
        Some(reloads) => drop(reloads.request()), // the log has the response
        None => process::ignore_hangup(),
    };
    let listen_for_signals = async {
        drain_at_signals(signals, on_hangup, || reopen.reopen(), [&first, &second]).await;
    };
    let drain = async {
        first.notified().await;
        begin_drain(&live.shared().config().server, admin_pages.as_ref());
    };
    let served = tokio::select! {
        served = server::run(listener, Arc::clone(&live), drain, second.notified()) => served,
        () = listen_for_signals => Ok(()),
        () = systemd::feed_watchdog() => Ok(()),
    };
    log_writer.finish(LOG_FLUSH);
    traces.finish(LOG_FLUSH);
    served
}

fn serve_admin(
    listener: TcpListener,
    live: Arc<LiveConfig>,
    reloads: Option<Reloads>,
) -> JoinHandle<()> {
    if let Ok(admin) = listener.local_addr() {
        tracing::info!(%admin, "admin pages are ready");
    }
    tokio::spawn(async move {
        let Err(error) = admin::run(listener, live, reloads).await;
        tracing::error!(%error, "the admin listener failed");
    })
}

/// Tells the supervisor. A process that takes over the port has admin pages of its own, which say that it is ready.
fn begin_drain(server: &Server, admin_pages: Option<&JoinHandle<()>>) {
    systemd::stopping(server.limits.drain_delay + server.limits.drain_timeout);
    if let Some(admin_pages) = admin_pages.filter(|_| server.reuse_port) {
        admin_pages.abort();
    }
}

/// Notifies the first of `drains` at the first signal that ends the process, and the second at the second.
async fn drain_at_signals(
    mut signals: Signals,
    on_hangup: impl Fn(),
    on_user1: impl Fn(),
    [first, second]: [&Notify; 2],
) {
    let signal = signals.end(&on_hangup, &on_user1).await;
    tracing::info!(signal, "drain begins; a second signal ends it at once");
    first.notify_one();
    let signal = signals.end(&on_hangup, &on_user1).await;
    tracing::warn!(signal, "second signal: the drain ends at once");
    second.notify_one();
    std::future::pending::<()>().await; // it is ending already
}

/// Starts the thread that reloads, and looks at the files.
fn watch(source: ConfigSource, live: &Arc<LiveConfig>, log: &ProgramLog) -> io::Result<Reloads> {
    let (reloads, requests) = Reloads::new();
    let reloader = Reloader::new(source, Arc::clone(live), log.lines());
    reloader.start(requests)?;
    Ok(reloads)
}

/// The data port's socket: the one that systemd passes, or a new one.
fn listener(server: &Server, sockets: &mut Sockets, key: &str) -> io::Result<Listening> {
    let listen = &server.listen;
    let inherited = sockets.data(listen)?;
    let made = inherited.map_or_else(
        || Listening::bind(listen, server.socket_mode, server.reuse_port),
        Ok,
    );
    made.map_err(|error| cannot_listen(listen, &error, key))
}

fn bind_admin(server: &Server, key: &str) -> io::Result<Option<TcpListener>> {
    let Some(address) = server.admin else {
        return Ok(None);
    };
    let bound = bind_tcp(address, server.reuse_port);
    let bound = bound.map_err(|error| cannot_listen(&address, &error, key))?;
    Ok(Some(bound))
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

fn cannot_listen(address: &impl Display, error: &io::Error, key: &str) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot listen on {address}: {error}; choose another address with {key}"),
    )
}
