//! The key that an issuer signs its calls with, and where it comes from.

use std::path::PathBuf;

use super::endpoint::{self, Placeholders};
use super::file::Located;
use super::given_secret::GivenSecret;
use super::grammar;
use super::model::{BaseKey, GivenKey, KeyCommand};
use super::names::index_of;
use super::problem::Mistake;
use super::profile::Profile;
use super::section::Section;
use crate::secret::Secret;

/// Length of a role's name that STS takes (1312/48197).
const ROLE_NAME_BYTES: usize = 128;
/// Keys that say where the issuer's own key comes from, those that give a temporary one last.
const BASE_KEYS: [&str; 5] = ["secret_key", "profile", "command", "cvm_role", "base"];
/// The first of these, where the key must be a permanent one.
const PERMANENT: usize = 3;

/// What a program gets of cosgate's environment, which holds secrets: where it finds programs, files and
/// certificates, and for whom and in which language it runs.
const COMMAND_ENV: [&str; 10] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
];

/// The issuer's own key, and where it is written; `issuers` are the names that `base` may have.
/// `can_be_temporary`: STS takes a temporary key for this kind.
pub(super) fn base_key(
    section: &mut Section<'_>,
    issuers: &[Located<String>],
    can_be_temporary: bool,
) -> Option<Located<BaseKey>> {
    let was_refused = !can_be_temporary && refuse_temporary_keys(section);
    let section = &*section;
    warn_of_idle_keys(section);
    let mut written = Vec::new();
    let usable = if can_be_temporary {
        BASE_KEYS.len()
    } else {
        PERMANENT
    };
    for key in BASE_KEYS.into_iter().take(usable) {
        let origin = section.position_of(key);
        written.extend(origin.map(|origin| (key, origin)));
    }
    if let [(first, _), (second, origin), ..] = written.as_slice() {
        let message = format!("`{first}` and `{second}`: an issuer has one key of its own");
        section.error(origin, message, "remove one of the two");
    }
    if written.is_empty() && was_refused {
        return None; // one mistake is enough
    }
    let first = written.into_iter().next();
    let (key, origin) = first.unwrap_or_else(|| ("secret_key", section.origin()));
    if key != "secret_key" {
        for idle in ["secret_id", "token"] {
            if let Some(origin) = section.position_of(idle).filter(|_| section.knows(idle)) {
                let message = format!("`{idle}` has no effect beside `{key}`");
                section.warning(&origin, message, "remove one of the two");
            }
        }
    }
    let value = match key {
        "profile" => profile(section, can_be_temporary),
        "cvm_role" => cvm_role(section),
        "command" => command(section),
        "base" => {
            let base = section.parsed("base", |text| index_of(text, issuers, "issuer", "issuers"));
            base.map(|base| BaseKey::Issuer(base.value))
        }
        _ => given_key(section).map(BaseKey::Given),
    };
    value.map(|value| Located { value, origin })
}

/// Whether there was one.
fn refuse_temporary_keys(section: &mut Section<'_>) -> bool {
    let mut was_refused = false;
    for (key, what) in [
        ("token", "makes the issuer's key a temporary one"),
        ("cvm_role", "gives a temporary key"),
        ("base", "gives a temporary key"),
    ] {
        was_refused |= section.refuse(key, temporary(&format!("`{key}` {what}")));
    }
    was_refused
}

/// Keys that belong to another key, which is not there.
fn warn_of_idle_keys(section: &Section<'_>) {
    for (key, other) in [
        ("profile_file", "profile"),
        ("command_env", "command"),
        ("metadata_endpoint", "cvm_role"),
    ] {
        if section.position_of(other).is_none()
            && let Some(origin) = section.position_of(key).filter(|_| section.knows(key))
        {
            let message = format!("`{key}` has no effect without `{other}`");
            section.warning(&origin, message, format!("add {other}, or remove {key}"));
        }
    }
}

fn temporary(what: &str) -> Mistake {
    let message =
        format!("{what}, and STS takes only permanent ones for GetFederationToken (1312/48195)");
    let fix = "write kind = \"assume-role\" and a role_arn, or give a permanent key";
    Mistake::new(message, fix)
}

/// `secret_id`, `secret_key` and, where the kind has it, `token`.
pub(super) fn given_key(section: &Section<'_>) -> Option<GivenKey> {
    let secret_id = given_secret(section, "secret_id", true);
    let secret_key = given_secret(section, "secret_key", true);
    if let (Some(id), Some(_)) = (&secret_id, &secret_key) {
        warn_of_foreign_key(section, id.value.expose());
    }
    let token = section
        .knows("token")
        .then(|| given_secret(section, "token", false));
    Some(GivenKey {
        secret_id: secret_id?,
        secret_key: secret_key?,
        token: token.flatten(),
    })
}

