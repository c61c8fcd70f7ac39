//! The key of one scope: read without a lock, renewed in the background. A request waits only when
//! there is none.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Duration, Instant, timeout_at};

use super::backlog::{Backlog, BacklogSlot};
use super::breaker::Breaker;
use super::call_state::{CallPhase, Urgency};
use super::credential::Credential;
use super::issue_error::{IssueError, KEY_REFUSED, NoKey};
use super::schedule::{CALL_GAP, CallSchedule, plan};
use super::single_flight::{FlightFailure, Results, SingleFlight};
use super::sts::{Issued, StsClass, StsError};
use crate::observe::CacheCounters;
use crate::timestamp::Timestamp;

/// How long a request waits for a key when there is none, in addition to the time until the call's turn.
const WAIT: Duration = Duration::from_secs(5);
/// The longest time until the turn of a call that a request waits for: clients read for 60 s.
const TURN_WAIT: Duration = Duration::from_secs(30);
/// A turn that is sooner than this needs no time of its own.
const SOON: Duration = Duration::from_millis(100);
/// Limit of requests that wait for one tenant's key.
const WAITERS: usize = 2048;
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

    async fn wait(self: &Arc<Self>) -> Result<Arc<Credential>, IssueError> {
        let source = self.source.as_ref().ok_or_else(shutting_down)?;
        let mut wait = self.begin_wait(source)?;
        loop {
            let failure = wait.results.borrow_and_update().failure.clone();
            let now = Instant::now();
            if let Some(credential) = self.live(now) {
                return Ok(credential);
            }
            self.check_wait(&mut wait, failure.as_deref(), now)?;
            wait.news().await;
        }
    }

    /// Takes a slot for a waiting request, if there is one.
    fn begin_wait<'a>(&'a self, source: &'a KeySource) -> Result<Wait<'a>, IssueError> {
        let slot = WaiterSlot::take(&self.waiters).and_then(|slot| {
            let others = self.waiters.load(Ordering::Acquire) - 1;
            Some((slot, source.backlog.wait(others)?))
        });
        let slot = slot.ok_or_else(|| {
            let why = "too many requests wait for this tenant's key";
            IssueError::new(NoKey::Busy, why, CALL_GAP)
        })?;
        let (call, _) = self.history().schedule.last_call();
        let is_in_flight = self.calls.state().phase() == CallPhase::InFlight;
        Ok(Wait {
            backlog: &source.backlog,
            first_call: call + u64::from(!is_in_flight),
            results: self.calls.subscribe(),
            breaker: source.breaker.subscribe(),
            deadline: Deadline::from(Instant::now()),
            _slot: slot,
        })
    }

    /// Requests a call, and refuses to wait for a key that does not come in time. `failure` is the last
    /// call's.
    fn check_wait(
        self: &Arc<Self>,
        wait: &mut Wait<'_>,
        failure: Option<&FlightFailure<StsError>>,
        now: Instant,
    ) -> Result<(), IssueError> {
        let standing = failure.filter(|failure| failure.stands(now));
        if let Some(failure) = standing
            && failure.error.class.is_permanent()
        {
            return Err(refusal(failure, now));
        }
        if !self.request(self.urgency()) {
            return Err(shutting_down());
        }
        // The next new key comes later, and may be refused as these were: no request waits for it.
        if let Some(failure) = standing
            && failure.error.code == KEY_REFUSED
            && self.history().schedule.is_unworkable()
        {
            return Err(refusal(failure, now));
        }
        wait.check_breaker(failure, now)?;
        let turn = self.turn(wait.backlog, now);
        let (call, began) = self.history().schedule.last_call();
        // Later calls move no deadline, and `failure` may be older than they are.
        match call.cmp(&wait.first_call) {
            Less => wait.deadline.is_queued |= turn.is_some() && now >= wait.deadline.end,
            Equal if turn.is_none() => wait.deadline.include(began),
            Equal | Greater => {}
        }
        wait.check_deadline(failure, turn, now)
    }

    /// How long it takes until the turn of this entry's call; `None` when it does not wait for that.
    fn turn(&self, backlog: &Backlog, now: Instant) -> Option<Duration> {
        match self.calls.state().phase() {
            CallPhase::Queued(urgency, Some(number)) => {
                Some(backlog.turn_of(urgency, Some(number)))
            }
            // It is on the way to the queue, unless it waits for a time of its own.
            CallPhase::Queued(urgency, None) => {
                let turn = backlog.turn_of(urgency, None);
                (turn >= SOON && self.next_call(urgency) <= now).then_some(turn)
            }
            CallPhase::Idle | CallPhase::InFlight => None,
        }
    }

    fn history(&self) -> MutexGuard<'_, KeyHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for a key.
