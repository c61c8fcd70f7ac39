//! Program log: what cosgate says of itself, on standard error.
//!
//! The lines pass through a bounded queue to a thread that writes them, so that no core waits for the
//! reader of the log; lines that are lost are counted. A cause of warnings or errors is logged once a
//! second, with the number of events that were left out: no stranger fills the log. So is an event that names
//! its `cause`, unless each is wanted for debugging.

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
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry};

use super::log_writer::{self, Batch, LogQueue, LogWriter, Moment, QueueLimits};
use super::program_line::{EventFormat, LineFields, LineForm, OwnLine};
use crate::config::ProgramFormat;

/// What waits to be written while the reader has stopped.
const QUEUE: QueueLimits = QueueLimits {
    batches: 1024,
    bytes: 1 << 20,
};
/// How long the last lines may take at the end.
const FLUSH: Duration = Duration::from_secs(2);
/// A cause is logged once in this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Fields that distinguish causes of one call site. Their values come from the code or the
/// configuration, never from a client.
const CAUSE_FIELDS: [&str; 4] = ["cause", "identity", "issuer", "location"];
/// Causes that are distinguished at once. Beyond it a call site is one cause, and these are as many as
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
    pub fn start(filter: Targets, out: impl Write + Send + 'static) -> io::Result<Self> {
        let causes = Arc::new(Causes::default());
        let lost = Arc::new(AtomicU64::new(0));
        let form = LineForm::default();
        let own = own_lines(Arc::clone(&causes), Arc::clone(&lost), form.clone());
        let counted = Arc::clone(&lost);
        let not_written = move |lines| {
            counted.fetch_add(lines, Ordering::Relaxed);
        };
        let (queue, writer) = log_writer::start("program-log", QUEUE, out, not_written, own)?;
        let queue = LineQueue { queue, lost, form };
        let format = EventFormat::new(&queue.form);
        tracing::subscriber::set_global_default(subscriber(filter, causes, format, queue.clone()))
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

    /// Sets the format of the lines from now on.
    pub fn set_format(&self, format: ProgramFormat) {
        self.queue.form.set(format);
    }

    /// Writes a line that is no event, as a command's last word.
    pub fn write_line(&self, line: &impl fmt::Display) {
        self.lines().write_line(line);
    }
}

impl LogLines {
    /// Writes a line that is no event.
    pub fn write_line(&self, line: &impl fmt::Display) {
        self.0.push(self.0.form.printed(&line.to_string()));
    }

    /// Sets the format of the lines from now on.
    pub fn set_format(&self, format: ProgramFormat) {
        self.0.form.set(format);
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
    form: LineForm,
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
    filter: Targets,
    causes: Arc<Causes>,
    format: EventFormat,
    out: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let is_debugging = Layer::<Registry>::max_level_hint(&filter) >= Some(LevelFilter::DEBUG);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(format)
        .with_writer(out)
        .log_internal_errors(false); // it would write to standard error itself
    Registry::default()
        .with(lines)
        .with(OncePerSecond {
            causes,
            is_debugging,
        })
        .with(filter)
}

/// A panic as a line of the log: the standard hook writes to standard error on the thread that panics.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture(); // where RUST_BACKTRACE requests it
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
    form: LineForm,
) -> impl FnMut(&mut String, Moment) -> bool + Send {
    let mut reported = 0;
    let mut reported_at: Option<Instant> = None;
    move |text, moment| {
        let now = Instant::now();
        let lost = lost.load(Ordering::Relaxed);
        let is_due = reported_at.is_none_or(|at| now - at >= WINDOW) || moment == Moment::End;
        if lost > reported && is_due {
            let line = OwnLine {
                level: Level::WARN,
                target: module_path!(),
                message: "log lines lost",
                fields: &LineFields::default(),
                count: Some(("lines", lost - reported)),
            };
            form.push(text, &line);
            reported = lost;
            reported_at = Some(now);
        }
        causes.report(now, moment, (&mut *text, &form)) || lost > reported
    }
}

/// Lets a warning, an error or an event with a `cause` pass when that was not logged within the last second.
struct OncePerSecond {
    causes: Arc<Causes>,
    /// Each event with a cause is wanted.
    is_debugging: bool,
}

impl<S: Subscriber> Layer<S> for OncePerSecond {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let is_failure = *metadata.level() <= Level::WARN;
        let has_cause = || !self.is_debugging && metadata.fields().field("cause").is_some();
        !(is_failure || has_cause()) || self.causes.admit(event, Instant::now())
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
    fields: LineFields,
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
        let mut key = (callsite, cut(cause.fields.text.clone()));
        if table.len() >= CAUSES && !table.contains_key(&key) {
            key.1.clear();
            cause.fields = LineFields::default();
        }
        if let Some(logged) = table.get_mut(&key) {
            // `report` opens the next window: it reports what was left out in this one.
            logged.suppressed += 1;
            return false;
        }
        let logged = Logged {
            metadata: event.metadata(),
            message: cut(cause.message),
            fields: cause.fields,
            since: now,
            suppressed: 0,
        };
        table.insert(key, logged);
        true
    }

    /// Appends a line for each cause that had events left out, once a second. Whether any cause is kept.
    fn report(&self, now: Instant, moment: Moment, (text, form): (&mut String, &LineForm)) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, logged| {
            if now - logged.since < WINDOW && moment == Moment::Running {
                return true;
            }
            let suppressed = std::mem::take(&mut logged.suppressed);
            if suppressed == 0 {
                return false;
            }
            logged.since = now;
            let metadata = logged.metadata;
            let line = OwnLine {
                level: *metadata.level(),
                target: metadata.target(),
                message: &logged.message,
                fields: &logged.fields,
                count: Some(("suppressed", suppressed)),
            };
            form.push(text, &line);
            true
        });
        !table.is_empty()
    }
}

