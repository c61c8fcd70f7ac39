//! [`Record`]: what happened to a request. The pipeline fills it in, and [`Record::finish`] writes it out.
//! It enforces nothing.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use tokio::time::{Duration, Instant};

use super::logged_head::LoggedHead;
use super::payload::Outgoing;
use super::respond::REQUEST_ID;
use super::spans::SpanRecorder;
use super::{Client, TlsVersion};
use crate::body::{DownloadFailure, ObjectUpload, UploadFailure};
use crate::decision::{Step, Verdict};
use crate::error::{Code, Fault, S3Error, TenantLimit};
use crate::observe::{
    AccessLine, CoreMetrics, EndedRequest, Event, FailedRequest, LogBuffer, TraceContext,
    TracePartKind,
};
use crate::s3::{Operation, S3Request};
use crate::tenant::{Identified, Identity, Peer, Tenant};
use crate::timestamp::Timestamp;

/// COS's own id of the request. To a request in S3's form it may respond with AWS's name.
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-cos-request-id");
/// The status in the log of a request whose client did not wait for its response (nginx's number).
const CLIENT_GONE: u16 = 499;

/// What happened to one request.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    started: Instant,
    pub(super) request_id: RequestId,
    pub(super) version: Version,
    tls: Option<TlsVersion>,
    pub(super) head: LoggedHead,
    /// The trace that the request is a part of, and what records it.
    pub(super) trace: Option<TraceContext>,
    pub(super) spans: Option<Box<SpanRecorder>>,
    pub(super) client: Option<IpAddr>,
    /// The number of the user at the other end of a Unix socket.
    pub(super) uid: Option<u32>,
    /// The names of the client's certificate, if no tenant has them.
    pub(super) unknown_names: Option<Arc<str>>,
    pub(super) tenant: Option<Arc<Tenant>>,
    /// Where its tenant's counters are.
    tenant_slot: Option<usize>,
    identity: Option<Identity>,
    operation: Option<Operation>,
    sts_action: Option<&'static str>,
    pub(super) bucket: Option<String>,
    pub(super) key: Option<String>,
    /// What the keys of a listing begin with.
    prefix: Option<String>,
    source: Option<String>,
    /// Where the request is, and so where it ends if nothing follows.
    pub(super) step: Step,
    /// cosgate makes the response itself.
    pub(super) is_local: bool,
    /// Bytes of a body that was read whole.
    received: u64,
    pub(super) upload: Option<Rc<RefCell<ObjectUpload>>>,
    unchecked: Option<String>,
    denied: usize,
    upstream: UpstreamRecord,
    pub(super) status: StatusCode,
    pub(super) error: Option<S3Error>,
    /// Why COS's response could not be used, before the client had any of it.
    pub(super) unusable: Option<DownloadFailure>,
    /// Why the response was cut off.
    pub(super) cut: Rc<Cell<Option<DownloadFailure>>>,
    /// The client did not take the response as fast as it must.
    pub(super) is_client_slow: bool,
    /// Bytes of the response's body.
    pub(super) sent: u64,
}

/// The id of a request, as the client and the log are told it: 16 hexadecimal digits in upper case, like AWS's.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId([u8; 16]);

impl RequestId {
    fn random() -> Self {
        let number = fastrand::u64(..);
        let mut digits = [0; 16];
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            let value = u8::try_from(number >> (4 * place) & 15).unwrap_or_default();
            *digit = value + if value < 10 { b'0' } else { b'A' - 10 };
        }
        Self(digits)
    }
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // ASCII by construction
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// What COS had to do with it.
#[derive(Debug, Default)]
struct UpstreamRecord {
    /// When COS was sent the request first, and how often.
    requested: Option<Instant>,
    tries: u64,
    /// From there to the head of its last response, and from the request's own head.
    time: Option<Duration>,
    first_byte: Option<Duration>,
    status: Option<StatusCode>,
    request_id: Option<HeaderValue>,
}

/// What the line has of the body and of failures, borrowed.
struct RequestOutcome<'a> {
    received: u64,
    unchecked: Option<&'a str>,
    verdict: Verdict,
    step: Option<Step>,
    detail: Option<&'a str>,
    duration: Duration,
}

