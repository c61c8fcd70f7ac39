//! Keys that are handed out to clients: never the proxy's own, and none that expires soon.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant, timeout};

use super::breaker::Breaker;
use super::cache::{Before, Cache};
use super::issue_error::{IssueError, NoKey};
use super::issuer::StsIssuer;
use super::single_flight::{Flight, Unfinished};
use super::sts::{StsClass, StsError};
use super::turns::{Turn, TurnCaller, Turns};
use super::whole_keys::{SubjectKeys, Vended, WholeKey};
use crate::body::shape;
use crate::config::{CallRate, Config, TenantLimits};
use crate::error::{Code, S3Error};
use crate::observe::CacheCounters;
use crate::tenant::Tenant;
use crate::tenant::limits::{Limited, Limits};
use crate::tenant::subject_limits::SubjectLimits;

/// A key with less left is not handed out: AWS's SDKs replace keys with under 15 minutes left again and again.
const LEAST_LEFT: Duration = Duration::from_mins(20);
/// The shortest life that a client may request, in seconds.
const SHORTEST: u64 = 1800;
/// Calls in a second for one tenant, or one subject of a template; and at once, after a rest.
const CALLER_RATE: (u64, u64) = (20, 40);
/// The same for one issuer, beside the proxy's own, which it does not exceed. Tencent allows an account
/// 600 (1312/48195).
const ISSUER_RATE: CallRate = CallRate {
    per_second: 50,
    burst: 100,
};
/// Limit of one issuer's calls in flight.
const CALLS_IN_FLIGHT: usize = 32;
/// How long a request waits for a key, and how long of that until its call's turn.
const WAIT: Duration = Duration::from_secs(5);
const TURN_WAIT: Duration = Duration::from_secs(4);
/// The `Retry-After` of a request that gets no key.
const COME_BACK: Duration = Duration::from_secs(5);
/// Between two calls for a tenant's whole scope: after a failure that may pass, and after one that stands.
const CALL_GAP: Duration = Duration::from_secs(1);
const REFUSAL: Duration = Duration::from_secs(30);

/// Gets keys for the clients of tenants that allow it.
pub struct Vendor {
    /// For each tenant, then each template.
    offers: Box<[Option<Arc<Offer>>]>,
    issuers: HashMap<usize, Arc<VendIssuer>>,
}

impl fmt::Debug for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vendor")
            .field("offers", &self.offers.iter().flatten().count())
            .finish_non_exhaustive()
    }
}

/// What the calls of one issuer have in common.
struct VendIssuer {
    issuer: Arc<StsIssuer>,
    turns: Arc<Turns>,
    /// Shared with the proxy's own calls.
    breaker: Arc<Breaker>,
    /// One call at a time finds out whether STS is back.
    probe: Semaphore,
    counters: Arc<CacheCounters>,
}

/// What a key that is handed out can do.
pub struct VendedScope {
    /// The policy that fences it, plain JSON.
    pub policy: String,
    /// How long it lives.
    pub duration: Duration,
    /// It is all that the tenant's clients can have: one key serves many requests.
    pub is_whole: bool,
}

/// What a tenant's clients may have.
pub struct Offer {
    issuer: usize,
    longest: Duration,
    callers: Callers,
}

/// What is counted and kept for the callers.
enum Callers {
    /// A tenant of the configuration.
    One {
        limits: Option<Arc<Limits>>,
        kept: Arc<WholeKey>,
    },
    /// The subjects of a template.
    Many {
        limits: Option<Arc<SubjectLimits>>,
        kept: SubjectKeys,
    },
}

/// Why a client gets no key.
struct VendFailure {
    error: IssueError,
    /// For so long no call is made.
    stands: Duration,
}

