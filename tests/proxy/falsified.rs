//! Bodies that were changed in transit: nothing is stored. Covers every upload form and every position, objects
//! and parts, with a length and in HTTP chunks.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex};

use crate::support::frames::{Chain, chunks, http_chunks};
use crate::support::{
    self, ACME, BUCKET, Call, Client, Gateway, Reply, Script, World, act, element, elements,
    header_of,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cosgate::encoding::hex::sha256_hex;
use cosgate::s3::checksum_name::Algorithm;
use crc_fast::CrcAlgorithm;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

const KEY: &str = "/photos/acme/k";
const STORED: &str = "acme/k";
/// Longer than one read from a socket, so that COS receives some bytes before the end is verified.
const LENGTH: usize = 80_001;
const CHUNK: usize = 65_536;
/// The size up to which a plain body without a length is held until it is complete.
const SPOOL: &str = "[upstream]\nspool_unknown_length = \"1MiB\"";

/// The form in which a client sends an object.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Checksum(Algorithm),
    ContentMd5,
    Hashed,
    Signed,
    SignedTrailer(Algorithm),
    UnsignedTrailer(Algorithm),
}

/// The change in transit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    ChunkSignature,
    DataFirst,
    DataLast,
    LastChunkSignature,
    /// One more byte of data, with the original signatures.
    Longer,
    /// Bytes after the end.
    More,
    Trailer,
    TrailerMissing,
    TrailerSignature,
    TrailerSignatureMissing,
    /// The body stops in its last chunk.
    Truncated,
}

/// The framing by HTTP.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Chunked,
    Length,
}

/// THE table: the faults of each form, and AWS's response to each.
fn faults(form: Form) -> &'static [(Fault, u16, &'static str)] {
    match form {
        Form::Checksum(_) | Form::ContentMd5 => &[
            (Fault::DataFirst, 400, "BadDigest"),
            (Fault::DataLast, 400, "BadDigest"),
            (Fault::Longer, 400, "BadDigest"),
            (Fault::Truncated, 400, "IncompleteBody"),
        ],
        Form::Hashed => &[
            (Fault::DataFirst, 400, "XAmzContentSHA256Mismatch"),
            (Fault::DataLast, 400, "XAmzContentSHA256Mismatch"),
            (Fault::Longer, 400, "XAmzContentSHA256Mismatch"),
            (Fault::Truncated, 400, "IncompleteBody"),
        ],
        Form::Signed => &[
            (Fault::ChunkSignature, 403, "SignatureDoesNotMatch"),
            (Fault::DataFirst, 403, "SignatureDoesNotMatch"),
            (Fault::DataLast, 403, "SignatureDoesNotMatch"),
            (Fault::LastChunkSignature, 403, "SignatureDoesNotMatch"),
            (Fault::Longer, 400, "IncompleteBody"),
            (Fault::More, 400, "MalformedTrailerError"),
            (Fault::Truncated, 400, "IncompleteBody"),
        ],
        Form::SignedTrailer(_) => &[
            (Fault::ChunkSignature, 403, "SignatureDoesNotMatch"),
            (Fault::DataFirst, 403, "SignatureDoesNotMatch"),
            (Fault::DataLast, 403, "SignatureDoesNotMatch"),
            (Fault::LastChunkSignature, 403, "SignatureDoesNotMatch"),
            (Fault::Longer, 400, "IncompleteBody"),
            (Fault::More, 400, "MalformedTrailerError"),
            (Fault::Trailer, 403, "SignatureDoesNotMatch"),
            (Fault::TrailerMissing, 400, "MalformedTrailerError"),
            (Fault::TrailerSignature, 403, "SignatureDoesNotMatch"),
            (Fault::TrailerSignatureMissing, 400, "MalformedTrailerError"),
            (Fault::Truncated, 400, "IncompleteBody"),
        ],
        Form::UnsignedTrailer(_) => &[
            (Fault::DataFirst, 400, "BadDigest"),
            (Fault::DataLast, 400, "BadDigest"),
            (Fault::Longer, 400, "IncompleteBody"),
            (Fault::More, 400, "MalformedTrailerError"),
            (Fault::Trailer, 400, "BadDigest"),
            (Fault::TrailerMissing, 400, "MalformedTrailerError"),
            (Fault::Truncated, 400, "IncompleteBody"),
        ],
    }
}

fn forms() -> Vec<Form> {
    let all = |form: fn(Algorithm) -> Form| Algorithm::ALL.into_iter().map(form);
    let plain = [Form::ContentMd5, Form::Hashed, Form::Signed].into_iter();
    plain
        .chain(all(Form::Checksum))
        .chain(all(Form::SignedTrailer))
        .chain(all(Form::UnsignedTrailer))
        .collect()
}

/// Every form, with a length and in HTTP chunks.
fn cases() -> impl Iterator<Item = (Form, Transport)> {
    let both = [Transport::Chunked, Transport::Length];
    let forms = forms().into_iter();
    forms.flat_map(move |form| both.map(|transport| (form, transport)))
}

