//! Readiness: whether new requests should be sent here, part by part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::clock::wall_clock;
use crate::config::ReadyPart;
use crate::observe::admin::{PartState, Readiness, identity_part};
use crate::proxy::Shared;
use crate::rewrite::request::authority;

/// How long a probe waits for the first key of all.
const KEY_TIME: Duration = Duration::from_secs(1);
/// How often it looks for that.
const KEY_POLL: Duration = Duration::from_millis(10);
/// For this long COS is taken to be as the last connection to it showed.
const REACH_FRESH: Duration = Duration::from_secs(5);
/// How long a connection to COS may take.
const REACH_TIME: Duration = Duration::from_secs(2);
/// Limit of regions that are tried: those of the first grants.
const REGIONS: usize = 8;

/// Finds out how the parts stand, and remembers what need not be found out again.
#[derive(Debug, Default)]
pub(super) struct ReadinessCheck {
    /// The keys that readiness waits for are there, or have been tried.
    has_keys: AtomicBool,
    /// How often a probe has had the issuers try.
    attempts: AtomicUsize,
    reached: Mutex<Option<(Instant, PartState)>>,
}

impl ReadinessCheck {
    /// How `shared` stands. Whether COS can be reached is only tried if that is required, or if `is_verbose`.
    pub(crate) async fn readiness(&self, shared: &Shared, is_verbose: bool) -> Readiness {
        let requires = |part| shared.config().server.ready_requires.contains(&part);
        let mut parts = vec![configuration(shared), self.keys(shared).await];
        parts.push(sts(shared, requires(ReadyPart::Sts)));
        if is_verbose || requires(ReadyPart::Cos) {
            let mut cos = self.cos(shared).await;
            cos.required = requires(ReadyPart::Cos);
            parts.push(cos);
        }
        let states = shared.tenants().key_states(wall_clock());
        parts.extend(states.iter().map(identity_part));
        Readiness {
            is_draining: shared.is_draining(),
            parts,
        }
    }

    /// Without `warm` no key is fetched before it is needed, so the probe itself has each issuer try.
    async fn keys(&self, shared: &Shared) -> PartState {
        let credentials = shared.credentials();
        let is_warm = || {
            let progress = credentials.warm_progress();
            !shared.config().credential_warm || progress.settled == progress.tenants
        };
        if !self.has_keys.load(Ordering::Relaxed) {
            if !credentials.has_given_key() {
                credentials.try_issuers(self.attempts.fetch_add(1, Ordering::Relaxed));
                let given = async {
                    while !credentials.has_given_key() {
                        sleep(KEY_POLL).await;
                    }
                };
                let _ = timeout(KEY_TIME, given).await;
            }
            let holds = credentials.has_given_key() && is_warm();
            self.has_keys.store(holds, Ordering::Relaxed);
        }
        let holds = self.has_keys.load(Ordering::Relaxed);
        let detail = if holds {
            format!("{} tenants have a live key", credentials.live_keys())
        } else if credentials.has_given_key() {
            let progress = credentials.warm_progress();
            format!(
                "{} of {} tenants' keys fetched or tried",
                progress.settled, progress.tenants
            )
        } else {
            "no issuer has given a key yet; the log says why".to_owned()
        };
        part("keys", holds, true, detail)
    }

    /// Whether a connection to COS can be made, in one region at least.
    async fn cos(&self, shared: &Shared) -> PartState {
        let mut reached = self.reached.lock().await; // one probe connects, the others wait for what it finds
        if let Some((at, state)) = &*reached
            && at.elapsed() < REACH_FRESH
        {
            return state.clone();
        }
        let state = reach(shared).await;
        *reached = Some((Instant::now(), state.clone()));
        state
    }
}

/// Connects to all regions at once, one bucket standing for each.
async fn reach(shared: &Shared) -> PartState {
    let mut regions = BTreeMap::new();
    let tenants = shared.config().tenants.iter().map(|tenant| &tenant.grants);
    let templates = shared.config().templates.iter();
    let templates = templates.map(|template| &template.grants);
    for grant in tenants.chain(templates).flatten() {
        if regions.len() == REGIONS {
            break;
        }
        let host = || authority(&shared.config().upstream, grant);
        regions.entry(grant.region.as_str()).or_insert_with(host);
    }
    let tried = regions.len();
    let dialer = Arc::new(shared.dialer());
    let mut dials = JoinSet::new();
    for (region, host) in regions {
        let (region, dialer) = (region.to_owned(), Arc::clone(&dialer));
        dials.spawn(async move {
            match timeout(REACH_TIME, dialer.dial(&host)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(format!("{region}: {error}")),
                Err(_) => Some(format!("{region}: no connection in {REACH_TIME:?}")),
            }
        });
    }
    let mut failures: Vec<_> = dials.join_all().await.into_iter().flatten().collect();
    failures.sort();
    let holds = failures.is_empty() || failures.len() < tried;
    let detail = match failures.as_slice() {
        [] => format!("{tried} regions can be reached"),
        failures => failures.join("; "),
    };
    part("cos", holds, false, detail)
}

fn configuration(shared: &Shared) -> PartState {
    let (tenants, templates) = (&shared.config().tenants, &shared.config().templates);
    let detail = format!("{} tenants, {} templates", tenants.len(), templates.len());
    part("configuration", true, true, detail)
}

fn sts(shared: &Shared, required: bool) -> PartState {
    let states = shared.credentials().issuer_states();
    let held_back = states.iter().filter(|(_, is_held_back)| *is_held_back);
    let (issuers, held_back) = (states.len(), held_back.count());
    let detail = match (issuers, held_back) {
        (0, _) => "no issuer calls STS".to_owned(),
        (_, 0) => "calls are made".to_owned(),
        _ => format!("calls of {held_back} of {issuers} issuers fail and are held back"),
    };
    part("sts", issuers == 0 || held_back < issuers, required, detail)
}

fn part(name: &str, holds: bool, required: bool, detail: String) -> PartState {
    PartState {
        part: name.to_owned(),
        holds,
        required,
        detail,
    }
}
