//! The elements of COS's responses that [`ResponseRewriter`](super::listing::ResponseRewriter) knows: THE
//! table of what each of them carries.

use std::borrow::Cow;

use super::names::{EchoedParameter, Unfit};

/// An element of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// As the client gets it, without a namespace's prefix.
    pub(super) name: Cow<'static, str>,
    pub(super) carries: ElementContent,
}

/// What stands in an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementContent {
    /// An account, in an element that holds one.
    Account,
    /// An account, as elements.
    AccountHolder,
    /// The bucket.
    Bucket,
    /// The code of a failure.
    Code,
    /// Elements.
    Elements,
    /// How names in this response are encoded.
    EncodingType,
    /// The elements of a failure.
    Failure,
    /// A key: at the response's top what the request named, else one that a listing shows.
    Key,
    /// An object's URL.
    Location,
    /// The text of a failure.
    Message,
    /// The bucket, at the response's top.
    Name,
    /// The key or common prefix that the next page starts after.
    Next,
    /// A prefix: at the response's top what the request named, else a common one.
    Prefix,
    /// What the request named.
    Repeated(EchoedParameter),
    /// The path of what a failure is about.
    Resource,
    /// A tag of an object: its key and value are the client's own texts.
    Tag,
    /// Whether the page is not the last.
    Truncated,
    /// Not known.
    Unknown,
    /// A number, time, word or sum, or an id, marker or token of the store's own making: it passes to
    /// the letter.
    Value,
}

use ElementContent::{
    Account, AccountHolder, Bucket, Code, Elements, EncodingType, Failure, Key, Location, Message,
    Name, Next, Prefix, Resource, Tag, Truncated, Value,
};

/// Every element that S3's API reference or COS (436/7734, 436/7735, 436/7736, 436/7742, 436/7746,
/// 436/7747, 436/8287, 436/10881, 436/42998, 436/43521, 436/7730) documents for the responses that are
/// rewritten: as the store may spell it, as S3 does, and what it carries. Sorted by the first.
const TABLE: &[(&str, &str, ElementContent)] = &[
    ("Bucket", "Bucket", Bucket),
    ("BucketName", "BucketName", Bucket),
    ("CRC64", "CRC64", Value),
    ("ChecksumAlgorithm", "ChecksumAlgorithm", Value),
    ("ChecksumCRC32", "ChecksumCRC32", Value),
    ("ChecksumCRC32C", "ChecksumCRC32C", Value),
    ("ChecksumCRC64NVME", "ChecksumCRC64NVME", Value),
    ("ChecksumMD5", "ChecksumMD5", Value),
    ("ChecksumSHA1", "ChecksumSHA1", Value),
    ("ChecksumSHA256", "ChecksumSHA256", Value),
    ("ChecksumSHA512", "ChecksumSHA512", Value),
    ("ChecksumType", "ChecksumType", Value),
    ("ChecksumXXHASH128", "ChecksumXXHASH128", Value),
    ("ChecksumXXHASH3", "ChecksumXXHASH3", Value),
    ("ChecksumXXHASH64", "ChecksumXXHASH64", Value),
    ("Code", "Code", Code),
    ("CommonPrefixes", "CommonPrefixes", Elements),
    ("Contents", "Contents", Elements),
    ("ContinuationToken", "ContinuationToken", Value),
    ("DeleteMarker", "DeleteMarker", Elements),
    ("Delimiter", "Delimiter", Value),
    ("DisplayName", "DisplayName", Account),
    ("ETag", "ETag", Value),
    ("Encoding-Type", "EncodingType", EncodingType),
    ("Encoding-type", "EncodingType", EncodingType),
    ("EncodingType", "EncodingType", EncodingType),
    ("Error", "Error", Failure),
    ("ID", "ID", Account),
    ("Initiated", "Initiated", Value),
    ("Initiator", "Initiator", AccountHolder),
    ("IsLatest", "IsLatest", Value),
    ("IsRestoreInProgress", "IsRestoreInProgress", Value),
    ("IsTruncated", "IsTruncated", Truncated),
    ("Key", "Key", Key),
    ("KeyCount", "KeyCount", Value),
    (
        "KeyMarker",
        "KeyMarker",
        ElementContent::Repeated(EchoedParameter::KeyMarker),
    ),
    ("LastModified", "LastModified", Value),
    ("Location", "Location", Location),
    (
        "Marker",
        "Marker",
        ElementContent::Repeated(EchoedParameter::Marker),
    ),
    ("MaxKeys", "MaxKeys", Value),
    ("MaxParts", "MaxParts", Value),
    ("MaxUploads", "MaxUploads", Value),
    ("Message", "Message", Message),
    ("Name", "Name", Name),
    ("NextContinuationToken", "NextContinuationToken", Value),
    ("NextKeyMarker", "NextKeyMarker", Next),
    ("NextMarker", "NextMarker", Next),
    ("NextPartNumberMarker", "NextPartNumberMarker", Value),
    ("NextUploadIdMarker", "NextUploadIdMarker", Value),
    ("NextVersionIdMarker", "NextVersionIdMarker", Value),
    ("Owner", "Owner", AccountHolder),
    ("Part", "Part", Elements),
    ("PartNumber", "PartNumber", Value),
    ("PartNumberMarker", "PartNumberMarker", Value),
    ("Prefix", "Prefix", Prefix),
    ("RequestId", "RequestId", Value),
    ("Resource", "Resource", Resource),
    ("RestoreExpiryDate", "RestoreExpiryDate", Value),
    ("RestoreStatus", "RestoreStatus", Elements),
    ("Size", "Size", Value),
    (
        "StartAfter",
        "StartAfter",
        ElementContent::Repeated(EchoedParameter::StartAfter),
    ),
    ("StorageClass", "StorageClass", Value),
    ("StorageTier", "StorageTier", Value),
    ("Tag", "Tag", Tag),
    ("TagSet", "TagSet", Elements),
    ("TraceId", "TraceId", Value),
    ("UID", "UID", Account),
    ("UIN", "UIN", Account),
    ("Upload", "Upload", Elements),
    ("UploadID", "UploadId", Value),
    ("UploadId", "UploadId", Value),
    ("UploadIdMarker", "UploadIdMarker", Value),
    ("Value", "Value", Value),
    ("Version", "Version", Elements),
    ("VersionId", "VersionId", Value),
    ("VersionIdMarker", "VersionIdMarker", Value),
];

