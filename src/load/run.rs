//! A run from its start to its report: threads, clock, faults and measurements.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::knee;
use super::live::{Live, Snapshot};
use super::plan::{Plan, PlanInputs};
use super::process::{MeasuredProcess, Usage};
use super::report::{
    FaultResult, Generator, Isolation, ProxyUsage, Report, SATURATED, SCHEMA, SideResult,
    TenantResult, Truth,
};
use super::scenario::{Scenario, Sweep};
use super::stats::{Interval, IntervalRow, ROWS, Series, SideTotals, TENANTS, Totals};
use super::worker::{self, Driven, Segment, WorkerCommand, WorkerShared};
use crate::clock::wall_clock;
use crate::emulator::{Emulator, FaultEntry, Faults};
use crate::timestamp::Timestamp;
use crate::upstream::dial::Dialer;

/// The delay from the command to the common start of all threads.
const HEAD_START: Duration = Duration::from_millis(20);
/// The minimum length of an interval. Only a very long run has longer ones.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// The number of intervals of a short run.
const INTERVALS: u32 = 60;
/// The interval at which the clock is read in the second before the start.
const CLOCK_WATCH: Duration = Duration::from_millis(1);
/// The time limit for the emulator's admin listener.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The inputs of a run besides its scenario.
pub struct Environment<'a> {
    /// The environment variables and the cores.
    pub inputs: PlanInputs<'a>,
    /// The control of faults.
    pub faults: FaultControl,
    /// The process of the proxy.
    pub proxy_pid: Option<u32>,
    /// Becomes true when the run must end early.
    pub interrupted: watch::Receiver<bool>,
}

/// The control of faults.
#[derive(Clone, Debug)]
pub enum FaultControl {
    /// No control: a schedule of faults is refused.
    None,
    /// The emulator of this process.
    Embedded(Arc<Emulator>),
    /// The admin listener of another process: `http://127.0.0.1:9102`.
    Admin(String),
}

/// The threads of a run, and their measurements.
pub(super) struct LoadThreads {
    pub(super) plan: Arc<Plan>,
    threads: Vec<Thread>,
    proxy: Option<MeasuredProcess>,
    faults: FaultControl,
    interrupted: watch::Receiver<bool>,
    /// The start of the load.
    origin: Instant,
    series: Series,
    at_last_row: Usage,
    at_start: Usage,
    peak_memory: u64,
    not_started: u64,
    busiest: f64,
    connections: Vec<u64>,
    seconds: f64,
}

struct Thread {
    commands: mpsc::UnboundedSender<WorkerCommand>,
    shared: Arc<WorkerShared>,
    handle: JoinHandle<()>,
}

/// Runs a scenario and gives its report. An error means that nothing was measured. Whatever happens, the objects of the
/// run are removed, unless the scenario keeps them.
pub async fn run(
    scenario: &Scenario,
    environment: Environment<'_>,
    live: &mut Live,
) -> Result<Report, String> {
    let plan = Arc::new(Plan::new(scenario, &environment.inputs)?);
    if !plan.faults.faults.is_empty() && matches!(environment.faults, FaultControl::None) {
        return Err(
            "faults need the embedded target, or --faults-admin of a `cosgate emulator`".to_owned(),
        );
    }
    if plan.start_at.is_some_and(|time| time < wall_clock()) {
        return Err("--start-at has passed".to_owned());
    }
    let mut threads = LoadThreads::start(plan, &environment)?;
    let measured = threads.measure(scenario, live).await;
    live.finish();
    let left = threads.clean(live).await;
    let ended = match (measured, left) {
        (Ok(mut report), left) => {
            report.incidents.extend(left);
            if let Some(key) = &scenario.json_key {
                report.judge();
                report
                    .incidents
                    .extend(threads.store(key, &report).await.err());
            }
            report.judge();
            Ok(report)
        }
        (Err(error), Some(left)) => Err(format!("{error}; {left}")),
        (Err(error), None) => Err(error),
    };
    threads.end();
    ended
}

