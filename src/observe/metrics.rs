//! Counters, and their text for Prometheus.
//!
//! Each core's thread has its own block, so a request never writes to memory that another core
//! writes to. A reader adds the blocks up; it may see a request in one counter before another.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::CacheCounters;
use crate::s3::Operation;
use crate::tenant::{EndingKeys, KEY_ENDS, KeyState};

/// The counters of the whole program.
#[derive(Debug)]
pub struct Metrics {
    cores: Box<[Arc<CoreMetrics>]>,
    credentials: Arc<CacheCounters>,
    live_keys: AtomicU64,
    program_log_lost: Arc<AtomicU64>,
    scopes: AtomicU64,
    scopes_evicted: AtomicU64,
    ended_keys: AtomicU64,
    ending_keys: [AtomicU64; KEY_ENDS.len()],
    reloads: AtomicU64,
    reloads_refused: AtomicU64,
    configurations: AtomicU64,
}

/// The counters of one core's thread, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct CoreMetrics {
    requests: [[AtomicU64; STATUSES.len() + 1]; Operation::ALL.len() + 1],
    events: [AtomicU64; EVENTS],
}

/// What is counted beside requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A response of COS named something outside the caller's grants, and was cut off.
    AnswerOutOfScope,
    /// A response of COS could not be read, could not be passed on whole, or reported a success and was
    /// none.
    AnswerUnusable,
    /// The end of a body was withheld from COS, because the body was not what the client said.
    BodyWithheld,
    /// Bytes of bodies that came from clients.
    BytesReceived,
    /// Bytes of bodies that went to clients.
    BytesSent,
    /// A request found a live temporary key.
    CacheHit,
    /// A request had to wait for a temporary key.
    CacheMiss,
    /// A client's connection ended.
    ConnectionClosed,
    /// A client's connection was accepted.
    ConnectionOpened,
    /// A connection was closed at once: its address had as many as it may.
    ConnectionRefused,
    /// hyper refused a request head that the request guard had accepted.
    HeadUnexpectedlyRefused,
    /// A tenant had as many requests under way as it may.
    LimitedConcurrency,
    /// An object or part was larger than its tenant may upload.
    LimitedObjectSize,
    /// A tenant sent requests faster than it may.
    LimitedRate,
    /// A line of the access log was lost: its reader is too slow, or gone.
    LogLineDropped,
    /// COS refused a body that did not reach it as it was sent.
    Damaged,
    /// A request's task panicked.
    Panic,
    /// A trusted proxy did not say, as `proxy_protocol` demands, whose connection it passes on.
    ProxyHeaderRefused,
    /// A request was sent to COS again.
    Retry,
    /// COS reported another digest of an object than that of what was sent.
    StoredOtherwise,
    /// A client's certificate was past its time.
    TlsCertificateExpired,
    /// A client's certificate was wrong in another way.
    TlsCertificateInvalid,
    /// A client showed no certificate, and must.
    TlsCertificateMissing,
    /// A client's certificate was not good yet.
    TlsCertificateNotYetValid,
    /// A client's certificate was on the revocation list.
    TlsCertificateRevoked,
    /// A client's certificate was of another authority.
    TlsCertificateUnknownAuthority,
    /// A client ended the handshake with an alert.
    TlsClientAlert,
    /// A client went away in the handshake.
    TlsClosed,
    /// The revocation list said nothing of a client's certificate, or was past its time.
    TlsCrlUnusable,
    /// A client offered no version, cipher or protocol that is spoken here.
    TlsIncompatible,
    /// What a client said was not TLS.
    TlsNotTls,
    /// A handshake failed for another reason.
    TlsOther,
    /// A handshake took too long.
    TlsTimeout,
    /// The connection to COS broke during a request.
    UpstreamBroken,
    /// COS answered 4xx.
    UpstreamClientError,
    /// No connection to COS could be made.
    UpstreamConnectFailed,
    /// COS answered 2xx or 3xx.
    UpstreamOk,
    /// A connection to COS was made.
    UpstreamOpened,
    /// A request went out on a connection that was there.
    UpstreamReused,
    /// COS answered 5xx.
    UpstreamServerError,
    /// COS did not answer in time.
    UpstreamTimeout,
}

