//! [`ResponseBody`]: the body that goes to the client. Responses of COS stream; small documents are made here.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{PaceLimit, take_whole};
use crate::body::shape::Shaper;
use crate::rewrite::Unfit;
use crate::rewrite::listing::ResponseRewriter;
use crate::transport::{BodyInFlight, Side, StreamState, TransferPace};

/// What goes to the client after the head.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// No body.
    Empty,
    /// COS's response as it streams in.
    Stream(Box<Download>),
    /// A small document made here.
    Whole(Bytes),
}

/// COS's response on its way to the client.
#[derive(Debug)]
pub(crate) struct Download {
    incoming: Incoming,
    length: Option<u64>,
    lease: Option<Box<dyn ResponseConnection>>,
    sink: Rc<StreamState>,
    source: Rc<StreamState>,
    pace: TransferPace,
    shaper: Option<Box<Shaper>>,
    rewriter: Option<ResponseRewriter>,
    first: Option<Bytes>,
    cut: Option<Rc<Cell<Option<DownloadFailure>>>>,
    _in_flight: BodyInFlight,
}

/// The connection that a response streams from. Dropped before the response has been read to its end,
/// the connection is closed: the rest of the response belongs to nobody.
pub(crate) trait ResponseConnection: fmt::Debug {
    /// The connection's stream state.
    fn stream_state(&self) -> &Rc<StreamState>;

    /// Gives the connection back, now that the response has been read to its end.
    fn release(self: Box<Self>);
}

/// A response that could not be streamed to its end. The client sees a short transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DownloadFailure {
    /// The client reads too slowly.
    ClientSlow,
    /// The response was not what COS returns; the text says how.
    Malformed(&'static str),
    /// The response says that there is more, and the client would not learn where.
    NoNextPage,
    /// The response named something outside the caller's grants.
    OutOfScope,
    /// COS's connection ended early.
    UpstreamGone,
    /// COS sends too slowly.
    UpstreamSlow,
}

impl ResponseBody {
    /// A small document made here; no body if it is empty.
    pub(crate) fn text(text: String) -> Self {
        if text.is_empty() {
            return Self::Empty;
        }
        Self::Whole(Bytes::from(text))
    }

    /// Streams `incoming`, passed through `rewriter` if there is one, to the connection `sink`.
    /// The lease goes back to the pool when the response has been read to its end.
    pub(crate) fn stream(
        incoming: Incoming,
        lease: Box<dyn ResponseConnection>,
        sink: &Rc<StreamState>,
        pace: PaceLimit,
        rewriter: Option<ResponseRewriter>,
    ) -> Self {
        // An empty body is no document: the rewriter says so.
        if incoming.is_end_stream() && rewriter.is_none() {
            lease.release();
            return Self::Empty;
        }
        Self::Stream(Box::new(Download {
            length: rewriter
                .is_none()
                .then(|| incoming.size_hint().exact())
                .flatten(),
            incoming,
            source: Rc::clone(lease.stream_state()),
            lease: Some(lease),
            sink: Rc::clone(sink),
            pace: TransferPace::new(pace.bytes, pace.window),
            shaper: None,
            rewriter,
            first: None,
            cut: None,
            _in_flight: sink.core().body(),
        }))
    }

    /// Waits for the first bytes, so that what is cut off before them can still become an error.
    pub(crate) async fn begin(&mut self) -> Result<(), DownloadFailure> {
        if let Self::Stream(download) = self {
            download.first = poll_fn(|cx| download.poll_next(cx)).await.transpose()?;
        }
        Ok(())
    }

    /// Keeps a stream to its tenant's rate.
    #[must_use]
    pub(crate) fn shaped(mut self, shaper: Option<Box<Shaper>>) -> Self {
        if let Self::Stream(download) = &mut self {
            download.shaper = shaper;
        }
        self
    }

    /// Leaves the reason in `cut` if the stream fails.
    pub(crate) fn note_failure(&mut self, cut: &Rc<Cell<Option<DownloadFailure>>>) {
        if let Self::Stream(download) = self {
            download.cut = Some(Rc::clone(cut));
        }
    }
}

impl Download {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, DownloadFailure>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            if self.sink.is_blocked() {
                let slow = self.pace.poll_too_slow(cx, Side::Sink, self.sink.written());
                return slow.map(|()| Some(Err(DownloadFailure::ClientSlow)));
            }
            if self.lease.is_none() {
                return Poll::Ready(None);
            }
            if let Some(shaper) = &mut self.shaper
                && ready!(shaper.poll_wait(cx))
            {
                self.pace.rest();
            }
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Some(Err(DownloadFailure::UpstreamGone)));
                }
                Poll::Ready(None) => return self.end(),
                Poll::Pending => {
                    let slow = self
                        .pace
                        .poll_too_slow(cx, Side::Source, self.source.read());
                    return slow.map(|()| Some(Err(DownloadFailure::UpstreamSlow)));
                }
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if let Some(shaper) = &mut self.shaper {
                shaper.moved(data.len());
            }
            let Some(rewriter) = &mut self.rewriter else {
                if self.incoming.is_end_stream() {
                    self.release();
                }
                return Poll::Ready(Some(Ok(data)));
            };
            let mut out = BytesMut::new();
            if let Err(unfit) = rewriter.push(&data, &mut out) {
                return Poll::Ready(Some(Err(unfit.into())));
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(out.freeze())));
            }
        }
    }

    fn end(&mut self) -> Poll<Option<Result<Bytes, DownloadFailure>>> {
        self.release();
        let Some(mut rewriter) = self.rewriter.take() else {
            return Poll::Ready(None);
        };
        let mut out = BytesMut::new();
        let finished = rewriter.finish(&mut out);
        Poll::Ready(match finished {
            Err(unfit) => Some(Err(unfit.into())),
            Ok(()) if out.is_empty() => None,
            Ok(()) => Some(Ok(out.freeze())),
        })
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = DownloadFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFailure>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(download) => {
                let next = ready!(download.poll_next(cx));
                if let (Some(Err(failure)), Some(cut)) = (&next, &download.cut) {
                    cut.set(Some(*failure));
                }
                Poll::Ready(next.map(|r| r.map(Frame::data)))
            }
            Self::Whole(bytes) => Poll::Ready(take_whole(bytes)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(download) => {
                download.lease.is_none() && download.rewriter.is_none() && download.first.is_none()
            }
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(download) => match download.length {
                Some(_) => download.incoming.size_hint(),
                None => SizeHint::default(),
            },
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl From<Unfit> for DownloadFailure {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Malformed(how) => Self::Malformed(how),
            Unfit::NoNextPage => Self::NoNextPage,
            Unfit::OutOfScope => Self::OutOfScope,
        }
    }
}

impl fmt::Display for DownloadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Malformed(how) = self {
            return write!(f, "COS's response cannot be read: {how}");
        }
        f.write_str(match self {
            Self::ClientSlow => "the client read the response too slowly",
            Self::Malformed(how) => how,
            Self::NoNextPage => "COS's listing goes on and does not say where",
            Self::OutOfScope => "the response named something outside the caller's grants",
            Self::UpstreamGone => "COS ended the response before it was whole",
            Self::UpstreamSlow => "COS sent the response too slowly",
        })
    }
}

impl std::error::Error for DownloadFailure {}
