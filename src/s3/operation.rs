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
