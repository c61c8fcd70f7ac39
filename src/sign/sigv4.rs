//! AWS Signature Version 4 for S3: signing for COS, and checking what a client signed.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use hmac::{Hmac, Mac};
use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE, HOST};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::encoding::{hmac_sha256, parse_hex32, push_encoded, push_encoded_path, push_hex};
use super::{Signable, compare_encoded};
use crate::s3::{Code, S3Error};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// The only algorithm that is spoken.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The payload of a body that the signature does not cover.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// The header that carries the payload's hash or mode.
pub const CONTENT_SHA256: &str = "x-amz-content-sha256";
const TERMINATOR: &str = "aws4_request";
const AMZ_DATE: &str = "x-amz-date";
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
        let mut parts = text.split('/');
        let (date, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        (parts.next()? == TERMINATOR && parts.next().is_none()).then_some(Self {
            date,
            region,
            service,
        })
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
        let mut mac = hmac_sha256(start.as_bytes());
        for part in [date, region, service, TERMINATOR] {
            let key = Zeroizing::new(<[u8; 32]>::from(
                mac.chain_update(part).finalize().into_bytes(),
            ));
            mac = hmac_sha256(&*key);
        }
        Self(mac)
    }

    /// The MAC of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0
            .clone()
            .chain_update(message)
            .finalize()
            .into_bytes()
            .into()
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

/// The canonical request. `signed` are lower-case names, sorted; `payload` is the body's hash or mode.
pub fn canonical_request(request: &Signable<'_>, signed: &[&str], payload: &str) -> String {
    let mut out = String::with_capacity(CANONICAL_CAPACITY);
    out.push_str(request.method);
    out.push('\n');
    push_encoded_path(&mut out, request.path);
    out.push('\n');
    push_query(&mut out, request.query);
    out.push('\n');
    for name in signed {
        out.push_str(name);
        out.push(':');
        push_values(&mut out, request.headers, name);
        out.push('\n');
    }
    out.push('\n');
    push_joined(&mut out, signed);
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
    let _ = write!(out, "{ALGORITHM}\n{amz_date}\n{scope}\n"); // a String takes every write
    push_hex(&mut out, &Sha256::digest(canonical_request));
    out
}

/// The `Authorization` value for a request of our own to COS.
///
/// Signs `host`, `content-md5`, `content-type` and every `x-amz-*` header that the request has: all
/// that means something to COS. `key` belongs to `scope`, and `amz_date` is the `x-amz-date` header.
pub fn authorization(
    request: &Signable<'_>,
    key: &SigningKey,
    access_key: &str,
    scope: &CredentialScope<'_>,
    amz_date: &str,
    payload: &str,
) -> String {
    let signed = names_to_sign(request.headers);
    let canonical = canonical_request(request, &signed, payload);
    let signature = key.sign(string_to_sign(amz_date, scope, &canonical).as_bytes());
    authorization_value(access_key, scope, &signed, &signature)
}

/// The `Authorization` value that says `signature` covers the headers `signed`.
pub fn authorization_value(
    access_key: &str,
    scope: &CredentialScope<'_>,
    signed: &[&str],
    signature: &[u8; 32],
) -> String {
    let mut out = String::with_capacity(384);
    let _ = write!(
        out,
        "{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders="
    ); // as above
    push_joined(&mut out, signed);
    out.push_str(", Signature=");
    push_hex(&mut out, signature);
    out
}

/// The query of a presigned URL, encoded: `request`'s own parameters (a token among them, if there is
/// one) and the signature's. Signs the headers [`authorization`] would; the URL lives `expires` seconds.
pub fn presigned_query(
    request: &Signable<'_>,
    key: &SigningKey,
    access_key: &str,
    scope: &CredentialScope<'_>,
    amz_date: &str,
    expires: u32,
) -> String {
    let signed = names_to_sign(request.headers);
    let mut pairs = request.query.to_vec();
    for (name, value) in [
        ("X-Amz-Algorithm", ALGORITHM.to_owned()),
        ("X-Amz-Credential", format!("{access_key}/{scope}")),
        ("X-Amz-Date", amz_date.to_owned()),
        ("X-Amz-Expires", expires.to_string()),
        ("X-Amz-SignedHeaders", signed.join(";")),
    ] {
        pairs.push((Cow::Borrowed(name), Cow::Owned(value)));
    }
    let request = Signable {
        query: &pairs,
        ..*request
    };
    let canonical = canonical_request(&request, &signed, UNSIGNED_PAYLOAD);
    let signature = key.sign(string_to_sign(amz_date, scope, &canonical).as_bytes());
    let mut out = String::with_capacity(CANONICAL_CAPACITY);
    push_query(&mut out, &pairs);
    out.push_str("&X-Amz-Signature=");
    push_hex(&mut out, &signature);
    out
}

