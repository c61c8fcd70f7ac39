//! The tenants of a load: their identities and their shares of the requests. Pure except for sources of secrets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::quantity::as_text;
use crate::secret::Secret;

/// A tenant in a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantEntry {
    /// Its name in reports.
    pub name: String,
    /// The access key id.
    pub access_key: Option<String>,
    /// `env:NAME`, `file:PATH` or the secret itself.
    pub secret_key: Option<String>,
    /// A session token, with the same sources.
    pub session_token: Option<String>,
    /// A bearer token in place of a key, with the same sources.
    pub bearer: Option<String>,
    /// Its bucket; by default the scenario's.
    pub bucket: Option<String>,
    /// Its prefix; by default the scenario's.
    pub prefix: Option<String>,
    /// Its weight among the others; by default 1.
    pub weight: Option<f64>,
}

/// The shares of tenants.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Skew {
    /// By the weights alone.
    #[default]
    Uniform,
    /// The tenant with index `k` (from 1) sends `1/k^exponent` of the first tenant's requests.
    Zipf(f64),
    /// This tenant sends ten times as many requests as each other one.
    Noisy(String),
}

/// The factor of a noisy neighbour.
const NOISE: f64 = 10.0;

/// The proof of a tenant's identity.
#[derive(Clone, Debug)]
pub(super) enum TenantProof {
    /// A key pair, with a session token for temporary keys.
    Key {
        /// The access key id.
        id: String,
        /// The secret key.
        secret: Secret,
        /// The session token.
        token: Option<Secret>,
    },
    /// A bearer token.
    Bearer(Secret),
    /// No proof.
    Anonymous,
}

/// Picks tenants by their shares.
#[derive(Clone, Debug)]
pub(super) struct Picker(Vec<f64>);

impl Picker {
    /// `names` and `weights` in the order of the tenants.
    pub(super) fn new(skew: &Skew, tenants: &[(&str, f64)]) -> Result<Self, String> {
        if let Skew::Noisy(name) = skew
            && !tenants.iter().any(|(known, _)| known == name)
        {
            return Err(format!("skew: no tenant is called `{name}`"));
        }
        let mut sum = 0.0;
        let mut sums = Vec::with_capacity(tenants.len());
        for (place, (name, weight)) in tenants.iter().enumerate() {
            if !weight.is_finite() || *weight < 0.0 {
                return Err(format!(
                    "tenant {name}: the weight must be a positive number"
                ));
            }
            sum += weight
                * match skew {
                    Skew::Zipf(exponent) => ((place + 1) as f64).powf(-exponent),
                    Skew::Noisy(noisy) if noisy == name => NOISE,
                    Skew::Uniform | Skew::Noisy(_) => 1.0,
                };
            sums.push(sum);
        }
        if sum <= 0.0 {
            return Err("no tenant has a positive weight".to_owned());
        }
        Ok(Self(sums))
    }

    /// The index of the tenant at `point`, from 0 to 1.
    pub(super) fn at(&self, point: f64) -> usize {
        let total = self.0.last().copied().unwrap_or(0.0);
        let place = self.0.partition_point(|sum| *sum <= point * total);
        place.min(self.0.len().saturating_sub(1))
    }
}

impl TenantEntry {
    /// Its values that are secrets, or say where one is.
    pub(super) fn secrets(&mut self) -> [&mut Option<String>; 3] {
        [
            &mut self.secret_key,
            &mut self.session_token,
            &mut self.bearer,
        ]
    }

