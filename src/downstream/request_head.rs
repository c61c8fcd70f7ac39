//! Request heads of HTTP/1.1 as raw bytes. Accepts only heads that hyper accepts too, and that every reader
//! understands in the same way.
//!
//! hyper parses a head with `httparse` and then makes a method, a URI and a body length of it. This file
//! takes the same steps, with the limits that hyper has, so hyper accepts each head that it accepts. It also
//! refuses line ends without CR, which hyper accepts, and a `#` in the target, which hyper drops together
//! with the rest.

use std::mem::MaybeUninit;

use http::{Method, StatusCode, Uri};
use httparse::{Error, Header, ParserConfig, Request, Status};
use memchr::{memchr, memchr_iter};

use crate::config::MAX_HEAD_FIELDS;
use crate::error::{Code, S3Error};
use crate::observe::Event;
use crate::transport::framing::{BodyLength, FramingError, FramingFields};

/// The longest target that hyper accepts.
const MAX_TARGET: usize = u16::MAX as usize - 1;
/// The longest field name that hyper accepts.
const MAX_NAME: usize = u16::MAX as usize;
/// Fields for which there is room in most configurations: less stack is touched than for all.
const FEW_FIELDS: usize = 100;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

/// A head that hyper may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    /// Its bytes, with the empty line at its end.
    pub(super) length: usize,
    pub(super) body: BodyLength,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    Framing(FramingError),
    /// The target has a `#`.
    Fragment,
    /// It is not HTTP/1.
    Malformed,
    TargetTooLong,
    /// Too many bytes or too many fields.
    TooLarge,
}

impl HeadError {
    /// The word for it in the log, which is the metric's too.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Framing(_) => "framing",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::TargetTooLong => "target_too_long",
            Self::TooLarge => "too_large",
        }
    }

    /// What is counted.
    pub(super) fn event(self) -> Event {
        match self {
            Self::Framing(_) => Event::HeadFraming,
            Self::Fragment => Event::HeadFragment,
            Self::Malformed => Event::HeadMalformed,
            Self::TargetTooLong => Event::HeadTargetTooLong,
            Self::TooLarge => Event::HeadTooLarge,
        }
    }
}

impl RequestHead {
    /// Parses the head at the start of `bytes`, which has no empty line before it. `None`: its end has
    /// not arrived.
    pub(super) fn parse(bytes: &[u8], limits: HeadLimits) -> Result<Option<Self>, HeadError> {
        if limits.fields <= FEW_FIELDS {
            return Self::parse_fields::<FEW_FIELDS>(bytes, limits);
        }
        Self::parse_fields::<MAX_HEAD_FIELDS>(bytes, limits)
    }

    fn parse_fields<const FIELDS: usize>(
        bytes: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<Self>, HeadError> {
        let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
        let fields = fields.get_mut(..limits.fields).unwrap_or_default();
        let mut request = Request::new(&mut []);
        let parsed =
            ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, fields);
        let length = match parsed {
            Ok(Status::Complete(length)) if length <= limits.bytes => length,
            Ok(Status::Partial) if bytes.len() < limits.bytes => return Ok(None),
            Ok(_) | Err(Error::TooManyHeaders) => return Err(HeadError::TooLarge),
            Err(_) => return Err(HeadError::Malformed),
        };
        check_request_line(&request)?;
        // `httparse` accepts a CR before an LF alone: as many as lines show that each line has one.
        let returns = memchr_iter(b'\r', bytes.get(..length).unwrap_or_default()).count();
        if returns != request.headers.len() + 2 || bytes.starts_with(b"\n") {
            return Err(HeadError::Framing(FramingError::BareLineFeed));
        }
        let mut framing = FramingFields::new(request.version == Some(1));
        for field in &*request.headers {
            if field.name.len() > MAX_NAME {
                return Err(HeadError::TooLarge);
            }
            framing
                .add(field.name.as_bytes(), field.value)
                .map_err(HeadError::Framing)?;
        }
        let body = framing.body_length();
        Ok(Some(Self { length, body }))
    }
}

