//! Every operation that cosgate serves, and what COS calls the right to do it.

use http::Method;

use super::query::{Query, plain_name, shown};
use crate::error::{Code, S3Error};

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

/// Why a name that is no parameter of the operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserved {
    /// It is COS's alone: nobody who speaks S3 asks for it by mistake. 403.
    OfCos,
    /// S3 and COS have it, and cosgate does not serve it. Tools probe some of these (s3cmd reads `?acl`
    /// before a copy), and go on only after a 501.
    Unserved,
    /// S3 has it, and COS has no counterpart. 501.
    WithoutCounterpart,
    /// A parameter that changes what is asked, on a request that does not take it. 400.
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
        ],
    ),
    // S3 API reference: GetObjectAttributes, GetBucketAbac, CreateSession, RenameObject and others; COS has
    // none of them.
    (
        Reserved::WithoutCounterpart,
        &[
            "abac",
            "analytics",
            "attributes",
            "legal-hold",
            "metadataAnnotationTable",
            "metadataConfiguration",
            "metadataInventoryTable",
            "metadataJournalTable",
            "metadataTable",
            "metrics",
            "ownershipControls",
            "policyStatus",
            "publicAccessBlock",
            "renameObject",
            "requestPayment",
            "session",
            "torrent",
        ],
    ),
    // S3 ListBuckets, ListDirectoryBuckets.
    (
        Reserved::Misplaced,
        &["bucket-region", "max-buckets", "max-directory-buckets"],
    ),
    // COS's signature in one parameter (its SDK for Go, `SignMerged`): a proof that nobody would look at.
    (Reserved::Misplaced, &["sign"]),
    // CI (data processing on download, persistent processing 436/55365): the client asks for another
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

/// What names begin with that are headers in a query, or belong to a signature, to an answer's headers or
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
        for name in query.asking() {
            if !operation.takes(name) {
                check_ignored(method, operation, name, query.get(name))?;
            }
        }
        Ok(operation)
    }

    /// Whether the parameter `name` means something to it.
    fn takes(self, name: &str) -> bool {
        self.parameters().contains(&name) || self.own_parameters().contains(&name)
    }

    /// The query parameters that cosgate answers by itself: COS is not sent them.
    pub(super) fn own_parameters(self) -> &'static [&'static str] {
        match self {
            // COS reads no object by part number: each is one part.
            Self::GetObject | Self::HeadObject => &["partNumber"],
            _ => &[],
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
        match reserved(name) {
            Some(Reserved::WithoutCounterpart) => {
                return Err(S3Error::new(
                    Code::NotImplemented,
                    format!("Tencent COS has no counterpart of ?{name}."),
                ));
            }
            Some(Reserved::Unserved) => return Err(unserved(name)),
            Some(Reserved::OfCos) => {
                return Err(denied(format!("?{name} is not served here, whoever asks.")));
            }
            Some(Reserved::Misplaced) | None => {}
        }
    }
    Ok(())
}

/// What the table says of `name`, written as the table has it.
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
        let mut parameters = Operation::ALL.iter().flat_map(|other| other.parameters());
        parameters.any(|known| is_named(&known))
    };
    let is_reserved = || {
        let mut names = RESERVED.iter().flat_map(|(_, names)| *names);
        let mut families = RESERVED_FAMILIES.iter();
        names.any(|known| is_named(&known)) || families.any(|front| plain.starts_with(front))
    };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let says_nothing = value.is_none_or(str::is_empty);
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
    if !reads && says_nothing {
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
        (Scope::Object, "GET", [] | ["partNumber"]) => O::GetObject,
        (Scope::Object, "GET", ["tagging"]) => O::GetObjectTagging,
        (Scope::Object, "GET", ["uploadId"]) => O::ListParts,
        (Scope::Object, "HEAD", [] | ["partNumber"]) => O::HeadObject,
        (Scope::Object, "POST", ["uploadId"]) => O::CompleteMultipartUpload,
        (Scope::Object, "POST", ["uploads"]) => O::CreateMultipartUpload,
        (Scope::Object, "PUT", []) if copies => O::CopyObject,
        (Scope::Object, "PUT", []) => O::PutObject,
        (Scope::Object, "PUT", ["partNumber", "uploadId"]) if copies => O::UploadPartCopy,
        (Scope::Object, "PUT", ["partNumber", "uploadId"]) => O::UploadPart,
        (Scope::Object, "PUT", ["tagging"]) => O::PutObjectTagging,
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
                let found = resolve(method, Scope::Object, &query, false);
                assert_eq!(found, Ok(operation), "{method} {query}");
            }
            assert_eq!(
                resolve("GET", Scope::Bucket, &format!("list-type=2&{query}"), false),
                Ok(Operation::ListObjectsV2)
            );
        }
    }

    #[test]
    fn rejects_unknown_names_without_a_value_on_writes() {
        for query in ["newThing", "newThing=", "newThing&x=1"] {
            for (method, scope) in [
                ("PUT", Scope::Object),
                ("DELETE", Scope::Object),
                ("POST", Scope::Bucket),
                ("PUT", Scope::Bucket),
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
    fn no_name_is_in_two_rows() {
        let rows = RESERVED.iter().flat_map(|(_, names)| *names);
        let all: Vec<_> = SELECTORS.iter().chain(rows).collect();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(all.len(), once.len());
    }
}
