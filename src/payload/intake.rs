//! [`Intake`]: an object's body from the client's bytes to those that may go on.

use bytes::{Bytes, BytesMut};

use super::checksum::{Checks, Verified};
use super::chunked::Decoder;
use super::{ChunkSignatures, Declared, FormFile, Framing, HoldBack, Mode, PayloadError};
use crate::error::{Code, S3Error};
use crate::s3::checksum_name::ChecksumName;

/// Pieces below this many bytes are put together before they go on: some clients make a chunk of each
/// of their few-byte writes, and each piece is a write to COS.
const SMALL: usize = 4096;

/// Decodes one body, checks it, and keeps back its end until everything held.
///
/// Feed it with [`Intake::push`] until the body ends, then call [`Intake::finish`]. Whoever sends
/// on what `push` gives has sent less than the object before `finish` has given the rest.
#[derive(Debug)]
pub struct Intake {
    framing: Unframed,
    checks: Checks,
    hold: HoldBack,
}

/// How the object's bytes come out of the body. Boxed, so that a plain one is not moved around with
/// room for what it does not have.
#[derive(Debug)]
enum Unframed {
    Chunked(Box<Decoder>),
    Form(Box<FormFile>),
    Plain,
}

impl Intake {
    /// For a body of `length` bytes, framing apart, as `declared`. `signatures` is the chain of a caller
    /// who signed; a mode with signed chunks cannot be without.
    pub fn new(
        declared: &Declared,
        length: u64,
        checks: Checks,
        signatures: Option<ChunkSignatures>,
    ) -> Result<Self, S3Error> {
        let trailer = declared.trailer.as_ref().map(ChecksumName::as_str);
        let framing = match (declared.framing, declared.mode, signatures) {
            (Framing::Plain, ..) => Unframed::Plain,
            (_, Mode::StreamingSigned, Some(chain)) => {
                Unframed::Chunked(Box::new(Decoder::signed(length, chain)))
            }
            (_, Mode::StreamingSignedTrailer, Some(chain)) => Unframed::Chunked(Box::new(
                Decoder::signed_with_trailer(length, chain, trailer),
            )),
            (_, Mode::StreamingSigned | Mode::StreamingSignedTrailer, None) => {
                return Err(unsigned_chunks());
            }
            (_, Mode::Sha256(_) | Mode::StreamingUnsignedTrailer | Mode::Unsigned, _) => {
                Unframed::Chunked(Box::new(Decoder::unsigned(length, trailer)))
            }
        };
        Ok(Self {
            framing,
            checks,
            hold: HoldBack::new(length),
        })
    }

    /// For the file of a form.
    pub fn of_form(file: FormFile, checks: Checks) -> Self {
        Self {
            hold: HoldBack::new(file.length()),
            framing: Unframed::Form(Box::new(file)),
            checks,
        }
    }

    /// Takes bytes off the front of `input`, and gives the next ones that may go on: never none of
    /// them. `None` once `input` is used up.
    pub fn push(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, PayloadError> {
        let mut gathered = BytesMut::new();
        while let Some(decoded) = self.decode(input)? {
            self.checks.update(&decoded);
            let passed = self.hold.push(decoded)?;
            if gathered.is_empty() && (passed.len() >= SMALL || input.is_empty()) {
                return Ok((!passed.is_empty()).then_some(passed));
            }
            gathered.extend_from_slice(&passed);
            if gathered.len() >= SMALL {
                break;
            }
        }
        Ok((!gathered.is_empty()).then(|| gathered.freeze()))
    }

    /// Whether the body needs no more bytes: a plain one whose length is reached. Any other ends
    /// only where HTTP says so.
    pub fn is_complete(&self) -> bool {
        matches!(self.framing, Unframed::Plain) && self.hold.is_complete()
    }

    /// Ends the body: runs every check, and only then gives the bytes that were kept back.
    pub fn finish(&mut self) -> Result<(Bytes, Verified), PayloadError> {
        let trailer = match &mut self.framing {
            Unframed::Chunked(decoder) => decoder.finish()?,
            Unframed::Form(file) => {
                file.finish()?;
                None
            }
            Unframed::Plain => None,
        };
        if !self.hold.is_complete() {
            return Err(PayloadError::LengthShort);
        }
        let verified = self.checks.finish(trailer.as_deref())?;
        Ok((self.hold.release()?, verified))
    }

    fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, PayloadError> {
        match &mut self.framing {
            Unframed::Chunked(decoder) => decoder.decode(input),
            Unframed::Form(file) => file.decode(input),
            Unframed::Plain => Ok((!input.is_empty()).then(|| std::mem::take(input))),
        }
    }
}

/// The refusal of signed chunks from a caller who has not signed the head.
pub(crate) fn unsigned_chunks() -> S3Error {
    S3Error::new(
        Code::InvalidRequest,
        "A STREAMING-AWS4-HMAC-SHA256-… body has signed chunks, so its request must be signed too",
    )
}
