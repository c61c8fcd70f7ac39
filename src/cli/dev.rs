//! `cosgate dev`: everything on this machine, to try it out. An embedded COS and STS, demo tenants,
//! the proxy in front.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use cosgate::config::{AccessFormat, ClientAuth, Config, Listen, ServerTls, Sources};
use cosgate::emulator::{Emulator, EmulatorConfig, FaultFile};
use cosgate::observe::ProgramLog;
use cosgate::secret::Secret;
use cosgate::timestamp::Timestamp;

use super::process::{Process, Signals};
use super::serve::{ServeOptions, serve};
use super::{USAGE, cores, quoted};

/// Try cosgate without an account: an embedded COS and STS, three demo tenants and an anonymous one.
///
/// The demo keys are public, so it listens on loopback only. Ctrl-C ends it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate dev
  cosgate dev --listen 127.0.0.1:9500 --data ./dev-data
  cosgate dev --signature cos
  cosgate certs certs && cosgate dev --tls certs")]
pub(super) struct Arguments {
    /// Where the proxy listens
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where objects are kept; a temporary folder without it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How requests are signed for COS
    #[arg(long, value_enum, default_value_t = DevSignature::S3)]
    signature: DevSignature,
    /// Where `/metrics` is; the port after that of `--listen`, or a free one
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// What the embedded COS and STS do wrong: a file of `[[faults]]`
    #[arg(long, value_name = "FILE", value_parser = super::emulator::read_faults)]
    faults: Option<FaultFile>,
    /// Where faults of the embedded COS and STS can be set; the second port after that of `--listen`, or a
    /// free one
    #[arg(long, value_name = "ADDRESS")]
    faults_admin: Option<SocketAddr>,
    /// How the access log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    /// Serve HTTPS, with the certificate that `cosgate certs DIR` made
    #[arg(long, value_name = "DIR", value_parser = Certificates::find)]
    tls: Option<Certificates>,
}

/// What of a folder that `cosgate certs` filled is needed here. The paths are whole.
#[derive(Clone, Debug)]
struct Certificates {
    authority: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn find(folder: &str) -> Result<Self, String> {
        let file = |name| {
            Path::new(folder)
                .join(name)
                .canonicalize()
                .map_err(|error| format!("{name}: {error}; make it with `cosgate certs {folder}`"))
        };
        Ok(Self {
            authority: file("ca.pem")?,
            cert: file("server.pem")?,
            key: file("server.key")?,
        })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DevSignature {
    /// COS's own: q-sign-algorithm=sha1
    Cos,
    /// AWS SigV4
    S3,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Short lines on a terminal, JSON otherwise
    Auto,
    /// One JSON object a request
    Json,
    /// One short line a request
    Short,
}

impl LogFormat {
    fn of_lines(self, is_terminal: bool) -> AccessFormat {
        match self {
            Self::Auto if is_terminal => AccessFormat::Short,
            Self::Auto | Self::Json => AccessFormat::Json,
            Self::Short => AccessFormat::Short,
        }
    }
}

/// A demo tenant: its name, which is its folder, and its key. Public: they open nothing but this.
struct Demo {
    name: &'static str,
    id: &'static str,
    secret: &'static str,
    /// The name under which it has its folder of the one bucket.
    bucket: &'static str,
}

const ALICE: Demo = Demo {
    name: "alice",
    id: "COSGATEDEMOALICE0001",
    secret: "cosgate-demo-alice-secret-00000000000000",
    bucket: "demo",
};
const BOB: Demo = Demo {
    name: "bob",
    id: "COSGATEDEMOBOB000001",
    secret: "cosgate-demo-bob-secret-0000000000000000",
    bucket: "demo",
};
/// For COS's own SDKs, which take no bucket without an APPID.
const CAROL: Demo = Demo {
    name: "carol",
    id: "COSGATEDEMOCAROL0001",
    secret: "cosgate-demo-carol-secret-00000000000000",
    bucket: BUCKET,
};
const REGION: &str = "ap-guangzhou";
const BUCKET: &str = "demo-1250000000";
const ACCOUNT_ID: &str = "AKIDcosgateDev00000000000000000000000";
const ACCOUNT_SECRET: &str = "cosgateDevAccountSecretKey000000";
/// A client that sends it gets a temporary key of carol's, for COS itself.
const VEND_TOKEN: &str = "cosgate-demo-carol-container-token";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    for (option, address) in [
        ("--listen", Some(arguments.listen)),
        ("--admin", arguments.admin),
        ("--faults-admin", arguments.faults_admin),
    ] {
        if let Some(address) = address
            && !address.ip().is_loopback()
        {
            super::complain(&format_args!(
                "cosgate: error: `dev` listens on loopback only, since its keys are public: use {option} 127.0.0.1:{}",
                address.port()
            ));
            return ExitCode::from(USAGE);
        }
    }
    match Process::start() {
        Ok(process) => process.run(async |signals, log| start(arguments, signals, log).await),
        Err(error) => super::cannot_start(&error),
    }
}

async fn start(arguments: &Arguments, signals: Signals, log: &ProgramLog) -> io::Result<()> {
    let emulator = Emulator::start(EmulatorConfig {
        data: arguments.data.clone(),
        keys: vec![(ACCOUNT_ID.to_owned(), Secret::new(ACCOUNT_SECRET))],
        buckets: vec![(BUCKET.to_owned(), REGION.to_owned())],
        admin_listen: Some(beside(arguments, arguments.faults_admin, 2)),
        faults: arguments.faults.clone().unwrap_or_default().into(),
        ..EmulatorConfig::default()
    })?;
    let text = configuration(arguments, &emulator);
    let sources = Sources {
        env: &demo_secret,
        file: &|path| std::fs::read_to_string(path),
        env_names: &Vec::new,
        cores: cores(),
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    let (mut config, _) = Config::parse("cosgate dev", &text, &sources).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        io::Error::other(problems.join("\n"))
    })?;
    config.server.tls = arguments.tls.as_ref().map(|files| ServerTls {
        cert: files.cert.clone(),
        key: files.key.clone(),
        client_ca: None,
        client_crl: None,
        client_auth: ClientAuth::Required,
    });
    config.log.access = arguments.log_format.of_lines(io::stdout().is_terminal());
    let options = ServeOptions {
        listen_key: "--listen",
        admin_key: "--admin",
        source: None,
    };
    serve(config, options, signals, log, |listen, admin| {
        if let Listen::Tcp(listen) = listen
            && let Some(admin) = admin
            && let Err(error) = super::print(&welcome((*listen, admin), arguments, &emulator))
        {
            tracing::warn!(%error, "standard output cannot be written");
        }
    })
    .await
}

