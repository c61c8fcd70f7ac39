//! Probes of a real COS and STS with the operator's own keys: what works, what the store does where its
//! documents are silent, and what to change.
//!
//! Everything that is written stands below one throw-away prefix of each grant, and is removed again.

mod bucket;
mod clean_up;
mod expiry;
mod fence;
mod finding;
mod keys;
mod network;
mod store;

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::clock::{Clock, wall_clock};
use crate::config::{
    Admission, Config, Grant, PrefixPattern, RevokedSessions, TenantConfig, TenantLimits,
};
use crate::credentials::Credential;
use crate::tenant::Tenants;
use crate::upstream::dial::Roots;
use bucket::{Call, ProbedBucket, Seen};

use finding::Findings;
pub use finding::{Diagnosis, Finding, ProbeArea, ProbeResult};

/// Tenants and their grants that are probed without `--tenant`: a configuration may have thousands.
const TENANTS: usize = 5;
/// Grants of one tenant that are probed.
const GRANTS: usize = 5;
/// The probes of one grant end after this.
const GRANT_TIME: Duration = Duration::from_mins(3);
const STOPPED: &str = "stopped: the other probes were not made";
/// What follows the start of a grant's prefix.
const FOLDER: &str = ".cosgate-doctor-";

/// What is probed.
#[derive(Clone, Debug, Default)]
pub struct DoctorOptions {
    /// This tenant alone.
    pub tenant: Option<String>,
    /// Nothing is written to the store.
    pub read_only: bool,
    /// Waits until a temporary key has expired.
    pub waits: bool,
}

/// Probes all that `config` names, and shows each finding at once. `stop` ends the probes early; what was
/// written is removed in any case.
///
/// # Errors
/// There is no such tenant, or the configuration cannot be used on this machine.
pub async fn examine(
    config: &Config,
    options: &DoctorOptions,
    stop: impl Future<Output = ()>,
    show: &mut dyn FnMut(&Finding),
) -> Result<Diagnosis, String> {
    let mut config = config.clone();
    add_subject(&mut config, options);
    let config = &config;
    let tenants = chosen(config, options)?;
    let roots = &config.upstream;
    let roots = Roots::for_endpoint(roots.endpoint.tls, roots.ca_file.as_deref());
    let clock = Arc::new(Clock::new(wall_clock));
    let mut findings = Findings::new(show);
    let mut stop = pin!(stop);
    findings.extend(network::endpoints(config, &tenants, &clock).await);
    if tenants.is_empty() {
        findings.push(no_tenant(config));
    }
    let mut run = DoctorRun {
        config,
        options,
        roots: roots.map_err(|error| format!("[upstream]: {error}"))?,
        clock,
        id: format!("{:08x}", fastrand::u32(..)),
        folders: Vec::new(),
        has_waited: false,
    };
    for &tenant in &tenants {
        if run.tenant(tenant, stop.as_mut(), &mut findings).await? {
            break;
        }
    }
    Ok(Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        folders: run.folders,
        findings: findings.all,
    })
}

/// What the probes of all tenants share.
struct DoctorRun<'r> {
    config: &'r Config,
    options: &'r DoctorOptions,
    /// `None`: the store is reached without TLS.
    roots: Option<Roots>,
    clock: Arc<Clock>,
    /// A part of the names of its folders.
    id: String,
    /// What was written to.
    folders: Vec<String>,
    /// The probe of an expired key has had its turn.
    has_waited: bool,
}

