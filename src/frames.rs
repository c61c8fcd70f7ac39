//! What a client of HTTP/2 sends, seen as frames (RFC 9113 section 4.1): how long a header block has
//! been on its way, and how many streams are reset. h2 bounds a block's size, but not its time.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant};

/// So many streams may a client reset in [`RESET_WINDOW`]: a player that seeks or a page that is left
/// resets dozens; "rapid reset" (CVE-2023-44487) thousands. h2 itself counts those only whose reset
/// comes before the request was handed out.
const RESETS: u32 = 200;
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// `PRI * HTTP/2.0…`, which precedes the first frame.
const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A client's stream, looked at frame by frame.
#[derive(Debug)]
pub struct Frames<S> {
    stream: S,
    scan: Scan,
    seen: Rc<Seen>,
    /// How many header blocks had begun.
    heads: u64,
    resets: u32,
    resets_since: Instant,
}

/// What [`Frames`] tells those who share it.
#[derive(Debug, Default)]
pub struct Seen {
    head_since: Cell<Option<Instant>>,
    flooded: Cell<bool>,
}

impl Seen {
    /// Since when a header block has been arriving. Nothing else can arrive before it has ended.
    pub fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// Whether the client reset so many streams that its connection was cut.
    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }
}

impl<S> Frames<S> {
    /// Watches `stream`.
    pub fn new(stream: S, seen: &Rc<Seen>) -> Self {
        Self {
            stream,
            scan: Scan::new(),
            seen: Rc::clone(seen),
            heads: 0,
            resets: 0,
            resets_since: Instant::now(),
        }
    }

    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let resets = self.scan.take(bytes);
        // A read may end one block and begin the next: that one has all its time.
        if self.scan.heads != self.heads || self.scan.in_head != self.seen.head_since().is_some() {
            self.heads = self.scan.heads;
            let since = self.scan.in_head.then(Instant::now);
            self.seen.head_since.set(since);
        }
        if resets == 0 {
            return Ok(());
        }
        if self.resets_since.elapsed() > RESET_WINDOW {
            self.resets = 0;
            self.resets_since = Instant::now();
        }
        self.resets = self.resets.saturating_add(resets);
        if self.resets > RESETS {
            self.seen.flooded.set(true);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// Finds the frames among the bytes, and keeps none of them.
#[derive(Debug)]
struct Scan {
    /// Bytes to come of the preface or of a frame's payload.
    payload: usize,
    /// The frame's head, and how much of it has come.
    head: [u8; 9],
    length: usize,
    /// Header blocks that have begun.
    heads: u64,
    /// One of them is on its way.
    in_head: bool,
    /// It ends with this frame.
    is_last: bool,
}

impl Scan {
    fn new() -> Self {
        Self {
            payload: PREFACE,
            head: [0; 9],
            length: 0,
            heads: 0,
            in_head: false,
            is_last: false,
        }
    }

    /// Looks at `bytes`; how many streams they reset.
    fn take(&mut self, mut bytes: &[u8]) -> u32 {
        let mut resets = 0;
        loop {
            let here = self.payload.min(bytes.len());
            self.payload -= here;
            bytes = bytes.get(here..).unwrap_or_default();
            if self.payload == 0 && self.is_last {
                self.in_head = false;
                self.is_last = false;
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return resets;
            };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
            if self.length == self.head.len() {
                self.length = 0;
                resets += self.begin_frame();
            }
        }
    }

    fn begin_frame(&mut self) -> u32 {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_head = true;
            self.is_last = flags & END_HEADERS != 0;
            self.heads += u64::from(kind == HEADERS);
        }
        u32::from(kind == RST_STREAM)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let already = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(already..).unwrap_or_default();
        Poll::Ready(this.look(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(9 + usize::from(length), 7);
        frame
    }

    #[test]
    fn a_header_block_lasts_from_its_first_frame_to_the_end_of_its_last() {
        let mut scan = Scan::new();
        scan.take(&[b'P'; PREFACE]);
        scan.take(&frame(0, END_HEADERS, 200));
        assert!(!scan.in_head);
        scan.take(&frame(HEADERS, 0, 3));
        assert!(scan.in_head);
        let last = frame(CONTINUATION, END_HEADERS, 2);
        scan.take(&last[..10]);
        assert!(scan.in_head);
        scan.take(&last[10..]);
        assert!(!scan.in_head);
        scan.take(&frame(HEADERS, END_HEADERS, 0));
        assert!(!scan.in_head);
    }

    #[tokio::test(start_paused = true)]
    async fn each_header_block_has_its_own_time() {
        let seen = Rc::new(Seen::default());
        let mut frames = Frames::new(tokio::io::empty(), &seen);
        let head = frame(HEADERS, END_HEADERS, 4);
        frames.look(&[b'P'; PREFACE]).unwrap();
        frames.look(&head[..11]).unwrap();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(1)).await;
            frames.look(&[&head[11..], &head[..11]].concat()).unwrap();
            assert_eq!(seen.head_since(), Some(Instant::now()));
        }
        frames.look(&head[11..]).unwrap();
        assert_eq!(seen.head_since(), None);
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_changes_nothing(
            frames in prop::collection::vec((0_u8..10, 0_u8..8, any::<u8>()), 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let mut bytes = vec![b'P'; PREFACE];
            let mut resets = 0;
            for (kind, flags, length) in frames {
                bytes.extend(frame(kind, flags, length));
                resets += u32::from(kind == RST_STREAM);
            }
            let (mut whole, mut parts) = (Scan::new(), Scan::new());
            let (a, b) = bytes.split_at(at.index(bytes.len()));
            prop_assert_eq!(whole.take(&bytes), resets);
            prop_assert_eq!(parts.take(a) + parts.take(b), resets);
            prop_assert_eq!(whole.in_head, parts.in_head);
        }
    }
}
