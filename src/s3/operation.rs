//! Every operation that cosgate serves: one table with a row each, and the choice of a row for a request.

use std::collections::BTreeSet;

use http::Method;

use super::query::{DROPPED, PRESIGN, Query, plain_name, shown};
use crate::error::{Code, S3Error};

/// What a request's address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A bucket.
    Bucket,
    /// An object.
    Object,
    /// All of a tenant's buckets.
    Service,
}

/// What a grant must cover for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: the operation concerns all of the tenant's buckets.
    Service,
    /// The bucket.
    Bucket,
    /// All that is in the bucket: what is configured holds for every key of it.
    WholeBucket,
    /// The listed prefix.
    Listing,
    /// The key.
    Key,
    /// The key, in a bucket that is not virtual.
    RealKey,
    /// The key, whatever the actions: cosgate serves by itself, from the grant.
    OwnKey,
    /// Each key that the body names.
    KeysInBody,
    /// The key that the form names.
    Form,
}

/// What a client sends with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// Nothing.
    None,
    /// An object's bytes, streamed.
    Object,
    /// XML: read whole, and written anew for COS.
    Document(XmlRequest),
    /// A form with a file.
    Form,
    /// Something that cosgate does not read.
    Ignored,
}

/// An XML document that a client sends.
#[allow(missing_docs, reason = "the names are the operations' own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmlRequest {
    CompleteMultipartUpload,
    Configuration(Configuration),
    Delete,
    Tagging,
}

impl XmlRequest {
    /// Its maximum in bytes, whatever the operator allows.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Configuration(kind) => kind.max_bytes(),
            Self::CompleteMultipartUpload | Self::Delete | Self::Tagging => usize::MAX,
        }
    }
}

/// What is configured of a bucket, or requested of an object, in a document that S3 and COS have in nearly
/// the same words.
#[allow(missing_docs, reason = "the names are those of the operations")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    Accelerate,
    Acl,
    Cors,
    Encryption,
    Lifecycle,
    Logging,
    ObjectLock,
    Replication,
    Restore,
    Retention,
    Tagging,
    Versioning,
    Website,
}

/// Who performs an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Performer {
    /// COS, by the same method.
    Cos,
    /// COS, by a HEAD whose headers cosgate makes the document of.
    CosByHead,
    /// COS, if the grant has the action and may know the whole response; else cosgate itself.
    CosIfGranted(Local),
    /// COS, as the `PutObject` that a form stands for.
    AsPutObject,
    /// cosgate itself: a key that is scoped to prefixes cannot request it of COS.
    Cosgate(Local),
}

/// What cosgate responds to an operation that it performs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The tenant's buckets.
    Buckets,
    /// The bucket exists already.
    CreatedBefore,
    /// The region of the bucket, in a header.
    Region,
    /// The region of the bucket, in a document.
    Location,
    /// The tenant has all rights, and nobody else has any.
    OwnersAcl,
    /// The error that S3 has for a bucket or object without such a configuration.
    Absent(Code),
    /// The document that S3 has for a bucket without such a configuration: its root, and an element in it.
    Unset(&'static str, Option<(&'static str, &'static str)>),
}

/// The body of COS's success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuccessKind {
    /// None.
    Empty,
    /// An object's bytes, or the headers alone.
    Object,
    /// The headers alone, which cosgate makes a document of.
    Headers,
    /// What is configured, which is put into the client's words.
    Configuration(Configuration),
    /// A document with this root.
    Document(&'static str),
    /// COS gets no request.
    Cosgate,
}

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
        static ROWS: &[OperationRow] = &[$($row,)*];

        impl Operation {
            /// Every operation, by name; each at the index that it is as a number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name, as in the S3 API reference: in logs, metrics and errors.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            fn row(self) -> &'static OperationRow {
                #[expect(clippy::indexing_slicing, reason = "there is a row for each, in the same order")]
                &ROWS[self as usize]
            }
        }
    };
}

