//! One exchange with COS: key, fresh head, signature, response, and the decision to try again.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Duration, Instant};

use super::Proxy;
use super::in_flight::InFlight;
use super::payload::Outgoing;
use super::sign::{Signing, sign};
use crate::upstream::retry::Tries;

use crate::body::shape::Shaper;
use crate::body::{self, DownloadFailure, ResponseBody, ResponseConnection as _};
use crate::config::{StoredCheck, UpstreamSignature};
use crate::credentials::{Credential, Entry};
use crate::decision::{Step, document};
use crate::error::{Code, Fault, S3Error};
use crate::observe::{Event, TracePartKind};
use crate::payload::checksum::Verified;
use crate::payload::compare_stored;
use crate::rewrite::listing::ResponseRewriter;
use crate::rewrite::{self, UpstreamRequest};
use crate::s3::address::Address;
use crate::s3::native::vocabulary;
use crate::s3::{ObjectKey, Operation, Performer, SuccessKind, conditions, xml};
use crate::tenant::Permit;
use crate::tenant::limits::Direction;
use crate::timestamp::Timestamp;
use crate::upstream::pool::{LeasedConnection, SendFailure};

/// COS's error documents are a few hundred bytes; one that is larger is not read.
const ERROR_BYTES: usize = 64 * 1024;
const PIC_OPERATIONS: HeaderName = HeaderName::from_static("pic-operations");
const ERROR_TIME: Duration = Duration::from_secs(10);
/// The result of a multi-delete of 1000 keys of 850 bytes, each byte percent-encoded or escaped.
const DELETE_RESULT_BYTES: usize = 8 * 1024 * 1024;

/// One request to COS: its permit, caller and body.
#[derive(Clone, Copy)]
pub(super) struct UpstreamCall<'c> {
    pub(super) permit: &'c Permit<'c, 'c>,
    /// The client's head, in S3's words.
    pub(super) head: &'c Parts,
    pub(super) body: &'c Outgoing,
}

/// COS's response, before anything of it has been looked at.
struct RawResponse {
    response: Response<Incoming>,
    lease: Box<LeasedConnection>,
}

impl Proxy {
    /// Has COS do what the permit allows, and makes its response the client's. `fresh` is the head of the
    /// first try, made before the client sends its body; later tries make it anew.
    pub(super) async fn exchange(
        &self,
        call: UpstreamCall<'_>,
        fresh: UpstreamRequest,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        let UpstreamCall { permit, head, body } = call;
        let operation = permit.request().operation;
        if operation == Operation::DeleteObjects && body.body.length() == 0 {
            return Ok(delete_result(xml::DeleteResult::default(), body));
        }
        let entry = self.shared.credentials.entry_of(permit.tenant())?;
        let conditional = conditions::depends_on_target(&head.headers);
        let mut tries = Tries::of(operation, conditional);
        self.budget.earn();
        let mut fresh = Some(fresh);
        let mut may_be_done = false;
        loop {
            in_flight.record.step = Step::Credential;
            in_flight.record.begins(TracePartKind::Key);
            let credential = self.credential(&entry).await?;
            in_flight.record.ends(None);
            let request = match fresh.take() {
                Some(fresh) => fresh,
                None => rewrite::request(permit, head, &self.config().upstream)?,
            };
            in_flight.record.reaches_upstream();
            let raw = match self.send(permit, request, body, &credential).await {
                Ok(raw) => raw,
                Err(failure) => {
                    in_flight.record.ends(None);
                    may_be_done |= failure.may_be_done();
                    self.retry_after_failure(failure, &body.body, &mut tries)?;
                    continue;
                }
            };
            let response = &raw.response;
            let record = &mut in_flight.record;
            record.upstream_responded(response.status(), response.headers());
            let status = raw.response.status();
            if status.is_success() || status == StatusCode::NOT_MODIFIED {
                return self.accept(call, raw, &credential, in_flight).await;
            }
            let refused = Box::pin(self.refused(call, raw, &credential)).await;
            if may_be_done && is_done_before(operation, &refused.error) {
                return Ok(no_content());
            }
            self.retry_after_refusal(refused, call, &mut tries, || {
                entry.reject(credential.generation)
            })?;
        }
    }

