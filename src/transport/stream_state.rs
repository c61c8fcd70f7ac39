//! Stream state: bytes read and written, the phase of a connection, and how much memory of its core a read
//! may take. A stream shares it with the code that serves it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::Instant;

/// Bytes that all bodies in flight may read from their sockets in one round, on all cores.
pub(crate) const READ_BUDGET: usize = 4 * 1024 * 1024;
/// The max and min size of one read. Small reads cost CPU: reads of 16 KiB cost 3.5 times as much for each
/// GiB as reads of 400 KiB, and reads of 8 KiB half as much again. Each is one byte short, because hyper
/// doubles its buffer after a read that fills it.
const MAX_READ: usize = 416 * 1024;
const MIN_READ: usize = 16 * 1024 - 1;
/// More bodies than this take still less: about three times a read stays in memory for each that is
/// stalled, and 2000 of those must fit in 150 MiB (they held 162 MiB with [`MIN_READ`]).
const MANY_BODIES: usize = 512;
const READ_OF_MANY: usize = 8 * 1024 - 1;
/// A connection may read this part of what it has read already, and [`READ_OF_MANY`] at first. hyper's buffers never
/// get smaller than the first ones of a connection were: when many bodies begin at once, those of the first must not
/// be large because they were alone for a moment.
const SHARE_OF_READ: u64 = 8;

/// The state of a [`CountedStream`](super::CountedStream), shared with the code that serves it on one core.
///
/// The streams of an HTTP/2 connection have one each: there `read` and `written` are the bytes of the
/// bodies, since the connection's own say nothing of one stream among many.
#[derive(Debug)]
pub(crate) struct StreamState {
    core: Rc<CoreLoad>,
    of: StreamKind,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    begun: Cell<u64>,
    read: Cell<u64>,
    written: Cell<u64>,
    last_write: Cell<Instant>,
    blocked: Cell<bool>,
    pub(super) lingers: Cell<bool>,
}

/// The kind of stream that a [`StreamState`] belongs to.
#[derive(Debug)]
enum StreamKind {
    /// A connection that carries one request after another.
    Connection,
    /// One stream of an HTTP/2 connection.
    Stream {
        connection: Rc<StreamState>,
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
        (READ_BUDGET / bodies.max(1)).clamp(MIN_READ, MAX_READ)
    }
}

impl Drop for BodyInFlight {
    fn drop(&mut self) {
        self.0.bodies.set(self.0.bodies.get().saturating_sub(1));
    }
}

impl StreamState {
    /// A state for a new connection, in [`Phase::Head`].
    pub(crate) fn new(core: &Rc<CoreLoad>) -> Rc<Self> {
        Self::of(core, StreamKind::Connection)
    }

    /// The same for an HTTP/2 connection: it is busy while any of its streams is.
    pub(crate) fn of_streams(core: &Rc<CoreLoad>) -> Rc<Self> {
        Self::of(core, StreamKind::Streams(Cell::new(0)))
    }

    /// A state for a new stream of `connection`.
    pub(crate) fn of_stream(connection: &Rc<Self>) -> Rc<Self> {
        let of = StreamKind::Stream {
            connection: Rc::clone(connection),
            waits_for_client: Cell::new(false),
            fell_behind: Cell::new(false),
        };
        Self::of(&connection.core, of)
    }

