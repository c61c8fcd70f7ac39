//! Sessions: a policy in AWS's words, as AWS evaluates it, and the key of the session that it narrows.

use proptest::prelude::*;

use super::{FenceKey, is_listing, names, operations, proxy_allows, some_cos_name, some_tenant};
use crate::config;
use crate::s3::Operation;
use crate::tenant::Tenant;
use crate::tenant::policy::client_policy;

/// The actions that S3 checks for an operation, on the latest version and on one that the request names
/// (AWS's "Actions, resources, and condition keys for Amazon S3").
fn of_aws(operation: Operation) -> Option<[&'static str; 2]> {
    Some(match operation {
        Operation::AbortMultipartUpload => ["s3:AbortMultipartUpload"; 2],
        Operation::CompleteMultipartUpload
        | Operation::CreateMultipartUpload
        | Operation::PutObject
        | Operation::UploadPart => ["s3:PutObject"; 2],
        Operation::DeleteObject | Operation::DeleteObjects => {
            ["s3:DeleteObject", "s3:DeleteObjectVersion"]
        }
        Operation::DeleteObjectTagging => {
            ["s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"]
        }
        Operation::GetObject | Operation::HeadObject => ["s3:GetObject", "s3:GetObjectVersion"],
        Operation::GetObjectTagging => ["s3:GetObjectTagging", "s3:GetObjectVersionTagging"],
        Operation::ListMultipartUploads => ["s3:ListBucketMultipartUploads"; 2],
        Operation::ListObjects | Operation::ListObjectsV2 => ["s3:ListBucket"; 2],
        Operation::ListObjectVersions => ["s3:ListBucketVersions"; 2],
        Operation::ListParts => ["s3:ListMultipartUploadParts"; 2],
        Operation::PutObjectTagging => ["s3:PutObjectTagging", "s3:PutObjectVersionTagging"],
        _ => return None,
    })
}

/// Whether `text` matches `pattern`: tries every split.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| is_like(rest, &text[taken..])),
        Some((byte, rest)) => text.first() == Some(byte) && is_like(rest, &text[1..]),
    }
}

/// AWS's evaluation of a policy document. `prefix` is the prefix of a listing.
fn aws_allows(document: &serde_json::Value, action: &str, arn: &str, prefix: Option<&str>) -> bool {
    let texts = |value: &serde_json::Value| -> Vec<String> {
        match value {
            serde_json::Value::String(one) => vec![one.clone()],
            list => serde_json::from_value(list.clone()).unwrap(),
        }
    };
    let like = |value: &serde_json::Value, text: &str| {
        let all = texts(value);
        all.iter()
            .any(|pattern| is_like(pattern.as_bytes(), text.as_bytes()))
    };
    let applies = |statement: &&serde_json::Value| {
        let condition = statement["Condition"]["StringLike"]["s3:prefix"].clone();
        let holds = condition.is_null() || prefix.is_some_and(|prefix| like(&condition, prefix));
        like(&statement["Action"], action) && like(&statement["Resource"], arn) && holds
    };
    let statements = document["Statement"].as_array().unwrap();
    let mut applying = statements.iter().filter(applies).map(|s| &s["Effect"]);
    let all: Vec<_> = applying.by_ref().collect();
    all.iter().any(|effect| *effect == "Allow") && !all.iter().any(|effect| *effect == "Deny")
}

/// Whether AWS allows `operation` on `name` in `bucket`. `version` chooses the latest version or a named one.
fn aws_lets(
    document: &serde_json::Value,
    operation: Operation,
    (bucket, name): (&str, &str),
    version: usize,
) -> bool {
    let action = of_aws(operation).unwrap()[version];
    if !is_listing(operation) {
        return aws_allows(
            document,
            action,
            &format!("arn:aws:s3:::{bucket}/{name}"),
            None,
        );
    }
    // The listing of uploads has no s3:prefix.
    let prefix = (operation != Operation::ListMultipartUploads).then_some(name);
    aws_allows(document, action, &format!("arn:aws:s3:::{bucket}"), prefix)
}

/// `document` without denials that cover only one kind of version. COS has one action for all versions, so that
/// the proxy enforces these denials and its key cannot contain them.
fn expressible(
    document: &serde_json::Value,
    operation: Operation,
    named: (&str, &str),
) -> serde_json::Value {
    let mut expressible = document.clone();
    let statements = expressible["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| {
        let mut allowing = statement.clone();
        allowing["Effect"] = "Allow".into();
        let alone = serde_json::json!({"Version": "2012-10-17", "Statement": [allowing]});
        let about = [0, 1].map(|version| aws_lets(&alone, operation, named, version));
        statement["Effect"] == "Allow" || about[0] == about[1]
    });
    expressible
}

