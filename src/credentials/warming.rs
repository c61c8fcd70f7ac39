//! Keys that are fetched before requests need them, and what is known of the issuers that give them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::backlog::Backlog;
use super::breaker::Breaker;
use super::cache::Cache;
use super::entry::Entry;

/// Limit of tenants whose keys are fetched in advance. The keys of others are fetched when requests need them.
const WARM_TENANTS: usize = 10_000;

/// How many of the tenants whose keys are fetched in advance have had one, or a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmProgress {
    /// Those whose first call has ended.
    pub settled: usize,
    /// All of them.
    pub tenants: usize,
}

impl Cache {
    /// Has the first key of each tenant fetched, at the pace of its issuer's calls.
    pub fn warm(&self) {
        self.warmed().for_each(Entry::warm);
    }

    /// How far [`Cache::warm`] has come.
    pub fn warm_progress(&self) -> WarmProgress {
        WarmProgress {
            settled: self.warmed().filter(|entry| entry.is_settled()).count(),
            tenants: self.warmed().count(),
        }
    }

    /// Whether any issuer has ever given a key. It is assumed where keys are only made for subjects: which
    /// there are is not known.
    pub fn has_given_key(&self) -> bool {
        let now = Instant::now();
        let has_key = |entry: &Arc<Entry>| entry.has_live(now);
        let given = self.counters().sts_ok.load(Ordering::Relaxed) > 0;
        given || self.entries().is_empty() || self.entries().iter().any(has_key)
    }

    /// Has each issuer fetch the key of one tenant, with each `attempt` (from 0) of the next: the way to find
    /// out whether it gives keys. STS may refuse the policy of one tenant and give keys to all others.
    pub fn try_issuers(&self, attempt: usize) {
        for issuer in 0..self.issuers().len() {
            let of_issuer = || {
                let entries = self.entries().iter();
                entries.filter(move |entry| entry.scope().issuer == issuer)
            };
            let turn = attempt.checked_rem(of_issuer().count());
            if let Some(entry) = turn.and_then(|turn| of_issuer().nth(turn)) {
                entry.retry();
            }
        }
    }

    /// Each issuer that calls STS, by its name, and whether its calls are held back because they fail.
    pub fn issuer_states(&self) -> Vec<(String, bool)> {
        let issuers = self.issuers().iter().zip(self.paces());
        let calling = issuers.filter(|(issuer, _)| issuer.is_some());
        let state = |(_, (backlog, breaker)): (_, (&Arc<Backlog>, &Arc<Breaker>))| {
            (backlog.issuer().to_owned(), breaker.is_open())
        };
        calling.map(state).collect()
    }

    fn warmed(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries().iter().take(WARM_TENANTS)
    }
}
