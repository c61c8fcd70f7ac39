//! Captured requests of real clients, parsed by the S3 side.
#![expect(
    clippy::unwrap_used,
    reason = "a broken vector file must fail the test"
)]

use cosgate::error::{Code, S3Error};
use cosgate::s3::{S3Request, headers};
use http::Request;
use http::request::Parts;
use serde_json::Value;

#[test]
fn parses_every_captured_request() {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/sigv4.json")).unwrap();
    let captures = vectors["client_captures"].as_array().unwrap();
    let mut served = 0;
    for capture in captures {
        let name = capture["name"].as_str().unwrap();
        let head = head(capture);
        match (read(&head), refused_for(name)) {
            (Ok(()), None) => served += 1,
            (Err(error), Some(code)) => assert_eq!(error.code(), code, "{name}: {error}"),
            (Ok(()), Some(code)) => panic!("{name} must be refused with {code:?}"),
            (Err(error), None) => panic!("{name}: {error}"),
        }
    }
    assert!(
        served > captures.len() / 2,
        "{served} of {} served",
        captures.len()
    );
}

fn head(capture: &Value) -> Parts {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let url = text(&capture["url"]);
    let (_, target) = url.split_once("//").unwrap().1.split_once('/').unwrap();
    let mut request = Request::builder()
        .method(text(&capture["method"]).as_str())
        .uri(format!("/{target}"));
    for header in capture["headers"].as_array().unwrap() {
        request = request.header(text(&header[0]), text(&header[1]));
    }
    request.body(()).unwrap().into_parts().0
}

/// Parses the request and selects its forwarded headers, without further grants.
fn read(head: &Parts) -> Result<(), S3Error> {
    let domains = ["cos.ap-guangzhou.myqcloud.com".to_owned()];
    let request = S3Request::parse(head, &domains)?;
    headers::forwarded(request.operation, &head.headers, &[], &[])?;
    Ok(())
}

fn refused_for(name: &str) -> Option<Code> {
    match name {
        // Its key contains a `.` segment.
        "http-delete-object" => Some(Code::InvalidURI),
        _ => None,
    }
}
