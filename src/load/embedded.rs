//! The embedded target: an emulated COS and STS in this process, and cosgate in front of it in another process.
//! The CPU time and memory of cosgate are therefore separate from those of the load.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use super::run::cannot;
use super::scenario::{Against, BucketStyle, DirectTarget, EmbeddedSignature, Scenario};
use super::tenants::TenantEntry;
use crate::emulator::{Emulator, EmulatorConfig};
use crate::secret::Secret;

const REGION: &str = "ap-guangzhou";
const BUCKET: &str = "load-1250000000";
/// The name of the bucket for tenants.
const ALIAS: &str = "load";
const ACCOUNT_ID: &str = "AKIDcosgateLoad0000000000000000000000";
const ACCOUNT_SECRET: &str = "cosgateLoadAccountSecretKey00000";
const TENANTS: u32 = 4;
/// Maximum number of tenants of the embedded target: each is a part of the proxy's configuration.
const MAX_TENANTS: u32 = 10_000;
/// The line of the proxy on standard error when it listens.
const READY: &str = "listening ";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The program that serves as the proxy. It reads its configuration from standard input up to the line
/// [`ProxyProgram::END`], reports `listening ADDRESS` on standard error, and ends when its input ends.
#[derive(Clone, Debug)]
pub struct ProxyProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl ProxyProgram {
    /// The line that ends the configuration.
    pub const END: &str = "# end of the configuration";

    /// The line on standard error when the proxy listens on `address`.
    pub fn ready(address: &SocketAddr) -> String {
        format!("{READY}{address}")
    }
}

/// A running embedded target. It ends when it is dropped.
#[derive(Debug)]
pub struct Embedded {
    emulator: Arc<Emulator>,
    proxy: ProxyProcess,
    address: SocketAddr,
}

#[derive(Debug)]
struct ProxyProcess(Child);

impl Embedded {
    /// Starts COS, STS and the proxy, for the tenants of `scenario`.
    pub fn start(scenario: &Scenario, program: &ProxyProgram) -> Result<Self, String> {
        let tenants = scenario.tenant_count.unwrap_or(TENANTS);
        if !(1..=MAX_TENANTS).contains(&tenants) {
            return Err(format!("tenant_count: 1 to {MAX_TENANTS}"));
        }
        let emulator = Emulator::start(EmulatorConfig {
            keys: vec![(ACCOUNT_ID.to_owned(), Secret::new(ACCOUNT_SECRET))],
            buckets: vec![(BUCKET.to_owned(), REGION.to_owned())],
            ..EmulatorConfig::default()
        })
        .map_err(|error| cannot("start the embedded COS", &error))?;
        let signature = scenario.signature.unwrap_or_default();
        let text = configuration(&emulator, tenants, signature);
        let (proxy, address) = ProxyProcess::start(program, &text)?;
        Ok(Self {
            emulator: Arc::new(emulator),
            proxy,
            address,
        })
    }

    /// The emulator, for faults.
    pub fn emulator(&self) -> &Arc<Emulator> {
        &self.emulator
    }

    /// The process of the proxy.
    pub fn proxy_pid(&self) -> u32 {
        self.proxy.0.id()
    }

    /// Where the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes it the target of a scenario.
    pub fn set_target(&self, scenario: &mut Scenario) {
        scenario.endpoint = Some(format!("http://{}", self.address));
        scenario.bucket = Some(ALIAS.to_owned());
        scenario.region = Some(REGION.to_owned());
        scenario.style = Some(BucketStyle::Path);
        let count = scenario.tenant_count.unwrap_or(TENANTS);
        let weights = std::mem::take(&mut scenario.tenants);
        scenario.tenants = (1..=count)
            .map(|number| {
                let name = tenant(number);
                let mut weights = weights.iter();
                TenantEntry {
                    access_key: Some(key_id(number)),
                    secret_key: Some(key_secret(number)),
                    prefix: Some(name.clone()),
                    weight: weights
                        .find(|entry| entry.name == name)
                        .and_then(|entry| entry.weight),
                    name,
                    ..TenantEntry::default()
                }
            })
            .collect();
        if scenario.against == Some(Against::Direct) {
            scenario.direct = Some(DirectTarget {
                endpoint: format!("http://cos.{REGION}.myqcloud.com"),
                connect_to: Some(self.emulator.cos_addr().to_string()),
                region: Some(REGION.to_owned()),
                style: Some(BucketStyle::Virtual),
                bucket: Some(BUCKET.to_owned()),
                access_key: Some(ACCOUNT_ID.to_owned()),
                secret_key: Some(ACCOUNT_SECRET.to_owned()),
                ..DirectTarget::default()
            });
        }
    }
}

