//! [`ListingPage`]: a page of a bucket of which the tenant may list only parts.
//!
//! A client that lists an ancestor of these parts (no prefix, or `al` of `alice/`) sees what it would see
//! if the bucket held nothing else. With a delimiter that is the way to them, which cosgate knows by
//! itself. Everything else only COS knows, and it lists one granted prefix after another: the
//! temporary key allows no more. A page may end where such a prefix does, since S3 allows short pages.
//! The marker is a key, and says in which prefix the listing goes on.

use super::Grant;
use crate::config::PrefixPattern;
use crate::error::{Code, S3Error};
use crate::s3::address::MAX_KEY_BYTES;
use crate::s3::continuation::marker_of_token;
use crate::s3::query::MAX_LISTED;
use crate::s3::{Operation, S3Request};

/// Where the entries of a listing's page come from. Names are the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListingPage {
    /// From COS, by the prefix that the client named.
    AsRequested,
    /// From COS, by a granted prefix.
    Below {
        /// The granted prefix, which starts with the client's.
        prefix: String,
        /// Where in it the page begins; `None` for its start.
        marker: Option<String>,
        /// The marker of what follows when COS has no more below the prefix; `None` if nothing follows.
        border: Option<String>,
    },
    /// From the grant: the common prefixes that lead to what may be listed.
    CommonPrefixes {
        /// Sorted.
        names: Vec<String>,
        /// The marker of the next page, if there is one.
        next: Option<String>,
    },
    /// No listing: the HEAD of a folder outside the grant's prefixes that leads to one of them.
    Folder,
}

/// A part of what a listing shows.
#[derive(Debug, PartialEq, Eq)]
enum ListingPart {
    /// All of it is one common prefix.
    CommonPrefix(String),
    /// What COS has below a granted prefix.
    Below(String),
}

/// The page that `request`, a listing, gets of the bucket of `grant`.
pub(super) fn page(grant: &Grant, request: &S3Request<'_>) -> Result<ListingPage, S3Error> {
    let value = |name| request.query.get(name).unwrap_or_default();
    let (action, prefix) = (request.operation.action(), value("prefix"));
    if grant.allows_list(action, prefix) {
        return Ok(ListingPage::AsRequested);
    }
    let parts = parts(grant, action, prefix, value("delimiter"))?;
    if parts.is_empty() {
        return Err(outside(grant));
    }
    let marker = match request.operation {
        Operation::ListObjects => value("marker").to_owned(),
        Operation::ListObjectsV2 => match request.query.get("continuation-token") {
            Some(token) => marker_of_token(token)?,
            None => value("start-after").to_owned(),
        },
        _ => value("key-marker").to_owned(),
    };
    let room = match request.operation {
        Operation::ListMultipartUploads => value("max-uploads"),
        _ => value("max-keys"),
    };
    // It has been checked that this is a number, if it is there.
    let room = room.parse().unwrap_or(MAX_LISTED).min(MAX_LISTED);
    Ok(cut(parts, &marker, room as usize))
}

/// Whether `folder` leads to a granted prefix or is one, so that a listing shows it. A client that takes a
/// bucket for a file system (s3fs) looks for it by HEAD before it goes on.
pub(super) fn shows_folder(grant: &Grant, folder: &str) -> bool {
    let action = Operation::ListObjects.action();
    let leads = |pattern: &PrefixPattern| matches!(pattern, PrefixPattern::StartsWith(start) if start.starts_with(folder));
    folder.ends_with('/') && grant.allows(action) && grant.listable(action).iter().any(leads)
}

/// All that a listing of `prefix` shows, in the order of its keys.
fn parts(
    grant: &Grant,
    action: &str,
    prefix: &str,
    delimiter: &str,
) -> Result<Vec<ListingPart>, S3Error> {
    let mut patterns = grant.listable(action);
    patterns.retain(|pattern| pattern.start().starts_with(prefix));
    // One that covers others stands before them.
    let order = |pattern: &PrefixPattern| matches!(pattern, PrefixPattern::Exact(_));
    patterns.sort_unstable_by(|a, b| (a.start(), order(a)).cmp(&(b.start(), order(b))));
    let mut parts = Vec::new();
    let mut widest: Option<&PrefixPattern> = None;
    for pattern in &patterns {
        if widest.is_some_and(|outer| pattern.is_within(outer)) {
            continue;
        }
        widest = Some(pattern);
        let start = pattern.start();
        let rest = start.get(prefix.len()..).unwrap_or_default();
        let end = rest.find(delimiter).filter(|_| !delimiter.is_empty());
        let part = if let Some(end) = end {
            let end = prefix.len() + end + delimiter.len();
            ListingPart::CommonPrefix(start.get(..end).unwrap_or(start).to_owned())
        } else if is_split(rest, delimiter) || !grant.allows_list(action, start) {
            return Err(not_listable(grant));
        } else {
            ListingPart::Below(start.to_owned())
        };
        if parts.last() != Some(&part) {
            parts.push(part);
        }
    }
    Ok(parts)
}

