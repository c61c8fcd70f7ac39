//! Fair queue of one issuer's calls for clients' keys.
//!
//! Keys of a whole scope come first: they are kept, so that few are needed. The others go in rotation
//! over the tenants and templates, and within a template over its subjects. However many calls one of
//! them wants, another waits for one call of each at most. A call that would wait too long is refused at
//! once, which also bounds the queue.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::call_limiter::CallLimiter;
use crate::config::CallRate;

/// Who requests a key.
#[derive(Clone, Debug)]
pub(super) struct TurnCaller {
    /// The tenant or template in the configuration.
    pub(super) offer: usize,
    /// The tenant's name; of a template's, the subject's.
    pub(super) name: Arc<str>,
}

/// The queue of one issuer.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<TurnQueue>,
    in_flight: usize,
    longest: Duration,
}

#[derive(Debug)]
struct TurnQueue {
    limiter: CallLimiter,
    in_flight: usize,
    whole: VecDeque<Arc<Notify>>,
    /// A tenant or template is in `rotation` exactly while it has an entry in `offers`.
    rotation: VecDeque<usize>,
    offers: HashMap<usize, OfferQueue>,
    waiting: usize,
}

/// The same for the callers of one tenant or template.
#[derive(Debug, Default)]
struct OfferQueue {
    rotation: VecDeque<Arc<str>>,
    callers: HashMap<Arc<str>, VecDeque<Arc<Notify>>>,
}

/// A call in flight; its slot is given back on drop.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

/// A position in the queue, left on drop.
struct Ticket<'a> {
    turns: &'a Turns,
    caller: &'a TurnCaller,
    is_whole: bool,
    wake: Arc<Notify>,
    is_taken: bool,
}