/// AWS's key ids are 20 capitals and digits that begin so; Tencent's begin with `AKID`.
fn warn_of_foreign_key(section: &Section<'_>, id: &str) {
    let is_of_aws = ["AKIA", "ASIA"].iter().any(|start| id.starts_with(start))
        && id.len() == 20
        && id
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if is_of_aws && let Some(origin) = section.position_of("secret_id") {
        let message = "`secret_id` looks like the access key ID of an AWS account";
        let fix = "give the SecretId of a Tencent Cloud account, which begins with AKID";
        section.warning(&origin, message, fix);
    }
}

fn given_secret(section: &Section<'_>, key: &'static str, required: bool) -> Option<GivenSecret> {
    if section.position_of(key).is_none() {
        if required {
            section.missing(key);
        }
        return None;
    }
    section.secret(key).map(|found| found.value)
}

fn profile(section: &Section<'_>, can_be_temporary: bool) -> Option<BaseKey> {
    let name = section.parsed("profile", grammar::name)?;
    let file = section.file();
    let env = file.sources.env;
    let files = if let Some(path) = section.text("profile_file") {
        vec![section.resolve(&path.value)]
    } else if let Some(path) = env("TENCENTCLOUD_CREDENTIALS_FILE") {
        vec![PathBuf::from(path)]
    } else {
        let of_user = env("HOME").map(|home| PathBuf::from(home).join(".tencentcloud"));
        let everybody_s = Some(PathBuf::from("/etc/tencentcloud"));
        let folders = [of_user, everybody_s].into_iter().flatten();
        folders.map(|folder| folder.join("credentials")).collect()
    };
    let mut reasons = Vec::new();
    for path in files {
        let text = (file.sources.file)(&path).map(Secret::new);
        let profile = text
            .map_err(|error| error.to_string())
            .and_then(|text| Profile::parse(text.expose(), &name.value));
        match profile {
            Ok(profile) => {
                if profile.token.is_some() && !can_be_temporary {
                    let what = "the profile's token makes its key a temporary one";
                    file.error(&name.origin, temporary(what));
                }
                let name = name.value;
                return Some(BaseKey::Profile { name, file: path });
            }
            Err(reason) => reasons.push(format!("{}: {reason}", path.display())),
        }
    }
    let message = format!("`profile`: {}", reasons.join("; "));
    let fix = "correct the file, or name another with profile_file = \"PATH\"";
    file.error(&name.origin, Mistake::new(message, fix));
    None
}

fn cvm_role(section: &Section<'_>) -> Option<BaseKey> {
    let name = section.parsed("cvm_role", |text| {
        grammar::limited(text, "a role's name", 1..=ROLE_NAME_BYTES, "+=,.@_-")
    });
    let endpoint = section.parsed("metadata_endpoint", |text| {
        let endpoint = endpoint::endpoint(text, Placeholders::None)?;
        if endpoint.tls {
            let message = "the metadata service speaks plain HTTP";
            return Err(Mistake::new(message, "write http://"));
        }
        Ok(endpoint)
    });
    let name = name?.value;
    let endpoint = endpoint?.value;
    Some(BaseKey::CvmRole { name, endpoint })
}

fn command(section: &Section<'_>) -> Option<BaseKey> {
    let origin = section.position_of("command")?;
    let words: Vec<_> = section.texts("command");
    let words: Vec<_> = words.iter().map(|word| word.value.to_owned()).collect();
    if !words
        .first()
        .is_some_and(|program| program.starts_with('/'))
    {
        let message = "`command` does not begin with the absolute path of a program";
        let fix = "write command = [\"/usr/local/bin/PROGRAM\", \"ARGUMENT\"]. No shell reads them";
        section.error(&origin, message, fix);
        return None;
    }
    let mut env: Vec<_> = COMMAND_ENV.map(str::to_owned).into();
    for name in section.texts("command_env") {
        let named = section.check("command_env", &name.origin, variable(name.value));
        env.extend(named);
    }
    Some(BaseKey::Command(KeyCommand { words, env }))
}

/// The name of a variable of the environment (POSIX, 8.1), in any case.
fn variable(text: &str) -> Result<String, Mistake> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || text.starts_with(|c: char| c.is_ascii_digit())
        || !text.chars().all(is_name)
    {
        let message = "this is not the name of an environment variable";
        return Err(Mistake::new(
            message,
            "write a name such as \"HTTPS_PROXY\"",
        ));
    }
    Ok(text.to_owned())
}
