//! Accepts connections, spreads them over the cores, keeps their limits, drains. The only reader of
//! the clock.
//!
//! One thread accepts and hands each socket to the core that has the fewest. A core is a thread with
//! a `current_thread` runtime: a request lives and dies on one core and shares nothing with the
//! others but what never changes.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use crate::clock::wall_clock;
use crate::config::ServerLimits;
use crate::downstream::certificate::Certificate;
use crate::downstream::connection_limit::{ConnectionLimit, CountedConnection};
use crate::downstream::handshake;
use crate::downstream::http2;
use crate::downstream::listen::{Accepting, Arrival, ClientSocket, Listening};
use crate::downstream::proxy_header::ProxyHeader;
use crate::downstream::proxy_protocol::{self, HeaderFailure};
use crate::downstream::request_guard::Front;
use crate::downstream::tls;
use crate::error::S3Error;
use crate::observe::{CoreMetrics, Event};
use crate::proxy::{Client, Proxy, Shared};
use crate::tenant::Peer;
use crate::transport::descriptors::{self, Holder};
use crate::transport::{CoreLoad, Counted, Gauge, Phase};

/// The listener rests this long after a failed accept, and while clients hold all descriptors that
/// they may.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long the cores may take to end once all requests are cut.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Threads that look names up, for each core.
const LOOKUP_THREADS: usize = 4;

/// How far the end of the program has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// No new connections; requests in flight may finish.
    Draining,
    /// What is still in flight is cut.
    Stopped,
}

/// A thread with its runtime, and the way to hand it sockets.
struct Core {
    sockets: mpsc::UnboundedSender<Accepted>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// A socket on its way to a core.
struct Accepted {
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
    let (stage, stages) = watch::channel(Stage::Running);
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
    stage.send_replace(Stage::Draining);
    let threads = cores.into_iter().map(|core| core.thread).collect();
    let mut ended = pin!(join(threads));
    tokio::select! {
        () = &mut ended => return Ok(()),
        () = sleep(shared.config().server.limits.drain_timeout) => {}
        () = cut => {}
    }
    tracing::warn!("requests were still in flight at the end of the drain; they are cut");
    stage.send_replace(Stage::Stopped);
    timeout(STOP_TIME, ended)
        .await
        .map_err(|_| io::Error::other("a core does not end; the program ends without it"))
}

/// Accepts for ever: pauses at the limit of open connections and when descriptors are scarce, closes
/// those of an address that has too many, and rests when the system refuses.
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
            let _ = core.sockets.send(Accepted {
                arrival,
                slot,
                of_address,
            });
        }
    }
}

/// Counts that a connection was refused, and tells of it: the log keeps one line a second.
fn refuse(metrics: &CoreMetrics, peer: Peer) {
    metrics.count(Event::ConnectionRefused);
    tracing::warn!(
        %peer,
        "connection refused: its address has connections_per_address, or its network half of connections; name a proxy in trusted_proxies"
    );
}

/// Holds the client until it has a descriptor that is not kept from clients. No other is accepted
/// meanwhile, so that one is missing from the reserve at most.
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
        stages: watch::Receiver<Stage>,
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
                    let listener = Listener {
                        proxy,
                        load,
                        tls,
                        of_addresses,
                        open: counter,
                    };
                    Rc::new(listener).serve(accepted, stages).await;
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
struct Listener {
    proxy: Rc<Proxy>,
    load: Rc<CoreLoad>,
    tls: Option<TlsAcceptor>,
    of_addresses: Arc<ConnectionLimit>,
    open: Arc<AtomicUsize>,
}