impl Vendor {
    /// For the tenants and templates of `config` that have `vend`, by the issuers of `cache`.
    /// After a reload that changes no issuer `before` is what there was: tenants whose keys can do the same
    /// keep them, and what is counted of them.
    pub fn new(config: &Config, cache: &Cache, before: Option<(Before<'_>, &Self)>) -> Self {
        let before = before.filter(|(before, _)| before.cache.shares_issuers(cache));
        let kept = before.map(|(before, vendor)| vendor.offers_kept(before, config, cache));
        let mut kept = kept.unwrap_or_default();
        let tenants = config.tenants.iter();
        let tenants = tenants.map(|tenant| (tenant.issuer, tenant.vend.as_ref(), true));
        let templates = config.templates.iter();
        let templates = templates.map(|template| (template.issuer, template.vend.as_ref(), false));
        let mut issuers = before.map_or_else(HashMap::new, |(_, vendor)| vendor.issuers.clone());
        let mut offers = Vec::new();
        for (index, vend, is_tenant) in tenants.chain(templates) {
            // A static issuer has none.
            let issuer = cache.issuers().get(index).and_then(Option::as_ref);
            let breaker = cache.breakers().get(index);
            let rate = config.issuers.get(index).map(|issuer| issuer.rate);
            let (Some(vend), Some(issuer), Some(breaker), Some(rate)) =
                (vend, issuer, breaker, rate)
            else {
                offers.push(None);
                continue;
            };
            issuers.entry(index).or_insert_with(|| {
                Arc::new(VendIssuer {
                    issuer: Arc::clone(issuer),
                    turns: Turns::new(of_issuer(rate), CALLS_IN_FLIGHT, TURN_WAIT),
                    breaker: Arc::clone(breaker),
                    probe: Semaphore::new(1),
                    counters: Arc::clone(cache.counters()),
                })
            });
            let offer = kept.remove(&offers.len()).unwrap_or_else(|| {
                Arc::new(Offer {
                    issuer: index,
                    longest: vend.duration,
                    callers: Callers::new(is_tenant),
                })
            });
            offers.push(Some(offer));
        }
        Self {
            offers: offers.into(),
            issuers,
        }
    }

    /// The offers of this one that are the same for `config`, by their index there.
    fn offers_kept(
        &self,
        before: Before<'_>,
        config: &Config,
        cache: &Cache,
    ) -> HashMap<usize, Arc<Offer>> {
        let old = before.config;
        let was: HashMap<&str, usize> = (old.tenants.iter().enumerate())
            .map(|(index, tenant)| (tenant.name.as_str(), index))
            .collect();
        let tenants = config.tenants.iter().enumerate();
        let tenants = tenants.filter_map(|(index, tenant)| {
            let was = *was.get(tenant.name.as_str())?;
            let is_same = old.tenants.get(was)?.vend == tenant.vend
                && Arc::ptr_eq(before.cache.entry(was)?, cache.entry(index)?);
            is_same.then_some((index, was))
        });
        let templates = config.templates.iter().enumerate();
        let templates = templates.filter_map(|(index, template)| {
            let was = old.templates.iter().position(|old| {
                old.name == template.name
                    && old.vend == template.vend
                    && old.grants == template.grants
                    && old.issuer == template.issuer
            })?;
            Some((config.tenants.len() + index, old.tenants.len() + was))
        });
        let offer = |was: usize| self.offers.get(was)?.clone();
        tenants
            .chain(templates)
            .filter_map(|(index, was)| Some((index, offer(was)?)))
            .collect()
    }

    /// What the clients of `tenant` may have.
    pub fn offer(&self, tenant: &Tenant) -> Result<Arc<Offer>, S3Error> {
        let offer = self.offers.get(tenant.index).and_then(Option::as_ref);
        offer.cloned().ok_or_else(|| {
            S3Error::new(
                Code::AccessDenied,
                "Access Denied: you cannot get temporary keys. Ask the operator to set vend = true for your tenant.",
            )
        })
    }

    /// A key of `tenant` for `scope`, within five seconds. One of the whole scope is handed out again
    /// while enough of its life is left; every other is fetched anew. A request that is cancelled cancels
    /// no call, and gives up its place in the queue for a key of its own.
    pub async fn key(
        &self,
        offer: &Arc<Offer>,
        tenant: &Tenant,
        scope: VendedScope,
    ) -> Result<Vended, S3Error> {
        let error = |reason, why: &str| IssueError::new(reason, why, COME_BACK);
        let issuer = self.issuers.get(&offer.issuer);
        let issuer = issuer.ok_or_else(|| error(NoKey::Refused, "it has no issuer"))?;
        let call = Arc::new(VendCall {
            issuer: Arc::clone(issuer),
            offer: Arc::clone(offer),
            caller: TurnCaller {
                offer: tenant.index,
                name: tenant.name.as_str().into(),
            },
            scope,
        });
        let vended = async {
            if call.scope.is_whole {
                call.whole().await
            } else {
                call.narrow().await
            }
        };
        let silent = |_| error(NoKey::Unreachable, "STS gave no response in time");
        let vended = timeout(WAIT, vended).await.map_err(silent)??;
        issuer.counters.vended.fetch_add(1, Ordering::Relaxed);
        Ok(vended)
    }
}

impl Callers {
    fn new(is_tenant: bool) -> Self {
        let (rate, burst) = CALLER_RATE;
        let limits = TenantLimits {
            requests_per_second: Some(rate),
            burst: Some(burst),
            ..TenantLimits::default()
        };
        if is_tenant {
            return Self::One {
                limits: Limits::new(&limits),
                kept: WholeKey::of_tenant(),
            };
        }
        Self::Many {
            limits: SubjectLimits::new(&limits),
            kept: SubjectKeys::default(),
        }
    }

