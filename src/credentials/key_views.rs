//! Temporary keys and their issuers as the operator sees them: never a key itself.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::cache::Cache;
use super::credential::Credential;
use super::entry::Entry;
use crate::observe::paging::{PageOf, PageRange};
use crate::timestamp::Timestamp;

/// Resources of a key that are shown. A policy may name many.
const RESOURCES: usize = 4;

/// A key, and how it stands.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// What distinguishes its scope from all others: a tenant, `template/subject`, or either with `#` and a digest of
    /// a session's policy.
    pub name: String,
    /// The tenant.
    pub tenant: String,
    /// The issuer's name.
    pub issuer: String,
    /// What it is for, as its policy has it: the first buckets and prefixes.
    pub scope: Vec<String>,
    /// How many more there are.
    pub more_scope: usize,
    /// How it stands.
    pub status: KeyStatus,
    /// When it expires or expired; `None`: there was none, or it is permanent.
    pub expires: Option<Timestamp>,
    /// From when on a request has the next one fetched.
    pub refresh: Option<Timestamp>,
    /// Which key of its scope it is: 1, 2, 3, …
    pub generation: u64,
    /// Why the last call for a key failed, if it did. It holds no secret.
    pub failure: Option<String>,
}

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStatus {
    /// The last call for a key failed. The key before it may still be live.
    Failing,
    /// It can sign.
    Live,
    /// None is there: no request needed one, or the last one expired.
    Missing,
    /// It is the issuer's own and does not change.
    Permanent,
    /// The next one is fetched, or waits for its turn.
    Refreshing,
}

/// Keys by how they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// See [`KeyStatus::Failing`], and so on.
    pub failing: u64,
    /// [`KeyStatus::Live`]
    pub live: u64,
    /// [`KeyStatus::Missing`]
    pub missing: u64,
    /// [`KeyStatus::Permanent`]
    pub permanent: u64,
    /// [`KeyStatus::Refreshing`]
    pub refreshing: u64,
}

/// An issuer that calls STS, and how its calls go.
#[derive(Clone, Debug)]
pub struct IssuerView {
    /// Its name.
    pub name: String,
    /// Its calls fail and are held back (the breaker is open).
    pub is_held_back: bool,
    /// The time until the next call, a probe, may be made.
    pub probe_in: Option<Duration>,
    /// Keys whose last call failed.
    pub failing_keys: u64,
    /// Calls that wait for their turn.
    pub waiting: u64,
    /// `calls_per_second`
    pub calls_per_second: u32,
    /// How long a call takes, on average.
    pub call_time: Duration,
}

/// What became of a request for new keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    /// The key is the issuer's own.
    Permanent,
    /// So many are fetched, each at its issuer's pace.
    Requested(usize),
    /// There is no such scope.
    Unknown,
}

impl KeyStatus {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Live => "live",
            Self::Missing => "none",
            Self::Permanent => "permanent",
            Self::Refreshing => "refreshing",
        }
    }

    fn of(entry: &Entry) -> Self {
        if entry.is_permanent() {
            Self::Permanent
        } else if entry.failure().is_some() {
            Self::Failing
        } else if entry.is_calling() {
            Self::Refreshing
        } else if entry.has_live(Instant::now()) {
            Self::Live
        } else {
            Self::Missing
        }
    }
}

impl Cache {
    /// A page of the keys that are there, that are fetched or whose last call failed; `now` is the time.
    pub fn key_views(&self, range: &PageRange, now: Timestamp) -> (Vec<KeyView>, Option<String>) {
        let mut page = PageOf::new(range);
        self.each_key(|name, entry| {
            if KeyStatus::of(entry) != KeyStatus::Missing {
                page.offer(name, || Arc::clone(entry));
            }
        });
        let (found, next) = page.finish();
        let views = found
            .iter()
            .map(|(name, entry)| self.view(name, entry, now));
        (views.collect(), next)
    }

    /// The key of the tenant of this index in the configuration.
    pub fn key_view(&self, tenant: usize, now: Timestamp) -> Option<KeyView> {
        let entry = self.entry(tenant)?;
        Some(self.view(&entry.scope().tenant, entry, now))
    }

    /// All keys, by how they stand.
    pub fn key_counts(&self) -> KeyCounts {
        let mut counts = KeyCounts::default();
        self.each_key(|_, entry| {
            let count = match KeyStatus::of(entry) {
                KeyStatus::Failing => &mut counts.failing,
                KeyStatus::Live => &mut counts.live,
                KeyStatus::Missing => &mut counts.missing,
                KeyStatus::Permanent => &mut counts.permanent,
                KeyStatus::Refreshing => &mut counts.refreshing,
            };
            *count += 1;
        });
        counts
    }

    /// The first keys, by name, whose last call failed.
    pub fn failing_keys(&self, max: usize, now: Timestamp) -> Vec<KeyView> {
        let range = PageRange {
            after: String::new(),
            limit: max,
        };
        let mut page = PageOf::new(&range);
        self.each_key(|name, entry| {
            if KeyStatus::of(entry) == KeyStatus::Failing {
                page.offer(name, || Arc::clone(entry));
            }
        });
        let (found, _) = page.finish();
        let views = found
            .iter()
            .map(|(name, entry)| self.view(name, entry, now));
        views.collect()
    }

