//! What stands between the client's socket and hyper: it looks at each head as raw bytes, and gives
//! the refusals that hyper would make with an empty body the form of an S3 error.
//!
//! hyper takes line ends without CR, takes equal lengths for one, and drops `Content-Length` beside
//! `Transfer-Encoding` before we could see both: two readers in a row could read such a head
//! differently (request smuggling). It also drops what follows a `#` in the target.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use memchr::{memchr, memmem};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Code, S3Error};
use crate::transport::line::{Line, number};
use crate::transport::{Gauge, Phase};

/// The largest `Content-Length` that is read: hyper keeps the two largest numbers for itself, and answers
/// them with 431.
const MAX_LENGTH: u64 = u64::MAX >> 1;

/// A client's stream, with eyes for its heads.
pub(super) struct Front<S, F> {
    stream: S,
    gauge: Rc<Gauge>,
    scan: Scan,
    /// Called with each refusal made here; gives the bytes of the answer.
    refuse: F,
    /// The answer that goes out instead of hyper's.
    refusal: Option<Bytes>,
    /// What a client has sent ahead of its turn: hyper gets it when the request before is over.
    ahead: BytesMut,
    reader: Option<Waker>,
    /// A body is framed wrongly: nothing more is read.
    is_cut: bool,
    /// How many requests had begun when hyper last got bytes between requests, of a head.
    fed_at: Option<u64>,
}

impl<S, F: Fn(S3Error) -> Bytes> Front<S, F> {
    /// Watches `stream`, whose bytes `gauge` counts.
    pub(super) fn new(stream: S, gauge: Rc<Gauge>, refuse: F) -> Self {
        Self {
            stream,
            gauge,
            scan: Scan::default(),
            refuse,
            refusal: None,
            ahead: BytesMut::new(),
            reader: None,
            is_cut: false,
            fed_at: None,
        }
    }

    /// Looks at what is to be read next; how much of it belongs to the current request.
    fn look(&mut self, bytes: &[u8]) -> usize {
        if !self.is_busy() && !bytes.is_empty() {
            self.fed_at = Some(self.gauge.begun());
        }
        match self.scan.take(bytes) {
            Ok(taken) => taken,
            // Its answer may be on the way: hyper finds the body incomplete, says so, and closes.
            Err(broken) if self.scan.place != Place::Head => {
                self.is_cut = true;
                broken.at
            }
            Err(broken) => {
                let error = S3Error::new(Code::InvalidRequest, broken.why).close();
                self.refusal = Some((self.refuse)(error));
                0
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.gauge.phase().0 == Phase::Busy
    }

    /// Wakes a reader that waited for the request before to be over.
    fn wake_reader(&mut self) {
        if self.reader.is_some()
            && !self.is_busy()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Whether `bytes` are an answer that hyper makes by itself, to a head it cannot take: it has got
    /// some of a head, and no request has come of it. An object's bytes may read the same, and the end
    /// of an answer is flushed when its request is over.
    fn is_from_hyper(&mut self, bytes: &[u8]) -> bool {
        if self.refusal.is_some() {
            return true;
        }
        let no_request_came = self.fed_at == Some(self.gauge.begun());
        if self.is_busy() || !no_request_came || self.gauge.is_blocked() {
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
    let error = match bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
        b"400" => S3Error::new(Code::InvalidRequest, "The request is not proper HTTP/1.1."),
        b"414" => S3Error::new(Code::InvalidURI, "The request target is too long."),
        b"431" => S3Error::new(
            Code::InvalidRequest,
            "The request head is too large, or has too many fields.",
        )
        .status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        _ => return None,
    };
    let is_bare =
        bytes.ends_with(b"\r\n\r\n") && memmem::find(bytes, b"content-length: 0\r\n").is_some();
    is_bare.then(|| error.close())
}

/// Reads heads line by line without keeping them, and counts the bodies between.
#[derive(Debug)]
struct Scan {
    place: Place,
    line: Line,
    /// The request line has ended.
    in_fields: bool,
    fragment: bool,
    content_length: Option<u64>,
    transfer_encoding: bool,
}

/// A line that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken {
    /// So many of the bytes taken came before it.
    at: usize,
    why: &'static str,
}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A body, or a chunk and its line end, of so many bytes more.
    Body { left: u64, chunked: bool },
    /// The line before a chunk.
    ChunkSize,
    /// The request is over.
    End,
    /// The head.
    Head,
    /// The lines after the last chunk.
    Trailer,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            place: Place::Head,
            line: Line::default(),
            in_fields: false,
            fragment: false,
            content_length: None,
            transfer_encoding: false,
        }
    }
}

