//! The body of a request, made ready for COS: objects stream and are checked as they pass, XML is
//! read whole, parsed, judged, and written anew.

use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Version;
use http::request::Parts;
use hyper::body::{Body as _, Incoming};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::Proxy;
use super::gather_budget::{GatherHold, no_room};
use crate::body::shape::{self, Shaper};
use crate::body::{self, GatherFailure, PaceLimit, UploadFailure};
use crate::config::StoredCheck;
use crate::error::{Code, S3Error};
use crate::observe::Event;
use crate::payload::checksum::{Checks, Verified};
use crate::payload::{Declared, FormFile, Framing, Intake, Mode, PayloadError};
use crate::s3::request::{MAX_OBJECT_BYTES, too_large};
use crate::s3::{ObjectKey, Operation, xml};
use crate::tenant::limits::Way;
use crate::tenant::{Authenticated, Permit, Tenant};
use crate::transport::Gauge;

/// An object on its way from the client.
#[derive(Debug)]
pub(super) struct Arriving {
    incoming: Incoming,
    /// What came of it already.
    read: Bytes,
    /// The file of a form.
    file: Option<FormFile>,
}

/// A body for COS, and what the head must say of it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: body::Request,
    /// Its SHA-256, where it is known before it is sent: COS then checks it too.
    pub(super) sha256: Option<[u8; 32]>,
    /// What was verified of an object that came whole at once.
    verified: Option<Verified>,
    /// Its MD5 in base64, for the XML bodies that COS demands it of.
    pub(super) md5: Option<String>,
    /// The keys of a multi-delete that the caller may not delete: they get an entry of their own in
    /// the answer, and COS never hears of them.
    pub(super) denied: Vec<xml::DeleteObject>,
    /// A multi-delete wants to hear of failures only.
    pub(super) quiet: bool,
    /// The keys of a multi-delete that COS must answer for, each; none if it tells of failures only.
    pub(super) answered_for: Vec<String>,
    /// The share of memory that a gathered body takes until its answer is there.
    _hold: Option<GatherHold>,
}

impl Arriving {
    /// The file of a form, whose bytes `read` came along with the fields.
    pub(super) fn form(incoming: Incoming, read: Bytes, file: FormFile) -> Self {
        Self {
            incoming,
            read,
            file: Some(file),
        }
    }

    /// The length of a form's file.
    pub(super) fn length(&self) -> u64 {
        self.file.as_ref().map_or(0, FormFile::length)
    }
}

impl From<Incoming> for Arriving {
    fn from(incoming: Incoming) -> Self {
        Self {
            incoming,
            read: Bytes::new(),
            file: None,
        }
    }
}

impl Outgoing {
    fn new(body: body::Request) -> Self {
        Self {
            body,
            sha256: None,
            verified: None,
            md5: None,
            denied: Vec::new(),
            quiet: false,
            answered_for: Vec::new(),
            _hold: None,
        }
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self::new(body::Request::Empty)
    }

    /// What was verified of an object, once all of it has been.
    pub(super) fn verified(&self) -> Option<Verified> {
        let streamed = || self.body.upload()?.borrow().verified().cloned();
        self.verified.clone().or_else(streamed)
    }

    /// The checksum that the client gave and that nobody checked, for a body that is whole already.
    pub(super) fn unchecked(&self) -> Option<&str> {
        self.verified.as_ref()?.unchecked.as_deref()
    }

    /// An XML document written here.
    fn document(xml: String) -> Self {
        let bytes = Bytes::from(xml);
        Self {
            sha256: Some(Sha256::digest(&bytes).into()),
            md5: Some(BASE64_STANDARD.encode(Md5::digest(&bytes))),
            ..Self::new(body::Request::Whole(bytes))
        }
    }
}

impl Proxy {
    /// The body that goes with `permit`.
    pub(super) async fn payload(
        &self,
        permit: &Permit<'_, '_>,
        head: &Parts,
        incoming: Incoming,
        caller: &Authenticated,
        gauge: &Rc<Gauge>,
    ) -> Result<Outgoing, S3Error> {
        let operation = permit.request().operation;
        if operation.takes_object_body() {
            let arriving = incoming.into();
            return self.object(permit, head, arriving, caller, gauge).await;
        }
        if operation.has_xml_body() {
            let mut hold = self.hold(caller);
            let checks = document_checks(permit, head, caller.payload())?;
            let read = Box::pin(self.xml_body(head, incoming, checks, &mut hold)).await;
            let (document, verified) = read?;
            charge(caller.tenant(), &document);
            // The answer repeats only the checksum of an object.
            let verified = Verified {
                unchecked: verified.unchecked,
                ..Verified::default()
            };
            return Ok(Outgoing {
                verified: Some(verified),
                _hold: Some(hold),
                ..self.rebuild(permit, &document)?
            });
        }
        // No body: the hash of nothing is the only right one. A body of unknown length may turn out to
        // be none: an empty chunked one, or a POST that a client of HTTP/2 ends in a frame of its own.
        if !incoming.is_end_stream() {
            let any = || S3Error::new(Code::InvalidRequest, "This operation takes no body.");
            Box::pin(self.gather(incoming, head.version, 0, |_| true, any)).await?;
        }
        check_no_body(caller.payload())?;
        Ok(Outgoing::empty())
    }

