//! A table of the file, read key by key: each value with its position, each problem kept. Which keys there
//! are, their defaults and their ranges come from `keys/`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::file::{ConfigFile, Located, Origin};
use super::grammar;
use super::keys::{ConfigKey, ConfigTable, Default, INCLUDED, ROOT, Value, tables_with};
use super::problem::{Mistake, nearest, printable};

/// One table of the file, there or not: a variable can set a key of a table that is not written.
pub(super) struct Section<'a> {
    file: &'a ConfigFile<'a>,
    /// `tenants.acme.grants`, for messages.
    path: String,
    /// `COSGATE_TENANTS_ACME_GRANTS_0`
    variable: String,
    /// What the table may have.
    known: &'static ConfigTable,
    /// The kind of the issuer whose table this is, once known.
    kind: Option<&'static str>,
    table: Option<&'a DeTable<'a>>,
    offset: usize,
    /// The offset of the text that the table is in.
    base: usize,
    /// Of the root: those of the included files.
    included: Vec<Self>,
    /// Keys that are not known here and are reported already, with a better reason.
    refused: Vec<&'static str>,
}

enum Raw<'a> {
    File(&'a DeValue<'a>),
    Variable(String),
}

impl<'a> Section<'a> {
    /// The file itself: the first of `texts`, each with the offset of its text, and what it includes.
    pub(super) fn root(
        file: &'a ConfigFile<'a>,
        texts: impl IntoIterator<Item = (usize, &'a DeTable<'a>)>,
    ) -> Self {
        let mut texts = texts.into_iter();
        let table = texts.next().map(|(_, table)| table);
        let root = |known, table, base| Self {
            file,
            path: String::new(),
            variable: "COSGATE".to_owned(),
            known,
            kind: None,
            table,
            offset: base,
            base,
            included: Vec::new(),
            refused: Vec::new(),
        };
        Self {
            included: texts
                .map(|(base, table)| root(&INCLUDED, Some(table), base))
                .collect(),
            ..root(&ROOT, table, 0)
        }
    }

    /// From here on the keys are those of an issuer of this kind.
    pub(super) fn set_kind(&mut self, kind: &'static str) {
        self.kind = Some(kind);
    }

    pub(super) fn file(&self) -> &'a ConfigFile<'a> {
        self.file
    }

    pub(super) fn error(
        &self,
        origin: &Origin,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.file.error(origin, Mistake::new(message, fix));
    }

    pub(super) fn warning(
        &self,
        origin: &Origin,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.file.warning(origin, Mistake::new(message, fix));
    }

