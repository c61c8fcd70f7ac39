//! The differences of two configurations, by name. Secrets are compared and never shown.

use std::collections::HashMap;

use serde_json::Value;

use super::model::{
    AccessKey, BaseKey, Config, Grant, IdentityProviderConfig, Issuer, IssuerKind, Server,
    ServerTls, TemplateConfig, TenantConfig,
};
use super::shown;
use super::traces::TracesConfig;

/// The names of the fields that differ, as the file has them. A field that is forgotten does not compile.
macro_rules! changed {
    ($type:ident, $old:expr, $new:expr, [$($field:ident),* $(,)?], except [$($other:ident),* $(,)?]) => {{
        let (old, new): (&$type, &$type) = ($old, $new);
        let $type { $($field: _,)* $($other: _,)* } = new;
        let all = [$((stringify!($field), old.$field != new.$field)),*];
        let changed = all.into_iter().filter(|(_, is_changed)| *is_changed);
        changed.map(|(name, _)| name.to_owned()).collect::<Vec<String>>()
    }};
}

impl Config {
    /// What is otherwise in `new`, one line for each table: `+` it is new, `-` it is gone, `~` it differs.
    pub fn changes_to(&self, new: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        sections(self, new, &mut lines);
        let differs = |old: &Issuer, issuer: &Issuer| differing_issuer(self, old, new, issuer);
        let lists = (&self.issuers[..], &new.issuers[..]);
        named("issuer", lists, |issuer| &issuer.name, differs, &mut lines);
        let lists = (&self.identities[..], &new.identities[..]);
        named(
            "identity",
            lists,
            |identity| &identity.name,
            differing_identity,
            &mut lines,
        );
        let differs = |old: &TemplateConfig, template: &TemplateConfig| {
            differing_template(self, old, new, template)
        };
        let lists = (&self.templates[..], &new.templates[..]);
        named(
            "template",
            lists,
            |template| &template.name,
            differs,
            &mut lines,
        );
        let differs =
            |old: &TenantConfig, tenant: &TenantConfig| differing_tenant(self, old, new, tenant);
        let lists = (&self.tenants[..], &new.tenants[..]);
        named("tenant", lists, |tenant| &tenant.name, differs, &mut lines);
        lines
    }

    /// Sets what cannot change while the program runs to what it is in `running`, and gives the names of
    /// the keys that were written otherwise.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        keep(
            &mut self.log.access_file,
            &running.log.access_file,
            "[log] access_file",
            &mut kept,
        );
        keep(
            &mut self.traces.collector,
            &running.traces.collector,
            "[traces] endpoint, ca_file and authorization",
            &mut kept,
        );
        let (own, running) = (&mut self.server, &running.server);
        keep(
            &mut own.listen,
            &running.listen,
            "[server] listen",
            &mut kept,
        );
        keep(
            &mut own.socket_mode,
            &running.socket_mode,
            "[server] socket_mode",
            &mut kept,
        );
        keep(&mut own.admin, &running.admin, "[server] admin", &mut kept);
        keep(
            &mut own.tenant_metrics,
            &running.tenant_metrics,
            "[server] tenant_metrics",
            &mut kept,
        );
        keep(
            &mut own.reuse_port,
            &running.reuse_port,
            "[server] reuse_port",
            &mut kept,
        );
        keep(
            &mut own.threads,
            &running.threads,
            "[server] threads",
            &mut kept,
        );
        kept
    }
}

fn keep<T: PartialEq + Clone>(
    own: &mut T,
    running: &T,
    name: &'static str,
    kept: &mut Vec<&'static str>,
) {
    if own != running {
        own.clone_from(running);
        kept.push(name);
    }
}

fn sections(old: &Config, new: &Config, lines: &mut Vec<String>) {
    let tables = |tls: &Option<ServerTls>| tls.iter().cloned().collect::<Vec<_>>();
    let tls = (&*tables(&old.server.tls), &*tables(&new.server.tls));
    let differs = |old: &ServerTls, new: &ServerTls| {
        differing_keys(&shown::server_tls(old), &shown::server_tls(new))
    };
    named("table", tls, |_| "[server.tls]", differs, lines);
    let mut section = |heading: &str, names: Vec<String>| {
        if !names.is_empty() {
            lines.push(format!("~ table {heading} ({})", names.join(", ")));
        }
    };
    section("[server]", differing_server(&old.server, &new.server));
    let shown = |table: fn(&Config) -> Value| differing_keys(&table(old), &table(new));
    section(
        "[server.limits]",
        shown(|config| shown::server_limits(&config.server.limits)),
    );
    section("[log]", shown(|config| shown::log(&config.log)));
    let traces = changed!(
        TracesConfig, &old.traces, &new.traces, [enabled, share, collector], except []
    );
    section("[traces]", traces);
    section(
        "[upstream]",
        shown(|config| shown::upstream(&config.upstream)),
    );
    section(
        "[upstream.limits]",
        shown(|config| shown::upstream_limits(&config.upstream.limits)),
    );
    section("[sts]", shown(|config| shown::sts(&config.sts)));
    section(
        "[sts.limits]",
        shown(|config| shown::sts_limits(&config.sts)),
    );
    section("[credentials]", differing_credentials(old, new));
}

/// The keys of a table that the operator is shown otherwise. It holds for tables without secrets: of a secret
/// only its origin is shown.
fn differing_keys(old: &Value, new: &Value) -> Vec<String> {
    let keys = new.as_object().into_iter().flatten();
    let changed = keys.filter(|(key, value)| old.get(key) != Some(value));
    changed.map(|(key, _)| key.clone()).collect()
}

