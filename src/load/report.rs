//! The result of a run: the data of the JSON file, of all reports and of comparisons. Pure.

use serde::{Deserialize, Serialize};

use super::expression::{Metric, MetricScope};
use super::operation::LoadOperation;
use super::scenario::Scenario;
use super::stats::{ErrorCount, IntervalRow, Series, SideTotals, Totals};

/// The version of the file's form. An incompatible form gets another name.
pub const SCHEMA: &str = "cosgate-load/1";

/// The result of a run, or the merged result of several.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: String,
    /// The version of cosgate.
    pub version: String,
    /// The scenario's name.
    pub name: String,
    /// When the load started, RFC 3339.
    pub started: String,
    /// Seconds from its start to the end of the last operation.
    pub seconds: f64,
    /// The number of processes in this result.
    pub processes: u32,
    /// The scenario, without secrets.
    pub scenario: Scenario,
    /// The target, and the store behind it if they were compared.
    pub sides: Vec<SideResult>,
    /// The tenants in order. Beyond the limit, one entry stands for the others.
    pub tenants: Vec<TenantResult>,
    /// Planned operations that were not started, because too many were in flight.
    pub not_started: u64,
    /// The results of verification.
    pub truth: Truth,
    /// The results of the isolation probes.
    pub isolation: Isolation,
    /// The faults and the recovery times.
    pub faults: Vec<FaultResult>,
    /// The knee, if it was searched for.
    pub knee: Option<Knee>,
    /// The proxy's process, if it was measured.
    pub proxy: Option<ProxyUsage>,
    /// The load generator itself.
    pub generator: Generator,
    /// What kept the run from being whole, such as an interruption. Each is also a failure.
    #[serde(default)]
    pub incidents: Vec<String>,
    /// The reasons why the run failed; empty when it succeeded.
    pub failures: Vec<String>,
    /// The intervals.
    pub series: Series,
}

/// The result of one side.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SideResult {
    /// `target` or `direct`.
    pub name: String,
    /// Its endpoint.
    pub endpoint: String,
    /// All operations.
    pub all: Totals,
    /// Each operation that was performed.
    pub operations: Vec<OperationResult>,
    /// The errors, the most frequent first.
    pub errors: Vec<ErrorCount>,
    /// Connections that were made.
    pub connections: u64,
}

/// The result of one kind of operation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OperationResult {
    /// The operation.
    pub operation: LoadOperation,
    /// Its numbers.
    #[serde(flatten)]
    pub totals: Totals,
}

/// The result of one tenant on the target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TenantResult {
    /// Its name.
    pub name: String,
    /// Its numbers.
    #[serde(flatten)]
    pub totals: Totals,
}

/// The results of verification. All except the first three fail a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Truth {
    /// Reads that were compared with what was written.
    pub reads_verified: u64,
    /// Objects that the sweep found as written.
    pub swept: u64,
    /// Objects of failed requests: they may exist or not.
    pub uncertain: u64,
    /// Reads that returned wrong bytes, or no object although one was acknowledged.
    pub bad_reads: u64,
    /// Acknowledged objects that are missing.
    pub lost: u64,
    /// Objects with wrong bytes or a wrong length.
    pub corrupted: u64,
    /// Objects that exist, but were never acknowledged, or were deleted.
    pub phantom: u64,
    /// Objects that exist, but are not in the listing.
    pub unlisted: u64,
    /// Objects that could not be read, because the store failed during the sweep.
    pub unchecked: u64,
    /// Some of the wrong objects, with their keys.
    pub examples: Vec<String>,
}

/// The results of the isolation probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Isolation {
    /// Requests for another tenant's keys.
    pub probes: u64,
    /// Requests that were refused, as required.
    pub refused: u64,
    /// Requests that failed in another way and prove nothing.
    pub inconclusive: u64,
    /// Requests that succeeded. One is enough to fail the run.
    pub holes: u64,
    /// Some of the requests that succeeded.
    pub examples: Vec<String>,
}

/// A fault and its aftermath.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct FaultResult {
    /// Its name.
    pub name: String,
    /// Seconds from the start of the load.
    pub from: f64,
    /// Seconds from the start of the load to its end.
    pub until: f64,
    /// Seconds from its end until errors and latency were as before; `None` when they never were.
    pub recovery: Option<f64>,
}

/// The highest rate that held.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Knee {
    /// Operations each second; `None` when not even the first rate held.
    pub rate: Option<f64>,
    /// The bounds.
    pub bounds: Vec<String>,
    /// Each rate that was tried.
    pub steps: Vec<KneeStep>,
}

