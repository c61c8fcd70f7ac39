//! The actions of AWS's policies, and what each is of COS's: one table.

/// What an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// The bucket itself.
    Bucket,
    /// A key.
    Key,
    /// A listing, which a condition may hold to a prefix.
    Listing,
    /// A version of a key, which the request names.
    Version,
}

/// One action of AWS's.
#[derive(Debug)]
pub struct AwsAction {
    /// Its name, without `s3:`.
    pub name: &'static str,
    /// What it is about.
    pub kind: ActionKind,
    /// What it allows, in COS's names without `name/cos:`; none where cosgate needs no right of COS.
    cos: &'static [&'static str],
}

/// A set of [`AWS_ACTIONS`], by their places in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionSet(u64);

const SERVICE: &str = "name/cos:";
const S3: &str = "s3:";
const UPLOADS: &[&str] = &[
    "CompleteMultipartUpload",
    "InitiateMultipartUpload",
    "PostObject",
    "PutObject",
    "PutObjectCopy",
    "UploadPart",
    "UploadPartCopy",
];

const fn row(name: &'static str, kind: ActionKind, cos: &'static [&'static str]) -> AwsAction {
    AwsAction { name, kind, cos }
}

/// Every action of S3 that cosgate knows, by name (AWS's service authorization reference, S3).
const AWS_ACTIONS: &[AwsAction] = {
    use ActionKind::{Bucket, Key, Listing, Version};
    &[
        row("AbortMultipartUpload", Key, &["AbortMultipartUpload"]),
        row("CreateBucket", Bucket, &["PutBucket"]),
        row("DeleteBucketPolicy", Bucket, &["DeleteBucketPolicy"]),
        row("DeleteBucketWebsite", Bucket, &["DeleteBucketWebsite"]),
        row(
            "DeleteObject",
            Key,
            &["DeleteMultipleObjects", "DeleteObject"],
        ),
        row("DeleteObjectTagging", Key, &["DeleteObjectTagging"]),
        row(
            "DeleteObjectVersion",
            Version,
            &["DeleteMultipleObjects", "DeleteObject"],
        ),
        row(
            "DeleteObjectVersionTagging",
            Version,
            &["DeleteObjectTagging"],
        ),
        row(
            "GetAccelerateConfiguration",
            Bucket,
            &["GetBucketAccelerate"],
        ),
        row("GetBucketAcl", Bucket, &["GetBucketACL"]),
        row("GetBucketCORS", Bucket, &["GetBucketCORS"]),
        row("GetBucketLocation", Bucket, &["GetBucketLocation"]),
        row("GetBucketLogging", Bucket, &["GetBucketLogging"]),
        row("GetBucketNotification", Bucket, &["GetBucketNotification"]),
        row(
            "GetBucketObjectLockConfiguration",
            Bucket,
            &["GetBucketObjectLockConfiguration"],
        ),
        row("GetBucketOwnershipControls", Bucket, &[]),
        row("GetBucketPolicy", Bucket, &["GetBucketPolicy"]),
        row("GetBucketPolicyStatus", Bucket, &[]),
        row("GetBucketPublicAccessBlock", Bucket, &[]),
        row("GetBucketRequestPayment", Bucket, &[]),
        row("GetBucketTagging", Bucket, &["GetBucketTagging"]),
        row("GetBucketVersioning", Bucket, &["GetBucketVersioning"]),
        row("GetBucketWebsite", Bucket, &["GetBucketWebsite"]),
        row(
            "GetEncryptionConfiguration",
            Bucket,
            &["GetBucketEncryption"],
        ),
        row("GetLifecycleConfiguration", Bucket, &["GetBucketLifecycle"]),
        row("GetObject", Key, &["GetObject", "HeadObject"]),
        row("GetObjectAcl", Key, &["GetObjectACL"]),
        row("GetObjectAttributes", Key, &[]),
        row("GetObjectLegalHold", Key, &[]),
        row("GetObjectRetention", Key, &["GetObjectRetention"]),
        row("GetObjectTagging", Key, &["GetObjectTagging"]),
        row("GetObjectVersion", Version, &["GetObject", "HeadObject"]),
        row("GetObjectVersionAcl", Version, &["GetObjectACL"]),
        row("GetObjectVersionAttributes", Version, &[]),
        row("GetObjectVersionTagging", Version, &["GetObjectTagging"]),
        row(
            "GetReplicationConfiguration",
            Bucket,
            &["GetBucketReplication"],
        ),
        row("ListAllMyBuckets", Bucket, &["GetService"]),
        row("ListBucket", Listing, &["GetBucket"]),
        row(
            "ListBucketMultipartUploads",
            Listing,
            &["ListMultipartUploads"],
        ),
        row("ListBucketVersions", Listing, &["GetBucketObjectVersions"]),
        row("ListMultipartUploadParts", Key, &["ListParts"]),
        row(
            "PutAccelerateConfiguration",
            Bucket,
            &["PutBucketAccelerate"],
        ),
        row("PutBucketAcl", Bucket, &["PutBucketACL"]),
        row(
            "PutBucketCORS",
            Bucket,
            &["DeleteBucketCORS", "PutBucketCORS"],
        ),
        row("PutBucketLogging", Bucket, &["PutBucketLogging"]),
        row(
            "PutBucketObjectLockConfiguration",
            Bucket,
            &["PutBucketObjectLockConfiguration"],
        ),
        row("PutBucketPolicy", Bucket, &["PutBucketPolicy"]),
        row(
            "PutBucketTagging",
            Bucket,
            &["DeleteBucketTagging", "PutBucketTagging"],
        ),
        row("PutBucketVersioning", Bucket, &["PutBucketVersioning"]),
        row("PutBucketWebsite", Bucket, &["PutBucketWebsite"]),
        row(
            "PutEncryptionConfiguration",
            Bucket,
            &["DeleteBucketEncryption", "PutBucketEncryption"],
        ),
        row(
            "PutLifecycleConfiguration",
            Bucket,
            &["DeleteBucketLifecycle", "PutBucketLifecycle"],
        ),
        row("PutObject", Key, UPLOADS),
        row("PutObjectAcl", Key, &["PutObjectACL"]),
        row("PutObjectRetention", Key, &["PutObjectRetention"]),
        row("PutObjectTagging", Key, &["PutObjectTagging"]),
        row("PutObjectVersionAcl", Version, &["PutObjectACL"]),
        row("PutObjectVersionTagging", Version, &["PutObjectTagging"]),
        // S3's right to remove one too; COS's other right, to set one up, is not offered.
        row(
            "PutReplicationConfiguration",
            Bucket,
            &["DeleteBucketReplication"],
        ),
        row("RestoreObject", Key, &["PostObjectRestore"]),
    ]
};

impl ActionSet {
    /// What an `Action` of a policy names: `s3:GetObject`, with `*` for any run of characters and case
    /// that does not matter, or `*` alone. Empty where nothing has such a name.
    pub fn named(written: &str) -> Self {
        let written = written.to_ascii_lowercase();
        let pattern = super::key_glob::KeyGlob::new(&written);
        Self::of(|action| pattern.matches(&format!("{S3}{}", action.name).to_ascii_lowercase()))
    }

    /// Each that has the right `cos` (`name/cos:…`): on a version that the request names, or else on the
    /// latest. Actions that do not distinguish versions are in both.
    pub fn granting(cos: &str, on_version: bool) -> Self {
        let all = Self::of(|action| action.grants(cos));
        let versions = all.and(Self::of(|action| action.kind == ActionKind::Version));
        if on_version && !versions.is_empty() {
            return versions;
        }
        Self(all.0 & !versions.0)
    }

    /// Each that has the right `cos`, on whatever version.
    pub fn granting_any(cos: &str) -> Self {
        Self::of(|action| action.grants(cos))
    }

    /// Each of this kind.
    pub fn of_kind(kind: ActionKind) -> Self {
        Self::of(|action| action.kind == kind)
    }

    /// All of them.
    pub fn all() -> Self {
        Self::of(|_| true)
    }

    fn of(is_in: impl Fn(&AwsAction) -> bool) -> Self {
        let all = AWS_ACTIONS.iter().enumerate();
        let set = all.filter(|(_, action)| is_in(action));
        Self(set.fold(0, |set, (place, _)| set | 1 << place))
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `other` has something of it.
    pub fn meets(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    /// Whether it has all of `other`.
    pub fn has_all(self, other: Self) -> bool {
        self.and(other) == other
    }
}

impl AwsAction {
    fn grants(&self, cos: &str) -> bool {
        let name = cos.strip_prefix(SERVICE);
        name.is_some_and(|name| self.cos.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::unfold_action;

    #[test]
    fn the_table_fits_a_set_and_has_each_name_once() {
        assert!(AWS_ACTIONS.len() <= 64);
        assert!(AWS_ACTIONS.is_sorted_by(|one, next| one.name < next.name));
    }

    #[test]
    fn every_right_is_one_that_cos_has_and_the_presets_are_all_reached() {
        for action in AWS_ACTIONS {
            for name in action.cos {
                assert!(unfold_action(name).is_ok(), "{}: {name}", action.name);
            }
        }
        for preset in ["list", "read", "write"] {
            for cos in unfold_action(preset).unwrap() {
                let is_reached = !ActionSet::granting_any(&cos).is_empty();
                assert!(is_reached || cos == "name/cos:HeadBucket", "{cos}");
            }
        }
    }

    #[test]
    fn actions_are_named_in_any_case_and_by_patterns() {
        let one = ActionSet::named("s3:GetObject");
        assert_eq!(one, ActionSet::named("S3:getobject"));
        assert!(ActionSet::named("s3:Get*").has_all(one));
        assert_eq!(ActionSet::named("s3:*"), ActionSet::all());
        assert_eq!(ActionSet::named("*"), ActionSet::all());
        for written in [
            "",
            "GetObject",
            "s3:GetObjekt",
            "kms:*",
            "s3:",
            "s3:GetObject ",
        ] {
            assert!(ActionSet::named(written).is_empty(), "{written}");
        }
    }

    #[test]
    fn versions_have_actions_of_their_own() {
        let read = "name/cos:GetObject";
        assert_eq!(
            ActionSet::granting(read, false),
            ActionSet::named("s3:GetObject")
        );
        assert_eq!(
            ActionSet::granting(read, true),
            ActionSet::named("s3:GetObjectVersion")
        );
        let put = "name/cos:PutObject";
        assert_eq!(
            ActionSet::granting(put, true),
            ActionSet::granting(put, false)
        );
    }
}
