//! An identity provider for tests: keys of each kind, and tokens good and bad.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test file uses its own part of this module, and a test may panic"
)]

use std::path::PathBuf;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cosgate::clock::wall_clock;
use serde_json::{Value, json};

pub const ISSUER: &str = "https://login.example.com/";
pub const AUDIENCE: &str = "cosgate";

/// Two providers' keys, made once: RSA keys are slow to find.
pub static CORP: LazyLock<Provider> = LazyLock::new(Provider::new);
pub static STRANGER: LazyLock<Provider> = LazyLock::new(Provider::new);

pub struct Provider {
    rsa: rsa::KeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Provider {
    fn new() -> Self {
        Self {
            rsa: rsa::KeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The public keys: `r`, `e` and `o`, each with `suffix`.
    pub fn jwks(&self, suffix: &str) -> String {
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": format!("r{suffix}"), "use": "sig", "alg": "RS256", "n": encoded(self.modulus()), "e": "AQAB" },
            { "kty": "EC", "kid": format!("e{suffix}"), "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "OKP", "kid": format!("o{suffix}"), "crv": "Ed25519", "x": encoded(self.ed.public_key().as_ref()) },
        ] })
        .to_string()
    }

    /// The RSA public key, in the DER form of PKCS #1: 2048 bits and 65537.
    pub fn rsa_der(&self) -> &[u8] {
        self.rsa.public_key().as_ref()
    }

    fn modulus(&self) -> &[u8] {
        &self.rsa_der()[9..265]
    }

    /// A token signed as its header's `alg` says; what is not an algorithm is signed with nothing.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        self.raw(&header.to_string(), &claims.to_string())
    }

    /// The same of texts that may be no JSON.
    pub fn raw(&self, header: &str, claims: &str) -> String {
        let message = format!(
            "{}.{}",
            encoded(header.as_bytes()),
            encoded(claims.as_bytes())
        );
        let random = SystemRandom::new();
        let signature = if header.contains("RS256") {
            let mut signature = vec![0; 256];
            self.rsa
                .sign(
                    &RSA_PKCS1_SHA256,
                    &random,
                    message.as_bytes(),
                    &mut signature,
                )
                .unwrap();
            signature
        } else if header.contains("ES256") {
            self.ec
                .sign(&random, message.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec()
        } else if header.contains("EdDSA") {
            self.ed.sign(message.as_bytes()).as_ref().to_vec()
        } else if header.contains("HS256") {
            // The classic: the public key, which anybody has, as the secret.
            let key = hmac::Key::new(hmac::HMAC_SHA256, self.rsa_der());
            hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
        } else {
            Vec::new()
        };
        format!("{message}.{}", encoded(&signature))
    }

    /// A good token about `subject`.
    pub fn of(&self, subject: &str) -> String {
        self.with(&json!({ "sub": subject }))
    }

    /// A good token that says more, or other things: `null` takes a claim out.
    pub fn with(&self, more: &Value) -> String {
        self.token(
            &json!({ "alg": "ES256", "kid": "e1", "typ": "JWT" }),
            &claims(more),
        )
    }
}

/// What a good token states, with more or other things.
pub fn claims(more: &Value) -> Value {
    let now = wall_clock().unix();
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600,
    });
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A folder with CORP's keys in a file, and the configuration that names it: one identity, with a
/// template of a folder for each subject.
pub fn identity_toml(folder: &tempfile::TempDir) -> String {
    let file: PathBuf = folder.path().join("jwks.json");
    std::fs::write(&file, CORP.jwks("1")).unwrap();
    identity_with(&format!("file:{}", file.display()))
}

pub fn identity_with(jwks: &str) -> String {
    format!(
        r#"
[identities.corp]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
tenant_claim = "cosgate_tenant"
jwks = "{jwks}"

[tenants.robots]
issuer = "main"
identity = "corp"

[[tenants.robots.grants]]
name = "photos"
bucket = "shared-1250000000"
region = "ap-guangzhou"
prefixes = ["robots/*"]
actions = ["read", "write", "list"]

[templates.web]
issuer = "main"
identity = "corp"

[[templates.web.grants]]
name = "photos"
bucket = "shared-1250000000"
region = "ap-guangzhou"
prefixes = ["users/{{claim.sub}}/*"]
actions = ["read", "write", "list"]
"#
    )
}
