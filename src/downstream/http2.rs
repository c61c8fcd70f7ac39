//! HTTP/2 toward clients: concurrent requests on one connection, each on its own stream, within the limits
//! that HTTP/1 has for each connection.
//!
//! The memory of a stalled stream is bounded. A stalled upload holds its window, and all uploads of a
//! connection together hold at most `WINDOWS` windows. A stalled response holds one piece in hyper and
//! `SEND_BUFFER` in h2.

use std::cell::RefCell;
use std::error::Error as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, Instant, sleep_until};

use crate::body::PaceLimit;
use crate::clock::wall_clock;
use crate::config::ServerLimits;
use crate::downstream::frames::{FrameFindings, FrameInspector};
use crate::downstream::header_block::TABLE_BYTES;
use crate::downstream::http1::record_late_head;
use crate::observe::Event;
use crate::proxy::{Client, CurrentProxy};
use crate::s3::http2::AlteredTarget;
use crate::tenant::Peer;
use crate::transport::FRAME;
use crate::transport::inspected::InspectedStream;
use crate::transport::{CoreLoad, CountedStream, Phase, Side, StreamState, TransferPace};

/// h2 takes more of a response while less than this of it waits for the client's socket. It is the size of
/// a frame: with the frame that is added on top, h2 never waits for us.
const SEND_BUFFER: usize = FRAME;

/// The window of a connection, as a number of stream windows. When this many uploads stall, the others on
/// the connection wait until the pace limit ends them. One window for each stream would let a thousand
/// streams hold more memory than all bodies may.
const WINDOWS: u32 = 16;

/// Max streams that the client resets before we accept them. This is h2's default, stated here because it
/// protects from "rapid reset" (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Max streams that we reset because of what the client sent, in the life of a connection ("made you
/// reset", CVE-2025-8671). A client may exceed the stream limit before it knows the limit. Such streams are
/// reset, and the connection stays open.
const OUR_RESETS: usize = 1024;

/// cosgate pings a client that has been silent for this time, and waits as long for the reply.
const PING: Duration = Duration::from_secs(20);

/// How long a client may keep its connection after GOAWAY without reading from it.
const GOODBYE: Duration = Duration::from_secs(3);

/// Serves requests on `stream` until its client or its limits end it; `draining` completes when the
/// program ends: then the requests in flight are the last.
pub(crate) async fn serve<S>(
    current: &CurrentProxy,
    load: &Rc<CoreLoad>,
    stream: S,
    client: Client,
    draining: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &Rc::clone(current.get().limits());
    let stream_state = StreamState::of_streams(load);
    let findings = Rc::new(FrameFindings::default());
    let streams = StreamExecutor::new(current.get().pace());
    let counted = CountedStream::new(stream, Rc::clone(&stream_state));
    let frames = FrameInspector::new(&findings);
    let io = TokioIo::new(InspectedStream::new(counted, frames));
    let service = service_fn(|mut request: http::Request<Incoming>| {
        findings.note_request();
        let target = request.uri().path_and_query();
        if findings.is_doubtful(target.map_or("/", PathAndQuery::as_str)) {
            request.extensions_mut().insert(AlteredTarget);
        }
        let stream = StreamState::of_stream(&stream_state);
        streams.next.replace(Some(Rc::clone(&stream)));
        let proxy = current.get();
        proxy.handle(request, client.clone(), stream, wall_clock())
    });
    let connection = builder(limits, &streams).serve_connection(io, service);
    let (mut connection, mut draining) = (pin!(connection), pin!(draining));
    let mut deadline = Http2Deadline::new(&stream_state, &findings);
    loop {
        let mut serving = poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            if ended.is_pending() && !stream_state.is_blocked() && !deadline.is_closing() {
                record_refused(current, findings.take_refused(), client.peer);
            }
            ended
        });
        tokio::select! {
            biased;
            ended = &mut serving => {
                record_end(current, ended.err().as_ref(), findings.is_flooded(), client.peer);
                return;
            }
            () = &mut draining, if !deadline.is_closing() => {
                connection.as_mut().graceful_shutdown();
                deadline.close();
            }
            () = sleep_until(deadline.next) => match deadline.check(limits) {
                None => {}
                Some(ConnectionEnd::GoAway) => {
                    connection.as_mut().graceful_shutdown();
                    deadline.close();
                }
                Some(ConnectionEnd::Cut) => return deadline.record_cut(current, client.peer),
            }
        }
    }
}

