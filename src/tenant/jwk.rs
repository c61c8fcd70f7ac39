//! The public keys of an identity provider: a JWK set (RFC 7517, 7518 and 8037).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::json;

/// Bytes of a key set at most.
pub(crate) const KEY_SET_BYTES: usize = 256 * 1024;
/// Keys in a set at most.
const KEYS: usize = 100;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Length of a coordinate of P-256, and of an Ed25519 key.
const COORDINATE_BYTES: usize = 32;

/// How a token is signed. What is not here is not taken, whatever a token states: above all `none`,
/// and `HS*`, whose secret could be a public key (RFC 8725 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenAlgorithm {
    /// `EdDSA` with Ed25519 (RFC 8037).
    EdDsa,
    /// `ES256`: ECDSA with P-256 and SHA-256.
    Es256,
    /// `RS256`: RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

/// The keys that a provider signs with at the moment.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<VerifyingKey>);

/// A key, fit for its one algorithm.
#[derive(Debug)]
struct VerifyingKey {
    id: Option<String>,
    algorithm: TokenAlgorithm,
    public: ParsedPublicKey,
}

/// Why a text is not a usable key set; says how to fix it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadKeySet(&'static str);

impl std::fmt::Display for BadKeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadKeySet {}

/// What a set says of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureVerdict {
    /// It is good.
    Good,
    /// No key of the set could have made it.
    NoKey,
    /// It is not that of the key that it names.
    Wrong,
}

impl TokenAlgorithm {
    /// The algorithm of this name in a token's header.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl KeySet {
    /// Reads a set. Keys for other uses and algorithms are left out (RFC 7517 section 5); a set
    /// without a key that is of use is refused, so that it cannot take the place of a good one.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BadKeySet> {
        if text.len() > KEY_SET_BYTES {
            return Err(BadKeySet("the key set is larger than 256 KiB"));
        }
        let set = json::object(text).ok_or(BadKeySet("not a JSON object with distinct members"))?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err(BadKeySet("not a JWK set: it has no array `keys`"));
        };
        if keys.len() > KEYS {
            return Err(BadKeySet("the key set has more than 100 keys"));
        }
        let keys: Vec<_> = keys
            .iter()
            .filter_map(|key| VerifyingKey::read(key.as_object()?))
            .collect();
        if keys.is_empty() {
            return Err(BadKeySet(
                "it has no public key for RS256 (2048 bits at least), ES256 or EdDSA",
            ));
        }
        Ok(Self(keys))
    }

    /// Whether `signature` is that of `message`. A token without a key id is checked only when a
    /// single key can be meant.
    pub(super) fn verify(
        &self,
        algorithm: TokenAlgorithm,
        key_id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> SignatureVerdict {
        if !self.has_key(algorithm, key_id) {
            return SignatureVerdict::NoKey;
        }
        let good = |key: &VerifyingKey| key.public.verify_sig(message, signature).is_ok();
        if self.candidates(algorithm, key_id).any(good) {
            SignatureVerdict::Good
        } else {
            SignatureVerdict::Wrong
        }
    }

    /// Whether [`KeySet::verify`] would find a key to check with; nothing is computed.
    pub(super) fn has_key(&self, algorithm: TokenAlgorithm, key_id: Option<&str>) -> bool {
        let candidates = self.candidates(algorithm, key_id).take(2).count();
        candidates == 1 || (candidates > 1 && key_id.is_some())
    }

    fn candidates(
        &self,
        algorithm: TokenAlgorithm,
        key_id: Option<&str>,
    ) -> impl Iterator<Item = &VerifyingKey> {
        self.0.iter().filter(move |key| {
            key.algorithm == algorithm && (key_id.is_none() || key.id.as_deref() == key_id)
        })
    }
}

impl VerifyingKey {
    /// A key for signatures; `None` for every other.
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).map(Value::as_str);
        let is_for_signatures = text("use").is_none_or(|used| used == Some("sig"))
            && jwk.get("key_ops").is_none_or(|operations| {
                let operations = operations.as_array();
                operations.is_some_and(|all| all.iter().any(|one| one == "verify"))
            });
        if !is_for_signatures {
            return None;
        }
        let (algorithm, public) = match (text("kty")??, text("crv").flatten()) {
            ("EC", Some("P-256")) => (TokenAlgorithm::Es256, p256(jwk)?),
            ("OKP", Some("Ed25519")) => {
                let point = coordinate(jwk, "x")?;
                (
                    TokenAlgorithm::EdDsa,
                    ParsedPublicKey::new(&ED25519, point).ok()?,
                )
            }
            ("RSA", None) => (TokenAlgorithm::Rs256, rsa(jwk)?),
            _ => return None,
        };
        if text("alg").is_some_and(|named| named != Some(algorithm.name())) {
            return None; // RFC 8725 section 3.1: one algorithm a key
        }
        let id = match jwk.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.to_owned()),
        };
        Some(Self {
            id,
            algorithm,
            public,
        })
    }
}

