//! Values that headers may have: ranges, owners, grantees, and codings of a body.

use http::header::{CONTENT_ENCODING, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{denied, invalid};
use crate::error::{Code, S3Error};
use crate::s3::request::MAX_OBJECT_BYTES;

/// Whether the whole object is the response to a range, which it always may be (RFC 9110 section 14.2).
///
/// S3 serves one range (`GetObject`), and ignores several, another unit and what is malformed; of
/// COS no page documents what becomes of these. The range of another version than the client has part of
/// (`If-Range`) would join two objects into one, and COS does not document that condition.
pub(super) fn ignores_range(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(RANGE).iter();
    let is_one = ranges.next().is_some_and(is_one_range) && ranges.next().is_none();
    headers.contains_key(IF_RANGE) || !is_one
}

/// `bytes=first-last`, `bytes=first-` or `bytes=-length`.
fn is_one_range(value: &HeaderValue) -> bool {
    let range = value.to_str().ok();
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    match range {
        None | Some(("", "")) => false,
        Some((first, "")) => offset(first).is_some(),
        Some(("", length)) => offset(length).is_some(),
        Some((first, last)) => offset(first)
            .zip(offset(last))
            .is_some_and(|(first, last)| first <= last),
    }
}

/// Digits alone.
fn offset(digits: &str) -> Option<u64> {
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_digits)
}

static OWNERS: [HeaderName; 2] = [
    HeaderName::from_static("x-amz-expected-bucket-owner"),
    HeaderName::from_static("x-amz-source-expected-bucket-owner"),
];

/// Holds `x-amz-expected-bucket-owner` and `x-amz-source-expected-bucket-owner` against `owner`, the id
/// that listings report: the tenant's name. All buckets that a tenant can name are its own.
pub(crate) fn check_owners(headers: &HeaderMap, owner: &str) -> Result<(), S3Error> {
    for (name, expected) in headers {
        if OWNERS.contains(name) && expected.as_bytes() != owner.as_bytes() {
            return Err(denied(format!(
                "The bucket's owner is not the one in {name}. Send the owner id that ListBuckets reports, \
                 or remove the header."
            )));
        }
    }
    Ok(())
}

/// `id="100000000001"` or `id="100000000001/100000000011"`, with commas between several: an account of
/// Tencent's, and a user of it (436/7737). COS has no other form; S3's groups are in `x-amz-acl`.
pub(super) fn check_grantees(rest: &str, value: &[u8]) -> Result<(), S3Error> {
    const KNOWN: [&str; 5] = [
        "grant-full-control",
        "grant-read",
        "grant-read-acp",
        "grant-write",
        "grant-write-acp",
    ];
    if !KNOWN.contains(&rest) {
        return Err(invalid(format!(
            "The header x-amz-{rest} is not one of S3's. Remove it."
        )));
    }
    let text = str::from_utf8(value).unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_account = |one: &str| {
        let id = one.trim().strip_prefix("id=\"");
        let id = id.and_then(|id| id.strip_suffix('"')).unwrap_or_default();
        let (owner, user) = id.split_once('/').unwrap_or((id, "0"));
        is_number(owner) && is_number(user)
    };
    if text.split(',').all(is_account) {
        return Ok(());
    }
    Err(S3Error::new(
        Code::NotImplemented,
        format!(
            "Tencent COS gives rights to its own accounts alone, as x-amz-{rest}: id=\"100000000001\". For \
             everybody, send x-amz-acl."
        ),
    ))
}

/// `bytes=first-last`: all that S3 and COS take, and no more of it than fits a part.
pub(super) fn check_copy_range(value: &[u8]) -> Result<(), S3Error> {
    let range = str::from_utf8(value)
        .ok()
        .and_then(|text| text.strip_prefix("bytes=")?.split_once('-'))
        .and_then(|(first, last)| offset(last)?.checked_sub(offset(first)?));
    match range {
        None => Err(invalid(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last \
             are the zero-based offsets of the first and last bytes to copy.",
        )),
        Some(one_less) if one_less >= MAX_OBJECT_BYTES => Err(S3Error::new(
            Code::InvalidRequest,
            format!(
                "The x-amz-copy-source-range is larger than the {MAX_OBJECT_BYTES} bytes of the largest part."
            ),
        )),
        Some(_) => Ok(()),
    }
}

