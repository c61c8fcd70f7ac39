//! Single flight: at most one call for one thing at a time. All waiters share its result, and
//! a failure is remembered for a while.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::call_state::CallState;

/// The calls for one thing, and their last results.
#[derive(Debug)]
pub(super) struct SingleFlight<T, E> {
    state: CallState,
    results: watch::Sender<Results<T, E>>,
}

/// What the calls gave so far.
#[derive(Clone, Debug)]
pub(super) struct Results<T, E> {
    /// The last value. A failure keeps it: it may be good for longer.
    pub(super) value: Option<T>,
    /// How the last call failed, if it did.
    pub(super) failure: Option<Arc<FlightFailure<E>>>,
    /// How many calls have ended.
    ended: u64,
}

/// How a call failed.
#[derive(Debug)]
pub(super) struct FlightFailure<E> {
    pub(super) error: E,
    /// Until then `error` is the result, and no call is made.
    pub(super) until: Instant,
}

/// The right to make the next call. Dropped before the end, it ends the call as [`Unfinished`].
#[derive(Debug)]
pub(super) struct Flight<T, E: From<Unfinished>> {
    flights: Arc<SingleFlight<T, E>>,
    is_landed: bool,
}

/// A call that was dropped before its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished;

impl<T, E> SingleFlight<T, E> {
    pub(super) fn new() -> Self {
        Self {
            state: CallState::idle(),
            results: watch::Sender::new(Results {
                value: None,
                failure: None,
                ended: 0,
            }),
        }
    }

    /// Where the call is, for calls that wait in a queue first.
    pub(super) fn state(&self) -> &CallState {
        &self.state
    }

    /// The results. Changes wake waiters.
    pub(super) fn subscribe(&self) -> watch::Receiver<Results<T, E>> {
        self.results.subscribe()
    }

    /// Changes what is remembered: what a call gave may turn out to be wrong.
    pub(super) fn revise(&self, change: impl FnOnce(&mut Results<T, E>)) {
        self.results.send_modify(change);
    }

    /// Ends a call. A failure stands for the given time. Last, it wakes waiters: they find the value,
    /// or can request the next call.
    pub(super) fn finish(&self, result: Result<T, (E, Duration)>) {
        self.results.send_modify(|results| {
            self.state.end();
            results.ended += 1;
            match result {
                Ok(value) => (results.value, results.failure) = (Some(value), None),
                Err((error, stands)) => {
                    let until = Instant::now() + stands;
                    results.failure = Some(Arc::new(FlightFailure { error, until }));
                }
            }
        });
    }
}

impl<T, E: From<Unfinished>> SingleFlight<T, E> {
    /// The right to make a call, unless one is in flight or a failure stands.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Flight<T, E>> {
        let failure = self.results.borrow().failure.clone();
        if failure.is_some_and(|failure| failure.stands(Instant::now())) {
            return None;
        }
        self.state.begin_at_once().then(|| Flight {
            flights: Arc::clone(self),
            is_landed: false,
        })
    }
}

impl<T: Clone, E: Clone + From<Unfinished>> SingleFlight<T, E> {
    /// The last value if it `is_good`.
    pub(super) fn kept(&self, is_good: impl Fn(&T) -> bool) -> Option<T> {
        let results = self.results.borrow();
        results
            .value
            .as_ref()
            .filter(|value| is_good(value))
            .cloned()
    }

    /// The last value if it `is_good`, else the result of one call, which `start` starts unless one is in flight.
    /// It must not wait: it spawns the call. Dropping this future cancels no call.
    pub(super) async fn share(
        self: &Arc<Self>,
        is_good: impl Fn(&T) -> bool,
        start: impl Fn(Flight<T, E>),
    ) -> Result<T, E> {
        let mut results = self.results.subscribe();
        let came_after = results.borrow().ended;
        loop {
            let Results {
                value,
                failure,
                ended,
            } = results.borrow_and_update().clone();
            let is_new = ended > came_after;
            if let Some(failure) = failure {
                let kept = value.filter(&is_good);
                if kept.is_some() || is_new || failure.stands(Instant::now()) {
                    return kept.ok_or_else(|| failure.error.clone());
                }
            } else if let Some(value) = value.filter(|value| is_new || is_good(value)) {
                return Ok(value);
            }
            if let Some(flight) = self.begin() {
                if results.has_changed().unwrap_or_default() {
                    flight.release(); // another call has just ended
                    continue;
                }
                start(flight);
            }
            if results.changed().await.is_err() {
                std::future::pending::<()>().await; // cannot be: `self` has the sender
            }
        }
    }
}

impl<E> FlightFailure<E> {
    pub(super) fn stands(&self, now: Instant) -> bool {
        now < self.until
    }
}

