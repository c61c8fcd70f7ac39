//! One exchange with COS: a key, a fresh head, a signature, the answer. And when to try once more.

use std::rc::Rc;

use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HOST, HeaderValue, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Duration, Instant};

use super::Proxy;
use super::exit::Exit;
use super::local::document;
use super::payload::Outgoing;
use super::sign::sign;
use crate::upstream::retry::Tries;

use crate::body::shape::Shaper;
use crate::body::{self, Answer, DownloadFailure, Lease as _};
use crate::config::StoredCheck;
use crate::credentials::Credential;
use crate::error::{Code, Fault, S3Error};
use crate::observe::{Event, Step};
use crate::payload::checksum::Verified;
use crate::payload::compare_stored;
use crate::rewrite::listing::AnswerRewriter;
use crate::rewrite::{self, UpstreamRequest};
use crate::s3::address::Address;
use crate::s3::{ObjectKey, Operation, Performer, conditions, xml};
use crate::tenant::Permit;
use crate::tenant::limits::Way;
use crate::timestamp::Timestamp;
use crate::transport::Gauge;
use crate::upstream::pool::{Lease, SendFailure};

/// COS's error documents are a few hundred bytes; one that is larger is not read.
const ERROR_BYTES: usize = 64 * 1024;
const ERROR_TIME: Duration = Duration::from_secs(10);
/// The result of a multi-delete of 1000 keys of 850 bytes, each byte percent-encoded or escaped.
const DELETE_RESULT_BYTES: usize = 8 * 1024 * 1024;

/// COS's answer, before anything of it has been looked at.
struct Answered {
    response: Response<Incoming>,
    lease: Box<Lease>,
}

impl Proxy {
    /// Has COS do what `permit` allows, and makes its answer the client's. `fresh` is the head of the
    /// first try, made before the client was asked for its body; later tries make it anew.
    pub(super) async fn exchange(
        &self,
        permit: &Permit<'_, '_>,
        head: &Parts,
        fresh: UpstreamRequest,
        outgoing: Outgoing,
        gauge: &Rc<Gauge>,
        exit: &mut Exit,
    ) -> Result<Response<Answer>, S3Error> {
        let operation = permit.request().operation;
        if operation == Operation::DeleteObjects && outgoing.body.length() == 0 {
            return Ok(delete_result(xml::DeleteResult::default(), &outgoing));
        }
        let entry = self.shared.credentials.entry_of(permit.tenant())?;
        let conditional = conditions::depends_on_target(&head.headers);
        let mut tries = Tries::of(operation, conditional);
        self.budget.earn();
        let mut fresh = Some(fresh);
        loop {
            exit.at(Step::Credential);
            let credential = if let Some(live) = entry.live(Instant::now()) {
                self.metrics.count(Event::CacheHit);
                live
            } else {
                self.metrics.count(Event::CacheMiss);
                entry.get().await?
            };
            let request = match fresh.take() {
                Some(fresh) => fresh,
                None => rewrite::request(permit, head, &self.config().upstream)?,
            };
            exit.asks_upstream();
            let mut answered = match self.send(permit, request, &outgoing, &credential).await {
                Ok(answered) => answered,
                Err(failure) => {
                    self.judge(failure, &outgoing.body, &mut tries)?;
                    continue;
                }
            };
            exit.upstream(answered.response.status(), answered.response.headers());
            check_framing(&answered.response)?;
            let status = answered.response.status();
            if status.is_success() && !outgoing.body.is_sent() {
                return Err(self.early_success(&outgoing.body));
            }
            let reads = matches!(head.method, Method::GET | Method::HEAD);
            if status == StatusCode::NOT_MODIFIED && !reads {
                // No answer to a write (RFC 9110 section 13.2.2): nothing says that it was done.
                return Err(bad_gateway("COS answered a write with 304"));
            }
            if status.is_success() || status == StatusCode::NOT_MODIFIED {
                credential.mark_worked();
                self.check_success(&mut answered, operation, &head.headers)
                    .await?;
                let answer = self.relay(permit, head, answered, &outgoing, gauge, exit);
                return answer.await;
            }
            let mut refused = Box::pin(self.read_error(answered, permit)).await;
            if head.method == Method::HEAD
                && matches!(status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN)
                && let Some(why) = Box::pin(self.ask_why(permit, head, &credential)).await
            {
                (refused.key, refused.time) = (why.key, why.time);
            }
            let replayable = outgoing.body.again().is_some();
            if refused.damaged {
                self.metrics.count(Event::Damaged);
                if tries.after_damage(replayable, &self.budget) {
                    self.metrics.count(Event::Retry);
                    continue;
                }
            }
            if refused.time && tries.after_time_refused(replayable) {
                continue;
            }
            if !refused.key {
                if status == StatusCode::NOT_FOUND {
                    credential.mark_worked();
                }
                return Err(refused.error);
            }
            let renewed = entry.reject(credential.generation);
            if !(renewed && tries.after_key_refused(replayable)) {
                return Err(refused.error);
            }
        }
    }

