//! The front of the embedded COS: what the real one checks before it looks at an object.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use md5::{Digest as _, Md5};
use s3s::Body;
use s3s::service::S3Service;
use sha2::Sha256;

use crate::emulator::address::Address;
use crate::emulator::answer::{Refusal, dress};
use crate::emulator::counters::Counters;
use crate::emulator::faults::{CosFault, FaultSwitch};
use crate::emulator::gate::Asked;
use crate::emulator::keys::{Key, Keys};
use crate::emulator::store::{Store, hex};
use crate::emulator::wire::{Breaks, BrokenBody, Cut, Peer};
use crate::emulator::{clock, native};
use crate::sign::Signable;
use crate::sign::cos::Claim;
use crate::sign::encoding::{percent_decode, push_encoded};

/// A key's bytes at most (436/13324).
const KEY_LIMIT: usize = 850;
/// One metadata entry's bytes, and those of all together (436/7749).
const METADATA_LIMIT: usize = 2048;
const METADATA_TOTAL: usize = 4096;
/// An XML body's bytes at most.
const XML_LIMIT: usize = 4 * 1024 * 1024;
/// A presigned URL lives at most this many seconds.
const PRESIGNED_LIMIT: u32 = 7 * 86_400;

/// The embedded COS.
pub(super) struct Cos {
    pub(super) appid: String,
    pub(super) counters: Arc<Counters>,
    pub(super) faults: Arc<FaultSwitch>,
    pub(super) keys: Arc<Keys>,
    pub(super) s3: S3Service,
    pub(super) store: Arc<Store>,
    pub(super) suffix: String,
}

/// A request's target, decoded.
struct Target {
    path: Vec<u8>,
    query: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

/// Where a signature was found.
enum Signature {
    NativeHeader,
    NativeQuery,
    SigV4Header,
    SigV4Query,
}

impl Cos {
    /// Answers one request, or cuts its connection when a fault says so.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<Body>, Cut> {
        let (mut head, body) = request.into_parts();
        self.counters.cos_request(&head);
        tokio::time::sleep(Duration::from_millis(self.faults.current().cos_latency_ms)).await;
        let host = head
            .headers
            .get(HOST)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let resource = format!("{host}{}", head.uri.path());
        let method = head.method.clone();

