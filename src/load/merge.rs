//! Merging: the results of several processes of one scenario become one. Pure.

use std::collections::BTreeSet;

use super::report::{EXAMPLES, Report, SCHEMA, SideResult, TenantResult};
use super::scenario::{Scenario, Shard};
use super::stats::{ErrorCount, Totals};

/// Maximum number of results that are merged.
const PARTS: usize = 10_000;

/// Merges `parts` into one result: counts and histograms are added exactly.
pub fn merge(parts: Vec<Report>) -> Result<Report, String> {
    if parts.len() > PARTS {
        return Err(format!("at most {PARTS} results"));
    }
    if let Some(part) = parts.iter().find(|part| part.schema != SCHEMA) {
        return Err(format!("`{}` is not {SCHEMA}", part.schema.escape_debug()));
    }
    let missing = missing_shards(&parts)?;
    let mut parts = parts.into_iter();
    let mut whole = parts.next().ok_or("give at least one result")?;
    for part in parts {
        add(&mut whole, part)?;
    }
    whole.scenario.shard = None;
    whole.incidents.extend(missing);
    if let Some(proxy) = &mut whole.proxy {
        let operations = whole.sides.first().map_or(0, |side| side.all.count);
        proxy.cpu_micros_per_operation = proxy.cpu_seconds * 1e6 / operations.max(1) as f64;
    }
    whole.find_recoveries();
    whole.judge();
    Ok(whole)
}

/// Reports the shards that no result is of. A shard that occurs twice is an error, because it would count twice.
fn missing_shards(parts: &[Report]) -> Result<Option<String>, String> {
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for shard in parts.iter().filter_map(|part| part.scenario.shard) {
        if count != 0 && count != shard.count {
            return Err(format!(
                "the results are not of one scenario: it has {count} and {} shards",
                shard.count
            ));
        }
        count = shard.count;
        if !seen.insert(shard.index) {
            return Err(format!("two results are of shard {shard}"));
        }
    }
    let missing = (0..count).filter(|index| !seen.contains(index));
    let missing: Vec<String> = missing
        .map(|index| Shard { index, count }.to_string())
        .collect();
    Ok((!missing.is_empty()).then(|| match missing.len() {
        1..=EXAMPLES => format!("no result of shard {}", missing.join(", ")),
        number => format!("no result of {number} of {count} shards"),
    }))
}

/// A key that says what the load is, and that differs.
fn differing_key(one: &Scenario, other: &Scenario) -> Option<&'static str> {
    let keys = [
        ("mix", one.mix == other.mix),
        ("stages", one.stages == other.stages),
        ("rate", one.rate == other.rate),
        ("concurrency", one.concurrency == other.concurrency),
        ("duration", one.duration == other.duration),
        ("requests", one.requests == other.requests),
        (
            "sizes",
            one.sizes.as_ref().map(ToString::to_string)
                == other.sizes.as_ref().map(ToString::to_string),
        ),
    ];
    keys.into_iter().find(|(_, same)| !same).map(|(key, _)| key)
}

fn add(whole: &mut Report, part: Report) -> Result<(), String> {
    let names = |report: &Report| -> Vec<String> {
        report.sides.iter().map(|side| side.name.clone()).collect()
    };
    if names(whole) != names(&part) {
        return Err(
            "the results are not of one scenario: only some of them have a direct side".to_owned(),
        );
    }
    if let Some(key) = differing_key(&whole.scenario, &part.scenario) {
        return Err(format!(
            "the results are not of one scenario: `{key}` differs"
        ));
    }
    whole.processes += part.processes;
    for incident in part.incidents {
        if whole.incidents.len() < EXAMPLES {
            whole.incidents.push(incident);
        }
    }
    whole.seconds = whole.seconds.max(part.seconds);
    whole.started = whole.started.clone().min(part.started);
    whole.not_started += part.not_started;
    for (mine, theirs) in whole.sides.iter_mut().zip(part.sides) {
        add_side(mine, theirs);
    }
    for tenant in part.tenants {
        add_tenant(&mut whole.tenants, tenant);
    }
    whole.truth.merge(&part.truth);
    whole.isolation.merge(&part.isolation);
    whole.generator.threads += part.generator.threads;
    whole.generator.busiest = whole.generator.busiest.max(part.generator.busiest);
    whole.generator.is_saturated |= part.generator.is_saturated;
    whole.proxy = match (whole.proxy, part.proxy) {
        (Some(mut mine), Some(theirs)) => {
            mine.cpu_seconds += theirs.cpu_seconds;
            mine.peak_memory += theirs.peak_memory;
            Some(mine)
        }
        (mine, theirs) => mine.or(theirs),
    };
    whole.series.merge(part.series);
    Ok(())
}

