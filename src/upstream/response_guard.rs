//! What stands between COS's socket and hyper: it looks at the head of each answer as raw bytes.
//!
//! hyper drops a `Content-Length` that comes with `Transfer-Encoding`, takes a last coding of `chunked`
//! for chunks whatever stands before it, and takes line ends without CR. Another reader on the way, a
//! cache or a balancer, may have found another end in such an answer, and what it took for the next
//! one would be given to another client. So it ends its connection (RFC 9112 sections 2.2 and 6.3).
//! Bodies are not looked at.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::line::{Line, number};

/// What a connection to COS and those who send on it tell each other.
#[derive(Debug, Default)]
pub(super) struct Expected {
    head: Cell<bool>,
    fault: Cell<Option<&'static str>>,
}

impl Expected {
    /// Says that a request follows: what is read next is the head of its answer.
    pub(super) fn expect(&self) {
        self.head.set(true);
    }

    /// What is wrong with the head of the answer, if that is why the connection was ended.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.fault.get()
    }
}

/// A stream from COS, with eyes for the heads of its answers.
#[derive(Debug)]
pub(super) struct Answers<S> {
    stream: S,
    expected: Rc<Expected>,
    scan: Scan,
}

impl<S> Answers<S> {
    /// Watches `stream`.
    pub(super) fn new(stream: S, expected: Rc<Expected>) -> Self {
        Self {
            stream,
            expected,
            scan: Scan::default(),
        }
    }

    /// Looks at bytes of which the first belong to a head.
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.scan.take(bytes) {
            Ok(None) => {}
            Ok(Some(_)) => {
                self.scan = Scan::default();
                self.expected.head.set(false);
            }
            Err(fault) => {
                self.expected.fault.set(Some(fault));
                return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
            }
        }
        Ok(())
    }
}

/// Reads the head of an answer line by line without keeping it, and the interim ones before it.
#[derive(Debug, Default)]
struct Scan {
    line: Line,
    head: Head,
}

/// What is known of the head so far.
#[derive(Debug, Default)]
struct Head {
    status: Option<Status>,
    content_length: bool,
    transfer_encoding: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Final,
    /// `HTTP/1.0`, which has no transfer codings.
    FinalOld,
    /// 1xx: another head follows.
    Interim,
}

impl Scan {
    /// Takes more of an answer; how much of it was the rest of the head, if that has ended.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.is_of_no_weight(line) {
                continue;
            }
            self.line.append(line);
            let line = std::mem::take(&mut self.line);
            if !line.ends_in_cr() {
                return Err("a line of its head does not end in CR LF");
            }
            if !line.is_blank() {
                self.head.add(&line)?;
            } else if std::mem::take(&mut self.head).is_final()? {
                return Ok(Some(bytes.len() - rest.len()));
            }
        }
        self.line.append(rest);
        Ok(None)
    }

    /// Whether a whole line is one of the many fields that say nothing of the framing, by its first
    /// letter, and ends as it must.
    fn is_of_no_weight(&self, line: &[u8]) -> bool {
        self.head.status.is_some()
            && self.line.is_new()
            && matches!(line, [first, .., b'\r'] if !matches!(first, b'C' | b'c' | b'T' | b't'))
    }
}

impl Head {
    /// Adds a line, which is not blank.
    fn add(&mut self, line: &Line) -> Result<(), &'static str> {
        let Some(status) = self.status else {
            self.status = Some(Status::parse(line.start())?);
            return Ok(());
        };
        if let Some(value) = line.value_of(b"content-length:") {
            if std::mem::replace(&mut self.content_length, true) {
                return Err("it has two Content-Length");
            }
            if number(value, 10).is_none() {
                return Err("its Content-Length is no number");
            }
        } else if let Some(value) = line.value_of(b"transfer-encoding:") {
            if std::mem::replace(&mut self.transfer_encoding, true) {
                return Err("it has two Transfer-Encoding");
            }
            if value != b"chunked" {
                return Err("its Transfer-Encoding is not chunked");
            }
        } else {
            return Ok(());
        }
        match status {
            Status::Interim => Err("an interim answer has a body"),
            Status::FinalOld if self.transfer_encoding => {
                Err("it is of HTTP/1.0 and has a Transfer-Encoding")
            }
            _ if self.content_length && self.transfer_encoding => {
                Err("it has both Content-Length and Transfer-Encoding")
            }
            _ => Ok(()),
        }
    }

    /// At its end: whether the answer's own body follows, and no further head.
    fn is_final(&self) -> Result<bool, &'static str> {
        match self.status {
            Some(status) => Ok(status != Status::Interim),
            None => Err("it begins with an empty line"),
        }
    }
}

