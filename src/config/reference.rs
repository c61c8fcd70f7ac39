//! `docs/configuration.md`, written from `keys/`, and the tests that hold the parser to that list.
//!
//! `COSGATE_WRITE_DOCS=1 cargo test --lib reference` writes the page anew.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io, ptr};

use super::actions::PRESETS;
use super::file::Sources;
use super::grammar::{spell, spell_size};
use super::keys::{ConfigKey, ConfigTable, Default, ROOT, Value, walk};
use super::model::Config;
use super::problem::Problem;
use crate::timestamp::Timestamp;

const INTRODUCTION: &str = r#"# Configuration reference

<!-- Written from src/config/keys/: change its files, then run COSGATE_WRITE_DOCS=1 cargo test --lib reference -->

cosgate reads one TOML file. `cosgate check --config FILE` prints every problem of it with file, line, column and
fix, and ends with status 2 if there is an error. A key that is not on this page is an error.
The [configuration guide](configuration-guide.md) explains how the parts work together.

## How values are written

| value | form |
|---|---|
| address | IP address and port: `"127.0.0.1:9000"`, `"[::1]:9000"`, `"0.0.0.0:9000"` |
| duration | numbers with the units `h`, `m`, `s`, `ms`, largest first: `"30s"`, `"1h30m"` |
| endpoint | `https://HOST[:PORT][/PATH]` or `http://…` |
| name | letters, digits, `-`, `_` and `.`, at most 64 |
| network | `"10.0.0.0/8"`, `"2001:db8::/32"` or one address |
| percentage | `"100%"`, `"2.5%"`, at most four decimals |
| path | absolute, or relative to the directory of the configuration file |
| secret | `"env:NAME"` (that environment variable), `"file:PATH"` (that file) or the secret itself, which gives a warning. cosgate removes white space around it |
| size | a number of bytes, or `"16KiB"`, `"2MiB"`, `"1GiB"` |
| time in UTC | `"2026-01-31T12:00:00Z"` |

## Environment variables

Each key with a single value has an environment variable, which overrides the file. Its name is `COSGATE_`, then the
path of the key in capitals, with `_` between the parts and for every character that is not a letter or digit.
Elements of an array have their number, from 0: `COSGATE_TENANTS_ACME_EU_ACCESS_KEYS_0_SECRET` is the first secret of
`[tenants.acme-eu]`. A variable can set a key that the file leaves out. It cannot add a table, and arrays have no
variable. cosgate warns of a variable that begins with `COSGATE_` and sets no key.

`COSGATE_LOG` is no key: it filters the program log on standard error (`info` by default, `warn` or `debug`).
"#;

/// The page.
fn render() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut seen: Vec<(&ConfigTable, String)> = Vec::new();
    walk(&ROOT, "", &mut |heading, table| {
        if heading.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## `{heading}`\n\n");
        if let Some((_, first)) = seen.iter().find(|(seen, _)| ptr::eq(*seen, table)) {
            let _ = writeln!(text, "The keys of `{first}`.");
            return;
        }
        seen.push((table, heading.to_owned()));
        let _ = write!(
            text,
            "{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
            table.about
        );
        for key in table.keys.iter().filter(|key| key.value.table().is_none()) {
            let _ = writeln!(text, "{}", row(heading, key));
        }
    });
    text.push_str("\n## Presets\n\nWhat the words in a grant's `actions` stand for.\n\n| preset | COS actions |\n|---|---|\n");
    for (preset, actions) in PRESETS {
        let _ = writeln!(text, "| `{preset}` | {} |", actions.join(", "));
    }
    text
}

fn row(heading: &str, key: &ConfigKey) -> String {
    let variable = if key.value.is_scalar() {
        let path = numbered(heading).to_ascii_uppercase().replace('.', "_");
        format!("<br>`COSGATE_{path}_{}`", key.name.to_ascii_uppercase())
    } else {
        String::new()
    };
    let kinds = match key.kinds {
        [] => String::new(),
        kinds => format!("*{}:* ", kinds.join(", ")),
    };
    format!(
        "| `{}`{variable} | {} | {} | {kinds}{} |",
        key.name,
        allowed(&key.value),
        default(key),
        key.meaning
    )
}

/// The path of the table under `heading`, with a number behind each array of tables.
fn numbered(heading: &str) -> String {
    let mut path = Vec::new();
    let mut table = &ROOT;
    for name in heading.trim_matches(['[', ']']).split('.') {
        path.push(name);
        let Some(key) = table.key(name, None) else {
            continue; // NAME
        };
        if matches!(key.value, Value::Tables(_)) {
            path.push("0");
        }
        table = key.value.table().unwrap_or(table);
    }
    path.join(".")
}