impl Record {
    /// A request of `client` that has just come, at `time`.
    pub(super) fn new(client: &Client, version: Version, time: Timestamp) -> Self {
        let (address, uid) = match client.peer {
            Peer::Tcp(peer) => (Some(peer.ip().to_canonical()), None),
            Peer::Unix(user) => (None, Some(user.uid)),
            Peer::Unnamed => (None, None),
        };
        Self {
            time,
            started: Instant::now(),
            request_id: RequestId::random(),
            version,
            tls: client.tls,
            head: LoggedHead::default(),
            trace: None,
            spans: None,
            client: address,
            uid,
            unknown_names: None,
            tenant: None,
            tenant_slot: None,
            identity: None,
            operation: None,
            sts_action: None,
            bucket: None,
            key: None,
            prefix: None,
            source: None,
            step: Step::Parse,
            is_local: false,
            received: 0,
            upload: None,
            unchecked: None,
            denied: 0,
            upstream: UpstreamRecord::default(),
            status: StatusCode::from_u16(CLIENT_GONE).unwrap_or_default(),
            error: None,
            unusable: None,
            cut: Rc::default(),
            is_client_slow: false,
            sent: 0,
        }
    }

    /// A request for S3 was parsed.
    pub(super) fn parsed(&mut self, request: &S3Request<'_>) {
        self.step = Step::Authenticate;
        self.operation = Some(request.operation);
        self.bucket = request.bucket.as_deref().map(str::to_owned);
        self.key = request.key.as_ref().map(|key| key.as_str().to_owned());
        let prefix = request.query.get("prefix");
        self.prefix = prefix.filter(|_| request.key.is_none()).map(str::to_owned);
        let source = request.copy_source.as_ref();
        self.source = source.map(|from| format!("{}/{}", from.bucket, from.key.as_str()));
    }

    /// A call of an STS was parsed.
    pub(super) fn sts_action(&mut self, action: &'static str) {
        self.step = Step::Authenticate;
        self.sts_action = Some(action);
    }

    /// A browser's preflight for `bucket` was read.
    pub(super) fn preflight(&mut self, bucket: Option<String>) {
        self.step = Step::Authorize;
        self.sts_action = Some("Preflight");
        self.bucket = bucket.filter(|bucket| !bucket.is_empty());
    }

    /// The caller was identified.
    pub(super) fn identified(&mut self, caller: &Identified, slots: &[usize]) {
        let tenant = caller.share_tenant();
        self.tenant_slot = slots.get(tenant.index).copied();
        self.tenant = Some(tenant);
        self.identity = Some(caller.identity().clone());
    }

    /// A body of so many bytes was read whole.
    pub(super) fn gathered(&mut self, length: usize) {
        self.received = length as u64;
    }

    /// The body is ready for COS: whole, or an upload on its way.
    pub(super) fn body(&mut self, outgoing: &Outgoing) {
        self.received = outgoing.body.length();
        self.upload = outgoing.body.upload();
        self.unchecked = outgoing.unchecked().map(str::to_owned);
        self.denied = outgoing.denied.len();
    }

    /// Notes that COS gets the request, perhaps once more.
    pub(super) fn reaches_upstream(&mut self) {
        self.begins(TracePartKind::Upstream);
        self.step = Step::Upstream;
        self.upstream.requested.get_or_insert_with(Instant::now);
        self.upstream.tries += 1;
    }

    /// COS has responded.
    pub(super) fn upstream_responded(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.ends(Some(status));
        let upstream = &mut self.upstream;
        let now = Instant::now();
        upstream.time = upstream.requested.map(|requested| now - requested);
        upstream.first_byte = Some(now - self.started);
        upstream.status = Some(status);
        let id = headers.get(UPSTREAM_REQUEST_ID);
        upstream.request_id = id.or_else(|| headers.get(REQUEST_ID)).cloned();
    }

    /// A part of the request begins, if it is recorded.
    pub(super) fn begins(&mut self, part: TracePartKind) {
        if let Some(spans) = &mut self.spans {
            spans.begin(part);
        }
    }

