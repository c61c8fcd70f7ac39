//! The key sets of identity providers, from files and URLs. A thread of its own reads them, again and
//! again. A request that checks a token waits only if it names a new key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use http::{Request, StatusCode, header};
use http_body_util::Full;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};

use super::single_flight::{Flight, SingleFlight, Unfinished};
use crate::clock::wall_clock;
use crate::config::{Config, IdentityProviderConfig, Jwks};
use crate::tenant::{KEY_SET_BYTES, KeySet, Tenants};
use crate::transport::bounded_file::read_file;
use crate::upstream::dial::{Dialer, Roots};
use crate::upstream::one_shot::OneShotClient;

/// Limit of one request, from the look-up of the name to the last byte.
const CALL_TIME: Duration = Duration::from_secs(5);
/// The time between two reads of a file.
const FILE_PAUSE: Duration = Duration::from_secs(5);
/// The least time between two requests to a URL, however many tokens name unknown keys.
const CALL_GAP: Duration = Duration::from_secs(10);
/// The same between two reads of a file.
const FILE_GAP: Duration = Duration::from_secs(1);
/// The least time until the next read is considered.
const BREATH: Duration = Duration::from_millis(100);
/// How long a request with a token of an unknown key waits for newer keys.
const WAIT: Duration = Duration::from_secs(6);

/// Keeps the key sets of all identity providers fresh. Dropping it ends the thread.
#[derive(Debug)]
pub struct KeySets {
    sources: Vec<Arc<KeySetSource>>,
    thread: Option<KeySetThread>,
}

#[derive(Debug)]
struct KeySetThread {
    /// Starts tasks on the thread.
    tasks: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Where one provider's keys come from.
#[derive(Debug)]
struct KeySetSource {
    /// The provider's index and name in the configuration.
    identity: usize,
    name: String,
    configured: IdentityProviderConfig,
    location: KeySetLocation,
    tenants: Arc<Tenants>,
    /// The reads, and when the last good one was.
    reads: Arc<SingleFlight<Instant, String>>,
    progress: Mutex<ReadProgress>,
}

/// What is known of the reads of a source.
#[derive(Debug, Default)]
struct ReadProgress {
    /// The text of the set in use.
    text: Vec<u8>,
    /// When the last read began.
    last: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

#[derive(Debug)]
enum KeySetLocation {
    File(PathBuf),
    Url {
        client: OneShotClient,
        path: String,
        refresh: Duration,
    },
}

impl KeySets {
    /// Reads the files, which must be good, and starts the thread, which requests the URLs at once.
    /// After a reload `old` says when the sources that are the same were last read: a URL is not requested
    /// again at once.
    pub fn start(config: &Config, tenants: &Arc<Tenants>, old: Option<&Self>) -> io::Result<Self> {
        let mut sources = Vec::with_capacity(config.identities.len());
        for (index, provider) in config.identities.iter().enumerate() {
            let name = &provider.name;
            let old = old.and_then(|old| old.source_like(provider));
            let source = KeySetSource::new(config, index, provider, tenants, old);
            let source = source
                .map_err(|error| io::Error::other(format!("identities.{name}: jwks: {error}")))?;
            sources.push(Arc::new(source));
        }
        let thread = if sources.is_empty() {
            None
        } else {
            Some(KeySetThread::spawn(&sources)?)
        };
        Ok(Self { sources, thread })
    }

    fn source_like(&self, provider: &IdentityProviderConfig) -> Option<&KeySetSource> {
        let mut sources = self.sources.iter();
        let source = sources.find(|source| source.configured == *provider);
        source.map(|source| &**source)
    }

    /// Waits until the keys of the provider at `identity` have been read again, unless they have just
    /// been.
    pub async fn renew(&self, identity: usize) {
        let (Some(source), Some(thread)) = (self.sources.get(identity), &self.thread) else {
            return;
        };
        let _ = timeout(WAIT, source.renew(&thread.tasks)).await; // a failure is logged
    }
}

impl Drop for KeySets {
    fn drop(&mut self) {
        if let Some(KeySetThread { stop, thread, .. }) = self.thread.take() {
            drop(stop);
            let _ = thread.join(); // it panicked: it is gone all the same
        }
    }
}

impl KeySetThread {
    fn spawn(sources: &[Arc<KeySetSource>]) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tasks = runtime.handle().clone();
        let keep_fresh = |source: &Arc<KeySetSource>| Arc::clone(source).keep_fresh();
        let all: Vec<_> = sources.iter().map(keep_fresh).collect();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("jwks".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut all: JoinSet<()> = all.into_iter().collect();
                    tokio::select! {
                        _ = stopped => {}
                        Some(_) = all.join_next() => {}
                    }
                });
                runtime.shutdown_background(); // a look-up that hangs must not hold us
            })?;
        Ok(Self {
            tasks,
            stop,
            thread,
        })
    }
}

impl KeySetSource {
    /// Reads a file, which must be good.
    fn new(
        config: &Config,
        identity: usize,
        provider: &IdentityProviderConfig,
        tenants: &Arc<Tenants>,
        old: Option<&Self>,
    ) -> Result<Self, String> {
        // Without the text: the first read puts its keys in use, whatever was in use before.
        let progress = old.map(|old| ReadProgress {
            text: Vec::new(),
            ..*old.progress()
        });
        let progress = progress.unwrap_or_default();
        let source = Self {
            identity,
            name: provider.name.clone(),
            configured: provider.clone(),
            location: KeySetLocation::new(config, provider)?,
            tenants: Arc::clone(tenants),
            reads: Arc::new(SingleFlight::new()),
            progress: Mutex::new(progress),
        };
        if let Some(last) = old.and_then(|old| old.reads.kept(|_| true)) {
            source.reads.revise(|reads| reads.value = Some(last));
        }
        if let KeySetLocation::File(path) = &source.location {
            source.take(read(path)?)?;
        }
        Ok(source)
    }

