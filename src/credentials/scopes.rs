//! Bounded table of the entries of scopes that are made for requests: one for each tenant of a template
//! that sends requests.
//!
//! A new entry evicts one that has never had a key, or else one that was used once or long ago, or else
//! one in active use. An entry that a request or a call to STS holds stays. So a flood of new subjects
//! evicts its own entries, and not those of active subjects. Each new scope examines a few others only,
//! in the order of a clock's hand, so that no request waits for a scan of the table.
//!
//! Sessions with a policy of their own are scopes too, and their tenant makes as many as it likes. So each tenant
//! has room for some of them only: beyond that its own make room for each other.

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
/// With each new entry, so many others of each queue are examined: whether they have had a key since, and
/// whether they are there at all. That is more than one, so that few stay where they do not belong.
const SORTED_AT_ONCE: usize = 4;

/// Entries by the name of their tenant.
pub(super) struct ScopeTable {
    room: Room,
    table: RwLock<ScopeQueues>,
    new: Arc<Semaphore>,
    start: Instant,
    evicted: AtomicU64,
}

/// How many entries a table may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// In all.
    pub(super) entries: usize,
    /// Of them, sessions of one tenant that have a policy of their own.
    pub(super) sessions_of_one: usize,
}

/// Each name stands in one of the two queues, and that of a session also in its tenant's. A name that is
/// evicted by another queue goes when it is next examined: it is not the one that the table has.
#[derive(Default)]
struct ScopeQueues {
    slots: HashMap<Arc<str>, ScopeSlot>,
    /// Those that had no key when they were last examined.
    new: VecDeque<Arc<str>>,
    /// The others.
    kept: VecDeque<Arc<str>>,
    /// By the name of the tenant.
    sessions: HashMap<Arc<str>, SessionScopes>,
}

/// The sessions of one tenant that have a policy of their own.
#[derive(Default)]
struct SessionScopes {
    count: usize,
    names: VecDeque<Arc<str>>,
}

struct ScopeSlot {
    entry: Arc<Entry>,
    /// Whose session it is.
    session_of: Option<Arc<str>>,
    /// Nanoseconds from the table's start to the last use.
    used: AtomicU64,
    used_again: AtomicBool,
}

impl ScopeTable {
    pub(super) fn new(room: Room) -> Self {
        let new = (room.entries / NEW_PART).max(LEAST_NEW).min(room.entries);
        Self {
            room,
            table: RwLock::default(),
            new: Arc::new(Semaphore::new(new.min(Semaphore::MAX_PERMITS))),
            start: Instant::now(),
            evicted: AtomicU64::new(0),
        }
    }

    /// The entry of `name`, which `make` makes when there is none: it keeps the permit for as long as
    /// it has had no key. `session_of` is the tenant of a session that has a policy. `None` when there is no
    /// room.
    pub(super) fn entry(
        &self,
        name: &str,
        session_of: Option<&str>,
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
        table.sort_sessions(session_of, now);
        let mut evicted = 0;
        if let Some(tenant) = session_of
            && table.sessions_of(tenant) >= self.room.sessions_of_one
        {
            if !table.evict_session(tenant, now) {
                return None;
            }
            evicted += 1;
        }
        if table.slots.len() >= self.room.entries {
            evicted += u64::from(table.evict_new() || table.evict_kept(now));
        }
        let mut permit = Arc::clone(&self.new).try_acquire_owned();
        if permit.is_err() {
            evicted += u64::from(table.evict_new());
            permit = Arc::clone(&self.new).try_acquire_owned();
        }
        self.evicted.fetch_add(evicted, Ordering::Relaxed);
        let has_room = table.slots.len() < self.room.entries;
        let permit = permit.ok().filter(|_| has_room)?;
        let slot = ScopeSlot {
            entry: Arc::new(make(permit)?),
            session_of: session_of.map(Arc::from),
            used: AtomicU64::new(now),
            used_again: AtomicBool::new(false),
        };
        let (name, entry) = (Arc::<str>::from(name), Arc::clone(&slot.entry));
        table.new.push_back(Arc::clone(&name));
        table.insert(name, slot);
        Some(entry)
    }