impl Element {
    /// The element of a tag's inside, as S3 spells it, or as the store does for a client of COS's own
    /// API. A namespace's prefix and attributes go: they are declared at the root, which leaves as S3
    /// writes it.
    pub(super) fn of(inside: &[u8], native: bool) -> Result<Self, Unfit> {
        let name = local_name(inside);
        if let Some((own, s3, carries)) = known(name) {
            return Ok(Self {
                name: Cow::Borrowed(if native { own } else { s3 }),
                carries: *carries,
            });
        }
        let fits =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | 0x80..);
        let text = std::str::from_utf8(name).ok();
        let text = text.filter(|text| !text.is_empty() && name.iter().all(fits));
        let name = text.ok_or(Unfit::Malformed("a tag in COS's XML has no name"))?;
        Ok(Self {
            name: Cow::Owned(name.to_owned()),
            carries: ElementContent::Unknown,
        })
    }
}

/// Whether a tag's inside is that of an element that says how names are encoded.
pub(super) fn declares_encoding(inside: &[u8]) -> bool {
    known(local_name(inside)).is_some_and(|(_, _, carries)| *carries == EncodingType)
}

fn local_name(inside: &[u8]) -> &[u8] {
    let name = inside
        .split(|byte| byte.is_ascii_whitespace() || *byte == b'/')
        .next()
        .unwrap_or_default();
    name.rsplit(|byte| *byte == b':').next().unwrap_or_default()
}

fn known(name: &[u8]) -> Option<&'static (&'static str, &'static str, ElementContent)> {
    let at = TABLE.binary_search_by(|(own, _, _)| own.as_bytes().cmp(name));
    at.ok().and_then(|at| TABLE.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by(|(a, _, _), (b, _, _)| a < b));
        for (own, s3, carries) in TABLE {
            let found = Element::of(own.as_bytes(), false).unwrap();
            assert_eq!((&*found.name, found.carries), (*s3, *carries));
        }
    }

    #[test]
    fn a_name_stands_without_prefix_and_attributes() {
        for inside in [
            "s3:Key",
            "Key",
            "Key ",
            "Key/",
            "x:Key a='b:c'",
            "Key\txmlns='y'",
        ] {
            let found = Element::of(inside.as_bytes(), false).unwrap();
            assert_eq!((&*found.name, found.carries), ("Key", Key), "{inside}");
        }
        assert_eq!(Element::of(b"UploadID", true).unwrap().name, "UploadID");
        assert_eq!(
            Element::of(b"NewOne", true).unwrap().carries,
            ElementContent::Unknown
        );
        for inside in ["", ":", "a:", "a&b", "\"", "\u{1}"] {
            assert!(Element::of(inside.as_bytes(), false).is_err(), "{inside}");
        }
    }
}
