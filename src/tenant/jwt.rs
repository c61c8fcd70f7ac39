//! A JSON Web Token (RFC 7519) in compact form (RFC 7515), read strictly and checked as RFC 8725 requires.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jwk::{KeySet, SignatureVerdict, TokenAlgorithm};
use crate::error::{Code, S3Error};
use crate::json;
use crate::timestamp::Timestamp;

/// Bytes of a token at most.
const TOKEN_BYTES: usize = 8 * 1024;
/// Bytes of a subject at most (section 2 of `OpenID` Connect Core).
const SUBJECT_BYTES: usize = 255;
/// How far a provider's clock may be from ours, in seconds.
const LEEWAY: i64 = 60;
/// The latest time that a token may name, in seconds: the year 9999.
const LATEST: f64 = 253_402_300_799.0;

/// A token as it came. What it says is believed when [`Jwt::verify`] has found it good.
#[derive(Debug)]
pub(super) struct Jwt<'a> {
    algorithm: TokenAlgorithm,
    key_id: Option<String>,
    signed: &'a [u8],
    signature: Vec<u8>,
    claims: Claims,
}

/// What a token states.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

/// When a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// The later of `nbf` and `iat`.
    not_before: Timestamp,
    /// `exp`
    expires: Timestamp,
}

impl<'a> Jwt<'a> {
    /// Reads `token`: three parts of base64url without padding, each as it must be.
    pub(super) fn parse(token: &'a str) -> Result<Self, S3Error> {
        if token.len() > TOKEN_BYTES {
            return Err(invalid("it is longer than 8192 bytes"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(not_compact)?;
        let (header, claims) = signed.split_once('.').ok_or_else(not_compact)?;
        let header = json::object(&decoded(header)?)
            .ok_or_else(|| invalid("its header is not a JSON object with distinct members"))?;
        let claims = json::object(&decoded(claims)?)
            .ok_or_else(|| invalid("its claims are not a JSON object with distinct members"))?;
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm
            .and_then(TokenAlgorithm::named)
            .ok_or_else(|| invalid("its alg is not RS256, ES256 or EdDSA"))?;
        // RFC 7515 section 4.1.11: no extension is known here. `jwk`, `jku`, `x5c` and `x5u` are not
        // looked at: whom to trust is configured, and a token cannot say it.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(invalid(
                "its header has crit or b64, which cosgate does not support",
            ));
        }
        let is_jwt = header.get("typ").is_none_or(|kind| {
            kind.as_str().is_some_and(|kind| {
                ["JWT", "at+jwt", "application/at+jwt"]
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(kind))
            })
        });
        if !is_jwt {
            return Err(invalid("its typ is not JWT or at+jwt")); // RFC 8725 section 3.11
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(invalid("its kid is not a string")),
        };
        Ok(Self {
            algorithm,
            key_id,
            signed: signed.as_bytes(),
            signature: decoded(signature)?,
            claims: Claims(claims),
        })
    }

    /// What it says, not yet to be believed: only good to find the keys that it is checked with.
    pub(super) fn unverified(&self) -> &Claims {
        &self.claims
    }

    /// Whether one of `keys` could have made its signature.
    pub(super) fn has_key_in(&self, keys: &KeySet) -> bool {
        keys.has_key(self.algorithm, self.key_id.as_deref())
    }

    /// What `keys` say of its signature.
    pub(super) fn verify(&self, keys: &KeySet) -> SignatureVerdict {
        let key_id = self.key_id.as_deref();
        keys.verify(self.algorithm, key_id, self.signed, &self.signature)
    }
}

