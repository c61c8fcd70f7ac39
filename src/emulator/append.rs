//! Append (436/7741), which S3 lacks, as a route of `s3s`.

use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Error, S3Request, S3Response, S3Result, s3_error};

use crate::emulator::clock;
use crate::emulator::convert::{crc_header, parse_tags, verify_md5};
use crate::emulator::document::has_parameter;
use crate::emulator::head::path_in_bucket;
use crate::emulator::s3::request_facts;
use crate::emulator::settings::Settings;
use crate::emulator::store::{Attributes, NewObject, Store, StoredObject};
use crate::timestamp::Timestamp;

const ACTION: &str = "name/cos:AppendObject";
const CONTENT_SHA1: HeaderName = HeaderName::from_static("x-cos-content-sha1");
const NEXT_POSITION: HeaderName = HeaderName::from_static("x-cos-next-append-position");
const OBJECT_TYPE: HeaderName = HeaderName::from_static("x-cos-object-type");

/// The route to appends.
#[derive(Debug)]
pub(super) struct Appends {
    pub(super) store: Arc<Store>,
}

#[async_trait::async_trait]
impl S3Route for Appends {
    fn is_match(
        &self,
        method: &Method,
        uri: &Uri,
        _: &HeaderMap,
        extensions: &mut Extensions,
    ) -> bool {
        method == Method::POST
            && path_in_bucket(extensions, uri) != "/"
            && has_parameter(uri.query().unwrap_or_default(), "append")
    }

    async fn check_access(&self, req: &mut S3Request<Body>) -> S3Result<()> {
        let facts = request_facts(req)?;
        if req.credentials.is_none() && !facts.verified {
            return Err(s3_error!(AccessDenied, "Access Denied."));
        }
        let (bucket, key) = Settings::target(req)?;
        facts.check(ACTION, Some(&format!("{bucket}/{key}")))
    }

    async fn call(&self, req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let (bucket, key) = Settings::target(&req)?;
        let position = position(&req.uri)?;
        let attributes = attributes(&req.headers)?;
        let length = text(&req.headers, "content-length").and_then(|length| length.parse().ok());
        let md5 = text(&req.headers, "content-md5");
        let received = self.store.receive(Some(req.input.into()), length).await?;
        verify_md5(md5.as_deref(), &received.md5)?;
        let sha1 = received.sha1().map_err(S3Error::internal_error)?;
        let new = NewObject {
            received,
            attributes,
            modified: clock(),
        };
        let store = Arc::clone(&self.store);
        let append = move || store.append((&bucket, &key), position, new);
        let appended = tokio::task::spawn_blocking(append).await;
        let object = appended.map_err(S3Error::internal_error)??;
        let mut headers = type_headers(&object);
        headers.extend(crc_header(object.crc64));
        for (name, value) in [
            (CONTENT_SHA1, sha1),
            (http::header::ETAG, format!("\"{}\"", object.etag)),
        ] {
            let value = HeaderValue::from_str(&value).map_err(S3Error::internal_error)?;
            headers.insert(name, value);
        }
        let mut response = S3Response::with_headers(Body::empty(), headers);
        response.status = Some(StatusCode::OK);
        Ok(response)
    }
}

/// The headers that say that an object is appendable, and where the next append starts.
pub(super) fn type_headers(object: &StoredObject) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if object.is_appendable {
        headers.insert(OBJECT_TYPE, HeaderValue::from_static("appendable"));
        headers.insert(NEXT_POSITION, HeaderValue::from(object.size));
    }
    headers
}

/// Refuses an appendable object as the source of a copy. The page does not say with which code.
pub(super) fn check_copyable(source: &StoredObject) -> S3Result<()> {
    if source.is_appendable {
        return Err(s3_error!(
            InvalidObjectState,
            "Appendable objects cannot be copied."
        ));
    }
    Ok(())
}

fn position(uri: &Uri) -> S3Result<u64> {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let position = pairs.find_map(|pair| pair.strip_prefix("position="));
    position
        .and_then(|position| position.parse().ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The parameter position is not a length."))
}

/// The attributes in the headers of the first append.
fn attributes(headers: &HeaderMap) -> S3Result<Attributes> {
    let text = |name: &str| text(headers, name);
    let storage_class = text("x-amz-storage-class");
    if storage_class.as_deref() == Some("INTELLIGENT_TIERING") {
        return Err(s3_error!(
            InvalidArgument,
            "Objects in intelligent tiering are not appendable."
        ));
    }
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("x-amz-meta-")?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    let expires = text("expires").and_then(|expires| Timestamp::parse_http_date(&expires));
    Ok(Attributes {
        cache_control: text("cache-control"),
        content_disposition: text("content-disposition"),
        content_encoding: text("content-encoding"),
        content_language: text("content-language"),
        content_type: text("content-type"),
        expires: expires.map(Timestamp::unix),
        metadata: metadata.collect(),
        storage_class,
        tags: parse_tags(text("x-amz-tagging").as_deref())?,
        acl: None,
        retention: None,
    })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}
