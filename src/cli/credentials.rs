//! `cosgate credentials`: one scoped temporary key, for another tool.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cosgate::clock::Clock;
use cosgate::clock::wall_clock;
use cosgate::config::cam::{Policy, PolicyError};
use cosgate::config::{Config, nearest, parse_duration};
use cosgate::credentials::shapes::{NamedBucket, Shape, render};
use cosgate::credentials::{
    AssumedRole, Cache, Credential, GetCredentialError, Host, NoKey, Options, Scope, get_credential,
};
use cosgate::secret::Secret;
use cosgate::tenant::Tenants;
use cosgate::tenant::policy::tenant_policy;
use cosgate::upstream::dial::HttpProxy;

use super::{USAGE, check, print};

/// Tenants that an error message lists.
const LISTED: usize = 10;

/// Print a temporary key that can do what one tenant may, or what the options say, and no more.
///
/// Without a configuration, the key of `TENCENTCLOUD_SECRET_ID` and `TENCENTCLOUD_SECRET_KEY` requests
/// it, as getCredential of Tencent's COS STS SDKs does. The key goes to standard output and nowhere else. Exit status: 0 with a key, 1 if STS gave none,
/// 2 if the configuration, the tenant's name or an option is wrong.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate credentials --config /etc/cosgate.toml --tenant acme
  eval \"$(cosgate credentials -c /etc/cosgate.toml -t acme --format env)\"
  cosgate credentials --bucket photos-1250000000 --region ap-guangzhou \\
    --allow-prefix 'uploads/*' --allow-action name/cos:PutObject --duration 30m
  cosgate credentials --policy policy.json --role qcs::cam::uin/100000000001:roleName/uploads

For AWS tools, in ~/.aws/config:
  credential_process = cosgate credentials -c /etc/cosgate.toml -t acme --format aws-process")]
pub(super) struct Arguments {
    /// The TOML file that names the tenant
    #[arg(
        long,
        short,
        value_name = "FILE",
        requires = "tenant",
        conflicts_with = "KeyRequest"
    )]
    config: Option<PathBuf>,
    /// The tenant whose key it is
    #[arg(long, short, value_name = "NAME", requires = "config")]
    tenant: Option<String>,
    #[command(flatten)]
    requested: KeyRequest,
    /// How the key is written
    #[arg(long, short, value_enum, default_value_t = CredentialFormat::Json)]
    format: CredentialFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CredentialFormat {
    /// What AWS tools read from a `credential_process`
    AwsProcess,
    /// The configuration of coscli (~/.cos.yaml)
    Cos,
    /// The configuration of coscmd (~/.cos.conf)
    Coscmd,
    /// Lines for a shell, for Tencent's tools and AWS's
    Env,
    /// As the COS STS SDKs give it
    Json,
    /// As STS itself responds
    Raw,
}

impl From<CredentialFormat> for Shape {
    fn from(format: CredentialFormat) -> Self {
        match format {
            CredentialFormat::AwsProcess => Self::AwsProcess,
            CredentialFormat::Cos => Self::Cos,
            CredentialFormat::Coscmd => Self::Coscmd,
            CredentialFormat::Env => Self::Env,
            CredentialFormat::Json => Self::Json,
            CredentialFormat::Raw => Self::Raw,
        }
    }
}

/// A key without a configuration.
#[derive(Args, Debug)]
#[group(id = "KeyRequest", multiple = true)]
struct KeyRequest {
    /// The bucket, APPID included
    #[arg(long, value_name = "BUCKET")]
    bucket: Option<String>,
    /// Its region, which STS gets too
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Keys that it may touch: `*`, `a*`, `a/*` or one key; may be repeated
    #[arg(long = "allow-prefix", value_name = "PREFIX")]
    allow_prefixes: Vec<String>,
    /// What it may do, such as name/cos:PutObject; may be repeated
    #[arg(long = "allow-action", value_name = "ACTION")]
    allow_actions: Vec<String>,
    /// A CAM policy, conditions included, in place of prefixes and actions
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow_prefixes", "allow_actions"])]
    policy: Option<PathBuf>,
    /// How long it lives, as 1800 or 30m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// The key of this role (`AssumeRole`)
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    /// The role's session, which Tencent's audit shows
    #[arg(
        long,
        value_name = "NAME",
        requires = "role",
        default_value = "cosgate"
    )]
    session_name: String,
    /// The external ID that the role's trust policy requires
    #[arg(long, value_name = "ID", requires = "role")]
    external_id: Option<String>,
    /// Where STS is: sts.tencentcloudapi.com, the internal domain or a gateway
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// PEM roots in place of the platform's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// An HTTP proxy: http://[user:password@]host:port
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    super::process::guard_memory();
    match (&arguments.config, &arguments.tenant) {
        (Some(config), Some(tenant)) => of_tenant(config, tenant, arguments.format),
        _ => of_options(&arguments.requested, arguments.format),
    }
}

