//! `[tenants.*]`: each for itself, then all against each other and the templates.

use std::collections::HashMap;

use super::admission::{self, ReadAdmission};
use super::claims;
use super::cors::CorsRule;
use super::file::{Located, Origin};
use super::grammar;
use super::grants::{ReadGrant, check_grants_of_one_tenant, grant, no_grants, refuse_unfenced};
use super::identities::ConfiguredProviders;
use super::issuers::Issuers;
use super::limits::tenant_limits;
use super::model::{AccessKey, Listen, Server, TemplateConfig, TenantConfig, Vend};
use super::names::{UNKNOWN, warn_of_unused};
use super::overlaps::refuse_overlaps;
use super::problem::{Mistake, printable};
use super::section::Section;
use super::sessions;
use super::templates::{self, ReadTemplate};
use super::unix;
use super::vend;
use crate::timestamp::Timestamp;

/// A local secret that is shorter can be guessed from one presigned URL, without asking cosgate.
const LOCAL_SECRET_BYTES: usize = 12;

/// A key that ends within so many seconds is warned of.
const SOON: i64 = 7 * 86_400;

/// A tenant with what only the checks between tenants need.
struct ReadTenant {
    tenant: TenantConfig,
    key_origins: Vec<Origin>,
    certificate_origins: Vec<Origin>,
    user_origins: Vec<Origin>,
    anonymous_origin: Option<Origin>,
    grants: Vec<ReadGrant>,
}

pub(super) fn tenants(
    root: &Section<'_>,
    issuers: &Issuers,
    identities: &ConfiguredProviders,
    server: Option<&Server>,
) -> (Vec<TenantConfig>, Vec<TemplateConfig>) {
    let sections = root.named_sections("tenants");
    let templates = templates::templates(root, issuers, identities);
    if sections.is_empty() && templates.is_empty() {
        let message = "there are no tenants: cosgate would reject every request";
        root.warning(&root.origin(), message, "add [tenants.NAME] with a grant");
    }
    let sections = sections.into_iter();
    let tenants: Vec<_> = sections
        .map(|(name, section)| tenant(name, section, issuers, identities))
        .collect();
    check_references(root, issuers, identities, (&tenants, &templates));
    refuse_common_callers(root, &tenants, server);
    refuse_anonymous(root, &tenants, server);
    let of_tenants = tenants.iter().map(|read| {
        let name = read.tenant.name.as_str();
        ("tenant", name, read.grants.as_slice())
    });
    let of_templates = templates.iter().map(|read| {
        let name = read.template.name.as_str();
        ("template", name, read.grants.as_slice())
    });
    refuse_overlaps(root, of_tenants.chain(of_templates));
    (
        tenants.into_iter().map(ReadTenant::checked).collect(),
        templates.into_iter().map(ReadTemplate::checked).collect(),
    )
}

/// Issuers and identities that nothing uses.
fn check_references(
    root: &Section<'_>,
    issuers: &Issuers,
    identities: &ConfiguredProviders,
    (tenants, templates): (&[ReadTenant], &[ReadTemplate]),
) {
    let issuers_used: Vec<_> = (tenants.iter().map(|read| read.tenant.issuer))
        .chain(templates.iter().map(|read| read.template.issuer))
        .chain(issuers.bases.iter().copied())
        .collect();
    warn_of_unused(root, &issuers.names, &issuers_used, "issuer");
    let identities_used: Vec<_> = (tenants.iter().filter_map(|read| read.tenant.identity))
        .chain(templates.iter().map(|read| read.template.identity))
        .collect();
    identities.warn_of_unused(root, &identities_used);
}

/// Keys, certificates, users and tokens that two tenants have.
fn refuse_common_callers(root: &Section<'_>, tenants: &[ReadTenant], server: Option<&Server>) {
    refuse_common_keys(root, tenants);
    let certificates = tenants.iter().flat_map(|read| {
        let names = read.tenant.admission.client_certs.iter();
        let written = names.zip(&read.certificate_origins);
        written.map(|(name, origin)| (name, origin, read.tenant.name.as_str()))
    });
    admission::check_certificates(root, certificates, server);
    let users = tenants.iter().flat_map(|read| {
        let uids = read.tenant.admission.unix_users.iter();
        let written = uids.zip(&read.user_origins);
        written.map(|(uid, origin)| (*uid, origin, read.tenant.name.as_str()))
    });
    unix::check_users(root, users, server);
    let vends = tenants.iter().filter_map(|read| read.tenant.vend.as_ref());
    vend::refuse_common_tokens(root, vends);
}

