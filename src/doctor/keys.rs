//! Temporary keys: whether the issuer may request them, and how long they live.

use std::sync::Arc;
use std::time::Duration;

use super::GrantProbes;
use super::finding::{Finding, Findings, ProbeArea, ProbeResult};
use crate::clock::Clock;
use crate::config::{Config, Grant, IssuerKind, PrefixPattern};
use crate::credentials::{Cache, Credential, IssueError};
use crate::tenant::policy::tenant_policy;
use crate::tenant::{Tenant, Tenants};

/// What the key for the store's probes may do, below the throw-away prefix alone.
const PROBE_ACTIONS: [&str; 14] = [
    "name/cos:AbortMultipartUpload",
    "name/cos:CompleteMultipartUpload",
    "name/cos:DeleteObject",
    "name/cos:GetBucket",
    "name/cos:GetBucketObjectVersions",
    "name/cos:GetObject",
    "name/cos:HeadObject",
    "name/cos:InitiateMultipartUpload",
    "name/cos:ListMultipartUploads",
    "name/cos:ListParts",
    "name/cos:PostObject",
    "name/cos:PutObject",
    "name/cos:PutObjectCopy",
    "name/cos:UploadPart",
];
/// A life that is shorter than requested by more than this, in seconds, is worth a word.
const TOLERANCE: i64 = 60;

/// A tenant, and the key that cosgate would sign its requests with.
pub(super) struct ProbedTenant {
    config: Config,
    index: usize,
    tenant: Tenant,
    policies: Vec<String>,
    clock: Arc<Clock>,
    /// Once it was fetched.
    pub(super) key: Option<Arc<Credential>>,
}

