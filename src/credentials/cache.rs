//! The keys of all tenants, and the thread that fetches them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backlog::Backlog;
use super::breaker::Breaker;
use super::call_state::Urgency;
use super::credential::{BadToken, Credential};
use super::entry::{CallRequest, Entry, KeyScope, KeySource};
use super::issue_error::{IssueError, NoKey};
use super::issuer::StsIssuer;
use super::issuers;
use super::lanes::{self, Lane};
use super::scopes::{Room, ScopeTable};
use super::shared::SharedKeys;
use crate::clock::Clock;
use crate::config::{Config, Grant, IssuerKind};
use crate::observe::CacheCounters;
use crate::secret::Secret;
use crate::tenant::Tenant;
use crate::tenant::policy::tenant_policy;
use crate::timestamp::Timestamp;
use crate::upstream::dial::Roots;

/// A key is given up this long before its end, or longer where COS may take longer to respond.
const MARGIN: Duration = Duration::from_secs(30);
/// When a new scope that finds no room may come back, at the soonest.
const BUSY: Duration = Duration::from_secs(2);

/// The keys of all tenants. Dropping the last that uses the thread ends it; keys that are there still serve.
#[derive(Debug)]
pub struct Cache {
    entries: Box<[Arc<Entry>]>,
    /// The issuer of each template.
    templates: Box<[usize]>,
    made: ScopeTable,
    issuing: Arc<Issuing>,
}

/// Where keys come from. It outlives a reload that changes no issuer.
#[derive(Debug)]
struct Issuing {
    maker: EntryMaker,
    issuers: Box<[Option<Arc<StsIssuer>>]>,
    roots: Option<Roots>,
    thread: Option<StsThread>,
}

/// What there was before a reload: the configuration, and its keys.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Its keys.
    pub cache: &'a Cache,
}

/// Makes entries.
#[derive(Debug)]
struct EntryMaker {
    /// For each issuer that calls no STS, its own key.
    permanent: Vec<Option<PermanentKey>>,
    /// One for each issuer.
    breakers: Vec<Arc<Breaker>>,
    /// One for each issuer.
    backlogs: Vec<Arc<Backlog>>,
    requests: mpsc::UnboundedSender<CallRequest>,
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
struct StsThread {
    stop: oneshot::Sender<()>,
    handle: JoinHandle<()>,
}

impl Cache {
    /// Starts the cache: an entry for each tenant of `config`, fenced by the policy (plain JSON) of
    /// the same index. No call is made before a tenant's first request.
    pub fn start(
        config: &Config,
        policies: Vec<String>,
        clock: &Arc<Clock>,
    ) -> Result<Self, StartError> {
        Self::start_after(None, config, policies, clock)
    }

    /// The same after a reload: keys of scopes that are the same, from issuers whose keys can do the same,
    /// are there already. Where no issuer changes, its calls and their pace go on.
    pub fn start_after(
        before: Option<Before<'_>>,
        config: &Config,
        policies: Vec<String>,
        clock: &Arc<Clock>,
    ) -> Result<Self, StartError> {
        if policies.len() != config.tenants.len() {
            return Err(StartError("each tenant needs one policy".to_owned()));
        }
        let roots = issuers::roots(config).map_err(StartError)?;
        let counters = before.map(|before| Arc::clone(before.cache.counters()));
        let counters = counters.unwrap_or_default();
        let issuing = match before.filter(|before| before.has_issuers_of(config, roots.as_ref())) {
            Some(before) => Arc::clone(&before.cache.issuing),
            None => Arc::new(Issuing::start(config, roots, clock, counters)?),
        };
        let succession = before.map(|before| Succession::new(before, config, &issuing));
        let mut entries = Vec::with_capacity(policies.len());
        for (tenant, policy) in config.tenants.iter().zip(policies) {
            let scope = KeyScope {
                tenant: tenant.name.clone(),
                policy,
                issuer: tenant.issuer,
            };
            let kept = succession.as_ref().and_then(|from| from.tenant(&scope));
            let made = || issuing.maker.entry(scope).map(Arc::new);
            let entry = kept.or_else(made).ok_or_else(|| no_issuer(&tenant.name))?;
            entries.push(entry);
        }
        let room = Room {
            entries: config.credential_entries,
            sessions_of_one: config.credential_session_policies,
        };
        let made = match &succession {
            None => ScopeTable::new(room),
            Some(from) => (from.before.cache.made).succeeded(room, |entry| from.subject(entry)),
        };
        Ok(Self {
            entries: entries.into(),
            templates: config.templates.iter().map(|t| t.issuer).collect(),
            made,
            issuing,
        })
    }

