//! Circuit breaker of one issuer: stops calls while most of them fail. Requests without a key are then
//! refused at once.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::sts::{Issued, StsError};
use crate::observe::CacheCounters;

/// It opens after so many failures, where three of four calls failed, within [`WINDOW`]: the figures
/// of Tencent's own SDKs.
const FAILURES: u32 = 5;
const WINDOW: Duration = Duration::from_mins(1);
/// How long it is open at first; each probe that fails doubles that, up to [`LONGEST`]: a request that waits
/// while STS comes back is to have a key within five seconds.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(4);

/// Closed: calls are made. Open: none is, until a time. From that time on it is half-open: one call
/// is made, and how that goes closes or opens it.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<BreakerState>,
    /// Until when it is or was open; changes wake requests that wait for a key.
    open: watch::Sender<Option<Instant>>,
}

#[derive(Debug)]
enum BreakerState {
    Closed {
        since: Instant,
        calls: u32,
        failures: u32,
    },
    Open {
        since: Instant,
        /// How often in a row, this one included.
        times: u32,
    },
}

impl Breaker {
    /// A closed one.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(BreakerState::closed(Instant::now())),
            open: watch::Sender::new(None),
        }
    }

    /// When calls may be made again, if none may at `now`.
    pub(super) fn open_until(&self, now: Instant) -> Option<Instant> {
        self.open.borrow().filter(|until| now < *until)
    }

    /// Whether calls fail: it has opened, and no call has succeeded since.
    pub(super) fn is_open(&self) -> bool {
        self.open.borrow().is_some()
    }

    /// Whether the next call is a probe: the only one until it has ended.
    pub(super) fn is_half_open(&self, now: Instant) -> bool {
        self.open.borrow().is_some_and(|until| now >= until)
    }

    /// Until when it is or was open. Changes wake waiters.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Instant>> {
        self.open.subscribe()
    }

    /// Records the result of a call to `issuer` that began at `began`. Counts and logs it if that opens the breaker.
    pub(super) fn record_result(
        &self,
        issuer: &str,
        result: &Result<Issued, StsError>,
        began: Instant,
        counters: &CacheCounters,
    ) {
        if result.as_ref().is_err_and(|error| error.is_repeated) {
            return; // there was no call
        }
        // A response about one tenant's call, or about the issuer's own key, shows that STS works.
        let has_failed = result
            .as_ref()
            .is_err_and(|error| error.class.affects_all_calls());
        if self.record(has_failed, began, Instant::now(), fastrand::f64()) {
            counters.breaker_opened.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                issuer,
                "calls to STS fail: cosgate pauses them, and live keys stay in use"
            );
        }
    }

    /// Records the end of a call. `chance`, from 0 to 1, spreads the probes of several cosgates. Returns
    /// whether it opened.
    fn record(&self, has_failed: bool, began: Instant, now: Instant, chance: f64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let times = match (&mut *state, has_failed) {
            (BreakerState::Open { .. }, false) => {
                *state = BreakerState::closed(now);
                self.open.send_replace(None);
                return false;
            }
            (BreakerState::Open { since, .. }, true) if began < *since => return false,
            (BreakerState::Open { times, .. }, true) => times.saturating_add(1),
            (
                BreakerState::Closed {
                    since,
                    calls,
                    failures,
                },
                _,
            ) => {
                if now.saturating_duration_since(*since) >= WINDOW {
                    (*since, *calls, *failures) = (now, 0, 0);
                }
                *calls = calls.saturating_add(1);
                *failures = failures.saturating_add(u32::from(has_failed));
                let is_bad = *failures >= FAILURES && *failures >= *calls - *calls / 4;
                if !(has_failed && is_bad) {
                    return false;
                }
                1
            }
        };
        // A call without a response has been a pause itself.
        let until = (began + pause(times, chance)).max(now);
        *state = BreakerState::Open { since: now, times };
        self.open.send_replace(Some(until));
        true
    }
}

impl BreakerState {
    fn closed(now: Instant) -> Self {
        Self::Closed {
            since: now,
            calls: 0,
            failures: 0,
        }
    }
}

fn pause(times: u32, chance: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
    let max = SHORTEST.saturating_mul(doubled).min(LONGEST);
    max.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::super::sts::StsClass;
    use super::*;

    fn after(failures: u32, successes: u32) -> Breaker {
        let breaker = Breaker::new();
        for number in 0..failures + successes {
            let now = Instant::now();
            breaker.record(number >= successes, now, now, 1.0);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn opens_when_most_of_five_or_more_calls_fail() {
        let is_open = |failures, successes| {
            let breaker = after(failures, successes);
            breaker.open_until(Instant::now()).is_some()
        };
        assert!(!is_open(4, 0) && is_open(5, 0));
        assert!(!is_open(5, 2) && is_open(6, 2));
        assert!(!is_open(100, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_old_failures() {
        let breaker = after(4, 0);
        tokio::time::advance(WINDOW).await;
        let now = Instant::now();
        assert!(!breaker.record(true, now, now, 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn closes_or_opens_for_longer_after_a_probe() {
        let breaker = after(5, 0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let now = Instant::now();
            let until = breaker.open_until(now).unwrap();
            pauses.push((until - now).as_secs());
            let earlier = now.checked_sub(Duration::from_millis(1)).unwrap();
            assert!(!breaker.record(true, earlier, now, 1.0) && !breaker.is_half_open(now));
            tokio::time::sleep_until(until).await;
            let now = Instant::now();
            assert!(breaker.is_half_open(now) && breaker.open_until(now).is_none());
            assert!(breaker.record(true, now, now, 1.0));
        }
        assert_eq!(pauses, [2, 4, 4, 4, 4, 4]);
        breaker.record(false, Instant::now(), Instant::now(), 1.0);
        assert!(breaker.open_until(Instant::now()).is_none());
        assert!(!breaker.is_half_open(Instant::now()));
        assert_eq!(pause(1, 0.0), SHORTEST / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_a_probe_without_a_response_as_the_pause() {
        let breaker = after(5, 0);
        tokio::time::sleep_until(breaker.open_until(Instant::now()).unwrap()).await;
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(breaker.record(true, began, Instant::now(), 1.0));
        assert!(breaker.is_half_open(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn stays_closed_when_sts_refuses() {
        let breaker = Breaker::new();
        for code in [
            "AuthFailure.SecretIdNotFound",
            "InvalidParameter.StrategyInvalid",
            "FailedOperation.SomethingNew",
            "SomethingNew",
        ] {
            for _ in 0..10 {
                let refused = StsError::new(StsClass::of(code), code, "no");
                breaker.record_result(
                    "main",
                    &Err(refused),
                    Instant::now(),
                    &CacheCounters::default(),
                );
            }
        }
        assert!(breaker.open_until(Instant::now()).is_none());
    }
}
