//! The status page: HTML for an operator's browser, on a wide screen or a phone. All text that anybody can
//! influence is escaped. `status.js` draws the charts and keeps the numbers and tables up to date.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::AdminPages;
use super::documents::{Parameters, tenant_page};
use crate::clock::wall_clock;
use crate::config::TenantConfig;
use crate::credentials::{IssuerView, KeyStatus, KeyView};
use crate::encoding::html::escape;
use crate::observe::paging::{PageOf, PageRange};
use crate::observe::{COMMIT, FEATURES, FailedRequest};
use crate::proxy::Shared;
use crate::timestamp::Timestamp;

pub(super) const STYLE: &str = include_str!("status.css");
pub(super) const SCRIPT: &str = include_str!("status.js");

/// Tenants on the page.
const TENANTS: usize = 20;
/// Failing keys on the page.
const FAILING: usize = 20;
/// Errors on the page.
const ERRORS: usize = 20;
/// Tables of the configuration on the page.
const TABLES: usize = 30;

/// The page. `parameters` choose the tenants.
pub(super) fn html(pages: &AdminPages, shared: &Shared, parameters: &Parameters) -> String {
    let now = wall_clock();
    let mut out = String::with_capacity(64 * 1024);
    push_head(&mut out, pages, shared, now);
    push_numbers(&mut out);
    push_charts(&mut out);
    push_issuers(&mut out, &shared.credentials().issuer_views());
    push_identities(&mut out, shared, now);
    push_keys(&mut out, shared, now);
    push_errors(&mut out, &shared.metrics().last_errors());
    push_tenants(&mut out, shared, parameters, now);
    push_configuration(&mut out, shared);
    out.push_str("<footer><a href=\"/tenants\">/tenants</a> <a href=\"/keys\">/keys</a> <a href=\"/config\">/config</a> <a href=\"/status.json\">/status.json</a> <a href=\"/metrics\">/metrics</a> <a href=\"/readyz?verbose\">/readyz</a></footer></main></body></html>\n");
    out
}

fn push_head(out: &mut String, pages: &AdminPages, shared: &Shared, now: Timestamp) {
    let config = shared.config();
    let (class, state) = match (shared.is_draining(), shared.credentials().has_given_key()) {
        (true, _) => ("warn", "draining"),
        (false, true) => ("good", "serving"),
        (false, false) => ("warn", "no key yet"),
    };
    let ends = pages.live.rules().certificate_end();
    let certificate = ends.map(|end| format!(" · certificate ends {end}"));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>cosgate: {listen}</title><link rel=\"stylesheet\" href=\"/status.css\"><script src=\"/status.js\" defer></script></head><body><main><header><h1>cosgate <span id=\"state\" class=\"badge {class}\">{state}</span></h1><p class=\"dim\">version {version} (commit {COMMIT}; {features}) · listens on {listen} · {tenants} tenants · up {up}{certificate} · <span id=\"live\"><noscript>without JavaScript there are no charts</noscript></span></p></header>",
        listen = escape(&config.server.listen.to_string()),
        version = env!("CARGO_PKG_VERSION"),
        features = FEATURES.join(", "),
        tenants = config.tenants.len(),
        up = span(now.since(shared.metrics().started())),
        certificate = certificate.unwrap_or_default(),
    );
}

/// `status.js` fills the numbers in.
fn push_numbers(out: &mut String) {
    out.push_str("<div class=\"cards\">");
    for (id, label) in [
        ("requests", "requests/s"),
        ("server_errors", "5xx/s"),
        ("p50", "median time"),
        ("p99", "99 % are faster"),
        ("received", "from clients"),
        ("sent", "to clients"),
        ("in_flight", "requests in flight"),
        ("connections", "client connections"),
        ("upstream", "COS connections"),
        ("keys_live", "live keys"),
    ] {
        let _ = write!(out, "<div><b id=\"n-{id}\">–</b><span>{label}</span></div>");
    }
    out.push_str("</div>");
}