    /// The key of the tenant of this index in the configuration.
    pub fn entry(&self, tenant: usize) -> Option<&Arc<Entry>> {
        self.entries.get(tenant)
    }

    /// The keys of all tenants of the configuration.
    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The key of `tenant`, be it of the configuration or of a template.
    pub fn entry_of(&self, tenant: &Tenant) -> Result<Arc<Entry>, IssueError> {
        let own = self.entries.get(tenant.index);
        let is_narrowed = tenant.session_policy().is_some();
        if let Some(entry) = own.filter(|_| !is_narrowed) {
            return Ok(Arc::clone(entry));
        }
        let no_issuer = || IssueError::new(NoKey::Refused, "a tenant without an issuer", MARGIN);
        let of_template = || {
            let template = tenant.index.checked_sub(self.entries.len())?;
            self.templates.get(template).copied()
        };
        let issuer = own.map(|entry| entry.scope().issuer).or_else(of_template);
        let issuer = issuer.ok_or_else(no_issuer)?;
        let session_of = is_narrowed.then_some(tenant.name.as_str());
        let made = self.made.entry(&tenant.scope(), session_of, |permit| {
            let scope = KeyScope {
                tenant: tenant.name.clone(),
                policy: tenant_policy(tenant).json(),
                issuer,
            };
            self.issuing
                .maker
                .entry(scope)
                .map(|entry| entry.with_permit(permit))
        });
        made.ok_or_else(|| {
            // Room is made at the pace of the queue: the request can be sent again at some time within it.
            let backlog = self.issuing.maker.backlogs.get(issuer);
            let turn = backlog.map_or(BUSY, |backlog| backlog.turn_of(Urgency::First, None));
            let wait = turn.mul_f64(0.5 + 0.5 * fastrand::f64()).max(BUSY);
            let why = "no room for another scope ([credentials] entries, session_policies), or too many wait for their first key";
            let now = backlog.map(|backlog| backlog.describe()).unwrap_or_default();
            let why = if turn > BUSY { format!("{why}: {now}") } else { why.to_owned() };
            IssueError::new(NoKey::Queued, why, wait)
        })
    }

    /// Tenants with a live key.
    pub fn live_keys(&self) -> usize {
        let now = Instant::now();
        let made = self.made.sum(|entry| u64::from(entry.has_live(now)));
        let fixed = self.entries.iter().filter(|entry| entry.has_live(now));
        fixed.count() + usize::try_from(made).unwrap_or(usize::MAX)
    }

    /// When the first of the live keys ends.
    pub fn first_key_end(&self) -> Option<Timestamp> {
        let now = Instant::now();
        let ends = self
            .entries
            .iter()
            .filter_map(|entry| entry.live_key_end(now));
        let mut first = ends.min();
        self.made
            .each(|_, entry| first = first.into_iter().chain(entry.live_key_end(now)).min());
        first
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

    /// Scopes that were made for requests.
    pub(super) fn made(&self) -> &ScopeTable {
        &self.made
    }

    /// Those that call STS, at their index in the configuration; empty where none does.
    pub fn issuers(&self) -> &[Option<Arc<StsIssuer>>] {
        &self.issuing.issuers
    }

    /// One for each issuer.
    pub(super) fn breakers(&self) -> &[Arc<Breaker>] {
        &self.issuing.maker.breakers
    }

    /// The queue and the breaker of each issuer.
    pub(super) fn paces(&self) -> impl Iterator<Item = (&Arc<Backlog>, &Arc<Breaker>)> {
        let maker = &self.issuing.maker;
        maker.backlogs.iter().zip(&maker.breakers)
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<CacheCounters> {
        &self.issuing.maker.counters
    }

    /// Whether the keys of both come from the same issuers, which go on as they are.
    pub(super) fn shares_issuers(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.issuing, &other.issuing)
    }
}

impl Issuing {
    fn start(
        config: &Config,
        roots: Option<Roots>,
        clock: &Arc<Clock>,
        counters: Arc<CacheCounters>,
    ) -> Result<Self, StartError> {
        let (requests, requested) = mpsc::unbounded_channel();
        let maker = EntryMaker::new(config, requests, counters)?;
        let issuers = issuers::all(config, roots.as_ref(), clock, &maker.counters);
        let issuers = issuers.map_err(StartError)?;
        let made = issuers.clone();
        let thread = if issuers.iter().any(Option::is_some) {
            let backlogs = maker.backlogs.iter().cloned();
            let pace = backlogs.zip(maker.breakers.iter().cloned()).collect();
            let shared = config.credential_shared.as_ref();
            let shared = shared.map(|shared| SharedKeys::new(shared, Arc::clone(clock)));
            let shared = shared.transpose().map_err(StartError)?.map(Arc::new);
            let spawned = StsThread::spawn(issuers, pace, shared, requested);
            Some(spawned.map_err(|error| {
                StartError(format!("cannot start the thread that calls STS: {error}"))
            })?)
        } else {
            None
        };
        Ok(Self {
            maker,
            issuers: made.into(),
            roots,
            thread,
        })
    }

