//! Carries out the plan for a body: objects stream and are checked as they pass, XML is read whole, parsed,
//! judged, and written anew.

use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Version;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::Proxy;
use super::gather_budget::{GatherHold, no_room};
use crate::body::shape::{self, Shaper};
use crate::body::{self, GatherFailure, PaceLimit, UploadFailure, UploadSource};
use crate::decision::{DocumentPlan, ObjectPlan, PayloadPlan};
use crate::error::{Code, S3Error};
use crate::observe::Event;
use crate::payload::FormFile;
use crate::payload::checksum::Verified;
use crate::rewrite;
use crate::s3::xml::Vocabulary;
use crate::s3::{Configuration, ObjectKey, XmlRequest, xml};
use crate::tenant::limits::Direction;
use crate::tenant::{Authenticated, Permit, Tenant};
use crate::transport::StreamState;

/// A body on its way from the client.
#[derive(Debug)]
pub(super) struct Arriving {
    incoming: Incoming,
    version: Version,
    /// What came of it already.
    read: Bytes,
    /// The file of a form.
    file: Option<Box<FormFile>>,
}

/// A body for COS, and what the head must declare of it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: body::RequestBody,
    /// Its SHA-256, where it is known before it is sent: COS then checks it too.
    pub(super) sha256: Option<[u8; 32]>,
    /// What was verified of an object that came whole at once.
    verified: Option<Verified>,
    /// Its MD5 in base64, for the XML bodies that COS demands it of.
    pub(super) md5: Option<String>,
    /// The access rights of a document, in the form of a header for COS.
    pub(super) acl: Option<&'static str>,
    /// The keys of a multi-delete that the caller may not delete: they get an entry of their own in
    /// the response, and COS never hears of them.
    pub(super) denied: Vec<xml::DeleteObject>,
    /// The result of a multi-delete is to list failures only.
    pub(super) quiet: bool,
    /// The keys of a multi-delete that COS must report, each; none if it reports failures only.
    pub(super) must_report: Vec<xml::DeleteObject>,
    /// The share of memory that a gathered body takes until its response is there.
    _hold: Option<GatherHold>,
}

impl Arriving {
    /// A body that the client sends in this version of HTTP.
    pub(super) fn new(incoming: Incoming, version: Version) -> Self {
        Self {
            incoming,
            version,
            read: Bytes::new(),
            file: None,
        }
    }

    /// The next bytes of the body; `None` at its end. It has no more than its `Content-Length`.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, S3Error> {
        while let Some(frame) = self.incoming.frame().await {
            let frame = frame.map_err(|_| UploadFailure::ClientGone)?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The file of a form, whose bytes `read` came along with the fields.
    pub(super) fn form(self, read: Bytes, file: FormFile) -> Self {
        Self {
            read,
            file: Some(Box::new(file)),
            ..self
        }
    }

    /// The length of a form's file.
    pub(super) fn length(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.length())
    }
}

impl Outgoing {
    fn new(body: body::RequestBody) -> Self {
        Self {
            body,
            sha256: None,
            verified: None,
            md5: None,
            acl: None,
            denied: Vec::new(),
            quiet: false,
            must_report: Vec::new(),
            _hold: None,
        }
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self::new(body::RequestBody::Empty)
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
            ..Self::new(body::RequestBody::Whole(bytes))
        }
    }
}

impl Proxy {
    /// The body that goes with `permit`, as planned.
    pub(super) async fn payload(
        &self,
        permit: &Permit<'_, '_>,
        plan: PayloadPlan,
        arriving: Arriving,
        caller: &Authenticated,
        stream_state: &Rc<StreamState>,
    ) -> Result<Outgoing, S3Error> {
        match plan {
            PayloadPlan::Document(plan) => {
                Box::pin(self.document(permit, *plan, arriving, caller)).await
            }
            PayloadPlan::Empty => {
                // A body of unknown length may turn out to be none: an empty chunked one, or a POST that a
                // client of HTTP/2 ends in a frame of its own.
                if !arriving.incoming.is_end_stream() {
                    let any =
                        || S3Error::new(Code::InvalidRequest, "This operation takes no body.");
                    Box::pin(self.gather(arriving, 0, |_| true, any)).await?;
                }
                Ok(Outgoing::empty())
            }
            PayloadPlan::Object(plan) => {
                Box::pin(self.object(*plan, arriving, caller, stream_state)).await
            }
        }
    }

