//! A timer with an accuracy of some ten microseconds. Tokio's timer counts whole milliseconds, which would add to
//! the measured latency.

use std::io;
use std::time::Duration;

#[cfg(target_os = "linux")]
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// A timer of one thread.
#[derive(Debug)]
pub(super) struct Timer {
    #[cfg(target_os = "linux")]
    descriptor: AsyncFd<std::os::fd::OwnedFd>,
}

impl Timer {
    /// A timer of this thread's runtime.
    #[cfg_attr(
        target_os = "linux",
        expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor is owned and is never taken out again"
        )
    )]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(target_os = "linux")]
            descriptor: AsyncFd::new(timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?)?,
        })
    }

    /// Waits until `time`.
    pub(super) async fn wait_until(&self, time: Instant) -> io::Result<()> {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        self.wait(left).await
    }

    #[cfg(target_os = "linux")]
    async fn wait(&self, left: Duration) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.descriptor.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|descriptor| {
                rustix::io::read(descriptor.get_ref(), &mut expirations).map_err(io::Error::from)
            });
            match read {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn wait(&self, left: Duration) -> io::Result<()> {
        tokio::time::sleep(left).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_the_given_duration() {
        let timer = Timer::new().unwrap();
        for micros in [1, 300, 2_500] {
            let wanted = Duration::from_micros(micros);
            let start = Instant::now();
            timer.wait_until(start + wanted).await.unwrap();
            assert!(start.elapsed() >= wanted);
            timer.wait_until(start).await.unwrap(); // a time that has passed
        }
    }
}