fn differing_credentials(old: &Config, new: &Config) -> Vec<String> {
    let mut names = differing_keys(&shown::credentials(old), &shown::credentials(new));
    if old.credential_shared != new.credential_shared {
        names.push("shared".to_owned());
    }
    names
}

fn differing_server(old: &Server, new: &Server) -> Vec<String> {
    changed!(
        Server, old, new,
        [
            listen, socket_mode, admin, admin_token, admin_hosts, domains, region, strict_region,
            allow_remote_anonymous, allow_plain_bearer, loopback_is_proxy, proxy_protocol,
            trusted_proxies, trusted_users, allow_qsign, allow_sigv2_presign, threads, max_presign,
            session_secrets, sessions_not_before, max_session, ready_requires, tenant_metrics, reuse_port, reload_on_change
        ],
        except [tls, limits]
    )
}

/// The issuer's kind is one key to an operator who reads what changed, whatever is in it.
fn differing_issuer(old: &Config, was: &Issuer, new: &Config, is: &Issuer) -> Vec<String> {
    let base = |config: &Config, base: &BaseKey| match base {
        BaseKey::Issuer(index) => config.issuers.get(*index).map(|issuer| issuer.name.clone()),
        _ => None,
    };
    let same_base = |was: &BaseKey, is: &BaseKey| match (base(old, was), base(new, is)) {
        (None, None) => was == is,
        (was, is) => was == is,
    };
    let names = match (&was.kind, &is.kind) {
        (
            IssuerKind::AssumeRole {
                base: was,
                role: old,
            },
            IssuerKind::AssumeRole {
                base: is,
                role: new,
            },
        ) => [("its own key", !same_base(was, is)), ("role", old != new)],
        (
            IssuerKind::Federation {
                base: was,
                duration: old,
            },
            IssuerKind::Federation {
                base: is,
                duration: new,
            },
        ) => [
            ("its own key", !same_base(was, is)),
            ("duration", old != new),
        ],
        (was, is) => [("kind and key", was != is), ("", false)],
    };
    let names = names
        .into_iter()
        .chain([("rate of calls", was.rate != is.rate)]);
    names
        .filter(|(_, is_changed)| *is_changed)
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn differing_identity(was: &IdentityProviderConfig, is: &IdentityProviderConfig) -> Vec<String> {
    changed!(
        IdentityProviderConfig,
        was,
        is,
        [issuer, audience, jwks, max_key_age, tenant_claim],
        except[name]
    )
}

fn differing_template(
    old: &Config,
    was: &TemplateConfig,
    new: &Config,
    is: &TemplateConfig,
) -> Vec<String> {
    let mut names = changed!(
        TemplateConfig, was, is,
        [vend, allowed_ips, limits, revoked], except [name, issuer, identity, grants]
    );
    if issuer_of(old, was.issuer) != issuer_of(new, is.issuer) {
        names.push("issuer".to_owned());
    }
    if identity_of(old, Some(was.identity)) != identity_of(new, Some(is.identity)) {
        names.push("identity".to_owned());
    }
    names.extend(differing_grants(&was.grants, &is.grants));
    names
}

fn differing_tenant(
    old: &Config,
    was: &TenantConfig,
    new: &Config,
    is: &TenantConfig,
) -> Vec<String> {
    let mut names = changed!(
        TenantConfig, was, is,
        [anonymous, admission, limits, vend, revoked],
        except [name, issuer, identity, access_keys, grants]
    );
    if issuer_of(old, was.issuer) != issuer_of(new, is.issuer) {
        names.push("issuer".to_owned());
    }
    if identity_of(old, was.identity) != identity_of(new, is.identity) {
        names.push("identity".to_owned());
    }
    let mut keys = Vec::new();
    let differs = |was: &AccessKey, is: &AccessKey| {
        changed!(AccessKey, was, is, [secret, not_after], except[id])
    };
    let lists = (&was.access_keys[..], &is.access_keys[..]);
    named("key", lists, |key| &key.id, differs, &mut keys);
    names.extend(keys);
    names.extend(differing_grants(&was.grants, &is.grants));
    names
}

fn differing_grants(was: &[Grant], is: &[Grant]) -> Vec<String> {
    let differs = |was: &Grant, is: &Grant| {
        changed!(
            Grant,
            was,
            is,
            [
                bucket, region, root, prefixes, actions, headers, policy, attachment,
                cors
            ],
            except[name, session]
        )
    };
    let mut lines = Vec::new();
    named("grant", (was, is), |grant| &grant.name, differs, &mut lines);
    lines
}

fn issuer_of(config: &Config, index: usize) -> Option<&str> {
    config.issuers.get(index).map(|issuer| issuer.name.as_str())
}

fn identity_of(config: &Config, index: Option<usize>) -> Option<&str> {
    let identity = config.identities.get(index?);
    identity.map(|identity| identity.name.as_str())
}

/// A line for each thing of one of the two lists that the other has not, or has otherwise.
fn named<T>(
    noun: &str,
    (old, new): (&[T], &[T]),
    name: impl Fn(&T) -> &str,
    differs: impl Fn(&T, &T) -> Vec<String>,
    lines: &mut Vec<String>,
) {
    let before: HashMap<&str, &T> = old.iter().map(|thing| (name(thing), thing)).collect();
    let after: HashMap<&str, &T> = new.iter().map(|thing| (name(thing), thing)).collect();
    for thing in old.iter().filter(|thing| !after.contains_key(name(thing))) {
        lines.push(format!("- {noun} {}", name(thing)));
    }
    for thing in new {
        match before.get(name(thing)) {
            None => lines.push(format!("+ {noun} {}", name(thing))),
            Some(before) => {
                let what = differs(before, thing);
                if !what.is_empty() {
                    lines.push(format!("~ {noun} {} ({})", name(thing), what.join(", ")));
                }
            }
        }
    }
}
