//! [`RequestTrace`]: a request that is recorded, with what it did and how long, on its way to a collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use http::StatusCode;

use super::access_log::AccessLine;
use super::trace_context::TraceContext;
use crate::decision::{Step, Verdict};
use crate::s3::Operation;

/// So many recorded requests wait for their collector; the next are lost and counted.
const QUEUE: usize = 2048;

/// A request that is recorded.
#[derive(Debug)]
pub struct RequestTrace {
    /// Its trace, and the caller's span.
    pub context: TraceContext,
    /// The caller's `tracestate`.
    pub state: Option<Box<str>>,
    /// The span of the request.
    pub span: [u8; 8],
    /// When its head had arrived, since 1970.
    pub began: Duration,
    /// From there to the response's last byte.
    pub duration: Duration,
    /// What it was.
    pub name: &'static str,
    /// What the access log has of it, too.
    pub attributes: Vec<(&'static str, TraceValue)>,
    /// The response says that cosgate or COS failed.
    pub is_error: bool,
    /// What it did, one after another.
    pub parts: Vec<TracePart>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceValue {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

/// A part of a request's life, from the request's begin on.
#[derive(Debug)]
pub struct TracePart {
    /// What it is.
    pub kind: TracePartKind,
    /// Its own span.
    pub span: [u8; 8],
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// What COS responded.
    pub status: Option<StatusCode>,
}

/// The parts of a request's life that have a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracePartKind {
    /// Who calls, and whether their limits leave room.
    Admission,
    /// The response's body, from its head to its last byte.
    Body,
    /// A temporary key.
    Key,
    /// One request to COS, from its first byte to the head of the response.
    Upstream,
}

impl TracePartKind {
    /// The span's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Body => "body",
            Self::Key => "key",
            Self::Upstream => "upstream",
        }
    }
}

impl RequestTrace {
    /// Adds what the access log has. Nothing that a client can choose freely and may be a secret is in it:
    /// no header, no query, no object's key.
    pub(crate) fn describe(&mut self, line: &AccessLine<'_>) {
        let operation = line.operation.map(Operation::name).or(line.sts_action);
        let texts = [
            ("http.request.method", line.method),
            ("cosgate.request_id", Some(line.request_id)),
            ("cosgate.operation", operation),
            ("cosgate.tenant", line.tenant),
            ("cosgate.bucket", line.bucket),
            ("cosgate.identity", line.identity),
            ("cosgate.verdict", line.verdict.map(Verdict::as_str)),
            ("cosgate.step", line.step.map(Step::as_str)),
            ("cosgate.code", line.code),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                self.attributes
                    .push((name, TraceValue::Text(value.to_owned())));
            }
        }
        for (name, value) in [
            ("http.response.status_code", line.status.as_u16().into()),
            ("http.request.body.size", line.received),
            ("http.response.body.size", line.sent),
        ] {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            self.attributes.push((name, TraceValue::Number(value)));
        }
        let name = line.operation.map(Operation::name);
        self.name = name.unwrap_or(self.name);
        self.is_error = line.status.is_server_error();
        self.duration = line.duration;
    }
}

/// Where recorded requests go in.
#[derive(Clone, Debug)]
pub struct TraceQueue {
    traces: SyncSender<Box<RequestTrace>>,
    counters: Arc<TraceCounters>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct TraceCounters {
    /// The collector took them.
    pub sent: AtomicU64,
    /// The queue was full.
    pub queue_full: AtomicU64,
    /// The collector could not be reached, or took nothing.
    pub not_sent: AtomicU64,
    /// The collector refused them.
    pub refused: AtomicU64,
}

impl TraceQueue {
    /// A queue, and its other end.
    pub fn new() -> (Self, Receiver<Box<RequestTrace>>) {
        let (traces, receiver) = sync_channel(QUEUE);
        let counters = Arc::default();
        (Self { traces, counters }, receiver)
    }

    /// What became of spans.
    pub fn counters(&self) -> &Arc<TraceCounters> {
        &self.counters
    }

    /// Hands a request over, and never waits. One without room is lost and counted.
    pub(crate) fn offer(&self, trace: Box<RequestTrace>) {
        let spans = spans(&trace);
        if self.traces.try_send(trace).is_err() {
            self.counters.queue_full.fetch_add(spans, Ordering::Relaxed);
        }
    }
}

/// How many spans a request has: its own, and one for each part.
pub(crate) fn spans(trace: &RequestTrace) -> u64 {
    1 + trace.parts.len() as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::observe::TraceId;

    /// A request without parts.
    pub(crate) fn trace() -> Box<RequestTrace> {
        Box::new(RequestTrace {
            context: TraceContext {
                trace_id: TraceId([1; 16]),
                parent: None,
                is_sampled: true,
            },
            state: None,
            span: [2; 8],
            began: Duration::from_secs(1_768_480_245),
            duration: Duration::from_millis(3),
            name: "GetObject",
            attributes: Vec::new(),
            is_error: false,
            parts: Vec::new(),
        })
    }

    #[test]
    fn counts_spans_that_a_full_queue_loses() {
        let (queue, receiver) = TraceQueue::new();
        for _ in 0..QUEUE + 7 {
            queue.offer(trace());
        }
        assert_eq!(queue.counters().queue_full.load(Ordering::Relaxed), 7);
        assert_eq!(receiver.try_iter().count(), QUEUE);
        queue.offer(trace());
        assert_eq!(receiver.try_iter().count(), 1);
    }

    #[test]
    fn keeps_secrets_out_of_spans() {
        let mut trace = trace();
        trace.describe(&AccessLine {
            request_id: "R1",
            method: Some("GET"),
            operation: Some(Operation::GetObject),
            tenant: Some("acme"),
            bucket: Some("photos"),
            key: Some("CANARY"),
            prefix: Some("CANARY"),
            source: Some("CANARY"),
            subject: Some("CANARY"),
            user_agent: Some(b"CANARY"),
            referer_host: Some(b"CANARY"),
            detail: Some("CANARY"),
            status: StatusCode::BAD_GATEWAY,
            ..AccessLine::default()
        });
        assert!(!format!("{trace:?}").contains("CANARY"), "{trace:?}");
        assert!(trace.is_error);
        let method = ("http.request.method", TraceValue::Text("GET".to_owned()));
        assert!(trace.attributes.contains(&method));
        let status = ("http.response.status_code", TraceValue::Number(502));
        assert!(trace.attributes.contains(&status));
    }
}
