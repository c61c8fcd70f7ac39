//! Faults on demand: what the emulator does wrong, how often, and the switch that turns it on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that can be made to go wrong. The default is: nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// What STS does instead of answering.
    pub sts: Option<StsFault>,
    /// How many STS requests still meet it; `None` is until it is cleared.
    pub sts_times: Option<u32>,
    /// Milliseconds that STS waits before each answer.
    pub sts_latency_ms: u64,
    /// Life of each new key in seconds, whatever was asked for. May be 0 or negative.
    pub sts_lifetime: Option<i64>,
    /// Seconds by which the clock of STS is wrong: for its signature check, its `Date` and its expiry times.
    pub sts_clock_offset: i64,
    /// What COS does instead of answering.
    pub cos: Option<CosFault>,
    /// How many COS requests still meet it; `None` is until it is cleared.
    pub cos_times: Option<u32>,
    /// Milliseconds that COS waits before each answer.
    pub cos_latency_ms: u64,
    /// Answer an expired key with `400 ExpiredToken` in place of `403 InvalidAccessKeyId`: which one the
    /// real COS chooses is not known.
    pub expired_token_code: bool,
}

/// A way in which STS fails.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsFault {
    /// Closes the connection without an answer.
    Down,
    /// Answers with this error code, in Tencent's JSON.
    Error(String),
    /// Never answers.
    Hang,
    /// Answers 200 with a page of HTML, as a captive portal does.
    Html,
    /// Answers HTTP 500 without JSON.
    Http500,
    /// Answers with 64 MiB of blanks.
    Huge,
    /// Answers with a key whose token is null.
    NullToken,
    /// Answers with a key whose fields have other types.
    WrongTypes,
}

/// A way in which COS fails.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CosFault {
    /// Answers with this status and code, in COS's XML, before anything is checked. The status may be
    /// 200: copies and completes do fail that way (436/10881).
    Error {
        /// HTTP status.
        status: u16,
        /// COS's code.
        code: String,
    },
    /// Changes the byte that follows so many of the request's body, and stores that.
    FlipAfterReceived(u64),
    /// Resets the connection before the answer's head.
    Reset,
    /// Resets the connection when this many bytes of the request's body have come.
    ResetAfterReceived(u64),
    /// Resets the connection after this many bytes of the answer's body.
    ResetAfterSent(u64),
    /// Answers 503 `SlowDown`.
    SlowDown,
    /// Never answers.
    Stall,
    /// Sends nothing more after this many bytes of the answer's body.
    StallAfterSent(u64),
}

/// The faults in force, shared by the listeners and the tests.
#[derive(Debug, Default)]
pub struct FaultSwitch(Mutex<Faults>);

impl FaultSwitch {
    /// Puts `faults` in force from the next request on.
    pub fn set(&self, faults: Faults) {
        *self.lock() = faults;
    }

    /// Back to normal.
    pub fn clear(&self) {
        self.set(Faults::default());
    }

    /// What is in force.
    pub fn current(&self) -> Faults {
        self.lock().clone()
    }

    /// Changes part of what is in force.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock());
    }

    /// Waits as long as `latency` says, without a trip to the timer when that is not at all.
    pub(super) async fn wait(&self, latency: impl Fn(&Faults) -> u64) {
        let milliseconds = latency(&self.lock());
        if milliseconds > 0 {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
    }

    /// The fault that this request to COS meets, which counts.
    pub(super) fn next_cos(&self) -> Option<CosFault> {
        let mut faults = self.lock();
        let Faults { cos, cos_times, .. } = &mut *faults;
        take(cos, cos_times)
    }

    /// The fault that this request to STS meets, which counts.
    pub(super) fn next_sts(&self) -> Option<StsFault> {
        let mut faults = self.lock();
        let Faults { sts, sts_times, .. } = &mut *faults;
        take(sts, sts_times)
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<F: Clone>(fault: &mut Option<F>, times: &mut Option<u32>) -> Option<F> {
    match times {
        None => fault.clone(),
        Some(0) => None,
        Some(left) => {
            *left -= 1;
            fault.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_ends_by_itself() {
        let switch = FaultSwitch::default();
        switch.set(Faults {
            cos: Some(CosFault::SlowDown),
            cos_times: Some(2),
            ..Faults::default()
        });
        let met: Vec<bool> = (0..4).map(|_| switch.next_cos().is_some()).collect();
        assert_eq!(met, [true, true, false, false]);
        assert_eq!(switch.next_sts(), None);
    }

    #[test]
    fn faults_are_written_as_json() {
        let faults: Faults = serde_json::from_str(
            r#"{"sts":{"error":"InternalError"},"cos":{"reset-after-sent":1000},"cos_times":1}"#,
        )
        .unwrap();
        assert_eq!(faults.sts, Some(StsFault::Error("InternalError".into())));
        assert_eq!(faults.cos, Some(CosFault::ResetAfterSent(1000)));
        assert!(serde_json::from_str::<Faults>(r#"{"cos":"slow-down","oops":1}"#).is_err());
    }
}
