//! The active faults, and which of them a request meets.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::behaviour::{Behaviours, CosBehaviour};
use super::fault_target::FaultTarget;
use super::faults::{
    CommonFault, CosFault, FaultAction, FaultEntry, FaultLatency, FaultService, Faults, StsFault,
};
use crate::credentials::{audit_name, session_name};
use crate::timestamp::Timestamp;

/// Maximum wait in seconds that a distribution can give.
const MAX_WAIT: f64 = 3600.0;
/// 99 % of the normal distribution lie below this number of standard deviations.
const P99_DEVIATIONS: f64 = 2.326_347_874;

/// The active faults, shared by the listeners and the tests.
#[derive(Debug, Default)]
pub struct FaultSwitch(Mutex<ActiveFaults>);

#[derive(Debug)]
struct ActiveFaults {
    faults: Faults,
    since: Instant,
    /// One for each of `faults.faults`.
    rules: Vec<RuleState>,
}

impl Default for ActiveFaults {
    fn default() -> Self {
        Self::new(Faults::default())
    }
}

impl ActiveFaults {
    fn new(faults: Faults) -> Self {
        let rules = faults.faults.iter().map(RuleState::of).collect();
        Self {
            faults,
            since: Instant::now(),
            rules,
        }
    }
}

/// The state of one fault.
#[derive(Clone, Debug, Default)]
struct RuleState {
    /// Requests in its scope.
    seen: u64,
    /// Requests that met it.
    met: u64,
    /// The session names of its tenant.
    sessions: Vec<String>,
}

/// A fault, and how many requests have met it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetCount {
    /// Its name, or a description of what it does.
    pub fault: String,
    /// Requests.
    pub met: u64,
}

/// The faults that one request meets.
#[derive(Debug, Default)]
pub(super) struct MetFaults {
    pub(super) latency: Duration,
    /// Bytes a second.
    pub(super) bandwidth: Option<u64>,
    clock_offset: i64,
    lifetime: Option<i64>,
    expired_token_code: bool,
    page: Option<u32>,
    pub(super) behaviours: Behaviours,
    /// The faults of COS in the order of the list. The last one may end the request.
    pub(super) cos: Vec<CosFault>,
    pub(super) sts: Option<StsFault>,
    /// Keys to revoke now.
    pub(super) revoked: Vec<Revocation>,
}

/// Temporary keys to revoke.
#[derive(Debug)]
pub(super) enum Revocation {
    All,
    /// The keys of a session with one of these names.
    Sessions(Vec<String>),
}

/// The conditions under which a service judges a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) now: Timestamp,
    /// The lifetime of a new key in seconds, in place of the requested one.
    pub(super) lifetime: Option<i64>,
    pub(super) expired_token_code: bool,
    /// Maximum number of entries on a page.
    pub(super) page: Option<u32>,
    pub(super) behaviours: Behaviours,
}

impl FaultSwitch {
    /// Activates `faults` from the next request on. Their times count from now.
    pub fn set(&self, faults: Faults) {
        *self.lock() = ActiveFaults::new(faults);
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.set(Faults::default());
    }

    /// The active faults.
    pub fn current(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// The number of requests that have met each fault of the list.
    pub fn met(&self) -> Vec<MetCount> {
        let state = self.lock();
        let pairs = state.faults.faults.iter().zip(&state.rules);
        pairs
            .map(|(fault, rule)| MetCount {
                fault: fault.label(),
                met: rule.met,
            })
            .collect()
    }

    /// Changes the short form of the active faults.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = self.lock();
        change(&mut state.faults);
        let Faults { faults, .. } = &state.faults;
        if faults.len() != state.rules.len() {
            state.rules = faults.iter().map(RuleState::of).collect();
        }
    }

    /// Whether COS offers HTTP/2 to a new connection.
    pub(super) fn offers_http2(&self) -> bool {
        let is_offer = |fault: &FaultEntry| {
            fault.action == FaultAction::Cos(CosFault::Behaves(CosBehaviour::OffersHttp2))
        };
        let state = self.lock();
        let elapsed = state.since.elapsed();
        let mut faults = state.faults.faults.iter();
        faults.any(|fault| is_offer(fault) && fault.is_on(elapsed))
    }

