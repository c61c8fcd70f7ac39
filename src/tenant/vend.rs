//! Temporary keys for clients: who may have one, and what it may do.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};

use super::authenticate::{Authenticated, Connection, Identified, Identity, Tenants, qsign_covers};
use super::policy::{Policy, Statement, client_policy, tenant_policy};
use super::{Grant, Tenant};
use crate::config::cam::LIKELY_BYTES;
use crate::config::{Config, PrefixPattern, unfold_action};
use crate::error::{Code, S3Error};
use crate::payload::Mode;
use crate::s3::vend::{LONG_POLICY, OneOrMore, VendRequest};
use crate::s3::{ObjectKey, Operation, Query, S3Request, native};
use crate::timestamp::Timestamp;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// The SHA-256 of an authorization token: looked up, it reveals to nobody how much of a guess was right.
pub(super) type TokenHash = [u8; 32];

fn token_hash(token: &[u8]) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

impl Tenants {
    /// Who requests a key, before the body is read: by an authorization token (`GET`, as AWS's SDKs
    /// request from a container's credentials endpoint), or as any request is authenticated (`POST`).
    pub(crate) fn identify_vend(
        &self,
        head: &Parts,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Identified, S3Error> {
        self.check_secrecy(connection)?;
        let is_native = native::is_native(head);
        match head.method {
            Method::GET if !is_native => self.token_holder(&head.headers).map(Identified),
            // Whatever signs it: who has a link has not its maker's key.
            Method::GET | Method::POST if head.uri.query().is_some() => Err(denied(
                "a presigned URL cannot request a key: sign the request in its headers",
            )),
            Method::GET | Method::POST => {
                let requested = S3Request {
                    operation: Operation::ListBuckets, // what is signed is the head, as it came
                    bucket: None,
                    key: None,
                    query: Query::parse("")?,
                    copy_source: None,
                };
                let caller = self.identify(head, &requested, connection, now)?;
                match caller.identity() {
                    Identity::Bearer(_)
                    | Identity::Certificate(_)
                    | Identity::Header(_)
                    | Identity::Qsign(_)
                    | Identity::Session { .. }
                    | Identity::Unix(_) => Ok(caller),
                    _ => Err(denied(
                        "this request proves no tenant: sign it in its headers, or send a token or a client certificate",
                    )),
                }
            }
            _ => Err(S3Error::new(
                Code::MethodNotAllowed,
                "Request keys with GET and an authorization token, or with POST.",
            )),
        }
    }

    /// Refuses a body that the caller's signature does not cover: somebody else may have written it.
    /// COS's own signature has no word for the body, but covers a `Content-MD5` that its signer lists;
    /// that this is the body's is checked where it is read.
    pub(crate) fn check_vend_body(
        head: &Parts,
        caller: &Authenticated,
        body: &[u8],
    ) -> Result<(), S3Error> {
        let is_signed = matches!(
            caller.identity(),
            Identity::Header(_) | Identity::Qsign(_) | Identity::Session { .. }
        );
        let is_covered = body.is_empty()
            || matches!(caller.payload(), Mode::Sha256(_))
            || (native::is_native(head) && qsign_covers(head, &CONTENT_MD5));
        if is_signed && !is_covered {
            return Err(denied(
                "the signature does not cover the body: sign its SHA-256 in x-amz-content-sha256, or with \
                 COS's own signature a Content-MD5 that q-header-list names, or send none",
            ));
        }
        Ok(())
    }

    fn token_holder(&self, headers: &HeaderMap) -> Result<Authenticated, S3Error> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(token), None) = (values.next(), values.next()) else {
            return Err(denied("the authorization token is missing"));
        };
        let tenant = self.vend_tokens.get(&token_hash(token.as_bytes()));
        let tenant = tenant.and_then(|tenant| self.all.get(*tenant));
        let tenant = tenant.ok_or_else(|| denied("the authorization token is unknown"))?;
        Ok(Authenticated::new(
            tenant,
            Identity::VendToken,
            Mode::Unsigned,
        ))
    }
}

/// What a key for `tenant` may do that is narrowed as `requested`: the grants that are left, and their
/// policy. Whatever lies outside what the tenant has is refused and not left out.
pub fn narrowed(tenant: &Tenant, requested: &VendRequest) -> Result<(Vec<Grant>, Policy), S3Error> {
    let mut grants: Vec<_> = tenant.reached().cloned().collect();
    if let Some(bucket) = &requested.bucket {
        grants.retain(|grant| grant.name == *bucket);
        if grants.is_empty() {
            return Err(denied("you have no bucket of this name"));
        }
    }
    if requested.narrows() {
        let [grant] = &mut grants[..] else {
            return Err(S3Error::new(
                Code::InvalidArgument,
                "The body is refused: name the bucket.",
            ));
        };
        narrow(grant, requested)?;
    }
    let narrowed = Tenant {
        index: tenant.index,
        name: tenant.name.clone(),
        grants,
        limits: None,
    };
    let mut policy = client_policy(&narrowed);
    if !policy.statement.iter().any(Statement::allows) {
        return Err(denied(if tenant.session_policy().is_some() {
            "nothing is left that the key could do. COS has one right for an object and its old versions: \
             the session's Policy must allow s3:GetObjectVersion beside s3:GetObject"
        } else {
            "nothing is left that the key could do"
        }));
    }
    // What one grant denies holds for the tenant's whole key, and so for every part of it.
    for denial in denials(tenant) {
        if !policy.statement.contains(denial) {
            policy.statement.push(denial.clone());
        }
    }
    if requested.narrows() {
        check_length(tenant, &policy)?;
    }
    Ok((narrowed.grants, policy))
}

