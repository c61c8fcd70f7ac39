//! `cosgate credentials`: one scoped temporary key, for another tool.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cosgate::config::{Config, nearest};
use cosgate::credentials::shapes::{Shape, render};
use cosgate::credentials::{Cache, Clock, Credential};
use cosgate::server::wall_clock;
use cosgate::tenant::Tenants;
use cosgate::tenant::policy::tenant_policy;

use super::{USAGE, check};

/// Tenants that an error message lists.
const LISTED: usize = 10;

/// Print a temporary key that can do what one tenant may, and no more.
///
/// The key goes to standard output and nowhere else. Exit status: 0 with a key, 1 if STS gave none,
/// 2 if the configuration or the tenant's name is wrong.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate credentials --config /etc/cosgate.toml --tenant acme
  eval \"$(cosgate credentials -c /etc/cosgate.toml -t acme --format env)\"

For AWS tools, in ~/.aws/config:
  credential_process = cosgate credentials -c /etc/cosgate.toml -t acme --format aws-process")]
pub(super) struct Arguments {
    /// The TOML file that names the tenant
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The tenant whose key it is
    #[arg(long, short, value_name = "NAME")]
    tenant: String,
    /// How the key is written
    #[arg(long, short, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// What AWS tools read from a `credential_process`
    AwsProcess,
    /// As STS itself answers
    Cos,
    /// Lines for a shell, for Tencent's tools and AWS's
    Env,
    /// As the COS STS SDKs give it
    Json,
}

impl From<Format> for Shape {
    fn from(format: Format) -> Self {
        match format {
            Format::AwsProcess => Self::AwsProcess,
            Format::Cos => Self::Cos,
            Format::Env => Self::Env,
            Format::Json => Self::Json,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    super::guard_memory();
    let Some(config) = check::load(&arguments.config) else {
        return ExitCode::from(USAGE);
    };
    let found = config
        .tenants
        .iter()
        .position(|tenant| tenant.name == arguments.tenant);
    let Some(tenant) = found else {
        eprintln!("{}", unknown_tenant(&arguments.tenant, &config));
        return ExitCode::from(USAGE);
    };
    let printed = fetch(&config, tenant).and_then(|credential| {
        let text = render(
            arguments.format.into(),
            &credential,
            duration(&config, tenant),
        );
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "cosgate: error: no key for tenant `{}`: {error}",
                arguments.tenant
            );
            ExitCode::FAILURE
        }
    }
}

/// A key for the tenant of this index, just as `serve` would get it.
fn fetch(config: &Config, tenant: usize) -> io::Result<Arc<Credential>> {
    let policies = Tenants::new(config)
        .tenants()
        .iter()
        .map(|tenant| tenant_policy(tenant).json())
        .collect();
    let clock = Arc::new(Clock::new(wall_clock));
    let cache = Cache::start(config, policies, &clock).map_err(io::Error::other)?;
    let entry = cache
        .entry(tenant)
        .ok_or_else(|| io::Error::other("it has no issuer"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(entry.get()).map_err(io::Error::other)
}

/// For how long STS is asked for a key; a permanent key has no end.
fn duration(config: &Config, tenant: usize) -> Duration {
    let tenant = config.tenants.get(tenant);
    tenant
        .and_then(|tenant| config.issuers.get(tenant.issuer))
        .and_then(|issuer| issuer.kind.duration())
        .unwrap_or_default()
}

/// What is said of a tenant that is not there.
pub(super) fn unknown_tenant(name: &str, config: &Config) -> String {
    let names = || config.tenants.iter().map(|tenant| tenant.name.as_str());
    let help = match nearest(name, names()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if config.tenants.is_empty() => "the configuration has none".to_owned(),
        None => {
            let listed: Vec<_> = names().take(LISTED).collect();
            let more = if config.tenants.len() > LISTED {
                ", …"
            } else {
                ""
            };
            format!("it has {}{more}", listed.join(", "))
        }
    };
    format!(
        "cosgate: error: the configuration has no tenant `{}`\n  help: {help}",
        name.escape_debug()
    )
}
