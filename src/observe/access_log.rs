//! One line for each request, written by a thread of its own.
//!
//! Each core gathers its lines for a moment, so that the writer wakes once for many of them. The
//! reader of the log may stall: then lines are lost and counted, and no request waits.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{StatusCode, Version};

use super::json_fields as field;
use super::log_file::LogFile;
use super::log_writer::{self, Batch, LogQueue, LogWriter, QueueLimits};
use super::metrics::{CoreMetrics, Event};
use super::trace_context::TraceId;
use super::{combined_line, short_line};
use crate::config::{AccessFormat, LogConfig, SampleShare};
use crate::decision::{Step, Verdict};
use crate::s3::Operation;
use crate::timestamp::Timestamp;

/// What is logged of one request. Nothing here may hold a query string or a whole header: a presigned URL's
/// signature and every token live there. `User-Agent` alone is logged as it came, cut: it may hold anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessLine<'a> {
    /// When the request's head had arrived.
    pub time: Timestamp,
    /// The id that the client got.
    pub request_id: &'a str,
    /// The trace that the request is a part of.
    pub trace_id: Option<TraceId>,
    /// The client's version of HTTP.
    pub http: Version,
    /// The version of TLS.
    pub tls: Option<&'static str>,
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
    /// The method, if a head was read.
    pub method: Option<&'a str>,
    /// What was requested, if it was understood.
    pub operation: Option<Operation>,
    /// The action of an STS, in place of an operation.
    pub sts_action: Option<&'a str>,
    /// The bucket as the client names it.
    pub bucket: Option<&'a str>,
    /// The object's key.
    pub key: Option<&'a str>,
    /// What the keys of a listing begin with.
    pub prefix: Option<&'a str>,
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
    /// How often COS got the request.
    pub tries: u64,
    /// From the first byte sent to COS to the head of its last response: an upload's way is in it.
    pub upstream_time: Option<Duration>,
    /// What COS returned, if it got the request.
    pub upstream_status: Option<StatusCode>,
    /// The id that COS gave the request.
    pub upstream_request_id: Option<&'a str>,
    /// What the client declares of itself.
    pub user_agent: Option<&'a [u8]>,
    /// The host of the page that the request came from.
    pub referer_host: Option<&'a [u8]>,
    /// What went wrong, for the operator; the client did not get to read it.
    pub detail: Option<&'a str>,
}

/// Where lines go in.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: LogQueue,
    config: LogConfig,
    /// Short lines have the status in colour.
    in_color: bool,
    /// Set when the file was moved away; `None`: there is no file.
    moved: Option<Arc<AtomicBool>>,
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
/// A batch of this size is passed on at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Starts the thread that writes to the file of `config`, or else to `standard`. `metrics` counts the
/// lines that it does not take.
pub fn start(
    config: &LogConfig,
    standard: impl Write + Send + 'static,
    metrics: Arc<CoreMetrics>,
) -> io::Result<(AccessLog, LogWriter)> {
    let moved = config.access_file.is_some().then(Arc::default);
    let out: Box<dyn Write + Send> = match (&config.access_file, &moved) {
        (Some(path), Some(moved)) => Box::new(LogFile::open(path, Arc::clone(moved))?),
        _ => Box::new(standard),
    };
    let lost = move |lines| lose(&metrics, lines);
    let (queue, writer) = log_writer::start("access-log", QUEUE, out, lost, |_, _| false)?;
    let log = AccessLog {
        queue,
        config: config.clone(),
        in_color: false,
        moved,
    };
    Ok((log, writer))
}

/// Counts lines that nobody will read, and notifies the operator.
fn lose(metrics: &CoreMetrics, lines: u64) {
    metrics.add(Event::LogLineDropped, lines);
    tracing::warn!(lines, "access log lines lost");
}

impl AccessLog {
    /// The same log, under another configuration. It goes on where it does.
    #[must_use]
    pub fn under(&self, config: &LogConfig) -> Self {
        Self {
            config: config.clone(),
            ..self.clone()
        }
    }

    /// The same log, whose short lines are in colour or not.
    #[must_use]
    pub fn in_color(self, in_color: bool) -> Self {
        Self { in_color, ..self }
    }

