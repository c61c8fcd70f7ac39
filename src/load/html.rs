//! The report as one HTML file: without scripts and external resources, for light and dark screens and print. Pure.

use std::fmt::Write as _;

use super::plot::{Axis, Mark, Plot, PlotLine, Steps, svg};
use super::report::{Report, SideResult};
use super::stats::{Interval, IntervalRow, Totals};
use super::text::{bytes, bytes_per_second, count, micros};
use crate::encoding::html::escape;

/// Maximum number of tenants in a plot. The first ones in the scenario stand for thousands.
const SHOWN_TENANTS: usize = 3;
/// Maximum number of tenants in the table.
const TENANTS: usize = 100;
const SECONDS: Axis = Axis {
    show: |seconds| format!("{seconds:.0} s"),
    steps: Steps::Decimal,
};
const SHORT_SECONDS: Axis = Axis {
    show: |seconds| format!("{seconds:.1} s"),
    steps: Steps::Decimal,
};
const RATE: Axis = Axis {
    show: |rate| format!("{rate:.0}/s"),
    steps: Steps::Decimal,
};
const LATENCY: Axis = Axis {
    show: micros,
    steps: Steps::Logarithmic,
};
/// Quantiles by their number of nines: 1 is 90 %, 2 is 99 %.
const NINES: Axis = Axis {
    show: |nines| match nines {
        n if n < 0.5 => "0 %".to_owned(),
        n if n < 1.5 => "90 %".to_owned(),
        n if n < 2.5 => "99 %".to_owned(),
        n if n < 3.5 => "99.9 %".to_owned(),
        n if n < 4.5 => "99.99 %".to_owned(),
        _ => "99.999 %".to_owned(),
    },
    steps: Steps::Whole,
};

/// The report.
pub fn html(report: &Report) -> String {
    let mut out = String::with_capacity(64 * 1024);
    push_head(&mut out, report);
    push_cards(&mut out, report);
    push_failures(&mut out, report);
    push_over_time(&mut out, report);
    push_distribution(&mut out, report);
    for side in &report.sides {
        push_operations(&mut out, report, side);
    }
    push_added(&mut out, report);
    push_tenants(&mut out, report);
    push_proxy(&mut out, report);
    push_knee(&mut out, report);
    push_faults(&mut out, report);
    push_errors(&mut out, report);
    push_truth(&mut out, report);
    push_scenario(&mut out, report);
    out.push_str("</main></body></html>\n");
    out
}

fn push_head(out: &mut String, report: &Report) {
    let name = escape(&report.name);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>{name}: load report</title><style>{}</style></head><body><main>",
        include_str!("style.css")
    );
    let (class, verdict) = if report.failures.is_empty() {
        ("verdict", "passed")
    } else {
        ("verdict failed", "failed")
    };
    let endpoint = report.target().map_or("", |side| side.endpoint.as_str());
    let threads = match report.generator.threads {
        1 => "1 thread".to_owned(),
        many => format!("{many} threads"),
    };
    let _ = write!(
        out,
        "<h1>{name} <span class=\"{class}\" style=\"font-size:15px;vertical-align:middle\">{verdict}</span></h1><p class=\"dim\">{} · started {} · {:.1} s · {} · cosgate {}</p>",
        escape(endpoint),
        escape(&report.started),
        report.seconds,
        match report.processes {
            1 => threads,
            many => format!("{many} processes, {threads}"),
        },
        escape(&report.version)
    );
}

fn push_cards(out: &mut String, report: &Report) {
    let Some(side) = report.target() else {
        return;
    };
    let moved = side.all.bytes_sent + side.all.bytes_received;
    let cards = [
        (format!("{:.1}/s", report.rate(&side.all)), "operations"),
        (
            micros(side.all.latency.quantile(0.5) as f64),
            "median latency",
        ),
        (
            micros(side.all.latency.quantile(0.99) as f64),
            "99 % are faster",
        ),
        (format!("{:.3} %", side.all.error_share() * 100.0), "errors"),
        (
            bytes_per_second(moved as f64 / report.seconds.max(0.001)),
            "content, both ways",
        ),
        (
            count(report.truth.reads_verified + report.truth.swept),
            "reads and objects verified",
        ),
    ];
    out.push_str("<div class=\"cards\">");
    for (value, label) in cards {
        let _ = write!(out, "<div><b>{value}</b><span>{label}</span></div>");
    }
    out.push_str("</div>");
}

