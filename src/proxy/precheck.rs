//! Prechecks: conditions that COS is not documented to keep are checked here, by a HEAD before the request.

use http::StatusCode;
use http::header::{CONTENT_LENGTH, RANGE};
use http::request::Parts;

use super::Proxy;
use super::exchange::UpstreamCall;
use super::in_flight::InFlight;
use super::payload::Outgoing;
use crate::error::{Code, S3Error};
use crate::rewrite::{self, Precheck, Requirement};
use crate::s3::{S3Request, conditions};
use crate::tenant::Permit;

impl Proxy {
    /// Requests from COS, by HEAD and with the caller's own rights, the objects that the conditions of
    /// `requested` are about. The client does not send its body before. What changes between a precheck and the
    /// request is not seen: such a condition is no lock.
    pub(super) async fn precheck(
        &self,
        prechecks: Vec<Precheck<'_, '_>>,
        requested: &S3Request<'_>,
        in_flight: &mut InFlight,
    ) -> Result<(), S3Error> {
        for precheck in prechecks {
            let call = UpstreamCall {
                permit: &precheck.permit,
                head: &precheck.head,
                body: &Outgoing::empty(),
            };
            let found = self.exchange(call, precheck.request, in_flight).await;
            match (precheck.required, found) {
                (Requirement::Absent, Err(error))
                    if error.http_status() == StatusCode::NOT_FOUND => {}
                (Requirement::Hold, Ok(response)) if response.status().is_success() => {}
                (Requirement::Fail, Ok(_)) => return Err(rewrite::no_such_part(requested)),
                (_, Err(error)) => return Err(error),
                (_, Ok(_)) => {
                    return Err(S3Error::new(Code::PreconditionFailed, conditions::NOT_HELD));
                }
            }
        }
        Ok(())
    }

    /// Adds to a refused range what S3 adds to it: the range, and the object's size, which clients (the CRT's)
    /// read to learn that the object is empty. COS documents neither, so a HEAD finds the size.
    pub(super) async fn explain_range(
        &self,
        refused: S3Error,
        permit: &Permit<'_, '_>,
        client: &Parts,
        in_flight: &mut InFlight,
    ) -> S3Error {
        let range = client.headers.get(RANGE);
        let range = range.and_then(|range| range.to_str().ok());
        let size = self.size_of(permit, client, in_flight).await;
        let refused = refused.element("RangeRequested", range.unwrap_or_default());
        match size {
            Some(size) => refused.element("ActualObjectSize", size.to_string()),
            None => refused,
        }
    }

    /// The size of the object that `permit` reads; `None` where the caller may not HEAD it.
    async fn size_of(
        &self,
        permit: &Permit<'_, '_>,
        client: &Parts,
        in_flight: &mut InFlight,
    ) -> Option<u64> {
        let may_head = permit.besides(permit.request().head_of_read()).ok()?;
        let head = rewrite::head_of_whole_read(&client.headers).ok()?;
        let fresh = rewrite::request(&may_head, &head, &self.config().upstream).ok()?;
        let call = UpstreamCall {
            permit: &may_head,
            head: &head,
            body: &Outgoing::empty(),
        };
        let found = self.exchange(call, fresh, in_flight).await.ok()?;
        found
            .headers()
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }
}
