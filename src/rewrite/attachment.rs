//! An object that a browser must not show as a page of ours: it is saved, and taken for nothing else
//! than what its `Content-Type` says.

use http::header::{CONTENT_DISPOSITION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};

use crate::tenant::Permit;

/// Whether the response to `permit` is an object that its grant says browsers must save.
pub(crate) fn is_attachment(permit: &Permit<'_, '_>) -> bool {
    let reads = permit.request().operation.reads_object();
    reads && permit.grant().is_some_and(|grant| grant.attachment)
}

/// Makes an attachment of a response. Its file name stays; a disposition that a browser could read
/// otherwise than we do goes whole (RFC 6266 section 4.1, and what browsers make of what breaks it).
pub(crate) fn as_attachment(headers: &mut HeaderMap) {
    let mut written = headers.get_all(CONTENT_DISPOSITION).iter();
    let only = written.next().filter(|_| written.next().is_none());
    let parameters = only.and_then(|value| parameters(value.as_bytes()));
    let attachment = [b"attachment", parameters.unwrap_or_default()].concat();
    let value = HeaderValue::from_bytes(&attachment)
        .unwrap_or_else(|_| HeaderValue::from_static("attachment"));
    headers.insert(CONTENT_DISPOSITION, value);
    not_sniffed(headers);
}

/// Forbids a browser to guess another type than the one that is declared.
pub(crate) fn not_sniffed(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// What follows the type of a proper disposition, `;` included.
fn parameters(disposition: &[u8]) -> Option<&[u8]> {
    let end = disposition.iter().position(|byte| !is_token(*byte));
    let (kind, parameters) = disposition.split_at(end.unwrap_or(disposition.len()));
    let is_known = [&b"attachment"[..], b"inline"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known));
    let mut rest = parameters;
    while !rest.is_empty() {
        rest = after_parameter(rest)?;
    }
    is_known.then_some(parameters)
}

/// What follows one `; name=value`, whose value is a token or a quoted text.
fn after_parameter(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start().strip_prefix(b";")?;
    let text = after_token(text.trim_ascii_start())?;
    let text = text.strip_prefix(b"=")?;
    let Some(quoted) = text.strip_prefix(b"\"") else {
        return after_token(text);
    };
    // A `\` is read in two ways by browsers; nobody needs one.
    let end = quoted
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\'))?;
    quoted.get(end..)?.strip_prefix(b"\"")
}

fn after_token(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| !is_token(*byte));
    match end.unwrap_or(text.len()) {
        0 => None,
        end => text.get(end..),
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_of(written: &[&[u8]]) -> Vec<u8> {
        let mut headers = HeaderMap::new();
        for value in written {
            headers.append(CONTENT_DISPOSITION, HeaderValue::from_bytes(value).unwrap());
        }
        as_attachment(&mut headers);
        assert_eq!(headers.get_all(CONTENT_DISPOSITION).iter().count(), 1);
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        headers[CONTENT_DISPOSITION].as_bytes().to_vec()
    }

    #[test]
    fn a_file_name_stays() {
        for (written, made) in [
            ("attachment", "attachment"),
            ("inline", "attachment"),
            ("ATTACHMENT; filename=a.txt", "attachment; filename=a.txt"),
            (
                "inline;filename=\"a; b.txt\"",
                "attachment;filename=\"a; b.txt\"",
            ),
            (
                "Inline; filename=\"a\" ; filename*=UTF-8''%e2%82%ac.txt",
                "attachment; filename=\"a\" ; filename*=UTF-8''%e2%82%ac.txt",
            ),
            ("inline; filename=\"文\"", "attachment; filename=\"文\""),
        ] {
            assert_eq!(made_of(&[written.as_bytes()]), made.as_bytes(), "{written}");
        }
    }

    #[test]
    fn what_could_be_read_otherwise_goes() {
        for written in [
            &[][..],
            &[&b""[..]],
            &[b"attachment", b"inline"],
            &[b"attachment, inline"],
            &[b"\"attachment\""],
            &[b"form-data; name=x"],
            &[b"attachment; inline"],
            &[b"attachment;"],
            &[b"attachment; filename=a b"],
            &[b"attachment; filename=\"a\"b"],
            &[b"attachment; filename=\"a\\\"b\""],
            &[b"attachment; filename=\"a"],
            &[b"attachment; =a"],
            &[b"filename=attachment"],
            &[b"; filename=a"],
        ] {
            assert_eq!(made_of(written), b"attachment", "{written:?}");
        }
    }
}
