//! Requests in every form that a load sends: built and signed as an S3 client does it. Pure.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::scenario::BucketStyle;
use super::tenants::TenantProof;
use super::upload::{Chunking, Slice, UploadBody, UploadChecksum, UploadForm, UploadFraming};
use crate::encoding::hex::{hex, parse_hex32, sha256_hex};
use crate::encoding::percent::{push_encoded, push_encoded_path};
use crate::payload::ChunkSignatures;
use crate::payload::checksum::Digest;
use crate::s3::checksum_name::Algorithm;
use crate::secret::Secret;
use crate::sign::Signable;
use crate::sign::sigv4::{self, CredentialScope, SigV4Signer, SigningKey};
use crate::timestamp::Timestamp;

const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT_SHA256: HeaderName = HeaderName::from_static(sigv4::CONTENT_SHA256);
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("cosgate-load/", env!("CARGO_PKG_VERSION")));
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The lifetime of a presigned URL and of a form's policy.
const PRESIGNED_SECONDS: u32 = 900;
const BOUNDARY: &str = "----cosgate-load-7MA4YWxkTrZu0gW";

/// The destination of requests, as far as it changes their bytes.
#[derive(Clone, Debug)]
pub(super) struct LoadEndpoint {
    /// `https`
    pub(super) is_tls: bool,
    /// `host` or `host:port`, without the bucket.
    pub(super) authority: String,
    /// The position of the bucket's name.
    pub(super) style: BucketStyle,
    /// The region in the signature.
    pub(super) region: String,
    /// Whether the head has HTTP/2's form: a whole URI and no Host.
    pub(super) is_http2: bool,
}

/// The signer of a tenant, with the signing key of the day.
#[derive(Debug)]
pub(super) struct Signer {
    identity: TenantProof,
    region: String,
    key: RefCell<Option<(String, SigningKey)>>,
}

/// A request before it is signed.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// The method.
    pub(super) method: Method,
    /// The bucket.
    pub(super) bucket: &'a str,
    /// The key; empty for the bucket itself.
    pub(super) key: &'a str,
    /// The decoded parameters.
    pub(super) query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Headers other than those of signature and body.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) payload: Payload,
    /// Whether the signature is in the URL.
    pub(super) is_presigned: bool,
}

/// The body of a request.
#[derive(Debug)]
pub(super) enum Payload {
    /// No body.
    Nothing,
    /// A document with its MD5, which S3 requires for `DeleteObjects`.
    Document(String),
    /// A result.
    Json(String),
    /// Content in one of the forms.
    Content(Slice, UploadForm),
}

impl<'a> Draft<'a> {
    /// A request without parameters, headers and body.
    pub(super) fn new(method: Method, bucket: &'a str, key: &'a str) -> Self {
        Self {
            method,
            bucket,
            key,
            query: Vec::new(),
            headers: HeaderMap::new(),
            payload: Payload::Nothing,
            is_presigned: false,
        }
    }

    /// Adds a parameter.
    #[must_use]
    pub(super) fn with(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.query.push((Cow::Borrowed(name), value.into()));
        self
    }

    /// Adds a header. A header that HTTP does not allow is left out.
    #[must_use]
    pub(super) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub(super) fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
}

