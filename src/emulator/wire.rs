//! Connections, and the ways in which they break on demand.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::StdError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a connection's read buffer at most.
const READ_BUFFER: usize = 256 * 1024;
/// How long to wait when no more connections can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The other end of a connection, and the means to cut it.
#[derive(Clone, Debug)]
pub(super) struct WirePeer {
    pub(super) address: SocketAddr,
    reset: Arc<AtomicBool>,
}

impl WirePeer {
    /// The connection will end with a reset instead of a close.
    pub(super) fn cut(&self) -> Cut {
        self.reset.store(true, Ordering::Relaxed);
        Cut
    }

    /// Whether the connection is to be cut.
    pub(super) fn is_cut(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

/// There is no answer: the connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut on demand")
    }
}

impl std::error::Error for Cut {}

/// Accepts connections for ever, asks `accepts` of each, and answers their requests with `answer`. One that
/// is not accepted is reset.
pub(super) async fn serve<F, A>(listener: TcpListener, accepts: impl Fn() -> bool, answer: F)
where
    F: Fn(Request<Incoming>, WirePeer) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<s3s::Body>, Cut>> + Send,
{
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if !accepts() {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            continue;
        }
        let _ = stream.set_nodelay(true); // slower without, but not wrong
        let peer = WirePeer {
            address,
            reset: Arc::default(),
        };
        let wire = Wire {
            stream,
            reset: Arc::clone(&peer.reset),
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, peer.clone()));
            let mut builder = http1::Builder::new();
            builder.max_buf_size(READ_BUFFER);
            // An error here is the client's going away, or a cut that was asked for.
            let _ = builder.serve_connection(TokioIo::new(wire), service).await;
        });
    }
}

/// A connection that can end in a reset.
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // With no time to linger, the kernel sends a reset when the socket closes.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(())); // a FIN would come before the reset
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What happens to a body after some bytes.
#[derive(Clone, Debug)]
pub(super) enum Breaks {
    /// The connection is cut.
    Cut(WirePeer),
    /// Nothing more comes.
    Stall,
}

/// A body that breaks after some bytes.
pub(super) struct BrokenBody<B> {
    inner: B,
    left: u64,
    breaks: Breaks,
}

impl<B> BrokenBody<B> {
    pub(super) fn new(inner: B, after: u64, breaks: Breaks) -> Self {
        Self {
            inner,
            left: after,
            breaks,
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
            return match &self.breaks {
                Breaks::Cut(peer) => Poll::Ready(Some(Err(Box::new(peer.cut())))),
                Breaks::Stall => Poll::Pending,
            };
        }
        let Poll::Ready(next) = Pin::new(&mut self.inner).poll_frame(cx) else {
            return Poll::Pending;
        };
        let Some(frame) = next else {
            return Poll::Ready(None);
        };
        let mut data = match frame?.into_data() {
            Ok(data) => data,
            Err(other) => return Poll::Ready(Some(Ok(other))),
        };
        let kept = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(data.len());
        data.truncate(kept);
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body with one byte changed.
pub(super) struct FlippedBody<B> {
    inner: B,
    /// Bytes before the one that changes; `None` once it is behind.
    left: Option<u64>,
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
        let next = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(next.map(|frame| Ok(frame?.map_data(|data| self.flip(data)))))
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
