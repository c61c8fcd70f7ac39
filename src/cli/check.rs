//! `cosgate check`: validates a configuration.

use std::cell::RefCell;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use clap::Args;
use cosgate::clock::wall_clock;
use cosgate::config::{Config, Problem, Sources};
use cosgate::downstream::tls;
use cosgate::upstream::dial::Roots;

use super::{USAGE, cores};

/// Check a configuration file and print every problem with its line.
///
/// Exit status: 0 if the file can be used (warnings included), 2 if not. With `--diff` it prints the
/// differences of two files: names of tenants, grants and keys, and never a secret.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate check --config config/example.toml
  cosgate check -c /etc/cosgate.toml && systemctl reload cosgate
  cosgate check --diff /etc/cosgate.toml new.toml")]
pub(super) struct Arguments {
    /// The TOML file to check; its secrets must be there too.
    #[arg(long, short, value_name = "FILE", required_unless_present = "diff")]
    config: Option<PathBuf>,
    /// Print what changes from one file to another: `+` is new, `-` is gone, `~` differs.
    #[arg(long, value_names = ["OLD", "NEW"], num_args = 2, conflicts_with = "config")]
    diff: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let text = match (&arguments.config, arguments.diff.as_slice()) {
        (Some(path), _) => {
            load(path).map(|config| format!("{}: ok: {}\n", path.display(), summary(&config)))
        }
        (None, [old, new]) => load(old)
            .zip(load(new))
            .map(|(old, new)| difference(&old, new)),
        (None, _) => None,
    };
    match text {
        Some(text) => super::printed(&text),
        None => ExitCode::from(USAGE),
    }
}

/// What `new` changes, and what of that waits for a restart.
fn difference(old: &Config, mut new: Config) -> String {
    let mut text = lines(&old.changes_to(&new));
    if text.is_empty() {
        text.push_str("no change\n");
    }
    let fixed = new.keep_fixed(old);
    if !fixed.is_empty() {
        text.push_str("needs a restart: ");
        text += &fixed.join(", ");
        text.push('\n');
    }
    text
}

fn lines(all: &[String]) -> String {
    all.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// Reads a configuration from the file system and the environment. Problems, warnings included, go
/// to standard error; `None` when it cannot be used.
pub(super) fn load(path: &Path) -> Option<Config> {
    load_from(path, &Disk::REAL, &|problem| super::complain(&problem))
}

/// Where files and variables are read.
pub(super) struct Disk<'a> {
    /// The text of a file.
    pub(super) file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// The files of a folder.
    pub(super) folder: &'a dyn Fn(&Path) -> io::Result<Vec<PathBuf>>,
    /// The value of an environment variable.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

impl Disk<'_> {
    pub(super) const REAL: Self = Disk {
        file: &read_file,
        folder: &files_of,
        env: &|name| env::var(name).ok(),
    };
}

/// The same, where `disk` has the files and `tell` gets the problems.
pub(super) fn load_from(
    path: &Path,
    disk: &Disk<'_>,
    tell: &dyn Fn(&dyn Display),
) -> Option<Config> {
    let text = read(path, disk, tell)?;
    let (config, warnings) = parse(path, &text, disk, tell)?;
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
    let texts = RefCell::new(Vec::new());
    let file = |path: &Path| {
        let text = read_file(path)?;
        texts.borrow_mut().push(text.clone());
        Ok(text)
    };
    let named = |name: &str| {
        let written = [format!("\"env:{name}\""), format!("'env:{name}'")];
        let texts = texts.borrow();
        texts
            .iter()
            .any(|text| written.iter().any(|written| text.contains(written)))
    };
    let env = |name: &str| {
        let set = env::var(name).ok();
        set.or_else(|| named(name).then(|| "not-set".to_owned()))
    };
    let disk = Disk {
        file: &file,
        env: &env,
        ..Disk::REAL
    };
    let text = read(path, &disk, &tell)?;
    parse(path, &text, &disk, &tell).map(|(config, _)| config)
}

fn read(path: &Path, disk: &Disk<'_>, tell: &dyn Fn(&dyn Display)) -> Option<String> {
    let error = match (disk.file)(path) {
        Ok(text) => return Some(text),
        Err(error) => error,
    };
    let fix = match error.kind() {
        io::ErrorKind::NotFound => "name an existing TOML file with --config",
        io::ErrorKind::PermissionDenied => {
            "let this user read it (`chown`, or `chmod` for its group), or run cosgate as the file's owner"
        }
        io::ErrorKind::IsADirectory => "name a file in it with --config",
        io::ErrorKind::InvalidData => "save it as UTF-8 text",
        _ => "name a readable TOML file with --config",
    };
    tell(&format_args!(
        "{}: error: cannot read the configuration: {error}\n  help: {fix}",
        path.display()
    ));
    None
}

fn parse(
    path: &Path,
    text: &str,
    disk: &Disk<'_>,
    tell: &dyn Fn(&dyn Display),
) -> Option<(Config, Vec<Problem>)> {
    let sources = Sources {
        env: disk.env,
        file: disk.file,
        env_names: &env_names,
        cores: cores(),
        folder: disk.folder,
        now: wall_clock(),
    };
    match Config::parse(&path.to_string_lossy(), text, &sources) {
        Ok(read) => Some(read),
        Err(problems) => {
            tell_all(&problems, tell);
            None
        }
    }
}

/// The files of a folder; `""` is the present one.
pub(super) fn files_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_here = folder.as_os_str().is_empty();
    let entries = fs::read_dir(if is_here { Path::new(".") } else { folder })?;
    let paths = entries.map(|entry| entry.map(|entry| folder.join(entry.file_name())));
    let paths: Vec<_> = paths.collect::<io::Result<_>>()?;
    Ok(paths.into_iter().filter(|path| !path.is_dir()).collect())
}

fn env_names() -> Vec<String> {
    let names = env::vars_os().map(|(name, _)| name.into_string());
    names.flatten().collect()
}

/// A file's text. Where it may not be read, the error says who may.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            io::Error::new(error.kind(), format!("{error}; {}", who_may_read(path)))
        }
        _ => error,
    })
}

/// The user that cosgate runs as, and the owner and mode of the file or of the first folder on the way to it
/// that keeps it out.
fn who_may_read(path: &Path) -> String {
    let user = rustix::process::geteuid();
    let found = path
        .ancestors()
        .find_map(|path| Some((path, fs::metadata(path).ok()?)));
    let user = format!("cosgate runs as uid {}", user.as_raw());
    match found {
        Some((shown, metadata)) => format!(
            "{user}, and {} belongs to uid {} and gid {} with mode {:04o}",
            shown.display(),
            metadata.uid(),
            metadata.gid(),
            metadata.mode() & 0o7777
        ),
        None => user,
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_who_may_read_a_file_and_who_tries() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let text = who_may_read(&file);
        assert!(
            text.contains(&format!(
                "cosgate runs as uid {uid}, and {}",
                file.display()
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!("belongs to uid {uid} and")),
            "{text}"
        );
        assert!(text.ends_with("with mode 0600"), "{text}");
        // A folder that keeps cosgate out hides the file.
        let hidden = folder.path().join("none/config.toml");
        assert!(who_may_read(&hidden).contains(&folder.path().display().to_string()));
    }
}
