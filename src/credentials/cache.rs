//! The keys of all tenants, and the thread that fetches them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use super::entry::{Ask, Entry, IssueError, Scope, Urgency};
use super::issuer::Issuer;
use super::scopes::ScopeTable;
use super::sts::{Issued, StsClass, StsError};
use super::{BadToken, Credential};
use crate::config::{self, Config, IssuerKind};
use crate::dial::Roots;
use crate::secret::Secret;
use crate::tenant::Tenant;
use crate::tenant::policy::tenant_policy;

/// Calls of one issuer in a second. Tencent allows an account 600 (1312/48195).
const CALLS_A_SECOND: f64 = 100.0;
/// Calls of one issuer at once after a pause.
const CALLS_BURST: f64 = 200.0;
/// Calls of one issuer that may be under way.
const CALLS_UNDER_WAY: usize = 64;
/// A key is given up this long before its end, or longer where COS may take longer to answer.
const MARGIN: Duration = Duration::from_secs(30);
/// When a new scope that finds no room may come back.
const BUSY: Duration = Duration::from_secs(2);

/// The keys of all tenants. Dropping it ends the thread; keys that are there still serve.
#[derive(Debug)]
pub struct Cache {
    entries: Box<[Arc<Entry>]>,
    /// The issuer of each template.
    templates: Box<[usize]>,
    made: ScopeTable,
    maker: Maker,
    counters: Arc<CacheCounters>,
    thread: Option<Thread>,
}

/// Makes entries.
#[derive(Debug)]
struct Maker {
    /// For each issuer that calls no STS, its own key.
    permanent: Vec<Option<PermanentKey>>,
    asks: mpsc::UnboundedSender<Ask>,
    margin: Duration,
    counters: Arc<CacheCounters>,
}

#[derive(Debug)]
struct PermanentKey {
    id: String,
    secret: Secret,
    token: Option<Secret>,
}

#[derive(Debug)]
struct Thread {
    stop: oneshot::Sender<()>,
    handle: JoinHandle<()>,
}

/// What the cache counts. Hits are counted by each [`Entry`]: see [`Cache::hits`].
#[derive(Debug, Default)]
pub struct CacheCounters {
    /// Requests that found no live key.
    pub misses: AtomicU64,
    /// Keys dropped because COS refused them.
    pub rejected: AtomicU64,
    /// Calls that STS refused because of our time.
    pub sts_clock: AtomicU64,
    /// Calls refused for the tenant's policy or the duration.
    pub sts_config_wrong: AtomicU64,
    /// Calls refused for the issuer's key.
    pub sts_issuer_broken: AtomicU64,
    /// Calls refused because the issuer may not make them.
    pub sts_not_allowed: AtomicU64,
    /// Calls that gave a key.
    pub sts_ok: AtomicU64,
    /// Calls that failed in a way that may pass.
    pub sts_retry: AtomicU64,
}

impl Cache {
    /// Starts the cache: an entry for each tenant of `config`, fenced by the policy (plain JSON) of
    /// the same index. No call is made before a tenant's first request.
    pub fn start(
        config: &Config,
        policies: Vec<String>,
        clock: &Arc<Clock>,
    ) -> Result<Self, StartError> {
        if policies.len() != config.tenants.len() {
            return Err(StartError("each tenant needs one policy".to_owned()));
        }
        let (asks, asked) = mpsc::unbounded_channel();
        let maker = Maker::new(config, asks)?;
        let mut entries = Vec::with_capacity(policies.len());
        for (tenant, policy) in config.tenants.iter().zip(policies) {
            let scope = Scope {
                tenant: tenant.name.clone(),
                policy,
                issuer: tenant.issuer,
            };
            entries.push(Arc::new(
                maker.entry(scope).ok_or_else(|| no_issuer(&tenant.name))?,
            ));
        }
        let counters = Arc::clone(&maker.counters);
        let issuers = federation_issuers(config, clock, &counters)?;
        let thread = if issuers.iter().any(Option::is_some) {
            Some(Thread::spawn(issuers, asked).map_err(|error| {
                StartError(format!("cannot start the thread that calls STS: {error}"))
            })?)
        } else {
            None
        };
        Ok(Self {
            entries: entries.into(),
            templates: config.templates.iter().map(|t| t.issuer).collect(),
            made: ScopeTable::new(config.credential_entries),
            maker,
            counters,
            thread,
        })
    }

    /// The key of the tenant of this index in the configuration.
    pub fn entry(&self, tenant: usize) -> Option<&Arc<Entry>> {
        self.entries.get(tenant)
    }

