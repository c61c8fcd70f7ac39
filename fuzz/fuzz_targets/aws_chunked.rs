//! Any body, in any pieces: the verdict does not depend on the pieces, no more comes out than was
//! declared, the end waits for the verdict, and what is taken is what a plain reading of it gives.
//!
//! An input is: a [`Plan`], a seed for the pieces, two bytes of a length, and a body.

#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cosgate::encoding::hex::{hex, sha256_hex};
use cosgate::payload::checksum::Checks;
use cosgate::payload::{ChunkSignatures, Declared, Framing, Intake, Mode, PayloadError};
use cosgate::s3::checksum_name::ChecksumName;
use cosgate::secret::Secret;
use cosgate::sign::sigv4::{CredentialScope, SigningKey};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

const AMZ_DATE: &str = "20260115T123045Z";
const SCOPE: CredentialScope<'_> = CredentialScope {
    date: "20260115",
    region: "ap-guangzhou",
    service: "s3",
};
const SEED: [u8; 32] = [7; 32];
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Not verified, so that a body of the fuzzer's own can be right.
const ANY: &str = "x-amz-checksum-any";
const CRC32: &str = "x-amz-checksum-crc32";

static KEY: LazyLock<SigningKey> = LazyLock::new(|| {
    let secret = Secret::new("exampleSecretKey0000000000000000");
    SigningKey::derive(&secret, SCOPE.date, SCOPE.region, SCOPE.service)
});

/// What the bytes after the head of an input are.
#[derive(Clone, Copy)]
enum Plan {
    /// An object, which is framed here as a client would, and of which then one byte may change.
    Object(Mode),
    /// A body as it stands.
    Raw(Mode),
}

/// What may be stored, or why nothing may.
type Verdict = Result<Vec<u8>, PayloadError>;

fuzz_target!(|input: &[u8]| {
    let [plan, seed, length @ ..] = input else {
        return;
    };
    let [low, high, rest @ ..] = length else {
        return;
    };
    let number = usize::from(u16::from_le_bytes([*low, *high]));
    match plan_of(*plan) {
        Plan::Object(mode) => object(mode, *seed, number, rest),
        Plan::Raw(mode) => raw(mode, *seed, number, rest),
    }
});

fn plan_of(byte: u8) -> Plan {
    match byte % 6 {
        0 => Plan::Raw(Mode::Unsigned),
        1 => Plan::Raw(Mode::StreamingUnsignedTrailer),
        2 => Plan::Raw(Mode::StreamingSignedTrailer),
        3 => Plan::Object(Mode::StreamingSigned),
        4 => Plan::Object(Mode::StreamingSignedTrailer),
        _ => Plan::Object(Mode::StreamingUnsignedTrailer),
    }
}

/// A body of the fuzzer's own, declared to hold `length` bytes.
fn raw(mode: Mode, seed: u8, length: usize, body: &[u8]) {
    let trailer = (mode != Mode::Unsigned).then_some(ANY);
    let whole = run(mode, trailer, length, &[Bytes::copy_from_slice(body)]);
    let pieces = pieces(body, seed);
    assert_eq!(run(mode, trailer, length, &pieces), whole);
    if mode.signs_chunks() {
        assert!(whole.is_err() || length == 0, "a signature was guessed");
        return;
    }
    let plain = plain_reading(body);
    if let Ok(taken) = &whole {
        let (read, _) = plain.as_ref().expect("only well-formed chunks are taken");
        assert_eq!(taken, read);
    }
    if let Some((read, end)) = plain
        && read.len() == length
        && end
            == trailer
                .map_or("\r\n".to_owned(), |name| format!("{name}:x\r\n\r\n"))
                .as_bytes()
    {
        assert_eq!(whole, Ok(read));
    }
}

