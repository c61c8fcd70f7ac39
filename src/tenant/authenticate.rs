//! Who asks: local keys, presigned URLs, or the anonymous tenant of a loopback listener.

use http::request::Parts;

use super::Tenant;
use crate::s3::{S3Error, S3Request};
use crate::timestamp::Timestamp;

/// All tenants and their local keys. Immutable once made.
#[derive(Debug)]
pub struct Tenants {
    tenants: Vec<Tenant>,
}

/// A caller that has proved who they are.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated<'t> {
    tenant: &'t Tenant,
    identity: Identity<'t>,
    payload: Payload,
}

/// By what a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'t> {
    /// The anonymous tenant.
    Anonymous,
    /// A SigV4 `Authorization` header under this local key id.
    Header(&'t str),
    /// A presigned URL under this local key id.
    Presigned(&'t str),
}

/// What the client said of its body, and so what must be checked while it streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The SHA-256 that the body must have.
    Sha256([u8; 32]),
    /// `UNSIGNED-PAYLOAD`, or nothing said (presigned, anonymous).
    Unsigned,
}

/// What is known of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The listener's and the peer's addresses are both loopback.
    pub loopback: bool,
    /// The connection is TLS.
    pub tls: bool,
}

impl Tenants {
    /// Finds out who sent `head`. `now` is the local clock.
    pub fn authenticate(
        &self,
        _head: &Parts,
        _asked: &S3Request<'_>,
        _connection: Connection,
        _now: Timestamp,
    ) -> Result<Authenticated<'_>, S3Error> {
        todo!()
    }
}

impl<'t> Authenticated<'t> {
    /// Whose request it is.
    pub fn tenant(&self) -> &'t Tenant {
        self.tenant
    }

    /// By what the caller is known.
    pub fn identity(&self) -> Identity<'t> {
        self.identity
    }

    /// What must hold for the body.
    pub fn payload(&self) -> Payload {
        self.payload
    }
}
