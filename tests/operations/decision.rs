//! One decision: random requests get the same verdict, step and upstream head from `decide`, from
//! `cosgate explain` and from a running proxy.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test may panic"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{
    ACME, Call, GLOBEX, Scripted, act, config, cos_error, header_of, md5_base64, toml,
};
use cosgate::clock::wall_clock;
use cosgate::config::Config;
use cosgate::decision::{Decision, PayloadPlan, Step, Verdict, decide};
use cosgate::error::S3Error;
use cosgate::rewrite::{Requirement, UpstreamRequest};
use cosgate::s3::S3Request;
use cosgate::s3::hoisted::in_s3_words;
use cosgate::tenant::{Connection, Tenants};
use http::request::Parts;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tempfile::TempDir;

const CASES: u32 = 256;

/// More grants, and limits: what a request may be refused for.
const MORE: &str = r#"
[tenants.acme.limits]
object_size = "1KiB"

[[tenants.acme.grants]]
name = "archive"
bucket = "archive-1250000000"
region = "ap-beijing"
root = "old/"
prefixes = ["*"]
actions = ["GetObject", "PutObject", "GetBucket"]
headers = ["x-amz-server-side-encryption-customer-key"]
attachment = true
"#;

const BODY: &str = "hello";
/// Bodies of documents.
const COMPLETE: &str = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>";
const TAGGING: &str = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";

/// A request: what it does, what else it says, and what it sends.
#[derive(Clone, Debug)]
struct Case {
    caller: Caller,
    method: &'static str,
    bucket: &'static str,
    key: &'static str,
    query: Vec<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Caller {
    Acme,
    Globex,
    Anonymous,
}

impl Caller {
    /// The folder that is theirs.
    fn prefix(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Globex => "globex",
            Self::Anonymous => "public",
        }
    }
}