/// A good body of the fuzzer's object, in chunks of `size`; with one byte changed, it is refused or
/// still the same object.
fn object(mode: Mode, seed: u8, size: usize, rest: &[u8]) {
    let [mask, low, high, object @ ..] = rest else {
        return;
    };
    let trailer = (mode != Mode::StreamingSigned).then_some(CRC32);
    let mut body = framed(mode, object, size.max(1));
    let good = run(mode, trailer, object.len(), &pieces(&body, seed));
    assert_eq!(good.as_deref(), Ok(object));
    let at = usize::from(u16::from_le_bytes([*low, *high]));
    let Some(byte) = body.get_mut(at) else {
        return;
    };
    *byte ^= mask;
    let pieces = pieces(&body, seed);
    let changed = run(mode, trailer, object.len(), &pieces);
    let whole = run(mode, trailer, object.len(), &[Bytes::from(body)]);
    assert_eq!(changed, whole);
    assert!(changed.is_err() || changed.as_deref() == Ok(object));
}

/// Feeds the pieces, as the proxy does.
fn run(mode: Mode, trailer: Option<&str>, length: usize, pieces: &[Bytes]) -> Verdict {
    let declared = Declared {
        mode,
        framing: Framing::AwsChunked,
        length: Some(length as u64),
        content_encoding: None,
        trailer: trailer.and_then(ChecksumName::parse),
    };
    // Signed, since a sum that is not known may not be the only check; it changes no digest.
    let signed = Declared {
        mode: Mode::StreamingSigned,
        ..declared.clone()
    };
    let checks = Checks::new(&signed, &HeaderMap::new()).unwrap();
    let chain = ChunkSignatures::new(KEY.clone(), AMZ_DATE, &SCOPE, SEED);
    let mut intake = Intake::new(&declared, length as u64, checks, Some(chain)).unwrap();
    let mut out = Vec::new();
    for piece in pieces {
        let mut piece = piece.clone();
        while let Some(bytes) = intake.push(&mut piece)? {
            assert!(!bytes.is_empty());
            out.extend_from_slice(&bytes);
            assert!(out.len() < length, "the end is out before the verdict");
        }
        assert!(piece.is_empty());
    }
    let (end, _) = intake.finish()?;
    out.extend_from_slice(&end);
    assert_eq!(out.len(), length);
    Ok(out)
}

/// Pieces of 1 to 64 bytes, by a small generator (Knuth's MMIX numbers).
fn pieces(body: &[u8], seed: u8) -> Vec<Bytes> {
    let mut state = u64::from(seed);
    let mut rest = Bytes::copy_from_slice(body);
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let size = 1 + (state >> 58) as usize;
        pieces.push(rest.split_to(size.min(rest.len())));
    }
    pieces
}

/// The data of unsigned chunks and what follows the last one, read the simple way.
fn plain_reading(mut body: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = (&body[..end], &body[end + 2..]);
        let size = line.split(|byte| *byte == b';').next()?;
        if size.is_empty() || !size.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return Some((data, rest));
        }
        data.extend_from_slice(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// What a client sends of `object` in `mode`.
fn framed(mode: Mode, object: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut previous = SEED;
    let mut sign = |of: &str, hashes: &str| {
        let previous_hex = hex(&previous);
        let text = format!("AWS4-HMAC-SHA256-{of}\n{AMZ_DATE}\n{SCOPE}\n{previous_hex}\n{hashes}");
        previous = KEY.sign(text.as_bytes());
        hex(&previous)
    };
    for chunk in object.chunks(size).chain([&[][..]]) {
        out.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if mode.signs_chunks() {
            let signature = sign("PAYLOAD", &format!("{EMPTY_SHA256}\n{}", sha256_hex(chunk)));
            out.extend_from_slice(format!(";chunk-signature={signature}").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if !chunk.is_empty() {
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
    }
    if mode != Mode::StreamingSigned {
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, object) as u32;
        let line = format!("{CRC32}:{}", BASE64_STANDARD.encode(crc.to_be_bytes()));
        out.extend_from_slice(format!("{line}\r\n").as_bytes());
        if mode.signs_chunks() {
            let signature = sign("TRAILER", &sha256_hex(format!("{line}\n").as_bytes()));
            out.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}
