//! [`FormPolicy`]: what a signed form may request.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html>

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::Form;
use super::fields::is_ignored;
use crate::error::{Code, S3Error};
use crate::s3::query::shown;
use crate::timestamp::Timestamp;

/// A policy document, read but not yet applied. Its size is bounded by that of the form.
#[derive(Clone, Debug)]
pub struct FormPolicy {
    expiration: Timestamp,
    conditions: Vec<FormCondition>,
}

/// How many bytes the file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthRange {
    min: u64,
    max: u64,
}

/// One condition; field names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FormCondition {
    Equals { field: String, value: String },
    Length(LengthRange),
    StartsWith { field: String, prefix: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyDocument {
    expiration: String,
    conditions: Vec<PolicyElement>,
}

/// One element of `conditions`: an object may hold several.
struct PolicyElement(Vec<FormCondition>);

/// A number of bytes, which some tools write as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Bytes {
    Number(u64),
    Text(String),
}

impl FormPolicy {
    /// Reads the field `policy`: base64 of a JSON document.
    pub fn parse(field: &str) -> Result<Self, S3Error> {
        let json = BASE64_STANDARD
            .decode(field)
            .map_err(|_| invalid("it must be base64, in one line"))?;
        let document: PolicyDocument =
            serde_json::from_slice(&json).map_err(|error| invalid(&shown(&error.to_string())))?;
        let expiration = Timestamp::parse_iso8601(&document.expiration)
            .ok_or_else(|| invalid("expiration must be written 2026-01-15T12:30:45.000Z"))?;
        let conditions = document
            .conditions
            .into_iter()
            .flat_map(|written| written.0);
        Ok(Self {
            expiration,
            conditions: conditions.collect(),
        })
    }

    /// When it ends to be good.
    pub fn expiration(&self) -> Timestamp {
        self.expiration
    }

    /// Holds `form`, posted to the bucket that the client calls `bucket`, to every condition, and every
    /// field to having one. `unlisted` are the fields (lower case) that need none. The file's length is
    /// left to be checked: the range that it must be in.
    pub fn check(
        &self,
        form: &Form,
        bucket: &str,
        unlisted: &[&str],
        now: Timestamp,
    ) -> Result<LengthRange, S3Error> {
        if now >= self.expiration {
            return Err(denied("Policy expired."));
        }
        let value_of = |field: &str| match field {
            "bucket" => Some(bucket),
            _ => form.get(field),
        };
        let mut range = LengthRange::ANY;
        for condition in &self.conditions {
            if let FormCondition::Length(other) = condition {
                range = range.and(*other);
            } else if !condition.holds(value_of) {
                return Err(denied(&format!("Policy Condition failed: {condition}")));
            }
        }
        let fields = form.fields().map(|(name, _)| name);
        let extra: Vec<_> = fields
            .filter(|name| *name != "bucket")
            .chain(["bucket"])
            .filter(|name| !unlisted.contains(name) && !is_ignored(name))
            .filter(|name| {
                !self
                    .conditions
                    .iter()
                    .any(|condition| condition.covers(name))
            })
            .map(shown)
            .collect();
        if !extra.is_empty() {
            return Err(denied(&format!("Extra input fields: {}", extra.join(", "))));
        }
        Ok(range)
    }
}

impl LengthRange {
    /// No limit but the store's.
    pub const ANY: Self = Self {
        min: 0,
        max: u64::MAX,
    };

    /// Refuses a file of `length` bytes outside the range.
    pub fn check(self, length: u64) -> Result<(), S3Error> {
        self.check_most(length)?;
        if length < self.min {
            let text = format!(
                "Your proposed upload is smaller than the minimum allowed size of {} bytes.",
                self.min
            );
            return Err(S3Error::new(Code::EntityTooSmall, text));
        }
        Ok(())
    }

    /// Refuses a file of at least `length` bytes if that is too much.
    pub(crate) fn check_most(self, length: u64) -> Result<(), S3Error> {
        if length > self.max {
            let text = format!(
                "Your proposed upload exceeds the maximum allowed size of {} bytes.",
                self.max
            );
            return Err(S3Error::new(Code::EntityTooLarge, text));
        }
        Ok(())
    }

