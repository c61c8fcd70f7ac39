//! The probes of the store where the documents of COS are silent. Each says what its result means for cosgate.

mod listings;
mod names;
mod uploads;

use super::GrantProbes;
use super::bucket::{Call, Seen};
use super::finding::{Finding, Findings, ProbeArea, ProbeResult};
use crate::config::StoredCheck;
use crate::config::UpstreamSignature::{Cos, S3};
use crate::credentials::Credential;
use crate::rewrite::{is_clock_refusal, is_credential_refusal, read_error};
use crate::secret::Secret;

/// What to change where the store does not keep what makes a key temporary.
pub(super) const NO_TEMPORARY: &str = "do not use temporary keys with this store, and give each tenant that must be fenced a bucket of its own";

/// What an object holds whose checksums are compared: their usual check values are of these bytes.
const CONTENT: &str = "123456789";
/// What to do where a bucket is in strict mode.
const STRICT_MODE: &str = "report this with `--json`, the date when the bucket was created, and its settings: COS does not document which setting turns strict mode on";

/// What the probes of the store share.
struct StoreProbes<'p> {
    grant: &'p GrantProbes<'p>,
    key: &'p Credential,
    /// The throw-away prefix.
    folder: &'p str,
}

/// Probes the store with a key of the throw-away prefix alone.
pub(super) async fn probe(grant: &GrantProbes<'_>, key: &Credential, findings: &mut Findings<'_>) {
    let Some(folder) = &grant.folder.inside else {
        return;
    };
    let store = StoreProbes { grant, key, folder };
    let upload = store.stored_checksum().await;
    let is_usable = upload.came.contains("x-cos-hash");
    findings.push(upload);
    if !is_usable {
        let why = "no object could be written: the other probes would say nothing";
        findings.push(
            store
                .finding("all other probes")
                .is(ProbeResult::Skipped, why),
        );
        return;
    }
    findings.push(store.path_style().await);
    findings.extend(store.refused_keys().await);
    findings.extend(store.unsigned_header().await);
    findings.push(store.clock_tolerance().await);
    findings.push(store.metadata_words().await);
    findings.push(store.acl_words().await);
    findings.push(store.second_list_version().await);
    findings.extend(store.create_only().await);
    findings.extend(store.copy_sources().await);
    findings.push(store.cut_upload().await);
    findings.push(store.cut_part().await);
    findings.push(store.expect_continue().await);
    findings.push(store.http2().await);
    findings.push(store.chunked_upload().await);
    findings.push(store.signed_chunks().await);
    findings.push(store.browser_form().await);
    findings.push(store.part_checksums().await);
    findings.push(store.glacier().await);
    findings.extend(store.key_spellings().await);
    findings.push(store.plus_in_query().await);
    findings.push(store.repeated_parameter().await);
    findings.extend(store.pages().await);
    findings.extend(store.metadata_names().await);
    findings.push(store.upper_case_metadata().await);
}

