//! What a tenant sees as one bucket.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::limits::Limits;
use super::subject_limits::SubjectLimits;
use crate::config::{self, PrefixPattern};

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
    /// The tenant at `index` of the configuration.
    pub fn new(index: usize, tenant: &config::TenantConfig) -> Self {
        Self {
            index,
            name: tenant.name.clone(),
            grants: tenant.grants.clone(),
            limits: Limits::new(&tenant.limits).map(Counted::Alone),
        }
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
        self.grants.iter().find(|grant| grant.name == alias)
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

    /// Whether `action` may be done to `key`: what [`Grant::allows`] and [`Grant::covers`] say, and the
    /// grant's policy, where it is one.
    pub(crate) fn allows_on(&self, action: &str, key: &str) -> bool {
        let policy = self.policy.as_ref();
        self.allows(action)
            && self.covers(key)
            && policy.is_none_or(|policy| policy.allows(action, key))
    }

    /// Whether `action`, a listing, may have this `prefix`.
    pub(crate) fn allows_list(&self, action: &str, prefix: &str) -> bool {
        let policy = self.policy.as_ref();
        self.allows(action)
            && self.covers_list(prefix)
            && policy.is_none_or(|policy| policy.allows_list(action, prefix))
    }

    /// The prefixes of listings by `action` that the grant is about.
    pub(crate) fn listable(&self, action: &str) -> Vec<&PrefixPattern> {
        match &self.policy {
            Some(policy) => policy.lists(action).collect(),
            None => self.prefixes.iter().collect(),
        }
    }

    /// The actions that may be done to `key`.
    pub(crate) fn actions_on(&self, key: &str) -> Cow<'_, [String]> {
        if self.policy.is_none() {
            return Cow::Borrowed(&self.actions);
        }
        let allowed = self
            .actions
            .iter()
            .filter(|action| self.allows_on(action, key));
        Cow::Owned(allowed.cloned().collect())
    }

    /// Whether `action` (`name/cos:…`) is granted by its full name. Nothing granted allows nothing.
    pub fn allows(&self, action: &str) -> bool {
        self.actions.iter().any(|granted| granted == action)
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

        /// Whatever a permitted listing shows is a key that may be asked for by name.
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
