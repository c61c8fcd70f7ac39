//! Which of the client's headers COS may see. Default deny: what is not listed here never passes.

mod amz;
mod values;

use std::borrow::Cow;

use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Operation;
use super::conditions::is_condition;
use crate::error::{Code, S3Error};
use amz::{AMZ, amz};
use values::{check_value, ignores_range};

pub(crate) use values::{check_owners, strip_aws_chunked};

/// The most that all `x-amz-meta-*` of a request may hold together, names (without that prefix) and
/// values, in bytes (S3's limit; COS takes 2 KiB each).
pub(crate) const MAX_METADATA_BYTES: usize = 2048;

/// What precedes the names of a client's own metadata.
pub(crate) const METADATA_PREFIX: &str = "x-amz-meta-";

/// The values of the header `name`. A head has few fields: to compare them all is cheaper than to hash a name.
pub(crate) fn values_of(
    headers: &HeaderMap,
    name: HeaderName,
) -> impl Iterator<Item = &HeaderValue> {
    let fields = headers.iter();
    fields.filter_map(move |(field, value)| (*field == name).then_some(value))
}

/// What becomes of one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Ends here: the client gets what it requested without it.
    Drop,
    /// Ends here: another step reads it.
    Read,
    /// Passes.
    Forward,
    /// Passes if the grant has this COS action.
    NeedsAction(&'static str),
    /// Passes if the grant lists it under `headers`.
    NeedsName,
    /// Unknown here; passes if the grant lists it under `headers`.
    Unknown,
}

/// The headers of `headers` that pass to COS, by S3's names and in the client's order, given what the
/// grant allows: `actions` (`name/cos:…`) and `names` (lower case). What is neither dropped nor allowed
/// refuses the request: nothing that changes what is stored may get lost silently.
pub fn forwarded<'h>(
    operation: Operation,
    headers: &'h HeaderMap,
    actions: &[String],
    names: &[String],
) -> Result<Vec<(&'h HeaderName, Cow<'h, HeaderValue>)>, S3Error> {
    let mut passing: Vec<(&HeaderName, Cow<'h, HeaderValue>)> = Vec::new();
    let mut metadata = 0;
    for (name, value) in headers {
        if *name == RANGE && ignores_range(headers) {
            continue;
        }
        let needed = disposition(operation, name.as_str(), value.as_bytes())?;
        let granted_by_name = || names.iter().any(|granted| granted == name.as_str());
        match needed {
            Disposition::Drop | Disposition::Read => continue,
            Disposition::Forward => {}
            Disposition::NeedsAction(action) if actions.iter().any(|granted| granted == action) => {
            }
            Disposition::NeedsName | Disposition::Unknown if granted_by_name() => {}
            Disposition::NeedsAction(action) => {
                return Err(denied(format!(
                    "The header {name} needs the action {action}. Remove it, or ask the operator for that action."
                )));
            }
            Disposition::NeedsName => {
                return Err(denied(format!(
                    "The header {name} is not allowed. Remove it, or ask the operator to list it in the grant's headers."
                )));
            }
            Disposition::Unknown => {
                return Err(invalid(format!(
                    "The header {name} is not supported. Remove it, or ask the operator to list it in the grant's headers."
                )));
            }
        }
        check_value(name, value)?;
        if let Some((_, earlier)) = passing.iter_mut().find(|(earlier, _)| *earlier == name) {
            if !is_list(name) {
                return Err(invalid(format!("The header {name} is given twice.")));
            }
            *earlier = Cow::Owned(joined(earlier, value)?);
            continue;
        }
        if let Some(own) = name.as_str().strip_prefix(METADATA_PREFIX) {
            metadata += own.len() + value.len();
        }
        passing.push((name, Cow::Borrowed(value)));
    }
    if metadata > MAX_METADATA_BYTES {
        return Err(S3Error::new(
            Code::MetadataTooLarge,
            format!(
                "The x-amz-meta- headers hold {metadata} bytes; the limit is {MAX_METADATA_BYTES}."
            ),
        ));
    }
    Ok(passing)
}

/// What becomes of the header `name` (lower case) on `operation`, or why no grant can let it pass.
pub fn disposition(operation: Operation, name: &str, value: &[u8]) -> Result<Disposition, S3Error> {
    if let Some(own) = name.strip_prefix(METADATA_PREFIX) {
        return metadata(operation, own);
    }
    if let Some(rest) = name.strip_prefix("x-amz-").filter(|_| !is_condition(name)) {
        return amz(operation, rest, value);
    }
    if is_never_taken(name) {
        return Err(invalid(format!(
            "cosgate does not accept the header {name} from a client. Remove it."
        )));
    }
    // `conditions` has these: kept or refused, by operation.
    if is_of_response(name) || is_condition(name) {
        return Ok(Disposition::Drop);
    }
    if name == "content-range" && is_put(operation) {
        // A part of an object would be stored as the whole (RFC 9110 section 14.5).
        return Err(S3Error::new(
            Code::InvalidRequest,
            "Content-Range is not supported: a PUT stores a whole object or part. Remove the header, or \
             send the range as a part of a multipart upload.",
        ));
    }
    Ok(if is_of_cos(name) {
        Disposition::Unknown
    } else if is_ordinary(operation, name) && !value.is_empty() {
        Disposition::Forward
    } else if is_read(operation, name) {
        Disposition::Read
    } else {
        Disposition::Drop
    })
}

/// Every header that a table here names, in lower case, with the values that its rows single out. One
/// that ends in `*` stands for all that begin so; what is not here is dropped.
pub fn names() -> Vec<(String, Vec<&'static str>)> {
    let plain = [DESCRIBES, READ, OF_RESPONSE, NEVER_TAKEN].concat();
    let plain = plain.into_iter().chain([
        "content-md5",
        "content-range",
        "if-range",
        "range",
        "x-amz-meta-*",
    ]);
    let mut names: Vec<(String, Vec<&str>)> = plain.map(|name| (name.to_owned(), vec![])).collect();
    let whole = |name: &str| match name.strip_suffix('-') {
        Some(front) => format!("{front}-*"),
        None => name.to_owned(),
    };
    names.extend(OF_COS.iter().map(|front| (whole(front), vec![])));
    let rows = AMZ.iter().flat_map(|row| {
        let names = row.names.iter();
        names.map(move |name| (format!("x-amz-{}", whole(name)), row.values))
    });
    for (name, values) in rows {
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.extend(values),
            None => names.push((name, values.to_vec())),
        }
    }
    names
}

