//! The configuration as it is used, table by table, for the operator to see: with its defaults, and of each
//! secret only where it came from.
//!
//! Each table is taken apart field by field, so that a new key does not compile before it is here.

mod callers;
mod issuers;

use std::borrow::Cow;
use std::fmt::Display;
use std::path::Path;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use self::callers::{identity_keys, template_keys, tenant_keys};
use self::issuers::issuer_keys;
use super::endpoint::EndpointTemplate;
use super::given_secret::GivenSecret;
use super::grammar::spell;
use super::log::{AccessFormat, LogConfig, ProgramFormat};
use super::model::{
    ClientAuth, Config, IdentityProviderConfig, Issuer, ReadyPart, Server, ServerLimits, ServerTls,
    SharedCache, StoredCheck, Sts, TemplateConfig, TenantConfig, Upstream, UpstreamLimits,
    UpstreamSignature,
};
use super::named_file::FileKind;
use super::traces::{CollectorConfig, TracesConfig};

/// A table of the configuration, which is written out when it is wanted: there may be thousands.
#[derive(Clone, Debug)]
pub struct ShownTable<'a> {
    /// As a file heads it: `server.limits`, `tenants.acme`.
    pub name: Cow<'a, str>,
    config: &'a Config,
    content: TableOf<'a>,
}

