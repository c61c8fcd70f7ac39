//! When requests are planned to start: stages, ramps, fixed and Poisson arrivals. Pure.
//!
//! An open loop starts requests at planned times, even if earlier ones are still in flight. Latency counts from
//! the planned time, so that a stall of the target cannot hide its own latency: see Gil Tene, "How NOT to
//! Measure Latency", on coordinated omission.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity::{Span, as_text};

/// How arrivals of an open loop are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Evenly.
    Fixed,
    /// Randomly, as independent clients do: exponential gaps.
    #[default]
    Poisson,
}

/// A stage: `30s:100/s`, a ramp `1m:100/s..500/s`, or in a closed loop `30s:16` and `1m:16..64`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stage {
    /// Its length.
    pub length: Span,
    /// The rate or concurrency at its start.
    pub from: f64,
    /// The rate or concurrency at its end.
    pub to: f64,
    /// Whether it is a rate: an open loop.
    pub is_rate: bool,
}

/// A level over time: linear pieces, one after the other. Times are seconds from the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Curve(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    start: f64,
    length: f64,
    from: f64,
    to: f64,
    /// The area under all pieces before it.
    before: f64,
}

/// The planned start times of one of several equal parts of a load.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    curve: Curve,
    spacing: Spacing,
    random: fastrand::Rng,
    /// The area of the curve that is used up. It counts arrivals.
    area: f64,
    /// The number of parts that share the load, which is also the area of one arrival of this part.
    parts: f64,
}

impl Curve {
    /// One level for `length`.
    pub(super) fn flat(level: f64, length: Duration) -> Self {
        Self::of(&[Stage {
            length: Span(length),
            from: level,
            to: level,
            is_rate: true,
        }])
    }

    /// The stages, one after the other.
    pub(super) fn of(stages: &[Stage]) -> Self {
        let (mut start, mut before) = (0.0, 0.0);
        let mut pieces = Vec::with_capacity(stages.len());
        for stage in stages {
            let length = stage.length.0.as_secs_f64();
            pieces.push(Piece {
                start,
                length,
                from: stage.from,
                to: stage.to,
                before,
            });
            start += length;
            before += length * f64::midpoint(stage.from, stage.to);
        }
        Self(pieces)
    }

    /// Seconds from start to end.
    pub(super) fn length(&self) -> f64 {
        self.0
            .last()
            .map_or(0.0, |piece| piece.start + piece.length)
    }

    /// The level at a time.
    pub(super) fn level(&self, seconds: f64) -> f64 {
        let mut pieces = self.0.iter();
        let piece = pieces.find(|piece| seconds < piece.start + piece.length);
        piece.map_or(0.0, |piece| {
            let part = (seconds - piece.start) / piece.length;
            piece.from + (piece.to - piece.from) * part
        })
    }

    /// The time at which the area under the curve reaches `area`; `None` when it never does.
    fn time_of(&self, area: f64) -> Option<f64> {
        let piece = self.0.iter().rfind(|piece| piece.before <= area)?;
        let wanted = area - piece.before;
        let slope = (piece.to - piece.from) / piece.length;
        // from·t + slope·t²/2 = wanted, in the form that does not cancel for a small slope.
        let root = (piece.from * piece.from + 2.0 * slope * wanted).sqrt();
        let time = if wanted == 0.0 {
            0.0
        } else {
            2.0 * wanted / (piece.from + root)
        };
        (time < piece.length).then_some(piece.start + time)
    }
}

impl Arrivals {
    /// The arrivals of part `index` of `parts`. With fixed spacing the parts together are evenly spaced.
    pub(super) fn new(curve: Curve, spacing: Spacing, part: (u32, u32), seed: u64) -> Self {
        let (index, parts) = (f64::from(part.0), f64::from(part.1.max(1)));
        let mut arrivals = Self {
            curve,
            spacing,
            random: fastrand::Rng::with_seed(seed),
            area: index,
            parts,
        };
        if spacing == Spacing::Poisson {
            arrivals.area = arrivals.gap();
        }
        arrivals
    }

