//! `Policy` of a call of STS: an AWS policy that makes a session narrower than its caller.
//!
//! Each statement must map to effect, actions, buckets and keys whole; what does not is refused with a
//! sentence that says which part. AWS's grammar: IAM, "JSON policy elements"; its evaluation: any denial
//! wins, and what nothing allows is not allowed.

use serde_json::{Map, Value};

use super::aws_actions::{ActionKind, ActionSet};
use super::cam::{Effect, PolicyError, wrong};
use super::key_glob::KeyGlob;
use super::prefix::{self, PrefixPattern};
use super::problem::printable;
use crate::encoding::hex::sha256_hex;
use crate::json;

/// Bytes of a policy at most, without white space (AWS STS `AssumeRole`, `Policy`: 2048 characters).
pub(crate) const SESSION_POLICY_BYTES: usize = 2048;
/// A listing that AWS holds to no prefix.
const UPLOADS: &str = "name/cos:ListMultipartUploads";
const VERSIONS: [&str; 2] = ["2008-10-17", "2012-10-17"];

/// A session policy, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPolicy {
    document: Value,
    digest: String,
    statements: Vec<SessionStatement>,
}

/// One statement of a [`SessionPolicy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatement {
    /// Allow or deny.
    pub effect: Effect,
    /// What is allowed or denied.
    pub actions: ActionSet,
    resources: Vec<NamedResource>,
    /// The prefixes of listings that it is held to: it is then about nothing else.
    prefixes: Option<Vec<KeyGlob>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedResource {
    /// `None`: every bucket.
    bucket: Option<String>,
    /// The bucket itself is in it.
    has_bucket: bool,
    keys: Option<KeyGlob>,
}