/// All that is known of an operation.
#[derive(Debug)]
struct OperationRow {
    /// What its address names.
    scope: Resource,
    /// The method, the client's and COS's.
    method: &'static str,
    /// The parameters that choose it, sorted; there are no others of any operation's in the query.
    selectors: &'static [&'static str],
    /// Whether `x-amz-copy-source` chooses it.
    is_copy: bool,
    /// The COS action that the caller needs (COS API authorization policy guide, 436/31923); empty where
    /// COS has none.
    action: &'static str,
    /// The action that a copy needs on its source.
    copy_source_action: Option<&'static str>,
    /// What the grant must cover.
    target: Target,
    /// The parameters that COS is sent, in this order: the sub-resource first.
    parameters: &'static [&'static str],
    /// The parameters that cosgate serves by itself.
    own_parameters: &'static [&'static str],
    /// What the client sends.
    body: BodyKind,
    /// Who performs it.
    performer: Performer,
    /// What COS responds with on a success.
    response: SuccessKind,
    /// Whether COS and S3 document that it may fail after its `200`.
    may_fail_after_success: bool,
    /// Whether doing it twice is as good as once.
    is_idempotent: bool,
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
const BY_PART: &[&str] = &["partNumber"];

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

/// Why a name that is no parameter of the operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserved {
    /// It is COS's alone: nobody who speaks S3 requests it by mistake. 403.
    OfCos,
    /// S3 and COS have it, and cosgate does not serve it. Tools probe some of these (s3cmd reads `?acl`
    /// before a copy), and go on only after a 501.
    Unserved,
    /// S3 has it, and COS has no counterpart. 501.
    WithoutCounterpart,
    /// A parameter that changes the request, on an operation that does not take it. 400.
    Misplaced,
}

/// Names that mean something to S3 or COS, beside the parameters of the operations that are served
/// ([`Operation::parameters`]). All others S3 ignores, and so does cosgate: COS is never sent one.
const RESERVED: &[(Reserved, &[&str])] = &[
    // The query keys of COS's own operations: its list of actions 598/69901, its SDKs for Node.js 3.0.0 and
    // Python 1.9.44 (`tests/vectors/cos-actions.json`); CI's `ci-process`.
    (
        Reserved::OfCos,
        &[
            "append",
            "ci-process",
            "domain",
            "domaincertificate",
            "intelligenttiering",
            "origin",
            "position",
            "referer",
            "rename",
            "symlink",
        ],
    ),
    // S3 API reference, operations of buckets and objects, with a row of COS's in the same vectors.
    (
        Reserved::Unserved,
        &[
            "id",
            "intelligent-tiering",
            "inventory",
            "select",
            "select-type",
        ],
    ),
    // S3 API reference: GetBucketAbac, CreateSession, RenameObject and others; COS has
    // none of them.
    (
        Reserved::WithoutCounterpart,
        &[
            "abac",
            "analytics",
            "metadataAnnotationTable",
            "metadataConfiguration",
            "metadataInventoryTable",
            "metadataJournalTable",
            "metadataTable",
            "metrics",
            "renameObject",
            "session",
            "torrent",
        ],
    ),
    // S3 ListDirectoryBuckets.
    (Reserved::Misplaced, &["max-directory-buckets"]),
    // COS's signature in one parameter (its SDK for Go, `SignMerged`): a proof that nobody would look at.
    (Reserved::Misplaced, &["sign"]),
    // CI (data processing on download, persistent processing 436/55365): the client requests another
    // content than the object's. The names go on with `/` or `|`.
    (
        Reserved::Misplaced,
        &[
            "exif",
            "guetzli",
            "imageAve",
            "imageInfo",
            "imageMogr2",
            "imageSlim",
            "imageView2",
            "photo-ratio",
            "saveas",
            "style",
            "watermark",
        ],
    ),
];

/// What names begin with that are headers in a query, or belong to a signature, to a response's headers or
/// to CI: the SDK for JavaScript writes headers of an upload so. Those that change nothing are dropped.
const RESERVED_FAMILIES: &[&str] = &[
    "ci-",
    "image-",
    "imagemogr",
    "imageview",
    "pic-",
    "q-",
    "response-",
    "watermark-",
    "x-amz-",
    "x-ci-",
    "x-cos-",
    "x-image-",
];

