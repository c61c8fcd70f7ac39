//! The way back: headers through an allow-list, COS's errors in S3's terms.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::listing;
use super::names::{self, Unfit};
use crate::error::{Code, Fault, S3Error};
use crate::s3::xml::UpstreamError;
use crate::s3::{Operation, xml};
use crate::tenant::{Grant, Permit};

/// The headers of COS's response that the client gets, `x-cos-*` under their S3 names. All else is
/// dropped: hop-by-hop headers, `Set-Cookie`, `Location`, `Server`, `Date`.
///
/// `Content-Length` goes where [`listing::ResponseRewriter`] changes the body's length.
pub(crate) fn response_headers(
    operation: Operation,
    headers: HeaderMap,
) -> Result<HeaderMap, S3Error> {
    let length = headers.get_all(header::CONTENT_LENGTH).iter().count();
    if length > 1 || (length == 1 && headers.contains_key(header::TRANSFER_ENCODING)) {
        return Err(unusable("COS framed one response in two ways"));
    }
    let rewritten = listing::rewrites(operation);
    if rewritten && headers.contains_key(header::CONTENT_ENCODING) {
        return Err(unusable("COS compressed a response that must be read"));
    }

    let mut client = HeaderMap::with_capacity(headers.len() + OWN_HEADERS);
    // COS may say one thing in both languages; its own counts, and comes to the client once.
    let mut in_s3_words = Vec::new();
    let mut passing = None;
    for (name, value) in headers {
        // Of several values of a header, only the first has its name.
        if let Some(name) = name {
            passing = passing_name(name, rewritten);
        }
        match &passing {
            Some(Passing::Cos(name)) => append(&mut client, name, value),
            Some(Passing::S3(name)) => in_s3_words.push((name.clone(), value)),
            None => {}
        }
    }
    in_s3_words.retain(|(name, _)| !client.contains_key(name));
    for (name, value) in in_s3_words {
        append(&mut client, &name, value);
    }
    Ok(client)
}

/// Adds one value to the client's headers, as S3 says it. One request has one id.
fn append(client: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    if name == REQUEST_ID && client.contains_key(name) {
        return;
    }
    if let Some(value) = s3_value(name, value) {
        client.append(name.clone(), value);
    }
}

/// Makes the response for all of an object that for its only part, as S3 says it: a range that is the whole. An
/// empty object has no range. Gives the status.
pub(crate) fn as_only_part(status: StatusCode, headers: &mut HeaderMap) -> StatusCode {
    headers.remove("x-amz-mp-parts-count");
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let last = length.and_then(|length| length.checked_sub(1));
    let range = last.and_then(|last| {
        HeaderValue::try_from(format!("bytes 0-{last}/{}", last.saturating_add(1))).ok()
    });
    match range {
        Some(range) if status == StatusCode::OK => {
            headers.insert(header::CONTENT_RANGE, range);
            StatusCode::PARTIAL_CONTENT
        }
        _ => status,
    }
}

/// Whether COS refused the temporary key itself, so that another key may do: the only refusals
/// after which a request is sent once more. A plain `AccessDenied` is not one.
pub(crate) fn is_credential_refusal(status: StatusCode, error: &UpstreamError) -> bool {
    if !matches!(status.as_u16(), 400 | 401 | 403) {
        return false;
    }
    match error.code.as_str() {
        // An expired key is reported as an unknown one (reports of the SDKs' users).
        "ExpiredToken" | "InvalidAccessKeyId" | "InvalidToken" => true,
        "AccessDenied" => error.message.contains("expired"),
        _ => false,
    }
}

/// Whether COS refused the time that was signed: its `Date` has the right one.
pub(crate) fn is_clock_refusal(status: StatusCode, error: &UpstreamError) -> bool {
    status == StatusCode::FORBIDDEN && error.code == "RequestTimeTooSkewed"
}

