//! The chain of signatures through a signed `aws-chunked` body.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>

use sha2::{Digest as _, Sha256};

use super::PayloadError;
use crate::encoding::hex::push_hex;
use crate::sign::sigv4::{CredentialScope, SigningKey};

/// The SHA-256 of nothing, which stands where a chunk's own headers would be hashed.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const CHUNK: &str = "AWS4-HMAC-SHA256-PAYLOAD\n";
const TRAILER: &str = "AWS4-HMAC-SHA256-TRAILER\n";
/// A string to sign is about 310 bytes long: one allocation holds it.
const STRING_TO_SIGN_CAPACITY: usize = 384;

/// Checks each chunk's signature, which covers the one before it; the request's own is the first.
#[derive(Clone, Debug)]
pub struct ChunkSignatures {
    key: SigningKey,
    /// The date and the scope, a line each.
    scope: String,
    previous: [u8; 32],
    hash: Sha256,
}

impl ChunkSignatures {
    /// A chain that starts at `seed`, the signature of the request's head. `amz_date` is
    /// `20260115T123045Z`, as the head was signed with.
    pub fn new(
        key: SigningKey,
        amz_date: &str,
        scope: &CredentialScope<'_>,
        seed: [u8; 32],
    ) -> Self {
        Self {
            key,
            scope: format!("{amz_date}\n{scope}\n"),
            previous: seed,
            hash: Sha256::new(),
        }
    }

    /// Signs a chunk, as the client that sends it, and goes on to the next.
    pub fn sign_chunk(&mut self, data: &[u8]) -> [u8; 32] {
        self.update(data);
        let text = self.chunk_to_sign();
        self.previous = self.key.sign(text.as_bytes());
        self.previous
    }

    /// Signs the trailer, as the client that sends it. `canonical` is each trailer as `name:value\n`.
    pub fn sign_trailer(&self, canonical: &str) -> [u8; 32] {
        self.key.sign(self.trailer_to_sign(canonical).as_bytes())
    }

    /// Takes the next bytes of the chunk.
    pub(super) fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
    }

    /// Checks the chunk that has now come whole, and goes on to the next.
    pub(super) fn end_chunk(&mut self, signature: &[u8; 32]) -> Result<(), PayloadError> {
        let text = self.chunk_to_sign();
        if !self.key.verify(text.as_bytes(), signature) {
            return Err(PayloadError::ChunkSignature);
        }
        self.previous = *signature;
        Ok(())
    }

    /// Checks the signature of the trailer, which follows that of the last chunk. `canonical` is each
    /// trailer as `name:value\n`.
    pub(super) fn check_trailer(
        &self,
        canonical: &str,
        signature: &[u8; 32],
    ) -> Result<(), PayloadError> {
        let text = self.trailer_to_sign(canonical);
        if self.key.verify(text.as_bytes(), signature) {
            Ok(())
        } else {
            Err(PayloadError::TrailerSignature)
        }
    }

    fn chunk_to_sign(&mut self) -> String {
        let mut text = self.string_to_sign(CHUNK);
        text.push_str(EMPTY_SHA256);
        text.push('\n');
        push_hex(&mut text, &self.hash.finalize_reset());
        text
    }

    fn trailer_to_sign(&self, canonical: &str) -> String {
        let mut text = self.string_to_sign(TRAILER);
        push_hex(&mut text, &Sha256::digest(canonical));
        text
    }

    fn string_to_sign(&self, algorithm: &str) -> String {
        let mut text = String::with_capacity(STRING_TO_SIGN_CAPACITY);
        text.push_str(algorithm);
        text.push_str(&self.scope);
        push_hex(&mut text, &self.previous);
        text.push('\n');
        text
    }
}
