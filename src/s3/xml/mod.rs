//! S3's XML: the bodies that clients send, read and written anew, and the answers that cosgate gives.
//!
//! What goes to COS is always written from the parsed parts, so no reader there can find in it what the
//! reader here did not.

mod answers;
mod document;
mod requests;
mod sts;

#[cfg(test)]
pub(crate) use answers::Deleted;
pub use answers::UpstreamError;
pub(crate) use answers::{
    DeleteFailure, DeleteResult, ListedBucket, error, list_buckets, location, native_error,
    object_attributes, owners_acl, post_response, unset,
};
pub use requests::{CompleteRequest, DeleteObject, DeleteRequest, Part, Tagging};

pub(crate) use document::NAMESPACE;
pub(crate) use sts::{StsAnswer, sts_answer, sts_error};
