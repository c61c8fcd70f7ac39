//! `cosgate emulator`: the embedded COS and STS alone, with faults on demand.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use cosgate::config::REGIONS;
use cosgate::emulator::{
    Emulator, EmulatorAccount, EmulatorConfig, EmulatorRole, FaultFile, Fsync,
};
use cosgate::secret::Secret;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::USAGE;
use super::certs::{ServerFiles, make_server, parse_name};
use super::process::Process;

/// The demo key pair of the emulated account. Not a secret: it opens nothing but an emulator.
const DEMO_ID: &str = "AKIDcosgateEmulator0000000000000000";
const DEMO_SECRET: &str = "cosgateEmulatorSecretKey00000000";

/// Run the embedded COS and STS alone, with faults on demand.
///
/// It checks what COS and STS check: signatures, temporary keys, tokens, policies. It is for tests and
/// development: its demo key is public, and its admin pages have no key, so listen on loopback. Ctrl-C, SIGTERM or SIGQUIT ends it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate emulator
  cosgate emulator --data ./cos-data --bucket photos-1250000000:ap-beijing
  cosgate emulator --json --path-style --cos 127.0.0.1:0 --sts 127.0.0.1:0 --admin 127.0.0.1:0
  cosgate emulator --tls")]
pub(super) struct Arguments {
    /// Where COS listens
    #[arg(long, default_value = "127.0.0.1:9100", value_name = "ADDRESS")]
    cos: SocketAddr,
    /// Where STS listens
    #[arg(long, default_value = "127.0.0.1:9101", value_name = "ADDRESS")]
    sts: SocketAddr,
    /// Where faults and counters are reachable (GET and PUT /faults, GET /counters)
    #[arg(long, default_value = "127.0.0.1:9102", value_name = "ADDRESS")]
    admin: SocketAddr,
    /// What goes wrong from the start: a file of `[[faults]]`
    #[arg(long, value_name = "FILE", value_parser = read_faults)]
    faults: Option<FaultFile>,
    /// Where objects are kept; a temporary folder without it
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// A bucket to make, with its APPID and region; may be repeated
    #[arg(long, default_value = "demo-1250000000:ap-guangzhou", value_name = "BUCKET:REGION", value_parser = parse_bucket)]
    bucket: Vec<(String, String)>,
    /// The account's APPID
    #[arg(long, default_value = "1250000000", value_name = "DIGITS")]
    appid: String,
    /// A folder whose folders become buckets, and the files in them objects, unless they are there already
    #[arg(long, value_name = "DIR")]
    seed: Option<PathBuf>,
    /// Take the bucket's name from the path under any Host, as other stores for tests do. The real COS does not
    #[arg(long)]
    path_style: bool,
    /// COS and STS use TLS, with a new certificate for their names and this machine
    #[arg(long)]
    tls: bool,
    /// One more name or address in the new certificate; may be repeated
    #[arg(long, value_name = "NAME", value_parser = parse_name, requires = "tls")]
    tls_name: Vec<String>,
    /// COS and STS use TLS, with this certificate chain (PEM)
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "tls"
    )]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// When an object is on the disk itself: a kill of the emulator loses nothing in either case
    #[arg(long, value_enum, default_value_t = Sync::Never)]
    fsync: Sync,
    /// A role of the account that can be assumed; with the external id that it requires. May be repeated
    #[arg(long, value_name = "ARN[,EXTERNAL_ID]", value_parser = parse_role)]
    role: Vec<EmulatorRole>,
    /// A file of `[[accounts]]`: further accounts with keys, roles and buckets
    #[arg(long, value_name = "FILE", value_parser = read_accounts)]
    accounts: Option<Accounts>,
    /// Print addresses, key and buckets as one line of JSON
    #[arg(long)]
    json: bool,
    /// The account's permanent key id
    #[arg(long, default_value = DEMO_ID, value_name = "ID")]
    secret_id: String,
    /// The environment variable that holds the permanent secret; a demo one without it
    #[arg(long, value_name = "NAME")]
    secret_key_env: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sync {
    /// Before it is acknowledged
    Always,
    /// When the operating system writes it
    Never,
}

/// A file of accounts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accounts {
    accounts: Vec<AccountEntry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountEntry {
    appid: String,
    keys: Vec<KeyEntry>,
    #[serde(default)]
    roles: Vec<RoleEntry>,
    #[serde(default)]
    buckets: Vec<BucketEntry>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    id: String,
    secret: String,
}

