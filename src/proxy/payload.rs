//! The body of a request, made ready for COS: objects stream and are checked as they pass, XML is
//! read whole, parsed, judged, and written anew.

use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use hyper::body::{Body as _, Incoming};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::Proxy;
use crate::body::{self, GatherFailure, PaceLimit, UploadFailure};
use crate::counted::Gauge;
use crate::s3::request::content_length;
use crate::s3::{Code, ObjectKey, Operation, S3Error, xml};
use crate::tenant::{Payload, Permit};

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// A body for COS, and what the head must say of it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: body::Request,
    /// Its SHA-256, where it is known before it is sent: COS then checks it too.
    pub(super) sha256: Option<[u8; 32]>,
    /// Its MD5 in base64, for the XML bodies that COS demands it of.
    pub(super) md5: Option<String>,
    /// The keys of a multi-delete that the caller may not delete: they get an entry of their own in
    /// the answer, and COS never hears of them.
    pub(super) denied: Vec<xml::DeleteObject>,
    /// A multi-delete wants to hear of failures only.
    pub(super) quiet: bool,
}

impl Outgoing {
    fn new(body: body::Request, payload: Payload) -> Self {
        let sha256 = match payload {
            Payload::Sha256(hash) => Some(hash),
            Payload::Unsigned => None,
        };
        Self {
            body,
            sha256,
            md5: None,
            denied: Vec::new(),
            quiet: false,
        }
    }

    /// An XML document written here.
    fn document(xml: String) -> Self {
        let bytes = Bytes::from(xml);
        Self {
            sha256: Some(Sha256::digest(&bytes).into()),
            md5: Some(BASE64_STANDARD.encode(Md5::digest(&bytes))),
            body: body::Request::Whole(bytes),
            denied: Vec::new(),
            quiet: false,
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
        payload: Payload,
        gauge: &Rc<Gauge>,
    ) -> Result<Outgoing, S3Error> {
        let operation = permit.request().operation;
        if operation.takes_object_body() {
            let length = content_length(head).unwrap_or(0);
            let body = body::Request::from_client(
                incoming,
                length,
                payload,
                Rc::clone(gauge),
                self.pace(),
            );
            return Ok(Outgoing::new(body.await?, payload));
        }
        if operation.has_xml_body() {
            let document = Box::pin(self.xml_body(head, incoming, payload)).await?;
            return self.rebuild(permit, &document);
        }
        // No body: the hash of nothing is the only right one.
        if !incoming.is_end_stream() {
            return Err(
                S3Error::new(Code::InvalidRequest, "This operation takes no body.").close(),
            );
        }
        check_sha256(b"", payload)?;
        Ok(Outgoing::new(body::Request::Empty, Payload::Unsigned))
    }

    /// The pace that bodies must keep.
    pub(super) fn pace(&self) -> PaceLimit {
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
        payload: Payload,
    ) -> Result<Bytes, S3Error> {
        let limits = &self.config().server.limits;
        let body = body::gather(incoming, limits.xml_bytes, limits.body_window).await;
        let body = body.map_err(|failure| match failure {
            GatherFailure::Gone => UploadFailure::ClientGone.into(),
            GatherFailure::Slow => UploadFailure::ClientSlow.into(),
            GatherFailure::TooLarge => S3Error::new(
                Code::MalformedXML,
                format!(
                    "The XML is larger than the {} bytes that are accepted.",
                    limits.xml_bytes
                ),
            )
            .close(),
        })?;
        check_sha256(&body, payload)?;
        check_md5(&body, head)?;
        Ok(body)
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
                let (allowed, denied) = asked.objects.into_iter().partition(may);
                let allowed = xml::DeleteRequest {
                    quiet,
                    objects: allowed,
                };
                let mut outgoing = if allowed.objects.is_empty() {
                    Outgoing::new(body::Request::Empty, Payload::Unsigned)
                } else {
                    Outgoing::document(allowed.to_xml())
                };
                outgoing.denied = denied;
                outgoing.quiet = quiet;
                Ok(outgoing)
            }
            _ => Ok(Outgoing::document(
                xml::Tagging::parse(document, limit)?.to_xml(),
            )),
        }
    }
}

fn check_sha256(body: &[u8], payload: Payload) -> Result<(), S3Error> {
    match payload {
        Payload::Sha256(expected) if Sha256::digest(body)[..] != expected => {
            Err(UploadFailure::Sha256Mismatch.into())
        }
        _ => Ok(()),
    }
}

/// A `Content-MD5` that the client sent itself.
fn check_md5(body: &[u8], head: &Parts) -> Result<(), S3Error> {
    let Some(expected) = head.headers.get(CONTENT_MD5) else {
        return Ok(());
    };
    let expected = BASE64_STANDARD
        .decode(expected)
        .ok()
        .filter(|md5| md5.len() == 16);
    let Some(expected) = expected else {
        return Err(S3Error::new(
            Code::InvalidDigest,
            "The Content-MD5 you specified is not valid.",
        ));
    };
    if Md5::digest(body).as_slice() != expected {
        return Err(S3Error::new(
            Code::BadDigest,
            "The Content-MD5 you specified did not match what we received.",
        ));
    }
    Ok(())
}