impl Operation {
    /// Finds the operation by method, address and the exact set of keys in the query; `copies` is
    /// whether there is an `x-amz-copy-source`. Default deny: there is no operation to fall back to.
    pub fn resolve(
        method: &Method,
        scope: Resource,
        query: &Query<'_>,
        copies: bool,
    ) -> Result<Self, S3Error> {
        check_method(method)?;
        check_served(query)?;
        let mut selectors: Vec<&str> = query.asking().filter(|name| is_selector(name)).collect();
        selectors.sort_unstable();
        let operation = select(method, scope, &selectors, copies)?;
        if copies && operation.copy_source_action().is_none() {
            return Err(S3Error::new(
                Code::InvalidArgument,
                format!("x-amz-copy-source does not belong to {}.", operation.name()),
            ));
        }
        for name in query.asking() {
            if !operation.takes(name) {
                check_ignored(method, operation, name, query.get(name))?;
            }
        }
        Ok(operation)
    }

    /// Whether the parameter `name` means something to it.
    fn takes(self, name: &str) -> bool {
        let row = self.row();
        let mut taken = [row.selectors, row.parameters, row.own_parameters]
            .into_iter()
            .flatten();
        taken.any(|taken| *taken == name)
    }

    /// The COS action that the caller needs on what [`Operation::target`] says
    /// (COS API authorization policy guide, 436/31923); empty where COS has none.
    pub fn action(self) -> &'static str {
        self.row().action
    }

    /// The action that a copy needs on its source.
    pub fn copy_source_action(self) -> Option<&'static str> {
        self.row().copy_source_action
    }

    /// What the grant must cover.
    pub fn target(self) -> Target {
        self.row().target
    }

    /// What its address names.
    pub fn resource(self) -> Resource {
        self.row().scope
    }

    /// Whether `x-amz-copy-source` chooses it.
    pub fn is_copy(self) -> bool {
        self.row().is_copy
    }

    /// The parameters that choose it, sorted.
    pub fn selectors(self) -> &'static [&'static str] {
        self.row().selectors
    }

    /// Every parameter that a table here names. One that ends in `*` stands for all that begin so.
    pub fn known_parameters() -> BTreeSet<String> {
        let rows = Self::ALL.iter().map(|operation| operation.row());
        let taken = rows.flat_map(|row| [row.selectors, row.parameters, row.own_parameters]);
        let reserved = RESERVED.iter().map(|(_, names)| *names);
        let names = taken.chain(reserved).chain([PRESIGN, DROPPED]).flatten();
        let names = names.map(|name| (*name).to_owned());
        let families = RESERVED_FAMILIES.iter().map(|front| format!("{front}*"));
        names.chain(families).collect()
    }

    /// The query parameters that COS is sent, in this order.
    pub fn parameters(self) -> &'static [&'static str] {
        self.row().parameters
    }

    /// The query parameters that cosgate serves by itself: COS is not sent them.
    pub fn own_parameters(self) -> &'static [&'static str] {
        self.row().own_parameters
    }

    /// What the client sends.
    pub fn body(self) -> BodyKind {
        self.row().body
    }

    /// Who performs it.
    pub fn performer(self) -> Performer {
        self.row().performer
    }

    /// The client's method.
    pub fn method(self) -> &'static str {
        self.row().method
    }

    /// The method at COS; `None` for an operation that COS does not perform under its own name.
    pub(crate) fn upstream_method(self) -> Option<Method> {
        match self.performer() {
            Performer::Cos | Performer::CosIfGranted(_) => {
                Method::from_bytes(self.row().method.as_bytes()).ok()
            }
            Performer::CosByHead => Some(Method::HEAD),
            Performer::AsPutObject | Performer::Cosgate(_) => None,
        }
    }

    /// The body of COS's success.
    pub fn response(self) -> SuccessKind {
        self.row().response
    }

    /// The error that S3 has where nothing is configured of what it requests of COS.
    pub(crate) fn absent(self) -> Option<Code> {
        match self.performer() {
            Performer::CosIfGranted(Local::Absent(code)) => Some(code),
            _ => None,
        }
    }

    /// Whether doing it twice is as good as once, so that cosgate may try again.
    pub(crate) fn is_idempotent(self) -> bool {
        self.row().is_idempotent
    }

    /// Whether the body is XML: read whole, and written anew for COS.
    pub fn has_xml_body(self) -> bool {
        matches!(self.body(), BodyKind::Document(_))
    }

    /// Whether the body is an object's bytes, streamed.
    pub(crate) fn takes_object_body(self) -> bool {
        self.body() == BodyKind::Object
    }

    /// Whether it reads an object or the headers of one.
    pub fn reads_object(self) -> bool {
        self.response() == SuccessKind::Object
    }

    /// Whether its success is an empty body.
    pub(crate) fn responds_without_body(self) -> bool {
        self.response() == SuccessKind::Empty
    }

    /// Whether COS and S3 document that it may fail after its `200`, which then has an `Error` for a body
    /// (436/10881, 436/7742): clients look for one in these responses and in no other.
    pub(crate) fn may_fail_after_success(self) -> bool {
        self.row().may_fail_after_success
    }
}

