//! Errors of STS: what each means, and how to fix it.

use std::borrow::Cow;
use std::fmt;

/// Characters of STS's own message that an error keeps.
const MESSAGE_CHARS: usize = 200;

/// What to do about an error of STS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StsClass {
    /// Our time is more than five minutes off: learn it and call again.
    Clock,
    /// The tenant's policy or the duration is refused.
    ConfigWrong,
    /// The issuer's own key is refused: every tenant of it is affected.
    IssuerBroken,
    /// The issuer may not make this key.
    NotAllowed,
    /// STS itself is in trouble, or was not reached: it may pass, and every call is affected.
    Retry,
    /// STS responded with a code that is not known: it may pass, and tells nothing about other calls.
    Unknown,
}

impl StsClass {
    /// The class of Tencent's error `code`.
    pub fn of(code: &str) -> Self {
        match code {
            "AuthFailure.SignatureExpire" => Self::Clock,
            "AuthFailure.UnauthorizedOperation"
            | "InternalError.IllegalRole"
            | "ResourceNotFound.RoleNotFound"
            | "UnauthorizedOperation" => Self::NotAllowed,
            // A pod's token is the issuer's own key: it is refused for every tenant.
            "FailedOperation.TempKeyNotAllowed"
            | "InvalidParameter.AccessKeyNotSupport"
            | "InvalidParameter.AccountNotAvaliable"
            | "InvalidParameter.WebIdentityTokenError" => Self::IssuerBroken,
            "InvalidParameter.OverLimit" => Self::Retry, // a rate limit, despite its name
            _ if code.starts_with("AuthFailure.") => Self::IssuerBroken,
            _ if code.starts_with("UnauthorizedOperation.") => Self::NotAllowed,
            _ if [
                "InvalidParameter",
                "InvalidParameterValue",
                "MissingParameter",
                "UnknownParameter",
            ]
            .contains(&code.split('.').next().unwrap_or_default()) =>
            {
                Self::ConfigWrong
            }
            _ if [
                "InternalError",
                "RequestLimitExceeded",
                "ServiceUnavailable",
            ]
            .contains(&code.split('.').next().unwrap_or_default()) =>
            {
                Self::Retry
            }
            _ => Self::Unknown,
        }
    }

    /// Whether calling again soon cannot help.
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::ConfigWrong | Self::IssuerBroken | Self::NotAllowed
        )
    }

    /// Whether other calls of the same issuer would most likely fail as well.
    pub(in crate::credentials) fn affects_all_calls(self) -> bool {
        matches!(self, Self::Clock | Self::Retry)
    }
}

/// STS gave no usable key. The text is for the log and the operator; it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsError {
    /// What to do about it.
    pub class: StsClass,
    /// Tencent's code, or a word of ours: `BadHeader`, `Cancelled`, `ExpiredKey`, `Http`, `KeyRefused`,
    /// `Network`, `NoBaseKey`, `ShortKey`, `Timeout`, `TokenFile`, `Unreadable`.
    pub code: String,
    /// What happened, in one line.
    pub message: String,
    /// The issuer's name in the configuration; empty without one.
    pub issuer: String,
    /// No call was made: STS has refused the same key of the issuer a short time ago.
    pub is_repeated: bool,
}

impl StsError {
    pub(in crate::credentials) fn new(
        class: StsClass,
        code: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            class,
            code: code.to_owned(),
            message: message.into(),
            issuer: String::new(),
            is_repeated: false,
        }
    }

    /// The same of the issuer of this name. An error of its base keeps the base's name.
    pub(in crate::credentials) fn of_issuer(mut self, name: &str) -> Self {
        if self.issuer.is_empty() {
            name.clone_into(&mut self.issuer);
        }
        self
    }

    /// The same, repeated without a call.
    pub(in crate::credentials) fn repeated(mut self) -> Self {
        self.is_repeated = true;
        self
    }

    /// Whether the policy is too long for STS.
    pub(in crate::credentials) fn is_of_long_policy(&self) -> bool {
        matches!(
            self.code.as_str(),
            "InvalidParameter.PolicyTooLong" | "InvalidParameter.ExtendStrategyOverSize"
        )
    }

    /// An error that STS itself returned.
    pub(super) fn from_code(code: &str, message: &str, request_id: &str) -> Self {
        let class = StsClass::of(code);
        let code: String = printable(code, 64);
        // The message about a refused signature may quote the call, so that only the code is kept.
        let meaning = match class {
            StsClass::Clock | StsClass::IssuerBroken => String::new(),
            _ => printable(message, MESSAGE_CHARS),
        };
        let message = format!("{meaning} (request {request_id})");
        Self::new(class, &code, message.trim_start())
    }

    /// How to fix it, where that is the operator's to do.
    pub fn fix(&self) -> Option<Cow<'static, str>> {
        let fix = match (self.class, self.code.as_str()) {
            (StsClass::Clock, _) => "set this machine's clock: it is more than five minutes off",
            (_, "FailedOperation.TempKeyNotAllowed") => {
                "GetFederationToken takes a permanent key only: set the issuer's secret_id and secret_key to one"
            }
            (_, "InvalidParameter.GrantOtherResource") => {
                "a bucket of the grants belongs to another account: check its APPID and the issuer's key"
            }
            (_, "InvalidParameter.OverTimeError") => {
                "duration is too long: at most 2h for a root account's key, 36h for a sub-account's, what CAM says for a role's"
            }
            _ if self.is_of_long_policy() => {
                "the policy is too long for STS: give the tenant fewer prefixes or actions"
            }
            (_, "InvalidParameter.WebIdentityTokenError") => {
                "the token of token_file is refused: check its audience, its life and provider_id"
            }
            (_, "ResourceNotFound.RoleNotFound" | "InternalError.IllegalRole") => {
                "check role_arn: the role does not exist, or does not trust this issuer"
            }
            (_, "NoBaseKey") => "fix the source of the issuer's own key",
            (_, "TokenFile") => "fix token_file",
            (StsClass::ConfigWrong, _) => {
                "check the tenant's grants, the duration and the region of [sts]"
            }
            (StsClass::IssuerBroken, _) => return Some(self.fix_key()),
            (StsClass::NotAllowed, _) => {
                "allow the issuer sts:GetFederationToken in CAM, or sts:AssumeRole and let the role trust it"
            }
            (StsClass::Retry | StsClass::Unknown, _) => return None,
        };
        Some(fix.into())
    }

    fn fix_key(&self) -> Cow<'static, str> {
        if self.issuer.is_empty() {
            return "check the SecretId and SecretKey, and that CAM has the key enabled".into();
        }
        let name = &self.issuer;
        format!("check secret_id and secret_key of [issuers.{name}], or what its key comes from, and that CAM has the key enabled").into()
    }
}

impl fmt::Display for StsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.issuer.is_empty() {
            write!(f, "issuers.{}: ", self.issuer)?;
        }
        write!(f, "STS: {}: {}", self.code, self.message)?;
        match self.fix() {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StsError {}

/// A stranger's text in one line, fit for the log.
fn printable(text: &str, max: usize) -> String {
    text.chars()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
