//! Clients of COS's own API (`q-sign-algorithm=sha1`): what they request in S3's terms, and what they are
//! in COS's terms (its pages 436/7728, 436/7729, 436/7749, 436/10881).
//!
//! Only what has a counterpart is renamed. All else keeps its `x-cos-` name, which no operation knows:
//! it is refused unless a grant lists it.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::address::virtual_bucket;
use super::conditions::FORBID_OVERWRITE;
use super::headers::values_of;
use super::request::COPY_SOURCE;
use super::storage_class::cos_class;
use super::xml::Vocabulary;
use crate::encoding::split::{split, split_once};
use crate::error::{Code, S3Error};

/// The token of a temporary key, as a header or a parameter.
pub const TOKEN: &str = "x-cos-security-token";

/// The parameters of a presigned URL.
const PRESIGN: [&str; 7] = [
    "q-ak",
    "q-header-list",
    "q-key-time",
    "q-sign-algorithm",
    "q-sign-time",
    "q-signature",
    "q-url-param-list",
];

/// Whether `head` is signed in COS's own way, well or badly: by its `Authorization` or in its query.
pub(crate) fn is_native(head: &Parts) -> bool {
    let by_header = |value: &HeaderValue| value.as_bytes().starts_with(b"q-");
    values_of(&head.headers, AUTHORIZATION).any(by_header) || is_presigned(head)
}

/// Whether `head`, in S3's terms, is that of a client of COS's own API.
pub(crate) fn speaks_native(head: &Parts) -> bool {
    head.extensions.get::<Native>().is_some()
}

/// Whose words the client of `head`, in S3's terms, reads and writes in documents.
pub(crate) fn vocabulary(head: &Parts) -> Vocabulary {
    if speaks_native(head) {
        Vocabulary::Cos
    } else {
        Vocabulary::S3
    }
}

/// The mark of a head that was translated.
#[derive(Clone, Copy, Debug)]
struct Native;

/// Whether a signature stands in the query.
pub(crate) fn is_presigned(head: &Parts) -> bool {
    raw_pairs(head).any(|pair| PRESIGN.contains(&raw_name(pair)))
}

/// Whether the parameter `name` belongs to the signature itself, which does not cover it.
pub(crate) fn is_of_signature(name: &str) -> bool {
    PRESIGN.contains(&name) || name == TOKEN
}

/// Whether the header `name` (lower case) is what an SDK says of itself, its log or its retry. It changes nothing and
/// ends here, so no signature need cover it: the SDK for Java adds it to a request that is signed already.
pub(crate) fn is_of_sdk(name: &str) -> bool {
    ["x-cos-sdk-log-debug", "x-cos-sdk-retry"].contains(&name)
}

/// The same request in S3's terms, to be parsed and rewritten for COS; `None` if it is S3's already.
/// `domains` are the suffixes of virtual-hosted names: a copy's source names a host.
pub fn to_s3(head: &Parts, domains: &[String]) -> Result<Option<Parts>, S3Error> {
    if !is_native(head) {
        return Ok(None);
    }
    let (mut translated, ()) = http::Request::new(()).into_parts();
    translated.method = head.method.clone();
    translated.version = head.version;
    translated.uri = without_signature(head)?;
    translated.extensions.insert(Native);
    translated.headers.reserve(head.headers.len());
    // At the creation of an upload S3 has no word for it.
    let writes = matches!(head.method, Method::POST | Method::PUT) && !creates_upload(head);
    for (name, value) in &head.headers {
        let text = name.as_str();
        if *name == AUTHORIZATION {
            continue;
        }
        if text.starts_with("x-amz-") {
            return Err(invalid(format!(
                "A request that is signed with q-sign has no {text}; send its x-cos- counterpart."
            )));
        }
        match text.strip_prefix("x-cos-") {
            None => _ = translated.headers.append(name.clone(), value.clone()),
            Some("copy-source") => {
                let source = copy_source(value, domains)?;
                translated.headers.append(COPY_SOURCE, source);
            }
            Some("forbid-overwrite") if writes => match value.as_bytes() {
                b"false" => {}
                b"true" => {
                    let anything = HeaderValue::from_static("*");
                    translated.headers.append(IF_NONE_MATCH, anything);
                }
                _ => return Err(invalid(format!("{text} must be true or false."))),
            },
            Some("security-token") => {
                let token = HeaderName::from_static("x-amz-security-token");
                translated.headers.append(token, value.clone());
            }
            Some(_) if is_of_sdk(text) => {}
            // Set on an object that is there, it is another right than `private`.
            Some("acl") if sets_acl(head) => {
                let acl = HeaderName::from_static("x-amz-acl");
                translated.headers.append(acl, value.clone());
            }
            Some(own) => {
                let (name, value) = s3_header(own, name, value);
                translated.headers.append(name, value);
            }
        }
    }
    Ok(Some(translated))
}

