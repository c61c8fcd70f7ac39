//! The XML that cosgate returns, and what it must understand of COS's responses.

use std::collections::HashSet;

use super::DeleteObject;
use super::document::{Document, Writer, malformed, once};
use crate::error::{Code, S3Error};

/// One line of `ListBuckets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedBucket<'a> {
    /// The alias that the client uses.
    pub name: &'a str,
    /// When it was made, `2026-01-01T00:00:00.000Z`.
    pub created: &'a str,
    /// Its region, as the local side calls it.
    pub region: &'a str,
}

/// The response to `DeleteObjects`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// What was deleted; empty for a quiet request.
    pub deleted: Vec<Deleted>,
    /// What was not.
    pub failures: Vec<DeleteFailure>,
}

/// One object that was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// `Key`
    pub key: String,
    /// `VersionId`: what the client named.
    pub version_id: Option<String>,
    /// `DeleteMarker`, as COS reports it.
    pub delete_marker: Option<String>,
    /// `DeleteMarkerVersionId`
    pub delete_marker_version_id: Option<String>,
}

/// One object that was not deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteFailure {
    /// `Key`
    pub key: String,
    /// `VersionId`: what the client named.
    pub version_id: Option<String>,
    /// `Code`
    pub code: String,
    /// `Message`
    pub message: String,
}

/// COS's `<Error>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UpstreamError {
    /// `Code`
    pub code: String,
    /// `Message`
    pub message: String,
    /// `RequestId`
    pub request_id: String,
}

/// `ListBuckets`: a page of `owner`'s buckets. `next` is the token of the page that follows.
pub fn list_buckets(
    owner: &str,
    buckets: &[ListedBucket<'_>],
    prefix: Option<&str>,
    next: Option<&str>,
) -> String {
    let mut writer = Writer::with_root("ListAllMyBucketsResult");
    write_owner(&mut writer, owner);
    writer.open("Buckets");
    for bucket in buckets {
        writer.open("Bucket");
        writer.element("Name", bucket.name);
        writer.element("CreationDate", bucket.created);
        writer.element("BucketRegion", bucket.region);
        writer.close("Bucket");
    }
    writer.close("Buckets");
    writer.element_if("ContinuationToken", next);
    writer.element_if("Prefix", prefix);
    writer.finish("ListAllMyBucketsResult")
}

pub(super) fn write_owner(writer: &mut Writer, owner: &str) {
    writer.open("Owner");
    writer.element("ID", owner);
    writer.element("DisplayName", owner);
    writer.close("Owner");
}

/// A document with the root `root` and no more than one element.
pub fn unset(root: &str, element: Option<(&str, &str)>) -> String {
    let mut writer = Writer::with_root(root);
    if let Some((name, text)) = element {
        writer.element(name, text);
    }
    writer.finish(root)
}

/// `GetObjectAttributes`: those that the client requested and the object has.
pub(crate) fn object_attributes(
    etag: Option<&str>,
    storage_class: Option<&str>,
    size: Option<u64>,
) -> String {
    let mut writer = Writer::with_root("GetObjectAttributesResponse");
    writer.element_if("ETag", etag);
    writer.element_if("StorageClass", storage_class);
    writer.element_if("ObjectSize", size.map(|size| size.to_string()).as_deref());
    writer.finish("GetObjectAttributesResponse")
}

/// `GetBucketLocation`. S3 says its first region, us-east-1, by saying nothing.
pub fn location(region: &str) -> String {
    let mut writer = Writer::with_root("LocationConstraint");
    if region != "us-east-1" {
        writer.text(region);
    }
    writer.finish("LocationConstraint")
}

/// The response to `PostObject`, where it is a document.
pub(crate) fn post_response(location: &str, bucket: &str, key: &str, etag: &str) -> String {
    let mut writer = Writer::with_bare_root("PostResponse");
    writer.element("Location", location);
    writer.element("Bucket", bucket);
    writer.element("Key", key);
    writer.element("ETag", etag);
    writer.finish("PostResponse")
}

/// The document of an error; `resource` is the path that was requested.
pub fn error(error: &S3Error, resource: &str, request_id: &str) -> String {
    open_error(error, resource, request_id).finish("Error")
}

/// The same as COS writes it (436/7730): S3's elements and its own id of the log line, which is ours.
pub(crate) fn native_error(error: &S3Error, resource: &str, request_id: &str) -> String {
    let mut writer = open_error(error, resource, request_id);
    writer.element("TraceId", request_id);
    writer.finish("Error")
}

fn open_error(error: &S3Error, resource: &str, request_id: &str) -> Writer {
    let mut writer = Writer::with_bare_root("Error");
    writer.element("Code", error.code().as_str());
    writer.element("Message", error.message());
    for (name, value) in error.elements() {
        writer.element(name, value);
    }
    writer.element("Resource", resource);
    writer.element("RequestId", request_id);
    writer
}

impl DeleteResult {
    /// Parses COS's response, of at most `limit` bytes. What is not known is left out.
    pub fn parse(body: &[u8], limit: usize) -> Result<Self, S3Error> {
        let mut document = Document::open(body, limit, "DeleteResult")?;
        let mut result = Self::default();
        while let Some(name) = document.child()? {
            match name.as_str() {
                "Deleted" => result.deleted.push(Deleted::read(&mut document)?),
                "Error" => result.failures.push(DeleteFailure::read(&mut document)?),
                _ => document.skip()?,
            }
        }
        document.close()?;
        Ok(result)
    }

    /// Adds a failure for each of `objects` that the result does not report: left out, it would look deleted.
    pub(crate) fn fail_unreported(&mut self, objects: &[DeleteObject]) {
        let deleted = self.deleted.iter();
        let deleted = deleted.map(|deleted| (&*deleted.key, deleted.version_id.as_deref()));
        let failed = self.failures.iter();
        let failed = failed.map(|failure| (&*failure.key, failure.version_id.as_deref()));
        let reported: HashSet<(&str, Option<&str>)> = deleted.chain(failed).collect();
        let keys: HashSet<&str> = reported.iter().map(|(key, _)| *key).collect();
        // A report without a version is of each that was requested.
        let is_reported = |object: &&DeleteObject| match object.version_id.as_deref() {
            None => keys.contains(&*object.key),
            version => {
                reported.contains(&(&*object.key, version))
                    || reported.contains(&(&*object.key, None))
            }
        };
        let silent = objects.iter().filter(|object| !is_reported(object));
        let silent: Vec<_> = silent
            .map(|object| DeleteFailure {
                key: object.key.clone(),
                version_id: object.version_id.clone(),
                code: Code::InternalError.as_str().to_owned(),
                message: "The store did not report whether it deleted this key. Try again."
                    .to_owned(),
            })
            .collect();
        self.failures.extend(silent);
    }

    /// The response for the client.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::with_root("DeleteResult");
        for deleted in &self.deleted {
            writer.open("Deleted");
            writer.element("Key", &deleted.key);
            writer.element_if("VersionId", deleted.version_id.as_deref());
            writer.element_if("DeleteMarker", deleted.delete_marker.as_deref());
            writer.element_if(
                "DeleteMarkerVersionId",
                deleted.delete_marker_version_id.as_deref(),
            );
            writer.close("Deleted");
        }
        for failure in &self.failures {
            writer.open("Error");
            writer.element("Key", &failure.key);
            writer.element_if("VersionId", failure.version_id.as_deref());
            writer.element("Code", &failure.code);
            writer.element("Message", &failure.message);
            writer.close("Error");
        }
        writer.finish("DeleteResult")
    }
}

