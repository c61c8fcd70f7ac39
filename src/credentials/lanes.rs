//! Queues of calls to STS: for each issuer a rate, a breaker, and a queue for each urgency.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::backlog::{Backlog, CALLS_IN_FLIGHT};
use super::breaker::Breaker;
use super::call_state::Urgency;
use super::entry::{CallRequest, Entry};
use super::single_flight::Unfinished;
use super::sts::{Issued, StsError};

/// The queues of one issuer.
#[derive(Clone)]
pub(super) struct Lane {
    cold: mpsc::UnboundedSender<Arc<Entry>>,
    refresh: mpsc::UnboundedSender<Arc<Entry>>,
    first: mpsc::UnboundedSender<Arc<Entry>>,
    breaker: Arc<Breaker>,
    backlog: Arc<Backlog>,
}

/// The other ends of a [`Lane`].
struct Queues {
    cold: mpsc::UnboundedReceiver<Arc<Entry>>,
    refresh: mpsc::UnboundedReceiver<Arc<Entry>>,
    first: mpsc::UnboundedReceiver<Arc<Entry>>,
}

/// Sends each request for a call to its issuer's lane as soon as the entry may call.
pub(super) async fn dispatch(
    lanes: Vec<Option<Lane>>,
    mut requests: mpsc::UnboundedReceiver<CallRequest>,
) {
    while let Some(CallRequest { entry, urgency }) = requests.recv().await {
        let Some(Some(lane)) = lanes.get(entry.scope().issuer) else {
            continue;
        };
        let now = Instant::now();
        let mut at = entry.next_call(urgency);
        if let Some(until) = lane.breaker.open_until(now) {
            at = at.max(until); // waiting requests were refused, and may find a key when they are sent again
        }
        if at <= now {
            lane.send(entry, urgency);
            continue;
        }
        let lane = lane.clone();
        tokio::spawn(async move {
            sleep_until(at).await;
            lane.send(entry, urgency);
        });
    }
}

impl Lane {
    /// Starts to make `call`s at the rate of `backlog`, as long as `breaker` lets them.
    pub(super) fn start<C, F>(backlog: Arc<Backlog>, breaker: Arc<Breaker>, call: C) -> Self
    where
        C: Fn(Arc<Entry>) -> F + Send + 'static,
        F: Future<Output = Result<Issued, StsError>> + Send + 'static,
    {
        let (cold, cold_queue) = mpsc::unbounded_channel();
        let (refresh, refresh_queue) = mpsc::unbounded_channel();
        let (first, first_queue) = mpsc::unbounded_channel();
        let queues = Queues {
            cold: cold_queue,
            refresh: refresh_queue,
            first: first_queue,
        };
        let paced = serve(call, Arc::clone(&backlog), Arc::clone(&breaker), queues);
        tokio::spawn(paced);
        Self {
            cold,
            refresh,
            first,
            breaker,
            backlog,
        }
    }

    fn send(&self, entry: Arc<Entry>, urgency: Urgency) {
        let queue = match urgency {
            Urgency::Cold => &self.cold,
            Urgency::First => &self.first,
            Urgency::Refresh => &self.refresh,
        };
        entry.join(urgency, self.backlog.join(urgency));
        let _ = queue.send(entry); // fails only while the thread ends
    }
}

