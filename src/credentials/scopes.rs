//! Bounded table of the entries of scopes that are made for requests: one for each tenant of a template
//! that sends requests.
//!
//! A new entry evicts one that has never had a key, or else one that was used once or long ago, or else
//! one in active use. An entry that a request or a call to STS holds stays. So a flood of new subjects
//! evicts its own entries, and not those of active subjects. Each new scope examines a few others only,
//! in the order of a clock's hand, so that no request waits for a scan of the table.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::entry::Entry;

/// Used twice, and within this time, a scope is in active use.
const ACTIVE: Duration = Duration::from_mins(15);
/// The largest part of the entries that have never had a key: each of them may need a call to STS.
const NEW_PART: usize = 8;
/// Even in a small table so many can wait for their first key.
const LEAST_NEW: usize = 16;
/// So many entries are examined to make room for one.
const EXAMINED: usize = 64;
/// With each new entry, so many others are examined whether they have had a key since. That is more than
/// one, so that few of those that have had a key stay among the new ones.
const SORTED_AT_ONCE: usize = 4;

/// Entries by the name of their tenant.
pub(super) struct ScopeTable {
    most: usize,
    table: RwLock<ScopeQueues>,
    new: Arc<Semaphore>,
    start: Instant,
    evicted: AtomicU64,
}

/// Each name stands in one of the two queues.
#[derive(Default)]
struct ScopeQueues {
    slots: HashMap<Arc<str>, ScopeSlot>,
    /// Those that had no key when they were last examined.
    new: VecDeque<Arc<str>>,
    /// The others.
    kept: VecDeque<Arc<str>>,
}

struct ScopeSlot {
    entry: Arc<Entry>,
    /// Nanoseconds from the table's start to the last use.
    used: AtomicU64,
    used_again: AtomicBool,
}

impl ScopeTable {
    pub(super) fn new(most: usize) -> Self {
        let new = (most / NEW_PART).max(LEAST_NEW).min(most);
        Self {
            most,
            table: RwLock::default(),
            new: Arc::new(Semaphore::new(new.min(Semaphore::MAX_PERMITS))),
            start: Instant::now(),
            evicted: AtomicU64::new(0),
        }
    }

    /// The entry of `name`, which `make` makes when there is none: it keeps the permit for as long as
    /// it has had no key. `None` when there is no room.
    pub(super) fn entry(
        &self,
        name: &str,
        make: impl FnOnce(OwnedSemaphorePermit) -> Option<Entry>,
    ) -> Option<Arc<Entry>> {
        let now = self.nanos();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = table.slots.get(name) {
            return Some(slot.take(now));
        }
        drop(table);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = table.slots.get(name) {
            return Some(slot.take(now));
        }
        table.sort();
        let mut evicted = 0;
        if table.slots.len() >= self.most {
            evicted += u64::from(table.evict_new() || table.evict_kept(now));
        }
        let mut permit = Arc::clone(&self.new).try_acquire_owned();
        if permit.is_err() {
            evicted += u64::from(table.evict_new());
            permit = Arc::clone(&self.new).try_acquire_owned();
        }
        self.evicted.fetch_add(evicted, Ordering::Relaxed);
        let permit = permit.ok().filter(|_| table.slots.len() < self.most)?;
        let slot = ScopeSlot {
            entry: Arc::new(make(permit)?),
            used: AtomicU64::new(now),
            used_again: AtomicBool::new(false),
        };
        let (name, entry) = (Arc::<str>::from(name), Arc::clone(&slot.entry));
        table.new.push_back(Arc::clone(&name));
        table.slots.insert(name, slot);
        Some(entry)
    }

