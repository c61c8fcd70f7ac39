//! Names of parameters that mean something to S3 or COS, and that no operation takes.

/// Why a name that is no parameter of the operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
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
pub(super) const RESERVED: &[(Reserved, &[&str])] = &[
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
        &["intelligent-tiering", "inventory", "select", "select-type"],
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
pub(super) const RESERVED_FAMILIES: &[&str] = &[
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

/// What the table has of `name`, written as the table has it.
pub(super) fn reserved(name: &str) -> Option<Reserved> {
    let mut rows = RESERVED.iter();
    let row = rows.find(|(_, names)| names.contains(&name));
    row.map(|(reserved, _)| *reserved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::operation::choice::is_selector;

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
}
