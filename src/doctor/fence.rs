//! The probes of a tenant's own key: the requests that it must allow, and those that it must refuse.
//!
//! cosgate refuses both kinds of forbidden request itself. Here they go to the store directly: the
//! second fence is the policy inside the key.

use http::Method;

use super::GrantProbes;
use super::bucket::{Call, Seen};
use super::finding::{Finding, Findings, ProbeArea, ProbeResult};
use crate::config::Grant;
use crate::credentials::Credential;

const LIST: &str = "name/cos:GetBucket";
const BODY: &str = "written by cosgate doctor, which removes it again\n";

/// Probes the key of the tenant within the grant and outside it.
pub(super) async fn probe(probes: &GrantProbes<'_>, key: &Credential, findings: &mut Findings<'_>) {
    must(probes, key, findings).await;
    if probes.is_static {
        let why = "the key is permanent: what it may do stands in CAM alone";
        let finding = probes.finding(ProbeArea::Fence, "nothing outside the grant");
        findings.push(finding.is(ProbeResult::Skipped, why));
        return;
    }
    must_not(probes, key, findings).await;
}

/// What the grant allows has to work.
async fn must(probes: &GrantProbes<'_>, key: &Credential, findings: &mut Findings<'_>) {
    let Some(folder) = &probes.folder.inside else {
        return;
    };
    let object = format!("{folder}fence");
    let grant = probes.bucket.grant;
    let name = |key: &str| key.strip_prefix(&grant.root).unwrap_or(key).to_owned();
    let (own_object, own_folder) = (name(&object), name(folder));
    let allows = |action: &str| match action {
        LIST => grant.allows_list(action, &own_folder),
        _ => grant.allows_on(action, &own_object),
    };
    let list = Call::get("").query("prefix", folder).query("max-keys", "1");
    let writes = !probes.read_only;
    let cases = [
        (
            "name/cos:PutObject",
            writes,
            "PutObject within the grant",
            Call::put(&object, BODY),
        ),
        (
            "name/cos:GetObject",
            true,
            "GetObject within the grant",
            Call::get(&object),
        ),
        (LIST, true, "ListObjects within the grant", list),
        (
            "name/cos:DeleteObject",
            writes,
            "DeleteObject within the grant",
            Call::new(Method::DELETE, &object),
        ),
    ];
    for (action, is_probed, check, call) in cases {
        if !is_probed || !allows(action) {
            continue;
        }
        let finding = probes.finding(ProbeArea::Fence, check).sent(&call);
        findings.push(match probes.bucket.send(&call, key).await {
            Ok(seen) if seen.is_permitted() => finding.came(&seen).is(ProbeResult::Ok, "the key can do what the grant allows"),
            Ok(seen) => finding
                .came(format!("{seen} {}", seen.message))
                .is(ProbeResult::Fail, "the key cannot do what the grant allows")
                .change(format!("in CAM, allow the issuer's own identity {action} on this prefix, or remove it from the grant")),
            Err(error) => finding.came(error).is(ProbeResult::Fail, "no whole response"),
        });
    }
}

/// What the grant does not allow has to be refused by the store itself.
async fn must_not(probes: &GrantProbes<'_>, key: &Credential, findings: &mut Findings<'_>) {
    let mut cases = Vec::new();
    if let Some(folder) = &probes.folder.outside {
        let object = format!("{folder}fence");
        cases.push(("GetObject outside the grant", Call::get(&object)));
        let list = Call::get("").query("prefix", folder).query("max-keys", "1");
        cases.push(("ListObjects outside the grant", list));
        if !probes.read_only {
            cases.push(("PutObject outside the grant", Call::put(&object, BODY)));
        }
    } else {
        let finding = probes.finding(ProbeArea::Fence, "keys outside the grant");
        findings.push(finding.is(ProbeResult::Skipped, "the grant covers the whole bucket"));
    }
    let has_acl = |grant: &Grant| {
        grant.bucket == probes.bucket.grant.bucket
            && grant.allows_on_bucket("name/cos:GetBucketACL")
    };
    if !probes.siblings.iter().any(has_acl) {
        cases.push((
            "another action: GetBucketACL",
            Call::get("").query("acl", ""),
        ));
    }
    for (check, call) in cases {
        let finding = probes.finding(ProbeArea::Fence, check).sent(&call);
        let writes = check.starts_with("Put");
        if writes {
            probes.wrote_outside.set(true); // also if it is stopped before the response comes
        }
        let seen = probes.bucket.send(&call, key).await;
        if writes && seen.as_ref().is_ok_and(Seen::is_denied) {
            probes.wrote_outside.set(false);
        }
        findings.push(match seen {
            Ok(seen) if seen.is_denied() => {
                finding.came(&seen).is(ProbeResult::Ok, "the policy inside the key refuses it")
            }
            Ok(seen) if !seen.is_permitted() => finding
                .came(format!("{seen} {}", seen.message))
                .is(ProbeResult::Warning, "the store refused it for another reason: it is not known whether the key could do it"),
            Ok(seen) => finding
                .came(&seen)
                .is(ProbeResult::Fail, "the store did not refuse it: the key can do more than the grant, and only cosgate's own rules fence the tenant")
                .change("report this with `--json`, and give the tenant a bucket of its own until it is clear"),
            Err(error) => finding.came(error).is(ProbeResult::Warning, "no whole response: it is not known"),
        });
        if writes && probes.wrote_outside.get() {
            findings.extend(remove_outside(probes, key).await);
            probes.wrote_outside.set(false);
        }
    }
}

/// Removes what must not have been written. The key may do that, if it could write at all.
pub(super) async fn remove_outside(probes: &GrantProbes<'_>, key: &Credential) -> Option<Finding> {
    let object = format!("{}fence", probes.folder.outside.as_ref()?);
    let call = Call::new(Method::DELETE, &object);
    let seen = probes.bucket.send(&call, key).await;
    let finding = probes.finding(ProbeArea::Cleanup, "what was written outside the grant");
    let finding = finding.sent(&call);
    Some(match seen {
        Ok(seen) if seen.is_success() && !probes.bucket.has_versions() => {
            finding.came(&seen).is(ProbeResult::Ok, "it is removed")
        }
        seen => {
            let came = seen.map_or_else(|error| error, |seen| seen.to_string());
            let finding = finding
                .came(came)
                .is(ProbeResult::Warning, "it may be there still");
            finding.change(format!(
                "remove {object} from {}",
                probes.bucket.grant.bucket
            ))
        }
    })
}
