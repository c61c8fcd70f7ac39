//! The native signature of COS (`q-sign-algorithm=sha1`), made and checked.
//!
//! <https://www.tencentcloud.com/document/product/436/7778>

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use hmac::{Hmac, Mac};
use http::HeaderMap;
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::mac::hmac_sha1;
use super::{Signable, compare_encoded};
use crate::encoding::hex::{hex, parse_hex, push_hex};
use crate::encoding::percent::{percent_decode, push_encoded};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

const ALGORITHM: &str = "sha1";
/// The most headers, and the most parameters, that a signature may name.
const MAX_NAMES: usize = 100;
/// The headers that every official SDK signs, besides `x-cos-*` and `x-ci-*`. Buckets in strict mode
/// refuse a request that has one of them unsigned.
const SIGNED_BY_EVERY_SDK: [&str; 17] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-md5",
    "content-type",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "origin",
    "pic-operations",
    "range",
    "transfer-encoding",
];

/// `start;end` in Unix seconds: the life of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTime {
    /// The first second.
    pub start: Timestamp,
    /// The last second.
    pub end: Timestamp,
}

impl KeyTime {
    /// Reads `start;end`.
    pub fn parse(text: &str) -> Option<Self> {
        let (start, end) = text.split_once(';')?;
        Some(Self {
            start: unix(start)?,
            end: unix(end)?,
        })
    }

    fn contains(self, now: Timestamp) -> bool {
        self.start <= now && now <= self.end
    }
}

impl fmt::Display for KeyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{}", self.start.unix(), self.end.unix())
    }
}

/// The key of one secret and one [`KeyTime`], kept as an HMAC that is already keyed. Wiped on drop.
#[derive(Clone)]
pub struct SignKey(Hmac<Sha1>);

impl SignKey {
    /// Keep what this gives for as long as `key_time` is signed with.
    pub fn derive(secret: &Secret, key_time: &KeyTime) -> Self {
        Self(hmac_sha1(sign_key_text(secret, key_time).as_bytes()))
    }

    /// The MAC of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 20] {
        self.0
            .clone()
            .chain_update(message)
            .finalize()
            .into_bytes()
            .into()
    }

    /// Whether `signature` is the MAC of `message`, in constant time.
    pub fn verify(&self, message: &[u8], signature: &[u8; 20]) -> bool {
        self.0
            .clone()
            .chain_update(message)
            .verify_slice(signature)
            .is_ok()
    }
}

impl fmt::Debug for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sign key]")
    }
}

/// The documentation's `SignKey`: 40 hex digits, whose text is the HMAC key.
pub fn sign_key_text(secret: &Secret, key_time: &KeyTime) -> Zeroizing<String> {
    let mac = hmac_sha1(secret.expose().as_bytes()).chain_update(key_time.to_string());
    Zeroizing::new(hex(&mac.finalize().into_bytes()))
}

/// The names that a signature covers, decoded, in the order of their encoded lower-case forms.
#[derive(Clone, Debug)]
pub struct SignedNames<'a> {
    headers: Vec<Cow<'a, str>>,
    parameters: Vec<Cow<'a, str>>,
}

impl<'a> SignedNames<'a> {
    /// What every official SDK signs of `request`: the common headers, `x-cos-*`, `x-ci-*`, and all
    /// of the query. Empty headers are left out, because SDKs and server differ on them.
    pub fn of(request: &Signable<'a>) -> Self {
        let mut headers: Vec<_> = request
            .headers
            .iter()
            .filter(|(name, value)| is_signed_header(name.as_str()) && !value.is_empty())
            .map(|(name, _)| Cow::Borrowed(name.as_str()))
            .collect();
        headers.sort_unstable_by(|a, b| compare_encoded(a, b));
        headers.dedup();
        let mut parameters: Vec<_> = request.query.iter().map(|(name, _)| lower(name)).collect();
        parameters.sort_unstable_by(|a, b| compare_encoded(a, b));
        Self {
            headers,
            parameters,
        }
    }

