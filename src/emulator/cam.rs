//! CAM policies as COS reads them: grammar and evaluation. Pure; it shares no code with the proxy.
//!
//! Grammar: Tencent 598/10603. Evaluation (default deny, any deny wins): 598/10605. Condition keys of
//! COS: 436/71306. Resources: 598/10606. Its example for COS has the older of two forms,
//! `prefix//<appid>/<bucket without appid>/<key>`. `getPolicy` of the STS SDK for Node.js still writes that form.

use std::net::IpAddr;

use serde_json::Value;

/// A parsed policy: the most that one temporary key may do.
#[derive(Clone, Debug)]
pub(super) struct ParsedPolicy {
    statements: Vec<ParsedStatement>,
}

#[derive(Clone, Debug)]
struct ParsedStatement {
    allow: bool,
    actions: Vec<String>,
    resources: Vec<ResourcePattern>,
    conditions: Vec<ParsedCondition>,
}

#[derive(Clone, Debug)]
enum ResourcePattern {
    Any,
    Cos {
        region: String,
        account: String,
        path: String,
    },
    /// A resource of another service: it matches nothing here.
    Foreign,
}

#[derive(Clone, Debug)]
struct ParsedCondition {
    operator: String,
    if_exist: bool,
    key: String,
    values: Vec<String>,
}

/// The reason why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ParsedPolicyError {
    /// It is not JSON in the form of a policy.
    Format(String),
    /// It contains something that CAM does not know.
    Invalid(String),
}

/// One action that a caller attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    /// The action with its service: `name/cos:GetObject`.
    pub(super) action: &'a str,
    /// The bucket's region.
    pub(super) region: &'a str,
    /// The account of the bucket: digits.
    pub(super) appid: &'a str,
    /// `bucket-appid/key`. The key is empty for a bucket-level action; `None` means the whole service.
    pub(super) path: Option<&'a str>,
    /// The condition keys that this request has. Values from the query are percent-encoded.
    pub(super) facts: &'a [(&'static str, String)],
}

