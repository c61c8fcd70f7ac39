//! The one exit: whatever happened to a request, its answer leaves here, one log line is written and
//! the counters move, when the last byte has gone or the client has.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::payload::Outgoing;
use super::stranger_memory::StrangerHold;
use super::{Client, Proxy};
use crate::body::shape;
use crate::body::{Answer, DownloadFailure, Upload, UploadFailure};
use crate::encoding::hex::hex;
use crate::error::{Code, Fault, S3Error};
use crate::observe::{AccessLine, Event, Step, Verdict};
use crate::rewrite;
use crate::s3::form::Form;
use crate::s3::xml::{self, sts_error};
use crate::s3::{Operation, S3Request, native};
use crate::tenant::limits::{Limited, Slot};
use crate::tenant::{Identified, Identity, Peer, Permit, Source, Tenant};
use crate::timestamp::Timestamp;
use crate::transport::FRAME;
use crate::transport::{Gauge, Phase};

/// AWS's name for the id of a request; the client sees it on every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
/// COS's own id of the request. Asked in S3's words, it may answer with AWS's name.
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-cos-request-id");
/// The status in the log of a request whose client did not wait for its answer (nginx's number).
const CLIENT_GONE: u16 = 499;

/// The answer's body, and the `Exit` that it ends with.
#[derive(Debug)]
pub struct ClientBody {
    answer: Answer,
    /// HTTP/2: what has not been handed over of the last bytes.
    rest: Bytes,
    exit: Box<Exit>,
}

/// In which form the client reads errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorForm {
    /// Who asks for temporary keys.
    Json,
    /// S3's, or COS's own.
    S3,
    /// Who calls an STS.
    Sts,
}

/// Who reads the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    /// The connection is TLS.
    pub(super) tls: bool,
    /// The client speaks COS's own API.
    pub(super) native: bool,
}

/// What is to be said of a request when it is over.
#[derive(Debug)]
pub(super) struct Exit {
    proxy: Rc<Proxy>,
    client: Option<IpAddr>,
    /// The number of the user at the other end of a Unix socket.
    uid: Option<u32>,
    reader: Reader,
    /// The names of the client's certificate, if no tenant has them.
    unknown_names: Option<Arc<str>>,
    gauge: Rc<Gauge>,
    now: Timestamp,
    started: Instant,
    request_id: String,
    received: u64,
    upload: Option<Rc<RefCell<Upload>>>,
    unchecked: Option<String>,
    /// The request has a body, and it has not been read.
    is_unread: bool,
    errors: ErrorForm,
    sts_action: Option<&'static str>,
    sent: u64,
    version: Version,
    operation: Option<Operation>,
    bucket: Option<String>,
    key: Option<String>,
    source: Option<String>,
    denied: usize,
    tenant: Option<Arc<Tenant>>,
    identity: Option<Identity>,
    /// The request's place among those of its tenant, where these are limited.
    slot: Option<Slot>,
    /// What a refusal holds until its client takes it.
    refusal: Option<Box<StrangerHold>>,
    /// Where the request is, and so where it ends if nothing follows.
    step: Step,
    is_answered_here: bool,
    /// The object is not to be shown as a page.
    is_attachment: bool,
    status: StatusCode,
    error: Option<S3Error>,
    /// When COS was asked first, and how often.
    asked_upstream: Option<Instant>,
    tries: u64,
    /// From there to the head of its last answer.
    upstream_time: Option<Duration>,
    upstream_status: Option<StatusCode>,
    upstream_request_id: Option<HeaderValue>,
    cut: Rc<Cell<Option<DownloadFailure>>>,
}