    /// Whether the header `name` is covered.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        has(&self.headers, name)
    }

    /// Whether the parameter `name` is covered, in whatever letter case it is written.
    pub(crate) fn has_parameter(&self, name: &str) -> bool {
        has(&self.parameters, name)
    }

    /// `q-header-list`
    pub fn header_list(&self) -> String {
        list(&self.headers)
    }

    /// `q-url-param-list`
    pub fn parameter_list(&self) -> String {
        list(&self.parameters)
    }
}

/// The documentation's `HttpString`.
pub fn http_string(request: &Signable<'_>, names: &SignedNames<'_>) -> String {
    let mut out = String::with_capacity(2048);
    out.extend(request.method.chars().map(|c| c.to_ascii_lowercase()));
    out.push('\n');
    out.push_str(&String::from_utf8_lossy(request.path)); // COS keys are UTF-8
    out.push('\n');
    for (index, name) in names.parameters.iter().enumerate() {
        let value = request
            .query
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        push_pair(
            &mut out,
            index,
            name,
            value.map_or(b"", |(_, value)| value.as_bytes()),
        );
    }
    out.push('\n');
    for (index, name) in names.headers.iter().enumerate() {
        push_pair(&mut out, index, name, &header_value(request.headers, name));
    }
    out.push('\n');
    out
}

/// The documentation's `StringToSign`.
pub fn string_to_sign(key_time: &KeyTime, http_string: &str) -> String {
    let mut out = String::with_capacity(80);
    let _ = write!(out, "{ALGORITHM}\n{key_time}\n"); // a String takes every write
    push_hex(&mut out, &Sha1::digest(http_string));
    out.push('\n');
    out
}

/// The `Authorization` value for a request of our own. `key` must be that of `key_time`.
pub fn authorization(
    request: &Signable<'_>,
    secret_id: &str,
    key: &SignKey,
    key_time: &KeyTime,
) -> String {
    let names = SignedNames::of(request);
    authorization_over(request, &names, secret_id, key, key_time)
}

/// As [`authorization`], covering exactly `names`.
pub fn authorization_over(
    request: &Signable<'_>,
    names: &SignedNames<'_>,
    secret_id: &str,
    key: &SignKey,
    key_time: &KeyTime,
) -> String {
    let signature = key.sign(string_to_sign(key_time, &http_string(request, names)).as_bytes());
    let mut out = String::with_capacity(384);
    let _ = write!(
        out,
        "q-sign-algorithm={ALGORITHM}&q-ak={secret_id}&q-sign-time={key_time}&q-key-time={key_time}\
         &q-header-list={}&q-url-param-list={}&q-signature=",
        names.header_list(),
        names.parameter_list(),
    ); // a String takes every write
    push_hex(&mut out, &signature);
    out
}

/// What the signer of a request says of its signature, read but not yet believed.
#[derive(Clone, Debug)]
pub struct CosClaim<'a> {
    /// `q-ak`: whose secret to verify with.
    pub secret_id: &'a str,
    /// The names that are covered; all others are not verified.
    pub names: SignedNames<'a>,
    key_time: KeyTime,
    sign_time: KeyTime,
    signature: [u8; 20],
}

/// Why a native signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CosClaimError {
    /// `now` is outside `q-sign-time` or `q-key-time`.
    Expired,
    /// A field is missing, doubled or not of its form.
    Malformed,
    /// The signature is not that of the request.
    WrongSignature,
}

impl<'a> CosClaim<'a> {
    /// Reads the value of an `Authorization` header.
    pub fn from_authorization(text: &'a str) -> Result<Self, CosClaimError> {
        Self::from_fields(|| text.split('&').filter_map(|field| field.split_once('=')))
    }

    /// Reads the seven parameters of a presigned URL; `None` when there is no `q-signature`.
    pub fn from_query(
        query: &'a [(Cow<'_, str>, Cow<'_, str>)],
    ) -> Result<Option<Self>, CosClaimError> {
        if !query.iter().any(|(name, _)| name == "q-signature") {
            return Ok(None);
        }
        Self::from_fields(|| query.iter().map(|(name, value)| (&**name, &**value))).map(Some)
    }

