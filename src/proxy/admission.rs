//! Admission, the one step that every entry takes: who calls, from where they may, and whether their own
//! limits leave room.

use std::future::poll_fn;

use http::request::Parts;
use tokio::time::{Duration, timeout};

use super::in_flight::InFlight;
use super::{Client, Proxy, Shared};
use crate::body::shape;
use crate::decision::Step;
use crate::error::S3Error;
use crate::observe::{Event, TracePartKind};
use crate::s3::S3Request;
use crate::tenant::limits::{RateDecider, Slot};
use crate::tenant::{
    Authenticated, Connection, Identified, Peer, bearer_token, may_need_newer_keys,
};
use crate::timestamp::Timestamp;

impl Proxy {
    /// Where a request comes from: its connection, and the client that trusted proxies name.
    pub(super) fn connection(
        &self,
        head: &Parts,
        client: &Client,
        in_flight: &mut InFlight,
    ) -> Result<Connection, S3Error> {
        let origin = self.shared.tenants.caller(&head.headers, client.peer)?;
        in_flight.record.client = origin.address;
        Ok(Connection {
            loopback: client.loopback
                && !self.config().server.loopback_is_proxy
                && !origin.is_forwarded,
            tls: client.tls.is_some(),
            certificate: self.certified(client),
            user: match client.peer {
                Peer::Unix(user) if !origin.is_forwarded => Some(user),
                Peer::Tcp(_) | Peer::Unix(_) | Peer::Unnamed => None,
            },
            address: origin.address,
        })
    }

    /// Admits the caller of a request for S3; `head` is as it came.
    pub(super) async fn admit_request(
        &self,
        head: &Parts,
        request: &S3Request<'_>,
        connection: Connection,
        in_flight: &mut InFlight,
    ) -> Result<Authenticated, S3Error> {
        let (tenants, now) = (&self.shared.tenants, in_flight.record.time);
        let identify = || Ok((tenants.identify(head, request, connection, now)?, ()));
        let token = bearer_token(&head.headers);
        let admitted = self.admit(token, identify, connection, in_flight).await?;
        Ok(admitted.0)
    }

    /// Admits a caller whom `identify` finds out, with whatever else it finds. `token` is the bearer
    /// token that it reads, if it reads one.
    pub(super) async fn admit<T>(
        &self,
        token: Option<&str>,
        identify: impl Fn() -> Result<(Identified, T), S3Error>,
        connection: Connection,
        in_flight: &mut InFlight,
    ) -> Result<(Authenticated, T), S3Error> {
        let now = in_flight.record.time;
        in_flight.record.begins(TracePartKind::Admission);
        let (caller, found) = self.identify(token, identify, now).await?;
        in_flight.identified(&caller, self.shared.tenants.cors());
        let caller = self.shared.tenants.admit(caller, connection, now)?;
        in_flight.record.step = Step::Limit;
        if let Some(slot) = in_flight.limit(caller.tenant())? {
            // Boxed since it is rare: it must not make every future larger.
            in_flight.slot = Some(Box::pin(self.take_shared(slot)).await?);
        }
        in_flight.record.ends(None);
        Ok((caller, found))
    }

    /// Takes a request of the rate that replicas share. If the store does not respond in time, the replica's
    /// own rate decides.
    async fn take_shared(&self, slot: Slot) -> Result<Slot, S3Error> {
        let limits = slot.limits();
        let shared = self.shared.shared_limits();
        let wait = shared.map_or(Duration::ZERO, |shared| shared.wait());
        let taken = poll_fn(|cx| limits.poll_take(shape::now(), cx.waker()));
        let taken = timeout(wait, taken).await;
        let (decider, taken) =
            taken.unwrap_or_else(|_| (RateDecider::Own, limits.take(shape::now())));
        self.metrics.count(match decider {
            RateDecider::Own => Event::SharedLimitFallback,
            RateDecider::Shared => Event::SharedLimitDecided,
        });
        taken?;
        Ok(slot)
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