/// Whether the parameter `name` chooses among the operations.
fn is_selector(name: &str) -> bool {
    let mut all = Operation::ALL
        .iter()
        .flat_map(|operation| operation.row().selectors);
    all.any(|selector| *selector == name)
}

/// Methods are compared by case (RFC 9110 section 9.1): `get` is unknown.
fn check_method(method: &Method) -> Result<(), S3Error> {
    match *method {
        Method::DELETE | Method::GET | Method::HEAD | Method::POST | Method::PUT => Ok(()),
        // What follows them on the connection is not for us to read.
        Method::CONNECT | Method::TRACE => Err(not_allowed().close()),
        _ => Err(not_allowed()),
    }
}

fn check_served(query: &Query<'_>) -> Result<(), S3Error> {
    for name in query.asking() {
        match reserved(name) {
            Some(Reserved::WithoutCounterpart) => {
                return Err(S3Error::new(
                    Code::NotImplemented,
                    format!("Tencent COS has no counterpart of ?{name}."),
                ));
            }
            Some(Reserved::Unserved) => return Err(unserved(name)),
            Some(Reserved::OfCos) => {
                return Err(denied(format!(
                    "cosgate does not support COS's ?{name}. Remove the parameter."
                )));
            }
            Some(Reserved::Misplaced) | None => {}
        }
    }
    Ok(())
}

/// What the table has of `name`, written as the table has it.
fn reserved(name: &str) -> Option<Reserved> {
    let mut rows = RESERVED.iter();
    let row = rows.find(|(_, names)| names.contains(&name));
    row.map(|(reserved, _)| *reserved)
}

/// Refuses the parameter `name`, which is none of `operation`'s, unless S3 would not know it either.
///
/// A write with a bare name, or an empty value, has the form of a sub-resource that S3 may have by now:
/// passing over that would store its document as the object, or delete the object instead.
fn check_ignored(
    method: &Method,
    operation: Operation,
    name: &str,
    value: Option<&str>,
) -> Result<(), S3Error> {
    let plain = plain_name(name).to_ascii_lowercase();
    let is_named = |known: &&&str| known.eq_ignore_ascii_case(&plain);
    let of_others = || {
        let rows = Operation::ALL.iter().map(|other| other.row());
        let mut names = rows.flat_map(|row| {
            let names = [row.selectors, row.parameters, row.own_parameters];
            names.into_iter().flatten()
        });
        names.any(|known| is_named(&known))
    };
    let is_reserved = || {
        let mut names = RESERVED.iter().flat_map(|(_, names)| *names);
        let mut families = RESERVED_FAMILIES.iter();
        names.any(|known| is_named(&known)) || families.any(|front| plain.starts_with(front))
    };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let has_no_meaning = value.is_none_or(str::is_empty);
    if of_others() || is_reserved() {
        return Err(S3Error::new(
            Code::InvalidArgument,
            format!(
                "The query parameter {} does not belong to {}. Remove it.",
                shown(name),
                operation.name()
            ),
        ));
    }
    if !reads && has_no_meaning {
        return Err(S3Error::new(
            Code::InvalidArgument,
            format!(
                "The query parameter {} has no value and may name a sub-resource that is not known here. \
                 Remove it.",
                shown(name)
            ),
        ));
    }
    Ok(())
}

