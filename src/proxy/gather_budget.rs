//! How much memory the few bodies that are gathered may hold: XML, objects of unknown length, small forms.

use std::cell::Cell;
use std::rc::Rc;

use crate::s3::{Code, S3Error};

/// Bytes of gathered bodies that one tenant may have in memory on one core. Beyond it that tenant,
/// and no other, is asked to slow down: sixteen of the largest XML bodies at once is a busy client.
const TENANT_BYTES: usize = 32 * 1024 * 1024;

/// What each tenant's gathered bodies hold on this core.
#[derive(Debug)]
pub(super) struct GatherBudget(Box<[Cell<usize>]>);

/// The share of one request; given back when it is dropped.
#[derive(Debug)]
pub(super) struct GatherHold {
    budget: Rc<GatherBudget>,
    tenant: usize,
    bytes: usize,
}

impl GatherBudget {
    /// For so many tenants.
    pub(super) fn new(tenants: usize) -> Rc<Self> {
        Rc::new(Self((0..tenants).map(|_| Cell::new(0)).collect()))
    }

    /// Takes `bytes` for a request of `tenant`.
    pub(super) fn take(
        self: &Rc<Self>,
        tenant: usize,
        bytes: usize,
    ) -> Result<GatherHold, S3Error> {
        let held = self.0.get(tenant);
        let held = held.filter(|held| held.get().saturating_add(bytes) <= TENANT_BYTES);
        let Some(held) = held else {
            return Err(S3Error::new(
                Code::SlowDown,
                "Too many requests whose bodies must be held in memory at once; send fewer at a time.",
            )
            .retry_after(1)
            .close());
        };
        held.set(held.get() + bytes);
        Ok(GatherHold {
            budget: Rc::clone(self),
            tenant,
            bytes,
        })
    }
}

impl Drop for GatherHold {
    fn drop(&mut self) {
        if let Some(held) = self.budget.0.get(self.tenant) {
            held.set(held.get().saturating_sub(self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_at_its_limit_waits_and_the_others_do_not() {
        let budget = GatherBudget::new(2);
        let held: Vec<_> = (0..16).map(|_| budget.take(0, 2 << 20).unwrap()).collect();
        assert_eq!(budget.take(0, 1).unwrap_err().code(), Code::SlowDown);
        assert!(budget.take(1, 2 << 20).is_ok());
        drop(held);
        assert!(budget.take(0, TENANT_BYTES).is_ok());
        assert!(budget.take(0, TENANT_BYTES + 1).is_err());
    }
}
