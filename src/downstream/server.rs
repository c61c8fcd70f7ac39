//! Server: accepts connections, spreads them over the cores, and drains.
//!
//! One thread accepts sockets and hands each to the core with the fewest connections. A core is a thread with
//! a `current_thread` runtime. A request stays on one core and shares only immutable data with the others.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Duration, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::ServerLimits;
use crate::downstream::certificate::Certificate;
use crate::downstream::connection_limit::{ConnectionLimit, CountedConnection};
use crate::downstream::handshake::{self, FailedHandshake};
use crate::downstream::http1;
use crate::downstream::http2;
use crate::downstream::listen::{Accepting, Arrival, ClientSocket, Listening};
use crate::downstream::proxy_header::ProxyHeader;
use crate::downstream::proxy_protocol::{self, HeaderFailure};
use crate::downstream::tls;
use crate::observe::{CoreMetrics, Event};
use crate::proxy::{Client, Proxy, Shared};
use crate::tenant::Peer;
use crate::transport::CoreLoad;
use crate::transport::descriptors::{self, Holder};

/// The pause after a failed accept, and while clients hold all descriptors that they may.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long the cores may take to end once all requests are cut.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Threads that look names up, for each core.
const LOOKUP_THREADS: usize = 4;

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
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    shutdown: impl Future<Output = ()>,
    cut: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = listener.accepting()?;
    let server = &shared.config().server;
    let connections = server.limits.connections;
    let room = descriptors::of_clients().map_or(connections, |room| room.min(connections));
    let of_addresses = ConnectionLimit::new(
        ConnectionLimit::share(server.limits.connections_per_address, connections, room),
        room,
        server.loopback_is_proxy,
    );
    let (stage, stages) = watch::channel(DrainStage::Running);
    let cores: Vec<Core> = (0..server.threads)
        .map(|index| {
            let of_addresses = Arc::clone(&of_addresses);
            Core::start(
                index,
                Arc::clone(&shared),
                tls.clone(),
                of_addresses,
                stages.clone(),
            )
        })
        .collect::<io::Result<_>>()?;

    let mut shutdown = pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        () = accept(&listener, &cores, &shared, &of_addresses) => {}
    }
    drop(listener);
    shared.drain();
    stage.send_replace(DrainStage::Draining);
    let threads = cores.into_iter().map(|core| core.thread).collect();
    let mut ended = pin!(join(threads));
    tokio::select! {
        () = &mut ended => return Ok(()),
        () = sleep(shared.config().server.limits.drain_timeout) => {}
        () = cut => {}
    }
    tracing::warn!("requests were still in flight at the end of the drain; they are cut");
    stage.send_replace(DrainStage::Stopped);
    timeout(STOP_TIME, ended)
        .await
        .map_err(|_| io::Error::other("a core does not end; the program ends without it"))
}

/// Accepts until the drain. Pauses at the limit of open connections and when descriptors are scarce. Closes
/// connections of an address that has too many.
async fn accept(
    listener: &Accepting,
    cores: &[Core],
    shared: &Shared,
    of_addresses: &Arc<ConnectionLimit>,
) {
    let limits = &shared.config().server.limits;
    let slots = Arc::new(Semaphore::new(limits.connections));
    let metrics = shared.metrics().core(0);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let arrival = match listener.accept().await {
            Ok(arrival) => arrival,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let is_proxy = shared.tenants().is_trusted_proxy(arrival.peer);
        let Some(of_address) = of_addresses.admit(arrival.peer, is_proxy) else {
            refuse(&metrics, arrival.peer);
            continue; // without a wait for a descriptor, which others need
        };
        let arrival = wait_for_descriptors(arrival).await;
        if let Some(core) = cores
            .iter()
            .min_by_key(|core| core.open.load(Ordering::Relaxed))
        {
            core.open.fetch_add(1, Ordering::Relaxed);
            let _ = core.sockets.send(AcceptedConnection {
                arrival,
                slot,
                of_address,
            });
        }
    }
}

