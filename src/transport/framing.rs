//! Message framing of HTTP/1.1: the rules for `Content-Length` and `Transfer-Encoding`, the same for
//! requests and responses.
//!
//! RFC 9112 section 6.3 lets a recipient repair some heads that break these rules. Two recipients in a
//! row may repair one head in different ways and then find different message boundaries (request
//! smuggling). Such a message is therefore refused.

use std::fmt;

/// The largest `Content-Length` that is accepted. hyper reserves the two largest numbers for itself.
const MAX_LENGTH: u64 = u64::MAX >> 1;

/// The longest number: as many digits as a `u64` has.
const MAX_DIGITS: usize = 20;

/// The framing fields of one head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FramingFields {
    has_codings: bool,
    is_chunked: bool,
    content_length: Option<u64>,
}

/// Where a message body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// After this number of bytes.
    Bytes(u64),
    /// After the last chunk and the trailer section.
    Chunked,
    /// The head does not say. A request has no body then; a response ends with its connection.
    Unstated,
}

/// What is wrong with a message's framing. Its text is the rule that the message breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// A line ends in LF alone.
    BareLineFeed,
    /// Both fields are there.
    BothFields,
    /// HTTP/1.0 has no transfer codings.
    CodingInHttp10,
    /// `Transfer-Encoding` has another value than `chunked`.
    CodingUnknown,
    /// `Content-Length` is no number.
    LengthNotNumber,
    /// A second `Content-Length`.
    RepeatedLength,
    /// A second `Transfer-Encoding`.
    RepeatedCoding,
}

impl FramingFields {
    /// No field so far, in a head of HTTP/1.1 or, without `has_codings`, of HTTP/1.0.
    pub(crate) fn new(has_codings: bool) -> Self {
        Self {
            has_codings,
            is_chunked: false,
            content_length: None,
        }
    }

    /// Adds a field of the head, with no white space around its value. Ignores other fields.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), FramingError> {
        if !name.first().copied().is_some_and(may_affect_framing) {
            return Ok(());
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.content_length.is_some() {
                return Err(FramingError::RepeatedLength);
            }
            let length = number(value, 10).filter(|length| *length <= MAX_LENGTH);
            self.content_length = Some(length.ok_or(FramingError::LengthNotNumber)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked {
                return Err(FramingError::RepeatedCoding);
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FramingError::CodingUnknown);
            }
            if !self.has_codings {
                return Err(FramingError::CodingInHttp10);
            }
            self.is_chunked = true;
        }
        if self.is_chunked && self.content_length.is_some() {
            return Err(FramingError::BothFields);
        }
        Ok(())
    }

    /// Where the body ends.
    pub(crate) fn body_length(&self) -> BodyLength {
        match self.content_length {
            _ if self.is_chunked => BodyLength::Chunked,
            Some(length) => BodyLength::Bytes(length),
            None => BodyLength::Unstated,
        }
    }
}

/// Whether a field whose name begins with `first` can be one of the two.
pub(crate) fn may_affect_framing(first: u8) -> bool {
    matches!(first, b'C' | b'c' | b'T' | b't')
}

/// The number that `digits` are: digits alone, without a sign.
pub fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareLineFeed => "every line must end in CR LF",
            Self::BothFields => "a message has Content-Length or Transfer-Encoding, not both",
            Self::CodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding",
            Self::CodingUnknown => "Transfer-Encoding must be chunked",
            Self::LengthNotNumber => "Content-Length must be a number of bytes",
            Self::RepeatedLength => "a message has at most one Content-Length",
            Self::RepeatedCoding => "a message has at most one Transfer-Encoding",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_length(fields: &[(&str, &str)]) -> Result<BodyLength, FramingError> {
        let mut framing = FramingFields::new(true);
        for (name, value) in fields {
            assert!(name == &"Host" || may_affect_framing(name.as_bytes()[0]));
            framing.add(name.as_bytes(), value.as_bytes())?;
        }
        Ok(framing.body_length())
    }

    #[test]
    fn accepts_one_framing_field() {
        for (fields, length) in [
            (&[("Host", "x")][..], BodyLength::Unstated),
            (&[("Content-Length", "0")], BodyLength::Bytes(0)),
            (&[("CONTENT-length", "012")], BodyLength::Bytes(12)),
            (
                &[("content-length", "9223372036854775807")],
                BodyLength::Bytes(MAX_LENGTH),
            ),
            (&[("transfer-ENCODING", "Chunked")], BodyLength::Chunked),
        ] {
            assert_eq!(body_length(fields), Ok(length), "{fields:?}");
        }
    }

    #[test]
    fn refuses_framing_fields_that_contradict_or_repeat_each_other() {
        let (length, coding) = (("Content-Length", "1"), ("Transfer-Encoding", "chunked"));
        for (fields, error) in [
            ([length, length], FramingError::RepeatedLength),
            ([coding, coding], FramingError::RepeatedCoding),
            ([length, coding], FramingError::BothFields),
            ([coding, length], FramingError::BothFields),
        ] {
            assert_eq!(body_length(&fields), Err(error), "{fields:?}");
        }
        for value in [
            "",
            "gzip",
            "gzip, chunked",
            "chunked, chunked",
            "chunked;q=1",
        ] {
            let field = ("Transfer-Encoding", value);
            assert_eq!(body_length(&[field]), Err(FramingError::CodingUnknown));
        }
        let mut old = FramingFields::new(false);
        let error = old.add(b"transfer-encoding", b"chunked");
        assert_eq!(error, Err(FramingError::CodingInHttp10));
    }

    #[test]
    fn refuses_lengths_that_are_not_digits_alone() {
        assert_eq!(number(b"010", 10), Some(10));
        assert_eq!(number(b"1f", 16), Some(31));
        assert_eq!(number(b"1f", 10), None);
        for wrong in [
            "",
            "+1",
            "-1",
            "1 2",
            "1,1",
            "0x1",
            "9223372036854775808",
            "99999999999999999999",
            "000000000000000000001",
        ] {
            let length = body_length(&[("Content-Length", wrong)]);
            assert_eq!(length, Err(FramingError::LengthNotNumber), "{wrong}");
        }
    }
}
