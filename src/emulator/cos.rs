//! The embedded COS: checks a request as the real one does before it reads an object.

use std::sync::Arc;

use http::header::{AUTHORIZATION, DATE, ETAG, EXPECT, HeaderValue};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use s3s::Body;
use s3s::service::S3Service;

use crate::emulator::address::HostKind;
use crate::emulator::behaviour::{Behaviours, CosBehaviour};
use crate::emulator::convert::CRC64;
use crate::emulator::counters::Counters;
use crate::emulator::document::{has_parameter, is_document, read_document};
use crate::emulator::fault_body::{BodyBreak, BrokenBody, FlippedBody, PacedBody};
use crate::emulator::fault_switch::{Circumstances, FaultSwitch, MetFaults};
use crate::emulator::fault_target::FaultTarget;
use crate::emulator::faults::{CosFault, FaultService};
use crate::emulator::form::SignedForm;
use crate::emulator::gate::RequestFacts;
use crate::emulator::head::{
    DecodedTarget, PathStyle, SignatureKind, check_acls, check_head, check_signed_headers, facts,
    find_signature, header, path_in_bucket, without_repeats,
};
use crate::emulator::keys::{AccountKey, AccountKeys};
use crate::emulator::native::Coverage;
use crate::emulator::response::{CosError, to_cos_response};
use crate::emulator::store::Store;
use crate::emulator::wire::{ArrivingBody, Cut, WirePeer};
use crate::emulator::{REGION, clock, native};
use crate::sign::Signable;
use crate::sign::cos::CosClaim;
use crate::sign::sigv4::{CredentialScope, SigV4Claim, SigningKey};
use crate::timestamp::Timestamp;

/// Maximum lifetime of a presigned URL in seconds.
const PRESIGNED_LIMIT: u32 = 7 * 86_400;

/// Maximum difference in seconds between a request's time and the clock. COS publishes none; this is S3's.
const SKEW_LIMIT: i64 = 15 * 60;

/// The embedded COS.
pub(super) struct Cos {
    pub(super) counters: Arc<Counters>,
    pub(super) faults: Arc<FaultSwitch>,
    pub(super) keys: Arc<AccountKeys>,
    /// Whether requests with any other Host are accepted, with the bucket in the path.
    pub(super) path_style: bool,
    pub(super) s3: S3Service,
    /// The same, whenever a request was signed.
    pub(super) s3_of_any_time: S3Service,
    /// Makes hyper write the header names of a response as COS does.
    pub(super) spelling: Extensions,
    pub(super) store: Arc<Store>,
    pub(super) suffix: String,
}

/// What the head of a request names, and the kind of signature that it claims.
struct ClaimedTarget {
    target: DecodedTarget,
    bucket: Option<String>,
    region: String,
    signature: SignatureKind,
    circumstances: Circumstances,
}

impl ClaimedTarget {
    fn is_native(&self) -> bool {
        matches!(
            self.signature,
            SignatureKind::NativeHeader | SignatureKind::NativeQuery
        )
    }
}

/// Applies the faults that come before the response. Gives the body, or the error that a fault demands.
async fn apply_request_faults(
    met: &MetFaults,
    body: Body,
    peer: &WirePeer,
) -> Result<Result<Body, CosError>, Cut> {
    let mut body = match met.bandwidth {
        Some(rate) => Body::http_body_unsync(PacedBody::new(body, rate)),
        None => body,
    };
    for fault in &met.cos {
        let (after, end) = match fault {
            CosFault::Error { status, code } => return Ok(Err(fault_error(*status, code))),
            CosFault::RespondAfterReceived {
                bytes,
                status,
                code,
            } => {
                receive(body, *bytes).await;
                return Ok(Err(fault_error(*status, code)));
            }
            CosFault::Reset => return Err(peer.cut()),
            CosFault::SlowDown => {
                return Ok(Err(CosError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "SlowDown",
                    "Please reduce your request rate.",
                )));
            }
            CosFault::Stall => std::future::pending().await,
            CosFault::FlipAfterReceived(after) => {
                body = Body::http_body_unsync(FlippedBody::new(body, *after));
                continue;
            }
            CosFault::ResetAfterReceived(after) => (*after, BodyBreak::Cut(peer.clone())),
            CosFault::StallAfterReceived(after) => (*after, BodyBreak::Stall),
            CosFault::Behaves(_)
            | CosFault::ExpiredTokenCode
            | CosFault::FlipAfterSent(_)
            | CosFault::PartialListing(_)
            | CosFault::ResetAfterSent(_)
            | CosFault::RevokeKeys
            | CosFault::StallAfterSent(_) => continue,
        };
        body = Body::http_body_unsync(BrokenBody::new(body, after, end));
    }
    Ok(Ok(body))
}

