//! Histograms of durations: one thread adds, and a reader sums the threads up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets: in microseconds, and in seconds as the text formats write them.
const BOUNDS: [(u64, &str); 17] = [
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
/// What is longer than the last of them counts as this long, where one number must be given.
const LONGEST: u64 = 300_000_000;
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

    /// All of them together.
    pub(super) fn sum(parts: &[Self]) -> Self {
        let mut total = Self::default();
        for part in parts {
            for (sum, count) in total.counts.iter_mut().zip(part.counts) {
                *sum += count;
            }
            total.micros = total.micros.saturating_add(part.micros);
        }
        total
    }

    /// What was counted since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        Self {
            counts,
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }

    /// The duration within which this part of all ended, as exactly as the buckets are; `None`: there are none.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is an estimate, and within the bounds"
    )]
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        let total = self.count();
        let wanted = part * total as f64;
        let mut below = 0.0;
        let mut lower = 0;
        let bounds = BOUNDS.iter().map(|(bound, _)| *bound);
        for (count, upper) in self.counts.iter().zip(bounds.chain([LONGEST])) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let within = ((wanted - below) / count).clamp(0.0, 1.0);
                let micros = lower as f64 + within * (upper - lower) as f64;
                return Some(Duration::from_micros(micros as u64));
            }
            below += count;
            lower = upper;
        }
        None
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
    fn a_quantile_lies_within_the_bucket_that_has_it() {
        let histogram = Histogram::default();
        let total = || HistogramTotal::of([&histogram].into_iter());
        assert_eq!(total().quantile(0.5), None);
        let before = total();
        for millis in [2, 2, 2, 40] {
            histogram.observe(Duration::from_millis(millis));
        }
        let within = |part, min, max| {
            let quantile = total().since(&before).quantile(part).unwrap();
            let range = Duration::from_millis(min)..=Duration::from_micros(max);
            assert!(range.contains(&quantile), "{part}: {quantile:?}");
        };
        within(0.0, 1, 2_500);
        within(0.5, 1, 2_500);
        within(0.99, 25, 50_000);
        within(1.0, 25, 50_000);
        histogram.observe(Duration::from_secs(1000));
        within(1.0, 300_000, 300_000_000);
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