    /// The key of `tenant`, be it of the configuration or of a template.
    pub fn entry_of(&self, tenant: &Tenant) -> Result<Arc<Entry>, IssueError> {
        if let Some(entry) = self.entries.get(tenant.index) {
            return Ok(Arc::clone(entry));
        }
        let no_issuer = || IssueError::new("a tenant without an issuer", MARGIN);
        let template = tenant.index - self.entries.len();
        let issuer = *self.templates.get(template).ok_or_else(no_issuer)?;
        let made = self.made.entry(&tenant.name, |permit| {
            let scope = Scope {
                tenant: tenant.name.clone(),
                policy: tenant_policy(tenant).json(),
                issuer,
            };
            self.maker
                .entry(scope)
                .map(|entry| entry.with_permit(permit))
        });
        made.ok_or_else(|| {
            let why = "no room for another scope ([credentials] entries), or too many wait for their first key";
            IssueError::new(why, BUSY)
        })
    }

    /// Tenants with a live key.
    pub fn live_keys(&self) -> usize {
        let now = Instant::now();
        let made = self.made.sum(|entry| u64::from(entry.has_live(now)));
        let fixed = self.entries.iter().filter(|entry| entry.has_live(now));
        fixed.count() + usize::try_from(made).unwrap_or(usize::MAX)
    }

    /// Requests that found a live key.
    pub fn hits(&self) -> u64 {
        let fixed: u64 = self.entries.iter().map(|entry| entry.hits()).sum();
        fixed + self.made.sum(Entry::hits)
    }

    /// Scopes of templates whose entries are kept, and how many have made room for others.
    pub fn scopes(&self) -> (u64, u64) {
        self.made.counts()
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<CacheCounters> {
        &self.counters
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(Thread { stop, handle }) = self.thread.take() {
            drop(stop);
            let _ = handle.join(); // it panicked: it is gone all the same
        }
    }
}

/// Why the cache does not start; the text names the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(String);

impl StartError {
    pub(super) fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn no_issuer(tenant: &str) -> StartError {
    StartError(format!("tenants.{tenant}: its issuer is not configured"))
}

impl Maker {
    fn new(config: &Config, asks: mpsc::UnboundedSender<Ask>) -> Result<Self, StartError> {
        let mut permanent = Vec::with_capacity(config.issuers.len());
        for issuer in &config.issuers {
            let IssuerKind::Static { token } = &issuer.kind else {
                permanent.push(None);
                continue;
            };
            let key = PermanentKey {
                id: issuer.secret_id.clone(),
                secret: issuer.secret_key.clone(),
                token: token.clone(),
            };
            key.credential()
                .map_err(|error| StartError(format!("issuers.{}: {error}", issuer.name)))?;
            permanent.push(Some(key));
        }
        Ok(Self {
            permanent,
            asks,
            margin: MARGIN.max(config.upstream.limits.head_timeout),
            counters: Arc::default(),
        })
    }

    /// `None` when there is no such issuer.
    fn entry(&self, scope: Scope) -> Option<Entry> {
        let counters = Arc::clone(&self.counters);
        match self.permanent.get(scope.issuer)? {
            None => Some(Entry::new(scope, self.asks.clone(), self.margin, counters)),
            Some(key) => Some(Entry::permanent(scope, key.credential().ok()?, counters)),
        }
    }
}

impl PermanentKey {
    fn credential(&self) -> Result<Credential, BadToken> {
        let (id, secret) = (self.id.clone(), self.secret.clone());
        Credential::new(id, secret, self.token.clone(), None)
    }
}

/// The issuers that call STS, at their index in the configuration.
fn federation_issuers(
    config: &Config,
    clock: &Arc<Clock>,
    counters: &Arc<CacheCounters>,
) -> Result<Vec<Option<Issuer>>, StartError> {
    let is_federation =
        |issuer: &config::Issuer| matches!(issuer.kind, IssuerKind::Federation { .. });
    if !config.issuers.iter().any(is_federation) {
        return Ok(Vec::new());
    }
    let roots = Roots::for_endpoint(config.sts.endpoint.tls, config.sts.ca_file.as_deref())
        .map_err(|error| StartError(format!("sts.ca_file: {error}")))?;
    let make = |issuer: &config::Issuer| {
        let IssuerKind::Federation { duration } = issuer.kind else {
            return None;
        };
        let (clock, counters) = (Arc::clone(clock), Arc::clone(counters));
        Some(Issuer::new(
            config,
            issuer,
            duration,
            roots.as_ref(),
            clock,
            counters,
        ))
    };
    Ok(config.issuers.iter().map(make).collect())
}

/// Where the calls of one issuer wait for their turn.
#[derive(Clone)]
struct Lane {
    cold: mpsc::UnboundedSender<Arc<Entry>>,
    refresh: mpsc::UnboundedSender<Arc<Entry>>,
    first: mpsc::UnboundedSender<Arc<Entry>>,
}

/// The other ends of a [`Lane`].
struct Queues {
    cold: mpsc::UnboundedReceiver<Arc<Entry>>,
    refresh: mpsc::UnboundedReceiver<Arc<Entry>>,
    first: mpsc::UnboundedReceiver<Arc<Entry>>,
}

impl Thread {
    fn spawn(
        issuers: Vec<Option<Issuer>>,
        asked: mpsc::UnboundedReceiver<Ask>,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = std::thread::Builder::new()
            .name("sts".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        () = dispatch(issuers, asked) => {}
                    }
                });
                runtime.shutdown_background(); // a look-up that hangs must not hold us
            })?;
        Ok(Self { stop, handle })
    }
}

