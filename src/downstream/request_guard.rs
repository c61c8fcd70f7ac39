//! HTTP/1.1 request guard: parses each head before hyper, and responds to those that it refuses itself.
//!
//! hyper gets only whole heads that [`RequestHead`] accepts, one request after another. So hyper never
//! writes a refusal of its own, which would have no S3 error and no request id. If hyper refuses a head
//! nevertheless, the guard does not need to look at the bytes: hyper can write nothing else between a head
//! and the call of the service. The guard then closes the connection.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::downstream::request_body::BodyProgress;
use crate::downstream::request_head::{HeadError, HeadLimits, RequestHead, may_end_in};
use crate::transport::{Phase, StreamState};

/// An empty line before a head.
const EMPTY_LINE: &[u8] = b"\r\n";

/// A client's stream, guarded.
pub(super) struct RequestGuard<S, F> {
    stream: S,
    stream_state: Rc<StreamState>,
    limits: HeadLimits,
    /// Called with the error for a head that is refused; gives the bytes of the response.
    refuse: F,
    /// That response.
    refusal: Bytes,
    /// hyper gets no more bytes: a head was refused, or a body is framed wrongly.
    is_ended: bool,
    /// The request that hyper is getting.
    request: Option<RequestProgress>,
    /// What has arrived and hyper may not have yet: a part of a head, or bytes behind a request.
    held: BytesMut,
    /// So many bytes of `held` are known not to contain the end of a head.
    parsed: usize,
    /// Bytes of empty lines that were dropped before the head.
    dropped: usize,
    /// hyper has written since it last flushed.
    is_unflushed: bool,
    /// A reader that waits for the response before to be flushed.
    reader: Option<Waker>,
    /// How many requests had been served when hyper last got a head.
    served_before: Option<u64>,
}

/// How much of a request hyper has got.
#[derive(Debug)]
struct RequestProgress {
    head_left: usize,
    body: BodyProgress,
}

/// hyper has refused a head that the guard had accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UnexpectedRefusal;

/// Whether a connection ended because hyper refused a head that the guard had accepted.
pub(super) fn is_unexpected_refusal(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|s| s.downcast_ref::<io::Error>());
    let inner = source.and_then(io::Error::get_ref);
    error.is_parse() || inner.is_some_and(<dyn Error + Send + Sync>::is::<UnexpectedRefusal>)
}

impl<S, F: Fn(HeadError) -> Bytes> RequestGuard<S, F> {
    /// Guards `stream`, whose bytes and requests `stream_state` counts.
    pub(super) fn new(
        stream: S,
        stream_state: Rc<StreamState>,
        limits: HeadLimits,
        refuse: F,
    ) -> Self {
        Self {
            stream,
            stream_state,
            limits,
            refuse,
            refusal: Bytes::new(),
            is_ended: false,
            request: None,
            held: BytesMut::new(),
            parsed: 0,
            dropped: 0,
            is_unflushed: false,
            reader: None,
            served_before: None,
        }
    }

    /// Whether hyper may have what comes next. It gets a head only after it has flushed: then no part of an
    /// earlier response can be written between the head and the call of the service.
    fn has_turn(&self) -> bool {
        self.request.is_some() || !self.is_unflushed
    }

    /// Whether `bytes` may begin with an empty line before a head.
    fn is_before_head(&self, bytes: &[u8]) -> bool {
        self.request.is_none() && bytes.starts_with(b"\r")
    }

    /// Whether more must arrive before anything of `held` can go on.
    fn needs_more(&self) -> bool {
        self.request.is_none() && self.parsed == self.held.len()
    }

    /// How many of `bytes` hyper may have now, at most `room`.
    fn admit(&mut self, bytes: &[u8], room: usize) -> usize {
        if self.request.is_none() {
            match RequestHead::parse(bytes, self.limits) {
                Ok(Some(head)) => self.begin(head),
                Ok(None) => return 0,
                Err(error) => {
                    self.refuse(error);
                    return 0;
                }
            }
        }
        let Some(request) = &mut self.request else {
            return 0;
        };
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let of_head = request.head_left.min(bytes.len());
        request.head_left -= of_head;
        let taken = match request.body.take(bytes.get(of_head..).unwrap_or_default()) {
            Ok(taken) => taken,
            // The response may have begun. hyper finds the body incomplete and closes the connection.
            Err(error) => {
                self.is_ended = true;
                error.valid
            }
        };
        if request.head_left == 0 && request.body.is_whole() {
            self.request = None;
        }
        of_head + taken
    }

