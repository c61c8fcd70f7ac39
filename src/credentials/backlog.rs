//! The calls of one issuer that wait for their turn, as its entries see them: how long that takes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::time::{Duration, Instant};

use super::call_limiter::CallLimiter;
use super::call_state::Urgency;
use crate::config::CallRate;

/// Limit of one issuer's calls in flight.
pub(super) const CALLS_IN_FLIGHT: u32 = 64;
/// Limit of requests that wait for keys of one issuer: each holds its connection and some memory.
const ISSUER_WAITERS: usize = 16 * 1024;
/// While more than half of those wait, this is the limit of one tenant's, so that the rest have room.
const FEW_WAITERS: usize = 16;

/// One issuer's waiting calls.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The issuer's name in the configuration.
    issuer: String,
    rate: CallRate,
    limiter: CallLimiter,
    cold: QueueLength,
    refresh: QueueLength,
    first: QueueLength,
    /// How long a call takes, in microseconds: the mean of the last ones.
    call_micros: AtomicU64,
    waiters: AtomicUsize,
}

/// Calls that were sent to a queue, and that have left it.
#[derive(Debug, Default)]
struct QueueLength {
    sent: AtomicU64,
    left: AtomicU64,
}

impl QueueLength {
    fn waiting(&self) -> u64 {
        let sent = self.sent.load(Ordering::Acquire);
        sent.saturating_sub(self.left.load(Ordering::Acquire))
    }
}

/// One of an issuer's slots for waiting requests, given back on drop.
#[derive(Debug)]
pub(super) struct BacklogSlot<'a>(&'a Backlog);

impl Backlog {
    pub(super) fn new(issuer: &str, rate: CallRate) -> Self {
        Self {
            issuer: issuer.to_owned(),
            rate,
            limiter: CallLimiter::new(rate),
            cold: QueueLength::default(),
            refresh: QueueLength::default(),
            first: QueueLength::default(),
            call_micros: AtomicU64::new(0),
            waiters: AtomicUsize::new(0),
        }
    }

    /// The issuer's name.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Takes the next number of a queue; they begin with 1.
    pub(super) fn join(&self, urgency: Urgency) -> u64 {
        self.queue(urgency).sent.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn leave(&self, urgency: Urgency) {
        self.queue(urgency).left.fetch_add(1, Ordering::AcqRel);
    }

    fn queue(&self, urgency: Urgency) -> &QueueLength {
        match urgency {
            Urgency::Cold => &self.cold,
            Urgency::Refresh => &self.refresh,
            Urgency::First => &self.first,
        }
    }

    /// How long it takes until the turn of the call with this number, or of the next one that is sent.
    pub(super) fn turn_of(&self, urgency: Urgency, number: Option<u64>) -> Duration {
        let queue = self.queue(urgency);
        let own = number.map_or_else(
            || queue.waiting() + 1,
            |number| number.saturating_sub(queue.left.load(Ordering::Acquire)),
        );
        let others = Urgency::ALL.iter().filter(|other| **other > urgency);
        let ahead = own
            + others
                .map(|other| self.queue(*other).waiting())
                .sum::<u64>();
        let by_rate = self.limiter.ready_in(ahead, Instant::now());
        // Slow calls use all of `CALLS_IN_FLIGHT`: then these are the rate.
        let call = self.call_time();
        let rounds = ahead.saturating_sub(1) / u64::from(CALLS_IN_FLIGHT);
        by_rate.max(call.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)))
    }

    /// A slot for a waiting request of an entry with so many others; `None` when there is none.
    pub(super) fn wait(&self, of_entry: usize) -> Option<BacklogSlot<'_>> {
        let next = |count: usize| {
            let is_crowded = count >= ISSUER_WAITERS / 2 && of_entry >= FEW_WAITERS;
            (count < ISSUER_WAITERS && !is_crowded).then_some(count + 1)
        };
        self.waiters
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .ok()
            .map(|_| BacklogSlot(self))
    }

    /// Calls that wait for their turn.
    pub(super) fn waiting(&self) -> u64 {
        Urgency::ALL.map(|of| self.queue(of).waiting()).iter().sum()
    }

    /// How often calls are made.
    pub(super) fn rate(&self) -> CallRate {
        self.rate
    }

    /// How long a call takes: the mean of the last ones, zero before the first.
    pub(super) fn call_time(&self) -> Duration {
        Duration::from_micros(self.call_micros.load(Ordering::Relaxed))
    }

    /// For the operator: why requests wait.
    pub(super) fn describe(&self) -> String {
        let waiting = self.waiting();
        let (issuer, rate) = (&self.issuer, self.rate);
        format!(
            "cosgate's own limit on calls to STS is reached, and {waiting} calls wait for their turn: issuers.{issuer}.calls_per_second = {}, burst = {}",
            rate.per_second, rate.burst
        )
    }

    pub(super) fn record_call(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mean = |old: u64| match old {
            0 => Some(micros),
            old => Some(old - old / 8 + micros / 8),
        };
        let _ = self
            .call_micros
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, mean);
    }

    /// The rate of the calls.
    pub(super) fn limiter(&self) -> &CallLimiter {
        &self.limiter
    }
}

impl Drop for BacklogSlot<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: CallRate = CallRate {
        per_second: 100,
        burst: 200,
    };

    /// Calls that take two seconds each go at 32 a second, whatever the rate allows.
    #[tokio::test(start_paused = true)]
    async fn estimates_a_later_turn_when_calls_are_slow() {
        let backlog = Backlog::new("main", RATE);
        for _ in 0..640 {
            backlog.join(Urgency::Cold);
        }
        let by_rate = backlog.turn_of(Urgency::Cold, None).as_secs_f64();
        assert!((4.0..5.0).contains(&by_rate), "{by_rate}");
        for _ in 0..100 {
            backlog.record_call(Duration::from_secs(2));
        }
        let slow = backlog.turn_of(Urgency::Cold, None).as_secs_f64();
        assert!((19.0..21.0).contains(&slow), "{slow}");
        // Calls that a request waits for do not wait for the others.
        let other = Backlog::new("main", RATE);
        for _ in 0..640 {
            other.join(Urgency::First);
        }
        assert_eq!(other.turn_of(Urgency::Cold, None), Duration::ZERO);
        assert!(other.turn_of(Urgency::First, None) > Duration::from_secs(4));
        assert_eq!(other.turn_of(Urgency::First, Some(200)), Duration::ZERO);
    }

    #[test]
    fn leaves_room_for_other_tenants() {
        let backlog = Backlog::new("main", RATE);
        let many: Vec<_> = (0..ISSUER_WAITERS).map_while(|n| backlog.wait(n)).collect();
        assert_eq!(many.len(), ISSUER_WAITERS / 2);
        assert!(backlog.wait(FEW_WAITERS).is_none() && backlog.wait(0).is_some());
        drop(many);
        assert!(backlog.wait(FEW_WAITERS).is_some());
    }
}
