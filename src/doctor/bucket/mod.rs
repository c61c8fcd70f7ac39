//! One bucket as doctor speaks to it: signed requests past cosgate's own rules, one connection each.

mod aws;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::{Config, EndpointTemplate, Grant, UpstreamSignature};
use crate::credentials::Credential;
use crate::encoding::percent::{push_encoded, push_encoded_path};
use crate::proxy::{Signing, sign};
use crate::rewrite::request::fill;
use crate::rewrite::{UpstreamRequest, read_error};
use crate::upstream::dial::{Dialer, Roots, Stream};
use crate::upstream::one_shot::{OneShotClient, OneShotResponse};

pub(super) use aws::SIGNED_CHUNKS;

/// Limit of one request, from the look-up of the name to the last byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Limit of a response's body: lists are short, objects too.
const RESPONSE_BYTES: usize = 1024 * 1024;
/// How long a raw connection is listened to.
const LISTEN: Duration = Duration::from_secs(3);
/// Limit of a head that is read from a raw connection.
const HEAD_BYTES: usize = 16 * 1024;

/// A grant's bucket.
#[derive(Debug)]
pub(super) struct ProbedBucket<'c> {
    pub(super) grant: &'c Grant,
    /// The language that is configured.
    pub(super) signature: UpstreamSignature,
    endpoint: EndpointTemplate,
    authority: String,
    client: OneShotClient,
    /// For connections that are written by hand.
    dialer: Dialer,
    /// `None` for plain HTTP.
    roots: Option<Roots>,
    connect_to: Option<String>,
    clock: Arc<Clock>,
    /// A response has told of a version.
    has_versions: Cell<bool>,
}

/// A request to a bucket. What is not set is as cosgate sends it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    /// The key in the real bucket; empty for the bucket itself.
    key: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    /// A header's name in the letter case in which it is written by hand. The report shows it so.
    spelled: Option<&'static str>,
    /// Added behind the signature.
    unsigned: Vec<(&'static str, &'static str)>,
    body: Bytes,
    signature: Option<UpstreamSignature>,
    /// Added to the time that is signed, in seconds.
    shift: i64,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: u16,
    /// The code of the error document; empty where there is none.
    pub(super) code: String,
    /// Its message.
    pub(super) message: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn new(method: Method, key: impl Into<String>) -> Self {
        Self {
            method,
            key: key.into(),
            query: Vec::new(),
            headers: Vec::new(),
            spelled: None,
            unsigned: Vec::new(),
            body: Bytes::new(),
            signature: None,
            shift: 0,
        }
    }

    pub(super) fn get(key: impl Into<String>) -> Self {
        Self::new(Method::GET, key)
    }

    pub(super) fn put(key: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let mut call = Self::new(Method::PUT, key);
        call.body = body.into();
        call
    }

    pub(super) fn post(key: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let mut call = Self::new(Method::POST, key);
        call.body = body.into();
        call
    }

    #[must_use]
    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    #[must_use]
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Writes the header `name`, which is there already, in this letter case where the head is written by hand.
    #[must_use]
    pub(super) fn spelled(mut self, name: &'static str) -> Self {
        self.spelled = Some(name);
        self
    }

    fn spelling<'n>(&self, name: &'n str) -> &'n str {
        let spelled = self
            .spelled
            .filter(|known| known.eq_ignore_ascii_case(name));
        spelled.unwrap_or(name)
    }

    #[must_use]
    pub(super) fn unsigned(mut self, name: &'static str, value: &'static str) -> Self {
        self.unsigned.push((name, value));
        self
    }

    #[must_use]
    pub(super) fn signed_as(mut self, signature: UpstreamSignature) -> Self {
        self.signature = Some(signature);
        self
    }

    #[must_use]
    pub(super) fn shifted(mut self, seconds: i64) -> Self {
        self.shift = seconds;
        self
    }
}

/// As the report shows it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} /{}", self.method, self.key)?;
        for (index, (name, value)) in self.query.iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            write!(f, "{mark}{name}")?;
            if !value.is_empty() {
                write!(f, "={value}")?;
            }
        }
        for (name, value) in &self.headers {
            let name = self.spelling(name);
            write!(f, ", {name}: {}", value.get(..120).unwrap_or(value))?;
        }
        for (name, value) in &self.unsigned {
            write!(f, ", {name}: {value}, which is not signed")?;
        }
        if self.signature == Some(UpstreamSignature::Cos) {
            f.write_str(", signed as COS")?;
        }
        Ok(())
    }
}

