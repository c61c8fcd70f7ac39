//! The key that an issuer signs its calls with, and where it comes from.

use std::path::PathBuf;

use super::document::{Found, Origin};
use super::endpoint::{self, Placeholders};
use super::issuers::named;
use super::problem::Refusal;
use super::section::Section;
use super::{EndpointTemplate, Profile, grammar};
use crate::secret::Secret;

/// Length of a role's name that STS takes (1312/48197).
const ROLE_NAME_BYTES: usize = 128;
/// Keys that say where the issuer's own key comes from.
const BASE_KEYS: [&str; 5] = ["secret_key", "profile", "cvm_role", "command", "base"];

/// Where the key comes from that an issuer signs its calls with.
#[derive(Clone, Debug)]
pub enum BaseKey {
    /// `command`: a program that prints a key.
    Command(KeyCommand),
    /// `cvm_role`: the role of the machine, from its metadata service.
    CvmRole {
        /// `cvm_role`
        name: String,
        /// `metadata_endpoint`, plain HTTP.
        endpoint: EndpointTemplate,
    },
    /// `secret_id`, `secret_key` and `token`.
    Given(GivenKey),
    /// `base`: index into [`super::Config::issuers`] of the issuer that makes it.
    Issuer(usize),
    /// `profile` of a profile file.
    Profile {
        /// `profile`
        name: String,
        /// The file that has it.
        file: PathBuf,
    },
}

/// A program that prints a key.
#[derive(Clone, Debug)]
pub struct KeyCommand {
    /// `command`: the program and its arguments.
    pub words: Vec<String>,
    /// The variables of cosgate's environment that it gets: the listed names and `command_env`.
    pub env: Vec<String>,
}

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

/// `secret_id`, `secret_key` and `token`.
#[derive(Clone, Debug)]
pub struct GivenKey {
    /// `secret_id`
    pub secret_id: GivenSecret,
    /// `secret_key`
    pub secret_key: GivenSecret,
    /// `token`; the key is a temporary one.
    pub token: Option<GivenSecret>,
}

/// A secret as it was when the configuration was read, and where it may change.
#[derive(Clone, Debug)]
pub struct GivenSecret {
    /// The secret.
    pub value: Secret,
    /// The file that it came from (`file:PATH`).
    pub file: Option<PathBuf>,
}

impl GivenSecret {
    /// The secret that a file or variable holds: its text without the white space around it, which editors,
    /// `echo` and mounted secrets add. The error quotes nothing.
    pub(crate) fn parse(text: &str) -> Result<Secret, String> {
        grammar::secret(text.trim()).map_err(|refusal| refusal.message)
    }
}

/// The issuer's own key, and where it is written; `issuers` are the names that `base` may have.
/// `temporary`: it may be one.
pub(super) fn base_key(
    section: &mut Section<'_>,
    issuers: &[Found<String>],
    temporary: bool,
) -> Option<Found<BaseKey>> {
    if !temporary {
        refuse_temporary_keys(section);
    }
    let mut written = Vec::new();
    for key in BASE_KEYS {
        let origin = section.place_of(key);
        written.extend(origin.map(|origin| (key, origin)));
    }
    if let [(first, _), (second, origin), ..] = written.as_slice() {
        let message = format!("the issuer has two keys of its own: `{first}` and `{second}`");
        section
            .document()
            .error(origin, Refusal::new(message, "remove one of the two"));
    }
    let first = written.into_iter().next();
    let (key, origin) = first.unwrap_or_else(|| ("secret_key", section.origin()));
    let value = match key {
        "profile" => profile(section, temporary),
        "cvm_role" => cvm_role(section),
        "command" => command(section),
        "base" => {
            let base = section.parsed("base", |text| named(text, issuers));
            base.map(|base| BaseKey::Issuer(base.value))
        }
        _ => given_key(section, temporary).map(BaseKey::Given),
    };
    value.map(|value| Found { value, origin })
}

fn refuse_temporary_keys(section: &mut Section<'_>) {
    for (key, what) in [
        ("token", "makes the issuer's key a temporary one"),
        ("cvm_role", "gives a temporary key"),
        ("base", "gives a temporary key"),
    ] {
        if let Some(origin) = section.place_of(key) {
            refuse_temporary(section, &origin, &format!("`{key}` {what}"));
        }
    }
}

fn refuse_temporary(section: &Section<'_>, origin: &Origin, what: &str) {
    let message =
        format!("{what}, and STS takes only permanent ones for GetFederationToken (1312/48195)");
    let fix = "write kind = \"assume-role\" and a role_arn, or give a permanent key";
    section.document().error(origin, Refusal::new(message, fix));
}