impl StoreProbes<'_> {
    fn finding(&self, check: &'static str) -> Finding {
        self.grant.finding(ProbeArea::Store, check)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    async fn send(&self, call: &Call) -> Result<Seen, String> {
        self.grant.bucket.send(call, self.key).await
    }

    /// Status and code of `call`, or why there are none.
    async fn outcome(&self, call: &Call) -> String {
        match self.send(call).await {
            Ok(seen) => seen.to_string(),
            Err(error) => error,
        }
    }

    /// Uploads are compared with a checksum that the store reports.
    async fn stored_checksum(&self) -> Finding {
        let call = Call::put(self.key("object"), CONTENT);
        let finding = self.finding("checksum of an upload").sent(&call);
        let seen = match self.send(&call).await {
            Ok(seen) if seen.is_success() => seen,
            Ok(seen) => {
                let came = format!("{seen} {}", seen.message);
                return finding
                    .came(came)
                    .is(ProbeResult::Fail, "the store takes no upload");
            }
            Err(error) => {
                return finding
                    .came(error)
                    .is(ProbeResult::Fail, "no whole response");
            }
        };
        judge_stored(finding, &seen, self.grant.config.upstream.stored_check)
    }

    /// Buckets made since 2024 refuse it (436/102489).
    async fn path_style(&self) -> Finding {
        let finding = self.finding("path style");
        let Some(bucket) = self.grant.bucket.in_path_style(self.grant.config) else {
            return finding.is(
                ProbeResult::Skipped,
                "the endpoint has no bucket in its host",
            );
        };
        let call = Call::get(self.key("object"));
        let finding = finding.sent(format!("{call} at {}", bucket.authority()));
        match bucket.send(&call, self.key).await {
            Ok(seen) => {
                let meaning = if seen.is_success() {
                    "the bucket takes path style; cosgate does not use it"
                } else {
                    "the bucket is reached by its own host alone, as cosgate does; clients may use either style toward cosgate"
                };
                finding.came(&seen).is(ProbeResult::Note, meaning)
            }
            Err(error) => finding
                .came(error)
                .is(ProbeResult::Note, "the region's host is not reached"),
        }
    }

    /// A key that has ended, or whose token is wrong, must be distinguished from one without a right.
    async fn refused_keys(&self) -> Vec<Finding> {
        let call = Call::get(self.key("object"));
        let of = |token: Option<Secret>| {
            let (id, secret) = (self.key.secret_id.clone(), self.key.secret_key.clone());
            Credential::new(id, secret, token, None).ok()
        };
        if self.key.token.is_none() {
            let finding = self.finding("a key with a wrong token");
            return vec![finding.is(ProbeResult::Skipped, "the key has no token")];
        }
        let cases = [
            ("a key without its token", of(None)),
            (
                "a key with a wrong token",
                of(Some(Secret::new("wrongwrongwrong"))),
            ),
        ];
        let mut findings = Vec::new();
        for (check, key) in cases {
            let Some(key) = key else { continue };
            for signature in [S3, Cos] {
                let call = call.clone().signed_as(signature);
                let finding = self.finding(check).sent(&call);
                findings.push(match self.grant.bucket.send(&call, &key).await {
                    Ok(seen) if seen.is_success() => finding
                        .came(&seen)
                        .is(
                            ProbeResult::Fail,
                            "the store served a key without its token",
                        )
                        .change(NO_TEMPORARY),
                    Ok(seen) => judge_key_refusal(finding, &seen),
                    Err(error) => finding
                        .came(error)
                        .is(ProbeResult::Warning, "no whole response"),
                });
            }
        }
        findings
    }

    /// A bucket in strict mode demands that a header like `Content-Type` is signed. What turns it on is not documented.
    async fn unsigned_header(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for signature in [S3, Cos] {
            let call = Call::put(self.key("unsigned"), "u").signed_as(signature);
            let call = call.unsigned("content-type", "text/plain");
            let finding = self.finding("a header that is not signed").sent(&call);
            findings.push(match self.send(&call).await {
                Ok(seen) if seen.is_success() => finding.came(&seen).is(
                    ProbeResult::Note,
                    "the bucket is not in strict mode; cosgate signs every header that it sends",
                ),
                Ok(seen) => finding
                    .came(format!("{seen} {}", seen.message))
                    .is(
                        ProbeResult::Note,
                        "the bucket is in strict mode; cosgate signs every header that it sends, and other clients must do so too",
                    )
                    .change(STRICT_MODE),
                Err(error) => finding
                    .came(error)
                    .is(ProbeResult::Warning, "no whole response"),
            });
        }
        findings
    }

    /// How far the time that is signed may be from the store's.
    async fn clock_tolerance(&self) -> Finding {
        let finding = self
            .finding("signed times of the past and the future")
            .sent("GET, two hours old to 20 minutes ahead");
        let mut came = Vec::new();
        let mut is_recognized = false;
        for seconds in [-7200, 30, 60, 300, 1200] {
            let call = Call::get(self.key("object")).shifted(seconds);
            let text = match self.send(&call).await {
                Ok(seen) => {
                    let status = http::StatusCode::from_u16(seen.status).unwrap_or_default();
                    is_recognized |= is_clock_refusal(status, &read_error(&seen.body));
                    seen.to_string()
                }
                Err(error) => error,
            };
            came.push(format!("{seconds:+} s: {text}"));
        }
        let meaning = if is_recognized {
            "cosgate corrects its clock by the store's when it sees RequestTimeTooSkewed"
        } else {
            "the store does not refuse these times by name; keep this machine's clock right"
        };
        finding.came(came.join(", ")).is(ProbeResult::Note, meaning)
    }

    async fn expect_continue(&self) -> Finding {
        let call = Call::put(self.key("expected"), "").header("expect", "100-continue");
        let finding = self
            .finding("Expect: 100-continue")
            .sent(format!("{call}, the head alone"));
        match self.grant.bucket.send_head(&call, self.key, 5).await {
            Ok(head) => {
                let came = head.lines().next().unwrap_or("nothing within 3 s");
                let meaning = "cosgate responds to it by itself, and never sends it to the store";
                finding.came(came).is(ProbeResult::Note, meaning)
            }
            Err(error) => finding
                .came(error)
                .is(ProbeResult::Note, "it could not be sent"),
        }
    }

    async fn http2(&self) -> Finding {
        let finding = self.finding("HTTP/2 offered in TLS (ALPN)").sent("h2");
        match self.grant.bucket.protocol_when_offered_http2().await {
            None => finding.is(ProbeResult::Skipped, "the endpoint is plain HTTP"),
            Some(Ok(protocol)) => finding
                .came(format!("{protocol} is chosen"))
                .is(ProbeResult::Note, "cosgate speaks HTTP/1.1 to the store"),
            Some(Err(error)) => finding.came(error).is(
                ProbeResult::Note,
                "the store does not speak HTTP/2; cosgate speaks HTTP/1.1 to it",
            ),
        }
    }
}

