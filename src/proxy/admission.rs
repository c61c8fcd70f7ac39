//! Admission, the one step that every entry takes: who calls, from where they may, and whether their own
//! limits leave room.

use http::request::Parts;

use super::exit::Exit;
use super::{Client, Proxy, Shared};
use crate::error::S3Error;
use crate::tenant::{Authenticated, Connection, Identified, Peer, may_need_newer_keys};
use crate::timestamp::Timestamp;

impl Proxy {
    /// Where a request comes from: its connection, and the client that trusted proxies say it is.
    pub(super) fn connection(
        &self,
        head: &Parts,
        client: &Client,
        exit: &mut Exit,
    ) -> Result<Connection, S3Error> {
        let origin = self.shared.tenants.caller(&head.headers, client.peer)?;
        exit.from(origin.address);
        Ok(Connection {
            loopback: client.loopback && !origin.is_forwarded,
            tls: client.tls,
            certificate: client.certificate,
            user: match client.peer {
                Peer::Unix(user) if !origin.is_forwarded => Some(user),
                Peer::Tcp(_) | Peer::Unix(_) | Peer::Unnamed => None,
            },
            address: origin.address,
        })
    }

    /// Admits a caller whom `identify` finds out, with whatever else it finds. `token` is the bearer
    /// token that it reads, if it reads one.
    pub(super) async fn admit<T>(
        &self,
        token: Option<&str>,
        identify: impl Fn() -> Result<(Identified, T), S3Error>,
        connection: Connection,
        now: Timestamp,
        exit: &mut Exit,
    ) -> Result<(Authenticated, T), S3Error> {
        let (caller, found) = self.identify(token, identify, now).await?;
        exit.caller(&caller);
        let caller = self.shared.tenants.admit(caller, connection, now)?;
        exit.limit(caller.tenant())?;
        Ok((caller, found))
    }

    /// Identifies once; and once more if the token's key was unknown and newer keys of its provider came.
    async fn identify<T>(
        &self,
        token: Option<&str>,
        identify: impl Fn() -> Result<T, S3Error>,
        now: Timestamp,
    ) -> Result<T, S3Error> {
        let changes = self.shared.tenants.key_changes();
        let refused = match identify() {
            Err(error) if may_need_newer_keys(&error) => error,
            identified => return identified,
        };
        match token {
            // Boxed since it is rare: it must not make every future larger.
            Some(token) if Box::pin(self.newer_keys(token, changes, now)).await => identify(),
            _ => Err(refused),
        }
    }

    /// After `token` was refused with the keys of `changes`: fetches newer ones if it names a key that is
    /// not known, or its provider's keys cannot be used. Gives whether there are any: the same keys would
    /// say the same, at the same cost.
    async fn newer_keys(&self, token: &str, changes: u64, now: Timestamp) -> bool {
        let Shared {
            tenants, key_sets, ..
        } = &*self.shared;
        if let Some(identity) = tenants.lacks_key_of(token, now) {
            key_sets.renew(identity).await;
        }
        tenants.key_changes() != changes
    }
}