/// A rate that was tried.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct KneeStep {
    /// The planned rate.
    pub rate: f64,
    /// The operations done each second.
    pub achieved: f64,
    /// Microseconds.
    pub p50: u64,
    /// Microseconds.
    pub p99: u64,
    /// The share of failed operations.
    pub errors: f64,
    /// The bound that was exceeded.
    pub passed: Option<String>,
}

/// The resources that the proxy's process used during the load.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct ProxyUsage {
    /// CPU seconds.
    pub cpu_seconds: f64,
    /// CPU microseconds for each operation on the target.
    pub cpu_micros_per_operation: f64,
    /// The maximum of resident bytes.
    pub peak_memory: u64,
}

/// The load of the generator itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Generator {
    /// Threads that drove the load.
    pub threads: u32,
    /// The share of the time in which the busiest thread used a CPU or waited for one.
    pub busiest: f64,
    /// Whether the generator was the bottleneck: the numbers of the target are then too low.
    pub is_saturated: bool,
}

/// The latencies of a busier thread cannot be trusted.
pub(super) const SATURATED: f64 = 0.9;
/// Maximum number of examples of each kind.
pub(super) const EXAMPLES: usize = 20;
/// Recovery: the share of errors in a second may exceed the share before the fault by this much.
const RECOVERED_ERRORS: f64 = 0.01;
/// Recovery: the latency may exceed the latency before the fault by this factor.
const RECOVERED_LATENCY: f64 = 2.0;
/// Seconds before a fault that recovery is compared with.
const BASELINE_MS: u64 = 5_000;

impl SideResult {
    /// The result of a side.
    pub(super) fn new(name: &str, endpoint: &str, totals: &SideTotals, connections: u64) -> Self {
        let operations = LoadOperation::ALL.into_iter().zip(&totals.operations);
        Self {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            all: totals.all(),
            operations: operations
                .filter(|(_, totals)| totals.count > 0)
                .map(|(operation, totals)| OperationResult {
                    operation,
                    totals: totals.clone(),
                })
                .collect(),
            errors: totals.errors(),
            connections,
        }
    }

    fn operation(&self, operation: LoadOperation) -> Option<&Totals> {
        let mut all = self.operations.iter();
        all.find(|result| result.operation == operation)
            .map(|result| &result.totals)
    }
}

impl Truth {
    /// Adds the results of another thread or process.
    pub(super) fn merge(&mut self, other: &Self) {
        self.reads_verified += other.reads_verified;
        self.swept += other.swept;
        self.uncertain += other.uncertain;
        self.bad_reads += other.bad_reads;
        self.lost += other.lost;
        self.corrupted += other.corrupted;
        self.phantom += other.phantom;
        self.unlisted += other.unlisted;
        self.unchecked += other.unchecked;
        for example in &other.examples {
            self.example(example.clone());
        }
    }

    /// Keeps an example while there is room.
    pub(super) fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }

    fn failures(&self) -> Vec<String> {
        let kinds = [
            (self.lost, "lost"),
            (self.corrupted, "corrupted"),
            (self.phantom, "phantom"),
            (self.unlisted, "unlisted"),
            (self.unchecked, "unchecked"),
        ];
        let found = kinds.into_iter().filter(|(count, _)| *count > 0);
        let bad_reads = (self.bad_reads > 0).then(|| format!("{} wrong reads", self.bad_reads));
        bad_reads
            .into_iter()
            .chain(found.map(|(count, kind)| {
                let objects = if count == 1 { "object" } else { "objects" };
                format!("{count} {kind} {objects}")
            }))
            .collect()
    }
}

impl Isolation {
    /// Adds the results of another thread or process.
    pub(super) fn merge(&mut self, other: &Self) {
        self.probes += other.probes;
        self.refused += other.refused;
        self.inconclusive += other.inconclusive;
        self.holes += other.holes;
        for example in &other.examples {
            if self.examples.len() < EXAMPLES {
                self.examples.push(example.clone());
            }
        }
    }
}

impl Report {
    /// The target's side.
    pub(super) fn target(&self) -> Option<&SideResult> {
        self.sides.first()
    }

