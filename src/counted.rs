//! A stream that knows what has gone through it and whether its peer has stopped reading.
//!
//! hyper reads as much as its buffer takes, up to 400 KiB for each stalled stream. What bounds the
//! memory of a proxy is therefore decided here: a read takes no more than its share of
//! [`READ_BUDGET`], and a body asks [`Gauge::is_blocked`] before it hands over more.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BufMut as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};
use tokio::time::{Duration, Instant, Sleep, sleep};

/// Bytes that the bodies in flight may take from their sockets in one round of reads, on all cores.
pub const READ_BUDGET: usize = 4 * 1024 * 1024;
/// The most and the least that one read takes. Small reads cost CPU: 16 KiB ones 3.5 times as much
/// for each GiB as 400 KiB ones, 8 KiB ones half as much again. Each is a byte short, since hyper
/// doubles its buffer after a read that fills it.
const READ_MOST: usize = 416 * 1024;
const READ_LEAST: usize = 16 * 1024 - 1;
/// More bodies than this take still less: about three times a read stays in memory for each that is
/// stalled, and 2000 of those must fit in 150 MiB (they held 162 MiB with [`READ_LEAST`]).
const MANY_BODIES: usize = 512;
const READ_OF_MANY: usize = 8 * 1024 - 1;

/// Pieces that are no more than this together are written as one. `writev` costs the kernel more than
/// `send` and the copy do (0.2 µs less of 7 for a head and an object of 1 KiB over loopback).
const SMALL_WRITE: usize = 2048;

/// After an answer that came before its request was read, so many bytes more are read and thrown
/// away before the socket is closed: a close with unread bytes resets the connection, and the
/// client would lose the answer.
const LINGER_BYTES: u64 = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// What a [`Counted`] stream tells those who share it. One core's alone.
///
/// The streams of an HTTP/2 connection have one each: there `read` and `written` are the bytes of the
/// bodies, since the connection's own say nothing of one stream among many.
#[derive(Debug)]
pub struct Gauge {
    core: Rc<CoreLoad>,
    of: Of,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    begun: Cell<u64>,
    read: Cell<u64>,
    written: Cell<u64>,
    blocked: Cell<bool>,
    lingers: Cell<bool>,
}

/// What a [`Gauge`] is of.
#[derive(Debug)]
enum Of {
    /// A connection that carries one request after another.
    Connection,
    /// One stream of an HTTP/2 connection.
    Stream {
        connection: Rc<Gauge>,
        /// The bytes handed over last wait for the client to make room for them.
        waits_for_client: Cell<bool>,
        fell_behind: Cell<bool>,
    },
    /// An HTTP/2 connection, with so many requests in flight.
    Streams(Cell<usize>),
}

/// How many bodies are in flight on this core.
#[derive(Debug)]
pub struct CoreLoad {
    bodies: Cell<usize>,
    cores: usize,
}

/// Held by a body while it is in flight, so that [`CoreLoad`] counts it.
#[derive(Debug)]
pub struct BodyInFlight(Rc<CoreLoad>);

/// Where a downstream connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A request is being served.
    Busy,
    /// A request head is arriving.
    Head,
    /// Between requests.
    Idle,
}

impl CoreLoad {
    /// No load, on one of so many cores.
    pub fn new(cores: usize) -> Rc<Self> {
        Rc::new(Self {
            bodies: Cell::new(0),
            cores,
        })
    }

    /// Counts one more body until the guard is dropped.
    pub fn body(self: &Rc<Self>) -> BodyInFlight {
        self.bodies.set(self.bodies.get() + 1);
        BodyInFlight(Rc::clone(self))
    }

    /// What one read may take now. The other cores are taken to be as busy: sockets are spread evenly.
    fn share(&self) -> usize {
        let bodies = self.bodies.get().max(1) * self.cores;
        if bodies > MANY_BODIES {
            return READ_OF_MANY;
        }
        (READ_BUDGET / bodies.max(1)).clamp(READ_LEAST, READ_MOST)
    }
}

impl Drop for BodyInFlight {
    fn drop(&mut self) {
        self.0.bodies.set(self.0.bodies.get().saturating_sub(1));
    }
}