impl Listener {
    /// Serves every socket that comes, until the drain is over.
    async fn serve(
        self: Rc<Self>,
        mut accepted: mpsc::UnboundedReceiver<Accepted>,
        mut stages: watch::Receiver<Stage>,
    ) {
        let mut draining = stages.clone();
        let drain = draining.wait_for(|stage| *stage != Stage::Running);
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
        let stopped = stages.wait_for(|stage| *stage == Stage::Stopped);
        let mut stopped = pin!(stopped);
        while self.open.load(Ordering::Relaxed) > 0 {
            tokio::select! {
                _ = &mut stopped => break,
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// One connection, from its handshake to its end.
    async fn connection(self: Rc<Self>, accepted: Accepted, stages: watch::Receiver<Stage>) {
        let _open = Open::new(&self);
        let Accepted {
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
        let socket = match arrival.socket {
            ClientSocket::Tcp(socket) => TcpStream::from_std(socket),
            ClientSocket::Unix(socket) => {
                // Boxed, so that a connection of TCP takes no room for it.
                if let Ok(mut socket) = UnixStream::from_std(socket)
                    && let Ok(_counted) = self.behind_proxy(&mut socket, &mut client).await
                {
                    Box::pin(self.http(socket, client, stages)).await;
                }
                return;
            }
        };
        let Ok(mut socket) = socket else { return };
        let Ok(_counted) = self.behind_proxy(&mut socket, &mut client).await else {
            return;
        };
        match &self.tls {
            None => self.http(socket, client, stages).await,
            Some(acceptor) => {
                let limit = self.limits().tls_handshake_timeout;
                match handshake::accept(acceptor, socket, limit).await {
                    Ok(stream) => {
                        let (_, session) = stream.get_ref();
                        let client = match session.peer_certificates() {
                            Some(chain) => self.certified(chain, client),
                            None => client,
                        };
                        if session.alpn_protocol() == Some(tls::H2) {
                            // Boxed, so that a connection of HTTP/1 takes no room for it.
                            Box::pin(self.http2(stream, client, stages)).await;
                        } else {
                            self.http(stream, client, stages).await;
                        }
                    }
                    Err(refused) => {
                        let failure = refused.failure;
                        self.proxy.metrics().count(failure.event());
                        let (cause, error) = (failure.as_str(), &refused.error);
                        let peer = client.peer;
                        if failure.is_refused_certificate() {
                            tracing::warn!(cause, error, %peer, "a client's certificate is refused");
                        } else {
                            tracing::debug!(cause, error, %peer, "a TLS handshake failed");
                        }
                        refused.close().await;
                    }
                }
            }
        }
    }

    /// Where `proxy_protocol` says that a trusted proxy names its client in front of the connection:
    /// reads that, and counts the connection as the client's. From nobody else is anything read.
    async fn behind_proxy<S>(
        &self,
        socket: &mut S,
        client: &mut Client,
    ) -> Result<Option<CountedConnection>, Closed>
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
            Err(HeaderFailure::Silent) => return Err(Closed),
            Err(HeaderFailure::Refused(cause)) => {
                self.proxy.metrics().count(Event::ProxyHeaderRefused);
                let peer = client.peer;
                tracing::warn!(cause, %peer, "a trusted proxy sent no header of the PROXY protocol");
                return Err(Closed);
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
        counted.map(Some).ok_or(Closed)
    }

    /// A client with a certificate that TLS has found good.
    fn certified(&self, chain: &[CertificateDer<'_>], mut client: Client) -> Client {
        let parsed = chain.first().and_then(|der| Certificate::parse(der));
        let certificate = parsed.unwrap_or_default();
        let tenants = self.proxy.shared().tenants();
        let certified = tenants.certified(&certificate.names, certificate.not_after);
        client.certificate = Some(certified);
        client.unknown_names = (!certified.is_known()).then(|| certificate.to_string().into());
        client
    }

    /// Requests on a connection, one after another, within its limits.
    async fn http<S>(&self, stream: S, client: Client, mut stages: watch::Receiver<Stage>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let limits = self.limits();
        let gauge = Gauge::new(&self.load);
        let refuse = |error: S3Error| self.proxy.refuse_head(error, &client, &gauge, wall_clock());
        let counted = Counted::new(stream, Rc::clone(&gauge));
        let io = TokioIo::new(Front::new(counted, Rc::clone(&gauge), refuse));
        let service = service_fn(|request| {
            Rc::clone(&self.proxy).handle(request, client.clone(), Rc::clone(&gauge), wall_clock())
        });
        let connection = http1::Builder::new()
            .half_close(true) // a client that ends its sending side still gets its answer
            .header_read_timeout(None) // it would end idle connections too: `Watch` tells them apart
            .max_headers(limits.head_fields)
            .max_header_size(limits.head_bytes)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let mut watch = Watch::new(&gauge);
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                _ = stages.wait_for(|stage| *stage != Stage::Running), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = sleep_until(watch.next) => {
                    if watch.is_overdue(&gauge, limits) {
                        return;
                    }
                }
            }
        }
    }

    /// The same over HTTP/2.
    async fn http2<S>(&self, stream: S, client: Client, mut stages: watch::Receiver<Stage>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let draining = async move {
            let _ = stages.wait_for(|stage| *stage != Stage::Running).await;
        };
        http2::serve(&self.proxy, &self.load, stream, client, draining).await;
    }

    fn limits(&self) -> &ServerLimits {
        &self.proxy.shared().config().server.limits
    }
}

/// The connection ends here.
struct Closed;

/// Counts a connection as open until it is dropped.
struct Open(Rc<Listener>);

impl Open {
    fn new(listener: &Rc<Listener>) -> Self {
        listener.proxy.metrics().count(Event::ConnectionOpened);
        Self(Rc::clone(listener))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.proxy.metrics().count(Event::ConnectionClosed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Watches over what no body's own pace covers: heads that do not arrive, connections that idle,
/// clients that do not take the end of an answer.
struct Watch {
    next: Instant,
    written: u64,
    progress: Instant,
}

impl Watch {
    fn new(gauge: &Gauge) -> Self {
        let (_, since) = gauge.phase();
        Self {
            next: since,
            written: 0,
            progress: since,
        }
    }

    /// Whether the connection must be closed; else sets the next time to look.
    fn is_overdue(&mut self, gauge: &Gauge, limits: &ServerLimits) -> bool {
        let now = Instant::now();
        if gauge.written() != self.written || !gauge.is_blocked() {
            self.written = gauge.written();
            self.progress = now;
        }
        let (phase, since) = gauge.phase();
        let end = match phase {
            Phase::Busy => None,
            Phase::Head => Some(since + limits.head_timeout),
            Phase::Idle if gauge.is_blocked() => Some(self.progress + limits.body_window),
            Phase::Idle => Some(since + limits.idle_timeout),
        };
        // A head may begin at any moment: no later look than this can be late for it.
        let soonest_head = now + limits.head_timeout;
        self.next = end.map_or(soonest_head, |end| end.min(soonest_head));
        end.is_some_and(|end| end <= now)
    }
}
