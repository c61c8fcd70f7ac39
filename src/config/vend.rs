//! `vend`: temporary keys for a tenant's own clients.

use super::cam::PolicyError;
use super::file::Located;
use super::grants::ReadGrant;
use super::model::{IssuerKind, Vend};
use super::section::Section;
use crate::secret::Secret;

/// A token that can be guessed is a key for everybody.
const LEAST_TOKEN: usize = 16;

/// Reads `vend`, `vend_duration` and, in a tenant, `vend_tokens`.
pub(super) fn vend(
    section: &Section<'_>,
    issuer: Option<&IssuerKind>,
    grants: &[ReadGrant],
) -> Option<Vend> {
    let vend = section.flag("vend");
    let written = section.position_of("vend_duration");
    let duration = section.duration("vend_duration");
    let tokens = if section.knows("vend_tokens") {
        section.secrets("vend_tokens")
    } else {
        Vec::new()
    };
    if !vend.value {
        if let Some(origin) = written
            .as_ref()
            .or_else(|| tokens.first().map(|token| &token.origin))
        {
            section.error(
                origin,
                "cosgate issues no keys here, since `vend` is not true",
                "add vend = true, or remove it",
            );
        }
        return None;
    }
    refuse_wide_policies(section, grants);
    let unfenced = match issuer {
        Some(IssuerKind::Static(_)) => {
            Some("`vend` would give clients the static issuer's own key, which no policy narrows")
        }
        // STS takes no policy with this call: whoever had the key could do all that the role may.
        Some(IssuerKind::WebIdentity(_)) => {
            Some("`vend` would give clients keys of a web identity, which no policy narrows")
        }
        _ => None,
    };
    if let Some(message) = unfenced {
        let fix = "give the tenant an issuer of kind \"federation\" or \"assume-role\" (with that one as its `base`)";
        section.error(&vend.origin, message, fix);
    }
    for Located { value, origin } in &tokens {
        if is_guessable(&value.value) {
            section.error(
                origin,
                "a token of `vend_tokens` is shorter than 16 characters, or not plain text",
                "make one with `openssl rand -hex 32`",
            );
        }
    }
    Some(Vend {
        tokens: tokens.into_iter().map(|token| token.value).collect(),
        duration: duration.value,
    })
}

/// Whether a token is too short, or has what no header can carry.
pub(super) fn is_guessable(token: &Secret) -> bool {
    let text = token.expose();
    text.len() < LEAST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// cosgate holds its own requests to one bucket, whatever a grant's `policy` allows beyond it. A key that
/// a client has is held to the policy alone.
fn refuse_wide_policies(section: &Section<'_>, grants: &[ReadGrant]) {
    for policy in grants.iter().filter_map(|grant| grant.policy.as_ref()) {
        for PolicyError { message, fix } in policy.value.policy.beyond_a_bucket() {
            let message = format!(
                "`vend` would hand out keys that reach beyond the grant's bucket: {message}"
            );
            section.error(&policy.origin, message, fix);
        }
    }
}

/// Two tenants with one token would be one.
pub(super) fn refuse_common_tokens<'v>(root: &Section<'_>, vends: impl Iterator<Item = &'v Vend>) {
    let mut seen = std::collections::HashSet::new();
    let mut tokens = vends.flat_map(|vend| vend.tokens.iter().map(|token| token.value.expose()));
    if !tokens.all(|token| seen.insert(token)) {
        let message =
            "two of `vend_tokens` are the same: cosgate could not tell which tenant sent one";
        let fix = "give each its own (`openssl rand -hex 32`)";
        root.error(&root.origin(), message, fix);
    }
}