impl SessionPolicy {
    /// Reads a document.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let document = json::object(text.as_bytes()).ok_or_else(|| {
            wrong(
                "it is not a JSON object without repeated members",
                "write {\"Version\": \"2012-10-17\", \"Statement\": [...]}",
            )
        })?;
        let is_known = |version: &Value| VERSIONS.iter().any(|known| version == known);
        check_members(&document, "it", &["Version", "Id", "Statement"])?;
        if !document.get("Version").is_none_or(is_known) {
            return Err(wrong("its Version is unknown", "write \"2012-10-17\""));
        }
        let statements = match document.get("Statement") {
            Some(Value::Array(list)) if !list.is_empty() => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err(wrong("it has no Statement", "write a list of statements")),
        };
        let numbered = (1..).zip(statements);
        let read = numbered.map(|(number, json): (usize, _)| {
            SessionStatement::parse(json).map_err(|error| PolicyError {
                message: format!("statement {number}: {}", error.message),
                ..error
            })
        });
        let statements = read.collect::<Result<_, _>>()?;
        let document = Value::Object(document);
        Ok(Self {
            digest: sha256_hex(document.to_string().as_bytes()),
            document,
            statements,
        })
    }

    /// The document, to be read again.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// What distinguishes it from every other one.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its statements.
    pub fn statements(&self) -> &[SessionStatement] {
        &self.statements
    }

    /// Whether the right `cos` (`name/cos:…`) on `key` of `bucket` is allowed, and not denied.
    pub fn allows(&self, bucket: &str, cos: &str, key: &str, on_version: bool) -> bool {
        let actions = ActionSet::granting(cos, on_version);
        self.judge(|statement| {
            let mut keys = statement.keys(bucket);
            statement.actions.meets(actions) && keys.any(|glob| glob.matches(key))
        })
    }

    /// Whether `cos`, a listing of `bucket`, may have this `prefix`.
    pub fn allows_list(&self, bucket: &str, cos: &str, prefix: &str) -> bool {
        self.judge(|statement| {
            let mut lists = statement.lists(bucket, cos);
            lists.any(|glob| glob.matches(prefix))
        })
    }

    /// Whether `cos` may be done to `bucket` itself.
    pub fn allows_bucket(&self, bucket: &str, cos: &str) -> bool {
        let actions = ActionSet::granting(cos, false);
        self.judge(|statement| statement.actions.meets(actions) && statement.names_bucket(bucket))
    }

    /// Whether a statement allows `cos` on anything of `bucket`, denied or not.
    pub fn may_allow(&self, bucket: &str, cos: &str) -> bool {
        self.allowing().any(|statement| {
            let actions = statement.actions.and(ActionSet::granting_any(cos));
            statement.is_about(bucket, actions)
        })
    }

    /// Whether a statement allows anything of `bucket`, denied or not.
    pub fn reaches(&self, bucket: &str) -> bool {
        self.allowing()
            .any(|statement| statement.is_about(bucket, statement.actions))
    }

    /// Whether a statement allows anything on `key` of `bucket`, denied or not.
    pub fn reaches_key(&self, bucket: &str, key: &str) -> bool {
        let on_keys =
            ActionSet::of_kind(ActionKind::Key).or(ActionSet::of_kind(ActionKind::Version));
        self.allowing().any(|statement| {
            statement.actions.meets(on_keys) && statement.keys(bucket).any(|glob| glob.matches(key))
        })
    }

    /// Whether a statement allows something on all that `pattern` covers in `bucket`.
    pub fn reaches_all(&self, bucket: &str, pattern: &PrefixPattern) -> bool {
        let mut keys = self.allowing().flat_map(|statement| statement.keys(bucket));
        keys.any(|glob| {
            glob.as_prefix()
                .is_some_and(|outer| pattern.is_within(&outer))
        })
    }

    /// Whether it leaves all of `bucket` as it is.
    pub fn leaves_whole(&self, bucket: &str) -> bool {
        let is_whole = |statement: &SessionStatement| {
            let all = KeyGlob::new("*");
            statement.actions == ActionSet::all()
                && statement.names_bucket(bucket)
                && statement.keys(bucket).any(|glob| glob == all)
        };
        let mut denials = self.statements.iter().filter(|s| s.effect == Effect::Deny);
        self.allowing().any(is_whole) && !denials.any(|denial| denial.names(bucket))
    }

    /// The prefixes of listings by `cos` that a statement allows and that are the start of keys.
    pub fn listable(&self, bucket: &str, cos: &str) -> Vec<PrefixPattern> {
        let lists = self
            .allowing()
            .flat_map(|statement| statement.lists(bucket, cos));
        let patterns = lists.filter_map(|glob| glob.as_prefix());
        let is_start = |pattern: &PrefixPattern| !matches!(pattern, PrefixPattern::Exact(_));
        patterns.filter(is_start).collect()
    }

    fn allowing(&self) -> impl Iterator<Item = &SessionStatement> {
        let all = self.statements.iter();
        all.filter(|statement| statement.effect == Effect::Allow)
    }

    fn judge(&self, is_about: impl Fn(&SessionStatement) -> bool) -> bool {
        let of = |effect| self.statements.iter().filter(move |s| s.effect == effect);
        of(Effect::Allow).any(&is_about) && !of(Effect::Deny).any(&is_about)
    }
}

