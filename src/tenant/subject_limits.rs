//! The limits of a template's tenants: each subject has its own.
//!
//! What is counted of a subject is kept for as long as there is something to count: a request under
//! way, or a rate that is not paid for. After that it is as if the subject had never called, so that
//! nothing is lost when it makes room for others, and nobody gets more by being forgotten.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::limits::Limits;
use super::shared_rate::{RateStore, Sharing};
use crate::config::TenantLimits;

/// Subjects of one template that are counted at once.
const SUBJECTS: usize = 64 * 1024;
/// Between two looks for who has come to rest, when there is no room.
const LOOK_GAP: Duration = Duration::from_millis(100);

/// Limits by the name of their tenant.
pub struct SubjectLimits {
    limits: TenantLimits,
    max: usize,
    /// The store that replicas share rates through.
    store: Option<Arc<dyn RateStore>>,
    table: RwLock<SubjectLimitTable>,
    /// One set of limits for all that find no room: a flood of subjects cannot buy more than that.
    crowd: Arc<Limits>,
}

#[derive(Default)]
struct SubjectLimitTable {
    by_name: HashMap<Box<str>, Arc<Limits>>,
    /// When to look again for who has come to rest.
    look_at: Duration,
}

impl SubjectLimits {
    /// The limits as configured, of this replica alone; `None` when there are none.
    pub(crate) fn new(limits: &TenantLimits) -> Option<Arc<Self>> {
        Self::with_room(SUBJECTS, limits, None)
    }

    /// The same after a reload, of the template that owns `sharing`: what `old` has counted goes on counting.
    pub(super) fn succeeding(
        limits: &TenantLimits,
        old: Option<&Arc<Self>>,
        sharing: Option<Sharing<'_>>,
    ) -> Option<Arc<Self>> {
        let Some(old) = old else {
            return Self::with_room(SUBJECTS, limits, sharing);
        };
        if old.limits == *limits && old.crowd.is_shared_by(sharing) {
            return Some(Arc::clone(old));
        }
        let new = Self::with_room(SUBJECTS, limits, sharing)?;
        let table = old.table.read().unwrap_or_else(PoisonError::into_inner);
        let subjects = table.by_name.iter().filter_map(|(name, old)| {
            let limits = Limits::succeeding(limits, Some(old), new.sharing(name))?;
            Some((name.clone(), limits))
        });
        let subjects = subjects.collect();
        drop(table);
        let mut table = new.table.write().unwrap_or_else(PoisonError::into_inner);
        table.by_name = subjects;
        drop(table);
        Some(new)
    }

    fn with_room(
        max: usize,
        limits: &TenantLimits,
        sharing: Option<Sharing<'_>>,
    ) -> Option<Arc<Self>> {
        let crowd = Limits::sharing(limits, sharing)?;
        Some(Arc::new(Self {
            limits: limits.clone(),
            max,
            store: sharing.map(|sharing| Arc::clone(sharing.store)),
            table: RwLock::default(),
            crowd,
        }))
    }

    /// The limits of the tenant of this name: the same for as long as somebody holds them or owes them
    /// something. `now` is the time since any fixed moment.
    pub(crate) fn of(&self, name: &str, now: Duration) -> Arc<Limits> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(limits) = table.by_name.get(name) {
            return Arc::clone(limits);
        }
        drop(table);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(limits) = table.by_name.get(name) {
            return Arc::clone(limits);
        }
        if table.by_name.len() >= self.max && now >= table.look_at {
            table.look_at = now + LOOK_GAP;
            table
                .by_name
                .retain(|_, limits| Arc::strong_count(limits) > 1 || !limits.is_at_rest(now));
        }
        let has_room = table.by_name.len() < self.max;
        let limits = has_room.then(|| Limits::sharing(&self.limits, self.sharing(name)));
        let Some(limits) = limits.flatten() else {
            return Arc::clone(&self.crowd);
        };
        table.by_name.insert(name.into(), Arc::clone(&limits));
        limits
    }

    /// Where the rates of the subject of this name are shared.
    fn sharing<'a>(&'a self, name: &'a str) -> Option<Sharing<'a>> {
        let store = self.store.as_ref()?;
        Some(Sharing { store, owner: name })
    }
}