    fn and(self, other: Self) -> Self {
        Self {
            min: self.min.max(other.min),
            max: self.max.min(other.max),
        }
    }
}

impl FormCondition {
    fn equals(field: &str, value: String) -> Self {
        let field = field.to_ascii_lowercase();
        Self::Equals { field, value }
    }

    /// Whether it holds; a field that the form does not have meets no condition.
    fn holds<'f>(&self, value_of: impl Fn(&str) -> Option<&'f str>) -> bool {
        match self {
            Self::Equals { field, value } => value_of(field) == Some(value.as_str()),
            Self::Length(_) => true,
            // Several types, with commas between, must each have the prefix.
            Self::StartsWith { field, prefix } if field == "content-type" => value_of(field)
                .is_some_and(|value| value.split(',').all(|one| one.trim().starts_with(prefix))),
            Self::StartsWith { field, prefix } => {
                value_of(field).is_some_and(|value| value.starts_with(prefix))
            }
        }
    }

    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Equals { field, .. } | Self::StartsWith { field, .. } => field == name,
            Self::Length(_) => false,
        }
    }
}

/// As AWS's refusal writes it.
impl fmt::Display for FormCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals { field, value } => {
                write!(f, "[\"eq\", \"${}\", \"{}\"]", shown(field), shown(value))
            }
            Self::Length(range) => {
                write!(
                    f,
                    "[\"content-length-range\", {}, {}]",
                    range.min, range.max
                )
            }
            Self::StartsWith { field, prefix } => {
                write!(
                    f,
                    "[\"starts-with\", \"${}\", \"{}\"]",
                    shown(field),
                    shown(prefix)
                )
            }
        }
    }
}

impl<'de> Deserialize<'de> for PolicyElement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PolicyConditions;

        impl<'de> Visitor<'de> for PolicyConditions {
            type Value = PolicyElement;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a condition: {\"field\": \"value\"} or [\"operator\", …]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PolicyElement, A::Error> {
                let mut conditions = Vec::new();
                while let Some((field, value)) = map.next_entry::<String, String>()? {
                    conditions.push(FormCondition::equals(&field, value));
                }
                Ok(PolicyElement(conditions))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PolicyElement, A::Error> {
                let condition = read_list(&mut seq)?;
                match seq.next_element::<String>()? {
                    None => Ok(PolicyElement(vec![condition])),
                    Some(_) => Err(serde::de::Error::custom("a condition has three elements")),
                }
            }
        }

        deserializer.deserialize_any(PolicyConditions)
    }
}

/// `["eq", "$field", "value"]` and the like.
fn read_list<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<FormCondition, A::Error> {
    fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(seq: &mut A) -> Result<T, A::Error> {
        let missing = || serde::de::Error::custom("a condition has three elements");
        seq.next_element()?.ok_or_else(missing)
    }
    let bytes = |bytes: Bytes| match bytes {
        Bytes::Number(number) => Ok(number),
        Bytes::Text(text) => text
            .parse()
            .map_err(|_| serde::de::Error::custom("content-length-range has two numbers")),
    };
    let operator: String = next(seq)?;
    if operator == "content-length-range" {
        return Ok(FormCondition::Length(LengthRange {
            min: bytes(next(seq)?)?,
            max: bytes(next(seq)?)?,
        }));
    }
    let (field, value): (String, String) = (next(seq)?, next(seq)?);
    let Some(field) = field.strip_prefix('$') else {
        return Err(serde::de::Error::custom(
            "a field is named with a $ before it",
        ));
    };
    match operator.as_str() {
        "eq" => Ok(FormCondition::equals(field, value)),
        "starts-with" => Ok(FormCondition::StartsWith {
            field: field.to_ascii_lowercase(),
            prefix: value,
        }),
        _ => Err(serde::de::Error::custom(
            "the operators are eq, starts-with and content-length-range",
        )),
    }
}

