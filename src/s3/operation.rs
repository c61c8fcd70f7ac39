//! Every operation that cosgate serves, and what COS calls the right to do it.

use http::Method;

use super::query::{Query, shown};
use super::{Code, S3Error};

/// An S3 operation. Anything that is not one of these is refused before it is authenticated.
#[allow(missing_docs, reason = "the names are the S3 API reference's own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CopyObject,
    CreateBucket,
    CreateMultipartUpload,
    DeleteObject,
    DeleteObjectTagging,
    DeleteObjects,
    GetBucketLocation,
    GetObject,
    GetObjectTagging,
    HeadBucket,
    HeadObject,
    ListBuckets,
    ListMultipartUploads,
    ListObjectVersions,
    ListObjects,
    ListObjectsV2,
    ListParts,
    PostObject,
    PutObject,
    PutObjectTagging,
    UploadPart,
    UploadPartCopy,
}

/// What a request's address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A bucket.
    Bucket,
    /// An object.
    Object,
    /// All of a tenant's buckets.
    Service,
}

/// Query keys that choose among the served operations.
const SELECTORS: &[&str] = &[
    "delete",
    "list-type",
    "location",
    "partNumber",
    "tagging",
    "uploadId",
    "uploads",
    "versions",
];

/// Query keys of COS alone. Nobody who speaks S3 asks for them by mistake.
const OF_COS: &[&str] = &[
    "append",
    "ci-process",
    "domain",
    "domaincertificate",
    "intelligenttiering",
    "origin",
    "position",
    "referer",
    "symlink",
];

/// Query keys of S3 that COS has too, and that cosgate does not serve. Tools probe some of them
/// (s3cmd reads `?acl` before a copy), and go on only after a 501.
const UNSERVED: &[&str] = &[
    "accelerate",
    "acl",
    "cors",
    "encryption",
    "id",
    "intelligent-tiering",
    "inventory",
    "lifecycle",
    "logging",
    "notification",
    "object-lock",
    "policy",
    "replication",
    "restore",
    "retention",
    "select",
    "select-type",
    "versioning",
    "website",
];

/// Query keys of S3 that COS has no counterpart for.
const WITHOUT_COUNTERPART: &[&str] = &[
    "analytics",
    "attributes",
    "legal-hold",
    "metadataConfiguration",
    "metadataTable",
    "metrics",
    "ownershipControls",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "requestPayment",
    "session",
    "torrent",
];

impl Operation {
    /// Every operation.
    pub const ALL: &[Self] = &[
        Self::AbortMultipartUpload,
        Self::CompleteMultipartUpload,
        Self::CopyObject,
        Self::CreateBucket,
        Self::CreateMultipartUpload,
        Self::DeleteObject,
        Self::DeleteObjectTagging,
        Self::DeleteObjects,
        Self::GetBucketLocation,
        Self::GetObject,
        Self::GetObjectTagging,
        Self::HeadBucket,
        Self::HeadObject,
        Self::ListBuckets,
        Self::ListMultipartUploads,
        Self::ListObjectVersions,
        Self::ListObjects,
        Self::ListObjectsV2,
        Self::ListParts,
        Self::PostObject,
        Self::PutObject,
        Self::PutObjectTagging,
        Self::UploadPart,
        Self::UploadPartCopy,
    ];

    /// Finds the operation by method, address and the exact set of keys in the query; `copies` is
    /// whether there is an `x-amz-copy-source`. Default deny: there is no operation to fall back to.
    pub fn resolve(
        method: &Method,
        scope: Scope,
        query: &Query<'_>,
        copies: bool,
    ) -> Result<Self, S3Error> {
        check_method(method)?;
        check_served(query)?;
        let mut selectors: Vec<&str> = query
            .asking()
            .filter(|name| SELECTORS.contains(name))
            .collect();
        selectors.sort_unstable();
        let operation = select(method, scope, &selectors, copies)?;
        if copies && operation.copy_source_action().is_none() {
            return Err(S3Error::new(
                Code::InvalidArgument,
                format!("x-amz-copy-source does not belong to {}.", operation.name()),
            ));
        }
        match query
            .asking()
            .find(|name| !operation.parameters().contains(name))
        {
            Some(name) => Err(S3Error::new(
                Code::InvalidArgument,
                format!(
                    "The query parameter {} does not belong to {}.",
                    shown(name),
                    operation.name()
                ),
            )),
            None => Ok(operation),
        }
    }

