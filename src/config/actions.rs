//! The `actions` of a grant: presets, and COS's own names.

use super::problem::{Mistake, nearest, printable};

/// How COS prefixes its actions in a policy.
const SERVICE: &str = "name/cos:";

/// The presets, and the COS actions that each stands for.
pub(super) const PRESETS: [(&str, &[&str]); 3] = [
    (
        "list",
        &[
            "GetBucket",
            "GetBucketObjectVersions",
            "HeadBucket",
            "ListMultipartUploads",
        ],
    ),
    ("read", &["GetObject", "GetObjectTagging", "HeadObject"]),
    (
        "write",
        &[
            "AbortMultipartUpload",
            "CompleteMultipartUpload",
            "DeleteMultipleObjects",
            "DeleteObject",
            "DeleteObjectTagging",
            "InitiateMultipartUpload",
            "ListParts",
            "PostObject",
            "PutObject",
            // COS's pages differ on the action of a copy: both names are granted (436/31923).
            "PutObjectCopy",
            "PutObjectTagging",
            "UploadPart",
            "UploadPartCopy",
        ],
    ),
];

/// The full names (`name/cos:GetObject`) of what `written` stands for: a preset or one COS action.
pub(super) fn unfold(written: &str) -> Result<Vec<String>, Mistake> {
    let full = |name: &&str| format!("{SERVICE}{name}");
    if let Some((_, actions)) = PRESETS.iter().find(|(preset, _)| *preset == written) {
        return Ok(actions.iter().map(full).collect());
    }
    let name = written
        .strip_prefix(SERVICE)
        .or_else(|| written.strip_prefix("cos:"))
        .unwrap_or(written);
    if ACTIONS.binary_search(&name).is_ok() {
        return Ok(vec![full(&name)]);
    }
    let presets = PRESETS.iter().map(|(preset, _)| *preset);
    let fix = if name.contains('*') {
        "name each action, or use the presets read, write and list".to_owned()
    } else {
        match nearest(name, presets.chain(ACTIONS.iter().copied())) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "use the presets read, write and list, or a COS name such as \"GetObject\""
                .to_owned(),
        }
    };
    Err(Mistake::new(
        format!("`{}` is not a COS action", printable(written)),
        fix,
    ))
}

/// The full names of what an action of a CAM policy is about; a `*` may stand at its end.
pub(super) fn matching(written: &str) -> Result<Vec<String>, Mistake> {
    let name = (written.strip_prefix(SERVICE)).or_else(|| written.strip_prefix("cos:"));
    let name = name.or_else(|| (written == "*").then_some(written));
    let found: Vec<_> = match name.map(|name| (name, name.strip_suffix('*'))) {
        Some((_, Some(start))) => (ACTIONS.iter())
            .filter(|action| action.starts_with(start))
            .map(|action| format!("{SERVICE}{action}"))
            .collect(),
        Some((name, None)) => return unfold(&format!("{SERVICE}{name}")),
        None => Vec::new(),
    };
    if found.is_empty() {
        return Err(Mistake::new(
            format!("no action of COS is `{}`", printable(written)),
            "write a name such as name/cos:GetObject",
        ));
    }
    Ok(found)
}

/// The actions that read or change what is configured of a bucket as a whole, sorted: for a grant that is not
/// the whole of it they do nothing. `s3::Operation` has a row for each.
pub(crate) const OF_WHOLE_BUCKETS: [&str; 27] = [
    "DeleteBucketCORS",
    "DeleteBucketEncryption",
    "DeleteBucketLifecycle",
    "DeleteBucketReplication",
    "DeleteBucketTagging",
    "DeleteBucketWebsite",
    "GetBucketACL",
    "GetBucketAccelerate",
    "GetBucketCORS",
    "GetBucketEncryption",
    "GetBucketLifecycle",
    "GetBucketLogging",
    "GetBucketObjectLockConfiguration",
    "GetBucketReplication",
    "GetBucketTagging",
    "GetBucketVersioning",
    "GetBucketWebsite",
    "PutBucketACL",
    "PutBucketAccelerate",
    "PutBucketCORS",
    "PutBucketEncryption",
    "PutBucketLifecycle",
    "PutBucketLogging",
    "PutBucketObjectLockConfiguration",
    "PutBucketTagging",
    "PutBucketVersioning",
    "PutBucketWebsite",
];

/// Whether the action `written` does nothing for a grant that is not a whole bucket.
pub(super) fn is_of_whole_buckets(written: &str) -> bool {
    let name = written.strip_prefix(SERVICE);
    let name = name.or_else(|| written.strip_prefix("cos:"));
    OF_WHOLE_BUCKETS.contains(&name.unwrap_or(written))
}

