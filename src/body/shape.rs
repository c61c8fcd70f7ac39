//! Rate limits of bodies: a body waits for its tenant's rate and is never cut.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::tenant::Tenant;
use crate::tenant::limits::{Direction, Limits};

/// The moment that limits count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time as [`Limits`] take it.
pub(crate) fn now() -> Duration {
    START.elapsed()
}

/// Keeps one body to its tenant's rate: all bodies of a tenant pay into one account, and each waits
/// until what it has moved is paid for.
#[derive(Debug)]
pub(crate) struct Shaper {
    limits: Arc<Limits>,
    way: Direction,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Shaper {
    /// For a body of `tenant`; `None` where it has no rate.
    pub(crate) fn new(tenant: &Tenant, way: Direction) -> Option<Box<Self>> {
        if tenant.is_unlimited() {
            return None;
        }
        let limits = tenant.limits(now()).filter(|limits| limits.shapes(way))?;
        let mut shaper = Box::new(Self {
            limits,
            way,
            wait: None,
        });
        shaper.moved(0); // behind what others owe
        Some(shaper)
    }

    /// Ready when the next bytes may move; whether there was a wait.
    pub(crate) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut has_waited = false;
        while let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(cx));
            has_waited = true;
            // By now the store that replicas share has said what all of them owe.
            self.wait_for(self.limits.shared_wait(self.way, now()));
        }
        Poll::Ready(has_waited)
    }

    /// Counts bytes that have moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        let wait = self.limits.charge(self.way, now(), bytes as u64);
        self.wait_for(wait);
    }

    fn wait_for(&mut self, wait: Duration) {
        self.wait = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
    }
}
