//! The configuration file while it is read: positions of its values, and the problems so far.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::named_file::{FileKind, NamedFile};
use super::problem::{Location, Mistake, Problem, Severity, nearest};
use crate::timestamp::Timestamp;

/// The prefix of the variables that set keys.
const VARIABLE_PREFIX: &str = "COSGATE_";
/// Variables of the program, and of its build, that set no key.
const OTHER_VARIABLES: [&str; 2] = ["COSGATE_COMMIT", "COSGATE_LOG"];

/// The world outside the file.
pub struct Sources<'a> {
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The names of the environment's variables.
    pub env_names: &'a dyn Fn() -> Vec<String>,
    /// The text of a file.
    pub file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Number of cores: `threads`, when it is not written.
    pub cores: usize,
    /// The files of a folder, for `[include]`.
    pub folder: &'a dyn Fn(&Path) -> io::Result<Vec<PathBuf>>,
    /// The time, by which keys are past their end.
    pub now: Timestamp,
}

/// A text that belongs to the configuration. All of them have one range of offsets, so that an offset
/// says in which text it is.
pub(super) struct ConfigText {
    pub(super) name: String,
    pub(super) text: String,
    /// The offset of its first byte.
    pub(super) base: usize,
    /// Where each line begins: a file of thousands of tenants may have thousands of problems.
    line_starts: Vec<usize>,
}

impl ConfigText {
    /// `base` is the end of the text before it.
    pub(super) fn new(name: String, text: String, base: usize) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = [0].into_iter().chain(after).collect();
        Self {
            name,
            text,
            base,
            line_starts,
        }
    }

    /// The first offset behind it: a place at its end is still its own.
    pub(super) fn end(&self) -> usize {
        self.base + self.text.len() + 1
    }
}

/// The file being read with those that it includes, and what is wrong with it so far.
pub(super) struct ConfigFile<'a> {
    /// The file itself, then what it includes.
    texts: &'a [ConfigText],
    pub(super) sources: &'a Sources<'a>,
    named: RefCell<Vec<NamedFile>>,
    problems: RefCell<Vec<Problem>>,
    /// The environment's variables with cosgate's prefix, as long as no key has claimed them.
    unclaimed: RefCell<BTreeSet<String>>,
    /// Names that a key has, kept only while a variable is unclaimed.
    variables: RefCell<BTreeSet<String>>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// The text that has this offset.
    File(usize),
    /// This variable.
    Variable(String),
}

impl<'a> ConfigFile<'a> {
    pub(super) fn new(texts: &'a [ConfigText], sources: &'a Sources<'a>) -> Self {
        let mut unclaimed: BTreeSet<_> = (sources.env_names)().into_iter().collect();
        unclaimed.retain(|name| is_for_cosgate(name));
        Self {
            texts,
            sources,
            named: RefCell::default(),
            problems: RefCell::default(),
            unclaimed: RefCell::new(unclaimed),
            variables: RefCell::default(),
        }
    }

    /// Reports variables that set keys.
    pub(super) fn know_variables(&self, names: impl Iterator<Item = String>) {
        let mut unclaimed = self.unclaimed.borrow_mut();
        if unclaimed.is_empty() {
            return;
        }
        for name in names {
            if !unclaimed.remove(&name) {
                self.variables.borrow_mut().insert(name);
            }
        }
    }

