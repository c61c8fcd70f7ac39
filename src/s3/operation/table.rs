//! The table: one row for each operation.

use super::{BodyKind, Configuration, Local, Performer, Resource, SuccessKind, Target, XmlRequest};
use crate::error::Code;

/// Writes the enum, its list and its table from one row for each operation.
macro_rules! operations {
    ($($name:ident: $row:expr,)*) => {
        /// An S3 operation. Anything that is not one of these is refused before it is authenticated.
        #[allow(missing_docs, reason = "the names are the S3 API reference's own")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($name,)*
        }

        /// The row of each, at the index that it is as a number.
        pub(super) static ROWS: &[OperationRow] = &[$($row,)*];

        impl Operation {
            /// Every operation, by name; each at the index that it is as a number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name, as in the S3 API reference: in logs, metrics and errors.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            pub(super) fn row(self) -> &'static OperationRow {
                #[expect(clippy::indexing_slicing, reason = "there is a row for each, in the same order")]
                &ROWS[self as usize]
            }
        }
    };
}

/// All that is known of an operation.
#[derive(Debug)]
pub(super) struct OperationRow {
    /// What its address names.
    pub(super) scope: Resource,
    /// The method, the client's and COS's.
    pub(super) method: &'static str,
    /// The parameters that choose it, sorted; there are no others of any operation's in the query.
    pub(super) selectors: &'static [&'static str],
    /// Whether `x-amz-copy-source` chooses it.
    pub(super) is_copy: bool,
    /// The COS action that the caller needs (COS API authorization policy guide, 436/31923); empty where
    /// COS has none.
    pub(super) action: &'static str,
    /// The action that a copy needs on its source.
    pub(super) copy_source_action: Option<&'static str>,
    /// What the grant must cover.
    pub(super) target: Target,
    /// The parameters that COS is sent, in this order: the sub-resource first.
    pub(super) parameters: &'static [&'static str],
    /// The parameters that cosgate serves by itself.
    pub(super) own_parameters: &'static [&'static str],
    /// What the client sends.
    pub(super) body: BodyKind,
    /// Who performs it.
    pub(super) performer: Performer,
    /// What COS responds with on a success.
    pub(super) response: SuccessKind,
    /// Whether COS and S3 document that it may fail after its `200`.
    pub(super) may_fail_after_success: bool,
    /// Whether doing it twice is as good as once.
    pub(super) is_idempotent: bool,
}

/// What most rows say.
const ROW: OperationRow = OperationRow {
    scope: Resource::Object,
    method: "",
    selectors: &[],
    is_copy: false,
    action: "",
    copy_source_action: None,
    target: Target::Key,
    parameters: &[],
    own_parameters: &[],
    body: BodyKind::None,
    performer: Performer::Cos,
    response: SuccessKind::Cosgate,
    may_fail_after_success: false,
    is_idempotent: true,
};

const READ: &str = "name/cos:GetObject";

const OBJECT_PARAMETERS: &[&str] = &[
    "versionId",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
];

/// COS reads no object by part number: each is one part.
pub(super) const BY_PART: &[&str] = &["partNumber"];

/// A question about a bucket. Tools send these first, and most buckets have no such configuration.
const fn of_bucket(
    selectors: &'static [&'static str],
    action: &'static str,
    local: Local,
) -> OperationRow {
    OperationRow {
        scope: Resource::Bucket,
        method: "GET",
        selectors,
        action,
        target: Target::Bucket,
        performer: Performer::Cosgate(local),
        ..ROW
    }
}

/// The same about an object.
const fn of_object(
    selectors: &'static [&'static str],
    action: &'static str,
    local: Local,
) -> OperationRow {
    OperationRow {
        scope: Resource::Object,
        own_parameters: &["versionId"],
        target: Target::OwnKey,
        ..of_bucket(selectors, action, local)
    }
}

/// A question about a bucket that COS gets where the grant has its action.
const fn configured(
    selectors: &'static [&'static str],
    action: &'static str,
    local: Local,
    kind: Configuration,
) -> OperationRow {
    OperationRow {
        parameters: selectors,
        performer: Performer::CosIfGranted(local),
        response: SuccessKind::Configuration(kind),
        ..of_bucket(selectors, action, local)
    }
}

