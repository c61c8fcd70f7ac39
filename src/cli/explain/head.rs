//! The request that is explained: its head, as a client would send it.

use cosgate::config::{Config, Listen};
use cosgate::s3::request::DECODED_LENGTH;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Uri};

use super::Arguments;

/// The request was given no `Content-Length`, which a client would send.
#[derive(Clone)]
pub(super) struct LengthAssumed;

/// What is wrong with an argument, and what helps.
fn wrong(what: &str, help: &str) -> String {
    format!("cosgate: error: {what}\n  help: {help}")
}

/// The client's head.
pub(super) fn head(arguments: &Arguments, config: &Config) -> Result<Parts, String> {
    let (host, target) = host_and_target(&arguments.url, config)?;
    let encode = "percent-encode it as a client would send it";
    let uri: Uri = target
        .parse()
        .map_err(|error| wrong(&format!("the URL cannot be sent: {error}"), encode))?;
    let given: Vec<_> = arguments
        .headers
        .iter()
        .map(|text| header(text))
        .collect::<Option<_>>()
        .ok_or_else(|| wrong("a header cannot be sent", "write it as 'name: value'"))?;
    let is_given = |name: &HeaderName| given.iter().any(|(given, _)| given == name);
    let mut request = http::Request::new(());
    *request.method_mut() = arguments.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    if !is_given(&HOST) {
        let host = HeaderValue::from_str(&host)
            .map_err(|_| wrong("the URL's host cannot be sent", encode))?;
        headers.insert(HOST, host);
    }
    for (name, value) in &given {
        headers.append(name, value.clone());
    }
    if matches!(arguments.method, Method::POST | Method::PUT)
        && ![CONTENT_LENGTH, TRANSFER_ENCODING, DECODED_LENGTH]
            .iter()
            .any(is_given)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        request.extensions_mut().insert(LengthAssumed);
    }
    Ok(request.into_parts().0)
}

/// The host that `url` names, or that cosgate listens at, and the target.
fn host_and_target(url: &str, config: &Config) -> Result<(String, String), String> {
    let (host, target) = match url.split_once("://") {
        _ if url.starts_with('/') => {
            let host = match config.server.listen {
                Listen::Tcp(address) => address.to_string(),
                Listen::Unix(_) => "localhost".to_owned(),
            };
            (host, url.to_owned())
        }
        Some(("http" | "https", rest)) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
            let slash = if target.starts_with('/') { "" } else { "/" };
            (host.to_owned(), format!("{slash}{target}"))
        }
        _ => {
            return Err(wrong(
                "the URL is neither a path nor begins with http:// or https://",
                "write /BUCKET/KEY, or the whole URL",
            ));
        }
    };
    if target.contains('#') {
        return Err(wrong(
            "the URL has a `#`: clients do not send what follows it",
            "write %23 for a `#` in a key",
        ));
    }
    Ok((host, target))
}

/// `name: value`. What is wrong is not repeated: it may be a secret.
fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(value.trim()).ok()?))
}
