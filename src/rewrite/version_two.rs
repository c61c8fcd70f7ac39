//! `ListObjectsV2` by way of the first version: a token is a marker in base64, and the rest is said
//! at the listing's end.

use crate::config::UpstreamSignature;
use crate::s3::{Operation, Query};
use crate::tenant::{Grant, ListingPage, Permit};

/// Whether cosgate requests the first version of the listing in place of the second: COS's own API has no other, in a
/// virtual bucket COS's tokens could reveal the root, and a token of COS's reveals nothing of another prefix.
pub(super) fn is_translated(
    permit: &Permit<'_, '_>,
    grant: &Grant,
    signature: UpstreamSignature,
) -> bool {
    permit.request().operation == Operation::ListObjectsV2
        && (signature == UpstreamSignature::Cos
            || !grant.root.is_empty()
            || *permit.listing_page() != ListingPage::AsRequested)
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
    /// For a listing requested by this query.
    pub(super) fn new(query: &Query<'_>) -> Self {
        Self {
            token: query.get("continuation-token").map(str::to_owned),
            starts_after: query.get("start-after").is_some(),
            fetch_owner: query.get("fetch-owner") == Some("true"),
        }
    }
}
