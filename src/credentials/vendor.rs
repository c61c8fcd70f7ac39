//! Keys that are handed to clients: never the proxy's own, and none with little time left.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::Credential;
use super::breaker::Breaker;
use super::cache::Cache;
use super::entry::{IssueError, NoKey};
use super::issuer::Issuer;
use super::sts::{StsClass, StsError};
use super::turns::{Caller, Turn, Turns};
use crate::body::shape;
use crate::config::{CallRate, Config, TenantLimits};
use crate::error::{Code, S3Error};
use crate::observe::CacheCounters;
use crate::tenant::Tenant;
use crate::tenant::limits::{Limited, Limits};
use crate::tenant::subject_limits::SubjectLimits;

/// A key with less left is not handed out: AWS's SDKs ask again and again for one with under 15 minutes.
const LEAST_LEFT: Duration = Duration::from_mins(20);
/// The least that a client may ask for, in seconds.
const SHORTEST: u64 = 1800;
/// Calls in a second for one tenant, or one subject of a template; and at once, after a rest.
const CALLER_RATE: (u64, u64) = (20, 40);
/// The same for one issuer, beside the proxy's own, which it does not exceed. Tencent allows an account
/// 600 (1312/48195).
const ISSUER_RATE: CallRate = CallRate {
    per_second: 50,
    burst: 100,
};
/// Calls of one issuer under way.
const UNDER_WAY: usize = 32;
/// Requests of one tenant, and of one subject of a template, that wait for a key of the whole scope.
const WAITERS: usize = 1024;
const SUBJECT_WAITERS: usize = 64;
/// Subjects of one template whose keys of the whole scope are kept.
const SUBJECTS: usize = 4096;
/// At so many of them is looked for one that makes room.
const LOOKED_AT: usize = 16;
/// How long a request waits for a key, and how long of that until its call's turn.
const WAIT: Duration = Duration::from_secs(5);
const TURN_WAIT: Duration = Duration::from_secs(4);
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
    turns: Arc<Turns>,
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
    callers: Callers,
}

/// What is counted and kept of those who ask.
enum Callers {
    /// A tenant of the configuration.
    One {
        limits: Option<Arc<Limits>>,
        kept: Arc<Whole>,
    },
    /// The subjects of a template.
    Many {
        limits: Option<Arc<SubjectLimits>>,
        kept: SubjectKeys,
    },
}

/// The last key of one tenant's or subject's whole scope.
struct Whole {
    /// Held over a call.
    kept: Mutex<Kept>,
    /// For requests that wait for it.
    places: Arc<Semaphore>,
}

/// Those of a template's subjects. The first that nobody has used since makes room.
#[derive(Default)]
struct SubjectKeys(std::sync::Mutex<SubjectTable>);

#[derive(Default)]
struct SubjectTable {
    by_name: HashMap<Arc<str>, (Arc<Whole>, bool)>,
    order: VecDeque<Arc<str>>,
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
                    turns: Turns::new(of_issuer(rate), UNDER_WAY, TURN_WAIT),
                    breaker: Arc::clone(breaker),
                    probe: Semaphore::new(1),
                    counters: Arc::clone(cache.counters()),
                })
            });
            offers.push(Some(Arc::new(Offer {
                issuer: index,
                longest: vend.duration,
                callers: Callers::new(is_tenant),
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
    /// again while enough of its time is left; every other is fetched anew. Who leaves cancels no call,
    /// and gives up a place in the queue for a key of their own.
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
        let crowded = || error(NoKey::Busy, "too many requests wait for a key");
        let wanted = Wanted {
            lane: Arc::clone(lane),
            offer: Arc::clone(offer),
            caller: Caller {
                offer: tenant.index,
                name: tenant.name.as_str().into(),
            },
            policy,
            duration,
            is_whole,
        };
        let unfinished = |_| error(NoKey::Unavailable, "the call was not finished");
        let call = async move {
            if !is_whole {
                let turn = wanted.turn().await?;
                let call = tokio::spawn(async move { wanted.call(turn).await });
                return Ok(call.await.map_err(unfinished)??);
            }
            let whole = wanted.offer.callers.whole(&tenant.name);
            let whole = whole.ok_or_else(crowded)?;
            if let Some(vended) = whole.live() {
                return Ok(vended); // whatever waits, and whatever STS says
            }
            let place = Arc::clone(&whole.places).try_acquire_owned();
            let place = place.map_err(|_| crowded())?;
            let call = tokio::spawn(async move {
                let _place = place;
                wanted.whole(&whole.kept).await
            });
            Ok::<_, S3Error>(call.await.map_err(unfinished)??)
        };
        let silent = |_| error(NoKey::Unreachable, "STS gave no answer in time");
        let vended = timeout(WAIT, call).await.map_err(silent)??;
        lane.counters.vended.fetch_add(1, Ordering::Relaxed);
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
                kept: Whole::with_room(WAITERS),
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
    fn whole(&self, name: &str) -> Option<Arc<Whole>> {
        match self {
            Self::One { kept, .. } => Some(Arc::clone(kept)),
            Self::Many { kept, .. } => kept.of(name, SUBJECTS),
        }
    }
}

impl Whole {
    fn with_room(waiters: usize) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            places: Arc::new(Semaphore::new(waiters)),
        })
    }

    /// The key, if it is there and nobody is at it.
    fn live(&self) -> Option<Vended> {
        self.kept.try_lock().ok()?.live(Instant::now())
    }
}

impl SubjectKeys {
    fn of(&self, name: &str, most: usize) -> Option<Arc<Whole>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((whole, is_used)) = table.by_name.get_mut(name) {
            *is_used = true;
            return Some(Arc::clone(whole));
        }
        if table.by_name.len() >= most && !table.make_room() {
            return None;
        }
        let (name, whole) = (Arc::<str>::from(name), Whole::with_room(SUBJECT_WAITERS));
        table.order.push_back(Arc::clone(&name));
        table.by_name.insert(name, (Arc::clone(&whole), false));
        Some(whole)
    }
}

