//! The five listings: one page for each request.

use std::sync::Arc;

use s3s::dto::{
    CommonPrefix, DeleteMarkerEntry, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, MultipartUpload,
    Object, ObjectVersion, Part, StorageClass,
};

use s3s::{S3Result, s3_error};
use sha2::{Digest as _, Sha256};

use crate::emulator::behaviour::{Behaviours, CosBehaviour};
use crate::emulator::convert::{encoder, etag, owner, stamp};
use crate::emulator::store::list::{Listing, StorePage};
use crate::emulator::store::multipart::StoredPart;
use crate::emulator::store::{Attributes, Store, StoredObject, hex};
use crate::encoding::percent::percent_decode;

/// The start of each continuation token.
const TOKEN: &str = "1/secret.token=signature+";

/// For each entry of a listing of versions, in order, whether it is a delete marker.
#[derive(Clone, Debug)]
pub(super) struct EntryOrder(pub(super) Vec<bool>);

/// `ListObjects`, with `NextMarker` as COS has it.
pub(super) fn objects(
    store: &Store,
    input: ListObjectsInput,
    (limit, behaviours): (usize, Behaviours),
) -> S3Result<ListObjectsOutput> {
    let encode = encoder(input.encoding_type.as_ref());
    let listing = Listing {
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref().unwrap_or_default(),
        after: input.marker.as_deref().unwrap_or_default(),
        limit,
    };
    let page = page(store, &input.bucket, &listing, behaviours)?;
    Ok(ListObjectsOutput {
        common_prefixes: Some(common_prefixes(&page.prefixes, encode)),
        contents: Some(page.items.iter().map(|o| listed(o, encode, true)).collect()),
        delimiter: input.delimiter.as_deref().map(encode),
        encoding_type: input.encoding_type,
        is_truncated: Some(page.next.is_some()),
        marker: Some(encode(&input.marker.unwrap_or_default())),
        max_keys: Some(input.max_keys.unwrap_or(1000)),
        name: Some(input.bucket),
        // COS gives it whenever there are more entries, S3 only with a delimiter (436/7734).
        next_marker: page.next.as_deref().map(encode),
        prefix: Some(encode(&input.prefix.unwrap_or_default())),
        ..Default::default()
    })
}

/// `ListObjectsV2`.
pub(super) fn objects_v2(
    store: &Store,
    input: ListObjectsV2Input,
    (limit, behaviours): (usize, Behaviours),
) -> S3Result<ListObjectsV2Output> {
    let encode = encoder(input.encoding_type.as_ref());
    let after = match &input.continuation_token {
        Some(token) => Some(marker_of(token, &input.bucket)?),
        None => input.start_after.clone(),
    };
    let listing = Listing {
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref().unwrap_or_default(),
        after: after.as_deref().unwrap_or_default(),
        limit,
    };
    let page = page(store, &input.bucket, &listing, behaviours)?;
    let owned = input.fetch_owner == Some(true);
    Ok(ListObjectsV2Output {
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
        next_continuation_token: page.next.map(|next| token_of(&next, &input.bucket)),
        name: Some(input.bucket),
        prefix: Some(encode(&input.prefix.unwrap_or_default())),
        start_after: input.start_after.as_deref().map(encode),
        ..Default::default()
    })
}

/// A page of objects, with a key too few or too many where COS behaves so.
fn page(
    store: &Store,
    bucket: &str,
    listing: &Listing<'_>,
    behaviours: Behaviours,
) -> S3Result<StorePage<Arc<StoredObject>>> {
    let mut page = store.list(bucket, listing)?;
    if listing.after.is_empty() {
        return Ok(page);
    }
    if behaviours.has(CosBehaviour::LosesKeysBetweenPages)
        && let Some(lost) = page.items.first()
    {
        let after = &lost.key;
        return Ok(store.list(bucket, &Listing { after, ..*listing })?);
    }
    if behaviours.has(CosBehaviour::RepeatsKeysOnPages)
        && let Ok(repeated) = store.object(bucket, listing.after)
    {
        page.items.insert(0, repeated);
        if page.items.len() > listing.limit {
            page.items.truncate(listing.limit);
            page.next = page.items.last().map(|object| object.key.clone());
        }
    }
    Ok(page)
}

