//! CAM policies compared with those of the official COS STS SDKs, and the policy of a tenant's key.

use cosgate::config::PrefixPattern;
use cosgate::credentials::Scope;
use cosgate::tenant::policy::{Effect, Policy, policy_from_prefixes, tenant_policy};
use cosgate::tenant::{Grant, Tenant};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Cases of the file that cosgate does not need, each with its reason.
const NOT_APPLICABLE: &[(&str, &str)] = &[
    (
        "assume-role-no-policy",
        "a key without a policy has the whole role; cosgate always sends one",
    ),
    (
        "ci-resource",
        "data processing is refused, so no key is made for it",
    ),
    (
        "scopes-get-service",
        "ListBuckets gets its response from cosgate, so no key needs GetService",
    ),
];

/// Cases that the SDKs send and cosgate refuses, each with its reason.
const REFUSED: &[(&str, &str)] = &[(
    "actions-empty",
    "a statement without actions allows nothing: a slip that STS would refuse",
)];

#[test]
fn policies_match_the_official_sdks() {
    let file: Value = serde_json::from_str(include_str!("../vectors/sts-policy.json")).unwrap();
    let mut checked = 0;

    for case in file["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if NOT_APPLICABLE.iter().any(|(skipped, _)| *skipped == name) {
            continue;
        }
        let policy = case_policy(&case["config"]);
        match &case["expected_policy"] {
            Value::Null => assert!(policy.is_none(), "{name} must be refused"),
            _ if REFUSED.iter().any(|(refused, _)| *refused == name) => {
                assert!(policy.is_none(), "{name} must be refused");
            }
            expected => assert_eq!(serde_json::to_value(policy).unwrap(), *expected, "{name}"),
        }
        checked += 1;
    }

    assert_eq!(checked + NOT_APPLICABLE.len(), 37);
}

#[expect(clippy::unwrap_used, reason = "a test fails by a panic")]
fn case_policy(config: &Value) -> Option<Policy> {
    if !config["policy"].is_null() {
        return Some(Policy::parse(&config["policy"].to_string()).unwrap());
    }
    if let Some(scopes) = config["scopes"].as_array() {
        let statements = scopes.iter().map(|scope| {
            let [bucket, region, prefix, action] =
                ["bucket", "region", "prefix", "action"].map(|name| scope[name].as_str().unwrap());
            let policy = policy_from_prefixes(bucket, region, &[prefix], &[action]).unwrap();
            let mut statement = policy.statement.into_iter().next().unwrap();
            if scope["effect"] == "deny" {
                statement.effect = Effect::Deny;
            }
            statement
        });
        return Some(Policy::new(statements.collect()));
    }
    let texts = |name: &str| -> Vec<String> {
        serde_json::from_value(config[name].clone()).unwrap_or_default()
    };
    let scope = Scope {
        bucket: config["bucket"].as_str().unwrap().to_owned(),
        region: config["region"].as_str().unwrap().to_owned(),
        allow_prefixes: texts("allow_prefixes"),
        allow_actions: texts("allow_actions"),
        condition: serde_json::from_value(config["condition"].clone()).unwrap_or_default(),
    };
    scope.policy().ok()
}

fn grant(alias: &str, prefixes: &[PrefixPattern], actions: &[&str]) -> Grant {
    Grant {
        name: alias.into(),
        bucket: "shared-1250000000".into(),
        region: "ap-guangzhou".into(),
        root: String::new(),
        prefixes: prefixes.to_vec(),
        actions: actions.iter().map(ToString::to_string).collect(),
        headers: Vec::new(),
        policy: None,
        attachment: false,
        cors: [].into(),
        session: None,
    }
}

fn policy_of(grants: Vec<Grant>) -> Policy {
    tenant_policy(&Tenant {
        index: 0,
        name: "acme".into(),
        grants,
        limits: None,
    })
}

fn starts(start: &str) -> PrefixPattern {
    PrefixPattern::StartsWith(start.into())
}

#[test]
fn tenant_policy_limits_keys_and_listings() {
    let policy = policy_of(vec![grant(
        "photos",
        &[starts("acme/中 文/")],
        &[
            "name/cos:GetBucket",
            "name/cos:GetObject",
            "name/cos:PutObject",
            "name/cos:UploadPart",
        ],
    )]);

    let base = "qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000/";
    assert_eq!(
        serde_json::to_value(policy).unwrap(),
        json!({"version": "2.0", "statement": [
            {"effect": "allow", "action": ["name/cos:GetBucket"], "resource": [format!("{base}acme/中 文/*")]},
            {"effect": "allow", "action": ["name/cos:GetObject", "name/cos:PutObject", "name/cos:PutObjectCopy",
                "name/cos:UploadPart", "name/cos:UploadPartCopy"], "resource": [format!("{base}acme/中 文/*")]},
            {"effect": "allow", "action": ["name/cos:GetBucket"], "resource": [base],
                "condition": {"string_like": {"cos:prefix": ["acme%2F%E4%B8%AD%20%E6%96%87%2F*"]}}},
        ]})
    );
}

