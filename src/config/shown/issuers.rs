//! Issuers, and the keys with which they sign their calls.

use serde_json::{Value, json};

use super::{issuer_name, merged, path, secret, url};
use crate::config::grammar::spell;
use crate::config::model::{
    BaseKey, Config, GivenKey, Issuer, IssuerKind, KeyCommand, Role, WebIdentity,
};

pub(super) fn issuer_keys(config: &Config, issuer: &Issuer) -> Value {
    let Issuer {
        name: _,
        kind,
        rate,
    } = issuer;
    let keys = match kind {
        IssuerKind::AssumeRole { base, role } => merged([
            json!({ "kind": "assume-role" }),
            base_key(config, base),
            role_keys(role),
        ]),
        IssuerKind::Federation { base, duration } => merged([
            json!({ "kind": "federation", "duration": spell(*duration) }),
            base_key(config, base),
        ]),
        IssuerKind::Static(key) => return merged([json!({ "kind": "static" }), given_key(key)]),
        IssuerKind::WebIdentity(WebIdentity {
            provider_id,
            token_file,
            role_arn,
            session_name,
            duration,
        }) => json!({
            "kind": "web-identity",
            "provider_id": provider_id,
            "token_file": path(token_file),
            "role_arn": role_arn,
            "session_name": session_name,
            "duration": spell(*duration),
        }),
    };
    let rate = json!({ "calls_per_second": rate.per_second, "burst": rate.burst });
    merged([keys, rate])
}

fn base_key(config: &Config, base: &BaseKey) -> Value {
    match base {
        // Arguments of a command may be secrets.
        BaseKey::Command(KeyCommand { words, env }) => {
            let arguments = words.iter().skip(1).map(|_| "(an argument)");
            let program = words.iter().take(1).map(String::as_str);
            json!({ "command": program.chain(arguments).collect::<Vec<_>>(), "command_env": env })
        }
        BaseKey::CvmRole { name, endpoint } => {
            json!({ "cvm_role": name, "metadata_endpoint": url(endpoint) })
        }
        BaseKey::Given(key) => given_key(key),
        BaseKey::Issuer(index) => json!({ "base": issuer_name(config, *index) }),
        BaseKey::Profile { name, file } => json!({ "profile": name, "profile_file": path(file) }),
    }
}

fn given_key(key: &GivenKey) -> Value {
    let GivenKey {
        secret_id,
        secret_key,
        token,
    } = key;
    json!({
        "secret_id": secret(secret_id),
        "secret_key": secret(secret_key),
        "token": token.as_ref().map(secret),
    })
}

fn role_keys(role: &Role) -> Value {
    let Role {
        arn,
        session_name,
        external_id,
        tags,
        source_identity,
        duration,
    } = role;
    let tags = tags
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }));
    json!({
        "role_arn": arn,
        "session_name": session_name,
        "external_id": external_id,
        "tags": tags.collect::<Vec<_>>(),
        "source_identity": source_identity,
        "duration": spell(*duration),
    })
}
