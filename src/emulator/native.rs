//! Native requests (q-sign-algorithm=sha1): verifies them, translates them to S3's headers for the store, and
//! translates the responses back.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri};

use crate::emulator::address::HostKind;
use crate::emulator::behaviour::{Behaviours, CosBehaviour};
use crate::emulator::fault_switch::Circumstances;
use crate::emulator::response::CosError;
use crate::encoding::percent::push_encoded;
use crate::sign::Signable;
use crate::sign::cos::{CosClaim, CosClaimError, KeyTime, http_string, string_to_sign};

/// The header or the parameter of a temporary key's token.
pub(super) const TOKEN: &str = "x-cos-security-token";
/// Headers that describe the stored object: a bucket in strict mode requires their signature.
const STRICT_HEADERS: [&str; 4] = ["content-length", "content-md5", "content-type", "host"];

/// Headers that SDKs add about themselves. The Java SDK adds the first after signing, and COS accepts that.
const SDK_HEADERS: [&str; 2] = ["x-cos-sdk-log-debug", "x-cos-sdk-retry"];

/// How much of a request its signature must cover. The signer chooses, so this is what official SDKs are known
/// to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// What a bucket in strict mode demands: the headers with a meaning, and the whole query.
    Full,
    /// A presigned URL: the host and the query.
    Presigned,
    /// The list of buckets: the host.
    Service,
}

/// Checks the signature of `request` and that it covers enough.
pub(super) fn verify(
    claim: &CosClaim<'_>,
    request: &Signable<'_>,
    secret: &crate::secret::Secret,
    coverage: Coverage,
    circumstances: Circumstances,
) -> Result<(), CosError> {
    let behaves = |behaviour| circumstances.behaviours.has(behaviour);
    let verified = match claim.verify(request, secret, circumstances.now) {
        Err(CosClaimError::Expired)
            if behaves(CosBehaviour::IgnoresTime) && claim.is_signature_of(request, secret) =>
        {
            Ok(())
        }
        verified => verified,
    };
    verified.map_err(|error| refusal(error, claim, request))?;
    if behaves(CosBehaviour::AcceptsUnsignedHeaders) {
        return Ok(());
    }
    check_headers(claim, request, coverage)?;
    if coverage == Coverage::Service {
        return Ok(());
    }
    check_parameters(claim, request)
}

/// The error response of COS for an invalid signature.
fn refusal(error: CosClaimError, claim: &CosClaim<'_>, request: &Signable<'_>) -> CosError {
    match error {
        CosClaimError::Expired => CosError::forbidden("AccessDenied", "Request has expired"),
        CosClaimError::Malformed => malformed(),
        CosClaimError::WrongSignature => {
            let format_string = http_string(request, &claim.names);
            let sign_time = field(request, "q-sign-time").and_then(|time| KeyTime::parse(&time));
            let echo = sign_time
                .map(|time| string_to_sign(&time, &format_string))
                .unwrap_or_default();
            CosError::forbidden(
                "SignatureDoesNotMatch",
                "The Signature you specified is invalid.",
            )
            .with("StringToSign", &echo)
            .with("FormatString", &format_string)
        }
    }
}

/// Checks that every header that `coverage` demands is signed.
fn check_headers(
    claim: &CosClaim<'_>,
    request: &Signable<'_>,
    coverage: Coverage,
) -> Result<(), CosError> {
    let headers = claim.names.header_list();
    let is_signed = |name: &str| headers.split(';').any(|signed| signed == name);
    let must_be_signed = |name: &str| {
        name == "host"
            || (coverage == Coverage::Full
                && (STRICT_HEADERS.contains(&name)
                    || (name.starts_with("x-cos-")
                        && name != TOKEN
                        && !SDK_HEADERS.contains(&name))))
    };
    let unsigned = request
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v))
        .find(|(n, v)| !v.is_empty() && must_be_signed(n) && !is_signed(n));
    match unsigned {
        Some((name, _)) => Err(CosError::forbidden(
            "AccessDenied",
            format!("Header {name} is not signed"),
        )),
        None => Ok(()),
    }
}

/// Checks that every parameter except the signature's own is signed.
fn check_parameters(claim: &CosClaim<'_>, request: &Signable<'_>) -> Result<(), CosError> {
    let parameters = claim.names.parameter_list();
    let unsigned = request.query.iter().find(|(name, _)| {
        let mut encoded = String::new();
        push_encoded(&mut encoded, name.as_bytes());
        encoded.make_ascii_lowercase();
        !is_of_signature(name) && !parameters.split(';').any(|signed| signed == encoded)
    });
    match unsigned {
        Some((name, _)) => Err(CosError::forbidden(
            "AccessDenied",
            format!("Parameter {name} is not signed"),
        )),
        None => Ok(()),
    }
}

/// The error for a malformed authorization.
pub(super) fn malformed() -> CosError {
    CosError::forbidden("AccessDenied", "The authorization is not of its form")
}

