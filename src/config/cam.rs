//! CAM policies: the grammar of Tencent's policy syntax (598/10603) as COS reads it (436/71306).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::problem::{Mistake, printable};
use crate::json;

/// Bytes of a policy's text at most, as it is written.
const TEXT_BYTES: usize = 64 * 1024;
/// Bytes of a policy as it is sent. STS publishes no limit, and a token, which grows with the policy,
/// has at most 4096 bytes: more than this is likely to be refused.
pub(crate) const LIKELY_BYTES: usize = 2048;
/// Bytes of a policy as it is sent, above which STS is not called.
const SENT_BYTES: usize = 16 * 1024;

/// Whom a statement is about, in policies of roles and buckets.
const PRINCIPAL: &str = "principal";
/// What begins the name of a resource in its older form. No bucket is called so: each ends in its APPID.
const OLD_FORM: &str = "prefix//";

/// Operators of conditions that COS knows; each also with `_if_exist`.
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

/// A CAM policy. It serialises to compact JSON, and equal policies to equal bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Always `2.0`.
    pub version: String,
    /// What is allowed or denied; nothing else is allowed.
    pub statement: Vec<Statement>,
}

/// One rule of a [`Policy`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Allow or deny.
    pub effect: Effect,
    /// `name/cos:…`
    pub action: Vec<String>,
    /// `qcs::cos:<region>:uid/<appid>:<bucket>/<key or prefix>`
    pub resource: Vec<String>,
    /// Operator, then key, then value or values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: Condition,
}

/// Operator, then key, then value or values: all must hold.
pub type Condition = BTreeMap<String, BTreeMap<String, Value>>;

/// What a [`Statement`] does.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Grants.
    Allow,
    /// Forbids, whatever else grants.
    Deny,
}

/// Why a policy is refused, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub fix: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.fix)
    }
}

impl std::error::Error for PolicyError {}

impl From<PolicyError> for Mistake {
    fn from(error: PolicyError) -> Self {
        Self::new(error.message, error.fix)
    }
}

impl Policy {
    /// A policy of these statements.
    pub fn new(statement: Vec<Statement>) -> Self {
        Self {
            version: "2.0".into(),
            statement,
        }
    }