    /// An object or a part, in whatever form the client sends it: COS gets its plain bytes.
    async fn object(
        &self,
        plan: ObjectPlan,
        arriving: Arriving,
        caller: &Authenticated,
        stream_state: &Rc<StreamState>,
    ) -> Result<Outgoing, S3Error> {
        let sha256 = plan.declared.mode.sha256();
        let (length, intake) = match (arriving.file, plan.declared.length) {
            (Some(file), _) => (file.length(), plan.form_intake(*file)?),
            (None, Some(length)) => {
                let signatures = caller.chunk_signatures().cloned();
                (length, plan.intake(length, signatures)?)
            }
            (None, None) => {
                let arriving = Arriving {
                    file: None,
                    ..arriving
                };
                return Box::pin(self.spooled(plan, arriving, caller)).await;
            }
        };
        let source = UploadSource {
            incoming: arriving.incoming,
            input: arriving.read,
            length,
            stream_state: Rc::clone(stream_state),
        };
        let shaper = Shaper::new(caller.tenant(), Direction::Upload);
        let arrived = body::RequestBody::from_client(source, intake, self.pace(), shaper);
        let (body, verified) = arrived.await.inspect_err(|failure| {
            if matches!(failure, UploadFailure::Payload(_)) {
                self.metrics.count(Event::BodyWithheld);
            }
        })?;
        Ok(Outgoing {
            sha256,
            verified,
            ..Outgoing::new(body)
        })
    }

    /// A plain object of unknown length: COS takes none, so a small one is held until it is whole. An
    /// empty one needs no room.
    async fn spooled(
        &self,
        plan: ObjectPlan,
        arriving: Arriving,
        caller: &Authenticated,
    ) -> Result<Outgoing, S3Error> {
        let max = plan.max_spooled;
        let mut hold = self.hold(caller);
        let grow = |bytes| hold.grow(bytes);
        let gathered = self.gather(arriving, max, grow, || {
            let text = match max {
                0 => "An upload must declare its length; send Content-Length.".to_owned(),
                _ => format!(
                    "An upload of more than {max} bytes must declare its length; send Content-Length."
                ),
            };
            S3Error::new(Code::MissingContentLength, text)
        });
        let mut input = gathered.await?;
        charge(caller.tenant(), &input);
        let object = input.clone();
        let sha256 = plan.declared.mode.sha256();
        let mut intake = plan.intake(object.len() as u64, None)?;
        while intake.push(&mut input)?.is_some() {}
        let (_, verified) = intake.finish()?;
        let body = if object.is_empty() {
            body::RequestBody::Empty
        } else {
            body::RequestBody::Whole(object)
        };
        Ok(Outgoing {
            sha256,
            verified: Some(verified),
            _hold: Some(hold),
            ..Outgoing::new(body)
        })
    }

