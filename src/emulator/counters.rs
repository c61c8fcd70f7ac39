//! Counters of the emulator, and the heads of the last requests as they arrived.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use http::request::Parts;
use serde::Serialize;

/// Maximum number of heads that are kept.
const HEADS_KEPT: usize = 1024;
/// Maximum number of session names with a count of their own.
const NAMES_KEPT: usize = 16_384;

/// The head of one request to COS, as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct RecordedHead {
    /// The method.
    pub method: String,
    /// The target, byte for byte.
    pub target: String,
    /// Header names (lower case) and values, in order.
    pub headers: Vec<(String, String)>,
}

/// Numbers since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EmulatorCounts {
    /// Requests to STS.
    pub sts_calls: u64,
    /// Keys issued, by the `Name` of the requested session.
    pub sts_by_name: BTreeMap<String, u64>,
    /// Requests to COS.
    pub cos_requests: u64,
    /// Connections that COS accepted.
    pub cos_connections: u64,
}

/// The counters, shared by the listeners and the tests.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<EmulatorCounts>,
    heads: Mutex<VecDeque<RecordedHead>>,
}

impl Counters {
    /// The current numbers.
    pub fn counts(&self) -> EmulatorCounts {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The heads of the last requests to COS, oldest first.
    pub fn heads(&self) -> Vec<RecordedHead> {
        self.heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Resets everything.
    pub fn reset(&self) {
        self.count(|c| *c = EmulatorCounts::default());
        self.heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(super) fn sts_call(&self) {
        self.count(|c| c.sts_calls += 1);
    }

    pub(super) fn key_issued(&self, name: &str) {
        self.count(|c| {
            if c.sts_by_name.len() < NAMES_KEPT || c.sts_by_name.contains_key(name) {
                *c.sts_by_name.entry(name.to_owned()).or_default() += 1;
            }
        });
    }

    pub(super) fn cos_connection(&self) {
        self.count(|c| c.cos_connections += 1);
    }

    pub(super) fn cos_request(&self, head: &Parts) {
        self.count(|c| c.cos_requests += 1);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = head
            .headers
            .iter()
            .map(|(n, v)| (n.as_str().to_owned(), text(v.as_bytes())))
            .collect();
        let recorded = RecordedHead {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers,
        };
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() == HEADS_KEPT {
            heads.pop_front();
        }
        heads.push_back(recorded);
    }

    fn count(&self, change: impl FnOnce(&mut EmulatorCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
