//! The responses that cosgate makes itself: a key that is scoped to prefixes cannot ask COS for them, and
//! tools request them before they do anything else.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};

use crate::error::{Code, S3Error};
use crate::s3::headers::check_owners;
use crate::s3::{Operation, xml};
use crate::tenant::Permit;

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// The response to what needs no COS; `None` for everything else. `region` is what this side calls its
/// region; `headers` are the client's.
pub(super) fn response(
    permit: &Permit<'_, '_>,
    headers: &HeaderMap,
    region: &str,
) -> Result<Option<Response<String>>, S3Error> {
    check_owners(headers, &permit.tenant().name)?;
    let response = match permit.request().operation {
        Operation::CreateBucket => {
            return Err(S3Error::new(
                Code::BucketAlreadyOwnedByYou,
                "The bucket is yours already, and needs no creating.",
            ));
        }
        Operation::GetBucketLocation => document(xml::location(region)),
        Operation::HeadBucket => {
            let mut response = Response::default();
            if let Ok(region) = HeaderValue::from_str(region) {
                response.headers_mut().insert(BUCKET_REGION, region);
            }
            response
        }
        Operation::ListBuckets => {
            let tenant = permit.tenant();
            let buckets: Vec<_> = tenant
                .grants
                .iter()
                .map(|grant| bucket(&grant.alias, region))
                .collect();
            document(xml::list_buckets(&tenant.name, &buckets))
        }
        _ => return Ok(None),
    };
    Ok(Some(response))
}

/// A bucket as `ListBuckets` shows it. When the real one was made is not ours to know.
fn bucket<'a>(alias: &'a str, region: &'a str) -> xml::ListedBucket<'a> {
    xml::ListedBucket {
        name: alias,
        created: "1970-01-01T00:00:00.000Z",
        region,
    }
}

/// An XML response with its length.
pub fn document(xml: String) -> Response<String> {
    let length = xml.len();
    let mut response = Response::new(xml);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}
