//! COS's errors in S3's terms: what a refusal means, and what the client gets for it.

use http::StatusCode;

use super::clean::{MESSAGE_BYTES, has_key_material, is_clean};
use crate::error::{Code, Fault, S3Error};
use crate::s3::conditions;
use crate::s3::xml::UpstreamError;
use crate::tenant::Permit;

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
/// were damaged on the way, and nothing was stored. No client can correct that by another request, and
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
    let error = if is_credential_refusal(status, upstream) || is_fault_of_cosgate(code) {
        // The client's own key is right: a 403 would make it blame or drop that one.
        S3Error::new(
            Code::ServiceUnavailable,
            "The store is not available at the moment. Please try again.",
        )
        .fault(Fault::Upstream)
        .retry_after(RETRY_AFTER_KEY)
    } else if is_damage(status, upstream) {
        S3Error::new(
            Code::InternalError,
            "The request was damaged between cosgate and the store, which did nothing. Send it again.",
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

/// COS's code of a failure that it reports within a success. One of our key or clock becomes one that
/// the client may try again; what is no code at all may be anything.
pub(in crate::rewrite) fn error_code(code: &str) -> &str {
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

/// The largest error document that is read.
const ERROR_BYTES: usize = 64 * 1024;

/// Seconds until another key may be there.
const RETRY_AFTER_KEY: u32 = 5;

/// Seconds after COS reported that it gets too many requests.
const RETRY_AFTER_RATE: u32 = 1;

/// Refusals that no client can correct: our signature, our clock, our endpoint.
fn is_fault_of_cosgate(code: &str) -> bool {
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
        Code::PreconditionFailed => conditions::NOT_HELD,
        _ => "The store refused the request.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::s3::Operation;

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
}