    /// A table with this room after a reload, with what `keep` makes of those that have had a key.
    pub(super) fn succeeded(
        &self,
        room: Room,
        keep: impl Fn(&Arc<Entry>) -> Option<Arc<Entry>>,
    ) -> Self {
        let mut new = Self::new(room);
        new.start = self.start;
        *new.evicted.get_mut() = self.evicted.load(Ordering::Relaxed);
        let queues = new.table.get_mut().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        for name in table.kept.iter().chain(&table.new) {
            let slot = table.slot(name).filter(|slot| !slot.entry.is_new());
            let Some((slot, entry)) = slot.and_then(|slot| Some((slot, keep(&slot.entry)?))) else {
                continue;
            };
            if queues.slots.len() >= room.entries {
                break;
            }
            let tenant = slot.session_of.as_deref();
            if tenant.is_some_and(|tenant| queues.sessions_of(tenant) >= room.sessions_of_one) {
                continue;
            }
            let slot = ScopeSlot {
                entry,
                session_of: slot.session_of.clone(),
                used: AtomicU64::new(slot.used.load(Ordering::Relaxed)),
                used_again: AtomicBool::new(slot.used_again.load(Ordering::Relaxed)),
            };
            queues.kept.push_back(Arc::clone(name));
            queues.insert(Arc::clone(name), slot);
        }
        drop(table);
        new
    }

    /// What `of` gives, summed over all entries.
    pub(super) fn sum(&self, of: impl Fn(&Entry) -> u64) -> u64 {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.slots.values().map(|slot| of(&slot.entry)).sum()
    }

