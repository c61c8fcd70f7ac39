//! Behaviours of the embedded COS that differ between stores, or that COS does not document. `cosgate doctor`
//! finds each of them out. Pure.

use serde::{Deserialize, Serialize};

/// How COS behaves in one point, unlike the embedded COS by default.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CosBehaviour {
    /// Accepts a browser's form with a policy of AWS.
    AcceptsAwsForms,
    /// Accepts an `aws-chunked` body, and stores it with its frames.
    AcceptsChunkedUploads,
    /// Accepts keys of more than 850 bytes.
    AcceptsLongKeys,
    /// Accepts metadata with any name, and of any length.
    AcceptsOddMetadata,
    /// Accepts path style at the host of a region.
    AcceptsPathStyle,
    /// Accepts the source of a copy in the form of either signature.
    AcceptsEitherCopySource,
    /// Accepts a body whose chunks are signed, and stores what is in them.
    AcceptsSignedChunks,
    /// Accepts headers and parameters that the signature does not cover: no strict mode.
    AcceptsUnsignedHeaders,
    /// Compares the `ChecksumCRC32` of each part when an upload is completed.
    ChecksPartChecksums,
    /// Stores an object under its key without empty segments and without `.` and `..`.
    CleansKeys,
    /// Responds to a key with a wrong token with `AccessDenied`, as to a key without the right.
    DeniesWrongTokens,
    /// Ignores the end of a key's life.
    IgnoresExpiry,
    /// Ignores `x-cos-forbid-overwrite`.
    IgnoresForbidOverwrite,
    /// Ignores the checksums of parts when an upload is completed.
    IgnoresPartChecksums,
    /// Ignores the policy of a temporary key.
    IgnoresPolicies,
    /// Ignores `prefix` of a listing.
    IgnoresPrefix,
    /// Ignores when a request was signed.
    IgnoresTime,
    /// Ignores a missing or wrong token of a temporary key.
    IgnoresTokens,
    /// Keeps `x-cos-forbid-overwrite` in a bucket with versions too.
    KeepsForbidOverwrite,
    /// Keeps `If-None-Match: *` of uploads.
    KeepsIfNoneMatch,
    /// Lists by version 2 beside COS's signature too.
    ListsByVersion2,
    /// Leaves out the key that follows a page of a listing.
    LosesKeysBetweenPages,
    /// Offers HTTP/2 in a TLS handshake. It is not spoken.
    OffersHttp2,
    /// Reads the first of two parameters with one name, and ignores the other.
    ReadsFirstParameter,
    /// Reads the last of two parameters with one name, and ignores the other.
    ReadsLastParameter,
    /// Reads an encoded `+` of a listing's prefix as a space.
    ReadsPlusAsSpace,
    /// Reads `x-amz-acl` beside COS's signature too.
    ReadsS3Acl,
    /// Reads `x-amz-copy-source` beside COS's signature too.
    ReadsS3CopySource,
    /// Reads metadata in S3's words beside COS's signature too.
    ReadsS3Metadata,
    /// Responds to `Expect: 100-continue` with 417.
    RefusesExpect,
    /// Responds to the storage class `GLACIER` with 400.
    RefusesGlacier,
    /// Responds to metadata beyond ASCII with 400.
    RefusesTextMetadata,
    /// Responds to metadata with an upper-case letter in its name with 400.
    RefusesUpperCaseMetadata,
    /// Begins a page of a listing with the last key of the page before.
    RepeatsKeysOnPages,
    /// Stores what has arrived of a part that is cut.
    StoresCutParts,
    /// Stores what has arrived of an upload that is cut.
    StoresCutUploads,
    /// Tells no CRC-64, and an `ETag` that is the MD5.
    TellsNoCrc64,
    /// Tells neither a CRC-64 nor the MD5.
    TellsNoDigest,
    /// Tells a CRC-64 of something else.
    TellsWrongCrc64,
}

/// A set of behaviours.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behaviours(u64);

impl Behaviours {
    pub(super) fn add(&mut self, behaviour: CosBehaviour) {
        self.0 |= Self::bit(behaviour);
    }

    pub(super) fn has(self, behaviour: CosBehaviour) -> bool {
        self.0 & Self::bit(behaviour) != 0
    }

    fn bit(behaviour: CosBehaviour) -> u64 {
        1 << behaviour as u64
    }
}

/// `key` without empty segments and without `.` and `..`.
pub(super) fn cleaned(key: &str) -> String {
    let mut segments = Vec::new();
    for segment in key.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added() {
        let mut set = Behaviours::default();
        set.add(CosBehaviour::AcceptsChunkedUploads);
        set.add(CosBehaviour::TellsWrongCrc64);
        assert!(set.has(CosBehaviour::AcceptsChunkedUploads));
        assert!(set.has(CosBehaviour::TellsWrongCrc64));
        assert!(!set.has(CosBehaviour::TellsNoDigest));
    }

    #[test]
    fn cleans_keys() {
        assert_eq!(cleaned("a//./b/../c"), "a/c");
    }
}
