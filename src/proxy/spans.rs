//! [`SpanRecorder`]: the times of a request that is recorded as a trace.

use http::HeaderMap;
use http::StatusCode;
use http::header::HeaderName;
use http::request::Parts;
use tokio::time::{Duration, Instant};

use super::Proxy;
use crate::clock::since_epoch;
use crate::observe::{
    AccessLine, RequestTrace, TraceContext, TracePart, TracePartKind, TraceQueue,
};

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What of `tracestate` must be passed on at least (W3C Trace Context section 3.3.1.5). One that is longer is
/// left out.
const STATE_BYTES: usize = 512;
/// The parts of one request that are recorded: admission, and a few tries.
const PARTS: usize = 32;

/// Records one request.
#[derive(Debug)]
pub(super) struct SpanRecorder {
    queue: TraceQueue,
    trace: Box<RequestTrace>,
    began: Instant,
    /// The last part has not ended.
    is_open: bool,
}

impl Proxy {
    /// The trace of the request of `head`: the client's, or one that begins here.
    pub(super) fn trace_of(&self, head: &Parts) -> Option<TraceContext> {
        let traces = &self.config().traces;
        if !traces.enabled && !self.log.needs_heads() {
            return None;
        }
        let joined = TraceContext::of(&head.headers);
        if joined.is_some() || !traces.enabled {
            return joined;
        }
        Some(TraceContext::begun(traces.share.takes(fastrand::u32(..))))
    }

    /// What records the request of `head`, if its trace is recorded.
    pub(super) fn recorder(
        &self,
        head: &Parts,
        context: Option<TraceContext>,
    ) -> Option<Box<SpanRecorder>> {
        let queue = self.shared.traces.as_ref()?;
        let context =
            context.filter(|context| context.is_sampled && self.config().traces.enabled)?;
        Some(Box::new(SpanRecorder {
            queue: queue.clone(),
            trace: Box::new(RequestTrace {
                context,
                state: state_of(&head.headers),
                span: fastrand::u64(1..).to_be_bytes(),
                began: since_epoch(),
                duration: Duration::ZERO,
                name: "request",
                attributes: Vec::new(),
                is_error: false,
                parts: Vec::new(),
            }),
            began: Instant::now(),
            is_open: false,
        }))
    }
}

impl SpanRecorder {
    /// A part begins, and the one before it has ended.
    pub(super) fn begin(&mut self, kind: TracePartKind) {
        let now = self.began.elapsed();
        self.end_at(now, None);
        if self.trace.parts.len() < PARTS {
            self.trace.parts.push(TracePart {
                kind,
                span: fastrand::u64(1..).to_be_bytes(),
                start: now,
                end: now,
                status: None,
            });
            self.is_open = true;
        }
    }

    /// The part has ended; `status` is what COS has responded.
    pub(super) fn end(&mut self, status: Option<StatusCode>) {
        self.end_at(self.began.elapsed(), status);
    }

    fn end_at(&mut self, now: Duration, status: Option<StatusCode>) {
        if let (true, Some(part)) = (self.is_open, self.trace.parts.last_mut()) {
            part.end = now;
            part.status = status;
        }
        self.is_open = false;
    }

    /// The request has ended, and `line` is its line in the log.
    pub(super) fn finish(mut self, line: &AccessLine<'_>) {
        self.end(None);
        self.trace.describe(line);
        self.queue.offer(self.trace);
    }
}

/// The caller's `tracestate`, whose members may be in several headers.
fn state_of(headers: &HeaderMap) -> Option<Box<str>> {
    let values = headers.get_all(TRACESTATE).iter();
    let texts: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
    let state = texts?.join(",");
    let is_kept = !state.is_empty() && state.len() <= STATE_BYTES;
    is_kept.then(|| state.into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn joins_tracestate_and_drops_a_long_one() {
        let state = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACESTATE, HeaderValue::from_str(value).unwrap());
            }
            state_of(&headers)
        };
        assert_eq!(state(&[]), None);
        assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["a=中"]), None);
        assert!(state(&[&"a".repeat(STATE_BYTES)]).is_some());
        assert_eq!(state(&[&"a".repeat(STATE_BYTES + 1)]), None);
    }
}