impl Exit {
    /// Boxed: it is moved from hand to hand until the answer's last byte.
    pub(super) fn new(
        proxy: &Rc<Proxy>,
        client: &Client,
        gauge: &Rc<Gauge>,
        now: Timestamp,
    ) -> Box<Self> {
        let (address, uid) = match client.peer {
            Peer::Tcp(peer) => (Some(peer.ip().to_canonical()), None),
            Peer::Unix(user) => (None, Some(user.uid)),
            Peer::Unnamed => (None, None),
        };
        let mut request_id = hex(&fastrand::u64(..).to_be_bytes());
        request_id.make_ascii_uppercase();
        Box::new(Self {
            proxy: Rc::clone(proxy),
            client: address,
            uid,
            reader: Reader {
                tls: client.tls,
                native: false,
            },
            unknown_names: client.unknown_names.clone(),
            gauge: Rc::clone(gauge),
            now,
            started: Instant::now(),
            request_id,
            received: 0,
            upload: None,
            unchecked: None,
            is_unread: false,
            errors: ErrorForm::S3,
            sts_action: None,
            sent: 0,
            version: if gauge.is_stream() {
                Version::HTTP_2
            } else {
                Version::HTTP_11
            },
            operation: None,
            bucket: None,
            key: None,
            source: None,
            denied: 0,
            tenant: None,
            identity: None,
            slot: None,
            refusal: None,
            step: Step::Parse,
            is_answered_here: false,
            is_attachment: false,
            status: StatusCode::from_u16(CLIENT_GONE).unwrap_or_default(),
            error: None,
            asked_upstream: None,
            tries: 0,
            upstream_time: None,
            upstream_status: None,
            upstream_request_id: None,
            cut: Rc::default(),
        })
    }

    /// Notes that a body comes with the request.
    pub(super) fn expects_body(&mut self) {
        self.is_unread = true;
    }

    /// Notes the step that begins.
    pub(super) fn at(&mut self, step: Step) {
        self.step = step;
        #[cfg(debug_assertions)]
        self.panic_if_asked();
    }

    /// In a build for development, a request panics whose key ends in `/panic`, at the step that the
    /// variable names: so the tests see what a panic tells, and what it leaves.
    #[cfg(debug_assertions)]
    fn panic_if_asked(&self) {
        let asked = self.key.as_ref().is_some_and(|key| key.ends_with("/panic"));
        let here = || std::env::var("COSGATE_PANIC_AT").as_deref() == Ok(self.step.as_str());
        assert!(
            !(asked && here()),
            "asked to, at the step {}",
            self.step.as_str()
        );
    }

    /// Notes that the client calls an STS, and reads errors in its form.
    pub(super) fn speaks_sts(&mut self) {
        self.errors = ErrorForm::Sts;
    }

    /// Notes that the client asks for temporary keys, and reads errors as JSON.
    pub(super) fn speaks_json(&mut self) {
        self.errors = ErrorForm::Json;
    }

    /// Notes what an STS is asked.
    pub(super) fn sts_action(&mut self, action: &'static str) {
        self.step = Step::Authenticate;
        self.sts_action = Some(action);
    }

    /// Notes a body that was read whole.
    pub(super) fn gathered(&mut self, length: usize) {
        self.is_unread = false;
        self.received = length as u64;
    }

    /// The id that the client is told.
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Notes what is asked.
    pub(super) fn asked(&mut self, asked: &S3Request<'_>) {
        self.step = Step::Authenticate;
        self.operation = Some(asked.operation);
        self.bucket = asked.bucket.as_deref().map(str::to_owned);
        self.key = asked.key.as_ref().map(|key| key.as_str().to_owned());
        let source = asked.copy_source.as_ref();
        self.source = source.map(|from| format!("{}/{}", from.bucket, from.key.as_str()));
    }

    /// Notes the key that a form asks for.
    pub(super) fn form(&mut self, form: &Form) {
        self.key = form.get("key").map(str::to_owned);
    }

    /// The client's connection.
    pub(super) fn gauge(&self) -> Rc<Gauge> {
        Rc::clone(&self.gauge)
    }

    /// Notes the client's address behind proxies that are trusted.
    pub(super) fn from(&mut self, address: Option<IpAddr>) {
        self.client = address;
    }

    /// Notes who asks.
    pub(super) fn caller(&mut self, caller: &Identified) {
        self.tenant = Some(caller.share_tenant());
        self.identity = Some(caller.identity().clone());
    }