    /// Whether a new connection to `service` is refused. Counts it.
    pub(super) fn refuses_connection(&self, service: FaultService) -> bool {
        let mut state = self.lock();
        let is_refusal = |fault: &FaultEntry| {
            fault.service == service
                && fault.action == FaultAction::Common(CommonFault::RefuseConnections)
        };
        if !state.faults.faults.iter().any(is_refusal) {
            return false;
        }
        let target = FaultTarget::default();
        let ActiveFaults {
            faults,
            since,
            rules,
        } = &mut *state;
        let elapsed = since.elapsed();
        let mut refused = false;
        for (index, (fault, rule)) in faults.faults.iter().zip(rules).enumerate() {
            if is_refusal(fault) && fault.is_on(elapsed) {
                refused |= rule
                    .meets(fault, &target, faults.seed ^ index as u64)
                    .is_some();
            }
        }
        refused
    }

    /// The faults that this request to `service` meets. Counts it. `target` is called only if a fault has a scope.
    pub(super) fn meet(
        &self,
        service: FaultService,
        target: impl FnOnce() -> FaultTarget,
    ) -> MetFaults {
        let mut state = self.lock();
        let mut met = MetFaults::default();
        if !state.faults.faults.is_empty() {
            let of_service = |fault: &&FaultEntry| fault.service == service;
            let mut own = state.faults.faults.iter().filter(of_service);
            let target = if own.any(FaultEntry::has_scope) {
                target()
            } else {
                FaultTarget::default()
            };
            state.meet_listed(service, &target, &mut met);
        }
        if !met.is_final() {
            state.meet_short_form(service, &mut met);
        }
        met
    }

    fn lock(&self) -> MutexGuard<'_, ActiveFaults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActiveFaults {
    fn meet_listed(&mut self, service: FaultService, target: &FaultTarget, met: &mut MetFaults) {
        let elapsed = self.since.elapsed();
        let Faults { faults, seed, .. } = &self.faults;
        for (index, (fault, rule)) in faults.iter().zip(&mut self.rules).enumerate() {
            if fault.is_event() {
                // A revocation matters only to requests, so the first request after its time carries it out.
                if rule.met == 0 && fault.is_on(elapsed) {
                    rule.met = 1;
                    met.revoked.push(rule.revocation());
                }
                continue;
            }
            let is_refusal = fault.action == FaultAction::Common(CommonFault::RefuseConnections);
            if fault.service != service || is_refusal || !fault.is_on(elapsed) || met.is_final() {
                continue;
            }
            if let Some(draw) = rule.meets(fault, target, seed ^ index as u64) {
                met.add(&fault.action, draw);
            }
        }
    }

    fn meet_short_form(&mut self, service: FaultService, met: &mut MetFaults) {
        let faults = &mut self.faults;
        match service {
            FaultService::Cos => {
                met.latency += Duration::from_millis(faults.cos_latency_ms);
                met.expired_token_code |= faults.expired_token_code;
                if let Some(fault) = take(faults.cos.as_ref(), &mut faults.cos_times) {
                    met.add(&FaultAction::Cos(fault), Draw(0));
                }
            }
            FaultService::Sts => {
                met.latency += Duration::from_millis(faults.sts_latency_ms);
                met.clock_offset += faults.sts_clock_offset;
                met.lifetime = met.lifetime.or(faults.sts_lifetime);
                if let Some(fault) = take(faults.sts.as_ref(), &mut faults.sts_times) {
                    met.add(&FaultAction::Sts(fault), Draw(0));
                }
            }
        }
    }
}

fn take<F: Clone>(fault: Option<&F>, times: &mut Option<u32>) -> Option<F> {
    match times {
        None => fault.cloned(),
        Some(0) => None,
        Some(left) => {
            *left -= 1;
            fault.cloned()
        }
    }
}

impl RuleState {
    fn of(fault: &FaultEntry) -> Self {
        let sessions = fault.tenant.iter().flat_map(|tenant| {
            // The name as it is written, and the names that cosgate gives STS.
            let whole = session_name(crate::config::TENANT, tenant);
            [tenant.clone(), audit_name(tenant), whole]
        });
        Self {
            sessions: sessions.collect(),
            ..Self::default()
        }
    }

    /// Whether a request for `target` meets `fault`: gives the random numbers of this meeting. Counts it.
    fn meets(&mut self, fault: &FaultEntry, target: &FaultTarget, seed: u64) -> Option<Draw> {
        if fault.times.is_some_and(|times| self.met >= times) || !self.covers(fault, target) {
            return None;
        }
        self.seen += 1;
        let mut draw = Draw(seed.rotate_left(32) ^ self.seen);
        let share = draw.uniform();
        let is_nth = fault
            .every
            .is_none_or(|every| self.seen.is_multiple_of(every.max(1)));
        if !is_nth || fault.share.is_some_and(|part| share >= part.0) {
            return None;
        }
        self.met += 1;
        Some(draw)
    }

