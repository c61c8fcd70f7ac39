//! Every operation that cosgate serves: one table with a row each, and the choice of a row for a request.

mod choice;
mod reserved;
mod table;

use std::collections::BTreeSet;

use http::Method;

use super::query::{DROPPED, PRESIGN};
use crate::error::Code;
use reserved::{RESERVED, RESERVED_FAMILIES};

pub use table::Operation;

/// What a request's address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A bucket.
    Bucket,
    /// An object.
    Object,
    /// All of a tenant's buckets.
    Service,
}

/// What a grant must cover for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: the operation concerns all of the tenant's buckets.
    Service,
    /// The bucket.
    Bucket,
    /// All that is in the bucket: what is configured holds for every key of it.
    WholeBucket,
    /// The listed prefix.
    Listing,
    /// The key.
    Key,
    /// The key, in a bucket that is not virtual.
    RealKey,
    /// The key, whatever the actions: cosgate serves by itself, from the grant.
    OwnKey,
    /// Each key that the body names.
    KeysInBody,
    /// The key that the form names.
    Form,
}

/// What a client sends with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// Nothing.
    None,
    /// An object's bytes, streamed.
    Object,
    /// XML: read whole, and written anew for COS.
    Document(XmlRequest),
    /// A form with a file.
    Form,
    /// Something that cosgate does not read.
    Ignored,
}

/// An XML document that a client sends.
#[allow(missing_docs, reason = "the names are the operations' own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmlRequest {
    CompleteMultipartUpload,
    Configuration(Configuration),
    Delete,
    Tagging,
}

impl XmlRequest {
    /// Its maximum in bytes, whatever the operator allows.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Configuration(kind) => kind.max_bytes(),
            Self::CompleteMultipartUpload | Self::Delete | Self::Tagging => usize::MAX,
        }
    }
}

/// What is configured of a bucket, or requested of an object, in a document that S3 and COS have in nearly
/// the same words.
#[allow(missing_docs, reason = "the names are those of the operations")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    Accelerate,
    Acl,
    Cors,
    Encryption,
    Lifecycle,
    Logging,
    ObjectLock,
    Replication,
    Restore,
    Retention,
    Tagging,
    Versioning,
    Website,
}

/// Who performs an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Performer {
    /// COS, by the same method.
    Cos,
    /// COS, by a HEAD whose headers cosgate makes the document of.
    CosByHead,
    /// COS, if the grant has the action and may know the whole response; else cosgate itself.
    CosIfGranted(Local),
    /// COS, as the `PutObject` that a form stands for.
    AsPutObject,
    /// cosgate itself: a key that is scoped to prefixes cannot request it of COS.
    Cosgate(Local),
}

/// What cosgate responds to an operation that it performs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The tenant's buckets.
    Buckets,
    /// The bucket exists already.
    CreatedBefore,
    /// The region of the bucket, in a header.
    Region,
    /// The region of the bucket, in a document.
    Location,
    /// The tenant has all rights, and nobody else has any.
    OwnersAcl,
    /// The error that S3 has for a bucket or object without such a configuration.
    Absent(Code),
    /// The document that S3 has for a bucket without such a configuration: its root, and an element in it.
    Unset(&'static str, Option<(&'static str, &'static str)>),
}

/// The body of COS's success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuccessKind {
    /// None.
    Empty,
    /// An object's bytes, or the headers alone.
    Object,
    /// The headers alone, which cosgate makes a document of.
    Headers,
    /// What is configured, which is put into the client's words.
    Configuration(Configuration),
    /// A document with this root.
    Document(&'static str),
    /// COS gets no request.
    Cosgate,
}