    /// How often the caller of this name may have STS called.
    fn limits(&self, name: &str, now: Duration) -> Option<Arc<Limits>> {
        match self {
            Self::One { limits, .. } => limits.clone(),
            Self::Many { limits, .. } => Some(limits.as_ref()?.of(name, now)),
        }
    }

    /// The key of the whole scope of the caller of this name; `None` when there is no room for it.
    fn whole(&self, name: &str) -> Option<Arc<WholeKey>> {
        match self {
            Self::One { kept, .. } => Some(Arc::clone(kept)),
            Self::Many { kept, .. } => kept.of(name),
        }
    }
}

/// A call for one key.
struct VendCall {
    issuer: Arc<VendIssuer>,
    offer: Arc<Offer>,
    caller: TurnCaller,
    scope: VendedScope,
}

impl VendCall {
    /// A key that is handed out once.
    async fn narrow(self: &Arc<Self>) -> Result<Vended, IssueError> {
        let turn = self.turn().await.map_err(|failure| failure.error)?;
        let call = Arc::clone(self);
        let called = tokio::spawn(async move { call.call(turn).await });
        let called = called.await.map_err(|_| Unfinished)?;
        called.map_err(|failure| failure.error)
    }

    /// The key that all requests of the tenant or subject share.
    async fn whole(self: &Arc<Self>) -> Result<Vended, IssueError> {
        let crowded =
            || IssueError::new(NoKey::Busy, "too many requests wait for a key", COME_BACK);
        let whole = self.offer.callers.whole(&self.caller.name);
        let whole = whole.ok_or_else(crowded)?;
        if let Some(vended) = whole.calls.kept(Vended::is_live) {
            return Ok(vended); // however many wait
        }
        let _slot = whole.slots.try_acquire().map_err(|_| crowded())?;
        let start = |flight: Flight<Vended, IssueError>| {
            let (call, whole) = (Arc::clone(self), Arc::clone(&whole));
            tokio::spawn(async move {
                let result = match call.turn().await {
                    Ok(turn) => call.call(turn).await,
                    Err(failure) => Err(failure),
                };
                flight.finish(result.map_err(|failure| (failure.error, failure.stands)));
                drop(whole); // until now it makes no room for another
            });
        };
        whole.calls.share(Vended::is_live, start).await
    }

    /// Waits until STS may be called.
    async fn turn(&self) -> Result<Turn, VendFailure> {
        let issuer = &self.issuer;
        issuer.check_open()?;
        let busy = |wait| VendFailure::new(NoKey::Busy, "too many keys are requested", wait);
        let now = shape::now();
        // Calls for a whole scope are a second apart: other calls do not count against them.
        let limits = self.offer.callers.limits(&self.caller.name, now);
        if let Some(limits) = limits.filter(|_| !self.scope.is_whole) {
            limits.admit(now).map_err(|limited| {
                busy(match limited {
                    Limited::Concurrency => CALL_GAP,
                    Limited::Rate(wait) => wait,
                })
            })?;
        }
        let turn = issuer.turns.turn(&self.caller, self.scope.is_whole).await;
        turn.map_err(busy)
    }

