//! S3's XML: the bodies that clients send, read and written anew, and the answers that cosgate gives.
//!
//! What goes to COS is always written from the parsed parts, so no reader there can find in it what the
//! reader here did not.

mod answers;
mod common_prefixes;
mod document;
mod requests;
mod sts;

pub use answers::{
    DeleteFailure, DeleteResult, Deleted, ListedBucket, UpstreamError, list_buckets, location,
    object_attributes, owners_acl, post_response, unset,
};
pub use common_prefixes::common_prefixes;
pub use requests::{
    CompleteRequest, DeleteObject, DeleteRequest, MAX_DELETED, MAX_TAGS, Part, Tagging,
};

pub use answers::{error, native_error};
pub(crate) use document::NAMESPACE;
pub use sts::{CallerIdentity, StsAnswer, caller_identity, sts_answer, sts_error};
