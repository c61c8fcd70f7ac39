//! How much memory the few bodies that are gathered may hold: XML, and objects of unknown length.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::s3::{Code, S3Error};

/// Bytes of gathered bodies that one tenant may have in memory on one core. Beyond it that tenant,
/// and no other, is asked to slow down: sixteen of the largest XML bodies at once is a busy client.
const TENANT_BYTES: usize = 32 * 1024 * 1024;
/// The same of all tenants of one template together: there may be a million.
const TEMPLATE_BYTES: usize = 256 * 1024 * 1024;

/// What the gathered bodies hold on this core: only those who hold something are in it.
#[derive(Debug, Default)]
pub(super) struct GatherBudget(RefCell<Held>);

#[derive(Debug, Default)]
struct Held {
    by_name: HashMap<String, usize>,
    by_index: HashMap<usize, usize>,
}

/// The share of one request; given back when it is dropped.
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

    /// Takes `bytes` for a request of the tenant `name`, which is, or is of the template, at `index`.
    pub(super) fn take(
        self: &Rc<Self>,
        name: &str,
        index: usize,
        bytes: usize,
    ) -> Result<GatherHold, S3Error> {
        let mut held = self.0.borrow_mut();
        let own = held.by_name.get(name).copied().unwrap_or_default();
        let own = own.saturating_add(bytes);
        let all = held.by_index.get(&index).copied().unwrap_or_default();
        let all = all.saturating_add(bytes);
        if own > TENANT_BYTES || all > TEMPLATE_BYTES {
            return Err(S3Error::new(
                Code::SlowDown,
                "Too many requests whose bodies must be held in memory at once; send fewer at a time.",
            )
            .retry_after(1)
            .close());
        }
        held.by_name.insert(name.to_owned(), own);
        held.by_index.insert(index, all);
        Ok(GatherHold {
            budget: Rc::clone(self),
            name: name.to_owned(),
            index,
            bytes,
        })
    }
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

    #[test]
    fn a_tenant_at_its_limit_waits_and_the_others_do_not() {
        let budget = GatherBudget::new();
        let held: Vec<_> = (0..16)
            .map(|_| budget.take("one", 0, 2 << 20).unwrap())
            .collect();
        assert_eq!(budget.take("one", 0, 1).unwrap_err().code(), Code::SlowDown);
        assert!(budget.take("other", 1, 2 << 20).is_ok());
        drop(held);
        assert!(budget.take("one", 0, TENANT_BYTES).is_ok());
        assert!(budget.take("one", 0, TENANT_BYTES + 1).is_err());
    }

    #[test]
    fn subjects_of_a_template_have_limits_of_their_own_and_one_together() {
        let budget = GatherBudget::new();
        let take = |n: usize| budget.take(&format!("web/{n}"), 7, TENANT_BYTES);
        let mut held: Vec<_> = (0..8).map(|n| take(n).unwrap()).collect();
        assert!(take(8).is_err());
        held.pop();
        assert!(take(8).is_ok());
        drop(held);
        assert!(budget.0.borrow().by_name.is_empty() && budget.0.borrow().by_index.is_empty());
    }
}
