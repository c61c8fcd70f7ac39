//! Probes of a real COS and STS with the operator's own keys: what works, what the store does where its
//! documents are silent, and what to change.
//!
//! Everything that is written stands below one throw-away prefix of each grant, and is removed again.

mod bucket;
mod fence;
mod finding;
mod keys;
mod network;
mod store;

use std::sync::Arc;

use crate::clock::{Clock, wall_clock};
use crate::config::{Config, Grant, PrefixPattern};
use crate::credentials::Credential;
use crate::upstream::dial::Roots;
use bucket::{Call, ProbedBucket};

pub use finding::{Diagnosis, Finding, ProbeArea, ProbeResult};

/// Tenants and their grants that are probed without `--tenant`: a configuration may have thousands.
const TENANTS: usize = 5;
/// Grants of one tenant that are probed.
const GRANTS: usize = 5;
/// What follows the start of a grant's prefix.
const FOLDER: &str = ".cosgate-doctor-";

/// What is probed.
#[derive(Clone, Debug, Default)]
pub struct DoctorOptions {
    /// This tenant alone.
    pub tenant: Option<String>,
    /// Nothing is written to the store.
    pub read_only: bool,
}

/// Probes all that `config` names.
///
/// # Errors
/// There is no such tenant, or the configuration cannot be used on this machine.
pub async fn examine(config: &Config, options: &DoctorOptions) -> Result<Diagnosis, String> {
    let tenants = chosen(config, options)?;
    let roots = &config.upstream;
    let roots = Roots::for_endpoint(roots.endpoint.tls, roots.ca_file.as_deref());
    let roots = roots.map_err(|error| format!("[upstream]: {error}"))?;
    let clock = Arc::new(Clock::new(wall_clock));
    let mut report = Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        folders: Vec::new(),
        findings: network::endpoints(config, &tenants, &clock).await,
    };
    let run = format!("{:08x}", fastrand::u32(..));
    for &tenant in &tenants {
        let mut probed = keys::ProbedTenant::new(config, tenant, &clock)?;
        report.findings.push(probed.own_key().await);
        let Some(own) = probed.key.clone() else {
            continue;
        };
        for grant in probed.grants().iter().take(GRANTS) {
            let folder = Folder::of(grant, &run);
            let bucket = ProbedBucket::new(config, grant, roots.as_ref(), &clock);
            let grant = GrantProbes {
                config,
                subject: format!("{}/{}", probed.name(), grant.name),
                bucket: &bucket,
                folder,
                read_only: options.read_only,
                is_static: probed.is_static(),
            };
            report.folders.extend(grant.writes_to());
            let findings = &mut report.findings;
            if !grant.reach(&own, findings).await {
                continue;
            }
            fence::probe(&grant, &own, findings).await;
            if let Some(wide) = probed.key_for_probes(&grant, findings).await {
                store::probe(&grant, &wide, findings).await;
                findings.push(store::clean_up(&grant, &wide).await);
            }
        }
    }
    Ok(report)
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
    fn of(grant: &Grant, run: &str) -> Self {
        let patterns: Vec<_> = grant.upstream_prefixes().collect();
        let is_open = |pattern: &&PrefixPattern| !matches!(pattern, PrefixPattern::Exact(_));
        let inside = patterns.iter().find(is_open);
        let outside = format!("{FOLDER}{run}-outside/");
        let is_outside = !patterns
            .iter()
            .any(|p| p.covers(&format!("{outside}probe")));
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
    read_only: bool,
    /// The key is permanent, and no policy fences it.
    is_static: bool,
}

impl GrantProbes<'_> {
    fn finding(&self, part: ProbeArea, check: &'static str) -> Finding {
        Finding::new(part, self.subject.clone(), check)
    }

    /// The bucket and prefix that is written to.
    fn writes_to(&self) -> Option<String> {
        let inside = self.folder.inside.as_ref().filter(|_| !self.read_only)?;
        Some(format!("{}/{inside}", self.bucket.grant.bucket))
    }

    /// Whether the bucket is where the configuration says.
    async fn reach(&self, key: &Credential, findings: &mut Vec<Finding>) -> bool {
        let inside = self.folder.inside.as_ref();
        let exact = || self.bucket.grant.upstream_prefixes().next();
        let name = match inside {
            Some(folder) => format!("{folder}none"),
            None => exact().map_or_else(String::new, |pattern| pattern.start().to_owned()),
        };
        let call = Call::get(name);
        let seen = self.bucket.send(&call, key).await;
        let finding = self
            .finding(ProbeArea::Fence, "the bucket, its APPID and its region")
            .sent(&call);
        let alias = &self.bucket.grant.name;
        let (finding, is_there) = match seen {
            Err(error) => (
                finding.came(error).is(ProbeResult::Fail, "the bucket's host does not respond")
                    .change("check `endpoint` and `connect_to` in [upstream]"),
                false,
            ),
            Ok(seen) if seen.code == "NoSuchBucket" || matches!(seen.status, 301 | 307) => (
                finding.came(&seen).is(ProbeResult::Fail, "there is no such bucket in this region")
                    .change(format!("check `bucket` (with its APPID) and `region` of the grant `{alias}`")),
                false,
            ),
            Ok(seen) if matches!(seen.code.as_str(), "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => (
                finding.came(&seen).is(ProbeResult::Fail, "the store refuses the temporary key or its signature")
                    .change("check `endpoint` and `signature` in [upstream], and that the bucket is in the issuer's account"),
                false,
            ),
            Ok(seen) if seen.status == 403 => (
                finding.came(&seen).is(ProbeResult::Warning, "the bucket is there, and the key may not read in it"),
                true,
            ),
            Ok(seen) if seen.status >= 500 => (
                finding.came(&seen).is(ProbeResult::Fail, "the store has a fault; run doctor again"),
                false,
            ),
            Ok(seen) => (
                finding.came(&seen).is(ProbeResult::Ok, "the bucket is there, and the signature is right"),
                true,
            ),
        };
        findings.push(finding);
        is_there
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
        Folder::of(&grant, "1")
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
