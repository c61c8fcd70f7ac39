//! Connection to a Redis that reads no more than was requested.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, Pipeline,
    RedisConnectionInfo, RedisResult, cmd,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::dial::{Dialer, Roots, Stream};
use crate::config::SharedCache;

/// The Redis must connect, and respond, within this.
pub(crate) const REDIS_TIME: Duration = Duration::from_millis(300);
/// Limit of a sealed entry, in bytes: a token has 4096.
pub(crate) const ENTRY_BYTES: usize = 16 * 1024;
/// Bytes of a reply that are read: an entry, and what frames it.
const REPLY_BYTES: usize = ENTRY_BYTES + 1024;
/// The same of all replies together that were requested and have not been read. The client keeps what it
/// has read of a reply until it is whole, and has no limit of its own.
const UNREAD_BYTES: usize = 2 * 1024 * 1024;

/// Where the Redis is, and how connections to it are made.
pub(crate) struct RedisServer {
    /// Its host is the name of the master where there are sentinels.
    client: Client,
    sentinels: Vec<String>,
    dialer: Dialer,
}

/// A connection. Its clones share it.
#[derive(Clone)]
pub(crate) struct RedisConnection {
    redis: MultiplexedConnection,
    /// Bytes that may be read: each command earns those of its reply.
    may_read: Arc<AtomicUsize>,
}

/// The connection's bytes, of which no more are read than were requested.
struct BoundedStream {
    stream: Stream,
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
        let max = buf.remaining().min(may_read.saturating_add(1));
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(max));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read > may_read {
            let what = "the Redis sent more than was requested";
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

impl RedisServer {
    /// Nothing is dialled yet. The error says how to fix it.
    pub(crate) fn new(config: &SharedCache) -> Result<Self, String> {
        let url = config.redis.value.expose();
        let (is_tls, rest) = match url.strip_prefix("rediss://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("redis://").unwrap_or(url)),
        };
        let plain = Zeroizing::new(format!("redis://{rest}")); // TLS is the dialer's
        let client = Client::open(plain.as_str()).map_err(
            |_| "credentials.shared.redis: write redis://[user:password@]host[:port][/number]",
        )?;
        let roots = Roots::for_endpoint(is_tls, config.ca_file.as_deref())
            .map_err(|error| format!("credentials.shared.ca_file: {error}"))?;
        let roots = roots.map(|roots| roots.speaking_no_http());
        Ok(Self {
            client,
            sentinels: config.sentinels.clone(),
            dialer: Dialer::new(roots.as_ref(), None, REDIS_TIME, REDIS_TIME),
        })
    }

    /// Connects to the Redis, or to the master that the first sentinel that responds names.
    pub(crate) async fn connect(&self) -> Result<RedisConnection, String> {
        let info = self.client.get_connection_info();
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err("its address is not one of TCP".to_owned());
        };
        let address = if self.sentinels.is_empty() {
            authority(host, *port)
        } else {
            self.master(host).await?
        };
        self.dial(&address, info.redis_settings()).await
    }

    /// Where the master of this name is.
    async fn master(&self, name: &str) -> Result<String, String> {
        let mut why = "no sentinel".to_owned();
        for sentinel in &self.sentinels {
            let found = async {
                let mut connection = self.dial(sentinel, &RedisConnectionInfo::default()).await?;
                let mut which = cmd("SENTINEL");
                which.arg("get-master-addr-by-name").arg(name);
                let found = connection.query::<Option<(String, u16)>>(&which).await;
                let found = found.map_err(|error| error.category().to_owned())?;
                found.ok_or_else(|| format!("it knows no master `{}`", name.escape_debug()))
            };
            match timeout(REDIS_TIME, found).await {
                Ok(Ok((host, port))) => return Ok(authority(&host, port)),
                Ok(Err(error)) => why = format!("sentinel {sentinel}: {error}"),
                Err(_) => why = format!("sentinel {sentinel}: no response in time"),
            }
        }
        Err(why)
    }

    async fn dial(
        &self,
        address: &str,
        settings: &RedisConnectionInfo,
    ) -> Result<RedisConnection, String> {
        let stream = self.dialer.dial(address).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let may_read = Arc::new(AtomicUsize::new(REPLY_BYTES)); // for the greeting
        let stream = BoundedStream {
            stream,
            may_read: Arc::clone(&may_read),
        };
        let bounds = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_TIME));
        let made = MultiplexedConnection::new_with_config(settings, stream, bounds).await;
        let (redis, driver) = made.map_err(|error| error.category().to_owned())?;
        tokio::spawn(driver); // it ends with the last of the connection's clones
        Ok(RedisConnection { redis, may_read })
    }

    /// How long [`RedisServer::connect`] may take.
    pub(crate) fn connect_time(&self) -> Duration {
        let sentinels = u32::try_from(self.sentinels.len()).unwrap_or(u32::MAX);
        REDIS_TIME.saturating_mul(sentinels.saturating_add(2))
    }
}

/// `host:port`, an IPv6 address in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

impl RedisConnection {
    /// The reply to `command`.
    pub(crate) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        self.earn();
        command.query_async(&mut self.redis).await
    }

    /// The replies to all of `commands`, which are as long together as one may be.
    pub(crate) async fn query_all<T: FromRedisValue>(
        &mut self,
        commands: &Pipeline,
    ) -> RedisResult<T> {
        self.earn();
        commands.query_async(&mut self.redis).await
    }

    /// One reply more may be read.
    fn earn(&self) {
        let earn = |bytes: usize| Some((bytes + REPLY_BYTES).min(UNREAD_BYTES));
        let _ = self
            .may_read
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, earn);
    }
}
