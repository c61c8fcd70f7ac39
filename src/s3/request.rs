//! The head of a client's request, as typed parts.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, HeaderValue, header};

use super::address::{Address, check_bucket};
use super::form::MAX_FORM_BYTES;
use super::headers::values_of;
use super::operation::BodyKind;
use super::percent::{self, Plus};
use super::query::has_control;
use super::{ObjectKey, Operation, Query};
use crate::error::{Code, S3Error};

/// The largest object or part of a single request (COS's limit, 436/14518).
pub(crate) const MAX_OBJECT_BYTES: u64 = 5 << 30;

/// `x-amz-decoded-content-length`: the length of an object whose body is aws-chunked.
pub const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");

/// `x-amz-copy-source`
pub(crate) const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");

/// What is requested: the only thing that later steps know of the client's request line.
#[derive(Clone, Debug)]
pub struct S3Request<'a> {
    /// What to do.
    pub operation: Operation,
    /// The bucket as the client names it (an alias); `None` only for `ListBuckets`.
    pub bucket: Option<Cow<'a, str>>,
    /// The key; `None` for calls on the service or a bucket.
    pub key: Option<ObjectKey<'a>>,
    /// All query parameters, those of a presigned URL included.
    pub query: Query<'a>,
    /// The source of a copy.
    pub copy_source: Option<CopySource>,
}

/// `x-amz-copy-source`, decoded and checked as a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// The source bucket as the client names it (an alias).
    pub bucket: String,
    /// The source key.
    pub key: ObjectKey<'static>,
    /// `versionId`, if one was named.
    pub version_id: Option<String>,
}

impl<'a> S3Request<'a> {
    /// The HEAD of the object that this request is about.
    #[must_use]
    pub(crate) fn head_of_target(&self) -> Self {
        Self {
            operation: Operation::HeadObject,
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            query: Query::default(),
            copy_source: None,
        }
    }

    /// The HEAD of the object that this request reads, in the version that it names.
    #[must_use]
    pub(crate) fn head_of_read(&self) -> Self {
        Self {
            query: self.query.version_alone(),
            ..self.head_of_target()
        }
    }

    /// The part that is read of an object; `None` for all of it.
    pub(crate) fn part_read(&self) -> Option<u32> {
        let reads = self.operation.reads_object();
        let number = self.query.get("partNumber").filter(|_| reads)?;
        number.parse().ok()
    }

    /// The HEAD of the object that this request copies.
    pub(crate) fn head_of_source(&self) -> Option<Self> {
        let source = self.copy_source.as_ref()?;
        Some(Self {
            operation: Operation::HeadObject,
            bucket: Some(source.bucket.clone().into()),
            key: Some(source.key.clone()),
            query: Query::of_version(source.version_id.clone().map(Cow::Owned)),
            copy_source: None,
        })
    }

    /// Reads what `head` requests, and refuses whatever is not served. `domains` are the suffixes of
    /// virtual-hosted names, without a port.
    pub fn parse(head: &'a Parts, domains: &[String]) -> Result<Self, S3Error> {
        check_framing(head)?;
        let address = Address::parse(&head.uri, host(head)?, domains)?;
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        query.check_characters()?;
        let source = only(head, &COPY_SOURCE)?;
        let operation =
            Operation::resolve(&head.method, address.resource(), &query, source.is_some())?;
        query.check_values(operation)?;
        let key = address.raw_key.map(ObjectKey::parse).transpose()?;
        let copy_source = source.map(CopySource::parse).transpose()?;
        check_body(head, operation)?;
        let requested = Self {
            operation,
            bucket: address.bucket,
            key,
            query,
            copy_source,
        };
        if requested.part_read().is_some() && head.headers.contains_key(header::RANGE) {
            return Err(S3Error::new(
                Code::InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter",
            ));
        }
        Ok(requested)
    }

    /// The query for COS, decoded: the operation's own parameters, the sub-resource first, in a fixed
    /// order. A presigned URL's and everything else is left out.
    pub fn upstream_query(&self) -> Vec<(&'static str, &str)> {
        self.query.upstream(self.operation)
    }
}

impl CopySource {
    /// Reads `bucket/key`, with or without a leading `/` and `?versionId=`, percent-encoded as S3 wants
    /// it. Host names and ARNs are refused: a source is one of the caller's own buckets.
    pub fn parse(value: &HeaderValue) -> Result<Self, S3Error> {
        let raw = std::str::from_utf8(value.as_bytes())
            .map_err(|_| bad_source("must be UTF-8, percent-encoded"))?;
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        // S3 reads `+` as a space here, and s5cmd writes it so; whoever means a plus writes %2B.
        let path = percent::decode(path, Plus::Space)?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        let Some((bucket, key)) = path.split_once('/') else {
            return Err(bad_source("must be bucket/key"));
        };
        if check_bucket(bucket).is_err() || names_a_host(bucket) {
            return Err(bad_source(
                "must be bucket/key with the bucket's own name, not a host or an ARN",
            ));
        }
        let version_id = query.map(version_id).transpose()?;
        Ok(Self {
            bucket: bucket.to_owned(),
            key: ObjectKey::from_decoded(key.to_owned())?,
            version_id,
        })
    }
}