    /// An object or a part, in whatever form the client sends it: COS gets its plain bytes.
    pub(super) async fn object(
        &self,
        permit: &Permit<'_, '_>,
        head: &Parts,
        arriving: Arriving,
        caller: &Authenticated,
        gauge: &Rc<Gauge>,
    ) -> Result<Outgoing, S3Error> {
        let Arriving {
            incoming,
            read,
            file,
        } = arriving;
        let declared = Declared::read(caller.payload(), &head.headers)?;
        let checks = Checks::read(&declared, &head.headers, &permit.request().query)?;
        let checks = match self.config().upstream.stored_check {
            StoredCheck::Crc64Ecma => checks.with_crc64_ecma(),
            StoredCheck::Md5 => checks.with_md5(),
            StoredCheck::Off => checks,
        };
        let length = file.as_ref().map(FormFile::length).or(declared.length);
        let Some(length) = length else {
            return Box::pin(self.spooled(incoming, head.version, caller, &declared, checks)).await;
        };
        if length > MAX_OBJECT_BYTES {
            return Err(too_large());
        }
        self.check_object(caller.tenant(), length)?;
        let intake = if let Some(file) = file {
            Intake::of_form(file, checks)
        } else {
            let signatures = caller.chunk_signatures().cloned();
            Intake::new(&declared, length, checks, signatures)?
        };
        let source = Rc::clone(gauge);
        let shaper = Shaper::new(caller.tenant(), Way::Upload);
        let arrived =
            body::Request::from_client(incoming, read, length, intake, source, self.pace(), shaper)
                .await;
        let (body, verified) = arrived.inspect_err(|failure| {
            if matches!(failure, UploadFailure::Payload(_)) {
                self.metrics.count(Event::BodyWithheld);
            }
        })?;
        Ok(Outgoing {
            sha256: declared.mode.sha256(),
            verified,
            ..Outgoing::new(body)
        })
    }

    /// A plain object of unknown length: COS takes none, so a small one is held until it is whole. An
    /// empty one needs no room.
    async fn spooled(
        &self,
        incoming: Incoming,
        version: Version,
        caller: &Authenticated,
        declared: &Declared,
        checks: Checks,
    ) -> Result<Outgoing, S3Error> {
        let most = self.config().upstream.spool_unknown_length;
        let mut hold = self.hold(caller);
        let grow = |bytes| hold.grow(bytes);
        let mut input = self
            .gather(incoming, version, most, grow, || {
                let text = match most {
                    0 => "An upload must say its length; send Content-Length.".to_owned(),
                    _ => format!(
                        "An upload of more than {most} bytes must say its length; send Content-Length."
                    ),
                };
                S3Error::new(Code::MissingContentLength, text)
            })
            .await?;
        charge(caller.tenant(), &input);
        self.check_object(caller.tenant(), input.len() as u64)?;
        let object = input.clone();
        let mut intake = Intake::new(declared, object.len() as u64, checks, None)?;
        while intake.push(&mut input)?.is_some() {}
        let (_, verified) = intake.finish()?;
        let body = if object.is_empty() {
            body::Request::Empty
        } else {
            body::Request::Whole(object)
        };
        Ok(Outgoing {
            sha256: declared.mode.sha256(),
            verified: Some(verified),
            _hold: Some(hold),
            ..Outgoing::new(body)
        })
    }

    /// Refuses what is larger than the tenant may upload in one request.
    fn check_object(&self, tenant: &Tenant, bytes: u64) -> Result<(), S3Error> {
        let limits = tenant.limits(shape::now());
        let checked = limits.map_or(Ok(()), |limits| limits.check_object(bytes));
        checked.inspect_err(|_| {
            self.metrics.count(Event::LimitedObjectSize);
        })
    }

    /// The pace that bodies must keep.
    pub(crate) fn pace(&self) -> PaceLimit {
        let limits = &self.config().server.limits;
        let millis = u64::try_from(limits.body_window.as_millis()).unwrap_or(u64::MAX);
        PaceLimit {
            bytes: (limits.body_rate.saturating_mul(millis) / 1000).max(1),
            window: limits.body_window,
        }
    }

