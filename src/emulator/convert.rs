//! Conversions between the types of `s3s` and of the store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::{
    CopySource, ETag, ETagCondition, EncodingType, Owner, Range, Tag, Timestamp as Stamp,
    TimestampFormat,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};

use crate::emulator::behaviour::CosBehaviour;
use crate::emulator::s3::request_facts;
use crate::emulator::store::StoredObject;
use crate::emulator::store::versions::Versioning;
use crate::encoding::percent::{form_decode, push_encoded_path};
use crate::timestamp::Timestamp;

/// The maximum and the default number of entries on a page (436/7734).
const PAGE: i32 = 1000;
/// The emulated account.
const OWNER: &str = "qcs::cam::uin/100000000001:uin/100000000001";
/// The header for the CRC-64/XZ of an object's content, in decimal.
pub(super) const CRC64: HeaderName = HeaderName::from_static("x-cos-hash-crc64ecma");

/// The `Attributes` that the input of a write describes.
macro_rules! attributes_of {
    ($input:expr, $tags:expr) => {
        $crate::emulator::store::Attributes {
            cache_control: $input.cache_control.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_encoding: $input.content_encoding.clone(),
            content_language: $input.content_language.clone(),
            content_type: $input.content_type.clone(),
            expires: $input
                .expires
                .as_ref()
                .and_then($crate::emulator::convert::unix),
            metadata: $input
                .metadata
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            storage_class: $input
                .storage_class
                .as_ref()
                .map(|class| class.as_str().to_owned()),
            tags: $tags,
            acl: None,
            retention: None,
        }
    };
}

/// The conditions of a read.
macro_rules! conditions_of {
    ($input:expr) => {
        $crate::emulator::convert::Conditions {
            etag: $input.if_match.clone(),
            modified_since: $input.if_modified_since.clone(),
            other_etag: $input.if_none_match.clone(),
            unmodified_since: $input.if_unmodified_since.clone(),
        }
    };
}

/// The conditions on a copy's source.
macro_rules! source_conditions_of {
    ($input:expr) => {
        $crate::emulator::convert::Conditions {
            etag: $input.copy_source_if_match.clone(),
            modified_since: $input.copy_source_if_modified_since.clone(),
            other_etag: $input.copy_source_if_none_match.clone(),
            unmodified_since: $input.copy_source_if_unmodified_since.clone(),
        }
    };
}
pub(super) use {attributes_of, conditions_of, source_conditions_of};

/// The words in which a request forbids overwriting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CreateOnly {
    Cos,
    /// Those of COS, kept in a bucket with versions too.
    CosWithVersions,
    S3,
}

/// The conditions that the object must meet.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub(super) etag: Option<ETagCondition>,
    pub(super) modified_since: Option<Stamp>,
    pub(super) other_etag: Option<ETagCondition>,
    pub(super) unmodified_since: Option<Stamp>,
}

impl Conditions {
    /// RFC 9110 section 13.2.2, for GET and HEAD.
    pub(super) fn check_read(&self, object: &StoredObject) -> S3Result<()> {
        match self.fails(object) {
            None => Ok(()),
            Some(true) => Err(not_modified(object)),
            Some(false) => Err(s3_error!(PreconditionFailed)),
        }
    }

    /// The same for the source of a copy, where "not modified" does not exist.
    pub(super) fn check_copy(&self, object: &StoredObject) -> S3Result<()> {
        self.fails(object)
            .map_or(Ok(()), |_| Err(s3_error!(PreconditionFailed)))
    }

    /// `Some(true)` when the copy that the client has is still valid.
    fn fails(&self, object: &StoredObject) -> Option<bool> {
        match (&self.etag, &self.unmodified_since) {
            (Some(wanted), _) if !is_etag(wanted, object) => return Some(false),
            (None, Some(since)) if unix(since).is_some_and(|s| object.modified > s) => {
                return Some(false);
            }
            _ => {}
        }
        match (&self.other_etag, &self.modified_since) {
            (Some(wanted), _) if is_etag(wanted, object) => Some(true),
            (None, Some(since)) if unix(since).is_some_and(|s| object.modified <= s) => Some(true),
            _ => None,
        }
    }
}

/// Refuses a write over `there`, in a bucket of this `versioning`, when the request says `x-cos-forbid-overwrite: true`. COS has no other
/// condition for writes (PUT Object 436/7749, Initiate Multipart Upload 436/7746, Complete Multipart Upload
/// 436/7742; pull request 7526 of apache/opendal saw the 409 of PUT Object - Copy). It ignores the conditions
/// of S3.
pub(super) fn check_overwrite(
    forbids: Option<CreateOnly>,
    there: Option<&StoredObject>,
    versioning: Versioning,
) -> S3Result<()> {
    // With versioning nothing is overwritten, and the condition has no effect (436/7749).
    let holds = versioning == Versioning::Never || forbids == Some(CreateOnly::CosWithVersions);
    match forbids.filter(|_| holds && there.is_some()) {
        None => Ok(()),
        Some(CreateOnly::S3) => Err(s3_error!(PreconditionFailed)),
        Some(CreateOnly::Cos | CreateOnly::CosWithVersions) => {
            let code = S3ErrorCode::Custom("FileAlreadyExists".into());
            let mut error = S3Error::with_message(code, "The object you specified already exists.");
            error.set_status_code(http::StatusCode::CONFLICT);
            Err(error)
        }
    }
}

