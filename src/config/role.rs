//! The role that an issuer takes on, in its own name or with a web identity: what is requested of STS.

use super::file::{Located, Origin};
use super::grammar;
use super::model::{Role, WebIdentity};
use super::problem::{Mistake, printable};
use super::section::Section;
use crate::secret::Secret;

/// Lengths and numbers that STS takes (1312/48197).
const SESSION_NAME_BYTES: usize = 128;
const TAGS: usize = 50;
const TAG_KEY_CHARS: usize = 128;
const TAG_VALUE_CHARS: usize = 256;
const ARN_BYTES: usize = 512;
/// What stands for the tenant's name in `session_name`.
pub(crate) const TENANT: &str = "{tenant}";

/// Reads what `AssumeRole` requests.
pub(super) fn role(section: &Section<'_>) -> Option<Role> {
    let arn = section.required("role_arn", role_arn);
    let session_name = session_name(section);
    let external_id = section.parsed("external_id", |text| {
        grammar::limited(text, "an external id", 2..=SESSION_NAME_BYTES, "+=,.@:/_-")
    });
    let source_identity = section.parsed("source_identity", |text| {
        grammar::limited(text, "a source identity", 1..=SESSION_NAME_BYTES, "+=,.@_-")
    });
    let tags = tags(section);
    let duration = section.duration("duration").value;
    Some(Role {
        arn: arn?.value,
        session_name,
        external_id: external_id.map(|found| found.value),
        tags,
        source_identity: source_identity.map(|found| found.value),
        duration,
    })
}

/// Reads what `AssumeRoleWithWebIdentity` requests.
pub(super) fn web_identity(section: &Section<'_>) -> Option<WebIdentity> {
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
            return Err(Mistake::new("the path is empty", "give it a value"));
        }
        Ok(text.to_owned())
    });
    let session_name = session_name(section);
    let duration = section.duration("duration").value;
    let token_file = token_file?;
    let path = section.resolve(&token_file.value);
    if let Err(mistake) = section.file().read(&path).map(Secret::new) {
        let message = format!(
            "`token_file`: {}; cosgate gets no key until it can read it",
            mistake.message
        );
        section.warning(&token_file.origin, message, mistake.fix);
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
    section: &Section<'_>,
    key: &'static str,
    variables: &[&str],
    read: impl FnOnce(&str) -> Result<String, Mistake>,
) -> Option<Located<String>> {
    if section.position_of(key).is_some() {
        return section.parsed(key, read);
    }
    for name in variables {
        let Some(text) = (section.file().sources.env)(name) else {
            continue;
        };
        let origin = Origin::Variable((*name).to_owned());
        let value = section.check(key, &origin, read(&text))?;
        return Some(Located { value, origin });
    }
    section.missing(key);
    None
}

fn session_name(section: &Section<'_>) -> String {
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
    found.map_or_else(String::new, |found| found.value)
}

fn tags(section: &Section<'_>) -> Vec<(String, String)> {
    let mut tags: Vec<(String, String)> = Vec::new();
    let origin = section.position_of("tags");
    for tag in section.tables("tags") {
        let within = |max: usize, text: &str| {
            if text.chars().count() <= max && !text.chars().any(char::is_control) {
                return Ok(text.to_owned());
            }
            let message = format!("longer than {max} characters, or more than one line");
            Err(Mistake::new(message, "shorten it"))
        };
        let key = tag.required("key", |text| within(TAG_KEY_CHARS, text));
        let value = tag.required("value", |text| within(TAG_VALUE_CHARS, text));
        tag.finish();
        if let (Some(key), Some(value)) = (key, value) {
            if tags.iter().any(|(known, _)| *known == key.value) {
                let message = format!("two tags have the key `{}`", printable(&key.value));
                section.error(&key.origin, message, "remove one");
            }
            tags.push((key.value, value.value));
        }
    }
    if let Some(origin) = origin.filter(|_| tags.len() > TAGS) {
        section.error(&origin, "`tags`: STS takes at most 50 tags", "remove some");
    }
    tags
}

/// `qcs::cam::uin/100000000001:roleName/NAME`, or `…:role/ID`.
fn role_arn(text: &str) -> Result<String, Mistake> {
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
    Err(Mistake::new(
        message,
        "write it as CAM's console shows it: qcs::cam::uin/UIN:roleName/NAME",
    ))
}