    /// Opens the file again, after somebody has moved it away. Nothing without a file.
    pub fn reopen(&self) {
        if let Some(moved) = &self.moved {
            moved.store(true, Ordering::Relaxed);
            // Wakes a writer that has nothing to write; one whose queue is full needs no waking.
            let _ = self.queue.offer(Batch::default());
        }
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
    /// Whether lines have parts of a request's head.
    pub fn needs_heads(&self) -> bool {
        let format = self.log.config.access;
        matches!(format, AccessFormat::Combined | AccessFormat::Json)
    }

    /// Whether lines have the names of clients' programs.
    pub fn needs_user_agents(&self) -> bool {
        self.log.config.access_user_agent
    }

    /// Adds `line`, unless it is a success outside the share of those that are written. Never waits.
    /// The owner of the buffer calls [`LogBuffer::flush`] every [`FLUSH`].
    pub fn write(&self, line: &AccessLine<'_>) {
        let LogConfig { access, .. } = self.log.config;
        if access == AccessFormat::Off || !self.takes(line) {
            return;
        }
        let mut gathered = self.gathered.borrow_mut();
        let text = &mut gathered.text;
        match access {
            AccessFormat::Combined => combined_line::write(text, line),
            AccessFormat::Json => line.write_json(text),
            AccessFormat::Short => short_line::write(text, line, self.log.in_color),
            AccessFormat::Off => {}
        }
        gathered.lines += 1;
        if gathered.text.len() >= BATCH_BYTES {
            self.pass_on(gathered.take());
        }
    }

    /// Whether `line` is written: everything but successes is.
    fn takes(&self, line: &AccessLine<'_>) -> bool {
        let config = &self.log.config;
        config.access_share == SampleShare::ALL
            || !line.is_plain_success()
            || line.duration >= config.access_slow
            || config.access_share.takes(fastrand::u32(..))
    }

    /// Passes on what has been gathered.
    pub fn flush(&self) {
        let mut gathered = self.gathered.borrow_mut();
        if gathered.lines > 0 {
            self.pass_on(gathered.take());
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
    /// Nothing of it was refused, and nothing failed.
    fn is_plain_success(&self) -> bool {
        let is_done = matches!(self.verdict, Some(Verdict::Allowed | Verdict::Local));
        is_done && self.status.as_u16() < 400 && self.code.is_none() && self.denied == 0
    }

    /// Appends the line: one JSON object and a newline.
    fn write_json(&self, json: &mut String) {
        json.push_str("{\"time\":\"");
        self.time.push_iso8601(json);
        json.push('"');
        field::text(json, "request_id", Some(self.request_id));
        if let Some(id) = self.trace_id {
            json.push_str(",\"trace_id\":\"");
            id.push(json);
            json.push('"');
        }
        json.push_str(match self.http {
            Version::HTTP_2 => ",\"http\":\"2\"",
            Version::HTTP_10 => ",\"http\":\"1.0\"",
            _ => ",\"http\":\"1.1\"",
        });
        field::text(json, "tls", self.tls);
        self.write_caller(json);
        self.write_request(json);
        self.write_outcome(json);
        json.push_str("}\n");
    }

    /// Who called.
    fn write_caller(&self, json: &mut String) {
        if let Some(client) = self.client {
            field::address(json, "client", client);
        }
        if let Some(uid) = self.uid {
            field::number(json, "uid", uid.into());
        }
        field::text(json, "tenant", self.tenant);
        field::text(json, "identity", self.identity);
        field::text(json, "key_id", self.key_id);
        field::text(json, "session_of", self.session_of);
        field::text(json, "subject", self.subject);
        field::bytes(json, "user_agent", self.user_agent);
        field::bytes(json, "referer_host", self.referer_host);
    }

    /// What was requested.
    fn write_request(&self, json: &mut String) {
        field::text(json, "method", self.method);
        field::text(json, "operation", self.operation.map(Operation::name));
        field::text(json, "operation", self.sts_action);
        field::text(json, "bucket", self.bucket);
        field::text(json, "key", self.key);
        field::text(json, "prefix", self.prefix);
        field::text(json, "source", self.source);
    }

    /// What became of it.
    fn write_outcome(&self, json: &mut String) {
        if self.denied > 0 {
            field::number(json, "denied", self.denied as u64);
        }
        field::text(json, "verdict", self.verdict.map(Verdict::as_str));
        field::text(json, "step", self.step.map(Step::as_str));
        field::number(json, "status", u64::from(self.status.as_u16()));
        field::text(json, "code", self.code);
        field::number(json, "received", self.received);
        field::text(json, "unchecked_checksum", self.unchecked);
        field::number(json, "sent", self.sent);
        field::milliseconds(json, "duration_ms", self.duration);
        if let Some(time) = self.upstream_time {
            field::milliseconds(json, "upstream_ms", time);
        }
        if self.tries > 1 {
            field::number(json, "tries", self.tries);
        }
        if let Some(status) = self.upstream_status {
            field::number(json, "upstream_status", u64::from(status.as_u16()));
        }
        field::text(json, "upstream_request_id", self.upstream_request_id);
        field::text(json, "detail", self.detail);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::{MetricsView, TextFormat};
    use super::*;
    use crate::config::ProgramFormat;
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

    const CONFIG: LogConfig = LogConfig {
        access: AccessFormat::Json,
        access_file: None,
        access_share: SampleShare::ALL,
        access_slow: Duration::from_secs(1),
        access_user_agent: true,
        program: ProgramFormat::Text,
    };

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
        assert_eq!(value["duration_ms"], 1.5);
        assert!(value.get("detail").is_none());
    }

    #[test]
    fn a_long_field_is_cut_between_characters() {
        let detail = "中".repeat(field::FIELD_BYTES);
        let line = AccessLine {
            detail: Some(&detail),
            ..AccessLine::default()
        };
        let value: serde_json::Value = serde_json::from_str(&json(&line)).unwrap();
        let cut = value["detail"].as_str().unwrap();
        assert!(cut.ends_with("中…") && cut.len() < field::FIELD_BYTES + 4);
    }

    #[test]
    fn all_lines_are_written_before_the_end() {
        let metrics = Metrics::new(1);
        let out = KeptText::default();
        let (log, writer) = start(&CONFIG, out.clone(), metrics.core(0)).unwrap();
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
        let (log, writer) = start(&CONFIG, StalledWriter(stalled), metrics.core(0)).unwrap();
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
        let (log, writer) = start(&CONFIG, BrokenWriter, metrics.core(0)).unwrap();
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

    /// What a log under `config` writes of `lines`.
    fn written(config: &LogConfig, lines: &[AccessLine<'_>]) -> String {
        let metrics = Metrics::new(1);
        let out = KeptText::default();
        let (log, writer) = start(config, out.clone(), metrics.core(0)).unwrap();
        let buffer = log.buffer(metrics.core(0));
        for line in lines {
            buffer.write(line);
        }
        drop(buffer);
        assert!(writer.finish(Duration::from_secs(10)));
        out.text()
    }

    fn success(id: &str) -> AccessLine<'_> {
        AccessLine {
            request_id: id,
            verdict: Some(Verdict::Allowed),
            duration: Duration::from_millis(999),
            ..AccessLine::default()
        }
    }

    #[test]
    fn samples_successes_alone() {
        let none = LogConfig {
            access_share: SampleShare::NONE,
            ..CONFIG
        };
        let text = written(
            &none,
            &[
                success("fast"),
                AccessLine {
                    verdict: Some(Verdict::Local),
                    ..success("local")
                },
                AccessLine {
                    duration: Duration::from_secs(1),
                    ..success("slow")
                },
                AccessLine {
                    status: StatusCode::NOT_FOUND,
                    ..success("missing")
                },
                AccessLine {
                    code: Some("InternalError"), // in a body with status 200
                    ..success("late")
                },
                AccessLine {
                    denied: 1,
                    ..success("denied")
                },
                AccessLine {
                    verdict: Some(Verdict::Refused),
                    ..success("refused")
                },
                AccessLine {
                    verdict: Some(Verdict::Failed),
                    ..success("failed")
                },
            ],
        );
        let id = |line: &str| -> String {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["request_id"].as_str().unwrap().to_owned()
        };
        let ids: Vec<String> = text.lines().map(id).collect();
        assert_eq!(
            ids,
            ["slow", "missing", "late", "denied", "refused", "failed"]
        );
        assert_eq!(written(&CONFIG, &[success("all")]).lines().count(), 1);
    }

    #[test]
    fn writes_nothing_when_off() {
        let off = LogConfig {
            access: AccessFormat::Off,
            ..CONFIG
        };
        let refused = AccessLine {
            verdict: Some(Verdict::Refused),
            ..AccessLine::default()
        };
        assert_eq!(written(&off, &[success("a"), refused]), "");
    }

    #[test]
    fn reopens_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let config = LogConfig {
            access: AccessFormat::Combined,
            access_file: Some(path.clone()),
            ..CONFIG
        };
        let metrics = Metrics::new(1);
        let standard = KeptText::default();
        let (log, writer) = start(&config, standard.clone(), metrics.core(0)).unwrap();
        let buffer = log.buffer(metrics.core(0));
        buffer.write(&success("a"));
        buffer.flush();
        while std::fs::metadata(&path).unwrap().len() == 0 {
            std::thread::yield_now();
        }
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now(); // without another line
        }
        buffer.write(&success("b"));
        drop(buffer);
        assert!(writer.finish(Duration::from_secs(10)));
        for name in ["old", "access.log"] {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(text.lines().count(), 1, "{name}");
        }
        assert_eq!(standard.text(), "");
    }
}