    fn from_fields<I>(fields: impl Fn() -> I) -> Result<Self, CosClaimError>
    where
        I: Iterator<Item = (&'a str, &'a str)>,
    {
        let once = |name: &str| {
            let mut values = fields()
                .filter(|(known, _)| *known == name)
                .map(|(_, value)| value);
            let value = values.next()?;
            values.next().is_none().then_some(value)
        };
        let read = || {
            (once("q-sign-algorithm")? == ALGORITHM).then_some(())?;
            Some(Self {
                secret_id: once("q-ak")?,
                sign_time: KeyTime::parse(once("q-sign-time")?)?,
                key_time: KeyTime::parse(once("q-key-time")?)?,
                names: SignedNames {
                    headers: decoded_list(once("q-header-list")?)?,
                    parameters: decoded_list(once("q-url-param-list")?)?,
                },
                signature: parse_hex(once("q-signature")?)?,
            })
        };
        read().ok_or(CosClaimError::Malformed)
    }

    /// Checks the signature of `request`, in constant time, and that `now` is within its life.
    pub fn verify(
        &self,
        request: &Signable<'_>,
        secret: &Secret,
        now: Timestamp,
    ) -> Result<(), CosClaimError> {
        if !self.life().contains(now) {
            return Err(CosClaimError::Expired);
        }
        if self.is_signature_of(request, secret) {
            Ok(())
        } else {
            Err(CosClaimError::WrongSignature)
        }
    }

    /// Whether the signature is that of `request`, in constant time and whatever the time is.
    pub(crate) fn is_signature_of(&self, request: &Signable<'_>, secret: &Secret) -> bool {
        let key = SignKey::derive(secret, &self.key_time);
        let message = string_to_sign(&self.sign_time, &http_string(request, &self.names));
        key.verify(message.as_bytes(), &self.signature)
    }

    /// When the signature is good: what `q-sign-time` and `q-key-time` have in common.
    pub fn life(&self) -> KeyTime {
        KeyTime {
            start: self.key_time.start.max(self.sign_time.start),
            end: self.key_time.end.min(self.sign_time.end),
        }
    }
}

fn is_signed_header(name: &str) -> bool {
    name.starts_with("x-cos-")
        || name.starts_with("x-ci-")
        || SIGNED_BY_EVERY_SDK.binary_search(&name).is_ok()
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// All values of a header, trimmed, joined with commas.
fn header_value<'h>(headers: &'h HeaderMap, name: &str) -> Cow<'h, [u8]> {
    let mut values = headers
        .get_all(name)
        .iter()
        .map(|value| value.as_bytes().trim_ascii());
    let first = values.next().unwrap_or_default();
    values.fold(Cow::Borrowed(first), |joined, value| {
        Cow::Owned([&joined, b",".as_slice(), value].concat())
    })
}

fn push_pair(out: &mut String, index: usize, name: &str, value: &[u8]) {
    if index > 0 {
        out.push('&');
    }
    push_name(out, name);
    out.push('=');
    push_encoded(out, value);
}

/// A name is encoded first and lower-cased after, hex digits included.
fn push_name(out: &mut String, name: &str) {
    let start = out.len();
    push_encoded(out, name.as_bytes());
    if let Some(encoded) = out.get_mut(start..) {
        encoded.make_ascii_lowercase();
    }
}

fn list(names: &[Cow<'_, str>]) -> String {
    let mut out = String::with_capacity(128);
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(';');
        }
        push_name(&mut out, name);
    }
    out
}