/// Whether the header `name` (lower case) may change what S3 or COS does, so that a signature must
/// cover it: somebody on the way could else add it.
pub(crate) fn must_be_signed(name: &str) -> bool {
    name.starts_with("x-amz-") || (is_of_cos(name) && !is_of_response(name))
}

/// What names of COS's own headers begin with.
const OF_COS: &[&str] = &["ci-", "pic-", "x-ci-", "x-cos-", "x-image-"];

fn is_of_cos(name: &str) -> bool {
    OF_COS.iter().any(|front| name.starts_with(front))
}

/// s3cmd sends these headers of a response back when it copies an object onto itself.
const OF_RESPONSE: &[&str] = &["x-cos-hash-crc64ecma", "x-cos-request-id"];

fn is_of_response(name: &str) -> bool {
    OF_RESPONSE.contains(&name)
}

/// COS's own terms for what only cosgate sends to COS. One that ends in `*` stands for all that begin so.
const NEVER_TAKEN: &[&str] = &[
    "x-ci-security-token",
    "x-cos-copy-source*",
    "x-cos-security-token",
];

fn is_never_taken(name: &str) -> bool {
    NEVER_TAKEN
        .iter()
        .any(|known| match known.strip_suffix('*') {
            Some(front) => name.starts_with(front),
            None => name == *known,
        })
}

/// What other steps read on every request: who calls (`tenant::authenticate`), the address, and where the
/// request ends (`request::check_framing`).
const READ: &[&str] = &[
    "authorization",
    "content-length",
    "expect",
    "host",
    "origin",
    "referer",
    "sec-fetch-site",
    "transfer-encoding",
];

fn is_read(operation: Operation, name: &str) -> bool {
    READ.contains(&name) || (name == "content-md5" && operation.has_xml_body())
}

/// The object's own headers.
const DESCRIBES: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];

/// The headers without a prefix that mean something to COS on `operation`.
fn is_ordinary(operation: Operation, name: &str) -> bool {
    use Operation as O;
    match name {
        _ if DESCRIBES.contains(&name) => describes_object(operation),
        "content-md5" => operation.takes_object_body(),
        "range" => matches!(operation, O::GetObject | O::HeadObject),
        _ => false,
    }
}

/// Whether the header is a list, which may come in several lines (RFC 9110 sections 8.4, 8.5; RFC 9111
/// section 5.2).
fn is_list(name: &HeaderName) -> bool {
    [CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE].contains(name)
}

/// Two lines of a list as one (RFC 9110 section 5.3).
fn joined(earlier: &HeaderValue, value: &HeaderValue) -> Result<HeaderValue, S3Error> {
    let both = [earlier.as_bytes(), value.as_bytes()].join(&b", "[..]);
    HeaderValue::from_bytes(&both).map_err(|_| invalid("A list of several lines is no header."))
}

