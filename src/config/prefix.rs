//! A grant's prefixes: how they are written, and which of them touch a common key.

use std::fmt;

use super::problem::{Mistake, printable};

/// One of a grant's prefixes, in the forms of the COS STS SDKs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefixPattern {
    /// `*`: every key.
    Any,
    /// `exact-key`: this key alone.
    Exact(String),
    /// `a*` or `a/*`: every key that starts with this.
    StartsWith(String),
}

/// COS takes keys of up to 850 bytes (436/13324).
const KEY_BYTES: usize = 850;

/// Reads a prefix in one of the forms of the COS STS SDKs: `*`, `a*`, `a/*` or an exact key.
/// What a CAM policy would read as more than text (`?`, `${`, an inner `*`, quotes) is refused.
pub(super) fn prefix(text: &str) -> Result<PrefixPattern, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new(
            "a prefix is empty",
            "write \"*\" for every key, or \"folder/*\"",
        ));
    }
    let (key, open) = match text.strip_suffix('*') {
        Some(key) => (key, true),
        None => (text, false),
    };
    if let Some((what, fix)) = fault(key) {
        return Err(Mistake::new(format!("`{}` {what}", printable(text)), fix));
    }
    Ok(match (key, open) {
        ("", _) => PrefixPattern::Any,
        (key, true) => PrefixPattern::StartsWith(key.to_owned()),
        (key, false) => PrefixPattern::Exact(key.to_owned()),
    })
}

/// Reads a virtual bucket's root: the folder that stands before every key, with its `/` at the end.
pub(super) fn root(text: &str) -> Result<String, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new(
            "a root is a folder, and this is none",
            "write \"folder/\", or remove `root`",
        ));
    }
    if let Some((what, fix)) = fault(text) {
        return Err(Mistake::new(format!("`{}` {what}", printable(text)), fix));
    }
    if !text.ends_with('/') {
        let text = printable(text);
        return Err(Mistake::new(
            format!("`{text}` does not end in `/`: the key `x` would be `{text}x`"),
            format!("write \"{text}/\""),
        ));
    }
    if text.len() >= KEY_BYTES {
        return Err(Mistake::new(
            format!("`{}` leaves no room for a key", printable(text)),
            "shorten it: COS takes keys of 850 bytes, the root included",
        ));
    }
    Ok(text.to_owned())
}

/// Refuses a prefix that no key below `root` can have.
pub(super) fn fits_below(root: &str, pattern: &PrefixPattern) -> Result<(), Mistake> {
    if root.len() + order(pattern).0.len() <= KEY_BYTES {
        return Ok(());
    }
    Err(Mistake::new(
        format!("`{pattern}` is longer than a key below this grant's `root` can be"),
        "shorten it: COS takes keys of 850 bytes, the root included",
    ))
}

impl PrefixPattern {
    /// Reads a prefix as a grant's `prefixes` have it; else says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        prefix(text).map_err(|mistake| mistake.message)
    }

    /// Whether `outer` covers every key that this one does.
    pub(crate) fn is_within(&self, outer: &Self) -> bool {
        match self {
            Self::Any => *outer == Self::Any,
            Self::Exact(key) => outer.covers(key),
            Self::StartsWith(start) => outer.covers_list(start),
        }
    }

    /// What every key inside starts with.
    pub fn start(&self) -> &str {
        order(self).0
    }

    /// Whether `key` is inside, byte by byte: no case folding, no Unicode normalisation.
    pub fn covers(&self, key: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => key == exact,
            Self::StartsWith(start) => key.starts_with(start.as_str()),
        }
    }

    /// Whether a listing with this `prefix` can show nothing but keys inside.
    ///
    /// An exact key never allows one: a listing with prefix `k` also shows `k2`.
    pub fn covers_list(&self, prefix: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(_) => false,
            Self::StartsWith(start) => prefix.starts_with(start.as_str()),
        }
    }

    /// Whether a listing with this `prefix` may show a key inside.
    pub(super) fn may_show(&self, prefix: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(key) => key.starts_with(prefix),
            Self::StartsWith(start) => {
                start.starts_with(prefix) || prefix.starts_with(start.as_str())
            }
        }
    }

    /// The same pattern of the keys in the real bucket, for keys that stand below `root` there.
    #[must_use]
    pub fn below(&self, root: &str) -> Self {
        match self {
            Self::Any if root.is_empty() => Self::Any,
            Self::Any => Self::StartsWith(root.to_owned()),
            Self::Exact(key) => Self::Exact(format!("{root}{key}")),
            Self::StartsWith(start) => Self::StartsWith(format!("{root}{start}")),
        }
    }
}

