//! [`TraceExporter`]: a thread that sends recorded requests to a collector, by OTLP over HTTP.
//!
//! No request waits for it: a collector that is away costs spans, which are counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::dial::{Dialer, Roots};
use super::one_shot::OneShotClient;
use super::otlp;
use crate::config::CollectorConfig;
use crate::observe::{RequestTrace, TraceCounters, TraceQueue, spans};

/// So many requests are sent together.
const BATCH: usize = 256;
/// The first of a batch waits so long for others.
const DELAY: Duration = Duration::from_secs(1);
/// How often the thread checks whether it is to end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit of a collector's response.
const RESPONSE_BYTES: usize = 64 * 1024;
/// Where collectors take traces, if the endpoint has no path.
const PATH: &str = "/v1/traces";

/// The thread that sends.
#[derive(Debug)]
pub struct TraceExporter {
    stopping: Arc<AtomicBool>,
    stopped: Receiver<()>,
}

/// Where it sends to.
struct Collector {
    client: OneShotClient,
    path: String,
    authorization: Option<HeaderValue>,
    runtime: Runtime,
    counters: Arc<TraceCounters>,
}

impl TraceExporter {
    /// Starts the thread, and gives the queue that it empties.
    pub fn start(config: &CollectorConfig) -> io::Result<(TraceQueue, Self)> {
        let (queue, traces) = TraceQueue::new();
        let collector = Collector::new(config, Arc::clone(queue.counters()))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (stopped_sender, stopped) = sync_channel(1);
        let stop = Arc::clone(&stopping);
        thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                while let Some(batch) = gather(&traces, &stop) {
                    collector.send(&batch);
                }
                let _ = stopped_sender.try_send(()); // nobody may be waiting any more
            })?;
        Ok((queue, Self { stopping, stopped }))
    }

    /// Waits until all requests so far are sent, at most for `limit`. Whether they were.
    pub fn finish(self, limit: Duration) -> bool {
        self.stopping.store(true, Ordering::Release);
        self.stopped.recv_timeout(limit).is_ok()
    }
}

/// The next batch; `None` when there is nothing left and the thread is to end.
fn gather(
    traces: &Receiver<Box<RequestTrace>>,
    stopping: &AtomicBool,
) -> Option<Vec<RequestTrace>> {
    let mut batch = Vec::new();
    let mut end = None;
    loop {
        match traces.recv_timeout(POLL_INTERVAL) {
            Ok(trace) => batch.push(*trace),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return (!batch.is_empty()).then_some(batch),
        }
        if stopping.load(Ordering::Acquire) {
            batch.extend(traces.try_iter().take(BATCH).map(|trace| *trace));
            return (!batch.is_empty()).then_some(batch);
        }
        if batch.is_empty() {
            continue;
        }
        let end = *end.get_or_insert_with(|| Instant::now() + DELAY);
        if batch.len() >= BATCH || Instant::now() >= end {
            return Some(batch);
        }
    }
}

impl Collector {
    fn new(config: &CollectorConfig, counters: Arc<TraceCounters>) -> io::Result<Self> {
        let roots = Roots::for_endpoint(config.endpoint.tls, config.ca_file.as_deref());
        let roots = roots.map_err(io::Error::other)?;
        let dialer = Dialer::new(roots.as_ref(), None, CONNECT_TIMEOUT, CONNECT_TIMEOUT);
        let authorization = config.authorization.as_ref().map(|secret| {
            let mut value = HeaderValue::from_str(secret.value.expose())
                .map_err(|_| io::Error::other("[traces] authorization cannot stand in a header"))?;
            value.set_sensitive(true);
            Ok::<_, io::Error>(value)
        });
        let path = match config.endpoint.path.as_str() {
            "" => PATH,
            path => path,
        };
        let authority = &config.endpoint.authority;
        Ok(Self {
            client: OneShotClient::new(authority, dialer, TIMEOUT, RESPONSE_BYTES),
            path: path.to_owned(),
            authorization: authorization.transpose()?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            counters,
        })
    }

    /// Sends a batch. One that is not taken is lost: its requests are in the access log.
    fn send(&self, batch: &[RequestTrace]) {
        let all: u64 = batch.iter().map(spans).sum();
        match self.post(otlp::request(batch)) {
            Ok(refused) => {
                let refused = refused.min(all);
                self.counters.refused.fetch_add(refused, Ordering::Relaxed);
                self.counters
                    .sent
                    .fetch_add(all - refused, Ordering::Relaxed);
                if refused > 0 {
                    let cause = "refused";
                    tracing::warn!(cause, spans = refused, "the collector has not taken spans");
                }
            }
            Err(error) => {
                self.counters.not_sent.fetch_add(all, Ordering::Relaxed);
                let cause = "not_sent";
                tracing::warn!(
                    cause,
                    error,
                    spans = all,
                    "the collector has not taken spans"
                );
            }
        }
    }

    /// Sends a message; gives how many of its spans were refused, or why it was not taken.
    fn post(&self, message: Vec<u8>) -> Result<u64, String> {
        let mut request = Request::post(&self.path)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(message)))
            .map_err(|error| error.to_string())?;
        if let Some(authorization) = &self.authorization {
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let sent = self.runtime.block_on(self.client.send(request));
        let response = sent.map_err(|error| error.to_string())?;
        if response.status.is_success() {
            Ok(otlp::refused(&response.body))
        } else {
            Err(format!("status {}", response.status))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::EndpointTemplate;

    fn collector_at(authority: String) -> CollectorConfig {
        CollectorConfig {
            endpoint: EndpointTemplate {
                tls: false,
                authority,
                path: String::new(),
            },
            ca_file: None,
            authorization: None,
        }
    }

    #[test]
    fn counts_spans_of_an_absent_collector() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = free.local_addr().unwrap().to_string();
        drop(free);
        let (queue, exporter) = TraceExporter::start(&collector_at(authority)).unwrap();
        for _ in 0..3 {
            queue.offer(crate::observe::test_trace());
        }
        assert!(exporter.finish(Duration::from_secs(10)));
        assert_eq!(queue.counters().not_sent.load(Ordering::Relaxed), 3);
        assert_eq!(queue.counters().sent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn waits_for_no_hanging_collector() {
        let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = hanging.local_addr().unwrap().to_string();
        let (queue, exporter) = TraceExporter::start(&collector_at(authority)).unwrap();
        queue.offer(crate::observe::test_trace());
        let (_held, _) = hanging.accept().unwrap(); // it waits for the response now
        for _ in 0..5000 {
            queue.offer(crate::observe::test_trace());
        }
        assert!(queue.counters().queue_full.load(Ordering::Relaxed) >= 5000 - 2048 - 256);
        assert!(!exporter.finish(Duration::from_millis(10)));
    }
}
