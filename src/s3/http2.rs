//! A request head of HTTP/2, in the form in which HTTP/1.1 says the same: all that follows reads one
//! form, and the Host that is signed is the Host that gets the request.
//!
//! What follows a `#` in `:path` the `http` crate has dropped before anybody here can see it. No URI has it
//! there (RFC 9113 section 8.3.1). `frames.rs` has seen it before, and [`AlteredTarget`] says so.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, StatusCode, Uri};

use crate::config::ServerLimits;
use crate::error::{Code, S3Error};

/// An extension of a request whose target may have been another when its client sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AlteredTarget;

/// Makes `:authority` the `Host`, `:path` the target, and a body of unknown length a chunked one, in
/// place. What contradicts itself is refused, and so is what is larger than a head of HTTP/1.1 may be.
pub(crate) fn as_http1(
    head: &mut Parts,
    has_body: bool,
    limits: &ServerLimits,
) -> Result<(), S3Error> {
    if head.extensions.get::<AlteredTarget>().is_some() {
        return Err(refused(
            "The request target, or another for the same key on this connection, holds a #; write it as %23.",
        ));
    }
    let uri = std::mem::take(&mut head.uri).into_parts();
    let known = [None, Some(Scheme::HTTP), Some(Scheme::HTTPS)];
    if !known.contains(&uri.scheme) {
        return Err(refused("The scheme of the request must be http or https."));
    }
    if let Some(authority) = uri.authority {
        match head.headers.get(HOST) {
            Some(host)
                if !host
                    .as_bytes()
                    .eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
            {
                return Err(refused("The Host header differs from :authority."));
            }
            Some(_) => {}
            None => {
                let host = HeaderValue::from_str(authority.as_str());
                let host = host.map_err(|_| refused(":authority is not a host's name."))?;
                head.headers.insert(HOST, host);
            }
        }
    }
    // `?a` has a path too, the empty one, which is no request target of HTTP/1.1.
    let path = uri
        .path_and_query
        .filter(|path| path.as_str().starts_with('/'));
    head.uri = path.map(target).ok_or_else(not_a_path)??;
    if has_body && !head.headers.contains_key(CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        head.headers.insert(TRANSFER_ENCODING, chunked);
    }
    check_size(head, limits)
}

fn target(path: PathAndQuery) -> Result<Uri, S3Error> {
    Uri::builder()
        .path_and_query(path)
        .build()
        .map_err(|_| not_a_path())
}

/// Counts as HTTP/1.1 writes a head: a client may change the version, and meets the same limits. The
/// h2 crate has looked at larger ones already, and responds to them without a document.
fn check_size(head: &Parts, limits: &ServerLimits) -> Result<(), S3Error> {
    let line = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    let bytes = target + head.headers.iter().map(line).sum::<usize>();
    if bytes > limits.head_bytes || head.headers.len() > limits.head_fields {
        return Err(S3Error::new(
            Code::InvalidRequest,
            "The request head is too large, or has too many fields.",
        )
        .status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    Ok(())
}

fn refused(message: &'static str) -> S3Error {
    S3Error::new(Code::InvalidRequest, message)
}

fn not_a_path() -> S3Error {
    S3Error::new(Code::InvalidURI, "The request target must be a path.")
}