/// Whether COS refused a request because its body, or the head that says how it is framed, is not what
/// was sent. cosgate has verified each digest that it sends on, and writes the framing itself: the bytes
/// were damaged on the way, and nothing was stored. No client can mend that by another request, and
/// no SDK repeats such a 400.
pub(crate) fn is_damage(status: StatusCode, error: &UpstreamError) -> bool {
    let codes = [
        "BadDigest",
        "EntitySizeNotMatch",
        "IncompleteBody",
        "InvalidDigest",
        "InvalidSHA256Digest",
        "MissingContentLength",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    ];
    matches!(status.as_u16(), 400 | 411) && codes.contains(&error.code.as_str())
}

/// Reads an error document of COS; nothing of one that is none. Control characters are left out.
pub(crate) fn read_error(body: &[u8]) -> UpstreamError {
    let mut error = UpstreamError::parse(body, ERROR_BYTES).unwrap_or_default();
    for text in [&mut error.code, &mut error.message, &mut error.request_id] {
        text.retain(|c| !c.is_control());
        let end = text.char_indices().nth(MESSAGE_BYTES + 1);
        text.truncate(end.map_or(text.len(), |(end, _)| end));
    }
    error
}

/// The code of an error document, if it is one.
pub(crate) fn error_code_of(body: &[u8]) -> Option<String> {
    let error = read_error(body);
    (!error.code.is_empty()).then(|| error_code(&error.code).to_owned())
}

/// What the client gets for a response of COS that is no success. `body` may be cut, or empty as
/// after `HEAD`. The texts never hold the real bucket, its APPID, a host or a key of ours.
pub(crate) fn upstream_error(
    status: StatusCode,
    upstream: &UpstreamError,
    permit: &Permit<'_, '_>,
) -> S3Error {
    let code = upstream.code.as_str();
    let message = Some(upstream.message.as_str()).filter(|message| !message.is_empty());
    let message = message.filter(|message| {
        permit
            .grant()
            .is_some_and(|grant| is_clean(message, grant, permit.source()))
    });
    let detail = for_the_log(status, upstream, message);
    let error = if is_credential_refusal(status, upstream) || is_ours_to_mend(code) {
        // The client's own key is right: a 403 would make it blame or drop that one.
        S3Error::new(
            Code::ServiceUnavailable,
            "The store cannot be used just now. Please try again.",
        )
        .fault(Fault::Upstream)
        .retry_after(RETRY_AFTER_KEY)
    } else if is_damage(status, upstream) {
        S3Error::new(
            Code::InternalError,
            "The request did not reach the storage as it was sent, and nothing was done. Send it again.",
        )
        .fault(Fault::Upstream)
    } else if status.is_informational() || status.as_u16() >= 600 {
        S3Error::new(
            Code::BadGateway,
            "The store's response cannot be used. Please try again.",
        )
        .fault(Fault::Upstream)
    } else if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        S3Error::new(
            Code::BadGateway,
            "The store responded with a redirect, which is not followed.",
        )
        .fault(Fault::Upstream)
    } else if is_too_fast(status, code) {
        S3Error::new(Code::SlowDown, "Please reduce your request rate.")
            .fault(Fault::Upstream)
            .retry_after(RETRY_AFTER_RATE)
    } else if status.is_server_error() {
        server_error(status)
    } else {
        refusal(status, code, message.map(str::to_owned), permit)
    };
    error.detail(detail)
}

/// What the log says of a refusal of COS. Nothing that it may quote of a key is there.
fn for_the_log(status: StatusCode, upstream: &UpstreamError, message: Option<&str>) -> String {
    const LEFT_OUT: &str = "[text left out]";
    let code = Some(upstream.code.as_str()).filter(|code| !has_key_material(code));
    format!(
        "COS responded {} {}: {} (its request {})",
        status.as_u16(),
        code.unwrap_or(LEFT_OUT),
        message.unwrap_or(LEFT_OUT),
        upstream.request_id,
    )
}

/// Puts the result of a multi-delete into the client's names, and takes out of it what the client may
/// not know of the store.
pub(crate) fn delete_result(result: &mut xml::DeleteResult, grant: &Grant) -> Result<(), Unfit> {
    let deleted = result.deleted.iter_mut().map(|deleted| &mut deleted.key);
    let failures = result.failures.iter_mut().map(|failure| &mut failure.key);
    for key in deleted.chain(failures) {
        *key = names::below_root(key, grant)
            .filter(|key| grant.covers(key))
            .ok_or(Unfit::OutOfScope)?
            .to_owned();
    }
    for failure in &mut result.failures {
        failure.code = error_code(&failure.code).to_owned();
        if !is_clean(&failure.message, grant, None) {
            "The store failed to do this.".clone_into(&mut failure.message);
        }
    }
    Ok(())
}