/// Refuses a policy that STS would most likely refuse. STS publishes no limit: what is as long as the
/// policy of the tenant's own key, which the operator chose, passes as well.
fn check_length(tenant: &Tenant, policy: &Policy) -> Result<(), S3Error> {
    let bytes = policy.json().len();
    if bytes <= LIKELY_BYTES || bytes <= tenant_policy(tenant).json().len() {
        return Ok(());
    }
    let detail =
        format!("the narrowed policy has {bytes} bytes; STS may refuse more than {LIKELY_BYTES}");
    Err(S3Error::new(Code::InvalidArgument, LONG_POLICY).detail(detail))
}

fn denials(tenant: &Tenant) -> impl Iterator<Item = &Statement> {
    let policies = tenant
        .grants
        .iter()
        .filter_map(|grant| grant.policy.as_ref());
    policies
        .flat_map(|raw| &raw.policy.statement)
        .filter(|statement| !statement.allows())
}

fn narrow(grant: &mut Grant, requested: &VendRequest) -> Result<(), S3Error> {
    let is_narrower = requested.key.is_some()
        || requested.allow_prefixes.is_some()
        || requested.allow_actions.is_some();
    if grant.policy.is_some() && is_narrower {
        return Err(denied(
            "the grant of this bucket has a policy, so its key cannot be narrowed: send the bucket alone",
        ));
    }
    let mut patterns = Vec::new();
    if let Some(key) = &requested.key {
        ObjectKey::from_decoded(key.clone())?;
        let pattern = PrefixPattern::parse(key).map_err(|why| refused(&why))?;
        if !matches!(pattern, PrefixPattern::Exact(_)) {
            return Err(refused("a key has no `*`"));
        }
        patterns.push(pattern);
    }
    for text in requested.allow_prefixes.iter().flat_map(OneOrMore::texts) {
        patterns.push(PrefixPattern::parse(text).map_err(|why| refused(&why))?);
    }
    for pattern in &patterns {
        if !grant
            .prefixes
            .iter()
            .any(|granted| pattern.is_within(granted))
        {
            return Err(denied("a prefix or key is outside those that are yours"));
        }
        let session = grant.session.as_ref();
        if session.is_some_and(|session| !session.reaches_all(&grant.name, pattern)) {
            return Err(denied("a prefix or key is outside the session's Policy"));
        }
    }
    if !patterns.is_empty() {
        grant.prefixes = patterns;
    }
    if let Some(list) = &requested.allow_actions {
        let mut actions = Vec::new();
        for text in list.texts() {
            actions.extend(unfold_action(text).map_err(|why| refused(&why))?);
        }
        if let Some(other) = actions.iter().find(|action| !grant.allows(action)) {
            return Err(denied(&format!("your access does not include {other}")));
        }
        actions.sort_unstable();
        actions.dedup();
        grant.actions = actions;
    }
    Ok(())
}

fn refused(why: &str) -> S3Error {
    S3Error::new(
        Code::InvalidArgument,
        format!("The body is refused: {why}."),
    )
}

fn denied(why: &str) -> S3Error {
    S3Error::new(Code::AccessDenied, format!("Access Denied: {why}."))
}

