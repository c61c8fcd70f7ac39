//! The one exit: whatever happened to a request, its answer leaves here, one log line is written and
//! the counters move, when the last byte has gone or the client has.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Proxy;
use crate::body::{self, Answer, DownloadFailure, Upload};
use crate::counted::{Gauge, Phase};
use crate::observe::{AccessLine, Event};
use crate::s3::xml::sts_error;
use crate::s3::{Fault, Operation, S3Error, S3Request, native};
use crate::tenant::{Authenticated, Identity, Tenant};
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
    /// The request has a body, and it has not been read.
    is_unread: bool,
    is_sts: bool,
    sent: u64,
    operation: Option<Operation>,
    bucket: Option<String>,
    key: Option<String>,
    client: Option<IpAddr>,
    tenant: Option<Arc<Tenant>>,
    identity: Option<Identity>,
    status: StatusCode,
    error: Option<S3Error>,
    upstream_status: Option<StatusCode>,
    upstream_request_id: Option<HeaderValue>,
    cut: Rc<Cell<Option<DownloadFailure>>>,
}

impl Exit {
    /// Boxed: it is moved from hand to hand until the answer's last byte.
    pub(super) fn new(proxy: &Rc<Proxy>, gauge: &Rc<Gauge>, now: Timestamp) -> Box<Self> {
        Box::new(Self {
            proxy: Rc::clone(proxy),
            gauge: Rc::clone(gauge),
            now,
            started: Instant::now(),
            request_id: format!("{:016X}", fastrand::u64(..)),
            received: 0,
            upload: None,
            is_unread: false,
            is_sts: false,
            sent: 0,
            operation: None,
            bucket: None,
            key: None,
            client: None,
            tenant: None,
            identity: None,
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

    /// Notes that the client calls an STS, and reads errors in its form.
    pub(super) fn speaks_sts(&mut self) {
        self.is_sts = true;
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
        self.operation = Some(asked.operation);
        self.bucket = asked.bucket.map(str::to_owned);
        self.key = asked.key.as_ref().map(|key| key.as_str().to_owned());
    }

    /// Notes the client's address.
    pub(super) fn from(&mut self, address: IpAddr) {
        self.client = Some(address);
    }

    /// Notes who asks.
    pub(super) fn caller(&mut self, caller: &Authenticated) {
        self.tenant = Some(caller.share_tenant());
        self.identity = Some(caller.identity().clone());
    }

    /// Notes the body: all of it, or an upload on its way.
    pub(super) fn body(&mut self, body: &body::Request) {
        self.is_unread = false;
        self.received = body.length();
        self.upload = body.upload();
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
        if self.ends_connection() {
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
        response.map(|answer| ClientBody { answer, exit: self })
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
        let resource = head.uri.path();
        let (status, document) = if self.is_sts {
            (error.http_status(), sts_error(error, &self.request_id))
        } else if native::is_native(head) {
            let error = native::error(head, error);
            let document = error.to_native_xml(resource, &self.request_id);
            (error.http_status(), document)
        } else {
            let document = error.to_xml(resource, &self.request_id);
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
        let received = self
            .upload
            .as_ref()
            .map_or(self.received, |u| u.borrow().received());
        let metrics = &self.proxy.metrics;
        metrics.request(self.operation, self.status);
        metrics.add(Event::BytesReceived, received);
        metrics.add(Event::BytesSent, self.sent);
        let cut = self.cut.get().map(|failure| failure.to_string());
        let said = self.error.as_ref().and_then(S3Error::log_detail);
        let detail = cut.as_deref().or(said);
        if let Some(error) = &self.error
            && error.whose_fault() != Fault::Client
        {
            tracing::warn!(request_id = %self.request_id, %error, "request failed");
        }
        let identity = self.identity.as_ref();
        let line = AccessLine {
            time: self.now,
            request_id: &self.request_id,
            client: self.client,
            tenant: self.tenant.as_ref().map(|tenant| tenant.name.as_str()),
            identity: identity.map(Identity::kind),
            key_id: identity.and_then(Identity::key_id).map(|id| &**id),
            subject: identity
                .and_then(Identity::subject)
                .map(|subject| &**subject),
            operation: self.operation,
            bucket: self.bucket.as_deref(),
            key: self.key.as_deref(),
            status: self.status,
            code: self.error.as_ref().map(|error| error.code().as_str()),
            received,
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

impl Body for ClientBody {
    type Data = Bytes;
    type Error = DownloadFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFailure>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.answer).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            this.exit.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