/// Every COS action that is known, sorted (tests/vectors/cos-actions.json).
const ACTIONS: [&str; 83] = [
    "AbortMultipartUpload",
    "AppendObject",
    "CompleteMultipartUpload",
    "DeleteBucket",
    "DeleteBucketCORS",
    "DeleteBucketDomain",
    "DeleteBucketDomainCertificate",
    "DeleteBucketEncryption",
    "DeleteBucketInventory",
    "DeleteBucketLifecycle",
    "DeleteBucketOrigin",
    "DeleteBucketPolicy",
    "DeleteBucketReplication",
    "DeleteBucketTagging",
    "DeleteBucketWebsite",
    "DeleteMultipleObjects",
    "DeleteObject",
    "DeleteObjectTagging",
    "GetBucket",
    "GetBucketACL",
    "GetBucketAccelerate",
    "GetBucketCORS",
    "GetBucketDomain",
    "GetBucketDomainCertificate",
    "GetBucketEncryption",
    "GetBucketIntelligentTiering",
    "GetBucketInventory",
    "GetBucketLifecycle",
    "GetBucketLocation",
    "GetBucketLogging",
    "GetBucketNotification",
    "GetBucketObjectLockConfiguration",
    "GetBucketObjectVersions",
    "GetBucketOrigin",
    "GetBucketPolicy",
    "GetBucketReferer",
    "GetBucketReplication",
    "GetBucketTagging",
    "GetBucketVersioning",
    "GetBucketWebsite",
    "GetObject",
    "GetObjectACL",
    "GetObjectRetention",
    "GetObjectTagging",
    "GetService",
    "GetSymlink",
    "HeadBucket",
    "HeadObject",
    "InitiateMultipartUpload",
    "ListBucketInventory",
    "ListMultipartUploads",
    "ListParts",
    "OptionsObject",
    "PostObject",
    "PostObjectRestore",
    "PutBucket",
    "PutBucketACL",
    "PutBucketAccelerate",
    "PutBucketCORS",
    "PutBucketDomain",
    "PutBucketDomainCertificate",
    "PutBucketEncryption",
    "PutBucketIntelligentTiering",
    "PutBucketInventory",
    "PutBucketLifecycle",
    "PutBucketLogging",
    "PutBucketNotification",
    "PutBucketObjectLockConfiguration",
    "PutBucketOrigin",
    "PutBucketPolicy",
    "PutBucketReferer",
    "PutBucketReplication",
    "PutBucketTagging",
    "PutBucketVersioning",
    "PutBucketWebsite",
    "PutObject",
    "PutObjectACL",
    "PutObjectCopy",
    "PutObjectRetention",
    "PutObjectTagging",
    "PutSymlink",
    "UploadPart",
    "UploadPartCopy",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn knows_the_actions_of_the_vectors() {
        let text = include_str!("../../tests/vectors/cos-actions.json");
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut names = BTreeSet::new();
        for row in json["rows"].as_array().unwrap() {
            names.extend(row["cos_action"].as_str());
            names.extend(row["copy_source_action"].as_str());
            names.extend(
                row["also_grant"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(|name| name.as_str()),
            );
        }
        let names: Vec<_> = names
            .iter()
            .filter_map(|name| name.strip_prefix(SERVICE))
            .collect();
        assert_eq!(names, ACTIONS);
    }

    #[test]
    fn presets_are_made_of_known_actions() {
        for (_, actions) in PRESETS {
            assert!(actions.is_sorted());
            assert!(actions.iter().all(|name| ACTIONS.contains(name)));
        }
    }

    #[test]
    fn an_action_may_be_written_in_three_ways() {
        for written in ["GetObject", "cos:GetObject", "name/cos:GetObject"] {
            assert_eq!(
                unfold(written),
                Ok(vec!["name/cos:GetObject".to_owned()]),
                "{written}"
            );
        }
    }

    #[test]
    fn an_unknown_action_is_refused_with_the_one_that_was_meant() {
        for (written, meant) in [
            ("GetObjekt", "\"GetObject\""),
            ("reed", "\"read\""),
            ("cos:getobject", "\"GetObject\""),
        ] {
            let Err(mistake) = unfold(written) else {
                panic!("{written}")
            };
            assert!(mistake.fix.contains(meant), "{written}: {}", mistake.fix);
        }
        assert!(unfold("*").is_err());
        assert!(unfold("name/cos:*").is_err());
        assert!(unfold("name/ci:GetObject").is_err());
    }
}
