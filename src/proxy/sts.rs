//! The few calls of an AWS STS that are answered here: session keys for who has proved who they are.

use http::Response;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use hyper::body::Incoming;

use super::Proxy;
use super::exit::Exit;
use super::local::document;
use crate::body::Answer;
use crate::error::{Code, S3Error};
use crate::s3::request::check_framing;
use crate::s3::sts::{STS_BYTES, StsAction, StsRequest};
use crate::s3::xml::{StsAnswer, sts_answer};
use crate::tenant::{Connection, may_need_newer_keys};
use crate::timestamp::Timestamp;

impl Proxy {
    /// Answers a call of STS. Nothing of it goes anywhere else.
    pub(super) async fn session_keys(
        &self,
        head: &Parts,
        incoming: Incoming,
        connection: Connection,
        now: Timestamp,
        exit: &mut Exit,
    ) -> Result<Response<Answer>, S3Error> {
        exit.speaks_sts();
        check_framing(head)?;
        let tenants = &self.shared.tenants;
        let mut hearing = self.strangers.hear(head, tenants, connection, now)?;
        let charge = |bytes| hearing.grow(bytes);
        let form = self.gather(incoming, head.version, STS_BYTES, charge, || {
            S3Error::new(Code::InvalidArgument, "The form is larger than 32 KiB.")
        });
        let form = hearing.unless_evicted(form).await?;
        hearing.finish();
        exit.gathered(form.len());
        let asked = StsRequest::parse(&form)?;
        exit.sts_action(asked.action_name());
        let issue = || tenants.issue(&asked, head, &form, connection, now);
        let changes = tenants.key_changes();
        let mut issued = issue();
        if let StsAction::AssumeRoleWithWebIdentity { token, .. } = &asked.action
            && issued.as_ref().is_err_and(may_need_newer_keys)
        {
            let renewed = async { Ok(self.newer_keys(token, changes, now).await) };
            if hearing.unless_evicted(renewed).await? {
                issued = issue(); // the key may have come in between
            }
        }
        let (caller, key) = issued?;
        exit.caller(&caller);
        let caller = tenants.admit(caller, connection, now)?; // from where they may
        exit.limit(caller.tenant())?; // within their own limits
        exit.answered_here();
        let answer = StsAnswer {
            key_id: &key.id,
            secret: key.secret.expose(),
            token: key.token.expose(),
            expires: &key.expires.iso8601(),
            subject: caller.identity().subject().map(|subject| &**subject),
        };
        let mut answer = document(sts_answer(&asked, &answer, exit.request_id()));
        let no_store = HeaderValue::from_static("no-store");
        answer.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(answer)
    }
}
