//! Which bucket and key a request names.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::Uri;
use memchr::memchr;

use super::host::fits_port;
use super::operation::Resource;
use super::percent::{self, Plus};
use crate::encoding::percent::{decode_leniently, push_encoded_path};
use crate::encoding::split::{split, split_once};
use crate::error::{Code, S3Error};

/// The longest key that COS takes, in bytes of UTF-8 (436/13324); S3 itself takes 1024.
pub const MAX_KEY_BYTES: usize = 850;

/// Where a request goes, the key still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// The bucket as the client names it, in lower case where the `Host` does: a host's name is the
    /// same in any (RFC 9110 section 4.2.3). `None` for the service.
    pub bucket: Option<Cow<'a, str>>,
    /// The key as it stands in the path; `None` for the service or a bucket.
    pub raw_key: Option<&'a str>,
}

/// An object key, decoded and checked against COS's rules (UTF-8, 1 to 850 bytes, no `.`
/// or `..` segment however encoded, no NUL and no control character that COS refuses). Whether it may
/// begin with a slash depends on its bucket: [`begins_with_slash`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey<'a>(Cow<'a, str>);

impl<'a> Address<'a> {
    /// Reads the bucket from the Host (`bucket.domain`, for the longest of `domains` that fits) or
    /// else from the path. `host` is the one `Host` header; a target in absolute form must agree.
    pub fn parse(uri: &'a Uri, host: &'a str, domains: &[String]) -> Result<Self, S3Error> {
        let name = host_name(host)?;
        check_form(uri, host)?;
        let Some(path) = uri.path().strip_prefix('/') else {
            return Err(invalid_uri("The request target must be a path."));
        };
        let (bucket, raw_key) = match virtual_bucket(name, domains) {
            Some(bucket) => (in_lower_case(bucket), path),
            None if path.is_empty() => {
                return Ok(Self {
                    bucket: None,
                    raw_key: None,
                });
            }
            None => {
                let (bucket, key) = split_once(path, b'/').unwrap_or((path, ""));
                (Cow::Borrowed(bucket), key)
            }
        };
        check_bucket(&bucket)?;
        Ok(Self {
            bucket: Some(bucket),
            raw_key: Some(raw_key).filter(|key| !key.is_empty()),
        })
    }

    /// The URL of the object `key` in the bucket that was requested under `uri` and `host`, in the style of
    /// that request: the bucket in the path, or in the name.
    pub(crate) fn object_url(
        uri: &Uri,
        host: &str,
        tls: bool,
        domains: &[String],
        key: &str,
    ) -> Result<String, S3Error> {
        let requested = Address::parse(uri, host, domains)?;
        let raw_key = requested.raw_key.unwrap_or_default();
        let bucket = uri.path().strip_suffix(raw_key).unwrap_or_default();
        let mut url = String::from(if tls { "https://" } else { "http://" });
        url.push_str(host);
        url.push_str(bucket.trim_end_matches('/'));
        url.push('/');
        push_encoded_path(&mut url, key.as_bytes());
        Ok(url)
    }

    /// What the address names.
    pub fn resource(&self) -> Resource {
        match (&self.bucket, self.raw_key) {
            (None, _) => Resource::Service,
            (Some(_), None) => Resource::Bucket,
            (Some(_), Some(_)) => Resource::Object,
        }
    }
}

impl<'a> ObjectKey<'a> {
    /// Decodes a key from a path, once, and checks it.
    pub fn parse(raw: &'a str) -> Result<Self, S3Error> {
        if raw.contains('#') {
            return Err(invalid_uri(
                "The request target holds a #; write it as %23.",
            ));
        }
        let key = percent::decode(raw, Plus::Literal)?;
        check_key(&key)?;
        Ok(Self(key))
    }

    /// The key, decoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same key, holding its own bytes.
    pub fn into_owned(self) -> ObjectKey<'static> {
        ObjectKey(Cow::Owned(self.0.into_owned()))
    }
}

impl ObjectKey<'static> {
    /// Checks a key that came decoded: from XML, or from a copy source.
    pub fn from_decoded(key: String) -> Result<Self, S3Error> {
        check_key(&key)?;
        Ok(Self(Cow::Owned(key)))
    }
}

/// Refuses what cannot be a bucket's name: 3 to 63 of `a-z`, `0-9`, `.` and `-`, a letter or digit at
/// both ends (S3's rules, which COS's lie within).
pub fn check_bucket(name: &str) -> Result<(), S3Error> {
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
    };
    let edge = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let fits = (3..=63).contains(&name.len())
        && name.bytes().all(inner)
        && edge(name.bytes().next())
        && edge(name.bytes().next_back())
        && !name.contains("..");
    if fits {
        return Ok(());
    }
    Err(S3Error::new(
        Code::InvalidBucketName,
        "A bucket name has 3 to 63 characters out of a-z, 0-9, '.' and '-', and begins and ends with a letter or digit.",
    ))
}