    /// Operations each second on a side.
    pub(super) fn rate(&self, totals: &Totals) -> f64 {
        if self.seconds > 0.0 {
            totals.count as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Sets [`Report::failures`] to all reasons to fail the run.
    pub(super) fn judge(&mut self) {
        let mut failures = self.incidents.clone();
        failures.extend(self.truth.failures());
        if self.isolation.holes > 0 {
            failures.push(format!(
                "{} isolation probes succeeded",
                self.isolation.holes
            ));
        }
        if self.isolation.probes > 0 && self.isolation.refused + self.isolation.holes == 0 {
            failures
                .push("no isolation probe got a clear response, so nothing is proven".to_owned());
        }
        for expression in &self.scenario.fail_if {
            match self.measure(&expression.scope, expression.metric) {
                Some(value) if expression.holds(value) => {
                    failures.push(format!(
                        "{expression} ({})",
                        shown(expression.metric, value)
                    ));
                }
                Some(_) => {}
                None => failures.push(format!("{expression}: nothing was measured")),
            }
        }
        self.failures = failures;
    }

    /// A number of the target; `None` when nothing was measured.
    fn measure(&self, scope: &MetricScope, metric: Metric) -> Option<f64> {
        let target = self.target()?;
        let totals = match scope {
            MetricScope::All => Some(&target.all),
            MetricScope::LoadOperation(operation) => target.operation(*operation),
            MetricScope::Tenant(name) => {
                let mut tenants = self.tenants.iter();
                tenants
                    .find(|tenant| tenant.name == *name)
                    .map(|tenant| &tenant.totals)
            }
        }?;
        if metric == Metric::NotStarted {
            return Some(self.not_started as f64);
        }
        (totals.count > 0).then(|| measure(totals, metric, self.seconds))
    }

    /// What followed a fault, for people.
    pub(super) fn aftermath(&self, fault: &FaultResult) -> String {
        match fault.recovery {
            Some(seconds) => format!("recovered {seconds:.1} s later"),
            None if fault.from >= self.seconds => "did not begin before the end".to_owned(),
            None if fault.until >= self.seconds => "lasted to the end".to_owned(),
            None => "did not recover".to_owned(),
        }
    }

    /// Computes the recovery time of each fault.
    pub(super) fn find_recoveries(&mut self) {
        let rows = &self.series.rows;
        for fault in &mut self.faults {
            fault.recovery = recovery(rows, fault.from, fault.until);
        }
    }
}

/// A number of `totals`, which took `seconds`.
pub(super) fn measure(totals: &Totals, metric: Metric, seconds: f64) -> f64 {
    let each_second = |number: u64| {
        if seconds > 0.0 {
            number as f64 / seconds
        } else {
            0.0
        }
    };
    match metric {
        Metric::Quantile(quantile) => totals.latency.quantile(quantile) as f64,
        Metric::Max => totals.latency.max() as f64,
        Metric::Mean => totals.latency.mean(),
        Metric::ErrorShare => totals.error_share(),
        Metric::Errors => totals.errors as f64,
        Metric::Rate => each_second(totals.count),
        Metric::NotStarted => 0.0,
        Metric::Throughput => each_second(totals.bytes_sent + totals.bytes_received),
    }
}

fn shown(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Quantile(_) | Metric::Max | Metric::Mean => super::text::micros(value),
        Metric::ErrorShare => format!("{:.3} %", value * 100.0),
        Metric::Throughput => super::text::bytes_per_second(value),
        Metric::Errors | Metric::NotStarted => format!("{value}"),
        Metric::Rate => format!("{value:.1}/s"),
    }
}

/// Seconds from `until` to the first interval that is as good as those before `from`.
fn recovery(rows: &[IntervalRow], from: f64, until: f64) -> Option<f64> {
    let start = |row: &IntervalRow| row.start_ms as f64 / 1000.0;
    let mut before = super::stats::Interval::default();
    let baseline = rows.iter().filter(|row| {
        let end = start(row) + row.seconds();
        end <= from && start(row) + BASELINE_MS as f64 / 1000.0 >= from
    });
    for side in baseline.filter_map(|row| row.sides.first()) {
        before.merge(side);
    }
    let errors = |side: &super::stats::Interval| side.errors as f64 / side.count.max(1) as f64;
    let is_recovered = |row: &IntervalRow| {
        row.sides.first().is_some_and(|side| {
            let latency = side.latency.quantile(0.99) as f64;
            let usual = before.latency.quantile(0.99) as f64;
            side.count > 0
                && errors(side) <= errors(&before) + RECOVERED_ERRORS
                && (before.count == 0 || latency <= usual * RECOVERED_LATENCY)
        })
    };
    // A row that began during the fault may contain some of it.
    let mut after = rows.iter().filter(|row| start(row) >= until);
    after
        .find(|row| is_recovered(row))
        .map(|row| start(row) + row.seconds() - until)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::expression::Expression;
    use crate::load::stats::{Ended, Interval, OperationFailure};

    pub(in crate::load) fn ended(
        operation: LoadOperation,
        millis: u64,
        failure: Option<&str>,
    ) -> Ended {
        Ended {
            side: 0,
            tenant: 0,
            operation,
            latency: Duration::from_millis(millis),
            bytes_sent: 0,
            bytes_received: 1024,
            failure: failure.map(|label| OperationFailure {
                label: label.to_owned(),
                is_response: true,
            }),
        }
    }

    /// Ten seconds of a hundred gets each. Gets take 10 ms. Seconds 4 to 6 have errors, and second 7 is slow.
    pub(in crate::load) fn report() -> Report {
        let mut totals = SideTotals::default();
        let mut series = Series::default();
        for second in 0..10 {
            let mut side = Interval::default();
            for index in 0..100 {
                let failure = ((4..6).contains(&second) && index < 50).then_some("503 SlowDown");
                let millis = if second == 6 { 100 } else { 10 };
                let ended = ended(LoadOperation::Get, millis, failure);
                totals.record(&ended);
                side.record(&ended);
            }
            series.push(IntervalRow {
                start_ms: second * 1000,
                length_ms: 1000,
                sides: vec![side],
                in_flight: 3,
                proxy_cpu_ms: Some(100),
                proxy_memory: Some(20 << 20),
            });
        }
        Report {
            schema: SCHEMA.to_owned(),
            version: "0".to_owned(),
            name: "a <test>".to_owned(),
            started: "2026-01-15T12:30:45Z".to_owned(),
            seconds: 10.0,
            processes: 1,
            scenario: Scenario::default(),
            sides: vec![SideResult::new(
                "target",
                "http://127.0.0.1:9000",
                &totals,
                4,
            )],
            tenants: vec![TenantResult {
                name: "acme".to_owned(),
                totals: totals.all(),
            }],
            not_started: 0,
            truth: Truth::default(),
            isolation: Isolation::default(),
            faults: vec![FaultResult {
                name: "slow <down>".to_owned(),
                from: 4.0,
                until: 6.0,
                recovery: None,
            }],
            knee: None,
            proxy: None,
            generator: Generator::default(),
            incidents: Vec::new(),
            failures: Vec::new(),
            series,
        }
    }

    #[test]
    fn recovery_needs_errors_and_latency_as_before() {
        let mut report = report();
        report.find_recoveries();
        assert_eq!(report.faults[0].recovery, Some(2.0));
        report.faults[0].until = 9.5;
        report.find_recoveries();
        assert_eq!(report.faults[0].recovery, None);
    }

    #[test]
    fn aftermath_of_a_fault_that_did_not_end_is_no_failed_recovery() {
        let mut report = report();
        let mut aftermath = |from, until| {
            report.faults[0].from = from;
            report.faults[0].until = until;
            report.find_recoveries();
            report.aftermath(&report.faults[0])
        };
        assert_eq!(aftermath(4.0, 6.0), "recovered 2.0 s later");
        assert_eq!(aftermath(4.0, 9.5), "did not recover");
        assert_eq!(aftermath(4.0, 10.0), "lasted to the end");
        assert_eq!(aftermath(20.0, 30.0), "did not begin before the end");
    }

    #[test]
    fn every_kind_of_failure_fails_the_run() {
        let judged = |change: &dyn Fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            report.judge();
            report.failures
        };
        assert_eq!(judged(&|_| ()), [""; 0]);
        let with = |expression: &str| {
            let expression: Expression = expression.parse().unwrap();
            judged(&|report| report.scenario.fail_if = vec![expression.clone()])
        };
        assert_eq!(with("p99>50ms"), ["p99>50ms (100 ms)"]);
        assert!(with("p50>50ms").is_empty());
        assert_eq!(with("errors>1%"), ["errors>1% (10.000 %)"]);
        assert_eq!(
            with("tenant:acme.rate<200"),
            ["tenant:acme.rate<200 (100.0/s)"]
        );
        assert_eq!(with("put.p99>1s"), ["put.p99>1s: nothing was measured"]);
        assert_eq!(judged(&|report| report.truth.lost = 1), ["1 lost object"]);
        assert_eq!(
            judged(&|report| report.truth.phantom = 2),
            ["2 phantom objects"]
        );
        assert_eq!(judged(&|report| report.isolation.holes = 1).len(), 1);
        assert_eq!(judged(&|report| report.isolation.probes = 1).len(), 1);
    }

    #[test]
    fn reads_a_report_as_it_was_written() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