    /// Holds the tenant to its own limits. The place is given back when the answer is over.
    pub(super) fn limit(&mut self, tenant: &Tenant) -> Result<(), S3Error> {
        self.step = Step::Limit;
        let now = shape::now();
        let Some(limits) = tenant.limits(now) else {
            return Ok(());
        };
        self.slot = Some(limits.admit(now).inspect_err(|limited| {
            self.proxy.metrics.count(match limited {
                Limited::Concurrency => Event::LimitedConcurrency,
                Limited::Rate(_) => Event::LimitedRate,
            });
        })?);
        Ok(())
    }

    /// Notes the body: all of it, or an upload on its way.
    pub(super) fn body(&mut self, outgoing: &Outgoing) {
        self.is_unread = false;
        self.received = outgoing.body.length();
        self.upload = outgoing.body.upload();
        self.unchecked = outgoing.unchecked().map(str::to_owned);
        self.denied = outgoing.denied.len();
    }

    /// Notes that the answer is made here.
    pub(super) fn answered_here(&mut self) {
        self.is_answered_here = true;
    }

    /// Notes what the grant says of the answer to `permit`.
    pub(super) fn permitted(&mut self, permit: &Permit<'_, '_>) {
        let reads = matches!(
            permit.request().operation,
            Operation::GetObject | Operation::HeadObject
        );
        self.is_attachment = reads && permit.grant().is_some_and(|grant| grant.attachment);
    }

    /// Notes that COS is asked, perhaps once more.
    pub(super) fn asks_upstream(&mut self) {
        self.at(Step::Upstream);
        self.asked_upstream.get_or_insert_with(Instant::now);
        self.tries += 1;
    }

    /// Notes COS's answer.
    pub(super) fn upstream(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.upstream_time = self.asked_upstream.map(|asked| asked.elapsed());
        self.upstream_status = Some(status);
        let id = headers.get(UPSTREAM_REQUEST_ID);
        self.upstream_request_id = id.or_else(|| headers.get(REQUEST_ID)).cloned();
    }

    /// Notes that the client speaks COS's own API.
    pub(super) fn speaks_native(&mut self) {
        self.reader.native = true;
    }

    /// Who reads the answer.
    pub(super) fn reader(&self) -> Reader {
        self.reader
    }

    /// Counts an answer of COS that was cut off, and raises the alarm where it left the fence: COS did
    /// not do what was asked, or a grant is not what it was meant to be.
    pub(super) fn was_cut(&self, failure: DownloadFailure) {
        match failure {
            DownloadFailure::OutOfScope => {
                self.proxy.metrics.count(Event::AnswerOutOfScope);
                tracing::error!(
                    request_id = %self.request_id,
                    bucket = self.bucket.as_deref(),
                    operation = self.operation.map(Operation::name),
                    "COS's answer named something outside the caller's grants; the client did not get it"
                );
            }
            DownloadFailure::Malformed(_) | DownloadFailure::NoNextPage => {
                self.proxy.metrics.count(Event::AnswerUnusable);
            }
            DownloadFailure::ClientSlow
            | DownloadFailure::UpstreamGone
            | DownloadFailure::UpstreamSlow => {}
        }
    }

