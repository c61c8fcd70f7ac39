//! The probe of an expired key. STS has to give a key of a short life, and doctor waits for its end.

use std::time::Duration;

use tokio::time::sleep;

use super::GrantProbes;
use super::bucket::Call;
use super::finding::{Finding, ProbeArea, ProbeResult};
use super::keys::ProbedTenant;
use super::store::{NO_TEMPORARY, judge_key_refusal};
use crate::config::UpstreamSignature::{Cos, S3};
use crate::credentials::Credential;

/// The life that is requested. The shortest that STS gives is not documented (1312/48195).
const SHORTEST: Duration = Duration::from_mins(1);
/// A key that lives longer is not waited for.
pub(super) const LONGEST: Duration = Duration::from_mins(16);
/// After the end of its life, for the store's clock.
const AFTER: Duration = Duration::from_secs(2);
pub(super) const CHECK: &str = "an expired key";

/// Fetches a key for the tenant, waits until it has expired, and uses it with either signature.
pub(super) async fn probe(
    probes: &GrantProbes<'_>,
    keyed: &ProbedTenant,
    waits: bool,
) -> Vec<Finding> {
    let finding = probes.finding(ProbeArea::Store, CHECK);
    let skipped = |why: &str| vec![finding.clone().is(ProbeResult::Skipped, why)];
    if !waits {
        return skipped("it takes a minute or more: add `--wait`");
    }
    if probes.is_static {
        return skipped("the key is permanent");
    }
    let (key, life) = match keyed.short_key(SHORTEST).await {
        Ok(short) => short,
        Err(error) => {
            let finding = finding.came(error);
            let why = format!("STS gives no key for {} s", SHORTEST.as_secs());
            return vec![finding.is(ProbeResult::Skipped, why)];
        }
    };
    if life > LONGEST {
        let finding = finding.came(format!("a key that lives for {} s", life.as_secs()));
        return vec![finding.is(ProbeResult::Skipped, "STS gives no shorter key")];
    }
    sleep(life + AFTER).await;
    let mut findings = Vec::new();
    for signature in [S3, Cos] {
        findings.push(use_expired(probes, &key, signature).await);
    }
    findings
}

async fn use_expired(
    probes: &GrantProbes<'_>,
    key: &Credential,
    signature: crate::config::UpstreamSignature,
) -> Finding {
    let folder = probes.folder.inside.as_deref().unwrap_or_default();
    let call = Call::get(format!("{folder}none")).signed_as(signature);
    let finding = probes.finding(ProbeArea::Store, CHECK).sent(&call);
    match probes.bucket.send(&call, key).await {
        Ok(seen) if seen.is_permitted() => finding
            .came(&seen)
            .is(
                ProbeResult::Fail,
                "the store serves a key after its end: nothing bounds a key that is lost",
            )
            .change(NO_TEMPORARY),
        Ok(seen) => judge_key_refusal(finding, &seen),
        Err(error) => finding
            .came(error)
            .is(ProbeResult::Warning, "no whole response"),
    }
}
