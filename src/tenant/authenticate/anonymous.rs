//! Anonymous callers: programs on this machine, but no web pages in its browsers. On a Unix socket it is the
//! user that runs cosgate, whom the kernel names.
//!
//! A page can make a browser send requests to loopback, by its own name if it controls the DNS. So the
//! connection, the name and the browser's own marks must all say that no page is behind the request, or a
//! rule of the tenant's grant must allow such pages.

use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN, REFERER};
use http::request::Parts;

use super::Connection;
use crate::config::Config;
use crate::error::{Code, S3Error};
use crate::s3::host::{HostName, is_localhost};
use crate::tenant::Tenant;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// When the anonymous tenant is served, and which it is.
#[derive(Debug)]
pub(super) struct AnonymousRule {
    tenant: Option<usize>,
    remote: bool,
    /// Suffixes of virtual-hosted names, lower case.
    domains: Vec<String>,
}

impl AnonymousRule {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            tenant: config.tenants.iter().position(|tenant| tenant.anonymous),
            remote: config.server.allow_remote_anonymous,
            domains: config.server.domains.clone(),
        }
    }

    /// The index of the anonymous tenant, if a request with `headers` may be its.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        connection: Connection,
    ) -> Result<usize, S3Error> {
        let tenant = self.tenant.ok_or_else(|| {
            denied("this request is not signed: sign it with a local access key, or ask the operator to set anonymous = true for a tenant")
        })?;
        let is_own = connection.user.is_some_and(|user| user.is_own);
        if connection.user.is_some() && !is_own && !self.remote {
            return Err(denied(
                "unsigned requests of this user are not served: sign the request with a local access key, or ask the \
                 operator to name the user in unix_users, or to set [server] allow_remote_anonymous = true",
            ));
        }
        if !connection.loopback && !is_own && !self.remote {
            return Err(denied(
                "unsigned requests are served on loopback only: sign the request with a local access key, or ask \
                 the operator to set [server] allow_remote_anonymous = true",
            ));
        }
        let host = only_text(headers, &HOST).unwrap_or_default();
        if !self.trusts(host) {
            return Err(denied(
                "an unsigned request must name localhost, 127.0.0.1, [::1] or a name under [server] \
                 domains in its Host: use one of these in the endpoint, or sign it with a local access key",
            ));
        }
        Ok(tenant)
    }

    /// Whether no stranger's DNS can have brought a browser here under the name `host`.
    fn trusts(&self, host: &str) -> bool {
        let name = match HostName::parse(host) {
            HostName::Address(address) => return address.is_loopback() || self.remote, // it is not looked up
            HostName::Name(name) => name,
        };
        name == "localhost"
            || self.domains.iter().any(|domain| {
                (self.remote || is_localhost(domain))
                    && name
                        .strip_suffix(domain.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
    }
}

/// Refuses an unsigned request for `bucket` that a web page has made a browser send, unless a rule of
/// `tenant` allows such pages. `by_name`: the rule must name the page's origin.
pub(super) fn refuse_page(
    head: &Parts,
    bucket: Option<&str>,
    tenant: &Tenant,
    by_name: bool,
) -> Result<(), S3Error> {
    let host = only_text(&head.headers, &HOST).unwrap_or_default();
    if comes_from_a_page(&head.headers, host) && !tenant.lets_page(head, bucket, by_name) {
        return Err(denied(
            "unsigned requests from web pages are refused: sign the request with a local access key, use a presigned \
             URL, or ask the operator for a cors rule that names the page's origin and the method",
        ));
    }
    Ok(())
}

/// Whether a browser states that a page is behind the request: `Origin`, `Sec-Fetch-Site` of another
/// site, or a `Referer` of another host.
fn comes_from_a_page(headers: &HeaderMap, host: &str) -> bool {
    let other_site = headers
        .get_all(SEC_FETCH_SITE)
        .iter()
        .any(|site| !matches!(site.as_bytes(), b"none" | b"same-origin"));
    let other_referer = headers.get_all(REFERER).iter().any(|referer| {
        let authority = referer.to_str().ok().and_then(|url| url.split_once("://"));
        let authority =
            authority.map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    });
    headers.contains_key(ORIGIN) || other_site || other_referer
}

fn only_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn denied(why: &str) -> S3Error {
    S3Error::new(Code::AccessDenied, format!("Access Denied: {why}"))
}
