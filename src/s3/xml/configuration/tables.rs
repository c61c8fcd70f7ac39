//! The elements of each document, in S3's words and COS's.

use super::Holds::{
    Bucket, BucketResource, Class, Date, Default, Elements, Number, Text, Withheld, Words,
};

use super::{ElementRow, Holds};

pub(super) const fn row(name: &'static str, holds: Holds) -> ElementRow {
    ElementRow {
        s3: name,
        cos: name,
        may_repeat: false,
        is_needed: false,
        implied: "",
        holds,
    }
}

pub(super) const fn needed(name: &'static str, holds: Holds) -> ElementRow {
    ElementRow {
        is_needed: true,
        ..row(name, holds)
    }
}

const fn each(name: &'static str, holds: Holds) -> ElementRow {
    ElementRow {
        may_repeat: true,
        ..row(name, holds)
    }
}

/// At least one.
const fn some(name: &'static str, holds: Holds) -> ElementRow {
    ElementRow {
        may_repeat: true,
        ..needed(name, holds)
    }
}

const fn only_s3(name: &'static str, holds: Holds) -> ElementRow {
    ElementRow {
        cos: "",
        ..row(name, holds)
    }
}

const fn only_cos(name: &'static str, holds: Holds) -> ElementRow {
    ElementRow {
        s3: "",
        ..row(name, holds)
    }
}

/// Nothing of it can be translated.
const NEVER: Holds = Default(&[]);

const STATUS: Holds = Words(&[("Enabled", "Enabled"), ("Disabled", "Disabled")]);

const FLAG: Holds = Words(&[("true", "true"), ("false", "false")]);

/// COS's locks are never lifted before their time.
const LOCK_MODE: ElementRow = ElementRow {
    implied: "COMPLIANCE",
    ..row(
        "Mode",
        Words(&[("COMPLIANCE", "COMPLIANCE"), ("GOVERNANCE", "")]),
    )
};

const PROTOCOL: Holds = Words(&[("http", "http"), ("https", "https")]);

pub(super) const ACCELERATE: &[ElementRow] = &[
    row(
        "Status",
        Words(&[("Enabled", "Enabled"), ("Suspended", "Suspended")]),
    ),
    only_cos("Type", Default(&["COS"])),
];

pub(super) const CORS: &[ElementRow] = &[
    some(
        "CORSRule",
        Elements(&[
            row("ID", Text),
            some("AllowedOrigin", Text),
            some(
                "AllowedMethod",
                Words(&[
                    ("GET", "GET"),
                    ("PUT", "PUT"),
                    ("HEAD", "HEAD"),
                    ("POST", "POST"),
                    ("DELETE", "DELETE"),
                ]),
            ),
            each("AllowedHeader", Text),
            each("ExposeHeader", Text),
            row("MaxAgeSeconds", Number),
        ]),
    ),
    // Caches alone see the difference; S3 has no choice.
    only_cos("ResponseVary", Default(&["true", "false"])),
];

pub(super) const ENCRYPTION: &[ElementRow] = &[some(
    "Rule",
    Elements(&[
        needed(
            "ApplyServerSideEncryptionByDefault",
            Elements(&[
                needed(
                    "SSEAlgorithm",
                    Words(&[("AES256", "AES256"), ("aws:kms", "KMS")]),
                ),
                row("KMSMasterKeyID", Withheld),
            ]),
        ),
        only_s3("BucketKeyEnabled", Default(&["false"])),
    ]),
)];

const TAG: Holds = Elements(&[needed("Key", Text), needed("Value", Text)]);

const GREATER: ElementRow = row("ObjectSizeGreaterThan", Number);

const LESS: ElementRow = row("ObjectSizeLessThan", Number);

pub(super) const LIFECYCLE: &[ElementRow] = &[some(
    "Rule",
    Elements(&[
        row("ID", Text),
        // The form of S3 from before there were filters.
        ElementRow {
            cos: "Filter/Prefix",
            ..row("Prefix", Text)
        },
        row("Prefix", Text),
        row(
            "Filter",
            Elements(&[
                row(
                    "And",
                    Elements(&[
                        row("Prefix", Text),
                        only_cos("PrefixNotEquals", NEVER),
                        each("Tag", TAG),
                        GREATER,
                        LESS,
                    ]),
                ),
                row("Prefix", Text),
                only_cos("PrefixNotEquals", NEVER),
                row("Tag", TAG),
                GREATER,
                LESS,
            ]),
        ),
        needed("Status", STATUS),
        each("Transition", Elements(TRANSITION)),
        row(
            "Expiration",
            Elements(&[
                row("Days", Number),
                row("Date", Date),
                row("ExpiredObjectDeleteMarker", FLAG),
            ]),
        ),
        each(
            "NoncurrentVersionTransition",
            Elements(&[
                row("NoncurrentDays", Number),
                only_s3("NewerNoncurrentVersions", NEVER),
                needed("StorageClass", Class),
            ]),
        ),
        row(
            "NoncurrentVersionExpiration",
            Elements(&[
                row("NoncurrentDays", Number),
                only_s3("NewerNoncurrentVersions", NEVER),
            ]),
        ),
        row(
            "AbortIncompleteMultipartUpload",
            Elements(&[needed("DaysAfterInitiation", Number)]),
        ),
    ]),
)];

const TRANSITION: &[ElementRow] = &[
    row("Days", Number),
    row("Date", Date),
    needed("StorageClass", Class),
];

