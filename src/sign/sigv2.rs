//! Presigned URLs of Signature Version 2 (AWS, "Signing and authenticating REST requests"), which
//! aws-cli still makes for endpoints that are not Amazon's. The `Authorization` form is not served.
//!
//! Weaker than Version 4 by design: it signs neither the host nor the parameters of a listing, and two
//! queries can have one string to sign (`versionId=a` can hide in the value of a `response-…`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

use super::mac::hmac_sha1;
use super::sigv4;
use crate::encoding::percent::push_encoded;
use crate::error::{Code, S3Error};
use crate::s3::headers::must_be_signed;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// The parameters that make a request one that is presigned this way.
const PRESIGN_PARAMETERS: [&str; 3] = ["AWSAccessKeyId", "Expires", "Signature"];
const AMZ: &str = "x-amz-";
const CONTENT_MD5: &str = "content-md5";
/// The most digits of `Expires`; more would only be a later date than any that is taken.
const EXPIRES_DIGITS: usize = 12;

/// The parameters that the canonicalized resource holds, in its order: AWS's list, and the
/// sub-resources of botocore's that select an operation. Clients sign with this list, whatever
/// cosgate supports, so it is not derived from the table of operations.
const SUB_RESOURCES: [&str; 37] = [
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "encryption",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "retention",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// The parts of a request that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SigV2Request<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The bucket, where the host names it; `None` where the path does.
    pub bucket: Option<&'a str>,
    /// The path as sent, not decoded, with its leading `/`.
    pub path: &'a str,
    /// The query as sent, without its `?`.
    pub raw_query: &'a str,
    /// The same query, decoded, each name once.
    pub query: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// What a client declares of its presigned URL, read strictly but not yet believed.
#[derive(Clone, Copy, Debug)]
pub struct SigV2Claim<'a> {
    /// The access key id.
    pub access_key: &'a str,
    /// The last second of its life, in Unix seconds.
    pub expires: i64,
    signature: [u8; 20],
}

impl<'a> SigV2Claim<'a> {
    /// Whether `query` has any of the parameters, in any letter case: a mistake is to be refused, not
    /// to be taken for a request without a signature.
    pub(crate) fn is_in_query(query: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
        query.iter().any(|(name, _)| {
            PRESIGN_PARAMETERS
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        })
    }

    /// Reads the parameters; `None` when there is none of them. Refuses a request with headers that
    /// this signature cannot cover, or with parameters of Version 4.
    pub fn from_query(
        query: &'a [(Cow<'_, str>, Cow<'_, str>)],
        headers: &HeaderMap,
    ) -> Result<Option<Self>, S3Error> {
        if !Self::is_in_query(query) {
            return Ok(None);
        }
        if sigv4::SigV4Claim::is_in_query(query) {
            return Err(super::one_mechanism());
        }
        let [access_key, expires, signature] = PRESIGN_PARAMETERS.map(|name| once(query, name));
        let (access_key, expires, signature) = (access_key?, expires?, signature?);
        let signature = STANDARD.decode(signature).ok();
        let signature = signature
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| denied("Signature must be 20 bytes in base64, percent-encoded"))?;
        let claim = Self {
            access_key,
            expires: unix(expires)
                .ok_or_else(|| denied("Invalid date (should be seconds since epoch): Expires"))?,
            signature,
        };
        covers(query, headers)?;
        Ok(Some(claim))
    }

    /// Refuses a URL whose life is over at `now`, or goes on for more than `longest` seconds.
    pub(crate) fn check_life(&self, now: Timestamp, longest: u64) -> Result<(), S3Error> {
        let left = self.expires.saturating_sub(now.unix());
        if left < 0 {
            return Err(super::expired());
        }
        if left.unsigned_abs() > longest {
            let text = format!("Expires must be at most {longest} seconds ahead here");
            return Err(S3Error::new(Code::AccessDenied, text));
        }
        Ok(())
    }

    /// Whether the signature is that of `request` under `secret`, in constant time.
    pub fn verify(&self, request: &SigV2Request<'_>, secret: &Secret) -> bool {
        let to_sign = string_to_sign(request, self.expires);
        hmac_sha1(secret.expose().as_bytes())
            .chain_update(to_sign)
            .verify_slice(&self.signature)
            .is_ok()
    }
}

/// What is signed: a request that is good until `expires`, in Unix seconds.
///
/// Every `x-amz-` header is in it, and every such parameter, where botocore puts a presigned URL's
/// headers.
pub fn string_to_sign(request: &SigV2Request<'_>, expires: i64) -> String {
    let plain = |name: &str| request.headers.get(name).map_or("", text);
    let mut out = format!(
        "{}\n{}\n{}\n{expires}\n",
        request.method,
        plain(CONTENT_MD5),
        plain(CONTENT_TYPE.as_str()),
    );
    for (name, value) in amz_headers(request) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}:{value}");
    }
    push_resource(&mut out, request);
    out
}

