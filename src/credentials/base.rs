//! The key that an issuer signs its calls with: given, watched in a file, or a temporary one that is
//! fetched and renewed before it ends.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::issuer::Issuer;
use super::key_document::{self, CallerKey, DOCUMENT_BYTES};
use super::metadata::Metadata;
use super::sts::{StsClass, StsError};
use crate::clock::Clock;
use crate::config::{GivenKey, GivenSecret, KeyCommand, Profile};
use crate::secret::Secret;

/// How long a command may run.
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// How much of what a command writes to standard error is logged.
const COMPLAINT_BYTES: usize = 4096;
/// Between two fetches of one key after a failure. After each refusal in a row of keys that STS never
/// took this doubles, up to [`LONGEST_GAP`].
const GAP: Duration = Duration::from_secs(2);
const LONGEST_GAP: Duration = Duration::from_secs(30);
/// A fetched key without an end is fetched again after this: it may have been rotated.
const LOOK_AGAIN: Duration = Duration::from_hours(1);
/// A key is given up this long before its end, or at three quarters of its life.
const MARGIN: Duration = Duration::from_secs(30);
/// Longer lives are taken for this one.
const MOST_LIFE: Duration = Duration::from_hours(7 * 24);

/// Where an issuer's own key comes from.
#[derive(Debug)]
pub(super) enum Base {
    Fetched(Arc<Fetched>),
    Read(Watched),
}

impl Base {
    /// The key to sign with now.
    pub(super) async fn key(&self) -> Result<Arc<CallerKey>, StsError> {
        match self {
            Self::Fetched(fetched) => fetched.key().await,
            Self::Read(watched) => Ok(watched.key()),
        }
    }

    /// STS has taken `key`.
    pub(super) fn mark_worked(&self, key: &Arc<CallerKey>) {
        if let Self::Fetched(fetched) = self {
            fetched.mark_worked(key);
        }
    }

    /// STS has refused `key` with `error`. Gives whether another may be had at once.
    pub(super) async fn reject(&self, key: &Arc<CallerKey>, error: &StsError) -> bool {
        match self {
            Self::Fetched(fetched) => fetched.reject(key, error).await,
            // Two files are not written at the same time: by now the second may be there.
            Self::Read(watched) => !Arc::ptr_eq(&watched.key(), key),
        }
    }
}

/// A key in files, or in none.
#[derive(Debug)]
pub(super) struct Watched {
    issuer: String,
    place: Place,
    state: Mutex<Seen>,
}

#[derive(Debug)]
enum Place {
    Given(GivenKey),
    Profile { name: String, file: PathBuf },
}

#[derive(Debug)]
struct Seen {
    key: Arc<CallerKey>,
    /// The files' states that `key` was read from, and those that no key could be read from.
    good: Option<Vec<FileState>>,
    bad: Option<Vec<FileState>>,
}

/// What changes when a file is written or replaced.
type FileState = Option<(SystemTime, u64)>;

impl Watched {
    pub(super) fn given(issuer: &str, key: &GivenKey) -> Self {
        let current = CallerKey {
            secret_id: key.secret_id.value.expose().to_owned(),
            secret_key: key.secret_key.value.clone(),
            token: key.token.as_ref().map(|token| token.value.clone()),
        };
        Self::new(issuer, Place::Given(key.clone()), current)
    }

    /// Fails when the profile can no longer be read.
    pub(super) fn profile(issuer: &str, name: &str, file: &Path) -> Result<Self, String> {
        let current = read_profile(name, file)?;
        let (name, file) = (name.to_owned(), file.to_owned());
        Ok(Self::new(issuer, Place::Profile { name, file }, current))
    }

    fn new(issuer: &str, place: Place, key: CallerKey) -> Self {
        Self {
            issuer: issuer.to_owned(),
            place,
            state: Mutex::new(Seen {
                key: Arc::new(key),
                good: None,
                bad: None,
            }),
        }
    }

    /// The key as its files have it now. While they have none that is good, the last one stays.
    fn key(&self) -> Arc<CallerKey> {
        let mut seen = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<_> = self.place.files().map(state_of).collect();
        if now.is_empty() || seen.good.as_ref() == Some(&now) {
            return Arc::clone(&seen.key);
        }
        match self.place.read() {
            Ok(key) => {
                if seen.good.is_some() {
                    tracing::info!(issuer = self.issuer, "the issuer's key is new");
                }
                seen.key = Arc::new(key);
                seen.good = Some(now);
            }
            Err(error) => {
                if seen.bad.as_ref() != Some(&now) {
                    tracing::warn!(
                        issuer = self.issuer,
                        error,
                        "the issuer's key cannot be read: the last one stays in use"
                    );
                }
                seen.bad = Some(now);
            }
        }
        Arc::clone(&seen.key)
    }
}

