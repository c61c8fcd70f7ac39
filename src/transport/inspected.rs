//! Inspected stream: an inspector looks at all bytes that are read. Writes pass unchanged.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Looks at what is read from a stream.
pub(crate) trait Inspector {
    /// Looks at the bytes of one read, before the reader gets them. An error ends the read with it.
    fn inspect(&mut self, read: &[u8]) -> io::Result<()>;
}

/// A stream and its [`Inspector`].
#[derive(Debug)]
pub(crate) struct InspectedStream<S, I> {
    stream: S,
    inspector: I,
}

impl<S, I> InspectedStream<S, I> {
    /// Has `inspector` look at what is read from `stream`.
    pub(crate) fn new(stream: S, inspector: I) -> Self {
        Self { stream, inspector }
    }
}

impl<S: AsyncRead + Unpin, I: Inspector + Unpin> AsyncRead for InspectedStream<S, I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let already = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(already..).unwrap_or_default();
        Poll::Ready(this.inspector.inspect(read))
    }
}

impl<S: AsyncWrite + Unpin, I: Unpin> AsyncWrite for InspectedStream<S, I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
