//! One line for each request, as JSON, written by a thread of its own.
//!
//! Each core gathers its lines for a moment, so that the writer wakes once for many of them. The
//! reader of the log may stall: then lines are lost and counted, and no request waits.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Version};

use super::log_writer::{self, Batch, LogQueue, LogWriter, QueueLimits};
use super::metrics::{CoreMetrics, Event};
use super::short_line;
use crate::decision::{Step, Verdict};
use crate::s3::Operation;
use crate::timestamp::Timestamp;

/// What is told of one request. Nothing here may hold a query string or a header: a presigned URL's
/// signature and every token live there.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessLine<'a> {
    /// When the request's head had arrived.
    pub time: Timestamp,
    /// The id that the client was told.
    pub request_id: &'a str,
    /// The client's version of HTTP.
    pub http: Version,
    /// The client's address, proxies that are trusted left out.
    pub client: Option<IpAddr>,
    /// The number of the user at the other end of a Unix socket.
    pub uid: Option<u32>,
    /// The tenant, once known.
    pub tenant: Option<&'a str>,
    /// By what the caller is known, in the words of docs/security.md.
    pub identity: Option<&'a str>,
    /// The id of the local access key, or of the session key.
    pub key_id: Option<&'a str>,
    /// The local access key that a session key was got with.
    pub session_of: Option<&'a str>,
    /// Whom the identity provider's token is about.
    pub subject: Option<&'a str>,
    /// What was asked, if it was understood.
    pub operation: Option<Operation>,
    /// What an STS was asked, in place of an operation.
    pub sts_action: Option<&'a str>,
    /// The bucket as the client names it.
    pub bucket: Option<&'a str>,
    /// The object's key.
    pub key: Option<&'a str>,
    /// What a copy reads: bucket, slash, key, as the client names them.
    pub source: Option<&'a str>,
    /// Keys of a multi-delete that were refused, each for itself.
    pub denied: usize,
    /// What became of it.
    pub verdict: Option<Verdict>,
    /// The step that it ended at, when it was refused or failed.
    pub step: Option<Step>,
    /// Status of the response.
    pub status: StatusCode,
    /// The S3 error code of the response.
    pub code: Option<&'a str>,
    /// Bytes of the request's body.
    pub received: u64,
    /// The header or trailer of a checksum that the client gave and that was not checked.
    pub unchecked: Option<&'a str>,
    /// Bytes of the response's body.
    pub sent: u64,
    /// From the request's head to the response's last byte.
    pub duration: Duration,
    /// How often COS was asked.
    pub tries: u64,
    /// From the first byte sent to COS to the head of its last response: an upload's way is in it.
    pub upstream_time: Option<Duration>,
    /// What COS answered, if it was asked.
    pub upstream_status: Option<StatusCode>,
    /// The id that COS gave the request.
    pub upstream_request_id: Option<&'a str>,
    /// What went wrong, for the operator; the client did not get to read it.
    pub detail: Option<&'a str>,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// One JSON object, for programs.
    Json,
    /// The main fields in columns, for a person.
    Short {
        /// The status in colour.
        in_color: bool,
    },
}

/// Where lines go in.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: LogQueue,
    format: LineFormat,
}

/// One core's lines on their way to the writer.
#[derive(Debug)]
pub struct LogBuffer {
    log: AccessLog,
    metrics: Arc<CoreMetrics>,
    gathered: RefCell<Batch>,
}

/// How often a core's lines are passed on when they are few.
pub(crate) const FLUSH: Duration = Duration::from_millis(100);
/// What waits to be written while the reader has stopped.
const QUEUE: QueueLimits = QueueLimits {
    batches: 64,
    bytes: 4 << 20,
};
/// Longer fields are cut. A COS key (850 bytes) is never cut.
const FIELD_BYTES: usize = 1024;
/// A batch of this size is passed on at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Starts the thread that writes to `out`. `metrics` counts the lines that `out` does not take.
pub fn start(
    out: impl Write + Send + 'static,
    metrics: Arc<CoreMetrics>,
) -> io::Result<(AccessLog, LogWriter)> {
    let lost = move |lines| lose(&metrics, lines);
    let (queue, writer) = log_writer::start("access-log", QUEUE, out, lost, |_, _| false)?;
    let format = LineFormat::Json;
    Ok((AccessLog { queue, format }, writer))
}

