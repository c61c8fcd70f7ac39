//! The body as the head declares it: its mode, its framing and its length.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::encoding::hex::parse_hex32;
use crate::error::{Code, S3Error};
use crate::s3::checksum_name::ChecksumName;
use crate::s3::headers::strip_aws_chunked;
use crate::sign::sigv4::UNSIGNED_PAYLOAD;

const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");
/// As much of a stranger's text as an error repeats.
const ECHO: usize = 64;

/// What `x-amz-content-sha256` says.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The SHA-256 of the body.
    Sha256([u8; 32]),
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`: every chunk has a signature.
    StreamingSigned,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`: every chunk has one, and so has the trailer.
    StreamingSignedTrailer,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`: chunks without signatures, then a checksum.
    StreamingUnsignedTrailer,
    /// `UNSIGNED-PAYLOAD`, or nothing declared (presigned, anonymous).
    Unsigned,
}

/// How the body is framed inside HTTP's own framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// In `aws-chunked` chunks.
    AwsChunked,
    /// Not at all: the body is the object.
    Plain,
}

/// All that a head declares of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// What the signature says of it.
    pub mode: Mode,
    /// How it is framed.
    pub framing: Framing,
    /// The object's length in bytes, without any framing. `None` only for a plain body that came
    /// without `Content-Length`.
    pub length: Option<u64>,
    /// The object's own `Content-Encoding`: without `aws-chunked`.
    pub content_encoding: Option<HeaderValue>,
    /// The checksum that will follow the last chunk.
    pub trailer: Option<ChecksumName>,
}

impl Mode {
    /// Reads the value of `x-amz-content-sha256`.
    pub fn parse(text: &str) -> Result<Self, S3Error> {
        match text {
            UNSIGNED_PAYLOAD => Ok(Self::Unsigned),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Self::StreamingSigned),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Ok(Self::StreamingSignedTrailer),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Self::StreamingUnsignedTrailer),
            _ => parse_hex32(text)
                .map(Self::Sha256)
                .ok_or_else(|| unknown_mode(text)),
        }
    }

    /// Whether every chunk has a signature, so that the caller's signing key is needed.
    pub fn signs_chunks(self) -> bool {
        matches!(self, Self::StreamingSigned | Self::StreamingSignedTrailer)
    }

    /// The SHA-256 that the client signed, if it signed one: COS gets to check it too.
    pub fn sha256(self) -> Option<[u8; 32]> {
        match self {
            Self::Sha256(hash) => Some(hash),
            _ => None,
        }
    }

    fn is_streaming(self) -> bool {
        self.signs_chunks() || self == Self::StreamingUnsignedTrailer
    }
}

impl Declared {
    /// Reads the head of a request whose body is an object or a part.
    ///
    /// Clients leave out one or two of the three signs of `aws-chunked` (minio-go the encoding, the AWS
    /// SDK for Java 2 the mode), so each of them is enough.
    pub fn read(mode: Mode, headers: &HeaderMap) -> Result<Self, S3Error> {
        let (content_encoding, names_it) = strip_aws_chunked(headers)?;
        let decoded = single_length(headers, &DECODED_LENGTH)?;
        let length = single_length(headers, &header::CONTENT_LENGTH)?;
        let framing = if mode.is_streaming() || names_it || decoded.is_some() {
            Framing::AwsChunked
        } else {
            Framing::Plain
        };
        let trailer = announced_trailer(headers, mode, framing)?;
        let length = match framing {
            Framing::AwsChunked => Some(chunked_length(mode, decoded, length)?),
            Framing::Plain => length,
        };
        Ok(Self {
            mode,
            framing,
            length,
            content_encoding,
            trailer,
        })
    }
}

/// A length in decimal digits, given at most once.
fn single_length(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, S3Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let length = value
        .to_str()
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|_| values.next().is_none());
    match length {
        Some(length) => Ok(Some(length)),
        None => Err(S3Error::new(
            Code::InvalidArgument,
            format!("{name} must be one number of bytes, in decimal digits"),
        )),
    }
}

/// The one checksum that `x-amz-trailer` may name.
fn announced_trailer(
    headers: &HeaderMap,
    mode: Mode,
    framing: Framing,
) -> Result<Option<ChecksumName>, S3Error> {
    let mut values = headers.get_all(TRAILER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let has_trailer = match mode {
        Mode::Sha256(_) | Mode::StreamingSigned => false,
        Mode::StreamingSignedTrailer | Mode::StreamingUnsignedTrailer => true,
        Mode::Unsigned => framing == Framing::AwsChunked,
    };
    if !has_trailer {
        return Err(S3Error::new(
            Code::MalformedTrailerError,
            "x-amz-trailer announces a trailer, but this payload mode has none: use a \
             STREAMING-…-TRAILER mode, or send the checksum as a header",
        ));
    }
    let name = value
        .to_str()
        .ok()
        .filter(|_| values.next().is_none())
        .and_then(|name| ChecksumName::parse(&name.trim().to_ascii_lowercase()));
    match name {
        Some(name) => Ok(Some(name)),
        None => Err(S3Error::new(
            Code::InvalidRequest,
            "The value specified in the x-amz-trailer header is not supported: it must be one \
             x-amz-checksum-… name",
        )),
    }
}

/// The length of an object that comes in chunks.
fn chunked_length(mode: Mode, decoded: Option<u64>, encoded: Option<u64>) -> Result<u64, S3Error> {
    if matches!(mode, Mode::Sha256(_)) {
        // Of the framed or of the decoded bytes? No client is known that would show it.
        return Err(S3Error::new(
            Code::InvalidRequest,
            "The body is aws-chunked, but x-amz-content-sha256 is the hash of a plain one: send a \
             STREAMING-… mode, or leave out Content-Encoding: aws-chunked and \
             x-amz-decoded-content-length",
        ));
    }
    let Some(decoded) = decoded else {
        return Err(S3Error::new(
            Code::MissingContentLength,
            "You must provide the x-amz-decoded-content-length HTTP header with an aws-chunked body.",
        ));
    };
    if encoded.is_some_and(|encoded| encoded <= decoded) {
        return Err(S3Error::new(
            Code::IncompleteBody,
            "Content-Length leaves no room for the aws-chunked framing of \
             x-amz-decoded-content-length bytes",
        ));
    }
    Ok(decoded)
}

fn unknown_mode(text: &str) -> S3Error {
    if text.starts_with("STREAMING-AWS4-ECDSA-") {
        return S3Error::new(
            Code::NotImplemented,
            "SigV4A (STREAMING-AWS4-ECDSA-…) is not implemented: let the client sign with SigV4",
        );
    }
    let text: String = text.chars().take(ECHO).collect();
    S3Error::new(
        Code::InvalidArgument,
        format!(
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
             STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a \
             SHA-256 in lower-case hex, not '{text}'"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mode: Mode, pairs: &[(&'static str, &'static str)]) -> Result<Declared, Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Declared::read(mode, &headers).map_err(|error| error.code())
    }

    #[test]
    fn every_mode_is_read_from_its_text() {
        assert_eq!(
            Mode::parse(&"0f".repeat(32)).unwrap(),
            Mode::Sha256([15; 32])
        );
        assert_eq!(Mode::parse("UNSIGNED-PAYLOAD").unwrap(), Mode::Unsigned);
        for (text, code) in [
            ("", Code::InvalidArgument),
            ("unsigned-payload", Code::InvalidArgument),
            ("STREAMING-UNSIGNED-PAYLOAD", Code::InvalidArgument),
            (
                "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
                Code::NotImplemented,
            ),
        ] {
            assert_eq!(Mode::parse(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn each_of_the_three_signs_is_enough() {
        let decoded = ("x-amz-decoded-content-length", "5");
        for (mode, pairs) in [
            (Mode::StreamingSigned, &[decoded][..]),
            (
                Mode::Unsigned,
                &[("content-encoding", "AWS-Chunked"), decoded],
            ),
            (Mode::Unsigned, &[decoded, ("content-length", "10")]),
        ] {
            let declared = read(mode, pairs).unwrap();
            assert_eq!(declared.framing, Framing::AwsChunked, "{pairs:?}");
            assert_eq!(declared.length, Some(5));
        }
        let plain = read(Mode::Unsigned, &[("content-length", "10")]).unwrap();
        assert_eq!((plain.framing, plain.length), (Framing::Plain, Some(10)));
        assert_eq!(read(Mode::Unsigned, &[]).unwrap().length, None);
    }

    #[test]
    fn only_the_token_aws_chunked_leaves_the_content_encoding() {
        for (sent, stored) in [
            ("aws-chunked", None),
            ("aws-chunked,gzip", Some("gzip")),
            ("gzip, aws-chunked", Some("gzip")),
            ("br , Aws-Chunked,gzip", Some("br,gzip")),
            ("gzip", Some("gzip")),
            ("aws-chunked-not, x", Some("aws-chunked-not, x")),
        ] {
            let pairs = [
                ("content-encoding", sent),
                ("x-amz-decoded-content-length", "5"),
            ];
            let declared = read(Mode::Unsigned, &pairs).unwrap();
            let encoding = declared.content_encoding;
            assert_eq!(
                encoding.as_ref().map(|v| v.to_str().unwrap()),
                stored,
                "{sent}"
            );
        }
        let two = [("content-encoding", "gzip"), ("content-encoding", "br")];
        let encoding = read(Mode::Unsigned, &two).unwrap().content_encoding;
        assert_eq!(encoding.unwrap(), "gzip,br");
    }

    #[test]
    fn a_head_that_contradicts_itself_is_refused() {
        let chunked = ("content-encoding", "aws-chunked");
        let decoded = ("x-amz-decoded-content-length", "5");
        let trailer = ("x-amz-trailer", "x-amz-checksum-crc32");
        for (mode, pairs, code) in [
            (
                Mode::StreamingSigned,
                &[chunked][..],
                Code::MissingContentLength,
            ),
            (
                Mode::Sha256([0; 32]),
                &[chunked, decoded],
                Code::InvalidRequest,
            ),
            (
                Mode::StreamingSigned,
                &[decoded, decoded],
                Code::InvalidArgument,
            ),
            (
                Mode::StreamingSigned,
                &[("x-amz-decoded-content-length", "+5")],
                Code::InvalidArgument,
            ),
            (
                Mode::StreamingSigned,
                &[decoded, ("content-length", "5")],
                Code::IncompleteBody,
            ),
            (
                Mode::StreamingSigned,
                &[decoded, trailer],
                Code::MalformedTrailerError,
            ),
            (Mode::Unsigned, &[trailer], Code::MalformedTrailerError),
            (
                Mode::StreamingUnsignedTrailer,
                &[decoded, ("x-amz-trailer", "x-amz-meta-a")],
                Code::InvalidRequest,
            ),
            (
                Mode::StreamingUnsignedTrailer,
                &[decoded, trailer, trailer],
                Code::InvalidRequest,
            ),
            (
                Mode::Unsigned,
                &[("content-encoding", "aws-chunked,aws-chunked"), decoded],
                Code::InvalidArgument,
            ),
        ] {
            assert_eq!(read(mode, pairs), Err(code), "{mode:?} {pairs:?}");
        }
    }
}
