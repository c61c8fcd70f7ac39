//! Conditions of requests ("only if the object is …"): which of them COS keeps, by operation and header.
//!
//! A condition that nobody keeps must not be dropped: the client would believe that it held. So each
//! one is sent on where COS documents it, kept here as far as that is possible, or refused with 501.
//! `RULES` is the one table. What S3 defines is on the pages of its API reference (the operation's
//! `If-…` headers) and in "Add preconditions to S3 operations with conditional requests"; what COS
//! keeps is on its pages 436/N.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Operation;
use crate::config::UpstreamSignature;
use crate::error::{Code, S3Error};
use crate::timestamp::Timestamp;

/// COS's own condition of a write.
pub(crate) const FORBID_OVERWRITE: &str = "x-cos-forbid-overwrite";

/// S3's words for a condition that did not hold. s3fs tells by them that an object exists already, or has changed.
pub(crate) const NOT_HELD: &str = "At least one of the pre-conditions you specified did not hold";

const COPY_SOURCE_IF: &str = "x-amz-copy-source-if-";
/// Conditions of S3's directory buckets.
const IF_MATCH_ALSO: &str = "x-amz-if-match-";
/// RFC 9110 section 13.1; `If-Range` is no condition of the request as a whole.
pub(crate) const PLAIN: [&str; 4] = [
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
];

/// What becomes of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Sent on as it is: COS keeps it.
    Sent,
    /// Sent as [`FORBID_OVERWRITE`]: COS keeps it, except in a bucket that has ever had versioning.
    ForbidsOverwrite,
    /// Sent on, but whether COS keeps it is not documented: cosgate checks it by a HEAD first. What
    /// changes between the HEAD and the request is not seen.
    CheckedFirst,
    /// Dropped, as S3 does: the whole response is right whatever the condition says.
    Ignored,
    /// Refused with 501. The text says what to do.
    Refused(&'static str),
}

/// A row of the table: the first that fits says what happens.
struct Rule {
    operations: &'static [Operation],
    /// Names of headers in lower case, or of XML elements in `<>`.
    names: &'static [&'static str],
    /// The only value for which the row is; `None` for any.
    value: Option<&'static str>,
    s3: Handling,
    cos: Handling,
}

use Handling as H;
use Operation as O;

const CREATES: &[Operation] = &[O::PutObject, O::CopyObject, O::CompleteMultipartUpload];
const PARTS: &[Operation] = &[O::CreateMultipartUpload, O::UploadPart, O::UploadPartCopy];
const DELETES: &[Operation] = &[O::DeleteObject, O::DeleteObjects];

const COMPARE_FIRST: H = H::Refused(
    "Remove it, and compare the object with HeadObject before this request if that is enough.",
);
const ONLY_CREATE: H = H::Refused(
    "On a write, cosgate supports only `If-None-Match: *`: use it with a new key, or remove the condition.",
);
const AT_THE_END: H = H::Refused("Send `If-None-Match: *` with CompleteMultipartUpload instead.");
const IN_S3_WORDS: H = H::Refused("Send `If-None-Match: *` instead.");

