//! The listener as a Unix socket, and the users of this machine who come by it.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use super::document::{Document, Origin, printable};
use super::grammar;
use super::problem::Refusal;
use super::section::Section;
use super::{Listen, Server};

/// Linux's `sun_path`, less the NUL at its end (unix(7)).
const PATH_BYTES: usize = 107;
/// Read and write for the user that runs cosgate alone.
const SOCKET_MODE: u32 = 0o600;
const USERS: &str = "/etc/passwd";
/// What the kernel says of a user whom this machine, or this container, has no number for
/// (`/proc/sys/kernel/overflowuid`): all of them together.
const NO_USER: u32 = 65_534;

/// `listen`: an address, or `unix:PATH`.
pub(super) fn listen(section: &mut Section<'_>) -> Option<Listen> {
    let document = section.document();
    let found = section.parsed("listen", |text| match text.strip_prefix("unix:") {
        Some(path) => socket(document, path),
        None => grammar::address(text).map(Listen::Tcp),
    });
    match found {
        Some(found) => Some(found.value),
        None => grammar::address("127.0.0.1:9000").ok().map(Listen::Tcp),
    }
}

fn socket(document: &Document<'_>, path: &str) -> Result<Listen, Refusal> {
    let resolved = document.resolve(path);
    let fits = resolved.as_os_str().len() <= PATH_BYTES;
    if path.is_empty() || path.ends_with('/') || path.contains('\0') || !fits {
        return Err(Refusal::new(
            format!("`unix:{}` is not the path of a socket", printable(path)),
            format!(
                "write \"unix:/run/cosgate/s3.sock\": a file, {PATH_BYTES} bytes with its directory"
            ),
        ));
    }
    Ok(Listen::Unix(resolved))
}

/// `socket_mode`: the rights of the socket's file.
pub(super) fn socket_mode(section: &mut Section<'_>, listen: Option<&Listen>) -> u32 {
    let Some(found) = section.parsed("socket_mode", mode) else {
        return SOCKET_MODE;
    };
    if matches!(listen, Some(Listen::Tcp(_))) {
        let message = "`socket_mode` without a socket: `listen` is an address";
        let fix = "write listen = \"unix:/run/cosgate/s3.sock\", or remove it";
        section
            .document()
            .error(&found.origin, Refusal::new(message, fix));
    }
    found.value
}

fn mode(text: &str) -> Result<u32, Refusal> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| is_octal && *mode <= 0o777 && mode & 0o600 == 0o600)
        .ok_or_else(|| {
            Refusal::new(
                format!("`{}` is not a mode for a socket", printable(text)),
                "write \"0600\" (the user that runs cosgate), \"0660\" (its group too) or \"0666\" (all)",
            )
        })
}

/// The users of `key`: each a number, or a name of `/etc/passwd`.
pub(super) fn users(section: &mut Section<'_>, key: &'static str) -> (Vec<u32>, Vec<Origin>) {
    let mut users = Vec::new();
    let mut origins = Vec::new();
    for text in section.words(key) {
        let user = user(section.document(), &text.value);
        if let Some(uid) = section.check(key, &text.origin, user) {
            users.push(uid);
            origins.push(text.origin);
        }
    }
    (users, origins)
}

/// The user of this number or name.
pub(super) fn user(document: &Document<'_>, text: &str) -> Result<u32, Refusal> {
    let uid = match text.parse::<u32>() {
        Ok(uid) if text.bytes().all(|byte| byte.is_ascii_digit()) => uid,
        _ => named(document, text)?,
    };
    if uid == NO_USER || uid == u32::MAX {
        return Err(Refusal::new(
            format!("{uid} is every user that this machine has no number for"),
            "name a user of its own",
        ));
    }
    Ok(uid)
}

/// The file alone, as it is at the start: no directory service is asked.
fn named(document: &Document<'_>, name: &str) -> Result<u32, Refusal> {
    let fix = format!("write the number that `id -u {}` tells", printable(name));
    let users = (document.sources.file)(Path::new(USERS)).map_err(|error| {
        let message = format!("cannot read {USERS}: {error}");
        Refusal::new(message, fix.clone())
    })?;
    let known = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name) && !name.is_empty();
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    known.ok_or_else(|| {
        let message = format!("there is no user `{}` in {USERS}", printable(name));
        Refusal::new(message, fix)
    })
}

/// Users who cannot come, or whom two tenants share.
pub(super) fn check_users<'r>(
    root: &Section<'_>,
    users: impl Iterator<Item = (u32, &'r Origin, &'r str)>,
    server: Option<&Server>,
) {
    let mut seen: HashMap<u32, &str> = HashMap::new();
    for (uid, origin, tenant) in users {
        if server.is_some_and(|server| matches!(server.listen, Listen::Tcp(_))) {
            let message = "`unix_users`: no user comes by a Unix socket";
            let fix = "write listen = \"unix:/run/cosgate/s3.sock\" in [server]";
            root.document().error(origin, Refusal::new(message, fix));
        }
        if let Some(first) = seen.insert(uid, tenant) {
            let message = format!(
                "the user {uid} is already the tenant `{}`",
                printable(first)
            );
            let fix = "leave them with one of the two";
            root.document().error(origin, Refusal::new(message, fix));
        }
    }
}

impl Listen {
    /// Whether only processes of this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_lets_its_owner_in_and_has_no_special_bits() {
        for (text, expected) in [
            ("0600", 0o600),
            ("660", 0o660),
            ("0666", 0o666),
            ("0777", 0o777),
        ] {
            assert_eq!(mode(text), Ok(expected));
        }
        for text in [
            "", "600x", "0400", "1600", "0888", "0x1f", "+600", "00600", "66",
        ] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
