//! HTTP/1.1 toward clients: requests on a connection, one after another, within its time limits.

use std::pin::pin;
use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::clock::wall_clock;
use crate::config::ServerLimits;
use crate::downstream::on_wake::OnWake;
use crate::downstream::request_guard::{RequestGuard, is_unexpected_refusal};
use crate::downstream::request_head::{HeadError, HeadLimits};
use crate::observe::Event;
use crate::proxy::{Client, CurrentProxy};
use crate::tenant::Peer;
use crate::transport::{CoreLoad, CountedStream, Phase, StreamState};

/// hyper's default `max_buf_size`. A head must fit into that buffer.
const READ_BUFFER: usize = 8192 + 100 * 4096;
/// hyper's default `max_headers`.
const DEFAULT_FIELDS: usize = 100;
/// How long a drain waits for a head that may be in flight already. Clients do not send a request again whose new
/// connection is closed before the response.
const LAST_HEAD: Duration = Duration::from_secs(1);
/// How often a drain checks whether that head has come.
const LAST_HEAD_POLL: Duration = Duration::from_millis(10);

/// Serves requests on `stream` until its client or its limits end it. `draining` completes when the
/// program ends: then the request in flight is the last.
pub(super) async fn serve<S>(
    current: &CurrentProxy,
    load: &Rc<CoreLoad>,
    stream: S,
    client: Client,
    draining: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = Rc::clone(current.get().limits());
    let head_limits = HeadLimits {
        bytes: limits.head_bytes,
        fields: limits.head_fields,
    };
    let stream_state = StreamState::new(load);
    let refuse = |error: HeadError| {
        let (proxy, peer) = (current.get(), client.peer);
        proxy.metrics().count(error.event());
        tracing::info!(cause = error.as_str(), %peer, "a request head is refused");
        proxy.refuse_head(error.into(), &client, &stream_state, wall_clock())
    };
    let counted = CountedStream::new(stream, Rc::clone(&stream_state));
    let guard = RequestGuard::new(counted, Rc::clone(&stream_state), head_limits, refuse);
    let service = service_fn(|request| {
        current.get().handle(
            request,
            client.clone(),
            Rc::clone(&stream_state),
            wall_clock(),
        )
    });
    let connection = builder(head_limits).serve_connection(TokioIo::new(guard), service);
    let mut connection = pin!(connection);
    let mut draining = OnWake::new(last_head(draining, &stream_state));
    let mut deadline = Http1Deadline::new(&stream_state);
    let mut is_draining = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if ended.is_err_and(|error| is_unexpected_refusal(&error)) {
                    current.get().metrics().count(Event::HeadUnexpectedlyRefused);
                }
                return;
            }
            () = &mut draining, if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(deadline.next) => {
                if deadline.is_overdue(&stream_state, &limits) {
                    if stream_state.phase().0 == Phase::Head {
                        record_late_head(current, stream_state.read() > 0, client.peer);
                    }
                    return;
                }
            }
        }
    }
}

/// Counts and logs a head that did not arrive in time. A client that has sent nothing may have been a probe.
pub(super) fn record_late_head(current: &CurrentProxy, has_begun: bool, peer: Peer) {
    let (event, cause) = if has_begun {
        (Event::HeadTimeout, "timeout")
    } else {
        (Event::HeadSilent, "silent")
    };
    current.get().metrics().count(event);
    tracing::info!(cause, %peer, "a request head did not arrive in time");
}

/// Completes when `draining` has, and a head that may be on its way has come or has had its time.
async fn last_head(draining: impl Future<Output = ()>, stream_state: &StreamState) {
    draining.await;
    let end = Instant::now() + LAST_HEAD;
    while stream_state.phase().0 == Phase::Head && Instant::now() < end {
        sleep(LAST_HEAD_POLL).await;
    }
}

/// hyper with the limits of the request guard, so that it accepts each head that the guard accepts.
pub(super) fn builder(limits: HeadLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(true) // a client that ends its sending side still gets its response
        .header_read_timeout(None) // it would end idle connections too: `Http1Deadline` distinguishes them
        .max_header_size(limits.bytes)
        .max_buf_size(limits.bytes.max(READ_BUFFER));
    if limits.fields != DEFAULT_FIELDS {
        // With any number that it is given, even its default, hyper fills two tables anew for each head.
        builder.max_headers(limits.fields);
    }
    builder
}

/// The time limits of a connection that the pace of a body does not cover: heads that do not arrive, idle
/// connections, and clients that do not read the end of a response.
struct Http1Deadline {
    next: Instant,
    written: u64,
    progress: Instant,
}

impl Http1Deadline {
    fn new(stream_state: &StreamState) -> Self {
        let (_, since) = stream_state.phase();
        Self {
            next: since,
            written: 0,
            progress: since,
        }
    }

    /// Whether the connection must be closed. Otherwise sets the next time to check.
    fn is_overdue(&mut self, stream_state: &StreamState, limits: &ServerLimits) -> bool {
        let now = Instant::now();
        if stream_state.written() != self.written || !stream_state.is_blocked() {
            self.written = stream_state.written();
            self.progress = now;
        }
        let (phase, since) = stream_state.phase();
        let end = match phase {
            Phase::Busy => None,
            Phase::Head => Some(since + limits.head_timeout),
            Phase::Idle if stream_state.is_blocked() => Some(self.progress + limits.body_window),
            Phase::Idle => Some(since + limits.idle_timeout),
        };
        // A head may begin at any moment. A check after this time is never too late for it.
        let soonest_head = now + limits.head_timeout;
        self.next = end.map_or(soonest_head, |end| end.min(soonest_head));
        end.is_some_and(|end| end <= now)
    }
}
