//! A client that sends any request over a socket, signed as S3 or COS.

use std::borrow::Cow;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::encoding::hex::sha256_hex;
use cosgate::encoding::percent::{percent_decode, push_encoded};
use cosgate::secret::Secret;
use cosgate::sign::{Signable, cos, sigv4, tc3};
use cosgate::timestamp::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

pub(crate) const BUCKET: &str = "b-1250000000";
pub(crate) const OTHER: &str = "other-1250000000";
pub(crate) const REGION: &str = "ap-guangzhou";
pub(crate) const ID: &str = "AKIDpermanent";
const SECRET: &str = "permanent-secret";
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) id: String,
    pub(crate) secret: Secret,
    pub(crate) token: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct TestRequest {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn emulator() -> Emulator {
    emulator_with(EmulatorConfig::default())
}

pub(crate) fn emulator_with(config: EmulatorConfig) -> Emulator {
    let buckets = [BUCKET, OTHER].map(|name| (name.to_owned(), REGION.to_owned()));
    let keys = vec![(ID.to_owned(), Secret::new(SECRET))];
    Emulator::start(EmulatorConfig {
        keys,
        buckets: buckets.into(),
        ..config
    })
    .unwrap()
}

pub(crate) fn account() -> Credential {
    Credential {
        id: ID.into(),
        secret: Secret::new(SECRET),
        token: None,
    }
}

#[expect(clippy::disallowed_methods, reason = "the emulator has a real clock")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix(since.as_secs().try_into().unwrap())
}

impl TestRequest {
    /// `target` is sent as it is. The host is that of the test bucket.
    pub(crate) fn new(method: &'static str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let decode =
            |text: &str| String::from_utf8(percent_decode(text).unwrap().into_owned()).unwrap();
        let query = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        let request = Self {
            method,
            path: path.into(),
            query: query.collect(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        };
        request.header("host", &format!("{BUCKET}.cos.{REGION}.myqcloud.com"))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::try_from(value).unwrap(),
        );
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("content-length", &length)
    }

    /// Signs as an S3 client does, with the hash of the body.
    pub(crate) fn s3(self, key: &Credential) -> Self {
        let hash = sha256_hex(&self.body);
        self.s3_at(key, now(), &hash)
    }

    pub(crate) fn s3_at(mut self, key: &Credential, time: Timestamp, payload: &str) -> Self {
        self = self
            .header("x-amz-date", &time.amz())
            .header("x-amz-content-sha256", payload);
        if let Some(token) = &key.token {
            self = self.header("x-amz-security-token", token);
        }
        let date = time.date();
        let scope = sigv4::CredentialScope {
            date: &date,
            region: REGION,
            service: "s3",
        };
        let signing = sigv4::SigningKey::derive(&key.secret, &date, REGION, "s3");
        let signed = sigv4::SignedHeaders::of(&self.headers, |_| true);
        let canonical =
            self.signed_by(|request| sigv4::canonical_request(request, &signed, payload));
        let signature =
            signing.sign(sigv4::string_to_sign(&time.amz(), &scope, &canonical).as_bytes());
        let value = sigv4::authorization_value(&key.id, &scope, &signed, &signature);
        self.header("authorization", &value)
    }

    /// Signs natively, with the token.
    pub(crate) fn cos(self, key: &Credential) -> Self {
        self.cos_at(key, now())
    }

    pub(crate) fn cos_at(mut self, key: &Credential, start: Timestamp) -> Self {
        if let Some(token) = &key.token {
            self = self.header("x-cos-security-token", token);
        }
        let key_time = cos::KeyTime {
            start,
            end: start.plus(900),
        };
        let signing = cos::SignKey::derive(&key.secret, &key_time);
        let value =
            self.signed_by(|request| cos::authorization(request, &key.id, &signing, &key_time));
        self.header("authorization", &value)
    }

    /// Makes a presigned URL of S3.
    pub(crate) fn s3_presigned(mut self, key: &Credential, time: Timestamp, expires: u32) -> Self {
        if let Some(token) = &key.token {
            self.query
                .push(("X-Amz-Security-Token".into(), token.clone()));
        }
        let date = time.date();
        let scope = sigv4::CredentialScope {
            date: &date,
            region: REGION,
            service: "s3",
        };
        let signing = sigv4::SigningKey::derive(&key.secret, &date, REGION, "s3");
        let text = self.signed_by(|request| {
            sigv4::SigV4Signer {
                access_key: &key.id,
                key: &signing,
                scope: &scope,
                amz_date: &time.amz(),
            }
            .presigned_query(request, expires)
        });
        let target = format!("{}?{text}", self.path);
        Self {
            headers: self.headers,
            body: self.body,
            ..Self::new(self.method, &target)
        }
    }

