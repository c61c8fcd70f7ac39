//! The metrics as text: what is counted, and what is found out when they are read.

mod families;

use super::exposition::{Exposition, MetricKind, TextFormat, escaped};
use super::histogram::{Histogram, HistogramTotal};
use super::metrics::{CLASSES, Metrics, OPERATIONS, RequestTimes, STATUSES, read};
use super::process_stats::ProcessStats;
use crate::decision::Step;
use crate::error::Code;
use crate::s3::Operation;
use crate::tenant::{EndingKeys, KEY_ENDS, KeyState};
use crate::timestamp::Timestamp;
use families::FAMILIES;

/// What nobody counts: it is found out when the metrics are read.
#[derive(Clone, Debug, Default)]
pub struct MetricsView {
    /// The keys of identity providers.
    pub identities: Vec<KeyState>,
    /// Each issuer that calls STS, and whether its calls are held back because they fail.
    pub issuers: Vec<(String, bool)>,
    /// Temporary keys that are live.
    pub live_keys: u64,
    /// When the first of them ends.
    pub first_key_end: Option<Timestamp>,
    /// Scopes that were made for requests: those that are kept, and those that made room for others.
    pub scopes: (u64, u64),
    /// Local keys with an end.
    pub ending_keys: EndingKeys,
    /// The end of the certificate that cosgate shows.
    pub certificate_end: Option<Timestamp>,
    /// The Redis through which limits are shared; `None`: they are not.
    pub shared_limits: Option<SharedLimitsView>,
}

/// The Redis through which limits are shared.
#[derive(Clone, Copy, Debug, Default)]
pub struct SharedLimitsView {
    /// Each replica keeps to its own limits.
    pub is_away: bool,
    /// Calls that had a result.
    pub calls_ok: u64,
    /// Calls that had none.
    pub calls_failed: u64,
}

impl Metrics {
    /// All metrics, with `view`, as text.
    pub fn render(&self, view: &MetricsView, format: TextFormat) -> String {
        let mut text = Exposition::new(format);
        self.render_requests(&mut text);
        self.render_times(&mut text);
        self.render_errors(&mut text);
        self.render_tenants(&mut text);
        for family in &FAMILIES {
            text.family(family.name, family.help, MetricKind::Counter);
            for (labels, event) in family.samples {
                text.sample(labels, self.total(*event));
            }
        }
        self.render_credentials(&mut text);
        self.render_values(&mut text, view);
        self.render_labelled(&mut text, view);
        render_shared_limits(&mut text, view.shared_limits.as_ref());
        render_identities(&mut text, &view.identities);
        self.render_process(&mut text);
        text.finish()
    }

    fn render_values(&self, text: &mut Exposition, view: &MetricsView) {
        let [open, in_flight, to_upstream] = self.open_now();
        for (name, help, kind, value) in [
            (
                "cosgate_connections",
                "Connections of clients now.",
                MetricKind::Gauge,
                open,
            ),
            (
                "cosgate_requests_in_flight",
                "Requests whose response has not ended.",
                MetricKind::Gauge,
                in_flight,
            ),
            (
                "cosgate_upstream_open_connections",
                "Connections to COS now, idle ones included.",
                MetricKind::Gauge,
                to_upstream,
            ),
            (
                "cosgate_live_keys",
                "Temporary keys that are live now.",
                MetricKind::Gauge,
                view.live_keys,
            ),
            (
                "cosgate_program_log_dropped_total",
                "Lines of the program log that were lost.",
                MetricKind::Counter,
                read(&self.program_log_lost),
            ),
            (
                "cosgate_template_scopes",
                "Scopes of templates that are kept now.",
                MetricKind::Gauge,
                view.scopes.0,
            ),
            (
                "cosgate_template_scopes_evicted_total",
                "Scopes of templates that made room for others.",
                MetricKind::Counter,
                view.scopes.1,
            ),
            (
                "cosgate_access_keys_ended",
                "Local access keys past their not_after.",
                MetricKind::Gauge,
                view.ending_keys.ended,
            ),
        ] {
            text.single(name, help, kind, value);
        }
    }

