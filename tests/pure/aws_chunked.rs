//! Every `aws-chunked` body of the vectors, whole and split: the decoded bytes, and the check that refuses an invalid
//! one.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::str::FromStr;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cosgate::encoding::hex::{parse_hex32, sha256_hex};
use cosgate::error::{Code, S3Error};
use cosgate::payload::checksum::{Checks, Verified};
use cosgate::payload::chunked::{Decoder, MAX_HEAD, MAX_SIGNED_CHUNK, MAX_TRAILER};
use cosgate::payload::{ChunkSignatures, Declared, Framing, Intake, Mode, PayloadError};
use cosgate::s3::checksum_name::Algorithm;
use cosgate::secret::Secret;
use cosgate::sign::sigv4::{CredentialScope, SigningKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;

/// Bodies up to this many bytes are split at every byte.
const SMALL: usize = 700;

/// The valid bodies, each with its vector.
static GOOD: LazyLock<Vec<(Case, Value)>> = LazyLock::new(|| {
    let json = vectors();
    let cases = json["cases"].as_array().unwrap().iter();
    cases
        .map(|case| (Case::new(case, case), case.clone()))
        .collect()
});

/// The invalid bodies, each with the check that refuses it.
static BAD: LazyLock<Vec<(Case, String)>> = LazyLock::new(|| {
    let json = vectors();
    let good = json["cases"].as_array().unwrap();
    let bad = json["negative_cases"].as_array().unwrap().iter();
    bad.map(|case| {
        let base = good.iter().find(|g| g["name"] == case["based_on"]).unwrap();
        (Case::new(case, base), text(&case["reason"]).to_owned())
    })
    .collect()
});

/// A body with everything that its verification needs.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    headers: HeaderMap,
    mode: Mode,
    /// The chain of its chunk signatures, if it has one.
    signatures: Option<ChunkSignatures>,
    encoded: Bytes,
}

/// The outcome of a body: the bytes that may be stored, or the reason for the refusal.
type Verdict = Result<(Vec<u8>, Verified), PayloadError>;

impl Case {
    fn new(json: &Value, signer: &Value) -> Self {
        let mut headers = HeaderMap::new();
        for pair in json["headers"].as_array().unwrap() {
            headers.append(
                HeaderName::from_str(pair[0].as_str().unwrap()).unwrap(),
                HeaderValue::from_str(pair[1].as_str().unwrap()).unwrap(),
            );
        }
        Self {
            name: text(&json["name"]).to_owned(),
            headers,
            mode: Mode::parse(text(&json["mode"])).unwrap(),
            signatures: signer["seed_signature"].as_str().map(|seed| {
                let (date, region) = (text(&signer["timestamp"]), text(&signer["region"]));
                let scope = CredentialScope {
                    date: &date[..8],
                    region,
                    service: "s3",
                };
                let secret = Secret::new(text(&signer["secret_key"]));
                let key = SigningKey::derive(&secret, scope.date, region, "s3");
                ChunkSignatures::new(key, date, &scope, parse_hex32(seed).unwrap())
            }),
            encoded: decode(&json["encoded_base64"]),
        }
    }

