//! The headers that begin with `x-amz-`: one table, and what becomes of each by it.

use super::values::{check_copy_range, check_grantees};
use super::{Disposition, denied, invalid};
use crate::error::{Code, S3Error};
use crate::s3::Operation;
use crate::s3::checksum_name::Algorithm;

use Operation as O;
use Treatment as T;

/// What the table has of an `x-amz-` header.
#[derive(Clone, Copy)]
enum Treatment {
    Is(Disposition),
    /// Refused with 403, whatever the grant.
    Denied,
    /// Refused with 400: it belongs to another operation.
    Misplaced,
    /// Read if it names an algorithm that S3 knows.
    Algorithm,
    /// Sent on if it is one range that fits a part.
    CopyRange,
    /// Done so if its value names accounts as COS does.
    Grantees(Disposition),
    /// Sent on as `COPY` or `REPLACE`.
    Directive,
}

/// A row of the table: the first that fits says what happens.
pub(super) struct HeaderRow {
    operations: &'static [Operation],
    /// What follows `x-amz-`. One that ends in `-` stands for all that begin with it.
    pub(super) names: &'static [&'static str],
    /// The only values for which the row is; empty for any.
    pub(super) values: &'static [&'static str],
    treatment: Treatment,
}

const DROP: Treatment = T::Is(Disposition::Drop);

const READ_HERE: Treatment = T::Is(Disposition::Read);

const NEEDS_NAME: Treatment = T::Is(Disposition::NeedsName);

const PUT_ACL: Disposition = Disposition::NeedsAction("name/cos:PutObjectACL");

const PUT_TAGGING: Treatment = T::Is(Disposition::NeedsAction("name/cos:PutObjectTagging"));

const ANY: &[Operation] = Operation::ALL;

const ACLS: &[Operation] = &[O::PutBucketAcl, O::PutObjectAcl];

const COPIES: &[Operation] = &[O::CopyObject, O::UploadPartCopy];

