//! What a tenant sees as one bucket.

use crate::config::PrefixPattern;

/// A tenant: a name, and what it may touch.
#[derive(Debug)]
pub struct Tenant {
    /// Position in the configuration: the credential cache keeps one entry for each.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its buckets.
    pub grants: Vec<Grant>,
}

/// One bucket of a tenant: alias, real bucket, region, prefixes, actions.
#[derive(Debug)]
pub struct Grant {
    /// The alias that the client uses.
    pub alias: String,
    /// The real bucket, APPID included.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// The keys it covers.
    pub prefixes: Vec<PrefixPattern>,
    /// `name/cos:…`, sorted.
    pub actions: Vec<String>,
    /// Lower-case names of request headers that need a grant by name.
    pub headers: Vec<String>,
}