/// A form that is valid and often a slip.
pub(super) fn doubt(pattern: &PrefixPattern) -> Option<Mistake> {
    match pattern {
        PrefixPattern::StartsWith(key) if !key.ends_with('/') => {
            let key = printable(key);
            Some(Mistake::new(
                format!("`{key}*` also covers `{key}b/…` and every other key that begins so"),
                format!("for one folder write \"{key}/*\""),
            ))
        }
        PrefixPattern::Exact(key) if key.ends_with('/') => {
            let key = printable(key);
            Some(Mistake::new(
                format!("`{key}` covers one key, which ends in `/`, and nothing below it"),
                format!("did you mean \"{key}*\"?"),
            ))
        }
        _ => None,
    }
}

/// A prefix that repeats the root below which it stands: valid, and often a slip.
pub(super) fn doubt_below(root: &str, pattern: &PrefixPattern) -> Option<Mistake> {
    if root.is_empty() || !order(pattern).0.starts_with(root) {
        return None;
    }
    let real = pattern.below(root);
    Some(Mistake::new(
        format!("`{pattern}` stands below `root`: it is `{real}` in the bucket"),
        "write prefixes as the client names its keys, without the root",
    ))
}

impl fmt::Display for PrefixPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(key) => f.write_str(&printable(key)),
            Self::StartsWith(key) => write!(f, "{}*", printable(key)),
        }
    }
}

