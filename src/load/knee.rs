//! The knee: the highest rate at which the target stays within its bounds.

use std::time::Duration;

use tokio::time::Instant;

use super::arrivals::Curve;
use super::expression::{Expression, Metric, MetricScope};
use super::live::Live;
use super::plan::LoopShape;
use super::quantity::Span;
use super::report::{Knee, KneeStep, measure};
use super::run::LoadThreads;
use super::scenario::Scenario;
use super::stats::{Interval, Totals};
use super::worker::Segment;

const FIRST_RATE: f64 = 50.0;
const STEP: Duration = Duration::from_secs(5);
/// The pause between two rates, so that the backlog of one does not add latency to the next.
const REST: Duration = Duration::from_millis(500);
/// Each rate is this many times the one before, until one does not hold.
const GROWTH: f64 = 1.6;
/// The number of times that the interval between the last two rates is then halved.
const HALVINGS: usize = 4;
/// Maximum number of rates that are tried.
const STEPS: usize = 40;
/// A target that does less than this share of the planned operations has passed its knee.
const ACHIEVED: f64 = 0.95;

/// The search for the next rate. Pure.
#[derive(Clone, Debug)]
struct Search {
    next: f64,
    held: Option<f64>,
    failed: Option<f64>,
    halvings: usize,
}

impl Search {
    fn new(first: f64) -> Self {
        Self {
            next: first,
            held: None,
            failed: None,
            halvings: 0,
        }
    }

    /// Records whether the last rate held. `false` ends the search.
    fn record(&mut self, holds: bool) -> bool {
        if holds {
            self.held = Some(self.next);
        } else {
            self.failed = Some(self.next);
        }
        match (self.held, self.failed) {
            (Some(held), None) => self.next = held * GROWTH,
            (Some(held), Some(failed)) => {
                self.next = f64::midpoint(held, failed);
                self.halvings += 1;
            }
            (None, Some(failed)) => {
                self.next = failed / 2.0;
                self.halvings += 1;
            }
            (None, None) => {}
        }
        self.halvings <= HALVINGS
    }
}

/// Searches for the knee.
pub(super) async fn find(
    threads: &mut LoadThreads,
    scenario: &Scenario,
    live: &mut Live,
) -> Result<Knee, String> {
    let bounds = if scenario.knee_bounds.is_empty() {
        vec!["p99>100ms".parse()?, "errors>1%".parse()?]
    } else {
        scenario.knee_bounds.clone()
    };
    if let Some(bound) = bounds.iter().find(|bound| bound.scope != MetricScope::All) {
        return Err(format!("knee bound {bound}: name no operation or tenant"));
    }
    let LoopShape::Open {
        spacing,
        max_in_flight,
        ..
    } = threads.plan.shape.clone()
    else {
        return Err("--find-knee is an open loop: leave --concurrency out".to_owned());
    };
    let length = scenario.knee_step.map_or(STEP, |Span(step)| step);
    let mut search = Search::new(scenario.rate.unwrap_or(FIRST_RATE));
    let mut steps = Vec::new();
    let mut start = threads.begin();
    while steps.len() < STEPS {
        let rate = search.next;
        let before = threads.not_started();
        let segment = Segment {
            shape: LoopShape::Open {
                rate: Curve::flat(rate, length),
                spacing,
                max_in_flight,
            },
            start,
            requests: None,
            seed: threads.plan.seed ^ steps.len() as u64,
        };
        let sum = threads.load(segment, live).await?;
        let lasted = start.elapsed().as_secs_f64();
        let missed = threads.not_started() - before;
        let step = judge(rate, &sum, (lasted, missed), &bounds);
        live.print(&format!(
            "{rate:.0}/s {}",
            step.passed.as_deref().unwrap_or("held")
        ));
        let goes_on = search.record(step.passed.is_none());
        steps.push(step);
        if !goes_on || threads.is_interrupted() {
            break;
        }
        start = (Instant::now() + REST).max(threads.origin());
    }
    Ok(Knee {
        rate: search.held,
        bounds: bounds.iter().map(ToString::to_string).collect(),
        steps,
    })
}

fn judge(
    rate: f64,
    sum: &Interval,
    (lasted, not_started): (f64, u64),
    bounds: &[Expression],
) -> KneeStep {
    let totals = Totals {
        count: sum.count,
        errors: sum.errors,
        bytes_sent: sum.bytes_sent,
        bytes_received: sum.bytes_received,
        latency: sum.latency.clone(),
        ..Totals::default()
    };
    let achieved = measure(&totals, Metric::Rate, lasted);
    let planned = sum.count + not_started;
    let done = sum.count as f64 / planned.max(1) as f64;
    let mut passed = bounds
        .iter()
        .find(|bound| bound.holds(measure(&totals, bound.metric, lasted)))
        .map(ToString::to_string);
    if passed.is_none() && (done < ACHIEVED || sum.count == 0) {
        passed = Some(format!("did {:.0} % of what was planned", done * 100.0));
    }
    KneeStep {
        rate,
        achieved,
        p50: totals.latency.quantile(0.5),
        p99: totals.latency.quantile(0.99),
        errors: totals.error_share(),
        passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knee_of(first: f64, limit: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(first);
        let mut steps = 1;
        while search.record(search.next <= limit) {
            steps += 1;
        }
        (search.held, steps)
    }

    #[test]
    fn search_converges_to_the_knee() {
        for limit in [60.0, 500.0, 12_345.0] {
            let (held, steps) = knee_of(50.0, limit);
            let held = held.unwrap();
            assert!(held <= limit && held > limit * 0.93, "{held} {limit}");
            assert!(steps < 25, "{steps}");
        }
    }

    #[test]
    fn halves_a_first_rate_beyond_the_knee() {
        let (held, _) = knee_of(100.0, 30.0);
        assert!(held.unwrap() <= 30.0);
        assert_eq!(knee_of(100.0, 1.0).0, None);
    }

    #[test]
    fn low_throughput_passes_the_knee() {
        let mut sum = Interval::default();
        for _ in 0..90 {
            sum.record(&crate::load::report::tests::ended(
                super::super::LoadOperation::Get,
                1,
                None,
            ));
        }
        assert!(judge(100.0, &sum, (1.0, 0), &[]).passed.is_none());
        assert!(judge(100.0, &sum, (1.0, 10), &[]).passed.is_some());
        let bound = ["p99>0.5ms".parse().unwrap()];
        assert_eq!(
            judge(100.0, &sum, (1.0, 0), &bound).passed.as_deref(),
            Some("p99>0.5ms")
        );
    }
}
