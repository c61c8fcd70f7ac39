//! What is configured of a bucket, or requested of an object, put from S3's terms into COS's and back.
//!
//! The tables below name every element that may stand there. A document is read by them and written anew at
//! once, so nothing passes that is not in one. S3's elements are those of its API reference; COS's those of
//! its pages 436/7737, 436/8279, 436/8280, 436/12633, 436/17054, 436/19222, 436/19889, 436/31930, 436/33412,
//! 436/34838, 436/40133, 436/40136 and 436/58039.

use std::borrow::Cow;

use super::document::{Document, Writer, malformed};
use super::requests::unknown;
use crate::error::{Code, S3Error};
use crate::s3::Configuration;
use crate::s3::query::shown;
use crate::s3::storage_class::{cos_class, s3_class};

/// Whose words a document is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// COS's own.
    Cos,
    /// S3's.
    S3,
}

/// An element that may stand in another one.
#[derive(Debug)]
struct ElementRow {
    /// Empty where S3 has none.
    s3: &'static str,
    /// Empty where COS has none; with a `/` where what S3 has in one element COS has in another one.
    cos: &'static str,
    may_repeat: bool,
    is_needed: bool,
    /// What COS means where it does not say it. S3 always says it.
    implied: &'static str,
    holds: Holds,
}