    /// Reads a policy as it is written, and checks it against the grammar. One text where a list may
    /// stand becomes a list of one, in which form it is sent.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > TEXT_BYTES {
            return Err(wrong("the policy is longer than 64 KiB", "shorten it"));
        }
        let policy = json::object(text.as_bytes()).ok_or_else(|| {
            wrong(
                "it is not a JSON object without repeated members",
                "write {\"version\": \"2.0\", \"statement\": […]}",
            )
        })?;
        check_members(&policy, "the policy", &["version", "statement", PRINCIPAL])?;
        check_principal(&policy, "the policy")?;
        if policy.get("version").and_then(Value::as_str) != Some("2.0") {
            return Err(wrong(
                "its version is not \"2.0\"",
                "write \"version\": \"2.0\"",
            ));
        }
        let statements = match policy.get("statement") {
            Some(Value::Array(list)) if !list.is_empty() => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => {
                let fix = "write \"statement\": [{\"effect\": …, \"action\": …, \"resource\": …}]";
                return Err(wrong("it has no statement", fix));
            }
        };
        let statements = statements.into_iter().zip(1..);
        let read = statements.map(|(json, number)| {
            Statement::parse(json).map_err(|error| PolicyError {
                message: format!("statement {number}: {}", error.message),
                ..error
            })
        });
        let policy = Self::new(read.collect::<Result<_, _>>()?);
        let length = policy.json().len();
        if length > SENT_BYTES {
            let message = format!("the policy has {length} bytes as it is sent to STS");
            return Err(wrong(message, "write fewer resources, or wider ones"));
        }
        Ok(policy)
    }

    /// Compact JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // texts in vectors and maps cannot fail
    }

    /// Refuses a resource of another account than `bucket`'s, which is what follows its last dash.
    pub fn check_account(&self, bucket: &str) -> Result<(), PolicyError> {
        let Some((_, appid)) = bucket.rsplit_once('-') else {
            return Err(wrong(
                format!("the bucket `{}` has no APPID", printable(bucket)),
                "write its full name, such as examplebucket-1250000000",
            ));
        };
        let account = format!("uid/{appid}");
        for (number, text, resource) in self.accounts() {
            let other = resource.appid_of_bucket().filter(|other| *other != appid);
            if !["", account.as_str()].contains(&resource.account) || other.is_some() {
                return Err(wrong(
                    format!(
                        "statement {number}: `{}` is of another account than the bucket `{}`",
                        printable(text),
                        printable(bucket)
                    ),
                    format!("write uid/{appid} and buckets that end in -{appid}"),
                ));
            }
        }
        Ok(())
    }

    /// Refuses a resource whose account is not that of its own bucket.
    pub fn check_accounts(&self) -> Result<(), PolicyError> {
        for (number, text, resource) in self.accounts() {
            if let Some(appid) = resource.appid_of_bucket()
                && !resource.account.is_empty()
                && resource.account != format!("uid/{appid}")
            {
                return Err(wrong(
                    format!(
                        "statement {number}: `{}` has the account of another bucket",
                        printable(text)
                    ),
                    format!("write uid/{appid}: the APPID is what follows the bucket's last dash"),
                ));
            }
        }
        Ok(())
    }

    /// All resources but `*`, which has no account.
    fn accounts(&self) -> impl Iterator<Item = (usize, &str, ResourceName<'_>)> {
        let resources = self.resources();
        resources.filter_map(|(number, text)| Some((number, text, ResourceName::parse(text)?)))
    }

    /// Each statement that allows more than it need, and how.
    pub fn too_wide(&self) -> Vec<PolicyError> {
        let widths = self.widths();
        widths.into_iter().map(|(error, _)| error).collect()
    }

    /// The same of what leads out of a single bucket, or allows all that can be done with one: a key that
    /// its holder uses without cosgate may do all of it.
    pub(crate) fn beyond_a_bucket(&self) -> Vec<PolicyError> {
        let widths = self.widths();
        let beyond = widths.into_iter().filter(|(_, is_beyond)| *is_beyond);
        beyond.map(|(error, _)| error).collect()
    }

    /// Each with whether it is beyond a bucket.
    fn widths(&self) -> Vec<(PolicyError, bool)> {
        let mut found = Vec::new();
        for (number, statement) in (1..).zip(&self.statement) {
            if statement.effect == Effect::Deny {
                continue;
            }
            for action in statement.action.iter().filter(|text| text.ends_with('*')) {
                let error = wrong(
                    format!("statement {number} allows more actions than it names: `{action}`"),
                    "name each action that is needed",
                );
                let service = action.strip_prefix("name/").unwrap_or(action);
                let stem = service.strip_prefix("cos:");
                found.push((error, stem.is_none_or(|stem| stem == "*")));
            }
            for text in &statement.resource {
                let (why, is_beyond) = match ResourceName::parse(text) {
                    None => ("everything in the account", true),
                    Some(resource) if resource.name == "*" => ("every bucket of the account", true),
                    Some(resource) if resource.region.is_empty() || resource.region == "*" => {
                        ("every region", true)
                    }
                    Some(resource) => match resource.place() {
                        (bucket, _) if bucket.contains('*') => ("more than one bucket", true),
                        (_, Some(key)) if !key.starts_with('*') => continue,
                        (_, None | Some(_)) => ("the whole bucket", false),
                    },
                };
                let error = wrong(
                    format!("statement {number} is about {why}: `{}`", printable(text)),
                    "name the folder: qcs::cos:REGION:uid/APPID:BUCKET/folder/*",
                );
                found.push((error, is_beyond));
            }
        }
        found
    }

    fn resources(&self) -> impl Iterator<Item = (usize, &str)> {
        let statements = (1..).zip(&self.statement);
        statements.flat_map(|(number, statement)| {
            let texts = statement.resource.iter();
            texts.map(move |text| (number, text.as_str()))
        })
    }
}