/// For each pattern that touches a key of another one for which `clash` holds, that pair, once for
/// each later pattern. Sorted by text, all that touch a pattern stand on one stack above it, so
/// thousands of tenants in one bucket take `n log n`.
pub(super) fn overlaps<'p, T>(
    mut patterns: Vec<(&'p PrefixPattern, T)>,
    clash: impl Fn(&T, &T) -> bool,
) -> Vec<[(&'p PrefixPattern, T); 2]>
where
    T: Copy,
{
    patterns.sort_by_key(|(pattern, _)| order(pattern));
    let mut open: Vec<(&'p PrefixPattern, T)> = Vec::new();
    let mut found = Vec::new();
    for next in patterns {
        while open.last().is_some_and(|(outer, _)| !covers(outer, next.0)) {
            open.pop();
        }
        if let Some(outer) = open.iter().find(|(_, tag)| clash(tag, &next.1)) {
            found.push([*outer, next]);
        }
        open.push(next);
    }
    found
}

/// Whether every key of `inner` is one of `outer`.
fn covers(outer: &PrefixPattern, inner: &PrefixPattern) -> bool {
    let (key, closed) = order(inner);
    match outer {
        PrefixPattern::Any => true,
        PrefixPattern::Exact(outer) => closed && outer == key,
        PrefixPattern::StartsWith(outer) => key.starts_with(outer.as_str()),
    }
}

/// By text, a pattern before the keys that it covers.
fn order(pattern: &PrefixPattern) -> (&str, bool) {
    match pattern {
        PrefixPattern::Any => ("", false),
        PrefixPattern::Exact(key) => (key, true),
        PrefixPattern::StartsWith(key) => (key, false),
    }
}

pub(super) fn fault(key: &str) -> Option<(&'static str, &'static str)> {
    if key.contains('*') {
        return Some((
            "has a `*` that is not at its end",
            "write one `*`, as the last character",
        ));
    }
    if key.contains('?') || key.contains("${") {
        return Some((
            "has a `?` or `${`, which a CAM policy does not read as text",
            "remove it",
        ));
    }
    if key.contains(['"', '\'', '`']) {
        return Some(("has a quote", "remove it"));
    }
    if key.chars().any(char::is_control) {
        return Some(("has a control character", "remove it"));
    }
    if key.starts_with(['/', '\\']) {
        return Some((
            "begins with a slash, as no COS key does",
            "remove the slash",
        ));
    }
    if key.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Some((
            "has a `.` or `..` segment, which clients and COS resolve differently",
            "write the plain path",
        ));
    }
    if key.len() > KEY_BYTES {
        return Some(("is longer than a COS key can be (850 bytes)", "shorten it"));
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_four_forms() {
        assert_eq!(prefix("*"), Ok(PrefixPattern::Any));
        assert_eq!(prefix("a*"), Ok(PrefixPattern::StartsWith("a".into())));
        assert_eq!(prefix("a/*"), Ok(PrefixPattern::StartsWith("a/".into())));
        assert_eq!(
            prefix("中文/a b.jpg"),
            Ok(PrefixPattern::Exact("中文/a b.jpg".into()))
        );
    }

    #[test]
    fn refuses_what_a_policy_would_read_otherwise() {
        let long = "a".repeat(851);
        for text in [
            "", "a*b", "**", "a?", "${x}/*", "a\"b", "a'b", "a\nb", "a\u{7f}", "/a/*", "\\a",
            "a/../b", "./a", "..", "a/./*", "../*", &long,
        ] {
            assert!(prefix(text).is_err(), "{text}");
        }
        assert!(prefix(&"a".repeat(850)).is_ok());
    }

    #[test]
    fn doubts_the_forms_that_are_often_slips() {
        let doubtful = |text| doubt(&prefix(text).unwrap()).is_some();
        assert!(doubtful("a*"));
        assert!(doubtful("a/"));
        assert!(!doubtful("a/*"));
        assert!(!doubtful("*"));
        assert!(!doubtful("a/b.jpg"));
    }

    #[test]
    fn a_root_is_a_folder() {
        assert_eq!(root("a b/中/"), Ok("a b/中/".into()));
        let long = "a".repeat(849) + "/";
        for text in [
            "", "/", "/a/", "a", "a/*", "*", "a/../", "./", "a?/", "${x}/", "a\n/", "a'/", &long,
        ] {
            assert!(root(text).is_err(), "{text}");
        }
        assert!(root(&long[1..]).is_ok());
    }

    #[test]
    fn a_root_and_a_prefix_fit_into_one_key() {
        let (root, exact) = ("a".repeat(799) + "/", PrefixPattern::Exact("b".repeat(50)));
        assert!(fits_below(&root, &exact).is_ok());
        assert!(fits_below(&root, &exact.below("b")).is_err());
        assert!(fits_below(&root, &PrefixPattern::Any).is_ok());
    }

    #[test]
    fn patterns_below_a_root_are_those_of_the_real_bucket() {
        for (written, real) in [("*", "r/*"), ("a*", "r/a*"), ("a/*", "r/a/*"), ("k", "r/k")] {
            assert_eq!(prefix(written).unwrap().below("r/"), prefix(real).unwrap());
            let plain = prefix(written).unwrap();
            assert_eq!(plain.below(""), plain);
        }
    }

    fn pattern() -> impl Strategy<Value = PrefixPattern> {
        prop_oneof![
            1 => Just(PrefixPattern::Any),
            4 => "[ab/]{1,4}".prop_map(PrefixPattern::Exact),
            4 => "[ab/]{1,4}".prop_map(PrefixPattern::StartsWith),
        ]
    }

    fn touch(a: &PrefixPattern, b: &PrefixPattern) -> bool {
        covers(a, b) || covers(b, a)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn finds_an_overlap_exactly_when_two_patterns_touch(patterns in prop::collection::vec(pattern(), 0..8)) {
            let tagged: Vec<_> = patterns.iter().enumerate().map(|(i, pattern)| (pattern, i)).collect();
            let found = overlaps(tagged.clone(), |a, b| a != b);
            for [(a, i), (b, j)] in &found {
                prop_assert!(i != j && touch(a, b));
            }
            let any = tagged.iter().any(|(a, i)| tagged.iter().any(|(b, j)| i < j && touch(a, b)));
            prop_assert_eq!(!found.is_empty(), any);
        }
    }
}
