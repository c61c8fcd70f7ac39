//! A key to sign with, and the signing keys that derive from it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use tokio::time::Instant;

use crate::secret::Secret;
use crate::sign::cos::{KeyTime, SignKey};
use crate::sign::sigv4;
use crate::timestamp::Timestamp;

/// Days and regions whose `SigV4` keys are kept: those of one tenant's grants, around midnight twice.
const SIGV4_KEYS: usize = 32;
/// For this long, in seconds, one COS signing key serves: its key time starts at a multiple of it.
const COS_KEY_STEP: i64 = 60;
/// How long a COS signature is good for, in seconds.
const COS_KEY_LIFE: i64 = 900;

/// A key to sign with, its session token, and when it expires.
///
/// The signing keys that derive from it are kept with it, so that a request derives none.
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
    /// STS's id of the call that made the key; empty for a permanent key.
    pub request_id: String,
    token_header: Option<HeaderValue>,
    sigv4_keys: ArcSwap<Vec<Sigv4Key>>,
    cos_key: ArcSwapOption<(KeyTime, SignKey)>,
    worked: AtomicBool,
    life: Option<Life>,
}

/// When a key is renewed and when it is given up, on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// From here on the next key is requested.
    pub(crate) soft: Instant,
    /// From here on the key is not used any more.
    pub(crate) hard: Instant,
}

#[derive(Clone, Debug)]
struct Sigv4Key {
    date: String,
    region: String,
    key: Arc<sigv4::SigningKey>,
}

impl Credential {
    /// A key of generation 1. The token must be text that a header can carry.
    pub fn new(
        secret_id: String,
        secret_key: Secret,
        token: Option<Secret>,
        expires: Option<Timestamp>,
    ) -> Result<Self, BadToken> {
        let token_header = match &token {
            Some(token) => Some(header_value(token)?),
            None => None,
        };
        Ok(Self {
            secret_id,
            secret_key,
            token,
            expires,
            generation: 1,
            request_id: String::new(),
            token_header,
            sigv4_keys: ArcSwap::default(),
            cos_key: ArcSwapOption::empty(),
            worked: AtomicBool::new(false),
            life: None,
        })
    }

    pub(crate) fn with_life(mut self, life: Life, generation: u64) -> Self {
        self.life = Some(life);
        self.generation = generation;
        self
    }

    /// COS has accepted it once: if COS refuses it later, the key was revoked or has expired.
    pub fn mark_worked(&self) {
        if !self.has_worked() {
            self.worked.store(true, Ordering::Relaxed); // written once: cores share the line
        }
    }

    /// Whether COS has accepted it once.
    pub fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    /// `None`: the key is permanent.
    pub(super) fn life(&self) -> Option<Life> {
        self.life
    }

    /// Whether the key may still sign at `now`.
    pub fn is_live(&self, now: Instant) -> bool {
        self.life.is_none_or(|life| now < life.hard)
    }

    /// Whether the next key should be requested at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.life.is_some_and(|life| now >= life.soft)
    }

    /// The token as a header's value, marked sensitive; checked once and not for every request.
    pub fn token_header(&self) -> Option<&HeaderValue> {
        self.token_header.as_ref()
    }

    /// The `SigV4` key of S3 in `region` on `date` (`YYYYMMDD`), derived once.
    pub fn sigv4_key(&self, date: &str, region: &str) -> Arc<sigv4::SigningKey> {
        let find = |keys: &[Sigv4Key]| {
            let same = |key: &&Sigv4Key| key.date == date && key.region == region;
            keys.iter().find(same).map(|found| Arc::clone(&found.key))
        };
        if let Some(key) = find(&self.sigv4_keys.load()) {
            return key;
        }
        let key = Arc::new(sigv4::SigningKey::derive(
            &self.secret_key,
            date,
            region,
            "s3",
        ));
        let newest = Sigv4Key {
            date: date.to_owned(),
            region: region.to_owned(),
            key: Arc::clone(&key),
        };
        self.sigv4_keys.rcu(|keys| {
            let others = keys
                .iter()
                .filter(|other| other.date != date || other.region != region);
            std::iter::once(&newest)
                .chain(others)
                .take(SIGV4_KEYS)
                .cloned()
                .collect::<Vec<_>>()
        });
        key
    }

    /// The COS signing key for `now`, with the key time that it belongs to: from up to two minutes
    /// ago (clocks differ) for 15 minutes. Derived once a minute.
    pub fn cos_key(&self, now: Timestamp) -> Arc<(KeyTime, SignKey)> {
        let start = now.plus(-now.unix().rem_euclid(COS_KEY_STEP) - COS_KEY_STEP);
        if let Some(kept) = &*self.cos_key.load()
            && kept.0.start == start
        {
            return Arc::clone(kept);
        }
        let key_time = KeyTime {
            start,
            end: start.plus(COS_KEY_LIFE),
        };
        let key = Arc::new((key_time, SignKey::derive(&self.secret_key, &key_time)));
        self.cos_key.store(Some(Arc::clone(&key)));
        key
    }
}

/// The token has a byte that no HTTP header may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadToken;

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session token is empty or not plain ASCII text: copy it again, without line breaks")
    }
}

impl std::error::Error for BadToken {}

fn header_value(token: &Secret) -> Result<HeaderValue, BadToken> {
    let text = token.expose();
    if !is_visible(text) {
        return Err(BadToken);
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| BadToken)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether `text` is not empty and all visible ASCII: fit for a header, a line of shell, a log.
pub(crate) fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        let token = Some(Secret::new("TOKEN"));
        Credential::new("AKID".into(), Secret::new("KEY"), token, None).unwrap()
    }

    #[test]
    fn derives_a_signing_key_once_for_each_day_and_region() {
        let credential = credential();
        let first = credential.sigv4_key("20260115", "ap-guangzhou");
        let fresh =
            sigv4::SigningKey::derive(&credential.secret_key, "20260115", "ap-guangzhou", "s3");
        assert_eq!(first.sign(b"text"), fresh.sign(b"text"));
        let other = credential.sigv4_key("20260115", "ap-beijing");
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(Arc::ptr_eq(
            &first,
            &credential.sigv4_key("20260115", "ap-guangzhou")
        ));
        for day in 0..2 * SIGV4_KEYS {
            credential.sigv4_key(&day.to_string(), "ap-guangzhou");
        }
        assert_eq!(credential.sigv4_keys.load().len(), SIGV4_KEYS);
    }

    #[test]
    fn reuses_a_cos_key_for_a_minute() {
        let credential = credential();
        let at = |second| credential.cos_key(Timestamp::from_unix(second));
        let first = at(6_000);
        assert_eq!(first.0.to_string(), "5940;6840");
        assert!(Arc::ptr_eq(&first, &at(6_059)));
        assert_eq!(at(6_060).0.to_string(), "6000;6900");
    }

    #[test]
    fn rejects_a_token_that_no_header_can_carry() {
        for text in ["", "a b", "a\r\nb", "é", "\0"] {
            let made = Credential::new(
                "AKID".into(),
                Secret::new("KEY"),
                Some(Secret::new(text)),
                None,
            );
            assert!(made.is_err(), "{text:?}");
        }
        assert!(
            credential()
                .token_header()
                .is_some_and(HeaderValue::is_sensitive)
        );
        assert!(!format!("{:?}", credential()).contains("TOKEN"));
    }
}
