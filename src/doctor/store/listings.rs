//! What the store makes of the query of a listing, and whether its pages are whole.

use super::StoreProbes;
use crate::config::UpstreamSignature::{Cos, S3};
use crate::doctor::bucket::Call;
use crate::doctor::finding::{Finding, ProbeResult};
use crate::s3::xml::each_element;

/// Names that servers and clients are known to encode in different ways.
const NAMES: [&str; 6] = ["a b", "a%20b", "a+b", "a%b", "照片", "照片 +%2B"];

/// How one kind of listing leads from a page to the next.
struct PageToken {
    check: &'static str,
    /// The element of a page that holds the token.
    element: &'static str,
    /// The parameter of the next page.
    parameter: &'static str,
}

const MARKER: PageToken = PageToken {
    check: "pages of a listing by NextMarker",
    element: "NextMarker",
    parameter: "marker",
};
const CONTINUATION: PageToken = PageToken {
    check: "pages of a listing by NextContinuationToken",
    element: "NextContinuationToken",
    parameter: "continuation-token",
};

/// One page of a listing.
#[derive(Default)]
struct ProbedPage {
    keys: Vec<String>,
    is_truncated: bool,
    max_keys: String,
    next: Option<String>,
}

/// The keys of all pages.
#[derive(Default)]
struct ProbedPages {
    keys: Vec<String>,
    pages: usize,
    /// A page had no token, and its last key was sent in its place.
    by_last_key: bool,
}

impl PageToken {
    /// A page of one key below `prefix`, after the page whose token is `token`.
    fn call(&self, prefix: &str, token: Option<&String>) -> Call {
        let call = match self.parameter {
            "marker" => Call::get(""),
            _ => Call::get("").query("list-type", "2").signed_as(S3),
        };
        let call = call.query("prefix", prefix).query("max-keys", "1");
        match token {
            Some(token) => call.query(self.parameter, token),
            None => call,
        }
    }
}

impl ProbedPage {
    /// Reads a listing; `None` for what is none. `next` is the element of its token.
    fn read(listing: &[u8], next: &str) -> Option<Self> {
        let (mut page, mut is_listing) = (Self::default(), false);
        each_element(listing, |path, text| {
            match path {
                ["ListBucketResult", "Contents", "Key"] => page.keys.push(text.to_owned()),
                ["ListBucketResult", "IsTruncated"] => page.is_truncated = text == "true",
                ["ListBucketResult", "MaxKeys"] => text.clone_into(&mut page.max_keys),
                ["ListBucketResult", name] if *name == next => page.next = Some(text.to_owned()),
                ["ListBucketResult"] => is_listing = true,
                _ => {}
            }
            Some(())
        })?;
        is_listing.then_some(page)
    }
}

