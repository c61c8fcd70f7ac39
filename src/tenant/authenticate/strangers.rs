//! The limit of failed proofs of unknown callers.
//!
//! To check a token's signature costs far more than to make one up. So failures are counted, by client
//! address, by network and all together, and beyond the bound no more are checked for a while. Who
//! succeeds counts for nothing, and a token that has been found good needs no check: both go on.
//!
//! The bound of all protects cosgate's CPU, and nobody can use it up for the others: beyond it only
//! networks wait from which a proof has failed already. A newcomer's first proof is checked as long as
//! there is room to note that it failed, so that no more are checked in a window than [`OF_ALL`] and
//! one of each of [`COUNTED`] networks.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use super::source::{Network, Source};
use crate::error::{Code, S3Error};
use crate::timestamp::Timestamp;

/// Failures are counted for so many seconds from the first.
const WINDOW: i64 = 10;
/// Failures of one address in a window; of IPv6 a /64 is one, since a host has all of it.
const OF_ONE: u32 = 100;
/// Failures of one network: a /24 of IPv4, a /48 of IPv6.
const OF_NETWORK: u32 = 1000;
/// Failures of all together: about a tenth of a core is spent on them.
const OF_ALL: u32 = 10_000;
/// Addresses, and networks, that are counted at once. Those beyond them count only among all, and
/// wait as soon as these are too many.
const COUNTED: usize = 16 * 1024;

/// The failures of the moment.
#[derive(Default)]
pub(super) struct Strangers(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    all: Count,
    by_source: FailureCounts<Source>,
    by_network: FailureCounts<Network>,
}

/// Failures by who failed, in a table that has an end.
struct FailureCounts<K> {
    table: HashMap<K, Count>,
    /// When the table was last looked through for those whose window is over.
    swept: Timestamp,
}

#[derive(Clone, Copy, Default)]
struct Count {
    since: Timestamp,
    failures: u32,
}

impl Strangers {
    /// Lets `check` look at a proof that came from `source`, unless too many have failed lately.
    pub(super) fn hold<T>(
        &self,
        source: Source,
        now: Timestamp,
        check: impl FnOnce() -> Result<T, S3Error>,
    ) -> Result<T, S3Error> {
        if let Some(seconds) = self.wait(source, now) {
            let text = "Too many tokens and signatures have failed lately; try again later.";
            return Err(S3Error::new(Code::SlowDown, text).retry_after(seconds));
        }
        check().inspect_err(|error| {
            // A proof that could not be checked cost nothing, and is not its bringer's fault.
            if error.code() != Code::ServiceUnavailable {
                self.fail(source, now);
            }
        })
    }

    /// How many seconds it is until a proof that comes from `source` is checked, if none is now.
    pub(super) fn wait(&self, source: Source, now: Timestamp) -> Option<u32> {
        self.with(|failures| failures.wait(source, now))
    }

    /// Counts a failure of `source`.
    pub(super) fn fail(&self, source: Source, now: Timestamp) {
        self.with(|failures| {
            failures.all.add(now);
            failures.by_source.add(source, now);
            failures.by_network.add(source.network(), now);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Failures) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Failures {
    fn wait(&self, source: Source, now: Timestamp) -> Option<u32> {
        let own = self.by_source.of(source).wait(OF_ONE, now);
        let network = self.by_network.of(source.network());
        let of_all = self.all.wait(OF_ALL, now).filter(|_| {
            let has_failed = network.left(now) > 0;
            has_failed || self.by_network.is_full(now)
        });
        own.max(network.wait(OF_NETWORK, now)).max(of_all)
    }
}

impl<K: Copy + Eq + Hash> FailureCounts<K> {
    fn of(&self, key: K) -> Count {
        self.table.get(&key).copied().unwrap_or_default()
    }

    /// Whether nobody new can be counted.
    fn is_full(&self, now: Timestamp) -> bool {
        self.table.len() >= COUNTED && now == self.swept
    }

    fn add(&mut self, key: K, now: Timestamp) {
        if self.table.len() >= COUNTED && !self.table.contains_key(&key) {
            if now == self.swept {
                return; // a look through the whole table for each failure would be the flood's gain
            }
            self.swept = now;
            self.table.retain(|_, count| count.left(now) > 0);
            if self.table.len() >= COUNTED {
                return;
            }
        }
        self.table.entry(key).or_default().add(now);
    }
}

impl<K> Default for FailureCounts<K> {
    fn default() -> Self {
        Self {
            table: HashMap::new(),
            swept: Timestamp::default(),
        }
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

    fn wait(self, max: u32, now: Timestamp) -> Option<u32> {
        let left = self.left(now);
        (left > 0 && self.failures >= max).then(|| u32::try_from(left).unwrap_or(1))
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
        let source = Source::of(address.parse().unwrap());
        let outcome = strangers.hold(source, now, || {
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
    fn a_network_is_held_before_it_uses_up_what_all_have() {
        let strangers = Strangers::default();
        for n in 0..OF_NETWORK {
            let from = format!("2001:db8:1:{n:x}::1"); // one /48
            assert_eq!(try_from(&strangers, &from, NOW, false), Some(false));
        }
        let held = |from| try_from(&strangers, from, NOW, true).is_none();
        assert!(held("2001:db8:1:ffff::1"));
        assert!(!held("2001:db8:2::1"));
    }

    #[test]
    fn many_addresses_that_fail_do_not_shut_out_one_that_has_not() {
        let strangers = Strangers::default();
        for n in 0..OF_ALL {
            let from = format!("198.51.{}.1", n % 100); // each as often as it may
            assert_eq!(try_from(&strangers, &from, NOW, false), Some(false));
        }
        // All together have failed too often: a network that has, waits.
        for from in ["198.51.0.1", "198.51.99.2"] {
            assert_eq!(try_from(&strangers, from, NOW, true), None, "{from}");
        }
        assert_eq!(try_from(&strangers, "192.0.2.1", NOW, true), Some(true));
        assert_eq!(try_from(&strangers, "2001:db8::1", NOW, true), Some(true));
        assert_eq!(try_from(&strangers, "192.0.2.1", NOW, false), Some(false));
        assert_eq!(try_from(&strangers, "192.0.2.1", NOW, false), None);
    }

    #[test]
    fn a_flood_from_everywhere_is_held_and_the_tables_have_an_end() {
        let strangers = Strangers::default();
        let network = |n: usize| format!("{}.{}.{}.1", 1 + (n >> 16), n >> 8 & 255, n & 255);
        for window in 0..3 {
            let at = NOW + window * WINDOW;
            let checked = (0..COUNTED + 1000)
                .filter(|n| try_from(&strangers, &network(*n), at, false).is_some())
                .count();
            assert!((COUNTED..=COUNTED + 1).contains(&checked), "{checked}");
            assert_eq!(try_from(&strangers, "203.0.113.1", at, true), None);
            let failures = strangers.0.lock().unwrap();
            assert!(failures.by_source.table.len() <= COUNTED);
            assert!(failures.by_network.table.len() <= COUNTED);
        }
    }
}
