//! The listener as a Unix socket, and the local users who connect to it.

use std::collections::HashMap;
use std::path::Path;

use super::file::{ConfigFile, Origin};
use super::grammar;
use super::model::{Listen, Server};
use super::problem::{Mistake, printable};
use super::section::Section;

/// Linux's `sun_path`, less the NUL at its end (unix(7)).
const PATH_BYTES: usize = 107;
const USERS: &str = "/etc/passwd";
/// What the kernel says of a user whom this machine, or this container, has no number for
/// (`/proc/sys/kernel/overflowuid`): all of them together.
const NO_USER: u32 = 65_534;

/// `listen`: an address, or `unix:PATH`.
pub(super) fn listen(section: &Section<'_>) -> Option<Listen> {
    let found = section.parsed("listen", |text| match text.strip_prefix("unix:") {
        Some(path) => socket(section, path),
        None => grammar::address(text).map(Listen::Tcp),
    })?;
    Some(found.value)
}

fn socket(section: &Section<'_>, path: &str) -> Result<Listen, Mistake> {
    let resolved = section.resolve(path);
    let fits = resolved.as_os_str().len() <= PATH_BYTES;
    if path.is_empty() || path.ends_with('/') || path.contains('\0') || !fits {
        return Err(Mistake::new(
            format!("`unix:{}` is not the path of a socket", printable(path)),
            format!(
                "write \"unix:/run/cosgate/s3.sock\": a file, {PATH_BYTES} bytes with its directory"
            ),
        ));
    }
    Ok(Listen::Unix(resolved))
}

/// `socket_mode`: the rights of the socket's file.
pub(super) fn socket_mode(section: &Section<'_>, listen: Option<&Listen>) -> u32 {
    if let Some(origin) = section.position_of("socket_mode")
        && matches!(listen, Some(Listen::Tcp(_)))
    {
        let message = "`socket_mode` has no effect: `listen` is an address, not a Unix socket";
        let fix = "write listen = \"unix:/run/cosgate/s3.sock\", or remove socket_mode";
        section.error(&origin, message, fix);
    }
    section
        .parsed("socket_mode", mode)
        .map_or(0, |found| found.value)
}

fn mode(text: &str) -> Result<u32, Mistake> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| is_octal && *mode <= 0o777 && mode & 0o600 == 0o600)
        .ok_or_else(|| {
            Mistake::new(
                format!("`{}` is not a mode for a socket", printable(text)),
                "write \"0600\" (the user that runs cosgate), \"0660\" (its group too) or \"0666\" (all)",
            )
        })
}

/// The users of `key`: each a number, or a name of `/etc/passwd`.
pub(super) fn users(section: &Section<'_>, key: &'static str) -> (Vec<u32>, Vec<Origin>) {
    let mut users = Vec::new();
    let mut origins = Vec::new();
    for text in section.words(key) {
        let user = user(section.file(), &text.value);
        if let Some(uid) = section.check(key, &text.origin, user) {
            users.push(uid);
            origins.push(text.origin);
        }
    }
    (users, origins)
}

/// The user of this number or name.
pub(super) fn user(file: &ConfigFile<'_>, text: &str) -> Result<u32, Mistake> {
    let uid = match text.parse::<u32>() {
        Ok(uid) if text.bytes().all(|byte| byte.is_ascii_digit()) => uid,
        _ => named(file, text)?,
    };
    if uid == NO_USER || uid == u32::MAX {
        return Err(Mistake::new(
            format!("{uid} stands for every user that this machine does not know"),
            "name another user",
        ));
    }
    Ok(uid)
}

/// The file alone, as it is at the start: no directory service is queried.
fn named(file: &ConfigFile<'_>, name: &str) -> Result<u32, Mistake> {
    let fix = format!("write the number that `id -u {}` prints", printable(name));
    let users = file.read(Path::new(USERS)).map_err(|mistake| Mistake {
        fix: fix.clone(),
        ..mistake
    })?;
    let known = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name) && !name.is_empty();
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    known.ok_or_else(|| {
        let message = format!("there is no user `{}` in {USERS}", printable(name));
        Mistake::new(message, fix)
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
            let message = "`unix_users` needs a Unix socket: `listen` is an address";
            let fix = "write listen = \"unix:/run/cosgate/s3.sock\" in [server]";
            root.error(origin, message, fix);
        }
        if let Some(first) = seen.insert(uid, tenant) {
            let message = format!(
                "the tenant `{}` has the user {uid} already",
                printable(first)
            );
            let fix = "remove the user from one of the two";
            root.error(origin, message, fix);
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