    /// The name, as in the S3 API reference.
    pub fn name(self) -> &'static str {
        match self {
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::CopyObject => "CopyObject",
            Self::CreateBucket => "CreateBucket",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::DeleteObject => "DeleteObject",
            Self::DeleteObjectTagging => "DeleteObjectTagging",
            Self::DeleteObjects => "DeleteObjects",
            Self::GetBucketLocation => "GetBucketLocation",
            Self::GetObject => "GetObject",
            Self::GetObjectTagging => "GetObjectTagging",
            Self::HeadBucket => "HeadBucket",
            Self::HeadObject => "HeadObject",
            Self::ListBuckets => "ListBuckets",
            Self::ListMultipartUploads => "ListMultipartUploads",
            Self::ListObjectVersions => "ListObjectVersions",
            Self::ListObjects => "ListObjects",
            Self::ListObjectsV2 => "ListObjectsV2",
            Self::ListParts => "ListParts",
            Self::PostObject => "PostObject",
            Self::PutObject => "PutObject",
            Self::PutObjectTagging => "PutObjectTagging",
            Self::UploadPart => "UploadPart",
            Self::UploadPartCopy => "UploadPartCopy",
        }
    }

    /// The COS action that the caller needs on the bucket or key that the request names
    /// (COS API authorization policy guide, 436/31923).
    pub fn action(self) -> &'static str {
        match self {
            Self::AbortMultipartUpload => "name/cos:AbortMultipartUpload",
            Self::CompleteMultipartUpload => "name/cos:CompleteMultipartUpload",
            Self::CopyObject | Self::PutObject | Self::UploadPartCopy => "name/cos:PutObject",
            Self::CreateBucket => "name/cos:PutBucket",
            Self::CreateMultipartUpload => "name/cos:InitiateMultipartUpload",
            Self::DeleteObject | Self::DeleteObjects => "name/cos:DeleteObject",
            Self::DeleteObjectTagging => "name/cos:DeleteObjectTagging",
            Self::GetBucketLocation => "name/cos:GetBucketLocation",
            Self::GetObject => "name/cos:GetObject",
            Self::GetObjectTagging => "name/cos:GetObjectTagging",
            Self::HeadBucket => "name/cos:HeadBucket",
            Self::HeadObject => "name/cos:HeadObject",
            Self::ListBuckets => "name/cos:GetService",
            Self::ListMultipartUploads => "name/cos:ListMultipartUploads",
            Self::ListObjectVersions => "name/cos:GetBucketObjectVersions",
            Self::ListObjects | Self::ListObjectsV2 => "name/cos:GetBucket",
            Self::ListParts => "name/cos:ListParts",
            Self::PostObject => "name/cos:PostObject",
            Self::PutObjectTagging => "name/cos:PutObjectTagging",
            Self::UploadPart => "name/cos:UploadPart",
        }
    }

    /// The action that a copy needs on its source.
    pub fn copy_source_action(self) -> Option<&'static str> {
        matches!(self, Self::CopyObject | Self::UploadPartCopy).then_some("name/cos:GetObject")
    }

    /// Whether doing it twice is as good as once, so that it may be tried again. Completing an upload
    /// twice is not: the second answers `NoSuchUpload`. Nor is creating one: it leaves an orphan.
    pub fn is_idempotent(self) -> bool {
        !matches!(
            self,
            Self::CompleteMultipartUpload | Self::CreateMultipartUpload
        )
    }

    /// Whether the body is XML: read whole, and written anew for COS.
    pub fn has_xml_body(self) -> bool {
        matches!(
            self,
            Self::CompleteMultipartUpload | Self::DeleteObjects | Self::PutObjectTagging
        )
    }

    /// Whether the body is an object's bytes, streamed.
    pub fn takes_object_body(self) -> bool {
        matches!(self, Self::PutObject | Self::UploadPart)
    }

    /// Whether its success is an empty body: 436/7749 (Put Object), 436/7750 (Upload Part), 436/7743
    /// (Delete Object), 436/7740 (Abort), 436/42998 and 436/42999 (tags).
    pub fn answers_without_body(self) -> bool {
        matches!(
            self,
            Self::AbortMultipartUpload
                | Self::DeleteObject
                | Self::DeleteObjectTagging
                | Self::PutObject
                | Self::PutObjectTagging
                | Self::UploadPart
        )
    }

    /// Whether COS and S3 document that it may fail after its `200`, which then has an `Error` for a body
    /// (436/10881, 436/7742): clients look for one in these answers and in no other.
    pub fn may_fail_after_success(self) -> bool {
        matches!(
            self,
            Self::CompleteMultipartUpload | Self::CopyObject | Self::UploadPartCopy
        )
    }

    /// The query parameters that it takes, in the order in which COS is sent them.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::AbortMultipartUpload | Self::CompleteMultipartUpload => &["uploadId"],
            Self::CopyObject
            | Self::CreateBucket
            | Self::HeadBucket
            | Self::ListBuckets
            | Self::PostObject
            | Self::PutObject => &[],
            Self::CreateMultipartUpload => &["uploads"],
            Self::DeleteObject => &["versionId"],
            Self::DeleteObjectTagging | Self::GetObjectTagging | Self::PutObjectTagging => {
                &["tagging", "versionId"]
            }
            Self::DeleteObjects => &["delete"],
            Self::GetBucketLocation => &["location"],
            Self::GetObject | Self::HeadObject => &[
                "versionId",
                "response-cache-control",
                "response-content-disposition",
                "response-content-encoding",
                "response-content-language",
                "response-content-type",
                "response-expires",
            ],
            Self::ListMultipartUploads => &[
                "uploads",
                "prefix",
                "delimiter",
                "key-marker",
                "upload-id-marker",
                "max-uploads",
                "encoding-type",
            ],
            Self::ListObjectVersions => &[
                "versions",
                "prefix",
                "delimiter",
                "key-marker",
                "version-id-marker",
                "max-keys",
                "encoding-type",
            ],
            Self::ListObjects => &["prefix", "delimiter", "marker", "max-keys", "encoding-type"],
            Self::ListObjectsV2 => &[
                "list-type",
                "prefix",
                "delimiter",
                "continuation-token",
                "start-after",
                "max-keys",
                "encoding-type",
                "fetch-owner",
            ],
            Self::ListParts => &[
                "uploadId",
                "part-number-marker",
                "max-parts",
                "encoding-type",
            ],
            Self::UploadPart | Self::UploadPartCopy => &["partNumber", "uploadId"],
        }
    }
}

