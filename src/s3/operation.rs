//! Every operation that cosgate serves, and what COS calls the right to do it.

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
    PutObject,
    PutObjectTagging,
    UploadPart,
    UploadPartCopy,
}

impl Operation {
    /// Stand-in.
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
            Self::PutObjectTagging => "name/cos:PutObjectTagging",
            Self::UploadPart => "name/cos:UploadPart",
        }
    }

    /// Stand-in.
    pub fn copy_source_action(self) -> Option<&'static str> {
        match self {
            Self::CopyObject | Self::UploadPartCopy => Some("name/cos:GetObject"),
            _ => None,
        }
    }
}
