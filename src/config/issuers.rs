//! `[issuers.*]`: who makes temporary keys, and with which key of its own.

use std::time::Duration;

use super::base_key::{BaseKey, GivenKey, base_key, given_key};
use super::document::{Found, printable};
use super::problem::{Refusal, nearest};
use super::role::{Role, WebIdentity, role, web_identity};
use super::section::Section;
use super::{CallRate, grammar, tenants};

const SECOND: Duration = Duration::from_secs(1);
/// GetFederationToken: 36 hours for a sub-account, 2 for a root account (1312/48195).
const FEDERATION_LONGEST: Duration = Duration::from_hours(36);
const FEDERATION_ROOT_LONGEST: Duration = Duration::from_hours(2);
const FEDERATION_DEFAULT: Duration = Duration::from_hours(2);
/// Calls in a second that STS takes of one account, and of web identities (1312/48195; the page of `AssumeRoleWithWebIdentity`).
const CALLS_A_SECOND: u32 = 600;
const WEB_CALLS_A_SECOND: u32 = 20;
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
            Some(Kind::WebIdentity) => web_identity(&mut self.section).map(IssuerKind::WebIdentity),
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
        let duration =
            self.section
                .duration("duration", FEDERATION_DEFAULT, SECOND..=FEDERATION_LONGEST);
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
        let role = role(&mut self.section);
        let base = self.base_key(true);
        Some(IssuerKind::AssumeRole {
            base: base?,
            role: role?,
        })
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
