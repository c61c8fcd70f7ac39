//! The requests of AWS SDKs to an STS (API version 2011-06-15): the few actions that give session keys.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http::{Method, StatusCode};

use super::Query;
use crate::config::{SESSION_POLICY_BYTES, SessionPolicy};
use crate::error::{Code, S3Error};

/// Bytes of a request's body at most: a token, and names. Nobody is known before it has been read.
pub(crate) const STS_BYTES: usize = 32 * 1024;
/// STS's limits of `DurationSeconds`.
const SHORTEST: u64 = 900;
/// How long keys live when the client does not say.
const USUAL: Duration = Duration::from_hours(1);
/// The session's name where the client gives a role and no name.
const SESSION_NAME: &str = "session";
/// STS's limit of an ARN.
const ARN_BYTES: usize = 2048;
/// Parameters that would make the keys narrower, or request proof that nobody checks: to pass over
/// one would give more than was requested.
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
    /// What is requested.
    pub action: StsAction,
    /// How long the keys shall live.
    pub duration: Duration,
    /// What the keys may do at most; `None`: what their caller may.
    pub policy: Option<Arc<SessionPolicy>>,
}

/// What an [`StsRequest`] requests.
#[derive(Debug)]
pub(crate) enum StsAction {
    /// Keys for the caller, who has signed.
    AssumeRole(Option<NamedRole>),
    /// Keys for whom a token is about; nothing is signed.
    AssumeRoleWithWebIdentity {
        /// `WebIdentityToken`
        token: String,
        /// What AWS's SDKs must name.
        role: Option<NamedRole>,
    },
    /// Who has signed.
    GetCallerIdentity,
    /// Keys for the caller, who has signed.
    GetSessionToken,
}

/// What AWS's SDKs must name, and get to read again. It grants nothing: what a caller may do is configured.
#[derive(Debug)]
pub(crate) struct NamedRole {
    /// `RoleArn`
    pub arn: String,
    /// `RoleSessionName`
    pub session: String,
}

/// Whether `head` is a call of an STS, and not of S3: nobody posts forms of this kind to `/` else. What
/// S3 has there for a bucket that the host names (`/?delete`) has no `Action`, which some clients send in
/// the query.
pub(crate) fn is_sts(head: &Parts) -> bool {
    let is_call = || match head.uri.query() {
        None => is_form(&head.headers),
        Some(query) => query.split('&').any(|pair| pair.starts_with("Action=")),
    };
    head.method == Method::POST && head.uri.path() == "/" && is_call()
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

impl StsRequest {
    /// Reads a call: its form, and what stands in its query. Every parameter must be known, and stand once.
    pub(crate) fn parse(query: &str, form: &[u8]) -> Result<Self, S3Error> {
        let form = std::str::from_utf8(form).map_err(|_| invalid("the form is not UTF-8"))?;
        let all = [query, form].join("&");
        let form = Query::parse(&all)?;
        let given = |name: &str| form.get(name).filter(|value| !value.is_empty());
        let required =
            |name: &str| given(name).ok_or_else(|| invalid(&format!("{name} is missing")));
        let (action, known): (_, &[&str]) = match required("Action")? {
            "AssumeRole" => (
                StsAction::AssumeRole(NamedRole::read(given)?),
                &["Policy", "RoleArn", "RoleSessionName"],
            ),
            "AssumeRoleWithWebIdentity" => (
                StsAction::AssumeRoleWithWebIdentity {
                    // SDKs send the token's file as it is, and many a file ends with a newline.
                    token: required("WebIdentityToken")?.trim().to_owned(),
                    role: NamedRole::read(given)?,
                },
                &["Policy", "RoleArn", "RoleSessionName", "WebIdentityToken"],
            ),
            "GetCallerIdentity" => (StsAction::GetCallerIdentity, &[]),
            "GetSessionToken" => (StsAction::GetSessionToken, &[]),
            _ => {
                return Err(S3Error::new(
                    Code::InvalidAction,
                    "cosgate supports only AssumeRole, AssumeRoleWithWebIdentity, GetCallerIdentity and GetSessionToken.",
                ));
            }
        };
        check_known(&form, known)?;
        Ok(Self {
            action,
            duration: duration(form.get("DurationSeconds"))?,
            policy: given("Policy").map(session_policy).transpose()?,
        })
    }

    /// The action's name.
    pub(crate) fn action_name(&self) -> &'static str {
        match &self.action {
            StsAction::AssumeRole(_) => "AssumeRole",
            StsAction::AssumeRoleWithWebIdentity { .. } => "AssumeRoleWithWebIdentity",
            StsAction::GetCallerIdentity => "GetCallerIdentity",
            StsAction::GetSessionToken => "GetSessionToken",
        }
    }

    /// The role that it names.
    pub(crate) fn role(&self) -> Option<&NamedRole> {
        match &self.action {
            StsAction::AssumeRole(role) | StsAction::AssumeRoleWithWebIdentity { role, .. } => {
                role.as_ref()
            }
            StsAction::GetCallerIdentity | StsAction::GetSessionToken => None,
        }
    }
}

