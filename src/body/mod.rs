//! Bodies, both ways: streamed, never gathered, and never ended but on their full length.

mod answer;
mod request;
pub mod shape;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Duration;

pub use answer::{Answer, Download, DownloadFailure, Lease};
pub use request::{Request, Upload, UploadFailure};

/// The pace that every body must keep, both ways.
#[derive(Clone, Copy, Debug)]
pub struct PaceLimit {
    /// Bytes that must move in each window.
    pub bytes: u64,
    /// The window.
    pub window: Duration,
}

/// Why a small document could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatherFailure {
    /// The connection ended early.
    Gone,
    /// There was no memory for it.
    NoRoom,
    /// It came too slowly.
    Slow,
    /// It is larger than the limit.
    TooLarge,
}

/// Reads a small document whole: at most `limit` bytes within `time`. `charge` says of each piece that
/// comes whether there is room for it.
pub async fn gather(
    incoming: &mut Incoming,
    limit: usize,
    time: Duration,
    mut charge: impl FnMut(usize) -> bool,
) -> Result<Bytes, GatherFailure> {
    let read = async {
        let mut whole = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|_| GatherFailure::Gone)?.into_data() else {
                continue;
            };
            if whole.len() + data.len() > limit {
                return Err(GatherFailure::TooLarge);
            }
            if !charge(data.len()) {
                return Err(GatherFailure::NoRoom);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(time, read)
        .await
        .unwrap_or(Err(GatherFailure::Slow))
}