impl Deleted {
    fn read(document: &mut Document<'_>) -> Result<Self, S3Error> {
        let (mut key, mut version_id, mut marker, mut marker_version_id) = (None, None, None, None);
        while let Some(name) = document.child()? {
            let slot = match name.as_str() {
                "Key" => &mut key,
                "VersionId" => &mut version_id,
                "DeleteMarker" => &mut marker,
                "DeleteMarkerVersionId" => &mut marker_version_id,
                _ => {
                    document.skip()?;
                    continue;
                }
            };
            once(slot, &name, document.text()?)?;
        }
        Ok(Self {
            key: key.ok_or_else(|| malformed("a Deleted has no Key"))?,
            version_id,
            delete_marker: marker,
            delete_marker_version_id: marker_version_id,
        })
    }
}

impl DeleteFailure {
    fn read(document: &mut Document<'_>) -> Result<Self, S3Error> {
        let (mut key, mut version_id, mut code, mut message) = (None, None, None, None);
        while let Some(name) = document.child()? {
            let slot = match name.as_str() {
                "Key" => &mut key,
                "VersionId" => &mut version_id,
                "Code" => &mut code,
                "Message" => &mut message,
                _ => {
                    document.skip()?;
                    continue;
                }
            };
            once(slot, &name, document.text()?)?;
        }
        Ok(Self {
            key: key.ok_or_else(|| malformed("an Error has no Key"))?,
            version_id,
            code: code.ok_or_else(|| malformed("an Error has no Code"))?,
            message: message.unwrap_or_default(),
        })
    }
}

