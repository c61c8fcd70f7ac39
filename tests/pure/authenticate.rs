//! Authentication: every kind of credential, and every refusal with AWS's code.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cosgate::config::{self, Config};
use cosgate::encoding::percent::percent_decode;
use cosgate::error::{Code, S3Error};
use cosgate::payload::Mode as Payload;
use cosgate::s3::{Operation, Query, S3Request};
use cosgate::secret::Secret;
use cosgate::sign::{Signable, sigv2, sigv4};
use cosgate::tenant::{Connection, Identity, Tenants};
use cosgate::timestamp::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

const KEY: &str = "ACMEKEY0000000000001";
const SLASHED_KEY: &str = "team/acme/2";
const SECRET: &str = "acme-secret";
const HOST: &str = "127.0.0.1:9000";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const LOOPBACK: Connection = Connection {
    loopback: true,
    tls: false,
    certificate: None,
    user: None,
    address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
};

fn now() -> Timestamp {
    Timestamp::parse_amz("20260115T123045Z").unwrap()
}

fn tenant(name: &str, keys: &[&str], anonymous: bool) -> config::TenantConfig {
    let key = |id: &&str| config::AccessKey {
        id: (*id).into(),
        secret: config::GivenSecret {
            value: Secret::new(SECRET),
            source: config::SecretSource::Literal,
        },
        not_after: None,
    };
    config::TenantConfig {
        name: name.into(),
        issuer: 0,
        access_keys: keys.iter().map(key).collect(),
        anonymous,
        admission: config::Admission::default(),
        identity: None,
        grants: Vec::new(),
        revoked: config::RevokedSessions::default(),
        limits: config::TenantLimits::default(),
        vend: None,
    }
}

fn endpoint() -> config::EndpointTemplate {
    config::EndpointTemplate {
        tls: true,
        authority: "cos.example".into(),
        path: String::new(),
    }
}

fn config() -> Config {
    let second = Duration::from_secs(1);
    Config {
        server: config::Server {
            sessions_not_before: None,
            listen: config::Listen::Tcp(HOST.parse().unwrap()),
            socket_mode: 0o600,
            admin: None,
            admin_hosts: None,
            admin_token: None,
            domains: vec!["s3.localhost".into(), "s3.example.com".into()],
            region: "ap-guangzhou".into(),
            strict_region: false,
            allow_remote_anonymous: false,
            allow_plain_bearer: false,
            loopback_is_proxy: false,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            trusted_users: Vec::new(),
            allow_qsign: true,
            allow_sigv2_presign: false,
            threads: 1,
            max_presign: Duration::from_hours(7 * 24),
            session_secrets: Vec::new(),
            max_session: Duration::from_hours(1),
            ready_requires: Vec::new(),
            tenant_metrics: 100,
            reuse_port: false,
            reload_on_change: false,
            tls: None,
            limits: config::ServerLimits {
                head_bytes: 16 << 10,
                head_fields: 100,
                head_timeout: second,
                body_rate: 1024,
                body_window: second,
                idle_timeout: second,
                tls_handshake_timeout: second,
                xml_bytes: 2 << 20,
                connections: 16,
                connections_per_address: 0,
                stranger_bytes: 16 << 20,
                drain_delay: Duration::ZERO,
                drain_timeout: second,
                streams: 128,
                stream_window: 64 << 10,
            },
        },
        upstream: config::Upstream {
            endpoint: endpoint(),
            service_endpoint: endpoint(),
            signature: config::UpstreamSignature::S3,
            connect_to: None,
            ca_file: None,
            stored_check: config::StoredCheck::Crc64Ecma,
            spool_unknown_length: 0,
            limits: config::UpstreamLimits {
                connect_timeout: second,
                tls_handshake_timeout: second,
                head_timeout: second,
                idle_timeout: second,
                idle_connections: 1,
            },
        },
        log: config::LogConfig {
            access: config::AccessFormat::Json,
            access_file: None,
            access_share: config::SampleShare::ALL,
            access_slow: second,
            access_user_agent: true,
            program: config::ProgramFormat::Text,
        },
        traces: config::TracesConfig {
            enabled: false,
            share: config::SampleShare::NONE,
            collector: None,
        },
        sts: config::Sts {
            endpoint: endpoint(),
            region: "ap-guangzhou".into(),
            connect_to: None,
            ca_file: None,
            timeout: second,
            answer_bytes: 64 << 10,
        },
        issuers: Vec::new(),
        identities: Vec::new(),
        templates: Vec::new(),
        credential_shared: None,
        files: Vec::new(),
        credential_entries: 1,
        credential_session_policies: 1,
        credential_warm: false,
        tenants: vec![
            tenant("acme", &[KEY, SLASHED_KEY], false),
            tenant("guest", &[], true),
        ],
    }
}