impl Statement {
    /// A rule that allows `action` on `resource` with no condition.
    pub fn allow(action: Vec<String>, resource: Vec<String>) -> Self {
        Self {
            effect: Effect::Allow,
            action,
            resource,
            condition: BTreeMap::new(),
        }
    }

    /// Whether it grants; else it forbids.
    pub fn allows(&self) -> bool {
        self.effect == Effect::Allow
    }

    fn parse(json: &Value) -> Result<Self, PolicyError> {
        const MEMBERS: [&str; 5] = ["effect", "action", "resource", "condition", PRINCIPAL];
        let Value::Object(json) = json else {
            return Err(wrong("it is not an object", "write {\"effect\": …}"));
        };
        check_members(json, "it", &MEMBERS)?;
        check_principal(json, "it")?;
        let effect = match json.get("effect").and_then(Value::as_str) {
            Some("allow") => Effect::Allow,
            Some("deny") => Effect::Deny,
            _ => {
                return Err(wrong(
                    "its effect is neither \"allow\" nor \"deny\"",
                    "write one of them, in lower case",
                ));
            }
        };
        let action = texts(json, "action", "\"name/cos:GetObject\"")?;
        if let Some(odd) = action.iter().find(|text| !is_action(text)) {
            return Err(wrong(
                format!("`{}` is not an action", printable(odd)),
                "write name/cos:GetObject; a `*` may stand at the end",
            ));
        }
        let example = "\"qcs::cos:ap-guangzhou:uid/1250000000:examplebucket-1250000000/folder/*\"";
        let resource = texts(json, "resource", example)?;
        let odd = resource
            .iter()
            .find(|text| *text != "*" && ResourceName::parse(text).is_none());
        if let Some(odd) = odd {
            return Err(wrong(
                format!("`{}` is not a resource", printable(odd)),
                format!("write {example}"),
            ));
        }
        let condition = json.get("condition").map(parse_condition).transpose()?;
        Ok(Self {
            effect,
            action,
            resource,
            condition: condition.unwrap_or_default(),
        })
    }
}

/// The parts of `qcs:<project>:<service>:<region>:<account>:<name>`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResourceName<'a> {
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    account: &'a str,
    pub(super) name: &'a str,
}