    fn render_labelled(&self, text: &mut Exposition, view: &MetricsView) {
        let help = "Local access keys whose not_after comes within this time.";
        text.family("cosgate_access_keys_ending", help, MetricKind::Gauge);
        for ((name, _), count) in KEY_ENDS.iter().zip(view.ending_keys.within) {
            text.sample(&format!("{{within=\"{name}\"}}"), count);
        }
        let help = "Spans of recorded requests, by what became of them.";
        text.family("cosgate_trace_spans_total", help, MetricKind::Counter);
        let spans = &self.traces;
        for (name, count) in [
            ("not_sent", &spans.not_sent),
            ("queue_full", &spans.queue_full),
            ("refused", &spans.refused),
            ("sent", &spans.sent),
        ] {
            text.sample(&format!("{{result=\"{name}\"}}"), read(count));
        }
        let help =
            "Configurations in use: the present one, and older ones that requests began with.";
        let count = read(&self.configurations);
        text.single("cosgate_configurations", help, MetricKind::Gauge, count);
        let help = "Reloads of the configuration, by result.";
        text.family("cosgate_reloads_total", help, MetricKind::Counter);
        for (name, count) in [("taken", &self.reloads), ("refused", &self.reloads_refused)] {
            text.sample(&format!("{{result=\"{name}\"}}"), read(count));
        }
        if let Some(end) = view.first_key_end {
            let help = "When the first of the live temporary keys ends, in seconds since 1970.";
            let name = "cosgate_live_key_not_after_seconds";
            text.single(name, help, MetricKind::Gauge, end.unix());
        }
        if let Some(end) = view.certificate_end {
            let help =
                "When the certificate that cosgate shows to clients ends, in seconds since 1970.";
            let name = "cosgate_certificate_not_after_seconds";
            text.single(name, help, MetricKind::Gauge, end.unix());
        }
        if !view.issuers.is_empty() {
            let help = "Whether calls of the issuer fail and are held back (1).";
            text.family("cosgate_sts_breaker_open", help, MetricKind::Gauge);
            for (issuer, is_open) in &view.issuers {
                let issuer = escaped(issuer);
                text.sample(&format!("{{issuer=\"{issuer}\"}}"), u64::from(*is_open));
            }
        }
    }

    /// Each pair of operation and status that occurred: most of some 1,500 never do.
    fn each_status(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let pairs =
            (0..OPERATIONS).flat_map(|row| (0..=STATUSES.len()).map(move |column| (row, column)));
        pairs.filter_map(|(row, column)| {
            let count = self.sum(|core| core.status_count(row, column));
            (count > 0).then_some((row, column, count))
        })
    }

    fn render_requests(&self, text: &mut Exposition) {
        let help = "Requests, by operation and status of the response.";
        text.family("cosgate_requests_total", help, MetricKind::Counter);
        for (row, column, count) in self.each_status() {
            let status = STATUSES.get(column);
            let status = status.map_or_else(|| "other".to_owned(), u16::to_string);
            let operation = operation_name(row);
            text.sample(
                &format!("{{operation=\"{operation}\",status=\"{status}\"}}"),
                count,
            );
        }
    }

    /// Only what occurred, too.
    fn render_times(&self, text: &mut Exposition) {
        self.render_request_times(
            text,
            "cosgate_request_duration_seconds",
            "Time from a request's head to the last byte of its response, by operation and class of the status.",
            |times| &times.whole,
        );
        self.render_request_times(
            text,
            "cosgate_time_to_first_byte_seconds",
            "Time from a request's head to the head of COS's response, by operation and class of the status.",
            |times| &times.first_byte,
        );
        self.render_request_times(
            text,
            "cosgate_upstream_duration_seconds",
            "Time that COS took for the head of its response, tries before it included, by operation and class of the status.",
            |times| &times.upstream,
        );
        let help = "Time that requests waited for a temporary key that was not there.";
        text.family("cosgate_key_wait_seconds", help, MetricKind::Histogram);
        text.histogram("", &self.histogram(|core| Some(core.key_wait())));
        let help = "Time that calls to STS took, failed ones included.";
        text.family(
            "cosgate_sts_call_duration_seconds",
            help,
            MetricKind::Histogram,
        );
        let calls = HistogramTotal::of([&self.credentials.sts_time].into_iter());
        text.histogram("", &calls);
    }

