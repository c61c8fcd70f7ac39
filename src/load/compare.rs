//! The comparison of two results: shows which differences are more than noise. Pure.

use std::fmt::Write as _;

use super::report::Report;
use super::stats::Totals;
use super::text::{bytes_per_second, micros};

/// Smaller differences count as none: runs on one machine differ by as much.
const NOISE: f64 = 0.05;

/// A table of the differences from `before` to `after`.
pub fn compare(before: &Report, after: &Report) -> String {
    let mut out = format!(
        "{} ({}) -> {} ({})\n\n",
        before.name, before.started, after.name, after.started
    );
    let _ = writeln!(
        out,
        "{:<18}{:<12}{:>14}{:>14}{:>10}",
        "", "", "before", "after", "change"
    );
    for (mine, theirs) in before.sides.iter().zip(&after.sides) {
        push(
            &mut out,
            &mine.name,
            (before, &mine.all),
            (after, &theirs.all),
        );
        for result in &mine.operations {
            let mut others = theirs.operations.iter();
            if let Some(other) = others.find(|other| other.operation == result.operation) {
                let name = format!("{} {}", mine.name, result.operation);
                push(
                    &mut out,
                    &name,
                    (before, &result.totals),
                    (after, &other.totals),
                );
            }
        }
    }
    if let (Some(mine), Some(theirs)) = (before.proxy, after.proxy) {
        let cpu = (
            mine.cpu_micros_per_operation,
            theirs.cpu_micros_per_operation,
        );
        line(&mut out, ("proxy", "CPU/op"), cpu, (micros, false));
        let memory = (mine.peak_memory as f64, theirs.peak_memory as f64);
        line(
            &mut out,
            ("", "memory"),
            memory,
            (super::text::bytes, false),
        );
    }
    out
}

type Run<'a> = (&'a Report, &'a Totals);

fn push(out: &mut String, name: &str, (before, mine): Run<'_>, (after, theirs): Run<'_>) {
    let rates = (before.rate(mine), after.rate(theirs));
    line(
        out,
        (name, "rate"),
        rates,
        (|rate| format!("{rate:.1}/s"), true),
    );
    let moved = |report: &Report, totals: &Totals| {
        (totals.bytes_sent + totals.bytes_received) as f64 / report.seconds.max(0.001)
    };
    let bytes = (moved(before, mine), moved(after, theirs));
    line(out, ("", "bytes"), bytes, (bytes_per_second, true));
    for (label, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
        let latencies = (
            mine.latency.quantile(quantile) as f64,
            theirs.latency.quantile(quantile) as f64,
        );
        line(out, ("", label), latencies, (micros, false));
    }
    let errors = (mine.error_share() * 100.0, theirs.error_share() * 100.0);
    line(
        out,
        ("", "errors"),
        errors,
        (|share| format!("{share:.3} %"), false),
    );
}

/// One number. `more_is_better` says which direction is better.
fn line(
    out: &mut String,
    (name, label): (&str, &str),
    (before, after): (f64, f64),
    (show, more_is_better): (fn(f64) -> String, bool),
) {
    let change = if before == 0.0 && after == 0.0 {
        String::new()
    } else if before == 0.0 {
        "new".to_owned()
    } else {
        let share = after / before - 1.0;
        let verdict = if share.abs() < NOISE {
            "same"
        } else if (share > 0.0) == more_is_better {
            "better"
        } else {
            "worse"
        };
        format!("{:+.1} % {verdict}", share * 100.0)
    };
    let _ = writeln!(
        out,
        "{name:<18}{label:<12}{:>14}{:>14}  {change}",
        show(before),
        show(after)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    #[test]
    fn reports_better_and_worse_numbers() {
        let before = report();
        let mut after = report();
        after.seconds = 20.0;
        let text = compare(&before, &after);
        assert!(
            text.contains("100.0/s") && text.contains("-50.0 % worse"),
            "{text}"
        );
        assert!(text.contains("+0.0 % same"), "{text}");
        let text = compare(&after, &before);
        assert!(text.contains("+100.0 % better"), "{text}");
    }
}
