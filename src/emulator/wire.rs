//! Connections, plain or with TLS, that can be cut on demand.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Maximum size of a connection's read buffer in bytes.
const READ_BUFFER: usize = 256 * 1024;
/// The wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time limit of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What is read of a body behind its response: so many bytes, for so long.
const REST_LIMIT: usize = 64 * 1024;
const REST_TIME: Duration = Duration::from_millis(250);

/// The body of a request. What its reader leaves is read behind it, or ends the connection.
#[derive(Clone)]
pub(super) struct ArrivingBody(Arc<Mutex<IncomingRest>>);

struct IncomingRest {
    incoming: Incoming,
    has_ended: bool,
}

impl ArrivingBody {
    fn new(incoming: Incoming) -> Self {
        let has_ended = incoming.is_end_stream();
        Self(Arc::new(Mutex::new(IncomingRest {
            incoming,
            has_ended,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, IncomingRest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the rest of a small body. Gives whether the connection is at its next request then.
    async fn read_rest(self) -> bool {
        let is_small = |bytes| bytes <= REST_LIMIT as u64;
        if !self.is_end_stream() && self.size_hint().upper().is_none_or(is_small) {
            let rest = Limited::new(self.clone(), REST_LIMIT).collect();
            let _ = timeout(REST_TIME, rest).await; // what has ended says so
        }
        self.is_end_stream()
    }
}

impl Body for ArrivingBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut body = self.lock();
        let frame = ready!(Pin::new(&mut body.incoming).poll_frame(cx));
        body.has_ended |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.lock();
        body.has_ended || body.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().incoming.size_hint()
    }
}

/// The peer of a connection, and the means to cut it.
#[derive(Clone, Debug)]
pub(super) struct WirePeer {
    pub(super) address: SocketAddr,
    reset: Arc<AtomicBool>,
    upper_case: Arc<AtomicBool>,
}

impl WirePeer {
    /// Makes the connection end with a reset instead of a close.
    pub(super) fn cut(&self) -> Cut {
        self.reset.store(true, Ordering::Relaxed);
        Cut
    }

    /// Whether the connection's first bytes have metadata with an upper-case letter in its name. hyper writes all names
    /// in lower case.
    pub(super) fn has_upper_case_metadata(&self) -> bool {
        self.upper_case.load(Ordering::Relaxed)
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

/// What becomes of a new connection.
pub(super) enum Accepted {
    Plain,
    Tls(TlsAcceptor),
    /// It is reset.
    Refused,
}

/// Accepts connections forever, each as `accepts` says, and responds to their requests with `respond`.
pub(super) async fn serve<F, A>(listener: TcpListener, accepts: impl Fn() -> Accepted, respond: F)
where
    F: Fn(Request<ArrivingBody>, WirePeer) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<s3s::Body>, Cut>> + Send + 'static,
{
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let accepted = accepts();
        let _ = stream.set_nodelay(true); // without it the connection is only slower
        let peer = WirePeer {
            address,
            reset: Arc::default(),
            upper_case: Arc::default(),
        };
        let respond = respond.clone();
        match accepted {
            Accepted::Refused => reset_on_close(&stream),
            Accepted::Plain => drop(tokio::spawn(serve_requests(
                stream,
                |tcp| tcp,
                peer,
                respond,
            ))),
            Accepted::Tls(tls) => drop(tokio::spawn(async move {
                // A client that does not speak TLS, or does not trust the certificate, has its error already.
                if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                    serve_requests(stream, |tls| tls.get_ref().0, peer, respond).await;
                }
            })),
        }
    }
}

/// Responds to the requests of one connection, whose socket is `socket(&stream)`.
async fn serve_requests<S, F, A>(
    stream: S,
    socket: fn(&S) -> &TcpStream,
    peer: WirePeer,
    respond: F,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<ArrivingBody>, WirePeer) -> A,
    A: Future<Output = Result<Response<s3s::Body>, Cut>>,
{
    let wire = Wire {
        stream,
        socket,
        reset: Arc::clone(&peer.reset),
        upper_case: Arc::clone(&peer.upper_case),
        is_read: false,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let request = request.map(ArrivingBody::new);
        let body = request.body().clone();
        // To read on would ask a client for the body that it holds back.
        let is_held_back = request.headers().contains_key(EXPECT);
        let response = respond(request, peer.clone());
        async move {
            let mut response = response.await?;
            let is_at_next = body.is_end_stream() || !is_held_back && body.read_rest().await;
            if !is_at_next {
                // hyper would close without a word, and the client's next request might be on its way.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Cut>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ_BUFFER);
    // An error means that the client went away, or that a fault cut the connection.
    let _ = builder.serve_connection(TokioIo::new(wire), service).await;
}

/// Without time to linger, the kernel sends a reset when the socket closes.
fn reset_on_close(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// A connection that can end in a reset.
struct Wire<S> {
    stream: S,
    socket: fn(&S) -> &TcpStream,
    reset: Arc<AtomicBool>,
    upper_case: Arc<AtomicBool>,
    /// The first bytes have been read.
    is_read: bool,
}

/// Whether a head has metadata with an upper-case letter in its name, which follows eleven characters.
fn has_upper_case_metadata(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let Some((start, rest)) = name.split_at_checked("x-cos-meta-".len()) else {
            return false;
        };
        let starts = [b"x-amz-meta-", b"x-cos-meta-"];
        starts
            .iter()
            .any(|known| start.eq_ignore_ascii_case(*known))
            && rest.iter().any(u8::is_ascii_uppercase)
    })
}

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            reset_on_close((self.socket)(&self.stream));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().get(before..).unwrap_or_default();
        if !self.is_read && !read.is_empty() {
            self.is_read = true;
            let has_upper_case = has_upper_case_metadata(read);
            self.upper_case.store(has_upper_case, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
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
            return Poll::Ready(Ok(())); // a FIN, or TLS's own end, would come before the reset
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_upper_case_behind_the_start_of_a_name() {
        for (head, expected) in [
            ("PUT /A HTTP/1.1\r\nX-Amz-Meta-a: B\r\n\r\n", false),
            (
                "PUT / HTTP/1.1\r\nhost: b\r\nx-amz-meta-aB: 1\r\n\r\n",
                true,
            ),
            ("PUT / HTTP/1.1\r\nX-COS-META-A: 1\r\n\r\n", true),
            ("", false),
        ] {
            assert_eq!(has_upper_case_metadata(head.as_bytes()), expected, "{head}");
        }
    }
}
