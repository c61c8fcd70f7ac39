//! `cosgate emulator`: the embedded COS and STS alone, with faults on demand.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cosgate::emulator::{Emulator, EmulatorConfig, FaultFile};
use cosgate::secret::Secret;

use super::USAGE;
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
  cosgate emulator --data ./cos-data --bucket photos-1250000000:ap-beijing")]
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
    /// The account's permanent key id
    #[arg(long, default_value = DEMO_ID, value_name = "ID")]
    secret_id: String,
    /// The environment variable that holds the permanent secret; a demo one without it
    #[arg(long, value_name = "NAME")]
    secret_key_env: Option<String>,
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
    let shown_secret = if args.secret_key_env.is_some() {
        "(as given)"
    } else {
        DEMO_SECRET
    };
    let config = EmulatorConfig {
        data: args.data.clone(),
        cos_listen: args.cos,
        sts_listen: args.sts,
        admin_listen: Some(args.admin),
        keys: vec![(args.secret_id.clone(), secret)],
        appid: args.appid.clone(),
        buckets: args.bucket.clone(),
        faults: args.faults.clone().unwrap_or_default().into(),
        ..EmulatorConfig::default()
    };
    let process = match Process::start() {
        Ok(process) => process,
        Err(error) => return super::cannot_start(&error),
    };
    process.run(async |mut signals, _| {
        signals.catch_ends()?;
        let emulator = Emulator::start(config)
            .map_err(|error| io::Error::other(format!("the emulator cannot start: {error}")))?;
        for (name, address) in reachable(&emulator) {
            tracing::warn!(%address, "other machines can reach the emulator's {name}, and can read and change all that it holds");
        }
        super::print(&welcome(args, &emulator, shown_secret))?;
        // Whatever ends it, the emulator is dropped here, and its temporary folder with it.
        signals.end(super::process::ignore_hangup).await;
        Ok(())
    })
}

fn welcome(args: &Arguments, emulator: &Emulator, shown_secret: &str) -> String {
    let mut text = format!(
        "COS    http://{}\nSTS    http://{}\n",
        emulator.cos_addr(),
        emulator.sts_addr()
    );
    // Writing to a String cannot fail.
    if let Some(admin) = emulator.admin_addr() {
        let _ = writeln!(
            text,
            "admin  http://{admin}  (GET and PUT /faults, GET /counters)"
        );
    }
    let _ = writeln!(text, "key    {} {shown_secret}", args.secret_id);
    for (name, region) in &args.bucket {
        let _ = writeln!(text, "bucket {name}.cos.{region}.myqcloud.com");
    }
    text
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

fn parse_bucket(text: &str) -> Result<(String, String), String> {
    let (name, region) = text
        .split_once(':')
        .ok_or("write it as BUCKET-APPID:REGION")?;
    Ok((name.to_owned(), region.to_owned()))
}
