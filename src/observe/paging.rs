//! Pages of long lists: the first names after one, of things that come in no order.

use std::collections::BTreeMap;

/// Things on a page, where nobody says how many.
const PAGE: usize = 100;
/// Limit of things on a page.
const LARGEST_PAGE: usize = 1000;

/// Which part of a list is wanted: `?after=NAME&limit=NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// The last name of the page before; empty: the first page.
    pub after: String,
    /// Things on the page, 1 to 1000.
    pub limit: usize,
}

/// A page while it is gathered. It holds no more than fits on it, and one.
#[derive(Debug)]
pub struct PageOf<'r, T> {
    range: &'r PageRange,
    found: BTreeMap<Box<str>, T>,
}

impl PageRange {
    /// Reads `after` and `limit`. The error names the fix.
    pub fn read(after: Option<String>, limit: Option<&str>) -> Result<Self, String> {
        let limit = match limit.map(str::parse) {
            None => PAGE,
            Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
            Some(_) => return Err(format!("limit is a number from 1 to {LARGEST_PAGE}")),
        };
        Ok(Self {
            after: after.unwrap_or_default(),
            limit,
        })
    }
}

impl<'r, T> PageOf<'r, T> {
    /// An empty page.
    pub fn new(range: &'r PageRange) -> Self {
        Self {
            range,
            found: BTreeMap::new(),
        }
    }

    /// Takes the thing of this name, if it belongs on the page as far as is known.
    pub fn offer(&mut self, name: &str, thing: impl FnOnce() -> T) {
        let is_full = self.found.len() > self.range.limit;
        let last = self.found.last_key_value();
        let is_beyond = is_full && last.is_some_and(|(last, _)| name >= &**last);
        if name <= self.range.after.as_str() || is_beyond {
            return;
        }
        self.found.insert(name.into(), thing());
        if self.found.len() > self.range.limit + 1 {
            self.found.pop_last();
        }
    }

    /// The things, by name, and the last name if others follow: where the next page begins.
    pub fn finish(mut self) -> (Vec<(Box<str>, T)>, Option<String>) {
        let has_more = self.found.len() > self.range.limit;
        if has_more {
            self.found.pop_last();
        }
        let last = self
            .found
            .last_key_value()
            .map(|(name, _)| name.to_string());
        let next = last.filter(|_| has_more);
        (self.found.into_iter().collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pages of `names`, one after another.
    fn pages(names: &[&str], limit: usize) -> Vec<Vec<String>> {
        let mut range = PageRange {
            after: String::new(),
            limit,
        };
        let mut pages = Vec::new();
        loop {
            let mut page = PageOf::new(&range);
            for name in names {
                page.offer(name, || name.len());
                assert!(page.found.len() <= limit + 1);
            }
            let (found, next) = page.finish();
            assert!(found.iter().all(|(name, length)| name.len() == *length));
            pages.push(found.into_iter().map(|(name, _)| name.into()).collect());
            match next {
                Some(next) => range.after = next,
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_hold_every_name_once_and_in_order() {
        let names = ["d", "a", "c", "e", "b"];
        assert_eq!(
            pages(&names, 2),
            [vec!["a", "b"], vec!["c", "d"], vec!["e"]]
        );
        assert_eq!(pages(&names, 5), [vec!["a", "b", "c", "d", "e"]]);
        assert_eq!(pages(&[], 5), [Vec::<String>::new()]);
        assert_eq!(pages(&["a", "b"], 1), [vec!["a"], vec!["b"]]);
    }

    #[test]
    fn a_limit_is_a_number_within_its_range() {
        let limit = |text| PageRange::read(None, text).map(|range| range.limit);
        assert_eq!(limit(None), Ok(100));
        assert_eq!((limit(Some("1")), limit(Some("1000"))), (Ok(1), Ok(1000)));
        for wrong in ["0", "1001", "-1", "", "x", "99999999999999999999"] {
            let error = limit(Some(wrong)).unwrap_err();
            assert!(error.contains("1 to 1000"), "{error}");
        }
    }
}
