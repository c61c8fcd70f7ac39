//! The one exit: whatever happened to a request, its answer leaves here, one log line is written and
//! the counters move, when the last byte has gone or the client has.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Proxy;
use super::payload::Outgoing;
use crate::body::{Answer, DownloadFailure, Upload};
use crate::counted::{Gauge, Phase};
use crate::http2::FRAME;
use crate::observe::{AccessLine, Event};
use crate::s3::form::Form;
use crate::s3::{Fault, Operation, S3Error, S3Request};
use crate::sign::encoding::hex;
use crate::tenant::{Authenticated, Identity};
use crate::timestamp::Timestamp;

/// AWS's name for the id of a request; the client sees it on every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
/// COS's own id of the request.
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

/// What is to be said of a request when it is over.
#[derive(Debug)]
pub(super) struct Exit {
    proxy: Rc<Proxy>,
    gauge: Rc<Gauge>,
    now: Timestamp,
    started: Instant,
    request_id: String,
    received: u64,
    upload: Option<Rc<RefCell<Upload>>>,
    unchecked: Option<String>,
    /// The request has a body, and it has not been read.
    is_unread: bool,
    sent: u64,
    version: Version,
    operation: Option<Operation>,
    bucket: Option<String>,
    key: Option<String>,
    tenant: Option<usize>,
    key_id: Option<String>,
    status: StatusCode,
    error: Option<S3Error>,
    upstream_status: Option<StatusCode>,
    upstream_request_id: Option<HeaderValue>,
    cut: Rc<Cell<Option<DownloadFailure>>>,
}

impl Exit {
    /// Boxed: it is moved from hand to hand until the answer's last byte.
    pub(super) fn new(proxy: &Rc<Proxy>, gauge: &Rc<Gauge>, now: Timestamp) -> Box<Self> {
        let mut request_id = hex(&fastrand::u64(..).to_be_bytes());
        request_id.make_ascii_uppercase();
        Box::new(Self {
            proxy: Rc::clone(proxy),
            gauge: Rc::clone(gauge),
            now,
            started: Instant::now(),
            request_id,
            received: 0,
            upload: None,
            unchecked: None,
            is_unread: false,
            sent: 0,
            version: if gauge.is_stream() {
                Version::HTTP_2
            } else {
                Version::HTTP_11
            },
            operation: None,
            bucket: None,
            key: None,
            tenant: None,
            key_id: None,
            status: StatusCode::from_u16(CLIENT_GONE).unwrap_or_default(),
            error: None,
            upstream_status: None,
            upstream_request_id: None,
            cut: Rc::default(),
        })
    }

    /// Notes that a body comes with the request.
    pub(super) fn expects_body(&mut self) {
        self.is_unread = true;
    }

    /// Notes what is asked.
    pub(super) fn asked(&mut self, asked: &S3Request<'_>) {
        self.operation = Some(asked.operation);
        self.bucket = asked.bucket.map(str::to_owned);
        self.key = asked.key.as_ref().map(|key| key.as_str().to_owned());
    }

    /// Notes the key that a form asks for.
    pub(super) fn form(&mut self, form: &Form) {
        self.key = form.get("key").map(str::to_owned);
    }

    /// The client's connection.
    pub(super) fn gauge(&self) -> Rc<Gauge> {
        Rc::clone(&self.gauge)
    }

    /// Notes who asks.
    pub(super) fn caller(&mut self, caller: &Authenticated<'_>) {
        self.tenant = Some(caller.tenant().index);
        self.key_id = match caller.identity() {
            Identity::Anonymous => None,
            Identity::Form(id) | Identity::Header(id) | Identity::Presigned(id) => {
                Some(id.to_owned())
            }
        };
    }

    /// Notes the body: all of it, or an upload on its way.
    pub(super) fn body(&mut self, outgoing: &Outgoing) {
        self.is_unread = false;
        self.received = outgoing.body.length();
        self.upload = outgoing.body.upload();
        self.unchecked = outgoing.unchecked().map(str::to_owned);
    }

    /// Notes COS's answer.
    pub(super) fn upstream(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.upstream_status = Some(status);
        self.upstream_request_id = headers.get(UPSTREAM_REQUEST_ID).cloned();
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
                response
            }
        };
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
        response.body_mut().note_failure(&self.cut);
        response.map(|answer| ClientBody {
            answer,
            rest: Bytes::new(),
            exit: self,
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
        let document = error.to_xml("", &self.request_id);
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
        let document = Bytes::from(error.to_xml(head.uri.path(), &self.request_id));
        let mut response = http::Response::new(Answer::Empty);
        *response.status_mut() = error.http_status();
        let headers = response.headers_mut();
        if let Some(seconds) = error.retry_after_seconds() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        let bodiless = error.http_status() == StatusCode::NOT_MODIFIED;
        if !bodiless {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
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
        let slow = self.gauge.fell_behind();
        let cut = self
            .cut
            .get()
            .or_else(|| slow.then_some(DownloadFailure::ClientSlow));
        let cut = cut.map(|failure| failure.to_string());
        let said = self.error.as_ref().and_then(S3Error::log_detail);
        let detail = cut.as_deref().or(said);
        if let Some(error) = &self.error
            && error.whose_fault() != Fault::Client
        {
            tracing::warn!(request_id = %self.request_id, %error, "request failed");
        }
        let shared = &self.proxy.shared;
        let line = AccessLine {
            time: self.now,
            request_id: &self.request_id,
            http: self.version,
            tenant: self
                .tenant
                .and_then(|index| Some(shared.tenants.get(index)?.name.as_str())),
            key_id: self.key_id.as_deref(),
            operation: self.operation,
            bucket: self.bucket.as_deref(),
            key: self.key.as_deref(),
            status: self.status,
            code: self.error.as_ref().map(|error| error.code().as_str()),
            received,
            unchecked: unchecked.or(self.unchecked.as_deref()),
            sent: self.sent,
            duration: self.started.elapsed(),
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
