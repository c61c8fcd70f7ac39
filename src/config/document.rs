//! The file being read: where its values stand, and what is wrong with them so far.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::Sources;
use super::problem::{Place, Problem, Refusal, Severity};

/// The file being read, and what is wrong with it so far.
pub(super) struct Document<'a> {
    file_name: &'a str,
    text: &'a str,
    pub(super) sources: &'a Sources<'a>,
    problems: RefCell<Vec<Problem>>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
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

impl<'a> Document<'a> {
    pub(super) fn new(file_name: &'a str, text: &'a str, sources: &'a Sources<'a>) -> Self {
        Self {
            file_name,
            text,
            sources,
            problems: RefCell::default(),
        }
    }

    pub(super) fn error(&self, origin: &Origin, refusal: Refusal) {
        self.report(Severity::Error, origin, refusal);
    }

    pub(super) fn warning(&self, origin: &Origin, refusal: Refusal) {
        self.report(Severity::Warning, origin, refusal);
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
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        problems
    }

    fn report(&self, severity: Severity, origin: &Origin, refusal: Refusal) {
        self.problems.borrow_mut().push(Problem {
            place: self.place(origin),
            severity,
            message: refusal.message,
            fix: refusal.fix,
        });
    }

    fn place(&self, origin: &Origin) -> Place {
        let offset = match origin {
            Origin::Variable(name) => return Place::Variable(name.clone()),
            Origin::File(offset) => *offset,
        };
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            file: self.file_name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before
                .get(line_start..)
                .map_or(0, |line| line.chars().count())
                + 1,
        }
    }
}

/// A user's word made safe for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}
