//! Server: accepts connections, spreads them over the cores, and drains.
//!
//! One thread accepts sockets and hands each to the core with the fewest connections. A core is a thread with
//! a `current_thread` runtime. A request stays on one core and shares only immutable data with the others.

use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::Server;
use crate::downstream::certificate::Certificate;
use crate::downstream::connection_limit::{
    ConnectionBounds, ConnectionLimit, CountedConnection, TooMany,
};
use crate::downstream::handshake::{self, FailedHandshake};
use crate::downstream::http1;
use crate::downstream::http2;
use crate::downstream::listen::{Accepting, Arrival, ClientSocket, Listening};
use crate::downstream::live::{LiveConfig, NewSnapshot};
use crate::downstream::proxy_header::ProxyHeader;
use crate::downstream::proxy_protocol::{self, HeaderFailure};
use crate::downstream::tls;
use crate::observe::{CoreMetrics, Event};
use crate::proxy::{Client, ClientCertificate, CurrentProxy, Proxy, TlsVersion};
use crate::tenant::Peer;
use crate::transport::CoreLoad;
use crate::transport::descriptors::{self, Holder};

/// The pause after a failed accept, and while clients hold all descriptors that they may.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long the cores may take to end once all requests are cut.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Threads that look names up, for each core.
const LOOKUP_THREADS: usize = 4;

/// What waits in a listener that closes has so long to find room.
const CLOSING: Duration = Duration::from_secs(1);

/// The stage of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DrainStage {
    Running,
    /// No new connections; requests in flight may finish.
    Draining,
    /// Requests that are still in flight are cut.
    Stopped,
}

/// A thread with its runtime, and the queue of its sockets.
struct Core {
    sockets: mpsc::UnboundedSender<AcceptedConnection>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// A socket on its way to a core.
struct AcceptedConnection {
    arrival: Arrival,
    slot: OwnedSemaphorePermit,
    of_address: CountedConnection,
}

/// Serves S3 on `listener` until `shutdown` completes, then drains: requests in flight get
/// `drain_timeout`, or until `cut` completes, after which uploads are cut short of their length, so
/// that nothing half is stored. Returns when all threads have ended.
pub async fn run(
    listener: Listening,
    live: Arc<LiveConfig>,
    shutdown: impl Future<Output = ()>,
    cut: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = listener.accepting()?;
    let of_addresses = ConnectionLimit::new(bounds_of(&live.shared().config().server));
    let (stage, stages) = watch::channel(DrainStage::Running);
    let cores: Vec<Core> = (0..live.shared().config().server.threads)
        .map(|index| {
            let of_addresses = Arc::clone(&of_addresses);
            Core::start(index, Arc::clone(&live), of_addresses, stages.clone())
        })
        .collect::<io::Result<_>>()?;
    let mut cut = pin!(cut);
    let mut entrance = Entrance::new(&cores, &live, &of_addresses);
    let was_cut = {
        let mut accepting = pin!(entrance.accept(&listener));
        tokio::select! {
            () = shutdown => {}
            () = &mut accepting => {}
        }
        live.shared().drain();
        let delay = live.shared().config().server.limits.drain_delay;
        tokio::select! {
            () = &mut accepting => false,
            () = sleep(delay) => false,
            () = &mut cut => true,
        }
    };
    entrance.close(listener).await;
    let cut = async {
        if !was_cut {
            cut.await;
        }
    };
    let limit = live.shared().config().server.limits.drain_timeout;
    drain(cores, &live, &stage, limit, cut).await
}

/// Ends the cores: requests in flight get until `limit`, or until `cut` completes.
async fn drain(
    cores: Vec<Core>,
    live: &LiveConfig,
    stage: &watch::Sender<DrainStage>,
    limit: Duration,
    cut: impl Future<Output = ()>,
) -> io::Result<()> {
    let began = Instant::now();
    let connections: usize = cores
        .iter()
        .map(|core| core.open.load(Ordering::Relaxed))
        .sum();
    let requests = || {
        let [_, requests, _] = live.shared().metrics().open_now();
        requests
    };
    tracing::info!(
        connections,
        requests = requests(),
        "no new connections from here on; requests in flight may finish"
    );
    stage.send_replace(DrainStage::Draining);
    let threads = cores.into_iter().map(|core| core.thread).collect();
    let mut ended = pin!(join(threads));
    let in_time = tokio::select! {
        () = &mut ended => true,
        () = sleep(limit) => false,
        () = cut => false,
    };
    let cut_short = if in_time { 0 } else { requests() };
    if !in_time {
        tracing::warn!("requests were still in flight at the end of the drain; they are cut");
        stage.send_replace(DrainStage::Stopped);
        let stopped = timeout(STOP_TIME, ended).await;
        stopped
            .map_err(|_| io::Error::other("a core does not end; the program ends without it"))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(seconds, cut_short, "the drain has ended");
    Ok(())
}

/// Where connections come in, and go to the cores.
struct Entrance<'s> {
    cores: &'s [Core],
    live: &'s LiveConfig,
    of_addresses: &'s Arc<ConnectionLimit>,
    metrics: Arc<CoreMetrics>,
    slots: ConnectionSlots,
}

impl<'s> Entrance<'s> {
    fn new(
        cores: &'s [Core],
        live: &'s LiveConfig,
        of_addresses: &'s Arc<ConnectionLimit>,
    ) -> Self {
        let shared = live.shared();
        Self {
            cores,
            live,
            of_addresses,
            metrics: shared.metrics().core(0),
            slots: ConnectionSlots::new(shared.config().server.limits.connections),
        }
    }

