//! Claims of a token in a template's prefixes: `{claim.sub}`.

use super::prefix::PrefixPattern;
use super::problem::{Mistake, printable};

/// How a claim begins in a prefix.
pub(super) const OPEN: &str = "{claim.";
/// A claim's value is compared byte by byte, so its name is any text that fits on a line.
const NAME_BYTES: usize = 128;

/// Whether `text` has a claim in it.
pub(super) fn has_claim(text: &str) -> bool {
    text.contains(OPEN)
}

/// What stands before the first claim of a pattern, and that claim's name: all that two subjects'
/// prefixes have in common.
pub(super) fn head_and_claim(pattern: &PrefixPattern) -> Option<(&str, &str)> {
    let (PrefixPattern::Exact(text) | PrefixPattern::StartsWith(text)) = pattern else {
        return None;
    };
    let (head, rest) = text.split_once(OPEN)?;
    Some((head, rest.split('}').next().unwrap_or(rest)))
}

/// The name of a claim, which may be a URL. It stands in `{claim.NAME}` too.
pub(super) fn name(text: &str) -> Result<String, Mistake> {
    let is_valid = (1..=NAME_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'{' | b'}' | b'*' | b'"' | b'\''));
    if is_valid {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("`{}` is not the name of a claim", printable(text)),
        "write a name such as sub, or https://example.com/tenant",
    ))
}
