//! Headers that an SDK has moved into the query of a presigned URL: metadata, tags, ACL, storage class and
//! others mean there what they mean as headers. They are part of the signature, since all of the query is.
//!
//! The AWS SDK for JavaScript moves every `x-amz-` header but those of encryption with the client's keys.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use super::query::{PRESIGN, Query, is_dropped};
use crate::error::{Code, S3Error};

/// Whether `name` is a header in the query of a presigned URL.
pub(super) fn is_hoisted(name: &str) -> bool {
    let is_amz = name
        .get(..6)
        .is_some_and(|front| front.eq_ignore_ascii_case("x-amz-"));
    let of_presigning = PRESIGN.iter().any(|known| known.eq_ignore_ascii_case(name));
    is_amz && !of_presigning && !is_dropped(name)
}

/// The same head with the headers of its query among its headers; `None` if the query has none. One that
/// is in both places must be the same.
fn as_headers(head: &Parts) -> Result<Option<Parts>, S3Error> {
    let raw = head.uri.query().unwrap_or_default();
    let may_have_any = raw.contains("mz-") || raw.contains("MZ-") || raw.contains('%');
    if !may_have_any {
        return Ok(None); // most requests: nothing is parsed twice
    }
    let query = Query::parse(raw)?;
    let hoisted = query.hoisted().collect::<Vec<_>>();
    if hoisted.is_empty() {
        return Ok(None);
    }
    let mut plain = head.clone();
    for (name, value) in hoisted {
        let wrong = || {
            let name = super::query::shown(name);
            S3Error::new(
                Code::InvalidArgument,
                format!(
                    "The query parameter {name} cannot be a header, or differs from the header of that name."
                ),
            )
        };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        match plain.headers.get(&header) {
            Some(same) if *same == value => {}
            Some(_) => return Err(wrong()),
            None => _ = plain.headers.insert(header, value),
        }
    }
    Ok(Some(plain))
}

/// The request in S3's terms, if it is not in them already: one of COS's own API is translated, and the
/// headers of a presigned query become headers.
pub fn in_s3_words<'h>(head: &'h Parts, domains: &[String]) -> Result<Cow<'h, Parts>, S3Error> {
    let native = super::native::to_s3(head, domains)?;
    let plain = match native {
        Some(native) => Some(native),
        None => as_headers(head)?,
    };
    Ok(plain.map_or(Cow::Borrowed(head), Cow::Owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Signature=s";

    fn head(query: &str, header: Option<(&str, &str)>) -> Parts {
        let mut request = http::Request::put(format!("/b/k?{query}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn headers_of_a_presigned_query_become_headers() {
        let query =
            format!("{SIGNED}&x-amz-meta-a=1%202&X-Amz-Acl=private&x-amz-checksum-crc32=AAAA");
        let plain = as_headers(&head(&query, None)).unwrap().unwrap();
        assert_eq!(plain.headers["x-amz-meta-a"], "1 2");
        assert_eq!(plain.headers["x-amz-acl"], "private");
        assert_eq!(plain.headers.len(), 2);
    }

    #[test]
    fn only_the_query_of_a_presigned_url_has_headers() {
        assert!(
            as_headers(&head("x-amz-acl=private", None))
                .unwrap()
                .is_none()
        );
        assert!(as_headers(&head(SIGNED, None)).unwrap().is_none());
    }

    #[test]
    fn rejects_a_header_that_differs_from_the_query() {
        let query = format!("{SIGNED}&x-amz-meta-a=1");
        let same = head(&query, Some(("x-amz-meta-a", "1")));
        assert_eq!(as_headers(&same).unwrap().unwrap().headers.len(), 1);
        let twice = head(&format!("{query}&X-Amz-Meta-A=2"), None);
        assert_eq!(
            as_headers(&twice).unwrap_err().code(),
            Code::InvalidArgument
        );
        for other in [
            head(&query, Some(("x-amz-meta-a", "2"))),
            head(&format!("{SIGNED}&x-amz-meta-a=%0a"), None),
        ] {
            assert_eq!(
                as_headers(&other).unwrap_err().code(),
                Code::InvalidArgument
            );
        }
    }
}
