//! Object content made from a seed, so that any byte of it can be verified at any time without storing it. Pure.
//!
//! The content is a sequence of 8-byte words; word `n` is a hash of the seed and `n`. A range can therefore be
//! verified without the rest, and content of any length needs no memory.

/// The content of one write: its seed and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    seed: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// Compares bytes that arrive in pieces with a part of a [`Content`].
#[derive(Clone, Debug)]
pub(super) struct ContentComparison {
    content: Content,
    at: u64,
    end: u64,
    is_equal: bool,
}

const WORD: u64 = 8;

impl Content {
    /// The content of `seed`.
    pub(super) fn new(seed: u64, length: u64) -> Self {
        Self { seed, length }
    }

    /// Fills `out` with the bytes from `offset` on.
    pub(super) fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut index = offset / WORD;
        let skip = usize::try_from(offset % WORD).unwrap_or(0);
        let first = self.word(index);
        let (head, body) = out.split_at_mut(out.len().min((8 - skip) % 8));
        for (slot, byte) in head.iter_mut().zip(first.iter().skip(skip)) {
            *slot = *byte;
        }
        if skip > 0 {
            index += 1;
        }
        let (words, tail) = body.as_chunks_mut::<8>();
        for word in words {
            *word = self.word(index);
            index += 1;
        }
        for (slot, byte) in tail.iter_mut().zip(self.word(index)) {
            *slot = byte;
        }
    }

    /// `length` bytes from `offset` on.
    pub(super) fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.fill(offset, &mut out);
        out
    }

    /// Starts to compare the bytes `from` to before `to`.
    pub(super) fn compare(self, from: u64, to: u64) -> ContentComparison {
        ContentComparison {
            content: self,
            at: from,
            end: to,
            is_equal: true,
        }
    }

    fn word(&self, index: u64) -> [u8; 8] {
        mix(self.seed ^ mix(index)).to_le_bytes()
    }
}

impl ContentComparison {
    /// Compares the next bytes that have arrived.
    pub(super) fn update(&mut self, mut data: &[u8]) {
        let mut block = [0; 4096];
        while !data.is_empty() {
            let (now, rest) = data.split_at(data.len().min(block.len()));
            let expected = block.get_mut(..now.len()).unwrap_or_default();
            self.content.fill(self.at, expected);
            self.is_equal &= *expected == *now;
            self.at += now.len() as u64;
            data = rest;
        }
    }

    /// Whether exactly these bytes have arrived, each with the right value.
    pub(super) fn is_whole(&self) -> bool {
        self.is_equal && self.at == self.end
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014): every bit of the input changes half of the output's.
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to below 1 that follows from a seed.
pub(super) fn fraction(seed: u64) -> f64 {
    (mix(seed) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_range_is_a_part_of_the_whole(seed: u64, offset in 0_usize..300, length in 0_usize..300) {
            let content = Content::new(seed, 600);
            let whole = content.bytes(0, 600);
            prop_assert_eq!(&content.bytes(offset as u64, length), &whole[offset..offset + length]);
        }

        #[test]
        fn a_comparison_finds_every_flip_and_every_cut(length in 1_usize..9000, at: prop::sample::Index, piece in 1_usize..5000) {
            let content = Content::new(5, length as u64);
            let good = content.bytes(0, length);
            let compare = |data: &[u8]| {
                let mut comparison = content.compare(0, length as u64);
                data.chunks(piece).for_each(|data| comparison.update(data));
                comparison.is_whole()
            };
            prop_assert!(compare(&good));
            let mut flipped = good.clone();
            flipped[at.index(length)] ^= 1;
            prop_assert!(!compare(&flipped));
            prop_assert!(!compare(&good[..length - 1]));
            let mut long = good;
            long.push(0);
            prop_assert!(!compare(&long));
        }
    }

    #[test]
    fn different_seeds_differ_in_content() {
        assert_ne!(
            Content::new(1, 8).bytes(0, 8),
            Content::new(2, 8).bytes(0, 8)
        );
    }
}