/// Whether a head may end in `bytes`, so that it is worth parsing again.
pub(super) fn may_end_in(bytes: &[u8]) -> bool {
    memchr_iter(b'\n', bytes).any(|at| {
        let after = bytes.get(at + 1..).unwrap_or_default();
        after.starts_with(b"\n") || after.starts_with(b"\r\n")
    })
}

fn check_request_line(request: &Request<'_, '_>) -> Result<(), HeadError> {
    let method = request.method.unwrap_or_default();
    Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed)?;
    let target = request.path.unwrap_or_default().as_bytes();
    if target.len() > MAX_TARGET {
        return Err(HeadError::TargetTooLong);
    }
    if is_plain_path(target) {
        return Ok(());
    }
    if memchr(b'#', target).is_some() {
        return Err(HeadError::Fragment);
    }
    Uri::try_from(target).map_err(|_| HeadError::Malformed)?;
    Ok(())
}

/// Whether `target` is a path and query of characters that a URI has everywhere. Most are, and need not
/// be copied to be checked.
fn is_plain_path(target: &[u8]) -> bool {
    let is_plain = |byte: &u8| PLAIN.get(usize::from(*byte)) == Some(&true);
    target.first() == Some(&b'/') && target.iter().all(is_plain)
}

/// The bytes of a plain path.
#[expect(
    clippy::indexing_slicing,
    reason = "the compiler evaluates it and its indexes"
)]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let bytes =
        b"!$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    let mut at = 0;
    while at < bytes.len() {
        plain[bytes[at] as usize] = true;
        at += 1;
    }
    plain
};

impl From<HeadError> for S3Error {
    fn from(error: HeadError) -> Self {
        let error = match error {
            HeadError::Framing(error) => {
                let message = format!("The message framing of the request is ambiguous: {error}.");
                Self::new(Code::InvalidRequest, message)
            }
            HeadError::Fragment => Self::new(
                Code::InvalidRequest,
                "The request target contains a #. Write it as %23.",
            ),
            HeadError::Malformed => {
                Self::new(Code::InvalidRequest, "The request is not valid HTTP/1.1.")
            }
            HeadError::TargetTooLong => {
                Self::new(Code::InvalidURI, "The request target is too long.")
                    .status(StatusCode::URI_TOO_LONG)
            }
            HeadError::TooLarge => Self::new(
                Code::InvalidRequest,
                "The request head is too large, or has too many header fields.",
            )
            .status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        };
        error.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 16 * 1024,
        fields: 8,
    };

