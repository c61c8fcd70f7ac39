//! A pattern of keys as AWS policies write it: text, in which each `*` is any run of characters.

use super::prefix::PrefixPattern;

/// A pattern in which `*` may stand anywhere, and stands for itself nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyGlob(String);

impl KeyGlob {
    /// Of `text`, with the stars in it; two neighbours are as good as one.
    pub fn new(text: &str) -> Self {
        let mut pattern = String::with_capacity(text.len());
        for char in text.chars() {
            if char != '*' || !pattern.ends_with('*') {
                pattern.push(char);
            }
        }
        Self(pattern)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `text`, with something in the place of each star.
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let Some(mut text) = text.strip_prefix(head) else {
            return false;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
            match text.split_once(piece) {
                Some((_, after)) => text = after,
                None => return false,
            }
        }
        text.ends_with(tail)
    }

    /// The same as a grant writes its prefixes, if that can be expressed there.
    pub fn as_prefix(&self) -> Option<PrefixPattern> {
        match (self.0.strip_suffix('*'), self.0.contains('*')) {
            (Some(""), _) => Some(PrefixPattern::Any),
            (Some(start), _) if !start.contains('*') => {
                Some(PrefixPattern::StartsWith(start.to_owned()))
            }
            (None, false) => Some(PrefixPattern::Exact(self.0.clone())),
            _ => None,
        }
    }

    /// What it matches inside `pattern`, in globs.
    pub fn within(&self, pattern: &PrefixPattern) -> Vec<Self> {
        match pattern {
            PrefixPattern::Any => vec![self.clone()],
            PrefixPattern::Exact(key) if self.matches(key) => vec![Self(key.clone())],
            PrefixPattern::Exact(_) => Vec::new(),
            PrefixPattern::StartsWith(start) => {
                let rests = self.rests_after(start).into_iter();
                rests
                    .map(|rest| Self::new(&format!("{start}{rest}")))
                    .collect()
            }
        }
    }

    /// What may stand after `start`: each way in which its stars can take their part of it. A place is
    /// how much of the pattern has been used up.
    fn rests_after(&self, start: &str) -> Vec<&str> {
        let mut places = vec![0];
        for char in start.chars() {
            let mut next = Vec::new();
            for place in places {
                let rest = self.0.get(place..).unwrap_or_default();
                let after_star = rest.strip_prefix('*');
                if after_star.is_some() {
                    next.push(place);
                }
                let text = after_star.unwrap_or(rest);
                if !text.starts_with('*') && text.starts_with(char) {
                    next.push(self.0.len() - text.len() + char.len_utf8());
                }
            }
            next.sort_unstable();
            next.dedup();
            places = next;
        }
        let rest = |place: usize| self.0.get(place..);
        places.into_iter().filter_map(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters_slashes_included() {
        for (glob, text, expected) in [
            ("a/*", "a/", true),
            ("a/*", "a/b/c", true),
            ("a/*", "a", false),
            ("*", "", true),
            ("*/t/*", "x/y/t/z", true),
            ("*/t/*", "t/z", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("图/*.jpg", "图/一.jpg", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(KeyGlob::new(glob).matches(text), expected, "{glob} {text}");
        }
    }

    proptest! {
        /// A key is inside both exactly if one of the parts has it.
        #[test]
        fn what_lies_within_a_pattern_is_what_both_match(
            glob in "[ab/*]{0,6}",
            start in "[ab/]{1,4}",
            exact in any::<bool>(),
            key in "[ab/]{0,7}",
        ) {
            let glob = KeyGlob::new(&glob);
            let pattern = if exact {
                PrefixPattern::Exact(start)
            } else {
                PrefixPattern::StartsWith(start)
            };
            let common = glob.within(&pattern).iter().any(|part| part.matches(&key));
            prop_assert_eq!(common, glob.matches(&key) && pattern.covers(&key));
        }

        #[test]
        fn a_glob_that_is_a_prefix_means_the_same_as_one(glob in "[ab/*]{0,4}", key in "[ab/]{1,5}") {
            let glob = KeyGlob::new(&glob);
            if let Some(pattern) = glob.as_prefix() {
                prop_assert_eq!(pattern.covers(&key), glob.matches(&key));
            }
        }
    }
}