fn tenant(
    name: Located<String>,
    section: Section<'_>,
    issuers: &Issuers,
    identities: &ConfiguredProviders,
) -> ReadTenant {
    let issuer = issuers.of(&section);
    let identity = identity(&section, identities);
    let (access_keys, key_origins) = access_keys(&section);
    let anonymous = section.flag("anonymous");
    let ReadAdmission {
        admission,
        certificate_origins,
        user_origins,
    } = admission::admission(&section);
    refuse_uncallable(&section, &name.value, anonymous.value);
    let grants: Vec<ReadGrant> = section.tables("grants").into_iter().map(grant).collect();
    if grants.is_empty() && !section.has("grants") {
        no_grants(&section, "tenant", "tenants", &name.value);
    }
    refuse_claims(&section, &grants);
    check_grants_of_one_tenant(&section, &grants);
    refuse_unfenced(&section, issuers.kind(issuer), &grants);
    let vend = vend::vend(&section, issuers.kind(issuer), &grants);
    refuse_anonymous_vend(&section, vend.as_ref(), &anonymous);
    warn_of_writing_pages(&section, &anonymous, &grants);
    let tenant = TenantConfig {
        name: name.value,
        issuer,
        access_keys,
        anonymous: anonymous.value,
        admission,
        identity,
        grants: Vec::new(),
        limits: tenant_limits(section.section("limits")),
        vend,
        revoked: sessions::revoked(&section),
    };
    section.finish();
    ReadTenant {
        tenant,
        key_origins,
        certificate_origins,
        user_origins,
        anonymous_origin: anonymous.value.then_some(anonymous.origin),
        grants,
    }
}

/// The identity whose tokens may name this tenant.
fn identity(section: &Section<'_>, identities: &ConfiguredProviders) -> Option<usize> {
    let identity = section.parsed("identity", |text| {
        let index = identities.named(text)?;
        if identities.names_tenants(index) {
            return Ok(index);
        }
        Err(Mistake::new(
            format!(
                "the identity `{}` has no tenant_claim, so no token can name a tenant",
                printable(text)
            ),
            "add tenant_claim = \"cosgate_tenant\" to it",
        ))
    });
    match identity {
        Some(found) => Some(found.value),
        None => section.has("identity").then_some(UNKNOWN),
    }
}

fn access_keys(section: &Section<'_>) -> (Vec<AccessKey>, Vec<Origin>) {
    let mut keys = Vec::new();
    let mut origins = Vec::new();
    for section in section.tables("access_keys") {
        let id = section.required("id", grammar::access_key_id);
        let secret = section.required_secret("secret");
        if let Some(id) = &id
            && id.value.starts_with("AKID")
        {
            let message = "`id` looks like a SecretId of Tencent Cloud: clients of cosgate must never have one";
            let fix = "make a local key pair with `cosgate keygen`";
            section.warning(&id.origin, message, fix);
        }
        if let Some(secret) = &secret
            && secret.value.value.expose().len() < LOCAL_SECRET_BYTES
        {
            let message = format!(
                "`secret` is shorter than {LOCAL_SECRET_BYTES} characters: a reader of one presigned URL could guess it"
            );
            let fix = "make one with `cosgate keygen` (40 characters)";
            section.warning(&secret.origin, message, fix);
        }
        let not_after = section.parsed("not_after", sessions::time);
        if let Some(not_after) = &not_after {
            warn_of_end(&section, not_after);
        }
        section.finish();
        if let (Some(id), Some(secret)) = (id, secret) {
            keys.push(AccessKey {
                id: id.value,
                secret: secret.value,
                not_after: not_after.map(|found| found.value),
            });
            origins.push(id.origin);
        }
    }
    (keys, origins)
}

fn warn_of_end(section: &Section<'_>, not_after: &Located<Timestamp>) {
    let left = not_after.value.since(section.file().sources.now);
    let message = if left < 0 {
        "the key is past its `not_after`: cosgate rejects what it signs"
    } else if left < SOON {
        "the key ends within 7 days"
    } else {
        return;
    };
    let fix =
        "give the tenant a second key (`cosgate keygen`), and remove this one when nobody uses it";
    section.warning(&not_after.origin, message, fix);
}

