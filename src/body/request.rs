//! [`RequestBody`]: the body that goes to COS. An object is verified while it streams, and its trailing bytes
//! are held back until then.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{PaceLimit, take_whole};
use crate::body::shape::Shaper;
use crate::error::{Code, Fault, S3Error};
use crate::payload::checksum::Verified;
use crate::payload::{Intake, PayloadError};
use crate::transport::{BodyInFlight, Side, StreamState, TransferPace};

/// What goes to COS after the head.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// No body.
    Empty,
    /// A small body, whole in memory and checked: it can be sent again.
    Whole(Bytes),
    /// An object on its way from the client.
    Upload(Rc<RefCell<ObjectUpload>>),
}

/// An object on its way from the client to COS: checked as it passes, and its last bytes go on only
/// when every check has passed. Until then COS has fewer bytes than `Content-Length` announced, and
/// stores nothing.
#[derive(Debug)]
pub(crate) struct ObjectUpload {
    incoming: Incoming,
    length: u64,
    received: u64,
    intake: Intake,
    /// Bytes of the client that the intake has not taken yet.
    input: Bytes,
    verified: Option<Verified>,
    first: Option<Bytes>,
    source: Rc<StreamState>,
    sink: Option<Rc<StreamState>>,
    pace: TransferPace,
    shaper: Option<Box<Shaper>>,
    state: UploadState,
    failure: Option<UploadFailure>,
    _in_flight: BodyInFlight,
}

/// How far an upload has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadState {
    /// No byte has been handed to an upstream connection: another one may still be tried.
    Untouched,
    /// Some bytes have.
    Sending,
    /// All have.
    Sent,
}

/// Why an upload did not reach its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFailure {
    /// The client's connection ended, or its framing broke.
    ClientGone,
    /// The client fell below the least pace.
    ClientSlow,
    /// A check failed: the body is not what the client declared of it.
    Payload(PayloadError),
    /// COS fell below the least pace.
    UpstreamSlow,
}

/// A client's object that has begun to arrive.
#[derive(Debug)]
pub(crate) struct UploadSource {
    /// The bytes that are still to be read.
    pub incoming: Incoming,
    /// Those that have been read.
    pub input: Bytes,
    /// The number of bytes that go to COS.
    pub length: u64,
    /// The state of the client's stream.
    pub stream_state: Rc<StreamState>,
}

impl RequestBody {
    /// The length that goes into `Content-Length`.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Upload(upload) => upload.borrow().length,
            Self::Whole(bytes) => bytes.len() as u64,
        }
    }

    /// The same body for another try, if none of it has been used up.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Upload(upload) => (upload.borrow().state == UploadState::Untouched)
                .then(|| Self::Upload(Rc::clone(upload))),
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
        }
    }

    /// Whether the last byte has been handed over.
    pub(crate) fn is_sent(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(_) => true,
            Self::Upload(upload) => upload.borrow().is_sent(),
        }
    }

    /// The upload, if it is one.
    pub(crate) fn upload(&self) -> Option<Rc<RefCell<ObjectUpload>>> {
        match self {
            Self::Upload(upload) => Some(Rc::clone(upload)),
            Self::Empty | Self::Whole(_) => None,
        }
    }

    /// Why the upload failed, if it did.
    pub(crate) fn failure(&self) -> Option<UploadFailure> {
        match self {
            Self::Empty | Self::Whole(_) => None,
            Self::Upload(upload) => upload.borrow().failure,
        }
    }

    /// Tells an upload which connection it goes to.
    pub(crate) fn goes_to(&self, sink: &Rc<StreamState>) {
        if let Self::Upload(upload) = self {
            upload.borrow_mut().sink = Some(Rc::clone(sink));
        }
    }

    /// Takes an object's body from the client, through `intake`. Waits for its first bytes (a client that
    /// sends none costs no upstream connection), and keeps a body that came whole as
    /// [`RequestBody::Whole`], with what was verified of it.
    pub(crate) async fn from_client(
        client: UploadSource,
        intake: Intake,
        pace: PaceLimit,
        shaper: Option<Box<Shaper>>,
    ) -> Result<(Self, Option<Verified>), UploadFailure> {
        let UploadSource {
            incoming,
            input,
            length,
            stream_state: source,
        } = client;
        let in_flight = source.core().body();
        let mut upload = ObjectUpload {
            incoming,
            length,
            received: 0,
            intake,
            input,
            verified: None,
            first: None,
            source,
            sink: None,
            pace: TransferPace::new(pace.bytes, pace.window),
            shaper,
            state: UploadState::Untouched,
            failure: None,
            _in_flight: in_flight,
        };
        let first = std::future::poll_fn(|cx| upload.poll_checked(cx)).await?;
        if upload.verified.is_some() {
            let body = if first.is_empty() {
                Self::Empty
            } else {
                Self::Whole(first)
            };
            return Ok((body, upload.verified));
        }
        upload.first = Some(first);
        Ok((Self::Upload(Rc::new(RefCell::new(upload))), None))
    }
}

