//! How the store reads names and values: headers in the words of either signature, keys and metadata.

use http::Method;

use super::{CONTENT, StoreProbes, described};
use crate::config::UpstreamSignature::{Cos, S3};
use crate::doctor::bucket::{Call, Seen};
use crate::doctor::finding::{Finding, ProbeResult};

/// What is said of a key that stands for another.
const NEAREST: &str = "in place of a key that starts with `/`, which would be outside the prefix";
/// A value that no ACL has.
const NO_ACL: &str = "cosgate-doctor";

impl StoreProbes<'_> {
    /// Whether S3's names of metadata count beside COS's own signature, and in which the response is.
    pub(super) async fn metadata_words(&self) -> Finding {
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

    /// Whether `x-amz-acl` counts beside COS's own signature. No ACL has the value, so nothing becomes public.
    pub(super) async fn acl_words(&self) -> Finding {
        let put = |name| {
            let call = Call::put(self.key("acl"), "a").header(name, NO_ACL);
            call.signed_as(Cos)
        };
        let call = put("x-amz-acl");
        let finding = self.finding("x-amz-acl beside COS's signature");
        let finding = finding.sent(format!("{call}, a value that no ACL has"));
        let amz = match self.send(&call).await {
            Ok(seen) => seen,
            Err(error) => {
                return finding
                    .came(error)
                    .is(ProbeResult::Note, "no whole response");
            }
        };
        let cos = self.send(&put("x-cos-acl")).await;
        let cos_is_taken = cos.as_ref().is_ok_and(Seen::is_success);
        let meaning = match (amz.is_success(), cos_is_taken) {
            (false, _) => "the store reads it; cosgate writes x-cos-acl beside this signature",
            (true, false) => {
                "the store ignores it, and reads x-cos-acl, which cosgate writes beside this signature"
            }
            (true, true) => {
                "the store checks the value of neither header: it is not known whether it reads x-amz-acl"
            }
        };
        let cos = cos.map_or_else(|error| error, |seen| seen.to_string());
        let came = format!("{amz}; with x-cos-acl: {cos}");
        finding.came(came).is(ProbeResult::Note, meaning)
    }

    pub(super) async fn copy_sources(&self) -> Vec<Finding> {
        let bucket = &self.grant.bucket.grant.bucket;
        let plain = format!("{bucket}/{}", self.key("object"));
        let host = format!("{}/{}", self.grant.bucket.authority(), self.key("object"));
        let cases = [
            ("x-amz-copy-source", &plain, S3, true),
            ("x-amz-copy-source", &host, S3, false),
            ("x-cos-copy-source", &host, Cos, true),
            ("x-cos-copy-source", &plain, Cos, false),
            ("x-amz-copy-source", &plain, Cos, false),
        ];
        let mut findings = Vec::new();
        for (index, (name, source, signature, is_ours)) in cases.into_iter().enumerate() {
            let key = self.key(&format!("copy{index}"));
            let call = Call::new(Method::PUT, &key)
                .header(name, source)
                .signed_as(signature);
            let finding = self.finding("a copy's source").sent(&call);
            let seen = self.send(&call).await;
            let is_taken = seen.as_ref().is_ok_and(Seen::is_success);
            let mut came = described(seen);
            // A store that ignores the header takes the request for an upload of nothing.
            let read = self.send(&Call::get(&key)).await;
            let works = read.is_ok_and(|seen| seen.is_success() && seen.body == CONTENT);
            if is_taken && !works {
                came.push_str("; nothing is copied");
            }
            let verdict = if works || !is_ours {
                ProbeResult::Note
            } else {
                ProbeResult::Warning
            };
            let meaning = match (works, is_ours) {
                (true, true) => "copies work in the form that cosgate sends",
                (false, true) => "copies fail with this signature",
                (true, false) => "the store takes this form too; cosgate does not send it",
                (false, false) if is_taken => {
                    "the store ignores this form; cosgate does not send it"
                }
                (false, false) => "the store refuses this form; cosgate does not send it",
            };
            findings.push(finding.came(came).is(verdict, meaning));
        }
        findings
    }

    pub(super) async fn key_spellings(&self) -> Vec<Finding> {
        let long = |bytes: usize| "k".repeat(bytes.saturating_sub(self.folder.len()));
        let cases = [
            ("a key with an empty segment", "a//b".to_owned(), true),
            ("a key with `/` after the prefix", "/a".to_owned(), true),
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
            let mut sent = format!("PUT …{}", name.get(..20).unwrap_or(&name));
            if name.starts_with('/') {
                sent = format!("PUT …/{name}, {NEAREST}");
            }
            let finding = self.finding(check).sent(sent);
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

    /// COS documents letters, digits and `-`, and 2 KiB in all (436/7749).
    pub(super) async fn metadata_names(&self) -> Vec<Finding> {
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

    /// Names have no letter case in HTTP. The documents allow lower case alone (436/7749).
    pub(super) async fn upper_case_metadata(&self) -> Finding {
        let (name, spelled) = match self.grant.bucket.signature {
            Cos => ("x-cos-meta-doctor", "x-cos-meta-Doctor"),
            S3 => ("x-amz-meta-doctor", "x-amz-meta-Doctor"),
        };
        let key = self.key("spelled");
        let put = Call::put(&key, "s").header(name, "1").spelled(spelled);
        let finding = self.finding("metadata with an upper-case name").sent(&put);
        let stored = self.grant.bucket.send_head(&put, self.key, 1).await;
        let stored = stored.unwrap_or_else(|error| error);
        let head = Call::new(Method::HEAD, &key);
        let head = self.grant.bucket.send_head(&head, self.key, 0).await;
        let head = head.unwrap_or_default();
        let mut names = head
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0));
        let kept = names.find(|known| known.eq_ignore_ascii_case(name));
        let came = format!(
            "{}; HEAD has: {}",
            stored.lines().next().unwrap_or("nothing within 3 s"),
            kept.unwrap_or("no such metadata")
        );
        let meaning = "cosgate sends names in lower case; a client without cosgate depends on this";
        finding.came(came).is(ProbeResult::Note, meaning)
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no metadata".to_owned();
    }
    names.join(", ")
}
