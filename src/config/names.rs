//! References from one table to another by name.

use super::file::Located;
use super::problem::{Mistake, nearest, printable};
use super::section::Section;

/// Index of a reference that is reported as an error, so that nobody uses it.
pub(super) const UNKNOWN: usize = usize::MAX;

/// The index of `text` among `names`, those of the tables `[table.NAME]`, each a `noun`.
pub(super) fn index_of(
    text: &str,
    names: &[Located<String>],
    noun: &str,
    table: &str,
) -> Result<usize, Mistake> {
    let found = names.iter().position(|name| name.value == text);
    found.ok_or_else(|| {
        let fix = match nearest(text, names.iter().map(|name| name.value.as_str())) {
            Some(meant) => format!("did you mean \"{}\"?", printable(meant)),
            None => format!("add [{table}.{}]", printable(text)),
        };
        Mistake::new(format!("there is no {noun} `{}`", printable(text)), fix)
    })
}

/// Warns of each of `names` that is not among the indices `used`.
pub(super) fn warn_of_unused(
    root: &Section<'_>,
    names: &[Located<String>],
    used: &[usize],
    noun: &str,
) {
    if used.contains(&UNKNOWN) {
        return; // one of them was likely meant
    }
    for (index, name) in names.iter().enumerate() {
        if !used.contains(&index) {
            let message = format!(
                "no tenant or template uses the {noun} `{}`",
                printable(&name.value)
            );
            let fix = "remove it, or name it in a tenant or template";
            root.warning(&name.origin, message, fix);
        }
    }
}
