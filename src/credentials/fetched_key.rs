//! An issuer's own key that something else makes: fetched once for all calls, and renewed before it
//! expires.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::time::{Duration, Instant};

use super::key_document::{self, CallerKey};
use super::single_flight::{Flight, FlightFailure, SingleFlight, Unfinished};
use super::sts::{StsClass, StsError};
use crate::clock::Clock;

/// The time between two fetches of one key after a failure. After each key in a row that STS refuses
/// and never accepted it doubles, up to [`LONGEST_GAP`].
const GAP: Duration = Duration::from_secs(2);
const LONGEST_GAP: Duration = Duration::from_secs(30);
/// A fetched key that does not expire is fetched again after this: it may have been rotated.
const FETCH_AGAIN: Duration = Duration::from_hours(1);
/// A key is given up this long before it expires, or at three quarters of its life.
const MARGIN: Duration = Duration::from_secs(30);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_hours(7 * 24);

/// A key, and how long it lives if it expires.
pub(super) type KeyWithLife = (CallerKey, Option<Duration>);
type Fetching = Pin<Box<dyn Future<Output = Result<KeyWithLife, StsError>> + Send>>;

/// A key that is fetched.
pub(super) struct FetchedKey {
    issuer: String,
    fetch: Box<dyn Fn() -> Fetching + Send + Sync>,
    fetches: Arc<SingleFlight<Arc<KeptKey>, StsError>>,
    /// Keys in a row that STS has refused and never accepted.
    unworkable: AtomicU32,
}

#[derive(Debug)]
struct KeptKey {
    key: Arc<CallerKey>,
    soft: Instant,
    hard: Option<Instant>,
    /// STS has accepted it once.
    has_worked: AtomicBool,
}

impl KeptKey {
    fn new(key: CallerKey, life: Option<Duration>) -> Self {
        let now = Instant::now();
        let life = life.map(|life| life.min(MAX_LIFE));
        Self {
            key: Arc::new(key),
            soft: now + life.map_or(FETCH_AGAIN, |life| (life * 2 / 3).max(GAP)),
            hard: life.map(|life| now + life.saturating_sub(MARGIN.min(life / 4))),
            has_worked: AtomicBool::new(false),
        }
    }

    fn is_live(&self) -> bool {
        self.hard.is_none_or(|hard| Instant::now() < hard)
    }
}