    #[test]
    fn accepts_heads_and_finds_their_bodies() {
        for (head, body) in [
            (
                "GET /b/k HTTP/1.1\r\nHost: x#y\r\n\r\n",
                BodyLength::Unstated,
            ),
            ("GET * HTTP/1.0\r\n\r\n", BodyLength::Unstated),
            ("GET http://h:1/b?q HTTP/1.1\r\n\r\n", BodyLength::Unstated),
            ("GET /\u{4e2d} HTTP/1.1\r\n\r\n", BodyLength::Unstated),
            (
                "PUT / HTTP/1.1\r\nContent-Length:\t4 \r\n\r\n",
                BodyLength::Bytes(4),
            ),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                BodyLength::Chunked,
            ),
        ] {
            let bytes = format!("{head}a\nb");
            let length = head.len();
            let parsed = RequestHead::parse(bytes.as_bytes(), LIMITS);
            assert_eq!(parsed, Ok(Some(RequestHead { length, body })), "{head:?}");
            for end in 0..length {
                let parsed = RequestHead::parse(&head.as_bytes()[..end], LIMITS);
                assert_eq!(parsed, Ok(None), "{head:?} up to {end}");
            }
            assert!(may_end_in(&head.as_bytes()[length - 4..]));
        }
    }

    #[test]
    fn refuses_heads_that_two_readers_may_read_differently() {
        let framing = HeadError::Framing;
        for (head, error) in [
            ("GET /b/k#f HTTP/1.1\r\n\r\n", HeadError::Fragment),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                framing(FramingError::RepeatedLength),
            ),
            (
                "PUT / HTTP/1.1\r\nTRANSFER-encoding: chunked\r\ncontent-LENGTH: 1\r\n\r\n",
                framing(FramingError::BothFields),
            ),
            (
                "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                framing(FramingError::CodingInHttp10),
            ),
            ("GET / HTTP/1.1\n\n", framing(FramingError::BareLineFeed)),
            (
                "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
                framing(FramingError::BareLineFeed),
            ),
            (
                "GET / HTTP/1.1\r\nA: b\r\n\n",
                framing(FramingError::BareLineFeed),
            ),
            (
                "\nGET / HTTP/1.1\r\n\r\n",
                framing(FramingError::BareLineFeed),
            ),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", HeadError::Malformed),
            (
                "GET / HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
                HeadError::Malformed,
            ),
            (
                "GET / HTTP/1.1\r\nA: b\r\n Content-Length: 1\r\n\r\n",
                HeadError::Malformed,
            ),
            ("PRI * HTTP/2.0\r\n\r\n", HeadError::Malformed),
            ("GET http://[ HTTP/1.1\r\n\r\n", HeadError::Malformed),
        ] {
            let parsed = RequestHead::parse(head.as_bytes(), LIMITS);
            assert_eq!(parsed, Err(error), "{head:?}");
        }
        // As soon as it shows: a client that speaks TLS gets its refusal at once.
        let parsed = RequestHead::parse(b"\x16\x03\x01", LIMITS);
        assert_eq!(parsed, Err(HeadError::Malformed));
    }

    #[test]
    fn refuses_heads_over_the_limits() {
        let fields = |count| {
            let fields = "A: b\r\n".repeat(count);
            format!("GET / HTTP/1.1\r\n{fields}\r\n")
        };
        for few in [LIMITS.fields, FEW_FIELDS, MAX_HEAD_FIELDS] {
            let limits = HeadLimits {
                fields: few,
                ..LIMITS
            };
            let parsed = RequestHead::parse(fields(few).as_bytes(), limits);
            assert!(parsed.is_ok(), "{parsed:?}");
            let parsed = RequestHead::parse(fields(few + 1).as_bytes(), limits);
            assert_eq!(parsed, Err(HeadError::TooLarge));
        }
        let large = |bytes: usize| {
            let rest = "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(bytes - rest))
        };
        let parsed = RequestHead::parse(large(LIMITS.bytes).as_bytes(), LIMITS);
        assert!(matches!(parsed, Ok(Some(_))));
        let over = large(LIMITS.bytes + 1);
        for end in [LIMITS.bytes, over.len()] {
            let parsed = RequestHead::parse(&over.as_bytes()[..end], LIMITS);
            assert_eq!(parsed, Err(HeadError::TooLarge));
        }
        let limits = HeadLimits {
            bytes: 1 << 20,
            ..LIMITS
        };
        for (length, error) in [
            (MAX_TARGET, None),
            (MAX_TARGET + 1, Some(HeadError::TargetTooLong)),
        ] {
            let head = format!("GET /{} HTTP/1.1\r\n\r\n", "k".repeat(length - 1));
            assert_eq!(RequestHead::parse(head.as_bytes(), limits).err(), error);
        }
        let head = format!("GET / HTTP/1.1\r\n{}: b\r\n\r\n", "n".repeat(MAX_NAME + 1));
        let parsed = RequestHead::parse(head.as_bytes(), limits);
        assert_eq!(parsed, Err(HeadError::TooLarge));
    }
}
