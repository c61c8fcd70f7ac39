//! `getCredential` of the COS STS SDKs: one temporary key, without a configuration.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use cosgate::credentials::shapes::{Shape, render};
//! use cosgate::credentials::{Host, Options, Scope, get_credential};
//! use cosgate::secret::Secret;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let scope = Scope {
//!     bucket: "examplebucket-1250000000".to_owned(),
//!     region: "ap-guangzhou".to_owned(),
//!     allow_prefixes: vec!["uploads/*".to_owned()],
//!     allow_actions: vec!["name/cos:PutObject".to_owned()],
//!     condition: [].into(),
//! };
//! let secret_key = Secret::new(std::env::var("TENCENTCLOUD_SECRET_KEY")?);
//! let options = Options {
//!     duration: Duration::from_mins(30),
//!     host: Host::parse("sts.internal.tencentcloudapi.com")?,
//!     ..Options::new(std::env::var("TENCENTCLOUD_SECRET_ID")?, secret_key, scope.policy()?)
//! };
//! let key = get_credential(&options).await?;
//! print!("{}", *render(Shape::Json, &key, options.duration, &[]));
//! # Ok(())
//! # }
//! ```
//!
//! Where it differs from those SDKs, on purpose: the call is signed with TC3-HMAC-SHA256 over verified
//! TLS; an empty list of prefixes or actions and a bucket without APPID are refused; a raw policy is
//! checked before it is sent; a policy is always sent, for a role too; data processing (`ci`) has no
//! scope of its own and is written as a raw policy.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::base::Base;
use super::credential::Credential;
use super::issuer::{IssueMethod, IssuerSettings, StsIssuer};
use super::key_files::WatchedKey;
use super::sts::StsError;
use crate::clock::{Clock, wall_clock};
use crate::config::cam::{Condition, Policy, PolicyError};
use crate::config::{GivenKey, GivenSecret, Role, SecretSource};
use crate::secret::Secret;
use crate::tenant::policy::policy_from_prefixes;
use crate::upstream::dial::{Dialer, HttpProxy, Roots};
use crate::upstream::one_shot::OneShotClient;

/// The SDKs' default.
const DURATION: Duration = Duration::from_mins(30);
/// The longest life of a sub-account's federation token (1312/48195).
const FEDERATION_LONGEST: Duration = Duration::from_hours(36);
/// The longest life of a role's key (1312/48197).
const ROLE_LONGEST: Duration = Duration::from_hours(12);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit of one call, from the look-up of the host to the last byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of the response to it.
const RESPONSE_BYTES: usize = 64 * 1024;

/// The parameters of [`get_credential`].
#[derive(Clone, Debug)]
pub struct Options {
    /// `secretId` of a permanent key.
    pub secret_id: String,
    /// `secretKey`
    pub secret_key: Secret,
    /// `host`: the public one (default), `sts.internal.tencentcloudapi.com` or a gateway's.
    pub host: Host,
    /// PEM roots in place of the platform's.
    pub ca_file: Option<PathBuf>,
    /// `proxy`
    pub proxy: Option<HttpProxy>,
    /// `durationSeconds`, whole seconds (30 minutes).
    pub duration: Duration,
    /// `region`: the `X-TC-Region` of the call (`ap-guangzhou`).
    pub region: String,
    /// What the key may do; see [`Scope::policy`] and [`Policy::parse`].
    pub policy: Policy,
    /// `roleArn`: a key of this role, by `AssumeRole`; without it by `GetFederationToken`.
    pub role: Option<AssumedRole>,
    /// `Name` of a federation token, which Tencent's audit shows; only letters of it are sent.
    pub name: String,
}

impl Options {
    /// With the SDKs' defaults.
    pub fn new(secret_id: String, secret_key: Secret, policy: Policy) -> Self {
        Self {
            secret_id,
            secret_key,
            host: Host::default(),
            ca_file: None,
            proxy: None,
            duration: DURATION,
            region: "ap-guangzhou".to_owned(),
            policy,
            role: None,
            name: "cosgate".to_owned(),
        }
    }
}