impl ParsedPolicy {
    /// Reads the policy's JSON.
    pub(super) fn parse(text: &str) -> Result<Self, ParsedPolicyError> {
        let json: Value =
            serde_json::from_str(text).map_err(|e| ParsedPolicyError::Format(e.to_string()))?;
        let version = json.get("version").and_then(Value::as_str);
        if version != Some("2.0") {
            return Err(ParsedPolicyError::Format("version must be \"2.0\"".into()));
        }
        let statements = match json.get("statement") {
            Some(Value::Array(list)) if !list.is_empty() => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => {
                return Err(ParsedPolicyError::Format(
                    "statement must be a list that is not empty".into(),
                ));
            }
        };
        let statements = statements
            .into_iter()
            .map(ParsedStatement::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// The policy of a user of this account. A resource without an account means that account (598/10606).
    pub(super) fn of_account(mut self, appid: &str) -> Self {
        for resource in self.statements.iter_mut().flat_map(|s| &mut s.resources) {
            if let ResourcePattern::Cos { account, .. } = resource
                && account.is_empty()
            {
                *account = format!("uid/{appid}");
            }
        }
        self
    }

    /// Whether `attempt` is allowed: some statement allows it and none denies it.
    pub(super) fn allows(&self, attempt: &Attempt<'_>) -> bool {
        let mut matching = self
            .statements
            .iter()
            .filter(|s| s.matches(attempt))
            .peekable();
        matching.peek().is_some() && matching.all(|s| s.allow)
    }

    /// An account other than `appid` that some resource names.
    pub(super) fn other_account(&self, appid: &str) -> Option<&str> {
        let own = format!("uid/{appid}");
        self.statements
            .iter()
            .flat_map(|s| &s.resources)
            .find_map(|resource| match resource {
                ResourcePattern::Cos { account, path, .. } => {
                    let bucket_appid = if let Some(old) = path.strip_prefix(OLD_FORM) {
                        old.split('/').next()
                    } else {
                        let bucket = path.split('/').next().unwrap_or_default();
                        bucket.rsplit_once('-').map(|(_, id)| id)
                    };
                    let foreign = bucket_appid.is_some_and(|id| is_digits(id) && id != appid);
                    (*account != own || foreign).then_some(account.as_str())
                }
                ResourcePattern::Any | ResourcePattern::Foreign => None,
            })
    }
}

impl ParsedStatement {
    fn parse(json: &Value) -> Result<Self, ParsedPolicyError> {
        let allow = match json.get("effect").and_then(Value::as_str) {
            Some("allow") => true,
            Some("deny") => false,
            _ => {
                return Err(ParsedPolicyError::Invalid(
                    "effect must be \"allow\" or \"deny\"".into(),
                ));
            }
        };
        let actions = texts(json.get("action"), "action")?;
        if let Some(odd) = actions.iter().find(|a| !is_action(a)) {
            return Err(ParsedPolicyError::Invalid(format!("action {odd}")));
        }
        let resources = texts(json.get("resource"), "resource")?;
        let resources = resources
            .iter()
            .map(|r| ResourcePattern::parse(r))
            .collect::<Result<_, _>>()?;
        let conditions = json
            .get("condition")
            .map_or(Ok(Vec::new()), parse_conditions)?;
        Ok(Self {
            allow,
            actions,
            resources,
            conditions,
        })
    }

    fn matches(&self, attempt: &Attempt<'_>) -> bool {
        self.actions
            .iter()
            .any(|a| action_matches(a, attempt.action))
            && self.resources.iter().any(|r| r.matches(attempt))
            && self.conditions.iter().all(|c| c.holds(attempt.facts))
    }
}

/// The start of a path in the older form. No bucket has this name: each name ends in its APPID.
const OLD_FORM: &str = "prefix//";

/// `bucket-appid/key` in the older form.
fn old_form(path: &str) -> Option<String> {
    let (bucket, key) = path.split_once('/')?;
    let (name, appid) = bucket.rsplit_once('-')?;
    Some(format!("{OLD_FORM}{appid}/{name}/{key}"))
}

impl ResourcePattern {
    /// A resource has six parts: `qcs:project:service:region:account:path`.
    fn parse(text: &str) -> Result<Self, ParsedPolicyError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let odd = || ParsedPolicyError::Invalid(format!("resource {text}"));
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().ok_or_else(odd);
        let (qcs, _project, service) = (next()?, next()?, next()?);
        let (region, account, path) = (next()?, next()?, next()?);
        if qcs != "qcs" {
            return Err(odd());
        }
        if !matches!(service, "" | "cos") {
            return Ok(Self::Foreign); // an empty service means every service (598/10606)
        }
        let is_account = account.is_empty() || account.strip_prefix("uid/").is_some_and(is_digits);
        if !is_account || path.is_empty() {
            return Err(odd());
        }
        Ok(Self::Cos {
            region: region.into(),
            account: account.into(),
            path: path.into(),
        })
    }

    fn matches(&self, attempt: &Attempt<'_>) -> bool {
        match (self, attempt.path) {
            (Self::Any, _) => true,
            // GetService is a service-level action: only `*` covers it (436/31923).
            (Self::Foreign, _) | (Self::Cos { .. }, None) => false,
            (
                Self::Cos {
                    region,
                    account,
                    path,
                },
                Some(wanted),
            ) => {
                (region.is_empty() || wildcard(region, attempt.region))
                    && account.strip_prefix("uid/") == Some(attempt.appid)
                    && if path.starts_with(OLD_FORM) {
                        old_form(wanted).is_some_and(|wanted| wildcard(path, &wanted))
                    } else {
                        wildcard(path, wanted)
                    }
            }
        }
    }
}

impl ParsedCondition {
    /// The values are alternatives. A negated operator holds if none of them matches (598/10608).
    fn holds(&self, facts: &[(&'static str, String)]) -> bool {
        let Some((_, fact)) = facts.iter().find(|(name, _)| *name == self.key) else {
            return self.if_exist;
        };
        let mut values = self.values.iter();
        match self.operator.as_str() {
            "string_equal" => values.any(|v| v == fact),
            "string_not_equal" => values.all(|v| v != fact),
            "string_like" => values.any(|v| wildcard(v, fact)),
            "bool_equal" => values.any(|v| v.eq_ignore_ascii_case(fact)),
            "ip_equal" => values.any(|v| in_network(v, fact)),
            "ip_not_equal" => values.all(|v| !in_network(v, fact)),
            numeric => {
                let Ok(fact) = fact.parse::<f64>() else {
                    return false;
                };
                let mut values = values.filter_map(|v| v.parse::<f64>().ok());
                match numeric {
                    "numeric_equal" => values.any(|v| (fact - v).abs() < f64::EPSILON),
                    "numeric_not_equal" => values.all(|v| (fact - v).abs() >= f64::EPSILON),
                    "numeric_greater_than" => values.any(|v| fact > v),
                    "numeric_greater_than_equal" => values.any(|v| fact >= v),
                    "numeric_less_than" => values.any(|v| fact < v),
                    "numeric_less_than_equal" => values.any(|v| fact <= v),
                    _ => false,
                }
            }
        }
    }
}

const OPERATORS: [&str; 12] = [
    "bool_equal",
    "ip_equal",
    "ip_not_equal",
    "numeric_equal",
    "numeric_greater_than",
    "numeric_greater_than_equal",
    "numeric_less_than",
    "numeric_less_than_equal",
    "numeric_not_equal",
    "string_equal",
    "string_like",
    "string_not_equal",
];

fn parse_conditions(json: &Value) -> Result<Vec<ParsedCondition>, ParsedPolicyError> {
    let shape = || ParsedPolicyError::Format("condition must be {operator: {key: value}}".into());
    let mut conditions = Vec::new();
    for (operator, keys) in json.as_object().ok_or_else(shape)? {
        let (plain, if_exist) = match operator.strip_suffix("_if_exist") {
            Some(plain) => (plain, true),
            None => (operator.as_str(), false),
        };
        if !OPERATORS.contains(&plain) {
            return Err(ParsedPolicyError::Invalid(format!(
                "condition operator {operator}"
            )));
        }
        for (key, values) in keys.as_object().ok_or_else(shape)? {
            conditions.push(ParsedCondition {
                operator: plain.into(),
                if_exist,
                key: key.clone(),
                values: texts(Some(values), "condition")?,
            });
        }
    }
    Ok(conditions)
}

/// A string, a number, a boolean, or a list of these.
fn texts(json: Option<&Value>, field: &str) -> Result<Vec<String>, ParsedPolicyError> {
    let one = |value: &Value| match value {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) if field == "condition" => Ok(n.to_string()),
        Value::Bool(b) if field == "condition" => Ok(b.to_string()),
        _ => Err(ParsedPolicyError::Format(format!(
            "{field} must be text or a list of text"
        ))),
    };
    match json {
        Some(Value::Array(list)) if !list.is_empty() => list.iter().map(one).collect(),
        Some(value) if !value.is_array() => Ok(vec![one(value)?]),
        _ => Err(ParsedPolicyError::Format(format!(
            "{field} is missing or empty"
        ))),
    }
}

fn is_action(text: &str) -> bool {
    let Some((service, name)) = text.strip_prefix("name/").unwrap_or(text).split_once(':') else {
        return text == "*" || text == "name/*";
    };
    let name = name.strip_suffix('*').unwrap_or(name);
    !service.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// `cos:X` and `name/cos:X` are the same action. An action may end in `*`.
fn action_matches(pattern: &str, action: &str) -> bool {
    let bare = |text| str::strip_prefix(text, "name/").unwrap_or(text);
    wildcard(bare(pattern), bare(action))
}

/// Whether `text` matches `pattern`. `*` stands for any characters, `/` included.
fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*').filter(|p| !p.is_empty()) {
        match text.split_once(piece) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(tail)
}

/// Whether `address` equals `network`, or lies in it when `network` has the form `address/bits`.
fn in_network(network: &str, address: &str) -> bool {
    let (base, bits) = match network.split_once('/') {
        Some((base, bits)) => (base, bits.parse::<u32>().ok()),
        None => (network, Some(128)),
    };
    let (Ok(base), Ok(address), Some(bits)) = (base.parse(), address.parse(), bits) else {
        return false;
    };
    match (base, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(bits))
                .unwrap_or(0);
            u32::from(a) & mask == u32::from(b) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(bits))
                .unwrap_or(0);
            u128::from(a) & mask == u128::from(b) & mask
        }
        _ => false,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(statement: &Value) -> ParsedPolicy {
        ParsedPolicy::parse(&json!({"version": "2.0", "statement": statement}).to_string()).unwrap()
    }

