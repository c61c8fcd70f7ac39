//! [`ConnectionLimit`]: how many connections one address may have at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tenant::{Peer, Source};

/// Open connections by where they come from. It has no more entries than there are connections, and
/// is looked at once when one is accepted and once when it ends.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    /// 0: as many as there may be.
    most: usize,
    /// `loopback_is_proxy`
    counts_loopback: bool,
    open: Mutex<HashMap<Source, usize>>,
}

/// A connection that is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection(Option<(Arc<ConnectionLimit>, Source)>);

impl ConnectionLimit {
    /// `most` of each address, 0 for any number; none are open.
    pub(crate) fn new(most: usize, counts_loopback: bool) -> Arc<Self> {
        Arc::new(Self {
            most,
            counts_loopback,
            open: Mutex::default(),
        })
    }

    /// Counts a connection with `peer`, or refuses it. A peer that speaks for others is not counted: a
    /// proxy that is trusted (`is_proxy`), and what comes over loopback, where a proxy that nobody has
    /// declared, or a load test, has one address, unless loopback is declared to be a proxy.
    pub(crate) fn admit(self: &Arc<Self>, peer: Peer, is_proxy: bool) -> Option<CountedConnection> {
        let is_loopback =
            matches!(peer, Peer::Tcp(address) if address.ip().to_canonical().is_loopback());
        if is_proxy || (is_loopback && !self.counts_loopback) {
            return Some(CountedConnection(None));
        }
        self.count(peer)
    }

    /// The same of whoever comes: a client that a proxy has named is none, wherever it is.
    pub(crate) fn count(self: &Arc<Self>, peer: Peer) -> Option<CountedConnection> {
        if self.most == 0 {
            return Some(CountedConnection(None));
        }
        let source = peer.source();
        let mut open = self.open();
        let count = open.entry(source).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(CountedConnection(Some((Arc::clone(self), source))))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let Some((limit, source)) = &self.0 else {
            return;
        };
        let mut open = limit.open();
        if let Some(count) = open.get_mut(source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn admit(
        limit: &Arc<ConnectionLimit>,
        address: &str,
        is_proxy: bool,
    ) -> Option<CountedConnection> {
        let peer = SocketAddr::new(address.parse().unwrap(), 1);
        limit.admit(Peer::Tcp(peer), is_proxy)
    }

    #[test]
    fn an_address_has_so_many_at_once_and_the_table_forgets_them() {
        let limit = ConnectionLimit::new(2, false);
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
        assert!(limit.open().is_empty());
    }

    #[test]
    fn who_speaks_for_others_is_not_counted() {
        let limit = ConnectionLimit::new(1, false);
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
        let off = ConnectionLimit::new(0, false);
        assert!((0..3).all(|_| admit(&off, "192.0.2.1", false).is_some_and(|one| one.0.is_none())));
    }

    #[test]
    fn counts_loopback_that_is_declared_a_proxy_and_clients_that_a_proxy_names() {
        let limit = ConnectionLimit::new(1, true);
        let held = admit(&limit, "127.0.0.1", false).unwrap();
        assert!(admit(&limit, "127.0.0.1", false).is_none());
        assert!(admit(&limit, "127.0.0.1", true).is_some());
        drop(held);
        assert!(admit(&limit, "127.0.0.1", false).is_some());
        let limit = ConnectionLimit::new(1, false);
        let named = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
        for peer in [named, Peer::Unnamed] {
            let _held = limit.count(peer).unwrap();
            assert!(limit.count(peer).is_none(), "{peer}");
        }
    }
}
