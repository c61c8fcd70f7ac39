//! `cosgate check`: is this configuration good?

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use clap::Args;
use cosgate::config::{Config, Problem, Sources};
use cosgate::downstream::tls;
use cosgate::upstream::dial::Roots;

use super::{USAGE, cores};

/// Check a configuration file and print every problem with its line.
///
/// Exit status: 0 if the file can be used (warnings included), 2 if not.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate check --config config/example.toml
  cosgate check -c /etc/cosgate.toml && systemctl restart cosgate")]
pub(super) struct Arguments {
    /// The TOML file to check; its secrets must be there too.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match load(&arguments.config) {
        Some(config) => {
            let path = arguments.config.display();
            super::printed(&format!("{path}: ok: {}\n", summary(&config)))
        }
        None => ExitCode::from(USAGE),
    }
}

/// Reads a configuration from the file system and the environment. Problems, warnings included, go
/// to standard error; `None` when it cannot be used.
pub(super) fn load(path: &Path) -> Option<Config> {
    load_telling(path, &|problem| super::complain(&problem))
}

/// The same, where `tell` gets the problems.
pub(super) fn load_telling(path: &Path, tell: &dyn Fn(&dyn Display)) -> Option<Config> {
    let text = read(path, tell)?;
    let (config, warnings) = parse(path, &text, &|name| env::var(name).ok(), tell)?;
    tell_all(&warnings, tell);
    let unusable = unusable_certificates(&config);
    for (key, error) in &unusable {
        tell(&format_args!("{}: error: {key}: {error}", path.display()));
    }
    unusable.is_empty().then_some(config)
}

/// The same for a command that contacts nobody: what the file takes from the environment as a secret
/// need not be there, certificates are not looked into, and warnings are left to `check`.
pub(super) fn load_without_secrets(path: &Path) -> Option<Config> {
    let tell = |problem: &dyn Display| super::complain(&problem);
    let text = read(path, &tell)?;
    let named = |name: &str| {
        text.contains(&format!("\"env:{name}\"")) || text.contains(&format!("'env:{name}'"))
    };
    let env = |name: &str| {
        let set = env::var(name).ok();
        set.or_else(|| named(name).then(|| "not-set".to_owned()))
    };
    parse(path, &text, &env, &tell).map(|(config, _)| config)
}

fn read(path: &Path, tell: &dyn Fn(&dyn Display)) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            tell(&format_args!(
                "{}: error: cannot read the configuration: {error}\n  help: give an existing TOML file with --config",
                path.display()
            ));
            None
        }
    }
}

fn parse(
    path: &Path,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    tell: &dyn Fn(&dyn Display),
) -> Option<(Config, Vec<Problem>)> {
    let sources = Sources {
        env,
        file: &|path| read_file(path),
        cores: cores(),
    };
    match Config::parse(&path.to_string_lossy(), text, &sources) {
        Ok(read) => Some(read),
        Err(problems) => {
            tell_all(&problems, tell);
            None
        }
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// What the parser, which knows no TLS, cannot judge: PEM files that are there but do not serve. Each
/// with the key that names it.
fn unusable_certificates(config: &Config) -> Vec<(&'static str, String)> {
    let mut unusable = Vec::new();
    if let Err(error) = tls::acceptor(&config.server) {
        unusable.push(("[server.tls]", error.to_string()));
    }
    for (key, file) in [
        ("[upstream] ca_file", &config.upstream.ca_file),
        ("[sts] ca_file", &config.sts.ca_file),
    ] {
        if let Some(Err(error)) = file.as_deref().map(|file| Roots::load(Some(file))) {
            unusable.push((key, error.to_string()));
        }
    }
    unusable
}

fn tell_all(problems: &[Problem], tell: &dyn Fn(&dyn Display)) {
    for problem in problems {
        tell(problem);
    }
}

fn summary(config: &Config) -> String {
    let grants = config
        .tenants
        .iter()
        .map(|tenant| tenant.grants.len())
        .sum();
    let keys = config
        .tenants
        .iter()
        .map(|tenant| tenant.access_keys.len())
        .sum();
    let by_token = if config.identities.is_empty() {
        String::new()
    } else {
        let identities = format!(
            ", {} of tokens",
            counted(config.identities.len(), "identity provider")
        );
        identities + ", " + &counted(config.templates.len(), "template")
    };
    format!(
        "{}, {}, {}, {}{by_token}; listens on {}",
        counted(config.issuers.len(), "issuer"),
        counted(config.tenants.len(), "tenant"),
        counted(keys, "access key"),
        counted(grants, "grant"),
        config.server.listen,
    )
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
