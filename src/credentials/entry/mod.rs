//! The key of one scope: read without a lock, renewed in the background. A request waits only when
//! there is none.

mod waiting;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Duration, Instant};

use super::backlog::Backlog;
use super::breaker::Breaker;
use super::call_state::{CallPhase, Urgency};
use super::credential::Credential;
use super::issue_error::{IssueError, KEY_REFUSED};
use super::schedule::{CallSchedule, plan};
use super::single_flight::{FlightFailure, SingleFlight};
use super::sts::{Issued, StsClass, StsError};
use crate::observe::CacheCounters;
use crate::timestamp::Timestamp;

/// A key that lives shorter than this is not kept.
const MIN_LIFE: Duration = Duration::from_secs(3);

/// One tenant's key. Shared by all cores.
#[derive(Debug)]
pub struct Entry {
    scope: KeyScope,
    current: ArcSwapOption<Credential>,
    /// `None`: the key is permanent.
    source: Option<KeySource>,
    /// The calls for the key, and how the last one failed.
    calls: SingleFlight<(), StsError>,
    history: Mutex<KeyHistory>,
    /// Longest time from signing to the request's arrival at COS.
    margin: Duration,
    waiters: AtomicUsize,
    hits: AtomicU64,
    counters: Arc<CacheCounters>,
    /// Somebody wants another key, whatever the one in use is good for.
    is_renewal_wanted: AtomicBool,
}

/// What one key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyScope {
    /// The tenant's name.
    pub(super) tenant: String,
    /// The policy that fences it, plain JSON.
    pub(super) policy: String,
    /// Index of the issuer.
    pub(super) issuer: usize,
}

/// Where an entry's keys come from.
#[derive(Clone, Debug)]
pub(super) struct KeySource {
    /// Requests for calls go here.
    pub(super) requests: mpsc::UnboundedSender<CallRequest>,
    /// The issuer's.
    pub(super) breaker: Arc<Breaker>,
    /// The issuer's.
    pub(super) backlog: Arc<Backlog>,
}

/// Requests a call for an entry.
#[derive(Clone, Debug)]
pub(super) struct CallRequest {
    pub(super) entry: Arc<Entry>,
    pub(super) urgency: Urgency,
}

/// The keys that an entry has had.
#[derive(Debug)]
struct KeyHistory {
    schedule: CallSchedule,
    generation: u64,
    /// When the last key expires or expired.
    expires: Option<Timestamp>,
    /// Of a scope that was made for a request, until it has had a key.
    permit: Option<OwnedSemaphorePermit>,
}

impl Entry {
    /// An entry whose keys come from `source`.
    pub(super) fn new(
        scope: KeyScope,
        source: KeySource,
        margin: Duration,
        counters: Arc<CacheCounters>,
    ) -> Self {
        Self {
            source: Some(source),
            margin,
            ..Self::with(scope, None, counters)
        }
    }

    /// The same for a scope that was made for a request: until it has had a key it waits its turn
    /// behind all others, and keeps `permit`.
    #[must_use]
    pub(super) fn with_permit(self, permit: OwnedSemaphorePermit) -> Self {
        if self.source.is_some() {
            self.history().permit = Some(permit);
        }
        self
    }

    /// Whether it was made for a request, and has never had a key.
    pub(super) fn is_new(&self) -> bool {
        self.history().permit.is_some()
    }

    /// Takes the key of `old`, which was of the same scope before a reload.
    pub(super) fn take_over(&self, old: &Self) {
        let (generation, expires) = {
            let history = old.history();
            (history.generation, history.expires)
        };
        let mut history = self.history();
        self.current.store(old.current.load_full());
        // The key may be a newer one by now.
        let newest = self.current.load().as_ref().map(|key| key.generation);
        history.generation = generation.max(newest.unwrap_or_default());
        history.expires = expires;
        self.hits.store(old.hits(), Ordering::Relaxed);
    }

    /// What its keys are for.
    pub(super) fn scope(&self) -> &KeyScope {
        &self.scope
    }

