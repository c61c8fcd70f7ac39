//! The key of one tenant: read without a lock, renewed in the background, waited for only when there
//! is none.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::breaker::Breaker;
use super::lanes::Backlog;
use super::sts::{Issued, StsClass, StsError};
use super::{Credential, Life};
use crate::error::{Code, Fault, S3Error};
use crate::observe::CacheCounters;
use crate::s3::vend::LONG_POLICY;
use crate::timestamp::Timestamp;

/// How long a request waits for a key when there is none, beside the time until the call's turn.
const WAIT: Duration = Duration::from_secs(5);
/// The longest time until the turn of a call that a request waits for: clients read for 60 s.
const TURN_WAIT: Duration = Duration::from_secs(30);
/// A turn that is sooner than this needs no time of its own.
const SOON: Duration = Duration::from_millis(100);
/// Requests that wait for one tenant's key at once; more are sent away.
const WAITERS: usize = 2048;
/// Between two calls for one tenant, whatever happens.
const CALL_GAP: Duration = Duration::from_secs(1);
/// Keys of one tenant that had worked, were refused by COS and are replaced at once; after these, one
/// each [`CALL_GAP`].
const REPLACED_AT_ONCE: u32 = 10;
/// The longest pause, while a key is live, after failures that may pass.
const BACKOFF_LIMIT: Duration = Duration::from_mins(1);
/// The same while there is none. With the breaker's own, STS is called at least every five seconds.
const WAITED_FOR_LIMIT: Duration = Duration::from_secs(4);
/// A permanent failure stands for this long, and up to as much again.
const REFUSAL: Duration = Duration::from_secs(30);
/// A key that lives shorter than this is not worth keeping.
const LEAST_LIFE: Duration = Duration::from_secs(3);
/// Longer lives are taken for this one: Tencent gives 36 hours at most.
const MOST_LIFE: Duration = Duration::from_hours(7 * 24);

/// The code of a key that STS gave and COS refused at once.
const KEY_REFUSED: &str = "KeyRefused";

/// Where an entry is between two calls.
const IDLE: u8 = 0;
const FLYING: u8 = 4;

/// One tenant's key. Shared by all cores.
#[derive(Debug)]
pub struct Entry {
    scope: Scope,
    current: ArcSwapOption<Credential>,
    /// `IDLE`, an [`Urgency`] that waits its turn, or `FLYING`.
    asked: AtomicU8,
    /// The number of the ask in the issuer's queue, and its urgency in the last two bits; 0 while none
    /// waits there.
    queued: AtomicU64,
    /// `None`: the key is permanent.
    asks: Option<mpsc::UnboundedSender<Ask>>,
    /// The issuer's; `None`: the key is permanent.
    issuer: Option<(Arc<Breaker>, Arc<Backlog>)>,
    /// How the last call went; changes wake those who wait.
    outcome: watch::Sender<Option<Arc<Failure>>>,
    pace: Mutex<Pace>,
    /// Longest time from signing to the request's arrival at COS.
    margin: Duration,
    waiters: AtomicUsize,
    hits: AtomicU64,
    counters: Arc<CacheCounters>,
}

/// What one key is for.
#[derive(Debug)]
pub(super) struct Scope {
    /// The tenant's name.
    pub(super) tenant: String,
    /// The policy that fences it, plain JSON.
    pub(super) policy: String,
    /// Index of the issuer.
    pub(super) issuer: usize,
}

/// Asks for a call for an entry.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) entry: Arc<Entry>,
    pub(super) urgency: Urgency,
}

/// Why a call is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Somebody waits for the first key of a scope that was made for a request.
    First = 1,
    /// The live key ages.
    Refresh = 2,
    /// Somebody waits.
    Cold = 3,
}

impl Urgency {
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Refresh, Self::Cold];
}

#[derive(Debug)]
struct Failure {
    error: StsError,
    retry_at: Instant,
}

#[derive(Debug)]
struct Pace {
    /// No call is made before this,
    next_call: Instant,
    /// and none before this while a key is live.
    next_refresh: Instant,
    /// When the last call began.
    began: Instant,
    failures: u32,
    generation: u64,
    /// Keys in a row that COS refused without having taken them once.
    unworkable: u32,
    /// Replacements at once are paid for until then, each with a [`CALL_GAP`].
    paid_until: Instant,
    /// When the last key ends or ended.
    expires: Option<Timestamp>,
    /// Of a scope that was made for a request, until it has had a key.
    new: Option<OwnedSemaphorePermit>,
}

impl Entry {
    /// An entry whose keys are asked for through `asks`.
    pub(super) fn new(
        scope: Scope,
        asks: mpsc::UnboundedSender<Ask>,
        issuer: (Arc<Breaker>, Arc<Backlog>),
        margin: Duration,
        counters: Arc<CacheCounters>,
    ) -> Self {
        let mut entry = Self::with(scope, None, margin, counters);
        (entry.asks, entry.issuer) = (Some(asks), Some(issuer));
        entry
    }