/// How the body is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Body {
    /// With its length.
    Plain,
    /// In chunks of HTTP, its length not declared.
    Chunked,
    /// In chunks of aws-chunked, with a trailer.
    AwsChunked,
    /// None of it, though that is its length.
    Announced(&'static str),
    /// Its payload mode is this one.
    Mode(&'static str),
}

/// Operations on objects, as method and query.
const OF_OBJECTS: [(&str, &str); 22] = [
    ("GET", ""),
    ("GET", ""),
    ("HEAD", ""),
    ("PUT", ""),
    ("PUT", ""),
    ("PUT", ""),
    ("PUT", ""),
    ("PUT", ""),
    ("DELETE", ""),
    ("PATCH", ""),
    ("GET", "acl"),
    ("GET", "tagging"),
    ("PUT", "tagging"),
    ("DELETE", "tagging"),
    ("POST", "uploads"),
    ("PUT", "partNumber=1&uploadId=u"),
    ("PUT", "partNumber=1&uploadId=u"),
    ("PUT", "partNumber=0&uploadId=u"),
    ("GET", "uploadId=u"),
    ("POST", "uploadId=u"),
    ("DELETE", "uploadId=u"),
    ("GET", "partNumber=2"),
];

/// Operations on buckets.
const OF_BUCKETS: [(&str, &str); 10] = [
    ("GET", ""),
    ("GET", "list-type=2"),
    ("GET", "list-type=2"),
    ("GET", "versions"),
    ("GET", "uploads"),
    ("GET", "location"),
    ("HEAD", ""),
    ("PUT", ""),
    ("POST", "delete"),
    ("POST", "delete"),
];

/// A key of the caller's own.
const OWN: &str = "own";
const KEYS: [&str; 6] = [
    "acme/a%20b%C3%BC",
    "acme/x",
    "globex/x",
    "public/x",
    "acme/../x",
    "acme/%2e%2e/x",
];

const QUERIES: [&str; 13] = [
    "prefix=acme/",
    "prefix=public/",
    "prefix=globex/",
    "max-keys=5",
    "max-keys=x",
    "versionId=v1",
    "response-content-type=text/plain",
    "start-after=acme/a",
    "foo=bar",
    "policy",
    "x-id=PutObject",
    "X-Amz-Checksum-Crc32=NhCmhg==",
    "x-amz-checksum-crc32=AAAAAA==",
];

/// What uploads and copies say of their bytes and of what is there.
const OF_UPLOADS: [(&str, &str); 18] = [
    ("if-none-match", "*"),
    ("if-none-match", "*"),
    ("if-none-match", "\"e\""),
    ("if-match", "\"e\""),
    ("x-amz-copy-source", "photos/acme/from"),
    ("x-amz-copy-source", "archive/from?versionId=7"),
    ("x-amz-copy-source", "photos/globex/from"),
    ("x-amz-copy-source-if-match", "\"e\""),
    ("x-amz-copy-source-range", "bytes=0-3"),
    ("content-encoding", "gzip"),
    ("content-encoding", "aws-chunked"),
    ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
    ("content-md5", "short"),
    ("x-amz-checksum-crc32", "NhCmhg=="),
    ("x-amz-checksum-crc32", "no"),
    (
        "x-amz-checksum-sha256",
        "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
    ),
    ("x-amz-checksum-crc128", "AAAA"),
    ("x-amz-sdk-checksum-algorithm", "CRC32"),
];

const HEADERS: [(&str, &str); 19] = [
    ("if-match", "\"e\""),
    ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("if-unmodified-since", "soon"),
    ("range", "bytes=0-3"),
    ("range", "lines=1"),
    ("x-amz-metadata-directive", "REPLACE"),
    ("x-amz-acl", "private"),
    ("x-amz-acl", "public-read"),
    ("x-amz-meta-a", "b"),
    ("x-amz-storage-class", "STANDARD_IA"),
    ("x-amz-tagging", "a=b"),
    ("x-amz-server-side-encryption-customer-key", "key"),
    ("x-amz-expected-bucket-owner", "acme"),
    ("x-amz-expected-bucket-owner", "other"),
    ("content-type", "text/plain"),
    ("x-amz-website-redirect-location", "/x"),
    ("cookie", "a=b"),
    ("origin", "http://page.example"),
];

fn case() -> impl Strategy<Value = Case> {
    let acme = Caller::Acme;
    let caller = select(vec![
        acme,
        acme,
        acme,
        acme,
        Caller::Globex,
        Caller::Anonymous,
    ]);
    let body = prop_oneof![
        12 => Just(Body::Plain),
        2 => Just(Body::Chunked),
        2 => Just(Body::AwsChunked),
        2 => select(vec!["1025", "5368709121", "-1"]).prop_map(Body::Announced),
        2 => select(vec![
            "UNSIGNED-PAYLOAD",
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "nonsense",
        ])
        .prop_map(Body::Mode),
    ];
    let key = prop_oneof![4 => Just(OWN), 1 => select(KEYS.to_vec())];
    let own = prop_oneof![
        4 => (select(OF_OBJECTS.to_vec()), key),
        1 => (select(OF_BUCKETS.to_vec()), Just("")),
    ];
    let bucket = select(vec![
        "photos", "photos", "photos", "photos", "photos", "photos", "archive", "none",
    ]);
    let queries = prop_oneof![6 => Just(Vec::new()), 1 => subsequence(QUERIES.to_vec(), 1..3)];
    let headers = prop_oneof![
        2 => Just(Vec::new()),
        3 => Just(vec![OF_UPLOADS[0]]), // the condition that is looked at
        4 => subsequence(OF_UPLOADS.to_vec(), 1..3),
        1 => subsequence(HEADERS.to_vec(), 1..3),
    ];
    let more = (queries, headers);
    (caller, own, bucket, more, body).prop_map(|(caller, own, bucket, (more, headers), body)| {
        let ((method, query), key) = own;
        let own = (!query.is_empty()).then_some(query);
        // Others than objects seldom have a body that is sent in another way, and no checksums.
        let is_object = method == "PUT" && !key.is_empty() && !query.contains("tagging");
        let is_upload =
            |(name, _): &(&str, &str)| OF_UPLOADS.iter().any(|(other, _)| other == name);
        let mut headers: Vec<_> = headers;
        if !is_object {
            headers.retain(|header| header.0.starts_with("if-") || !is_upload(header));
        }
        Case {
            caller,
            method,
            bucket,
            key,
            query: own.into_iter().chain(more).collect(),
            headers,
            body: if is_object || matches!(body, Body::Mode(_)) {
                body
            } else {
                Body::Plain
            },
        }
    })
}

impl Case {
    /// What is sent, before the framing.
    fn content(&self) -> String {
        if self.method == "POST" && self.query.contains(&"delete") {
            let prefix = self.caller.prefix();
            return format!("<Delete><Object><Key>{prefix}/x</Key></Object></Delete>");
        }
        let is = |method, query| self.method == method && self.query.contains(&query);
        if is("POST", "uploadId=u") {
            COMPLETE.to_owned()
        } else if is("PUT", "tagging") {
            TAGGING.to_owned()
        } else if self.method == "PUT" && !self.key.is_empty() && !self.copies() {
            BODY.to_owned()
        } else {
            String::new()
        }
    }

    fn copies(&self) -> bool {
        let named = |(name, _): &(&str, &str)| *name == "x-amz-copy-source";
        self.headers.iter().any(named)
    }

    /// The request to `addr`; a checksum that it names is right for an object's bytes alone.
    fn call(&self, addr: std::net::SocketAddr) -> Call {
        let mut target = format!("/{}", self.bucket);
        target += &match self.key {
            "" => String::new(),
            OWN => format!("/{}/x", self.caller.prefix()),
            key => format!("/{key}"),
        };
        if !self.query.is_empty() {
            target = format!("{target}?{}", self.query.join("&"));
        }
        let mut call = Call::new(addr, self.method, &target);
        let content = self.content();
        for (name, value) in &self.headers {
            let value = match *name {
                "content-md5" if value.ends_with('=') => md5_base64(content.as_bytes()),
                _ => (*value).to_owned(),
            };
            call = call.header(name, &value);
        }
        call = match self.body {
            Body::Plain => call.body(content),
            Body::Chunked => call
                .header("transfer-encoding", "chunked")
                .payload("UNSIGNED-PAYLOAD")
                .body(format!("{:x}\r\n{content}\r\n0\r\n\r\n", content.len())),
            Body::AwsChunked => {
                let trailer = "x-amz-checksum-crc32:NhCmhg==\r\n\r\n";
                let framed = format!("{:x}\r\n{content}\r\n0\r\n{trailer}", content.len());
                call.header("x-amz-decoded-content-length", &content.len().to_string())
                    .header("x-amz-trailer", "x-amz-checksum-crc32")
                    .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
                    .body(framed)
            }
            Body::Announced(length) => call
                .header("content-length", length)
                .payload("UNSIGNED-PAYLOAD"),
            Body::Mode(mode) => call.payload(mode).body(content),
        };
        match self.caller {
            Caller::Acme => call.signed_by(ACME),
            Caller::Globex => call.signed_by(GLOBEX),
            Caller::Anonymous => {
                let mode = call.payload.clone();
                let mode = mode.map(|mode| ("x-amz-content-sha256".to_owned(), mode));
                call.headers.extend(mode);
                call.unsigned()
            }
        }
    }

    /// Whether the body decides: it is a form, or other bytes than those that the head speaks of.
    fn is_decided_by_body(&self) -> bool {
        let is_object = self.content() == BODY;
        let empty_body = |body| matches!(body, Body::Chunked | Body::AwsChunked);
        let checksum = |(name, value): &(&str, &str)| {
            name.starts_with("x-amz-checksum-") && value.ends_with('=')
        };
        let in_query = |pair: &&str| pair.ends_with("NhCmhg==");
        // Signed chunks would have to be made.
        let signs_chunks = self.caller != Caller::Anonymous
            && self.body == Body::Mode("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        let is_form = self.method == "POST" && self.key.is_empty() && self.query.is_empty();
        is_form
            || signs_chunks
            || (!is_object && empty_body(self.body))
            || (!is_object && self.headers.iter().any(checksum))
            || (!is_object && self.query.iter().any(in_query))
    }
}

/// A step, and the code of its refusal.
type Refused = Option<(String, String)>;

/// What is decided by the head of a request.
#[derive(Debug, Default)]
struct Decided {
    verdict: &'static str,
    refused: Refused,
    prechecks: Vec<(Requirement, Head)>,
    request: Option<Head>,
    /// The length of the object, where COS gets it.
    length: Option<u64>,
    /// Its body is more than is held of an object of unknown length.
    is_too_long: bool,
    is_document: bool,
}

/// What the running proxy did.
#[derive(Debug, PartialEq)]
struct Served {
    verdict: String,
    refused: Refused,
    /// The heads that COS got.
    upstream: Vec<Head>,
}

impl Decided {
    fn refused(step: Step, error: &S3Error) -> Self {
        Self {
            verdict: Verdict::of_error(error, step).as_str(),
            refused: Some((step.as_str().to_owned(), error.code().as_str().to_owned())),
            ..Self::default()
        }
    }

    /// What the proxy must do, where COS finds nothing: only a look for nothing lets the request follow.
    fn served(&self) -> Served {
        let stops =
            (self.prechecks.iter()).position(|(required, _)| *required != Requirement::Absent);
        let prechecks = stops.map_or(self.prechecks.len(), |last| last + 1);
        let prechecks = self
            .prechecks
            .iter()
            .take(prechecks)
            .map(|(_, head)| head.clone());
        let mut served = Served {
            verdict: self.verdict.to_owned(),
            refused: self.refused.clone(),
            upstream: prechecks.collect(),
        };
        match (stops, self.is_too_long) {
            (Some(_), _) => {}
            (None, true) => {
                "refused".clone_into(&mut served.verdict);
                served.refused = Some(("payload".to_owned(), "MissingContentLength".to_owned()));
            }
            (None, false) => served.upstream.extend(self.request.clone()),
        }
        served
    }
}

/// A head that COS gets, its signature left out.
#[derive(Clone, Debug, PartialEq)]
struct Head {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// `is_document`: these headers are made of the document that is written anew.
    fn new(
        method: &str,
        target: &str,
        headers: impl Iterator<Item = (String, String)>,
        is_document: bool,
    ) -> Self {
        let signature = [
            "authorization",
            "x-amz-date",
            "x-amz-security-token",
            "x-cos-security-token",
            "content-length",
            "x-amz-content-sha256",
        ];
        let of_document = ["content-md5", "content-type"];
        let mut headers: Vec<_> = headers
            .filter(|(name, _)| !signature.contains(&name.as_str()))
            .filter(|(name, _)| !(is_document && of_document.contains(&name.as_str())))
            .collect();
        headers.sort();
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
        }
    }

    fn of_request(request: &UpstreamRequest, is_document: bool) -> Self {
        let headers = request.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Self::new(
            request.method.as_str(),
            &request.target,
            headers,
            is_document,
        )
    }

    /// As `explain` shows it.
    fn masked(mut self) -> Self {
        for (name, value) in &mut self.headers {
            if name.ends_with("-customer-key") {
                "<secret>".clone_into(value);
            }
        }
        self
    }

    fn of_text(text: &str, is_document: bool) -> Self {
        let (line, headers) = text.split_once("\r\n").unwrap();
        let mut line = line.split(' ');
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        let headers =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let (method, target) = (line.next().unwrap(), line.next().unwrap());
        Self::new(method, target, headers, is_document)
    }
}

/// A proxy in front of a COS that finds nothing, and its configuration.
struct Setting {
    scripted: Scripted,
    config: Config,
    file: PathBuf,
    _folder: TempDir,
}

impl Setting {
    fn new(upstream: &str) -> Self {
        let edit =
            |toml: String| toml.replacen("[upstream]", &format!("[upstream]\n{upstream}"), 1);
        let scripted = Scripted::edited(
            vec![act(|peer| {
                let missing = cos_error(404, "NoSuchKey", "none");
                let (head_alone, _) = missing.split_once("\r\n\r\n").unwrap();
                while let Some(head) = peer.head() {
                    let length =
                        header_of(&head, "content-length").map_or(0, |l| l.parse().unwrap());
                    peer.body(length);
                    if head.starts_with("HEAD") {
                        peer.respond(&format!("{head_alone}\r\n\r\n"));
                    } else {
                        peer.respond(&missing);
                    }
                }
            })],
            |text| edit(text) + MORE,
        );
        let text = edit(toml(
            scripted.script.addr,
            scripted.emulator.sts_addr(),
            MORE,
        ));
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("cosgate.toml");
        std::fs::write(&file, &text).unwrap();
        Self {
            config: config(&text),
            scripted,
            file,
            _folder: folder,
        }
    }

    /// What the library decides.
    fn decided(&self, case: &Case, head: &Parts) -> Decided {
        let tenants = Tenants::new(&self.config);
        let domains = &self.config.server.domains;
        let printed = match in_s3_words(head, domains) {
            Ok(printed) => printed,
            Err(error) => return Decided::refused(Step::Parse, &error),
        };
        let request = match S3Request::parse(&printed, domains) {
            Ok(request) => request,
            Err(error) => return Decided::refused(Step::Parse, &error),
        };
        let named = |name| tenants.assume(&tenants.named(name).unwrap(), head);
        let caller = match case.caller {
            Caller::Acme => named("acme"),
            Caller::Globex => named("globex"),
            Caller::Anonymous => tenants.authenticate(head, &request, loopback(), wall_clock()),
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(error) => return Decided::refused(Step::Authenticate, &error),
        };
        let decision = decide(&printed, request, &caller, &self.config, Duration::ZERO);
        let verdict = decision.verdict().as_str();
        let forward = match decision {
            Decision::Forward(forward) => forward,
            Decision::Local(_) => {
                return Decided {
                    verdict,
                    ..Decided::default()
                };
            }
            Decision::Refuse(refusal) => return Decided::refused(refusal.step, &refusal.error),
        };
        let is_document = matches!(forward.payload, PayloadPlan::Document(_));
        let prechecks = forward.prechecks.iter();
        let prechecks = prechecks.map(|precheck| {
            (
                precheck.required,
                Head::of_request(&precheck.request, false),
            )
        });
        let mut decided = Decided {
            verdict,
            prechecks: prechecks.collect(),
            request: Some(Head::of_request(&forward.request, is_document)),
            is_document,
            ..Decided::default()
        };
        if let PayloadPlan::Object(plan) = &forward.payload {
            let length = plan.declared.length;
            decided.length = Some(length.unwrap_or(BODY.len() as u64));
            decided.is_too_long = length.is_none() && BODY.len() > plan.max_spooled;
        }
        decided
    }

    /// What `cosgate explain` says, and the head that COS would get.
    fn explained(
        &self,
        case: &Case,
        head: &Parts,
        is_document: bool,
    ) -> (String, Refused, Option<Head>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cosgate"));
        command.args(["explain", "--format", "json", "--config"]);
        command.arg(&self.file);
        match case.caller {
            Caller::Acme => command.args(["--tenant", "acme"]),
            Caller::Globex => command.args(["--tenant", "globex"]),
            Caller::Anonymous => command.arg("--anonymous"),
        };
        for (name, value) in &head.headers {
            let value = value.to_str().unwrap();
            command.args(["-H", &format!("{name}: {value}")]);
        }
        command.args([head.method.as_str(), &head.uri.to_string()]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let wrong = String::from_utf8_lossy(&output.stderr);
        let printed: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{wrong}"));
        let last = printed["steps"].as_array().unwrap().last().unwrap();
        let refused = last["refused"]["code"].as_str().map(|code| {
            let step = last["step"].as_str().unwrap().to_owned();
            (step, code.to_owned())
        });
        let shown = printed.get("upstream").map(|shown| {
            let headers = shown["headers"].as_array().unwrap().iter();
            let headers = headers.map(|pair| {
                let text = |at: usize| pair[at].as_str().unwrap().replace("\\\"", "\"");
                (text(0), text(1))
            });
            let text = |name: &str| shown[name].as_str().unwrap();
            Head::new(text("method"), text("target"), headers, is_document)
        });
        let verdict = printed["verdict"].as_str().unwrap().to_owned();
        (verdict, refused, shown)
    }

    /// What the running proxy does; the heads that COS got, as text, and the response.
    fn served(&self, call: &Call) -> (Value, Vec<String>) {
        let before = self.scripted.script.heads().len();
        let reply = call.send();
        let id = reply.header("x-amz-request-id").unwrap();
        self.scripted.gateway.log.assert_contains(id);
        let text = self.scripted.gateway.log.text();
        let line = text.lines().find(|line| line.contains(id)).unwrap();
        let heads = self.scripted.script.heads().split_off(before);
        (serde_json::from_str(line).unwrap(), heads)
    }

    /// Checks that all three ways of `case` end alike; gives the end, in words.
    fn check(&self, case: &Case) -> String {
        let call = case.call(self.scripted.gateway.addr);
        let head = parts(&call.head());
        let decided = self.decided(case, &head);

        let (verdict, refused, shown) = self.explained(case, &head, decided.is_document);
        assert_eq!(verdict, decided.verdict, "{case:?}");
        assert_eq!(refused, decided.refused, "{case:?}");
        let masked = decided.request.clone().map(Head::masked);
        assert_eq!(shown, masked, "{case:?}");

        // No body follows: a proxy that accepts the head waits for it.
        if matches!(case.body, Body::Announced(_)) && decided.request.is_some() {
            return "waits for the body".to_owned();
        }
        let (line, heads) = self.served(&call);
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let is_refused = line["verdict"] == "refused";
        let last = heads.len().saturating_sub(1);
        let received = heads.iter().enumerate();
        let received =
            received.map(|(at, text)| Head::of_text(text, decided.is_document && at == last));
        let served = Served {
            verdict: text("verdict"),
            refused: is_refused.then(|| (text("step"), text("code"))),
            upstream: received.collect(),
        };
        assert_eq!(served, decided.served(), "{case:?}: {line}");
        if let (Some(length), Some(last)) = (decided.length, heads.last())
            && last.starts_with("PUT")
        {
            let printed = header_of(last, "content-length");
            assert_eq!(printed, Some(length.to_string().as_str()), "{case:?}");
        }
        match served.refused {
            Some((step, _)) => step,
            None if decided.prechecks.is_empty() => served.verdict,
            None => "allowed with a precheck".to_owned(),
        }
    }
}

fn loopback() -> Connection {
    Connection {
        loopback: true,
        tls: false,
        certificate: None,
        user: None,
        address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
    }
}

/// The typed head of these bytes.
fn parts(bytes: &[u8]) -> Parts {
    let text = std::str::from_utf8(bytes).unwrap();
    let (line, headers) = text.split_once("\r\n").unwrap();
    let mut line = line.split(' ');
    let mut request = http::Request::builder()
        .method(line.next().unwrap())
        .uri(line.next().unwrap());
    for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn decides_explains_and_serves_alike() {
    let settings = [
        Setting::new("signature = \"s3\""),
        Setting::new(
            "signature = \"cos\"\nspool_unknown_length = \"64KiB\"\nstored_check = \"md5\"",
        ),
    ];
    let strategy = (0..settings.len(), case())
        .prop_filter("its body decides", |(_, case)| !case.is_decided_by_body());
    let config = ProptestConfig {
        cases: CASES,
        max_shrink_iters: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ends = RefCell::new(BTreeMap::<String, u32>::new());
    let mut runner = TestRunner::new(config);
    let run = runner.run(&strategy, |(setting, case)| {
        let end = settings[setting].check(&case);
        *ends.borrow_mut().entry(end).or_default() += 1;
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    let ends = ends.into_inner();
    for end in [
        "allowed",
        "allowed with a precheck",
        "parse",
        "authorize",
        "payload",
    ] {
        assert!(ends.contains_key(end), "none {end}: {ends:?}");
    }
}
