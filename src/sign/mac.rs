//! HMAC keys, padded once (RFC 2104).

use hmac::{Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The block of SHA-1 and of SHA-256, in bytes (RFC 2104 section 2 pads an HMAC key to it).
const BLOCK: usize = 64;

/// HMAC-SHA1 ready under `key`.
pub(crate) fn hmac_sha1(key: &[u8]) -> Hmac<Sha1> {
    Hmac::new((&*block_key::<Sha1>(key)).into())
}

/// HMAC-SHA256 ready under `key`.
pub(crate) fn hmac_sha256(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new((&*block_key::<Sha256>(key)).into())
}

/// The key that `start` and the parts of a scope make, one HMAC-SHA256 after another.
pub(super) fn derived(start: &str, parts: &[&str]) -> Hmac<Sha256> {
    let mut mac = hmac_sha256(start.as_bytes());
    for part in parts {
        let key = mac.chain_update(part).finalize().into_bytes();
        mac = hmac_sha256(&*Zeroizing::new(<[u8; 32]>::from(key)));
    }
    mac
}

/// The MAC of `message` by `key`.
pub(super) fn mac_of(key: &Hmac<Sha256>, message: &[u8]) -> [u8; 32] {
    let mac = key.clone().chain_update(message);
    mac.finalize().into_bytes().into()
}

/// RFC 2104 section 2: a key longer than the block is hashed, then zeros fill the block.
fn block_key<D: Digest>(key: &[u8]) -> Zeroizing<[u8; BLOCK]> {
    let mut block = Zeroizing::new([0; BLOCK]);
    if key.len() > BLOCK {
        fill(&mut block, &D::digest(key));
    } else {
        fill(&mut block, key);
    }
    block
}

fn fill(block: &mut [u8; BLOCK], bytes: &[u8]) {
    for (slot, byte) in block.iter_mut().zip(bytes) {
        *slot = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_longer_than_the_block_is_hashed_first() {
        let long = [0xaa; 131];
        let ours = hmac_sha256(&long)
            .chain_update(b"x")
            .finalize()
            .into_bytes();
        let theirs = Hmac::<Sha256>::new_from_slice(&long)
            .unwrap()
            .chain_update(b"x")
            .finalize()
            .into_bytes();
        assert_eq!(ours, theirs);
    }
}
