//! The S3 operations on the store, as an implementation of the trait of `s3s`.

use std::fs::File;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, BucketLocationConstraint,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput,
    CopyObjectResult, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, Delete, DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput,
    DeleteObjectOutput, DeleteObjectTaggingInput, DeleteObjectTaggingOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, Error, GetBucketLocationInput, GetBucketLocationOutput,
    GetObjectInput, GetObjectOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutObjectInput,
    PutObjectOutput, PutObjectTaggingInput, PutObjectTaggingOutput, StorageClass,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::emulator::append::{check_copyable, type_headers};
use crate::emulator::behaviour::{CosBehaviour, cleaned};
use crate::emulator::convert::{
    attributes_of, check_overwrite, conditions_of, copy_source, crc_header, etag,
    forbids_overwrite, named_version, owner, page_size, parse_tags, slice, source_conditions_of,
    stamp, tag_set, verify_md5,
};
use crate::emulator::gate::{DeniedKeys, RequestFacts};
use crate::emulator::store::transfer::{FileBody, Received};
use crate::emulator::store::versions::{NULL, Removed, Versioning};
use crate::emulator::store::{Attributes, BucketAbout, NewObject, Store, StoreError, StoredObject};
use crate::emulator::{clock, listings, uploads};

/// Maximum number of objects in one multi-delete (436/8289).
const DELETE_LIMIT: usize = 1000;