/// A metric made of events: one sample for each pair of labels and event.
struct Family {
    name: &'static str,
    help: &'static str,
    samples: &'static [(&'static str, Event)],
}

const EVENTS: usize = Event::UpstreamTimeout as usize + 1;

/// The statuses that have a counter of their own, sorted; all others share one.
const STATUSES: [u16; 23] = [
    200, 201, 204, 206, 303, 304, 307, 400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 416, 500,
    501, 502, 503, 504,
];

const FAMILIES: [Family; 20] = [
    Family {
        name: "cosgate_received_bytes_total",
        help: "Bytes of bodies received from clients.",
        samples: &[("", Event::BytesReceived)],
    },
    Family {
        name: "cosgate_sent_bytes_total",
        help: "Bytes of bodies sent to clients.",
        samples: &[("", Event::BytesSent)],
    },
    Family {
        name: "cosgate_connections_total",
        help: "Connections accepted from clients.",
        samples: &[("", Event::ConnectionOpened)],
    },
    Family {
        name: "cosgate_connections_closed_total",
        help: "Connections of clients that ended.",
        samples: &[("", Event::ConnectionClosed)],
    },
    Family {
        name: "cosgate_connections_refused_total",
        help: "Connections closed at once because their address had too many.",
        samples: &[("", Event::ConnectionRefused)],
    },
    Family {
        name: "cosgate_proxy_headers_refused_total",
        help: "Connections of trusted proxies that did not begin with a header of the PROXY protocol.",
        samples: &[("", Event::ProxyHeaderRefused)],
    },
    Family {
        name: "cosgate_heads_unexpectedly_refused_total",
        help: "Connections closed because the HTTP library refused a request head that cosgate had accepted. Always 0 unless there is a defect: report it.",
        samples: &[("", Event::HeadUnexpectedlyRefused)],
    },
    Family {
        name: "cosgate_tls_handshake_failures_total",
        help: "TLS handshakes of clients that failed, by reason.",
        samples: &[
            (
                "{reason=\"certificate_expired\"}",
                Event::TlsCertificateExpired,
            ),
            (
                "{reason=\"certificate_invalid\"}",
                Event::TlsCertificateInvalid,
            ),
            (
                "{reason=\"certificate_missing\"}",
                Event::TlsCertificateMissing,
            ),
            (
                "{reason=\"certificate_not_yet_valid\"}",
                Event::TlsCertificateNotYetValid,
            ),
            (
                "{reason=\"certificate_revoked\"}",
                Event::TlsCertificateRevoked,
            ),
            (
                "{reason=\"certificate_unknown_authority\"}",
                Event::TlsCertificateUnknownAuthority,
            ),
            ("{reason=\"client_alert\"}", Event::TlsClientAlert),
            ("{reason=\"closed\"}", Event::TlsClosed),
            ("{reason=\"crl_unusable\"}", Event::TlsCrlUnusable),
            ("{reason=\"incompatible\"}", Event::TlsIncompatible),
            ("{reason=\"not_tls\"}", Event::TlsNotTls),
            ("{reason=\"other\"}", Event::TlsOther),
            ("{reason=\"timeout\"}", Event::TlsTimeout),
        ],
    },
    Family {
        name: "cosgate_upstream_calls_total",
        help: "Requests sent to COS, by outcome.",
        samples: &[
            ("{outcome=\"broken\"}", Event::UpstreamBroken),
            ("{outcome=\"client_error\"}", Event::UpstreamClientError),
            ("{outcome=\"connect_failed\"}", Event::UpstreamConnectFailed),
            ("{outcome=\"ok\"}", Event::UpstreamOk),
            ("{outcome=\"server_error\"}", Event::UpstreamServerError),
            ("{outcome=\"timeout\"}", Event::UpstreamTimeout),
        ],
    },
    Family {
        name: "cosgate_upstream_connections_total",
        help: "Connections to COS used for a request: made for it, or there already.",
        samples: &[
            ("{state=\"opened\"}", Event::UpstreamOpened),
            ("{state=\"reused\"}", Event::UpstreamReused),
        ],
    },
    Family {
        name: "cosgate_upstream_retries_total",
        help: "Requests sent to COS again.",
        samples: &[("", Event::Retry)],
    },
    Family {
        name: "cosgate_credential_cache_total",
        help: "Requests that found a live temporary key (hit) or waited for one (miss).",
        samples: &[
            ("{result=\"hit\"}", Event::CacheHit),
            ("{result=\"miss\"}", Event::CacheMiss),
        ],
    },
    Family {
        name: "cosgate_answers_out_of_scope_total",
        help: "Answers of COS that named something outside the caller's grants, and were cut off.",
        samples: &[("", Event::AnswerOutOfScope)],
    },
    Family {
        name: "cosgate_answers_unusable_total",
        help: "Answers of COS that could not be read or not be passed on whole, or that reported a success without what belongs to one.",
        samples: &[("", Event::AnswerUnusable)],
    },
    Family {
        name: "cosgate_bodies_damaged_total",
        help: "Requests that COS refused because their body did not arrive as it was sent.",
        samples: &[("", Event::Damaged)],
    },
    Family {
        name: "cosgate_bodies_withheld_total",
        help: "Uploads whose end was withheld because the body was not what the client said.",
        samples: &[("", Event::BodyWithheld)],
    },
    Family {
        name: "cosgate_stored_otherwise_total",
        help: "Uploads of which COS reported another digest than that of what was sent.",
        samples: &[("", Event::StoredOtherwise)],
    },
    Family {
        name: "cosgate_limited_requests_total",
        help: "Requests refused by their tenant's own limits.",
        samples: &[
            ("{reason=\"concurrency\"}", Event::LimitedConcurrency),
            ("{reason=\"object_size\"}", Event::LimitedObjectSize),
            ("{reason=\"rate\"}", Event::LimitedRate),
        ],
    },
    Family {
        name: "cosgate_access_log_dropped_total",
        help: "Lines of the access log that were lost.",
        samples: &[("", Event::LogLineDropped)],
    },
    Family {
        name: "cosgate_panics_total",
        help: "Requests that ended in a panic.",
        samples: &[("", Event::Panic)],
    },
];

