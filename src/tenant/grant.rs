//! A grant: the part of the store that a tenant sees as one bucket.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::limits::Limits;
use super::shared_rate::{RateStore, Sharing};
use super::subject_limits::SubjectLimits;
use crate::config::{self, PrefixPattern, SessionPolicy};

pub use crate::config::Grant;

/// A tenant: a name, and what it may touch.
#[derive(Debug)]
pub struct Tenant {
    /// Position in the configuration: the credential cache keeps one entry for each.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its buckets.
    pub grants: Vec<Grant>,
    /// What it may use at most, and how much of that it uses.
    pub limits: Option<Counted>,
}

/// Where it is counted what a tenant uses.
#[derive(Clone, Debug)]
pub enum Counted {
    /// With the tenant itself, of which there is one.
    Alone(Arc<Limits>),
    /// By its name, since a tenant of a template is made anew for each token.
    ByName(Arc<SubjectLimits>),
}

impl Tenant {
    /// The tenant at `index` of the configuration; `old` is what it was before a reload. Replicas share its
    /// rates through `store`.
    pub fn new(
        index: usize,
        tenant: &config::TenantConfig,
        old: Option<&Self>,
        store: Option<&Arc<dyn RateStore>>,
    ) -> Self {
        let counted = match old.and_then(|old| old.limits.as_ref()) {
            Some(Counted::Alone(limits)) => Some(limits),
            Some(Counted::ByName(_)) | None => None,
        };
        let owner = tenant.name.as_str();
        let sharing = store.map(|store| Sharing { store, owner });
        Self {
            index,
            name: tenant.name.clone(),
            grants: tenant.grants.clone(),
            limits: Limits::succeeding(&tenant.limits, counted, sharing).map(Counted::Alone),
        }
    }

    /// Whether nothing limits it: then nobody need read the clock for [`Tenant::limits`].
    pub(crate) fn is_unlimited(&self) -> bool {
        self.limits.is_none()
    }

    /// Its limits; `now` is the time since any fixed moment.
    pub fn limits(&self, now: Duration) -> Option<Arc<Limits>> {
        Some(match self.limits.as_ref()? {
            Counted::Alone(limits) => Arc::clone(limits),
            Counted::ByName(subjects) => subjects.of(&self.name, now),
        })
    }

    /// The grant whose bucket the client calls `alias`; each is unique within a tenant.
    pub fn grant(&self, alias: &str) -> Option<&Grant> {
        self.reached().find(|grant| grant.name == alias)
    }

    /// The grants of which a session has something. The others deny what they deny all the same.
    pub fn reached(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.is_reached())
    }

    /// The same tenant, with no more rights than `policy` allows.
    #[must_use]
    pub fn narrowed(&self, policy: &Arc<SessionPolicy>) -> Self {
        let narrowed = |grant: &Grant| Grant {
            session: Some(Arc::clone(policy)),
            ..grant.clone()
        };
        Self {
            index: self.index,
            name: self.name.clone(),
            grants: self.grants.iter().map(narrowed).collect(),
            limits: self.limits.clone(),
        }
    }

    /// What its session is narrowed to.
    pub fn session_policy(&self) -> Option<&Arc<SessionPolicy>> {
        self.grants.first()?.session.as_ref()
    }

    /// What distinguishes its scope from every other one: its name, and what its session is narrowed to.
    pub fn scope(&self) -> Cow<'_, str> {
        match self.session_policy() {
            Some(policy) => Cow::Owned(format!("{}#{}", self.name, policy.digest())), // no name has a #
            None => Cow::Borrowed(&self.name),
        }
    }
}

