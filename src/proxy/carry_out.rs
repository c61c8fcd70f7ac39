//! Carries a decision out: the checks before it, the body, the exchange with COS.

use std::ops::ControlFlow;

use http::request::Parts;
use http::{Method, Response};

use super::Proxy;
use super::exchange::UpstreamCall;
use super::in_flight::InFlight;
use super::payload::Arriving;
use crate::body::{ResponseBody, shape};
use crate::decision::{self, Decision, Forward, Step};
use crate::error::{Code, S3Error};
use crate::rewrite;
use crate::s3::{S3Request, conditions, native};
use crate::tenant::Authenticated;

impl Proxy {
    /// Decides on `requested`, which was read from `head`, in S3's terms: gives what COS gets, or else the
    /// response or the error.
    pub(super) fn decide<'t, 'r>(
        &self,
        head: &Parts,
        requested: S3Request<'r>,
        caller: &'t Authenticated,
        in_flight: &mut InFlight,
    ) -> Result<ControlFlow<Response<ResponseBody>, Forward<'t, 'r>>, S3Error> {
        in_flight.record.step = Step::Authorize;
        let decision = decision::decide(head, requested, caller, self.config(), shape::now());
        in_flight.reader.saves = decision.permit().is_some_and(rewrite::is_attachment);
        match decision {
            Decision::Forward(forward) => Ok(ControlFlow::Continue(forward)),
            Decision::Local(local) => {
                in_flight.record.is_local = true;
                Ok(ControlFlow::Break(local.response.map(ResponseBody::text)))
            }
            Decision::Refuse(refusal) => {
                in_flight.record.step = refusal.step;
                Err(refusal.error)
            }
        }
    }

    /// Has COS do what was decided, with the body that comes from the client.
    pub(super) async fn carry_out(
        &self,
        forward: Forward<'_, '_>,
        head: &Parts,
        arriving: Arriving,
        caller: &Authenticated,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        in_flight.record.step = Step::Rewrite;
        if !forward.prechecks.is_empty() {
            let checks = self.precheck(forward.prechecks, forward.permit.request(), in_flight);
            let checked = Box::pin(checks).await; // its conditions hold
            checked.map_err(|refused| of_condition(refused, head))?;
        }
        in_flight.record.step = Step::Payload;
        let body = self.payload(
            &forward.permit,
            forward.payload,
            arriving,
            caller,
            &in_flight.stream_state,
        );
        let body = body.await?; // checked as it streams
        in_flight.body(&body);
        let call = UpstreamCall {
            permit: &forward.permit,
            head,
            body: &body,
        };
        match self.exchange(call, forward.request, in_flight).await {
            Err(refused) if head.method == Method::GET && refused.code() == Code::InvalidRange => {
                Err(Box::pin(self.explain_range(refused, &forward.permit, head, in_flight)).await)
            }
            Err(refused) if refused.code() == Code::NoSuchKey => {
                // Some clients take the bucket for a file system. They must see a folder that the grant names, even
                // if COS has no object there.
                let folder = decision::folder(&forward.permit, head).ok_or(refused)?;
                in_flight.record.is_local = true;
                Ok(folder.map(ResponseBody::text))
            }
            result => result.map_err(|refused| of_condition(refused, head)), // signed, sent, received
        }
    }
}

/// A refusal for a condition in the words of the client of `head`; another one as it is.
fn of_condition(refused: S3Error, head: &Parts) -> S3Error {
    if refused.code() == Code::PreconditionFailed && !native::speaks_native(head) {
        conditions::failed(&head.headers, &refused)
    } else {
        refused
    }
}