/// A CAM role that a key shall have the rights of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedRole {
    /// `RoleArn`: `qcs::cam::uin/100000000001:roleName/uploads`
    pub arn: String,
    /// `RoleSessionName`, which Tencent's audit shows.
    pub session: String,
    /// `ExternalId`, where the role's trust policy requires one.
    pub external_id: Option<String>,
}

/// A scope as the SDKs' `getCredential` takes it.
#[derive(Clone, Debug)]
pub struct Scope {
    /// `bucket`, APPID included.
    pub bucket: String,
    /// `region`
    pub region: String,
    /// `allowPrefix`, `allowPrefixes`: `*`, `a*`, `a/*`, `exact-key`, with a leading `/` or without.
    pub allow_prefixes: Vec<String>,
    /// `allowActions`: `name/cos:PutObject`, …
    pub allow_actions: Vec<String>,
    /// `condition`: operator, then key, then value or values.
    pub condition: Condition,
}

impl Scope {
    /// The policy of this scope, checked.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        let [prefixes, actions] = [&self.allow_prefixes, &self.allow_actions]
            .map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
        let mut policy = policy_from_prefixes(&self.bucket, &self.region, &prefixes, &actions)
            .map_err(|error| PolicyError {
                message: error.to_string(),
                fix: "write its full name".to_owned(),
            })?;
        for statement in &mut policy.statement {
            statement.condition = self.condition.clone();
        }
        let checked = Policy::parse(&policy.json())?;
        checked.check_account(&self.bucket)?;
        Ok(checked)
    }
}

/// Where STS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    authority: String,
    tls: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            authority: "sts.tencentcloudapi.com".to_owned(),
            tls: true,
        }
    }
}

impl Host {
    /// Reads `host` or `host:port`, with `https://` before it or not. Plain `http://` is for loopback alone.
    pub fn parse(text: &str) -> Result<Self, GetCredentialError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (tls, authority) = match text.strip_prefix("http://") {
            Some(authority) => (false, authority),
            None => (true, text.strip_prefix("https://").unwrap_or(text)),
        };
        let wrong = |why: &str| GetCredentialError::Options(format!("the host {text:?} {why}"));
        let parsed: http::uri::Authority = authority
            .parse()
            .map_err(|_| wrong("is not host or host:port"))?;
        if parsed.as_str().contains('@') || parsed.host().is_empty() {
            return Err(wrong("is not host or host:port"));
        }
        if !tls && !crate::config::is_loopback(authority) {
            return Err(wrong(
                "is plain http: the key would cross the network; write https",
            ));
        }
        Ok(Self {
            authority: authority.to_owned(),
            tls,
        })
    }

    /// `host` or `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// Why there is no key.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetCredentialError {
    /// The options are wrong; the text says how to fix them.
    Options(String),
    /// STS was called and gave none.
    Sts(StsError),
}

