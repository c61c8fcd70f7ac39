//! Browser forms with a policy of AWS (sigv4-HTTPPOSTConstructPolicy). COS documents a form of its own alone
//! (436/14690). `s3s` verifies them and stores their file.

use http::Method;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use s3s::Body;

use crate::emulator::behaviour::{Behaviours, CosBehaviour};
use crate::emulator::document::read_document;
use crate::emulator::head::{header, path_in_bucket};
use crate::emulator::response::CosError;

/// Whose key has signed a form.
#[derive(Clone, Debug)]
pub(super) struct SignedForm {
    pub(super) key_id: String,
    pub(super) token: Option<String>,
}

impl SignedForm {
    /// Reads a form, where COS accepts forms of AWS, and adds to `head` who has signed it. Gives the body back.
    pub(super) async fn take(
        head: &mut Parts,
        body: Body,
        behaviours: Behaviours,
    ) -> Result<Body, CosError> {
        let is_form = head.method == Method::POST
            && path_in_bucket(&head.extensions, &head.uri) == "/"
            && header(head, CONTENT_TYPE.as_str())
                .is_some_and(|kind| kind.starts_with("multipart/form-data"));
        if !is_form || !behaviours.has(CosBehaviour::AcceptsAwsForms) {
            return Ok(body);
        }
        let body = read_document(head, body).await?;
        let form = Self::read(&String::from_utf8_lossy(&body));
        if let Some(form) = form {
            head.extensions.insert(form);
        }
        Ok(Body::from(body))
    }

    fn read(form: &str) -> Option<Self> {
        let field = |name: &str| {
            let (_, rest) = form.split_once(&format!("name=\"{name}\"\r\n\r\n"))?;
            Some(rest.split_once("\r\n")?.0.to_owned())
        };
        let credential = field("x-amz-credential")?;
        Some(Self {
            key_id: credential.split('/').next()?.to_owned(),
            token: field("x-amz-security-token"),
        })
    }
}
