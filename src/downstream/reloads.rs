//! [`Reloads`]: requests to read the configuration again, by signal, by the admin listener or by a watch.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

pub use crate::observe::admin::ReloadResponse;

/// Requests that wait at once. All that wait get the response of one reload.
const WAITING: usize = 64;

/// Where reloads are requested.
#[derive(Clone, Debug)]
pub struct Reloads(SyncSender<ReloadRequest>);

/// Where the requests come out.
#[derive(Debug)]
pub struct ReloadRequests(Receiver<ReloadRequest>);

/// A request, and who waits for the response.
pub type ReloadRequest = oneshot::Sender<ReloadResponse>;

impl Reloads {
    /// Both ends.
    pub fn new() -> (Self, ReloadRequests) {
        let (requests, requested) = sync_channel(WAITING);
        (Self(requests), ReloadRequests(requested))
    }

    /// Requests a reload; the response comes when it has ended. `None`: too many wait, or the program ends.
    pub fn request(&self) -> Option<oneshot::Receiver<ReloadResponse>> {
        let (request, result) = oneshot::channel();
        self.0.try_send(request).ok()?;
        Some(result)
    }
}

impl ReloadRequests {
    /// The requests that there are, all that have come by now; none when `limit` has passed. `None`: nobody
    /// can request any more.
    pub fn wait(&self, limit: Duration) -> Option<Vec<ReloadRequest>> {
        match self.0.recv_timeout(limit) {
            Ok(first) => Some([first].into_iter().chain(self.0.try_iter()).collect()),
            Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}
