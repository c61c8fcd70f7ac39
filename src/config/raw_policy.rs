//! `policy = "file:…"`: a CAM policy as a grant, and what of it is judged here.
//!
//! The policy goes into the temporary key as it is, so COS judges all of it. Here are judged actions and
//! keys, the prefix of listings included; conditions are COS's to judge.

use super::actions;
use super::cam::{
    Condition, Effect, LIKELY_BYTES, Policy, PolicyError, ResourceName, Statement, wrong,
};
use super::named_file::FileKind;
use super::prefix::PrefixPattern;
use super::problem::{Mistake, printable};
use super::section::Section;

/// Actions that COS judges by the `prefix` of a listing (436/71307).
pub(crate) const LISTS: [&str; 3] = [
    "name/cos:GetBucket",
    "name/cos:GetBucketObjectVersions",
    "name/cos:ListMultipartUploads",
];
/// The condition on a listing's prefix, which is compared percent-encoded.
const PREFIX: &str = "cos:prefix";

/// A policy, and the rules that are judged here before COS judges the policy itself.
#[derive(Clone, Debug, PartialEq)]
pub struct RawPolicy {
    /// As it stands in the temporary key.
    pub policy: Policy,
    /// One for each statement that can be judged without its conditions.
    pub rules: Vec<PolicyRule>,
}

/// What a statement says of this bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Allow or deny.
    pub effect: Effect,
    /// Full names (`name/cos:GetObject`), sorted.
    pub actions: Vec<String>,
    /// The keys that it is about.
    pub keys: Vec<PrefixPattern>,
    /// The prefixes of listings that it is about.
    pub lists: Vec<PrefixPattern>,
}

impl RawPolicy {
    /// The rules of `policy` for a grant of `bucket` in `region`. What cannot be judged here without
    /// being wider than COS, and what is not about this bucket, is refused.
    pub fn new(policy: Policy, bucket: &str, region: &str) -> Result<Self, PolicyError> {
        policy.check_account(bucket)?;
        let mut rules = Vec::new();
        for (number, statement) in (1..).zip(&policy.statement) {
            let rule = rule(statement, bucket, region).map_err(|error| PolicyError {
                message: format!("statement {number}: {}", error.message),
                ..error
            })?;
            rules.extend(rule);
        }
        if !rules.iter().any(|rule| rule.effect == Effect::Allow) {
            return Err(wrong("it allows nothing", "add a statement that allows"));
        }
        Ok(Self { policy, rules })
    }

    /// Whether `action` on `key` is allowed, and not denied.
    pub fn allows(&self, action: &str, key: &str) -> bool {
        let is_about = |rule: &&PolicyRule| {
            rule.names(action) && rule.keys.iter().any(|keys| keys.covers(key))
        };
        self.judge(is_about, is_about)
    }

    /// Whether `action`, a listing, shows nothing but what is allowed and not denied to list.
    pub(crate) fn allows_list(&self, action: &str, prefix: &str) -> bool {
        self.judge(
            |rule| rule.names(action) && rule.lists.iter().any(|lists| lists.covers_list(prefix)),
            |rule| rule.names(action) && rule.lists.iter().any(|lists| lists.may_show(prefix)),
        )
    }

    /// The prefixes of listings by `action` that a rule allows, denied or not.
    pub fn lists(&self, action: &str) -> impl Iterator<Item = &PrefixPattern> {
        let allowing = self.rules.iter();
        allowing
            .filter(move |rule| rule.effect == Effect::Allow && rule.names(action))
            .flat_map(|rule| &rule.lists)
    }

    /// Any denial wins; what nothing allows is not allowed (598/10605).
    fn judge(
        &self,
        allows: impl Fn(&&PolicyRule) -> bool,
        denies: impl Fn(&&PolicyRule) -> bool,
    ) -> bool {
        let of = |effect| self.rules.iter().filter(move |rule| rule.effect == effect);
        of(Effect::Allow).any(|rule| allows(&rule)) && !of(Effect::Deny).any(|rule| denies(&rule))
    }

