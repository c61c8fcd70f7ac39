//! `[credentials.shared]`: keys that several cosgates share through a Redis, sealed.
//!
//! Only the thread that calls STS uses it, and only when a key is needed or due. A failure there costs
//! a call to STS, and no request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, cmd};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::entry::{Entry, KeyScope};
use super::sts::{Issued, StsError};
use crate::clock::Clock;
use crate::config;
use crate::encoding::hex::sha256_hex;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::timestamp::Timestamp;
use crate::upstream::redis_link::{ENTRY_BYTES, REDIS_TIME, RedisConnection, RedisServer};

/// A Redis that failed is left alone for so long.
const AWAY: Duration = Duration::from_secs(5);
/// One cosgate calls STS for a scope; the others wait for its key so long, and then call themselves.
const LEASE: Duration = Duration::from_secs(6);
const LEASE_WAIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The time between two warnings that entries do not open.
const MUTE: Duration = Duration::from_mins(1);
/// The version of what is sealed.
const LABEL: &[u8] = b"shared credentials 1";

/// The Redis and the key of the seal.
pub(super) struct SharedKeys {
    server: RedisServer,
    seal: Seal,
    link: Mutex<Link>,
    clock: Arc<Clock>,
}

#[derive(Default)]
struct Link {
    connection: Option<RedisConnection>,
    /// When it may be tried again.
    away_until: Option<Instant>,
    /// No warning that an entry does not open is logged before this.
    muted_until: Option<Instant>,
}

/// A key, as it is sealed.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SealedKey<'a> {
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

/// What a call that several cosgates need comes to.
enum SharedTurn {
    /// Another cosgate has made it.
    Issued(Issued),
    /// Call STS. With the lease the others wait for the key.
    Call { has_lease: bool },
}

impl SharedKeys {
    /// Nothing is dialled yet. The error says how to fix it.
    pub(super) fn new(config: &config::SharedCache, clock: Arc<Clock>) -> Result<Self, String> {
        let server = RedisServer::new(config)?;
        let seal =
            Seal::new(&config.key.value, LABEL).ok_or("credentials.shared.key: no key of it")?;
        Ok(Self {
            server,
            seal,
            link: Mutex::default(),
            clock,
        })
    }

    /// A key for `entry`, whose issuer has this sharing identity: another cosgate's, or the result of `call`.
    pub(super) async fn issue(
        &self,
        entry: &Entry,
        issuer: &str,
        call: impl Future<Output = Result<Issued, StsError>>,
    ) -> Result<Issued, StsError> {
        let name = entry_name(issuer, entry.scope());
        let lease = format!("{name}:lease");
        let has_lease = match self.wait(entry, &name, &lease).await {
            SharedTurn::Issued(key) => return Ok(key),
            SharedTurn::Call { has_lease } => has_lease,
        };
        let called = Instant::now();
        let result = call.await;
        if let Ok(issued) = &result {
            self.keep(&name, issued).await;
        }
        if has_lease && called.elapsed() < LEASE / 2 {
            self.query::<i64>(cmd("DEL").arg(&lease)).await; // surely ours still
        }
        result
    }

    /// Waits for another cosgate's key, or for the turn to call STS.
    async fn wait(&self, entry: &Entry, name: &str, lease: &str) -> SharedTurn {
        let began = Instant::now();
        let mut is_counted = false;
        while began.elapsed() < LEASE_WAIT {
            // Nothing is empty, and more than an entry's bytes are none: they are not read.
            let mut get = cmd("GETRANGE");
            get.arg(name).arg(0).arg(ENTRY_BYTES);
            let Some(found) = self.query::<Vec<u8>>(&get).await else {
                break; // there is no Redis
            };
            let text = self.open(name, &found);
            if let Some(text) = &text
                && let Some(left) = self.left(name).await
                && let Some(issued) = self.read(name, text, left)
                && entry.newest().is_none_or(|newest| issued.expires > newest)
            {
                return SharedTurn::Issued(issued);
            }
            if text.is_none() && !found.is_empty() && !is_counted {
                is_counted = true; // once a call, however often it looks again
                entry.counters().unopened.fetch_add(1, Ordering::Relaxed);
                self.warn_of_unopened().await;
            }
            match self.take_lease(lease).await {
                None => break,
                Some(false) => sleep(LOOK_AGAIN).await,
                Some(true) => return SharedTurn::Call { has_lease: true },
            }
        }
        SharedTurn::Call { has_lease: false }
    }