    /// What distinguishes the issuer at `index` from all whose keys can do other things; `None`: it makes none.
    fn identity(&self, index: usize) -> Option<&str> {
        let issuer = self.issuers.get(index)?.as_ref()?;
        Some(issuer.sharing_identity())
    }
}

impl Before<'_> {
    /// Whether everything that makes keys is as it was.
    fn has_issuers_of(&self, config: &Config, roots: Option<&Roots>) -> bool {
        let old = self.config;
        let has_roots = match (&self.cache.issuing.roots, roots) {
            (Some(old), Some(roots)) => old.is_like(roots),
            (old, roots) => old.is_none() && roots.is_none(),
        };
        has_roots
            && old.issuers == config.issuers
            && old.sts == config.sts
            && old.credential_shared == config.credential_shared
            && old.upstream.limits == config.upstream.limits
    }
}

/// What a reload takes over of the keys that were there.
struct Succession<'a> {
    before: Before<'a>,
    config: &'a Config,
    issuing: &'a Issuing,
    /// The indices that tenants had.
    tenants: HashMap<&'a str, usize>,
    /// The indices that they have.
    new_tenants: HashMap<&'a str, usize>,
    is_same_issuing: bool,
}

impl<'a> Succession<'a> {
    fn new(before: Before<'a>, config: &'a Config, issuing: &'a Arc<Issuing>) -> Self {
        let indices = |config: &'a Config| {
            let tenants = config.tenants.iter().enumerate();
            let named = tenants.map(|(index, tenant)| (tenant.name.as_str(), index));
            named.collect()
        };
        Self {
            before,
            config,
            issuing,
            tenants: indices(before.config),
            new_tenants: indices(config),
            is_same_issuing: Arc::ptr_eq(&before.cache.issuing, issuing),
        }
    }

    /// The entry of a tenant's `scope`, with the key that it had.
    fn tenant(&self, scope: &KeyScope) -> Option<Arc<Entry>> {
        let index = self.tenants.get(scope.tenant.as_str())?;
        let old = self.before.cache.entries.get(*index)?;
        let is_same = old.scope().policy == scope.policy;
        is_same.then(|| self.kept(old, scope.clone())).flatten()
    }

    /// The same of a scope that was made for a request: a subject of a template, or a session that is
    /// narrower than its tenant. What it was made of must be as it was.
    fn subject(&self, old: &Arc<Entry>) -> Option<Arc<Entry>> {
        let name = old.scope().tenant.as_str();
        let template = |config: &'a Config| {
            let name = name.split('/').next()?;
            let mut templates = config.templates.iter();
            let template = templates.find(|template| template.name == name)?;
            Some((template.grants.as_slice(), template.issuer))
        };
        let was = (self.before_tenant(name), template(self.before.config));
        let is = (self.new_tenant(name), template(self.config));
        // It is gone, or several look like it: then its key is fetched anew.
        let (((Some(was), None), (Some(is), None)) | ((None, Some(was)), (None, Some(is)))) =
            (was, is)
        else {
            return None;
        };
        let scope = KeyScope {
            issuer: is.1,
            ..old.scope().clone()
        };
        (was.0 == is.0).then(|| self.kept(old, scope)).flatten()
    }

    fn before_tenant(&self, name: &str) -> Option<(&'a [Grant], usize)> {
        let tenant = self.before.config.tenants.get(*self.tenants.get(name)?)?;
        Some((tenant.grants.as_slice(), tenant.issuer))
    }

    fn new_tenant(&self, name: &str) -> Option<(&'a [Grant], usize)> {
        let tenant = self.config.tenants.get(*self.new_tenants.get(name)?)?;
        Some((tenant.grants.as_slice(), tenant.issuer))
    }

    /// `old` itself, or another entry with its key, if the issuer's keys can do the same as before.
    fn kept(&self, old: &Arc<Entry>, scope: KeyScope) -> Option<Arc<Entry>> {
        let was = old.scope().issuer;
        if self.is_same_issuing {
            return (was == scope.issuer).then(|| Arc::clone(old));
        }
        let identity = self.issuing.identity(scope.issuer)?;
        if self.before.cache.issuing.identity(was) != Some(identity) {
            return None;
        }
        let entry = self.issuing.maker.entry(scope)?;
        entry.take_over(old);
        Some(Arc::new(entry))
    }
}