/// What a client says of its signature, read strictly but not yet believed.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The access key id.
    pub access_key: &'a str,
    /// The credential scope; its day is that of `time`.
    pub scope: CredentialScope<'a>,
    /// When it was signed.
    pub time: Timestamp,
    /// How many seconds a presigned URL lives; `None` for an `Authorization` header.
    pub expires: Option<u32>,
    signed: Vec<&'a str>,
    signature: [u8; 32],
}

impl<'a> Claim<'a> {
    /// Reads the `Authorization` header; `None` when there is none.
    pub fn from_headers(headers: &'a HeaderMap) -> Result<Option<Self>, S3Error> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "Only one Authorization header is allowed",
            ));
        }
        let value = value
            .to_str()
            .map_err(|_| malformed("it has bytes that are not visible ASCII"))?;
        let fields = after_algorithm(value)?;
        let [credential, signed, signature] = header_fields(fields)?;
        let (access_key, scope) = credential_parts(credential).ok_or_else(|| {
            malformed("Credential must be ACCESS-KEY/YYYYMMDD/REGION/s3/aws4_request")
        })?;
        let signed = signed_names(signed).ok_or_else(|| malformed(SIGNED_HEADERS_RULE))?;
        let time = signing_time(headers, &signed)?;
        if time.date() != scope.date {
            return Err(malformed(
                "the day in Credential is not the day of x-amz-date",
            ));
        }
        let signature = parse_hex32(signature).ok_or_else(|| malformed(SIGNATURE_RULE))?;
        covers_headers(&signed, headers, malformed)?;
        Ok(Some(Self {
            access_key,
            scope,
            time,
            expires: None,
            signed,
            signature,
        }))
    }

    /// Reads a presigned URL's parameters; `None` when there is none of them.
    pub fn from_query(
        query: &'a [(Cow<'_, str>, Cow<'_, str>)],
        headers: &HeaderMap,
    ) -> Result<Option<Self>, S3Error> {
        if query.iter().any(|(name, _)| name == "AWSAccessKeyId") {
            return Err(unsupported_mechanism());
        }
        if !query.iter().any(|(name, _)| is_presign_parameter(name)) {
            return Ok(None);
        }
        if once(query, "X-Amz-Algorithm")? != ALGORITHM {
            return Err(malformed_query(
                "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"",
            ));
        }
        let credential = once(query, "X-Amz-Credential")?;
        let (access_key, scope) = credential_parts(credential).ok_or_else(|| {
            malformed_query("X-Amz-Credential must be ACCESS-KEY/YYYYMMDD/REGION/s3/aws4_request")
        })?;
        let time = Timestamp::parse_amz(once(query, "X-Amz-Date")?).ok_or_else(|| {
            malformed_query(
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"",
            )
        })?;
        if time.date() != scope.date {
            return Err(malformed_query(
                "the day in X-Amz-Credential is not the day of X-Amz-Date",
            ));
        }
        let expires = expiry(once(query, "X-Amz-Expires")?)?;
        let signed = signed_names(once(query, "X-Amz-SignedHeaders")?)
            .ok_or_else(|| malformed_query(SIGNED_HEADERS_RULE))?;
        let signature = parse_hex32(once(query, "X-Amz-Signature")?)
            .ok_or_else(|| malformed_query(SIGNATURE_RULE))?;
        covers_headers(&signed, headers, malformed_query)?;
        Ok(Some(Self {
            access_key,
            scope,
            time,
            expires: Some(expires),
            signed,
            signature,
        }))
    }

    /// Whether the client signed the header `name` (lower case).
    pub fn signs(&self, name: &str) -> bool {
        self.signed.contains(&name)
    }

    /// The canonical request that the client must have signed.
    pub fn canonical_request(&self, request: &Signable<'_>, payload: &str) -> String {
        if self.expires.is_none() {
            return canonical_request(request, &self.signed, payload);
        }
        let query: Vec<_> = request
            .query
            .iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .cloned()
            .collect();
        canonical_request(
            &Signable {
                query: &query,
                ..*request
            },
            &self.signed,
            payload,
        )
    }

    /// The string to sign over `canonical_request`.
    pub fn string_to_sign(&self, canonical_request: &str) -> String {
        string_to_sign(&self.time.amz(), &self.scope, canonical_request)
    }

    /// Whether the signature is that of `request` under `key`, in constant time. `key` must be that
    /// of this claim's scope.
    pub fn verify(&self, request: &Signable<'_>, key: &SigningKey, payload: &str) -> bool {
        let canonical = self.canonical_request(request, payload);
        key.verify(self.string_to_sign(&canonical).as_bytes(), &self.signature)
    }
}

