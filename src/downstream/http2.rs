//! HTTP/2 toward clients: many requests at once on one connection, each on a stream of its own, within
//! the limits that HTTP/1 has for each connection.
//!
//! What a stalled stream can hold: of an upload, its window, and all of a connection's together no more
//! than `WINDOWS` of them; of an answer, hyper's piece and what h2 keeps of it (`SEND_BUFFER`).

use std::cell::RefCell;
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
use crate::downstream::frames::{Frames, Seen};
use crate::downstream::header_block::TABLE_BYTES;
use crate::proxy::{Client, Proxy};
use crate::s3::http2::AlteredTarget;
use crate::transport::FRAME;
use crate::transport::{CoreLoad, Counted, Gauge, Pace, Phase, Side};

/// h2 takes more of an answer while it has less than this of it that the client's socket has not taken.
/// A frame: with the one that comes on top, h2 never waits for us to fill the next.
const SEND_BUFFER: usize = FRAME;

/// The window of a connection, in those of its streams: so many uploads must stall before the others
/// on the connection wait for the pace to end them. One for each stream would let a thousand hold
/// more than bodies may on all connections.
const WINDOWS: u32 = 16;

/// Streams that were reset before they were looked at: h2's own default, set here since it is the
/// answer to "rapid reset" (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Streams that we had to reset because of what the client sent on them, in a connection's whole life
/// ("made you reset", CVE-2025-8671). A client may open more streams than there are before it knows the
/// limit; it gets that many back, and keeps its connection.
const OUR_RESETS: usize = 1024;

/// A client that has been silent so long is asked whether it is still there, and has as long to answer.
const PING: Duration = Duration::from_secs(20);

/// How long a client that was told to go may hold its connection without taking anything from it.
const GOODBYE: Duration = Duration::from_secs(3);

/// Serves requests on `stream` until its client or its limits end it; `draining` completes when the
/// program ends: then the requests in flight are the last.
pub(crate) async fn serve<S>(
    proxy: &Rc<Proxy>,
    load: &Rc<CoreLoad>,
    stream: S,
    client: Client,
    draining: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &proxy.shared().config().server.limits;
    let gauge = Gauge::of_streams(load);
    let seen = Rc::new(Seen::default());
    let streams = Streams {
        next: Rc::default(),
        pace: proxy.pace(),
    };
    let counted = Counted::new(stream, Rc::clone(&gauge));
    let io = TokioIo::new(Frames::new(counted, &seen));
    let service = service_fn(|mut request: http::Request<Incoming>| {
        let target = request.uri().path_and_query();
        if seen.is_doubtful(target.map_or("/", PathAndQuery::as_str)) {
            request.extensions_mut().insert(AlteredTarget);
        }
        let stream = Gauge::of_stream(&gauge);
        streams.next.replace(Some(Rc::clone(&stream)));
        Rc::clone(proxy).handle(request, client.clone(), stream, wall_clock())
    });
    let connection = builder(limits, &streams).serve_connection(io, service);
    let (mut connection, mut draining) = (pin!(connection), pin!(draining));
    let mut watch = Watch::new(&gauge, &seen);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if seen.is_flooded() {
                    tracing::warn!(peer = %client.peer, "a client reset too many streams");
                } else if let Err(error) = ended {
                    tracing::debug!(%error, peer = %client.peer, "an HTTP/2 connection failed");
                }
                return;
            }
            () = &mut draining, if !watch.is_closing() => {
                connection.as_mut().graceful_shutdown();
                watch.close();
            }
            () = sleep_until(watch.next) => match watch.look(limits) {
                None => {}
                Some(End::GoAway) => {
                    connection.as_mut().graceful_shutdown();
                    watch.close();
                }
                Some(End::Cut) => return,
            }
        }
    }
}

