//! Rates that several replicas keep together, through a store that all of them use. Pure.
//!
//! The store has one account for each rate. A [`LeasedRate`] takes units from it before they are used, a
//! few at a time. A [`ChargedRate`] pays for units that were used. Each has one call in flight at most.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Units that were leased and not used for so long are given up.
const LEASE_LIFE: Duration = Duration::from_secs(1);
/// The shortest time between two calls for an exhausted rate. A lease has the units of this time, so that a replica
/// wastes no more than these.
const LEASE_GAP: Duration = Duration::from_millis(10);
/// The gap is no longer than this part of the credit: what the store cannot keep so long would be lost.
const PARTS_OF_CREDIT: u32 = 8;
/// The longest debt that the store keeps, and the longest wait that it can cause: a clock of the store that was set
/// back cannot make them longer.
const LONGEST_DEBT: Duration = Duration::from_mins(1);

/// The store that replicas have in common.
pub trait RateStore: fmt::Debug + Send + Sync {
    /// Whether it cannot be used now. Each replica then keeps to its own rates.
    fn is_away(&self) -> bool;

    /// Has a call made for `account`. Its result goes to [`RateAccount::succeeded`] or [`RateAccount::failed`].
    fn call(&self, account: Arc<dyn RateAccount>);

    /// The name in the store of what is counted of `owner`.
    fn account_name(&self, owner: &str, counted: &str) -> String;
}

/// A rate that has an account in the store.
pub trait RateAccount: Send + Sync {
    /// The call to make now.
    fn next_call(&self) -> AccountCall<'_>;

    /// The store gave `units`. It has credit for one more after `wait`.
    fn succeeded(&self, now: Duration, units: u64, wait: Duration);

    /// The store has not responded.
    fn failed(&self);
}

/// What the store is requested to do with one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountCall<'a> {
    /// The account's name in the store.
    pub account: &'a str,
    /// Units a second.
    pub per_second: u64,
    /// How far ahead of time units may be paid for.
    pub credit: Duration,
    /// How many units.
    pub units: u64,
    /// Whether they are all taken, with or without credit; otherwise no more than there is credit for.
    pub may_owe: bool,
    /// The store cuts a debt that is longer than this before it makes the call.
    pub longest_debt: Duration,
}

/// Where and for whom rates are shared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing<'a> {
    /// The store.
    pub(crate) store: &'a Arc<dyn RateStore>,
    /// Whose rates they are, by a name that all replicas know.
    pub(crate) owner: &'a str,
}

/// The account and its terms.
#[derive(Debug)]
struct Terms {
    store: Arc<dyn RateStore>,
    account: String,
    per_second: u64,
    credit: Duration,
    /// Between two calls.
    gap: Duration,
}

/// A rate of units that are taken one by one, as requests are.
#[derive(Debug)]
pub(crate) struct LeasedRate {
    terms: Terms,
    /// Units of one lease.
    batch: u64,
    lease: Mutex<HeldLease>,
}

/// Units that this replica has and nobody has used.
#[derive(Debug, Default)]
struct HeldLease {
    units: u64,
    ends: Duration,
    /// The store is not called before this: it has no more.
    call_at: Duration,
    is_call_in_flight: bool,
    waiting: Vec<Waker>,
}

/// A rate of units that are paid for when they were used, as bytes are.
#[derive(Debug)]
pub(crate) struct ChargedRate {
    terms: Terms,
    bill: Mutex<Bill>,
}

/// What this replica has used.
#[derive(Debug, Default)]
struct Bill {
    /// Units that the store does not know of yet.
    unpaid: u64,
    /// Those of them in the call in flight.
    in_call: u64,
    /// What all replicas have used is paid for at this time.
    paid_at: Duration,
    call_at: Duration,
    is_call_in_flight: bool,
}

impl Terms {
    fn new(sharing: Sharing<'_>, counted: &str, per_second: u64, credit: Duration) -> Self {
        Self {
            store: Arc::clone(sharing.store),
            account: sharing.store.account_name(sharing.owner, counted),
            per_second,
            credit,
            gap: LEASE_GAP.min(credit / PARTS_OF_CREDIT),
        }
    }