impl ObjectUpload {
    /// Bytes that have come from the client.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the last byte has come from the client.
    pub(crate) fn is_received(&self) -> bool {
        self.verified.is_some()
    }

    /// What was verified of the body, once all of it has been.
    pub(crate) fn verified(&self) -> Option<&Verified> {
        self.verified.as_ref()
    }

    /// Why it did not reach its end, if it did not.
    pub(crate) fn failure(&self) -> Option<UploadFailure> {
        self.failure
    }

    /// Whether the last byte has been handed over, and so every check has passed.
    pub(crate) fn is_sent(&self) -> bool {
        self.state == UploadState::Sent
    }

    /// The next bytes that may go on; the last of them, and `verified` with them, once every check of
    /// the whole body has passed. Empty only for an object without bytes.
    fn poll_checked(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, UploadFailure>> {
        loop {
            if let Some(shaper) = &mut self.shaper
                && ready!(shaper.poll_wait(cx))
            {
                self.pace.rest();
            }
            if let Some(bytes) = self.intake.push(&mut self.input)? {
                self.received += bytes.len() as u64;
                return Poll::Ready(Ok(bytes));
            }
            // A stream must end where its length says, before anything is taken to be whole.
            if self.intake.is_complete() && !self.source.is_stream() {
                return Poll::Ready(self.finish());
            }
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.input = frame.into_data().unwrap_or_default();
                    self.source.took_of_body(self.input.len());
                    if let Some(shaper) = &mut self.shaper {
                        shaper.moved(self.input.len());
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(UploadFailure::ClientGone)),
                Poll::Ready(None) => return Poll::Ready(self.finish()),
                Poll::Pending => {
                    return self
                        .pace
                        .poll_too_slow(cx, Side::Source, self.source.read())
                        .map(|()| Err(UploadFailure::ClientSlow));
                }
            }
        }
    }

    /// Ends the body: its last bytes, now that everything held.
    fn finish(&mut self) -> Result<Bytes, UploadFailure> {
        let (last, verified) = self.intake.finish()?;
        self.received += last.len() as u64;
        self.verified = Some(verified);
        Ok(last)
    }

    /// The next bytes for the upstream connection, none while it cannot take more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFailure>>> {
        if let Some(failure) = self.failure {
            return Poll::Ready(Some(Err(failure)));
        }
        if self.state == UploadState::Sent {
            return Poll::Ready(None);
        }
        if let Some(sink) = &self.sink
            && sink.is_blocked()
        {
            let slow = self.pace.poll_too_slow(cx, Side::Sink, sink.written());
            return slow.map(|()| Some(Err(self.fail(UploadFailure::UpstreamSlow))));
        }
        let bytes = match self.first.take() {
            Some(first) => first,
            None => match ready!(self.poll_checked(cx)) {
                Ok(bytes) => bytes,
                Err(failure) => return Poll::Ready(Some(Err(self.fail(failure)))),
            },
        };
        self.state = if self.verified.is_some() {
            UploadState::Sent
        } else {
            UploadState::Sending
        };
        Poll::Ready(Some(Ok(bytes)))
    }

    fn fail(&mut self, failure: UploadFailure) -> UploadFailure {
        self.failure = Some(failure);
        failure
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFailure>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Upload(upload) => upload
                .borrow_mut()
                .poll_next(cx)
                .map(|next| next.map(|r| r.map(Frame::data))),
            Self::Whole(bytes) => Poll::Ready(take_whole(bytes)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => {
                let upload = upload.borrow();
                upload.is_sent() && upload.failure.is_none()
            }
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

impl fmt::Display for UploadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientGone => "the client's connection ended before the body was whole",
            Self::ClientSlow => "the client sent its body too slowly",
            Self::Payload(error) => return error.fmt(f),
            Self::UpstreamSlow => "COS took the body too slowly",
        })
    }
}

impl std::error::Error for UploadFailure {}

impl From<PayloadError> for UploadFailure {
    fn from(error: PayloadError) -> Self {
        Self::Payload(error)
    }
}

impl From<UploadFailure> for S3Error {
    fn from(failure: UploadFailure) -> Self {
        match failure {
            UploadFailure::ClientGone => Self::new(
                Code::IncompleteBody,
                "The connection ended before the number of bytes in Content-Length had arrived. Nothing was stored.",
            ),
            UploadFailure::ClientSlow => Self::new(
                Code::RequestTimeout,
                "The body did not arrive within the timeout period. Nothing was stored.",
            ),
            UploadFailure::Payload(error) => error.into(),
            UploadFailure::UpstreamSlow => Self::new(
                Code::GatewayTimeout,
                "The store read the body too slowly. Nothing was stored; send it again.",
            )
            .fault(Fault::Upstream),
        }
        .close()
    }
}
