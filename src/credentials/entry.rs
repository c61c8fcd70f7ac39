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
use super::cache::CacheCounters;
use super::sts::{Issued, StsClass, StsError};
use super::{Credential, Life};
use crate::s3::error::{Code, Fault, S3Error};
use crate::timestamp::Timestamp;

/// How long a request waits for a key when there is none.
const WAIT: Duration = Duration::from_secs(5);
/// Requests that wait for one tenant's key at once; more are sent away.
const WAITERS: usize = 2048;
/// Between two calls for one tenant, whatever happens.
const CALL_GAP: Duration = Duration::from_secs(1);
/// Between two keys of one tenant that are dropped because COS refused them.
const REJECT_GAP: Duration = Duration::from_secs(10);
/// The longest pause after failures that may pass.
const BACKOFF_LIMIT: Duration = Duration::from_mins(1);
/// A permanent failure stands for this long, and up to as much again.
const REFUSAL: Duration = Duration::from_secs(30);
/// A key that lives shorter than this is not worth keeping.
const LEAST_LIFE: Duration = Duration::from_secs(3);
/// Longer lives are taken for this one: Tencent gives 36 hours at most.
const MOST_LIFE: Duration = Duration::from_hours(7 * 24);

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
    /// `None`: the key is permanent.
    asks: Option<mpsc::UnboundedSender<Ask>>,
    /// The issuer's; `None`: the key is permanent.
    breaker: Option<Arc<Breaker>>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits for the first key of a scope that was made for a request.
    First = 1,
    /// The live key ages.
    Refresh = 2,
    /// Somebody waits.
    Cold = 3,
}

#[derive(Debug)]
struct Failure {
    error: StsError,
    retry_at: Instant,
}