impl SessionStatement {
    fn parse(json: &Value) -> Result<Self, PolicyError> {
        const MEMBERS: [&str; 5] = ["Sid", "Effect", "Action", "Resource", "Condition"];
        let Value::Object(json) = json else {
            return Err(wrong("it is not an object", "write {\"Effect\": ...}"));
        };
        check_members(json, "it", &MEMBERS)?;
        let effect = match json.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => {
                let fix = "write \"Allow\" or \"Deny\"";
                return Err(wrong("its Effect is neither Allow nor Deny", fix));
            }
        };
        let mut actions = ActionSet::default();
        for written in texts(json.get("Action"), "Action")? {
            let named = ActionSet::named(written);
            if named.is_empty() {
                let message = format!(
                    "`{}` is not an action of S3 that cosgate knows",
                    printable(written)
                );
                return Err(wrong(
                    message,
                    "write a name such as s3:GetObject, or leave it out",
                ));
            }
            actions = actions.or(named);
        }
        let resources = texts(json.get("Resource"), "Resource")?;
        let resources = resources.into_iter().map(NamedResource::parse);
        Ok(Self {
            effect,
            actions,
            resources: resources.collect::<Result<_, _>>()?,
            prefixes: json.get("Condition").map(prefixes).transpose()?.flatten(),
        })
    }

    /// The keys of `bucket` that its actions on keys are about.
    pub fn keys(&self, bucket: &str) -> impl Iterator<Item = KeyGlob> {
        let resources = self.resources.iter();
        let named = resources.filter(move |resource| resource.names(bucket));
        let keys = named.filter_map(|resource| resource.keys.clone());
        // Only a listing has a prefix: the condition fails on everything else.
        keys.filter(|_| self.prefixes.is_none())
    }

    /// The prefixes that it is about of listings of `bucket` by the right `cos`.
    pub fn lists(&self, bucket: &str, cos: &str) -> impl Iterator<Item = KeyGlob> {
        let is_held = cos != UPLOADS || self.prefixes.is_none();
        let is_about = is_held && self.names_bucket_of_listing(bucket);
        let listings = ActionSet::of_kind(ActionKind::Listing).and(ActionSet::granting_any(cos));
        let is_about = is_about && self.actions.meets(listings);
        let every = || vec![KeyGlob::new("*")];
        let prefixes = is_about.then(|| self.prefixes.clone().unwrap_or_else(every));
        prefixes.into_iter().flatten()
    }

    /// Whether it is about `bucket` itself.
    pub fn names_bucket(&self, bucket: &str) -> bool {
        self.prefixes.is_none() && self.names_bucket_of_listing(bucket)
    }

    fn names_bucket_of_listing(&self, bucket: &str) -> bool {
        let mut resources = self.resources.iter();
        resources.any(|resource| resource.has_bucket && resource.names(bucket))
    }

    fn names(&self, bucket: &str) -> bool {
        self.resources.iter().any(|resource| resource.names(bucket))
    }

    /// Whether one of `actions` finds what it is about in `bucket`.
    fn is_about(&self, bucket: &str, actions: ActionSet) -> bool {
        let has = |kind| actions.meets(ActionSet::of_kind(kind));
        let on_keys = has(ActionKind::Key) || has(ActionKind::Version);
        (on_keys && self.keys(bucket).next().is_some())
            || (has(ActionKind::Listing) && self.names_bucket_of_listing(bucket))
            || (has(ActionKind::Bucket) && self.names_bucket(bucket))
    }
}

impl NamedResource {
    /// `*`, or an ARN of S3: `arn:aws:s3:::bucket`, `arn:aws:s3:::bucket/folder/*`.
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let everything = |bucket| Self {
            bucket,
            has_bucket: true,
            keys: Some(KeyGlob::new("*")),
        };
        let refuse = |what: &str, fix: &str| {
            let message = format!("the Resource `{}` {what}", printable(text));
            Err(wrong(message, fix.to_owned()))
        };
        if text == "*" {
            return Ok(everything(None));
        }
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let ["arn", partition, "s3", "", "", path] = parts[..] else {
            return refuse(
                "is no ARN of S3",
                "write arn:aws:s3:::BUCKET or arn:aws:s3:::BUCKET/FOLDER/*",
            );
        };
        if !partition.starts_with("aws") {
            return refuse("is no ARN of AWS's S3", "begin it with arn:aws:s3:::");
        }
        if path == "*" {
            return Ok(everything(None));
        }
        let (bucket, key) = match path.split_once('/') {
            Some((bucket, key)) => (bucket, Some(key)),
            None => (path, None),
        };
        let any_bucket = bucket == "*" && key.is_some();
        if bucket.is_empty() || (bucket.contains(['*', '?', '$']) && !any_bucket) {
            return refuse("has a pattern of buckets", "name one bucket, or write *");
        }
        let keys = key.map(|key| glob(key, "Resource")).transpose()?;
        Ok(Self {
            bucket: (!any_bucket).then(|| bucket.to_owned()),
            has_bucket: keys.is_none(),
            keys,
        })
    }

    fn names(&self, bucket: &str) -> bool {
        self.bucket.as_ref().is_none_or(|named| named == bucket)
    }
}