struct Wait<'a> {
    backlog: &'a Backlog,
    /// The number of the call that it waits for first.
    first_call: u64,
    /// How the calls for the key go.
    results: watch::Receiver<Results<(), StsError>>,
    /// Until when the issuer's breaker is or was open.
    breaker: watch::Receiver<Option<Instant>>,
    deadline: Deadline,
    _slot: (WaiterSlot<'a>, BacklogSlot<'a>),
}

impl Wait<'_> {
    /// Refuses to wait while the issuer's calls are held back.
    fn check_breaker(
        &mut self,
        failure: Option<&FlightFailure<StsError>>,
        now: Instant,
    ) -> Result<(), IssueError> {
        let open_until = *self.breaker.borrow_and_update();
        let Some(until) = open_until.filter(|until| now < *until) else {
            return Ok(());
        };
        let last = failure.map(|failure| format!(": {}", failure.error));
        let why = "calls to STS are held back, since most have failed";
        let why = format!("{why}{}", last.unwrap_or_default());
        Err(IssueError::new(NoKey::Unreachable, why, until - now))
    }

    /// Refuses to wait when the key cannot come before the deadline, or has not.
    fn check_deadline(
        &mut self,
        failure: Option<&FlightFailure<StsError>>,
        turn: Option<Duration>,
        now: Instant,
    ) -> Result<(), IssueError> {
        if !self.deadline.reaches(turn, now) {
            let (why, turn) = (self.backlog.describe(), turn.unwrap_or_default());
            return Err(IssueError::new(NoKey::Queued, why, turn));
        }
        let end = self.deadline.end;
        match failure {
            Some(failure) if failure.until >= end || now >= end => Err(refusal(failure, now)),
            None if now >= end => {
                let why = "STS gave no response in time";
                Err(IssueError::new(NoKey::Unreachable, why, CALL_GAP))
            }
            _ => Ok(()),
        }
    }

    /// Waits for a change, to the deadline: the turn may have come later than estimated.
    async fn news(&mut self) {
        let Self {
            results, breaker, ..
        } = self;
        let news = async {
            tokio::select! {
                _ = results.changed() => {}
                _ = breaker.changed() => {}
            }
        };
        let _ = timeout_at(self.deadline.end, news).await;
    }
}

fn shutting_down() -> IssueError {
    let why = "no key can be requested: cosgate is shutting down";
    IssueError::new(NoKey::Ending, why, CALL_GAP)
}

fn refusal(failure: &FlightFailure<StsError>, now: Instant) -> IssueError {
    let wait = failure.until.saturating_duration_since(now);
    IssueError::of(&failure.error, wait)
}

/// Until when a request waits.
struct Deadline {
    began: Instant,
    end: Instant,
    /// Its call waits for its turn for longer than it was estimated, or than [`SOON`].
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

    /// Moves the end to [`WAIT`] after the turn of the call. Returns false when that is too far away.
    fn reaches(&mut self, turn: Option<Duration>, now: Instant) -> bool {
        let Some(turn) = turn else {
            self.is_queued = false;
            return true;
        };
        let at = now.checked_add(turn);
        let Some(at) = at.filter(|at| *at <= self.began + TURN_WAIT) else {
            return false;
        };
        self.is_queued |= turn >= SOON;
        if self.is_queued {
            self.end = self.end.max(at + WAIT);
        }
        true
    }
}

