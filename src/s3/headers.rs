//! Which of the client's headers COS may see. Default deny: what is not listed here never passes.

use std::borrow::Cow;

use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Operation;
use super::conditions::is_condition;
use super::request::MAX_OBJECT_BYTES;
use crate::error::{Code, S3Error};
use crate::s3::checksum_name::Algorithm;

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
                    "The header {name} needs a grant of {action}."
                )));
            }
            Disposition::NeedsName => {
                return Err(denied(format!(
                    "The header {name} needs a grant that lists it under headers."
                )));
            }
            Disposition::Unknown => {
                return Err(invalid(format!("The header {name} is not supported.")));
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
            "The header {name} is never taken from a client."
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

/// Whether the whole object is the response to a range, which it always may be (RFC 9110 section 14.2).
///
/// S3 serves one range (`GetObject`), and ignores several, another unit and what is malformed; of
/// COS no page documents what becomes of these. The range of another version than the client has part of
/// (`If-Range`) would join two objects into one, and COS does not document that condition.
fn ignores_range(headers: &HeaderMap) -> bool {
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

/// What the table has of an `x-amz-` header.
#[derive(Clone, Copy)]
enum Treatment {
    Is(Disposition),
    /// Refused with 403, whatever the grant.
    Denied,
    /// Refused with 400: it belongs to another operation.
    Misplaced,
    /// Read if it names an algorithm that S3 knows.
    Algorithm,
    /// Sent on if it is one range that fits a part.
    CopyRange,
    /// Done so if its value names accounts as COS does.
    Grantees(Disposition),
    /// Sent on as `COPY` or `REPLACE`.
    Directive,
}

/// A row of the table: the first that fits says what happens.
struct HeaderRow {
    operations: &'static [Operation],
    /// What follows `x-amz-`. One that ends in `-` stands for all that begin with it.
    names: &'static [&'static str],
    /// The only values for which the row is; empty for any.
    values: &'static [&'static str],
    treatment: Treatment,
}

use Operation as O;
use Treatment as T;

const DROP: Treatment = T::Is(Disposition::Drop);
const READ_HERE: Treatment = T::Is(Disposition::Read);
const NEEDS_NAME: Treatment = T::Is(Disposition::NeedsName);
const PUT_ACL: Disposition = Disposition::NeedsAction("name/cos:PutObjectACL");
const PUT_TAGGING: Treatment = T::Is(Disposition::NeedsAction("name/cos:PutObjectTagging"));
const ANY: &[Operation] = Operation::ALL;
const ACLS: &[Operation] = &[O::PutBucketAcl, O::PutObjectAcl];
const COPIES: &[Operation] = &[O::CopyObject, O::UploadPartCopy];

