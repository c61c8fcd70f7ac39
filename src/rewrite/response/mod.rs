//! The way back: headers through an allow-list, COS's errors in S3's terms.

mod clean;
mod errors;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::listing;
use super::names::{self, Unfit};
use crate::error::{Code, Fault, S3Error};
use crate::s3::storage_class::s3_class;
use crate::s3::{Operation, xml};
use crate::tenant::Grant;

pub(super) use clean::is_clean;
pub(super) use errors::error_code;
pub(crate) use errors::{
    error_code_of, is_clock_refusal, is_credential_refusal, is_damage, read_error, upstream_error,
};

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
            Some(Passing::Plain(name)) => {
                client.append(name.clone(), value);
            }
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

/// The headers of COS's refusal that say that a delete marker hides the object, and its version, as S3 sends them
/// (API reference, `GetObject`).
pub(crate) fn delete_marker(
    status: StatusCode,
    headers: &HeaderMap,
) -> Vec<(HeaderName, HeaderValue)> {
    if !matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    ) {
        return Vec::new();
    }
    let of_client = |suffix: &str| {
        let cos = headers.get(format!("{COS}{suffix}"));
        let value = cos.or_else(|| headers.get(format!("{AMZ}{suffix}")))?;
        Some((s3_name(suffix)?, value.clone()))
    };
    let names = ["delete-marker", "version-id"];
    names.into_iter().filter_map(of_client).collect()
}

/// Adds one value to the client's headers, as S3 says it. One request has one id.
fn append(client: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    if *name == REQUEST_ID && client.contains_key(name) {
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

/// Whether the header `name` passes as it is. Those of COS are in [`OF_COS`].
fn is_plain(name: &str) -> bool {
    matches!(
        name,
        "accept-ranges"
            | "cache-control"
            | "content-disposition"
            | "content-encoding"
            | "content-language"
            | "content-length"
            | "content-range"
            | "content-type"
            | "etag"
            | "expires"
            | "last-modified"
            | "vary"
    )
}

/// Headers of COS that pass as they are. They have no S3 counterpart, and `x-cos-hash-crc64ecma` is not AWS's CRC-64.
static OF_COS: [HeaderName; 5] = [
    HeaderName::from_static("x-cos-force-download"),
    HeaderName::from_static("x-cos-hash-crc32c"),
    HeaderName::from_static("x-cos-hash-crc64ecma"),
    HeaderName::from_static("x-cos-next-append-position"),
    HeaderName::from_static("x-cos-object-type"),
];

const COS: &str = "x-cos-";

const AMZ: &str = "x-amz-";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-cos-request-id");

const ID_2: HeaderName = HeaderName::from_static("x-amz-id-2");

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

/// The longest date of an expiration.
const DATE_BYTES: usize = 40;

/// Headers that are added to a response on its way to the client.
const OWN_HEADERS: usize = 2;

/// A header of COS's that passes, under the name that the client gets, by the words that COS reported it in.
enum Passing {
    /// The same words in both.
    Plain(HeaderName),
    Cos(HeaderName),
    S3(HeaderName),
}

/// The name that a header of COS has for the client, if it passes. The request id stays COS's: ours is
/// `x-amz-request-id`, and support requests theirs.
fn passing_name(name: HeaderName, rewritten: bool) -> Option<Passing> {
    let text = name.as_str();
    if is_plain(text) {
        let is_changed = rewritten && name == header::CONTENT_LENGTH;
        return (!is_changed).then_some(Passing::Plain(name));
    }
    if let Some(suffix) = text.strip_prefix(COS) {
        // Names of the program's own are cloned without an allocation.
        if let Some(same) = OF_COS.iter().find(|same| **same == name) {
            return Some(Passing::Plain(same.clone()));
        }
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
        "request-id" => Some(REQUEST_ID),
        "id-2" | "trace-id" => Some(ID_2),
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
        "x-amz-storage-class" => {
            let known = value.to_str().ok().and_then(s3_class);
            Some(known.map_or(value, HeaderValue::from_static))
        }
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
    use crate::rewrite::tests::tenant;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
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
}