impl ProbedTenant {
    pub(super) fn new(config: &Config, index: usize, clock: &Arc<Clock>) -> Result<Self, String> {
        let tenants = Tenants::new(config);
        let policies = tenants.tenants().iter();
        let policies = policies
            .map(|tenant| tenant_policy(tenant).json())
            .collect();
        let tenant = config.tenants.get(index);
        let tenant = tenant.map(|tenant| Tenant::new(index, tenant, None, None));
        let mut config = config.clone();
        config.credential_shared = None; // what STS says to this machine, not what another has stored
        Ok(Self {
            config,
            index,
            tenant: tenant.ok_or("there is no such tenant")?,
            policies,
            clock: Arc::clone(clock),
            key: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.tenant.name
    }

    pub(super) fn grants(&self) -> &[Grant] {
        &self.tenant.grants
    }

    fn issuer(&self) -> Option<&crate::config::Issuer> {
        let tenant = self.config.tenants.get(self.index)?;
        self.config.issuers.get(tenant.issuer)
    }

    pub(super) fn is_static(&self) -> bool {
        let kind = self.issuer().map(|issuer| &issuer.kind);
        matches!(kind, Some(IssuerKind::Static(_)))
    }

    /// Fetches the tenant's key, as `serve` does.
    pub(super) async fn own_key(&mut self) -> Finding {
        let issuer = self.issuer();
        let (name, kind) = issuer.map_or(("", ""), |issuer| (&issuer.name, action(&issuer.kind)));
        let finding = Finding::new(
            ProbeArea::Keys,
            self.name(),
            "a temporary key for the tenant",
        )
        .sent(format!("{kind}, issuer {name}"));
        match self.fetch(self.policies.clone()).await {
            Ok(key) => {
                let finding = self.judge_life(finding, &key);
                self.key = Some(key);
                finding
            }
            Err(error) => finding
                .came(error)
                .is(
                    ProbeResult::Fail,
                    "cosgate refuses the tenant's requests with 503",
                )
                .change(format!(
                    "see the reason; the key of [issuers.{name}] needs the right to call STS"
                )),
        }
    }

    fn judge_life(&self, finding: Finding, key: &Credential) -> Finding {
        let Some(expires) = key.expires else {
            let meaning = "a permanent key: no policy fences it, only cosgate's own rules do";
            let change = "prefer `kind = \"federation\"` or `\"assume-role\"` for tenants that share a bucket";
            let finding = finding.came("the key of the configuration");
            return finding.is(ProbeResult::Warning, meaning).change(change);
        };
        let life = expires.since(self.clock.upstream_now());
        let requested = self.issuer().and_then(|issuer| issuer.kind.duration());
        let requested = requested.map_or(life, |requested| {
            i64::try_from(requested.as_secs()).unwrap_or(life)
        });
        let finding = finding.came(format!(
            "a key that lives for {life} s; requested: {requested} s"
        ));
        if life + TOLERANCE < requested {
            let change = "write a `duration` that the account or the role allows";
            finding
                .is(
                    ProbeResult::Warning,
                    "STS gives a shorter life than requested",
                )
                .change(change)
        } else {
            finding.is(ProbeResult::Ok, "the issuer may request keys of this scope")
        }
    }

    /// A key that can do everything below the throw-away prefix of `grant`, and nothing else.
    pub(super) async fn key_for_probes(
        &self,
        grant: &GrantProbes<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<Arc<Credential>> {
        let finding = grant.finding(ProbeArea::Store, "a key for the probes below");
        let Some(folder) = grant.writes_to().and(grant.folder.inside.as_ref()) else {
            let why = if grant.read_only {
                "`--read-only`: nothing is written"
            } else {
                "the grant names single keys only: no folder of it is free"
            };
            findings.push(finding.is(ProbeResult::Skipped, why));
            return None;
        };
        if self.is_static() {
            return self.key.clone();
        }
        let scope = Grant {
            root: String::new(),
            prefixes: vec![PrefixPattern::StartsWith(folder.clone())],
            actions: PROBE_ACTIONS.map(str::to_owned).to_vec(),
            policy: None,
            session: None,
            ..grant.bucket.grant.clone()
        };
        let tenant = Tenant {
            index: self.index,
            name: self.tenant.name.clone(),
            grants: vec![scope],
            limits: None,
        };
        let mut policies = self.policies.clone();
        if let Some(policy) = policies.get_mut(self.index) {
            *policy = tenant_policy(&tenant).json();
        }
        match self.fetch(policies).await {
            Ok(key) => Some(key),
            Err(error) => {
                let meaning = "without it the store is not probed";
                findings.push(finding.came(error).is(ProbeResult::Skipped, meaning));
                None
            }
        }
    }

    /// A key of the tenant's scope that lives for `life`, if STS gives it, and how long it lives.
    pub(super) async fn short_key(&self, life: Duration) -> Result<(Credential, Duration), String> {
        let cache = Cache::start(&self.config, self.policies.clone(), &self.clock);
        let cache = cache.map_err(|error| error.to_string())?;
        let tenant = self.config.tenants.get(self.index);
        let issuer = tenant.and_then(|tenant| cache.issuers().get(tenant.issuer)?.as_ref());
        let policy = self.policies.get(self.index).map_or("", String::as_str);
        let issuer = issuer.ok_or("the tenant has no issuer")?;
        let response = issuer.issue_for(self.name(), policy, life).await;
        let response = response.map_err(|error| error.to_string())?;
        let life = response.life;
        let key = response.credential().map_err(|error| error.to_string())?;
        Ok((key, life))
    }

    async fn fetch(&self, policies: Vec<String>) -> Result<Arc<Credential>, String> {
        let cache = Cache::start(&self.config, policies, &self.clock);
        let cache = cache.map_err(|error| error.to_string())?;
        let entry = cache.entry(self.index).ok_or("the tenant has no issuer")?;
        let key = entry.get().await;
        key.map_err(|IssueError { detail, .. }| detail)
    }
}

fn action(kind: &IssuerKind) -> &'static str {
    match kind {
        IssuerKind::AssumeRole { .. } => "AssumeRole",
        IssuerKind::Federation { .. } => "GetFederationToken",
        IssuerKind::Static(_) => "nothing",
        IssuerKind::WebIdentity(_) => "AssumeRoleWithWebIdentity",
    }
}
