//! A table of the file, read key by key: every value with its place, every problem kept.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::document::{Document, Found, Origin, printable};
use super::grammar;
use super::problem::{Refusal, nearest};

/// One table of the file, there or not: a variable can set a key of a table that is not written.
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    /// `tenants.acme.grants`, for messages.
    path: String,
    /// `COSGATE_TENANTS_ACME_GRANTS_0`
    variable: String,
    table: Option<&'a DeTable<'a>>,
    offset: usize,
    known: Vec<&'static str>,
}

enum Raw<'a> {
    File(&'a DeValue<'a>),
    Variable(String),
}

impl<'a> Section<'a> {
    pub(super) fn root(document: &'a Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            document,
            path: String::new(),
            variable: "COSGATE".to_owned(),
            table: Some(table),
            offset: 0,
            known: Vec::new(),
        }
    }

    pub(super) fn document(&self) -> &'a Document<'a> {
        self.document
    }

    /// Where the section begins: the place of what is missing from it.
    pub(super) fn origin(&self) -> Origin {
        Origin::File(self.offset)
    }

    /// Whether the file has it.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// The table `key`, empty when it is not written.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        self.known.push(key);
        let mut section = self.below(key, self.offset);
        if let Some((offset, value)) = self.written(key) {
            section.offset = offset;
            section.table = self.as_table(key, offset, value);
        }
        section
    }

    /// The tables inside the table `key` (`[issuers.NAME]`), each with its name, in the file's order.
    pub(super) fn named_sections(&mut self, key: &'static str) -> Vec<(Found<String>, Self)> {
        let parent = self.section(key);
        let mut entries: Vec<_> = parent.table.into_iter().flat_map(DeTable::iter).collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut sections = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let mut section = parent.below(name.get_ref(), value.span().start);
            section.table = parent.as_table(name.get_ref(), value.span().start, value.get_ref());
            let name = Found {
                value: name.get_ref().to_string(),
                origin: Origin::File(name.span().start),
            };
            sections.push((name, section));
        }
        sections
    }

    /// The elements of `key`, an array of tables.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        let mut sections = Vec::new();
        for (index, (offset, value)) in self
            .elements(key, "an array of tables")
            .into_iter()
            .enumerate()
        {
            let mut section = self.below(key, offset);
            section.variable = format!("{}_{index}", section.variable);
            section.table = self.as_table(key, offset, value);
            sections.push(section);
        }
        sections
    }

    /// The elements of `key`, an array of strings.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<Found<&'a str>> {
        let mut texts = Vec::new();
        for (offset, value) in self.elements(key, "an array of strings") {
            let origin = Origin::File(offset);
            match value {
                DeValue::String(text) => texts.push(Found {
                    value: &**text,
                    origin,
                }),
                other => self.wrong_type(key, &origin, "an array of strings", other),
            }
        }
        texts
    }

    /// The elements of `key`, an array of strings and whole numbers, as they are written.
    pub(super) fn words(&mut self, key: &'static str) -> Vec<Found<Cow<'a, str>>> {
        const WANTED: &str = "an array of strings and numbers";
        let mut words = Vec::new();
        for (offset, value) in self.elements(key, WANTED) {
            let origin = Origin::File(offset);
            let value = match value {
                DeValue::String(text) => Cow::Borrowed(&**text),
                DeValue::Integer(number) => Cow::Owned(number.to_string()),
                other => {
                    self.wrong_type(key, &origin, WANTED, other);
                    continue;
                }
            };
            words.push(Found { value, origin });
        }
        words
    }

    /// Whether the file has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.written(key).is_some()
    }

    /// Where `key` is written, whatever it holds.
    pub(super) fn place_of(&mut self, key: &'static str) -> Option<Origin> {
        self.raw(key).map(|found| found.origin)
    }

    /// Whether the file has `key = []`.
    pub(super) fn is_empty_array(&self, key: &str) -> bool {
        matches!(self.written(key), Some((_, DeValue::Array(array))) if array.is_empty())
    }

    /// The text of `key`.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Found<Cow<'a, str>>> {
        let Found { value, origin } = self.raw(key)?;
        let value = match value {
            Raw::Variable(text) => Cow::Owned(text),
            Raw::File(DeValue::String(text)) => Cow::Borrowed(&**text),
            Raw::File(other) => {
                self.wrong_type(key, &origin, "a string", other);
                return None;
            }
        };
        Some(Found { value, origin })
    }

    /// The text of `key`, parsed by `grammar`.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        grammar: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<Found<T>> {
        let text = self.text(key)?;
        self.check(key, &text.origin, grammar(&text.value))
            .map(|value| Found {
                value,
                origin: text.origin,
            })
    }

    /// The same for a key that must be there; `example` says how to write it.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        grammar: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<Found<T>> {
        if self.raw(key).is_none() {
            self.missing(key, example);
            return None;
        }
        self.parsed(key, grammar)
    }

    /// `true` or `false`; false when not written.
    pub(super) fn flag(&mut self, key: &'static str) -> Found<bool> {
        self.flag_or(key, false)
    }

    /// The same, with another default.
    pub(super) fn flag_or(&mut self, key: &'static str, default: bool) -> Found<bool> {
        let Some(Found { value, origin }) = self.raw(key) else {
            return Found {
                value: default,
                origin: self.origin(),
            };
        };
        let flag = match value {
            Raw::File(DeValue::Boolean(flag)) => Some(*flag),
            Raw::File(other) => {
                self.wrong_type(key, &origin, "true or false", other);
                None
            }
            Raw::Variable(text) => self.check(key, &origin, grammar::flag(&text)),
        };
        Found {
            value: flag.unwrap_or(default),
            origin,
        }
    }

    /// A length of time such as `"1h30m"`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Found<Duration> {
        let fallback = Found {
            value: default,
            origin: self.origin(),
        };
        if let Some(Found {
            value: Raw::File(DeValue::Integer(number)),
            origin,
        }) = self.raw(key)
        {
            let message = format!("`{key}`: {number} has no unit");
            self.document.error(
                &origin,
                Refusal::new(message, format!("write the unit: {key} = \"{number}s\"")),
            );
            return fallback;
        }
        let within = |text: &str| grammar::duration_within(text, &range);
        self.parsed(key, within).unwrap_or(fallback)
    }

    /// A number of things, or of bytes (`16384` or `"16KiB"`).
    pub(super) fn size(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let Some(Found { value, origin }) = self.raw(key) else {
            return default;
        };
        let parsed = match value {
            Raw::File(DeValue::Integer(number)) => {
                grammar::size_within(&number.to_string(), &range)
            }
            Raw::File(DeValue::String(text)) => grammar::size_within(text, &range),
            Raw::Variable(text) => grammar::size_within(&text, &range),
            Raw::File(other) => {
                self.wrong_type(key, &origin, "a number, or a size such as \"16KiB\"", other);
                return default;
            }
        };
        self.check(key, &origin, parsed).unwrap_or(default)
    }

    /// Reports that `key` is not there.
    pub(super) fn missing(&self, key: &str, example: &str) {
        let message = format!("`{key}` is missing from {}", self.path);
        let fix = format!("add {key} = {example}, or set {}", self.variable_of(key));
        self.document
            .error(&self.origin(), Refusal::new(message, fix));
    }

    /// Reports every key that nothing asked for. To be called when all were.
    pub(super) fn finish(self) {
        for (key, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let message = match self.path.as_str() {
                "" => format!("unknown section `{}`", printable(name)),
                path => format!("unknown key `{}` in {path}", printable(name)),
            };
            let fix = match nearest(name, self.known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("remove it; known here: {}", self.known_list()),
            };
            self.document
                .error(&Origin::File(key.span().start), Refusal::new(message, fix));
        }
    }

    /// The value of `result`, or its refusal reported.
    pub(super) fn check<T>(
        &self,
        key: &str,
        origin: &Origin,
        result: Result<T, Refusal>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(refusal) => {
                let message = format!("`{key}`: {}", refusal.message);
                self.document
                    .error(origin, Refusal::new(message, refusal.fix));
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

    fn below(&self, key: &str, offset: usize) -> Self {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Section {
            document: self.document,
            path,
            variable: self.variable_of(key),
            table: None,
            offset,
            known: Vec::new(),
        }
    }

    fn written(&self, key: &str) -> Option<(usize, &'a DeValue<'a>)> {
        let value = self.table?.get(key)?;
        Some((value.span().start, value.get_ref()))
    }

    fn raw(&mut self, key: &'static str) -> Option<Found<Raw<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let name = self.variable_of(key);
        if let Some(text) = (self.document.sources.env)(&name) {
            return Some(Found {
                value: Raw::Variable(text),
                origin: Origin::Variable(name),
            });
        }
        let (offset, value) = self.written(key)?;
        Some(Found {
            value: Raw::File(value),
            origin: Origin::File(offset),
        })
    }

    fn elements(&mut self, key: &'static str, wanted: &str) -> Vec<(usize, &'a DeValue<'a>)> {
        self.known.push(key);
        match self.written(key) {
            None => Vec::new(),
            Some((_, DeValue::Array(array))) => array
                .iter()
                .map(|e| (e.span().start, e.get_ref()))
                .collect(),
            Some((offset, other)) => {
                self.wrong_type(key, &Origin::File(offset), wanted, other);
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
            self.wrong_type(key, &Origin::File(offset), "a table", value);
        }
        table
    }

    fn wrong_type(&self, key: &str, origin: &Origin, wanted: &str, value: &DeValue<'_>) {
        let message = format!(
            "`{}` is {}, not {wanted}",
            printable(key),
            article(value.type_str())
        );
        self.document
            .error(origin, Refusal::new(message, format!("write {wanted}")));
    }

    fn known_list(&self) -> String {
        let mut known = self.known.clone();
        known.sort_unstable();
        known.dedup();
        known.join(", ")
    }
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}