#[derive(Debug)]
struct Pace {
    next_call: Instant,
    failures: u32,
    generation: u64,
    rejected: Option<Instant>,
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
        breaker: Arc<Breaker>,
        margin: Duration,
        counters: Arc<CacheCounters>,
    ) -> Self {
        let mut entry = Self::with(scope, None, margin, counters);
        (entry.asks, entry.breaker) = (Some(asks), Some(breaker));
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
        let pace = Pace {
            next_call: Instant::now(),
            failures: 0,
            generation: 0,
            rejected: None,
            expires: None,
            new: None,
        };
        Self {
            scope,
            current: ArcSwapOption::from_pointee(key),
            asked: AtomicU8::new(IDLE),
            asks: None,
            breaker: None,
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

    /// The key: at once while one is live, else as soon as STS gives one, within five seconds.
    /// Dropping the future cancels no call.
    pub async fn get(self: &Arc<Self>) -> Result<Arc<Credential>, IssueError> {
        if let Some(credential) = self.live(Instant::now()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(credential);
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        Box::pin(self.wait()).await // rare: it must not make every request's future larger
    }

    /// COS refused the key of this generation: it is dropped and another asked for, once, however
    /// many requests say so, and at most every ten seconds. Gives whether [`Entry::get`] may now
    /// give another key.
    pub fn reject(self: &Arc<Self>, generation: u64) -> bool {
        let mut pace = self.pace();
        let current = self.current.load();
        let Some(credential) = &*current else {
            return true;
        };
        if credential.generation != generation {
            return credential.generation > generation;
        }
        let now = Instant::now();
        let lately = pace
            .rejected
            .is_some_and(|at| now.duration_since(at) < REJECT_GAP);
        if self.asks.is_none() || lately {
            return false;
        }
        pace.rejected = Some(now);
        self.current.compare_and_swap(&current, None);
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
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
        let _ = self.asked.compare_exchange(urgency as u8, IDLE, won, lost); // else it waits in another queue
    }

    /// When the last key that it had ends or ended: only one that lives longer is another.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.pace().expires
    }

    /// When the next call may be made.
    pub(super) fn next_call(&self) -> Instant {
        self.pace().next_call
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
        if to == FLYING {
            self.pace().next_call = Instant::now() + CALL_GAP;
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
        let pause = pause(error.class, pace.failures, chance);
        pace.next_call = pace.next_call.max(now + pause);
        Failure {
            error,
            retry_at: pace.next_call,
        }
    }

    async fn wait(self: &Arc<Self>) -> Result<Arc<Credential>, IssueError> {
        let Some(_place) = Place::take(&self.waiters) else {
            return Err(IssueError::new(
                "too many requests wait for this tenant's key",
                CALL_GAP,
            ));
        };
        let ending = || IssueError::new("no key can be asked for: cosgate is ending", WAIT);
        let deadline = Instant::now() + WAIT;
        let mut outcome = self.outcome.subscribe();
        let mut open = self.breaker.as_ref().ok_or_else(ending)?.subscribe();
        loop {
            let failure = outcome.borrow_and_update().clone();
            let now = Instant::now();
            if let Some(credential) = self.live(now) {
                return Ok(credential);
            }
            if let Some(failure) = &failure
                && failure.settles(now, deadline)
            {
                return Err(failure.answer(now));
            }
            let open_until = *open.borrow_and_update();
            if let Some(until) = open_until.filter(|until| now < *until) {
                let last = failure.map(|failure| format!(": {}", failure.error));
                let why = "calls to STS are held back, since most have failed";
                let why = format!("{why}{}", last.unwrap_or_default());
                return Err(IssueError::new(why, until - now));
            }
            if !self.ask(self.wanted()) {
                return Err(ending());
            }
            let news = async {
                tokio::select! {
                    _ = outcome.changed() => {}
                    _ = open.changed() => {}
                }
            };
            if timeout_at(deadline, news).await.is_err() {
                return Err(failure.map_or_else(
                    || IssueError::new("STS gave no answer in time", CALL_GAP),
                    |failure| failure.answer(Instant::now()),
                ));
            }
        }
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

impl Failure {
    /// Whether waiting until `deadline` is in vain.
    fn settles(&self, now: Instant, deadline: Instant) -> bool {
        self.retry_at > now && (self.error.class.is_permanent() || self.retry_at >= deadline)
    }

    fn answer(&self, now: Instant) -> IssueError {
        let wait = self.retry_at.saturating_duration_since(now);
        IssueError::new(self.error.to_string(), wait)
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

/// Why there is no key. It may pass, so that the client is asked to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueError {
    /// For the log; holds no secret.
    pub detail: String,
    /// Seconds, 1 to 60.
    pub retry_after: u32,
}

impl IssueError {
    pub(super) fn new(detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let retry_after = u32::try_from(seconds.clamp(1, 60)).unwrap_or(60);
        Self {
            detail: detail.into(),
            retry_after,
        }
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
        Self::new(
            Code::SlowDown,
            "The storage cannot be reached at the moment. Please try again later.",
        )
        .fault(Fault::Sts)
        .retry_after(error.retry_after)
        .detail(error.detail)
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

/// How long to wait after the failure number `failures` in a row.
fn pause(class: StsClass, failures: u32, chance: f64) -> Duration {
    let chance = chance.clamp(0.0, 1.0);
    if class.is_permanent() {
        return REFUSAL.mul_f64(1.0 + chance);
    }
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    CALL_GAP
        .saturating_mul(doubled)
        .min(BACKOFF_LIMIT)
        .mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const HOUR: Duration = Duration::from_hours(1);
    const MARGIN: Duration = Duration::from_secs(30);

    fn entry() -> (Arc<Entry>, mpsc::UnboundedReceiver<Ask>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Arc::new(Entry::new(
                scope(),
                sender,
                breaker(),
                MARGIN,
                Arc::default(),
            )),
            receiver,
        )
    }

    fn breaker() -> Arc<Breaker> {
        Arc::new(Breaker::new())
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
                tokio::time::sleep_until(entry.next_call()).await;
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
        assert!((1..=60).contains(&error.retry_after));
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
        tokio::time::sleep_until(entry.next_call()).await;
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
    async fn a_refused_key_is_dropped_once_and_rarely() {
        let (entry, mut asks) = entry();
        entry.ask(Urgency::Cold);
        asks.recv().await.unwrap();
        give(&entry, Ok(issued(HOUR)));
        assert!(entry.reject(1) && entry.reject(1));
        assert!(entry.live(Instant::now()).is_none());
        assert_eq!(asks.recv().await.unwrap().urgency, Urgency::Cold);
        assert!(asks.try_recv().is_err());
        give(&entry, Ok(issued(HOUR)));
        assert!(entry.reject(1), "the next key is there");
        assert!(!entry.reject(2), "too soon");
        assert_eq!(entry.live(Instant::now()).unwrap().generation, 2);
        tokio::time::advance(REJECT_GAP).await;
        assert!(entry.reject(2));
        assert!(entry.live(Instant::now()).is_none());
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
            Entry::new(scope(), sender, breaker(), MARGIN, Arc::default()).with_permit(permit);
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
        assert!(entry.next_call() >= Instant::now() + CALL_GAP);
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
    fn pauses_double_to_a_minute_with_full_jitter() {
        let pauses =
            |chance| [1, 2, 3, 6, 7, 99].map(|n| pause(StsClass::Retry, n, chance).as_secs());
        assert_eq!(pauses(1.0), [1, 2, 4, 32, 60, 60]);
        assert_eq!(pauses(0.0), [0; 6]);
        assert_eq!(pause(StsClass::NotAllowed, 1, 1.0), 2 * REFUSAL);
    }
}