/// The prefixes of `StringLike` or `StringEquals` on `s3:prefix`: there is no other condition that is
/// kept here. An empty condition is none.
fn prefixes(condition: &Value) -> Result<Option<Vec<KeyGlob>>, PolicyError> {
    let fix = "write {\"StringLike\": {\"s3:prefix\": [\"folder/*\"]}} on s3:ListBucket";
    let Value::Object(operators) = condition else {
        return Err(wrong("its Condition is not an object", fix));
    };
    let mut operators = operators.iter();
    let (Some((operator, keys)), None) = (operators.next(), operators.next()) else {
        if condition == &Value::Object(Map::new()) {
            return Ok(None);
        }
        return Err(wrong("its Condition has more than one operator", fix));
    };
    if operator != "StringLike" && operator != "StringEquals" {
        let message = format!(
            "cosgate does not support its Condition `{}`",
            printable(operator)
        );
        return Err(wrong(message, fix));
    }
    let mut keys = keys.as_object().into_iter().flatten();
    let prefixes = match (keys.next(), keys.next()) {
        (Some((key, values)), None) if key.eq_ignore_ascii_case("s3:prefix") => {
            texts(Some(values), "s3:prefix")?
        }
        _ => return Err(wrong("its Condition is about more than s3:prefix", fix)),
    };
    let is_text = operator == "StringEquals";
    if is_text && prefixes.iter().any(|prefix| prefix.contains('*')) {
        let message = "its Condition has a `*` in StringEquals, where it is no pattern";
        return Err(wrong(message, "write StringLike"));
    }
    let globs = prefixes.into_iter().map(|prefix| glob(prefix, "s3:prefix"));
    globs.collect::<Result<_, _>>().map(Some)
}

/// A pattern of keys. `${$}` is a dollar (IAM, "policy variables"); what else has a dollar and a brace,
/// and a `?`, cannot be expressed in the policy of a key of COS.
fn glob(text: &str, what: &str) -> Result<KeyGlob, PolicyError> {
    let text = text.replace("${$}", "$");
    let starts = text.split('*').enumerate();
    for (place, piece) in starts {
        // A piece within a key may begin with a slash, and a `.` there is no whole segment.
        let piece = match place {
            0 => piece,
            _ => piece.trim_start_matches(['/', '\\']),
        };
        if let Some((why, fix)) = prefix::fault(piece) {
            return Err(wrong(
                format!("`{}` of its {what} {why}", printable(&text)),
                fix,
            ));
        }
    }
    Ok(KeyGlob::new(&text))
}

fn check_members(json: &Map<String, Value>, what: &str, known: &[&str]) -> Result<(), PolicyError> {
    let strange = json.keys().find(|name| !known.contains(&name.as_str()));
    match strange {
        None => Ok(()),
        Some(name) => {
            let message = format!("{what} has a member `{}`", printable(name));
            Err(wrong(
                message,
                format!("cosgate supports only {}", known.join(", ")),
            ))
        }
    }
}