    fn begin(&mut self, head: RequestHead) {
        self.parsed = 0;
        self.dropped = 0;
        self.served_before = Some(self.stream_state.begun());
        self.request = Some(RequestProgress {
            head_left: head.length,
            body: BodyProgress::new(head.body),
        });
    }

    fn refuse(&mut self, error: HeadError) {
        self.refusal = (self.refuse)(error);
        self.is_ended = true;
    }

    /// How many of the bytes that are held hyper may have now.
    fn admit_held(&mut self, room: usize) -> usize {
        if self.request.is_none() && !self.may_be_a_head() {
            self.parsed = self.held.len();
            return 0;
        }
        let held = std::mem::take(&mut self.held);
        let taken = self.admit(&held, room);
        self.held = held;
        if taken == 0 {
            self.parsed = self.held.len();
        }
        taken
    }

    /// Whether the held bytes are worth parsing: the first of them, and when the end of a head or the limit
    /// has arrived. So a head in many small pieces is not parsed for each of them.
    fn may_be_a_head(&mut self) -> bool {
        if self.stream_state.phase().0 == Phase::Idle {
            self.stream_state.enter(Phase::Head); // it arrived behind another request
        }
        // RFC 9112 section 2.2: a server ignores empty lines before a head.
        while self.held.starts_with(EMPTY_LINE) {
            self.held.advance(EMPTY_LINE.len());
            self.dropped += EMPTY_LINE.len();
            self.parsed = self.parsed.saturating_sub(EMPTY_LINE.len());
        }
        if self.dropped >= self.limits.bytes {
            self.refuse(HeadError::TooLarge);
            return false;
        }
        // An end has up to three bytes before its last.
        let unparsed = self.held.get(self.parsed.saturating_sub(3)..);
        self.parsed == 0 || self.held.len() >= self.limits.bytes || unparsed.is_some_and(may_end_in)
    }

    /// The client sends no more. What is wrong with a head is reported even if its end has not arrived.
    fn end_stream(&mut self) {
        if self.request.is_none()
            && let Err(error) = RequestHead::parse(&self.held, self.limits)
        {
            self.refuse(error);
        }
    }

    /// Takes `count` of the bytes that are held.
    fn take_held(&mut self, count: usize) -> BytesMut {
        let taken = self.held.split_to(count);
        if self.held.is_empty() {
            self.held = BytesMut::new(); // its memory is not kept for a connection that may idle
        }
        taken
    }

    /// Reads from the stream into `buf`, and holds what hyper may not have yet. Gives whether hyper got
    /// anything, or the client has ended the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncRead + Unpin,
    {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            self.end_stream();
            return Poll::Ready(Ok(true));
        }
        let mut taken = 0;
        if self.held.is_empty() && self.has_turn() && !self.is_before_head(read) {
            taken = self.admit(read, read.len());
            self.parsed = if taken == 0 { read.len() } else { 0 };
        }
        if !self.is_ended {
            let held = read.get(taken..).unwrap_or_default();
            self.held.extend_from_slice(held);
        }
        buf.set_filled(before + taken);
        Poll::Ready(Ok(taken > 0))
    }

    /// Notes that hyper writes.
    fn begin_write(&mut self) -> io::Result<()> {
        self.is_unflushed = true;
        if self.served_before == Some(self.stream_state.begun()) || !self.refusal.is_empty() {
            return Err(io::Error::other(UnexpectedRefusal));
        }
        Ok(())
    }
}

impl<S, F> AsyncRead for RequestGuard<S, F>
where
    S: AsyncRead + Unpin,
    F: Fn(HeadError) -> Bytes + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.is_ended {
            if this.held.is_empty() || this.needs_more() {
                if ready!(this.poll_fill(cx, buf))? {
                    break;
                }
                continue;
            }
            if !this.has_turn() {
                this.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let taken = this.admit_held(buf.remaining());
            if taken > 0 {
                buf.put_slice(&this.take_held(taken));
                break;
            }
        }
        Poll::Ready(Ok(())) // without a byte once it has ended: hyper shuts down
    }
}

impl<S, F> AsyncWrite for RequestGuard<S, F>
where
    S: AsyncWrite + Unpin,
    F: Fn(HeadError) -> Bytes + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin_write()?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin_write()?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this when it has nothing more to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.is_unflushed = false;
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        while !this.refusal.is_empty() {
            let n = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.refusal))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.refusal.advance(n);
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl fmt::Display for UnexpectedRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hyper refused a head that the request guard had accepted")
    }
}

