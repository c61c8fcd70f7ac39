//! The last requests that failed, for the status page: a few of each core, without secrets.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::decision::Step;
use crate::s3::Operation;
use crate::timestamp::Timestamp;

/// Of each core and each of the two kinds so many are kept.
const KEPT: usize = 50;
/// Bytes that are kept of each text. Clients choose some of them.
const TEXT_BYTES: usize = 300;

/// The last failures of one core. Refusals are kept apart, so that a flood of them, which anybody can send,
/// leaves what an operator must see.
#[derive(Debug, Default)]
pub(super) struct LastErrors {
    faults: Mutex<VecDeque<FailedRequest>>,
    refusals: Mutex<VecDeque<FailedRequest>>,
}

/// A request that failed, as the access log has it.
#[derive(Clone, Debug)]
pub struct FailedRequest {
    /// When its head had arrived.
    pub time: Timestamp,
    /// The id that its client got.
    pub request_id: String,
    /// Its tenant, if it was identified.
    pub tenant: Option<String>,
    /// What it requested, if that was understood.
    pub operation: Option<Operation>,
    /// The status of the response.
    pub status: u16,
    /// The code of the error; `None`: the response was cut off.
    pub code: Option<&'static str>,
    /// The step that it failed at.
    pub step: Option<Step>,
    /// What went wrong.
    pub detail: String,
    /// The request itself was wrong, and nothing else.
    pub is_refusal: bool,
}

impl LastErrors {
    pub(super) fn keep(&self, mut failed: FailedRequest) {
        shorten(&mut failed.detail);
        if let Some(tenant) = &mut failed.tenant {
            shorten(tenant);
        }
        let kind = if failed.is_refusal {
            &self.refusals
        } else {
            &self.faults
        };
        // Its own core and a reader of the page alone ever hold it.
        let mut kept = kind.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(failed);
    }

    pub(super) fn all(&self) -> Vec<FailedRequest> {
        let mut all = Vec::new();
        for kind in [&self.faults, &self.refusals] {
            let kept = kind.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(kept.iter().rev().cloned());
        }
        all
    }
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_BYTES {
        let end = text.floor_char_boundary(TEXT_BYTES);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(number: i64, is_refusal: bool) -> FailedRequest {
        FailedRequest {
            time: Timestamp::from_unix(number),
            request_id: number.to_string(),
            tenant: Some("acme".to_owned()),
            operation: Some(Operation::GetObject),
            status: 403,
            code: Some("AccessDenied"),
            step: Some(Step::Authenticate),
            detail: "é".repeat(1000),
            is_refusal,
        }
    }

    #[test]
    fn a_flood_of_refusals_leaves_the_faults() {
        let errors = LastErrors::default();
        errors.keep(failed(0, false));
        for number in 1..1000 {
            errors.keep(failed(number, true));
        }
        let kept = errors.all();
        assert_eq!(kept.len(), KEPT + 1);
        assert_eq!(kept[0].time, Timestamp::from_unix(0));
        assert_eq!(kept[1].time, Timestamp::from_unix(999), "the newest first");
        assert!(kept[0].detail.len() <= TEXT_BYTES + '…'.len_utf8());
        for number in 1..1000 {
            errors.keep(failed(number, false));
        }
        assert_eq!(errors.all().len(), 2 * KEPT);
    }
}
