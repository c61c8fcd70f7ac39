//! The head of a client's request, as typed parts.

use super::{ObjectKey, Operation, Query};

/// What is asked: the only thing that later steps know of the client's request line.
#[derive(Clone, Debug)]
pub struct S3Request<'a> {
    /// What to do.
    pub operation: Operation,
    /// The bucket as the client names it (an alias); `None` only for `ListBuckets`.
    pub bucket: Option<&'a str>,
    /// The key; `None` for calls on the service or a bucket.
    pub key: Option<ObjectKey<'a>>,
    /// All query parameters, those of a presigned URL included.
    pub query: Query<'a>,
    /// The source of a copy.
    pub copy_source: Option<CopySource>,
}

/// `x-amz-copy-source`, decoded and checked as a key is.
#[derive(Clone, Debug)]
pub struct CopySource {
    /// The source bucket as the client names it (an alias).
    pub bucket: String,
    /// The source key.
    pub key: ObjectKey<'static>,
    /// `versionId`, if one was named.
    pub version_id: Option<String>,
}