fn invalid(why: &str) -> S3Error {
    S3Error::new(
        Code::InvalidPolicyDocument,
        format!(
            "The content of the form does not meet the conditions specified in the policy document: Invalid Policy: {why}."
        ),
    )
}

fn denied(why: &str) -> S3Error {
    S3Error::new(
        Code::AccessDenied,
        format!("Invalid according to Policy: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_768_480_245;

    fn policy(conditions: &str) -> Result<FormPolicy, Code> {
        parse(&format!(
            "{{\"expiration\": \"2026-01-15T13:30:45.000Z\", \"conditions\": [{conditions}]}}"
        ))
    }

    fn parse(json: &str) -> Result<FormPolicy, Code> {
        FormPolicy::parse(&BASE64_STANDARD.encode(json)).map_err(|error| error.code())
    }

    fn form(fields: &[(&str, &str)]) -> Form {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Form::new(fields.iter().map(owned).collect(), "f.txt", 0).unwrap()
    }

    fn check(conditions: &str, fields: &[(&str, &str)]) -> Result<LengthRange, String> {
        let policy = policy(&format!("{{\"bucket\": \"photos\"}}, {conditions}")).unwrap();
        let now = Timestamp::from_unix(NOW);
        let checked = policy.check(&form(fields), "photos", &["policy"], now);
        checked.map_err(|error| {
            assert_eq!(error.code(), Code::AccessDenied);
            error.message().to_owned()
        })
    }

    #[test]
    fn every_condition_must_be_met() {
        for (condition, good, bad) in [
            (
                r#"{"acl": "private"}"#,
                ("acl", "private"),
                ("acl", "public-read"),
            ),
            (
                r#"["eq", "$acl", "private"]"#,
                ("acl", "private"),
                ("acl", "Private"),
            ),
            (
                r#"["eq", "$Content-Type", "a/b"]"#,
                ("content-type", "a/b"),
                ("content-type", "a/b,c"),
            ),
            (
                r#"["starts-with", "$key", "u/"]"#,
                ("key", "u/x"),
                ("key", "v/u/"),
            ),
            (
                r#"["starts-with", "$key", "u/"]"#,
                ("key", "u/${filename}"),
                ("key", "u"),
            ),
            (
                r#"["eq", "$key", "u/f.txt"]"#,
                ("key", "u/${filename}"),
                ("key", "u/"),
            ),
            (
                r#"["starts-with", "$Content-Type", "image/"]"#,
                ("content-type", "image/a, image/b"),
                ("content-type", "image/a,text/html"),
            ),
        ] {
            assert_eq!(
                check(condition, &[good]),
                Ok(LengthRange::ANY),
                "{condition}"
            );
            let refused = check(condition, &[bad]).unwrap_err();
            assert!(
                refused.starts_with("Invalid according to Policy: Policy Condition failed: ["),
                "{refused}"
            );
            assert!(check(condition, &[]).is_err(), "{condition} on nothing");
        }
        assert!(check(r#"["starts-with", "$key", ""]"#, &[("key", "anything")]).is_ok());
        let both = r#"["starts-with", "$key", "u/"], {"key": "u/x"}"#;
        assert!(check(both, &[("key", "u/x")]).is_ok());
        assert!(check(both, &[("key", "u/y")]).is_err());
        let in_one = r#"{"key": "k", "acl": "private"}"#;
        assert!(check(in_one, &[("key", "k"), ("acl", "private")]).is_ok());
        assert!(check(in_one, &[("key", "k"), ("acl", "x")]).is_err());
        // The second of two equal names would be all that a map keeps.
        assert!(check(r#"{"key": "other", "key": "k"}"#, &[("key", "k")]).is_err());
    }

    #[test]
    fn every_field_needs_a_condition() {
        let key = r#"["starts-with", "$key", ""]"#;
        assert!(check(key, &[("key", "k"), ("policy", "p"), ("x-ignore-me", "i")]).is_ok());
        let extra = check(
            key,
            &[("key", "k"), ("acl", "private"), ("x-amz-meta-a", "b")],
        );
        assert_eq!(
            extra.unwrap_err(),
            "Invalid according to Policy: Extra input fields: acl, x-amz-meta-a"
        );
        assert_eq!(
            check("[\"content-length-range\", 0, 1]", &[("key", "k")]).unwrap_err(),
            "Invalid according to Policy: Extra input fields: key"
        );
        let unnamed = policy(key).unwrap();
        let now = Timestamp::from_unix(NOW);
        let refused = unnamed
            .check(&form(&[("key", "k")]), "photos", &[], now)
            .unwrap_err();
        assert!(refused.message().ends_with("Extra input fields: bucket"));
    }

    #[test]
    fn the_bucket_is_that_of_the_url() {
        let other = policy(r#"{"bucket": "photos"}, ["starts-with", "$key", ""]"#).unwrap();
        let now = Timestamp::from_unix(NOW);
        // Whatever a field of that name says.
        let form = form(&[("key", "k"), ("bucket", "photos")]);
        assert!(other.check(&form, "photos", &[], now).is_ok());
        assert!(other.check(&form, "inbox", &[], now).is_err());
    }

    #[test]
    fn a_policy_ends() {
        let policy = policy(r#"{"bucket": "b"}"#).unwrap();
        let at = |seconds| {
            let now = Timestamp::from_unix(NOW + seconds);
            policy
                .check(&form(&[]), "b", &[], now)
                .map_err(|error| error.message().to_owned())
        };
        assert!(at(3599).is_ok());
        assert_eq!(
            at(3600).unwrap_err(),
            "Invalid according to Policy: Policy expired."
        );
    }

    #[test]
    fn the_length_must_be_in_every_range() {
        let ranges =
            r#"{"key": "k"}, ["content-length-range", 2, 10], ["content-length-range", "0", "5"]"#;
        let range = check(ranges, &[("key", "k")]).unwrap();
        let code = |length| range.check(length).map_err(|error| error.code());
        assert_eq!(code(1), Err(Code::EntityTooSmall));
        assert_eq!(code(2), Ok(()));
        assert_eq!(code(5), Ok(()));
        assert_eq!(code(6), Err(Code::EntityTooLarge));
    }

    #[test]
    fn a_document_of_another_form_is_refused() {
        for conditions in [
            r#"{"acl": 1}"#,
            r#"{"acl": null}"#,
            r#"["eq", "acl", "x"]"#,
            r#"["eq", "$acl"]"#,
            r#"["eq", "$acl", "x", "y"]"#,
            r#"["EQ", "$acl", "x"]"#,
            r#"["in", "$acl", "x"]"#,
            r#"["content-length-range", -1, 2]"#,
            r#"["content-length-range", 1]"#,
            r#"["content-length-range", "1e3", 2]"#,
            "[]",
            r#""acl""#,
        ] {
            assert_eq!(
                policy(conditions).unwrap_err(),
                Code::InvalidPolicyDocument,
                "{conditions}"
            );
        }
        for json in [
            "",
            "{}",
            "[]",
            r#"{"expiration": "2026-01-15T13:30:45Z"}"#,
            r#"{"conditions": []}"#,
            r#"{"expiration": "tomorrow", "conditions": []}"#,
            r#"{"expiration": "2026-01-15T13:30:45Z", "expiration": "2036-01-15T13:30:45Z", "conditions": []}"#,
            r#"{"expiration": "2026-01-15T13:30:45Z", "conditions": [], "more": 1}"#,
            r#"{"expiration": "2026-01-15T13:30:45Z", "conditions": []} x"#,
        ] {
            assert_eq!(
                parse(json).unwrap_err(),
                Code::InvalidPolicyDocument,
                "{json}"
            );
        }
        assert!(FormPolicy::parse("!").is_err());
        assert!(FormPolicy::parse("e30=\n").is_err());
        let deep = "[".repeat(10_000);
        assert!(parse(&format!("{{\"conditions\": {deep}")).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn no_document_panics(bytes: Vec<u8>, conditions in "[\\[\\]{}\",:$a-c0-9]{0,40}") {
            let _ = FormPolicy::parse(&BASE64_STANDARD.encode(&bytes));
            let _ = policy(&conditions);
        }
    }
}
