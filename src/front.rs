//! What stands between the client's socket and hyper: it looks at each head as raw bytes, and gives
//! the refusals that hyper would make with an empty body the form of an S3 error.
//!
//! hyper takes line ends without CR, takes equal lengths for one, and drops `Content-Length` beside
//! `Transfer-Encoding` before we could see both: two readers in a row could read such a head
//! differently (request smuggling). It also drops what follows a `#` in the target.

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
    fn look(&mut self, before: Phase, bytes: &[u8]) {
        if before == Phase::Busy || bytes.is_empty() {
            return;
        }
        if before == Phase::Idle {
            self.scan = Scan::default();
        }
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

/// Reads a head line by line without keeping it.
#[derive(Debug, Default)]
struct Scan {
    /// The start of the line so far, as much as tells the names apart.
    start: [u8; 18],
    length: usize,
    last: u8,
    /// The request line has ended.
    in_fields: bool,
    fragment: bool,
    content_length: bool,
    transfer_encoding: bool,
    ended: bool,
}

impl Scan {
    /// Takes more of the head. The error says what is wrong with it.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !self.ended {
            let Some(end) = memchr(b'\n', bytes) else {
                self.append(bytes);
                return Ok(());
            };
            let (line, rest) = bytes.split_at(end);
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
        self.fragment |= !self.in_fields && memchr(b'#', bytes).is_some();
        self.length += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    fn end_line(&mut self) -> Result<(), &'static str> {
        if self.length == 0 || self.last != b'\r' {
            return Err("Every line of a request head ends in CR LF.");
        }
        if self.fragment {
            return Err("The request target holds a #; write it as %23.");
        }
        self.in_fields = true;
        self.ended = self.length == 1;
        if self.start.starts_with(b"content-length:") {
            if self.content_length {
                return Err("A request has at most one Content-Length.");
            }
            self.content_length = true;
        }
        if self.start.starts_with(b"transfer-encoding:") {
            if self.transfer_encoding {
                return Err("A request has at most one Transfer-Encoding.");
            }
            self.transfer_encoding = true;
        }
        if self.content_length && self.transfer_encoding {
            return Err("A request has Content-Length or Transfer-Encoding, not both.");
        }
        self.start = [0; 18];
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
        let (before, _) = this.gauge.phase();
        let already = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.look(before, buf.filled().get(already..).unwrap_or_default());
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
        let head = b"PUT /b/k HTTP/1.1\r\nHost: x#y\r\nContent-Length: 9\r\n\r\nbody\nTransfer-Encoding: chunked\n";
        assert_eq!(scan(&[head]), Ok(()));
    }

    #[test]
    fn two_framings_fragments_and_bare_line_ends_are_refused() {
        for head in [
            "GET /b/k#f HTTP/1.1\r\nHost: x\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\nTRANSFER-encoding: chunked\r\ncontent-LENGTH: 1\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
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
