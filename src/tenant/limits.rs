//! The limits of a tenant, counted over all cores together.
//!
//! An atomic is all that the cores share of each. A tenant without limits has none of this. Where replicas
//! share rates, each keeps its own count too, and goes on with that when the store is away.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::rate::Rate;
use super::shared_rate::{ChargedRate, LeasedRate, RateStore, Sharing};
use crate::config::TenantLimits;
use crate::error::{Code, S3Error, TenantLimit};

/// What a stream may run ahead of its rate: its timers are no finer than milliseconds.
const BYTES_CREDIT: Duration = Duration::from_millis(100);

/// A tenant's limits, and how much of them is used. `now` is the time since any fixed moment.
#[derive(Debug)]
pub struct Limits {
    configured: TenantLimits,
    requests: Option<Rate>,
    concurrent: Option<Concurrent>,
    upload: Option<Rate>,
    download: Option<Rate>,
    object_size: Option<u64>,
    /// `None`: no rate is shared.
    shared: Option<SharedRates>,
}

/// The rates that replicas keep together.
#[derive(Debug)]
struct SharedRates {
    store: Arc<dyn RateStore>,
    requests: Option<Arc<LeasedRate>>,
    upload: Option<Arc<ChargedRate>>,
    download: Option<Arc<ChargedRate>>,
}

/// Who has decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateDecider {
    /// The rate that all replicas keep together.
    Shared,
    /// The replica's own, since the store has not responded.
    Own,
}

/// A request's place among those that a tenant may have at once; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Limits>);

/// The direction of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the client.
    Download,
    /// From the client.
    Upload,
}

/// Why a request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    /// The tenant has reached its limit of concurrent requests.
    Concurrency,
    /// It has reached its rate of requests; the next may come after this time.
    Rate(Duration),
}

#[derive(Debug)]
struct Concurrent {
    max: u64,
    /// Shared with the limits before a reload: requests that began under them count too.
    now: Arc<AtomicU64>,
}

impl Limits {
    /// The limits as configured, of this replica alone; `None` when there are none.
    pub fn new(limits: &TenantLimits) -> Option<Arc<Self>> {
        Self::sharing(limits, None)
    }

    /// The same, where rates hold over all replicas if there is `sharing`.
    pub(crate) fn sharing(
        limits: &TenantLimits,
        sharing: Option<Sharing<'_>>,
    ) -> Option<Arc<Self>> {
        if *limits == TenantLimits::default() {
            return None;
        }
        let requests = limits.requests_per_second;
        let requests = requests.map(|rate| Rate::with_burst(rate, limits.burst.unwrap_or(rate)));
        let bytes = |rate: Option<u64>| rate.map(|rate| Rate::new(rate, BYTES_CREDIT));
        Some(Arc::new(Self {
            configured: limits.clone(),
            requests,
            concurrent: limits.concurrent_requests.map(|max| Concurrent {
                max,
                now: Arc::default(),
            }),
            upload: bytes(limits.upload_rate),
            download: bytes(limits.download_rate),
            object_size: limits.object_size,
            shared: sharing.map(|sharing| SharedRates::new(limits, sharing)),
        }))
    }

    /// The same after a reload: what `old` has counted goes on counting.
    pub(crate) fn succeeding(
        limits: &TenantLimits,
        old: Option<&Arc<Self>>,
        sharing: Option<Sharing<'_>>,
    ) -> Option<Arc<Self>> {
        let Some(old) = old else {
            return Self::sharing(limits, sharing);
        };
        if old.configured == *limits && old.is_shared_by(sharing) {
            return Some(Arc::clone(old));
        }
        let mut new = Arc::into_inner(Self::sharing(limits, sharing)?)?;
        for (new, old) in [
            (&new.requests, &old.requests),
            (&new.upload, &old.upload),
            (&new.download, &old.download),
        ] {
            if let (Some(new), Some(old)) = (new, old) {
                new.take_over(old);
            }
        }
        if let (Some(new), Some(old)) = (&mut new.concurrent, &old.concurrent) {
            new.now = Arc::clone(&old.now);
        }
        Some(Arc::new(new))
    }

    /// Admits a request, or says why it must wait. A refused request does not count.
    pub(crate) fn admit(self: &Arc<Self>, now: Duration) -> Result<Slot, Limited> {
        let slot = self.enter()?;
        self.take(now)?;
        Ok(slot)
    }