/// Every `x-amz-` header that has a meaning here, but `x-amz-meta-` ([`metadata`]) and the conditions
/// (`conditions::RULES`). What is not here is [`Disposition::Unknown`]. A row drops a header only where
/// the client gets what it requested all the same; B1 holds for these too ([`must_be_signed`]).
const AMZ: &[HeaderRow] = &[
    // "Common request headers" and "Signature calculations" of the S3 API reference.
    HeaderRow {
        operations: ANY,
        names: &[
            "content-sha256",
            "copy-source",
            "date",
            "decoded-content-length",
            "security-token",
            "trailer",
        ],
        values: &[],
        treatment: READ_HERE,
    },
    // `te` and `user-agent` are what browsers' SDKs send for the headers that they may not set; the sum's
    // own header says its algorithm too.
    HeaderRow {
        operations: ANY,
        names: &["sdk-checksum-algorithm", "te", "user-agent"],
        values: &[],
        treatment: DROP,
    },
    // The date of the API (`2006-03-01`). The AWS SDK for C++ sends it with every request (its
    // AmazonSerializableWebServiceRequest and generated S3 requests); S3's reference has no such header.
    HeaderRow {
        operations: ANY,
        names: &["api-version"],
        values: &[],
        treatment: DROP,
    },
    // "Common response headers" of the S3 API reference, which clients send back.
    HeaderRow {
        operations: ANY,
        names: &["id-2", "request-id"],
        values: &[],
        treatment: DROP,
    },
    // "Using Requester Pays buckets": COS has none, so nobody is charged otherwise.
    HeaderRow {
        operations: ANY,
        names: &["request-payer"],
        values: &[],
        treatment: DROP,
    },
    // S3 ListObjects, ListObjectsV2, ListObjectVersions: requests RestoreStatus, which is an optional
    // element of the response.
    HeaderRow {
        operations: &[O::ListObjects, O::ListObjectsV2, O::ListObjectVersions],
        names: &["optional-object-attributes"],
        values: &[],
        treatment: DROP,
    },
    // S3 GetObjectAttributes: `rewrite::attributes` reads it.
    HeaderRow {
        operations: &[O::GetObjectAttributes],
        names: &["object-attributes"],
        values: &[],
        treatment: READ_HERE,
    },
    // The same: no parts are known of an object here.
    HeaderRow {
        operations: &[O::GetObjectAttributes],
        names: &["max-parts", "part-number-marker"],
        values: &[],
        treatment: DROP,
    },
    // S3 "Verifying bucket ownership with bucket owner condition": compared by `check_owners`.
    HeaderRow {
        operations: ANY,
        names: &["expected-bucket-owner", "source-expected-bucket-owner"],
        values: &[],
        treatment: READ_HERE,
    },
    // S3 CreateMultipartUpload: what the parts will have. COS has none of these sums.
    HeaderRow {
        operations: ANY,
        names: &["checksum-algorithm"],
        values: &[],
        treatment: T::Algorithm,
    },
    // S3 "Checking object integrity": COS ignores them, `payload::checksum` verifies them here.
    HeaderRow {
        operations: ANY,
        names: &["checksum-"],
        values: &[],
        treatment: READ_HERE,
    },
    // S3 CompleteMultipartUpload: the size that the parts should have together. COS does not compare it,
    // and here no part is known any more.
    HeaderRow {
        operations: &[O::CompleteMultipartUpload],
        names: &["mp-object-size"],
        values: &[],
        treatment: DROP,
    },
    // S3 PutBucketAcl, PutObjectAcl; COS 436/7737, 436/7748. It is all that these do, and their own action
    // is needed.
    HeaderRow {
        operations: ACLS,
        names: &["acl"],
        values: &[],
        treatment: T::Is(Disposition::Forward),
    },
    HeaderRow {
        operations: ACLS,
        names: &["grant-"],
        values: &[],
        treatment: T::Grantees(Disposition::Forward),
    },
    // What COS does anyway (436/7749); tools send it without need.
    HeaderRow {
        operations: ANY,
        names: &["acl"],
        values: &["private", "bucket-owner-full-control"],
        treatment: DROP,
    },
    HeaderRow {
        operations: ANY,
        names: &["storage-class"],
        values: &["STANDARD"],
        treatment: DROP,
    },
    // S3 CreateBucket: the bucket is there already, and has neither.
    HeaderRow {
        operations: &[O::CreateBucket],
        names: &["bucket-object-lock-enabled"],
        values: &["false"],
        treatment: DROP,
    },
    HeaderRow {
        operations: &[O::CreateBucket],
        names: &["object-ownership"],
        values: &["BucketOwnerEnforced"],
        treatment: DROP,
    },
    // S3 PutObject, CopyObject, CreateMultipartUpload; COS 436/7749, 436/10881, 436/7746: rights of
    // their own.
    HeaderRow {
        operations: ANY,
        names: &["acl"],
        values: &[],
        treatment: T::Is(PUT_ACL),
    },
    HeaderRow {
        operations: ANY,
        names: &["grant-"],
        values: &[],
        treatment: T::Grantees(PUT_ACL),
    },
    // S3 has the directives on CopyObject alone. They say what becomes of the source's metadata and tags;
    // elsewhere the request has nothing but its own. Some clients send them when they create an upload.
    HeaderRow {
        operations: &[O::CopyObject],
        names: &["metadata-directive"],
        values: &[],
        treatment: T::Directive,
    },
    HeaderRow {
        operations: &[O::CopyObject],
        names: &["tagging-directive"],
        values: &[],
        treatment: PUT_TAGGING,
    },
    HeaderRow {
        operations: ANY,
        names: &["metadata-directive", "tagging-directive"],
        values: &[],
        treatment: DROP,
    },
    // S3 PutObject, CopyObject, CreateMultipartUpload; COS 436/7749.
    HeaderRow {
        operations: ANY,
        names: &["tagging"],
        values: &[],
        treatment: PUT_TAGGING,
    },
    HeaderRow {
        operations: ANY,
        names: &[
            "object-lock-",
            "server-side-encryption",
            "server-side-encryption-",
            "storage-class",
            "website-redirect-location",
        ],
        values: &[],
        treatment: NEEDS_NAME,
    },
    // S3 UploadPartCopy; COS 436/8287.
    HeaderRow {
        operations: &[O::UploadPartCopy],
        names: &["copy-source-range"],
        values: &[],
        treatment: T::CopyRange,
    },
    // S3 CopyObject, UploadPartCopy; COS 436/10881.
    HeaderRow {
        operations: COPIES,
        names: &["copy-source-server-side-encryption-"],
        values: &[],
        treatment: NEEDS_NAME,
    },
    HeaderRow {
        operations: ANY,
        names: &["copy-source-"],
        values: &[],
        treatment: T::Misplaced,
    },
    // S3 DeleteObject, DeleteObjects: COS has no such protection to lift.
    HeaderRow {
        operations: ANY,
        names: &["bypass-governance-retention", "mfa"],
        values: &[],
        treatment: T::Denied,
    },
];

