//! HTTP/2 header blocks (HPACK, RFC 7541), read only as far as it takes to see each `:path` as its
//! client sent it.
//!
//! h2 gives a `:path` as a `PathAndQuery`, and that type drops a fragment silently. So this file converts the
//! same bytes and compares the result with them. Indexes of the dynamic table count from its newest entry.
//! Of that table only one bit is kept for each entry: whether its name is `:path`. h2 itself refuses an index
//! of an evicted entry.

use std::borrow::Cow;

use http::uri::PathAndQuery;

const PATH: &[u8] = b":path";
/// The entries of the static table (RFC 7541 appendix A) that are named `:path`.
const STATIC_PATHS: [u64; 2] = [4, 5];
/// The first index of the dynamic table.
const DYNAMIC: u64 = 62;
/// As many entries as the dynamic table can have: each counts 32 bytes and more of
/// [`TABLE_BYTES`] (RFC 7541 section 4.1).
const ENTRIES: u64 = u128::BITS as u64;
/// The size of the dynamic table, RFC 7541's default.
pub(crate) const TABLE_BYTES: u32 = 4096;
/// An encoded name that may be `:path`. A longer one holds the end of Huffman's code, or other letters.
const NAME_BYTES: usize = 16;
/// The longest encoded `:path` that is read; `http` takes no target that is longer.
const PATH_BYTES: usize = u16::MAX as usize;
/// An integer has no more octets than this after its first; h2 takes one less.
const MORE_OCTETS: u32 = 5;

/// Huffman's code (RFC 7541 appendix B): the symbols of each length in bits, in the order of their codes.
/// It is canonical: the first code of a length follows the last of the one before.
const SYMBOLS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (
        22,
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    ),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    ),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (
        26,
        b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    ),
    (
        27,
        b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    ),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    ),
    (30, b"\x0a\x0d\x16"),
];

/// Reads the header blocks of one connection, as their bytes come.
#[derive(Debug, Default)]
pub struct HeaderBlocks {
    at: BlockPosition,
    /// Whether the field that is being read enters the dynamic table.
    is_indexed: bool,
    /// Whether its name is `:path`.
    is_path: bool,
    /// Whether the text that is being read is in Huffman's code.
    is_huffman: bool,
    /// What is kept of that text.
    text: Vec<u8>,
    /// For each entry of the dynamic table whether its name is `:path`; the newest is the lowest bit.
    paths: u128,
}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BlockPosition {
    /// A new field.
    #[default]
    Field,
    /// The rest of an integer.
    Integer {
        of: IntegerMeaning,
        value: u64,
        octets: u32,
    },
    /// The start of a text: its length.
    Length(FieldPart),
    /// A text, of so many bytes more.
    Bytes(FieldPart, u64),
}

/// What an integer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IntegerMeaning {
    /// Which entry a field is.
    Index,
    /// The length of a text.
    Length(FieldPart),
    /// Which entry has the name of a field; 0: the name follows.
    Name,
    /// The size of the dynamic table.
    Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldPart {
    Name,
    Value,
}