impl SubjectTable {
    /// Drops one that no request holds: the first that was not used since it was last looked at, else
    /// the last of those that are looked at. Gives false when there is none.
    fn make_room(&mut self) -> bool {
        for left in (0..LOOKED_AT).rev() {
            let Some(name) = self.order.pop_front() else {
                return false;
            };
            let spared = self.by_name.get_mut(&name).is_some_and(|(whole, is_used)| {
                let is_held = Arc::strong_count(whole) > 1;
                is_held || (std::mem::take(is_used) && left > 0)
            });
            if !spared {
                self.by_name.remove(&name);
                return true;
            }
            self.order.push_back(name);
        }
        false
    }
}

impl Kept {
    fn live(&self, now: Instant) -> Option<Vended> {
        let live = |vended: &&Vended| now < vended.until;
        self.vended.as_ref().filter(live).cloned()
    }
}

/// A key that somebody asks for.
struct Wanted {
    lane: Arc<Lane>,
    offer: Arc<Offer>,
    caller: Caller,
    policy: String,
    duration: Duration,
    is_whole: bool,
}

impl Wanted {
    /// The key that all askers of the tenant share: one call, whose end all hear that wait for it.
    async fn whole(&self, kept: &Mutex<Kept>) -> Result<Vended, IssueError> {
        let asked = Instant::now();
        let mut kept = kept.lock().await;
        let now = Instant::now();
        if let Some(vended) = kept.live(now) {
            return Ok(vended);
        }
        if let Some(failure) = &kept.failure
            && (asked < failure.at || now < failure.until)
        {
            return Err(failure.error.clone());
        }
        let fetched = match self.turn().await {
            Ok(turn) => self.call(turn).await,
            Err(failure) => Err(failure),
        };
        match fetched {
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

    /// Waits until STS may be called.
    async fn turn(&self) -> Result<Turn, Failure> {
        let lane = &self.lane;
        lane.check_open()?;
        let busy = |wait| Failure::new(NoKey::Busy, "too many keys are requested", wait);
        let now = shape::now();
        // Calls for a whole scope are a second apart at least: whatever else is asked takes none of them.
        let limits = self.offer.callers.limits(&self.caller.name, now);
        if let Some(limits) = limits.filter(|_| !self.is_whole) {
            limits.admit(now).map_err(|limited| {
                busy(match limited {
                    Limited::Concurrency => CALL_GAP,
                    Limited::Rate(wait) => wait,
                })
            })?;
        }
        let turn = lane.turns.turn(&self.caller, self.is_whole).await;
        turn.map_err(busy)
    }

    /// Calls STS, and gives `turn` back when that has answered.
    async fn call(&self, turn: Turn) -> Result<Vended, Failure> {
        let (lane, _turn) = (&self.lane, turn);
        let begun = Instant::now();
        lane.check_open()?;
        let is_probe = lane.breaker.is_half_open(begun);
        let probe = is_probe.then(|| lane.probe.try_acquire()).transpose();
        let _probe = probe.map_err(|_| {
            let why = "one call finds out whether STS is back";
            Failure::new(NoKey::Unreachable, why, CALL_GAP)
        })?;
        let call = (lane.issuer).issue_for(&self.caller.name, &self.policy, self.duration);
        let result = call.await;
        lane.breaker.hear(&result, begun, &lane.counters);
        let issued = result.map_err(|error| Failure::of(&error, self.is_whole))?;
        let left = issued.life.saturating_sub(LEAST_LEFT);
        let unfit = |why| {
            let error = IssueError::new(NoKey::Unavailable, why, COME_BACK);
            Failure::standing(error, CALL_GAP)
        };
        if left.is_zero() {
            let life = issued.life.as_secs();
            return Err(unfit(format!(
                "STS gave a key of {life} s, which is too short"
            )));
        }
        let key = Credential::issued(issued);
        let key = key.map_err(|error| unfit(error.to_string()))?;
        Ok(Vended {
            key: Arc::new(key),
            until: begun + left,
        })
    }
}

impl Lane {
    fn check_open(&self) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(until) = self.breaker.open_until(now) else {
            return Ok(());
        };
        let why = "calls to STS are held back, since most have failed";
        Err(Failure::new(NoKey::Unreachable, why, until - now))
    }
}

impl From<Failure> for S3Error {
    fn from(failure: Failure) -> Self {
        failure.error.into()
    }
}

impl Failure {
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
fn of_issuer(rate: CallRate) -> CallRate {
    CallRate {
        per_second: ISSUER_RATE.per_second.min(rate.per_second),
        burst: ISSUER_RATE.burst.min(rate.burst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_subjects_make_room_for_others_and_none_that_is_held() {
        let keys = SubjectKeys::default();
        let whole = |name: &str| keys.of(name, 3);
        let alice = whole("alice").unwrap();
        for name in ["bob", "carol", "bob"] {
            assert!(whole(name).is_some());
        }
        assert!(whole("dave").is_some(), "carol makes room: she came once");
        let has = |name: &str| keys.0.lock().unwrap().by_name.contains_key(name);
        assert!(has("alice") && has("bob") && has("dave") && !has("carol"));
        let held = ["bob", "dave"].map(|name| whole(name).unwrap());
        assert!(whole("erin").is_none(), "all are held");
        drop((held, alice));
        for number in 0..100 {
            assert!(whole(&format!("new{number}")).is_some());
        }
        let table = keys.0.lock().unwrap();
        assert_eq!((table.by_name.len(), table.order.len()), (3, 3));
    }
}