impl<T, E: From<Unfinished>> Flight<T, E> {
    /// Ends the call, as [`SingleFlight::finish`].
    pub(super) fn finish(mut self, result: Result<T, (E, Duration)>) {
        self.is_landed = true;
        self.flights.finish(result);
    }

    /// Gives the right back: no call is needed.
    fn release(mut self) {
        self.is_landed = true;
        self.flights.state.end();
        self.flights.results.send_modify(|_| {}); // one who waits begins the call
    }
}

impl<T, E: From<Unfinished>> Drop for Flight<T, E> {
    fn drop(&mut self) {
        if !self.is_landed {
            let unfinished = Err((E::from(Unfinished), Duration::ZERO));
            self.flights.finish(unfinished);
        }
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call was not finished")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::*;

    const CALL: Duration = Duration::from_millis(100);
    const STANDS: Duration = Duration::from_secs(2);

    impl From<Unfinished> for &'static str {
        fn from(_: Unfinished) -> Self {
            "unfinished"
        }
    }

    type Flights = Arc<SingleFlight<u32, &'static str>>;

    /// One waiter. Each call takes [`CALL`] and returns its number, or fails for `stands`.
    async fn fetch(
        flights: &Flights,
        calls: &Arc<AtomicU32>,
        stands: Option<Duration>,
    ) -> Result<u32, &'static str> {
        let start = |flight: Flight<_, _>| {
            let number = calls.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::spawn(async move {
                sleep(CALL).await;
                flight.finish(match stands {
                    Some(stands) => Err(("down", stands)),
                    None => Ok(number),
                });
            });
        };
        flights.share(|_| false, start).await
    }

    async fn request_at_once(
        flights: &Flights,
        calls: &Arc<AtomicU32>,
        stands: Option<Duration>,
    ) -> Vec<Result<u32, &'static str>> {
        let mut all = JoinSet::new();
        for _ in 0..100 {
            let (flights, calls) = (Arc::clone(flights), Arc::clone(calls));
            all.spawn(async move { fetch(&flights, &calls, stands).await });
        }
        all.join_all().await
    }

    fn fresh() -> (Flights, Arc<AtomicU32>) {
        (Arc::new(SingleFlight::new()), Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn shares_one_call_and_its_value() {
        let (flights, calls) = fresh();
        let began = Instant::now();
        let results = request_at_once(&flights, &calls, None).await;
        assert!(results.iter().all(|result| *result == Ok(1)));
        assert_eq!(began.elapsed(), CALL);
        assert_eq!(
            fetch(&flights, &calls, None).await,
            Ok(2),
            "1 is not good any more"
        );
        assert_eq!(flights.kept(|value| *value == 2), Some(2));
        let none = |_| unreachable!("a good value needs no call");
        assert_eq!(flights.share(|_| true, none).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn remembers_a_failure_while_it_stands() {
        let (flights, calls) = fresh();
        for _ in 0..3 {
            let results = request_at_once(&flights, &calls, Some(STANDS)).await;
            assert!(results.iter().all(|result| *result == Err("down")));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert!(flights.begin().is_none());
        sleep(STANDS).await;
        assert_eq!(fetch(&flights, &calls, None).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn tells_a_failure_that_does_not_stand_to_those_who_waited() {
        let (flights, calls) = fresh();
        for round in 1..=3 {
            let results = request_at_once(&flights, &calls, Some(Duration::ZERO)).await;
            assert!(results.iter().all(|result| *result == Err("down")));
            assert_eq!(
                calls.load(Ordering::Relaxed),
                round,
                "the next one calls again"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_a_good_value_over_a_failure() {
        let (flights, calls) = fresh();
        assert_eq!(fetch(&flights, &calls, None).await, Ok(1));
        flights.begin().unwrap().finish(Err(("down", STANDS)));
        assert_eq!(flights.share(|_| true, |_| {}).await, Ok(1));
        assert_eq!(fetch(&flights, &calls, None).await, Err("down"));
        flights.revise(|results| results.failure = None);
        assert_eq!(fetch(&flights, &calls, None).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn ends_a_dropped_call_as_unfinished_and_keeps_a_call_whose_waiters_left() {
        let (flights, calls) = fresh();
        let dropped = flights.begin().unwrap();
        assert!(flights.begin().is_none(), "one at a time");
        let waiting = tokio::spawn({
            let (flights, calls) = (Arc::clone(&flights), Arc::clone(&calls));
            async move { fetch(&flights, &calls, None).await }
        });
        sleep(CALL).await;
        drop(dropped);
        assert_eq!(waiting.await.unwrap(), Err("unfinished"));
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        let left = timeout(CALL / 2, fetch(&flights, &calls, None)).await;
        assert!(left.is_err());
        sleep(CALL).await;
        assert_eq!(flights.kept(|_| true), Some(1));
    }
}