    /// Calls STS, and gives `turn` back when STS has responded.
    async fn call(&self, turn: Turn) -> Result<Vended, VendFailure> {
        let (issuer, _turn) = (&self.issuer, turn);
        let began = Instant::now();
        issuer.check_open()?;
        let is_probe = issuer.breaker.is_half_open(began);
        let probe = is_probe.then(|| issuer.probe.try_acquire()).transpose();
        let _probe = probe.map_err(|_| {
            let why = "one call finds out whether STS is back";
            VendFailure::new(NoKey::Unreachable, why, CALL_GAP)
        })?;
        let VendedScope {
            policy, duration, ..
        } = &self.scope;
        let call = (issuer.issuer).issue_for(&self.caller.name, policy, *duration);
        let result = call.await;
        issuer
            .breaker
            .record_result(issuer.issuer.name(), &result, began, &issuer.counters);
        let made = result.map_err(|error| VendFailure::of(&error, self.scope.is_whole))?;
        let left = made.life.saturating_sub(LEAST_LEFT);
        let unfit = |why| {
            let error = IssueError::new(NoKey::Unavailable, why, COME_BACK);
            VendFailure::standing(error, CALL_GAP)
        };
        if left.is_zero() {
            let life = made.life.as_secs();
            return Err(unfit(format!(
                "STS gave a key of {life} s, which is too short"
            )));
        }
        let key = made.credential();
        let key = key.map_err(|error| unfit(error.to_string()))?;
        Ok(Vended {
            key: Arc::new(key),
            until: began + left,
        })
    }
}

impl VendIssuer {
    fn check_open(&self) -> Result<(), VendFailure> {
        let now = Instant::now();
        let Some(until) = self.breaker.open_until(now) else {
            return Ok(());
        };
        let why = "calls to STS are held back, since most have failed";
        Err(VendFailure::new(NoKey::Unreachable, why, until - now))
    }
}

impl VendFailure {
    /// One that the next call may not meet.
    fn new(reason: NoKey, why: impl Into<String>, wait: Duration) -> Self {
        Self::standing(IssueError::new(reason, why, wait), Duration::ZERO)
    }

    fn of(error: &StsError, is_whole: bool) -> Self {
        if !is_whole && error.is_of_long_policy() {
            return Self::new(NoKey::LongPolicy, error.to_string(), COME_BACK);
        }
        let stands = match error.class {
            StsClass::ConfigWrong | StsClass::NotAllowed => REFUSAL,
            // The issuer remembers what key was refused: only another one makes a call.
            StsClass::Clock | StsClass::IssuerBroken | StsClass::Retry | StsClass::Unknown => {
                CALL_GAP
            }
        };
        Self::standing(IssueError::of(error, COME_BACK), stands)
    }

    fn standing(error: IssueError, stands: Duration) -> Self {
        Self { error, stands }
    }
}

impl Offer {
    /// The life of a key for which a client requests so many seconds.
    pub fn duration(&self, requested: Option<u64>) -> Result<Duration, S3Error> {
        let Some(requested) = requested else {
            return Ok(self.longest);
        };
        let longest = self.longest.as_secs();
        if (SHORTEST..=longest).contains(&requested) {
            return Ok(Duration::from_secs(requested));
        }
        Err(S3Error::new(
            Code::InvalidArgument,
            format!("durationSeconds must be {SHORTEST} to {longest} here."),
        ))
    }
}

/// A configured rate below the usual one limits these calls too.
fn of_issuer(rate: CallRate) -> CallRate {
    CallRate {
        per_second: ISSUER_RATE.per_second.min(rate.per_second),
        burst: ISSUER_RATE.burst.min(rate.burst),
    }
}
