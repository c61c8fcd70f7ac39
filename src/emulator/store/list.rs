//! One page of a listing. Pure.

/// The parameters of a listing.
#[derive(Clone, Copy, Debug)]
pub(in crate::emulator) struct Listing<'a> {
    pub(in crate::emulator) prefix: &'a str,
    /// The delimiter: keys are grouped up to its first occurrence after the prefix. Empty means no delimiter.
    pub(in crate::emulator) delimiter: &'a str,
    /// Only keys that sort after this; empty means from the start.
    pub(in crate::emulator) after: &'a str,
    pub(in crate::emulator) limit: usize,
}

/// The entries of one page.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::emulator) struct StorePage<T> {
    pub(in crate::emulator) items: Vec<T>,
    pub(in crate::emulator) prefixes: Vec<String>,
    /// The last key or prefix of this page, if there are more entries.
    pub(in crate::emulator) next: Option<String>,
}

/// Cuts one page from `entries`, which are sorted by key and start after `listing.after`.
pub(in crate::emulator) fn page<'k, T>(
    entries: impl Iterator<Item = (&'k str, T)>,
    listing: &Listing<'_>,
) -> StorePage<T> {
    let mut page = StorePage {
        items: Vec::new(),
        prefixes: Vec::new(),
        next: None,
    };
    let mut last = "";
    for (key, item) in entries {
        let Some(rest) = key.strip_prefix(listing.prefix) else {
            if key > listing.prefix {
                break;
            }
            continue;
        };
        let rolled = match rest.split_once(listing.delimiter) {
            Some((head, _)) if !listing.delimiter.is_empty() => {
                key.get(..listing.prefix.len() + head.len() + listing.delimiter.len())
            }
            _ => None,
        };
        // After a page that ended with a common prefix, the next one starts behind all keys of that prefix.
        if rolled
            .is_some_and(|r| r == listing.after || page.prefixes.last().is_some_and(|p| p == r))
        {
            continue;
        }
        if page.items.len() + page.prefixes.len() == listing.limit {
            page.next = Some(last.to_owned()).filter(|l| !l.is_empty());
            break;
        }
        last = rolled.unwrap_or(key);
        if let Some(prefix) = rolled {
            page.prefixes.push(prefix.to_owned());
        } else {
            page.items.push(item);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 7] = ["a", "d/1", "d/2", "d/e/1", "d0", "e/1", "f"];

    fn pages(prefix: &str, delimiter: &str, limit: usize) -> Vec<String> {
        let mut after = String::new();
        let mut out = Vec::new();
        loop {
            let listing = Listing {
                prefix,
                delimiter,
                after: &after,
                limit,
            };
            let entries = KEYS
                .iter()
                .filter(|k| **k > after.as_str())
                .map(|k| (*k, *k));
            let page = page(entries, &listing);
            assert!(page.items.len() + page.prefixes.len() <= limit);
            out.extend(page.items.iter().map(|i| (*i).to_owned()));
            out.extend(page.prefixes);
            match page.next {
                Some(next) => after = next,
                None => return out,
            }
        }
    }

    #[test]
    fn lists_every_key_once_at_any_page_size() {
        for limit in 1..9 {
            assert_eq!(pages("", "", limit), KEYS, "{limit}");
            assert_eq!(pages("d/", "", limit), ["d/1", "d/2", "d/e/1"], "{limit}");
        }
    }

    #[test]
    fn groups_keys_once_across_pages() {
        for limit in 1..9 {
            let mut all = pages("", "/", limit);
            all.sort();
            assert_eq!(all, ["a", "d/", "d0", "e/", "f"], "{limit}");
            let mut inner = pages("d/", "/", limit);
            inner.sort();
            assert_eq!(inner, ["d/1", "d/2", "d/e/"], "{limit}");
        }
    }

    #[test]
    fn limit_zero_gives_an_empty_last_page() {
        let listing = Listing {
            prefix: "",
            delimiter: "",
            after: "",
            limit: 0,
        };
        let page = page(KEYS.iter().map(|k| (*k, ())), &listing);
        assert_eq!(
            page,
            StorePage {
                items: vec![],
                prefixes: vec![],
                next: None
            }
        );
    }
}
