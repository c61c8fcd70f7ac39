//! Program log: what cosgate says of itself, on standard error.
//!
//! The lines pass through a bounded queue to a thread that writes them, so that no core waits for the
//! reader of the log; lines that are lost are counted. A cause of warnings or errors is logged once a
//! second, with the number of events that were left out: no stranger fills the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::log_writer::{self, Batch, LogQueue, LogWriter, Moment, QueueLimits};

/// What waits to be written while the reader has stopped.
const QUEUE: QueueLimits = QueueLimits {
    batches: 1024,
    bytes: 1 << 20,
};
/// How long the last lines may take at the end.
const FLUSH: Duration = Duration::from_secs(2);
/// A cause is logged once in this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Fields that tell causes of one call site apart. Their values come from the code or the
/// configuration, never from a client.
const CAUSE_FIELDS: [&str; 4] = ["cause", "identity", "issuer", "location"];
/// Causes that are told apart at once. Beyond it a call site is one cause, and these are as many as
/// the code has.
const CAUSES: usize = 128;
/// A longer text of a cause is cut.
const CAUSE_BYTES: usize = 256;

/// The log of this process. Dropped, it waits for its last lines, for two seconds at most.
#[derive(Debug)]
pub struct ProgramLog {
    queue: LineQueue,
    writer: Option<LogWriter>,
}

impl ProgramLog {
    /// Sends the events that pass `filter`, and panics, to `out`, from now on and for the whole process.
    pub fn start(filter: EnvFilter, out: impl Write + Send + 'static) -> io::Result<Self> {
        let causes = Arc::new(Causes::default());
        let lost = Arc::new(AtomicU64::new(0));
        let own = own_lines(Arc::clone(&causes), Arc::clone(&lost));
        let counted = Arc::clone(&lost);
        let not_written = move |lines| {
            counted.fetch_add(lines, Ordering::Relaxed);
        };
        let (queue, writer) = log_writer::start("program-log", QUEUE, out, not_written, own)?;
        let queue = LineQueue { queue, lost };
        tracing::subscriber::set_global_default(subscriber(filter, causes, queue.clone()))
            .map_err(io::Error::other)?;
        panic::set_hook(Box::new(log_panic));
        Ok(Self {
            queue,
            writer: Some(writer),
        })
    }

    /// How many lines were lost so far.
    pub fn lost(&self) -> &Arc<AtomicU64> {
        &self.queue.lost
    }

    /// Where other threads write lines.
    pub fn lines(&self) -> LogLines {
        LogLines(self.queue.clone())
    }

    /// Writes a line that is no event, as a command's last word.
    pub fn write_line(&self, line: &impl fmt::Display) {
        self.lines().write_line(line);
    }
}

impl LogLines {
    /// Writes a line that is no event.
    pub fn write_line(&self, line: &impl fmt::Display) {
        self.0.push(format!("{line}\n"));
    }
}

impl Drop for ProgramLog {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.finish(FLUSH);
        }
    }
}

/// Writes lines to the log that are no events, as the problems of a configuration.
#[derive(Clone, Debug)]
pub struct LogLines(LineQueue);

/// Where the lines go in, one by one.
#[derive(Clone, Debug)]
struct LineQueue {
    queue: LogQueue,
    lost: Arc<AtomicU64>,
}

impl LineQueue {
    fn push(&self, text: String) {
        if !self.queue.offer(Batch { text, lines: 1 }) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The formatter writes each line in one call.
impl Write for &LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn subscriber(
    filter: EnvFilter,
    causes: Arc<Causes>,
    out: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(out)
        .log_internal_errors(false); // it would write to standard error itself
    Registry::default()
        .with(lines)
        .with(OncePerSecond(causes))
        .with(filter)
}

/// A panic as a line of the log: the standard hook writes to standard error on the thread that panics.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture(); // where RUST_BACKTRACE asks for it
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        location,
        backtrace = backtrace.as_ref().map(tracing::field::display),
        "panicked: {message}"
    );
}

/// What the log says of its own: which events were left out, and how many lines were lost.
fn own_lines(
    causes: Arc<Causes>,
    lost: Arc<AtomicU64>,
) -> impl FnMut(&mut String, Moment) -> bool + Send {
    let mut told = 0;
    let mut told_at: Option<Instant> = None;
    move |text, moment| {
        let now = Instant::now();
        let lost = lost.load(Ordering::Relaxed);
        let is_due = told_at.is_none_or(|at| now - at >= WINDOW) || moment == Moment::End;
        if lost > told && is_due {
            push_head(text, Level::WARN, module_path!());
            let _ = writeln!(text, "log lines lost lines={}", lost - told);
            told = lost;
            told_at = Some(now);
        }
        causes.report(now, moment, text) || lost > told
    }
}

/// Time, level and target, as the formatter of events writes them.
fn push_head(text: &mut String, level: Level, target: &str) {
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(text));
    let _ = write!(text, " {level:>5} {target}: ");
}

/// Lets a warning or error pass when its cause was not logged within the last second.
struct OncePerSecond(Arc<Causes>);

impl<S: Subscriber> Layer<S> for OncePerSecond {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        *event.metadata().level() > Level::WARN || self.0.admit(event, Instant::now())
    }
}

/// The causes that were logged lately.
#[derive(Debug, Default)]
struct Causes {
    table: Mutex<HashMap<(Identifier, String), Logged>>,
}

