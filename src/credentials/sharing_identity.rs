//! Identity of an issuer among cosgates that share keys: an explicit, versioned encoding.
//!
//! Two issuers have the same identity only if their keys can do the same. It is not a secret, and has
//! none in it. Each field is written as `name=LENGTH:value`, so that no two issuers can be written alike.
//! A change of the encoding needs another [`VERSION`]: cosgates of two versions then share no keys, and
//! each calls STS for its own.

use std::fmt::Write as _;

use super::key_files::read_profile;
use crate::config::{BaseKey, Config, Issuer, IssuerKind, KeyCommand, Role, WebIdentity};

/// The version of the encoding.
const VERSION: &str = "cosgate issuer 1";

/// What distinguishes `issuer` from every other one whose keys may do other things: the STS endpoint, the call,
/// and who signs it. It leaves out secrets, and what changes no key, as the rate of calls.
pub(super) fn sharing_identity(issuer: &Issuer, config: &Config) -> Result<String, String> {
    let mut fields = Fields(format!("{VERSION}\n"));
    fields.put("endpoint", &config.sts.endpoint.authority);
    let Issuer {
        name,
        kind,
        rate: _,
    } = issuer;
    fields.put("name", name);
    match kind {
        IssuerKind::AssumeRole { base, role } => {
            fields.put("kind", "assume-role");
            fields.put_role(role);
            fields.put_base(base, config)?;
        }
        IssuerKind::Federation { base, duration } => {
            fields.put("kind", "federation");
            fields.put_seconds(*duration);
            fields.put_base(base, config)?;
        }
        IssuerKind::Static(_) => return Err("its key is not shared".to_owned()),
        IssuerKind::WebIdentity(web) => {
            fields.put("kind", "web-identity");
            fields.put_web_identity(web);
        }
    }
    Ok(fields.0)
}