/// The address that was `given`, or else the one so many ports after the proxy's. Nobody chose that one: if
/// another program has it, any free one does.
fn beside(arguments: &Arguments, given: Option<SocketAddr>, ports: u16) -> SocketAddr {
    given.unwrap_or_else(|| {
        let listen = arguments.listen;
        let port = match listen.port() {
            0 => 0,
            port => port.checked_add(ports).unwrap_or(0),
        };
        let address = SocketAddr::new(listen.ip(), port);
        match TcpListener::bind(address) {
            Ok(_) => address,
            Err(_) => SocketAddr::new(listen.ip(), 0),
        }
    })
}

/// The configuration that dev serves: a whole one, as a user would write it.
fn configuration(arguments: &Arguments, emulator: &Emulator) -> String {
    let signature = match arguments.signature {
        DevSignature::Cos => "cos",
        DevSignature::S3 => "s3",
    };
    let mut text = format!(
        r#"
[server]
listen = "{listen}"
admin = "{admin}"
domains = ["s3.localhost", "localhost"]
region = "{REGION}"

[upstream]
endpoint = "http://{{bucket}}.cos.{{region}}.myqcloud.com"
service_endpoint = "http://service.cos.myqcloud.com"
signature = "{signature}"
connect_to = "{cos}"

[sts]
endpoint = "http://sts.tencentcloudapi.com"
region = "{REGION}"
connect_to = "{sts}"

[issuers.dev]
kind = "federation"
secret_id = "env:ACCOUNT_ID"
secret_key = "env:ACCOUNT_SECRET"
duration = "30m"

[tenants.anonymous]
issuer = "dev"
anonymous = true
"#,
        listen = arguments.listen,
        admin = beside(arguments, arguments.admin, 1),
        cos = emulator.cos_addr(),
        sts = emulator.sts_addr(),
    );
    text.push_str(&grant("anonymous", "demo", "public"));
    text.push_str(&rule_for_pages("anonymous", "\"GET\", \"HEAD\""));
    for Demo {
        name, id, bucket, ..
    } in [ALICE, BOB, CAROL]
    {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[tenants.{name}]\nissuer = \"dev\"\naccess_keys = [{{ id = \"{id}\", secret = \"env:{id}\" }}]\n"
        );
        if name == CAROL.name {
            text.push_str("vend = true\nvend_tokens = [\"env:VEND_TOKEN\"]\n");
        }
        text.push_str(&grant(name, bucket, name));
        let all = "\"GET\", \"PUT\", \"POST\", \"DELETE\", \"HEAD\"";
        text.push_str(&rule_for_pages(name, all));
    }
    text
}