    fn of(core: &Rc<CoreLoad>, of: StreamKind) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            core: Rc::clone(core),
            of,
            phase: Cell::new(Phase::Head),
            since: Cell::new(now),
            begun: Cell::new(0),
            read: Cell::new(0),
            written: Cell::new(0),
            last_write: Cell::new(now),
            blocked: Cell::new(false),
            lingers: Cell::new(false),
        })
    }

    /// What one read of the connection may take now.
    pub(super) fn max_read(&self) -> usize {
        let grown = usize::try_from(self.read.get() / SHARE_OF_READ).unwrap_or(usize::MAX);
        self.core.share().min(grown.max(READ_OF_MANY))
    }

    /// Bytes read from the peer so far.
    pub(crate) fn read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes that the kernel has taken for the peer so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    /// When the kernel last took bytes for the peer. A stream of HTTP/2 does not know.
    pub(crate) fn last_write(&self) -> Instant {
        self.last_write.get()
    }

    /// Whether the last write could not be taken whole: more would only pile up in memory.
    /// A caller that sees `true` need not register to be woken: the connection's own task is waiting for the
    /// socket, and polls its body again when that moves.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether this is one stream of an HTTP/2 connection.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.of, StreamKind::Stream { .. })
    }

    /// Notes that `n` bytes of the request's body have come. A connection counts its bytes itself.
    pub(crate) fn took_of_body(&self, n: usize) {
        if self.is_stream() {
            self.read.set(self.read.get() + n as u64);
        }
    }

    /// Notes that `n` bytes of the response go to a stream's client as soon as it makes room for them;
    /// `None`: they have gone, more can come.
    pub(crate) fn hand_over(&self, n: Option<usize>) {
        if let StreamKind::Stream {
            waits_for_client, ..
        } = &self.of
        {
            waits_for_client.set(n.is_some());
            self.written.set(self.written.get() + n.unwrap_or(0) as u64);
        }
    }

    /// Whether a stream has bytes that its client has made no room for. Only a caller outside the
    /// response's body can know: that is not polled until there is room.
    pub(crate) fn waits_for_client(&self) -> bool {
        matches!(&self.of, StreamKind::Stream { waits_for_client, .. } if waits_for_client.get())
    }

    /// Says that a stream was cut because its client took the response too slowly.
    pub(crate) fn fall_behind(&self) {
        if let StreamKind::Stream { fell_behind, .. } = &self.of {
            fell_behind.set(true);
        }
    }

    /// Whether [`StreamState::fall_behind`] was called.
    pub(crate) fn fell_behind(&self) -> bool {
        matches!(&self.of, StreamKind::Stream { fell_behind, .. } if fell_behind.get())
    }

    /// Says that a response goes out before its request has been read: the end of the connection then
    /// waits for the client to read it.
    pub(crate) fn linger_at_end(&self) {
        self.lingers.set(true);
    }

    /// The load of this core.
    pub(crate) fn core(&self) -> &Rc<CoreLoad> {
        &self.core
    }

    /// The phase, and since when. A connection that is busy has no limit of its own, so that nobody reads the clock
    /// when it begins to be.
    pub(crate) fn phase(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    /// How many requests have begun to be served.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Enters `phase` now. A stream takes its connection along.
    pub(crate) fn enter(&self, phase: Phase) {
        match &self.of {
            StreamKind::Connection => {}
            StreamKind::Stream { connection, .. } => connection.enter(phase),
            StreamKind::Streams(requests) => {
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
        self.phase.set(phase);
        if phase == Phase::Busy {
            self.begun.set(self.begun.get() + 1);
        } else {
            self.since.set(Instant::now());
        }
    }

    pub(super) fn count_read(&self, n: u64) {
        self.read.set(self.read.get() + n);
        // What comes on an idle HTTP/2 connection may be anything.
        if n > 0 && self.phase.get() == Phase::Idle && matches!(self.of, StreamKind::Connection) {
            self.enter(Phase::Head);
        }
    }

    /// Notes that of `offered` bytes `result` were taken.
    pub(super) fn count_write(&self, offered: usize, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.blocked.set(true),
            Poll::Ready(Ok(n)) => {
                self.blocked.set(*n < offered);
                self.written.set(self.written.get() + *n as u64);
                self.last_write.set(Instant::now());
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::transport::CountedStream;

    #[tokio::test]
    async fn a_read_takes_no_more_than_its_share() {
        let load = CoreLoad::new(2);
        let state = StreamState::new(&load);
        let (mut peer, ours) = duplex(1 << 20);
        let mut counted = CountedStream::new(ours, Rc::clone(&state));
        peer.write_all(&vec![7; 500_000]).await.unwrap();
        let mut buf = vec![0; 500_000];
        while state.read() < SHARE_OF_READ * MIN_READ as u64 {
            let max = READ_OF_MANY.max(usize::try_from(state.read() / SHARE_OF_READ).unwrap());
            assert_eq!(counted.read(&mut buf).await.unwrap(), max);
        }
        let mut bodies: Vec<_> = (0..1000).map(|_| load.body()).collect();
        assert_eq!(counted.read(&mut buf).await.unwrap(), READ_OF_MANY);
        bodies.truncate(MANY_BODIES / 2);
        assert_eq!(counted.read(&mut buf).await.unwrap(), MIN_READ);
        drop(bodies);
        let max = usize::try_from(state.read() / SHARE_OF_READ).unwrap();
        assert_eq!(counted.read(&mut buf).await.unwrap(), max);
    }
}