fn allowed(value: &Value) -> String {
    match value {
        Value::Text(form) => (*form).to_owned(),
        Value::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(", ")
        }
        Value::Flag => "`true`, `false`".to_owned(),
        Value::Duration(min, max) => format!("duration, {} to {}", spell(*min), spell(*max)),
        Value::Count(min, max) => format!("{min} to {max}"),
        Value::Size(min, max) => format!("size, {} to {}", spell_size(*min), spell_size(*max)),
        Value::Secret => "secret".to_owned(),
        Value::Texts(form) => format!("array: {form}"),
        Value::Secrets => "array: secret".to_owned(),
        Value::Table(_) | Value::Named(_) | Value::Tables(_) => String::new(),
    }
}

fn default(key: &ConfigKey) -> String {
    match key.default {
        Default::Required(_) => "required".to_owned(),
        Default::Absent => "none".to_owned(),
        Default::Computed(words) => words.to_owned(),
        Default::Is(_) => format!("`{}`", written(key)),
    }
}

/// The default as a file has it.
fn written(key: &ConfigKey) -> String {
    let Default::Is(text) = key.default else {
        return String::new();
    };
    match key.value {
        Value::Flag | Value::Count(..) => text.to_owned(),
        Value::Texts(_) => format!("[\"{text}\"]"),
        _ => format!("\"{text}\""),
    }
}

/// Each table of the file once, issuers once for each kind, with what it needs: heading in the
/// configuration, heading in the list, and keys.
const TABLES: [(&str, &str, &str); 33] = [
    ("[server]", "[server]", ""),
    (
        "[server.tls]",
        "[server.tls]",
        "cert = \"/pem\"\nkey = \"/pem\"\nclient_ca = \"/pem\"",
    ),
    ("[server.limits]", "[server.limits]", ""),
    ("[upstream]", "[upstream]", ""),
    ("[upstream.limits]", "[upstream.limits]", ""),
    ("[sts]", "[sts]", ""),
    ("[sts.limits]", "[sts.limits]", ""),
    (
        "[issuers.federation]",
        "[issuers.NAME]",
        "kind = \"federation\"\nsecret_id = \"env:A\"\nsecret_key = \"env:A\"",
    ),
    (
        "[issuers.assume-role]",
        "[issuers.NAME]",
        "kind = \"assume-role\"\ncvm_role = \"a\"\nrole_arn = \"qcs::cam::uin/1:roleName/a\"",
    ),
    (
        "[[issuers.assume-role.tags]]",
        "[[issuers.NAME.tags]]",
        "key = \"a\"\nvalue = \"b\"",
    ),
    (
        "[issuers.web-identity]",
        "[issuers.NAME]",
        "kind = \"web-identity\"\nprovider_id = \"a\"\nrole_arn = \"qcs::cam::uin/1:roleName/a\"\ntoken_file = \"/pem\"",
    ),
    (
        "[issuers.static]",
        "[issuers.NAME]",
        "kind = \"static\"\nsecret_id = \"env:A\"\nsecret_key = \"env:A\"",
    ),
    (
        "[tenants.a]",
        "[tenants.NAME]",
        "issuer = \"federation\"\nvend = true",
    ),
    (
        "[[tenants.a.access_keys]]",
        "[[tenants.NAME.access_keys]]",
        "id = \"AAAA\"\nsecret = \"env:A\"",
    ),
    (
        "[[tenants.a.revoked_sessions]]",
        "[[tenants.NAME.revoked_sessions]]",
        "subject = \"a\"\nbefore = \"2026-01-31T12:00:00Z\"",
    ),
    (
        "[[tenants.a.grants]]",
        "[[tenants.NAME.grants]]",
        "name = \"photos\"\nbucket = \"photos-1\"\nregion = \"ap-guangzhou\"\nprefixes = [\"a/*\"]\nactions = [\"read\"]",
    ),
    (
        "[[tenants.a.grants.cors]]",
        "[[tenants.NAME.grants.cors]]",
        "origins = [\"https://a.example\"]\nmethods = [\"GET\"]",
    ),
    (
        "[tenants.a.limits]",
        "[tenants.NAME.limits]",
        "requests_per_second = 1",
    ),
    (
        "[tenants.b]",
        "[tenants.NAME]",
        "issuer = \"static\"\nanonymous = true",
    ),
    (
        "[[tenants.b.grants]]",
        "[[tenants.NAME.grants]]",
        "name = \"photos\"\nbucket = \"photos-1\"\nregion = \"ap-guangzhou\"\nroot = \"b/\"\nactions = [\"read\"]",
    ),
    (
        "[identities.a]",
        "[identities.NAME]",
        "issuer = \"a\"\naudience = \"a\"\njwks = \"https://a.example/\"\ntenant_claim = \"a\"",
    ),
    (
        "[templates.a]",
        "[templates.NAME]",
        "issuer = \"assume-role\"\nidentity = \"a\"\nvend = true",
    ),
    (
        "[[templates.a.grants]]",
        "[[templates.NAME.grants]]",
        "name = \"photos\"\nbucket = \"photos-1\"\nregion = \"ap-guangzhou\"\nroot = \"c/{claim.sub}/\"\nactions = [\"read\"]",
    ),
    (
        "[[templates.a.grants.cors]]",
        "[[templates.NAME.grants.cors]]",
        "origins = [\"https://a.example\"]\nmethods = [\"GET\"]",
    ),
    (
        "[[templates.a.revoked_sessions]]",
        "[[templates.NAME.revoked_sessions]]",
        "subject = \"a\"\nbefore = \"2026-01-31T12:00:00Z\"",
    ),
    (
        "[templates.a.limits]",
        "[templates.NAME.limits]",
        "requests_per_second = 1",
    ),
    ("[include]", "[include]", ""),
    ("[log]", "[log]", ""),
    ("[traces]", "[traces]", ""),
    ("[credentials]", "[credentials]", ""),
    (
        "[credentials.shared]",
        "[credentials.shared]",
        "redis = \"env:REDIS\"\nkey = \"env:A\"",
    ),
    (
        "[tenants.c]",
        "[tenants.NAME]",
        "issuer = \"web-identity\"\naccess_keys = [{ id = \"CCCC\", secret = \"env:A\" }]",
    ),
    (
        "[[tenants.c.grants]]",
        "[[tenants.NAME.grants]]",
        "name = \"photos\"\nbucket = \"photos-1\"\nregion = \"ap-guangzhou\"\nroot = \"d/\"\nactions = [\"read\"]",
    ),
];

