//! What the store makes of uploads: conditions, uploads that are cut, and forms that cosgate does not use.

use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use super::{CONTENT, StoreProbes, described};
use crate::config::UpstreamSignature;
use crate::config::UpstreamSignature::{Cos, S3};
use crate::doctor::bucket::{Call, SIGNED_CHUNKS, Seen};
use crate::doctor::finding::{Finding, ProbeResult};
use crate::s3::xml::each_element;

/// How often and how late doctor looks for an upload that was cut.
const CUT_LOOKS: u32 = 5;
const CUT_PAUSE: Duration = Duration::from_millis(200);
const NONE_MATCH: &str = "if-none-match";
const FORBID_OVERWRITE: &str = "x-cos-forbid-overwrite";
const NO_UPLOAD: &str = "no multipart upload could be begun: it is not known";
/// CRC-32 of `CONTENT` and of something else, in base64.
const CONTENT_CRC32: &str = "y/Q5Jg==";
const WRONG_CRC32: &str = "AAAAAA==";
const DECODES: &str =
    "cosgate decodes them and sends plain bytes; a client without cosgate depends on this";

impl StoreProbes<'_> {
    /// Whether an object that exists is kept. Doctor turns no versions on: whether the bucket has them, the
    /// responses tell.
    pub(super) async fn create_only(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, value, signature) in [
            (NONE_MATCH, "*", S3),
            (NONE_MATCH, "*", Cos),
            (FORBID_OVERWRITE, "true", Cos),
        ] {
            findings.push(self.create_twice((name, value), signature).await);
        }
        findings
    }

    async fn create_twice(
        &self,
        (name, value): (&'static str, &str),
        signature: UpstreamSignature,
    ) -> Finding {
        let key = self.key("kept");
        let first = self.send(&Call::put(&key, "first")).await;
        let second = Call::put(&key, "second")
            .header(name, value)
            .signed_as(signature);
        let seen = self.outcome(&second).await;
        let read = self.send(&Call::get(&key)).await;
        let tells_version =
            |seen: &Result<Seen, String>| seen.as_ref().is_ok_and(Seen::has_version);
        let has_versions = tells_version(&first) || tells_version(&read);
        let is_kept = read.is_ok_and(|seen| seen.body == "first"[..]);
        let first = first.map_or_else(|error| error, |seen| seen.to_string());
        let came = format!(
            "{seen}; the first upload, {first}, is {}; {}",
            if is_kept { "kept" } else { "overwritten" },
            if has_versions {
                "the bucket has versions"
            } else {
                "no version is reported"
            },
        );
        let check = match name {
            NONE_MATCH => "If-None-Match: * on an object that exists",
            _ => "x-cos-forbid-overwrite on an object that exists",
        };
        let finding = self.finding(check).sent(&second).came(came);
        match (is_kept, signature) {
            (true, _) if seen.starts_with("409") || seen.starts_with("412") => {
                let meaning = if has_versions && name == FORBID_OVERWRITE {
                    "the condition is kept, though COS documents that it is ignored in a bucket with versions"
                } else {
                    "the condition is kept"
                };
                finding.is(ProbeResult::Ok, meaning)
            }
            (true, _) => finding.is(ProbeResult::Note, "the store refused the request for another reason: it is not known whether it keeps the condition"),
            (false, S3) if self.grant.bucket.signature == S3 => finding.is(ProbeResult::Warning, "the store ignores it. cosgate checks first, so only uploads at the same moment can overwrite each other"),
            (false, S3) => finding.is(ProbeResult::Note, "cosgate does not use this signature here"),
            (false, Cos) if name == NONE_MATCH => finding.is(ProbeResult::Note, "cosgate sends x-cos-forbid-overwrite instead"),
            (false, Cos) => finding
                .is(ProbeResult::Warning, overwritten(has_versions))
                .change("use a bucket that never had versioning, or `signature = \"s3\"`, if clients rely on create-only writes"),
        }
    }

    /// cosgate cuts an upload that it must refuse: nothing of it may be stored.
    pub(super) async fn cut_upload(&self) -> Finding {
        let key = self.key("cut");
        let call = Call::put(&key, "half of it");
        let finding = self
            .finding("an upload that is cut")
            .sent(format!("{call}, 10 of 20 bytes"));
        if let Err(error) = self.grant.bucket.send_cut(&call, self.key, 20).await {
            return finding
                .came(error)
                .is(ProbeResult::Warning, "it could not be sent");
        }
        // A store may keep it after we look: it sees the end of the connection later than we do.
        let mut read = self.send(&Call::get(&key)).await;
        for _ in 0..CUT_LOOKS {
            if read.as_ref().is_ok_and(Seen::is_success) {
                break;
            }
            sleep(CUT_PAUSE).await;
            read = self.send(&Call::get(&key)).await;
        }
        match read {
            Ok(seen) if seen.is_success() => finding
                .came("an object")
                .is(
                    ProbeResult::Fail,
                    "the store keeps half an upload: cosgate cannot hold back what it must refuse",
                )
                .change("do not put this store behind cosgate"),
            Ok(seen) => finding
                .came(format!("{seen} afterwards"))
                .is(ProbeResult::Ok, "nothing is stored"),
            Err(error) => finding
                .came(error)
                .is(ProbeResult::Warning, "it is not known"),
        }
    }

    /// The same for a part: it must not be there to be completed.
    pub(super) async fn cut_part(&self) -> Finding {
        let finding = self.finding("a part that is cut");
        let key = self.key("part");
        let id = match self.begin_upload(&key).await {
            Ok(id) => id,
            Err(came) => return finding.came(came).is(ProbeResult::Warning, NO_UPLOAD),
        };
        let finding = self.judge_cut_part(finding, &key, &id).await;
        self.abort_upload(&key, &id).await;
        finding
    }

    async fn judge_cut_part(&self, finding: Finding, key: &str, id: &str) -> Finding {
        let call = Call::put(key, "half of it");
        let call = call.query("partNumber", "1").query("uploadId", id);
        let finding = finding.sent(format!("{call}, 10 of 20 bytes"));
        if let Err(error) = self.grant.bucket.send_cut(&call, self.key, 20).await {
            return finding
                .came(error)
                .is(ProbeResult::Warning, "it could not be sent");
        }
        let list = Call::get(key).query("uploadId", id);
        let mut parts = self.count_parts(&list).await;
        for _ in 0..CUT_LOOKS {
            if parts != Ok(0) {
                break;
            }
            sleep(CUT_PAUSE).await;
            parts = self.count_parts(&list).await;
        }
        match parts {
            Ok(0) => finding
                .came("no part is listed afterwards")
                .is(ProbeResult::Ok, "nothing is stored"),
            Ok(_) => finding
                .came("a part")
                .is(
                    ProbeResult::Fail,
                    "the store keeps half a part: cosgate cannot hold back what it must refuse",
                )
                .change("do not put this store behind cosgate"),
            Err(came) => finding
                .came(came)
                .is(ProbeResult::Warning, "it is not known"),
        }
    }

    async fn count_parts(&self, list: &Call) -> Result<usize, String> {
        let seen = self.send(list).await?;
        if !seen.is_success() {
            return Err(format!("{seen} for the list of parts"));
        }
        let mut parts = 0;
        let read = each_element(&seen.body, |path, _| {
            parts += usize::from(path == ["ListPartsResult", "Part"]);
            Some(())
        });
        read.map(|()| parts)
            .ok_or_else(|| "a list of parts that cannot be read".to_owned())
    }

    /// Begins a multipart upload, which clean-up aborts unless it ends before. Gives its id.
    async fn begin_upload(&self, key: &str) -> Result<String, String> {
        let open = &self.grant.open_uploads;
        open.set(open.get() + 1);
        let call = Call::new(Method::POST, key).query("uploads", "");
        let seen = self.send(&call).await?;
        if !seen.is_success() {
            self.end_upload();
            return Err(format!("{seen} {}", seen.message));
        }
        let mut id = None;
        let _ = each_element(&seen.body, |path, text| {
            if path == ["InitiateMultipartUploadResult", "UploadId"] {
                id = Some(text.to_owned());
            }
            Some(())
        });
        id.ok_or_else(|| "a response without an UploadId".to_owned())
    }

    async fn abort_upload(&self, key: &str, id: &str) {
        let call = Call::new(Method::DELETE, key).query("uploadId", id);
        let seen = self.send(&call).await;
        if seen.is_ok_and(|seen| seen.is_success()) {
            self.end_upload();
        }
    }

    fn end_upload(&self) {
        let open = &self.grant.open_uploads;
        open.set(open.get().saturating_sub(1));
    }

    /// AWS's SDKs name each part's checksum when they complete an upload.
    pub(super) async fn part_checksums(&self) -> Finding {
        let finding = self.finding("checksums of parts in CompleteMultipartUpload");
        let key = self.key("completed");
        let id = match self.begin_upload(&key).await {
            Ok(id) => id,
            Err(came) => return finding.came(came).is(ProbeResult::Warning, NO_UPLOAD),
        };
        let finding = finding.sent(format!(
            "POST /{key}?uploadId={id}, with a wrong <ChecksumCRC32>; if it is refused, with the right one"
        ));
        let part = Call::put(&key, CONTENT);
        let part = part.query("partNumber", "1").query("uploadId", &id);
        let (is_complete, came, meaning) = match self.send(&part).await {
            Ok(part) if part.is_success() => {
                let etag = part.header("etag").unwrap_or_default();
                self.complete_with_checksums((&key, &id), etag).await
            }
            Ok(part) => (false, format!("{part} for the part"), "it is not known"),
            Err(error) => (false, error, "it is not known"),
        };
        if is_complete {
            self.end_upload();
        } else {
            self.abort_upload(&key, &id).await;
        }
        let meaning = format!("{meaning}; cosgate sends numbers and ETags alone");
        finding.came(came).is(ProbeResult::Note, meaning)
    }

    /// Whether the upload is complete, what came, and what it means.
    async fn complete_with_checksums(
        &self,
        (key, id): (&str, &str),
        etag: &str,
    ) -> (bool, String, &'static str) {
        let (is_complete, wrong) = self.complete((key, id), etag, WRONG_CRC32).await;
        if is_complete {
            return (true, wrong, "the store ignores the checksums");
        }
        let (is_complete, right) = self.complete((key, id), etag, CONTENT_CRC32).await;
        let meaning = if is_complete {
            "the store compares the checksums"
        } else {
            "the store refuses such a request"
        };
        (is_complete, format!("{wrong}, then {right}"), meaning)
    }

    async fn complete(
        &self,
        (key, id): (&str, &str),
        etag: &str,
        checksum: &str,
    ) -> (bool, String) {
        let etag = etag.replace('"', "&quot;");
        let body = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag>\
             <ChecksumCRC32>{checksum}</ChecksumCRC32></Part></CompleteMultipartUpload>"
        );
        let call = Call::post(key, body).query("uploadId", id);
        match self.send(&call).await {
            Ok(seen) => (seen.is_success(), seen.to_string()),
            Err(error) => (false, error),
        }
    }

    /// Today's AWS SDKs send it. cosgate decodes it, whatever the store takes.
    pub(super) async fn chunked_upload(&self) -> Finding {
        let key = self.key("chunked");
        let call =
            Call::put(&key, "5\r\nhello\r\n0\r\n\r\n").header("content-encoding", "aws-chunked");
        let call = call
            .header("x-amz-decoded-content-length", "5")
            .signed_as(S3);
        let finding = self.finding("aws-chunked uploads").sent(&call);
        let came = format!(
            "{}; {}",
            self.outcome(&call).await,
            self.stored_as(&key).await
        );
        finding.came(came).is(ProbeResult::Note, DECODES)
    }

    /// Older AWS SDKs send it, and others over plain HTTP.
    pub(super) async fn signed_chunks(&self) -> Finding {
        let key = self.key("signed");
        let call = Call::put(&key, "hello").header("content-encoding", "aws-chunked");
        let call = call
            .header("x-amz-content-sha256", SIGNED_CHUNKS)
            .header("x-amz-decoded-content-length", "5");
        let finding = self.finding("uploads with signed chunks").sent(&call);
        let seen = self.grant.bucket.send_signed_chunks(&call, self.key).await;
        let came = format!("{}; {}", described(seen), self.stored_as(&key).await);
        finding.came(came).is(ProbeResult::Note, DECODES)
    }

    /// What is stored of an upload of `hello` in chunks, or in a form.
    async fn stored_as(&self, key: &str) -> String {
        match self.send(&Call::get(key)).await {
            Ok(seen) if seen.body == "hello"[..] => "decoded".to_owned(),
            Ok(seen) if seen.is_success() => "stored with its frames".to_owned(),
            Ok(seen) => format!("not stored ({seen})"),
            Err(error) => error,
        }
    }

    /// A form with a policy of AWS, which a web page would send to the store itself.
    pub(super) async fn browser_form(&self) -> Finding {
        let key = self.key("form");
        let finding = self.finding("a browser's form with AWS's policy");
        let finding = finding.sent(format!("POST / with a form for /{key}"));
        let seen = self.grant.bucket.send_form(&key, "hello", self.key).await;
        // A message could quote the policy, which has the token in it.
        let seen = seen.map_or_else(|error| error, |seen| seen.to_string());
        let came = format!("{seen}; {}", self.stored_as(&key).await);
        let meaning = "cosgate verifies such forms itself, and sends plain uploads; a page without cosgate depends on this";
        finding.came(came).is(ProbeResult::Note, meaning)
    }

    pub(super) async fn glacier(&self) -> Finding {
        let call = Call::put(self.key("cold"), "c").header("x-amz-storage-class", "GLACIER");
        let call = call.signed_as(S3);
        let finding = self.finding("storage class GLACIER").sent(&call);
        let stored = self.outcome(&call).await;
        let head = self
            .send(&Call::new(Method::HEAD, self.key("cold")).signed_as(S3))
            .await;
        let class = head
            .ok()
            .and_then(|seen| seen.header("x-amz-storage-class").map(str::to_owned));
        let came = format!(
            "{stored}; HEAD says {}",
            class.as_deref().unwrap_or("nothing")
        );
        finding.came(came).is(
            ProbeResult::Note,
            "cosgate writes ARCHIVE, COS's name for it",
        )
    }
}

/// What it means that `x-cos-forbid-overwrite` was not kept.
fn overwritten(has_versions: bool) -> &'static str {
    if has_versions {
        "COS ignores the condition in a bucket that has versions or had them: the first upload is an older version now, and clients read the second"
    } else {
        "the condition is not kept, as on buckets that were ever versioned"
    }
}
