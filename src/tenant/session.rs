//! Local session keys: issued to an authenticated caller, and verified by their token alone. cosgate stores
//! nothing: the sealed token states the owner and the expiry, and only a holder of `session_secret` can
//! write or read one.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::config::{RevokedSessions, SessionPolicy};
use crate::seal::{self, derive};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// Bytes of a session token at most: what it holds is bounded, so that more is none of ours.
const TOKEN_BYTES: usize = 4096;
/// What is sealed with each token and must be there when it is opened: what it is for, and its version.
const LABEL: &[u8] = b"cosgate session token 2";
/// The version before, whose tokens do not say what they rest on. Nobody makes them any more, so the
/// last one ends 12 hours after the last cosgate of that version; until then an upgrade breaks nobody.
const LABEL_BEFORE: &[u8] = b"cosgate session token 1";
/// Bytes of the digest of what a session rests on.
const TRUST_BYTES: usize = 16;
/// Random bytes in a key id, 5 bits a character.
const ID_RANDOM: usize = 16;
const ID_PREFIX: &str = "SESS";
const ID_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Seals and opens session tokens.
pub(super) struct SessionSeal {
    /// The first seals; all open.
    keys: Vec<SealKeys>,
}

struct SealKeys {
    seal: seal::Seal,
    /// Derives the secret of a key from its id.
    secret: hmac::Key,
    /// Makes the digest of what a session rests on, which may be a secret.
    trust: hmac::Key,
}

/// What a token states.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    /// The id of the key that it belongs to.
    #[serde(rename = "k")]
    pub(super) key_id: Arc<str>,
    /// Whose requests it is for.
    #[serde(rename = "w")]
    pub(super) whose: SessionTenant,
    /// Whom the identity provider names.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Arc<str>>,
    /// When it was made, in Unix seconds. A token that does not say is taken for the oldest.
    #[serde(rename = "i", default)]
    issued: i64,
    /// The local key that signed for it.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub(super) access_key: Option<Arc<str>>,
    /// The policy that it is narrowed to. A cosgate that does not know of it refuses the token.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<serde_json::Value>,
    /// A digest of the [`Trust`] that it rests on; tokens of version 1 have none.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    trust: Option<String>,
    /// Its end, in Unix seconds.
    #[serde(rename = "e")]
    expires: i64,
}

/// Whose requests a session key is for, by names: the configuration may change in its life.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum SessionTenant {
    /// The tenant of this name.
    #[serde(rename = "n")]
    Tenant(String),
    /// A tenant of the template of this name, with these claims.
    #[serde(rename = "t")]
    Template(String, Vec<(String, String)>),
}

/// Who gets a session key.
pub(super) struct SessionHolder {
    /// Whose requests it is for.
    pub(super) whose: SessionTenant,
    /// Whom the identity provider names.
    pub(super) subject: Option<Arc<str>>,
    /// The local key that signed for it.
    pub(super) access_key: Option<Arc<str>>,
    /// What it is narrowed to.
    pub(super) policy: Option<Arc<SessionPolicy>>,
}

/// What a session rests on. When the configuration has it no more, the session ends.
pub(super) enum Trust<'t> {
    /// A local key.
    AccessKey {
        /// Its id.
        id: &'t str,
        /// Its secret: another one under the same id is another key.
        secret: &'t Secret,
    },
    /// An identity provider, by all that decides which tokens are believed and whom they name.
    Identity {
        /// NAME in `[identities.NAME]`.
        name: &'t str,
        /// `issuer`
        issuer: &'t str,
        /// `audience`
        audience: &'t str,
        /// `tenant_claim`
        tenant_claim: Option<&'t str>,
    },
}

/// A token that was made here.
pub(super) struct Opened<'s> {
    /// What it says.
    pub(super) session: Session,
    /// The secret of its key.
    pub(super) secret: Secret,
    keys: &'s SealKeys,
}

/// A key with its token, to be handed out.
#[derive(Debug)]
pub(crate) struct SessionKey {
    /// The access key id.
    pub id: Arc<str>,
    /// The secret access key.
    pub secret: Secret,
    /// The session token.
    pub token: Secret,
    /// Its end.
    pub expires: Timestamp,
}

impl SessionSeal {
    /// With keys derived from each of `secrets`.
    pub(super) fn new<'s>(secrets: impl Iterator<Item = &'s Secret>) -> Self {
        Self {
            keys: secrets.filter_map(SealKeys::derive).collect(),
        }
    }

    /// Whether there is no secret, and so no session.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A new key for `holder` from `issued` until `expires`, as long as there is what it rests on; `None`
    /// when there is no secret.
    pub(super) fn make(
        &self,
        trust: &Trust<'_>,
        holder: SessionHolder,
        issued: Timestamp,
        expires: Timestamp,
    ) -> Option<SessionKey> {
        let keys = self.keys.first()?;
        let policy = holder.policy.map(|policy| policy.document().clone());
        let session = Session {
            key_id: new_id()?.into(),
            whose: holder.whose,
            subject: holder.subject,
            issued: issued.unix(),
            access_key: holder.access_key,
            policy,
            trust: Some(keys.digest(trust)),
            expires: expires.unix(),
        };
        let text = serde_json::to_vec(&session).ok()?;
        let token = keys.seal.seal(LABEL, &text)?;
        Some(SessionKey {
            secret: keys.secret_of(&session.key_id),
            id: session.key_id,
            token: Secret::new(BASE64_URL_SAFE_NO_PAD.encode(token)),
            expires,
        })
    }

    /// Whether a token can be opened again: what it holds is bounded.
    pub(super) fn takes(token: &Secret) -> bool {
        token.expose().len() <= TOKEN_BYTES
    }

    /// What `token` says; `None` when it was not made here.
    pub(super) fn open(&self, token: &str) -> Option<Opened<'_>> {
        if token.len() > TOKEN_BYTES {
            return None;
        }
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        self.keys.iter().find_map(|keys| keys.open(&sealed))
    }
}

