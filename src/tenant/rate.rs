//! A rate with credit after a rest: the generic cell rate algorithm (ITU-T I.371). Pure.
//!
//! One number is all that is shared: the time until which everything so far is paid for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many units a second. `now` is the time since any fixed moment.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    /// Nanoseconds that may be paid for ahead of time.
    credit: u64,
    /// Everything taken so far is paid for at this time, in nanoseconds.
    paid_at: AtomicU64,
}

impl Rate {
    /// A rate that may run ahead by `credit`.
    pub(crate) fn new(per_second: u64, credit: Duration) -> Self {
        Self {
            per_second: per_second.max(1),
            credit: nanos(credit),
            paid_at: AtomicU64::new(0),
        }
    }

    /// A rate of which `burst` units can be taken at once.
    pub(crate) fn with_burst(per_second: u64, burst: u64) -> Self {
        let mut rate = Self::new(per_second, Duration::ZERO);
        rate.credit = rate.cost(burst);
        rate
    }

    /// Goes on where `old` is, which may be another rate: what was taken there is not paid for here either.
    pub(crate) fn take_over(&self, old: &Self) {
        let paid_at = old.paid_at.load(Ordering::Relaxed);
        self.paid_at.store(paid_at, Ordering::Relaxed);
    }

    /// Whether the credit is whole again.
    pub(crate) fn is_paid(&self, now: Duration) -> bool {
        self.paid_at.load(Ordering::Relaxed) <= nanos(now)
    }

    /// Takes one unit if there is credit for it, else says when there will be.
    pub(crate) fn take(&self, now: Duration) -> Result<(), Duration> {
        let (now, cost) = (nanos(now), self.cost(1));
        let next = |paid_at: u64| {
            let next = paid_at.max(now).saturating_add(cost);
            (next - now <= self.credit).then_some(next)
        };
        self.paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map(drop)
            .map_err(|paid_at| self.lacking(paid_at, now, cost))
    }

    /// Takes `units`, credit or not, and says how long it takes to pay for them.
    pub(crate) fn charge(&self, now: Duration, units: u64) -> Duration {
        let (now, cost) = (nanos(now), self.cost(units));
        let after = |paid_at: u64| Some(paid_at.max(now).saturating_add(cost));
        let before = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        let (Ok(before) | Err(before)) = before;
        self.lacking(before, now, cost)
    }

    /// How long it takes until there is credit for `units`. Takes none.
    pub(crate) fn ready_in(&self, now: Duration, units: u64) -> Duration {
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        self.lacking(paid_at, nanos(now), self.cost(units))
    }

    /// What `units` cost, in nanoseconds.
    fn cost(&self, units: u64) -> u64 {
        let nanos = u128::from(units) * 1_000_000_000 / u128::from(self.per_second);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// How long it takes until there is credit for `cost` more than was paid for at `paid_at`.
    fn lacking(&self, paid_at: u64, now: u64, cost: u64) -> Duration {
        let ahead = paid_at.max(now).saturating_add(cost) - now;
        Duration::from_nanos(ahead.saturating_sub(self.credit))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_when_units_can_be_taken_and_takes_none() {
        let rate = Rate::with_burst(100, 200);
        let now = Duration::from_secs(7);
        let ready_in = |units| rate.ready_in(now, units);
        assert_eq!(
            (ready_in(200), ready_in(201)),
            (Duration::ZERO, Duration::from_millis(10))
        );
        for _ in 0..200 {
            assert_eq!(rate.take(now), Ok(()));
        }
        assert_eq!(rate.take(now), Err(ready_in(1)));
        assert_eq!(ready_in(100), Duration::from_secs(1));
        assert_eq!(rate.charge(now, 100), ready_in(0));
        assert_eq!(ready_in(1), Duration::from_millis(1010));
        assert!(rate.ready_in(Duration::ZERO, u64::MAX) > Duration::from_hours(24));
    }
}
