//! [`Source`]: the address or local user for which unauthenticated callers are counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Connection, Peer};

/// Where a request or a connection comes from. No name of a tenant can be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A trusted proxy that names no address.
    Unnamed,
    /// The user of this machine who has this number.
    User(u32),
    /// An address of IPv4.
    V4(Ipv4Addr),
    /// A /64 of IPv6: a host has all of it (RFC 4291 section 2.5.4).
    V6(Ipv6Addr),
}

/// The network of a [`Source`]: a /24 of IPv4, a /48 of IPv6, which is what a site has (RFC 6177). Who
/// has more than one address has them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(Source);

impl Source {
    /// The source of this address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(first_bits(address, 64)),
        }
    }

    /// The network that it is in; a user is one alone.
    pub fn network(self) -> Network {
        Network(match self {
            Self::V4(address) => Self::V4(Ipv4Addr::from_bits(address.to_bits() & 0xffff_ff00)),
            Self::V6(address) => Self::V6(first_bits(address, 48)),
            Self::Unnamed | Self::User(_) => self,
        })
    }
}

impl Connection {
    /// Whom a request on it is counted as.
    pub fn source(&self) -> Source {
        match (self.address, self.user) {
            (Some(address), _) => Source::of(address),
            (None, Some(user)) => Source::User(user.uid),
            (None, None) => Source::Unnamed,
        }
    }
}

impl Peer {
    /// Whom a connection with it is counted as.
    pub fn source(&self) -> Source {
        match self {
            Self::Tcp(peer) => Source::of(peer.ip()),
            Self::Unix(user) => Source::User(user.uid),
            Self::Unnamed => Source::Unnamed,
        }
    }
}

fn first_bits(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_and_a_64_of_ipv6_are_one_source_each() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        let network = |text: &str| source(text).network();
        assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_ne!(Source::User(0).network(), network("0.0.0.0"));
        assert_ne!(Source::User(0).network(), Source::User(1).network());
    }
}