impl FetchedKey {
    /// The own key of the issuer of this name; `fetch` makes one.
    pub(super) fn new<F>(issuer: &str, fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<KeyWithLife, StsError>> + Send + 'static,
    {
        Self {
            issuer: issuer.to_owned(),
            fetch: Box::new(move || Box::pin(fetch())),
            fetches: Arc::new(SingleFlight::new()),
            unworkable: AtomicU32::new(0),
        }
    }

    /// The key: at once while one is live, and an old one is renewed in the background.
    pub(super) async fn key(&self) -> Result<Arc<CallerKey>, StsError> {
        let is_live = |kept: &Arc<KeptKey>| kept.is_live();
        let shared = self.fetches.share(is_live, |flight| self.start(flight));
        let kept = shared.await?;
        if Instant::now() >= kept.soft
            && let Some(flight) = self.fetches.begin()
        {
            self.start(flight); // the old one serves on, and a failure is logged
        }
        Ok(Arc::clone(&kept.key))
    }

    fn start(&self, flight: Flight<Arc<KeptKey>, StsError>) {
        let (fetching, issuer) = ((self.fetch)(), self.issuer.clone());
        tokio::spawn(async move {
            flight.finish(match fetching.await {
                Ok((key, life)) => Ok(Arc::new(KeptKey::new(key, life))),
                Err(error) => {
                    tracing::warn!(issuer, %error, "the issuer's own key cannot be fetched");
                    Err((error, GAP))
                }
            });
        });
    }

    /// STS has accepted `key`.
    pub(super) fn mark_worked(&self, key: &Arc<CallerKey>) {
        if let Some(kept) = self.fetches.kept(|kept| Arc::ptr_eq(&kept.key, key)) {
            kept.has_worked.store(true, Ordering::Relaxed);
        }
    }

    /// STS has refused `key` with `error`. A key that had worked is replaced at once, and so is the
    /// first one that had not: its source may have kept an old one. After that the next one waits.
    /// Returns whether another can be had at once.
    pub(super) fn reject(&self, key: &Arc<CallerKey>, error: &StsError) -> bool {
        let mut is_replaced = true;
        self.fetches.revise(|results| match &results.value {
            None => is_replaced = results.failure.is_none(),
            Some(kept) if !Arc::ptr_eq(&kept.key, key) => {} // another is here already
            Some(kept) => {
                let pause = self.pause_after(kept);
                is_replaced = pause.is_none();
                results.value = None;
                results.failure = pause.map(|pause| {
                    Arc::new(FlightFailure {
                        error: error.clone().repeated(),
                        until: Instant::now() + pause,
                    })
                });
            }
        });
        is_replaced
    }

    /// Counts that STS has refused `kept`, and says how long the next one waits, if it does.
    fn pause_after(&self, kept: &KeptKey) -> Option<Duration> {
        if kept.has_worked.load(Ordering::Relaxed) {
            self.unworkable.store(0, Ordering::Relaxed);
            return None;
        }
        let before = self.unworkable.fetch_add(1, Ordering::Relaxed);
        let doubled = GAP.saturating_mul(2_u32.saturating_pow(before.checked_sub(1)?));
        Some(doubled.min(LONGEST_GAP))
    }
}

impl fmt::Debug for FetchedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedKey")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// The key in a document that `source`, a key of the configuration, names.
pub(super) fn key_of_document(
    source: &str,
    document: &[u8],
    clock: &Clock,
) -> Result<KeyWithLife, StsError> {
    let wrong = |error: &str| no_key(format!("{source}: {error}"));
    let (key, expires) = key_document::parse(document).map_err(|error| wrong(&error))?;
    let Some(expires) = expires else {
        return Ok((key, None));
    };
    match u64::try_from(expires.since(clock.upstream_now())) {
        Ok(seconds) if seconds > 0 => Ok((key, Some(Duration::from_secs(seconds)))),
        _ => Err(wrong(&format!("the key expired at {expires} already"))),
    }
}

impl From<Unfinished> for StsError {
    fn from(unfinished: Unfinished) -> Self {
        Self::new(StsClass::Retry, "Cancelled", unfinished.to_string())
    }
}

/// The issuer's own key cannot be had.
pub(super) fn no_key(what: String) -> StsError {
    StsError::new(StsClass::Retry, "NoBaseKey", what)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::secret::Secret;

    fn kept(life: Option<u64>) -> (Duration, Option<Duration>) {
        let key = CallerKey {
            secret_id: "AKID".into(),
            secret_key: Secret::new("KEY"),
            token: None,
        };
        let now = Instant::now();
        let kept = KeptKey::new(key, life.map(Duration::from_secs));
        (kept.soft - now, kept.hard.map(|hard| hard - now))
    }

    #[tokio::test(start_paused = true)]
    async fn renews_a_key_before_it_is_given_up() {
        let seconds = Duration::from_secs;
        assert_eq!(kept(Some(7200)), (seconds(4800), Some(seconds(7170))));
        assert_eq!(kept(Some(60)), (seconds(40), Some(seconds(45))));
        assert_eq!(kept(None), (FETCH_AGAIN, None));
        let (soft, hard) = kept(Some(u64::MAX)); // whatever a service says, nothing overflows
        assert!(hard.is_some_and(|hard| soft < hard && hard < MAX_LIFE));
    }

    /// A key whose fetches give a new key each, or fail while `is_down`; and the number of fetches.
    fn counted() -> (Arc<FetchedKey>, Arc<AtomicBool>, Arc<AtomicU32>) {
        let (is_down, count) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (down, counter) = (Arc::clone(&is_down), Arc::clone(&count));
        let fetched = FetchedKey::new("main", move || {
            let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
            let is_down = down.load(Ordering::Relaxed);
            async move {
                if is_down {
                    return Err(no_key("down".to_owned()));
                }
                let key = CallerKey {
                    secret_id: format!("AKID{number}"),
                    secret_key: Secret::new("KEY"),
                    token: None,
                };
                Ok((key, Some(Duration::from_hours(1))))
            }
        });
        (Arc::new(fetched), is_down, count)
    }

    #[tokio::test(start_paused = true)]
    async fn serves_the_old_key_while_it_is_renewed_or_cannot_be() {
        let (key, is_down, count) = counted();
        assert_eq!(key.key().await.unwrap().secret_id, "AKID1");
        sleep(Duration::from_mins(41)).await;
        is_down.store(true, Ordering::Relaxed);
        for _ in 0..10 {
            assert_eq!(key.key().await.unwrap().secret_id, "AKID1");
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(
            count.load(Ordering::Relaxed),
            2,
            "one renewal, which failed"
        );
        sleep(GAP).await;
        is_down.store(false, Ordering::Relaxed);
        assert_eq!(key.key().await.unwrap().secret_id, "AKID1");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(key.key().await.unwrap().secret_id, "AKID3");
        is_down.store(true, Ordering::Relaxed);
        sleep(Duration::from_hours(1)).await;
        for _ in 0..10 {
            assert_eq!(key.key().await.unwrap_err().code, "NoBaseKey");
        }
        assert_eq!(
            count.load(Ordering::Relaxed),
            4,
            "the failure is remembered"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn replaces_refused_keys_at_once_and_then_after_pauses() {
        let (key, _, count) = counted();
        let refused = StsError::new(StsClass::IssuerBroken, "AuthFailure", "no");
        let first = key.key().await.unwrap();
        key.mark_worked(&first);
        assert!(key.reject(&first, &refused), "it had worked");
        let second = key.key().await.unwrap();
        assert!(key.reject(&first, &refused), "another is here already");
        assert!(
            key.reject(&second, &refused),
            "its source may have kept an old one"
        );
        for pause in [2, 4, 8, 16, 30, 30] {
            let refusable = key.key().await.unwrap();
            assert!(!key.reject(&refusable, &refused));
            let error = key.key().await.unwrap_err();
            assert!(error.is_repeated && error.code == "AuthFailure");
            sleep(Duration::from_secs(pause)).await;
        }
        assert_eq!(count.load(Ordering::Relaxed), 8);
    }
}