/// The host without its port. The grammar is narrow on purpose: what fits it can do no harm in a
/// comparison or a log.
fn host_name(host: &str) -> Result<&str, S3Error> {
    let (name, port) = split_port(host).ok_or_else(bad_host)?;
    if fits_port(port) {
        Ok(name)
    } else {
        Err(bad_host())
    }
}

/// Splits `[address]:port` or `name:port` before the colon, if the first part is well-formed.
fn split_port(host: &str) -> Option<(&str, &str)> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return Some((address, port)).filter(|_| address.parse::<Ipv6Addr>().is_ok());
    }
    let (name, port) = host.split_at(memchr(b':', host.as_bytes()).unwrap_or(host.len()));
    // Names of containers may hold `_`, though RFC 1123 has none.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label_fits = |label: &str| !label.is_empty() && label.bytes().all(fits);
    Some((name, port)).filter(|_| split(name, b'.').all(label_fits))
}

/// Origin form, or absolute form with the authority that `Host` names too (RFC 9112 section 3.2).
fn check_form(uri: &Uri, host: &str) -> Result<(), S3Error> {
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(()),
        (Some("http" | "https"), Some(authority))
            if authority.as_str().eq_ignore_ascii_case(host) =>
        {
            Ok(())
        }
        _ => Err(invalid_uri(
            "The request target must be a path, or a URL whose host is the Host header's.",
        )
        .close()),
    }
}

fn in_lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// The bucket that the host `name` has before the longest of `domains` that fits; `None` too for a
/// domain itself.
pub(super) fn virtual_bucket<'h>(name: &'h str, domains: &[String]) -> Option<&'h str> {
    if domains
        .iter()
        .any(|domain| domain.eq_ignore_ascii_case(name))
    {
        return None;
    }
    domains
        .iter()
        .filter_map(|domain| strip_domain(name, domain))
        .min_by_key(|bucket| bucket.len())
}

fn strip_domain<'h>(name: &'h str, domain: &str) -> Option<&'h str> {
    let (front, tail) = name.split_at_checked(name.len().checked_sub(domain.len())?)?;
    front
        .strip_suffix('.')
        .filter(|_| tail.eq_ignore_ascii_case(domain))
}

/// Whether COS takes no key with this byte (436/13324).
pub(super) fn is_refused_in_keys(byte: u8) -> bool {
    matches!(byte, 0 | b'\r' | b'\n' | 0x18..=0x1b)
}

fn check_key(key: &str) -> Result<(), S3Error> {
    if key.is_empty() {
        return Err(invalid_uri("The key is empty."));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(S3Error::new(
            Code::KeyTooLongError,
            format!(
                "The key has {} bytes; Tencent COS takes {MAX_KEY_BYTES}.",
                key.len()
            ),
        ));
    }
    if key.bytes().any(is_refused_in_keys) {
        return Err(invalid_uri(
            "Tencent COS takes no key with NUL, CR, LF or the control characters 24 to 27.",
        ));
    }
    if has_dot_segment(key) {
        return Err(invalid_uri(
            "A key may have no segment that is . or .., however encoded.",
        ));
    }
    Ok(())
}

/// Whether COS takes no key of this name; below the root of a virtual bucket it does.
pub(crate) fn begins_with_slash(key: &str) -> bool {
    key.starts_with(['/', '\\'])
}

/// The refusal of a key that begins with a slash.
pub(crate) fn no_such_key() -> S3Error {
    invalid_uri("Tencent COS takes no key that begins with / or \\.")
}

/// Whether a reader that decodes once more, or takes `\` for `/`, could find a `.` or `..` segment.
fn has_dot_segment(key: &str) -> bool {
    let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    let separator = |byte: &u8| matches!(byte, b'/' | b'\\');
    if key.contains('%') {
        return decode_leniently(key).split(separator).any(dots);
    }
    key.as_bytes().split(separator).any(dots)
}

fn bad_host() -> S3Error {
    S3Error::new(
        Code::InvalidRequest,
        "The Host header must be one host name or address, with a port or without.",
    )
    .close()
}