fn refuse_uncallable(section: &Section<'_>, name: &str, is_anonymous: bool) {
    let ways = ["access_keys", "client_certs", "unix_users", "identity"];
    let is_written = |way: &&str| section.has(way) && !section.is_empty_array(way);
    let has_identity = section.position_of("identity").is_some();
    if is_anonymous || has_identity || ways.iter().any(is_written) {
        return;
    }
    let message = format!(
        "nobody can call as the tenant `{}`: it has no access_keys",
        printable(name)
    );
    let fix =
        "add access_keys = [{ id = \"…\", secret = \"env:NAME\" }] (`cosgate keygen` makes one)";
    section.error(&section.origin(), message, fix);
}

fn refuse_claims(section: &Section<'_>, grants: &[ReadGrant]) {
    for prefix in grants.iter().flat_map(|grant| &grant.reach) {
        if claims::head_and_claim(&prefix.value).is_some() {
            let message = "`{claim.…}` is allowed in templates alone: a tenant has no token";
            let fix = "write the grant in a [templates.NAME]";
            section.error(&prefix.origin, message, fix);
        }
    }
}

fn refuse_anonymous_vend(section: &Section<'_>, vend: Option<&Vend>, anonymous: &Located<bool>) {
    if vend.is_some() && anonymous.value {
        let message = "`vend` and `anonymous` exclude each other: anyone could get a key that COS itself accepts";
        let fix = "write a tenant for each of the two";
        section.error(&anonymous.origin, message, fix);
    }
}

/// Every page of the internet could use its visitors' browsers to write.
fn warn_of_writing_pages(section: &Section<'_>, anonymous: &Located<bool>, grants: &[ReadGrant]) {
    let mut rules = grants.iter().flat_map(|grant| &*grant.cors);
    if anonymous.value && rules.any(CorsRule::lets_all_write) {
        let message =
            "a cors rule for \"*\" lets every web page change what the anonymous tenant has";
        let fix = "name the origins, or allow only GET and HEAD in the rule's methods";
        section.warning(&anonymous.origin, message, fix);
    }
}

fn refuse_common_keys(root: &Section<'_>, tenants: &[ReadTenant]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for tenant in tenants {
        for (key, origin) in tenant.tenant.access_keys.iter().zip(&tenant.key_origins) {
            if let Some(first) = seen.insert(&key.id, &tenant.tenant.name) {
                let message = format!(
                    "the tenant `{}` has the access key id `{}` already",
                    printable(first),
                    key.id
                );
                let fix = "give each key its own id (`cosgate keygen` makes one)";
                root.error(origin, message, fix);
            }
        }
    }
}

fn refuse_anonymous(root: &Section<'_>, tenants: &[ReadTenant], server: Option<&Server>) {
    let mut first: Option<&str> = None;
    for tenant in tenants {
        let Some(origin) = &tenant.anonymous_origin else {
            continue;
        };
        if let Some(first) = first {
            let message = format!("the tenant `{}` is anonymous already", printable(first));
            let fix = "remove `anonymous = true` from one of the two";
            root.error(origin, message, fix);
        }
        first = Some(&tenant.tenant.name);
        if let Some(server) = server.filter(|server| !server.allow_remote_anonymous) {
            refuse_anonymous_on(root, server, &tenant.tenant.name, origin);
        }
    }
}

/// An anonymous tenant that everybody could use, or nobody.
fn refuse_anonymous_on(root: &Section<'_>, server: &Server, tenant: &str, origin: &Origin) {
    if !server.listen.is_local() {
        let message = format!(
            "anyone who reaches {} could use the tenant `{}`",
            server.listen,
            printable(tenant)
        );
        let fix = "listen on 127.0.0.1, remove `anonymous`, or set allow_remote_anonymous = true in [server]";
        root.error(origin, message, fix);
    } else if matches!(server.listen, Listen::Tcp(_)) && server.loopback_is_proxy {
        let message = format!(
            "nobody could use the tenant `{}`: with `loopback_is_proxy` no request counts as local",
            printable(tenant)
        );
        let fix = "remove `anonymous` or `loopback_is_proxy`, or set allow_remote_anonymous = true in [server]";
        root.error(origin, message, fix);
    }
}

impl ReadTenant {
    fn checked(self) -> TenantConfig {
        let grants = self
            .grants
            .into_iter()
            .filter_map(ReadGrant::checked)
            .collect();
        TenantConfig {
            grants,
            ..self.tenant
        }
    }
}