fn of_options(requested: &KeyRequest, format: CredentialFormat) -> ExitCode {
    let options = match options(requested) {
        Ok(options) => options,
        Err(error) => {
            super::complain(&format_args!("cosgate: error: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let buckets: Vec<_> = requested.named_bucket().into_iter().collect();
    let printed = fetch_one(&options)
        .and_then(|key| print(&render(format.into(), &key, options.duration, &buckets)));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format_args!("cosgate: error: no key: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn options(requested: &KeyRequest) -> Result<Options, String> {
    let variable = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            format!("{name} is not set\n  help: set it to a permanent key's, or use --config and --tenant")
        })
    };
    let secret_id = variable("TENCENTCLOUD_SECRET_ID")?;
    let secret_key = Secret::new(variable("TENCENTCLOUD_SECRET_KEY")?);
    let mut options = Options::new(secret_id, secret_key, requested.policy()?);
    if let Some(region) = &requested.region {
        options.region.clone_from(region);
    }
    if let Some(host) = &requested.host {
        options.host = Host::parse(host).map_err(|error| format!("--host: {error}"))?;
    }
    if let Some(proxy) = &requested.proxy {
        let help = "--proxy is not a proxy\n  help: write http://[user:password@]host:port";
        options.proxy = Some(HttpProxy::parse(proxy).map_err(|_| help.to_owned())?);
    }
    options.ca_file.clone_from(&requested.ca_file);
    options.duration = requested.duration.unwrap_or(options.duration);
    options.role = requested.role.as_ref().map(|arn| AssumedRole {
        arn: arn.clone(),
        session: requested.session_name.clone(),
        external_id: requested.external_id.clone(),
    });
    Ok(options)
}

impl KeyRequest {
    fn policy(&self) -> Result<Policy, String> {
        let described = |error: &PolicyError| format!("{}\n  help: {}", error.message, error.fix);
        if let Some(path) = &self.policy {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let policy = Policy::parse(&text).map_err(|error| described(&error))?;
            let checked = match &self.bucket {
                Some(bucket) => policy.check_account(bucket),
                None => policy.check_accounts(),
            };
            checked.map_err(|error| described(&error))?;
            for doubt in policy.too_wide() {
                super::complain(&format_args!("cosgate: warning: {}", described(&doubt)));
            }
            return Ok(policy);
        }
        let (Some(bucket), Some(region)) = (&self.bucket, &self.region) else {
            let help = "write --bucket, --region, --allow-prefix and --allow-action, or --policy FILE, or --config and --tenant";
            return Err(format!("the key has no scope\n  help: {help}"));
        };
        let scope = Scope {
            bucket: bucket.clone(),
            region: region.clone(),
            allow_prefixes: self.allow_prefixes.clone(),
            allow_actions: self.allow_actions.clone(),
            condition: [].into(),
        };
        scope.policy().map_err(|error| described(&error))
    }

    fn named_bucket(&self) -> Option<NamedBucket> {
        let (bucket, region) = (self.bucket.clone()?, self.region.clone()?);
        Some(NamedBucket {
            alias: bucket.clone(),
            bucket,
            region,
        })
    }
}

fn fetch_one(options: &Options) -> io::Result<Credential> {
    let key = super::process::block_on(get_credential(options))?;
    key.map_err(|error| {
        let passes =
            matches!(&error, GetCredentialError::Sts(error) if !error.class.is_permanent());
        no_key(&error, passes)
    })
}

/// The error, and what can be done about one that may pass: nothing is tried again here.
fn no_key(error: &impl fmt::Display, passes: bool) -> io::Error {
    let help = if passes {
        "\n  help: run the command again"
    } else {
        ""
    };
    io::Error::other(format!("{error}{help}"))
}

fn of_tenant(path: &Path, name: &str, format: CredentialFormat) -> ExitCode {
    let Some(config) = check::load(path) else {
        return ExitCode::from(USAGE);
    };
    let found = config.tenants.iter().position(|tenant| tenant.name == name);
    let Some(tenant) = found else {
        super::complain(&unknown_tenant(name, &config));
        return ExitCode::from(USAGE);
    };
    let printed = fetch(&config, tenant).and_then(|credential| {
        let grants = config.tenants.get(tenant).map(|tenant| &tenant.grants);
        let buckets: Vec<_> = (grants.into_iter().flatten())
            .map(|grant| NamedBucket {
                alias: grant.name.clone(),
                bucket: grant.bucket.clone(),
                region: grant.region.clone(),
            })
            .collect();
        let duration = duration(&config, tenant);
        print(&render(format.into(), &credential, duration, &buckets))
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format_args!(
                "cosgate: error: no key for tenant `{name}`: {error}"
            ));
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
    let key = super::process::block_on(entry.get())?;
    key.map_err(|error| no_key(&error, error.reason != NoKey::Refused))
}

/// The life that a key is requested with; a permanent key has no end.
fn duration(config: &Config, tenant: usize) -> Duration {
    let tenant = config.tenants.get(tenant);
    tenant
        .and_then(|tenant| config.issuers.get(tenant.issuer))
        .and_then(|issuer| issuer.kind.duration())
        .unwrap_or_default()
}

/// What is known of a tenant that is not there.
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