    /// All that the allowing rules are about, for checks that look at one grant after another.
    pub(super) fn reach(&self) -> Vec<PrefixPattern> {
        let mut reach = Vec::new();
        let allowed = self
            .rules
            .iter()
            .filter(|rule| rule.effect == Effect::Allow);
        for pattern in allowed.flat_map(|rule| rule.keys.iter().chain(&rule.lists)) {
            if !reach.contains(pattern) {
                reach.push(pattern.clone());
            }
        }
        reach
    }

    /// All actions of the allowing rules, sorted.
    pub(super) fn actions(&self) -> Vec<String> {
        let allowed = self
            .rules
            .iter()
            .filter(|rule| rule.effect == Effect::Allow);
        let mut actions: Vec<_> = allowed.flat_map(|rule| rule.actions.clone()).collect();
        actions.sort_unstable();
        actions.dedup();
        actions
    }

    /// What is likely not meant.
    fn doubts(&self) -> Vec<PolicyError> {
        let mut doubts = self.policy.too_wide();
        let length = self.policy.json().len();
        if length > LIKELY_BYTES {
            doubts.push(wrong(
                format!("the policy has {length} bytes; STS may refuse more than {LIKELY_BYTES}"),
                "write fewer resources and actions",
            ));
        }
        for (number, statement) in (1..).zip(&self.policy.statement) {
            let keys = statement.condition.values().flatten();
            for (key, value) in keys {
                if key == "qcs:ip" || key == "qcs:vpc" {
                    doubts.push(wrong(
                        format!("statement {number}: COS sees cosgate's own address in `{key}`"),
                        "use allowed_ips of the tenant for its clients' addresses",
                    ));
                }
                if key == PREFIX && value.to_string().contains('/') {
                    doubts.push(wrong(
                        format!("statement {number}: COS compares `{PREFIX}` percent-encoded"),
                        "write %2F for each `/` of it",
                    ));
                }
            }
        }
        doubts
    }
}

impl PolicyRule {
    fn names(&self, action: &str) -> bool {
        self.actions.iter().any(|named| named == action)
    }
}

/// Reads a grant's `policy`, with everything that is wrong or doubtful reported.
pub(super) fn read(section: &Section<'_>, bucket: &str, region: &str) -> Option<RawPolicy> {
    let found = section.parsed("policy", |text| {
        text.strip_prefix("file:")
            .map(str::to_owned)
            .ok_or_else(|| {
                Mistake::new(
                    "`policy` is not a file",
                    "write policy = \"file:PATH\", with the policy's JSON in the file",
                )
            })
    })?;
    let path = section.resolve(&found.value);
    let text = section.file().read_named(&path, FileKind::Configuration);
    let policy = text.and_then(|text| {
        let read = Policy::parse(&text).and_then(|read| RawPolicy::new(read, bucket, region));
        read.map_err(|error| {
            Mistake::new(
                format!("in {}, {}", path.display(), error.message),
                error.fix,
            )
        })
    });
    let policy = section.check("policy", &found.origin, policy)?;
    for doubt in policy.doubts() {
        let message = format!("in {}, {}", path.display(), doubt.message);
        section.warning(&found.origin, message, doubt.fix);
    }
    Some(policy)
}

/// What `statement` says of this bucket. `None` for a denial with conditions: COS judges it alone.
fn rule(
    statement: &Statement,
    bucket: &str,
    region: &str,
) -> Result<Option<PolicyRule>, PolicyError> {
    let mut actions = Vec::new();
    for action in &statement.action {
        actions.extend(actions::matching(action).map_err(|mistake| PolicyError {
            message: mistake.message,
            fix: mistake.fix,
        })?);
    }
    actions.sort_unstable();
    actions.dedup();
    let mut keys = Vec::new();
    for text in &statement.resource {
        keys.push(pattern(text, bucket, region)?);
    }
    if statement.effect == Effect::Deny {
        let rule = PolicyRule {
            effect: Effect::Deny,
            actions,
            lists: keys.iter().map(whole).collect(),
            keys,
        };
        return Ok(statement.condition.is_empty().then_some(rule));
    }
    let (keys, lists) = match listed(&statement.condition)? {
        None => {
            let lists = keys.iter().filter(|pattern| !is_exact(pattern));
            let lists = lists.cloned().collect();
            (keys, lists)
        }
        // Only listings have a prefix: the condition fails on everything else.
        Some(prefixes) => {
            let resources: Vec<_> = keys.iter().map(whole).collect();
            let pairs = prefixes
                .iter()
                .flat_map(|prefix| resources.iter().map(move |resource| (prefix, resource)));
            let common = pairs.filter_map(|(prefix, resource)| common(prefix, resource));
            (Vec::new(), common.cloned().collect())
        }
    };
    Ok(Some(PolicyRule {
        effect: Effect::Allow,
        actions,
        keys,
        lists,
    }))
}

