//! The last check of an upload, end to end: the checksum that COS reports against that of the sent bytes.

use std::fmt;

use http::header::{ETAG, HeaderMap, HeaderName};

use super::checksum::Verified;
use crate::encoding::hex::hex;

/// COS's CRC-64 of the object or part, in decimal (436/40334).
const CRC64_ECMA: HeaderName = HeaderName::from_static("x-cos-hash-crc64ecma");
/// With these an `ETag` is not the MD5 of what was sent.
const ENCRYPTIONS: [&str; 4] = [
    "x-cos-server-side-encryption",
    "x-cos-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
];
/// As much of COS's text as the log repeats.
const REPEATED: usize = 64;

/// COS stored something else than it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredOtherwise {
    digest: &'static str,
    sent: String,
    stored: String,
}

/// Compares the response to an upload with what was sent: by CRC-64/ECMA where COS reports it, else by
/// the MD5 in its `ETag`. Digests that were not computed, or not reported, are not compared.
pub(crate) fn compare_stored(sent: &Verified, reported: &HeaderMap) -> Result<(), StoredOtherwise> {
    if let (Some(crc), Some(stored)) = (sent.crc64_ecma, reported.get(CRC64_ECMA)) {
        let stored = String::from_utf8_lossy(stored.as_bytes());
        if stored.parse() == Ok(crc) {
            return Ok(());
        }
        return Err(StoredOtherwise {
            digest: "CRC-64/ECMA",
            sent: crc.to_string(),
            stored: stored.chars().take(REPEATED).collect(),
        });
    }
    let (Some(md5), Some(stored)) = (sent.md5, md5_of_etag(reported)) else {
        return Ok(());
    };
    let sent = hex(&md5);
    if stored.eq_ignore_ascii_case(&sent) {
        return Ok(());
    }
    Err(StoredOtherwise {
        digest: "MD5",
        sent,
        stored: stored.to_owned(),
    })
}

/// The `ETag`, where it is an MD5.
fn md5_of_etag(reported: &HeaderMap) -> Option<&str> {
    if ENCRYPTIONS.iter().any(|name| reported.contains_key(*name)) {
        return None;
    }
    let etag = reported.get(ETAG)?.to_str().ok()?.trim_matches('"');
    (etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(etag)
}

impl fmt::Display for StoredOtherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            digest,
            sent,
            stored,
        } = self;
        write!(
            f,
            "the {digest} of what was sent is {sent}, COS reports {stored:?}"
        )
    }
}

impl std::error::Error for StoredOtherwise {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Verified {
        Verified {
            crc64_ecma: Some(crc_fast::checksum(
                crc_fast::CrcAlgorithm::Crc64Xz,
                b"123456789",
            )),
            md5: Some([0xab; 16]),
            ..Verified::default()
        }
    }

    fn compare(fields: &[(&'static str, &str)]) -> Result<(), String> {
        let reported = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        compare_stored(&sent(), &reported).map_err(|error| error.to_string())
    }

    #[test]
    fn a_crc_decides_where_cos_tells_one() {
        // The check value of CRC-64/XZ, 0x995DC9BBDF1939FA.
        assert_eq!(
            compare(&[
                ("x-cos-hash-crc64ecma", "11051210869376104954"),
                ("etag", "\"x\"")
            ]),
            Ok(())
        );
        let wrong = compare(&[("x-cos-hash-crc64ecma", "7")]).unwrap_err();
        assert_eq!(
            wrong,
            "the CRC-64/ECMA of what was sent is 11051210869376104954, COS reports \"7\""
        );
        assert!(compare(&[("x-cos-hash-crc64ecma", "")]).is_err());
        assert!(compare(&[("x-cos-hash-crc64ecma", "-1")]).is_err());
    }

    #[test]
    fn an_etag_decides_where_it_is_an_md5() {
        let right = "\"ABABABABABABABABABABABABABABABAB\"";
        let wrong = "\"00000000000000000000000000000000\"";
        assert_eq!(compare(&[("etag", right)]), Ok(()));
        assert!(compare(&[("etag", wrong)]).is_err());
        assert_eq!(compare(&[("etag", "\"5d41402abc4b2a76-3\"")]), Ok(()));
        let kms = ("x-cos-server-side-encryption", "cos/kms");
        assert_eq!(compare(&[("etag", wrong), kms]), Ok(()));
        assert_eq!(compare(&[]), Ok(()));
    }
}