/// Counts lines that nobody will read, and tells the operator.
fn lose(metrics: &CoreMetrics, lines: u64) {
    metrics.add(Event::LogLineDropped, lines);
    tracing::warn!(lines, "access log lines lost");
}

impl AccessLog {
    /// The same log with lines in this format.
    #[must_use]
    pub fn with_format(self, format: LineFormat) -> Self {
        Self { format, ..self }
    }

    /// A buffer for one core, whose `metrics` count the lines that are lost.
    pub fn buffer(&self, metrics: Arc<CoreMetrics>) -> LogBuffer {
        LogBuffer {
            log: self.clone(),
            metrics,
            gathered: RefCell::default(),
        }
    }
}

impl LogBuffer {
    /// Adds `line`. Never waits. Whoever owns the buffer calls [`LogBuffer::flush`] every [`FLUSH`].
    pub fn write(&self, line: &AccessLine<'_>) {
        let mut gathered = self.gathered.borrow_mut();
        match self.log.format {
            LineFormat::Json => line.write_json(&mut gathered.text),
            LineFormat::Short { in_color } => short_line::write(&mut gathered.text, line, in_color),
        }
        gathered.lines += 1;
        if gathered.text.len() >= BATCH_BYTES {
            self.pass_on(std::mem::take(&mut gathered));
        }
    }

    /// Passes on what has been gathered.
    pub fn flush(&self) {
        let batch = self.gathered.take();
        if batch.lines > 0 {
            self.pass_on(batch);
        }
    }