    /// Whether the right to call STS is ours now; `None` when there is no Redis.
    async fn take_lease(&self, lease: &str) -> Option<bool> {
        let milliseconds = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let mut take = cmd("SET");
        take.arg(lease).arg(1).arg("NX").arg("PX").arg(milliseconds);
        let taken = self.query::<Option<String>>(&take).await?;
        Some(taken.is_some())
    }

    async fn keep(&self, name: &str, issued: &Issued) {
        let kept = SealedKey {
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
            self.query::<String>(&set).await;
        }
    }

    /// How long the Redis keeps what it has: as long as the key lived when it was new. Our own clock may
    /// be wrong still: the responses of STS correct it, and STS is not called where a key is found.
    async fn left(&self, name: &str) -> Option<u64> {
        let milliseconds = self.query::<i64>(cmd("PTTL").arg(name)).await?;
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
    /// than `max` seconds.
    fn read(&self, name: &str, text: &[u8], max: u64) -> Option<Issued> {
        let kept: SealedKey<'_> = serde_json::from_slice(text).ok()?;
        let expires = Timestamp::from_unix(kept.expires);
        let left = u64::try_from(expires.since(self.clock.upstream_now())).ok()?;
        let left = left.min(max);
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

    /// The Redis's response; `None` when it is away, which the log hears once in [`AWAY`].
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let mut connection = self.connection().await?;
        let failure = match timeout(REDIS_TIME, connection.query(command)).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(error)) => error.category().to_owned(),
            Err(_) => "no response in time".to_owned(),
        };
        Self::leave(&mut *self.link.lock().await, &failure);
        None
    }

    async fn connection(&self) -> Option<RedisConnection> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Some(connection.clone());
        }
        if link.away_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match timeout(self.server.connect_time(), self.server.connect()).await {
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
            "the Redis of [credentials.shared] does not respond: each cosgate calls STS itself"
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

/// The name of the entry for `scope` in the Redis, where `issuer` is the sharing identity of its issuer.
fn entry_name(issuer: &str, scope: &KeyScope) -> String {
    // Each part is hashed for itself, so that no two scopes can be written alike.
    let parts = [issuer, &scope.tenant, &scope.policy].map(|part| sha256_hex(part.as_bytes()));
    format!("cosgate:key:{}", sha256_hex(parts.concat().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::wall_clock;

    fn scope(tenant: &str, policy: &str) -> KeyScope {
        KeyScope {
            tenant: tenant.into(),
            policy: policy.into(),
            issuer: 0,
        }
    }

    fn given(secret: &str) -> config::GivenSecret {
        config::GivenSecret {
            value: Secret::new(secret),
            source: config::SecretSource::Literal,
        }
    }

    fn keys() -> SharedKeys {
        let config = config::SharedCache {
            sentinels: Vec::new(),
            limits: false,
            limits_timeout: Duration::from_millis(20),
            ca_file: None,
            redis: given("redis://127.0.0.1:1"),
            key: given("a-key-of-the-shared-cache-0123456789"),
        };
        SharedKeys::new(&config, Arc::new(Clock::new(wall_clock))).unwrap()
    }

    /// Cosgates of all versions must use the name, or they share no keys. It is computed as
    /// `sha256(hex(sha256(issuer)) + hex(sha256(tenant)) + hex(sha256(policy)))`.
    #[test]
    fn names_entries_as_other_versions_do() {
        let name = entry_name("cosgate issuer 1\nname=4:main\n", &scope("acme", "{}"));
        let expected =
            "cosgate:key:aee291d89ee2b2366c91f19cec63ce73fa5be8ed4f9a7637ab0f3de0a726b99b";
        assert_eq!(name, expected);
        assert_ne!(
            entry_name("a", &scope("b", "c")),
            entry_name("ab", &scope("", "c"))
        );
    }

    /// The same holds for what is sealed.
    #[tokio::test]
    async fn reads_entries_as_other_versions_write_them() {
        let now = wall_clock();
        let expires = now.plus(3600);
        let text = format!(
            r#"{{"scope":"n","secret_id":"AKID","secret_key":"KEY","token":"TOKEN","expires":{},"life":7000,"request_id":"r"}}"#,
            expires.unix()
        );
        let issued = keys().read("n", text.as_bytes(), 3590).unwrap();
        assert_eq!(
            (issued.secret_id.as_str(), issued.expires),
            ("AKID", expires)
        );
        assert_eq!(issued.life, Duration::from_secs(3590));
        assert!(
            keys().read("m", text.as_bytes(), 3590).is_none(),
            "of another scope"
        );
        assert!(
            keys().read("n", text.as_bytes(), 3000).is_none(),
            "half of its life is over"
        );
    }
}