/// `secret_id`, `secret_key` and, where it may be a `temporary` key, `token`.
pub(super) fn given_key(section: &mut Section<'_>, temporary: bool) -> Option<GivenKey> {
    let secret_id = given_secret(section, "secret_id", true);
    let secret_key = given_secret(section, "secret_key", true);
    let token = temporary
        .then(|| given_secret(section, "token", false))
        .flatten();
    Some(GivenKey {
        secret_id: secret_id?,
        secret_key: secret_key?,
        token,
    })
}

fn given_secret(
    section: &mut Section<'_>,
    key: &'static str,
    required: bool,
) -> Option<GivenSecret> {
    if section.place_of(key).is_none() {
        if required {
            section.missing(key, "\"env:NAME\"");
        }
        return None;
    }
    let (found, file) = section.secret_and_file(key)?;
    Some(GivenSecret {
        value: found.value,
        file,
    })
}

fn profile(section: &mut Section<'_>, temporary: bool) -> Option<BaseKey> {
    let name = section.parsed("profile", grammar::name)?;
    let document = section.document();
    let env = document.sources.env;
    let files = if let Some(file) = section.text("profile_file") {
        vec![document.resolve(&file.value)]
    } else if let Some(file) = env("TENCENTCLOUD_CREDENTIALS_FILE") {
        vec![PathBuf::from(file)]
    } else {
        let of_user = env("HOME").map(|home| PathBuf::from(home).join(".tencentcloud"));
        let everybody_s = Some(PathBuf::from("/etc/tencentcloud"));
        let folders = [of_user, everybody_s].into_iter().flatten();
        folders.map(|folder| folder.join("credentials")).collect()
    };
    let mut reasons = Vec::new();
    for file in files {
        let text = (document.sources.file)(&file).map(Secret::new);
        let profile = text
            .map_err(|error| error.to_string())
            .and_then(|text| Profile::parse(text.expose(), &name.value));
        match profile {
            Ok(profile) => {
                if profile.token.is_some() && !temporary {
                    let what = "the profile's token makes its key a temporary one";
                    refuse_temporary(section, &name.origin, what);
                }
                let name = name.value;
                return Some(BaseKey::Profile { name, file });
            }
            Err(reason) => reasons.push(format!("{}: {reason}", file.display())),
        }
    }
    let message = format!("`profile`: {}", reasons.join("; "));
    let fix = "mend the file, or name another with profile_file = \"PATH\"";
    document.error(&name.origin, Refusal::new(message, fix));
    None
}

fn cvm_role(section: &mut Section<'_>) -> Option<BaseKey> {
    let name = section.parsed("cvm_role", |text| {
        grammar::limited(text, "a role's name", 1..=ROLE_NAME_BYTES, "+=,.@_-")
    });
    let endpoint = section.parsed("metadata_endpoint", |text| {
        let endpoint = endpoint::endpoint(text, Placeholders::None)?;
        if endpoint.tls {
            let message = "the metadata service speaks plain HTTP";
            return Err(Refusal::new(message, "write http://"));
        }
        Ok(endpoint)
    });
    let endpoint = endpoint.map_or_else(
        || EndpointTemplate {
            tls: false,
            authority: "metadata.tencentyun.com".to_owned(),
            path: String::new(),
        },
        |found| found.value,
    );
    let name = name?.value;
    Some(BaseKey::CvmRole { name, endpoint })
}

fn command(section: &mut Section<'_>) -> Option<BaseKey> {
    let origin = section.place_of("command")?;
    let words: Vec<_> = section.texts("command");
    let words: Vec<_> = words.iter().map(|word| word.value.to_owned()).collect();
    if !words
        .first()
        .is_some_and(|program| program.starts_with('/'))
    {
        let message = "`command`: the program is not given by its whole path";
        let fix = "write command = [\"/usr/local/bin/PROGRAM\", \"ARGUMENT\"]; no shell runs it";
        section
            .document()
            .error(&origin, Refusal::new(message, fix));
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
fn variable(text: &str) -> Result<String, Refusal> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || text.starts_with(|c: char| c.is_ascii_digit())
        || !text.chars().all(is_name)
    {
        let message = "this is not the name of an environment variable";
        return Err(Refusal::new(
            message,
            "write a name such as \"HTTPS_PROXY\"",
        ));
    }
    Ok(text.to_owned())
}
