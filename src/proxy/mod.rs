//! THE pipeline: `Proxy::forward` is a request's life, one line a step.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Version};
use hyper::body::{Body as _, Incoming};
use tokio::time::sleep;

use crate::body::ResponseBody;
use crate::clock::Clock;
use crate::clock::wall_clock;
use crate::config::{CertificateName, Config, ServerLimits};
use crate::credentials::key_sets::KeySets;
use crate::credentials::vendor::Vendor;
use crate::credentials::{Before, Cache};
use crate::decision::{Service, bucket_of, preflight, service};
use crate::error::S3Error;
use crate::observe::access_log::FLUSH;
use crate::observe::{AccessLog, CoreMetrics, Event, LogBuffer, Metrics, TraceQueue};
use crate::s3::hoisted::in_s3_words;
use crate::s3::{self, Operation, S3Request, native};
use crate::tenant::policy::tenant_policy;
use crate::tenant::shared_rate::RateStore;
use crate::tenant::{Certified, Connection, CrossOrigin, Peer, Tenants};
use crate::timestamp::Timestamp;
use crate::transport::{CoreLoad, Phase, StreamState};
use crate::upstream::dial::{Dialer, Roots};
use crate::upstream::pool::ConnectionPool;
use crate::upstream::shared_limits::SharedLimits;

mod admission;
mod carry_out;
mod client_body;
mod exchange;
mod form;
mod gather_budget;
mod in_flight;
mod logged_head;
mod payload;
mod precheck;
mod record;
mod respond;
mod sign;
mod spans;
pub(crate) mod spelling;
mod stranger_memory;
mod sts;
mod vend;

use crate::upstream::retry::RetryBudget;
pub(crate) use client_body::ClientBody;
use gather_budget::GatherBudget;
use in_flight::InFlight;
use logged_head::LoggedHead;
use payload::Arriving;
pub use sign::{Signing, sign};
use stranger_memory::StrangerMemory;

/// What all cores share under one configuration: a snapshot. It never changes, but for counters and the
/// credential cache. A reload makes another one, and a request ends under the one that it began with.
#[derive(Debug)]
pub struct Shared {
    config: Config,
    tenants: Arc<Tenants>,
    key_sets: KeySets,
    credentials: Cache,
    vendor: Vendor,
    /// What replicas share tenants' rates through; `None`: they do not.
    limits_store: Option<Arc<SharedLimits>>,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    /// Where recorded requests go.
    traces: Option<TraceQueue>,
    roots: Option<Roots>,
    /// Where the counters of each tenant are, at its index.
    tenant_slots: Box<[usize]>,
    draining: Arc<AtomicBool>,
}

/// One core's proxy under one configuration.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    /// The limits of its connections, which outlive it.
    limits: Rc<ServerLimits>,
    upstream: Rc<ConnectionPool>,
    metrics: Arc<CoreMetrics>,
    log: LogBuffer,
    budget: Rc<RetryBudget>,
    gathered: Rc<GatherBudget>,
    /// What is held of requests whose sender is not known yet.
    strangers: Rc<StrangerMemory>,
    /// What is held of refusals of those over HTTP/2, until their clients take them.
    refusals: Rc<StrangerMemory>,
    /// The spelling of a response's header names for clients of COS's own API.
    spelling: Extensions,
}

/// The proxy for new requests of a core. Each request holds its proxy to its end, and nothing else may hold one.
#[derive(Debug)]
pub struct CurrentProxy(RefCell<Rc<Proxy>>);

/// What is known of a client before it sends anything. Facts alone: the configuration that each request
/// begins with gives them a meaning.
#[derive(Clone, Debug)]
pub struct Client {
    /// The other end, or whom a trusted proxy has named in front of the connection.
    pub peer: Peer,
    /// Both ends of the connection are loopback addresses, and no PROXY header shows that a proxy is there.
    pub loopback: bool,
    /// The version of TLS; `None`: the connection is not TLS.
    pub tls: Option<TlsVersion>,
    /// Its certificate.
    pub certificate: Option<Rc<ClientCertificate>>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// What a client's certificate has, which TLS has found good.
#[derive(Debug)]
pub struct ClientCertificate {
    /// Names by which a tenant may be known.
    pub names: Vec<CertificateName>,
    /// The last second in which it is good.
    pub not_after: Timestamp,
    /// The names, for the log.
    pub text: Arc<str>,
}

impl TlsVersion {
    /// The word for it in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

impl Shared {
    /// Makes everything ready that outlives a request. Keys are fetched when they are first needed.
    pub fn start(
        config: Config,
        metrics: Metrics,
        access_log: AccessLog,
        traces: Option<TraceQueue>,
    ) -> io::Result<Arc<Self>> {
        Self::start_by(wall_clock, config, metrics, access_log, traces)
    }

