//! The counters of the cache of temporary keys.

use std::sync::atomic::AtomicU64;

use super::histogram::Histogram;

/// Counters of the cache of temporary keys. Each entry counts its own hits.
#[derive(Debug, Default)]
pub struct CacheCounters {
    /// Times that an issuer's calls were held back since too many failed.
    pub breaker_opened: AtomicU64,
    /// Requests that found no live key.
    pub misses: AtomicU64,
    /// Keys dropped because COS refused them.
    pub rejected: AtomicU64,
    /// Calls that STS refused because of our time.
    pub sts_clock: AtomicU64,
    /// Calls refused for the tenant's policy or the duration.
    pub sts_config_wrong: AtomicU64,
    /// Calls refused for the issuer's key.
    pub sts_issuer_broken: AtomicU64,
    /// Calls refused because the issuer may not make them.
    pub sts_not_allowed: AtomicU64,
    /// Calls that gave a key.
    pub sts_ok: AtomicU64,
    /// Calls that failed in a way that may pass.
    pub sts_retry: AtomicU64,
    /// How long calls took.
    pub(crate) sts_time: Histogram,
    /// Entries that other cosgates share, and that do not open with our key.
    pub unopened: AtomicU64,
    /// Keys handed to clients.
    pub vended: AtomicU64,
}
