//! AWS Signature Version 4 for S3: signing for COS, and checking what a client signed.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, Mac};
use http::HeaderMap;
use memchr::memchr2;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::mac::{derived, mac_of};
use super::{Signable, compare_encoded};
use crate::encoding::hex::push_hex;
use crate::encoding::percent::{push_encoded, push_encoded_path};
use crate::encoding::split::split;
use crate::s3::headers::must_be_signed;
use crate::secret::Secret;

pub use super::sigv4_claim::SigV4Claim;
pub(super) use super::sigv4_claim::credential_parts;

/// The only algorithm that is spoken.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The payload of a body that the signature does not cover.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// The header that carries the payload's hash or mode.
pub(crate) const CONTENT_SHA256: &str = "x-amz-content-sha256";
const TERMINATOR: &str = "aws4_request";
/// A whole canonical request with a session token is about this long: one allocation holds it.
const CANONICAL_CAPACITY: usize = 2048;

/// `20260115/ap-guangzhou/s3/aws4_request`: what a signing key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialScope<'a> {
    /// `YYYYMMDD`, UTC.
    pub date: &'a str,
    /// The region.
    pub region: &'a str,
    /// The service; `s3` everywhere here.
    pub service: &'a str,
}

impl<'a> CredentialScope<'a> {
    /// Reads the four parts, of which the last must be `aws4_request`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = split(text, b'/');
        let (date, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        (parts.next()? == TERMINATOR && parts.next().is_none()).then_some(Self {
            date,
            region,
            service,
        })
    }

    fn push_to(&self, out: &mut String) {
        push_all(
            out,
            &[
                self.date,
                "/",
                self.region,
                "/",
                self.service,
                "/",
                TERMINATOR,
            ],
        );
    }
}

impl fmt::Display for CredentialScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{TERMINATOR}",
            self.date, self.region, self.service
        )
    }
}

/// The key of one secret, day, region and service, kept as an HMAC that is already keyed. Wiped on drop.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Four HMACs: do it once a day, not once a request.
    pub fn derive(secret: &Secret, date: &str, region: &str, service: &str) -> Self {
        let start = Zeroizing::new(format!("AWS4{}", secret.expose()));
        Self(derived(&start, &[date, region, service, TERMINATOR]))
    }

    /// The MAC of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        mac_of(&self.0, message)
    }

    /// Whether `signature` is the MAC of `message`, in constant time.
    pub fn verify(&self, message: &[u8], signature: &[u8; 32]) -> bool {
        self.0
            .clone()
            .chain_update(message)
            .verify_slice(signature)
            .is_ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[signing key]")
    }
}

/// The headers that a signature covers: sorted by name, and several values of one name in their order.
#[derive(Clone, Debug)]
pub struct SignedHeaders<'a>(Vec<(&'a str, &'a str)>);

impl<'a> SignedHeaders<'a> {
    /// Those of `headers` whose names (lower case) `is_signed` chooses. A value that is not UTF-8 counts as
    /// empty: no such header goes to COS.
    pub fn of(headers: &'a HeaderMap, is_signed: impl Fn(&str) -> bool) -> Self {
        let mut chosen = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            if is_signed(name.as_str()) {
                let value = std::str::from_utf8(value.as_bytes());
                chosen.push((name.as_str(), value.unwrap_or_default()));
            }
        }
        Self::sorted(chosen)
    }

    /// Those with these names and values, in the order of the request.
    pub(super) fn sorted(mut chosen: Vec<(&'a str, &'a str)>) -> Self {
        chosen.sort_by_key(|(name, _)| *name); // stable: the values of a name stay in order
        Self(chosen)
    }

    /// The names, each once.
    pub fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        let names = self.0.iter().map(|(name, _)| *name).enumerate();
        names.filter_map(|(index, name)| (!self.is_repeated(index, name)).then_some(name))
    }

    /// Whether the header before the one at `index` has the same `name`.
    fn is_repeated(&self, index: usize, name: &str) -> bool {
        let before = index.checked_sub(1).and_then(|index| self.0.get(index));
        before.is_some_and(|(before, _)| *before == name)
    }

    /// Appends a line for each name.
    fn push_lines(&self, out: &mut String) {
        for (index, (name, value)) in self.0.iter().enumerate() {
            if self.is_repeated(index, name) {
                out.push(',');
            } else {
                if index > 0 {
                    out.push('\n');
                }
                push_all(out, &[*name, ":"]);
            }
            push_value(out, value);
        }
        if !self.0.is_empty() {
            out.push('\n');
        }
    }

    /// Appends the names with `;` between.
    fn push_names(&self, out: &mut String) {
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                out.push(';');
            }
            out.push_str(name);
        }
    }
}

