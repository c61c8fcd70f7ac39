//! Reloads of `cosgate serve`: by SIGHUP, by `POST /reload`, and when watched files change.
//!
//! A thread of its own reads and checks: it serves nobody, so no request waits for it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::{Display, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cosgate::config::{Config, FileKind};
use cosgate::downstream::live::{LiveConfig, Reloaded};
use cosgate::downstream::reloads::{ReloadRequests, ReloadResponse};
use cosgate::observe::LogLines;
use cosgate::transport::file_state::FileState;
use zeroize::Zeroizing;

use super::check::{self, Disk};
use super::systemd;

/// The time between two looks at the watched files. A file must stay as it is from one to the next.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// As many files are checked in each [`POLL_INTERVAL`]; with more of them the polls are further apart.
const FILES_A_POLL: usize = 1000;
/// Changes of one reload that the log has; the response to `POST /reload` has all.
const LOGGED: usize = 100;

/// The files of a configuration.
pub(super) struct ConfigSource {
    path: PathBuf,
    /// Their texts when they were last taken. A secret that has changed is taken with these, so that a
    /// file that somebody is still editing is not.
    texts: Texts,
}

/// What was read of a configuration, but for secrets and certificates.
#[derive(Default)]
struct Texts {
    files: HashMap<PathBuf, Zeroizing<String>>,
    folders: HashMap<PathBuf, Vec<PathBuf>>,
}

/// Which files a reload reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    All,
    /// Secrets and certificates; the rest is as it was last taken.
    Secrets,
}

/// Takes reloads, one after another.
pub(super) struct Reloader {
    source: ConfigSource,
    live: Arc<LiveConfig>,
    log: LogLines,
    watch: Watch,
}

/// The files that are watched.
struct Watch {
    files: Vec<(PathBuf, Extent)>,
    /// Their states when they were last read, and at the last poll.
    taken: Vec<Option<FileState>>,
    seen: Vec<Option<FileState>>,
}

impl ConfigSource {
    /// The configuration of the file at `path`, for the first time. Problems go to `tell`; `None`: it cannot
    /// be used.
    pub(super) fn open(path: &Path, tell: &dyn Fn(&dyn Display)) -> Option<(Self, Config)> {
        let mut source = Self {
            path: path.to_owned(),
            texts: Texts::default(),
        };
        let (config, texts) = source.load(Extent::All, tell)?;
        source.texts = texts;
        Some((source, config))
    }

    /// The configuration, and the texts that it is made of.
    fn load(&self, extent: Extent, tell: &dyn Fn(&dyn Display)) -> Option<(Config, Texts)> {
        let read = RefCell::new(Texts::default());
        let kept = |path: &Path| {
            self.texts
                .files
                .get(path)
                .filter(|_| extent == Extent::Secrets)
        };
        let file = |path: &Path| {
            let text = match kept(path) {
                Some(text) => String::clone(text),
                None => check::read_file(path)?,
            };
            let mut read = read.borrow_mut();
            read.files.insert(path.to_owned(), text.clone().into());
            Ok(text)
        };
        let folder = |path: &Path| {
            let kept = self.texts.folders.get(path);
            let paths = match kept.filter(|_| extent == Extent::Secrets) {
                Some(paths) => paths.clone(),
                None => check::files_of(path)?,
            };
            let mut read = read.borrow_mut();
            read.folders.insert(path.to_owned(), paths.clone());
            Ok(paths)
        };
        let (file, folder) = (&file, &folder);
        let disk = Disk {
            file,
            folder,
            ..Disk::REAL
        };
        let config = check::load_from(&self.path, &disk, tell)?;
        let mut texts = read.into_inner();
        let files = config.files.iter();
        let parts = files.filter(|file| file.kind == FileKind::Configuration);
        let parts: HashSet<_> = parts.map(|file| file.path.as_path()).collect();
        let is_part = |path: &PathBuf| *path == self.path || parts.contains(path.as_path());
        texts.files.retain(|path, _| is_part(path));
        Some((config, texts))
    }
}

impl Reloader {
    pub(super) fn new(source: ConfigSource, live: Arc<LiveConfig>, log: LogLines) -> Self {
        let watch = Watch::of(&source.path, live.shared().config());
        Self {
            source,
            live,
            log,
            watch,
        }
    }

    /// Starts the thread that takes `requests`, and looks at the files.
    pub(super) fn start(mut self, requests: ReloadRequests) -> io::Result<()> {
        let run = move || {
            while let Some(waiting) = requests.wait(self.watch.pause()) {
                if self.live.shared().is_draining() {
                    continue; // no core takes a configuration any more: the requests are dropped, which responds 503
                }
                let changed = self.watch.poll();
                if let Some(extent) = changed.filter(|_| waiting.is_empty()) {
                    self.reload(extent);
                }
                if !waiting.is_empty() {
                    let result = self.reload(Extent::All);
                    for request in waiting {
                        let _ = request.send(result.clone()); // a signal waits for no response
                    }
                }
                self.live.sweep();
            }
        };
        let thread = std::thread::Builder::new().name("reload".to_owned());
        thread.spawn(run).map(drop)
    }

    fn reload(&mut self, extent: Extent) -> ReloadResponse {
        systemd::reloading();
        let response = self.try_reload(extent);
        systemd::ready();
        response
    }

