//! A worker thread: drives closed and open loops.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::arrivals::{Arrivals, Curve};
use super::client::LoadClient;
use super::ledger::Ledger;
use super::plan::{LoopShape, Plan};
use super::report::{Isolation, Truth};
use super::request::Signer;
use super::stats::{Ended, Interval, SideTotals, TENANTS, Totals};
use super::timer::Timer;

/// Maximum puts before the load, and reads of the sweep, that a thread has in flight.
pub(super) const PARALLEL: usize = 16;
/// The interval at which a slot checks whether the ramp has reached it.
const RAMP_STEP: Duration = Duration::from_millis(10);

/// The interval at which a waiting thread checks whether the load ends early.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// The measurements of a thread. The coordinator reads them while the load runs.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// The totals by side.
    pub(super) sides: Vec<SideTotals>,
    /// The totals by tenant, on the target. The last stands for all beyond the limit.
    pub(super) tenants: Vec<Totals>,
    /// The current interval, by side.
    pub(super) interval: Vec<Interval>,
    /// The results of verification, during the load and in the sweep.
    pub(super) truth: Truth,
    /// The results of the isolation probes.
    pub(super) isolation: Isolation,
}

/// The state that a thread shares with the coordinator.
#[derive(Debug, Default)]
pub(super) struct WorkerShared {
    measured: Mutex<Measured>,
    /// Operations in flight.
    pub(super) in_flight: AtomicU64,
    /// Whether the load ends early, so that no operation may start.
    pub(super) is_stopped: AtomicBool,
}

/// A command to a thread, with the channel for its result.
#[derive(Debug)]
pub(super) enum WorkerCommand {
    /// Put this number of objects. It fails only if none could be put.
    Prepare(u64, oneshot::Sender<Result<(), String>>),
    /// Drive a segment of the load.
    Load(Segment, oneshot::Sender<Driven>),
    /// Compare the store with the acknowledged writes.
    Sweep(oneshot::Sender<()>),
    /// Remove all objects of this run. Gives the number of objects that remain.
    Clean(oneshot::Sender<u64>),
    /// Store this text under this key, below the first tenant's prefix.
    Store(String, String, oneshot::Sender<Result<(), String>>),
}

/// A segment of the load.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The loop and its level.
    pub(super) shape: LoopShape,
    /// The time when it starts.
    pub(super) start: Instant,
    /// Operations of all threads of all processes.
    pub(super) requests: Option<u64>,
    /// The seed of the arrivals.
    pub(super) seed: u64,
}

/// The result of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Driven {
    /// Operations that were planned but not started.
    pub(super) not_started: u64,
    /// The share of the time in which the thread used a CPU or waited for one.
    pub(super) busy: f64,
    /// Connections that were made, by side.
    pub(super) connections: [u64; 2],
}

/// A worker thread's own state.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) plan: Arc<Plan>,
    pub(super) thread: u32,
    pub(super) shared: Arc<WorkerShared>,
    pub(super) clients: Vec<LoadClient>,
    /// By tenant, then side.
    pub(super) signers: Vec<Vec<Signer>>,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) random: RefCell<fastrand::Rng>,
    pub(super) turn: Cell<usize>,
}

impl WorkerShared {
    /// The current measurements.
    pub(super) fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Measured {
    fn record(&mut self, ended: &Ended, sides: usize, tenants: usize) {
        if self.sides.is_empty() {
            self.sides.resize_with(sides, SideTotals::default);
            self.interval.resize_with(sides, Interval::default);
            let named = tenants.min(TENANTS) + usize::from(tenants > TENANTS);
            self.tenants.resize_with(named, Totals::default);
        }
        if let Some(side) = self.sides.get_mut(ended.side) {
            side.record(ended);
        }
        if let Some(side) = self.interval.get_mut(ended.side) {
            side.record(ended);
        }
        if ended.side == 0
            && let Some(tenant) = self.tenants.get_mut(ended.tenant.min(TENANTS))
        {
            tenant.record(ended);
        }
    }
}

/// Runs a worker thread until no more commands can come.
pub(super) fn run(
    plan: &Arc<Plan>,
    thread: u32,
    shared: &Arc<WorkerShared>,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let worker = Worker::new(plan, thread, shared);
    LocalSet::new().block_on(&runtime, Rc::new(worker).obey(commands));
    Ok(())
}

impl Worker {
    fn new(plan: &Arc<Plan>, thread: u32, shared: &Arc<WorkerShared>) -> Self {
        let clients = plan.sides.iter().map(|side| LoadClient::new(&side.connect));
        let signers = plan.tenants.iter().map(|tenant| {
            let accounts = tenant.accounts.iter().zip(&plan.sides);
            accounts
                .map(|(account, side)| Signer::new(account.identity.clone(), &side.address.region))
                .collect()
        });
        let groups = plan.sides.len() * plan.tenants.len();
        let limit = plan.max_objects.div_ceil(u64::from(plan.threads));
        let seed = plan.seed ^ u64::from(plan.part(thread).0);
        Self {
            plan: Arc::clone(plan),
            thread,
            shared: Arc::clone(shared),
            clients: clients.collect(),
            signers: signers.collect(),
            ledger: RefCell::new(Ledger::new(thread, groups, limit)),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            turn: Cell::new(0),
        }
    }