impl Grant {
    /// What COS calls a key, prefix or marker of the client's.
    pub(crate) fn upstream_name<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.root.is_empty() {
            return Cow::Borrowed(name);
        }
        Cow::Owned([&self.root, name].concat())
    }

    /// The keys it covers, as COS names them.
    pub(crate) fn upstream_prefixes(&self) -> impl Iterator<Item = PrefixPattern> {
        self.prefixes
            .iter()
            .map(|pattern| pattern.below(&self.root))
    }

    /// Whether it is the whole bucket: no other tenant's keys can be in it.
    pub fn is_all(&self) -> bool {
        self.root.is_empty() && self.prefixes.contains(&PrefixPattern::Any)
    }

    /// Whether `key` is inside, byte by byte: no case folding, no Unicode normalisation.
    pub fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|pattern| pattern.covers(key))
    }

    /// Whether a listing with this `prefix` can show nothing but keys inside.
    ///
    /// An exact key never allows one: a listing with prefix `k` also shows `k2`.
    pub fn covers_list(&self, prefix: &str) -> bool {
        self.prefixes
            .iter()
            .any(|pattern| pattern.covers_list(prefix))
    }

    /// Whether `action` may be done to `key`: what [`Grant::allows`] and [`Grant::covers`] say, the
    /// grant's policy, where it is one, and the session's.
    pub(crate) fn allows_on(&self, action: &str, key: &str) -> bool {
        self.allows_on_version(action, key, false)
    }

    /// The same of a version that the request names, if it `names_version`: only a session distinguishes
    /// who may read or delete old versions.
    pub(crate) fn allows_on_version(&self, action: &str, key: &str, names_version: bool) -> bool {
        let policy = self.policy.as_ref();
        let session = self.session.as_ref();
        self.allows(action)
            && self.covers(key)
            && policy.is_none_or(|policy| policy.allows(action, key))
            && session.is_none_or(|session| session.allows(&self.name, action, key, names_version))
    }

    /// Whether `action` may be done to the bucket itself, which holds for every key of it.
    pub(crate) fn allows_on_bucket(&self, action: &str) -> bool {
        let policy = self.policy.as_ref();
        let session = self.session.as_ref();
        self.is_all()
            && self.allows(action)
            && policy.is_none_or(|policy| policy.allows(action, ""))
            && session.is_none_or(|session| session.allows_bucket(&self.name, action))
    }

    /// Whether `action` may be done to every key of the bucket, with no exception.
    pub(crate) fn allows_everywhere(&self, action: &str) -> bool {
        let session = self.session.as_ref();
        self.is_all()
            && self.allows(action)
            && self.policy.is_none()
            && session.is_none_or(|session| session.leaves_whole(&self.name))
    }

    /// Whether something may be done to `key`, by what the session is narrowed to.
    pub fn reaches(&self, key: &str) -> bool {
        let session = self.session.as_ref();
        self.covers(key) && session.is_none_or(|session| session.reaches_key(&self.name, key))
    }

    /// Whether a session has something of it. A grant that is a policy is given whole or not at all.
    pub fn is_reached(&self) -> bool {
        self.session.as_ref().is_none_or(|session| {
            let is_whole = || session.leaves_whole(&self.name);
            session.reaches(&self.name) && (self.policy.is_none() || is_whole())
        })
    }

    /// Whether `action`, a listing, may have this `prefix`.
    pub(crate) fn allows_list(&self, action: &str, prefix: &str) -> bool {
        let policy = self.policy.as_ref();
        let session = self.session.as_ref();
        self.allows(action)
            && self.covers_list(prefix)
            && policy.is_none_or(|policy| policy.allows_list(action, prefix))
            && session.is_none_or(|session| session.allows_list(&self.name, action, prefix))
    }

    /// The prefixes of listings by `action` that the grant is about.
    pub(crate) fn listable(&self, action: &str) -> Vec<PrefixPattern> {
        let granted: Vec<_> = match &self.policy {
            Some(policy) => policy.lists(action).cloned().collect(),
            None => self.prefixes.clone(),
        };
        let Some(session) = &self.session else {
            return granted;
        };
        let mut both = Vec::new();
        for narrowed in session.listable(&self.name, action) {
            for granted in &granted {
                let inner = [&narrowed, granted].into_iter();
                let mut inner = inner.filter(|p| p.is_within(&narrowed) && p.is_within(granted));
                both.extend(inner.next().cloned());
            }
        }
        both
    }

    /// The actions that may be done to `key`.
    pub(crate) fn actions_on(&self, key: &str) -> Cow<'_, [String]> {
        if self.policy.is_none() && self.session.is_none() {
            return Cow::Borrowed(&self.actions);
        }
        let allowed = self
            .actions
            .iter()
            .filter(|action| self.allows_on(action, key));
        Cow::Owned(allowed.cloned().collect())
    }

    /// Whether `action` (`name/cos:…`) is granted by its full name, and the session is not narrowed to
    /// others. Nothing granted allows nothing.
    pub fn allows(&self, action: &str) -> bool {
        let session = self.session.as_ref();
        self.actions.iter().any(|granted| granted == action)
            && session.is_none_or(|session| session.may_allow(&self.name, action))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(prefixes: &[PrefixPattern], actions: &[&str]) -> Grant {
        Grant {
            name: "photos".into(),
            bucket: "shared-1250000000".into(),
            region: "ap-guangzhou".into(),
            root: String::new(),
            prefixes: prefixes.to_vec(),
            actions: actions.iter().map(ToString::to_string).collect(),
            headers: Vec::new(),
            policy: None,
            attachment: false,
            cors: [].into(),
            session: None,
        }
    }

    fn starts(start: &str) -> PrefixPattern {
        PrefixPattern::StartsWith(start.into())
    }

    #[test]
    fn a_folder_does_not_cover_its_neighbours() {
        let folder = grant(&[starts("acme/")], &[]);

        assert!(folder.covers("acme/x"));
        assert!(folder.covers("acme/"));
        for key in ["acme", "acmes/x", "ACME/x", "\u{ff41}cme/x", "x/acme/x", ""] {
            assert!(!folder.covers(key), "{key}");
        }
        assert!(grant(&[starts("a")], &[]).covers("ab/x"));
    }

    #[test]
    fn normalised_forms_of_a_prefix_are_other_keys() {
        let composed = grant(&[starts("caf\u{e9}/")], &[]);

        assert!(composed.covers("caf\u{e9}/x"));
        assert!(!composed.covers("cafe\u{301}/x"));
    }

    #[test]
    fn an_exact_key_covers_itself_and_no_listing() {
        let one = grant(&[PrefixPattern::Exact("k".into())], &[]);

        assert!(one.covers("k"));
        assert!(!one.covers("k2"));
        assert!(!one.covers_list("k"));
        assert!(!one.covers_list(""));
    }

    #[test]
    fn a_listing_must_start_inside() {
        let folder = grant(&[starts("acme/")], &[]);

        assert!(folder.covers_list("acme/"));
        assert!(folder.covers_list("acme/2026/"));
        for prefix in ["", "a", "acme", "other/"] {
            assert!(!folder.covers_list(prefix), "{prefix}");
        }
        assert!(grant(&[PrefixPattern::Any], &[]).covers_list(""));
    }

    #[test]
    fn a_virtual_buckets_keys_stand_below_its_root() {
        let mut grant = grant(&[PrefixPattern::Any, starts("x/")], &[]);
        assert_eq!(grant.upstream_name("k"), "k");
        grant.root = "acme/".into();
        assert_eq!(grant.upstream_name("k"), "acme/k");
        assert_eq!(grant.upstream_name(""), "acme/");
        let real: Vec<_> = grant.upstream_prefixes().collect();
        assert_eq!(real, [starts("acme/"), starts("acme/x/")]);
    }

    #[test]
    fn nothing_granted_allows_nothing() {
        let empty = grant(&[], &[]);

        assert!(!empty.covers("k"));
        assert!(!empty.covers_list(""));
        assert!(!empty.allows("name/cos:GetObject"));
    }

    #[test]
    fn an_action_is_allowed_by_its_full_name() {
        let reader = grant(&[], &["name/cos:GetObject", "name/cos:Head*"]);

        assert!(reader.allows("name/cos:GetObject"));
        for action in [
            "name/cos:GetObjectTagging",
            "name/cos:HeadObject",
            "name/cos:getobject",
            "GetObject",
        ] {
            assert!(!reader.allows(action), "{action}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever a permitted listing shows is a key that may be requested by name.
        #[test]
        fn a_covered_listing_shows_covered_keys(start in "[ab/]{0,3}", prefix in "[ab/]{0,4}", rest in "[ab/]{0,4}") {
            let grant = grant(&[starts(&start), PrefixPattern::Exact("ab".into())], &[]);
            if grant.covers_list(&prefix) {
                let shown = prefix + &rest;
                prop_assert!(grant.covers(&shown));
            }
        }
    }
}
