//! The responses that cosgate makes itself: a key that is scoped to prefixes cannot request them of COS, and
//! tools request them before they do anything else.

use http::Response;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION,
};
use http::request::Parts;

use crate::error::{Code, S3Error};
use crate::s3::conditions::depends_on_target;
use crate::s3::headers::check_owners;
use crate::s3::native::{speaks_native, vocabulary};
use crate::s3::{Local, Performer, S3Request, xml};
use crate::tenant::{ListingPage, Permit};

/// The MD5 of no bytes.
const ETAG_OF_NOTHING: &str = "\"d41d8cd98f00b204e9800998ecf8427e\"";
const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// The response to what needs no COS; `None` for everything else. `region` is what this side calls its
/// region; `head` is the client's, in S3's terms.
pub(super) fn response(
    permit: &Permit<'_, '_>,
    head: &Parts,
    region: &str,
) -> Result<Option<Response<String>>, S3Error> {
    let request = permit.request();
    let owner = &permit.tenant().name;
    if let (ListingPage::CommonPrefixes { names, next }, Some(grant)) =
        (permit.listing_page(), permit.grant())
    {
        check_owners(&head.headers, owner)?;
        let (next, native) = (next.as_deref(), speaks_native(head));
        let page = xml::common_prefixes(request, &grant.name, names, next, native);
        return Ok(Some(document(page)));
    }
    if *permit.listing_page() == ListingPage::Folder {
        check_owners(&head.headers, owner)?;
        let folder = folder(permit, head)
            .ok_or_else(|| S3Error::new(Code::NoSuchKey, "The specified key does not exist."))?;
        return Ok(Some(folder));
    }
    let local = match request.operation.performer() {
        Performer::Cosgate(local) => local,
        Performer::CosIfGranted(local) if !permit.reaches_cos() => local,
        _ => return Ok(None),
    };
    check_owners(&head.headers, owner)?;
    Ok(Some(match local {
        Local::CreatedBefore => created_before(request, region)?,
        Local::Location => document(xml::location(region)),
        Local::Region => {
            let mut response = Response::default();
            if let Ok(region) = HeaderValue::from_str(region) {
                response.headers_mut().insert(BUCKET_REGION, region);
            }
            response
        }
        Local::Buckets => document(list_buckets(permit, region)?),
        Local::OwnersAcl => {
            let rights = xml::AccessRights::owners();
            document(rights.to_xml(owner, vocabulary(head)))
        }
        Local::Absent(code) => {
            return Err(S3Error::new(code, "No such configuration exists."));
        }
        Local::Unset(root, element) => document(xml::unset(root, element)),
    }))
}

/// The response to the creation of a bucket that is the client's already: an error, except in S3's oldest region
/// (S3 `CreateBucket`).
fn created_before(request: &S3Request<'_>, region: &str) -> Result<Response<String>, S3Error> {
    if region != "us-east-1" {
        return Err(S3Error::new(
            Code::BucketAlreadyOwnedByYou,
            "You already have this bucket.",
        ));
    }
    let mut response = Response::default();
    let bucket = request.bucket.as_deref().unwrap_or_default();
    if let Ok(location) = HeaderValue::from_str(&format!("/{bucket}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// The response to the HEAD of a folder that the grant shows, in which COS has no object of its name: an
/// empty object, as S3's console and s3fs make them. A condition on an object has none to hold for.
pub(crate) fn folder(permit: &Permit<'_, '_>, head: &Parts) -> Option<Response<String>> {
    if !permit.is_folder() || depends_on_target(&head.headers) {
        return None;
    }
    let mut response = Response::default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, 0.into());
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-directory; charset=UTF-8"),
    );
    headers.insert(ETAG, HeaderValue::from_static(ETAG_OF_NOTHING));
    headers.insert(
        LAST_MODIFIED,
        HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"),
    );
    Some(response)
}

/// One page of the tenant's buckets, by name (S3 `ListBuckets`). The token of a page is its first name.
fn list_buckets(permit: &Permit<'_, '_>, region: &str) -> Result<String, S3Error> {
    const MAX_BUCKETS: usize = 10_000;
    let query = &permit.request().query;
    let value = |name| query.get(name).filter(|value: &&str| !value.is_empty());
    let max = match value("max-buckets").map(str::parse) {
        None => MAX_BUCKETS,
        Some(Ok(max @ 1..=MAX_BUCKETS)) => max,
        Some(_) => {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "max-buckets must be a whole number, 1 to 10000.",
            ));
        }
    };
    let prefix = value("prefix");
    let first = value("continuation-token").unwrap_or_default();
    let is_here = value("bucket-region").is_none_or(|wanted| wanted == region);
    let tenant = permit.tenant();
    let mut names: Vec<&str> = tenant.reached().map(|grant| &*grant.name).collect();
    names.sort_unstable();
    names.retain(|name| is_here && *name >= first && name.starts_with(prefix.unwrap_or_default()));
    let next = names.get(max).copied();
    names.truncate(max);
    let buckets: Vec<_> = names.iter().map(|name| bucket(name, region)).collect();
    Ok(xml::list_buckets(&tenant.name, &buckets, prefix, next))
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
