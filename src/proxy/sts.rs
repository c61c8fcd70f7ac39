//! The few calls of an AWS STS that are answered here: session keys for who has proved who they are.

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
use crate::s3::xml::{StsAnswer, sts_answer};
use crate::tenant::Connection;

impl Proxy {
    /// Answers a call of STS. Nothing of it goes anywhere else.
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
        let mut hearing = self.strangers.hear(head, tenants, connection, now)?;
        let charge = |bytes| hearing.grow(bytes);
        let form = self.gather(arriving, STS_BYTES, charge, || {
            S3Error::new(Code::InvalidArgument, "The form is larger than 32 KiB.")
        });
        let form = hearing.unless_evicted(form).await?;
        hearing.finish();
        in_flight.gathered(form.len());
        let asked = StsRequest::parse(&form)?;
        in_flight.record.sts_action(asked.action_name());
        let token = match &asked.action {
            StsAction::AssumeRoleWithWebIdentity { token, .. } => Some(&**token),
            _ => None,
        };
        let issue = || tenants.issue(&asked, head, &form, connection, now);
        let admitted = self.admit(token, issue, connection, in_flight);
        let (caller, key) = hearing.unless_evicted(admitted).await?;
        caller.check_page_of_keys(head)?;
        in_flight.record.is_local = true;
        let answer = StsAnswer {
            key_id: &key.id,
            secret: key.secret.expose(),
            token: key.token.expose(),
            expires: &key.expires.iso8601(),
            subject: caller.identity().subject().map(|subject| &**subject),
        };
        let mut answer = document(sts_answer(&asked, &answer, &in_flight.record.request_id))
            .map(ResponseBody::text);
        let no_store = HeaderValue::from_static("no-store");
        answer.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(answer)
    }
}