fn p256(jwk: &Map<String, Value>) -> Option<ParsedPublicKey> {
    const UNCOMPRESSED: u8 = 4; // SEC 1 section 2.3.3
    let (x, y) = (coordinate(jwk, "x")?, coordinate(jwk, "y")?);
    let point = [&[UNCOMPRESSED], &x[..], &y[..]].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()
}

fn rsa(jwk: &Map<String, Value>) -> Option<ParsedPublicKey> {
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    // RFC 7518 section 6.3.1: no leading zeros; some providers write one all the same.
    let n = n.strip_prefix(&[0]).unwrap_or(&n);
    if !MODULUS_BYTES.contains(&n.len()) || n.first() == Some(&0) || e.len() > 4 {
        return None;
    }
    let components = RsaPublicKeyComponents { n, e: &e };
    components
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .ok()
}

fn coordinate(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    bytes(jwk, name).filter(|bytes| bytes.len() == COORDINATE_BYTES)
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515 appendices A.2 and A.3, RFC 8037 appendix A.
    const RSA: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
    const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const EC_SIGNATURE: &str =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    const OKP: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const OKP_SIGNATURE: &str =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    fn set(keys: &[&str]) -> Result<KeySet, BadKeySet> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    fn with(key: &str, more: &str) -> String {
        format!("{},{more}}}", key.strip_suffix('}').unwrap())
    }

    fn verify(
        set: &KeySet,
        algorithm: &str,
        id: Option<&str>,
        message: &str,
        signature: &str,
    ) -> SignatureVerdict {
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        let algorithm = TokenAlgorithm::named(algorithm).unwrap();
        set.verify(algorithm, id, message.as_bytes(), &signature)
    }

    #[test]
    fn the_examples_of_the_rfcs_are_good_and_nothing_near_them_is() {
        let set = set(&[RSA, EC, OKP]).unwrap();
        let okp_message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        for (algorithm, message, signature) in [
            (
                "RS256",
                &*format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}"),
                RSA_SIGNATURE,
            ),
            (
                "ES256",
                &*format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}"),
                EC_SIGNATURE,
            ),
            ("EdDSA", okp_message, OKP_SIGNATURE),
        ] {
            let check =
                |message: &str, signature: &str| verify(&set, algorithm, None, message, signature);
            assert_eq!(
                check(message, signature),
                SignatureVerdict::Good,
                "{algorithm}"
            );
            assert_eq!(
                check(&format!("{message}x"), signature),
                SignatureVerdict::Wrong
            );
            assert_eq!(check(message, &signature[4..]), SignatureVerdict::Wrong);
            assert_eq!(check(message, ""), SignatureVerdict::Wrong);
            let other = if algorithm == "ES256" {
                OKP_SIGNATURE
            } else {
                EC_SIGNATURE
            };
            assert_eq!(check(message, other), SignatureVerdict::Wrong);
        }
    }

    #[test]
    fn a_token_names_its_key_or_a_single_key_can_be_meant() {
        let message = format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}");
        let check = |set: &KeySet, id| verify(set, "RS256", id, &message, RSA_SIGNATURE);
        let two = set(&[&with(RSA, r#""kid":"a""#), &with(RSA, r#""kid":"b""#)]).unwrap();
        assert_eq!(check(&two, Some("b")), SignatureVerdict::Good);
        assert_eq!(check(&two, Some("c")), SignatureVerdict::NoKey);
        assert_eq!(check(&two, None), SignatureVerdict::NoKey);
        assert_eq!(
            check(&set(&[RSA]).unwrap(), Some("a")),
            SignatureVerdict::NoKey
        );
        assert_eq!(
            check(&set(&[EC, OKP]).unwrap(), None),
            SignatureVerdict::NoKey
        );
    }

    #[test]
    fn keys_for_other_uses_and_weak_ones_are_left_out() {
        let small = BASE64_URL_SAFE_NO_PAD.encode([0xff; 128]);
        for key in [
            r#"{"kty":"oct","k":"c2VjcmV0"}"#,
            r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qY"}"#,
            &with(RSA, r#""use":"enc""#),
            &with(RSA, r#""alg":"HS256""#),
            &with(RSA, r#""alg":"RS512""#),
            &with(EC, r#""alg":"RS256""#),
            &with(RSA, r#""key_ops":["sign"]"#),
            &with(RSA, r#""kid":1"#),
            &format!(r#"{{"kty":"RSA","n":"{small}","e":"AQAB"}}"#),
            r#"{"kty":"RSA","e":"AQAB"}"#,
            "[]",
            "{}",
        ] {
            assert!(set(&[key]).is_err(), "{key}");
            assert!(set(&[key, OKP]).is_ok(), "{key}");
        }
        for text in ["", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(set(&[OKP; KEYS]).is_ok() && set(&[OKP; KEYS + 1]).is_err());
        let padded = format!("{{\"keys\":[{OKP}]}}{}", " ".repeat(KEY_SET_BYTES));
        assert!(KeySet::parse(padded.as_bytes()).is_err());
    }
}