    fn declared(&self) -> Declared {
        Declared::read(self.mode, &self.headers).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn intake(&self) -> Intake {
        let declared = self.declared();
        let checks = Checks::new(&declared, &self.headers).unwrap();
        let length = declared.length.unwrap();
        Intake::new(&declared, length, checks, self.signatures.clone()).unwrap()
    }

    /// Feeds the body in pieces that end at `cuts`, and checks that the end is held back.
    fn run(&self, cuts: &[usize]) -> Verdict {
        let length = self.declared().length.unwrap();
        let mut intake = self.intake();
        let mut passed = Vec::new();
        let mut start = 0;
        for end in cuts.iter().copied().chain([self.encoded.len()]) {
            let mut piece = self.encoded.slice(start..end);
            start = end;
            while let Some(bytes) = intake.push(&mut piece)? {
                assert!(!bytes.is_empty());
                passed.extend_from_slice(&bytes);
                assert!(
                    (passed.len() as u64) < length,
                    "{}: the end is out",
                    self.name
                );
            }
            assert!(piece.is_empty());
        }
        let (end, verified) = intake.finish()?;
        passed.extend_from_slice(&end);
        assert_eq!(passed.len() as u64, length, "{}", self.name);
        Ok((passed, verified))
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/aws-chunked.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn decode(value: &Value) -> Bytes {
    BASE64_STANDARD.decode(text(value)).unwrap().into()
}

fn good(name: &str) -> Case {
    let mut cases = GOOD.iter().map(|(case, _)| case);
    cases.find(|case| case.name == name).unwrap().clone()
}

fn all() -> impl Iterator<Item = &'static Case> {
    let good = GOOD.iter().map(|(case, _)| case);
    good.chain(BAD.iter().map(|(case, _)| case))
}

fn code(error: PayloadError) -> Code {
    S3Error::from(error).code()
}

#[test]
fn decodes_every_case() {
    assert_eq!(GOOD.len(), 47);
    for (case, json) in GOOD.iter() {
        let declared = case.declared();
        assert_eq!(declared.framing, Framing::AwsChunked, "{}", case.name);
        assert_eq!(
            declared.length,
            json["decoded_length"].as_u64(),
            "{}",
            case.name
        );
        let (decoded, verified) = case
            .run(&[])
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(
            sha256_hex(&decoded),
            text(&json["decoded_sha256"]),
            "{}",
            case.name
        );
        if json["decoded_base64"].is_string() {
            assert_eq!(decoded, decode(&json["decoded_base64"]), "{}", case.name);
        }
        let Some(trailer) = json["trailers"].get(0) else {
            assert_eq!(verified, Verified::default(), "{}", case.name);
            continue;
        };
        let (name, value) = (text(&trailer[0]), text(&trailer[1]));
        let known = Algorithm::ALL.into_iter().find(|a| a.header() == name);
        let checksum = known.map(|algorithm| (algorithm, value.to_owned()));
        assert_eq!(verified.checksum, checksum, "{}", case.name);
        let unchecked = known.is_none().then(|| name.to_owned());
        assert_eq!(verified.unchecked, unchecked, "{}", case.name);
    }
}

#[test]
fn removes_aws_chunked_from_the_stored_encoding() {
    let encoding = good("signed-gzip-and-chunked").declared().content_encoding;
    assert_eq!(encoding.unwrap(), "gzip");
    assert_eq!(good("signed-one-chunk").declared().content_encoding, None);
}

#[test]
fn rejects_every_bad_case_at_its_check() {
    use PayloadError as E;
    assert_eq!(BAD.len(), 16);
    for (case, reason) in BAD.iter() {
        let expected = match &**reason {
            "announced trailer missing" if case.name.contains("other") => E::TrailerUnexpected,
            "announced trailer missing" => E::TrailerMissing,
            "checksum" => E::ChecksumMismatch(Algorithm::Crc32),
            "chunk signature" => E::ChunkSignature,
            "decoded length" => E::LengthShort,
            "incomplete body" => E::Incomplete,
            "malformed chunk" | "malformed chunk header" => E::ChunkMalformed,
            "trailer signature" | "trailer signature (and checksum)" => E::TrailerSignature,
            "trailer signature missing" => E::TrailerSignatureMissing,
            _ => panic!("{}: {reason}", case.name),
        };
        assert_eq!(case.run(&[]), Err(expected), "{}", case.name);
    }
}

#[test]
fn decodes_alike_at_any_split() {
    for case in all().filter(|case| case.encoded.len() <= SMALL) {
        let whole = case.run(&[]);
        for cut in 0..=case.encoded.len() {
            assert_eq!(case.run(&[cut]), whole, "{} at {cut}", case.name);
        }
        let every: Vec<_> = (0..case.encoded.len()).collect();
        assert_eq!(case.run(&every), whole, "{} byte by byte", case.name);
    }
}

/// A truncated body is never accepted, unless only unverified line ends are missing.
#[test]
fn rejects_a_truncated_body() {
    for (case, _) in GOOD.iter() {
        if case.encoded.len() > SMALL {
            continue;
        }
        let ends = case
            .encoded
            .iter()
            .rev()
            .take_while(|b| b.is_ascii_whitespace());
        let content = case.encoded.len() - ends.count();
        for end in 0..content {
            let cut = Case {
                encoded: case.encoded.slice(..end),
                ..case.clone()
            };
            assert!(cut.run(&[]).is_err(), "{} cut at {end}", case.name);
        }
        let cut = Case {
            encoded: case.encoded.slice(..case.encoded.len() - 2),
            ..case.clone()
        };
        let lenient = case.encoded.ends_with(b"\n\r\n\r\n");
        assert_eq!(cut.run(&[]).is_ok(), lenient, "{}", case.name);
    }
}

#[test]
fn rejects_any_changed_byte_of_a_signed_body() {
    for name in ["signed-three-uneven", "signed-trailer-sha256"] {
        let case = good(name);
        for at in 0..case.encoded.len() {
            let mut encoded = case.encoded.to_vec();
            encoded[at] ^= 1;
            let changed = Case {
                encoded: encoded.into(),
                ..case.clone()
            };
            assert!(changed.run(&[]).is_err(), "{name} at {at}");
        }
    }
}

#[test]
fn rejects_bytes_after_the_end() {
    for (case, _) in GOOD.iter() {
        for more in [
            "x",
            "\r\n\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "x-amz-meta-a:b\r\n\r\n",
        ] {
            let longer = Case {
                encoded: [&case.encoded, more.as_bytes()].concat().into(),
                ..case.clone()
            };
            assert!(longer.run(&[]).is_err(), "{} and {more:?}", case.name);
        }
    }
}

#[test]
fn error_has_the_code_of_aws() {
    for (name, expected) in [
        ("bad-last-chunk-signature", Code::SignatureDoesNotMatch),
        ("bad-trailer-signature", Code::SignatureDoesNotMatch),
        ("truncated-in-chunk", Code::IncompleteBody),
        ("missing-final-chunk", Code::IncompleteBody),
        ("bad-size-not-hex", Code::IncompleteBody),
        ("decoded-length-too-long", Code::IncompleteBody),
        ("missing-trailer-signature", Code::MalformedTrailerError),
        ("unsigned-trailer-missing", Code::MalformedTrailerError),
        ("unsigned-bad-checksum", Code::BadDigest),
    ] {
        let mut cases = BAD.iter();
        let (case, _) = cases.find(|(case, _)| case.name == name).unwrap();
        assert_eq!(case.run(&[]).map_err(code), Err(expected), "{name}");
    }
}

#[test]
fn signed_mode_needs_a_signing_key() {
    let case = good("signed-one-chunk");
    let declared = case.declared();
    let checks = Checks::new(&declared, &case.headers).unwrap();
    let refused = Intake::new(&declared, 5, checks, None).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidRequest);
}

fn decode_unsigned(
    length: u64,
    trailer: Option<&str>,
    body: &[u8],
) -> Result<Vec<u8>, PayloadError> {
    let mut decoder = Decoder::unsigned(length, trailer);
    let mut input = Bytes::copy_from_slice(body);
    let mut out = Vec::new();
    while let Some(bytes) = decoder.decode(&mut input)? {
        out.extend_from_slice(&bytes);
    }
    decoder.finish()?;
    Ok(out)
}

#[test]
fn accepts_variants_of_real_clients() {
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "0005\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c\r\nhello\r\n0;d\r\n\r\n",
        "3\r\nhel\r\n2\r\nlo\r\n000\r\n\r\n",
    ] {
        assert_eq!(
            decode_unsigned(5, None, body.as_bytes()).unwrap(),
            b"hello",
            "{body:?}"
        );
    }
    assert_eq!(
        decode_unsigned(10, None, b"A\r\n0123456789\r\n0\r\n\r\n")
            .unwrap()
            .len(),
        10
    );
}

