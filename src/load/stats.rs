//! Counts and latencies of a run: by operation, by tenant, and over time in bounded memory. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latency::Latencies;
use super::operation::LoadOperation;

/// The begin of the label of a failure to connect.
pub(super) const NO_CONNECTION: &str = "connect: ";
/// Maximum number of different errors that are counted separately, for each side of a run.
const ERRORS: usize = 64;
/// Maximum number of intervals. Beyond it, each two become one.
pub(super) const ROWS: usize = 1200;
/// Maximum number of tenants with results of their own. The others are counted together.
pub(super) const TENANTS: usize = 1000;

/// The results of operations of one kind, or of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Totals {
    /// Operations that ended.
    pub count: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Bytes of content sent.
    pub bytes_sent: u64,
    /// Bytes of content received.
    pub bytes_received: u64,
    /// Latencies of operations that succeeded, timed out or were cut, in microseconds.
    pub latency: Latencies,
    /// Latencies of operations with an error response, in microseconds.
    pub error_latency: Latencies,
}

/// An operation that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// The side of the run: 0, or 1 for the store behind the target.
    pub(super) side: usize,
    /// The index of the tenant.
    pub(super) tenant: usize,
    /// The operation.
    pub(super) operation: LoadOperation,
    /// The latency from its planned start.
    pub(super) latency: Duration,
    /// Bytes of content sent.
    pub(super) bytes_sent: u64,
    /// Bytes of content received.
    pub(super) bytes_received: u64,
    /// The failure, if there was one.
    pub(super) failure: Option<OperationFailure>,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OperationFailure {
    /// A short text without variable names or numbers: `503 SlowDown`, `timeout`.
    pub(super) label: String,
    /// Whether the target sent it as a response. Otherwise the target was silent, or the connection broke.
    pub(super) is_response: bool,
}

impl OperationFailure {
    /// Whether the target has refused the request.
    pub(super) fn is_refusal(&self) -> bool {
        self.is_response && self.label.starts_with('4')
    }

    /// Whether the request can have changed nothing: it was refused, or there was no connection to send it on.
    pub(super) fn is_without_effect(&self) -> bool {
        self.is_refusal() || (!self.is_response && self.label.starts_with(NO_CONNECTION))
    }
}

/// An error and its count.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorCount {
    /// The operation.
    pub operation: LoadOperation,
    /// The error.
    pub error: String,
    /// Its count.
    pub count: u64,
}

/// All results of one side of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SideTotals {
    /// By [`LoadOperation::index`].
    pub(super) operations: Vec<Totals>,
    errors: BTreeMap<(LoadOperation, String), u64>,
}

/// One interval of one side.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Interval {
    /// Operations that ended.
    pub count: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Bytes of content sent.
    pub bytes_sent: u64,
    /// Bytes of content received.
    pub bytes_received: u64,
    /// Latencies in microseconds, in buckets of 1 %.
    pub latency: Latencies,
}

/// An interval of the run.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct IntervalRow {
    /// Milliseconds from the start of the load.
    pub start_ms: u64,
    /// Its length in milliseconds.
    pub length_ms: u64,
    /// One for each side.
    pub sides: Vec<Interval>,
    /// Operations in flight at its end.
    pub in_flight: u64,
    /// CPU milliseconds of the proxy's process.
    pub proxy_cpu_ms: Option<u64>,
    /// Resident bytes of the proxy's process.
    pub proxy_memory: Option<u64>,
}

/// The intervals of a run: up to `ROWS` of them, however long it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Series {
    /// In order.
    pub rows: Vec<IntervalRow>,
    /// How many intervals each row holds.
    #[serde(default = "one")]
    fold: u32,
    /// How many intervals the last row holds so far.
    #[serde(skip)]
    last: u32,
}

fn one() -> u32 {
    1
}

impl Totals {
    /// Counts an operation.
    pub(super) fn record(&mut self, ended: &Ended) {
        self.count += 1;
        self.bytes_sent += ended.bytes_sent;
        self.bytes_received += ended.bytes_received;
        match &ended.failure {
            None => self.latency.record(ended.latency),
            Some(failure) => {
                self.errors += 1;
                // An error response is quick and would improve the latency; a timeout is a time that a client has waited.
                if failure.is_response {
                    self.error_latency.record(ended.latency);
                } else {
                    self.latency.record(ended.latency);
                }
            }
        }
    }

    /// Adds the counts of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.latency.merge(&other.latency);
        self.error_latency.merge(&other.error_latency);
    }

    /// The share of failed operations.
    pub(super) fn error_share(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.errors as f64 / self.count as f64
    }
}