/// Every `x-amz-` header that has a meaning here, but `x-amz-meta-` ([`metadata`]) and the conditions
/// (`conditions::RULES`). What is not here is [`Disposition::Unknown`]. A row drops a header only where
/// the client gets what it requested all the same; B1 holds for these too ([`must_be_signed`]).
pub(super) const AMZ: &[HeaderRow] = &[
    // "Common request headers" and "Signature calculations" of the S3 API reference.
    HeaderRow {
        operations: ANY,
        names: &[
            "content-sha256",
            "copy-source",
            "date",
            "decoded-content-length",
            "security-token",
            "trailer",
        ],
        values: &[],
        treatment: READ_HERE,
    },
    // `te` and `user-agent` are what browsers' SDKs send for the headers that they may not set; the sum's
    // own header says its algorithm too.
    HeaderRow {
        operations: ANY,
        names: &["sdk-checksum-algorithm", "te", "user-agent"],
        values: &[],
        treatment: DROP,
    },
    // The date of the API (`2006-03-01`). The AWS SDK for C++ sends it with every request (its
    // AmazonSerializableWebServiceRequest and generated S3 requests); S3's reference has no such header.
    HeaderRow {
        operations: ANY,
        names: &["api-version"],
        values: &[],
        treatment: DROP,
    },
    // "Common response headers" of the S3 API reference, which clients send back.
    HeaderRow {
        operations: ANY,
        names: &["id-2", "request-id"],
        values: &[],
        treatment: DROP,
    },
    // "Using Requester Pays buckets": COS has none, so nobody is charged otherwise.
    HeaderRow {
        operations: ANY,
        names: &["request-payer"],
        values: &[],
        treatment: DROP,
    },
    // S3 ListObjects, ListObjectsV2, ListObjectVersions: requests RestoreStatus, which is an optional
    // element of the response.
    HeaderRow {
        operations: &[O::ListObjects, O::ListObjectsV2, O::ListObjectVersions],
        names: &["optional-object-attributes"],
        values: &[],
        treatment: DROP,
    },
    // S3 GetObjectAttributes: `rewrite::attributes` reads it.
    HeaderRow {
        operations: &[O::GetObjectAttributes],
        names: &["object-attributes"],
        values: &[],
        treatment: READ_HERE,
    },
    // The same: no parts are known of an object here.
    HeaderRow {
        operations: &[O::GetObjectAttributes],
        names: &["max-parts", "part-number-marker"],
        values: &[],
        treatment: DROP,
    },
    // S3 "Verifying bucket ownership with bucket owner condition": compared by `check_owners`.
    HeaderRow {
        operations: ANY,
        names: &["expected-bucket-owner", "source-expected-bucket-owner"],
        values: &[],
        treatment: READ_HERE,
    },
    // S3 CreateMultipartUpload: what the parts will have. COS has none of these sums.
    HeaderRow {
        operations: ANY,
        names: &["checksum-algorithm"],
        values: &[],
        treatment: T::Algorithm,
    },
    // S3 "Checking object integrity": COS ignores them, `payload::checksum` verifies them here.
    HeaderRow {
        operations: ANY,
        names: &["checksum-"],
        values: &[],
        treatment: READ_HERE,
    },
    // S3 CompleteMultipartUpload: the size that the parts should have together. COS does not compare it,
    // and here no part is known any more.
    HeaderRow {
        operations: &[O::CompleteMultipartUpload],
        names: &["mp-object-size"],
        values: &[],
        treatment: DROP,
    },
    // S3 PutBucketAcl, PutObjectAcl; COS 436/7737, 436/7748. It is all that these do, and their own action
    // is needed.
    HeaderRow {
        operations: ACLS,
        names: &["acl"],
        values: &[],
        treatment: T::Is(Disposition::Forward),
    },
    HeaderRow {
        operations: ACLS,
        names: &["grant-"],
        values: &[],
        treatment: T::Grantees(Disposition::Forward),
    },
    // What COS does anyway (436/7749); tools send it without need.
    HeaderRow {
        operations: ANY,
        names: &["acl"],
        values: &["private", "bucket-owner-full-control"],
        treatment: DROP,
    },
    HeaderRow {
        operations: ANY,
        names: &["storage-class"],
        values: &["STANDARD"],
        treatment: DROP,
    },
    // S3 CreateBucket: the bucket is there already, and has neither.
    HeaderRow {
        operations: &[O::CreateBucket],
        names: &["bucket-object-lock-enabled"],
        values: &["false"],
        treatment: DROP,
    },
    HeaderRow {
        operations: &[O::CreateBucket],
        names: &["object-ownership"],
        values: &["BucketOwnerEnforced"],
        treatment: DROP,
    },
    // S3 PutObject, CopyObject, CreateMultipartUpload; COS 436/7749, 436/10881, 436/7746: rights of
    // their own.
    HeaderRow {
        operations: ANY,
        names: &["acl"],
        values: &[],
        treatment: T::Is(PUT_ACL),
    },
    HeaderRow {
        operations: ANY,
        names: &["grant-"],
        values: &[],
        treatment: T::Grantees(PUT_ACL),
    },
    // S3 has the directives on CopyObject alone. They say what becomes of the source's metadata and tags;
    // elsewhere the request has nothing but its own. Some clients send them when they create an upload.
    HeaderRow {
        operations: &[O::CopyObject],
        names: &["metadata-directive"],
        values: &[],
        treatment: T::Directive,
    },
    HeaderRow {
        operations: &[O::CopyObject],
        names: &["tagging-directive"],
        values: &[],
        treatment: PUT_TAGGING,
    },
    HeaderRow {
        operations: ANY,
        names: &["metadata-directive", "tagging-directive"],
        values: &[],
        treatment: DROP,
    },
    // S3 PutObject, CopyObject, CreateMultipartUpload; COS 436/7749.
    HeaderRow {
        operations: ANY,
        names: &["tagging"],
        values: &[],
        treatment: PUT_TAGGING,
    },
    HeaderRow {
        operations: ANY,
        names: &[
            "object-lock-",
            "server-side-encryption",
            "server-side-encryption-",
            "storage-class",
            "website-redirect-location",
        ],
        values: &[],
        treatment: NEEDS_NAME,
    },
    // S3 UploadPartCopy; COS 436/8287.
    HeaderRow {
        operations: &[O::UploadPartCopy],
        names: &["copy-source-range"],
        values: &[],
        treatment: T::CopyRange,
    },
    // S3 CopyObject, UploadPartCopy; COS 436/10881.
    HeaderRow {
        operations: COPIES,
        names: &["copy-source-server-side-encryption-"],
        values: &[],
        treatment: NEEDS_NAME,
    },
    HeaderRow {
        operations: ANY,
        names: &["copy-source-"],
        values: &[],
        treatment: T::Misplaced,
    },
    // S3 DeleteObject, DeleteObjects: COS has no protection that a request can lift, and still refuses to delete a locked
    // object. Tools send it with every delete.
    HeaderRow {
        operations: &[O::DeleteObject, O::DeleteObjects],
        names: &["bypass-governance-retention"],
        values: &[],
        treatment: DROP,
    },
    HeaderRow {
        operations: ANY,
        names: &["bypass-governance-retention", "mfa"],
        values: &[],
        treatment: T::Denied,
    },
];

/// What the table has of `x-amz-{rest}` on `operation`; `None` where it is unknown.
fn treatment(operation: Operation, rest: &str, value: &[u8]) -> Option<Treatment> {
    let is_named = |name: &&str| match name.strip_suffix('-') {
        Some(_) => rest.starts_with(*name),
        None => rest == *name,
    };
    let fits = |row: &&HeaderRow| {
        row.operations.contains(&operation)
            && row.names.iter().any(is_named)
            && (row.values.is_empty() || row.values.iter().any(|only| only.as_bytes() == value))
    };
    AMZ.iter().find(fits).map(|row| row.treatment)
}