fn push_charts(out: &mut String) {
    out.push_str("<div class=\"charts\">");
    for (id, title, lines) in [
        ("c-requests", "Requests per second", ["all", "4xx", "5xx"]),
        (
            "c-latency",
            "Time of requests",
            ["median", "99 %", "COS, median"],
        ),
        (
            "c-bytes",
            "Bytes per second",
            ["from clients", "to clients", ""],
        ),
    ] {
        let _ = write!(out, "<section><h2>{title}</h2><p class=\"legend\">");
        let named = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !line.is_empty());
        for (colour, line) in named {
            let _ = write!(out, "<span><i class=\"{id} c{colour}\"></i>{line}</span>");
        }
        let _ = write!(
            out,
            "</p><svg id=\"{id}\" role=\"img\" aria-label=\"{title}, the last 15 minutes\"></svg></section>"
        );
    }
    out.push_str("</div>");
}

/// The beginning of a section with a table. Each cell repeats its column's name, which a phone shows.
fn push_table(out: &mut String, id: &str, columns: &[&str]) {
    let _ = write!(out, "<table><thead><tr>");
    for column in columns {
        let _ = write!(out, "<th>{column}</th>");
    }
    let _ = write!(out, "</tr></thead><tbody id=\"{id}\">");
}

/// Each cell is one thing beside its column's name, whatever is in it.
fn push_row(out: &mut String, columns: &[&str], cells: &[String]) {
    out.push_str("<tr>");
    for (column, cell) in columns.iter().zip(cells) {
        let _ = write!(out, "<td data-label=\"{column}\"><div>{cell}</div></td>");
    }
    out.push_str("</tr>");
}

fn push_nothing(out: &mut String, columns: &[&str], text: &str) {
    let _ = write!(
        out,
        "<tr><td colspan=\"{}\" class=\"none\">{text}</td></tr>",
        columns.len()
    );
}

fn push_issuers(out: &mut String, issuers: &[IssuerView]) {
    const COLUMNS: [&str; 5] = ["issuer", "calls to STS", "waiting", "a call takes", "limit"];
    out.push_str("<section><h2>Issuers</h2>");
    push_table(out, "t-issuers", &COLUMNS);
    for issuer in issuers {
        let state = match (issuer.is_held_back, issuer.probe_in) {
            (false, _) if issuer.failing_keys > 0 => {
                badge("warn", format!("{} keys fail", issuer.failing_keys))
            }
            (false, _) => badge("good", "made"),
            (true, None) => badge("bad", "fail: the next one is a probe"),
            (true, Some(time)) => badge("bad", format!("fail: held back for {}", short(time))),
        };
        let took = match issuer.call_time {
            Duration::ZERO => "–".to_owned(),
            time => short(time),
        };
        let cells = [
            escape(&issuer.name),
            state,
            issuer.waiting.to_string(),
            took,
            format!("{}/s", issuer.calls_per_second),
        ];
        push_row(out, &COLUMNS, &cells);
    }
    if issuers.is_empty() {
        push_nothing(out, &COLUMNS, "No issuer calls STS.");
    }
    out.push_str("</tbody></table></section>");
}

fn push_identities(out: &mut String, shared: &Shared, now: Timestamp) {
    const COLUMNS: [&str; 3] = ["identity provider", "tokens", "keys read"];
    let states = shared.tenants().key_states(now);
    if states.is_empty() {
        return;
    }
    out.push_str("<section><h2>Identity providers</h2>");
    push_table(out, "t-identities", &COLUMNS);
    for state in states {
        let usable = if state.usable {
            badge("good", "are checked")
        } else {
            badge("bad", "get 503")
        };
        let age = state.age.map(|age| format!("{} ago", span(age)));
        let age = age.unwrap_or_else(|| "–".to_owned());
        push_row(out, &COLUMNS, &[escape(&state.name), usable, age]);
    }
    out.push_str("</tbody></table></section>");
}

fn push_keys(out: &mut String, shared: &Shared, now: Timestamp) {
    const COLUMNS: [&str; 5] = ["key", "issuer", "scope", "life", "last failure"];
    let counts = shared.credentials().key_counts();
    let failing = shared.credentials().failing_keys(FAILING, now);
    let _ = write!(
        out,
        "<section><h2>Temporary keys</h2><p class=\"dim\" id=\"t-key-counts\">{} live · {} refreshing · <span class=\"{}\">{} failing</span> · {} not needed yet or expired · {} permanent · <a href=\"/keys\">all as JSON</a></p>",
        counts.live,
        counts.refreshing,
        if counts.failing > 0 { "bad" } else { "" },
        counts.failing,
        counts.missing,
        counts.permanent
    );
    push_table(out, "t-keys", &COLUMNS);
    for key in &failing {
        let mut scope = key.scope.join(", ");
        if key.more_scope > 0 {
            let _ = write!(scope, " and {} more", key.more_scope);
        }
        let cells = [
            escape(&key.name),
            escape(&key.issuer),
            escape(&scope),
            life(key, now),
            escape(key.failure.as_deref().unwrap_or_default()),
        ];
        push_row(out, &COLUMNS, &cells);
    }
    if failing.is_empty() {
        push_nothing(out, &COLUMNS, "No call for a key fails.");
    }
    out.push_str("</tbody></table></section>");
}

