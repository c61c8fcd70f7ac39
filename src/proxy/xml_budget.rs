//! How much memory XML bodies may hold: they are the only ones that are gathered.

use std::cell::Cell;
use std::rc::Rc;

use crate::s3::{Code, S3Error};

/// Bytes of XML bodies that one tenant may have in memory on one core. Beyond it that tenant, and no
/// other, is asked to slow down: sixteen of the largest bodies at once is a busy client.
const TENANT_BYTES: usize = 32 * 1024 * 1024;

/// What each tenant's XML bodies hold on this core.
#[derive(Debug)]
pub(super) struct XmlBudget(Box<[Cell<usize>]>);

/// The share of one request; given back when it is dropped.
#[derive(Debug)]
pub(super) struct XmlHold {
    budget: Rc<XmlBudget>,
    tenant: usize,
    bytes: usize,
}

impl XmlBudget {
    /// For so many tenants.
    pub(super) fn new(tenants: usize) -> Rc<Self> {
        Rc::new(Self((0..tenants).map(|_| Cell::new(0)).collect()))
    }

    /// Takes `bytes` for a request of `tenant`.
    pub(super) fn take(self: &Rc<Self>, tenant: usize, bytes: usize) -> Result<XmlHold, S3Error> {
        let held = self.0.get(tenant);
        let held = held.filter(|held| held.get().saturating_add(bytes) <= TENANT_BYTES);
        let Some(held) = held else {
            return Err(S3Error::new(
                Code::SlowDown,
                "Too many requests with XML bodies at once; send fewer at a time.",
            )
            .retry_after(1)
            .close());
        };
        held.set(held.get() + bytes);
        Ok(XmlHold {
            budget: Rc::clone(self),
            tenant,
            bytes,
        })
    }
}

impl Drop for XmlHold {
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
        let budget = XmlBudget::new(2);
        let held: Vec<_> = (0..16).map(|_| budget.take(0, 2 << 20).unwrap()).collect();
        assert_eq!(budget.take(0, 1).unwrap_err().code(), Code::SlowDown);
        assert!(budget.take(1, 2 << 20).is_ok());
        drop(held);
        assert!(budget.take(0, TENANT_BYTES).is_ok());
        assert!(budget.take(0, TENANT_BYTES + 1).is_err());
    }
}