/// Whether a text of COS may reach the client: it names nothing of the real store, neither of `grant`
/// nor of the grant that a copy reads from. Doubt refuses.
pub(super) fn is_clean(text: &str, grant: &Grant, source: Option<&Grant>) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut grants = [grant].into_iter().chain(source);
    text.len() <= MESSAGE_BYTES
        && !text.contains('%') // a name could be encoded in any way
        && !has_key_material(text)
        && !names_host(text)
        && !HIDDEN.iter().any(|word| lower.contains(word))
        && !grants.any(|grant| names_place(text, grant))
}

/// Whether a text may quote a key or a token of ours: a word as long as a secret key (32 letters).
fn has_key_material(text: &str) -> bool {
    const SECRET_KEY: usize = 32;
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    text.split(|c| !is_letter(c))
        .any(|word| word.len() >= SECRET_KEY)
}

/// Whether a text has a host or an address in it: letters or digits on both sides of a dot.
fn names_host(text: &str) -> bool {
    let outer = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
    text.match_indices('.').any(|(at, dot)| {
        let (before, after) = text.split_at_checked(at).unwrap_or_default();
        let after = after.strip_prefix(dot).unwrap_or_default();
        outer(before.chars().next_back()) && outer(after.chars().next())
    })
}

/// Whether a text names the grant's real bucket, its APPID or its root.
fn names_place(text: &str, grant: &Grant) -> bool {
    let appid = grant.bucket.rsplit_once('-').map_or("", |(_, appid)| appid);
    text.contains(&grant.bucket)
        || (!appid.is_empty() && text.contains(appid))
        // In a form a space is written as `+`.
        || names_root(&text.replace('+', " "), &grant.root.replace('+', " "))
}

/// Whether a text has the root in it, the slash at its end left out or not.
fn names_root(text: &str, root: &str) -> bool {
    let Some(folder) = root.strip_suffix('/') else {
        return false;
    };
    let is_part = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
    text.contains(root)
        || text.match_indices(folder).any(|(at, _)| {
            let (before, after) = text.split_at_checked(at).unwrap_or_default();
            let after = after.strip_prefix(folder).unwrap_or_default();
            !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        })
}

/// COS's code of a failure that it reports within a success. One of our key or clock becomes one that
/// the client may try again; what is no code at all may be anything.
pub(super) fn error_code(code: &str) -> &str {
    match code {
        "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch" => "ServiceUnavailable",
        code if code.bytes().all(|byte| byte.is_ascii_alphabetic()) => code,
        _ => "InternalError",
    }
}

/// Headers that pass as they are. `x-cos-*` here have no S3 counterpart, and
/// `x-cos-hash-crc64ecma` is not AWS's CRC-64.
static PLAIN: [HeaderName; 18] = [
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
    HeaderName::from_static("x-cos-force-download"),
    HeaderName::from_static("x-cos-hash-crc32c"),
    HeaderName::from_static("x-cos-hash-crc64ecma"),
    HeaderName::from_static("x-cos-next-append-position"),
    HeaderName::from_static("x-cos-object-type"),
    HeaderName::from_static(REQUEST_ID),
];

const COS: &str = "x-cos-";
const AMZ: &str = "x-amz-";
const REQUEST_ID: &str = "x-cos-request-id";

