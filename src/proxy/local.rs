//! What is answered here: a key that is scoped to prefixes cannot ask COS for it, and tools ask it
//! before they do anything else.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::body::Answer;
use crate::error::{Code, S3Error};
use crate::s3::headers::check_owners;
use crate::s3::{Operation, xml};
use crate::tenant::Permit;

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// The answer to what needs no COS; `None` for everything else. `region` is what this side calls its
/// region; `headers` are the client's.
pub fn answer_locally(
    permit: &Permit<'_, '_>,
    headers: &HeaderMap,
    region: &str,
) -> Result<Option<Response<Answer>>, S3Error> {
    check_owners(headers, &permit.tenant().name)?;
    let answer = match permit.request().operation {
        Operation::CreateBucket => {
            return Err(S3Error::new(
                Code::BucketAlreadyOwnedByYou,
                "The bucket is yours already, and needs no creating.",
            ));
        }
        Operation::GetBucketLocation => document(xml::location(region)),
        Operation::HeadBucket => {
            let mut answer = Response::new(Answer::Empty);
            if let Ok(region) = HeaderValue::from_str(region) {
                answer.headers_mut().insert(BUCKET_REGION, region);
            }
            answer
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
    Ok(Some(answer))
}

/// A bucket as `ListBuckets` shows it. When the real one was made is not ours to know.
fn bucket<'a>(alias: &'a str, region: &'a str) -> xml::ListedBucket<'a> {
    xml::ListedBucket {
        name: alias,
        created: "1970-01-01T00:00:00.000Z",
        region,
    }
}

/// An XML answer with its length.
pub(super) fn document(xml: String) -> Response<Answer> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(CONTENT_LENGTH, xml.len().into());
    let mut answer = Response::new(Answer::Whole(Bytes::from(xml)));
    *answer.status_mut() = StatusCode::OK;
    *answer.headers_mut() = headers;
    answer
}