    async fn obey(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
        while let Some(command) = commands.recv().await {
            // If the coordinator has ended, the result is not needed.
            match command {
                WorkerCommand::Prepare(count, result) => {
                    let _ = result.send(Rc::clone(&self).prepare(count).await);
                }
                WorkerCommand::Load(segment, result) => {
                    let _ = result.send(Rc::clone(&self).drive(&segment).await);
                }
                WorkerCommand::Sweep(result) => {
                    Rc::clone(&self).sweep().await;
                    let _ = result.send(());
                }
                WorkerCommand::Clean(result) => {
                    let _ = result.send(Rc::clone(&self).clean().await);
                }
                WorkerCommand::Store(key, text, result) => {
                    let _ = result.send(self.store(&key, text).await);
                }
            }
        }
    }

    /// A random number from 0 to below 1.
    pub(super) fn point(&self) -> f64 {
        self.random.borrow_mut().f64()
    }

    /// The group of a tenant on a side in the ledger.
    pub(super) fn group(&self, side: usize, tenant: usize) -> usize {
        side * self.plan.tenants.len() + tenant
    }

    pub(super) fn record(&self, ended: &Ended) {
        let mut measured = self.shared.measured();
        measured.record(ended, self.plan.sides.len(), self.plan.tenants.len());
    }