impl LoadEndpoint {
    /// Reads `http://host:port` or `https://host`.
    pub(super) fn parse(endpoint: &str, style: BucketStyle, region: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{endpoint}` is not an endpoint; write http://HOST:PORT or https://HOST");
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?.as_str();
        if authority.contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            is_tls,
            authority: authority.to_owned(),
            style,
            region: region.to_owned(),
            is_http2: false,
        })
    }

    /// The host of a request for `bucket`.
    pub(super) fn host(&self, bucket: &str) -> String {
        match self.style {
            BucketStyle::Virtual if !bucket.is_empty() => format!("{bucket}.{}", self.authority),
            _ => self.authority.clone(),
        }
    }

    /// The decoded path.
    fn path(&self, bucket: &str, key: &str) -> String {
        match self.style {
            BucketStyle::Virtual => format!("/{key}"),
            BucketStyle::Path if key.is_empty() => format!("/{bucket}"),
            BucketStyle::Path => format!("/{bucket}/{key}"),
        }
    }

    /// `target` is the encoded path and query.
    fn uri(&self, host: &str, target: &str) -> Result<Uri, http::Error> {
        if !self.is_http2 {
            return Ok(Uri::try_from(target)?);
        }
        let scheme = if self.is_tls { "https" } else { "http" };
        Uri::builder()
            .scheme(scheme)
            .authority(host)
            .path_and_query(target)
            .build()
    }
}

impl Signer {
    /// Signs as `identity` for `region`.
    pub(super) fn new(identity: TenantProof, region: &str) -> Self {
        Self {
            identity,
            region: region.to_owned(),
            key: RefCell::new(None),
        }
    }

    /// The signed request.
    pub(super) fn sign(
        &self,
        address: &LoadEndpoint,
        mut draft: Draft<'_>,
        now: Timestamp,
    ) -> Result<Request<UploadBody>, http::Error> {
        let host = address.host(draft.bucket);
        let path = address.path(draft.bucket, draft.key);
        let amz_date = now.amz();
        draft.headers.insert(HOST, HeaderValue::try_from(&host)?);
        let declared = describe(&draft.payload, &mut draft.headers, draft.is_presigned);
        let signed = match &self.identity {
            TenantProof::Anonymous => Signed::Nothing,
            TenantProof::Bearer(token) => {
                draft.headers.insert(AUTHORIZATION, bearer(token)?);
                Signed::Nothing
            }
            TenantProof::Key { id, token, .. } => {
                let account = (id.as_str(), token.as_ref());
                self.sign_with_key(account, &mut draft, &path, (&amz_date, &declared))?
            }
        };
        let (query, seed) = match &signed {
            Signed::Query(query) => (Some(query.as_str()), None),
            Signed::Headers(seed) => (None, *seed),
            Signed::Nothing => (None, None),
        };
        let target = target(&path, &draft.query, query);
        let body = self.body(draft.payload, &amz_date, seed);
        let mut headers = draft.headers;
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.length()));
        headers.insert(USER_AGENT, AGENT);
        let mut request = Request::new(body);
        *request.method_mut() = draft.method;
        *request.uri_mut() = address.uri(&host, &target)?;
        if address.is_http2 {
            headers.remove(HOST);
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Signs the headers, or builds the query of a presigned URL.
    fn sign_with_key(
        &self,
        (id, token): (&str, Option<&Secret>),
        draft: &mut Draft<'_>,
        path: &str,
        (amz_date, declared): (&str, &str),
    ) -> Result<Signed, http::Error> {
        match token {
            Some(token) if draft.is_presigned => {
                let name = Cow::Borrowed("X-Amz-Security-Token");
                draft.query.push((name, token.expose().to_owned().into()));
            }
            Some(token) => {
                let value = HeaderValue::from_str(token.expose())?;
                draft.headers.insert(SECURITY_TOKEN, value);
            }
            None => {}
        }
        if !draft.is_presigned {
            draft
                .headers
                .insert(AMZ_DATE, HeaderValue::from_str(amz_date)?);
            draft
                .headers
                .insert(CONTENT_SHA256, HeaderValue::from_str(declared)?);
        }
        let request = Signable {
            method: draft.method.as_str(),
            path: path.as_bytes(),
            query: &draft.query,
            headers: &draft.headers,
        };
        let text = self.with_key(amz_date, |key, scope| {
            let signer = SigV4Signer {
                access_key: id,
                key,
                scope,
                amz_date,
            };
            if draft.is_presigned {
                signer.presigned_query(&request, PRESIGNED_SECONDS)
            } else {
                signer.authorization(&request, declared)
            }
        });
        if draft.is_presigned {
            return Ok(Signed::Query(text));
        }
        // The authorization ends in the signature, which the first chunk's signature covers.
        let seed = text
            .get(text.len().saturating_sub(64)..)
            .and_then(parse_hex32);
        draft
            .headers
            .insert(AUTHORIZATION, HeaderValue::try_from(text)?);
        Ok(Signed::Headers(seed))
    }

    /// A browser's form that uploads `slice` as `key`.
    ///
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html>
    pub(super) fn form(
        &self,
        address: &LoadEndpoint,
        (bucket, key): (&str, &str),
        slice: Slice,
        now: Timestamp,
    ) -> Result<Request<UploadBody>, http::Error> {
        let fields = self.form_fields((bucket, key), now);
        let mut before = String::new();
        for (name, value) in &fields {
            let _ = write!(
                before,
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        let _ = write!(
            before,
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        let after = format!("\r\n--{BOUNDARY}--\r\n");
        let body = UploadBody::surrounded(before.into(), slice, after.into());
        let host = address.host(bucket);
        let path = match address.style {
            BucketStyle::Path => address.path(bucket, "") + "/",
            BucketStyle::Virtual => "/".to_owned(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = address.uri(&host, &target(&path, &[], None))?;
        let length = request.body().length();
        let headers = request.headers_mut();
        if !address.is_http2 {
            headers.insert(HOST, HeaderValue::try_from(host)?);
        }
        if let TenantProof::Bearer(token) = &self.identity {
            headers.insert(AUTHORIZATION, bearer(token)?);
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(USER_AGENT, AGENT);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::try_from(format!("multipart/form-data; boundary={BOUNDARY}"))?,
        );
        Ok(request)
    }

    /// The fields of a form, signed.
    fn form_fields(
        &self,
        (bucket, key): (&str, &str),
        now: Timestamp,
    ) -> Vec<(&'static str, String)> {
        let amz_date = now.amz();
        let mut fields = vec![("key", key.to_owned())];
        if let TenantProof::Key { id, token, .. } = &self.identity {
            let credential = format!("{id}/{}", self.scope(amz_date.get(..8).unwrap_or_default()));
            fields.push(("x-amz-algorithm", sigv4::ALGORITHM.to_owned()));
            fields.push(("x-amz-credential", credential));
            fields.push(("x-amz-date", amz_date.clone()));
            if let Some(token) = token {
                fields.push(("x-amz-security-token", token.expose().to_owned()));
            }
            let policy = policy(bucket, &fields, now);
            let policy = BASE64_STANDARD.encode(policy);
            let signature = self.with_key(&amz_date, |key, _| hex(&key.sign(policy.as_bytes())));
            fields.push(("policy", policy));
            fields.push(("x-amz-signature", signature));
        }
        fields
    }

    fn body(&self, payload: Payload, amz_date: &str, seed: Option<[u8; 32]>) -> UploadBody {
        match payload {
            Payload::Nothing => UploadBody::Bytes(Bytes::new()),
            Payload::Document(text) | Payload::Json(text) => UploadBody::Bytes(text.into()),
            Payload::Content(slice, form) if form.framing.is_chunked() => {
                let signatures = seed.filter(|_| form.framing.signs_chunks()).map(|seed| {
                    self.with_key(amz_date, |key, scope| {
                        ChunkSignatures::new(key.clone(), amz_date, scope, seed)
                    })
                });
                let trailer = match form.checksum {
                    Some(UploadChecksum::Named(algorithm)) if form.framing.has_trailer() => {
                        Some(algorithm)
                    }
                    _ => None,
                };
                UploadBody::chunked(slice, Chunking::new(signatures, trailer))
            }
            Payload::Content(slice, _) => UploadBody::plain(slice),
        }
    }

    /// Calls `with` with the signing key of the day of `amz_date`, which is derived once a day.
    fn with_key<T>(
        &self,
        amz_date: &str,
        with: impl FnOnce(&SigningKey, &CredentialScope<'_>) -> T,
    ) -> T {
        let date = amz_date.get(..8).unwrap_or_default();
        let scope = self.scope(date);
        let mut known = self.key.borrow_mut();
        if let Some((day, key)) = &*known
            && day == date
        {
            return with(key, &scope);
        }
        let secret = match &self.identity {
            TenantProof::Key { secret, .. } => secret.clone(),
            _ => Secret::new(""),
        };
        let key = SigningKey::derive(&secret, date, &self.region, "s3");
        let (_, key) = known.insert((date.to_owned(), key));
        with(key, &scope)
    }

    fn scope<'a>(&'a self, date: &'a str) -> CredentialScope<'a> {
        CredentialScope {
            date,
            region: &self.region,
            service: "s3",
        }
    }
}

/// The position of a signature.
enum Signed {
    Nothing,
    /// In the URL: the whole query.
    Query(String),
    /// In the headers: the signature itself.
    Headers(Option<[u8; 32]>),
}

fn bearer(token: &Secret) -> Result<HeaderValue, http::Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds the headers that describe the body. Gives the payload hash for the signature.
fn describe(payload: &Payload, headers: &mut HeaderMap, is_presigned: bool) -> String {
    let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    match payload {
        Payload::Nothing => EMPTY_SHA256.to_owned(),
        Payload::Document(text) => {
            let mut md5 = Digest::new(Algorithm::Md5);
            md5.update(text.as_bytes());
            headers.insert(CONTENT_MD5, value(&md5.value()));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            sha256_hex(text.as_bytes())
        }
        Payload::Json(text) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            sha256_hex(text.as_bytes())
        }
        Payload::Content(..) if is_presigned => String::new(),
        Payload::Content(slice, form) => {
            match form.checksum {
                Some(UploadChecksum::ContentMd5) => {
                    headers.insert(CONTENT_MD5, value(&slice.checksum(Algorithm::Md5)));
                }
                Some(UploadChecksum::Named(algorithm)) if form.framing.has_trailer() => {
                    headers.insert(TRAILER, HeaderValue::from_static(algorithm.header()));
                }
                Some(UploadChecksum::Named(algorithm)) => {
                    let name = HeaderName::from_static(algorithm.header());
                    headers.insert(name, value(&slice.checksum(algorithm)));
                }
                None => {}
            }
            if form.framing.is_chunked() {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aws-chunked"));
                headers.insert(DECODED_LENGTH, HeaderValue::from(slice.length()));
            }
            match form.framing {
                UploadFraming::Signed => slice.sha256(),
                framing => framing.declared().to_owned(),
            }
        }
    }
}

fn target(path: &str, query: &[(Cow<'_, str>, Cow<'_, str>)], signed: Option<&str>) -> String {
    let mut target = String::with_capacity(path.len() + 64);
    push_encoded_path(&mut target, path.as_bytes());
    if let Some(signed) = signed {
        target.push('?');
        target.push_str(signed);
        return target;
    }
    for (index, (name, value)) in query.iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        push_encoded(&mut target, name.as_bytes());
        if !value.is_empty() {
            target.push('=');
            push_encoded(&mut target, value.as_bytes());
        }
    }
    target
}

/// A policy that allows exactly these fields.
fn policy(bucket: &str, fields: &[(&str, String)], now: Timestamp) -> String {
    let mut conditions = vec![serde_json::json!({ "bucket": bucket })];
    for (name, value) in fields {
        conditions.push(serde_json::json!({ *name: value }));
    }
    serde_json::json!({
        "expiration": now.plus(PRESIGNED_SECONDS.into()).iso8601(),
        "conditions": conditions,
    })
    .to_string()
}

/// The value of `x-amz-copy-source`.
pub(super) fn copy_source(bucket: &str, key: &str) -> String {
    let mut source = String::new();
    push_encoded_path(&mut source, format!("/{bucket}/{key}").as_bytes());
    source
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::content::Content;

    fn address(style: BucketStyle) -> LoadEndpoint {
        LoadEndpoint::parse("https://s3.example.com:8443", style, "r").unwrap()
    }

    fn signer(token: Option<&str>) -> Signer {
        let identity = TenantProof::Key {
            id: "ID".to_owned(),
            secret: Secret::new("secret"),
            token: token.map(Secret::new),
        };
        Signer::new(identity, "r")
    }

    fn signed(signer: &Signer, address: &LoadEndpoint, draft: Draft<'_>) -> Request<UploadBody> {
        let now = Timestamp::parse_amz("20260115T123045Z").unwrap();
        signer.sign(address, draft, now).unwrap()
    }

    fn header<'r>(request: &'r Request<UploadBody>, name: &str) -> &'r str {
        let value = request.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn style_decides_position_of_bucket() {
        let draft = || {
            Draft::new(Method::GET, "b", "a b/é+")
                .with("x", "1 2")
                .with("uploads", "")
        };
        let request = signed(&signer(None), &address(BucketStyle::Path), draft());
        assert_eq!(request.uri(), "/b/a%20b/%C3%A9%2B?x=1%202&uploads");
        assert_eq!(header(&request, "host"), "s3.example.com:8443");
        let request = signed(&signer(None), &address(BucketStyle::Virtual), draft());
        assert_eq!(request.uri(), "/a%20b/%C3%A9%2B?x=1%202&uploads");
        assert_eq!(header(&request, "host"), "b.s3.example.com:8443");
    }

    #[test]
    fn http2_has_a_whole_uri_and_no_host() {
        let mut address = address(BucketStyle::Path);
        address.is_http2 = true;
        let request = signed(&signer(None), &address, Draft::new(Method::GET, "b", "k"));
        assert_eq!(request.uri(), "https://s3.example.com:8443/b/k");
        assert_eq!(header(&request, "host"), "");
        assert!(header(&request, "authorization").contains("SignedHeaders=host;"));
    }

    #[test]
    fn each_identity_signs_in_its_own_way() {
        let address = address(BucketStyle::Path);
        let draft = || Draft::new(Method::GET, "b", "k");
        let request = signed(&signer(Some("TOKEN")), &address, draft());
        assert_eq!(header(&request, "x-amz-security-token"), "TOKEN");
        assert!(header(&request, "authorization").contains("x-amz-security-token"));
        let mut presigned = draft();
        presigned.is_presigned = true;
        let request = signed(&signer(Some("TOKEN")), &address, presigned);
        let query = request.uri().query().unwrap();
        assert!(
            query.contains("X-Amz-Security-Token=TOKEN") && query.contains("&X-Amz-Signature=")
        );
        assert_eq!(header(&request, "authorization"), "");
        let bearer = Signer::new(TenantProof::Bearer(Secret::new("a.b.c")), "r");
        let request = signed(&bearer, &address, draft());
        assert_eq!(header(&request, "authorization"), "Bearer a.b.c");
        let request = signed(&Signer::new(TenantProof::Anonymous, "r"), &address, draft());
        assert_eq!(header(&request, "authorization"), "");
    }

    #[test]
    fn upload_describes_its_body() {
        let slice = Slice::whole(Content::new(1, 100));
        let sent = |form: &str| {
            let draft = Draft::new(Method::PUT, "b", "k");
            let draft = draft.with_payload(Payload::Content(slice, form.parse().unwrap()));
            signed(&signer(None), &address(BucketStyle::Path), draft)
        };
        let request = sent("chunked-trailer/crc32c");
        assert_eq!(header(&request, "x-amz-trailer"), "x-amz-checksum-crc32c");
        assert_eq!(header(&request, "x-amz-decoded-content-length"), "100");
        assert_eq!(
            header(&request, "content-length"),
            request.body().length().to_string()
        );
        let request = sent("signed/content-md5");
        assert_eq!(header(&request, "x-amz-content-sha256"), slice.sha256());
        assert_eq!(header(&request, "content-md5").len(), 24);
        let request = sent("unsigned/sha256");
        assert_eq!(header(&request, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
        assert_eq!(header(&request, "x-amz-checksum-sha256").len(), 44);
    }

    #[test]
    fn endpoint_must_be_scheme_and_host() {
        for endpoint in ["x", "ftp://x", "http://u@x", "http://x/path", "http://x?q"] {
            assert!(
                LoadEndpoint::parse(endpoint, BucketStyle::Path, "r").is_err(),
                "{endpoint}"
            );
        }
    }
}
