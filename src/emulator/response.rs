//! Responses as COS writes them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, SERVER,
};
use http::{HeaderMap, Method, Response, StatusCode};
use s3s::Body;

use crate::emulator::keys::random;
use crate::emulator::listings::EntryOrder;

/// The id that Tencent's support needs to find a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-cos-request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-cos-trace-id");

const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");
const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");

/// An error response of COS.
#[derive(Debug)]
pub(super) struct CosError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    /// Further elements of the error, as XML.
    extra: String,
}

impl CosError {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            extra: String::new(),
        }
    }

    pub(super) fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn forbidden(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// Adds one element.
    #[must_use]
    pub(super) fn with(mut self, element: &str, text: &str) -> Self {
        let escaped = escape(text);
        self.extra
            .extend(["<", element, ">", &escaped, "</", element, ">"]);
        self
    }

    /// The error of `s3s`, read from its XML.
    pub(super) fn from_s3s(status: StatusCode, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            let (inner, _) = rest.split_once(&format!("</{name}>"))?;
            Some(
                inner
                    .replace("&lt;", "<")
                    .replace("&gt;", ">")
                    .replace("&quot;", "\"")
                    .replace("&amp;", "&"),
            )
        };
        let code = element("Code").unwrap_or_else(|| "InternalError".into());
        let message = element("Message").unwrap_or_else(|| default_message(&code).into());
        Self::new(status, code, message)
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The response to a request for `resource`, which is `host/path`.
    pub(super) fn into_response(self, method: &Method, resource: &str) -> Response<Body> {
        let (request_id, trace_id) = (request_id(), request_id());
        let xml = format!(
            "<?xml version='1.0' encoding='utf-8' ?>\n<Error>\n\t<Code>{}</Code>\n\t<Message>{}</Message>{}\n\t\
             <Resource>{}</Resource>\n\t<RequestId>{request_id}</RequestId>\n\t<TraceId>{trace_id}</TraceId>\n\
             </Error>\n",
            escape(&self.code),
            escape(&self.message),
            self.extra,
            escape(resource),
        );
        let bodiless = *method == Method::HEAD || self.status == StatusCode::NOT_MODIFIED;
        let mut response = Response::new(if bodiless {
            Body::empty()
        } else {
            Body::from(xml)
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if !bodiless {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        insert(headers, REQUEST_ID, &request_id);
        insert(headers, TRACE_ID, &trace_id);
        headers.insert(SERVER, HeaderValue::from_static("tencent-cos"));
        response
    }
}

/// Turns a response of `s3s` into one of COS. Errors and results get COS's XML, and all get COS's headers.
/// `is_result` says that a body is a result: an object may be XML too.
pub(super) fn to_cos_response(
    response: Response<Body>,
    method: &Method,
    resource: &str,
    is_result: bool,
) -> Response<Body> {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    if failed || response.status() == StatusCode::NOT_MODIFIED {
        let body = response.body().bytes().unwrap_or_default();
        let mut refused =
            CosError::from_s3s(response.status(), &body).into_response(method, resource);
        for name in [ETAG, DELETE_MARKER, VERSION_ID] {
            if let Some(value) = response.headers().get(&name) {
                refused.headers_mut().insert(name, value.clone());
            }
        }
        return refused;
    }
    let mut response = response;
    let result = response.body().bytes().filter(|_| is_result);
    let order = response.extensions().get::<EntryOrder>();
    let result = result.and_then(|body| to_cos_xml(std::str::from_utf8(&body).ok()?, order));
    if let Some(result) = result {
        insert(
            response.headers_mut(),
            CONTENT_LENGTH,
            &result.len().to_string(),
        );
        *response.body_mut() = Body::from(result);
    }
    let headers = response.headers_mut();
    insert(headers, REQUEST_ID, &request_id());
    headers.insert(SERVER, HeaderValue::from_static("tencent-cos"));
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    // S3 responds to HEAD of a range as it does to GET; `s3s` gives status 200.
    if response.headers().contains_key(CONTENT_RANGE) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// A result of `s3s` in the form of COS's pages (436/7734, 436/7736): the root has no namespace. The elements
/// about the page come before its entries, and the entries before the common prefixes. Versions and delete markers are
/// mixed in their `order`.
fn to_cos_xml(document: &str, order: Option<&EntryOrder>) -> Option<String> {
    let (_, rest) = document.split_once("?>")?;
    let rest = rest.trim_start().strip_prefix('<')?;
    let (root, rest) = rest.split_once('>')?;
    let root = root.split(' ').next()?;
    let mut rest = rest.trim_end().strip_suffix(&format!("</{root}>"))?;
    let order = order.map_or(&[][..], |EntryOrder(order)| order);
    let places = |is_marker| {
        let of_kind = order.iter().enumerate();
        of_kind.filter_map(move |(place, marker)| (*marker == is_marker).then_some(place))
    };
    let (mut markers, mut versions) = (places(true), places(false));
    let mut children = Vec::new();
    while let Some(start) = rest.strip_prefix('<') {
        let (name, _) = start.split_once('>')?;
        let close = format!("</{name}>");
        let length = match name.strip_suffix('/') {
            Some(_) => name.len() + 2,
            None => rest.find(&close)? + close.len(),
        };
        let (child, after) = rest.split_at(length);
        let place = match name {
            "CommonPrefixes" => (2, 0),
            "DeleteMarker" => (1, markers.next().unwrap_or_default()),
            "Version" => (1, versions.next().unwrap_or_default()),
            "Contents" | "Part" | "Upload" => (1, 0),
            _ => (0, 0),
        };
        children.push((place, child));
        rest = after;
    }
    children.sort_by_key(|(place, _)| *place); // the others in the order that they have
    let inside: String = children.into_iter().map(|(_, child)| child).collect();
    let inside = if root == "ListMultipartUploadsResult" {
        inside.replace("EncodingType>", "Encoding-Type>")
    } else {
        inside
    };
    let text = format!("<?xml version='1.0' encoding='utf-8' ?>\n<{root}>{inside}</{root}>\n");
    rest.is_empty().then_some(text)
}

/// A request id of COS: base64 text.
fn request_id() -> String {
    STANDARD.encode(random(24).unwrap_or_default())
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The message of an error code that `s3s` gives without a message (texts: 436/7730).
fn default_message(code: &str) -> &'static str {
    match code {
        "AccessDenied" => "Access Denied.",
        "BucketNotEmpty" => "The bucket you tried to delete is not empty.",
        "BadDigest" => "The Content-MD5 you specified did not match what we received.",
        "EntityTooSmall" => "Your proposed upload is smaller than the minimum allowed object size.",
        "IncompleteBody" => {
            "You did not provide the number of bytes specified by the Content-Length HTTP header."
        }
        "InvalidAccessKeyId" => "The Access Key Id you provided does not exist in our records",
        "InvalidDigest" => "The Content-MD5 you specified is not valid.",
        "InvalidPart" => "One or more of the specified parts could not be found.",
        "InvalidPartOrder" => "The list of parts was not in ascending order.",
        "InvalidRange" => "The requested range cannot be satisfied.",
        "NoSuchBucket" => "The specified bucket does not exist.",
        "NoSuchKey" => "The specified key does not exist.",
        "NoSuchUpload" => "The specified multipart upload does not exist.",
        "NoSuchVersion" => "The specified version does not exist.",
        "PreconditionFailed" => "At least one of the pre-conditions you specified did not hold.",
        "SignatureDoesNotMatch" => "The Signature you specified is invalid.",
        _ => "The request could not be served.",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
