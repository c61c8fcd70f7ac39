//! Configuration documents of a bucket: the client's in COS's terms, and COS's response in the client's.

use crate::error::{Code, Fault, S3Error};
use crate::s3::Configuration;
use crate::s3::xml::{AccessRights, Vocabulary};
use crate::tenant::Permit;

/// The document for COS of what a client `sent`, in its `words`.
pub(crate) fn configuration_for_cos(
    kind: Configuration,
    sent: &[u8],
    permit: &Permit<'_, '_>,
    words: Vocabulary,
) -> Result<String, S3Error> {
    kind.for_cos(sent, words, &|_, alias| permit.log_bucket(alias))
}

/// The document for the client of what COS has `stored`. What the client's words cannot say is an error and never
/// left out: a client that changes one rule sends all others back.
pub(crate) fn configuration(
    kind: Configuration,
    stored: &[u8],
    permit: &Permit<'_, '_>,
    words: Vocabulary,
) -> Result<String, S3Error> {
    let document = match kind {
        Configuration::Acl => {
            let rights = AccessRights::of_cos(stored);
            rights.map(|rights| rights.to_xml(&permit.tenant().name, words))
        }
        kind => kind.for_client(stored, words, &|region, name| permit.alias_of(region, name)),
    };
    document.map_err(|error| match error.code() {
        Code::NotImplemented => error.fault(Fault::Upstream),
        _ => S3Error::new(
            Code::BadGateway,
            "The store's response cannot be used. Please try again.",
        )
        .fault(Fault::Upstream)
        .detail(format!("a configuration: {error}")),
    })
}
