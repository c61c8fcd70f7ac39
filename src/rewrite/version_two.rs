//! `ListObjectsV2` by way of the first version: a token is a marker in base64, and the rest is said
//! at the listing's end.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::config::UpstreamSignature;
use crate::error::{Code, S3Error};
use crate::s3::{Operation, Query};
use crate::tenant::Grant;

/// Whether the first version of the listing is asked for the second: COS's own API has no other, and
/// in a virtual bucket COS's tokens could tell the root.
pub(super) fn is_translated(
    operation: Operation,
    grant: &Grant,
    signature: UpstreamSignature,
) -> bool {
    operation == Operation::ListObjectsV2
        && (signature == UpstreamSignature::Cos || !grant.root.is_empty())
}

/// What the second version of a listing says and the first does not.
#[derive(Debug)]
pub(super) struct VersionTwo {
    /// The token that the client named.
    pub(super) token: Option<String>,
    /// It also named what to start after.
    pub(super) starts_after: bool,
    pub(super) fetch_owner: bool,
}

impl VersionTwo {
    /// For a listing asked for by this query.
    pub(super) fn new(query: &Query<'_>) -> Self {
        Self {
            token: query.get("continuation-token").map(str::to_owned),
            starts_after: query.get("start-after").is_some(),
            fetch_owner: query.get("fetch-owner") == Some("true"),
        }
    }
}

/// The marker of the first version that a continuation token of ours stands for.
pub(super) fn marker_of_token(token: &str) -> Result<String, S3Error> {
    let marker = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    marker
        .and_then(|marker| String::from_utf8(marker).ok())
        .ok_or_else(|| {
            let text = "The continuation token provided is incorrect: send back the last NextContinuationToken as it was.";
            S3Error::new(Code::InvalidArgument, text)
        })
}

/// The continuation token for a listing that goes on after `marker`.
pub(super) fn token_of_marker(marker: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_marker() {
        for marker in ["acme/b & c", "中", ""] {
            assert_eq!(marker_of_token(&token_of_marker(marker)).unwrap(), marker);
        }
    }

    #[test]
    fn a_made_up_token_is_refused() {
        for token in ["*", "YQ==", "_w"] {
            assert_eq!(
                marker_of_token(token).unwrap_err().code(),
                Code::InvalidArgument
            );
        }
    }
}