    /// A table for `most` entries after a reload, with what `keep` makes of those that have had a key.
    pub(super) fn succeeded(
        &self,
        most: usize,
        keep: impl Fn(&Arc<Entry>) -> Option<Arc<Entry>>,
    ) -> Self {
        let mut new = Self::new(most);
        new.start = self.start;
        *new.evicted.get_mut() = self.evicted.load(Ordering::Relaxed);
        let queues = new.table.get_mut().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        for name in table.kept.iter().chain(&table.new) {
            let slot = table.slots.get(name).filter(|slot| !slot.entry.is_new());
            let Some((slot, entry)) = slot.and_then(|slot| Some((slot, keep(&slot.entry)?))) else {
                continue;
            };
            if queues.slots.len() >= most {
                break;
            }
            let slot = ScopeSlot {
                entry,
                used: AtomicU64::new(slot.used.load(Ordering::Relaxed)),
                used_again: AtomicBool::new(slot.used_again.load(Ordering::Relaxed)),
            };
            queues.kept.push_back(Arc::clone(name));
            queues.slots.insert(Arc::clone(name), slot);
        }
        drop(table);
        new
    }

    /// What `of` gives, summed over all entries.
    pub(super) fn sum(&self, of: impl Fn(&Entry) -> u64) -> u64 {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.slots.values().map(|slot| of(&slot.entry)).sum()
    }

    /// How many entries there are, and how many have gone to make room.
    pub(super) fn counts(&self) -> (u64, u64) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        (
            table.slots.len() as u64,
            self.evicted.load(Ordering::Relaxed),
        )
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl ScopeQueues {
    /// Looks which of the first new ones have had a key by now.
    fn sort(&mut self) {
        for _ in 0..SORTED_AT_ONCE.min(self.new.len()) {
            self.turn_new();
        }
    }

    /// Moves the first new one to the end of its queue. Returns it if it can be evicted.
    fn turn_new(&mut self) -> Option<&Arc<str>> {
        let name = self.new.pop_front()?;
        let slot = self.slots.get(&name)?;
        if !slot.entry.is_new() {
            self.kept.push_back(name);
            return None;
        }
        let is_idle = slot.is_idle();
        self.new.push_back(name);
        self.new.back().filter(|_| is_idle)
    }

    /// Evicts a new one that no request holds, if one is found.
    fn evict_new(&mut self) -> bool {
        for _ in 0..EXAMINED.min(self.new.len()) {
            if self.turn_new().is_some()
                && let Some(name) = self.new.pop_back()
            {
                self.slots.remove(&name);
                return true;
            }
        }
        false
    }

    /// Evicts the least used of the first ones that no request holds.
    fn evict_kept(&mut self, now: u64) -> bool {
        let mut least: Option<((bool, u64), usize)> = None;
        for (index, name) in self.kept.iter().take(EXAMINED).enumerate() {
            if let Some(slot) = self.slots.get(name).filter(|slot| slot.is_idle()) {
                let worth = slot.worth(now);
                if least.is_none_or(|(least, _)| worth < least) {
                    least = Some((worth, index));
                }
                if !worth.0 {
                    break; // not in active use: good enough
                }
            }
        }
        let examined = EXAMINED.min(self.kept.len());
        let gone = least.and_then(|(_, index)| self.kept.remove(index));
        if let Some(name) = &gone {
            self.slots.remove(name);
        }
        // Another part is examined the next time.
        let passed = least.map_or(
            examined,
            |((is_active, _), index)| {
                if is_active { examined - 1 } else { index }
            },
        );
        self.kept.rotate_left(passed.min(self.kept.len()));
        gone.is_some()
    }
}

impl ScopeSlot {
    fn take(&self, now: u64) -> Arc<Entry> {
        self.used.fetch_max(now, Ordering::Relaxed);
        if !self.used_again.load(Ordering::Relaxed) {
            self.used_again.store(true, Ordering::Relaxed);
        }
        Arc::clone(&self.entry)
    }

    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.entry) == 1
    }

    /// The least goes first: whether it is in active use, and when it was used.
    fn worth(&self, now: u64) -> (bool, u64) {
        let used = self.used.load(Ordering::Relaxed);
        let lately = Duration::from_nanos(now.saturating_sub(used)) < ACTIVE;
        (lately && self.used_again.load(Ordering::Relaxed), used)
    }
}