/// Makes one issuer's calls at its rate. Calls that requests wait for come first, and those for new
/// scopes last: however many new subjects come, active ones keep their keys. Each entry has at most
/// one call in each queue, which bounds them.
async fn serve<C, F>(call: C, backlog: Arc<Backlog>, breaker: Arc<Breaker>, mut queues: Queues)
where
    C: Fn(Arc<Entry>) -> F,
    F: Future<Output = Result<Issued, StsError>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(CALLS_IN_FLIGHT as usize));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let ready = backlog.limiter().ready_at(Instant::now());
        sleep_until(ready).await;
        let (entry, urgency) = tokio::select! {
            biased;
            Some(entry) = queues.cold.recv() => (entry, Urgency::Cold),
            Some(entry) = queues.refresh.recv() => (entry, Urgency::Refresh),
            Some(entry) = queues.first.recv() => (entry, Urgency::First),
            else => return,
        };
        backlog.leave(urgency);
        if breaker.open_until(Instant::now()).is_some() {
            entry.withdraw(urgency); // the breaker itself has woken waiting requests
            continue;
        }
        if !entry.begin(urgency) {
            continue; // it became more urgent, and waits in the other queue; or no request waits
        }
        let now = Instant::now();
        backlog.limiter().take(now);
        let is_probe = breaker.is_half_open(now);
        let in_flight = LaneCall {
            entry: Arc::clone(&entry),
            breaker: Arc::clone(&breaker),
            backlog: Arc::clone(&backlog),
            began: now,
            result: None,
        };
        let call = call(entry);
        let ended = tokio::spawn(async move {
            let (_slot, mut in_flight) = (slot, in_flight);
            in_flight.result = Some(call.await);
        });
        if is_probe {
            let _ = ended.await; // a panic in it has ended the call too
        }
    }
}

/// A call in flight. However it ends, its entry and its issuer's breaker learn of it.
struct LaneCall {
    entry: Arc<Entry>,
    breaker: Arc<Breaker>,
    backlog: Arc<Backlog>,
    began: Instant,
    result: Option<Result<Issued, StsError>>,
}