/// A request and the credentials that sign it.
#[derive(Clone)]
struct Client {
    method: &'static str,
    path: &'static str,
    query: String,
    headers: HeaderMap,
    key: &'static str,
    secret: &'static str,
    region: &'static str,
    service: &'static str,
    time: Timestamp,
}

impl Client {
    fn new() -> Self {
        let client = Self {
            method: "GET",
            path: "/photos/a%20b",
            query: String::new(),
            headers: HeaderMap::new(),
            key: KEY,
            secret: SECRET,
            region: "us-east-1",
            service: "s3",
            time: now(),
        };
        client.with("host", HOST)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).unwrap();
        self.headers
            .append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    fn at(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// With `x-amz-date` and the payload, but no signature.
    fn dated(self, payload: &str) -> Self {
        let time = self.time.amz();
        self.with("x-amz-date", &time)
            .with("x-amz-content-sha256", payload)
    }

    /// Signed in the header, with an empty payload.
    fn signed(self) -> Self {
        self.signed_with(EMPTY)
    }

    fn signed_with(self, payload: &str) -> Self {
        let client = self.dated(payload);
        let authorization = client.sign(|request, key, scope| {
            sigv4::SigV4Signer {
                access_key: client.key,
                key,
                scope,
                amz_date: &client.time.amz(),
            }
            .authorization(request, payload)
        });
        client.with("authorization", &authorization)
    }

    /// Signed in the header, with `names` as signed headers.
    fn signed_over(self, names: &[&str]) -> Self {
        let client = self.dated(EMPTY);
        let authorization = client.sign(|request, key, scope| {
            let signed = sigv4::SignedHeaders::of(request.headers, |name| names.contains(&name));
            let canonical = sigv4::canonical_request(request, &signed, EMPTY);
            let to_sign = sigv4::string_to_sign(&client.time.amz(), scope, &canonical);
            let signature = cosgate::encoding::hex::hex(&key.sign(to_sign.as_bytes()));
            format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
                client.key,
                names.join(";"),
            )
        });
        client.with("authorization", &authorization)
    }

    fn presigned(mut self, expires: u32) -> Self {
        self.query = self.sign(|request, key, scope| {
            sigv4::SigV4Signer {
                access_key: self.key,
                key,
                scope,
                amz_date: &self.time.amz(),
            }
            .presigned_query(request, expires)
        });
        self
    }

    /// Presigned, and bound to `payload` by the parameter of the AWS SDK for JavaScript.
    fn presigned_with(mut self, payload: &str) -> Self {
        let day = self.time.date();
        self.query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Content-Sha256={payload}\
             &X-Amz-Credential={}%2F{day}%2F{}%2Fs3%2Faws4_request&X-Amz-Date={}\
             &X-Amz-Expires=60&X-Amz-SignedHeaders=host",
            self.key,
            self.region,
            self.time.amz(),
        );
        let signature = self.sign(|request, key, scope| {
            let signed = sigv4::SignedHeaders::of(request.headers, |name| name == "host");
            let canonical = sigv4::canonical_request(request, &signed, payload);
            let to_sign = sigv4::string_to_sign(&self.time.amz(), scope, &canonical);
            cosgate::encoding::hex::hex(&key.sign(to_sign.as_bytes()))
        });
        self.query.push_str("&X-Amz-Signature=");
        self.query.push_str(&signature);
        self
    }

    /// Presigned in Signature Version 2 with a lifetime of `seconds`.
    fn presigned_v2(self, seconds: i64) -> Self {
        self.presigned_v2_in(None, seconds)
    }

    /// The same, with `bucket` in the host.
    fn presigned_v2_in(mut self, bucket: Option<&str>, seconds: i64) -> Self {
        let query = Query::parse(&self.query).unwrap();
        let request = sigv2::SigV2Request {
            method: self.method,
            bucket,
            path: self.path,
            raw_query: &self.query,
            query: query.pairs(),
            headers: &self.headers,
        };
        let expires = self.time.plus(seconds).unix();
        self.query = sigv2::presigned_query(&request, self.key, &Secret::new(self.secret), expires);
        self
    }

    /// With `from` in the query replaced.
    fn forged(mut self, from: &str, to: &str) -> Self {
        assert!(self.query.contains(from), "{}", self.query);
        self.query = self.query.replacen(from, to, 1);
        self
    }

    fn sign<T>(
        &self,
        make: impl FnOnce(&Signable<'_>, &sigv4::SigningKey, &sigv4::CredentialScope<'_>) -> T,
    ) -> T {
        let date = self.time.date();
        let key =
            sigv4::SigningKey::derive(&Secret::new(self.secret), &date, self.region, self.service);
        let scope = sigv4::CredentialScope {
            date: &date,
            region: self.region,
            service: self.service,
        };
        let query = Query::parse(&self.query).unwrap();
        let path = percent_decode(self.path).unwrap();
        let request = Signable {
            method: self.method,
            path: &path,
            query: query.pairs(),
            headers: &self.headers,
        };
        make(&request, &key, &scope)
    }

    fn authenticate<T>(
        &self,
        tenants: &Tenants,
        connection: Connection,
        then: impl FnOnce(&str, &Identity, Payload) -> T,
    ) -> Result<T, S3Error> {
        let target = if self.query.is_empty() {
            Cow::Borrowed(self.path)
        } else {
            Cow::Owned(format!("{}?{}", self.path, self.query))
        };
        let request = http::Request::builder()
            .method(self.method)
            .uri(&*target)
            .body(())
            .unwrap();
        let mut head = request.into_parts().0;
        head.headers = self.headers.clone();
        let request = S3Request {
            operation: Operation::GetObject,
            bucket: Some("photos".into()),
            key: None,
            query: Query::parse(&self.query)?,
            copy_source: None,
        };
        let caller = tenants.authenticate(&head, &request, connection, now())?;
        Ok(then(
            &caller.tenant().name,
            caller.identity(),
            caller.payload(),
        ))
    }

    #[track_caller]
    fn passes(&self) -> Payload {
        self.authenticate(&Tenants::new(&config()), LOOPBACK, |tenant, _, payload| {
            assert_eq!(tenant, "acme");
            payload
        })
        .unwrap()
    }

    #[track_caller]
    fn refused(&self, code: Code) -> String {
        self.refused_by(&config(), LOOPBACK, code)
    }

    #[track_caller]
    fn refused_by(&self, config: &Config, connection: Connection, code: Code) -> String {
        let refusal = self.authenticate(&Tenants::new(config), connection, |tenant, _, _| {
            tenant.to_owned()
        });
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(!refusal.message().contains(SECRET));
        refusal.message().to_owned()
    }
}