fn push_failures(out: &mut String, report: &Report) {
    let mut notes: Vec<String> = report.failures.clone();
    if report.generator.is_saturated {
        notes.push(format!(
            "The load generator was saturated: its busiest thread used {:.0} % of a core. The numbers of the target are too low.",
            report.generator.busiest * 100.0
        ));
    }
    if report.not_started > 0 {
        notes.push(format!(
            "{} planned operations were not started, because too many were in flight.",
            count(report.not_started)
        ));
    }
    if notes.is_empty() {
        return;
    }
    out.push_str("<section><h2>Findings</h2><ul>");
    for note in notes {
        let _ = write!(out, "<li class=\"bad\">{}</li>", escape(&note));
    }
    out.push_str("</ul></section>");
}

fn push_over_time(out: &mut String, report: &Report) {
    let rate = |side: &Interval, row: &IntervalRow| side.count as f64 / row.seconds().max(0.001);
    let errors = |side: &Interval, row: &IntervalRow| side.errors as f64 / row.seconds().max(0.001);
    let mut lines = Vec::new();
    for (index, side) in report.sides.iter().enumerate() {
        let suffix = suffix(report, side);
        let name = format!("operations{suffix}");
        lines.push(over_time(report, (index, 0), name, rate));
        let name = format!("errors{suffix}");
        lines.push(over_time(report, (index, 1), name, errors));
    }
    section(out, report, "Throughput", lines, RATE);
    let mut lines = Vec::new();
    for (index, side) in report.sides.iter().enumerate() {
        let quantiles = [("p99", 0.99), ("p90", 0.9), ("p50", 0.5)];
        for (colour, (name, quantile)) in quantiles.into_iter().enumerate() {
            let value = move |side: &Interval, _: &IntervalRow| match side.latency.count() {
                0 => f64::NAN,
                _ => side.latency.quantile(quantile) as f64,
            };
            let name = format!("{name}{}", suffix(report, side));
            lines.push(over_time(report, (index, colour), name, value));
        }
    }
    section(out, report, "Latency", lines, LATENCY);
}

/// Distinguishes the lines of two sides.
fn suffix(report: &Report, side: &SideResult) -> String {
    match report.sides.len() {
        1 => String::new(),
        _ => format!(" {}", side.name),
    }
}

fn over_time(
    report: &Report,
    (index, colour): (usize, usize),
    name: String,
    value: impl Fn(&Interval, &IntervalRow) -> f64,
) -> PlotLine {
    let rows = report.series.rows.iter();
    let points = rows.filter_map(|row| {
        let at = row.start_ms as f64 / 1000.0 + row.seconds() / 2.0;
        Some((at, value(row.sides.get(index)?, row)))
    });
    PlotLine {
        name,
        is_dashed: index > 0,
        colour,
        points: points.collect(),
    }
}

/// A plot over time with the faults marked.
fn section(out: &mut String, report: &Report, title: &str, lines: Vec<PlotLine>, y: Axis) {
    let marks = report.faults.iter().map(|fault| Mark {
        from: fault.from,
        until: fault.until,
        label: fault.name.clone(),
    });
    let plot = Plot {
        title,
        lines,
        marks: marks.collect(),
        x: if report.seconds < 8.0 {
            SHORT_SECONDS
        } else {
            SECONDS
        },
        y,
    };
    let _ = write!(out, "<section><h2>{title}</h2>{}</section>", svg(&plot));
}

fn push_distribution(out: &mut String, report: &Report) {
    let mut lines = Vec::new();
    for (index, side) in report.sides.iter().enumerate() {
        for result in &side.operations {
            let name = format!("{}{}", result.operation, suffix(report, side));
            let colour = result.operation.index();
            lines.push(PlotLine {
                name,
                is_dashed: index > 0,
                colour,
                points: distribution(&result.totals),
            });
        }
    }
    let plot = Plot {
        title: "Latency distribution",
        lines,
        marks: Vec::new(),
        x: NINES,
        y: LATENCY,
    };
    let _ = write!(
        out,
        "<section><h2>Latency distribution</h2><p class=\"dim\">The share of operations that were at least as fast.</p>{}</section>",
        svg(&plot)
    );
}