    /// The same, where `wall` is the clock by which keys are requested and requests to COS signed.
    pub fn start_by(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        config: Config,
        metrics: Metrics,
        access_log: AccessLog,
        traces: Option<TraceQueue>,
    ) -> io::Result<Arc<Self>> {
        let limits_store = SharedLimits::start(config.credential_shared.as_ref(), None)?;
        let store = limits_store.clone().map(rate_store);
        let tenants = Arc::new(Tenants::sharing(&config, store.as_ref()));
        let key_sets = KeySets::start(&config, &tenants, None)?;
        let clock = Arc::new(Clock::new(wall));
        let credentials = Cache::start(&config, policies(&tenants), &clock);
        let credentials = credentials.map_err(io::Error::other)?;
        let vendor = Vendor::new(&config, &credentials, None);
        let metrics = Arc::new(metrics.with_credentials(credentials.counters()));
        let roots = roots(&config)?;
        let tenant_slots = tenant_slots(&metrics, &config);
        Ok(Arc::new(Self {
            tenant_slots,
            config,
            tenants,
            key_sets,
            credentials,
            vendor,
            limits_store,
            clock,
            metrics,
            access_log,
            traces,
            roots,
            draining: Arc::default(),
        }))
    }

    /// The snapshot of `config` that takes the place of this one. What is counted goes on being counted,
    /// and live keys whose scope is the same are taken over.
    pub fn succeeded_by(&self, config: Config) -> io::Result<Arc<Self>> {
        let old = self.limits_store.as_ref();
        let old = old.map(|old| (old, self.config.credential_shared.as_ref()));
        let limits_store = SharedLimits::start(config.credential_shared.as_ref(), old)?;
        let store = limits_store.clone().map(rate_store);
        let tenants = Tenants::succeeding(&config, &self.tenants, store.as_ref());
        let tenants = Arc::new(tenants);
        let key_sets = KeySets::start(&config, &tenants, Some(&self.key_sets))?;
        let before = Before {
            config: &self.config,
            cache: &self.credentials,
        };
        let policies = policies(&tenants);
        let credentials = Cache::start_after(Some(before), &config, policies, &self.clock);
        let credentials = credentials.map_err(io::Error::other)?;
        let vendor = Vendor::new(&config, &credentials, Some((before, &self.vendor)));
        let roots = match (&self.roots, roots(&config)?) {
            (Some(old), Some(new)) if old.is_like(&new) => Some(old.clone()), // connections stay
            (_, new) => new,
        };
        Ok(Arc::new(Self {
            tenant_slots: tenant_slots(&self.metrics, &config),
            access_log: self.access_log.under(&config.log),
            traces: self.traces.clone(),
            config,
            tenants,
            key_sets,
            credentials,
            vendor,
            limits_store,
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            roots,
            draining: Arc::clone(&self.draining),
        }))
    }

