//! The steps of a request's life, and what becomes of it: the words of the audit and of `explain`.

use http::StatusCode;

use crate::error::{Fault, S3Error};

/// A step of the pipeline, in its order. A request that is not done ends at one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// What is requested: the head becomes typed parts.
    #[default]
    Parse,
    /// Who calls.
    Authenticate,
    /// Do the tenant's own limits leave room.
    Limit,
    /// May they, by their grants.
    Authorize,
    /// A fresh head for COS, by the allow-list of headers.
    Rewrite,
    /// The body, and all that is checked of it.
    Payload,
    /// A temporary key.
    Credential,
    /// COS, and its response.
    Upstream,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// COS got the request, and its response was passed on.
    Allowed,
    /// A scoped key cannot request it of COS, so it was served here.
    Local,
    /// Nobody refused it, but it could not be done: a fault of cosgate, STS or COS.
    Failed,
    /// The client may not do it, or did not do it right.
    Refused,
}

impl Step {
    /// All steps, in their order.
    pub const ALL: [Self; 8] = [
        Self::Parse,
        Self::Authenticate,
        Self::Limit,
        Self::Authorize,
        Self::Rewrite,
        Self::Payload,
        Self::Credential,
        Self::Upstream,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::Rewrite => "rewrite",
            Self::Limit => "limit",
            Self::Payload => "payload",
            Self::Credential => "credential",
            Self::Upstream => "upstream",
        }
    }
}

impl Verdict {
    /// The verdict on a request that ends at `step` with `error`.
    pub fn of_error(error: &S3Error, step: Step) -> Self {
        match (error.whose_fault(), step, error.http_status()) {
            (_, Step::Upstream, StatusCode::FORBIDDEN) => Self::Refused,
            // That an object is not there, say, is COS's response to a question that was allowed.
            (Fault::Client, Step::Upstream, _) => Self::Allowed,
            (Fault::Client, ..) => Self::Refused,
            _ => Self::Failed,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Local => "answered_here",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}
