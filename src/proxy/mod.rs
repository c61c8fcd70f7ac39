//! THE pipeline: `Proxy::forward` tells a request's life, one line a step.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Method, Version};
use hyper::body::{Body as _, Incoming};
use tokio::time::sleep;

use crate::body::Answer;
use crate::clock::Clock;
use crate::clock::wall_clock;
use crate::config::Config;
use crate::credentials::Cache;
use crate::credentials::key_sets::KeySets;
use crate::credentials::vendor::Vendor;
use crate::error::{Code, S3Error};
use crate::observe::access_log::FLUSH;
use crate::observe::{AccessLog, CoreMetrics, Event, LogBuffer, Metrics, Readiness, Step};
use crate::rewrite;
use crate::s3::hoisted::in_s3_words;
use crate::s3::sts::is_sts;
use crate::s3::vend::is_vend;
use crate::s3::{self, Operation, S3Request, native};
use crate::tenant::policy::tenant_policy;
use crate::tenant::{
    Certified, Connection, Identified, Peer, Tenants, bearer_token, may_need_newer_keys,
};
use crate::timestamp::Timestamp;
use crate::transport::{CoreLoad, Gauge, Phase};
use crate::upstream::dial::{Dialer, Roots};
use crate::upstream::pool::Upstream;

mod exchange;
mod exit;
mod form;
mod gather_budget;
mod local;
mod look;
mod payload;
mod sign;
pub(crate) mod spelling;
mod stranger_memory;
mod sts;
mod vend;

use crate::upstream::retry::Budget;
use exchange::internal;
pub use exit::ClientBody;
use exit::Exit;
use gather_budget::GatherBudget;
pub use local::answer_locally;
pub use sign::sign;
use stranger_memory::StrangerMemory;

/// What all cores share. It never changes, but for counters and the credential cache.
#[derive(Debug)]
pub struct Shared {
    config: Config,
    tenants: Arc<Tenants>,
    key_sets: KeySets,
    credentials: Cache,
    vendor: Vendor,
    clock: Arc<Clock>,
    metrics: Metrics,
    access_log: AccessLog,
    roots: Option<Roots>,
    draining: AtomicBool,
}

/// One core's proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    upstream: Rc<Upstream>,
    metrics: Arc<CoreMetrics>,
    log: LogBuffer,
    budget: Budget,
    gathered: Rc<GatherBudget>,
    /// What is held of requests whose sender is not known yet.
    strangers: Rc<StrangerMemory>,
    /// What is held of refusals of those over HTTP/2, until their clients take them.
    refusals: Rc<StrangerMemory>,
    /// How clients of COS's own API find the names of an answer's headers spelt.
    spelling: Extensions,
}

/// What is known of a client before it says anything.
#[derive(Clone, Debug)]
pub struct Client {
    /// The other end, or whom a trusted proxy has said it is in front of the connection.
    pub peer: Peer,
    /// Both ends of the connection are loopback addresses, and no proxy is known to stand there.
    pub loopback: bool,
    /// The connection is TLS.
    pub tls: bool,
    /// Its certificate, and whom that names.
    pub certificate: Option<Certified>,
    /// The names of that certificate, if no tenant has them: for the log.
    pub unknown_names: Option<Arc<str>>,
}

impl Shared {
    /// Makes everything ready that outlives a request. Keys are fetched when they are first needed.
    pub fn start(config: Config, metrics: Metrics, access_log: AccessLog) -> io::Result<Arc<Self>> {
        Self::start_by(wall_clock, config, metrics, access_log)
    }

