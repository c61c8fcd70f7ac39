//! The names of S3's checksums: [`Algorithm`] has all that S3's reference lists (the type `Checksum`, and
//! AWS's Checking object integrity in Amazon S3).
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Checksum.html>

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const PREFIX: &str = "x-amz-checksum-";
/// Headers with the prefix that name no checksum.
const NOT_CHECKSUMS: [&str; 3] = ["algorithm", "mode", "type"];
/// An algorithm of S3's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// MD5, as a checksum of its own beside `Content-MD5`.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// XXH64, seed 0.
    Xxh64,
    /// XXH3, 64 bits, seed 0.
    Xxh3,
    /// XXH3, 128 bits, seed 0.
    Xxh128,
}

/// The name of a checksum's header or trailer, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksumName {
    header: String,
    algorithm: Option<Algorithm>,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 10] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Xxh64,
        Self::Xxh3,
        Self::Xxh128,
    ];

    /// Finds an algorithm by its [`Algorithm::name`], in either letter case.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The names of all of them, for an error.
    pub fn list() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Its header or trailer, in lower case.
    pub fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Md5 => "x-amz-checksum-md5",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
            Self::Sha512 => "x-amz-checksum-sha512",
            Self::Xxh64 => "x-amz-checksum-xxhash64",
            Self::Xxh3 => "x-amz-checksum-xxhash3",
            Self::Xxh128 => "x-amz-checksum-xxhash128",
        }
    }

    /// Its name, as AWS's documents and errors write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
            Self::Xxh64 => "XXHASH64",
            Self::Xxh3 => "XXHASH3",
            Self::Xxh128 => "XXHASH128",
        }
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme | Self::Xxh64 | Self::Xxh3 => 8,
            Self::Md5 | Self::Xxh128 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Reads a value in base64; `None` if it is not one of this algorithm.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        let value = BASE64_STANDARD.decode(text).ok()?;
        (value.len() == self.size()).then_some(value)
    }
}

impl ChecksumName {
    /// Reads a lower-case header name; `None` when it names no checksum.
    pub fn parse(header: &str) -> Option<Self> {
        let suffix = header.strip_prefix(PREFIX)?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if NOT_CHECKSUMS.contains(&suffix) || !suffix.bytes().all(fits) {
            return None;
        }
        (!suffix.is_empty()).then(|| Self {
            header: header.to_owned(),
            algorithm: Algorithm::ALL.into_iter().find(|a| a.header() == header),
        })
    }

    /// The name, owned.
    pub fn into_string(self) -> String {
        self.header
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.header
    }

    /// The algorithm; `None` for one that is not known here.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }
}

impl fmt::Display for ChecksumName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.header)
    }
}
