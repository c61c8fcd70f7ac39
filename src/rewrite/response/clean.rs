//! The check of texts of COS for anything that reveals the real store.

use crate::tenant::Grant;

/// The longest text of COS that is passed on.
pub(super) const MESSAGE_BYTES: usize = 512;

/// Whether a text of COS may reach the client: it names nothing of the real store, neither of `grant`
/// nor of the grant that a copy reads from. Doubt refuses.
pub(in crate::rewrite) fn is_clean(text: &str, grant: &Grant, source: Option<&Grant>) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut grants = [grant].into_iter().chain(source);
    text.len() <= MESSAGE_BYTES
        && !text.contains('%') // a name could be encoded in any way
        && !has_key_material(text)
        && !names_host(text)
        && !HIDDEN.iter().any(|word| lower.contains(word))
        && !grants.any(|grant| names_place(text, grant))
}

/// Whether a text may quote a key or a token of ours: a word as long as a secret key (32 letters).
pub(super) fn has_key_material(text: &str) -> bool {
    const SECRET_KEY: usize = 32;
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    text.split(|c| !is_letter(c))
        .any(|word| word.len() >= SECRET_KEY)
}

/// Whether a text has a host or an address in it: letters or digits on both sides of a dot.
fn names_host(text: &str) -> bool {
    let outer = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
    text.match_indices('.').any(|(at, dot)| {
        let (before, after) = text.split_at_checked(at).unwrap_or_default();
        let after = after.strip_prefix(dot).unwrap_or_default();
        outer(before.chars().next_back()) && outer(after.chars().next())
    })
}

/// Whether a text names the grant's real bucket, its APPID or its root.
fn names_place(text: &str, grant: &Grant) -> bool {
    let appid = grant.bucket.rsplit_once('-').map_or("", |(_, appid)| appid);
    text.contains(&grant.bucket)
        || (!appid.is_empty() && text.contains(appid))
        // In a form a space is written as `+`.
        || names_root(&text.replace('+', " "), &grant.root.replace('+', " "))
}

/// Whether a text has the root in it, the slash at its end left out or not.
fn names_root(text: &str, root: &str) -> bool {
    let Some(folder) = root.strip_suffix('/') else {
        return false;
    };
    let is_part = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
    text.contains(root)
        || text.match_indices(folder).any(|(at, _)| {
            let (before, after) = text.split_at_checked(at).unwrap_or_default();
            let after = after.strip_prefix(folder).unwrap_or_default();
            !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        })
}

/// Words that reveal the real store, its hosts or its signatures.
const HIDDEN: [&str; 9] = [
    "akid",
    "myqcloud",
    "q-ak",
    "q-sign",
    "qcs:",
    "secret",
    "signature",
    "tencentcos",
    "token",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::tests::tenant;

    #[test]
    fn no_text_tells_the_root() {
        let mut grant = tenant().grants.remove(0);
        grant.root = "a b/".into();
        for text in ["a b/x is gone", "a%20b%2Fx is gone"] {
            assert!(!is_clean(text, &grant, None), "{text}");
        }
        assert!(is_clean("x is gone", &grant, None));
    }
}
