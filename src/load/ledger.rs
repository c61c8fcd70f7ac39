//! The ledger of a worker thread: its writes and their outcomes, with which the store is compared. Pure.
//!
//! Each write has a serial number, from which content and size follow. While an object is read, it is in use and
//! is neither deleted nor overwritten. A failed request may or may not have changed its object, which is then
//! uncertain: it is no longer read, and the sweep accepts each state that it can have.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

/// Maximum number of uncertain objects that a thread remembers. Later ones are only counted.
const UNCERTAIN: usize = 10_000;
/// Serial numbers of a thread begin with its number.
const THREAD_SHIFT: u32 = 48;
/// A serial number with this bit means content of the size of a multipart upload.
const MULTIPART: u64 = 1 << 47;

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Serial(pub u64);

/// An object that exists.
#[derive(Debug)]
pub(super) struct LiveObject {
    /// The id, from which the name follows.
    pub(super) id: u64,
    /// The last write.
    pub(super) serial: Cell<Serial>,
}

/// An object in use: until it is put back, nothing deletes or overwrites it.
pub(super) type HeldObject = Rc<LiveObject>;

/// The possible states of an uncertain object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Possible {
    /// It may hold any of these writes.
    pub(super) serials: Vec<Serial>,
    /// It may be absent.
    pub(super) may_be_absent: bool,
}

/// The objects of one tenant on one side.
#[derive(Debug, Default)]
pub(super) struct Group {
    live: Vec<HeldObject>,
    uncertain: HashMap<u64, Possible>,
    /// The number of uncertain objects beyond the limit.
    forgotten: u64,
}

/// All objects of a thread.
#[derive(Debug)]
pub(super) struct Ledger {
    groups: Vec<Group>,
    next: u64,
    live: u64,
    limit: u64,
    uncertain: usize,
    is_used: bool,
}

/// The expected content of a group in the sweep.
#[derive(Debug, Default)]
pub(super) struct ExpectedGroup {
    /// By id: the last write.
    pub(super) live: HashMap<u64, Serial>,
    /// By id: the possible states.
    pub(super) uncertain: HashMap<u64, Possible>,
    /// Whether uncertain objects were forgotten, so that an unknown object may be one of them.
    pub(super) has_forgotten: bool,
}

impl Serial {
    /// Whether the content has the size of a multipart upload.
    pub(super) fn is_multipart(self) -> bool {
        self.0 & MULTIPART != 0
    }
}

impl Ledger {
    /// A ledger of `groups` groups for thread `thread`, with up to `limit` live objects.
    pub(super) fn new(thread: u32, groups: usize, limit: u64) -> Self {
        let mut all = Vec::new();
        all.resize_with(groups, Group::default);
        Self {
            groups: all,
            next: u64::from(thread) << THREAD_SHIFT,
            live: 0,
            limit: limit.max(1),
            uncertain: 0,
            is_used: false,
        }
    }

    /// Whether the store may hold anything of this thread.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Records that the store may hold something of this thread.
    pub(super) fn mark_used(&mut self) {
        self.is_used = true;
    }

    /// The serial number of a new write.
    pub(super) fn serial(&mut self, is_multipart: bool) -> Serial {
        self.next += 1;
        Serial(self.next | if is_multipart { MULTIPART } else { 0 })
    }

    /// Whether puts must overwrite.
    pub(super) fn is_full(&self) -> bool {
        self.live >= self.limit
    }

    /// Objects that exist on a group.
    pub(super) fn count(&self, group: usize) -> usize {
        self.groups.get(group).map_or(0, |group| group.live.len())
    }

    /// Any object, chosen by `point` from 0 to 1.
    pub(super) fn any(&self, group: usize, point: f64) -> Option<HeldObject> {
        let live = &self.groups.get(group)?.live;
        live.get(place(point, live.len())).map(Rc::clone)
    }

