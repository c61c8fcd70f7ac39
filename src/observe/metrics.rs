//! Counters and histograms; `metrics_text` writes them out.
//!
//! Each core's thread has its own block, so a request never writes to memory that another core
//! writes to. A reader adds the blocks up; it may see a request in one counter before another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::CacheCounters;
use super::histogram::{Histogram, HistogramTotal};
use super::history::ProgramTotals;
use super::last_errors::{FailedRequest, LastErrors};
use super::request_trace::TraceCounters;
use crate::clock::wall_clock;
use crate::decision::Step;
use crate::error::Code;
use crate::s3::Operation;
use crate::timestamp::Timestamp;

/// The counters of the whole program.
#[derive(Debug)]
pub struct Metrics {
    pub(super) cores: Box<[Arc<CoreMetrics>]>,
    pub(super) credentials: Arc<CacheCounters>,
    pub(super) program_log_lost: Arc<AtomicU64>,
    pub(super) traces: Arc<TraceCounters>,
    pub(super) reloads: AtomicU64,
    pub(super) reloads_refused: AtomicU64,
    pub(super) configurations: AtomicU64,
    pub(super) started: Timestamp,
    /// The tenants that have counters of their own, at their slots.
    tenants: Mutex<HashMap<String, usize>>,
    own_tenants: usize,
}

/// The counters of one core's thread, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct CoreMetrics {
    requests: [[AtomicU64; STATUSES.len() + 1]; OPERATIONS],
    events: [AtomicU64; EVENTS],
    times: Box<[OperationTimes]>,
    key_wait: Histogram,
    /// For each step, each code.
    errors: Box<[[AtomicU64; Code::ALL.len()]]>,
    /// At the slots of tenants; the last is all others'.
    tenants: Box<[TenantCounters]>,
    last_errors: LastErrors,
}

/// How long the requests for one operation took, for each of [`CLASSES`].
type OperationTimes = [RequestTimes; CLASSES.len()];

/// How long requests took.
#[derive(Debug, Default)]
pub(super) struct RequestTimes {
    /// From the head to the response's last byte.
    pub(super) whole: Histogram,
    /// To the head of COS's response.
    pub(super) first_byte: Histogram,
    /// COS alone.
    pub(super) upstream: Histogram,
}

/// What is counted for one tenant.
#[derive(Debug, Default)]
struct TenantCounters {
    /// For each of [`CLASSES`].
    requests: [AtomicU64; CLASSES.len()],
    received: AtomicU64,
    sent: AtomicU64,
    limited: AtomicU64,
}

/// A request that has ended, as it is counted.
#[derive(Debug)]
pub struct EndedRequest {
    /// `None`: it was not understood.
    pub operation: Option<Operation>,
    /// Of the response.
    pub status: StatusCode,
    /// Where it failed, and with which code.
    pub error: Option<(Step, Code)>,
    /// From its head to the response's last byte.
    pub duration: Duration,
    /// From its head to the head of COS's response; `None`: COS did not respond.
    pub first_byte: Option<Duration>,
    /// How long COS took for the head of its response.
    pub upstream: Option<Duration>,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// It was refused by its tenant's own limits.
    pub is_limited: bool,
    /// [`Metrics::tenant_slots`] gives it; `None`: nobody was identified.
    pub tenant: Option<usize>,
}

/// What one tenant's requests have been.
#[derive(Clone, Copy, Debug, Default)]
pub struct TenantTraffic {
    /// By the class of the status: 1xx to 5xx.
    pub requests: [u64; CLASSES.len()],
    /// Bytes of bodies from its clients.
    pub received: u64,
    /// Bytes of bodies to its clients.
    pub sent: u64,
    /// Requests that its own limits refused.
    pub limited: u64,
}

/// The classes of statuses that times and tenants are counted by.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// The rows of operations; the last is of requests that were not understood.
pub(super) const OPERATIONS: usize = Operation::ALL.len() + 1;
/// Tenants with counters of their own, where nothing else is configured.
const OWN_TENANTS: usize = 100;