impl SideTotals {
    /// Counts an operation.
    pub(super) fn record(&mut self, ended: &Ended) {
        if self.operations.is_empty() {
            self.operations = vec![Totals::default(); LoadOperation::ALL.len()];
        }
        if let Some(totals) = self.operations.get_mut(ended.operation.index()) {
            totals.record(ended);
        }
        if let Some(failure) = &ended.failure {
            self.count_error(ended.operation, &failure.label, 1);
        }
    }

    /// Adds the counts of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.operations.is_empty() {
            self.operations.clone_from(&other.operations);
        } else {
            for (mine, theirs) in self.operations.iter_mut().zip(&other.operations) {
                mine.merge(theirs);
            }
        }
        for ((operation, label), count) in &other.errors {
            self.count_error(*operation, label, *count);
        }
    }

    /// All operations together.
    pub(super) fn all(&self) -> Totals {
        let mut all = Totals::default();
        for totals in &self.operations {
            all.merge(totals);
        }
        all
    }

    /// The errors, the most frequent first.
    pub(super) fn errors(&self) -> Vec<ErrorCount> {
        let errors = self.errors.iter();
        let mut errors: Vec<_> = errors
            .map(|((operation, error), count)| ErrorCount {
                operation: *operation,
                error: error.clone(),
                count: *count,
            })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        errors
    }

    fn count_error(&mut self, operation: LoadOperation, label: &str, count: u64) {
        let key = (operation, label.to_owned());
        if self.errors.len() >= ERRORS && !self.errors.contains_key(&key) {
            *self
                .errors
                .entry((operation, "other".to_owned()))
                .or_default() += count;
        } else {
            *self.errors.entry(key).or_default() += count;
        }
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self {
            count: 0,
            errors: 0,
            bytes_sent: 0,
            bytes_received: 0,
            latency: Latencies::coarse(),
        }
    }
}

impl Interval {
    /// Counts an operation.
    pub(super) fn record(&mut self, ended: &Ended) {
        self.count += 1;
        self.bytes_sent += ended.bytes_sent;
        self.bytes_received += ended.bytes_received;
        let failure = ended.failure.as_ref();
        self.errors += u64::from(failure.is_some());
        if failure.is_none_or(|failure| !failure.is_response) {
            self.latency.record(ended.latency);
        }
    }

    /// Adds the counts of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.latency.merge(&other.latency);
    }
}

impl IntervalRow {
    /// Its length in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.length_ms as f64 / 1000.0
    }

    /// Adds the row that follows it.
    fn absorb(&mut self, next: &Self) {
        for (mine, theirs) in self.sides.iter_mut().zip(&next.sides) {
            mine.merge(theirs);
        }
        self.length_ms = next.start_ms + next.length_ms - self.start_ms;
        self.in_flight = self.in_flight.max(next.in_flight);
        self.proxy_memory = self.proxy_memory.max(next.proxy_memory);
        if let (Some(mine), Some(theirs)) = (&mut self.proxy_cpu_ms, next.proxy_cpu_ms) {
            *mine += theirs;
        }
    }

    /// Adds the same interval of another process.
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.sides.iter_mut().zip(&other.sides) {
            mine.merge(theirs);
        }
        self.in_flight += other.in_flight;
        self.length_ms = self.length_ms.max(other.length_ms);
        let sum = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a + b.unwrap_or(0)));
        self.proxy_cpu_ms = sum(self.proxy_cpu_ms, other.proxy_cpu_ms);
        self.proxy_memory = sum(self.proxy_memory, other.proxy_memory);
    }
}

impl Series {
    /// Adds an interval, and folds the series when it has reached its limit.
    pub(super) fn push(&mut self, row: IntervalRow) {
        self.fold = self.fold.max(1);
        match self.rows.last_mut() {
            Some(last) if self.last < self.fold => {
                last.absorb(&row);
                self.last += 1;
            }
            _ => {
                self.rows.push(row);
                self.last = 1;
            }
        }
        if self.rows.len() > ROWS {
            self.fold();
        }
    }

    /// Adds the series of another process with intervals of the same length. Rows are matched by their start.
    pub(super) fn merge(&mut self, mut other: Self) {
        while self.fold.max(1) < other.fold.max(1) {
            self.fold();
        }
        while other.fold.max(1) < self.fold.max(1) {
            other.fold();
        }
        for row in other.rows {
            match self
                .rows
                .binary_search_by_key(&row.start_ms, |mine| mine.start_ms)
            {
                Ok(at) => {
                    if let Some(mine) = self.rows.get_mut(at) {
                        mine.merge(&row);
                    }
                }
                Err(at) => self.rows.insert(at, row),
            }
        }
    }