    /// Whether an object is free to be deleted.
    pub(super) fn can_take(&self, group: usize) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.live.iter().any(|held| Rc::strong_count(held) == 1))
    }

    /// Takes an unused object off the group, to delete or overwrite it.
    pub(super) fn take(&mut self, group: usize, point: f64) -> Option<LiveObject> {
        let live = &mut self.groups.get_mut(group)?.live;
        let start = place(point, live.len());
        // Almost all objects are free: only those in flight are in use.
        let mut places = (0..live.len()).map(|step| (start + step) % live.len());
        let at = places.find(|at| {
            live.get(*at)
                .is_some_and(|held| Rc::strong_count(held) == 1)
        })?;
        let held = live.swap_remove(at);
        self.live -= 1;
        Rc::into_inner(held)
    }

    /// Adds an object to the group after its write was acknowledged.
    pub(super) fn put(&mut self, group: usize, id: u64, serial: Serial) {
        self.mark_used();
        if let Some(group) = self.groups.get_mut(group) {
            group.live.push(Rc::new(LiveObject {
                id,
                serial: Cell::new(serial),
            }));
            self.live += 1;
        }
    }

    /// Records that an object outside the group may have any of these states.
    pub(super) fn doubt(&mut self, group: usize, id: u64, possible: Possible) {
        self.mark_used();
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        if self.uncertain >= UNCERTAIN {
            group.forgotten += 1;
            return;
        }
        self.uncertain += 1;
        group.uncertain.insert(id, possible);
    }

    /// The expected content of the group in the sweep.
    pub(super) fn expected(&self, group: usize) -> ExpectedGroup {
        let Some(group) = self.groups.get(group) else {
            return ExpectedGroup::default();
        };
        ExpectedGroup {
            live: group
                .live
                .iter()
                .map(|object| (object.id, object.serial.get()))
                .collect(),
            uncertain: group.uncertain.clone(),
            has_forgotten: group.forgotten > 0,
        }
    }

    /// Uncertain objects of all groups.
    pub(super) fn uncertain(&self) -> u64 {
        let forgotten: u64 = self.groups.iter().map(|group| group.forgotten).sum();
        self.uncertain as u64 + forgotten
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a point is from 0 to 1"
)]
fn place(point: f64, count: usize) -> usize {
    ((point * count as f64) as usize).min(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(3, 2, 10)
    }

    #[test]
    fn serials_differ_by_thread_and_kind() {
        let mut ledger = ledger();
        let (one, two) = (ledger.serial(false), ledger.serial(true));
        assert_eq!(one.0 >> THREAD_SHIFT, 3);
        assert_ne!(one, two);
        assert!(!one.is_multipart() && two.is_multipart());
    }

    #[test]
    fn keeps_an_object_in_use() {
        let mut ledger = ledger();
        ledger.put(1, 7, Serial(1));
        let reader = ledger.any(1, 0.9).unwrap();
        assert!(!ledger.can_take(1) && ledger.take(1, 0.0).is_none());
        drop(reader);
        assert!(ledger.can_take(1));
        assert_eq!(ledger.take(1, 0.0).unwrap().id, 7);
        assert!(ledger.take(1, 0.0).is_none() && ledger.any(1, 0.0).is_none());
        assert!(ledger.any(0, 0.5).is_none());
    }

    #[test]
    fn reports_a_full_ledger() {
        let mut ledger = ledger();
        for id in 0..10 {
            assert!(!ledger.is_full());
            ledger.put(0, id, Serial(id));
        }
        assert!(ledger.is_full());
        assert!(ledger.take(0, 0.3).is_some());
        assert!(!ledger.is_full());
    }

    #[test]
    fn limits_and_counts_uncertain_objects() {
        let mut ledger = ledger();
        for id in 0..UNCERTAIN as u64 + 5 {
            ledger.doubt(0, id, Possible::default());
        }
        assert_eq!(ledger.uncertain(), UNCERTAIN as u64 + 5);
        let expected = ledger.expected(0);
        assert_eq!(expected.uncertain.len(), UNCERTAIN);
        assert!(expected.has_forgotten);
    }
}