    /// Accepts until the drain. Pauses at the limit of open connections and when descriptors are scarce.
    async fn accept(&mut self, listener: &Accepting) {
        loop {
            let Some(slot) = self.slots.take(&self.metrics).await else {
                return;
            };
            match listener.accept().await {
                Ok(arrival) => self.admit(arrival, slot).await,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Accepts what waits in `listener` and closes it: the kernel would reset these connections, though their
    /// clients have sent requests already.
    async fn close(&mut self, listener: Accepting) {
        let admitted = async {
            for arrival in listener.close() {
                let Some(slot) = self.slots.take(&self.metrics).await else {
                    return;
                };
                self.admit(arrival, slot).await;
            }
        };
        if timeout(CLOSING, admitted).await.is_err() {
            tracing::warn!(
                "connections that waited to be accepted are closed: there is no room for them"
            );
        }
    }

    /// Hands a connection to a core, or closes it if its address has too many.
    async fn admit(&mut self, arrival: Arrival, slot: OwnedSemaphorePermit) {
        let shared = self.live.shared();
        let is_proxy = shared.tenants().is_trusted_proxy(arrival.peer);
        self.slots.resize(shared.config().server.limits.connections);
        self.of_addresses.set(bounds_of(&shared.config().server));
        drop(shared); // a snapshot must not wait here for a descriptor
        let of_address = match self.of_addresses.admit(arrival.peer, is_proxy) {
            Ok(of_address) => of_address,
            Err(too_many) => {
                refuse(&self.metrics, too_many, arrival.peer);
                return; // without a wait for a descriptor, which others need
            }
        };
        let arrival = wait_for_descriptors(arrival, &self.metrics).await;
        let cores = self.cores.iter();
        if let Some(core) = cores.min_by_key(|core| core.open.load(Ordering::Relaxed)) {
            core.open.fetch_add(1, Ordering::Relaxed);
            let _ = core.sockets.send(AcceptedConnection {
                arrival,
                slot,
                of_address,
            });
        }
    }
}

/// The bounds of connections, by the file descriptors that there are too.
fn bounds_of(server: &Server) -> ConnectionBounds {
    let connections = server.limits.connections;
    let room = descriptors::of_clients().map_or(connections, |room| room.min(connections));
    let of_address = server.limits.connections_per_address;
    ConnectionBounds {
        of_address: ConnectionLimit::share(of_address, connections, room),
        connections: room,
        counts_loopback: server.loopback_is_proxy,
    }
}

/// The connections that there may be at once. A reload changes how many.
struct ConnectionSlots {
    free: Arc<Semaphore>,
    max: usize,
    /// So many that are in use are not given out again.
    surplus: usize,
}

impl ConnectionSlots {
    fn new(max: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
            surplus: 0,
        }
    }

    fn resize(&mut self, max: usize) {
        let (more, fewer) = (max.saturating_sub(self.max), self.max.saturating_sub(max));
        let kept = more.min(self.surplus);
        self.surplus -= kept;
        self.free.add_permits(more - kept);
        self.surplus += fewer - self.free.forget_permits(fewer);
        self.max = max;
    }

    /// Waits for a free slot. `metrics` counts the waits.
    async fn take(&mut self, metrics: &CoreMetrics) -> Option<OwnedSemaphorePermit> {
        if self.free.available_permits() == 0 {
            metrics.count(Event::AcceptPausedConnections);
            tracing::warn!(
                cause = "connections",
                "accepting pauses: there are as many connections as [server.limits] connections allows"
            );
        }
        loop {
            let slot = Arc::clone(&self.free).acquire_owned().await.ok()?;
            if self.surplus == 0 {
                return Some(slot);
            }
            self.surplus -= 1;
            slot.forget();
        }
    }
}

/// Counts and logs a refused connection. The log keeps one such line a second.
fn refuse(metrics: &CoreMetrics, too_many: TooMany, peer: Peer) {
    let (event, cause) = match too_many {
        TooMany::OfAddress => (Event::ConnectionRefusedAddress, "address"),
        TooMany::OfNetwork => (Event::ConnectionRefusedNetwork, "network"),
    };
    metrics.count(event);
    tracing::warn!(
        cause,
        %peer,
        "connection refused: its address has connections_per_address, or its network half of connections; name a proxy in trusted_proxies"
    );
}

/// Holds a client until it has a descriptor outside the reserve. Nothing else is accepted meanwhile, so
/// at most one descriptor of the reserve is in use.
async fn wait_for_descriptors(mut arrival: Arrival, metrics: &CoreMetrics) -> Arrival {
    if descriptors::is_reserved(&arrival.socket, Holder::Client) {
        metrics.count(Event::AcceptPausedDescriptors);
    }
    while descriptors::is_reserved(&arrival.socket, Holder::Client) {
        tracing::warn!(
            cause = "descriptors",
            "accepting pauses: too few file descriptors; raise the limit (ulimit -n)"
        );
        sleep(ACCEPT_REST).await;
        if let Ok(socket) = arrival.socket.try_clone() {
            arrival.socket = socket;
        }
    }
    arrival
}

/// Waits for `threads` without blocking the runtime.
async fn join(threads: Vec<JoinHandle<()>>) {
    while !threads.iter().all(JoinHandle::is_finished) {
        sleep(Duration::from_millis(5)).await;
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a core's thread panicked");
        }
    }
}

impl Core {
    fn start(
        index: usize,
        live: Arc<LiveConfig>,
        of_addresses: Arc<ConnectionLimit>,
        stages: watch::Receiver<DrainStage>,
    ) -> io::Result<Self> {
        let (sockets, accepted) = mpsc::unbounded_channel();
        let (snapshots, arriving) = mpsc::unbounded_channel();
        live.add_core(snapshots); // before it takes its first: it misses none
        let open = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUP_THREADS)
            .build()?;
        let counter = Arc::clone(&open);
        let thread = std::thread::Builder::new()
            .name(format!("core-{index}"))
            .spawn(move || {
                let tasks = LocalSet::new();
                tasks.block_on(&runtime, async {
                    let shared = live.shared();
                    let load = CoreLoad::new(shared.config().server.threads);
                    let metrics = shared.metrics().core(index);
                    let server = CoreServer {
                        current: CurrentProxy::new(Proxy::new(shared, index, &load)),
                        live,
                        metrics,
                        load,
                        of_addresses,
                        open: counter,
                    };
                    // A task of its own: what `block_on` runs itself is polled whenever any task is.
                    let serving = Rc::new(server).serve(accepted, arriving, stages);
                    let ended = tokio::task::spawn_local(serving).await;
                    if let Some(panic) = ended.err().and_then(|ended| ended.try_into_panic().ok()) {
                        resume_unwind(panic);
                    }
                });
                drop(tasks);
                runtime.shutdown_background(); // a name server that hangs must not hold the end
            })?;
        Ok(Self {
            sockets,
            open,
            thread,
        })
    }
}

/// What the connections of one core share.
struct CoreServer {
    current: CurrentProxy,
    live: Arc<LiveConfig>,
    metrics: Arc<CoreMetrics>,
    load: Rc<CoreLoad>,
    of_addresses: Arc<ConnectionLimit>,
    open: Arc<AtomicUsize>,
}

impl CoreServer {
    /// Serves every socket until the drain is over, each request under the newest of `snapshots`.
    async fn serve(
        self: Rc<Self>,
        mut accepted: mpsc::UnboundedReceiver<AcceptedConnection>,
        mut snapshots: mpsc::UnboundedReceiver<NewSnapshot>,
        mut stages: watch::Receiver<DrainStage>,
    ) {
        let mut draining = stages.clone();
        let drain = draining.wait_for(|stage| *stage != DrainStage::Running);
        let mut drain = pin!(drain);
        loop {
            tokio::select! {
                biased; // what was accepted before the drain is counted as open, and served
                Some(new) = snapshots.recv() => {
                    let proxy = self.current.get().succeeded_by(Arc::clone(&new.shared), &self.load);
                    self.current.replace(proxy);
                }
                socket = accepted.recv() => {
                    let Some(socket) = socket else { break };
                    tokio::task::spawn_local(Rc::clone(&self).connection(socket, stages.clone()));
                }
                _ = &mut drain => break,
            }
        }
        let stopped = stages.wait_for(|stage| *stage == DrainStage::Stopped);
        let mut stopped = pin!(stopped);
        while self.open.load(Ordering::Relaxed) > 0 {
            tokio::select! {
                _ = &mut stopped => break,
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// One connection, from its handshake to its end.
    async fn connection(
        self: Rc<Self>,
        accepted: AcceptedConnection,
        stages: watch::Receiver<DrainStage>,
    ) {
        let _open = OpenConnection::new(&self);
        let AcceptedConnection {
            arrival,
            slot: _slot,
            of_address: _of_address,
        } = accepted;
        let rules = self.live.rules();
        let ending = Ending {
            stages,
            rules: rules.watch(),
        };
        let mut client = Client {
            peer: arrival.peer,
            loopback: arrival.is_loopback,
            tls: None,
            certificate: None,
        };
        match arrival.socket {
            ClientSocket::Tcp(socket) => {
                let Ok(mut socket) = TcpStream::from_std(socket) else {
                    return;
                };
                let Ok(_counted) = self.behind_proxy(&mut socket, &mut client).await else {
                    return;
                };
                match rules.acceptor.clone() {
                    None => self.http1(socket, client, ending).await,
                    Some(acceptor) => {
                        drop(rules);
                        // Boxed, so that a plain connection takes no room for it.
                        Box::pin(self.tls(acceptor, socket, client, ending)).await;
                    }
                }
            }
            ClientSocket::Unix(socket) => {
                // Boxed, so that a TCP connection takes no room for it.
                if let Ok(mut socket) = UnixStream::from_std(socket)
                    && let Ok(_counted) = self.behind_proxy(&mut socket, &mut client).await
                {
                    Box::pin(self.http1(socket, client, ending)).await;
                }
            }
        }
    }

    /// A TLS connection, from its handshake to its end.
    async fn tls(&self, acceptor: TlsAcceptor, socket: TcpStream, client: Client, ending: Ending) {
        let limit = self.current.get().limits().tls_handshake_timeout;
        let accepted = handshake::accept(&acceptor, socket, limit).await;
        drop(acceptor); // the connection goes on without it
        let stream = match accepted {
            Ok(stream) => stream,
            Err(failed) => {
                self.record_failed_handshake(&failed, client.peer);
                failed.close().await;
                return;
            }
        };
        let (_, session) = stream.get_ref();
        let mut client = match session.peer_certificates() {
            Some(chain) => certified(chain, client),
            None => client,
        };
        client.tls = Some(match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            _ => TlsVersion::V1_3, // rustls has no others
        });
        if session.alpn_protocol() == Some(tls::H2) {
            // Boxed, so that an HTTP/1 connection takes no room for it.
            Box::pin(self.http2(stream, client, ending)).await;
        } else {
            self.http1(stream, client, ending).await;
        }
    }

    fn record_failed_handshake(&self, failed: &FailedHandshake, peer: Peer) {
        let failure = failed.failure;
        self.metrics.count(failure.event());
        let (cause, error) = (failure.as_str(), &failed.error);
        if failure.is_refused_certificate() {
            tracing::warn!(cause, error, %peer, "a client's certificate is refused");
        } else {
            tracing::info!(cause, error, %peer, "a TLS handshake failed");
        }
    }

    /// With `proxy_protocol`, reads the PROXY header of a trusted proxy and counts the connection as that
    /// of the client it names. Reads nothing from other peers.
    async fn behind_proxy<S>(
        &self,
        socket: &mut S,
        client: &mut Client,
    ) -> Result<Option<CountedConnection>, ConnectionEnded>
    where
        S: AsyncRead + Unpin,
    {
        let proxy = self.current.get();
        let shared = proxy.shared();
        let tenants = shared.tenants();
        if !shared.config().server.proxy_protocol || !tenants.is_trusted_proxy(client.peer) {
            return Ok(None);
        }
        // Boxed, so that other connections take no room for it.
        let limit = proxy.limits().head_timeout;
        let header = Box::pin(proxy_protocol::read(socket, limit)).await;
        let peer = match header {
            Ok(ProxyHeader::Client(address)) => Peer::Tcp(address),
            Ok(ProxyHeader::Unnamed) => Peer::Unnamed,
            Ok(ProxyHeader::Local) => return Ok(None),
            Err(HeaderFailure::Silent) => return Err(ConnectionEnded),
            Err(HeaderFailure::Refused(refused)) => {
                self.metrics.count(refused.event());
                let (cause, peer) = (refused.as_str(), client.peer);
                tracing::warn!(cause, %peer, "a trusted proxy sent no header of the PROXY protocol");
                return Err(ConnectionEnded);
            }
        };
        (client.peer, client.loopback) = (peer, false);
        if tenants.is_trusted_proxy(peer) {
            return Ok(None); // a proxy behind the proxy
        }
        match self.of_addresses.count(peer) {
            Ok(counted) => Ok(Some(counted)),
            Err(too_many) => {
                refuse(&self.metrics, too_many, peer);
                Err(ConnectionEnded)
            }
        }
    }

    /// Serves requests on an HTTP/1 connection until it ends.
    async fn http1<S>(&self, stream: S, client: Client, ending: Ending)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        http1::serve(&self.current, &self.load, stream, client, ending.begins()).await;
    }

    /// The same for an HTTP/2 connection.
    async fn http2<S>(&self, stream: S, client: Client, ending: Ending)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        http2::serve(&self.current, &self.load, stream, client, ending.begins()).await;
    }
}

/// Adds the certificate that TLS has verified to `client`.
fn certified(chain: &[CertificateDer<'_>], mut client: Client) -> Client {
    let parsed = chain.first().and_then(|der| Certificate::parse(der));
    let certificate = parsed.unwrap_or_default();
    client.certificate = Some(Rc::new(ClientCertificate {
        text: certificate.to_string().into(),
        names: certificate.names,
        not_after: certificate.not_after,
    }));
    client
}

/// What ends a connection after the requests in flight.
struct Ending {
    stages: watch::Receiver<DrainStage>,
    rules: watch::Receiver<bool>,
}

impl Ending {
    /// Completes when the drain begins, or a reload changes what clients must show.
    async fn begins(mut self) {
        tokio::select! {
            _ = self.stages.wait_for(|stage| *stage != DrainStage::Running) => {}
            Ok(_) = self.rules.wait_for(|ended| *ended) => {}
        }
    }
}

/// The connection must be closed.
struct ConnectionEnded;

/// Counts a connection as open until it is dropped.
struct OpenConnection(Rc<CoreServer>);

impl OpenConnection {
    fn new(server: &Rc<CoreServer>) -> Self {
        server.metrics.count(Event::ConnectionOpened);
        Self(Rc::clone(server))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.metrics.count(Event::ConnectionClosed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