impl Opened<'_> {
    /// Whether it rests on `trust`. A token of version 1 does not say, and is trusted: what
    /// else must hold of it is for the caller to check.
    pub(super) fn rests_on(&self, trust: &Trust<'_>) -> bool {
        let digest = self.session.trust.as_ref();
        digest.is_none_or(|digest| *digest == self.keys.digest(trust))
    }
}

impl Session {
    /// Whether its time is over at `now`.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now.unix() >= self.expires
    }

    /// Whether it was given before a time from which alone `revoked` lets sessions count.
    pub(super) fn is_revoked(&self, revoked: &RevokedSessions) -> bool {
        let subject = self.subject.as_deref();
        let own = revoked.subjects.iter();
        let own = own.filter(|(known, _)| Some(known.as_str()) == subject);
        let mut times = revoked.before.iter().chain(own.map(|(_, before)| before));
        times.any(|before| self.issued < before.unix())
    }
}

impl SealKeys {
    /// `None` never, but for a failure of the library.
    fn derive(secret: &Secret) -> Option<Self> {
        Some(Self {
            seal: seal::Seal::new(secret, b"session token")?,
            secret: hmac::Key::new(hmac::HMAC_SHA256, &*derive(secret, b"session secret")?),
            trust: hmac::Key::new(hmac::HMAC_SHA256, &*derive(secret, b"session trust")?),
        })
    }

    fn open(&self, sealed: &[u8]) -> Option<Opened<'_>> {
        let (text, has_trust) = match self.seal.open(LABEL, sealed) {
            Some(text) => (text, true),
            None => (self.seal.open(LABEL_BEFORE, sealed)?, false),
        };
        let session: Session = serde_json::from_slice(&text).ok()?;
        if session.trust.is_some() != has_trust {
            return None;
        }
        Some(Opened {
            secret: self.secret_of(&session.key_id),
            session,
            keys: self,
        })
    }

    /// Each part with its length, so that no two lists of parts read alike.
    fn digest(&self, trust: &Trust<'_>) -> String {
        let parts = match trust {
            Trust::AccessKey { id, secret } => ["access key", id, secret.expose(), "", ""],
            Trust::Identity {
                name,
                issuer,
                audience,
                tenant_claim,
            } => [
                "identity",
                name,
                issuer,
                audience,
                tenant_claim.unwrap_or_default(), // none is empty in the configuration
            ],
        };
        let mut digest = hmac::Context::with_key(&self.trust);
        for part in parts {
            digest.update(&part.len().to_be_bytes());
            digest.update(part.as_bytes());
        }
        let digest = digest.sign();
        let bytes = digest.as_ref().get(..TRUST_BYTES);
        BASE64_URL_SAFE_NO_PAD.encode(bytes.unwrap_or_default())
    }

    fn secret_of(&self, id: &str) -> Secret {
        Secret::new(BASE64_STANDARD.encode(hmac::sign(&self.secret, id.as_bytes())))
    }
}

impl fmt::Debug for SessionSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

