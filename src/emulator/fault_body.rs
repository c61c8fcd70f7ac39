//! Bodies that faults break, change or slow down.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use s3s::StdError;
use tokio::time::{Instant, Sleep};

use crate::emulator::wire::WirePeer;

/// Parts into which the bytes of a second are divided.
const PIECES: u64 = 20;

/// The end of a broken body.
#[derive(Clone, Debug)]
pub(super) enum BodyBreak {
    /// The connection is cut.
    Cut(WirePeer),
    /// Nothing more arrives.
    Stall,
}

/// A body that breaks after some bytes.
pub(super) struct BrokenBody<B> {
    inner: B,
    left: u64,
    end: BodyBreak,
    /// It has paused before the cut.
    has_paused: bool,
}

/// A body with one byte changed.
pub(super) struct FlippedBody<B> {
    inner: B,
    /// Bytes before the changed one; `None` after it.
    left: Option<u64>,
}

/// A body with a limited rate.
pub(super) struct PacedBody<B> {
    inner: B,
    /// Bytes a second.
    rate: u64,
    /// Bytes that have arrived and must still wait.
    held: Bytes,
    wait: Pin<Box<Sleep>>,
}

/// The next bytes of a body, or else its end, its error or its trailers.
type NextData<E> = ControlFlow<Option<Result<Frame<Bytes>, E>>, Bytes>;

fn poll_data<B>(body: &mut B, cx: &mut Context<'_>) -> Poll<NextData<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let next = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(match next.map(|frame| frame.map(Frame::into_data)) {
        Some(Ok(Ok(data))) => ControlFlow::Continue(data),
        Some(Ok(Err(trailers))) => ControlFlow::Break(Some(Ok(trailers))),
        Some(Err(error)) => ControlFlow::Break(Some(Err(error))),
        None => ControlFlow::Break(None),
    })
}

impl<B> BrokenBody<B> {
    pub(super) fn new(inner: B, after: u64, end: BodyBreak) -> Self {
        Self {
            inner,
            left: after,
            end,
            has_paused: false,
        }
    }
}

impl<B> Body for BrokenBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    StdError: From<B::Error>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if self.left == 0 {
            return match &self.end {
                // hyper sends what it holds only while a body waits.
                BodyBreak::Cut(_) if !self.has_paused => {
                    self.has_paused = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                BodyBreak::Cut(peer) => Poll::Ready(Some(Err(Box::new(peer.cut())))),
                BodyBreak::Stall => Poll::Pending,
            };
        }
        let mut data = match ready!(poll_data(&mut self.inner, cx)) {
            ControlFlow::Continue(data) => data,
            ControlFlow::Break(other) => {
                return Poll::Ready(other.map(|frame| frame.map_err(StdError::from)));
            }
        };
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> FlippedBody<B> {
    pub(super) fn new(inner: B, after: u64) -> Self {
        Self {
            inner,
            left: Some(after),
        }
    }
}

impl<B> Body for FlippedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let next = ready!(poll_data(&mut self.inner, cx));
        Poll::Ready(match next {
            ControlFlow::Continue(data) => Some(Ok(Frame::data(self.flip(data)))),
            ControlFlow::Break(other) => other,
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> FlippedBody<B> {
    fn flip(&mut self, data: Bytes) -> Bytes {
        let Some(left) = self.left else { return data };
        self.left = left.checked_sub(data.len() as u64);
        let mut data = BytesMut::from(data);
        if self.left.is_none()
            && let Some(byte) = usize::try_from(left).ok().and_then(|at| data.get_mut(at))
        {
            *byte ^= 1;
        }
        data.freeze()
    }
}

impl<B> PacedBody<B> {
    pub(super) fn new(inner: B, rate: u64) -> Self {
        Self {
            inner,
            rate: rate.max(1),
            held: Bytes::new(),
            wait: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }
}

impl<B> Body for PacedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.held.is_empty() {
            match ready!(poll_data(&mut self.inner, cx)) {
                ControlFlow::Continue(data) if data.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                ControlFlow::Continue(data) => self.held = data,
                ControlFlow::Break(other) => return Poll::Ready(other),
            }
        }
        ready!(self.wait.as_mut().poll(cx));
        let piece = usize::try_from((self.rate / PIECES).max(1)).unwrap_or(usize::MAX);
        let length = piece.min(self.held.len());
        let data = self.held.split_to(length);
        #[expect(clippy::cast_precision_loss, reason = "a wait need not be exact")]
        let pause = Duration::from_secs_f64(length as f64 / self.rate as f64);
        self.wait.as_mut().reset(Instant::now() + pause);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(inner.lower() + held);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paced_body_delivers_all_bytes_at_its_rate() {
        let content: Vec<u8> = (0..=250).cycle().take(10_000).collect();
        let start = Instant::now();
        let body = PacedBody::new(Full::new(Bytes::from(content.clone())), 5000);
        assert_eq!(body.size_hint().exact(), Some(10_000));
        assert_eq!(body.collect().await.unwrap().to_bytes(), content);
        let took = start.elapsed().as_millis();
        assert!((1900..2100).contains(&took), "{took}");
    }
}
