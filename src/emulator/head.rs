//! Checks of a request's head that COS makes before it knows the caller. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode, Uri};

use crate::emulator::behaviour::{Behaviours, CosBehaviour};
use crate::emulator::response::CosError;
use crate::encoding::percent::{form_decode, percent_decode, push_encoded};

/// What `x-amz-content-sha256` says of a body whose chunks are signed.
const SIGNED_CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
/// Maximum length of a key in bytes (436/13324).
const KEY_LIMIT: usize = 850;
/// Maximum size of one metadata entry in bytes, and of all together (436/7749).
const METADATA_LIMIT: usize = 2048;
const METADATA_TOTAL: usize = 4096;

/// The target of a request, decoded.
pub(super) struct DecodedTarget {
    pub(super) path: Vec<u8>,
    pub(super) query: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

/// Where a signature was found.
pub(super) enum SignatureKind {
    /// A form of AWS, which [`SignedForm`](super::form::SignedForm) describes.
    Form,
    NativeHeader,
    NativeQuery,
    SigV4Header,
    SigV4Query,
}

impl DecodedTarget {
    pub(super) fn of(head: &Parts) -> Result<Self, CosError> {
        let odd = || CosError::bad_request("InvalidURI", "Could not parse the specified URI.");
        let path = percent_decode(head.uri.path())
            .ok_or_else(odd)?
            .into_owned();
        if std::str::from_utf8(&path).is_err() {
            return Err(odd());
        }
        let text = |raw: &str| {
            let bytes = form_decode(raw).map(Cow::into_owned);
            bytes
                .and_then(|b| String::from_utf8(b).ok())
                .map(Cow::Owned)
                .ok_or_else(odd)
        };
        let pairs = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((text(name)?, text(value)?))
        });
        Ok(Self {
            path,
            query: query.collect::<Result<_, CosError>>()?,
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| &**value)
    }
}

/// A path-style target: the bucket's name, and the rest of the path from its slash.
#[derive(Clone, Debug)]
pub(super) struct PathStyle {
    pub(super) bucket: String,
    pub(super) path: String,
}

impl PathStyle {
    /// Splits a target such as `/bucket/key`; `None` for `/`.
    pub(super) fn of(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/').filter(|path| !path.is_empty())?;
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Some(Self {
            bucket: bucket.to_owned(),
            path: format!("/{key}"),
        })
    }
}

/// The path within the bucket, in both styles.
pub(super) fn path_in_bucket<'a>(extensions: &'a http::Extensions, uri: &'a Uri) -> &'a str {
    let path_style = extensions.get::<PathStyle>();
    path_style.map_or_else(|| uri.path(), |split| &split.path)
}

pub(super) fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Finds exactly one signature, of a supported kind.
pub(super) fn find_signature(
    head: &Parts,
    target: &DecodedTarget,
) -> Result<SignatureKind, CosError> {
    let mut found = Vec::new();
    for value in head.headers.get_all(AUTHORIZATION) {
        match value.as_bytes() {
            v if v.starts_with(b"AWS4-HMAC-SHA256 ") => found.push(SignatureKind::SigV4Header),
            v if v.starts_with(b"q-") => found.push(SignatureKind::NativeHeader),
            _ => {
                return Err(CosError::bad_request(
                    "InvalidArgument",
                    "Unsupported Authorization Type",
                ));
            }
        }
    }
    if target.get("X-Amz-Signature").is_some() {
        found.push(SignatureKind::SigV4Query);
    }
    if target.get("q-signature").is_some() {
        found.push(SignatureKind::NativeQuery);
    }
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(CosError::bad_request(
            "InvalidArgument",
            "Only one authorization is allowed",
        )),
        (None, _) => Err(CosError::forbidden("AccessDenied", "Access Denied.")),
    }
}

/// Checks what COS checks of every request, from any sender.
pub(super) fn check_head(head: &Parts, behaviours: Behaviours) -> Result<(), CosError> {
    let behaves = |behaviour| behaviours.has(behaviour);
    let path = percent_decode(path_in_bucket(&head.extensions, &head.uri));
    if !behaves(CosBehaviour::AcceptsLongKeys) {
        check_key(&path.unwrap_or_default())?;
    }
    check_framing(head, behaviours)?;
    if !behaves(CosBehaviour::AcceptsOddMetadata) {
        check_metadata(head)?;
    }
    if behaves(CosBehaviour::RefusesGlacier) {
        check_storage_class(head)?;
    }
    if behaves(CosBehaviour::RefusesTextMetadata) {
        check_ascii_metadata(head)?;
    }
    Ok(())
}

