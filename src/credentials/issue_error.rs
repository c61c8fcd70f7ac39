//! Why a request gets no key: for the log and for the client.

use std::fmt;
use std::time::Duration;

use super::single_flight::Unfinished;
use super::sts::StsError;
use crate::error::{Code, Fault, S3Error};
use crate::s3::vend::LONG_POLICY;

/// The code of a key that STS gave and COS refused at once.
pub(super) const KEY_REFUSED: &str = "KeyRefused";

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueError {
    /// For the client.
    pub reason: NoKey,
    /// For the log; holds no secret.
    pub detail: String,
    /// Seconds, 1 to 60; `None` where only the operator can help.
    pub retry_after: Option<u32>,
}

/// Why there is no key, as the client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// Too many requests wait for a key.
    Busy,
    /// cosgate is shutting down.
    Ending,
    /// cosgate's own limit on calls to STS would make it wait too long.
    Queued,
    /// The scope that the client requested is too long for STS.
    LongPolicy,
    /// STS refuses cosgate's own configuration.
    Refused,
    /// COS refuses the keys that STS gives.
    RefusedByStore,
    /// STS gives no key, for a reason that may pass.
    Unavailable,
    /// STS cannot be reached.
    Unreachable,
}

impl NoKey {
    fn of(error: &StsError) -> Self {
        match error.code.as_str() {
            _ if error.class.is_permanent() => Self::Refused,
            KEY_REFUSED => Self::RefusedByStore,
            "Http" | "Network" | "Timeout" => Self::Unreachable,
            _ => Self::Unavailable,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Busy => {
                "Too many requests wait for a temporary key. Please reduce your request rate."
            }
            Self::Queued => {
                "Too many clients wait for their first temporary key. Please send the request again after the time in Retry-After."
            }
            Self::Ending => "The gateway is shutting down. Please send the request again.",
            Self::LongPolicy => LONG_POLICY,
            Self::Refused => {
                "The key service refuses the configuration of this gateway. Only the operator can fix this: the gateway's log has the reason."
            }
            Self::RefusedByStore => {
                "The store refuses the temporary keys of the key service at the moment. Please try again later."
            }
            Self::Unavailable => {
                "The key service gives no temporary key at the moment. Please try again later."
            }
            Self::Unreachable => {
                "The key service cannot be reached at the moment. Please try again later."
            }
        }
    }

    fn code(self) -> Code {
        match self {
            Self::LongPolicy => Code::InvalidArgument,
            Self::Ending | Self::Refused | Self::RefusedByStore => Code::ServiceUnavailable,
            Self::Busy | Self::Queued | Self::Unavailable | Self::Unreachable => Code::SlowDown,
        }
    }
}

impl IssueError {
    pub(super) fn new(reason: NoKey, detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let seconds = u32::try_from(seconds.clamp(1, 60)).unwrap_or(60);
        Self {
            reason,
            detail: detail.into(),
            retry_after: (!matches!(reason, NoKey::LongPolicy | NoKey::Refused)).then_some(seconds),
        }
    }

    /// An error of STS, which may be called again after `wait`.
    pub(super) fn of(error: &StsError, wait: Duration) -> Self {
        Self::new(NoKey::of(error), error.to_string(), wait)
    }
}

impl From<Unfinished> for IssueError {
    fn from(unfinished: Unfinished) -> Self {
        let wait = Duration::from_secs(5);
        Self::new(NoKey::Unavailable, unfinished.to_string(), wait)
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for IssueError {}

impl From<IssueError> for S3Error {
    fn from(error: IssueError) -> Self {
        let reported = Self::new(error.reason.code(), error.reason.message());
        let reported = match error.reason {
            NoKey::LongPolicy => reported,
            _ => reported.fault(Fault::Sts),
        };
        let reported = reported.detail(error.detail);
        match error.retry_after {
            Some(seconds) => reported.retry_after(seconds),
            None => reported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sts::StsClass;
    use super::*;

    #[test]
    fn tells_the_client_what_is_wrong_and_whether_to_try_again() {
        for (code, reported, text, comes_back) in [
            (
                "Network",
                Code::SlowDown,
                "key service cannot be reached",
                true,
            ),
            (
                "Timeout",
                Code::SlowDown,
                "key service cannot be reached",
                true,
            ),
            (
                "InternalError.DbError",
                Code::SlowDown,
                "gives no temporary key",
                true,
            ),
            (KEY_REFUSED, Code::ServiceUnavailable, "store refuses", true),
            (
                "AuthFailure.SecretIdNotFound",
                Code::ServiceUnavailable,
                "operator",
                false,
            ),
            (
                "UnauthorizedOperation",
                Code::ServiceUnavailable,
                "operator",
                false,
            ),
            (
                "InvalidParameter.ParamError",
                Code::ServiceUnavailable,
                "operator",
                false,
            ),
        ] {
            let error = StsError::new(StsClass::of(code), code, "why").of_issuer("main");
            let error = S3Error::from(IssueError::of(&error, Duration::from_secs(1)));
            assert_eq!(
                (error.code(), error.http_status().as_u16()),
                (reported, 503),
                "{code}"
            );
            assert!(error.message().contains(text), "{code}");
            assert_eq!(error.message().contains("try again"), comes_back, "{code}");
            assert_eq!(error.retry_after_seconds().is_some(), comes_back, "{code}");
        }
    }
}
