//! Every key of the configuration, in one list: what the parser knows, which default it uses and which
//! values it allows. `docs/configuration.md` is written from it (`reference.rs`), and the JSON schema (`schema.rs`).

mod credentials;
mod issuers;
mod logs;
mod server;
mod tenants;
mod upstream;

use std::time::Duration;

use credentials::CREDENTIALS;
use issuers::ISSUER;
use logs::{LOG, TRACES};
use server::SERVER;
use tenants::{IDENTITY, TEMPLATE, TENANT};
use upstream::{STS, UPSTREAM};

pub(crate) use server::MAX_HEAD_FIELDS;

/// A table of the file.
#[derive(Debug)]
pub(super) struct ConfigTable {
    /// One or two sentences for the reference and the schema.
    pub(super) about: &'static str,
    pub(super) keys: &'static [ConfigKey],
}

/// A key of a table.
#[derive(Debug)]
pub(super) struct ConfigKey {
    pub(super) name: &'static str,
    pub(super) value: Value,
    pub(super) default: Default,
    /// What the key does, on one line.
    pub(super) meaning: &'static str,
    /// The kinds of issuer that have the key; empty: all.
    pub(super) kinds: &'static [&'static str],
}

/// What may be written for a key.
#[derive(Debug)]
pub(super) enum Value {
    /// Text, of a form that the reference names.
    Text(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`
    Flag,
    /// A duration between these two.
    Duration(Duration, Duration),
    /// A whole number between these two.
    Count(u64, u64),
    /// A number of bytes between these two.
    Size(u64, u64),
    /// A secret.
    Secret,
    /// An array of texts of this form.
    Texts(&'static str),
    /// An array of secrets.
    Secrets,
    /// A table, `[server.tls]`.
    Table(&'static ConfigTable),
    /// A table for each name, `[issuers.NAME]`.
    Named(&'static ConfigTable),
    /// An array of tables, `[[tenants.NAME.grants]]`.
    Tables(&'static ConfigTable),
}

/// What holds when a key is not written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// It must be written, for example so (as in TOML).
    Required(&'static str),
    /// Nothing.
    Absent,
    /// This, read as if it were written.
    Is(&'static str),
    /// What the parser works out, in the reference's words.
    Computed(&'static str),
}

impl Value {
    /// Whether a `COSGATE_…` variable can set it.
    pub(super) fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::Text(_)
                | Self::Choice(_)
                | Self::Flag
                | Self::Duration(..)
                | Self::Count(..)
                | Self::Size(..)
                | Self::Secret
        )
    }

    /// The table of a key that has one.
    pub(super) fn table(&self) -> Option<&'static ConfigTable> {
        match self {
            Self::Table(table) | Self::Named(table) | Self::Tables(table) => Some(table),
            _ => None,
        }
    }
}

impl ConfigTable {
    /// The key `name` of a table whose issuer is of `kind`; any issuer's where the kind is not known.
    pub(super) fn key(&self, name: &str, kind: Option<&str>) -> Option<&'static ConfigKey> {
        self.keys_of(kind).find(|key| key.name == name)
    }

    /// The keys of a table whose issuer is of `kind`.
    pub(super) fn keys_of(&self, kind: Option<&str>) -> impl Iterator<Item = &'static ConfigKey> {
        self.keys.iter().filter(move |key| {
            key.kinds.is_empty() || kind.is_none_or(|kind| key.kinds.contains(&kind))
        })
    }
}

/// The tables that have a key `name`, as they are headed in a file (`[server.limits]`).
pub(super) fn tables_with(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&ROOT, "", &mut |heading, table| {
        if !heading.is_empty() && table.keys.iter().any(|key| key.name == name) {
            found.push(heading.to_owned());
        }
    });
    found
}

/// Shows every table, from the root down, with its heading.
pub(super) fn walk(
    table: &'static ConfigTable,
    path: &str,
    show: &mut impl FnMut(&str, &'static ConfigTable),
) {
    if path.is_empty() {
        show("", table);
    }
    for key in table.keys {
        let dot = if path.is_empty() { "" } else { "." };
        let (path, heading) = match key.value {
            Value::Table(_) => {
                let path = format!("{path}{dot}{}", key.name);
                (path.clone(), format!("[{path}]"))
            }
            Value::Named(_) => {
                let path = format!("{path}{dot}{}.NAME", key.name);
                (path.clone(), format!("[{path}]"))
            }
            Value::Tables(_) => {
                let path = format!("{path}{dot}{}", key.name);
                (path.clone(), format!("[[{path}]]"))
            }
            _ => continue,
        };
        if let Some(table) = key.value.table() {
            show(&heading, table);
            walk(table, &path, show);
        }
    }
}

const KIB: u64 = 1 << 10;

const MIB: u64 = 1 << 20;

const GIB: u64 = 1 << 30;

const TIB: u64 = 1 << 40;

const MILLISECOND: Duration = Duration::from_millis(1);

const SECOND: Duration = Duration::from_secs(1);

const HOUR: Duration = Duration::from_hours(1);

const DAY: Duration = Duration::from_hours(24);

/// The kinds of issuer.
pub(super) const ASSUME_ROLE: &str = "assume-role";

pub(super) const FEDERATION: &str = "federation";

pub(super) const STATIC: &str = "static";

pub(super) const WEB_IDENTITY: &str = "web-identity";

const NAME: Value = Value::Text("name");

const PATH: Value = Value::Text("path");

const ENDPOINT: Value = Value::Text("endpoint");

const HOST_AND_PORT: Value = Value::Text("host:port");

const TIME: Value = Value::Text("time in UTC");

const REGION: Value = Value::Text("COS region");

const TIMEOUT: Value = Value::Duration(MILLISECOND, HOUR);

const fn key(
    name: &'static str,
    value: Value,
    default: Default,
    meaning: &'static str,
) -> ConfigKey {
    ConfigKey {
        name,
        value,
        default,
        meaning,
        kinds: &[],
    }
}

const fn table(name: &'static str, value: Value) -> ConfigKey {
    key(name, value, Default::Absent, "")
}

/// The file.
pub(super) static ROOT: ConfigTable = ConfigTable {
    about: "",
    keys: &[
        table("include", Value::Table(&INCLUDE)),
        table("server", Value::Table(&SERVER)),
        table("log", Value::Table(&LOG)),
        table("traces", Value::Table(&TRACES)),
        table("upstream", Value::Table(&UPSTREAM)),
        table("sts", Value::Table(&STS)),
        table("issuers", Value::Named(&ISSUER)),
        table("tenants", Value::Named(&TENANT)),
        table("identities", Value::Named(&IDENTITY)),
        table("templates", Value::Named(&TEMPLATE)),
        table("credentials", Value::Table(&CREDENTIALS)),
    ],
};

/// A file that another includes.
pub(super) static INCLUDED: ConfigTable = ConfigTable {
    about: "",
    keys: &[
        table("issuers", Value::Named(&ISSUER)),
        table("tenants", Value::Named(&TENANT)),
        table("identities", Value::Named(&IDENTITY)),
        table("templates", Value::Named(&TEMPLATE)),
    ],
};

static INCLUDE: ConfigTable = ConfigTable {
    about: "Other files that belong to this configuration: see [A file for each tenant](operations.md#a-file-for-each-tenant).",
    keys: &[key(
        "files",
        Value::Texts("path, `*` in the file name"),
        Default::Absent,
        "Files with `[issuers.*]`, `[identities.*]`, `[tenants.*]` and `[templates.*]`, at most 20 000. Paths in them are relative to their own directory.",
    )],
};
