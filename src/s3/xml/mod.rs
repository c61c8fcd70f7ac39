//! S3's XML: the bodies that clients send, read and written anew, and the responses that cosgate gives.
//!
//! What goes to COS is always written from the parsed parts, so no reader there can find in it what the
//! reader here did not.

mod access_rights;
mod common_prefixes;
mod configuration;
mod document;
mod elements;
mod requests;
mod responses;
mod sts;

pub(crate) use access_rights::AccessRights;
pub(crate) use common_prefixes::common_prefixes;
pub use configuration::Vocabulary;
pub use requests::{CompleteRequest, DeleteObject, DeleteRequest, Part, Tagging};
pub use responses::DeleteFailure;
pub use responses::ListedBucket;
use responses::write_owner;
pub use responses::{DeleteResult, Deleted, list_buckets, location, unset};
pub(crate) use responses::{UpstreamError, object_attributes, post_response};

pub(crate) use document::NAMESPACE;
pub(crate) use elements::each_element;
pub use responses::error;
pub(crate) use responses::native_error;
pub use sts::sts_error;
pub(crate) use sts::{CallerIdentity, StsResponseBody, caller_identity, sts_response};