/// What COS is known to sign and store as it came: visible ASCII, space and tab.
pub(super) fn check_value(name: &HeaderName, value: &HeaderValue) -> Result<(), S3Error> {
    match value.to_str() {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(format!(
            "The header {name} must be ASCII; percent-encode the rest."
        ))),
    }
}

const AWS_CHUNKED: &[u8] = b"aws-chunked";

/// `Content-Encoding` without the token `aws-chunked`, and whether it had it.
pub(crate) fn strip_aws_chunked(
    headers: &HeaderMap,
) -> Result<(Option<HeaderValue>, bool), S3Error> {
    let values = headers.get_all(CONTENT_ENCODING);
    let tokens: Vec<_> = values
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
        .collect();
    let mut rest = tokens.clone();
    rest.retain(|token| !token.eq_ignore_ascii_case(AWS_CHUNKED));
    let stripped = tokens.len() - rest.len();
    if stripped > 1 {
        return Err(S3Error::new(
            Code::InvalidArgument,
            "Content-Encoding names aws-chunked more than once",
        ));
    }
    if stripped == 0 && values.iter().count() < 2 {
        return Ok((values.iter().next().cloned(), false));
    }
    let joined = (!rest.is_empty()).then(|| rest.join(&b','));
    // Pieces of header values, joined with commas, are a header value.
    let value = joined.and_then(|text| HeaderValue::from_bytes(&text).ok());
    Ok((value, stripped == 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::Operation;
    use crate::s3::headers::tests::{map, pass};

    #[test]
    fn a_range_on_a_condition_asks_for_the_whole_object() {
        let resumed = [("range", "bytes=5-"), ("if-range", "\"e\"")];
        assert_eq!(pass(Operation::GetObject, &resumed), Ok(Vec::new()));
    }

    #[test]
    fn ranges_that_s3_ignores_request_the_whole_object() {
        let range = |value| pass(Operation::GetObject, &[("range", value)]);
        for value in ["bytes=0-0", "bytes=5-", "bytes=-5", "bytes=7-9"] {
            assert_eq!(range(value).unwrap(), ["range"], "{value}");
        }
        for value in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=9-5",
            "bytes=0-1,3-4",
            "bytes=0-18446744073709551616",
            "items=0-1",
            "0-1",
            "bytes",
        ] {
            assert_eq!(range(value), Ok(Vec::new()), "{value}");
        }
        let two = [("range", "bytes=0-1"), ("range", "bytes=3-4")];
        assert_eq!(pass(Operation::HeadObject, &two), Ok(Vec::new()));
    }

    #[test]
    fn an_expected_owner_is_the_tenant_or_nobody() {
        for name in [
            "x-amz-expected-bucket-owner",
            "x-amz-source-expected-bucket-owner",
        ] {
            let check = |values: &[&str]| {
                let headers: Vec<_> = values.iter().map(|value| (name, *value)).collect();
                check_owners(&map(&headers), "acme").map_err(|error| error.code())
            };
            assert_eq!(check(&[]), Ok(()));
            assert_eq!(check(&["acme"]), Ok(()));
            for other in [&["globex"][..], &["ACME"], &[""], &["acme", "globex"]] {
                assert_eq!(check(other), Err(Code::AccessDenied), "{other:?}");
            }
        }
    }

    #[test]
    fn a_part_is_copied_from_one_range_that_fits() {
        let range = |value| {
            pass(
                Operation::UploadPartCopy,
                &[("x-amz-copy-source-range", value)],
            )
        };
        for value in [
            "bytes=0-0",
            "bytes=5-9",
            "bytes=1-5368709120",
            "bytes=18446744073709551615-18446744073709551615",
        ] {
            assert!(range(value).is_ok(), "{value}");
        }
        for value in [
            "",
            "5-9",
            "bytes=",
            "bytes=-",
            "bytes=5-",
            "bytes=-5",
            "bytes=9-5",
            "bytes=+1-5",
            "bytes=0-1,3-4",
            "bytes= 0-1",
            "Bytes=0-1",
            "bytes=0-18446744073709551616",
        ] {
            assert_eq!(range(value), Err(Code::InvalidArgument), "{value}");
        }
        for value in ["bytes=0-5368709120", "bytes=0-18446744073709551615"] {
            assert_eq!(range(value), Err(Code::InvalidRequest), "{value}");
        }
    }
}