fn builder(limits: &ServerLimits, streams: &Streams) -> Builder<Streams> {
    let fields = limits.head_fields.saturating_mul(32); // RFC 9113 section 6.5.2 counts so
    // Twice what we take: a head that is somewhat too large gets an answer that says so.
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
struct Streams {
    /// The gauge of the stream that hyper runs next: it calls the service, then this.
    next: Rc<RefCell<Option<Rc<Gauge>>>>,
    pace: PaceLimit,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let Some(gauge) = self.next.take() else {
            return; // only a tunnel has none, and CONNECT is refused
        };
        tokio::task::spawn_local(Paced {
            stream: Box::pin(stream),
            gauge,
            pace: Pace::new(self.pace.bytes, self.pace.window),
        });
    }
}

/// A stream that is reset when its client takes the answer too slowly. It is watched from outside:
/// hyper polls an answer's body only while the client has room for more.
struct Paced<F> {
    stream: Pin<Box<F>>,
    gauge: Rc<Gauge>,
    pace: Pace,
}

impl<F: Future<Output = ()>> Future for Paced<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !this.gauge.waits_for_client() {
            this.pace.rest();
            return Poll::Pending;
        }
        let written = this.gauge.written();
        let slow = this.pace.poll_too_slow(cx, Side::Sink, written);
        if slow.is_ready() {
            this.gauge.fall_behind();
        }
        slow // what is dropped unfinished, h2 resets
    }
}

/// How a connection ends that has reached a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At once.
    Cut,
    /// The client is told; nothing is in flight.
    GoAway,
}

/// Watches over what no body's own pace covers.
struct Watch<'a> {
    gauge: &'a Gauge,
    seen: &'a Seen,
    next: Instant,
    written: u64,
    /// When the socket was last seen to take bytes.
    moved: Instant,
    /// The same, or not to have any.
    unblocked: Instant,
    closing: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(gauge: &'a Gauge, seen: &'a Seen) -> Self {
        let (_, since) = gauge.phase();
        Self {
            gauge,
            seen,
            next: since,
            written: 0,
            moved: since,
            unblocked: since,
            closing: None,
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
        // What the client still says must not reset the connection before it has read the last answer.
        self.gauge.linger_at_end();
    }

    /// The limit that has been reached, if any; else sets the next time to look.
    fn look(&mut self, limits: &ServerLimits) -> Option<End> {
        let now = Instant::now();
        if self.gauge.written() != self.written {
            self.written = self.gauge.written();
            self.moved = now;
            self.unblocked = now;
        }
        if !self.gauge.is_blocked() {
            self.unblocked = now;
        }
        let (phase, since) = self.gauge.phase();
        let head = self.seen.head_since();
        let ends = [
            // A client that sends fragments makes a new connection for what follows: on this one other
            // requests for the same targets are refused too.
            (self.closing.is_none() && self.seen.has_doubts()).then_some((now, End::GoAway)),
            head.map(|since| (since + limits.head_timeout, End::Cut)),
            // A client that takes nothing at all cannot be sent its streams' ends either.
            (self.gauge.is_blocked()).then(|| (self.unblocked + limits.body_window, End::Cut)),
            match (phase, self.closing) {
                (Phase::Busy, _) => None,
                // The end of an answer may still be with h2: whoever takes it has time.
                (_, Some(closing)) => {
                    let since = since.max(closing);
                    let silent = since.max(self.moved) + GOODBYE;
                    Some((silent.min(since + limits.body_window), End::Cut))
                }
                (Phase::Head, None) => Some((since + limits.head_timeout, End::Cut)),
                (Phase::Idle, None) => Some((since + limits.idle_timeout, End::GoAway)),
            },
        ];
        let first = ends.into_iter().flatten().min_by_key(|(at, _)| *at);
        if let Some((at, end)) = first
            && at <= now
        {
            return Some(end);
        }
        // A head may begin at any moment: no later look than this can be late for it. Nor for a
        // stream that ends while the connection is closing.
        let soon = now + limits.head_timeout.min(GOODBYE);
        self.next = first.map_or(soon, |(at, _)| at.min(soon));
        None
    }
}
