//! Transfer pace: the minimum rate of a body.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Duration, Instant, Sleep, sleep};

/// Finds when a transfer falls below a minimum of bytes in a window.
#[derive(Debug)]
pub(crate) struct TransferPace {
    bytes: u64,
    window: Duration,
    at_start: u64,
    waiting_for: Option<Side>,
    end: Option<Pin<Box<Sleep>>>,
}

/// The two ends of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Where the bytes go.
    Sink,
    /// Where the bytes come from.
    Source,
}

impl TransferPace {
    /// At least `bytes` in each `window`.
    pub(crate) fn new(bytes: u64, window: Duration) -> Self {
        Self {
            bytes,
            window,
            at_start: 0,
            waiting_for: None,
            end: None,
        }
    }

    /// Says that the transfer waits for neither side: the next wait starts a window of its own.
    pub(crate) fn rest(&mut self) {
        self.waiting_for = None;
    }

    /// Called whenever the transfer has to wait for a side: `moved` is what that side has sent or
    /// taken in all. Ready when a window has passed with less than the pace requires. The window starts
    /// anew when the wait turns to the other side.
    pub(crate) fn poll_too_slow(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        moved: u64,
    ) -> Poll<()> {
        if self.waiting_for != Some(side) {
            self.waiting_for = Some(side);
            self.at_start = moved;
            if let Some(end) = &mut self.end {
                end.as_mut().reset(Instant::now() + self.window);
            }
        }
        let window = self.window;
        let end = self.end.get_or_insert_with(|| {
            self.at_start = moved;
            Box::pin(sleep(window))
        });
        while end.as_mut().poll(cx).is_ready() {
            if moved.saturating_sub(self.at_start) < self.bytes {
                return Poll::Ready(());
            }
            self.at_start = moved;
            end.as_mut().reset(Instant::now() + window);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept_over_each_window_not_only_on_average() {
        let mut pace = TransferPace::new(60, Duration::from_mins(1));
        let mut wait = async |moved| {
            tokio::time::timeout(
                Duration::from_secs(61),
                std::future::poll_fn(|cx| pace.poll_too_slow(cx, Side::Source, moved)),
            )
            .await
        };
        assert!(wait(100).await.is_ok(), "nothing moved for a minute");
        let mut pace = TransferPace::new(60, Duration::from_mins(1));
        let mut moved = 0;
        for _ in 0..10 {
            let slow = std::future::poll_fn(|cx| pace.poll_too_slow(cx, Side::Source, moved));
            assert!(
                tokio::time::timeout(Duration::from_secs(25), slow)
                    .await
                    .is_err()
            );
            moved += 70;
        }
    }
}
