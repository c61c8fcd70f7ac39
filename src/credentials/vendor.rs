//! Keys that are handed to clients: never the proxy's own, and none with little time left.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::Credential;
use super::breaker::Breaker;
use super::cache::{Cache, CacheCounters};
use super::entry::{IssueError, NoKey};
use super::issuer::Issuer;
use super::sts::{StsClass, StsError};
use crate::config::{CallRate, Config, TenantLimits};
use crate::s3::{Code, S3Error};
use crate::shape;
use crate::tenant::Tenant;
use crate::tenant::limits::{Limited, Limits};

/// A key with less left is not handed out: AWS's SDKs ask again and again for one with under 15 minutes.
const LEAST_LEFT: Duration = Duration::from_mins(20);
/// The least that a client may ask for, in seconds.
const SHORTEST: u64 = 1800;
/// Calls in a second for one tenant, or all subjects of one template; and at once, after a rest.
const OFFER_RATE: (u64, u64) = (20, 40);
/// The same for one issuer, beside the proxy's own, which it does not exceed. Tencent allows an account
/// 600 (1312/48195).
const ISSUER_RATE: (u64, u64) = (50, 100);
/// Calls of one issuer under way.
const UNDER_WAY: u64 = 32;
/// Requests of one tenant that wait for a key at once.
const WAITERS: usize = 1024;
/// How long a request waits for a key.
const WAIT: Duration = Duration::from_secs(5);
/// When who got no key may come back.
const COME_BACK: Duration = Duration::from_secs(5);
/// Between two calls for a tenant's whole scope: after a failure that may pass, and after one that stands.
const CALL_GAP: Duration = Duration::from_secs(1);
const REFUSAL: Duration = Duration::from_secs(30);

/// Gets keys for those tenants whose clients may have some.
pub struct Vendor {
    /// For each tenant, then each template.
    offers: Box<[Option<Arc<Offer>>]>,
    issuers: HashMap<usize, Arc<Lane>>,
}

impl fmt::Debug for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vendor")
            .field("offers", &self.offers.iter().flatten().count())
            .finish_non_exhaustive()
    }
}

/// What the calls of one issuer have in common.
struct Lane {
    issuer: Arc<Issuer>,
    limits: Option<Arc<Limits>>,
    /// Shared with the proxy's own calls.
    breaker: Arc<Breaker>,
    /// One call at a time finds out whether STS is back.
    probe: Semaphore,
    counters: Arc<CacheCounters>,
}

/// What a tenant's clients may have.
pub struct Offer {
    issuer: usize,
    longest: Duration,
    limits: Option<Arc<Limits>>,
    places: Arc<Semaphore>,
    /// The last key of the whole scope; `None` for a template, whose subjects differ. Held over a call.
    kept: Option<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    vended: Option<Vended>,
    failure: Option<Failure>,
}

#[derive(Clone)]
struct Failure {
    error: IssueError,
    /// Who has waited since before this, and who comes before the other, is told the same.
    at: Instant,
    until: Instant,
}

/// A key to be handed out.
#[derive(Clone)]
pub struct Vended {
    /// The key.
    pub key: Arc<Credential>,
    /// Until when, less what must be left, it is handed out.
    until: Instant,
}

impl Vendor {
    /// For the tenants and templates of `config` that have `vend`, by the issuers of `cache`.
    pub fn new(config: &Config, cache: &Cache) -> Self {
        let tenants = config.tenants.iter();
        let tenants = tenants.map(|tenant| (tenant.issuer, tenant.vend.as_ref(), true));
        let templates = config.templates.iter();
        let templates = templates.map(|template| (template.issuer, template.vend.as_ref(), false));
        let mut issuers = HashMap::new();
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
                Arc::new(Lane {
                    issuer: Arc::clone(issuer),
                    limits: limits(of_issuer(rate), Some(UNDER_WAY)),
                    breaker: Arc::clone(breaker),
                    probe: Semaphore::new(1),
                    counters: Arc::clone(cache.counters()),
                })
            });
            offers.push(Some(Arc::new(Offer {
                issuer: index,
                longest: vend.duration,
                limits: limits(OFFER_RATE, None),
                places: Arc::new(Semaphore::new(WAITERS)),
                kept: is_tenant.then(Mutex::default),
            })));
        }
        Self {
            offers: offers.into(),
            issuers,
        }
    }

    /// What the clients of `tenant` may have.
    pub fn offer(&self, tenant: &Tenant) -> Result<Arc<Offer>, S3Error> {
        let offer = self.offers.get(tenant.index).and_then(Option::as_ref);
        offer.cloned().ok_or_else(|| {
            S3Error::new(
                Code::AccessDenied,
                "Access Denied: no keys are handed out here; set vend = true for the tenant.",
            )
        })
    }

    /// A key of `tenant` that `policy` fences, within five seconds. One of the whole scope is handed out
    /// again while enough of its time is left; every other is fetched anew. Who leaves cancels no call.
    pub async fn key(
        &self,
        offer: &Arc<Offer>,
        tenant: &Tenant,
        policy: String,
        duration: Duration,
        is_whole: bool,
    ) -> Result<Vended, S3Error> {
        let lane = self.issuers.get(&offer.issuer);
        let error = |reason, why: &str| S3Error::from(IssueError::new(reason, why, COME_BACK));
        let lane = lane.ok_or_else(|| error(NoKey::Refused, "it has no issuer"))?;
        let wanted = Wanted {
            lane: Arc::clone(lane),
            offer: Arc::clone(offer),
            tenant: tenant.name.clone(),
            policy,
            duration,
        };
        let place = Arc::clone(&offer.places).try_acquire_owned();
        let place = place.map_err(|_| error(NoKey::Busy, "too many requests wait for a key"))?;
        let call = tokio::spawn(async move {
            let _place = place;
            match wanted.offer.kept.as_ref().filter(|_| is_whole) {
                Some(kept) => wanted.whole(kept).await,
                None => wanted.fetch().await.map_err(|failure| failure.error),
            }
        });
        match timeout(WAIT, call).await {
            Ok(Ok(Ok(vended))) => {
                lane.counters.vended.fetch_add(1, Ordering::Relaxed);
                Ok(vended)
            }
            Ok(Ok(Err(failure))) => Err(failure.into()),
            Ok(Err(_)) => Err(error(NoKey::Unavailable, "the call was not finished")),
            Err(_) => Err(error(NoKey::Unreachable, "STS gave no answer in time")),
        }
    }
}

