//! When keys are renewed and calls are made: the life of a key, and pauses after failures.

use tokio::time::{Duration, Instant};

use super::credential::Life;
use super::sts::StsClass;

/// The time between two calls for one tenant, whatever happens.
pub(super) const CALL_GAP: Duration = Duration::from_secs(1);
/// COS may refuse so many working keys of one tenant that are replaced at once. After these, one is
/// replaced each [`CALL_GAP`].
const REPLACED_AT_ONCE: u32 = 10;
/// The longest pause, while a key is live, after failures that may pass.
const BACKOFF_LIMIT: Duration = Duration::from_mins(1);
/// The same while there is none. With the breaker's own, STS is called at least every five seconds.
const WAITED_FOR_LIMIT: Duration = Duration::from_secs(4);
/// A permanent failure stands for this long, and up to as much again.
const REFUSAL: Duration = Duration::from_secs(30);
/// The longest life that is believed: Tencent's limit is 36 hours.
const MAX_LIFE: Duration = Duration::from_hours(7 * 24);

/// When the next calls for one key can be made. Chances, from 0 to 1, spread them.
#[derive(Debug)]
pub(super) struct CallSchedule {
    /// No call is made before this,
    next_call: Instant,
    /// and none before this while a key is live.
    next_refresh: Instant,
    /// When the last call began,
    began: Instant,
    /// and how many have.
    calls: u64,
    failures: u32,
    /// Keys in a row that COS refused before it had accepted them once.
    unworkable: u32,
    /// Replacements at once are paid for until then, each with a [`CALL_GAP`].
    paid_until: Instant,
}

impl CallSchedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next_call: now,
            next_refresh: now,
            began: now,
            calls: 0,
            failures: 0,
            unworkable: 0,
            paid_until: now,
        }
    }

    /// When the next call can be made while there is no key.
    pub(super) fn next_call(&self) -> Instant {
        self.next_call
    }

    /// The same while a key is live.
    pub(super) fn next_refresh(&self) -> Instant {
        self.next_call.max(self.next_refresh)
    }

    /// The number of the last call, from 1, and when it began.
    pub(super) fn last_call(&self) -> (u64, Instant) {
        (self.calls, self.began)
    }

    /// Whether COS has refused more than one key in a row that it had not accepted once.
    pub(super) fn is_unworkable(&self) -> bool {
        self.unworkable > 1
    }

    /// A call begins.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.began, self.next_call) = (now, now + CALL_GAP);
        self.calls += 1;
    }

    /// A call gave a key.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// A call failed.
    pub(super) fn fail(&mut self, class: StsClass, now: Instant, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        let pauses = pauses(class, self.failures, chance);
        // A call that took long has been a pause itself.
        let from = if class.is_permanent() {
            now
        } else {
            self.began
        };
        self.next_call = self.next_call.max(from + pauses.waited_for);
        self.next_refresh = now + pauses.refresh;
    }

    /// COS refused a key that it had accepted before: the next call can be made at once, if there have
    /// not been too many such calls lately.
    pub(super) fn replace(&mut self, now: Instant) {
        self.unworkable = 0;
        let paid = self.paid_until.max(now) + CALL_GAP;
        if paid <= now + CALL_GAP * REPLACED_AT_ONCE {
            (self.paid_until, self.next_call) = (paid, now);
        } else {
            self.next_call = self.next_call.max(now + CALL_GAP);
        }
    }

    /// COS refused a new key. The next one need not be better, so that it comes after a pause.
    pub(super) fn postpone(&mut self, now: Instant, chance: f64) {
        self.unworkable = self.unworkable.saturating_add(1);
        let pause = pause_of_unworkable(self.unworkable, chance);
        self.next_call = self.next_call.max(now + pause);
    }
}

/// When a key that came at `issued` is renewed and given up. `chance`, from 0 to 1, places the
/// renewal at 50 to 80 % of its use, so that keys made together are not renewed together. It is
/// given up `margin` before its end, or with a quarter of its life left if that is less.
pub(super) fn plan(issued: Instant, life: Duration, margin: Duration, chance: f64) -> Life {
    let life = life.min(MAX_LIFE);
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

/// After the key number `keys` in a row that COS refused without having accepted it once.
fn pause_of_unworkable(keys: u32, chance: f64) -> Duration {
    let doubled = CALL_GAP.saturating_mul(2_u32.saturating_pow(keys));
    let longest = doubled.min(WAITED_FOR_LIMIT);
    longest.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn plans_the_life_of_a_key() {
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
        assert!(planned(u64::MAX, 1.0).1 <= MAX_LIFE.as_secs_f64());
    }

    #[test]
    fn doubles_pauses_up_to_their_limits() {
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

    #[tokio::test(start_paused = true)]
    async fn replaces_working_keys_at_once_up_to_a_limit() {
        let now = Instant::now();
        let mut schedule = CallSchedule::new(now);
        for _ in 0..REPLACED_AT_ONCE {
            schedule.begin(now);
            schedule.replace(now);
            assert_eq!(schedule.next_call(), now);
        }
        schedule.begin(now);
        schedule.replace(now);
        assert_eq!(schedule.next_call(), now + CALL_GAP);
    }

    #[tokio::test(start_paused = true)]
    async fn postpones_the_call_after_keys_that_never_worked() {
        let mut schedule = CallSchedule::new(Instant::now());
        let mut pauses = Vec::new();
        for _ in 1..=4 {
            let now = Instant::now();
            schedule.postpone(now, 0.0);
            let pause = schedule.next_call() - now;
            pauses.push(pause.as_secs());
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses, [1, 2, 2, 2]);
        assert_eq!(pause_of_unworkable(9, 1.0), WAITED_FOR_LIMIT);
        assert!(schedule.is_unworkable());
        schedule.replace(Instant::now());
        assert!(!schedule.is_unworkable());
    }
}
