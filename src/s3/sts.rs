//! What AWS SDKs ask an STS for (API version 2011-06-15): the few actions that give session keys.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http::{Method, StatusCode};

use super::Query;
use crate::error::{Code, S3Error};

/// Bytes of a request's body at most: a token, and names. Nobody is known before it has been read.
pub(crate) const STS_BYTES: usize = 32 * 1024;
/// STS's limits of `DurationSeconds`.
const SHORTEST: u64 = 900;
/// How long keys live when the client does not say.
const USUAL: Duration = Duration::from_hours(1);
/// STS's limit of an ARN.
const ARN_BYTES: usize = 2048;
/// Parameters that would make the keys narrower, or ask for proof that nobody checks: to pass over
/// one would give more than was asked for.
const NOT_OFFERED: [&str; 8] = [
    "ExternalId",
    "Policy",
    "PolicyArns",
    "ProvidedContexts",
    "ProviderId",
    "SerialNumber",
    "SourceIdentity",
    "TokenCode",
];

/// A call of an STS.
#[derive(Debug)]
pub(crate) struct StsRequest {
    /// What is asked.
    pub action: StsAction,
    /// How long the keys shall live.
    pub duration: Duration,
}

/// What an [`StsRequest`] asks for.
#[derive(Debug)]
pub(crate) enum StsAction {
    /// Keys for the caller, who has signed.
    AssumeRole(NamedRole),
    /// Keys for whom a token is about; nothing is signed.
    AssumeRoleWithWebIdentity {
        /// `WebIdentityToken`
        token: String,
        /// What SDKs must name.
        role: NamedRole,
    },
    /// Keys for the caller, who has signed.
    GetSessionToken,
}

/// What SDKs must name, and get to read again. It grants nothing: what a caller may do is configured.
#[derive(Debug)]
pub(crate) struct NamedRole {
    /// `RoleArn`
    pub arn: String,
    /// `RoleSessionName`
    pub session: String,
}