/// Counts and logs heads that h2 has answered itself, by a reset or as too large. It has taken all that came, unless it
/// had to write first.
fn record_refused(current: &CurrentProxy, heads: u64, peer: Peer) {
    for _ in 0..heads {
        current.get().metrics().count(Event::HeadOfHttp2);
        tracing::info!(cause = "http2", %peer, "a request head is refused");
    }
}

/// Counts and logs the end of a connection, if it is a failure.
fn record_end(current: &CurrentProxy, error: Option<&hyper::Error>, is_flooded: bool, peer: Peer) {
    if let Some((event, cause)) = failure(error, is_flooded) {
        let error = error
            .and_then(std::error::Error::source)
            .map(ToString::to_string);
        current.get().metrics().count(event);
        tracing::info!(cause, error, %peer, "an HTTP/2 connection is ended");
    }
}

/// What is counted and logged of a connection that ended because of what its client did. One that the client
/// has left is no failure.
fn failure(error: Option<&hyper::Error>, is_flooded: bool) -> Option<(Event, &'static str)> {
    let cause = error.and_then(|error| error.source()?.downcast_ref::<h2::Error>());
    let ours = cause.filter(|error| !error.is_io() && !error.is_remote());
    let is_calming = ours.and_then(h2::Error::reason) == Some(h2::Reason::ENHANCE_YOUR_CALM);
    if is_flooded || is_calming {
        Some((Event::Http2Flood, "flood"))
    } else if error.is_some_and(hyper::Error::is_timeout) {
        Some((Event::Http2PingTimeout, "ping_timeout"))
    } else {
        ours.map(|_| (Event::Http2Protocol, "protocol"))
    }
}

fn builder(limits: &ServerLimits, streams: &StreamExecutor) -> Builder<StreamExecutor> {
    let fields = limits.head_fields.saturating_mul(32); // RFC 9113 section 6.5.2 counts so
    // Twice what we take: a head that is somewhat too large gets a response that says so.
    let head = limits.head_bytes.saturating_mul(2).saturating_add(fields);
    let mut builder = Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.stream_window.saturating_mul(WINDOWS))
        .max_frame_size(u32::try_from(FRAME).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .header_table_size(TABLE_BYTES)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(OUR_RESETS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// Runs a connection's streams, each as a task of this core.
#[derive(Clone, Debug)]
struct StreamExecutor {
    /// The stream state of the stream that hyper runs next: it calls the service, then this.
    next: Rc<RefCell<Option<Rc<StreamState>>>>,
    pace: PaceLimit,
}

impl StreamExecutor {
    fn new(pace: PaceLimit) -> Self {
        let next = Rc::default();
        Self { next, pace }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let Some(stream_state) = self.next.take() else {
            return; // only a tunnel has no state, and CONNECT is refused
        };
        tokio::task::spawn_local(PacedStream {
            stream: Box::pin(stream),
            stream_state,
            pace: TransferPace::new(self.pace.bytes, self.pace.window),
        });
    }
}

/// A stream that is reset when its client reads the response too slowly. The task of the stream checks this,
/// because hyper polls the body of a response only while the client has room for more.
struct PacedStream<F> {
    stream: Pin<Box<F>>,
    stream_state: Rc<StreamState>,
    pace: TransferPace,
}

impl<F: Future<Output = ()>> Future for PacedStream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !this.stream_state.waits_for_client() {
            this.pace.rest();
            return Poll::Pending;
        }
        let written = this.stream_state.written();
        let slow = this.pace.poll_too_slow(cx, Side::Sink, written);
        if slow.is_ready() {
            this.stream_state.fall_behind();
        }
        slow // h2 resets a stream that is dropped before its end
    }
}