#[test]
fn lists_a_whole_bucket_without_a_condition() {
    let policy = policy_of(vec![grant(
        "all",
        &[PrefixPattern::Any],
        &["name/cos:GetBucket"],
    )]);

    assert_eq!(policy.statement.len(), 1);
    assert!(policy.statement[0].resource[0].ends_with("shared-1250000000/*"));
    assert!(policy.statement[0].condition.is_empty());
}

#[test]
fn exact_key_gives_no_list_permission() {
    let exact = PrefixPattern::Exact("one.txt".into());
    let policy = policy_of(vec![grant(
        "one",
        &[exact],
        &["name/cos:GetBucket", "name/cos:GetObject"],
    )]);

    assert_eq!(policy.statement.len(), 1);
    assert_eq!(policy.statement[0].action, ["name/cos:GetObject"]);
}

#[test]
fn equal_scopes_give_equal_bytes() {
    let get = &["name/cos:GetBucket", "name/cos:GetObject"];
    let one = || grant("one", &[starts("a/"), starts("b/")], get);
    let two = || grant("two", &[starts("b/"), starts("a/"), starts("a/")], get);

    let policy = policy_of(vec![one(), two()]);

    assert_eq!(policy.encoded(), policy_of(vec![two(), one()]).encoded());
    assert_eq!(policy.encoded(), policy_of(vec![two()]).encoded());
}

#[test]
fn star_inside_a_prefix_gives_no_permission() {
    for prefix in ["a*/", "${uin}/", "a?/"] {
        assert!(
            policy_of(vec![grant("p", &[starts(prefix)], &["name/cos:GetObject"])])
                .statement
                .is_empty()
        );
    }
}

#[test]
fn encoded_policy_survives_another_decoding() {
    let policy = policy_of(vec![grant(
        "p",
        &[starts("a b+c/100%/\"q\"/中/")],
        &["name/cos:GetObject"],
    )]);

    let encoded = policy.encoded();

    assert!(
        encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b))
    );
    let decoded = percent_encoding::percent_decode_str(&encoded)
        .decode_utf8()
        .unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&decoded).unwrap(), policy);
}

/// Evaluates a policy as CAM does: a statement allows the action on the resource, and its condition holds. `*` stands
/// only at the end of a resource here, and all statements allow.
fn cam_allows(policy: &Policy, action: &str, resource: &str, list_prefix: Option<&str>) -> bool {
    let like = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => text == pattern,
    };
    policy.statement.iter().any(|statement| {
        let condition = statement.condition.get("string_like");
        let met = condition.is_none_or(|keys| {
            let patterns = keys.get("cos:prefix").and_then(Value::as_array);
            let prefix = list_prefix.unwrap_or_default().replace('/', "%2F");
            patterns.is_some_and(|patterns| {
                let mut texts = patterns.iter().filter_map(Value::as_str);
                texts.any(|pattern| like(pattern, &prefix))
            })
        });
        statement.action.iter().any(|allowed| allowed == action)
            && statement
                .resource
                .iter()
                .any(|pattern| like(pattern, resource))
            && met
    })
}

fn pattern() -> impl Strategy<Value = PrefixPattern> {
    prop_oneof![
        Just(PrefixPattern::Any),
        "[ab/]{1,3}".prop_map(PrefixPattern::Exact),
        "[ab/]{1,3}".prop_map(PrefixPattern::StartsWith),
    ]
}

const ACTIONS: [&str; 4] = [
    "name/cos:GetBucket",
    "name/cos:GetBucketObjectVersions",
    "name/cos:GetObject",
    "name/cos:PutObject",
];

fn some_grant() -> impl Strategy<Value = Grant> {
    let prefixes = prop::collection::vec(pattern(), 0..3);
    let actions = prop::sample::subsequence(ACTIONS.to_vec(), 0..=ACTIONS.len());
    (prefixes, actions).prop_map(|(prefixes, actions)| grant("any", &prefixes, &actions))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The policy of the key allows exactly what the grants allow.
    #[test]
    fn a_tenants_policy_allows_what_its_grants_allow(
        grants in prop::collection::vec(some_grant(), 0..3),
        key in "[ab/]{0,4}",
    ) {
        let base = "qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000/";
        let granted = |action: &str, inside: &dyn Fn(&Grant) -> bool| {
            grants.iter().any(|grant| grant.allows(action) && inside(grant))
        };
        let (lists, objects) = ACTIONS.split_at(2);
        let policy = policy_of(grants.clone());

        for action in lists {
            let by_resource = cam_allows(&policy, action, &format!("{base}{key}"), Some(&key));
            let by_condition = cam_allows(&policy, action, base, Some(&key));
            let covered = granted(action, &|grant| grant.covers_list(&key));
            prop_assert_eq!(by_resource, covered);
            prop_assert_eq!(by_condition, covered);
        }
        for action in objects {
            let allowed = cam_allows(&policy, action, &format!("{base}{key}"), None);
            prop_assert_eq!(allowed, granted(action, &|grant| grant.covers(&key)));
        }
    }
}
