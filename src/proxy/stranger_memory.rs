//! [`StrangerMemory`]: the memory limit of requests whose sender is not authenticated yet: calls of STS,
//! the fields of browser forms, and refusals that their client does not read.
//!
//! A core has so much of it, and one address a share. When it is used up, the network that holds most
//! gives way, its oldest request first: that one has waited longest for its client. So however many
//! addresses hold what they may, an address that holds less than they do is served.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use tokio::sync::Notify;

use super::gather_budget::no_room;
use crate::error::S3Error;
use crate::tenant::{Connection, Network, Source, Tenants};
use crate::timestamp::Timestamp;

/// What a request that waits for its body costs beside the bytes of it: its stream, its task, its head
/// as parsed. Measured over HTTP/2.
const EACH: usize = 8 * 1024;
/// The part of the memory that one address may have.
const SHARE: usize = 8;
/// What an address may have that fails too often: enough for a form at a time.
const SHARE_OF_FAILING: usize = 64 * 1024;
/// What a header field takes beside its text.
const FIELD: usize = 64;

/// The memory of one core.
#[derive(Debug)]
pub(super) struct StrangerMemory {
    max: usize,
    held: RefCell<StrangerBytes>,
}

#[derive(Debug, Default)]
struct StrangerBytes {
    bytes: usize,
    /// The number of the next request: a higher one is younger.
    next: u64,
    networks: HashMap<Network, OfNetwork>,
}

#[derive(Debug, Default)]
struct OfNetwork {
    bytes: usize,
    sources: HashMap<Source, OfSource>,
}

#[derive(Debug, Default)]
struct OfSource {
    bytes: usize,
    requests: BTreeMap<u64, Rc<StrangerRequest>>,
}

/// What one request holds.
#[derive(Debug, Default)]
struct StrangerRequest {
    bytes: Cell<usize>,
    /// It gave way to another.
    is_evicted: Cell<bool>,
    evicted: Notify,
}

/// The memory of one request of a stranger, given back when it is dropped.
#[derive(Debug)]
pub(super) struct StrangerHold {
    memory: Rc<StrangerMemory>,
    source: Source,
    share: usize,
    id: u64,
    request: Rc<StrangerRequest>,
}

/// A stranger's request that is being read: unless all of it comes, it counts as a failure.
#[derive(Debug)]
pub(super) struct StrangerRead {
    hold: StrangerHold,
    tenants: Arc<Tenants>,
    connection: Connection,
    now: Timestamp,
    is_finished: bool,
}

impl StrangerMemory {
    /// Room for `max` bytes, nothing held.
    pub(super) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self {
            max,
            held: RefCell::default(),
        })
    }

    /// Begins to read the request of a stranger whose `head` has come.
    pub(super) fn begin_read(
        self: &Rc<Self>,
        head: &Parts,
        tenants: &Arc<Tenants>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<StrangerRead, S3Error> {
        let share = if tenants.fails_too_often(connection, now) {
            SHARE_OF_FAILING
        } else {
            self.max / SHARE
        };
        let read = StrangerRead {
            hold: self.hold(connection.source(), share),
            tenants: Arc::clone(tenants),
            connection,
            now,
            is_finished: false,
        };
        if read.grow(EACH + head_bytes(head)) {
            Ok(read)
        } else {
            Err(no_room())
        }
    }

    /// Room for a refusal of so many bytes, as long as its client has not taken it. Nobody gives way to
    /// it, and it gives way to nobody.
    pub(super) fn keep(self: &Rc<Self>, source: Source, bytes: usize) -> Option<StrangerHold> {
        let hold = self.hold(source, self.max / SHARE);
        let fits = self.held.borrow().bytes + EACH + bytes <= self.max;
        (fits && hold.grow(EACH + bytes)).then_some(hold)
    }

    fn hold(self: &Rc<Self>, source: Source, share: usize) -> StrangerHold {
        let mut held = self.held.borrow_mut();
        let id = held.next;
        held.next += 1;
        StrangerHold {
            memory: Rc::clone(self),
            source,
            share,
            id,
            request: Rc::default(),
        }
    }
}