/// Checks the presets of access rights that COS reads in a native request.
pub(super) fn check_acls(head: &Parts, behaviours: Behaviours) -> Result<(), CosError> {
    check_acl(head, "x-cos-acl")?;
    if behaviours.has(CosBehaviour::ReadsS3Acl) {
        check_acl(head, "x-amz-acl")?;
    }
    Ok(())
}

/// Checks a key: 1 to 850 bytes, and no slash or backslash at its start (436/13324).
fn check_key(path: &[u8]) -> Result<(), CosError> {
    let key = path.strip_prefix(b"/").unwrap_or_default();
    if key.len() > KEY_LIMIT {
        return Err(CosError::bad_request("KeyTooLong", "Your key is too long."));
    }
    let controls = key.iter().any(|b| matches!(b, 0 | b'\r' | b'\n' | 24..=27));
    if controls || key.starts_with(b"/") || key.starts_with(b"\\") {
        return Err(CosError::bad_request(
            "InvalidObjectName",
            "The object name is invalid.",
        ));
    }
    Ok(())
}

/// Refuses an aws-chunked body, and a body without a length.
fn check_framing(head: &Parts, behaviours: Behaviours) -> Result<(), CosError> {
    let payload = header(head, "x-amz-content-sha256").unwrap_or_default();
    let streaming = payload.starts_with("STREAMING-");
    let is_accepted = behaviours.has(if payload == SIGNED_CHUNKS {
        CosBehaviour::AcceptsSignedChunks
    } else {
        CosBehaviour::AcceptsChunkedUploads
    });
    if is_accepted {
        return Ok(());
    }
    let chunked = header(head, "content-encoding")
        .is_some_and(|v| v.to_ascii_lowercase().contains("aws-chunked"));
    let decoded = head.headers.contains_key("x-amz-decoded-content-length");
    let no_length = !head.headers.contains_key(CONTENT_LENGTH);
    let copies = ["x-amz-copy-source", "x-cos-copy-source"]
        .iter()
        .any(|name| head.headers.contains_key(*name));
    if no_length
        && (head.headers.contains_key(TRANSFER_ENCODING) || (head.method == Method::PUT && !copies))
    {
        let message = "You must provide the Content-Length HTTP header.";
        return Err(CosError::new(
            StatusCode::LENGTH_REQUIRED,
            "MissingContentLength",
            message,
        ));
    }
    if streaming || chunked || decoded {
        let message = "A header you provided implies functionality that is not implemented";
        return Err(CosError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            message,
        ));
    }
    Ok(())
}

/// Checks metadata: names `[a-z0-9-]`, 2 KiB for each entry, 4 KiB together (436/7749).
fn check_metadata(head: &Parts) -> Result<(), CosError> {
    let mut total = 0;
    for (name, value) in &head.headers {
        let name = name.as_str();
        let Some(rest) = name
            .strip_prefix("x-amz-meta-")
            .or_else(|| name.strip_prefix("x-cos-meta-"))
        else {
            continue;
        };
        if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let message = format!("The metadata name {rest} may contain only a-z, 0-9 and -");
            return Err(CosError::bad_request("InvalidArgument", message));
        }
        total += rest.len() + value.len();
        if value.len() > METADATA_LIMIT || total > METADATA_TOTAL {
            return Err(CosError::bad_request(
                "MetadataTooLarge",
                "Your metadata headers exceed the maximum size.",
            ));
        }
    }
    Ok(())
}

/// Refuses the class that S3 calls `GLACIER`.
fn check_storage_class(head: &Parts) -> Result<(), CosError> {
    let names = ["x-amz-storage-class", "x-cos-storage-class"];
    if names
        .iter()
        .all(|name| header(head, name) != Some("GLACIER"))
    {
        return Ok(());
    }
    let message = "The storage class you specified is not valid.";
    Err(CosError::bad_request("InvalidStorageClass", message))
}

/// Refuses metadata beyond ASCII.
fn check_ascii_metadata(head: &Parts) -> Result<(), CosError> {
    let is_metadata =
        |name: &str| name.starts_with("x-amz-meta-") || name.starts_with("x-cos-meta-");
    let mut metadata = head
        .headers
        .iter()
        .filter(|(name, _)| is_metadata(name.as_str()));
    if metadata.all(|(_, value)| value.as_bytes().is_ascii()) {
        return Ok(());
    }
    let message = "The metadata may contain only ASCII.";
    Err(CosError::bad_request("InvalidArgument", message))
}