/// What a presigned URL must have, and so what makes a request a presigned one.
const PRESIGN_PARAMETERS: [&str; 6] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];
/// AWS's longest life of a presigned URL: seven days, in seconds.
const MAX_EXPIRES: u32 = 604_800;
const SIGNED_HEADERS_RULE: &str =
    "SignedHeaders must be lower-case names, sorted, each once, with ; between";
const SIGNATURE_RULE: &str = "Signature must be 64 lower-case hex digits";

/// The names that [`authorization`] signs, sorted. `HeaderName`s are lower case already.
fn names_to_sign(headers: &HeaderMap) -> Vec<&str> {
    let mut names = Vec::with_capacity(headers.keys_len());
    names.extend(headers.keys().map(http::HeaderName::as_str).filter(|name| {
        matches!(*name, "content-md5" | "content-type" | "host") || name.starts_with("x-amz-")
    }));
    names.sort_unstable();
    names
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

/// All values of `name`, joined with commas; outer spaces go and inner runs become one space.
fn push_values(out: &mut String, headers: &HeaderMap, name: &str) {
    for (index, value) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        // A value that is not UTF-8 is refused in `covers_headers`, so nothing is lost here.
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = value.trim_matches([' ', '\t']);
        if !value.contains("  ") {
            out.push_str(value);
            continue;
        }
        for (index, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
            if index > 0 {
                out.push(' ');
            }
            out.push_str(word);
        }
    }
}

fn push_joined(out: &mut String, names: &[&str]) {
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(';');
        }
        out.push_str(name);
    }
}

/// What follows the algorithm in an `Authorization` value, if it is the right algorithm.
fn after_algorithm(value: &str) -> Result<&str, S3Error> {
    match value.split_once(' ') {
        Some((ALGORITHM, fields)) => Ok(fields),
        Some((name, _)) if name.starts_with("AWS") => Err(unsupported_mechanism()),
        _ => Err(S3Error::new(
            Code::InvalidArgument,
            "Unsupported Authorization Type. Please use AWS4-HMAC-SHA256.",
        )),
    }
}

/// `Credential`, `SignedHeaders` and `Signature`: in any order, each once, nothing else.
fn header_fields(fields: &str) -> Result<[&str; 3], S3Error> {
    let (mut credential, mut signed, mut signature) = (None, None, None);
    for field in fields.split(',') {
        let slot_and_value = field
            .trim()
            .split_once('=')
            .and_then(|(name, value)| match name {
                "Credential" => Some((&mut credential, value)),
                "Signature" => Some((&mut signature, value)),
                "SignedHeaders" => Some((&mut signed, value)),
                _ => None,
            });
        let Some((slot, value)) = slot_and_value else {
            return Err(malformed(FIELDS_RULE));
        };
        if slot.replace(value).is_some() {
            return Err(malformed(FIELDS_RULE));
        }
    }
    match (credential, signed, signature) {
        (Some(credential), Some(signed), Some(signature)) => Ok([credential, signed, signature]),
        _ => Err(malformed(FIELDS_RULE)),
    }
}

const FIELDS_RULE: &str = "it must have Credential, SignedHeaders and Signature, each once";

/// Splits a credential from the right, because an access key id may itself contain `/`.
fn credential_parts(text: &str) -> Option<(&str, CredentialScope<'_>)> {
    let mut slashes = text.rmatch_indices('/').map(|(at, _)| at);
    let (access_key, scope) = text.split_at_checked(slashes.nth(3)?)?;
    let scope = CredentialScope::parse(scope.strip_prefix('/')?)?;
    (!access_key.is_empty()).then_some((access_key, scope))
}