impl Error for UnexpectedRefusal {}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;
    use std::future::poll_fn;

    use http_body_util::Empty;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::downstream::http1;
    use crate::transport::CoreLoad;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 300,
        fields: 6,
    };
    const HEAD: &[u8] = b"GET /b/k HTTP/1.1\r\nHost: x\r\n\r\n";
    /// What hyper writes for a head that it refuses.
    const HYPERS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sun, 29 Nov 2026 00:00:00 GMT\r\n\r\n";
    const OURS: &[u8] = b"an S3 error";

    /// What became of bytes that a client sent.
    #[derive(Debug, Default)]
    struct Outcome {
        /// How many requests were served.
        served: u64,
        /// What the client got.
        received: Vec<u8>,
        error: Option<hyper::Error>,
    }

    /// Runs hyper on `stream` as the server does, until a client that sends `pieces` and then nothing has
    /// read all.
    async fn serve<S>(
        stream: S,
        limits: HeadLimits,
        stream_state: &StreamState,
        (mut client, pieces): (DuplexStream, &[&[u8]]),
    ) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let service = service_fn(async |_| {
            stream_state.enter(Phase::Busy);
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        });
        let server = async {
            let connection = http1::builder(limits).serve_connection(TokioIo::new(stream), service);
            connection.await.err()
        };
        let exchange = async {
            for piece in pieces {
                // The connection may have ended with an earlier piece.
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        };
        let (error, received) = tokio::join!(server, exchange);
        Outcome {
            served: stream_state.begun(),
            received,
            error,
        }
    }

    /// What bare hyper does.
    async fn bare(bytes: &[u8]) -> Outcome {
        let (client, ours) = duplex(1 << 16);
        let stream_state = StreamState::new(&CoreLoad::new(1));
        serve(ours, LIMITS, &stream_state, (client, &[bytes])).await
    }

    /// What hyper behind the guard does, and the errors of refusals.
    async fn guarded(pieces: &[&[u8]]) -> (Outcome, Vec<HeadError>) {
        let (client, ours) = duplex(1 << 16);
        let stream_state = StreamState::new(&CoreLoad::new(1));
        let errors = RefCell::new(Vec::new());
        let refuse = |error: HeadError| {
            errors.borrow_mut().push(error);
            Bytes::from_static(OURS)
        };
        let guard = RequestGuard::new(ours, Rc::clone(&stream_state), LIMITS, refuse);
        let outcome = serve(guard, LIMITS, &stream_state, (client, pieces)).await;
        (outcome, errors.into_inner())
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    /// Holds the guard to bare hyper, for one head in `bytes` that is cut at `at`.
    fn compare(bytes: &[u8], at: usize) {
        run(async {
            let (a, b) = bytes.split_at(at);
            let (outcome, errors) = guarded(&[a, b]).await;
            let bare = bare(bytes).await;
            let is_refused = !errors.is_empty();
            let text = bytes.escape_ascii();
            // Whatever the guard lets through hyper takes.
            assert!(errors.len() <= 1, "{text}");
            let is_unexpected = outcome.error.as_ref().is_some_and(is_unexpected_refusal);
            assert!(!is_unexpected, "{text}: {outcome:?}");
            assert_eq!(outcome.received.ends_with(OURS), is_refused, "{text}");
            if bare.served == 0 {
                assert_eq!(outcome.served, 0, "{text}");
            }
            // Whatever hyper refuses the guard refuses.
            let is_hypers = bare.error.as_ref().is_some_and(hyper::Error::is_parse);
            if is_hypers && bare.served == 0 {
                assert!(is_refused, "{text}: {bare:?}");
            }
            // What hyper serves is served or refused, not passed over.
            if bare.served > 0 {
                assert!(outcome.served > 0 || is_refused, "{text}");
            }
        });
    }

    #[test]
    fn hyper_and_the_guard_agree_on_every_byte_in_every_place() {
        for byte in 0..=u8::MAX {
            for (before, after) in [
                ("", "GET / HTTP/1.1\r\nA: b\r\n\r\n"),
                ("G", "T / HTTP/1.1\r\nA: b\r\n\r\n"),
                ("GET", "/ HTTP/1.1\r\nA: b\r\n\r\n"),
                ("GET ", " HTTP/1.1\r\nA: b\r\n\r\n"),
                ("GET /", " HTTP/1.1\r\nA: b\r\n\r\n"),
                ("GET /?", " HTTP/1.1\r\nA: b\r\n\r\n"),
                ("GET x", " HTTP/1.1\r\nA: b\r\n\r\n"),
                ("GET http://h", "/ HTTP/1.1\r\nA: b\r\n\r\n"),
                ("CONNECT h", ":1 HTTP/1.1\r\nA: b\r\n\r\n"),
                ("GET / HTTP/1.", "\r\nA: b\r\n\r\n"),
                ("GET / HTTP/1.1", "\nA: b\r\n\r\n"),
                ("GET / HTTP/1.1\r\n", ": b\r\n\r\n"),
                ("GET / HTTP/1.1\r\nx", ": b\r\n\r\n"),
                ("GET / HTTP/1.1\r\nA:", "b\r\n\r\n"),
                ("GET / HTTP/1.1\r\nA: b", "c\r\n\r\n"),
                ("GET / HTTP/1.1\r\nA: b", "\r\n\r\n"),
                ("GET / HTTP/1.1\r\nA: b\r\n\r", ""),
                ("GET / HTTP/1.1\r\nContent-Length:", "1\r\n\r\n"),
                ("GET / HTTP/1.1\r\nContent-Length: 1", "\r\n\r\n"),
                ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked", "\r\n\r\n"),
                ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked", "\r\n\r\n"),
            ] {
                let bytes = [before.as_bytes(), &[byte], after.as_bytes()].concat();
                compare(&bytes, 0);
            }
        }
    }

    /// Bytes that are a head, or nearly one.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let word = |words: &'static [&'static str]| prop::sample::select(words);
        let field = prop_oneof![
            word(&[
                "Host: x",
                "Content-Length: 0",
                "Content-Length: 5",
                "content-length:5",
                "Content-Length: 18446744073709551614",
                "Content-Length: 9999999999999999999999",
                "Content-Length: ",
                "Content-Length : 5",
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: gzip, chunked",
                "Transfer-Encoding: chunked, gzip",
                "Transfer-Encoding:",
                "Connection: close",
                "Expect: 100-continue",
                "Upgrade: h2c",
                " folded",
                "no colon",
                ": no name",
            ])
            .prop_map(str::to_owned),
            "[A-Za-z-]{1,9}: ?[ -~]{0,99}",
        ];
        let line_end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
        (
            prop_oneof![8 => Just(""), 1 => Just("\r\n"), 1 => Just("\n")],
            word(&[
                "GET",
                "PUT",
                "CONNECT",
                "OPTIONS",
                "x",
                "",
                "A-METHOD-OF-MANY-LETTERS",
                "G\"T",
            ]),
            prop_oneof![
                word(&[
                    "/",
                    "*",
                    "",
                    "/b/k?x=1",
                    "/a b",
                    "/#f",
                    "http://h/p",
                    "http://[",
                    "h:1",
                    "//",
                    "/%zz",
                    "/\u{e9}",
                    "/{}|\\^`\"<>"
                ])
                .prop_map(str::to_owned),
                "/[ -~]{0,300}",
            ],
            word(&[
                "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.", "http/1.1",
            ]),
            prop::collection::vec((field, line_end), 0..9),
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..3),
        )
            .prop_map(|(before, method, target, version, fields, mutations)| {
                let mut head = format!("{before}{method} {target} {version}\r\n");
                for (field, end) in fields {
                    head.push_str(&field);
                    head.push_str(end);
                }
                head.push_str("\r\n");
                let mut bytes = head.into_bytes();
                for (at, byte, kind) in mutations {
                    let at = at.index(bytes.len());
                    match kind {
                        0 => bytes[at] = byte,
                        1 => bytes.insert(at, byte),
                        _ => drop(bytes.remove(at)),
                    }
                }
                bytes
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn hyper_accepts_what_the_guard_accepts_and_refuses_nothing_itself(
            bytes in heads(),
            at in any::<prop::sample::Index>(),
        ) {
            compare(&bytes, at.index(bytes.len() + 1));
        }

        #[test]
        fn how_a_head_arrives_changes_nothing(
            bytes in heads(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let (split, split_errors) = run(guarded(&pieces));
            let (whole, errors) = run(guarded(&[&bytes]));
            prop_assert_eq!(split.served, whole.served);
            // A head that is wrong and too large is refused for what shows first.
            prop_assert_eq!(split_errors.len(), errors.len());
        }
    }

    #[test]
    fn requests_in_one_read_are_served_one_after_another() {
        let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        let all = [HEAD, b"\r\n", HEAD, HEAD].concat();
        let (outcome, errors) = run(guarded(&[&all]));
        assert_eq!((outcome.served, errors.len()), (3, 0));
        assert!(outcome.error.is_none());
        let all = [chunked.as_bytes(), HEAD, b"GET\r\n\r\n"].concat();
        let (outcome, errors) = run(guarded(&[&all]));
        assert_eq!((outcome.served, errors.len()), (2, 1));
        assert!(outcome.received.ends_with(OURS));
    }

    #[test]
    fn empty_lines_before_a_head_are_bounded() {
        let lines = EMPTY_LINE.repeat(LIMITS.bytes);
        let pieces: Vec<_> = lines.chunks(1).collect();
        for pieces in [&pieces[..], &[&lines]] {
            let (outcome, errors) = run(guarded(pieces));
            assert_eq!((outcome.served, errors.len()), (0, 1));
            assert!(outcome.received.ends_with(OURS));
        }
    }

    /// A guard without a server behind it, and its client.
    struct Guarded {
        guard: RequestGuard<DuplexStream, fn(HeadError) -> Bytes>,
        stream_state: Rc<StreamState>,
        client: DuplexStream,
    }

    fn unserved() -> Guarded {
        let (client, ours) = duplex(1 << 16);
        let stream_state = StreamState::new(&CoreLoad::new(1));
        let refuse: fn(HeadError) -> Bytes = |_| Bytes::from_static(OURS);
        let guard = RequestGuard::new(ours, Rc::clone(&stream_state), LIMITS, refuse);
        Guarded {
            guard,
            stream_state,
            client,
        }
    }

    #[tokio::test]
    async fn an_object_that_looks_like_a_refusal_passes_whole() {
        let Guarded {
            mut guard,
            stream_state,
            mut client,
        } = unserved();
        client.write_all(HEAD).await.unwrap();
        let mut read = [0; 1024];
        assert_eq!(guard.read(&mut read).await.unwrap(), HEAD.len());
        stream_state.enter(Phase::Busy);
        guard.write_all(HYPERS).await.unwrap();
        stream_state.enter(Phase::Idle);
        // The next request is there before the end of this response has been written.
        client.write_all(HEAD).await.unwrap();
        let mut buf = ReadBuf::new(&mut read);
        let waiting = poll_fn(|cx| Poll::Ready(Pin::new(&mut guard).poll_read(cx, &mut buf))).await;
        assert!(waiting.is_pending());
        guard.write_all(HYPERS).await.unwrap();
        guard.flush().await.unwrap();
        assert_eq!(guard.read(&mut read).await.unwrap(), HEAD.len());
        let mut received = vec![0; 2 * HYPERS.len()];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, HYPERS.repeat(2));
    }

    #[tokio::test]
    async fn a_reader_is_woken_when_the_response_before_is_flushed() {
        let Guarded {
            mut guard,
            stream_state,
            mut client,
        } = unserved();
        client.write_all(&[HEAD, HEAD].concat()).await.unwrap();
        let mut read = [0; 1024];
        assert_eq!(guard.read(&mut read).await.unwrap(), HEAD.len());
        stream_state.enter(Phase::Busy);
        guard.write_all(b"x").await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(guard);
        let next = tokio::join!(reader.read(&mut read), async {
            tokio::task::yield_now().await;
            writer.flush().await
        });
        assert_eq!(next.0.unwrap(), HEAD.len());
    }

    #[tokio::test]
    async fn a_refusal_by_hyper_closes_the_connection_without_a_byte() {
        let (client, ours) = duplex(1 << 16);
        let stream_state = StreamState::new(&CoreLoad::new(1));
        let refusals = Cell::new(0);
        let refuse = |_| {
            refusals.set(refusals.get() + 1);
            Bytes::from_static(OURS)
        };
        let guard = RequestGuard::new(ours, Rc::clone(&stream_state), LIMITS, refuse);
        let stricter = HeadLimits {
            fields: 0,
            ..LIMITS
        };
        let outcome = serve(guard, stricter, &stream_state, (client, &[HEAD])).await;
        assert_eq!((outcome.served, refusals.get()), (0, 0));
        assert_eq!(outcome.received, b"");
        assert!(is_unexpected_refusal(&outcome.error.unwrap()));
    }
}