    /// Puts the objects that reads need, alternating between the sides.
    async fn prepare(self: Rc<Self>, count: u64) -> Result<(), String> {
        let left = Rc::new(Cell::new(count * self.plan.sides.len() as u64));
        let (done, failure) = (Rc::new(Cell::new(0_u64)), Rc::new(RefCell::new(None)));
        let mut tasks = JoinSet::new();
        for _ in 0..PARALLEL {
            let worker = Rc::clone(&self);
            let (left, done, failure) = (Rc::clone(&left), Rc::clone(&done), Rc::clone(&failure));
            tasks.spawn_local(async move {
                while let Some(next) = left.get().checked_sub(1).filter(|_| !worker.is_stopped()) {
                    left.set(next);
                    match worker.put_one().await {
                        Ok(()) => done.set(done.get() + 1),
                        Err(error) => *failure.borrow_mut() = Some(error),
                    }
                    if done.get() == 0 && failure.borrow().is_some() {
                        left.set(0); // further puts would fail too
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        let failure = failure.borrow_mut().take();
        match failure {
            Some(error) if done.get() == 0 => Err(error),
            _ => Ok(()),
        }
    }

    /// Drives a segment of the load to its end.
    async fn drive(self: Rc<Self>, segment: &Segment) -> Driven {
        tokio::time::sleep_until(segment.start).await;
        let cpu = thread_cpu();
        let dialled: Vec<u64> = self.clients.iter().map(LoadClient::dialled).collect();
        let part = self.plan.part(self.thread);
        let sharing = match &segment.shape {
            // A thread without a slot starts nothing, so it gets no share of the operations.
            LoopShape::Closed { slots, .. } => part.1.min(*slots).max(1),
            LoopShape::Open { .. } => part.1,
        };
        let budget = OperationBudget::new(segment.requests, (part.0, sharing));
        let not_started = match &segment.shape {
            LoopShape::Closed { concurrency, slots } => {
                let loops = self.closed(concurrency, *slots, segment.start, &budget);
                loops.await;
                0
            }
            LoopShape::Open { .. } => self.open(segment, part, &budget).await,
        };
        let lasted = segment.start.elapsed().as_secs_f64();
        let mut connections = [0; 2];
        for ((slot, client), before) in connections.iter_mut().zip(&self.clients).zip(dialled) {
            *slot = client.dialled() - before;
        }
        Driven {
            not_started,
            busy: (thread_cpu() - cpu) / lasted.max(0.001),
            connections,
        }
    }

    async fn closed(
        self: &Rc<Self>,
        curve: &Curve,
        slots: u32,
        start: Instant,
        budget: &Rc<OperationBudget>,
    ) {
        let (index, parts) = self.plan.part(self.thread);
        let end = start + Duration::from_secs_f64(curve.length());
        let curve = Rc::new(curve.clone());
        let mut tasks = JoinSet::new();
        for slot in (index..slots).step_by(parts as usize) {
            let (worker, curve, budget) = (Rc::clone(self), Rc::clone(&curve), Rc::clone(budget));
            tasks.spawn_local(async move {
                loop {
                    let now = Instant::now();
                    if now >= end || worker.is_stopped() {
                        return;
                    }
                    let level = curve.level((now - start).as_secs_f64());
                    if f64::from(slot) >= level.ceil() {
                        tokio::time::sleep(RAMP_STEP).await;
                        continue;
                    }
                    if !budget.take() {
                        return;
                    }
                    worker.operate(now).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Starts each operation at its planned time while there is room. Gives the number that was not started.
    async fn open(
        self: &Rc<Self>,
        segment: &Segment,
        part: (u32, u32),
        budget: &Rc<OperationBudget>,
    ) -> u64 {
        let LoopShape::Open {
            rate,
            spacing,
            max_in_flight,
        } = &segment.shape
        else {
            return 0;
        };
        let end = segment.start + Duration::from_secs_f64(rate.length());
        let seed = segment.seed ^ super::content::mix(part.0.into());
        let mut arrivals = Arrivals::new(rate.clone(), *spacing, part, seed);
        let room = (*max_in_flight / self.plan.threads).max(1) as usize;
        let (in_flight, freed) = (Rc::new(Cell::new(0_usize)), Rc::new(Notify::new()));
        let Ok(timer) = Timer::new() else {
            return arrivals.count() as u64;
        };
        let mut not_started = 0;
        let mut tasks = JoinSet::new();
        for planned in arrivals.by_ref() {
            if !budget.take() {
                break;
            }
            let planned = segment.start + planned;
            self.wait_until(&timer, planned).await;
            if self.is_stopped() {
                break;
            }
            while in_flight.get() >= room && Instant::now() < end {
                let _ = tokio::time::timeout_at(end, freed.notified()).await;
            }
            if in_flight.get() >= room {
                not_started = 1;
                break;
            }
            in_flight.set(in_flight.get() + 1);
            while tasks.try_join_next().is_some() {}
            let (worker, in_flight, freed) =
                (Rc::clone(self), Rc::clone(&in_flight), Rc::clone(&freed));
            tasks.spawn_local(async move {
                worker.operate(planned).await;
                in_flight.set(in_flight.get() - 1);
                freed.notify_one();
            });
        }
        if not_started > 0 {
            not_started += arrivals.take_while(|_| budget.take()).count() as u64;
        }
        while tasks.join_next().await.is_some() {}
        not_started
    }

    /// Waits for a planned start, or until the load ends early.
    async fn wait_until(&self, timer: &Timer, planned: Instant) {
        while Instant::now() < planned && !self.is_stopped() {
            let next = planned.min(Instant::now() + STOP_CHECK);
            if timer.wait_until(next).await.is_err() {
                tokio::time::sleep_until(next).await;
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::Relaxed)
    }

    /// Counts an operation as in flight while `work` runs.
    pub(super) async fn in_flight<T>(&self, work: impl Future<Output = T>) -> T {
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let result = work.await;
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        result
    }
}

/// The number of operations that a thread may still start.
#[derive(Debug)]
struct OperationBudget(Cell<u64>);

impl OperationBudget {
    /// Part `index` of `parts` of `requests`.
    fn new(requests: Option<u64>, (index, parts): (u32, u32)) -> Rc<Self> {
        let (index, parts) = (u64::from(index), u64::from(parts));
        let share = |requests: u64| match index {
            index if index < parts => requests / parts + u64::from(index < requests % parts),
            _ => 0,
        };
        Rc::new(Self(Cell::new(requests.map_or(u64::MAX, share))))
    }

    fn take(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

/// Seconds in which this thread used a CPU or waited for one. Linux counts the waits too
/// (`Documentation/scheduler/sched-stats.rst`): on a busy machine, a thread can be late without using much CPU.
fn thread_cpu() -> f64 {
    let waited = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    if let Some(seconds) = waited.and_then(|text| schedstat(&text)) {
        return seconds;
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Parses the time on a CPU and the time in the queue for one, both in nanoseconds.
fn schedstat(text: &str) -> Option<f64> {
    let mut fields = text.split_ascii_whitespace();
    let run: u64 = fields.next()?.parse().ok()?;
    let waited: u64 = fields.next()?.parse().ok()?;
    Some((run + waited) as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_waits_for_a_cpu_as_busy() {
        assert_eq!(schedstat("1500000000 500000000 7\n"), Some(2.0));
        assert_eq!(schedstat(""), None);
        let before = thread_cpu();
        (0..2_000_000_u64).for_each(|n| {
            std::hint::black_box(n);
        });
        assert!(thread_cpu() > before);
    }

    #[test]
    fn parts_of_a_budget_add_up() {
        let total: u64 = (0..7)
            .map(|index| OperationBudget::new(Some(100), (index, 7)).0.get())
            .sum();
        assert_eq!(total, 100);
        assert_eq!(OperationBudget::new(Some(100), (3, 2)).0.get(), 0);
        let budget = OperationBudget::new(Some(1), (0, 1));
        assert!(budget.take() && !budget.take() && !budget.take());
    }
}