fn select(
    method: &Method,
    scope: Resource,
    selectors: &[&str],
    copies: bool,
) -> Result<Operation, S3Error> {
    // A read of a part is a read.
    let is_part_read = |row: &OperationRow, selectors: &[&str]| {
        row.own_parameters == BY_PART && selectors == BY_PART
    };
    let method_name = method.as_str();
    let fits = |row: &OperationRow| {
        row.scope == scope
            && row.method == method_name
            && (row.selectors == selectors || is_part_read(row, selectors))
    };
    let rows = Operation::ALL.iter().zip(ROWS);
    let mut fitting = rows.filter_map(|(operation, row)| fits(row).then_some(*operation));
    // A copy has the form of an upload, but for its header.
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => return Ok(one),
        (Some(one), Some(_)) if one.row().is_copy == copies => return Ok(one),
        (Some(_), Some(other)) => return Ok(other),
        (None, _) => {}
    }
    Err(match (scope, method.as_str(), selectors) {
        (Resource::Bucket, "DELETE", []) => denied("Buckets cannot be deleted here."),
        (_, _, ["policy"]) => S3Error::new(
            Code::NotImplemented,
            "A bucket policy names accounts, which S3 and Tencent COS do not have in common. Ask the operator \
             to grant the access in cosgate's configuration.",
        ),
        (_, "PUT", ["replication"]) => S3Error::new(
            Code::NotImplemented,
            "A replication names the account that copies, which S3 and Tencent COS do not have in common. Set it \
             up in the COS console.",
        ),
        (_, _, [name]) if is_question(name) => unserved(name),
        (Resource::Object, "PUT", ["partNumber" | "uploadId"]) => S3Error::new(
            Code::InvalidArgument,
            "A part needs both partNumber and uploadId.",
        ),
        (_, _, [_, _, ..]) => S3Error::new(
            Code::InvalidArgument,
            format!(
                "The query mixes what belongs to different operations: {}.",
                selectors.join(", ")
            ),
        ),
        _ => not_allowed(),
    })
}

/// Whether a read of the sub-resource `name` is served here: what else S3 does with it is not offered.
fn is_question(name: &str) -> bool {
    Operation::ALL.iter().any(|operation| {
        let row = operation.row();
        row.selectors == [name]
            && matches!(
                row.performer,
                Performer::CosIfGranted(_)
                    | Performer::Cosgate(Local::Absent(_) | Local::Unset(..))
            )
    })
}

fn not_allowed() -> S3Error {
    S3Error::new(
        Code::MethodNotAllowed,
        "The specified method is not allowed against this resource.",
    )
}

/// What S3 has and cosgate does not offer.
fn unserved(name: &str) -> S3Error {
    S3Error::new(
        Code::NotImplemented,
        format!(
            "cosgate does not support this operation on ?{name}. Remove the parameter, or configure the bucket in the COS console."
        ),
    )
}

