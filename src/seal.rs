//! Sealed values, which leave cosgate and come back: with AES-256-GCM, so that only a holder of the secret
//! can write or read one.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Seals and opens with one key.
pub struct Seal(RandomizedNonceKey);

impl Seal {
    /// With the key that [`derive()`] makes. `None` never, but for a failure of the library.
    pub fn new(secret: &Secret, label: &[u8]) -> Option<Self> {
        let key = derive(secret, label)?;
        RandomizedNonceKey::new(&AES_256_GCM, &*key).ok().map(Self)
    }

    /// The nonce and `text`, sealed; `with` must be the same when it is opened. Wipe `text` yourself.
    pub fn seal(&self, with: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = Zeroizing::new(text.to_vec());
        let seal = self
            .0
            .seal_in_place_append_tag(Aad::from(with), &mut *sealed);
        Some([&seal.ok()?.as_ref()[..], &sealed].concat())
    }

    /// The text again; `None` when it was not sealed with this key and `with`.
    pub fn open(&self, with: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .0
            .open_in_place(nonce, Aad::from(with), &mut text)
            .ok()?
            .len();
        text.truncate(length);
        Some(text)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

/// A key for one purpose, derived from `secret` by HKDF (RFC 5869).
pub fn derive(secret: &Secret, label: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let root = Salt::new(HKDF_SHA256, b"cosgate").extract(secret.expose().as_bytes());
    let labels = [label];
    let mut key = Zeroizing::new([0; 32]);
    root.expand(&labels, HKDF_SHA256)
        .ok()?
        .fill(&mut *key)
        .ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_label_and_company_open_it() {
        let seal = |secret: &str, label: &[u8]| Seal::new(&Secret::new(secret), label).unwrap();
        let secret = "a-secret-0123456789-0123456789-01";
        let sealed = seal(secret, b"a").seal(b"with", b"text").unwrap();
        let opened = seal(secret, b"a").open(b"with", &sealed);
        assert_eq!(opened.unwrap().as_slice(), b"text");
        assert!(seal(secret, b"a").open(b"without", &sealed).is_none());
        assert!(seal(secret, b"b").open(b"with", &sealed).is_none());
        assert!(seal("another", b"a").open(b"with", &sealed).is_none());
        for length in 0..sealed.len() {
            let part = sealed.get(..length).unwrap();
            assert!(seal(secret, b"a").open(b"with", part).is_none());
        }
    }
}