impl ProxyProcess {
    fn start(program: &ProxyProgram, configuration: &str) -> Result<(Self, SocketAddr), String> {
        let mut child = Command::new(&program.program)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the load alone: it needs the proxy until it has verified and removed what it put.
            .process_group(0)
            .spawn()
            .map_err(|error| cannot(&format!("start {}", shown(&program.program)), &error))?;
        let (input, output) = (child.stdin.as_mut(), child.stderr.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err("the proxy has no standard input or error".to_owned());
        };
        let written = writeln!(input, "{configuration}\n{}", ProxyProgram::END);
        let proxy = Self(child);
        written.map_err(|error| cannot("configure the proxy", &error))?;
        let (ready, address) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads to the end, so that the proxy never waits to write its log.
            let mut first = Some(ready);
            let mut log = String::new();
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Some(ready) = &first else { continue };
                if let Some(address) = line.strip_prefix(READY) {
                    let _ = ready.send(address.parse().map_err(|_| line.clone()));
                    first = None;
                } else if log.len() < 4096 {
                    let _ = writeln!(log, "{line}");
                }
            }
            if let Some(ready) = first {
                let _ = ready.send(Err(log));
            }
        });
        match address.recv_timeout(START_TIMEOUT) {
            Ok(Ok(address)) => Ok((proxy, address)),
            Ok(Err(log)) => Err(format!("the proxy does not start: {}", log.trim())),
            Err(_) => Err("the proxy does not start in time".to_owned()),
        }
    }
}

impl Drop for ProxyProcess {
    /// Closes the proxy's input, which ends it. Kills the proxy if it does not end.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let steps = END_TIMEOUT.as_millis() / 20;
        for _ in 0..steps {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn tenant(number: u32) -> String {
    format!("tenant-{number:03}")
}

fn key_id(number: u32) -> String {
    format!("COSGATELOAD{number:09}")
}

fn key_secret(number: u32) -> String {
    format!("cosgate-load-secret-of-tenant-{number:010}")
}

/// The proxy's configuration, as a user would write it.
fn configuration(emulator: &Emulator, tenants: u32, signature: EmbeddedSignature) -> String {
    let language = match signature {
        EmbeddedSignature::Cos => "cos",
        EmbeddedSignature::S3 => "s3",
    };
    let mut text = format!(
        r#"
[server]
listen = "127.0.0.1:0"
admin = ""
region = "{REGION}"

[upstream]
endpoint = "http://{{bucket}}.cos.{{region}}.myqcloud.com"
service_endpoint = "http://service.cos.myqcloud.com"
signature = "{language}"
connect_to = "{cos}"

[sts]
endpoint = "http://sts.tencentcloudapi.com"
region = "{REGION}"
connect_to = "{sts}"

[issuers.load]
kind = "federation"
secret_id = "{ACCOUNT_ID}"
secret_key = "{ACCOUNT_SECRET}"
duration = "30m"
"#,
        cos = emulator.cos_addr(),
        sts = emulator.sts_addr(),
    );
    for number in 1..=tenants {
        let (name, id, secret) = (tenant(number), key_id(number), key_secret(number));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"
[tenants.{name}]
issuer = "load"
access_keys = [{{ id = "{id}", secret = "{secret}" }}]

[[tenants.{name}.grants]]
name = "{ALIAS}"
bucket = "{BUCKET}"
region = "{REGION}"
prefixes = ["{name}/*"]
actions = ["read", "write", "list"]
"#
        );
    }
    text
}
