//! Texts and tags, read and written.

use std::borrow::Cow;

use bytes::BytesMut;
use memchr::memmem;
use quick_xml::escape::unescape;

use crate::rewrite::names::Unfit;

/// Whether an XML declaration leaves the names in the response to the client as they are read here.
pub(super) fn is_utf8(declaration: &[u8]) -> bool {
    let Some(at) = memmem::find(declaration, b"encoding") else {
        return true; // section 4.3.3
    };
    let stated = declaration.get(at..).unwrap_or_default();
    let mut quoted = stated.split(|byte| matches!(byte, b'"' | b'\''));
    let name = quoted.nth(1).unwrap_or_default();
    name.eq_ignore_ascii_case(b"utf-8")
}

pub(super) fn text_of(raw: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(raw).map_err(|_| Unfit::Malformed("COS's XML is not UTF-8"))
}

pub(super) fn unescaped(raw: &str) -> Result<Cow<'_, str>, Unfit> {
    unescape(raw).map_err(|_| Unfit::Malformed("an unknown entity in COS's XML"))
}

pub(super) fn put_leaf(out: &mut BytesMut, name: &str, text: &str) {
    put_tag(out, "<", name, "");
    out.extend_from_slice(text.as_bytes());
    put_tag(out, "</", name, "");
}

pub(super) fn put_tag(out: &mut BytesMut, start: &str, name: &str, attributes: &str) {
    for piece in [start, name, attributes, ">"] {
        out.extend_from_slice(piece.as_bytes());
    }
}
