//! The rate of one issuer's calls to STS, on the monotonic clock.
//!
//! A crate such as `governor` does not fit. A waiting request must know when its turn is, and `governor`
//! cannot say when more calls than its burst would be ready.

use tokio::time::{Duration, Instant};

use crate::config::CallRate;
use crate::tenant::rate::Rate;

/// Keeps calls to a [`CallRate`]: so many a second, and a burst after a rest.
#[derive(Debug)]
pub(super) struct CallLimiter {
    rate: Rate,
    start: Instant,
}

impl CallLimiter {
    pub(super) fn new(rate: CallRate) -> Self {
        Self {
            rate: Rate::with_burst(rate.per_second.into(), rate.burst.into()),
            start: Instant::now(),
        }
    }

    /// When the next call can be made.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        now + self.ready_in(1, now)
    }

    /// How long it takes until so many calls could be made.
    pub(super) fn ready_in(&self, calls: u64, now: Instant) -> Duration {
        self.rate.ready_in(self.since_start(now), calls)
    }

    /// Counts a call that is made at `now`.
    pub(super) fn take(&self, now: Instant) {
        self.rate.charge(self.since_start(now), 1);
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn allows_the_burst_and_then_the_rate() {
        let start = Instant::now();
        let limiter = CallLimiter::new(CallRate {
            per_second: 100,
            burst: 200,
        });
        for _ in 0..1200 {
            sleep_until(limiter.ready_at(Instant::now())).await;
            limiter.take(Instant::now());
        }
        let took = start.elapsed().as_secs_f64();
        assert!((9.5..12.5).contains(&took), "{took}"); // 1000 beyond the burst; sleeps are whole ms
    }
}
