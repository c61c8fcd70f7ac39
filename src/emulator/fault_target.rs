//! The properties of a request that decide which faults it meets.

use http::Method;
use http::header::AUTHORIZATION;
use http::request::Parts;
use serde_json::Value;

use crate::emulator::document::has_parameter;
use crate::emulator::head::{DecodedTarget, header, path_in_bucket};
use crate::encoding::percent::{form_decode, percent_decode};
use crate::s3::operation::{Operation, Resource};
use crate::s3::query::Query;

/// Operations of the emulator that the proxy's table lacks: name, method, address, and the parameter that selects it.
const BESIDES: [(&str, &str, Resource, &str); 3] = [
    ("AppendObject", "POST", Resource::Object, "append"),
    ("DeleteBucket", "DELETE", Resource::Bucket, ""),
    (
        "PutBucketReplication",
        "PUT",
        Resource::Bucket,
        "replication",
    ),
];

/// The properties of a request that decide which faults it meets.
#[derive(Debug, Default)]
pub(super) struct FaultTarget {
    pub(super) operation: Option<String>,
    pub(super) bucket: Option<String>,
    /// The key, or the prefix of a listing.
    pub(super) key: Option<String>,
    /// The session name of its temporary key.
    pub(super) session: Option<String>,
}

impl FaultTarget {
    /// The target of a request to COS for a bucket, or for all of them. `session` gives the session of a key's id.
    pub(super) fn of_cos(
        head: &Parts,
        bucket: Option<String>,
        session: impl FnOnce(&str) -> Option<String>,
    ) -> Self {
        let Ok(target) = DecodedTarget::of(head) else {
            return Self::default();
        };
        let path = percent_decode(path_in_bucket(&head.extensions, &head.uri)).unwrap_or_default();
        let path = String::from_utf8_lossy(&path);
        let key = match path.strip_prefix('/').unwrap_or_default() {
            "" => target.get("prefix"),
            key => Some(key),
        };
        Self {
            operation: operation(head, bucket.is_some()).map(str::to_owned),
            key: key.map(str::to_owned),
            session: key_id(head, &target).as_deref().and_then(session),
            bucket,
        }
    }

    /// The target of a call of STS, in either form of its API.
    pub(super) fn of_sts(head: &Parts, body: &[u8]) -> Self {
        let text = match head.method {
            Method::GET => head.uri.query().unwrap_or_default(),
            _ => std::str::from_utf8(body).unwrap_or_default(),
        };
        let parameters: Option<Value> = serde_json::from_str(text).ok();
        let parameter = |name: &str| match &parameters {
            Some(parameters) => parameters.get(name)?.as_str().map(str::to_owned),
            None => text.split('&').find_map(|pair| {
                let (found, value) = pair.split_once('=')?;
                let value = (found == name).then(|| form_decode(value))??;
                String::from_utf8(value.into_owned()).ok()
            }),
        };
        let action = header(head, "x-tc-action").map(str::to_owned);
        Self {
            operation: action.or_else(|| parameter("Action")),
            session: parameter("Name").or_else(|| parameter("RoleSessionName")),
            ..Self::default()
        }
    }
}

/// Whether COS has an operation with this name.
pub(super) fn is_operation(name: &str) -> bool {
    let mut known = Operation::ALL.iter().map(|known| known.name());
    known.any(|known| known == name) || BESIDES.iter().any(|(known, ..)| *known == name)
}