/// The keys of this bucket that a resource is about; the bucket itself is an empty key.
fn pattern(text: &str, bucket: &str, region: &str) -> Result<PrefixPattern, PolicyError> {
    if text == "*" {
        return Ok(PrefixPattern::Any);
    }
    let resource = ResourceName::parse(text).ok_or_else(|| {
        let message = format!("`{}` is not a resource", printable(text));
        wrong(
            message,
            format!("write qcs::cos:{region}:uid/APPID:{bucket}/folder/*"),
        )
    })?;
    let other = |what: &str, here: &str| {
        let message = format!("`{}` is of another {what} than the grant", printable(text));
        Err(wrong(
            message,
            format!("write {here}, or write another grant for it"),
        ))
    };
    if resource.service != "cos" {
        return other("service", "qcs::cos:…");
    }
    if !matches!(resource.region, "" | "*") && resource.region != region {
        return other("region", region);
    }
    if resource.name == "*" {
        return Ok(PrefixPattern::Any);
    }
    let (named, key) = resource.place();
    if named != bucket {
        return other("bucket", bucket);
    }
    let Some(key) = key else {
        let message = format!("`{}` names nothing in its bucket", printable(text));
        let fix = "write a `/` behind the bucket's name for the bucket itself, `/*` for all of it";
        return Err(wrong(message, fix));
    };
    let (start, open) = match key.strip_suffix('*') {
        Some(start) => (start, true),
        None => (key, false),
    };
    if start.contains(['*', '?', '"']) || start.contains("${") {
        let message = format!(
            "`{}` is more than a text with a `*` at its end",
            printable(text)
        );
        return Err(wrong(message, "write the folders one by one: …/folder/*"));
    }
    Ok(match (start, open) {
        ("", true) => PrefixPattern::Any,
        (start, true) => PrefixPattern::StartsWith(start.to_owned()),
        (start, false) => PrefixPattern::Exact(start.to_owned()),
    })
}

/// The prefixes that a condition on `cos:prefix` lets through, where there is one.
fn listed(condition: &Condition) -> Result<Option<Vec<PrefixPattern>>, PolicyError> {
    let mut listed = None;
    for (operator, keys) in condition {
        let Some(value) = keys.get(PREFIX) else {
            continue;
        };
        if operator != "string_like" || listed.is_some() {
            let message = format!("cosgate cannot evaluate `{operator}` on `{PREFIX}`");
            return Err(wrong(message, "write string_like, once, as \"folder%2F*\""));
        }
        let values = match value {
            serde_json::Value::Array(list) => list.iter().collect(),
            one => vec![one],
        };
        let mut prefixes = Vec::new();
        for value in values {
            let text = value.as_str().unwrap_or_default();
            // One that ends in no `*` is one prefix, and shows more than one key.
            let decoded = text.strip_suffix('*').and_then(|start| {
                let decoded = crate::encoding::percent::percent_decode(start)?;
                String::from_utf8(decoded.into_owned()).ok()
            });
            match decoded {
                Some(start) if start.is_empty() => prefixes.push(PrefixPattern::Any),
                Some(start) if !start.contains('*') => {
                    prefixes.push(PrefixPattern::StartsWith(start));
                }
                _ => {
                    let message = format!("`{value}` is not a start of prefixes");
                    return Err(wrong(message, "write it percent-encoded: \"folder%2F*\""));
                }
            }
        }
        listed = Some(prefixes);
    }
    Ok(listed)
}

/// A rule on the bucket itself is about every listing of it.
fn whole(pattern: &PrefixPattern) -> PrefixPattern {
    match pattern {
        PrefixPattern::Exact(key) if key.is_empty() => PrefixPattern::Any,
        other => other.clone(),
    }
}

