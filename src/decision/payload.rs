//! [`PayloadPlan`]: which body a request has, and how it is verified: all that its head declares.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use crate::config::{Config, StoredCheck};
use crate::error::{Code, S3Error};
use crate::payload::checksum::Checks;
use crate::payload::{
    ChunkSignatures, Declared, FormFile, Framing, Intake, Mode, PayloadError, unsigned_chunks,
};
use crate::s3::native::vocabulary;
use crate::s3::request::{MAX_OBJECT_BYTES, too_large};
use crate::s3::xml::Vocabulary;
use crate::s3::{BodyKind, Configuration, XmlRequest};
use crate::tenant::limits::Limits;
use crate::tenant::{Authenticated, Permit};

/// The document that a header can stand for.
const ACL: XmlRequest = XmlRequest::Configuration(Configuration::Acl);

/// Which body a request has. The plans are boxed: most requests have no body, and are moved with it.
#[derive(Debug)]
pub enum PayloadPlan {
    /// An XML document, which is read whole.
    Document(Box<DocumentPlan>),
    /// No body: one of unknown length must turn out to be empty.
    Empty,
    /// An object or a part.
    Object(Box<ObjectPlan>),
}

/// How an XML document is verified.
#[derive(Debug)]
pub struct DocumentPlan {
    /// Which document it is.
    pub kind: XmlRequest,
    /// Whose words it is in.
    pub words: Vocabulary,
    /// A header says what it could say.
    pub is_in_header: bool,
    /// It may have so many bytes.
    pub max_bytes: usize,
    /// What its bytes must pass.
    pub checks: Checks,
}

/// How an object or a part is verified while it streams.
#[derive(Debug)]
pub struct ObjectPlan {
    /// What the head declares of it. Its length is not known yet if it is the file of a form, or comes in
    /// chunks of HTTP alone.
    pub declared: Declared,
    /// An object of unknown length is held until it is whole, if it has no more bytes than this.
    pub max_spooled: usize,
    checks: Checks,
    limits: Option<Arc<Limits>>,
}

impl PayloadPlan {
    /// The plan for the body that comes with `head` from `caller`.
    pub(super) fn new(
        permit: &Permit<'_, '_>,
        head: &Parts,
        caller: &Authenticated,
        config: &Config,
        now: Duration,
    ) -> Result<Self, S3Error> {
        match permit.request().operation.body() {
            BodyKind::Object => {
                let plan = ObjectPlan::new(permit, head, caller, config, now)?;
                Ok(Self::Object(Box::new(plan)))
            }
            BodyKind::Document(kind) => Ok(Self::Document(Box::new(DocumentPlan {
                kind,
                words: vocabulary(head),
                is_in_header: kind == ACL && has_rights(&head.headers)?,
                max_bytes: kind.max_bytes().min(config.server.limits.xml_bytes),
                checks: document_checks(kind, permit, head, caller.payload())?,
            }))),
            BodyKind::None | BodyKind::Form | BodyKind::Ignored => {
                check_no_body(caller.payload())?;
                Ok(Self::Empty)
            }
        }
    }
}

impl ObjectPlan {
    fn new(
        permit: &Permit<'_, '_>,
        head: &Parts,
        caller: &Authenticated,
        config: &Config,
        now: Duration,
    ) -> Result<Self, S3Error> {
        let declared = Declared::read(caller.payload(), &head.headers)?;
        let checks = Checks::read(&declared, &head.headers, &permit.request().query)?;
        let plan = Self {
            max_spooled: config.upstream.spool_unknown_length,
            checks: match config.upstream.stored_check {
                StoredCheck::Crc64Ecma => checks.with_crc64_ecma(),
                StoredCheck::Md5 => checks.with_md5(),
                StoredCheck::Off => checks,
            },
            limits: permit.tenant().limits(now),
            declared,
        };
        if let Some(length) = plan.declared.length {
            plan.check_length(length)?;
        }
        if plan.declared.mode.signs_chunks() && !caller.can_sign_chunks() {
            return Err(unsigned_chunks());
        }
        Ok(plan)
    }

    /// Takes the object in, of `length` bytes. `signatures` is the chain of a caller who signs chunks.
    pub fn intake(
        self,
        length: u64,
        signatures: Option<ChunkSignatures>,
    ) -> Result<Intake, S3Error> {
        self.check_length(length)?;
        Intake::new(&self.declared, length, self.checks, signatures)
    }

    /// Takes the object in as the file of a form.
    pub(crate) fn form_intake(self, file: FormFile) -> Result<Intake, S3Error> {
        self.check_length(file.length())?;
        Ok(Intake::of_form(file, self.checks))
    }

    /// Refuses a length beyond what one request, or the tenant, may upload.
    fn check_length(&self, length: u64) -> Result<(), S3Error> {
        if length > MAX_OBJECT_BYTES {
            return Err(too_large());
        }
        let limits = self.limits.as_ref();
        limits.map_or(Ok(()), |limits| limits.check_object(length))
    }
}

/// Whether the headers say the access rights: in one word or by grantees, and not in both
/// (S3 `PutObjectAcl`).
fn has_rights(headers: &HeaderMap) -> Result<bool, S3Error> {
    let by_word = headers.contains_key("x-amz-acl");
    let by_grantees = (headers.keys()).any(|name| name.as_str().starts_with("x-amz-grant-"));
    if by_word && by_grantees {
        return Err(S3Error::new(
            Code::InvalidRequest,
            "Give the access rights in x-amz-acl or in x-amz-grant- headers, not in both.",
        ));
    }
    Ok(by_word || by_grantees)
}

/// All that a head declares of the XML that comes with it.
fn document_checks(
    kind: XmlRequest,
    permit: &Permit<'_, '_>,
    head: &Parts,
    payload: Mode,
) -> Result<Checks, S3Error> {
    check_plain(payload)?;
    let declared = Declared::read(payload, &head.headers)?;
    if declared.framing == Framing::AwsChunked {
        return Err(not_an_object("aws-chunked."));
    }
    match kind {
        XmlRequest::CompleteMultipartUpload => Checks::of_completion(&declared, &head.headers),
        XmlRequest::Configuration(_) | XmlRequest::Delete | XmlRequest::Tagging => {
            Checks::read(&declared, &head.headers, &permit.request().query)
        }
    }
}

/// Refuses the modes that only objects and parts have.
fn check_plain(payload: Mode) -> Result<(), S3Error> {
    match payload {
        Mode::Sha256(_) | Mode::Unsigned => Ok(()),
        Mode::StreamingSigned | Mode::StreamingSignedTrailer | Mode::StreamingUnsignedTrailer => {
            Err(not_an_object("with a STREAMING-… x-amz-content-sha256."))
        }
    }
}

fn not_an_object(how: &str) -> S3Error {
    let text = format!("Only objects and parts are sent {how}");
    S3Error::new(Code::InvalidArgument, text).close()
}

/// Refuses another hash than that of nothing.
fn check_no_body(payload: Mode) -> Result<(), S3Error> {
    check_plain(payload)?;
    match payload.sha256() {
        Some(expected) if Sha256::digest(b"")[..] != expected => {
            Err(S3Error::from(PayloadError::Sha256Mismatch).close())
        }
        _ => Ok(()),
    }
}
