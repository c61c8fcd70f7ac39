//! Takes `aws-chunked` framing off a body: `size[;chunk-signature=…]\r\n`, data, `\r\n`, … a chunk of
//! no bytes, and the trailer.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>

use bytes::Bytes;
use memchr::memchr;

use super::trailer::{self, ExpectedTrailer};
use super::{ChunkSignatures, PayloadError};
use crate::encoding::hex::parse_hex32;

/// The longest head of a chunk, in bytes. A signed one has about 90.
pub const MAX_HEAD: usize = 1024;
/// The largest signed chunk, in bytes: its signature can be checked only at its end. Unsigned chunks
/// need no limit of their own; some SDKs send a whole object as one.
pub const MAX_SIGNED_CHUNK: u64 = 16 * 1024 * 1024;
/// The longest trailer, in bytes. A real one has about 200.
pub const MAX_TRAILER: usize = 8 * 1024;
/// Hex digits of a chunk's size: as many as a `u64` has.
const MAX_SIZE_DIGITS: usize = 16;
const CHUNK_SIGNATURE: &[u8] = b"chunk-signature=";

/// Decodes one body, piece by piece. No byte is copied but those of heads that are split between two
/// pieces, and the trailer.
///
/// Signed chunks under 8 KiB are taken, though S3 takes only a last one: every chunk is checked in any
/// case, COS never sees the framing, and an upload that is right is stored.
#[derive(Debug)]
pub struct Decoder {
    state: ChunkState,
    /// Decoded bytes that are still to come.
    left: u64,
    /// A head or the trailer, as far as it has come.
    text: Vec<u8>,
    signatures: Option<ChunkSignatures>,
    trailer: Option<String>,
    signed_trailer: bool,
    failure: Option<PayloadError>,
}

#[derive(Clone, Copy, Debug)]
enum ChunkState {
    Head,
    Data {
        left: u64,
        signature: Option<[u8; 32]>,
    },
    /// The line end after the data; whether its CR is past.
    DataEnd {
        cr: bool,
    },
    Trailer,
}

/// One chunk's head.
#[derive(Clone, Copy, Debug)]
struct Head {
    size: u64,
    signature: Option<[u8; 32]>,
}

impl Decoder {
    /// For a body of unsigned chunks that hold `length` bytes, with the trailer that `x-amz-trailer`
    /// names (lower case), if any.
    pub fn unsigned(length: u64, trailer: Option<&str>) -> Self {
        Self {
            state: ChunkState::Head,
            left: length,
            text: Vec::new(),
            signatures: None,
            trailer: trailer.map(str::to_owned),
            signed_trailer: false,
            failure: None,
        }
    }

    /// For a body of signed chunks that hold `length` bytes, without a trailer.
    pub fn signed(length: u64, signatures: ChunkSignatures) -> Self {
        Self {
            signatures: Some(signatures),
            ..Self::unsigned(length, None)
        }
    }

    /// For a body of signed chunks that hold `length` bytes, with a signed trailer.
    pub fn signed_with_trailer(
        length: u64,
        signatures: ChunkSignatures,
        trailer: Option<&str>,
    ) -> Self {
        Self {
            signatures: Some(signatures),
            signed_trailer: true,
            ..Self::unsigned(length, trailer)
        }
    }