        let fault = self.faults.next_cos();
        let mut body = Body::from(body);
        match &fault {
            None | Some(CosFault::ResetAfterSent(_) | CosFault::StallAfterSent(_)) => {}
            Some(CosFault::Error { status, code }) => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let refusal = Refusal::new(status, code.clone(), "A fault on demand.");
                return Ok(refusal.into_answer(&method, &resource));
            }
            Some(CosFault::Reset) => return Err(peer.cut()),
            Some(CosFault::ResetAfterReceived(after)) => {
                body = Body::http_body_unsync(BrokenBody::new(
                    body,
                    *after,
                    Breaks::Cut(peer.clone()),
                ));
            }
            Some(CosFault::SlowDown) => {
                let refusal = Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "SlowDown",
                    "Please reduce your request rate.",
                );
                return Ok(refusal.into_answer(&method, &resource));
            }
            Some(CosFault::Stall) => std::future::pending().await,
        }

        let mut is_native = false;
        let answer = match self.admit(&mut head, &host, &peer, &mut is_native) {
            Ok(()) => self.act(head, body, &resource).await,
            Err(refusal) => refusal.into_answer(&method, &resource),
        };
        if peer.is_cut() {
            return Err(Cut);
        }
        let mut answer = answer;
        if is_native {
            native::from_s3(answer.headers_mut());
        }
        Ok(match fault {
            Some(CosFault::ResetAfterSent(after)) => breaking(answer, after, Breaks::Cut(peer)),
            Some(CosFault::StallAfterSent(after)) => breaking(answer, after, Breaks::Stall),
            _ => answer,
        })
    }

    /// Everything that the head alone decides. A native request comes out in S3's words.
    fn admit(
        &self,
        head: &mut Parts,
        host: &str,
        peer: &Peer,
        is_native: &mut bool,
    ) -> Result<(), Refusal> {
        let target = Target::of(head)?;
        let (bucket, region) = self.locate(host, head, &target)?;
        check_key(&target.path)?;
        check_framing(head)?;
        check_metadata(head)?;
        let signature = find_signature(head, &target)?;
        *is_native = matches!(signature, Signature::NativeHeader | Signature::NativeQuery);
        let key = match signature {
            Signature::NativeHeader | Signature::NativeQuery => {
                let key =
                    self.admit_native(head, &target, matches!(signature, Signature::NativeQuery))?;
                native::to_s3(head, &self.suffix)?;
                key
            }
            Signature::SigV4Header | Signature::SigV4Query => {
                self.admit_sigv4(head, &target, matches!(signature, Signature::SigV4Query))?
            }
        };
        let asked = Asked {
            key: match key {
                Key::Permanent(_) => None,
                Key::Temporary(key) => Some(key),
            },
            verified: *is_native,
            host: host.to_owned(),
            appid: match &bucket {
                Some(name) => name
                    .rsplit_once('-')
                    .map_or(name.as_str(), |(_, appid)| appid)
                    .to_owned(),
                None => self.appid.clone(),
            },
            region,
            prefix: target.get("prefix").unwrap_or_default().to_owned(),
            facts: facts(head, &target, peer),
        };
        head.extensions.insert(asked);
        Ok(())
    }

    /// The bucket and the region that the Host names.
    fn locate(
        &self,
        host: &str,
        head: &Parts,
        target: &Target,
    ) -> Result<(Option<String>, String), Refusal> {
        let no_bucket = || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "NoSuchBucket",
                "The specified bucket does not exist.",
            )
        };
        match Address::parse(host, &self.suffix) {
            None => Err(no_bucket()),
            Some(Address::Service) => Ok((None, String::new())),
            Some(Address::Region(region)) if target.path == b"/" => Ok((None, region)),
            Some(Address::Region(_)) => Err(Refusal::forbidden(
                "PathStyleDomainForbidden",
                "The bucket you are attempting to access must be addressed using COS virtual-styled domain.",
            )),
            Some(Address::Bucket { name, region }) => {
                let creates =
                    head.method == Method::PUT && target.path == b"/" && target.query.is_empty();
                match self.store.bucket(&name) {
                    Some(about) if about.region == region => Ok((Some(name), region)),
                    None if creates && name.ends_with(&format!("-{}", self.appid)) => {
                        Ok((Some(name), region))
                    }
                    Some(_) | None => Err(no_bucket()),
                }
            }
        }
    }

    fn admit_native(&self, head: &Parts, target: &Target, in_query: bool) -> Result<Key, Refusal> {
        let claim = if in_query {
            Claim::from_query(&target.query).ok().flatten()
        } else {
            head.headers
                .get(AUTHORIZATION)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| Claim::from_authorization(v).ok())
        };
        let claim = claim.ok_or_else(native::malformed)?;
        let token = match in_query {
            true => target.get(native::TOKEN),
            false => header(head, native::TOKEN),
        };
        let key = self.find_key(claim.secret_id, token)?;
        let signable = Signable {
            method: head.method.as_str(),
            path: &target.path,
            query: &target.query,
            headers: &head.headers,
        };
        native::verify(&claim, &signable, key.secret(), in_query, clock())?;
        Ok(key)
    }

    /// Checks all of a SigV4 request but the signature itself, which is for `s3s` to verify.
    fn admit_sigv4(&self, head: &Parts, target: &Target, in_query: bool) -> Result<Key, Refusal> {
        let malformed =
            || Refusal::bad_request("InvalidArgument", "The authorization is not of its form");
        let authorization = header(head, "authorization").unwrap_or_default();
        let field = |name: &str| {
            let fields = authorization.strip_prefix("AWS4-HMAC-SHA256")?;
            fields
                .split(',')
                .find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (credential, signed, token) = if in_query {
            let expires = target
                .get("X-Amz-Expires")
                .and_then(|e| e.parse::<u32>().ok());
            if expires.is_none_or(|e| e == 0 || e > PRESIGNED_LIMIT) {
                return Err(Refusal::bad_request(
                    "InvalidArgument",
                    "X-Amz-Expires must be 1 to 604800 seconds",
                ));
            }
            let token = target.get("X-Amz-Security-Token");
            (
                target.get("X-Amz-Credential"),
                target.get("X-Amz-SignedHeaders"),
                token,
            )
        } else {
            (
                field("Credential"),
                field("SignedHeaders"),
                header(head, "x-amz-security-token"),
            )
        };
        let (credential, signed) = (
            credential.ok_or_else(malformed)?,
            signed.ok_or_else(malformed)?,
        );
        let id = credential.split('/').next().unwrap_or_default();
        let is_signed = |name: &str| signed.split(';').any(|s| s == name);
        let unsigned = head
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .find(|name| {
                let exempt = in_query && *name == "x-amz-content-sha256";
                (*name == "host" || name.starts_with("x-amz-")) && !exempt && !is_signed(name)
            });
        if let Some(name) = unsigned {
            let message =
                format!("There were headers present in the request which were not signed: {name}");
            return Err(Refusal::forbidden("AccessDenied", message));
        }
        self.find_key(id, token)
    }

    /// The live key `id`, whose token must be `token`.
    fn find_key(&self, id: &str, token: Option<&str>) -> Result<Key, Refusal> {
        let unknown = || {
            Refusal::forbidden(
                "InvalidAccessKeyId",
                "The Access Key Id you provided does not exist in our records",
            )
        };
        let key = self.keys.find(id).ok_or_else(unknown)?;
        let Key::Temporary(temporary) = &key else {
            return if token.is_none() {
                Ok(key)
            } else {
                Err(unknown())
            };
        };
        if token != Some(temporary.token.expose()) {
            return Err(unknown());
        }
        if temporary.expires <= clock() {
            return Err(match self.faults.current().expired_token_code {
                true => Refusal::bad_request("ExpiredToken", "The provided token has expired."),
                false => unknown(),
            });
        }
        Ok(key)
    }

    /// Lets `s3s` verify, authorize and do what was asked.
    async fn act(&self, head: Parts, mut body: Body, resource: &str) -> Response<Body> {
        let method = head.method.clone();
        let key_id = header(&head, "authorization")
            .and_then(|a| a.split_once("Credential="))
            .map(|(_, c)| c.to_owned());
        if has_xml_body(&head) {
            match read_xml(&head, body).await {
                Ok(xml) => body = Body::from(xml),
                Err(refusal) => return refusal.into_answer(&method, resource),
            }
        }
        let request = Request::from_parts(head, body);
        let Ok(answer) = self.s3.call(request).await else {
            let refusal = Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "The emulator failed.",
            );
            return refusal.into_answer(&method, resource);
        };
        if answer.status() == StatusCode::FORBIDDEN {
            let refusal =
                Refusal::of_s3s(answer.status(), &answer.body().bytes().unwrap_or_default());
            // The real one repeats who signed what; so that a test can show that nobody passes it on.
            let echo = key_id
                .filter(|_| refusal.code() == "SignatureDoesNotMatch")
                .unwrap_or_default();
            let refusal = if echo.is_empty() {
                refusal
            } else {
                refusal.with("StringToSign", &echo)
            };
            return refusal.into_answer(&method, resource);
        }
        dress(answer, &method, resource)
    }
}