/// The narrower of two patterns, where one lies within the other: prefixes never cross.
fn common<'p>(a: &'p PrefixPattern, b: &'p PrefixPattern) -> Option<&'p PrefixPattern> {
    if is_exact(a) || is_exact(b) {
        return None; // no listing stays within one key
    }
    if a.is_within(b) {
        return Some(a);
    }
    b.is_within(a).then_some(b)
}

fn is_exact(pattern: &PrefixPattern) -> bool {
    matches!(pattern, PrefixPattern::Exact(_))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BUCKET: &str = "shared-1250000000";
    const BASE: &str = "qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000/";
    const GET: &str = "name/cos:GetObject";
    const PUT: &str = "name/cos:PutObject";
    const LIST: &str = "name/cos:GetBucket";

    fn made(statement: &serde_json::Value) -> Result<RawPolicy, PolicyError> {
        let text = json!({"version": "2.0", "statement": statement}).to_string();
        RawPolicy::new(Policy::parse(&text)?, BUCKET, "ap-guangzhou")
    }

    fn allow(action: &str, key: &str) -> serde_json::Value {
        json!({"effect": "allow", "action": action, "resource": format!("{BASE}{key}")})
    }

    fn deny(action: &str, key: &str) -> serde_json::Value {
        json!({"effect": "deny", "action": action, "resource": format!("{BASE}{key}")})
    }

    #[test]
    fn each_statement_keeps_its_own_actions_and_keys() {
        let policy = made(&json!([allow(GET, "a/*"), allow(PUT, "a/in/*")])).unwrap();
        assert!(policy.allows(GET, "a/x") && policy.allows(PUT, "a/in/x"));
        assert!(!policy.allows(PUT, "a/x") && !policy.allows(GET, "b"));
        assert!(!policy.allows("name/cos:DeleteObject", "a/in/x"));
        assert_eq!(policy.actions(), [GET, PUT]);
    }

    #[test]
    fn a_denial_wins_and_hides_what_a_listing_would_show() {
        let policy = made(&json!([
            allow("name/cos:*", "*"),
            deny(GET, "secret/*"),
            deny(LIST, "secret/*"),
        ]))
        .unwrap();
        assert!(policy.allows(GET, "x") && policy.allows(PUT, "secret/x"));
        assert!(!policy.allows(GET, "secret/x"));
        assert!(policy.allows_list(LIST, "public/"));
        for prefix in ["", "sec", "secret/", "secret/x"] {
            assert!(!policy.allows_list(LIST, prefix), "{prefix}");
        }
    }

    #[test]
    fn a_condition_on_the_prefix_allows_listings_alone() {
        let statement = |resource: &str| {
            json!([{"effect": "allow", "action": [LIST, GET], "resource": format!("{BASE}{resource}"),
                "condition": {"string_like": {"cos:prefix": "r%2F*"}}}])
        };
        for resource in ["", "*", "r/*"] {
            let policy = made(&statement(resource)).unwrap();
            assert!(policy.allows_list(LIST, "r/x"), "{resource}");
            assert!(!policy.allows_list(LIST, "") && !policy.allows_list(LIST, "rx"));
            assert!(!policy.allows(GET, "r/x"));
        }
        let narrower = made(&statement("r/in/*")).unwrap();
        assert!(narrower.allows_list(LIST, "r/in/") && !narrower.allows_list(LIST, "r/"));
        assert!(!made(&statement("other/*")).unwrap().allows_list(LIST, "r/"));
    }

    #[test]
    fn every_form_of_a_resource_that_tencent_documents_is_taken() {
        for (resource, inside, outside) in [
            (
                "qcs::cos:ap-guangzhou:uid/1250000000:prefix//1250000000/shared/a/*",
                "a/x",
                "ab",
            ),
            (
                "qcs:id/0:cos:ap-guangzhou:uid/1250000000:prefix//1250000000/shared/a/x",
                "a/x",
                "a/xy",
            ),
            (
                "qcs::cos::uid/1250000000:shared-1250000000/a/*",
                "a/x",
                "ab",
            ),
            (
                "qcs::cos:*:uid/1250000000:prefix//1250000000/shared/a*",
                "ab",
                "b",
            ),
            ("qcs::cos:ap-guangzhou::shared-1250000000/a/*", "a/x", "ab"),
            ("qcs::cos:::prefix//1250000000/shared/a/*", "a/x", "b"),
        ] {
            let policy = made(&json!({"effect": "allow", "action": "cos:GetObject",
                "principal": {"qcs": "*"}, "resource": resource}));
            let policy = policy.unwrap();
            assert!(
                policy.allows(GET, inside) && !policy.allows(GET, outside),
                "{resource}"
            );
            assert!(
                !policy.policy.json().contains("principal"),
                "STS takes none"
            );
        }
        for resource in ["*", "qcs::cos:*:uid/1250000000:*", "qcs::cos:::*"] {
            let policy = json!({"effect": "allow", "action": "cos:*", "resource": resource});
            let policy = made(&policy).unwrap();
            assert!(
                policy.allows(GET, "x") && policy.allows_list(LIST, ""),
                "{resource}"
            );
        }
    }

    #[test]
    fn the_older_form_of_another_bucket_is_refused() {
        for resource in [
            "prefix//1250000000/other/a/*",
            "prefix//1250000001/shared/a/*",
            "prefix//1250000000/shared-1250000000/a/*",
            "prefix//1250000000/share*",
            "prefix//1250000000/*",
            "prefix//125*/shared/a/*",
            "prefix//*",
            "prefix//",
            "prefix/1250000000/shared/a/*",
            "prefix//1250000000/shared",
            "prefix//1250000000/shared/a/*/b",
            "shared-1250000000",
        ] {
            for account in ["uid/1250000000", ""] {
                let resource = format!("qcs::cos:ap-guangzhou:{account}:{resource}");
                let policy = json!({"effect": "allow", "action": GET, "resource": resource});
                assert!(made(&policy).is_err(), "{resource}");
            }
        }
    }

    #[test]
    fn other_conditions_are_left_to_cos() {
        let mut allowed = allow(GET, "a/*");
        allowed["condition"] = json!({"bool_equal": {"cos:secure-transport": "true"}});
        let mut denied = deny(GET, "a/*");
        denied["condition"] = json!({"string_equal": {"cos:versionid": "1"}});
        let policy = made(&json!([allowed, denied])).unwrap();
        assert!(policy.allows(GET, "a/x"));
        assert_eq!((policy.rules.len(), policy.policy.statement.len()), (1, 2));
    }

    #[test]
    fn what_is_not_about_this_bucket_or_cannot_be_judged_is_refused() {
        let base = |from: &str, to: &str| json!([{"effect": "allow", "action": GET, "resource": format!("{BASE}a/*").replace(from, to)}]);
        let odd_prefix = json!([{"effect": "allow", "action": LIST, "resource": format!("{BASE}*"),
            "condition": {"string_equal": {"cos:prefix": "a%2F"}}}]);
        for (statement, fix) in [
            (base("shared", "other"), BUCKET),
            (base("ap-guangzhou", "ap-beijing"), "ap-guangzhou"),
            (base("::cos", "::ci"), "qcs::cos"),
            (base("1250000000", "1250000001"), "uid/1250000000"),
            (base("a/*", "a/*/b"), "one by one"),
            (base("a/*", "${uin}/*"), "one by one"),
            (json!([allow("name/cos:GetObjekt", "*")]), "GetObject"),
            (json!([allow("name/ci:*", "*")]), "name/cos"),
            (json!([deny(GET, "*")]), "allows"),
            (odd_prefix, "string_like"),
        ] {
            let error = made(&statement).expect_err(&statement.to_string());
            assert!(error.fix.contains(fix), "{statement}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever a listing that is allowed can show is not denied to list, and allowed.
        #[test]
        fn an_allowed_listing_shows_nothing_that_is_denied(
            allowed in "[ab/]{0,3}", denied in "[ab/]{0,3}", prefix in "[ab/]{0,4}", rest in "[ab/]{0,4}",
        ) {
            let policy = made(&json!([
                allow(LIST, &format!("{allowed}*")),
                deny(LIST, &format!("{denied}*")),
            ])).unwrap();
            if policy.allows_list(LIST, &prefix) {
                let shown = prefix + &rest;
                prop_assert!(policy.allows(LIST, &shown));
            }
        }
    }
}
