//! [`HoldBack`]: the end of an object, kept until it may go.

use bytes::Bytes;

use super::PayloadError;

/// The most bytes that are kept back.
const WINDOW: usize = 64 * 1024;

/// Lets an object's bytes pass, all but the last: a storage that has not got them stores nothing.
///
/// The length is known beforehand, so nothing is delayed but the piece that would complete it. An
/// object of no bytes has none to keep back: check such a body before its head is sent.
#[derive(Debug)]
pub(crate) struct HoldBack {
    left: u64,
    held: Bytes,
}

impl HoldBack {
    /// For an object of `length` bytes.
    pub(crate) fn new(length: u64) -> Self {
        Self {
            left: length,
            held: Bytes::new(),
        }
    }

    /// Takes the next bytes, and gives those of them that may go on (maybe none).
    pub(crate) fn push(&mut self, mut bytes: Bytes) -> Result<Bytes, PayloadError> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or(PayloadError::LengthExceeded)?;
        if self.left > 0 || bytes.is_empty() {
            return Ok(bytes);
        }
        self.held = bytes.split_off(bytes.len().saturating_sub(WINDOW));
        Ok(bytes)
    }

    /// Whether the last byte is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Gives the end, which may go now: call it only when every check has passed.
    pub(crate) fn release(&mut self) -> Result<Bytes, PayloadError> {
        if self.left > 0 {
            return Err(PayloadError::LengthShort);
        }
        Ok(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_piece_with_the_last_byte_waits() {
        let mut hold = HoldBack::new(5);
        assert_eq!(hold.push(Bytes::from_static(b"abc")).unwrap(), "abc");
        assert_eq!(hold.release(), Err(PayloadError::LengthShort));
        assert_eq!(hold.push(Bytes::from_static(b"de")).unwrap(), "");
        assert!(hold.is_complete());
        assert_eq!(hold.release().unwrap(), "de");
    }

    #[test]
    fn no_more_than_the_window_waits() {
        let mut hold = HoldBack::new(WINDOW as u64 + 3);
        let passed = hold.push(Bytes::from(vec![7; WINDOW + 3])).unwrap();
        assert_eq!(passed.len(), 3);
        assert_eq!(hold.release().unwrap().len(), WINDOW);
    }

    #[test]
    fn a_byte_too_many_is_refused() {
        let mut hold = HoldBack::new(2);
        assert_eq!(hold.push(Bytes::from_static(b"ab")).unwrap(), "");
        assert_eq!(hold.push(Bytes::from_static(b"")).unwrap(), "");
        assert_eq!(
            hold.push(Bytes::from_static(b"c")),
            Err(PayloadError::LengthExceeded)
        );
        assert_eq!(hold.release().unwrap(), "ab");
    }
}
