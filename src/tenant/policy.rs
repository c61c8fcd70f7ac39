//! CAM policies: what a temporary key may do, in Tencent's words.
//!
//! The grammar is that of the policy syntax page (598/10603) and of COS's own guide (436/31923);
//! [`policy_from_prefixes`] writes what the official COS STS SDKs write.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Grant, Tenant};
use crate::config::PrefixPattern;
pub use crate::config::cam::Statement;
pub use crate::config::cam::{Effect, Policy};
use crate::config::raw_policy::LISTS;
use crate::encoding::percent::push_encoded;

/// A bucket name without `-<APPID>` at its end: no resource can be written for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingAppId;

impl std::fmt::Display for MissingAppId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "the bucket has no APPID: write its full name, such as examplebucket-1250000000",
        )
    }
}

impl std::error::Error for MissingAppId {}

/// The policy that the COS STS SDKs' `getCredential` makes of a bucket, a region, prefixes as they
/// are written (`*`, `a*`, `a/*`, `exact-key`) and actions.
pub fn policy_from_prefixes(
    bucket: &str,
    region: &str,
    prefixes: &[&str],
    actions: &[&str],
) -> Result<Policy, MissingAppId> {
    let base = resource_base(bucket, region).ok_or(MissingAppId)?;
    let resource = prefixes
        .iter()
        .map(|prefix| format!("{base}{}", prefix.strip_prefix('/').unwrap_or(prefix)))
        .collect();
    let action = actions.iter().map(ToString::to_string).collect();
    Ok(Policy::new(vec![Statement::allow(action, resource)]))
}

/// The policy of a tenant's temporary key, never wider than the tenant's grants. Equal scopes give
/// equal policies, whatever order the configuration has them in.
///
/// Listings are allowed twice over, since Tencent's pages differ on the resource that COS checks:
/// on the prefix itself, and on the bucket with `cos:prefix` as a condition. A grant that is a policy
/// itself stands in it as it is.
pub fn tenant_policy(tenant: &Tenant) -> Policy {
    let mut plain = BTreeMap::<Vec<String>, BTreeSet<String>>::new();
    let mut listed = BTreeMap::<(Vec<String>, String), BTreeSet<String>>::new();
    let (raw, grants): (Vec<_>, Vec<_>) =
        (tenant.grants.iter()).partition(|grant| grant.policy.is_some());
    for grant in grants {
        let Some(base) = resource_base(&grant.bucket, &grant.region) else {
            continue; // the configuration refuses such a bucket; no right comes of it here either
        };
        let actions = key_actions(grant);
        let lists = list_actions(grant);
        for pattern in grant.upstream_prefixes().filter(is_literal) {
            let resource = match &pattern {
                PrefixPattern::Any => format!("{base}*"),
                PrefixPattern::Exact(key) => format!("{base}{key}"),
                PrefixPattern::StartsWith(start) => format!("{base}{start}*"),
            };
            if !actions.is_empty() {
                plain
                    .entry(actions.clone())
                    .or_default()
                    .insert(resource.clone());
            }
            if lists.is_empty() {
                continue;
            }
            match &pattern {
                PrefixPattern::Any => {
                    plain.entry(lists.clone()).or_default().insert(resource);
                }
                PrefixPattern::Exact(_) => {} // no listing stays within one key
                PrefixPattern::StartsWith(start) => {
                    plain.entry(lists.clone()).or_default().insert(resource);
                    // A key that comes from the query is compared percent-encoded (436/71307).
                    listed
                        .entry((lists.clone(), base.clone()))
                        .or_default()
                        .insert(encoded(start) + "*");
                }
            }
        }
    }

    let plain = plain
        .into_iter()
        .map(|(action, resource)| Statement::allow(action, resource.into_iter().collect()));
    let listed = listed
        .into_iter()
        .map(|((action, bucket), prefixes)| Statement {
            condition: prefix_condition(prefixes),
            ..Statement::allow(action, vec![bucket])
        });
    let raw = raw.into_iter().filter_map(|grant| grant.policy.as_ref());
    let raw = raw.flat_map(|policy| policy.policy.statement.iter().cloned());
    Policy::new(plain.chain(listed).chain(raw).collect())
}

impl Policy {
    /// Compact JSON, percent-encoded: STS decodes the `Policy` parameter once more than the
    /// transport does (1312/48195), so a `+` or `%` would else be lost.
    pub fn encoded(&self) -> String {
        encoded(&self.json())
    }
}

/// A right, and another name that some official pages have for a part of it.
const ALSO: [(&str, &str); 4] = [
    ("name/cos:DeleteObject", "name/cos:DeleteMultipleObjects"),
    ("name/cos:PutObject", "name/cos:PutObjectCopy"),
    ("name/cos:PutObject", "name/cos:UploadPartCopy"),
    ("name/cos:UploadPart", "name/cos:UploadPartCopy"),
];

/// `qcs::cos:<region>:uid/<appid>:<bucket>/`. The APPID is what follows the bucket's last dash.
fn resource_base(bucket: &str, region: &str) -> Option<String> {
    let (_, appid) = bucket.rsplit_once('-')?;
    Some(format!("qcs::cos:{region}:uid/{appid}:{bucket}/"))
}

/// Whether the pattern says in CAM's grammar what it says in ours. A `*` inside would match more
/// than itself there: left out, since a key must never be wider than its grant.
fn is_literal(pattern: &PrefixPattern) -> bool {
    match pattern {
        PrefixPattern::Any => true,
        PrefixPattern::Exact(text) | PrefixPattern::StartsWith(text) => {
            !text.contains(['*', '?']) && !text.contains("${")
        }
    }
}

/// The rights on keys, sorted.
fn key_actions(grant: &Grant) -> Vec<String> {
    let granted = grant.actions.iter().map(String::as_str);
    let also = ALSO
        .iter()
        .filter(|(right, _)| grant.allows(right))
        .map(|(_, other)| *other);
    let unique: BTreeSet<_> = granted
        .filter(|action| !LISTS.contains(action))
        .chain(also)
        .collect();
    unique.into_iter().map(str::to_owned).collect()
}

/// The rights to list, sorted.
fn list_actions(grant: &Grant) -> Vec<String> {
    LISTS
        .iter()
        .filter(|action| grant.allows(action))
        .map(ToString::to_string)
        .collect()
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_encoded(&mut out, text.as_bytes());
    out
}

fn prefix_condition(prefixes: BTreeSet<String>) -> BTreeMap<String, BTreeMap<String, Value>> {
    let values = prefixes.into_iter().map(Value::String).collect();
    let keys = BTreeMap::from([("cos:prefix".to_owned(), Value::Array(values))]);
    BTreeMap::from([("string_like".to_owned(), keys)])
}
