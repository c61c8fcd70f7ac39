//! The memory limit of the few bodies of known callers that are gathered: XML, objects of unknown
//! length, small forms. It is charged as the bytes come, so that to announce a body costs nobody anything.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::error::{Code, S3Error};

/// Bytes of gathered bodies that one tenant may have in memory on one core. Beyond it that tenant,
/// and no other, gets `SlowDown`: sixteen of the largest XML bodies at once is a busy client.
const TENANT_BYTES: usize = 32 * 1024 * 1024;
/// The same of all tenants of one template together: there may be a million.
const TEMPLATE_BYTES: usize = 256 * 1024 * 1024;

/// What the gathered bodies hold on this core: only those who hold something are in it.
#[derive(Debug, Default)]
pub(super) struct GatherBudget(RefCell<GatheredBytes>);

#[derive(Debug, Default)]
struct GatheredBytes {
    by_name: HashMap<String, usize>,
    by_index: HashMap<usize, usize>,
}

/// What one request holds; given back when it is dropped.
#[derive(Debug)]
pub(super) struct GatherHold {
    budget: Rc<GatherBudget>,
    name: String,
    index: usize,
    bytes: usize,
}

impl GatherBudget {
    /// Nothing is held.
    pub(super) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Begins to gather a body of the tenant `name`, which is, or is of the template, at `index`.
    pub(super) fn hold(self: &Rc<Self>, name: &str, index: usize) -> GatherHold {
        GatherHold {
            budget: Rc::clone(self),
            name: name.to_owned(),
            index,
            bytes: 0,
        }
    }
}

impl GatherHold {
    /// Charges `bytes` that have come; whether there was room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let held = &mut *self.budget.0.borrow_mut();
        let own = held.by_name.get(&self.name).copied().unwrap_or_default();
        let own = own.saturating_add(bytes);
        let all = held.by_index.get(&self.index).copied().unwrap_or_default();
        let all = all.saturating_add(bytes);
        if own > TENANT_BYTES || all > TEMPLATE_BYTES {
            return false;
        }
        held.by_name.insert(self.name.clone(), own);
        held.by_index.insert(self.index, all);
        self.bytes += bytes;
        true
    }
}

/// The refusal of a body that there is no room for.
pub(super) fn no_room() -> S3Error {
    S3Error::new(
        Code::SlowDown,
        "Too many request bodies are held in memory at once. Send fewer requests at a time.",
    )
    .retry_after(1)
    .close()
}

impl Drop for GatherHold {
    fn drop(&mut self) {
        let held = &mut *self.budget.0.borrow_mut();
        if let Some(own) = held.by_name.get_mut(&self.name) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                held.by_name.remove(&self.name);
            }
        }
        if let Some(all) = held.by_index.get_mut(&self.index) {
            *all = all.saturating_sub(self.bytes);
            if *all == 0 {
                held.by_index.remove(&self.index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(
        budget: &Rc<GatherBudget>,
        name: &str,
        index: usize,
        bytes: usize,
    ) -> Option<GatherHold> {
        let mut hold = budget.hold(name, index);
        hold.grow(bytes).then_some(hold)
    }

    #[test]
    fn a_tenant_at_its_limit_waits_and_the_others_do_not() {
        let budget = GatherBudget::new();
        let mut held: Vec<_> = (0..16)
            .map(|_| take(&budget, "one", 0, 2 << 20).unwrap())
            .collect();
        assert!(take(&budget, "one", 0, 1).is_none());
        assert!(!held[0].grow(1));
        assert!(take(&budget, "other", 1, 2 << 20).is_some());
        drop(held);
        assert!(take(&budget, "one", 0, TENANT_BYTES).is_some());
        assert!(take(&budget, "one", 0, TENANT_BYTES + 1).is_none());
    }

    #[test]
    fn subjects_of_a_template_have_limits_of_their_own_and_one_together() {
        let budget = GatherBudget::new();
        let take = |n: usize| take(&budget, &format!("web/{n}"), 7, TENANT_BYTES);
        let mut held: Vec<_> = (0..8).map(|n| take(n).unwrap()).collect();
        assert!(take(8).is_none());
        held.pop();
        assert!(take(8).is_some());
        drop(held);
        assert!(budget.0.borrow().by_name.is_empty() && budget.0.borrow().by_index.is_empty());
    }

    #[test]
    fn what_was_only_announced_is_not_charged() {
        let budget = GatherBudget::new();
        let _waiting: Vec<_> = (0..1000).map(|_| budget.hold("one", 0)).collect();
        assert!(take(&budget, "one", 0, TENANT_BYTES).is_some());
    }
}