/// Puts the headers of a response into COS's words.
pub(crate) fn from_s3(headers: &mut HeaderMap) {
    let theirs: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-amz-"))
        .cloned()
        .collect();
    for name in theirs {
        let Some(mut value) = headers.remove(&name) else {
            continue;
        };
        let own = name.as_str().strip_prefix("x-amz-").unwrap_or_default();
        let own = match own {
            "id-2" => "trace-id",
            "server-side-encryption-aws-kms-key-id" => "server-side-encryption-cos-kms-key-id",
            // Sums that COS has not: they belong to headers that nobody sends beside q-sign.
            _ if own.starts_with("checksum-") => continue,
            own => own,
        };
        if own == "storage-class"
            && let Some(class) = value.to_str().ok().and_then(cos_class)
        {
            value = HeaderValue::from_static(class);
        }
        if own == "server-side-encryption" && value == "aws:kms" {
            value = HeaderValue::from_static("cos/kms");
        }
        if let Ok(name) = HeaderName::try_from(format!("x-cos-{own}")) {
            headers.insert(name, value);
        }
    }
}

/// The refusal of a native request, with COS's code and the names that its client knows.
pub fn error(head: &Parts, error: &S3Error) -> S3Error {
    let forbids = head.headers.contains_key(FORBID_OVERWRITE);
    let code = match error.code() {
        Code::KeyTooLongError => Code::KeyTooLong,
        Code::PreconditionFailed if forbids => Code::FileAlreadyExists,
        code => code,
    };
    let status = if code == error.code() {
        error.http_status()
    } else {
        code.status()
    };
    let mut text = error.message().replace("x-amz-", "x-cos-");
    if forbids {
        text = text.replace("If-None-Match: *", "x-cos-forbid-overwrite: true");
        text = text.replace("if-none-match", FORBID_OVERWRITE);
    }
    S3Error::new(code, text).status(status)
}

/// S3's name and value for the header `x-cos-{own}`, where S3 has one.
fn s3_header(own: &str, name: &HeaderName, value: &HeaderValue) -> (HeaderName, HeaderValue) {
    let (mut own, mut value) = (own, value.clone());
    let other = match (own, value.as_bytes().to_ascii_lowercase().as_slice()) {
        ("acl", b"default") => Some("private"), // as the bucket's: what an object has anyway
        ("metadata-directive" | "tagging-directive", b"copy") => Some("COPY"),
        // cosfs says the first, the SDKs the second
        ("metadata-directive" | "tagging-directive", b"replace" | b"replaced") => Some("REPLACE"),
        ("server-side-encryption", b"cos/kms") => Some("aws:kms"),
        _ => None,
    };
    if let Some(other) = other {
        value = HeaderValue::from_static(other);
    }
    if own == "server-side-encryption-cos-kms-key-id" {
        own = "server-side-encryption-aws-kms-key-id";
    } else if !(own.starts_with("meta-") || own.starts_with("grant-") || SHARED.contains(&own)) {
        return (name.clone(), value);
    }
    let renamed = HeaderName::try_from(format!("x-amz-{own}"));
    (renamed.unwrap_or_else(|_| name.clone()), value)
}

/// What follows `x-cos-` and `x-amz-` alike in a request, with the same values.
const SHARED: [&str; 18] = [
    "acl",
    "copy-source-if-match",
    "copy-source-if-modified-since",
    "copy-source-if-none-match",
    "copy-source-if-unmodified-since",
    "copy-source-range",
    "copy-source-server-side-encryption-customer-algorithm",
    "copy-source-server-side-encryption-customer-key",
    "copy-source-server-side-encryption-customer-key-md5",
    "metadata-directive",
    "server-side-encryption",
    "server-side-encryption-context",
    "server-side-encryption-customer-algorithm",
    "server-side-encryption-customer-key",
    "server-side-encryption-customer-key-md5",
    "storage-class",
    "tagging",
    "tagging-directive",
];

