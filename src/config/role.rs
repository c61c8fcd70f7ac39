//! The role that an issuer takes on, in its own name or with a web identity: what STS is asked for.

use std::path::PathBuf;
use std::time::Duration;

use super::document::{Found, Origin, printable};
use super::grammar;
use super::problem::Refusal;
use super::section::Section;
use crate::secret::Secret;

const SECOND: Duration = Duration::from_secs(1);
/// `AssumeRole` and `AssumeRoleWithWebIdentity`: 43 200 s (1312/48197).
const LONGEST: Duration = Duration::from_hours(12);
const DEFAULT: Duration = Duration::from_hours(2);
/// Lengths and numbers that STS takes (1312/48197).
const SESSION_NAME_BYTES: usize = 128;
const TAGS: usize = 50;
const TAG_KEY_CHARS: usize = 128;
const TAG_VALUE_CHARS: usize = 256;
const ARN_BYTES: usize = 512;
/// What stands for the tenant's name in `session_name`.
pub(crate) const TENANT: &str = "{tenant}";

/// What `AssumeRole` asks for.
#[derive(Clone, Debug)]
pub struct Role {
    /// `role_arn`
    pub arn: String,
    /// `session_name`, with `{tenant}` in it (default) or without.
    pub session_name: String,
    /// `external_id`
    pub external_id: Option<String>,
    /// `tags`: keys and values.
    pub tags: Vec<(String, String)>,
    /// `source_identity`
    pub(crate) source_identity: Option<String>,
    /// `duration` (2 h), 1 s to 12 h.
    pub duration: Duration,
}

/// What `AssumeRoleWithWebIdentity` asks for.
#[derive(Clone, Debug)]
pub struct WebIdentity {
    /// `provider_id`
    pub provider_id: String,
    /// `token_file`, read at each call.
    pub token_file: PathBuf,
    /// `role_arn`
    pub role_arn: String,
    /// `session_name`, as that of [`Role`].
    pub session_name: String,
    /// `duration` (2 h), 1 s to 12 h.
    pub duration: Duration,
}

/// Reads what `AssumeRole` asks for.
pub(super) fn role(section: &mut Section<'_>) -> Option<Role> {
    let arn = section.required("role_arn", "\"qcs::cam::uin/UIN:roleName/NAME\"", role_arn);
    let session_name = session_name(section);
    let external_id = section.parsed("external_id", |text| {
        grammar::limited(text, "an external id", 2..=SESSION_NAME_BYTES, "+=,.@:/_-")
    });
    let source_identity = section.parsed("source_identity", |text| {
        grammar::limited(text, "a source identity", 1..=SESSION_NAME_BYTES, "+=,.@_-")
    });
    let tags = tags(section);
    let duration = duration(section);
    Some(Role {
        arn: arn?.value,
        session_name,
        external_id: external_id.map(|found| found.value),
        tags,
        source_identity: source_identity.map(|found| found.value),
        duration,
    })
}

/// Reads what `AssumeRoleWithWebIdentity` asks for.
pub(super) fn web_identity(section: &mut Section<'_>) -> Option<WebIdentity> {
    let provider_id = or_of_tke(section, "provider_id", &["TKE_PROVIDER_ID"], |text| {
        grammar::limited(
            text,
            "a provider's name",
            1..=SESSION_NAME_BYTES,
            "+=,.@:/_-",
        )
    });
    let arn = or_of_tke(section, "role_arn", &["TKE_ROLE_ARN"], role_arn);
    let variables = ["TKE_WEB_IDENTITY_TOKEN_FILE", "TKE_IDENTITY_TOKEN_FILE"];
    let token_file = or_of_tke(section, "token_file", &variables, |text| {
        if text.is_empty() {
            return Err(Refusal::new("the path is empty", "give it a value"));
        }
        Ok(text.to_owned())
    });
    let session_name = session_name(section);
    let duration = duration(section);
    let token_file = token_file?;
    let document = section.document();
    let path = document.resolve(&token_file.value);
    if let Err(error) = (document.sources.file)(&path).map(Secret::new) {
        let message = format!(
            "`token_file`: cannot read {} now: {error}; there is no key until it can be read",
            path.display()
        );
        let fix = "mend the path (it is relative to this file's directory) or the file's rights";
        document.warning(&token_file.origin, Refusal::new(message, fix));
    }
    Some(WebIdentity {
        provider_id: provider_id?.value,
        token_file: path,
        role_arn: arn?.value,
        session_name,
        duration,
    })
}