pub(super) const LOGGING: &[ElementRow] = &[row(
    "LoggingEnabled",
    Elements(&[
        needed("TargetBucket", Bucket),
        row("TargetPrefix", Text),
        // Accounts of AWS's, which may read the logs.
        only_s3(
            "TargetGrants",
            Elements(&[only_s3(
                "Grant",
                Elements(&[
                    only_s3("Grantee", Elements(GRANTEE)),
                    only_s3("Permission", NEVER),
                ]),
            )]),
        ),
        // COS's logs have names of their own.
        only_s3(
            "TargetObjectKeyFormat",
            Elements(&[
                only_s3("SimplePrefix", NEVER),
                only_s3(
                    "PartitionedPrefix",
                    Elements(&[only_s3("PartitionDateSource", NEVER)]),
                ),
            ]),
        ),
    ]),
)];

const GRANTEE: &[ElementRow] = &[
    only_s3("DisplayName", NEVER),
    only_s3("EmailAddress", NEVER),
    only_s3("ID", NEVER),
    only_s3("URI", NEVER),
];

pub(super) const OBJECT_LOCK: &[ElementRow] = &[
    row("ObjectLockEnabled", Words(&[("Enabled", "Enabled")])),
    row(
        "Rule",
        Elements(&[needed(
            "DefaultRetention",
            Elements(&[LOCK_MODE, row("Days", Number), only_s3("Years", NEVER)]),
        )]),
    ),
];

/// It is read alone: the account in it is the operator's.
pub(super) const REPLICATION: &[ElementRow] = &[
    row("Role", Withheld),
    each(
        "Rule",
        Elements(&[
            row("ID", Text),
            row("Prefix", Text),
            needed("Status", STATUS),
            needed(
                "Destination",
                Elements(&[needed("Bucket", BucketResource), row("StorageClass", Class)]),
            ),
            row(
                "DeleteMarkerReplication",
                Elements(&[needed("Status", STATUS)]),
            ),
        ]),
    ),
];

pub(super) const RETENTION: &[ElementRow] = &[LOCK_MODE, needed("RetainUntilDate", Date)];

const TIER: Holds = Words(&[
    ("Expedited", "Expedited"),
    ("Standard", "Standard"),
    ("Bulk", "Bulk"),
]);

pub(super) const RESTORE: &[ElementRow] = &[
    needed("Days", Number),
    ElementRow {
        cos: "CASJobParameters",
        ..row("GlacierJobParameters", Elements(&[needed("Tier", TIER)]))
    },
    // Of a restore that is a query.
    only_s3("Type", NEVER),
    only_s3("Tier", NEVER),
    only_s3("Description", NEVER),
];

pub(super) const TAGGING: &[ElementRow] = &[needed("TagSet", Elements(&[each("Tag", TAG)]))];

pub(super) const VERSIONING: &[ElementRow] = &[
    row(
        "Status",
        Words(&[("Enabled", "Enabled"), ("Suspended", "Suspended")]),
    ),
    only_s3("MfaDelete", Default(&["Disabled"])),
];

pub(super) const WEBSITE: &[ElementRow] = &[
    row("IndexDocument", Elements(&[needed("Suffix", Text)])),
    row(
        "ErrorDocument",
        Elements(&[
            needed("Key", Text),
            only_cos("OriginalHttpStatus", Default(&["Enabled"])),
        ]),
    ),
    // S3's is to another host, COS's to another protocol.
    only_s3(
        "RedirectAllRequestsTo",
        Elements(&[only_s3("HostName", NEVER), only_s3("Protocol", NEVER)]),
    ),
    only_cos(
        "RedirectAllRequestsTo",
        Elements(&[only_cos("Protocol", NEVER)]),
    ),
    only_cos(
        "AutoAddressing",
        Elements(&[only_cos("Status", Default(&["Disabled"]))]),
    ),
    row(
        "RoutingRules",
        Elements(&[each(
            "RoutingRule",
            Elements(&[
                row(
                    "Condition",
                    Elements(&[
                        row("HttpErrorCodeReturnedEquals", Number),
                        row("KeyPrefixEquals", Text),
                    ]),
                ),
                needed(
                    "Redirect",
                    Elements(&[
                        only_s3("HostName", NEVER),
                        only_s3("HttpRedirectCode", NEVER),
                        row("Protocol", PROTOCOL),
                        row("ReplaceKeyPrefixWith", Text),
                        row("ReplaceKeyWith", Text),
                    ]),
                ),
            ]),
        )]),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::xml::configuration::tests::ALL;

    /// Every list of rows that is in a table.
    fn lists(rows: &'static [ElementRow]) -> Vec<&'static [ElementRow]> {
        let inner = rows.iter().filter_map(|row| match row.holds {
            Elements(rows) => Some(lists(rows)),
            _ => None,
        });
        let mut all: Vec<_> = inner.flatten().collect();
        all.push(rows);
        all
    }

    #[test]
    fn what_one_side_lacks_holds_nothing_that_it_has_and_is_never_needed() {
        for kind in ALL {
            for rows in lists(kind.elements().1) {
                for row in rows {
                    let is_of_one = row.s3.is_empty() || row.cos.is_empty();
                    let Elements(inner) = row.holds else {
                        let is_default = matches!(row.holds, Default(_));
                        assert_eq!(is_default, is_of_one, "{kind:?} {row:?}");
                        continue;
                    };
                    let same = |name: &str, inner: &str| !name.is_empty() || inner.is_empty();
                    for inner in inner {
                        assert!(
                            same(row.s3, inner.s3) && same(row.cos, inner.cos),
                            "{inner:?}"
                        );
                    }
                    assert!(!(is_of_one && row.is_needed), "{row:?}");
                }
            }
        }
    }
}
