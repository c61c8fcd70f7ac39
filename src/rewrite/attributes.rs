//! `GetObjectAttributes`, made of the headers of a HEAD: COS has no such operation.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html>

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, ETAG};

use crate::error::{Code, S3Error};
use crate::s3::xml;

const REQUESTED: &str = "x-amz-object-attributes";
const STORAGE_CLASS: &str = "x-amz-storage-class";
/// `Checksum` and `ObjectParts` are known of no object here: S3 leaves out what an object does not have.
const ATTRIBUTES: [&str; 5] = [
    "ETag",
    "Checksum",
    "ObjectParts",
    "StorageClass",
    "ObjectSize",
];

/// Refuses a request that names no attribute, or one that S3 does not have.
pub(crate) fn check_attributes(client: &HeaderMap) -> Result<(), S3Error> {
    let mut requested = requested(client).peekable();
    if requested.peek().is_none() {
        return Err(S3Error::new(
            Code::InvalidRequest,
            "Name the attributes in the header x-amz-object-attributes.",
        ));
    }
    if requested.all(|name| ATTRIBUTES.contains(&name)) {
        return Ok(());
    }
    Err(S3Error::new(
        Code::InvalidArgument,
        format!(
            "x-amz-object-attributes names an unknown attribute. Use {}.",
            ATTRIBUTES.join(", ")
        ),
    ))
}

/// The document of the attributes that `client` requests, of the object with these headers. What the
/// response of a HEAD says of its own body goes from `headers`.
pub fn attributes(client: &HeaderMap, headers: &mut HeaderMap) -> String {
    let has = |attribute| requested(client).any(|name| name == attribute);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text(ETAG.as_str()).map(|etag| etag.trim_matches('"'));
    let size = text(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let class = text(STORAGE_CLASS).unwrap_or("STANDARD");
    let document = xml::object_attributes(
        etag.filter(|_| has("ETag")),
        Some(class).filter(|_| has("StorageClass")),
        size.filter(|_| has("ObjectSize")),
    );
    let kept = [
        "last-modified",
        "x-amz-delete-marker",
        "x-amz-request-id",
        "x-amz-version-id",
    ];
    let others: Vec<_> = headers
        .keys()
        .filter(|name| !kept.contains(&name.as_str()))
        .cloned()
        .collect();
    for name in others {
        headers.remove(name);
    }
    document
}

/// The attributes that the client names, in one header or several.
fn requested(client: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = client.get_all(REQUESTED).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(requested: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(REQUESTED),
            HeaderValue::from_static(requested),
        )])
    }

    #[test]
    fn rejects_unknown_attributes_and_none() {
        let code = |client: HeaderMap| check_attributes(&client).map_err(|error| error.code());
        assert_eq!(code(client("ETag,ObjectSize")), Ok(()));
        assert_eq!(code(client("ETag, Size")), Err(Code::InvalidArgument));
        assert_eq!(code(client(" ,")), Err(Code::InvalidRequest));
        assert_eq!(code(HeaderMap::new()), Err(Code::InvalidRequest));
    }

    #[test]
    fn writes_the_requested_attributes_alone() {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static("\"abc\""));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
        headers.insert("x-amz-version-id", HeaderValue::from_static("v1"));
        let document = attributes(&client("ETag,ObjectSize,Checksum"), &mut headers);
        assert!(
            document.contains("<ETag>abc</ETag><ObjectSize>7</ObjectSize></"),
            "{document}"
        );
        assert!(!document.contains("StorageClass"));
        assert_eq!(headers.len(), 1);
    }
}
