//! Values that stand outside the file: secrets, and files that TLS will read.

use std::path::{Path, PathBuf};

use super::file::{ConfigFile, Located, Origin};
use super::given_secret::{GivenSecret, SecretSource};
use super::grammar;

use super::named_file::FileKind;
use super::problem::{Mistake, nearest};
use super::section::Section;
use crate::secret::Secret;

impl Section<'_> {
    /// The secret that `key` names: `env:NAME`, `file:PATH` or, with a warning, the text itself.
    pub(super) fn secret(&self, key: &'static str) -> Option<Located<GivenSecret>> {
        let text = self.text(key)?;
        let origin = text.origin;
        let mut value = self.check(key, &origin, self.given_secret(&text.value))?;
        match &origin {
            Origin::File(_) if value.source == SecretSource::Literal => {
                let message = format!(
                    "`{key}` is written in this file: everybody who can read the file knows it"
                );
                let variable = self.variable_of(key);
                let fix = format!("write {key} = \"env:NAME\" or \"file:PATH\", or set {variable}");
                self.warning(&origin, message, fix);
            }
            Origin::Variable(name) if value.source == SecretSource::Literal => {
                value.source = SecretSource::Variable(name.clone());
            }
            _ => {}
        }
        Some(Located { value, origin })
    }

    /// The secrets that the array `key` names.
    pub(super) fn secrets(&self, key: &'static str) -> Vec<Located<GivenSecret>> {
        let mut secrets = Vec::new();
        for Located { value, origin } in self.texts(key) {
            let Some(value) = self.check(key, &origin, self.given_secret(value)) else {
                continue;
            };
            if value.source == SecretSource::Literal {
                let message = format!(
                    "`{key}` has a secret that is written in this file: everybody who can read the file knows it"
                );
                let fix = format!("write {key} = [\"env:NAME\"] or [\"file:PATH\"]");
                self.warning(&origin, message, fix);
            }
            secrets.push(Located { value, origin });
        }
        secrets
    }

    /// The same for a secret that must be there.
    pub(super) fn required_secret(&self, key: &'static str) -> Option<Located<GivenSecret>> {
        if self.position_of(key).is_none() {
            self.missing(key);
            return None;
        }
        self.secret(key)
    }

    /// A PEM file that must be readable. TLS reads it later; here it is only read once, so that mistakes are found.
    pub(super) fn pem(&self, key: &'static str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let path = self.resolve(&text.value);
        let content = self.file().read_named(&path, FileKind::Certificate);
        let content = content.map(Secret::new);
        let checked = content.and_then(|pem| {
            if pem.expose().contains("-----BEGIN ") {
                return Ok(path.clone());
            }
            Err(Mistake::new(
                format!("{} is not a PEM file", path.display()),
                "name a file that has a line `-----BEGIN …`",
            ))
        });
        self.check(key, &text.origin, checked)
    }

    fn given_secret(&self, text: &str) -> Result<GivenSecret, Mistake> {
        let (value, source) = if let Some(name) = text.strip_prefix("env:") {
            let value = self.file().secret_from_variable(name)?;
            (value, SecretSource::Variable(name.to_owned()))
        } else if let Some(path) = text.strip_prefix("file:") {
            let path = self.resolve(path);
            (
                self.file().secret_from_file(&path)?,
                SecretSource::File(path),
            )
        } else {
            refuse_placeholder(text.trim())?;
            (grammar::secret(text.trim())?, SecretSource::Literal)
        };
        Ok(GivenSecret { value, source })
    }
}

impl ConfigFile<'_> {
    fn secret_from_variable(&self, name: &str) -> Result<Secret, Mistake> {
        if !is_variable(name) {
            return Err(Mistake::new(
                "what follows `env:` is not the name of a variable",
                "write env:NAME, where NAME has letters, digits and `_` alone",
            ));
        }
        let Some(text) = (self.sources.env)(name) else {
            let names = (self.sources.env_names)();
            let fix = match nearest(name, names.iter().map(String::as_str)) {
                Some(meant) => format!("set {name}; did you mean {meant}, which is set?"),
                None => format!("set {name}, or use file:PATH"),
            };
            let message = format!("the environment variable {name} is not set");
            return Err(Mistake::new(message, fix));
        };
        GivenSecret::parse(&text).map_err(|message| {
            let message = format!("in the environment variable {name}, {message}");
            Mistake::new(message, "set it to the secret alone, on one line")
        })
    }

    fn secret_from_file(&self, path: &Path) -> Result<Secret, Mistake> {
        let text = self.read_named(path, FileKind::Secret).map(Secret::new)?;
        GivenSecret::parse(text.expose()).map_err(|message| {
            let message = format!("in {}, {message}", path.display());
            Mistake::new(message, "write the secret alone, on one line")
        })
    }
}

/// Refuses what other programs replace by a variable's value, and what stands in examples. A name of a
/// variable is quoted only if it is one by its form, since all else may be a secret.
fn refuse_placeholder(text: &str) -> Result<(), Mistake> {
    let between = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
    let name = between("${", "}")
        .or_else(|| between("$(", ")"))
        .or_else(|| between("{{", "}}"))
        .or_else(|| between("%", "%"))
        .or_else(|| text.strip_prefix("$").filter(|name| is_capitals(name)))
        .or_else(|| {
            let (scheme, name) = text.split_once(':')?;
            scheme.eq_ignore_ascii_case("env").then_some(name)
        });
    if let Some(name) = name {
        let name = name.trim().trim_start_matches(['.', '$']);
        let name = name.strip_prefix("env:").unwrap_or(name);
        let name = if is_capitals(name) { name } else { "NAME" };
        return Err(Mistake::new(
            "cosgate expands no variables in values",
            format!("write \"env:{name}\" for the value of the environment variable {name}"),
        ));
    }
    if between("<", ">").is_some() {
        return Err(Mistake::new(
            "this is a placeholder, not a secret",
            "write \"env:NAME\" or \"file:PATH\"",
        ));
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_capitals(name: &str) -> bool {
    is_variable(name) && !name.bytes().any(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_variable_of_a_shell_style_secret() {
        for text in [
            "${ACME_SECRET}",
            "$ACME_SECRET",
            "$(ACME_SECRET)",
            "{{ .ACME_SECRET }}",
            "%ACME_SECRET%",
            "ENV:ACME_SECRET",
            "${env:ACME_SECRET}",
        ] {
            let mistake = refuse_placeholder(text).unwrap_err();
            assert!(
                mistake.fix.contains("\"env:ACME_SECRET\""),
                "{text}: {}",
                mistake.fix
            );
        }
        assert!(refuse_placeholder("<your-secret>").is_err());
    }

    #[test]
    fn takes_secrets_and_never_quotes_one() {
        for text in ["a$B", "$ecret-value", "a{{b}}", "100%", "abc"] {
            assert!(refuse_placeholder(text).is_ok(), "{text}");
        }
        let mistake = refuse_placeholder("${canary-value}").unwrap_err();
        assert!(!format!("{mistake:?}").contains("canary"), "{mistake:?}");
    }
}