const RULES: &[Rule] = &[
    // S3: GetObject, HeadObject. COS: GET Object 436/7753, HEAD Object 436/7745.
    Rule {
        operations: &[O::GetObject, O::HeadObject],
        names: &PLAIN,
        value: None,
        s3: H::Sent,
        cos: H::Sent,
    },
    // S3: PutObject, CopyObject, CompleteMultipartUpload take `*`, and a form, which is the PutObject of its
    // file, has it as a field. COS has x-cos-forbid-overwrite on PUT Object 436/7749 and Complete Multipart
    // Upload 436/7742; apache/opendal pull request 7526 saw its 409 for PUT Object - Copy. Of S3's name for
    // it no page documents anything.
    Rule {
        operations: CREATES,
        names: &["if-none-match"],
        value: Some("*"),
        s3: H::CheckedFirst,
        cos: H::ForbidsOverwrite,
    },
    // S3: the same three take an ETag in If-Match, none in If-None-Match. COS: nothing.
    Rule {
        operations: CREATES,
        names: &PLAIN,
        value: None,
        s3: ONLY_CREATE,
        cos: ONLY_CREATE,
    },
    // S3: CreateMultipartUpload, UploadPart and UploadPartCopy accept no conditions ("Enforce conditional
    // writes on Amazon S3 buckets"). Dropped there, an upload that says it at its start alone overwrites.
    Rule {
        operations: PARTS,
        names: &PLAIN,
        value: None,
        s3: AT_THE_END,
        cos: AT_THE_END,
    },
    // COS's own name. Initiate Multipart Upload 436/7746 has it too.
    Rule {
        operations: &[O::PutObject, O::CopyObject, O::CompleteMultipartUpload],
        names: &[FORBID_OVERWRITE],
        value: Some("true"),
        s3: IN_S3_WORDS,
        cos: H::Sent,
    },
    Rule {
        operations: &[O::CreateMultipartUpload],
        names: &[FORBID_OVERWRITE],
        value: Some("true"),
        s3: AT_THE_END,
        cos: H::Sent,
    },
    // It is what is without it.
    Rule {
        operations: Operation::ALL,
        names: &[FORBID_OVERWRITE],
        value: Some("false"),
        s3: H::Ignored,
        cos: H::Ignored,
    },
    // S3: CopyObject, UploadPartCopy. COS has them as x-cos-copy-source-if-* on PUT Object - Copy
    // 436/10881 and Upload Part - Copy 436/8287; of S3's names no page documents anything.
    Rule {
        operations: &[O::CopyObject, O::UploadPartCopy],
        names: &[
            "x-amz-copy-source-if-match",
            "x-amz-copy-source-if-modified-since",
            "x-amz-copy-source-if-none-match",
            "x-amz-copy-source-if-unmodified-since",
        ],
        value: None,
        s3: H::CheckedFirst,
        cos: H::Sent,
    },
    // S3: DeleteObject takes If-Match (directory buckets more), DeleteObjects the same in each Object of
    // its body. COS: DELETE Object 436/7743 and DELETE Multiple Objects 436/8289 have none.
    Rule {
        operations: DELETES,
        names: &[
            "if-match",
            "if-modified-since",
            "if-none-match",
            "if-unmodified-since",
            "x-amz-if-match-last-modified-time",
            "x-amz-if-match-size",
            "<ETag>",
            "<LastModifiedTime>",
            "<Size>",
        ],
        value: None,
        s3: COMPARE_FIRST,
        cos: COMPARE_FIRST,
    },
    // S3: AbortMultipartUpload of directory buckets. COS: Abort Multipart Upload 436/7740 has none.
    Rule {
        operations: &[O::AbortMultipartUpload],
        names: &["x-amz-if-match-initiated-time"],
        value: None,
        s3: H::Refused("Remove it, and compare the upload with ListMultipartUploads first."),
        cos: H::Refused("Remove it, and compare the upload with ListMultipartUploads first."),
    },
    // S3 has no conditions on the other reads, and serves them whole.
    Rule {
        operations: &[
            O::GetBucketAcl,
            O::GetBucketCors,
            O::GetBucketEncryption,
            O::GetBucketLifecycleConfiguration,
            O::GetBucketLocation,
            O::GetBucketTagging,
            O::GetBucketVersioning,
            O::GetBucketWebsite,
            O::GetObjectAcl,
            O::GetObjectTagging,
            O::HeadBucket,
            O::ListBuckets,
            O::ListMultipartUploads,
            O::ListObjectVersions,
            O::ListObjects,
            O::ListObjectsV2,
            O::ListParts,
        ],
        names: &PLAIN,
        value: None,
        s3: H::Ignored,
        cos: H::Ignored,
    },
];

/// Every header that the table names, with the values that its rows single out.
pub fn names() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let rows = RULES.iter();
    let rows = rows.flat_map(|rule| rule.names.iter().map(|name| (*name, rule.value)));
    rows.filter(|(name, _)| !name.starts_with('<'))
}

/// Whether the header `name` (lower case) is a condition.
pub fn is_condition(name: &str) -> bool {
    if name.starts_with("if-") {
        return PLAIN.contains(&name);
    }
    // Few headers begin so, and this is called for every header of every request.
    name.starts_with("x-")
        && (name == FORBID_OVERWRITE
            || name.starts_with(COPY_SOURCE_IF)
            || name.starts_with(IF_MATCH_ALSO))
}