/// The text of `key`, or of the first of `variables`, which TKE sets in its pods.
fn or_of_tke(
    section: &mut Section<'_>,
    key: &'static str,
    variables: &[&str],
    read: impl FnOnce(&str) -> Result<String, Refusal>,
) -> Option<Found<String>> {
    if section.place_of(key).is_some() {
        return section.parsed(key, read);
    }
    let document = section.document();
    for name in variables {
        let Some(text) = (document.sources.env)(name) else {
            continue;
        };
        let origin = Origin::Variable((*name).to_owned());
        let value = section.check(key, &origin, read(&text))?;
        return Some(Found { value, origin });
    }
    let example = format!("\"…\" (TKE says it in {})", variables.join(" or "));
    section.missing(key, &example);
    None
}

fn session_name(section: &mut Section<'_>) -> String {
    let found = section.parsed("session_name", |text| {
        let rest = text.replacen(TENANT, "", 1);
        let least = if rest.len() == text.len() { 2 } else { 0 };
        grammar::limited(
            &rest,
            "a session name",
            least..=SESSION_NAME_BYTES,
            "+=,.@_-",
        )?;
        Ok(text.to_owned())
    });
    found.map_or_else(|| TENANT.to_owned(), |found| found.value)
}

fn duration(section: &mut Section<'_>) -> Duration {
    section
        .duration("duration", DEFAULT, SECOND..=LONGEST)
        .value
}

fn tags(section: &mut Section<'_>) -> Vec<(String, String)> {
    let mut tags: Vec<(String, String)> = Vec::new();
    let place = section.place_of("tags");
    for mut tag in section.tables("tags") {
        let within = |most: usize, text: &str| {
            if text.chars().count() <= most && !text.chars().any(char::is_control) {
                return Ok(text.to_owned());
            }
            let message = format!("longer than {most} characters, or more than one line");
            Err(Refusal::new(message, "shorten it"))
        };
        let key = tag.required("key", "\"team\"", |text| within(TAG_KEY_CHARS, text));
        let value = tag.required("value", "\"storage\"", |text| within(TAG_VALUE_CHARS, text));
        tag.finish();
        if let (Some(key), Some(value)) = (key, value) {
            if tags.iter().any(|(known, _)| *known == key.value) {
                let message = format!("two tags have the key `{}`", printable(&key.value));
                section
                    .document()
                    .error(&key.origin, Refusal::new(message, "remove one"));
            }
            tags.push((key.value, value.value));
        }
    }
    if let Some(origin) = place.filter(|_| tags.len() > TAGS) {
        let refusal = Refusal::new("`tags`: STS takes 50 at most", "remove some");
        section.document().error(&origin, refusal);
    }
    tags
}

/// `qcs::cam::uin/100000000001:roleName/NAME`, or `…:role/ID`.
fn role_arn(text: &str) -> Result<String, Refusal> {
    let rest = text.strip_prefix("qcs::cam::uin/");
    let parts = rest.and_then(|rest| rest.split_once(':'));
    let valid = text.len() <= ARN_BYTES
        && parts.is_some_and(|(uin, role)| {
            let name = role
                .strip_prefix("roleName/")
                .or_else(|| role.strip_prefix("role/"));
            let is_name =
                |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            !uin.is_empty() && uin.bytes().all(|b| b.is_ascii_digit()) && name.is_some_and(is_name)
        });
    if valid {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is not the ARN of a role", printable(text));
    Err(Refusal::new(
        message,
        "write it as CAM's console shows it: qcs::cam::uin/UIN:roleName/NAME",
    ))
}
