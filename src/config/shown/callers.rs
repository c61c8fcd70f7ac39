//! Who may call, and what they may do: identity providers, tenants, templates of tenants, and their grants.

use serde_json::{Value, json};

use super::{issuer_name, merged, path, secret, text, texts, url};
use crate::config::cors::CorsRule;
use crate::config::grammar::spell;
use crate::config::model::{
    AccessKey, Admission, Config, Grant, IdentityProviderConfig, Jwks, RevokedSessions,
    TemplateConfig, TenantConfig, TenantLimits, Vend,
};

pub(super) fn identity_keys(identity: &IdentityProviderConfig) -> Value {
    let IdentityProviderConfig {
        name: _,
        issuer,
        audience,
        jwks,
        max_key_age,
        tenant_claim,
    } = identity;
    let keys = json!({
        "issuer": issuer,
        "audience": audience,
        "max_key_age": spell(*max_key_age),
        "tenant_claim": tenant_claim,
    });
    let jwks = match jwks {
        Jwks::File(file) => json!({ "jwks": format!("file:{}", file.display()) }),
        Jwks::Url {
            endpoint,
            connect_to,
            ca_file,
            refresh,
        } => json!({
            "jwks": url(endpoint),
            "connect_to": connect_to,
            "ca_file": ca_file.as_deref().map(path),
            "refresh": spell(*refresh),
        }),
    };
    merged([keys, jwks])
}

pub(super) fn tenant_keys(config: &Config, tenant: &TenantConfig) -> Value {
    let TenantConfig {
        name: _,
        issuer,
        access_keys,
        anonymous,
        admission,
        identity,
        grants,
        limits,
        vend,
        revoked,
    } = tenant;
    let Admission {
        client_certs,
        require_client_cert,
        unix_users,
        allowed_ips,
    } = admission;
    let keys = json!({
        "issuer": issuer_name(config, *issuer),
        "access_keys": access_keys.iter().map(access_key).collect::<Vec<_>>(),
        "anonymous": anonymous,
        "client_certs": texts(client_certs),
        "require_client_cert": require_client_cert,
        "unix_users": unix_users,
        "allowed_ips": texts(allowed_ips),
        "identity": identity.and_then(|index| identity_name(config, index)),
        "grants": grants.iter().map(grant).collect::<Vec<_>>(),
        "limits": tenant_limits(limits),
    });
    merged([keys, vend_keys(vend.as_ref()), revoked_keys(revoked)])
}

pub(super) fn template_keys(config: &Config, template: &TemplateConfig) -> Value {
    let TemplateConfig {
        name: _,
        issuer,
        identity,
        grants,
        vend,
        allowed_ips,
        limits,
        revoked,
    } = template;
    let keys = json!({
        "issuer": issuer_name(config, *issuer),
        "identity": identity_name(config, *identity),
        "allowed_ips": texts(allowed_ips),
        "grants": grants.iter().map(grant).collect::<Vec<_>>(),
        "limits": tenant_limits(limits),
    });
    merged([keys, vend_keys(vend.as_ref()), revoked_keys(revoked)])
}

fn identity_name(config: &Config, index: usize) -> Option<&str> {
    let identity = config.identities.get(index);
    identity.map(|identity| identity.name.as_str())
}

fn access_key(key: &AccessKey) -> Value {
    let AccessKey {
        id,
        secret: own,
        not_after,
    } = key;
    json!({ "id": id, "secret": secret(own), "not_after": not_after.map(text) })
}

fn vend_keys(vend: Option<&Vend>) -> Value {
    let Some(Vend { tokens, duration }) = vend else {
        return json!({ "vend": false });
    };
    let tokens: Vec<_> = tokens.iter().map(secret).collect();
    json!({
        "vend": true,
        "vend_tokens": (!tokens.is_empty()).then_some(tokens),
        "vend_duration": spell(*duration),
    })
}

fn revoked_keys(revoked: &RevokedSessions) -> Value {
    let RevokedSessions { before, subjects } = revoked;
    let subjects = subjects.iter();
    let subjects =
        subjects.map(|(subject, before)| json!({ "subject": subject, "before": text(before) }));
    json!({
        "sessions_not_before": before.map(text),
        "revoked_sessions": subjects.collect::<Vec<_>>(),
    })
}

fn tenant_limits(limits: &TenantLimits) -> Value {
    let TenantLimits {
        requests_per_second,
        burst,
        concurrent_requests,
        upload_rate,
        download_rate,
        object_size,
    } = limits;
    json!({
        "requests_per_second": requests_per_second,
        "burst": burst,
        "concurrent_requests": concurrent_requests,
        "upload_rate": upload_rate,
        "download_rate": download_rate,
        "object_size": object_size,
    })
}

fn grant(grant: &Grant) -> Value {
    let Grant {
        name,
        bucket,
        region,
        root,
        prefixes,
        actions,
        headers,
        policy,
        attachment,
        cors,
        session: _, // no file says it
    } = grant;
    json!({
        "name": name,
        "bucket": bucket,
        "region": region,
        "root": root,
        "prefixes": texts(prefixes),
        "actions": actions,
        "headers": headers,
        "policy": policy.as_ref().map(|_| "(a policy of its own)"),
        "attachment": attachment,
        "cors": cors.iter().map(cors_rule).collect::<Vec<_>>(),
    })
}

fn cors_rule(rule: &CorsRule) -> Value {
    let CorsRule {
        origins,
        methods,
        headers,
        expose,
        max_age,
    } = rule;
    json!({
        "origins": texts(origins),
        "methods": texts(methods),
        "headers": texts(headers),
        "expose": expose,
        "max_age": spell(*max_age),
    })
}