fn grant(tenant: &str, alias: &str, folder: &str) -> String {
    format!(
        r#"
[[tenants.{tenant}.grants]]
name = "{alias}"
bucket = "{BUCKET}"
region = "{REGION}"
prefixes = ["{folder}/*"]
actions = ["read", "write", "list"]
"#
    )
}

/// Pages that a developer serves on this machine may use the grant before.
fn rule_for_pages(tenant: &str, methods: &str) -> String {
    format!(
        r#"
[[tenants.{tenant}.grants.cors]]
origins = ["http://localhost:*", "http://127.0.0.1:*", "https://localhost:*", "https://127.0.0.1:*"]
methods = [{methods}]
headers = ["*"]
"#
    )
}

/// The "environment" of the configuration above.
fn demo_secret(name: &str) -> Option<String> {
    let secrets = [
        ("ACCOUNT_ID", ACCOUNT_ID),
        ("ACCOUNT_SECRET", ACCOUNT_SECRET),
        ("VEND_TOKEN", VEND_TOKEN),
        (ALICE.id, ALICE.secret),
        (BOB.id, BOB.secret),
        (CAROL.id, CAROL.secret),
    ];
    secrets
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, secret)| (*secret).to_owned())
}

/// For each client, what makes it trust the certificate.
#[derive(Default)]
struct ClientTrust {
    aws: String,
    boto3: String,
    rclone: String,
    s3cmd: String,
    requests: String,
    curl: String,
}

impl ClientTrust {
    fn of(arguments: &Arguments) -> Self {
        let Some(files) = &arguments.tls else {
            return Self {
                rclone: "rclone".to_owned(),
                s3cmd: "--no-ssl".to_owned(),
                ..Self::default()
            };
        };
        let authority = quoted(&files.authority.display().to_string());
        Self {
            aws: format!("\n  export AWS_CA_BUNDLE={authority}"),
            boto3: format!("AWS_CA_BUNDLE={authority} "),
            // rclone refuses to start where AWS_CA_BUNDLE is set.
            rclone: format!("env -u AWS_CA_BUNDLE rclone --ca-cert {authority}"),
            s3cmd: format!("--ca-certs {authority}"),
            requests: format!("REQUESTS_CA_BUNDLE={authority} "),
            curl: format!(" --cacert {authority}"),
        }
    }
}

/// Where the commands to paste go.
struct Destination {
    listen: SocketAddr,
    scheme: &'static str,
    endpoint: String,
    trust: ClientTrust,
}