impl Status {
    /// Reads a status line, in lower case.
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        if line.starts_with(b"http/1.0 ") {
            return Ok(Self::FinalOld);
        }
        match line.strip_prefix(b"http/1.1 ") {
            None => Err("it is not HTTP/1.1"),
            // After 101 no more HTTP is spoken.
            Some([b'1', rest @ ..]) if !rest.starts_with(b"01") => Ok(Self::Interim),
            Some(_) => Ok(Self::Final),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Answers<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let already = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.expected.head.get() {
            this.look(buf.filled().get(already..).unwrap_or_default())?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answers<S> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const GOOD: [&str; 6] = [
        "HTTP/1.1 200 OK\r\nServer: tencent-cos\r\nContent-Length: 2\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 200 \r\ntransfer-ENCODING:chunked \r\n\r\n",
        "HTTP/1.1 204\r\n\r\n",
        "HTTP/1.0 200 OK\r\nCONTENT-length: 2\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ];

    const BAD: [&str; 17] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTRANSFER-encoding: chunked\r\nX: y\r\ncontent-LENGTH: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\n",
        "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "ICY 200 OK\r\nContent-Length: 2\r\n\r\n",
    ];

    /// Where the head ends in `pieces` taken one after another.
    fn scan(pieces: &[&[u8]]) -> Result<Option<usize>, &'static str> {
        let (mut scan, mut before) = (Scan::default(), 0);
        for piece in pieces {
            if let Some(end) = scan.take(piece)? {
                return Ok(Some(before + end));
            }
            before += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn a_head_ends_where_it_does_wherever_it_is_split() {
        for head in GOOD {
            let answer = format!("{head}a\nb");
            for at in 0..=answer.len() {
                let (a, b) = answer.as_bytes().split_at(at);
                assert_eq!(scan(&[a, b]), Ok(Some(head.len())), "{head:?} at {at}");
            }
            let bytes: Vec<_> = answer.as_bytes().chunks(1).collect();
            assert_eq!(scan(&bytes), Ok(Some(head.len())), "{head:?}");
        }
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused_wherever_it_is_split() {
        for head in BAD {
            let fault = scan(&[head.as_bytes()]);
            assert!(fault.is_err(), "{head:?}");
            for at in 0..=head.len() {
                let (a, b) = head.as_bytes().split_at(at);
                assert_eq!(scan(&[a, b]), fault, "{head:?} at {at}");
            }
        }
    }

    #[tokio::test]
    async fn each_head_is_looked_at_and_no_body() {
        let expected = Rc::new(Expected::default());
        let (mut cos, ours) = duplex(1024);
        let mut answers = Answers::new(ours, Rc::clone(&expected));
        let mut read = vec![0; 1024];
        for _ in 0..2 {
            expected.expect();
            for piece in [
                "HTTP/1.1 200 OK\r\nConte",
                "nt-Length: 14\r\n\r\n",
                "HTTP/",
                "1.1 200\n\n",
            ] {
                cos.write_all(piece.as_bytes()).await.unwrap();
                assert_eq!(answers.read(&mut read).await.unwrap(), piece.len());
            }
        }
        assert_eq!(expected.fault(), None);
        expected.expect();
        cos.write_all(BAD[0].as_bytes()).await.unwrap();
        let error = answers.read(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(expected.fault().is_some());
    }
}
