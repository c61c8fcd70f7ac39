//! The response to a request: what the pipeline returned, or the error as its client reads it.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use serde_json::json;

use super::client_body::ClientBody;
use super::in_flight::InFlight;
use crate::body::ResponseBody;
use crate::decision::write_cross_origin;
use crate::error::S3Error;
use crate::observe::TracePartKind;
use crate::rewrite;
use crate::s3::native;
use crate::s3::xml::{self, sts_error};
use crate::tenant::Source;

/// AWS's name for the id of a request; the client sees it on every response.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// Who reads the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    /// The connection is TLS.
    pub(super) tls: bool,
    /// The client speaks COS's own API.
    pub(super) is_native: bool,
    pub(super) errors: ErrorForm,
    /// A browser must save the object, and not show it as a page.
    pub(super) saves: bool,
}

/// In which form the client reads errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorForm {
    /// Clients that request temporary keys.
    Json,
    /// S3's, or COS's own.
    S3,
    /// Clients of an STS.
    Sts,
}

impl Reader {
    /// A client of S3.
    pub(super) fn new(tls: bool) -> Self {
        Self {
            tls,
            is_native: false,
            errors: ErrorForm::S3,
            saves: false,
        }
    }
}

/// Makes the response to the request of `head` of what the pipeline returned.
pub(super) fn respond(
    mut in_flight: Box<InFlight>,
    head: &Parts,
    result: Result<Response<ResponseBody>, S3Error>,
) -> Response<ClientBody> {
    let reader = in_flight.reader;
    let mut response = match result {
        Ok(mut response) => {
            if reader.saves {
                rewrite::as_attachment(response.headers_mut());
            }
            response
        }
        Err(error) => {
            let mut response = error_response(&error, head, &in_flight);
            in_flight.record.error = Some(error);
            keep_in_memory(&mut response, &mut in_flight);
            if reader.saves {
                rewrite::not_sniffed(response.headers_mut());
            }
            response
        }
    };
    in_flight.record.status = response.status();
    in_flight.record.version = head.version;
    let headers = response.headers_mut();
    // HTTP/2 ends the stream alone: it is reset when its response has gone.
    if in_flight.ends_connection() && !in_flight.stream_state.is_stream() {
        in_flight.stream_state.linger_at_end();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if in_flight.proxy.shared.is_draining() && !in_flight.stream_state.is_stream() {
        // The client's next request goes elsewhere. A connection that is idle when the listener closes
        // would end under a request that is on its way.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(id) = HeaderValue::from_str(&in_flight.record.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if reader.is_native {
        native::from_s3(headers);
        let spelling = in_flight.proxy.spelling.clone();
        response.extensions_mut().extend(spelling);
    }
    write_cross_origin(&in_flight.cross_origin, response.headers_mut());
    response.body_mut().note_failure(&in_flight.record.cut);
    if !response.body().is_end_stream() {
        in_flight.record.begins(TracePartKind::Body);
    }
    response.map(|body| ClientBody::new(body, in_flight))
}

/// The response to a head that hyper never gave us, as bytes.
pub(super) fn refuse_head(mut in_flight: Box<InFlight>, error: S3Error) -> Bytes {
    in_flight.stream_state.linger_at_end();
    let record = &mut in_flight.record;
    record.status = error.http_status();
    let document = xml::error(&error, "", &record.request_id);
    let response = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n{REQUEST_ID}: {}\r\n\r\n{document}",
        record.status,
        document.len(),
        record.request_id,
    );
    record.error = Some(error);
    Bytes::from(response)
}

/// An error as its client reads it. It has nothing that the client does not know already.
fn error_response(error: &S3Error, head: &Parts, in_flight: &InFlight) -> Response<ResponseBody> {
    let (status, document) = error_document(error, head, in_flight);
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(error.own_headers().iter().cloned());
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::NOT_MODIFIED {
        return response;
    }
    let kind = if in_flight.reader.errors == ErrorForm::Json {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        "application/json"
    } else {
        "application/xml"
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, document.len().into());
    if head.method != Method::HEAD {
        *response.body_mut() = ResponseBody::Whole(Bytes::from(document));
    }
    response
}

/// The document of an error in the form that the client reads, and its status.
fn error_document(error: &S3Error, head: &Parts, in_flight: &InFlight) -> (StatusCode, String) {
    let (resource, id) = (head.uri.path(), &in_flight.record.request_id);
    match in_flight.reader.errors {
        ErrorForm::Json => {
            let (code, message) = (error.code().as_str(), error.message());
            let document = json!({"code": code, "message": message});
            (error.http_status(), document.to_string())
        }
        ErrorForm::Sts => (error.http_status(), sts_error(error, id)),
        ErrorForm::S3 if in_flight.reader.is_native => {
            let error = native::error(head, error);
            let document = xml::native_error(&error, resource, id);
            (error.http_status(), document)
        }
        ErrorForm::S3 => (error.http_status(), xml::error(error, resource, id)),
    }
}

/// Keeps a refusal of a stranger over HTTP/2 in their memory, or leaves out its document where too many are
/// there already that their client makes no room for: a head needs none, and so ends the stream (RFC 9113
/// section 5.2.1).
fn keep_in_memory(response: &mut Response<ResponseBody>, in_flight: &mut InFlight) {
    let ResponseBody::Whole(document) = response.body() else {
        return;
    };
    let record = &in_flight.record;
    if !in_flight.stream_state.is_stream() || record.tenant.is_some() {
        return;
    }
    let source = match (record.client, record.uid) {
        (Some(address), _) => Source::of(address),
        (None, Some(uid)) => Source::User(uid),
        (None, None) => Source::Unnamed,
    };
    let hold = in_flight.proxy.refusals.keep(source, document.len());
    in_flight.refusal = hold.map(Box::new);
    if in_flight.refusal.is_none() {
        *response.body_mut() = ResponseBody::Empty;
        response.headers_mut().insert(CONTENT_LENGTH, 0.into());
        response.headers_mut().remove(CONTENT_TYPE);
    }
}