    fn render_request_times(
        &self,
        text: &mut Exposition,
        name: &'static str,
        help: &str,
        of: impl Fn(&RequestTimes) -> &Histogram,
    ) {
        text.family(name, help, MetricKind::Histogram);
        for row in 0..OPERATIONS {
            for (class, class_name) in CLASSES.iter().enumerate() {
                let total = self.histogram(|core| core.request_times(row, class).map(&of));
                let operation = operation_name(row);
                let labels = format!("operation=\"{operation}\",class=\"{class_name}\"");
                push_if_any(text, &labels, &total);
            }
        }
    }

    fn render_errors(&self, text: &mut Exposition) {
        let help = "Requests that failed, by the step and the code of the error. Failed proofs are step authenticate.";
        text.family("cosgate_errors_total", help, MetricKind::Counter);
        for step in Step::ALL {
            for code in Code::ALL {
                let count = self.sum(|core| core.error_count(step, *code));
                if count > 0 {
                    let (step, code) = (step.as_str(), code.as_str());
                    text.sample(&format!("{{step=\"{step}\",code=\"{code}\"}}"), count);
                }
            }
        }
    }

    fn render_tenants(&self, text: &mut Exposition) {
        let tenants = self.tenants();
        let help = "Requests of identified callers, by tenant and class of the status.";
        text.family("cosgate_tenant_requests_total", help, MetricKind::Counter);
        for (tenant, slot) in &tenants {
            let tenant = escaped(tenant);
            for (class, name) in CLASSES.iter().enumerate() {
                let count = self.sum(|core| core.tenant_requests(*slot, class));
                if count > 0 {
                    text.sample(&format!("{{tenant=\"{tenant}\",class=\"{name}\"}}"), count);
                }
            }
        }
        for (index, (name, help)) in TENANT_FAMILIES.into_iter().enumerate() {
            text.family(name, help, MetricKind::Counter);
            for (tenant, slot) in &tenants {
                let count = self.sum(|core| core.tenant_totals(*slot)?.get(index).copied());
                if count > 0 {
                    text.sample(&format!("{{tenant=\"{}\"}}", escaped(tenant)), count);
                }
            }
        }
    }

    /// What the thread counts that fetches the keys.
    fn render_credentials(&self, text: &mut Exposition) {
        let counters = &self.credentials;
        let help = "Calls to STS, by result.";
        text.family("cosgate_sts_calls_total", help, MetricKind::Counter);
        for (result, count) in [
            ("clock", &counters.sts_clock),
            ("config_wrong", &counters.sts_config_wrong),
            ("issuer_broken", &counters.sts_issuer_broken),
            ("not_allowed", &counters.sts_not_allowed),
            ("ok", &counters.sts_ok),
            ("retry", &counters.sts_retry),
        ] {
            text.sample(&format!("{{result=\"{result}\"}}"), read(count));
        }
        for (name, help, count) in [
            (
                "cosgate_keys_rejected_total",
                "Temporary keys dropped because COS refused them.",
                &counters.rejected,
            ),
            (
                "cosgate_sts_breaker_opened_total",
                "Times that calls to STS were held back since most failed.",
                &counters.breaker_opened,
            ),
            (
                "cosgate_shared_entries_unopened_total",
                "Shared entries of temporary keys that do not open: another cosgate has another key.",
                &counters.unopened,
            ),
            (
                "cosgate_keys_vended_total",
                "Temporary keys handed to clients.",
                &counters.vended,
            ),
        ] {
            text.single(name, help, MetricKind::Counter, read(count));
        }
    }