/// `BUCKET.HOST/KEY` as `/BUCKET/KEY`. The host must be one under which cosgate, or COS itself, has
/// buckets; the bucket is the caller's alias and nothing else.
fn copy_source(value: &HeaderValue, domains: &[String]) -> Result<HeaderValue, S3Error> {
    let refused = || invalid("x-cos-copy-source must be BUCKET.HOST/KEY, percent-encoded.");
    let (host, key) = value
        .to_str()
        .ok()
        .and_then(|source| source.split_once('/'))
        .ok_or_else(refused)?;
    if key.contains('+') {
        // Two readers differ on it.
        return Err(invalid(
            "x-cos-copy-source holds a +; write %2B, or %20 for a space.",
        ));
    }
    let host = host.to_ascii_lowercase();
    let bucket = bucket_of_host(&host, domains).ok_or_else(refused)?;
    HeaderValue::from_str(&format!("/{bucket}/{key}")).map_err(|_| refused())
}

fn bucket_of_host<'h>(host: &'h str, domains: &[String]) -> Option<&'h str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return None,
        None => host,
    };
    let (bucket, rest) = match virtual_bucket(name, domains) {
        Some(bucket) => return Some(bucket),
        None => name.split_once('.')?,
    };
    let region = rest.strip_prefix("cos.")?;
    let region = region
        .strip_suffix(".myqcloud.com")
        .or_else(|| region.strip_suffix(".tencentcos.cn"))?;
    (!region.is_empty() && !region.contains('.')).then_some(bucket)
}

/// The target without what belongs to the signature; the rest is to the letter as it came, but for the
/// token's name.
fn without_signature(head: &Parts) -> Result<Uri, S3Error> {
    let mut target = head.uri.path().to_owned();
    let mut separator = '?';
    for pair in raw_pairs(head).filter(|pair| !PRESIGN.contains(&raw_name(pair))) {
        target.push(separator);
        match pair.strip_prefix(TOKEN) {
            Some(value) if raw_name(pair) == TOKEN => {
                target.push_str("X-Amz-Security-Token");
                target.push_str(value);
            }
            _ => target.push_str(pair),
        }
        separator = '&';
    }
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    Uri::from_parts(parts)
        .map_err(|_| S3Error::new(Code::InvalidURI, "The request target cannot be read."))
}

fn creates_upload(head: &Parts) -> bool {
    raw_pairs(head).any(|pair| raw_name(pair) == "uploads")
}

fn sets_acl(head: &Parts) -> bool {
    raw_pairs(head).any(|pair| raw_name(pair) == "acl")
}

fn raw_pairs(head: &Parts) -> impl Iterator<Item = &str> {
    split(head.uri.query().unwrap_or_default(), b'&')
}

fn raw_name(pair: &str) -> &str {
    split_once(pair, b'=').map_or(pair, |(name, _)| name)
}

