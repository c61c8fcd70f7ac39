//! The admin API's documents: tenants, keys and configuration as JSON, page by page, without secrets.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::clock::wall_clock;
use crate::config::TenantConfig;
use crate::credentials::{KeyView, RenewalResult};
use crate::observe::TenantTraffic;
use crate::observe::paging::{PageOf, PageRange};
use crate::proxy::Shared;
use crate::timestamp::Timestamp;

/// What a request for a document says beside its path.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

/// Why there is no such document.
#[derive(Debug)]
pub(super) enum DocumentError {
    /// The request is wrong.
    Invalid(String),
    /// The thing that it names cannot do this.
    Conflict(String),
    /// The thing that it names is not there.
    Unknown(String),
}

/// A page of tenants.
#[derive(Debug)]
pub(super) struct TenantPage<'a> {
    /// Index in the configuration, and tenant.
    pub(super) tenants: Vec<(usize, &'a TenantConfig)>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
    /// How many tenants the search finds.
    pub(super) found: usize,
}

impl Parameters {
    /// Reads a query, in which each of `known` may stand once.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, DocumentError> {
        let mut read = Vec::new();
        for part in query
            .unwrap_or_default()
            .split('&')
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if !known.contains(&name) || read.iter().any(|(known, _)| known == name) {
                let known = match known {
                    [] => "none".to_owned(),
                    known => known.join(", "),
                };
                let why = format!("unknown or repeated parameter; this page has: {known}");
                return Err(DocumentError::Invalid(why));
            }
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8_lossy();
            read.push((name.to_owned(), value.into_owned()));
        }
        Ok(Self(read))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn range(&self) -> Result<PageRange, DocumentError> {
        let after = self.get("after").map(str::to_owned);
        PageRange::read(after, self.get("limit")).map_err(DocumentError::Invalid)
    }
}

/// `GET /tenants?search=&after=&limit=`
pub(super) fn tenants(shared: &Shared, parameters: &Parameters) -> Result<Value, DocumentError> {
    let search = parameters.get("search").unwrap_or_default();
    let page = tenant_page(shared, search, &parameters.range()?);
    let now = wall_clock();
    let described = page.tenants.iter();
    let described = described.map(|(index, tenant)| tenant_document(shared, *index, tenant, now));
    Ok(json!({
        "found": page.found,
        "next": page.next,
        "tenants": described.collect::<Vec<_>>(),
    }))
}

/// The tenants whose names have `search` in them, in any case.
pub(super) fn tenant_page<'a>(
    shared: &'a Shared,
    search: &str,
    range: &PageRange,
) -> TenantPage<'a> {
    let search = search.trim().to_lowercase();
    let mut page = PageOf::new(range);
    let mut found = 0;
    for (index, tenant) in shared.config().tenants.iter().enumerate() {
        if search.is_empty() || tenant.name.to_lowercase().contains(&search) {
            found += 1;
            page.offer(&tenant.name, || (index, tenant));
        }
    }
    let (tenants, next) = page.finish();
    TenantPage {
        tenants: tenants.into_iter().map(|(_, tenant)| tenant).collect(),
        next,
        found,
    }
}

fn tenant_document(shared: &Shared, index: usize, tenant: &TenantConfig, now: Timestamp) -> Value {
    let issuer = shared.config().issuers.get(tenant.issuer);
    let keys = tenant.access_keys.iter();
    let keys = keys.map(|key| json!({ "id": key.id, "not_after": key.not_after.map(iso) }));
    let grants = tenant.grants.iter().map(|grant| {
        let prefixes = grant.prefixes.iter().map(ToString::to_string);
        json!({
            "name": grant.name,
            "bucket": grant.bucket,
            "region": grant.region,
            "root": grant.root,
            "prefixes": prefixes.collect::<Vec<_>>(),
        })
    });
    let key = shared.credentials().key_view(index, now);
    let traffic = shared.metrics().tenant_traffic(&tenant.name);
    json!({
        "name": tenant.name,
        "issuer": issuer.map(|issuer| &issuer.name),
        "anonymous": tenant.anonymous,
        "access_keys": keys.collect::<Vec<_>>(),
        "grants": grants.collect::<Vec<_>>(),
        "key": key.map(|key| key_state(&key, now)),
        "traffic": traffic.as_ref().map(traffic_document),
    })
}

fn traffic_document(traffic: &TenantTraffic) -> Value {
    let [_, ok, redirected, refused, failed] = traffic.requests;
    json!({
        "requests": { "2xx": ok, "3xx": redirected, "4xx": refused, "5xx": failed },
        "limited_requests": traffic.limited,
        "received_bytes": traffic.received,
        "sent_bytes": traffic.sent,
    })
}

/// `GET /keys?after=&limit=`
pub(super) fn keys(shared: &Shared, parameters: &Parameters) -> Result<Value, DocumentError> {
    let now = wall_clock();
    let (keys, next) = shared.credentials().key_views(&parameters.range()?, now);
    let keys = keys.iter().map(|key| key_document(key, now));
    Ok(json!({ "keys": keys.collect::<Vec<_>>(), "next": next }))
}

fn key_document(key: &KeyView, now: Timestamp) -> Value {
    let mut document = key_state(key, now);
    let more = json!({
        "name": key.name,
        "tenant": key.tenant,
        "issuer": key.issuer,
        "scope": key.scope,
        "more_scope": key.more_scope,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut document, more) {
        all.extend(more);
    }
    document
}

fn key_state(key: &KeyView, now: Timestamp) -> Value {
    json!({
        "state": key.status.as_str(),
        "generation": key.generation,
        "expires_at": key.expires.map(iso),
        "expires_in": key.expires.map(|at| at.since(now)),
        "refresh_at": key.refresh.map(iso),
        "refresh_in": key.refresh.map(|at| at.since(now)),
        "failure": key.failure,
    })
}

/// `POST /keys/refresh?tenant=NAME`, or of all.
pub(super) fn refresh(shared: &Shared, parameters: &Parameters) -> Result<Value, DocumentError> {
    let credentials = shared.credentials();
    let result = match parameters.get("tenant") {
        Some(name) => credentials.renew(name),
        None => credentials.renew_all(),
    };
    match result {
        RenewalResult::Requested(count) => {
            tracing::info!(
                count,
                "new keys are fetched, as POST /keys/refresh requested"
            );
            Ok(json!({ "requested": count }))
        }
        RenewalResult::Permanent => Err(DocumentError::Conflict(
            "the key of a static issuer does not change".to_owned(),
        )),
        RenewalResult::Unknown => Err(DocumentError::Unknown(
            "no tenant and no cached key has this name: see /tenants and /keys".to_owned(),
        )),
    }
}

/// `GET /config?after=&limit=`
pub(super) fn configuration(
    shared: &Shared,
    parameters: &Parameters,
) -> Result<Value, DocumentError> {
    let range = parameters.range()?;
    let mut page = PageOf::new(&range);
    for table in shared.config().shown_tables() {
        let name = table.name.clone();
        page.offer(&name, || table);
    }
    let (tables, next) = page.finish();
    let tables = tables.iter();
    let tables = tables.map(|(name, table)| json!({ "table": name, "keys": table.keys() }));
    Ok(json!({ "tables": tables.collect::<Vec<_>>(), "next": next }))
}

fn iso(time: Timestamp) -> String {
    time.iso8601()
}