impl Place {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let files = match self {
            Self::Given(GivenKey {
                secret_id,
                secret_key,
                token,
            }) => [
                secret_id.file.as_deref(),
                secret_key.file.as_deref(),
                token.as_ref().and_then(|token| token.file.as_deref()),
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

fn state_of(file: &Path) -> FileState {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read_secret(secret: &GivenSecret) -> Result<Secret, String> {
    let Some(file) = &secret.file else {
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
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    let mut text = Zeroizing::new(String::new());
    let most = DOCUMENT_BYTES as u64;
    let open = File::open(file).map_err(wrong)?;
    let read = open.take(most + 1).read_to_string(&mut text);
    if read.map_err(wrong)? > DOCUMENT_BYTES {
        return Err(format!("{} is larger than 64 KiB", file.display()));
    }
    Ok(text)
}

/// A key that somebody else makes.
#[derive(Debug)]
pub(super) struct Fetched {
    issuer: String,
    source: Source,
    clock: Arc<Clock>,
    kept: ArcSwapOption<Kept>,
    /// Held by the one that fetches.
    turn: tokio::sync::Mutex<Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    /// The last failure, and until when it stands.
    failure: Option<(StsError, Instant)>,
    /// Keys in a row that STS has refused without having taken them once.
    unworkable: u32,
}

#[derive(Debug)]
pub(super) enum Source {
    /// Another issuer, whose role no policy narrows here.
    Chain(Arc<Issuer>),
    Command(KeyCommand),
    Metadata(Metadata),
}

#[derive(Debug)]
struct Kept {
    key: Arc<CallerKey>,
    soft: Instant,
    hard: Option<Instant>,
    /// STS has taken it once.
    worked: AtomicBool,
}

impl Kept {
    fn new(key: CallerKey, life: Option<Duration>) -> Self {
        let now = Instant::now();
        let life = life.map(|life| life.min(MOST_LIFE));
        Self {
            key: Arc::new(key),
            soft: now + life.map_or(LOOK_AGAIN, |life| (life * 2 / 3).max(GAP)),
            hard: life.map(|life| now + life.saturating_sub(MARGIN.min(life / 4))),
            worked: AtomicBool::new(false),
        }
    }

    fn is_live(&self, now: Instant) -> bool {
        self.hard.is_none_or(|hard| now < hard)
    }
}

impl Fetched {
    pub(super) fn new(issuer: &str, source: Source, clock: Arc<Clock>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            source,
            clock,
            kept: ArcSwapOption::empty(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The key: at once while one is live, and an ageing one is renewed meanwhile.
    async fn key(self: &Arc<Self>) -> Result<Arc<CallerKey>, StsError> {
        let now = Instant::now();
        if let Some(kept) = self.live(now) {
            if now >= kept.soft {
                let fetched = Arc::clone(self);
                tokio::spawn(async move { fetched.renew().await });
            }
            return Ok(Arc::clone(&kept.key));
        }
        let mut turn = self.turn.lock().await;
        if let Some(kept) = self.live(Instant::now()) {
            return Ok(Arc::clone(&kept.key)); // somebody fetched it while we waited
        }
        self.fetch(&mut turn).await
    }

    async fn renew(&self) {
        let Ok(mut turn) = self.turn.try_lock() else {
            return; // somebody is at it
        };
        let now = Instant::now();
        if self.live(now).is_none_or(|kept| now >= kept.soft) {
            let _ = self.fetch(&mut turn).await; // the old one serves on, and the log knows why
        }
    }

    async fn fetch(&self, turn: &mut Turn) -> Result<Arc<CallerKey>, StsError> {
        if let Some((error, until)) = &turn.failure
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        match self.ask().await {
            Ok(kept) => {
                let key = Arc::clone(&kept.key);
                self.kept.store(Some(Arc::new(kept)));
                turn.failure = None;
                Ok(key)
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "the issuer's own key cannot be fetched");
                turn.failure = Some((error.clone(), Instant::now() + GAP));
                Err(error)
            }
        }
    }

    async fn ask(&self) -> Result<Kept, StsError> {
        let document = match &self.source {
            Source::Chain(other) => {
                let issued = other.issue_base().await?;
                let key = CallerKey {
                    secret_id: issued.secret_id,
                    secret_key: issued.secret_key,
                    token: Some(issued.token),
                };
                return Ok(Kept::new(key, Some(issued.life)));
            }
            Source::Command(command) => timeout(COMMAND_TIME, run(command, &self.issuer))
                .await
                .unwrap_or_else(|_| Err(format!("it ran longer than {COMMAND_TIME:?}")))
                .map_err(|error| no_key(format!("command: {error}")))?,
            Source::Metadata(metadata) => metadata
                .get()
                .await
                .map_err(|error| no_key(format!("cvm_role: {error}")))?,
        };
        let parsed = key_document::parse(&document);
        let (key, expires) = parsed.map_err(|error| no_key(self.source.named(&error)))?;
        let now = self.clock.upstream_now();
        let life = match expires.map(|expires| (expires, u64::try_from(expires.since(now)))) {
            None => None,
            Some((_, Ok(seconds))) if seconds > 0 => Some(Duration::from_secs(seconds)),
            Some((expires, _)) => {
                let what = format!("the key expired at {expires} already");
                return Err(no_key(self.source.named(&what)));
            }
        };
        Ok(Kept::new(key, life))
    }

    fn mark_worked(&self, key: &Arc<CallerKey>) {
        if let Some(kept) = self.kept.load().as_ref()
            && Arc::ptr_eq(&kept.key, key)
        {
            kept.worked.store(true, Ordering::Relaxed);
        }
    }

    /// A key that had worked is replaced at once, and so is the first one that had not: its source may
    /// have kept an old one. From then on the next waits.
    async fn reject(&self, key: &Arc<CallerKey>, error: &StsError) -> bool {
        let mut turn = self.turn.lock().await;
        let kept = self.kept.load();
        let Some(current) = kept.as_ref() else {
            return turn.failure.is_none();
        };
        if !Arc::ptr_eq(&current.key, key) {
            return true; // another is here already
        }
        turn.unworkable = if current.worked.load(Ordering::Relaxed) {
            0
        } else {
            turn.unworkable.saturating_add(1)
        };
        self.kept.compare_and_swap(&*kept, None);
        if turn.unworkable <= 1 {
            return true;
        }
        let doubled = GAP.saturating_mul(2_u32.saturating_pow(turn.unworkable - 2));
        let until = Instant::now() + doubled.min(LONGEST_GAP);
        turn.failure = Some((error.clone().repeated(), until));
        false
    }

    fn live(&self, now: Instant) -> Option<Arc<Kept>> {
        self.kept.load_full().filter(|kept| kept.is_live(now))
    }
}

impl Source {
    fn named(&self, error: &str) -> String {
        let key = match self {
            Self::Chain(_) => "base",
            Self::Command(_) => "command",
            Self::Metadata(_) => "cvm_role",
        };
        format!("{key}: {error}")
    }
}

/// Runs a program, no shell between, and gives what it prints. Of cosgate's environment it gets what is
/// listed alone: the rest holds secrets, and its user can read them while it runs.
async fn run(command: &KeyCommand, issuer: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let (program, arguments) = command.words.split_first().ok_or("it has no words")?;
    let env = command.env.iter();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env.filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let group = Group::of(&child); // dropped before the child is, whose number is its own till then
    let out = child.stdout.take().ok_or("its output cannot be read")?;
    let complaints = child.stderr.take().ok_or("its output cannot be read")?;
    let issuer = issuer.to_owned();
    tokio::spawn(pass_on(complaints, issuer, program.clone()));
    let mut printed = Zeroizing::new(Vec::new());
    let read = out
        .take(DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut printed)
        .await;
    if read.map_err(|error| error.to_string())? > DOCUMENT_BYTES {
        return Err(format!("{program} printed more than 64 KiB"));
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    group.disband();
    if !status.success() {
        return Err(format!("{program} failed ({status})"));
    }
    Ok(printed)
}

/// Logs what a program writes to standard error, and reads on to its end: it never waits for whoever
/// reads cosgate's log. What it has left behind may keep the pipe open, so nobody waits for this.
async fn pass_on(mut complaints: ChildStderr, issuer: String, program: String) {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = complaints.read(&mut buffer).await {
        let room = COMPLAINT_BYTES.saturating_sub(text.len());
        text.extend(buffer.iter().take(read.min(room)));
    }
    if !text.is_empty() {
        let text = String::from_utf8_lossy(&text);
        tracing::warn!(
            issuer,
            program,
            text = text.trim_end(),
            "the command wrote to standard error"
        );
    }
}

/// A program and what it has started: killed together when it is given up.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// The program has ended by itself: what it leaves behind is meant to stay.
    fn disband(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let _ = kill_process_group(id, Signal::KILL); // it may be gone already
        }
    }
}

fn no_key(what: String) -> StsError {
    StsError::new(StsClass::Retry, "NoBaseKey", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(life: Option<u64>) -> (Duration, Option<Duration>) {
        let key = CallerKey {
            secret_id: "AKID".into(),
            secret_key: Secret::new("KEY"),
            token: None,
        };
        let now = Instant::now();
        let kept = Kept::new(key, life.map(Duration::from_secs));
        (kept.soft - now, kept.hard.map(|hard| hard - now))
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetched_key_is_renewed_before_it_is_given_up() {
        let seconds = Duration::from_secs;
        assert_eq!(kept(Some(7200)), (seconds(4800), Some(seconds(7170))));
        assert_eq!(kept(Some(60)), (seconds(40), Some(seconds(45))));
        assert_eq!(kept(None), (LOOK_AGAIN, None));
        let (soft, hard) = kept(Some(u64::MAX)); // whatever a service says, nothing overflows
        assert!(hard.is_some_and(|hard| soft < hard && hard < MOST_LIFE));
    }
}
