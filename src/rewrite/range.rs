//! The range of an object in the response to GET or HEAD: the client must not take a part for the whole,
//! nor one part for another.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use http::{HeaderMap, StatusCode};

use crate::s3::Operation;

/// What was requested of an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Between(u64, u64),
    From(u64),
    Last(u64),
    /// Several ranges, or none that RFC 9110 section 14.1.2 knows.
    Other,
}

/// Refuses a success that is not the part which `requested`, the client's head, wants. All of the object in
/// place of a part is none of these: RFC 9110 section 14.2 leaves that to the store, and `200` says so.
pub(crate) fn check_range(
    operation: Operation,
    requested: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
) -> Result<(), &'static str> {
    let reads = operation.reads_object();
    if status != StatusCode::PARTIAL_CONTENT {
        // Those that S3 and COS do not send promise no object: 204 has none, 203 another one.
        let is_fit = !reads || status == StatusCode::OK || !status.is_success();
        if !is_fit {
            return Err("COS reported a success with another status than that of an object");
        }
        let reported = || only(response, CONTENT_RANGE).and_then(content_range);
        let is_whole = |(first, last, size)| first == 0 && size == Some(last + 1);
        if reads && response.contains_key(CONTENT_RANGE) && !reported().is_some_and(is_whole) {
            return Err(
                "COS reported a success with the status of a whole and the range of a part",
            );
        }
        return Ok(());
    }
    if !reads || !requested.contains_key(RANGE) {
        return Err("COS reported a success with a part where the whole was requested");
    }
    let wanted = wanted(requested);
    if wanted == Wanted::Other && is_multipart(response) && !response.contains_key(CONTENT_RANGE) {
        return Ok(()); // each part has a range of its own
    }
    let reported = only(response, CONTENT_RANGE).and_then(content_range);
    let (first, last, size) =
        reported.ok_or("COS reported a success with a part and does not say which")?;
    let end = size.map(|size| size - 1); // greater than `last`
    let is_wanted = match wanted {
        Wanted::Between(from, to) => first == from && last == end.map_or(to, |end| to.min(end)),
        Wanted::From(from) => first == from && end.is_none_or(|end| last == end),
        Wanted::Last(count) => {
            size.is_none_or(|size| first == size.saturating_sub(count) && end == Some(last))
        }
        Wanted::Other => true,
    };
    if !is_wanted {
        return Err("COS reported a success with another part than was requested");
    }
    // Without a length its framing says where it ends.
    let length = response.contains_key(CONTENT_LENGTH);
    if length && only(response, CONTENT_LENGTH).and_then(number) != Some(last - first + 1) {
        return Err("COS reported a success with a part of another length than it says");
    }
    Ok(())
}

fn wanted(requested: &HeaderMap) -> Wanted {
    let range = only(requested, RANGE).and_then(|range| {
        let (unit, range) = range.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        Some((unit.trim(), first.trim(), last.trim()))
    });
    let wanted = match range {
        Some((unit, ..)) if !unit.eq_ignore_ascii_case("bytes") => None,
        Some((_, "", count)) => number(count).map(Wanted::Last),
        Some((_, first, "")) => number(first).map(Wanted::From),
        Some((_, first, last)) => {
            let ends = number(first).zip(number(last));
            ends.map(|(first, last)| Wanted::Between(first, last))
        }
        None => None,
    };
    wanted.unwrap_or(Wanted::Other)
}

/// `bytes first-last/size`: first, last and the size, if it is known (RFC 9110 section 14.4).
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, range) = text.trim().split_once(' ')?;
    let (range, size) = range.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let size = if size == "*" {
        None
    } else {
        Some(number(size)?)
    };
    let fits =
        unit.eq_ignore_ascii_case("bytes") && first <= last && last < size.unwrap_or(u64::MAX);
    fits.then_some((first, last, size))
}

fn is_multipart(response: &HeaderMap) -> bool {
    only(response, CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.get(..MULTIPART.len());
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(MULTIPART))
    })
}

const MULTIPART: &str = "multipart/byteranges";

