//! Text that is not TOML: another format, keys that are written twice, and the parser's other errors.

use std::collections::HashSet;

use toml::de::{DeTable, DeValue, Error};

use super::file::{ConfigFile, ConfigText, Origin};
use super::problem::{Mistake, printable};

/// As many repetitions are searched for where they began: each search reads the file again.
const SEARCHES: usize = 50;

/// Reports why `text` is not TOML. The parser's own words alone: a source line may hold a secret.
pub(super) fn report(file: &ConfigFile<'_>, of: &ConfigText, faults: &[Error]) {
    if faults.is_empty() {
        return;
    }
    let (text, base) = (of.text.as_str(), of.base);
    if let Some((format, offset)) = other_format(text) {
        let fix = "write it as TOML, each table under its name in brackets and each value after `=`:\n\n    \
                   [server]\n    listen = \"127.0.0.1:9000\"\n\n    \
                   [issuers.main]\n    kind = \"federation\"\n\n  \
                   config/example.toml is a whole file";
        let message = format!("this file is {format}, and cosgate reads TOML");
        file.error(&Origin::File(base + offset), Mistake::new(message, fix));
        return;
    }
    // A table that is written twice has each key twice, too.
    let mut repeated_tables = HashSet::new();
    for (number, fault) in faults.iter().enumerate() {
        let at = fault.span().map_or(0, |span| span.start);
        let mistake = match (number < SEARCHES).then(|| repeated(text, fault)).flatten() {
            Some(repeated) if repeated_tables.contains(&repeated.statement) => continue,
            Some(repeated) => {
                if repeated.is_table {
                    repeated_tables.insert(repeated.statement);
                }
                repeated.mistake(file, base)
            }
            None => Mistake::new(
                format!("not TOML: {}", fault.message()),
                "correct the syntax here",
            ),
        };
        file.error(&Origin::File(base + at), mistake);
    }
}

/// The format that `text` is in, if it is plainly another one, and where that shows.
fn other_format(text: &str) -> Option<(&'static str, usize)> {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset + (line.len() - line.trim_start().len());
        offset += line.len();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('{') {
            return Some(("JSON", start));
        }
        // TOML has neither at the start of a line: `key: value` needs a `=`, `---` and `- x` are no keys.
        let is_mapping = line.split_once(':').is_some_and(|(key, rest)| {
            let key = key.trim_matches(['"', '\'']);
            let is_key = !key.is_empty()
                && key
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
            is_key && (rest.is_empty() || rest.starts_with([' ', '\t']))
        });
        let is_yaml =
            line == "---" || line.starts_with("- ") || line.starts_with("%YAML") || is_mapping;
        return is_yaml.then_some(("YAML", start));
    }
    None
}

/// A key or table that is written again.
struct RepeatedKey {
    name: String,
    is_table: bool,
    /// Where the table begins that is repeated, or the one that has the key.
    statement: usize,
    /// Where it was written first.
    first: Option<usize>,
}

impl RepeatedKey {
    fn mistake(&self, file: &ConfigFile<'_>, base: usize) -> Mistake {
        let what = if self.is_table {
            format!("the table `[{}]`", printable(&self.name))
        } else {
            format!("the key `{}`", printable(&self.name))
        };
        let Some(first) = self.first else {
            return Mistake::new(format!("{what} is written twice"), "remove one of the two");
        };
        let line = file.line(base + first);
        let fix = if self.is_table {
            format!("move these keys to the table on line {line}, or give this one another name")
        } else {
            format!("remove one of the two, here or on line {line}")
        };
        Mistake::new(
            format!("{what} is written twice: first on line {line}"),
            fix,
        )
    }
}

/// What `fault` says is written twice. The parser does not say where it was first, so the part of the file
/// before it is parsed again, and searched for what the faulty statement, parsed alone, names.
fn repeated(text: &str, fault: &Error) -> Option<RepeatedKey> {
    if !fault.message().starts_with("duplicate key") {
        return None;
    }
    let span = fault.span()?;
    let line_start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let before = text.get(..line_start)?;
    let statement = text.get(line_start..span.end)?;
    let (tree, _) = DeTable::parse_recoverable(before);
    let is_table = statement.trim_start().starts_with('[');
    let (path, table_start) = if is_table {
        let brackets = if statement.trim_start().starts_with("[[") {
            "]]"
        } else {
            "]"
        };
        (path_of(&format!("{statement}{brackets}")), line_start)
    } else {
        let header = last_header(tree.get_ref(), before);
        let heading = header.map_or("", |(_, heading)| heading);
        (
            path_of(&format!("{heading}\n{statement} = 0")),
            header.map_or(0, |(at, _)| at),
        )
    };
    let first = find(tree.get_ref(), &path);
    Some(RepeatedKey {
        name: if is_table {
            path.join(".")
        } else {
            path.last()?.clone()
        },
        is_table,
        statement: table_start,
        first,
    })
}

/// The last `[table]` line of the tree, and where it is.
fn last_header<'t>(table: &DeTable<'_>, text: &'t str) -> Option<(usize, &'t str)> {
    let mut last = None;
    for value in table.values() {
        let own = text
            .get(value.span())
            .filter(|text| text.starts_with('[') && text.ends_with(']'));
        let inner = match value.get_ref() {
            DeValue::Table(table) => last_header(table, text),
            DeValue::Array(array) => array
                .iter()
                .filter_map(|element| match element.get_ref() {
                    DeValue::Table(table) => {
                        let own = text
                            .get(element.span())
                            .filter(|text| text.starts_with("[["));
                        own.map(|own| (element.span().start, own))
                            .max(last_header(table, text))
                    }
                    _ => None,
                })
                .max(),
            _ => None,
        };
        let own = own
            .filter(|_| value.get_ref().is_table())
            .map(|own| (value.span().start, own));
        last = last.max(own).max(inner);
    }
    last
}

/// The keys from the root to the one that `statement` sets.
fn path_of(statement: &str) -> Vec<String> {
    let (tree, _) = DeTable::parse_recoverable(statement);
    let mut path = Vec::new();
    let mut table = Some(tree.get_ref());
    while let Some((name, value)) = table.and_then(|table| table.iter().next()) {
        path.push(name.get_ref().to_string());
        table = within(value.get_ref());
    }
    path
}

/// Where the key at `path` is written.
fn find(root: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let (last, parents) = path.split_last()?;
    let mut table = root;
    for name in parents {
        table = within(table.get(name.as_str())?.get_ref())?;
    }
    let (key, _) = table.get_key_value(last.as_str())?;
    Some(key.span().start)
}

/// The table that a value is, or the last of those that it lists.
fn within<'t, 'a>(value: &'t DeValue<'a>) -> Option<&'t DeTable<'a>> {
    match value {
        DeValue::Table(table) => Some(table),
        DeValue::Array(array) => array
            .iter()
            .last()
            .and_then(|element| element.get_ref().as_table()),
        _ => None,
    }
}