impl Drop for LaneCall {
    fn drop(&mut self) {
        let result = self.result.take();
        let result = result.unwrap_or_else(|| Err(Unfinished.into()));
        let tenant = self.entry.scope().tenant.as_str();
        match &result {
            Ok(issued) => {
                tracing::debug!(tenant, expires = %issued.expires, request = issued.request_id, "new key");
            }
            Err(error) if error.is_repeated => tracing::debug!(tenant, %error, "no key"),
            Err(error) => tracing::warn!(tenant, %error, "no key"),
        }
        let repeated = |error: &StsError| error.is_repeated;
        if !result.as_ref().is_err_and(repeated) {
            self.entry.counters().sts_time.observe(self.began.elapsed());
        }
        if result.is_ok() {
            self.backlog.record_call(self.began.elapsed()); // a failed call does not say how long calls take
        }
        self.breaker.record_result(
            self.backlog.issuer(),
            &result,
            self.began,
            self.entry.counters(),
        );
        self.entry.finish(result, fastrand::f64());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::task::JoinHandle;

    use super::super::entry::{KeyScope, KeySource};
    use super::super::issue_error::NoKey;
    use super::super::sts::StsClass;
    use super::*;
    use crate::config::CallRate;
    use crate::secret::Secret;
    use crate::timestamp::Timestamp;

    const RATE: CallRate = CallRate {
        per_second: 100,
        burst: 200,
    };
    const TENANTS: usize = 10_000;
    const LIFE: Duration = Duration::from_hours(2);
    /// Every third second another part of the tenants makes requests.
    const TURN: Duration = Duration::from_secs(3);
    const TURNS: usize = 60;
    const LATENCY: Duration = Duration::from_millis(50);

    async fn request(entry: Arc<Entry>) -> bool {
        entry.get().await.is_ok()
    }

    async fn count_refused(requests: Vec<JoinHandle<bool>>) -> usize {
        let mut refused = 0;
        for request in requests {
            refused += usize::from(!request.await.unwrap());
        }
        refused
    }

    /// An STS in simulated time, and the tenants that have their keys from it.
    struct Simulation {
        entries: Vec<Arc<Entry>>,
        is_down: Mutex<bool>,
        /// How long a call takes that fails.
        latency_down: Mutex<Duration>,
        /// When it was called.
        calls: Mutex<Vec<Instant>>,
        breaker: Arc<Breaker>,
    }

    impl Simulation {
        fn start(tenants: usize) -> Arc<Self> {
            let (requests, requested) = mpsc::unbounded_channel();
            let breaker = Arc::new(Breaker::new());
            let backlog = Arc::new(Backlog::new("main", RATE));
            let entry = |number| {
                let scope = KeyScope {
                    tenant: format!("tenant{number}"),
                    policy: "{}".into(),
                    issuer: 0,
                };
                let source = KeySource {
                    requests: requests.clone(),
                    breaker: Arc::clone(&breaker),
                    backlog: Arc::clone(&backlog),
                };
                let margin = Duration::from_secs(30);
                Arc::new(Entry::new(scope, source, margin, Arc::default()))
            };
            let simulation = Arc::new(Self {
                entries: (0..tenants).map(entry).collect(),
                is_down: Mutex::new(false),
                latency_down: Mutex::new(LATENCY),
                calls: Mutex::default(),
                breaker: Arc::clone(&breaker),
            });
            let sts = Arc::clone(&simulation);
            let lane = Lane::start(backlog, breaker, move |_| {
                let sts = Arc::clone(&sts);
                async move { sts.call().await }
            });
            tokio::spawn(dispatch(vec![Some(lane)], requested));
            simulation
        }

        async fn call(&self) -> Result<Issued, StsError> {
            self.calls.lock().unwrap().push(Instant::now());
            // Silence that began is not ended by the end of the outage.
            if *self.is_down.lock().unwrap() {
                let latency = *self.latency_down.lock().unwrap();
                tokio::time::sleep(latency).await;
                return Err(StsError::new(StsClass::Retry, "Network", "down"));
            }
            tokio::time::sleep(LATENCY).await;
            Ok(Issued {
                secret_id: "AKID".into(),
                secret_key: Secret::new("KEY"),
                token: Secret::new("TOKEN"),
                expires: Timestamp::from_unix(1_768_480_245),
                life: LIFE,
                request_id: String::new(),
            })
        }

        /// Has each tenant make a request every three minutes for so long, not all at the same time;
        /// gives how many were refused with a time to come back.
        async fn serve(&self, time: Duration) -> usize {
            let end = Instant::now() + time;
            let mut waiting = Vec::new();
            for turn in (0..TURNS).cycle() {
                if Instant::now() >= end {
                    break;
                }
                for entry in self.entries.iter().skip(turn).step_by(TURNS) {
                    if entry.live(Instant::now()).is_none() {
                        waiting.push(tokio::spawn(request(Arc::clone(entry))));
                    }
                }
                tokio::time::sleep(TURN).await;
            }
            count_refused(waiting).await
        }

        /// Has all tenants make a request at once, and again until all have a key.
        async fn herd(&self) -> Duration {
            let began = Instant::now();
            loop {
                let all = self.entries.iter().cloned();
                if count_refused(all.map(|entry| tokio::spawn(request(entry))).collect()).await == 0
                {
                    return began.elapsed();
                }
                tokio::time::sleep(Duration::from_secs(1)).await; // the least Retry-After
            }
        }

        /// The most calls in any stretch of time of this length.
        fn most_within(&self, window: Duration) -> usize {
            let calls = self.calls.lock().unwrap();
            let mut first = 0;
            let within = calls.iter().enumerate().map(|(last, at)| {
                while *at - calls[first] >= window {
                    first += 1;
                }
                last + 1 - first
            });
            within.max().unwrap_or(0)
        }

        fn take_calls(&self) -> usize {
            std::mem::take(&mut *self.calls.lock().unwrap()).len()
        }

        /// No more calls than the bucket allows, in short and in long.
        #[track_caller]
        fn assert_within_the_bucket(&self) {
            for seconds in [1, 10, 100] {
                let max = self.most_within(Duration::from_secs(seconds));
                let allowed = 200 + 100 * usize::try_from(seconds).unwrap() + 1;
                assert!(max <= allowed, "{max} calls in {seconds} s");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spreads_the_calls_of_ten_thousand_tenants() {
        let simulation = Simulation::start(TENANTS);
        let start_up = simulation.herd().await;
        simulation.assert_within_the_bucket();
        let at_start = simulation.most_within(Duration::from_secs(1));
        assert_eq!(simulation.take_calls(), TENANTS, "one a tenant");
        // The first rotation is of keys that were all made together.
        assert_eq!(simulation.serve(LIFE).await, 0);
        let in_rotation = simulation.most_within(Duration::from_secs(1));
        simulation.take_calls();
        let hours = Duration::from_hours(4);
        assert_eq!(simulation.serve(hours).await, 0);
        let later = simulation.most_within(Duration::from_secs(1));
        let calls = u32::try_from(simulation.take_calls()).unwrap();
        let rate = f64::from(calls) / hours.as_secs_f64();
        println!(
            "{TENANTS} tenants have keys after {start_up:?}, at most {at_start} calls in a second; \
             {in_rotation} in the first rotation, {later} later; {rate:.2} calls/s on average"
        );
        assert!((1.8..2.6).contains(&rate), "{rate}");
        assert!(in_rotation <= 100 && later <= 100, "{in_rotation} {later}");
    }

    #[tokio::test(start_paused = true)]
    async fn recovers_from_an_outage_that_outlived_all_keys_without_a_burst() {
        let simulation = Simulation::start(TENANTS / 4);
        simulation.herd().await;
        simulation.serve(LIFE.mul_f64(0.6)).await;
        simulation.take_calls();
        *simulation.is_down.lock().unwrap() = true;
        let least = LIFE.mul_f64(0.2).saturating_sub(Duration::from_mins(4)); // of the oldest keys
        assert_eq!(simulation.serve(least).await, 0, "live keys serve on");
        assert!(simulation.serve(LIFE).await > 0);
        let outage = simulation.take_calls();
        let max = usize::try_from(LIFE.as_secs()).unwrap() * 2 / 3;
        assert!(outage < max, "{outage} calls in an outage of two hours");
        *simulation.is_down.lock().unwrap() = false;
        let recovery = simulation.herd().await;
        simulation.assert_within_the_bucket();
        assert!(recovery < Duration::from_mins(3), "{recovery:?}");
        let max = simulation.most_within(Duration::from_secs(1));
        println!(
            "{outage} calls in the outage; all have keys {recovery:?} after it, \
             at most {max} calls in a second"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn refuses_at_once_and_probes_with_one_call_while_the_breaker_is_open() {
        let simulation = Simulation::start(50);
        *simulation.is_down.lock().unwrap() = true;
        let all = simulation.entries.clone();
        let waiting = all
            .iter()
            .cloned()
            .map(|entry| tokio::spawn(async move { entry.get().await.unwrap_err() }));
        let before = Instant::now();
        for one in waiting.collect::<Vec<_>>() {
            assert!(one.await.unwrap().retry_after.unwrap() <= 2);
        }
        assert!(before.elapsed() <= LATENCY * 2, "those who waited as well");
        simulation.take_calls();
        let until = simulation.breaker.open_until(Instant::now()).unwrap();
        for entry in &all {
            assert!(entry.get().await.is_err());
        }
        assert!(Instant::now() < until && simulation.take_calls() == 0);
        *simulation.is_down.lock().unwrap() = false;
        // They were refused, and the first key is fetched for them all the same.
        sleep_until(until.max(all[0].next_call(Urgency::Cold)) + LATENCY / 2).await;
        assert_eq!(simulation.calls.lock().unwrap().len(), 1, "the probe alone");
        let waiting = all.iter().cloned();
        let waiting = waiting.map(|entry| tokio::spawn(async move { entry.get().await.is_ok() }));
        for one in waiting.collect::<Vec<_>>() {
            assert!(one.await.unwrap());
        }
        assert_eq!(simulation.take_calls(), 50);
    }

    /// Three thousand tenants need their first key in the same moment: at the default rate the last of
    /// them has it after 28 s, and nobody is refused.
    #[tokio::test(start_paused = true)]
    async fn serves_three_thousand_cold_tenants_in_their_turn() {
        let simulation = Simulation::start(3_000);
        let began = Instant::now();
        let all = simulation.entries.iter().cloned();
        let all: Vec<_> = all.map(|entry| tokio::spawn(request(entry))).collect();
        assert_eq!(count_refused(all).await, 0);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(29), "{took:?}");
        simulation.assert_within_the_bucket();
        assert_eq!(simulation.take_calls(), 3_000, "one a tenant");
    }

    /// More than can have their turn within the time that a client waits: the others learn when
    /// theirs is, each its own, and find a key then.
    #[tokio::test(start_paused = true)]
    async fn reports_when_the_turn_is_that_does_not_come_in_time() {
        let simulation = Simulation::start(6_000);
        let began = Instant::now();
        let clients = simulation.entries.iter().cloned().map(|entry| {
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while let Err(error) = entry.get().await {
                    assert_eq!(error.reason, NoKey::Queued);
                    assert!(error.detail.contains("issuers.main.calls_per_second = 100"));
                    let after = error.retry_after.unwrap();
                    waits.push(after);
                    tokio::time::sleep(Duration::from_secs(after.into())).await;
                }
                waits
            })
        });
        let mut spread = [0; 61];
        let mut refused = 0;
        for client in clients.collect::<Vec<_>>() {
            let waits = client.await.unwrap();
            assert!(waits.len() <= 1, "{waits:?}: the reported time is true");
            for after in waits {
                refused += 1;
                spread[usize::try_from(after).unwrap()] += 1;
            }
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(64), "{took:?}");
        assert!((2_500..3_000).contains(&refused), "{refused}");
        assert!(spread.iter().all(|waits| *waits <= 120), "{spread:?}");
        assert_eq!(simulation.take_calls(), 6_000);
    }

    /// Whoever waits all the time, one or many, has a key within five seconds of the end of an outage:
    /// through the entries' pauses and the breaker's together. STS refuses at once, or is silent until
    /// the call is given up.
    #[tokio::test(start_paused = true)]
    async fn serves_waiting_requests_soon_after_an_outage_of_any_length() {
        for tenants in [1, 3, 60] {
            for (outage, latency) in [10, 60, 120, 240, 3600]
                .into_iter()
                .flat_map(|outage| [(outage, LATENCY), (outage, Duration::from_secs(5))])
            {
                let simulation = Simulation::start(tenants);
                *simulation.is_down.lock().unwrap() = true;
                *simulation.latency_down.lock().unwrap() = latency;
                let clients = simulation.entries.iter().cloned().map(|entry| {
                    tokio::spawn(async move {
                        while let Err(error) = entry.get().await {
                            let after = error.retry_after.unwrap();
                            tokio::time::sleep(Duration::from_secs(after.into())).await;
                        }
                        Instant::now()
                    })
                });
                let clients: Vec<_> = clients.collect();
                tokio::time::sleep(Duration::from_secs(outage)).await;
                *simulation.is_down.lock().unwrap() = false;
                let back = Instant::now();
                let mut last = back;
                for client in clients {
                    last = last.max(client.await.unwrap());
                }
                let waited = last - back;
                let limit = Duration::from_secs(5) + LATENCY * 2 + latency.min(LATENCY);
                let case = format!("{tenants} tenants, {outage} s, a call takes {latency:?}");
                assert!(waited <= limit + late(tenants), "{case}: {waited:?}");
                let calls = simulation.take_calls();
                let max = usize::try_from(outage).unwrap() + 5 + 64 + 2 * tenants;
                assert!(calls <= max, "{case}: {calls} calls");
            }
        }
    }

    /// Who must come back in whole seconds does not come back sooner.
    fn late(tenants: usize) -> Duration {
        Duration::from_secs(u64::from(tenants > 1))
    }
}