    fn try_reload(&mut self, extent: Extent) -> ReloadResponse {
        let before = self.watch.take(extent);
        let problems = RefCell::new(Vec::new());
        let tell = |problem: &dyn Display| problems.borrow_mut().push(problem.to_string());
        let loaded = self.source.load(extent, &tell);
        let reloaded = loaded.and_then(|(config, texts)| match self.live.reload(config) {
            Ok(reloaded) => Some((reloaded, texts)),
            Err(error) => {
                tell(&format_args!("error: {error}"));
                None
            }
        });
        let problems = problems.into_inner();
        let live = self.live.shared();
        live.metrics().count_reload(reloaded.is_some());
        if reloaded.is_none() || extent == Extent::All {
            for problem in &problems {
                self.log.write_line(problem);
            }
        }
        let mut text = String::new();
        for problem in &problems {
            let _ = writeln!(text, "{problem}"); // into a String: cannot fail
        }
        let is_taken = reloaded.is_some();
        if let Some((reloaded, texts)) = reloaded {
            self.source.texts = texts;
            self.watch = self.watch.succeeded(&self.source.path, live.config());
            self.log.set_format(live.config().log.program);
            tell_changes(&reloaded);
            text += &described(&reloaded);
        } else {
            self.watch.give_back(before, extent);
            tracing::error!(
                "not reloaded: the configuration has problems, and nothing has changed"
            );
            text += "not reloaded: nothing has changed\n";
        }
        ReloadResponse { is_taken, text }
    }
}

/// The response to `POST /reload`.
fn described(reloaded: &Reloaded) -> String {
    let mut text = "reloaded\n".to_owned();
    for change in &reloaded.changes {
        let _ = writeln!(text, "{change}"); // into a String: cannot fail
    }
    if !reloaded.fixed.is_empty() {
        let _ = writeln!(text, "needs a restart: {}", reloaded.fixed.join(", "));
    }
    text
}

fn tell_changes(reloaded: &Reloaded) {
    let changes = reloaded.changes.len();
    tracing::info!(changes, "the configuration is reloaded");
    for change in reloaded.changes.iter().take(LOGGED) {
        tracing::info!(change, "reloaded");
    }
    if changes > LOGGED {
        tracing::info!(more = changes - LOGGED, "reloaded");
    }
    if !reloaded.fixed.is_empty() {
        let keys = reloaded.fixed.join(", ");
        tracing::warn!(keys, "these keys have changed, and need a restart");
    }
}

impl Watch {
    /// The files of `config`, which is at `path`, as they are now.
    fn of(path: &Path, config: &Config) -> Self {
        let files = config.files.iter().filter_map(|file| {
            let extent = match file.kind {
                FileKind::Certificate | FileKind::Secret => Extent::Secrets,
                FileKind::Configuration | FileKind::Folder => Extent::All,
            };
            let is_watched = extent == Extent::Secrets || config.server.reload_on_change;
            let is_here = file.path.as_os_str().is_empty();
            let path = if is_here { Path::new(".") } else { &file.path };
            is_watched.then(|| (path.to_owned(), extent))
        });
        let own = config.server.reload_on_change;
        let own = own.then(|| (path.to_owned(), Extent::All));
        let mut files: Vec<_> = own.into_iter().chain(files).collect();
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        files.dedup_by(|(a, _), (b, _)| a == b);
        let mut watch = Self {
            files,
            taken: Vec::new(),
            seen: Vec::new(),
        };
        watch.taken = watch.states();
        watch.seen.clone_from(&watch.taken);
        watch
    }

    /// The time until the next poll.
    fn pause(&self) -> Duration {
        let polls = self.files.len().div_ceil(FILES_A_POLL).max(1);
        POLL_INTERVAL.saturating_mul(u32::try_from(polls).unwrap_or(u32::MAX))
    }

    /// What must be read again, if files have changed since they were read, and not since the last poll:
    /// nobody is writing them any more.
    fn poll(&mut self) -> Option<Extent> {
        let now = self.states();
        let is_settled = now == self.seen;
        self.seen = now;
        if !is_settled {
            return None;
        }
        let states = self.seen.iter().zip(&self.taken);
        let changed = self.files.iter().zip(states);
        let mut changed = changed
            .filter(|(_, (seen, taken))| seen != taken)
            .peekable();
        changed.peek()?;
        let has_parts = changed.any(|((_, extent), _)| *extent == Extent::All);
        Some(if has_parts {
            Extent::All
        } else {
            Extent::Secrets
        })
    }

    /// The files of `extent` are about to be read as they are now. Gives the states that were taken before.
    fn take(&mut self, extent: Extent) -> Vec<Option<FileState>> {
        let before = self.taken.clone();
        let now = self.states();
        let files = self.files.iter().zip(&mut self.taken).zip(now);
        for (((_, of_file), taken), now) in files {
            if extent == Extent::All || *of_file == Extent::Secrets {
                *taken = now;
            }
        }
        before
    }

    /// The read of `extent` was in vain. It is not tried again before a file changes; but secrets can be read
    /// with the parts that are good.
    fn give_back(&mut self, before: Vec<Option<FileState>>, extent: Extent) {
        let files = self.files.iter().zip(&mut self.taken).zip(before);
        for (((_, of_file), taken), before) in files {
            if extent == Extent::All && *of_file == Extent::Secrets {
                *taken = before;
            }
        }
    }

    /// The files of the next configuration: those that were there as they were read.
    fn succeeded(&self, path: &Path, config: &Config) -> Self {
        let mut next = Self::of(path, config);
        let known = self.files.iter().map(|(file, _)| file.as_path());
        let known: HashMap<&Path, _> = known.zip(&self.taken).collect();
        for ((file, _), taken) in next.files.iter().zip(&mut next.taken) {
            if let Some(known) = known.get(file.as_path()) {
                *taken = **known;
            }
        }
        next
    }

    fn states(&self) -> Vec<Option<FileState>> {
        let files = self.files.iter();
        files.map(|(file, _)| FileState::of(file)).collect()
    }
}