/// The canonical request over the headers `signed`. `payload` is the body's hash or mode.
pub fn canonical_request(
    request: &Signable<'_>,
    signed: &SignedHeaders<'_>,
    payload: &str,
) -> String {
    let mut out = String::with_capacity(CANONICAL_CAPACITY);
    out.push_str(request.method);
    out.push('\n');
    push_encoded_path(&mut out, request.path);
    out.push('\n');
    push_query(&mut out, request.query);
    out.push('\n');
    signed.push_lines(&mut out);
    out.push('\n');
    signed.push_names(&mut out);
    out.push('\n');
    out.push_str(payload);
    out
}

/// The string to sign. `amz_date` is `20260115T123045Z`.
pub fn string_to_sign(
    amz_date: &str,
    scope: &CredentialScope<'_>,
    canonical_request: &str,
) -> String {
    let mut out = String::with_capacity(192);
    push_all(&mut out, &[ALGORITHM, "\n", amz_date, "\n"]);
    scope.push_to(&mut out);
    out.push('\n');
    push_hex(&mut out, &Sha256::digest(canonical_request));
    out
}

/// What signs a request of our own: a key that belongs to `scope`, at a time.
#[derive(Clone, Copy, Debug)]
pub struct SigV4Signer<'a> {
    /// The access key id.
    pub access_key: &'a str,
    /// The key of `scope`.
    pub key: &'a SigningKey,
    /// What the key is good for.
    pub scope: &'a CredentialScope<'a>,
    /// The `x-amz-date` header.
    pub amz_date: &'a str,
}

impl SigV4Signer<'_> {
    /// The `Authorization` value for a request of our own to COS.
    ///
    /// Signs `host`, `content-md5`, `content-type` and every `x-amz-*` header that the request has: all
    /// that means something to COS.
    pub fn authorization(&self, request: &Signable<'_>, payload: &str) -> String {
        let signed = SignedHeaders::of(request.headers, is_signed_for_cos);
        let signature = self.sign(request, &signed, payload);
        authorization_value(self.access_key, self.scope, &signed, &signature)
    }

    /// The query of a presigned URL, encoded: `request`'s own parameters (a token among them, if there is
    /// one) and the signature's. Signs the same headers; the URL lives `expires` seconds.
    pub fn presigned_query(&self, request: &Signable<'_>, expires: u32) -> String {
        let signed = SignedHeaders::of(request.headers, is_signed_for_cos);
        let mut signed_names = String::new();
        signed.push_names(&mut signed_names);
        let mut pairs = request.query.to_vec();
        for (name, value) in [
            ("X-Amz-Algorithm", ALGORITHM.to_owned()),
            (
                "X-Amz-Credential",
                format!("{}/{}", self.access_key, self.scope),
            ),
            ("X-Amz-Date", self.amz_date.to_owned()),
            ("X-Amz-Expires", expires.to_string()),
            ("X-Amz-SignedHeaders", signed_names),
        ] {
            pairs.push((Cow::Borrowed(name), Cow::Owned(value)));
        }
        let request = Signable {
            query: &pairs,
            ..*request
        };
        let signature = self.sign(&request, &signed, UNSIGNED_PAYLOAD);
        let mut out = String::with_capacity(CANONICAL_CAPACITY);
        push_query(&mut out, &pairs);
        out.push_str("&X-Amz-Signature=");
        push_hex(&mut out, &signature);
        out
    }

    fn sign(&self, request: &Signable<'_>, signed: &SignedHeaders<'_>, payload: &str) -> [u8; 32] {
        let canonical = canonical_request(request, signed, payload);
        let to_sign = string_to_sign(self.amz_date, self.scope, &canonical);
        self.key.sign(to_sign.as_bytes())
    }
}