    /// A live temporary key. Waits for STS only if there is none.
    async fn credential(&self, entry: &Arc<Entry>) -> Result<Arc<Credential>, S3Error> {
        if let Some(live) = entry.live(Instant::now()) {
            self.metrics.count(Event::CacheHit);
            return Ok(live);
        }
        self.metrics.count(Event::CacheMiss);
        let began = Instant::now();
        let credential = entry.get().await;
        self.metrics.waited_for_key(began.elapsed());
        Ok(credential?)
    }

    /// Checks COS's success, and relays it.
    async fn accept(
        &self,
        call: UpstreamCall<'_>,
        mut raw: RawResponse,
        credential: &Credential,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        let status = raw.response.status();
        if status.is_success() && !call.body.body.is_sent() {
            return Err(self.early_success(&call.body.body));
        }
        let reads = matches!(call.head.method, Method::GET | Method::HEAD);
        if status == StatusCode::NOT_MODIFIED && !reads {
            // This is no response to a write (RFC 9110 section 13.2.2), so it may not have been done.
            return Err(bad_gateway("COS responded to a write with 304"));
        }
        credential.mark_worked();
        let operation = call.permit.request().operation;
        self.check_success(&mut raw, operation, &call.head.headers)
            .await?;
        self.relay(call, raw, in_flight).await
    }

    /// Reads COS's refusal, and fetches the reason where a HEAD has no body that would give it.
    async fn refused(
        &self,
        UpstreamCall { permit, head, .. }: UpstreamCall<'_>,
        raw: RawResponse,
        credential: &Credential,
    ) -> UpstreamRefusal {
        let status = raw.response.status();
        let mut refused = self.read_error(raw, permit).await;
        let sent = permit.request().operation.upstream_method();
        if sent == Some(Method::HEAD)
            && matches!(status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN)
            && let Some(why) = Box::pin(self.fetch_reason(permit, head, credential)).await
        {
            refused.is_key_refused = why.is_key_refused;
            refused.is_time_refused = why.is_time_refused;
        }
        if status == StatusCode::NOT_FOUND && !refused.is_key_refused {
            credential.mark_worked();
        }
        refused
    }

    /// Returns `Ok` if the request may be sent again after COS's refusal, and otherwise the error for the client.
    /// `renew` drops the key, and returns whether there will be another.
    fn retry_after_refusal(
        &self,
        refused: UpstreamRefusal,
        call: UpstreamCall<'_>,
        tries: &mut Tries,
        renew: impl FnOnce() -> bool,
    ) -> Result<(), S3Error> {
        let replayable = call.body.body.again().is_some();
        if refused.is_body_damaged {
            self.metrics.count(Event::Damaged);
            if tries.after_damage(replayable, &self.budget) {
                self.metrics.count(Event::Retry);
                return Ok(());
            }
        }
        if refused.is_time_refused && tries.after_time_refused(replayable) {
            return Ok(());
        }
        if refused.is_key_refused && renew() && tries.after_key_refused(replayable) {
            return Ok(());
        }
        Err(refused.error)
    }