impl DoctorRun<'_> {
    /// Probes the key of a tenant, and its grants. Returns whether it was stopped.
    async fn tenant(
        &mut self,
        index: usize,
        mut stop: impl Future<Output = ()> + Unpin,
        findings: &mut Findings<'_>,
    ) -> Result<bool, String> {
        let mut keyed = keys::ProbedTenant::new(self.config, index, &self.clock)?;
        findings.push(keyed.own_key().await);
        let Some(own) = keyed.key.clone() else {
            return Ok(false);
        };
        for grant in keyed.grants().iter().take(GRANTS) {
            let roots = self.roots.as_ref();
            let bucket = ProbedBucket::new(self.config, grant, roots, &self.clock);
            let probes = GrantProbes {
                config: self.config,
                subject: format!("{}/{}", keyed.name(), grant.name),
                bucket: &bucket,
                folder: Folder::of(grant, keyed.grants(), &self.id),
                siblings: keyed.grants(),
                read_only: self.options.read_only,
                expiry: (!self.has_waited).then_some(self.options.waits),
                is_static: keyed.is_static(),
                wrote_outside: Cell::new(false),
                open_uploads: Cell::new(0),
            };
            if !probes.reach(&own, findings).await {
                continue;
            }
            self.has_waited = true;
            self.folders.extend(probes.announce(findings));
            if probes.run(&keyed, &own, &mut stop, findings).await {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn no_tenant(config: &Config) -> Finding {
    let finding = Finding::new(ProbeArea::Keys, "tenants", "a temporary key");
    let why = "the configuration has no tenant of its own: neither keys nor buckets are probed";
    let change = match config.templates.first() {
        Some(template) => format!(
            "a template's keys are made for each subject: run doctor for one, with `--tenant {}/SUBJECT`",
            template.name
        ),
        None => "add a tenant".to_owned(),
    };
    finding.is(ProbeResult::Warning, why).change(change)
}

/// Makes the tenant of a template's subject one of the configuration, if `options` name one.
fn add_subject(config: &mut Config, options: &DoctorOptions) {
    let name = options.tenant.as_deref().unwrap_or_default();
    let is_there = |tenant: &TenantConfig| tenant.name == name;
    let template = name.split_once('/').map(|(template, _)| template);
    let template = config
        .templates
        .iter()
        .find(|known| Some(known.name.as_str()) == template);
    let (false, Some(template)) = (config.tenants.iter().any(is_there), template) else {
        return;
    };
    let (issuer, tenant) = (template.issuer, Tenants::new(config).named(name));
    config.tenants.extend(tenant.map(|tenant| TenantConfig {
        name: tenant.name.clone(),
        issuer,
        access_keys: Vec::new(),
        anonymous: false,
        admission: Admission::default(),
        identity: None,
        grants: tenant.grants.clone(),
        limits: TenantLimits::default(),
        vend: None,
        revoked: RevokedSessions::default(),
    }));
}

/// Indexes of the tenants to probe.
fn chosen(config: &Config, options: &DoctorOptions) -> Result<Vec<usize>, String> {
    let Some(name) = &options.tenant else {
        return Ok((0..config.tenants.len().min(TENANTS)).collect());
    };
    let found = config
        .tenants
        .iter()
        .position(|tenant| tenant.name == *name);
    found
        .map(|index| vec![index])
        .ok_or_else(|| format!("the configuration has no tenant `{}`", name.escape_debug()))
}

/// Where a grant can be written to without touching what is there.
#[derive(Clone, Debug)]
struct Folder {
    /// Keys that start with this are within the grant, in the real bucket. `None`: it names single keys only.
    inside: Option<String>,
    /// Keys that start with this are not. `None`: everything is within the grant.
    outside: Option<String>,
}

impl Folder {
    /// `all` are the grants of the tenant: its key is for all of them.
    fn of(grant: &Grant, all: &[Grant], run: &str) -> Self {
        let is_open = |pattern: &PrefixPattern| !matches!(pattern, PrefixPattern::Exact(_));
        let inside = grant.upstream_prefixes().find(is_open);
        let outside = format!("{FOLDER}{run}-outside/");
        let key = format!("{outside}fence");
        let here = all.iter().filter(|other| other.bucket == grant.bucket);
        let is_outside = !here
            .flat_map(Grant::upstream_prefixes)
            .any(|pattern| pattern.covers(&key));
        Self {
            inside: inside.map(|pattern| format!("{}{FOLDER}{run}/", pattern.start())),
            outside: is_outside.then_some(outside),
        }
    }
}

/// What the probes of one grant share.
struct GrantProbes<'p> {
    config: &'p Config,
    /// `tenant/grant`
    subject: String,
    bucket: &'p ProbedBucket<'p>,
    folder: Folder,
    /// All grants of the tenant.
    siblings: &'p [Grant],
    read_only: bool,
    /// Whether to wait for the probe of an expired key. `None`: another grant has had it.
    expiry: Option<bool>,
    /// The key is permanent, and no policy fences it.
    is_static: bool,
    /// An object outside the grant may have been written, and is not removed yet.
    wrote_outside: Cell<bool>,
    /// Multipart uploads that the probes have begun, and that are neither completed nor aborted.
    open_uploads: Cell<u32>,
}

impl GrantProbes<'_> {
    /// Probes the fence and the store, and removes what was written, however that ends. Returns whether it
    /// was stopped.
    async fn run(
        &self,
        keyed: &keys::ProbedTenant,
        own: &Arc<Credential>,
        mut stop: impl Future<Output = ()> + Unpin,
        findings: &mut Findings<'_>,
    ) -> bool {
        let mut wide = None;
        let all = async {
            fence::probe(self, own, findings).await;
            wide = keyed.key_for_probes(self, findings).await;
            if let Some(wide) = &wide {
                store::probe(self, wide, findings).await;
            }
        };
        let ended = tokio::select! {
            () = all => None,
            () = &mut stop => Some((true, STOPPED)),
            () = sleep(GRANT_TIME) => {
                Some((false, "the store is so slow that the other probes were not made"))
            }
        };
        if let Some((_, why)) = ended {
            let finding = self.finding(ProbeArea::Store, "all other probes");
            findings.push(finding.is(ProbeResult::Fail, why));
        }
        if self.wrote_outside.get() {
            findings.extend(fence::remove_outside(self, own).await);
        }
        if self.writes_to().is_some() {
            let key = wide.as_ref().unwrap_or(own);
            findings.push(clean_up::clean_up(self, key).await);
        }
        let is_stopped = ended.is_some_and(|(is_stopped, _)| is_stopped);
        match self.expiry {
            Some(waits) if !is_stopped => self.expired(keyed, waits, stop, findings).await,
            _ => is_stopped,
        }
    }

    /// Probes an expired key; returns whether that was stopped. It comes last, since the keys that clean up can
    /// expire while it waits.
    async fn expired(
        &self,
        keyed: &keys::ProbedTenant,
        waits: bool,
        stop: impl Future<Output = ()>,
        findings: &mut Findings<'_>,
    ) -> bool {
        let probed = tokio::select! {
            probed = timeout(GRANT_TIME + expiry::LONGEST, expiry::probe(self, keyed, waits)) => probed,
            () = stop => {
                let finding = self.finding(ProbeArea::Store, expiry::CHECK);
                findings.push(finding.is(ProbeResult::Fail, STOPPED));
                return true;
            }
        };
        let slow = || {
            let finding = self.finding(ProbeArea::Store, expiry::CHECK);
            vec![finding.is(ProbeResult::Fail, "no whole response in time")]
        };
        findings.extend(probed.unwrap_or_else(|_| slow()));
        false
    }

    fn finding(&self, part: ProbeArea, check: &'static str) -> Finding {
        Finding::new(part, self.subject.clone(), check)
    }

    /// The bucket and prefix that is written to.
    fn writes_to(&self) -> Option<String> {
        let inside = self.folder.inside.as_ref().filter(|_| !self.read_only)?;
        Some(format!("{}/{inside}", self.bucket.grant.bucket))
    }

    /// Says where it will write, before it does.
    fn announce(&self, findings: &mut Findings<'_>) -> Option<String> {
        let folder = self.writes_to()?;
        let finding = self.finding(ProbeArea::Fence, "where doctor writes");
        let meaning =
            format!("all objects of the probes are below {folder}, and are removed at the end");
        findings.push(finding.is(ProbeResult::Note, meaning));
        Some(folder)
    }

    /// Whether the bucket is where the configuration names it.
    async fn reach(&self, key: &Credential, findings: &mut Findings<'_>) -> bool {
        let inside = self.folder.inside.as_ref();
        let exact = || self.bucket.grant.upstream_prefixes().next();
        let name = match inside {
            Some(folder) => format!("{folder}none"),
            None => exact().map_or_else(String::new, |pattern| pattern.start().to_owned()),
        };
        let call = Call::get(name).header("range", "bytes=0-0");
        let finding = self.finding(ProbeArea::Fence, "the bucket, its APPID and its region");
        let finding = finding.sent(&call);
        let (finding, is_there) = match self.bucket.send(&call, key).await {
            Err(error) => {
                let meaning = "the bucket's host gives no whole response";
                let change = "check `endpoint` and `connect_to` in [upstream]".to_owned();
                (
                    finding
                        .came(error)
                        .is(ProbeResult::Fail, meaning)
                        .change(change),
                    false,
                )
            }
            Ok(seen) => self.judge_reached(finding.came(&seen), &seen),
        };
        findings.push(finding);
        is_there
    }

    fn judge_reached(&self, finding: Finding, seen: &Seen) -> (Finding, bool) {
        let grant = self.bucket.grant;
        if seen.is_permitted() || seen.status == 416 {
            let meaning = "the bucket exists, and the signature is right";
            return (finding.is(ProbeResult::Ok, meaning), true);
        }
        if seen.is_denied() {
            let meaning = "the bucket exists, and the key may not read in it";
            let verdict = if grant.allows("name/cos:GetObject") {
                ProbeResult::Warning
            } else {
                ProbeResult::Note // no grant says so
            };
            return (finding.is(verdict, meaning), true);
        }
        let (meaning, change) = match seen.code.as_str() {
            "NoSuchBucket" => (
                "there is no such bucket in this region",
                format!("check `bucket` (with its APPID) and `region` of the grant `{}`", grant.name),
            ),
            "RequestTimeTooSkewed" => (
                "the store refuses the time of the signature",
                "set the clock of this machine, and of STS if it is your own".to_owned(),
            ),
            "InvalidAccessKeyId" | "InvalidToken" | "ExpiredToken" | "SignatureDoesNotMatch" => (
                "the store refuses the temporary key or its signature",
                "check `endpoint` and `signature` in [upstream], and that the bucket is in the issuer's account".to_owned(),
            ),
            _ if matches!(seen.status, 301 | 307) => (
                "the bucket is in another region",
                format!("check `region` of the grant `{}`", grant.name),
            ),
            _ if seen.status >= 500 => ("the store has a fault", "run doctor again".to_owned()),
            _ => (
                "COS would not respond so to a read: another server may be at this address",
                "check `endpoint` and `signature` in [upstream]".to_owned(),
            ),
        };
        (finding.is(ProbeResult::Fail, meaning).change(change), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(root: &str, prefixes: &[&str]) -> Folder {
        let parse = |text: &&str| PrefixPattern::parse(text).unwrap();
        let grant = Grant {
            name: "photos".into(),
            bucket: "shared-1250000000".into(),
            region: "ap-guangzhou".into(),
            root: root.into(),
            prefixes: prefixes.iter().map(parse).collect(),
            actions: Vec::new(),
            headers: Vec::new(),
            policy: None,
            attachment: false,
            cors: [].into(),
            session: None,
        };
        Folder::of(&grant, std::slice::from_ref(&grant), "1")
    }

    #[test]
    fn writes_within_the_grant_and_probes_outside_it() {
        let cases: [(&str, &[&str], Option<&str>, bool); 5] = [
            ("", &["acme/*"], Some("acme/.cosgate-doctor-1/"), true),
            ("acme/", &["*"], Some("acme/.cosgate-doctor-1/"), true),
            ("", &["one.txt", "a*"], Some("a.cosgate-doctor-1/"), true),
            ("", &["*"], Some(".cosgate-doctor-1/"), false),
            ("", &["one.txt"], None, true),
        ];
        for (root, prefixes, inside, has_outside) in cases {
            let folder = folder(root, prefixes);
            assert_eq!(folder.inside.as_deref(), inside, "{prefixes:?}");
            assert_eq!(folder.outside.is_some(), has_outside, "{prefixes:?}");
        }
    }
}