/// One text, or a list of some.
fn texts<'j>(json: Option<&'j Value>, what: &str) -> Result<Vec<&'j str>, PolicyError> {
    let texts = match json {
        Some(Value::String(text)) => Some(vec![text.as_str()]),
        Some(Value::Array(list)) if !list.is_empty() => list.iter().map(Value::as_str).collect(),
        _ => None,
    };
    texts.ok_or_else(|| {
        let message = format!("its {what} is neither a text nor a list of texts");
        wrong(message, format!("write {what}, as AWS's grammar has it"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const GET: &str = "name/cos:GetObject";
    const LIST: &str = "name/cos:GetBucket";

    fn one(statement: &Value) -> Result<SessionPolicy, PolicyError> {
        let document = json!({"Version": "2012-10-17", "Statement": statement});
        SessionPolicy::parse(&document.to_string())
    }

    /// What Apache Polaris sends for a table that may be written.
    fn of_polaris() -> SessionPolicy {
        let bucket = "arn:aws:s3:::lake";
        one(&json!([
            {"Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"], "Resource": "arn:aws:s3:::lake/ns/t/*"},
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket, "Condition": {"StringLike": {"s3:prefix": "ns/t/*"}}},
            {"Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": bucket},
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": "arn:aws:s3:::lake/ns/t/*"},
        ]))
        .unwrap()
    }

    #[test]
    fn what_catalogs_send_narrows_keys_and_listings() {
        let policy = of_polaris();
        assert!(policy.allows("lake", GET, "ns/t/data.parquet", false));
        assert!(policy.allows("lake", GET, "ns/t/data.parquet", true));
        assert!(policy.allows("lake", "name/cos:UploadPart", "ns/t/a", false));
        assert!(policy.allows_list("lake", LIST, "ns/t/"));
        assert!(policy.allows_list("lake", LIST, "ns/t/data/"));
        for (bucket, key) in [("lake", "ns/u/a"), ("lake", "ns/t"), ("other", "ns/t/a")] {
            assert!(!policy.allows(bucket, GET, key, false), "{bucket} {key}");
            assert!(!policy.allows_list(bucket, LIST, key), "{bucket} {key}");
        }
        assert!(
            !policy.allows("lake", "name/cos:DeleteObject", "ns/t/a", true),
            "versions stay"
        );
        assert!(!policy.allows_list("lake", "name/cos:GetBucketObjectVersions", "ns/t/"));
        assert!(policy.reaches("lake") && !policy.reaches("other") && !policy.leaves_whole("lake"));
    }

    #[test]
    fn stars_stand_anywhere_and_a_denial_wins() {
        let policy = one(&json!([
            {"Effect": "Allow", "Action": "s3:Get*", "Resource": ["arn:aws:s3:::lake/*/t/*", "arn:aws-cn:s3:::lake"]},
            {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::lake/*secret*"},
        ]))
        .unwrap();
        assert!(policy.allows("lake", GET, "0f/t/a", false));
        assert!(!policy.allows("lake", GET, "0f/t/secret.txt", false));
        assert!(
            policy.allows("lake", GET, "0f/t/secret.txt", true),
            "it denies the latest version alone"
        );
        assert!(policy.allows_bucket("lake", "name/cos:GetBucketVersioning"));
        assert!(!policy.allows_list("lake", LIST, ""));
    }

    #[test]
    fn a_policy_that_allows_everything_leaves_a_bucket_whole() {
        let all = |resource: Value| {
            one(&json!({"Effect": "Allow", "Action": "s3:*", "Resource": resource})).unwrap()
        };
        assert!(all(json!("*")).leaves_whole("lake"));
        assert!(all(json!(["arn:aws:s3:::lake", "arn:aws:s3:::lake/*"])).leaves_whole("lake"));
        assert!(!all(json!("arn:aws:s3:::lake/*")).leaves_whole("lake"));
        assert!(!all(json!("arn:aws:s3:::other")).reaches("lake"));
    }

    #[test]
    fn what_does_not_map_is_refused_with_the_part_that_does_not() {
        let allow = |change: &str, value: Value| {
            let mut statement =
                json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
            statement[change] = value;
            statement
        };
        for (statement, why) in [
            (allow("NotAction", json!("s3:*")), "NotAction"),
            (allow("Principal", json!("*")), "Principal"),
            (allow("Effect", json!("allow")), "Effect"),
            (allow("Action", json!([])), "Action"),
            (allow("Action", json!("s3:GetObjekt")), "s3:GetObjekt"),
            (
                allow("Action", json!(["s3:GetObject", "kms:Decrypt"])),
                "kms:Decrypt",
            ),
            (allow("Resource", json!("lake/*")), "lake/*"),
            (
                allow("Resource", json!("arn:aws:s3:::la*/x")),
                "pattern of buckets",
            ),
            (
                allow("Resource", json!("arn:aws:s3:::lake/${aws:username}/*")),
                "${",
            ),
            (allow("Resource", json!("arn:aws:s3:::lake/a?")), "`?`"),
            (
                allow("Resource", json!("arn:aws:s3:::lake/../x")),
                "segment",
            ),
            (allow("Resource", json!("arn:aws:dynamodb:::t")), "ARN"),
            (
                allow(
                    "Condition",
                    json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
                ),
                "IpAddress",
            ),
            (
                allow("Condition", json!({"StringLike": {"s3:delimiter": "/"}})),
                "s3:prefix",
            ),
            (
                allow("Condition", json!({"StringNotLike": {"s3:prefix": "a"}})),
                "StringNotLike",
            ),
            (
                allow("Condition", json!({"StringEquals": {"s3:prefix": "a*"}})),
                "StringLike",
            ),
            (json!([]), "Statement"),
        ] {
            let error = one(&statement).unwrap_err().to_string();
            assert!(error.contains(why), "{statement}: {error}");
        }
        for text in [
            "",
            "[]",
            "{}",
            r#"{"Version":"2.0","Statement":[]}"#,
            r#"{"Statement":{},"Statement":{}}"#,
        ] {
            assert!(SessionPolicy::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~]{0,200}", part in "[ -~é]{0,40}") {
            let _ = SessionPolicy::parse(&text);
            let _ = one(&json!({"Effect": "Allow", "Action": part, "Resource": part}));
            let resource = format!("arn:aws:s3:::{part}");
            let _ = one(&json!({"Effect": "Deny", "Action": "*", "Resource": resource, "Condition": {"StringLike": {"s3:prefix": part}}}));
        }
    }
}
