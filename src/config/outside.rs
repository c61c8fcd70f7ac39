//! Values that stand outside the file: secrets, and files that TLS will read.

use std::path::{Path, PathBuf};

use super::document::{Document, Found, Origin};
use super::problem::Refusal;
use super::section::Section;
use super::{GivenSecret, grammar};
use crate::secret::Secret;

impl Section<'_> {
    /// The secret that `key` names: `env:NAME`, `file:PATH` or, with a warning, the text itself.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Found<Secret>> {
        self.secret_and_file(key).map(|(found, _)| found)
    }

    /// The same, with the file that it came from.
    pub(super) fn secret_and_file(
        &mut self,
        key: &'static str,
    ) -> Option<(Found<Secret>, Option<PathBuf>)> {
        let text = self.text(key)?;
        let origin = text.origin;
        let (mut literal, mut file) = (false, None);
        let secret = if let Some(name) = text.value.strip_prefix("env:") {
            self.document().secret_from_variable(name)
        } else if let Some(path) = text.value.strip_prefix("file:") {
            let path = self.document().resolve(path);
            let secret = self.document().secret_from_file(&path);
            file = Some(path);
            secret
        } else {
            literal = matches!(origin, Origin::File(_));
            grammar::secret(text.value.trim())
        };
        let value = self.check(key, &origin, secret)?;
        if literal {
            let message = format!("`{key}` is a literal: whoever reads this file knows it");
            let variable = self.variable_of(key);
            let fix = format!("write {key} = \"env:NAME\" or \"file:PATH\", or set {variable}");
            self.document().warning(&origin, Refusal::new(message, fix));
        }
        Some((Found { value, origin }, file))
    }

    /// The secrets that the array `key` names.
    pub(super) fn secrets(&mut self, key: &'static str) -> Vec<Found<Secret>> {
        let mut secrets = Vec::new();
        for text in self.texts(key) {
            let secret = if let Some(name) = text.value.strip_prefix("env:") {
                self.document().secret_from_variable(name)
            } else if let Some(path) = text.value.strip_prefix("file:") {
                let document = self.document();
                document.secret_from_file(&document.resolve(path))
            } else {
                let message = format!("`{key}` has a literal: whoever reads this file knows it");
                let fix = format!("write {key} = [\"env:NAME\"] or [\"file:PATH\"]");
                self.document()
                    .warning(&text.origin, Refusal::new(message, fix));
                grammar::secret(text.value)
            };
            let value = self.check(key, &text.origin, secret);
            secrets.extend(value.map(|value| Found {
                value,
                origin: text.origin,
            }));
        }
        secrets
    }

    /// The same for a secret that must be there.
    pub(super) fn required_secret(&mut self, key: &'static str) -> Option<Found<Secret>> {
        if self.place_of(key).is_none() {
            self.missing(key, "\"env:NAME\"");
            return None;
        }
        self.secret(key)
    }

    /// A PEM file that must be readable. Only its first look is taken here: TLS reads it.
    pub(super) fn pem(&mut self, key: &'static str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let path = self.document().resolve(&text.value);
        let content = (self.document().sources.file)(&path).map(Secret::new);
        let checked = match content {
            Ok(pem) if pem.expose().contains("-----BEGIN ") => Ok(path),
            Ok(_) => Err(Refusal::new(
                format!("{} is not PEM", path.display()),
                "give a file that has a line `-----BEGIN …`",
            )),
            Err(error) => Err(Refusal::new(
                format!("cannot read {}: {error}", path.display()),
                "mend the path (it is relative to this file's directory) or the file's rights",
            )),
        };
        self.check(key, &text.origin, checked)
    }
}

impl Document<'_> {
    pub(super) fn secret_from_variable(&self, name: &str) -> Result<Secret, Refusal> {
        let word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !word {
            return Err(Refusal::new(
                "what follows `env:` is not the name of a variable",
                "write env:NAME, NAME of letters, digits and `_`",
            ));
        }
        let Some(text) = (self.sources.env)(name) else {
            let message = format!("the environment variable {name} is not set");
            return Err(Refusal::new(
                message,
                format!("set {name}, or use file:PATH"),
            ));
        };
        GivenSecret::parse(&text).map_err(|message| {
            let message = format!("in the environment variable {name}, {message}");
            Refusal::new(message, "give the secret alone, on one line")
        })
    }

    pub(super) fn secret_from_file(&self, path: &Path) -> Result<Secret, Refusal> {
        let text = (self.sources.file)(path)
            .map(Secret::new)
            .map_err(|error| {
                Refusal::new(
                    format!("cannot read {}: {error}", path.display()),
                    "mend the path (it is relative to this file's directory) or the file's rights",
                )
            })?;
        GivenSecret::parse(text.expose()).map_err(|message| {
            let message = format!("in {}, {message}", path.display());
            Refusal::new(message, "give the secret alone, on one line")
        })
    }
}