impl Operation {
    /// The COS action that the caller needs on what [`Operation::target`] says
    /// (COS API authorization policy guide, 436/31923); empty where COS has none.
    pub fn action(self) -> &'static str {
        self.row().action
    }

    /// The action that a copy needs on its source.
    pub fn copy_source_action(self) -> Option<&'static str> {
        self.row().copy_source_action
    }

    /// What the grant must cover.
    pub fn target(self) -> Target {
        self.row().target
    }

    /// What its address names.
    pub fn resource(self) -> Resource {
        self.row().scope
    }

    /// Whether `x-amz-copy-source` chooses it.
    pub fn is_copy(self) -> bool {
        self.row().is_copy
    }

    /// The parameters that choose it, sorted.
    pub fn selectors(self) -> &'static [&'static str] {
        self.row().selectors
    }

    /// Every parameter that a table here names. One that ends in `*` stands for all that begin so.
    pub fn known_parameters() -> BTreeSet<String> {
        let rows = Self::ALL.iter().map(|operation| operation.row());
        let taken = rows.flat_map(|row| [row.selectors, row.parameters, row.own_parameters]);
        let reserved = RESERVED.iter().map(|(_, names)| *names);
        let names = taken.chain(reserved).chain([PRESIGN, DROPPED]).flatten();
        let names = names.map(|name| (*name).to_owned());
        let families = RESERVED_FAMILIES.iter().map(|front| format!("{front}*"));
        names.chain(families).collect()
    }

    /// The query parameters that COS is sent, in this order.
    pub fn parameters(self) -> &'static [&'static str] {
        self.row().parameters
    }

    /// The query parameters that cosgate serves by itself: COS is not sent them.
    pub fn own_parameters(self) -> &'static [&'static str] {
        self.row().own_parameters
    }

    /// What the client sends.
    pub fn body(self) -> BodyKind {
        self.row().body
    }

    /// Who performs it.
    pub fn performer(self) -> Performer {
        self.row().performer
    }

    /// The client's method.
    pub fn method(self) -> &'static str {
        self.row().method
    }

    /// The method at COS; `None` for an operation that COS does not perform under its own name.
    pub(crate) fn upstream_method(self) -> Option<Method> {
        match self.performer() {
            Performer::Cos | Performer::CosIfGranted(_) => {
                Method::from_bytes(self.row().method.as_bytes()).ok()
            }
            Performer::CosByHead => Some(Method::HEAD),
            Performer::AsPutObject | Performer::Cosgate(_) => None,
        }
    }

    /// The body of COS's success.
    pub fn response(self) -> SuccessKind {
        self.row().response
    }

    /// The error that S3 has where nothing is configured of what it requests of COS.
    pub(crate) fn absent(self) -> Option<Code> {
        match self.performer() {
            Performer::CosIfGranted(Local::Absent(code)) => Some(code),
            _ => None,
        }
    }

    /// Whether doing it twice is as good as once, so that cosgate may try again.
    pub(crate) fn is_idempotent(self) -> bool {
        self.row().is_idempotent
    }

    /// Whether the body is XML: read whole, and written anew for COS.
    pub fn has_xml_body(self) -> bool {
        matches!(self.body(), BodyKind::Document(_))
    }

    /// Whether the body is an object's bytes, streamed.
    pub(crate) fn takes_object_body(self) -> bool {
        self.body() == BodyKind::Object
    }

    /// Whether it reads an object or the headers of one.
    pub fn reads_object(self) -> bool {
        self.response() == SuccessKind::Object
    }

    /// Whether its success is an empty body.
    pub(crate) fn responds_without_body(self) -> bool {
        self.response() == SuccessKind::Empty
    }

    /// Whether COS and S3 document that it may fail after its `200`, which then has an `Error` for a body
    /// (436/10881, 436/7742): clients look for one in these responses and in no other.
    pub(crate) fn may_fail_after_success(self) -> bool {
        self.row().may_fail_after_success
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::*;

    pub(super) fn resolve(
        method: &str,
        scope: Resource,
        query: &str,
        copies: bool,
    ) -> Result<Operation, Code> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Query::parse(query)
            .and_then(|query| Operation::resolve(&method, scope, &query, copies))
            .map_err(|error| error.code())
    }
}