    /// Signs and sends.
    async fn send(
        &self,
        permit: &Permit<'_, '_>,
        mut fresh: UpstreamRequest,
        outgoing: &Outgoing,
        credential: &Credential,
    ) -> Result<RawResponse, ExchangeFailure> {
        let body = outgoing.body.again().ok_or(ExchangeFailure::UsedUp)?;
        if let Some(md5) = &outgoing.md5 {
            fresh.headers.insert(
                "content-md5",
                HeaderValue::from_str(md5).map_err(S3Error::internal)?,
            );
            fresh
                .headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        if let Some(acl) = outgoing.acl {
            let name = match self.config().upstream.signature {
                UpstreamSignature::Cos => "x-cos-acl",
                UpstreamSignature::S3 => "x-amz-acl",
            };
            fresh.headers.insert(name, HeaderValue::from_static(acl));
        }
        if matches!(fresh.method, Method::PUT | Method::POST) {
            fresh.headers.insert(CONTENT_LENGTH, body.length().into());
        }
        let (authority, request) = self.signed(permit, fresh, body, outgoing.sha256, credential)?;
        let sent = self.upstream.send(&authority, request, &outgoing.body);
        let sent = sent.await;
        match &sent {
            Ok((response, _)) => self.metrics.upstream_responded(response.status()),
            Err(SendFailure::Broken(_) | SendFailure::Framing(_)) => {
                self.metrics.count(Event::UpstreamBroken);
            }
            Err(SendFailure::Connect(_) | SendFailure::Unsent) => {
                self.metrics.count(Event::UpstreamConnectFailed);
            }
            Err(SendFailure::Timeout) => self.metrics.count(Event::UpstreamTimeout),
        }
        let (response, lease) = sent.map_err(ExchangeFailure::Send)?;
        Ok(RawResponse { response, lease })
    }

    /// The request as it is sent, signed as configured and at COS's time, and the authority that it goes to.
    fn signed(
        &self,
        permit: &Permit<'_, '_>,
        mut fresh: UpstreamRequest,
        body: body::RequestBody,
        sha256: Option<[u8; 32]>,
        credential: &Credential,
    ) -> Result<(String, http::Request<body::RequestBody>), S3Error> {
        let signing = Signing {
            signature: self.config().upstream.signature,
            region: permit.grant().map_or("", |grant| grant.region.as_str()),
            now: self.shared.clock.upstream_now(),
        };
        sign(&mut fresh, credential, sha256, signing)?;
        let mut request = http::Request::new(body);
        *request.method_mut() = fresh.method;
        *request.uri_mut() = fresh.target.try_into().map_err(S3Error::internal)?;
        *request.headers_mut() = fresh.headers;
        Ok((fresh.authority, request))
    }

    /// Returns `Ok` if a request without a response may be sent again, and otherwise the error for the client.
    fn retry_after_failure(
        &self,
        failure: ExchangeFailure,
        body: &body::RequestBody,
        tries: &mut Tries,
    ) -> Result<(), S3Error> {
        let failure = match failure {
            ExchangeFailure::Refused(error) => return Err(error),
            ExchangeFailure::Send(failure) => failure,
            ExchangeFailure::UsedUp => return Err(bad_gateway("the body cannot be sent again")),
        };
        if let Some(upload) = body.failure() {
            self.metrics.count(Event::BodyWithheld);
            return Err(upload.into());
        }
        let again = match &failure {
            SendFailure::Broken(_) => tries.after_broken(body.again().is_some(), &self.budget),
            SendFailure::Connect(_) | SendFailure::Unsent => {
                tries.after_no_connection(&self.budget)
            }
            // The response was whole, and another try would bring the same.
            SendFailure::Framing(_) | SendFailure::Timeout => false,
        };
        if again {
            self.metrics.count(Event::Retry);
            return Ok(());
        }
        Err(match failure {
            SendFailure::Timeout => S3Error::new(
                Code::GatewayTimeout,
                "The store did not respond in time. Try again later.",
            )
            .fault(Fault::Upstream)
            .detail(failure.to_string()),
            SendFailure::Broken(_)
            | SendFailure::Connect(_)
            | SendFailure::Framing(_)
            | SendFailure::Unsent => bad_gateway(failure.to_string()),
        })
    }

    /// The error for a success that COS reports before it can have the whole body: no object can be
    /// trusted that our checks have not passed.
    fn early_success(&self, body: &body::RequestBody) -> S3Error {
        match body.failure() {
            Some(upload) => {
                self.metrics.count(Event::BodyWithheld);
                upload.into()
            }
            None => bad_gateway("COS reported a success before it had the whole body"),
        }
    }

    /// Refuses a success that is none: without the `ETag` of what was stored, with another part of an
    /// object than was requested, or with a document, which may be an error, where none belongs. Nothing of
    /// it reaches the client.
    async fn check_success(
        &self,
        raw: &mut RawResponse,
        operation: Operation,
        requested: &HeaderMap,
    ) -> Result<(), S3Error> {
        let unusable = |what: String| {
            self.metrics.count(Event::ResponseUnusable);
            Err(bad_gateway(what))
        };
        let response = &mut raw.response;
        if operation.takes_object_body() {
            let etags = response.headers().get_all(ETAG).iter();
            if etags.filter(|etag| !etag.is_empty()).count() != 1 {
                return unusable("COS reported a success without an ETag".to_owned());
            }
        }
        let (status, headers) = (response.status(), response.headers());
        if let Err(what) = rewrite::check_range(operation, requested, status, headers) {
            return unusable(what.to_owned());
        }
        let body = response.body_mut();
        if !operation.responds_without_body()
            || body.is_end_stream()
            || requested.contains_key(PIC_OPERATIONS)
        {
            return Ok(()); // what data processing has made, COS reports in a document (436/54050)
        }
        match Box::pin(body::gather(body, ERROR_BYTES, ERROR_TIME, |_| true)).await {
            Ok(none) if none.is_empty() => Ok(()),
            Ok(document) => unusable(format!(
                "COS reported a success with a body of {} bytes, the error {:?}",
                document.len(),
                rewrite::error_code_of(&document),
            )),
            Err(failure) => unusable(format!(
                "COS reported a success with a body that cannot be read: {failure:?}"
            )),
        }
    }

    /// Makes the client's response of COS's success.
    async fn relay(
        &self,
        call: UpstreamCall<'_>,
        raw: RawResponse,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        let UpstreamCall {
            permit,
            head,
            body: outgoing,
        } = call;
        let RawResponse { response, lease } = raw;
        let (upstream, incoming) = response.into_parts();
        let operation = permit.request().operation;
        let has_length = incoming.is_end_stream() || incoming.size_hint().exact().is_some();
        if operation == Operation::GetObject && head.version < Version::HTTP_11 && !has_length {
            return Err(without_chunks());
        }
        let sent = outgoing.verified();
        if let Some(sent) = &sent {
            self.compare_stored(sent, &upstream.headers)?;
        }
        let mut headers = rewrite::response_headers(operation, upstream.headers)?;
        let mut status = upstream.status;
        if permit.request().part_read().is_some() {
            status = rewrite::as_only_part(status, &mut headers);
        }
        if let Some(sent) = sent {
            headers.extend(sent.echo());
        }
        if operation.performer() == Performer::CosByHead {
            lease.release();
            let attributes = rewrite::attributes(&head.headers, &mut headers);
            let mut response = document(attributes).map(ResponseBody::text);
            response.headers_mut().extend(headers);
            return Ok(response);
        }
        if let SuccessKind::Configuration(kind) = operation.response() {
            let stored = self.read_document(incoming, lease, kind.max_bytes());
            let stored = Box::pin(stored).await?;
            let text = rewrite::configuration(kind, &stored, permit, vocabulary(head))
                .inspect_err(|_| self.metrics.count(Event::ResponseUnusable))?;
            let mut response = document(text).map(ResponseBody::text);
            response.headers_mut().extend(headers);
            return Ok(response);
        }
        if operation == Operation::DeleteObjects {
            let deleted = self.relay_delete_result(call, incoming, lease, in_flight);
            return Box::pin(deleted).await;
        }
        let body = self.stream(call, incoming, lease, in_flight).await?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// The body of COS's response, rewritten where it names the real bucket or keys in it.
    async fn stream(
        &self,
        UpstreamCall { permit, head, .. }: UpstreamCall<'_>,
        incoming: Incoming,
        lease: Box<LeasedConnection>,
        in_flight: &mut InFlight,
    ) -> Result<ResponseBody, S3Error> {
        let (request, reader) = (permit.request(), in_flight.reader);
        let location = if request.operation == Operation::CompleteMultipartUpload {
            let key = request.key.as_ref().map_or("", ObjectKey::as_str);
            self.location(head, reader.tls, key)
        } else {
            String::new()
        };
        let signature = self.config().upstream.signature;
        let rewriter = ResponseRewriter::new(permit, signature, reader.is_native, location);
        let is_rewritten = rewriter.is_some();
        let shaper = Shaper::new(permit.tenant(), Direction::Download);
        let mut pace = self.pace();
        if request.operation.may_fail_after_success() {
            pace.bytes = 1; // white space now and then, while COS copies or joins parts (436/7742, 436/10881)
        }
        let body = ResponseBody::stream(incoming, lease, &in_flight.stream_state, pace, rewriter);
        let mut body = body.shaped(shaper);
        if is_rewritten {
            Box::pin(body.begin()).await.map_err(|failure| {
                in_flight.record.unusable = Some(failure);
                bad_gateway(failure.to_string())
            })?;
        }
        Ok(body)
    }

    /// The last check of an upload: COS must report what was sent. It has stored something by now, so
    /// all that can be done is to report it to the client and the operator.
    fn compare_stored(&self, sent: &Verified, reported: &HeaderMap) -> Result<(), S3Error> {
        if self.config().upstream.stored_check == StoredCheck::Off {
            return Ok(());
        }
        compare_stored(sent, reported).map_err(|stored| {
            self.metrics.count(Event::StoredOtherwise);
            S3Error::new(
                Code::InternalError,
                "The store reports a checksum that differs from that of the sent bytes. Send them again.",
            )
            .fault(Fault::Upstream)
            .detail(stored.to_string())
        })
    }

    /// The URL of `key` in the bucket that the client requested, as it reached it.
    pub(super) fn location(&self, head: &Parts, tls: bool, key: &str) -> String {
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let (host, domains) = (host.unwrap_or_default(), &self.config().server.domains);
        // It has been parsed before.
        Address::object_url(&head.uri, host, tls, domains, key).unwrap_or_default()
    }

    /// The result of a multi-delete: read whole, and an entry added for each key that was refused here.
    async fn relay_delete_result(
        &self,
        UpstreamCall { permit, body, .. }: UpstreamCall<'_>,
        incoming: Incoming,
        lease: Box<LeasedConnection>,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        let result = self
            .read_document(incoming, lease, DELETE_RESULT_BYTES)
            .await?;
        let mut result = xml::DeleteResult::parse(&result, DELETE_RESULT_BYTES)
            .map_err(|error| bad_gateway(format!("the result of a multi-delete: {error}")))?;
        let grant = permit
            .grant()
            .ok_or_else(|| S3Error::internal("no grant"))?;
        rewrite::delete_result(&mut result, grant).map_err(|_| {
            in_flight.record.unusable = Some(DownloadFailure::OutOfScope);
            bad_gateway("the result of a multi-delete named a key outside the grant")
        })?;
        result.fail_unreported(&body.must_report);
        Ok(delete_result(result, body))
    }

    /// A document of COS, of no more than `max` bytes.
    async fn read_document(
        &self,
        mut incoming: Incoming,
        lease: Box<LeasedConnection>,
        max: usize,
    ) -> Result<Bytes, S3Error> {
        let head_timeout = self.config().upstream.limits.head_timeout;
        let body = body::gather(&mut incoming, max, head_timeout, |_| true)
            .await
            .map_err(|failure| bad_gateway(format!("a document of COS: {failure:?}")))?;
        lease.release();
        Ok(body)
    }

    /// Reads COS's error document, and makes ours of it.
    async fn read_error(&self, raw: RawResponse, permit: &Permit<'_, '_>) -> UpstreamRefusal {
        let RawResponse { response, lease } = raw;
        let (upstream, mut incoming) = response.into_parts();
        let body = body::gather(&mut incoming, ERROR_BYTES, ERROR_TIME, |_| true).await;
        let is_whole = body.is_ok();
        let body = body.unwrap_or_default();
        let error = rewrite::read_error(&body);
        let is_body_damaged = rewrite::is_damage(upstream.status, &error);
        if is_whole && !is_body_damaged {
            lease.release(); // a connection that damaged a body is not used again
        }
        let date = upstream.headers.get(DATE);
        let date = date.and_then(|date| Timestamp::parse_http_date(date.to_str().ok()?));
        let date = date.filter(|_| rewrite::is_clock_refusal(upstream.status, &error));
        if let Some(date) = date {
            self.shared.clock.resync(date); // the next try is signed with COS's time
        }
        UpstreamRefusal {
            is_key_refused: rewrite::is_credential_refusal(upstream.status, &error),
            is_time_refused: date.is_some(),
            is_body_damaged,
            error: rewrite::upstream_error(upstream.status, &error, permit)
                .headers(rewrite::delete_marker(upstream.status, &upstream.headers)),
        }
    }

    /// Why COS refuses a HEAD: its response has no body that would distinguish a refused key or time from
    /// a refused right, so the first byte is requested by GET, whose error has one.
    async fn fetch_reason(
        &self,
        permit: &Permit<'_, '_>,
        head: &Parts,
        credential: &Credential,
    ) -> Option<UpstreamRefusal> {
        let mut probe = rewrite::request(permit, head, &self.config().upstream).ok()?;
        probe.method = Method::GET;
        probe
            .headers
            .insert("range", HeaderValue::from_static("bytes=0-0"));
        let none = body::RequestBody::Empty;
        let signed = self.signed(permit, probe, body::RequestBody::Empty, None, credential);
        let (authority, request) = signed.ok()?;
        let sent = self.upstream.send(&authority, request, &none).await;
        let (response, lease) = sent.ok()?;
        let raw = RawResponse { response, lease };
        Some(self.read_error(raw, permit).await)
    }
}

/// COS's refusal: what it means for a retry, and the error for the client.
struct UpstreamRefusal {
    /// COS does not take our key.
    is_key_refused: bool,
    /// COS does not take the time that was signed, and its response has the right one.
    is_time_refused: bool,
    /// The body did not reach COS as it was sent.
    is_body_damaged: bool,
    error: S3Error,
}

/// Why a request brought no response.
enum ExchangeFailure {
    /// It cannot be made.
    Refused(S3Error),
    /// It was sent.
    Send(SendFailure),
    /// Its body is gone.
    UsedUp,
}

impl ExchangeFailure {
    /// Whether COS may have done what was requested, though its response did not come.
    fn may_be_done(&self) -> bool {
        let Self::Send(failure) = self else {
            return false;
        };
        match failure {
            SendFailure::Broken(_) | SendFailure::Framing(_) | SendFailure::Timeout => true,
            SendFailure::Connect(_) | SendFailure::Unsent => false,
        }
    }
}

/// Whether the refusal of a second try shows that the first one was carried out: an upload that was aborted is not
/// there any more.
fn is_done_before(operation: Operation, refusal: &S3Error) -> bool {
    operation == Operation::AbortMultipartUpload && refusal.code() == Code::NoSuchUpload
}

fn no_content() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

impl From<S3Error> for ExchangeFailure {
    fn from(error: S3Error) -> Self {
        Self::Refused(error)
    }
}

/// An object of unknown length over HTTP/1.0, where the end of the connection is the end of the object
/// (RFC 9112 section 6.3): one that was cut short would pass for whole. XML has an end of its own.
fn without_chunks() -> S3Error {
    S3Error::new(
        Code::NotImplemented,
        "The store did not report the length of this object, and HTTP/1.0 cannot show whether it arrives whole. Use HTTP/1.1.",
    )
}

/// COS's result of a multi-delete, with an entry for each key that the caller may not delete.
fn delete_result(mut result: xml::DeleteResult, outgoing: &Outgoing) -> Response<ResponseBody> {
    result
        .failures
        .extend(outgoing.denied.iter().map(|object| xml::DeleteFailure {
            key: object.key.clone(),
            version_id: object.version_id.clone(),
            code: Code::AccessDenied.as_str().to_owned(),
            message: "You may not delete this key.".to_owned(),
        }));
    if outgoing.quiet {
        result.deleted.clear();
    }
    document(result.to_xml()).map(ResponseBody::text)
}

fn bad_gateway(detail: impl Into<String>) -> S3Error {
    S3Error::new(
        Code::BadGateway,
        "The store could not be reached, or sent no valid response. Try again.",
    )
    .fault(Fault::Upstream)
    .detail(detail)
}
