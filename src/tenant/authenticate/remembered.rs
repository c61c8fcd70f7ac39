//! Verified tokens, remembered so that they need not be verified anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

/// Tokens remembered; twice as many are kept at most.
const TOKENS: usize = 16 * 1024;
/// Tables that they are spread over, so that cores seldom wait for each other.
const SHARDS: usize = 16;

/// Proofs by the hash of their token. Only what was found good gets in, so that a stranger can push
/// nobody out; the older half goes at once, when there are too many.
pub(super) struct Remembered<T>([Mutex<Generations<T>>; SHARDS]);

struct Generations<T> {
    young: HashMap<[u8; 32], Arc<T>>,
    old: HashMap<[u8; 32], Arc<T>>,
}

impl<T> Remembered<T> {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| {
            Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
            })
        }))
    }

    /// What is remembered of `token`, if it `still` holds; else what `check` finds.
    pub(super) fn get<E>(
        &self,
        token: &str,
        still: impl FnOnce(&T) -> bool,
        check: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let found = self.shard(&hash).get(&hash);
        if let Some(found) = found.filter(|found| still(found)) {
            return Ok(found);
        }
        let proof = Arc::new(check()?);
        self.shard(&hash).put(hash, &proof);
        Ok(proof)
    }

    fn shard(&self, hash: &[u8; 32]) -> MutexGuard<'_, Generations<T>> {
        let [first, ..] = &self.0;
        let at = hash.first().map_or(0, |byte| usize::from(*byte) % SHARDS);
        let shard = self.0.get(at).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Generations<T> {
    fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<T>> {
        if let Some(proof) = self.young.get(hash) {
            return Some(Arc::clone(proof));
        }
        let proof = self.old.remove(hash)?;
        self.put(*hash, &proof);
        Some(proof)
    }

    fn put(&mut self, hash: [u8; 32], proof: &Arc<T>) {
        if self.young.len() >= TOKENS / SHARDS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, Arc::clone(proof));
    }
}

impl<T> fmt::Debug for Remembered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_seen_again_stays_and_there_are_no_more_than_twice_the_limit() {
        let remembered = Remembered::<usize>::new();
        let mut checks = 0;
        for n in 0..6 * TOKENS {
            let token = if n % 100 == 0 {
                "often".to_owned()
            } else {
                n.to_string()
            };
            let _ = remembered.get(
                &token,
                |_| true,
                || {
                    checks += usize::from(token == "often");
                    Ok::<_, ()>(n)
                },
            );
        }
        assert_eq!(checks, 1);
        let kept = |shard: &Mutex<Generations<usize>>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        assert!(remembered.0.iter().map(kept).sum::<usize>() <= 2 * TOKENS);
        assert_eq!(
            remembered.get("often", |_| false, || Err("checked anew")),
            Err("checked anew")
        );
    }
}
