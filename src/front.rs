//! What stands between the client's socket and hyper: it looks at each head as raw bytes, and gives
//! the refusals that hyper would make with an empty body the form of an S3 error.
//!
//! hyper takes line ends without CR, and drops `Content-Length` beside `Transfer-Encoding` before we
//! could see both: two readers in a row could read such a head differently (request smuggling).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::StatusCode;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::counted::{Gauge, Phase};
use crate::s3::{Code, S3Error};

/// A client's stream, with eyes for its heads.
pub struct Front<S, F> {
    stream: S,
    gauge: Rc<Gauge>,
    scan: Scan,
    /// Called with each refusal made here; gives the bytes of the answer.
    refuse: F,
    /// The answer that goes out instead of hyper's.
    refusal: Option<Bytes>,
}

impl<S, F: Fn(S3Error) -> Bytes> Front<S, F> {
    /// Watches `stream`, whose bytes `gauge` counts.
    pub fn new(stream: S, gauge: Rc<Gauge>, refuse: F) -> Self {
        Self {
            stream,
            gauge,
            scan: Scan::default(),
            refuse,
            refusal: None,
        }
    }

    /// Looks at what has just been read.
    fn look(&mut self, bytes: &[u8]) {
        if let Err(message) = self.scan.take(bytes) {
            self.refusal = Some((self.refuse)(
                S3Error::new(Code::InvalidRequest, message).close(),
            ));
        }
    }

    /// Whether `bytes` are an answer that hyper makes by itself, to a head it cannot take.
    fn is_from_hyper(&mut self, bytes: &[u8]) -> bool {
        if self.refusal.is_some() {
            return true;
        }
        let (phase, _) = self.gauge.phase();
        if phase == Phase::Busy || self.gauge.is_blocked() {
            return false;
        }
        let Some(error) = automatic(bytes) else {
            return false;
        };
        self.refusal = Some((self.refuse)(error));
        true
    }
}

/// The S3 error for one of hyper's automatic answers: a head alone, without a body.
fn automatic(bytes: &[u8]) -> Option<S3Error> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ")?;
    if !bytes.ends_with(b"\r\n\r\n") || !bytes.windows(19).any(|w| w == b"content-length: 0\r\n") {
        return None;
    }
    let error = match rest.get(..3)? {
        b"400" => S3Error::new(Code::InvalidRequest, "The request is not proper HTTP/1.1."),
        b"414" => S3Error::new(Code::InvalidURI, "The request target is too long."),
        b"431" => S3Error::new(
            Code::InvalidRequest,
            "The request head is too large, or has too many fields.",
        )
        .status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        _ => return None,
    };
    Some(error.close())
}

/// Follows the requests on a connection without keeping them: heads line by line, bodies by their
/// length. It must know the one from the other by itself: hyper reads ahead, and reads on when a
/// request was answered before its body had come.
#[derive(Debug, Default)]
struct Scan {
    /// As much of the line as tells the names apart, and holds any length.
    start: [u8; 32],
    length: usize,
    last: u8,
    content_length: Option<u64>,
    is_chunked: bool,
    /// Bytes of a body that come before the next head.
    body: u64,
    /// A chunked body has begun. It is not followed: its answer ends the connection.
    is_blind: bool,
}

