//! Connections that can be cut on demand.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Maximum size of a connection's read buffer in bytes.
const READ_BUFFER: usize = 256 * 1024;
/// The wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The peer of a connection, and the means to cut it.
#[derive(Clone, Debug)]
pub(super) struct WirePeer {
    pub(super) address: SocketAddr,
    reset: Arc<AtomicBool>,
}

impl WirePeer {
    /// Makes the connection end with a reset instead of a close.
    pub(super) fn cut(&self) -> Cut {
        self.reset.store(true, Ordering::Relaxed);
        Cut
    }

    /// Whether the connection is to be cut.
    pub(super) fn is_cut(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

/// There is no response: the connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut on demand")
    }
}

impl std::error::Error for Cut {}

/// Accepts connections forever and responds to their requests with `respond`. A connection that `accepts` refuses
/// is reset.
pub(super) async fn serve<F, A>(listener: TcpListener, accepts: impl Fn() -> bool, respond: F)
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
        let _ = stream.set_nodelay(true); // without it the connection is only slower
        let peer = WirePeer {
            address,
            reset: Arc::default(),
        };
        let wire = Wire {
            stream,
            reset: Arc::clone(&peer.reset),
        };
        let respond = respond.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, peer.clone()));
            let mut builder = http1::Builder::new();
            builder.max_buf_size(READ_BUFFER);
            // An error means that the client went away, or that a fault cut the connection.
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
            // Without time to linger, the kernel sends a reset when the socket closes.
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
