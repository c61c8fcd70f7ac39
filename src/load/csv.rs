//! The result over time as CSV (RFC 4180): one line for each interval and side. Pure.

use std::fmt::Write as _;

use super::report::Report;

/// The columns, in order.
const COLUMNS: &str = "start_s,length_s,side,operations,errors,bytes_sent,bytes_received,p50_us,p90_us,p99_us,max_us,in_flight,proxy_cpu_ms,proxy_memory_bytes";

/// The intervals of a result.
pub fn csv(report: &Report) -> String {
    let mut out = format!("{COLUMNS}\r\n");
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for row in &report.series.rows {
        for (side, interval) in report.sides.iter().zip(&row.sides) {
            let _ = write!(
                out,
                "{:.3},{:.3},{},{},{},{},{},{},{},{},{},{},{},{}\r\n",
                row.start_ms as f64 / 1000.0,
                row.seconds(),
                side.name,
                interval.count,
                interval.errors,
                interval.bytes_sent,
                interval.bytes_received,
                interval.latency.quantile(0.5),
                interval.latency.quantile(0.9),
                interval.latency.quantile(0.99),
                interval.latency.max(),
                row.in_flight,
                number(row.proxy_cpu_ms),
                number(row.proxy_memory),
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    #[test]
    fn writes_all_columns_in_each_line() {
        let text = csv(&report());
        let lines: Vec<&str> = text.trim_end().split("\r\n").collect();
        assert_eq!(lines.len(), 11);
        let columns = COLUMNS.split(',').count();
        assert!(
            lines.iter().all(|line| line.split(',').count() == columns),
            "{text}"
        );
        assert!(
            lines[5].starts_with("4.000,1.000,target,100,50,"),
            "{}",
            lines[5]
        );
    }
}