/// For each token of the configuration, the index of its tenant.
pub(super) fn tokens(config: &Config) -> HashMap<TokenHash, usize> {
    let tenants = config.tenants.iter().enumerate();
    let vends = tenants.filter_map(|(index, tenant)| Some((index, tenant.vend.as_ref()?)));
    let tokens = vends.flat_map(|(index, vend)| vend.tokens.iter().map(move |t| (t, index)));
    tokens
        .map(|(token, index)| (token_hash(token.value.expose().as_bytes()), index))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(prefixes: &[PrefixPattern]) -> Tenant {
        let actions = ["name/cos:GetObject", "name/cos:PutObject"];
        let grant = |alias: &str| Grant {
            name: alias.into(),
            bucket: "shared-1250000000".into(),
            region: "ap-guangzhou".into(),
            root: "acme/".into(),
            prefixes: prefixes.to_vec(),
            actions: actions.map(str::to_owned).to_vec(),
            headers: Vec::new(),
            attachment: false,
            cors: [].into(),
            session: None,
            policy: None,
        };
        Tenant {
            index: 0,
            name: "acme".into(),
            grants: vec![grant("photos"), grant("films")],
            limits: None,
        }
    }

    fn s3_request(body: &str) -> Result<Policy, Code> {
        let tenant = tenant(&[PrefixPattern::StartsWith("in/".into())]);
        let requested = VendRequest::parse(body.as_bytes()).map_err(|error| error.code())?;
        let narrowed = narrowed(&tenant, &requested).map_err(|error| error.code())?;
        Ok(narrowed.1)
    }

    #[test]
    fn a_key_is_narrowed_to_what_is_requested() {
        let policy = s3_request(
            r#"{"bucket":"photos","key":"in/x.jpg","allowActions":"name/cos:PutObject"}"#,
        )
        .unwrap();
        let [statement] = &policy.statement[..] else {
            panic!()
        };
        assert_eq!(
            statement.resource,
            ["qcs::cos:ap-guangzhou:uid/1250000000:shared-1250000000/acme/in/x.jpg"]
        );
        assert!(!statement.action.contains(&"name/cos:GetObject".to_owned()));
        assert!(s3_request("").is_ok() && s3_request("{}").is_ok());
        let folder = r#"{"bucket":"photos","allowPrefix":"in/deep/*"}"#;
        assert!(
            s3_request(folder)
                .unwrap()
                .json()
                .contains("/acme/in/deep/*")
        );
    }

    #[test]
    fn nothing_outside_is_given_and_nothing_else_understood() {
        for (body, code) in [
            (r#"{"bucket":"other"}"#, Code::AccessDenied),
            (r#"{"key":"in/x"}"#, Code::InvalidArgument),
            (r#"{"bucket":"photos","key":"out/x"}"#, Code::AccessDenied),
            (r#"{"bucket":"photos","key":"in/*"}"#, Code::InvalidArgument),
            (
                r#"{"bucket":"photos","allowPrefixes":["in/*","*"]}"#,
                Code::AccessDenied,
            ),
            (
                r#"{"bucket":"photos","allowPrefixes":["in*"]}"#,
                Code::AccessDenied,
            ),
            (
                r#"{"bucket":"photos","allowPrefixes":["in/${uin}/*"]}"#,
                Code::InvalidArgument,
            ),
            (
                r#"{"bucket":"photos","allowPrefixes":[]}"#,
                Code::InvalidArgument,
            ),
            (
                r#"{"bucket":"photos","allowActions":["name/cos:DeleteObject"]}"#,
                Code::AccessDenied,
            ),
            (
                r#"{"bucket":"photos","allowActions":["*"]}"#,
                Code::InvalidArgument,
            ),
            (
                r#"{"bucket":"photos","policy":"{}"}"#,
                Code::InvalidArgument,
            ),
            (
                r#"{"bucket":"photos","bucket":"films"}"#,
                Code::InvalidArgument,
            ),
            ("[]", Code::InvalidArgument),
        ] {
            assert_eq!(s3_request(body).err(), Some(code), "{body}");
        }
    }

    #[test]
    fn what_one_grant_denies_is_denied_to_the_key_of_another() {
        let statement = serde_json::json!([
            {"effect": "allow", "action": "name/cos:GetObject", "resource": "*"},
            {"effect": "deny", "action": "name/cos:GetObject", "resource": "*"},
        ]);
        let text = serde_json::json!({"version": "2.0", "statement": statement}).to_string();
        let read = Policy::parse(&text).unwrap();
        let raw = crate::config::RawPolicy::new(read, "shared-1250000000", "ap-guangzhou").unwrap();
        let mut tenant = tenant(&[PrefixPattern::Any]);
        tenant.grants[1].policy = Some(std::sync::Arc::new(raw));
        for (body, denials) in [
            (r#"{"bucket":"photos","key":"x"}"#, 1),
            (r#"{"bucket":"films"}"#, 1),
            ("", 1),
        ] {
            let requested = VendRequest::parse(body.as_bytes()).unwrap();
            let (_, policy) = narrowed(&tenant, &requested).unwrap();
            let denied = policy.statement.iter().filter(|s| !s.allows());
            assert_eq!(denied.count(), denials, "{body}");
        }
    }

    fn pattern() -> impl Strategy<Value = PrefixPattern> {
        prop_oneof![
            Just(PrefixPattern::Any),
            "[ab/]{1,3}".prop_map(PrefixPattern::Exact),
            "[ab/]{1,3}".prop_map(PrefixPattern::StartsWith),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_narrowed_grant_covers_no_key_that_the_grant_does_not(
            granted in prop::collection::vec(pattern(), 1..3),
            requested in pattern(),
            key in "[ab/]{1,4}",
        ) {
            let whole = tenant(&granted);
            let body = serde_json::json!({"bucket": "photos", "allowPrefixes": requested.to_string()});
            let requested = VendRequest::parse(body.to_string().as_bytes()).unwrap();
            if let Ok((grants, _)) = narrowed(&whole, &requested) {
                prop_assert!(!grants[0].covers(&key) || whole.grants[0].covers(&key));
            }
        }
    }
}
