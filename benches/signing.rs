//! What parsing and signing a head cost, in time and in allocations: `cargo bench --bench signing`.

use std::borrow::Cow;
use std::hint::black_box;

use cosgate::s3::S3Request;
use cosgate::secret::Secret;
use cosgate::sign::{Signable, cos, sigv4, tc3};
use cosgate::timestamp::Timestamp;
use divan::{AllocProfiler, Bencher};
use http::{HeaderMap, HeaderName, HeaderValue};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const HOST: &str = "examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com";
const AMZ_DATE: &str = "20260115T123045Z";
const SCOPE: sigv4::CredentialScope<'_> = sigv4::CredentialScope {
    date: "20260115",
    region: "ap-guangzhou",
    service: "s3",
};
/// COS's session tokens are about this long, in bytes.
const TOKEN_LENGTH: usize = 700;

/// The queries that are measured: none, as for an object, and a listing's.
const QUERIES: [&str; 2] = ["object", "listing"];

fn main() {
    divan::main();
}

fn secret() -> Secret {
    Secret::new("exampleSecretKey0000000000000000")
}

fn signing_key() -> sigv4::SigningKey {
    sigv4::SigningKey::derive(&secret(), SCOPE.date, SCOPE.region, SCOPE.service)
}

fn key_time() -> cos::KeyTime {
    let start = Timestamp::from_unix(1_700_000_000);
    cos::KeyTime {
        start,
        end: start.plus(900),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a header value"),
        )
    };
    pairs.iter().map(pair).collect()
}

/// The head of a GET for COS, with a session token.
fn upstream_headers(token: &'static str, date: Option<&str>) -> HeaderMap {
    let text = "T".repeat(TOKEN_LENGTH);
    let mut pairs = vec![("host", HOST), (token, text.as_str())];
    if let Some(date) = date {
        pairs.extend([
            ("x-amz-date", date),
            ("x-amz-content-sha256", sigv4::UNSIGNED_PAYLOAD),
        ]);
    }
    headers(&pairs)
}

/// The head of a client's GET, as boto3 sends it.
fn client_headers() -> HeaderMap {
    headers(&[
        ("host", "127.0.0.1:9000"),
        ("accept-encoding", "identity"),
        (
            "amz-sdk-invocation-id",
            "805a262b-9f32-4622-a20a-aa9504f8e0cf",
        ),
        (
            "user-agent",
            "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux lang/python#3.12",
        ),
        ("x-amz-content-sha256", sigv4::UNSIGNED_PAYLOAD),
        ("x-amz-date", AMZ_DATE),
    ])
}

fn query(which: &str) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
    let pairs: &[(&str, &str)] = match which {
        "listing" => &[
            ("list-type", "2"),
            ("prefix", "a b/"),
            ("delimiter", "/"),
            ("max-keys", "1000"),
        ],
        _ => &[],
    };
    pairs
        .iter()
        .map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value)))
        .collect()
}

fn request<'a>(query: &'a [(Cow<'a, str>, Cow<'a, str>)], headers: &'a HeaderMap) -> Signable<'a> {
    Signable {
        method: "GET",
        path: "/photos/2026/对象 1.jpg".as_bytes(),
        query,
        headers,
    }
}

/// The head of a client's request, as typed parts.
#[divan::bench(args = QUERIES)]
fn parse(bencher: Bencher<'_, '_>, which: &str) {
    let target = match which {
        "listing" => "/photos?list-type=2&prefix=acme%2F&max-keys=1000&delimiter=%2F",
        _ => "/photos/acme/a%20b/%E4%B8%AD%E6%96%87.txt",
    };
    let request = http::Request::builder().uri(target).body(());
    let (mut head, ()) = request.expect("a request").into_parts();
    head.headers = client_headers();
    let domains = ["s3.localhost".to_owned()];
    bencher.bench(|| S3Request::parse(black_box(&head), &domains).is_ok());
}

#[divan::bench(args = QUERIES)]
fn canonicalise(bencher: Bencher<'_, '_>, which: &str) {
    let (query, headers) = (query(which), client_headers());
    let request = request(&query, &headers);
    let names = ["host", "x-amz-content-sha256", "x-amz-date"];
    let signed = sigv4::SignedHeaders::of(&headers, |name| names.contains(&name));
    bencher
        .bench(|| sigv4::canonical_request(black_box(&request), &signed, sigv4::UNSIGNED_PAYLOAD));
}

#[divan::bench(args = QUERIES)]
fn verify(bencher: Bencher<'_, '_>, which: &str) {
    let (query, mut headers) = (query(which), client_headers());
    let key = signing_key();
    let payload = sigv4::UNSIGNED_PAYLOAD;
    let authorization = sigv4::SigV4Signer {
        access_key: "ACMEKEY0000000000001",
        key: &key,
        scope: &SCOPE,
        amz_date: AMZ_DATE,
    }
    .authorization(&request(&query, &headers), payload);
    headers.insert(
        "authorization",
        HeaderValue::from_str(&authorization).expect("a header value"),
    );
    let request = request(&query, &headers);
    bencher.bench(|| {
        let claim = sigv4::SigV4Claim::from_headers(black_box(&headers))
            .ok()
            .flatten();
        assert!(claim.is_some_and(|claim| claim.verify(&request, &key, payload)));
    });
}

#[divan::bench(args = QUERIES)]
fn sign_s3(bencher: Bencher<'_, '_>, which: &str) {
    let headers = upstream_headers("x-amz-security-token", Some(AMZ_DATE));
    let (query, key) = (query(which), signing_key());
    let request = request(&query, &headers);
    bencher.bench(|| {
        let payload = sigv4::UNSIGNED_PAYLOAD;
        sigv4::SigV4Signer {
            access_key: "AKIDexample",
            key: &key,
            scope: &SCOPE,
            amz_date: AMZ_DATE,
        }
        .authorization(black_box(&request), payload)
    });
}

#[divan::bench(args = QUERIES)]
fn sign_cos(bencher: Bencher<'_, '_>, which: &str) {
    let headers = upstream_headers("x-cos-security-token", None);
    let (query, key_time) = (query(which), key_time());
    let key = cos::SignKey::derive(&secret(), &key_time);
    let request = request(&query, &headers);
    bencher.bench(|| cos::authorization(black_box(&request), "AKIDexample", &key, &key_time));
}

/// What keeping the day's key saves on every request.
#[divan::bench]
fn derive_s3_key() -> sigv4::SigningKey {
    signing_key()
}

/// What keeping the key of a key-time saves on every request.
#[divan::bench]
fn derive_cos_key() -> cos::SignKey {
    cos::SignKey::derive(&secret(), &key_time())
}

#[divan::bench]
fn sign_sts_call(bencher: Bencher<'_, '_>) {
    let call = tc3::ApiCall {
        method: "POST",
        host: "sts.tencentcloudapi.com",
        service: "sts",
        content_type: "application/json",
        query: "",
        payload: &[b'x'; 1024],
        time: Timestamp::from_unix(1_700_000_000),
    };
    let key = tc3::ApiSigningKey::derive(&secret(), "2023-11-14", "sts");
    bencher.bench(|| tc3::authorization(black_box(&call), "AKIDexample", &key));
}
