//! [`OnWake`]: a future that is polled only when it was woken.
//!
//! A connection waits for rare events, such as the drain, beside its requests. Without this type it would look for
//! them again whenever it does anything for a request.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled once at first, and then whenever it was woken itself.
pub(super) struct OnWake<F> {
    future: Pin<Box<F>>,
    state: Arc<WakeState>,
    waker: Waker,
}

/// What the future's waker sets.
#[derive(Debug)]
struct WakeState {
    is_woken: AtomicBool,
    task: Mutex<Waker>,
}

impl<F: Future> OnWake<F> {
    /// Waits for `future`.
    pub(super) fn new(future: F) -> Self {
        let state = Arc::new(WakeState {
            is_woken: AtomicBool::new(true),
            task: Mutex::new(Waker::noop().clone()),
        });
        Self {
            future: Box::pin(future),
            waker: Waker::from(Arc::clone(&state)),
            state,
        }
    }
}

impl<F: Future> Future for OnWake<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        this.state.set_task(cx.waker()); // before the check: a wake after it reaches this task
        if !this.state.is_woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future
            .as_mut()
            .poll(&mut Context::from_waker(&this.waker))
    }
}

impl WakeState {
    /// Names the task that polls the future.
    fn set_task(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.will_wake(waker) {
            task.clone_from(waker);
        }
    }
}

impl Wake for WakeState {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn is_polled_again_only_after_it_was_woken() {
        let (polls, notify) = (Cell::new(0), Notify::new());
        let mut notified = Box::pin(notify.notified());
        let future = poll_fn(|cx| {
            polls.set(polls.get() + 1);
            notified.as_mut().poll(cx)
        });
        let mut rare = OnWake::new(future);
        for _ in 0..3 {
            let is_ready = poll_fn(|cx| Poll::Ready(Pin::new(&mut rare).poll(cx).is_ready()));
            assert!(!is_ready.await);
        }
        assert_eq!(polls.get(), 1);
        notify.notify_one();
        rare.await;
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn wakes_the_task_that_polled_it_last() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut rare = OnWake::new(receiver);
        assert!(
            Pin::new(&mut rare)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        let waiting = tokio::spawn(rare);
        tokio::task::yield_now().await;
        sender.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}
