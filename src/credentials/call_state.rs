//! State of the call for one key: idle, queued or in flight. Lock-free.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a call is wanted, the least urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// A request waits for the first key of a scope that was made for a request.
    First = 1,
    /// The live key should be renewed.
    Refresh = 2,
    /// A request waits.
    Cold = 3,
}

impl Urgency {
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Refresh, Self::Cold];
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallPhase {
    /// No call is wanted.
    Idle,
    /// A call waits for its turn. It has its number in the issuer's queue once it has joined that.
    Queued(Urgency, Option<u64>),
    /// A call is made.
    InFlight,
}

/// A [`CallPhase`] in one word: the phase in the last three bits, the number in the others.
#[derive(Debug)]
pub(super) struct CallState(AtomicU64);

const PHASE_BITS: u32 = 3;
const PHASE: u64 = (1 << PHASE_BITS) - 1;
const IDLE: u64 = 0;
const IN_FLIGHT: u64 = 4; // more than each `Urgency`

impl CallState {
    pub(super) fn idle() -> Self {
        Self(AtomicU64::new(IDLE))
    }

    pub(super) fn phase(&self) -> CallPhase {
        let state = self.0.load(Ordering::Acquire);
        let queued = Urgency::ALL
            .into_iter()
            .find(|urgency| *urgency as u64 == state & PHASE);
        match (queued, state >> PHASE_BITS) {
            (Some(urgency), 0) => CallPhase::Queued(urgency, None),
            (Some(urgency), number) => CallPhase::Queued(urgency, Some(number)),
            (None, _) if state & PHASE == IN_FLIGHT => CallPhase::InFlight,
            (None, _) => CallPhase::Idle,
        }
    }

    /// Wants a call. Returns false when one is queued that is as urgent, or one is in flight.
    pub(super) fn request(&self, urgency: Urgency) -> bool {
        self.update(|state| (state & PHASE < urgency as u64).then_some(urgency as u64))
    }

    /// Notes the number in the queue, from 1, of the call that waits with `urgency`.
    pub(super) fn join(&self, urgency: Urgency, number: u64) {
        self.update(|state| {
            (state & PHASE == urgency as u64).then_some(number << PHASE_BITS | urgency as u64)
        });
    }

    /// Drops the call that waits with `urgency`. Returns false when none does.
    pub(super) fn withdraw(&self, urgency: Urgency) -> bool {
        self.update(|state| (state & PHASE == urgency as u64).then_some(IDLE))
    }

    /// Begins the call that waits with `urgency`. Returns false when none does.
    pub(super) fn begin(&self, urgency: Urgency) -> bool {
        self.update(|state| (state & PHASE == urgency as u64).then_some(IN_FLIGHT))
    }

    /// Begins a call that was not queued, if none is queued or in flight.
    pub(super) fn begin_at_once(&self) -> bool {
        self.update(|state| (state & PHASE == IDLE).then_some(IN_FLIGHT))
    }

    /// The call has ended.
    pub(super) fn end(&self) {
        self.0.store(IDLE, Ordering::Release);
    }

    fn update(&self, next: impl FnMut(u64) -> Option<u64>) -> bool {
        let updated = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        updated.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_urgency_and_begins_once() {
        let state = CallState::idle();
        assert!(state.request(Urgency::Refresh) && !state.request(Urgency::Refresh));
        assert!(state.request(Urgency::Cold) && !state.request(Urgency::Refresh));
        assert!(!state.begin(Urgency::Refresh) && !state.begin_at_once());
        assert!(state.begin(Urgency::Cold) && !state.begin(Urgency::Cold));
        assert!(!state.request(Urgency::Cold) && !state.withdraw(Urgency::Cold));
        assert_eq!(state.phase(), CallPhase::InFlight);
        state.end();
        assert_eq!(state.phase(), CallPhase::Idle);
        assert!(state.begin_at_once());
    }

    #[test]
    fn keeps_the_queue_number_of_the_current_urgency_only() {
        let state = CallState::idle();
        for (number, urgency) in (1..).zip(Urgency::ALL) {
            assert!(state.request(urgency));
            assert_eq!(state.phase(), CallPhase::Queued(urgency, None));
            state.join(urgency, number);
            assert_eq!(state.phase(), CallPhase::Queued(urgency, Some(number)));
        }
        state.join(Urgency::Refresh, 99); // an older request joins late
        assert_eq!(state.phase(), CallPhase::Queued(Urgency::Cold, Some(3)));
        assert!(state.withdraw(Urgency::Cold));
        assert_eq!(state.phase(), CallPhase::Idle);
        state.join(Urgency::Cold, 4);
        assert_eq!(state.phase(), CallPhase::Idle);
    }
}