#[derive(Debug)]
struct Logged {
    metadata: &'static Metadata<'static>,
    message: String,
    since: Instant,
    suppressed: u64,
}

impl Causes {
    /// Whether to log `event`; else it is counted.
    fn admit(&self, event: &Event<'_>, now: Instant) -> bool {
        let mut cause = Cause::default();
        event.record(&mut cause);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let callsite = event.metadata().callsite();
        let mut key = (callsite, cut(cause.fields));
        if table.len() >= CAUSES && !table.contains_key(&key) {
            key.1.clear();
        }
        if let Some(logged) = table.get_mut(&key) {
            // `report` opens the next window: it tells what was left out in this one.
            logged.suppressed += 1;
            return false;
        }
        let logged = Logged {
            metadata: event.metadata(),
            message: cut(cause.message),
            since: now,
            suppressed: 0,
        };
        table.insert(key, logged);
        true
    }

    /// Appends a line for each cause that had events left out, once a second. Whether any cause is kept.
    fn report(&self, now: Instant, moment: Moment, text: &mut String) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|(_, fields), logged| {
            if now - logged.since < WINDOW && moment == Moment::Running {
                return true;
            }
            let suppressed = std::mem::take(&mut logged.suppressed);
            if suppressed == 0 {
                return false;
            }
            logged.since = now;
            let metadata = logged.metadata;
            push_head(text, *metadata.level(), metadata.target());
            let message = &logged.message;
            let _ = writeln!(text, "{message}{fields} suppressed={suppressed}");
            true
        });
        !table.is_empty()
    }
}

/// What of an event says what it was caused by.
#[derive(Default)]
struct Cause {
    message: String,
    fields: String,
}

impl Visit for Cause {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name if CAUSE_FIELDS.contains(&name) => write!(self.fields, " {name}={value:?}"),
            _ => Ok(()),
        };
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(CAUSE_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::observe::log_writer::test_writers::KeptText;

    const LINE: &str = "request failed";

    /// Runs `events` under a log of its own.
    fn logged(causes: &Arc<Causes>, events: impl FnOnce()) -> Vec<String> {
        let kept = KeptText::default();
        let out = kept.clone();
        let out = move || out.clone();
        let subscriber = subscriber(EnvFilter::new("debug"), Arc::clone(causes), out);
        tracing::subscriber::with_default(subscriber, events);
        kept.text().lines().map(str::to_owned).collect()
    }

    fn report(causes: &Causes) -> Vec<String> {
        let mut text = String::new();
        causes.report(Instant::now(), Moment::Running, &mut text);
        text.lines().map(str::to_owned).collect()
    }

    fn fail(cause: &str) {
        tracing::warn!(request_id = 7, cause, "request failed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_logged_once_a_second_and_the_others_are_counted() {
        let causes = Arc::default();
        let lines = logged(&causes, || {
            for _ in 0..100 {
                fail("a");
                fail("b");
                tracing::debug!("each of these");
            }
        });
        let warnings = |lines: &[String]| lines.iter().filter(|line| line.contains(LINE)).count();
        assert_eq!((warnings(&lines), lines.len()), (2, 102));
        assert_eq!(report(&causes), [""; 0]);
        for _ in 0..3 {
            advance(WINDOW).await;
            let mut told = report(&causes);
            told.sort_by_key(|line| line.contains("cause=\"b\""));
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(told[0].ends_with(": request failed cause=\"a\" suppressed=99"));
            assert!(
                told[1].contains("  WARN cosgate::observe::program_log::tests: request failed")
            );
            // While it lasts the count alone is told.
            let more = logged(&causes, || (0..99).for_each(|_| (fail("a"), fail("b")).0));
            assert_eq!(more, [""; 0]);
        }
        advance(WINDOW).await;
        assert_eq!(report(&causes).len(), 2);
        advance(WINDOW).await;
        assert_eq!(report(&causes), [""; 0]);
        assert_eq!(
            logged(&causes, || fail("a")).len(),
            1,
            "it is over and begins anew"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_causes_has_an_end() {
        let causes: Arc<Causes> = Arc::default();
        let lines = logged(&causes, || {
            for number in 0..10 * CAUSES {
                fail(&number.to_string());
            }
            tracing::error!("another call site");
        });
        assert_eq!(lines.len(), CAUSES + 2);
        assert_eq!(causes.table.lock().unwrap().len(), CAUSES + 2);
        advance(WINDOW).await;
        let told = report(&causes);
        assert_eq!(told.len(), 1, "{told:?}");
        let left = 9 * CAUSES - 1;
        assert!(told[0].ends_with(&format!(": request failed suppressed={left}")));
    }

    #[tokio::test(start_paused = true)]
    async fn lost_lines_are_told_once_a_second_and_at_the_end() {
        let lost = Arc::new(AtomicU64::new(0));
        let mut own = own_lines(Arc::default(), Arc::clone(&lost));
        let mut text = String::new();
        assert!(!own(&mut text, Moment::Running) && text.is_empty());
        lost.store(5, Ordering::Relaxed);
        assert!(!own(&mut text, Moment::Running));
        assert!(text.ends_with("log lines lost lines=5\n"), "{text}");
        text.clear();
        lost.store(6, Ordering::Relaxed);
        assert!(own(&mut text, Moment::Running) && text.is_empty());
        own(&mut text, Moment::End);
        assert!(text.ends_with("log lines lost lines=1\n"), "{text}");
    }
}