impl StoreProbes<'_> {
    /// Whether COS's own signature gives version 2 of a listing, which cosgate translates.
    pub(super) async fn second_list_version(&self) -> Finding {
        let call = Call::get("")
            .query("list-type", "2")
            .query("prefix", self.folder);
        let call = call.query("max-keys", "1").signed_as(Cos);
        let finding = self
            .finding("ListObjectsV2 beside COS's signature")
            .sent(&call);
        match self.send(&call).await {
            Ok(seen) => {
                let text = String::from_utf8_lossy(&seen.body);
                let version = if text.contains("<KeyCount>") { 2 } else { 1 };
                finding
                    .came(format!("{seen}, a listing of version {version}"))
                    .is(
                        ProbeResult::Note,
                        "cosgate sends version 1 and translates, whatever the store takes",
                    )
            }
            Err(error) => finding
                .came(error)
                .is(ProbeResult::Note, "no whole response"),
        }
    }

    /// `+` in a query is a space for some servers.
    pub(super) async fn plus_in_query(&self) -> Finding {
        let key = self.key("a+b");
        let stored = self.outcome(&Call::put(&key, "plus")).await;
        let call = Call::get("").query("prefix", &key).query("max-keys", "1");
        let finding = self.finding("`+` in a query, encoded").sent(&call);
        match self.send(&call).await {
            Ok(seen) if String::from_utf8_lossy(&seen.body).contains("a+b</Key>") => finding
                .came(format!("{stored}; {seen}, the key is listed"))
                .is(ProbeResult::Ok, "prefixes with `+` are found"),
            Ok(seen) => finding
                .came(format!("{stored}; {seen}, the key is not listed"))
                .is(
                    ProbeResult::Warning,
                    "listings of prefixes with `+` are not whole",
                ),
            Err(error) => finding
                .came(error)
                .is(ProbeResult::Warning, "no whole response"),
        }
    }

    /// Which of two parameters with one name counts. Signers differ on them, too.
    pub(super) async fn repeated_parameter(&self) -> Finding {
        let call = Call::get("").query("prefix", self.folder);
        let call = call.query("max-keys", "1").query("max-keys", "2");
        let finding = self.finding("a parameter that is sent twice").sent(&call);
        let came = match self.send(&call).await {
            Ok(seen) if seen.is_success() => {
                let page = ProbedPage::read(&seen.body, "").unwrap_or_default();
                let which = match page.max_keys.as_str() {
                    "1" => "the first counts",
                    "2" => "the last counts",
                    _ => "neither counts",
                };
                format!("{seen}, MaxKeys is {}: {which}", page.max_keys)
            }
            Ok(seen) => format!("{seen} {}", seen.message),
            Err(error) => error,
        };
        let meaning = "cosgate refuses a parameter that is sent twice, and never sends one";
        finding.came(came.trim_end()).is(ProbeResult::Note, meaning)
    }

    /// Whether the pages of a listing have each key exactly once.
    pub(super) async fn pages(&self) -> Vec<Finding> {
        for name in NAMES {
            let call = Call::put(self.key(&format!("pages/{name}")), "p");
            let came = self.outcome(&call).await;
            if !came.starts_with("200") {
                let finding = self.finding(MARKER.check).sent(&call).came(came);
                let why = "a key was not written: the pages were not probed";
                return vec![finding.is(ProbeResult::Skipped, why)];
            }
        }
        vec![
            self.pages_by(&MARKER).await,
            self.pages_by(&CONTINUATION).await,
        ]
    }

    async fn pages_by(&self, token: &PageToken) -> Finding {
        let prefix = self.key("pages/");
        let expected: Vec<String> = NAMES.iter().map(|name| format!("{prefix}{name}")).collect();
        let finding = self
            .finding(token.check)
            .sent(format!("{}, and each next page", token.call(&prefix, None)));
        let pages = match self.follow(token, &prefix).await {
            Ok(pages) => pages,
            Err(came) => {
                let meaning = "listings of more than one page fail";
                return finding.came(came).is(ProbeResult::Warning, meaning);
            }
        };
        let count = |key: &String| pages.keys.iter().filter(|listed| *listed == key).count();
        let named = |is_it: &dyn Fn(&String) -> bool| {
            let names = expected.iter().zip(NAMES).filter(|(key, _)| is_it(key));
            names
                .map(|(_, name)| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let (lost, twice) = (named(&|key| count(key) == 0), named(&|key| count(key) > 1));
        let others = pages
            .keys
            .iter()
            .filter(|key| !expected.contains(key))
            .count();
        let mut came = format!("{} keys on {} pages", pages.keys.len(), pages.pages);
        for (what, names) in [("lost", &lost), ("twice", &twice)] {
            if !names.is_empty() {
                came = format!("{came}; {what}: {names}");
            }
        }
        if others > 0 {
            came = format!("{came}; {others} keys that were not written");
        }
        if pages.by_last_key {
            came = format!("{came}; no {}: the last key was sent", token.element);
        }
        let finding = finding.came(came);
        if lost.is_empty() && twice.is_empty() && others == 0 {
            return finding.is(ProbeResult::Ok, "the pages have each key once");
        }
        finding
            .is(
                ProbeResult::Fail,
                "clients that follow the pages miss objects, or get them twice",
            )
            .change(
                "report this with `--json`, and do not sync or delete by listings of this store",
            )
    }

    /// Follows the pages to the last one. A listing that never ends is followed for twice as many pages as it has keys.
    async fn follow(&self, token: &PageToken, prefix: &str) -> Result<ProbedPages, String> {
        let (mut all, mut next) = (ProbedPages::default(), None);
        while all.pages < 2 * NAMES.len() {
            let seen = self.send(&token.call(prefix, next.as_ref())).await?;
            if !seen.is_success() {
                let text = format!("{seen} {} after {} pages", seen.message, all.pages);
                return Err(text);
            }
            let page = ProbedPage::read(&seen.body, token.element);
            let page = page.ok_or("a listing that cannot be read")?;
            all.pages += 1;
            all.keys.extend(page.keys);
            if !page.is_truncated {
                break;
            }
            // S3's first version has a marker only with a delimiter; clients then send the last key.
            let by_last_key = page.next.is_none() && token.parameter == "marker";
            all.by_last_key |= by_last_key;
            next = page
                .next
                .or_else(|| all.keys.last().cloned().filter(|_| by_last_key));
            if next.is_none() {
                return Err(format!(
                    "a page with more to follow, and no {}",
                    token.element
                ));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_page_and_its_token() {
        let page = "<ListBucketResult><MaxKeys>1</MaxKeys><IsTruncated>true</IsTruncated><NextMarker>a&amp;b</NextMarker>\
                    <Contents><Key>a&amp;b</Key></Contents></ListBucketResult>";
        let page = ProbedPage::read(page.as_bytes(), "NextMarker").unwrap();
        assert_eq!(
            (page.keys, page.max_keys.as_str()),
            (vec!["a&b".to_owned()], "1")
        );
        assert_eq!(
            (page.is_truncated, page.next.as_deref()),
            (true, Some("a&b"))
        );
        assert!(ProbedPage::read(b"<Error><Code>x</Code></Error>", "").is_none());
    }
}