fn some_session() -> impl Strategy<Value = serde_json::Value> {
    let actions = prop::sample::subsequence(
        vec![
            "s3:*",
            "s3:Get*",
            "s3:*Object",
            "s3:GetObject",
            "s3:GetObjectVersion",
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:ListBucket",
            "s3:ListBucketVersions",
            "s3:ListBucketMultipartUploads",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
            "s3:GetObjectTagging",
        ],
        1..=4,
    );
    let name = "(\\*/)?([ab]{1,2}/){0,2}[ab]?\\*?";
    let resource = prop_oneof![
        2 => Just("*".to_owned()),
        3 => (0..3_usize).prop_map(|n| format!("arn:aws:s3:::alias-{n}")),
        6 => (0..3_usize, name).prop_map(|(n, name)| format!("arn:aws:s3:::alias-{n}/{name}")),
    ];
    let prefixes = prop::option::of(prop::collection::vec("([ab]{1,2}/){0,2}\\*?", 1..3));
    let statement = (
        0..4_usize,
        actions,
        prop::collection::vec(resource, 1..4),
        prefixes,
    );
    let statement = statement.prop_map(|(effect, actions, resources, prefixes)| {
        let effect = if effect == 0 { "Deny" } else { "Allow" };
        let mut statement =
            serde_json::json!({"Effect": effect, "Action": actions, "Resource": resources});
        if let Some(prefixes) = prefixes {
            statement["Condition"] = serde_json::json!({"StringLike": {"s3:prefix": prefixes}});
        }
        statement
    });
    prop::collection::vec(statement, 1..4).prop_map(
        |statements| serde_json::json!({"Version": "2012-10-17", "Statement": statements}),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// A session may do exactly what its caller may and its policy allows, as AWS evaluates it. Its key for COS
    /// allows all of that, and nothing beyond what the caller may and the policy allows of some version.
    /// A key for a client allows only what the policy allows of every version.
    #[test]
    fn session_allows_what_caller_and_policy_allow(
        tenant in some_tenant(),
        document in some_session(),
        cos_names in prop::collection::vec(some_cos_name(), 8),
    ) {
        let policy = config::SessionPolicy::parse(&document.to_string()).unwrap();
        let session = tenant.narrowed(&policy.into());
        let (own, key) = (FenceKey::of(&tenant), FenceKey::of(&session));
        let client = FenceKey::read(&client_policy(&session).json());
        let denies = document["Statement"].as_array().unwrap().iter().any(|s| s["Effect"] == "Deny");
        for cos_name in &cos_names {
            for operation in operations().filter(|operation| of_aws(*operation).is_some()) {
                let action = operation.action();
                let (mut lets, mut may_hold) = ([false; 2], false);
                for (grant, name) in names(&tenant, cos_name) {
                    let alone = |of: &Tenant| Tenant {
                        index: 0,
                        name: String::new(),
                        grants: of.grants.iter().filter(|g| g.name == grant.name).cloned().collect(),
                        limits: None,
                    };
                    let aws = [0, 1].map(|version| aws_lets(&document, operation, (&grant.name, name), version));
                    let whole = proxy_allows(&alone(&tenant), operation, cos_name, cos_name);
                    let narrowed = proxy_allows(&alone(&session), operation, cos_name, cos_name);
                    prop_assert_eq!(narrowed, whole && aws[0], "{:?} {} {}", operation, grant.name, name);
                    let grant = session.grants.iter().find(|g| g.name == grant.name).unwrap();
                    if !is_listing(operation) {
                        let of_version = grant.allows_on_version(action, name, true);
                        prop_assert_eq!(of_version, whole && aws[1], "{:?} {} {}", operation, grant.name, name);
                    }
                    let expressed = expressible(&document, operation, (&grant.name, name));
                    let may_do = |version| aws_lets(&expressed, operation, (&grant.name, name), version);
                    may_hold |= whole && (may_do(0) || may_do(1));
                    lets = [lets[0] || (whole && (aws[0] || aws[1])), lets[1] || (whole && aws[0] && aws[1])];
                }
                let allowed = |key: &FenceKey| {
                    if is_listing(operation) {
                        key.may_list(action, cos_name)
                    } else {
                        [key.may(action, cos_name, &[]); 2]
                    }
                };
                let proxy = proxy_allows(&session, operation, cos_name, cos_name);
                prop_assert!(denies || !proxy || allowed(&key) == [true; 2], "{:?} {:?}", operation, cos_name);
                for ((mine, whole), handed) in allowed(&key).into_iter().zip(allowed(&own)).zip(allowed(&client)) {
                    prop_assert!(!mine || (whole && may_hold), "{:?} {:?}", operation, cos_name);
                    prop_assert!(!handed || (mine && lets[1]), "{:?} {:?}", operation, cos_name);
                }
            }
        }
    }
}
