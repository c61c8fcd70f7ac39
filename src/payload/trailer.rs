//! The trailer after the last chunk: its announced lines, its signature, and the empty line of the end.

use super::{ChunkSignatures, PayloadError};
use crate::encoding::hex::parse_hex32;

const SIGNATURE: &str = "x-amz-trailer-signature";

/// What the trailer of a body must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedTrailer<'a> {
    /// The one name that `x-amz-trailer` announced, in lower case.
    pub(super) name: Option<&'a str>,
    /// The chain, if the trailer is signed.
    pub(super) signatures: Option<&'a ChunkSignatures>,
}

/// Reads all that came after the last chunk's head, and gives the announced trailer's value.
///
/// Clients end a trailer's line with CR LF or LF; minio-go puts an empty line after it, others put one
/// before it. So there may be one empty line beside each line, but nothing else.
pub(super) fn parse(
    section: &[u8],
    expected: ExpectedTrailer<'_>,
) -> Result<Option<String>, PayloadError> {
    let (mut filled, mut empty) = (0_usize, 0_usize);
    let mut ended = false;
    let mut canonical = String::new();
    let mut value = None;
    let mut signature = None;
    for line in section.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").ok_or(PayloadError::Incomplete)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        ended = line.is_empty();
        if ended {
            empty += 1;
            continue;
        }
        filled += 1;
        let (name, text) = name_and_value(line).ok_or(PayloadError::TrailerMalformed)?;
        if signature.is_some() {
            return Err(PayloadError::TrailerMalformed);
        }
        if expected.signatures.is_some() && name == SIGNATURE {
            signature = Some(parse_hex32(text).ok_or(PayloadError::TrailerSignature)?);
            continue;
        }
        if expected.name != Some(&*name) {
            return Err(PayloadError::TrailerUnexpected);
        }
        if value.is_some() {
            return Err(PayloadError::TrailerMalformed);
        }
        canonical = format!("{name}:{text}\n");
        value = Some(text.to_owned());
    }
    if !ended {
        return Err(PayloadError::Incomplete);
    }
    if empty > filled + 1 {
        return Err(PayloadError::TrailerMalformed);
    }
    if let Some(signatures) = expected.signatures {
        let signature = signature.ok_or(PayloadError::TrailerSignatureMissing)?;
        signatures.check_trailer(&canonical, &signature)?;
    }
    if expected.name.is_some() && value.is_none() {
        return Err(PayloadError::TrailerMissing);
    }
    Ok(value)
}

/// The parts of `name:value`: the name in lower case, the value without the spaces around it.
fn name_and_value(line: &[u8]) -> Option<(String, &str)> {
    let line = str::from_utf8(line).ok()?;
    let (name, value) = line.split_once(':')?;
    let visible = |byte: u8| byte.is_ascii_graphic();
    if name.is_empty() || !name.bytes().all(visible) {
        return None;
    }
    let value = value.trim_matches([' ', '\t']);
    value
        .bytes()
        .all(|byte| visible(byte) || byte == b' ')
        .then(|| (name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRC32: ExpectedTrailer<'_> = ExpectedTrailer {
        name: Some("x-amz-checksum-crc32"),
        signatures: None,
    };
    const NOTHING: ExpectedTrailer<'_> = ExpectedTrailer {
        name: None,
        signatures: None,
    };

    #[test]
    fn every_line_end_of_the_field_is_read() {
        for section in [
            "x-amz-checksum-crc32:AAAAAA==\r\n\r\n",
            "x-amz-checksum-crc32:AAAAAA==\n\r\n",
            "x-amz-checksum-crc32:AAAAAA==\n\r\n\r\n",
            "\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
            "X-Amz-Checksum-CRC32: AAAAAA== \n\n",
        ] {
            let value = parse(section.as_bytes(), CRC32).unwrap();
            assert_eq!(value.as_deref(), Some("AAAAAA=="), "{section:?}");
        }
        assert_eq!(parse(b"\r\n", NOTHING).unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused() {
        use PayloadError as E;
        for (section, expected, error) in [
            ("", CRC32, E::Incomplete),
            ("x-amz-checksum-crc32:AAAAAA==", CRC32, E::Incomplete),
            ("x-amz-checksum-crc32:AAAAAA==\r\n", CRC32, E::Incomplete),
            ("\r\n", CRC32, E::TrailerMissing),
            ("\r\n\r\n", NOTHING, E::TrailerMalformed),
            ("\r\nextra", NOTHING, E::Incomplete),
            ("\r\nextra\r\n\r\n", NOTHING, E::TrailerMalformed),
            ("x-amz-meta-a:b\r\n\r\n", NOTHING, E::TrailerUnexpected),
            ("x-amz-checksum-sha1:A\r\n\r\n", CRC32, E::TrailerUnexpected),
            (
                "x-amz-checksum-crc32:A\r\nx-amz-checksum-crc32:A\r\n\r\n",
                CRC32,
                E::TrailerMalformed,
            ),
            (":A\r\n\r\n", CRC32, E::TrailerMalformed),
            (
                "x-amz-checksum-crc32:\u{1}\r\n\r\n",
                CRC32,
                E::TrailerMalformed,
            ),
            (
                "x-amz-checksum-crc32:A\r\r\n\r\n",
                CRC32,
                E::TrailerMalformed,
            ),
        ] {
            assert_eq!(
                parse(section.as_bytes(), expected),
                Err(error),
                "{section:?}"
            );
        }
    }
}
