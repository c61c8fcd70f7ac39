//! [`FormReader`]: `multipart/form-data` (RFC 7578), read strictly and piece by piece.

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memmem;

use super::{Form, malformed};
use crate::error::{Code, S3Error};

/// The most that may come before the file's first byte: fields, heads and boundaries (AWS's limit).
pub const MAX_FORM_BYTES: usize = 20 * 1024;
/// The most fields, the file aside (AWS's limit).
const MAX_FIELDS: usize = 100;
/// The longest head of a part.
const MAX_PART_HEAD: usize = 4096;
/// RFC 2046 section 5.1.1.
const MAX_BOUNDARY: usize = 70;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What stands between the parts of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary(String);

/// Reads a form up to its file.
#[derive(Debug)]
pub struct FormReader {
    /// CR LF, two hyphens, the boundary.
    delimiter: Vec<u8>,
    read: Vec<u8>,
    /// Where in `read` the piece begins that is not understood yet.
    at: usize,
    state: FormState,
    fields: Vec<(String, String)>,
}

/// What the bytes at `at` are.
#[derive(Debug)]
enum FormState {
    /// The head of a part.
    Head,
    /// The first boundary.
    Start,
    /// The value of the field of this name.
    Value(String),
}

/// What came of one step.
enum FormStep {
    /// The file begins here; it has this name.
    File(String),
    /// More bytes must come first.
    NeedsMore,
    /// A piece was understood.
    On,
}

/// The head of a part.
struct PartHead {
    name: String,
    filename: Option<String>,
}

impl Boundary {
    /// Reads it from `Content-Type`, which must be `multipart/form-data`.
    pub fn read(headers: &HeaderMap) -> Result<Self, S3Error> {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let only = values.next().filter(|_| values.next().is_none());
        let text = only.and_then(|value| value.to_str().ok());
        let (kind, parameters) = text.and_then(split_kind).unwrap_or_default();
        if !kind.eq_ignore_ascii_case("multipart/form-data") {
            return Err(S3Error::new(
                Code::PreconditionFailed,
                "Bucket POST must be of the enclosure-type multipart/form-data",
            ));
        }
        let parameters = parameters_of(parameters)
            .ok_or_else(|| malformed("its Content-Type has parameters that cannot be read"))?;
        let boundary = only_parameter(&parameters, "boundary")
            .filter(|boundary| is_boundary(boundary))
            .ok_or_else(|| {
                malformed(
                    "its Content-Type must have one boundary of 1 to 70 characters (RFC 2046)",
                )
            })?;
        Ok(Self(boundary.to_owned()))
    }

    /// The boundary, without its hyphens.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes of a form's end: a line end, the boundary with its hyphens, and a line end, which may be missing.
    pub(crate) fn end_bytes(&self) -> u64 {
        (self.0.len() + "\r\n----\r\n".len()) as u64
    }
}

impl FormReader {
    /// For a form with this boundary.
    pub fn new(boundary: &Boundary) -> Self {
        Self {
            delimiter: format!("\r\n--{}", boundary.0).into_bytes(),
            read: Vec::new(),
            at: 0,
            state: FormState::Start,
            fields: Vec::new(),
        }
    }

    /// Takes the next bytes of the body, and gives the form once its file begins: what is left in
    /// `input` then is the file's.
    pub fn push(&mut self, input: &mut Bytes) -> Result<Option<Form>, S3Error> {
        let before = self.read.len();
        let room = MAX_FORM_BYTES.saturating_sub(before);
        self.read.extend(input.iter().take(room));
        loop {
            match self.step()? {
                FormStep::File(filename) => {
                    input.advance(self.at.saturating_sub(before).min(input.len()));
                    let fields = std::mem::take(&mut self.fields);
                    return Form::new(fields, &filename, self.at as u64).map(Some);
                }
                FormStep::NeedsMore => break,
                FormStep::On => {}
            }
        }
        if input.len() > room {
            return Err(S3Error::new(
                Code::MaxPostPreDataLengthExceededError,
                format!(
                    "Your POST request fields preceding the upload file were too large: they may \
                     have {MAX_FORM_BYTES} bytes."
                ),
            )
            .close());
        }
        input.clear();
        Ok(None)
    }

