//! The data behind the charts and numbers of the status page.

use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Value, json};

use super::AdminPages;
use crate::clock::wall_clock;
use crate::credentials::{IssuerView, KeyCounts};
use crate::observe::COMMIT;
use crate::proxy::Shared;

/// `GET /status.json`
pub(super) fn document(pages: &AdminPages, shared: &Shared) -> Value {
    let KeyCounts {
        failing,
        live,
        missing,
        permanent,
        refreshing,
    } = shared.credentials().key_counts();
    let [connections, in_flight, upstream] = shared.metrics().open_now();
    let issuers = shared.credentials().issuer_views();
    let history = pages.history.lock().unwrap_or_else(PoisonError::into_inner);
    let samples: Vec<_> = history.samples().cloned().collect();
    drop(history);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": COMMIT,
        "time": wall_clock().unix(),
        "started": shared.metrics().started().unix(),
        "draining": shared.is_draining(),
        "requests_in_flight": in_flight,
        "connections": connections,
        "upstream_connections": upstream,
        "keys": {
            "failing": failing,
            "live": live,
            "none": missing,
            "permanent": permanent,
            "refreshing": refreshing,
        },
        "issuers": issuers.iter().map(issuer).collect::<Vec<_>>(),
        "samples": samples,
    })
}

fn issuer(issuer: &IssuerView) -> Value {
    json!({
        "name": issuer.name,
        "failing_keys": issuer.failing_keys,
        "held_back": issuer.is_held_back,
        "probe_in_ms": issuer.probe_in.map(millis),
        "waiting_calls": issuer.waiting,
        "calls_per_second": issuer.calls_per_second,
        "call_ms": millis(issuer.call_time),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