    /// The part has ended; `status` is what COS has responded.
    pub(super) fn ends(&mut self, status: Option<StatusCode>) {
        if let Some(spans) = &mut self.spans {
            spans.end(status);
        }
    }

    /// Writes all of it out: the counters, the warnings, the line of the access log, and the trace.
    pub(super) fn finish(&mut self, metrics: &CoreMetrics, log: &LogBuffer) {
        let spans = self.spans.take();
        let upload = self.upload.as_ref().map(|upload| upload.borrow());
        let received = upload.as_ref().map_or(self.received, |u| u.received());
        let verified = upload.as_ref().and_then(|upload| upload.verified());
        let unchecked = verified.and_then(|verified| verified.unchecked.as_deref());
        let (verdict, step) = self.verdict();
        let duration = self.started.elapsed();
        self.count(metrics, received, step, duration);
        self.warn(step);
        let slow = self.is_client_slow.then_some(DownloadFailure::ClientSlow);
        let cut = self.cut.get().or(slow).map(|failure| failure.to_string());
        let detail = self.error_detail();
        self.keep_error(metrics, step, cut.as_deref().or(detail.as_deref()));
        let line = self.line(&RequestOutcome {
            received,
            unchecked: unchecked.or(self.unchecked.as_deref()),
            verdict,
            step,
            detail: cut.as_deref().or(detail.as_deref()),
            duration,
        });
        log.write(&line);
        if let Some(spans) = spans {
            spans.finish(&line);
        }
    }

    fn count(&self, metrics: &CoreMetrics, received: u64, step: Option<Step>, duration: Duration) {
        let limit = self.error.as_ref().and_then(S3Error::exceeded);
        let error = self.error.as_ref();
        metrics.request(&EndedRequest {
            operation: self.operation,
            status: self.status,
            error: error.map(|error| (step.unwrap_or(self.step), error.code())),
            duration,
            first_byte: self.upstream.first_byte,
            upstream: self.upstream.time,
            received,
            sent: self.sent,
            is_limited: limit.is_some(),
            tenant: self.tenant_slot,
        });
        if let Some(limit) = limit {
            metrics.count(match limit {
                TenantLimit::Concurrency => Event::LimitedConcurrency,
                TenantLimit::ObjectSize => Event::LimitedObjectSize,
                TenantLimit::Rate => Event::LimitedRate,
            });
        }
        match self.cut.get().or(self.unusable) {
            Some(DownloadFailure::OutOfScope) => metrics.count(Event::ResponseOutOfScope),
            Some(DownloadFailure::Malformed(_) | DownloadFailure::NoNextPage) => {
                metrics.count(Event::ResponseUnusable);
            }
            Some(
                DownloadFailure::ClientSlow
                | DownloadFailure::UpstreamGone
                | DownloadFailure::UpstreamSlow,
            )
            | None => {}
        }
    }

    /// Keeps a failure for the status page.
    fn keep_error(&self, metrics: &CoreMetrics, step: Option<Step>, detail: Option<&str>) {
        let error = self.error.as_ref();
        if error.is_none() && self.cut.get().is_none() {
            return;
        }
        let detail = detail.or_else(|| error.map(S3Error::message));
        metrics.keep_error(FailedRequest {
            time: self.time,
            request_id: self.request_id.to_string(),
            tenant: self.tenant.as_ref().map(|tenant| tenant.name.clone()),
            operation: self.operation,
            status: self.status.as_u16(),
            code: error.map(|error| error.code().as_str()),
            step,
            detail: detail.unwrap_or_default().to_owned(),
            is_refusal: error.is_some_and(|error| error.whose_fault() == Fault::Client),
        });
    }

    /// Reports to the operator what is no client's fault. A response that left the fence is an alarm: COS did
    /// not do what was requested, or a grant is not what it was meant to be.
    fn warn(&self, step: Option<Step>) {
        if self.cut.get().or(self.unusable) == Some(DownloadFailure::OutOfScope) {
            tracing::error!(
                request_id = %self.request_id,
                bucket = self.bucket.as_deref(),
                operation = self.operation.map(Operation::name),
                "COS's response named something outside the caller's grants; the client did not get it"
            );
        }
        if let Some(error) = &self.error
            && error.whose_fault() != Fault::Client
        {
            let cause = failure_cause(error, step);
            tracing::warn!(request_id = %self.request_id, %error, cause, "request failed");
        }
    }

