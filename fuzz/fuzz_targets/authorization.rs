//! Any signature, in a header (the first line of the input) or in a query (the second): what is taken of
//! it cannot add a line to what is signed, and is not right by chance.

#![no_main]

use cosgate::s3::Query;
use cosgate::secret::Secret;
use cosgate::sign::sigv4::{SigV4Claim, SigningKey};
use cosgate::sign::{Signable, sigv2};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (authorization, query) = input.split_once('\n').unwrap_or((input, ""));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "127.0.0.1:9000"),
        ("x-amz-date", "20260115T123045Z"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(authorization) {
        headers.insert("authorization", value);
        if let Ok(Some(claim)) = SigV4Claim::from_headers(&headers) {
            check(&claim, &[], &headers);
        }
        headers.remove("authorization");
    }
    let Ok(query) = Query::parse(query) else {
        return;
    };
    if let Ok(Some(claim)) = SigV4Claim::from_query(query.pairs(), &headers) {
        check(&claim, query.pairs(), &headers);
    }
    let _ = sigv2::SigV2Claim::from_query(query.pairs(), &headers);
});

fn check(
    claim: &SigV4Claim<'_>,
    query: &[(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)],
    headers: &HeaderMap,
) {
    let request = Signable {
        method: "GET",
        path: b"/photos/k",
        query,
        headers,
    };
    let canonical = claim.canonical_request(&request, "UNSIGNED-PAYLOAD");
    assert_eq!(claim.string_to_sign(&canonical).lines().count(), 4);
    let key = SigningKey::derive(
        &Secret::new("secret"),
        claim.scope.date,
        claim.scope.region,
        "s3",
    );
    assert!(!claim.verify(&request, &key, "UNSIGNED-PAYLOAD"));
}
