//! A page of a listing that holds common prefixes alone, as cosgate makes it without asking COS.

use super::document::Writer;
use crate::encoding::percent::push_encoded_path;
use crate::s3::continuation::token_of_marker;
use crate::s3::query::MAX_LISTED;
use crate::s3::{Operation, S3Request, SuccessKind};

/// A page of `request`, a listing of `bucket`, that shows `names`; `next` is the marker of the page that
/// follows. `native` says that the client speaks COS's own API, whose documents have no namespace.
pub(crate) fn common_prefixes(
    request: &S3Request<'_>,
    bucket: &str,
    names: &[String],
    next: Option<&str>,
    native: bool,
) -> String {
    let root = match request.operation.response() {
        SuccessKind::Document(root) => root,
        _ => "ListBucketResult", // no listing
    };
    let mut writer = if native {
        Writer::with_bare_root(root)
    } else {
        Writer::with_root(root)
    };
    write_request(&mut writer, request, bucket, native);
    writer.element("IsTruncated", if next.is_some() { "true" } else { "false" });
    if let Some(next) = next {
        let (element, text) = match request.operation {
            Operation::ListObjects => ("NextMarker", name_in(request, next)),
            Operation::ListObjectsV2 => ("NextContinuationToken", token_of_marker(next)),
            _ => ("NextKeyMarker", name_in(request, next)),
        };
        writer.element(element, &text);
    }
    if request.operation == Operation::ListObjectsV2 {
        writer.element("KeyCount", &names.len().to_string());
    }
    for prefix in names {
        writer.open("CommonPrefixes");
        writer.element("Prefix", &name_in(request, prefix));
        writer.close("CommonPrefixes");
    }
    writer.finish(root)
}

/// Writes what a listing repeats of its request.
fn write_request(writer: &mut Writer, request: &S3Request<'_>, bucket: &str, native: bool) {
    let value = |name| request.query.get(name).unwrap_or_default();
    let name = |parameter| name_in(request, value(parameter));
    let is_uploads = request.operation == Operation::ListMultipartUploads;
    let (bucket_element, max, max_element) = if is_uploads {
        ("Bucket", value("max-uploads"), "MaxUploads")
    } else {
        ("Name", value("max-keys"), "MaxKeys")
    };
    writer.element(bucket_element, bucket);
    writer.element("Prefix", &name("prefix"));
    for (element, parameter) in markers(request.operation) {
        // A key's name can be encoded; an id or a token is the maker's own.
        let text = match *element {
            "ContinuationToken" | "UploadIdMarker" | "VersionIdMarker" => {
                value(parameter).to_owned()
            }
            _ => name(parameter),
        };
        let is_optional = request.operation == Operation::ListObjectsV2;
        writer.element_if(
            element,
            Some(&*text).filter(|text| !is_optional || !text.is_empty()),
        );
    }
    let max: u32 = max.parse().unwrap_or(MAX_LISTED); // it has been checked
    writer.element(max_element, &max.min(MAX_LISTED).to_string());
    let delimiter = name("delimiter");
    writer.element_if(
        "Delimiter",
        Some(&*delimiter).filter(|text| !text.is_empty()),
    );
    let encoding = if native && is_uploads {
        "Encoding-Type" // 436/7736
    } else {
        "EncodingType"
    };
    writer.element_if(encoding, Some("url").filter(|_| is_encoded(request)));
}

fn is_encoded(request: &S3Request<'_>) -> bool {
    request.query.get("encoding-type") == Some("url")
}

/// `name` as the response to `request` writes it.
fn name_in(request: &S3Request<'_>, name: &str) -> String {
    if is_encoded(request) {
        encoded(name)
    } else {
        name.to_owned()
    }
}

/// The elements in which a listing repeats where it began, and the parameters that set it.
fn markers(operation: Operation) -> &'static [(&'static str, &'static str)] {
    match operation {
        Operation::ListMultipartUploads => &[
            ("KeyMarker", "key-marker"),
            ("UploadIdMarker", "upload-id-marker"),
        ],
        Operation::ListObjectVersions => &[
            ("KeyMarker", "key-marker"),
            ("VersionIdMarker", "version-id-marker"),
        ],
        Operation::ListObjectsV2 => &[
            ("ContinuationToken", "continuation-token"),
            ("StartAfter", "start-after"),
        ],
        _ => &[("Marker", "marker")],
    }
}

fn encoded(name: &str) -> String {
    let mut url = String::with_capacity(name.len());
    push_encoded_path(&mut url, name.as_bytes());
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::Query;

    fn page(operation: Operation, query: &str, next: Option<&str>, native: bool) -> String {
        let request = S3Request {
            operation,
            bucket: Some("photos".into()),
            key: None,
            query: Query::parse(query).unwrap(),
            copy_source: None,
        };
        let names = ["a b/".to_owned(), "a&/".to_owned()];
        let page = common_prefixes(&request, "photos", &names, next, native);
        page.replacen("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", "", 1)
    }

    #[test]
    fn each_listing_has_its_own_elements() {
        let of = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
        let shown = "<CommonPrefixes><Prefix>a b/</Prefix></CommonPrefixes>\
            <CommonPrefixes><Prefix>a&amp;/</Prefix></CommonPrefixes>";
        assert_eq!(
            page(
                Operation::ListObjects,
                "prefix=a&delimiter=/&max-keys=5000",
                Some("a&/"),
                false
            ),
            format!(
                "<ListBucketResult {of}><Name>photos</Name><Prefix>a</Prefix><Marker></Marker>\
                 <MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>\
                 <NextMarker>a&amp;/</NextMarker>{shown}</ListBucketResult>"
            )
        );
        let token = token_of_marker("a&/");
        assert_eq!(
            page(
                Operation::ListObjectsV2,
                "list-type=2&delimiter=/&start-after=a",
                Some("a&/"),
                false
            ),
            format!(
                "<ListBucketResult {of}><Name>photos</Name><Prefix></Prefix><StartAfter>a</StartAfter>\
                 <MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>\
                 <NextContinuationToken>{token}</NextContinuationToken><KeyCount>2</KeyCount>{shown}</ListBucketResult>"
            )
        );
        assert_eq!(
            page(
                Operation::ListMultipartUploads,
                "uploads&delimiter=/&max-uploads=2",
                None,
                true
            ),
            format!(
                "<ListMultipartUploadsResult><Bucket>photos</Bucket><Prefix></Prefix><KeyMarker></KeyMarker>\
                 <UploadIdMarker></UploadIdMarker><MaxUploads>2</MaxUploads><Delimiter>/</Delimiter>\
                 <IsTruncated>false</IsTruncated>{shown}</ListMultipartUploadsResult>"
            )
        );
        let versions = page(
            Operation::ListObjectVersions,
            "versions&delimiter=/",
            Some("a&/"),
            false,
        );
        assert!(versions.contains("<NextKeyMarker>a&amp;/</NextKeyMarker>"));
    }

    #[test]
    fn names_are_encoded_on_request() {
        let text = page(
            Operation::ListObjects,
            "encoding-type=url&prefix=a+&marker=%26",
            Some("a&/"),
            true,
        );
        for part in [
            "<Prefix>a%20</Prefix>",
            "<Marker>%26</Marker>",
            "<EncodingType>url</EncodingType>",
            "<NextMarker>a%26/</NextMarker>",
            "<CommonPrefixes><Prefix>a%20b/</Prefix>",
        ] {
            assert!(text.contains(part), "{part} {text}");
        }
    }
}