    /// An XML document: read whole, checked to be what the client meant, and written anew.
    async fn document(
        &self,
        permit: &Permit<'_, '_>,
        plan: DocumentPlan,
        arriving: Arriving,
        caller: &Authenticated,
    ) -> Result<Outgoing, S3Error> {
        let DocumentPlan {
            kind,
            words,
            is_in_header,
            max_bytes,
            mut checks,
        } = plan;
        let mut hold = self.hold(caller);
        let grow = |bytes| hold.grow(bytes);
        let gathered = self.gather(arriving, max_bytes, grow, || {
            let text = format!("The XML is larger than the {max_bytes} bytes that are accepted.");
            S3Error::new(Code::MalformedXML, text)
        });
        let document = gathered.await?;
        checks.update(&document);
        // The response repeats only the checksum of an object.
        let verified = Verified {
            unchecked: checks.finish(None)?.unchecked,
            ..Verified::default()
        };
        charge(caller.tenant(), &document);
        let outgoing = if kind == XmlRequest::Configuration(Configuration::Acl) {
            access_rights(&permit.tenant().name, &document, is_in_header)?
        } else {
            rebuild(kind, words, permit, &document)?
        };
        Ok(Outgoing {
            verified: Some(verified),
            _hold: Some(hold),
            ..outgoing
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

    /// The share of memory of a body that is to be gathered.
    pub(super) fn hold(&self, caller: &Authenticated) -> GatherHold {
        let tenant = caller.tenant();
        self.gathered.hold(&tenant.name, tenant.index)
    }

    /// Reads a body of at most `max` bytes whole, within the pace's window; `charge` as in
    /// [`body::gather`].
    pub(super) async fn gather(
        &self,
        arriving: Arriving,
        max: usize,
        charge: impl FnMut(usize) -> bool,
        too_large: impl FnOnce() -> S3Error,
    ) -> Result<Bytes, S3Error> {
        let Arriving {
            mut incoming,
            version,
            ..
        } = arriving;
        let window = self.config().server.limits.body_window;
        let body = body::gather(&mut incoming, max, window, charge).await;
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
}

/// Parses an XML body and writes it anew from its parts: nothing of the client's text is sent on.
fn rebuild(
    kind: XmlRequest,
    words: Vocabulary,
    permit: &Permit<'_, '_>,
    document: &[u8],
) -> Result<Outgoing, S3Error> {
    let limit = document.len(); // which is no more than was gathered
    let xml = match kind {
        XmlRequest::Configuration(kind) => {
            rewrite::configuration_for_cos(kind, document, permit, words)?
        }
        XmlRequest::CompleteMultipartUpload => {
            xml::CompleteRequest::parse(document, limit)?.to_xml()
        }
        XmlRequest::Delete => {
            return Ok(deletion(
                permit,
                xml::DeleteRequest::parse(document, limit)?,
            ));
        }
        XmlRequest::Tagging => xml::Tagging::parse(document, limit)?.to_xml(),
    };
    Ok(Outgoing::document(xml))
}

/// Access rights, which a header carries to COS: its document would need the ID of the owner's account.
fn access_rights(owner: &str, document: &[u8], is_in_header: bool) -> Result<Outgoing, S3Error> {
    let acl = match (is_in_header, document.is_empty()) {
        (true, true) => None,
        (false, false) => Some(xml::AccessRights::of_client(document, owner)?.canned()?),
        (true, false) => {
            let text = "Give the access rights in headers or in a document, not in both.";
            return Err(S3Error::new(Code::InvalidRequest, text));
        }
        (false, true) => {
            let text =
                "Give the access rights in x-amz-acl, in x-amz-grant- headers or in a document.";
            return Err(S3Error::new(Code::MissingSecurityHeader, text));
        }
    };
    Ok(Outgoing {
        acl,
        ..Outgoing::empty()
    })
}

/// A multi-delete of the keys that the caller may delete.
fn deletion(permit: &Permit<'_, '_>, requested: xml::DeleteRequest) -> Outgoing {
    let quiet = requested.quiet;
    let may = |object: &xml::DeleteObject| {
        ObjectKey::from_decoded(object.key.clone()).is_ok()
            && permit.may_delete(&object.key, object.version_id.is_some())
    };
    let (allowed, denied): (Vec<_>, _) = requested.objects.into_iter().partition(may);
    let must_report = if quiet { Vec::new() } else { allowed.clone() };
    let upstream = |object: xml::DeleteObject| xml::DeleteObject {
        key: permit.upstream_name(&object.key).into_owned(),
        ..object
    };
    let allowed = xml::DeleteRequest {
        quiet,
        objects: allowed.into_iter().map(upstream).collect(),
    };
    let outgoing = if allowed.objects.is_empty() {
        Outgoing::empty()
    } else {
        Outgoing::document(allowed.to_xml())
    };
    Outgoing {
        denied,
        quiet,
        must_report,
        ..outgoing
    }
}

/// Counts a body that was read whole: what the tenant streams next waits for it.
fn charge(tenant: &Tenant, body: &Bytes) {
    let now = shape::now();
    if let Some(limits) = tenant.limits(now) {
        limits.charge(Direction::Upload, now, body.len() as u64);
    }
}
