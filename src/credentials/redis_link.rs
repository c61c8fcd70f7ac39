//! Connection to a Redis that reads no more than was requested.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, RedisResult,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The Redis must connect, and respond, within this.
pub(super) const REDIS_TIME: Duration = Duration::from_millis(300);
/// Limit of a sealed entry, in bytes: a token has 4096.
pub(super) const ENTRY_BYTES: usize = 16 * 1024;
/// Bytes of a reply that are read: an entry, and what frames it.
const REPLY_BYTES: usize = ENTRY_BYTES + 1024;
/// The same of all replies together that were requested and have not been read. The client keeps what it
/// has read of a reply until it is whole, and has no limit of its own.
const UNREAD_BYTES: usize = 2 * 1024 * 1024;

/// A connection. Its clones share it.
#[derive(Clone)]
pub(super) struct RedisConnection {
    redis: MultiplexedConnection,
    /// Bytes that may be read: each command earns those of its reply.
    may_read: Arc<AtomicUsize>,
}

/// The connection's bytes, of which no more are read than were requested.
struct BoundedStream {
    stream: TcpStream,
    may_read: Arc<AtomicUsize>,
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let may_read = self.may_read.load(Ordering::Acquire);
        // One byte more shows that there is more.
        let most = buf.remaining().min(may_read.saturating_add(1));
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read > may_read {
            let what = "the Redis sent more than was asked for";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        buf.advance(read);
        self.may_read.fetch_sub(read, Ordering::AcqRel); // nobody else takes any
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl RedisConnection {
    pub(super) async fn dial(info: &ConnectionInfo) -> Result<Self, String> {
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err("its address is not one of TCP".to_owned());
        };
        let stream = TcpStream::connect((host.as_str(), *port));
        let stream = stream.await.map_err(|error| error.to_string())?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let may_read = Arc::new(AtomicUsize::new(REPLY_BYTES)); // for the greeting
        let stream = BoundedStream {
            stream,
            may_read: Arc::clone(&may_read),
        };
        let bounds = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_TIME));
        let made =
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, bounds).await;
        let (redis, driver) = made.map_err(|error| error.category().to_owned())?;
        tokio::spawn(driver); // it ends with the last of the connection's clones
        Ok(Self { redis, may_read })
    }

    /// The reply to `command`.
    pub(super) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let earn = |bytes: usize| Some((bytes + REPLY_BYTES).min(UNREAD_BYTES));
        let _ = self
            .may_read
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, earn);
        command.query_async(&mut self.redis).await
    }
}
