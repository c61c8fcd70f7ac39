//! CORS: the response to a preflight, and the headers of every other response for pages of other origins
//! (Fetch standard, section 3.2; S3's API reference, `OPTIONS object`).

use std::borrow::Cow;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};

use crate::config::CORS_METHODS;
use crate::error::{Code, S3Error};
use crate::s3::address::Address;
use crate::s3::request::{check_framing, host};
use crate::s3::vend::is_vend;
use crate::tenant::{CorsRules, CrossOrigin};

/// What a response depends on where there are rules.
const VARIES_WITH: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";
/// What a page may always read (Fetch, "CORS-safelisted response-header name"), and what it
/// has no use for.
const NOT_EXPOSED: [&str; 11] = [
    "cache-control",
    "connection",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expires",
    "last-modified",
    "pragma",
    "transfer-encoding",
    "vary",
];

/// The bucket that `head` names, well or badly written: `None` for a service. A name that no bucket can
/// have is no bucket's.
pub fn bucket_of(head: &Parts, domains: &[String]) -> Option<String> {
    if is_vend(head, domains) {
        return None;
    }
    let address = host(head).and_then(|host| Address::parse(&head.uri, host, domains));
    match address {
        Ok(address) => address.bucket.map(Cow::into_owned),
        Err(_) => Some(String::new()),
    }
}

/// The response to the preflight of `head`, which nobody has signed: a bucket that has no rule for it and a
/// bucket that is not there look alike.
pub fn preflight(
    head: &Parts,
    domains: &[String],
    rules: &CorsRules,
) -> Result<Response<String>, S3Error> {
    check_framing(head)?;
    let origin = only_text(&head.headers, &ORIGIN)
        .ok_or_else(|| bad("Insufficient information. Origin request header needed."))?;
    let method = only_text(&head.headers, &ACCESS_CONTROL_REQUEST_METHOD);
    let method = method.filter(|method| CORS_METHODS.contains(method));
    let method = method.and_then(|method| method.parse::<Method>().ok());
    let method = method.ok_or_else(|| {
        bad("Invalid Access-Control-Request-Method: it must be GET, PUT, POST, DELETE or HEAD.")
    })?;
    let bucket = bucket_of(head, domains);
    let headers = requested_headers(&head.headers);
    let allowed = headers
        .as_deref()
        .and_then(|headers| rules.preflight(bucket.as_deref(), origin, &method, headers));
    let allowed = allowed.ok_or_else(not_allowed)?;
    let mut response = Response::new(String::new());
    let fields = response.headers_mut();
    fields.insert(CONTENT_LENGTH, 0.into());
    let shown = if allowed.is_named { origin } else { "*" };
    insert(fields, ACCESS_CONTROL_ALLOW_ORIGIN, shown);
    if allowed.is_named {
        insert(fields, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    let methods: Vec<_> = allowed.rule.methods.iter().map(Method::as_str).collect();
    insert(fields, ACCESS_CONTROL_ALLOW_METHODS, &methods.join(", "));
    if let Some(headers) = headers.filter(|headers| !headers.is_empty()) {
        insert(fields, ACCESS_CONTROL_ALLOW_HEADERS, &headers.join(", "));
    }
    fields.insert(
        ACCESS_CONTROL_MAX_AGE,
        allowed.rule.max_age.as_secs().into(),
    );
    Ok(response)
}

/// Writes what `cross_origin` says into the headers of a response, which are complete but for it.
pub fn write_cross_origin(cross_origin: &CrossOrigin, headers: &mut HeaderMap) {
    if *cross_origin == CrossOrigin::NoRule {
        return;
    }
    let varies = varies_with(headers);
    insert(headers, VARY, &varies);
    let CrossOrigin::Readable(readable) = cross_origin else {
        return;
    };
    let mut exposed: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    exposed.retain(|name| !NOT_EXPOSED.contains(name) && !name.starts_with("access-control-"));
    exposed.extend(readable.expose.iter().map(String::as_str));
    exposed.sort_unstable();
    exposed.dedup();
    let exposed = exposed.join(", ");
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, readable.origin.clone());
    if readable.is_named {
        insert(headers, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    insert(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &exposed);
}

/// The value of `Vary`: what is there, and what the rules look at.
fn varies_with(headers: &HeaderMap) -> String {
    let lines = headers.get_all(VARY).iter();
    let named = lines.filter_map(|line| line.to_str().ok());
    let named = named.flat_map(|line| line.split(',')).map(str::trim);
    let is_ours = |name: &str| {
        VARIES_WITH
            .split(", ")
            .any(|ours| ours.eq_ignore_ascii_case(name))
    };
    let mut all: Vec<_> = named
        .filter(|name| !name.is_empty() && !is_ours(name))
        .collect();
    if all.contains(&"*") {
        return "*".to_owned();
    }
    all.push(VARIES_WITH);
    all.join(", ")
}

/// The headers that the page wants to send, lower case; `None` if one of them is no header.
fn requested_headers(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut requested = Vec::new();
    for line in headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        let names = line.to_str().ok()?.split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            requested.push(name.as_str().to_owned());
        }
    }
    Some(requested)
}

fn only_text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn bad(text: &'static str) -> S3Error {
    S3Error::new(Code::BadRequest, text)
}

/// In S3's terms.
fn not_allowed() -> S3Error {
    S3Error::new(
        Code::AccessForbidden,
        "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request \
         method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the \
         resource's CORS spec.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Readable;

    fn written(cross_origin: &CrossOrigin, before: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        write_cross_origin(cross_origin, &mut headers);
        headers
    }

    #[test]
    fn a_page_may_read_what_is_there_and_what_the_rule_adds() {
        let readable = CrossOrigin::Readable(Readable {
            origin: HeaderValue::from_static("https://a.example"),
            is_named: true,
            expose: vec!["x-cos-hash-crc64ecma".to_owned(), "etag".to_owned()],
            rule: 1,
        });
        let before = [
            ("etag", "\"e\""),
            ("content-type", "text/plain"),
            ("content-length", "1"),
            ("connection", "close"),
            ("x-amz-meta-a", "b"),
        ];
        let headers = written(&readable, &before);
        assert_eq!(
            headers[ACCESS_CONTROL_EXPOSE_HEADERS],
            "etag, x-amz-meta-a, x-cos-hash-crc64ecma"
        );
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(headers[VARY], VARIES_WITH);
    }

    #[test]
    fn vary_keeps_what_the_response_had() {
        let vary = |before: &[(&'static str, &'static str)]| {
            let headers = written(&CrossOrigin::Withheld, before);
            assert_eq!(headers.get_all(VARY).iter().count(), 1);
            headers[VARY].to_str().unwrap().to_owned()
        };
        assert_eq!(vary(&[]), VARIES_WITH);
        let both = [("vary", "origin, Accept-Encoding"), ("vary", "Accept")];
        assert_eq!(
            vary(&both),
            format!("Accept-Encoding, Accept, {VARIES_WITH}")
        );
        assert_eq!(vary(&[("vary", "*")]), "*");
        assert!(written(&CrossOrigin::NoRule, &[]).is_empty());
    }
}