impl StrangerHold {
    /// Takes `bytes` more; whether there was room.
    fn grow(&self, bytes: usize) -> bool {
        let mut held = self.memory.held.borrow_mut();
        let held = &mut *held;
        let own = held.of(self.source).saturating_add(bytes);
        if self.request.is_evicted.get() || own > self.share {
            return false;
        }
        while held.bytes.saturating_add(bytes) > self.memory.max {
            let Some(source) = held.who_gives_way(self.source, bytes) else {
                return false;
            };
            held.evict(source);
        }
        let network = held.networks.entry(self.source.network()).or_default();
        let source = network.sources.entry(self.source).or_default();
        source
            .requests
            .entry(self.id)
            .or_insert_with(|| Rc::clone(&self.request));
        self.request.bytes.set(self.request.bytes.get() + bytes);
        source.bytes += bytes;
        network.bytes += bytes;
        held.bytes += bytes;
        true
    }
}

impl StrangerBytes {
    /// What `source` holds.
    fn of(&self, source: Source) -> usize {
        let network = self.networks.get(&source.network());
        let own = network.and_then(|network| network.sources.get(&source));
        own.map_or(0, |own| own.bytes)
    }

    /// Who holds more than `source` would with `bytes` more: of the network that holds most, or else of
    /// its own, the address that does.
    fn who_gives_way(&self, source: Source, bytes: usize) -> Option<Source> {
        let (first, network) = self.networks.iter().max_by_key(|(_, held)| held.bytes)?;
        let own = self.networks.get(&source.network());
        let own_bytes = own.map_or(0, |own| own.bytes).saturating_add(bytes);
        if *first != source.network() && network.bytes > own_bytes {
            return network.largest().map(|(source, _)| source);
        }
        let (largest, held) = own?.largest()?;
        (held > self.of(source).saturating_add(bytes)).then_some(largest)
    }

    /// Takes what the oldest request of `source` holds from it.
    fn evict(&mut self, source: Source) {
        let network = self.networks.get(&source.network());
        let own = network.and_then(|network| network.sources.get(&source));
        let oldest = own.and_then(|own| own.requests.first_key_value());
        let Some((id, request)) = oldest.map(|(id, request)| (*id, Rc::clone(request))) else {
            return;
        };
        self.give_back(source, id, request.bytes.take());
        request.is_evicted.set(true);
        request.evicted.notify_one();
    }