/// The value of a header that stands there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(())?;
    value.to_str().ok()
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    /// The outcome for a response of 206 with these `Content-Range`s and this length.
    fn part(range: &'static str, reported: &[&'static str], length: &'static str) -> bool {
        let requested = headers(&[(RANGE, range)]);
        let mut response = headers(&[(CONTENT_LENGTH, length)]);
        for value in reported {
            response.append(CONTENT_RANGE, HeaderValue::from_static(value));
        }
        let status = StatusCode::PARTIAL_CONTENT;
        let outcomes = [Operation::GetObject, Operation::HeadObject]
            .map(|operation| check_range(operation, &requested, status, &response).is_ok());
        assert_eq!(outcomes[0], outcomes[1], "{range} {reported:?}");
        outcomes[0]
    }

    #[test]
    fn a_part_passes_that_is_the_one_requested() {
        for (range, reported, length) in [
            ("bytes=0-4", "bytes 0-4/11", "5"),
            ("bytes=0-4", "bytes 0-4/*", "5"),
            ("bytes=0-99", "bytes 0-10/11", "11"),
            ("bytes=0-18446744073709551615", "bytes 0-10/11", "11"),
            ("bytes=6-", "bytes 6-10/11", "5"),
            ("bytes=6-", "bytes 6-10/*", "5"),
            ("bytes=-5", "bytes 6-10/11", "5"),
            ("bytes=-50", "bytes 0-10/11", "11"),
            ("Bytes = 0 - 4", "Bytes 0-4/11", "5"),
            ("bytes=0-1,3-4", "bytes 0-4/11", "5"),
            ("items=0-1", "bytes 0-4/11", "5"),
        ] {
            assert!(part(range, &[reported], length), "{range} {reported}");
        }
        let several = headers(&[(RANGE, "bytes=0-1,3-4")]);
        let response = headers(&[(CONTENT_TYPE, "Multipart/byteranges; boundary=x")]);
        let status = StatusCode::PARTIAL_CONTENT;
        assert_eq!(
            check_range(Operation::GetObject, &several, status, &response),
            Ok(())
        );
        let one = headers(&[(RANGE, "bytes=0-4")]);
        assert!(check_range(Operation::GetObject, &one, status, &response).is_err());
    }

    #[test]
    fn refuses_a_part_that_was_not_requested_or_cannot_be_identified() {
        for (range, reported, length) in [
            ("bytes=0-4", &[][..], "5"),
            ("bytes=0-4", &["bytes 0-4/11", "bytes 5-9/11"], "5"),
            ("bytes=0-4", &["bytes 5-9/11"], "5"),
            ("bytes=0-4", &["bytes 0-3/11"], "4"),
            ("bytes=0-4", &["bytes 0-9/11"], "10"),
            ("bytes=0-4", &["bytes 0-4/11"], "3"),
            ("bytes=0-4", &["bytes 0-4/11"], "x"),
            ("bytes=6-", &["bytes 6-9/11"], "4"),
            ("bytes=6-", &["bytes 0-10/11"], "11"),
            ("bytes=-5", &["bytes 0-4/11"], "5"),
            ("bytes=-5", &["bytes 5-9/11"], "5"),
            ("bytes=0-4", &["bytes */11"], "5"),
            ("bytes=0-4", &["bytes 4-0/11"], "5"),
            ("bytes=0-4", &["bytes 0-4/4"], "5"),
            ("bytes=0-4", &["bytes 0-4"], "5"),
            ("bytes=0-4", &["items 0-4/11"], "5"),
            ("bytes=0-1,3-4", &["bytes 0-4/11"], "3"),
        ] {
            assert!(!part(range, reported, length), "{range} {reported:?}");
        }
    }

    #[test]
    fn refuses_a_part_in_place_of_the_whole() {
        let none = HeaderMap::new();
        let part = headers(&[(CONTENT_RANGE, "bytes 0-4/11"), (CONTENT_LENGTH, "5")]);
        let range = headers(&[(RANGE, "bytes=0-4")]);
        let is_fit = |operation, requested, status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            check_range(operation, requested, status, &part).is_ok()
        };
        for operation in [Operation::GetObject, Operation::HeadObject] {
            assert!(!is_fit(operation, &none, 206));
            for requested in [&none, &range] {
                assert!(!is_fit(operation, requested, 200));
                for reported in ["bytes 0-4/5", "bytes 0-4/11", "bytes 1-4/5", "bytes 0-4/*"] {
                    let reported_range = headers(&[(CONTENT_RANGE, reported)]);
                    let outcome =
                        check_range(operation, requested, StatusCode::OK, &reported_range);
                    assert_eq!(outcome.is_ok(), reported == "bytes 0-4/5", "{reported}");
                }
                assert_eq!(
                    check_range(operation, requested, StatusCode::OK, &none),
                    Ok(())
                );
                let unchanged = StatusCode::NOT_MODIFIED;
                assert_eq!(check_range(operation, requested, unchanged, &none), Ok(()));
                for status in [201, 202, 203, 204, 205, 207] {
                    assert!(!is_fit(operation, requested, status), "{status}");
                }
            }
        }
        for operation in [Operation::PutObject, Operation::ListObjectsV2] {
            assert!(!is_fit(operation, &range, 206));
            assert!(is_fit(operation, &none, 200));
            assert!(is_fit(operation, &none, 204));
        }
    }
}