/// Sends `object` in every form with every fault, and asserts the response. Then calls `check`.
fn send_all(addr: SocketAddr, target: &str, object: &[u8], check: impl Fn(&str)) {
    for case in cases() {
        for &(fault, status, code) in faults(case.0) {
            let shown = format!("{case:?} {fault:?} of {}", object.len());
            let reply = send(addr, target, object, case, Some(fault));
            assert_eq!((reply.status, &*reply.code()), (status, code), "{shown}");
            check(&shown);
        }
    }
}

impl Form {
    fn trailer(self) -> Option<Algorithm> {
        match self {
            Self::SignedTrailer(algorithm) | Self::UnsignedTrailer(algorithm) => Some(algorithm),
            Self::Checksum(_) | Self::ContentMd5 | Self::Hashed | Self::Signed => None,
        }
    }

    fn is_signed(self) -> bool {
        matches!(self, Self::Signed | Self::SignedTrailer(_))
    }

    fn is_framed(self) -> bool {
        self.is_signed() || self.trailer().is_some()
    }

    /// The headers of the form.
    fn describe(self, call: Call, object: &[u8]) -> Call {
        let call = match self {
            Self::Checksum(algorithm) => call
                .header(algorithm.header(), &digest(algorithm, object))
                .payload("UNSIGNED-PAYLOAD"),
            Self::ContentMd5 => call
                .header("content-md5", &support::md5_base64(object))
                .payload("UNSIGNED-PAYLOAD"),
            Self::Hashed => call.payload(&sha256_hex(object)),
            Self::Signed => call.payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            Self::SignedTrailer(_) => call.payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
            Self::UnsignedTrailer(_) => call.payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        };
        let call = match self.trailer() {
            Some(algorithm) => call.header("x-amz-trailer", algorithm.header()),
            None => call,
        };
        if !self.is_framed() {
            return call;
        }
        call.header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", &object.len().to_string())
    }

    /// The body with `fault`.
    fn body(self, object: &[u8], fault: Option<Fault>, chain: &mut Chain) -> Vec<u8> {
        let has = |it| fault == Some(it);
        let mut object = object.to_vec();
        let digest = self.trailer().map(|algorithm| digest(algorithm, &object));
        if has(Fault::Longer) {
            object.push(b'!');
        }
        let signer = self.is_signed().then_some(&mut *chain);
        let mut body = if self.is_framed() {
            chunks(&object, CHUNK, signer)
        } else {
            object
        };
        if has(Fault::ChunkSignature) {
            let mark = b"chunk-signature=";
            let at = support::find(&body, mark).unwrap() + mark.len();
            spoil(&mut body, at);
        }
        if has(Fault::LastChunkSignature) {
            let at = body.len() - 10;
            spoil(&mut body, at);
        }
        let (first, last) = if self.is_framed() {
            let first = support::find(&body, b"\r\n").unwrap() + 2;
            (first, last_line_end(&body[..body.len() - 2]) - 1)
        } else {
            (0, body.len().saturating_sub(1))
        };
        match fault {
            Some(Fault::DataFirst) => body[first] ^= 1,
            Some(Fault::DataLast) => body[last] ^= 1,
            Some(Fault::Truncated) => body.truncate(last),
            _ => {}
        }
        if !self.is_framed() || has(Fault::Truncated) {
            return body;
        }
        self.end(&mut body, digest, fault, chain);
        body
    }

    /// Adds the bytes after the last chunk.
    fn end(
        self,
        body: &mut Vec<u8>,
        digest: Option<String>,
        fault: Option<Fault>,
        chain: &mut Chain,
    ) {
        let has = |it| fault == Some(it);
        let mut lines = String::new();
        if let Some((algorithm, digest)) = self.trailer().zip(digest)
            && !has(Fault::TrailerMissing)
        {
            lines = format!("{}:{digest}\n", algorithm.header());
        }
        let mut signature = chain.trailer(&lines);
        if has(Fault::Trailer) {
            let at = lines.find(':').unwrap() + 1;
            let other = if lines[at..].starts_with('A') {
                "B"
            } else {
                "A"
            };
            lines.replace_range(at..=at, other);
        }
        if has(Fault::TrailerSignature) {
            let other = if signature.starts_with('0') { "1" } else { "0" };
            signature.replace_range(..1, other);
        }
        body.extend_from_slice(lines.replace('\n', "\r\n").as_bytes());
        if matches!(self, Self::SignedTrailer(_)) && !has(Fault::TrailerSignatureMissing) {
            body.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        if has(Fault::More) {
            body.extend_from_slice(b"more\r\n\r\n");
        }
    }
}

/// Changes the hex digit at `at`.
fn spoil(body: &mut [u8], at: usize) {
    body[at] = if body[at] == b'0' { b'1' } else { b'0' };
}

/// The end of the last complete line of `body`.
fn last_line_end(body: &[u8]) -> usize {
    let mut pairs = body.windows(2);
    pairs.rposition(|pair| pair == b"\r\n").unwrap_or(1)
}

fn digest(algorithm: Algorithm, bytes: &[u8]) -> String {
    let crc = |algorithm| crc_fast::checksum(algorithm, bytes).to_be_bytes();
    BASE64_STANDARD.encode(match algorithm {
        Algorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc)[4..].to_vec(),
        Algorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi)[4..].to_vec(),
        Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme).to_vec(),
        Algorithm::Sha1 => Sha1::digest(bytes).to_vec(),
        Algorithm::Sha256 => Sha256::digest(bytes).to_vec(),
        Algorithm::Sha512 => sha2::Sha512::digest(bytes).to_vec(),
        Algorithm::Md5 => md5::Md5::digest(bytes).to_vec(),
        Algorithm::Xxh64 => xxhash_rust::xxh64::xxh64(bytes, 0).to_be_bytes().to_vec(),
        Algorithm::Xxh3 => xxhash_rust::xxh3::xxh3_64(bytes).to_be_bytes().to_vec(),
        Algorithm::Xxh128 => xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes().to_vec(),
    })
}

