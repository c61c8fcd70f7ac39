//! [`CutText`]: the start of a stranger's text, kept without an allocation.

use std::fmt;

/// What shows that a text was longer.
const CUT: &[u8] = b"...";

/// The first bytes of a text, at most `N`; a longer one is cut at a character and ends in `...`.
///
/// What is no UTF-8 counts as the three bytes of U+FFFD, which readers get in place of it.
#[derive(Clone, Copy)]
pub struct CutText<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> CutText<N> {
    /// The start of `text`.
    pub fn of(text: &[u8]) -> Self {
        let mut cut = Self::default();
        if text.len() <= N && str::from_utf8(text).is_ok() {
            cut.push(text);
            return cut;
        }
        let room = N - CUT.len();
        let mut kept = 0;
        let mut shown = 0;
        for part in parts(text) {
            shown += part.shown;
            if shown > N {
                cut.push(text.get(..kept).unwrap_or_default());
                cut.push(CUT);
                return cut;
            }
            if shown <= room {
                kept += part.bytes;
            }
        }
        cut.push(text);
        cut
    }

    /// Adds `more`, which has room.
    fn push(&mut self, more: &[u8]) {
        let end = self.length + more.len();
        if let Some(places) = self.bytes.get_mut(self.length..end) {
            places.copy_from_slice(more);
            self.length = end;
        }
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

/// A character, or what is none.
struct TextPart {
    bytes: usize,
    /// Bytes of what a reader gets.
    shown: usize,
}

fn parts(text: &[u8]) -> impl Iterator<Item = TextPart> {
    text.utf8_chunks().flat_map(|chunk| {
        let of_char = |c: char| TextPart {
            bytes: c.len_utf8(),
            shown: c.len_utf8(),
        };
        let invalid = (!chunk.invalid().is_empty()).then(|| TextPart {
            bytes: chunk.invalid().len(),
            shown: char::REPLACEMENT_CHARACTER.len_utf8(),
        });
        chunk.valid().chars().map(of_char).chain(invalid)
    })
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
        assert_eq!(kept(b"\xff\xff"), Some(b"\xff\xff".to_vec()));
    }

    #[test]
    fn cuts_at_a_character_and_counts_what_is_shown() {
        let shown = |text: &[u8]| {
            let kept = CutText::<8>::of(text);
            String::from_utf8_lossy(kept.get().unwrap()).into_owned()
        };
        assert_eq!(shown("é照照照".as_bytes()), "é照...");
        assert_eq!(shown("x照照照".as_bytes()), "x照...");
        assert_eq!(shown("xxx照照".as_bytes()), "xxx...");
        assert_eq!(shown(&[0xff; 8]), "\u{fffd}...");
        assert_eq!(shown(b"1234567\xe4"), "12345...");
    }
}