/// Without the secret.
impl std::fmt::Debug for KeyEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    arn: String,
    external_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketEntry {
    name: String,
    region: String,
}

impl Accounts {
    fn buckets(&self) -> impl Iterator<Item = (String, String)> {
        let buckets = self.accounts.iter().flat_map(|account| &account.buckets);
        buckets.map(|bucket| (bucket.name.clone(), bucket.region.clone()))
    }

    fn into_config(self) -> Vec<EmulatorAccount> {
        let accounts = self.accounts.into_iter();
        let accounts = accounts.map(|account| EmulatorAccount {
            appid: account.appid,
            keys: (account.keys.into_iter())
                .map(|key| (key.id, Secret::new(key.secret)))
                .collect(),
            roles: (account.roles.into_iter())
                .map(|role| EmulatorRole {
                    arn: role.arn,
                    external_id: role.external_id,
                    web_identity: None,
                })
                .collect(),
        });
        accounts.collect()
    }
}

/// Runs the emulator until a signal ends it.
pub(super) fn run(args: &Arguments) -> ExitCode {
    let secret = match args
        .secret_key_env
        .as_deref()
        .map(|name| (name, std::env::var(name)))
    {
        None => Secret::new(DEMO_SECRET),
        Some((_, Ok(secret))) => Secret::new(secret),
        Some((name, Err(_))) => {
            super::complain(&format_args!(
                "cosgate: error: the environment variable {name} is not set\n  help: set it, or remove --secret-key-env"
            ));
            return ExitCode::from(USAGE);
        }
    };
    let process = match Process::start() {
        Ok(process) => process,
        Err(error) => return super::cannot_start(&error),
    };
    process.run(async |mut signals, _| {
        signals.catch_ends()?;
        let cannot = |error| io::Error::other(format!("the emulator cannot start: {error}"));
        let made = args.tls.then(|| MadeTls::new(args)).transpose().map_err(cannot)?;
        let config = config(args, secret, made.as_ref());
        let emulator = Emulator::start(config).map_err(cannot)?;
        for (name, address) in reachable(&emulator) {
            tracing::warn!(%address, "other machines can reach the emulator's {name}, and can read and change all that it holds");
        }
        super::print(&welcome(args, &emulator, made.as_ref()))?;
        // Whatever ends it, the emulator and its certificate are dropped here, and their temporary folders with them.
        signals.end(super::process::ignore_hangup, || {}).await;
        Ok(())
    })
}

fn config(args: &Arguments, secret: Secret, made: Option<&MadeTls>) -> EmulatorConfig {
    let accounts = args.accounts.clone().unwrap_or_default();
    let buckets = args.bucket.iter().cloned().chain(accounts.buckets());
    let given = args.tls_cert.clone().zip(args.tls_key.clone());
    EmulatorConfig {
        data: args.data.clone(),
        cos_listen: args.cos,
        sts_listen: args.sts,
        admin_listen: Some(args.admin),
        keys: vec![(args.secret_id.clone(), secret)],
        appid: args.appid.clone(),
        buckets: buckets.collect(),
        accounts: accounts.into_config(),
        fsync: match args.fsync {
            Sync::Always => Fsync::Always,
            Sync::Never => Fsync::Never,
        },
        path_style: args.path_style,
        roles: args.role.clone(),
        seed: args.seed.clone(),
        tls: made
            .map(|made| (made.files.cert.clone(), made.files.key.clone()))
            .or(given),
        faults: args.faults.clone().unwrap_or_default().into(),
        ..EmulatorConfig::default()
    }
}

/// A certificate of this run. Its folder is removed with it.
struct MadeTls {
    files: ServerFiles,
    _folder: TempDir,
}

impl MadeTls {
    /// A wildcard stands for one label, so there is a name for each region.
    fn new(args: &Arguments) -> io::Result<Self> {
        let accounts = args.accounts.clone().unwrap_or_default();
        let buckets = args.bucket.iter().cloned().chain(accounts.buckets());
        let known = REGIONS.map(str::to_owned).into_iter();
        let regions: BTreeSet<String> = known.chain(buckets.map(|(_, region)| region)).collect();
        let of_region = |region: &String| {
            [
                format!("cos.{region}.myqcloud.com"),
                format!("*.cos.{region}.myqcloud.com"),
                format!("sts.{region}.tencentcloudapi.com"),
            ]
        };
        let mut names: Vec<String> = regions.iter().flat_map(of_region).collect();
        let others = [
            "service.cos.myqcloud.com",
            "sts.tencentcloudapi.com",
            "sts.internal.tencentcloudapi.com",
        ];
        names.extend(others.map(str::to_owned));
        names.extend(args.tls_name.iter().cloned());
        let folder = TempDir::with_prefix("cosgate-tls-")?;
        Ok(Self {
            files: make_server(folder.path(), names)?,
            _folder: folder,
        })
    }
}