impl Gauge {
    /// A gauge for a new connection, in [`Phase::Head`].
    pub fn new(core: &Rc<CoreLoad>) -> Rc<Self> {
        Self::of(core, Of::Connection)
    }

    /// The same for an HTTP/2 connection: it is busy while any of its streams is.
    pub fn of_streams(core: &Rc<CoreLoad>) -> Rc<Self> {
        Self::of(core, Of::Streams(Cell::new(0)))
    }

    /// A gauge for a new stream of `connection`.
    pub fn of_stream(connection: &Rc<Self>) -> Rc<Self> {
        let of = Of::Stream {
            connection: Rc::clone(connection),
            waits_for_client: Cell::new(false),
            fell_behind: Cell::new(false),
        };
        Self::of(&connection.core, of)
    }

    fn of(core: &Rc<CoreLoad>, of: Of) -> Rc<Self> {
        Rc::new(Self {
            core: Rc::clone(core),
            of,
            phase: Cell::new(Phase::Head),
            since: Cell::new(Instant::now()),
            begun: Cell::new(0),
            read: Cell::new(0),
            written: Cell::new(0),
            blocked: Cell::new(false),
            lingers: Cell::new(false),
        })
    }

    /// Bytes read from the peer so far.
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes that the kernel has taken for the peer so far.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Whether the last write could not be taken whole: more would only pile up in memory.
    /// Whoever sees `true` need not ask to be woken: the connection's own task is waiting for the
    /// socket, and polls its body again when that moves.
    pub fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether this is one stream of an HTTP/2 connection.
    pub fn is_stream(&self) -> bool {
        matches!(self.of, Of::Stream { .. })
    }

    /// Notes that `n` bytes of the request's body have come. A connection counts its bytes itself.
    pub fn took_of_body(&self, n: usize) {
        if self.is_stream() {
            self.read.set(self.read.get() + n as u64);
        }
    }

    /// Notes that `n` bytes of the answer go to a stream's client as soon as it makes room for them;
    /// `None`: they have gone, more can come.
    pub fn hand_over(&self, n: Option<usize>) {
        if let Of::Stream {
            waits_for_client, ..
        } = &self.of
        {
            waits_for_client.set(n.is_some());
            self.written.set(self.written.get() + n.unwrap_or(0) as u64);
        }
    }

    /// Whether a stream has bytes that its client has made no room for. Only who asks outside the
    /// answer's body can know: that is not polled until there is room.
    pub fn waits_for_client(&self) -> bool {
        matches!(&self.of, Of::Stream { waits_for_client, .. } if waits_for_client.get())
    }

    /// Says that a stream was cut because its client took the answer too slowly.
    pub fn fall_behind(&self) {
        if let Of::Stream { fell_behind, .. } = &self.of {
            fell_behind.set(true);
        }
    }

    /// Whether [`Gauge::fall_behind`] was called.
    pub fn fell_behind(&self) -> bool {
        matches!(&self.of, Of::Stream { fell_behind, .. } if fell_behind.get())
    }

    /// Says that an answer goes out before its request has been read: the end of the connection then
    /// waits for the client to read it.
    pub fn linger_at_end(&self) {
        self.lingers.set(true);
    }

    /// The load of this core.
    pub fn core(&self) -> &Rc<CoreLoad> {
        &self.core
    }

