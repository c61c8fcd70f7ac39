//! The part of an explanation about COS: the upstream head, and the temporary key that would sign it.

use cosgate::clock::wall_clock;
use cosgate::config::{Config, IssuerKind};
use cosgate::credentials::sts::{ACTION, ASSUME_ROLE, WEB_IDENTITY};
use cosgate::credentials::{Credential, audit_name, session_name};
use cosgate::error::S3Error;
use cosgate::proxy::{Signing, sign};
use cosgate::rewrite::UpstreamRequest;
use cosgate::secret::Secret;
use cosgate::tenant::policy::{Policy, tenant_policy};
use cosgate::tenant::{Permit, Tenant};
use http::{HeaderName, HeaderValue};
use serde::Serialize;

/// Stands in for a key that is not requested. What is made with it is never shown.
const NO_KEY: &str = "none";

/// The head that COS would get.
#[derive(Serialize)]
pub(super) struct UpstreamHead {
    pub(super) method: String,
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
}

/// The temporary key that would sign it.
#[derive(Serialize)]
pub(super) struct KeyForecast {
    pub(super) issuer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Policy>,
    pub(super) policy_bytes: usize,
}

impl UpstreamHead {
    /// The head, signed with a key that is none; what comes of the key is left out again.
    pub(super) fn signed(
        mut fresh: UpstreamRequest,
        config: &Config,
        permit: &Permit<'_, '_>,
        sha256: Option<[u8; 32]>,
    ) -> Result<Self, S3Error> {
        let token = match issuer_kind(config, permit.tenant()) {
            Some(IssuerKind::Static(key)) if key.token.is_none() => None,
            _ => Some(Secret::new(NO_KEY)),
        };
        let region = permit.grant().map_or("", |grant| grant.region.as_str());
        let nobody = Credential::new(NO_KEY.to_owned(), Secret::new(NO_KEY), token, None);
        if let Ok(nobody) = nobody {
            let signing = Signing {
                signature: config.upstream.signature,
                region,
                now: wall_clock(),
            };
            sign(&mut fresh, &nobody, sha256, signing)?;
        }
        let is_document = permit.request().operation.has_xml_body();
        let shown = |(name, value): (&HeaderName, &HeaderValue)| {
            let value = match name.as_str() {
                "authorization" => "<signature>".to_owned(),
                "x-amz-content-sha256" if is_document => "<SHA-256 of the document>".to_owned(),
                "x-amz-date" => "<time of signing>".to_owned(),
                "x-amz-security-token" | "x-cos-security-token" => "<session token>".to_owned(),
                // A customer's own encryption key, where a grant lets one pass.
                name if name.ends_with("-customer-key") => "<secret>".to_owned(),
                _ => String::from_utf8_lossy(value.as_bytes())
                    .escape_debug()
                    .to_string(),
            };
            (name.as_str().to_owned(), value)
        };
        Ok(Self {
            method: fresh.method.to_string(),
            scheme: if fresh.tls { "https" } else { "http" },
            headers: fresh.headers.iter().map(shown).collect(),
            authority: fresh.authority,
            target: fresh.target,
        })
    }
}

impl KeyForecast {
    pub(super) fn describe(&self) -> String {
        let Self {
            issuer,
            policy_bytes,
            ..
        } = self;
        let (Some(action), Some(name), Some(seconds)) =
            (self.action, &self.name, self.duration_seconds)
        else {
            return format!("the issuer {issuer}'s own key, which no policy fences");
        };
        let parameter = if action == ACTION {
            "Name"
        } else {
            "RoleSessionName"
        };
        let policy = match &self.policy {
            Some(_) => format!("with a policy of {policy_bytes} bytes"),
            None => "which no policy fences".to_owned(),
        };
        format!("{action} by the issuer {issuer}, {parameter} {name}, for {seconds} s, {policy}")
    }
}

/// What would be requested of the issuer.
pub(super) fn key(config: &Config, tenant: &Tenant) -> KeyForecast {
    let issuer = issuer(config, tenant);
    let (action, name) = match issuer.map(|issuer| &issuer.kind) {
        Some(IssuerKind::AssumeRole { role, .. }) => (
            Some(ASSUME_ROLE),
            Some(session_name(&role.session_name, &tenant.name)),
        ),
        Some(IssuerKind::Federation { .. }) => (Some(ACTION), Some(audit_name(&tenant.name))),
        Some(IssuerKind::WebIdentity(web)) => (
            Some(WEB_IDENTITY),
            Some(session_name(&web.session_name, &tenant.name)),
        ),
        Some(IssuerKind::Static(_)) | None => (None, None),
    };
    let duration = issuer.and_then(|issuer| issuer.kind.duration());
    let is_fenced = matches!(action, Some(ACTION | ASSUME_ROLE));
    let policy = is_fenced.then(|| tenant_policy(tenant));
    KeyForecast {
        issuer: issuer.map_or_else(String::new, |issuer| issuer.name.clone()),
        action,
        name,
        duration_seconds: duration.map(|duration| duration.as_secs()),
        policy_bytes: policy.as_ref().map_or(0, |policy| policy.json().len()),
        policy,
    }
}

fn issuer<'c>(config: &'c Config, tenant: &Tenant) -> Option<&'c cosgate::config::Issuer> {
    let of_tenant = config.tenants.get(tenant.index).map(|tenant| tenant.issuer);
    let of_template = || {
        let index = tenant.index.checked_sub(config.tenants.len())?;
        config.templates.get(index).map(|template| template.issuer)
    };
    config.issuers.get(of_tenant.or_else(of_template)?)
}

fn issuer_kind<'c>(config: &'c Config, tenant: &Tenant) -> Option<&'c IssuerKind> {
    issuer(config, tenant).map(|issuer| &issuer.kind)
}
