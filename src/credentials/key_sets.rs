//! The key sets of identity providers, from files and URLs: read by a thread of its own, and again
//! when they may have changed. Whoever checks a token never waits, unless it names a new key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::wall_clock;
use crate::config::{self, Config, Jwks};
use crate::tenant::{KEY_SET_BYTES, KeySet, Tenants};
use crate::upstream::dial::{Dialer, Roots};

/// One call, connect to last byte.
const CALL_TIME: Duration = Duration::from_secs(5);
/// Bytes of an answer's head at most.
const HEAD_BYTES: usize = 16 * 1024;
/// Between two looks at a file.
const FILE_LOOK: Duration = Duration::from_secs(5);
/// Between two calls, however many tokens name keys that are not known.
const CALL_GAP: Duration = Duration::from_secs(10);
/// The same of looks at a file.
const FILE_GAP: Duration = Duration::from_secs(1);
/// How long a request with a token of an unknown key waits for newer keys.
const WAIT: Duration = Duration::from_secs(6);

/// Keeps the key sets of all identity providers fresh. Dropping it ends the thread.
#[derive(Debug)]
pub struct KeySets {
    lines: Vec<Line>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Where newer keys of one provider are asked for.
#[derive(Debug)]
struct Line {
    ask: mpsc::Sender<()>,
    /// Changes when an ask has been seen to.
    done: watch::Receiver<()>,
}

/// One provider's keys, where they come from.
struct Source {
    identity: usize,
    name: String,
    place: PlaceOfKeys,
    tenants: Arc<Tenants>,
    /// The text of the set in use.
    text: Vec<u8>,
}

enum PlaceOfKeys {
    File(PathBuf),
    Url {
        authority: String,
        path: String,
        dialer: Dialer,
        refresh: Duration,
    },
}

impl KeySets {
    /// Reads the files, which must be good, and starts the thread, which asks the URLs at once.
    pub fn start(config: &Config, tenants: &Arc<Tenants>) -> io::Result<Self> {
        let mut lines = Vec::with_capacity(config.identities.len());
        let mut tasks = Vec::with_capacity(config.identities.len());
        for (index, identity) in config.identities.iter().enumerate() {
            let name = format!("identities.{}", identity.name);
            let in_config = |error: String| io::Error::other(format!("{name}: jwks: {error}"));
            let mut source = Source {
                identity: index,
                name: identity.name.clone(),
                place: PlaceOfKeys::new(config, identity).map_err(in_config)?,
                tenants: Arc::clone(tenants),
                text: Vec::new(),
            };
            if let PlaceOfKeys::File(path) = &source.place {
                let text = read(path).map_err(in_config)?;
                source.take(text).map_err(in_config)?;
            }
            let (ask, asked) = mpsc::channel(1);
            let (say, done) = watch::channel(());
            lines.push(Line { ask, done });
            tasks.push(source.keep_fresh(asked, say));
        }
        if tasks.is_empty() {
            return Ok(Self {
                lines,
                thread: None,
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = std::thread::Builder::new()
            .name("jwks".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut all: JoinSet<()> = tasks.into_iter().collect();
                    tokio::select! {
                        _ = stopped => {}
                        Some(_) = all.join_next() => {}
                    }
                });
                runtime.shutdown_background(); // a look-up that hangs must not hold us
            })?;
        Ok(Self {
            lines,
            thread: Some((stop, handle)),
        })
    }