fn push_tenants(out: &mut String, shared: &Shared, parameters: &Parameters, now: Timestamp) {
    const COLUMNS: [&str; 6] = ["tenant", "issuer", "buckets", "key", "requests", "bytes"];
    let search = parameters.get("search").unwrap_or_default();
    let range = PageRange {
        after: parameters.get("after").unwrap_or_default().to_owned(),
        limit: TENANTS,
    };
    let page = tenant_page(shared, search, &range);
    let _ = write!(
        out,
        "<section id=\"tenants\"><h2>Tenants</h2><form action=\"/#tenants\"><input type=\"search\" name=\"search\" value=\"{}\" placeholder=\"part of a name\" aria-label=\"Search tenants\"><button>Search</button></form>",
        escape(search)
    );
    push_table(out, "t-tenants", &COLUMNS);
    for (index, tenant) in &page.tenants {
        let cells = tenant_cells(shared, *index, tenant, now);
        push_row(out, &COLUMNS, &cells);
    }
    if page.tenants.is_empty() {
        push_nothing(out, &COLUMNS, "No tenant has this in its name.");
    }
    let _ = write!(
        out,
        "</tbody></table><p class=\"dim\">{} of {}",
        page.tenants.len(),
        page.found
    );
    if !range.after.is_empty() {
        let _ = write!(
            out,
            " · <a href=\"/?search={}#tenants\">first page</a>",
            encoded(search)
        );
    }
    if let Some(next) = &page.next {
        let (search, next) = (encoded(search), encoded(next));
        let _ = write!(
            out,
            " · <a href=\"/?search={search}&amp;after={next}#tenants\">next page</a>"
        );
    }
    out.push_str("</p></section>");
}

fn tenant_cells(
    shared: &Shared,
    index: usize,
    tenant: &TenantConfig,
    now: Timestamp,
) -> [String; 6] {
    let issuer = shared.config().issuers.get(tenant.issuer);
    let buckets: Vec<_> = tenant
        .grants
        .iter()
        .map(|grant| escape(&grant.name))
        .collect();
    let key = shared.credentials().key_view(index, now);
    let traffic = shared.metrics().tenant_traffic(&tenant.name);
    let (requests, bytes) = match traffic {
        None => ("–".to_owned(), "–".to_owned()),
        Some(traffic) => {
            let [.., refused, failed] = traffic.requests;
            let all: u64 = traffic.requests.iter().sum();
            let mut text = all.to_string();
            if refused > 0 {
                let _ = write!(text, ", {refused} refused");
            }
            if failed > 0 {
                let _ = write!(text, ", <span class=\"bad\">{failed} failed</span>");
            }
            let (received, sent) = (bytes(traffic.received), bytes(traffic.sent));
            (text, format!("↑ {received} ↓ {sent}"))
        }
    };
    [
        format!("<b>{}</b>", escape(&tenant.name)),
        issuer.map_or_else(String::new, |issuer| escape(&issuer.name)),
        buckets.join(", "),
        key.map_or_else(String::new, |key| life(&key, now)),
        requests,
        bytes,
    ]
}

/// How a key stands, and what is left of its life.
fn life(key: &KeyView, now: Timestamp) -> String {
    let class = match key.status {
        KeyStatus::Failing => "bad",
        KeyStatus::Live | KeyStatus::Permanent => "good",
        KeyStatus::Missing => "idle",
        KeyStatus::Refreshing => "warn",
    };
    let mut text = badge(class, key.status.as_str());
    match key.expires.map(|at| at.since(now)) {
        Some(left) if left > 0 => {
            let _ = write!(text, " <span class=\"dim\">{} left", span(left));
            let due = key.refresh.map(|at| at.since(now));
            if let Some(due) = due.filter(|due| *due > 0) {
                let _ = write!(text, ", renewed in {}", span(due));
            }
            text.push_str("</span>");
        }
        Some(_) => text.push_str(" <span class=\"dim\">expired</span>"),
        None => {}
    }
    text
}

