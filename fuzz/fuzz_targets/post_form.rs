//! Any browser's form, in any pieces: the fields, the file and the refusal do not depend on the pieces;
//! the file is what stands between its head and the form's end; what the form requests names one clean key.
//!
//! An input is: a seed of the pieces, and a body whose boundary is [`BOUNDARY`].

#![no_main]

use bytes::Bytes;
use cosgate::encoding::percent::push_encoded_path;
use cosgate::error::Code;
use cosgate::payload::checksum::Checks;
use cosgate::payload::{Declared, FormFile, Intake, Mode};
use cosgate::s3::ObjectKey;
use cosgate::s3::form::{Boundary, Form, FormPolicy, FormPut, FormReader, MAX_FORM_BYTES};
use cosgate::sign::form::FormClaim;
use cosgate::timestamp::Timestamp;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const BOUNDARY: &str = "b0undary";
/// The time of the test vectors.
const NOW: i64 = 1_768_480_245;

/// The fields and the file, or why there are none; a form may be good and its end not.
type Read = Result<(Form, Option<Vec<u8>>), Code>;

fuzz_target!(|input: &[u8]| {
    let [seed, body @ ..] = input else { return };
    let whole = read(body.len(), &[Bytes::copy_from_slice(body)]);
    assert_eq!(read(body.len(), &pieces(body, *seed)), whole);
    let Ok((form, file)) = whole else { return };

    let file_at = usize::try_from(form.file_at()).unwrap();
    assert!(file_at <= MAX_FORM_BYTES);
    if let Some(file) = file {
        let end = format!("\r\n--{BOUNDARY}--\r\n");
        let rest = body[file_at..].strip_suffix(end.as_bytes());
        assert_eq!(rest, Some(&*file));
        let with_head = [b"\r\n", &*file].concat();
        let inner = format!("\r\n--{BOUNDARY}");
        assert!(
            !with_head
                .windows(inner.len())
                .any(|bytes| bytes == inner.as_bytes())
        );
    }
    judge(&form);
});

/// What the later steps make of a form.
fn judge(form: &Form) {
    let names: Vec<_> = form.fields().map(|(name, _)| name).collect();
    for (at, name) in names.iter().enumerate() {
        assert!(!name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(!names[..at].contains(name));
    }
    let claim = FormClaim::read(form);
    if let Ok(claim) = &claim {
        assert_eq!(claim.is_some(), form.is_signed());
    }
    if let Some(Ok(policy)) = form.get("policy").map(FormPolicy::parse) {
        let unlisted = claim
            .ok()
            .flatten()
            .map_or(&[][..], |claim| claim.unlisted());
        let _ = policy.check(form, "examplebucket", unlisted, Timestamp::from_unix(NOW));
    }
    if let Ok(put) = FormPut::read(form, "examplebucket") {
        let mut raw = String::new();
        push_encoded_path(&mut raw, put.key.as_str().as_bytes());
        assert_eq!(ObjectKey::parse(&raw).unwrap().as_str(), put.key.as_str());
        assert!(
            !put.headers
                .keys()
                .any(|name| name.as_str().starts_with("x-amz-copy-source"))
        );
    }
}

/// Reads the pieces, as the proxy does.
fn read(length: usize, pieces: &[Bytes]) -> Read {
    let kind = HeaderValue::from_str(&format!("multipart/form-data; boundary={BOUNDARY}")).unwrap();
    let boundary = Boundary::read(&HeaderMap::from_iter([(CONTENT_TYPE, kind)])).unwrap();
    let mut reader = FormReader::new(&boundary);
    let mut pieces = pieces.iter().cloned();
    let (form, first) = loop {
        let Some(mut input) = pieces.next() else {
            return Err(FormReader::ended().code());
        };
        if let Some(form) = reader.push(&mut input).map_err(|error| error.code())? {
            break (form, input);
        }
    };
    let rest = length as u64 - form.file_at();
    let file = file(&boundary, rest, [first].into_iter().chain(pieces));
    Ok((form, file))
}

/// The file; `None` unless the form ends right after it.
fn file(boundary: &Boundary, rest: u64, pieces: impl Iterator<Item = Bytes>) -> Option<Vec<u8>> {
    let none = HeaderMap::new();
    let checks = Checks::new(&Declared::read(Mode::Unsigned, &none).unwrap(), &none).unwrap();
    let form = FormFile::new(boundary.as_str(), rest, None).ok()?;
    let length = form.length();
    let mut intake = Intake::of_form(form, checks);
    let mut got = Vec::new();
    for mut input in pieces {
        while let Some(bytes) = intake.push(&mut input).ok()? {
            got.extend_from_slice(&bytes);
        }
    }
    got.extend_from_slice(&intake.finish().ok()?.0);
    assert_eq!(got.len() as u64, length);
    Some(got)
}

/// The body in pieces of up to 64 bytes, always the same for a seed.
fn pieces(body: &[u8], seed: u8) -> Vec<Bytes> {
    let mut state = u64::from(seed);
    let mut rest = Bytes::copy_from_slice(body);
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let size = 1 + (state >> 58) as usize;
        pieces.push(rest.split_to(size.min(rest.len())));
    }
    pieces
}