    /// Has a new key fetched in place of each live one.
    pub fn renew_all(&self) -> RenewalResult {
        let now = Instant::now();
        let mut live = Vec::new();
        self.each_key(|_, entry| {
            if !entry.is_permanent() && entry.has_live(now) {
                live.push(Arc::clone(entry));
            }
        });
        live.iter().for_each(Entry::renew);
        RenewalResult::Requested(live.len())
    }

    /// The same of the scope of this name, whether it has a key or not.
    pub fn renew(&self, name: &str) -> RenewalResult {
        let mut fixed = self.entries().iter();
        let fixed = fixed.find(|entry| entry.scope().tenant == name);
        match fixed.cloned().or_else(|| self.made().find(name)) {
            None => RenewalResult::Unknown,
            Some(entry) if entry.is_permanent() => RenewalResult::Permanent,
            Some(entry) => {
                entry.renew();
                RenewalResult::Requested(1)
            }
        }
    }

    /// Each issuer that calls STS, in the configuration's order.
    pub fn issuer_views(&self) -> Vec<IssuerView> {
        let now = Instant::now();
        let mut failing = vec![0; self.issuers().len()];
        self.each_key(|_, entry| {
            if let Some(count) = failing.get_mut(entry.scope().issuer) {
                *count += u64::from(KeyStatus::of(entry) == KeyStatus::Failing);
            }
        });
        let issuers = self.issuers().iter().zip(self.paces()).zip(failing);
        let calling = issuers.filter(|((issuer, _), _)| issuer.is_some());
        let view = calling.map(|((_, (backlog, breaker)), failing_keys)| IssuerView {
            failing_keys,
            name: backlog.issuer().to_owned(),
            is_held_back: breaker.is_open(),
            probe_in: breaker.open_until(now).map(|until| until - now),
            waiting: backlog.waiting(),
            calls_per_second: backlog.rate().per_second,
            call_time: backlog.call_time(),
        });
        view.collect()
    }

    fn each_key(&self, mut show: impl FnMut(&str, &Arc<Entry>)) {
        for entry in self.entries() {
            show(&entry.scope().tenant, entry);
        }
        self.made().each(show);
    }

    fn view(&self, name: &str, entry: &Arc<Entry>, now: Timestamp) -> KeyView {
        let scope = entry.scope();
        let key = entry.last_key();
        let (resources, more_scope) = resources(&scope.policy);
        let issuer = self.paces().nth(scope.issuer);
        KeyView {
            name: name.to_owned(),
            tenant: scope.tenant.clone(),
            issuer: issuer.map_or_else(String::new, |(backlog, _)| backlog.issuer().to_owned()),
            scope: resources,
            more_scope,
            status: KeyStatus::of(entry),
            expires: key.as_ref().and_then(|key| key.expires),
            refresh: key.as_ref().and_then(|key| refresh_time(key, now)),
            generation: key.map_or(0, |key| key.generation),
            failure: entry.failure().map(|failure| failure.error.to_string()),
        }
    }
}

/// When the next key is due, by the wall clock that says `now`.
fn refresh_time(key: &Credential, now: Timestamp) -> Option<Timestamp> {
    let (soft, here) = (key.life()?.soft, Instant::now());
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let ahead = seconds(soft.saturating_duration_since(here));
    let behind = seconds(here.saturating_duration_since(soft));
    Some(now.plus(ahead - behind))
}

/// The first resources that a policy allows, without what all of them begin with (`qcs::cos:REGION:uid/APPID:`),
/// and how many more there are.
fn resources(policy: &str) -> (Vec<String>, usize) {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = policy.get("statement").and_then(Value::as_array);
    let mut resources: Vec<String> = Vec::new();
    for statement in statements.into_iter().flatten() {
        if statement.get("effect").and_then(Value::as_str) != Some("allow") {
            continue;
        }
        let named = statement.get("resource").and_then(Value::as_array);
        for resource in named.into_iter().flatten().filter_map(Value::as_str) {
            let short = resource.splitn(6, ':').nth(5).unwrap_or(resource);
            if !resources.iter().any(|known| known == short) {
                resources.push(short.to_owned());
            }
        }
    }
    let more = resources.len().saturating_sub(RESOURCES);
    resources.truncate(RESOURCES);
    (resources, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_the_first_buckets_and_prefixes_that_the_policy_allows() {
        let resource =
            |key: &str| format!("\"qcs::cos:ap-guangzhou:uid/1250000000:b-1250000000/{key}\"");
        let allowed = ["a/*", "a/*", "b:c/*", "d", "e", "f"]
            .map(resource)
            .join(",");
        let denied = resource("secret/*");
        let policy = format!(
            r#"{{"version":"2.0","statement":[{{"effect":"allow","resource":[{allowed}]}},{{"effect":"deny","resource":[{denied}]}}]}}"#
        );
        let (shown, more) = resources(&policy);
        let expected = ["a/*", "b:c/*", "d", "e"].map(|key| format!("b-1250000000/{key}"));
        assert_eq!((shown, more), (expected.to_vec(), 1));
        assert_eq!(resources("no policy"), (Vec::new(), 0));
    }
}