    /// Hands a batch to the writer, or counts its lines as lost when the queue is full.
    fn pass_on(&self, batch: Batch) {
        let lines = batch.lines;
        if !self.log.queue.offer(batch) {
            lose(&self.metrics, lines);
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl AccessLine<'_> {
    /// Appends the line: one JSON object and a newline.
    fn write_json(&self, json: &mut String) {
        json.push_str("{\"time\":\"");
        self.time.push_iso8601(json);
        json.push('"');
        text_field(json, "request_id", Some(self.request_id));
        json.push_str(match self.http {
            Version::HTTP_2 => ",\"http\":\"2\"",
            Version::HTTP_10 => ",\"http\":\"1.0\"",
            _ => ",\"http\":\"1.1\"",
        });
        if let Some(client) = self.client {
            let _ = write!(json, ",\"client\":\"{client}\"");
        }
        if let Some(uid) = self.uid {
            let _ = write!(json, ",\"uid\":{uid}");
        }
        text_field(json, "tenant", self.tenant);
        text_field(json, "identity", self.identity);
        text_field(json, "key_id", self.key_id);
        text_field(json, "session_of", self.session_of);
        text_field(json, "subject", self.subject);
        text_field(json, "operation", self.operation.map(Operation::name));
        text_field(json, "operation", self.sts_action);
        text_field(json, "bucket", self.bucket);
        text_field(json, "key", self.key);
        text_field(json, "source", self.source);
        if self.denied > 0 {
            number_field(json, "denied", self.denied as u64);
        }
        text_field(json, "verdict", self.verdict.map(Verdict::as_str));
        text_field(json, "step", self.step.map(Step::as_str));
        number_field(json, "status", u64::from(self.status.as_u16()));
        text_field(json, "code", self.code);
        number_field(json, "received", self.received);
        text_field(json, "unchecked_checksum", self.unchecked);
        number_field(json, "sent", self.sent);
        number_field(json, "duration_us", micros(self.duration));
        if let Some(time) = self.upstream_time {
            number_field(json, "upstream_us", micros(time));
        }
        if self.tries > 1 {
            number_field(json, "tries", self.tries);
        }
        if let Some(status) = self.upstream_status {
            number_field(json, "upstream_status", u64::from(status.as_u16()));
        }
        text_field(json, "upstream_request_id", self.upstream_request_id);
        text_field(json, "detail", self.detail);
        json.push_str("}\n");
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn number_field(json: &mut String, name: &str, value: u64) {
    push_name(json, name);
    json.push_str(itoa::Buffer::new().format(value));
}

fn text_field(json: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    let shown = value
        .get(..value.floor_char_boundary(FIELD_BYTES))
        .unwrap_or(value);
    push_name(json, name);
    json.push('"');
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if shown.bytes().all(plain) {
        json.push_str(shown);
    } else {
        escape(json, shown);
    }
    if shown.len() < value.len() {
        json.push('…');
    }
    json.push('"');
}

/// What comes before a field's value. Every request is logged: `write!` costs several times as much.
fn push_name(json: &mut String, name: &str) {
    json.push_str(",\"");
    json.push_str(name);
    json.push_str("\":");
}

fn escape(json: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                json.push('\\');
                json.push(c);
            }
            // C1 controls too: a terminal obeys them.
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::{MetricsView, TextFormat};
    use super::*;
    use crate::observe::Metrics;
    use crate::observe::log_writer::test_writers::{KeptText, StalledWriter};

    /// Its reader is gone.
    struct BrokenWriter;

    impl Write for BrokenWriter {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn dropped(metrics: &Metrics) -> u64 {
        let text = metrics.render(&MetricsView::default(), TextFormat::Prometheus);
        let line = text
            .lines()
            .find(|line| line.starts_with("cosgate_access_log_dropped_total "))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn json(line: &AccessLine<'_>) -> String {
        let mut json = String::new();
        line.write_json(&mut json);
        json
    }

    #[test]
    fn a_line_is_one_json_object_whatever_the_client_sent() {
        let line = AccessLine {
            time: Timestamp::from_unix(1_768_480_245),
            request_id: "R1",
            tenant: Some("acme"),
            operation: Some(Operation::PutObject),
            bucket: Some("photos"),
            key: Some("a\"\\\n\x1b[31m\u{9b}中"),
            status: StatusCode::FORBIDDEN,
            code: Some("AccessDenied"),
            received: 7,
            duration: Duration::from_micros(1500),
            ..AccessLine::default()
        };
        let json = json(&line);
        assert!(json.ends_with("}\n"));
        assert!(!json.trim_end().chars().any(char::is_control), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["time"], "2026-01-15T12:30:45Z");
        assert_eq!(value["key"], "a\"\\\n\u{1b}[31m\u{9b}中");
        assert_eq!(value["operation"], "PutObject");
        assert_eq!(value["status"], 403);
        assert_eq!(value["duration_us"], 1500);
        assert!(value.get("detail").is_none());
    }

    #[test]
    fn a_long_field_is_cut_between_characters() {
        let detail = "中".repeat(FIELD_BYTES);
        let line = AccessLine {
            detail: Some(&detail),
            ..AccessLine::default()
        };
        let value: serde_json::Value = serde_json::from_str(&json(&line)).unwrap();
        let cut = value["detail"].as_str().unwrap();
        assert!(cut.ends_with("中…") && cut.len() < FIELD_BYTES + 4);
    }

    #[test]
    fn all_lines_are_written_before_the_end() {
        let metrics = Metrics::new(1);
        let out = KeptText::default();
        let (log, writer) = start(out.clone(), metrics.core(0)).unwrap();
        let buffer = log.buffer(metrics.core(0));
        for _ in 0..1000 {
            buffer.write(&AccessLine::default());
        }
        drop(buffer);
        assert!(writer.finish(Duration::from_secs(10)));
        let text = out.text();
        assert_eq!(text.lines().count(), 1000);
        assert_eq!(dropped(&metrics), 0);
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_no_time() {
        let metrics = Metrics::new(1);
        let (resume, stalled) = channel();
        let (log, writer) = start(StalledWriter(stalled), metrics.core(0)).unwrap();
        let buffer = log.buffer(metrics.core(0));
        for _ in 0..2 * QUEUE.batches {
            buffer.write(&AccessLine::default());
            buffer.flush();
        }
        let lost = dropped(&metrics);
        assert!(
            lost > 0 && lost < 2 * u64::try_from(QUEUE.batches).unwrap(),
            "{lost}"
        );
        assert!(!writer.finish(Duration::from_millis(10)));
        drop(resume);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let metrics = Metrics::new(1);
        let (log, writer) = start(BrokenWriter, metrics.core(0)).unwrap();
        let buffer = log.buffer(metrics.core(0));
        for _ in 0..10 {
            buffer.write(&AccessLine::default());
        }
        buffer.flush();
        assert!(writer.finish(Duration::from_secs(10)));
        assert_eq!(dropped(&metrics), 10);
        buffer.write(&AccessLine::default());
        buffer.flush();
        assert_eq!(dropped(&metrics), 11);
    }
}
