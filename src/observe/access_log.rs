//! One line for each request, as JSON, written by a thread of its own.
//!
//! The lines pass through a bounded queue. Whoever reads the log may stall: then lines are lost and
//! counted, and no request waits.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use http::StatusCode;

use super::metrics::{CoreMetrics, Event};
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
    /// The tenant, once known.
    pub tenant: Option<&'a str>,
    /// The id of the local access key.
    pub key_id: Option<&'a str>,
    /// What was asked, if it was understood.
    pub operation: Option<Operation>,
    /// The bucket as the client names it.
    pub bucket: Option<&'a str>,
    /// The object's key, as bytes.
    pub key: Option<&'a [u8]>,
    /// Status of the answer.
    pub status: StatusCode,
    /// The S3 error code of the answer.
    pub code: Option<&'a str>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// From the request's head to the answer's last byte.
    pub duration: Duration,
    /// What COS answered, if it was asked.
    pub upstream_status: Option<StatusCode>,
    /// The id that COS gave the request.
    pub upstream_request_id: Option<&'a str>,
    /// What went wrong, for the operator; the client did not get to read it.
    pub detail: Option<&'a str>,
}

/// Where lines go in; one clone for each core's thread.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<String>,
}

/// The thread that writes the lines.
#[derive(Debug)]
pub struct AccessLogWriter {
    lines: SyncSender<String>,
    stopping: Arc<AtomicBool>,
    stopped: Receiver<()>,
}

/// Lines waiting to be written; with [`FIELD_BYTES`] this bounds the memory of a stalled log.
const QUEUE_LINES: usize = 4096;
/// Longer fields are cut. A COS key (850 bytes) is never cut.
const FIELD_BYTES: usize = 1024;
/// Lines are written together up to about this size.
const BATCH_BYTES: usize = 64 * 1024;

/// Starts the thread that writes to `out`. `metrics` counts the lines that `out` does not take.
pub fn start(
    out: impl Write + Send + 'static,
    metrics: Arc<CoreMetrics>,
) -> io::Result<(AccessLog, AccessLogWriter)> {
    let (lines, queue) = sync_channel(QUEUE_LINES);
    let (stopped_sender, stopped) = sync_channel(1);
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopping);
    thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || {
            write_lines(queue, out, &stop, &metrics);
            // Nobody may be waiting any more.
            let _ = stopped_sender.try_send(());
        })?;
    let log = AccessLog {
        lines: lines.clone(),
    };
    Ok((
        log,
        AccessLogWriter {
            lines,
            stopping,
            stopped,
        },
    ))
}

impl AccessLog {
    /// Writes `line`, or counts it as lost when the queue is full. Never waits.
    pub fn write(&self, line: &AccessLine<'_>, metrics: &CoreMetrics) {
        if self.lines.try_send(line.to_json()).is_err() {
            metrics.count(Event::LogLineDropped);
        }
    }
}

impl AccessLogWriter {
    /// Waits until all lines so far are written, at most for `limit`. Whether they were.
    pub fn finish(self, limit: Duration) -> bool {
        self.stopping.store(true, Ordering::Release);
        // Wakes a writer that waits for a line. When the queue is full it is not waiting, and
        // looks at `stopping` once it has emptied the queue.
        let _ = self.lines.try_send(String::new());
        self.stopped.recv_timeout(limit).is_ok()
    }
}

impl AccessLine<'_> {
    /// The line as one JSON object and a newline.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(512);
        json.push_str("{\"time\":\"");
        // Writing to a String cannot fail.
        let _ = write!(json, "{}\"", self.time);
        text_field(&mut json, "request_id", Some(self.request_id));
        text_field(&mut json, "tenant", self.tenant);
        text_field(&mut json, "key_id", self.key_id);
        if let Some(operation) = self.operation {
            let _ = write!(json, ",\"operation\":\"{operation:?}\"");
        }
        text_field(&mut json, "bucket", self.bucket);
        let key = self.key.map(String::from_utf8_lossy);
        text_field(&mut json, "key", key.as_deref());
        number_field(&mut json, "status", u64::from(self.status.as_u16()));
        text_field(&mut json, "code", self.code);
        number_field(&mut json, "received", self.received);
        number_field(&mut json, "sent", self.sent);
        let micros = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX);
        number_field(&mut json, "duration_us", micros);
        if let Some(status) = self.upstream_status {
            number_field(&mut json, "upstream_status", u64::from(status.as_u16()));
        }
        text_field(&mut json, "upstream_request_id", self.upstream_request_id);
        text_field(&mut json, "detail", self.detail);
        json.push_str("}\n");
        json
    }
}

