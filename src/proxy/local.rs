//! What is answered here: a key that is scoped to prefixes cannot ask COS for it, and tools ask it
//! before they do anything else.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::Proxy;
use crate::body::Answer;
use crate::s3::{Code, Operation, S3Error, xml};
use crate::tenant::Permit;

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

impl Proxy {
    /// The answer to what needs no COS; `None` for everything else.
    pub(super) fn answer_locally(&self, permit: &Permit<'_, '_>) -> Result<Option<Response<Answer>>, S3Error> {
        let region = &self.config().server.region;
        let answer = match permit.request().operation {
            Operation::CreateBucket => {
                return Err(S3Error::new(
                    Code::BucketAlreadyOwnedByYou,
                    "The bucket is yours already, and needs no creating.",
                ));
            }
            Operation::GetBucketLocation => document(xml::location_constraint(region)),
            Operation::HeadBucket => {
                let mut answer = Response::new(Answer::Empty);
                if let Ok(region) = HeaderValue::from_str(region) {
                    answer.headers_mut().insert(BUCKET_REGION, region);
                }
                answer
            }
            Operation::ListBuckets => {
                let grants = &permit.tenant().grants;
                document(xml::list_buckets(&permit.tenant().name, grants.iter().map(|g| g.alias.as_str())))
            }
            _ => return Ok(None),
        };
        Ok(Some(answer))
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
