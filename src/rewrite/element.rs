//! The elements of COS's answers that [`AnswerRewriter`](super::listing::AnswerRewriter) knows.

/// An element by its name, without a namespace's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Bucket,
    Code,
    CommonPrefixes,
    Contents,
    DeleteMarker,
    DisplayName,
    Error,
    Id,
    Initiator,
    IsTruncated,
    Key,
    KeyMarker,
    ListBucketResult,
    Location,
    Marker,
    Message,
    Name,
    NextKeyMarker,
    NextMarker,
    Other,
    Owner,
    /// One whose text is a number, a time, a word or an id of COS's own making, and never a name.
    Plain,
    Prefix,
    RequestId,
    Resource,
    Upload,
    Version,
    VersionId,
}

impl Element {
    /// The element of a tag's inside: its name without a namespace's prefix or attributes.
    pub(super) fn of(inside: &[u8]) -> Self {
        let name = inside
            .split(u8::is_ascii_whitespace)
            .next()
            .unwrap_or_default();
        match name.rsplit(|byte| *byte == b':').next().unwrap_or_default() {
            b"Bucket" => Self::Bucket,
            b"Code" => Self::Code,
            b"CommonPrefixes" => Self::CommonPrefixes,
            b"Contents" => Self::Contents,
            b"DeleteMarker" => Self::DeleteMarker,
            b"DisplayName" => Self::DisplayName,
            b"Error" => Self::Error,
            b"ID" => Self::Id,
            b"Initiator" => Self::Initiator,
            b"IsTruncated" => Self::IsTruncated,
            b"Key" => Self::Key,
            b"KeyMarker" => Self::KeyMarker,
            b"ListBucketResult" => Self::ListBucketResult,
            b"Location" => Self::Location,
            b"Marker" => Self::Marker,
            b"Message" => Self::Message,
            b"Name" => Self::Name,
            b"NextKeyMarker" => Self::NextKeyMarker,
            b"NextMarker" => Self::NextMarker,
            b"Owner" => Self::Owner,
            b"Prefix" => Self::Prefix,
            b"RequestId" => Self::RequestId,
            b"Resource" => Self::Resource,
            b"Upload" => Self::Upload,
            b"Version" => Self::Version,
            b"VersionId" => Self::VersionId,
            b"CRC64"
            | b"Delimiter"
            | b"ETag"
            | b"EncodingType"
            | b"Initiated"
            | b"IsLatest"
            | b"LastModified"
            | b"MaxKeys"
            | b"MaxParts"
            | b"MaxUploads"
            | b"NextPartNumberMarker"
            | b"NextUploadIdMarker"
            | b"NextVersionIdMarker"
            | b"PartNumber"
            | b"PartNumberMarker"
            | b"Size"
            | b"StorageClass"
            | b"StorageTier"
            | b"UploadId"
            | b"UploadIdMarker"
            | b"VersionIdMarker" => Self::Plain,
            _ => Self::Other,
        }
    }
}