/// Methods are compared by case (RFC 9110 section 9.1): `get` is unknown.
fn check_method(method: &Method) -> Result<(), S3Error> {
    match *method {
        Method::DELETE | Method::GET | Method::HEAD | Method::POST | Method::PUT => Ok(()),
        Method::OPTIONS => Err(denied("Cross-origin preflight requests are not served.")),
        // What follows them on the connection is not for us to read.
        Method::CONNECT | Method::TRACE => Err(not_allowed().close()),
        _ => Err(not_allowed()),
    }
}

fn check_served(query: &Query<'_>) -> Result<(), S3Error> {
    for name in query.asking() {
        if WITHOUT_COUNTERPART.contains(&name) {
            return Err(S3Error::new(
                Code::NotImplemented,
                format!("Tencent COS has no counterpart of ?{name}."),
            ));
        }
        if UNSERVED.contains(&name) {
            return Err(unserved(name));
        }
        if OF_COS.contains(&name) {
            return Err(denied(format!("?{name} is not served here, whoever asks.")));
        }
    }
    Ok(())
}

fn select(
    method: &Method,
    scope: Scope,
    selectors: &[&str],
    copies: bool,
) -> Result<Operation, S3Error> {
    use Operation as O;
    Ok(match (scope, method.as_str(), selectors) {
        (Scope::Service, "GET", []) => O::ListBuckets,

        (Scope::Bucket, "GET", []) => O::ListObjects,
        (Scope::Bucket, "GET", ["list-type"]) => O::ListObjectsV2,
        (Scope::Bucket, "GET", ["location"]) => O::GetBucketLocation,
        (Scope::Bucket, "GET", ["uploads"]) => O::ListMultipartUploads,
        (Scope::Bucket, "GET", ["versions"]) => O::ListObjectVersions,
        (Scope::Bucket, "HEAD", []) => O::HeadBucket,
        (Scope::Bucket, "POST", []) => O::PostObject,
        (Scope::Bucket, "POST", ["delete"]) => O::DeleteObjects,
        (Scope::Bucket, "PUT", []) => O::CreateBucket,
        (Scope::Bucket, "DELETE", []) => return Err(denied("Buckets cannot be deleted here.")),
        (Scope::Bucket, "DELETE" | "GET" | "PUT", ["tagging"]) => {
            return Err(unserved("tagging"));
        }

        (Scope::Object, "DELETE", []) => O::DeleteObject,
        (Scope::Object, "DELETE", ["tagging"]) => O::DeleteObjectTagging,
        (Scope::Object, "DELETE", ["uploadId"]) => O::AbortMultipartUpload,
        (Scope::Object, "GET", []) => O::GetObject,
        (Scope::Object, "GET", ["tagging"]) => O::GetObjectTagging,
        (Scope::Object, "GET", ["uploadId"]) => O::ListParts,
        (Scope::Object, "HEAD", []) => O::HeadObject,
        (Scope::Object, "POST", ["uploadId"]) => O::CompleteMultipartUpload,
        (Scope::Object, "POST", ["uploads"]) => O::CreateMultipartUpload,
        (Scope::Object, "PUT", []) if copies => O::CopyObject,
        (Scope::Object, "PUT", []) => O::PutObject,
        (Scope::Object, "PUT", ["partNumber", "uploadId"]) if copies => O::UploadPartCopy,
        (Scope::Object, "PUT", ["partNumber", "uploadId"]) => O::UploadPart,
        (Scope::Object, "PUT", ["tagging"]) => O::PutObjectTagging,
        (Scope::Object, "GET" | "HEAD", ["partNumber"]) => {
            return Err(S3Error::new(
                Code::NotImplemented,
                "Tencent COS does not read an object by part number; ask for a Range.",
            ));
        }
        (Scope::Object, "PUT", ["partNumber" | "uploadId"]) => {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "A part needs both partNumber and uploadId.",
            ));
        }

        (_, _, [_, _, ..]) => {
            return Err(S3Error::new(
                Code::InvalidArgument,
                format!(
                    "The query mixes what belongs to different operations: {}.",
                    selectors.join(", ")
                ),
            ));
        }
        _ => return Err(not_allowed()),
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
        format!("?{name} is not served here, whoever asks."),
    )
}

