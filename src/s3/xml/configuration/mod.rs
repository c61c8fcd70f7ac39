//! Configuration documents of buckets and objects, translated from S3's terms into COS's and back.
//!
//! The tables below name every element that may stand there. A document is read by them and written anew at
//! once, so nothing passes that is not in one. S3's elements are those of its API reference; COS's those of
//! its pages 436/7737, 436/8279, 436/8280, 436/12633, 436/17054, 436/19222, 436/19889, 436/31930, 436/33412,
//! 436/34838, 436/40133, 436/40136 and 436/58039.

mod tables;
mod translation;

use super::document::{Document, Writer};
use crate::error::S3Error;
use crate::s3::Configuration;
use tables::{
    ACCELERATE, CORS, ENCRYPTION, LIFECYCLE, LOGGING, OBJECT_LOCK, REPLICATION, RESTORE, RETENTION,
    TAGGING, VERSIONING, WEBSITE,
};
use translation::{BucketNames, Translation};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) const ALL: [Configuration; 12] = [
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

    /// Each bucket has the same name on both sides.
    pub(super) const SAME: BucketNames<'static> = &|_, name| Some(name.to_owned());

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