    /// Shows each entry with its name. Nobody can make another meanwhile.
    pub(super) fn each(&self, mut show: impl FnMut(&str, &Arc<Entry>)) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        for (name, slot) in &table.slots {
            show(name, &slot.entry);
        }
    }

    /// The entry of this name, if there is one. That is no use of it.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.slots.get(name).map(|slot| Arc::clone(&slot.entry))
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
    /// The slot of a name in a queue; `None` if it has been evicted by now.
    fn slot(&self, name: &Arc<str>) -> Option<&ScopeSlot> {
        let (known, slot) = self.slots.get_key_value(name)?;
        Arc::ptr_eq(known, name).then_some(slot)
    }

    /// Takes in what its queue has already.
    fn insert(&mut self, name: Arc<str>, slot: ScopeSlot) {
        if let Some(tenant) = &slot.session_of {
            let own = self.sessions.entry(Arc::clone(tenant)).or_default();
            own.count += 1;
            own.names.push_back(Arc::clone(&name));
        }
        self.slots.insert(name, slot);
    }

    fn remove(&mut self, name: &str) {
        let removed = self.slots.remove(name);
        let Some(tenant) = removed.and_then(|slot| slot.session_of) else {
            return;
        };
        if let Some(own) = self.sessions.get_mut(&tenant) {
            own.count = own.count.saturating_sub(1);
            if own.count == 0 {
                self.sessions.remove(&tenant);
            }
        }
    }

    fn sessions_of(&self, tenant: &str) -> usize {
        self.sessions.get(tenant).map_or(0, |own| own.count)
    }

    /// Looks which of the first new ones have had a key by now, and which of the first others are gone.
    fn sort(&mut self) {
        for _ in 0..SORTED_AT_ONCE.min(self.new.len()) {
            self.turn_new();
        }
        for _ in 0..SORTED_AT_ONCE.min(self.kept.len()) {
            let first = self.kept.pop_front();
            self.kept
                .extend(first.filter(|name| self.slot(name).is_some()));
        }
    }

    /// Looks which of a tenant's first sessions are gone.
    fn sort_sessions(&mut self, tenant: Option<&str>, now: u64) {
        let own = tenant.and_then(|tenant| Some((tenant, self.sessions.get(tenant)?.names.len())));
        if let Some((tenant, there)) = own {
            for _ in 0..SORTED_AT_ONCE.min(there) {
                self.turn_session(tenant, now);
            }
        }
    }

    /// Moves the first of a tenant's sessions to the end of its queue. Returns it and how it was used, if it
    /// can be evicted.
    fn turn_session(&mut self, tenant: &str, now: u64) -> Option<(Arc<str>, (bool, u64))> {
        let name = self.sessions.get_mut(tenant)?.names.pop_front()?;
        let slot = self.slot(&name)?;
        let worth = if slot.entry.is_new() {
            (false, 0)
        } else {
            slot.worth(now)
        };
        let is_idle = slot.is_idle();
        let own = self.sessions.get_mut(tenant)?;
        own.names.push_back(Arc::clone(&name));
        is_idle.then_some((name, worth))
    }

    /// Evicts the least used of a tenant's first sessions that no request holds.
    fn evict_session(&mut self, tenant: &str, now: u64) -> bool {
        let there = self.sessions.get(tenant).map_or(0, |own| own.names.len());
        let mut least: Option<(Arc<str>, (bool, u64))> = None;
        for _ in 0..EXAMINED.min(there) {
            let Some((name, worth)) = self.turn_session(tenant, now) else {
                continue;
            };
            if least.as_ref().is_none_or(|(_, least)| worth < *least) {
                least = Some((name, worth));
            }
            if !worth.0 {
                break; // not in active use: good enough
            }
        }
        let gone = least.map(|(name, _)| self.remove(&name));
        gone.is_some()
    }

    /// Moves the first new one to the end of its queue. Returns it if it can be evicted.
    fn turn_new(&mut self) -> Option<&Arc<str>> {
        let name = self.new.pop_front()?;
        let slot = self.slot(&name)?;
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
                self.remove(&name);
                return true;
            }
        }
        false
    }

    /// Evicts the least used of the first ones that no request holds.
    fn evict_kept(&mut self, now: u64) -> bool {
        let mut least: Option<((bool, u64), usize)> = None;
        for (index, name) in self.kept.iter().take(EXAMINED).enumerate() {
            if let Some(slot) = self.slot(name).filter(|slot| slot.is_idle()) {
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
            self.remove(name);
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
            .field("room", &self.room)
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

    fn room(entries: usize) -> Room {
        Room {
            entries,
            sessions_of_one: 20,
        }
    }

    fn names(range: Range<usize>) -> impl Iterator<Item = String> {
        range.map(|number| format!("web/{number}"))
    }

    /// A full table of entries that have keys and are in active use.
    fn full(max: usize) -> ScopeTable {
        let table = ScopeTable::new(room(max));
        for name in names(0..max).chain(names(0..max)) {
            assert!(table.entry(&name, None, |_| Some(kept())).is_some());
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
        assert!(table.entry("web/new", None, |_| Some(kept())).is_some());
        assert!(has(&table, "web/500") && table.counts() == (1000, 1));
        let gone: Vec<_> = names(0..1000).filter(|name| !has(&table, name)).collect();
        let [gone] = &gone[..] else {
            panic!("{gone:?}")
        };
        assert!(names(0..EXAMINED + SORTED_AT_ONCE).any(|name| name == *gone));
        // The hand comes to it all the same.
        for name in names(2000..2020) {
            assert!(table.entry(&name, None, |_| Some(kept())).is_some());
        }
        assert!(!has(&table, "web/500") && table.counts() == (1000, 21));
    }

    #[tokio::test]
    async fn evicts_new_entries_first_and_held_ones_never() {
        let table = full(1000);
        let held = table.entry("web/0", None, |_| None).unwrap();
        let mut waits = Vec::new();
        for name in names(5000..5010) {
            waits.push(
                table
                    .entry(&name, None, |permit| Some(new(permit)))
                    .unwrap(),
            );
        }
        // A flood pushes itself out, and nobody else but those that the first of it replaced.
        let there = |name: &String| has(&table, name);
        let before: Vec<_> = names(0..1000).filter(there).collect();
        for name in names(10_000..20_000) {
            assert!(
                table
                    .entry(&name, None, |permit| Some(new(permit)))
                    .is_some()
            );
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
        let table = ScopeTable::new(room(200));
        let enter = |name: &str| table.entry(name, None, |permit| Some(new(permit)));
        let held: Vec<_> = names(0..25).map(|name| enter(&name).unwrap()).collect();
        assert!(enter("web/more").is_none(), "an eighth of the table");
        drop(held);
        assert!(enter("web/more").is_some() && table.counts() == (25, 1));
    }

    #[tokio::test]
    async fn sessions_of_one_tenant_make_room_for_each_other_alone() {
        let table = ScopeTable::new(room(1000));
        for name in names(0..900).chain(names(0..900)) {
            assert!(table.entry(&name, None, |_| Some(kept())).is_some());
        }
        let session = |tenant: &str, number: usize| {
            let name = format!("{tenant}#{number}");
            table.entry(&name, Some(tenant), |_| Some(kept()))
        };
        for number in 0..10 {
            assert!(session("globex", number).is_some());
        }
        for number in 0..5000 {
            assert!(session("acme", number).is_some());
        }
        let count = |table: &ScopeTable, tenant: &str| {
            let queues = table.table.read().unwrap();
            queues.sessions_of(tenant)
        };
        assert_eq!(count(&table, "acme"), 20);
        assert_eq!(count(&table, "globex"), 10);
        assert!(names(0..900).all(|name| has(&table, &name)));
        assert_eq!(table.counts(), (930, 4980));
        // Names of those that are gone do not stay in any queue.
        let queues = table.table.read().unwrap();
        let own = &queues.sessions["acme"].names;
        assert!(own.len() <= 40, "{}", own.len());
        let named = queues.new.len() + queues.kept.len();
        assert!(named <= 2 * 930, "{named}");
        drop(queues);
        // One that is in use stays, and so do those that a request holds.
        let used = [session("acme", 4999), session("acme", 4999)];
        let held: Vec<_> = (6000..6018).map(|number| session("acme", number)).collect();
        assert!(session("acme", 7000).is_some() && has(&table, "acme#4999"));
        assert!(held.iter().chain(&used).all(Option::is_some));
        let last = session("acme", 7001);
        assert!(last.is_some() && !has(&table, "acme#7000"));
        assert!(session("acme", 7002).is_none(), "all are held");
        assert!(session("globex", 11).is_some());
        // A reload keeps them, within the room that there is then.
        let fewer = Room {
            entries: 1000,
            sessions_of_one: 5,
        };
        let next = table.succeeded(fewer, |entry| Some(Arc::clone(entry)));
        assert_eq!((count(&next, "acme"), count(&next, "globex")), (5, 5));
        assert!(names(0..900).all(|name| has(&next, &name)));
    }

    #[tokio::test]
    async fn a_full_table_evicts_sessions_like_all_others() {
        let table = ScopeTable::new(room(30));
        for number in 0..2000 {
            let tenant = format!("acme{}", number % 3);
            let name = format!("{tenant}#{}", number % 70);
            assert!(
                table
                    .entry(&name, Some(&tenant), |_| Some(kept()))
                    .is_some()
            );
            let queues = table.table.read().unwrap();
            let sessions: usize = queues.sessions.values().map(|own| own.count).sum();
            assert_eq!(sessions, queues.slots.len());
            let named = queues.new.len() + queues.kept.len();
            assert!(named <= 2 * 30 + SORTED_AT_ONCE, "{named}");
            let named: usize = queues.sessions.values().map(|own| own.names.len()).sum();
            assert!(named <= 2 * 30 + SORTED_AT_ONCE, "{named}");
        }
        for name in names(0..2000).flat_map(|name| [name.clone(), name]) {
            assert!(table.entry(&name, None, |_| Some(kept())).is_some());
        }
        let queues = table.table.read().unwrap();
        assert!(queues.sessions.is_empty() && queues.slots.len() == 30);
    }
}