    fn give_back(&mut self, source: Source, id: u64, bytes: usize) {
        let key = source.network();
        let Some(network) = self.networks.get_mut(&key) else {
            return;
        };
        let Some(own) = network.sources.get_mut(&source) else {
            return;
        };
        own.requests.remove(&id);
        own.bytes = own.bytes.saturating_sub(bytes);
        if own.requests.is_empty() {
            network.sources.remove(&source);
        }
        network.bytes = network.bytes.saturating_sub(bytes);
        if network.sources.is_empty() {
            self.networks.remove(&key);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl OfNetwork {
    /// The address that holds most, and how much.
    fn largest(&self) -> Option<(Source, usize)> {
        let sources = self
            .sources
            .iter()
            .map(|(source, own)| (*source, own.bytes));
        sources.max_by_key(|(_, bytes)| *bytes)
    }
}

impl Drop for StrangerHold {
    fn drop(&mut self) {
        let mut held = self.memory.held.borrow_mut();
        held.give_back(self.source, self.id, self.request.bytes.take());
    }
}

impl StrangerRead {
    /// Charges `bytes` that have come; whether there was room for them.
    pub(super) fn grow(&self, bytes: usize) -> bool {
        self.hold.grow(bytes)
    }

    /// Does `work`, unless this request gives way to another meanwhile.
    pub(super) async fn unless_evicted<T>(
        &self,
        work: impl Future<Output = Result<T, S3Error>>,
    ) -> Result<T, S3Error> {
        tokio::select! {
            biased;
            () = self.hold.request.evicted.notified() => Err(no_room()),
            done = work => done,
        }
    }

    /// Notes that all has come that was to be read.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Drop for StrangerRead {
    fn drop(&mut self) {
        if !self.is_finished {
            self.tenants.count_unfinished(self.connection, self.now);
        }
    }
}

/// What the fields of `head` take.
fn head_bytes(head: &Parts) -> usize {
    let fields = head.headers.iter();
    fields
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 64 * EACH;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    /// A request of `address`, if there is room for it.
    fn waiting(memory: &Rc<StrangerMemory>, address: &str) -> Option<StrangerHold> {
        let hold = memory.hold(source(address), MOST / SHARE);
        hold.grow(EACH).then_some(hold)
    }

    fn evicted(holds: &[StrangerHold]) -> usize {
        holds
            .iter()
            .filter(|hold| hold.request.is_evicted.get())
            .count()
    }

    #[test]
    fn an_address_has_a_share_and_gets_it_back() {
        let memory = StrangerMemory::new(MOST);
        let mut held: Vec<_> = (0..MOST / EACH)
            .map_while(|n| waiting(&memory, &format!("2001:db8::{n:x}"))) // one /64
            .collect();
        assert_eq!(held.len(), MOST / EACH / SHARE);
        assert!(waiting(&memory, "2001:db8:0:1::1").is_some());
        held.pop();
        assert!(waiting(&memory, "2001:db8::1").is_some());
        drop(held);
        assert!(memory.held.borrow().networks.is_empty());
        assert_eq!(memory.held.borrow().bytes, 0);
    }

    #[test]
    fn however_many_hold_their_share_one_who_holds_less_is_served() {
        let memory = StrangerMemory::new(MOST);
        let mut holds = Vec::new();
        for n in 0..SHARE {
            holds.extend((0..SHARE).map_while(|_| waiting(&memory, &format!("198.51.{n}.1"))));
        }
        assert_eq!(memory.held.borrow().bytes, MOST);
        for (n, round) in (0..8).zip(1..) {
            let newcomer = waiting(&memory, &format!("203.0.{n}.1")).unwrap();
            assert!(!newcomer.request.is_evicted.get());
            holds.push(newcomer);
            assert_eq!(evicted(&holds), round);
        }
        assert!(
            holds[SHARE * SHARE..]
                .iter()
                .all(|own| !own.request.is_evicted.get())
        );
        // The oldest of each went first.
        assert!(
            holds
                .iter()
                .take(SHARE * SHARE)
                .step_by(SHARE)
                .all(|hold| { hold.request.is_evicted.get() && !hold.grow(1) })
        );
        assert_eq!(memory.held.borrow().bytes, MOST);
        drop(holds);
        assert!(memory.held.borrow().networks.is_empty());
        assert_eq!(memory.held.borrow().bytes, 0);
    }

    #[test]
    fn many_addresses_of_one_network_give_way_to_another_and_the_largest_within_it() {
        let memory = StrangerMemory::new(MOST);
        let mut holds: Vec<_> = (0..MOST / EACH)
            .map(|n| waiting(&memory, &format!("2001:db8:1:{n:x}::1")).unwrap())
            .collect();
        let newcomer = waiting(&memory, "2001:db8:2::1").unwrap();
        assert_eq!(evicted(&holds), 1);
        // Nobody of the network holds more than one more of them would.
        assert!(waiting(&memory, "2001:db8:1:ffff::1").is_none());
        holds.push(waiting(&memory, "2001:db8:3::1").unwrap());
        assert!(!newcomer.request.is_evicted.get());
        let two = memory.hold(source("2001:db8:4::1"), MOST / SHARE);
        assert!(two.grow(2 * EACH));
        assert_eq!(evicted(&holds), 4);
    }

    #[test]
    fn a_refusal_that_is_kept_makes_nobody_give_way() {
        let memory = StrangerMemory::new(MOST);
        let mut kept = Vec::new();
        for n in 0..=SHARE {
            let own = source(&format!("198.51.{n}.1"));
            kept.extend((0..SHARE).map_while(|_| memory.keep(own, 0)));
        }
        assert_eq!(kept.len(), MOST / EACH);
        assert_eq!(evicted(&kept), 0);
    }

    #[tokio::test]
    async fn who_gives_way_stops_waiting() {
        let memory = StrangerMemory::new(SHARE * EACH);
        let hold = memory.hold(source("192.0.2.1"), usize::MAX);
        assert!(hold.grow(SHARE * EACH));
        let evicted = Rc::clone(&hold.request);
        let other = memory.hold(source("198.51.100.1"), usize::MAX);
        assert!(other.grow(EACH));
        evicted.evicted.notified().await;
    }
}
