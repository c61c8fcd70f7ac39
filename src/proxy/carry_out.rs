//! Carries a decision out.

use std::ops::ControlFlow;

use http::request::Parts;
use http::{Method, Response};

use super::Proxy;
use super::exchange::Call;
use super::exit::Exit;
use super::payload::Arriving;
use crate::body::{Answer, shape};
use crate::decision::{self, Decision, Forward, Step};
use crate::error::{Code, S3Error};
use crate::rewrite;
use crate::s3::S3Request;
use crate::tenant::Authenticated;

impl Proxy {
    /// Decides on `asked`, which was read from `head`, in S3's words: gives what COS gets, or else the
    /// response or the error.
    pub(super) fn decide<'t, 'r>(
        &self,
        head: &Parts,
        asked: S3Request<'r>,
        caller: &'t Authenticated,
        exit: &mut Exit,
    ) -> Result<ControlFlow<Response<Answer>, Forward<'t, 'r>>, S3Error> {
        exit.at(Step::Authorize);
        let decision = decision::decide(head, asked, caller, self.config(), shape::now());
        exit.attaches(decision.permit().is_some_and(rewrite::is_attachment));
        match decision {
            Decision::Forward(forward) => Ok(ControlFlow::Continue(forward)),
            Decision::Local(local) => {
                exit.answered_here();
                Ok(ControlFlow::Break(local.response.map(Answer::text)))
            }
            Decision::Refuse(refusal) => {
                exit.at(refusal.step);
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
        exit: &mut Exit,
    ) -> Result<Response<Answer>, S3Error> {
        let Forward {
            permit,
            request,
            looks,
            payload,
        } = forward;
        exit.at(Step::Rewrite);
        if !looks.is_empty() {
            Box::pin(self.look_first(looks, permit.request(), exit)).await?; // its conditions hold
        }
        exit.at(Step::Payload);
        let gauge = exit.gauge();
        let body = self.payload(&permit, payload, arriving, caller, &gauge);
        let body = body.await?; // checked as it streams
        exit.body(&body);
        let call = Call {
            permit: &permit,
            head,
            body: &body,
        };
        match self.exchange(call, request, exit).await {
            Err(refused) if head.method == Method::GET && refused.code() == Code::InvalidRange => {
                Err(Box::pin(self.explain_range(refused, &permit, head, exit)).await)
            }
            answer => answer, // signed, sent, answered
        }
    }
}
