//! `[identities.*]`: whose tokens are believed.

use std::time::Duration;

use super::document::{Found, printable};
use super::endpoint::{self, Placeholders};
use super::grammar;
use super::problem::{Refusal, nearest};
use super::section::Section;
use super::{IdentityProvider, Jwks, tenants};

const JWKS_EXAMPLE: &str =
    "\"https://login.example.com/.well-known/jwks.json\" or \"file:jwks.json\"";
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
/// A claim's value is compared byte by byte, so its name is any text that fits on a line.
const CLAIM_BYTES: usize = 128;
/// Bytes of `issuer` and `audience` at most.
const CLAIM_VALUE_BYTES: usize = 512;

/// The identity providers that could be read.
pub(super) struct Identities {
    pub(super) all: Vec<IdentityProvider>,
    /// Every name in the file, those of providers with faults included, in the file's order.
    names: Vec<Found<String>>,
}

pub(super) fn identities(root: &mut Section<'_>) -> Identities {
    let mut read = Identities {
        all: Vec::new(),
        names: Vec::new(),
    };
    let sections = root.named_sections("identities");
    tenants::refuse_shared_variables(&sections);
    for (name, section) in sections {
        section.check("identities", &name.origin, grammar::name(&name.value));
        read.names.push(name.clone());
        let Some(identity) = identity(name.value, section) else {
            continue;
        };
        if let Some(first) = read.all.iter().find(|other| {
            (&other.issuer, &other.audience) == (&identity.issuer, &identity.audience)
        }) {
            let message = format!(
                "`{}` has the issuer and audience of `{}`",
                printable(&identity.name),
                printable(&first.name)
            );
            let origin = read.names.last().map(|name| name.origin.clone());
            if let Some(origin) = origin {
                root.document().error(
                    &origin,
                    Refusal::new(message, "remove one, or give it an audience of its own"),
                );
            }
        }
        read.all.push(identity);
    }
    read
}

impl Identities {
    /// The index of the provider `text`.
    pub(super) fn named(&self, text: &str) -> Result<usize, Refusal> {
        let found = self.names.iter().position(|name| name.value == text);
        found.ok_or_else(|| {
            let names = self.names.iter().map(|name| name.value.as_str());
            let fix = match nearest(text, names) {
                Some(meant) => format!("did you mean \"{}\"?", printable(meant)),
                None => format!("add [identities.{}]", printable(text)),
            };
            Refusal::new(format!("there is no identity `{}`", printable(text)), fix)
        })
    }

    /// Whether tokens of the provider at `index` can name a tenant; unknown ones are assumed to.
    pub(super) fn names_tenants(&self, index: usize) -> bool {
        self.all.len() < self.names.len()
            || self
                .all
                .get(index)
                .is_none_or(|identity| identity.tenant_claim.is_some())
    }

    /// Warns of providers that neither a tenant nor a template has `used`.
    pub(super) fn warn_of_unused(&self, root: &Section<'_>, used: &[usize]) {
        if used.contains(&tenants::UNKNOWN) {
            return; // one of them was likely meant
        }
        for (index, name) in self.names.iter().enumerate() {
            if !used.contains(&index) {
                let message = format!(
                    "no tenant or template uses the identity `{}`",
                    printable(&name.value)
                );
                root.document().warning(
                    &name.origin,
                    Refusal::new(message, "remove it, or name it in a template or tenant"),
                );
            }
        }
    }
}

fn identity(name: String, mut section: Section<'_>) -> Option<IdentityProvider> {
    let issuer = section.required("issuer", "\"https://login.example.com/\"", claim_value);
    let audience = section.required("audience", "\"cosgate\"", claim_value);
    let tenant_claim = section.parsed("tenant_claim", claim_name);
    let (jwks, max_key_age) = jwks(&mut section);
    section.finish();
    Some(IdentityProvider {
        name,
        issuer: issuer?.value,
        audience: audience?.value,
        jwks: jwks?,
        max_key_age,
        tenant_claim: tenant_claim.map(|found| found.value),
    })
}

/// Where the keys are, and how long they count after they were last read.
fn jwks(section: &mut Section<'_>) -> (Option<Jwks>, Duration) {
    let refresh = section.duration("refresh", 5 * MINUTE, MINUTE / 6..=DAY);
    let usual = DAY.max(2 * refresh.value);
    let max_key_age = section.duration("max_key_age", usual, MINUTE / 6..=365 * DAY);
    if max_key_age.value < 2 * refresh.value {
        let message = "`max_key_age` is less than twice `refresh`: one failed attempt would refuse all tokens";
        let fix = "make it longer, or `refresh` shorter";
        section
            .document()
            .error(&max_key_age.origin, Refusal::new(message, fix));
    }
    (place_of_keys(section, refresh.value), max_key_age.value)
}

fn place_of_keys(section: &mut Section<'_>, refresh: Duration) -> Option<Jwks> {
    let connect_to = section.parsed("connect_to", endpoint::dial);
    let connect_to = connect_to.map(|found| found.value);
    let ca_file = section.pem("ca_file");
    let found = section.required("jwks", JWKS_EXAMPLE, |text| Ok(text.to_owned()))?;
    if let Some(path) = found.value.strip_prefix("file:") {
        let path = section.document().resolve(path);
        let readable = (section.document().sources.file)(&path).map_err(|error| {
            Refusal::new(
                format!("cannot read {}: {error}", path.display()),
                "mend the path (it is relative to this file's directory) or the file's rights",
            )
        });
        section.check("jwks", &found.origin, readable)?;
        return Some(Jwks::File(path));
    }
    let endpoint = endpoint::endpoint(&found.value, Placeholders::None);
    let endpoint = section.check("jwks", &found.origin, endpoint)?;
    let here = endpoint::is_loopback(connect_to.as_deref().unwrap_or(&endpoint.authority));
    if !endpoint.tls && !here {
        let message = "`jwks` is plain http: whoever is on the way could be anybody here";
        let refusal = Refusal::new(message, "write https://, or file:PATH");
        section.document().error(&found.origin, refusal);
    }
    Some(Jwks::Url {
        endpoint,
        connect_to,
        ca_file,
        refresh,
    })
}

/// The name of a claim, which may be a URL. It stands in `{claim.NAME}` too.
pub(super) fn claim_name(text: &str) -> Result<String, Refusal> {
    let valid = (1..=CLAIM_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'{' | b'}' | b'*' | b'"' | b'\''));
    if valid {
        return Ok(text.to_owned());
    }
    Err(Refusal::new(
        format!("`{}` is not the name of a claim", printable(text)),
        "write a name such as sub, or https://example.com/tenant",
    ))
}

fn claim_value(text: &str) -> Result<String, Refusal> {
    if (1..=CLAIM_VALUE_BYTES).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Refusal::new(
        "it is empty, too long or not on one line",
        "write it just as it stands in the tokens",
    ))
}