/// Sends each ask to its issuer's lane as soon as the entry may call.
async fn dispatch(issuers: Vec<Option<Issuer>>, mut asked: mpsc::UnboundedReceiver<Ask>) {
    let lanes: Vec<_> = issuers
        .into_iter()
        .map(|issuer| issuer.map(Lane::start))
        .collect();
    while let Some(Ask { entry, urgency }) = asked.recv().await {
        let Some(Some(lane)) = lanes.get(entry.scope().issuer) else {
            continue;
        };
        let next_call = entry.next_call();
        if next_call <= Instant::now() {
            lane.send(entry, urgency);
            continue;
        }
        let lane = lane.clone();
        tokio::spawn(async move {
            sleep_until(next_call).await;
            lane.send(entry, urgency);
        });
    }
}

impl Lane {
    fn start(issuer: Issuer) -> Self {
        let (cold, cold_asked) = mpsc::unbounded_channel();
        let (refresh, refresh_asked) = mpsc::unbounded_channel();
        let (first, first_asked) = mpsc::unbounded_channel();
        let queues = Queues {
            cold: cold_asked,
            refresh: refresh_asked,
            first: first_asked,
        };
        tokio::spawn(serve(Arc::new(issuer), queues));
        Self {
            cold,
            refresh,
            first,
        }
    }

    fn send(&self, entry: Arc<Entry>, urgency: Urgency) {
        let queue = match urgency {
            Urgency::Cold => &self.cold,
            Urgency::First => &self.first,
            Urgency::Refresh => &self.refresh,
        };
        let _ = queue.send(entry); // fails only while the thread ends
    }
}

/// Makes one issuer's calls at its rate, those that somebody waits for first, and those for scopes
/// that are new last: however many new subjects come, who is at work keeps a key. Each entry has at
/// most one ask in each queue, which bounds them.
async fn serve(issuer: Arc<Issuer>, mut queues: Queues) {
    let slots = Arc::new(Semaphore::new(CALLS_UNDER_WAY));
    let mut bucket = Bucket::full(Instant::now());
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        sleep_until(bucket.ready_at(Instant::now())).await;
        let (entry, urgency) = tokio::select! {
            biased;
            Some(entry) = queues.cold.recv() => (entry, Urgency::Cold),
            Some(entry) = queues.refresh.recv() => (entry, Urgency::Refresh),
            Some(entry) = queues.first.recv() => (entry, Urgency::First),
            else => return,
        };
        if !entry.begin(urgency) {
            continue; // it was made more urgent, and waits in the other queue; or nobody waits
        }
        bucket.take(Instant::now());
        let mut flight = Flight {
            entry,
            result: None,
        };
        let issuer = Arc::clone(&issuer);
        tokio::spawn(async move {
            let _slot = slot;
            let entry = Arc::clone(&flight.entry);
            let scope = entry.scope();
            flight.land(issuer.issue(&scope.tenant, &scope.policy).await);
        });
    }
}

/// A call under way. However it ends, its entry hears of it.
struct Flight {
    entry: Arc<Entry>,
    result: Option<Result<Issued, StsError>>,
}

impl Flight {
    fn land(&mut self, result: Result<Issued, StsError>) {
        self.result = Some(result);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| {
            Err(StsError::new(
                StsClass::Retry,
                "Cancelled",
                "the call was not finished",
            ))
        });
        let tenant = self.entry.scope().tenant.as_str();
        match &result {
            Ok(issued) => {
                tracing::debug!(tenant, expires = %issued.expires, request = issued.request_id, "new key");
            }
            Err(error) => tracing::warn!(tenant, %error, "no key"),
        }
        self.entry.finish(result, fastrand::f64());
    }
}

/// A token bucket: [`CALLS_A_SECOND`] on average, [`CALLS_BURST`] at once.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self {
            tokens: CALLS_BURST,
            at: now,
        }
    }

    /// When there is a token.
    fn ready_at(&mut self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * CALLS_A_SECOND).min(CALLS_BURST);
        self.at = now;
        now + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / CALLS_A_SECOND)
    }

    fn take(&mut self, now: Instant) {
        self.ready_at(now);
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        for _ in 0..1200 {
            sleep_until(bucket.ready_at(Instant::now())).await;
            bucket.take(Instant::now());
        }
        let took = start.elapsed().as_secs_f64();
        assert!((9.5..12.5).contains(&took), "{took}"); // 1000 beyond the burst; sleeps are whole ms
    }
}
