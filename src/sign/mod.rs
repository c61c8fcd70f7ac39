//! Signatures. Pure: a function of the request's parts, a key and a moment.

use std::borrow::Cow;
use std::cmp::Ordering;

use http::HeaderMap;

use crate::encoding::percent::is_unreserved;
use crate::error::{Code, S3Error};

pub mod cos;
pub mod form;
pub(crate) mod mac;
pub mod sigv2;
pub mod sigv4;
mod sigv4_claim;
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

/// S3's refusal of a proof whose time is over.
pub(crate) fn expired() -> S3Error {
    S3Error::new(Code::AccessDenied, "Request has expired")
}

/// S3's refusal of a request with several kinds of proof.
pub(crate) fn one_mechanism() -> S3Error {
    S3Error::new(Code::InvalidArgument, "Only one auth mechanism allowed")
}

/// S3's refusal of a request with several `Authorization` headers.
pub(crate) fn one_authorization() -> S3Error {
    S3Error::new(
        Code::InvalidArgument,
        "Only one Authorization header is allowed",
    )
}

/// Orders two decoded names or values as their percent-encoded forms are ordered.
///
/// Each byte's encoding is distinguished by its first character, and `%` sorts below every unreserved
/// character, so comparing `(unreserved, byte)` gives the same order without encoding anything.
fn compare_encoded(a: &str, b: &str) -> Ordering {
    let rank = |byte| (is_unreserved(byte), byte);
    a.bytes().map(rank).cmp(b.bytes().map(rank))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoding::percent::push_encoded;

    fn encoded(text: &str) -> String {
        let mut out = String::new();
        push_encoded(&mut out, text.as_bytes());
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn decoded_names_sort_as_their_encoded_forms(a in "[aAzZ09%/~_.+é值 -]{0,4}", b in "[aAzZ09%/~_.+é值 -]{0,4}") {
            prop_assert_eq!(compare_encoded(&a, &b), encoded(&a).cmp(&encoded(&b)));
        }
    }
}