fn invalid_uri(message: &'static str) -> S3Error {
    S3Error::new(Code::InvalidURI, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(
        target: &'static str,
        host: &'static str,
    ) -> Result<(Option<String>, Option<String>), Code> {
        let uri: Uri = target.parse().unwrap();
        let domains = ["s3.localhost".to_owned(), "localhost".to_owned()];
        let found = Address::parse(&uri, host, &domains).map_err(|error| error.code())?;
        Ok((
            found.bucket.map(Cow::into_owned),
            found.raw_key.map(str::to_owned),
        ))
    }

    #[test]
    fn the_url_of_an_object_is_in_the_style_of_the_request() {
        let domains = ["s3.localhost".to_owned()];
        for (uri, host, tls, expected) in [
            (
                "/photos/a%20b?uploadId=u",
                "127.0.0.1:9000",
                false,
                "http://127.0.0.1:9000/photos/a%20b",
            ),
            (
                "/photos/a%20b",
                "S3.localhost:9000",
                true,
                "https://S3.localhost:9000/photos/a%20b",
            ),
            (
                "/a%20b",
                "photos.s3.localhost",
                true,
                "https://photos.s3.localhost/a%20b",
            ),
            (
                "/photos",
                "[::1]:9000",
                false,
                "http://[::1]:9000/photos/a%20b",
            ),
            (
                "/",
                "photos.s3.localhost",
                false,
                "http://photos.s3.localhost/a%20b",
            ),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let url = Address::object_url(&uri, host, tls, &domains, "a b").unwrap();
            assert_eq!(url, expected);
        }
        // The key may look like the bucket.
        let uri: Uri = "/photos/photos".parse().unwrap();
        let url = Address::object_url(&uri, "h", false, &domains, "photos").unwrap();
        assert_eq!(url, "http://h/photos/photos");
        let url = Address::object_url(
            &uri,
            "photos.s3.localhost",
            false,
            &domains,
            "photos/photos",
        );
        assert_eq!(url.unwrap(), "http://photos.s3.localhost/photos/photos");
    }

    fn names(bucket: &str, key: &str) -> (Option<String>, Option<String>) {
        let key = Some(key).filter(|key| !key.is_empty());
        (Some(bucket.to_owned()), key.map(str::to_owned))
    }

    fn key(raw: &str) -> Result<String, Code> {
        ObjectKey::parse(raw)
            .map(|key| key.as_str().to_owned())
            .map_err(|error| error.code())
    }

    #[test]
    fn path_style_names_the_bucket_first() {
        for host in [
            "127.0.0.1:9000",
            "localhost",
            "S3.localhost:80",
            "[::1]:9000",
            "proxy_1:9000",
        ] {
            assert_eq!(
                address("/photos/a//b/", host),
                Ok(names("photos", "a//b/")),
                "{host}"
            );
            assert_eq!(address("/photos/", host), Ok(names("photos", "")), "{host}");
            assert_eq!(address("/photos", host), Ok(names("photos", "")), "{host}");
            assert_eq!(address("/", host), Ok((None, None)), "{host}");
        }
        assert_eq!(
            address("/photos//x", "127.0.0.1"),
            Ok(names("photos", "/x"))
        );
    }

    #[test]
    fn virtual_hosted_style_names_it_in_the_host_under_the_longest_domain() {
        assert_eq!(
            address("/a/b?x", "photos.s3.localhost:9000"),
            Ok(names("photos", "a/b"))
        );
        assert_eq!(
            address("/other/k", "photos.s3.LOCALHOST"),
            Ok(names("photos", "other/k"))
        );
        assert_eq!(
            address("/K", "PHOTOS.S3.LocalHost:9000"),
            Ok(names("photos", "K"))
        );
        assert_eq!(
            address("/k", "my.photos.localhost"),
            Ok(names("my.photos", "k"))
        );
        assert_eq!(address("/", "photos.s3.localhost"), Ok(names("photos", "")));
        assert_eq!(
            address("//x", "photos.s3.localhost"),
            Ok(names("photos", "/x"))
        );
        assert_eq!(
            address("/photos/k", "xs3.localhost"),
            Ok(names("xs3", "photos/k"))
        );
    }

    #[test]
    fn strange_hosts_are_refused() {
        for host in [
            "", "u@evil", "a/../b", "b:80/..", "a:", "a:99999", "a:80:80", "[::1", "[::1]x",
            "a..b", "a.", "a b", "中",
        ] {
            assert_eq!(
                address("/photos/k", host),
                Err(Code::InvalidRequest),
                "{host}"
            );
        }
    }

    #[test]
    fn strange_bucket_names_are_refused() {
        for target in [
            "//x",
            "/ab/k",
            "/Photos/k",
            "/%70hotos/k",
            "/-photos/k",
            "/photos./k",
            "/a..b/k",
            "/a_b/k",
            "/../k",
        ] {
            assert_eq!(
                address(target, "127.0.0.1"),
                Err(Code::InvalidBucketName),
                "{target}"
            );
        }
        assert_eq!(
            address("/k", "a_b.s3.localhost"),
            Err(Code::InvalidBucketName)
        );
    }

    #[test]
    fn other_forms_of_target_are_refused() {
        assert_eq!(
            address("http://127.0.0.1:9000/photos/k", "127.0.0.1:9000"),
            Ok(names("photos", "k"))
        );
        for target in [
            "http://evil.com/photos/k",
            "ftp://127.0.0.1:9000/photos/k",
            "evil:443",
            "*",
        ] {
            assert_eq!(
                address(target, "127.0.0.1:9000"),
                Err(Code::InvalidURI),
                "{target}"
            );
        }
    }

    #[test]
    fn a_key_is_decoded_once() {
        assert_eq!(key("a%20b+c%2Fd%2541"), Ok("a b+c/d%41".to_owned()));
        assert_eq!(key("%E4%B8%AD/%27()*~"), Ok("中/'()*~".to_owned()));
        assert_eq!(key("a//b/"), Ok("a//b/".to_owned()));
        for raw in ["/a", "%2Fa", "\\a", "%5Ca"] {
            assert!(key(raw).is_ok_and(|key| begins_with_slash(&key)), "{raw}");
        }
        assert_eq!(key("..a/b../...;/.x"), Ok("..a/b../...;/.x".to_owned()));
    }

    #[test]
    fn keys_that_cos_refuses_are_refused() {
        for raw in [
            "", "a%00", "a%0Ab", "a%0D", "a%18", "a%1b", "%zz", "%", "a#b", "%ff", "%c0%ae",
        ] {
            assert_eq!(key(raw), Err(Code::InvalidURI), "{raw}");
        }
        assert!(key(&"a".repeat(MAX_KEY_BYTES)).is_ok());
        assert_eq!(
            key(&"a".repeat(MAX_KEY_BYTES + 1)),
            Err(Code::KeyTooLongError)
        );
        assert_eq!(key(&"%E4%B8%AD".repeat(284)), Err(Code::KeyTooLongError));
    }

    #[test]
    fn dot_segments_are_refused_however_encoded() {
        for raw in [
            ".",
            "..",
            "a/..",
            "../a",
            "a/./b",
            "a/%2e%2e/b",
            "a/..%2fb",
            "a/%252e%252e/b",
            "a/.%252e%252fb",
            "a/%252E",
            "a\\..\\b",
            "a/..\\b",
            "a%5c..%5cb",
            "a%255c..%255cb",
            "a/..%25",
        ] {
            let refused = key(raw) == Err(Code::InvalidURI);
            assert_eq!(refused, raw != "a/..%25", "{raw}");
        }
    }

    #[test]
    fn the_longest_domain_that_fits_is_taken_in_whatever_order_they_are_written() {
        let mut domains = ["s3.localhost".to_owned(), "localhost".to_owned()];
        for _ in 0..2 {
            assert_eq!(virtual_bucket("b.s3.localhost", &domains), Some("b"));
            assert_eq!(virtual_bucket("b.c.localhost", &domains), Some("b.c"));
            assert_eq!(virtual_bucket("s3.localhost", &domains), None);
            domains.reverse();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn a_key_survives_encoding(text in "[^\u{0}\r\n\u{18}-\u{1b}./\\\\%]{1,60}") {
            let raw = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let parsed = ObjectKey::parse(&raw).unwrap();
            prop_assert_eq!(parsed.as_str(), &text);
            prop_assert_eq!(ObjectKey::from_decoded(text).unwrap(), parsed.into_owned());
        }

        #[test]
        fn an_accepted_key_has_no_dot_segment(raw in "(\\.|/|%2e|%2F|%25|2e|2f|5c|%5c|\\\\|a|%){1,12}") {
            if let Ok(parsed) = ObjectKey::parse(&raw) {
                let again = String::from_utf8_lossy(&decode_leniently(parsed.as_str())).into_owned();
                for reading in [parsed.as_str(), &again] {
                    prop_assert!(!reading.split(['/', '\\']).any(|segment| segment == "." || segment == ".."));
                }
            }
        }

        #[test]
        fn no_target_panics(target in any::<Vec<u8>>(), host in any::<String>()) {
            let domains = ["s3.localhost".to_owned()];
            if let Ok(uri) = Uri::try_from(target) {
                for host in [host.as_str(), "127.0.0.1:9000", "photos.s3.localhost"] {
                    if let Ok(Address { raw_key: Some(raw), .. }) = Address::parse(&uri, host, &domains) {
                        let _ = ObjectKey::parse(raw);
                    }
                }
            }
        }

        #[test]
        fn no_key_panics(raw in any::<String>()) {
            let _ = ObjectKey::parse(&raw);
        }
    }
}