/// The configuration of [`TABLES`], where `more` may add to each table, of which it gets the headings, the
/// kind of issuer, and what is there.
fn whole(mut more: impl FnMut(&str, &str, &str) -> String) -> String {
    let mut text = String::new();
    for (heading, listed, keys) in TABLES {
        let _ = write!(text, "{heading}\n{}\n", more(heading, listed, keys));
    }
    text
}

fn kind_of(heading: &str) -> Option<&str> {
    heading.strip_prefix("[issuers.")?.strip_suffix(']')
}

/// The keys that the table at `listed` may have.
fn keys_of(listed: &str, heading: &str) -> Vec<&'static ConfigKey> {
    let mut keys = Vec::new();
    walk(&ROOT, "", &mut |path, table| {
        if path == listed {
            keys.extend(table.keys_of(kind_of(heading)));
        }
    });
    keys
}

fn has(keys: &str, key: &str) -> bool {
    keys.lines()
        .any(|line| line.starts_with(&format!("{key} = ")))
}

fn parse(text: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let sources = Sources {
        env: &|name| match name {
            "A" => Some("a-secret-of-more-than-32-characters".to_owned()),
            "REDIS" => Some("redis://a".to_owned()),
            _ => None,
        },
        env_names: &Vec::new,
        file: &|path| match path.to_str() {
            Some("/pem") => Ok("-----BEGIN CERTIFICATE-----".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
        cores: 4,
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    Config::parse("config.toml", text, &sources)
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn the_reference_has_what_the_list_has() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if env::var_os("COSGATE_WRITE_DOCS").is_some() {
        fs::write(&path, render()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == render(),
        "docs/configuration.md is out of date: run COSGATE_WRITE_DOCS=1 cargo test --lib reference"
    );
}

#[test]
fn every_table_is_tested() {
    walk(&ROOT, "", &mut |path, _| {
        let is_tested = TABLES.iter().any(|(_, listed, _)| *listed == path);
        assert!(path.is_empty() || is_tested, "{path}");
    });
}

#[test]
fn the_defaults_of_the_list_are_those_that_are_used() {
    let short = whole(|_, _, keys| keys.to_owned());
    let long = whole(|heading, listed, keys| {
        let mut text = keys.to_owned();
        for key in keys_of(listed, heading) {
            // These are errors without a socket and without `vend`; tests/pure/config.rs has their defaults.
            let is_error =
                key.name == "socket_mode" || key.name == "vend_duration" && !has(keys, "vend");
            let is_default = matches!(key.default, Default::Is(_)) && !is_error;
            if is_default && !has(keys, key.name) {
                let _ = write!(text, "\n{} = {}", key.name, written(key));
            }
        }
        text
    });
    assert!(long.lines().count() > short.lines().count() + 50, "{long}");
    let parse = |text: &str| {
        parse(text)
            .unwrap_or_else(|problems| panic!("{text}\n{}", lines(&problems)))
            .0
    };
    assert_eq!(
        format!("{:#?}", parse(&short)),
        format!("{:#?}", parse(&long))
    );
}

#[test]
fn the_parser_reads_every_key_of_the_list() {
    for (heading, listed, _) in TABLES {
        for key in keys_of(listed, heading) {
            let is_table = matches!(key.value, Value::Table(_) | Value::Tables(_));
            if is_table {
                continue; // the tables have tests of their own
            }
            // No key may be a date.
            let text = whole(|other, _, keys| {
                if other != heading {
                    return keys.to_owned();
                }
                let start = format!("{} = ", key.name);
                let kept: Vec<_> = keys
                    .lines()
                    .filter(|line| !line.starts_with(&start))
                    .collect();
                format!("{start}1979-05-27\n{}", kept.join("\n"))
            });
            let problems = match parse(&text) {
                Ok((_, warnings)) => warnings,
                Err(problems) => problems,
            };
            let wanted = format!("`{}`", key.name);
            let is_named = problems
                .iter()
                .any(|problem| problem.message.contains(&wanted));
            assert!(is_named, "{heading} {}:\n{}", key.name, lines(&problems));
            assert!(
                !lines(&problems).contains("unknown key"),
                "{}",
                lines(&problems)
            );
        }
    }
}

#[test]
fn the_parser_takes_every_word_that_a_key_allows_and_no_other() {
    for (heading, listed, _) in TABLES {
        for key in keys_of(listed, heading) {
            let (Value::Choice(words), true) = (&key.value, key.name != "kind") else {
                continue;
            };
            let with = |word: &str| {
                whole(|other, _, keys| {
                    if other == heading {
                        format!("{} = \"{word}\"\n{keys}", key.name)
                    } else {
                        keys.to_owned()
                    }
                })
            };
            for word in *words {
                let read = parse(&with(word));
                assert!(read.is_ok(), "{word}: {}", lines(&read.unwrap_err()));
            }
            let errors = lines(&parse(&with("other")).unwrap_err());
            for word in *words {
                assert!(errors.contains(&format!("\"{word}\"")), "{word}: {errors}");
            }
        }
    }
}

/// The keys of `shown`, and of the tables in it, are those of `table`, and nothing with a default is missing.
fn check_shown(name: &str, shown: &serde_json::Value, table: &'static ConfigTable) {
    let Some(keys) = shown.as_object() else {
        panic!("{name}: {shown}");
    };
    let kind = keys.get("kind").and_then(serde_json::Value::as_str);
    for (key, value) in keys {
        let Some(known) = table.key(key, kind) else {
            panic!("{name} has no key {key}");
        };
        match (known.value.table(), value) {
            (Some(table), serde_json::Value::Array(tables)) => {
                for shown in tables {
                    check_shown(&format!("{name}.{key}"), shown, table);
                }
            }
            (Some(table), shown) => check_shown(&format!("{name}.{key}"), shown, table),
            (None, _) => {}
        }
    }
    for key in table.keys_of(kind) {
        // A key that belongs to another one is shown with it; the last has no effect any more.
        let is_elsewhere = ["vend_duration", "metadata_endpoint", "refresh", "shared"];
        let is_shown = keys.contains_key(key.name) || is_elsewhere.contains(&key.name);
        let has_default =
            matches!(key.default, Default::Is(_)) && key.name != "list_default_prefix";
        assert!(is_shown || !has_default, "{name} lacks {}", key.name);
    }
}

#[test]
fn the_configuration_is_shown_by_the_keys_of_the_list_and_without_a_secret() {
    let (config, _) = parse(&whole(|_, _, keys| keys.to_owned())).unwrap();
    let mut tables = Vec::new();
    walk(&ROOT, "", &mut |heading, table| {
        tables.push((heading.to_owned(), table));
    });
    let mut seen = Vec::new();
    for shown in config.shown_tables() {
        let heading = match shown.name.split_once('.') {
            Some((of @ ("identities" | "issuers" | "templates" | "tenants"), _)) => {
                format!("[{of}.NAME]")
            }
            _ => format!("[{}]", shown.name),
        };
        let keys = shown.keys();
        let text = serde_json::to_string(&keys).unwrap();
        for secret in ["a-secret-of-more", "redis://"] {
            assert!(!text.contains(secret), "{text}");
        }
        if heading != "[include]" {
            let (_, table) = tables.iter().find(|(known, _)| *known == heading).unwrap();
            check_shown(&heading, &keys.into(), table);
        }
        seen.push(heading);
    }
    for (heading, _) in tables {
        let is_whole = !heading.is_empty() && !heading.starts_with("[[");
        let is_nested = heading.ends_with(".NAME.limits]");
        assert!(
            !is_whole || is_nested || seen.contains(&heading),
            "{heading} is not shown"
        );
    }
}
