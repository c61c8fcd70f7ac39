//! No key belongs to two tenants unless both say so: all grants against each other.

use std::borrow::Cow;
use std::collections::HashMap;

use super::file::Located;
use super::grants::ReadGrant;
use super::prefix::PrefixPattern;
use super::problem::printable;
use super::section::Section;
use super::{claims, prefix};

/// Two of `owners` (tenants, then templates: kind, name and grants) may touch the same key only when
/// both grants say that they share it. A template's subjects may be anybody, so it touches all that
/// begins as its prefixes do up to the first claim.
pub(super) fn refuse_overlaps<'r>(
    root: &Section<'_>,
    owners: impl Iterator<Item = (&'static str, &'r str, &'r [ReadGrant])>,
) {
    let mut buckets: HashMap<(&str, &str), Vec<Owned<'_>>> = HashMap::new();
    for (index, (kind, name, grants)) in owners.enumerate() {
        for grant in grants {
            let (Some(bucket), Some(region)) = (&grant.bucket, &grant.region) else {
                continue;
            };
            let owned = buckets.entry((&bucket.value, &region.value)).or_default();
            owned.extend(grant.reach.iter().map(|prefix| Owned {
                index,
                kind,
                name,
                prefix,
                shared: grant.shared,
                claim: claims::head_and_claim(&prefix.value),
            }));
        }
    }
    for ((bucket, _), owned) in buckets {
        let touched: Vec<_> = owned.iter().map(Owned::touches).collect();
        let patterns = touched.iter().map(|pattern| &**pattern).zip(owned);
        for [(_, one), (_, other)] in prefix::overlaps(patterns.collect(), Owned::clashes) {
            let (owner, later) = if one.index <= other.index {
                (one, other)
            } else {
                (other, one)
            };
            let message = format!(
                "`{}` of the {} `{}` and `{}` of the {} `{}` cover the same keys of {bucket}",
                later.prefix.value,
                later.kind,
                printable(later.name),
                owner.prefix.value,
                owner.kind,
                printable(owner.name),
            );
            let fix = "give each tenant its own prefix, or write shared = true in both grants";
            root.error(&later.prefix.origin, message, fix);
        }
    }
}

/// A prefix and whose it is.
#[derive(Clone, Copy)]
struct Owned<'r> {
    /// Position among tenants, then templates.
    index: usize,
    kind: &'static str,
    name: &'r str,
    prefix: &'r Located<PrefixPattern>,
    shared: bool,
    /// Of a template's prefix: what stands before its first claim, and the claim.
    claim: Option<(&'r str, &'r str)>,
}

impl<'r> Owned<'r> {
    /// All keys that it can be about.
    fn touches(&self) -> Cow<'r, PrefixPattern> {
        match self.claim {
            None => Cow::Borrowed(&self.prefix.value),
            Some(("", _)) => Cow::Owned(PrefixPattern::Any),
            Some((head, _)) => Cow::Owned(PrefixPattern::StartsWith(head.to_owned())),
        }
    }

    /// Whether a common key would be a hole. The subjects of one template are distinguished by the
    /// first claim alone: what comes before it must be the same for all.
    fn clashes(&self, other: &Self) -> bool {
        let apart = self.index == other.index && self.claim == other.claim;
        let shared = self.shared && other.shared;
        !(apart || shared)
    }
}