    /// Warns of variables with cosgate's prefix that set no key. To be called when every key is known.
    pub(super) fn warn_of_unclaimed_variables(&self) {
        let variables = self.variables.borrow();
        for name in self.unclaimed.borrow().iter() {
            let known = variables.iter().map(String::as_str).chain(OTHER_VARIABLES);
            let fix = match nearest(name, known) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "unset it, or add the table that it belongs to: a variable cannot add a table, and arrays have none".to_owned(),
            };
            let message = "it sets no key of this configuration, and cosgate ignores it";
            self.warning(&Origin::Variable(name.clone()), Mistake::new(message, fix));
        }
    }

    pub(super) fn error(&self, origin: &Origin, mistake: Mistake) {
        self.report(Severity::Error, origin, mistake);
    }

    pub(super) fn warning(&self, origin: &Origin, mistake: Mistake) {
        self.report(Severity::Warning, origin, mistake);
    }

    /// A path is relative to the directory of the file that it is written in, at `offset`.
    pub(super) fn resolve(&self, offset: usize, path: &str) -> PathBuf {
        let file = self.text_of(offset);
        let directory = file.and_then(|file| Path::new(&file.name).parent());
        directory.map_or_else(|| PathBuf::from(path), |directory| directory.join(path))
    }

    /// Every problem, in the order of the files, and the files that the configuration names.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<NamedFile>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| a.location.cmp(&b.location));
        (problems, self.named.into_inner())
    }

    /// The same as [`ConfigFile::read`] of a file that is part of the configuration, or that it names.
    pub(super) fn read_named(&self, path: &Path, kind: FileKind) -> Result<String, Mistake> {
        let path = path.to_owned();
        let text = self.read(&path);
        self.named.borrow_mut().push(NamedFile { path, kind });
        text
    }

    /// The text of the file at `path`, or what to do about it.
    pub(super) fn read(&self, path: &Path) -> Result<String, Mistake> {
        (self.sources.file)(path).map_err(|error| {
            let fix = match error.kind() {
                io::ErrorKind::NotFound => {
                    "correct the path, which is relative to the configuration file's directory"
                }
                io::ErrorKind::PermissionDenied => {
                    "let the user that runs cosgate read it, with `chown` or `chmod`"
                }
                io::ErrorKind::InvalidData => "save it as UTF-8 text",
                _ => {
                    "name a readable file; a path is relative to the configuration file's directory"
                }
            };
            Mistake::new(format!("cannot read {}: {error}", path.display()), fix)
        })
    }

    /// The line of an offset in its file, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.text_of(offset).map_or(1, |file| file.line(offset))
    }

    /// The text that has `offset`.
    fn text_of(&self, offset: usize) -> Option<&'a ConfigText> {
        let after = self.texts.partition_point(|text| text.base <= offset);
        self.texts.get(after.checked_sub(1)?)
    }

    fn report(&self, severity: Severity, origin: &Origin, mistake: Mistake) {
        self.problems.borrow_mut().push(Problem {
            location: self.location(origin),
            severity,
            message: mistake.message,
            fix: mistake.fix,
        });
    }

    /// Where `origin` is, for a report.
    pub(super) fn location(&self, origin: &Origin) -> Location {
        let offset = match origin {
            Origin::Variable(name) => return Location::Variable(name.clone()),
            Origin::File(offset) => *offset,
        };
        let file = self.text_of(offset);
        let (line, column) = file.map_or((1, 1), |file| (file.line(offset), file.column(offset)));
        Location::File {
            file: file.map_or_else(String::new, |file| file.name.clone()),
            line,
            column,
        }
    }
}

impl ConfigText {
    fn line(&self, offset: usize) -> usize {
        let within = offset - self.base;
        self.line_starts.partition_point(|start| *start <= within)
    }

    fn column(&self, offset: usize) -> usize {
        let line = self.line(offset).checked_sub(1);
        let start = line.and_then(|line| self.line_starts.get(line));
        let before = start.and_then(|start| self.text.get(*start..offset - self.base));
        before.map_or(0, |before| before.chars().count()) + 1
    }
}

/// Whether a variable of this name is meant for cosgate. Kubernetes sets `COSGATE_PORT_…` and
/// `COSGATE_SERVICE_…` in every pod beside a service named `cosgate`.
fn is_for_cosgate(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let of_service = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"];
    upper.starts_with(VARIABLE_PREFIX)
        && !OTHER_VARIABLES.contains(&name)
        && !upper.ends_with("_PORT")
        && !of_service.iter().any(|part| upper.contains(part))
}