    fn covers(&self, fault: &FaultEntry, target: &FaultTarget) -> bool {
        let named =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let operation = target.operation.as_ref();
        (fault.operations.is_empty()
            || operation.is_some_and(|name| fault.operations.contains(name)))
            && named(&fault.bucket, &target.bucket)
            && (fault.prefix.as_ref()).is_none_or(|prefix| {
                target
                    .key
                    .as_ref()
                    .is_some_and(|key| key.starts_with(prefix))
            })
            && (fault.tenant.is_none()
                || target
                    .session
                    .as_ref()
                    .is_some_and(|name| self.sessions.contains(name)))
    }

    fn revocation(&self) -> Revocation {
        if self.sessions.is_empty() {
            Revocation::All
        } else {
            Revocation::Sessions(self.sessions.clone())
        }
    }
}

impl MetFaults {
    /// The conditions under which the request is judged at the time `now`.
    pub(super) fn circumstances(&self, now: Timestamp) -> Circumstances {
        Circumstances {
            now: now.plus(self.clock_offset),
            lifetime: self.lifetime,
            expired_token_code: self.expired_token_code,
            page: self.page,
            behaviours: self.behaviours,
        }
    }

    /// Whether the clock is wrong, so that `Date` must show it.
    pub(super) fn has_wrong_clock(&self) -> bool {
        self.clock_offset != 0
    }

    fn is_final(&self) -> bool {
        self.sts.is_some() || self.cos.last().is_some_and(CosFault::is_final)
    }

    fn add(&mut self, action: &FaultAction, draw: Draw) {
        match action {
            FaultAction::Common(CommonFault::Bandwidth(rate)) => {
                self.bandwidth = Some(self.bandwidth.map_or(rate.0, |other| other.min(rate.0)));
            }
            FaultAction::Common(CommonFault::ClockOffset(seconds)) => self.clock_offset += seconds,
            FaultAction::Common(CommonFault::Latency(latency)) => {
                self.latency += draw.wait(latency);
            }
            FaultAction::Common(CommonFault::RefuseConnections) => {}
            FaultAction::Cos(CosFault::Behaves(behaviour)) => self.behaviours.add(*behaviour),
            FaultAction::Cos(CosFault::ExpiredTokenCode) => self.expired_token_code = true,
            FaultAction::Cos(CosFault::PartialListing(entries)) => {
                self.page = Some(self.page.map_or(*entries, |other| other.min(*entries)));
            }
            FaultAction::Cos(fault) => self.cos.push(fault.clone()),
            FaultAction::Sts(StsFault::Lifetime(seconds)) => {
                self.lifetime = self.lifetime.or(Some(*seconds));
            }
            FaultAction::Sts(fault) => self.sts = Some(fault.clone()),
        }
    }
}

/// Random numbers that depend only on a seed (splitmix64).
#[derive(Clone, Copy, Debug)]
struct Draw(u64);