    fn may(policy: &ParsedPolicy, action: &str, path: &str) -> bool {
        may_with(policy, action, path, &[])
    }

    fn may_with(
        policy: &ParsedPolicy,
        action: &str,
        path: &str,
        facts: &[(&'static str, String)],
    ) -> bool {
        let attempt = Attempt {
            action,
            region: "ap-guangzhou",
            appid: "1250000000",
            path: Some(path),
            facts,
        };
        policy.allows(&attempt)
    }

    const TENANT: &str = "qcs::cos:ap-guangzhou:uid/1250000000:b-1250000000/t1/*";

    #[test]
    fn denies_without_an_allowing_statement() {
        let p = policy(
            &json!([{"effect": "allow", "action": ["name/cos:GetObject"], "resource": [TENANT]}]),
        );
        assert!(may(&p, "name/cos:GetObject", "b-1250000000/t1/x"));
        assert!(!may(&p, "name/cos:PutObject", "b-1250000000/t1/x"));
        assert!(!may(&p, "name/cos:GetObject", "b-1250000000/t2/x"));
        assert!(!may(&p, "name/cos:GetObject", "b-1250000000/t1"));
    }

    #[test]
    fn deny_wins_over_allow() {
        let p = policy(&json!([
            {"effect": "allow", "action": "*", "resource": "*"},
            {"effect": "deny", "action": "cos:Delete*", "resource": TENANT},
        ]));
        assert!(may(&p, "name/cos:GetObject", "b-1250000000/t1/x"));
        assert!(!may(&p, "name/cos:DeleteObject", "b-1250000000/t1/x"));
        assert!(may(&p, "name/cos:DeleteObject", "b-1250000000/t2/x"));
    }

    #[test]
    fn compares_region_and_account_of_a_resource() {
        for (resource, expected) in [
            ("qcs::cos::uid/1250000000:b-1250000000/*", true),
            ("qcs::cos:*:uid/1250000000:b-1250000000/*", true),
            ("qcs::cos:ap-beijing:uid/1250000000:b-1250000000/*", false),
            ("qcs::cos:ap-guangzhou:uid/1:b-1250000000/*", false),
            ("qcs::vod:ap-guangzhou:uid/1250000000:b-1250000000/*", false),
        ] {
            let p = policy(&json!([{"effect": "allow", "action": "cos:*", "resource": resource}]));
            assert_eq!(
                may(&p, "name/cos:GetObject", "b-1250000000/k"),
                expected,
                "{resource}"
            );
        }
    }

    #[test]
    fn reads_the_older_form_of_a_resource() {
        let p = |resource: &str| {
            let base = "qcs::cos:ap-guangzhou:uid/1250000000:prefix//1250000000/";
            policy(&json!([{"effect": "allow", "action": "name/cos:GetObject",
                "principal": {"qcs": "*"}, "resource": format!("{base}{resource}")}]))
        };
        for (resource, path, expected) in [
            ("b/*", "b-1250000000/", true),
            ("b/*", "b-1250000000/t1/x", true),
            ("b/t1/*", "b-1250000000/t1/x", true),
            ("b/t1/*", "b-1250000000/t2/x", false),
            ("b/t1/*", "b-c-1250000000/t1/x", false),
            ("b-c/t1/*", "b-c-1250000000/t1/x", true),
            ("b/t1", "b-1250000000/t1", true),
            ("b/t1", "b-1250000000/t1/x", false),
            ("b//x", "b-1250000000//x", true),
            ("b", "b-1250000000/", false),
            ("b*", "bc-1250000000/x", true),
            ("*", "b-1250000000/x", true),
        ] {
            assert_eq!(
                may(&p(resource), "name/cos:GetObject", path),
                expected,
                "{resource} {path}"
            );
        }
        assert_eq!(p("b/*").other_account("1250000000"), None);
        assert!(p("b/*").other_account("1250000001").is_some());
        let of_another = policy(&json!([{"effect": "allow", "action": "cos:*",
            "resource": "qcs::cos::uid/1250000000:prefix//1250000001/b/*"}]));
        assert!(of_another.other_account("1250000000").is_some());
    }

    #[test]
    fn reads_empty_account_and_empty_service() {
        for resource in [
            "qcs::cos:::b-1250000000/*",
            "qcs:::::b-1250000000/*",
            "qcs:id/0:cos:::*",
        ] {
            let p = policy(&json!([{"effect": "allow", "action": "cos:*", "resource": resource}]));
            let allows = |p: &ParsedPolicy| may(p, "name/cos:GetObject", "b-1250000000/k");
            assert!(allows(&p.clone().of_account("1250000000")), "{resource}");
            assert!(!allows(&p.of_account("1250000001")), "{resource}");
        }
    }

    #[test]
    fn requires_a_bare_star_for_the_service() {
        let attempt = |p: &ParsedPolicy| {
            p.allows(&Attempt {
                action: "name/cos:GetService",
                region: "",
                appid: "1250000000",
                path: None,
                facts: &[],
            })
        };
        assert!(attempt(&policy(
            &json!([{"effect": "allow", "action": "cos:GetService", "resource": "*"}])
        )));
        let narrow = "qcs::cos::uid/1250000000:*";
        assert!(!attempt(&policy(
            &json!([{"effect": "allow", "action": "cos:GetService", "resource": narrow}])
        )));
    }

    #[test]
    fn absent_condition_key_passes_only_if_exist() {
        let with = |operator: &str| {
            policy(
                &json!([{"effect": "allow", "action": "cos:*", "resource": "*",
                "condition": {operator: {"cos:prefix": ["t1%2F*"]}}}]),
            )
        };
        let inside = [("cos:prefix", "t1%2Fa".to_owned())];
        let outside = [("cos:prefix", "t2%2Fa".to_owned())];
        let list = |p: &ParsedPolicy, facts: &[(&'static str, String)]| {
            may_with(p, "name/cos:GetBucket", "b/", facts)
        };
        assert!(list(&with("string_like"), &inside));
        assert!(!list(&with("string_like"), &outside));
        assert!(!list(&with("string_like"), &[]));
        assert!(list(&with("string_like_if_exist"), &[]));
        assert!(!list(&with("string_like_if_exist"), &outside));
    }

    #[test]
    fn compares_numbers_addresses_and_booleans_by_type() {
        let holds = |operator: &str, key: &'static str, value: Value, fact: &str| {
            let p = policy(
                &json!([{"effect": "allow", "action": "cos:*", "resource": "*",
                "condition": {operator: {key: value}}}]),
            );
            may_with(&p, "name/cos:PutObject", "b/k", &[(key, fact.to_owned())])
        };
        assert!(holds(
            "numeric_less_than_equal",
            "cos:content-length",
            json!(1024),
            "1024"
        ));
        assert!(!holds(
            "numeric_less_than",
            "cos:content-length",
            json!("1024"),
            "1024"
        ));
        assert!(holds(
            "ip_equal",
            "qcs:ip",
            json!(["10.0.0.0/8"]),
            "10.1.2.3"
        ));
        assert!(!holds(
            "ip_equal",
            "qcs:ip",
            json!(["10.0.0.0/8"]),
            "11.1.2.3"
        ));
        assert!(holds("ip_not_equal", "qcs:ip", json!("::1"), "::2"));
        assert!(holds(
            "bool_equal",
            "cos:secure-transport",
            json!(false),
            "false"
        ));
        assert!(holds(
            "string_not_equal",
            "cos:x-cos-acl",
            json!(["public-read"]),
            "private"
        ));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
        #[test]
        fn a_further_statement_that_denies_never_allows_more(
            prefix in "[ab/*]{0,4}", denied in "[ab/*]{1,4}", key in "[ab/]{0,4}",
        ) {
            let resource = |path: &str| format!("qcs::cos::uid/1250000000:b-1250000000/{path}");
            let allow = json!({"effect": "allow", "action": "cos:*", "resource": resource(&prefix)});
            let deny = json!({"effect": "deny", "action": "cos:GetObject", "resource": resource(&denied)});
            let path = format!("b-1250000000/{key}");
            let before = may(&policy(&json!([allow])), "name/cos:GetObject", &path);
            let after = may(&policy(&json!([allow, deny])), "name/cos:GetObject", &path);
            proptest::prop_assert!(before || !after);
        }
    }

    #[test]
    fn reports_why_a_policy_is_invalid() {
        for text in [
            "",
            "{}",
            r#"{"version":"1.0","statement":[]}"#,
            r#"{"version":"2.0","statement":[]}"#,
        ] {
            assert!(
                matches!(ParsedPolicy::parse(text), Err(ParsedPolicyError::Format(_))),
                "{text}"
            );
        }
        let statement = |effect: &str, resource: &str| {
            let s = json!({"effect": effect, "action": "cos:GetObject", "resource": resource});
            ParsedPolicy::parse(&json!({"version": "2.0", "statement": [s]}).to_string())
        };
        assert!(matches!(
            statement("Allow", "*"),
            Err(ParsedPolicyError::Invalid(_))
        ));
        assert!(matches!(
            statement("allow", "arn:aws:s3:::b"),
            Err(ParsedPolicyError::Invalid(_))
        ));
    }

    #[test]
    fn finds_resources_of_another_account() {
        let with =
            |r: &str| policy(&json!([{"effect": "allow", "action": "cos:*", "resource": r}]));
        assert_eq!(with("*").other_account("1250000000"), None);
        assert_eq!(with(TENANT).other_account("1250000000"), None);
        assert!(
            with("qcs::cos::uid/1250000001:b-1250000001/*")
                .other_account("1250000000")
                .is_some()
        );
        assert!(
            with("qcs::cos::uid/1250000000:b-1250000001/*")
                .other_account("1250000000")
                .is_some()
        );
    }

    #[test]
    fn star_matches_any_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*", "a/b/c", true),
            ("a/*", "a/", true),
            ("a/*", "ab", false),
            ("a*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*c", "ab", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