impl<'a> ResourceName<'a> {
    /// `None` for `*`, and for what is no resource.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (qcs, _project) = (parts.next()?, parts.next()?);
        let (service, region) = (parts.next()?, parts.next()?);
        let (account, name) = (parts.next()?, parts.next()?);
        // Without an account it is the issuer's own (598/10606).
        let is_account = account.is_empty()
            || account
                .split_once('/')
                .is_some_and(|(kind, number)| matches!(kind, "uid" | "uin") && is_digits(number));
        let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let is_good = qcs == "qcs"
            && !service.is_empty()
            && word(service)
            && (word(region) || region == "*")
            && is_account
            && !name.is_empty()
            && !name.chars().any(char::is_control);
        is_good.then_some(Self {
            service,
            region,
            account,
            name,
        })
    }

    /// The bucket and the key of a resource of COS; no key where nothing stands behind the bucket. In the
    /// older form, `prefix//APPID/NAME/KEY` (598/10606), the bucket is in two parts; the Node STS SDK's
    /// `getPolicy` writes it.
    pub(super) fn place(&self) -> (Cow<'a, str>, Option<&'a str>) {
        let split = |text: &'a str| match text.split_once('/') {
            Some((start, rest)) => (start, Some(rest)),
            None => (text, None),
        };
        let Some(old) = self.name.strip_prefix(OLD_FORM) else {
            let (bucket, key) = split(self.name);
            return (bucket.into(), key);
        };
        let (appid, rest) = split(old);
        let (name, key) = split(rest.unwrap_or_default());
        (format!("{name}-{appid}").into(), key)
    }

    /// What follows the last dash of the bucket, where that is a number.
    fn appid_of_bucket(&self) -> Option<&'a str> {
        let appid = if let Some(old) = self.name.strip_prefix(OLD_FORM) {
            old.split('/').next()?
        } else {
            let path = self.name.strip_prefix("bucket/").unwrap_or(self.name);
            path.split('/').next()?.rsplit_once('-')?.1
        };
        is_digits(appid).then_some(appid)
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Everyone is the only principal that restricts nothing: it is left out of what is sent. STS takes none
/// (1312/48195), and the Node STS SDK writes this one.
fn check_principal(object: &Map<String, Value>, what: &str) -> Result<(), PolicyError> {
    let is_everyone = |principal: &Value| {
        *principal == json!({"qcs": "*"}) || *principal == json!({"qcs": ["*"]})
    };
    match object.get(PRINCIPAL) {
        Some(principal) if !is_everyone(principal) => Err(wrong(
            format!("{what} has a `{PRINCIPAL}`"),
            "remove it: the policy of a temporary key is about that key",
        )),
        _ => Ok(()),
    }
}

fn check_members(
    object: &Map<String, Value>,
    what: &str,
    known: &[&str],
) -> Result<(), PolicyError> {
    let Some(odd) = object.keys().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let lower = odd.to_ascii_lowercase();
    let fix = match lower.as_str() {
        lower if known.contains(&lower) => format!("write \"{lower}\""),
        _ => "remove it".to_owned(),
    };
    let message = format!("{what} has a member `{}`", printable(odd));
    Err(wrong(message, fix))
}

/// A text, or a list of texts with something in it.
fn texts(
    object: &Map<String, Value>,
    name: &str,
    example: &str,
) -> Result<Vec<String>, PolicyError> {
    let read = match object.get(name) {
        Some(Value::String(text)) => Some(vec![text.clone()]),
        Some(Value::Array(list)) if !list.is_empty() => list
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    read.ok_or_else(|| {
        wrong(
            format!("its {name} is not a text or a list of texts"),
            format!("write \"{name}\": [{example}]"),
        )
    })
}

/// `*`, or `[name/]service:Action`, with a `*` at the end or not.
fn is_action(text: &str) -> bool {
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    let Some((service, action)) = text.split_once(':') else {
        return text == "*";
    };
    let service = service.strip_prefix("name/").unwrap_or(service);
    let name = action.strip_suffix('*').unwrap_or(action);
    !service.is_empty() && word(service) && !action.is_empty() && word(name)
}

fn parse_condition(json: &Value) -> Result<Condition, PolicyError> {
    let shape = || {
        wrong(
            "its condition is not of the form {operator: {key: value or values}}",
            "write \"condition\": {\"ip_equal\": {\"qcs:ip\": [\"10.0.0.0/8\"]}}",
        )
    };
    let mut condition = Condition::new();
    for (operator, keys) in json.as_object().ok_or_else(shape)? {
        let plain = operator.strip_suffix("_if_exist").unwrap_or(operator);
        if !OPERATORS.contains(&plain) {
            let message = format!("`{}` is not an operator of conditions", printable(operator));
            let fix = format!("write one of {}", OPERATORS.join(", "));
            return Err(wrong(message, fix));
        }
        let keys = keys.as_object().filter(|keys| !keys.is_empty());
        for (key, value) in keys.ok_or_else(shape)? {
            let values = match value {
                Value::Array(list) if !list.is_empty() => list.iter().collect(),
                Value::Array(_) | Value::Object(_) | Value::Null => return Err(shape()),
                one => vec![one],
            };
            if let Some(odd) = values.into_iter().find(|value| !fits(plain, value)) {
                return Err(wrong(
                    format!("`{plain}` cannot compare with {odd}"),
                    "write a text, a number, true or false, or an address such as 10.0.0.0/8",
                ));
            }
            let (service, name) = key.split_once(':').ok_or_else(shape)?;
            if !matches!(service, "cos" | "qcs" | "ci") || name.is_empty() {
                return Err(wrong(
                    format!("`{}` is not a key of conditions", printable(key)),
                    "write qcs:ip, cos:prefix or another of COS's",
                ));
            }
            let keys = condition.entry(operator.clone()).or_default();
            keys.insert(key.clone(), value.clone());
        }
    }
    Ok(condition)
}

/// Whether `operator` can compare with `value`.
fn fits(operator: &str, value: &Value) -> bool {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Null | Value::Object(_) => return false,
    };
    match operator.split('_').next() {
        Some("bool") => text == "true" || text == "false",
        Some("ip") => text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok(),
        Some("numeric") => text.parse::<f64>().is_ok_and(f64::is_finite),
        _ => true,
    }
}