    /// Makes a presigned URL of COS: the fields of the header form as parameters.
    pub(crate) fn cos_presigned(mut self, key: &Credential, start: Timestamp) -> Self {
        let signed = self.clone().cos_at(
            &Credential {
                token: None,
                ..key.clone()
            },
            start,
        );
        let fields = signed.headers["authorization"].to_str().unwrap();
        let fields = fields.split('&').filter_map(|field| field.split_once('='));
        self.query
            .extend(fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let token = key.token.iter().cloned();
        self.query
            .extend(token.map(|token| ("x-cos-security-token".to_owned(), token)));
        self
    }

    /// Calls `sign` with the parts to sign.
    fn signed_by<T>(&self, sign: impl FnOnce(&Signable<'_>) -> T) -> T {
        let path = percent_decode(&self.path).unwrap();
        let query: Vec<_> = self
            .query
            .iter()
            .map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value)))
            .collect();
        sign(&Signable {
            method: self.method,
            path: &path,
            query: &query,
            headers: &self.headers,
        })
    }

    /// The bytes of the head.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut target = self.path.clone();
        for (index, (name, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            push_encoded(&mut target, name.as_bytes());
            target.push('=');
            push_encoded(&mut target, value.as_bytes());
        }
        let mut head = format!("{} {target} HTTP/1.1\r\n", self.method).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(
                &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
            );
        }
        head.extend_from_slice(b"connection: close\r\n\r\n");
        head
    }

    pub(crate) fn send(&self, to: SocketAddr) -> Reply {
        self.try_send(to).expect("a response")
    }

    /// `None` when the connection ends before a whole head.
    pub(crate) fn try_send(&self, to: SocketAddr) -> Option<Reply> {
        let mut stream = connect(to);
        let _ = stream.write_all(&[self.head(), self.body.clone()].concat());
        Reply::read(&mut stream, self.method == "HEAD")
    }
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

impl Reply {
    pub(crate) fn read(stream: &mut impl Read, bodiless: bool) -> Option<Self> {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes); // a reset also ends the response
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| {
                (
                    HeaderName::try_from(name).unwrap(),
                    HeaderValue::try_from(value).unwrap(),
                )
            });
        let reply = Self {
            status,
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        };
        if !bodiless && let Some(length) = reply.header("content-length") {
            assert!(reply.body.len() <= length.parse().unwrap());
        }
        Some(reply)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The text of the first element `name`.
    pub(crate) fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
    }

    /// All texts of the elements `name`.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let start = format!("<{name}>");
        let parts = text.split(&start).skip(1);
        parts
            .map(|part| part.split(&format!("</{name}>")).next().unwrap().to_owned())
            .collect()
    }

    /// Status and error code.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.element("Code").unwrap_or_default())
    }
}

/// A policy with one statement.
pub(crate) fn policy(actions: &[&str], resources: &[&str]) -> Value {
    let resources: Vec<String> = resources
        .iter()
        .map(|r| format!("qcs::cos:{REGION}:uid/1250000000:{r}"))
        .collect();
    json!({"version": "2.0", "statement": [{"effect": "allow", "action": actions, "resource": resources}]})
}

/// Calls STS as Tencent's SDKs do.
pub(crate) fn sts(
    to: SocketAddr,
    key: &Credential,
    action: &str,
    body: &Value,
    time: Timestamp,
) -> (Reply, Value) {
    let body = body.to_string();
    let host = "sts.tencentcloudapi.com";
    let call = tc3::ApiCall {
        method: "POST",
        host,
        service: "sts",
        content_type: "application/json",
        query: "",
        payload: body.as_bytes(),
        time,
    };
    let signing = tc3::ApiSigningKey::derive(&key.secret, &time.date_dashed(), "sts");
    let mut request = TestRequest::new("POST", "/")
        .header("host", host)
        .header("content-type", "application/json")
        .header("x-tc-action", action)
        .header("x-tc-version", "2018-08-13")
        .header("x-tc-region", REGION)
        .header("x-tc-timestamp", &time.unix().to_string())
        .header(
            "authorization",
            &tc3::authorization(&call, &key.id, &signing),
        )
        .body(body);
    if let Some(token) = &key.token {
        request = request.header("x-tc-token", token);
    }
    let reply = request.send(to);
    let json = serde_json::from_slice::<Value>(&reply.body).unwrap()["Response"].clone();
    (reply, json)
}

/// The body of a `GetFederationToken`.
pub(crate) fn federation(policy: &Value) -> Value {
    let mut encoded = String::new();
    push_encoded(&mut encoded, policy.to_string().as_bytes());
    json!({"Name": "acme", "Policy": encoded, "DurationSeconds": 1800})
}

/// A temporary key with `policy`.
pub(crate) fn temporary_key(emulator: &Emulator, policy: &Value) -> Credential {
    let body = federation(policy);
    let (_, json) = sts(
        emulator.sts_addr(),
        &account(),
        "GetFederationToken",
        &body,
        now(),
    );
    let field = |name: &str| json["Credentials"][name].as_str().unwrap().to_owned();
    Credential {
        id: field("TmpSecretId"),
        secret: Secret::new(field("TmpSecretKey")),
        token: Some(field("Token")),
    }
}
