//! `[tenants.*]`: each for itself, then all against each other and the templates.

use std::collections::HashMap;

use super::admission;
use super::document::{Found, Origin, printable};
use super::grammar;
use super::grants::{ReadGrant, check_grants_of_one_tenant, grant, no_grants, refuse_unfenced};
use super::identities::Identities;
use super::issuers::{self, Issuers};
use super::limits::tenant_limits;
use super::overlaps::refuse_overlaps;
use super::problem::Refusal;
use super::section::Section;
use super::sessions;
use super::templates::{self, ReadTemplate};
use super::unix;
use super::vend;
use super::{AccessKey, Listen, Server, Template, Tenant};

/// Tenants with what only the checks between them need.
struct Read {
    tenant: Tenant,
    key_origins: Vec<Origin>,
    certificate_origins: Vec<Origin>,
    user_origins: Vec<Origin>,
    anonymous_origin: Option<Origin>,
    grants: Vec<ReadGrant>,
}

/// Stands where an error was reported, so nobody gets to see it.
pub(super) const UNKNOWN: usize = usize::MAX;

pub(super) fn tenants(
    root: &mut Section<'_>,
    issuers: &Issuers,
    identities: &Identities,
    server: Option<&Server>,
) -> (Vec<Tenant>, Vec<Template>) {
    let sections = root.named_sections("tenants");
    refuse_shared_variables(&sections);
    let templates = templates::templates(root, issuers, identities);
    if sections.is_empty() && templates.is_empty() {
        let message = "there are no tenants: every request will be refused";
        root.document().warning(
            &root.origin(),
            Refusal::new(message, "add [tenants.NAME] with a grant"),
        );
    }
    let mut read = Vec::with_capacity(sections.len());
    for (name, section) in sections {
        section.check("tenants", &name.origin, grammar::name(&name.value));
        read.push(tenant(name, section, issuers, identities));
    }
    let issuers_used: Vec<_> = (read.iter().map(|read| read.tenant.issuer))
        .chain(templates.iter().map(|read| read.template.issuer))
        .chain(issuers.bases.iter().copied())
        .collect();
    warn_of_unused_issuers(root, issuers, &issuers_used);
    let identities_used: Vec<_> = (read.iter().filter_map(|read| read.tenant.identity))
        .chain(templates.iter().map(|read| read.template.identity))
        .collect();
    identities.warn_of_unused(root, &identities_used);
    refuse_common_keys(root, &read);
    let certificates = read.iter().flat_map(|read| {
        let names = read.tenant.admission.client_certs.iter();
        let written = names.zip(&read.certificate_origins);
        written.map(|(name, origin)| (name, origin, read.tenant.name.as_str()))
    });
    admission::check_certificates(root, certificates, server);
    let users = read.iter().flat_map(|read| {
        let uids = read.tenant.admission.unix_users.iter();
        let written = uids.zip(&read.user_origins);
        written.map(|(uid, origin)| (*uid, origin, read.tenant.name.as_str()))
    });
    unix::check_users(root, users, server);
    refuse_anonymous(root, &read, server);
    let vends = read.iter().filter_map(|read| read.tenant.vend.as_ref());
    vend::refuse_common_tokens(root, vends);
    let of_tenants = read.iter().map(|read| {
        let name = read.tenant.name.as_str();
        ("tenant", name, read.grants.as_slice())
    });
    let of_templates = templates.iter().map(|read| {
        let name = read.template.name.as_str();
        ("template", name, read.grants.as_slice())
    });
    refuse_overlaps(root, of_tenants.chain(of_templates));
    (
        read.into_iter().map(Read::checked).collect(),
        templates.into_iter().map(ReadTemplate::checked).collect(),
    )
}

fn warn_of_unused_issuers(root: &Section<'_>, issuers: &Issuers, used: &[usize]) {
    if used.contains(&UNKNOWN) {
        return; // one of them was likely meant
    }
    for (index, name) in issuers.names.iter().enumerate() {
        if !used.contains(&index) {
            let message = format!("no tenant uses the issuer `{}`", printable(&name.value));
            root.document().warning(
                &name.origin,
                Refusal::new(message, "remove it, or name it in a tenant"),
            );
        }
    }
}

