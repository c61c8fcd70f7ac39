//! Rates and latency of the last minutes, for the status page: the difference of the counters between two
//! looks at them.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::histogram::HistogramTotal;
use crate::timestamp::Timestamp;

/// Samples that are kept: 15 minutes, at one in five seconds.
const SAMPLES: usize = 180;

/// What the program has done since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramTotals {
    /// Requests that have ended, by the class of the status: 1xx to 5xx.
    pub requests: [u64; 5],
    /// Bytes of bodies from clients.
    pub received: u64,
    /// Bytes of bodies to clients.
    pub sent: u64,
    /// How long requests took.
    pub(super) times: HistogramTotal,
    /// How long COS took.
    pub(super) upstream: HistogramTotal,
}

/// What happened between two samples. Rates are per second, times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct RateSample {
    /// The end of the span, in seconds since 1970.
    pub time: i64,
    /// Requests that ended.
    pub requests: f64,
    /// Of them those with a status of 4xx.
    pub client_errors: f64,
    /// Of them those with a status of 5xx.
    pub server_errors: f64,
    /// Bytes from clients.
    pub received: f64,
    /// Bytes to clients.
    pub sent: f64,
    /// The median time of a request; `None`: there was none.
    pub p50: Option<f64>,
    /// The time within which 99 of 100 requests ended.
    pub p99: Option<f64>,
    /// The median time that COS took.
    pub upstream_p50: Option<f64>,
}

/// The last samples.
#[derive(Debug, Default)]
pub struct RateHistory {
    last: ProgramTotals,
    samples: VecDeque<RateSample>,
}

impl RateHistory {
    /// A history that begins with `totals`.
    pub fn new(totals: ProgramTotals) -> Self {
        Self {
            last: totals,
            samples: VecDeque::with_capacity(SAMPLES),
        }
    }

    /// Takes a sample: `totals` at `time`, so long after the last.
    pub fn take(&mut self, time: Timestamp, since: Duration, totals: ProgramTotals) {
        let seconds = since.as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| per(now.saturating_sub(before), seconds);
        let class = |of: usize| {
            let count =
                |totals: &ProgramTotals| totals.requests.get(of).copied().unwrap_or_default();
            rate(count(&totals), count(&self.last))
        };
        let times = totals.times.since(&self.last.times);
        let upstream = totals.upstream.since(&self.last.upstream);
        let sum = |totals: &ProgramTotals| totals.requests.iter().sum();
        let sample = RateSample {
            time: time.unix(),
            requests: rate(sum(&totals), sum(&self.last)),
            client_errors: class(3),
            server_errors: class(4),
            received: rate(totals.received, self.last.received),
            sent: rate(totals.sent, self.last.sent),
            p50: times.quantile(0.5).map(millis),
            p99: times.quantile(0.99).map(millis),
            upstream_p50: upstream.quantile(0.5).map(millis),
        };
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.last = totals;
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = &RateSample> {
        self.samples.iter()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a chart needs three digits")]
fn per(count: u64, seconds: f64) -> f64 {
    round(count as f64 / seconds)
}

fn millis(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1000.0)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    fn totals(requests: [u64; 5], sent: u64, histogram: &Histogram) -> ProgramTotals {
        ProgramTotals {
            requests,
            received: 0,
            sent,
            times: HistogramTotal::of([histogram].into_iter()),
            upstream: HistogramTotal::default(),
        }
    }

    #[test]
    fn a_sample_is_what_happened_since_the_last() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_mins(1));
        let mut history = RateHistory::new(totals([0, 100, 0, 0, 0], 1000, &histogram));
        for _ in 0..99 {
            histogram.observe(Duration::from_millis(2));
        }
        histogram.observe(Duration::from_millis(90));
        let (now, span) = (Timestamp::from_unix(1000), Duration::from_secs(5));
        let then = totals([0, 150, 0, 30, 20], 2000, &histogram);
        history.take(now, span, then);
        history.take(now.plus(5), span, then);
        let samples: Vec<_> = history.samples().collect();
        let first = samples[0];
        assert_eq!(first.time, 1000);
        assert!((first.requests - 20.0).abs() < 1e-9, "{first:?}");
        assert!((first.client_errors - 6.0).abs() < 1e-9);
        assert!((first.server_errors - 4.0).abs() < 1e-9);
        assert!((first.sent - 200.0).abs() < 1e-9);
        let p50 = first.p50.unwrap();
        assert!((1.0..=2.5).contains(&p50), "{p50}");
        let p99 = first.p99.unwrap();
        assert!((2.0..=100.0).contains(&p99), "{p99}");
        assert_eq!(first.upstream_p50, None);
        assert_eq!((samples[1].p50, samples[1].p99), (None, None), "none ended");
        for second in 0..1000 {
            history.take(now.plus(second), span, then);
        }
        assert_eq!(history.samples().count(), SAMPLES);
    }
}
