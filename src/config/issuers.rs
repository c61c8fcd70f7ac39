//! `[issuers.*]`: who makes temporary keys, and with which key of its own.

use std::path::PathBuf;
use std::time::Duration;

use super::base_key::{BaseKey, GivenKey, base_key, given_key};
use super::document::{Found, Origin, printable};
use super::problem::{Refusal, nearest};
use super::section::Section;
use super::{CallRate, grammar, tenants};
use crate::secret::Secret;

const SECOND: Duration = Duration::from_secs(1);
/// GetFederationToken: 36 hours for a sub-account, 2 for a root account (1312/48195).
const FEDERATION_LONGEST: Duration = Duration::from_hours(36);
const FEDERATION_ROOT_LONGEST: Duration = Duration::from_hours(2);
/// `AssumeRole` and `AssumeRoleWithWebIdentity`: 43 200 s (1312/48197).
const ROLE_LONGEST: Duration = Duration::from_hours(12);
const ROLE_DEFAULT: Duration = Duration::from_hours(2);
/// Calls in a second that STS takes of one account, and of web identities (1312/48195; the page of `AssumeRoleWithWebIdentity`).
const CALLS_A_SECOND: u32 = 600;
const WEB_CALLS_A_SECOND: u32 = 20;
/// Lengths and numbers that STS takes (1312/48197).
const SESSION_NAME_BYTES: usize = 128;
const TAGS: usize = 50;
const TAG_KEY_CHARS: usize = 128;
const TAG_VALUE_CHARS: usize = 256;
const ARN_BYTES: usize = 512;
/// What stands for the tenant's name in `session_name`.
pub(crate) const TENANT: &str = "{tenant}";
const ALL_KEYS: [&str; 17] = [
    "base",
    "command",
    "cvm_role",
    "duration",
    "external_id",
    "metadata_endpoint",
    "profile",
    "profile_file",
    "provider_id",
    "role_arn",
    "secret_id",
    "secret_key",
    "session_name",
    "source_identity",
    "tags",
    "token",
    "token_file",
];

/// `[issuers.NAME]`: a CAM identity from which temporary keys come.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// NAME
    pub name: String,
    /// `kind` and what belongs to it.
    pub kind: IssuerKind,
    /// `calls_per_second`, `burst`
    pub rate: CallRate,
}

/// How an issuer makes keys.
#[derive(Clone, Debug)]
pub enum IssuerKind {
    /// `AssumeRole`
    AssumeRole {
        /// The key that signs the calls.
        base: BaseKey,
        /// What is asked for.
        role: Role,
    },
    /// `GetFederationToken`
    Federation {
        /// The key that signs the calls: a permanent one.
        base: BaseKey,
        /// `duration`
        duration: Duration,
    },
    /// The issuer's own key is used as it is.
    Static(GivenKey),
    /// `AssumeRoleWithWebIdentity`, which nobody signs and no policy narrows.
    WebIdentity(WebIdentity),
}

impl IssuerKind {
    /// For how long STS is asked for keys; `None` when it is not asked.
    pub fn duration(&self) -> Option<Duration> {
        match self {
            Self::AssumeRole { role, .. } => Some(role.duration),
            Self::Federation { duration, .. } => Some(*duration),
            Self::Static(_) => None,
            Self::WebIdentity(web) => Some(web.duration),
        }
    }
}

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
    pub source_identity: Option<String>,
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

/// The issuers that could be read.
pub(super) struct Issuers {
    pub(super) all: Vec<Issuer>,
    /// Every name in the file, those of issuers with faults included.
    pub(super) names: Vec<Found<String>>,
    /// Indices of those that another issuer has as its `base`.
    pub(super) bases: Vec<usize>,
    /// Indices of those whose keys no policy can narrow, though STS makes them.
    pub(super) unfenced: Vec<usize>,
}

impl Issuers {
    /// How the issuer at `index` of the names makes keys, if it could be read.
    pub(super) fn kind(&self, index: usize) -> Option<&IssuerKind> {
        let name = self.names.get(index)?;
        let found = self.all.iter().find(|issuer| issuer.name == name.value);
        found.map(|issuer| &issuer.kind)
    }
}

/// What of a kind is known before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AssumeRole,
    Federation,
    Static,
    WebIdentity,
}

impl Kind {
    const NAMES: [(&'static str, Self); 4] = [
        ("assume-role", Self::AssumeRole),
        ("federation", Self::Federation),
        ("static", Self::Static),
        ("web-identity", Self::WebIdentity),
    ];

    fn parse(text: &str) -> Result<Self, Refusal> {
        let names = || Self::NAMES.iter().map(|(name, _)| *name);
        if let Some((_, kind)) = Self::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*kind);
        }
        let fix = match nearest(text, names()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => {
                "write \"federation\", \"assume-role\", \"web-identity\" or \"static\"".to_owned()
            }
        };
        let message = format!("`{}` is not a kind of issuer", printable(text));
        Err(Refusal::new(message, fix))
    }
}