/// Failures that are alike are one row, with the newest of them.
fn push_errors(out: &mut String, errors: &[FailedRequest]) {
    const COLUMNS: [&str; 6] = ["time", "tenant", "operation", "status", "step", "what"];
    out.push_str("<section><h2>Last errors</h2>");
    push_table(out, "t-errors", &COLUMNS);
    let mut rows: Vec<(&FailedRequest, usize)> = Vec::new();
    for error in errors {
        let has_room = rows.len() < ERRORS;
        match rows.iter_mut().find(|(row, _)| is_like(row, error)) {
            Some((_, count)) => *count += 1,
            None if has_room => rows.push((error, 1)),
            None => {}
        }
    }
    for (error, count) in rows {
        push_row(out, &COLUMNS, &error_cells(error, count));
    }
    if errors.is_empty() {
        push_nothing(out, &COLUMNS, "No request has failed.");
    }
    out.push_str("</tbody></table></section>");
}

fn is_like(one: &FailedRequest, other: &FailedRequest) -> bool {
    let kind = |of: &FailedRequest| (of.operation, of.status, of.code, of.step);
    one.tenant == other.tenant && kind(one) == kind(other)
}

fn error_cells(error: &FailedRequest, count: usize) -> [String; 6] {
    let class = if error.is_refusal { "idle" } else { "bad" };
    let code = error.code.unwrap_or("cut off");
    let operation = error.operation.map(|operation| format!("{operation:?}"));
    let times = if count > 1 {
        format!(" × {count}")
    } else {
        String::new()
    };
    [
        error.time.to_string().replace('T', " "),
        escape(error.tenant.as_deref().unwrap_or("–")),
        operation.unwrap_or_else(|| "–".to_owned()),
        badge(class, format!("{} {code}{times}", error.status)),
        error.step.map_or("–", |step| step.as_str()).to_owned(),
        format!(
            "{} <span class=\"dim\">request {}</span>",
            escape(&error.detail),
            escape(&error.request_id)
        ),
    ]
}

/// The first tables, those of the program before those of tenants.
fn push_configuration(out: &mut String, shared: &Shared) {
    let range = PageRange {
        after: String::new(),
        limit: TABLES,
    };
    let mut page = PageOf::new(&range);
    for table in shared.config().shown_tables() {
        let name = table.name.clone();
        page.offer(&name, || table);
    }
    let (tables, next) = page.finish();
    out.push_str("<section><h2>Configuration</h2><p class=\"dim\">As it is in use, with defaults. Of secrets it shows where they come from.</p>");
    for (name, table) in &tables {
        let keys = serde_json::to_string_pretty(&table.keys()).unwrap_or_default();
        let _ = write!(
            out,
            "<details><summary>[{}]</summary><pre>{}</pre></details>",
            escape(name),
            escape(&keys)
        );
    }
    if next.is_some() {
        out.push_str("<p class=\"dim\">There are more: <a href=\"/config\">all as JSON</a></p>");
    }
    out.push_str("</section>");
}

fn badge(class: &str, text: impl Display) -> String {
    format!("<span class=\"badge {class}\">{text}</span>")
}

/// A text within a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A length of time in its two largest units.
fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn short(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let digits = usize::from(unit != "B" && value < 10.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (7260, "2 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (10 << 20, "10 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_failure_shows_no_markup_of_a_stranger() {
        let script = "\"><script>alert(1)</script>";
        let failed = FailedRequest {
            time: Timestamp::from_unix(0),
            request_id: script.to_owned(),
            tenant: Some(script.to_owned()),
            operation: None,
            status: 500,
            code: None,
            step: None,
            detail: script.to_owned(),
            is_refusal: false,
        };
        let mut page = String::new();
        push_errors(&mut page, &[failed.clone(), failed]);
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 3, "{page}");
        assert!(page.contains("500 cut off × 2"), "they are alike: {page}");
        assert_eq!(encoded("a/b&<ü"), "a%2Fb%26%3C%C3%BC");
    }
}