/// What is counted beside requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Accepting paused: there were as many connections as there may be.
    AcceptPausedConnections,
    /// Accepting paused: file descriptors were scarce.
    AcceptPausedDescriptors,
    /// A response of COS named something outside the caller's grants, and was cut off.
    ResponseOutOfScope,
    /// A response of COS could not be read, could not be passed on whole, or reported a success and was
    /// none.
    ResponseUnusable,
    /// The end of a body was withheld from COS, because the body was not what the client declared.
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
    ConnectionRefusedAddress,
    /// The same of its network.
    ConnectionRefusedNetwork,
    /// A request head's framing was ambiguous.
    HeadFraming,
    /// A request target had a `#`.
    HeadFragment,
    /// A request head was not HTTP/1.
    HeadMalformed,
    /// h2 refused a request head, and reset its stream.
    HeadOfHttp2,
    /// A client sent nothing while a head was expected.
    HeadSilent,
    /// A request target was too long.
    HeadTargetTooLong,
    /// A request head did not arrive in time.
    HeadTimeout,
    /// A request head was too large.
    HeadTooLarge,
    /// hyper refused a request head that the request guard had accepted.
    HeadUnexpectedlyRefused,
    /// An HTTP/2 client reset too many streams, or sent too much of what costs more to take than to send.
    Http2Flood,
    /// An HTTP/2 client did not respond to a ping.
    Http2PingTimeout,
    /// An HTTP/2 client did what the protocol does not allow.
    Http2Protocol,
    /// A tenant had as many requests in flight as it may.
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
    /// A request began.
    RequestStarted,
    /// A trusted proxy sent an address that is none.
    ProxyHeaderAddress,
    /// A trusted proxy sent a wrong checksum.
    ProxyHeaderChecksum,
    /// A trusted proxy closed the connection within its PROXY header.
    ProxyHeaderClosed,
    /// A trusted proxy sent an unknown command.
    ProxyHeaderCommand,
    /// A PROXY header could not be read from its socket.
    ProxyHeaderFailed,
    /// A trusted proxy sent a malformed PROXY header.
    ProxyHeaderMalformed,
    /// A trusted proxy sent no PROXY header, as `proxy_protocol` demands.
    ProxyHeaderMissing,
    /// A PROXY header did not arrive in time.
    ProxyHeaderTimeout,
    /// A trusted proxy sent a PROXY header that is too long.
    ProxyHeaderTooLong,
    /// A request was sent to COS again.
    Retry,
    /// The rate that replicas share decided about a request.
    SharedLimitDecided,
    /// The replica's own rate decided about a request, since the Redis had not responded.
    SharedLimitFallback,
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
    /// The revocation list had nothing on a client's certificate, or was past its time.
    TlsCrlUnusable,
    /// A client offered no version, cipher or protocol that is spoken here.
    TlsIncompatible,
    /// What a client sent was not TLS.
    TlsNotTls,
    /// A handshake failed for another reason.
    TlsOther,
    /// A handshake took too long.
    TlsTimeout,
    /// The connection to COS broke during a request.
    UpstreamBroken,
    /// COS returned 4xx.
    UpstreamClientError,
    /// No connection to COS could be made.
    UpstreamConnectFailed,
    /// A connection to COS ended.
    UpstreamClosed,
    /// COS returned 2xx or 3xx.
    UpstreamOk,
    /// A connection to COS was made.
    UpstreamOpened,
    /// A request went out on a connection that was there.
    UpstreamReused,
    /// COS returned 5xx.
    UpstreamServerError,
    /// COS did not respond in time.
    UpstreamTimeout,
}

pub(super) const EVENTS: usize = Event::UpstreamTimeout as usize + 1;

/// The statuses that have a counter of their own, sorted; all others share one.
pub(super) const STATUSES: [u16; 23] = [
    200, 201, 204, 206, 303, 304, 307, 400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 416, 500,
    501, 502, 503, 504,
];

impl Metrics {
    /// Counters for `cores` threads, at least one.
    pub fn new(cores: usize) -> Self {
        Self::with_tenants(cores, OWN_TENANTS)
    }