/// Status, code and message, or why there are none.
fn described(seen: Result<Seen, String>) -> String {
    let text = seen.map_or_else(|error| error, |seen| format!("{seen} {}", seen.message));
    text.trim_end().to_owned()
}

/// Whether what the store reports of an upload is what `check` compares.
fn judge_stored(finding: Finding, seen: &Seen, check: StoredCheck) -> Finding {
    // CRC-64/XZ and MD5 of `CONTENT`.
    const CRC: &str = "11051210869376104954";
    const MD5: &str = "\"25f9e794323b453885f5181f1b624d0b\"";
    let crc = seen.header("x-cos-hash-crc64ecma");
    let has_md5 = seen.header("etag") == Some(MD5);
    let came = match (crc, has_md5) {
        // Another text may be anything that the store was sent.
        (Some(crc), _) if crc.parse::<u64>().is_err() => {
            "x-cos-hash-crc64ecma is no number".to_owned()
        }
        (Some(crc), _) => format!("x-cos-hash-crc64ecma: {crc}"),
        (None, true) => "no x-cos-hash-crc64ecma, and the MD5 as ETag".to_owned(),
        (None, false) => "no x-cos-hash-crc64ecma, and an ETag that is not the MD5".to_owned(),
    };
    let finding = finding.came(came);
    let change = if has_md5 {
        "[upstream] stored_check = \"md5\""
    } else {
        "[upstream] stored_check = \"off\": then cosgate relies on the store's own checks"
    };
    match check {
        StoredCheck::Crc64Ecma if crc == Some(CRC) => finding.is(
            ProbeResult::Ok,
            "`stored_check = \"crc64ecma\"`, the default, works",
        ),
        StoredCheck::Crc64Ecma if crc.is_some() => finding
            .is(
                ProbeResult::Fail,
                "the checksum is not of what was sent: cosgate reports each upload as failed",
            )
            .change(change),
        StoredCheck::Crc64Ecma => finding
            .is(ProbeResult::Fail, "this store reports no CRC-64")
            .change(change),
        StoredCheck::Md5 if has_md5 => {
            finding.is(ProbeResult::Ok, "`stored_check = \"md5\"` works")
        }
        StoredCheck::Md5 => finding
            .is(
                ProbeResult::Fail,
                "the ETag is not the MD5 of what was sent",
            )
            .change(change),
        StoredCheck::Off => finding.is(ProbeResult::Note, "`stored_check` is off"),
    }
}

pub(super) fn judge_key_refusal(finding: Finding, seen: &Seen) -> Finding {
    let status = http::StatusCode::from_u16(seen.status).unwrap_or_default();
    let finding = finding.came(format!("{seen} {}", seen.message));
    if is_credential_refusal(status, &read_error(&seen.body)) {
        finding.is(
            ProbeResult::Ok,
            "cosgate fetches another key when it sees this",
        )
    } else {
        let meaning =
            "cosgate takes this for a missing right and keeps the key until its planned renewal";
        finding.is(ProbeResult::Note, meaning)
    }
}
