//! Upload forms and request bodies: bodies are generated while they are sent.

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::content::Content;
use super::quantity::{as_text, weighted};
use crate::encoding::hex::{hex, push_hex};
use crate::payload::ChunkSignatures;
use crate::payload::checksum::Digest;
use crate::s3::checksum_name::Algorithm;

/// The framing, signature and checksum of an upload's body: `chunked-trailer/crc32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadForm {
    /// What `x-amz-content-sha256` says.
    pub framing: UploadFraming,
    /// The checksum, in a header or in a trailer.
    pub checksum: Option<UploadChecksum>,
}

/// The value of `x-amz-content-sha256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadFraming {
    /// Its SHA-256.
    Signed,
    /// `UNSIGNED-PAYLOAD`
    Unsigned,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`
    Chunked,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`
    ChunkedTrailer,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`
    UnsignedTrailer,
}

/// A checksum of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadChecksum {
    /// `Content-MD5`
    ContentMd5,
    /// `x-amz-checksum-*`
    Named(Algorithm),
}

/// Forms by weight: `signed=1,unsigned-trailer/crc32=2`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct UploadForms(Vec<(UploadForm, f64)>);

/// Bytes of content in one chunk.
const CHUNK: usize = 64 * 1024;
const CHUNK_SIGNATURE: &str = ";chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature:";
const SIGNATURE_DIGITS: u64 = 64;

impl UploadFraming {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Signed, "signed", ""),
        (Self::Unsigned, "unsigned", "UNSIGNED-PAYLOAD"),
        (
            Self::Chunked,
            "chunked",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        ),
        (
            Self::ChunkedTrailer,
            "chunked-trailer",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        ),
        (
            Self::UnsignedTrailer,
            "unsigned-trailer",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ),
    ];

    /// The value of `x-amz-content-sha256`; empty where it is the hash itself.
    pub(super) fn declared(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(framing, ..)| *framing == self)
            .map_or("", |(.., declared)| declared)
    }

    fn name(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(framing, ..)| *framing == self)
            .map_or("", |(_, name, _)| name)
    }

    /// Whether the body is `aws-chunked`.
    pub(super) fn is_chunked(self) -> bool {
        !matches!(self, Self::Signed | Self::Unsigned)
    }

    /// Whether the checksum is a trailer.
    pub(super) fn has_trailer(self) -> bool {
        matches!(self, Self::ChunkedTrailer | Self::UnsignedTrailer)
    }

    /// Whether each chunk is signed.
    pub(super) fn signs_chunks(self) -> bool {
        matches!(self, Self::Chunked | Self::ChunkedTrailer)
    }
}

impl UploadForms {
    /// The form at `point` (0 to 1) of the cumulative weights.
    pub(super) fn at(&self, point: f64) -> UploadForm {
        let total: f64 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = point * total;
        let found = self.0.iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        found.map_or(UploadForm::SIGNED, |(form, _)| *form)
    }
}

impl UploadForm {
    /// A form with the hash in the signature and no other checksum.
    pub(super) const SIGNED: Self = Self {
        framing: UploadFraming::Signed,
        checksum: None,
    };
}

impl FromStr for UploadForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, checksum) = match text.split_once('/') {
            Some((name, checksum)) => (name, Some(checksum)),
            None => (text, None),
        };
        let known = UploadFraming::ALL
            .into_iter()
            .find(|(_, known, _)| *known == name);
        let (framing, ..) = known.ok_or_else(|| {
            let names = UploadFraming::ALL.map(|(_, name, _)| name).join(", ");
            format!("`{name}` is not a form of an upload; choose from {names}")
        })?;
        let checksum = match checksum {
            None if framing.has_trailer() => Some(UploadChecksum::Named(Algorithm::Crc32)),
            None => None,
            Some("content-md5") if framing.has_trailer() => {
                return Err("content-md5 cannot be a trailer; choose an x-amz-checksum".to_owned());
            }
            Some("content-md5") => Some(UploadChecksum::ContentMd5),
            Some(name) => Some(UploadChecksum::Named(Algorithm::named(name).ok_or_else(
                || {
                    format!(
                        "`{name}` is not a checksum; choose content-md5 or one of {}",
                        Algorithm::list().to_lowercase()
                    )
                },
            )?)),
        };
        Ok(Self { framing, checksum })
    }
}

impl fmt::Display for UploadForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.framing.name())?;
        match self.checksum {
            None => Ok(()),
            Some(UploadChecksum::ContentMd5) => f.write_str("/content-md5"),
            Some(UploadChecksum::Named(algorithm)) => {
                write!(f, "/{}", algorithm.name().to_lowercase())
            }
        }
    }
}

impl Default for UploadForms {
    fn default() -> Self {
        Self(vec![(UploadForm::SIGNED, 1.0)])
    }
}

impl FromStr for UploadForms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        weighted(text, '=').map(Self)
    }
}

impl fmt::Display for UploadForms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (form, weight)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{form}={weight}")?;
        }
        Ok(())
    }
}

as_text!(UploadForms);

/// A part of a content: the bytes `from` to before `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    /// The whole content.
    pub(super) content: Content,
    /// The first byte.
    pub(super) from: u64,
    /// The byte after the last.
    pub(super) to: u64,
}