    /// An entry of a permanent key.
    pub(super) fn permanent(
        scope: KeyScope,
        key: Credential,
        counters: Arc<CacheCounters>,
    ) -> Self {
        Self::with(scope, Some(key), counters)
    }

    fn with(scope: KeyScope, key: Option<Credential>, counters: Arc<CacheCounters>) -> Self {
        Self {
            scope,
            current: ArcSwapOption::from_pointee(key),
            source: None,
            calls: SingleFlight::new(),
            history: Mutex::new(KeyHistory {
                schedule: CallSchedule::new(Instant::now()),
                generation: 0,
                expires: None,
                permit: None,
            }),
            margin: Duration::ZERO,
            waiters: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            counters,
            is_renewal_wanted: AtomicBool::new(false),
        }
    }

    /// The key, if it may still sign at `now`. A key that is due is renewed in the background.
    pub fn live(self: &Arc<Self>, now: Instant) -> Option<Arc<Credential>> {
        let current = self.current.load();
        let credential = current
            .as_ref()
            .filter(|credential| credential.is_live(now))?;
        if credential.is_due(now) {
            self.request(Urgency::Refresh);
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

    /// Has its first key fetched before a request needs it, behind all calls that requests wait for.
    pub(super) fn warm(self: &Arc<Self>) {
        if !self.is_settled() {
            self.request(Urgency::Refresh);
        }
    }

    /// Has a key fetched if there is none, as soon as the schedule of its calls allows.
    pub(super) fn retry(self: &Arc<Self>) {
        if !self.has_live(Instant::now()) {
            self.request(Urgency::Refresh);
        }
    }

    /// Has another key fetched, once, behind all calls that requests wait for. The one in use serves until then.
    pub(super) fn renew(self: &Arc<Self>) {
        self.is_renewal_wanted.store(true, Ordering::Release);
        self.request(Urgency::Refresh);
    }

    /// Whether its key is the issuer's own.
    pub(super) fn is_permanent(&self) -> bool {
        self.source.is_none()
    }

    /// The last key, live or not.
    pub(super) fn last_key(&self) -> Option<Arc<Credential>> {
        self.current.load_full()
    }

    /// Whether a call for a key is wanted or made.
    pub(super) fn is_calling(&self) -> bool {
        self.calls.state().phase() != CallPhase::Idle
    }

    /// How the last call failed, if it did.
    pub(super) fn failure(&self) -> Option<Arc<FlightFailure<StsError>>> {
        self.calls.subscribe().borrow().failure.clone()
    }

    /// Whether there was a key, or a call for one has failed.
    pub(super) fn is_settled(&self) -> bool {
        self.is_permanent() || self.history().generation > 0 || self.failure().is_some()
    }

    /// COS refused the key of this generation: it is dropped and another requested, once, however many
    /// requests say so. A key that had worked is replaced at once. When COS refuses a new key, the next
    /// one need not be better, and comes after a pause. Returns whether [`Entry::get`] can give another
    /// key.
    pub fn reject(self: &Arc<Self>, generation: u64) -> bool {
        self.reject_with(generation, fastrand::f64())
    }

    /// The same; `chance`, from 0 to 1, spreads the waits.
    fn reject_with(self: &Arc<Self>, generation: u64, chance: f64) -> bool {
        let mut history = self.history();
        let current = self.current.load();
        let Some(credential) = &*current else {
            return true;
        };
        if credential.generation != generation {
            return credential.generation > generation;
        }
        if self.source.is_none() {
            return false; // a permanent key
        }
        let now = Instant::now();
        if credential.has_worked() {
            history.schedule.replace(now);
        } else {
            history.schedule.postpone(now, chance);
            let what = "COS refuses the new keys of this scope";
            let failure = FlightFailure {
                error: StsError::new(StsClass::Retry, KEY_REFUSED, what),
                until: history.schedule.next_call(),
            };
            self.calls
                .revise(|results| results.failure = Some(Arc::new(failure)));
        }
        self.current.compare_and_swap(&current, None);
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        drop(history);
        self.request(Urgency::Cold)
    }

    /// Whether there is a live key at `now`. Requests none.
    pub fn has_live(&self, now: Instant) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|credential| credential.is_live(now))
    }