impl Claims {
    /// A claim that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Whether there is a claim of this name, whatever it is.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the token is meant for `audience` (RFC 7519 section 4.1.3).
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => {
                several.iter().all(Value::is_string) && several.iter().any(|one| one == audience)
            }
            _ => false,
        }
    }

    /// Whom it is about.
    pub(super) fn subject(&self) -> Result<&str, S3Error> {
        self.text("sub")
            .filter(|subject| (1..=SUBJECT_BYTES).contains(&subject.len()))
            .ok_or_else(|| invalid("its sub is not a text of 1 to 255 bytes"))
    }

    /// When it is good. A token without an end is refused: it could never be taken back.
    pub(super) fn validity(&self) -> Result<Validity, S3Error> {
        let expires = self.time("exp")?;
        let (not_before, issued) = (self.time("nbf")?, self.time("iat")?);
        Ok(Validity {
            not_before: not_before.max(issued).unwrap_or_default(),
            expires: expires.ok_or_else(|| invalid("it has no exp"))?,
        })
    }

    /// A `NumericDate`: seconds, which may have a fraction.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, S3Error> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let seconds = value
            .as_f64()
            .filter(|seconds| (0.0..=LATEST).contains(seconds))
            .ok_or_else(|| invalid("its exp, nbf and iat must be numbers of seconds"))?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it lies within the range above"
        )]
        let seconds = seconds as i64;
        Ok(Some(Timestamp::from_unix(seconds)))
    }
}

impl Validity {
    /// Whether it is good at `now`, give or take a minute.
    pub(super) fn check(self, now: Timestamp) -> Result<(), S3Error> {
        if now.since(self.expires) >= LEEWAY {
            return Err(S3Error::new(
                Code::ExpiredToken,
                "The token has expired (exp): fetch a new one from the identity provider.",
            ));
        }
        if self.not_before.since(now) > LEEWAY {
            return Err(invalid(
                "it is not valid yet (nbf or iat): check the clocks",
            ));
        }
        Ok(())
    }
}

/// A token that is refused. `why` is shown; nothing of the token itself is.
pub(super) fn invalid(why: &str) -> S3Error {
    S3Error::new(Code::InvalidToken, format!("The token is refused: {why}."))
}

fn not_compact() -> S3Error {
    invalid("it is not three parts of base64url with dots between")
}

