//! Removes what the probes have written.

use http::Method;

use super::GrantProbes;
use super::bucket::Call;
use super::finding::{Finding, ProbeArea, ProbeResult};
use crate::credentials::Credential;
use crate::s3::xml::each_element;

/// Listings that one clean-up looks at. The probes write fewer objects than a page has.
const CLEANUPS: usize = 20;

/// Removes all that the probes have written, and says what is left.
pub(super) async fn clean_up(grant: &GrantProbes<'_>, key: &Credential) -> Finding {
    let folder = grant.folder.inside.as_deref().unwrap_or_default();
    let finding = grant.finding(ProbeArea::Cleanup, "what doctor wrote");
    let finding = finding.sent(format!("DELETE of all keys below {folder}"));
    let call = Call::get("")
        .query("prefix", folder)
        .query("max-keys", "1000");
    let mut removed = 0;
    // A store may list late, or in parts: listed again until nothing is left.
    for _ in 0..CLEANUPS {
        let listed = match grant.bucket.send(&call, key).await {
            Ok(seen) if seen.is_success() => names_of(&seen.body),
            Ok(seen) => return left(finding.came(&seen), folder),
            Err(error) => return left(finding.came(error), folder),
        };
        let Some(listed) = listed else {
            return left(finding.came("a listing that cannot be read"), folder);
        };
        if listed.iter().any(|key| !key.starts_with(folder)) {
            let finding = finding.came("a listing with keys of other prefixes");
            let meaning = "the store ignores `prefix`: cosgate fails such listings, and doctor removes nothing of them";
            let change = format!("do not use this store; remove what is below {folder}");
            return finding.is(ProbeResult::Fail, meaning).change(change);
        }
        if listed.is_empty() {
            let finding =
                finding.came(format!("{removed} objects are removed, and none is listed"));
            return finding.is(ProbeResult::Ok, "nothing is left");
        }
        for name in &listed {
            let seen = grant
                .bucket
                .send(&Call::new(Method::DELETE, name), key)
                .await;
            match seen {
                Ok(seen) if seen.is_success() => removed += 1,
                Ok(seen) => return left(finding.came(&seen), folder),
                Err(error) => return left(finding.came(error), folder),
            }
        }
    }
    left(finding.came("each listing has more objects"), folder)
}

fn left(finding: Finding, folder: &str) -> Finding {
    finding
        .is(ProbeResult::Warning, "objects of doctor are left")
        .change(format!("remove what is below {folder}"))
}

/// The keys that a listing names; `None` for what is none.
fn names_of(listing: &[u8]) -> Option<Vec<String>> {
    let (mut names, mut is_listing) = (Vec::new(), false);
    each_element(listing, |path, text| {
        match path {
            ["ListBucketResult", "Contents", "Key"] => names.push(text.to_owned()),
            ["ListBucketResult"] => is_listing = true,
            _ => {}
        }
        Some(())
    })?;
    is_listing.then_some(names)
}