/// The signature over [`string_to_sign`], in base64.
pub fn signature(string_to_sign: &str, secret: &Secret) -> String {
    let mac = hmac_sha1(secret.expose().as_bytes()).chain_update(string_to_sign);
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Whether `signature` is that of `text` under `secret`, in constant time.
pub(super) fn verify_text(text: &str, signature: &[u8; 20], secret: &Secret) -> bool {
    hmac_sha1(secret.expose().as_bytes())
        .chain_update(text)
        .verify_slice(signature)
        .is_ok()
}

/// The query that makes `request` a presigned one, good until `expires` in Unix seconds.
pub fn presigned_query(
    request: &SigV2Request<'_>,
    access_key: &str,
    secret: &Secret,
    expires: i64,
) -> String {
    let mut out = request.raw_query.to_owned();
    if !out.is_empty() {
        out.push('&');
    }
    out.push_str("AWSAccessKeyId=");
    push_encoded(&mut out, access_key.as_bytes());
    out.push_str("&Signature=");
    let signature = signature(&string_to_sign(request, expires), secret);
    push_encoded(&mut out, signature.as_bytes());
    out.push_str("&Expires=");
    out.push_str(&expires.to_string());
    out
}

/// Lower-case names in order, the values of one name joined.
fn amz_headers(request: &SigV2Request<'_>) -> BTreeMap<String, String> {
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| (Cow::Borrowed(name.as_str()), text(value)));
    let parameters = request.query.iter();
    let parameters =
        parameters.map(|(name, value)| (Cow::Owned(name.to_ascii_lowercase()), &**value));
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in headers.chain(parameters) {
        if !name.starts_with(AMZ) {
            continue;
        }
        all.entry(name.into_owned())
            .and_modify(|values| {
                values.push(',');
                values.push_str(value.trim());
            })
            .or_insert_with(|| value.trim().to_owned());
    }
    all
}

/// The bucket, the path as sent, and the sub-resources with their values decoded.
fn push_resource(out: &mut String, request: &SigV2Request<'_>) {
    if let Some(bucket) = request.bucket {
        out.push('/');
        out.push_str(bucket);
    }
    out.push_str(request.path);
    let mut mark = '?';
    for name in SUB_RESOURCES {
        let Some((_, value)) = request.query.iter().find(|(known, _)| known == name) else {
            continue;
        };
        out.push(mark);
        out.push_str(name);
        mark = '&';
        // `acl` and `acl=` are signed as they are sent.
        if !request.raw_query.split('&').any(|piece| piece == name) {
            out.push('=');
            out.push_str(value);
        }
    }
}

/// A header's value. [`covers`] has refused those that are not text.
fn text(value: &http::HeaderValue) -> &str {
    std::str::from_utf8(value.as_bytes()).map_or("", str::trim)
}

/// The value of a parameter that must be there exactly once.
fn once<'a>(query: &'a [(Cow<'_, str>, Cow<'_, str>)], name: &str) -> Result<&'a str, S3Error> {
    let mut values = query.iter().filter(|(known, _)| known == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) if !value.is_empty() => Ok(value),
        _ => Err(denied(
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId \
             parameters, each once",
        )),
    }
}

fn unix(text: &str) -> Option<i64> {
    let digits = text.len() <= EXPIRES_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    // A leading zero would be a second spelling of the number that is signed.
    let one_spelling = digits && !text.starts_with('0');
    one_spelling.then(|| text.parse().ok()).flatten()
}

/// Refuses what the string to sign could not distinguish, or leaves out though it means something.
fn covers(query: &[(Cow<'_, str>, Cow<'_, str>)], headers: &HeaderMap) -> Result<(), S3Error> {
    let unsigned = headers
        .keys()
        .map(HeaderName::as_str)
        .find(|name| must_be_signed(name) && !name.starts_with(AMZ));
    if let Some(name) = unsigned {
        let text =
            format!("There were headers present in the request which were not signed: {name}");
        return Err(S3Error::new(Code::AccessDenied, text));
    }
    for (name, value) in headers {
        let name = name.as_str();
        let plain = name == CONTENT_MD5 || name == CONTENT_TYPE.as_str();
        if !plain && !name.starts_with(AMZ) {
            continue;
        }
        if std::str::from_utf8(value.as_bytes()).is_err() {
            return Err(denied("a signed header's value is not UTF-8"));
        }
        if plain && headers.get_all(name).iter().nth(1).is_some() {
            return Err(denied(
                "Content-MD5 and Content-Type may be given only once",
            ));
        }
    }
    for (name, _) in query {
        let name = name.to_ascii_lowercase();
        let is_sum = name.starts_with("x-amz-checksum-") && name != "x-amz-checksum-mode";
        if is_sum || name == sigv4::CONTENT_SHA256 {
            // Signed as a header, it binds the body; a parameter that says the same would not.
            let text = format!("{name} of a presigned URL must be sent as a header");
            return Err(S3Error::new(Code::AccessDenied, text));
        }
    }
    // A line break in a value would write further lines of the string to sign.
    let breaks = query
        .iter()
        .any(|(name, value)| [name, value].iter().any(|text| text.contains(['\n', '\r'])));
    if breaks {
        return Err(denied("a parameter of a presigned URL has a line break"));
    }
    Ok(())
}

fn denied(why: &'static str) -> S3Error {
    S3Error::new(Code::AccessDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::Operation;

    /// The parameters that choose what is listed, of a listing that was signed.
    const UNSIGNED: [&str; 15] = [
        "continuation-token",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "key-marker",
        "list-type",
        "marker",
        "max-keys",
        "max-parts",
        "max-uploads",
        "part-number-marker",
        "prefix",
        "start-after",
        "upload-id-marker",
        "version-id-marker",
    ];

    #[test]
    fn the_sub_resources_are_sorted_and_hold_all_that_selects_an_operation() {
        assert!(SUB_RESOURCES.is_sorted());
        for operation in Operation::ALL {
            for name in operation.parameters() {
                assert!(
                    SUB_RESOURCES.contains(name) || UNSIGNED.contains(name),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn expires_has_one_spelling() {
        assert_eq!(unix("1768483845"), Some(1_768_483_845));
        for text in [
            "",
            "0",
            "01",
            "+1",
            "-1",
            "1.0",
            " 1",
            "1e9",
            "9999999999999",
        ] {
            assert_eq!(unix(text), None, "{text}");
        }
    }
}
