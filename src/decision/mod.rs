//! [`decide`]: what becomes of a request, by its head, its caller and the configuration alone. Pure.
//!
//! `proxy` carries a [`Decision`] out, and `cosgate explain` prints it. Neither knows a rule of its own.

mod cors;
mod local;
mod payload;
mod verdict;

use std::time::Duration;

use http::request::Parts;
use http::{Method, Response};

use crate::config::Config;
use crate::error::S3Error;
use crate::rewrite::{self, Precheck, UpstreamRequest};
use crate::s3::S3Request;
use crate::s3::sts::is_sts;
use crate::s3::vend::is_vend;
use crate::tenant::{Authenticated, Permit};

pub use cors::{bucket_of, preflight, write_cross_origin};
pub use local::document;
pub(crate) use local::folder;
pub use payload::{DocumentPlan, ObjectPlan, PayloadPlan};
pub use verdict::{Step, Verdict};

/// The service that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Nobody yet. The preflight of a browser: may a page of another origin request something.
    Preflight,
    /// S3.
    S3,
    /// The STS that gives session keys.
    Sts,
    /// The service that gives temporary keys of COS.
    Vend,
}

/// What becomes of a request for S3.
#[derive(Debug)]
pub enum Decision<'t, 'r> {
    /// COS gets it.
    Forward(Forward<'t, 'r>),
    /// cosgate responds itself: a key that is scoped to prefixes cannot request it of COS.
    Local(LocalResponse<'t, 'r>),
    /// The client gets an error.
    Refuse(Refusal<'t, 'r>),
}

/// What COS gets, and what must hold before.
#[derive(Debug)]
pub struct Forward<'t, 'r> {
    /// The proof that the caller may.
    pub permit: Permit<'t, 'r>,
    /// The head for COS, unsigned.
    pub request: UpstreamRequest,
    /// The HEADs that COS gets before; most requests need none.
    pub prechecks: Vec<Precheck<'t, 'r>>,
    /// The body.
    pub payload: PayloadPlan,
}

/// A response that cosgate makes itself.
#[derive(Debug)]
pub struct LocalResponse<'t, 'r> {
    /// The proof that the caller may.
    pub permit: Permit<'t, 'r>,
    /// The response; its body is empty or XML.
    pub response: Response<String>,
}

/// Why a request is refused.
#[derive(Debug)]
pub struct Refusal<'t, 'r> {
    /// The step that refuses it.
    pub step: Step,
    /// What the client reads.
    pub error: S3Error,
    /// The proof that the caller may, if only a later step refuses.
    pub permit: Option<Permit<'t, 'r>>,
}

/// Finds the service that `head` is for. `domains` are the suffixes of virtual-hosted names.
pub fn service(head: &Parts, domains: &[String]) -> Service {
    if head.method == Method::OPTIONS {
        Service::Preflight
    } else if is_sts(head) {
        Service::Sts
    } else if is_vend(head, domains) {
        Service::Vend
    } else {
        Service::S3
    }
}

/// Decides on `request`, which was read from `head`, in S3's terms. `now` is the time since any fixed
/// moment, by which the tenant's limits are found.
pub fn decide<'t, 'r>(
    head: &Parts,
    request: S3Request<'r>,
    caller: &'t Authenticated,
    config: &Config,
    now: Duration,
) -> Decision<'t, 'r> {
    let refuse = |step, error, permit| {
        Decision::Refuse(Refusal {
            step,
            error,
            permit,
        })
    };
    let permit = match caller.authorize(request) {
        Ok(permit) => permit,
        Err(error) => return refuse(Step::Authorize, error, None),
    };
    match local::response(&permit, head, &config.server.region) {
        Ok(Some(response)) => return Decision::Local(LocalResponse { permit, response }),
        Ok(None) => {}
        Err(error) => return refuse(Step::Authorize, error, Some(permit)),
    }
    let upstream = rewrite::request(&permit, head, &config.upstream).and_then(|request| {
        Ok((
            request,
            rewrite::prechecks(&permit, head, &config.upstream)?,
        ))
    });
    let (request, prechecks) = match upstream {
        Ok(upstream) => upstream,
        Err(error) => return refuse(Step::Rewrite, error, Some(permit)),
    };
    match PayloadPlan::new(&permit, head, caller, config, now) {
        Ok(payload) => Decision::Forward(Forward {
            permit,
            request,
            prechecks,
            payload,
        }),
        Err(error) => refuse(Step::Payload, error, Some(permit)),
    }
}

impl<'t, 'r> Decision<'t, 'r> {
    /// The proof that the caller may, if the grants allow it.
    pub fn permit(&self) -> Option<&Permit<'t, 'r>> {
        match self {
            Self::Forward(forward) => Some(&forward.permit),
            Self::Local(local) => Some(&local.permit),
            Self::Refuse(refusal) => refusal.permit.as_ref(),
        }
    }

    /// The word for it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Forward(_) => Verdict::Allowed,
            Self::Local(_) => Verdict::Local,
            Self::Refuse(refusal) => Verdict::of_error(&refusal.error, refusal.step),
        }
    }
}
