//! `[identities.*]`: the identity providers whose tokens cosgate accepts.

use std::time::Duration;

use super::claims;
use super::endpoint::{self, Placeholders};
use super::file::Located;
use super::model::{IdentityProviderConfig, Jwks};
use super::names::{index_of, warn_of_unused};
use super::problem::{Mistake, printable};
use super::section::Section;

const DAY: Duration = Duration::from_hours(24);
/// Bytes of `issuer` and `audience` at most.
const CLAIM_VALUE_BYTES: usize = 512;

/// The identity providers that could be read.
pub(super) struct ConfiguredProviders {
    pub(super) all: Vec<IdentityProviderConfig>,
    /// Every name in the file, those of providers with faults included, in the file's order.
    names: Vec<Located<String>>,
}

pub(super) fn identities(root: &Section<'_>) -> ConfiguredProviders {
    let mut read = ConfiguredProviders {
        all: Vec::new(),
        names: Vec::new(),
    };
    let sections = root.named_sections("identities");
    for (name, section) in sections {
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
                root.error(
                    &origin,
                    message,
                    "remove one, or give it an audience of its own",
                );
            }
        }
        read.all.push(identity);
    }
    read
}

impl ConfiguredProviders {
    /// The index of the provider `text`.
    pub(super) fn named(&self, text: &str) -> Result<usize, Mistake> {
        index_of(text, &self.names, "identity", "identities")
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
        warn_of_unused(root, &self.names, used, "identity");
    }
}

fn identity(name: String, section: Section<'_>) -> Option<IdentityProviderConfig> {
    let issuer = section.required("issuer", claim_value);
    let audience = section.required("audience", claim_value);
    let tenant_claim = section.parsed("tenant_claim", claims::name);
    let (jwks, max_key_age) = jwks(&section);
    section.finish();
    Some(IdentityProviderConfig {
        name,
        issuer: issuer?.value,
        audience: audience?.value,
        jwks: jwks?,
        max_key_age,
        tenant_claim: tenant_claim.map(|found| found.value),
    })
}

/// Where the keys are, and how long they count after they were last read.
fn jwks(section: &Section<'_>) -> (Option<Jwks>, Duration) {
    let refresh = section.duration("refresh");
    let usual = DAY.max(2 * refresh.value);
    let max_key_age = section.duration_or("max_key_age", usual);
    if max_key_age.value < 2 * refresh.value {
        let message = "`max_key_age` is less than twice `refresh`: cosgate would reject all tokens after one failed fetch";
        let fix = "write a longer max_key_age or a shorter refresh";
        section.error(&max_key_age.origin, message, fix);
    }
    (key_source(section, refresh.value), max_key_age.value)
}

fn key_source(section: &Section<'_>, refresh: Duration) -> Option<Jwks> {
    let connect_to = section.parsed("connect_to", endpoint::dial);
    let connect_to = connect_to.map(|found| found.value);
    let ca_file = section.pem("ca_file");
    let found = section.required("jwks", |text| Ok(text.to_owned()))?;
    if let Some(path) = found.value.strip_prefix("file:") {
        let path = section.resolve(path);
        let readable = section.file().read(&path);
        section.check("jwks", &found.origin, readable)?;
        for key in ["connect_to", "ca_file", "refresh"] {
            if let Some(origin) = section.position_of(key) {
                let message = format!("`{key}` has no effect: `jwks` is a file");
                section.warning(&origin, message, format!("remove {key}"));
            }
        }
        return Some(Jwks::File(path));
    }
    let endpoint = endpoint::endpoint(&found.value, Placeholders::None);
    let endpoint = section.check("jwks", &found.origin, endpoint)?;
    let is_here = endpoint::is_loopback(connect_to.as_deref().unwrap_or(&endpoint.authority));
    if !endpoint.tls && !is_here {
        let message = "`jwks` uses http://: anyone on the network could replace the keys";
        section.error(&found.origin, message, "write https://, or file:PATH");
    }
    Some(Jwks::Url {
        endpoint,
        connect_to,
        ca_file,
        refresh,
    })
}

fn claim_value(text: &str) -> Result<String, Mistake> {
    if (1..=CLAIM_VALUE_BYTES).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        "it is empty, too long or not on one line",
        "write it exactly as the tokens have it",
    ))
}