    /// Reads its secrets. `env` gives an environment variable.
    pub(super) fn identity(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<TenantProof, String> {
        let secret = |source: &Option<String>| match source {
            None => Ok(None),
            Some(source) => secret(source, env)
                .map(Some)
                .map_err(|error| format!("tenant {}: {error}", self.name)),
        };
        if let Some(bearer) = secret(&self.bearer)? {
            return Ok(TenantProof::Bearer(bearer));
        }
        match (&self.access_key, secret(&self.secret_key)?) {
            (Some(id), Some(key)) => Ok(TenantProof::Key {
                id: id.clone(),
                secret: key,
                token: secret(&self.session_token)?,
            }),
            (None, None) => Ok(TenantProof::Anonymous),
            (Some(_), None) => Err(format!(
                "tenant {}: access_key needs secret_key = \"env:NAME\"",
                self.name
            )),
            (None, Some(_)) => Err(format!("tenant {}: secret_key needs access_key", self.name)),
        }
    }
}

/// The secret of `env:NAME` or `file:PATH`, or the text itself.
fn secret(source: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, String> {
    if let Some(name) = source.strip_prefix("env:") {
        let value = env(name).ok_or_else(|| format!("the variable {name} is not set"))?;
        return Ok(Secret::new(value));
    }
    if let Some(path) = source.strip_prefix("file:") {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {path}: {error}"))?;
        return Ok(Secret::new(text.trim()));
    }
    Ok(Secret::new(source))
}

impl FromStr for Skew {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, parameter) = text.split_once(':').unwrap_or((text, ""));
        let exponent = parameter.parse().ok();
        match (kind, parameter, exponent) {
            ("uniform", "", _) => Ok(Self::Uniform),
            ("zipf", "", _) => Ok(Self::Zipf(1.0)),
            ("zipf", _, Some(exponent)) if (0.0..=10.0).contains(&exponent) => {
                Ok(Self::Zipf(exponent))
            }
            ("noisy", name, _) if !name.is_empty() => Ok(Self::Noisy(name.to_owned())),
            _ => Err(format!(
                "`{text}` is not a skew; write uniform, zipf, zipf:1.2 or noisy:TENANT"
            )),
        }
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent}"),
            Self::Noisy(name) => write!(f, "noisy:{name}"),
        }
    }
}

as_text!(Skew);

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(skew: &str, tenants: &[(&str, f64)]) -> Vec<usize> {
        let picker = Picker::new(&skew.parse().unwrap(), tenants).unwrap();
        let mut counts = vec![0; tenants.len()];
        for point in 0..1100 {
            counts[picker.at((f64::from(point) + 0.5) / 1100.0)] += 1;
        }
        counts
    }

    #[test]
    fn each_skew_gives_its_shares() {
        let two = [("a", 1.0), ("b", 1.0)];
        assert_eq!(shares("uniform", &two), [550, 550]);
        assert_eq!(shares("noisy:b", &two), [100, 1000]);
        assert_eq!(shares("uniform", &[("a", 10.0), ("b", 1.0)]), [1000, 100]);
        assert_eq!(
            shares("zipf", &[("a", 1.0), ("b", 1.0), ("c", 1.0)]),
            [600, 300, 200]
        );
    }

    #[test]
    fn rejects_unknown_noisy_tenant() {
        let skew = "noisy:c".parse().unwrap();
        assert!(Picker::new(&skew, &[("a", 1.0)]).is_err());
        for text in ["zipf:x", "noisy", "loud"] {
            assert!(text.parse::<Skew>().is_err(), "{text}");
        }
    }

    #[test]
    fn reads_secrets_and_quotes_none_in_errors() {
        let env = |name: &str| (name == "SET").then(|| "value".to_owned());
        let entry = |key: &str| TenantEntry {
            name: "a".into(),
            access_key: Some("ID".into()),
            secret_key: Some(key.into()),
            ..TenantEntry::default()
        };
        let Ok(TenantProof::Key { secret, .. }) = entry("env:SET").identity(&env) else {
            panic!()
        };
        assert_eq!(secret.expose(), "value");
        assert!(entry("env:UNSET").identity(&env).is_err());
        let lonely = TenantEntry {
            secret_key: Some("CANARY".into()),
            ..TenantEntry::default()
        };
        assert!(!lonely.identity(&env).unwrap_err().contains("CANARY"));
    }
}