    /// Takes bytes off the front of `input`, and gives the next decoded ones: never none of them.
    /// `None` once `input` is used up. After an error, every call gives the same error.
    ///
    /// The last bytes of a chunk come out only when its signature is right, but those before them come
    /// out unchecked.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, PayloadError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let decoded = self.advance(input);
        self.failure = decoded.as_ref().err().copied();
        decoded
    }

    /// Ends the body: gives the value of the announced trailer.
    pub fn finish(&mut self) -> Result<Option<String>, PayloadError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if !matches!(self.state, ChunkState::Trailer) {
            return Err(PayloadError::Incomplete);
        }
        let expected = ExpectedTrailer {
            name: self.trailer.as_deref(),
            signatures: self.signatures.as_ref().filter(|_| self.signed_trailer),
        };
        trailer::parse(&self.text, expected)
    }

    fn advance(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, PayloadError> {
        while !input.is_empty() {
            match self.state {
                ChunkState::Head => self.read_head(input)?,
                ChunkState::Data { left, signature } => {
                    return self.read_data(input, left, signature).map(Some);
                }
                ChunkState::DataEnd { cr } => self.read_data_end(input, cr)?,
                ChunkState::Trailer => self.read_trailer(input)?,
            }
        }
        Ok(None)
    }

    fn read_head(&mut self, input: &mut Bytes) -> Result<(), PayloadError> {
        let end = memchr(b'\n', input);
        let line = input.split_to(end.map_or(input.len(), |at| at + 1));
        if self.text.len() + line.len() > MAX_HEAD {
            return Err(PayloadError::ChunkHeadTooLong);
        }
        let signed = self.signatures.is_some();
        if end.is_some() && self.text.is_empty() {
            return self.begin_chunk(Head::parse(&line, signed)?);
        }
        self.text.extend_from_slice(&line);
        if end.is_none() {
            return Ok(());
        }
        let head = Head::parse(&self.text, signed)?;
        self.text.clear();
        self.begin_chunk(head)
    }

    fn begin_chunk(&mut self, head: Head) -> Result<(), PayloadError> {
        let Head { size, signature } = head;
        if size == 0 {
            if let (Some(signatures), Some(signature)) = (&mut self.signatures, &signature) {
                signatures.end_chunk(signature)?;
            }
            if self.left > 0 {
                return Err(PayloadError::LengthShort);
            }
            self.state = ChunkState::Trailer;
            return Ok(());
        }
        if signature.is_some() && size > MAX_SIGNED_CHUNK {
            return Err(PayloadError::ChunkTooLarge);
        }
        self.left = self
            .left
            .checked_sub(size)
            .ok_or(PayloadError::LengthExceeded)?;
        self.state = ChunkState::Data {
            left: size,
            signature,
        };
        Ok(())
    }

    fn read_data(
        &mut self,
        input: &mut Bytes,
        left: u64,
        signature: Option<[u8; 32]>,
    ) -> Result<Bytes, PayloadError> {
        let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let data = input.split_to(here);
        let left = left - here as u64;
        if let Some(signatures) = &mut self.signatures {
            signatures.update(&data);
        }
        if left > 0 {
            self.state = ChunkState::Data { left, signature };
            return Ok(data);
        }
        if let (Some(signatures), Some(signature)) = (&mut self.signatures, &signature) {
            signatures.end_chunk(signature)?;
        }
        self.state = ChunkState::DataEnd { cr: false };
        Ok(data)
    }

    fn read_data_end(&mut self, input: &mut Bytes, cr: bool) -> Result<(), PayloadError> {
        let byte = input.split_to(1);
        self.state = match (&*byte, cr) {
            (b"\r", false) => ChunkState::DataEnd { cr: true },
            (b"\n", true) => ChunkState::Head,
            _ => return Err(PayloadError::ChunkMalformed),
        };
        Ok(())
    }

    fn read_trailer(&mut self, input: &mut Bytes) -> Result<(), PayloadError> {
        let more = std::mem::take(input);
        if self.text.len() + more.len() > MAX_TRAILER {
            return Err(PayloadError::TrailerTooLong);
        }
        self.text.extend_from_slice(&more);
        Ok(())
    }
}

impl Head {
    /// Reads a whole line. A signed chunk has its signature and nothing else; an unsigned one may have
    /// any extension.
    fn parse(line: &[u8], signed: bool) -> Result<Self, PayloadError> {
        let line = line
            .strip_suffix(b"\r\n")
            .ok_or(PayloadError::ChunkMalformed)?;
        let (size, extension) = match memchr(b';', line) {
            None => (line, None),
            Some(at) => {
                let (size, rest) = line.split_at(at);
                (size, rest.strip_prefix(b";"))
            }
        };
        let size = parse_size(size).ok_or(PayloadError::ChunkMalformed)?;
        if !signed {
            return Ok(Self {
                size,
                signature: None,
            });
        }
        let signature = extension
            .and_then(|extension| extension.strip_prefix(CHUNK_SIGNATURE))
            .and_then(|hex| str::from_utf8(hex).ok())
            .and_then(parse_hex32)
            .ok_or(PayloadError::ChunkMalformed)?;
        Ok(Self {
            size,
            signature: Some(signature),
        })
    }
}

/// Hex digits of either case and nothing else: `from_str_radix` would take a sign.
fn parse_size(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_SIZE_DIGITS {
        return None;
    }
    digits.iter().try_fold(0_u64, |size, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(size << 4 | u64::from(digit))
    })
}
