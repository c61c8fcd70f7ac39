//! CAM policies: what a temporary key may do, in Tencent's words.
//!
//! The grammar is that of the policy syntax page (598/10603) and of COS's own guide (436/31923);
//! [`policy_from_prefixes`] writes what the official COS STS SDKs write.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Grant, Tenant};
use crate::config::aws_actions::{ActionKind, ActionSet};
pub use crate::config::cam::Statement;
pub use crate::config::cam::{Effect, Policy};
use crate::config::raw_policy::LISTS;
use crate::config::{KeyGlob, PrefixPattern, SessionStatement};
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

/// Who will have a key. COS has one right where AWS has two, for the latest version of an object and for
/// the others: the proxy checks by itself which of them a request needs, and a client would not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyHolder {
    Client,
    Proxy,
}

/// The policy of a tenant's temporary key, never wider than the tenant's grants. Equal scopes give
/// equal policies, whatever order the configuration has them in.
///
/// Listings are allowed twice over, since Tencent's pages differ on the resource that COS checks:
/// on the prefix itself, and on the bucket with `cos:prefix` as a condition. A grant that is a policy
/// itself stands in it as it is.
pub fn tenant_policy(tenant: &Tenant) -> Policy {
    policy_for(tenant, KeyHolder::Proxy)
}

/// The same for a key that is handed out. It is narrower only where a session's policy distinguishes what
/// COS does not.
pub fn client_policy(tenant: &Tenant) -> Policy {
    policy_for(tenant, KeyHolder::Client)
}

fn policy_for(tenant: &Tenant, holder: KeyHolder) -> Policy {
    let mut statements = KeyStatements::default();
    let mut raw = Vec::new();
    for grant in &tenant.grants {
        let Some(base) = resource_base(&grant.bucket, &grant.region) else {
            continue; // the configuration refuses such a bucket; no right comes of it here either
        };
        match (&grant.policy, &grant.session) {
            (Some(policy), _) => {
                let all = policy.policy.statement.iter();
                raw.extend(all.filter(|s| grant.is_reached() || !s.allows()).cloned());
            }
            (None, Some(session)) => {
                for statement in session.statements() {
                    statements.narrow(&base, grant, statement, holder);
                }
            }
            (None, None) => statements.grant(&base, grant),
        }
    }
    statements.with(raw)
}

/// Resources by what is allowed or denied on them.
#[derive(Debug, Default)]
struct KeyStatements {
    /// By whether they are denied, and the actions.
    plain: BTreeMap<(bool, Vec<String>), BTreeSet<String>>,
    /// Prefixes of listings; by the bucket too.
    listed: BTreeMap<(bool, Vec<String>, String), BTreeSet<String>>,
}

impl KeyStatements {
    /// Adds what `grant` says.
    fn grant(&mut self, base: &str, grant: &Grant) {
        let actions = key_actions(grant);
        let lists = list_actions(grant);
        for pattern in grant.upstream_prefixes().filter(is_literal) {
            let (text, is_open) = match &pattern {
                PrefixPattern::Any => ("*".to_owned(), true),
                PrefixPattern::Exact(key) => (key.clone(), false),
                PrefixPattern::StartsWith(start) => (format!("{start}*"), true),
            };
            self.add(Effect::Allow, &actions, format!("{base}{text}"));
            // No listing stays within one key.
            if is_open {
                self.add_listing(Effect::Allow, &lists, base, &text);
            }
        }
    }

    /// Adds what a session's `statement` says within `grant`.
    fn narrow(
        &mut self,
        base: &str,
        grant: &Grant,
        statement: &SessionStatement,
        holder: KeyHolder,
    ) {
        let rights = |kinds: ActionSet| {
            let mut rights = key_actions(grant);
            rights.retain(|right| stands_for(statement, right, kinds, holder));
            rights
        };
        let bucket = ActionSet::of_kind(ActionKind::Bucket);
        if statement.names_bucket(&grant.name) && grant.is_all() {
            self.add(statement.effect, &rights(bucket), base.to_owned());
        }
        let on_keys =
            ActionSet::of_kind(ActionKind::Key).or(ActionSet::of_kind(ActionKind::Version));
        let rights = rights(on_keys);
        for text in within(grant, statement.keys(&grant.name), true) {
            self.add(statement.effect, &rights, format!("{base}{text}"));
        }
        for list in list_actions(grant) {
            let prefixes = within(grant, statement.lists(&grant.name, &list), false);
            for text in prefixes {
                self.add_listing(statement.effect, std::slice::from_ref(&list), base, &text);
            }
        }
    }

