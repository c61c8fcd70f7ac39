//! `[[tenants.*.grants]]`, a template's too: each for itself, then those of one tenant together.

use std::sync::Arc;

use super::document::{Found, Origin, printable};
use super::problem::Refusal;
use super::raw_policy::{self, RawPolicy};
use super::section::Section;
use super::{Grant, IssuerKind, PrefixPattern, actions, grammar, prefix, templates};

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

/// A grant as far as it could be read.
pub(super) struct ReadGrant {
    name: Option<Found<String>>,
    pub(super) bucket: Option<Found<String>>,
    pub(super) region: Option<Found<String>>,
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

/// Where the key has no policy inside, nobody would judge the conditions of one.
pub(super) fn refuse_unfenced(
    section: &Section<'_>,
    kind: Option<&IssuerKind>,
    grants: &[ReadGrant],
) {
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
