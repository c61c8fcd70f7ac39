//! `[tenants.*]`: each for itself, then all against each other and the templates.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::admission;
use super::document::{Found, Origin, printable};
use super::grammar;
use super::identities::Identities;
use super::issuers::{self, Issuers};
use super::limits::tenant_limits;
use super::prefix;
use super::problem::Refusal;
use super::raw_policy::{self, RawPolicy};
use super::section::Section;
use super::sessions;
use super::templates::{self, ReadTemplate};
use super::unix;
use super::vend;
use super::{AccessKey, Grant, IssuerKind, PrefixPattern, Server, Template, Tenant, actions};

/// Tenants with what only the checks between them need.
struct Read {
    tenant: Tenant,
    key_origins: Vec<Origin>,
    certificate_origins: Vec<Origin>,
    user_origins: Vec<Origin>,
    anonymous_origin: Option<Origin>,
    grants: Vec<ReadGrant>,
}

/// A grant as far as it could be read.
pub(super) struct ReadGrant {
    name: Option<Found<String>>,
    bucket: Option<Found<String>>,
    region: Option<Found<String>>,
    root: String,
    prefixes: Vec<PrefixPattern>,
    list_default_prefix: bool,
    /// The prefixes in the real bucket.
    pub(super) reach: Vec<Found<PrefixPattern>>,
    actions: Vec<String>,
    headers: Vec<String>,
    pub(super) policy: Option<Found<Arc<RawPolicy>>>,
    attachment: bool,
    pub(super) shared: bool,
}

/// Stands where an error was reported, so nobody gets to see it.
pub(super) const UNKNOWN: usize = usize::MAX;

/// Headers that carry the request itself: no grant may let a client set them upstream.
const RESERVED_HEADERS: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "transfer-encoding",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-date",
    "x-amz-security-token",
    "x-cos-security-token",
];

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
    refuse_overlaps(root, &read, &templates);
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
    let vend = vend::vend(&mut section, issuers.kind(issuer), true);
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

pub(super) fn no_grants(section: &Section<'_>, what: &str, table: &str, name: &str) {
    let message = format!(
        "the {what} `{}` has no grants: it can do nothing",
        printable(name)
    );
    let fix = format!("add [[{table}.{}.grants]]", printable(name));
    section
        .document()
        .error(&section.origin(), Refusal::new(message, fix));
}

pub(super) fn grant(mut section: Section<'_>) -> ReadGrant {
    let name = section.required("name", "\"photos\"", grammar::alias);
    let bucket = section.required("bucket", "\"photos-1250000000\"", grammar::bucket);
    let region = section.required("region", "\"ap-guangzhou\"", grammar::region);
    let policy = raw_policy(&mut section, bucket.as_ref(), region.as_ref());
    let has_policy = section.has("policy");
    let root_at = section.place_of("root").filter(|_| !has_policy);
    let root = root_at
        .as_ref()
        .and_then(|_| section.parsed("root", prefix::root));
    let prefixes = if has_policy {
        let origin = section.place_of("policy");
        let reach = policy.iter().flat_map(|policy| policy.value.reach());
        let found = reach.zip(origin.into_iter().cycle());
        found
            .map(|(value, origin)| Found { value, origin })
            .collect()
    } else {
        prefixes(
            &mut section,
            root_at.as_ref(),
            root.as_ref().map_or("", |root| root.value.as_str()),
        )
    };
    let list_default_prefix = list_default_prefix(&mut section, &prefixes);
    let actions = match &policy {
        Some(policy) => policy.value.actions(),
        None if has_policy => Vec::new(),
        None => actions(&mut section),
    };
    let mut headers = Vec::new();
    for text in section.texts("headers") {
        headers.extend(section.check("headers", &text.origin, grantable_header(text.value)));
    }
    headers.sort_unstable();
    headers.dedup();
    let attachment = section.flag("attachment").value;
    let shared = section.flag("shared").value;
    section.finish();
    let is_known = root_at.is_none() || root.is_some(); // else nobody knows what it would touch
    let root = root.map_or_else(String::new, |root| root.value);
    let below = |found: &Found<PrefixPattern>| Found {
        value: found.value.below(&root),
        origin: found.origin.clone(),
    };
    ReadGrant {
        name,
        bucket,
        region,
        reach: prefixes.iter().filter(|_| is_known).map(below).collect(),
        root,
        prefixes: prefixes.into_iter().map(|found| found.value).collect(),
        list_default_prefix,
        actions,
        headers,
        policy,
        attachment,
        shared,
    }
}