/// Applies the faults that change the response.
fn apply_response_faults(
    mut response: Response<Body>,
    met: &MetFaults,
    peer: &WirePeer,
) -> Response<Body> {
    for fault in &met.cos {
        response = match fault {
            CosFault::FlipAfterSent(after) => {
                response.map(|body| Body::http_body_unsync(FlippedBody::new(body, *after)))
            }
            CosFault::ResetAfterSent(after) => {
                with_broken_body(response, *after, BodyBreak::Cut(peer.clone()))
            }
            CosFault::StallAfterSent(after) => with_broken_body(response, *after, BodyBreak::Stall),
            _ => response,
        };
    }
    match met.bandwidth {
        Some(rate) => response.map(|body| Body::http_body_unsync(PacedBody::new(body, rate))),
        None => response,
    }
}

fn fault_error(status: u16, code: &str) -> CosError {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    CosError::new(status, code.to_owned(), "A fault on demand.")
}

/// Reads at least `bytes` of a body, or the whole body.
async fn receive(mut body: Body, bytes: u64) {
    let mut received = 0;
    while received < bytes
        && let Some(Ok(frame)) = body.frame().await
    {
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}

impl Cos {
    /// Responds to one request, or cuts its connection when a fault says so.
    pub(super) async fn respond(
        &self,
        request: Request<ArrivingBody>,
        peer: WirePeer,
    ) -> Result<Response<Body>, Cut> {
        let (mut head, body) = request.into_parts();
        self.counters.cos_request(&head);
        let host = header(&head, "host").unwrap_or_default().to_owned();
        let kind = HostKind::parse(&host, &self.suffix);
        if self.path_style && matches!(kind, None | Some(HostKind::Region(_))) {
            head.extensions.extend(path_style(&head));
        }
        let resource = format!("{host}{}", head.uri.path());
        let method = head.method.clone();

        let target = || self.fault_target(&head, &host);
        let met = self.faults.meet(FaultService::Cos, target);
        met.revoked.iter().for_each(|keys| self.keys.forget(keys));
        if !met.latency.is_zero() {
            tokio::time::sleep(met.latency).await;
        }
        let takes_path_style = met.behaviours.has(CosBehaviour::AcceptsPathStyle);
        if takes_path_style && matches!(kind, Some(HostKind::Region(_))) {
            head.extensions.extend(path_style(&head));
        }
        if let Some(refusal) = refused_at_once(&head, &peer, met.behaviours) {
            return Ok(refusal.into_response(&method, &resource));
        }
        let body = match apply_request_faults(&met, Body::http_body_unsync(body), &peer).await? {
            Ok(body) => SignedForm::take(&mut head, body, met.behaviours).await,
            refused => refused,
        };
        let body = match body {
            Ok(body) => body,
            Err(refusal) => return Ok(refusal.into_response(&method, &resource)),
        };
        let claimed = self.claimed(&head, &host, met.circumstances(clock()));
        let is_native = claimed.as_ref().is_ok_and(ClaimedTarget::is_native);
        let admitted = claimed.and_then(|claimed| self.admit(head, claimed, &peer));
        let mut response = match admitted {
            Ok(head) => self.act(head, body, &resource).await,
            Err(refusal) => refusal.into_response(&method, &resource),
        };
        if peer.is_cut() {
            return Err(Cut);
        }
        tell_digests(response.headers_mut(), met.behaviours);
        if is_native {
            native::from_s3(response.headers_mut());
        }
        response.extensions_mut().extend(self.spelling.clone());
        if met.has_wrong_clock()
            && let Ok(date) = HeaderValue::from_str(&met.circumstances(clock()).now.http_date())
        {
            response.headers_mut().insert(DATE, date);
        }
        Ok(apply_response_faults(response, &met, &peer))
    }

    /// The properties of a request that decide which faults it meets.
    fn fault_target(&self, head: &Parts, host: &str) -> FaultTarget {
        let bucket = match HostKind::parse(host, &self.suffix) {
            Some(HostKind::Bucket { name, .. }) => Some(name),
            _ => (head.extensions.get::<PathStyle>()).map(|split| split.bucket.clone()),
        };
        FaultTarget::of_cos(head, bucket, |id| self.keys.session(id))
    }

    /// What the head names, before its signature is verified.
    fn claimed(
        &self,
        head: &Parts,
        host: &str,
        circumstances: Circumstances,
    ) -> Result<ClaimedTarget, CosError> {
        let target = DecodedTarget::of(head)?;
        let (bucket, region) = self.locate(host, head, &target)?;
        check_head(head, circumstances.behaviours)?;
        let signature = match head.extensions.get::<SignedForm>() {
            Some(_) => SignatureKind::Form,
            None => find_signature(head, &target)?,
        };
        Ok(ClaimedTarget {
            target,
            bucket,
            region,
            signature,
            circumstances,
        })
    }

    /// Makes every other check of the head. A native request is translated to S3's headers.
    fn admit(
        &self,
        mut head: Parts,
        claimed: ClaimedTarget,
        peer: &WirePeer,
    ) -> Result<Parts, CosError> {
        let key = self.signer(&mut head, &claimed)?;
        let mut verified = claimed.is_native();
        let ClaimedTarget {
            mut target,
            bucket,
            region,
            circumstances,
            ..
        } = claimed;
        if let Some(uri) = without_repeats(&head.uri, circumstances.behaviours) {
            if !verified {
                verify_sigv4(&mut head, &target, &key)?;
                verified = true;
            }
            head.uri = uri;
            target = DecodedTarget::of(&head)?;
        }
        let account = key.appid().to_owned();
        let facts = RequestFacts {
            other_accounts: self.keys.others(&account),
            key: match key {
                AccountKey::Temporary(key)
                    if !(circumstances.behaviours).has(CosBehaviour::IgnoresPolicies) =>
                {
                    Some(key)
                }
                AccountKey::Permanent(_) | AccountKey::Temporary(_) => None,
            },
            verified,
            host: header(&head, "host").unwrap_or_default().to_owned(),
            bucket: bucket.clone(),
            appid: match &bucket {
                Some(name) => name
                    .rsplit_once('-')
                    .map_or(name.as_str(), |(_, appid)| appid)
                    .to_owned(),
                None => account,
            },
            source_region: self.source_region(&head).unwrap_or_else(|| region.clone()),
            region,
            page: circumstances.page,
            behaviours: circumstances.behaviours,
            prefix: target.get("prefix").unwrap_or_default().to_owned(),
            facts: facts(&head, &target, peer.address.ip()),
        };
        head.extensions.insert(facts);
        Ok(head)
    }

    /// The valid key of the request's signature. A native request is verified, and translated to S3's headers.
    fn signer(&self, head: &mut Parts, claimed: &ClaimedTarget) -> Result<AccountKey, CosError> {
        let ClaimedTarget {
            target,
            bucket,
            signature,
            circumstances,
            ..
        } = claimed;
        match signature {
            SignatureKind::Form => {
                let form = head.extensions.get::<SignedForm>();
                let form = form.ok_or_else(native::malformed)?;
                self.find_key(&form.key_id, form.token.as_deref(), *circumstances)
            }
            SignatureKind::NativeHeader | SignatureKind::NativeQuery => {
                let coverage = match signature {
                    SignatureKind::NativeQuery => Coverage::Presigned,
                    _ if bucket.is_none() => Coverage::Service,
                    _ => Coverage::Full,
                };
                let key = self.admit_native(head, target, coverage, *circumstances)?;
                check_acls(head, circumstances.behaviours)?;
                native::to_s3(head, &self.suffix, circumstances.behaviours)?;
                Ok(key)
            }
            SignatureKind::SigV4Header => self.admit_sigv4(head, target, false, *circumstances),
            SignatureKind::SigV4Query => self.admit_sigv4(head, target, true, *circumstances),
        }
    }

    /// The bucket and the region that the Host names.
    fn locate(
        &self,
        host: &str,
        head: &Parts,
        target: &DecodedTarget,
    ) -> Result<(Option<String>, String), CosError> {
        let no_bucket = || {
            CosError::new(
                StatusCode::NOT_FOUND,
                "NoSuchBucket",
                "The specified bucket does not exist.",
            )
        };
        if let Some(split) = head.extensions.get::<PathStyle>() {
            let region = self.store.bucket(&split.bucket).map(|about| about.region);
            let creates = head.method == Method::PUT
                && split.path == "/"
                && target.query.is_empty()
                && self.keys.can_own(&split.bucket);
            let region = region.or_else(|| creates.then(|| signed_region(head)));
            let region = region.ok_or_else(no_bucket)?;
            return Ok((Some(split.bucket.clone()), region));
        }
        match HostKind::parse(host, &self.suffix) {
            None if self.path_style => Ok((None, String::new())),
            None => Err(no_bucket()),
            Some(HostKind::Service) => Ok((None, String::new())),
            Some(HostKind::Region(region)) if target.path == b"/" => Ok((None, region)),
            Some(HostKind::Region(_)) => Err(CosError::forbidden(
                "PathStyleDomainForbidden",
                "The bucket you are attempting to access must be addressed using COS virtual-styled domain.",
            )),
            Some(HostKind::Bucket { name, region }) => {
                let creates =
                    head.method == Method::PUT && target.path == b"/" && target.query.is_empty();
                match self.store.bucket(&name) {
                    Some(about) if about.region == region => Ok((Some(name), region)),
                    None if creates && self.keys.can_own(&name) => Ok((Some(name), region)),
                    Some(_) | None => Err(no_bucket()),
                }
            }
        }
    }

    /// The region of the bucket that a copy reads from.
    fn source_region(&self, head: &Parts) -> Option<String> {
        let source = header(head, "x-amz-copy-source")?;
        let (bucket, _) = source.strip_prefix('/').unwrap_or(source).split_once('/')?;
        Some(self.store.bucket(bucket)?.region)
    }

    fn admit_native(
        &self,
        head: &Parts,
        target: &DecodedTarget,
        coverage: Coverage,
        circumstances: Circumstances,
    ) -> Result<AccountKey, CosError> {
        let in_query = coverage == Coverage::Presigned;
        let claim = if in_query {
            CosClaim::from_query(&target.query).ok().flatten()
        } else {
            head.headers
                .get(AUTHORIZATION)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| CosClaim::from_authorization(v).ok())
        };
        let claim = claim.ok_or_else(native::malformed)?;
        let token = if in_query {
            target.get(native::TOKEN)
        } else {
            header(head, native::TOKEN)
        };
        let key = self.find_key(claim.secret_id, token, circumstances)?;
        let signable = Signable {
            method: head.method.as_str(),
            path: &target.path,
            query: &target.query,
            headers: &head.headers,
        };
        native::verify(&claim, &signable, key.secret(), coverage, circumstances)?;
        Ok(key)
    }

    /// Checks a SigV4 request except its signature, which `s3s` verifies.
    fn admit_sigv4(
        &self,
        head: &Parts,
        target: &DecodedTarget,
        in_query: bool,
        circumstances: Circumstances,
    ) -> Result<AccountKey, CosError> {
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
                return Err(CosError::bad_request(
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
        let credential = credential.filter(|text| text.ends_with("/s3/aws4_request"));
        let (Some(credential), Some(signed)) = (credential, signed) else {
            return Err(CosError::bad_request(
                "InvalidArgument",
                "The authorization is not of its form",
            ));
        };
        let id = credential.split('/').next().unwrap_or_default();
        let behaves = |behaviour| circumstances.behaviours.has(behaviour);
        if !behaves(CosBehaviour::AcceptsUnsignedHeaders) {
            check_signed_headers(head, signed, in_query)?;
        }
        if !behaves(CosBehaviour::IgnoresTime) {
            let signed_at = header(head, "x-amz-date").filter(|_| !in_query);
            check_time(signed_at, circumstances.now)?;
        }
        self.find_key(id, token, circumstances)
    }

    /// The valid key `id`, whose token must be `token`.
    fn find_key(
        &self,
        id: &str,
        token: Option<&str>,
        circumstances: Circumstances,
    ) -> Result<AccountKey, CosError> {
        let unknown = || {
            CosError::forbidden(
                "InvalidAccessKeyId",
                "The Access Key Id you provided does not exist in our records",
            )
        };
        let key = self.keys.find(id).ok_or_else(unknown)?;
        let AccountKey::Temporary(temporary) = &key else {
            return if token.is_none() {
                Ok(key)
            } else {
                Err(unknown())
            };
        };
        let behaves = |behaviour| circumstances.behaviours.has(behaviour);
        if token != Some(temporary.token.expose()) && !behaves(CosBehaviour::IgnoresTokens) {
            return Err(if behaves(CosBehaviour::DeniesWrongTokens) {
                CosError::forbidden("AccessDenied", "Access Denied.")
            } else {
                unknown()
            });
        }
        if temporary.expires <= circumstances.now && !behaves(CosBehaviour::IgnoresExpiry) {
            if circumstances.expired_token_code {
                return Err(CosError::bad_request(
                    "ExpiredToken",
                    "The provided token has expired.",
                ));
            }
            return Err(unknown());
        }
        Ok(key)
    }

    /// Lets `s3s` verify, authorize and carry out the request.
    async fn act(&self, head: Parts, mut body: Body, resource: &str) -> Response<Body> {
        let method = head.method.clone();
        let key_id = header(&head, "authorization")
            .and_then(|a| a.split_once("Credential="))
            .map(|(_, c)| c.to_owned());
        if is_document(&head) {
            match read_document(&head, body).await {
                Ok(xml) => body = Body::from(xml),
                Err(refusal) => return refusal.into_response(&method, resource),
            }
        }
        let is_result = names_result(&head);
        let request = Request::from_parts(head, body);
        let facts = request.extensions().get::<RequestFacts>();
        let ignores_time =
            facts.is_some_and(|facts| facts.behaviours.has(CosBehaviour::IgnoresTime));
        let s3 = if ignores_time {
            &self.s3_of_any_time
        } else {
            &self.s3
        };
        let Ok(response) = s3.call(request).await else {
            let refusal = CosError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "The emulator failed.",
            );
            return refusal.into_response(&method, resource);
        };
        if response.status() == StatusCode::FORBIDDEN {
            let refusal = CosError::from_s3s(
                response.status(),
                &response.body().bytes().unwrap_or_default(),
            );
            // The real COS repeats the string to sign. A test can then show that the proxy does not pass it on.
            let echo = key_id
                .filter(|_| refusal.code() == "SignatureDoesNotMatch")
                .unwrap_or_default();
            let refusal = if echo.is_empty() {
                refusal
            } else {
                refusal.with("StringToSign", &echo)
            };
            return refusal.into_response(&method, resource);
        }
        to_cos_response(response, &method, resource, is_result)
    }
}

/// The error for what some stores refuse before they look at anything else.
fn refused_at_once(head: &Parts, peer: &WirePeer, behaviours: Behaviours) -> Option<CosError> {
    if behaviours.has(CosBehaviour::RefusesExpect) && head.headers.contains_key(EXPECT) {
        let (code, message) = ("ExpectationFailed", "The expectation is not supported.");
        return Some(CosError::new(StatusCode::EXPECTATION_FAILED, code, message));
    }
    let refuses_case = behaviours.has(CosBehaviour::RefusesUpperCaseMetadata);
    (refuses_case && peer.has_upper_case_metadata()).then(|| {
        let message = "The name of metadata may not contain upper-case letters.";
        CosError::bad_request("InvalidArgument", message)
    })
}

/// Verifies a SigV4 header here, and removes it: `s3s` accepts no parameter that is sent twice.
fn verify_sigv4(
    head: &mut Parts,
    target: &DecodedTarget,
    key: &AccountKey,
) -> Result<(), CosError> {
    let claim = SigV4Claim::from_headers(&head.headers).ok().flatten();
    let claim = claim.ok_or_else(native::malformed)?;
    let signable = Signable {
        method: head.method.as_str(),
        path: &target.path,
        query: &target.query,
        headers: &head.headers,
    };
    let CredentialScope {
        date,
        region,
        service,
    } = claim.scope;
    let signing = SigningKey::derive(key.secret(), date, region, service);
    let payload = header(head, "x-amz-content-sha256").unwrap_or_default();
    if !claim.verify(&signable, &signing, payload) {
        let message = "The Signature you specified is invalid.";
        return Err(CosError::forbidden("SignatureDoesNotMatch", message));
    }
    head.headers.remove(AUTHORIZATION);
    Ok(())
}

/// Where the target names a bucket in its path.
fn path_style(head: &Parts) -> Extensions {
    let mut extensions = Extensions::new();
    if let Some(split) = PathStyle::of(head.uri.path()) {
        extensions.insert(split);
    }
    extensions
}

/// Changes what a response tells of the stored bytes.
fn tell_digests(headers: &mut HeaderMap, behaviours: Behaviours) {
    let (no_digest, no_crc) = (CosBehaviour::TellsNoDigest, CosBehaviour::TellsNoCrc64);
    if behaviours.has(no_digest) || behaviours.has(no_crc) {
        headers.remove(CRC64);
    }
    if behaviours.has(no_digest) && headers.contains_key(ETAG) {
        headers.insert(ETAG, HeaderValue::from_static("\"of-no-digest\""));
    }
    if behaviours.has(CosBehaviour::TellsWrongCrc64) && headers.contains_key(CRC64) {
        headers.insert(CRC64, HeaderValue::from_static("1"));
    }
}

/// The region in a signature of S3. A path-style request creates its bucket there.
fn signed_region(head: &Parts) -> String {
    let authorization = header(head, "authorization").unwrap_or_default();
    let credential = authorization
        .split_once("Credential=")
        .map(|(_, rest)| rest);
    let region = credential.and_then(|credential| credential.split('/').nth(2));
    region.unwrap_or(REGION).to_owned()
}

/// Refuses a request that was signed at a distant time (436/7730).
fn check_time(signed_at: Option<&str>, now: Timestamp) -> Result<(), CosError> {
    let Some(signed_at) = signed_at.and_then(Timestamp::parse_amz) else {
        return Ok(()); // `s3s` refuses an invalid time
    };
    if now.since(signed_at).abs() <= SKEW_LIMIT {
        return Ok(());
    }
    let refusal = CosError::forbidden(
        "RequestTimeTooSkewed",
        "The difference between the request time and the server's time is too large.",
    );
    Err(refusal.with("ServerTime", &now.iso8601()))
}

/// Whether the response is a document of COS's own and not an object.
fn names_result(head: &Parts) -> bool {
    let query = head.uri.query().unwrap_or_default();
    let reads_object = head.method == Method::GET
        && path_in_bucket(&head.extensions, &head.uri) != "/"
        && !["tagging", "uploadId"]
            .iter()
            .any(|name| has_parameter(query, name));
    !reads_object
}

fn with_broken_body(response: Response<Body>, after: u64, end: BodyBreak) -> Response<Body> {
    response.map(|body| Body::http_body_unsync(BrokenBody::new(body, after, end)))
}