    fn render_process(&self, text: &mut Exposition) {
        let version = env!("CARGO_PKG_VERSION");
        let features = FEATURES.join("+");
        let help = "1; the labels say what was built.";
        text.family("cosgate_build_info", help, MetricKind::Gauge);
        text.sample(
            &format!("{{version=\"{version}\",commit=\"{COMMIT}\",features=\"{features}\"}}"),
            1,
        );
        let help = "When the process started, in seconds since 1970.";
        let name = "process_start_time_seconds";
        text.single(name, help, MetricKind::Gauge, self.started.unix());
        let Some(stats) = ProcessStats::read() else {
            return;
        };
        let help = "CPU time of the process, user and system.";
        let name = "process_cpu_seconds_total";
        text.single(name, help, MetricKind::Counter, stats.cpu_seconds);
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM.",
                stats.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Address space of the process.",
                stats.virtual_bytes,
            ),
            (
                "process_open_fds",
                "File descriptors that are open.",
                stats.open_descriptors,
            ),
            (
                "process_max_fds",
                "Limit of file descriptors.",
                stats.max_descriptors,
            ),
            ("process_threads", "Threads of the process.", stats.threads),
        ] {
            text.single(name, help, MetricKind::Gauge, value);
        }
    }
}

/// The commit that this is built from, or `unknown`.
pub const COMMIT: &str = env!("COSGATE_COMMIT");

/// What is optional in this build.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "emulator")]
    "emulator",
    #[cfg(feature = "load")]
    "load",
    #[cfg(feature = "otel")]
    "otel",
];

/// In the order of [`CoreMetrics::tenant_totals`].
const TENANT_FAMILIES: [(&str, &str); 3] = [
    (
        "cosgate_tenant_received_bytes_total",
        "Bytes of bodies received from clients, by tenant.",
    ),
    (
        "cosgate_tenant_sent_bytes_total",
        "Bytes of bodies sent to clients, by tenant.",
    ),
    (
        "cosgate_tenant_limited_requests_total",
        "Requests refused by the limits of their tenant.",
    ),
];

fn operation_name(row: usize) -> String {
    let operation = Operation::ALL.get(row);
    operation.map_or_else(
        || "unknown".to_owned(),
        |operation| format!("{operation:?}"),
    )
}

fn push_if_any(text: &mut Exposition, labels: &str, total: &HistogramTotal) {
    if total.count() > 0 {
        text.histogram(labels, total);
    }
}

/// How the Redis does through which limits are shared, where there is one.
fn render_shared_limits(text: &mut Exposition, view: Option<&SharedLimitsView>) {
    let Some(view) = view else { return };
    let help =
        "1 if the Redis of shared limits responds; 0 while each cosgate keeps to its own limits.";
    let name = "cosgate_shared_limits_up";
    text.single(name, help, MetricKind::Gauge, u8::from(!view.is_away));
    let help = "Calls of the Redis for shared limits, by result.";
    let name = "cosgate_shared_limit_calls_total";
    text.family(name, help, MetricKind::Counter);
    for (result, count) in [("failed", view.calls_failed), ("ok", view.calls_ok)] {
        text.sample(&format!("{{result=\"{result}\"}}"), count);
    }
}