/// The name of the operation: by the proxy's own table, which holds COS's parameters too, or as one besides.
fn operation(head: &Parts, has_bucket: bool) -> Option<&'static str> {
    let scope = match (has_bucket, path_in_bucket(&head.extensions, &head.uri)) {
        (false, _) => Resource::Service,
        (true, "/") => Resource::Bucket,
        (true, _) => Resource::Object,
    };
    let is_signature = |pair: &&str| {
        let name = pair.to_ascii_lowercase();
        ["q-", "x-amz-", "x-cos-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let raw = head.uri.query().unwrap_or_default().split('&');
    let parameters: Vec<&str> = raw.filter(|pair| !is_signature(pair)).collect();
    let parameters = parameters.join("&");
    let query = Query::parse(&parameters).ok()?;
    let copies = ["x-amz-copy-source", "x-cos-copy-source"]
        .iter()
        .any(|name| head.headers.contains_key(*name));
    if let Ok(operation) = Operation::resolve(&head.method, scope, &query, copies) {
        return Some(operation.name());
    }
    let mut besides = BESIDES.iter();
    let found = besides.find(|(_, method, address, parameter)| {
        let is_selected = match *parameter {
            "" => parameters.is_empty(),
            parameter => has_parameter(&parameters, parameter),
        };
        head.method == *method && *address == scope && is_selected
    });
    found.map(|(name, ..)| *name)
}

/// The id of the key in the request's signature.
fn key_id(head: &Parts, target: &DecodedTarget) -> Option<String> {
    let authorization = head
        .headers
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    let credential = target.get("X-Amz-Credential").or_else(|| {
        let (_, credential) = authorization?.split_once("Credential=")?;
        Some(credential)
    });
    if let Some(credential) = credential {
        return Some(credential.split('/').next()?.to_owned());
    }
    let native = authorization.and_then(|fields| {
        let mut fields = fields.split('&');
        fields.find_map(|field| field.strip_prefix("q-ak="))
    });
    native.or_else(|| target.get("q-ak")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(method: &str, target: &str, headers: &[(&str, &str)]) -> FaultTarget {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        FaultTarget::of_cos(&head, Some("b-1".into()), |id| Some(format!("of {id}")))
    }

    #[test]
    fn reads_operation_key_and_signer_of_a_request() {
        let sigv4 =
            "AWS4-HMAC-SHA256 Credential=AKID1/20260101/r/s3/aws4_request, SignedHeaders=host";
        let native = "q-sign-algorithm=sha1&q-ak=AKID2&q-sign-time=1;2";
        for (method, target, headers, operation, key, session) in [
            (
                "PUT",
                "/a%20b",
                vec![("authorization", sigv4)],
                "PutObject",
                "a b",
                "of AKID1",
            ),
            (
                "PUT",
                "/k",
                vec![("x-cos-copy-source", "b/k"), ("authorization", native)],
                "CopyObject",
                "k",
                "of AKID2",
            ),
            (
                "PUT",
                "/k?partNumber=1&uploadId=x",
                vec![("authorization", sigv4)],
                "UploadPart",
                "k",
                "of AKID1",
            ),
            (
                "GET",
                "/?list-type=2&prefix=a%2F&X-Amz-Credential=AKID3%2F1",
                vec![],
                "ListObjectsV2",
                "a/",
                "of AKID3",
            ),
            (
                "GET",
                "/k?q-ak=AKID4&q-signature=1",
                vec![],
                "GetObject",
                "k",
                "of AKID4",
            ),
        ] {
            let found = of(method, target, &headers);
            assert_eq!(found.operation.as_deref(), Some(operation), "{target}");
            assert_eq!(found.key.as_deref(), Some(key), "{target}");
            assert_eq!(found.session.as_deref(), Some(session), "{target}");
        }
    }

    #[test]
    fn names_operations_that_the_proxy_lacks() {
        for (method, target, operation) in [
            ("DELETE", "/", "DeleteBucket"),
            ("DELETE", "/?q-ak=A&q-signature=1", "DeleteBucket"),
            ("DELETE", "/?cors", "DeleteBucketCors"),
            ("DELETE", "/k", "DeleteObject"),
            ("POST", "/k?append&position=7", "AppendObject"),
            ("PUT", "/?replication", "PutBucketReplication"),
        ] {
            assert!(is_operation(operation), "{operation}");
            let found = of(method, target, &[]).operation;
            assert_eq!(found.as_deref(), Some(operation), "{method} {target}");
        }
        assert!(!is_operation("DeleteBuckets"));
    }

    #[test]
    fn reads_action_and_session_of_an_sts_call() {
        let of = |method: &str, target: &str, action: Option<&str>, body: &str| {
            let mut request = Request::builder().method(method).uri(target);
            if let Some(action) = action {
                request = request.header("x-tc-action", action);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let target = FaultTarget::of_sts(&head, body.as_bytes());
            (target.operation.unwrap(), target.session.unwrap())
        };
        let assume = ("AssumeRole".to_owned(), "acme 1".to_owned());
        let json = r#"{"RoleSessionName":"acme 1"}"#;
        assert_eq!(of("POST", "/", Some("AssumeRole"), json), assume);
        let form = "Action=AssumeRole&RoleSessionName=acme%201";
        assert_eq!(of("POST", "/", None, form), assume);
        assert_eq!(of("GET", &format!("/?{form}"), None, ""), assume);
    }
}