/// Counts and logs a refused connection. The log keeps one such line a second.
fn refuse(metrics: &CoreMetrics, peer: Peer) {
    metrics.count(Event::ConnectionRefused);
    tracing::warn!(
        %peer,
        "connection refused: its address has connections_per_address, or its network half of connections; name a proxy in trusted_proxies"
    );
}

/// Holds a client until it has a descriptor outside the reserve. Nothing else is accepted meanwhile, so
/// at most one descriptor of the reserve is in use.
async fn wait_for_descriptors(mut arrival: Arrival) -> Arrival {
    while descriptors::is_reserved(&arrival.socket, Holder::Client) {
        tracing::warn!("too few file descriptors: accepting pauses; raise the limit (ulimit -n)");
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
        shared: Arc<Shared>,
        tls: Option<TlsAcceptor>,
        of_addresses: Arc<ConnectionLimit>,
        stages: watch::Receiver<DrainStage>,
    ) -> io::Result<Self> {
        let (sockets, accepted) = mpsc::unbounded_channel();
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
                    let load = CoreLoad::new(shared.config().server.threads);
                    let proxy = Proxy::new(shared, index, &load);
                    let server = CoreServer {
                        proxy,
                        load,
                        tls,
                        of_addresses,
                        open: counter,
                    };
                    Rc::new(server).serve(accepted, stages).await;
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
    proxy: Rc<Proxy>,
    load: Rc<CoreLoad>,
    tls: Option<TlsAcceptor>,
    of_addresses: Arc<ConnectionLimit>,
    open: Arc<AtomicUsize>,
}

impl CoreServer {
    /// Serves every socket until the drain is over.
    async fn serve(
        self: Rc<Self>,
        mut accepted: mpsc::UnboundedReceiver<AcceptedConnection>,
        mut stages: watch::Receiver<DrainStage>,
    ) {
        let mut draining = stages.clone();
        let drain = draining.wait_for(|stage| *stage != DrainStage::Running);
        let mut drain = pin!(drain);
        loop {
            tokio::select! {
                biased; // what was accepted before the drain is counted as open, and served
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
        let server = &self.proxy.shared().config().server;
        let mut client = Client {
            peer: arrival.peer,
            loopback: arrival.is_loopback && !server.loopback_is_proxy,
            tls: self.tls.is_some(),
            certificate: None,
            unknown_names: None,
        };
        match arrival.socket {
            ClientSocket::Tcp(socket) => {
                let Ok(mut socket) = TcpStream::from_std(socket) else {
                    return;
                };
                let Ok(_counted) = self.behind_proxy(&mut socket, &mut client).await else {
                    return;
                };
                match &self.tls {
                    None => self.http1(socket, client, stages).await,
                    Some(acceptor) => self.tls(acceptor, socket, client, stages).await,
                }
            }
            ClientSocket::Unix(socket) => {
                // Boxed, so that a TCP connection takes no room for it.
                if let Ok(mut socket) = UnixStream::from_std(socket)
                    && let Ok(_counted) = self.behind_proxy(&mut socket, &mut client).await
                {
                    Box::pin(self.http1(socket, client, stages)).await;
                }
            }
        }
    }

    /// A TLS connection, from its handshake to its end.
    async fn tls(
        &self,
        acceptor: &TlsAcceptor,
        socket: TcpStream,
        client: Client,
        stages: watch::Receiver<DrainStage>,
    ) {
        let limit = self.limits().tls_handshake_timeout;
        let stream = match handshake::accept(acceptor, socket, limit).await {
            Ok(stream) => stream,
            Err(failed) => {
                self.record_failed_handshake(&failed, client.peer);
                failed.close().await;
                return;
            }
        };
        let (_, session) = stream.get_ref();
        let client = match session.peer_certificates() {
            Some(chain) => self.certified(chain, client),
            None => client,
        };
        if session.alpn_protocol() == Some(tls::H2) {
            // Boxed, so that an HTTP/1 connection takes no room for it.
            Box::pin(self.http2(stream, client, stages)).await;
        } else {
            self.http1(stream, client, stages).await;
        }
    }

    fn record_failed_handshake(&self, failed: &FailedHandshake, peer: Peer) {
        let failure = failed.failure;
        self.proxy.metrics().count(failure.event());
        let (cause, error) = (failure.as_str(), &failed.error);
        if failure.is_refused_certificate() {
            tracing::warn!(cause, error, %peer, "a client's certificate is refused");
        } else {
            tracing::debug!(cause, error, %peer, "a TLS handshake failed");
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
        let shared = self.proxy.shared();
        let tenants = shared.tenants();
        if !shared.config().server.proxy_protocol || !tenants.is_trusted_proxy(client.peer) {
            return Ok(None);
        }
        // Boxed, so that other connections take no room for it.
        let header = Box::pin(proxy_protocol::read(socket, self.limits().head_timeout)).await;
        let peer = match header {
            Ok(ProxyHeader::Client(address)) => Peer::Tcp(address),
            Ok(ProxyHeader::Unnamed) => Peer::Unnamed,
            Ok(ProxyHeader::Local) => return Ok(None),
            Err(HeaderFailure::Silent) => return Err(ConnectionEnded),
            Err(HeaderFailure::Refused(cause)) => {
                self.proxy.metrics().count(Event::ProxyHeaderRefused);
                let peer = client.peer;
                tracing::warn!(cause, %peer, "a trusted proxy sent no header of the PROXY protocol");
                return Err(ConnectionEnded);
            }
        };
        (client.peer, client.loopback) = (peer, false);
        if tenants.is_trusted_proxy(peer) {
            return Ok(None); // a proxy behind the proxy
        }
        let counted = self.of_addresses.count(peer);
        if counted.is_none() {
            refuse(self.proxy.metrics(), peer);
        }
        counted.map(Some).ok_or(ConnectionEnded)
    }

    /// Adds the certificate that TLS has verified to `client`.
    fn certified(&self, chain: &[CertificateDer<'_>], mut client: Client) -> Client {
        let parsed = chain.first().and_then(|der| Certificate::parse(der));
        let certificate = parsed.unwrap_or_default();
        let tenants = self.proxy.shared().tenants();
        let certified = tenants.certified(&certificate.names, certificate.not_after);
        client.certificate = Some(certified);
        client.unknown_names = (!certified.is_known()).then(|| certificate.to_string().into());
        client
    }

    /// Serves requests on an HTTP/1 connection until it ends.
    async fn http1<S>(&self, stream: S, client: Client, stages: watch::Receiver<DrainStage>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        http1::serve(&self.proxy, &self.load, stream, client, drain_of(stages)).await;
    }

    /// The same for an HTTP/2 connection.
    async fn http2<S>(&self, stream: S, client: Client, stages: watch::Receiver<DrainStage>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        http2::serve(&self.proxy, &self.load, stream, client, drain_of(stages)).await;
    }

    fn limits(&self) -> &ServerLimits {
        &self.proxy.shared().config().server.limits
    }
}

/// Completes when the drain begins.
async fn drain_of(mut stages: watch::Receiver<DrainStage>) {
    let _ = stages.wait_for(|stage| *stage != DrainStage::Running).await;
}

/// The connection must be closed.
struct ConnectionEnded;

/// Counts a connection as open until it is dropped.
struct OpenConnection(Rc<CoreServer>);

impl OpenConnection {
    fn new(server: &Rc<CoreServer>) -> Self {
        server.proxy.metrics().count(Event::ConnectionOpened);
        Self(Rc::clone(server))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.proxy.metrics().count(Event::ConnectionClosed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
