//! Tencent's profile file: `~/.tencentcloud/credentials`, as its SDKs read it.

use super::grammar;
use crate::secret::Secret;

/// The keys of one profile.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// `secret_id`
    pub secret_id: String,
    /// `secret_key`
    pub secret_key: Secret,
    /// `token`, which Tencent's Node SDK reads: the key is a temporary one.
    pub token: Option<Secret>,
}

impl Profile {
    /// The profile `[name]` of the file's `text`. The error quotes no value.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, String> {
        let mut found = false;
        let mut inside = false;
        let [mut secret_id, mut secret_key, mut token] = [None, None, None];
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                inside = header.trim() == name;
                found |= inside;
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else {
                continue;
            };
            match key.trim() {
                "secret_id" => secret_id = Some(value.trim()),
                "secret_key" => secret_key = Some(value.trim()),
                "token" => token = Some(value.trim()),
                _ => {}
            }
        }
        if !found {
            return Err(format!("there is no profile [{}]", name.escape_debug()));
        }
        let read = |key: &str, value: &str| {
            grammar::secret(value).map_err(|mistake| format!("`{key}`: {}", mistake.message))
        };
        let needed = |key: &str, value: Option<&str>| match value {
            Some(value) => read(key, value),
            None => Err(format!(
                "the profile [{}] has no `{key}`",
                name.escape_debug()
            )),
        };
        Ok(Self {
            secret_id: needed("secret_id", secret_id)?.expose().to_owned(),
            secret_key: needed("secret_key", secret_key)?,
            token: token
                .filter(|token| !token.is_empty())
                .map(|token| read("token", token))
                .transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[default]\nsecret_id = AKID1\r\nsecret_key=KEY1=\n\n[ci]\nsecret_id = AKID2\nsecret_key = KEY2\ntoken = TOKEN\n[half]\nsecret_id = AKID3\n";

    #[test]
    fn each_profile_has_its_own_keys() {
        let profile = Profile::parse(TEXT, "default").unwrap();
        assert_eq!(
            (profile.secret_id.as_str(), profile.secret_key.expose()),
            ("AKID1", "KEY1=")
        );
        assert!(profile.token.is_none());
        let token = Profile::parse(TEXT, "ci").unwrap().token;
        assert!(token.is_some_and(|token| token.expose() == "TOKEN"));
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_quoted() {
        for (name, text) in [
            ("half", "has no `secret_key`"),
            ("other", "no profile [other]"),
        ] {
            assert!(Profile::parse(TEXT, name).unwrap_err().contains(text));
        }
        let error = Profile::parse("[a]\nsecret_id = CANARY x\nsecret_key = y", "a").unwrap_err();
        assert!(!error.contains("CANARY"), "{error}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
        #[test]
        fn no_file_panics(text: String, name: String) {
            let _ = Profile::parse(&text, &name);
        }
    }
}
