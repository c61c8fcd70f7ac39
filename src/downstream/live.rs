//! [`LiveConfig`]: the configuration in use, and how another takes its place while requests go on.
//!
//! Each core has its own proxy, made of the snapshot that all cores share. A reload makes another
//! snapshot, and each core takes it between two requests. Old ones end with their last request.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::Config;
use crate::downstream::transport_rules::TransportRules;
use crate::proxy::Shared;

/// How long a core may take until it has taken a new snapshot. It does so between two polls of its tasks.
const CORE_TIME: Duration = Duration::from_secs(10);
/// Old snapshots that requests may still have. Each weighs as much as the configuration.
const OLD_SNAPSHOTS: usize = 64;

/// The configuration in use. The listeners and the admin pages look here; a core has its own proxy.
#[derive(Debug)]
pub struct LiveConfig {
    shared: ArcSwap<Shared>,
    rules: ArcSwap<TransportRules>,
    changing: Mutex<Changing>,
}

#[derive(Debug, Default)]
struct Changing {
    cores: Vec<UnboundedSender<NewSnapshot>>,
    /// Those that requests may still have. The last reference is dropped here and not on a core, which
    /// would serve nobody meanwhile.
    old: Vec<Arc<Shared>>,
}

/// A snapshot on its way to a core, which drops this when it has taken it.
#[derive(Debug)]
pub(crate) struct NewSnapshot {
    pub(crate) shared: Arc<Shared>,
    _taken: Sender<()>,
}

/// What a reload has changed.
#[derive(Debug)]
pub struct Reloaded {
    /// By name, as [`Config::changes_to`] gives it.
    pub changes: Vec<String>,
    /// Keys that are as they were: they need a restart.
    pub fixed: Vec<&'static str>,
}

impl LiveConfig {
    /// Serves `shared`, with the certificates of its configuration.
    pub fn new(shared: Arc<Shared>) -> io::Result<Arc<Self>> {
        let rules = TransportRules::read(&shared.config().server)?;
        warm(&shared);
        Ok(Arc::new(Self {
            shared: ArcSwap::new(shared),
            rules: ArcSwap::from_pointee(rules),
            changing: Mutex::default(),
        }))
    }

    /// The snapshot of the moment.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.load_full()
    }

    /// How connections are made that begin now.
    pub(crate) fn rules(&self) -> Arc<TransportRules> {
        self.rules.load_full()
    }

    /// From now on each new snapshot is sent to `core` too.
    pub(crate) fn add_core(&self, core: UnboundedSender<NewSnapshot>) {
        self.changing().cores.push(core);
    }

    /// Puts `config` in use, but for what is fixed while the program runs. Returns when every core has it:
    /// a request that begins later begins under it. An error says why nothing has changed.
    ///
    /// It blocks, so it is called on a thread that serves nobody.
    pub fn reload(&self, mut config: Config) -> io::Result<Reloaded> {
        let mut changing = self.changing();
        changing.sweep();
        if changing.old.len() >= OLD_SNAPSHOTS {
            return Err(io::Error::other(format!(
                "requests of {OLD_SNAPSHOTS} older configurations are still in flight; wait for them to end, or restart"
            )));
        }
        let old = self.shared();
        let mut changes = old.config().changes_to(&config);
        let fixed = config.keep_fixed(old.config());
        let rules = TransportRules::read(&config.server)?;
        let new = old.succeeded_by(config)?;
        if !self.rules().is_like(&rules) {
            changes.push("~ certificates and rules of [server.tls]".to_owned());
        }
        self.take_rules(rules);
        warm(&new);
        self.shared.store(Arc::clone(&new));
        let taken = changing.send(&new);
        if taken.recv_timeout(CORE_TIME) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a core has not taken the new configuration yet");
        }
        changing.old.push(old);
        changing.sweep();
        new.metrics()
            .set_configurations(1 + changing.old.len() as u64);
        Ok(Reloaded { changes, fixed })
    }

    /// Frees the snapshots that no request has any more, and gives how many are left.
    pub fn sweep(&self) -> usize {
        let mut changing = self.changing();
        changing.sweep();
        let left = changing.old.len();
        self.shared
            .load()
            .metrics()
            .set_configurations(1 + left as u64);
        left
    }

    /// Connections that are there stay, unless clients must now prove themselves in another way.
    fn take_rules(&self, rules: TransportRules) {
        let old = self.rules();
        if old.is_like(&rules) {
            return; // sessions that can be resumed stay
        }
        let outdated = old.is_outdated_by(&rules);
        self.rules.store(Arc::new(rules));
        if outdated {
            old.end();
        }
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has keys fetched in advance, where that is configured.
fn warm(shared: &Shared) {
    if shared.config().credential_warm {
        shared.credentials().warm();
    }
}

impl Changing {
    /// Sends `shared` to all cores. What it gives closes when they have taken it.
    fn send(&mut self, shared: &Arc<Shared>) -> Receiver<()> {
        let (taken, all_taken) = channel();
        self.cores.retain(|core| {
            let new = NewSnapshot {
                shared: Arc::clone(shared),
                _taken: taken.clone(),
            };
            core.send(new).is_ok() // else it has ended
        });
        all_taken
    }

    fn sweep(&mut self) {
        self.old.retain(|old| Arc::strong_count(old) > 1);
    }
}