impl Target {
    fn of(head: &Parts) -> Result<Self, Refusal> {
        let odd = || Refusal::bad_request("InvalidURI", "Could not parse the specified URI.");
        let path = percent_decode(head.uri.path())
            .ok_or_else(odd)?
            .into_owned();
        if std::str::from_utf8(&path).is_err() {
            return Err(odd());
        }
        let text = |raw: &str| {
            let spaced = raw.replace('+', " "); // as COS and S3 read a query
            let bytes = percent_decode(&spaced).map(Cow::into_owned);
            bytes
                .and_then(|b| String::from_utf8(b).ok())
                .map(Cow::Owned)
                .ok_or_else(odd)
        };
        let pairs = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((text(name)?, text(value)?))
        });
        Ok(Self {
            path,
            query: query.collect::<Result<_, Refusal>>()?,
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| &**value)
    }
}

fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Exactly one signature, of a kind that is spoken.
fn find_signature(head: &Parts, target: &Target) -> Result<Signature, Refusal> {
    let mut found = Vec::new();
    for value in head.headers.get_all(AUTHORIZATION) {
        match value.as_bytes() {
            v if v.starts_with(b"AWS4-HMAC-SHA256 ") => found.push(Signature::SigV4Header),
            v if v.starts_with(b"q-") => found.push(Signature::NativeHeader),
            _ => {
                return Err(Refusal::bad_request(
                    "InvalidArgument",
                    "Unsupported Authorization Type",
                ));
            }
        }
    }
    if target.get("X-Amz-Signature").is_some() {
        found.push(Signature::SigV4Query);
    }
    if target.get("q-signature").is_some() {
        found.push(Signature::NativeQuery);
    }
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(Refusal::bad_request(
            "InvalidArgument",
            "Only one authorization is allowed",
        )),
        (None, _) => Err(Refusal::forbidden("AccessDenied", "Access Denied.")),
    }
}