/// Latency by quantile, up to the last quantile with enough operations.
fn distribution(totals: &Totals) -> Vec<(f64, f64)> {
    let total = totals.latency.count();
    let mut points = Vec::new();
    for step in 0..=50 {
        let nines = f64::from(step) / 10.0;
        let beyond = 10_f64.powf(-nines);
        if beyond * (total as f64) < 1.0 && step > 0 {
            break;
        }
        points.push((nines, totals.latency.quantile(1.0 - beyond) as f64));
    }
    points
}

const NUMBERS: &str = "<th>count</th><th>rate</th><th>errors</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>bytes</th>";

fn push_operations(out: &mut String, report: &Report, side: &SideResult) {
    let _ = write!(
        out,
        "<section><h2>Operations{}</h2><p class=\"dim\">{} · {} connections</p><div class=\"scroll\"><table><thead><tr><th>operation</th>{NUMBERS}</tr></thead><tbody>",
        escape(&suffix(report, side)),
        escape(&side.endpoint),
        count(side.connections)
    );
    for result in &side.operations {
        push_numbers(out, report, result.operation.name(), &result.totals);
    }
    push_numbers(out, report, "all", &side.all);
    out.push_str("</tbody></table></div></section>");
}

fn push_numbers(out: &mut String, report: &Report, name: &str, totals: &Totals) {
    let quantile = |quantile| micros(totals.latency.quantile(quantile) as f64);
    let class = if totals.errors > 0 {
        " class=\"bad\""
    } else {
        ""
    };
    let _ = write!(
        out,
        "<tr><td>{}</td><td>{}</td><td>{:.1}/s</td><td{class}>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        escape(name),
        count(totals.count),
        report.rate(totals),
        count(totals.errors),
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        micros(totals.latency.max() as f64),
        bytes((totals.bytes_sent + totals.bytes_received) as f64)
    );
}

fn push_added(out: &mut String, report: &Report) {
    let [target, direct] = report.sides.as_slice() else {
        return;
    };
    out.push_str("<section><h2>Added by the target</h2><div class=\"scroll\"><table><thead><tr><th></th><th>target</th><th>direct</th><th>added</th></tr></thead><tbody>");
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let (mine, theirs) = (
            target.all.latency.quantile(quantile) as f64,
            direct.all.latency.quantile(quantile) as f64,
        );
        let sign = if mine < theirs { "−" } else { "+" };
        let _ = write!(
            out,
            "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{sign}{}</td></tr>",
            micros(mine),
            micros(theirs),
            micros((mine - theirs).abs())
        );
    }
    let moved = |side: &SideResult| {
        let moved = side.all.bytes_sent + side.all.bytes_received;
        bytes_per_second(moved as f64 / report.seconds.max(0.001))
    };
    let _ = write!(
        out,
        "<tr><td>content</td><td>{}</td><td>{}</td><td></td></tr></tbody></table></div></section>",
        moved(target),
        moved(direct)
    );
}

fn push_tenants(out: &mut String, report: &Report) {
    if report.tenants.len() < 2 {
        return;
    }
    let p99 = |totals: &Totals| totals.latency.quantile(0.99);
    let tenants = || report.tenants.iter().map(|tenant| &tenant.totals);
    let (slowest, most) = (
        tenants().map(p99).max().unwrap_or(1).max(1),
        tenants()
            .map(|totals| totals.count)
            .max()
            .unwrap_or(1)
            .max(1),
    );
    out.push_str("<section><h2>Tenants</h2><div class=\"scroll\"><table><thead><tr><th>tenant</th><th>count</th><th class=\"text\"></th><th>errors</th><th>p50</th><th>p99</th><th class=\"text\"></th></tr></thead><tbody>");
    for tenant in report.tenants.iter().take(TENANTS) {
        let totals = &tenant.totals;
        let class = if totals.errors > 0 {
            " class=\"bad\""
        } else {
            ""
        };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"wide\"><span class=\"bar\" style=\"width:{:.1}%\"></span></td><td{class}>{}</td><td>{}</td><td>{}</td><td class=\"wide\"><span class=\"bar\" style=\"width:{:.1}%\"></span></td></tr>",
            escape(&tenant.name),
            count(totals.count),
            totals.count as f64 / most as f64 * 100.0,
            count(totals.errors),
            micros(totals.latency.quantile(0.5) as f64),
            micros(p99(totals) as f64),
            p99(totals) as f64 / slowest as f64 * 100.0
        );
    }
    out.push_str("</tbody></table></div>");
    if report.tenants.len() > TENANTS {
        let more = count((report.tenants.len() - TENANTS) as u64);
        let _ = write!(out, "<p class=\"dim\">and {more} more in the JSON</p>");
    }
    out.push_str("</section>");
}

