//! Bodies in both directions: streamed, not gathered, and ended only at their full length.

mod request;
mod response;
pub(crate) mod shape;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Duration;

pub(crate) use request::{ObjectUpload, RequestBody, UploadFailure, UploadSource};
pub(crate) use response::{DownloadFailure, ResponseBody, ResponseConnection};

/// The pace that every body must keep, both ways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaceLimit {
    /// Bytes that must move in each window.
    pub bytes: u64,
    /// The window.
    pub window: Duration,
}

/// Why a small document could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatherFailure {
    /// The connection ended early.
    Gone,
    /// There was no memory for it.
    NoRoom,
    /// It came too slowly.
    Slow,
    /// It is larger than the limit.
    TooLarge,
}

/// The one frame of a body that is whole in memory; `None` once it has been taken.
fn take_whole<E>(whole: &mut Bytes) -> Option<Result<Frame<Bytes>, E>> {
    let whole = std::mem::take(whole);
    (!whole.is_empty()).then(|| Ok(Frame::data(whole)))
}

/// Reads a small document whole: at most `limit` bytes within `time`. `charge` says of each piece that
/// comes whether there is room for it.
pub(crate) async fn gather(
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
