//! The names of request headers in COS's own API (its pages 436/7728, 436/7749, 436/10881).

use http::HeaderValue;
use http::header::HeaderName;

use crate::error::{Code, S3Error};
use crate::s3::storage_class::cos_class;

/// What COS's own API calls a header. Refused where it has no name for it: dropping it would do
/// something else than was requested.
pub(super) fn cos_header(
    name: &HeaderName,
    value: &HeaderValue,
) -> Result<(HeaderName, HeaderValue), S3Error> {
    let Some(suffix) = name.as_str().strip_prefix("x-amz-") else {
        return Ok((name.clone(), value.clone()));
    };
    if suffix.starts_with("meta-") {
        return Ok((renamed(suffix)?, value.clone()));
    }
    let text = value.to_str().unwrap_or_default();
    let (suffix, value) = match suffix {
        "acl" => match text {
            "default" | "private" | "public-read" | "public-read-write" => (suffix, value.clone()),
            _ => return Err(untranslatable(name)),
        },
        "metadata-directive" | "tagging-directive" => match text {
            "COPY" => (suffix, HeaderValue::from_static("Copy")),
            "REPLACE" => (suffix, HeaderValue::from_static("Replaced")),
            _ => {
                return Err(S3Error::new(
                    Code::InvalidArgument,
                    format!("{name} must be COPY or REPLACE."),
                ));
            }
        },
        "server-side-encryption" => match text {
            "AES256" => (suffix, value.clone()),
            "aws:kms" => (suffix, HeaderValue::from_static("cos/kms")),
            _ => return Err(untranslatable(name)),
        },
        "server-side-encryption-aws-kms-key-id" => {
            ("server-side-encryption-cos-kms-key-id", value.clone())
        }
        "storage-class" => match cos_class(text) {
            Some(class) => (suffix, HeaderValue::from_static(class)),
            None => return Err(untranslatable(name)),
        },
        _ if COS_HAS.contains(&suffix) => (suffix, value.clone()),
        _ => return Err(untranslatable(name)),
    };
    Ok((renamed(suffix)?, value))
}

/// What follows `x-amz-` and `x-cos-` alike, with the same values.
const COS_HAS: [&str; 18] = [
    "copy-source-if-match",
    "copy-source-if-modified-since",
    "copy-source-if-none-match",
    "copy-source-if-unmodified-since",
    "copy-source-range",
    "copy-source-server-side-encryption-customer-algorithm",
    "copy-source-server-side-encryption-customer-key",
    "copy-source-server-side-encryption-customer-key-md5",
    "grant-full-control",
    "grant-read",
    "grant-read-acp",
    "grant-write",
    "grant-write-acp",
    "server-side-encryption-context",
    "server-side-encryption-customer-algorithm",
    "server-side-encryption-customer-key",
    "server-side-encryption-customer-key-md5",
    "tagging",
];

fn renamed(suffix: &str) -> Result<HeaderName, S3Error> {
    HeaderName::try_from(format!("x-cos-{suffix}"))
        .map_err(|_| S3Error::internal("a header name that did not survive its renaming"))
}

fn untranslatable(name: &HeaderName) -> S3Error {
    let text = format!("The store has no counterpart for this value of {name}; leave it out.");
    S3Error::new(Code::NotImplemented, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(name: &'static str, value: &'static str) -> Result<(String, String), Code> {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        let translated = cos_header(&name, &value).map_err(|error| error.code());
        translated.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn headers_get_coss_own_names_and_values() {
        for (name, value, cos_name, cos_value) in [
            ("content-type", "text/css", "content-type", "text/css"),
            ("if-match", "\"e\"", "if-match", "\"e\""),
            (
                "x-amz-copy-source-if-match",
                "\"e\"",
                "x-cos-copy-source-if-match",
                "\"e\"",
            ),
            ("x-amz-acl", "private", "x-cos-acl", "private"),
            ("x-amz-meta-a", "b", "x-cos-meta-a", "b"),
            (
                "x-amz-metadata-directive",
                "COPY",
                "x-cos-metadata-directive",
                "Copy",
            ),
            (
                "x-amz-server-side-encryption",
                "aws:kms",
                "x-cos-server-side-encryption",
                "cos/kms",
            ),
            (
                "x-amz-server-side-encryption-aws-kms-key-id",
                "k",
                "x-cos-server-side-encryption-cos-kms-key-id",
                "k",
            ),
            (
                "x-amz-storage-class",
                "GLACIER",
                "x-cos-storage-class",
                "ARCHIVE",
            ),
            ("x-amz-tagging", "a=b", "x-cos-tagging", "a=b"),
        ] {
            let expected = Ok((cos_name.to_owned(), cos_value.to_owned()));
            assert_eq!(translate(name, value), expected, "{name}");
        }
    }

    #[test]
    fn what_cos_has_no_name_for_is_refused_and_never_dropped() {
        for (name, value) in [
            ("x-amz-acl", "authenticated-read"),
            ("x-amz-expected-bucket-owner", "1"),
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            ("x-amz-storage-class", "GLACIER_IR"),
            ("x-amz-unheard-of", "x"),
            ("x-amz-website-redirect-location", "/x"),
        ] {
            let refused = translate(name, value);
            assert_eq!(refused, Err(Code::NotImplemented), "{name}");
        }
    }
}
