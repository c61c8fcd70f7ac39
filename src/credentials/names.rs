//! The names of tenants in Tencent's audit log. Pure.

use sha2::{Digest as _, Sha256};

use crate::config::TENANT;

/// Letters of a federation token's `Name`.
const NAME_LETTERS: usize = 32;
/// Characters of a `RoleSessionName` (1312/48197).
const SESSION_CHARS: usize = 128;
/// Letters that distinguish what reads alike: 37 bits.
const HASH_LETTERS: usize = 8;

/// The tenant's name in the letters that `Name` may have. Other characters become letters, and then, or
/// when it is too long, letters of a hash end it, so that `team-1` and `team_1` stay apart.
pub fn audit_name(tenant: &str) -> String {
    let is_letter = |c: char| c.is_ascii_alphabetic();
    if (1..=NAME_LETTERS).contains(&tenant.len()) && tenant.chars().all(is_letter) {
        return tenant.to_owned();
    }
    let letter = |c: char| match c {
        'a'..='z' | 'A'..='Z' => c,
        '0'..='9' => char::from_u32(u32::from('A') + u32::from(c) - u32::from('0')).unwrap_or('X'),
        _ => 'X',
    };
    let max = NAME_LETTERS - HASH_LETTERS;
    let mut name: String = tenant.chars().take(max).map(letter).collect();
    push_hash(&mut name, tenant);
    name
}

/// The `RoleSessionName` for `tenant`: `pattern` with the name in it. It may have more characters than
/// [`audit_name`]; what it may not have becomes `-`, and letters of a hash end it then.
pub fn session_name(pattern: &str, tenant: &str) -> String {
    let whole = pattern.replacen(TENANT, tenant, 1);
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if (2..=SESSION_CHARS).contains(&whole.len()) && whole.chars().all(is_allowed) {
        return whole;
    }
    let max = SESSION_CHARS - HASH_LETTERS - 1;
    let kept = |c: char| if is_allowed(c) { c } else { '-' };
    let mut name: String = whole.chars().take(max).map(kept).collect();
    name.push('-');
    push_hash(&mut name, &whole);
    name
}

fn push_hash(name: &mut String, of: &str) {
    let digest = Sha256::digest(of);
    let letters = digest.iter().take(HASH_LETTERS);
    name.extend(letters.map(|byte| char::from(b'a' + byte % 26)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_short_and_unique_names() {
        assert_eq!(audit_name("acme"), "acme");
        assert!(audit_name("team-1_é").starts_with("teamXBXX"));
        let alike = ["a-b", "a_b", "aXb", "a1b", "aBb", &"x".repeat(33), ""];
        let mut names: Vec<_> = alike.iter().map(|name| audit_name(name)).collect();
        for name in &names {
            assert!((1..=32).contains(&name.len()), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphabetic()), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), alike.len());
    }

    #[test]
    fn names_a_session_after_its_tenant() {
        assert_eq!(session_name(TENANT, "team-1"), "team-1");
        assert_eq!(session_name("cosgate.{tenant}", "a"), "cosgate.a");
        assert_eq!(session_name("fixed", "a"), "fixed");
        let name = session_name(TENANT, "web/alice");
        assert!(name.starts_with("web-alice-") && name.len() == 18, "{name}");
        assert_ne!(name, session_name(TENANT, "web:alice"));
        for tenant in ["", "a", &"é".repeat(300)] {
            let name = session_name(TENANT, tenant);
            assert!((2..=128).contains(&name.len()), "{name}");
            assert!(name.is_ascii());
        }
    }
}