fn push_proxy(out: &mut String, report: &Report) {
    let Some(proxy) = report.proxy else {
        return;
    };
    let rows = || report.series.rows.iter();
    let at = |row: &IntervalRow| row.start_ms as f64 / 1000.0 + row.seconds() / 2.0;
    let cpu = rows().filter_map(|row| {
        let share = row.proxy_cpu_ms? as f64 / row.length_ms.max(1) as f64;
        Some((at(row), share * 100.0))
    });
    let cpu = vec![PlotLine {
        name: "CPU, in % of a core".to_owned(),
        is_dashed: false,
        colour: 0,
        points: cpu.collect(),
    }];
    let percent = Axis {
        show: |share| format!("{share:.0} %"),
        steps: Steps::Decimal,
    };
    let memory = rows().filter_map(|row| Some((at(row), row.proxy_memory? as f64)));
    let memory = vec![PlotLine {
        name: "resident memory".to_owned(),
        is_dashed: false,
        colour: 0,
        points: memory.collect(),
    }];
    let amount = Axis {
        show: bytes,
        steps: Steps::Binary,
    };
    section(out, report, "CPU of the proxy", cpu, percent);
    section(out, report, "Memory of the proxy", memory, amount);
    let _ = write!(
        out,
        "<p class=\"dim\">The proxy used {} of CPU for each operation, {:.1} s in all.</p>",
        micros(proxy.cpu_micros_per_operation),
        proxy.cpu_seconds
    );
}

fn push_knee(out: &mut String, report: &Report) {
    let Some(knee) = &report.knee else {
        return;
    };
    let found = match knee.rate {
        Some(rate) => format!("{rate:.0}/s held"),
        None => "not even the first rate held".to_owned(),
    };
    let _ = write!(
        out,
        "<section><h2>Knee: {found}</h2><p class=\"dim\">bound by {}</p><div class=\"scroll\"><table><thead><tr><th>planned</th><th>done</th><th>p50</th><th>p99</th><th>errors</th><th class=\"text\">result</th></tr></thead><tbody>",
        escape(&knee.bounds.join(" or "))
    );
    for step in &knee.steps {
        let (class, result) = match &step.passed {
            None => ("good", "held".to_owned()),
            Some(bound) => ("bad", bound.clone()),
        };
        let _ = write!(
            out,
            "<tr><td>{:.0}/s</td><td>{:.0}/s</td><td>{}</td><td>{}</td><td>{:.3} %</td><td class=\"text {class}\">{}</td></tr>",
            step.rate,
            step.achieved,
            micros(step.p50 as f64),
            micros(step.p99 as f64),
            step.errors * 100.0,
            escape(&result)
        );
    }
    out.push_str("</tbody></table></div></section>");
}

fn push_faults(out: &mut String, report: &Report) {
    if report.faults.is_empty() {
        return;
    }
    out.push_str("<section><h2>Faults</h2><div class=\"scroll\"><table><thead><tr><th>fault</th><th>from</th><th>until</th><th class=\"text\">afterwards</th></tr></thead><tbody>");
    for fault in &report.faults {
        let aftermath = report.aftermath(fault);
        let _ = write!(
            out,
            "<tr><td class=\"text\">{}</td><td>{:.1} s</td><td>{:.1} s</td><td class=\"text\">{aftermath}</td></tr>",
            escape(&fault.name),
            fault.from,
            fault.until
        );
    }
    out.push_str("</tbody></table></div></section>");
}

fn push_errors(out: &mut String, report: &Report) {
    if report.sides.iter().all(|side| side.errors.is_empty()) {
        return;
    }
    out.push_str("<section><h2>Errors</h2><div class=\"scroll\"><table><thead><tr><th>error</th><th class=\"text\">operation</th><th>count</th></tr></thead><tbody>");
    for side in &report.sides {
        for error in &side.errors {
            let _ = write!(
                out,
                "<tr><td class=\"text\">{}{}</td><td class=\"text\">{}</td><td>{}</td></tr>",
                escape(&error.error),
                escape(&suffix(report, side)),
                error.operation,
                count(error.count)
            );
        }
    }
    out.push_str("</tbody></table></div></section>");
}

