//! An issuer's own key that is given, or read from files and watched there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use super::key_document::{CallerKey, DOCUMENT_BYTES};
use crate::config::{GivenKey, GivenSecret, Profile};
use crate::secret::Secret;
use crate::transport::bounded_file::read_text_file;
use crate::transport::file_state::FileState;

/// A key in files, or in none.
#[derive(Debug)]
pub(super) struct WatchedKey {
    issuer: String,
    location: KeyLocation,
    state: Mutex<LastKey>,
}

#[derive(Debug)]
enum KeyLocation {
    Given(GivenKey),
    Profile { name: String, file: PathBuf },
}

#[derive(Debug)]
struct LastKey {
    key: Arc<CallerKey>,
    /// The files' states that `key` was read from, and those that no key could be read from.
    good: Option<Vec<Option<FileState>>>,
    bad: Option<Vec<Option<FileState>>>,
}

impl WatchedKey {
    pub(super) fn given(issuer: &str, key: &GivenKey) -> Self {
        let current = CallerKey {
            secret_id: key.secret_id.value.expose().to_owned(),
            secret_key: key.secret_key.value.clone(),
            token: key.token.as_ref().map(|token| token.value.clone()),
        };
        Self::new(issuer, KeyLocation::Given(key.clone()), current)
    }

    /// Fails when the profile can no longer be read.
    pub(super) fn profile(issuer: &str, name: &str, file: &Path) -> Result<Self, String> {
        let current = read_profile(name, file)?;
        let (name, file) = (name.to_owned(), file.to_owned());
        Ok(Self::new(
            issuer,
            KeyLocation::Profile { name, file },
            current,
        ))
    }

    fn new(issuer: &str, location: KeyLocation, key: CallerKey) -> Self {
        Self {
            issuer: issuer.to_owned(),
            location,
            state: Mutex::new(LastKey {
                key: Arc::new(key),
                good: None,
                bad: None,
            }),
        }
    }

    /// The key that its files have now. While they have no good one, the last one stays.
    pub(super) fn key(&self) -> Arc<CallerKey> {
        let mut last = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<_> = self.location.files().map(FileState::of).collect();
        if now.is_empty() || last.good.as_ref() == Some(&now) {
            return Arc::clone(&last.key);
        }
        match self.location.read() {
            Ok(key) => {
                if last.good.is_some() {
                    tracing::info!(issuer = self.issuer, "the issuer's key has changed");
                }
                last.key = Arc::new(key);
                last.good = Some(now);
            }
            Err(error) => {
                if last.bad.as_ref() != Some(&now) {
                    tracing::warn!(
                        issuer = self.issuer,
                        error,
                        "the issuer's key cannot be read: the last one stays in use"
                    );
                }
                last.bad = Some(now);
            }
        }
        Arc::clone(&last.key)
    }
}

impl KeyLocation {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let files = match self {
            Self::Given(GivenKey {
                secret_id,
                secret_key,
                token,
            }) => [
                secret_id.file(),
                secret_key.file(),
                token.as_ref().and_then(GivenSecret::file),
            ],
            Self::Profile { file, .. } => [Some(file.as_path()), None, None],
        };
        files.into_iter().flatten()
    }

    fn read(&self) -> Result<CallerKey, String> {
        match self {
            Self::Given(key) => Ok(CallerKey {
                secret_id: read_secret(&key.secret_id)?.expose().to_owned(),
                secret_key: read_secret(&key.secret_key)?,
                token: key.token.as_ref().map(read_secret).transpose()?,
            }),
            Self::Profile { name, file } => read_profile(name, file),
        }
    }
}

fn read_secret(secret: &GivenSecret) -> Result<Secret, String> {
    let Some(file) = secret.file() else {
        return Ok(secret.value.clone());
    };
    let text = read_text(file)?;
    GivenSecret::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

pub(super) fn read_profile(name: &str, file: &Path) -> Result<CallerKey, String> {
    let text = read_text(file)?;
    let profile = Profile::parse(&text, name);
    let Profile {
        secret_id,
        secret_key,
        token,
    } = profile.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(CallerKey {
        secret_id,
        secret_key,
        token,
    })
}

/// The text of a small file.
pub(super) fn read_text(file: &Path) -> Result<Zeroizing<String>, String> {
    read_text_file(file, DOCUMENT_BYTES as u64).map_err(|error| error.to_string())
}