impl Slice {
    /// The whole content as a slice.
    pub(super) fn whole(content: Content) -> Self {
        Self {
            content,
            from: 0,
            to: content.length,
        }
    }

    /// The number of bytes.
    pub(super) fn length(&self) -> u64 {
        self.to - self.from
    }

    /// Its SHA-256 in hex.
    pub(super) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.each_piece(|piece| hash.update(piece));
        hex(&hash.finalize())
    }

    /// A checksum of it.
    pub(super) fn checksum(&self, algorithm: Algorithm) -> String {
        let mut digest = Digest::new(algorithm);
        self.each_piece(|piece| digest.update(piece));
        digest.value()
    }

    fn each_piece(&self, mut take: impl FnMut(&[u8])) {
        let mut rest = *self;
        while let Some(piece) = rest.next_piece() {
            take(&piece);
        }
    }

    /// The next bytes, up to one chunk.
    fn next_piece(&mut self) -> Option<Vec<u8>> {
        if self.from >= self.to {
            return None;
        }
        let length = usize::try_from(self.length()).unwrap_or(CHUNK).min(CHUNK);
        let piece = self.content.bytes(self.from, length);
        self.from += length as u64;
        Some(piece)
    }
}

/// The body of a request.
#[derive(Debug)]
pub(super) enum UploadBody {
    /// A document, or nothing.
    Bytes(Bytes),
    /// Generated content.
    Generated(Box<Generated>),
}

/// Content that is generated while it is sent.
#[derive(Debug)]
pub(super) struct Generated {
    before: Bytes,
    slice: Slice,
    chunking: Option<Chunking>,
    after: Bytes,
    left: u64,
}

/// The framing of an `aws-chunked` body.
#[derive(Debug)]
pub(super) struct Chunking {
    signatures: Option<ChunkSignatures>,
    trailer: Option<(Algorithm, Digest)>,
    has_ended: bool,
}

impl UploadBody {
    /// The content as it is.
    pub(super) fn plain(slice: Slice) -> Self {
        Self::surrounded(Bytes::new(), slice, Bytes::new())
    }

    /// The content between other bytes, as the file of a form.
    pub(super) fn surrounded(before: Bytes, slice: Slice, after: Bytes) -> Self {
        Self::Generated(Box::new(Generated {
            left: before.len() as u64 + slice.length() + after.len() as u64,
            before,
            slice,
            chunking: None,
            after,
        }))
    }

    /// The content as `aws-chunked`.
    pub(super) fn chunked(slice: Slice, chunking: Chunking) -> Self {
        Self::Generated(Box::new(Generated {
            before: Bytes::new(),
            slice,
            left: chunking.length(slice.length()),
            chunking: Some(chunking),
            after: Bytes::new(),
        }))
    }

    /// The number of bytes on the wire.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Generated(generated) => generated.left,
        }
    }
}

impl Chunking {
    /// With `signatures` if chunks are signed, and with `trailer` if a checksum follows.
    pub(super) fn new(signatures: Option<ChunkSignatures>, trailer: Option<Algorithm>) -> Self {
        Self {
            signatures,
            trailer: trailer.map(|algorithm| (algorithm, Digest::new(algorithm))),
            has_ended: false,
        }
    }

    /// The bytes on the wire for `length` bytes of content.
    fn length(&self, content: u64) -> u64 {
        let signature = match self.signatures {
            None => 0,
            Some(_) => CHUNK_SIGNATURE.len() as u64 + SIGNATURE_DIGITS,
        };
        let framed = |size: u64| format!("{size:x}").len() as u64 + signature + 2 + size + 2;
        let (whole, rest) = (content / CHUNK as u64, content % CHUNK as u64);
        let mut length = whole * framed(CHUNK as u64);
        if rest > 0 {
            length += framed(rest);
        }
        length += 1 + signature + 2; // the last chunk, which is empty
        if let Some((algorithm, digest)) = &self.trailer {
            length += (algorithm.header().len() + 1 + digest.value().len() + 2) as u64;
            if self.signatures.is_some() {
                length += TRAILER_SIGNATURE.len() as u64 + SIGNATURE_DIGITS + 2;
            }
        }
        length + 2
    }