    /// Reads an XML body whole and checks that it is what the client meant.
    async fn xml_body(
        &self,
        head: &Parts,
        incoming: Incoming,
        mut checks: Checks,
        hold: &mut GatherHold,
    ) -> Result<(Bytes, Verified), S3Error> {
        let most = self.config().server.limits.xml_bytes;
        let charge = |bytes| hold.grow(bytes);
        let body = self
            .gather(incoming, head.version, most, charge, || {
                S3Error::new(
                    Code::MalformedXML,
                    format!("The XML is larger than the {most} bytes that are accepted."),
                )
            })
            .await?;
        checks.update(&body);
        let verified = checks.finish(None)?;
        Ok((body, verified))
    }

    /// The share of memory of a body that is to be gathered.
    pub(super) fn hold(&self, caller: &Authenticated) -> GatherHold {
        let tenant = caller.tenant();
        self.gathered.hold(&tenant.name, tenant.index)
    }

    /// Reads a body of at most `most` bytes whole, within the pace's window; `charge` as in
    /// [`body::gather`].
    pub(super) async fn gather(
        &self,
        mut incoming: Incoming,
        version: Version,
        most: usize,
        charge: impl FnMut(usize) -> bool,
        too_large: impl FnOnce() -> S3Error,
    ) -> Result<Bytes, S3Error> {
        let window = self.config().server.limits.body_window;
        let body = body::gather(&mut incoming, most, window, charge).await;
        // hyper gives a stream that its client has reset with `NO_ERROR` as one that has ended.
        if body.is_ok() && version == Version::HTTP_2 && !incoming.is_end_stream() {
            return Err(UploadFailure::ClientGone.into());
        }
        body.map_err(|failure| match failure {
            GatherFailure::Gone => UploadFailure::ClientGone.into(),
            GatherFailure::NoRoom => no_room(),
            GatherFailure::Slow => UploadFailure::ClientSlow.into(),
            GatherFailure::TooLarge => too_large().close(),
        })
    }

    /// Parses an XML body and writes it anew from its parts: nothing of the client's text is sent on.
    fn rebuild(&self, permit: &Permit<'_, '_>, document: &[u8]) -> Result<Outgoing, S3Error> {
        let limit = self.config().server.limits.xml_bytes;
        match permit.request().operation {
            Operation::CompleteMultipartUpload => Ok(Outgoing::document(
                xml::CompleteRequest::parse(document, limit)?.to_xml(),
            )),
            Operation::DeleteObjects => {
                let asked = xml::DeleteRequest::parse(document, limit)?;
                let quiet = asked.quiet;
                let may = |object: &xml::DeleteObject| {
                    ObjectKey::from_decoded(object.key.clone()).is_ok()
                        && permit.may_delete(&object.key)
                };
                let (allowed, denied): (Vec<_>, _) = asked.objects.into_iter().partition(may);
                let answered_for = if quiet {
                    Vec::new()
                } else {
                    allowed.iter().map(|object| object.key.clone()).collect()
                };
                let upstream = |object: xml::DeleteObject| xml::DeleteObject {
                    key: permit.upstream_name(&object.key).into_owned(),
                    ..object
                };
                let allowed = xml::DeleteRequest {
                    quiet,
                    objects: allowed.into_iter().map(upstream).collect(),
                };
                let mut outgoing = if allowed.objects.is_empty() {
                    Outgoing::empty()
                } else {
                    Outgoing::document(allowed.to_xml())
                };
                outgoing.denied = denied;
                outgoing.quiet = quiet;
                outgoing.answered_for = answered_for;
                Ok(outgoing)
            }
            _ => Ok(Outgoing::document(
                xml::Tagging::parse(document, limit)?.to_xml(),
            )),
        }
    }
}

/// Counts a body that was read whole: what the tenant streams next waits for it.
fn charge(tenant: &Tenant, body: &Bytes) {
    let now = shape::now();
    if let Some(limits) = tenant.limits(now) {
        limits.charge(Way::Upload, now, body.len() as u64);
    }
}

/// All that a head says of the XML that comes with it.
fn document_checks(
    permit: &Permit<'_, '_>,
    head: &Parts,
    payload: Mode,
) -> Result<Checks, S3Error> {
    check_plain(payload)?;
    let declared = Declared::read(payload, &head.headers)?;
    if declared.framing == Framing::AwsChunked {
        return Err(not_an_object("aws-chunked."));
    }
    let asked = permit.request();
    if asked.operation == Operation::CompleteMultipartUpload {
        return Checks::of_completion(&declared, &head.headers);
    }
    Checks::read(&declared, &head.headers, &asked.query)
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

/// The hash of a body that is empty.
fn check_no_body(payload: Mode) -> Result<(), S3Error> {
    check_plain(payload)?;
    match payload.sha256() {
        Some(expected) if Sha256::digest(b"")[..] != expected => {
            Err(UploadFailure::Payload(PayloadError::Sha256Mismatch).into())
        }
        _ => Ok(()),
    }
}