    fn add(&mut self, effect: Effect, actions: &[String], resource: String) {
        if !actions.is_empty() {
            let key = (effect == Effect::Deny, actions.to_vec());
            self.plain.entry(key).or_default().insert(resource);
        }
    }

    /// A listing by a prefix that matches `pattern`.
    fn add_listing(&mut self, effect: Effect, actions: &[String], base: &str, pattern: &str) {
        if actions.is_empty() {
            return;
        }
        // The bucket itself, under either reading, would be all of it.
        if !pattern.is_empty() {
            self.add(effect, actions, format!("{base}{pattern}"));
        }
        if pattern != "*" {
            let key = (effect == Effect::Deny, actions.to_vec(), base.to_owned());
            // A key that comes from the query is compared percent-encoded (436/71307).
            let pieces: Vec<_> = pattern.split('*').map(encoded).collect();
            self.listed.entry(key).or_default().insert(pieces.join("*"));
        }
    }

    /// The policy of these statements and `raw` ones.
    fn with(self, raw: Vec<Statement>) -> Policy {
        let statement = |denies, action, resource| Statement {
            effect: if denies { Effect::Deny } else { Effect::Allow },
            ..Statement::allow(action, resource)
        };
        let plain = self.plain.into_iter();
        let plain = plain.map(|((denies, action), resource)| {
            statement(denies, action, resource.into_iter().collect())
        });
        let listed = self.listed.into_iter();
        let listed = listed.map(|((denies, action, bucket), prefixes)| Statement {
            condition: prefix_condition(prefixes),
            ..statement(denies, action, vec![bucket])
        });
        Policy::new(plain.chain(listed).chain(raw).collect())
    }
}

/// Whether `statement` allows or denies what COS means by `right`: nothing wider may be allowed to the
/// holder, and nothing narrower denied.
fn stands_for(
    statement: &SessionStatement,
    right: &str,
    kinds: ActionSet,
    holder: KeyHolder,
) -> bool {
    let meant = ActionSet::granting_any(right).and(kinds);
    match (statement.effect, holder) {
        (Effect::Allow, KeyHolder::Proxy) | (Effect::Deny, KeyHolder::Client) => {
            statement.actions.meets(meant)
        }
        (Effect::Allow, KeyHolder::Client) | (Effect::Deny, KeyHolder::Proxy) => {
            !meant.is_empty() && statement.actions.has_all(meant)
        }
    }
}

/// What `globs` match within the prefixes of `grant`, as COS names keys; without `exact` keys where
/// listings are meant.
fn within(grant: &Grant, globs: impl Iterator<Item = KeyGlob>, exact: bool) -> Vec<String> {
    let globs: Vec<_> = globs.collect();
    let patterns = grant.prefixes.iter();
    let patterns = patterns.filter(|p| exact || !matches!(p, PrefixPattern::Exact(_)));
    let literal = patterns.filter(|pattern| is_literal(&pattern.below(&grant.root)));
    let parts = literal.flat_map(|pattern| globs.iter().flat_map(|glob| glob.within(pattern)));
    let named = parts.map(|part| format!("{}{}", grant.root, part.as_str()));
    let kept = named.filter(|name| !exact || !name.is_empty()); // the bucket itself is no key
    without_parts(&kept.collect())
}

/// `patterns` without those that another of them covers: STS takes short policies alone. A star is
/// matched by stars alone, so a pattern that matches another as it is written matches all of it.
fn without_parts(patterns: &BTreeSet<String>) -> Vec<String> {
    let globs: Vec<_> = patterns.iter().map(|text| KeyGlob::new(text)).collect();
    let is_part = |text: &str| {
        let mut others = globs.iter().filter(|glob| glob.as_str() != text);
        others.any(|other| other.matches(text))
    };
    let kept = patterns.iter().filter(|text| !is_part(text));
    kept.cloned().collect()
}

/// The keys that `grant` is about, as COS names them: `folder/*`, or one key.
pub fn key_patterns(grant: &Grant) -> Vec<String> {
    let Some(session) = grant.session.as_ref().filter(|_| grant.policy.is_none()) else {
        return grant.upstream_prefixes().map(|p| p.to_string()).collect();
    };
    let allowing = session
        .statements()
        .iter()
        .filter(|s| s.effect == Effect::Allow);
    let globs = allowing.flat_map(|statement| statement.keys(&grant.name));
    let unique: BTreeSet<_> = within(grant, globs, true).into_iter().collect();
    unique.into_iter().collect()
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
