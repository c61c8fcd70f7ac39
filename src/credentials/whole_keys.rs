//! Keys of whole scopes that are handed out again: one for each tenant, and for the subjects of a template
//! that request them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::credential::Credential;
use super::issue_error::IssueError;
use super::single_flight::SingleFlight;

/// Requests of one tenant, and of one subject of a template, that wait for a key of the whole scope.
const WAITERS: usize = 1024;
const SUBJECT_WAITERS: usize = 64;
/// Subjects of one template whose keys of the whole scope are kept.
const SUBJECTS: usize = 4096;
/// So many of them are examined to find one that makes room.
const EXAMINED: usize = 16;

/// A key to be handed out.
#[derive(Clone, Debug)]
pub struct Vended {
    /// The key.
    pub key: Arc<Credential>,
    /// It is handed out until then: enough of its life must be left.
    pub(super) until: Instant,
}

impl Vended {
    pub(super) fn is_live(&self) -> bool {
        Instant::now() < self.until
    }
}

/// The last key of one tenant's or subject's whole scope.
pub(super) struct WholeKey {
    /// The calls for it.
    pub(super) calls: Arc<SingleFlight<Vended, IssueError>>,
    /// For requests that wait for it.
    pub(super) slots: Semaphore,
}

/// Those of a template's subjects. The first that was not used since makes room.
#[derive(Default)]
pub(super) struct SubjectKeys(std::sync::Mutex<SubjectTable>);

#[derive(Default)]
struct SubjectTable {
    by_name: HashMap<Arc<str>, (Arc<WholeKey>, bool)>,
    order: VecDeque<Arc<str>>,
}

impl WholeKey {
    /// Of a tenant of the configuration.
    pub(super) fn of_tenant() -> Arc<Self> {
        Self::with_room(WAITERS)
    }

    fn with_room(waiters: usize) -> Arc<Self> {
        Arc::new(Self {
            calls: Arc::new(SingleFlight::new()),
            slots: Semaphore::new(waiters),
        })
    }
}

impl SubjectKeys {
    /// The key of the subject of this name; `None` when there is no room for it.
    pub(super) fn of(&self, name: &str) -> Option<Arc<WholeKey>> {
        self.of_limited(name, SUBJECTS)
    }

    fn of_limited(&self, name: &str, max: usize) -> Option<Arc<WholeKey>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((whole, is_used)) = table.by_name.get_mut(name) {
            *is_used = true;
            return Some(Arc::clone(whole));
        }
        if table.by_name.len() >= max && !table.make_room() {
            return None;
        }
        let (name, whole) = (Arc::<str>::from(name), WholeKey::with_room(SUBJECT_WAITERS));
        table.order.push_back(Arc::clone(&name));
        table.by_name.insert(name, (Arc::clone(&whole), false));
        Some(whole)
    }
}

impl SubjectTable {
    /// Evicts one that no request holds: the first that was not used since it was last examined, else
    /// the last of those that are examined. Returns false when there is none.
    fn make_room(&mut self) -> bool {
        for left in (0..EXAMINED).rev() {
            let Some(name) = self.order.pop_front() else {
                return false;
            };
            let spared = self.by_name.get_mut(&name).is_some_and(|(whole, is_used)| {
                let is_held = Arc::strong_count(whole) > 1;
                is_held || (std::mem::take(is_used) && left > 0)
            });
            if !spared {
                self.by_name.remove(&name);
                return true;
            }
            self.order.push_back(name);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evicts_subjects_that_no_request_holds() {
        let keys = SubjectKeys::default();
        let whole = |name: &str| keys.of_limited(name, 3);
        let alice = whole("alice").unwrap();
        for name in ["bob", "carol", "bob"] {
            assert!(whole(name).is_some());
        }
        assert!(whole("dave").is_some(), "carol makes room: she came once");
        let has = |name: &str| keys.0.lock().unwrap().by_name.contains_key(name);
        assert!(has("alice") && has("bob") && has("dave") && !has("carol"));
        let held = ["bob", "dave"].map(|name| whole(name).unwrap());
        assert!(whole("erin").is_none(), "all are held");
        drop((held, alice));
        for number in 0..100 {
            assert!(whole(&format!("new{number}")).is_some());
        }
        let table = keys.0.lock().unwrap();
        assert_eq!((table.by_name.len(), table.order.len()), (3, 3));
    }
}
