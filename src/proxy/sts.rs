//! The few calls of an AWS STS that cosgate serves itself: session keys for authenticated callers.

use http::Response;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;

use super::Proxy;
use super::in_flight::InFlight;
use super::payload::Arriving;
use super::respond::ErrorForm;
use crate::body::ResponseBody;
use crate::decision::document;
use crate::error::{Code, S3Error};
use crate::s3::request::check_framing;
use crate::s3::sts::{STS_BYTES, StsAction, StsRequest};
use crate::s3::xml::{CallerIdentity, StsResponseBody, caller_identity, sts_response};
use crate::tenant::{Authenticated, Connection, Identity, SessionKey, SignedCall};

impl Proxy {
    /// Responds to a call of STS. Nothing of it goes anywhere else.
    pub(super) async fn session_keys(
        &self,
        head: &Parts,
        arriving: Arriving,
        connection: Connection,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        in_flight.reader.errors = ErrorForm::Sts;
        let now = in_flight.record.time;
        check_framing(head)?;
        let tenants = &self.shared.tenants;
        let mut stranger = self.strangers.begin_read(head, tenants, connection, now)?;
        let charge = |bytes| stranger.grow(bytes);
        let form = self.gather(arriving, STS_BYTES, charge, || {
            S3Error::new(Code::InvalidArgument, "The form is larger than 32 KiB.")
        });
        let form = stranger.unless_evicted(form).await?;
        stranger.finish();
        in_flight.gathered(form.len());
        let requested = StsRequest::parse(head.uri.query().unwrap_or_default(), &form)?;
        in_flight.record.sts_action(requested.action_name());
        let token = match &requested.action {
            StsAction::AssumeRoleWithWebIdentity { token, .. } => Some(&**token),
            _ => None,
        };
        let call = SignedCall { head, form: &form };
        let issue = || tenants.issue(&requested, &call, connection, now);
        let admitted = self.admit(token, issue, connection, in_flight);
        let (caller, key) = stranger.unless_evicted(admitted).await?;
        caller.check_page_of_keys(head)?;
        in_flight.record.is_local = true;
        let request_id = &in_flight.record.request_id;
        let text = match key {
            Some(key) => keys_response(&requested, &key, &caller, request_id),
            None => identity_response(&caller, request_id),
        };
        let mut response = document(text).map(ResponseBody::text);
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(response)
    }
}

fn keys_response(
    requested: &StsRequest,
    key: &SessionKey,
    caller: &Authenticated,
    request_id: &str,
) -> String {
    let body = StsResponseBody {
        key_id: &key.id,
        secret: key.secret.expose(),
        token: key.token.expose(),
        expires: &key.expires.iso8601(),
        subject: caller.identity().subject().map(|subject| &**subject),
    };
    sts_response(requested, &body, request_id)
}

/// Who calls, in AWS's terms: the account is the owner id that listings and ACLs report.
fn identity_response(caller: &Authenticated, request_id: &str) -> String {
    let account = &caller.tenant().name;
    let user = caller.identity().key_id().map_or("", |id| &**id);
    let arn = match caller.identity() {
        Identity::Session { .. } => format!("arn:aws:sts::{account}:assumed-role/cosgate/{user}"),
        _ => format!("arn:aws:iam::{account}:user/{user}"),
    };
    let identity = CallerIdentity {
        account,
        arn: &arn,
        user,
    };
    caller_identity(&identity, request_id)
}