/// Keys: 1 to 850 bytes, not starting with a slash or backslash (436/13324).
fn check_key(path: &[u8]) -> Result<(), Refusal> {
    let key = path.strip_prefix(b"/").unwrap_or_default();
    if key.len() > KEY_LIMIT {
        return Err(Refusal::bad_request("KeyTooLong", "Your key is too long."));
    }
    let controls = key.iter().any(|b| matches!(b, 0 | b'\r' | b'\n' | 24..=27));
    if controls || key.starts_with(b"/") || key.starts_with(b"\\") {
        return Err(Refusal::bad_request(
            "InvalidObjectName",
            "The object name is invalid.",
        ));
    }
    Ok(())
}

/// No aws-chunked body, and a length for every body.
fn check_framing(head: &Parts) -> Result<(), Refusal> {
    let streaming =
        header(head, "x-amz-content-sha256").is_some_and(|v| v.starts_with("STREAMING-"));
    let chunked = header(head, "content-encoding")
        .is_some_and(|v| v.to_ascii_lowercase().contains("aws-chunked"));
    let decoded = head.headers.contains_key("x-amz-decoded-content-length");
    let no_length = !head.headers.contains_key(CONTENT_LENGTH);
    let copies = ["x-amz-copy-source", "x-cos-copy-source"]
        .iter()
        .any(|name| head.headers.contains_key(*name));
    if no_length
        && (head.headers.contains_key(TRANSFER_ENCODING) || (head.method == Method::PUT && !copies))
    {
        let message = "You must provide the Content-Length HTTP header.";
        return Err(Refusal::new(
            StatusCode::LENGTH_REQUIRED,
            "MissingContentLength",
            message,
        ));
    }
    if streaming || chunked || decoded {
        let message = "A header you provided implies functionality that is not implemented";
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            message,
        ));
    }
    Ok(())
}

/// Names `[a-z0-9-]`, 2 KiB each, 4 KiB together (436/7749).
fn check_metadata(head: &Parts) -> Result<(), Refusal> {
    let mut total = 0;
    for (name, value) in &head.headers {
        let name = name.as_str();
        let Some(rest) = name
            .strip_prefix("x-amz-meta-")
            .or_else(|| name.strip_prefix("x-cos-meta-"))
        else {
            continue;
        };
        if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let message = format!("Metadata names are of a-z, 0-9 and -, which {rest} is not");
            return Err(Refusal::bad_request("InvalidArgument", message));
        }
        total += rest.len() + value.len();
        if value.len() > METADATA_LIMIT || total > METADATA_TOTAL {
            return Err(Refusal::bad_request(
                "MetadataTooLarge",
                "Your metadata headers exceed the maximum size.",
            ));
        }
    }
    Ok(())
}

