//! Removes what the probes have written.

use std::collections::VecDeque;

use http::Method;

use super::GrantProbes;
use super::bucket::Call;
use super::finding::{Finding, ProbeArea, ProbeResult};
use crate::credentials::Credential;
use crate::s3::xml::each_element;

/// Listings that one clean-up looks at. The probes write fewer objects than a page has.
const CLEANUPS: usize = 20;

/// Why something is left.
enum Leftover {
    /// A listing has keys that are not doctor's: nothing of it is removed.
    OfOthers,
    /// What came, and what is left.
    Because(String, &'static str),
}

/// A listing whose entries are removed one by one.
struct RemovedList {
    /// What its entries are.
    what: &'static str,
    /// The parameter that selects it; empty for objects.
    selector: &'static str,
    root: &'static str,
    /// The elements of its entries.
    entries: &'static [&'static str],
    /// The element of an entry's id, and the parameter that names the id in a DELETE; empty where the key is enough.
    id: (&'static str, &'static str),
}

const OBJECTS: RemovedList = RemovedList {
    what: "objects",
    selector: "",
    root: "ListBucketResult",
    entries: &["Contents"],
    id: ("", ""),
};
const VERSIONS: RemovedList = RemovedList {
    what: "versions",
    selector: "versions",
    root: "ListVersionsResult",
    entries: &["DeleteMarker", "Version"],
    id: ("VersionId", "versionId"),
};
const UPLOADS: RemovedList = RemovedList {
    what: "unfinished uploads",
    selector: "uploads",
    root: "ListMultipartUploadsResult",
    entries: &["Upload"],
    id: ("UploadId", "uploadId"),
};

/// Removes all that the probes have written, and says what is left.
pub(super) async fn clean_up(grant: &GrantProbes<'_>, key: &Credential) -> Finding {
    let folder = grant.folder.inside.as_deref().unwrap_or_default();
    let finding = grant.finding(ProbeArea::Cleanup, "what doctor wrote");
    let finding = finding.sent(format!("DELETE of all keys below {folder}"));
    let mut lists = VecDeque::from([OBJECTS]);
    if grant.open_uploads.get() > 0 {
        lists.push_back(UPLOADS);
    }
    let (mut removed, mut leftover) = (Vec::new(), None);
    while let Some(list) = lists.pop_front() {
        match list.remove(grant, key, folder).await {
            Ok(count) => {
                if list.selector.is_empty() && grant.bucket.has_versions() {
                    lists.push_back(VERSIONS); // a key that was removed has versions still
                }
                removed.push(format!("{count} {}", list.what));
            }
            Err(why) if leftover.is_none() || matches!(why, Leftover::OfOthers) => {
                leftover = Some(why);
            }
            Err(_) => {}
        }
    }
    match leftover {
        None => finding
            .came(format!(
                "{} are removed, and none is listed",
                removed.join(", ")
            ))
            .is(ProbeResult::Ok, "nothing is left"),
        Some(Leftover::OfOthers) => {
            let finding = finding.came("a listing with keys of other prefixes");
            let meaning = "the store ignores `prefix`: cosgate fails such listings, and doctor removes nothing of them";
            let change = format!("do not use this store; remove what is below {folder}");
            finding.is(ProbeResult::Fail, meaning).change(change)
        }
        Some(Leftover::Because(came, what)) => finding
            .came(came)
            .is(ProbeResult::Warning, format!("{what} of doctor are left"))
            .change(format!("remove what is below {folder}")),
    }
}

impl RemovedList {
    /// Removes the entries below `folder`. A store may list late, or in parts: it is listed until nothing is left.
    async fn remove(
        &self,
        grant: &GrantProbes<'_>,
        key: &Credential,
        folder: &str,
    ) -> Result<usize, Leftover> {
        let because = |came: String| Leftover::Because(came, self.what);
        let mut removed = 0;
        for _ in 0..CLEANUPS {
            let seen = grant.bucket.send(&self.call(folder), key).await;
            let seen = seen.map_err(because)?;
            if !seen.is_success() {
                return Err(because(format!("{seen} for the list of {}", self.what)));
            }
            let unreadable = || because("a listing that cannot be read".to_owned());
            let entries = self.read(&seen.body).ok_or_else(unreadable)?;
            if entries.iter().any(|(key, _)| !key.starts_with(folder)) {
                return Err(Leftover::OfOthers);
            }
            if entries.is_empty() {
                return Ok(removed);
            }
            for (name, id) in entries {
                let mut call = Call::new(Method::DELETE, name);
                if !self.id.1.is_empty() {
                    call = call.query(self.id.1, id);
                }
                let seen = grant.bucket.send(&call, key).await.map_err(because)?;
                if !seen.is_success() {
                    return Err(because(seen.to_string()));
                }
                removed += 1;
            }
        }
        Err(because("each listing has more of them".to_owned()))
    }

    fn call(&self, folder: &str) -> Call {
        let call = Call::get("");
        let call = if self.selector.is_empty() {
            call
        } else {
            call.query(self.selector, "")
        };
        let call = call.query("prefix", folder);
        match self.selector {
            "uploads" => call.query("max-uploads", "1000"),
            _ => call.query("max-keys", "1000"),
        }
    }

    /// Key and id of each entry; `None` for what is no such listing.
    fn read(&self, listing: &[u8]) -> Option<Vec<(String, String)>> {
        let (mut entries, mut is_listing) = (Vec::new(), false);
        let (mut key, mut id) = (String::new(), String::new());
        each_element(listing, |path, text| {
            match path {
                [root] if *root == self.root => is_listing = true,
                [root, entry] if *root == self.root && self.entries.contains(entry) => {
                    entries.push((std::mem::take(&mut key), std::mem::take(&mut id)));
                }
                [_, entry, "Key"] if self.entries.contains(entry) => text.clone_into(&mut key),
                [_, entry, name] if *name == self.id.0 && self.entries.contains(entry) => {
                    text.clone_into(&mut id);
                }
                _ => {}
            }
            Some(())
        })?;
        is_listing.then_some(entries)
    }
}