/// What of an event says what it was caused by.
#[derive(Default)]
struct Cause {
    message: String,
    fields: LineFields,
}

impl Visit for Cause {
    fn record_str(&mut self, field: &Field, value: &str) {
        if CAUSE_FIELDS.contains(&field.name()) {
            self.fields.push_str(field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // Writing to a String cannot fail.
            "message" => drop(write!(self.message, "{value:?}")),
            name if CAUSE_FIELDS.contains(&name) => self.fields.push_debug(name, value),
            _ => {}
        }
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
    use crate::encoding::visible::is_hidden;
    use crate::observe::log_writer::test_writers::KeptText;

    const LINE: &str = "request failed";

    /// Runs `events` under a log of its own.
    fn logged(causes: &Arc<Causes>, events: impl FnOnce()) -> Vec<String> {
        logged_by("debug", &LineForm::default(), causes, events)
    }

    /// The same with a filter, and in this form.
    fn logged_by(
        filter: &str,
        form: &LineForm,
        causes: &Arc<Causes>,
        events: impl FnOnce(),
    ) -> Vec<String> {
        let kept = KeptText::default();
        let out = kept.clone();
        let out = move || out.clone();
        let format = EventFormat::new(form);
        let subscriber = subscriber(filter.parse().unwrap(), Arc::clone(causes), format, out);
        tracing::subscriber::with_default(subscriber, events);
        kept.text().lines().map(str::to_owned).collect()
    }

    fn report(causes: &Causes) -> Vec<String> {
        report_in(&LineForm::default(), causes)
    }

    fn report_in(form: &LineForm, causes: &Causes) -> Vec<String> {
        let mut text = String::new();
        causes.report(Instant::now(), Moment::Running, (&mut text, form));
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn writes_json_lines_with_all_parts() {
        let (form, causes) = (LineForm::default(), Arc::default());
        form.set(ProgramFormat::Json);
        let error = io::Error::other("of \"it\"\n\u{1b}[31m");
        let lines = logged_by("info", &form, &causes, || {
            for _ in 0..2 {
                let peer = "192.0.2.1";
                tracing::warn!(cause = "c\"1", %peer, %error, count = 7, delta = -1, ok = true, share = 0.5, "it failed");
            }
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains('\u{1b}'));
        let object = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let mut value = object(&lines[0]);
        let time = value["time"].take();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        let target = "cosgate::observe::program_log::tests";
        assert_eq!(
            value,
            serde_json::json!({
                "time": null, "level": "warn", "target": target, "message": "it failed", "cause": "c\"1",
                "peer": "192.0.2.1", "error": error.to_string(), "count": 7, "delta": -1, "ok": true, "share": 0.5
            })
        );
        advance(WINDOW).await;
        let mut value = object(&report_in(&form, &causes)[0]);
        value["time"].take();
        assert_eq!(
            value,
            serde_json::json!({
                "time": null, "level": "warn", "target": target, "message": "it failed", "cause": "c\"1",
                "suppressed": 1
            })
        );
        let value = object(&form.printed("a.toml:1:2: warning: unknown"));
        assert_eq!(
            (&value["level"], &value["target"]),
            (&"warn".into(), &"cosgate".into())
        );
        assert_eq!(value["message"], "a.toml:1:2: warning: unknown");
        assert_eq!(
            object(&form.printed("cosgate: error: no"))["level"],
            "error"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_line_has_a_hidden_character() {
        for format in [ProgramFormat::Text, ProgramFormat::Json] {
            let (form, causes) = (LineForm::default(), Arc::default());
            form.set(format);
            let mut lines = logged_by("info", &form, &causes, || {
                for _ in 0..2 {
                    let error = io::Error::other("gpj\u{202e}\u{2028}\u{1b}[31m");
                    tracing::warn!(%error, "it\u{2029} failed");
                }
            });
            assert_eq!(lines.len(), 1);
            advance(WINDOW).await;
            lines.extend(report_in(&form, &causes));
            lines.extend(form.printed("a\u{feff}.toml\nb").lines().map(str::to_owned));
            for line in &lines {
                assert!(!line.chars().any(is_hidden), "{line:?}");
            }
            let all = lines.concat();
            for code in ["202e", "2028", "2029", "feff"] {
                assert!(all.contains(code), "{all}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn limits_events_with_a_cause_unless_debugging() {
        for (filter, expected) in [("info", 2), ("debug", 20)] {
            let lines = logged_by(filter, &LineForm::default(), &Arc::default(), || {
                for _ in 0..10 {
                    tracing::info!(cause = "a", "refused");
                    tracing::info!(cause = "b", "refused");
                }
            });
            assert_eq!(lines.len(), expected, "{filter}");
        }
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
            let mut reported = report(&causes);
            reported.sort_by_key(|line| line.contains("cause=\"b\""));
            assert_eq!(reported.len(), 2, "{reported:?}");
            assert!(reported[0].ends_with(": request failed cause=\"a\" suppressed=99"));
            assert!(
                reported[1].contains("  WARN cosgate::observe::program_log::tests: request failed")
            );
            // While it lasts the count alone is reported.
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
        let reported = report(&causes);
        assert_eq!(reported.len(), 1, "{reported:?}");
        let left = 9 * CAUSES - 1;
        assert!(reported[0].ends_with(&format!(": request failed suppressed={left}")));
    }

    #[tokio::test(start_paused = true)]
    async fn lost_lines_are_reported_once_a_second_and_at_the_end() {
        let lost = Arc::new(AtomicU64::new(0));
        let mut own = own_lines(Arc::default(), Arc::clone(&lost), LineForm::default());
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