pub(super) fn wrong(message: impl Into<String>, fix: impl Into<String>) -> PolicyError {
    PolicyError {
        message: message.into(),
        fix: fix.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: &str = "qcs::cos:ap-guangzhou:uid/1250000000:examplebucket-1250000000/folder/*";

    fn policy(statement: &str) -> String {
        format!(r#"{{"version":"2.0","statement":[{statement}]}}"#)
    }

    fn allow(more: &str) -> String {
        policy(&format!(
            r#"{{"effect":"allow","action":"name/cos:GetObject","resource":"{RESOURCE}"{more}}}"#
        ))
    }

    #[test]
    fn one_text_is_a_list_of_one_and_the_json_is_canonical() {
        let spaced = allow("")
            .replace(':', " : ")
            .replace("name/cos : ", "name/cos:");
        let spaced = spaced.replace(
            "qcs :  : cos : ap-guangzhou : uid/1250000000 : ",
            "qcs::cos:ap-guangzhou:uid/1250000000:",
        );
        let read = Policy::parse(&spaced).unwrap();
        assert_eq!(
            read.json(),
            policy(&format!(
                r#"{{"effect":"allow","action":["name/cos:GetObject"],"resource":["{RESOURCE}"]}}"#
            ))
        );
        assert_eq!(Policy::parse(&read.json()), Ok(read));
    }

    #[test]
    fn conditions_of_every_operator_are_kept() {
        for (operator, value) in [
            ("bool_equal", "true"),
            ("ip_equal", r#"["10.217.182.3/24","2001:db8::1"]"#),
            ("ip_not_equal_if_exist", r#""10.0.0.1""#),
            ("numeric_less_than_equal", "10485760"),
            ("string_like", r#""a%2F*""#),
        ] {
            let text = allow(&format!(
                r#","condition":{{"{operator}":{{"cos:x":{value}}}}}"#
            ));
            let read = Policy::parse(&text).unwrap();
            let value: Value = serde_json::from_str(value).unwrap();
            assert_eq!(read.statement[0].condition[operator]["cos:x"], value);
        }
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_mend() {
        let good = allow("");
        for (text, fix) in [
            (String::new(), "version"),
            ("[]".into(), "version"),
            (good.replace("2.0", "1.0"), "2.0"),
            (good.replace("statement", "Statement"), "\"statement\""),
            (policy(""), "\"effect\""),
            (policy("7"), "\"effect\""),
            (good.replace("allow", "Allow"), "lower case"),
            (
                good.replace("name/cos:GetObject", "name/cos:*Object"),
                "at the end",
            ),
            (good.replace("name/cos:GetObject", "GetObject"), "name/cos"),
            (good.replace("uid/", "uid:"), "qcs::cos"),
            (good.replace("qcs::cos", "arn:aws:s3"), "qcs::cos"),
            (
                allow(r#","principal":{"qcs":["qcs::cam::uin/1:uin/2"]}"#),
                "remove it",
            ),
            (allow(r#","principal":"*""#), "remove it"),
            (allow(r#","Principal":{"qcs":["*"]}"#), "principal"),
            (good.replace("\"2.0\"", "2.0"), "\"2.0\""),
            (good.replace("\"effect\"", "\"Effect\""), "\"effect\""),
            (good.replace("uid/1250000000", "uid/*"), "qcs::cos"),
            (allow(r#","effect":"deny""#), "version"),
            (
                allow(r#","condition":{"ip_is":{"qcs:ip":"10.0.0.1"}}"#),
                "ip_equal",
            ),
            (
                allow(r#","condition":{"ip_equal":{"qcs:ip":"here"}}"#),
                "10.0.0.0/8",
            ),
            (
                allow(r#","condition":{"ip_equal":{"qcs:ip":[]}}"#),
                "ip_equal",
            ),
            (
                allow(r#","condition":{"ip_equal":{"ip":"10.0.0.1"}}"#),
                "ip_equal",
            ),
            (" ".repeat(TEXT_BYTES + 1), "shorten"),
            (good.replace("folder", &"f".repeat(SENT_BYTES)), "fewer"),
        ] {
            let error = Policy::parse(&text).expect_err(&text);
            assert!(error.fix.contains(fix), "{text}: {error}");
        }
    }

    #[test]
    fn another_account_is_found() {
        let bucket = "examplebucket-1250000000";
        let check = |text: &str| Policy::parse(text).unwrap().check_account(bucket);
        assert_eq!(check(&allow("")), Ok(()));
        for (from, to) in [
            ("uid/1250000000", "uid/1250000001"),
            ("uid/", "uin/"),
            ("t-1250000000", "t-1250000001"),
        ] {
            let error = check(&allow("").replace(from, to)).unwrap_err();
            assert!(error.fix.contains("uid/1250000000"), "{error}");
        }
        let of_its_bucket = |text: &str| Policy::parse(text).unwrap().check_accounts();
        assert_eq!(of_its_bucket(&allow("")), Ok(()));
        let error = of_its_bucket(&allow("").replace("uid/1250000000", "uid/1250000001"));
        assert!(error.unwrap_err().fix.contains("uid/1250000000"));
        assert!(
            Policy::parse(&allow(""))
                .unwrap()
                .check_account("bare")
                .is_err()
        );
    }

    #[test]
    fn wide_statements_are_named_and_denials_are_not() {
        let wide = |text: &str| Policy::parse(text).unwrap().too_wide();
        assert_eq!(wide(&allow("")), []);
        for (from, to) in [
            ("name/cos:GetObject", "*"),
            ("name/cos:GetObject", "name/cos:Get*"),
            (RESOURCE, "*"),
            ("folder/*", "*"),
            ("folder/*", "**"),
            ("folder/*", "*.jpg"),
            ("examplebucket-1250000000/folder/*", "*"),
            ("examplebucket-1250000000/", "examplebucket*/"),
            ("ap-guangzhou", ""),
            ("ap-guangzhou", "*"),
        ] {
            let text = allow("").replace(from, to);
            let found = wide(&text);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].message.starts_with("statement 1"), "{}", found[0]);
            assert_eq!(wide(&text.replace("allow", "deny")), []);
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn no_text_panics(text: String, action in "[ -~]{0,20}", resource in "[ -~]{0,40}") {
            let _ = Policy::parse(&text);
            let (action, resource) = (Value::from(action), Value::from(resource));
            let text = policy(&format!(r#"{{"effect":"deny","action":{action},"resource":{resource}}}"#));
            if let Ok(read) = Policy::parse(&text) {
                let _ = (read.too_wide(), read.check_account("b-1"));
            }
        }
    }
}
