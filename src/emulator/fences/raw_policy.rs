//! Policies that a grant has in CAM's own words, and those of Tencent's STS SDKs.

use proptest::prelude::*;

use super::{BUCKETS, CosName, FenceKey, REGIONS};
use crate::config;
use crate::emulator::cam::ParsedPolicy;

/// The first action is a listing.
const RAW_ACTIONS: [&str; 3] = [
    "name/cos:GetBucket",
    "name/cos:GetObject",
    "name/cos:PutObject",
];

/// The forms of a resource in Tencent's documents and SDKs, and some invalid ones.
fn some_form() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "qcs::cos:ap-beijing:uid/1250000000:one-1250000000/NAME",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/one/NAME",
        ]),
        1 => prop::sample::select(vec![
            "*",
            "qcs::cos:*:uid/1250000000:*",
            "qcs::cos:*:uid/1250000000:one-1250000000/NAME",
            "qcs::cos::uid/1250000000:prefix//1250000000/one/NAME",
            "qcs::cos:ap-beijing::one-1250000000/NAME",
            "qcs::cos:ap-beijing:uid/1250000000:one-1250000000",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/one",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/one*",
            "qcs::cos:ap-beijing:uid/1250000000:prefix//1250000000/NAME",
            "qcs::cos:ap-beijing:uid/1250000000:prefix/1250000000/one/NAME",
            "qcs::cos:ap-guangzhou:uid/1250000000:prefix//1250000000/one/NAME",
            "NAME",
        ]),
    ]
}

/// Policies that the STS SDKs have sent: the embedded COS and the proxy read them alike.
#[test]
fn cos_and_proxy_read_policies_of_sts_sdks_alike() {
    let file = include_str!("../../../tests/vectors/sts-sdk-policies.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let texts = |value: &serde_json::Value| -> Vec<String> {
        serde_json::from_value(value.clone()).unwrap()
    };
    let keys = texts(&file["keys"]);
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let name = format!("{} {}", case["sdk"], case["name"]);
        let (text, bucket) = (case["policy"].to_string(), case["bucket"].as_str().unwrap());
        let raw = config::cam::Policy::parse(&text).expect(&name);
        let is_conditional = raw.statement.iter().any(|s| !s.condition.is_empty());
        let raw = config::RawPolicy::new(raw, bucket, "ap-guangzhou").expect(&name);
        let (as_made, as_sent) = (FenceKey::read(&text), FenceKey::read(&raw.policy.json()));
        for (action, allowed) in case["allowed"].as_object().unwrap() {
            let allowed = texts(allowed);
            for key in &keys {
                let is_allowed = allowed.contains(key);
                let path = format!("{bucket}/{key}");
                for cos in [&as_made, &as_sent] {
                    let cos = cos.allows(action, "ap-guangzhou", Some(&path), &[]);
                    assert_eq!(cos, is_allowed, "{name}: {action} {key}");
                }
                if !is_conditional {
                    assert_eq!(
                        raw.allows(action, key),
                        is_allowed,
                        "{name}: {action} {key}"
                    );
                }
            }
        }
    }
    assert_eq!(cases.len(), 34);
}

/// The embedded STS accepts each policy that the six STS SDKs have sent, except those without an action, a
/// resource or an account.
#[test]
fn accepts_policies_of_sts_sdks() {
    let file = include_str!("../../../tests/vectors/sts-policy.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let (mut good, mut odd) = (0, Vec::new());
    for case in file["cases"].as_array().unwrap() {
        for (sdk, sent) in case["sdks"].as_object().unwrap() {
            let expected = &case["expected_policy"];
            let policy = sent.get("policy").unwrap_or(expected);
            if policy.is_null() {
                continue;
            }
            match ParsedPolicy::parse(&policy.to_string()) {
                Ok(policy) if policy.other_account("1250000000").is_none() => good += 1,
                _ => odd.push(format!("{} {sdk}", case["name"].as_str().unwrap())),
            }
        }
    }
    odd.retain(|odd| !odd.starts_with("actions-empty ") && !odd.starts_with("bucket-no-dash "));
    assert_eq!(
        odd,
        ["scopes-leading-slash python"],
        "an SDK's slip: it names no resource"
    );
    assert!(good > 150, "{good}");
}

pub(super) fn some_statement() -> impl Strategy<Value = config::cam::Statement> {
    let name = "(a|b)?/?(a|b|ab)?/?\\*?";
    let name = name.prop_map(|name| name.strip_prefix('/').unwrap_or(&name).to_owned());
    let resource = (name, some_form()).prop_map(|(name, form)| form.replace("NAME", &name));
    let actions = prop::sample::subsequence(
        [
            "name/cos:GetBucket",
            "name/cos:Get*",
            "name/cos:PutObject",
            "name/cos:*",
        ]
        .to_vec(),
        1..=2,
    );
    let prefix = prop::option::of(prop::sample::select(vec!["*", "a*", "a%2F*", "b%2Fa*"]));
    (
        any::<bool>(),
        actions,
        prop::collection::vec(resource, 1..3),
        prefix,
    )
        .prop_map(|(allow, actions, resource, prefix)| {
            let action = actions.iter().map(ToString::to_string).collect();
            let mut statement = config::cam::Statement::allow(action, resource);
            if !allow {
                statement.effect = config::cam::Effect::Deny;
            } else if let Some(prefix) = prefix {
                let keys = [("cos:prefix".to_owned(), prefix.into())];
                statement
                    .condition
                    .insert("string_like".into(), keys.into());
            }
            statement
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// A grant with a policy: COS allows each request that the proxy allows. Listings are checked by their prefix,
    /// as the policy's own resources are.
    #[test]
    fn raw_policy_key_allows_what_the_proxy_allows(
        statements in prop::collection::vec(some_statement(), 1..4),
        name in "[ab/]{0,4}",
    ) {
        let policy = config::cam::Policy::new(statements);
        let Ok(policy) = config::RawPolicy::new(policy, BUCKETS[0], REGIONS[0]) else { return Ok(()) };
        let key = FenceKey::read(&policy.policy.json());
        let cos_name = CosName { bucket: BUCKETS[0], region: REGIONS[0], name: name.clone() };
        for action in RAW_ACTIONS {
            if policy.allows(action, &name) {
                prop_assert!(key.may(action, &cos_name, &[]), "{}", action);
            }
        }
        if policy.allows_list(RAW_ACTIONS[0], &name) {
            prop_assert!(key.may_list(RAW_ACTIONS[0], &cos_name).contains(&true));
        }
    }
}