/// Two names that give the same `COSGATE_…` variables would take each other's secrets.
pub(super) fn refuse_shared_variables(sections: &[(Found<String>, Section<'_>)]) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for (name, section) in sections {
        let variable = section.variable_of("");
        if let Some(first) = seen.insert(variable.clone(), &name.value) {
            let message = format!(
                "`{}` and `{}` share the variables {variable}…",
                printable(first),
                printable(&name.value)
            );
            section
                .document()
                .error(&name.origin, Refusal::new(message, "rename one of the two"));
        }
    }
}

/// The index of the issuer that `section` names.
pub(super) fn issuer(section: &mut Section<'_>, issuers: &Issuers) -> usize {
    let issuer = section.required("issuer", "\"NAME\" of an [issuers.NAME]", |text| {
        issuers::named(text, &issuers.names)
    });
    if let Some(found) = &issuer
        && issuers.unfenced.contains(&found.value)
    {
        let message = "`issuer`: AssumeRoleWithWebIdentity takes no policy: these keys may do all that the role may, and only cosgate's own check fences the tenant";
        let fix = "make it the `base` of an issuer of kind \"assume-role\", and name that one";
        section
            .document()
            .warning(&found.origin, Refusal::new(message, fix));
    }
    issuer.map_or(UNKNOWN, |found| found.value)
}

fn tenant(
    name: Found<String>,
    mut section: Section<'_>,
    issuers: &Issuers,
    identities: &Identities,
) -> Read {
    let issuer = issuer(&mut section, issuers);
    let identity = section.parsed("identity", |text| {
        let index = identities.named(text)?;
        if identities.names_tenants(index) {
            return Ok(index);
        }
        Err(Refusal::new(
            format!(
                "the identity `{}` has no tenant_claim, so no token can name a tenant",
                printable(text)
            ),
            "add tenant_claim = \"cosgate_tenant\" to it",
        ))
    });
    let mut access_keys = Vec::new();
    let mut key_origins = Vec::new();
    let key_sections = section.tables("access_keys");
    let has_keys = !key_sections.is_empty();
    for mut section in key_sections {
        let id = section.required(
            "id",
            "\"ID\" (`cosgate keygen` makes one)",
            grammar::access_key_id,
        );
        let secret = section.required_secret("secret");
        section.finish();
        if let (Some(id), Some(secret)) = (id, secret) {
            access_keys.push(AccessKey {
                id: id.value,
                secret: secret.value,
            });
            key_origins.push(id.origin);
        }
    }
    let anonymous = section.flag("anonymous");
    let names_identity = section.has("identity");
    let admission = admission::admission(&mut section);
    let known_otherwise =
        anonymous.value || section.has("client_certs") || section.has("unix_users");
    if !has_keys && !known_otherwise && identity.is_none() && !names_identity {
        let message = format!(
            "nobody can call as the tenant `{}`: it has no access_keys",
            printable(&name.value)
        );
        let fix = "add access_keys = [{ id = \"…\", secret = \"env:NAME\" }] (`cosgate keygen` makes one)";
        section
            .document()
            .error(&section.origin(), Refusal::new(message, fix));
    }
    let grants: Vec<ReadGrant> = section.tables("grants").into_iter().map(grant).collect();
    if grants.is_empty() && !section.has("grants") {
        no_grants(&section, "tenant", "tenants", &name.value);
    }
    for prefix in grants.iter().flat_map(|grant| &grant.reach) {
        if templates::head_and_claim(&prefix.value).is_some() {
            let message = "a `{claim.…}` stands for what a token says, and a tenant has no token";
            let fix = "write the grant in a [templates.NAME]";
            section
                .document()
                .error(&prefix.origin, Refusal::new(message, fix));
        }
    }
    check_grants_of_one_tenant(&section, &grants);
    refuse_unfenced(&section, issuers.kind(issuer), &grants);
    let vend = vend::vend(&mut section, issuers.kind(issuer), &grants, true);
    if vend.is_some() && anonymous.value {
        let message =
            "`vend` and `anonymous`: whoever comes could have a key that COS itself takes";
        section.document().error(
            &anonymous.origin,
            Refusal::new(message, "make another tenant of one of the two"),
        );
    }
    let limits = tenant_limits(section.section("limits"));
    let revoked = sessions::revoked(&mut section);
    section.finish();
    Read {
        tenant: Tenant {
            name: name.value,
            issuer,
            access_keys,
            anonymous: anonymous.value,
            admission: admission.admission,
            identity: match identity {
                Some(found) => Some(found.value),
                None => names_identity.then_some(UNKNOWN),
            },
            grants: Vec::new(),
            limits,
            vend,
            revoked,
        },
        key_origins,
        certificate_origins: admission.certificate_origins,
        user_origins: admission.user_origins,
        anonymous_origin: anonymous.value.then_some(anonymous.origin),
        grants,
    }
}

fn refuse_common_keys(root: &Section<'_>, read: &[Read]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for tenant in read {
        for (key, origin) in tenant.tenant.access_keys.iter().zip(&tenant.key_origins) {
            if let Some(first) = seen.insert(&key.id, &tenant.tenant.name) {
                let message = format!(
                    "the access key id `{}` is already used by the tenant `{}`",
                    key.id,
                    printable(first)
                );
                root.document().error(
                    origin,
                    Refusal::new(
                        message,
                        "give each key its own id (`cosgate keygen` makes one)",
                    ),
                );
            }
        }
    }
}

fn refuse_anonymous(root: &Section<'_>, read: &[Read], server: Option<&Server>) {
    let mut first: Option<&str> = None;
    for tenant in read {
        let Some(origin) = &tenant.anonymous_origin else {
            continue;
        };
        if let Some(first) = first {
            let message = format!("the tenant `{}` is anonymous already", printable(first));
            root.document().error(
                origin,
                Refusal::new(message, "leave `anonymous = true` on one of the two"),
            );
        }
        first = Some(&tenant.tenant.name);
        if let Some(server) = server
            && !server.listen.is_local()
            && !server.allow_remote_anonymous
        {
            let message = format!(
                "anyone who reaches {} could use the tenant `{}`",
                server.listen,
                printable(&tenant.tenant.name)
            );
            let fix = "listen on 127.0.0.1, remove `anonymous`, or set allow_remote_anonymous = true in [server]";
            root.document().error(origin, Refusal::new(message, fix));
        }
        if let Some(server) = server
            && matches!(server.listen, Listen::Tcp(_))
            && server.listen.is_local()
            && server.loopback_is_proxy
            && !server.allow_remote_anonymous
        {
            let message = format!(
                "nobody could use the tenant `{}`: with `loopback_is_proxy` no request is one of this machine",
                printable(&tenant.tenant.name)
            );
            let fix = "remove `anonymous` or `loopback_is_proxy`, or set allow_remote_anonymous = true in [server]";
            root.document().error(origin, Refusal::new(message, fix));
        }
    }
}

impl Read {
    fn checked(self) -> Tenant {
        let grants = self
            .grants
            .into_iter()
            .filter_map(ReadGrant::checked)
            .collect();
        Tenant {
            grants,
            ..self.tenant
        }
    }
}
