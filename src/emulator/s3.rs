//! The S3 operations, on the store, behind the trait of `s3s`.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::emulator::convert::{
    Conditions, attributes_of, copy_source, crc_header, encoder, etag, forbids_overwrite, owner,
    page_size, parse_tags, slice, stamp, tag_set, unversioned, verify_md5,
};
use crate::emulator::gate::{Asked, DeniedKeys};
use crate::emulator::store::list::Listing;
use crate::emulator::store::multipart::Part as StoredPart;
use crate::emulator::store::transfer::{FileBody, Received};
use crate::emulator::store::{Attributes, Object as Stored, Store, StoreError};
use crate::emulator::{clock, store};

/// A part that is not the last has at least this many bytes (436/14518).
const PART_LEAST: u64 = 1024 * 1024;
/// Part numbers are 1 to this (436/14518).
const PART_LAST: i32 = 10_000;
/// Objects in one multi-delete at most (436/8289).
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
        _: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.store.buckets().into_iter().map(|about| Bucket {
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
        let asked = asked(&req)?;
        let made = self
            .store
            .create_bucket(&req.input.bucket, &asked.region, clock());
        if !made.map_err(S3Error::internal_error)? {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Ok(S3Response::new(CreateBucketOutput {
            location: Some("/".into()),
        }))
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
        let input = req.input;
        let encode = encoder(input.encoding_type.as_ref());
        let page = self.store.list(
            &input.bucket,
            &Listing {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref().unwrap_or_default(),
                after: input.marker.as_deref().unwrap_or_default(),
                limit: page_size(input.max_keys)?,
            },
        )?;
        Ok(S3Response::new(ListObjectsOutput {
            common_prefixes: Some(common_prefixes(&page.prefixes, encode)),
            contents: Some(page.items.iter().map(|o| listed(o, encode, true)).collect()),
            delimiter: input.delimiter.as_deref().map(encode),
            encoding_type: input.encoding_type,
            is_truncated: Some(page.next.is_some()),
            marker: Some(encode(&input.marker.unwrap_or_default())),
            max_keys: Some(input.max_keys.unwrap_or(1000)),
            name: Some(input.bucket),
            // COS names it whenever there is more, S3 only with a delimiter (436/7734).
            next_marker: page.next.as_deref().map(encode),
            prefix: Some(encode(&input.prefix.unwrap_or_default())),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let encode = encoder(input.encoding_type.as_ref());
        let after = input
            .continuation_token
            .as_ref()
            .or(input.start_after.as_ref());
        let page = self.store.list(
            &input.bucket,
            &Listing {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref().unwrap_or_default(),
                after: after.map(String::as_str).unwrap_or_default(),
                limit: page_size(input.max_keys)?,
            },
        )?;
        let owned = input.fetch_owner == Some(true);
        Ok(S3Response::new(ListObjectsV2Output {
            common_prefixes: Some(common_prefixes(&page.prefixes, encode)),
            contents: Some(
                page.items
                    .iter()
                    .map(|o| listed(o, encode, owned))
                    .collect(),
            ),
            continuation_token: input.continuation_token,
            delimiter: input.delimiter.as_deref().map(encode),
            encoding_type: input.encoding_type,
            is_truncated: Some(page.next.is_some()),
            key_count: i32::try_from(page.items.len() + page.prefixes.len()).ok(),
            max_keys: Some(input.max_keys.unwrap_or(1000)),
            name: Some(input.bucket),
            next_continuation_token: page.next,
            prefix: Some(encode(&input.prefix.unwrap_or_default())),
            start_after: input.start_after.as_deref().map(encode),
            ..Default::default()
        }))
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = req.input;
        let encode = encoder(input.encoding_type.as_ref());
        let page = self.store.list(
            &input.bucket,
            &Listing {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref().unwrap_or_default(),
                after: input.key_marker.as_deref().unwrap_or_default(),
                limit: page_size(input.max_keys)?,
            },
        )?;
        let versions = page.items.iter().map(|object| ObjectVersion {
            e_tag: Some(etag(&object.etag)),
            is_latest: Some(true),
            key: Some(encode(&object.key)),
            last_modified: Some(stamp(object.modified)),
            owner: Some(owner()),
            size: i64::try_from(object.size).ok(),
            storage_class: Some(storage_class(&object.attributes).into()),
            version_id: Some("null".into()),
            ..Default::default()
        });
        Ok(S3Response::new(ListObjectVersionsOutput {
            versions: Some(versions.collect()),
            common_prefixes: Some(common_prefixes(&page.prefixes, encode)),
            delimiter: input.delimiter.as_deref().map(encode),
            encoding_type: input.encoding_type,
            is_truncated: Some(page.next.is_some()),
            key_marker: Some(encode(&input.key_marker.unwrap_or_default())),
            max_keys: Some(input.max_keys.unwrap_or(1000)),
            name: Some(input.bucket),
            next_version_id_marker: page.next.as_ref().map(|_| "null".into()),
            next_key_marker: page.next.as_deref().map(encode),
            prefix: Some(encode(&input.prefix.unwrap_or_default())),
            ..Default::default()
        }))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.bucket(&req.input.bucket)?;
        let conditions = Conditions {
            forbid_overwrite: forbids_overwrite(&req.headers),
            if_match: req.input.if_match.clone(),
            if_none_match: req.input.if_none_match.clone(),
            ..Default::default()
        };
        let mut input = req.input;
        let attributes = attributes_of!(input, parse_tags(input.tagging.as_deref())?);
        let received = self
            .store
            .receive(input.body.take(), input.content_length)
            .await?;
        verify_md5(input.content_md5.as_deref(), &received.md5)?;
        let condition = |there: Option<&Stored>| conditions.check_write(there);
        let object = self.store.put_object(
            &input.bucket,
            &input.key,
            received,
            attributes,
            clock(),
            condition,
        )?;
        let output = PutObjectOutput {
            e_tag: Some(etag(&object.etag)),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(object.crc64)))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        unversioned(input.version_id.as_deref())?;
        let (object, file) = self.store.open_object(&input.bucket, &input.key)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_modified_since: input.if_modified_since,
            if_none_match: input.if_none_match,
            if_unmodified_since: input.if_unmodified_since,
            ..Default::default()
        };
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
            tag_count: i32::try_from(tags.len()).ok().filter(|n| *n > 0),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(object.crc64)))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        unversioned(input.version_id.as_deref())?;
        let object = self.store.object(&input.bucket, &input.key)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_modified_since: input.if_modified_since,
            if_none_match: input.if_none_match,
            if_unmodified_since: input.if_unmodified_since,
            ..Default::default()
        };
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
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(object.crc64)))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        unversioned(req.input.version_id.as_deref())?;
        self.store
            .delete_object(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
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
            if unversioned(object.version_id.as_deref()).is_err() {
                errors.push(failed(object.key, "NoSuchVersion"));
                continue;
            }
            self.store.delete_object(&req.input.bucket, &object.key)?;
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..Default::default()
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
        let forbid_overwrite = forbids_overwrite(&req.headers);
        let input = req.input;
        let (from_bucket, from_key) = copy_source(&input.copy_source)?;
        let (source, file) = self.store.open_object(from_bucket, from_key)?;
        let of_source = Conditions {
            if_match: input.copy_source_if_match.clone(),
            if_modified_since: input.copy_source_if_modified_since.clone(),
            if_none_match: input.copy_source_if_none_match.clone(),
            if_unmodified_since: input.copy_source_if_unmodified_since.clone(),
            ..Default::default()
        };
        of_source.check_copy(&source)?;
        let replaces = input
            .metadata_directive
            .as_ref()
            .is_some_and(|d| d.as_str() == "REPLACE");
        if !replaces && (from_bucket, from_key) == (&*input.bucket, &*input.key) {
            return Err(s3_error!(
                InvalidRequest,
                "An object can be copied to itself only with new metadata"
            ));
        }
        let new_tags = input
            .tagging_directive
            .as_ref()
            .is_some_and(|d| d.as_str() == "REPLACE");
        let tags = match new_tags {
            true => parse_tags(input.tagging.as_deref())?,
            false => source.attributes.tags.clone(),
        };
        let mut attributes = match replaces {
            true => attributes_of!(input, tags),
            false => Attributes {
                tags,
                ..source.attributes.clone()
            },
        };
        attributes.storage_class = input.storage_class.map(|class| class.as_str().to_owned());
        let received = self.copy(file, 0, source.size).await?;
        let conditions = Conditions {
            forbid_overwrite,
            ..Default::default()
        };
        let condition = |there: Option<&Stored>| conditions.check_write(there);
        let object = self.store.put_object(
            &input.bucket,
            &input.key,
            received,
            attributes,
            clock(),
            condition,
        )?;
        let result = CopyObjectResult {
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(stamp(object.modified)),
            ..Default::default()
        };
        let output = CopyObjectOutput {
            copy_object_result: Some(result),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(object.crc64)))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        unversioned(req.input.version_id.as_deref())?;
        let object = self.store.object(&req.input.bucket, &req.input.key)?;
        let tag_set = tag_set(&object.attributes.tags);
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set,
            version_id: None,
        }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let input = req.input;
        unversioned(input.version_id.as_deref())?;
        let tags = input.tagging.tag_set.into_iter();
        let tags = tags
            .map(|t| (t.key.unwrap_or_default(), t.value.unwrap_or_default()))
            .collect();
        self.store
            .change_object(&input.bucket, &input.key, |attributes| {
                attributes.tags = tags
            })?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    async fn delete_object_tagging(
        &self,
        req: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let input = req.input;
        unversioned(input.version_id.as_deref())?;
        self.store
            .change_object(&input.bucket, &input.key, |attributes| {
                attributes.tags.clear()
            })?;
        Ok(S3Response::new(DeleteObjectTaggingOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let forbid_overwrite = forbids_overwrite(&req.headers);
        let input = req.input;
        if forbid_overwrite && let Ok(there) = self.store.object(&input.bucket, &input.key) {
            Conditions {
                forbid_overwrite,
                ..Default::default()
            }
            .check_write(Some(&there))?;
        }
        let attributes = attributes_of!(input, parse_tags(input.tagging.as_deref())?);
        let id = self
            .store
            .create_upload(&input.bucket, &input.key, attributes, clock())?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let mut input = req.input;
        check_part_number(input.part_number)?;
        self.store
            .find_upload(&input.bucket, &input.key, &input.upload_id)?;
        let received = self
            .store
            .receive(input.body.take(), input.content_length)
            .await?;
        verify_md5(input.content_md5.as_deref(), &received.md5)?;
        let (bucket, key, id) = (&input.bucket, &input.key, &input.upload_id);
        let part = self
            .store
            .put_part(bucket, key, id, input.part_number, received, clock())?;
        let output = UploadPartOutput {
            e_tag: Some(etag(&part.etag())),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(part.crc64)))
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = req.input;
        check_part_number(input.part_number)?;
        self.store
            .find_upload(&input.bucket, &input.key, &input.upload_id)?;
        let (from_bucket, from_key) = copy_source(&input.copy_source)?;
        let (source, file) = self.store.open_object(from_bucket, from_key)?;
        let of_source = Conditions {
            if_match: input.copy_source_if_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_none_match: input.copy_source_if_none_match,
            if_unmodified_since: input.copy_source_if_unmodified_since,
            ..Default::default()
        };
        of_source.check_copy(&source)?;
        let range = input
            .copy_source_range
            .as_deref()
            .map(Range::parse)
            .transpose();
        let range = range.map_err(|_| s3_error!(InvalidArgument, "x-amz-copy-source-range"))?;
        let (start, length, _) = slice(range.as_ref(), source.size)?;
        let received = self.copy(file, start, length).await?;
        let (bucket, key, id) = (&input.bucket, &input.key, &input.upload_id);
        let part = self
            .store
            .put_part(bucket, key, id, input.part_number, received, clock())?;
        let result = CopyPartResult {
            e_tag: Some(etag(&part.etag())),
            last_modified: Some(stamp(part.modified)),
            ..Default::default()
        };
        let output = UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(part.crc64)))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let conditions = Conditions {
            forbid_overwrite: forbids_overwrite(&req.headers),
            if_match: req.input.if_match.clone(),
            if_none_match: req.input.if_none_match.clone(),
            ..Default::default()
        };
        let host = asked(&req)?.host.clone();
        let input = req.input;
        let upload = self
            .store
            .find_upload(&input.bucket, &input.key, &input.upload_id)?;
        let listed = input
            .multipart_upload
            .and_then(|m| m.parts)
            .unwrap_or_default();
        let parts = chosen_parts(&upload, &listed)?;
        let (store, bucket) = (Arc::clone(&self.store), input.bucket.clone());
        let join = move || {
            let condition = |there: Option<&Stored>| conditions.check_write(there);
            store.complete_upload(&bucket, &upload, &parts, clock(), condition)
        };
        let object = tokio::task::spawn_blocking(join)
            .await
            .map_err(S3Error::internal_error)??;
        let output = CompleteMultipartUploadOutput {
            location: Some(format!("{host}/{}", input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(etag(&object.etag)),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, crc_header(object.crc64)))
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
        let input = req.input;
        let upload = self
            .store
            .find_upload(&input.bucket, &input.key, &input.upload_id)?;
        let limit = page_size(input.max_parts)?;
        let after = input.part_number_marker.unwrap_or(0);
        let mut rest = upload
            .parts
            .range(after.saturating_add(1)..)
            .map(|(_, part)| part);
        let parts: Vec<Part> = rest.by_ref().take(limit).map(listed_part).collect();
        let last = parts.last().and_then(|p| p.part_number);
        let is_truncated = rest.next().is_some();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(is_truncated),
            key: Some(input.key),
            max_parts: Some(input.max_parts.unwrap_or(1000)),
            next_part_number_marker: last.filter(|_| is_truncated),
            owner: Some(owner()),
            part_number_marker: Some(after),
            parts: Some(parts),
            storage_class: Some(StorageClass::from("STANDARD".to_owned())),
            upload_id: Some(input.upload_id),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        let encode = encoder(input.encoding_type.as_ref());
        let listing = Listing {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().unwrap_or_default(),
            after: input.key_marker.as_deref().unwrap_or_default(),
            limit: page_size(input.max_uploads)?,
        };
        let after_id = input.upload_id_marker.as_deref().unwrap_or_default();
        let page = self.store.list_uploads(&input.bucket, &listing, after_id)?;
        let next_upload_id_marker = page
            .next
            .as_ref()
            .and_then(|_| page.items.last())
            .map(|u| u.id.clone());
        let uploads = page.items.into_iter().map(|about| MultipartUpload {
            initiated: Some(stamp(about.initiated)),
            key: Some(encode(&about.key)),
            owner: Some(owner()),
            storage_class: Some(StorageClass::from("STANDARD".to_owned())),
            upload_id: Some(about.id),
            ..Default::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            bucket: Some(input.bucket),
            common_prefixes: Some(common_prefixes(&page.prefixes, encode)),
            delimiter: input.delimiter.as_deref().map(encode),
            encoding_type: input.encoding_type,
            is_truncated: Some(page.next.is_some()),
            key_marker: Some(encode(&input.key_marker.unwrap_or_default())),
            max_uploads: Some(input.max_uploads.unwrap_or(1000)),
            next_key_marker: page.next.as_deref().map(encode),
            next_upload_id_marker,
            prefix: Some(encode(&input.prefix.unwrap_or_default())),
            upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
            ..Default::default()
        }))
    }
}