fn invalid(message: impl Into<Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::s3::{Operation, S3Request};

    const SIGNED: (&str, &str) = ("authorization", "q-sign-algorithm=sha1&q-ak=a");

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut head = http::Request::builder().method(method).uri(target);
        for (name, value) in headers.iter().chain(&[("host", "photos.s3.localhost")]) {
            head = head.header(*name, *value);
        }
        head.body(()).unwrap().into_parts().0
    }

    fn domains() -> [String; 1] {
        ["s3.localhost".to_owned()]
    }

    fn translated(name: &str, value: &str) -> Result<Vec<(String, String)>, Code> {
        let head = head("PUT", "/k", &[SIGNED, (name, value)]);
        let translated = to_s3(&head, &domains()).map_err(|error| error.code())?;
        let headers = translated.unwrap().headers;
        let own = headers.iter().filter(|(name, _)| *name != "host");
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        Ok(own.map(text).collect())
    }

    #[test]
    fn headers_get_s3s_names_and_values() {
        for (name, value, s3_name, s3_value) in [
            ("content-type", "text/css", "content-type", "text/css"),
            ("x-cos-acl", "default", "x-amz-acl", "private"),
            ("x-cos-acl", "public-read", "x-amz-acl", "public-read"),
            (
                "x-cos-copy-source",
                "b.s3.localhost/k%20",
                "x-amz-copy-source",
                "/b/k%20",
            ),
            (
                "x-cos-copy-source",
                "b.S3.localhost:80/k",
                "x-amz-copy-source",
                "/b/k",
            ),
            (
                "x-cos-copy-source",
                "b-1.cos.r.tencentcos.cn/k",
                "x-amz-copy-source",
                "/b-1/k",
            ),
            ("x-cos-forbid-overwrite", "true", "if-none-match", "*"),
            ("x-cos-meta-a", "b", "x-amz-meta-a", "b"),
            (
                "x-cos-metadata-directive",
                "Replaced",
                "x-amz-metadata-directive",
                "REPLACE",
            ),
            ("x-cos-security-token", "t", "x-amz-security-token", "t"),
            (
                "x-cos-server-side-encryption",
                "cos/kms",
                "x-amz-server-side-encryption",
                "aws:kms",
            ),
            (
                "x-cos-server-side-encryption-cos-kms-key-id",
                "k",
                "x-amz-server-side-encryption-aws-kms-key-id",
                "k",
            ),
            (
                "x-cos-storage-class",
                "ARCHIVE",
                "x-amz-storage-class",
                "ARCHIVE",
            ),
            // What S3 has no name for keeps COS's, and is refused by it.
            ("x-cos-callback", "x", "x-cos-callback", "x"),
            ("x-cos-traffic-limit", "1", "x-cos-traffic-limit", "1"),
        ] {
            let expected = vec![(s3_name.to_owned(), s3_value.to_owned())];
            assert_eq!(translated(name, value), Ok(expected), "{name}: {value}");
        }
        assert_eq!(translated("x-cos-sdk-log-debug", "off"), Ok(Vec::new()));
        assert_eq!(translated("x-cos-sdk-retry", "true"), Ok(Vec::new()));
        assert_eq!(
            translated("x-cos-forbid-overwrite", "false"),
            Ok(Vec::new())
        );
    }

    #[test]
    fn the_two_languages_are_not_mixed_and_a_source_is_a_known_host() {
        for (name, value) in [
            ("x-amz-meta-a", "b"),
            ("x-amz-copy-source", "b/k"),
            ("x-cos-forbid-overwrite", "yes"),
            ("x-cos-copy-source", "b/k"),
            ("x-cos-copy-source", "/b/k"),
            ("x-cos-copy-source", "b.evil.example/k"),
            ("x-cos-copy-source", "b.cos.evil.example.myqcloud.com/k"),
            ("x-cos-copy-source", "b.cos..myqcloud.com/k"),
            ("x-cos-copy-source", "b.s3.localhost:x/k"),
            ("x-cos-copy-source", "b.s3.localhost/a+b"),
            ("x-cos-copy-source", "s3.localhost/k"),
        ] {
            assert_eq!(
                translated(name, value),
                Err(Code::InvalidArgument),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn the_bucket_of_a_source_is_before_the_longest_domain_in_whatever_order_they_are_written() {
        let mut domains = ["s3.localhost".to_owned(), "localhost".to_owned()];
        for _ in 0..2 {
            assert_eq!(bucket_of_host("b.s3.localhost:1", &domains), Some("b"));
            assert_eq!(bucket_of_host("b.c.localhost", &domains), Some("b.c"));
            assert_eq!(bucket_of_host("s3.localhost", &domains), None);
            domains.reverse();
        }
    }

    #[test]
    fn a_signature_in_the_query_is_no_part_of_what_is_requested() {
        let target = "/a%20b?q-ak=a&versionId=v&q-signature=s&response-expires=e";
        let head = head("GET", target, &[]);
        let translated = to_s3(&head, &domains()).unwrap().unwrap();
        assert_eq!(translated.uri, "/a%20b?versionId=v&response-expires=e");
        let requested = S3Request::parse(&translated, &domains()).unwrap();
        assert_eq!(requested.operation, Operation::GetObject);
        let plain = self::head("GET", "/a?versionId=v", &[]);
        assert!(to_s3(&plain, &domains()).unwrap().is_none());
    }

    #[test]
    fn responses_get_coss_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/css"),
            ("x-amz-id-2", "t"),
            ("x-amz-checksum-crc32", "c"),
            ("x-amz-meta-a", "b"),
            ("x-amz-request-id", "ours"),
            ("x-cos-request-id", "theirs"),
            ("x-amz-server-side-encryption", "aws:kms"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        from_s3(&mut headers);
        let mut translated: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        translated.sort();
        assert_eq!(
            translated,
            [
                "content-type: text/css",
                "x-cos-meta-a: b",
                "x-cos-request-id: ours",
                "x-cos-server-side-encryption: cos/kms",
                "x-cos-trace-id: t",
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn no_head_panics(target in "/[!-~]{0,40}", value in any::<Vec<u8>>(), own in "[a-z-]{0,20}") {
            let name = HeaderName::try_from(format!("x-cos-{own}"));
            let value = HeaderValue::from_bytes(&value);
            if let (Ok(uri), Ok(name), Ok(value)) = (Uri::try_from(target), name, value) {
                let mut head = head("PUT", "/", &[SIGNED]);
                head.uri = uri;
                head.headers.append(name, value);
                let _ = to_s3(&head, &domains());
            }
        }
    }
}
