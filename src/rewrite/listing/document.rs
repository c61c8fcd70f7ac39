//! The document in the response to each operation: its root, where its next page starts, and what proves a success.

use crate::s3::{Operation, SuccessKind};

/// Whether responses to this operation must pass a [`ResponseRewriter`].
fn is_streamed_anew(operation: Operation) -> bool {
    root_of(operation).is_some()
}

/// Whether the client gets another body than COS's.
pub(in crate::rewrite) fn rewrites(operation: Operation) -> bool {
    is_streamed_anew(operation) || matches!(operation.response(), SuccessKind::Configuration(_))
}

/// The root of a response that is rewritten.
pub(super) fn root_of(operation: Operation) -> Option<&'static str> {
    match operation.response() {
        SuccessKind::Document(root) => Some(root),
        SuccessKind::Configuration(_)
        | SuccessKind::Cosgate
        | SuccessKind::Empty
        | SuccessKind::Headers
        | SuccessKind::Object => None,
    }
}

/// The element from which a client goes on with the next page; `None` for what has no pages.
pub(super) fn next_of(operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::ListMultipartUploads | Operation::ListObjectVersions => "NextKeyMarker",
        Operation::ListObjects => "NextMarker",
        Operation::ListObjectsV2 => "NextContinuationToken",
        Operation::ListParts => "NextPartNumberMarker",
        _ => return None,
    })
}

/// The element without which a success reports nothing that was done (436/7742, 436/7746, 436/8287,
/// 436/10881).
pub(super) fn proof_of(operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::CompleteMultipartUpload | Operation::CopyObject | Operation::UploadPartCopy => {
            "ETag"
        }
        Operation::CreateMultipartUpload => "UploadId",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::config::UpstreamSignature;
    use crate::rewrite::listing::ResponseRewriter;
    use crate::rewrite::listing::tests::{
        LISTINGS, WHOLE, document, list, rewrite, rewritten, run, s3,
    };
    use crate::rewrite::names::Unfit;
    use crate::rewrite::tests::{s3_request, tenant};
    use crate::s3::S3Request;
    use crate::tenant::Permit;

    #[test]
    fn a_success_that_does_not_tell_what_was_done_is_none() {
        for (operation, root, proof) in [
            (
                Operation::CompleteMultipartUpload,
                "CompleteMultipartUploadResult",
                "ETag",
            ),
            (Operation::CopyObject, "CopyObjectResult", "ETag"),
            (Operation::UploadPartCopy, "CopyPartResult", "ETag"),
            (
                Operation::CreateMultipartUpload,
                "InitiateMultipartUploadResult",
                "UploadId",
            ),
        ] {
            let outcome = |inside: &str| {
                let copy_source = operation
                    .copy_source_action()
                    .map(|_| crate::s3::CopySource {
                        bucket: "public".into(),
                        key: crate::s3::ObjectKey::from_decoded("y".into()).unwrap(),
                        version_id: None,
                    });
                let requested = S3Request {
                    copy_source,
                    ..s3_request(operation, "photos", "acme/k", "uploadId=u")
                };
                let response = format!("<{root}>{inside}</{root}>");
                rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()])
            };
            assert!(outcome(&format!("<{proof}>\"x\"</{proof}>")).is_ok());
            for silent in [
                String::new(),
                "<LastModified>2024-01-01T00:00:00Z</LastModified>".to_owned(),
                format!("<{proof}/>"),
                format!("<{proof}>\"\"</{proof}>"),
                format!("<{proof}>&quot;&quot;</{proof}>"),
                format!("<Part><{proof}>x</{proof}></Part>"),
            ] {
                let outcome = outcome(&silent);
                assert!(
                    matches!(outcome, Err(Unfit::Malformed(_))),
                    "{root} {silent}"
                );
            }
        }
    }

    #[test]
    fn the_root_leaves_as_s3_writes_it_whatever_the_store_writes() {
        let expected = s3(&document(WHOLE));
        for root in [
            "ListBucketResult",
            "ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
            "ListBucketResult xmlns=\"http://www.qcloud.com/document/product/436/7734\" a=\"1250000000\"",
            "s3:ListBucketResult xmlns:s3='http://s3.amazonaws.com/doc/2006-03-01/'",
        ] {
            let name = root.split(' ').next().unwrap();
            let inside = if name.starts_with("s3:") {
                WHOLE.replace("Is", "s3:Is")
            } else {
                WHOLE.to_owned()
            };
            let response = format!("<{root}>{inside}</{name}>");
            assert_eq!(
                rewritten(list("prefix=acme/"), &response),
                expected,
                "{root}"
            );
            let tenant = tenant();
            let permit = Permit::for_test(&tenant, list("prefix=acme/")).unwrap();
            let mut native =
                ResponseRewriter::new(&permit, UpstreamSignature::S3, true, String::new()).unwrap();
            let shown = run(&mut native, &[response.as_bytes()]).unwrap();
            assert_eq!(shown, document(WHOLE), "{root}");
        }
    }

    #[test]
    fn a_response_to_something_else_is_not_read_as_an_empty_one() {
        for (operation, root, _, _) in LISTINGS {
            let key = if operation == Operation::ListParts {
                "acme/k"
            } else {
                ""
            };
            for response in [
                "<CopyObjectResult></CopyObjectResult>".to_owned(),
                "<Error><Code>InternalError</Code></Error>".to_owned(),
                format!("<?xml version='1.0' encoding='GBK'?><{root}>{WHOLE}</{root}>"),
                format!(
                    " <?xml version=\"1.0\" encoding = \"ISO-8859-1\" ?><{root}>{WHOLE}</{root}>"
                ),
                format!("<{root}>{WHOLE}</{root}><{root}>{WHOLE}</{root}>"),
                format!("<{root}>{WHOLE}shared</{root}>"),
                " ".to_owned(),
                String::new(),
            ] {
                let requested = s3_request(operation, "photos", key, "prefix=acme/");
                let outcome = rewrite(requested, UpstreamSignature::S3, &[response.as_bytes()]);
                assert!(matches!(outcome, Err(Unfit::Malformed(_))), "{response}");
            }
        }
    }
}
