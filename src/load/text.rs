//! Formats numbers for people, and the summary of a run. Pure.

use std::fmt::Write as _;

use super::report::{Report, SideResult};
use super::stats::Totals;

/// `830 µs`, `12.3 ms`, `1.50 s`.
pub(super) fn micros(micros: f64) -> String {
    match micros {
        m if m < 1e3 => format!("{m:.0} µs"),
        m if m < 1e5 => format!("{} ms", digits(m / 1e3)),
        m if m < 1e6 => format!("{:.0} ms", m / 1e3),
        m => format!("{} s", digits(m / 1e6)),
    }
}

/// `1.5 MiB/s`
pub(super) fn bytes_per_second(bytes: f64) -> String {
    format!("{}/s", self::bytes(bytes))
}

/// `1.5 MiB`
pub(super) fn bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "B" => format!("{value:.0} B"),
                unit => format!("{} {unit}", digits(value)),
            };
        }
        value /= 1024.0;
    }
    format!("{} TiB", digits(value))
}

/// Three digits.
fn digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// `12,345`
pub(super) fn count(number: u64) -> String {
    let plain = number.to_string();
    let mut out = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The summary of a run, for a terminal.
pub fn summary(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "\n{}: {:.1} s", report.name, report.seconds);
    for side in &report.sides {
        push_side(&mut out, report, side);
    }
    push_tenants(&mut out, report);
    push_added(&mut out, report);
    push_knee(&mut out, report);
    push_faults(&mut out, report);
    push_truth(&mut out, report);
    push_generator(&mut out, report);
    match report.failures.as_slice() {
        [] => out.push_str("\npassed\n"),
        failures => {
            let _ = writeln!(out, "\nFAILED");
            for failure in failures {
                let _ = writeln!(out, "  {failure}");
            }
        }
    }
    out
}

const HEADER: &str = "          count     rate    errors       p50       p90       p99     p99.9       max    bytes/s";

fn push_side(out: &mut String, report: &Report, side: &SideResult) {
    let _ = writeln!(out, "\n{} {}", side.name, side.endpoint);
    let _ = writeln!(out, "  {:<16}{HEADER}", "");
    for result in &side.operations {
        push_line(out, report, result.operation.name(), &result.totals);
    }
    if side.operations.len() != 1 {
        push_line(out, report, "all", &side.all);
    }
    for error in side.errors.iter().take(10) {
        let _ = writeln!(
            out,
            "  {} {} {}",
            count(error.count),
            error.operation,
            error.error
        );
    }
}

fn push_tenants(out: &mut String, report: &Report) {
    const SHOWN: usize = 20;
    if report.tenants.len() < 2 {
        return;
    }
    let _ = writeln!(out, "\ntenants");
    for tenant in report.tenants.iter().take(SHOWN) {
        push_line(out, report, &tenant.name, &tenant.totals);
    }
    if report.tenants.len() > SHOWN {
        let more = report.tenants.len() - SHOWN;
        let _ = writeln!(out, "  and {more} more: see --json or --html");
    }
}

fn push_line(out: &mut String, report: &Report, name: &str, totals: &Totals) {
    let quantile = |quantile| micros(totals.latency.quantile(quantile) as f64);
    let seconds = report.seconds.max(0.001);
    let _ = writeln!(
        out,
        "  {name:<16}{:>15} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
        count(totals.count),
        format!("{:.1}", report.rate(totals)),
        count(totals.errors),
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        micros(totals.latency.max() as f64),
        bytes((totals.bytes_sent + totals.bytes_received) as f64 / seconds),
    );
}