/// The `Authorization` value that says `signature` covers the headers `signed`.
pub fn authorization_value(
    access_key: &str,
    scope: &CredentialScope<'_>,
    signed: &SignedHeaders<'_>,
    signature: &[u8; 32],
) -> String {
    let mut out = String::with_capacity(384);
    push_all(&mut out, &[ALGORITHM, " Credential=", access_key, "/"]);
    scope.push_to(&mut out);
    out.push_str(", SignedHeaders=");
    signed.push_names(&mut out);
    out.push_str(", Signature=");
    push_hex(&mut out, signature);
    out
}

/// Whether our own requests' signatures cover the header `name`.
fn is_signed_for_cos(name: &str) -> bool {
    matches!(name, "content-md5" | "content-type" | "host") || must_be_signed(name)
}

/// The pairs, encoded and in the order of their encoded names, then values.
fn push_query(out: &mut String, query: &[(Cow<'_, str>, Cow<'_, str>)]) {
    let mut pairs: Vec<_> = query.iter().collect();
    pairs.sort_by(|a, b| compare_encoded(&a.0, &b.0).then_with(|| compare_encoded(&a.1, &b.1)));
    for (index, (name, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        push_encoded(out, name.as_bytes());
        out.push('=');
        push_encoded(out, value.as_bytes());
    }
}

/// A value: outer spaces go and inner runs become one space.
fn push_value(out: &mut String, value: &str) {
    if memchr2(b' ', b'\t', value.as_bytes()).is_none() {
        return out.push_str(value);
    }
    let value = value.trim_matches([' ', '\t']);
    for (index, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
}

fn push_all(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_scope_has_four_parts_and_its_terminator() {
        let scope = CredentialScope::parse("20260115/ap-guangzhou/s3/aws4_request").unwrap();
        assert_eq!(
            (scope.date, scope.region, scope.service),
            ("20260115", "ap-guangzhou", "s3")
        );
        assert_eq!(scope.to_string(), "20260115/ap-guangzhou/s3/aws4_request");
        for text in [
            "",
            "20260115/r/s3",
            "20260115/r/s3/aws3_request",
            "20260115/r/s3/aws4_request/x",
        ] {
            assert_eq!(CredentialScope::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_signing_key_does_not_print() {
        let key = SigningKey::derive(&Secret::new("canary"), "20260115", "r", "s3");
        assert_eq!(format!("{key:?}"), "[signing key]");
    }

    #[test]
    fn two_values_of_one_header_are_joined_and_folded() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-meta-a", HeaderValue::from_static("one   two "));
        headers.append("x-amz-meta-a", HeaderValue::from_static("\tthree"));
        headers.append("host", HeaderValue::from_static("b"));
        let signed = SignedHeaders::of(&headers, |_| true);
        let mut out = String::new();
        signed.push_lines(&mut out);
        signed.push_names(&mut out);
        assert_eq!(out, "host:b\nx-amz-meta-a:one two,three\nhost;x-amz-meta-a");
    }

    #[test]
    fn our_signature_covers_what_means_something_to_cos() {
        let names = [
            "x-amz-date",
            "user-agent",
            "host",
            "range",
            "content-type",
            "content-md5",
            "pic-operations",
            "x-amz-acl",
        ];
        let headers: HeaderMap = names
            .iter()
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v")))
            .collect();
        let expected = [
            "content-md5",
            "content-type",
            "host",
            "pic-operations",
            "x-amz-acl",
            "x-amz-date",
        ];
        let signed = SignedHeaders::of(&headers, is_signed_for_cos);
        assert!(signed.names().eq(expected));
    }
}