/// What follows `x-cos-` or `x-amz-` in a response and is S3's own too. What names something of the
/// operator's account is not here: `abort-rule-id` (a lifecycle rule), `bucket-region` (where the real
/// bucket is; `HeadBucket` has our own), `server-side-encryption-…-kms-key-id` (a key, whose name holds
/// the account) and `server-side-encryption-context` (S3 puts the bucket's own name into it).
static SHARED: [HeaderName; 14] = [
    HeaderName::from_static("x-amz-abort-date"),
    HeaderName::from_static("x-amz-copy-source-version-id"),
    HeaderName::from_static("x-amz-delete-marker"),
    HeaderName::from_static("x-amz-expiration"),
    HeaderName::from_static("x-amz-missing-meta"),
    HeaderName::from_static("x-amz-mp-parts-count"),
    HeaderName::from_static("x-amz-replication-status"),
    HeaderName::from_static("x-amz-restore"),
    HeaderName::from_static("x-amz-server-side-encryption"),
    HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm"),
    HeaderName::from_static("x-amz-server-side-encryption-customer-key-md5"),
    HeaderName::from_static("x-amz-storage-class"),
    HeaderName::from_static("x-amz-tagging-count"),
    HeaderName::from_static("x-amz-version-id"),
];

/// Words that reveal the real store, its hosts or its signatures.
const HIDDEN: [&str; 9] = [
    "akid",
    "myqcloud",
    "q-ak",
    "q-sign",
    "qcs:",
    "secret",
    "signature",
    "tencentcos",
    "token",
];

/// The longest text of COS that is passed on.
const MESSAGE_BYTES: usize = 512;
/// The largest error document that is read.
const ERROR_BYTES: usize = 64 * 1024;

/// The longest date of an expiration.
const DATE_BYTES: usize = 40;

/// Headers that are added to a response on its way to the client.
const OWN_HEADERS: usize = 2;

/// Seconds until another key may be there.
const RETRY_AFTER_KEY: u32 = 5;

/// Seconds after COS reported that it gets too many requests.
const RETRY_AFTER_RATE: u32 = 1;

/// A header of COS's that passes, under the name that the client gets, by the words that COS reported it in.
enum Passing {
    Cos(HeaderName),
    S3(HeaderName),
}

/// The name that a header of COS has for the client, if it passes. The request id stays COS's: ours is
/// `x-amz-request-id`, and support requests theirs.
fn passing_name(name: HeaderName, rewritten: bool) -> Option<Passing> {
    let text = name.as_str();
    // Names of the program's own are cloned without an allocation. The length alone tells most of them apart.
    let is_same = |plain: &&HeaderName| plain.as_str().len() == text.len() && **plain == name;
    if let Some(plain) = PLAIN.iter().find(is_same) {
        let is_changed = rewritten && *plain == header::CONTENT_LENGTH;
        return (!is_changed).then(|| Passing::Cos(plain.clone()));
    }
    if let Some(suffix) = text.strip_prefix(COS) {
        return match s3_name(suffix) {
            Some(known) => Some(Passing::Cos(known)),
            None if suffix.starts_with("meta-") => HeaderName::try_from(format!("{AMZ}{suffix}"))
                .ok()
                .map(Passing::Cos),
            None => None,
        };
    }
    let suffix = text.strip_prefix(AMZ)?;
    match s3_name(suffix) {
        Some(known) => Some(Passing::S3(known)),
        None if suffix.starts_with("meta-") => Some(Passing::S3(name)),
        None => None,
    }
}

/// The client's name of what COS calls `x-cos-{suffix}` or `x-amz-{suffix}`, if it is no metadata.
fn s3_name(suffix: &str) -> Option<HeaderName> {
    match suffix {
        "request-id" => Some(HeaderName::from_static(REQUEST_ID)),
        "id-2" | "trace-id" => Some(HeaderName::from_static("x-amz-id-2")),
        _ => {
            let same = |name: &&HeaderName| name.as_str().strip_prefix(AMZ) == Some(suffix);
            SHARED.iter().find(same).cloned()
        }
    }
}

/// The value as the client gets it, by its name there; `None` where it is not known what it names.
fn s3_value(name: &HeaderName, value: HeaderValue) -> Option<HeaderValue> {
    match name.as_str() {
        "x-amz-server-side-encryption" if value == "cos/kms" => {
            Some(HeaderValue::from_static("aws:kms"))
        }
        "x-amz-expiration" => expiration(&value),
        _ => Some(value),
    }
}

