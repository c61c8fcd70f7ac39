//! Response guard: looks at the raw head of each response from COS before hyper parses it.
//!
//! hyper drops a `Content-Length` that comes with `Transfer-Encoding`, accepts any list of codings that
//! ends in `chunked`, and accepts line ends without CR. Another reader on the way, a cache or a load
//! balancer, may have found another end of such a response. What that reader took for the next
//! response would then be given to another client. So the guard ends the connection (RFC 9112 sections
//! 2.2 and 6.3). It does so too where a response has no length: its end could not be distinguished from a broken
//! connection. It does not look at bodies.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;

use memchr::memchr;

use crate::transport::framing::{BodyLength, FramingError, FramingFields, may_affect_framing};
use crate::transport::inspected::Inspector;
use crate::transport::line::WireLine;

/// What a connection to COS and those who send on it report to each other.
#[derive(Debug, Default)]
pub(super) struct ResponseExpectation {
    /// The request whose response head comes next.
    request: Cell<Option<RequestKind>>,
    fault: Cell<Option<HeadFault>>,
}

/// As much of a request as decides whether its response has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Head,
    Other,
}

/// What is wrong with the head of a response. Its text is the rule that the head breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// Its framing is ambiguous.
    Framing(FramingError),
    /// It is of an interim response and announces a body.
    InterimBody,
    /// It does not say where the body ends.
    NoLength,
    /// It does not begin with a status line of HTTP/1.
    NotHttp,
}

impl ResponseExpectation {
    /// Says that a request follows: what is read next is the head of its response.
    pub(super) fn expect(&self, request: RequestKind) {
        self.request.set(Some(request));
    }

    /// What is wrong with the head of the response, if that is why the connection was ended.
    pub(super) fn fault(&self) -> Option<HeadFault> {
        self.fault.get()
    }
}

/// Looks at the heads of the responses on one connection.
#[derive(Debug)]
pub(super) struct ResponseGuard {
    expectation: Rc<ResponseExpectation>,
    scanner: HeadScanner,
}

impl ResponseGuard {
    /// Looks at the responses that `expectation` knows of, and reports to it what is wrong with them.
    pub(super) fn new(expectation: Rc<ResponseExpectation>) -> Self {
        Self {
            expectation,
            scanner: HeadScanner::default(),
        }
    }
}

impl Inspector for ResponseGuard {
    fn inspect(&mut self, read: &[u8]) -> io::Result<()> {
        let Some(request) = self.expectation.request.get() else {
            return Ok(());
        };
        match self.scanner.take(read, request) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                self.scanner = HeadScanner::default();
                self.expectation.request.set(None);
                Ok(())
            }
            Err(fault) => {
                self.expectation.fault.set(Some(fault));
                Err(io::Error::new(io::ErrorKind::InvalidData, fault))
            }
        }
    }
}

/// Reads the head of a response line by line without keeping it, and the interim ones before it.
#[derive(Debug, Default)]
struct HeadScanner {
    line: WireLine,
    /// What is known of the head once its first line has ended.
    head: Option<ResponseHead>,
}

#[derive(Clone, Copy, Debug)]
struct ResponseHead {
    status: StatusKind,
    framing: FramingFields,
}

/// As much of a status as decides what follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusKind {
    Final,
    /// 204 and 304, and 101, after which no more HTTP is spoken.
    FinalWithoutBody,
    /// Any other 1xx: another head follows.
    Interim,
}

impl HeadScanner {
    /// Takes more of a response; how much of it was the rest of the head, if that has ended.
    fn take(&mut self, bytes: &[u8], request: RequestKind) -> Result<Option<usize>, HeadFault> {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.cannot_affect_framing(line) {
                continue;
            }
            self.line.append(line);
            let line = std::mem::take(&mut self.line);
            if self.end_line(&line, request)? {
                return Ok(Some(bytes.len() - rest.len()));
            }
        }
        self.line.append(rest);
        Ok(None)
    }

    /// Whether a whole line is one of the many fields that say nothing of the framing, by its first
    /// letter, and ends as it must.
    fn cannot_affect_framing(&self, line: &[u8]) -> bool {
        self.head.is_some()
            && self.line.is_new()
            && matches!(line, [first, .., b'\r'] if !may_affect_framing(*first))
    }

    /// The end of a line: whether it ends the head of the final response.
    fn end_line(&mut self, line: &WireLine, request: RequestKind) -> Result<bool, HeadFault> {
        if !line.ends_in_cr() {
            return Err(HeadFault::Framing(FramingError::BareLineFeed));
        }
        let Some(head) = &mut self.head else {
            self.head = Some(ResponseHead::parse(line.start()).ok_or(HeadFault::NotHttp)?);
            return Ok(false);
        };
        if !line.is_blank() {
            let (name, value) = line.field();
            head.framing.add(name, value).map_err(HeadFault::Framing)?;
            return Ok(false);
        }
        match (head.status, head.framing.body_length()) {
            (StatusKind::Interim, BodyLength::Unstated) => {
                self.head = None;
                Ok(false)
            }
            (StatusKind::Interim, _) => Err(HeadFault::InterimBody),
            (StatusKind::Final, BodyLength::Unstated) if request != RequestKind::Head => {
                Err(HeadFault::NoLength)
            }
            _ => Ok(true),
        }
    }
}

