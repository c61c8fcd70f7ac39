//! [`FormFile`]: the file of a browser's form, up to the boundary that ends it.

use bytes::{Buf as _, Bytes};
use memchr::memmem::{self, Finder};

use super::PayloadError;

/// Takes the file out of a form's last bytes.
///
/// COS must get the file's length before its end is seen, so it is computed from the form's: the
/// form must end right after its file, as browsers, curl and HTTP libraries let it. That it did is
/// checked, and so is that no boundary came before.
#[derive(Debug)]
pub struct FormFile {
    length: u64,
    left: u64,
    delimiter: Finder<'static>,
    /// The last bytes of the file so far, in which a boundary may have begun.
    seam: Vec<u8>,
    /// What must follow the file.
    end: Vec<u8>,
    /// How many bytes of `end` have come.
    matched: usize,
}

impl FormFile {
    /// For a file that begins `rest` bytes before the form's end. A form ends in a line end, unless
    /// `last`, its last bytes, are known and show that this one does not.
    pub fn new(boundary: &str, rest: u64, last: Option<&[u8]>) -> Result<Self, PayloadError> {
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        let mut end = [&delimiter, &b"--\r\n"[..]].concat();
        if last.is_some_and(|last| !last.ends_with(b"\r\n")) {
            end.truncate(delimiter.len() + 2);
        }
        let length = rest
            .checked_sub(end.len() as u64)
            .ok_or(PayloadError::FormEnd)?;
        Ok(Self {
            length,
            left: length,
            delimiter: Finder::new(&delimiter).into_owned(),
            // The line end of the part's head may be a boundary's too (RFC 2046 section 5.1.1).
            seam: b"\r\n".to_vec(),
            end,
            matched: 0,
        })
    }

    /// The file's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes bytes off the front of `input`, and gives the next ones of the file; `None` once `input`
    /// is used up.
    pub(super) fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, PayloadError> {
        if self.left > 0 && !input.is_empty() {
            let max = usize::try_from(self.left).unwrap_or(usize::MAX);
            let piece = input.split_to(input.len().min(max));
            self.search(&piece)?;
            self.left -= piece.len() as u64;
            return Ok(Some(piece));
        }
        let expected = self.end.get(self.matched..).unwrap_or_default();
        if !expected.starts_with(input) {
            return Err(PayloadError::FormEnd);
        }
        self.matched += input.len();
        input.advance(input.len());
        Ok(None)
    }

    /// Checks that the form has ended as it must.
    pub(super) fn finish(&self) -> Result<(), PayloadError> {
        if self.left > 0 || self.matched < self.end.len() {
            return Err(PayloadError::FormEnd);
        }
        Ok(())
    }

    /// Refuses a boundary in the next bytes of the file: another reader would end the file there.
    fn search(&mut self, piece: &[u8]) -> Result<(), PayloadError> {
        let reach = self.delimiter.needle().len() - 1;
        self.seam.extend(piece.iter().take(reach));
        let found = memmem::find(&self.seam, self.delimiter.needle()).is_some()
            || self.delimiter.find(piece).is_some();
        if found {
            return Err(PayloadError::FormEnd);
        }
        if piece.len() > reach {
            self.seam.clear();
            self.seam
                .extend_from_slice(piece.get(piece.len() - reach..).unwrap_or_default());
        } else {
            self.seam.drain(..self.seam.len().saturating_sub(reach));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: &[u8] = b"\r\n--b0undary--\r\n";

    /// Feeds `body` in pieces of `step` bytes.
    fn read(body: &[u8], last: Option<&[u8]>, step: usize) -> Result<Vec<u8>, PayloadError> {
        let mut form = FormFile::new("b0undary", body.len() as u64, last)?;
        let mut file = Vec::new();
        for piece in body.chunks(step) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(bytes) = form.decode(&mut input)? {
                file.extend_from_slice(&bytes);
            }
        }
        form.finish()?;
        assert_eq!(form.length(), file.len() as u64);
        Ok(file)
    }

    fn every_step(body: &[u8], last: Option<&[u8]>) -> Result<Vec<u8>, PayloadError> {
        let whole = read(body, last, body.len().max(1));
        for step in 1..body.len() {
            assert_eq!(read(body, last, step), whole, "in pieces of {step}");
        }
        whole
    }

    #[test]
    fn the_file_ends_by_the_forms_length() {
        for file in [
            &b""[..],
            b"x",
            b"\r\n",
            b"\r\n--b0undar",
            b"--b0undary is no line of its own: x--b0undary--",
            b"\n--b0undary\r--b0undary",
            b"\r\n--b0undar\r\n--b0undar",
        ] {
            let mut body = file.to_vec();
            if body.starts_with(b"--b0undary") {
                body.insert(0, b'x');
            }
            let expected = body.clone();
            body.extend_from_slice(END);
            assert_eq!(every_step(&body, None).unwrap(), expected);
            assert_eq!(every_step(&body, Some(&body)).unwrap(), expected);
        }
    }

    #[test]
    fn a_form_without_its_last_line_end_is_read_if_its_end_is_known() {
        let body = b"file\r\n--b0undary--";
        assert_eq!(every_step(body, Some(body)).unwrap(), b"file");
        assert_eq!(every_step(body, None), Err(PayloadError::FormEnd));
    }

    #[test]
    fn any_other_end_is_refused() {
        for body in [
            &b""[..],
            b"file",
            b"a file that is longer than the end of a form",
            b"file\r\n--b0undary\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\nUp\r\n--b0undary--\r\n",
            b"file\r\n--b0undary--\r\nepilogue",
            b"file\r\n--b0undary--\r\n\r\n",
            b"file\r\n--b0undary--\r\n\r\n--b0undary--\r\n",
            b"file\r\n--b0undary  --\r\n",
            b"file\r\n--b0undaryX\r\nmore\r\n--b0undary--\r\n",
            b"--b0undary\r\nx\r\n--b0undary--\r\n",
            b"file\n--b0undary--\r\n",
            b"file\r\n--other--\r\n",
        ] {
            let text = String::from_utf8_lossy(body);
            assert_eq!(every_step(body, None), Err(PayloadError::FormEnd), "{text}");
            assert_eq!(every_step(body, Some(body)), Err(PayloadError::FormEnd), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn a_file_is_given_whole_unless_a_boundary_is_in_it(
            file in "(\r|\n|-|b0|undary|b0undary|\r\n--|\r\n--b0undary|x){0,12}",
            step in 1_usize..40,
        ) {
            let mut body = file.clone().into_bytes();
            body.extend_from_slice(END);
            let has = format!("\r\n{file}").contains("\r\n--b0undary");
            let expected = if has { Err(PayloadError::FormEnd) } else { Ok(file.into_bytes()) };
            prop_assert_eq!(read(&body, None, step), expected);
        }

        #[test]
        fn no_bytes_panic(body: Vec<u8>, rest: u64, step in 1_usize..9) {
            if let Ok(mut form) = FormFile::new("b", rest, None) {
                for piece in body.chunks(step) {
                    let mut input = Bytes::copy_from_slice(piece);
                    while let Ok(Some(_)) = form.decode(&mut input) {}
                }
                let _ = form.finish();
            }
        }
    }
}
