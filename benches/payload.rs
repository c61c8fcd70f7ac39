//! What an upload costs by payload mode, and each checksum alone: `cargo bench --bench payload`.

use std::fmt::Write as _;
use std::hint::black_box;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cosgate::encoding::hex::{hex, sha256_hex};
use cosgate::payload::checksum::Checks;
use cosgate::payload::{ChunkSignatures, Declared, Intake, Mode};
use cosgate::s3::checksum_name::Algorithm;
use cosgate::secret::Secret;
use cosgate::sign::sigv4::{CredentialScope, SigningKey};
use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher};
use http::{HeaderMap, HeaderValue};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

/// The object: short enough that a pass is seldom interrupted.
const OBJECT: usize = 1024 * 1024;
/// Bytes of a chunk.
const CHUNK: usize = 64 * 1024;
/// Bytes of one read from the client's socket, which ends anywhere in a chunk.
const READ: usize = 50_000;
const AMZ_DATE: &str = "20260115T123045Z";
const SCOPE: CredentialScope<'_> = CredentialScope {
    date: "20260115",
    region: "ap-guangzhou",
    service: "s3",
};
const SEED: [u8; 32] = [7; 32];
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const MODES: [Mode; 3] = [
    Mode::Unsigned,
    Mode::StreamingSigned,
    Mode::StreamingUnsignedTrailer,
];

fn main() {
    divan::main();
}

fn signing_key() -> SigningKey {
    let secret = Secret::new("exampleSecretKey0000000000000000");
    SigningKey::derive(&secret, SCOPE.date, SCOPE.region, SCOPE.service)
}

fn object() -> Vec<u8> {
    (0..=250_u8).cycle().take(OBJECT).collect()
}

/// The body as a client frames it in `mode`.
fn framed(mode: Mode, object: &[u8], crc32: &str) -> Bytes {
    let mut out = Vec::with_capacity(OBJECT + OBJECT / 256);
    let key = signing_key();
    let mut previous = SEED;
    for chunk in object.chunks(CHUNK).chain([&[][..]]) {
        let mut head = format!("{:x}", chunk.len());
        if mode.signs_chunks() {
            let text = format!(
                "AWS4-HMAC-SHA256-PAYLOAD\n{AMZ_DATE}\n{SCOPE}\n{}\n{EMPTY_SHA256}\n{}",
                hex(&previous),
                sha256_hex(chunk)
            );
            previous = key.sign(text.as_bytes());
            let _ = write!(head, ";chunk-signature={}", hex(&previous));
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(chunk);
        if !chunk.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
    }
    if mode == Mode::StreamingUnsignedTrailer {
        out.extend_from_slice(format!("x-amz-checksum-crc32:{crc32}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

fn run(intake: &mut Intake, body: &Bytes) -> usize {
    let (mut passed, mut start) = (0, 0);
    while start < body.len() {
        let end = body.len().min(start + READ);
        let mut piece = body.slice(start..end);
        start = end;
        while let Some(bytes) = intake.push(&mut piece).expect("a good body") {
            passed += black_box(bytes).len();
        }
    }
    let (end, _) = intake.finish().expect("a good body");
    passed + end.len()
}

/// The CRC-32 of the object in base64, as a first pass computes it.
fn crc32_of(object: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, object);
    let [_, _, _, _, low @ ..] = crc.to_be_bytes();
    BASE64_STANDARD.encode(low)
}

/// Decoding, checking and holding back, in reads of 50 000 bytes.
#[divan::bench(args = MODES)]
fn upload(bencher: Bencher<'_, '_>, mode: Mode) {
    let object = object();
    let crc32 = crc32_of(&object);
    let mut headers = HeaderMap::new();
    let body = if mode == Mode::Unsigned {
        headers.insert("content-length", HeaderValue::from(OBJECT));
        Bytes::from(object)
    } else {
        headers.insert("x-amz-decoded-content-length", HeaderValue::from(OBJECT));
        framed(mode, &object, &crc32)
    };
    if mode == Mode::StreamingUnsignedTrailer {
        headers.insert(
            "x-amz-trailer",
            HeaderValue::from_static("x-amz-checksum-crc32"),
        );
    }
    let declared = Declared::read(mode, &headers).expect("a good head");
    let checks = Checks::new(&declared, &headers).expect("a good head");
    let chain = ChunkSignatures::new(signing_key(), AMZ_DATE, &SCOPE, SEED);
    bencher
        .counter(BytesCount::new(OBJECT))
        .with_inputs(|| {
            Intake::new(
                &declared,
                OBJECT as u64,
                checks.clone(),
                Some(chain.clone()),
            )
            .expect("a good head")
        })
        .bench_refs(|intake| assert_eq!(run(intake, &body), OBJECT));
}

/// One digest over the object: what a mode is measured against.
#[divan::bench(args = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "sha512", "xxhash64", "xxhash3", "xxhash128", "md5", "crc64ecma"])]
fn digest(bencher: Bencher<'_, '_>, name: &str) {
    let object = object();
    let mut headers = HeaderMap::new();
    headers.insert("content-length", HeaderValue::from(OBJECT));
    let sizes = [
        ("crc32", 4),
        ("crc32c", 4),
        ("crc64nvme", 8),
        ("sha1", 20),
        ("sha256", 32),
        ("sha512", 64),
        ("xxhash64", 8),
        ("xxhash3", 8),
        ("xxhash128", 16),
    ];
    if let Some((_, size)) = sizes.iter().find(|(known, _)| *known == name) {
        let algorithm = Algorithm::named(name).expect("a known name");
        let zeroes = BASE64_STANDARD.encode(vec![0; *size]);
        let zeroes = HeaderValue::from_str(&zeroes).expect("base64");
        headers.insert(algorithm.header(), zeroes);
    }
    let declared = Declared::read(Mode::Unsigned, &headers).expect("a good head");
    let checks = Checks::new(&declared, &headers).expect("a good head");
    let checks = match name {
        "md5" => checks.with_md5(),
        "crc64ecma" => checks.with_crc64_ecma(),
        _ => checks,
    };
    bencher
        .counter(BytesCount::new(OBJECT))
        .with_inputs(|| checks.clone())
        .bench_refs(|checks| checks.update(black_box(&object)));
}