impl Drop for Issuing {
    fn drop(&mut self) {
        if let Some(StsThread { stop, handle }) = self.thread.take() {
            drop(stop);
            let _ = handle.join(); // it panicked: it is gone all the same
        }
    }
}

/// Why the cache does not start; the text says how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn no_issuer(tenant: &str) -> StartError {
    StartError(format!("tenants.{tenant}: its issuer is not configured"))
}

impl EntryMaker {
    fn new(
        config: &Config,
        requests: mpsc::UnboundedSender<CallRequest>,
        counters: Arc<CacheCounters>,
    ) -> Result<Self, StartError> {
        let mut permanent = Vec::with_capacity(config.issuers.len());
        for issuer in &config.issuers {
            let IssuerKind::Static(given) = &issuer.kind else {
                permanent.push(None);
                continue;
            };
            let key = PermanentKey {
                id: given.secret_id.value.expose().to_owned(),
                secret: given.secret_key.value.clone(),
                token: given.token.as_ref().map(|token| token.value.clone()),
            };
            key.credential()
                .map_err(|error| StartError(format!("issuers.{}: {error}", issuer.name)))?;
            permanent.push(Some(key));
        }
        Ok(Self {
            permanent,
            breakers: config
                .issuers
                .iter()
                .map(|_| Arc::new(Breaker::new()))
                .collect(),
            backlogs: config
                .issuers
                .iter()
                .map(|issuer| Arc::new(Backlog::new(&issuer.name, issuer.rate)))
                .collect(),
            requests,
            margin: MARGIN.max(config.upstream.limits.head_timeout),
            counters,
        })
    }

    /// `None` when there is no such issuer.
    fn entry(&self, scope: KeyScope) -> Option<Entry> {
        let counters = Arc::clone(&self.counters);
        match self.permanent.get(scope.issuer)? {
            None => {
                let source = KeySource {
                    requests: self.requests.clone(),
                    breaker: Arc::clone(self.breakers.get(scope.issuer)?),
                    backlog: Arc::clone(self.backlogs.get(scope.issuer)?),
                };
                Some(Entry::new(scope, source, self.margin, counters))
            }
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

impl StsThread {
    fn spawn(
        issuers: Vec<Option<Arc<StsIssuer>>>,
        pace: Vec<(Arc<Backlog>, Arc<Breaker>)>,
        shared: Option<Arc<SharedKeys>>,
        requests: mpsc::UnboundedReceiver<CallRequest>,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = std::thread::Builder::new()
            .name("sts".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let lanes =
                        issuers
                            .into_iter()
                            .zip(pace)
                            .map(|(issuer, (backlog, breaker))| {
                                issuer.map(|issuer| lane(issuer, backlog, breaker, shared.clone()))
                            });
                    let lanes = lanes.collect();
                    tokio::select! {
                        _ = stopped => {}
                        () = lanes::dispatch(lanes, requests) => {}
                    }
                });
                runtime.shutdown_background(); // a look-up that hangs must not hold us
            })?;
        Ok(Self { stop, handle })
    }
}

/// Makes the calls of `issuer`.
fn lane(
    issuer: Arc<StsIssuer>,
    backlog: Arc<Backlog>,
    breaker: Arc<Breaker>,
    shared: Option<Arc<SharedKeys>>,
) -> Lane {
    Lane::start(backlog, breaker, move |entry| {
        let (issuer, shared) = (Arc::clone(&issuer), shared.clone());
        async move {
            let scope = entry.scope();
            let call = issuer.issue(&scope.tenant, &scope.policy);
            match shared {
                Some(shared) => shared.issue(&entry, issuer.sharing_identity(), call).await,
                None => call.await,
            }
        }
    })
}