    /// When its key ends, if it is live and not permanent.
    pub(super) fn live_key_end(&self, now: Instant) -> Option<Timestamp> {
        let credential = self.current.load();
        let live = credential.as_ref().filter(|key| key.is_live(now));
        live?.expires
    }

    /// Requests that found a live key.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// What is counted of all entries.
    pub(super) fn counters(&self) -> &CacheCounters {
        &self.counters
    }

    /// Takes back a request for a call that was not begun.
    pub(super) fn withdraw(&self, urgency: Urgency) {
        self.calls.state().withdraw(urgency);
    }

    /// The requested call has this number in its issuer's queue.
    pub(super) fn join(&self, urgency: Urgency, number: u64) {
        self.calls.state().join(urgency, number);
    }

    /// When the last key that it had expires or expired: only one that lives longer is another.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.history().expires
    }

    /// When the next call may be made.
    pub(super) fn next_call(&self, urgency: Urgency) -> Instant {
        let history = self.history();
        match urgency {
            Urgency::Cold | Urgency::First => history.schedule.next_call(),
            Urgency::Refresh => history.schedule.next_refresh(),
        }
    }

    /// Begins the call that was requested with `urgency`, if it is still needed: a request that saw no
    /// key, or an old one, may come just after another key has. Each begin needs its [`Entry::finish`].
    pub(super) fn begin(self: &Arc<Self>, urgency: Urgency) -> bool {
        if self.needs(urgency) {
            let begun = self.calls.state().begin(urgency);
            if begun {
                self.history().schedule.begin(Instant::now());
            }
            return begun;
        }
        if self.calls.state().withdraw(urgency) && self.needs(urgency) {
            self.request(self.urgency()); // COS refused the key in between, or a request came
        }
        false
    }

    /// Whether a call is of use. The requests that waited for a first key may all have gone, and none
    /// may come back.
    fn needs(&self, urgency: Urgency) -> bool {
        let is_abandoned = urgency == Urgency::First && self.waiters.load(Ordering::Acquire) == 0;
        let is_wanted = self.is_renewal_wanted.load(Ordering::Acquire);
        !is_abandoned && (is_wanted || !self.is_fresh())
    }

    /// How urgent a key is to a request that has none.
    fn urgency(&self) -> Urgency {
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
        self.is_renewal_wanted.store(false, Ordering::Release); // one call, whatever it gave
        let kept = result.and_then(|issued| self.keep(issued, now, chance));
        self.calls.finish(kept.map_err(|error| {
            let mut history = self.history();
            history.schedule.fail(error.class, now, chance);
            let stands = history.schedule.next_call().saturating_duration_since(now);
            (error, stands)
        }));
    }

    fn keep(&self, issued: Issued, now: Instant, chance: f64) -> Result<(), StsError> {
        if issued.life < MIN_LIFE {
            let what = format!("the key lives for {:?} only", issued.life);
            return Err(StsError::new(StsClass::Retry, "ShortKey", what));
        }
        let (life, expires) = (plan(now, issued.life, self.margin, chance), issued.expires);
        let credential = issued
            .credential()
            .map_err(|error| StsError::new(StsClass::Retry, "Unreadable", error.to_string()))?;
        let mut history = self.history();
        history.schedule.succeed();
        history.generation += 1;
        history.permit = None;
        history.expires = Some(expires);
        let credential = credential.with_life(life, history.generation);
        self.current.store(Some(Arc::new(credential)));
        Ok(())
    }

    /// Has a call made. Returns false when the thread that makes calls has ended.
    fn request(self: &Arc<Self>, urgency: Urgency) -> bool {
        let Some(KeySource { requests, .. }) = &self.source else {
            return false;
        };
        if !self.calls.state().request(urgency) {
            return !requests.is_closed();
        }
        let entry = Arc::clone(self);
        requests.send(CallRequest { entry, urgency }).is_ok()
    }

    fn history(&self) -> MutexGuard<'_, KeyHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::issue_error::NoKey;
    use super::super::schedule::CALL_GAP;
    use super::waiting::WAIT;
    use super::*;
    use crate::config::CallRate;
    use crate::error::S3Error;
    use crate::secret::Secret;

    pub(super) const HOUR: Duration = Duration::from_hours(1);

    const MARGIN: Duration = Duration::from_secs(30);

    pub(super) fn entry() -> (Arc<Entry>, mpsc::UnboundedReceiver<CallRequest>) {
        let (source, receiver) = source();
        let entry = Entry::new(scope(), source, MARGIN, Arc::default());
        (Arc::new(entry), receiver)
    }

    pub(super) fn source() -> (KeySource, mpsc::UnboundedReceiver<CallRequest>) {
        let rate = CallRate {
            per_second: 100,
            burst: 200,
        };
        let (requests, receiver) = mpsc::unbounded_channel();
        let source = KeySource {
            requests,
            breaker: Arc::new(Breaker::new()),
            backlog: Arc::new(Backlog::new("main", rate)),
        };
        (source, receiver)
    }

    fn scope() -> KeyScope {
        KeyScope {
            tenant: "acme".into(),
            policy: "{}".into(),
            issuer: 0,
        }
    }

    pub(super) fn issued(life: Duration) -> Issued {
        Issued {
            secret_id: "AKID".into(),
            secret_key: Secret::new("KEY"),
            token: Secret::new("TOKEN"),
            expires: Timestamp::from_unix(1_768_480_245),
            life,
            request_id: String::new(),
        }
    }

    pub(super) fn failed(code: &str) -> Result<Issued, StsError> {
        Err(StsError::new(StsClass::of(code), code, "down"))
    }

    pub(super) fn give(entry: &Arc<Entry>, result: Result<Issued, StsError>) {
        assert!(entry.begin(Urgency::Cold) || entry.begin(Urgency::Refresh));
        entry.finish(result, 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn serves_a_live_key_and_renews_it_once_when_due() {
        let (entry, mut requests) = entry();
        entry.request(Urgency::Cold);
        give(&entry, Ok(issued(HOUR)));
        requests.recv().await.unwrap();
        tokio::time::advance(Duration::from_mins(29)).await;
        assert_eq!(entry.get().await.unwrap().generation, 1);
        assert!(requests.try_recv().is_err());
        tokio::time::advance(Duration::from_mins(1)).await;
        for _ in 0..100 {
            assert_eq!(entry.get().await.unwrap().generation, 1);
        }
        assert_eq!(requests.try_recv().unwrap().urgency, Urgency::Refresh);
        assert!(requests.try_recv().is_err());
        give(&entry, Ok(issued(HOUR)));
        assert_eq!(entry.get().await.unwrap().generation, 2);
        assert_eq!(entry.hits(), 102);
    }

    #[tokio::test(start_paused = true)]
    async fn serves_a_key_to_its_hard_end_while_sts_is_down() {
        let (entry, mut requests) = entry();
        entry.request(Urgency::Cold);
        give(&entry, Ok(issued(HOUR)));
        requests.recv().await.unwrap();
        let end = Instant::now() + HOUR - MARGIN;
        let mut calls = 0;
        while Instant::now() < end {
            assert!(entry.get().await.is_ok());
            if let Ok(call) = requests.try_recv() {
                tokio::time::sleep_until(entry.next_call(call.urgency)).await;
                assert!(entry.begin(call.urgency));
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
    async fn replaces_a_key_that_worked_at_once_and_only_once() {
        let (entry, mut requests) = entry();
        entry.request(Urgency::Cold);
        requests.recv().await.unwrap();
        give(&entry, Ok(issued(HOUR)));
        for generation in 1..=10 {
            entry.live(Instant::now()).unwrap().mark_worked();
            assert!(entry.reject(generation) && entry.reject(generation));
            assert!(entry.live(Instant::now()).is_none());
            assert_eq!(requests.recv().await.unwrap().urgency, Urgency::Cold);
            assert!(requests.try_recv().is_err(), "one call for all who say so");
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
    async fn requests_keys_less_often_when_cos_refuses_new_ones() {
        let (entry, mut requests) = entry();
        entry.request(Urgency::Cold);
        requests.recv().await.unwrap();
        give(&entry, Ok(issued(HOUR)));
        let mut pauses = Vec::new();
        for generation in 1..=4 {
            assert!(entry.reject_with(generation, 0.0));
            assert!(entry.live(Instant::now()).is_none(), "never sent again");
            assert_eq!(requests.recv().await.unwrap().urgency, Urgency::Cold);
            let pause = entry.next_call(Urgency::Cold) - Instant::now();
            pauses.push(pause.as_secs());
            tokio::time::advance(pause).await;
            give(&entry, Ok(issued(HOUR)));
        }
        assert_eq!(pauses, [1, 2, 2, 2]);
        // One that works ends it.
        entry.live(Instant::now()).unwrap().mark_worked();
        assert!(entry.reject(5));
        assert!(entry.next_call(Urgency::Cold) <= Instant::now());
        give(&entry, Ok(issued(HOUR)));
        assert!(entry.reject_with(6, 0.0));
        assert_eq!(entry.next_call(Urgency::Cold), Instant::now() + CALL_GAP);
        requests.recv().await.unwrap();
        requests.recv().await.unwrap();
        let error = tokio::spawn(async move { entry.get().await.unwrap_err() });
        let error = error.await.unwrap(); // nobody responds
        assert_eq!(error.reason, NoKey::RefusedByStore);
    }

    #[tokio::test(start_paused = true)]
    async fn raises_the_urgency_of_a_queued_renewal_without_a_second_call() {
        let (entry, mut requests) = entry();
        entry.request(Urgency::Refresh);
        entry.request(Urgency::Cold);
        entry.request(Urgency::Refresh);
        let both = [
            requests.recv().await.unwrap().urgency,
            requests.recv().await.unwrap().urgency,
        ];
        assert_eq!(both, [Urgency::Refresh, Urgency::Cold]);
        assert!(requests.try_recv().is_err());
        assert!(!entry.begin(Urgency::Refresh));
        assert!(entry.begin(Urgency::Cold) && !entry.begin(Urgency::Cold));
        assert!(
            entry.request(Urgency::Cold) && requests.try_recv().is_err(),
            "one is in flight"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn requests_a_first_key_last_and_only_while_a_request_waits() {
        let room = Arc::new(tokio::sync::Semaphore::new(1));
        let (source, mut requests) = source();
        let permit = Arc::clone(&room).try_acquire_owned().unwrap();
        let entry = Entry::new(scope(), source, MARGIN, Arc::default());
        let entry = Arc::new(entry.with_permit(permit));
        assert!(entry.get().await.is_err(), "nobody responds");
        assert_eq!(requests.recv().await.unwrap().urgency, Urgency::First);
        assert!(!entry.begin(Urgency::First) && entry.is_new());
        let waiting = tokio::spawn({
            let entry = Arc::clone(&entry);
            async move { entry.get().await }
        });
        assert_eq!(requests.recv().await.unwrap().urgency, Urgency::First);
        assert!(entry.begin(Urgency::First));
        entry.finish(Ok(issued(HOUR)), 0.0);
        assert_eq!(waiting.await.unwrap().unwrap().generation, 1);
        assert!(!entry.is_new() && room.available_permits() == 1);
        assert!(entry.reject(1));
        assert_eq!(requests.recv().await.unwrap().urgency, Urgency::Cold);
    }

    #[tokio::test(start_paused = true)]
    async fn makes_no_call_when_the_key_has_just_come() {
        let (entry, _requests) = entry();
        entry.request(Urgency::Cold);
        give(&entry, Ok(issued(HOUR)));
        for urgency in [Urgency::Refresh, Urgency::Cold] {
            assert!(entry.request(urgency) && !entry.begin(urgency));
            assert_eq!(entry.calls.state().phase(), CallPhase::Idle);
        }
        assert!(entry.reject(1) && entry.begin(Urgency::Cold));
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_no_key_of_two_seconds() {
        let (entry, _requests) = entry();
        entry.request(Urgency::Cold);
        give(&entry, Ok(issued(Duration::from_secs(2))));
        assert!(entry.live(Instant::now()).is_none());
        assert!(entry.next_call(Urgency::Cold) >= Instant::now() + CALL_GAP);
    }
}
