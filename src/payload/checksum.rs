//! The digests that a client names of its object: computed over the decoded bytes, compared at the end.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html>

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{Declared, Mode, PayloadError};
use crate::s3::{Code, Query, S3Error};

const PREFIX: &str = "x-amz-checksum-";
/// Headers with the prefix that name no checksum.
const NOT_CHECKSUMS: [&str; 3] = ["algorithm", "mode", "type"];
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const SDK_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-sdk-checksum-algorithm");

/// A checksum that is verified here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// The name of a checksum's header or trailer, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksumName {
    header: String,
    algorithm: Option<Algorithm>,
}

/// The checks of one body: what it must have, and the digests as far as it has come.
#[derive(Clone, Debug)]
pub struct Checks {
    checksum: Option<Checksum>,
    md5: Option<[u8; 16]>,
    sha256: Option<[u8; 32]>,
    unchecked: Option<String>,
    digests: Digests,
}

/// What the checks of a whole body gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The checksum that held, in base64: the answer repeats it in its header.
    pub checksum: Option<(Algorithm, String)>,
    /// The header or trailer that was not checked: its algorithm is unknown here, or it can say nothing
    /// of this body.
    pub unchecked: Option<String>,
    /// The body's MD5, if it was asked for.
    pub md5: Option<[u8; 16]>,
    /// The body's CRC-64/XZ, if it was asked for: COS's `x-cos-hash-crc64ecma`.
    pub crc64_ecma: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Checksum {
    name: ChecksumName,
    /// `None` until the trailer comes.
    expected: Option<Vec<u8>>,
}

/// Only those that are needed run. Boxed: together they are a kilobyte, and are moved with the upload.
#[derive(Clone, Debug, Default)]
struct Digests {
    crc: Option<Box<crc_fast::Digest>>,
    crc64_ecma: Option<Box<crc_fast::Digest>>,
    md5: Option<Box<Md5>>,
    sha1: Option<Box<Sha1>>,
    sha256: Option<Box<Sha256>>,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// Its header or trailer, in lower case.
    pub fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Its name, as AWS's documents and errors write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// Bytes of a value.
    fn size(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Whether `value` is the checksum of no bytes at all.
    fn is_of_nothing(self, value: &[u8]) -> bool {
        match self {
            Self::Crc32 | Self::Crc32c | Self::Crc64Nvme => value.iter().all(|byte| *byte == 0),
            Self::Sha1 => value == &Sha1::digest(b"")[..],
            Self::Sha256 => value == &Sha256::digest(b"")[..],
        }
    }

    fn decode(self, text: &str) -> Option<Vec<u8>> {
        let value = BASE64_STANDARD.decode(text).ok()?;
        (value.len() == self.size()).then_some(value)
    }
}

impl ChecksumName {
    /// Reads a lower-case header name; `None` when it names no checksum.
    pub fn parse(header: &str) -> Option<Self> {
        let suffix = header.strip_prefix(PREFIX)?;
        if NOT_CHECKSUMS.contains(&suffix) || !suffix.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        (!suffix.is_empty()).then(|| Self {
            header: header.to_owned(),
            algorithm: Algorithm::ALL.into_iter().find(|a| a.header() == header),
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.header
    }

    /// The algorithm; `None` for one that is not verified here, such as SHA-512.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }
}

/// The checksum that `headers` name, where none is checked: those of a completed upload are of an object
/// whose parts came before.
pub fn unchecked(headers: &HeaderMap) -> Option<String> {
    let mut names = headers.keys().map(HeaderName::as_str);
    names.find_map(|name| Some(ChecksumName::parse(name)?.header))
}

impl fmt::Display for ChecksumName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.header)
    }
}

impl Checks {
    /// The checks that the headers of an upload ask for.
    pub fn new(declared: &Declared, headers: &HeaderMap) -> Result<Self, S3Error> {
        Self::read(declared, headers, &Query::default())
    }

