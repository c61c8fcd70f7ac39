//! Expressions that test a result: `p99>50ms`, `errors>0.1%`, `get.p99.9>=200ms`, `tenant:acme.rate<10`. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::operation::LoadOperation;
use super::quantity::as_text;

/// `[SCOPE.]METRIC COMPARISON VALUE`. If the comparison holds, the run has failed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    text: String,
    /// The operations or the tenant that it tests.
    pub(super) scope: MetricScope,
    /// The number that it tests.
    pub(super) metric: Metric,
    comparison: Comparison,
    /// The bound: latencies in microseconds, errors as a share, other numbers as written.
    value: f64,
}

/// The part of a result that an expression tests.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MetricScope {
    /// All operations together.
    All,
    /// One operation.
    LoadOperation(LoadOperation),
    /// One tenant.
    Tenant(String),
}

/// A number of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Metric {
    /// A quantile of latency, as a share: 0.99.
    Quantile(f64),
    /// The largest latency.
    Max,
    /// The mean latency.
    Mean,
    /// Failed operations as a share of all.
    ErrorShare,
    /// Failed operations.
    Errors,
    /// Operations each second.
    Rate,
    /// Planned operations that were not started.
    NotStarted,
    /// Bytes each second, both ways.
    Throughput,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Expression {
    /// Whether the comparison holds for `value`, which is in the unit of the metric.
    pub(super) fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.value,
            Comparison::AtLeast => value >= self.value,
            Comparison::Below => value < self.value,
            Comparison::AtMost => value <= self.value,
        }
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not an expression; write p99>50ms, errors>0.1%, get.max>1s, tenant:NAME.rate<10 or not-started>0"
            )
        };
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(at);
        let (comparison, value) = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ]
        .into_iter()
        .find_map(|(sign, comparison)| Some((comparison, rest.strip_prefix(sign)?)))
        .ok_or_else(wrong)?;
        let (scope, metric) = scope(name.trim()).ok_or_else(wrong)?;
        let (metric, value) = measured(metric, value.trim()).ok_or_else(wrong)?;
        Ok(Self {
            text: text.to_owned(),
            scope,
            metric,
            comparison,
            value,
        })
    }
}

fn scope(name: &str) -> Option<(MetricScope, &str)> {
    if let Some(rest) = name.strip_prefix("tenant:") {
        // A tenant's name may contain dots: the metric is the last part that can be one.
        let at = rest.match_indices('.').map(|(at, _)| at);
        return at.into_iter().find_map(|at| {
            let (tenant, metric) = (rest.get(..at)?, rest.get(at + 1..)?);
            (is_metric(metric) && !tenant.is_empty())
                .then(|| (MetricScope::Tenant(tenant.to_owned()), metric))
        });
    }
    if let Some((operation, metric)) = name.split_once('.')
        && let Ok(operation) = operation.parse()
    {
        return is_metric(metric).then_some((MetricScope::LoadOperation(operation), metric));
    }
    is_metric(name).then_some((MetricScope::All, name))
}

fn is_metric(name: &str) -> bool {
    matches!(
        name,
        "max" | "mean" | "errors" | "rate" | "not-started" | "throughput"
    ) || quantile(name).is_some()
}

/// `p99.9` is 0.999.
fn quantile(name: &str) -> Option<f64> {
    let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
    // 99.9 / 100 is slightly more than 0.999 and could select the next bucket.
    let quantile = (percent * 1e7).round() / 1e9;
    (0.0..=1.0).contains(&quantile).then_some(quantile)
}

fn measured(metric: &str, value: &str) -> Option<(Metric, f64)> {
    let number = |text: &str| {
        let number: f64 = text.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    Some(match metric {
        "max" => (Metric::Max, microseconds(value)?),
        "mean" => (Metric::Mean, microseconds(value)?),
        "errors" => match value.strip_suffix('%') {
            Some(percent) => (Metric::ErrorShare, number(percent)? / 100.0),
            None => (Metric::Errors, number(value)?),
        },
        "rate" => (
            Metric::Rate,
            number(value.strip_suffix("/s").unwrap_or(value))?,
        ),
        "not-started" => (Metric::NotStarted, number(value)?),
        "throughput" => {
            let value = value.strip_suffix("/s").unwrap_or(value);
            (
                Metric::Throughput,
                crate::config::read_size(value).ok()? as f64,
            )
        }
        name => (Metric::Quantile(quantile(name)?), microseconds(value)?),
    })
}

/// A latency with its unit: `800us`, `1.5ms`, `2s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

as_text!(Expression);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Expression {
        text.parse().unwrap()
    }

    #[test]
    fn reads_scope_metric_and_bound() {
        let expression = read("get.p99.9 >= 1.5ms");
        assert_eq!(
            expression.scope,
            MetricScope::LoadOperation(LoadOperation::Get)
        );
        assert_eq!(expression.metric, Metric::Quantile(0.999));
        assert!(expression.holds(1500.0) && !expression.holds(1499.0));
        let expression = read("errors>0.1%");
        assert_eq!(
            (expression.scope.clone(), expression.metric),
            (MetricScope::All, Metric::ErrorShare)
        );
        assert!(expression.holds(0.002) && !expression.holds(0.001));
        assert_eq!(read("errors>0").metric, Metric::Errors);
        let expression = read("tenant:acme.eu.p50<800us");
        assert_eq!(expression.scope, MetricScope::Tenant("acme.eu".into()));
        assert!(expression.holds(799.0));
        assert!(read("throughput<10MiB/s").holds(1000.0));
        assert!(read("rate<=100/s").holds(100.0));
        assert!(read("max>1s").holds(1_000_001.0));
        assert_eq!(
            read("multi-delete.mean>1ms").scope,
            MetricScope::LoadOperation(LoadOperation::MultiDelete)
        );
    }

    #[test]
    fn rejects_malformed_expressions() {
        for text in [
            "",
            "p99",
            "p99>50",
            "p101>1ms",
            "errors>x",
            "put.p99=1ms",
            "shout.p99>1ms",
            "tenant:.rate",
            "p99>-1ms",
        ] {
            assert!(text.parse::<Expression>().is_err(), "{text}");
        }
    }
}
