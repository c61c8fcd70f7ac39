//! `[issuers.*]`: the CAM identities that temporary keys come from, each with its own key.

use std::time::Duration;

use super::base_key::{base_key, given_key};
use super::file::Located;
use super::keys::{ASSUME_ROLE, FEDERATION, STATIC, WEB_IDENTITY};
use super::model::{BaseKey, CallRate, Issuer, IssuerKind};
use super::names::{UNKNOWN, index_of};
use super::problem::printable;
use super::role::{role, web_identity};
use super::section::Section;

/// What STS gives a root account's key with GetFederationToken (1312/48195).
const FEDERATION_ROOT_LONGEST: Duration = Duration::from_hours(2);

/// The issuers that could be read.
pub(super) struct Issuers {
    pub(super) all: Vec<Issuer>,
    /// Every name in the file, those of issuers with faults included.
    pub(super) names: Vec<Located<String>>,
    /// Indices of those that another issuer has as its `base`.
    pub(super) bases: Vec<usize>,
    /// Indices of those whose keys no policy can narrow, though STS makes them.
    unfenced: Vec<usize>,
}

impl Issuers {
    /// How the issuer at `index` of the names makes keys, if it could be read.
    pub(super) fn kind(&self, index: usize) -> Option<&IssuerKind> {
        let name = self.names.get(index)?;
        let found = self.all.iter().find(|issuer| issuer.name == name.value);
        found.map(|issuer| &issuer.kind)
    }

    /// The index of the issuer that a tenant or template names.
    pub(super) fn of(&self, section: &Section<'_>) -> usize {
        let issuer = section.required("issuer", |text| {
            index_of(text, &self.names, "issuer", "issuers")
        });
        if let Some(found) = &issuer
            && self.unfenced.contains(&found.value)
        {
            let message = "`issuer`: STS takes no policy for AssumeRoleWithWebIdentity. The keys can do all that the role may; only cosgate's own check protects other tenants";
            let fix = "make this issuer the `base` of an issuer of kind \"assume-role\", and name that one";
            section.warning(&found.origin, message, fix);
        }
        issuer.map_or(UNKNOWN, |found| found.value)
    }
}

/// The kind of an issuer, as it is known before the rest is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KindName {
    AssumeRole,
    Federation,
    Static,
    WebIdentity,
}

impl KindName {
    fn parse(text: &str) -> Option<Self> {
        match text {
            ASSUME_ROLE => Some(Self::AssumeRole),
            FEDERATION => Some(Self::Federation),
            STATIC => Some(Self::Static),
            WEB_IDENTITY => Some(Self::WebIdentity),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::AssumeRole => ASSUME_ROLE,
            Self::Federation => FEDERATION,
            Self::Static => STATIC,
            Self::WebIdentity => WEB_IDENTITY,
        }
    }
}

pub(super) fn issuers(root: &Section<'_>) -> Issuers {
    let (names, sections): (Vec<_>, Vec<_>) = root.named_sections("issuers").into_iter().unzip();
    let mut issuers = Vec::with_capacity(names.len());
    let mut kinds = Vec::with_capacity(names.len());
    let mut bases = Vec::with_capacity(names.len());
    for (name, section) in names.iter().zip(sections) {
        let mut reader = IssuerReader {
            section,
            names: &names,
            base: None,
        };
        let (kind, issuer) = reader.issuer();
        kinds.push(kind);
        bases.push(reader.base);
        issuers.extend(issuer.map(|kind| Issuer {
            name: name.value.clone(),
            rate: call_rate(&reader.section, &kind),
            kind,
        }));
        reader.section.finish();
    }
    check_bases(root, &names, &kinds, &bases);
    let is_web = |index: &usize| kinds.get(*index) == Some(&Some(KindName::WebIdentity));
    Issuers {
        all: issuers,
        bases: bases.into_iter().flatten().map(|base| base.value).collect(),
        unfenced: (0..names.len()).filter(is_web).collect(),
        names,
    }
}

