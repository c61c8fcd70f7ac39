//! Line scanner: reads a line of a head, or one that frames a chunk, as its bytes arrive. It keeps as
//! much of the line as a framing field needs, however the line is split.

use memchr::memchr;

/// Bytes of a line that are kept: enough for the name and the value of each framing field.
const START: usize = 64;

/// The line that is being read.
#[derive(Debug)]
pub(crate) struct WireLine {
    /// Its start so far, in lower case.
    start: [u8; START],
    length: usize,
    last: u8,
}

impl Default for WireLine {
    fn default() -> Self {
        Self {
            start: [0; START],
            length: 0,
            last: 0,
        }
    }
}

impl WireLine {
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

    /// Its start, in lower case.
    pub(crate) fn start(&self) -> &[u8] {
        self.start.get(..self.length).unwrap_or(&self.start)
    }

    /// The name and the value of the field that it is, the value without the white space around it. A
    /// value that is too long to be kept is empty. Where the name is too long, both are.
    pub(crate) fn field(&self) -> (&[u8], &[u8]) {
        let start = self.start();
        let Some(colon) = memchr(b':', start) else {
            return (&[], &[]);
        };
        let (name, value) = start.split_at(colon);
        (name, self.whole(value.get(1..).unwrap_or_default()))
    }

    /// What stands before the first `;` or the end: the size of a chunk.
    pub(crate) fn before_semicolon(&self) -> &[u8] {
        let start = self.start();
        match memchr(b';', start) {
            Some(end) => trim(start.get(..end).unwrap_or_default()),
            None => self.whole(start),
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
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let Some(first) = bytes.iter().position(|byte| !is_blank(byte)) else {
        return &[];
    };
    let end = bytes.iter().rposition(|byte| !is_blank(byte)).unwrap_or(0);
    bytes.get(first..=end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pieces: &[&str]) -> WireLine {
        let mut line = WireLine::default();
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
            assert_eq!(line.field(), (&b"content-length"[..], &b"12"[..]));
            assert!(line.ends_in_cr() && !line.is_blank());
        }
        let long = line(&["content-length: ", &"0".repeat(START), "\r"]);
        assert_eq!(long.field(), (&b"content-length"[..], &b""[..]));
        assert_eq!(line(&["no colon\r"]).field(), (&b""[..], &b""[..]));
        assert!(line(&["\r"]).is_blank());
        assert!(!line(&[""]).ends_in_cr());
        assert_eq!(line(&["1f;a=b\r"]).before_semicolon(), b"1f");
        assert_eq!(line(&["1F\r"]).before_semicolon(), b"1f");
    }
}
