//! Latencies as a histogram that merges exactly and is written as JSON. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Latencies in microseconds. Two merged histograms equal one histogram of all values.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies {
    histogram: Histogram<u64>,
    sum: u64,
    min: u64,
    max: u64,
}

/// Buckets of results are up to 0.1 % wide.
const FINE: u8 = 3;
/// Buckets of single intervals are up to 1 % wide: there are many intervals.
const COARSE: u8 = 2;
/// An hour: the maximum duration of an operation.
const LONGEST: u64 = 3_600_000_000;
/// Maximum number of buckets in a file; an hour in the finest buckets takes fewer.
const BUCKETS: usize = 100_000;

impl Latencies {
    /// An empty histogram with buckets of 0.1 %.
    pub fn new() -> Self {
        Self::with_digits(FINE)
    }

    /// An empty histogram with buckets of 1 %.
    pub fn coarse() -> Self {
        Self::with_digits(COARSE)
    }

    fn with_digits(digits: u8) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "both numbers of digits are among those that exist"
        )]
        let histogram = Histogram::new(digits).expect("2 and 3 digits exist");
        Self {
            histogram,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }

    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        self.record_many(micros.min(LONGEST), 1);
        self.sum = self.sum.saturating_add(micros.min(LONGEST));
        self.min = self.min.min(micros);
        self.max = self.max.max(micros.min(LONGEST));
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for bucket in other.histogram.iter_recorded() {
            self.record_many(
                bucket.value_iterated_to(),
                bucket.count_since_last_iteration(),
            );
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The number of latencies.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency in microseconds that the share `quantile` of all does not exceed; 0 if there are none.
    pub fn quantile(&self, quantile: f64) -> u64 {
        if self.count() == 0 {
            return 0;
        }
        self.histogram.value_at_quantile(quantile).min(self.max)
    }

    /// The largest, in microseconds.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean, in microseconds.
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / count as f64,
        }
    }

    /// Each bucket that is not empty: its upper end in microseconds, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let buckets = self.histogram.iter_recorded();
        buckets.map(|bucket| {
            (
                bucket.value_iterated_to(),
                bucket.count_since_last_iteration(),
            )
        })
    }

    fn record_many(&mut self, micros: u64, count: u64) {
        // The histogram grows by itself, and no value is beyond an hour.
        let _ = self.histogram.record_n(micros.max(1), count);
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// The form in a file: numbers for people, and buckets to merge.
#[derive(Deserialize, Serialize)]
struct LatencyRecord {
    count: u64,
    mean: f64,
    min: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
    sum: u64,
    digits: u8,
    buckets: Vec<(u64, u64)>,
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        LatencyRecord {
            count: self.count(),
            mean: self.mean(),
            min: if self.count() == 0 { 0 } else { self.min },
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.max,
            sum: self.sum,
            digits: self.histogram.sigfig(),
            buckets: self.buckets().collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let written = LatencyRecord::deserialize(deserializer)?;
        if !matches!(written.digits, COARSE | FINE) {
            return Err(D::Error::custom("digits must be 2 or 3"));
        }
        if written.buckets.len() > BUCKETS {
            return Err(D::Error::custom("too many buckets"));
        }
        let mut latencies = Self::with_digits(written.digits);
        for (micros, count) in written.buckets {
            // The upper end of the last bucket may lie beyond the hour by its width.
            if micros > LONGEST + LONGEST / 50 {
                return Err(D::Error::custom("a bucket lies beyond an hour"));
            }
            latencies.record_many(micros, count);
        }
        latencies.sum = written.sum;
        latencies.max = written.max;
        if written.count > 0 {
            latencies.min = written.min;
        }
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(micros: &[u64]) -> Latencies {
        let mut latencies = Latencies::new();
        for micros in micros {
            latencies.record(Duration::from_micros(*micros));
        }
        latencies
    }

    proptest! {
        #[test]
        fn merged_parts_are_exactly_the_whole(all in prop::collection::vec(0_u64..5_000_000_000, 0..200), at: prop::sample::Index) {
            let (one, two) = all.split_at(at.index(all.len() + 1));
            let mut merged = of(one);
            // As from a file.
            let text = serde_json::to_string(&of(two)).unwrap();
            merged.merge(&serde_json::from_str(&text).unwrap());
            prop_assert_eq!(serde_json::to_string(&merged).unwrap(), serde_json::to_string(&of(&all)).unwrap());
        }

        #[test]
        fn quantiles_are_within_a_thousandth(mut all in prop::collection::vec(1_u64..1_000_000, 1..300)) {
            let latencies = of(&all);
            all.sort_unstable();
            let median = all[(all.len() - 1) / 2] as f64;
            let found = latencies.quantile(0.5) as f64;
            prop_assert!((found - median).abs() <= median / 1000.0 + 1.0, "{} {}", found, median);
            prop_assert_eq!(latencies.max(), all[all.len() - 1]);
        }
    }

    #[test]
    fn empty_histogram_is_zero() {
        let none = Latencies::new();
        assert_eq!((none.count(), none.quantile(0.99), none.max()), (0, 0, 0));
        let text = serde_json::to_string(&none).unwrap();
        assert_eq!(serde_json::from_str::<Latencies>(&text).unwrap(), none);
    }

    #[test]
    fn rejects_forged_file() {
        let text = serde_json::to_string(&of(&[5])).unwrap();
        for (from, to) in [
            ("\"digits\":3", "\"digits\":9"),
            ("[[5,1]]", "[[18446744073709551615,1]]"),
        ] {
            let forged = text.replace(from, to);
            assert_ne!(forged, text);
            assert!(
                serde_json::from_str::<Latencies>(&forged).is_err(),
                "{forged}"
            );
        }
    }
}