/// What the table has of `x-amz-{rest}` on `operation`; `None` where it is unknown.
fn treatment(operation: Operation, rest: &str, value: &[u8]) -> Option<Treatment> {
    let is_named = |name: &&str| match name.strip_suffix('-') {
        Some(_) => rest.starts_with(*name),
        None => rest == *name,
    };
    let fits = |row: &&HeaderRow| {
        row.operations.contains(&operation)
            && row.names.iter().any(is_named)
            && (row.values.is_empty() || row.values.iter().any(|only| only.as_bytes() == value))
    };
    AMZ.iter().find(fits).map(|row| row.treatment)
}

/// `x-amz-` headers, by what follows that.
fn amz(operation: Operation, rest: &str, value: &[u8]) -> Result<Disposition, S3Error> {
    match treatment(operation, rest, value) {
        None => Ok(Disposition::Unknown),
        Some(T::Is(disposition)) => Ok(disposition),
        Some(T::Algorithm) => match str::from_utf8(value).ok().and_then(Algorithm::named) {
            Some(_) => Ok(Disposition::Read),
            None => Err(S3Error::new(
                Code::InvalidRequest,
                format!(
                    "x-amz-checksum-algorithm names no known algorithm. Use one of {}.",
                    Algorithm::list()
                ),
            )),
        },
        Some(T::CopyRange) => {
            check_copy_range(value)?;
            Ok(Disposition::Forward)
        }
        Some(T::Grantees(disposition)) => {
            check_grantees(rest, value)?;
            Ok(disposition)
        }
        Some(T::Directive) => match value {
            b"COPY" | b"REPLACE" => Ok(Disposition::Forward),
            _ => Err(invalid("x-amz-metadata-directive must be COPY or REPLACE.")),
        },
        Some(T::Misplaced) => Err(invalid(format!(
            "The header x-amz-{rest} does not belong to {}.",
            operation.name()
        ))),
        Some(T::Denied) => Err(denied(format!(
            "The header x-amz-{rest} is never accepted."
        ))),
    }
}

static OWNERS: [HeaderName; 2] = [
    HeaderName::from_static("x-amz-expected-bucket-owner"),
    HeaderName::from_static("x-amz-source-expected-bucket-owner"),
];

