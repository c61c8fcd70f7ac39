//! The entries of scopes that are made for requests: one for each tenant of a template that calls.
//!
//! There are no more than so many. Room is made by the least recently used ones, in this order: those
//! that have never had a key, those used once or long ago, those in active use. An entry that a request
//! or a call to STS holds stays. So a flood of new subjects pushes itself out, and not who is at work.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::entry::Entry;

/// Used twice, and within this time, a scope is in active use.
const ACTIVE: Duration = Duration::from_mins(15);
/// This part of the entries at most have never had a key: so many calls to STS may be owed.
const NEW_PART: usize = 8;
/// Even a small table lets so many wait for their first key.
const LEAST_NEW: usize = 16;
/// This part of the entries goes at once when there is no room, so that a look at all is rare.
const EVICTED_PART: usize = 64;

/// Entries by the name of their tenant.
pub(super) struct ScopeTable {
    most: usize,
    slots: RwLock<HashMap<Box<str>, Slot>>,
    new: Arc<Semaphore>,
    start: Instant,
    evicted: AtomicU64,
}

struct Slot {
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
            slots: RwLock::default(),
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
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return Some(slot.take(now));
        }
        drop(slots);
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return Some(slot.take(now));
        }
        if slots.len() >= self.most {
            self.make_room(&mut slots, now, |_| true);
        }
        let mut permit = Arc::clone(&self.new).try_acquire_owned();
        if permit.is_err() {
            self.make_room(&mut slots, now, Entry::is_new);
            permit = Arc::clone(&self.new).try_acquire_owned();
        }
        let permit = permit.ok().filter(|_| slots.len() < self.most)?;
        let slot = Slot {
            entry: Arc::new(make(permit)?),
            used: AtomicU64::new(now),
            used_again: AtomicBool::new(false),
        };
        let entry = Arc::clone(&slot.entry);
        slots.insert(name.into(), slot);
        Some(entry)
    }

    /// What `of` gives, summed over all entries.
    pub(super) fn sum(&self, of: impl Fn(&Entry) -> u64) -> u64 {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.values().map(|slot| of(&slot.entry)).sum()
    }

    /// How many entries there are, and how many have gone to make room.
    pub(super) fn counts(&self) -> (u64, u64) {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        (slots.len() as u64, self.evicted.load(Ordering::Relaxed))
    }

    /// Drops the least worthy of those that nobody holds and `may_go`.
    fn make_room(
        &self,
        slots: &mut RwLockWriteGuard<'_, HashMap<Box<str>, Slot>>,
        now: u64,
        may_go: impl Fn(&Entry) -> bool,
    ) {
        let mut idle: Vec<_> = slots
            .iter()
            .filter(|(_, slot)| Arc::strong_count(&slot.entry) == 1 && may_go(&slot.entry))
            .map(|(name, slot)| (slot.worth(now), name.clone()))
            .collect();
        let going = (self.most / EVICTED_PART).max(1);
        if going < idle.len() {
            idle.select_nth_unstable(going);
        }
        idle.truncate(going);
        for (_, name) in &idle {
            slots.remove(name);
        }
        self.evicted.fetch_add(idle.len() as u64, Ordering::Relaxed);
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Slot {
    fn take(&self, now: u64) -> Arc<Entry> {
        self.used.fetch_max(now, Ordering::Relaxed);
        if !self.used_again.load(Ordering::Relaxed) {
            self.used_again.store(true, Ordering::Relaxed);
        }
        Arc::clone(&self.entry)
    }

    /// The least goes first.
    fn worth(&self, now: u64) -> (u8, u64) {
        let used = self.used.load(Ordering::Relaxed);
        let lately = Duration::from_nanos(now.saturating_sub(used)) < ACTIVE;
        let rank = match self.entry.is_new() {
            true => 0,
            false if lately && self.used_again.load(Ordering::Relaxed) => 2,
            false => 1,
        };
        (rank, used)
    }
}

impl fmt::Debug for ScopeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeTable")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}