/// What an element holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    /// The name of a bucket.
    Bucket,
    /// The name of a bucket, in S3's long form (`arn:aws:s3:::…`) or COS's (`qcs::cos:<region>::…`).
    BucketResource,
    /// The name of a storage class.
    Class,
    /// A date.
    Date,
    /// What only one of them has. These values say what its absence says; others cannot be translated.
    Default(&'static [&'static str]),
    Elements(&'static [ElementRow]),
    /// A whole number.
    Number,
    /// Any text.
    Text,
    /// What the operator alone says: clients are not shown it, and cannot set it. The name of a key of KMS
    /// leads to the account.
    Withheld,
    /// One of these words: S3's and COS's, which is empty where COS has none.
    Words(&'static [(&'static str, &'static str)]),
}

const fn row(name: &'static str, holds: Holds) -> ElementRow {
    ElementRow {
        s3: name,
        cos: name,
        may_repeat: false,
        is_needed: false,
        implied: "",
        holds,
    }
}

const fn needed(name: &'static str, holds: Holds) -> ElementRow {
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

use Holds::{
    Bucket, BucketResource, Class, Date, Default, Elements, Number, Text, Withheld, Words,
};

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

const ACCELERATE: &[ElementRow] = &[
    row(
        "Status",
        Words(&[("Enabled", "Enabled"), ("Suspended", "Suspended")]),
    ),
    only_cos("Type", Default(&["COS"])),
];

const CORS: &[ElementRow] = &[
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

const ENCRYPTION: &[ElementRow] = &[some(
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

const LIFECYCLE: &[ElementRow] = &[some(
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

const LOGGING: &[ElementRow] = &[row(
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

const OBJECT_LOCK: &[ElementRow] = &[
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
const REPLICATION: &[ElementRow] = &[
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

const RETENTION: &[ElementRow] = &[LOCK_MODE, needed("RetainUntilDate", Date)];

const TIER: Holds = Words(&[
    ("Expedited", "Expedited"),
    ("Standard", "Standard"),
    ("Bulk", "Bulk"),
]);

const RESTORE: &[ElementRow] = &[
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

const TAGGING: &[ElementRow] = &[needed("TagSet", Elements(&[each("Tag", TAG)]))];

const VERSIONING: &[ElementRow] = &[
    row(
        "Status",
        Words(&[("Enabled", "Enabled"), ("Suspended", "Suspended")]),
    ),
    only_s3("MfaDelete", Default(&["Disabled"])),
];

const WEBSITE: &[ElementRow] = &[
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

impl Configuration {
    /// The maximum of its document in bytes. S3 takes 64 KiB of most, and 1000 rules of a lifecycle.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Lifecycle => 1 << 20,
            _ => 64 << 10,
        }
    }

    /// The root of its documents and what may stand in it. Access rights have a reader of their own.
    fn elements(self) -> (&'static str, &'static [ElementRow]) {
        match self {
            Self::Accelerate => ("AccelerateConfiguration", ACCELERATE),
            Self::Acl => ("AccessControlPolicy", &[]),
            Self::Cors => ("CORSConfiguration", CORS),
            Self::Encryption => ("ServerSideEncryptionConfiguration", ENCRYPTION),
            Self::Lifecycle => ("LifecycleConfiguration", LIFECYCLE),
            Self::Logging => ("BucketLoggingStatus", LOGGING),
            Self::ObjectLock => ("ObjectLockConfiguration", OBJECT_LOCK),
            Self::Replication => ("ReplicationConfiguration", REPLICATION),
            Self::Restore => ("RestoreRequest", RESTORE),
            Self::Retention => ("Retention", RETENTION),
            Self::Tagging => ("Tagging", TAGGING),
            Self::Versioning => ("VersioningConfiguration", VERSIONING),
            Self::Website => ("WebsiteConfiguration", WEBSITE),
        }
    }

    /// Puts what a client sends in the words of `from` into COS's. `buckets` gives the real name of the
    /// bucket that the client names.
    pub(crate) fn for_cos(
        self,
        body: &[u8],
        from: Vocabulary,
        buckets: BucketNames<'_>,
    ) -> Result<String, S3Error> {
        let translation = Translation {
            from,
            to: Vocabulary::Cos,
            is_response: false,
            buckets,
        };
        self.translated(body, translation)
    }

    /// Puts what COS returns into the words of `to`. `buckets` gives the client's name for a real bucket.
    pub(crate) fn for_client(
        self,
        body: &[u8],
        to: Vocabulary,
        buckets: BucketNames<'_>,
    ) -> Result<String, S3Error> {
        let translation = Translation {
            from: Vocabulary::Cos,
            to,
            is_response: true,
            buckets,
        };
        self.translated(body, translation)
    }

    fn translated(self, body: &[u8], translation: Translation<'_>) -> Result<String, S3Error> {
        let (root, rows) = self.elements();
        let mut document = Document::open(body, self.max_bytes(), root)?;
        let mut writer = match translation.to {
            Vocabulary::Cos => Writer::with_bare_root(root),
            Vocabulary::S3 => Writer::with_root(root),
        };
        translation.elements(&mut document, &mut writer, rows)?;
        document.close()?;
        Ok(writer.finish(root))
    }
}

impl ElementRow {
    fn name(&self, whose: Vocabulary) -> &'static str {
        match whose {
            Vocabulary::Cos => self.cos,
            Vocabulary::S3 => self.s3,
        }
    }
}

/// Gives the other side's name for a bucket of this name, and region if that is given too. `None` if the
/// client has no such bucket.
type BucketNames<'n> = &'n dyn Fn(Option<&str>, &str) -> Option<String>;

/// From whose words into whose.
#[derive(Clone, Copy)]
struct Translation<'n> {
    from: Vocabulary,
    to: Vocabulary,
    /// COS reports it, and no client.
    is_response: bool,
    buckets: BucketNames<'n>,
}

impl Translation<'_> {
    /// What stands in the current element, which is left.
    fn elements(
        self,
        document: &mut Document<'_>,
        writer: &mut Writer,
        rows: &'static [ElementRow],
    ) -> Result<(), S3Error> {
        let mut seen: Vec<&str> = Vec::new();
        while let Some(name) = document.child()? {
            let row = rows.iter().find(|row| row.name(self.from) == name);
            let row = row.ok_or_else(|| unknown(&name))?;
            let name = row.name(self.from);
            if !seen.contains(&name) {
                seen.push(name);
            } else if !row.may_repeat {
                return Err(malformed(&format!("an element has two {name}")));
            }
            self.element(document, writer, row)?;
        }
        let unstated = rows.iter().filter(|row| !row.implied.is_empty());
        for row in unstated.filter(|row| !seen.contains(&row.name(self.from))) {
            match (self.from, self.to) {
                (Vocabulary::Cos, Vocabulary::S3) => writer.element(row.s3, row.implied),
                (Vocabulary::Cos, Vocabulary::Cos) => {}
                (Vocabulary::S3, _) => {
                    return Err(malformed(&format!("an element has no {}", row.s3)));
                }
            }
        }
        let mut needed = rows.iter().filter(|row| row.is_needed);
        match needed.find(|row| !seen.contains(&row.name(self.from))) {
            Some(row) => Err(malformed(&format!(
                "an element has no {}",
                row.name(self.from)
            ))),
            None => Ok(()),
        }
    }

    fn element(
        self,
        document: &mut Document<'_>,
        writer: &mut Writer,
        row: &'static ElementRow,
    ) -> Result<(), S3Error> {
        let name = row.name(self.to);
        match row.holds {
            // All that stands in it has no name there either.
            Elements(rows) if name.is_empty() => self.elements(document, writer, rows),
            Elements(rows) => {
                writer.open_all(name);
                self.elements(document, writer, rows)?;
                writer.close_all(name);
                Ok(())
            }
            holds => {
                let text = document.text()?;
                if matches!(holds, Withheld) && self.is_response {
                    return Ok(());
                }
                if name.is_empty() || matches!(holds, Withheld) {
                    return self.check_default(row, holds, &text);
                }
                let text = self.text(row, holds, &text)?;
                writer.open_all(name);
                writer.text(&text);
                writer.close_all(name);
                Ok(())
            }
        }
    }

    /// Refuses what means something that the other side cannot say.
    fn check_default(self, row: &ElementRow, holds: Holds, text: &str) -> Result<(), S3Error> {
        match holds {
            Default(values) if values.contains(&text.trim()) => Ok(()),
            _ => Err(self.untranslatable(row.name(self.from))),
        }
    }

    /// A text in the words of the other side.
    fn text<'t>(
        self,
        row: &ElementRow,
        holds: Holds,
        text: &'t str,
    ) -> Result<Cow<'t, str>, S3Error> {
        let trimmed = text.trim();
        let fits = |fits: &dyn Fn(u8) -> bool| {
            !trimmed.is_empty() && trimmed.len() <= MAX_VALUE && trimmed.bytes().all(fits)
        };
        let wrong = || malformed(&format!("the value of {} is none", row.name(self.from)));
        let value = match holds {
            Elements(_) | Text | Withheld => return Ok(Cow::Borrowed(text)),
            Bucket | BucketResource => return self.bucket(row, trimmed).map(Cow::Owned),
            Class => {
                let class = match self.to {
                    Vocabulary::Cos => cos_class(trimmed),
                    Vocabulary::S3 => s3_class(trimmed),
                };
                return class.map(Cow::Borrowed).ok_or_else(|| {
                    let class = format!("StorageClass {}", shown(trimmed));
                    self.untranslatable(&class)
                });
            }
            Words(words) => {
                let word = |whose, (s3, cos): &(&'static str, &'static str)| match whose {
                    Vocabulary::Cos => *cos,
                    Vocabulary::S3 => *s3,
                };
                let mut matches = words.iter().filter(|_| !trimmed.is_empty());
                let pair = matches.find(|pair| word(self.from, pair) == trimmed);
                return match pair.map(|pair| word(self.to, pair)) {
                    Some("") => Err(self.untranslatable(&format!("{} {trimmed}", row.s3))),
                    Some(other) => Ok(Cow::Borrowed(other)),
                    None => Err(wrong()),
                };
            }
            Date => fits(&|byte| byte.is_ascii_alphanumeric() || b"-:.+".contains(&byte)),
            Default(_) => fits(&|byte| byte.is_ascii_graphic()),
            Number => fits(&|byte| byte.is_ascii_digit()),
        };
        if value {
            Ok(Cow::Borrowed(trimmed))
        } else {
            Err(wrong())
        }
    }

    /// The other side's name for the bucket that is `named`.
    fn bucket(self, row: &ElementRow, named: &str) -> Result<String, S3Error> {
        let (region, name) = match row.holds {
            BucketResource => named
                .strip_prefix("qcs::cos:")
                .and_then(|rest| rest.split_once("::"))
                .map_or((None, named), |(region, name)| (Some(region), name)),
            _ => (None, named),
        };
        let other = (self.buckets)(region, name);
        match (row.holds, self.to, other) {
            (Bucket, _, Some(other)) => Ok(other),
            (BucketResource, Vocabulary::S3, Some(other)) => Ok(format!("arn:aws:s3:::{other}")),
            (BucketResource, Vocabulary::Cos, Some(other)) if self.is_response => {
                let region = region.unwrap_or_default();
                Ok(format!("qcs::cos:{region}::{other}"))
            }
            (_, _, None) if !self.is_response => Err(S3Error::new(
                Code::AccessDenied,
                format!(
                    "Name a bucket of yours in {} that is in the same region, and that you may write to as a whole.",
                    row.name(self.from)
                ),
            )),
            _ => Err(self.untranslatable(row.name(self.from))),
        }
    }

    fn untranslatable(self, what: &str) -> S3Error {
        let text = match self.to {
            Vocabulary::Cos => {
                format!("Tencent COS has no counterpart of {what} with this value. Leave it out.")
            }
            Vocabulary::S3 => format!(
                "This bucket has a setting of Tencent COS, {what}, that S3 cannot say. Read it in the COS console."
            ),
        };
        S3Error::new(Code::NotImplemented, text)
    }
}

/// The longest number, date or flag.
const MAX_VALUE: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Configuration; 12] = [
        Configuration::Accelerate,
        Configuration::Cors,
        Configuration::Encryption,
        Configuration::Lifecycle,
        Configuration::Logging,
        Configuration::ObjectLock,
        Configuration::Replication,
        Configuration::Restore,
        Configuration::Retention,
        Configuration::Tagging,
        Configuration::Versioning,
        Configuration::Website,
    ];

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

    /// Each bucket has the same name on both sides.
    const SAME: BucketNames<'static> = &|_, name| Some(name.to_owned());

    #[test]
    fn what_cos_implies_is_stated_to_s3_and_demanded_of_it() {
        let until = "<RetainUntilDate>2030-01-01T00:00:00.000Z</RetainUntilDate>";
        let without = format!("<Retention>{until}</Retention>");
        let kind = Configuration::Retention;
        let read = kind.for_client(without.as_bytes(), Vocabulary::S3, SAME);
        assert!(read.unwrap().contains("<Mode>COMPLIANCE</Mode>"));
        let read = kind.for_client(without.as_bytes(), Vocabulary::Cos, SAME);
        assert!(!read.unwrap().contains("Mode"));
        let sent = kind.for_cos(without.as_bytes(), Vocabulary::S3, SAME);
        assert_eq!(sent.unwrap_err().code(), Code::MalformedXML);
        assert!(
            kind.for_cos(without.as_bytes(), Vocabulary::Cos, SAME)
                .is_ok()
        );
        for (mode, code) in [
            ("GOVERNANCE", Code::NotImplemented),
            ("", Code::MalformedXML),
            ("compliance", Code::MalformedXML),
        ] {
            let document = format!("<Retention><Mode>{mode}</Mode>{until}</Retention>");
            let sent = kind.for_cos(document.as_bytes(), Vocabulary::S3, SAME);
            assert_eq!(sent.unwrap_err().code(), code, "{mode}");
        }
    }

    #[test]
    fn a_bucket_of_another_is_never_named() {
        let document = "<ReplicationConfiguration><Role>qcs::cam::uin/1:uin/1</Role><Rule><Status>Enabled</Status>\
            <Destination><Bucket>qcs::cos:ap-beijing::copy-1250000000</Bucket></Destination></Rule></ReplicationConfiguration>";
        let read = |words, buckets: BucketNames<'_>| {
            Configuration::Replication.for_client(document.as_bytes(), words, buckets)
        };
        let own: BucketNames<'_> = &|region, name| {
            let is_own = (region, name) == (Some("ap-beijing"), "copy-1250000000");
            is_own.then(|| "copy".to_owned())
        };
        for (words, bucket) in [
            (Vocabulary::S3, "arn:aws:s3:::copy"),
            (Vocabulary::Cos, "qcs::cos:ap-beijing::copy"),
        ] {
            let shown = read(words, own).unwrap();
            assert!(
                shown.contains(&format!("<Bucket>{bucket}</Bucket>")),
                "{shown}"
            );
            assert!(
                !shown.contains("uin") && !shown.contains("1250000000"),
                "{shown}"
            );
            let refused = read(words, &|_, _| None).unwrap_err();
            assert_eq!(refused.code(), Code::NotImplemented);
            assert!(!refused.message().contains("1250000000"), "{refused}");
        }
    }

    #[test]
    fn a_client_of_coss_own_api_reads_and_writes_coss_words() {
        let document = "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>\
                        </CORSRule><ResponseVary>true</ResponseVary></CORSConfiguration>";
        let sent = Configuration::Cors.for_cos(document.as_bytes(), Vocabulary::Cos, SAME);
        assert!(sent.unwrap().ends_with(document));
        let read = Configuration::Cors.for_client(document.as_bytes(), Vocabulary::Cos, SAME);
        assert!(read.unwrap().ends_with(document));
        let read = Configuration::Cors.for_client(document.as_bytes(), Vocabulary::S3, SAME);
        assert!(!read.unwrap().contains("ResponseVary"));
        let refused = Configuration::Cors.for_cos(document.as_bytes(), Vocabulary::S3, SAME);
        assert_eq!(refused.unwrap_err().code(), Code::MalformedXML);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        /// Whatever comes, what is written can be read again and stays as it is.
        #[test]
        fn what_is_written_is_of_the_tables(
            which in 0..ALL.len(),
            inside in "(<Rule>|</Rule>|<Filter/>|<Status>Enabled</Status>|<TagSet>|</TagSet>|<Tag><Key>k</Key><Value>v</Value></Tag>|<Prefix>&amp;</Prefix>|<ID>1</ID>|x|<!--c-->){0,12}",
        ) {
            let kind = ALL[which];
            let (root, _) = kind.elements();
            let document = format!("<{root}>{inside}</{root}>");
            if let Ok(written) = kind.for_cos(document.as_bytes(), Vocabulary::S3, SAME) {
                let again = kind.for_cos(written.as_bytes(), Vocabulary::Cos, SAME);
                prop_assert_eq!(again.unwrap(), written);
            }
        }
    }
}