    /// The body ended: there was no file.
    pub fn ended() -> S3Error {
        no_file()
    }

    /// Understands the piece at `at`, if all of it is there.
    fn step(&mut self) -> Result<FormStep, S3Error> {
        match &self.state {
            FormState::Start => self.read_start(),
            FormState::Head => self.read_head(),
            FormState::Value(name) => {
                let name = name.clone();
                self.read_value(name)
            }
        }
    }

    /// What is not understood yet.
    fn rest(&self) -> &[u8] {
        self.read.get(self.at..).unwrap_or_default()
    }

    /// The first boundary.
    fn read_start(&mut self) -> Result<FormStep, S3Error> {
        let rest = self.rest();
        let first = self.delimiter.get(2..).unwrap_or_default();
        let expected = first.iter().chain(b"\r\n");
        if !rest.iter().zip(expected).all(|(byte, other)| byte == other) {
            return Err(malformed("it must begin with its boundary"));
        }
        let length = first.len() + 2;
        if rest.len() < length {
            return Ok(FormStep::NeedsMore);
        }
        self.at += length;
        self.state = FormState::Head;
        Ok(FormStep::On)
    }

    /// The head of a part.
    fn read_head(&mut self) -> Result<FormStep, S3Error> {
        let rest = self.rest();
        if rest.starts_with(b"\r\n") {
            return Err(malformed("a part has no head"));
        }
        let bounded = rest.get(..MAX_PART_HEAD).unwrap_or(rest);
        let Some(end) = memmem::find(bounded, HEAD_END) else {
            if rest.len() >= MAX_PART_HEAD {
                return Err(malformed("a part's head is too long"));
            }
            return Ok(FormStep::NeedsMore);
        };
        let head = PartHead::parse(rest.get(..end).unwrap_or_default())?;
        self.at += end + HEAD_END.len();
        if head.name == "file" {
            return Ok(FormStep::File(head.filename.unwrap_or_default()));
        }
        self.check_name(&head)?;
        self.state = FormState::Value(head.name);
        Ok(FormStep::On)
    }

    /// The value of the field `name`, with the boundary that follows.
    fn read_value(&mut self, name: String) -> Result<FormStep, S3Error> {
        let rest = self.rest();
        // After the head's empty line it could be read as the end of a part without a body.
        let bare = self.delimiter.get(2..).unwrap_or_default();
        if rest.starts_with(bare) {
            return Err(malformed(
                "a boundary follows a head without an empty value",
            ));
        }
        let Some(end) = memmem::find(rest, &self.delimiter) else {
            return Ok(FormStep::NeedsMore);
        };
        let value = rest.get(..end).unwrap_or_default();
        let after = end + self.delimiter.len();
        match rest.get(after..after + 2) {
            None => return Ok(FormStep::NeedsMore),
            Some(b"\r\n") => {}
            Some(b"--") => return Err(no_file()),
            Some(_) => return Err(malformed("a boundary is followed by something else")),
        }
        let value = str::from_utf8(value)
            .map_err(|_| malformed(format!("the field {} is not UTF-8", shown(&name))))?
            .to_owned();
        self.fields.push((name, value));
        self.at += after + 2;
        self.state = FormState::Head;
        Ok(FormStep::On)
    }

    /// Refuses a field that cannot be one of this form's.
    fn check_name(&self, head: &PartHead) -> Result<(), S3Error> {
        if head.filename.is_some() {
            return Err(S3Error::new(
                Code::IncorrectNumberOfFilesInPostRequest,
                "POST requires exactly one file upload per request, in the field named file.",
            )
            .close());
        }
        if self.fields.iter().any(|(name, _)| *name == head.name) {
            return Err(S3Error::new(
                Code::InvalidArgument,
                format!("The form has the field {} twice.", shown(&head.name)),
            )
            .close());
        }
        if self.fields.len() >= MAX_FIELDS {
            return Err(S3Error::new(
                Code::InvalidArgument,
                format!("A form may have {MAX_FIELDS} fields besides its file."),
            )
            .close());
        }
        Ok(())
    }
}