impl Seen {
    fn new(response: &OneShotResponse) -> Self {
        let error = read_error(&response.body);
        Self {
            status: response.status.as_u16(),
            code: error.code,
            message: error.message,
            headers: response.headers.clone(),
            body: Bytes::copy_from_slice(&response.body),
        }
    }

    /// A response of status 200 may hold an error (436/10881, 436/7742).
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && self.code.is_empty()
    }

    /// Whether the store refused it for want of a right.
    pub(super) fn is_denied(&self) -> bool {
        self.status == 403 && self.code == "AccessDenied"
    }

    /// Whether it shows that the key may do what was requested, though the object may not be there.
    pub(super) fn is_permitted(&self) -> bool {
        self.is_success() || (self.status == 404 && self.code == "NoSuchKey")
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether it tells of a version: the bucket has versions, or had them.
    pub(super) fn has_version(&self) -> bool {
        ["x-cos-version-id", "x-amz-version-id"]
            .iter()
            .any(|name| self.headers.contains_key(*name))
    }
}

/// Status and code: `403 AccessDenied`.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        Ok(())
    }
}

impl<'c> ProbedBucket<'c> {
    pub(super) fn new(
        config: &Config,
        grant: &'c Grant,
        roots: Option<&Roots>,
        clock: &Arc<Clock>,
    ) -> Self {
        let endpoint = config.upstream.endpoint.clone();
        let authority = fill(&endpoint.authority, grant);
        let limits = &config.upstream.limits;
        let connect_to = config.upstream.connect_to.clone();
        let dialer = || {
            let (connect, tls) = (limits.connect_timeout, limits.tls_handshake_timeout);
            Dialer::new(roots, connect_to.clone(), connect, tls)
        };
        Self {
            grant,
            signature: config.upstream.signature,
            client: OneShotClient::new(&authority, dialer(), CALL_TIMEOUT, RESPONSE_BYTES),
            dialer: dialer(),
            roots: roots.cloned(),
            connect_to: connect_to.clone(),
            endpoint,
            authority,
            clock: Arc::clone(clock),
            has_versions: Cell::new(false),
        }
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The same bucket in path style, at the region's own host; `None` where the endpoint is of
    /// another form.
    pub(super) fn in_path_style(&self, config: &Config) -> Option<Self> {
        let authority = config
            .upstream
            .endpoint
            .authority
            .strip_prefix("{bucket}.")?;
        let mut config = config.clone();
        config.upstream.endpoint = EndpointTemplate {
            authority: authority.to_owned(),
            path: "/{bucket}".to_owned(),
            ..config.upstream.endpoint.clone()
        };
        Some(Self::new(
            &config,
            self.grant,
            self.roots.as_ref(),
            &self.clock,
        ))
    }

    /// Signs `call` with `key` and sends it.
    /// Whether the bucket has versions, or had them, as far as the responses so far tell.
    pub(super) fn has_versions(&self) -> bool {
        self.has_versions.get()
    }

    pub(super) async fn send(&self, call: &Call, key: &Credential) -> Result<Seen, String> {
        let head = self.signed(call, key, call.body.len())?;
        self.exchange(head, call.body.clone(), key).await
    }

    /// Sends what is signed with `key` already.
    async fn exchange(
        &self,
        head: UpstreamRequest,
        body: Bytes,
        key: &Credential,
    ) -> Result<Seen, String> {
        let mut request = Request::builder().method(head.method).uri(head.target);
        if let Some(headers) = request.headers_mut() {
            *headers = head.headers;
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.send(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let mut seen = Seen::new(&response);
        if seen.has_version() {
            self.has_versions.set(true);
        }
        // A store may quote what it was sent.
        for text in [&mut seen.code, &mut seen.message] {
            *text = without_secrets(text, key);
        }
        Ok(seen)
    }

    /// The head of `call` for a body of `length` bytes, signed with `key` as cosgate signs.
    fn signed(
        &self,
        call: &Call,
        key: &Credential,
        length: usize,
    ) -> Result<UpstreamRequest, String> {
        let mut head = self.head(call)?;
        if matches!(call.method, Method::POST | Method::PUT) {
            head.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let signing = Signing {
            signature: call.signature.unwrap_or(self.signature),
            region: &self.grant.region,
            now: self.clock.upstream_now().plus(call.shift),
        };
        sign(&mut head, key, None, signing).map_err(|error| error.to_string())?;
        for (name, value) in &call.unsigned {
            let (name, value) = (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
            head.headers.insert(name, value);
        }
        Ok(head)
    }

    fn head(&self, call: &Call) -> Result<UpstreamRequest, String> {
        let mut path = fill(&self.endpoint.path, self.grant);
        path.push('/');
        path.push_str(&call.key);
        let mut target = String::new();
        push_encoded_path(&mut target, path.as_bytes());
        for (index, (name, value)) in call.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            push_encoded(&mut target, name.as_bytes());
            if !value.is_empty() {
                target.push('=');
                push_encoded(&mut target, value.as_bytes());
            }
        }
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(&self.authority).map_err(|error| error.to_string())?;
        headers.insert(HOST, host);
        for (name, value) in &call.headers {
            let value = HeaderValue::from_bytes(value.as_bytes());
            let value = value.map_err(|error| error.to_string())?;
            headers.append(HeaderName::from_static(name), value);
        }
        let pair = |(name, value): &(&'static str, String)| ((*name).into(), value.clone().into());
        Ok(UpstreamRequest {
            method: call.method.clone(),
            tls: self.endpoint.tls,
            authority: self.authority.clone(),
            target,
            path,
            query: call.query.iter().map(pair).collect(),
            headers,
        })
    }

    /// Sends the head of `call`, which announces `length` bytes, and a shorter body. Then the connection is closed.
    pub(super) async fn send_cut(
        &self,
        call: &Call,
        key: &Credential,
        length: usize,
    ) -> Result<(), String> {
        let exchange = async { self.write(call, key, length).await.map(drop) };
        within(exchange).await
    }

    /// Sends `call` by hand, with a head that announces `length` bytes. Gives the head of what comes within three
    /// seconds, as it is written. Then the connection is closed.
    pub(super) async fn send_head(
        &self,
        call: &Call,
        key: &Credential,
        length: usize,
    ) -> Result<String, String> {
        let exchange = async {
            let mut stream = self.write(call, key, length).await?;
            let mut head = Vec::new();
            let read = async {
                while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
            };
            let _ = timeout(LISTEN, read).await;
            Ok(without_secrets(String::from_utf8_lossy(&head).trim(), key))
        };
        within(exchange).await
    }

    /// Sends the head and the body of `call` as they are.
    async fn write(&self, call: &Call, key: &Credential, length: usize) -> Result<Stream, String> {
        let head = self.signed(call, key, length)?;
        let mut bytes = format!("{} {} HTTP/1.1\r\n", head.method, head.target).into_bytes();
        for (name, value) in &head.headers {
            bytes.extend_from_slice(call.spelling(name.as_str()).as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&call.body);
        let mut stream = self.dial().await?;
        let failed = |error: std::io::Error| error.to_string();
        stream.write_all(&bytes).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        Ok(stream)
    }

    async fn dial(&self) -> Result<Stream, String> {
        let dialled = self.dialer.dial(&self.authority).await;
        dialled.map_err(|error| error.to_string())
    }

    /// The protocol that the store chooses when it is offered HTTP/2; `None` for plain HTTP.
    pub(super) async fn protocol_when_offered_http2(&self) -> Option<Result<String, String>> {
        let roots = self.roots.as_ref()?.speaking(b"h2");
        let limits = (CALL_TIMEOUT, CALL_TIMEOUT);
        let dialer = Dialer::new(Some(&roots), self.connect_to.clone(), limits.0, limits.1);
        let dialled = dialer.dial(&self.authority).await;
        Some(match dialled {
            Ok(stream) => Ok(stream.protocol().unwrap_or_else(|| "none".to_owned())),
            Err(error) => Err(error.to_string()),
        })
    }
}

async fn within<T>(exchange: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(CALL_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no response within {CALL_TIMEOUT:?}")))
}

/// `text` without the parts of a key, and of what is made with it.
fn without_secrets(text: &str, key: &Credential) -> String {
    const SHORTEST: usize = 8;
    let token = key.token.as_ref().map_or("", |token| token.expose());
    let parts = [key.secret_key.expose(), token, key.secret_id.as_str()];
    if parts
        .iter()
        .any(|part| part.len() >= SHORTEST && text.contains(part))
        || ["Signature=", "q-signature=", "Credential="]
            .iter()
            .any(|word| text.contains(word))
    {
        return "[left out: it quotes what was sent]".to_owned();
    }
    // A part of a token is a secret, too.
    let is_quoted = |start: usize| {
        let part = token.get(start..start + 2 * SHORTEST);
        part.is_some_and(|part| text.contains(part))
    };
    if (0..token.len()).step_by(SHORTEST).any(is_quoted) {
        return "[left out: it quotes what was sent]".to_owned();
    }
    text.to_owned()
}