    /// What became of the request, and the step that it ended at.
    fn verdict(&self) -> (Verdict, Option<Step>) {
        let streamed = self.upload.as_ref().and_then(|u| u.borrow().failure());
        let step = match streamed {
            None | Some(UploadFailure::UpstreamSlow) => self.step,
            Some(_) => Step::Payload,
        };
        let is_cut = self.cut.get().is_some() || self.status.as_u16() == CLIENT_GONE;
        match (&self.error, is_cut, self.is_local) {
            (Some(error), ..) => {
                let verdict = Verdict::of_error(error, step);
                (verdict, (verdict != Verdict::Allowed).then_some(step))
            }
            (None, true, _) => (Verdict::Failed, Some(step)),
            (None, false, true) => (Verdict::Local, None),
            (None, false, false) => (Verdict::Allowed, None),
        }
    }

    /// What the log has of the error beside what the client read.
    fn error_detail(&self) -> Option<Cow<'_, str>> {
        let detail = self.error.as_ref().and_then(S3Error::log_detail);
        match (detail, self.unknown_certificate()) {
            (Some(detail), Some(certificate)) => {
                Some(Cow::Owned(format!("{detail}; {certificate}")))
            }
            (None, Some(certificate)) => Some(Cow::Owned(certificate)),
            (detail, None) => detail.map(Cow::Borrowed),
        }
    }

    /// What the log has of the certificate of a caller who was not let in, and whom it does not name.
    fn unknown_certificate(&self) -> Option<String> {
        let names = self.unknown_names.as_deref()?;
        let error = self.error.as_ref()?;
        let is_denied = self.step == Step::Authenticate && error.code() == Code::AccessDenied;
        is_denied.then(|| {
            format!(
                "no tenant, or more than one, is known by the client certificate's names: {names}"
            )
        })
    }

    /// The line of the access log.
    fn line<'a>(&'a self, outcome: &RequestOutcome<'a>) -> AccessLine<'a> {
        let identity = self.identity.as_ref();
        let upstream = &self.upstream;
        let mut line = AccessLine {
            time: self.time,
            request_id: &self.request_id,
            trace_id: self.trace.map(|trace| trace.trace_id),
            http: self.version,
            tls: self.tls.map(TlsVersion::as_str),
            client: self.client,
            uid: self.uid,
            tenant: self.tenant.as_ref().map(|tenant| tenant.name.as_str()),
            identity: identity.map(Identity::kind),
            key_id: identity.and_then(Identity::key_id).map(|id| &**id),
            session_of: identity.and_then(Identity::access_key).map(|id| &**id),
            subject: identity
                .and_then(Identity::subject)
                .map(|subject| &**subject),
            method: None,
            operation: self.operation,
            sts_action: self.sts_action,
            bucket: self.bucket.as_deref(),
            key: self.key.as_deref(),
            prefix: self.prefix.as_deref(),
            source: self.source.as_deref(),
            denied: self.denied,
            verdict: Some(outcome.verdict),
            step: outcome.step,
            status: self.status,
            code: self.error.as_ref().map(|error| error.code().as_str()),
            received: outcome.received,
            unchecked: outcome.unchecked,
            sent: self.sent,
            duration: outcome.duration,
            tries: upstream.tries,
            upstream_time: upstream.time,
            upstream_status: upstream.status,
            upstream_request_id: (upstream.request_id.as_ref()).and_then(|id| id.to_str().ok()),
            user_agent: None,
            referer_host: None,
            detail: outcome.detail,
        };
        self.head.add_to(&mut line);
        line
    }
}

/// Failures with the same code at the same step have one cause for the program log.
fn failure_cause(error: &S3Error, step: Option<Step>) -> String {
    let step = step.map_or("done", Step::as_str);
    format!("{} at {step}", error.code().as_str())
}