/// `actions`, presets unfolded.
fn actions(section: &mut Section<'_>) -> Vec<String> {
    let mut actions = Vec::new();
    for text in section.texts("actions") {
        let unfolded = section.check("actions", &text.origin, actions::unfold(text.value));
        actions.extend(unfolded.into_iter().flatten());
    }
    actions.sort_unstable();
    actions.dedup();
    refuse_empty(section, "actions", "[\"read\", \"write\", \"list\"]");
    actions
}

/// `prefixes`, which a grant with a root need not have: all below it is its own.
fn prefixes(
    section: &mut Section<'_>,
    root_at: Option<&Origin>,
    root: &str,
) -> Vec<Found<PrefixPattern>> {
    if let (Some(origin), false) = (root_at, section.has("prefixes")) {
        section.place_of("prefixes"); // it is known here all the same
        return vec![Found {
            value: PrefixPattern::Any,
            origin: origin.clone(),
        }];
    }
    let mut prefixes = Vec::new();
    for text in section.texts("prefixes") {
        let pattern = prefix::prefix(text.value)
            .and_then(|pattern| prefix::fits_below(root, &pattern).map(|()| pattern));
        let Some(pattern) = section.check("prefixes", &text.origin, pattern) else {
            continue;
        };
        let doubts = [prefix::doubt(&pattern), prefix::doubt_below(root, &pattern)];
        let doubts = doubts.into_iter().flatten();
        for doubt in doubts.filter(|_| templates::head_and_claim(&pattern).is_none()) {
            section.document().warning(&text.origin, doubt);
        }
        prefixes.push(Found {
            value: pattern,
            origin: text.origin,
        });
    }
    refuse_empty(
        section,
        "prefixes",
        "[\"*\"] for every key, or [\"folder/*\"]",
    );
    prefixes
}

/// `list_default_prefix`, which must be able to say what such a listing shows.
fn list_default_prefix(section: &mut Section<'_>, prefixes: &[Found<PrefixPattern>]) -> bool {
    let flag = section.flag("list_default_prefix");
    let is_one = matches!(
        prefixes,
        [Found {
            value: PrefixPattern::StartsWith(_),
            ..
        }]
    );
    if flag.value && !is_one {
        let message =
            "`list_default_prefix` needs one prefix that is a folder: it is what is then listed";
        let fix = "write prefixes = [\"folder/*\"], or remove `list_default_prefix`";
        section
            .document()
            .error(&flag.origin, Refusal::new(message, fix));
    }
    flag.value
}

fn grantable_header(text: &str) -> Result<String, Refusal> {
    let name = grammar::header(text)?;
    if RESERVED_HEADERS.contains(&name.as_str()) {
        return Err(Refusal::new(
            format!("`{name}` cannot be granted: it carries the request itself"),
            "remove it",
        ));
    }
    Ok(name)
}

/// `policy`, which says all that `prefixes`, `actions` and `root` would say.
fn raw_policy(
    section: &mut Section<'_>,
    bucket: Option<&Found<String>>,
    region: Option<&Found<String>>,
) -> Option<Found<Arc<RawPolicy>>> {
    let origin = section.place_of("policy")?;
    for other in ["prefixes", "actions", "root"] {
        if let Some(origin) = section.place_of(other) {
            let message = format!("`{other}` and `policy` are both there: the policy says it all");
            section
                .document()
                .error(&origin, Refusal::new(message, format!("remove `{other}`")));
        }
    }
    let policy = raw_policy::read(section, &bucket?.value, &region?.value)?;
    Some(Found {
        value: Arc::new(policy),
        origin,
    })
}

fn refuse_empty(section: &mut Section<'_>, key: &'static str, example: &str) {
    let (state, origin) = match section.place_of(key) {
        None => ("missing", section.origin()),
        Some(origin) if section.is_empty_array(key) => ("empty", origin),
        Some(_) => return,
    };
    let message = format!("`{key}` is {state}: the grant allows nothing");
    section.document().error(
        &origin,
        Refusal::new(message, format!("write {key} = {example}")),
    );
}

/// Where the key has no policy inside, nobody would judge the conditions of one.
fn refuse_unfenced(section: &Section<'_>, kind: Option<&IssuerKind>, grants: &[ReadGrant]) {
    let message = match kind {
        Some(IssuerKind::Static(_)) => {
            "`policy` needs temporary keys to stand in, and the tenant's issuer is static"
        }
        Some(IssuerKind::WebIdentity(_)) => {
            "`policy` needs keys that it can stand in, and those of a web identity take none"
        }
        _ => return,
    };
    for policy in grants.iter().filter_map(|grant| grant.policy.as_ref()) {
        let fix = "give the tenant an issuer of kind \"federation\" or \"assume-role\", or write prefixes and actions";
        section
            .document()
            .error(&policy.origin, Refusal::new(message, fix));
    }
}