impl Metrics {
    /// Counters for `cores` threads, at least one.
    pub fn new(cores: usize) -> Self {
        Self {
            cores: (0..cores.max(1))
                .map(|_| Arc::new(CoreMetrics::new()))
                .collect(),
            credentials: Arc::default(),
            live_keys: AtomicU64::new(0),
            program_log_lost: Arc::default(),
            scopes: AtomicU64::new(0),
            scopes_evicted: AtomicU64::new(0),
            ended_keys: AtomicU64::new(0),
            ending_keys: Default::default(),
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            configurations: AtomicU64::new(1),
        }
    }

    /// Shows what the cache of temporary keys counts, too.
    #[must_use]
    pub(crate) fn with_credentials(mut self, counters: &Arc<CacheCounters>) -> Self {
        self.credentials = Arc::clone(counters);
        self
    }

    /// Shows how many lines of the program log were lost, too.
    #[must_use]
    pub fn with_program_log(mut self, lost: &Arc<AtomicU64>) -> Self {
        self.program_log_lost = Arc::clone(lost);
        self
    }

    /// The block for the thread `index`. Threads past the last share the blocks there are.
    pub fn core(&self, index: usize) -> Arc<CoreMetrics> {
        let block = self.cores.get(index % self.cores.len());
        block.map_or_else(|| Arc::new(CoreMetrics::new()), Arc::clone)
    }

    /// Says how many temporary keys are live now.
    pub(crate) fn set_live_keys(&self, count: u64) {
        self.live_keys.store(count, Ordering::Relaxed);
    }

