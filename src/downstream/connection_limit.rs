//! [`ConnectionLimit`]: how many connections one address, and one network, may have at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tenant::{Network, Peer, Source};

/// Open connections by where they come from. It has no more entries than there are connections, and
/// is looked at once when one is accepted and once when it ends.
///
/// A site has 65 536 networks /64 of IPv6, each of which counts as an address: so a network has a limit
/// too, and no single one can have all the connections that there are.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    open: Mutex<OpenConnections>,
}

/// How many there may be, as a reload may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionBounds {
    /// `connections_per_address`; 0: as many as there may be.
    pub(crate) of_address: usize,
    /// All that there may be.
    pub(crate) connections: usize,
    /// `loopback_is_proxy`
    pub(crate) counts_loopback: bool,
}

#[derive(Debug)]
struct OpenConnections {
    bounds: ConnectionBounds,
    by_source: HashMap<Source, usize>,
    by_network: HashMap<Network, usize>,
}

/// Why there may not be another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// Its address has as many as it may.
    OfAddress,
    /// Its network has.
    OfNetwork,
}

/// A connection that is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection(Option<(Arc<ConnectionLimit>, Source)>);

impl ConnectionLimit {
    /// `of_address` of each address, 0 for any number, and of each network half of the `connections`
    /// that there may be; none are open.
    pub(crate) fn new(bounds: ConnectionBounds) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::new(OpenConnections {
                bounds,
                by_source: HashMap::new(),
                by_network: HashMap::new(),
            }),
        })
    }

    /// From now on `bounds` hold. Connections that are there stay.
    pub(crate) fn set(&self, bounds: ConnectionBounds) {
        self.open().bounds = bounds;
    }

    /// The share of one address where there are descriptors for `room` of `connections` only: what it
    /// is of all, but an eighth at least, so that one cannot have all that there is room for.
    pub(crate) fn share(of_address: usize, connections: usize, room: usize) -> usize {
        if of_address == 0 || room >= connections {
            return of_address;
        }
        let scaled = of_address.saturating_mul(room) / connections.max(1);
        of_address.min(scaled.max(room / 8).max(1))
    }

    /// Counts a connection with `peer`, or refuses it. A peer that speaks for others is not counted: a
    /// proxy that is trusted (`is_proxy`), and what comes over loopback, where a proxy that nobody has
    /// declared, or a load test, has one address, unless loopback is declared to be a proxy.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: Peer,
        is_proxy: bool,
    ) -> Result<CountedConnection, TooMany> {
        let is_loopback =
            matches!(peer, Peer::Tcp(address) if address.ip().to_canonical().is_loopback());
        if is_proxy || (is_loopback && !self.open().bounds.counts_loopback) {
            return Ok(CountedConnection(None));
        }
        self.count(peer)
    }

    /// The same of whoever comes: a client that a proxy has named is none, wherever it is.
    pub(crate) fn count(self: &Arc<Self>, peer: Peer) -> Result<CountedConnection, TooMany> {
        let source = peer.source();
        let network = source.network();
        let mut open = self.open();
        let ConnectionBounds {
            of_address,
            connections,
            ..
        } = open.bounds;
        if of_address == 0 {
            return Ok(CountedConnection(None));
        }
        let of_source = open.by_source.get(&source).copied().unwrap_or_default();
        let of_network = open.by_network.get(&network).copied().unwrap_or_default();
        if of_source >= of_address {
            return Err(TooMany::OfAddress);
        }
        if of_network >= (connections / 2).max(of_address) {
            return Err(TooMany::OfNetwork);
        }
        open.by_source.insert(source, of_source + 1);
        open.by_network.insert(network, of_network + 1);
        Ok(CountedConnection(Some((Arc::clone(self), source))))
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let Some((limit, source)) = &self.0 else {
            return;
        };
        let mut open = limit.open();
        take_one(&mut open.by_source, *source);
        take_one(&mut open.by_network, source.network());
    }
}

