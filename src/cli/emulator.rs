//! `cosgate emulator`: the embedded COS and STS alone, with faults on demand.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::secret::Secret;
use tokio::signal::unix::{SignalKind, signal};

use super::USAGE;

/// The demo key pair of the emulated account. Not a secret: it opens nothing but an emulator.
const DEMO_ID: &str = "AKIDcosgateEmulator0000000000000000";
const DEMO_SECRET: &str = "cosgateEmulatorSecretKey00000000";

/// Run the embedded COS and STS alone, with faults on demand.
///
/// It checks what COS and STS check: signatures, temporary keys, tokens, policies. Ctrl-C or SIGTERM ends it.
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
            eprintln!("cosgate: {name} is not set: export it, or leave --secret-key-env out");
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
        ..EmulatorConfig::default()
    };
    let emulator = match Emulator::start(config) {
        Ok(emulator) => emulator,
        Err(error) => {
            eprintln!("cosgate: the emulator cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("COS    http://{}", emulator.cos_addr());
    println!("STS    http://{}", emulator.sts_addr());
    if let Some(admin) = emulator.admin_addr() {
        println!("admin  http://{admin}  (GET and PUT /faults, GET /counters)");
    }
    println!("key    {} {shown_secret}", args.secret_id);
    for (name, region) in &args.bucket {
        println!("bucket {name}.cos.{region}.myqcloud.com");
    }
    // Whatever ends it, the emulator is dropped here, and its temporary folder with it.
    match wait_for_end() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cosgate: cannot wait for a signal: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for SIGINT (Ctrl-C) or SIGTERM.
fn wait_for_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn parse_bucket(text: &str) -> Result<(String, String), String> {
    let (name, region) = text
        .split_once(':')
        .ok_or("write it as BUCKET-APPID:REGION")?;
    Ok((name.to_owned(), region.to_owned()))
}