    fn call(&self, units: u64, may_owe: bool) -> AccountCall<'_> {
        AccountCall {
            account: &self.account,
            per_second: self.per_second,
            credit: self.credit,
            units,
            may_owe,
            longest_debt: if may_owe { LONGEST_DEBT } else { self.credit },
        }
    }
}

impl LeasedRate {
    /// A rate of which `burst` units can be taken at once.
    pub(crate) fn new(
        sharing: Sharing<'_>,
        counted: &str,
        per_second: u64,
        burst: u64,
    ) -> Arc<Self> {
        let credit = Duration::from_nanos(burst.saturating_mul(1_000_000_000) / per_second.max(1));
        let terms = Terms::new(sharing, counted, per_second, credit);
        let gap = u64::try_from(terms.gap.as_micros()).unwrap_or(u64::MAX);
        Arc::new(Self {
            terms,
            batch: per_second.saturating_mul(gap).div_ceil(1_000_000).max(1),
            lease: Mutex::default(),
        })
    }

    /// Whether the store cannot be used now.
    pub(crate) fn is_away(&self) -> bool {
        self.terms.store.is_away()
    }

    /// Takes one unit, or says when there will be one. While it is pending the store is called, and
    /// `waker` is woken when that has a result.
    pub(crate) fn poll_take(
        self: &Arc<Self>,
        now: Duration,
        waker: &Waker,
    ) -> Poll<Result<(), Duration>> {
        let mut lease = self.lease();
        if now >= lease.ends {
            lease.units = 0;
        }
        let taken = lease.units.checked_sub(1);
        lease.units = taken.unwrap_or(0);
        let closed_for = lease.call_at.saturating_sub(now);
        if taken.is_none() {
            if !closed_for.is_zero() {
                return Poll::Ready(Err(closed_for));
            }
            lease.waiting.push(waker.clone()); // woken when the call ends
        }
        let is_low = lease.units < self.batch / 2 || taken.is_none();
        if is_low && closed_for.is_zero() && !mem::replace(&mut lease.is_call_in_flight, true) {
            drop(lease);
            self.terms
                .store
                .call(Arc::clone(self) as Arc<dyn RateAccount>);
        }
        taken.map_or(Poll::Pending, |_| Poll::Ready(Ok(())))
    }