/// `calls_per_second` and `burst`; a static issuer calls nobody.
fn call_rate(section: &Section<'_>, kind: &IssuerKind) -> CallRate {
    if matches!(kind, IssuerKind::Static(_)) {
        return CallRate {
            per_second: 1,
            burst: 1,
        };
    }
    let read = |key| u32::try_from(section.number(key)).unwrap_or(u32::MAX);
    CallRate {
        per_second: read("calls_per_second"),
        burst: read("burst"),
    }
}

/// A base makes keys that may call `AssumeRole`, and no chain comes back to where it began.
fn check_bases(
    root: &Section<'_>,
    names: &[Located<String>],
    kinds: &[Option<KindName>],
    bases: &[Option<Located<usize>>],
) {
    for (index, base) in bases.iter().enumerate() {
        let Some(Located { value, origin }) = base else {
            continue;
        };
        let name = names.get(*value).map_or("", |name| name.value.as_str());
        if let Some(Some(kind @ (KindName::Federation | KindName::Static))) = kinds.get(*value) {
            let message = format!(
                "`base`: keys of the issuer `{}` (kind \"{}\") cannot assume a role",
                printable(name),
                kind.text()
            );
            let fix = match kind {
                KindName::Static => "write its secret_id and secret_key here",
                _ => "name an issuer of kind \"assume-role\" or \"web-identity\"",
            };
            root.error(origin, message, fix);
        }
        let mut at = *value;
        for _ in 0..bases.len() {
            if at == index {
                let message = "`base`: these issuers are each other's base";
                let fix = "give one of them a key of its own (secret_id and secret_key)";
                root.error(origin, message, fix);
                break;
            }
            match bases.get(at) {
                Some(Some(next)) => at = next.value,
                _ => break,
            }
        }
    }
}

/// Reads the section of one issuer.
struct IssuerReader<'a, 'n> {
    section: Section<'a>,
    names: &'n [Located<String>],
    base: Option<Located<usize>>,
}

impl IssuerReader<'_, '_> {
    fn issuer(&mut self) -> (Option<KindName>, Option<IssuerKind>) {
        if self.section.position_of("kind").is_none() {
            self.section.missing("kind");
            return (None, None);
        }
        let Some(kind) = self.section.choice("kind", KindName::parse) else {
            return (None, None);
        };
        let kind = kind.value;
        self.section.set_kind(kind.text());
        let read = match kind {
            KindName::AssumeRole => self.assume_role(),
            KindName::Federation => self.federation(),
            KindName::Static => given_key(&self.section).map(IssuerKind::Static),
            KindName::WebIdentity => web_identity(&self.section).map(IssuerKind::WebIdentity),
        };
        (Some(kind), read)
    }

    fn federation(&mut self) -> Option<IssuerKind> {
        let duration = self.section.duration("duration");
        if duration.value > FEDERATION_ROOT_LONGEST {
            let message = "`duration`: STS allows at most 2h for the key of a root account";
            let fix = "use the key of a sub-account, or write at most 2h";
            self.section.warning(&duration.origin, message, fix);
        }
        let refused_base = self.section.position_of("base");
        let base = self.base_key(false);
        self.base = refused_base.map(|origin| Located {
            value: UNKNOWN,
            origin,
        });
        let duration = duration.value;
        base.map(|base| IssuerKind::Federation { base, duration })
    }

    fn assume_role(&mut self) -> Option<IssuerKind> {
        let role = role(&self.section);
        let base = self.base_key(true);
        Some(IssuerKind::AssumeRole {
            base: base?,
            role: role?,
        })
    }

    /// The issuer's own key, which may be a temporary one if `can_be_temporary`.
    fn base_key(&mut self, can_be_temporary: bool) -> Option<BaseKey> {
        let Located { value, origin } = base_key(&mut self.section, self.names, can_be_temporary)?;
        if let BaseKey::Issuer(value) = value {
            self.base = Some(Located { value, origin });
        }
        Some(value)
    }
}