#[derive(Clone, Copy, Debug)]
enum TableOf<'a> {
    Credentials,
    Identity(&'a IdentityProviderConfig),
    Include,
    Issuer(&'a Issuer),
    Log,
    Server,
    ServerLimits,
    ServerTls(&'a ServerTls),
    Shared(&'a SharedCache),
    Sts,
    StsLimits,
    Template(&'a TemplateConfig),
    Tenant(&'a TenantConfig),
    Traces,
    Upstream,
    UpstreamLimits,
}

impl Config {
    /// Every table, in no order.
    pub fn shown_tables(&self) -> impl Iterator<Item = ShownTable<'_>> {
        let table = |name, content| ShownTable {
            name,
            config: self,
            content,
        };
        let fixed = [
            ("credentials", TableOf::Credentials),
            ("include", TableOf::Include),
            ("log", TableOf::Log),
            ("server", TableOf::Server),
            ("server.limits", TableOf::ServerLimits),
            ("sts", TableOf::Sts),
            ("sts.limits", TableOf::StsLimits),
            ("traces", TableOf::Traces),
            ("upstream", TableOf::Upstream),
            ("upstream.limits", TableOf::UpstreamLimits),
        ];
        let shared = self.credential_shared.as_ref().map(TableOf::Shared);
        let tls = self.server.tls.as_ref().map(TableOf::ServerTls);
        let optional = [("credentials.shared", shared), ("server.tls", tls)];
        let optional = optional
            .into_iter()
            .filter_map(|(name, content)| Some((name, content?)));
        let fixed = fixed.into_iter().chain(optional);
        let issuers = self.issuers.iter();
        let issuers = issuers.map(|issuer| ("issuers", &issuer.name, TableOf::Issuer(issuer)));
        let identities = self.identities.iter();
        let identities =
            identities.map(|identity| ("identities", &identity.name, TableOf::Identity(identity)));
        let templates = self.templates.iter();
        let templates =
            templates.map(|template| ("templates", &template.name, TableOf::Template(template)));
        let tenants = self.tenants.iter();
        let tenants = tenants.map(|tenant| ("tenants", &tenant.name, TableOf::Tenant(tenant)));
        let named = issuers.chain(identities).chain(templates).chain(tenants);
        fixed
            .map(move |(name, content)| table(Cow::Borrowed(name), content))
            .chain(
                named.map(move |(of, name, content)| {
                    table(Cow::Owned(format!("{of}.{name}")), content)
                }),
            )
    }
}

impl ShownTable<'_> {
    /// Its keys and their values, without those that are not set.
    pub fn keys(&self) -> Map<String, Value> {
        let config = self.config;
        let keys = match self.content {
            TableOf::Credentials => credentials(config),
            TableOf::Identity(identity) => identity_keys(identity),
            TableOf::Include => include(config),
            TableOf::Issuer(issuer) => issuer_keys(config, issuer),
            TableOf::Log => log(&config.log),
            TableOf::Server => server(&config.server),
            TableOf::ServerLimits => server_limits(&config.server.limits),
            TableOf::ServerTls(tls) => server_tls(tls),
            TableOf::Shared(shared) => shared_keys(shared),
            TableOf::Sts => sts(&config.sts),
            TableOf::StsLimits => sts_limits(&config.sts),
            TableOf::Template(template) => template_keys(config, template),
            TableOf::Tenant(tenant) => tenant_keys(config, tenant),
            TableOf::Traces => traces(&config.traces),
            TableOf::Upstream => upstream(&config.upstream),
            TableOf::UpstreamLimits => upstream_limits(&config.upstream.limits),
        };
        match without_absent(keys) {
            Value::Object(keys) => keys,
            _ => Map::new(),
        }
    }
}

fn without_absent(value: Value) -> Value {
    match value {
        Value::Object(keys) => {
            let keys = keys.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                keys.map(|(key, value)| (key, without_absent(value)))
                    .collect(),
            )
        }
        Value::Array(elements) => elements.into_iter().map(without_absent).collect(),
        other => other,
    }
}

fn server(server: &Server) -> Value {
    let Server {
        listen,
        socket_mode,
        admin,
        admin_token,
        admin_hosts,
        domains,
        region,
        strict_region,
        allow_remote_anonymous,
        allow_plain_bearer,
        loopback_is_proxy,
        proxy_protocol,
        trusted_proxies,
        trusted_users,
        allow_qsign,
        allow_sigv2_presign,
        threads,
        max_presign,
        session_secrets,
        sessions_not_before,
        ready_requires,
        tenant_metrics,
        reuse_port,
        reload_on_change,
        max_session,
        tls: _,
        limits: _,
    } = server;
    let mut session_secrets = session_secrets.iter().map(secret);
    json!({
        "listen": text(listen),
        "socket_mode": format!("{socket_mode:04o}"),
        "admin": admin.map_or_else(String::new, |admin| admin.to_string()),
        "admin_token": admin_token.as_ref().map(secret),
        "admin_hosts": admin_hosts,
        "domains": domains,
        "region": region,
        "strict_region": strict_region,
        "allow_remote_anonymous": allow_remote_anonymous,
        "allow_plain_bearer": allow_plain_bearer,
        "loopback_is_proxy": loopback_is_proxy,
        "proxy_protocol": proxy_protocol,
        "trusted_proxies": proxies(trusted_proxies, trusted_users),
        "allow_qsign": allow_qsign,
        "allow_sigv2_presign": allow_sigv2_presign,
        "threads": threads,
        "max_presign": spell(*max_presign),
        "session_secret": session_secrets.next(),
        "previous_session_secret": session_secrets.next(),
        "sessions_not_before": sessions_not_before.map(text),
        "ready_requires": ready_parts(ready_requires),
        "tenant_metrics": tenant_metrics,
        "reuse_port": reuse_port,
        "reload_on_change": reload_on_change,
        "max_session": spell(*max_session),
    })
}

fn proxies(networks: &[IpNet], users: &[u32]) -> Vec<String> {
    let users = users.iter().map(|user| format!("unix:{user}"));
    networks
        .iter()
        .map(ToString::to_string)
        .chain(users)
        .collect()
}

fn ready_parts(parts: &[ReadyPart]) -> Vec<&'static str> {
    let name = |part: &ReadyPart| match part {
        ReadyPart::Cos => "cos",
        ReadyPart::Sts => "sts",
    };
    parts.iter().map(name).collect()
}

pub(super) fn server_tls(tls: &ServerTls) -> Value {
    let ServerTls {
        cert,
        key,
        client_ca,
        client_crl,
        client_auth,
    } = tls;
    json!({
        "cert": path(cert),
        "key": path(key),
        "client_ca": client_ca.as_deref().map(path),
        "client_crl": client_crl.as_deref().map(path),
        "client_auth": match client_auth {
            ClientAuth::Optional => "optional",
            ClientAuth::Required => "required",
        },
    })
}

pub(super) fn server_limits(limits: &ServerLimits) -> Value {
    let ServerLimits {
        head_bytes,
        head_fields,
        head_timeout,
        body_rate,
        body_window,
        idle_timeout,
        tls_handshake_timeout,
        xml_bytes,
        connections,
        connections_per_address,
        stranger_bytes,
        drain_delay,
        drain_timeout,
        streams,
        stream_window,
    } = limits;
    json!({
        "head_bytes": head_bytes,
        "head_fields": head_fields,
        "head_timeout": spell(*head_timeout),
        "body_rate": body_rate,
        "body_window": spell(*body_window),
        "idle_timeout": spell(*idle_timeout),
        "tls_handshake_timeout": spell(*tls_handshake_timeout),
        "xml_bytes": xml_bytes,
        "connections": connections,
        "connections_per_address": connections_per_address,
        "stranger_bytes": stranger_bytes,
        "drain_delay": spell(*drain_delay),
        "drain_timeout": spell(*drain_timeout),
        "streams": streams,
        "stream_window": stream_window,
    })
}

pub(super) fn upstream(upstream: &Upstream) -> Value {
    let Upstream {
        endpoint,
        service_endpoint,
        signature,
        connect_to,
        ca_file,
        stored_check,
        spool_unknown_length,
        limits: _,
    } = upstream;
    json!({
        "endpoint": url(endpoint),
        "service_endpoint": url(service_endpoint),
        "signature": match signature {
            UpstreamSignature::Cos => "cos",
            UpstreamSignature::S3 => "s3",
        },
        "connect_to": connect_to,
        "ca_file": ca_file.as_deref().map(path),
        "stored_check": match stored_check {
            StoredCheck::Crc64Ecma => "crc64ecma",
            StoredCheck::Md5 => "md5",
            StoredCheck::Off => "off",
        },
        "spool_unknown_length": spool_unknown_length,
    })
}

pub(super) fn upstream_limits(limits: &UpstreamLimits) -> Value {
    let UpstreamLimits {
        connect_timeout,
        tls_handshake_timeout,
        head_timeout,
        idle_timeout,
        idle_connections,
    } = limits;
    json!({
        "connect_timeout": spell(*connect_timeout),
        "tls_handshake_timeout": spell(*tls_handshake_timeout),
        "head_timeout": spell(*head_timeout),
        "idle_timeout": spell(*idle_timeout),
        "idle_connections": idle_connections,
    })
}

pub(super) fn sts(sts: &Sts) -> Value {
    let Sts {
        endpoint,
        region,
        connect_to,
        ca_file,
        timeout: _, // of [sts.limits]
        answer_bytes: _,
    } = sts;
    json!({
        "endpoint": url(endpoint),
        "region": region,
        "connect_to": connect_to,
        "ca_file": ca_file.as_deref().map(path),
    })
}

pub(super) fn sts_limits(sts: &Sts) -> Value {
    json!({ "timeout": spell(sts.timeout), "answer_bytes": sts.answer_bytes })
}

pub(super) fn credentials(config: &Config) -> Value {
    json!({
        "entries": config.credential_entries,
        "session_policies": config.credential_session_policies,
        "warm": config.credential_warm,
    })
}

fn shared_keys(shared: &SharedCache) -> Value {
    let SharedCache {
        redis,
        sentinels,
        ca_file,
        key,
        limits,
        limits_timeout,
    } = shared;
    json!({
        "redis": secret(redis),
        "sentinels": sentinels,
        "ca_file": ca_file.as_deref().map(path),
        "key": secret(key),
        "limits": limits,
        "limits_timeout": spell(*limits_timeout),
    })
}

pub(super) fn log(log: &LogConfig) -> Value {
    let LogConfig {
        access,
        access_file,
        access_share,
        access_slow,
        access_user_agent,
        program,
    } = log;
    json!({
        "access": match access {
            AccessFormat::Combined => "combined",
            AccessFormat::Json => "json",
            AccessFormat::Off => "off",
            AccessFormat::Short => "short",
        },
        "access_file": access_file.as_deref().map(path),
        "access_share": text(access_share),
        "access_slow": spell(*access_slow),
        "access_user_agent": access_user_agent,
        "program": match program {
            ProgramFormat::Json => "json",
            ProgramFormat::Text => "text",
        },
    })
}

fn traces(traces: &TracesConfig) -> Value {
    let TracesConfig {
        enabled,
        share,
        collector,
    } = traces;
    let collector = collector.as_ref().map(|collector| {
        let CollectorConfig {
            endpoint,
            ca_file,
            authorization,
        } = collector;
        json!({
            "endpoint": url(endpoint),
            "ca_file": ca_file.as_deref().map(path),
            "authorization": authorization.as_ref().map(secret),
        })
    });
    let own = json!({ "enabled": enabled, "share": text(share) });
    merged([own, collector.unwrap_or_default()])
}

fn include(config: &Config) -> Value {
    let included = config.files.iter();
    let included = included.filter(|file| file.kind == FileKind::Configuration);
    json!({ "number_of_files": included.count() })
}

/// Where a secret came from, which is all that is shown of it.
fn secret(given: &GivenSecret) -> String {
    given.source.to_string()
}

fn issuer_name(config: &Config, index: usize) -> Option<&str> {
    config.issuers.get(index).map(|issuer| issuer.name.as_str())
}

fn url(endpoint: &EndpointTemplate) -> String {
    let EndpointTemplate {
        tls,
        authority,
        path,
    } = endpoint;
    let scheme = if *tls { "https" } else { "http" };
    format!("{scheme}://{authority}{path}")
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn text(value: impl Display) -> String {
    value.to_string()
}

fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn merged<const N: usize>(parts: [Value; N]) -> Value {
    let mut all = Map::new();
    for part in parts {
        if let Value::Object(keys) = part {
            all.extend(keys);
        }
    }
    Value::Object(all)
}