impl Scan {
    /// Takes more of what the client sends. The error says what is wrong with a head.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !self.is_blind {
            let body = usize::try_from(self.body).map_or(bytes.len(), |n| n.min(bytes.len()));
            self.body -= body as u64;
            let (_, head) = bytes.split_at(body);
            let Some(end) = memchr(b'\n', head) else {
                self.append(head);
                return Ok(());
            };
            let (line, rest) = head.split_at(end);
            self.append(line);
            self.end_line()?;
            bytes = rest.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        if let Some(free) = self.start.get_mut(self.length..) {
            for (to, from) in free.iter_mut().zip(bytes) {
                *to = from.to_ascii_lowercase();
            }
        }
        self.length += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    fn end_line(&mut self) -> Result<(), &'static str> {
        if self.length == 0 || self.last != b'\r' {
            return Err("Every line of a request head ends in CR LF.");
        }
        if self.length == 1 {
            self.body = self.content_length.take().unwrap_or(0);
            self.is_blind = self.is_chunked;
        }
        let line = self.start.get(..self.length);
        if self.start.starts_with(b"content-length:") {
            if self.content_length.is_some() {
                return Err("A request has at most one Content-Length.");
            }
            let digits = line
                .and_then(|line| std::str::from_utf8(line.get(15..)?).ok())
                .map(|value| value.trim_matches([' ', '\t', '\r']))
                .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|value| value.parse().ok());
            if digits.is_none() {
                return Err("Content-Length must be a number of bytes.");
            }
            self.content_length = digits;
        }
        if self.start.starts_with(b"transfer-encoding:") {
            if self.is_chunked {
                return Err("A request has at most one Transfer-Encoding.");
            }
            self.is_chunked = true;
        }
        if self.is_chunked && self.content_length.is_some() {
            return Err("A request has Content-Length or Transfer-Encoding, not both.");
        }
        self.start = [0; 32];
        self.length = 0;
        self.last = 0;
        Ok(())
    }
}

impl<S, F> AsyncRead for Front<S, F>
where
    S: AsyncRead + Unpin,
    F: Fn(S3Error) -> Bytes + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_some() {
            return Poll::Ready(Ok(())); // hyper sees the end, and shuts down
        }
        let already = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.look(buf.filled().get(already..).unwrap_or_default());
        if this.refusal.is_some() {
            buf.set_filled(already);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, F> AsyncWrite for Front<S, F>
where
    S: AsyncWrite + Unpin,
    F: Fn(S3Error) -> Bytes + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_from_hyper(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = bufs
            .iter()
            .find(|buf| !buf.is_empty())
            .map_or(&[][..], |buf| &buf[..]);
        if this.is_from_hyper(first) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while let Some(refusal) = this.refusal.as_mut().filter(bytes::Buf::has_remaining) {
            let n = ready!(Pin::new(&mut this.stream).poll_write(cx, refusal))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            refusal.advance(n);
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(parts: &[&[u8]]) -> Result<(), &'static str> {
        let mut scan = Scan::default();
        parts.iter().try_for_each(|part| scan.take(part))
    }

    #[test]
    fn a_proper_head_passes_and_what_follows_it_is_not_read() {
        let head = b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\n\r\nbody\nTransfer-Encoding: chunked\n";
        assert_eq!(scan(&[head]), Ok(()));
    }

    #[test]
    fn a_head_is_found_wherever_the_one_before_it_ends() {
        let bad = b"GET / HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n";
        for before in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length:  \t 3 \r\n\r\nab\n",
            "\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(scan(&[before.as_bytes()]), Ok(()));
            assert!(scan(&[before.as_bytes(), bad]).is_err(), "{before:?}");
        }
        let mut scan = Scan::default();
        let large = "PUT / HTTP/1.1\r\nContent-Length: 5368709120\r\n\r\n";
        assert_eq!(scan.take(large.as_bytes()), Ok(()));
        let part = vec![b'\n'; 1 << 20];
        for _ in 0..5 << 10 {
            assert_eq!(scan.take(&part), Ok(()));
        }
        assert!(scan.take(bad).is_err());
    }

    #[test]
    fn two_framings_doubled_encodings_and_bare_line_ends_are_refused() {
        for head in [
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\nTRANSFER-encoding: chunked\r\ncontent-LENGTH: 1\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nA: b\nx-amz-acl: public-read\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\n",
        ] {
            assert!(scan(&[head.as_bytes()]).is_err(), "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_changes_nothing(head in "[ -~\r\n]{0,200}", at in 0_usize..200) {
            let head = head.as_bytes();
            let (a, b) = head.split_at(at.min(head.len()));
            prop_assert_eq!(scan(&[head]), scan(&[a, b]));
        }
    }
}
