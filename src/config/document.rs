//! The file being read: where its values stand, and what is wrong with them so far.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::Sources;
use super::problem::{Place, Problem, Refusal, Severity};

/// The file being read, and what is wrong with it so far.
pub(super) struct Document<'a> {
    file_name: &'a str,
    text: &'a str,
    /// Where each line begins: a file of thousands of tenants may have thousands of problems.
    line_starts: Vec<usize>,
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
            line_starts: [0]
                .into_iter()
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
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
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = line
            .checked_sub(1)
            .and_then(|line| self.line_starts.get(line));
        let before = start.and_then(|start| self.text.get(*start..offset));
        Place::File {
            file: self.file_name.to_owned(),
            line,
            column: before.map_or(0, |before| before.chars().count()) + 1,
        }
    }
}

/// A user's word made safe for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}