    /// Reads the keys again and again. Never ends.
    async fn keep_fresh(self: Arc<Self>) {
        loop {
            let _ = self.renew(&Handle::current()).await; // a failure is logged
            sleep(BREATH).await; // whatever was remembered
            while let Some(next) = self.next_read() {
                sleep_until(next).await; // a request may have had them read meanwhile
            }
        }
    }

    /// When the keys are read again without a request; `None` if that is due.
    fn next_read(&self) -> Option<Instant> {
        let progress = self.progress();
        let next = progress.last? + self.location.pause(progress.failures);
        Some(next).filter(|next| Instant::now() < *next)
    }

    /// Has the keys read by one of `tasks`, unless they have been read just now, or could not be. A
    /// failure leaves the keys in use that are there, to their age limit.
    async fn renew(self: &Arc<Self>, tasks: &Handle) -> Result<Instant, String> {
        let gap = self.location.gap();
        let start = |flight: Flight<Instant, String>| {
            let source = Arc::clone(self);
            tasks.spawn(async move { source.read_once(flight).await });
        };
        self.reads.share(|last| last.elapsed() < gap, start).await
    }

    async fn read_once(&self, flight: Flight<Instant, String>) {
        let began = Instant::now();
        let text = self.location.read().await;
        let result = text.and_then(|text| self.take(text));
        let mut progress = self.progress();
        progress.last = Some(began);
        progress.failures = match &result {
            Ok(()) => 0,
            Err(_) => progress.failures.saturating_add(1),
        };
        drop(progress);
        if let Err(error) = &result {
            self.tenants.miss_keys(self.identity);
            tracing::warn!(identity = self.name, error, "the key set cannot be read");
        }
        let stands = self.location.gap().saturating_sub(began.elapsed());
        flight.finish(result.map(|()| began).map_err(|error| (error, stands)));
    }

    /// Puts a set in use, unless it is the one in use, and notes when it was read.
    fn take(&self, text: Vec<u8>) -> Result<(), String> {
        let mut progress = self.progress();
        if text != progress.text {
            let keys = KeySet::parse(&text).map_err(|error| error.to_string())?;
            self.tenants.replace_keys(self.identity, keys);
            progress.text = text;
            tracing::info!(identity = self.name, "the key set has changed");
        }
        self.tenants.confirm_keys(self.identity, wall_clock());
        Ok(())
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, ReadProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeySetLocation {
    fn new(config: &Config, provider: &IdentityProviderConfig) -> Result<Self, String> {
        let limits = &config.upstream.limits;
        Ok(match &provider.jwks {
            Jwks::File(path) => Self::File(path.clone()),
            Jwks::Url {
                endpoint,
                connect_to,
                ca_file,
                refresh,
            } => {
                let roots = Roots::for_endpoint(endpoint.tls, ca_file.as_deref());
                let roots = roots.map_err(|error| error.to_string())?;
                let dialer = Dialer::new(
                    roots.as_ref(),
                    connect_to.clone(),
                    limits.connect_timeout,
                    limits.tls_handshake_timeout,
                );
                let authority = &endpoint.authority;
                Self::Url {
                    client: OneShotClient::new(authority, dialer, CALL_TIME, KEY_SET_BYTES),
                    path: match endpoint.path.as_str() {
                        "" => "/".to_owned(),
                        path => path.to_owned(),
                    },
                    refresh: *refresh,
                }
            }
        })
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => read(path),
            Self::Url { client, path, .. } => fetch(client, path).await,
        }
    }

    /// The time between two reads without a request, after `failures` in a row.
    fn pause(&self, failures: u32) -> Duration {
        match self {
            Self::File(_) => FILE_PAUSE,
            Self::Url { refresh, .. } if failures == 0 => *refresh,
            Self::Url { refresh, .. } => {
                let doubled = 2_u32.saturating_pow(failures - 1);
                CALL_GAP.saturating_mul(doubled).min(*refresh)
            }
        }
    }

    /// The least time between two reads.
    fn gap(&self) -> Duration {
        match self {
            Self::File(_) => FILE_GAP,
            Self::Url { .. } => CALL_GAP,
        }
    }
}

impl From<Unfinished> for String {
    fn from(unfinished: Unfinished) -> Self {
        unfinished.to_string()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut read = read_file(path, KEY_SET_BYTES as u64).map_err(|error| error.to_string())?;
    Ok(std::mem::take(&mut *read))
}

async fn fetch(client: &OneShotClient, path: &str) -> Result<Vec<u8>, String> {
    let request = Request::get(path).header(header::ACCEPT, "application/json");
    let request = request.body(Full::default());
    let request = request.map_err(|error| error.to_string())?;
    let response = client.send(request).await;
    let response = response.map_err(|error| error.to_string())?;
    if response.status != StatusCode::OK {
        return Err(format!("the response is {}", response.status));
    }
    Ok(response.body.to_vec())
}