    /// The area of one arrival. A Poisson process with a changing rate is one of rate 1 whose time is the area under
    /// the curve.
    fn gap(&mut self) -> f64 {
        match self.spacing {
            Spacing::Fixed => self.parts,
            Spacing::Poisson => -(1.0 - self.random.f64()).ln() * self.parts,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let time = self.curve.time_of(self.area)?;
        self.area += self.gap();
        Some(Duration::from_secs_f64(time.max(0.0)))
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a stage; write 30s:100/s, 1m:100/s..500/s, 30s:16 or 1m:16..64"
            )
        };
        let (length, levels) = text.split_once(':').ok_or_else(wrong)?;
        let (from, to) = levels.split_once("..").unwrap_or((levels, levels));
        let level = |text: &str| -> Option<(f64, bool)> {
            let (number, is_rate) = match text.strip_suffix("/s") {
                Some(number) => (number, true),
                None => (text, false),
            };
            let number: f64 = number.trim().parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some((number, is_rate))
        };
        let ((from, is_rate), (to, also_rate)) = level(from).zip(level(to)).ok_or_else(wrong)?;
        let length: Span = length.trim().parse()?;
        if is_rate != also_rate || length.0.is_zero() {
            return Err(wrong());
        }
        Ok(Self {
            length,
            from,
            to,
            is_rate,
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.is_rate { "/s" } else { "" };
        write!(f, "{}:{}{unit}..{}{unit}", self.length, self.from, self.to)
    }
}

as_text!(Stage);

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(stages: &[&str]) -> Curve {
        let stages: Vec<Stage> = stages.iter().map(|s| s.parse().unwrap()).collect();
        Curve::of(&stages)
    }

    #[test]
    fn spaces_fixed_arrivals_evenly_over_all_parts() {
        let part = |index| {
            let curve = curve(&["2s:10/s"]);
            Arrivals::new(curve, Spacing::Fixed, (index, 4), 1)
        };
        let mut all: Vec<Duration> = (0..4).flat_map(part).collect();
        all.sort();
        let expected: Vec<u128> = (0..20).map(|n| n * 100).collect();
        let rounded: Vec<_> = all
            .iter()
            .map(|time| (*time + Duration::from_micros(500)).as_millis())
            .collect();
        assert_eq!(rounded, expected);
    }

    #[test]
    fn poisson_arrivals_have_exponential_gaps_and_the_planned_rate() {
        let arrivals = Arrivals::new(curve(&["100s:100/s"]), Spacing::Poisson, (0, 1), 7);
        let times: Vec<f64> = arrivals.map(|time| time.as_secs_f64()).collect();
        let count = times.len() as f64;
        assert!((count - 10_000.0).abs() < 400.0, "{count}"); // four standard deviations
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean.
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.05,
            "{variance} {mean}"
        );
    }

    #[test]
    fn ramp_reaches_each_rate_in_time() {
        let ramp = curve(&["10s:0/s..100/s", "10s:100/s", "10s:100/s..0/s"]);
        assert!((ramp.level(5.0) - 50.0).abs() < 1e-9);
        assert!((ramp.level(25.0) - 50.0).abs() < 1e-9);
        assert!(ramp.level(31.0).abs() < 1e-9);
        let times: Vec<f64> = Arrivals::new(ramp, Spacing::Fixed, (0, 1), 1)
            .map(|time| time.as_secs_f64())
            .collect();
        let within = |from, to| times.iter().filter(|t| (from..to).contains(*t)).count();
        assert_eq!(times.len(), 2000);
        assert!(
            (124..=126).contains(&within(0.0, 5.0)),
            "{}",
            within(0.0, 5.0)
        );
        assert!((999..=1001).contains(&within(10.0, 20.0)));
    }

    #[test]
    fn plans_nothing_in_a_pause() {
        let times: Vec<f64> = Arrivals::new(
            curve(&["1s:10/s", "5s:0/s", "1s:10/s"]),
            Spacing::Fixed,
            (0, 1),
            1,
        )
        .map(|time| time.as_secs_f64())
        .collect();
        assert_eq!(times.len(), 20);
        assert!(
            times.iter().all(|time| *time < 1.0 || *time >= 6.0),
            "{times:?}"
        );
    }

    #[test]
    fn rejects_malformed_stages() {
        let stage: Stage = "1m:16..64".parse().unwrap();
        assert_eq!((stage.from, stage.to, stage.is_rate), (16.0, 64.0, false));
        for text in ["", "30s", "30s:", "30s:1/s..2", "x:1", "30s:-1", "0s:1"] {
            assert!(text.parse::<Stage>().is_err(), "{text}");
        }
    }
}