/// When a lifecycle rule will delete the object, without the operator's name for that rule. Clients such
/// as minio-go find the date only where a `rule-id` follows it.
fn expiration(value: &HeaderValue) -> Option<HeaderValue> {
    let (_, rest) = value.to_str().ok()?.split_once("expiry-date=\"")?;
    let (date, _) = rest.split_once('"')?;
    let is_of_date = |byte: u8| byte.is_ascii_alphanumeric() || b" ,:+-".contains(&byte);
    if date.is_empty() || date.len() > DATE_BYTES || !date.bytes().all(is_of_date) {
        return None;
    }
    HeaderValue::try_from(format!("expiry-date=\"{date}\", rule-id=\"hidden\"")).ok()
}

/// Refusals that no client can mend: our signature, our clock, our endpoint.
fn is_ours_to_mend(code: &str) -> bool {
    matches!(
        code,
        "AuthorizationHeaderMalformed"
            | "PathStyleDomainForbidden"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
    )
}

fn is_too_fast(status: StatusCode, code: &str) -> bool {
    matches!(status.as_u16(), 429 | 503) || matches!(code, "KmsFreqControl" | "SlowDown")
}

fn server_error(status: StatusCode) -> S3Error {
    let (code, status) = match status {
        StatusCode::GATEWAY_TIMEOUT => (Code::GatewayTimeout, status),
        StatusCode::NOT_IMPLEMENTED => (Code::NotImplemented, status),
        // Theirs, not ours: 502, with the code that clients know to retry.
        _ => (Code::InternalError, StatusCode::BAD_GATEWAY),
    };
    S3Error::new(code, "The store failed to do this. Please try again.")
        .status(status)
        .fault(Fault::Upstream)
}

/// A refusal that concerns the client: same code where S3 has it, else what the status says.
fn refusal(
    status: StatusCode,
    code: &str,
    message: Option<String>,
    permit: &Permit<'_, '_>,
) -> S3Error {
    let known = Code::ALL
        .iter()
        .copied()
        .find(|known| known.as_str() == code);
    let (known, status) = match code {
        "FileAlreadyExists" => (Code::PreconditionFailed, StatusCode::PRECONDITION_FAILED),
        "KeyTooLong" => (Code::KeyTooLongError, status),
        _ => (
            known.unwrap_or_else(|| code_of_status(status, permit)),
            status,
        ),
    };
    let message = message.unwrap_or_else(|| default_message(known).to_owned());
    let error = S3Error::new(known, message).status(status);
    match known {
        // Our own fence let it through: the operator's grant or bucket is not what COS has.
        Code::AccessDenied | Code::NoSuchBucket => error.fault(Fault::Upstream),
        _ => error,
    }
}

fn code_of_status(status: StatusCode, permit: &Permit<'_, '_>) -> Code {
    let absent = permit.request().operation.absent();
    match status.as_u16() {
        304 => Code::NotModified,
        401 | 402 | 403 | 451 => Code::AccessDenied,
        404 if absent.is_some() => absent.unwrap_or(Code::NoSuchBucket),
        404 if permit.request().key.is_some() => Code::NoSuchKey,
        404 => Code::NoSuchBucket,
        405 => Code::MethodNotAllowed,
        411 => Code::MissingContentLength,
        412 => Code::PreconditionFailed,
        416 => Code::InvalidRange,
        _ => Code::InvalidRequest,
    }
}

fn default_message(code: Code) -> &'static str {
    match code {
        Code::AccessDenied => "Access Denied.",
        Code::InvalidRange => "The requested range cannot be satisfied.",
        Code::NoSuchBucket => "The specified bucket does not exist.",
        Code::NoSuchKey => "The specified key does not exist.",
        Code::NoSuchUpload => {
            "The specified upload does not exist. It may have been aborted or completed."
        }
        Code::NotModified => "Not Modified",
        Code::PreconditionFailed => "At least one of the preconditions you specified did not hold.",
        _ => "The store refused the request.",
    }
}

