//! `[[tenants.*.grants]]`, a template's too: each for itself, then those of one tenant together.

use std::sync::Arc;

use super::cors::{self, CorsRule};
use super::file::{Located, Origin};
use super::model::{Grant, IssuerKind};
use super::prefix::PrefixPattern;
use super::problem::{Mistake, printable};
use super::raw_policy::{self, RawPolicy};
use super::section::Section;
use super::{actions, claims, grammar, prefix, regions};

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
    name: Option<Located<String>>,
    pub(super) bucket: Option<Located<String>>,
    pub(super) region: Option<Located<String>>,
    root: String,
    prefixes: Vec<PrefixPattern>,
    /// The prefixes in the real bucket.
    pub(super) reach: Vec<Located<PrefixPattern>>,
    actions: Vec<String>,
    headers: Vec<String>,
    pub(super) policy: Option<Located<Arc<RawPolicy>>>,
    attachment: bool,
    pub(super) cors: Arc<[CorsRule]>,
    pub(super) shared: bool,
}

pub(super) fn grant(section: Section<'_>) -> ReadGrant {
    let name = section.required("name", grammar::alias);
    let bucket = section.required("bucket", grammar::bucket);
    let region = section.required("region", grammar::region);
    if let Some(region) = &region {
        regions::warn_of_unknown(&section, "region", region);
    }
    let keys = keys(&section, bucket.as_ref(), region.as_ref());
    let actions = match &keys.policy {
        Some(policy) => policy.value.actions(),
        None if section.has("policy") => Vec::new(),
        None => actions(&section, keys.are_whole()),
    };
    list_default_prefix(&section);
    let read = ReadGrant {
        name,
        bucket,
        region,
        reach: keys.reach(),
        root: keys.root.unwrap_or_default(),
        prefixes: keys.prefixes.into_iter().map(|found| found.value).collect(),
        actions,
        headers: headers(&section),
        policy: keys.policy,
        attachment: section.flag("attachment").value,
        cors: cors::rules(&section),
        shared: section.flag("shared").value,
    };
    section.finish();
    read
}

/// The keys that a grant is about.
struct GrantedKeys {
    policy: Option<Located<Arc<RawPolicy>>>,
    /// `None`: it could not be read, so nobody knows what the grant would touch.
    root: Option<String>,
    /// Below the root.
    prefixes: Vec<Located<PrefixPattern>>,
}

impl GrantedKeys {
    /// Whether they are all keys of the real bucket.
    fn are_whole(&self) -> bool {
        let is_any = |found: &Located<PrefixPattern>| found.value == PrefixPattern::Any;
        self.root.as_deref() == Some("") && self.prefixes.iter().any(is_any)
    }

    /// The prefixes in the real bucket.
    fn reach(&self) -> Vec<Located<PrefixPattern>> {
        let Some(root) = &self.root else {
            return Vec::new();
        };
        let below = |found: &Located<PrefixPattern>| Located {
            value: found.value.below(root),
            origin: found.origin.clone(),
        };
        self.prefixes.iter().map(below).collect()
    }
}

/// `policy`, or `root` and `prefixes`.
fn keys(
    section: &Section<'_>,
    bucket: Option<&Located<String>>,
    region: Option<&Located<String>>,
) -> GrantedKeys {
    if section.has("policy") {
        let policy = raw_policy(section, bucket, region);
        let reach = policy.iter().flat_map(|policy| policy.value.reach());
        let origin = section.position_of("policy");
        let found = reach.zip(origin.into_iter().cycle());
        let prefixes = found.map(|(value, origin)| Located { value, origin });
        return GrantedKeys {
            prefixes: prefixes.collect(),
            root: Some(String::new()),
            policy,
        };
    }
    let root_origin = section.position_of("root");
    let root = match root_origin {
        None => Some(String::new()),
        Some(_) => section
            .parsed("root", prefix::root)
            .map(|found| found.value),
    };
    let below = root.as_deref().unwrap_or_default();
    GrantedKeys {
        policy: None,
        prefixes: prefixes(section, root_origin.as_ref(), below),
        root,
    }
}

fn headers(section: &Section<'_>) -> Vec<String> {
    let mut headers = Vec::new();
    for text in section.texts("headers") {
        headers.extend(section.check("headers", &text.origin, grantable_header(text.value)));
    }
    headers.sort_unstable();
    headers.dedup();
    headers
}