    /// The checks that the headers of an upload and its query ask for: SDKs move headers into the
    /// presigned URLs that they make.
    pub fn read(
        declared: &Declared,
        headers: &HeaderMap,
        query: &Query<'_>,
    ) -> Result<Self, S3Error> {
        let mut checksum = named_checksum(declared, headers)?;
        let mut unchecked = None;
        if let Some(hoisted) = hoisted_checksum(query)? {
            if hoisted.is_of_nothing() {
                unchecked = Some(hoisted.name.header);
            } else if checksum.get_or_insert_with(|| hoisted.clone()) != &hoisted {
                return Err(several_checksums());
            }
        }
        if checksum.is_none() && headers.contains_key(SDK_ALGORITHM) {
            return Err(S3Error::new(
                Code::InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or \
                 x-amz-trailer headers were found.",
            ));
        }
        let md5 = content_md5(headers)?;
        let sha256 = match declared.mode {
            Mode::Sha256(hash) => Some(hash),
            _ => None,
        };
        let algorithm = checksum.as_ref().and_then(|c| c.name.algorithm);
        let crc = match algorithm {
            Some(Algorithm::Crc32) => Some(CrcAlgorithm::Crc32IsoHdlc),
            Some(Algorithm::Crc32c) => Some(CrcAlgorithm::Crc32Iscsi),
            Some(Algorithm::Crc64Nvme) => Some(CrcAlgorithm::Crc64Nvme),
            Some(Algorithm::Sha1 | Algorithm::Sha256) | None => None,
        };
        let hashes = sha256.is_some() || algorithm == Some(Algorithm::Sha256);
        let digests = Digests {
            crc: crc.map(|crc| Box::new(crc_fast::Digest::new(crc))),
            crc64_ecma: None,
            md5: md5.map(|_| Box::default()),
            sha1: (algorithm == Some(Algorithm::Sha1)).then(Box::default),
            sha256: hashes.then(Box::default),
        };
        Ok(Self {
            checksum,
            md5,
            sha256,
            unchecked,
            digests,
        })
    }

    /// Computes the CRC-64 that COS answers with, too.
    #[must_use]
    pub fn with_crc64_ecma(mut self) -> Self {
        let crc = crc_fast::Digest::new(CrcAlgorithm::Crc64Xz);
        self.digests.crc64_ecma = Some(Box::new(crc));
        self
    }

    /// Computes the MD5 (COS's `ETag` of an object that was sent in one piece), asked for or not.
    #[must_use]
    pub fn with_md5(mut self) -> Self {
        self.digests.md5.get_or_insert_default();
        self
    }

    /// Takes the next bytes of the object.
    pub fn update(&mut self, data: &[u8]) {
        let digests = &mut self.digests;
        if let Some(crc) = &mut digests.crc {
            crc.update(data);
        }
        if let Some(crc) = &mut digests.crc64_ecma {
            crc.update(data);
        }
        if let Some(md5) = &mut digests.md5 {
            md5.update(data);
        }
        if let Some(sha1) = &mut digests.sha1 {
            sha1.update(data);
        }
        if let Some(sha256) = &mut digests.sha256 {
            sha256.update(data);
        }
    }

    /// Compares all of them. `trailer` is the value of the announced trailer.
    pub fn finish(&self, trailer: Option<&str>) -> Result<Verified, PayloadError> {
        let Digests {
            crc64_ecma,
            md5,
            sha256,
            ..
        } = &self.digests;
        let sha256 = sha256.as_ref().map(|digest| digest.clone().finalize());
        if let (Some(expected), Some(sha256)) = (self.sha256, &sha256)
            && sha256[..] != expected
        {
            return Err(PayloadError::Sha256Mismatch);
        }
        let md5: Option<[u8; 16]> = md5.as_ref().map(|digest| digest.clone().finalize().into());
        if self.md5.is_some() && self.md5 != md5 {
            return Err(PayloadError::Md5Mismatch);
        }
        let mut verified = Verified {
            md5,
            crc64_ecma: crc64_ecma.as_ref().map(|crc| crc.finalize()),
            unchecked: self.unchecked.clone(),
            ..Verified::default()
        };
        let Some(Checksum { name, expected }) = &self.checksum else {
            return Ok(verified);
        };
        let Some(algorithm) = name.algorithm else {
            verified.unchecked = Some(name.header.clone());
            return Ok(verified);
        };
        let in_trailer = match expected {
            Some(_) => None,
            None => Some(
                algorithm
                    .decode(trailer.ok_or(PayloadError::TrailerMissing)?)
                    .ok_or(PayloadError::ChecksumMalformed(algorithm))?,
            ),
        };
        let value = self.digests.value(algorithm);
        if expected.as_ref().or(in_trailer.as_ref()) != value.as_ref() {
            return Err(PayloadError::ChecksumMismatch(algorithm));
        }
        verified.checksum = value.map(|value| (algorithm, BASE64_STANDARD.encode(value)));
        Ok(verified)
    }
}