/// Refuses an unsigned header that has a meaning for S3.
pub(super) fn check_signed_headers(
    head: &Parts,
    signed: &str,
    in_query: bool,
) -> Result<(), CosError> {
    let is_signed = |name: &str| signed.split(';').any(|s| s == name);
    let mut names = head.headers.keys().map(HeaderName::as_str);
    let unsigned = names.find(|name| {
        let exempt = in_query && *name == "x-amz-content-sha256";
        (*name == "host" || name.starts_with("x-amz-")) && !exempt && !is_signed(name)
    });
    match unsigned {
        Some(name) => {
            let message =
                format!("There were headers present in the request which were not signed: {name}");
            Err(CosError::forbidden("AccessDenied", message))
        }
        None => Ok(()),
    }
}

/// Refuses a preset of access rights that does not exist (436/30752).
fn check_acl(head: &Parts, name: &str) -> Result<(), CosError> {
    const PRESETS: [&str; 7] = [
        "authenticated-read",
        "bucket-owner-full-control",
        "bucket-owner-read",
        "default",
        "private",
        "public-read",
        "public-read-write",
    ];
    if header(head, name).is_none_or(|preset| PRESETS.contains(&preset)) {
        return Ok(());
    }
    let message = "The preset of access rights is unknown.";
    Err(CosError::bad_request("InvalidArgument", message))
}

/// The target without the parameters that COS does not read where one name is there twice. `None`: nothing is left out.
pub(super) fn without_repeats(uri: &Uri, behaviours: Behaviours) -> Option<Uri> {
    let reads_first = behaviours.has(CosBehaviour::ReadsFirstParameter);
    if !reads_first && !behaviours.has(CosBehaviour::ReadsLastParameter) {
        return None;
    }
    let pairs: Vec<&str> = uri.query()?.split('&').collect();
    let mut kept = Vec::<&str>::new();
    for pair in &pairs {
        let name = |pair: &str| pair.split('=').next().map(str::to_owned);
        match kept.iter().position(|known| name(known) == name(pair)) {
            None => kept.push(pair),
            Some(_) if reads_first => {}
            Some(place) => {
                kept.remove(place);
                kept.push(pair);
            }
        }
    }
    if kept.len() == pairs.len() {
        return None;
    }
    format!("{}?{}", uri.path(), kept.join("&")).parse().ok()
}

/// The condition keys of a request. Values of the query stay encoded, as policies write them (436/71306).
pub(super) fn facts(
    head: &Parts,
    target: &DecodedTarget,
    address: IpAddr,
) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("qcs:ip", address.to_string()),
        ("cos:secure-transport", "false".to_owned()),
    ];
    let in_query = [
        ("cos:prefix", "prefix"),
        ("cos:versionid", "versionId"),
        ("cos:response-content-type", "response-content-type"),
    ];
    for (fact, name) in in_query {
        if let Some(value) = target.get(name) {
            let mut encoded = String::new();
            push_encoded(&mut encoded, value.as_bytes());
            facts.push((fact, encoded));
        }
    }
    let in_head = [
        ("cos:content-length", CONTENT_LENGTH.as_str()),
        ("cos:content-type", CONTENT_TYPE.as_str()),
        ("cos:x-cos-acl", "x-amz-acl"),
        ("cos:x-cos-forbid-overwrite", "x-amz-forbid-overwrite"),
        ("cos:x-cos-storage-class", "x-amz-storage-class"),
    ];
    facts.extend(
        in_head
            .iter()
            .filter_map(|(fact, name)| Some((*fact, header(head, name)?.to_owned()))),
    );
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_parameter_that_cos_reads() {
        let kept = |behaviour, target: &str| {
            let mut behaviours = Behaviours::default();
            behaviours.add(behaviour);
            let kept = without_repeats(&target.parse().unwrap(), behaviours)?;
            Some(kept.to_string())
        };
        let (first, last) = (
            CosBehaviour::ReadsFirstParameter,
            CosBehaviour::ReadsLastParameter,
        );
        assert_eq!(kept(first, "/k?a=1&b&a=2"), Some("/k?a=1&b".to_owned()));
        assert_eq!(kept(last, "/k?a=1&b&a=2"), Some("/k?b&a=2".to_owned()));
        assert_eq!(kept(last, "/k?a=1&b"), None);
        assert_eq!(kept(CosBehaviour::IgnoresTime, "/k?a=1&a=2"), None);
    }
}