/// `policy`, which says all that `prefixes`, `actions` and `root` would say.
fn raw_policy(
    section: &Section<'_>,
    bucket: Option<&Located<String>>,
    region: Option<&Located<String>>,
) -> Option<Located<Arc<RawPolicy>>> {
    let origin = section.position_of("policy")?;
    for other in ["prefixes", "actions", "root"] {
        if let Some(origin) = section.position_of(other) {
            let message = format!("`{other}` and `policy` exclude each other");
            section.error(&origin, message, format!("remove `{other}`"));
        }
    }
    let policy = raw_policy::read(section, &bucket?.value, &region?.value)?;
    Some(Located {
        value: Arc::new(policy),
        origin,
    })
}

/// `prefixes`, which a grant with a root need not have: all below it is its own.
fn prefixes(
    section: &Section<'_>,
    root_at: Option<&Origin>,
    root: &str,
) -> Vec<Located<PrefixPattern>> {
    if let (Some(origin), false) = (root_at, section.has("prefixes")) {
        return vec![Located {
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
        for doubt in doubts.filter(|_| claims::head_and_claim(&pattern).is_none()) {
            section.warning(&text.origin, doubt.message, doubt.fix);
        }
        prefixes.push(Located {
            value: pattern,
            origin: text.origin,
        });
    }
    section.refuse_empty(
        "prefixes",
        "the grant",
        "[\"*\"] for every key, or [\"folder/*\"]",
    );
    prefixes
}

/// `list_default_prefix`, from before listings of an ancestor showed the way to what may be listed.
fn list_default_prefix(section: &Section<'_>) {
    let flag = section.flag("list_default_prefix");
    if section.has("list_default_prefix") {
        section.warning(
            &flag.origin,
            "`list_default_prefix` has no effect any more: a listing without a prefix shows what the tenant may list",
            "remove it",
        );
    }
}

/// `actions`, presets unfolded. What is configured holds for the whole of a bucket, so no grant of a part of
/// it can change or read it.
fn actions(section: &Section<'_>, is_whole: bool) -> Vec<String> {
    let mut actions = Vec::new();
    for text in section.texts("actions") {
        if !is_whole && actions::is_of_whole_buckets(text.value) {
            let message = format!(
                "`{}` has no effect: it is about a whole bucket, and the grant is about a part of one",
                printable(text.value)
            );
            let fix = "remove it, or grant prefixes = [\"*\"] without a root";
            section.warning(&text.origin, message, fix);
        }
        let unfolded = section.check("actions", &text.origin, actions::unfold(text.value));
        actions.extend(unfolded.into_iter().flatten());
    }
    actions.sort_unstable();
    actions.dedup();
    section.refuse_empty("actions", "the grant", "[\"read\", \"write\", \"list\"]");
    actions
}

fn grantable_header(text: &str) -> Result<String, Mistake> {
    let name = grammar::header(text)?;
    if RESERVED_HEADERS.contains(&name.as_str()) {
        return Err(Mistake::new(
            format!("`{name}` cannot be granted: cosgate sets it itself"),
            "remove it",
        ));
    }
    Ok(name)
}

impl ReadGrant {
    pub(super) fn checked(self) -> Option<Grant> {
        Some(Grant {
            name: self.name?.value,
            bucket: self.bucket?.value,
            region: self.region?.value,
            root: self.root,
            prefixes: self.prefixes,
            actions: self.actions,
            headers: self.headers,
            policy: self.policy.map(|found| found.value),
            attachment: self.attachment,
            cors: self.cors,
            session: None,
        })
    }
}

pub(super) fn no_grants(section: &Section<'_>, what: &str, table: &str, name: &str) {
    let message = format!(
        "the {what} `{}` has no grants: it can do nothing",
        printable(name)
    );
    let fix = format!("add [[{table}.{}.grants]]", printable(name));
    section.error(&section.origin(), message, fix);
}

pub(super) fn check_grants_of_one_tenant(section: &Section<'_>, grants: &[ReadGrant]) {
    let mut names: Vec<&str> = Vec::new();
    for name in grants.iter().filter_map(|grant| grant.name.as_ref()) {
        if names.contains(&name.value.as_str()) {
            let message = format!("this tenant has two grants named `{}`", name.value);
            section.error(
                &name.origin,
                message,
                "give each its own name, or write one grant",
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
            let fix = "write two tenants: one temporary key cannot cover two accounts";
            section.error(&bucket.origin, message, fix);
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
        section.error(&policy.origin, message, fix);
    }
}
