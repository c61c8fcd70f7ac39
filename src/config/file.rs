//! The configuration file while it is read: positions of its values, and the problems so far.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::problem::{Location, Mistake, Problem, Severity, nearest};

/// The prefix of the variables that set keys.
const VARIABLE_PREFIX: &str = "COSGATE_";
/// Variables of the program that set no key.
const OTHER_VARIABLES: [&str; 1] = ["COSGATE_LOG"];

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
}

/// The file being read, and what is wrong with it so far.
pub(super) struct ConfigFile<'a> {
    file_name: &'a str,
    text: &'a str,
    /// Where each line begins: a file of thousands of tenants may have thousands of problems.
    line_starts: Vec<usize>,
    pub(super) sources: &'a Sources<'a>,
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
    /// This byte of the file.
    File(usize),
    /// This variable.
    Variable(String),
}

impl<'a> ConfigFile<'a> {
    pub(super) fn new(file_name: &'a str, text: &'a str, sources: &'a Sources<'a>) -> Self {
        let mut unclaimed: BTreeSet<_> = (sources.env_names)().into_iter().collect();
        unclaimed.retain(|name| is_for_cosgate(name));
        Self {
            file_name,
            text,
            line_starts: [0]
                .into_iter()
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
            sources,
            problems: RefCell::default(),
            unclaimed: RefCell::new(unclaimed),
            variables: RefCell::default(),
        }
    }

    /// Tells of variables that set keys.
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

    /// A path of the file is relative to the file's own directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        match Path::new(self.file_name).parent() {
            Some(directory) => directory.join(path),
            None => PathBuf::from(path),
        }
    }

    /// Every problem, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| a.location.cmp(&b.location));
        problems
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

    /// The line of a byte of the file, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    fn report(&self, severity: Severity, origin: &Origin, mistake: Mistake) {
        self.problems.borrow_mut().push(Problem {
            location: self.location(origin),
            severity,
            message: mistake.message,
            fix: mistake.fix,
        });
    }

    fn location(&self, origin: &Origin) -> Location {
        let offset = match origin {
            Origin::Variable(name) => return Location::Variable(name.clone()),
            Origin::File(offset) => *offset,
        };
        let line = self.line(offset);
        let start = line
            .checked_sub(1)
            .and_then(|line| self.line_starts.get(line));
        let before = start.and_then(|start| self.text.get(*start..offset));
        Location::File {
            file: self.file_name.to_owned(),
            line,
            column: before.map_or(0, |before| before.chars().count()) + 1,
        }
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
