//! S3, the protocol of the client. Pure: bytes in, typed parts or an [`S3Error`](crate::error::S3Error) out.

pub mod address;
pub mod checksum_name;
pub mod conditions;
pub mod continuation;
pub mod form;
pub mod headers;
pub mod hoisted;
pub mod host;
pub mod http2;
pub mod native;
pub mod operation;
mod percent;
pub mod query;
pub mod request;
pub(crate) mod storage_class;
pub mod sts;
pub mod vend;
pub mod xml;

pub use address::{Address, ObjectKey};
pub use operation::Configuration;
pub use operation::SuccessKind;
pub use operation::Target;
pub use operation::{BodyKind, Local, Operation, Performer, Resource, XmlRequest};
pub use query::Query;
pub use request::{CopySource, S3Request};