/// `x-amz-` headers, by what follows that.
pub(super) fn amz(operation: Operation, rest: &str, value: &[u8]) -> Result<Disposition, S3Error> {
    match treatment(operation, rest, value) {
        None => Ok(Disposition::Unknown),
        Some(T::Is(disposition)) => Ok(disposition),
        Some(T::Algorithm) => match str::from_utf8(value).ok().and_then(Algorithm::named) {
            Some(_) => Ok(Disposition::Read),
            None => Err(S3Error::new(
                Code::InvalidRequest,
                format!(
                    "x-amz-checksum-algorithm names no known algorithm. Use one of {}.",
                    Algorithm::list()
                ),
            )),
        },
        Some(T::CopyRange) => {
            check_copy_range(value)?;
            Ok(Disposition::Forward)
        }
        Some(T::Grantees(disposition)) => {
            check_grantees(rest, value)?;
            Ok(disposition)
        }
        Some(T::Directive) => match value {
            b"COPY" | b"REPLACE" => Ok(Disposition::Forward),
            _ => Err(invalid("x-amz-metadata-directive must be COPY or REPLACE.")),
        },
        Some(T::Misplaced) => Err(invalid(format!(
            "The header x-amz-{rest} does not belong to {}.",
            operation.name()
        ))),
        Some(T::Denied) => Err(denied(format!(
            "cosgate does not accept the header x-amz-{rest}. Remove it."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::headers::must_be_signed;
    use crate::s3::headers::tests::{pass, pass_granted};

    #[test]
    fn rights_beyond_the_operation_need_a_grant() {
        let acl = [("x-amz-acl", "public-read")];
        let grant = [("x-amz-grant-read", "id=\"1\"")];
        for headers in [acl, grant] {
            assert_eq!(
                pass(Operation::PutObject, &headers),
                Err(Code::AccessDenied)
            );
            assert!(
                pass_granted(
                    Operation::PutObject,
                    &headers,
                    &["name/cos:PutObjectACL"],
                    &[]
                )
                .is_ok()
            );
        }
        let tags = [("x-amz-tagging", "a=b")];
        assert_eq!(pass(Operation::PutObject, &tags), Err(Code::AccessDenied));
        assert!(
            pass_granted(
                Operation::PutObject,
                &tags,
                &["name/cos:PutObjectTagging"],
                &[]
            )
            .is_ok()
        );
        for name in [
            "x-amz-storage-class",
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-website-redirect-location",
            "x-amz-object-lock-mode",
            "x-amz-object-lock-legal-hold",
        ] {
            assert_eq!(
                pass(Operation::PutObject, &[(name, "x")]),
                Err(Code::AccessDenied),
                "{name}"
            );
            assert_eq!(
                pass_granted(Operation::PutObject, &[(name, "x")], &[], &[name]).unwrap(),
                [name]
            );
        }
    }

    #[test]
    fn headers_of_a_copy_pass_on_copies_only() {
        let range = [("x-amz-copy-source-range", "bytes=0-1")];
        assert_eq!(
            pass(Operation::CopyObject, &range),
            Err(Code::InvalidArgument)
        );
        assert!(
            pass(
                Operation::CopyObject,
                &[("x-amz-metadata-directive", "REPLACE")]
            )
            .is_ok()
        );
        assert_eq!(
            pass(Operation::CopyObject, &[("x-amz-metadata-directive", "x")]),
            Err(Code::InvalidArgument)
        );
        for operation in [
            Operation::CreateMultipartUpload,
            Operation::PutObject,
            Operation::UploadPartCopy,
        ] {
            let directives = [
                ("x-amz-metadata-directive", "REPLACE"),
                ("x-amz-tagging-directive", "COPY"),
            ];
            assert_eq!(pass(operation, &directives), Ok(Vec::new()));
        }
    }

    #[test]
    fn drops_what_changes_nothing_that_is_stored_or_returned() {
        for operation in Operation::ALL {
            for name in [
                "x-amz-api-version",
                "x-amz-expected-bucket-owner",
                "x-amz-id-2",
                "x-amz-request-id",
                "x-amz-request-payer",
                "x-amz-sdk-checksum-algorithm",
                "x-amz-source-expected-bucket-owner",
                "x-amz-user-agent",
            ] {
                assert_eq!(pass(*operation, &[(name, "x")]), Ok(Vec::new()), "{name}");
                assert!(must_be_signed(name), "{name}");
            }
        }
        let attributes = [("x-amz-optional-object-attributes", "RestoreStatus")];
        assert_eq!(pass(Operation::ListObjectsV2, &attributes), Ok(Vec::new()));
        assert_eq!(
            pass(Operation::PutObject, &attributes),
            Err(Code::InvalidArgument)
        );
    }
}
