//! The requests of each operation, and the effect of its outcome on the ledger.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, ETAG};
use http::{Method, Request};
use tokio::time::Instant;

use super::client::{LoadClient, Reply};
use super::content::mix;
use super::ledger::{HeldObject, Possible, Serial};
use super::listing::{ListedPage, element};
use super::operation::LoadOperation;
use super::plan::Account;
use super::request::{Draft, LoadEndpoint, Payload, Signer, copy_source};
use super::stats::{Ended, OperationFailure};
use super::upload::{Slice, UploadBody, UploadForm};
use super::worker::Worker;
use crate::clock::wall_clock;
use crate::s3::xml::{
    CompleteRequest, DeleteObject, DeleteRequest, DeleteResult, Part, UpstreamError,
};

/// Maximum size of a document in bytes, as the client reads it.
const DOCUMENT_LIMIT: usize = 8 << 20;

/// The bytes of content that an operation transferred.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    sent: u64,
    received: u64,
}

/// A tenant on one side, with everything that its requests need.
#[derive(Clone, Copy)]
pub(super) struct LoadCaller<'w> {
    pub(super) side: usize,
    pub(super) tenant: usize,
    pub(super) account: &'w Account,
    pub(super) address: &'w LoadEndpoint,
    pub(super) client: &'w LoadClient,
    pub(super) signer: &'w Signer,
}

/// The way in which an object is put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PutWay {
    Simple,
    Presigned,
    Form,
    Multipart,
}

/// The target of a write: an id, the new write, and the object that it overwrites.
#[derive(Clone, Copy)]
struct Write {
    id: u64,
    serial: Serial,
    old: Option<Serial>,
}

impl LoadCaller<'_> {
    /// Signs a request. A request that HTTP does not allow is an error of the scenario.
    pub(super) fn sign(&self, draft: Draft<'_>) -> Result<Request<UploadBody>, OperationFailure> {
        let signed = self.signer.sign(self.address, draft, wall_clock());
        signed.map_err(|_| failure("a request that HTTP does not allow"))
    }

    /// The host that is dialled.
    pub(super) fn host(&self) -> String {
        self.address.host(&self.account.bucket)
    }

    /// Sends a draft and reads the response.
    pub(super) async fn call(&self, draft: Draft<'_>) -> Result<Reply, OperationFailure> {
        let request = self.sign(draft)?;
        self.client.call(&self.host(), request).await
    }

    pub(super) fn draft<'d>(&'d self, method: Method, key: &'d str) -> Draft<'d> {
        Draft::new(method, &self.account.bucket, key)
    }
}

fn failure(label: &str) -> OperationFailure {
    super::client::silent(label)
}

impl Worker {
    /// Performs the next operation of the scenario. Its latency counts from `planned`.
    pub(super) async fn operate(&self, planned: Instant) {
        let side = self.turn.get() % self.plan.sides.len();
        self.turn.set(self.turn.get().wrapping_add(1));
        let tenant = self.plan.picker.at(self.point());
        if self.plan.probes > 0.0 && self.point() < self.plan.probes {
            return self.in_flight(self.probe(tenant)).await;
        }
        let mut operation = self.plan.mix.at(self.point());
        let group = self.group(side, tenant);
        let deletes = matches!(
            operation,
            LoadOperation::Delete | LoadOperation::MultiDelete
        );
        let is_possible = if deletes {
            self.ledger.borrow().can_take(group)
        } else {
            !operation.needs_object() || self.ledger.borrow().count(group) > 0
        };
        if !is_possible {
            operation = LoadOperation::Put; // no object can be read: there is none, or all are in use
        }
        let Some(caller) = self.caller(side, tenant) else {
            return;
        };
        let result = self.in_flight(self.perform(caller, operation)).await;
        let (moved, failure) = match result {
            Ok(moved) => (moved, None),
            Err(failure) => (Moved::default(), Some(failure)),
        };
        self.record(&Ended {
            side,
            tenant,
            operation,
            latency: planned.elapsed(),
            bytes_sent: moved.sent,
            bytes_received: moved.received,
            failure,
        });
    }

    /// Puts one object before the load, on the next side in turn.
    pub(super) async fn put_one(&self) -> Result<(), String> {
        let side = self.turn.get() % self.plan.sides.len();
        self.turn.set(self.turn.get().wrapping_add(1));
        let tenant = self.plan.picker.at(self.point());
        let caller = self.caller(side, tenant).ok_or("no such tenant")?;
        let put = self.put(caller, PutWay::Simple).await;
        put.map(drop).map_err(|failure| failure.label)
    }

