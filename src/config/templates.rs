//! `[templates.*]`: tenants that are made for each subject of an identity provider.

use super::admission;
use super::claims::{self, OPEN, has_claim};
use super::file::{Located, Origin};
use super::grants::{ReadGrant, check_grants_of_one_tenant, grant, no_grants};
use super::identities::ConfiguredProviders;
use super::issuers::Issuers;
use super::limits::tenant_limits;
use super::model::TemplateConfig;
use super::names::UNKNOWN;
use super::prefix::PrefixPattern;
use super::problem::printable;
use super::section::Section;
use super::sessions;
use super::vend;

/// A template with what only the checks between templates and tenants need.
pub(super) struct ReadTemplate {
    pub(super) template: TemplateConfig,
    pub(super) grants: Vec<ReadGrant>,
}

pub(super) fn templates(
    root: &Section<'_>,
    issuers: &Issuers,
    identities: &ConfiguredProviders,
) -> Vec<ReadTemplate> {
    let sections = root.named_sections("templates");
    let mut read: Vec<ReadTemplate> = Vec::with_capacity(sections.len());
    for (name, section) in sections {
        let origin = name.origin.clone();
        let next = template(name, section, issuers, identities);
        if let Some(first) = read
            .iter()
            .find(|other| other.template.identity == next.template.identity)
            && next.template.identity != UNKNOWN
        {
            let message = format!(
                "the template `{}` has the same identity",
                printable(&first.template.name)
            );
            let fix = "write one template with the grants of both";
            root.error(&origin, message, fix);
        }
        read.push(next);
    }
    read
}

fn template(
    name: Located<String>,
    section: Section<'_>,
    issuers: &Issuers,
    identities: &ConfiguredProviders,
) -> ReadTemplate {
    let issuer = issuers.of(&section);
    let identity = section.required("identity", |text| identities.named(text));
    let grants: Vec<ReadGrant> = section.tables("grants").into_iter().map(grant).collect();
    if grants.is_empty() && !section.has("grants") {
        no_grants(&section, "template", "templates", &name.value);
    }
    for grant in &grants {
        if let Some(policy) = &grant.policy {
            let message = "a template's grant cannot have a `policy`, which would be the same for every subject";
            let fix = "write prefixes and actions";
            section.error(&policy.origin, message, fix);
            continue;
        }
        for prefix in &grant.reach {
            check_prefix(&section, &prefix.value, &prefix.origin, grant.shared);
        }
    }
    check_grants_of_one_tenant(&section, &grants);
    let vend = vend::vend(&section, issuers.kind(issuer), &grants);
    let allowed_ips = admission::allowed_ips(&section);
    let limits = tenant_limits(section.section("limits"));
    let revoked = sessions::revoked(&section);
    section.finish();
    ReadTemplate {
        template: TemplateConfig {
            name: name.value,
            issuer,
            identity: identity.map_or(UNKNOWN, |found| found.value),
            grants: Vec::new(),
            vend,
            allowed_ips,
            limits,
            revoked,
        },
        grants,
    }
}

fn check_prefix(section: &Section<'_>, pattern: &PrefixPattern, origin: &Origin, shared: bool) {
    let refuse = |message: String, fix: &str| {
        section.error(origin, message, fix);
    };
    let (text, open) = match pattern {
        PrefixPattern::Any => ("", true),
        PrefixPattern::Exact(text) => (text.as_str(), false),
        PrefixPattern::StartsWith(text) => (text.as_str(), true),
    };
    if !has_claim(text) {
        if !shared {
            refuse(
                format!("`{pattern}` has no claim: every subject gets the same keys"),
                "write \"users/{claim.sub}/*\", or shared = true in the grant if that is meant",
            );
        }
        return;
    }
    let segments: Vec<&str> = segments(text);
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        if !segment.contains(OPEN) {
            continue;
        }
        let name = segment
            .strip_prefix(OPEN)
            .and_then(|rest| rest.strip_suffix('}'));
        // Two values side by side, or a value beside text, could make one key of two subjects.
        if name.is_none_or(|name| claims::name(name).is_err()) {
            refuse(
                format!("a claim must be a whole segment of `{}`", printable(text)),
                "write it alone between slashes: \"users/{claim.sub}/*\"",
            );
        } else if is_last && open {
            refuse(
                format!(
                    "`{}*` covers every subject whose name begins so",
                    printable(text)
                ),
                "end the folder: \"users/{claim.sub}/*\"",
            );
        }
    }
}

/// The segments of a prefix, in which a claim's name may have slashes.
fn segments(text: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let (mut start, mut in_claim) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' => in_claim = true,
            '}' => in_claim = false,
            '/' if !in_claim => {
                segments.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    segments.extend(text.get(start..));
    segments
}

impl ReadTemplate {
    pub(super) fn checked(self) -> TemplateConfig {
        let grants = self
            .grants
            .into_iter()
            .filter_map(ReadGrant::checked)
            .collect();
        TemplateConfig {
            grants,
            ..self.template
        }
    }
}
