//! Keys that are handed to clients: never the proxy's own, and none with little time left.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::issuer::Issuer;
use super::{Credential, StsError};
use crate::config::{Config, TenantLimits};
use crate::s3::{Code, Fault, S3Error};
use crate::shape;
use crate::tenant::Tenant;
use crate::tenant::limits::Limits;

/// A key with less left is not handed out: AWS's SDKs ask again and again for one with under 15 minutes.
const LEAST_LEFT: Duration = Duration::from_mins(20);
/// The least that a client may ask for, in seconds.
const SHORTEST: u64 = 1800;
/// Calls in a second for one tenant, or all subjects of one template; and at once, after a rest.
const OFFER_RATE: (u64, u64) = (20, 40);
/// The same for one issuer, beside the proxy's own. Tencent allows an account 600 (1312/48195).
const ISSUER_RATE: (u64, u64) = (50, 100);
/// Calls of one issuer under way.
const UNDER_WAY: u64 = 32;
/// When STS gave no key, in seconds.
const RETRY_AFTER: u32 = 5;

/// Gets keys for those tenants whose clients may have some.
pub struct Vendor {
    /// For each tenant, then each template.
    offers: Box<[Option<Arc<Offer>>]>,
    issuers: HashMap<usize, Lane>,
}

impl fmt::Debug for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vendor")
            .field("offers", &self.offers.iter().flatten().count())
            .finish_non_exhaustive()
    }
}

struct Lane {
    issuer: Arc<Issuer>,
    limits: Option<Arc<Limits>>,
}

/// What a tenant's clients may have.
pub struct Offer {
    issuer: usize,
    longest: Duration,
    limits: Option<Arc<Limits>>,
    /// The last key of the whole scope; `None` for a template, whose subjects differ.
    kept: Option<Mutex<Option<Vended>>>,
}

/// A key to be handed out.
#[derive(Clone)]
pub struct Vended {
    /// The key.
    pub key: Arc<Credential>,
    /// Until when, less what must be left, it is handed out.
    until: Instant,
}

impl Vendor {
    /// For the tenants and templates of `config` that have `vend`; `made` are its issuers.
    pub fn new(config: &Config, made: &[Option<Arc<Issuer>>]) -> Self {
        let tenants = config.tenants.iter();
        let tenants = tenants.map(|tenant| (tenant.issuer, tenant.vend.as_ref(), true));
        let templates = config.templates.iter();
        let templates = templates.map(|template| (template.issuer, template.vend.as_ref(), false));
        let mut issuers = HashMap::new();
        let mut offers = Vec::new();
        for (index, vend, is_tenant) in tenants.chain(templates) {
            let issuer = made.get(index).and_then(Option::as_ref); // a static one has none
            let (Some(vend), Some(issuer)) = (vend, issuer) else {
                offers.push(None);
                continue;
            };
            issuers.entry(index).or_insert_with(|| Lane {
                issuer: Arc::clone(issuer),
                limits: limits(ISSUER_RATE, Some(UNDER_WAY)),
            });
            offers.push(Some(Arc::new(Offer {
                issuer: index,
                longest: vend.duration,
                limits: limits(OFFER_RATE, None),
                kept: is_tenant.then(Mutex::default),
            })));
        }
        Self {
            offers: offers.into(),
            issuers,
        }
    }

    /// What the clients of `tenant` may have.
    pub fn offer(&self, tenant: &Tenant) -> Result<Arc<Offer>, S3Error> {
        let offer = self.offers.get(tenant.index).and_then(Option::as_ref);
        offer.cloned().ok_or_else(|| {
            S3Error::new(
                Code::AccessDenied,
                "Access Denied: no keys are handed out here; set vend = true for the tenant.",
            )
        })
    }

    /// A key of `tenant` that `policy` fences. One of the whole scope is handed out again while enough
    /// of its time is left; every other is fetched anew.
    pub async fn key(
        &self,
        offer: &Offer,
        tenant: &Tenant,
        policy: &str,
        duration: Duration,
        is_whole: bool,
    ) -> Result<Vended, S3Error> {
        let Some(kept) = offer.kept.as_ref().filter(|_| is_whole) else {
            return self.fetch(offer, tenant, policy, duration).await;
        };
        // Held over the call: who else asks meanwhile gets the same key.
        let mut kept = kept.lock().await;
        if let Some(vended) = &*kept
            && Instant::now() < vended.until
        {
            return Ok(vended.clone());
        }
        let vended = self.fetch(offer, tenant, policy, duration).await?;
        *kept = Some(vended.clone());
        Ok(vended)
    }

    async fn fetch(
        &self,
        offer: &Offer,
        tenant: &Tenant,
        policy: &str,
        duration: Duration,
    ) -> Result<Vended, S3Error> {
        let lane = self.issuers.get(&offer.issuer);
        let lane = lane.ok_or_else(|| unavailable("it has no issuer"))?;
        let now = shape::now();
        let of_offer = offer.limits.as_ref().map(|limits| limits.admit(now));
        let of_offer = of_offer.transpose()?;
        let of_issuer = lane.limits.as_ref().map(|limits| limits.admit(now));
        let _slots = (of_offer, of_issuer.transpose()?); // until STS has answered
        let asked = Instant::now();
        let issued = lane.issuer.issue_for(&tenant.name, policy, duration).await;
        let issued = issued.map_err(|error: StsError| unavailable(&error.to_string()))?;
        let left = issued.life.saturating_sub(LEAST_LEFT);
        if left.is_zero() {
            let life = issued.life.as_secs();
            return Err(unavailable(&format!(
                "STS gave a key of {life} s, which is too short"
            )));
        }
        let key = Credential::issued(issued).map_err(|error| unavailable(&error.to_string()))?;
        Ok(Vended {
            key: Arc::new(key),
            until: asked + left,
        })
    }
}

impl Offer {
    /// How long a key shall live for which so many seconds were `asked`.
    pub fn duration(&self, asked: Option<u64>) -> Result<Duration, S3Error> {
        let Some(asked) = asked else {
            return Ok(self.longest);
        };
        let longest = self.longest.as_secs();
        if (SHORTEST..=longest).contains(&asked) {
            return Ok(Duration::from_secs(asked));
        }
        Err(S3Error::new(
            Code::InvalidArgument,
            format!("durationSeconds must be {SHORTEST} to {longest} here."),
        ))
    }
}

fn limits((rate, burst): (u64, u64), under_way: Option<u64>) -> Option<Arc<Limits>> {
    Limits::new(&TenantLimits {
        requests_per_second: Some(rate),
        burst: Some(burst),
        concurrent_requests: under_way,
        ..TenantLimits::default()
    })
}

fn unavailable(why: &str) -> S3Error {
    S3Error::new(
        Code::SlowDown,
        "No key can be handed out at the moment. Please try again later.",
    )
    .fault(Fault::Sts)
    .retry_after(RETRY_AFTER)
    .detail(why)
}