#[test]
fn rejects_broken_framing() {
    use PayloadError as E;
    for (body, error) in [
        ("", E::Incomplete),
        ("5\r\nhello\r\n", E::Incomplete),
        ("5\r\nhello\r\n0\r\n", E::Incomplete),
        ("5\nhello\r\n0\r\n\r\n", E::ChunkMalformed),
        ("\r\nhello\r\n0\r\n\r\n", E::ChunkMalformed),
        ("+5\r\nhello\r\n0\r\n\r\n", E::ChunkMalformed),
        ("0x5\r\nhello\r\n0\r\n\r\n", E::ChunkMalformed),
        (" 5\r\nhello\r\n0\r\n\r\n", E::ChunkMalformed),
        ("5\r\nhello\n0\r\n\r\n", E::ChunkMalformed),
        ("5\r\nhello!\r\n0\r\n\r\n", E::ChunkMalformed),
        ("10000000000000005\r\nhello\r\n0\r\n\r\n", E::ChunkMalformed),
        ("ffffffffffffffff\r\nhello\r\n0\r\n\r\n", E::LengthExceeded),
        ("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", E::LengthExceeded),
        ("4\r\nhell\r\n0\r\n\r\n", E::LengthShort),
    ] {
        assert_eq!(
            decode_unsigned(5, None, body.as_bytes()),
            Err(error),
            "{body:?}"
        );
    }
}