fn take_one<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() = count.get().saturating_sub(1);
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn bounded(
        of_address: usize,
        connections: usize,
        counts_loopback: bool,
    ) -> Arc<ConnectionLimit> {
        ConnectionLimit::new(ConnectionBounds {
            of_address,
            connections,
            counts_loopback,
        })
    }

    fn admit(
        limit: &Arc<ConnectionLimit>,
        address: &str,
        is_proxy: bool,
    ) -> Option<CountedConnection> {
        let peer = SocketAddr::new(address.parse().unwrap(), 1);
        limit.admit(Peer::Tcp(peer), is_proxy).ok()
    }

    #[test]
    fn an_address_has_so_many_at_once_and_the_table_forgets_them() {
        let limit = bounded(2, 100, false);
        let mut held: Vec<_> = ["2001:db8::1", "2001:db8::2"] // one /64
            .into_iter()
            .map(|address| admit(&limit, address, false).unwrap())
            .collect();
        assert!(admit(&limit, "2001:db8::3", false).is_none());
        held.push(admit(&limit, "2001:db8:0:1::1", false).unwrap());
        held.push(admit(&limit, "192.0.2.1", false).unwrap());
        held.push(admit(&limit, "::ffff:192.0.2.1", false).unwrap());
        assert!(admit(&limit, "192.0.2.1", false).is_none());
        held.remove(0);
        held.push(admit(&limit, "2001:db8::3", false).unwrap());
        drop(held);
        assert!(limit.open().by_source.is_empty());
        assert!(limit.open().by_network.is_empty());
    }

    #[test]
    fn a_network_has_half_of_all_and_another_is_served() {
        let limit = bounded(2, 8, false);
        let mut all = Vec::new();
        for site in ["2001:db8:0:", "2001:db8:1:"] {
            let mut held: Vec<_> = (0..9)
                .filter_map(|n| admit(&limit, &format!("{site}{n:x}::1"), false))
                .collect();
            assert_eq!(held.len(), 4, "of {site}");
            held.pop();
            held.extend(admit(&limit, &format!("{site}ffff::1"), false));
            assert_eq!(held.len(), 4, "of {site}, after one has ended");
            all.extend(held);
        }
    }

    #[test]
    fn an_address_has_its_share_of_the_descriptors_that_there_are() {
        for (of_address, connections, room, expected) in [
            (2048, 16_384, 16_384, 2048),
            (2048, 16_384, 704, 88),
            (16_384, 16_384, 704, 704), // all are one's: so it was configured
            (100, 16_384, 704, 88),
            (3, 16_384, 704, 3),
            (2048, 16_384, 0, 1),
            (0, 16_384, 704, 0),
        ] {
            let share = ConnectionLimit::share(of_address, connections, room);
            assert_eq!(share, expected, "{of_address} of {connections} in {room}");
        }
    }

    #[test]
    fn who_speaks_for_others_is_not_counted() {
        let limit = bounded(1, 100, false);
        let several = |address, is_proxy| {
            let held: Vec<_> = (0..3)
                .map_while(|_| admit(&limit, address, is_proxy))
                .collect();
            held.len()
        };
        assert_eq!(several("192.0.2.1", false), 1);
        assert_eq!(several("192.0.2.1", true), 3);
        assert_eq!(several("127.0.0.1", false), 3);
        assert_eq!(several("::1", false), 3);
        assert_eq!(several("::ffff:127.0.0.1", false), 3);
        let off = bounded(0, 100, false);
        assert!((0..3).all(|_| admit(&off, "192.0.2.1", false).is_some_and(|one| one.0.is_none())));
    }

    #[test]
    fn counts_loopback_that_is_declared_a_proxy_and_clients_that_a_proxy_names() {
        let limit = bounded(1, 100, true);
        let held = admit(&limit, "127.0.0.1", false).unwrap();
        assert!(admit(&limit, "127.0.0.1", false).is_none());
        assert!(admit(&limit, "127.0.0.1", true).is_some());
        drop(held);
        assert!(admit(&limit, "127.0.0.1", false).is_some());
        let limit = bounded(1, 100, false);
        let named = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
        for peer in [named, Peer::Unnamed] {
            let _held = limit.count(peer).unwrap();
            assert_eq!(limit.count(peer).unwrap_err(), TooMany::OfAddress, "{peer}");
        }
    }
}
