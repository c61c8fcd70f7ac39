//! [`InFlight`]: a request from its head to the last byte of its response, and what it holds so long.

use std::rc::Rc;

use http::Version;
use http::request::Parts;

use super::payload::Outgoing;
use super::record::Record;
use super::respond::Reader;
use super::stranger_memory::StrangerHold;
use super::{Client, Proxy};
use crate::body::shape;
use crate::decision::bucket_of;
use crate::error::S3Error;
use crate::observe::Event;
use crate::tenant::limits::Slot;
use crate::tenant::{CorsRules, CrossOrigin, Identified, PageRequest, Tenant};
use crate::timestamp::Timestamp;
use crate::transport::{Phase, StreamState};

/// A request in flight. Whatever happens to it, its record is written when it is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) proxy: Rc<Proxy>,
    pub(super) stream_state: Rc<StreamState>,
    pub(super) record: Record,
    pub(super) reader: Reader,
    /// What a browser learns of who may read the response.
    pub(super) cross_origin: CrossOrigin,
    /// The page that sent the request, if any grant has a rule for pages.
    pub(super) page: Option<PageRequest>,
    /// The request has a body, and nobody has read it yet.
    pub(super) is_unread: bool,
    /// The request's place among those of its tenant, where these are limited.
    pub(super) slot: Option<Slot>,
    /// What a refusal holds until its client takes it.
    pub(super) refusal: Option<Box<StrangerHold>>,
}

impl InFlight {
    /// Boxed: it is moved from hand to hand until the response's last byte.
    pub(super) fn new(
        proxy: &Rc<Proxy>,
        client: &Client,
        stream_state: &Rc<StreamState>,
        now: Timestamp,
    ) -> Box<Self> {
        let version = if stream_state.is_stream() {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        let mut record = Record::new(client, version, now);
        proxy.metrics.count(Event::RequestStarted);
        record.unknown_names = proxy.unknown_names(client);
        Box::new(Self {
            proxy: Rc::clone(proxy),
            stream_state: Rc::clone(stream_state),
            record,
            reader: Reader::new(client.tls.is_some()),
            cross_origin: CrossOrigin::NoRule,
            page: None,
            is_unread: false,
            slot: None,
            refusal: None,
        })
    }

    /// The request is that of `head`, of somebody who is not known yet.
    pub(super) fn stranger_requests(
        &mut self,
        head: &Parts,
        domains: &[String],
        rules: &CorsRules,
    ) {
        if rules.is_empty() {
            return; // nothing to report
        }
        let page = PageRequest::read(head);
        let bucket = page.is_of_browser().then(|| bucket_of(head, domains));
        self.cross_origin = rules.for_stranger(&page, bucket.flatten().as_deref());
        self.page = Some(page);
    }

    /// The caller was identified.
    pub(super) fn identified(&mut self, caller: &Identified, rules: &CorsRules) {
        let slots = &self.proxy.shared.tenant_slots;
        self.record.identified(caller, slots);
        if let (Some(page), Some(tenant)) = (&self.page, &self.record.tenant) {
            let bucket = self.record.bucket.as_deref();
            self.cross_origin = rules.for_tenant(page, bucket, tenant);
        }
    }

    /// Takes the request's place among those of `tenant`, if its own limits leave one. If it returns
    /// the place, the request still has to be taken of the rate that replicas share.
    pub(super) fn limit(&mut self, tenant: &Tenant) -> Result<Option<Slot>, S3Error> {
        if tenant.is_unlimited() {
            return Ok(None);
        }
        let now = shape::now();
        let Some(limits) = tenant.limits(now) else {
            return Ok(None);
        };
        if limits.shares_requests() {
            return Ok(Some(limits.enter()?));
        }
        self.slot = Some(limits.admit(now)?);
        Ok(None)
    }

    /// A body of so many bytes was read whole.
    pub(super) fn gathered(&mut self, length: usize) {
        self.is_unread = false;
        self.record.gathered(length);
    }

    /// The body is ready for COS.
    pub(super) fn body(&mut self, outgoing: &Outgoing) {
        self.is_unread = false;
        self.record.body(outgoing);
    }

    /// Whether no other request may follow on the connection: the rest of this one's body is still to come.
    pub(super) fn ends_connection(&self) -> bool {
        let record = &self.record;
        let upload = record.upload.as_ref();
        record.error.as_ref().is_some_and(S3Error::closes)
            || self.is_unread
            || upload.is_some_and(|upload| !upload.borrow().is_received())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stream_state.enter(Phase::Idle);
        self.record.is_client_slow = self.stream_state.fell_behind();
        self.record.finish(&self.proxy.metrics, &self.proxy.log);
    }
}