/// The condition keys of a request. Values out of the query are encoded, as policies write them (436/71306).
fn facts(head: &Parts, target: &Target, peer: &Peer) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("qcs:ip", peer.address.ip().to_string()),
        ("cos:secure-transport", "false".to_owned()),
    ];
    let in_query = [
        ("cos:prefix", "prefix"),
        ("cos:versionid", "versionId"),
        ("cos:response-content-type", "response-content-type"),
    ];
    for (fact, name) in in_query {
        if let Some(value) = target.get(name) {
            let mut encoded = String::new();
            push_encoded(&mut encoded, value.as_bytes());
            facts.push((fact, encoded));
        }
    }
    let in_head = [
        ("cos:content-length", CONTENT_LENGTH.as_str()),
        ("cos:content-type", CONTENT_TYPE.as_str()),
        ("cos:x-cos-acl", "x-amz-acl"),
        ("cos:x-cos-forbid-overwrite", "x-amz-forbid-overwrite"),
        ("cos:x-cos-storage-class", "x-amz-storage-class"),
    ];
    facts.extend(
        in_head
            .iter()
            .filter_map(|(fact, name)| Some((*fact, header(head, name)?.to_owned()))),
    );
    facts
}

/// Whether the body is a document rather than an object.
fn has_xml_body(head: &Parts) -> bool {
    let query = head.uri.query().unwrap_or_default();
    match head.method {
        Method::POST => true,
        Method::PUT => {
            head.uri.path() == "/" || has_parameter(query, "tagging") || has_parameter(query, "acl")
        }
        _ => false,
    }
}

/// Reads a whole document and checks it. COS demands Content-MD5 on those that change more than one
/// object (3.6 of its S3 notes); completes and creations go without.
async fn read_xml(head: &Parts, body: Body) -> Result<Bytes, Refusal> {
    let query = head.uri.query().unwrap_or_default();
    let needs_md5 = match head.method {
        Method::POST => has_parameter(query, "delete"),
        _ => !query.is_empty(),
    };
    let claimed = header(head, "content-md5");
    if needs_md5 && claimed.is_none() {
        return Err(Refusal::bad_request(
            "InvalidRequest",
            "Missing required header for this request: Content-MD5",
        ));
    }
    let collected = Limited::new(body, XML_LIMIT).collect().await;
    let bytes = collected.map_err(|e| match e.is::<http_body_util::LengthLimitError>() {
        true => Refusal::bad_request("XMLSizeLimit", "The XML is too large."),
        false => Refusal::bad_request("IncompleteBody", "The body ended early."),
    })?;
    let bytes = bytes.to_bytes();
    if let Some(claimed) = claimed {
        match STANDARD.decode(claimed) {
            Ok(md5) if *md5 == *Md5::digest(&bytes) => {}
            Ok(md5) if md5.len() == 16 => {
                let message = "The Content-MD5 you specified did not match what we received.";
                return Err(Refusal::bad_request("BadDigest", message));
            }
            _ => {
                return Err(Refusal::bad_request(
                    "InvalidDigest",
                    "The Content-MD5 you specified is not valid.",
                ));
            }
        }
    }
    let hash = header(head, "x-amz-content-sha256").filter(|hash| *hash != "UNSIGNED-PAYLOAD");
    if hash.is_some_and(|hash| hash != hex(&Sha256::digest(&bytes))) {
        let message =
            "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(Refusal::bad_request("XAmzContentSHA256Mismatch", message));
    }
    Ok(bytes)
}

fn has_parameter(query: &str, name: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some(name))
}

fn breaking(answer: Response<Body>, after: u64, breaks: Breaks) -> Response<Body> {
    answer.map(|body| Body::http_body_unsync(BrokenBody::new(body, after, breaks)))
}