fn denied(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::AccessDenied, message)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn resolve(
        method: &str,
        scope: Resource,
        query: &str,
        copies: bool,
    ) -> Result<Operation, Code> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Query::parse(query)
            .and_then(|query| Operation::resolve(&method, scope, &query, copies))
            .map_err(|error| error.code())
    }

    /// Every row of the table of COS's actions: served with the row's action, or refused.
    #[test]
    fn every_known_operation_is_served_under_its_own_action_or_refused() {
        let table: Value =
            serde_json::from_str(include_str!("../../tests/vectors/cos-actions.json")).unwrap();
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
    fn strange_methods_are_not_allowed() {
        for method in ["CONNECT", "TRACE", "PATCH", "get", "Put", "FOO", "PROPFIND"] {
            assert_eq!(
                resolve(method, Resource::Object, "", false),
                Err(Code::MethodNotAllowed),
                "{method}"
            );
        }
        assert_eq!(
            resolve("POST", Resource::Object, "", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("PUT", Resource::Service, "", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("PUT", Resource::Bucket, "versions", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("OPTIONS", Resource::Object, "", false),
            Err(Code::MethodNotAllowed)
        );
    }

    #[test]
    fn rejects_names_of_s3_and_cos_that_an_operation_does_not_take() {
        for query in [
            "imageMogr2/thumbnail/!50p",
            "imagemogr2/thumbnail/!50p",
            "imageMogr2|watermark/1",
            "%69mageView2/1/w/1",
            "%2569mageView2/1/w/1",
            "imageInfo",
            "exif",
            "watermark/2/text/eA",
            "watermark",
            "style/small",
            "pic-operations=%7B%7D",
            "Pic-Operations=%7B%7D",
            "CI-Process=x",
            "ci-host=x",
            "x-cos-process=image",
            "x-ci-x=1",
            "x-image-x=1",
            "saveas=x",
            "prefix[]=a",
            "x-amz-acl=private",
            "X-Amz-Acl=public-read",
            "x-amz-storage-class=GLACIER",
            "x-amz-expected-bucket-owner=acme",
            "response-x=1",
            "max-buckets=1",
            "ACL",
            "Policy=x",
            "%61cl%20",
            "ac%256c",
            "Tagging[]",
            "sign=q",
            "q-AK=x",
        ] {
            assert_eq!(
                resolve("GET", Resource::Object, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
            assert_eq!(
                resolve("GET", Resource::Bucket, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
        }
    }

    #[test]
    fn ignores_parameters_that_s3_does_not_know() {
        for query in [
            "_=1",
            "utm_source=",
            "utm_source=a&utm_medium=b",
            "Version=2006-03-01",
            "x-user=u",
            "metadata=true",
            "zzz",
            "city=ci",
            "pictures=1",
            "imageless=1",
        ] {
            for (method, operation, value) in [
                ("GET", Operation::GetObject, ""),
                ("HEAD", Operation::HeadObject, ""),
                ("PUT", Operation::PutObject, "1"),
                ("DELETE", Operation::DeleteObject, "1"),
            ] {
                let query = match (value, query.ends_with('='), query.contains('=')) {
                    ("", ..) | (_, false, true) => query.to_owned(),
                    (_, true, _) => format!("{query}1"),
                    (_, false, false) => format!("{query}=1"),
                };
                let found = resolve(method, Resource::Object, &query, false);
                assert_eq!(found, Ok(operation), "{method} {query}");
            }
            assert_eq!(
                resolve(
                    "GET",
                    Resource::Bucket,
                    &format!("list-type=2&{query}"),
                    false
                ),
                Ok(Operation::ListObjectsV2)
            );
        }
    }

    #[test]
    fn rejects_unknown_names_without_a_value_on_writes() {
        for query in ["newThing", "newThing=", "newThing&x=1"] {
            for (method, scope) in [
                ("PUT", Resource::Object),
                ("DELETE", Resource::Object),
                ("POST", Resource::Bucket),
                ("PUT", Resource::Bucket),
            ] {
                let found = resolve(method, scope, query, false);
                assert_eq!(found, Err(Code::InvalidArgument), "{method} {query}");
            }
        }
    }

    #[test]
    fn keys_of_two_operations_are_refused_together() {
        for query in [
            "uploads&versions",
            "list-type=2&versions",
            "uploads&uploadId=u",
            "tagging&uploadId=u",
        ] {
            assert_eq!(
                resolve("GET", Resource::Bucket, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
            assert_eq!(
                resolve("GET", Resource::Object, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
        }
        assert_eq!(
            resolve("GET", Resource::Bucket, "list-type=2&marker=a", false),
            Err(Code::InvalidArgument)
        );
        assert_eq!(
            resolve("GET", Resource::Bucket, "versions&acl", false),
            Err(Code::InvalidArgument)
        );
        assert_eq!(
            resolve("PUT", Resource::Object, "partNumber=1", false),
            Err(Code::InvalidArgument)
        );
    }

    #[test]
    fn a_copy_source_is_refused_where_nothing_is_copied() {
        for (method, scope, query) in [
            ("GET", Resource::Object, ""),
            ("PUT", Resource::Object, "tagging"),
            ("PUT", Resource::Bucket, ""),
            ("POST", Resource::Object, "uploads"),
        ] {
            assert_eq!(
                resolve(method, scope, query, true),
                Err(Code::InvalidArgument),
                "{method} {query}"
            );
        }
    }

    #[test]
    fn what_sdks_add_for_themselves_changes_nothing() {
        let query = "x-id=GetObject&X-Amz-Date=d&X-Amz-Signature=s&X-Amz-Checksum-Mode=ENABLED&x-amz-checksum-crc32=c";
        assert_eq!(
            resolve("GET", Resource::Object, query, false),
            Ok(Operation::GetObject)
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
    fn no_name_is_in_two_rows() {
        let rows = RESERVED.iter().flat_map(|(_, names)| *names);
        let all: Vec<_> = rows.collect();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(all.len(), once.len());
        assert!(!all.iter().any(|name| is_selector(name)));
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