impl fmt::Debug for ScopeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeTable")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use tokio::sync::mpsc;

    use super::super::backlog::Backlog;
    use super::super::breaker::Breaker;
    use super::super::credential::Credential;
    use super::super::entry::{KeyScope, KeySource};
    use super::*;
    use crate::config::CallRate;
    use crate::secret::Secret;

    fn scope() -> KeyScope {
        KeyScope {
            tenant: "web/alice".into(),
            policy: "{}".into(),
            issuer: 0,
        }
    }

    /// One that has a key.
    fn kept() -> Entry {
        let key = Credential::new("AKID".into(), Secret::new("KEY"), None, None).unwrap();
        Entry::permanent(scope(), key, Arc::default())
    }

    fn new(permit: OwnedSemaphorePermit) -> Entry {
        let rate = CallRate {
            per_second: 1,
            burst: 1,
        };
        let source = KeySource {
            requests: mpsc::unbounded_channel().0,
            breaker: Arc::new(Breaker::new()),
            backlog: Arc::new(Backlog::new("main", rate)),
        };
        Entry::new(scope(), source, Duration::ZERO, Arc::default()).with_permit(permit)
    }

    fn names(range: Range<usize>) -> impl Iterator<Item = String> {
        range.map(|number| format!("web/{number}"))
    }

    /// A full table of entries that have keys and are in active use.
    fn full(most: usize) -> ScopeTable {
        let table = ScopeTable::new(most);
        for name in names(0..most).chain(names(0..most)) {
            assert!(table.entry(&name, |_| Some(kept())).is_some());
        }
        table
    }

    fn has(table: &ScopeTable, name: &str) -> bool {
        table.table.read().unwrap().slots.contains_key(name)
    }

    #[tokio::test]
    async fn examines_a_few_entries_to_make_room() {
        let table = full(1000);
        // The least worthy of all is far from the hand.
        let queues = table.table.read().unwrap();
        queues.slots["web/500"]
            .used_again
            .store(false, Ordering::Relaxed);
        drop(queues);
        assert!(table.entry("web/new", |_| Some(kept())).is_some());
        assert!(has(&table, "web/500") && table.counts() == (1000, 1));
        let gone: Vec<_> = names(0..1000).filter(|name| !has(&table, name)).collect();
        let [gone] = &gone[..] else {
            panic!("{gone:?}")
        };
        assert!(names(0..EXAMINED + SORTED_AT_ONCE).any(|name| name == *gone));
        // The hand comes to it all the same.
        for name in names(2000..2020) {
            assert!(table.entry(&name, |_| Some(kept())).is_some());
        }
        assert!(!has(&table, "web/500") && table.counts() == (1000, 21));
    }

    #[tokio::test]
    async fn evicts_new_entries_first_and_held_ones_never() {
        let table = full(1000);
        let held = table.entry("web/0", |_| None).unwrap();
        let mut waits = Vec::new();
        for name in names(5000..5010) {
            waits.push(table.entry(&name, |permit| Some(new(permit))).unwrap());
        }
        // A flood pushes itself out, and nobody else but those that the first of it replaced.
        let there = |name: &String| has(&table, name);
        let before: Vec<_> = names(0..1000).filter(there).collect();
        for name in names(10_000..20_000) {
            assert!(table.entry(&name, |permit| Some(new(permit))).is_some());
        }
        let after: Vec<_> = names(0..1000).filter(there).collect();
        assert!(before.len() - after.len() <= 1, "{}", after.len());
        assert!(names(5000..5010).all(|name| has(&table, &name)));
        assert!(has(&table, "web/0") && table.counts().0 == 1000);
        let queues = table.table.read().unwrap();
        assert_eq!(queues.new.len() + queues.kept.len(), queues.slots.len());
        drop((held, waits));
    }

    #[tokio::test]
    async fn limits_entries_without_a_key() {
        let table = ScopeTable::new(200);
        let enter = |name: &str| table.entry(name, |permit| Some(new(permit)));
        let held: Vec<_> = names(0..25).map(|name| enter(&name).unwrap()).collect();
        assert!(enter("web/more").is_none(), "an eighth of the table");
        drop(held);
        assert!(enter("web/more").is_some() && table.counts() == (25, 1));
    }
}
