//! A body that comes at a given rate.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Parts of a second into which the bytes of a second are divided.
const PIECES: u64 = 20;

/// A body of which so many bytes a second come.
pub(super) struct PacedBody<B> {
    inner: B,
    /// Bytes a second.
    rate: u64,
    /// What has come and may not go on yet.
    held: Bytes,
    wait: Pin<Box<Sleep>>,
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
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            match frame?.into_data() {
                Ok(data) if data.is_empty() => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(data) => self.held = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
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
    async fn all_bytes_come_and_take_their_time() {
        let content: Vec<u8> = (0..=250).cycle().take(10_000).collect();
        let start = Instant::now();
        let body = PacedBody::new(Full::new(Bytes::from(content.clone())), 5000);
        assert_eq!(body.size_hint().exact(), Some(10_000));
        assert_eq!(body.collect().await.unwrap().to_bytes(), content);
        let took = start.elapsed().as_millis();
        assert!((1900..2100).contains(&took), "{took}");
    }
}