fn decoded(part: &str) -> Result<Vec<u8>, S3Error> {
    BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| not_compact())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn token(header: &str, claims: &str) -> String {
        let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.{}",
            encoded(header),
            encoded(claims),
            encoded("signature")
        )
    }

    fn why(token: &str) -> String {
        Jwt::parse(token).unwrap_err().message().to_owned()
    }

    fn claims(text: &str) -> Claims {
        Claims(json::object(text.as_bytes()).unwrap())
    }

    #[test]
    fn only_the_three_algorithms_are_read_by_their_exact_names() {
        for algorithm in ["RS256", "ES256", "EdDSA"] {
            assert!(Jwt::parse(&token(&format!(r#"{{"alg":"{algorithm}"}}"#), "{}")).is_ok());
        }
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":"RS384"}"#,
            r#"{"alg":"PS256"}"#,
            r#"{"alg":"ES256K"}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"alg":""}"#,
            "{}",
        ] {
            assert!(why(&token(header, "{}")).contains("alg"), "{header}");
        }
    }

    #[test]
    fn what_a_header_may_not_hold() {
        for (more, reason) in [
            (r#""crit":["exp"]"#, "crit"),
            (r#""crit":[]"#, "crit"),
            (r#""b64":false"#, "crit"),
            (r#""typ":"dpop+jwt""#, "typ"),
            (r#""typ":1"#, "typ"),
            (r#""kid":7"#, "kid"),
            (r#""alg":"RS256""#, "distinct"),
        ] {
            let header = format!(r#"{{"alg":"RS256",{more}}}"#);
            assert!(why(&token(&header, "{}")).contains(reason), "{header}");
        }
        for more in [
            r#""typ":"jwt""#,
            r#""typ":"at+JWT""#,
            r#""jwk":{"kty":"oct"}"#,
            r#""jku":"https://evil.example/""#,
            r#""x5u":"https://evil.example/","x5c":["AA"]"#,
        ] {
            assert!(Jwt::parse(&token(&format!(r#"{{"alg":"RS256",{more}}}"#), "{}")).is_ok());
        }
    }

    #[test]
    fn base64url_has_one_spelling_and_a_token_three_parts() {
        let good = token(r#"{"alg":"RS256"}"#, r#"{"sub":"a"}"#);
        assert!(Jwt::parse(&good).is_ok());
        let [header, body, signature]: [&str; 3] =
            good.split('.').collect::<Vec<_>>().try_into().unwrap();
        for bad in [
            String::new(),
            "..".to_owned(),
            format!("{header}.{body}"),
            format!("{good}."),
            format!("{good}.x"),
            format!(" {good}"),
            format!("{good} "),
            format!("{header}=.{body}.{signature}"),
            format!("{header}.{body}.{signature}="),
            format!("{header}.{body}.A"),
            format!("{header}.{body}.AB"),
            format!("{header}.{body}.A+/A"),
            token(r#"{"alg":"RS256"}"#, r#"{"sub":"a","sub":"b"}"#),
            token(r#"{"alg":"RS256"}"#, "[]"),
            token(r#"{"alg":"RS256"}"#, "{} "),
            format!("{header}.{}.{signature}", "A".repeat(TOKEN_BYTES)),
        ] {
            if bad != token(r#"{"alg":"RS256"}"#, "{} ") {
                assert!(Jwt::parse(&bad).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn times_are_held_to_a_minute() {
        let check = |text: &str| {
            let validity = claims(text).validity()?;
            validity.check(Timestamp::from_unix(NOW))
        };
        let exp = |more: &str| format!(r#"{{"exp":{}{more}}}"#, NOW + 600);
        for good in [
            exp(""),
            format!(r#"{{"exp":{}}}"#, NOW - 59),
            format!(r#"{{"exp":{}.9}}"#, NOW + 1),
            exp(&format!(r#","nbf":{},"iat":{}"#, NOW + 60, NOW - 9999)),
        ] {
            assert!(check(&good).is_ok(), "{good}");
        }
        for (bad, code) in [
            ("{}".to_owned(), Code::InvalidToken),
            (format!(r#"{{"exp":{}}}"#, NOW - 60), Code::ExpiredToken),
            (r#"{"exp":0}"#.to_owned(), Code::ExpiredToken),
            (r#"{"exp":"1900000000"}"#.to_owned(), Code::InvalidToken),
            (r#"{"exp":1e300}"#.to_owned(), Code::InvalidToken),
            (r#"{"exp":-1}"#.to_owned(), Code::InvalidToken),
            (r#"{"exp":null}"#.to_owned(), Code::InvalidToken),
            (exp(&format!(r#","nbf":{}"#, NOW + 61)), Code::InvalidToken),
            (exp(&format!(r#","iat":{}"#, NOW + 61)), Code::InvalidToken),
            (exp(r#","nbf":"soon""#), Code::InvalidToken),
        ] {
            assert_eq!(check(&bad).unwrap_err().code(), code, "{bad}");
        }
    }

    #[test]
    fn an_audience_is_one_of_those_named() {
        for good in [r#"{"aud":"me"}"#, r#"{"aud":["you","me"]}"#] {
            assert!(claims(good).is_for("me"), "{good}");
        }
        for bad in [
            "{}",
            r#"{"aud":"ME"}"#,
            r#"{"aud":"me2"}"#,
            r#"{"aud":[]}"#,
            r#"{"aud":["me",1]}"#,
            r#"{"aud":{"me":"me"}}"#,
        ] {
            assert!(!claims(bad).is_for("me"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~]{0,200}", header in "[ -~]{0,60}", body in "[ -~]{0,60}") {
            let _ = Jwt::parse(&text);
            if let Ok(token) = Jwt::parse(&token(&header, &body)) {
                let _ = (token.claims.validity(), token.claims.subject());
            }
        }
    }
}