    /// Says how many scopes of templates are kept now, and how many have made room for others.
    pub(crate) fn set_scopes(&self, (kept, evicted): (u64, u64)) {
        self.scopes.store(kept, Ordering::Relaxed);
        self.scopes_evicted.store(evicted, Ordering::Relaxed);
    }

    /// Says how many local keys end.
    pub fn set_ending_keys(&self, keys: EndingKeys) {
        self.ended_keys.store(keys.ended, Ordering::Relaxed);
        for (own, count) in self.ending_keys.iter().zip(keys.within) {
            own.store(count, Ordering::Relaxed);
        }
    }

    /// Counts a reload: one whose configuration is used now, or one that changed nothing.
    pub fn count_reload(&self, is_taken: bool) {
        let counter = if is_taken {
            &self.reloads
        } else {
            &self.reloads_refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Says how many configurations requests have now: the present one, and older ones.
    pub fn set_configurations(&self, count: u64) {
        self.configurations.store(count, Ordering::Relaxed);
    }

    /// All counters in the Prometheus text format, version 0.0.4; `keys` are those of the identity providers.
    pub fn render(&self, keys: &[KeyState]) -> String {
        let mut text = String::with_capacity(8 * 1024);
        self.render_requests(&mut text);
        for family in &FAMILIES {
            head(&mut text, family.name, family.help, "counter");
            for (labels, event) in family.samples {
                sample(&mut text, family.name, labels, self.total(*event));
            }
        }
        self.render_credentials(&mut text);
        self.render_values(&mut text);
        self.render_labelled(&mut text);
        render_identities(&mut text, keys);
        text
    }

    fn render_values(&self, text: &mut String) {
        let closed = self.total(Event::ConnectionClosed);
        let open = self.total(Event::ConnectionOpened).saturating_sub(closed);
        let open = AtomicU64::new(open);
        for (name, help, kind, value) in [
            (
                "cosgate_connections",
                "Connections of clients now.",
                "gauge",
                &open,
            ),
            (
                "cosgate_live_keys",
                "Temporary keys that are live now.",
                "gauge",
                &self.live_keys,
            ),
            (
                "cosgate_program_log_dropped_total",
                "Lines of the program log that were lost.",
                "counter",
                &*self.program_log_lost,
            ),
            (
                "cosgate_template_scopes",
                "Scopes of templates that are kept now.",
                "gauge",
                &self.scopes,
            ),
            (
                "cosgate_template_scopes_evicted_total",
                "Scopes of templates that made room for others.",
                "counter",
                &self.scopes_evicted,
            ),
            (
                "cosgate_access_keys_ended",
                "Local access keys past their not_after.",
                "gauge",
                &self.ended_keys,
            ),
            (
                "cosgate_configurations",
                "Configurations in use: the present one, and older ones that requests began with.",
                "gauge",
                &self.configurations,
            ),
        ] {
            head(text, name, help, kind);
            sample(text, name, "", read(value));
        }
    }

    fn render_labelled(&self, text: &mut String) {
        const ENDING: &str = "cosgate_access_keys_ending";
        const RELOADS: &str = "cosgate_reloads_total";
        let help = "Local access keys whose not_after comes within this time.";
        head(text, ENDING, help, "gauge");
        for ((name, _), count) in KEY_ENDS.iter().zip(&self.ending_keys) {
            sample(text, ENDING, &format!("{{within=\"{name}\"}}"), read(count));
        }
        let help = "Reloads of the configuration, by result.";
        head(text, RELOADS, help, "counter");
        for (name, count) in [("taken", &self.reloads), ("refused", &self.reloads_refused)] {
            sample(
                text,
                RELOADS,
                &format!("{{result=\"{name}\"}}"),
                read(count),
            );
        }
    }

    /// Only pairs that occurred: most of some 500 never do.
    fn render_requests(&self, text: &mut String) {
        const NAME: &str = "cosgate_requests_total";
        head(
            text,
            NAME,
            "Requests, by operation and status of the answer.",
            "counter",
        );
        let operations = Operation::ALL.iter().map(Some).chain([None]);
        for (row, operation) in operations.enumerate() {
            let operation = operation.map_or_else(
                || "unknown".to_owned(),
                |operation| format!("{operation:?}"),
            );
            let statuses = STATUSES.iter().map(Some).chain([None]);
            for (column, status) in statuses.enumerate() {
                let count = self
                    .cores
                    .iter()
                    .filter_map(|core| core.requests.get(row)?.get(column))
                    .map(read)
                    .sum();
                if count == 0 {
                    continue;
                }
                let status = status.map_or_else(|| "other".to_owned(), u16::to_string);
                let labels = format!("{{operation=\"{operation}\",status=\"{status}\"}}");
                sample(text, NAME, &labels, count);
            }
        }
    }

    /// What the thread counts that fetches the keys.
    fn render_credentials(&self, text: &mut String) {
        const CALLS: &str = "cosgate_sts_calls_total";
        const OPENED: &str = "cosgate_sts_breaker_opened_total";
        const REJECTED: &str = "cosgate_keys_rejected_total";
        const UNOPENED: &str = "cosgate_shared_entries_unopened_total";
        const VENDED: &str = "cosgate_keys_vended_total";
        let counters = &self.credentials;
        head(text, CALLS, "Calls to STS, by result.", "counter");
        for (result, count) in [
            ("clock", &counters.sts_clock),
            ("config_wrong", &counters.sts_config_wrong),
            ("issuer_broken", &counters.sts_issuer_broken),
            ("not_allowed", &counters.sts_not_allowed),
            ("ok", &counters.sts_ok),
            ("retry", &counters.sts_retry),
        ] {
            let labels = format!("{{result=\"{result}\"}}");
            sample(text, CALLS, &labels, read(count));
        }
        head(
            text,
            REJECTED,
            "Temporary keys dropped because COS refused them.",
            "counter",
        );
        sample(text, REJECTED, "", read(&counters.rejected));
        head(
            text,
            OPENED,
            "Times that calls to STS were held back since most failed.",
            "counter",
        );
        sample(text, OPENED, "", read(&counters.breaker_opened));
        let help =
            "Shared entries of temporary keys that do not open: another cosgate has another key.";
        head(text, UNOPENED, help, "counter");
        sample(text, UNOPENED, "", read(&counters.unopened));
        head(text, VENDED, "Temporary keys handed to clients.", "counter");
        sample(text, VENDED, "", read(&counters.vended));
    }

    fn total(&self, event: Event) -> u64 {
        self.cores
            .iter()
            .filter_map(|core| core.events.get(event as usize))
            .map(read)
            .sum()
    }
}

impl CoreMetrics {
    fn new() -> Self {
        Self {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            events: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Counts a request and the status of its response; `None` for one that was not understood.
    pub fn request(&self, operation: Option<Operation>, status: StatusCode) {
        let row = operation.map_or(Operation::ALL.len(), |operation| operation as usize);
        let column = STATUSES
            .binary_search(&status.as_u16())
            .unwrap_or(STATUSES.len());
        if let Some(count) = self.requests.get(row).and_then(|row| row.get(column)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one `event`.
    pub fn count(&self, event: Event) {
        self.add(event, 1);
    }

    /// Counts `amount` of `event`: bytes.
    pub fn add(&self, event: Event, amount: u64) {
        if let Some(count) = self.events.get(event as usize) {
            count.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// Counts what COS answered to one call.
    pub(crate) fn upstream_responded(&self, status: StatusCode) {
        self.count(match status.as_u16() {
            500.. => Event::UpstreamServerError,
            400..=499 => Event::UpstreamClientError,
            _ => Event::UpstreamOk,
        });
    }
}

/// Of each identity provider whether its keys can be used, and how old they are.
fn render_identities(text: &mut String, keys: &[KeyState]) {
    const USABLE: &str = "cosgate_identity_keys_usable";
    const AGE: &str = "cosgate_identity_keys_age_seconds";
    if keys.is_empty() {
        return;
    }
    let labels = |state: &KeyState| format!("{{identity=\"{}\"}}", state.name);
    let help = "Whether tokens of the identity provider can be checked (1) or get 503 (0).";
    head(text, USABLE, help, "gauge");
    for state in keys {
        sample(text, USABLE, &labels(state), u64::from(state.usable));
    }
    let help = "Seconds since the keys of the identity provider were last read.";
    head(text, AGE, help, "gauge");
    for state in keys {
        if let Some(age) = state.age {
            sample(text, AGE, &labels(state), age.unsigned_abs());
        }
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tables_are_complete_and_in_order() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index, "{operation:?}");
        }
        assert!(STATUSES.is_sorted());
        let events: Vec<usize> = FAMILIES
            .iter()
            .flat_map(|family| family.samples)
            .map(|(_, event)| *event as usize)
            .collect();
        assert_eq!(events.len(), EVENTS);
        assert_eq!(events.iter().collect::<BTreeSet<_>>().len(), EVENTS);
    }

    #[test]
    fn adds_up_the_cores() {
        let metrics = Metrics::new(2);
        metrics
            .core(0)
            .request(Some(Operation::GetObject), StatusCode::OK);
        metrics
            .core(1)
            .request(Some(Operation::GetObject), StatusCode::OK);
        metrics
            .core(2)
            .request(Some(Operation::UploadPartCopy), StatusCode::IM_A_TEAPOT);
        metrics.core(0).request(None, StatusCode::FORBIDDEN);
        metrics.core(0).add(Event::BytesSent, 5);
        metrics.core(1).add(Event::BytesSent, 7);
        metrics.core(0).count(Event::ConnectionOpened);
        metrics.core(0).count(Event::ConnectionOpened);
        metrics.core(0).count(Event::ConnectionClosed);
        metrics
            .core(1)
            .upstream_responded(StatusCode::SERVICE_UNAVAILABLE);
        metrics.set_live_keys(3);
        metrics.set_scopes((5, 2));
        let credentials = Arc::new(CacheCounters::default());
        let metrics = metrics.with_credentials(&credentials);
        credentials.sts_ok.fetch_add(4, Ordering::Relaxed);
        credentials.rejected.fetch_add(1, Ordering::Relaxed);
        let text = metrics.render(&[]);
        for line in [
            "cosgate_requests_total{operation=\"GetObject\",status=\"200\"} 2",
            "cosgate_requests_total{operation=\"UploadPartCopy\",status=\"other\"} 1",
            "cosgate_requests_total{operation=\"unknown\",status=\"403\"} 1",
            "cosgate_sent_bytes_total 12",
            "cosgate_connections 1",
            "cosgate_live_keys 3",
            "cosgate_template_scopes 5",
            "cosgate_template_scopes_evicted_total 2",
            "cosgate_sts_calls_total{result=\"ok\"} 4",
            "cosgate_sts_calls_total{result=\"retry\"} 0",
            "cosgate_keys_rejected_total 1",
            "cosgate_upstream_calls_total{outcome=\"server_error\"} 1",
            "cosgate_upstream_calls_total{outcome=\"ok\"} 0",
            "# TYPE cosgate_live_keys gauge",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn every_line_has_the_form_of_the_prometheus_text_format() {
        let metrics = Metrics::new(1);
        metrics
            .core(0)
            .request(Some(Operation::PutObject), StatusCode::OK);
        let mut family = String::new();
        let mut seen = BTreeSet::new();
        for line in metrics.render(&[]).lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(seen.insert(family.clone()), "{family} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let kind = if family.ends_with("_total") {
                    "counter"
                } else {
                    "gauge"
                };
                assert_eq!(rest, format!("{family} {kind}"));
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let labels = series.strip_prefix(&family).unwrap();
                assert!(
                    labels.is_empty() || (labels.starts_with('{') && labels.ends_with("\"}")),
                    "{line}"
                );
                assert!(value.parse::<u64>().is_ok(), "{line}");
            }
        }
        assert_eq!(seen.len(), FAMILIES.len() + 15);
    }
}