/// Whether a write happens only if its own object is, or is not, what the client declares: done once, it
/// would refuse to be done again.
pub(crate) fn depends_on_target(headers: &HeaderMap) -> bool {
    let mut names = headers.keys().map(HeaderName::as_str);
    names.any(|name| is_condition(name) && !name.starts_with(COPY_SOURCE_IF))
}

/// The conditions that 412 can be about, in the order of RFC 9110 section 13.2.2, and as S3 names them in its document.
const NAMED: [(&str, &str); 8] = [
    ("x-amz-copy-source-if-match", "x-amz-copy-source-If-Match"),
    (
        "x-amz-copy-source-if-unmodified-since",
        "x-amz-copy-source-If-Unmodified-Since",
    ),
    (
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-If-None-Match",
    ),
    (
        "x-amz-copy-source-if-modified-since",
        "x-amz-copy-source-If-Modified-Since",
    ),
    ("if-match", "If-Match"),
    ("if-unmodified-since", "If-Unmodified-Since"),
    ("if-none-match", "If-None-Match"),
    ("if-modified-since", "If-Modified-Since"),
];

/// That a condition of the request with `headers` did not hold, as S3 says it. `found` is how it came out.
pub(crate) fn failed(headers: &HeaderMap, found: &S3Error) -> S3Error {
    let error = S3Error::new(Code::PreconditionFailed, NOT_HELD).detail(found.to_string());
    match NAMED.iter().find(|(name, _)| headers.contains_key(*name)) {
        Some((_, shown)) => error.element("Condition", *shown),
        None => error,
    }
}

/// What becomes of the condition `name` (a header in lower case, or an element in `<>`) on `operation`.
pub fn handling(
    operation: Operation,
    name: &str,
    value: &[u8],
    signature: UpstreamSignature,
) -> Handling {
    let mut rules = RULES.iter();
    let rule = rules.find(|rule| {
        rule.operations.contains(&operation)
            && rule.names.contains(&name)
            && rule.value.is_none_or(|only| only.as_bytes() == value)
    });
    match (rule, signature) {
        (Some(rule), UpstreamSignature::S3) => rule.s3,
        (Some(rule), UpstreamSignature::Cos) => rule.cos,
        (None, _) => H::Refused("Remove it."),
    }
}

/// Each condition of `headers` on `operation` that is sent on, by S3's name, or the refusal of one.
pub fn kept(
    operation: Operation,
    headers: &HeaderMap,
    signature: UpstreamSignature,
) -> Result<Vec<(&HeaderName, &HeaderValue, Handling)>, S3Error> {
    let mut kept: Vec<(&HeaderName, &HeaderValue, Handling)> = Vec::new();
    let conditions = headers
        .iter()
        .filter(|(name, _)| is_condition(name.as_str()));
    for (name, value) in conditions {
        let reads = matches!(operation, O::GetObject | O::HeadObject);
        if name.as_str().ends_with("-since") && !is_date(value) {
            if reads {
                continue; // RFC 9110 sections 13.1.3 and 13.1.4
            }
            if name.as_str().starts_with(COPY_SOURCE_IF) {
                return Err(invalid(format!(
                    "The condition {name} must be an HTTP date."
                )));
            }
        }
        if value.is_empty() {
            return Err(invalid(format!("The condition {name} is empty.")));
        }
        if value.to_str().is_err() {
            return Err(invalid(format!("The condition {name} must be ASCII.")));
        }
        if name == FORBID_OVERWRITE && !matches!(value.as_bytes(), b"true" | b"false") {
            return Err(invalid(format!("{name} must be true or false.")));
        }
        if kept.iter().any(|(earlier, ..)| *earlier == name) {
            return Err(invalid(format!("The condition {name} is given twice.")));
        }
        match handling(operation, name.as_str(), value.as_bytes(), signature) {
            Handling::Ignored => {}
            Handling::Refused(_) if name.as_str().starts_with(COPY_SOURCE_IF) => {
                let text = format!("The header {name} does not belong to {}.", operation.name());
                return Err(invalid(text));
            }
            Handling::Refused(advice) => return Err(refusal(operation, name.as_str(), advice)),
            handling => kept.push((name, value, handling)),
        }
    }
    Ok(kept)
}