/// In which words a request forbids overwriting, if it does and COS keeps that. The translation of a native
/// request has renamed its header.
pub(super) fn forbids_overwrite<T>(req: &S3Request<T>) -> S3Result<Option<CreateOnly>> {
    let facts = request_facts(req)?;
    let says = |name: &str, value: &str| req.headers.get(name).is_some_and(|v| v == value);
    let behaves = |behaviour| facts.behaviours.has(behaviour);
    if behaves(CosBehaviour::KeepsIfNoneMatch) && says("if-none-match", "*") {
        return Ok(Some(CreateOnly::S3));
    }
    let forbids = facts.verified
        && says("x-amz-forbid-overwrite", "true")
        && !behaves(CosBehaviour::IgnoresForbidOverwrite);
    Ok(
        forbids.then_some(if behaves(CosBehaviour::KeepsForbidOverwrite) {
            CreateOnly::CosWithVersions
        } else {
            CreateOnly::Cos
        }),
    )
}

/// The bucket, the key and the version of a copy's source. Only the form `bucket/key` is supported.
pub(super) fn copy_source(source: &CopySource) -> S3Result<(&str, &str, Option<&str>)> {
    match source {
        CopySource::Bucket {
            bucket,
            key,
            version_id,
        } => Ok((bucket, key, named_version(version_id.as_deref()))),
        _ => Err(custom(
            "InvalidCopySource",
            "Copy source is not bucket/key.",
        )),
    }
}

/// The version that a request names. An empty version means none.
pub(super) fn named_version(version: Option<&str>) -> Option<&str> {
    version.filter(|version| !version.is_empty())
}

/// The first byte, the number of bytes, and the `Content-Range` of a partial response.
pub(super) fn slice(range: Option<&Range>, size: u64) -> S3Result<(u64, u64, Option<String>)> {
    let Some(range) = range else {
        return Ok((0, size, None));
    };
    // All of nothing, and no `Content-Range` can say that (RFC 9110 section 14.1.2).
    if size == 0 && matches!(range, Range::Suffix { length: 1.. }) {
        return Ok((0, 0, None));
    }
    let bytes = range.check(size).map_err(|_| s3_error!(InvalidRange))?;
    let content_range = format!(
        "bytes {}-{}/{size}",
        bytes.start,
        bytes.end.saturating_sub(1)
    );
    Ok((bytes.start, bytes.end - bytes.start, Some(content_range)))
}

/// Compares a body with its `Content-MD5`.
pub(super) fn verify_md5(claimed: Option<&str>, computed: &[u8; 16]) -> S3Result<()> {
    let Some(claimed) = claimed else {
        return Ok(());
    };
    match STANDARD.decode(claimed) {
        Ok(bytes) if bytes == computed => Ok(()),
        Ok(bytes) if bytes.len() == 16 => Err(s3_error!(BadDigest)),
        _ => Err(s3_error!(InvalidDigest)),
    }
}

/// The number of entries that a page may have.
pub(super) fn page_size(requested: Option<i32>) -> S3Result<usize> {
    usize::try_from(requested.unwrap_or(PAGE).min(PAGE))
        .map_err(|_| s3_error!(InvalidArgument, "Not a page size"))
}

/// The function that `encoding-type` applies to keys.
pub(super) fn encoder(encoding: Option<&EncodingType>) -> fn(&str) -> String {
    match encoding.map(EncodingType::as_str) {
        Some("url") => |text| {
            let mut out = String::new();
            push_encoded_path(&mut out, text.as_bytes());
            out
        },
        _ => str::to_owned,
    }
}

/// Reads `x-amz-tagging`: `k=v&k=v`, percent-encoded.
pub(super) fn parse_tags(text: Option<&str>) -> S3Result<Vec<(String, String)>> {
    let decode = |part: &str| {
        let bytes = form_decode(part).map(std::borrow::Cow::into_owned);
        bytes
            .and_then(|b| String::from_utf8(b).ok())
            .ok_or_else(|| s3_error!(InvalidTag))
    };
    let pairs = text
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect()
}

/// Tags in the form of a response.
pub(super) fn tag_set(tags: &[(String, String)]) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag {
            key: Some(key.clone()),
            value: Some(value.clone()),
        })
        .collect()
}

/// The account that owns everything.
pub(super) fn owner() -> Owner {
    Owner {
        display_name: Some(OWNER.into()),
        id: Some(OWNER.into()),
    }
}

/// A strong entity tag.
pub(super) fn etag(text: &str) -> ETag {
    ETag::Strong(text.to_owned())
}

/// Unix seconds in the type that `s3s` writes.
pub(super) fn stamp(unix: i64) -> Stamp {
    let seconds = u64::try_from(unix).unwrap_or_default();
    (std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).into()
}

/// The Unix seconds of a time that `s3s` has read.
pub(super) fn unix(stamp: &Stamp) -> Option<i64> {
    let mut text = Vec::new();
    stamp.format(TimestampFormat::HttpDate, &mut text).ok()?;
    Some(Timestamp::parse_http_date(std::str::from_utf8(&text).ok()?)?.unix())
}

/// The header with the checksum of an object.
pub(super) fn crc_header(crc64: u64) -> HeaderMap {
    HeaderMap::from_iter([(CRC64, HeaderValue::from(crc64))])
}

/// An error code that S3 does not have.
fn custom(code: &'static str, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// A 304 response, with the headers that identify the version of the object (RFC 9110 section 15.4.5).
fn not_modified(object: &StoredObject) -> S3Error {
    let mut error = s3_error!(NotModified);
    let mut headers = HeaderMap::new();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", object.etag)) {
        headers.insert(ETAG, etag);
    }
    error.set_headers(headers);
    error
}

fn is_etag(wanted: &ETagCondition, object: &StoredObject) -> bool {
    wanted.is_any() || wanted.as_etag().is_some_and(|e| e.value() == object.etag)
}
