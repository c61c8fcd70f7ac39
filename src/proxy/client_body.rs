//! [`ClientBody`]: the body of a response on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::in_flight::InFlight;
use crate::body::{DownloadFailure, ResponseBody};
use crate::transport::FRAME;

/// A response's body, and the request that ends with it.
#[derive(Debug)]
pub(crate) struct ClientBody {
    body: ResponseBody,
    /// HTTP/2: what has not been handed over of the last bytes.
    rest: Bytes,
    in_flight: Box<InFlight>,
}

impl ClientBody {
    /// The body of the response to `in_flight`.
    pub(super) fn new(body: ResponseBody, in_flight: Box<InFlight>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            in_flight,
        }
    }

    /// The next bytes for an HTTP/2 stream, no more than a frame's. hyper takes bytes as soon as the
    /// client has room for one, and nobody watches what h2 cannot send: so it never has much.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFailure>>> {
        let stream_state = &self.in_flight.stream_state;
        stream_state.hand_over(None);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(FRAME));
        stream_state.hand_over(Some(piece.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = DownloadFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFailure>>> {
        let this = self.get_mut();
        let frame = if this.in_flight.stream_state.is_stream() {
            ready!(this.poll_piece(cx))
        } else {
            ready!(Pin::new(&mut this.body).poll_frame(cx))
        };
        if let Some(Ok(frame)) = &frame {
            this.in_flight.record.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