pub(super) fn issuers(root: &mut Section<'_>) -> Issuers {
    let sections = root.named_sections("issuers");
    tenants::refuse_shared_variables(&sections);
    let (names, sections): (Vec<_>, Vec<_>) = sections.into_iter().unzip();
    let mut issuers = Vec::with_capacity(names.len());
    let mut kinds = Vec::with_capacity(names.len());
    let mut bases = Vec::with_capacity(names.len());
    for (name, section) in names.iter().zip(sections) {
        section.check("issuers", &name.origin, grammar::name(&name.value));
        let mut reader = Reader {
            section,
            names: &names,
            base: None,
        };
        let (kind, issuer) = reader.issuer();
        let rate = reader.call_rate(kind);
        kinds.push(kind);
        bases.push(reader.base);
        reader.section.finish();
        issuers.extend(issuer.map(|kind| Issuer {
            name: name.value.clone(),
            kind,
            rate,
        }));
    }
    check_bases(root, &names, &kinds, &bases);
    let is_web = |index: &usize| kinds.get(*index) == Some(&Some(Kind::WebIdentity));
    Issuers {
        all: issuers,
        bases: bases.into_iter().flatten().map(|base| base.value).collect(),
        unfenced: (0..names.len()).filter(is_web).collect(),
        names,
    }
}

/// A base makes keys that may call `AssumeRole`, and no chain comes back to where it began.
fn check_bases(
    root: &Section<'_>,
    names: &[Found<String>],
    kinds: &[Option<Kind>],
    bases: &[Option<Found<usize>>],
) {
    for (index, base) in bases.iter().enumerate() {
        let Some(Found { value, origin }) = base else {
            continue;
        };
        let name = names.get(*value).map_or("", |name| name.value.as_str());
        if let Some(Some(kind @ (Kind::Federation | Kind::Static))) = kinds.get(*value) {
            let message = format!(
                "`base`: the issuer `{}` makes no key that may assume a role",
                printable(name)
            );
            let fix = match kind {
                Kind::Static => "write its secret_id and secret_key here",
                _ => "name one of kind \"assume-role\" or \"web-identity\"",
            };
            root.document().error(origin, Refusal::new(message, fix));
        }
        let mut at = *value;
        for _ in 0..bases.len() {
            if at == index {
                let message = "`base`: the issuers are each other's base";
                let fix = "let one of them have a key of its own";
                root.document().error(origin, Refusal::new(message, fix));
                break;
            }
            match bases.get(at) {
                Some(Some(next)) => at = next.value,
                _ => break,
            }
        }
    }
}

/// One issuer's section.
struct Reader<'a, 'n> {
    section: Section<'a>,
    names: &'n [Found<String>],
    base: Option<Found<usize>>,
}

impl Reader<'_, '_> {
    fn issuer(&mut self) -> (Option<Kind>, Option<IssuerKind>) {
        let kind = self
            .section
            .required("kind", "\"federation\"", Kind::parse)
            .map(|found| found.value);
        let read = match kind {
            Some(Kind::AssumeRole) => self.assume_role(),
            Some(Kind::Federation) => self.federation(),
            Some(Kind::Static) => given_key(&mut self.section, true).map(IssuerKind::Static),
            Some(Kind::WebIdentity) => self.web_identity(),
            None => {
                for key in ALL_KEYS {
                    self.section.place_of(key); // it may have the keys of any kind
                }
                None
            }
        };
        (kind, read)
    }

    /// `calls_per_second` and `burst` of an issuer that calls STS; one of unknown kind may have them.
    fn call_rate(&mut self, kind: Option<Kind>) -> CallRate {
        let (default, most) = match kind {
            Some(Kind::WebIdentity) => ((15, 15), WEB_CALLS_A_SECOND),
            _ => ((100, 200), CALLS_A_SECOND),
        };
        let mut read = |key, default: u32| {
            let number = self.section.size(key, default.into(), 1..=most.into());
            u32::try_from(number).unwrap_or(default)
        };
        let (per_second, burst) = default;
        if kind == Some(Kind::Static) {
            return CallRate { per_second, burst };
        }
        CallRate {
            per_second: read("calls_per_second", per_second),
            burst: read("burst", burst),
        }
    }

    fn federation(&mut self) -> Option<IssuerKind> {
        let duration = self
            .section
            .duration("duration", ROLE_DEFAULT, SECOND..=FEDERATION_LONGEST);
        if duration.value > FEDERATION_ROOT_LONGEST {
            let message = "`duration`: STS refuses more than 2h to the key of a root account";
            let fix = "use a sub-account's key, or at most 2h";
            self.section
                .document()
                .warning(&duration.origin, Refusal::new(message, fix));
        }
        let base = self.base_key(false);
        let duration = duration.value;
        base.map(|base| IssuerKind::Federation { base, duration })
    }