    /// Stores a result.
    pub(super) async fn store(&self, key: &str, text: String) -> Result<(), String> {
        let caller = self.caller(0, 0).ok_or("no such tenant")?;
        let key = format!("{}{key}", caller.account.prefix);
        let draft = caller
            .draft(Method::PUT, &key)
            .with_payload(Payload::Json(text));
        let stored = caller.call(draft).await;
        stored
            .map(drop)
            .map_err(|failure| format!("cannot store {key}: {}", failure.label))
    }

    pub(super) fn caller(&self, side: usize, tenant: usize) -> Option<LoadCaller<'_>> {
        Some(LoadCaller {
            side,
            tenant,
            account: self.plan.account(side, tenant)?,
            address: &self.plan.sides.get(side)?.address,
            client: self.clients.get(side)?,
            signer: self.signers.get(tenant)?.get(side)?,
        })
    }

    /// The key of an object of this thread.
    pub(super) fn key(&self, side: usize, tenant: usize, id: u64) -> String {
        let mut key = self.plan.folder(side, tenant, self.thread);
        key.push_str(&self.plan.name(id));
        key
    }

    async fn perform(
        &self,
        caller: LoadCaller<'_>,
        operation: LoadOperation,
    ) -> Result<Moved, OperationFailure> {
        match operation {
            LoadOperation::Put => self.put(caller, PutWay::Simple).await,
            LoadOperation::PresignedPut => self.put(caller, PutWay::Presigned).await,
            LoadOperation::PostForm => self.put(caller, PutWay::Form).await,
            LoadOperation::Multipart => self.put(caller, PutWay::Multipart).await,
            LoadOperation::Get => self.get(caller, false).await,
            LoadOperation::PresignedGet => self.get(caller, true).await,
            LoadOperation::Range => self.range(caller).await,
            LoadOperation::Head => self.head(caller).await,
            LoadOperation::List => self.list(caller).await,
            LoadOperation::Copy => self.copy(caller).await,
            LoadOperation::Delete => self.delete(caller).await,
            LoadOperation::MultiDelete => self.multi_delete(caller).await,
        }
    }

    /// Puts a new object, or overwrites one.
    async fn put(&self, caller: LoadCaller<'_>, way: PutWay) -> Result<Moved, OperationFailure> {
        let group = self.group(caller.side, caller.tenant);
        let write = self.next_write(group, way == PutWay::Multipart);
        let content = self.plan.content(write.serial);
        let key = self.key(caller.side, caller.tenant, write.id);
        let slice = Slice::whole(content);
        let form = self.plan.uploads.at(self.point());
        let sent = match way {
            PutWay::Simple | PutWay::Presigned => {
                let draft = caller.draft(Method::PUT, &key);
                let mut draft = draft.with_payload(Payload::Content(slice, form));
                draft.is_presigned = way == PutWay::Presigned;
                if draft.is_presigned {
                    draft.payload = Payload::Content(slice, UploadForm::SIGNED);
                }
                caller.call(draft).await.map(drop)
            }
            PutWay::Form => self.post_form(&caller, &key, slice).await,
            PutWay::Multipart => self.multipart(&caller, &key, slice).await,
        };
        self.settle(group, write, sent)?;
        Ok(Moved {
            sent: content.length,
            received: 0,
        })
    }

    async fn post_form(
        &self,
        caller: &LoadCaller<'_>,
        key: &str,
        slice: Slice,
    ) -> Result<(), OperationFailure> {
        let bucket = caller.account.bucket.as_str();
        let form = caller
            .signer
            .form(caller.address, (bucket, key), slice, wall_clock());
        let request = form.map_err(|_| failure("a request that HTTP does not allow"))?;
        caller.client.call(&caller.host(), request).await.map(drop)
    }

    async fn multipart(
        &self,
        caller: &LoadCaller<'_>,
        key: &str,
        whole: Slice,
    ) -> Result<(), OperationFailure> {
        let draft = caller.draft(Method::POST, key).with("uploads", "");
        let begun = caller.call(draft).await?;
        self.ledger.borrow_mut().mark_used(); // also an upload that is not finished must be removed
        let id = element(&begun.body, "UploadId").ok_or_else(|| failure("no UploadId"))?;
        let uploaded = self.parts(caller, key, whole, &id).await;
        let completed = match uploaded {
            Ok(parts) => {
                let document = CompleteRequest { parts }.to_xml();
                let draft = caller.draft(Method::POST, key).with("uploadId", id.clone());
                let reply = caller
                    .call(draft.with_payload(Payload::Document(document)))
                    .await;
                reply.and_then(|reply| no_error_within(&reply))
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = completed {
            let draft = caller.draft(Method::DELETE, key).with("uploadId", id);
            // The clean-up at the end aborts the uploads that remain.
            let _ = caller.call(draft).await;
            return Err(failure);
        }
        Ok(())
    }

    async fn parts(
        &self,
        caller: &LoadCaller<'_>,
        key: &str,
        whole: Slice,
        id: &str,
    ) -> Result<Vec<Part>, OperationFailure> {
        let size = self.plan.part_size.max(whole.length().div_ceil(10_000));
        let count = whole.length().div_ceil(size).max(1);
        let mut parts = Vec::new();
        for index in 0..count {
            let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
            let slice = Slice {
                content: whole.content,
                from: index * size,
                to: ((index + 1) * size).min(whole.length()),
            };
            let form = self.plan.uploads.at(self.point());
            let draft = caller
                .draft(Method::PUT, key)
                .with("partNumber", number.to_string())
                .with("uploadId", id.to_owned());
            let reply = caller
                .call(draft.with_payload(Payload::Content(slice, form)))
                .await?;
            let etag = reply.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
            parts.push(Part {
                number,
                etag: etag
                    .ok_or_else(|| failure("a part without ETag"))?
                    .to_owned(),
            });
        }
        Ok(parts)
    }

    /// The target of the next put.
    fn next_write(&self, group: usize, is_multipart: bool) -> Write {
        let overwrites = {
            let ledger = self.ledger.borrow();
            ledger.is_full() || (self.plan.overwrite > 0.0 && self.point() < self.plan.overwrite)
        };
        let point = self.point();
        let mut ledger = self.ledger.borrow_mut();
        let serial = ledger.serial(is_multipart);
        let old = overwrites.then(|| ledger.take(group, point)).flatten();
        match old {
            Some(object) => Write {
                id: object.id,
                serial,
                old: Some(object.serial.get()),
            },
            None => Write {
                id: serial.0,
                serial,
                old: None,
            },
        }
    }

    /// Records the outcome of a write in the ledger.
    fn settle(
        &self,
        group: usize,
        write: Write,
        sent: Result<(), OperationFailure>,
    ) -> Result<(), OperationFailure> {
        let mut ledger = self.ledger.borrow_mut();
        match (&sent, write.old) {
            (Ok(()), _) => ledger.put(group, write.id, write.serial),
            (Err(failure), Some(old)) if failure.is_without_effect() => {
                ledger.put(group, write.id, old);
            }
            (Err(failure), None) if failure.is_without_effect() => {}
            (Err(_), old) => {
                let possible = Possible {
                    serials: old.into_iter().chain([write.serial]).collect(),
                    may_be_absent: old.is_none(),
                };
                ledger.doubt(group, write.id, possible);
            }
        }
        sent
    }

    /// Any object of the caller. Nothing deletes it while it is held.
    fn hold(&self, caller: &LoadCaller<'_>) -> Result<HeldObject, OperationFailure> {
        let group = self.group(caller.side, caller.tenant);
        let held = self.ledger.borrow().any(group, self.point());
        held.ok_or_else(|| failure("no object to read"))
    }

    async fn get(
        &self,
        caller: LoadCaller<'_>,
        is_presigned: bool,
    ) -> Result<Moved, OperationFailure> {
        let held = self.hold(&caller)?;
        let slice = Slice::whole(self.plan.content(held.serial.get()));
        self.read(&caller, held.id, is_presigned, slice).await
    }

    async fn range(&self, caller: LoadCaller<'_>) -> Result<Moved, OperationFailure> {
        let held = self.hold(&caller)?;
        let content = self.plan.content(held.serial.get());
        if content.length == 0 {
            // A range of an empty object cannot be satisfied (RFC 9110 section 14.1.1).
            let nothing = Slice::whole(content);
            return self.read(&caller, held.id, false, nothing).await;
        }
        let random = mix(self.random.borrow_mut().u64(..));
        let from = random % content.length;
        let most = self.plan.range_size.min(content.length - from);
        let length = 1 + mix(random) % most;
        let slice = Slice {
            content,
            from,
            to: from + length,
        };
        self.read(&caller, held.id, false, slice).await
    }

    /// Reads a range of an object, or all of it, and compares it.
    async fn read(
        &self,
        caller: &LoadCaller<'_>,
        id: u64,
        is_presigned: bool,
        slice: Slice,
    ) -> Result<Moved, OperationFailure> {
        let key = self.key(caller.side, caller.tenant, id);
        let mut draft = caller.draft(Method::GET, &key);
        draft.is_presigned = is_presigned;
        let is_range = slice.length() < slice.content.length;
        let range = format!("bytes={}-{}", slice.from, slice.to.saturating_sub(1));
        if is_range {
            draft = draft.with_header("range", &range);
        }
        let request = caller.sign(draft)?;
        let comparison = self
            .plan
            .verify
            .then(|| slice.content.compare(slice.from, slice.to));
        let host = caller.host();
        let read = caller.client.download(&host, request, comparison).await;
        let download = self.missed(&key, read)?;
        if !self.plan.verify {
            return Ok(Moved {
                sent: 0,
                received: download.length,
            });
        }
        if !download.is_whole {
            let what = format!(
                "{key}: {} bytes that differ from the {} that were written",
                download.length,
                slice.length()
            );
            return Err(self.bad_read(what, "content is not what was written"));
        }
        self.shared.measured().truth.reads_verified += 1;
        Ok(Moved {
            sent: 0,
            received: download.length,
        })
    }

    async fn head(&self, caller: LoadCaller<'_>) -> Result<Moved, OperationFailure> {
        let held = self.hold(&caller)?;
        let key = self.key(caller.side, caller.tenant, held.id);
        let replied = caller.call(caller.draft(Method::HEAD, &key)).await;
        let reply = self.missed(&key, replied)?;
        let length = reply.headers.get(CONTENT_LENGTH);
        let length: Option<u64> = length.and_then(|text| text.to_str().ok()?.parse().ok());
        let expected = self.plan.content(held.serial.get()).length;
        if self.plan.verify && length != Some(expected) {
            let what = format!("{key}: HEAD gives {length:?} bytes instead of {expected}");
            return Err(self.bad_read(what, "length is not what was written"));
        }
        Ok(Moved::default())
    }

    async fn list(&self, caller: LoadCaller<'_>) -> Result<Moved, OperationFailure> {
        let folder = self.plan.folder(caller.side, caller.tenant, self.thread);
        let draft = caller
            .draft(Method::GET, "")
            .with("list-type", "2")
            .with("max-keys", self.plan.list_page.to_string())
            .with("prefix", folder.clone());
        let reply = caller.call(draft).await?;
        let page = ListedPage::parse(&reply.body).ok_or_else(|| failure("not a listing"))?;
        if let Some((key, _)) = page
            .objects
            .iter()
            .find(|(key, _)| !key.starts_with(&folder))
        {
            let what = format!("{key}: listed outside of {folder}");
            return Err(self.bad_read(what, "a key outside of the prefix"));
        }
        Ok(Moved {
            sent: 0,
            received: reply.body.len() as u64,
        })
    }

    async fn copy(&self, caller: LoadCaller<'_>) -> Result<Moved, OperationFailure> {
        let held = self.hold(&caller)?;
        let source = self.key(caller.side, caller.tenant, held.id);
        let group = self.group(caller.side, caller.tenant);
        let id = self.ledger.borrow_mut().serial(false).0;
        let key = self.key(caller.side, caller.tenant, id);
        let draft = caller.draft(Method::PUT, &key);
        let source = copy_source(&caller.account.bucket, &source);
        let reply = caller
            .call(draft.with_header("x-amz-copy-source", &source))
            .await;
        let copied = reply.and_then(|reply| no_error_within(&reply));
        let write = Write {
            id,
            serial: held.serial.get(),
            old: None,
        };
        self.settle(group, write, copied)?;
        Ok(Moved::default())
    }

    async fn delete(&self, caller: LoadCaller<'_>) -> Result<Moved, OperationFailure> {
        let group = self.group(caller.side, caller.tenant);
        let point = self.point();
        let taken = self.ledger.borrow_mut().take(group, point);
        let object = taken.ok_or_else(|| failure("no object to delete"))?;
        let key = self.key(caller.side, caller.tenant, object.id);
        let reply = caller.call(caller.draft(Method::DELETE, &key)).await;
        self.settle_delete(
            group,
            (object.id, object.serial.get()),
            reply.as_ref().err(),
        );
        reply.map(|_| Moved::default())
    }

    async fn multi_delete(&self, caller: LoadCaller<'_>) -> Result<Moved, OperationFailure> {
        let group = self.group(caller.side, caller.tenant);
        let mut taken = Vec::new();
        for _ in 0..self.plan.delete_batch {
            let point = self.point();
            let Some(object) = self.ledger.borrow_mut().take(group, point) else {
                break;
            };
            taken.push((object.id, object.serial.get()));
        }
        let keys: Vec<String> = taken
            .iter()
            .map(|(id, _)| self.key(caller.side, caller.tenant, *id))
            .collect();
        if keys.is_empty() {
            return Err(failure("no object to delete"));
        }
        let result = delete_keys(&caller, &keys).await;
        for (object, key) in taken.into_iter().zip(&keys) {
            let refused = match &result {
                Ok(failed) => failed.iter().find(|(failed, _)| failed == key),
                Err(_) => None,
            };
            let refused = refused.map(|(_, failure)| failure);
            self.settle_delete(group, object, result.as_ref().err().or(refused));
        }
        match result?.into_iter().next() {
            Some((_, failure)) => Err(failure),
            None => Ok(Moved::default()),
        }
    }

    /// Records the outcome of a delete in the ledger.
    fn settle_delete(
        &self,
        group: usize,
        (id, serial): (u64, Serial),
        failure: Option<&OperationFailure>,
    ) {
        let mut ledger = self.ledger.borrow_mut();
        match failure {
            None => {}
            Some(failure) if failure.is_without_effect() => ledger.put(group, id, serial),
            Some(_) => {
                let possible = Possible {
                    serials: vec![serial],
                    may_be_absent: true,
                };
                ledger.doubt(group, id, possible);
            }
        }
    }

    /// Counts a read that did not find an acknowledged object.
    fn missed<T>(
        &self,
        key: &str,
        read: Result<T, OperationFailure>,
    ) -> Result<T, OperationFailure> {
        if let Err(failure) = &read
            && failure.is_response
            && failure.label.starts_with("404")
        {
            let what = format!("{key}: {} after it was acknowledged", failure.label);
            let _ = self.bad_read(what, "");
        }
        read
    }

    fn bad_read(&self, what: String, label: &str) -> OperationFailure {
        let mut measured = self.shared.measured();
        measured.truth.bad_reads += 1;
        measured.truth.example(what);
        OperationFailure {
            label: label.to_owned(),
            is_response: true,
        }
    }
}

/// Sends `DeleteObjects`. Gives the keys that were not deleted, each with its error.
pub(super) async fn delete_keys(
    caller: &LoadCaller<'_>,
    keys: &[String],
) -> Result<Vec<(String, OperationFailure)>, OperationFailure> {
    let objects = keys.iter().map(|key| DeleteObject {
        key: key.clone(),
        version_id: None,
    });
    let document = DeleteRequest {
        quiet: true,
        objects: objects.collect(),
    };
    let draft = caller
        .draft(Method::POST, "")
        .with("delete", "")
        .with_payload(Payload::Document(document.to_xml()));
    let reply = caller.call(draft).await?;
    let result = DeleteResult::parse(&reply.body, DOCUMENT_LIMIT)
        .map_err(|_| failure("not a response to DeleteObjects"))?;
    let failures = result.failures.into_iter();
    Ok(failures
        .map(|failed| {
            let failure = OperationFailure {
                label: format!("200 {}", failed.code),
                is_response: true,
            };
            (failed.key, failure)
        })
        .collect())
}

/// Checks for an error in a response with status 200 (`CopyObject`, `CompleteMultipartUpload`).
fn no_error_within(reply: &Reply) -> Result<(), OperationFailure> {
    match UpstreamError::parse(&reply.body, DOCUMENT_LIMIT) {
        Ok(error) => Err(OperationFailure {
            label: format!("200 {}", error.code),
            is_response: true,
        }),
        Err(_) => Ok(()),
    }
}

/// The wait before the sweep repeats a request.
pub(super) fn pause(attempt: u32) -> Duration {
    Duration::from_millis(100 << attempt.min(6))
}