impl LoadThreads {
    fn start(plan: Arc<Plan>, environment: &Environment<'_>) -> Result<Self, String> {
        let mut threads = Vec::new();
        for index in 0..plan.threads {
            let (commands, receiver) = mpsc::unbounded_channel();
            let shared = Arc::new(WorkerShared::default());
            let (its_plan, its_shared) = (Arc::clone(&plan), Arc::clone(&shared));
            let handle = std::thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || {
                    if let Err(error) = worker::run(&its_plan, index, &its_shared, receiver) {
                        tracing::error!(%error, "a load thread cannot start");
                    }
                })
                .map_err(|error| format!("cannot start a thread: {error}"))?;
            threads.push(Thread {
                commands,
                shared,
                handle,
            });
        }
        Ok(Self {
            connections: vec![0; plan.sides.len()],
            plan,
            threads,
            proxy: environment.proxy_pid.map(MeasuredProcess::new),
            faults: environment.faults.clone(),
            interrupted: environment.interrupted.clone(),
            origin: Instant::now(),
            series: Series::default(),
            at_last_row: Usage::default(),
            at_start: Usage::default(),
            peak_memory: 0,
            not_started: 0,
            busiest: 0.0,
            seconds: 0.0,
        })
    }

    /// Puts the first objects, drives the load and compares the store with what was acknowledged. An interruption
    /// skips what is left of the first two.
    async fn measure(&mut self, scenario: &Scenario, live: &mut Live) -> Result<Report, String> {
        tokio::spawn(stop_when(self.interrupted.clone(), self.shared()));
        live.print("uploading the first objects");
        self.prepare().await?;
        self.wait_for_start(live).await?;
        let started = wall_clock();
        let knee = if self.is_interrupted() {
            None
        } else if scenario.find_knee {
            Some(knee::find(self, scenario, live).await?)
        } else {
            let segment = Segment {
                shape: self.plan.shape.clone(),
                start: self.begin(),
                requests: self.plan.requests,
                seed: self.plan.seed,
            };
            self.load(segment, live).await?;
            None
        };
        live.finish();
        let is_interrupted = self.is_interrupted();
        if self.plan.sweep != Sweep::None {
            live.print("comparing the store with what was acknowledged");
            self.each(WorkerCommand::Sweep).await?;
        }
        let mut report = self.report(scenario, started);
        report.knee = knee;
        report.find_recoveries();
        if is_interrupted {
            report.incidents.push("interrupted".to_owned());
        }
        Ok(report)
    }

    /// Removes what was put. Gives an error text if something remains.
    async fn clean(&self, live: &mut Live) -> Option<String> {
        if self.plan.keep {
            return None;
        }
        live.print("removing what was put");
        let folder = &self.plan.folder;
        match self.each(WorkerCommand::Clean).await {
            Ok(left) => match left.into_iter().sum() {
                0_u64 => None,
                1 => Some(format!("1 object below {folder}/ could not be removed")),
                left => Some(format!(
                    "{left} objects below {folder}/ could not be removed"
                )),
            },
            Err(error) => Some(format!("{folder}/ was not removed: {error}")),
        }
    }

    /// Whether the run must end early.
    pub(super) fn is_interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }

    fn shared(&self) -> Vec<Arc<WorkerShared>> {
        let threads = self.threads.iter();
        threads.map(|thread| Arc::clone(&thread.shared)).collect()
    }

    /// Sends each thread the command that `make` makes, and waits for all results.
    async fn each<T>(
        &self,
        make: impl Fn(oneshot::Sender<T>) -> WorkerCommand,
    ) -> Result<Vec<T>, String> {
        let mut results = Vec::new();
        for thread in &self.threads {
            let (result, received) = oneshot::channel();
            // A thread that has ended sends no result, which is an error below.
            let _ = thread.commands.send(make(result));
            results.push(received);
        }
        let mut all = Vec::new();
        for result in results {
            all.push(result.await.map_err(|_| "a load thread has ended early")?);
        }
        Ok(all)
    }

    async fn prepare(&self) -> Result<(), String> {
        let threads = u64::from(self.plan.threads);
        let each = self.plan.objects.div_ceil(threads);
        if each == 0 {
            return Ok(());
        }
        let prepared = self
            .each(|result| WorkerCommand::Prepare(each, result))
            .await?;
        let failed = prepared.into_iter().find_map(Result::err);
        match failed {
            Some(error) => Err(format!("cannot put the first object: {error}")),
            None => Ok(()),
        }
    }

    /// Waits until the time at which all machines start, or for an interruption.
    async fn wait_for_start(&self, live: &mut Live) -> Result<(), String> {
        let Some(time) = self.plan.start_at else {
            return Ok(());
        };
        let text = time.iso8601();
        let left = time.since(wall_clock());
        let seconds = u64::try_from(left)
            .map_err(|_| format!("--start-at {text} passed while the first objects were put"))?;
        live.print(&format!("waiting {seconds} s for {text}"));
        let wait = async {
            // The clock counts whole seconds, so the last second is watched closely.
            tokio::time::sleep(Duration::from_secs(seconds.saturating_sub(1))).await;
            while wall_clock() < time {
                tokio::time::sleep(CLOCK_WATCH).await;
            }
        };
        tokio::select! {
            () = wait => {}
            () = interruption(self.interrupted.clone()) => {}
        }
        Ok(())
    }

    /// Stores the result in the bucket itself.
    async fn store(&self, key: &str, report: &Report) -> Result<(), String> {
        let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
        let Some(thread) = self.threads.first() else {
            return Ok(());
        };
        let (result, received) = oneshot::channel();
        let _ = thread
            .commands
            .send(WorkerCommand::Store(key.to_owned(), text, result));
        received
            .await
            .map_err(|_| "a load thread has ended early".to_owned())?
    }

    /// Sets the start time of the load.
    pub(super) fn begin(&mut self) -> Instant {
        self.origin = Instant::now() + HEAD_START;
        self.at_start = self.usage();
        self.at_last_row = self.at_start;
        self.origin
    }

    /// The start of the load.
    pub(super) fn origin(&self) -> Instant {
        self.origin
    }

    /// Drives one segment of the load and measures it. Gives its rows.
    pub(super) async fn load(
        &mut self,
        segment: Segment,
        live: &mut Live,
    ) -> Result<Interval, String> {
        let length = segment.shape.length();
        let tick = tick(length, segment.requests.is_some());
        // A run with a fixed number of operations ends when they end.
        let end = segment.requests.is_none().then_some(segment.start + length);
        // The times of faults count from their activation.
        let mut faults_at = Some(self.origin).filter(|_| !self.plan.faults.faults.is_empty());
        let mut sum = Interval::default();
        let start = segment.start;
        let mut driven = std::pin::pin!(all(self.start_threads(&segment)));
        let mut ticks = interval_at(start + tick, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut row_start = start;
        let mut fault_error = None;
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut driven => break outcome,
                () = until(faults_at) => {
                    faults_at = None;
                    fault_error = self.faults.apply(&self.plan.faults).await.err();
                    if fault_error.is_some() {
                        stop(&self.shared());
                    }
                }
                // The planned time, so that the rows of all processes of a run begin at the same times.
                now = ticks.tick() => {
                    let row = self.take_row(row_start, now);
                    row_start = now;
                    live.show(&self.snapshot(&row, end));
                    add(&mut sum, &row);
                    self.series.push(row);
                }
            }
        };
        self.faults.clear(&self.plan).await;
        if let Some(error) = fault_error {
            return Err(error);
        }
        for driven in outcome? {
            self.add(driven);
        }
        let row = self.take_row(row_start, Instant::now());
        add(&mut sum, &row);
        self.series.push(row);
        self.seconds = self.origin.elapsed().as_secs_f64();
        Ok(sum)
    }

    /// Starts a segment of the load on every thread. Gives the future results of the threads.
    fn start_threads(&self, segment: &Segment) -> Vec<oneshot::Receiver<Driven>> {
        let start = |thread: &Thread| {
            let (result, received) = oneshot::channel();
            let command = WorkerCommand::Load(segment.clone(), result);
            let _ = thread.commands.send(command);
            received
        };
        self.threads.iter().map(start).collect()
    }

    fn add(&mut self, driven: Driven) {
        self.not_started += driven.not_started;
        self.busiest = self.busiest.max(driven.busy);
        for (sum, count) in self.connections.iter_mut().zip(driven.connections) {
            *sum += count;
        }
    }

    /// Planned operations that were not started so far.
    pub(super) fn not_started(&self) -> u64 {
        self.not_started
    }

    fn usage(&self) -> Usage {
        self.proxy
            .and_then(MeasuredProcess::usage)
            .unwrap_or_default()
    }

    /// The measurements since the last row.
    fn take_row(&mut self, from: Instant, to: Instant) -> IntervalRow {
        let mut sides = vec![Interval::default(); self.plan.sides.len()];
        let mut in_flight = 0;
        for thread in &self.threads {
            let mut measured = thread.shared.measured();
            for (sum, interval) in sides.iter_mut().zip(&mut measured.interval) {
                sum.merge(&std::mem::take(interval));
            }
            in_flight += thread.shared.in_flight.load(Ordering::Relaxed);
        }
        let usage = self.proxy.and_then(MeasuredProcess::usage);
        let cpu = usage.map(|usage| usage.cpu_ms.saturating_sub(self.at_last_row.cpu_ms));
        if let Some(usage) = usage {
            self.at_last_row = usage;
            self.peak_memory = self.peak_memory.max(usage.memory);
        }
        IntervalRow {
            start_ms: millis(from.saturating_duration_since(self.origin)),
            length_ms: millis(to.saturating_duration_since(from)).max(1),
            sides,
            in_flight,
            proxy_cpu_ms: cpu,
            proxy_memory: usage.map(|usage| usage.memory),
        }
    }

    fn snapshot<'a>(&self, row: &'a IntervalRow, end: Option<Instant>) -> Snapshot<'a> {
        let now = Instant::now();
        let at = now.saturating_duration_since(self.origin);
        let end = end.map(|end| end.saturating_duration_since(now));
        let faults = self.plan.faults.faults.iter();
        let faults = faults.filter(|fault| !fault.is_event() && fault.is_on(at));
        Snapshot {
            elapsed: at,
            left: end,
            row,
            faults: faults.map(FaultEntry::label).collect(),
        }
    }

    /// The current result.
    fn report(&self, scenario: &Scenario, started: Timestamp) -> Report {
        let mut sides = vec![SideTotals::default(); self.plan.sides.len()];
        let named =
            self.plan.tenants.len().min(TENANTS) + usize::from(self.plan.tenants.len() > TENANTS);
        let mut tenants = vec![Totals::default(); named];
        let (mut truth, mut isolation) = (Truth::default(), Isolation::default());
        for thread in &self.threads {
            let measured = thread.shared.measured();
            sides
                .iter_mut()
                .zip(&measured.sides)
                .for_each(|(sum, side)| sum.merge(side));
            tenants
                .iter_mut()
                .zip(&measured.tenants)
                .for_each(|(sum, one)| sum.merge(one));
            truth.merge(&measured.truth);
            isolation.merge(&measured.isolation);
        }
        let sides: Vec<SideResult> = self
            .plan
            .sides
            .iter()
            .zip(&sides)
            .zip(&self.connections)
            .map(|((plan, totals), dialled)| {
                SideResult::new(plan.name, &plan.endpoint, totals, *dialled)
            })
            .collect();
        Report {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: scenario.name.clone().unwrap_or_else(|| "load".to_owned()),
            started: started.iso8601(),
            seconds: self.seconds,
            processes: 1,
            scenario: scenario.clone().without_secrets(),
            proxy: self.proxy_usage(sides.first().map_or(0, |side| side.all.count)),
            sides,
            tenants: self.named(tenants),
            not_started: self.not_started,
            truth,
            isolation,
            faults: self.fault_results(),
            knee: None,
            generator: Generator {
                threads: self.plan.threads,
                busiest: self.busiest,
                is_saturated: self.busiest >= SATURATED,
            },
            incidents: Vec::new(),
            failures: Vec::new(),
            series: self.series.clone(),
        }
    }

    fn named(&self, tenants: Vec<Totals>) -> Vec<TenantResult> {
        let name = |index: usize| match self.plan.tenants.get(index) {
            Some(tenant) if index < TENANTS => tenant.name.clone(),
            _ => "(all others)".to_owned(),
        };
        let named = tenants.into_iter().enumerate();
        named
            .map(|(index, totals)| TenantResult {
                name: name(index),
                totals,
            })
            .collect()
    }

    fn fault_results(&self) -> Vec<FaultResult> {
        let faults = self.plan.faults.faults.iter();
        let until = |fault: &FaultEntry| match fault.until {
            Some(until) => until.0.as_secs_f64(),
            None if fault.is_event() => fault.from.0.as_secs_f64(),
            None => self.seconds,
        };
        faults
            .map(|fault| FaultResult {
                name: fault.label(),
                from: fault.from.0.as_secs_f64(),
                until: until(fault),
                recovery: None,
            })
            .collect()
    }

    fn proxy_usage(&self, operations: u64) -> Option<ProxyUsage> {
        self.proxy?;
        if self.peak_memory == 0 {
            return None; // no /proc, or no such process
        }
        let cpu = self.at_last_row.cpu_ms.saturating_sub(self.at_start.cpu_ms) as f64;
        Some(ProxyUsage {
            cpu_seconds: cpu / 1000.0,
            cpu_micros_per_operation: cpu * 1000.0 / operations.max(1) as f64,
            peak_memory: self.peak_memory,
        })
    }

    /// Ends the threads.
    fn end(self) {
        for thread in self.threads {
            drop(thread.commands);
            if thread.handle.join().is_err() {
                tracing::error!("a load thread has panicked");
            }
        }
    }
}