    fn assume_role(&mut self) -> Option<IssuerKind> {
        let arn =
            self.section
                .required("role_arn", "\"qcs::cam::uin/UIN:roleName/NAME\"", role_arn);
        let session_name = self.session_name();
        let external_id = self.section.parsed("external_id", |text| {
            grammar::limited(text, "an external id", 2..=SESSION_NAME_BYTES, "+=,.@:/_-")
        });
        let source_identity = self.section.parsed("source_identity", |text| {
            grammar::limited(text, "a source identity", 1..=SESSION_NAME_BYTES, "+=,.@_-")
        });
        let tags = self.tags();
        let duration = self.role_duration();
        let base = self.base_key(true);
        let role = Role {
            arn: arn?.value,
            session_name,
            external_id: external_id.map(|found| found.value),
            tags,
            source_identity: source_identity.map(|found| found.value),
            duration,
        };
        base.map(|base| IssuerKind::AssumeRole { base, role })
    }

    fn web_identity(&mut self) -> Option<IssuerKind> {
        let provider_id = self.or_of_tke("provider_id", &["TKE_PROVIDER_ID"], |text| {
            grammar::limited(
                text,
                "a provider's name",
                1..=SESSION_NAME_BYTES,
                "+=,.@:/_-",
            )
        });
        let arn = self.or_of_tke("role_arn", &["TKE_ROLE_ARN"], role_arn);
        let variables = ["TKE_WEB_IDENTITY_TOKEN_FILE", "TKE_IDENTITY_TOKEN_FILE"];
        let token_file = self.or_of_tke("token_file", &variables, |text| {
            if text.is_empty() {
                return Err(Refusal::new("the path is empty", "give it a value"));
            }
            Ok(text.to_owned())
        });
        let session_name = self.session_name();
        let duration = self.role_duration();
        let token_file = token_file?;
        let document = self.section.document();
        let path = document.resolve(&token_file.value);
        if let Err(error) = (document.sources.file)(&path).map(Secret::new) {
            let message = format!(
                "`token_file`: cannot read {} now: {error}; there is no key until it can be read",
                path.display()
            );
            let fix =
                "mend the path (it is relative to this file's directory) or the file's rights";
            document.warning(&token_file.origin, Refusal::new(message, fix));
        }
        Some(IssuerKind::WebIdentity(WebIdentity {
            provider_id: provider_id?.value,
            token_file: path,
            role_arn: arn?.value,
            session_name,
            duration,
        }))
    }

    /// The text of `key`, or of the first of `variables`, which TKE sets in its pods.
    fn or_of_tke(
        &mut self,
        key: &'static str,
        variables: &[&str],
        grammar: impl FnOnce(&str) -> Result<String, Refusal>,
    ) -> Option<Found<String>> {
        if self.section.place_of(key).is_some() {
            return self.section.parsed(key, grammar);
        }
        let document = self.section.document();
        for name in variables {
            let Some(text) = (document.sources.env)(name) else {
                continue;
            };
            let origin = Origin::Variable((*name).to_owned());
            let value = self.section.check(key, &origin, grammar(&text))?;
            return Some(Found { value, origin });
        }
        let example = format!("\"…\" (TKE says it in {})", variables.join(" or "));
        self.section.missing(key, &example);
        None
    }

    fn session_name(&mut self) -> String {
        let found = self.section.parsed("session_name", |text| {
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

    fn role_duration(&mut self) -> Duration {
        self.section
            .duration("duration", ROLE_DEFAULT, SECOND..=ROLE_LONGEST)
            .value
    }

    fn tags(&mut self) -> Vec<(String, String)> {
        let mut tags: Vec<(String, String)> = Vec::new();
        let place = self.section.place_of("tags");
        for mut tag in self.section.tables("tags") {
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
                    self.section
                        .document()
                        .error(&key.origin, Refusal::new(message, "remove one"));
                }
                tags.push((key.value, value.value));
            }
        }
        if let Some(origin) = place.filter(|_| tags.len() > TAGS) {
            let refusal = Refusal::new("`tags`: STS takes 50 at most", "remove some");
            self.section.document().error(&origin, refusal);
        }
        tags
    }

    /// The issuer's own key. `temporary`: it may be one.
    fn base_key(&mut self, temporary: bool) -> Option<BaseKey> {
        let Found { value, origin } = base_key(&mut self.section, self.names, temporary)?;
        if let BaseKey::Issuer(value) = value {
            self.base = Some(Found { value, origin });
        }
        Some(value)
    }
}

/// The index of the issuer `text` among `names`.
pub(super) fn named(text: &str, names: &[Found<String>]) -> Result<usize, Refusal> {
    let found = names.iter().position(|name| name.value == text);
    found.ok_or_else(|| {
        let fix = match nearest(text, names.iter().map(|name| name.value.as_str())) {
            Some(meant) => format!("did you mean \"{}\"?", printable(meant)),
            None => format!("add [issuers.{}]", printable(text)),
        };
        Refusal::new(format!("there is no issuer `{}`", printable(text)), fix)
    })
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
