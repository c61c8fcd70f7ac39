//! The only caller of `SystemTime::now`, and Tencent's time: ours, corrected by the `Date` of its responses.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::timestamp::Timestamp;

/// A `Date` that moves the offset by more than this, in seconds, is not believed unless the server
/// has refused our time: one broken server must not spoil every signature.
const BELIEVED_STEP: i64 = 15 * 60;
/// Offsets beyond a day, in seconds, are no clock's: they are held to this.
const LIMIT: i64 = 86_400;
/// From here on, in seconds, a difference is a clock that was set and not the network's delay.
const JUMP: i64 = 30;
/// Each response moves the offset by this part of the difference. `Date` has whole seconds, so that
/// differences below this many seconds move nothing.
const WEIGHT: i64 = 4;

/// The wall clock. Pure modules take `now` as an argument; `downstream` reads it once for each request.
pub fn wall_clock() -> Timestamp {
    Timestamp::from_unix(i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX))
}

/// The time since 1970, as traces have it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where time enters"
)]
pub(crate) fn since_epoch() -> Duration {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.unwrap_or_default()
}

/// Wall time, and how far that of Tencent is from it.
pub struct Clock {
    wall: Box<dyn Fn() -> Timestamp + Send + Sync>,
    offset: AtomicI64,
}

impl Clock {
    /// `wall` reads the wall clock.
    pub fn new(wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            wall: Box::new(wall),
            offset: AtomicI64::new(0),
        }
    }

    /// Our own time: for judging what clients sign.
    pub fn now(&self) -> Timestamp {
        (self.wall)()
    }

    /// Seconds that Tencent's time is ahead of ours.
    pub fn offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Tencent's time: for signing what it will judge.
    pub fn upstream_now(&self) -> Timestamp {
        self.upstream_time(self.now())
    }

    /// Tencent's time at our time `now`.
    pub fn upstream_time(&self, now: Timestamp) -> Timestamp {
        now.plus(self.offset())
    }

    /// Learns from the `Date` of a response that came just now.
    pub(crate) fn learn(&self, server: Timestamp) {
        let offset = self.offset();
        let difference = server.since(self.now()) - offset;
        if difference.abs() <= JUMP {
            self.set(offset + difference / WEIGHT);
        } else if difference.abs() <= BELIEVED_STEP {
            self.set(offset + difference);
        }
    }

    /// Takes the `Date` of a response that came just now and says that our time is wrong.
    pub(crate) fn resync(&self, server: Timestamp) {
        self.set(server.since(self.now()));
    }

    fn set(&self, offset: i64) {
        self.offset
            .store(offset.clamp(-LIMIT, LIMIT), Ordering::Relaxed);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_768_480_245;

    fn learnt(from: i64, difference: i64) -> i64 {
        let clock = Clock::new(|| Timestamp::from_unix(NOW));
        clock.resync(Timestamp::from_unix(NOW + from));
        clock.learn(Timestamp::from_unix(NOW + difference));
        clock.offset()
    }

    #[test]
    fn small_differences_move_it_gently_and_large_ones_at_once() {
        assert_eq!(learnt(0, 1), 0);
        assert_eq!(learnt(0, -20), -5);
        assert_eq!(learnt(0, 600), 600);
        assert_eq!(learnt(600, 0), 0);
    }

    #[test]
    fn a_wild_date_is_not_believed_unless_the_server_refused_ours() {
        assert_eq!(learnt(0, 1200), 0);
        assert_eq!(learnt(-1200, -1201), -1200);
        assert_eq!(learnt(NOW, 0), LIMIT);
    }

    #[test]
    fn signing_goes_by_the_server_and_judging_by_us() {
        let clock = Clock::new(|| Timestamp::from_unix(NOW));
        clock.resync(Timestamp::from_unix(NOW - 1200));
        assert_eq!(clock.upstream_now().unix(), NOW - 1200);
        assert_eq!(clock.now().unix(), NOW);
    }
}
