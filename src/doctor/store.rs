//! The probes of the store where the documents of COS are silent. Each says what its result means for cosgate.

use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use super::GrantProbes;
use super::bucket::{Call, Seen};
use super::finding::{Finding, Findings, ProbeArea, ProbeResult};
use crate::config::StoredCheck;
use crate::config::UpstreamSignature::{Cos, S3};
use crate::credentials::Credential;
use crate::rewrite::{is_clock_refusal, is_credential_refusal, read_error};
use crate::secret::Secret;

/// How often and how late doctor looks for an upload that was cut.
const CUT_LOOKS: u32 = 5;
const CUT_PAUSE: Duration = Duration::from_millis(200);

/// What to change where the store does not keep what makes a key temporary.
pub(super) const NO_TEMPORARY: &str = "do not use temporary keys with this store, and give each tenant that must be fenced a bucket of its own";

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
    findings.push(store.second_list_version().await);
    findings.extend(store.create_only().await);
    findings.extend(store.copy_sources().await);
    findings.push(store.cut_upload().await);
    findings.push(store.expect_continue().await);
    findings.push(store.http2().await);
    findings.push(store.chunked_upload().await);
    findings.push(store.glacier().await);
    findings.extend(store.key_spellings().await);
    findings.push(store.plus_in_query().await);
    findings.extend(store.metadata_names().await);
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
        let call = Call::put(self.key("object"), "123456789");
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
                Ok(seen) => finding.came(format!("{seen} {}", seen.message)).is(
                    ProbeResult::Note,
                    "the bucket is in strict mode; cosgate signs every header that it sends, and other clients must do so too",
                ),
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

    /// Whether S3's names of metadata count beside COS's own signature, and in which the response is.
    async fn metadata_words(&self) -> Finding {
        let key = self.key("metadata");
        let put = Call::put(&key, "m").signed_as(Cos);
        let put = put
            .header("x-amz-meta-s3", "1")
            .header("x-cos-meta-cos", "1");
        let finding = self
            .finding("metadata in S3's terms beside COS's signature")
            .sent(&put);
        let stored = self.outcome(&put).await;
        let head = Call::new(Method::HEAD, &key).signed_as(Cos);
        let mut names = Vec::new();
        if let Ok(seen) = self.send(&head).await {
            let all = seen.headers.keys().map(http::HeaderName::as_str);
            names.extend(
                all.filter(|name| name.contains("-meta-"))
                    .map(str::to_owned),
            );
        }
        let meaning = "cosgate writes each name in the words of the signature that it uses";
        let came = format!("{stored}; HEAD has: {}", listed(&names));
        finding.came(came).is(ProbeResult::Note, meaning)
    }

    /// Whether COS's own signature gives version 2 of a listing, which cosgate translates.
    async fn second_list_version(&self) -> Finding {
        let call = Call::get("")
            .query("list-type", "2")
            .query("prefix", self.folder);
        let call = call.query("max-keys", "1").signed_as(Cos);
        let finding = self
            .finding("ListObjectsV2 beside COS's signature")
            .sent(&call);
        match self.send(&call).await {
            Ok(seen) => {
                let text = String::from_utf8_lossy(&seen.body);
                let version = if text.contains("<KeyCount>") { 2 } else { 1 };
                finding
                    .came(format!("{seen}, a listing of version {version}"))
                    .is(
                        ProbeResult::Note,
                        "cosgate sends version 1 and translates, whatever the store takes",
                    )
            }
            Err(error) => finding
                .came(error)
                .is(ProbeResult::Note, "no whole response"),
        }
    }

    /// Whether an object that exists is kept.
    async fn create_only(&self) -> Vec<Finding> {
        let cases = [
            (
                "If-None-Match: * on an object that exists",
                "if-none-match",
                "*",
                S3,
            ),
            (
                "If-None-Match: * on an object that exists",
                "if-none-match",
                "*",
                Cos,
            ),
            (
                "x-cos-forbid-overwrite on an object that exists",
                "x-cos-forbid-overwrite",
                "true",
                Cos,
            ),
        ];
        let mut findings = Vec::new();
        for (check, name, value, signature) in cases {
            let key = self.key("kept");
            let first = self.outcome(&Call::put(&key, "first")).await;
            let second = Call::put(&key, "second")
                .header(name, value)
                .signed_as(signature);
            let seen = self.outcome(&second).await;
            let read = self.send(&Call::get(&key)).await;
            let is_kept = read.is_ok_and(|seen| seen.body == "first"[..]);
            let finding = self.finding(check).sent(&second);
            let finding = finding.came(format!(
                "{seen}; the first upload, {first}, is {}",
                if is_kept { "kept" } else { "overwritten" }
            ));
            findings.push(match (is_kept, signature) {
                (true, _) if seen.starts_with("409") || seen.starts_with("412") => {
                    finding.is(ProbeResult::Ok, "the condition is kept")
                }
                (true, _) => finding.is(ProbeResult::Note, "the store refused the request for another reason: it is not known whether it keeps the condition"),
                (false, S3) if self.grant.bucket.signature == S3 => finding.is(ProbeResult::Warning, "the store ignores it. cosgate checks first, so only uploads at the same moment can overwrite each other"),
                (false, S3) => finding.is(ProbeResult::Note, "cosgate does not use this signature here"),
                (false, Cos) if name == "if-none-match" => finding.is(ProbeResult::Note, "cosgate sends x-cos-forbid-overwrite instead"),
                (false, Cos) => finding
                    .is(ProbeResult::Warning, "the condition is not kept, as on buckets that were ever versioned")
                    .change("use a bucket that never had versioning, or `signature = \"s3\"`, if clients rely on create-only writes"),
            });
        }
        findings
    }

    async fn copy_sources(&self) -> Vec<Finding> {
        let bucket = &self.grant.bucket.grant.bucket;
        let plain = format!("{bucket}/{}", self.key("object"));
        let host = format!("{}/{}", self.grant.bucket.authority(), self.key("object"));
        let cases = [
            ("x-amz-copy-source", &plain, S3, true),
            ("x-amz-copy-source", &host, S3, false),
            ("x-cos-copy-source", &host, Cos, true),
            ("x-cos-copy-source", &plain, Cos, false),
        ];
        let mut findings = Vec::new();
        for (name, source, signature, is_ours) in cases {
            let call = Call::new(Method::PUT, self.key("copy"))
                .header(name, source)
                .signed_as(signature);
            let finding = self.finding("a copy's source").sent(&call);
            let seen = self.send(&call).await;
            let works = seen.as_ref().is_ok_and(Seen::is_success);
            let came = seen.map_or_else(|error| error, |seen| format!("{seen} {}", seen.message));
            let verdict = if works || !is_ours {
                ProbeResult::Note
            } else {
                ProbeResult::Warning
            };
            let meaning = match (works, is_ours) {
                (true, true) => "copies work in the form that cosgate sends",
                (false, true) => "copies fail with this signature",
                (true, false) => "the store takes this form too; cosgate does not send it",
                (false, false) => "the store refuses this form; cosgate does not send it",
            };
            findings.push(finding.came(came.trim_end()).is(verdict, meaning));
        }
        findings
    }

    /// cosgate cuts an upload that it must refuse: nothing of it may be stored.
    async fn cut_upload(&self) -> Finding {
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

    async fn expect_continue(&self) -> Finding {
        let call = Call::put(self.key("expected"), "").header("expect", "100-continue");
        let finding = self
            .finding("Expect: 100-continue")
            .sent(format!("{call}, the head alone"));
        match self.grant.bucket.send_head(&call, self.key, 5).await {
            Ok(line) => {
                let came = if line.is_empty() {
                    "nothing within 3 s"
                } else {
                    line.as_str()
                };
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

    /// Today's AWS SDKs send it. cosgate decodes it, whatever the store takes.
    async fn chunked_upload(&self) -> Finding {
        let key = self.key("chunked");
        let call =
            Call::put(&key, "5\r\nhello\r\n0\r\n\r\n").header("content-encoding", "aws-chunked");
        let call = call
            .header("x-amz-decoded-content-length", "5")
            .signed_as(S3);
        let finding = self.finding("aws-chunked uploads").sent(&call);
        let stored = self.outcome(&call).await;
        let read = self.send(&Call::get(&key)).await;
        let came = match &read {
            Ok(seen) if seen.body == "hello"[..] => "decoded".to_owned(),
            Ok(seen) if seen.is_success() => "stored with its frames".to_owned(),
            Ok(seen) => format!("not stored ({seen})"),
            Err(error) => error.clone(),
        };
        let meaning =
            "cosgate decodes them and sends plain bytes; a client without cosgate depends on this";
        finding
            .came(format!("{stored}; {came}"))
            .is(ProbeResult::Note, meaning)
    }

    async fn glacier(&self) -> Finding {
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

    async fn key_spellings(&self) -> Vec<Finding> {
        let long = |bytes: usize| "k".repeat(bytes.saturating_sub(self.folder.len()));
        let cases = [
            ("a key with an empty segment", "a//b".to_owned(), true),
            ("a key with `.` as a segment", "./a".to_owned(), true),
            ("a key with `..` as a segment", "a/../b".to_owned(), true),
            ("a key of 850 bytes", long(850), true),
            ("a key of 851 bytes", long(851), false),
        ];
        let mut findings = Vec::new();
        for (check, name, is_taken) in cases {
            let key = self.key(&name);
            let call = Call::put(&key, name.clone());
            let stored = self.outcome(&call).await;
            let read = self.send(&Call::get(&key)).await;
            let is_whole = read.is_ok_and(|seen| seen.body == *name.as_bytes());
            let finding = self
                .finding(check)
                .sent(format!("PUT …{}", name.get(..20).unwrap_or(&name)));
            let finding = finding.came(format!(
                "{stored}; it is {} by this key",
                if is_whole { "read" } else { "not read" }
            ));
            findings.push(match (is_whole, is_taken) {
                (true, true) => finding.is(ProbeResult::Ok, "the key is kept as it is"),
                (false, true) => finding.is(
                    ProbeResult::Warning,
                    "clients get the store's error for such keys, or another object",
                ),
                (true, false) => finding.is(
                    ProbeResult::Note,
                    "cosgate refuses such keys, which COS's documents exclude",
                ),
                (false, false) => finding.is(ProbeResult::Ok, "cosgate refuses such keys too"),
            });
        }
        findings
    }

    /// `+` in a query is a space for some servers.
    async fn plus_in_query(&self) -> Finding {
        let key = self.key("a+b");
        let stored = self.outcome(&Call::put(&key, "plus")).await;
        let call = Call::get("").query("prefix", &key).query("max-keys", "1");
        let finding = self.finding("`+` in a query, encoded").sent(&call);
        match self.send(&call).await {
            Ok(seen) if String::from_utf8_lossy(&seen.body).contains("a+b</Key>") => finding
                .came(format!("{stored}; {seen}, the key is listed"))
                .is(ProbeResult::Ok, "prefixes with `+` are found"),
            Ok(seen) => finding
                .came(format!("{stored}; {seen}, the key is not listed"))
                .is(
                    ProbeResult::Warning,
                    "listings of prefixes with `+` are not whole",
                ),
            Err(error) => finding
                .came(error)
                .is(ProbeResult::Warning, "no whole response"),
        }
    }

    /// COS documents letters, digits and `-`, and 2 KiB in all (436/7749).
    async fn metadata_names(&self) -> Vec<Finding> {
        let (cos, s3) = match self.grant.bucket.signature {
            Cos => (true, false),
            S3 => (false, true),
        };
        let cases = [
            (
                "metadata with `_` in its name",
                ["x-cos-meta-a_b", "x-amz-meta-a_b"],
                "1".to_owned(),
            ),
            (
                "metadata beyond ASCII",
                ["x-cos-meta-text", "x-amz-meta-text"],
                "照片".to_owned(),
            ),
            (
                "metadata of 2049 bytes",
                ["x-cos-meta-long", "x-amz-meta-long"],
                "v".repeat(2049),
            ),
        ];
        let mut findings = Vec::new();
        for (check, [in_cos, in_s3], value) in cases {
            let name = if cos && !s3 { in_cos } else { in_s3 };
            let key = self.key("named");
            let call = Call::put(&key, "n").header(name, value.clone());
            let stored = self.outcome(&call).await;
            let head = self.send(&Call::new(Method::HEAD, &key)).await;
            let kept = head.is_ok_and(|seen| {
                seen.headers
                    .get(name)
                    .is_some_and(|kept| kept.as_bytes() == value.as_bytes())
            });
            let finding = self.finding(check).sent(&call);
            let came = format!("{stored}; it is {}", if kept { "kept" } else { "not kept" });
            let meaning = "clients get what the store makes of it";
            findings.push(finding.came(came).is(ProbeResult::Note, meaning));
        }
        findings
    }
}

/// Whether what the store reports of an upload is what `check` compares.
fn judge_stored(finding: Finding, seen: &Seen, check: StoredCheck) -> Finding {
    // CRC-64/XZ and MD5 of "123456789", their usual check values.
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

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no metadata".to_owned();
    }
    names.join(", ")
}