fn denied(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::AccessDenied, message)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn resolve(method: &str, scope: Scope, query: &str, copies: bool) -> Result<Operation, Code> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Operation::resolve(&method, scope, &Query::parse(query).unwrap(), copies)
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
                "bucket" => Scope::Bucket,
                "object" => Scope::Object,
                _ => Scope::Service,
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
            assert_eq!(
                Some(operation.action()),
                row["cos_action"].as_str(),
                "{name}"
            );
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
                resolve(method, Scope::Object, "", false),
                Err(Code::MethodNotAllowed),
                "{method}"
            );
        }
        assert_eq!(
            resolve("POST", Scope::Object, "", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("PUT", Scope::Service, "", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("PUT", Scope::Bucket, "versions", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("OPTIONS", Scope::Object, "", false),
            Err(Code::AccessDenied)
        );
    }

    #[test]
    fn unknown_query_keys_are_refused() {
        for query in [
            "zzz",
            "imageMogr2/thumbnail/!50p",
            "prefix[]=a",
            "x-amz-acl=private",
            "sign=q",
        ] {
            assert_eq!(
                resolve("GET", Scope::Object, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
            assert_eq!(
                resolve("GET", Scope::Bucket, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
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
                resolve("GET", Scope::Bucket, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
            assert_eq!(
                resolve("GET", Scope::Object, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
        }
        assert_eq!(
            resolve("GET", Scope::Bucket, "list-type=2&marker=a", false),
            Err(Code::InvalidArgument)
        );
        assert_eq!(
            resolve("GET", Scope::Bucket, "versions&acl", false),
            Err(Code::NotImplemented)
        );
        assert_eq!(
            resolve("PUT", Scope::Object, "partNumber=1", false),
            Err(Code::InvalidArgument)
        );
    }

    #[test]
    fn a_copy_source_is_refused_where_nothing_is_copied() {
        for (method, scope, query) in [
            ("GET", Scope::Object, ""),
            ("PUT", Scope::Object, "tagging"),
            ("PUT", Scope::Bucket, ""),
            ("POST", Scope::Object, "uploads"),
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
            resolve("GET", Scope::Object, query, false),
            Ok(Operation::GetObject)
        );
    }

    #[test]
    fn no_selector_is_in_two_lists() {
        let all: Vec<_> = SELECTORS
            .iter()
            .chain(UNSERVED)
            .chain(WITHOUT_COUNTERPART)
            .collect();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(all.len(), once.len());
    }
}
