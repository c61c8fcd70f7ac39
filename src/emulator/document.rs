//! Request bodies that are XML documents: read whole and checked before the operation starts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use md5::{Digest as _, Md5};
use s3s::Body;
use sha2::Sha256;

use crate::emulator::head::{header, path_in_bucket};
use crate::emulator::response::CosError;
use crate::emulator::store::hex;

/// Maximum size of a document in bytes.
pub(super) const XML_LIMIT: usize = 4 * 1024 * 1024;

/// Whether the body is a document rather than an object.
pub(super) fn is_document(head: &Parts) -> bool {
    let query = head.uri.query().unwrap_or_default();
    match head.method {
        Method::POST => !has_parameter(query, "append"),
        Method::PUT => {
            path_in_bucket(&head.extensions, &head.uri) == "/"
                || has_parameter(query, "tagging")
                || has_parameter(query, "acl")
        }
        _ => false,
    }
}

/// Settings of a bucket for which COS's own SDK for Python 1.9.44 sends no Content-MD5.
const WITHOUT_MD5: [&str; 3] = ["acl", "encryption", "versioning"];

/// Reads a whole document and checks it. COS demands Content-MD5 for a multi-delete (436/8289) and for a
/// bucket's settings. Its own SDKs send none when they complete an upload, create a bucket or tag an object.
pub(super) async fn read_document(head: &Parts, body: Body) -> Result<Bytes, CosError> {
    let query = head.uri.query().unwrap_or_default();
    let needs_md5 = match head.method {
        Method::POST => ["delete", "restore"]
            .iter()
            .any(|name| has_parameter(query, name)),
        _ => {
            path_in_bucket(&head.extensions, &head.uri) == "/"
                && !query.is_empty()
                && !(WITHOUT_MD5.iter()).any(|name| has_parameter(query, name))
        }
    };
    let is_empty = header(head, "content-length") == Some("0"); // a header holds the access rights
    let claimed = header(head, "content-md5");
    if needs_md5 && !is_empty && claimed.is_none() {
        return Err(CosError::bad_request(
            "InvalidRequest",
            "Missing required header for this request: Content-MD5",
        ));
    }
    let collected = Limited::new(body, XML_LIMIT).collect().await;
    let bytes = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return CosError::bad_request("XMLSizeLimit", "The XML is too large.");
        }
        CosError::bad_request("IncompleteBody", "The body ended early.")
    })?;
    let bytes = bytes.to_bytes();
    if let Some(claimed) = claimed {
        match STANDARD.decode(claimed) {
            Ok(md5) if *md5 == *Md5::digest(&bytes) => {}
            Ok(md5) if md5.len() == 16 => {
                let message = "The Content-MD5 you specified did not match what we received.";
                return Err(CosError::bad_request("BadDigest", message));
            }
            _ => {
                return Err(CosError::bad_request(
                    "InvalidDigest",
                    "The Content-MD5 you specified is not valid.",
                ));
            }
        }
    }
    let hash = header(head, "x-amz-content-sha256").filter(|hash| *hash != "UNSIGNED-PAYLOAD");
    if hash.is_some_and(|hash| hash != hex(&Sha256::digest(&bytes))) {
        let message =
            "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(CosError::bad_request("XAmzContentSHA256Mismatch", message));
    }
    Ok(bytes)
}

pub(super) fn has_parameter(query: &str, name: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some(name))
}
