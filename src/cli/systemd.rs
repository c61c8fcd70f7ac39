//! The contract with systemd: passed sockets, notified states and the watchdog (`sd_listen_fds(3)`, `sd_notify(3)`).

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use cosgate::config::Listen;
use cosgate::downstream::listen::Listening;
use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The sockets that a socket unit passes: the first is the data port, a second one the admin listener.
pub(super) struct Sockets(ListenFd);

impl Sockets {
    pub(super) fn inherited() -> Self {
        Self(ListenFd::from_env())
    }

    /// The socket of the data port; `None`: there is none. An error if it is of another kind than `listen`.
    pub(super) fn data(&mut self, listen: &Listen) -> io::Result<Option<Listening>> {
        match listen {
            Listen::Tcp(_) => Ok(self.0.take_tcp_listener(0)?.map(Listening::Tcp)),
            Listen::Unix(path) => {
                let listener = self.0.take_unix_listener(0)?;
                Ok(listener.map(|listener| Listening::inherited(path, listener)))
            }
        }
    }

    /// The socket of the admin listener.
    pub(super) fn admin(&mut self) -> io::Result<Option<TcpListener>> {
        if self.0.len() < 2 {
            return Ok(None);
        }
        self.0.take_tcp_listener(1)
    }
}

/// Connections are accepted.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] ends it.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// What the end of the process takes besides its drain.
const END_TIME: Duration = Duration::from_secs(15);

/// The drain begins, and may take as long as `drain`, even if that is more than the unit's `TimeoutStopSec`.
pub(super) fn stopping(drain: Duration) {
    // The crate's own state has 32 bits, which are 71 minutes.
    let time = format!("EXTEND_TIMEOUT_USEC={}", (drain + END_TIME).as_micros());
    notify(&[NotifyState::Stopping, NotifyState::Custom(&time)]);
}

/// Notifies the watchdog, if there is one, twice within its time that the thread of this runtime is alive: the
/// one that accepts connections. For ever.
pub(super) async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let pause = (limit / 2).max(Duration::from_millis(1));
    loop {
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(pause).await;
    }
}

/// Does nothing where systemd does not listen.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd of the state of the service");
    }
}
