//! The look before a request: a condition that COS is not known to keep is checked here.

use std::rc::Rc;

use http::StatusCode;
use http::request::Parts;

use super::Proxy;
use super::exit::Exit;
use super::payload::Outgoing;
use crate::counted::Gauge;
use crate::rewrite::{self, Look, Must};
use crate::s3::{Code, S3Error};
use crate::tenant::Permit;

impl Proxy {
    /// Asks COS, by HEAD and with the caller's own rights, about the objects of which the conditions of
    /// `head` speak. The client is not asked for its body before. What changes between the look and the
    /// request is not seen: such a condition is no lock.
    pub(super) async fn look_first(
        &self,
        permit: &Permit<'_, '_>,
        head: &Parts,
        gauge: &Rc<Gauge>,
        exit: &mut Exit,
    ) -> Result<(), S3Error> {
        let upstream = &self.config().upstream;
        for look in rewrite::looks(permit, head, upstream.signature)? {
            let Look { permit, head, must } = look;
            let fresh = rewrite::request(&permit, &head, upstream)?;
            let nothing = Outgoing::empty();
            let found = self.exchange(&permit, &head, fresh, nothing, gauge, exit);
            match (must, found.await) {
                (Must::BeAbsent, Err(error)) if error.http_status() == StatusCode::NOT_FOUND => {}
                (Must::Hold, Ok(answer)) if answer.status().is_success() => {}
                (_, Err(error)) => return Err(error),
                (_, Ok(_)) => {
                    return Err(S3Error::new(
                        Code::PreconditionFailed,
                        "At least one of the preconditions you specified did not hold.",
                    ));
                }
            }
        }
        Ok(())
    }
}
