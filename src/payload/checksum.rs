//! The digests that a client names of its object: computed over the decoded bytes, compared at the end.
//!
//! Each value is the digest in base64; CRCs and xxHashes are big-endian, as botocore and the AWS Common
//! Runtime write them.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use xxhash_rust::xxh3::Xxh3;
use xxhash_rust::xxh64::Xxh64;

use super::{Declared, PayloadError};
use crate::error::{Code, S3Error};
use crate::s3::Query;
use crate::s3::checksum_name::{Algorithm, ChecksumName};

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const SDK_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-sdk-checksum-algorithm");

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
    /// The checksum that held, in base64: the response repeats it in its header.
    pub checksum: Option<(Algorithm, String)>,
    /// The header or trailer that was not checked: its algorithm is unknown here, or it can say nothing
    /// of this body.
    pub unchecked: Option<String>,
    /// The body's MD5, if it was requested.
    pub md5: Option<[u8; 16]>,
    /// The body's CRC-64/XZ, if it was requested: COS's `x-cos-hash-crc64ecma`.
    pub crc64_ecma: Option<u64>,
}

/// The checksum of bytes that a client sends, piece by piece.
#[derive(Clone, Debug)]
pub struct Digest {
    algorithm: Algorithm,
    digests: Digests,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Checksum {
    name: ChecksumName,
    /// `None` until the trailer comes.
    expected: Option<Vec<u8>>,
}

/// Only those that are needed run. Boxed: together they are two kilobytes, and are moved with the upload.
#[derive(Clone, Default)]
struct Digests {
    crc: Option<Box<crc_fast::Digest>>,
    crc64_ecma: Option<Box<crc_fast::Digest>>,
    md5: Option<Box<Md5>>,
    sha1: Option<Box<Sha1>>,
    sha256: Option<Box<Sha256>>,
    sha512: Option<Box<Sha512>>,
    xxh64: Option<Box<Xxh64>>,
    /// Of both lengths: the state is the same.
    xxh3: Option<Box<Xxh3>>,
}

impl Digest {
    /// The digest of no bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        let mut digests = Digests::default();
        digests.run(algorithm);
        Self { algorithm, digests }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.digests.update(data);
    }

    /// The value of the bytes so far, as headers and trailers write it.
    pub fn value(&self) -> String {
        BASE64_STANDARD.encode(self.digests.value(self.algorithm).unwrap_or_default())
    }
}

impl Checks {
    /// The checks that the headers of an upload request.
    pub fn new(declared: &Declared, headers: &HeaderMap) -> Result<Self, S3Error> {
        Self::read(declared, headers, &Query::default())
    }