impl fmt::Display for GetCredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(why) => f.write_str(why),
            Self::Sts(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GetCredentialError {}

/// Requests one key: one call to STS, and a second if this machine's clock is wrong. Nothing is kept.
pub async fn get_credential(options: &Options) -> Result<Credential, GetCredentialError> {
    let wrong = |error: &dyn fmt::Display| GetCredentialError::Options(error.to_string());
    let longest = match &options.role {
        None => FEDERATION_LONGEST,
        Some(role) => {
            check_role(role)?;
            ROLE_LONGEST
        }
    };
    if !(Duration::from_secs(1)..=longest).contains(&options.duration) {
        let hours = longest.as_secs() / 3600;
        return Err(wrong(&format!("the duration must be 1s to {hours}h")));
    }
    let roots = Roots::for_endpoint(options.host.tls, options.ca_file.as_deref())
        .map_err(|error| wrong(&error))?;
    let dialer = Dialer::new(roots.as_ref(), None, CONNECT_TIMEOUT, CONNECT_TIMEOUT);
    let dialer = match options.proxy.clone() {
        None => dialer,
        Some(proxy) => dialer.through(proxy),
    };
    let result = issuer(options, dialer)
        .issue(&options.name, &options.policy.json())
        .await;
    let issued = result.map_err(GetCredentialError::Sts)?;
    issued.credential().map_err(|error| wrong(&error))
}

/// The issuer that `options` describe. Its keys are shared with nobody.
fn issuer(options: &Options, dialer: Dialer) -> StsIssuer {
    let given = |value: Secret| GivenSecret {
        value,
        source: SecretSource::Literal,
    };
    let key = GivenKey {
        secret_id: given(Secret::new(options.secret_id.as_str())),
        secret_key: given(options.secret_key.clone()),
        token: None,
    };
    let base = Base::Watched(Box::new(WatchedKey::given("", &key)));
    let duration = options.duration;
    let method = match &options.role {
        None => IssueMethod::Federation { base, duration },
        Some(role) => IssueMethod::AssumeRole {
            base,
            role: Role {
                arn: role.arn.clone(),
                session_name: role.session.clone(),
                external_id: role.external_id.clone(),
                tags: Vec::new(),
                source_identity: None,
                duration,
            },
        },
    };
    let host = options.host.authority();
    let settings = IssuerSettings {
        name: String::new(),
        sharing_identity: String::new(),
        region: options.region.clone(),
        method,
        client: OneShotClient::new(host, dialer, CALL_TIMEOUT, RESPONSE_BYTES),
    };
    StsIssuer::new(settings, Arc::new(Clock::new(wall_clock)), Arc::default())
}

/// The limits of Tencent's SDK: 2 to 128 of letters, digits and `+=,.@_-` and, in an external id, `:` and `/`.
fn check_role(role: &AssumedRole) -> Result<(), GetCredentialError> {
    let fits = |text: &str, more: &str| {
        let known =
            |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c) || more.contains(c);
        (2..=128).contains(&text.len()) && text.chars().all(known)
    };
    let wrong = |what: &str| Err(GetCredentialError::Options(what.to_owned()));
    if !role.arn.starts_with("qcs::cam::uin/")
        || !fits(&role.arn.replacen("qcs::cam::", "", 1), ":/")
    {
        return wrong("a role is written qcs::cam::uin/UIN:roleName/NAME");
    }
    if !fits(&role.session, "") {
        return wrong("the role session name has 2 to 128 letters, digits and +=,.@_-");
    }
    if role.external_id.as_ref().is_some_and(|id| !fits(id, ":/")) {
        return wrong("the external id has 2 to 128 letters, digits and +=,.@:/_-");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_plain_http_beyond_loopback() {
        for (text, tls) in [
            ("sts.internal.tencentcloudapi.com", true),
            ("https://gateway.example:8443/", true),
            ("http://127.0.0.1:9001", false),
        ] {
            assert_eq!(Host::parse(text).unwrap().tls, tls, "{text}");
        }
        for text in [
            "",
            "http://sts.tencentcloudapi.com",
            "a b",
            "user@host",
            "https://",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rejects_malformed_roles() {
        let role = |arn: &str, session: &str, id: &str| AssumedRole {
            arn: arn.to_owned(),
            session: session.to_owned(),
            external_id: Some(id.to_owned()),
        };
        let good = "qcs::cam::uin/100000000001:roleName/cos-tenant";
        assert!(check_role(&role(good, "uploads", "ext:id/1")).is_ok());
        assert!(check_role(&role("arn:aws:iam::1:role/x", "uploads", "id")).is_err());
        assert!(check_role(&role(good, "a b", "id")).is_err());
        assert!(check_role(&role(good, "uploads", "i")).is_err());
    }
}