fn unusable(detail: &str) -> S3Error {
    S3Error::new(
        Code::BadGateway,
        "The store's response cannot be used. Please try again.",
    )
    .fault(Fault::Upstream)
    .detail(detail)
    .close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::tests::{s3_request, tenant};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn error(status: u16, body: &str) -> S3Error {
        let tenant = tenant();
        let requested = s3_request(Operation::GetObject, "photos", "acme/x", "");
        let permit = Permit::for_test(&tenant, requested).unwrap();
        upstream_error(
            StatusCode::from_u16(status).unwrap(),
            &read_error(body.as_bytes()),
            &permit,
        )
    }

    fn document(code: &str, message: &str) -> String {
        format!(
            "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
    }

    #[test]
    fn only_known_headers_come_back_and_under_their_s3_names() {
        let upstream = headers(&[
            ("connection", "close"),
            ("content-length", "3"),
            ("content-type", "text/css"),
            ("date", "x"),
            ("etag", "\"x\""),
            ("location", "https://shared-1250000000.cos/"),
            ("server", "tencent-cos"),
            ("set-cookie", "a=b"),
            ("x-amz-request-id", "r"),
            ("x-cos-hash-crc64ecma", "1"),
            ("x-cos-meta-a", "b"),
            ("x-cos-server-side-encryption", "cos/kms"),
            ("x-cos-trace-id", "t"),
            ("x-cos-unheard-of", "x"),
            ("x-cos-version-id", "v"),
        ]);

        let client = response_headers(Operation::GetObject, upstream).unwrap();

        let expected = headers(&[
            ("content-length", "3"),
            ("content-type", "text/css"),
            ("etag", "\"x\""),
            ("x-amz-id-2", "t"),
            ("x-amz-meta-a", "b"),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-version-id", "v"),
            ("x-cos-hash-crc64ecma", "1"),
            ("x-cos-request-id", "r"),
        ]);
        assert_eq!(client, expected);
    }

    #[test]
    fn nothing_that_names_the_operators_account_comes_back() {
        let upstream = headers(&[
            ("x-amz-abort-rule-id", "ops-cleanup"),
            ("x-amz-bucket-region", "ap-guangzhou"),
            (
                "x-amz-server-side-encryption-aws-kms-key-id",
                "k-1250000000",
            ),
            (
                "x-amz-server-side-encryption-context",
                "eyJidWNrZXQiOiJhIn0=",
            ),
            ("x-cos-abort-date", "Fri, 21 Dec 2029 00:00:00 GMT"),
            ("x-cos-abort-rule-id", "ops-cleanup"),
            ("x-cos-bucket-region", "ap-guangzhou"),
            (
                "x-cos-expiration",
                "expiry-date=\"Fri, 21 Dec 2029 00:00:00 GMT\", rule-id=\"ops-1250000000\"",
            ),
            ("x-cos-replication-status", "COMPLETED"),
            ("x-cos-server-side-encryption", "cos/kms"),
            (
                "x-cos-server-side-encryption-cos-kms-key-id",
                "k-1250000000",
            ),
            (
                "x-cos-server-side-encryption-context",
                "eyJidWNrZXQiOiJhIn0=",
            ),
        ]);
        let client = response_headers(Operation::HeadObject, upstream).unwrap();
        let expected = headers(&[
            ("x-amz-abort-date", "Fri, 21 Dec 2029 00:00:00 GMT"),
            (
                "x-amz-expiration",
                "expiry-date=\"Fri, 21 Dec 2029 00:00:00 GMT\", rule-id=\"hidden\"",
            ),
            ("x-amz-replication-status", "COMPLETED"),
            ("x-amz-server-side-encryption", "aws:kms"),
        ]);
        assert_eq!(client, expected);
        for unclear in [
            "rule-id=\"a\"",
            "expiry-date=\"\"",
            "expiry-date=\"a",
            "expiry-date=\"a;b\"",
            "expiry-date=\"1250000000125000000012500000001250000000 a\"",
        ] {
            let upstream = headers(&[("x-cos-expiration", unclear)]);
            let client = response_headers(Operation::HeadObject, upstream).unwrap();
            assert!(client.is_empty(), "{unclear}: {client:?}");
        }
    }

    #[test]
    fn a_rewritten_response_has_no_length_yet() {
        let upstream = headers(&[("content-length", "3"), ("content-type", "application/xml")]);
        let client = response_headers(Operation::ListObjects, upstream).unwrap();
        assert!(!client.contains_key("content-length"));

        let compressed = headers(&[("content-encoding", "gzip")]);
        assert!(response_headers(Operation::ListObjects, compressed.clone()).is_err());
        assert!(response_headers(Operation::GetObject, compressed).is_ok());
    }

    #[test]
    fn a_response_framed_twice_is_refused() {
        let twice = headers(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        let error = response_headers(Operation::GetObject, twice).unwrap_err();
        assert_eq!(error.code(), Code::BadGateway);
        let lengths = headers(&[("content-length", "3"), ("content-length", "4")]);
        assert!(response_headers(Operation::GetObject, lengths).is_err());
    }

    #[test]
    fn only_a_refused_key_is_worth_another_key() {
        let refusal = |status: u16, code: &str, message: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            is_credential_refusal(status, &read_error(document(code, message).as_bytes()))
        };
        assert!(refusal(403, "InvalidAccessKeyId", "x"));
        assert!(refusal(400, "ExpiredToken", "x"));
        assert!(refusal(403, "InvalidToken", "x"));
        assert!(refusal(403, "AccessDenied", "Request has expired"));

        assert!(!refusal(403, "AccessDenied", "Access Denied."));
        assert!(!refusal(403, "SignatureDoesNotMatch", "x"));
        assert!(!refusal(503, "ExpiredToken", "x"));
        assert!(!is_credential_refusal(
            StatusCode::FORBIDDEN,
            &read_error(b"")
        ));
    }

    #[test]
    fn faults_of_our_own_key_are_not_the_clients() {
        for (status, code, message) in [
            (400, "ExpiredToken", "x"),
            (403, "AccessDenied", "Request has expired"),
            (403, "InvalidAccessKeyId", "x"),
            (403, "PathStyleDomainForbidden", "x"),
            (403, "RequestTimeTooSkewed", "x"),
            (403, "SignatureDoesNotMatch", "x"),
        ] {
            let error = error(status, &document(code, message));
            assert_eq!(error.code(), Code::ServiceUnavailable, "{code}");
            assert_eq!(error.whose_fault(), Fault::Upstream);
            assert!(error.retry_after_seconds().is_some());
        }
        let denied = error(403, &document("AccessDenied", "Access Denied."));
        assert_eq!(denied.code(), Code::AccessDenied);
        assert_eq!(denied.http_status(), 403);
    }

    #[test]
    fn what_was_damaged_on_the_way_is_not_the_clients_fault() {
        for (status, code) in [
            (400, "BadDigest"),
            (400, "EntitySizeNotMatch"),
            (400, "IncompleteBody"),
            (400, "InvalidDigest"),
            (400, "InvalidSHA256Digest"),
            (400, "XAmzContentChecksumMismatch"),
            (400, "XAmzContentSHA256Mismatch"),
            (411, "MissingContentLength"),
        ] {
            let error = error(status, &document(code, "x"));
            assert_eq!(error.code(), Code::InternalError, "{code}");
            assert_eq!(error.http_status(), 500, "{code}");
            assert_eq!(error.whose_fault(), Fault::Upstream);
        }
        for (status, code) in [(400, "InvalidPart"), (404, "BadDigest"), (400, "")] {
            let body = document(code, "x");
            let status = StatusCode::from_u16(status).unwrap();
            assert!(!is_damage(status, &read_error(body.as_bytes())), "{code}");
        }
    }

    #[test]
    fn what_cos_says_in_both_languages_leaves_once() {
        let client = response_headers(
            Operation::PutObject,
            headers(&[
                ("x-amz-request-id", "theirs"),
                ("x-cos-request-id", "own"),
                ("x-amz-id-2", "theirs"),
                ("x-cos-trace-id", "own"),
                ("x-amz-version-id", "theirs"),
                ("x-cos-version-id", "own"),
                ("x-amz-meta-a", "theirs"),
                ("x-cos-meta-a", "own"),
                ("x-amz-server-side-encryption", "aws:kms"),
                ("x-cos-server-side-encryption", "cos/kms"),
                ("x-amz-storage-class", "only"),
            ]),
        );
        let expected = headers(&[
            ("x-cos-request-id", "own"),
            ("x-amz-id-2", "own"),
            ("x-amz-version-id", "own"),
            ("x-amz-meta-a", "own"),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-storage-class", "only"),
        ]);
        assert_eq!(client.unwrap(), expected);
        let alone = headers(&[("x-amz-request-id", "r"), ("x-amz-request-id", "s")]);
        let client = response_headers(Operation::PutObject, alone).unwrap();
        assert_eq!(client, headers(&[("x-cos-request-id", "r")]));
    }

    #[test]
    fn coss_codes_become_s3s() {
        for (status, code, expected, expected_status) in [
            (101, "", Code::BadGateway, 502),
            (304, "", Code::NotModified, 304),
            (307, "TemporaryRedirect", Code::BadGateway, 502),
            (404, "", Code::NoSuchKey, 404),
            (404, "NoSuchUpload", Code::NoSuchUpload, 404),
            (400, "KeyTooLong", Code::KeyTooLongError, 400),
            (409, "FileAlreadyExists", Code::PreconditionFailed, 412),
            (409, "PathConflict", Code::InvalidRequest, 409),
            (416, "InvalidRange", Code::InvalidRange, 416),
            (429, "", Code::SlowDown, 503),
            (500, "InternalError", Code::InternalError, 502),
            (501, "NotImplemented", Code::NotImplemented, 501),
            (503, "SlowDown", Code::SlowDown, 503),
            (504, "", Code::GatewayTimeout, 504),
            (999, "AccessDenied", Code::BadGateway, 502),
        ] {
            let error = error(status, &document(code, "x"));
            assert_eq!(error.code(), expected, "{status} {code}");
            assert_eq!(error.http_status(), expected_status, "{status} {code}");
        }
        assert!(error(503, "").retry_after_seconds().is_some());
    }

    #[test]
    fn a_text_that_names_the_store_stays_here() {
        let kept = error(
            400,
            &document("InvalidArgument", "max-keys must be &lt; 1001"),
        );
        assert_eq!(kept.message(), "max-keys must be < 1001");
        for secret in [
            "bucket shared-1250000000 is full",
            "account 1250000000",
            "AKIDabc is unknown",
            "you sent wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY0",
            "see x.cos.ap-guangzhou.myqcloud.com",
            "q-ak=x",
            "the Token is bad",
        ] {
            let error = error(400, &document("InvalidArgument", secret));
            assert!(!error.to_string().contains(secret), "{secret}");
        }
    }

    #[test]
    fn a_multi_deletes_result_is_in_the_clients_names() {
        let mut grant = tenant().grants.remove(0);
        grant.root = "root/".into();
        let result = |key: &str| xml::DeleteResult {
            deleted: vec![xml::Deleted {
                key: "root/acme/a".into(),
                ..xml::Deleted::default()
            }],
            failures: vec![xml::DeleteFailure {
                key: key.into(),
                message: format!("{key} is locked"),
                ..xml::DeleteFailure::default()
            }],
        };
        let mut inside = result("root/acme/b");
        delete_result(&mut inside, &grant).unwrap();
        assert_eq!(inside.deleted[0].key, "acme/a");
        assert_eq!(inside.failures[0].key, "acme/b");
        assert_eq!(inside.failures[0].message, "The store failed to do this.");
        for outside in ["acme/b", "root/b", "root", ""] {
            let refused = delete_result(&mut result(outside), &grant);
            assert_eq!(refused, Err(Unfit::OutOfScope), "{outside}");
        }
    }

    #[test]
    fn no_text_tells_the_root() {
        let mut grant = tenant().grants.remove(0);
        grant.root = "a b/".into();
        for text in ["a b/x is gone", "a%20b%2Fx is gone"] {
            assert!(!is_clean(text, &grant, None), "{text}");
        }
        assert!(is_clean("x is gone", &grant, None));
    }

    #[test]
    fn no_body_is_read_as_more_than_it_has() {
        for body in [
            "",
            "<",
            "<Error><Code>",
            "<Code></Code>",
            "not XML",
            "<Code>&x;</Code>",
        ] {
            assert_eq!(error(403, body).code(), Code::AccessDenied, "{body}");
        }
    }
}