    /// The phase, and since when.
    pub fn phase(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    /// How many requests have begun to be served.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Enters `phase` now. A stream takes its connection along.
    pub fn enter(&self, phase: Phase) {
        match &self.of {
            Of::Connection => {}
            Of::Stream { connection, .. } => connection.enter(phase),
            Of::Streams(requests) => {
                let left = match phase {
                    Phase::Busy => requests.get() + 1,
                    Phase::Head | Phase::Idle => requests.get().saturating_sub(1),
                };
                requests.set(left);
                if phase != Phase::Busy && left > 0 {
                    return;
                }
            }
        }
        if phase == Phase::Busy {
            self.begun.set(self.begun.get() + 1);
        }
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    fn count_read(&self, n: u64) {
        self.read.set(self.read.get() + n);
        // What comes on an idle HTTP/2 connection may be anything.
        if n > 0 && self.phase.get() == Phase::Idle && matches!(self.of, Of::Connection) {
            self.enter(Phase::Head);
        }
    }

    /// Notes that of `offered` bytes `result` were taken.
    fn count_write(&self, offered: usize, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.blocked.set(true),
            Poll::Ready(Ok(n)) => {
                self.blocked.set(*n < offered);
                self.written.set(self.written.get() + *n as u64);
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

/// A stream and its [`Gauge`].
#[derive(Debug)]
pub struct Counted<S> {
    /// `Take` is tokio's own way to bound a read without touching uninitialised memory.
    stream: Take<S>,
    gauge: Rc<Gauge>,
    linger: Option<Linger>,
    hears_out: bool,
}

/// What is left of the wait that follows the end of writing.
#[derive(Debug)]
struct Linger {
    bytes: u64,
    until: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Counted<S> {
    /// Counts on `gauge` what goes through `stream`.
    pub fn new(stream: S, gauge: Rc<Gauge>) -> Self {
        Self {
            stream: stream.take(0),
            gauge,
            linger: None,
            hears_out: false,
        }
    }

    /// A peer that closes while it is written to may have said why: its words are read first, and
    /// their end is what fails. Servers refuse an upload before its body has come, and close.
    #[must_use]
    pub fn hear_out(mut self) -> Self {
        self.hears_out = true;
        self
    }

    /// What becomes of a write: one that failed only waits, where the reads that go on beside it tell
    /// the end.
    fn written<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Err(error))
                if self.hears_out
                    && matches!(
                        error.kind(),
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                    ) =>
            {
                Poll::Pending
            }
            other => other,
        }
    }

    /// Reads and forgets, until the peer is done, too much has come or too much time has passed.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            bytes: LINGER_BYTES,
            until: Box::pin(sleep(LINGER_TIME)),
        });
        let mut scratch = [0; 8192];
        while linger.bytes > 0 && linger.until.as_mut().poll(cx).is_pending() {
            self.stream.set_limit(linger.bytes);
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    linger.bytes = linger.bytes.saturating_sub(buf.filled().len() as u64);
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        this.stream.set_limit(this.gauge.core.share() as u64);
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if result.is_ready() {
            this.gauge.count_read((buf.filled().len() - before) as u64);
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(this.stream.get_mut()).poll_write(cx, buf);
        let result = this.written(result);
        this.gauge.count_write(buf.len(), &result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let offered = bufs.iter().map(|b| b.len()).sum();
        let stream = Pin::new(this.stream.get_mut());
        let result = match bufs {
            [whole] => stream.poll_write(cx, whole),
            pieces if offered <= SMALL_WRITE => poll_write_together(stream, cx, pieces),
            pieces => stream.poll_write_vectored(cx, pieces),
        };
        let result = this.written(result);
        this.gauge.count_write(offered, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(this.stream.get_mut()).poll_flush(cx);
        this.written(result)
    }

    /// Ends the writing side, then lingers where that helps.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            match Pin::new(this.stream.get_mut()).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        if !this.gauge.lingers.get() {
            return Poll::Ready(Ok(()));
        }
        this.poll_linger(cx).map(Ok)
    }
}

/// Writes `pieces`, of [`SMALL_WRITE`] bytes at most, as one.
fn poll_write_together<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut copy = [0; SMALL_WRITE];
    let mut free = &mut copy[..];
    for piece in pieces {
        free.put_slice(piece);
    }
    let length = SMALL_WRITE - free.len();
    stream.poll_write(cx, copy.get(..length).unwrap_or_default())
}

/// Watches that a transfer does not fall below a pace: so many bytes in each window.
#[derive(Debug)]
pub struct Pace {
    bytes: u64,
    window: Duration,
    at_start: u64,
    waiting_for: Option<Side>,
    end: Option<Pin<Box<Sleep>>>,
}

/// The two ends of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the bytes go.
    Sink,
    /// Where the bytes come from.
    Source,
}

impl Pace {
    /// At least `bytes` in each `window`.
    pub fn new(bytes: u64, window: Duration) -> Self {
        Self {
            bytes,
            window,
            at_start: 0,
            waiting_for: None,
            end: None,
        }
    }

    /// Says that the transfer waits for neither side: the next wait starts a window of its own.
    pub fn rest(&mut self) {
        self.waiting_for = None;
    }