/// How a connection ends when it reaches a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionEnd {
    /// At once.
    Cut,
    /// The client is notified; nothing is in flight.
    GoAway,
}

/// The time limits of a connection that the pace of a body does not cover.
struct Http2Deadline<'a> {
    stream_state: &'a StreamState,
    findings: &'a FrameFindings,
    next: Instant,
    written: u64,
    /// When the socket was last seen to take bytes.
    moved: Instant,
    /// The same, or not to have any.
    unblocked: Instant,
    closing: Option<Instant>,
}

impl<'a> Http2Deadline<'a> {
    fn new(stream_state: &'a StreamState, findings: &'a FrameFindings) -> Self {
        let (_, since) = stream_state.phase();
        Self {
            stream_state,
            findings,
            next: since,
            written: 0,
            moved: since,
            unblocked: since,
            closing: None,
        }
    }

    /// Counts and logs that the connection is cut, if it waits for a head.
    fn record_cut(&self, current: &CurrentProxy, peer: Peer) {
        let is_new = self.stream_state.phase().0 == Phase::Head && self.closing.is_none();
        if is_new || self.findings.head_since().is_some() {
            record_late_head(current, self.stream_state.read() > 0, peer);
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// No request follows those in flight.
    fn close(&mut self) {
        let now = Instant::now();
        self.closing = Some(now);
        self.next = now;
        // Unread bytes of the client must not reset the connection before it has read the last response.
        self.stream_state.linger_at_end();
    }

    /// How the connection ends if it has reached a limit. Otherwise sets the next time to check.
    fn check(&mut self, limits: &ServerLimits) -> Option<ConnectionEnd> {
        let now = Instant::now();
        if self.stream_state.written() != self.written {
            self.written = self.stream_state.written();
            self.moved = now;
            self.unblocked = now;
        }
        if !self.stream_state.is_blocked() {
            self.unblocked = now;
        }
        let (phase, since) = self.stream_state.phase();
        let head = self.findings.head_since();
        let ends = [
            // After a target with a fragment, other requests for the same target are refused on this
            // connection too. GOAWAY makes the client open a new one.
            (self.closing.is_none() && self.findings.has_doubts())
                .then_some((now, ConnectionEnd::GoAway)),
            head.map(|since| (since + limits.head_timeout, ConnectionEnd::Cut)),
            // A client that reads nothing cannot learn that its streams end.
            (self.stream_state.is_blocked())
                .then(|| (self.unblocked + limits.body_window, ConnectionEnd::Cut)),
            match (phase, self.closing) {
                (Phase::Busy, _) => None,
                // h2 may still hold the end of a response. A client that reads it has time.
                (_, Some(closing)) => {
                    let since = since.max(closing);
                    let silent = since.max(self.moved) + GOODBYE;
                    Some((silent.min(since + limits.body_window), ConnectionEnd::Cut))
                }
                (Phase::Head, None) => Some((since + limits.head_timeout, ConnectionEnd::Cut)),
                (Phase::Idle, None) => Some((since + limits.idle_timeout, ConnectionEnd::GoAway)),
            },
        ];
        let first = ends.into_iter().flatten().min_by_key(|(at, _)| *at);
        if let Some((at, end)) = first
            && at <= now
        {
            return Some(end);
        }
        // A head may begin at any moment, and so may the end of a stream while the connection closes. A
        // check after this time is never too late for either.
        let soon = now + limits.head_timeout.min(GOODBYE);
        self.next = first.map_or(soon, |(at, _)| at.min(soon));
        None
    }
}
