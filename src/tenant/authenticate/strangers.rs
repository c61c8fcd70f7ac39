//! How often somebody whom nobody knows may have a proof checked that is none.
//!
//! To check a token's signature costs far more than to make one up. So failures are counted, by client
//! address and all together, and beyond the bound no more are checked for a while. Who succeeds counts
//! for nothing, and a token that has been found good needs no check: both go on.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::s3::{Code, S3Error};
use crate::timestamp::Timestamp;

/// Failures are counted for so many seconds from the first.
const WINDOW: i64 = 10;
/// Failures of one address in a window; of IPv6 a /64 is one, since a host has all of it, and so are
/// all who have none: they came by the Unix socket.
const OF_ONE: u32 = 100;
/// Failures of all addresses together: about a tenth of a core is spent on them.
const OF_ALL: u32 = 10_000;
/// Addresses that are counted at once. Those beyond them count only among all.
const ADDRESSES: usize = 16 * 1024;

/// The failures of the moment.
#[derive(Default)]
pub(super) struct Strangers(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    all: Count,
    by_address: HashMap<Option<IpAddr>, Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    since: Timestamp,
    failures: u32,
}

impl Strangers {
    /// Lets `check` look at a proof that came from `address`, unless too many have failed lately.
    pub(super) fn hold<T>(
        &self,
        address: Option<IpAddr>,
        now: Timestamp,
        check: impl FnOnce() -> Result<T, S3Error>,
    ) -> Result<T, S3Error> {
        let address = address.map(network_of);
        let left = self.with(|failures| failures.wait(address, now));
        if let Some(seconds) = left {
            let text = "Too many tokens and signatures have failed lately; try again later.";
            return Err(S3Error::new(Code::SlowDown, text).retry_after(seconds));
        }
        check().inspect_err(|error| {
            // A proof that could not be checked cost nothing, and is not its bringer's fault.
            if error.code() != Code::ServiceUnavailable {
                self.with(|failures| failures.add(address, now));
            }
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Failures) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Failures {
    /// How many seconds it is until the next check, where there may be none now.
    fn wait(&self, address: Option<IpAddr>, now: Timestamp) -> Option<u32> {
        let own = self.by_address.get(&address);
        let own = own.and_then(|count| count.wait(OF_ONE, now));
        own.max(self.all.wait(OF_ALL, now))
    }

    fn add(&mut self, address: Option<IpAddr>, now: Timestamp) {
        self.all.add(now);
        if self.by_address.len() >= ADDRESSES && !self.by_address.contains_key(&address) {
            self.by_address.retain(|_, count| count.left(now) > 0);
            if self.by_address.len() >= ADDRESSES {
                return; // so many fail that all together are held before long
            }
        }
        self.by_address.entry(address).or_default().add(now);
    }
}

impl Count {
    /// The seconds left of its window. A clock that was set back ends it.
    fn left(self, now: Timestamp) -> i64 {
        let age = now.since(self.since);
        if (0..WINDOW).contains(&age) {
            WINDOW - age
        } else {
            0
        }
    }

    fn wait(self, most: u32, now: Timestamp) -> Option<u32> {
        let left = self.left(now);
        (left > 0 && self.failures >= most).then(|| u32::try_from(left).unwrap_or(1))
    }

    fn add(&mut self, now: Timestamp) {
        if self.left(now) == 0 {
            *self = Self {
                since: now,
                failures: 0,
            };
        }
        self.failures = self.failures.saturating_add(1);
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl fmt::Debug for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strangers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn try_from(strangers: &Strangers, address: &str, at: i64, good: bool) -> Option<bool> {
        let mut checked = false;
        let now = Timestamp::from_unix(at);
        let outcome = strangers.hold(Some(address.parse().unwrap()), now, || {
            checked = true;
            let failed = || S3Error::new(Code::InvalidToken, "");
            good.then_some(()).ok_or_else(failed)
        });
        if let Err(error) = &outcome
            && !checked
        {
            assert_eq!(error.code(), Code::SlowDown);
            assert!((1..=10).contains(&error.retry_after_seconds().unwrap()));
        }
        checked.then_some(outcome.is_ok())
    }

    #[test]
    fn an_address_that_fails_too_often_is_held_for_the_rest_of_the_window() {
        let strangers = Strangers::default();
        for n in 0..OF_ONE {
            let from = format!("2001:db8:0:1::{n:x}"); // one network
            assert_eq!(try_from(&strangers, &from, NOW, false), Some(false));
            assert_eq!(try_from(&strangers, "192.0.2.1", NOW, true), Some(true));
        }
        let held = |from, at| try_from(&strangers, from, at, true).is_none();
        assert!(held("2001:db8:0:1::1", NOW + WINDOW - 1));
        assert!(!held("2001:db8:0:2::1", NOW));
        assert!(!held("192.0.2.1", NOW));
        assert!(!held("2001:db8:0:1::1", NOW + WINDOW));
        assert!(
            !held("2001:db8:0:1::1", NOW - 3600),
            "the clock was set back"
        );
    }

    #[test]
    fn all_together_are_held_and_the_table_has_an_end() {
        let strangers = Strangers::default();
        let address = |n: u32| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        for n in 0..OF_ALL {
            assert_eq!(try_from(&strangers, &address(n), NOW, false), Some(false));
        }
        assert_eq!(try_from(&strangers, "192.0.2.1", NOW, true), None);
        for window in 1..4 {
            for n in 0..OF_ALL {
                let from = address(window * OF_ALL + n);
                let at = NOW + i64::from(window) * WINDOW;
                assert_eq!(try_from(&strangers, &from, at, false), Some(false));
            }
            let counted = strangers.0.lock().unwrap().by_address.len();
            assert!(counted <= ADDRESSES, "{counted}");
        }
    }
}