    /// A path of the table is relative to the directory of the file that has the table.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.file.resolve(self.offset, path)
    }

    /// Where the section begins: the place of what is missing from it.
    pub(super) fn origin(&self) -> Origin {
        Origin::File(self.offset)
    }

    /// Whether the table may have `key`.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.known.key(key, self.kind).is_some()
    }

    /// Whether the file has it.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// The table `key`, empty when it is not written.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let mut section = self.below(key, key, self.offset);
        if let Some((offset, value)) = self.written(key) {
            section.offset = offset;
            section.table = self.as_table(key, offset, value);
        }
        section
    }

    /// The tables inside the table `key` (`[issuers.NAME]`), each with its name, in the file's order.
    pub(super) fn named_sections(&self, key: &'static str) -> Vec<(Located<String>, Self)> {
        let mut sections = Vec::new();
        for root in [self].into_iter().chain(&self.included) {
            root.section(key).push_named(key, &mut sections);
        }
        let sections = without_repeated(key, sections);
        refuse_shared_variables(&sections);
        sections
    }

    fn push_named(&self, key: &'static str, sections: &mut Vec<(Located<String>, Self)>) {
        let mut entries: Vec<_> = self.table.into_iter().flat_map(DeTable::iter).collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        sections.reserve(entries.len());
        for (name, value) in entries {
            let offset = self.base + value.span().start;
            let mut section = self.below(key, name.get_ref(), offset);
            section.table = self.as_table(name.get_ref(), offset, value.get_ref());
            let origin = Origin::File(self.base + name.span().start);
            self.check(key, &origin, grammar::name(name.get_ref()));
            let name = Located {
                value: name.get_ref().to_string(),
                origin,
            };
            sections.push((name, section));
        }
    }

    /// The elements of `key`, an array of tables.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let mut sections = Vec::new();
        for (index, (offset, value)) in self.elements(key).into_iter().enumerate() {
            let mut section = self.below(key, key, offset);
            section.variable = format!("{}_{index}", section.variable);
            section.table = self.as_table(key, offset, value);
            sections.push(section);
        }
        sections
    }

    /// The elements of `key`, an array of strings; those of its default when it is not written.
    pub(super) fn texts(&self, key: &'static str) -> Vec<Located<&'a str>> {
        if let (None, Some(default)) = (self.written(key), self.default(key)) {
            return vec![self.found(default)];
        }
        let mut texts = Vec::new();
        for (offset, value) in self.elements(key) {
            let origin = Origin::File(offset);
            match value {
                DeValue::String(text) => texts.push(Located {
                    value: &**text,
                    origin,
                }),
                other => self.wrong_type(key, &origin, other),
            }
        }
        texts
    }

    /// The elements of `key`, an array of strings and whole numbers, as they are written.
    pub(super) fn words(&self, key: &'static str) -> Vec<Located<Cow<'a, str>>> {
        let mut words = Vec::new();
        for (offset, value) in self.elements(key) {
            let origin = Origin::File(offset);
            let value = match value {
                DeValue::String(text) => Cow::Borrowed(&**text),
                DeValue::Integer(number) => Cow::Owned(number.to_string()),
                other => {
                    self.wrong_type(key, &origin, other);
                    continue;
                }
            };
            words.push(Located { value, origin });
        }
        words
    }

    /// Whether the file has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.written(key).is_some()
    }

    /// Where `key` is written, whatever it holds.
    pub(super) fn position_of(&self, key: &'static str) -> Option<Origin> {
        self.raw(key).map(|found| found.origin)
    }

    /// Whether the file has `key = []`.
    pub(super) fn is_empty_array(&self, key: &str) -> bool {
        matches!(self.written(key), Some((_, DeValue::Array(array))) if array.is_empty())
    }

    /// The text of `key`.
    pub(super) fn text(&self, key: &'static str) -> Option<Located<Cow<'a, str>>> {
        let Located { value, origin } = self.raw(key)?;
        let value = match value {
            Raw::Variable(text) => Cow::Owned(text),
            Raw::File(DeValue::String(text)) => Cow::Borrowed(&**text),
            Raw::File(other) => {
                self.wrong_type(key, &origin, other);
                return None;
            }
        };
        Some(Located { value, origin })
    }

    /// The text of `key`, parsed by `grammar`; its default, if it has one, when it is not written.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        grammar: impl FnOnce(&str) -> Result<T, Mistake>,
    ) -> Option<Located<T>> {
        let text = match self.default(key) {
            Some(default) if self.raw(key).is_none() => self.found(Cow::Borrowed(default)),
            _ => self.text(key)?,
        };
        self.check(key, &text.origin, grammar(&text.value))
            .map(|value| Located {
                value,
                origin: text.origin,
            })
    }

    /// The same for a key that must be there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        grammar: impl FnOnce(&str) -> Result<T, Mistake>,
    ) -> Option<Located<T>> {
        if self.raw(key).is_none() {
            self.missing(key);
            return None;
        }
        self.parsed(key, grammar)
    }

    /// The word of `key`, one of those that it allows. `meaning` says what each word is.
    pub(super) fn choice<T>(
        &self,
        key: &'static str,
        meaning: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Located<T>> {
        let words = match self.key(key).map(|key| &key.value) {
            Some(Value::Choice(words)) => words,
            _ => &[][..],
        };
        self.parsed(key, |text| {
            meaning(text).ok_or_else(|| grammar::not_one_of(text, words))
        })
    }

    /// `true` or `false`
    pub(super) fn flag(&self, key: &'static str) -> Located<bool> {
        let default = self.default(key) == Some("true");
        let Some(Located { value, origin }) = self.raw(key) else {
            return self.found(default);
        };
        let flag = match value {
            Raw::File(DeValue::Boolean(flag)) => Some(*flag),
            Raw::File(other) => {
                self.wrong_type(key, &origin, other);
                None
            }
            Raw::Variable(text) => self.check(key, &origin, grammar::flag(&text)),
        };
        Located {
            value: flag.unwrap_or(default),
            origin,
        }
    }

    /// A duration, `"1h30m"`.
    pub(super) fn duration(&self, key: &'static str) -> Located<Duration> {
        let default = self
            .default(key)
            .and_then(|text| grammar::duration(text).ok());
        self.duration_or(key, default.unwrap_or_default())
    }

    /// The same, where the default is worked out.
    pub(super) fn duration_or(&self, key: &'static str, default: Duration) -> Located<Duration> {
        let range = match self.key(key).map(|key| &key.value) {
            Some(Value::Duration(min, max)) => *min..=*max,
            _ => Duration::ZERO..=Duration::MAX,
        };
        if let Some(Located {
            value: Raw::File(DeValue::Integer(number)),
            origin,
        }) = self.raw(key)
        {
            let without_unit = grammar::duration(&number.to_string());
            self.check(key, &origin, without_unit);
            return self.found(default);
        }
        let text = self.text(key);
        let read = text.and_then(|Located { value, origin }| {
            let value = self.check(key, &origin, grammar::duration_within(&value, &range))?;
            Some(Located { value, origin })
        });
        read.unwrap_or_else(|| self.found(default))
    }

    /// A number of things, or of bytes (`16384` or `"16KiB"`).
    pub(super) fn number(&self, key: &'static str) -> u64 {
        let default = self.default(key).and_then(|text| grammar::size(text).ok());
        self.number_or(key, default.unwrap_or_default())
    }

    /// The same, where the default is worked out.
    pub(super) fn number_or(&self, key: &'static str, default: u64) -> u64 {
        self.number_if_written(key).unwrap_or(default)
    }

    /// The same of a key without a default.
    pub(super) fn number_if_written(&self, key: &'static str) -> Option<u64> {
        let (range, is_size) = match self.key(key).map(|key| &key.value) {
            Some(Value::Count(min, max)) => (*min..=*max, false),
            Some(Value::Size(min, max)) => (*min..=*max, true),
            _ => (0..=u64::MAX, true),
        };
        let Located { value, origin } = self.raw(key)?;
        let text = match value {
            Raw::File(DeValue::Integer(number)) => number.to_string(),
            Raw::File(DeValue::String(text)) => text.to_string(),
            Raw::Variable(text) => text,
            Raw::File(other) => {
                self.wrong_type(key, &origin, other);
                return None;
            }
        };
        let number = grammar::number_within(&text, &range, is_size);
        self.check(key, &origin, number)
    }

    /// Reports that `key`, which must be written, is not there.
    pub(super) fn missing(&self, key: &'static str) {
        let message = format!("`{key}` is missing from {}", self.heading());
        let key_of = self.key(key);
        let example = match key_of.map(|key| (&key.default, &key.value)) {
            Some((Default::Required(example), _)) => example,
            Some((_, Value::Secret)) => "\"env:NAME\"",
            _ => "\"…\"",
        };
        let other = match key_of.map(|key| key.default) {
            Some(Default::Computed(names)) if names.starts_with('`') => {
                format!(" or {}", names.replace('`', ""))
            }
            _ => String::new(),
        };
        let variable = self.variable_of(key);
        let fix = format!("add {key} = {example}, or set {variable}{other}");
        self.file()
            .error(&self.origin(), Mistake::new(message, fix));
    }

    /// Reports `key`, an array, that is not there or empty: `what` would allow nothing.
    pub(super) fn refuse_empty(&self, key: &'static str, what: &str, example: &str) {
        let (state, origin) = match self.position_of(key) {
            None => ("missing", self.origin()),
            Some(origin) if self.is_empty_array(key) => ("empty", origin),
            Some(_) => return,
        };
        let message = format!("`{key}` is {state}: {what} allows nothing");
        self.error(&origin, message, format!("write {key} = {example}"));
    }

    /// Reports a key that this table may not have, with a better reason than [`Section::finish`] knows.
    /// Whether it is there.
    pub(super) fn refuse(&mut self, key: &'static str, mistake: Mistake) -> bool {
        let Some(origin) = self.position_of(key) else {
            return false;
        };
        self.refused.push(key);
        self.file.error(&origin, mistake);
        true
    }

    /// Reports every key that the table may not have, and ends the reading.
    pub(super) fn finish(mut self) {
        for mut included in std::mem::take(&mut self.included) {
            for key in ROOT.keys {
                let message = format!("`{}` does not belong in an included file", key.name);
                let fix = "move it to the file that includes this one";
                if !included.knows(key.name) {
                    included.refuse(key.name, Mistake::new(message, fix));
                }
            }
            included.finish();
        }
        for (key, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let name: &str = key.get_ref();
            if self.known.key(name, self.kind).is_some() || self.refused.contains(&name) {
                continue;
            }
            self.file.error(
                &Origin::File(self.base + key.span().start),
                self.unknown(name),
            );
        }
        let scalars = (self.known.keys_of(self.kind)).filter(|key| key.value.is_scalar());
        self.file
            .know_variables(scalars.map(|key| self.variable_of(key.name)));
    }

    /// What to say of the key `name`, which the table may not have.
    fn unknown(&self, name: &str) -> Mistake {
        let known: Vec<_> = self.known.keys_of(self.kind).map(|key| key.name).collect();
        let heading = self.heading();
        if let (Some(kind), Some(_)) = (self.kind, self.known.key(name, None)) {
            let kinds: Vec<_> = (self.known.keys.iter())
                .filter(|key| key.name == name)
                .flat_map(|key| key.kinds)
                .map(|kind| format!("\"{kind}\""))
                .collect();
            return Mistake::new(
                format!("an issuer of kind \"{kind}\" has no key `{name}`"),
                format!("remove it, or write kind = {}", kinds.join(" or ")),
            );
        }
        let message = match self.path.as_str() {
            "" => format!("unknown section `{}`", printable(name)),
            _ => format!("unknown key `{}` in {heading}", printable(name)),
        };
        let fix = match (nearest(name, known.iter().copied()), tables_with(name)) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, tables) if !tables.is_empty() => {
                format!(
                    "remove it, or move it: `{name}` belongs in {}",
                    tables.join(" or ")
                )
            }
            _ => format!("remove it; the keys here are {}", sorted(known)),
        };
        Mistake::new(message, fix)
    }

    /// The value of `result`, or its mistake reported.
    pub(super) fn check<T>(
        &self,
        key: &str,
        origin: &Origin,
        result: Result<T, Mistake>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(mistake) => {
                let message = format!("`{key}`: {}", mistake.message);
                self.file.error(origin, Mistake::new(message, mistake.fix));
                None
            }
        }
    }

    /// `COSGATE_…`: the variable that overrides `key`.
    pub(super) fn variable_of(&self, key: &str) -> String {
        let key: String = key
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        format!("{}_{key}", self.variable)
    }

    /// The table's path as a file has it: `[tenants.acme]`.
    fn heading(&self) -> String {
        format!("[{}]", printable(&self.path))
    }

    /// What `keys/` has of the key `name`.
    fn key(&self, name: &str) -> Option<&'static ConfigKey> {
        let key = self.known.key(name, self.kind);
        debug_assert!(key.is_some(), "{} has no key `{name}`", self.path);
        key
    }

    /// The default of `key`, as it would be written.
    fn default(&self, key: &str) -> Option<&'static str> {
        match self.key(key)?.default {
            Default::Is(text) => Some(text),
            _ => None,
        }
    }

    /// A value that is not written: it stands where the table does.
    fn found<T>(&self, value: T) -> Located<T> {
        let origin = self.origin();
        Located { value, origin }
    }

    /// The section at `name`, of which `key` says what it may have.
    fn below(&self, key: &str, name: &str, offset: usize) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        let table = self.known.key(key, None).and_then(|key| key.value.table());
        Section {
            file: self.file,
            path,
            variable: self.variable_of(name),
            known: table.unwrap_or(self.known),
            kind: None,
            table: None,
            offset,
            base: self.base,
            included: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn written(&self, key: &str) -> Option<(usize, &'a DeValue<'a>)> {
        let value = self.table?.get(key)?;
        Some((self.base + value.span().start, value.get_ref()))
    }

    fn raw(&self, key: &'static str) -> Option<Located<Raw<'a>>> {
        let name = self.variable_of(key);
        let is_scalar = (self.known.key(key, None)).is_none_or(|key| key.value.is_scalar());
        if let Some(text) = is_scalar.then(|| (self.file.sources.env)(&name)).flatten() {
            return Some(Located {
                value: Raw::Variable(text),
                origin: Origin::Variable(name),
            });
        }
        let (offset, value) = self.written(key)?;
        Some(Located {
            value: Raw::File(value),
            origin: Origin::File(offset),
        })
    }

    fn elements(&self, key: &'static str) -> Vec<(usize, &'a DeValue<'a>)> {
        match self.written(key) {
            None => Vec::new(),
            Some((_, DeValue::Array(array))) => array
                .iter()
                .map(|e| (self.base + e.span().start, e.get_ref()))
                .collect(),
            Some((offset, other)) => {
                self.wrong_type(key, &Origin::File(offset), other);
                Vec::new()
            }
        }
    }

    fn as_table(
        &self,
        key: &str,
        offset: usize,
        value: &'a DeValue<'a>,
    ) -> Option<&'a DeTable<'a>> {
        let table = value.as_table();
        if table.is_none() {
            let message = format!(
                "`{}` is {}, not a table",
                printable(key),
                article(value.type_str())
            );
            let path = match self.path.as_str() {
                "" => key.to_owned(),
                path => format!("{path}.{key}"),
            };
            let fix = format!("write its keys below a line [{}]", printable(&path));
            self.file
                .error(&Origin::File(offset), Mistake::new(message, fix));
        }
        table
    }

    /// Reports that `key`, or one of its elements, is of another type than it may be.
    fn wrong_type(&self, key: &'static str, origin: &Origin, value: &DeValue<'_>) {
        let kind = self.known.key(key, self.kind).map(|key| &key.value);
        let (wanted, fix) = match kind {
            Some(Value::Flag) => (
                "true or false",
                format!("write {key} = true or {key} = false, without quotes"),
            ),
            Some(Value::Count(..)) => ("a number", format!("write {key} = 100")),
            Some(Value::Size(..)) => (
                "a size",
                format!("write {key} = \"16KiB\", or a number of bytes"),
            ),
            Some(Value::Duration(..)) => ("a duration", format!("write {key} = \"30s\"")),
            Some(Value::Texts(_) | Value::Secrets) => match value {
                DeValue::String(text) if matches!(kind, Some(Value::Texts(_))) => (
                    "an array",
                    format!("write {key} = [\"{}\"]", printable(text)),
                ),
                _ => ("an array of strings", format!("write {key} = [\"…\"]")),
            },
            Some(Value::Tables(_)) => (
                "an array of tables",
                format!(
                    "write [[{}.{key}]] with two brackets",
                    printable(&self.path)
                ),
            ),
            _ => ("a string", format!("write {key} = \"…\", in quotes")),
        };
        let message = format!("`{key}` is {}, not {wanted}", article(value.type_str()));
        self.file.error(origin, Mistake::new(message, fix));
    }
}

/// The sections whose names come for the first time; the others are reported, with both places.
fn without_repeated<'a>(
    key: &str,
    sections: Vec<(Located<String>, Section<'a>)>,
) -> Vec<(Located<String>, Section<'a>)> {
    let mut seen: HashMap<String, Origin> = HashMap::with_capacity(sections.len());
    let mut kept = Vec::with_capacity(sections.len());
    for (name, section) in sections {
        if let Some(first) = seen.get(&name.value) {
            let message = format!(
                "`[{key}.{}]` is written twice: first at {}",
                printable(&name.value),
                section.file.location(first)
            );
            let fix = "remove one of the two, or give one another name";
            section.file.error(&name.origin, Mistake::new(message, fix));
            continue;
        }
        seen.insert(name.value.clone(), name.origin.clone());
        kept.push((name, section));
    }
    kept
}

/// Two names that give the same `COSGATE_…` variables would take each other's secrets.
fn refuse_shared_variables(sections: &[(Located<String>, Section<'_>)]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for (name, section) in sections {
        if let Some(first) = seen.insert(&section.variable, &name.value) {
            let message = format!(
                "`{}` and `{}` have the same environment variables ({}_…)",
                printable(first),
                printable(&name.value),
                section.variable
            );
            section
                .file
                .error(&name.origin, Mistake::new(message, "rename one of the two"));
        }
    }
}

fn sorted(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}