    /// Takes one of the places that there are at once.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Slot, Limited> {
        if let Some(concurrent) = &self.concurrent {
            let next = |count: u64| (count < concurrent.max).then_some(count + 1);
            concurrent
                .now
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
                .map_err(|_| Limited::Concurrency)?;
        }
        Ok(Slot(Arc::clone(self)))
    }

    /// Whether the rate of requests holds over all replicas.
    pub(crate) fn shares_requests(&self) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|shared| shared.requests.is_some())
    }

    /// Takes one request of the replica's own rate.
    pub(crate) fn take(&self, now: Duration) -> Result<(), Limited> {
        let own = self.requests.as_ref();
        own.map_or(Ok(()), |own| own.take(now).map_err(Limited::Rate))
    }

    /// Takes one request of the rate that replicas share, or of the own one while the store is away.
    /// While it is pending, `waker` is woken when the store has responded.
    pub(crate) fn poll_take(
        &self,
        now: Duration,
        waker: &Waker,
    ) -> Poll<(RateDecider, Result<(), Limited>)> {
        let shared = self.shared.as_ref();
        let shared = shared.and_then(|shared| shared.requests.as_ref());
        let Some(shared) = shared.filter(|shared| !shared.is_away()) else {
            return Poll::Ready((RateDecider::Own, self.take(now)));
        };
        shared.poll_take(now, waker).map(|taken| {
            if let (Ok(()), Some(own)) = (taken, &self.requests) {
                own.charge(now, 1); // it goes on from here if the store goes away
            }
            (RateDecider::Shared, taken.map_err(Limited::Rate))
        })
    }

    /// Whether bodies have a rate this way.
    pub fn shapes(&self, way: Direction) -> bool {
        self.rate(way).is_some()
    }

    /// Counts bytes that have moved. How long the next must wait for it.
    pub(crate) fn charge(&self, way: Direction, now: Duration, bytes: u64) -> Duration {
        let rate = self.rate(way);
        let own = rate.map_or(Duration::ZERO, |rate| rate.charge(now, bytes));
        let shared = self.shared.as_ref().and_then(|shared| shared.rate(way));
        shared.map_or(own, |shared| own.max(shared.charge(now, bytes)))
    }

    /// How long bytes must wait for what all replicas have moved, as far as is known.
    pub(crate) fn shared_wait(&self, way: Direction, now: Duration) -> Duration {
        let shared = self.shared.as_ref().and_then(|shared| shared.rate(way));
        shared.map_or(Duration::ZERO, |shared| shared.paid_in(now))
    }

    /// Refuses an object or a part of so many bytes.
    pub(crate) fn check_object(&self, bytes: u64) -> Result<(), S3Error> {
        match self.object_size {
            Some(max) if bytes > max => Err(S3Error::new(
                Code::EntityTooLarge,
                format!(
                    "The object or part has {bytes} bytes; your limit is {max}. Ask the operator for a higher limit."
                ),
            )
            .exceeds(TenantLimit::ObjectSize)),
            _ => Ok(()),
        }
    }

    /// Whether nothing is in flight and everything is paid for: then they are as new.
    pub(super) fn is_at_rest(&self, now: Duration) -> bool {
        let is_idle = |count: &Concurrent| count.now.load(Ordering::Relaxed) == 0;
        let rates = [&self.requests, &self.upload, &self.download];
        self.concurrent.as_ref().is_none_or(is_idle)
            && rates.into_iter().flatten().all(|rate| rate.is_paid(now))
    }

    /// Whether its rates are shared through the store of `sharing`, or are not shared if there is none.
    pub(super) fn is_shared_by(&self, sharing: Option<Sharing<'_>>) -> bool {
        match (&self.shared, sharing) {
            (Some(own), Some(sharing)) => {
                ptr::addr_eq(Arc::as_ptr(&own.store), Arc::as_ptr(sharing.store))
            }
            (own, sharing) => own.is_none() && sharing.is_none(),
        }
    }

    fn rate(&self, way: Direction) -> Option<&Rate> {
        match way {
            Direction::Download => self.download.as_ref(),
            Direction::Upload => self.upload.as_ref(),
        }
    }
}

impl SharedRates {
    fn new(limits: &TenantLimits, sharing: Sharing<'_>) -> Self {
        let requests = limits.requests_per_second.map(|rate| {
            let burst = limits.burst.unwrap_or(rate);
            LeasedRate::new(sharing, "requests", rate, burst)
        });
        let bytes = |rate: Option<u64>, counted| {
            rate.map(|rate| ChargedRate::new(sharing, counted, rate, BYTES_CREDIT))
        };
        Self {
            store: Arc::clone(sharing.store),
            requests,
            upload: bytes(limits.upload_rate, "upload"),
            download: bytes(limits.download_rate, "download"),
        }
    }