fn has(names: &[Cow<'_, str>], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn decoded_list(text: &str) -> Option<Vec<Cow<'_, str>>> {
    let names = text.split(';').filter(|name| !name.is_empty());
    let names: Vec<_> = names
        .take(MAX_NAMES + 1)
        .map(decoded_name)
        .collect::<Option<_>>()?;
    (names.len() <= MAX_NAMES).then_some(names)
}

fn decoded_name(name: &str) -> Option<Cow<'_, str>> {
    match percent_decode(name)? {
        Cow::Borrowed(_) => Some(Cow::Borrowed(name)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

fn unix(text: &str) -> Option<Timestamp> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(Timestamp::from_unix))?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const AUTHORIZATION: &str = "q-sign-algorithm=sha1&q-ak=AKID&q-sign-time=1;2&q-key-time=1;2\
                                 &q-header-list=host&q-url-param-list=&q-signature=452204a5cc0e26d593cedbd5cdf3649f7a854a02";

    #[test]
    fn the_common_list_is_sorted_for_its_search() {
        assert!(SIGNED_BY_EVERY_SDK.is_sorted());
    }

    #[test]
    fn the_fields_come_in_any_order_and_once_each() {
        assert!(CosClaim::from_authorization(AUTHORIZATION).is_ok());
        let mut fields: Vec<_> = AUTHORIZATION.split('&').collect();
        fields.reverse();
        assert!(CosClaim::from_authorization(&fields.join("&")).is_ok());
        for (at, field) in fields.iter().enumerate() {
            let mut less = fields.clone();
            less.remove(at);
            let refused = CosClaim::from_authorization(&less.join("&")).unwrap_err();
            assert_eq!(refused, CosClaimError::Malformed, "without {field}");
            let twice = format!("{AUTHORIZATION}&{field}");
            assert_eq!(
                CosClaim::from_authorization(&twice).unwrap_err(),
                CosClaimError::Malformed,
                "twice {field}"
            );
        }
    }

    #[test]
    fn odd_fields_are_malformed() {
        for (from, to) in [
            ("sha1", "sha256"),
            ("q-sign-time=1;2", "q-sign-time=1"),
            ("q-key-time=1;2", "q-key-time=-1;2"),
            ("q-key-time=1;2", "q-key-time=1;99999999999999999999"),
            ("q-header-list=host", "q-header-list=%zz"),
            ("452204", "45220"),
            ("452204", "XX2204"),
        ] {
            let text = AUTHORIZATION.replace(from, to);
            assert_eq!(
                CosClaim::from_authorization(&text).unwrap_err(),
                CosClaimError::Malformed,
                "{text}"
            );
        }
    }

    #[test]
    fn an_empty_header_is_left_unsigned_and_two_values_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append("host", HeaderValue::from_static("h"));
        headers.append("cache-control", HeaderValue::from_static(""));
        headers.append("x-cos-meta-a", HeaderValue::from_static("1 "));
        headers.append("x-cos-meta-a", HeaderValue::from_static("2"));
        let request = Signable {
            method: "GET",
            path: b"/k",
            query: &[],
            headers: &headers,
        };
        let names = SignedNames::of(&request);
        assert_eq!(names.header_list(), "host;x-cos-meta-a");
        assert_eq!(
            http_string(&request, &names),
            "get\n/k\n\nhost=h&x-cos-meta-a=1%2C2\n"
        );
    }

    #[test]
    fn a_header_added_later_is_not_verified_but_a_changed_one_is() {
        let key_time = KeyTime::parse("100;200").unwrap();
        let (secret, now) = (Secret::new("s"), Timestamp::from_unix(150));
        let mut headers = HeaderMap::new();
        headers.append("host", HeaderValue::from_static("h"));
        let request = Signable {
            method: "GET",
            path: b"/k",
            query: &[],
            headers: &headers,
        };
        let key = SignKey::derive(&secret, &key_time);
        let text = authorization(&request, "AKID", &key, &key_time);
        let claim = CosClaim::from_authorization(&text).unwrap();
        let mut changed = headers.clone();
        changed.append("x-cos-acl", HeaderValue::from_static("private"));
        assert_eq!(
            claim.verify(
                &Signable {
                    headers: &changed,
                    ..request
                },
                &secret,
                now
            ),
            Ok(())
        );
        changed.insert("host", HeaderValue::from_static("other"));
        let refused = claim.verify(
            &Signable {
                headers: &changed,
                ..request
            },
            &secret,
            now,
        );
        assert_eq!(refused, Err(CosClaimError::WrongSignature));
        assert_eq!(format!("{key:?}"), "[sign key]");
    }
}
