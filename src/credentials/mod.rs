//! Temporary keys: fetched from STS, kept, renewed before they die.

use std::sync::Arc;

use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// A key to sign with, its session token, and when COS stops taking it.
#[derive(Debug)]
pub struct Credential {
    /// `TmpSecretId`
    pub secret_id: String,
    /// `TmpSecretKey`
    pub secret_key: Secret,
    /// `Token`; `None` for a permanent key.
    pub token: Option<Secret>,
    /// The server's expiry; `None` for a permanent key.
    pub expires: Option<Timestamp>,
    /// Which key of its scope this is: 1, 2, 3, …
    pub generation: u64,
}

/// A credential shared by the requests of one scope.
pub type SharedCredential = Arc<Credential>;
