//! A tenant for each subject: what a token states takes the place of `{claim.NAME}` in roots and prefixes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Tenant;
use super::grant::Counted;
use super::shared_rate::{RateStore, Sharing};
use super::subject_limits::SubjectLimits;
use crate::config::{self, PrefixPattern};
use crate::error::{Code, S3Error};

/// Bytes of a claim's value at most.
const VALUE_BYTES: usize = 128;
/// How a claim is written in a prefix.
const OPEN: &str = "{claim.";

/// Makes tenants that differ only in what their tokens say.
#[derive(Debug)]
pub(super) struct Template {
    /// The tenant, with claims still to be filled in.
    pattern: Tenant,
    /// The claims that it uses.
    claims: Vec<String>,
}

impl Template {
    /// The template of the configuration whose tenants will have `index`; `old` is what it was before a
    /// reload. Replicas share its subjects' rates through `store`.
    pub(super) fn new(
        index: usize,
        template: &config::TemplateConfig,
        old: Option<&Self>,
        store: Option<&Arc<dyn RateStore>>,
    ) -> Self {
        let counted = match old.and_then(|old| old.pattern.limits.as_ref()) {
            Some(Counted::ByName(subjects)) => Some(subjects),
            Some(Counted::Alone(_)) | None => None,
        };
        let owner = format!("{}/", template.name); // no tenant and no subject has such a name
        let sharing = store.map(|store| Sharing {
            store,
            owner: &owner,
        });
        let limits = SubjectLimits::succeeding(&template.limits, counted, sharing);
        let grants = template.grants.clone();
        let texts = grants.iter().flat_map(|grant| {
            let prefixes = grant.prefixes.iter().filter_map(text_of);
            prefixes.chain([grant.root.as_str()])
        });
        let claims: BTreeSet<_> = texts
            .flat_map(|text| text.split(OPEN).skip(1))
            .filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()))
            .collect();
        Self {
            pattern: Tenant {
                index,
                name: template.name.clone(),
                grants,
                limits: limits.map(Counted::ByName),
            },
            claims: claims.into_iter().collect(),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.pattern.name
    }

    /// The claims that distinguish its tenants.
    pub(super) fn claims(&self) -> &[String] {
        &self.claims
    }

    /// The tenant that `claim` names. Two lists of values give two names, since no value has a
    /// slash, and prefixes without a common key, since each value is a whole segment.
    pub(super) fn tenant<'c>(
        &self,
        claim: impl Fn(&str) -> Option<&'c str>,
    ) -> Result<Tenant, S3Error> {
        let mut tenant = Tenant {
            index: self.pattern.index,
            name: self.pattern.name.clone(),
            grants: self.pattern.grants.clone(),
            limits: self.pattern.limits.clone(),
        };
        for name in &self.claims {
            let value = claim(name).filter(|value| is_segment(value));
            let value = value.ok_or_else(|| unfit(name))?;
            tenant.name.push('/');
            tenant.name.push_str(value);
            let place = format!("{OPEN}{name}}}");
            for grant in &mut tenant.grants {
                let prefixes = grant.prefixes.iter_mut().filter_map(text_of_mut);
                for text in prefixes.chain([&mut grant.root]) {
                    *text = text.replace(&place, value); // no value has a brace
                }
            }
        }
        Ok(tenant)
    }

    /// The tenant whose claims have these values, as its name has them: `alice`, or `acme/alice`.
    pub(super) fn of_values(&self, values: &str) -> Option<Tenant> {
        let values: Vec<_> = values.split('/').collect();
        if values.len() != self.claims.len() {
            return None;
        }
        let all = || self.claims.iter().zip(&values);
        let claim = |name: &str| {
            all()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        self.tenant(claim).ok()
    }
}

/// Whether `value` is one segment of a key, and reads as itself wherever it will stand: in a key, in
/// a CAM policy (no `*`, `?`, `$`, quotes), in a log line and in a tenant's name. Case matters: two
/// subjects that differ in it are two.
fn is_segment(value: &str) -> bool {
    (1..=VALUE_BYTES).contains(&value.len())
        && !matches!(value, "." | "..")
        && value.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'.' | b'@' | b'=' | b'+' | b':' | b'|')
        })
}

fn text_of(pattern: &PrefixPattern) -> Option<&str> {
    match pattern {
        PrefixPattern::Any => None,
        PrefixPattern::Exact(text) | PrefixPattern::StartsWith(text) => Some(text),
    }
}

fn text_of_mut(pattern: &mut PrefixPattern) -> Option<&mut String> {
    match pattern {
        PrefixPattern::Any => None,
        PrefixPattern::Exact(text) | PrefixPattern::StartsWith(text) => Some(text),
    }
}