/// Whether `head` is a call of an STS, and not of S3: nobody posts forms of this kind to `/` else. What
/// S3 has there for a bucket that the host names (`/?delete`) has a parameter.
pub(crate) fn is_sts(head: &Parts) -> bool {
    head.method == Method::POST
        && head.uri.path() == "/"
        && head.uri.query().is_none()
        && is_form(&head.headers)
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| {
        kind.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

impl StsAction {
    /// Reads the action, and gives the names of the parameters that it has.
    fn read(form: &Query<'_>) -> Result<(Self, &'static [&'static str]), S3Error> {
        let required = |name: &str| {
            let value = form.get(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| invalid(&format!("{name} is missing")))
        };
        let role = || {
            Ok::<_, S3Error>(NamedRole {
                arn: checked("RoleArn", required("RoleArn")?, is_arn)?,
                session: checked("RoleSessionName", required("RoleSessionName")?, is_session)?,
            })
        };
        match required("Action")? {
            "AssumeRole" => Ok((Self::AssumeRole(role()?), &["RoleArn", "RoleSessionName"])),
            "AssumeRoleWithWebIdentity" => Ok((
                Self::AssumeRoleWithWebIdentity {
                    // SDKs send the token's file as it is, and many a file ends with a newline.
                    token: required("WebIdentityToken")?.trim().to_owned(),
                    role: role()?,
                },
                &["RoleArn", "RoleSessionName", "WebIdentityToken"],
            )),
            "GetSessionToken" => Ok((Self::GetSessionToken, &[])),
            _ => Err(S3Error::new(
                Code::InvalidAction,
                "Only AssumeRole, AssumeRoleWithWebIdentity and GetSessionToken are offered here.",
            )),
        }
    }
}

/// Refuses a parameter that is not one of `known` or of every action.
fn check_parameters(form: &Query<'_>, known: &[&str]) -> Result<(), S3Error> {
    let strange = form.iter().map(|(name, _)| name).find(|name| {
        !known.contains(name) && !matches!(*name, "Action" | "DurationSeconds" | "Version")
    });
    let Some(name) = strange else { return Ok(()) };
    let is_named = |known: &&str| name.split('.').next() == Some(known); // or PolicyArns.member.1.arn
    let named = NOT_OFFERED.into_iter().find(is_named);
    let name = named.unwrap_or("a parameter");
    Err(invalid(&format!(
        "{name} is not offered here; leave it out"
    )))
}

/// Reads `DurationSeconds`.
fn duration(seconds: &str) -> Result<Duration, S3Error> {
    let digits = seconds.len() <= 6 && seconds.bytes().all(|b| b.is_ascii_digit());
    let seconds = seconds.parse().ok().filter(|_| digits);
    let seconds = seconds.filter(|seconds| *seconds >= SHORTEST);
    let seconds = seconds
        .ok_or_else(|| invalid("DurationSeconds must be a number of seconds, 900 at least"))?;
    Ok(Duration::from_secs(seconds))
}

impl StsRequest {
    /// Reads a form. Every parameter must be known, and stand once.
    pub(crate) fn parse(form: &[u8]) -> Result<Self, S3Error> {
        let form = std::str::from_utf8(form).map_err(|_| invalid("the form is not UTF-8"))?;
        let form = Query::parse(form)?;
        let (action, known) = StsAction::read(&form)?;
        check_parameters(&form, known)?;
        if form
            .get("Version")
            .is_some_and(|version| version != "2011-06-15")
        {
            return Err(invalid("Version must be 2011-06-15"));
        }
        let duration = form.get("DurationSeconds").map_or(Ok(USUAL), duration)?;
        Ok(Self { action, duration })
    }

    /// The action's name.
    pub(crate) fn action_name(&self) -> &'static str {
        match &self.action {
            StsAction::AssumeRole(_) => "AssumeRole",
            StsAction::AssumeRoleWithWebIdentity { .. } => "AssumeRoleWithWebIdentity",
            StsAction::GetSessionToken => "GetSessionToken",
        }
    }

    /// The role that it names.
    pub(crate) fn role(&self) -> Option<&NamedRole> {
        match &self.action {
            StsAction::AssumeRole(role) | StsAction::AssumeRoleWithWebIdentity { role, .. } => {
                Some(role)
            }
            StsAction::GetSessionToken => None,
        }
    }
}

/// The code and status that an STS has for `error`: SDKs look for its own names.
pub fn sts_code(error: &S3Error) -> (&'static str, StatusCode) {
    let name = match error.code() {
        Code::ExpiredToken => "ExpiredTokenException",
        Code::InvalidAccessKeyId => "InvalidClientTokenId",
        Code::InvalidArgument | Code::InvalidRequest | Code::InvalidURI => "ValidationError",
        Code::InvalidToken => "InvalidIdentityToken",
        Code::ServiceUnavailable => "IDPCommunicationError", // the SDKs' word to try again
        Code::SlowDown => "Throttling",
        other => other.as_str(),
    };
    (name, error.http_status())
}

fn checked(name: &str, value: &str, rule: fn(&str) -> bool) -> Result<String, S3Error> {
    if rule(value) {
        return Ok(value.to_owned());
    }
    Err(invalid(&format!("{name} is not written as AWS writes it")))
}

fn is_arn(arn: &str) -> bool {
    (20..=ARN_BYTES).contains(&arn.len()) && arn.bytes().all(|byte| byte.is_ascii_graphic())
}

/// STS's own rule: `[\w+=,.@-]`, 2 to 64.
fn is_session(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    (2..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn invalid(why: &str) -> S3Error {
    S3Error::new(
        Code::InvalidArgument,
        format!("The call is refused: {why}."),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROLE: &str = "RoleArn=arn%3Aaws%3Aiam%3A%3A0%3Arole%2Fx&RoleSessionName=app-1";

    fn why(form: &str) -> (Code, String) {
        let error = StsRequest::parse(form.as_bytes()).unwrap_err();
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn the_forms_that_sdks_send() {
        let form = format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&{ROLE}&WebIdentityToken=a.b.c"
        );
        let asked = StsRequest::parse(form.as_bytes()).unwrap();
        assert_eq!(
            (asked.duration, asked.action_name()),
            (USUAL, "AssumeRoleWithWebIdentity")
        );
        assert_eq!(asked.role().unwrap().arn, "arn:aws:iam::0:role/x");
        let asked = StsRequest::parse(b"Action=GetSessionToken&DurationSeconds=900").unwrap();
        assert_eq!(asked.duration, Duration::from_mins(15));
        assert!(asked.role().is_none());
        assert!(StsRequest::parse(format!("Action=AssumeRole&{ROLE}").as_bytes()).is_ok());
    }

    #[test]
    fn what_is_not_understood_whole_is_refused() {
        for (form, reason) in [
            (String::new(), "Action"),
            (
                "Action=GetSessionToken&Action=GetSessionToken".into(),
                "twice",
            ),
            (
                "Action=GetSessionToken&Version=2012-10-17".into(),
                "Version",
            ),
            (
                "Action=GetSessionToken&SerialNumber=x".into(),
                "SerialNumber",
            ),
            (
                "Action=GetSessionToken&WebIdentityToken=x".into(),
                "a parameter",
            ),
            (
                "Action=GetSessionToken&DurationSeconds=899".into(),
                "DurationSeconds",
            ),
            (
                "Action=GetSessionToken&DurationSeconds=%2B900".into(),
                "DurationSeconds",
            ),
            (
                "Action=GetSessionToken&DurationSeconds=".into(),
                "DurationSeconds",
            ),
            (format!("Action=AssumeRole&{ROLE}&Policy=%7B%7D"), "Policy"),
            (
                format!("Action=AssumeRole&{ROLE}&PolicyArns.member.1.arn=x"),
                "PolicyArns",
            ),
            (
                format!("Action=AssumeRoleWithWebIdentity&{ROLE}"),
                "WebIdentityToken",
            ),
            (
                "Action=AssumeRole&RoleArn=x&RoleSessionName=ab".into(),
                "RoleArn",
            ),
            (
                format!("Action=AssumeRole&{}", ROLE.replace("app-1", "a%3Cb")),
                "RoleSessionName",
            ),
        ] {
            assert!(why(&form).1.contains(reason), "{form}: {:?}", why(&form));
        }
        assert_eq!(
            why("Action=DecodeAuthorizationMessage").0,
            Code::InvalidAction
        );
    }

    proptest! {
        #[test]
        fn no_form_panics(form in "[ -~]{0,200}") {
            let _ = StsRequest::parse(form.as_bytes());
            let _ = StsRequest::parse(format!("Action=AssumeRole&{form}").as_bytes());
        }
    }
}
