//! Multipart uploads, except their listings.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use s3s::dto::{
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, Range, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use crate::emulator::append::check_copyable;
use crate::emulator::behaviour::{Behaviours, CosBehaviour};
use crate::emulator::clock;
use crate::emulator::convert::{
    attributes_of, check_overwrite, copy_source, crc_header, etag, forbids_overwrite, parse_tags,
    slice, source_conditions_of, stamp, verify_md5,
};
use crate::emulator::gate::RequestFacts;
use crate::emulator::s3::{copy, new_version, request_facts};
use crate::emulator::store::multipart::{StoredPart, Upload};
use crate::emulator::store::{Store, StoreError, StoredObject};

/// Minimum size of a part in bytes, except the last one (436/14518).
const PART_MIN: u64 = 1024 * 1024;
/// The largest part number (436/14518).
const PART_LAST: i32 = 10_000;

/// `CreateMultipartUpload`.
pub(super) fn create(
    store: &Store,
    req: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let forbids = forbids_overwrite(&req)?;
    let input = req.input;
    let there = store.object(&input.bucket, &input.key);
    let versioning = store.versioning(&input.bucket);
    check_overwrite(forbids, there.ok().as_deref(), versioning)?;
    let attributes = attributes_of!(input, parse_tags(input.tagging.as_deref())?);
    let id = store.create_upload(&input.bucket, &input.key, attributes, clock())?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        ..Default::default()
    }))
}

/// `UploadPart`.
pub(super) async fn receive_part(
    store: &Arc<Store>,
    req: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let behaviours = request_facts(&req)?.behaviours;
    let mut input = req.input;
    check_part_number(input.part_number)?;
    store.find_upload(&input.bucket, &input.key, &input.upload_id)?;
    let body = input.body.take();
    let received = if behaviours.has(CosBehaviour::StoresCutParts) {
        store.receive_cut(body).await?
    } else {
        store.receive(body, input.content_length).await?
    };
    verify_md5(input.content_md5.as_deref(), &received.md5)?;
    let upload = (&*input.bucket, &*input.key, &*input.upload_id);
    let part = store.put_part(upload, input.part_number, received, clock())?;
    let output = UploadPartOutput {
        e_tag: Some(etag(&part.etag())),
        ..Default::default()
    };
    Ok(S3Response::with_headers(output, crc_header(part.crc64)))
}

/// `UploadPartCopy`.
pub(super) async fn copy_part(
    store: &Arc<Store>,
    req: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let facts = request_facts(&req)?.clone();
    let input = req.input;
    check_part_number(input.part_number)?;
    store.find_upload(&input.bucket, &input.key, &input.upload_id)?;
    let (named, from_key, version) = copy_source(&input.copy_source)?;
    let from_bucket = facts.source_bucket(named);
    let (source, file) = store.open_version(from_bucket, from_key, version)?;
    let of_source = source_conditions_of!(input);
    of_source.check_copy(&source)?;
    check_copyable(&source)?;
    let range = input
        .copy_source_range
        .as_deref()
        .map(Range::parse)
        .transpose();
    let range = range.map_err(|_| s3_error!(InvalidArgument, "x-amz-copy-source-range"))?;
    if let Some(Range::Int {
        last: Some(last), ..
    }) = range
        && last >= source.size
    {
        let size = source.size;
        let text = format!("Range specified is not valid for source object of size: {size}");
        return Err(s3_error!(InvalidArgument, "{text}"));
    }
    let (start, length, _) = slice(range.as_ref(), source.size)?;
    let received = copy(store, file, start, length).await?;
    let upload = (&*input.bucket, &*input.key, &*input.upload_id);
    let part = store.put_part(upload, input.part_number, received, clock())?;
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

/// `CompleteMultipartUpload`.
pub(super) async fn complete(
    store: &Arc<Store>,
    req: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let forbids = forbids_overwrite(&req)?;
    let RequestFacts {
        host, behaviours, ..
    } = request_facts(&req)?.clone();
    let input = req.input;
    let upload = store.find_upload(&input.bucket, &input.key, &input.upload_id)?;
    let listed = input
        .multipart_upload
        .and_then(|m| m.parts)
        .unwrap_or_default();
    let parts = chosen_parts(&upload, &listed)?;
    check_part_checksums(&listed, behaviours, |number| {
        let part = upload.parts.get(&number);
        let part = part.ok_or(StoreError::NoSuchUpload)?;
        Ok(store
            .part_crc32(&input.bucket, part)
            .map_err(StoreError::Io)?)
    })?;
    let (store, bucket) = (Arc::clone(store), input.bucket.clone());
    let join = move || {
        let condition =
            |there: Option<&StoredObject>, versions| check_overwrite(forbids, there, versions);
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
        version_id: new_version(&object),
        ..Default::default()
    };
    Ok(S3Response::with_headers(output, crc_header(object.crc64)))
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

/// COS documents a part's number and `ETag` alone (436/7742): by default another element is refused.
fn check_part_checksums(
    listed: &[CompletedPart],
    behaviours: Behaviours,
    crc32_of: impl Fn(i32) -> S3Result<u32>,
) -> S3Result<()> {
    let has_checksum = |part: &CompletedPart| {
        let CompletedPart {
            checksum_crc32,
            checksum_crc32c,
            checksum_crc64nvme,
            checksum_sha1,
            checksum_sha256,
            ..
        } = part;
        [
            checksum_crc32,
            checksum_crc32c,
            checksum_crc64nvme,
            checksum_sha1,
            checksum_sha256,
        ]
        .iter()
        .any(|checksum| checksum.is_some())
    };
    if behaviours.has(CosBehaviour::IgnoresPartChecksums) || !listed.iter().any(has_checksum) {
        return Ok(());
    }
    if !behaviours.has(CosBehaviour::ChecksPartChecksums) {
        return Err(s3_error!(
            MalformedXML,
            "A part has an element that is not known."
        ));
    }
    for part in listed {
        let (Some(number), Some(claimed)) = (part.part_number, &part.checksum_crc32) else {
            continue;
        };
        if *claimed != STANDARD.encode(crc32_of(number)?.to_be_bytes()) {
            return Err(s3_error!(BadDigest, "The checksum of a part is wrong."));
        }
    }
    Ok(())
}

/// The parts that a complete request names, in its order, if they may be joined.
fn chosen_parts(upload: &Upload, listed: &[CompletedPart]) -> S3Result<Vec<StoredPart>> {
    let mut chosen: Vec<StoredPart> = Vec::with_capacity(listed.len());
    for wanted in listed {
        let part = wanted.part_number.and_then(|n| upload.parts.get(&n));
        let part = part.filter(|p| wanted.e_tag.as_ref().is_some_and(|e| e.value() == p.etag()));
        let part = part.ok_or_else(|| s3_error!(InvalidPart))?;
        if let Some(before) = chosen.last() {
            if before.number >= part.number {
                return Err(s3_error!(InvalidPartOrder));
            }
            if before.size < PART_MIN {
                return Err(s3_error!(EntityTooSmall));
            }
        }
        chosen.push(part.clone());
    }
    if chosen.is_empty() {
        return Err(s3_error!(
            MalformedXML,
            "The request must name at least one part"
        ));
    }
    Ok(chosen)
}
