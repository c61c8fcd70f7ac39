//! A line of a head, or of what frames a chunk, as its bytes come: enough of it is kept to tell the
//! fields that frame a message, however the line is split.

use memchr::memchr;

/// As much of a line as tells the names apart and holds any length.
const START: usize = 64;

/// The line that is being read.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its start so far, in lower case.
    start: [u8; START],
    length: usize,
    last: u8,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            start: [0; START],
            length: 0,
            last: 0,
        }
    }
}

impl Line {
    /// Adds bytes, none of which is LF.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if let Some(free) = self.start.get_mut(self.length..) {
            for (to, from) in free.iter_mut().zip(bytes) {
                *to = from.to_ascii_lowercase();
            }
        }
        self.length += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Whether nothing of it has come yet.
    pub(crate) fn is_new(&self) -> bool {
        self.length == 0
    }

    /// Whether its LF would follow a CR.
    pub(crate) fn ends_in_cr(&self) -> bool {
        self.length > 0 && self.last == b'\r'
    }

    /// Whether it is CR alone: the end of a head.
    pub(crate) fn is_blank(&self) -> bool {
        self.length == 1
    }

    /// Its start, in lower case, and filled up with NUL.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    /// The value of the field `name`, which is in lower case and ends in the colon: without the blanks
    /// around it. `None`: the line is of another field. A value that is too long to be kept is empty.
    pub(crate) fn value_of(&self, name: &[u8]) -> Option<&[u8]> {
        let value = self.start.strip_prefix(name)?;
        Some(self.whole(value))
    }

    /// What stands before the first `;` or the end: the size of a chunk.
    pub(crate) fn before_semicolon(&self) -> &[u8] {
        match memchr(b';', &self.start) {
            Some(end) => trim(self.start.get(..end).unwrap_or_default()),
            None => self.whole(&self.start),
        }
    }

    fn whole<'l>(&self, kept: &'l [u8]) -> &'l [u8] {
        if self.length > START {
            return &[];
        }
        trim(kept)
    }
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | 0);
    let Some(first) = bytes.iter().position(|byte| !is_blank(byte)) else {
        return &[];
    };
    let end = bytes.iter().rposition(|byte| !is_blank(byte)).unwrap_or(0);
    bytes.get(first..=end).unwrap_or_default()
}

/// The number that `digits` are: digits alone, without a sign.
pub(crate) fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pieces: &[&str]) -> Line {
        let mut line = Line::default();
        for piece in pieces {
            line.append(piece.as_bytes());
        }
        line
    }

    #[test]
    fn a_value_is_read_however_its_line_comes() {
        for pieces in [
            &["Content-Length:  12 \r"][..],
            &["Content-", "LENGTH: ", "1", "2", "\r"],
        ] {
            let line = line(pieces);
            assert_eq!(line.value_of(b"content-length:"), Some(&b"12"[..]));
            assert_eq!(line.value_of(b"transfer-encoding:"), None);
            assert!(line.ends_in_cr() && !line.is_blank());
        }
        let long = line(&["content-length: ", &"0".repeat(START), "\r"]);
        assert_eq!(long.value_of(b"content-length:"), Some(&b""[..]));
        assert!(line(&["\r"]).is_blank());
        assert!(!line(&[""]).ends_in_cr());
        assert_eq!(line(&["1f;a=b\r"]).before_semicolon(), b"1f");
        assert_eq!(line(&["1F\r"]).before_semicolon(), b"1f");
    }

    #[test]
    fn a_number_is_digits_alone() {
        assert_eq!(number(b"010", 10), Some(10));
        assert_eq!(number(b"1f", 16), Some(31));
        for wrong in [
            &b""[..],
            b"+1",
            b"-1",
            b"1 2",
            b"1,1",
            b"99999999999999999999",
        ] {
            assert_eq!(number(wrong, 10), None);
        }
        assert_eq!(number(b"1f", 10), None);
    }
}