fn push_truth(out: &mut String, report: &Report) {
    let (truth, isolation) = (&report.truth, &report.isolation);
    out.push_str("<section><h2>Verification</h2><table><tbody>");
    for (label, number, is_bad) in findings(report) {
        let class = match (is_bad, number) {
            (true, 1..) => " class=\"bad\"",
            (true, 0) => " class=\"good\"",
            _ => "",
        };
        let _ = write!(
            out,
            "<tr><td class=\"text\">{label}</td><td{class}>{}</td></tr>",
            count(number)
        );
    }
    out.push_str("</tbody></table>");
    let examples: Vec<&String> = truth.examples.iter().chain(&isolation.examples).collect();
    if !examples.is_empty() {
        out.push_str("<ul>");
        for example in examples {
            let _ = write!(out, "<li>{}</li>", escape(example));
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>");
}

/// The results of verification, each with its count. The last field says whether a count fails the run.
fn findings(report: &Report) -> Vec<(&'static str, u64, bool)> {
    let (truth, isolation) = (&report.truth, &report.isolation);
    let mut rows = vec![
        (
            "reads that were compared byte by byte",
            truth.reads_verified,
            false,
        ),
        (
            "objects that the sweep found as written",
            truth.swept,
            false,
        ),
        (
            "uncertain: objects of failed requests may exist or not",
            truth.uncertain,
            false,
        ),
        ("reads that returned wrong bytes", truth.bad_reads, true),
        ("lost: acknowledged, but missing", truth.lost, true),
        (
            "corrupted: present, but with other bytes",
            truth.corrupted,
            true,
        ),
        (
            "phantom: present, but never acknowledged, or deleted",
            truth.phantom,
            true,
        ),
        (
            "unlisted: present, but not in the listing",
            truth.unlisted,
            true,
        ),
        (
            "unchecked: the store failed during the sweep",
            truth.unchecked,
            true,
        ),
    ];
    if isolation.probes > 0 {
        rows.push(("isolation probes", isolation.probes, false));
        rows.push((
            "probes that were refused, as required",
            isolation.refused,
            false,
        ));
        rows.push(("inconclusive", isolation.inconclusive, false));
        rows.push(("isolation probes that succeeded", isolation.holes, true));
    }
    rows
}

fn push_scenario(out: &mut String, report: &Report) {
    let mut scenario = report.scenario.clone();
    scenario.tenants.truncate(SHOWN_TENANTS);
    (scenario.json, scenario.csv, scenario.html) = (None, None, None);
    let text = toml::Table::try_from(&scenario).map(|mut table| {
        table.retain(|_, value| match value {
            toml::Value::Boolean(set) => *set,
            toml::Value::Array(values) => !values.is_empty(),
            _ => true,
        });
        serde_json::to_string_pretty(&table).unwrap_or_default()
    });
    let _ = write!(
        out,
        "<section><h2>Scenario</h2><pre>{}</pre></section>",
        escape(&text.unwrap_or_default())
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    #[test]
    fn page_has_no_scripts_and_no_external_resources() {
        let mut report = report();
        report.find_recoveries();
        report
            .truth
            .example("<img src=x onerror=alert(1)>".to_owned());
        let page = html(&report);
        for part in [
            "<script",
            "src=\"",
            "href=",
            "@import",
            "url(",
            "<img",
            "a <test>",
            "slow <down>",
        ] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(page.contains("a &lt;test&gt;") && page.contains("slow &lt;down&gt;"));
    }

    #[test]
    fn marks_faults_in_both_plots() {
        let page = html(&report());
        assert_eq!(page.matches("class=\"mark\"").count(), 2);
        assert!(page.contains("503 SlowDown") && page.contains("Latency distribution"));
    }

    #[test]
    fn closes_every_element() {
        let page = html(&report());
        for name in [
            "section", "table", "tbody", "thead", "tr", "td", "ul", "div", "svg", "main", "p",
        ] {
            let open = page.matches(&format!("<{name}>")).count()
                + page.matches(&format!("<{name} ")).count();
            assert_eq!(open, page.matches(&format!("</{name}>")).count(), "{name}");
        }
    }
}