    /// The same, where so many tenants have counters of their own.
    pub fn with_tenants(cores: usize, own_tenants: usize) -> Self {
        Self {
            cores: (0..cores.max(1))
                .map(|_| Arc::new(CoreMetrics::new(own_tenants)))
                .collect(),
            credentials: Arc::default(),
            program_log_lost: Arc::default(),
            traces: Arc::default(),
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            configurations: AtomicU64::new(1),
            started: wall_clock(),
            tenants: Mutex::default(),
            own_tenants,
        }
    }

    /// The slots of tenants of these names, in their order. The first that come get counters of their own and
    /// keep them over reloads; all others share the last slot.
    pub(crate) fn tenant_slots<'a>(&self, names: impl Iterator<Item = &'a str>) -> Box<[usize]> {
        let mut slots = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = |name: &str| match slots.get(name) {
            Some(slot) => *slot,
            None if slots.len() < self.own_tenants => {
                let slot = slots.len();
                slots.insert(name.to_owned(), slot);
                slot
            }
            None => self.own_tenants,
        };
        names.map(slot).collect()
    }

    /// The names of tenants with counters of their own, and their slots, by name; then all others'.
    pub(super) fn tenants(&self) -> Vec<(String, usize)> {
        let slots = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> = slots
            .iter()
            .map(|(name, slot)| (name.clone(), *slot))
            .collect();
        named.sort_unstable();
        named.push(("other".to_owned(), self.own_tenants));
        named
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

    /// Shows what became of spans, too.
    #[must_use]
    pub fn with_traces(mut self, counters: &Arc<TraceCounters>) -> Self {
        self.traces = Arc::clone(counters);
        self
    }

    /// The block for the thread `index`. Threads past the last share the blocks there are.
    pub fn core(&self, index: usize) -> Arc<CoreMetrics> {
        let block = self.cores.get(index % self.cores.len());
        block.map_or_else(|| Arc::new(CoreMetrics::new(0)), Arc::clone)
    }

    /// When the program started.
    pub fn started(&self) -> Timestamp {
        self.started
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

    /// What the program has done since its start.
    pub fn totals(&self) -> ProgramTotals {
        let rows = || self.cores.iter().flat_map(|core| &core.times);
        let of_class = |class: usize| {
            HistogramTotal::of(rows().filter_map(|row| Some(&row.get(class)?.whole)))
        };
        let classes: [HistogramTotal; CLASSES.len()] = std::array::from_fn(of_class);
        let upstream = rows().flatten().map(|times| &times.upstream);
        ProgramTotals {
            requests: classes.each_ref().map(HistogramTotal::count),
            received: self.total(Event::BytesReceived),
            sent: self.total(Event::BytesSent),
            times: HistogramTotal::sum(&classes),
            upstream: HistogramTotal::of(upstream),
        }
    }

    /// What the requests of the tenant of this name have been; `None`: it has no counters of its own.
    pub fn tenant_traffic(&self, name: &str) -> Option<TenantTraffic> {
        let slots = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = *slots.get(name)?;
        drop(slots);
        let total = |index: usize| self.sum(|core| core.tenant_totals(slot)?.get(index).copied());
        Some(TenantTraffic {
            requests: std::array::from_fn(|class| {
                self.sum(|core| core.tenant_requests(slot, class))
            }),
            received: total(0),
            sent: total(1),
            limited: total(2),
        })
    }

    /// Connections of clients, requests in flight and connections to COS, now.
    pub fn open_now(&self) -> [u64; 3] {
        let between = |begun: u64, ended: u64| begun.saturating_sub(ended);
        let ended = self.totals().requests.iter().sum();
        [
            between(
                self.total(Event::ConnectionOpened),
                self.total(Event::ConnectionClosed),
            ),
            between(self.total(Event::RequestStarted), ended),
            between(
                self.total(Event::UpstreamOpened),
                self.total(Event::UpstreamClosed),
            ),
        ]
    }

    /// The last requests that failed, the newest first.
    pub fn last_errors(&self) -> Vec<FailedRequest> {
        let cores = self.cores.iter();
        let mut all: Vec<_> = cores.flat_map(|core| core.last_errors.all()).collect();
        all.sort_by_key(|failed| std::cmp::Reverse(failed.time));
        all
    }

    pub(super) fn total(&self, event: Event) -> u64 {
        self.sum(|core| core.events.get(event as usize))
    }

    /// The sum of one counter of all cores.
    pub(super) fn sum(&self, counter: impl Fn(&CoreMetrics) -> Option<&AtomicU64>) -> u64 {
        let counters = self.cores.iter().filter_map(|core| counter(core));
        counters.map(read).sum()
    }

    /// The sum of one histogram of all cores.
    pub(super) fn histogram(
        &self,
        histogram: impl Fn(&CoreMetrics) -> Option<&Histogram>,
    ) -> HistogramTotal {
        HistogramTotal::of(self.cores.iter().filter_map(|core| histogram(core)))
    }
}

impl CoreMetrics {
    fn new(own_tenants: usize) -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            events: std::array::from_fn(|_| AtomicU64::new(0)),
            times: (0..OPERATIONS).map(|_| OperationTimes::default()).collect(),
            key_wait: Histogram::default(),
            errors: Step::ALL.iter().map(|_| zeros()).collect(),
            tenants: (0..=own_tenants)
                .map(|_| TenantCounters::default())
                .collect(),
            last_errors: LastErrors::default(),
        }
    }

    /// Counts a request that has ended.
    pub fn request(&self, ended: &EndedRequest) {
        let row = row_of(ended.operation);
        let column = STATUSES
            .binary_search(&ended.status.as_u16())
            .unwrap_or(STATUSES.len());
        increment(self.status_count(row, column));
        self.add(Event::BytesReceived, ended.received);
        self.add(Event::BytesSent, ended.sent);
        let class = usize::from(ended.status.as_u16() / 100).saturating_sub(1);
        if let Some(times) = self.request_times(row, class) {
            times.whole.observe(ended.duration);
            if let Some(first_byte) = ended.first_byte {
                times.first_byte.observe(first_byte);
            }
            if let Some(upstream) = ended.upstream {
                times.upstream.observe(upstream);
            }
        }
        if let Some((step, code)) = ended.error {
            increment(self.error_count(step, code));
        }
        if let Some(counters) = ended.tenant.and_then(|slot| self.tenants.get(slot)) {
            increment(counters.requests.get(class));
            counters
                .received
                .fetch_add(ended.received, Ordering::Relaxed);
            counters.sent.fetch_add(ended.sent, Ordering::Relaxed);
            let limited = u64::from(ended.is_limited);
            counters.limited.fetch_add(limited, Ordering::Relaxed);
        }
    }

    /// Counts how long a request waited for a temporary key.
    pub(crate) fn waited_for_key(&self, wait: Duration) {
        self.key_wait.observe(wait);
    }

    pub(super) fn status_count(&self, row: usize, column: usize) -> Option<&AtomicU64> {
        self.requests.get(row)?.get(column)
    }

    pub(super) fn error_count(&self, step: Step, code: Code) -> Option<&AtomicU64> {
        self.errors.get(step as usize)?.get(code as usize)
    }

    pub(super) fn request_times(&self, row: usize, class: usize) -> Option<&RequestTimes> {
        self.times.get(row)?.get(class)
    }

    pub(super) fn key_wait(&self) -> &Histogram {
        &self.key_wait
    }

    pub(super) fn tenant_requests(&self, slot: usize, class: usize) -> Option<&AtomicU64> {
        self.tenants.get(slot)?.requests.get(class)
    }

    /// Bytes received and sent, and requests that the tenant's limits refused.
    pub(super) fn tenant_totals(&self, slot: usize) -> Option<[&AtomicU64; 3]> {
        let counters = self.tenants.get(slot)?;
        Some([&counters.received, &counters.sent, &counters.limited])
    }

    /// Keeps what a request failed of, for a while.
    pub fn keep_error(&self, failed: FailedRequest) {
        self.last_errors.keep(failed);
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

    /// Counts what COS returned to one call.
    pub(crate) fn upstream_responded(&self, status: StatusCode) {
        self.count(match status.as_u16() {
            500.. => Event::UpstreamServerError,
            400..=499 => Event::UpstreamClientError,
            _ => Event::UpstreamOk,
        });
    }
}

fn row_of(operation: Option<Operation>) -> usize {
    operation.map_or(Operation::ALL.len(), |operation| operation as usize)
}

fn increment(count: Option<&AtomicU64>) {
    if let Some(count) = count {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