    /// Waits until the keys of the provider at `identity` have been asked for anew, if that has not
    /// been done just now.
    pub async fn renew(&self, identity: usize) {
        let Some(line) = self.lines.get(identity) else {
            return;
        };
        let mut done = line.done.clone();
        done.mark_unchanged();
        let _ = line.ask.try_send(()); // full: somebody has asked already, and is seen to as well
        let _ = timeout(WAIT, done.changed()).await;
    }
}

impl Drop for KeySets {
    fn drop(&mut self) {
        if let Some((stop, handle)) = self.thread.take() {
            drop(stop);
            let _ = handle.join(); // it panicked: it is gone all the same
        }
    }
}

impl Source {
    /// Never ends. What cannot be read leaves the keys that are there in use, to their age limit.
    async fn keep_fresh(mut self, mut asked: mpsc::Receiver<()>, done: watch::Sender<()>) {
        let mut last: Option<Instant> = None;
        let mut failures = 0;
        loop {
            let next = last.map_or_else(Instant::now, |last| last + self.place.pause(failures));
            tokio::select! {
                () = sleep_until(next) => {}
                Some(()) = asked.recv() => {
                    if last.is_some_and(|last| last.elapsed() < self.place.gap()) {
                        let _ = done.send(());
                        continue;
                    }
                }
            }
            last = Some(Instant::now());
            match self.look().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    self.tenants.miss_keys(self.identity);
                    tracing::warn!(identity = self.name, error, "the key set cannot be read");
                }
            }
            let _ = done.send(());
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let text = match &self.place {
            PlaceOfKeys::File(path) => read(path)?,
            PlaceOfKeys::Url {
                authority,
                path,
                dialer,
                ..
            } => timeout(CALL_TIME, fetch(dialer, authority, path))
                .await
                .map_err(|_| format!("no answer within {CALL_TIME:?}"))??,
        };
        self.take(text)
    }

    /// Puts a set in use, unless it is the one in use, and notes when it was read.
    fn take(&mut self, text: Vec<u8>) -> Result<(), String> {
        if text != self.text {
            let keys = KeySet::parse(&text).map_err(|error| error.to_string())?;
            self.tenants.replace_keys(self.identity, keys);
            self.text = text;
            tracing::info!(identity = self.name, "the key set is new");
        }
        self.tenants.confirm_keys(self.identity, wall_clock());
        Ok(())
    }
}

impl PlaceOfKeys {
    fn new(config: &Config, identity: &config::IdentityProvider) -> Result<Self, String> {
        let limits = &config.upstream.limits;
        Ok(match &identity.jwks {
            Jwks::File(path) => Self::File(path.clone()),
            Jwks::Url {
                endpoint,
                connect_to,
                ca_file,
                refresh,
            } => {
                let roots = Roots::for_endpoint(endpoint.tls, ca_file.as_deref());
                let roots = roots.map_err(|error| error.to_string())?;
                Self::Url {
                    authority: endpoint.authority.clone(),
                    path: endpoint.path.clone(),
                    dialer: Dialer::new(
                        roots.as_ref(),
                        connect_to.clone(),
                        limits.connect_timeout,
                        limits.tls_handshake_timeout,
                    ),
                    refresh: *refresh,
                }
            }
        })
    }

    /// How long a look lasts, when nobody asks; after `failures` in a row.
    fn pause(&self, failures: u32) -> Duration {
        match self {
            Self::File(_) => FILE_LOOK,
            Self::Url { refresh, .. } if failures == 0 => *refresh,
            Self::Url { refresh, .. } => {
                let doubled = 2_u32.saturating_pow(failures - 1);
                CALL_GAP.saturating_mul(doubled).min(*refresh)
            }
        }
    }

    /// The least time between two looks.
    fn gap(&self) -> Duration {
        match self {
            Self::File(_) => FILE_GAP,
            Self::Url { .. } => CALL_GAP,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(wrong)?.len() > KEY_SET_BYTES as u64 {
        return Err(format!("{} is larger than 256 KiB", path.display()));
    }
    std::fs::read(path).map_err(wrong)
}

/// Asks for a key set. Redirects are not followed: they would move the trust elsewhere.
async fn fetch(dialer: &Dialer, authority: &str, path: &str) -> Result<Vec<u8>, String> {
    let stream = dialer.dial(authority).await.map_err(text)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(text)?;
    let mut driver = JoinSet::new(); // ends the connection when this call ends, however it does
    driver.spawn(connection);
    let request = Request::get(if path.is_empty() { "/" } else { path })
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(text)?;
    let response = sender.send_request(request).await.map_err(text)?;
    if response.status() != StatusCode::OK {
        return Err(format!("the answer is {}", response.status()));
    }
    let body = Limited::new(response.into_body(), KEY_SET_BYTES);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes().to_vec())
}

fn text(error: impl std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