/// A key that somebody asks for.
struct Wanted {
    lane: Arc<Lane>,
    offer: Arc<Offer>,
    tenant: String,
    policy: String,
    duration: Duration,
}

impl Wanted {
    /// The key that all askers of the tenant share: one call, whose end all hear that wait for it.
    async fn whole(&self, kept: &Mutex<Kept>) -> Result<Vended, IssueError> {
        let asked = Instant::now();
        let mut kept = kept.lock().await;
        let now = Instant::now();
        if let Some(vended) = kept.vended.as_ref().filter(|vended| now < vended.until) {
            return Ok(vended.clone());
        }
        if let Some(failure) = &kept.failure
            && (asked < failure.at || now < failure.until)
        {
            return Err(failure.error.clone());
        }
        match self.fetch().await {
            Ok(vended) => {
                (kept.vended, kept.failure) = (Some(vended.clone()), None);
                Ok(vended)
            }
            Err(failure) => {
                kept.failure = Some(failure.clone());
                Err(failure.error)
            }
        }
    }

    async fn fetch(&self) -> Result<Vended, Failure> {
        let lane = &self.lane;
        let begun = Instant::now();
        if let Some(until) = lane.breaker.open_until(begun) {
            let why = "calls to STS are held back, since most have failed";
            return Err(Failure::new(NoKey::Unreachable, why, until - begun));
        }
        let is_probe = lane.breaker.is_half_open(begun);
        let probe = is_probe.then(|| lane.probe.try_acquire()).transpose();
        let _probe = probe.map_err(|_| {
            let why = "one call finds out whether STS is back";
            Failure::new(NoKey::Unreachable, why, CALL_GAP)
        })?;
        let now = shape::now();
        let admit = |limits: &Arc<Limits>| {
            limits.admit(now).map_err(|limited| {
                let wait = match limited {
                    Limited::Concurrency => CALL_GAP,
                    Limited::Rate(wait) => wait,
                };
                Failure::new(NoKey::Busy, "too many keys are requested", wait)
            })
        };
        let of_offer = self.offer.limits.as_ref().map(admit).transpose()?;
        let of_issuer = lane.limits.as_ref().map(admit).transpose()?;
        let _slots = (of_offer, of_issuer); // until STS has answered
        let call = (lane.issuer).issue_for(&self.tenant, &self.policy, self.duration);
        let result = call.await;
        lane.breaker.hear(&result, begun, &lane.counters);
        let issued = result.map_err(|error| Failure::of(&error))?;
        let left = issued.life.saturating_sub(LEAST_LEFT);
        if left.is_zero() {
            let life = issued.life.as_secs();
            let why = format!("STS gave a key of {life} s, which is too short");
            return Err(Failure::new(NoKey::Unavailable, why, COME_BACK));
        }
        let key = Credential::issued(issued);
        let key =
            key.map_err(|error| Failure::new(NoKey::Unavailable, error.to_string(), COME_BACK))?;
        Ok(Vended {
            key: Arc::new(key),
            until: begun + left,
        })
    }
}

impl Failure {
    /// One that the next call may not meet.
    fn new(reason: NoKey, why: impl Into<String>, wait: Duration) -> Self {
        Self::standing(IssueError::new(reason, why, wait), Duration::ZERO)
    }

    fn of(error: &StsError) -> Self {
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
        let at = Instant::now();
        Self {
            error,
            at,
            until: at + stands,
        }
    }
}

impl Offer {
    /// How long a key shall live for which so many seconds were `asked`.
    pub fn duration(&self, asked: Option<u64>) -> Result<Duration, S3Error> {
        let Some(asked) = asked else {
            return Ok(self.longest);
        };
        let longest = self.longest.as_secs();
        if (SHORTEST..=longest).contains(&asked) {
            return Ok(Duration::from_secs(asked));
        }
        Err(S3Error::new(
            Code::InvalidArgument,
            format!("durationSeconds must be {SHORTEST} to {longest} here."),
        ))
    }
}

/// Who lets an issuer call less often than is usual means these calls too.
fn of_issuer(rate: CallRate) -> (u64, u64) {
    let (most, burst) = ISSUER_RATE;
    (
        most.min(rate.per_second.into()),
        burst.min(rate.burst.into()),
    )
}

fn limits((rate, burst): (u64, u64), under_way: Option<u64>) -> Option<Arc<Limits>> {
    Limits::new(&TenantLimits {
        requests_per_second: Some(rate),
        burst: Some(burst),
        concurrent_requests: under_way,
        ..TenantLimits::default()
    })
}