    /// Called whenever the transfer has to wait for a side: `moved` is what that side has sent or
    /// taken in all. Ready when a window has passed with less than the pace asks. The window starts
    /// anew when the wait turns to the other side.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>, side: Side, moved: u64) -> Poll<()> {
        if self.waiting_for != Some(side) {
            self.waiting_for = Some(side);
            self.at_start = moved;
            if let Some(end) = &mut self.end {
                end.as_mut().reset(Instant::now() + self.window);
            }
        }
        let window = self.window;
        let end = self.end.get_or_insert_with(|| {
            self.at_start = moved;
            Box::pin(sleep(window))
        });
        while end.as_mut().poll(cx).is_ready() {
            if moved.saturating_sub(self.at_start) < self.bytes {
                return Poll::Ready(());
            }
            self.at_start = moved;
            end.as_mut().reset(Instant::now() + window);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_read_takes_no_more_than_its_share() {
        let load = CoreLoad::new(2);
        let mut bodies: Vec<_> = (0..1000).map(|_| load.body()).collect();
        let (mut peer, ours) = duplex(1 << 20);
        let mut counted = Counted::new(ours, Gauge::new(&load));
        peer.write_all(&vec![7; 100_000]).await.unwrap();
        let mut buf = vec![0; 100_000];
        assert_eq!(counted.read(&mut buf).await.unwrap(), READ_OF_MANY);
        bodies.truncate(MANY_BODIES / 2);
        assert_eq!(counted.read(&mut buf).await.unwrap(), READ_LEAST);
        drop(bodies);
        let rest = 100_000 - READ_OF_MANY - READ_LEAST;
        assert_eq!(counted.read(&mut buf).await.unwrap(), rest);
    }

    #[tokio::test]
    async fn a_peer_that_stops_reading_shows_as_blocked_until_it_reads_again() {
        let gauge = Gauge::new(&CoreLoad::new(1));
        let (mut peer, ours) = duplex(16);
        let mut counted = Counted::new(ours, Rc::clone(&gauge));
        counted.write_all(&[1; 16]).await.unwrap();
        assert!(!gauge.is_blocked());
        let write = counted.write_all(&[2; 8]);
        assert!(
            tokio::time::timeout(Duration::from_millis(10), write)
                .await
                .is_err()
        );
        assert!(gauge.is_blocked());
        peer.read_exact(&mut [0; 16]).await.unwrap();
        counted.write_all(&[2; 8]).await.unwrap();
        assert!(!gauge.is_blocked());
        assert_eq!(gauge.written(), 24);
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_whether_they_are_written_as_one_or_not() {
        for size in [0, 10, SMALL_WRITE / 2, SMALL_WRITE / 2 + 1] {
            let gauge = Gauge::new(&CoreLoad::new(1));
            let (mut peer, ours) = duplex(4 * SMALL_WRITE);
            let mut counted = Counted::new(ours, Rc::clone(&gauge));
            let (head, body) = (vec![1; size], vec![2; size]);
            let pieces = [IoSlice::new(&head), IoSlice::new(&body)];
            let n = counted.write_vectored(&pieces).await.unwrap();
            counted
                .write_all(&[&head[..], &body].concat()[n..])
                .await
                .unwrap();
            drop(counted);
            let mut read = Vec::new();
            peer.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, [head, body].concat());
            assert_eq!(gauge.written(), 2 * size as u64);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept_over_each_window_not_only_on_average() {
        let mut pace = Pace::new(60, Duration::from_mins(1));
        let mut wait = async |moved| {
            tokio::time::timeout(
                Duration::from_secs(61),
                std::future::poll_fn(|cx| pace.poll_too_slow(cx, Side::Source, moved)),
            )
            .await
        };
        assert!(wait(100).await.is_ok(), "nothing moved for a minute");
        let mut pace = Pace::new(60, Duration::from_mins(1));
        let mut moved = 0;
        for _ in 0..10 {
            let slow = std::future::poll_fn(|cx| pace.poll_too_slow(cx, Side::Source, moved));
            assert!(
                tokio::time::timeout(Duration::from_secs(25), slow)
                    .await
                    .is_err()
            );
            moved += 70;
        }
    }
}
