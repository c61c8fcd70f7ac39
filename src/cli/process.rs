//! The process of a command that serves: its signals, log, memory and file descriptors.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::process::ExitCode;

use cosgate::config::ProgramFormat;
use cosgate::observe::ProgramLog;
use cosgate::transport::descriptors;
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Runs a command's `work` to its end, on this thread.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background(); // a look-up that hangs must not hold us
    Ok(done)
}

/// A process that serves until a signal ends it.
pub(super) struct Process {
    runtime: Runtime,
    log: ProgramLog,
    signals: Signals,
}

/// The signals that a process that serves hears. Until [`Signals::catch_ends`] those that end it do so
/// at once, since there is nothing to drain.
pub(super) struct Signals {
    hangup: Signal,
    user1: Signal,
    ends: Vec<(&'static str, Signal)>,
}

impl Process {
    /// To be called first: from now on no signal kills the process that is not meant to end it.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _entered = runtime.enter();
            Signals::survive()?
        };
        let log = log_to_stderr()?;
        guard_memory();
        if let Err(error) = descriptors::raise_limit() {
            tracing::warn!(%error, "cannot raise the limit of file descriptors");
        }
        Ok(Self {
            runtime,
            log,
            signals,
        })
    }

    /// The log: what is written to it waits for no reader.
    pub(super) fn log(&self) -> &ProgramLog {
        &self.log
    }

    /// Runs `serve` to its end, and gives the exit status.
    pub(super) fn run(
        self,
        serve: impl AsyncFnOnce(Signals, &ProgramLog) -> io::Result<()>,
    ) -> ExitCode {
        let Self {
            runtime,
            log,
            signals,
        } = self;
        let served = runtime.block_on(serve(signals, &log));
        runtime.shutdown_background(); // a look-up that hangs must not hold the end
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log.write_line(&format_args!("cosgate: error: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl Signals {
    /// A handler that is installed once stays, so that SIGUSR2 does nothing from here on. SIGPIPE is ignored
    /// by every Rust program.
    fn survive() -> io::Result<Self> {
        let _ = signal(SignalKind::user_defined2())?;
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            ends: Vec::new(),
        })
    }

    /// From now on [`Signals::end`] hears of the signals that end the process.
    pub(super) fn catch_ends(&mut self) -> io::Result<()> {
        for (name, kind) in [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGQUIT", SignalKind::quit()),
            ("SIGTERM", SignalKind::terminate()),
        ] {
            self.ends.push((name, signal(kind)?));
        }
        Ok(())
    }

    /// Waits for a signal that ends the process; gives its name. Until then each SIGHUP calls `on_hangup`, and
    /// each SIGUSR1 `on_user1`.
    pub(super) async fn end(&mut self, on_hangup: impl Fn(), on_user1: impl Fn()) -> &'static str {
        std::future::poll_fn(|cx| {
            while self.hangup.poll_recv(cx).is_ready() {
                on_hangup();
            }
            while self.user1.poll_recv(cx).is_ready() {
                on_user1();
            }
            let mut ends = self.ends.iter_mut();
            let heard =
                ends.find_map(|(name, signal)| signal.poll_recv(cx).is_ready().then_some(*name));
            heard.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

/// Completes at the first signal that would end a command: SIGHUP, SIGINT, SIGQUIT or SIGTERM.
pub(super) async fn end_signal() -> io::Result<()> {
    let mut signals = Signals::survive()?;
    signals.catch_ends()?;
    let hangup = signal(SignalKind::hangup())?;
    signals.ends.push(("SIGHUP", hangup));
    signals.end(|| {}, || {}).await;
    Ok(())
}

/// For servers without a configuration file.
pub(super) fn ignore_hangup() {
    tracing::warn!("SIGHUP ignored: this command has no configuration file to read again");
}

/// Keeps what is in memory out of core files, and of other processes of the same user. It is the last
/// fence and not the first: where the system refuses, the program runs all the same.
pub(super) fn guard_memory() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "cannot turn core files off");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "cannot keep debuggers of the same user out");
    }
}

/// A writer to one of the standard streams that holds none of Rust's locks: while it waits for its
/// reader, nobody else does.
pub(super) fn unlocked(stream: &impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// Whether lines on standard output are in colour: on a terminal, unless the variable `NO_COLOR` has a value
/// (no-color.org).
pub(super) fn is_stdout_in_color() -> bool {
    is_in_color(
        io::stdout().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
    )
}

fn is_in_color(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// What the program says of itself goes to standard error; `COSGATE_LOG` filters it, by level and by
/// part (default `info`). Standard output is the access log's.
fn log_to_stderr() -> io::Result<ProgramLog> {
    let wanted = env::var("COSGATE_LOG").ok();
    let wanted = wanted.and_then(|filter| filter.parse().ok());
    let filter = wanted.unwrap_or_else(|| {
        let usual = Targets::new().with_default(LevelFilter::INFO);
        usual.with_target("s3s", LevelFilter::OFF)
    });
    let log = ProgramLog::start(filter, unlocked(&io::stderr())?)?;
    // The configuration is not known yet, and what is wrong with it is to be logged in its format.
    if env::var_os("COSGATE_LOG_PROGRAM").is_some_and(|format| format == "json") {
        log.set_format(ProgramFormat::Json);
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_color_on_a_terminal_without_no_color() {
        let (some, empty) = (Some(OsStr::new("1")), Some(OsStr::new("")));
        for (is_terminal, no_color, expected) in [
            (true, None, true),
            (true, empty, true),
            (true, some, false),
            (false, None, false),
        ] {
            assert_eq!(is_in_color(is_terminal, no_color), expected, "{no_color:?}");
        }
    }
}