#[test]
fn limits_lines_and_trailers() {
    let head = |size| format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(size));
    let fits = MAX_HEAD - "5;\r\n".len();
    assert!(decode_unsigned(5, None, head(fits).as_bytes()).is_ok());
    let refused = decode_unsigned(5, None, head(fits + 1).as_bytes());
    assert_eq!(refused, Err(PayloadError::ChunkHeadTooLong));

    let (name, start) = ("x-amz-checksum-sha3", "0\r\n");
    let trailer = |size| format!("{start}{name}:{}\r\n\r\n", "x".repeat(size));
    let fits = MAX_TRAILER - name.len() - ":\r\n\r\n".len();
    assert!(decode_unsigned(0, Some(name), trailer(fits).as_bytes()).is_ok());
    let refused = decode_unsigned(0, Some(name), trailer(fits + 1).as_bytes());
    assert_eq!(refused, Err(PayloadError::TrailerTooLong));

    let size = MAX_SIGNED_CHUNK + 1;
    let mut decoder = Decoder::signed(u64::MAX, good("signed-one-chunk").signatures.unwrap());
    let head = format!("{size:x};chunk-signature={}\r\n", "0".repeat(64));
    let mut input = Bytes::from(head);
    assert_eq!(decoder.decode(&mut input), Err(PayloadError::ChunkTooLarge));
    let mut again = Bytes::from_static(b"5");
    assert_eq!(decoder.decode(&mut again), Err(PayloadError::ChunkTooLarge));
    assert_eq!(decoder.finish(), Err(PayloadError::ChunkTooLarge));
}

/// A signed chunk that is larger than any buffer: its bytes are forwarded as they arrive, and its last ones after
/// its signature was verified.
#[test]
fn streams_a_large_signed_chunk() {
    let case = good("signed-exact-64k");
    let mut intake = case.intake();
    let mut passed = 0;
    for piece in case.encoded.chunks(1000).take(60) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(bytes) = intake.push(&mut piece).unwrap() {
            passed += bytes.len();
        }
    }
    assert!(passed > 59_000, "{passed}");
}

/// The AWS SDK for JavaScript makes a chunk of each write to its stream, however small.
#[test]
fn joins_small_chunks() {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-decoded-content-length", HeaderValue::from(30_001));
    let declared = Declared::read(Mode::StreamingUnsignedTrailer, &headers).unwrap();
    let checks = Checks::new(&declared, &headers).unwrap();
    let mut intake = Intake::new(&declared, 30_001, checks, None).unwrap();
    let mut body = Bytes::from("3\r\nabc\r\n".repeat(10_000));
    let mut pieces = Vec::new();
    while let Some(bytes) = intake.push(&mut body).unwrap() {
        pieces.push(bytes);
    }
    assert_eq!(pieces.concat(), "abc".repeat(10_000).as_bytes());
    assert!(pieces.len() < 10, "{}", pieces.len());
}