/// A header block that is not to be understood: nothing is known of what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl HeaderBlocks {
    /// Takes more of a block. Calls `altered` with what h2 makes of a `:path` where that is not what
    /// the client sent.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        mut altered: impl FnMut(String),
    ) -> Result<(), Unreadable> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                BlockPosition::Field => {
                    self.begin_field(byte)?;
                    bytes = rest;
                }
                BlockPosition::Integer { of, value, octets } => {
                    let value = value + (u64::from(byte & 0x7f) << (7 * octets));
                    if byte & 0x80 == 0 {
                        self.number(of, value)?;
                    } else if octets + 1 < MORE_OCTETS {
                        let octets = octets + 1;
                        self.at = BlockPosition::Integer { of, value, octets };
                    } else {
                        return Err(Unreadable);
                    }
                    bytes = rest;
                }
                BlockPosition::Length(text) => {
                    self.is_huffman = byte & 0x80 != 0;
                    self.text.clear();
                    self.integer(byte, 0x7f, IntegerMeaning::Length(text))?;
                    bytes = rest;
                }
                BlockPosition::Bytes(text, left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (piece, after) = bytes.split_at(here);
                    let room = self.max_kept(text).saturating_sub(self.text.len());
                    let kept = piece.get(..room).unwrap_or(piece);
                    self.text.extend_from_slice(kept);
                    self.at = BlockPosition::Bytes(text, left - here as u64);
                    bytes = after;
                }
            }
            if let BlockPosition::Bytes(text, 0) = self.at {
                self.end_text(text, &mut altered)?;
            }
        }
        Ok(())
    }

    /// The block has ended: no field may be incomplete.
    pub fn end(&self) -> Result<(), Unreadable> {
        if self.at == BlockPosition::Field {
            return Ok(());
        }
        Err(Unreadable)
    }

    /// The first byte of a field (RFC 7541 section 6).
    fn begin_field(&mut self, byte: u8) -> Result<(), Unreadable> {
        self.is_indexed = byte & 0xc0 == 0x40;
        match byte {
            0x80.. => self.integer(byte, 0x7f, IntegerMeaning::Index),
            0x40.. => self.integer(byte, 0x3f, IntegerMeaning::Name),
            0x20.. => self.integer(byte, 0x1f, IntegerMeaning::Size),
            _ => self.integer(byte, 0x0f, IntegerMeaning::Name),
        }
    }

    /// The first byte of an integer (RFC 7541 section 5.1).
    fn integer(&mut self, byte: u8, mask: u8, of: IntegerMeaning) -> Result<(), Unreadable> {
        let value = u64::from(byte & mask);
        if value < u64::from(mask) {
            return self.number(of, value);
        }
        let octets = 0;
        self.at = BlockPosition::Integer { of, value, octets };
        Ok(())
    }

    /// An integer that is whole.
    fn number(&mut self, of: IntegerMeaning, value: u64) -> Result<(), Unreadable> {
        self.at = match (of, value) {
            (IntegerMeaning::Index, 0) => return Err(Unreadable),
            // Its value was judged when it came.
            (IntegerMeaning::Index | IntegerMeaning::Size, _) => BlockPosition::Field,
            (IntegerMeaning::Name, 0) => BlockPosition::Length(FieldPart::Name),
            (IntegerMeaning::Name, index) => {
                self.is_path = self.is_named_path(index);
                BlockPosition::Length(FieldPart::Value)
            }
            (IntegerMeaning::Length(text), length) => {
                let is_path = text == FieldPart::Value && self.is_path;
                if is_path && length > PATH_BYTES as u64 {
                    return Err(Unreadable);
                }
                BlockPosition::Bytes(text, length)
            }
        };
        Ok(())
    }

    fn is_named_path(&self, index: u64) -> bool {
        match index.checked_sub(DYNAMIC) {
            None => STATIC_PATHS.contains(&index),
            Some(age) => age < ENTRIES && self.paths >> age & 1 == 1,
        }
    }

    /// How much of a text is kept. A name that is too long is so by one byte.
    fn max_kept(&self, text: FieldPart) -> usize {
        match text {
            FieldPart::Name => NAME_BYTES + 1,
            FieldPart::Value if self.is_path => PATH_BYTES,
            FieldPart::Value => 0,
        }
    }

    fn end_text(
        &mut self,
        text: FieldPart,
        altered: &mut impl FnMut(String),
    ) -> Result<(), Unreadable> {
        if text == FieldPart::Name {
            self.is_path = self.text.len() <= NAME_BYTES && &*self.decoded()? == PATH;
            self.at = BlockPosition::Length(FieldPart::Value);
            return Ok(());
        }
        if self.is_path {
            let sent = self.decoded()?;
            if let Ok(read) = PathAndQuery::try_from(&*sent)
                && read.as_str().as_bytes() != &*sent
            {
                altered(read.as_str().to_owned());
            }
            self.text = Vec::new();
        }
        if self.is_indexed {
            self.paths = self.paths << 1 | u128::from(self.is_path);
        }
        self.at = BlockPosition::Field;
        Ok(())
    }

    fn decoded(&self) -> Result<Cow<'_, [u8]>, Unreadable> {
        if self.is_huffman {
            return decode(&self.text).map(Cow::Owned).ok_or(Unreadable);
        }
        Ok(Cow::Borrowed(&self.text))
    }
}

/// Decodes a text in Huffman's code. Less than a byte of ones may follow its last symbol (RFC 7541
/// section 5.2).
fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(coded.len() * 2);
    let (mut window, mut bits) = (0_u64, 0_u32);
    let mut rest = coded.iter();
    loop {
        while bits <= 56
            && let Some(&byte) = rest.next()
        {
            window |= u64::from(byte) << (56 - bits);
            bits += 8;
        }
        if bits < 8 && window == !(u64::MAX.checked_shr(bits).unwrap_or(0)) {
            return Some(decoded);
        }
        let (symbol, length) = symbol(window)?;
        bits = bits.checked_sub(length)?;
        window <<= length;
        decoded.push(symbol);
    }
}