fn add_side(mine: &mut SideResult, theirs: SideResult) {
    mine.all.merge(&theirs.all);
    mine.connections += theirs.connections;
    for result in theirs.operations {
        let mut all = mine.operations.iter_mut();
        match all.find(|known| known.operation == result.operation) {
            Some(known) => known.totals.merge(&result.totals),
            None => mine.operations.push(result),
        }
    }
    mine.operations.sort_by_key(|result| result.operation);
    for error in theirs.errors {
        add_error(&mut mine.errors, error);
    }
    mine.errors
        .sort_by_key(|error| std::cmp::Reverse(error.count));
}

fn add_error(errors: &mut Vec<ErrorCount>, error: ErrorCount) {
    let same =
        |known: &&mut ErrorCount| known.operation == error.operation && known.error == error.error;
    match errors.iter_mut().find(same) {
        Some(known) => known.count += error.count,
        None => errors.push(error),
    }
}

fn add_tenant(tenants: &mut Vec<TenantResult>, tenant: TenantResult) {
    let totals: &Totals = &tenant.totals;
    match tenants.iter_mut().find(|known| known.name == tenant.name) {
        Some(known) => known.totals.merge(totals),
        None => tenants.push(tenant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::operation::LoadOperation;
    use crate::load::report::tests::{ended, report};
    use crate::load::stats::SideTotals;

    /// A result of the given latencies.
    fn of(latencies: &[u64]) -> Report {
        let mut totals = SideTotals::default();
        for millis in latencies {
            let operation = if millis % 2 == 0 {
                LoadOperation::Put
            } else {
                LoadOperation::Get
            };
            totals.record(&ended(operation, *millis, (*millis == 7).then_some("500")));
        }
        let mut report = report();
        report.sides = vec![SideResult::new("target", "e", &totals, 1)];
        report.tenants = vec![TenantResult {
            name: "a".into(),
            totals: totals.all(),
        }];
        report
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let all: Vec<u64> = (1..400).map(|n| n * n % 977).collect();
        let whole = of(&all);
        let thirds: Vec<Report> = (0..3)
            .map(|third| {
                let part: Vec<u64> = all.iter().copied().skip(third).step_by(3).collect();
                let text = serde_json::to_string(&of(&part)).unwrap();
                serde_json::from_str(&text).unwrap()
            })
            .collect();
        let merged = merge(thirds).unwrap();
        assert_eq!(merged.processes, 3);
        let json = |value: &dyn erased::Json| value.json();
        assert_eq!(
            json(&merged.sides[0].operations),
            json(&whole.sides[0].operations)
        );
        assert_eq!(json(&merged.sides[0].all), json(&whole.sides[0].all));
        assert_eq!(json(&merged.sides[0].errors), json(&whole.sides[0].errors));
        assert_eq!(json(&merged.tenants), json(&whole.tenants));
    }

    mod erased {
        pub(super) trait Json {
            fn json(&self) -> String;
        }
        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }

    #[test]
    fn names_missing_shards_and_rejects_double_ones() {
        let shard = |index, count| {
            let mut report = report();
            report.scenario.shard = Some(Shard { index, count });
            report
        };
        let all = merge(vec![shard(1, 3), shard(0, 3), shard(2, 3)]).unwrap();
        assert_eq!(all.failures, [""; 0]);
        let some = merge(vec![shard(1, 3)]).unwrap();
        assert_eq!(some.failures, ["no result of shard 1/3, 3/3"]);
        let error = merge(vec![shard(1, 3), shard(1, 3)]).unwrap_err();
        assert!(error.contains("two results are of shard 2/3"), "{error}");
        assert!(merge(vec![shard(0, 2), shard(1, 3)]).is_err());
    }

    #[test]
    fn failed_part_fails_the_whole() {
        let mut part = report();
        part.incidents.push("interrupted".to_owned());
        part.judge();
        let whole = merge(vec![report(), part]).unwrap();
        assert_eq!(whole.failures, ["interrupted"]);
    }

    #[test]
    fn rejects_results_of_other_scenarios() {
        assert!(merge(Vec::new()).is_err());
        let mut other = report();
        other.schema = "k6".to_owned();
        assert!(merge(vec![report(), other]).is_err());
        let mut other = report();
        other.scenario.mix = Some("get=1".parse().unwrap());
        assert!(merge(vec![report(), other]).is_err());
        let mut other = report();
        other.scenario.rate = Some(3.0);
        assert!(merge(vec![report(), other]).unwrap_err().contains("`rate`"));
    }
}