impl Draw {
    /// A number from 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a f64 holds")]
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn wait(mut self, latency: &FaultLatency) -> Duration {
        let seconds = match latency {
            FaultLatency::Fixed(wait) => return wait.0,
            FaultLatency::Normal { mean, deviation } => {
                mean.0.as_secs_f64() + deviation.0.as_secs_f64() * self.normal()
            }
            FaultLatency::LongTail { median, p99 } => {
                let median = median.0.as_secs_f64().max(1e-6);
                let spread = (p99.0.as_secs_f64() / median).max(1.0).ln() / P99_DEVIATIONS;
                median * (spread * self.normal()).exp()
            }
        };
        Duration::from_secs_f64(seconds.clamp(0.0, MAX_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::quantity::{Share, Span};

    fn switch(faults: Vec<FaultEntry>) -> FaultSwitch {
        let switch = FaultSwitch::default();
        switch.set(Faults {
            faults,
            seed: 7,
            ..Faults::default()
        });
        switch
    }

    fn meet(switch: &FaultSwitch) -> MetFaults {
        switch.meet(FaultService::Cos, FaultTarget::default)
    }

    fn span(text: &str) -> Span {
        text.parse().unwrap()
    }

    #[test]
    fn counted_fault_ends_after_its_count() {
        let short = FaultSwitch::default();
        short.set(Faults {
            cos: Some(CosFault::SlowDown),
            cos_times: Some(2),
            ..Faults::default()
        });
        let listed = switch(vec![FaultEntry {
            times: Some(2),
            ..FaultEntry::cos(CosFault::SlowDown)
        }]);
        for switch in [short, listed] {
            let met: Vec<bool> = (0..4).map(|_| !meet(&switch).cos.is_empty()).collect();
            assert_eq!(met, [true, true, false, false]);
            let sts = switch.meet(FaultService::Sts, FaultTarget::default);
            assert_eq!(sts.sts, None);
        }
    }

    #[test]
    fn combines_faults_until_one_ends_the_request() {
        let slow = |text| {
            let latency = CommonFault::Latency(FaultLatency::Fixed(span(text)));
            FaultEntry::common(FaultService::Cos, latency)
        };
        let switch = switch(vec![
            slow("200ms"),
            slow("50ms"),
            FaultEntry::cos(CosFault::FlipAfterSent(1)),
            FaultEntry::cos(CosFault::Reset),
            FaultEntry::cos(CosFault::SlowDown),
            FaultEntry::sts(StsFault::Down),
        ]);
        let met = meet(&switch);
        assert_eq!(met.latency, Duration::from_millis(250));
        assert_eq!(met.cos, [CosFault::FlipAfterSent(1), CosFault::Reset]);
        assert_eq!(met.sts, None);
        let counts: Vec<u64> = switch.met().iter().map(|count| count.met).collect();
        assert_eq!(counts, [1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn share_selects_the_same_requests_again() {
        let fault = FaultEntry {
            share: Some(Share(0.1)),
            ..FaultEntry::cos(CosFault::Reset)
        };
        let hits = |switch: &FaultSwitch| -> Vec<bool> {
            (0..10_000).map(|_| !meet(switch).cos.is_empty()).collect()
        };
        let first = hits(&switch(vec![fault.clone()]));
        let count = first.iter().filter(|hit| **hit).count();
        assert!((900..1100).contains(&count), "{count}");
        assert_eq!(hits(&switch(vec![fault.clone()])), first);
        let other = switch(vec![fault]);
        other.change(|faults| faults.seed = 8);
        assert_ne!(hits(&other), first);
    }

    #[test]
    fn every_nth_request_in_scope_meets_the_fault() {
        let switch = switch(vec![FaultEntry {
            operations: vec!["PutObject".into()],
            bucket: Some("b-1".into()),
            prefix: Some("a/".into()),
            tenant: Some("team-1".into()),
            every: Some(2),
            ..FaultEntry::cos(CosFault::Reset)
        }]);
        let meets = |operation: &str, bucket: &str, key: &str, session: &str| {
            let target = || FaultTarget {
                operation: Some(operation.into()),
                bucket: Some(bucket.into()),
                key: Some(key.into()),
                session: Some(session.into()),
            };
            !switch.meet(FaultService::Cos, target).cos.is_empty()
        };
        let session = audit_name("team-1");
        for _ in 0..3 {
            assert!(!meets("GetObject", "b-1", "a/x", &session));
            assert!(!meets("PutObject", "b-2", "a/x", &session));
            assert!(!meets("PutObject", "b-1", "b/x", &session));
            assert!(!meets("PutObject", "b-1", "a/x", "other"));
            assert!(!meets("PutObject", "b-1", "a/x", &session));
            assert!(meets("PutObject", "b-1", "a/x", "team-1"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_times_from_activation() {
        let switch = switch(vec![
            FaultEntry {
                from: span("2s"),
                until: Some(span("3s")),
                ..FaultEntry::cos(CosFault::Reset)
            },
            FaultEntry {
                from: span("2s"),
                ..FaultEntry::cos(CosFault::RevokeKeys)
            },
        ]);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let met = meet(&switch);
            seen.push((met.cos.len(), met.revoked.len()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(seen, [(0, 0), (0, 0), (1, 1), (0, 0)]);
    }

    #[test]
    fn waits_follow_the_requested_distribution() {
        let waits = |latency: &FaultLatency| {
            let mut waits: Vec<f64> = (0..10_000)
                .map(|index| Draw(index << 20).wait(latency).as_secs_f64())
                .collect();
            waits.sort_by(f64::total_cmp);
            waits
        };
        let normal = waits(&FaultLatency::Normal {
            mean: span("200ms"),
            deviation: span("50ms"),
        });
        let mean = normal.iter().sum::<f64>() / 10_000.0;
        assert!((0.195..0.205).contains(&mean), "{mean}");
        assert!((0.14..0.16).contains(&normal[1587]), "{}", normal[1587]);
        let tail = waits(&FaultLatency::LongTail {
            median: span("20ms"),
            p99: span("2s"),
        });
        assert!((0.019..0.021).contains(&tail[5000]), "{}", tail[5000]);
        assert!((1.6..2.4).contains(&tail[9900]), "{}", tail[9900]);
    }
}