impl UpstreamError {
    /// Parses COS's error, of at most `limit` bytes. What is not known is left out: it may hold the
    /// text that was signed.
    pub(crate) fn parse(body: &[u8], limit: usize) -> Result<Self, S3Error> {
        let mut document = Document::open(body, limit, "Error")?;
        let (mut code, mut message, mut request_id) = (None, None, None);
        while let Some(name) = document.child()? {
            let slot = match name.as_str() {
                "Code" => &mut code,
                "Message" => &mut message,
                "RequestId" => &mut request_id,
                _ => {
                    document.skip()?;
                    continue;
                }
            };
            once(slot, &name, document.text()?)?;
        }
        document.close()?;
        Ok(Self {
            code: code.ok_or_else(|| malformed("an Error has no Code"))?,
            message: message.unwrap_or_default(),
            request_id: request_id.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn an_error_says_code_message_resource_and_request() {
        let error = S3Error::new(Code::NoSuchKey, "No <key>.").detail("a real bucket");
        assert_eq!(
            super::error(&error, "/photos/a&b", "R1"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>No &lt;key&gt;.</Message>\
             <Resource>/photos/a&amp;b</Resource><RequestId>R1</RequestId></Error>"
        );
    }

    #[test]
    fn buckets_are_listed_with_their_region() {
        let buckets = [ListedBucket {
            name: "photos",
            created: "2026-01-01T00:00:00.000Z",
            region: "ap-x",
        }];
        let xml = list_buckets("acme", &buckets, None, None);
        assert!(xml.contains("<ListAllMyBucketsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Owner><ID>acme</ID>"));
        assert!(xml.contains(
            "<Bucket><Name>photos</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate>"
        ));
        assert!(xml.ends_with(
            "<BucketRegion>ap-x</BucketRegion></Bucket></Buckets></ListAllMyBucketsResult>"
        ));
    }

    #[test]
    fn the_first_region_is_an_empty_element() {
        assert!(location("ap-x").ends_with(">ap-x</LocationConstraint>"));
        assert!(location("us-east-1").ends_with("\"></LocationConstraint>"));
    }

    #[test]
    fn an_error_of_cos_keeps_code_message_and_request_id_only() {
        let xml = b"<?xml version='1.0' encoding='utf-8' ?>\n<Error>\n<Code>RequestTimeTooSkewed</Code><Message>m</Message>\
                    <StringToSign>secret<x><y/></x></StringToSign><RequestId>r1</RequestId>\n</Error>\n";
        let error = UpstreamError::parse(xml, LIMIT).unwrap();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("RequestTimeTooSkewed", "m")
        );
        assert_eq!(error.request_id, "r1");
        for bad in [
            "<html/>",
            "<Error/>",
            "<Error><Code>a</Code><Code>b</Code></Error>",
            "<!DOCTYPE x><Error><Code>a</Code></Error>",
        ] {
            assert!(
                UpstreamError::parse(bad.as_bytes(), LIMIT).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_key_that_the_result_says_nothing_of_is_a_failure() {
        let xml = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Gone><Key>c</Key></Gone>\
            <Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>";
        let object = |key: &str, version: Option<&str>| DeleteObject {
            key: key.to_owned(),
            version_id: version.map(str::to_owned),
        };
        let mut result = DeleteResult::parse(xml, LIMIT).unwrap();
        result.fail_unreported(&[object("a", None), object("b", Some("1")), object("c", None)]);
        let failures: Vec<_> = result
            .failures
            .iter()
            .map(|failure| (&*failure.key, &*failure.code))
            .collect();
        assert_eq!(failures, [("b", "AccessDenied"), ("c", "InternalError")]);
        assert_eq!(result.deleted.len(), 1);
        let xml =
            b"<DeleteResult><Deleted><Key>k</Key><VersionId>1</VersionId></Deleted></DeleteResult>";
        let mut result = DeleteResult::parse(xml, LIMIT).unwrap();
        result.fail_unreported(&[object("k", Some("1")), object("k", Some("2"))]);
        assert_eq!(result.failures.len(), 1);
        assert_eq!(result.failures[0].version_id.as_deref(), Some("2"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        #[test]
        fn a_delete_result_reads_back(
            keys in proptest::collection::vec("[^\u{0}\u{fffe}\u{ffff}]{0,20}", 0..20),
            version_id in proptest::option::of("[a-z]{0,9}"),
        ) {
            let deleted = keys.iter().map(|key| Deleted { key: key.clone(), version_id: version_id.clone(), ..Deleted::default() });
            let failures = keys.iter().map(|key| DeleteFailure {
                key: key.clone(),
                version_id: version_id.clone(),
                code: "AccessDenied".to_owned(),
                message: key.clone(),
            });
            let result = DeleteResult { deleted: deleted.collect(), failures: failures.collect() };
            prop_assert_eq!(&DeleteResult::parse(result.to_xml().as_bytes(), LIMIT).unwrap(), &result);
        }

        #[test]
        fn no_response_panics(body in any::<Vec<u8>>()) {
            let _ = DeleteResult::parse(&body, LIMIT);
            let _ = UpstreamError::parse(&body, LIMIT);
        }
    }
}