    /// Makes the response: the answer, or the error as the client may see it.
    pub(super) fn respond(
        mut self: Box<Self>,
        head: &Parts,
        answer: Result<http::Response<Answer>, S3Error>,
    ) -> http::Response<ClientBody> {
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => {
                let response = self.refusal(head, &error);
                self.error = Some(error);
                self.within_memory(response)
            }
        };
        if self.is_attachment {
            match &self.error {
                None => rewrite::as_attachment(response.headers_mut()),
                Some(_) => rewrite::not_sniffed(response.headers_mut()),
            }
        }
        self.status = response.status();
        self.version = head.version;
        // HTTP/2 ends the stream alone: it is reset when its answer has gone.
        if self.ends_connection() && !self.gauge.is_stream() {
            self.gauge.linger_at_end();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if let Ok(id) = HeaderValue::from_str(&self.request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        if native::is_native(head) {
            native::from_s3(response.headers_mut());
            let spelling = self.proxy.spelling.clone();
            response.extensions_mut().extend(spelling);
        }
        response.body_mut().note_failure(&self.cut);
        response.map(|answer| ClientBody {
            answer,
            rest: Bytes::new(),
            exit: self,
        })
    }

    /// The refusal of a stranger over HTTP/2, without its document where too many are there already that
    /// their client makes no room for: a head needs none, and so ends the stream (RFC 9113 section 5.2.1).
    fn within_memory(&mut self, mut response: http::Response<Answer>) -> http::Response<Answer> {
        let Answer::Whole(document) = response.body() else {
            return response;
        };
        if !self.gauge.is_stream() || self.tenant.is_some() {
            return response;
        }
        let source = match (self.client, self.uid) {
            (Some(address), _) => Source::of(address),
            (None, Some(uid)) => Source::User(uid),
            (None, None) => Source::Unnamed,
        };
        self.refusal = self
            .proxy
            .refusals
            .keep(source, document.len())
            .map(Box::new);
        if self.refusal.is_none() {
            *response.body_mut() = Answer::Empty;
            response.headers_mut().insert(CONTENT_LENGTH, 0.into());
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }

    /// What became of the request, and the step that it ended at.
    fn verdict(&self) -> (Verdict, Option<Step>) {
        let streamed = self.upload.as_ref().and_then(|u| u.borrow().failure());
        let step = match streamed {
            None | Some(UploadFailure::UpstreamSlow) => self.step,
            Some(_) => Step::Payload,
        };
        let is_cut = self.cut.get().is_some() || self.status.as_u16() == CLIENT_GONE;
        let Some(error) = &self.error else {
            return match (is_cut, self.is_answered_here) {
                (true, _) => (Verdict::Failed, Some(step)),
                (false, true) => (Verdict::AnsweredHere, None),
                (false, false) => (Verdict::Allowed, None),
            };
        };
        match (error.whose_fault(), step, error.http_status()) {
            (_, Step::Upstream, StatusCode::FORBIDDEN) => (Verdict::Refused, Some(step)),
            // That an object is not there, say, is COS's answer to a question that was allowed.
            (Fault::Client, Step::Upstream, _) => (Verdict::Allowed, None),
            (Fault::Client, ..) => (Verdict::Refused, Some(step)),
            _ => (Verdict::Failed, Some(step)),
        }
    }

    /// What the log says of the certificate of a caller who was not let in, and whom it does not name.
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

    /// Whether no other request may follow: the rest of this one's body is still to come.
    fn ends_connection(&self) -> bool {
        let is_half_read = |upload: &Rc<RefCell<Upload>>| !upload.borrow().is_received();
        self.error.as_ref().is_some_and(S3Error::closes)
            || self.is_unread
            || self.upload.as_ref().is_some_and(is_half_read)
    }

    /// The answer to a head that hyper never gave us, as bytes.
    pub(super) fn refuse_head(mut self, error: S3Error) -> Bytes {
        self.gauge.linger_at_end();
        self.status = error.http_status();
        let document = xml::error(&error, "", &self.request_id);
        let answer = format!(
            "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n{REQUEST_ID}: {}\r\n\r\n{document}",
            self.status,
            document.len(),
            self.request_id,
        );
        self.error = Some(error);
        Bytes::from(answer)
    }

    /// An S3 error document. It says nothing that the client does not know already.
    fn refusal(&self, head: &Parts, error: &S3Error) -> http::Response<Answer> {
        let resource = head.uri.path();
        let (status, document) = if self.errors == ErrorForm::Json {
            let (code, message) = (error.code().as_str(), error.message());
            let document = json!({"code": code, "message": message});
            (error.http_status(), document.to_string())
        } else if self.errors == ErrorForm::Sts {
            (error.http_status(), sts_error(error, &self.request_id))
        } else if native::is_native(head) {
            let error = native::error(head, error);
            let document = xml::native_error(&error, resource, &self.request_id);
            (error.http_status(), document)
        } else {
            let document = xml::error(error, resource, &self.request_id);
            (error.http_status(), document)
        };
        let document = Bytes::from(document);
        let mut response = http::Response::new(Answer::Empty);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(seconds) = error.retry_after_seconds() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        let bodiless = status == StatusCode::NOT_MODIFIED;
        if !bodiless {
            let kind = if self.errors == ErrorForm::Json {
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                "application/json"
            } else {
                "application/xml"
            };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(CONTENT_LENGTH, document.len().into());
        }
        if !bodiless && head.method != Method::HEAD {
            *response.body_mut() = Answer::Whole(document);
        }
        response
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.gauge.enter(Phase::Idle);
        let upload = self.upload.as_ref().map(|upload| upload.borrow());
        let received = upload.as_ref().map_or(self.received, |u| u.received());
        let verified = upload.as_ref().and_then(|upload| upload.verified());
        let unchecked = verified.and_then(|verified| verified.unchecked.as_deref());
        let metrics = &self.proxy.metrics;
        metrics.request(self.operation, self.status);
        metrics.add(Event::BytesReceived, received);
        metrics.add(Event::BytesSent, self.sent);
        if let Some(failure) = self.cut.get() {
            self.was_cut(failure);
        }
        let slow = self.gauge.fell_behind();
        let cut = self
            .cut
            .get()
            .or_else(|| slow.then_some(DownloadFailure::ClientSlow));
        let cut = cut.map(|failure| failure.to_string());
        let said = self.error.as_ref().and_then(S3Error::log_detail);
        let certificate = self.unknown_certificate();
        let said = match (said, &certificate) {
            (Some(said), Some(certificate)) => Some(Cow::Owned(format!("{said}; {certificate}"))),
            (said, certificate) => said.or(certificate.as_deref()).map(Cow::Borrowed),
        };
        let detail = cut.as_deref().or(said.as_deref());
        let (verdict, step) = self.verdict();
        if let Some(error) = &self.error
            && error.whose_fault() != Fault::Client
        {
            let cause = failure_cause(error, step);
            tracing::warn!(request_id = %self.request_id, %error, cause, "request failed");
        }
        let identity = self.identity.as_ref();
        let line = AccessLine {
            time: self.now,
            request_id: &self.request_id,
            http: self.version,
            client: self.client,
            uid: self.uid,
            tenant: self.tenant.as_ref().map(|tenant| tenant.name.as_str()),
            identity: identity.map(Identity::kind),
            key_id: identity.and_then(Identity::key_id).map(|id| &**id),
            session_of: identity.and_then(Identity::access_key).map(|id| &**id),
            subject: identity
                .and_then(Identity::subject)
                .map(|subject| &**subject),
            operation: self.operation,
            sts_action: self.sts_action,
            bucket: self.bucket.as_deref(),
            key: self.key.as_deref(),
            source: self.source.as_deref(),
            denied: self.denied,
            verdict: Some(verdict),
            step,
            status: self.status,
            code: self.error.as_ref().map(|error| error.code().as_str()),
            received,
            unchecked: unchecked.or(self.unchecked.as_deref()),
            sent: self.sent,
            duration: self.started.elapsed(),
            tries: self.tries,
            upstream_time: self.upstream_time,
            upstream_status: self.upstream_status,
            upstream_request_id: self
                .upstream_request_id
                .as_ref()
                .and_then(|id| id.to_str().ok()),
            detail,
        };
        self.proxy.log.write(&line);
    }
}

/// Failures with the same code at the same step have one cause for the program log.
fn failure_cause(error: &S3Error, step: Option<Step>) -> String {
    let step = step.map_or("done", Step::as_str);
    format!("{} at {step}", error.code().as_str())
}

impl ClientBody {
    /// The next bytes for an HTTP/2 stream, no more than a frame's. hyper takes bytes as soon as the
    /// client has room for one, and nobody watches what h2 cannot send: so it never has much.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFailure>>> {
        let gauge = &self.exit.gauge;
        gauge.hand_over(None);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.answer).poll_frame(cx)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(FRAME));
        gauge.hand_over(Some(piece.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = DownloadFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFailure>>> {
        let this = self.get_mut();
        let frame = if this.exit.gauge.is_stream() {
            ready!(this.poll_piece(cx))
        } else {
            ready!(Pin::new(&mut this.answer).poll_frame(cx))
        };
        if let Some(Ok(frame)) = &frame {
            this.exit.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
