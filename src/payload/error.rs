//! [`PayloadError`]: at which check a body failed.

use std::borrow::Cow;
use std::fmt;

use super::chunked::MAX_SIGNED_CHUNK;
use crate::error::{Code, S3Error};
use crate::s3::checksum_name::Algorithm;

/// Why a body is refused. Nothing of it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// The value of a checksum trailer is not one of its algorithm.
    ChecksumMalformed(Algorithm),
    /// The body does not have the checksum that the header or trailer names.
    ChecksumMismatch(Algorithm),
    /// A chunk's head is longer than [`super::chunked::MAX_HEAD`].
    ChunkHeadTooLong,
    /// The framing is broken: a size that is no hexadecimal number, no signature, no line end.
    ChunkMalformed,
    /// A chunk does not have the signature in its head.
    ChunkSignature,
    /// A signed chunk is longer than [`MAX_SIGNED_CHUNK`].
    ChunkTooLarge,
    /// A form does not end right after its file, or its file has a boundary in it.
    FormEnd,
    /// The body ended early: in a chunk, before the last chunk, or before the trailer's end.
    Incomplete,
    /// More bytes came than the head announced.
    LengthExceeded,
    /// Fewer bytes came than the head announced.
    LengthShort,
    /// The body does not have the MD5 of `Content-MD5`.
    Md5Mismatch,
    /// The body does not have the SHA-256 of `x-amz-content-sha256`.
    Sha256Mismatch,
    /// What follows the last chunk is not `name:value` lines and an empty line.
    TrailerMalformed,
    /// The trailer that `x-amz-trailer` announced did not come.
    TrailerMissing,
    /// The trailer does not have its signature.
    TrailerSignature,
    /// A signed trailer came without its signature.
    TrailerSignatureMissing,
    /// The trailer is longer than [`super::chunked::MAX_TRAILER`].
    TrailerTooLong,
    /// A trailer came that `x-amz-trailer` did not announce.
    TrailerUnexpected,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChecksumMalformed(algorithm) => {
                write!(f, "the trailer's {} is not one", algorithm.name())
            }
            Self::ChecksumMismatch(algorithm) => {
                write!(f, "the body does not have the given {}", algorithm.name())
            }
            Self::ChunkHeadTooLong => f.write_str("a chunk's head is too long"),
            Self::ChunkMalformed => f.write_str("the aws-chunked framing is broken"),
            Self::ChunkSignature => f.write_str("a chunk does not have its signature"),
            Self::ChunkTooLarge => f.write_str("a signed chunk is too large"),
            Self::FormEnd => f.write_str("the form does not end where its file's end must be"),
            Self::Incomplete => f.write_str("the aws-chunked body ended early"),
            Self::LengthExceeded => f.write_str("the body is longer than announced"),
            Self::LengthShort => f.write_str("the body is shorter than announced"),
            Self::Md5Mismatch => f.write_str("the body does not have the given MD5"),
            Self::Sha256Mismatch => {
                f.write_str("the body does not have the SHA-256 that was signed")
            }
            Self::TrailerMalformed => f.write_str("the trailer is not well-formed"),
            Self::TrailerMissing => f.write_str("the announced trailer is missing"),
            Self::TrailerSignature => f.write_str("the trailer does not have its signature"),
            Self::TrailerSignatureMissing => f.write_str("the trailer has no signature"),
            Self::TrailerTooLong => f.write_str("the trailer is too long"),
            Self::TrailerUnexpected => f.write_str("a trailer was not announced"),
        }
    }
}

impl std::error::Error for PayloadError {}

impl From<PayloadError> for S3Error {
    /// AWS's codes, and its sentences with what helps added.
    fn from(error: PayloadError) -> Self {
        Self::new(error.code(), error.sentence())
            .detail(error.to_string())
            .close()
    }
}

impl PayloadError {
    fn code(self) -> Code {
        match self {
            Self::ChecksumMalformed(_) => Code::InvalidRequest,
            Self::ChecksumMismatch(_) | Self::Md5Mismatch => Code::BadDigest,
            Self::ChunkHeadTooLong
            | Self::ChunkMalformed
            | Self::Incomplete
            | Self::LengthExceeded
            | Self::LengthShort => Code::IncompleteBody,
            Self::ChunkSignature | Self::TrailerSignature => Code::SignatureDoesNotMatch,
            Self::ChunkTooLarge => Code::InvalidChunkSizeError,
            Self::FormEnd => Code::MalformedPOSTRequest,
            Self::Sha256Mismatch => Code::XAmzContentSHA256Mismatch,
            Self::TrailerMalformed
            | Self::TrailerMissing
            | Self::TrailerSignatureMissing
            | Self::TrailerTooLong
            | Self::TrailerUnexpected => Code::MalformedTrailerError,
        }
    }

    /// The text that the client reads.
    fn sentence(self) -> Cow<'static, str> {
        let text = match self {
            Self::ChecksumMalformed(algorithm) => {
                let header = algorithm.header();
                return format!("Value for {header} trailing header is invalid.").into();
            }
            Self::ChecksumMismatch(algorithm) => {
                let name = algorithm.name();
                return format!(
                    "The {name} you specified did not match the calculated checksum. Nothing was stored."
                )
                .into();
            }
            Self::ChunkHeadTooLong | Self::ChunkMalformed => {
                "The request body is not well-formed aws-chunked. Nothing was stored."
            }
            Self::ChunkSignature | Self::TrailerSignature => {
                "The signature of a chunk or of the trailer does not match what was calculated: the \
                 body was changed on its way, or the client signs it wrongly. Nothing was stored."
            }
            Self::ChunkTooLarge => {
                return format!(
                    "A signed chunk may have at most {MAX_SIGNED_CHUNK} bytes: make the client's chunks \
                     smaller. Nothing was stored."
                )
                .into();
            }
            Self::FormEnd => {
                "The body of your POST request is not well-formed multipart/form-data: file must be \
                 the last field, and the form must end right after it with --boundary-- and a line \
                 end. Nothing was stored."
            }
            Self::Incomplete => "The request body terminated unexpectedly. Nothing was stored.",
            Self::LengthExceeded | Self::LengthShort => {
                "The body does not have the number of bytes that the header \
                 x-amz-decoded-content-length or Content-Length declares. Nothing was stored."
            }
            Self::Md5Mismatch => {
                "The Content-MD5 you specified did not match what we received. Nothing was stored."
            }
            Self::Sha256Mismatch => {
                "The provided 'x-amz-content-sha256' header does not match what was computed. Nothing \
                 was stored."
            }
            Self::TrailerMalformed
            | Self::TrailerMissing
            | Self::TrailerSignatureMissing
            | Self::TrailerTooLong
            | Self::TrailerUnexpected => {
                "The request contained trailing data that was not well-formed or did not conform to \
                 our published schema. Nothing was stored."
            }
        };
        Cow::Borrowed(text)
    }
}
