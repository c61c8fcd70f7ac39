//! [`SigV4Claim`]: a SigV4 signature as the client declares it, in its `Authorization` header or presigned URL.
//!
//! Everything that has two spellings is refused, so that one request has one canonical form.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, DATE, HOST};
use http::{HeaderMap, HeaderName};

use memchr::memrchr_iter;

use super::Signable;
use super::sigv4::{
    ALGORITHM, CONTENT_SHA256, CredentialScope, SignedHeaders, SigningKey, canonical_request,
    string_to_sign,
};
use crate::encoding::hex::parse_hex32;
use crate::encoding::split::{split, split_once};
use crate::error::{Code, S3Error};
use crate::s3::headers::{must_be_signed, values_of};
use crate::timestamp::{AmzDate, Timestamp};

const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// What a client declares of its signature, read strictly but not yet believed.
#[derive(Clone, Debug)]
pub struct SigV4Claim<'a> {
    /// The access key id.
    pub access_key: &'a str,
    /// The credential scope; its day is that of `time`.
    pub scope: CredentialScope<'a>,
    /// When it was signed.
    pub time: Timestamp,
    /// How many seconds a presigned URL lives; `None` for an `Authorization` header.
    pub expires: Option<u32>,
    amz_date: AmzDate,
    signed: SignedHeaders<'a>,
    signature: [u8; 32],
}

impl<'a> SigV4Claim<'a> {
    /// Reads the `Authorization` header; `None` when there is none.
    pub fn from_headers(headers: &'a HeaderMap) -> Result<Option<Self>, S3Error> {
        let mut values = values_of(headers, AUTHORIZATION);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(super::one_authorization());
        }
        let value = value
            .to_str()
            .map_err(|_| malformed("it has bytes that are not visible ASCII"))?;
        let fields = after_algorithm(value)?;
        let [credential, signed, signature] = header_fields(fields)?;
        let (access_key, scope) = credential_parts(credential).ok_or_else(|| {
            malformed("Credential must be ACCESS-KEY/YYYYMMDD/REGION/s3/aws4_request")
        })?;
        let names = signed_names(signed).ok_or_else(|| malformed(SIGNED_HEADERS_RULE))?;
        let time = signing_time(headers, &names)?;
        let amz_date = time.amz_date();
        if amz_date.day() != scope.date {
            return Err(malformed(
                "the day in Credential is not the day of x-amz-date",
            ));
        }
        let signature = parse_hex32(signature).ok_or_else(|| malformed(SIGNATURE_RULE))?;
        let signed = signed_headers(&names, headers, malformed)?;
        Ok(Some(Self {
            access_key,
            scope,
            time,
            amz_date,
            expires: None,
            signed,
            signature,
        }))
    }

    /// Reads a presigned URL's parameters; `None` when there is none of them.
    pub fn from_query(
        query: &'a [(Cow<'_, str>, Cow<'_, str>)],
        headers: &'a HeaderMap,
    ) -> Result<Option<Self>, S3Error> {
        if !Self::is_in_query(query) {
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
        let amz_date = time.amz_date();
        if amz_date.day() != scope.date {
            return Err(malformed_query(
                "the day in X-Amz-Credential is not the day of X-Amz-Date",
            ));
        }
        let expires = expiry(once(query, "X-Amz-Expires")?)?;
        let names = signed_names(once(query, "X-Amz-SignedHeaders")?)
            .ok_or_else(|| malformed_query(SIGNED_HEADERS_RULE))?;
        let signature = parse_hex32(once(query, "X-Amz-Signature")?)
            .ok_or_else(|| malformed_query(SIGNATURE_RULE))?;
        let signed = signed_headers(&names, headers, malformed_query)?;
        Ok(Some(Self {
            access_key,
            scope,
            time,
            amz_date,
            expires: Some(expires),
            signed,
            signature,
        }))
    }

    /// The signature: the chain of chunk signatures starts at it.
    pub fn signature(&self) -> [u8; 32] {
        self.signature
    }

    /// Whether `query` has a parameter of a presigned URL. In any case: `x-amz-signature` is a mistake
    /// to refuse, not a parameter to ignore.
    pub(crate) fn is_in_query(query: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
        query.iter().any(|(name, _)| {
            PRESIGN_PARAMETERS
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        })
    }

    /// Whether the client signed the header `name` (lower case).
    pub fn signs(&self, name: &str) -> bool {
        self.signed.names().any(|signed| signed == name)
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
        string_to_sign(self.amz_date.as_str(), &self.scope, canonical_request)
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

/// What follows the algorithm in an `Authorization` value, if it is the right algorithm.
fn after_algorithm(value: &str) -> Result<&str, S3Error> {
    match split_once(value, b' ') {
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
    for field in split(fields, b',') {
        let slot_and_value = split_once(field.trim(), b'=').and_then(|(name, value)| match name {
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
pub(super) fn credential_parts(text: &str) -> Option<(&str, CredentialScope<'_>)> {
    let mut slashes = memrchr_iter(b'/', text.as_bytes());
    let (access_key, scope) = text.split_at_checked(slashes.nth(3)?)?;
    let scope = CredentialScope::parse(scope.strip_prefix('/')?)?;
    (!access_key.is_empty()).then_some((access_key, scope))
}

/// The names of `SignedHeaders`: not empty, lower case, sorted, each once.
fn signed_names(text: &str) -> Option<Vec<&str>> {
    let names: Vec<_> = split(text, b';').collect();
    // All bytes at once, where `any` would look at one after the other.
    let uppercase = text.bytes().filter(u8::is_ascii_uppercase).count();
    let is_strict = names.is_sorted_by(|a, b| a < b) && !names.contains(&"");
    (uppercase == 0 && is_strict).then_some(names)
}

/// When the request was signed: `x-amz-date`, or a signed `Date` where there is none.
fn signing_time(headers: &HeaderMap, signed: &[&str]) -> Result<Timestamp, S3Error> {
    let time = match only_value(headers, AMZ_DATE) {
        Some(amz) => Timestamp::parse_amz(amz),
        None if headers.contains_key(AMZ_DATE) || !signed.contains(&DATE.as_str()) => None,
        None => only_value(headers, DATE).and_then(parse_date_header),
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

fn only_value(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = values_of(headers, name);
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The headers of these `names`, which are sorted. The signature must cover `host` and all that means something to S3
/// or COS, or somebody on the way could add to it. `x-amz-content-sha256` is exempt: its value is in the canonical
/// request anyway.
fn signed_headers<'a>(
    names: &[&str],
    headers: &'a HeaderMap,
    malformed: fn(&str) -> S3Error,
) -> Result<SignedHeaders<'a>, S3Error> {
    let mut signed = Vec::with_capacity(names.len());
    for (name, value) in headers {
        let name = name.as_str();
        if names.binary_search(&name).is_ok() {
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| malformed("a signed header's value is not UTF-8"))?;
            signed.push((name, value));
        } else if name == HOST.as_str() || (must_be_signed(name) && name != CONTENT_SHA256) {
            let text =
                format!("There were headers present in the request which were not signed: {name}");
            return Err(S3Error::new(Code::AccessDenied, text));
        }
    }
    let signed = SignedHeaders::sorted(signed);
    if !names.contains(&HOST.as_str()) {
        return Err(malformed("SignedHeaders must include host"));
    }
    if signed.names().count() < names.len() {
        return Err(malformed(
            "SignedHeaders names a header that the request does not have",
        ));
    }
    Ok(signed)
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