/// The operations.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) store: Arc<Store>,
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        // The service's own host has no region: it lists the buckets of all regions.
        let RequestFacts {
            region,
            other_accounts,
            ..
        } = request_facts(&req)?;
        let mut found = self.store.buckets();
        found.retain(|about| region.is_empty() || about.region == *region);
        let account =
            |about: &BucketAbout| about.name.rsplit_once('-').map(|(_, id)| id.to_owned());
        found.retain(|about| account(about).is_none_or(|appid| !other_accounts.contains(&appid)));
        let buckets = found.into_iter().map(|about| Bucket {
            bucket_region: Some(about.region),
            creation_date: Some(stamp(about.created)),
            name: Some(about.name),
        });
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            owner: Some(owner()),
            ..Default::default()
        }))
    }

    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let facts = request_facts(&req)?;
        let made = self
            .store
            .create_bucket(&req.input.bucket, &facts.region, clock());
        if !made.map_err(S3Error::internal_error)? {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Ok(S3Response::new(CreateBucketOutput {
            location: Some("/".into()),
        }))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        if !self.store.delete_bucket(&req.input.bucket)? {
            return Err(s3_error!(BucketNotEmpty));
        }
        Ok(S3Response::with_status(
            DeleteBucketOutput {},
            StatusCode::NO_CONTENT,
        ))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let about = self.bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: Some(about.region),
            ..Default::default()
        }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let about = self.bucket(&req.input.bucket)?;
        let location_constraint = Some(BucketLocationConstraint::from(about.region));
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint,
        }))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let limit = page_limit(&req, req.input.max_keys)?;
        let prefix = listed_prefix(&req, req.input.prefix.as_deref())?;
        let behaviours = request_facts(&req)?.behaviours;
        let input = ListObjectsInput {
            prefix,
            ..req.input
        };
        listings::objects(&self.store, input, (limit, behaviours)).map(S3Response::new)
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let limit = page_limit(&req, req.input.max_keys)?;
        let prefix = listed_prefix(&req, req.input.prefix.as_deref())?;
        let behaviours = request_facts(&req)?.behaviours;
        let input = ListObjectsV2Input {
            prefix,
            ..req.input
        };
        listings::objects_v2(&self.store, input, (limit, behaviours)).map(S3Response::new)
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let limit = page_limit(&req, req.input.max_keys)?;
        let (output, order) = listings::versions(&self.store, req.input, limit)?;
        let mut response = S3Response::new(output);
        response.extensions.insert(order);
        Ok(response)
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.bucket(&req.input.bucket)?;
        let forbids = forbids_overwrite(&req)?;
        let behaviours = request_facts(&req)?.behaviours;
        let mut input = req.input;
        if behaviours.has(CosBehaviour::CleansKeys) {
            input.key = cleaned(&input.key);
        }
        let attributes = attributes_of!(input, parse_tags(input.tagging.as_deref())?);
        let body = input.body.take();
        let received = if behaviours.has(CosBehaviour::StoresCutUploads) {
            self.store.receive_cut(body).await?
        } else {
            self.store.receive(body, input.content_length).await?
        };
        verify_md5(input.content_md5.as_deref(), &received.md5)?;
        let condition =
            |there: Option<&StoredObject>, versions| check_overwrite(forbids, there, versions);
        let new = NewObject {
            received,
            attributes,
            modified: clock(),
        };
        let object = (self.store).put_object(&input.bucket, &input.key, new, condition)?;
        let output = PutObjectOutput {
            e_tag: Some(etag(&object.etag)),
            version_id: new_version(&object),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(object.crc64)))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let version = named_version(input.version_id.as_deref());
        let (object, file) = (self.store).open_version(&input.bucket, &input.key, version)?;
        let conditions = conditions_of!(input);
        conditions.check_read(&object)?;
        let (start, length, content_range) = slice(input.range.as_ref(), object.size)?;
        let body = FileBody::new(file, start, length).map_err(S3Error::internal_error)?;
        let Attributes { tags, metadata, .. } = &object.attributes;
        let a = object.attributes.clone();
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            body: Some(s3s::Body::http_body(body).into()),
            cache_control: a.cache_control,
            content_disposition: a.content_disposition,
            content_encoding: a.content_encoding,
            content_language: a.content_language,
            content_length: i64::try_from(length).ok(),
            content_range,
            content_type: a
                .content_type
                .or_else(|| Some("application/octet-stream".into())),
            e_tag: Some(etag(&object.etag)),
            expires: a.expires.map(stamp),
            last_modified: Some(stamp(object.modified)),
            metadata: Some(metadata.clone().into_iter().collect()),
            storage_class: a.storage_class.map(StorageClass::from),
            version_id: self.shown_version(&input.bucket, &object),
            tag_count: i32::try_from(tags.len()).ok().filter(|n| *n > 0),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, headers_of(&object)))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let version = named_version(input.version_id.as_deref());
        let object = self.store.version(&input.bucket, &input.key, version)?;
        let conditions = conditions_of!(input);
        conditions.check_read(&object)?;
        let (_, length, content_range) = slice(input.range.as_ref(), object.size)?;
        let a = object.attributes.clone();
        let output = HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            cache_control: a.cache_control,
            content_disposition: a.content_disposition,
            content_encoding: a.content_encoding,
            content_language: a.content_language,
            content_length: i64::try_from(length).ok(),
            content_range,
            content_type: a
                .content_type
                .or_else(|| Some("application/octet-stream".into())),
            e_tag: Some(etag(&object.etag)),
            expires: a.expires.map(stamp),
            last_modified: Some(stamp(object.modified)),
            metadata: Some(a.metadata.into_iter().collect()),
            storage_class: a.storage_class.map(StorageClass::from),
            version_id: self.shown_version(&input.bucket, &object),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, headers_of(&object)))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput {
            bucket,
            key,
            version_id,
            ..
        } = &req.input;
        let removed = self.remove(bucket, key, version_id.as_deref())?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: removed.is_marker.then_some(true),
            version_id: removed.version,
            ..Default::default()
        }))
    }

    async fn delete_objects(
        &self,
        mut req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let denied = req.extensions.remove::<DeniedKeys>().unwrap_or_default().0;
        let Delete { objects, quiet, .. } = req.input.delete;
        if objects.len() + denied.len() > DELETE_LIMIT {
            return Err(s3_error!(
                MalformedXML,
                "More than 1000 objects in one request"
            ));
        }
        let mut deleted = Vec::with_capacity(objects.len());
        let mut errors: Vec<Error> = denied
            .into_iter()
            .map(|key| failed(key, "AccessDenied"))
            .collect();
        for object in objects {
            let version = object.version_id.as_deref();
            let removed = match self.remove(&req.input.bucket, &object.key, version) {
                Err(error) if *error.code() == S3ErrorCode::NoSuchVersion => {
                    errors.push(failed(object.key, "NoSuchVersion"));
                    continue;
                }
                removed => removed?,
            };
            deleted.push(DeletedObject {
                delete_marker: removed.is_marker.then_some(true),
                delete_marker_version_id: removed.version.filter(|_| removed.is_marker),
                key: Some(object.key),
                version_id: object.version_id,
            });
        }
        let deleted = Some(deleted).filter(|_| quiet != Some(true));
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted,
            errors: Some(errors),
            ..Default::default()
        }))
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        self.bucket(&req.input.bucket)?;
        let forbids = forbids_overwrite(&req)?;
        let facts = request_facts(&req)?.clone();
        let input = req.input;
        let (named, from_key, version) = copy_source(&input.copy_source)?;
        let from_bucket = facts.source_bucket(named);
        let (source, file) = self.store.open_version(from_bucket, from_key, version)?;
        let of_source = source_conditions_of!(input);
        of_source.check_copy(&source)?;
        check_copyable(&source)?;
        let replaces = input
            .metadata_directive
            .as_ref()
            .is_some_and(|d| d.as_str() == "REPLACE");
        // A version of its own can be made the latest again, but without versions `null` is the object itself.
        let shown = self.shown_version(from_bucket, &source);
        let names_version = version.is_some() && shown.is_some();
        if !replaces && !names_version && (from_bucket, from_key) == (&*input.bucket, &*input.key) {
            return Err(s3_error!(
                InvalidRequest,
                "An object can be copied to itself only with new metadata"
            ));
        }
        let attributes = copied_attributes(&input, &source, replaces)?;
        let received = copy(&self.store, file, 0, source.size).await?;
        let condition =
            |there: Option<&StoredObject>, versions| check_overwrite(forbids, there, versions);
        let new = NewObject {
            received,
            attributes,
            modified: clock(),
        };
        let object = (self.store).put_object(&input.bucket, &input.key, new, condition)?;
        let result = CopyObjectResult {
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(stamp(object.modified)),
            ..Default::default()
        };
        let output = CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: shown,
            version_id: new_version(&object),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(object.crc64)))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let version = named_version(req.input.version_id.as_deref());
        let object = (self.store).version(&req.input.bucket, &req.input.key, version)?;
        let tag_set = tag_set(&object.attributes.tags);
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set,
            version_id: self.shown_version(&req.input.bucket, &object),
        }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let input = req.input;
        let version = named_version(input.version_id.as_deref());
        let tags = input.tagging.tag_set.into_iter();
        let tags = tags
            .map(|t| (t.key.unwrap_or_default(), t.value.unwrap_or_default()))
            .collect();
        self.store
            .change_version((&input.bucket, &input.key), version, |attributes| {
                attributes.tags = tags;
            })?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    async fn delete_object_tagging(
        &self,
        req: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let input = req.input;
        let version = named_version(input.version_id.as_deref());
        self.store
            .change_version((&input.bucket, &input.key), version, |attributes| {
                attributes.tags.clear();
            })?;
        Ok(S3Response::new(DeleteObjectTaggingOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        uploads::create(&self.store, req)
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        uploads::receive_part(&self.store, req).await
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        uploads::copy_part(&self.store, req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        uploads::complete(&self.store, req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.store
            .abort_upload(&req.input.bucket, &req.input.key, &req.input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let limit = page_limit(&req, req.input.max_parts)?;
        listings::parts(&self.store, req.input, limit).map(S3Response::new)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let limit = page_limit(&req, req.input.max_uploads)?;
        listings::uploads(&self.store, req.input, limit).map(S3Response::new)
    }
}

impl Operations {
    fn bucket(&self, name: &str) -> S3Result<BucketAbout> {
        self.store
            .bucket(name)
            .ok_or_else(|| s3_error!(NoSuchBucket))
    }

    /// The version id that a read reports, if the bucket has or has had versions.
    fn shown_version(&self, bucket: &str, object: &StoredObject) -> Option<String> {
        let is_shown = self.store.versioning(bucket) != Versioning::Never;
        is_shown.then(|| object.version.clone())
    }

    fn remove(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Removed> {
        Ok(match named_version(version) {
            Some(version) if self.store.versioning(bucket) == Versioning::Never => {
                if version != NULL {
                    return Err(s3_error!(NoSuchVersion));
                }
                self.store.delete_object(bucket, key, clock())?
            }
            Some(version) => self.store.delete_version(bucket, key, version)?,
            None => self.store.delete_object(bucket, key, clock())?,
        })
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io(error) => Self::internal_error(error),
            StoreError::NoSuchBucket => S3ErrorCode::NoSuchBucket.into(),
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey.into(),
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload.into(),
            StoreError::NoSuchVersion => S3ErrorCode::NoSuchVersion.into(),
            StoreError::Hidden(marker) => of_marker(S3ErrorCode::NoSuchKey, &marker),
            StoreError::Marker(marker) => of_marker(S3ErrorCode::MethodNotAllowed, &marker),
            StoreError::Refused(error) => error,
        }
    }
}

/// The error for a version that is a delete marker.
fn of_marker(code: S3ErrorCode, version: &str) -> S3Error {
    let mut error = S3Error::new(code);
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    if let Ok(version) = HeaderValue::from_str(version) {
        headers.insert("x-amz-version-id", version);
    }
    error.set_headers(headers);
    error
}

/// The version that a write created; COS reports it while versioning is on (436/7749).
pub(super) fn new_version(object: &StoredObject) -> Option<String> {
    Some(object.version.clone()).filter(|version| version != NULL)
}

/// The facts that COS has read from the head of a request.
pub(super) fn request_facts<T>(req: &S3Request<T>) -> S3Result<&RequestFacts> {
    req.extensions
        .get::<RequestFacts>()
        .ok_or_else(|| s3_error!(InternalError))
}

/// The headers of a read that `s3s` does not know.
fn headers_of(object: &StoredObject) -> HeaderMap {
    let mut headers = type_headers(object);
    headers.extend(crc_header(object.crc64));
    headers
}

/// The attributes of a copy: those of its source, except the replaced ones.
fn copied_attributes(
    input: &CopyObjectInput,
    source: &StoredObject,
    replaces: bool,
) -> S3Result<Attributes> {
    let directive = input.tagging_directive.as_ref();
    let tags = if directive.is_some_and(|d| d.as_str() == "REPLACE") {
        parse_tags(input.tagging.as_deref())?
    } else {
        source.attributes.tags.clone()
    };
    let storage_class = input.storage_class.as_ref();
    let storage_class = storage_class.map(|class| class.as_str().to_owned());
    Ok(if replaces {
        attributes_of!(input, tags)
    } else {
        Attributes {
            tags,
            acl: None,
            retention: None,
            storage_class,
            ..source.attributes.clone()
        }
    })
}

/// The number of entries of a page: the requested one, unless a fault makes it smaller.
fn page_limit<T>(req: &S3Request<T>, requested: Option<i32>) -> S3Result<usize> {
    let limit = request_facts(req)?
        .page
        .and_then(|page| usize::try_from(page).ok());
    Ok(page_size(requested)?.min(limit.unwrap_or(usize::MAX)))
}

/// The prefix by which COS lists, where `requested` was sent.
fn listed_prefix<T>(req: &S3Request<T>, requested: Option<&str>) -> S3Result<Option<String>> {
    let behaviours = request_facts(req)?.behaviours;
    if behaviours.has(CosBehaviour::IgnoresPrefix) {
        return Ok(None);
    }
    Ok(requested.map(|prefix| {
        if behaviours.has(CosBehaviour::ReadsPlusAsSpace) {
            prefix.replace('+', " ")
        } else {
            prefix.to_owned()
        }
    }))
}

/// Copies part of a file on a thread that may block.
pub(super) async fn copy(
    store: &Arc<Store>,
    source: File,
    start: u64,
    length: u64,
) -> S3Result<Received> {
    let store = Arc::clone(store);
    let copied = tokio::task::spawn_blocking(move || store.copy(source, start, length));
    copied
        .await
        .map_err(S3Error::internal_error)?
        .map_err(S3Error::internal_error)
}

fn failed(key: String, code: &str) -> Error {
    let message = match code {
        "AccessDenied" => "Access Denied.",
        _ => "The specified version does not exist.",
    };
    Error {
        code: Some(code.into()),
        key: Some(key),
        message: Some(message.into()),
        version_id: None,
    }
}