    /// Whether connections to COS are made as under `other`.
    fn connects_like(&self, other: &Self) -> bool {
        let (own, others) = (&self.config.upstream, &other.config.upstream);
        let same_roots = match (&self.roots, &other.roots) {
            (Some(own), Some(other)) => own.is_like(other),
            (own, other) => own.is_none() && other.is_none(),
        };
        same_roots && own.connect_to == others.connect_to && own.limits == others.limits
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tenants.
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// The temporary keys.
    pub fn credentials(&self) -> &Cache {
        &self.credentials
    }

    /// What replicas share tenants' rates through; `None`: they do not.
    pub fn shared_limits(&self) -> Option<&Arc<SharedLimits>> {
        self.limits_store.as_ref()
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What makes connections to COS.
    pub(crate) fn dialer(&self) -> Dialer {
        let upstream = &self.config.upstream;
        Dialer::new(
            self.roots.as_ref(),
            upstream.connect_to.clone(),
            upstream.limits.connect_timeout,
            upstream.limits.tls_handshake_timeout,
        )
    }

    /// Whether cosgate is ending: new requests should go elsewhere.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Notes that no new requests should come.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Proxy {
    /// The proxy of the core `index`. Must be made within the core's `LocalSet`.
    pub fn new(shared: Arc<Shared>, index: usize, load: &Rc<CoreLoad>) -> Rc<Self> {
        let metrics = shared.metrics.core(index);
        let of_strangers = shared.config.server.limits.stranger_bytes;
        Self::start(Self {
            upstream: connections(&shared, load, &metrics),
            limits: Rc::new(shared.config.server.limits.clone()),
            log: shared.access_log.buffer(Arc::clone(&metrics)),
            shared,
            metrics,
            budget: Rc::new(RetryBudget::new()),
            gathered: GatherBudget::new(),
            strangers: StrangerMemory::new(of_strangers),
            refusals: StrangerMemory::new(of_strangers),
            spelling: spelling::of_cos(),
        })
    }

    /// This core's proxy after a reload. It goes on with the connections to COS, if they are made in the
    /// same way, and with all that bounds the core's memory.
    pub fn succeeded_by(&self, shared: Arc<Shared>, load: &Rc<CoreLoad>) -> Rc<Self> {
        let upstream = if self.shared.connects_like(&shared) {
            Rc::clone(&self.upstream)
        } else {
            connections(&shared, load, &self.metrics)
        };
        let of_strangers = shared.config.server.limits.stranger_bytes;
        let keeps = of_strangers == self.limits.stranger_bytes;
        let memory = |old: &Rc<StrangerMemory>| {
            let kept = keeps.then(|| Rc::clone(old));
            kept.unwrap_or_else(|| StrangerMemory::new(of_strangers))
        };
        Self::start(Self {
            upstream,
            limits: Rc::new(shared.config.server.limits.clone()),
            log: shared.access_log.buffer(Arc::clone(&self.metrics)),
            shared,
            metrics: Arc::clone(&self.metrics),
            budget: Rc::clone(&self.budget),
            gathered: Rc::clone(&self.gathered),
            strangers: memory(&self.strangers),
            refusals: memory(&self.refusals),
            spelling: self.spelling.clone(),
        })
    }

    /// Has the log flushed for as long as the proxy lives.
    fn start(proxy: Self) -> Rc<Self> {
        let proxy = Rc::new(proxy);
        let weak = Rc::downgrade(&proxy);
        tokio::task::spawn_local(async move {
            loop {
                sleep(FLUSH).await;
                let Some(proxy) = weak.upgrade() else { return };
                proxy.log.flush();
            }
        });
        proxy
    }

    /// What all cores share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The limits of the connections that begin now.
    pub fn limits(&self) -> &Rc<ServerLimits> {
        &self.limits
    }

    /// This core's counters.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    /// Serves one request. Whatever happens, the response leaves here, and the request's record is written
    /// when its last byte has gone.
    pub(crate) async fn handle(
        self: Rc<Self>,
        request: http::Request<Incoming>,
        client: Client,
        stream_state: Rc<StreamState>,
        now: Timestamp,
    ) -> Result<http::Response<ClientBody>, Infallible> {
        stream_state.enter(Phase::Busy);
        let mut in_flight = InFlight::new(&self, &client, &stream_state, now);
        let (mut head, body) = request.into_parts();
        in_flight.record.head = LoggedHead::of(&head, &self.log);
        in_flight.record.trace = self.trace_of(&head);
        in_flight.record.spans = self.recorder(&head, in_flight.record.trace);
        in_flight.is_unread = !body.is_end_stream();
        let read = if head.version == Version::HTTP_2 {
            let limits = &self.config().server.limits;
            s3::http2::as_http1(&mut head, !body.is_end_stream(), limits)
        } else {
            Ok(())
        };
        in_flight.reader.is_native = native::is_native(&head);
        let served = if let Err(error) = read {
            Some(Err(error))
        } else {
            let served = pin!(self.serve(&head, body, &client, &mut in_flight));
            catch_panic(served).await
        };
        let result = served.unwrap_or_else(|| {
            self.metrics.count(Event::Panic);
            Err(S3Error::internal("a panic while serving this request").close())
        });
        Ok(respond::respond(in_flight, &head, result))
    }

    /// Refuses a head that hyper cannot take or must not see; gives the bytes of the response.
    pub(crate) fn refuse_head(
        self: &Rc<Self>,
        error: S3Error,
        client: &Client,
        stream_state: &Rc<StreamState>,
        now: Timestamp,
    ) -> Bytes {
        respond::refuse_head(InFlight::new(self, client, stream_state, now), error)
    }

    /// Brings a request to the service that it is for.
    async fn serve(
        &self,
        head: &Parts,
        body: Incoming,
        client: &Client,
        in_flight: &mut InFlight,
    ) -> Result<http::Response<ResponseBody>, S3Error> {
        let domains = &self.config().server.domains;
        in_flight.stranger_requests(head, domains, self.shared.tenants.cors());
        let connection = self.connection(head, client, in_flight)?;
        let body = Arriving::new(body, head.version);
        match service(head, domains) {
            Service::Preflight => self.preflight(head, in_flight),
            Service::S3 => self.forward(head, body, connection, in_flight).await,
            Service::Sts => Box::pin(self.session_keys(head, body, connection, in_flight)).await,
            Service::Vend => Box::pin(self.vend(head, body, connection, in_flight)).await,
        }
    }

    /// Responds to a browser's preflight: may a page of another origin request something? Nobody has
    /// signed that.
    fn preflight(
        &self,
        head: &Parts,
        in_flight: &mut InFlight,
    ) -> Result<http::Response<ResponseBody>, S3Error> {
        let domains = &self.config().server.domains;
        in_flight.record.preflight(bucket_of(head, domains));
        in_flight.cross_origin = CrossOrigin::Withheld; // another origin may get another response
        let response = preflight(head, domains, self.shared.tenants.cors())?;
        in_flight.record.is_local = true;
        Ok(response.map(ResponseBody::text))
    }

    /// The life of a request for S3.
    async fn forward(
        &self,
        head: &Parts,
        body: Arriving,
        connection: Connection,
        in_flight: &mut InFlight,
    ) -> Result<http::Response<ResponseBody>, S3Error> {
        let domains = &self.config().server.domains;
        let s3_head = &*in_s3_words(head, domains)?;
        let request = S3Request::parse(s3_head, domains)?; // what it requests
        in_flight.record.parsed(&request);
        if request.operation == Operation::PostObject {
            let posted = self.post_object(head, request, body, connection, in_flight);
            return Box::pin(posted).await; // a form: its fields have the rest
        }
        let caller = self.admit_request(head, &request, connection, in_flight);
        let caller = caller.await?; // who calls, from where, within their limits
        match self.decide(s3_head, request, &caller, in_flight)? {
            ControlFlow::Break(response) => Ok(response), // made here
            ControlFlow::Continue(forward) => {
                // Boxed: its future is large, and would be moved with each request.
                Box::pin(self.carry_out(forward, s3_head, body, &caller, in_flight)).await
            }
        }
    }

    /// Whom a client's certificate names.
    fn certified(&self, client: &Client) -> Option<Certified> {
        let certificate = client.certificate.as_ref()?;
        let tenants = &self.shared.tenants;
        Some(tenants.certified(&certificate.names, certificate.not_after))
    }

    /// The names of a client's certificate, if no tenant has them: for the log.
    fn unknown_names(&self, client: &Client) -> Option<Arc<str>> {
        let certificate = client.certificate.as_ref()?;
        let is_known = self.certified(client)?.is_known();
        (!is_known).then(|| Arc::clone(&certificate.text))
    }

    /// The configuration.
    fn config(&self) -> &Config {
        &self.shared.config
    }
}

impl CurrentProxy {
    /// `proxy` takes new requests.
    pub fn new(proxy: Rc<Proxy>) -> Self {
        Self(RefCell::new(proxy))
    }

    /// The proxy for a request that begins now.
    pub fn get(&self) -> Rc<Proxy> {
        Rc::clone(&self.0.borrow())
    }

    /// From now on `proxy` takes new requests. Those in flight have the old one, and it ends with them.
    pub fn replace(&self, proxy: Rc<Proxy>) {
        let old = self.0.replace(proxy);
        drop(old); // when nothing is borrowed any more
    }
}

/// The policies inside the keys of all tenants.
fn policies(tenants: &Tenants) -> Vec<String> {
    let tenants = tenants.tenants().iter();
    tenants.map(|tenant| tenant_policy(tenant).json()).collect()
}

/// The store as tenants know it.
fn rate_store(shared: Arc<SharedLimits>) -> Arc<dyn RateStore> {
    shared
}

/// Whom connections to COS trust.
fn roots(config: &Config) -> io::Result<Option<Roots>> {
    let upstream = &config.upstream;
    Roots::for_endpoint(upstream.endpoint.tls, upstream.ca_file.as_deref())
        .map_err(io::Error::other)
}

/// A core's connections to COS.
fn connections(
    shared: &Shared,
    load: &Rc<CoreLoad>,
    metrics: &Arc<CoreMetrics>,
) -> Rc<ConnectionPool> {
    let limits = shared.config.upstream.limits.clone();
    ConnectionPool::new(
        shared.dialer(),
        limits,
        Rc::clone(load),
        Arc::clone(metrics),
    )
}

/// Where the counters of each tenant are, at its index: those of templates follow.
fn tenant_slots(metrics: &Metrics, config: &Config) -> Box<[usize]> {
    let tenants = config.tenants.iter().map(|tenant| tenant.name.as_str());
    let templates = config
        .templates
        .iter()
        .map(|template| template.name.as_str());
    metrics.tenant_slots(tenants.chain(templates))
}

/// Runs `future`; `None` if it panicked, so that other requests go on. Taken by reference: by value the future would
/// be stored twice, and moved.
async fn catch_panic<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}