    /// The same for a scope that was made for a request: until it has had a key it waits its turn
    /// behind all others, and keeps `permit`.
    #[must_use]
    pub(super) fn with_permit(self, permit: OwnedSemaphorePermit) -> Self {
        if self.asks.is_some() {
            self.pace().new = Some(permit);
        }
        self
    }

    /// Whether it was made for a request, and has never had a key.
    pub(super) fn is_new(&self) -> bool {
        self.pace().new.is_some()
    }

    /// What its keys are for.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// An entry of a permanent key.
    pub(super) fn permanent(scope: Scope, key: Credential, counters: Arc<CacheCounters>) -> Self {
        Self::with(scope, Some(key), Duration::ZERO, counters)
    }

    fn with(
        scope: Scope,
        key: Option<Credential>,
        margin: Duration,
        counters: Arc<CacheCounters>,
    ) -> Self {
        let now = Instant::now();
        let pace = Pace {
            next_call: now,
            next_refresh: now,
            began: now,
            failures: 0,
            generation: 0,
            unworkable: 0,
            paid_until: now,
            expires: None,
            new: None,
        };
        Self {
            scope,
            current: ArcSwapOption::from_pointee(key),
            asked: AtomicU8::new(IDLE),
            queued: AtomicU64::new(0),
            asks: None,
            issuer: None,
            outcome: watch::Sender::new(None),
            pace: Mutex::new(pace),
            margin,
            waiters: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            counters,
        }
    }

    /// The key, if it may still sign at `now`. An ageing one is renewed in the background.
    pub fn live(self: &Arc<Self>, now: Instant) -> Option<Arc<Credential>> {
        let current = self.current.load();
        let credential = current
            .as_ref()
            .filter(|credential| credential.is_live(now))?;
        if credential.is_due(now) {
            self.ask(Urgency::Refresh);
        }
        Some(Arc::clone(credential))
    }