impl Verified {
    /// The checksum that held, as the header that the answer repeats.
    pub fn echo(&self) -> Option<(HeaderName, HeaderValue)> {
        let (algorithm, value) = self.checksum.as_ref()?;
        let name = HeaderName::from_static(algorithm.header());
        Some((name, HeaderValue::from_str(value).ok()?))
    }
}

impl Checksum {
    /// The claim `name: value` of a head. Of an unknown algorithm, any text may be a value.
    fn claimed(name: ChecksumName, value: Option<&str>) -> Result<Self, S3Error> {
        let expected = match name.algorithm {
            None => Some(Vec::new()),
            Some(algorithm) => value.and_then(|text| algorithm.decode(text)),
        };
        if expected.is_none() {
            let text = format!("Value for {name} header is invalid.");
            return Err(S3Error::new(Code::InvalidRequest, text));
        }
        Ok(Self { name, expected })
    }

    /// Whether it is the checksum of no bytes at all.
    fn is_of_nothing(&self) -> bool {
        let value = self.name.algorithm.zip(self.expected.as_ref());
        value.is_some_and(|(algorithm, value)| algorithm.is_of_nothing(value))
    }
}

impl Digests {
    /// The value of a digest that has run, big-endian as S3 writes a CRC.
    fn value(&self, algorithm: Algorithm) -> Option<Vec<u8>> {
        let crc = || self.crc.as_ref().map(|crc| crc.finalize().to_be_bytes());
        match algorithm {
            Algorithm::Crc32 | Algorithm::Crc32c => {
                crc().map(|[_, _, _, _, low @ ..]| low.to_vec())
            }
            Algorithm::Crc64Nvme => crc().map(|value| value.to_vec()),
            Algorithm::Sha1 => self.sha1.as_ref().map(|d| d.clone().finalize().to_vec()),
            Algorithm::Sha256 => self.sha256.as_ref().map(|d| d.clone().finalize().to_vec()),
        }
    }
}

/// The one checksum that a head may name, in a header or in its trailer.
fn named_checksum(declared: &Declared, headers: &HeaderMap) -> Result<Option<Checksum>, S3Error> {
    let mut found = declared.trailer.clone().map(|name| Checksum {
        name,
        expected: None,
    });
    for (header, value) in headers {
        let Some(name) = ChecksumName::parse(header.as_str()) else {
            continue;
        };
        if found.is_some() {
            return Err(several_checksums());
        }
        found = Some(Checksum::claimed(name, value.to_str().ok())?);
    }
    Ok(found)
}

/// The one checksum that the query of a presigned URL may name, in either letter case.
///
/// The AWS SDK for JavaScript signs the checksum of nothing into every URL for an upload, as it does not
/// know the body yet. S3 checks none of these; here one that its signer can have meant is.
fn hoisted_checksum(query: &Query<'_>) -> Result<Option<Checksum>, S3Error> {
    let mut named = query.iter().filter_map(|(name, value)| {
        let name = ChecksumName::parse(&name.to_ascii_lowercase())?;
        Some(Checksum::claimed(name, Some(value)))
    });
    let found = named.next().transpose()?;
    if named.next().is_some() {
        return Err(several_checksums());
    }
    Ok(found)
}

fn several_checksums() -> S3Error {
    S3Error::new(
        Code::InvalidRequest,
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
    )
}

fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, S3Error> {
    let mut values = headers.get_all(CONTENT_MD5).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let md5 = BASE64_STANDARD
        .decode(value)
        .ok()
        .and_then(|md5| md5.try_into().ok())
        .filter(|_| values.next().is_none());
    match md5 {
        Some(md5) => Ok(Some(md5)),
        None => Err(S3Error::new(
            Code::InvalidDigest,
            "The Content-MD5 you specified is not valid.",
        )),
    }
}
