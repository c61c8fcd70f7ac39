//! Temporary keys for clients that go to COS themselves: `/.cosgate/credentials`.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use serde_json::{Value, json};
use tokio::time::Duration;

use super::Proxy;
use super::in_flight::InFlight;
use super::payload::Arriving;
use super::respond::ErrorForm;
use crate::body::ResponseBody;
use crate::credentials::Vended;
use crate::credentials::shapes::{Shape, render};
use crate::credentials::vendor::VendedScope;
use crate::error::{Code, S3Error};
use crate::payload::Declared;
use crate::payload::checksum::Checks;
use crate::s3::request::check_framing;
use crate::s3::vend::{VEND_BYTES, VendRequest};
use crate::tenant::policy::key_patterns;
use crate::tenant::vend::narrowed;
use crate::tenant::{Authenticated, Connection, Grant, Tenants, bearer_token};

/// Taken off a key's end for those that refresh by it: a request signed just before must still arrive.
const MARGIN: i64 = 30;

impl Proxy {
    /// Responds with a key that COS itself takes.
    pub(super) async fn vend(
        &self,
        head: &Parts,
        arriving: Arriving,
        connection: Connection,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        in_flight.reader.errors = ErrorForm::Json;
        in_flight.record.sts_action("VendCredentials");
        let now = in_flight.record.time;
        check_framing(head)?;
        let tenants = &self.shared.tenants;
        let token = bearer_token(&head.headers);
        let identify = || Ok((tenants.identify_vend(head, connection, now)?, ()));
        let admitted = self.admit(token, identify, connection, in_flight).await?;
        let (caller, ()) = admitted;
        caller.check_page_of_keys(head)?;
        let offer = self.shared.vendor.offer(caller.tenant())?;
        let body = self.vend_body(head, arriving, &caller, in_flight).await?;
        Tenants::check_vend_body(head, &caller, &body)?;
        let requested = VendRequest::parse(&body)?;
        let duration = offer.duration(requested.duration_seconds)?;
        let (grants, policy) = narrowed(caller.tenant(), &requested)?;
        let is_session = caller.tenant().session_policy().is_some();
        let is_whole = !requested.narrows() && requested.duration_seconds.is_none() && !is_session;
        let scope = VendedScope {
            policy: policy.json(),
            duration,
            is_whole,
        };
        let vended = self.shared.vendor.key(&offer, caller.tenant(), scope);
        let vended = vended.await?;
        in_flight.record.is_local = true;
        Ok(if head.method == Method::GET {
            document(&container(&vended))
        } else {
            document(&sdk(&vended, duration, &grants))
        })
    }

    /// The body, which must be what was signed.
    async fn vend_body(
        &self,
        head: &Parts,
        arriving: Arriving,
        caller: &Authenticated,
        in_flight: &mut InFlight,
    ) -> Result<bytes::Bytes, S3Error> {
        let mut hold = self.hold(caller);
        let charge = |bytes| hold.grow(bytes);
        let body = self.gather(arriving, VEND_BYTES, charge, || {
            S3Error::new(Code::InvalidArgument, "The body is larger than 16 KiB.")
        });
        let body = body.await?;
        in_flight.gathered(body.len());
        let declared = Declared::read(caller.payload(), &head.headers)?;
        let mut checks = Checks::new(&declared, &head.headers)?;
        checks.update(&body);
        checks.finish(None)?;
        Ok(body)
    }
}

/// What AWS's SDKs read from a container's credentials endpoint.
fn container(vended: &Vended) -> Value {
    let key = &vended.key;
    let expires = key.expires.map(|end| end.plus(-MARGIN).iso8601());
    json!({
        "AccessKeyId": key.secret_id,
        "SecretAccessKey": key.secret_key.expose(),
        "Token": key.token.as_ref().map(crate::secret::Secret::expose),
        "Expiration": expires,
    })
}

/// What the COS STS SDKs give, and where the keys may be used.
fn sdk(vended: &Vended, duration: Duration, grants: &[Grant]) -> Value {
    let text = render(Shape::Json, &vended.key, duration, &[]);
    let mut json: Value = serde_json::from_str(&text).unwrap_or_default();
    let scopes: Vec<_> = grants.iter().map(scope).collect();
    if let Some(fields) = json.as_object_mut() {
        fields.insert("scopes".to_owned(), scopes.into());
    }
    json
}

fn scope(grant: &Grant) -> Value {
    json!({
        "name": grant.name,
        "bucket": grant.bucket,
        "region": grant.region,
        "prefixes": key_patterns(grant),
    })
}

fn document(json: &Value) -> Response<ResponseBody> {
    let text = json.to_string();
    let length = text.len();
    let mut response = Response::new(ResponseBody::Whole(text.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