impl fmt::Debug for SubjectLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectLimits")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::shared_rate::tests::TestStore;
    use super::*;

    fn subjects(max: usize) -> Arc<SubjectLimits> {
        let limits = TenantLimits {
            requests_per_second: Some(1),
            concurrent_requests: Some(1),
            upload_rate: Some(1_000_000),
            ..TenantLimits::default()
        };
        SubjectLimits::with_room(max, &limits, None).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_subject_has_its_own_for_as_long_as_there_is_something_to_count() {
        let subjects = subjects(2);
        assert!(SubjectLimits::new(&TenantLimits::default()).is_none());
        let alice = subjects.of("web/alice", seconds(1));
        let slot = alice.admit(seconds(1)).unwrap();
        drop(alice);
        assert!(subjects.of("web/bob", seconds(1)).admit(seconds(1)).is_ok());
        // A second later bob has paid, and alice's request goes on: only bob makes room.
        let carol = subjects.of("web/carol", seconds(2));
        assert!(!Arc::ptr_eq(&carol, &subjects.crowd));
        let alice = subjects.of("web/alice", seconds(3));
        assert!(alice.admit(seconds(3)).is_err(), "she has been forgotten");
        drop((slot, alice, carol));
        assert_eq!(subjects.table.read().unwrap().by_name.len(), 2);
    }

    #[test]
    fn replicas_share_one_account_for_each_subject_and_one_for_all_without_room() {
        let limits = TenantLimits {
            requests_per_second: Some(1),
            ..TenantLimits::default()
        };
        let store = Arc::new(TestStore::default());
        let shared = Arc::clone(&store) as Arc<dyn RateStore>;
        let sharing = Sharing {
            store: &shared,
            owner: "web/",
        };
        let subjects = SubjectLimits::with_room(2, &limits, Some(sharing)).unwrap();
        for (name, account) in [
            ("web/alice", "web/alice requests"),
            ("web/bob", "web/bob requests"),
            ("web/carol", "web/ requests"),
        ] {
            let now = seconds(1);
            let taken = subjects.of(name, now).poll_take(now, Waker::noop());
            assert!(taken.is_pending());
            assert_eq!(store.account().as_deref(), Some(account));
            store.respond(now, 1, seconds(1));
            let taken = subjects.of(name, now).poll_take(now, Waker::noop());
            assert!(taken.is_ready());
        }
    }

    #[test]
    fn who_owes_something_is_not_forgotten_and_a_flood_shares_one() {
        let subjects = subjects(2);
        for name in ["web/alice", "web/bob"] {
            assert!(subjects.of(name, seconds(1)).admit(seconds(1)).is_ok());
        }
        for name in ["web/carol", "web/dave"] {
            let limits = subjects.of(name, seconds(1));
            assert!(Arc::ptr_eq(&limits, &subjects.crowd), "{name}");
        }
        for name in ["web/alice", "web/bob"] {
            assert!(subjects.of(name, seconds(1)).admit(seconds(1)).is_err());
        }
        // Bytes that are not paid for count as well.
        let alice = subjects.of("web/alice", seconds(2));
        alice.charge(
            super::super::limits::Direction::Upload,
            seconds(2),
            10_000_000,
        );
        drop(alice);
        let carol = subjects.of("web/carol", seconds(3));
        assert!(!Arc::ptr_eq(&carol, &subjects.crowd), "bob is at rest");
        let table = subjects.table.read().unwrap();
        assert!(table.by_name.contains_key("web/alice"));
        assert!(!table.by_name.contains_key("web/bob"));
    }
}