impl Turns {
    /// A queue with a limit of calls `in_flight`, in which no call waits for longer than `longest`.
    pub(super) fn new(rate: CallRate, in_flight: usize, longest: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(TurnQueue {
                limiter: CallLimiter::new(rate),
                in_flight: 0,
                whole: VecDeque::new(),
                rotation: VecDeque::new(),
                offers: HashMap::new(),
                waiting: 0,
            }),
            in_flight,
            longest,
        })
    }

    /// Waits for the turn of `caller`. Fails with the time that it would take if that is too long.
    pub(super) async fn turn(
        self: &Arc<Self>,
        caller: &TurnCaller,
        is_whole: bool,
    ) -> Result<Turn, Duration> {
        let mut ticket = self.join(caller, is_whole)?;
        loop {
            let ready = {
                let (mut state, now) = (self.state(), Instant::now());
                let is_next = state
                    .next()
                    .is_some_and(|next| Arc::ptr_eq(next, &ticket.wake));
                if !is_next || state.in_flight >= self.in_flight {
                    None // each call that takes or gives back a turn wakes the next one
                } else {
                    let ready = state.limiter.ready_at(now);
                    if ready <= now {
                        state.take(now);
                        ticket.is_taken = true;
                        return Ok(Turn(Arc::clone(self)));
                    }
                    Some(ready)
                }
            };
            match ready {
                None => ticket.wake.notified().await,
                Some(ready) => sleep_until(ready).await,
            }
        }
    }

    fn join<'a>(&'a self, caller: &'a TurnCaller, is_whole: bool) -> Result<Ticket<'a>, Duration> {
        let (mut state, now) = (self.state(), Instant::now());
        let ahead = state.ahead(caller, is_whole);
        let wait = state.limiter.ready_in(ahead + 1, now);
        if wait > self.longest {
            return Err(wait);
        }
        let wake = Arc::new(Notify::new());
        state.push(caller, is_whole, Arc::clone(&wake));
        Ok(Ticket {
            turns: self,
            caller,
            is_whole,
            wake,
            is_taken: false,
        })
    }

    fn state(&self) -> MutexGuard<'_, TurnQueue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TurnQueue {
    /// Whose turn it is.
    fn next(&self) -> Option<&Arc<Notify>> {
        self.whole.front().or_else(|| {
            let offer = self.offers.get(self.rotation.front()?)?;
            offer.callers.get(offer.rotation.front()?)?.front()
        })
    }

    /// How many turns can come before that of another call of `caller`.
    fn ahead(&self, caller: &TurnCaller, is_whole: bool) -> u64 {
        if is_whole {
            return self.whole.len() as u64;
        }
        let offer = self.offers.get(&caller.offer);
        let own = offer.and_then(|offer| offer.callers.get(&caller.name));
        let round = |others: usize, is_one: bool| others + usize::from(!is_one);
        let callers = round(offer.map_or(0, |offer| offer.callers.len()), own.is_some());
        let offers = round(self.offers.len(), offer.is_some());
        let own = own.map_or(0, VecDeque::len) + 1;
        let by_rotation = own.saturating_mul(callers).saturating_mul(offers) - 1;
        (self.whole.len() + by_rotation.min(self.waiting)) as u64
    }

    fn push(&mut self, caller: &TurnCaller, is_whole: bool, wake: Arc<Notify>) {
        if is_whole {
            self.whole.push_back(wake);
            return;
        }
        self.waiting += 1;
        let offer = self.offers.entry(caller.offer).or_insert_with(|| {
            self.rotation.push_back(caller.offer);
            OfferQueue::default()
        });
        let queue = offer
            .callers
            .entry(Arc::clone(&caller.name))
            .or_insert_with(|| {
                offer.rotation.push_back(Arc::clone(&caller.name));
                VecDeque::new()
            });
        queue.push_back(wake);
    }

    /// Begins the call of whose turn it is.
    fn take(&mut self, now: Instant) {
        self.limiter.take(now);
        self.in_flight += 1;
        if self.whole.pop_front().is_none()
            && let Some(index) = self.rotation.pop_front()
            && let Some(offer) = self.offers.get_mut(&index)
        {
            self.waiting -= offer.take();
            if offer.callers.is_empty() {
                self.offers.remove(&index);
            } else {
                self.rotation.push_back(index);
            }
        }
        self.wake_next();
    }

    /// Drops one that waits no longer.
    fn leave(&mut self, ticket: &Ticket<'_>) {
        let is_other = |wake: &Arc<Notify>| !Arc::ptr_eq(wake, &ticket.wake);
        if ticket.is_whole {
            self.whole.retain(is_other);
        } else if let Some(offer) = self.offers.get_mut(&ticket.caller.offer)
            && let Some(queue) = offer.callers.get_mut(&ticket.caller.name)
        {
            queue.retain(is_other);
            self.waiting -= 1;
            if queue.is_empty() {
                offer.callers.remove(&ticket.caller.name);
                offer.rotation.retain(|name| *name != ticket.caller.name);
            }
            if offer.callers.is_empty() {
                self.offers.remove(&ticket.caller.offer);
                self.rotation.retain(|offer| *offer != ticket.caller.offer);
            }
        }
        self.wake_next();
    }

    fn wake_next(&self) {
        if let Some(next) = self.next() {
            next.notify_one();
        }
    }
}

