//! File descriptors: the process takes as many as it may, and keeps some of them back, so that clients
//! never hold those that the admin pages and the connections to COS need.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for the admin pages, STS and all else that is not a client: this many, but an eighth of the
/// limit at most.
const RESERVE: u64 = 64;
/// What the process itself has open, roughly: listeners, event queues, logs.
const OWN: u64 = 64;

/// Who holds a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A client's connection. A quarter of the limit is kept from them for connections to COS.
    Client,
    /// A connection to COS.
    Upstream,
}

/// Raises the soft limit to the hard one.
pub fn raise_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Whether `descriptor` is one of those that are kept from `holder`. A new descriptor gets the lowest
/// free number (POSIX, open), so its number says how many are open at least. The limit is read each
/// time: it may be changed from outside.
pub(crate) fn is_reserved(descriptor: &impl AsFd, holder: Holder) -> bool {
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or(0);
    limit().is_some_and(|limit| number >= ceiling(limit, holder))
}

/// The limit, where it is too low for `connections` of clients, and the least that would do.
pub fn too_low_for(connections: usize) -> Option<(u64, u64)> {
    let limit = limit()?;
    let wanted = OWN + connections as u64;
    let needed = (wanted + RESERVE).saturating_mul(4).div_ceil(3);
    (ceiling(limit, Holder::Client) < wanted).then_some((limit, needed))
}

/// The descriptors that clients may have, as the limit is now; `None` is any number.
pub(crate) fn of_clients() -> Option<usize> {
    let ceiling = ceiling(limit()?, Holder::Client);
    Some(usize::try_from(ceiling).unwrap_or(usize::MAX))
}

/// `None` is no limit.
fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The first number that is kept from `holder`.
fn ceiling(limit: u64, holder: Holder) -> u64 {
    let kept = RESERVE.min(limit / 8);
    match holder {
        Holder::Client => limit - kept - limit / 4,
        Holder::Upstream => limit - kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_to_cos_and_to_the_operator() {
        for (limit, clients, upstream) in [(100, 63, 88), (1024, 704, 960), (0, 0, 0)] {
            assert_eq!(ceiling(limit, Holder::Client), clients);
            assert_eq!(ceiling(limit, Holder::Upstream), upstream);
        }
    }

    #[test]
    fn the_limit_that_is_called_enough_is_enough() {
        for connections in [1, 100, 16_384, 1_000_000] {
            let needed = (OWN + connections + RESERVE) * 4;
            let needed = needed.div_ceil(3);
            assert!(ceiling(needed, Holder::Client) >= OWN + connections);
        }
    }
}