    /// A framed chunk.
    fn frame(&mut self, data: &[u8]) -> Bytes {
        let mut head = format!("{:x}", data.len());
        self.push_signature(&mut head, data);
        head.push_str("\r\n");
        if let Some((_, digest)) = &mut self.trailer {
            digest.update(data);
        }
        let mut out = Vec::with_capacity(head.len() + data.len() + 2);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
        out.into()
    }

    /// The empty chunk and the trailer.
    fn end(&mut self) -> Bytes {
        self.has_ended = true;
        let mut out = "0".to_owned();
        self.push_signature(&mut out, b"");
        out.push_str("\r\n");
        if let Some((algorithm, digest)) = &self.trailer {
            let (name, value) = (algorithm.header(), digest.value());
            // Writing to a String cannot fail.
            let _ = write!(out, "{name}:{value}\r\n");
            if let Some(signatures) = &self.signatures {
                out.push_str(TRAILER_SIGNATURE);
                push_hex(
                    &mut out,
                    &signatures.sign_trailer(&format!("{name}:{value}\n")),
                );
                out.push_str("\r\n");
            }
        }
        out.push_str("\r\n");
        out.into()
    }

    fn push_signature(&mut self, out: &mut String, data: &[u8]) {
        if let Some(signatures) = &mut self.signatures {
            out.push_str(CHUNK_SIGNATURE);
            push_hex(out, &signatures.sign_chunk(data));
        }
    }
}

impl Generated {
    fn next(&mut self) -> Option<Bytes> {
        if !self.before.is_empty() {
            return Some(std::mem::take(&mut self.before));
        }
        if let Some(piece) = self.slice.next_piece() {
            return Some(match &mut self.chunking {
                None => piece.into(),
                Some(chunking) => chunking.frame(&piece),
            });
        }
        if let Some(chunking) = &mut self.chunking
            && !chunking.has_ended
        {
            return Some(chunking.end());
        }
        (!self.after.is_empty()).then(|| std::mem::take(&mut self.after))
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Bytes(bytes) if bytes.is_empty() => None,
            Self::Bytes(bytes) => Some(std::mem::take(bytes)),
            Self::Generated(generated) => generated.next().inspect(|data| {
                generated.left = generated.left.saturating_sub(data.len() as u64);
            }),
        };
        Poll::Ready(next.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::sign::sigv4::{CredentialScope, SigningKey};

    fn sent(mut body: UploadBody) -> Vec<u8> {
        let UploadBody::Generated(generated) = &mut body else {
            panic!()
        };
        let mut all = Vec::new();
        while let Some(data) = generated.next() {
            all.extend_from_slice(&data);
        }
        all
    }

    #[test]
    fn every_form_knows_its_length_before_sending() {
        let key = || SigningKey::derive(&Secret::new("s"), "20260115", "r", "s3");
        let scope = CredentialScope {
            date: "20260115",
            region: "r",
            service: "s3",
        };
        for length in [0, 1, CHUNK as u64 - 1, CHUNK as u64, CHUNK as u64 * 2 + 77] {
            for trailer in [None, Some(Algorithm::Crc32), Some(Algorithm::Sha512)] {
                for is_signed in [false, true] {
                    let signatures = is_signed
                        .then(|| ChunkSignatures::new(key(), "20260115T000000Z", &scope, [7; 32]));
                    let slice = Slice::whole(Content::new(1, length));
                    let body = UploadBody::chunked(slice, Chunking::new(signatures, trailer));
                    let declared = body.length();
                    assert_eq!(
                        sent(body).len() as u64,
                        declared,
                        "{length} {trailer:?} {is_signed}"
                    );
                }
            }
        }
    }

    #[test]
    fn writes_forms_as_it_reads_them() {
        let text = "signed=1,chunked-trailer/crc32=2,unsigned/sha256=1,signed/content-md5=1";
        assert_eq!(text.parse::<UploadForms>().unwrap().to_string(), text);
        let default: UploadForm = "unsigned-trailer".parse().unwrap();
        assert_eq!(default.to_string(), "unsigned-trailer/crc32");
        for text in ["", "loud", "signed/crc", "chunked-trailer/content-md5"] {
            assert!(text.parse::<UploadForm>().is_err(), "{text}");
        }
    }

    #[test]
    fn slice_has_the_hash_of_its_bytes() {
        let content = Content::new(9, 200_000);
        let slice = Slice {
            content,
            from: 70_000,
            to: 199_999,
        };
        let bytes = content.bytes(70_000, 129_999);
        assert_eq!(slice.sha256(), crate::encoding::hex::sha256_hex(&bytes));
        assert_eq!(sent(UploadBody::plain(slice)), bytes);
    }
}