impl OfferQueue {
    /// Takes one from the caller whose turn it is. Returns how many that were.
    fn take(&mut self) -> usize {
        let Some(name) = self.rotation.pop_front() else {
            return 0;
        };
        let Some(queue) = self.callers.get_mut(&name) else {
            return 0;
        };
        let taken = usize::from(queue.pop_front().is_some());
        if queue.is_empty() {
            self.callers.remove(&name);
        } else {
            self.rotation.push_back(name);
        }
        taken
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        state.wake_next();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.is_taken {
            self.turns.state().leave(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    const RATE: CallRate = CallRate {
        per_second: 10,
        burst: 1,
    };
    const LONGEST: Duration = Duration::from_secs(4);

    fn caller(offer: usize, name: &str) -> TurnCaller {
        TurnCaller {
            offer,
            name: name.into(),
        }
    }

    /// Lets so many calls of each of these wait at once; returns their order.
    async fn order(turns: &Arc<Turns>, wanted: &[(usize, &str, bool, usize)]) -> Vec<String> {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut calls = JoinSet::new();
        for (offer, name, is_whole, count) in wanted {
            for _ in 0..*count {
                let (turns, order) = (Arc::clone(turns), Arc::clone(&order));
                let (caller, is_whole) = (caller(*offer, name), *is_whole);
                calls.spawn(async move {
                    let turn = turns.turn(&caller, is_whole).await.unwrap();
                    order.lock().unwrap().push(caller.name.to_string());
                    drop(turn);
                });
            }
        }
        calls.join_all().await;
        std::mem::take(&mut order.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn rotates_over_tenants_and_the_subjects_of_a_template() {
        let turns = Turns::new(RATE, 1, LONGEST);
        let wanted = [
            (0, "alice", false, 12),
            (0, "bob", false, 3),
            (1, "acme", false, 4),
            (1, "acme", true, 1),
        ];
        let order = order(&turns, &wanted).await;
        // The first had nobody to wait for.
        let expected = "alice acme alice acme bob acme alice acme bob acme alice bob";
        assert_eq!(order[..12].join(" "), expected);
        assert!(order[12..].iter().all(|name| name == "alice"));
        assert_eq!(order.len(), 20);
        let state = turns.state();
        assert!(state.offers.is_empty() && state.rotation.is_empty() && state.whole.is_empty());
        assert_eq!((state.waiting, state.in_flight), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn limits_rate_and_calls_in_flight() {
        let turns = Turns::new(RATE, 2, LONGEST);
        let began = Instant::now();
        let alice = caller(0, "alice");
        let first = turns.turn(&alice, false).await.unwrap();
        let second = turns.turn(&alice, false).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
        let third = tokio::time::timeout(Duration::from_secs(2), turns.turn(&alice, false));
        assert!(third.await.is_err(), "two are in flight");
        assert_eq!(turns.state().waiting, 0, "who leaves gives up its place");
        drop(first);
        turns.turn(&alice, false).await.unwrap();
        drop(second);
        assert_eq!(turns.state().in_flight, 0);
    }

    /// A flood is turned away by its own length, and another is served while it goes on.
    #[tokio::test(start_paused = true)]
    async fn refuses_calls_that_would_wait_too_long() {
        let turns = Turns::new(RATE, 8, LONGEST);
        let mut flood = JoinSet::new();
        for _ in 0..100 {
            let turns = Arc::clone(&turns);
            flood.spawn(async move { turns.turn(&caller(0, "mallory"), false).await.err() });
        }
        sleep(Duration::from_millis(1)).await;
        for (offer, name) in [(0, "alice"), (1, "acme")] {
            let began = Instant::now();
            assert!(turns.turn(&caller(offer, name), false).await.is_ok());
            assert!(began.elapsed() < Duration::from_millis(500), "{name}");
        }
        let waits: Vec<_> = flood.join_all().await.into_iter().flatten().collect();
        assert!((55..=60).contains(&waits.len()), "{}", waits.len());
        assert!(waits.iter().all(|wait| *wait > LONGEST));
    }

    #[tokio::test(start_paused = true)]
    async fn puts_keys_of_whole_scopes_first() {
        let turns = Turns::new(RATE, 8, LONGEST);
        let mut flood = JoinSet::new();
        for _ in 0..30 {
            let turns = Arc::clone(&turns);
            flood.spawn(async move { turns.turn(&caller(0, "mallory"), false).await.is_ok() });
        }
        sleep(Duration::from_millis(250)).await;
        let began = Instant::now();
        assert!(turns.turn(&caller(0, "mallory"), true).await.is_ok());
        assert!(began.elapsed() <= Duration::from_millis(110));
        assert!(flood.join_all().await.into_iter().all(|served| served));
    }
}