/// 20 characters, as AWS's are.
fn new_id() -> Option<String> {
    let mut random = [0; ID_RANDOM];
    SystemRandom::new().fill(&mut random).ok()?;
    let letter = |byte: &u8| ID_LETTERS.get(usize::from(byte % 32)).copied();
    let letters = random.iter().filter_map(letter).map(char::from);
    Some(ID_PREFIX.chars().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn seal(secrets: &[&str]) -> SessionSeal {
        let secrets: Vec<_> = secrets.iter().map(|text| Secret::new(*text)).collect();
        SessionSeal::new(secrets.iter())
    }

    fn whose() -> SessionTenant {
        SessionTenant::Template("web".into(), vec![("sub".into(), "alice".into())])
    }

    fn make(seal: &SessionSeal) -> SessionKey {
        let expires = Timestamp::from_unix(NOW);
        let secret = Secret::new("acme-secret");
        let trust = Trust::AccessKey {
            id: "ACME",
            secret: &secret,
        };
        let holder = SessionHolder {
            whose: whose(),
            subject: Some("alice".into()),
            access_key: None,
            policy: None,
        };
        seal.make(&trust, holder, expires.plus(-900), expires)
            .unwrap()
    }

    #[test]
    fn a_token_is_opened_by_the_secret_that_sealed_it_and_no_other() {
        let (old, new) = (
            "old-secret-0123456789-0123456789",
            "new-secret-0123456789-0123456789",
        );
        let key = make(&seal(&[old]));
        for opener in [seal(&[old]), seal(&[new, old])] {
            let opened = opener.open(key.token.expose()).unwrap();
            let (session, secret) = (&opened.session, &opened.secret);
            assert_eq!(
                (&*session.key_id, secret.expose()),
                (&*key.id, key.secret.expose())
            );
            assert_eq!(
                (session.whose.clone(), session.subject.as_deref()),
                (whose(), Some("alice"))
            );
            assert!(
                !session.is_over(Timestamp::from_unix(NOW - 1))
                    && session.is_over(Timestamp::from_unix(NOW))
            );
        }
        assert!(seal(&[new]).open(key.token.expose()).is_none());
        assert!(seal(&[]).open(key.token.expose()).is_none() && seal(&[]).is_empty());
        assert!(
            seal(&[new, old])
                .open(make(&seal(&[new, old])).token.expose())
                .is_some()
        );
    }

    fn opened_with(token: &Secret, id: &str, secret: &str) -> bool {
        let seal = seal(&["secret-0123456789-0123456789-0123"]);
        let secret = Secret::new(secret);
        let opened = seal.open(token.expose()).unwrap();
        opened.rests_on(&Trust::AccessKey {
            id,
            secret: &secret,
        })
    }

    #[test]
    fn a_token_rests_on_one_key_or_identity_alone() {
        let seal = seal(&["secret-0123456789-0123456789-0123"]);
        let token = make(&seal).token;
        assert!(opened_with(&token, "ACME", "acme-secret"));
        for (id, secret) in [
            ("ACME", "other"),
            ("OTHER", "acme-secret"),
            ("ACMEacme", "-secret"),
            ("", ""),
        ] {
            assert!(!opened_with(&token, id, secret), "{id}");
        }
        let keys = &seal.keys[0];
        let identity = |name, issuer, audience, tenant_claim| {
            keys.digest(&Trust::Identity {
                name,
                issuer,
                audience,
                tenant_claim,
            })
        };
        let corp = identity("corp", "iss", "aud", Some("tenant"));
        assert_eq!(corp, identity("corp", "iss", "aud", Some("tenant")));
        for other in [
            identity("other", "iss", "aud", Some("tenant")),
            identity("corp", "other", "aud", Some("tenant")),
            identity("corp", "iss", "other", Some("tenant")),
            identity("corp", "issa", "ud", Some("tenant")),
            identity("corp", "iss", "aud", Some("other")),
            identity("corp", "iss", "aud", None),
        ] {
            assert_ne!(corp, other);
        }
    }

    /// Exactly what the version before sealed.
    #[test]
    fn a_token_of_version_1_is_read_and_one_that_mixes_versions_is_not() {
        let seal = seal(&["secret-0123456789-0123456789-0123"]);
        let sealed = |label: &[u8], text: &str| {
            let sealed = seal.keys[0].seal.seal(label, text.as_bytes()).unwrap();
            Secret::new(BASE64_URL_SAFE_NO_PAD.encode(sealed))
        };
        let before = r#"{"k":"SESSAAAAAAAAAAAAAAAA","w":{"n":"acme"},"i":1,"p":"ACME","e":2}"#;
        let token = sealed(LABEL_BEFORE, before);
        let opened = seal.open(token.expose()).unwrap();
        assert_eq!(opened.session.whose, SessionTenant::Tenant("acme".into()));
        assert_eq!(opened.session.access_key.as_deref(), Some("ACME"));
        assert!(opened_with(&token, "ACME", "any")); // it cannot say which
        assert!(seal.open(sealed(LABEL, before).expose()).is_none());
        let now = before.replace("\"e\"", "\"b\":\"x\",\"e\"");
        assert!(seal.open(sealed(LABEL, &now).expose()).is_some());
        assert!(seal.open(sealed(LABEL_BEFORE, &now).expose()).is_none());
    }

    #[test]
    fn two_keys_have_nothing_in_common_and_nothing_can_be_read() {
        let seal = seal(&["secret-0123456789-0123456789-0123"]);
        let (one, other) = (make(&seal), make(&seal));
        assert_eq!((one.id.len(), one.secret.expose().len()), (20, 44));
        assert_ne!(one.id, other.id);
        assert_ne!(one.secret.expose(), other.secret.expose());
        assert_ne!(one.token.expose()[..16], other.token.expose()[..16]);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(one.token.expose()).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"alice"));
        assert!(!format!("{one:?} {seal:?}").contains(one.token.expose()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_token_with_any_byte_changed_is_nobodys(at in 0_usize..400, bit in 0_u8..8, junk in "[ -~]{0,80}") {
            let seal = seal(&["secret-0123456789-0123456789-0123"]);
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(make(&seal).token.expose()).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(seal.open(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)).is_none());
            prop_assert!(seal.open(&BASE64_URL_SAFE_NO_PAD.encode(&bytes[..at])).is_none());
            prop_assert!(seal.open(&junk).is_none());
        }
    }
}