    /// The key: at once while one is live, else as soon as STS gives one: within five seconds, and the
    /// time that other calls of the issuer take first. Dropping the future cancels no call.
    pub async fn get(self: &Arc<Self>) -> Result<Arc<Credential>, IssueError> {
        if let Some(credential) = self.live(Instant::now()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(credential);
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        Box::pin(self.wait()).await // rare: it must not make every request's future larger
    }

    /// COS refused the key of this generation: it is dropped and another requested, once, however many
    /// requests say so. A key that had worked is replaced at once. When a new key is refused, which no
    /// other need be better than, the next one waits. Gives whether [`Entry::get`] can give another key.
    pub fn reject(self: &Arc<Self>, generation: u64) -> bool {
        self.reject_with(generation, fastrand::f64())
    }

    /// The same; `chance`, from 0 to 1, spreads the waits.
    fn reject_with(self: &Arc<Self>, generation: u64, chance: f64) -> bool {
        let mut pace = self.pace();
        let current = self.current.load();
        let Some(credential) = &*current else {
            return true;
        };
        if credential.generation != generation {
            return credential.generation > generation;
        }
        if self.asks.is_none() {
            return false; // a permanent key
        }
        let now = Instant::now();
        if credential.has_worked() {
            pace.unworkable = 0;
            pace.replace_at_once(now);
        } else {
            pace.unworkable = pace.unworkable.saturating_add(1);
            let pause = pause_of_unworkable(pace.unworkable, chance);
            pace.next_call = pace.next_call.max(now + pause);
            let what = "COS refuses the new keys of this scope";
            self.outcome.send_replace(Some(Arc::new(Failure {
                error: StsError::new(StsClass::Retry, KEY_REFUSED, what),
                retry_at: pace.next_call,
            })));
        }
        self.current.compare_and_swap(&current, None);
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        drop(pace);
        self.ask(Urgency::Cold)
    }

    /// Whether there is a live key at `now`. Asks for nothing.
    pub fn has_live(&self, now: Instant) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|credential| credential.is_live(now))
    }

    /// Requests that found a live key.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// What is counted of all entries.
    pub(super) fn counters(&self) -> &CacheCounters {
        &self.counters
    }

    /// Takes back an ask that was not begun.
    pub(super) fn forgo(&self, urgency: Urgency) {
        let (won, lost) = (Ordering::AcqRel, Ordering::Relaxed);
        let forgone = self.asked.compare_exchange(urgency as u8, IDLE, won, lost);
        if forgone.is_ok() {
            self.queued.store(0, Ordering::Release); // else it waits in another queue
        }
    }

    /// The ask has this number in its issuer's queue now.
    pub(super) fn joined(&self, urgency: Urgency, number: u64) {
        let queued = number << 2 | u64::from(urgency as u8);
        self.queued.store(queued, Ordering::Release);
    }

    /// When the last key that it had ends or ended: only one that lives longer is another.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.pace().expires
    }

    /// When the next call may be made.
    pub(super) fn next_call(&self, urgency: Urgency) -> Instant {
        let pace = self.pace();
        match urgency {
            Urgency::Cold | Urgency::First => pace.next_call,
            Urgency::Refresh => pace.next_call.max(pace.next_refresh),
        }
    }

    /// Begins a call if `urgency` is still what is asked and still needed: who saw no key, or an old
    /// one, may ask just after another has come. Each begin needs its [`Entry::finish`].
    pub(super) fn begin(self: &Arc<Self>, urgency: Urgency) -> bool {
        let to = if self.needs(urgency) { FLYING } else { IDLE };
        let (won, lost) = (Ordering::AcqRel, Ordering::Relaxed);
        if self
            .asked
            .compare_exchange(urgency as u8, to, won, lost)
            .is_err()
        {
            return false;
        }
        self.queued.store(0, Ordering::Release);
        if to == FLYING {
            let (mut pace, now) = (self.pace(), Instant::now());
            (pace.began, pace.next_call) = (now, now + CALL_GAP);
            return true;
        }
        if self.needs(urgency) {
            self.ask(self.wanted()); // it was refused in between, or somebody came
        }
        false
    }

    /// Whether a call is of use. Nobody may be left who waits for a first key, and nobody may come back.
    fn needs(&self, urgency: Urgency) -> bool {
        let is_forsaken = urgency == Urgency::First && self.waiters.load(Ordering::Acquire) == 0;
        !is_forsaken && !self.is_fresh()
    }

    /// How urgent the key is to somebody who has none.
    fn wanted(&self) -> Urgency {
        if self.is_new() {
            Urgency::First
        } else {
            Urgency::Cold
        }
    }

    fn is_fresh(&self) -> bool {
        let now = Instant::now();
        let fresh = |key: &Arc<Credential>| key.is_live(now) && !key.is_due(now);
        self.current.load().as_ref().is_some_and(fresh)
    }

    /// Ends a call. `chance`, from 0 to 1, spreads what comes next.
    pub(super) fn finish(&self, result: Result<Issued, StsError>, chance: f64) {
        let now = Instant::now();
        let kept = result.and_then(|issued| self.keep(issued, now, chance));
        let outcome = match kept {
            Ok(()) => None,
            Err(error) => Some(Arc::new(self.fail(error, now, chance))),
        };
        self.asked.store(IDLE, Ordering::Release);
        self.outcome.send_replace(outcome); // last: who wakes finds the key, or may ask again
    }

    fn keep(&self, issued: Issued, now: Instant, chance: f64) -> Result<(), StsError> {
        if issued.life < LEAST_LIFE {
            let what = format!("the key lives for {:?} only", issued.life);
            return Err(StsError::new(StsClass::Retry, "ShortKey", what));
        }
        let life = plan(now, issued.life, self.margin, chance);
        let Issued {
            secret_id,
            secret_key,
            token,
            expires,
            request_id,
            ..
        } = issued;
        let mut credential = Credential::new(secret_id, secret_key, Some(token), Some(expires))
            .map_err(|error| StsError::new(StsClass::Retry, "Unreadable", error.to_string()))?;
        credential.request_id = request_id;
        let mut pace = self.pace();
        pace.failures = 0;
        pace.generation += 1;
        pace.new = None;
        pace.expires = Some(expires);
        let credential = credential.with_life(life, pace.generation);
        self.current.store(Some(Arc::new(credential)));
        Ok(())
    }

    fn fail(&self, error: StsError, now: Instant, chance: f64) -> Failure {
        let mut pace = self.pace();
        pace.failures = pace.failures.saturating_add(1);
        let pauses = pauses(error.class, pace.failures, chance);
        // A call that took long has been a pause itself.
        let from = if error.class.is_permanent() {
            now
        } else {
            pace.began
        };
        pace.next_call = pace.next_call.max(from + pauses.waited_for);
        pace.next_refresh = now + pauses.refresh;
        Failure {
            error,
            retry_at: pace.next_call,
        }
    }

    async fn wait(self: &Arc<Self>) -> Result<Arc<Credential>, IssueError> {
        let ending = || {
            let why = "no key can be requested: cosgate is shutting down";
            IssueError::new(NoKey::Ending, why, CALL_GAP)
        };
        let (breaker, backlog) = self.issuer.as_ref().ok_or_else(ending)?;
        let place = Place::take(&self.waiters).and_then(|place| {
            let waiting = backlog.wait(self.waiters.load(Ordering::Acquire) - 1)?;
            Some((place, waiting))
        });
        let Some(_place) = place else {
            let why = "too many requests wait for this tenant's key";
            return Err(IssueError::new(NoKey::Busy, why, CALL_GAP));
        };
        let mut deadline = Deadline::from(Instant::now());
        let mut outcome = self.outcome.subscribe();
        let mut open = breaker.subscribe();
        loop {
            let failure = outcome.borrow_and_update().clone();
            let now = Instant::now();
            if let Some(credential) = self.live(now) {
                return Ok(credential);
            }
            if let Some(failure) = &failure
                && failure.is_permanent(now)
            {
                return Err(failure.answer(now));
            }
            if !self.ask(self.wanted()) {
                return Err(ending());
            }
            // The next new key comes later, and may be refused as these were: nobody waits for it.
            if let Some(failure) = &failure
                && failure.retry_at > now
                && failure.error.code == KEY_REFUSED
                && self.pace().unworkable > 1
            {
                return Err(failure.answer(now));
            }
            let open_until = *open.borrow_and_update();
            if let Some(until) = open_until.filter(|until| now < *until) {
                let last = failure.map(|failure| format!(": {}", failure.error));
                let why = "calls to STS are held back, since most have failed";
                let why = format!("{why}{}", last.unwrap_or_default());
                return Err(IssueError::new(NoKey::Unreachable, why, until - now));
            }
            let turn = self.turn(backlog, now);
            if turn.is_none() && failure.is_none() {
                deadline.include(self.pace().began);
            }
            if !deadline.reaches(turn, now) {
                let turn = turn.unwrap_or_default();
                return Err(IssueError::new(NoKey::Queued, backlog.describe(), turn));
            }
            if let Some(failure) = &failure
                && failure.retry_at >= deadline.end
            {
                return Err(failure.answer(now));
            }
            if now >= deadline.end {
                let silent =
                    || IssueError::new(NoKey::Unreachable, "STS gave no answer in time", CALL_GAP);
                return Err(failure.map_or_else(silent, |failure| failure.answer(now)));
            }
            let news = async {
                tokio::select! {
                    _ = outcome.changed() => {}
                    _ = open.changed() => {}
                }
            };
            let _ = timeout_at(deadline.end, news).await; // the turn may have come later than thought
        }
    }

    /// How long it takes until the turn of this entry's call; `None` when it does not wait for that.
    fn turn(&self, backlog: &Backlog, now: Instant) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Acquire);
        let urgency = *Urgency::ALL
            .iter()
            .find(|urgency| **urgency as u8 == asked)?;
        let queued = self.queued.load(Ordering::Acquire);
        if queued & 3 == u64::from(asked) {
            return Some(backlog.turn_of(urgency, Some(queued >> 2)));
        }
        // It is on the way to the queue, if it need not wait for a time of its own.
        let turn = backlog.turn_of(urgency, None);
        (turn >= SOON && self.next_call(urgency) <= now).then_some(turn)
    }

    /// Sees to it that a call is made. Gives false when nobody is there to make one.
    fn ask(self: &Arc<Self>, urgency: Urgency) -> bool {
        let Some(asks) = &self.asks else { return false };
        let raise = |asked| (asked < urgency as u8).then_some(urgency as u8);
        let raised = self
            .asked
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, raise);
        if raised.is_err() {
            return !asks.is_closed();
        }
        asks.send(Ask {
            entry: Arc::clone(self),
            urgency,
        })
        .is_ok()
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// Has the next call be made at once, if not too many have been of late.
    fn replace_at_once(&mut self, now: Instant) {
        let paid = self.paid_until.max(now) + CALL_GAP;
        if paid <= now + CALL_GAP * REPLACED_AT_ONCE {
            (self.paid_until, self.next_call) = (paid, now);
        } else {
            self.next_call = self.next_call.max(now + CALL_GAP);
        }
    }
}