/// Translates a verified request to S3's headers and parameters.
pub(super) fn to_s3(
    head: &mut Parts,
    suffix: &str,
    behaviours: Behaviours,
) -> Result<(), CosError> {
    let is_read = |name: &str| match name {
        "x-amz-acl" => behaviours.has(CosBehaviour::ReadsS3Acl),
        "x-amz-copy-source" => behaviours.has(CosBehaviour::ReadsS3CopySource),
        _ => behaviours.has(CosBehaviour::ReadsS3Metadata) && name.starts_with("x-amz-meta-"),
    };
    let takes_either = behaviours.has(CosBehaviour::AcceptsEitherCopySource);
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in &head.headers {
        let text = name.as_str();
        // The documents give x-amz-* headers no meaning beside a native signature.
        if name == AUTHORIZATION
            || text == TOKEN
            || SDK_HEADERS.contains(&text)
            || (text.starts_with("x-amz-") && !is_read(text))
        {
            continue;
        }
        match text.strip_prefix("x-cos-") {
            None => _ = headers.append(name.clone(), value.clone()),
            Some("copy-source") => {
                let source = match copy_source(value, suffix) {
                    Err(_) if takes_either => value.clone(),
                    source => source?,
                };
                headers.insert("x-amz-copy-source", source);
            }
            Some("metadata-directive" | "tagging-directive") => {
                let replaces = value
                    .as_bytes()
                    .to_ascii_lowercase()
                    .starts_with(b"replace");
                let directive = HeaderValue::from_static(if replaces { "REPLACE" } else { "COPY" });
                headers.insert(renamed(text, "x-cos-", "x-amz-")?, directive);
            }
            Some(_) => _ = headers.append(renamed(text, "x-cos-", "x-amz-")?, value.clone()),
        }
    }
    head.headers = headers;
    head.uri = without_signature(&head.uri, behaviours)?;
    Ok(())
}

/// The target without the parameters of the signature. Only one native listing is documented: `list-type` has no
/// meaning.
fn without_signature(uri: &Uri, behaviours: Behaviours) -> Result<Uri, CosError> {
    let lists_by_version = behaviours.has(CosBehaviour::ListsByVersion2);
    let kept = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        !is_of_signature(name) && (lists_by_version || name != "list-type")
    };
    let query = uri.query().unwrap_or_default();
    let query: Vec<&str> = query.split('&').filter(kept).collect();
    let target = match query.join("&") {
        query if query.is_empty() => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    target
        .parse()
        .map_err(|_| CosError::bad_request("InvalidURI", "Not a target"))
}

/// Translates a response's headers to COS's names.
pub(super) fn from_s3(headers: &mut HeaderMap) {
    let amz: Vec<HeaderName> = headers
        .keys()
        .filter(|n| n.as_str().starts_with("x-amz-"))
        .cloned()
        .collect();
    for name in amz {
        let renamed = renamed(name.as_str(), "x-amz-", "x-cos-");
        if let (Some(value), Ok(renamed)) = (headers.remove(&name), renamed) {
            headers.insert(renamed, value);
        }
    }
}

/// Whether a query parameter belongs to the signature itself.
fn is_of_signature(name: &str) -> bool {
    const OWN: [&str; 8] = [
        "q-ak",
        "q-header-list",
        "q-key-time",
        "q-sign-algorithm",
        "q-sign-time",
        "q-signature",
        "q-url-param-list",
        TOKEN,
    ];
    OWN.contains(&name)
}

/// Translates `<bucket>.cos.<region>.<suffix>/<key>` to `/bucket/key`. The key stays encoded.
fn copy_source(value: &HeaderValue, suffix: &str) -> Result<HeaderValue, CosError> {
    let read = || {
        let (host, key) = value.to_str().ok()?.split_once('/')?;
        let Some(HostKind::Bucket { name, .. }) = HostKind::parse(host, suffix) else {
            return None;
        };
        HeaderValue::from_str(&format!("/{name}/{key}")).ok()
    };
    read().ok_or_else(|| CosError::bad_request("InvalidCopySource", "Copy source is not host/key."))
}

fn renamed(name: &str, from: &str, to: &str) -> Result<HeaderName, CosError> {
    let rest = name.strip_prefix(from).unwrap_or(name);
    let name = HeaderName::try_from(format!("{to}{rest}"));
    name.map_err(|_| {
        CosError::new(
            StatusCode::BAD_REQUEST,
            "InvalidRequest",
            "Not a header name",
        )
    })
}

/// A field of the authorization, in the header or in the query.
fn field<'a>(request: &'a Signable<'_>, name: &str) -> Option<Cow<'a, str>> {
    let header = request
        .headers
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let in_header = header
        .split('&')
        .filter_map(|f| f.split_once('='))
        .find(|(n, _)| *n == name);
    match in_header {
        Some((_, value)) => Some(Cow::Borrowed(value)),
        None => request
            .query
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| Cow::Borrowed(&**value)),
    }
}