fn plain(length: usize, pairs: &[(&'static str, &str)]) -> Result<Intake, Code> {
    let mut headers = HeaderMap::new();
    headers.insert("content-length", HeaderValue::from(length));
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let declared = Declared::read(Mode::Unsigned, &headers).unwrap();
    let checks = Checks::new(&declared, &headers).map_err(|e| e.code())?;
    let checks = checks.with_md5().with_crc64_ecma();
    Ok(Intake::new(&declared, length as u64, checks, None).unwrap())
}

fn run_plain(body: &[u8], pairs: &[(&'static str, &str)]) -> Result<Verified, Code> {
    let mut intake = plain(body.len(), pairs)?;
    let mut input = Bytes::copy_from_slice(body);
    assert_eq!(intake.push(&mut input), Ok(None));
    assert!(intake.is_complete());
    let (end, verified) = intake.finish().map_err(code)?;
    assert_eq!(end, body);
    Ok(verified)
}

#[test]
fn verifies_every_checksum_sample_in_a_header() {
    let json = vectors();
    for sample in json["checksum_samples"].as_array().unwrap() {
        let input = decode(&sample["input_base64"]);
        for algorithm in Algorithm::ALL {
            let value = text(&sample[algorithm.name().to_ascii_lowercase()]);
            let verified = run_plain(&input, &[(algorithm.header(), value)]).unwrap();
            assert_eq!(verified.checksum, Some((algorithm, value.to_owned())));
            let mut other = input.to_vec();
            other.push(b'!');
            let refused = run_plain(&other, &[(algorithm.header(), value)]);
            assert_eq!(refused, Err(Code::BadDigest), "{}", algorithm.name());
        }
    }
}

#[test]
fn computes_digests_of_cos() {
    let verified = run_plain(b"123456789", &[]).unwrap();
    assert_eq!(verified.crc64_ecma, Some(0x995d_c9bb_df19_39fa));
    let md5 = [
        37, 249, 231, 148, 50, 59, 69, 56, 133, 245, 24, 31, 27, 98, 77, 11,
    ];
    assert_eq!(verified.md5, Some(md5));
}

#[test]
fn rejects_malformed_digests_at_the_head() {
    let md5 = "XUFAKrxLKna5cZ2REBfFkg==";
    assert!(run_plain(b"hello", &[("content-md5", md5)]).is_ok());
    assert_eq!(
        run_plain(b"Hello", &[("content-md5", md5)]),
        Err(Code::BadDigest)
    );
    for (pairs, expected) in [
        (&[("content-md5", "AAAA")][..], Code::InvalidDigest),
        (
            &[("content-md5", md5), ("content-md5", md5)],
            Code::InvalidDigest,
        ),
        (
            &[("x-amz-checksum-crc32", "AAAAAAAA")],
            Code::InvalidRequest,
        ),
        (
            &[("x-amz-checksum-crc32", "not base64")],
            Code::InvalidRequest,
        ),
        (
            &[("x-amz-sdk-checksum-algorithm", "CRC32")],
            Code::InvalidRequest,
        ),
        (
            &[
                ("x-amz-checksum-crc32", "AAAAAA=="),
                ("x-amz-checksum-sha3", "AAAA"),
            ],
            Code::InvalidRequest,
        ),
    ] {
        assert_eq!(run_plain(b"", pairs), Err(expected), "{pairs:?}");
    }
}

#[test]
fn reports_an_unknown_checksum_beside_another_check() {
    let pairs = [
        ("x-amz-checksum-sha3", "whatever"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
    ];
    let verified = run_plain(b"hello", &pairs).unwrap();
    assert_eq!(verified.checksum, None);
    assert_eq!(verified.unchecked.as_deref(), Some("x-amz-checksum-sha3"));
    for name in [
        "x-amz-checksum-sha3",
        "x-amz-checksum-sha-512",
        "x-amz-checksum-a_b",
    ] {
        let alone = run_plain(b"hello", &[(name, "whatever")]);
        assert_eq!(alone, Err(Code::InvalidRequest), "{name}");
    }
}

/// The checksums of awscrt 0.38 and hashlib, over more than one block of each algorithm.
#[test]
fn checksums_of_long_bodies_match_awscrt() {
    let body: Vec<u8> = (0..200_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    for (algorithm, value) in [
        (Algorithm::Xxh64, "dlxZq2Coq1c="),
        (Algorithm::Xxh3, "5yHQI/HsfvY="),
        (Algorithm::Xxh128, "c8YmUK6TDdXnIdAj8ex+9g=="),
        (
            Algorithm::Sha512,
            "fgNlN/vlEzG0CYhz8FcnXTXRELFM/NH40N6uuA0cPpqO3iIUZmSbUOBvjxxQeOPOe4YugzBTnRceC24DyaG+jA==",
        ),
        (Algorithm::Md5, "kzodTLFccE/z7yVP1FrU/A=="),
    ] {
        for size in [1, 63, 1024, 70_000] {
            let mut intake = plain(body.len(), &[(algorithm.header(), value)]).unwrap();
            for piece in body.chunks(size) {
                let mut piece = Bytes::copy_from_slice(piece);
                while intake.push(&mut piece).unwrap().is_some() {}
            }
            let (_, verified) = intake.finish().unwrap();
            assert_eq!(
                verified.checksum,
                Some((algorithm, value.to_owned())),
                "{size}"
            );
        }
    }
}

#[test]
fn holds_the_end_of_a_plain_body_until_verified() {
    let mut intake = plain(5, &[("x-amz-checksum-crc32", "AAAAAA==")]).unwrap();
    let mut input = Bytes::from_static(b"hel");
    assert_eq!(intake.push(&mut input).unwrap().unwrap(), "hel");
    assert_eq!(intake.finish(), Err(PayloadError::LengthShort));
    let mut input = Bytes::from_static(b"lo");
    assert_eq!(intake.push(&mut input), Ok(None));
    let refused = intake.finish();
    assert_eq!(
        refused,
        Err(PayloadError::ChecksumMismatch(Algorithm::Crc32))
    );
    let mut input = Bytes::from_static(b"!");
    assert_eq!(intake.push(&mut input), Err(PayloadError::LengthExceeded));
}

/// Text that resembles framing, so that random bodies reach deep into the parser.
fn framing() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"0\r\n".to_vec()),
        Just(b"5\r\nhello\r\n".to_vec()),
        Just(b"3;x\r\nabc\r\n".to_vec()),
        Just(b";chunk-signature=".to_vec()),
        Just(b"x-amz-checksum-crc32:AAAAAA==\r\n".to_vec()),
        "[0-9a-fA-F]{1,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_splits_give_the_same(index in 0_usize..63, cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let case = all().nth(index).unwrap();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(case.encoded.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(case.run(&cuts), case.run(&[]));
    }

    #[test]
    fn any_bytes_end_in_a_verdict(body in framing(), length in 0_u64..20, mode in 0..4, cut in any::<prop::sample::Index>()) {
        let chain = good("signed-one-chunk").signatures.unwrap();
        let decoder = || match mode {
            0 => Decoder::signed(length, chain.clone()),
            1 => Decoder::signed_with_trailer(length, chain.clone(), Some("x-amz-checksum-crc32")),
            2 => Decoder::unsigned(length, Some("x-amz-checksum-crc32")),
            _ => Decoder::unsigned(length, None),
        };
        let run = |cuts: &[usize]| {
            let mut decoder = decoder();
            let (mut out, mut start) = (0, 0);
            for end in cuts.iter().copied().chain([body.len()]) {
                let mut piece = Bytes::copy_from_slice(&body[start..end]);
                start = end;
                loop {
                    match decoder.decode(&mut piece) {
                        Ok(Some(bytes)) => out += bytes.len(),
                        Ok(None) => break,
                        Err(error) => return (out, Err(error)),
                    }
                }
            }
            (out, decoder.finish())
        };
        let (out, verdict) = run(&[]);
        prop_assert!(out <= body.len() && out as u64 <= length);
        prop_assert!(verdict.is_err() || out as u64 == length);
        prop_assert_eq!(run(&[cut.index(body.len() + 1)]).1, verdict);
    }
}