    /// Joins each two rows to one.
    fn fold(&mut self) {
        let is_odd = !self.rows.len().is_multiple_of(2);
        let mut folded: Vec<IntervalRow> = Vec::with_capacity(self.rows.len() / 2 + 1);
        for (index, row) in self.rows.drain(..).enumerate() {
            match folded.last_mut() {
                Some(last) if index % 2 == 1 => last.absorb(&row),
                _ => folded.push(row),
            }
        }
        let before = self.fold.max(1);
        self.fold = before * 2;
        // The last row of an odd number contains only half of its intervals yet.
        self.last = if is_odd { before } else { self.fold };
        self.rows = folded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(micros: u64, failure: Option<&str>) -> Ended {
        Ended {
            side: 0,
            tenant: 0,
            operation: LoadOperation::Get,
            latency: Duration::from_micros(micros),
            bytes_sent: 0,
            bytes_received: 10,
            failure: failure.map(|label| OperationFailure {
                label: label.to_owned(),
                is_response: label != "timeout",
            }),
        }
    }

    fn row(index: u64) -> IntervalRow {
        let mut side = Interval::default();
        side.record(&ended(100 + index, None));
        IntervalRow {
            start_ms: index * 1000,
            length_ms: 1000,
            sides: vec![side],
            in_flight: index,
            proxy_cpu_ms: Some(5),
            proxy_memory: Some(index),
        }
    }

    #[test]
    fn long_run_keeps_its_sums_in_a_bounded_series() {
        let mut series = Series::default();
        let many = ROWS as u64 * 9 + 5;
        for index in 0..many {
            series.push(row(index));
        }
        assert!(series.rows.len() <= ROWS, "{}", series.rows.len());
        let sum = |value: fn(&IntervalRow) -> u64| series.rows.iter().map(value).sum::<u64>();
        assert_eq!(sum(|row| row.sides[0].count), many);
        assert_eq!(sum(|row| row.length_ms), many * 1000);
        assert_eq!(sum(|row| row.proxy_cpu_ms.unwrap()), many * 5);
        for pair in series.rows.windows(2) {
            assert_eq!(pair[0].start_ms + pair[0].length_ms, pair[1].start_ms);
        }
    }

    #[test]
    fn adds_series_of_two_processes_by_time() {
        let (mut one, mut two) = (Series::default(), Series::default());
        (0..3).for_each(|index| one.push(row(index)));
        (1..5).for_each(|index| two.push(row(index)));
        one.merge(two);
        let counts: Vec<_> = one.rows.iter().map(|row| row.sides[0].count).collect();
        assert_eq!(counts, [1, 2, 2, 1, 1]);
    }

    #[test]
    fn adds_series_at_the_coarser_fold() {
        let (mut long, mut short) = (Series::default(), Series::default());
        let many = ROWS as u64 + 1;
        (0..many).for_each(|index| long.push(row(index)));
        (0..10).for_each(|index| short.push(row(index)));
        short.merge(long);
        assert_eq!(
            short.rows.iter().map(|row| row.sides[0].count).sum::<u64>(),
            many + 10
        );
        assert_eq!(short.rows[0].sides[0].count, 4);
    }

    #[test]
    fn latency_includes_timeouts_but_not_refusals() {
        let mut totals = Totals::default();
        totals.record(&ended(100, None));
        totals.record(&ended(1, Some("503 SlowDown")));
        totals.record(&ended(5_000_000, Some("timeout")));
        assert_eq!((totals.count, totals.errors), (3, 2));
        assert_eq!(
            (totals.latency.count(), totals.latency.max()),
            (2, 5_000_000)
        );
        assert_eq!(totals.error_latency.max(), 1);
    }

    #[test]
    fn only_refusals_and_missing_connections_have_no_effect() {
        let failure = |label: &str, is_response| {
            let label = label.to_owned();
            OperationFailure { label, is_response }.is_without_effect()
        };
        assert!(failure("403 AccessDenied", true) && failure("connect: timeout", false));
        assert!(!failure("500", true) && !failure("timeout", false));
        assert!(!failure("200 InternalError", true));
    }

    #[test]
    fn limits_memory_of_different_errors() {
        let mut side = SideTotals::default();
        for index in 0..1000 {
            side.record(&ended(1, Some(&format!("error {index}"))));
        }
        let errors = side.errors();
        assert!(errors.len() <= ERRORS + LoadOperation::ALL.len());
        assert_eq!(errors.iter().map(|error| error.count).sum::<u64>(), 1000);
        assert_eq!(errors[0].error, "other");
    }
}
