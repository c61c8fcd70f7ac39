//! The requests for temporary keys themselves: where they go, and what may be requested.

use http::request::Parts;
use serde::Deserialize;

use super::address::Address;
use super::request::host;
use crate::error::{Code, S3Error};

/// No bucket has this name, so it is nobody's object; a virtual-hosted key of this name is one.
const VEND_PATH: &str = "/.cosgate/credentials";
/// Bytes of a request's body at most.
pub(crate) const VEND_BYTES: usize = 16 * 1024;
/// The error for a body that makes a policy which is too long for STS.
pub(crate) const LONG_POLICY: &str = "The body is refused: the policy of the key would be too long for the key service. Name one bucket, fewer or shorter prefixes (allowPrefixes), or fewer actions (allowActions).";
/// Prefixes, and actions, of one request.
const MOST: usize = 32;

/// Whether `head` requests temporary keys, and not an object of this name in a bucket of `domains`.
pub(crate) fn is_vend(head: &Parts, domains: &[String]) -> bool {
    head.uri.path() == VEND_PATH
        && host(head).is_ok_and(|host| Address::parse(&head.uri, host, domains).is_err())
}

/// What the body of a `POST` requests: what is not there is not narrowed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct VendRequest {
    /// One bucket, as the client names it.
    pub bucket: Option<String>,
    /// One key.
    pub key: Option<String>,
    /// `a/*`, `a*` or a key.
    #[serde(alias = "allowPrefix")]
    pub allow_prefixes: Option<OneOrMore>,
    /// `name/cos:PutObject`, or a preset.
    pub allow_actions: Option<OneOrMore>,
    /// How long the key shall live.
    pub duration_seconds: Option<u64>,
}

/// A text, or a list of texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Some.
    More(Vec<String>),
}

impl VendRequest {
    /// Reads a body; an empty one requests all that the caller may do.
    pub fn parse(body: &[u8]) -> Result<Self, S3Error> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        // A member that stands twice could be read in two ways.
        let object = crate::json::object(body).ok_or_else(|| invalid("it is not a JSON object"))?;
        let requested: Self = serde_json::from_value(object.into()).map_err(|_| {
            invalid(
                "it may have bucket, key, allowPrefixes, allowActions and durationSeconds, each once",
            )
        })?;
        if requested.key.is_some() && requested.allow_prefixes.is_some() {
            return Err(invalid("key and allowPrefixes exclude each other"));
        }
        for list in [&requested.allow_prefixes, &requested.allow_actions]
            .into_iter()
            .flatten()
        {
            if !(1..=MOST).contains(&list.texts().len()) {
                return Err(invalid("a list has 1 to 32 texts"));
            }
        }
        Ok(requested)
    }

    /// Whether it requests less than everything.
    pub fn narrows(&self) -> bool {
        self.bucket.is_some()
            || self.key.is_some()
            || self.allow_prefixes.is_some()
            || self.allow_actions.is_some()
    }
}

impl OneOrMore {
    /// All of them.
    pub(crate) fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::More(texts) => texts,
        }
    }
}

fn invalid(why: &str) -> S3Error {
    S3Error::new(
        Code::InvalidArgument,
        format!("The body is refused: {why}."),
    )
}