/// The symbol that `window` begins with, and its length in bits.
fn symbol(window: u64) -> Option<(u8, u32)> {
    let (mut first, mut before) = (0, 0);
    for (length, symbols) in SYMBOLS {
        first <<= length - before;
        before = length;
        let code = window >> (u64::BITS - length);
        let index = usize::try_from(code - first).ok()?;
        if let Some(&symbol) = symbols.get(index) {
            return Some((symbol, length));
        }
        first += symbols.len() as u64;
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Codes by Huffman.
    pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
        let (mut coded, mut window, mut bits) = (Vec::new(), 0_u64, 0);
        for byte in text {
            let (mut first, mut before) = (0_u64, 0);
            for (length, symbols) in SYMBOLS {
                first <<= length - before;
                before = length;
                if let Some(index) = symbols.iter().position(|symbol| symbol == byte) {
                    window = window << length | (first + index as u64);
                    bits += length;
                }
                first += symbols.len() as u64;
            }
            while bits >= 8 {
                bits -= 8;
                coded.push(u8::try_from(window >> bits & 0xff).unwrap());
            }
        }
        if bits > 0 {
            coded.push(u8::try_from((window << (8 - bits) | 0xff >> bits) & 0xff).unwrap());
        }
        coded
    }

    fn integer(out: &mut Vec<u8>, pattern: u8, mask: u8, value: usize) {
        match u8::try_from(value) {
            Ok(value) if value < mask => out.push(pattern | value),
            _ => {
                out.push(pattern | mask);
                let mut left = value - usize::from(mask);
                while left > 0x7f {
                    out.push(0x80 | u8::try_from(left & 0x7f).unwrap());
                    left >>= 7;
                }
                out.push(u8::try_from(left).unwrap());
            }
        }
    }

    pub(crate) fn text(out: &mut Vec<u8>, text: &[u8], huffman: bool) {
        let coded = if huffman { encode(text) } else { text.to_vec() };
        integer(out, if huffman { 0x80 } else { 0 }, 0x7f, coded.len());
        out.extend_from_slice(&coded);
    }

    /// A field whose name is at `index`, or is `name`.
    fn literal(kind: u8, index: usize, name: &[u8], value: &[u8], huffman: bool) -> Vec<u8> {
        let mut out = Vec::new();
        integer(
            &mut out,
            kind,
            if kind == 0x40 { 0x3f } else { 0x0f },
            index,
        );
        if index == 0 {
            text(&mut out, name, huffman);
        }
        text(&mut out, value, huffman);
        out
    }

    fn altered(block: &[u8]) -> Result<Vec<String>, Unreadable> {
        let mut blocks = HeaderBlocks::default();
        let mut all = Vec::new();
        blocks.take(block, |path| all.push(path))?;
        blocks.end().map(|()| all)
    }

    #[test]
    fn a_fragment_is_seen_in_every_form_of_a_path() {
        for huffman in [false, true] {
            for kind in [0x40, 0x00, 0x10] {
                for (index, name) in [(4, &b""[..]), (5, b""), (0, b":path")] {
                    for (path, read) in [
                        ("/b/hash#frag", "/b/hash"),
                        ("/b/k?a=b#c", "/b/k?a=b"),
                        ("/#", "/"),
                        ("#x", "/"),
                        ("?a#x", "?a"),
                    ] {
                        let block = literal(kind, index, name, path.as_bytes(), huffman);
                        assert_eq!(altered(&block), Ok(vec![read.to_owned()]), "{path}");
                    }
                    for path in [
                        "/b/k",
                        "/b/a%23b?x=%23",
                        "/",
                        "*",
                        "/b//k?a?b",
                        "/中",
                        "",
                        "no",
                    ] {
                        let block = literal(kind, index, name, path.as_bytes(), huffman);
                        assert_eq!(altered(&block), Ok(Vec::new()), "{path}");
                    }
                }
                let other = literal(kind, 0, b"x-amz-meta-color", b"/#fff", huffman);
                assert_eq!(altered(&other), Ok(Vec::new()));
            }
        }
    }

    #[test]
    fn a_name_is_found_in_the_dynamic_table_however_old_it_is() {
        let mut block = literal(0x40, 0, b":path", b"/first", true);
        for age in 0..ENTRIES {
            let index = usize::try_from(DYNAMIC + age).unwrap();
            block.extend(literal(0x00, index, b"", b"/b/k#f", true));
            assert_eq!(altered(&block), Ok(vec!["/b/k".to_owned()]), "{age}");
            block.truncate(block.len() - literal(0x00, index, b"", b"/b/k#f", true).len());
            // An older entry than that is of another name.
            block.extend(literal(0x00, index + 1, b"", b"/b/k#f", true));
            assert_eq!(altered(&block), Ok(Vec::new()), "{age}");
            block.truncate(block.len() - literal(0x00, index + 1, b"", b"/b/k#f", true).len());
            block.extend(literal(0x40, 0, b"a", b"", false));
        }
        let index = usize::try_from(DYNAMIC + ENTRIES).unwrap();
        block.extend(literal(0x40, index, b"", b"/b/k#f", true));
        assert_eq!(altered(&block), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_header_block_is_unreadable() {
        for block in [
            &[0x80][..],                                       // the entry 0
            &[0xff],                                           // an integer without its end
            &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0],          // one that is too long
            &[0x04],                                           // no value
            &[0x04, 0x05, b'/'],                               // one that is too short
            &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff],             // the end of Huffman's code
            &[0x04, 0x82, 0x07, 0xff],                         // a whole byte of padding
            &[0x04, 0x81, 0x00],                               // padding that is not ones
            &[0x00, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00], // the same in a name
        ] {
            assert_eq!(altered(block), Err(Unreadable), "{block:x?}");
        }
        let long = literal(0x00, 4, b"", &vec![b'/'; PATH_BYTES + 1], false);
        assert_eq!(altered(&long), Err(Unreadable));
        let other = literal(0x00, 0, b"x", &vec![b'/'; PATH_BYTES + 1], false);
        assert_eq!(altered(&other), Ok(Vec::new()));
    }

    /// RFC 7541 appendix C.4 and C.6.
    #[test]
    fn huffmans_code_is_the_rfcs() {
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                "d07abe941054d444a8200595040b8166e082a62d1bff",
            ),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ),
        ] {
            let bytes = crate::encoding::hex::hex(&encode(text.as_bytes()));
            assert_eq!(bytes, coded);
            assert_eq!(
                decode(&encode(text.as_bytes())).as_deref(),
                Some(text.as_bytes())
            );
        }
        let mut all: Vec<u8> = SYMBOLS
            .iter()
            .flat_map(|(_, symbols)| *symbols)
            .copied()
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..=255).collect::<Vec<u8>>());
    }

    proptest! {
        #[test]
        fn what_is_coded_decodes_to_the_same(text: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn how_a_block_arrives_changes_nothing(block: Vec<u8>, at in any::<prop::sample::Index>()) {
            let (a, b) = block.split_at(at.index(block.len() + 1));
            let mut blocks = HeaderBlocks::default();
            let mut all = Vec::new();
            let mut taken = blocks.take(a, |path| all.push(path));
            if taken.is_ok() {
                taken = blocks.take(b, |path| all.push(path));
            }
            let taken = taken.and_then(|()| blocks.end()).map(|()| all);
            prop_assert_eq!(taken, altered(&block));
        }

        #[test]
        fn an_altered_path_is_never_missed(
            before in prop::collection::vec(("[a-z:]{0,6}", "[ -~]{0,20}", any::<bool>()), 0..6),
            path in "[/?#a-z]{1,12}",
            huffman: bool,
        ) {
            let mut block = Vec::new();
            let mut expected = Vec::new();
            for (name, value, huffman) in &before {
                block.extend(literal(0x40, 0, name.as_bytes(), value.as_bytes(), *huffman));
                if name == ":path" && let Ok(read) = PathAndQuery::try_from(value.as_str()) && read.as_str() != value {
                    expected.push(read.as_str().to_owned());
                }
            }
            block.extend(literal(0x40, 4, b"", path.as_bytes(), huffman));
            if let Ok(read) = PathAndQuery::try_from(path.as_str()) && read.as_str() != path {
                expected.push(read.as_str().to_owned());
            }
            prop_assert_eq!(altered(&block), Ok(expected));
        }
    }
}
