//! Signatures. Pure: a function of the request's parts, a key and a moment.

use std::borrow::Cow;

use http::HeaderMap;

pub mod cos;
pub mod encoding;
pub mod sigv4;
pub mod tc3;

/// The parts of a request that a signature covers, in decoded form.
#[derive(Clone, Copy, Debug)]
pub struct Signable<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The path, percent-decoded, with its leading `/`.
    pub path: &'a [u8],
    /// The query, percent-decoded, in any order.
    pub query: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// All headers, `host` included.
    pub headers: &'a HeaderMap,
}
