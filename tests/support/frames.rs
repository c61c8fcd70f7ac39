//! Bodies in `aws-chunked` frames, as clients write them.

use cosgate::encoding::hex::{hex, sha256_hex};
use cosgate::secret::Secret;
use cosgate::sign::sigv4::SigningKey;

use super::{ACME, Call, find};

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The signatures of chunks and of the trailer, each over the one before.
pub struct Chain {
    key: SigningKey,
    /// The date and the scope, a line each.
    scope: String,
    previous: String,
}

impl Chain {
    /// Of acme's `call`, whose signed head is `head`.
    pub fn new(call: &Call, head: &[u8]) -> Self {
        let amz_date = call.time.amz();
        let date = &amz_date[..8];
        let mark = b"Signature=";
        let at = find(head, mark).unwrap() + mark.len();
        Self {
            key: SigningKey::derive(&Secret::new(ACME.1), date, "ap-guangzhou", "s3"),
            scope: format!("{amz_date}\n{date}/ap-guangzhou/s3/aws4_request"),
            previous: String::from_utf8(head[at..at + 64].to_vec()).unwrap(),
        }
    }

    /// The signature of the next chunk.
    pub fn chunk(&mut self, data: &[u8]) -> String {
        self.next("PAYLOAD", &format!("{EMPTY_SHA256}\n{}", sha256_hex(data)))
    }

    /// The signature of the trailer, whose lines end in `\n`.
    pub fn trailer(&mut self, lines: &str) -> String {
        self.next("TRAILER", &sha256_hex(lines.as_bytes()))
    }

    fn next(&mut self, of: &str, hashes: &str) -> String {
        let Self {
            scope, previous, ..
        } = &self;
        let text = format!("AWS4-HMAC-SHA256-{of}\n{scope}\n{previous}\n{hashes}");
        self.previous = hex(&self.key.sign(text.as_bytes()));
        self.previous.clone()
    }
}

/// Chunks of `size` bytes and the last one, of none, without what ends the body: a trailer or an empty
/// line. Signed, if there is a chain.
pub fn chunks(object: &[u8], size: usize, mut chain: Option<&mut Chain>) -> Vec<u8> {
    let mut framed = Vec::with_capacity(object.len() + 4096);
    for data in object.chunks(size).chain([&[][..]]) {
        let signature = chain.as_mut().map(|chain| chain.chunk(data));
        let extension = signature.map(|hex| format!(";chunk-signature={hex}"));
        let head = format!("{:x}{}\r\n", data.len(), extension.unwrap_or_default());
        framed.extend_from_slice(head.as_bytes());
        framed.extend_from_slice(data);
        if !data.is_empty() {
            framed.extend_from_slice(b"\r\n");
        }
    }
    framed
}

/// The same body in HTTP's own chunks, each `size` bytes long.
pub fn http_chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut framed = chunks(body, size, None);
    framed.extend_from_slice(b"\r\n");
    framed
}

/// Acme's upload of `object` in signed chunks of `size` bytes, and its body.
pub fn signed_chunks(call: Call, object: &[u8], size: usize) -> (Call, Vec<u8>) {
    let call = call
        .payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .header("x-amz-decoded-content-length", &object.len().to_string());
    let mut any = Chain::new(&call, &call.head());
    let length = chunks(object, size, Some(&mut any)).len() + 2;
    let call = call.header("content-length", &length.to_string());
    let mut chain = Chain::new(&call, &call.head());
    let mut body = chunks(object, size, Some(&mut chain));
    body.extend_from_slice(b"\r\n");
    (call, body)
}