impl Failure {
    /// Whether it stands at `now` whatever is tried.
    fn is_permanent(&self, now: Instant) -> bool {
        self.retry_at > now && self.error.class.is_permanent()
    }

    fn answer(&self, now: Instant) -> IssueError {
        let wait = self.retry_at.saturating_duration_since(now);
        IssueError::of(&self.error, wait)
    }
}

/// Until when a request waits.
struct Deadline {
    began: Instant,
    end: Instant,
    /// Its call waited for its turn when this was last looked at.
    is_queued: bool,
}

impl Deadline {
    fn from(now: Instant) -> Self {
        Self {
            began: now,
            end: now + WAIT,
            is_queued: false,
        }
    }

    /// Moves the end to [`WAIT`] after the begin of a first call: its turn may have come late.
    fn include(&mut self, call_began: Instant) {
        self.end = self.end.max(call_began + WAIT);
    }

    /// Moves the end to [`WAIT`] after the turn of the call. Gives false when that is too far away.
    fn reaches(&mut self, turn: Option<Duration>, now: Instant) -> bool {
        let Some(turn) = turn else {
            self.is_queued = false;
            return true;
        };
        let at = now.checked_add(turn);
        let Some(at) = at.filter(|at| *at <= self.began + TURN_WAIT) else {
            return false;
        };
        self.is_queued |= turn >= SOON || now >= self.end;
        if self.is_queued {
            self.end = self.end.max(at + WAIT);
        }
        true
    }
}

