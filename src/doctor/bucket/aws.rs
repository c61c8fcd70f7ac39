//! Uploads in two forms of AWS that cosgate never sends to a store: signed chunks, and a browser's form.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName};
use http::{HeaderValue, Method};
use serde_json::json;

use super::{Call, ProbedBucket, Seen};
use crate::credentials::Credential;
use crate::encoding::hex::{hex, parse_hex32};
use crate::payload::ChunkSignatures;
use crate::sign::Signable;
use crate::sign::sigv4::{ALGORITHM, CredentialScope, SigV4Signer, SigningKey};
use crate::timestamp::AmzDate;

/// What `x-amz-content-sha256` says of a body whose chunks are signed.
pub(in crate::doctor) const SIGNED_CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
/// No field of the form has this text.
const BOUNDARY: &str = "cosgate-doctor-form";
/// How long the form's policy is good for, in seconds.
const FORM_LIFE: i64 = 300;

impl ProbedBucket<'_> {
    /// Sends `call`, whose headers announce signed chunks, with its body in one chunk.
    pub(in crate::doctor) async fn send_signed_chunks(
        &self,
        call: &Call,
        key: &Credential,
    ) -> Result<Seen, String> {
        let date = self.clock.upstream_now().amz_date();
        let mut head = self.head(call)?;
        let value = HeaderValue::from_str(date.as_str()).map_err(|error| error.to_string())?;
        let named = HeaderName::from_static;
        head.headers.insert(named("x-amz-date"), value);
        if let Some(token) = key.token_header() {
            let name = named("x-amz-security-token");
            head.headers.insert(name, token.clone());
        }
        let scope = self.scope(&date);
        let signing = key.sigv4_key(scope.date, scope.region);
        let signer = SigV4Signer {
            access_key: &key.secret_id,
            key: &signing,
            scope: &scope,
            amz_date: date.as_str(),
        };
        let signable = Signable {
            method: head.method.as_str(),
            path: head.path.as_bytes(),
            query: &head.query,
            headers: &head.headers,
        };
        let authorization = signer.authorization(&signable, SIGNED_CHUNKS);
        let signature = authorization.rsplit_once("Signature=");
        let seed = signature.and_then(|(_, signature)| parse_hex32(signature));
        let seed = seed.ok_or("the request cannot be signed")?;
        let chain = ChunkSignatures::new(SigningKey::clone(&signing), date.as_str(), &scope, seed);
        let body = in_chunks(&call.body, chain);
        let authorization = HeaderValue::from_str(&authorization);
        let authorization = authorization.map_err(|error| error.to_string())?;
        head.headers.insert(AUTHORIZATION, authorization);
        let length = HeaderValue::from(body.len());
        head.headers.insert(CONTENT_LENGTH, length);
        self.exchange(head, body.into(), key).await
    }

    /// Uploads `content` under the key `name` as a browser does: a form with a policy that `key` has signed.
    pub(in crate::doctor) async fn send_form(
        &self,
        name: &str,
        content: &str,
        key: &Credential,
    ) -> Result<Seen, String> {
        let now = self.clock.upstream_now();
        let date = now.amz_date();
        let scope = self.scope(&date);
        let mut fields = vec![
            ("key", name.to_owned()),
            ("x-amz-algorithm", ALGORITHM.to_owned()),
            ("x-amz-credential", format!("{}/{scope}", key.secret_id)),
            ("x-amz-date", date.as_str().to_owned()),
        ];
        let token = key.token.as_ref();
        fields.extend(token.map(|token| ("x-amz-security-token", token.expose().to_owned())));
        let mut conditions = vec![json!({ "bucket": self.grant.bucket })];
        conditions.extend(fields.iter().map(|(name, value)| json!({ *name: value })));
        let policy =
            json!({ "expiration": now.plus(FORM_LIFE).iso8601(), "conditions": conditions });
        let policy = BASE64_STANDARD.encode(policy.to_string());
        let signature = key.sigv4_key(scope.date, scope.region);
        let signature = hex(&signature.sign(policy.as_bytes()));
        fields.extend([("policy", policy), ("x-amz-signature", signature)]);
        let body = form(&fields, content);
        let call = Call::new(Method::POST, "").header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        );
        let mut head = self.head(&call)?;
        let length = HeaderValue::from(body.len());
        head.headers.insert(CONTENT_LENGTH, length);
        self.exchange(head, body.into(), key).await
    }

    fn scope<'s>(&'s self, date: &'s AmzDate) -> CredentialScope<'s> {
        CredentialScope {
            date: date.day(),
            region: &self.grant.region,
            service: "s3",
        }
    }
}

/// `data` as one signed chunk and the last, empty one.
fn in_chunks(data: &[u8], mut chain: ChunkSignatures) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in [data, b""] {
        let signature = hex(&chain.sign_chunk(chunk));
        let head = format!("{:x};chunk-signature={signature}\r\n", chunk.len());
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// A form with `fields`, and `content` as its file.
fn form(fields: &[(&str, String)], content: &str) -> String {
    let mut form = String::new();
    for (name, value) in fields {
        let _ = write!(
            form,
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ); // a String takes every write
    }
    let _ = write!(
        form,
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
         Content-Type: text/plain\r\n\r\n{content}\r\n--{BOUNDARY}--\r\n"
    );
    form
}