impl PartHead {
    fn parse(head: &[u8]) -> Result<Self, S3Error> {
        let head = str::from_utf8(head).map_err(|_| malformed("a part's head is not UTF-8"))?;
        let mut disposition = None;
        for line in head.split("\r\n") {
            let (name, value) = line
                .split_once(':')
                .filter(|(name, _)| !name.is_empty() && name.bytes().all(is_token))
                .filter(|(_, value)| !value.contains(|c: char| c.is_control() && c != '\t'))
                .ok_or_else(|| malformed("a part's head has a line that is no header"))?;
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("content-disposition") {
                if disposition.replace(value).is_some() {
                    return Err(malformed("a part has two Content-Disposition headers"));
                }
            } else if name.eq_ignore_ascii_case("content-transfer-encoding")
                && !["7bit", "8bit", "binary"]
                    .iter()
                    .any(|plain| value.eq_ignore_ascii_case(plain))
            {
                return Err(malformed(
                    "a part has a Content-Transfer-Encoding (RFC 7578 section 4.7)",
                ));
            }
        }
        let (kind, parameters) = disposition.and_then(split_kind).unwrap_or_default();
        let parameters =
            parameters_of(parameters).filter(|_| kind.eq_ignore_ascii_case("form-data"));
        let parameters = parameters.ok_or_else(|| {
            malformed("a part needs a Content-Disposition: form-data; name=\"…\"")
        })?;
        let repeated = ["name", "filename"]
            .iter()
            .any(|known| parameters.iter().filter(|(name, _)| name == known).count() > 1);
        let filename = only_parameter(&parameters, "filename");
        let encoded_alone =
            filename.is_none() && only_parameter(&parameters, "filename*").is_some();
        let name = only_parameter(&parameters, "name").filter(|name| !name.is_empty());
        match name {
            Some(name) if !repeated && !encoded_alone => Ok(Self {
                name: name.to_ascii_lowercase(),
                filename: filename.map(str::to_owned),
            }),
            _ => Err(malformed(
                "a part needs one name, and its filename as it is (RFC 7578 section 4.2)",
            )),
        }
    }
}

/// The value before the first `;`, and the parameters after it.
fn split_kind(value: &str) -> Option<(&str, &str)> {
    let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
    let kind = kind.trim_matches([' ', '\t']);
    (!kind.is_empty()).then_some((kind, parameters))
}

/// `name=value; name="value"`: names in lower case, quotes off. Browsers and curl write a quote in a
/// value as `%22` or `\"` and leave every other backslash as it is (WHATWG HTML, multipart/form-data).
fn parameters_of(text: &str) -> Option<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_matches([' ', '\t']);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            quoted_value(quoted)?
        } else {
            let (value, after) = after.split_at(after.find(';').unwrap_or(after.len()));
            let value = value.trim_end_matches([' ', '\t']);
            if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic() && c != '"') {
                return None;
            }
            (value.to_owned(), after)
        };
        parameters.push((name.to_ascii_lowercase(), value));
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() {
            rest = rest.strip_prefix(';')?.trim_start_matches([' ', '\t']);
        }
    }
    Some(parameters)
}

/// The value up to its closing quote, and what follows that.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (piece, after) = rest.split_once('"')?;
        let Some(escaped) = piece.strip_suffix('\\') else {
            value.push_str(piece);
            return Some((value, after));
        };
        value.push_str(escaped);
        value.push('"');
        rest = after;
    }
}

fn only_parameter<'p>(parameters: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let mut found = parameters.iter().filter(|(known, _)| known == name);
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

fn is_boundary(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=MAX_BOUNDARY).contains(&text.len()) && text.bytes().all(fits) && !text.ends_with(' ')
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn no_file() -> S3Error {
    S3Error::new(
        Code::IncorrectNumberOfFilesInPostRequest,
        "POST requires exactly one file upload per request: the field named file, after all others.",
    )
    .close()
}