/// Holds `x-amz-expected-bucket-owner` and `x-amz-source-expected-bucket-owner` against `owner`, the id
/// that listings report: the tenant's name. All buckets that a tenant can name are its own.
pub(crate) fn check_owners(headers: &HeaderMap, owner: &str) -> Result<(), S3Error> {
    for name in &OWNERS {
        let mut expected = values_of(headers, name.clone());
        if expected.any(|expected| expected.as_bytes() != owner.as_bytes()) {
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
fn check_grantees(rest: &str, value: &[u8]) -> Result<(), S3Error> {
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
fn check_copy_range(value: &[u8]) -> Result<(), S3Error> {
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
fn check_value(name: &HeaderName, value: &HeaderValue) -> Result<(), S3Error> {
    match value.to_str() {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(format!(
            "The header {name} must be ASCII; percent-encode the rest."
        ))),
    }
}

fn denied(message: impl Into<Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::AccessDenied, message)
}

fn invalid(message: impl Into<Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::InvalidArgument, message)
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
    use proptest::prelude::*;

    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
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

    fn pass(operation: Operation, headers: &[(&str, &str)]) -> Result<Vec<String>, Code> {
        pass_granted(operation, headers, &[], &[])
    }

    fn pass_granted(
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
    fn rights_beyond_the_operation_need_a_grant() {
        let acl = [("x-amz-acl", "public-read")];
        let grant = [("x-amz-grant-read", "id=\"1\"")];
        for headers in [acl, grant] {
            assert_eq!(
                pass(Operation::PutObject, &headers),
                Err(Code::AccessDenied)
            );
            assert!(
                pass_granted(
                    Operation::PutObject,
                    &headers,
                    &["name/cos:PutObjectACL"],
                    &[]
                )
                .is_ok()
            );
        }
        let tags = [("x-amz-tagging", "a=b")];
        assert_eq!(pass(Operation::PutObject, &tags), Err(Code::AccessDenied));
        assert!(
            pass_granted(
                Operation::PutObject,
                &tags,
                &["name/cos:PutObjectTagging"],
                &[]
            )
            .is_ok()
        );
        for name in [
            "x-amz-storage-class",
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-website-redirect-location",
            "x-amz-object-lock-mode",
            "x-amz-object-lock-legal-hold",
        ] {
            assert_eq!(
                pass(Operation::PutObject, &[(name, "x")]),
                Err(Code::AccessDenied),
                "{name}"
            );
            assert_eq!(
                pass_granted(Operation::PutObject, &[(name, "x")], &[], &[name]).unwrap(),
                [name]
            );
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
    fn headers_of_a_copy_pass_on_copies_only() {
        let range = [("x-amz-copy-source-range", "bytes=0-1")];
        assert_eq!(
            pass(Operation::CopyObject, &range),
            Err(Code::InvalidArgument)
        );
        assert!(
            pass(
                Operation::CopyObject,
                &[("x-amz-metadata-directive", "REPLACE")]
            )
            .is_ok()
        );
        assert_eq!(
            pass(Operation::CopyObject, &[("x-amz-metadata-directive", "x")]),
            Err(Code::InvalidArgument)
        );
        for operation in [
            Operation::CreateMultipartUpload,
            Operation::PutObject,
            Operation::UploadPartCopy,
        ] {
            let directives = [
                ("x-amz-metadata-directive", "REPLACE"),
                ("x-amz-tagging-directive", "COPY"),
            ];
            assert_eq!(pass(operation, &directives), Ok(Vec::new()));
        }
    }

    #[test]
    fn drops_what_changes_nothing_that_is_stored_or_returned() {
        for operation in Operation::ALL {
            for name in [
                "x-amz-api-version",
                "x-amz-expected-bucket-owner",
                "x-amz-id-2",
                "x-amz-request-id",
                "x-amz-request-payer",
                "x-amz-sdk-checksum-algorithm",
                "x-amz-source-expected-bucket-owner",
                "x-amz-user-agent",
            ] {
                assert_eq!(pass(*operation, &[(name, "x")]), Ok(Vec::new()), "{name}");
                assert!(must_be_signed(name), "{name}");
            }
        }
        let attributes = [("x-amz-optional-object-attributes", "RestoreStatus")];
        assert_eq!(pass(Operation::ListObjectsV2, &attributes), Ok(Vec::new()));
        assert_eq!(
            pass(Operation::PutObject, &attributes),
            Err(Code::InvalidArgument)
        );
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