/// Refuses a head that two readers could frame in two ways (RFC 9112 section 6). `Upgrade` is an offer
/// that a server may ignore (RFC 9110 section 7.8): Java's client and curl make it with each request.
pub(crate) fn check_framing(head: &Parts) -> Result<(), S3Error> {
    let refuse = |message: &'static str| Err(S3Error::new(Code::InvalidRequest, message).close());
    let (mut hosts, mut lengths, mut codings, mut expectations) = (0, 0, 0, 0);
    let mut continues = true;
    for (name, value) in &head.headers {
        match *name {
            header::HOST => hosts += 1,
            header::CONTENT_LENGTH => lengths += 1,
            header::TRANSFER_ENCODING => codings += 1,
            header::EXPECT => {
                expectations += 1;
                continues &= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
    }
    if hosts != 1 {
        return refuse("A request has exactly one Host header.");
    }
    match (lengths, codings) {
        (0, 0) => {}
        (1, 0) if content_length(head).is_some() => {}
        (0, 1) if is_chunked(head) => {}
        (0, _) => return refuse("Transfer-Encoding can only be the single word chunked."),
        (_, 0) => return refuse("Content-Length must be given once, as a number of bytes."),
        _ => return refuse("A request has Content-Length or Transfer-Encoding, not both."),
    }
    if expectations > 1 || !continues {
        return Err(S3Error::new(
            Code::ExpectationFailed,
            "Only Expect: 100-continue can be met.",
        ));
    }
    Ok(())
}

/// The length of the body in bytes, where `Content-Length` declares it: digits alone.
pub fn content_length(head: &Parts) -> Option<u64> {
    let digits = head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn is_chunked(head: &Parts) -> bool {
    let coding = head.headers.get(header::TRANSFER_ENCODING);
    coding.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// The one `Host`.
pub fn host(head: &Parts) -> Result<&str, S3Error> {
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    host.ok_or_else(|| S3Error::new(Code::InvalidRequest, "The Host header must be ASCII."))
}

fn only<'h>(head: &'h Parts, name: &HeaderName) -> Result<Option<&'h HeaderValue>, S3Error> {
    let mut values = values_of(&head.headers, name.clone());
    let first = values.next();
    if values.next().is_some() {
        return Err(S3Error::new(
            Code::InvalidArgument,
            format!("The header {name} is given twice."),
        ));
    }
    Ok(first)
}

/// Where a body belongs, how long it may be, and that its length is known before it is streamed: COS
/// stores what came when a body ends early, so its length must be announced.
fn check_body(head: &Parts, operation: Operation) -> Result<(), S3Error> {
    let length = content_length(head);
    if operation.body() == BodyKind::Form {
        // The file has no length of its own: it is what the form's leaves.
        return match length {
            None => Err(S3Error::new(
                Code::MissingContentLength,
                "A form must declare its length; send Content-Length.",
            )),
            Some(length) if length > MAX_OBJECT_BYTES + MAX_FORM_BYTES as u64 => Err(too_large()),
            Some(_) => Ok(()),
        };
    }
    if operation.takes_object_body() {
        // A chunked one says its length elsewhere, or may be held until it is known.
        let decoded = head.headers.contains_key(DECODED_LENGTH);
        return match length {
            None if !decoded && !is_chunked(head) => Err(S3Error::new(
                Code::MissingContentLength,
                "An upload must declare its length; send Content-Length.",
            )),
            Some(length) if length > MAX_OBJECT_BYTES && !decoded => Err(too_large()),
            None | Some(_) => Ok(()),
        };
    }
    // One of unknown length may turn out to be none: cosgate reads it before COS gets the request.
    let may_have_body = operation.body() != BodyKind::None;
    if length.is_some_and(|length| length > 0) && !may_have_body {
        return Err(S3Error::new(
            Code::InvalidRequest,
            format!(
                "{} takes no body; send Content-Length: 0 or none.",
                operation.name()
            ),
        ));
    }
    Ok(())
}

/// The refusal of an object or part that COS would not take in one request.
pub(crate) fn too_large() -> S3Error {
    S3Error::new(
        Code::EntityTooLarge,
        "One request uploads at most 5 GiB; use a multipart upload for more.",
    )
}

fn version_id(query: &str) -> Result<String, S3Error> {
    let raw = query
        .strip_prefix("versionId=")
        .filter(|raw| !raw.is_empty() && !raw.contains(['&', '+']));
    let Some(raw) = raw else {
        return Err(bad_source(
            "may have ?versionId=… after the key and nothing else; write ? in a key as %3F",
        ));
    };
    let version_id = percent::decode(raw, Plus::Literal)?;
    if has_control(&version_id) {
        return Err(bad_source("may have no control character in its versionId"));
    }
    Ok(version_id.into_owned())
}

/// COS's native form names a source by its host; such a name would also fit a bucket's grammar.
fn names_a_host(bucket: &str) -> bool {
    ["myqcloud.com", "tencentcos.cn", "amazonaws.com"]
        .iter()
        .any(|domain| bucket.ends_with(domain))
}

fn bad_source(what: &str) -> S3Error {
    S3Error::new(Code::InvalidArgument, format!("x-amz-copy-source {what}."))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "127.0.0.1:9000");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn refused(method: &str, target: &str, headers: &[(&str, &str)]) -> S3Error {
        S3Request::parse(&head(method, target, headers), &[]).unwrap_err()
    }

    fn source(value: &str) -> Result<CopySource, Code> {
        CopySource::parse(&HeaderValue::from_bytes(value.as_bytes()).unwrap())
            .map_err(|error| error.code())
    }

    #[test]
    fn a_request_becomes_typed_parts() {
        let head = head(
            "GET",
            "/photos/a%20b?versionId=v&X-Amz-Date=d&response-expires=e",
            &[],
        );
        let requested = S3Request::parse(&head, &[]).unwrap();
        assert_eq!(requested.operation, Operation::GetObject);
        assert_eq!(requested.bucket.as_deref(), Some("photos"));
        assert_eq!(requested.key.as_ref().map(ObjectKey::as_str), Some("a b"));
        assert_eq!(
            requested.upstream_query(),
            [("versionId", "v"), ("response-expires", "e")]
        );
        assert_eq!(requested.query.get("X-Amz-Date"), Some("d"));
    }

    #[test]
    fn doubtful_framing_is_refused_and_the_connection_closed() {
        let doubtful: &[&[(&str, &str)]] = &[
            &[("host", "a"), ("host", "a")],
            &[("content-length", "1"), ("transfer-encoding", "chunked")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "+1")],
            &[("content-length", "1, 1")],
            &[("content-length", "99999999999999999999")],
            &[("content-length", "")],
            &[("transfer-encoding", "identity, chunked")],
            &[("transfer-encoding", ",chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
        ];
        for headers in doubtful {
            let error = refused("PUT", "/photos/k", headers);
            assert_eq!(error.code(), Code::InvalidRequest, "{headers:?}");
            assert!(error.closes(), "{headers:?}");
        }
        let mut none = head("GET", "/", &[]);
        none.headers.clear();
        assert!(S3Request::parse(&none, &[]).unwrap_err().closes());
    }

    #[test]
    fn only_100_continue_can_be_expected() {
        let continues = head(
            "PUT",
            "/photos/k",
            &[("expect", "100-Continue"), ("content-length", "1")],
        );
        assert!(S3Request::parse(&continues, &[]).is_ok());
        assert_eq!(
            refused("PUT", "/photos/k", &[("expect", "a-pony")]).code(),
            Code::ExpectationFailed
        );
    }

    #[test]
    fn an_upload_must_say_a_length_that_cos_takes() {
        let put = |headers| refused("PUT", "/photos/k", headers).code();
        assert_eq!(put(&[]), Code::MissingContentLength);
        assert_eq!(
            put(&[("content-length", "5368709121")]),
            Code::EntityTooLarge
        );
        let largest = head("PUT", "/photos/k", &[("content-length", "5368709120")]);
        assert!(S3Request::parse(&largest, &[]).is_ok());
        let part = "/photos/k?partNumber=1&uploadId=u";
        assert_eq!(refused("PUT", part, &[]).code(), Code::MissingContentLength);
    }

    #[test]
    fn an_aws_chunked_upload_says_its_length_elsewhere() {
        let chunked = ("transfer-encoding", "chunked");
        let decoded = ("x-amz-decoded-content-length", "9");
        assert!(S3Request::parse(&head("PUT", "/photos/k", &[chunked, decoded]), &[]).is_ok());
    }

    #[test]
    fn a_body_where_none_belongs_is_refused() {
        for (method, target) in [
            ("GET", "/photos/k"),
            ("HEAD", "/photos"),
            ("DELETE", "/photos/k"),
            ("POST", "/photos/k?uploads"),
        ] {
            assert_eq!(
                refused(method, target, &[("content-length", "1")]).code(),
                Code::InvalidRequest
            );
            for empty in [("content-length", "0"), ("transfer-encoding", "chunked")] {
                assert!(S3Request::parse(&head(method, target, &[empty]), &[]).is_ok());
            }
        }
        let copy = [("x-amz-copy-source", "photos/k"), ("content-length", "1")];
        assert_eq!(
            refused("PUT", "/photos/k", &copy).code(),
            Code::InvalidRequest
        );
        assert!(
            S3Request::parse(
                &head(
                    "POST",
                    "/photos?delete",
                    &[("transfer-encoding", "chunked")]
                ),
                &[]
            )
            .is_ok()
        );
    }

    #[test]
    fn a_copy_source_names_bucket_key_and_version() {
        let found = source("/photos/a%20b%2Fc?versionId=v%2F1").unwrap();
        assert_eq!(
            (
                found.bucket.as_str(),
                found.key.as_str(),
                found.version_id.as_deref()
            ),
            ("photos", "a b/c", Some("v/1"))
        );
        for value in [
            "photos/中",
            "/photos/%E4%B8%AD",
            "photos%2F中",
            "%2Fphotos%2f中",
        ] {
            let found = source(value).unwrap();
            assert_eq!(
                (found.bucket.as_str(), found.key.as_str()),
                ("photos", "中"),
                "{value}"
            );
        }
    }

    #[test]
    fn a_plus_in_a_copy_source_is_a_space() {
        assert_eq!(source("photos/a+b%2Bc").unwrap().key.as_str(), "a b+c");
        assert_eq!(source("photos//k").unwrap().key.as_str(), "/k"); // its grant says whether it may
    }

    #[test]
    fn other_forms_of_copy_source_are_refused() {
        for value in [
            "",
            "/",
            "photos",
            "photos/k?",
            "photos/k?versionId=",
            "photos/k?versionId=a&b",
            "photos/k?acl",
            "arn:aws:s3:::photos/k",
            "arn:aws:s3:r:1:accesspoint/p/object/k",
            "x-1.cos.ap-x.myqcloud.com/k",
            "//photos/k",
            "https://photos/k",
            "qcs::cos:r:uid/1:photos/k",
            "Photos/k",
        ] {
            assert_eq!(source(value), Err(Code::InvalidArgument), "{value}");
        }
        for value in [
            "photos/a/../b",
            "photos/a/%2e%2e/b",
            "photos/a/%252e%252e/b",
            "photos/",
            "photos/%zz",
        ] {
            assert_eq!(source(value), Err(Code::InvalidURI), "{value}");
        }
        let twice = [
            ("x-amz-copy-source", "photos/a"),
            ("x-amz-copy-source", "photos/b"),
        ];
        assert_eq!(
            refused("PUT", "/photos/k", &twice).code(),
            Code::InvalidArgument
        );
        assert_eq!(
            refused("GET", "/photos/k", &[("x-amz-copy-source", "photos/a")]).code(),
            Code::InvalidArgument
        );
        assert_eq!(
            refused("PUT", "/photos/k", &[("x-amz-copy-source", "")]).code(),
            Code::InvalidArgument
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn no_query_panics(raw in any::<String>()) {
            let _ = Query::parse(&raw);
        }

        #[test]
        fn a_query_survives_encoding(value in any::<String>()) {
            let raw = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC).to_string();
            let raw = format!("prefix={raw}");
            let query = Query::parse(&raw).unwrap();
            prop_assert_eq!(query.get("prefix"), Some(value.as_str()));
        }

        #[test]
        fn an_accepted_copy_source_is_as_clean_as_a_key(value in "/?(photos|%2e|\\.|/|%2F|%25|2e|\\?versionId=|a|%|\\\\|\u{e9}){1,12}") {
            if let Ok(found) = source(&value) {
                prop_assert!(ObjectKey::from_decoded(found.key.as_str().to_owned()).is_ok());
                prop_assert!(check_bucket(&found.bucket).is_ok());
            }
        }

        #[test]
        fn no_copy_source_panics(bytes in any::<Vec<u8>>()) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = CopySource::parse(&value);
            }
        }

        #[test]
        fn no_head_panics(target in any::<Vec<u8>>(), method in "GET|PUT|POST|DELETE|HEAD|FOO") {
            if let Ok(uri) = http::Uri::try_from(target) {
                let mut head = head(&method, "/", &[]);
                head.uri = uri;
                let _ = S3Request::parse(&head, &["s3.localhost".to_owned()]);
            }
        }
    }
}