/// One of the entry's slots for waiting requests, given back on drop.
struct WaiterSlot<'a>(&'a AtomicUsize);

impl<'a> WaiterSlot<'a> {
    fn take(waiters: &'a AtomicUsize) -> Option<Self> {
        let more = |count| (count < WAITERS).then_some(count + 1);
        waiters
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, more)
            .ok()
            .map(|_| Self(waiters))
    }
}

impl Drop for WaiterSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CallRate;
    use crate::error::S3Error;
    use crate::secret::Secret;

    const HOUR: Duration = Duration::from_hours(1);
    const MARGIN: Duration = Duration::from_secs(30);

    fn entry() -> (Arc<Entry>, mpsc::UnboundedReceiver<CallRequest>) {
        let (source, receiver) = source();
        let entry = Entry::new(scope(), source, MARGIN, Arc::default());
        (Arc::new(entry), receiver)
    }

    fn source() -> (KeySource, mpsc::UnboundedReceiver<CallRequest>) {
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
    async fn waits_for_the_key_of_the_second_call() {
        let (entry, mut requests) = entry();
        let waiting = tokio::spawn({
            let entry = Arc::clone(&entry);
            async move { entry.get().await }
        });
        assert_eq!(requests.recv().await.unwrap().urgency, Urgency::Cold);
        give(&entry, failed("InternalError"));
        assert_eq!(requests.recv().await.unwrap().urgency, Urgency::Cold);
        tokio::time::sleep_until(entry.next_call(Urgency::Cold)).await;
        give(&entry, Ok(issued(HOUR)));
        assert_eq!(waiting.await.unwrap().unwrap().generation, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn remembers_a_permanent_refusal_for_half_a_minute() {
        let (entry, mut requests) = entry();
        entry.request(Urgency::Cold);
        requests.recv().await.unwrap();
        give(&entry, failed("InvalidParameter.PolicyTooLong"));
        for _ in 0..100 {
            let before = Instant::now();
            let error = entry.get().await.unwrap_err();
            assert!(error.detail.contains("fewer prefixes") && before.elapsed() < CALL_GAP);
            assert_eq!((error.reason, error.retry_after), (NoKey::Refused, None));
        }
        assert!(requests.try_recv().is_err());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(entry.get().await.is_err()); // nobody responds this one
        assert_eq!(requests.try_recv().unwrap().urgency, Urgency::Cold);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_the_wait_and_the_number_of_waiters() {
        let (entry, _requests) = entry();
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

    /// The first call fails in the last moment of a wait, just after the request has read the results, and
    /// another request has had the next call queued or begun.
    #[tokio::test(start_paused = true)]
    async fn waits_no_longer_for_a_call_that_follows_a_failure() {
        for is_begun in [false, true] {
            let (entry, _requests) = entry();
            let mut wait = entry.begin_wait(entry.source.as_ref().unwrap()).unwrap();
            let failure = wait.results.borrow_and_update().failure.clone();
            entry.request(Urgency::Cold);
            assert!(entry.begin(Urgency::Cold));
            tokio::time::advance(WAIT).await;
            entry.finish(failed("InternalError"), 0.5);
            entry.request(Urgency::Cold);
            entry.join(Urgency::Cold, 1);
            assert!(!is_begun || entry.begin(Urgency::Cold));
            let checked = entry.check_wait(&mut wait, failure.as_deref(), Instant::now());
            assert!(checked.is_err(), "{is_begun}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_from_the_begin_of_a_first_call_whose_turn_comes_late() {
        let (entry, _requests) = entry();
        let mut wait = entry.begin_wait(entry.source.as_ref().unwrap()).unwrap();
        entry.request(Urgency::Cold);
        entry.join(Urgency::Cold, 1);
        tokio::time::advance(WAIT).await;
        let now = Instant::now();
        assert_eq!(entry.check_wait(&mut wait, None, now), Ok(()));
        assert!(entry.begin(Urgency::Cold));
        assert_eq!(entry.check_wait(&mut wait, None, now), Ok(()));
        assert_eq!(wait.deadline.end, now + WAIT);
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