/// The encoding so far.
struct Fields(String);

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "{name}={}:{value}", value.len()); // into a String: cannot fail
    }

    fn put_all<'v>(&mut self, name: &str, values: impl IntoIterator<Item = &'v String>) {
        for value in values {
            self.put(name, value);
        }
    }

    fn put_seconds(&mut self, duration: std::time::Duration) {
        self.put("seconds", &duration.as_secs().to_string());
    }

    fn put_role(&mut self, role: &Role) {
        let Role {
            arn,
            session_name,
            external_id,
            tags,
            source_identity,
            duration,
        } = role;
        self.put("role_arn", arn);
        self.put("session_name", session_name);
        self.put_all("external_id", external_id);
        let mut tags: Vec<_> = tags.iter().collect();
        tags.sort(); // their order means nothing
        for (key, value) in tags {
            self.put("tag_key", key);
            self.put("tag_value", value);
        }
        self.put_all("source_identity", source_identity);
        self.put_seconds(*duration);
    }

    fn put_web_identity(&mut self, web: &WebIdentity) {
        let WebIdentity {
            provider_id,
            token_file,
            role_arn,
            session_name,
            duration,
        } = web;
        self.put("provider_id", provider_id);
        self.put("token_file", &token_file.to_string_lossy());
        self.put("role_arn", role_arn);
        self.put("session_name", session_name);
        self.put_seconds(*duration);
    }

    /// Who signs the calls.
    fn put_base(&mut self, base: &BaseKey, config: &Config) -> Result<(), String> {
        match base {
            BaseKey::Command(KeyCommand { words, env }) => {
                self.put_all("command", words);
                self.put_all("command_env", env);
            }
            BaseKey::CvmRole { name, endpoint } => {
                self.put("cvm_role", name);
                self.put("metadata", &endpoint.authority);
                self.put("metadata_path", &endpoint.path);
            }
            BaseKey::Given(key) => self.put("secret_id", key.secret_id.value.expose()),
            BaseKey::Issuer(index) => {
                let base = config.issuers.get(*index).ok_or("base makes no keys")?;
                self.put("base", &sharing_identity(base, config)?);
            }
            // On another machine a file of the same name may hold another account's key.
            BaseKey::Profile { name, file } => {
                self.put("secret_id", &read_profile(name, file)?.secret_id);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::timestamp::Timestamp;

    const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:9000"

[issuers.main]
kind = "federation"
secret_id = "AKIDMAIN"
secret_key = "main-secret-0123456789"
duration = "1h"

[issuers.pod]
kind = "web-identity"
provider_id = "OIDC"
token_file = "/var/run/token"
role_arn = "qcs::cam::uin/100000000001:roleName/pod"
session_name = "pod"

[issuers.chain]
kind = "assume-role"
base = "pod"
role_arn = "qcs::cam::uin/100000000001:roleName/tenant"
external_id = "ext"
source_identity = "src"
tags = [{ key = "zone", value = "b" }, { key = "area", value = "a" }]
duration = "30m"

[issuers.machine]
kind = "assume-role"
cvm_role = "cosgate"
metadata_endpoint = "http://metadata.tencentyun.com"
role_arn = "qcs::cam::uin/100000000001:roleName/tenant"

[issuers.printed]
kind = "assume-role"
command = ["/usr/bin/key", "--now"]
role_arn = "qcs::cam::uin/100000000001:roleName/tenant"

[tenants.acme]
issuer = "main"
access_keys = [{ id = "ACMEKEY0000000000001", secret = "acme-secret-0123456789" }]

[[tenants.acme.grants]]
name = "photos"
bucket = "examplebucket-1250000000"
region = "ap-guangzhou"
prefixes = ["acme/*"]
actions = ["read"]
"#;

    fn config(text: &str) -> Config {
        let sources = Sources {
            env: &|_| None,
            env_names: &Vec::new,
            file: &|path| std::fs::read_to_string(path),
            cores: 1,
            folder: &|_| Ok(Vec::new()),
            now: Timestamp::default(),
        };
        let parsed = Config::parse("c.toml", text, &sources);
        parsed.unwrap_or_else(|problems| panic!("{problems:?}")).0
    }

    fn identity(config: &Config, name: &str) -> String {
        let mut issuers = config.issuers.iter();
        let issuer = issuers.find(|issuer| issuer.name == name).unwrap();
        sharing_identity(issuer, config).unwrap()
    }

    /// Cosgates of all versions with this `VERSION` must write these: else they would share no keys, or
    /// keys that do other things. Another encoding needs another version.
    #[test]
    fn writes_each_kind_as_in_version_1() {
        let config = config(CONFIG);
        let expected = "cosgate issuer 1\n\
            endpoint=23:sts.tencentcloudapi.com\n\
            name=4:main\n\
            kind=10:federation\n\
            seconds=4:3600\n\
            secret_id=8:AKIDMAIN\n";
        assert_eq!(identity(&config, "main"), expected);
        let pod = "cosgate issuer 1\n\
            endpoint=23:sts.tencentcloudapi.com\n\
            name=3:pod\n\
            kind=12:web-identity\n\
            provider_id=4:OIDC\n\
            token_file=14:/var/run/token\n\
            role_arn=39:qcs::cam::uin/100000000001:roleName/pod\n\
            session_name=3:pod\n\
            seconds=4:7200\n";
        assert_eq!(identity(&config, "pod"), pod);
        let role = "kind=11:assume-role\n\
            role_arn=42:qcs::cam::uin/100000000001:roleName/tenant\n\
            session_name=8:{tenant}\n";
        let chain = format!(
            "cosgate issuer 1\n\
            endpoint=23:sts.tencentcloudapi.com\n\
            name=5:chain\n\
            {role}\
            external_id=3:ext\n\
            tag_key=4:area\n\
            tag_value=1:a\n\
            tag_key=4:zone\n\
            tag_value=1:b\n\
            source_identity=3:src\n\
            seconds=4:1800\n\
            base={}:{pod}\n",
            pod.len()
        );
        assert_eq!(identity(&config, "chain"), chain);
        let machine = format!(
            "cosgate issuer 1\n\
            endpoint=23:sts.tencentcloudapi.com\n\
            name=7:machine\n\
            {role}\
            seconds=4:7200\n\
            cvm_role=7:cosgate\n\
            metadata=23:metadata.tencentyun.com\n\
            metadata_path=0:\n"
        );
        assert_eq!(identity(&config, "machine"), machine);
        let printed = identity(&config, "printed");
        let words = "command=12:/usr/bin/key\ncommand=5:--now\ncommand_env=4:HOME\n";
        assert!(printed.contains(words), "{printed}");
    }

    #[test]
    fn differs_where_keys_may_do_other_things_and_has_no_secret() {
        let base = config(CONFIG);
        for (from, to, is_same) in [
            ("main-secret-0123456789", "other-secret-0123456789", true),
            (
                "duration = \"1h\"",
                "duration = \"1h\"\ncalls_per_second = 7",
                true,
            ),
            ("AKIDMAIN", "AKIDOTHER", false),
            ("duration = \"1h\"", "duration = \"2h\"", false),
            ("issuers.main", "issuers.other", false),
            (
                "[issuers.main]",
                "[sts]\nendpoint = \"https://sts.example.com\"\n[issuers.main]",
                false,
            ),
        ] {
            let changed = CONFIG.replace(from, to).replace(
                "issuer = \"main\"",
                match to {
                    "issuers.other" => "issuer = \"other\"",
                    _ => "issuer = \"main\"",
                },
            );
            let name = if to == "issuers.other" {
                "other"
            } else {
                "main"
            };
            let changed = identity(&config(&changed), name);
            assert_eq!(identity(&base, "main") == changed, is_same, "{to}");
            assert!(!changed.contains("secret-0"), "{changed}");
        }
    }

    #[test]
    fn takes_the_id_of_a_profile_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        let text = "[default]\nsecret_id = AKIDPROFILE\nsecret_key = profile-secret-0123456789\n";
        std::fs::write(&file, text).unwrap();
        let given = "secret_id = \"AKIDMAIN\"\nsecret_key = \"main-secret-0123456789\"";
        let profile = format!(
            "profile = \"default\"\nprofile_file = \"{}\"",
            file.display()
        );
        let config = config(&CONFIG.replace(given, &profile));
        let identity = identity(&config, "main");
        assert!(
            identity.ends_with("secret_id=11:AKIDPROFILE\n"),
            "{identity}"
        );
    }
}