impl Scan {
    /// Takes more of a request, up to its end; how much that was.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if self.place == Place::End {
            *self = Self::default();
        }
        let mut rest = bytes;
        while !rest.is_empty() && self.place != Place::End {
            if let Place::Body { left, chunked } = self.place {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.get(here..).unwrap_or_default();
                self.place = match left - here as u64 {
                    0 if chunked => Place::ChunkSize,
                    0 => Place::End,
                    left => Place::Body { left, chunked },
                };
                continue;
            }
            let Some(end) = memchr(b'\n', rest) else {
                self.append(rest);
                rest = &[];
                continue;
            };
            let (line, after) = rest.split_at(end);
            if self.line.is_new() && self.is_of_no_weight(line) {
                rest = after.get(1..).unwrap_or_default();
                continue;
            }
            self.append(line);
            let at = bytes.len() - rest.len();
            self.end_line().map_err(|why| Broken { at, why })?;
            self.line = Line::default();
            rest = after.get(1..).unwrap_or_default();
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether a whole line is one of the many fields that say nothing of the framing, by its first
    /// letter, and ends as it must.
    fn is_of_no_weight(&self, line: &[u8]) -> bool {
        self.place == Place::Head
            && self.in_fields
            && matches!(line, [first, .., b'\r'] if !matches!(first, b'C' | b'c' | b'T' | b't'))
    }

    fn append(&mut self, bytes: &[u8]) {
        self.fragment |= !self.in_fields && memchr(b'#', bytes).is_some();
        self.line.append(bytes);
    }

    fn end_line(&mut self) -> Result<(), &'static str> {
        if !self.line.ends_in_cr() {
            return Err("Every line of a request head ends in CR LF.");
        }
        match self.place {
            Place::ChunkSize => self.end_chunk_size(),
            Place::Trailer if self.line.is_blank() => {
                self.place = Place::End;
                Ok(())
            }
            Place::Body { .. } | Place::End | Place::Trailer => Ok(()),
            Place::Head => self.end_field(),
        }
    }

    /// The end of a line of the head.
    fn end_field(&mut self) -> Result<(), &'static str> {
        if self.fragment {
            return Err("The request target holds a #; write it as %23.");
        }
        self.in_fields = true;
        if let Some(value) = self.line.value_of(b"content-length:") {
            if self.content_length.is_some() {
                return Err("A request has at most one Content-Length.");
            }
            self.content_length = number(value, 10).filter(|length| *length <= MAX_LENGTH);
            if self.content_length.is_none() {
                return Err("Content-Length must be a number of bytes.");
            }
        }
        if self.line.value_of(b"transfer-encoding:").is_some() {
            if self.transfer_encoding {
                return Err("A request has at most one Transfer-Encoding.");
            }
            self.transfer_encoding = true;
        }
        if self.content_length.is_some() && self.transfer_encoding {
            return Err("A request has Content-Length or Transfer-Encoding, not both.");
        }
        if self.line.is_blank() {
            self.place = match self.content_length {
                _ if self.transfer_encoding => Place::ChunkSize,
                None | Some(0) => Place::End,
                Some(left) => Place::Body {
                    left,
                    chunked: false,
                },
            };
        }
        Ok(())
    }

    fn end_chunk_size(&mut self) -> Result<(), &'static str> {
        self.place = match number(self.line.before_semicolon(), 16) {
            Some(0) => Place::Trailer,
            Some(size) => Place::Body {
                left: size.saturating_add(2),
                chunked: true,
            },
            None => return Err("A chunk must begin with its size in hex."),
        };
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
        if this.refusal.is_some() || this.is_cut {
            return Poll::Ready(Ok(())); // hyper sees the end, and shuts down
        }
        if this.ahead.is_empty() {
            let already = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let read = buf.filled().get(already..).unwrap_or_default();
            let taken = this.look(read);
            let ahead = read.get(taken..).unwrap_or_default();
            if this.refusal.is_none() && !this.is_cut {
                this.ahead.extend_from_slice(ahead);
            }
            buf.set_filled(already + taken);
            return Poll::Ready(Ok(()));
        }
        if this.is_busy() {
            this.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut ahead = std::mem::take(&mut this.ahead);
        let fits = ahead.len().min(buf.remaining());
        let taken = this.look(ahead.get(..fits).unwrap_or_default());
        buf.put_slice(&ahead.split_to(taken));
        this.ahead = ahead;
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
        this.wake_reader();
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

    fn scan(parts: &[&[u8]]) -> Result<Place, &'static str> {
        let mut scan = Scan::default();
        for part in parts {
            let mut part = *part;
            while !part.is_empty() {
                part = &part[scan.take(part).map_err(|broken| broken.why)?..];
            }
        }
        Ok(scan.place)
    }

    #[test]
    fn a_request_ends_where_its_framing_says() {
        for (request, next) in [
            ("GET /b/k HTTP/1.1\r\nHost: x#y\r\n\r\n", "GET /"),
            ("PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\na\nb\n", "\n"),
            ("PUT / HTTP/1.1\r\nContent-Length:0\r\n\r\n", "x"),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\na: b\r\n\r\n",
                "0",
            ),
        ] {
            let all = format!("{request}{next}");
            assert_eq!(Scan::default().take(all.as_bytes()), Ok(request.len()));
            assert_eq!(scan(&[request.as_bytes()]), Ok(Place::End));
        }
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