    /// Signs and sends.
    async fn send(
        &self,
        permit: &Permit<'_, '_>,
        mut fresh: UpstreamRequest,
        outgoing: &Outgoing,
        credential: &Credential,
    ) -> Result<Answered, Failure> {
        let body = outgoing.body.again().ok_or(Failure::UsedUp)?;
        if let Some(md5) = &outgoing.md5 {
            fresh
                .headers
                .insert("content-md5", HeaderValue::from_str(md5).map_err(internal)?);
            fresh
                .headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        if matches!(fresh.method, Method::PUT | Method::POST) {
            fresh.headers.insert(CONTENT_LENGTH, body.length().into());
        }
        let region = permit.grant().map_or("", |grant| grant.region.as_str());
        self.sign(&mut fresh, credential, region, outgoing.sha256)?;
        let mut request = http::Request::new(body);
        *request.method_mut() = fresh.method;
        *request.uri_mut() = fresh.target.try_into().map_err(internal)?;
        *request.headers_mut() = fresh.headers;
        let sent = self
            .upstream
            .send(&fresh.authority, request, &outgoing.body)
            .await;
        match &sent {
            Ok((response, _)) => self.metrics.upstream_answered(response.status()),
            Err(SendFailure::Broken(_) | SendFailure::Framing(_)) => {
                self.metrics.count(Event::UpstreamBroken);
            }
            Err(SendFailure::Connect(_) | SendFailure::Unsent) => {
                self.metrics.count(Event::UpstreamConnectFailed);
            }
            Err(SendFailure::Timeout) => self.metrics.count(Event::UpstreamTimeout),
        }
        let (response, lease) = sent.map_err(Failure::Send)?;
        Ok(Answered { response, lease })
    }

    /// Signs, as configured and at COS's time.
    fn sign(
        &self,
        request: &mut UpstreamRequest,
        credential: &Credential,
        region: &str,
        sha256: Option<[u8; 32]>,
    ) -> Result<(), S3Error> {
        let signature = self.config().upstream.signature;
        let now = self.shared.clock.upstream_now();
        sign(request, signature, credential, region, sha256, now)
    }

    /// `Ok` when the request may be sent again; else the error for the client.
    fn judge(
        &self,
        failure: Failure,
        body: &body::Request,
        tries: &mut Tries,
    ) -> Result<(), S3Error> {
        let failure = match failure {
            Failure::Refused(error) => return Err(error),
            Failure::Send(failure) => failure,
            Failure::UsedUp => return Err(bad_gateway("the body cannot be sent again")),
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
            // It was whole, and no better for being asked for again.
            SendFailure::Framing(_) | SendFailure::Timeout => false,
        };
        if again {
            self.metrics.count(Event::Retry);
            return Ok(());
        }
        Err(match failure {
            SendFailure::Timeout => S3Error::new(
                Code::GatewayTimeout,
                "The storage did not answer in time. Try again later.",
            )
            .fault(Fault::Upstream)
            .detail(failure.to_string()),
            SendFailure::Broken(_)
            | SendFailure::Connect(_)
            | SendFailure::Framing(_)
            | SendFailure::Unsent => bad_gateway(failure.to_string()),
        })
    }

    /// What the client is told of a success that COS reports before it can have the whole body: no
    /// object can be trusted that our checks have not passed.
    fn early_success(&self, body: &body::Request) -> S3Error {
        match body.failure() {
            Some(upload) => {
                self.metrics.count(Event::BodyWithheld);
                upload.into()
            }
            None => bad_gateway("COS reported a success before it had the whole body"),
        }
    }

    /// Refuses a success that is none: without the `ETag` of what was stored, with another part of an
    /// object than was asked, or with a document, which may tell of an error, where none belongs. Nothing
    /// of it reaches the client.
    async fn check_success(
        &self,
        answered: &mut Answered,
        operation: Operation,
        asked: &HeaderMap,
    ) -> Result<(), S3Error> {
        let unusable = |what: String| {
            self.metrics.count(Event::AnswerUnusable);
            Err(bad_gateway(what))
        };
        let response = &mut answered.response;
        let etags = response.headers().get_all(ETAG).iter();
        if operation.takes_object_body() && etags.filter(|etag| !etag.is_empty()).count() != 1 {
            return unusable("COS reported a success without an ETag".to_owned());
        }
        let (status, headers) = (response.status(), response.headers());
        if let Err(what) = rewrite::check_range(operation, asked, status, headers) {
            return unusable(what.to_owned());
        }
        // What data processing has made, COS reports in a document (436/54050).
        let reports = asked.contains_key("pic-operations");
        let body = response.body_mut();
        if !operation.answers_without_body() || reports || body.is_end_stream() {
            return Ok(());
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

    /// A success on its way to the client.
    async fn relay(
        &self,
        permit: &Permit<'_, '_>,
        head: &Parts,
        answered: Answered,
        outgoing: &Outgoing,
        gauge: &Rc<Gauge>,
        exit: &Exit,
    ) -> Result<Response<Answer>, S3Error> {
        let Answered { response, lease } = answered;
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
            let mut answer = document(rewrite::attributes(&head.headers, &mut headers));
            answer.headers_mut().extend(headers);
            return Ok(answer);
        }
        if operation == Operation::DeleteObjects {
            let mut result = Box::pin(self.read_delete_result(incoming, lease)).await?;
            let grant = permit.grant().ok_or_else(|| internal("no grant"))?;
            rewrite::delete_result(&mut result, grant).map_err(|_| {
                exit.was_cut(DownloadFailure::OutOfScope);
                bad_gateway("the result of a multi-delete named a key outside the grant")
            })?;
            result.answer_for(&outgoing.answered_for);
            return Ok(delete_result(result, outgoing));
        }
        let key = permit.request().key.as_ref().map_or("", ObjectKey::as_str);
        let location = if operation == Operation::CompleteMultipartUpload {
            self.location(head, exit.reader().tls, key)
        } else {
            String::new()
        };
        let signature = self.config().upstream.signature;
        let rewriter = AnswerRewriter::new(permit, signature, exit.reader().native, location);
        let is_rewritten = rewriter.is_some();
        let shaper = Shaper::new(permit.tenant(), Way::Download);
        let answer = Answer::stream(incoming, lease, gauge, self.pace(), rewriter);
        let mut answer = answer.shaped(shaper);
        if is_rewritten {
            Box::pin(answer.begin()).await.map_err(|failure| {
                exit.was_cut(failure);
                bad_gateway(failure.to_string())
            })?;
        }
        let mut answer = Response::new(answer);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    /// The last check of an upload: COS must report what was sent. It has stored something by now, so
    /// all that can be done is to tell the client and the operator.
    fn compare_stored(&self, sent: &Verified, answer: &HeaderMap) -> Result<(), S3Error> {
        if self.config().upstream.stored_check == StoredCheck::Off {
            return Ok(());
        }
        compare_stored(sent, answer).map_err(|stored| {
            self.metrics.count(Event::StoredOtherwise);
            S3Error::new(
                Code::InternalError,
                "The storage reports another checksum than that of the bytes it was sent. Send them again.",
            )
            .fault(Fault::Upstream)
            .detail(stored.to_string())
        })
    }

    /// The URL of `key` in the bucket that the client asked, as it reached it.
    pub(super) fn location(&self, head: &Parts, tls: bool, key: &str) -> String {
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let (host, domains) = (host.unwrap_or_default(), &self.config().server.domains);
        // It has been parsed before.
        Address::object_url(&head.uri, host, tls, domains, key).unwrap_or_default()
    }

    async fn read_delete_result(
        &self,
        mut incoming: Incoming,
        lease: Box<Lease>,
    ) -> Result<xml::DeleteResult, S3Error> {
        let head_timeout = self.config().upstream.limits.head_timeout;
        let body = body::gather(&mut incoming, DELETE_RESULT_BYTES, head_timeout, |_| true)
            .await
            .map_err(|failure| bad_gateway(format!("the result of a multi-delete: {failure:?}")))?;
        lease.release();
        xml::DeleteResult::parse(&body, DELETE_RESULT_BYTES)
            .map_err(|error| bad_gateway(format!("the result of a multi-delete: {error}")))
    }

    /// Reads COS's error document, and makes ours of it.
    async fn read_error(&self, answered: Answered, permit: &Permit<'_, '_>) -> Refused {
        let Answered { response, lease } = answered;
        let (upstream, mut incoming) = response.into_parts();
        let body = body::gather(&mut incoming, ERROR_BYTES, ERROR_TIME, |_| true).await;
        let is_whole = body.is_ok();
        let body = body.unwrap_or_default();
        let damaged = rewrite::is_damage(upstream.status, &body);
        if is_whole && !damaged {
            lease.release(); // a way that damages is not taken again
        }
        let date = upstream.headers.get(DATE);
        let date = date.and_then(|date| Timestamp::parse_http_date(date.to_str().ok()?));
        let date = date.filter(|_| rewrite::is_clock_refusal(upstream.status, &body));
        if let Some(date) = date {
            self.shared.clock.resync(date); // the next try is signed with COS's time
        }
        Refused {
            key: rewrite::is_credential_refusal(upstream.status, &body),
            time: date.is_some(),
            damaged,
            error: rewrite::upstream_error(upstream.status, &body, permit),
        }
    }

    /// Why COS refuses a HEAD: its answer has no body that would tell a refused key or time from a
    /// refused right, so the first byte is asked for by GET, whose error has one.
    async fn ask_why(
        &self,
        permit: &Permit<'_, '_>,
        head: &Parts,
        credential: &Credential,
    ) -> Option<Refused> {
        let mut probe = rewrite::request(permit, head, &self.config().upstream).ok()?;
        probe.method = Method::GET;
        probe
            .headers
            .insert("range", HeaderValue::from_static("bytes=0-0"));
        let region = permit.grant().map_or("", |grant| grant.region.as_str());
        self.sign(&mut probe, credential, region, None).ok()?;
        let target = probe.target.parse().ok()?;
        let mut request = http::Request::new(body::Request::Empty);
        *request.method_mut() = probe.method;
        *request.uri_mut() = target;
        *request.headers_mut() = probe.headers;
        let none = body::Request::Empty;
        let sent = self.upstream.send(&probe.authority, request, &none).await;
        let (response, lease) = sent.ok()?;
        let answered = Answered { response, lease };
        Some(self.read_error(answered, permit).await)
    }
}

/// COS's error, as the client may see it.
struct Refused {
    /// COS does not take our key.
    key: bool,
    /// Nor the time that was signed, and has told the right one.
    time: bool,
    /// The body did not reach COS as it was sent.
    damaged: bool,
    error: S3Error,
}

/// Why a request brought no answer.
enum Failure {
    /// It cannot be made.
    Refused(S3Error),
    /// It was sent.
    Send(SendFailure),
    /// Its body is gone.
    UsedUp,
}

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        Self::Refused(error)
    }
}

/// Refuses an answer without a length, whose end could not be told from a broken connection. What is
/// wrong with the framing that it has, `answers` has seen.
fn check_framing(response: &Response<Incoming>) -> Result<(), S3Error> {
    let body = response.body();
    let is_chunked = response.headers().contains_key(TRANSFER_ENCODING);
    if !is_chunked && !body.is_end_stream() && body.size_hint().exact().is_none() {
        return Err(bad_gateway("COS's answer has no length"));
    }
    Ok(())
}

/// An object of unknown length over HTTP/1.0, where the end of the connection is the end of the object
/// (RFC 9112 section 6.3): one that was cut short would pass for whole. XML tells its own end.
fn without_chunks() -> S3Error {
    S3Error::new(
        Code::NotImplemented,
        "The store did not say how long this object is, and HTTP/1.0 cannot show whether it arrives whole. Use HTTP/1.1.",
    )
}

/// COS's result of a multi-delete, with an entry for each key that the caller may not delete.
fn delete_result(mut result: xml::DeleteResult, outgoing: &Outgoing) -> Response<Answer> {
    result
        .failures
        .extend(outgoing.denied.iter().map(|object| xml::DeleteFailure {
            key: object.key.clone(),
            version_id: object.version_id.clone(),
            code: Code::AccessDenied.as_str().to_owned(),
            message: "The key is outside the prefixes that are yours.".to_owned(),
        }));
    if outgoing.quiet {
        result.deleted.clear();
    }
    document(result.to_xml())
}

fn bad_gateway(detail: impl Into<String>) -> S3Error {
    S3Error::new(
        Code::BadGateway,
        "The storage could not be reached, or gave no proper answer. Try again.",
    )
    .fault(Fault::Upstream)
    .detail(detail)
}

/// What cannot happen with the texts that the rewriter makes, and is no reason to panic.
pub(super) fn internal(error: impl std::fmt::Display) -> S3Error {
    S3Error::new(
        Code::InternalError,
        "We encountered an internal error. Please try again.",
    )
    .fault(Fault::Proxy)
    .detail(error.to_string())
}