    fn rate(&self, way: Direction) -> Option<&Arc<ChargedRate>> {
        match way {
            Direction::Download => self.download.as_ref(),
            Direction::Upload => self.upload.as_ref(),
        }
    }
}

impl Slot {
    /// The limits among whose places it is.
    pub(crate) fn limits(&self) -> &Limits {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(concurrent) = &self.0.concurrent {
            concurrent.now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl From<Limited> for S3Error {
    fn from(limited: Limited) -> Self {
        let (text, wait, limit) = match limited {
            Limited::Concurrency => (
                "Concurrent request limit reached. Retry after the current requests finish.",
                Duration::ZERO,
                TenantLimit::Concurrency,
            ),
            Limited::Rate(wait) => (
                "Request rate limit reached. Retry after the time in Retry-After.",
                wait,
                TenantLimit::Rate,
            ),
        };
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::new(Code::SlowDown, text)
            .retry_after(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
            .exceeds(limit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::shared_rate::tests::TestStore;
    use super::*;

    fn limits(limits: &TenantLimits) -> Arc<Limits> {
        Limits::new(limits).unwrap()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn no_limits_cost_nothing() {
        assert!(Limits::new(&TenantLimits::default()).is_none());
    }

    #[test]
    fn a_burst_is_let_in_and_then_one_at_a_time() {
        let limits = limits(&TenantLimits {
            requests_per_second: Some(10),
            burst: Some(3),
            ..TenantLimits::default()
        });
        let admit = |at| limits.admit(ms(at)).map(drop);
        for _ in 0..3 {
            assert_eq!(admit(1000), Ok(()));
        }
        assert_eq!(admit(1000), Err(Limited::Rate(ms(100))));
        assert_eq!(admit(1060), Err(Limited::Rate(ms(40))));
        assert_eq!(admit(1100), Ok(()));
        assert_eq!(admit(1100), Err(Limited::Rate(ms(100))));
        // A long rest gives no more than the burst.
        for _ in 0..3 {
            assert_eq!(admit(60_000), Ok(()));
        }
        assert!(admit(60_000).is_err());
    }

    #[test]
    fn a_place_comes_back_when_its_request_ends() {
        let limits = limits(&TenantLimits {
            concurrent_requests: Some(2),
            requests_per_second: Some(3),
            ..TenantLimits::default()
        });
        let first = limits.admit(ms(0)).unwrap();
        let second = limits.admit(ms(0)).unwrap();
        assert_eq!(limits.admit(ms(0)).unwrap_err(), Limited::Concurrency);
        drop(first);
        let third = limits.admit(ms(0)).unwrap();
        drop((second, third));
        // One that is turned away for its rate holds no place.
        for _ in 0..5 {
            assert!(matches!(limits.admit(ms(0)), Err(Limited::Rate(_))));
        }
        assert!(limits.admit(ms(1000)).is_ok());
    }

    #[test]
    fn bytes_are_paid_for_afterwards() {
        let limits = limits(&TenantLimits {
            upload_rate: Some(1_000_000),
            ..TenantLimits::default()
        });
        assert!(limits.shapes(Direction::Upload) && !limits.shapes(Direction::Download));
        let charge = |at, bytes| limits.charge(Direction::Upload, ms(at), bytes);
        assert_eq!(charge(1000, 100_000), ms(0), "within the credit");
        assert_eq!(charge(1000, 400_000), ms(400));
        assert_eq!(charge(1200, 0), ms(200));
        assert_eq!(charge(1500, 500_000), ms(400));
        assert_eq!(limits.charge(Direction::Download, ms(1500), 1 << 30), ms(0));
    }

    #[test]
    fn bodies_that_move_equal_pieces_move_in_turn() {
        let limits = limits(&TenantLimits {
            upload_rate: Some(1 << 20),
            ..TenantLimits::default()
        });
        let mut bodies = [(ms(0), 0_u32); 3];
        for _ in 0..300 {
            let (at, pieces) = bodies.iter_mut().min().unwrap();
            *at += limits.charge(Direction::Upload, *at, 400 << 10);
            *pieces += 1;
        }
        let pieces = bodies.map(|(_, pieces)| pieces);
        assert!(pieces.iter().all(|n| n.abs_diff(100) <= 1), "{pieces:?}");
    }

    #[test]
    fn the_error_has_the_time_until_the_next_try() {
        for (limited, seconds) in [
            (Limited::Concurrency, 1),
            (Limited::Rate(ms(1)), 1),
            (Limited::Rate(ms(2000)), 2),
            (Limited::Rate(ms(2001)), 3),
        ] {
            let error = S3Error::from(limited);
            assert_eq!(error.code(), Code::SlowDown);
            assert_eq!(error.retry_after_seconds(), Some(seconds), "{limited:?}");
        }
    }

    #[test]
    fn an_object_has_its_size_at_most() {
        let limits = limits(&TenantLimits {
            object_size: Some(10),
            ..TenantLimits::default()
        });
        assert!(limits.check_object(10).is_ok());
        assert_eq!(
            limits.check_object(11).unwrap_err().code(),
            Code::EntityTooLarge
        );
    }

    #[test]
    fn many_cores_get_no_more_than_one_would() {
        let limits = limits(&TenantLimits {
            requests_per_second: Some(1),
            burst: Some(1000),
            ..TenantLimits::default()
        });
        let admitted: usize = std::thread::scope(|scope| {
            let cores: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| limits.admit(ms(0)).is_ok()).count()))
                .collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }

    fn sharing(store: &Arc<TestStore>, configured: &TenantLimits) -> Arc<Limits> {
        let store = Arc::clone(store) as Arc<dyn RateStore>;
        let owner = "acme";
        let sharing = Sharing {
            store: &store,
            owner,
        };
        Limits::sharing(configured, Some(sharing)).unwrap()
    }

    #[test]
    fn the_own_rate_goes_on_from_what_was_shared_when_the_store_goes_away() {
        let store = Arc::new(TestStore::default());
        let limits = sharing(
            &store,
            &TenantLimits {
                requests_per_second: Some(10),
                burst: Some(3),
                ..TenantLimits::default()
            },
        );
        assert!(limits.shares_requests());
        let take = |at| limits.poll_take(ms(at), Waker::noop());
        assert!(take(1000).is_pending());
        store.respond(ms(1000), 2, ms(0));
        for _ in 0..2 {
            assert_eq!(take(1000), Poll::Ready((RateDecider::Shared, Ok(()))));
        }
        assert!(take(1000).is_pending());
        store.fail();
        assert_eq!(take(1000), Poll::Ready((RateDecider::Own, Ok(()))));
        let refused = Err(Limited::Rate(ms(100)));
        assert_eq!(take(1000), Poll::Ready((RateDecider::Own, refused)));
    }

    #[test]
    fn a_reload_keeps_what_is_shared_through_the_same_store() {
        let configured = TenantLimits {
            requests_per_second: Some(10),
            ..TenantLimits::default()
        };
        let (store, other) = (TestStore::default(), TestStore::default());
        let [store, other] = [store, other].map(|store| Arc::new(store) as Arc<dyn RateStore>);
        let of = |store| {
            let owner = "acme";
            Some(Sharing { store, owner })
        };
        let after = |old, sharing| Limits::succeeding(&configured, Some(old), sharing).unwrap();
        let first = Limits::sharing(&configured, of(&store)).unwrap();
        assert!(Arc::ptr_eq(&first, &after(&first, of(&store))));
        assert!(!Arc::ptr_eq(&first, &after(&first, of(&other))));
        let alone = after(&first, None);
        assert!(!alone.shares_requests());
        assert!(Arc::ptr_eq(&alone, &after(&alone, None)));
        assert!(after(&alone, of(&store)).shares_requests());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// In no stretch of time are more let in than the burst and what the rate gives.
        #[test]
        fn a_rate_holds_over_every_stretch(rate in 1_u64..50, burst in 1_u64..20, steps in proptest::collection::vec(0_u64..300, 1..200)) {
            let limits = limits(&TenantLimits {
                requests_per_second: Some(rate),
                burst: Some(burst),
                ..TenantLimits::default()
            });
            let mut at = 0;
            let mut let_in = Vec::new();
            for step in steps {
                at += step;
                if limits.admit(ms(at)).is_ok() {
                    let_in.push(at);
                }
            }
            for (first, start) in let_in.iter().enumerate() {
                for (last, end) in let_in.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    prop_assert!(count <= burst + (end - start) * rate / 1000 + 1);
                }
            }
        }
    }
}