fn object(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

/// Sends the upload as a real client would, and reads the response.
fn send(
    addr: SocketAddr,
    target: &str,
    object: &[u8],
    (form, transport): (Form, Transport),
    fault: Option<Fault>,
) -> Reply {
    let call = form.describe(Call::new(addr, "PUT", target).signed_by(ACME), object);
    let unsent = Chain::new(&call, &call.head());
    let whole = fault.filter(|fault| *fault != Fault::Truncated || transport == Transport::Chunked);
    let length = form.body(object, whole, &mut { unsent }).len();
    let call = match transport {
        Transport::Chunked => call.header("transfer-encoding", "chunked"),
        Transport::Length => call.header("content-length", &length.to_string()),
    };
    let head = call.head();
    let mut body = form.body(object, fault, &mut Chain::new(&call, &head));
    if transport == Transport::Chunked {
        body = http_chunks(&body, 10_000);
        if fault == Some(Fault::Truncated) && !form.is_framed() {
            body.truncate(body.len() - 5);
        }
    }
    let mut client = Client::connect(addr);
    client.write(&head);
    client.write(&body);
    if fault == Some(Fault::Truncated) {
        client.stream.shutdown(Shutdown::Write).unwrap();
    }
    client.read_reply("PUT")
}

#[test]
fn stores_every_upload_form() {
    let world = World::edited(|toml| toml.replacen("[upstream]", SPOOL, 1));
    for length in [0, 10, LENGTH] {
        let object = object(length);
        for case in cases() {
            let reply = send(world.gateway.addr, KEY, &object, case, None);
            assert_eq!(reply.status, 200, "{case:?} {}", reply.text());
            let stored = world.emulator.object_bytes(BUCKET, STORED);
            assert_eq!(stored.unwrap(), object, "{case:?}");
        }
    }
}

#[test]
fn stores_no_falsified_object() {
    let world = World::edited(|toml| toml.replacen("[upstream]", SPOOL, 1));
    for length in [10, LENGTH] {
        send_all(world.gateway.addr, KEY, &object(length), |case| {
            world.fetch("GET", KEY).assert_error(404, "NoSuchKey");
            assert!(!world.emulator.object_exists(BUCKET, STORED), "{case}");
        });
    }
}

#[test]
fn stores_no_falsified_part() {
    let world = World::edited(|toml| toml.replacen("[upstream]", SPOOL, 1));
    let created = world.fetch("POST", &format!("{KEY}?uploads"));
    let id = element(&created.assert_ok().text(), "UploadId");
    let target = format!("{KEY}?partNumber=1&uploadId={id}");
    let parts = || {
        let listed = world.fetch("GET", &format!("{KEY}?uploadId={id}"));
        elements(&listed.assert_ok().text(), "Size")
    };
    let object = object(LENGTH);
    send_all(world.gateway.addr, &target, &object, |case| {
        assert!(parts().is_empty(), "{case}");
    });
    let signed = (Form::Signed, Transport::Length);
    send(world.gateway.addr, &target, &object, signed, None).assert_ok();
    assert_eq!(parts(), [LENGTH.to_string()]);
}

/// The emulator stores nothing because COS gets fewer bytes than its head announced.
#[test]
fn withholds_the_end_of_falsified_bodies() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let cos = act(move |peer| {
        let Some(head) = peer.head() else { return };
        let length = header_of(&head, "content-length").unwrap().parse().unwrap();
        let got = peer.body(length);
        noted.lock().unwrap().push((length, got));
    });
    let emulator = support::emulator();
    let script = Script::new(vec![cos]);
    let toml = support::toml(script.addr, emulator.sts_addr(), "");
    let gateway = Gateway::start(&toml.replacen("[upstream]", SPOOL, 1));
    send_all(gateway.addr, KEY, &object(LENGTH), |_| {});
    support::eventually("each connection is over", || {
        seen.lock().unwrap().len() == *script.connections.lock().unwrap()
    });
    let seen = seen.lock().unwrap();
    for (length, got) in seen.iter() {
        assert!(*length >= LENGTH && got < length, "{got} of {length}");
    }
    // A body that is held until complete never reaches COS, and nor may one that arrives in one read.
    let begun = seen.iter().filter(|(_, got)| *got > 0).count();
    assert!(begun > 50, "{begun} of {}", seen.len());
}