/// Whether a delimiter may begin in `rest` and end after it, where COS would not find it: a listing
/// looks for the delimiter after its own prefix alone.
fn is_split(rest: &str, delimiter: &str) -> bool {
    let mut fronts = (1..delimiter.len()).filter_map(|end| delimiter.get(..end));
    fronts.any(|front| rest.ends_with(front))
}

/// The page of `room` entries at most that begins after `marker`.
fn cut(parts: Vec<ListingPart>, marker: &str, room: usize) -> ListingPage {
    let mut rest = parts.into_iter().skip_while(|part| part.is_over(marker));
    let mut names: Vec<String> = Vec::new();
    if room == 0 {
        return ListingPage::CommonPrefixes { names, next: None }; // as S3: the last page, empty
    }
    loop {
        match rest.next() {
            Some(ListingPart::CommonPrefix(name)) if names.len() < room => names.push(name),
            Some(ListingPart::Below(prefix)) if names.is_empty() => {
                let border = rest.next().map(|next| border(&prefix, next.text()));
                let marker = Some(marker).filter(|marker| marker.starts_with(&prefix));
                return ListingPage::Below {
                    marker: marker.map(str::to_owned),
                    border,
                    prefix,
                };
            }
            next => {
                let next = next.and_then(|_| names.last().cloned());
                return ListingPage::CommonPrefixes { names, next };
            }
        }
    }
}

impl ListingPart {
    fn text(&self) -> &str {
        match self {
            Self::CommonPrefix(text) | Self::Below(text) => text,
        }
    }

    /// Whether nothing of it stands after `marker`. A common prefix is shown for a marker within it:
    /// there may be more keys that it stands for.
    fn is_over(&self, marker: &str) -> bool {
        match self {
            Self::CommonPrefix(name) => {
                marker >= name.as_str() && (marker == name || !marker.starts_with(name))
            }
            Self::Below(prefix) if marker.starts_with(prefix) => *marker >= *last_below(prefix),
            Self::Below(prefix) => *marker > **prefix,
        }
    }
}

/// A marker after every key that starts with `prefix`, and before `next`.
fn border(prefix: &str, next: &str) -> String {
    let mut chars = prefix.chars();
    let last = chars.next_back().map_or(0, u32::from);
    // Markers are read as XML and in queries, where not every character can stand.
    let fits = |char: &char| !char.is_control() && !matches!(char, '\u{fffe}' | '\u{ffff}');
    let after = char::from_u32(last + 1).filter(fits);
    let after = after.map(|char| format!("{}{char}", chars.as_str()));
    after
        .filter(|after| after.as_str() < next)
        .unwrap_or_else(|| last_below(prefix))
}

/// A text after every key that starts with `prefix`: no key is long enough to stand after it.
fn last_below(prefix: &str) -> String {
    let mut last = prefix.to_owned();
    while last.len() <= MAX_KEY_BYTES {
        last.push(char::MAX);
    }
    last
}

fn outside(grant: &Grant) -> S3Error {
    S3Error::new(
        Code::AccessDenied,
        format!(
            "The prefix of this listing is outside the prefixes that are yours in bucket {}.",
            grant.name
        ),
    )
}

