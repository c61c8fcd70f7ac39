//! The valid keys: those of the accounts, and the temporary ones that STS issued.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dashmap::DashMap;

use crate::emulator::EmulatorAccount;
use crate::emulator::cam::ParsedPolicy;
use crate::emulator::fault_switch::Revocation;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// Maximum number of temporary keys. STS issues no more than these.
const KEYS_LIMIT: usize = 200_000;
/// Expired keys are kept this many seconds, so that they can be distinguished from unknown ones.
const KEPT_EXPIRED: i64 = 3600;
/// Expired keys are removed each time this many have been issued.
const SWEEP_EVERY: usize = 1024;
/// Random bytes of a token before the part that depends on the policy: about 400 characters.
const TOKEN_BYTES: usize = 300;
/// Maximum length of a token's random part: about 1700 characters, as observed at Tencent.
const TOKEN_BYTES_MAX: usize = 1275;

/// All keys of all accounts.
#[derive(Debug)]
pub(super) struct AccountKeys {
    permanent: Vec<Arc<OwnKey>>,
    appids: Vec<String>,
    issued: DashMap<String, Arc<TemporaryKey>>,
}

/// A key of an account itself.
#[derive(Debug)]
pub(super) struct OwnKey {
    id: String,
    secret: Secret,
    /// The account.
    appid: String,
}

/// The properties of a new temporary key.
#[derive(Debug)]
pub(super) struct NewKey<'a> {
    /// The account.
    pub(super) appid: &'a str,
    pub(super) session: &'a str,
    /// The policy and its length; `None` allows everything that the account may do.
    pub(super) policy: Option<(ParsedPolicy, usize)>,
    pub(super) expires: Timestamp,
}

/// A temporary key.
#[derive(Debug)]
pub(super) struct TemporaryKey {
    pub(super) id: String,
    /// The account.
    pub(super) appid: String,
    /// The name of its session.
    pub(super) session: String,
    pub(super) secret: Secret,
    pub(super) token: Secret,
    /// `None` allows everything that the account may do.
    pub(super) policy: Option<ParsedPolicy>,
    pub(super) expires: Timestamp,
}

/// A key by its id.
#[derive(Clone, Debug)]
pub(super) enum AccountKey {
    Permanent(Arc<OwnKey>),
    Temporary(Arc<TemporaryKey>),
}

impl AccountKey {
    pub(super) fn secret(&self) -> &Secret {
        match self {
            Self::Permanent(key) => &key.secret,
            Self::Temporary(key) => &key.secret,
        }
    }

    /// The account of the key.
    pub(super) fn appid(&self) -> &str {
        match self {
            Self::Permanent(key) => &key.appid,
            Self::Temporary(key) => &key.appid,
        }
    }
}

impl AccountKeys {
    pub(super) fn new(accounts: Vec<EmulatorAccount>) -> Self {
        let appids = accounts.iter().map(|account| account.appid.clone());
        let appids = appids.collect();
        let keys = accounts.into_iter().flat_map(|account| {
            let appid = account.appid;
            account.keys.into_iter().map(move |(id, secret)| {
                Arc::new(OwnKey {
                    id,
                    secret,
                    appid: appid.clone(),
                })
            })
        });
        Self {
            permanent: keys.collect(),
            appids,
            issued: DashMap::new(),
        }
    }

    /// The accounts other than `appid`.
    pub(super) fn others(&self, appid: &str) -> Vec<String> {
        let mut others = self.appids.clone();
        others.retain(|other| other != appid);
        others
    }

    /// Whether one of the accounts can create a bucket with this name.
    pub(super) fn can_own(&self, bucket: &str) -> bool {
        let owner = bucket.rsplit_once('-').map(|(_, appid)| appid);
        owner.is_some_and(|owner| self.appids.iter().any(|appid| appid == owner))
    }

    /// The key with the id `id`, expired or not.
    pub(super) fn find(&self, id: &str) -> Option<AccountKey> {
        if let Some(key) = self.permanent.iter().find(|key| key.id == id) {
            return Some(AccountKey::Permanent(Arc::clone(key)));
        }
        self.issued
            .get(id)
            .map(|key| AccountKey::Temporary(Arc::clone(&key)))
    }

    /// Issues a new temporary key; `None` when there is no room or no randomness. The token grows with the policy,
    /// as Tencent's does.
    pub(super) fn issue(&self, new: NewKey<'_>, now: Timestamp) -> Option<Arc<TemporaryKey>> {
        if self.issued.len() % SWEEP_EVERY == SWEEP_EVERY - 1 || self.issued.len() >= KEYS_LIMIT {
            self.issued
                .retain(|_, key| now.since(key.expires) < KEPT_EXPIRED);
        }
        if self.issued.len() >= KEYS_LIMIT {
            return None;
        }
        let (policy, policy_length) = match new.policy {
            Some((policy, length)) => (Some(policy), length),
            None => (None, 0),
        };
        let token_bytes = (TOKEN_BYTES + policy_length / 2).min(TOKEN_BYTES_MAX);
        let key = Arc::new(TemporaryKey {
            id: format!("AKID{}", URL_SAFE_NO_PAD.encode(random(48)?)),
            appid: new.appid.to_owned(),
            session: new.session.to_owned(),
            secret: Secret::new(STANDARD.encode(random(32)?)),
            token: Secret::new(URL_SAFE_NO_PAD.encode(random(token_bytes)?)),
            policy,
            expires: new.expires,
        });
        self.issued.insert(key.id.clone(), Arc::clone(&key));
        Some(key)
    }

    /// Revokes one temporary key. Gives whether it existed.
    pub(super) fn revoke(&self, id: &str) -> bool {
        self.issued.remove(id).is_some()
    }

    /// The session name of the temporary key `id`.
    pub(super) fn session(&self, id: &str) -> Option<String> {
        self.issued.get(id).map(|key| key.session.clone())
    }

    /// Revokes the keys that a fault names.
    pub(super) fn forget(&self, revocation: &Revocation) {
        match revocation {
            Revocation::All => self.revoke_all(),
            Revocation::Sessions(names) => {
                self.issued.retain(|_, key| !names.contains(&key.session));
            }
        }
    }

    /// Revokes all temporary keys.
    pub(super) fn revoke_all(&self) {
        self.issued.clear();
    }

    /// The ids of the temporary keys.
    pub(super) fn issued(&self) -> Vec<String> {
        self.issued
            .iter()
            .map(|entry| entry.key().clone())
            .collect()
    }
}

/// `length` random bytes.
pub(super) fn random(length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}