/// The same about an object. COS is sent `parameters`.
const fn of_object_if_granted(
    selectors: &'static [&'static str],
    parameters: &'static [&'static str],
    action: &'static str,
    local: Local,
    kind: Configuration,
) -> OperationRow {
    OperationRow {
        parameters,
        performer: Performer::CosIfGranted(local),
        response: SuccessKind::Configuration(kind),
        ..of_object(selectors, action, local)
    }
}

/// Configures a bucket.
const fn configure(
    selectors: &'static [&'static str],
    action: &'static str,
    kind: Configuration,
) -> OperationRow {
    OperationRow {
        method: "PUT",
        body: BodyKind::Document(XmlRequest::Configuration(kind)),
        ..unconfigure(selectors, action)
    }
}

/// Removes what is configured.
const fn unconfigure(selectors: &'static [&'static str], action: &'static str) -> OperationRow {
    OperationRow {
        scope: Resource::Bucket,
        method: "DELETE",
        selectors,
        action,
        target: Target::WholeBucket,
        parameters: selectors,
        response: SuccessKind::Empty,
        ..ROW
    }
}

operations! {
    // COS 436/7740.
    AbortMultipartUpload: OperationRow {
        scope: Resource::Object,
        method: "DELETE",
        selectors: &["uploadId"],
        action: "name/cos:AbortMultipartUpload",
        parameters: &["uploadId"],
        response: SuccessKind::Empty,
        ..ROW
    },
    // COS 436/7742. The second of two completions returns `NoSuchUpload`.
    CompleteMultipartUpload: OperationRow {
        scope: Resource::Object,
        method: "POST",
        selectors: &["uploadId"],
        action: "name/cos:CompleteMultipartUpload",
        parameters: &["uploadId"],
        body: BodyKind::Document(XmlRequest::CompleteMultipartUpload),
        response: SuccessKind::Document("CompleteMultipartUploadResult"),
        may_fail_after_success: true,
        is_idempotent: false,
        ..ROW
    },
    // COS 436/10881.
    CopyObject: OperationRow {
        scope: Resource::Object,
        method: "PUT",
        action: "name/cos:PutObject",
        is_copy: true,
        copy_source_action: Some(READ),
        response: SuccessKind::Document("CopyObjectResult"),
        may_fail_after_success: true,
        ..ROW
    },
    CreateBucket: OperationRow {
        scope: Resource::Bucket,
        method: "PUT",
        action: "name/cos:PutBucket",
        target: Target::Bucket,
        body: BodyKind::Ignored,
        performer: Performer::Cosgate(Local::CreatedBefore),
        ..ROW
    },
    // COS 436/7746. Done twice, it leaves an upload that nobody completes.
    CreateMultipartUpload: OperationRow {
        scope: Resource::Object,
        method: "POST",
        selectors: &["uploads"],
        action: "name/cos:InitiateMultipartUpload",
        parameters: &["uploads"],
        response: SuccessKind::Document("InitiateMultipartUploadResult"),
        is_idempotent: false,
        ..ROW
    },
    // COS 436/8283.
    DeleteBucketCors: unconfigure(&["cors"], "name/cos:DeleteBucketCORS"),
    // COS 436/40138.
    DeleteBucketEncryption: unconfigure(&["encryption"], "name/cos:DeleteBucketEncryption"),
    // COS 436/8284.
    DeleteBucketLifecycle: unconfigure(&["lifecycle"], "name/cos:DeleteBucketLifecycle"),
    // COS 436/19221.
    DeleteBucketReplication: unconfigure(&["replication"], "name/cos:DeleteBucketReplication"),
    // COS 436/34836.
    DeleteBucketTagging: unconfigure(&["tagging"], "name/cos:DeleteBucketTagging"),
    // COS 436/31928.
    DeleteBucketWebsite: unconfigure(&["website"], "name/cos:DeleteBucketWebsite"),
    // COS 436/7743.
    DeleteObject: OperationRow {
        scope: Resource::Object,
        method: "DELETE",
        action: "name/cos:DeleteObject",
        parameters: &["versionId"],
        response: SuccessKind::Empty,
        ..ROW
    },
    // COS 436/42998.
    DeleteObjectTagging: OperationRow {
        scope: Resource::Object,
        method: "DELETE",
        selectors: &["tagging"],
        action: "name/cos:DeleteObjectTagging",
        parameters: &["tagging", "versionId"],
        response: SuccessKind::Empty,
        ..ROW
    },
    // COS 436/8289.
    DeleteObjects: OperationRow {
        scope: Resource::Bucket,
        method: "POST",
        selectors: &["delete"],
        action: "name/cos:DeleteObject",
        target: Target::KeysInBody,
        parameters: &["delete"],
        body: BodyKind::Document(XmlRequest::Delete),
        response: SuccessKind::Document("DeleteResult"),
        ..ROW
    },
    // COS 436/33412.
    GetBucketAccelerateConfiguration: configured(&["accelerate"], "name/cos:GetBucketAccelerate", Local::Unset("AccelerateConfiguration", None), Configuration::Accelerate),
    // COS 436/7733.
    GetBucketAcl: configured(&["acl"], "name/cos:GetBucketACL", Local::OwnersAcl, Configuration::Acl),
    // COS 436/8274.
    GetBucketCors: configured(&["cors"], "name/cos:GetBucketCORS", Local::Absent(Code::NoSuchCORSConfiguration), Configuration::Cors),
    // COS 436/40137.
    GetBucketEncryption: configured(&["encryption"], "name/cos:GetBucketEncryption", Local::Absent(Code::ServerSideEncryptionConfigurationNotFoundError), Configuration::Encryption),
    // COS 436/8278.
    GetBucketLifecycleConfiguration: configured(&["lifecycle"], "name/cos:GetBucketLifecycle", Local::Absent(Code::NoSuchLifecycleConfiguration), Configuration::Lifecycle),
    GetBucketLocation: OperationRow {
        scope: Resource::Bucket,
        method: "GET",
        selectors: &["location"],
        action: "name/cos:GetBucketLocation",
        target: Target::Bucket,
        parameters: &["location"],
        performer: Performer::Cosgate(Local::Location),
        ..ROW
    },
    // COS 436/17053.
    GetBucketLogging: configured(&["logging"], "name/cos:GetBucketLogging", Local::Unset("BucketLoggingStatus", None), Configuration::Logging),
    // COS has no such call: its triggers belong to its cloud functions.
    GetBucketNotificationConfiguration: of_bucket(&["notification"], "name/cos:GetBucketNotification", Local::Unset("NotificationConfiguration", None)),
    GetBucketOwnershipControls: of_bucket(&["ownershipControls"], "", Local::Absent(Code::OwnershipControlsNotFoundError)),
    // COS's (436/8276) is in the language of CAM and names Tencent's accounts: S3's client could not read it.
    GetBucketPolicy: of_bucket(&["policy"], "name/cos:GetBucketPolicy", Local::Absent(Code::NoSuchBucketPolicy)),
    GetBucketPolicyStatus: of_bucket(&["policyStatus"], "", Local::Absent(Code::NoSuchBucketPolicy)),
    // COS 436/19222.
    GetBucketReplication: configured(&["replication"], "name/cos:GetBucketReplication", Local::Absent(Code::ReplicationConfigurationNotFoundError), Configuration::Replication),
    GetBucketRequestPayment: of_bucket(&["requestPayment"], "", Local::Unset("RequestPaymentConfiguration", Some(("Payer", "BucketOwner")))),
    // COS 436/34837.
    GetBucketTagging: configured(&["tagging"], "name/cos:GetBucketTagging", Local::Absent(Code::NoSuchTagSet), Configuration::Tagging),
    // COS 436/19888.
    GetBucketVersioning: configured(&["versioning"], "name/cos:GetBucketVersioning", Local::Unset("VersioningConfiguration", None), Configuration::Versioning),
    // COS 436/31929.
    GetBucketWebsite: configured(&["website"], "name/cos:GetBucketWebsite", Local::Absent(Code::NoSuchWebsiteConfiguration), Configuration::Website),
    // COS 436/7753.
    GetObject: OperationRow {
        scope: Resource::Object,
        method: "GET",
        action: "name/cos:GetObject",
        parameters: OBJECT_PARAMETERS,
        own_parameters: BY_PART,
        response: SuccessKind::Object,
        ..ROW
    },
    // COS 436/7744.
    GetObjectAcl: of_object_if_granted(&["acl"], &["acl", "versionId"], "name/cos:GetObjectACL", Local::OwnersAcl, Configuration::Acl),
    // COS has no such operation: the response is made of a HEAD (436/7745).
    GetObjectAttributes: OperationRow {
        scope: Resource::Object,
        method: "GET",
        selectors: &["attributes"],
        action: "name/cos:HeadObject",
        parameters: &["versionId"],
        performer: Performer::CosByHead,
        response: SuccessKind::Headers,
        ..ROW
    },
    GetObjectLegalHold: of_object(&["legal-hold"], "", Local::Absent(Code::NoSuchObjectLockConfiguration)),
    // COS 436/40134.
    GetObjectLockConfiguration: configured(&["object-lock"], "name/cos:GetBucketObjectLockConfiguration", Local::Absent(Code::ObjectLockConfigurationNotFoundError), Configuration::ObjectLock),
    // COS 436/58039.
    GetObjectRetention: of_object_if_granted(&["retention"], &["retention", "versionId"], "name/cos:GetObjectRetention", Local::Absent(Code::NoSuchObjectLockConfiguration), Configuration::Retention),
    // COS 436/42998.
    GetObjectTagging: OperationRow {
        scope: Resource::Object,
        method: "GET",
        selectors: &["tagging"],
        action: "name/cos:GetObjectTagging",
        parameters: &["tagging", "versionId"],
        response: SuccessKind::Document("Tagging"),
        ..ROW
    },
    GetPublicAccessBlock: of_bucket(&["publicAccessBlock"], "", Local::Absent(Code::NoSuchPublicAccessBlockConfiguration)),
    HeadBucket: OperationRow {
        scope: Resource::Bucket,
        method: "HEAD",
        action: "name/cos:HeadBucket",
        target: Target::Bucket,
        performer: Performer::Cosgate(Local::Region),
        ..ROW
    },
    // COS 436/7745.
    HeadObject: OperationRow {
        scope: Resource::Object,
        method: "HEAD",
        action: "name/cos:HeadObject",
        parameters: OBJECT_PARAMETERS,
        own_parameters: BY_PART,
        response: SuccessKind::Object,
        ..ROW
    },
    ListBuckets: OperationRow {
        scope: Resource::Service,
        method: "GET",
        action: "name/cos:GetService",
        target: Target::Service,
        own_parameters: &["bucket-region", "continuation-token", "max-buckets", "prefix"],
        performer: Performer::Cosgate(Local::Buckets),
        ..ROW
    },
    // COS 436/7736.
    ListMultipartUploads: OperationRow {
        scope: Resource::Bucket,
        method: "GET",
        selectors: &["uploads"],
        action: "name/cos:ListMultipartUploads",
        target: Target::Listing,
        parameters: &["uploads", "prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"],
        response: SuccessKind::Document("ListMultipartUploadsResult"),
        ..ROW
    },
    // COS 436/35521.
    ListObjectVersions: OperationRow {
        scope: Resource::Bucket,
        method: "GET",
        selectors: &["versions"],
        action: "name/cos:GetBucketObjectVersions",
        target: Target::Listing,
        parameters: &["versions", "prefix", "delimiter", "key-marker", "version-id-marker", "max-keys", "encoding-type"],
        response: SuccessKind::Document("ListVersionsResult"),
        ..ROW
    },
    // COS 436/7734.
    ListObjects: OperationRow {
        scope: Resource::Bucket,
        method: "GET",
        action: "name/cos:GetBucket",
        target: Target::Listing,
        parameters: &["prefix", "delimiter", "marker", "max-keys", "encoding-type"],
        response: SuccessKind::Document("ListBucketResult"),
        ..ROW
    },
    ListObjectsV2: OperationRow {
        scope: Resource::Bucket,
        method: "GET",
        selectors: &["list-type"],
        action: "name/cos:GetBucket",
        target: Target::Listing,
        parameters: &["list-type", "prefix", "delimiter", "continuation-token", "start-after", "max-keys", "encoding-type", "fetch-owner"],
        response: SuccessKind::Document("ListBucketResult"),
        ..ROW
    },
    // COS 436/7747.
    ListParts: OperationRow {
        scope: Resource::Object,
        method: "GET",
        selectors: &["uploadId"],
        action: "name/cos:ListParts",
        parameters: &["uploadId", "part-number-marker", "max-parts", "encoding-type"],
        response: SuccessKind::Document("ListPartsResult"),
        ..ROW
    },
    // S3 "POST Object": judged and sent as the `PutObject` that it stands for.
    PostObject: OperationRow {
        scope: Resource::Bucket,
        method: "POST",
        action: "name/cos:PostObject",
        target: Target::Form,
        body: BodyKind::Form,
        performer: Performer::AsPutObject,
        ..ROW
    },
    // COS 436/33411.
    PutBucketAccelerateConfiguration: configure(&["accelerate"], "name/cos:PutBucketAccelerate", Configuration::Accelerate),
    // COS 436/7737.
    PutBucketAcl: configure(&["acl"], "name/cos:PutBucketACL", Configuration::Acl),
    // COS 436/8279.
    PutBucketCors: configure(&["cors"], "name/cos:PutBucketCORS", Configuration::Cors),
    // COS 436/40136.
    PutBucketEncryption: configure(&["encryption"], "name/cos:PutBucketEncryption", Configuration::Encryption),
    // COS 436/8280.
    PutBucketLifecycleConfiguration: configure(&["lifecycle"], "name/cos:PutBucketLifecycle", Configuration::Lifecycle),
    // COS 436/17054.
    PutBucketLogging: configure(&["logging"], "name/cos:PutBucketLogging", Configuration::Logging),
    // COS 436/34838.
    PutBucketTagging: configure(&["tagging"], "name/cos:PutBucketTagging", Configuration::Tagging),
    // COS 436/19889.
    PutBucketVersioning: configure(&["versioning"], "name/cos:PutBucketVersioning", Configuration::Versioning),
    // COS 436/31930.
    PutBucketWebsite: configure(&["website"], "name/cos:PutBucketWebsite", Configuration::Website),
    // COS 436/7749.
    PutObject: OperationRow {
        scope: Resource::Object,
        method: "PUT",
        action: "name/cos:PutObject",
        body: BodyKind::Object,
        response: SuccessKind::Empty,
        ..ROW
    },
    // COS 436/7748.
    PutObjectAcl: OperationRow {
        scope: Resource::Object,
        target: Target::RealKey,
        parameters: &["acl", "versionId"],
        ..configure(&["acl"], "name/cos:PutObjectACL", Configuration::Acl)
    },
    // COS 436/40133.
    PutObjectLockConfiguration: configure(&["object-lock"], "name/cos:PutBucketObjectLockConfiguration", Configuration::ObjectLock),
    // COS 436/58039 and the page before it.
    PutObjectRetention: OperationRow {
        scope: Resource::Object,
        target: Target::RealKey,
        parameters: &["retention", "versionId"],
        ..configure(&["retention"], "name/cos:PutObjectRetention", Configuration::Retention)
    },
    // COS 436/42999.
    PutObjectTagging: OperationRow {
        scope: Resource::Object,
        method: "PUT",
        selectors: &["tagging"],
        action: "name/cos:PutObjectTagging",
        parameters: &["tagging", "versionId"],
        body: BodyKind::Document(XmlRequest::Tagging),
        response: SuccessKind::Empty,
        ..ROW
    },
    // COS 436/12633. The second of two may return `RestoreAlreadyInProgress`.
    RestoreObject: OperationRow {
        scope: Resource::Object,
        method: "POST",
        target: Target::RealKey,
        parameters: &["restore", "versionId"],
        is_idempotent: false,
        ..configure(&["restore"], "name/cos:PostObjectRestore", Configuration::Restore)
    },
    // COS 436/7750.
    UploadPart: OperationRow {
        scope: Resource::Object,
        method: "PUT",
        selectors: &["partNumber", "uploadId"],
        action: "name/cos:UploadPart",
        parameters: &["partNumber", "uploadId"],
        body: BodyKind::Object,
        response: SuccessKind::Empty,
        ..ROW
    },
    // COS 436/8287.
    UploadPartCopy: OperationRow {
        scope: Resource::Object,
        method: "PUT",
        selectors: &["partNumber", "uploadId"],
        action: "name/cos:PutObject",
        is_copy: true,
        copy_source_action: Some(READ),
        parameters: &["partNumber", "uploadId"],
        response: SuccessKind::Document("CopyPartResult"),
        may_fail_after_success: true,
        ..ROW
    },
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::s3::operation::tests::resolve;

    /// Every row of the table of COS's actions: served with the row's action, or refused.
    #[test]
    fn every_known_operation_is_served_under_its_own_action_or_refused() {
        let table: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/cos-actions.json")).unwrap();
        let mut served = Vec::new();
        for row in table["rows"].as_array().unwrap() {
            let name = row["s3_operation"].as_str().unwrap();
            let scope = match row["scope"].as_str().unwrap() {
                "bucket" => Resource::Bucket,
                "object" => Resource::Object,
                _ => Resource::Service,
            };
            let keys = row["query_keys"].as_array().unwrap().iter();
            let keys = keys
                .map(|key| key.as_str().unwrap())
                .collect::<Vec<_>>()
                .join("&");
            let copies = row["headers"]
                .as_array()
                .unwrap()
                .iter()
                .any(|h| h.as_str().unwrap().contains("copy-source"));
            let resolved = resolve(row["method"].as_str().unwrap(), scope, &keys, copies);

            let Some(operation) = Operation::ALL
                .iter()
                .find(|operation| operation.name() == name)
            else {
                let code = resolved.expect_err(name);
                let fits = match row["cos_action"] {
                    Value::Null => code == Code::NotImplemented,
                    _ => matches!(
                        code,
                        Code::AccessDenied | Code::MethodNotAllowed | Code::NotImplemented
                    ),
                };
                assert!(fits, "{name}: {code:?}");
                continue;
            };
            assert_eq!(resolved, Ok(*operation), "{name}");
            let by_head = operation.performer() == Performer::CosByHead;
            let action = Some(operation.action()).filter(|action| !action.is_empty() && !by_head);
            assert_eq!(action, row["cos_action"].as_str(), "{name}");
            assert_eq!(
                operation.copy_source_action(),
                row["copy_source_action"].as_str(),
                "{name}"
            );
            served.push(operation.name());
        }
        served.sort_unstable();
        assert_eq!(
            served,
            Operation::ALL
                .iter()
                .map(|operation| operation.name())
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_configuration_knows_which_actions_are_about_whole_buckets() {
        let is_whole = |operation: &&Operation| match operation.performer() {
            Performer::CosIfGranted(_) => operation.resource() == Resource::Bucket,
            _ => operation.target() == Target::WholeBucket,
        };
        let actions = Operation::ALL.iter().filter(is_whole);
        let mut actions: Vec<_> = actions
            .map(|operation| operation.action().strip_prefix("name/cos:").unwrap())
            .collect();
        actions.sort_unstable();
        assert_eq!(actions, crate::config::actions::OF_WHOLE_BUCKETS);
    }

    #[test]
    fn each_operation_is_chosen_by_its_own_row() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index);
            let row = operation.row();
            let query: Vec<String> = row
                .selectors
                .iter()
                .map(|name| match *name {
                    "list-type" => "list-type=2".to_owned(),
                    name => format!("{name}=1"),
                })
                .collect();
            let resolved = resolve(row.method, row.scope, &query.join("&"), row.is_copy);
            assert_eq!(resolved, Ok(*operation), "{row:?}");
            assert!(row.selectors.is_sorted());
        }
    }
}