#[test]
fn signed_header_identifies_tenant_and_key() {
    let tenants = Tenants::new(&config());
    let seen = Client::new()
        .signed()
        .authenticate(&tenants, LOOPBACK, |tenant, identity, _| {
            (tenant.to_owned(), *identity == Identity::Header(KEY.into()))
        });
    assert_eq!(seen.unwrap(), ("acme".to_owned(), true));
    assert_eq!(tenants.tenants().len(), 2);
    assert_eq!(
        tenants.tenants().get(1).map(|tenant| tenant.name.as_str()),
        Some("guest")
    );
}

#[test]
fn presigned_url_identifies_tenant_and_key() {
    let tenants = Tenants::new(&config());
    let seen = Client::new().presigned(60).authenticate(
        &tenants,
        LOOPBACK,
        |tenant, identity, payload| {
            (
                tenant.to_owned(),
                *identity == Identity::Presigned(KEY.into()),
                payload,
            )
        },
    );
    assert_eq!(seen.unwrap(), ("acme".to_owned(), true, Payload::Unsigned));
}

#[test]
fn accepts_slashes_in_an_access_key() {
    let client = Client {
        key: SLASHED_KEY,
        ..Client::new()
    };
    client.clone().signed().passes();
    client.presigned(60).passes();
}

#[test]
fn accepts_a_key_on_all_days_and_regions() {
    let tenants = Tenants::new(&config());
    let yesterday = now().plus(-86_400);
    for _ in 0..2 {
        for region in ["us-east-1", "ap-guangzhou"] {
            let client = Client {
                region,
                ..Client::new()
            };
            client
                .clone()
                .signed()
                .authenticate(&tenants, LOOPBACK, |_, _, _| ())
                .unwrap();
            client
                .at(yesterday)
                .presigned(604_800)
                .authenticate(&tenants, LOOPBACK, |_, _, _| ())
                .unwrap();
        }
    }
}

#[test]
fn accepts_known_payload_modes_only() {
    assert!(matches!(
        Client::new().signed_with(EMPTY).passes(),
        Payload::Sha256([0xe3, 0xb0, ..])
    ));
    assert_eq!(
        Client::new().signed_with("UNSIGNED-PAYLOAD").passes(),
        Payload::Unsigned
    );
    for (text, mode) in [
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Payload::StreamingSigned,
        ),
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            Payload::StreamingSignedTrailer,
        ),
        (
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            Payload::StreamingUnsignedTrailer,
        ),
    ] {
        assert_eq!(Client::new().signed_with(text).passes(), mode);
    }
    Client::new()
        .signed_with("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")
        .refused(Code::NotImplemented);
    for odd in ["unsigned-payload", "abc", &EMPTY.to_uppercase(), ""] {
        Client::new()
            .signed_with(odd)
            .refused(Code::InvalidArgument);
    }
    Client::new()
        .signed()
        .with("x-amz-content-sha256", EMPTY)
        .refused(Code::InvalidArgument);
    Client::new()
        .signed()
        .without("x-amz-content-sha256")
        .refused(Code::AuthorizationHeaderMalformed);
    let unsigned = Client::new().signed_over(&["host", "x-amz-date"]);
    unsigned.passes();
    unsigned
        .without("x-amz-content-sha256")
        .refused(Code::InvalidRequest);
}