/// A stranger's name, short enough for a message.
fn shown(name: &str) -> String {
    crate::s3::query::shown(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// A form with boundary `b`: heads and values, and then the file's head.
    fn form(parts: &[(&str, &str)], file: &str) -> String {
        let part = |head: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}")
        };
        let parts = parts.iter().map(|(head, value)| part(head, value) + "\r\n");
        parts.chain([part(file, "")]).collect()
    }

    fn boundary(value: &'static str) -> Result<Boundary, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        Boundary::read(&headers).map_err(|error| error.code())
    }

    /// What is read of `body` in pieces of `step` bytes: the form and the bytes after it.
    fn read(body: &[u8], step: usize) -> Result<Option<(Form, Vec<u8>)>, Code> {
        let mut reader = FormReader::new(&Boundary("b".into()));
        let mut pieces = body.chunks(step.max(1));
        while let Some(piece) = pieces.next() {
            let mut input = Bytes::copy_from_slice(piece);
            if let Some(form) = reader.push(&mut input).map_err(|error| error.code())? {
                let rest = pieces.flatten().copied();
                return Ok(Some((form, input.iter().copied().chain(rest).collect())));
            }
        }
        Ok(None)
    }

    fn fields(body: &str) -> Result<Vec<(String, String)>, Code> {
        let (form, _) = read(body.as_bytes(), body.len())?.expect("no file");
        Ok(form
            .fields()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect())
    }

    fn field(parts: &[(&str, &str)], file: &str) -> String {
        fields(&form(parts, file)).unwrap().remove(0).1
    }

    fn refused(body: &str) -> Code {
        let whole = read(body.as_bytes(), body.len()).unwrap_err();
        for step in [1, 7] {
            assert_eq!(read(body.as_bytes(), step).unwrap_err(), whole, "{body}");
        }
        whole
    }

    #[test]
    fn fields_come_in_order_and_the_file_begins_after_its_head() {
        let body = form(
            &[
                ("name=\"Key\"", "a/b"),
                ("name=\"x-amz-meta-a\"", "1\r\n-2--b"),
            ],
            "name=\"file\"; filename=\"f.txt\"",
        );
        let all = format!("{body}\r\n--b--\r\n");
        for step in 1..all.len() {
            let (form, rest) = read(all.as_bytes(), step).unwrap().unwrap();
            assert_eq!(form.get("key"), Some("a/b"));
            assert_eq!(form.get("x-amz-meta-a"), Some("1\r\n-2--b"));
            assert_eq!(form.file_at(), body.len() as u64);
            assert_eq!(rest, b"\r\n--b--\r\n", "in pieces of {step}");
        }
    }

    #[test]
    fn the_files_name_is_put_into_the_fields() {
        let key = [("name=key", "u/${filename}/${filename}")];
        for (file, name) in [
            ("name=\"file\"; filename=\"f.txt\"", "f.txt"),
            ("name=file; filename=f.txt", "f.txt"),
            ("filename=\"f;\\\"g\\\".txt\"; name=\"file\"", "f;\"g\".txt"),
            ("name=\"file\"; filename=\"C:\\dir\\f.txt\"", "f.txt"),
            ("name=\"file\"; filename=\"../../f.txt\"", "f.txt"),
            ("name=\"file\"; filename=\"a%22b 中.txt\"", "a%22b 中.txt"),
            (
                "name=\"file\"; filename=\"f.txt\"; filename*=utf-8''g.txt",
                "f.txt",
            ),
            ("name=\"file\"; filename=\"\"", ""),
            ("name=\"file\"", ""),
        ] {
            assert_eq!(field(&key, file), format!("u/{name}/{name}"), "{file}");
        }
        let policy = [("name=policy", "${filename}")];
        assert_eq!(field(&policy, "name=file; filename=f"), "${filename}");
    }

    #[test]
    fn a_long_file_name_cannot_blow_the_fields_up() {
        let key = "${filename}".repeat(1000);
        let file = format!("name=file; filename=\"{}\"", "n".repeat(1000));
        assert_eq!(
            refused(&form(&[("name=key", &key)], &file)),
            Code::MalformedPOSTRequest
        );
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        let twice = form(&[("name=key", "a"), ("name=\"KEY\"", "b")], "name=file");
        assert_eq!(refused(&twice), Code::InvalidArgument);
        let many: Vec<_> = (0..=MAX_FIELDS).map(|i| format!("name=f{i}")).collect();
        let many: Vec<_> = many.iter().map(|head| (head.as_str(), "")).collect();
        assert_eq!(refused(&form(&many, "name=file")), Code::InvalidArgument);
        assert!(fields(&form(&many[1..], "name=file")).is_ok());
    }

    #[test]
    fn a_form_has_one_file_named_file() {
        let two = form(&[("name=other; filename=x", "a")], "name=file");
        assert_eq!(refused(&two), Code::IncorrectNumberOfFilesInPostRequest);
        let none = "--b\r\nContent-Disposition: form-data; name=key\r\n\r\nk\r\n--b--\r\n";
        assert_eq!(refused(none), Code::IncorrectNumberOfFilesInPostRequest);
    }

    #[test]
    fn broken_framing_is_refused() {
        for body in [
            "preamble\r\n--b\r\n",
            "\r\n--b\r\n",
            "--bb\r\n",
            "--b \r\n",
            "--b--\r\n",
            "--b\r\n\r\nvalue\r\n--b\r\n",
            "--b\r\nContent-Disposition: form-data\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n",
            "--b\r\nContent-Disposition: attachment; name=\"key\"\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=\"key\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=a; filename=f; filename=g\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=file; filename*=utf-8''f\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\r\n folded: x\r\n\r\n",
            "--b\r\nContent-Disposition : form-data; name=a\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\nX: y\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n--b\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nv\r\n--bX\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nv\r\n--b \r\n",
        ] {
            assert_eq!(refused(body), Code::MalformedPOSTRequest, "{body}");
        }
        let mut bytes = form(&[("name=key", "X")], "name=file").into_bytes();
        let at = bytes.iter().position(|byte| *byte == b'X').unwrap();
        bytes[at] = 0xff;
        assert_eq!(read(&bytes, bytes.len()), Err(Code::MalformedPOSTRequest));
        let long = format!("--b\r\nX: {}", "x".repeat(MAX_PART_HEAD));
        assert_eq!(refused(&long), Code::MalformedPOSTRequest);
    }

    #[test]
    fn what_comes_before_the_file_is_bounded() {
        let empty = form(&[("name=key", "")], "name=file").len();
        let fits = "k".repeat(MAX_FORM_BYTES - empty);
        let body = form(&[("name=key", &fits)], "name=file") + "a file of any length";
        let (_, rest) = read(body.as_bytes(), body.len()).unwrap().unwrap();
        assert_eq!(rest, b"a file of any length");
        let over = form(&[("name=key", &(fits + "k"))], "name=file");
        assert_eq!(refused(&over), Code::MaxPostPreDataLengthExceededError);
    }

    #[test]
    fn a_boundary_is_read_as_clients_write_it() {
        for (value, expected) in [
            (
                "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk",
                "----WebKitFormBoundary7MA4YWxk",
            ),
            ("Multipart/Form-Data;boundary=\"a b:c\"", "a b:c"),
            ("multipart/form-data; charset=utf-8; boundary=x ", "x"),
        ] {
            assert_eq!(boundary(value).unwrap().as_str(), expected);
        }
        for value in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"a \"",
            "multipart/form-data; boundary=\"a\\\"b\"",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=a[b",
            "multipart/form-data; boundary=0123456789012345678901234567890123456789012345678901234567890123456789x",
        ] {
            assert!(boundary(value).is_err(), "{value}");
        }
        assert_eq!(
            boundary("application/x-www-form-urlencoded"),
            Err(Code::PreconditionFailed)
        );
        assert_eq!(
            Boundary::read(&HeaderMap::new()).unwrap_err().code(),
            Code::PreconditionFailed
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn pieces_change_nothing(
            text in "(--b|\r\n|--|b|Content-Disposition: form-data; |name=|\"|file|key|;|filename=|\\$\\{filename\\}|x){0,40}",
            start in any::<bool>(),
            step in 1_usize..20,
        ) {
            let front = if start { "--b\r\nContent-Disposition: form-data; name=key\r\n\r\n" } else { "" };
            let body = format!("{front}{text}");
            let whole = read(body.as_bytes(), body.len());
            prop_assert_eq!(read(body.as_bytes(), step), whole);
        }

        #[test]
        fn no_bytes_panic(body: Vec<u8>, step in 1_usize..20) {
            let _ = read(&body, step);
            let _ = PartHead::parse(&body);
            let _ = parameters_of(&String::from_utf8_lossy(&body));
        }
    }
}
