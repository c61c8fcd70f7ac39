//! [`CutText`]: the start of a stranger's text, kept without an allocation.

use std::fmt;

/// What shows that a text was longer.
const CUT: &[u8] = b"...";

/// The first bytes of a text, at most `N`; a longer one ends in `...`.
#[derive(Clone, Copy)]
pub struct CutText<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> CutText<N> {
    /// The start of `text`.
    pub fn of(text: &[u8]) -> Self {
        let mut cut = Self {
            length: text.len().min(N),
            ..Self::default()
        };
        for (place, byte) in cut.bytes.iter_mut().zip(text) {
            *place = *byte;
        }
        if text.len() > N {
            for (place, byte) in cut.bytes.iter_mut().rev().zip(CUT.iter().rev()) {
                *place = *byte;
            }
        }
        cut
    }

    /// What was kept; `None` of an empty text.
    pub fn get(&self) -> Option<&[u8]> {
        self.bytes
            .get(..self.length)
            .filter(|text| !text.is_empty())
    }
}

impl<const N: usize> Default for CutText<N> {
    fn default() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }
}

impl<const N: usize> fmt::Debug for CutText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CutText").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_a_cut_text_in_dots() {
        let kept = |text: &[u8]| CutText::<8>::of(text).get().map(<[u8]>::to_vec);
        assert_eq!(kept(b""), None);
        assert_eq!(kept(b"12345678"), Some(b"12345678".to_vec()));
        assert_eq!(kept(b"123456789"), Some(b"12345...".to_vec()));
    }
}