impl NamedRole {
    /// The role of a call, if it names one: some clients name none.
    fn read<'f>(given: impl Fn(&str) -> Option<&'f str>) -> Result<Option<Self>, S3Error> {
        let session = given("RoleSessionName").unwrap_or(SESSION_NAME);
        let session = checked("RoleSessionName", session, is_session)?;
        let arn = given("RoleArn").map(|arn| checked("RoleArn", arn, is_arn));
        let role = arn.transpose()?.map(|arn| Self { arn, session });
        Ok(role)
    }
}

/// Refuses a parameter that is none of the action's, and a version that is not ours.
fn check_known(form: &Query<'_>, known: &[&str]) -> Result<(), S3Error> {
    let strange = form.iter().map(|(name, _)| name).find(|name| {
        !known.contains(name) && !matches!(*name, "Action" | "DurationSeconds" | "Version")
    });
    if let Some(name) = strange {
        let is_named = |known: &&str| name.split('.').next() == Some(known); // or PolicyArns.member.1.arn
        let named = NOT_OFFERED.into_iter().find(is_named);
        let name = named.unwrap_or("a parameter");
        return Err(invalid(&format!("{name} is not supported: leave it out")));
    }
    match form.get("Version") {
        None | Some("2011-06-15") => Ok(()),
        Some(_) => Err(invalid("Version must be 2011-06-15")),
    }
}

fn duration(seconds: Option<&str>) -> Result<Duration, S3Error> {
    let Some(seconds) = seconds else {
        return Ok(USUAL);
    };
    let digits = seconds.len() <= 6 && seconds.bytes().all(|b| b.is_ascii_digit());
    let seconds = seconds.parse().ok().filter(|_| digits);
    let seconds = seconds.filter(|seconds| *seconds >= SHORTEST);
    Ok(Duration::from_secs(seconds.ok_or_else(|| {
        invalid("DurationSeconds must be a number of seconds, 900 at least")
    })?))
}

fn session_policy(text: &str) -> Result<Arc<SessionPolicy>, S3Error> {
    let policy = SessionPolicy::parse(text).map_err(|error| {
        S3Error::new(
            Code::MalformedPolicyDocument,
            format!("The Policy is refused: {error}."),
        )
    })?;
    if policy.document().to_string().len() > SESSION_POLICY_BYTES {
        return Err(too_large("without white space"));
    }
    Ok(Arc::new(policy))
}

/// The refusal of a policy that does not fit where it must stand.
pub fn too_large(what: &str) -> S3Error {
    S3Error::new(
        Code::PackedPolicyTooLarge,
        format!(
            "The Policy is longer than {SESSION_POLICY_BYTES} bytes {what}. Name fewer resources and actions."
        ),
    )
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
        let error = StsRequest::parse("", form.as_bytes()).unwrap_err();
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn the_forms_that_sdks_send() {
        let form = format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&{ROLE}&WebIdentityToken=a.b.c"
        );
        let requested = StsRequest::parse("", form.as_bytes()).unwrap();
        assert_eq!(
            (requested.duration, requested.action_name()),
            (USUAL, "AssumeRoleWithWebIdentity")
        );
        assert_eq!(requested.role().unwrap().arn, "arn:aws:iam::0:role/x");
        let requested =
            StsRequest::parse("", b"Action=GetSessionToken&DurationSeconds=900").unwrap();
        assert_eq!(requested.duration, Duration::from_mins(15));
        assert!(requested.role().is_none());
        assert!(StsRequest::parse("", format!("Action=AssumeRole&{ROLE}").as_bytes()).is_ok());
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
            (
                format!("Action=AssumeRole&{ROLE}&Policy=%7B%7D"),
                "Statement",
            ),
            ("Action=GetSessionToken&Policy=%7B%7D".into(), "Policy"),
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

    #[test]
    fn a_call_may_stand_in_the_query_without_a_role() {
        let requested = StsRequest::parse("Action=AssumeRole&Version=2011-06-15", b"").unwrap();
        assert!(requested.role().is_none() && requested.policy.is_none());
        let twice = StsRequest::parse("Action=AssumeRole", b"Action=GetSessionToken");
        assert!(twice.is_err());
        for (target, is_call) in [
            ("/?Action=AssumeRole", true),
            ("/?delete", false),
            ("/photos?Action=x", false),
            ("/", false),
        ] {
            let head = http::Request::post(target).body(()).unwrap().into_parts().0;
            assert_eq!(is_sts(&head), is_call, "{target}");
        }
    }

    #[test]
    fn a_policy_is_read_and_one_that_is_too_long_has_its_own_error() {
        let policy = |resource: &str| {
            let policy = serde_json::json!({"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": resource}});
            let mut form = "Action=AssumeRole&Policy=".to_owned();
            crate::encoding::percent::push_encoded(&mut form, policy.to_string().as_bytes());
            StsRequest::parse("", form.as_bytes())
        };
        assert!(policy("arn:aws:s3:::lake/t/*").unwrap().policy.is_some());
        assert_eq!(
            policy("lake").unwrap_err().code(),
            Code::MalformedPolicyDocument
        );
        let folders = "long*".repeat(500);
        let long = policy(&format!("arn:aws:s3:::lake/{folders}"));
        assert_eq!(long.unwrap_err().code(), Code::PackedPolicyTooLarge);
    }

    proptest! {
        #[test]
        fn no_form_panics(form in "[ -~]{0,200}") {
            let _ = StsRequest::parse("", form.as_bytes());
            let _ = StsRequest::parse("", format!("Action=AssumeRole&{form}").as_bytes());
        }
    }
}