fn unfit(name: &str) -> S3Error {
    S3Error::new(
        Code::AccessDenied,
        format!(
            "Access Denied: the token's claim {name} must be a text of 1 to 128 letters, digits and \
             -_.@=+:| to name a folder here."
        ),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Grant, RevokedSessions, TenantLimits};

    fn template(prefixes: &[PrefixPattern]) -> Template {
        let grant = Grant {
            name: "photos".into(),
            bucket: "shared-1250000000".into(),
            region: "ap-guangzhou".into(),
            root: String::new(),
            prefixes: prefixes.to_vec(),
            actions: vec!["name/cos:GetObject".into()],
            headers: Vec::new(),
            policy: None,
            attachment: false,
            cors: [].into(),
            session: None,
        };
        let template = config::TemplateConfig {
            name: "web".into(),
            issuer: 0,
            identity: 0,
            grants: vec![grant],
            vend: None,
            allowed_ips: Vec::new(),
            limits: TenantLimits::default(),
            revoked: RevokedSessions::default(),
        };
        Template::new(3, &template, None, None)
    }

    fn folder(text: &str) -> PrefixPattern {
        PrefixPattern::StartsWith(text.into())
    }

    fn of_subject(subject: &str) -> Result<Tenant, S3Error> {
        template(&[folder("users/{claim.sub}/")]).tenant(|name| (name == "sub").then_some(subject))
    }

    #[test]
    fn a_subject_gets_its_own_folder_and_name() {
        for subject in [
            "alice",
            "auth0|5f7c",
            "system:serviceaccount:ns:name",
            "a@b.c",
            "A",
        ] {
            let tenant = of_subject(subject).unwrap();
            assert_eq!((tenant.index, tenant.name), (3, format!("web/{subject}")));
            assert_eq!(
                tenant.grants[0].prefixes,
                [folder(&format!("users/{subject}/"))]
            );
        }
    }

    #[test]
    fn a_subject_that_is_not_one_plain_segment_is_refused() {
        let long = "a".repeat(VALUE_BYTES + 1);
        for subject in [
            "",
            ".",
            "..",
            "a/b",
            "a/../b",
            "/",
            "\\",
            "a*",
            "*",
            "a?",
            "${x}",
            "$",
            "{claim.sub}",
            "}",
            "a\"",
            "'",
            "`",
            "a b",
            "a\n",
            "a\0",
            "%2e%2e",
            "%2f",
            "é",
            "\u{ff0f}",
            "~",
            "#",
            "&",
            ",",
            &long,
        ] {
            let refused = of_subject(subject).unwrap_err();
            assert_eq!(refused.code(), Code::AccessDenied, "{subject}");
        }
        assert!(of_subject(&"a".repeat(VALUE_BYTES)).is_ok());
        let missing = template(&[folder("users/{claim.sub}/")]).tenant(|_| None);
        assert!(missing.unwrap_err().message().contains("claim sub"));
    }

    #[test]
    fn a_root_is_filled_in_like_a_prefix() {
        let mut template = template(&[PrefixPattern::Any]);
        template.pattern.grants[0].root = "users/{claim.sub}/".into();
        template.claims = vec!["sub".into()];
        let tenant = template.of_values("alice").unwrap();
        assert_eq!(
            (tenant.name.as_str(), tenant.grants[0].root.as_str()),
            ("web/alice", "users/alice/")
        );
        for values in ["", "alice/bob", "..", "a*"] {
            assert!(template.of_values(values).is_none(), "{values}");
        }
    }

    #[test]
    fn every_claim_takes_its_place_in_every_prefix() {
        let template = template(&[
            folder("{claim.org}/{claim.sub}/"),
            PrefixPattern::Exact("{claim.org}/{claim.https://x.example/role}".into()),
            folder("common/"),
        ]);
        assert_eq!(template.claims(), ["https://x.example/role", "org", "sub"]);
        let tenant = template
            .tenant(|name| match name {
                "org" => Some("acme"),
                "sub" => Some("org"),
                _ => Some("admin"),
            })
            .unwrap();
        assert_eq!(tenant.name, "web/admin/acme/org");
        let expected = [
            folder("acme/org/"),
            PrefixPattern::Exact("acme/admin".into()),
            folder("common/"),
        ];
        assert_eq!(tenant.grants[0].prefixes, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever two subjects are, no key is inside both.
        #[test]
        fn two_subjects_have_no_key_in_common(one in "[a.b/*]{0,4}", other in "[a.b/*]{0,4}", rest in "[a.b/]{0,4}") {
            if one != other && let (Ok(one), Ok(other)) = (of_subject(&one), of_subject(&other)) {
                prop_assert_ne!(&one.name, &other.name);
                for pattern in &one.grants[0].prefixes {
                    let key = format!("{}{rest}", text_of(pattern).unwrap());
                    prop_assert!(one.grants[0].covers(&key) && !other.grants[0].covers(&key));
                }
            }
        }
    }
}
