//! The key that an issuer signs its calls with: given or watched in files, or fetched.

use std::sync::Arc;

use super::fetched_key::FetchedKey;
use super::key_document::CallerKey;
use super::key_files::WatchedKey;
use super::sts::StsError;

/// Where an issuer's own key comes from.
#[derive(Debug)]
pub(super) enum Base {
    Fetched(Arc<FetchedKey>),
    Watched(Box<WatchedKey>),
}

impl Base {
    /// The key to sign with now.
    pub(super) async fn key(&self) -> Result<Arc<CallerKey>, StsError> {
        match self {
            Self::Fetched(fetched) => fetched.key().await,
            Self::Watched(watched) => Ok(watched.key()),
        }
    }

    /// STS has accepted `key`.
    pub(super) fn mark_worked(&self, key: &Arc<CallerKey>) {
        if let Self::Fetched(fetched) = self {
            fetched.mark_worked(key);
        }
    }

    /// STS has refused `key` with `error`. Returns whether another can be had at once.
    pub(super) fn reject(&self, key: &Arc<CallerKey>, error: &StsError) -> bool {
        match self {
            Self::Fetched(fetched) => fetched.reject(key, error),
            // Two files are not written at the same time: by now the second may be there.
            Self::Watched(watched) => !Arc::ptr_eq(&watched.key(), key),
        }
    }
}
