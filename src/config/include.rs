//! `[include]`: files that belong to the configuration, as one for each tenant.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::file::{ConfigText, Origin, Sources};
use super::named_file::{FileKind, NamedFile};
use super::problem::{Mistake, printable};

/// Files that one configuration includes at most.
const FILES: usize = 20_000;

/// What a configuration includes.
#[derive(Default)]
pub(super) struct Included {
    pub(super) texts: Vec<ConfigText>,
    /// The files, and the folders that were searched for them.
    pub(super) named: Vec<NamedFile>,
    pub(super) mistakes: Vec<(Origin, Mistake)>,
}

/// Reads the files that `tree`, which is that of `main`, includes.
pub(super) fn included(main: &ConfigText, tree: &DeTable<'_>, sources: &Sources<'_>) -> Included {
    let mut read = Included::default();
    let mut seen = HashSet::from([PathBuf::from(&main.name)]);
    let directory = Path::new(&main.name)
        .parent()
        .unwrap_or_else(|| Path::new(""));
    for (offset, pattern) in patterns(tree) {
        let origin = Origin::File(offset);
        match read.matching(&directory.join(pattern), sources) {
            Ok(paths) => {
                for path in paths.into_iter().filter(|path| seen.insert(path.clone())) {
                    read.take(main, path, &origin, sources);
                }
            }
            Err(mistake) => read.mistakes.push((origin, about_files(mistake))),
        }
    }
    read
}

/// The elements of `files`. What is no text is reported where the section is read.
fn patterns<'t>(tree: &'t DeTable<'_>) -> impl Iterator<Item = (usize, &'t str)> {
    let section = tree.get("include").map(toml::Spanned::get_ref);
    let files = section
        .and_then(DeValue::as_table)
        .and_then(|table| table.get("files"));
    let array = files.and_then(|files| files.get_ref().as_array());
    let all = array.into_iter().flat_map(|array| array.iter());
    all.filter_map(|element| Some((element.span().start, element.get_ref().as_str()?)))
}

impl Included {
    /// The files of `pattern`, sorted by name.
    fn matching(&mut self, pattern: &Path, sources: &Sources<'_>) -> Result<Vec<PathBuf>, Mistake> {
        let folder = pattern.parent().unwrap_or_else(|| Path::new(""));
        let name = pattern.file_name().and_then(|name| name.to_str());
        let name =
            name.ok_or_else(|| Mistake::new("this names no file", "write \"tenants.d/*.toml\""))?;
        if folder.to_string_lossy().contains('*') {
            let message = "`*` stands in the name of a folder";
            return Err(Mistake::new(message, "use it in the names of files alone"));
        }
        if !name.contains('*') {
            return Ok(vec![pattern.to_owned()]);
        }
        self.named.push(NamedFile {
            path: folder.to_owned(),
            kind: FileKind::Folder,
        });
        let listed = (sources.folder)(folder).map_err(|error| {
            let message = format!("cannot list {}: {error}", folder.display());
            Mistake::new(message, "make the folder, or correct its path")
        })?;
        let is_match = |path: &PathBuf| {
            let found = path.file_name().and_then(|found| found.to_str());
            found.is_some_and(|found| matches(name, found))
        };
        let mut paths: Vec<_> = listed.into_iter().filter(is_match).collect();
        paths.sort();
        Ok(paths)
    }

    fn take(&mut self, main: &ConfigText, path: PathBuf, origin: &Origin, sources: &Sources<'_>) {
        if self.texts.len() >= FILES {
            if self.texts.len() == FILES && self.mistakes.is_empty() {
                let message = format!("there are more than {FILES} files to include");
                let mistake = Mistake::new(message, "write several tenants into one file");
                self.mistakes.push((origin.clone(), mistake));
            }
            return;
        }
        let base = self.texts.last().unwrap_or(main).end();
        match (sources.file)(&path) {
            Ok(text) => {
                let name = path.to_string_lossy().into_owned();
                self.texts.push(ConfigText::new(name, text, base));
            }
            Err(error) => {
                let message = format!(
                    "cannot read {}: {error}",
                    printable(&path.to_string_lossy())
                );
                let mistake =
                    Mistake::new(message, "correct the path, or let this user read the file");
                self.mistakes.push((origin.clone(), about_files(mistake)));
            }
        }
        let kind = FileKind::Configuration;
        self.named.push(NamedFile { path, kind });
    }
}

fn about_files(mistake: Mistake) -> Mistake {
    Mistake::new(format!("`files`: {}", mistake.message), mistake.fix)
}

/// Whether `name` is one of `pattern`, where `*` stands for any text. As in shells, a file whose name
/// begins with a dot is not meant, as the hidden ones of editors and of mounted volumes.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_for_no_hidden_file() {
        for (pattern, name, expected) in [
            ("*.toml", "acme.toml", true),
            ("*.toml", ".toml", false),
            ("*.toml", ".acme.toml", false),
            (".*.toml", ".acme.toml", true),
            ("*.toml", "acme.toml.bak", false),
            ("*.toml", "acme.toml~", false),
            ("team-*-*.toml", "team-a-b.toml", true),
            ("team-*-*.toml", "team-a.toml", false),
            ("a*a.toml", "a.toml", false),
            ("a*a.toml", "aa.toml", true),
            ("*", "客户.toml", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
