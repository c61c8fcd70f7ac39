//! Histograms of durations: one thread adds, and a reader sums the threads up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets: in microseconds, and in seconds as the text formats write them.
pub(super) const BOUNDS: [(u64, &str); 17] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1.0"),
    (2_500_000, "2.5"),
    (5_000_000, "5.0"),
    (10_000_000, "10.0"),
    (30_000_000, "30.0"),
    (60_000_000, "60.0"),
    (300_000_000, "300.0"),
];
const BUCKETS: usize = BOUNDS.len() + 1;

/// Counts durations by size.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// What histograms have counted, summed up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HistogramTotal {
    counts: [u64; BUCKETS],
    micros: u64,
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < micros);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl HistogramTotal {
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut total = Self::default();
        for part in parts {
            for (sum, count) in total.counts.iter_mut().zip(&part.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
            total.micros = total
                .micros
                .saturating_add(part.micros.load(Ordering::Relaxed));
        }
        total
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many are at most as long as each of [`BOUNDS`].
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut sum = 0;
        BOUNDS
            .iter()
            .zip(self.counts)
            .map(move |((_, bound), count)| {
                sum += count;
                (*bound, sum)
            })
    }

    /// The sum of all, in seconds, to the microsecond.
    pub(super) fn seconds(&self) -> String {
        format!("{}.{:06}", self.micros / 1_000_000, self.micros % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_is_not_smaller() {
        let (one, other) = (Histogram::default(), Histogram::default());
        for micros in [0, 500, 501, 300_000_000] {
            one.observe(Duration::from_micros(micros));
        }
        other.observe(Duration::from_secs(301));
        let total = HistogramTotal::of([&one, &other].into_iter());
        assert_eq!(total.count(), 5);
        let cumulative: Vec<_> = total.cumulative().collect();
        assert_eq!(cumulative[0], ("0.0005", 2));
        assert_eq!(cumulative[1], ("0.001", 3));
        assert_eq!(cumulative[16], ("300.0", 4), "301 s is beyond all bounds");
        assert_eq!(total.seconds(), "601.001001");
    }

    #[test]
    fn bounds_are_sorted_and_written_as_they_are() {
        assert!(BOUNDS.is_sorted());
        for (micros, seconds) in BOUNDS {
            let seconds: f64 = seconds.parse().unwrap();
            #[expect(clippy::cast_precision_loss, reason = "300 s are few microseconds")]
            let micros = micros as f64;
            assert!((seconds * 1e6 - micros).abs() < 1e-3, "{micros}");
        }
    }
}