/// A single key cannot be listed: by a prefix COS shows others too. A listing without it would say that
/// it does not exist.
fn not_listable(grant: &Grant) -> S3Error {
    S3Error::new(
        Code::AccessDenied,
        format!(
            "This listing cannot show all that is yours in bucket {}. List one of your folders.",
            grant.name
        ),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::s3::Query;
    use crate::s3::continuation::token_of_marker;

    fn grant(prefixes: &[PrefixPattern]) -> Grant {
        Grant {
            name: "photos".into(),
            bucket: "shared-1250000000".into(),
            region: "ap-guangzhou".into(),
            root: String::new(),
            prefixes: prefixes.to_vec(),
            actions: vec!["name/cos:GetBucket".into()],
            headers: Vec::new(),
            policy: None,
            attachment: false,
            cors: [].into(),
            session: None,
        }
    }

    fn patterns(texts: &[&str]) -> Vec<PrefixPattern> {
        let read = texts.iter().map(|text| PrefixPattern::parse(text).unwrap());
        read.collect()
    }

    fn of(prefixes: &[&str], query: &str) -> Result<ListingPage, Code> {
        requested(&grant(&patterns(prefixes)), query)
    }

    fn requested(grant: &Grant, query: &str) -> Result<ListingPage, Code> {
        let request = S3Request {
            operation: Operation::ListObjectsV2,
            bucket: Some("photos".into()),
            key: None,
            query: Query::parse(query).unwrap(),
            copy_source: None,
        };
        page(grant, &request).map_err(|error| error.code())
    }

    fn shown(names: &[&str], next: Option<&str>) -> ListingPage {
        ListingPage::CommonPrefixes {
            names: names.iter().map(ToString::to_string).collect(),
            next: next.map(str::to_owned),
        }
    }

    fn below(prefix: &str, marker: Option<&str>, border: Option<&str>) -> ListingPage {
        ListingPage::Below {
            prefix: prefix.to_owned(),
            marker: marker.map(str::to_owned),
            border: border.map(str::to_owned),
        }
    }

    #[test]
    fn shows_the_next_segment_of_the_way() {
        let deep = ["a/b/c/*", "a/b/d/*", "a/x.txt", "al/*", "z b/中%/*"];
        assert_eq!(
            of(&deep, "delimiter=/"),
            Ok(shown(&["a/", "al/", "z b/"], None))
        );
        assert_eq!(
            of(&deep, "delimiter=/&prefix=a"),
            Ok(shown(&["a/", "al/"], None))
        );
        assert_eq!(
            of(&deep[..2], "delimiter=/&prefix=a/"),
            Ok(shown(&["a/b/"], None))
        );
        assert_eq!(
            of(&deep, "delimiter=/&prefix=z+b/"),
            Ok(shown(&["z b/中%/"], None))
        );
        assert_eq!(of(&deep, "delimiter=%25"), Err(Code::AccessDenied)); // of `a/x.txt`
        assert_eq!(
            of(&deep, "delimiter=/&prefix=a/b/c/"),
            Ok(ListingPage::AsRequested)
        );
        assert_eq!(of(&["*"], ""), Ok(ListingPage::AsRequested));
        for outside in ["prefix=b", "prefix=a/bc", "prefix=/", "prefix=al/x"] {
            let refused = of(&["a/b/*", "al/y/*"], outside);
            assert_eq!(refused, Err(Code::AccessDenied), "{outside}");
        }
    }

    #[test]
    fn common_prefixes_come_in_pages() {
        let three = ["a/*", "b/*", "c/*"];
        let page = |rest: &str| of(&three, &format!("delimiter=/&{rest}"));
        assert_eq!(page("max-keys=2"), Ok(shown(&["a/", "b/"], Some("b/"))));
        assert_eq!(page("max-keys=3"), Ok(shown(&["a/", "b/", "c/"], None)));
        let token = token_of_marker("b/");
        let last = format!("max-keys=2&continuation-token={token}&start-after=a");
        assert_eq!(page(&last), Ok(shown(&["c/"], None)));
        assert_eq!(
            page("start-after=a/zz"),
            Ok(shown(&["a/", "b/", "c/"], None))
        );
        assert_eq!(page("start-after=d"), Ok(shown(&[], None)));
        assert_eq!(page("max-keys=0"), Ok(shown(&[], None)));
        assert_eq!(page("max-keys="), Ok(shown(&["a/", "b/", "c/"], None)));
        assert_eq!(page("continuation-token=*"), Err(Code::InvalidArgument));
    }

    #[test]
    fn requests_one_prefix_after_another_of_cos() {
        let two = ["b/*", "a/*", "a/b/*", "a/b"];
        assert_eq!(of(&two, ""), Ok(below("a/", None, Some("a0"))));
        assert_eq!(of(&two, "start-after=a"), Ok(below("a/", None, Some("a0"))));
        assert_eq!(
            of(&two, "start-after=a/x"),
            Ok(below("a/", Some("a/x"), Some("a0")))
        );
        assert_eq!(of(&two, "start-after=a0"), Ok(below("b/", None, None)));
        assert_eq!(
            of(&two, "start-after=b/x"),
            Ok(below("b/", Some("b/x"), None))
        );
        assert_eq!(of(&two, "start-after=b0"), Ok(shown(&[], None)));
        assert_eq!(of(&two, "max-keys=0"), Ok(shown(&[], None)));
        // What does not end at the delimiter is COS's to say; what stands before it comes first.
        let mixed = ["a/*", "b*", "c/*"];
        assert_eq!(of(&mixed, "delimiter=/"), Ok(shown(&["a/"], Some("a/"))));
        assert_eq!(
            of(&mixed, "delimiter=/&start-after=a/"),
            Ok(below("b", None, Some("c")))
        );
        assert_eq!(
            of(&mixed, "delimiter=/&start-after=c"),
            Ok(shown(&["c/"], None))
        );
    }

    #[test]
    fn prefixes_that_touch_have_a_border_that_is_no_key() {
        let Ok(ListingPage::Below {
            border: Some(border),
            ..
        }) = of(&["a*", "b*"], "")
        else {
            panic!("no border");
        };
        assert!(border.starts_with('a') && border.len() > MAX_KEY_BYTES);
        let mut query = String::from("start-after=");
        crate::encoding::percent::push_encoded(&mut query, border.as_bytes());
        assert_eq!(of(&["a*", "b*"], &query), Ok(below("b", None, None)));
    }

    #[test]
    fn refuses_what_it_could_not_show_whole() {
        assert_eq!(of(&["a/*", "one.txt"], ""), Err(Code::AccessDenied));
        assert_eq!(
            of(&["a/*", "one.txt"], "delimiter=/"),
            Err(Code::AccessDenied)
        );
        assert_eq!(
            of(&["a/*", "b/one.txt"], "delimiter=/"),
            Ok(shown(&["a/", "b/"], None))
        );
        // COS would look for the delimiter after `a-` alone.
        assert_eq!(of(&["a-*"], "delimiter=--"), Err(Code::AccessDenied));
        assert_eq!(of(&["a-*"], "delimiter=-"), Ok(shown(&["a-"], None)));
        assert_eq!(of(&["a-*"], "delimiter=x-"), Ok(below("a-", None, None)));
    }

    /// What COS returns: keys and common prefixes, and the marker of the next page.
    fn of_cos(
        keys: &[String],
        prefix: &str,
        delimiter: &str,
        after: &str,
        room: usize,
    ) -> (Vec<String>, Option<String>) {
        let mut all: Vec<String> = Vec::new();
        for key in keys
            .iter()
            .filter(|key| key.starts_with(prefix) && key.as_str() > after)
        {
            let end = key[prefix.len()..]
                .find(delimiter)
                .filter(|_| !delimiter.is_empty());
            let entry = end.map_or(key.as_str(), |end| {
                &key[..prefix.len() + end + delimiter.len()]
            });
            if entry != after && all.last().is_none_or(|last| last != entry) {
                all.push(entry.to_owned());
            }
        }
        let more = all.len() > room;
        all.truncate(room);
        let next = all.last().cloned().filter(|_| more);
        (all, next)
    }

    fn natural() -> impl Strategy<Value = String> {
        let corpus = include_str!("../../tests/vectors/keys.txt").lines();
        let corpus: Vec<String> = corpus.map(str::to_owned).collect();
        prop_oneof![
            prop::sample::select(corpus),
            "[ab./%中 ]{1,4}",
            "[yz\u{10fffe}\u{10ffff}]{1,3}"
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        /// Page by page, a client sees each key below its prefixes once, in order, and nothing else.
        #[test]
        fn pages_show_exactly_what_is_granted(
            keys in prop::collection::btree_set(natural(), 1..40),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
            ancestor in (any::<prop::sample::Index>(), any::<bool>()),
            delimiter in prop::sample::select(vec!["", "/", "%", "a", "中"]),
            room in prop_oneof![1..4usize, Just(1000)],
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            let front = |key: &str, at: prop::sample::Index| {
                let chars = key.chars().count();
                key.chars().take(at.index(chars) + 1).collect::<String>()
            };
            let starts: Vec<String> = cuts.iter().map(|(key, at)| front(&keys[key.index(keys.len())], *at)).collect();
            let prefix = if ancestor.1 { front(&starts[0], ancestor.0) } else { String::new() };
            let prefixes: Vec<_> = starts.iter().cloned().map(PrefixPattern::StartsWith).collect();
            let grant = grant(&prefixes);
            let granted: Vec<String> = keys.iter().filter(|key| grant.covers(key)).cloned().collect();

            let (mut seen, mut marker) = (Vec::new(), String::new());
            for page in 0.. {
                prop_assert!(page < 200, "it never ends");
                let mut query = format!("list-type=2&max-keys={room}");
                for (name, value) in [("prefix", &*prefix), ("delimiter", delimiter), ("start-after", &marker)] {
                    query.extend(["&", name, "="]);
                    crate::encoding::percent::push_encoded(&mut query, value.as_bytes());
                }
                let (entries, next) = match requested(&grant, &query).unwrap() {
                    ListingPage::AsRequested => of_cos(&keys, &prefix, delimiter, &marker, room),
                    ListingPage::CommonPrefixes { names, next } => (names, next),
                    ListingPage::Below { prefix: below, marker, border } => {
                        prop_assert!(grant.covers_list(&below) && below.starts_with(&prefix));
                        let (entries, next) = of_cos(&keys, &below, delimiter, &marker.unwrap_or_default(), room);
                        (entries, next.or(border))
                    }
                    ListingPage::Folder => return Err(TestCaseError::fail("a listing is no folder")),
                };
                prop_assert!(entries.len() <= room);
                seen.extend(entries);
                let Some(next) = next else { break };
                prop_assert!(next > marker);
                marker = next;
            }
            let (expected, _) = of_cos(&granted, &prefix, delimiter, "", usize::MAX);
            prop_assert_eq!(seen, expected);
        }
    }
}
