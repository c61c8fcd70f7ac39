//! A request that waits for a key: its slot, its deadline, and why it waits no longer.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout_at};

use super::{Entry, KeySource};
use crate::credentials::backlog::{Backlog, BacklogSlot};
use crate::credentials::call_state::CallPhase;
use crate::credentials::credential::Credential;
use crate::credentials::issue_error::{IssueError, KEY_REFUSED, NoKey};
use crate::credentials::schedule::CALL_GAP;
use crate::credentials::single_flight::{FlightFailure, Results};
use crate::credentials::sts::StsError;

/// How long a request waits for a key when there is none, in addition to the time until the call's turn.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// The longest time until the turn of a call that a request waits for: clients read for 60 s.
const TURN_WAIT: Duration = Duration::from_secs(30);

/// A turn that is sooner than this needs no time of its own.
const SOON: Duration = Duration::from_millis(100);

/// Limit of requests that wait for one tenant's key.
const WAITERS: usize = 2048;

impl Entry {
    pub(super) async fn wait(self: &Arc<Self>) -> Result<Arc<Credential>, IssueError> {
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
    use crate::credentials::call_state::Urgency;
    use crate::credentials::entry::tests::{HOUR, entry, failed, give, issued};

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
}
