//! Request bodies of HTTP/1.1 as raw bytes: finds where each ends, and keeps nothing of it.

use memchr::memchr;

use crate::transport::framing::{BodyLength, FramingError, number};
use crate::transport::line::WireLine;

/// How far a request's body has arrived.
#[derive(Debug)]
pub(super) struct BodyProgress {
    position: BodyPosition,
    line: WireLine,
}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyPosition {
    /// The line before a chunk.
    ChunkSize,
    /// This many bytes of a body, or of a chunk and its line end.
    Data { left: u64, is_chunk: bool },
    /// The next message.
    End,
    /// The lines after the last chunk.
    Trailer,
}

/// A body that is framed wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyError {
    /// Bytes of those taken that come before the wrong line.
    pub(super) valid: usize,
}

impl BodyProgress {
    /// Nothing has arrived of a body of `length`.
    pub(super) fn new(length: BodyLength) -> Self {
        let position = match length {
            BodyLength::Chunked => BodyPosition::ChunkSize,
            BodyLength::Unstated | BodyLength::Bytes(0) => BodyPosition::End,
            BodyLength::Bytes(left) => BodyPosition::Data {
                left,
                is_chunk: false,
            },
        };
        Self {
            position,
            line: WireLine::default(),
        }
    }

    /// Whether the body has arrived whole.
    pub(super) fn is_whole(&self) -> bool {
        self.position == BodyPosition::End
    }

    /// Takes as many of `bytes` as belong to the body, and gives their number.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_whole() {
            if let BodyPosition::Data { left, is_chunk } = self.position {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.get(here..).unwrap_or_default();
                self.position = match left - here as u64 {
                    0 if is_chunk => BodyPosition::ChunkSize,
                    0 => BodyPosition::End,
                    left => BodyPosition::Data { left, is_chunk },
                };
                continue;
            }
            let Some(end) = memchr(b'\n', rest) else {
                self.line.append(rest);
                return Ok(bytes.len());
            };
            let (line, after) = rest.split_at(end);
            self.line.append(line);
            let line = std::mem::take(&mut self.line);
            let valid = bytes.len() - rest.len();
            self.end_line(&line).map_err(|_| BodyError { valid })?;
            rest = after.get(1..).unwrap_or_default();
        }
        Ok(bytes.len() - rest.len())
    }

    fn end_line(&mut self, line: &WireLine) -> Result<(), FramingError> {
        if !line.ends_in_cr() {
            return Err(FramingError::BareLineFeed);
        }
        if self.position == BodyPosition::ChunkSize {
            let size = number(line.before_semicolon(), 16).ok_or(FramingError::LengthNotNumber)?;
            self.position = match size {
                0 => BodyPosition::Trailer,
                size => BodyPosition::Data {
                    left: size.saturating_add(2),
                    is_chunk: true,
                },
            };
        } else if line.is_blank() {
            self.position = BodyPosition::End;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(length: BodyLength, pieces: &[&[u8]]) -> Result<(usize, bool), BodyError> {
        let (mut body, mut taken) = (BodyProgress::new(length), 0);
        for piece in pieces {
            let here = body.take(piece).map_err(|error| BodyError {
                valid: taken + error.valid,
            })?;
            taken += here;
            if here < piece.len() {
                break;
            }
        }
        Ok((taken, body.is_whole()))
    }

    #[test]
    fn a_body_ends_where_its_framing_ends() {
        for (length, body) in [
            (BodyLength::Unstated, ""),
            (BodyLength::Bytes(0), ""),
            (BodyLength::Bytes(4), "a\nb\n"),
            (
                BodyLength::Chunked,
                "A;x=y\r\n0123456789\r\n0\r\na: b\r\n\r\n",
            ),
            (BodyLength::Chunked, "0\r\n\r\n"),
        ] {
            let all = format!("{body}\r\nGET / HTTP/1.1\r\n\r\n");
            assert_eq!(taken(length, &[all.as_bytes()]), Ok((body.len(), true)));
            let bytes: Vec<_> = all.as_bytes().chunks(1).collect();
            assert_eq!(taken(length, &bytes), Ok((body.len(), true)), "{body:?}");
        }
    }

    #[test]
    fn refuses_chunks_that_are_framed_wrongly() {
        for (body, valid) in [
            ("0x1\r\na\r\n0\r\n\r\n", 0),
            ("\r\n", 0),
            ("-1\r\n", 0),
            ("1\na\r\n0\r\n\r\n", 0),
            ("1;a\nb\r\na\r\n0\r\n\r\n", 0),
            ("1\r\na\r\n0\r\nA: b\n\r\n", 9),
            ("0\r\n\n", 3),
            ("000000000000000000001\r\n", 0),
        ] {
            let error = Err(BodyError { valid });
            assert_eq!(taken(BodyLength::Chunked, &[body.as_bytes()]), error);
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_changes_nothing(
            body in "([0-3]{1,2}(;[a-z]{0,80})?\r?\n?|[a-z\r\n]{0,9}){0,8}",
            at in any::<prop::sample::Index>(),
        ) {
            let body = body.as_bytes();
            let (a, b) = body.split_at(at.index(body.len() + 1));
            // A line may begin in the first piece and be found wrong in the second.
            let whole = taken(BodyLength::Chunked, &[body]);
            let split = taken(BodyLength::Chunked, &[a, b]);
            prop_assert_eq!(whole.is_ok(), split.is_ok());
            if whole.is_ok() {
                prop_assert_eq!(whole, split);
            }
        }
    }
}