impl Operations {
    fn bucket(&self, name: &str) -> S3Result<store::BucketAbout> {
        self.store
            .bucket(name)
            .ok_or_else(|| s3_error!(NoSuchBucket))
    }

    async fn copy(&self, source: std::fs::File, start: u64, length: u64) -> S3Result<Received> {
        let store = Arc::clone(&self.store);
        let copied = tokio::task::spawn_blocking(move || store.copy(source, start, length));
        copied
            .await
            .map_err(S3Error::internal_error)?
            .map_err(S3Error::internal_error)
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io(error) => Self::internal_error(error),
            StoreError::NoSuchBucket => S3ErrorCode::NoSuchBucket.into(),
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey.into(),
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload.into(),
            StoreError::Refused(error) => error,
        }
    }
}

fn asked<T>(req: &S3Request<T>) -> S3Result<&Asked> {
    req.extensions
        .get::<Asked>()
        .ok_or_else(|| s3_error!(InternalError))
}

fn check_part_number(number: i32) -> S3Result<()> {
    if (1..=PART_LAST).contains(&number) {
        return Ok(());
    }
    Err(s3_error!(
        InvalidArgument,
        "Part number must be an integer between 1 and 10000, inclusive"
    ))
}

/// The parts that a complete names, in its order, if they may be joined.
fn chosen_parts(
    upload: &store::multipart::Upload,
    listed: &[CompletedPart],
) -> S3Result<Vec<StoredPart>> {
    let mut chosen: Vec<StoredPart> = Vec::with_capacity(listed.len());
    for wanted in listed {
        let part = wanted.part_number.and_then(|n| upload.parts.get(&n));
        let part = part.filter(|p| wanted.e_tag.as_ref().is_some_and(|e| e.value() == p.etag()));
        let part = part.ok_or_else(|| s3_error!(InvalidPart))?;
        if let Some(before) = chosen.last() {
            if before.number >= part.number {
                return Err(s3_error!(InvalidPartOrder));
            }
            if before.size < PART_LEAST {
                return Err(s3_error!(EntityTooSmall));
            }
        }
        chosen.push(part.clone());
    }
    if chosen.is_empty() {
        return Err(s3_error!(
            MalformedXML,
            "A complete needs at least one part"
        ));
    }
    Ok(chosen)
}

fn listed(object: &Stored, encode: fn(&str) -> String, with_owner: bool) -> Object {
    Object {
        e_tag: Some(etag(&object.etag)),
        key: Some(encode(&object.key)),
        last_modified: Some(stamp(object.modified)),
        owner: with_owner.then(owner),
        size: i64::try_from(object.size).ok(),
        storage_class: Some(storage_class(&object.attributes).into()),
        ..Default::default()
    }
}

fn listed_part(part: &StoredPart) -> Part {
    Part {
        e_tag: Some(etag(&part.etag())),
        last_modified: Some(stamp(part.modified)),
        part_number: Some(part.number),
        size: i64::try_from(part.size).ok(),
        ..Default::default()
    }
}

fn common_prefixes(prefixes: &[String], encode: fn(&str) -> String) -> Vec<CommonPrefix> {
    prefixes
        .iter()
        .map(|prefix| CommonPrefix {
            prefix: Some(encode(prefix)),
        })
        .collect()
}

fn storage_class(attributes: &Attributes) -> String {
    attributes
        .storage_class
        .clone()
        .unwrap_or_else(|| "STANDARD".into())
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