    /// The checks that the headers of an upload and its query request: SDKs move headers into the
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
                unchecked = Some(hoisted.name.into_string());
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
        Self::of(declared, headers, checksum, unchecked)
    }

    /// The checks of the document that completes an upload. A checksum in its head is of the whole
    /// object, whose parts came before and are not here any more: it must be a value of its algorithm,
    /// and is not verified. One that is made of the checksums of the parts may end in `-` and their number.
    pub(crate) fn of_completion(declared: &Declared, headers: &HeaderMap) -> Result<Self, S3Error> {
        let mut unchecked = None;
        for (header, value) in headers {
            let Some(name) = ChecksumName::parse(header.as_str()) else {
                continue;
            };
            let text = value.to_str().ok();
            let (sum, parts) = match text.and_then(|text| text.split_once('-')) {
                Some((sum, parts)) => (Some(sum), parts),
                None => (text, "1"),
            };
            let is_count = !parts.is_empty() && parts.bytes().all(|byte| byte.is_ascii_digit());
            let claimed = Checksum::claimed(name, sum.filter(|_| is_count))?;
            if unchecked.replace(claimed.name.into_string()).is_some() {
                return Err(several_checksums());
            }
        }
        Self::of(declared, headers, None, unchecked)
    }

    fn of(
        declared: &Declared,
        headers: &HeaderMap,
        checksum: Option<Checksum>,
        unchecked: Option<String>,
    ) -> Result<Self, S3Error> {
        let md5 = content_md5(headers)?;
        let sha256 = declared.mode.sha256();
        if let Some(Checksum { name, .. }) = &checksum
            && name.algorithm().is_none()
            && md5.is_none()
            && sha256.is_none()
            && !declared.mode.signs_chunks()
        {
            return Err(only_check_unknown(name));
        }
        let mut digests = Digests::default();
        if md5.is_some() {
            digests.run(Algorithm::Md5);
        }
        if sha256.is_some() {
            digests.run(Algorithm::Sha256);
        }
        if let Some(algorithm) = checksum.as_ref().and_then(|c| c.name.algorithm()) {
            digests.run(algorithm);
        }
        Ok(Self {
            checksum,
            md5,
            sha256,
            unchecked,
            digests,
        })
    }

    /// Computes the CRC-64 that COS responds with, too.
    #[must_use]
    pub fn with_crc64_ecma(mut self) -> Self {
        let crc = crc_fast::Digest::new(CrcAlgorithm::Crc64Xz);
        self.digests.crc64_ecma = Some(Box::new(crc));
        self
    }

    /// Computes the MD5 (COS's `ETag` of an object that was sent in one piece), requested or not.
    #[must_use]
    pub fn with_md5(mut self) -> Self {
        self.digests.md5.get_or_insert_default();
        self
    }

    /// Takes the next bytes of the object.
    pub fn update(&mut self, data: &[u8]) {
        self.digests.update(data);
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
        let Some(algorithm) = name.algorithm() else {
            verified.unchecked = Some(name.to_string());
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
    /// The checksum that held, as the header that the response repeats.
    pub fn echo(&self) -> Option<(HeaderName, HeaderValue)> {
        let (algorithm, value) = self.checksum.as_ref()?;
        let name = HeaderName::from_static(algorithm.header());
        Some((name, HeaderValue::from_str(value).ok()?))
    }
}

impl Checksum {
    /// The claim `name: value` of a head. Of an unknown algorithm, any text may be a value.
    fn claimed(name: ChecksumName, value: Option<&str>) -> Result<Self, S3Error> {
        let expected = match name.algorithm() {
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
        let value = self.name.algorithm().zip(self.expected.as_ref());
        value.is_some_and(|(algorithm, value)| is_of_nothing(algorithm, value))
    }
}

impl Digests {
    /// Lets the digest of `algorithm` run, too.
    fn run(&mut self, algorithm: Algorithm) {
        let mut crc = |crc| self.crc = Some(Box::new(crc_fast::Digest::new(crc)));
        match algorithm {
            Algorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            Algorithm::Md5 => self.md5 = Some(Box::default()),
            Algorithm::Sha1 => self.sha1 = Some(Box::default()),
            Algorithm::Sha256 => self.sha256 = Some(Box::default()),
            Algorithm::Sha512 => self.sha512 = Some(Box::default()),
            Algorithm::Xxh64 => self.xxh64 = Some(Box::new(Xxh64::new(0))),
            Algorithm::Xxh3 | Algorithm::Xxh128 => self.xxh3 = Some(Box::new(Xxh3::new())),
        }
    }

    fn update(&mut self, data: &[u8]) {
        if let Some(crc) = &mut self.crc {
            crc.update(data);
        }
        if let Some(crc) = &mut self.crc64_ecma {
            crc.update(data);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(data);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(data);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(data);
        }
        if let Some(xxh64) = &mut self.xxh64 {
            xxh64.update(data);
        }
        if let Some(xxh3) = &mut self.xxh3 {
            xxh3.update(data);
        }
    }

    /// The value of a digest that has run, big-endian as S3 writes numbers.
    fn value(&self, algorithm: Algorithm) -> Option<Vec<u8>> {
        let crc = || self.crc.as_ref().map(|crc| crc.finalize().to_be_bytes());
        match algorithm {
            Algorithm::Crc32 | Algorithm::Crc32c => {
                crc().map(|[_, _, _, _, low @ ..]| low.to_vec())
            }
            Algorithm::Crc64Nvme => crc().map(|value| value.to_vec()),
            Algorithm::Md5 => self.md5.as_ref().map(|d| d.clone().finalize().to_vec()),
            Algorithm::Sha1 => self.sha1.as_ref().map(|d| d.clone().finalize().to_vec()),
            Algorithm::Sha256 => self.sha256.as_ref().map(|d| d.clone().finalize().to_vec()),
            Algorithm::Sha512 => self.sha512.as_ref().map(|d| d.clone().finalize().to_vec()),
            Algorithm::Xxh64 => self
                .xxh64
                .as_ref()
                .map(|d| d.digest().to_be_bytes().to_vec()),
            Algorithm::Xxh3 => self
                .xxh3
                .as_ref()
                .map(|d| d.digest().to_be_bytes().to_vec()),
            Algorithm::Xxh128 => {
                let xxh3 = self.xxh3.as_ref();
                xxh3.map(|d| d.digest128().to_be_bytes().to_vec())
            }
        }
    }
}

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digests") // of states that say nothing
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

/// A body whose only check is one that cannot be made would be stored whatever became of it.
fn only_check_unknown(name: &ChecksumName) -> S3Error {
    S3Error::new(
        Code::InvalidRequest,
        format!(
            "{name} is the only check of the body, and its algorithm is not known. Use one of {}.",
            Algorithm::list()
        ),
    )
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

/// Whether `value` is the checksum of no bytes at all.
fn is_of_nothing(algorithm: Algorithm, value: &[u8]) -> bool {
    let mut digests = Digests::default();
    digests.run(algorithm);
    digests.value(algorithm).as_deref() == Some(value)
}