/// Whether the client sends it by PUT, and COS stores something.
fn is_put(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::CopyObject
            | Operation::PutObject
            | Operation::PutObjectTagging
            | Operation::UploadPart
            | Operation::UploadPartCopy
    )
}

/// Whether the request says what the object's own headers will be.
fn describes_object(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::CopyObject | Operation::CreateMultipartUpload | Operation::PutObject
    )
}

/// COS takes `[a-z0-9-]` in these names (436/7749); another would be lost or break the signature.
fn metadata(operation: Operation, own: &str) -> Result<Disposition, S3Error> {
    if !describes_object(operation) {
        return Ok(Disposition::Drop);
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match own.chars().find(|c| !fits(*c)) {
        Some(odd) => Err(invalid(format!(
            "Tencent COS takes only a-z, 0-9 and - in the names of x-amz-meta- headers; {METADATA_PREFIX}{own} has {odd:?}."
        ))),
        None if own.is_empty() => Err(invalid("An x-amz-meta- header has no name of its own.")),
        None => Ok(Disposition::Forward),
    }
}

fn denied(message: impl Into<Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::AccessDenied, message)
}

fn invalid(message: impl Into<Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checksum_name::Algorithm;
    use super::*;

    pub(super) fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    pub(super) fn pass(
        operation: Operation,
        headers: &[(&str, &str)],
    ) -> Result<Vec<String>, Code> {
        pass_granted(operation, headers, &[], &[])
    }

    pub(super) fn pass_granted(
        operation: Operation,
        headers: &[(&str, &str)],
        actions: &[&str],
        names: &[&str],
    ) -> Result<Vec<String>, Code> {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let headers = map(headers);
        let passing = forwarded(operation, &headers, &owned(actions), &owned(names));
        passing
            .map(|list| list.iter().map(|(name, _)| name.to_string()).collect())
            .map_err(|error| error.code())
    }

    #[test]
    fn ordinary_headers_pass_where_they_mean_something() {
        let described = [
            ("content-type", "a/b"),
            ("cache-control", "x"),
            ("expires", "d"),
            ("range", "bytes=0-1"),
        ];
        assert_eq!(
            pass(Operation::PutObject, &described).unwrap(),
            ["content-type", "cache-control", "expires"]
        );
        assert_eq!(pass(Operation::GetObject, &described).unwrap(), ["range"]);
        assert_eq!(
            pass(
                Operation::UploadPart,
                &[("content-md5", "m"), ("content-type", "a")]
            )
            .unwrap(),
            ["content-md5"]
        );
    }

    #[test]
    fn rejects_content_range_on_puts() {
        let range = [("content-range", "bytes 0-9/100")];
        for operation in Operation::ALL {
            let outcome = pass(*operation, &range);
            let expected = if is_put(*operation) {
                Err(Code::InvalidRequest)
            } else {
                Ok(Vec::new())
            };
            assert_eq!(outcome, expected, "{operation:?}");
        }
    }

    #[test]
    fn rejects_unknown_checksum_algorithms() {
        let names = |name| {
            pass(
                Operation::CreateMultipartUpload,
                &[("x-amz-checksum-algorithm", name)],
            )
        };
        for algorithm in Algorithm::ALL {
            assert_eq!(names(algorithm.name()), Ok(Vec::new()));
        }
        for name in ["", "CRC", "SHA3"] {
            assert_eq!(names(name), Err(Code::InvalidRequest), "{name}");
        }
    }

    #[test]
    fn what_is_the_clients_own_business_with_us_ends_here() {
        let ends = [
            ("authorization", "a"),
            ("host", "h"),
            ("connection", "x"),
            ("expect", "100-continue"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "1"),
            ("cookie", "c"),
            ("x-forwarded-for", "1"),
            ("x-http-method-override", "DELETE"),
            ("amz-sdk-request", "1"),
            ("x-amzn-trace-id", "t"),
            ("content-type", ""),
            ("x-amz-date", "d"),
            ("x-amz-content-sha256", "h"),
            ("x-amz-checksum-crc32", "c"),
            ("x-amz-checksum-mode", "E"),
            ("x-amz-user-agent", "u"),
            ("x-amz-te", "t"),
            ("x-amz-trailer", "t"),
            ("x-amz-acl", "private"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-request-payer", "requester"),
            ("x-amz-copy-source", "b/k"),
        ];
        for operation in [
            Operation::PutObject,
            Operation::CopyObject,
            Operation::GetObject,
            Operation::CreateBucket,
        ] {
            assert_eq!(pass(operation, &ends), Ok(Vec::new()));
        }
    }

    #[test]
    fn unknown_names_of_s3_or_cos_are_refused_unless_granted_by_name() {
        for name in [
            "x-amz-new-thing",
            "x-amz-write-offset-bytes",
            "x-cos-acl",
            "x-cos-grant-read",
            "x-ci-x",
            "pic-operations",
            "ci-x",
            "x-image-x",
            "x-cos-storage-class",
        ] {
            for operation in [
                Operation::PutObject,
                Operation::GetObject,
                Operation::ListObjects,
            ] {
                assert_eq!(
                    pass(operation, &[(name, "x")]),
                    Err(Code::InvalidArgument),
                    "{name}"
                );
                assert_eq!(
                    pass_granted(operation, &[(name, "x")], &[], &[name]).unwrap(),
                    [name]
                );
            }
        }
    }

    #[test]
    fn some_names_no_grant_lets_pass() {
        let never =
            |name| pass_granted(Operation::PutObject, &[(name, "x")], &[], &[name]).unwrap_err();
        for name in ["x-amz-mfa", "x-amz-bypass-governance-retention"] {
            assert_eq!(never(name), Code::AccessDenied, "{name}");
        }
        for name in [
            "x-cos-security-token",
            "x-ci-security-token",
            "x-cos-copy-source",
            "x-cos-copy-source-range",
        ] {
            assert_eq!(never(name), Code::InvalidArgument, "{name}");
        }
        let token = [("x-amz-security-token", "t")];
        let granted = pass_granted(Operation::PutObject, &token, &[], &["x-amz-security-token"]);
        assert!(
            granted.unwrap().is_empty(),
            "COS never sees a token of ours"
        );
    }

    #[test]
    fn joins_lists_that_come_in_several_lines() {
        let headers = map(&[
            ("content-encoding", "gzip"),
            ("cache-control", "no-cache, no-transform"),
            ("content-encoding", "aws-chunked"),
            ("cache-control", "max-age=3"),
        ]);
        let passing = forwarded(Operation::PutObject, &headers, &[], &[]).unwrap();
        let mut values: Vec<_> = passing
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        values.sort_unstable();
        assert_eq!(
            values,
            [
                ("cache-control", "no-cache, no-transform, max-age=3"),
                ("content-encoding", "gzip, aws-chunked"),
            ]
        );
    }

    #[test]
    fn metadata_that_cos_would_lose_is_refused_with_the_character() {
        assert_eq!(
            pass(Operation::PutObject, &[("x-amz-meta-mtime-1", "1.5")]).unwrap(),
            ["x-amz-meta-mtime-1"]
        );
        let headers = map(&[("x-amz-meta-my_name", "x")]);
        let error = forwarded(Operation::PutObject, &headers, &[], &[]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("'_'"), "{}", error.message());
        for (name, value) in [
            ("x-amz-meta-", "x"),
            ("x-amz-meta-a.b", "x"),
            ("x-amz-meta-a", "é"),
        ] {
            assert_eq!(
                pass(Operation::PutObject, &[(name, value)]),
                Err(Code::InvalidArgument),
                "{name}"
            );
        }
    }

    #[test]
    fn too_much_metadata_is_refused() {
        let value = "v".repeat(1020);
        let full = [
            ("x-amz-meta-aaaa", value.as_str()),
            ("x-amz-meta-bbbb", value.as_str()),
        ];
        assert!(pass(Operation::PutObject, &full).is_ok());
        let over = [full[0], full[1], ("x-amz-meta-c", "")];
        assert_eq!(
            pass(Operation::PutObject, &over),
            Err(Code::MetadataTooLarge)
        );
    }

    #[test]
    fn a_passing_header_given_twice_is_refused() {
        assert_eq!(
            pass(
                Operation::PutObject,
                &[("content-type", "a"), ("content-type", "b")]
            ),
            Err(Code::InvalidArgument)
        );
        assert_eq!(
            pass(
                Operation::PutObject,
                &[("x-amz-meta-a", "1"), ("x-amz-meta-a", "2")]
            ),
            Err(Code::InvalidArgument)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn what_passes_without_a_grant_is_on_the_list(name in "(x-amz-|x-cos-|pic-|content-|if-|x-)?[a-z-]{1,16}", value in any::<Vec<u8>>()) {
            let allowed = [
                "cache-control", "content-disposition", "content-encoding", "content-language", "content-md5", "content-type",
                "expires", "range",
            ];
            for operation in Operation::ALL {
                if disposition(*operation, &name, &value).is_ok_and(|found| found == Disposition::Forward) {
                    let ours = allowed.contains(&name.as_str()) || name.starts_with(METADATA_PREFIX) || name.starts_with("x-amz-copy-source-");
                    prop_assert!(ours, "{}", name);
                }
            }
        }
    }
}