/// One of the places to wait in, given back on drop.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiters: &'a AtomicUsize) -> Option<Self> {
        let more = |count| (count < WAITERS).then_some(count + 1);
        waiters
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, more)
            .ok()
            .map(|_| Self(waiters))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueError {
    /// For the client.
    pub reason: NoKey,
    /// For the log; holds no secret.
    pub detail: String,
    /// Seconds, 1 to 60; `None` where only the operator can help.
    pub retry_after: Option<u32>,
}

/// What a client is told of a key that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// Too many requests wait for one.
    Busy,
    /// cosgate is shutting down.
    Ending,
    /// cosgate's own limit on calls to STS has it wait too long.
    Queued,
    /// What the client itself asked of the key is too long for STS.
    LongPolicy,
    /// STS refuses cosgate's own configuration.
    Refused,
    /// COS refuses those that STS gives.
    RefusedByStore,
    /// STS gives none for a reason that may pass.
    Unavailable,
    /// STS cannot be reached.
    Unreachable,
}

impl NoKey {
    fn of(error: &StsError) -> Self {
        match error.code.as_str() {
            _ if error.class.is_permanent() => Self::Refused,
            KEY_REFUSED => Self::RefusedByStore,
            "Http" | "Network" | "Timeout" => Self::Unreachable,
            _ => Self::Unavailable,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Busy => {
                "Too many requests wait for a temporary key. Please reduce your request rate."
            }
            Self::Queued => {
                "More clients need a first temporary key than the gateway may get at this moment. Please send the request again after the time in Retry-After."
            }
            Self::Ending => "The gateway is shutting down. Please send the request again.",
            Self::LongPolicy => LONG_POLICY,
            Self::Refused => {
                "The key service refuses the configuration of this gateway. Only its operator can fix this: the reason is in the gateway's log."
            }
            Self::RefusedByStore => {
                "The storage refuses the temporary keys of the key service at the moment. Please try again later."
            }
            Self::Unavailable => {
                "The key service gives no temporary key at the moment. Please try again later."
            }
            Self::Unreachable => {
                "The key service cannot be reached at the moment. Please try again later."
            }
        }
    }

    fn code(self) -> Code {
        match self {
            Self::LongPolicy => Code::InvalidArgument,
            Self::Ending | Self::Refused | Self::RefusedByStore => Code::ServiceUnavailable,
            Self::Busy | Self::Queued | Self::Unavailable | Self::Unreachable => Code::SlowDown,
        }
    }
}

impl IssueError {
    pub(super) fn new(reason: NoKey, detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let seconds = u32::try_from(seconds.clamp(1, 60)).unwrap_or(60);
        Self {
            reason,
            detail: detail.into(),
            retry_after: (!matches!(reason, NoKey::LongPolicy | NoKey::Refused)).then_some(seconds),
        }
    }

    /// What STS said, which may be asked again after `wait`.
    pub(super) fn of(error: &StsError, wait: Duration) -> Self {
        Self::new(NoKey::of(error), error.to_string(), wait)
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for IssueError {}

impl From<IssueError> for S3Error {
    fn from(error: IssueError) -> Self {
        let told = Self::new(error.reason.code(), error.reason.message());
        let told = match error.reason {
            NoKey::LongPolicy => told,
            _ => told.fault(Fault::Sts),
        };
        let told = told.detail(error.detail);
        match error.retry_after {
            Some(seconds) => told.retry_after(seconds),
            None => told,
        }
    }
}

/// When a key that came at `issued` is renewed and given up. `chance`, from 0 to 1, places the
/// renewal at 50 to 80 % of its use, so that keys made together are not renewed together. It is
/// given up `margin` before its end, or with a quarter of its life left if that is less.
fn plan(issued: Instant, life: Duration, margin: Duration, chance: f64) -> Life {
    let life = life.min(MOST_LIFE);
    let used = life.saturating_sub(margin.min(life / 4));
    let soft = issued + used.mul_f64(0.5 + 0.3 * chance.clamp(0.0, 1.0));
    Life {
        soft,
        hard: issued + used,
    }
}

/// How long nothing is called after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pauses {
    /// While no key is live.
    waited_for: Duration,
    /// While one is.
    refresh: Duration,
}

/// After the failure number `failures` in a row.
fn pauses(class: StsClass, failures: u32, chance: f64) -> Pauses {
    let chance = chance.clamp(0.0, 1.0);
    let doubled = CALL_GAP.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let refresh = doubled.min(BACKOFF_LIMIT).mul_f64(chance);
    match class {
        StsClass::ConfigWrong | StsClass::NotAllowed => {
            let stands = REFUSAL.mul_f64(1.0 + chance);
            Pauses {
                waited_for: stands,
                refresh: stands,
            }
        }
        // The issuer remembers what key was refused: only another one makes a call.
        StsClass::IssuerBroken => Pauses {
            waited_for: CALL_GAP,
            refresh,
        },
        StsClass::Clock | StsClass::Retry | StsClass::Unknown => Pauses {
            waited_for: doubled.min(WAITED_FOR_LIMIT).mul_f64(chance),
            refresh,
        },
    }
}

/// After the key number `keys` in a row that COS refused without having taken it once.
fn pause_of_unworkable(keys: u32, chance: f64) -> Duration {
    let doubled = CALL_GAP.saturating_mul(2_u32.saturating_pow(keys));
    let longest = doubled.min(WAITED_FOR_LIMIT);
    longest.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CallRate;
    use crate::secret::Secret;

    const HOUR: Duration = Duration::from_hours(1);
    const MARGIN: Duration = Duration::from_secs(30);

    fn entry() -> (Arc<Entry>, mpsc::UnboundedReceiver<Ask>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Arc::new(Entry::new(
                scope(),
                sender,
                issuer(),
                MARGIN,
                Arc::default(),
            )),
            receiver,
        )
    }

