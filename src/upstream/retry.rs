//! Retry rules: when a request may be sent to COS again.

use std::cell::Cell;

use crate::s3::Operation;

/// What a retry costs, in units of what a request earns: at most a tenth of the requests are retried,
/// so that retries never become the load that keeps COS down.
const PRICE: u32 = 10;
/// Enough for ten retries at once.
const MOST: u32 = 100;

/// One core's allowance of retries.
#[derive(Debug)]
pub(crate) struct RetryBudget(Cell<u32>);

impl RetryBudget {
    /// A full allowance.
    pub(crate) fn new() -> Self {
        Self(Cell::new(MOST))
    }

    /// Earns for one request.
    pub(crate) fn earn(&self) {
        self.0.set((self.0.get() + 1).min(MOST));
    }

    /// Pays for one retry, if there is enough.
    fn spend(&self) -> bool {
        let left = self.0.get().checked_sub(PRICE);
        if let Some(left) = left {
            self.0.set(left);
        }
        left.is_some()
    }
}

/// The tries of one request: each reason to try again counts once.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each reason to try again is used once, whatever the others are"
)]
pub(crate) struct Tries {
    /// Doing it twice is as good as once.
    repeatable: bool,
    repaired: bool,
    resent: bool,
    rekeyed: bool,
    retimed: bool,
}

impl Tries {
    /// `conditional`: it is done only if the object is, or is not, what the client declares. What was done
    /// then refuses its own repetition, and the client would hear that it was not done.
    pub(crate) fn of(operation: Operation, conditional: bool) -> Self {
        let reads = operation.reads_object();
        Self {
            repeatable: operation.is_idempotent() && (reads || !conditional),
            repaired: false,
            resent: false,
            rekeyed: false,
            retimed: false,
        }
    }

    /// Whether to try again when no connection could be made: nothing was sent, so any operation may.
    pub(crate) fn after_no_connection(&mut self, budget: &RetryBudget) -> bool {
        !std::mem::replace(&mut self.resent, true) && budget.spend()
    }

    /// Whether to try again when a connection broke before the response: COS may have done what was
    /// requested, so only what may be done twice is sent twice. `replayable`: the body can be.
    pub(crate) fn after_broken(&mut self, replayable: bool, budget: &RetryBudget) -> bool {
        replayable
            && self.repeatable
            && !std::mem::replace(&mut self.resent, true)
            && budget.spend()
    }

    /// Whether to try again when COS refused a body that was damaged on the way: it did nothing.
    pub(crate) fn after_damage(&mut self, replayable: bool, budget: &RetryBudget) -> bool {
        replayable && !std::mem::replace(&mut self.repaired, true) && budget.spend()
    }

    /// Whether to try again with another key when COS refused this one: it did nothing.
    pub(crate) fn after_key_refused(&mut self, replayable: bool) -> bool {
        replayable && !std::mem::replace(&mut self.rekeyed, true)
    }

    /// The same when COS refused the time that was signed, and its response has the right one.
    pub(crate) fn after_time_refused(&mut self, replayable: bool) -> bool {
        replayable && !std::mem::replace(&mut self.retimed, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_tenth_of_the_requests_are_retried_for_long() {
        let budget = RetryBudget::new();
        let mut retried = 0;
        for _ in 0..10_000 {
            budget.earn();
            retried += u32::from(Tries::of(Operation::GetObject, true).after_broken(true, &budget));
        }
        assert!((1000..=1010).contains(&retried), "{retried}");
    }

    #[test]
    fn what_may_not_be_done_twice_is_not_sent_twice() {
        let budget = RetryBudget::new();
        let complete = Operation::CompleteMultipartUpload;
        assert!(!Tries::of(complete, false).after_broken(true, &budget));
        assert!(Tries::of(complete, false).after_no_connection(&budget));
        assert!(!Tries::of(Operation::PutObject, false).after_broken(false, &budget));
        assert!(Tries::of(Operation::PutObject, false).after_broken(true, &budget));
        assert!(!Tries::of(Operation::PutObject, true).after_broken(true, &budget));
        let mut damaged = Tries::of(complete, true);
        assert!(damaged.after_damage(true, &budget));
        assert!(!damaged.after_damage(true, &budget));
        assert!(!Tries::of(Operation::PutObject, false).after_damage(false, &budget));
        let mut get = Tries::of(Operation::GetObject, true);
        assert!(get.after_broken(true, &budget));
        assert!(!get.after_broken(true, &budget));
    }
}