/// The latency that the target adds to the store behind it.
fn push_added(out: &mut String, report: &Report) {
    if let [target, direct] = report.sides.as_slice() {
        let added = |quantile| {
            let (through, direct) = (
                target.all.latency.quantile(quantile) as f64,
                direct.all.latency.quantile(quantile) as f64,
            );
            let sign = if through < direct { "-" } else { "+" };
            format!("{sign}{}", micros((through - direct).abs()))
        };
        let _ = writeln!(
            out,
            "\nadded by the target: p50 {}, p90 {}, p99 {}",
            added(0.5),
            added(0.9),
            added(0.99)
        );
    }
    if let Some(proxy) = report.proxy {
        let _ = writeln!(
            out,
            "proxy process: {} CPU for each operation, {:.1} s in all, at most {} of memory",
            micros(proxy.cpu_micros_per_operation),
            proxy.cpu_seconds,
            bytes(proxy.peak_memory as f64)
        );
    }
}

fn push_knee(out: &mut String, report: &Report) {
    let Some(knee) = &report.knee else {
        return;
    };
    let bounds = knee.bounds.join(" or ");
    match knee.rate {
        Some(rate) => {
            let _ = writeln!(out, "\nknee: {rate:.0}/s held; higher rates gave {bounds}");
        }
        None => {
            let _ = writeln!(out, "\nknee: not even the first rate held: {bounds}");
        }
    }
    for step in &knee.steps {
        let _ = writeln!(
            out,
            "  {:>9.0}/s planned {:>9.0}/s done  p50 {:>9}  p99 {:>9}  errors {:>7.3} %  {}",
            step.rate,
            step.achieved,
            micros(step.p50 as f64),
            micros(step.p99 as f64),
            step.errors * 100.0,
            step.passed.as_deref().unwrap_or("held")
        );
    }
}

fn push_faults(out: &mut String, report: &Report) {
    for fault in &report.faults {
        let _ = writeln!(
            out,
            "fault {:.1} s to {:.1} s: {}: {}",
            fault.from,
            fault.until,
            fault.name,
            report.aftermath(fault)
        );
    }
}

fn push_truth(out: &mut String, report: &Report) {
    let truth = &report.truth;
    let _ = writeln!(
        out,
        "\nverified: {} reads ({} wrong), {} objects in the sweep; {} lost, {} corrupted, {} phantom, {} uncertain",
        count(truth.reads_verified),
        count(truth.bad_reads),
        count(truth.swept),
        count(truth.lost),
        count(truth.corrupted),
        count(truth.phantom),
        count(truth.uncertain)
    );
    let isolation = &report.isolation;
    if isolation.probes > 0 {
        let _ = writeln!(
            out,
            "isolation: {} probes, {} refused, {} inconclusive, {} succeeded",
            count(isolation.probes),
            count(isolation.refused),
            count(isolation.inconclusive),
            count(isolation.holes)
        );
    }
    for example in truth.examples.iter().chain(&isolation.examples) {
        let _ = writeln!(out, "  {}", example.escape_debug());
    }
}

fn push_generator(out: &mut String, report: &Report) {
    if report.not_started > 0 {
        let _ = writeln!(
            out,
            "{} planned operations were not started: too many were in flight (--max-in-flight)",
            count(report.not_started)
        );
    }
    let generator = report.generator;
    if generator.is_saturated {
        let _ = writeln!(
            out,
            "the load generator was saturated ({:.0} % of a core on its busiest thread): give it more --threads or more machines (--shard)",
            generator.busiest * 100.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    #[test]
    fn formats_three_digits_and_a_unit() {
        for (value, text) in [
            (830.0, "830 µs"),
            (12_345.0, "12.3 ms"),
            (250_000.0, "250 ms"),
            (1_500_000.0, "1.50 s"),
        ] {
            assert_eq!(micros(value), text);
        }
        assert_eq!(bytes(1_572_864.0), "1.50 MiB");
        assert_eq!(bytes(5.0), "5 B");
        assert_eq!(
            (count(0), count(999), count(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
    }

    #[test]
    fn summary_contains_results() {
        let mut report = report();
        report.find_recoveries();
        report.scenario.fail_if = vec!["errors>1%".parse().unwrap()];
        report.judge();
        let text = summary(&report);
        for part in [
            "get",
            "1,000",
            "503 SlowDown",
            "recovered 2.0 s later",
            "FAILED",
            "errors>1%",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