/// Whether `value` is an HTTP date. COS reads it.
fn is_date(value: &HeaderValue) -> bool {
    let text = value.to_str().ok();
    text.and_then(Timestamp::parse_http_date).is_some()
}

/// The refusal of the condition `name` in the body of `operation`.
pub(super) fn in_body(operation: Operation, name: &str) -> S3Error {
    // The same in both signatures: no element is ever sent on.
    match handling(operation, name, b"", UpstreamSignature::S3) {
        Handling::Refused(advice) => refusal(operation, name, advice),
        _ => refusal(operation, name, "Remove it."),
    }
}

/// The refusal of a condition that cosgate checks first, where the caller has no right to HEAD the object.
pub(crate) fn cannot_precheck(operation: Operation, names: &str) -> S3Error {
    refusal(
        operation,
        names,
        "cosgate would check the object first, but your access does not include name/cos:HeadObject \
         on it. Ask the operator for that action, or remove the condition.",
    )
}

fn refusal(operation: Operation, name: &str, advice: &str) -> S3Error {
    S3Error::new(
        Code::NotImplemented,
        format!(
            "Tencent COS does not document that it keeps the condition {name} on {}. {advice}",
            operation.name()
        ),
    )
}

fn invalid(message: String) -> S3Error {
    S3Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURES: [UpstreamSignature; 2] = [UpstreamSignature::S3, UpstreamSignature::Cos];
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const ALL: [&str; 12] = [
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-modified-since",
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-unmodified-since",
        "x-amz-if-match-initiated-time",
        "x-amz-if-match-last-modified-time",
        "x-amz-if-match-size",
        FORBID_OVERWRITE,
    ];

    #[test]
    fn dates_that_are_none_are_ignored_on_reads_and_refused_on_copies() {
        let kept = |operation, name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            let kept = kept(operation, &headers, UpstreamSignature::Cos);
            kept.map(|kept| kept.len()).map_err(|error| error.code())
        };
        for date in [
            DATE,
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            let read = kept(O::GetObject, "if-unmodified-since", date);
            assert_eq!(read, Ok(1), "{date}");
            let copied = kept(O::CopyObject, "x-amz-copy-source-if-modified-since", date);
            assert_eq!(copied, Ok(1), "{date}");
        }
        for none in [
            "",
            "x",
            "0",
            "1994-11-06",
            "Sun, 06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            for name in ["if-modified-since", "if-unmodified-since"] {
                assert_eq!(kept(O::GetObject, name, none), Ok(0), "{none}");
                assert_eq!(kept(O::HeadObject, name, none), Ok(0), "{none}");
            }
            let copied = kept(O::CopyObject, "x-amz-copy-source-if-unmodified-since", none);
            assert_eq!(copied, Err(Code::InvalidArgument), "{none}");
        }
    }

    fn reads(operation: Operation) -> bool {
        matches!(
            operation,
            O::GetBucketAcl
                | O::GetBucketCors
                | O::GetBucketEncryption
                | O::GetBucketLifecycleConfiguration
                | O::GetBucketLocation
                | O::GetBucketTagging
                | O::GetBucketVersioning
                | O::GetBucketWebsite
                | O::GetObject
                | O::GetObjectAcl
                | O::GetObjectTagging
                | O::HeadBucket
                | O::HeadObject
                | O::ListBuckets
                | O::ListMultipartUploads
                | O::ListObjectVersions
                | O::ListObjects
                | O::ListObjectsV2
                | O::ListParts
        )
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    fn outcome(
        operation: Operation,
        pairs: &[(&str, &str)],
        signature: UpstreamSignature,
    ) -> Result<Vec<Handling>, (Code, String)> {
        let headers = headers(pairs);
        kept(operation, &headers, signature)
            .map(|kept| kept.into_iter().map(|(_, _, handling)| handling).collect())
            .map_err(|error| (error.code(), error.message().to_owned()))
    }

    #[test]
    fn every_condition_on_a_write_is_sent_or_refused_by_name() {
        for signature in SIGNATURES {
            for operation in Operation::ALL
                .iter()
                .filter(|operation| !reads(**operation))
            {
                for name in ALL {
                    for value in ["*", "\"e\"", "true", "3", DATE] {
                        if name.ends_with("-since") && value != DATE {
                            continue;
                        }
                        if name == FORBID_OVERWRITE && value != "true" {
                            continue;
                        }
                        match outcome(*operation, &[(name, value)], signature) {
                            Ok(kept) => assert_eq!(kept.len(), 1, "{operation:?} {name}: {value}"),
                            Err((code, text)) => {
                                let expected = if name.starts_with(COPY_SOURCE_IF) {
                                    Code::InvalidArgument
                                } else {
                                    Code::NotImplemented
                                };
                                assert_eq!(code, expected, "{operation:?} {name}: {value}");
                                assert!(text.contains(name), "{text}");
                                assert!(text.contains(operation.name()), "{text}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn create_only_is_kept_on_the_three_writes_that_make_an_object() {
        for operation in Operation::ALL {
            let create = |signature| outcome(*operation, &[("if-none-match", "*")], signature);
            if CREATES.contains(operation) {
                assert_eq!(create(SIGNATURES[0]), Ok(vec![H::CheckedFirst]));
                assert_eq!(create(SIGNATURES[1]), Ok(vec![H::ForbidsOverwrite]));
            } else if !reads(*operation) {
                for signature in SIGNATURES {
                    assert_eq!(create(signature).unwrap_err().0, Code::NotImplemented);
                }
            }
            for signature in SIGNATURES {
                for value in ["\"e\"", "*, \"e\"", "\"*\""] {
                    let etag = outcome(*operation, &[("if-none-match", value)], signature);
                    assert_eq!(etag.is_err(), !reads(*operation), "{operation:?} {value}");
                }
            }
        }
    }

    #[test]
    fn reads_of_objects_keep_all_plain_conditions_and_others_ignore_them() {
        for signature in SIGNATURES {
            for operation in Operation::ALL.iter().filter(|operation| reads(**operation)) {
                let sent = matches!(operation, O::GetObject | O::HeadObject);
                for name in PLAIN {
                    let kept = outcome(*operation, &[(name, DATE)], signature).unwrap();
                    assert_eq!(
                        kept,
                        vec![H::Sent; usize::from(sent)],
                        "{operation:?} {name}"
                    );
                }
            }
        }
    }

    #[test]
    fn coss_own_condition_is_kept_in_coss_words_alone() {
        let put = |value, signature| outcome(O::PutObject, &[(FORBID_OVERWRITE, value)], signature);
        assert_eq!(put("true", SIGNATURES[1]), Ok(vec![H::Sent]));
        assert_eq!(
            put("true", SIGNATURES[0]).unwrap_err().0,
            Code::NotImplemented
        );
        for signature in SIGNATURES {
            assert_eq!(put("false", signature), Ok(Vec::new()));
            assert_eq!(put("yes", signature).unwrap_err().0, Code::InvalidArgument);
        }
    }

    #[test]
    fn doubtful_conditions_are_refused() {
        for (pairs, name) in [
            (&[("if-none-match", "")][..], "if-none-match"),
            (&[("if-match", "\"a\""), ("if-match", "\"b\"")], "if-match"),
            (&[("if-match", "é")], "if-match"),
        ] {
            let (code, text) = outcome(O::GetObject, pairs, SIGNATURES[0]).unwrap_err();
            assert_eq!(code, Code::InvalidArgument, "{pairs:?}");
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn names_are_complete() {
        for rule in RULES {
            for name in rule.names {
                let known = ALL.contains(name) || name.starts_with('<');
                assert!(known && !rule.operations.is_empty(), "{name}");
                assert_eq!(is_condition(name), !name.starts_with('<'));
            }
        }
        // A new operation needs a row, or is a write and has its conditions refused.
        let read = |operation: &&Operation| reads(**operation);
        let listed = Operation::ALL.iter().filter(read).filter(|operation| {
            let mut rules = RULES.iter();
            rules.any(|rule| rule.operations.contains(operation) && rule.names == PLAIN)
        });
        assert_eq!(listed.count(), Operation::ALL.iter().filter(read).count());
    }
}
