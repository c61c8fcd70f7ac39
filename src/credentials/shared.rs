//! `[credentials.shared]`: keys that several cosgates share through a Redis, sealed.
//!
//! Only the thread that calls STS speaks to it, and only when a key is needed or ageing. Whatever
//! goes wrong there costs a call to STS, and no request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    RedisResult, cmd,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::entry::Entry;
use super::sts::{Issued, StsError};
use crate::clock::Clock;
use crate::config;
use crate::encoding::hex::sha256_hex;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// The Redis must connect, and answer, within this.
const ANSWER: Duration = Duration::from_millis(300);
/// A Redis that failed is left alone for so long.
const AWAY: Duration = Duration::from_secs(5);
/// One cosgate calls STS for a scope; the others wait for its key so long, and then call themselves.
const LEASE: Duration = Duration::from_secs(6);
const LEASE_WAIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// That entries do not open is said once in this time.
const MUTE: Duration = Duration::from_mins(1);
/// Bytes of a sealed entry at most: a token has 4096.
const ENTRY_BYTES: usize = 16 * 1024;
/// Bytes of a reply that are read at most: an entry, and what frames it.
const REPLY_BYTES: usize = ENTRY_BYTES + 1024;
/// The same of all replies together that were asked for and have not been read. The client keeps what it
/// has read of a reply until it is whole, and has no limit of its own.
const UNREAD_BYTES: usize = 2 * 1024 * 1024;
/// The version of what is sealed.
const LABEL: &[u8] = b"shared credentials 1";

/// The Redis and the key of the seal.
pub(super) struct SharedKeys {
    client: Client,
    seal: Seal,
    link: Mutex<Link>,
    clock: Arc<Clock>,
}

#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    /// When it may be tried again.
    away_until: Option<Instant>,
    /// When it may be said again that an entry does not open.
    muted_until: Option<Instant>,
}

#[derive(Clone)]
struct Connection {
    redis: MultiplexedConnection,
    /// Bytes that may be read: each command earns those of its reply.
    may_read: Arc<AtomicUsize>,
}

/// The connection's bytes, of which no more are read than were asked for.
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

impl Connection {
    async fn dial(info: &ConnectionInfo) -> Result<Self, String> {
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
        let bounds = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
        let made =
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, bounds).await;
        let (redis, driver) = made.map_err(|error| error.category().to_owned())?;
        tokio::spawn(driver); // it ends with the last of the connection's clones
        Ok(Self { redis, may_read })
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let earn = |bytes: usize| Some((bytes + REPLY_BYTES).min(UNREAD_BYTES));
        let _ = self
            .may_read
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, earn);
        command.query_async(&mut self.redis).await
    }
}

/// A key, as it is sealed.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept<'a> {
    /// The entry that it is for: the seal alone would do, and this makes sure.
    scope: &'a str,
    secret_id: &'a str,
    secret_key: &'a str,
    token: &'a str,
    expires: i64,
    /// Seconds that it lived when it was new.
    life: u64,
    request_id: &'a str,
}

impl SharedKeys {
    /// Nothing is dialled yet. The error names the mend.
    pub(super) fn new(config: &config::SharedCache, clock: Arc<Clock>) -> Result<Self, String> {
        let client = Client::open(config.redis.expose()).map_err(|_| {
            "credentials.shared.redis: write redis://[:password@]host[:port][/number]".to_owned()
        })?;
        let seal = Seal::new(&config.key, LABEL).ok_or("credentials.shared.key: no key of it")?;
        Ok(Self {
            client,
            seal,
            link: Mutex::default(),
            clock,
        })
    }

    /// A key for `entry`, whose issuer is described by `issuer`: another cosgate's, or what `call` gives.
    pub(super) async fn issue(
        &self,
        entry: &Entry,
        issuer: &str,
        call: impl Future<Output = Result<Issued, StsError>>,
    ) -> Result<Issued, StsError> {
        let scope = entry.scope();
        // Each part is hashed for itself, so that no two scopes can be written alike.
        let parts = [issuer, &scope.tenant, &scope.policy].map(|part| sha256_hex(part.as_bytes()));
        let name = format!("cosgate:key:{}", sha256_hex(parts.concat().as_bytes()));
        let lease = format!("{name}:lease");
        let began = Instant::now();
        let (mut has_lease, mut unopened) = (false, false);
        while began.elapsed() < LEASE_WAIT {
            // Nothing is empty, and more than an entry's bytes are none: they are not read.
            let mut get = cmd("GETRANGE");
            get.arg(&name).arg(0).arg(ENTRY_BYTES);
            let Some(found) = self.ask::<Vec<u8>>(&get).await else {
                break; // there is no Redis
            };
            let text = self.open(&name, &found);
            if let Some(text) = &text
                && let Some(left) = self.left(&name).await
                && let Some(issued) = self.read(&name, text, left)
                && entry.newest().is_none_or(|newest| issued.expires > newest)
            {
                return Ok(issued);
            }
            if text.is_none() && !found.is_empty() && !unopened {
                unopened = true; // once a call, however often it looks again
                entry.counters().unopened.fetch_add(1, Ordering::Relaxed);
                self.warn_of_unopened().await;
            }
            let milliseconds = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
            let mut take = cmd("SET");
            take.arg(&lease)
                .arg(1)
                .arg("NX")
                .arg("PX")
                .arg(milliseconds);
            match self.ask::<Option<String>>(&take).await {
                None => break,
                Some(None) => sleep(LOOK_AGAIN).await,
                Some(Some(_)) => {
                    has_lease = true;
                    break;
                }
            }
        }
        let called = Instant::now();
        let result = call.await;
        if let Ok(issued) = &result {
            self.keep(&name, issued).await;
        }
        if has_lease && called.elapsed() < LEASE / 2 {
            self.ask::<i64>(cmd("DEL").arg(&lease)).await; // surely ours still
        }
        result
    }