    fn issuer() -> (Arc<Breaker>, Arc<Backlog>) {
        let rate = CallRate {
            per_second: 100,
            burst: 200,
        };
        (
            Arc::new(Breaker::new()),
            Arc::new(Backlog::new("main", rate)),
        )
    }

    fn scope() -> Scope {
        Scope {
            tenant: "acme".into(),
            policy: "{}".into(),
            issuer: 0,
        }
    }

    fn issued(life: Duration) -> Issued {
        Issued {
            secret_id: "AKID".into(),
            secret_key: Secret::new("KEY"),
            token: Secret::new("TOKEN"),
            expires: Timestamp::from_unix(1_768_480_245),
            life,
            request_id: String::new(),
        }
    }

    fn failed(code: &str) -> Result<Issued, StsError> {
        Err(StsError::new(StsClass::of(code), code, "down"))
    }

    fn give(entry: &Arc<Entry>, result: Result<Issued, StsError>) {
        assert!(entry.begin(Urgency::Cold) || entry.begin(Urgency::Refresh));
        entry.finish(result, 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_key_is_served_at_once_and_renewed_once_from_its_soft_point() {
        let (entry, mut asks) = entry();
        entry.ask(Urgency::Cold);
        give(&entry, Ok(issued(HOUR)));
        asks.recv().await.unwrap();
        tokio::time::advance(Duration::from_mins(29)).await;
        assert_eq!(entry.get().await.unwrap().generation, 1);
        assert!(asks.try_recv().is_err());
        tokio::time::advance(Duration::from_mins(1)).await;
        for _ in 0..100 {
            assert_eq!(entry.get().await.unwrap().generation, 1);
        }
        assert_eq!(asks.try_recv().unwrap().urgency, Urgency::Refresh);
        assert!(asks.try_recv().is_err());
        give(&entry, Ok(issued(HOUR)));
        assert_eq!(entry.get().await.unwrap().generation, 2);
        assert_eq!(entry.hits(), 102);
    }

    #[tokio::test(start_paused = true)]
    async fn with_sts_down_a_key_is_served_to_its_hard_end_and_not_beyond() {
        let (entry, mut asks) = entry();
        entry.ask(Urgency::Cold);
        give(&entry, Ok(issued(HOUR)));
        asks.recv().await.unwrap();
        let end = Instant::now() + HOUR - MARGIN;
        let mut calls = 0;
        while Instant::now() < end {
            assert!(entry.get().await.is_ok());
            if let Ok(ask) = asks.try_recv() {
                tokio::time::sleep_until(entry.next_call(ask.urgency)).await;
                assert!(entry.begin(ask.urgency));
                entry.finish(failed("InternalError"), 0.5);
                calls += 1;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((50..80).contains(&calls), "{calls}"); // half an hour at one in 30 s, and the climb
        let before = Instant::now();
        let error = entry.get().await.unwrap_err();
        assert!(before.elapsed() <= WAIT);
        assert!((1..=60).contains(&error.retry_after.unwrap()));
        assert_eq!(S3Error::from(error).http_status(), 503);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_key_of_the_second_try() {
        let (entry, mut asks) = entry();
        let waiting = tokio::spawn({
            let entry = Arc::clone(&entry);
            async move { entry.get().await }
        });
        assert_eq!(asks.recv().await.unwrap().urgency, Urgency::Cold);
        give(&entry, failed("InternalError"));
        assert_eq!(asks.recv().await.unwrap().urgency, Urgency::Cold);
        tokio::time::sleep_until(entry.next_call(Urgency::Cold)).await;
        give(&entry, Ok(issued(HOUR)));
        assert_eq!(waiting.await.unwrap().unwrap().generation, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_refusal_is_answered_at_once_for_half_a_minute_without_a_call() {
        let (entry, mut asks) = entry();
        entry.ask(Urgency::Cold);
        asks.recv().await.unwrap();
        give(&entry, failed("InvalidParameter.PolicyTooLong"));
        for _ in 0..100 {
            let before = Instant::now();
            let error = entry.get().await.unwrap_err();
            assert!(error.detail.contains("fewer prefixes") && before.elapsed() < CALL_GAP);
            assert_eq!((error.reason, error.retry_after), (NoKey::Refused, None));
        }
        assert!(asks.try_recv().is_err());
        tokio::time::advance(REFUSAL).await;
        assert!(entry.get().await.is_err()); // nobody answers this one
        assert_eq!(asks.try_recv().unwrap().urgency, Urgency::Cold);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_waited_for_five_seconds_and_by_so_many() {
        let (entry, _asks) = entry();
        let before = Instant::now();
        let all = (0..=WAITERS).map(|_| {
            let entry = Arc::clone(&entry);
            tokio::spawn(async move { entry.get().await.unwrap_err().detail })
        });
        let mut crowded = 0;
        for one in all.collect::<Vec<_>>() {
            crowded += usize::from(one.await.unwrap().contains("too many"));
        }
        assert_eq!((crowded, before.elapsed()), (1, WAIT));
        assert_eq!(entry.waiters.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_worked_is_replaced_at_once_and_once_however_soon_it_is_refused_again() {
        let (entry, mut asks) = entry();
        entry.ask(Urgency::Cold);
        asks.recv().await.unwrap();
        give(&entry, Ok(issued(HOUR)));
        for generation in 1..=u64::from(REPLACED_AT_ONCE) {
            entry.live(Instant::now()).unwrap().mark_worked();
            assert!(entry.reject(generation) && entry.reject(generation));
            assert!(entry.live(Instant::now()).is_none());
            assert_eq!(asks.recv().await.unwrap().urgency, Urgency::Cold);
            assert!(asks.try_recv().is_err(), "one call for all who say so");
            assert!(entry.next_call(Urgency::Cold) <= Instant::now(), "at once");
            give(&entry, Ok(issued(HOUR)));
            assert!(entry.reject(generation), "the next key is there");
            assert_eq!(
                entry.live(Instant::now()).unwrap().generation,
                generation + 1
            );
        }
        // Whatever is wrong with COS, this does not go on for ever.
        let last = entry.live(Instant::now()).unwrap();
        last.mark_worked();
        assert!(entry.reject(last.generation));
        assert_eq!(entry.next_call(Urgency::Cold), Instant::now() + CALL_GAP);
    }

    #[tokio::test(start_paused = true)]
    async fn new_keys_that_cos_refuses_are_asked_for_less_and_less_often() {
        let (entry, mut asks) = entry();
        entry.ask(Urgency::Cold);
        asks.recv().await.unwrap();
        give(&entry, Ok(issued(HOUR)));
        let mut pauses = Vec::new();
        for generation in 1..=4 {
            assert!(entry.reject_with(generation, 0.0));
            assert!(entry.live(Instant::now()).is_none(), "never sent again");
            assert_eq!(asks.recv().await.unwrap().urgency, Urgency::Cold);
            let pause = entry.next_call(Urgency::Cold) - Instant::now();
            pauses.push(pause.as_secs());
            tokio::time::advance(pause).await;
            give(&entry, Ok(issued(HOUR)));
        }
        assert_eq!(pauses, [1, 2, 2, 2]);
        assert_eq!(pause_of_unworkable(9, 1.0), WAITED_FOR_LIMIT);
        // One that works ends it.
        entry.live(Instant::now()).unwrap().mark_worked();
        assert!(entry.reject(5));
        assert!(entry.next_call(Urgency::Cold) <= Instant::now());
        give(&entry, Ok(issued(HOUR)));
        assert!(entry.reject_with(6, 0.0));
        assert_eq!(entry.next_call(Urgency::Cold), Instant::now() + CALL_GAP);
        asks.recv().await.unwrap();
        asks.recv().await.unwrap();
        let error = tokio::spawn(async move { entry.get().await.unwrap_err() });
        let error = error.await.unwrap(); // nobody answers
        assert_eq!(error.reason, NoKey::RefusedByStore);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_makes_a_queued_renewal_urgent_and_makes_no_second_call() {
        let (entry, mut asks) = entry();
        entry.ask(Urgency::Refresh);
        entry.ask(Urgency::Cold);
        entry.ask(Urgency::Refresh);
        let both = [
            asks.recv().await.unwrap().urgency,
            asks.recv().await.unwrap().urgency,
        ];
        assert_eq!(both, [Urgency::Refresh, Urgency::Cold]);
        assert!(asks.try_recv().is_err());
        assert!(!entry.begin(Urgency::Refresh));
        assert!(entry.begin(Urgency::Cold) && !entry.begin(Urgency::Cold));
        assert!(
            entry.ask(Urgency::Cold) && asks.try_recv().is_err(),
            "one is in flight"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_key_is_asked_for_last_and_only_while_somebody_waits() {
        let room = Arc::new(tokio::sync::Semaphore::new(1));
        let (sender, mut asks) = mpsc::unbounded_channel();
        let permit = Arc::clone(&room).try_acquire_owned().unwrap();
        let entry =
            Entry::new(scope(), sender, issuer(), MARGIN, Arc::default()).with_permit(permit);
        let entry = Arc::new(entry);
        assert!(entry.get().await.is_err(), "nobody answers");
        assert_eq!(asks.recv().await.unwrap().urgency, Urgency::First);
        assert!(!entry.begin(Urgency::First) && entry.is_new());
        let waiting = tokio::spawn({
            let entry = Arc::clone(&entry);
            async move { entry.get().await }
        });
        assert_eq!(asks.recv().await.unwrap().urgency, Urgency::First);
        assert!(entry.begin(Urgency::First));
        entry.finish(Ok(issued(HOUR)), 0.0);
        assert_eq!(waiting.await.unwrap().unwrap().generation, 1);
        assert!(!entry.is_new() && room.available_permits() == 1);
        assert!(entry.reject(1));
        assert_eq!(asks.recv().await.unwrap().urgency, Urgency::Cold);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ask_that_comes_just_after_the_key_makes_no_call() {
        let (entry, _asks) = entry();
        entry.ask(Urgency::Cold);
        give(&entry, Ok(issued(HOUR)));
        for urgency in [Urgency::Refresh, Urgency::Cold] {
            assert!(entry.ask(urgency) && !entry.begin(urgency));
            assert_eq!(entry.asked.load(Ordering::Relaxed), IDLE);
        }
        assert!(entry.reject(1) && entry.begin(Urgency::Cold));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_of_two_seconds_is_not_kept() {
        let (entry, _asks) = entry();
        entry.ask(Urgency::Cold);
        give(&entry, Ok(issued(Duration::from_secs(2))));
        assert!(entry.live(Instant::now()).is_none());
        assert!(entry.next_call(Urgency::Cold) >= Instant::now() + CALL_GAP);
    }

    #[tokio::test(start_paused = true)]
    async fn the_plan_of_a_key() {
        let now = Instant::now();
        let planned = |life: u64, chance| {
            let life = plan(now, Duration::from_secs(life), MARGIN, chance);
            (
                (life.soft - now).as_secs_f64(),
                (life.hard - now).as_secs_f64(),
            )
        };
        assert_eq!(planned(7200, 0.0), (3585.0, 7170.0));
        assert_eq!(planned(7200, 1.0), (5736.0, 7170.0));
        assert_eq!(planned(4, 0.0), (1.5, 3.0));
        assert!(planned(u64::MAX, 1.0).1 <= MOST_LIFE.as_secs_f64());
    }

    #[test]
    fn pauses_double_to_a_minute_with_full_jitter_and_to_four_seconds_while_somebody_waits() {
        let refresh = |chance| {
            [1, 2, 3, 6, 7, 99].map(|n| pauses(StsClass::Retry, n, chance).refresh.as_secs())
        };
        assert_eq!(refresh(1.0), [1, 2, 4, 32, 60, 60]);
        assert_eq!(refresh(0.0), [0; 6]);
        let waited_for = |n| pauses(StsClass::Retry, n, 1.0).waited_for.as_secs();
        assert_eq!([1, 2, 3, 99].map(waited_for), [1, 2, 4, 4]);
        let refused = pauses(StsClass::NotAllowed, 1, 1.0);
        assert_eq!(
            (refused.waited_for, refused.refresh),
            (2 * REFUSAL, 2 * REFUSAL)
        );
        assert_eq!(pauses(StsClass::IssuerBroken, 9, 1.0).waited_for, CALL_GAP);
    }

    #[test]
    fn a_client_hears_what_is_wrong_and_whether_to_come_back() {
        for (code, told, says, comes_back) in [
            (
                "Network",
                Code::SlowDown,
                "key service cannot be reached",
                true,
            ),
            (
                "Timeout",
                Code::SlowDown,
                "key service cannot be reached",
                true,
            ),
            (
                "InternalError.DbError",
                Code::SlowDown,
                "gives no temporary key",
                true,
            ),
            (
                KEY_REFUSED,
                Code::ServiceUnavailable,
                "storage refuses",
                true,
            ),
            (
                "AuthFailure.SecretIdNotFound",
                Code::ServiceUnavailable,
                "operator",
                false,
            ),
            (
                "UnauthorizedOperation",
                Code::ServiceUnavailable,
                "operator",
                false,
            ),
            (
                "InvalidParameter.ParamError",
                Code::ServiceUnavailable,
                "operator",
                false,
            ),
        ] {
            let error = StsError::new(StsClass::of(code), code, "why").of_issuer("main");
            let error = S3Error::from(IssueError::of(&error, CALL_GAP));
            assert_eq!(
                (error.code(), error.http_status().as_u16()),
                (told, 503),
                "{code}"
            );
            assert!(error.message().contains(says), "{code}");
            assert_eq!(error.message().contains("try again"), comes_back, "{code}");
            assert_eq!(error.retry_after_seconds().is_some(), comes_back, "{code}");
        }
    }
}