pub(super) fn check_grants_of_one_tenant(section: &Section<'_>, grants: &[ReadGrant]) {
    let mut names: Vec<&str> = Vec::new();
    for name in grants.iter().filter_map(|grant| grant.name.as_ref()) {
        if names.contains(&name.value.as_str()) {
            let message = format!("this tenant has two grants named `{}`", name.value);
            section.document().error(
                &name.origin,
                Refusal::new(message, "give each its own name, or make them one grant"),
            );
        }
        names.push(&name.value);
    }
    let mut buckets = grants.iter().filter_map(|grant| grant.bucket.as_ref());
    let Some(first) = buckets.next() else { return };
    for bucket in buckets {
        if grammar::appid(&bucket.value) != grammar::appid(&first.value) {
            let message = format!(
                "`{}` is in another account (APPID) than `{}`",
                bucket.value, first.value
            );
            let fix = "make two tenants of it: one temporary key cannot cover two accounts";
            section
                .document()
                .error(&bucket.origin, Refusal::new(message, fix));
        }
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
    }
}

/// A prefix and whose it is.
#[derive(Clone, Copy)]
struct Owned<'r> {
    /// Position among tenants, then templates.
    index: usize,
    kind: &'static str,
    name: &'r str,
    prefix: &'r Found<PrefixPattern>,
    shared: bool,
    /// Of a template's prefix: what stands before its first claim, and the claim.
    claim: Option<(&'r str, &'r str)>,
}

impl Owned<'_> {
    /// Whether a common key would be a hole. The subjects of one template are told apart by the
    /// first claim alone: what comes before it must be the same for all.
    fn clashes(&self, other: &Self) -> bool {
        let apart = self.index == other.index && self.claim == other.claim;
        let shared = self.shared && other.shared;
        !(apart || shared)
    }
}

/// Two tenants may touch the same key only when both grants say that they share it. A template's
/// subjects may be anybody, so it touches all that begins as its prefixes do up to the first claim.
fn refuse_overlaps(root: &Section<'_>, read: &[Read], templates: &[ReadTemplate]) {
    let tenants = read.iter().map(|read| {
        let name = read.tenant.name.as_str();
        ("tenant", name, &read.grants)
    });
    let templates = templates.iter().map(|read| {
        let name = read.template.name.as_str();
        ("template", name, &read.grants)
    });
    let mut places: HashMap<(&str, &str), Vec<Owned<'_>>> = HashMap::new();
    for (index, (kind, name, grants)) in tenants.chain(templates).enumerate() {
        for grant in grants {
            let (Some(bucket), Some(region)) = (&grant.bucket, &grant.region) else {
                continue;
            };
            let owned = places.entry((&bucket.value, &region.value)).or_default();
            owned.extend(grant.reach.iter().map(|prefix| Owned {
                index,
                kind,
                name,
                prefix,
                shared: grant.shared,
                claim: templates::head_and_claim(&prefix.value),
            }));
        }
    }
    for ((bucket, _), owned) in places {
        let touched: Vec<_> = owned.iter().map(Owned::touches).collect();
        let patterns = touched.iter().map(|pattern| &**pattern).zip(owned);
        for [(_, one), (_, other)] in prefix::overlaps(patterns.collect(), Owned::clashes) {
            let (owner, later) = if one.index <= other.index {
                (one, other)
            } else {
                (other, one)
            };
            let message = format!(
                "`{}` of the {} `{}` and `{}` of the {} `{}` touch the same keys of {bucket}",
                later.prefix.value,
                later.kind,
                printable(later.name),
                owner.prefix.value,
                owner.kind,
                printable(owner.name),
            );
            let fix = "give each tenant its own prefix, or write shared = true in both grants";
            root.document()
                .error(&later.prefix.origin, Refusal::new(message, fix));
        }
    }
}

impl<'r> Owned<'r> {
    /// All keys that it can be about.
    fn touches(&self) -> Cow<'r, PrefixPattern> {
        match self.claim {
            None => Cow::Borrowed(&self.prefix.value),
            Some(("", _)) => Cow::Owned(PrefixPattern::Any),
            Some((head, _)) => Cow::Owned(PrefixPattern::StartsWith(head.to_owned())),
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

impl ReadGrant {
    pub(super) fn checked(self) -> Option<Grant> {
        Some(Grant {
            name: self.name?.value,
            bucket: self.bucket?.value,
            region: self.region?.value,
            root: self.root,
            prefixes: self.prefixes,
            list_default_prefix: self.list_default_prefix,
            actions: self.actions,
            headers: self.headers,
            policy: self.policy.map(|found| found.value),
            attachment: self.attachment,
        })
    }
}