    async fn keep(&self, name: &str, issued: &Issued) {
        let kept = Kept {
            scope: name,
            secret_id: &issued.secret_id,
            secret_key: issued.secret_key.expose(),
            token: issued.token.expose(),
            expires: issued.expires.unix(),
            life: issued.life.as_secs(),
            request_id: &issued.request_id,
        };
        let mut text = Zeroizing::new(Vec::with_capacity(ENTRY_BYTES)); // not moved as it grows
        if serde_json::to_writer(&mut *text, &kept).is_err() {
            return;
        }
        if let Some(sealed) = self.seal.seal(name.as_bytes(), &text) {
            let mut set = cmd("SET");
            set.arg(name).arg(sealed).arg("EX").arg(kept.life.max(1));
            self.ask::<String>(&set).await;
        }
    }

    /// How long the Redis keeps what it has: as long as the key lived when it was new. Our own clock may
    /// be wrong still: where a key is found STS is not asked, whose answers put it right.
    async fn left(&self, name: &str) -> Option<u64> {
        let milliseconds = self.ask::<i64>(cmd("PTTL").arg(name)).await?;
        Some(u64::try_from(milliseconds).ok()? / 1000)
    }

    /// What was sealed; `None` when it was not sealed with our key for this scope.
    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if sealed.len() > ENTRY_BYTES {
            return None;
        }
        self.seal.open(name.as_bytes(), sealed)
    }

    /// The operator most likely gave one cosgate another key than the rest: each then calls STS itself.
    async fn warn_of_unopened(&self) {
        let now = Instant::now();
        let mut link = self.link.lock().await;
        if link.muted_until.is_none_or(|until| now >= until) {
            link.muted_until = Some(now + MUTE);
            tracing::warn!(
                "an entry in the Redis of [credentials.shared] does not open: give all cosgates that use it the same `key`"
            );
        }
    }

    /// The key in `text`, if it is for this scope and has half of its life before it. It has no more
    /// than `most` seconds.
    fn read(&self, name: &str, text: &[u8], most: u64) -> Option<Issued> {
        let kept: Kept<'_> = serde_json::from_slice(text).ok()?;
        let expires = Timestamp::from_unix(kept.expires);
        let left = u64::try_from(expires.since(self.clock.upstream_now())).ok()?;
        let left = left.min(most);
        if kept.scope != name || left < kept.life / 2 {
            return None;
        }
        Some(Issued {
            secret_id: kept.secret_id.to_owned(),
            secret_key: Secret::new(kept.secret_key),
            token: Secret::new(kept.token),
            expires,
            life: Duration::from_secs(left.min(kept.life)),
            request_id: kept.request_id.to_owned(),
        })
    }

    /// The Redis's answer; `None` when it is away, which the log hears once in [`AWAY`].
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let mut connection = self.connection().await?;
        let failure = match timeout(ANSWER, connection.ask(command)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.category().to_owned(),
            Err(_) => "no answer in time".to_owned(),
        };
        Self::leave(&mut *self.link.lock().await, &failure);
        None
    }

    async fn connection(&self) -> Option<Connection> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Some(connection.clone());
        }
        if link.away_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let dial = Connection::dial(self.client.get_connection_info());
        match timeout(2 * ANSWER, dial).await {
            Ok(Ok(connection)) => {
                link.connection = Some(connection.clone());
                Some(connection)
            }
            Ok(Err(error)) => {
                Self::leave(&mut link, &error);
                None
            }
            Err(_) => {
                Self::leave(&mut link, "no connection in time");
                None
            }
        }
    }

    fn leave(link: &mut Link, why: &str) {
        tracing::warn!(
            why,
            "the Redis of [credentials.shared] is away: each cosgate calls STS itself"
        );
        link.connection = None;
        link.away_until = Some(Instant::now() + AWAY);
    }
}

impl fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKeys").finish_non_exhaustive()
    }
}