#[test]
fn bad_signature_wins_over_streaming_mode() {
    let client = Client {
        secret: "wrong",
        ..Client::new()
    };
    client
        .signed_with("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .refused(Code::SignatureDoesNotMatch);
}

/// A grant may allow some of these headers by name; the signature must still cover them.
#[test]
fn rejects_unsigned_headers_of_cos() {
    for name in [
        "x-cos-storage-class",
        "pic-operations",
        "ci-process",
        "x-ci-a",
        "x-image-a",
    ] {
        for client in [Client::new().signed(), Client::new().presigned(60)] {
            client.with(name, "x").refused(Code::AccessDenied);
        }
        Client::new().with(name, "x").signed().passes();
    }
    let response_header = Client::new().signed().with("x-cos-request-id", "r");
    response_header.passes();
}

#[test]
fn verifies_a_hash_beside_a_presigned_url() {
    let url = Client::new()
        .presigned(60)
        .with("x-amz-content-sha256", EMPTY);
    assert!(matches!(url.passes(), Payload::Sha256(_)));
    let url = Client::new()
        .presigned(60)
        .with("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    assert_eq!(url.passes(), Payload::StreamingUnsignedTrailer);
    let url = Client {
        query: format!("X-Amz-Content-Sha256={EMPTY}"),
        ..Client::new()
    }
    .presigned(60);
    url.refused(Code::SignatureDoesNotMatch); // `presigned` signs UNSIGNED-PAYLOAD, the parameter says otherwise
}

/// The header is not signed, so that any holder of the URL can write it.
#[test]
fn header_cannot_remove_the_hash_of_a_presigned_url() {
    let bound = Client::new().presigned_with(EMPTY);
    assert!(matches!(bound.passes(), Payload::Sha256(_)));
    let same = bound.clone().with("x-amz-content-sha256", EMPTY);
    assert!(matches!(same.passes(), Payload::Sha256(_)));
    for lie in [sigv4::UNSIGNED_PAYLOAD, &"0".repeat(64)] {
        let lifted = bound.clone().with("x-amz-content-sha256", lie);
        lifted.refused(Code::InvalidArgument);
    }
    let free = Client::new().presigned_with(sigv4::UNSIGNED_PAYLOAD);
    assert_eq!(free.passes(), Payload::Unsigned);
    let hashed = free.with("x-amz-content-sha256", EMPTY);
    assert!(matches!(hashed.passes(), Payload::Sha256(_)));
}

#[test]
fn distinguishes_unknown_key_and_wrong_secret() {
    Client {
        key: "NOBODY",
        ..Client::new()
    }
    .signed()
    .refused(Code::InvalidAccessKeyId);
    Client {
        key: "NOBODY",
        ..Client::new()
    }
    .presigned(60)
    .refused(Code::InvalidAccessKeyId);
    // The dummy secret for unknown keys is not valid.
    Client {
        key: "NOBODY",
        secret: "",
        ..Client::new()
    }
    .signed()
    .refused(Code::InvalidAccessKeyId);
    let message = Client {
        secret: "wrong",
        ..Client::new()
    }
    .signed()
    .refused(Code::SignatureDoesNotMatch);
    assert!(
        !message.contains("AWS4") && !message.contains("photos"),
        "{message}"
    );
    Client {
        secret: "wrong",
        ..Client::new()
    }
    .presigned(60)
    .refused(Code::SignatureDoesNotMatch);
}

#[test]
fn rejects_changes_of_signed_parts() {
    for url in [Client::new().signed(), Client::new().presigned(60)] {
        Client {
            method: "DELETE",
            ..url.clone()
        }
        .refused(Code::SignatureDoesNotMatch);
        Client {
            path: "/photos/other",
            ..url.clone()
        }
        .refused(Code::SignatureDoesNotMatch);
        let query = format!("{}&versionId=1", url.query);
        Client {
            query,
            ..url.clone()
        }
        .refused(Code::SignatureDoesNotMatch);
        url.without("host")
            .with("host", "localhost:9000")
            .refused(Code::SignatureDoesNotMatch);
    }
    let signed = Client::new().with("x-amz-meta-a", "1").signed();
    signed
        .with("x-amz-meta-a", "2")
        .refused(Code::SignatureDoesNotMatch);
}

#[test]
fn accepts_other_escapes_of_the_signed_path() {
    Client {
        path: "/photos/%61%20b",
        ..Client::new().signed()
    }
    .passes();
}

#[test]
fn accepts_a_clock_within_15_minutes() {
    for off in [-900, 900] {
        Client::new().at(now().plus(off)).signed().passes();
        Client::new().at(now().plus(off)).presigned(900).passes();
    }
    for off in [-901, 901] {
        Client::new()
            .at(now().plus(off))
            .signed()
            .refused(Code::RequestTimeTooSkewed);
    }
    let early = Client::new()
        .at(now().plus(901))
        .presigned(60)
        .refused(Code::AccessDenied);
    assert_eq!(early, "Request is not valid yet");
}

#[test]
fn presigned_url_expires_on_time() {
    Client::new().at(now().plus(-60)).presigned(60).passes();
    let late = Client::new()
        .at(now().plus(-61))
        .presigned(60)
        .refused(Code::AccessDenied);
    assert_eq!(late, "Request has expired");
    Client::new().presigned(1).passes();
    Client::new().presigned(604_800).passes();
    for expires in [0, 604_801, u32::MAX] {
        Client::new()
            .presigned(expires)
            .refused(Code::AuthorizationQueryParametersError);
    }
    let mut capped = config();
    capped.server.max_presign = Duration::from_hours(1);
    let url = Client::new().presigned(3601);
    url.refused_by(&capped, LOOPBACK, Code::AuthorizationQueryParametersError);
}

#[test]
fn accepts_date_in_place_of_amz_date() {
    let client = Client::new().with("date", "Thu, 15 Jan 2026 12:30:45 GMT");
    let names = ["date", "host", "x-amz-content-sha256"];
    let signed = client.clone().signed_over(&names).without("x-amz-date");
    signed.passes();
    let unsigned = client
        .signed_over(&["host", "x-amz-content-sha256"])
        .without("x-amz-date");
    unsigned.refused(Code::AccessDenied);
    Client::new()
        .signed_over(&["host"])
        .without("x-amz-date")
        .refused(Code::AccessDenied);
    let odd = Client::new()
        .signed_over(&["host", "x-amz-date"])
        .without("x-amz-date");
    odd.with("x-amz-date", "yesterday")
        .refused(Code::AccessDenied);
}

#[test]
fn rejects_other_scopes() {
    Client {
        service: "sts",
        ..Client::new()
    }
    .signed()
    .refused(Code::AuthorizationHeaderMalformed);
    Client {
        region: "",
        ..Client::new()
    }
    .signed()
    .refused(Code::AuthorizationHeaderMalformed);
    Client {
        service: "sts",
        ..Client::new()
    }
    .presigned(60)
    .refused(Code::AuthorizationQueryParametersError);
    Client {
        region: "",
        ..Client::new()
    }
    .presigned(60)
    .refused(Code::AuthorizationQueryParametersError);
    let mut strict = config();
    strict.server.strict_region = true;
    let code = Code::AuthorizationHeaderMalformed;
    let message = Client::new().signed().refused_by(&strict, LOOPBACK, code);
    assert!(message.contains("ap-guangzhou"), "{message}");
    let url = Client::new().presigned(60);
    url.refused_by(&strict, LOOPBACK, Code::AuthorizationQueryParametersError);
    let right = Client {
        region: "ap-guangzhou",
        ..Client::new()
    }
    .signed();
    right
        .authenticate(&Tenants::new(&strict), LOOPBACK, |_, _, _| ())
        .unwrap();
}

#[test]
fn scope_day_must_match_the_date() {
    let client = Client::new().signed().without("x-amz-date");
    client
        .with("x-amz-date", "20260116T003045Z")
        .refused(Code::AuthorizationHeaderMalformed);
    let url = Client::new().presigned(60);
    let query = url.query.replace("20260115T123045Z", "20260114T123045Z");
    Client { query, ..url }.refused(Code::AuthorizationQueryParametersError);
}

#[test]
fn rejects_unsigned_amz_headers_and_host() {
    let acl = Client::new()
        .signed()
        .with("x-amz-acl", "public-read")
        .refused(Code::AccessDenied);
    assert!(
        acl.starts_with("There were headers present in the request which were not signed"),
        "{acl}"
    );
    Client::new()
        .presigned(60)
        .with("x-amz-copy-source", "/b/k")
        .refused(Code::AccessDenied);
    Client::new()
        .signed_over(&["x-amz-date"])
        .refused(Code::AccessDenied);
}

#[test]
fn rejects_malformed_signed_headers() {
    let code = Code::AuthorizationHeaderMalformed;
    Client::new()
        .signed_over(&["x-amz-date", "host"])
        .refused(code);
    Client::new()
        .signed_over(&["host", "host", "x-amz-date"])
        .refused(code);
    Client::new()
        .signed_over(&["host", "range", "x-amz-date"])
        .refused(code);
    Client::new().signed_over(&[]).refused(code);
    Client::new()
        .signed_over(&["", "host", "x-amz-date"])
        .refused(code);
    Client::new()
        .signed_over(&["Host", "x-amz-date"])
        .refused(code);
}

#[test]
fn rejects_malformed_authorization() {
    let credential = format!("Credential={KEY}/20260115/us-east-1/s3/aws4_request");
    let signature = format!("Signature={EMPTY}");
    let names = "SignedHeaders=host;x-amz-date";
    for fields in [
        String::new(),
        credential.clone(),
        format!("{credential}, {names}"),
        format!("{credential}, {names}, Signature=abc"),
        format!("{credential}, {names}, {}", signature.to_uppercase()),
        format!("{credential}, {names}, {signature}, {signature}"),
        format!("{credential}, {names}, {signature}, Extra=1"),
        format!("Credential=/20260115/us-east-1/s3/aws4_request, {names}, {signature}"),
        format!("Credential={KEY}/20260115/us-east-1/s3/aws3_request, {names}, {signature}"),
        format!("Credential={KEY}, {names}, {signature}"),
    ] {
        let client = Client::new()
            .dated(EMPTY)
            .with("authorization", &format!("AWS4-HMAC-SHA256 {fields}"));
        client.refused(Code::AuthorizationHeaderMalformed);
    }
}

#[test]
fn rejects_repeated_or_misspelt_presigned_parameters() {
    let code = Code::AuthorizationQueryParametersError;
    let url = Client::new().presigned(60);
    Client {
        query: format!("{}&X-Amz-Date=20260115T123045Z", url.query),
        ..url.clone()
    }
    .refused(Code::InvalidArgument);
    for name in [
        "Algorithm",
        "Credential",
        "Date",
        "Expires",
        "Signature",
        "SignedHeaders",
    ] {
        let query = url
            .query
            .replace(&format!("X-Amz-{name}="), &format!("x-amz-{name}="));
        Client {
            query,
            ..url.clone()
        }
        .refused(Code::InvalidArgument);
    }
    let query = url.query.replace("X-Amz-Expires=60", "X-Amz-Expires=%2B60");
    Client { query, ..url }.refused(code);
}

#[test]
fn rejects_two_ways_of_signing() {
    let both = Client {
        query: Client::new().presigned(60).query,
        ..Client::new()
    }
    .signed();
    both.refused(Code::InvalidArgument);
    let twice = Client::new().signed();
    let again = twice.headers["authorization"].to_str().unwrap().to_owned();
    twice
        .with("authorization", &again)
        .refused(Code::InvalidArgument);
}

#[test]
fn rejects_other_ways_of_signing() {
    let with = |value: &str| Client::new().dated(EMPTY).with("authorization", value);
    with("AWS AKID:frJIUN8DYpKDtOLCwo//yllqDzg=").refused(Code::InvalidRequest);
    with("AWS4-ECDSA-P256-SHA256 Credential=a").refused(Code::InvalidRequest);
    for value in ["Basic dTpw", "Bearer x", "AWS4-HMAC-SHA256", ""] {
        with(value).refused(Code::InvalidArgument);
    }
    with("q-sign-algorithm=sha1&q-ak=x").refused(Code::AuthorizationHeaderMalformed);
    let query = "AWSAccessKeyId=a&Signature=b&Expires=1".to_owned();
    Client {
        query,
        ..Client::new()
    }
    .refused(Code::InvalidRequest);
    let query = "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256".to_owned();
    Client {
        query,
        ..Client::new()
    }
    .refused(Code::AuthorizationQueryParametersError);
}

fn taking_v2() -> Config {
    let mut config = config();
    config.server.allow_sigv2_presign = true;
    config
}

#[test]
fn accepts_presigned_url_of_version_2_if_allowed() {
    let tenants = Tenants::new(&taking_v2());
    let seen = |client: Client| {
        client.authenticate(&tenants, LOOPBACK, |tenant, identity, payload| {
            assert_eq!(
                (tenant, identity),
                ("acme", &Identity::PresignedV2(KEY.into()))
            );
            payload
        })
    };
    let client = Client::new();
    for life in [0, 1, 604_800] {
        let payload = seen(client.clone().presigned_v2(life)).unwrap();
        assert_eq!(payload, Payload::Unsigned);
    }
    let headers = client
        .clone()
        .with("x-amz-meta-b", " 1 ")
        .with("x-amz-meta-b", "2")
        .with("content-type", "text/plain")
        .with("content-md5", "XUFAKrxLKna5cZ2REBfFkg==");
    seen(headers.presigned_v2(60)).unwrap();
    for query in [
        "tagging",
        "tagging=",
        "response-content-type=text%2Fcss&x-id=L",
    ] {
        let query = query.to_owned();
        seen(
            Client {
                query,
                ..client.clone()
            }
            .presigned_v2(60),
        )
        .unwrap();
    }
    let in_host = Client {
        path: "/",
        ..client.clone()
    };
    seen(in_host.clone().presigned_v2_in(Some("photos"), 60)).unwrap();
    assert!(seen(in_host.presigned_v2_in(Some("other"), 60)).is_err());

    let text = client.presigned_v2(60).refused(Code::InvalidRequest);
    assert!(
        text.contains("[server] allow_sigv2_presign = true"),
        "{text}"
    );
}

#[test]
fn presigned_url_of_version_2_expires_on_time() {
    let config = taking_v2();
    let refused = |life, text| {
        let client = Client::new().presigned_v2(life);
        let message = client.refused_by(&config, LOOPBACK, Code::AccessDenied);
        assert!(message.contains(text), "{message}");
    };
    refused(-1, "Request has expired");
    refused(604_801, "at most 604800 seconds ahead");
    for expires in ["0", "-1", "", "1e9", "2026-01-15T12:30:45Z", "01768483845"] {
        let mut client = Client::new().presigned_v2(60);
        let at = client.query.find("Expires=").unwrap();
        client.query.truncate(at);
        client.query.push_str("Expires=");
        client.query.push_str(expires);
        client.refused_by(&config, LOOPBACK, Code::AccessDenied);
    }
}

#[test]
fn rejects_parts_that_version_2_does_not_sign() {
    let config = taking_v2();
    let refused = |client: Client, code| {
        client.refused_by(&config, LOOPBACK, code);
    };
    let client = Client::new();
    let good = client.clone().presigned_v2(60);
    let nobody = Client {
        key: "NOBODY",
        ..client.clone()
    };
    refused(nobody.presigned_v2(60), Code::InvalidAccessKeyId);
    let wrong = Client {
        secret: "wrong",
        ..client.clone()
    };
    refused(wrong.presigned_v2(60), Code::SignatureDoesNotMatch);
    for header in ["x-amz-meta-a", "x-amz-acl", "content-type", "content-md5"] {
        refused(good.clone().with(header, "a"), Code::SignatureDoesNotMatch);
    }
    for change in ["versionId=1&AWS", "tagging&AWS", "response-expires=a&AWS"] {
        let forged = good.clone().forged("AWS", change);
        refused(forged, Code::SignatureDoesNotMatch);
    }
    let method = Client {
        method: "DELETE",
        ..good.clone()
    };
    refused(method, Code::SignatureDoesNotMatch);
    let path = Client {
        path: "/photos/a%20c",
        ..good.clone()
    };
    refused(path, Code::SignatureDoesNotMatch);

    refused(good.clone().with("x-cos-acl", "a"), Code::AccessDenied);
    let twice = client.clone().with("content-type", "a");
    let twice = twice.with("content-type", "b").presigned_v2(60);
    refused(twice, Code::AccessDenied);
    for query in [
        "x-amz-checksum-sha256=a",
        "response-content-type=a%0Ab",
        "x-amz-meta-a=b%0Ax-amz-meta-c:d",
    ] {
        let query = query.to_owned();
        let client = Client {
            query,
            ..client.clone()
        };
        refused(client.presigned_v2(60), Code::AccessDenied);
    }
    for (from, to) in [
        ("AWSAccessKeyId=", "awsaccesskeyid="),
        ("Expires=", "expires="),
        ("Signature=", "signature="),
        ("Expires=", "Expires=1&Expires="),
        ("AWS", "X-Amz-Algorithm=AWS4-HMAC-SHA256&AWS"),
    ] {
        refused(good.clone().forged(from, to), Code::InvalidArgument);
    }
    for (from, to) in [
        ("AWSAccessKeyId=", "odd="),
        ("Expires=", "odd="),
        ("Signature=", "odd="),
        ("Signature=", "Signature=AAAA"),
        ("Signature=", "Signature=%20"),
    ] {
        refused(good.clone().forged(from, to), Code::AccessDenied);
    }
    for mark in ["AWSAccessKeyId=a", "Expires=1", "Signature=a"] {
        let query = mark.to_owned();
        refused(
            Client {
                query,
                ..client.clone()
            },
            Code::AccessDenied,
        );
    }
    refused(good.with("authorization", "x"), Code::InvalidArgument);
}

#[test]
fn rejects_session_tokens() {
    Client::new()
        .with("x-amz-security-token", "t")
        .signed()
        .refused(Code::InvalidToken);
    Client::new()
        .with("x-amz-security-token", "t")
        .refused(Code::InvalidToken);
    let query = "X-Amz-Security-Token=t".to_owned();
    Client {
        query: query.clone(),
        ..Client::new()
    }
    .presigned(60)
    .refused(Code::InvalidToken);
    Client {
        query,
        ..Client::new()
    }
    .refused(Code::InvalidToken);
}

fn is_guest(client: &Client, config: &Config, connection: Connection) -> bool {
    let seen = client.authenticate(&Tenants::new(config), connection, |tenant, identity, _| {
        assert_eq!((tenant, identity), ("guest", &Identity::Anonymous));
    });
    if let Err(refusal) = &seen {
        assert_eq!(refusal.code(), Code::AccessDenied);
    }
    seen.is_ok()
}

fn to_host(host: &str) -> Client {
    Client::new().without("host").with("host", host)
}

#[test]
fn anonymous_tenant_needs_a_loopback_host() {
    for host in [
        "127.0.0.1:9000",
        "127.8.9.1",
        "localhost",
        "LocalHost:9000",
        "[::1]:9000",
        "[::1]",
        "s3.localhost:9000",
        "photos.s3.localhost",
    ] {
        assert!(is_guest(&to_host(host), &config(), LOOPBACK), "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "evils3.localhost",
        "other.localhost",
        "127.0.0.1.evil.example",
        "photos.s3.example.com",
        "10.0.0.1:9000",
        "[2001:db8::1]",
        "u@localhost",
        "::1",
        "",
    ] {
        assert!(!is_guest(&to_host(host), &config(), LOOPBACK), "{host}");
    }
    assert!(!is_guest(
        &Client::new().without("host"),
        &config(),
        LOOPBACK
    ));
    assert!(!is_guest(
        &Client::new().with("host", HOST),
        &config(),
        LOOPBACK
    ));
}

#[test]
fn rejects_web_pages_as_the_anonymous_tenant() {
    for (name, value) in [
        ("origin", "http://127.0.0.1:9000"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("referer", "http://evil.example/"),
        ("referer", "http://127.0.0.1:8000/page"),
        ("referer", "odd"),
    ] {
        assert!(
            !is_guest(&Client::new().with(name, value), &config(), LOOPBACK),
            "{name}: {value}"
        );
    }
    for (name, value) in [
        ("sec-fetch-site", "none"),
        ("sec-fetch-site", "same-origin"),
        ("referer", "http://127.0.0.1:9000/photos?x"),
    ] {
        assert!(
            is_guest(&Client::new().with(name, value), &config(), LOOPBACK),
            "{name}: {value}"
        );
    }
}

#[test]
fn anonymous_tenant_needs_loopback_unless_allowed() {
    let remote = Connection {
        loopback: false,
        tls: true,
        ..LOOPBACK
    };
    assert!(!is_guest(&Client::new(), &config(), remote));
    // Claims of a client about its connection are not trusted.
    let forwarded = Client::new().with("x-forwarded-for", "127.0.0.1");
    assert!(!is_guest(&forwarded, &config(), remote));
    let mut open = config();
    open.server.allow_remote_anonymous = true;
    for host in ["10.0.0.1:9000", "photos.s3.example.com", HOST] {
        assert!(is_guest(&to_host(host), &open, remote), "{host}");
    }
    assert!(!is_guest(&to_host("evil.example"), &open, remote));
    assert!(!is_guest(
        &Client::new().with("origin", "http://a"),
        &open,
        remote
    ));
}

#[test]
fn certificate_expires_on_an_open_connection() {
    let name = config::CertificateName::Dns("guest.example".into());
    let mut config = config();
    for tenant in &mut config.tenants {
        tenant.anonymous = false;
    }
    config.tenants[0].admission.client_certs = vec![name.clone()];
    let tenants = Tenants::new(&config);
    let authenticate_until = |not_after| {
        let connection = Connection {
            loopback: false,
            tls: true,
            certificate: Some(tenants.certified(std::slice::from_ref(&name), not_after)),
            ..LOOPBACK
        };
        Client::new().authenticate(&tenants, connection, |tenant, _, _| tenant.to_owned())
    };
    assert_eq!(authenticate_until(now()).unwrap(), config.tenants[0].name);
    let over = authenticate_until(now().plus(-1)).unwrap_err();
    assert_eq!(over.code(), Code::AccessDenied);
    assert!(over.message().contains("has expired"), "{over}");
}

#[test]
fn requires_a_signature_without_an_anonymous_tenant() {
    let mut closed = config();
    closed.tenants.truncate(1);
    let message = Client::new().refused_by(&closed, LOOPBACK, Code::AccessDenied);
    assert!(message.contains("anonymous = true"), "{message}");
}

#[test]
fn verifies_the_hash_of_an_anonymous_body() {
    let payload = |client: &Client| {
        client.authenticate(&Tenants::new(&config()), LOOPBACK, |_, _, payload| payload)
    };
    assert_eq!(payload(&Client::new()).unwrap(), Payload::Unsigned);
    let hashed = Client::new().with("x-amz-content-sha256", EMPTY);
    assert!(matches!(payload(&hashed).unwrap(), Payload::Sha256(_)));
    let streaming =
        Client::new().with("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    assert_eq!(
        payload(&streaming).unwrap(),
        Payload::StreamingUnsignedTrailer
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_authorization_is_refused_and_never_anonymous(
        start in prop::sample::select(vec!["", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 Credential="]),
        bytes in prop::collection::vec(0x20_u8..0x7f, 0..200),
        query in "[A-Za-z0-9&=-]{0,40}",
    ) {
        let value = [start.as_bytes(), &bytes].concat();
        let mut client = Client { query, ..Client::new() }.dated(EMPTY);
        client.headers.insert("authorization", HeaderValue::from_bytes(&value).unwrap());
        let tenants = Tenants::new(&config());
        prop_assert!(client.authenticate(&tenants, LOOPBACK, |_, _, _| ()).is_err());
    }
}