fn number_field(json: &mut String, name: &str, value: u64) {
    let _ = write!(json, ",\"{name}\":{value}");
}

fn text_field(json: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    let shown = value
        .get(..value.floor_char_boundary(FIELD_BYTES))
        .unwrap_or(value);
    let _ = write!(json, ",\"{name}\":\"");
    for c in shown.chars() {
        match c {
            '"' | '\\' => {
                json.push('\\');
                json.push(c);
            }
            // C1 controls too: a terminal obeys them.
            c if c.is_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    if shown.len() < value.len() {
        json.push('…');
    }
    json.push('"');
}

/// Takes the queue, so that what comes after the end is refused, and counted by who brings it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it must be dropped at the end"
)]
fn write_lines(
    queue: Receiver<String>,
    mut out: impl Write,
    stopping: &AtomicBool,
    metrics: &CoreMetrics,
) {
    while let Ok(line) = queue.recv() {
        write_batch(line, &queue, &mut out, metrics);
        if stopping.load(Ordering::Acquire) {
            // What came while the batch was written.
            while let Ok(line) = queue.try_recv() {
                write_batch(line, &queue, &mut out, metrics);
            }
            return;
        }
    }
}

/// Writes `line` and those that wait behind it in one call.
fn write_batch(
    line: String,
    queue: &Receiver<String>,
    out: &mut impl Write,
    metrics: &CoreMetrics,
) {
    let mut count = u64::from(!line.is_empty());
    let mut batch = line;
    while batch.len() < BATCH_BYTES
        && let Ok(line) = queue.try_recv()
    {
        count += u64::from(!line.is_empty());
        batch.push_str(&line);
    }
    if out
        .write_all(batch.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        metrics.add(Event::LogLineDropped, count);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::observe::Metrics;

    /// What was written, for a test to look at.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing until told to.
    struct Stalled(Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Its reader is gone.
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn dropped(metrics: &Metrics) -> u64 {
        let text = metrics.render();
        let line = text
            .lines()
            .find(|line| line.starts_with("cosgate_access_log_dropped_total "))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_line_is_one_json_object_whatever_the_client_sent() {
        let line = AccessLine {
            time: Timestamp::from_unix(1_768_480_245),
            request_id: "R1",
            tenant: Some("acme"),
            operation: Some(Operation::PutObject),
            bucket: Some("photos"),
            key: Some(b"a\"\\\n\x1b[31m\xff\xc2\x9b\xe4\xb8\xad"),
            status: StatusCode::FORBIDDEN,
            code: Some("AccessDenied"),
            received: 7,
            duration: Duration::from_micros(1500),
            ..AccessLine::default()
        };
        let json = line.to_json();
        assert!(json.ends_with("}\n"));
        assert!(!json.trim_end().chars().any(char::is_control), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["time"], "2026-01-15T12:30:45Z");
        assert_eq!(value["key"], "a\"\\\n\u{1b}[31m\u{fffd}\u{9b}中");
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
        let value: serde_json::Value = serde_json::from_str(&line.to_json()).unwrap();
        let cut = value["detail"].as_str().unwrap();
        assert!(cut.ends_with("中…") && cut.len() < FIELD_BYTES + 4);
    }

    #[test]
    fn all_lines_are_written_before_the_end() {
        let metrics = Metrics::new(1);
        let out = Shared::default();
        let (log, writer) = start(out.clone(), metrics.core(0)).unwrap();
        for _ in 0..1000 {
            log.write(&AccessLine::default(), &metrics.core(0));
        }
        assert!(writer.finish(Duration::from_secs(10)));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert_eq!(dropped(&metrics), 0);
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_no_time() {
        let metrics = Metrics::new(1);
        let (resume, stalled) = channel();
        let (log, writer) = start(Stalled(stalled), metrics.core(0)).unwrap();
        let many = u64::try_from(QUEUE_LINES).unwrap() * 2;
        for _ in 0..many {
            log.write(&AccessLine::default(), &metrics.core(0));
        }
        let lost = dropped(&metrics);
        assert!(lost > 0 && lost < many, "{lost}");
        assert!(!writer.finish(Duration::from_millis(10)));
        drop(resume);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let metrics = Metrics::new(1);
        let (log, writer) = start(Broken, metrics.core(0)).unwrap();
        for _ in 0..10 {
            log.write(&AccessLine::default(), &metrics.core(0));
        }
        assert!(writer.finish(Duration::from_secs(10)));
        assert_eq!(dropped(&metrics), 10);
        log.write(&AccessLine::default(), &metrics.core(0));
        assert_eq!(dropped(&metrics), 11);
    }
}