/// What to paste.
fn welcome(
    (listen, admin): (SocketAddr, SocketAddr),
    arguments: &Arguments,
    emulator: &Emulator,
) -> String {
    let scheme = if arguments.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let endpoint = format!("{scheme}://{listen}");
    let data = match &arguments.data {
        Some(folder) => format!("kept in {}", folder.display()),
        None => "in a temporary folder that is removed at the end (keep them with --data DIR)"
            .to_owned(),
    };
    let mut text = format!(
        r#"cosgate is ready on {endpoint}

  bucket "demo", region {REGION}: alice has alice/*, bob has bob/*, anyone on this machine has public/*
  an embedded COS answers on http://{cos}, an embedded STS on http://{sts}
  objects are {data}
  a status page is on http://{admin}/
  metrics are on http://{admin}/metrics
  faults can be set with PUT http://{faults}/faults, and counted with GET http://{faults}/counters
"#,
        cos = emulator.cos_addr(),
        sts = emulator.sts_addr(),
        faults = emulator
            .admin_addr()
            .map_or_else(String::new, |faults| faults.to_string()),
    );
    let destination = Destination {
        listen,
        scheme,
        endpoint,
        trust: ClientTrust::of(arguments),
    };
    text.push_str(&s3_commands(&destination));
    text.push_str(&cos_commands(&destination, emulator.sts_addr()));
    text.push_str("\nCtrl-C ends it.\n");
    text
}

/// Commands of S3's tools.
fn s3_commands(to: &Destination) -> String {
    let endpoint = &to.endpoint;
    // A shell reads the brackets of an IPv6 address as a pattern.
    let (pasted, host) = (quoted(endpoint), quoted(&to.listen.to_string()));
    let ClientTrust {
        aws: for_aws,
        boto3: for_boto3,
        rclone: for_rclone,
        s3cmd: for_s3cmd,
        ..
    } = &to.trust;
    let Demo { id, secret, .. } = ALICE;
    let (bob_id, bob_secret) = (BOB.id, BOB.secret);
    format!(
        r#"
aws:
  export AWS_ACCESS_KEY_ID={id} AWS_SECRET_ACCESS_KEY={secret} AWS_DEFAULT_REGION={REGION}{for_aws}
  aws --endpoint-url {pasted} s3 cp README.md s3://demo/alice/README.md
  aws --endpoint-url {pasted} s3 ls s3://demo/alice/
  aws --endpoint-url {pasted} --no-sign-request s3 cp README.md s3://demo/public/README.md

bob, who can do the same in his folder and nothing in alice's:
  export AWS_ACCESS_KEY_ID={bob_id} AWS_SECRET_ACCESS_KEY={bob_secret}

boto3:
  {for_boto3}python3 -c 'import boto3; s3 = boto3.client("s3", endpoint_url="{endpoint}", region_name="{REGION}", aws_access_key_id="{id}", aws_secret_access_key="{secret}"); s3.put_object(Bucket="demo", Key="alice/hello", Body=b"hello"); print(s3.get_object(Bucket="demo", Key="alice/hello")["Body"].read())'

rclone:
  {for_rclone} --s3-provider Other --s3-endpoint {pasted} --s3-region {REGION} --s3-access-key-id {id} --s3-secret-access-key {secret} copy README.md :s3:demo/alice/

s3cmd:
  s3cmd {for_s3cmd} --host {host} --host-bucket {host} --region {REGION} --access_key {id} --secret_key {secret} put README.md s3://demo/alice/README.md
"#
    )
}

/// Commands of COS's own SDK and of curl, what SDKs of S3 need, and how to get a temporary key.
fn cos_commands(to: &Destination, sts: SocketAddr) -> String {
    let Destination {
        listen,
        scheme,
        endpoint,
        trust,
    } = to;
    let (for_requests, for_curl) = (&trust.requests, &trust.curl);
    let at_public = quoted(&format!("{endpoint}/demo/public/README.md"));
    let at_credentials = quoted(&format!("{endpoint}/.cosgate/credentials"));
    let at_alice = quoted(&format!("{endpoint}/demo/alice/README.md"));
    let Demo { id, secret, .. } = ALICE;
    let (carol_id, carol_secret) = (CAROL.id, CAROL.secret);
    let ip = match listen {
        SocketAddr::V4(listen) => listen.ip().to_string(),
        SocketAddr::V6(listen) => format!("[{}]", listen.ip()), // the SDK makes a URL of it
    };
    let port = listen.port();
    // As the user has called it: it need not be on the PATH.
    let program = env::args_os().next().unwrap_or_else(|| "cosgate".into());
    let program = quoted(&program.to_string_lossy());
    format!(
        r#"
cos-python-sdk-v5, as carol, whose bucket has the APPID that COS's own SDKs want:
  {for_requests}python3 -c 'from qcloud_cos import *; cos = CosS3Client(CosConfig(Region="{REGION}", SecretId="{carol_id}", SecretKey="{carol_secret}", Scheme="{scheme}", Endpoint="s3.localhost", IP="{ip}", Port={port})); cos.put_object(Bucket="{BUCKET}", Key="carol/hello", Body=b"hello"); print(cos.get_object(Bucket="{BUCKET}", Key="carol/hello")["Body"].get_raw_stream().read())'

curl, anonymous, and as alice with the header that S3 signatures need and curl does not add:
  curl{for_curl} -T README.md {at_public}
  curl{for_curl} --aws-sigv4 aws:amz:{REGION}:s3 --user {id}:{secret} -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -T README.md {at_alice}

JavaScript, Go and Java: set path style (forcePathStyle: true, UsePathStyle = true, forcePathStyle(true)). Without it
they connect to demo.localhost. cosgate serves this name too, but not every system resolves it.

a temporary key for the embedded COS itself: carol's, by a token, or one with a scope of your own:
  curl{for_curl} -H "Authorization: {VEND_TOKEN}" {at_credentials}
  TENCENTCLOUD_SECRET_ID={ACCOUNT_ID} TENCENTCLOUD_SECRET_KEY={ACCOUNT_SECRET} {program} credentials --host http://{sts} --bucket {BUCKET} --region {REGION} --allow-prefix 'carol/*' --allow-action name/cos:PutObject
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_short_on_a_terminal() {
        for (format, is_terminal, expected) in [
            (LogFormat::Auto, true, AccessFormat::Short),
            (LogFormat::Auto, false, AccessFormat::Json),
            (LogFormat::Json, true, AccessFormat::Json),
            (LogFormat::Short, false, AccessFormat::Short),
        ] {
            assert_eq!(format.of_lines(is_terminal), expected, "{format:?}");
        }
    }
}