impl FaultControl {
    async fn apply(&self, faults: &Faults) -> Result<(), String> {
        match self {
            Self::None => Ok(()),
            Self::Embedded(emulator) => {
                emulator.faults().set(faults.clone());
                Ok(())
            }
            Self::Admin(url) => {
                let faults = serde_json::to_vec(faults).unwrap_or_default();
                admin(url, Method::PUT, "/faults", faults).await
            }
        }
    }

    /// Removes all faults, however the load ended.
    async fn clear(&self, plan: &Plan) {
        if plan.faults.faults.is_empty() {
            return;
        }
        if let Err(error) = self.apply(&Faults::default()).await {
            tracing::warn!(%error, "the faults cannot be cleared");
        }
    }
}

/// One request to the emulator's admin listener.
async fn admin(url: &str, method: Method, path: &str, body: Vec<u8>) -> Result<(), String> {
    let cannot = |error: String| format!("cannot set faults at {url}: {error}");
    let uri: Uri = url.parse().map_err(|_| cannot("not a URL".to_owned()))?;
    let authority = uri
        .authority()
        .ok_or_else(|| cannot("not a URL".to_owned()))?;
    let call = async {
        let dialer = Dialer::new(None, None, ADMIN_TIMEOUT, ADMIN_TIMEOUT);
        let stream = dialer
            .dial(authority.as_str())
            .await
            .map_err(|e| e.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", authority.as_str())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        if status.is_success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Err(format!("{status}: {}", text.trim()))
    };
    let called = timeout(ADMIN_TIMEOUT, call).await;
    called
        .unwrap_or_else(|_| Err("timeout".to_owned()))
        .map_err(cannot)
}

async fn all(results: Vec<oneshot::Receiver<Driven>>) -> Result<Vec<Driven>, String> {
    let mut all = Vec::new();
    for result in results {
        all.push(result.await.map_err(|_| "a load thread has ended early")?);
    }
    Ok(all)
}

/// Waits until the run must end early.
async fn interruption(mut interrupted: watch::Receiver<bool>) {
    if interrupted.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await; // nobody is left who could interrupt
    }
}

/// When the run must end early, no thread starts another operation. The operations in flight are completed, and the
/// objects are still compared and removed.
async fn stop_when(interrupted: watch::Receiver<bool>, threads: Vec<Arc<WorkerShared>>) {
    interruption(interrupted).await;
    stop(&threads);
}

fn stop(threads: &[Arc<WorkerShared>]) {
    for shared in threads {
        shared.is_stopped.store(true, Ordering::Relaxed);
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn add(sum: &mut Interval, row: &IntervalRow) {
    if let Some(side) = row.sides.first() {
        sum.merge(side);
    }
}

/// The length of an interval, which is the same for all processes of one scenario. A run that ends with its
/// requests may be short.
fn tick(length: Duration, ends_with_requests: bool) -> Duration {
    if ends_with_requests {
        return SHORTEST_INTERVAL * 2;
    }
    let rows = u32::try_from(ROWS).unwrap_or(u32::MAX);
    (length / INTERVALS)
        .clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
        .max(length / rows / 64) // limits the number of folds in a run of a week
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error of the machine, as a command reports it.
pub(super) fn cannot(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}")
}