    /// The same, where `wall` tells the time by which keys are asked for and requests to COS signed.
    pub fn start_by(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        config: Config,
        metrics: Metrics,
        access_log: AccessLog,
    ) -> io::Result<Arc<Self>> {
        let tenants = Arc::new(Tenants::new(&config));
        let key_sets = KeySets::start(&config, &tenants)?;
        let policies = tenants
            .tenants()
            .iter()
            .map(|tenant| tenant_policy(tenant).json())
            .collect();
        let clock = Arc::new(Clock::new(wall));
        let credentials = Cache::start(&config, policies, &clock).map_err(io::Error::other)?;
        let vendor = Vendor::new(&config, &credentials);
        let metrics = metrics.with_credentials(credentials.counters());
        let roots = Roots::for_endpoint(
            config.upstream.endpoint.tls,
            config.upstream.ca_file.as_deref(),
        )
        .map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            config,
            tenants,
            key_sets,
            credentials,
            vendor,
            clock,
            metrics,
            access_log,
            roots,
            draining: AtomicBool::new(false),
        }))
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

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether new requests should come here.
    pub fn readiness(&self) -> Readiness {
        if self.draining.load(Ordering::Relaxed) {
            Readiness::Draining
        } else {
            Readiness::Ready
        }
    }

    /// Says that no new requests should come.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Proxy {
    /// The proxy of the core `index`. Must be made within the core's `LocalSet`.
    pub fn new(shared: Arc<Shared>, index: usize, load: &Rc<CoreLoad>) -> Rc<Self> {
        let metrics = shared.metrics.core(index);
        let upstream = &shared.config.upstream;
        let dialer = Dialer::new(
            shared.roots.as_ref(),
            upstream.connect_to.clone(),
            upstream.limits.connect_timeout,
            upstream.limits.tls_handshake_timeout,
        );
        let limits = upstream.limits.clone();
        let upstream = Upstream::new(dialer, limits, Rc::clone(load), Arc::clone(&metrics));
        let gathered = GatherBudget::new();
        let of_strangers = shared.config.server.limits.stranger_bytes;
        let log = shared.access_log.buffer(Arc::clone(&metrics));
        let proxy = Rc::new(Self {
            shared,
            upstream,
            metrics,
            log,
            budget: Budget::new(),
            gathered,
            strangers: StrangerMemory::new(of_strangers),
            refusals: StrangerMemory::new(of_strangers),
            spelling: spelling::of_cos(),
        });
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

    /// This core's counters.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    /// Serves one request. Whatever happens, the answer leaves here, and `Exit` counts and logs it
    /// when its last byte has gone.
    pub async fn handle(
        self: Rc<Self>,
        request: http::Request<Incoming>,
        client: Client,
        gauge: Rc<Gauge>,
        now: Timestamp,
    ) -> Result<http::Response<ClientBody>, Infallible> {
        gauge.enter(Phase::Busy);
        let mut exit = Exit::new(&self, &client, &gauge, now);
        let (mut head, body) = request.into_parts();
        if !body.is_end_stream() {
            exit.expects_body();
        }
        let read = if head.version == Version::HTTP_2 {
            let limits = &self.config().server.limits;
            s3::http2::as_http1(&mut head, !body.is_end_stream(), limits)
        } else {
            Ok(())
        };
        let served = if let Err(error) = read {
            Some(Err(error))
        } else {
            let forward = pin!(self.forward(&head, body, &client, &gauge, now, &mut exit));
            caught(forward).await
        };
        let answer = served.unwrap_or_else(|| {
            self.metrics.count(Event::Panic);
            Err(internal("a panic while serving this request").close())
        });
        Ok(exit.respond(&head, answer))
    }

    /// Finds out who asks. A token of a key that is not known is worth a look for newer keys.
    async fn identify(
        &self,
        head: &Parts,
        asked: &S3Request<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Identified, S3Error> {
        let tenants = &self.shared.tenants;
        let changes = tenants.key_changes();
        let caller = tenants.identify(head, asked, connection, now);
        if !caller.as_ref().is_err_and(may_need_newer_keys) {
            return caller;
        }
        let Some(token) = bearer_token(&head.headers) else {
            return caller;
        };
        if !Box::pin(self.newer_keys(token, changes, now)).await {
            return caller; // boxed since it is rare: it must not make every future larger
        }
        tenants.identify(head, asked, connection, now)
    }

    /// After `token` was refused that was read with the keys of `changes`: looks for newer ones if it
    /// names a key that is not known, or its provider's keys cannot be used. Gives whether there are any:
    /// the same keys would say the same, at the same cost.
    async fn newer_keys(&self, token: &str, changes: u64, now: Timestamp) -> bool {
        let Shared {
            tenants, key_sets, ..
        } = &*self.shared;
        if let Some(identity) = tenants.lacks_key_of(token, now) {
            key_sets.renew(identity).await;
        }
        tenants.key_changes() != changes
    }

    /// Refuses a head that hyper cannot take or must not see; gives the bytes of the answer.
    pub fn refuse_head(
        self: &Rc<Self>,
        error: S3Error,
        client: &Client,
        gauge: &Rc<Gauge>,
        now: Timestamp,
    ) -> Bytes {
        Exit::new(self, client, gauge, now).refuse_head(error)
    }

    /// A request's life.
    async fn forward(
        &self,
        head: &Parts,
        body: Incoming,
        client: &Client,
        gauge: &Rc<Gauge>,
        now: Timestamp,
        exit: &mut Exit,
    ) -> Result<http::Response<Answer>, S3Error> {
        let origin = self.shared.tenants.caller(&head.headers, client.peer)?;
        exit.from(origin.address);
        let connection = Connection {
            loopback: client.loopback && !origin.is_forwarded,
            tls: client.tls,
            certificate: client.certificate,
            user: match client.peer {
                Peer::Unix(user) if !origin.is_forwarded => Some(user),
                Peer::Tcp(_) | Peer::Unix(_) | Peer::Unnamed => None,
            },
            address: origin.address,
        };
        if is_sts(head) {
            return Box::pin(self.session_keys(head, body, connection, now, exit)).await;
        }
        let domains = &self.config().server.domains;
        if is_vend(head, domains) {
            return Box::pin(self.vend(head, body, connection, now, exit)).await;
        }
        let said = &*in_s3_words(head, domains)?;
        if native::is_native(head) {
            exit.speaks_native();
        }
        let asked = S3Request::parse(said, domains)?; // what is asked
        exit.asked(&asked);
        if asked.operation == Operation::PostObject {
            let posted = self.post_object(head, asked, body, connection, now, exit);
            return Box::pin(posted).await; // a form: its fields come first, and say the rest
        }
        let caller = self.identify(head, &asked, connection, now).await?; // who asks
        exit.caller(&caller);
        let caller = self.shared.tenants.admit(caller, connection, now)?; // from where they may
        exit.limit(caller.tenant())?; // within their own limits
        exit.at(Step::Authorize);
        let permit = caller.authorize(asked)?; // may they
        exit.permitted(&permit);
        let region = &self.config().server.region;
        if let Some(answer) = answer_locally(&permit, &said.headers, region)? {
            exit.answered_here();
            return Ok(answer); // what a scoped key cannot ask
        }
        exit.at(Step::Rewrite);
        let fresh = rewrite::request(&permit, said, &self.config().upstream)?; // rewritten
        Box::pin(self.look_first(&permit, said, gauge, exit)).await?; // its conditions hold
        exit.at(Step::Payload);
        let body = self.payload(&permit, said, body, &caller, gauge).await?; // checked as it streams
        exit.body(&body);
        let answer = self.exchange(&permit, said, fresh, body, gauge, exit).await; // signed, sent, answered
        match answer {
            Err(refused) if head.method == Method::GET && refused.code() == Code::InvalidRange => {
                let explained = self.explain_range(refused, &permit, said, gauge, exit);
                Err(Box::pin(explained).await)
            }
            answer => answer,
        }
    }

    /// The configuration.
    fn config(&self) -> &Config {
        &self.shared.config
    }
}

/// Runs `future`; `None` if it panicked. One request's panic must not take its neighbours along.
/// Taken by reference: by value the future would be held twice, and moved.
async fn caught<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}