impl Arguments {
    fn scheme(&self) -> &'static str {
        let is_tls = self.tls || self.tls_cert.is_some();
        if is_tls { "https" } else { "http" }
    }

    /// A secret that was given is not repeated.
    fn shown_secret(&self) -> Option<&'static str> {
        self.secret_key_env.is_none().then_some(DEMO_SECRET)
    }
}

fn welcome(args: &Arguments, emulator: &Emulator, made: Option<&MadeTls>) -> String {
    if args.json {
        return json_line(args, emulator, made);
    }
    let scheme = args.scheme();
    let mut text = format!(
        "COS    {scheme}://{}\nSTS    {scheme}://{}\n",
        emulator.cos_addr(),
        emulator.sts_addr()
    );
    // Writing to a String cannot fail.
    if let Some(made) = made {
        let _ = writeln!(text, "CA     {}", made.files.ca.display());
    }
    if let Some(admin) = emulator.admin_addr() {
        let _ = writeln!(
            text,
            "admin  http://{admin}  (GET and PUT /faults, GET /counters, GET /health, POST /reset)"
        );
    }
    let shown_secret = args.shown_secret().unwrap_or("(as given)");
    let _ = writeln!(text, "key    {} {shown_secret}", args.secret_id);
    for (name, region) in emulator.buckets() {
        let _ = writeln!(text, "bucket {name}.cos.{region}.myqcloud.com");
    }
    text
}

/// What a program that started it needs.
fn json_line(args: &Arguments, emulator: &Emulator, made: Option<&MadeTls>) -> String {
    let buckets = emulator.buckets().into_iter();
    let buckets: Vec<_> = buckets
        .map(|(name, region)| json!({"name": name, "region": region}))
        .collect();
    let scheme = args.scheme();
    let mut line = json!({
        "cos": format!("{scheme}://{}", emulator.cos_addr()),
        "sts": format!("{scheme}://{}", emulator.sts_addr()),
        "admin": emulator.admin_addr().map(|admin| format!("http://{admin}")),
        "appid": args.appid,
        "secret_id": args.secret_id,
        "secret_key": args.shown_secret(),
        "buckets": buckets,
    });
    if let (Some(made), Some(line)) = (made, line.as_object_mut()) {
        line.insert("ca_file".to_owned(), json!(made.files.ca));
        line.insert("ca".to_owned(), json!(made.files.ca_pem));
    }
    format!("{line}\n")
}

/// The listeners that not only this machine can reach. The demo key is public, and faults need no key.
fn reachable(emulator: &Emulator) -> Vec<(&'static str, SocketAddr)> {
    let listeners = [
        ("COS", Some(emulator.cos_addr())),
        ("STS", Some(emulator.sts_addr())),
        ("admin pages", emulator.admin_addr()),
    ];
    let addresses = listeners
        .into_iter()
        .filter_map(|(name, address)| Some((name, address?)));
    addresses
        .filter(|(_, address)| !address.ip().to_canonical().is_loopback())
        .collect()
}

/// A file of `[[faults]]`.
pub(super) fn read_faults(path: &str) -> Result<FaultFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    FaultFile::parse(path, &text)
}

fn read_accounts(path: &str) -> Result<Accounts, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // The error's own text repeats the line, in which a secret may be.
    toml::from_str(&text).map_err(|error| match error.span() {
        Some(span) => {
            let line = text
                .get(..span.start)
                .unwrap_or_default()
                .lines()
                .count()
                .max(1);
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_owned(),
    })
}

fn parse_role(text: &str) -> Result<EmulatorRole, String> {
    let (arn, external_id) = match text.split_once(',') {
        Some((arn, external_id)) => (arn, Some(external_id.to_owned())),
        None => (text, None),
    };
    if !arn.starts_with("qcs::cam::") {
        return Err("write it as qcs::cam::uin/100000000001:roleName/NAME".to_owned());
    }
    Ok(EmulatorRole {
        arn: arn.to_owned(),
        external_id,
        web_identity: None,
    })
}

fn parse_bucket(text: &str) -> Result<(String, String), String> {
    let (name, region) = text
        .split_once(':')
        .ok_or("write it as BUCKET-APPID:REGION")?;
    Ok((name.to_owned(), region.to_owned()))
}