/// The names of `SignedHeaders`: not empty, lower case, sorted, each once.
fn signed_names(text: &str) -> Option<Vec<&str>> {
    let names: Vec<_> = text.split(';').collect();
    let lower = names
        .iter()
        .all(|n| !n.is_empty() && !n.bytes().any(|b| b.is_ascii_uppercase()));
    (lower && names.is_sorted_by(|a, b| a < b)).then_some(names)
}

/// When the request was signed: `x-amz-date`, or a signed `Date` where there is none.
fn signing_time(headers: &HeaderMap, signed: &[&str]) -> Result<Timestamp, S3Error> {
    let amz = only_value(headers, AMZ_DATE).and_then(Timestamp::parse_amz);
    let time = if headers.contains_key(AMZ_DATE) {
        amz
    } else if signed.contains(&DATE.as_str()) {
        only_value(headers, DATE.as_str()).and_then(parse_date_header)
    } else {
        None
    };
    time.ok_or_else(|| {
        S3Error::new(
            Code::AccessDenied,
            "AWS authentication requires a valid, signed Date or x-amz-date header",
        )
    })
}

/// `Date` in the forms that signers write: an HTTP date, the same with a numeric zone (botocore), or
/// the form of `x-amz-date`.
fn parse_date_header(text: &str) -> Option<Timestamp> {
    let bare = ["-0000", "+0000"]
        .iter()
        .find_map(|zone| text.strip_suffix(zone));
    let http_date = bare.map_or(Cow::Borrowed(text), |bare| Cow::Owned(format!("{bare}GMT")));
    Timestamp::parse_http_date(&http_date).or_else(|| Timestamp::parse_amz(text))
}

fn only_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The signature must cover `host` and all that means something to S3, or somebody on the way could
/// add to it. `x-amz-content-sha256` is exempt: its value is in the canonical request anyway.
fn covers_headers(
    signed: &[&str],
    headers: &HeaderMap,
    malformed: fn(&str) -> S3Error,
) -> Result<(), S3Error> {
    let must_sign = |name: &&str| {
        *name == HOST.as_str() || (name.starts_with("x-amz-") && *name != CONTENT_SHA256)
    };
    let unsigned = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(must_sign)
        .find(|name| signed.binary_search(name).is_err());
    if let Some(name) = unsigned {
        let text =
            format!("There were headers present in the request which were not signed: {name}");
        return Err(S3Error::new(Code::AccessDenied, text));
    }
    if signed.binary_search(&HOST.as_str()).is_err() {
        return Err(malformed("SignedHeaders must include host"));
    }
    for name in signed {
        let mut values = headers.get_all(*name).iter().peekable();
        if values.peek().is_none() {
            return Err(malformed(
                "SignedHeaders names a header that the request does not have",
            ));
        }
        if values.any(|value| std::str::from_utf8(value.as_bytes()).is_err()) {
            return Err(malformed("a signed header's value is not UTF-8"));
        }
    }
    Ok(())
}

/// Whether `name` belongs to a presigned URL. In any case: `x-amz-signature` is a mistake to refuse,
/// not a parameter to ignore.
fn is_presign_parameter(name: &str) -> bool {
    PRESIGN_PARAMETERS
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// The value of a parameter that must be there exactly once.
fn once<'a>(query: &'a [(Cow<'_, str>, Cow<'_, str>)], name: &str) -> Result<&'a str, S3Error> {
    let mut values = query
        .iter()
        .filter(|(known, _)| known == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(malformed_query(&format!(
            "Query-string authentication version 4 requires each of {} once",
            PRESIGN_PARAMETERS.join(", ")
        ))),
    }
}

fn expiry(text: &str) -> Result<u32, S3Error> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let expires = if digits {
        text.parse().unwrap_or(u32::MAX)
    } else {
        0
    };
    match expires {
        0 => Err(malformed_query(
            "X-Amz-Expires should be a number of seconds, at least 1",
        )),
        1..=MAX_EXPIRES => Ok(expires),
        _ => Err(malformed_query(
            "X-Amz-Expires must be at most a week (604800 seconds)",
        )),
    }
}

fn unsupported_mechanism() -> S3Error {
    S3Error::new(
        Code::InvalidRequest,
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )
}

fn malformed(why: &str) -> S3Error {
    let text = format!("The authorization header is malformed; {why}");
    S3Error::new(Code::AuthorizationHeaderMalformed, text)
}

fn malformed_query(why: &str) -> S3Error {
    S3Error::new(Code::AuthorizationQueryParametersError, why.to_owned())
}