/// `ListObjectVersions`: the newest version of a key comes first. `s3s` writes the versions before the delete markers;
/// [`EntryOrder`] says how they belong together.
pub(super) fn versions(
    store: &Store,
    input: ListObjectVersionsInput,
    limit: usize,
) -> S3Result<(ListObjectVersionsOutput, EntryOrder)> {
    let encode = encoder(input.encoding_type.as_ref());
    let listing = Listing {
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref().unwrap_or_default(),
        after: input.key_marker.as_deref().unwrap_or_default(),
        limit,
    };
    let after_version = input.version_id_marker.as_deref().unwrap_or_default();
    let page = store.list_versions(&input.bucket, &listing, after_version)?;
    let last = page.items.last().map(|listed| &listed.object);
    let next_version = match (&page.next, last) {
        (Some(next), Some(last)) if last.key == *next => Some(last.version.clone()),
        _ => None,
    };
    let order = page.items.iter().map(|listed| listed.object.is_marker);
    let order = EntryOrder(order.collect());
    let (markers, versions): (Vec<_>, Vec<_>) =
        (page.items.iter()).partition(|listed| listed.object.is_marker);
    let versions = versions.into_iter().map(|listed| ObjectVersion {
        e_tag: Some(etag(&listed.object.etag)),
        is_latest: Some(listed.is_latest),
        key: Some(encode(&listed.object.key)),
        last_modified: Some(stamp(listed.object.modified)),
        owner: Some(owner()),
        size: i64::try_from(listed.object.size).ok(),
        storage_class: Some(storage_class(&listed.object.attributes).into()),
        version_id: Some(listed.object.version.clone()),
        ..Default::default()
    });
    let markers = markers.into_iter().map(|listed| DeleteMarkerEntry {
        is_latest: Some(listed.is_latest),
        key: Some(encode(&listed.object.key)),
        last_modified: Some(stamp(listed.object.modified)),
        owner: Some(owner()),
        version_id: Some(listed.object.version.clone()),
    });
    let output = ListObjectVersionsOutput {
        versions: Some(versions.collect()),
        delete_markers: Some(markers.collect()),
        common_prefixes: Some(common_prefixes(&page.prefixes, encode)),
        delimiter: input.delimiter.as_deref().map(encode),
        encoding_type: input.encoding_type,
        is_truncated: Some(page.next.is_some()),
        key_marker: Some(encode(&input.key_marker.unwrap_or_default())),
        max_keys: Some(input.max_keys.unwrap_or(1000)),
        name: Some(input.bucket),
        next_version_id_marker: next_version,
        next_key_marker: page.next.as_deref().map(encode),
        prefix: Some(encode(&input.prefix.unwrap_or_default())),
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        ..Default::default()
    };
    Ok((output, order))
}

/// `ListMultipartUploads`.
pub(super) fn uploads(
    store: &Store,
    input: ListMultipartUploadsInput,
    limit: usize,
) -> S3Result<ListMultipartUploadsOutput> {
    let encode = encoder(input.encoding_type.as_ref());
    let listing = Listing {
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref().unwrap_or_default(),
        after: input.key_marker.as_deref().unwrap_or_default(),
        limit,
    };
    let after_id = input.upload_id_marker.as_deref().unwrap_or_default();
    let page = store.list_uploads(&input.bucket, &listing, after_id)?;
    let next_upload_id_marker = page
        .next
        .as_ref()
        .and_then(|next| page.items.last().filter(|u| u.key == *next))
        .map(|u| u.id.clone());
    let uploads = page.items.into_iter().map(|about| MultipartUpload {
        initiated: Some(stamp(about.initiated)),
        key: Some(encode(&about.key)),
        owner: Some(owner()),
        storage_class: Some(StorageClass::from("STANDARD".to_owned())),
        upload_id: Some(about.id),
        ..Default::default()
    });
    Ok(ListMultipartUploadsOutput {
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
    })
}

/// `ListParts`.
pub(super) fn parts(
    store: &Store,
    input: ListPartsInput,
    limit: usize,
) -> S3Result<ListPartsOutput> {
    let upload = store.find_upload(&input.bucket, &input.key, &input.upload_id)?;
    let after = input.part_number_marker.unwrap_or(0);
    let mut rest = upload
        .parts
        .range(after.saturating_add(1)..)
        .map(|(_, part)| part);
    let parts: Vec<Part> = rest.by_ref().take(limit).map(listed_part).collect();
    let last = parts.last().and_then(|p| p.part_number);
    let is_truncated = rest.next().is_some();
    Ok(ListPartsOutput {
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
    })
}

/// A continuation token. Its form is not documented, so clients must not read it. This one contains what could
/// confuse a reader: dots, `%`, `/`, `=`, words such as `secret`, and more than 512 bytes.
fn token_of(marker: &str, bucket: &str) -> String {
    let bytes = marker.bytes().map(|byte| format!("%{byte:02X}"));
    format!(
        "{TOKEN}{}.{}",
        bytes.collect::<String>(),
        seal(marker, bucket)
    )
}

/// The marker in a token of [`token_of`].
fn marker_of(token: &str, bucket: &str) -> S3Result<String> {
    let read = || {
        let (encoded, sealed) = token.strip_prefix(TOKEN)?.split_once('.')?;
        let marker = String::from_utf8(percent_decode(encoded)?.into_owned()).ok()?;
        (sealed == seal(&marker, bucket)).then_some(marker)
    };
    read().ok_or_else(|| {
        s3_error!(
            InvalidArgument,
            "The continuation token provided is incorrect"
        )
    })
}

fn seal(marker: &str, bucket: &str) -> String {
    hex(&Sha256::digest(format!("{bucket}/{marker}"))).repeat(8)
}

fn listed(object: &StoredObject, encode: fn(&str) -> String, with_owner: bool) -> Object {
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