    fn lease(&self) -> MutexGuard<'_, HeldLease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateAccount for LeasedRate {
    fn next_call(&self) -> AccountCall<'_> {
        let waiting = u64::try_from(self.lease().waiting.len()).unwrap_or(u64::MAX);
        self.terms.call(self.batch.max(waiting), false)
    }

    fn succeeded(&self, now: Duration, units: u64, wait: Duration) {
        let mut lease = self.lease();
        lease.is_call_in_flight = false;
        lease.units = lease.units.saturating_add(units);
        lease.ends = now + LEASE_LIFE;
        lease.call_at = if wait.is_zero() {
            now
        } else {
            now + wait.clamp(self.terms.gap, LONGEST_DEBT)
        };
        let waiting = mem::take(&mut lease.waiting);
        drop(lease);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn failed(&self) {
        let mut lease = self.lease();
        lease.is_call_in_flight = false;
        let waiting = mem::take(&mut lease.waiting);
        drop(lease);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl ChargedRate {
    /// A rate that may run ahead by `credit`.
    pub(crate) fn new(
        sharing: Sharing<'_>,
        counted: &str,
        per_second: u64,
        credit: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            terms: Terms::new(sharing, counted, per_second, credit),
            bill: Mutex::default(),
        })
    }

    /// Counts units that were used. How long the next must wait for what all replicas have used, as far
    /// as the store has said. While it is away nothing is counted.
    pub(crate) fn charge(self: &Arc<Self>, now: Duration, units: u64) -> Duration {
        if self.terms.store.is_away() {
            return Duration::ZERO;
        }
        let mut bill = self.bill();
        bill.unpaid = bill.unpaid.saturating_add(units);
        let wait = bill.paid_at.saturating_sub(now);
        let is_due = bill.unpaid > 0 && now >= bill.call_at;
        if is_due && !mem::replace(&mut bill.is_call_in_flight, true) {
            drop(bill);
            self.terms
                .store
                .call(Arc::clone(self) as Arc<dyn RateAccount>);
        }
        wait
    }

    /// How long it takes until what all replicas have used is paid for, as far as the store has said.
    pub(crate) fn paid_in(&self, now: Duration) -> Duration {
        self.bill().paid_at.saturating_sub(now)
    }

    fn bill(&self) -> MutexGuard<'_, Bill> {
        self.bill.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateAccount for ChargedRate {
    fn next_call(&self) -> AccountCall<'_> {
        let mut bill = self.bill();
        bill.in_call = bill.unpaid;
        self.terms.call(bill.unpaid, true)
    }

    fn succeeded(&self, now: Duration, _: u64, wait: Duration) {
        let mut bill = self.bill();
        bill.is_call_in_flight = false;
        bill.unpaid = bill.unpaid.saturating_sub(mem::take(&mut bill.in_call));
        bill.paid_at = now + wait.min(LONGEST_DEBT);
        bill.call_at = now + self.terms.gap;
    }

    fn failed(&self) {
        let mut bill = self.bill();
        *bill = Bill::default(); // from now on each replica counts alone
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// A store that has each call made when the test says so.
    #[derive(Default)]
    pub(in super::super) struct TestStore {
        pub(in super::super) is_away: AtomicBool,
        calls: Mutex<Vec<Arc<dyn RateAccount>>>,
    }

    impl fmt::Debug for TestStore {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("TestStore")
        }
    }

    impl RateStore for TestStore {
        fn is_away(&self) -> bool {
            self.is_away.load(Ordering::Relaxed)
        }

        fn call(&self, account: Arc<dyn RateAccount>) {
            self.calls.lock().unwrap().push(account);
        }

        fn account_name(&self, owner: &str, counted: &str) -> String {
            format!("{owner} {counted}")
        }
    }

    impl TestStore {
        /// The units that are requested, if anything is.
        pub(in super::super) fn requested(&self) -> Option<u64> {
            let calls = self.calls.lock().unwrap();
            assert!(calls.len() <= 1, "one call in flight");
            calls.first().map(|account| account.next_call().units)
        }

        /// The account that the call in flight is for.
        pub(in super::super) fn account(&self) -> Option<String> {
            let calls = self.calls.lock().unwrap();
            let account = calls.first()?.next_call().account.to_owned();
            Some(account)
        }

        pub(in super::super) fn respond(&self, now: Duration, units: u64, wait: Duration) {
            let account = self.calls.lock().unwrap().pop().unwrap();
            account.next_call();
            account.succeeded(now, units, wait);
        }

        pub(in super::super) fn fail(&self) {
            self.is_away.store(true, Ordering::Relaxed);
            let account = self.calls.lock().unwrap().pop().unwrap();
            account.failed();
        }
    }

    pub(in super::super) fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn leased(per_second: u64, burst: u64) -> (Arc<TestStore>, Arc<LeasedRate>) {
        let store = Arc::new(TestStore::default());
        let shared = Arc::clone(&store) as Arc<dyn RateStore>;
        let sharing = Sharing {
            store: &shared,
            owner: "acme",
        };
        let rate = LeasedRate::new(sharing, "requests", per_second, burst);
        (store, rate)
    }

    fn take(rate: &Arc<LeasedRate>, now: u64) -> Poll<Result<(), Duration>> {
        rate.poll_take(ms(now), Waker::noop())
    }

    const TAKEN: Poll<Result<(), Duration>> = Poll::Ready(Ok(()));

    #[test]
    fn leases_a_few_units_and_more_before_they_are_used_up() {
        let (store, rate) = leased(1000, 1000);
        assert_eq!(take(&rate, 0), Poll::Pending);
        assert_eq!(store.requested(), Some(10), "what the rate gives in 10 ms");
        store.respond(ms(1), 10, ms(0));
        for _ in 0..5 {
            assert_eq!(take(&rate, 2), TAKEN);
            assert_eq!(store.requested(), None);
        }
        assert_eq!(take(&rate, 2), TAKEN);
        assert_eq!(store.requested(), Some(10), "less than half are left");
        for _ in 0..4 {
            assert_eq!(take(&rate, 3), TAKEN);
        }
        assert_eq!(take(&rate, 3), Poll::Pending);
    }

    #[test]
    fn leases_as_many_units_as_requests_wait() {
        let (store, rate) = leased(10, 100);
        for _ in 0..30 {
            assert_eq!(take(&rate, 0), Poll::Pending);
        }
        assert_eq!(store.requested(), Some(30));
        store.respond(ms(1), 30, ms(0));
        for _ in 0..30 {
            assert_eq!(take(&rate, 1), TAKEN);
        }
        assert_eq!(take(&rate, 1), Poll::Pending);
        assert_eq!(store.requested(), Some(1));
    }

    #[test]
    fn does_not_call_a_store_that_has_no_more() {
        let (store, rate) = leased(10, 10);
        assert_eq!(take(&rate, 0), Poll::Pending);
        store.respond(ms(1), 0, ms(70));
        for now in [1, 30, 70] {
            assert_eq!(take(&rate, now), Poll::Ready(Err(ms(71 - now))));
        }
        assert_eq!(store.requested(), None);
        assert_eq!(take(&rate, 71), Poll::Pending);
        assert_eq!(store.requested(), Some(1));
    }

    #[test]
    fn gives_up_units_that_nobody_used() {
        let (store, rate) = leased(1000, 1000);
        assert_eq!(take(&rate, 0), Poll::Pending);
        store.respond(ms(0), 10, ms(0));
        assert_eq!(take(&rate, 999), TAKEN);
        assert_eq!(take(&rate, 1000), Poll::Pending);
    }

    #[test]
    fn a_small_burst_is_not_left_to_wait_for_longer_than_it_lasts() {
        let (store, rate) = leased(1000, 8);
        assert_eq!(take(&rate, 0), Poll::Pending);
        assert_eq!(store.requested(), Some(1));
        store.respond(ms(0), 0, Duration::from_micros(1));
        assert_eq!(take(&rate, 1), Poll::Pending);
    }

    #[test]
    fn bytes_are_charged_together_and_wait_for_all_replicas() {
        let store = Arc::new(TestStore::default());
        let shared = Arc::clone(&store) as Arc<dyn RateStore>;
        let sharing = Sharing {
            store: &shared,
            owner: "acme",
        };
        let rate = ChargedRate::new(sharing, "upload", 1000, ms(100));
        assert_eq!(rate.charge(ms(0), 50), ms(0));
        assert_eq!(rate.charge(ms(1), 30), ms(0));
        assert_eq!(store.requested(), Some(80));
        rate.charge(ms(1), 5); // after the call began
        store.respond(ms(2), 85, ms(500));
        assert_eq!(rate.paid_in(ms(2)), ms(500));
        assert_eq!(rate.charge(ms(10), 7), ms(492));
        assert_eq!(store.requested(), None, "too soon");
        assert_eq!(rate.charge(ms(12), 0), ms(490));
        assert_eq!(store.requested(), Some(7));
        store.fail();
        assert_eq!(rate.charge(ms(13), 100), ms(0), "the own rate holds");
        assert_eq!(rate.paid_in(ms(13)), ms(0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever the store gives and when, no more are let in than it gave.
        #[test]
        fn lets_in_what_was_leased_and_no_more(steps in proptest::collection::vec((0_u64..30, 0_u64..4, 0_u64..20, 0_u64..40), 1..200)) {
            let (store, rate) = leased(200, 50);
            let (mut now, mut given, mut let_in) = (0, 0, 0);
            for (step, kind, units, wait) in steps {
                now += step;
                if kind == 0 && store.requested().is_some() {
                    store.respond(ms(now), units, ms(wait));
                    given += units;
                } else if take(&rate, now) == TAKEN {
                    let_in += 1;
                }
                prop_assert!(let_in <= given);
            }
        }
    }
}