/// Of each identity provider whether its keys can be used, and how old they are.
fn render_identities(text: &mut Exposition, keys: &[KeyState]) {
    if keys.is_empty() {
        return;
    }
    let labels = |state: &KeyState| format!("{{identity=\"{}\"}}", escaped(&state.name));
    let help = "Whether tokens of the identity provider can be checked (1) or get 503 (0).";
    text.family("cosgate_identity_keys_usable", help, MetricKind::Gauge);
    for state in keys {
        text.sample(&labels(state), u64::from(state.usable));
    }
    let help = "Seconds since the keys of the identity provider were last read.";
    text.family("cosgate_identity_keys_age_seconds", help, MetricKind::Gauge);
    for state in keys {
        if let Some(age) = state.age {
            text.sample(&labels(state), age.unsigned_abs());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::super::metrics::Event;
    use super::super::{CacheCounters, EndedRequest};
    use super::*;

    fn ended(operation: Option<Operation>, status: StatusCode) -> EndedRequest {
        EndedRequest {
            operation,
            status,
            error: None,
            duration: Duration::from_millis(3),
            first_byte: None,
            upstream: None,
            received: 0,
            sent: 0,
            is_limited: false,
            tenant: None,
        }
    }

    /// Two cores, on which something of each kind has happened.
    fn used() -> Metrics {
        let metrics = Metrics::with_tenants(2, 1);
        let slots = metrics.tenant_slots(["acme", "globex"].into_iter());
        assert_eq!(*slots, [0, 1]);
        for core in [0, 1] {
            metrics.core(core).request(&EndedRequest {
                first_byte: Some(Duration::from_millis(2)),
                upstream: Some(Duration::from_millis(1)),
                sent: 5 + 2 * core as u64,
                tenant: Some(slots[0]),
                ..ended(Some(Operation::GetObject), StatusCode::OK)
            });
        }
        let teapot = ended(Some(Operation::UploadPartCopy), StatusCode::IM_A_TEAPOT);
        metrics.core(2).request(&teapot);
        metrics.core(0).request(&EndedRequest {
            error: Some((Step::Authenticate, Code::SignatureDoesNotMatch)),
            ..ended(None, StatusCode::FORBIDDEN)
        });
        metrics.core(1).request(&EndedRequest {
            error: Some((Step::Limit, Code::SlowDown)),
            is_limited: true,
            tenant: Some(slots[1]),
            ..ended(Some(Operation::PutObject), StatusCode::SERVICE_UNAVAILABLE)
        });
        for _ in 0..6 {
            metrics.core(0).count(Event::RequestStarted);
        }
        metrics.core(0).count(Event::ConnectionOpened);
        metrics.core(0).count(Event::ConnectionOpened);
        metrics.core(0).count(Event::ConnectionClosed);
        metrics.core(1).waited_for_key(Duration::from_millis(40));
        metrics
            .core(1)
            .upstream_responded(StatusCode::SERVICE_UNAVAILABLE);
        let credentials = Arc::new(CacheCounters::default());
        let metrics = metrics.with_credentials(&credentials);
        credentials.sts_ok.fetch_add(4, Ordering::Relaxed);
        credentials.rejected.fetch_add(1, Ordering::Relaxed);
        credentials.sts_time.observe(Duration::from_millis(70));
        metrics
    }

    fn view() -> MetricsView {
        MetricsView {
            live_keys: 3,
            first_key_end: Some(Timestamp::from_unix(1_700_000_000)),
            scopes: (5, 2),
            issuers: vec![("main".to_owned(), false), ("spare".to_owned(), true)],
            certificate_end: Some(Timestamp::from_unix(1_800_000_000)),
            ..MetricsView::default()
        }
    }

    #[test]
    fn adds_up_the_cores() {
        let text = used().render(&view(), TextFormat::Prometheus);
        for line in [
            "cosgate_requests_total{operation=\"GetObject\",status=\"200\"} 2",
            "cosgate_requests_total{operation=\"UploadPartCopy\",status=\"other\"} 1",
            "cosgate_requests_total{operation=\"unknown\",status=\"403\"} 1",
            "cosgate_requests_in_flight 1",
            "cosgate_request_duration_seconds_bucket{operation=\"GetObject\",class=\"2xx\",le=\"0.0025\"} 0",
            "cosgate_request_duration_seconds_bucket{operation=\"GetObject\",class=\"2xx\",le=\"0.005\"} 2",
            "cosgate_request_duration_seconds_bucket{operation=\"GetObject\",class=\"2xx\",le=\"+Inf\"} 2",
            "cosgate_request_duration_seconds_sum{operation=\"GetObject\",class=\"2xx\"} 0.006000",
            "cosgate_request_duration_seconds_count{operation=\"GetObject\",class=\"2xx\"} 2",
            "cosgate_time_to_first_byte_seconds_count{operation=\"GetObject\",class=\"2xx\"} 2",
            "cosgate_upstream_duration_seconds_sum{operation=\"GetObject\",class=\"2xx\"} 0.002000",
            "cosgate_key_wait_seconds_bucket{le=\"0.05\"} 1",
            "cosgate_sts_call_duration_seconds_count 1",
            "cosgate_errors_total{step=\"authenticate\",code=\"SignatureDoesNotMatch\"} 1",
            "cosgate_errors_total{step=\"limit\",code=\"SlowDown\"} 1",
            "cosgate_tenant_requests_total{tenant=\"acme\",class=\"2xx\"} 2",
            "cosgate_tenant_requests_total{tenant=\"other\",class=\"5xx\"} 1",
            "cosgate_tenant_sent_bytes_total{tenant=\"acme\"} 12",
            "cosgate_tenant_limited_requests_total{tenant=\"other\"} 1",
            "cosgate_sent_bytes_total 12",
            "cosgate_connections 1",
            "cosgate_live_keys 3",
            "cosgate_template_scopes 5",
            "cosgate_template_scopes_evicted_total 2",
            "cosgate_sts_calls_total{result=\"ok\"} 4",
            "cosgate_sts_calls_total{result=\"retry\"} 0",
            "cosgate_sts_breaker_open{issuer=\"main\"} 0",
            "cosgate_sts_breaker_open{issuer=\"spare\"} 1",
            "cosgate_live_key_not_after_seconds 1700000000",
            "cosgate_certificate_not_after_seconds 1800000000",
            "cosgate_keys_rejected_total 1",
            "cosgate_upstream_calls_total{outcome=\"server_error\"} 1",
            "cosgate_upstream_calls_total{outcome=\"ok\"} 0",
            "# TYPE cosgate_live_keys gauge",
            "# TYPE cosgate_key_wait_seconds histogram",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn tenants_keep_their_slots_over_reloads_and_no_more_get_one() {
        let metrics = Metrics::with_tenants(1, 2);
        assert_eq!(
            *metrics.tenant_slots(["a", "b", "c"].into_iter()),
            [0, 1, 2]
        );
        assert_eq!(*metrics.tenant_slots(["c", "b"].into_iter()), [2, 1]);
        let none = Metrics::with_tenants(1, 0);
        assert_eq!(*none.tenant_slots(["a"].into_iter()), [0]);
        none.core(0).request(&EndedRequest {
            tenant: Some(0),
            ..ended(None, StatusCode::OK)
        });
        let text = none.render(&MetricsView::default(), TextFormat::Prometheus);
        assert!(text.contains("cosgate_tenant_requests_total{tenant=\"other\",class=\"2xx\"} 1\n"));
    }

    #[test]
    fn every_line_has_the_form_of_its_format() {
        for format in [TextFormat::Prometheus, TextFormat::OpenMetrics] {
            let text = used().render(&view(), format);
            let is_open = format == TextFormat::OpenMetrics;
            assert_eq!(text.ends_with("\n# EOF\n"), is_open);
            let (mut family, mut kind) = (String::new(), String::new());
            let mut seen = BTreeSet::new();
            for line in text.trim_end_matches("# EOF\n").lines() {
                if let Some(rest) = line.strip_prefix("# HELP ") {
                    family = rest.split(' ').next().unwrap().to_owned();
                    assert!(seen.insert(family.clone()), "{family} twice");
                } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                    kind = rest.strip_prefix(&family).unwrap().trim().to_owned();
                    let is_counter = kind == "counter";
                    assert_eq!(
                        family.ends_with("_total"),
                        is_counter && !is_open,
                        "{family}"
                    );
                } else {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let rest = series.strip_prefix(&family).unwrap();
                    let end = rest.find('{').unwrap_or(rest.len());
                    let (suffix, labels) = rest.split_at(end);
                    let suffixes: &[&str] = match (kind.as_str(), is_open) {
                        ("counter", true) => &["_total"],
                        ("histogram", _) => &["_bucket", "_sum", "_count"],
                        _ => &[""],
                    };
                    assert!(suffixes.contains(&suffix), "{line}");
                    assert!(
                        labels.is_empty() || (labels.starts_with('{') && labels.ends_with("\"}")),
                        "{line}"
                    );
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                }
            }
            assert!(seen.len() > FAMILIES.len() + 25, "{}", seen.len());
        }
    }
}