impl ResponseHead {
    /// Reads a status line, in lower case.
    fn parse(line: &[u8]) -> Option<Self> {
        let (has_codings, code) = match line.strip_prefix(b"http/1.1 ") {
            Some(code) => (true, code),
            None => (false, line.strip_prefix(b"http/1.0 ")?),
        };
        let status = match code.get(..3).unwrap_or_default() {
            b"101" | b"204" | b"304" => StatusKind::FinalWithoutBody,
            [b'1', ..] if has_codings => StatusKind::Interim,
            _ => StatusKind::Final,
        };
        let framing = FramingFields::new(has_codings);
        Some(Self { status, framing })
    }
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Framing(error) => error.fmt(f),
            Self::InterimBody => f.write_str("an interim response has no body"),
            Self::NoLength => f.write_str("a response must have a length"),
            Self::NotHttp => f.write_str("a response begins with a status line of HTTP/1"),
        }
    }
}

impl std::error::Error for HeadFault {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::transport::inspected::InspectedStream;

    const GOOD: [&str; 7] = [
        "HTTP/1.1 200 OK\r\nServer: tencent-cos\r\nContent-Length: 2\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 200 \r\ntransfer-ENCODING:chunked \r\n\r\n",
        "HTTP/1.1 204\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.0 200 OK\r\nCONTENT-length: 2\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ];

    const BAD: [&str; 20] = [
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
        "HTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\nContent-Length: 2\r\n\r\n",
    ];

    /// Where the head ends in `pieces` taken one after another.
    fn scan(pieces: &[&[u8]]) -> Result<Option<usize>, HeadFault> {
        let (mut scanner, mut before) = (HeadScanner::default(), 0);
        for piece in pieces {
            if let Some(end) = scanner.take(piece, RequestKind::Other)? {
                return Ok(Some(before + end));
            }
            before += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn a_head_ends_where_it_does_wherever_it_is_split() {
        for head in GOOD {
            let response = format!("{head}a\nb");
            for at in 0..=response.len() {
                let (a, b) = response.as_bytes().split_at(at);
                assert_eq!(scan(&[a, b]), Ok(Some(head.len())), "{head:?} at {at}");
            }
            let bytes: Vec<_> = response.as_bytes().chunks(1).collect();
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

    #[test]
    fn a_response_to_head_needs_no_length() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n";
        let ended = HeadScanner::default().take(head, RequestKind::Head);
        assert_eq!(ended, Ok(Some(head.len())));
    }

    #[tokio::test]
    async fn each_head_is_looked_at_and_no_body() {
        let expected = Rc::new(ResponseExpectation::default());
        let (mut cos, ours) = duplex(1024);
        let mut responses = InspectedStream::new(ours, ResponseGuard::new(Rc::clone(&expected)));
        let mut read = vec![0; 1024];
        for _ in 0..2 {
            expected.expect(RequestKind::Other);
            for piece in [
                "HTTP/1.1 200 OK\r\nConte",
                "nt-Length: 14\r\n\r\n",
                "HTTP/",
                "1.1 200\n\n",
            ] {
                cos.write_all(piece.as_bytes()).await.unwrap();
                assert_eq!(responses.read(&mut read).await.unwrap(), piece.len());
            }
        }
        assert_eq!(expected.fault(), None);
        expected.expect(RequestKind::Other);
        cos.write_all(BAD[0].as_bytes()).await.unwrap();
        let error = responses.read(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(expected.fault().is_some());
    }
}
