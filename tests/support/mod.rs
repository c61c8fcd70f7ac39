//! What the tests share: a whole cosgate in front of the emulator or of a scripted COS, and a client
//! that speaks bytes.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this module"
)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_stack_arrays,
    clippy::format_push_string,
    clippy::or_fun_call,
    reason = "a test may panic"
)]

pub mod frames;
pub mod http2;
pub mod tokens;

use std::borrow::Cow;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cosgate::clock::wall_clock;
use cosgate::config::{Config, Listen, Sources};
use cosgate::downstream::listen::Listening;
use cosgate::downstream::live::{LiveConfig, Reloaded};
use cosgate::downstream::server;
use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::encoding;
use cosgate::encoding::hex::sha256_hex;
use cosgate::observe::{Metrics, MetricsView, TextFormat, access_log};
use cosgate::proxy::Shared;
use cosgate::secret::Secret;
use cosgate::sign::Signable;
use cosgate::sign::sigv4::{self, CredentialScope, SigningKey};
use cosgate::timestamp::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType,
};
use tokio::sync::oneshot;

pub const BUCKET: &str = "shared-1250000000";
pub const ACCOUNT: (&str, &str) = (
    "AKIDaccount00000000000000000000000",
    "accountSecretKey0000000000000000",
);
/// Two tenants of one bucket, each in its own folder.
pub const ACME: (&str, &str) = (
    "ACMEKEY0000000000001",
    "acme-local-secret-key-000000000000000000",
);
pub const GLOBEX: (&str, &str) = (
    "GLOBEXKEY00000000001",
    "globex-local-secret-key-0000000000000000",
);
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The whole thing: an emulated COS and STS, and cosgate in front.
pub struct World {
    pub gateway: Gateway,
    pub emulator: Emulator,
}

impl World {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more configuration: lines of TOML, which may start with keys of `[server]`.
    pub fn with(more: &str) -> Self {
        let emulator = emulator();
        let gateway = Gateway::start(&toml(emulator.cos_addr(), emulator.sts_addr(), more));
        Self { gateway, emulator }
    }

    /// acme's world with a grant `site` of [`SITE`] more, which reaches as `reach` says, with `actions` besides the
    /// presets.
    pub fn of_site(signature: &str, reach: &str, actions: &[&str]) -> Self {
        let emulator = Emulator::start(EmulatorConfig {
            keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
            buckets: [BUCKET, SITE]
                .map(|bucket| (bucket.to_owned(), "ap-guangzhou".to_owned()))
                .to_vec(),
            ..EmulatorConfig::default()
        })
        .unwrap();
        let mut granted = vec!["read", "write", "list"];
        granted.extend(actions);
        let grant = format!(
            "[[tenants.acme.grants]]\nname = \"site\"\nbucket = \"{SITE}\"\nregion = \"ap-guangzhou\"\n{reach}\n\
             actions = {granted:?}\n"
        );
        let toml = toml(emulator.cos_addr(), emulator.sts_addr(), &grant);
        let signature = format!("[upstream]\nsignature = \"{signature}\"");
        let gateway = Gateway::start(&toml.replacen("[upstream]", &signature, 1));
        Self { gateway, emulator }
    }

    pub fn signed(&self, method: &str, target: &str) -> Call {
        Call::new(self.gateway.addr, method, target).signed_by(ACME)
    }
}

/// The real bucket that is acme's alone.
pub const SITE: &str = "site-1250000000";

pub fn emulator() -> Emulator {
    Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        ..EmulatorConfig::default()
    })
    .unwrap()
}

/// A configuration to the contract. `more` may replace the sections `[server.limits]` and so on.
pub fn toml(cos: SocketAddr, sts: SocketAddr, more: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
admin = ""
domains = ["s3.localhost"]
region = "ap-guangzhou"
threads = 1

[upstream]
endpoint = "http://{{bucket}}.cos.{{region}}.myqcloud.com"
service_endpoint = "http://service.cos.myqcloud.com"
connect_to = "{cos}"

[sts]
endpoint = "http://sts.tencentcloudapi.com"
region = "ap-guangzhou"
connect_to = "{sts}"

[issuers.main]
kind = "federation"
secret_id = "env:ACCOUNT_ID"
secret_key = "env:ACCOUNT_SECRET"
duration = "30m"

[tenants.acme]
issuer = "main"
access_keys = [{{ id = "{acme}", secret = "env:ACME_SECRET" }}]

[[tenants.acme.grants]]
name = "photos"
bucket = "{BUCKET}"
region = "ap-guangzhou"
prefixes = ["acme/*"]
actions = ["read", "write", "list"]

[tenants.globex]
issuer = "main"
access_keys = [{{ id = "{globex}", secret = "env:GLOBEX_SECRET" }}]

[[tenants.globex.grants]]
name = "photos"
bucket = "{BUCKET}"
region = "ap-guangzhou"
prefixes = ["globex/*"]
actions = ["read", "write", "list"]

[tenants.anyone]
issuer = "main"
anonymous = true

[[tenants.anyone.grants]]
name = "photos"
bucket = "{BUCKET}"
region = "ap-guangzhou"
prefixes = ["public/*"]
actions = ["read", "write", "list"]

{more}
"#,
        acme = ACME.0,
        globex = GLOBEX.0,
    )
}

/// A running cosgate, on threads of its own; it drains when dropped.
pub struct Gateway {
    pub addr: SocketAddr,
    /// The snapshot that it has begun with.
    pub shared: Arc<Shared>,
    pub live: Arc<LiveConfig>,
    pub log: Log,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The access log, or the program log, kept in memory.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The program log of this process, from the first call on. A process has one, which its tests share.
    pub fn of_program() -> Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt().with_ansi(false);
            let subscriber = subscriber.with_writer(move || writer.clone()).finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            log
        });
        LOG.clone()
    }

    /// The log gets its lines in batches: waits for the one that holds `text`.
    #[track_caller]
    pub fn assert_contains(&self, text: &str) {
        eventually(text, || self.text().contains(text));
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Gateway {
    pub fn start(toml: &str) -> Self {
        Self::start_on([127, 0, 0, 1].into(), toml)
    }

    /// On another address of this machine.
    pub fn start_on(ip: std::net::IpAddr, toml: &str) -> Self {
        Self::start_late(ip, toml, 0)
    }

    /// With a clock toward Tencent that is so many seconds late.
    pub fn start_late(ip: std::net::IpAddr, toml: &str, late: i64) -> Self {
        Self::start_by(ip, toml, move || wall_clock().plus(-late))
    }

    /// With this clock toward Tencent.
    pub fn start_by(
        ip: std::net::IpAddr,
        toml: &str,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let config = config(toml);
        let (listener, addr) = match &config.server.listen {
            Listen::Tcp(_) => {
                let listener = TcpListener::bind((ip, 0)).unwrap();
                let addr = listener.local_addr().unwrap();
                (Listening::Tcp(listener), addr)
            }
            unix @ Listen::Unix(_) => {
                let listener = Listening::bind(unix, config.server.socket_mode, false).unwrap();
                (listener, (ip, 9000).into()) // what it is called in a Host
            }
        };
        let (stop, stopped) = oneshot::channel();
        let metrics = Metrics::new(config.server.threads);
        let log = Log::default();
        let (access_log, writer) =
            access_log::start(&config.log, log.clone(), metrics.core(0)).unwrap();
        let shared = Shared::start_by(clock, config, metrics, access_log, None).unwrap();
        let live = LiveConfig::new(Arc::clone(&shared)).unwrap();
        let served = Arc::clone(&live);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(server::run(
                    listener,
                    served,
                    async {
                        let _ = stopped.await;
                    },
                    std::future::pending(),
                ))
                .unwrap();
            writer.finish(Duration::from_secs(2));
        });
        Self {
            addr,
            shared,
            live,
            log,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Puts another configuration in use.
    pub fn reload(&self, toml: &str) -> std::io::Result<Reloaded> {
        self.live.reload(config(toml))
    }

    /// Begins the drain.
    pub fn drain(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for the end; how long it took.
    pub fn join(&mut self) -> Duration {
        let started = Instant::now();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        started.elapsed()
    }

    /// A metric's value, summed over its labels that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let shared = self.live.shared();
        let view = MetricsView {
            ending_keys: shared.tenants().ending_keys(wall_clock()),
            identities: shared.tenants().key_states(wall_clock()),
            issuers: shared.credentials().issuer_states(),
            shared_limits: shared.shared_limits().map(|limits| limits.view()),
            ..MetricsView::default()
        };
        let text = shared.metrics().render(&view, TextFormat::Prometheus);
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.drain();
        self.join();
    }
}

pub fn config(toml: &str) -> Config {
    let env = |name: &str| {
        let value = match name {
            "ACCOUNT_ID" => ACCOUNT.0,
            "ACCOUNT_SECRET" => ACCOUNT.1,
            "ACME_SECRET" => ACME.1,
            "GLOBEX_SECRET" => GLOBEX.1,
            _ => return None,
        };
        Some(value.to_owned())
    };
    let sources = Sources {
        env: &env,
        file: &|path| std::fs::read_to_string(path),
        env_names: &Vec::new,
        cores: 1,
        folder: &|_| Ok(Vec::new()),
        now: Timestamp::default(),
    };
    match Config::parse("test.toml", toml, &sources) {
        Ok((config, _)) => config,
        Err(problems) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", problems.join("\n"))
        }
    }
}

/// A request as it will be written on the wire.
#[derive(Clone)]
pub struct Call {
    pub addr: SocketAddr,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub payload: Option<String>,
    pub time: Timestamp,
    key: Option<(String, String)>,
}

impl Call {
    pub fn new(addr: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            addr,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("host".to_owned(), addr.to_string())],
            body: Vec::new(),
            payload: None,
            time: wall_clock(),
            key: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        if name == "host" {
            self.headers.retain(|(name, _)| name != "host");
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// What `x-amz-content-sha256` says, in place of the body's hash.
    pub fn payload(mut self, value: &str) -> Self {
        self.payload = Some(value.to_owned());
        self
    }

    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    pub fn signed_by(mut self, (id, secret): (&str, &str)) -> Self {
        self.key = Some((id.to_owned(), secret.to_owned()));
        self
    }

    pub fn unsigned(mut self) -> Self {
        self.key = None;
        self
    }

    /// The head and the body, signed now.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The head alone, for those who send the body by themselves.
    pub fn head(&self) -> Vec<u8> {
        let mut headers = self.headers.clone();
        if !self.body.is_empty() || matches!(self.method.as_str(), "PUT" | "POST") {
            let given = headers
                .iter()
                .any(|(name, _)| name == "content-length" || name == "transfer-encoding");
            if !given {
                headers.push(("content-length".to_owned(), self.body.len().to_string()));
            }
        }
        if let Some((id, secret)) = &self.key {
            self.sign(&mut headers, id, secret);
        }
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn sign(&self, headers: &mut Vec<(String, String)>, id: &str, secret: &str) {
        let amz_date = self.time.amz();
        let payload = self
            .payload
            .clone()
            .unwrap_or_else(|| sha256_hex(&self.body));
        headers.push(("x-amz-date".to_owned(), amz_date.clone()));
        headers.push(("x-amz-content-sha256".to_owned(), payload.clone()));
        let map = header_map(headers);
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let path = encoding::percent::percent_decode(path).unwrap();
        let query = decoded_query(query);
        let request = Signable {
            method: &self.method,
            path: &path,
            query: &query,
            headers: &map,
        };
        let date = &amz_date[..8];
        let scope = CredentialScope {
            date,
            region: "ap-guangzhou",
            service: "s3",
        };
        let key = SigningKey::derive(&Secret::new(secret), date, scope.region, scope.service);
        headers.push((
            "authorization".to_owned(),
            sigv4::SigV4Signer {
                access_key: id,
                key: &key,
                scope: &scope,
                amz_date: &amz_date,
            }
            .authorization(&request, &payload),
        ));
    }

    /// Sends it on a connection of its own and reads the whole response.
    pub fn send(&self) -> Reply {
        let mut client = Client::connect(self.addr);
        client.write(&self.bytes());
        client.read_reply(&self.method)
    }
}

fn header_map(headers: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

fn decoded_query(query: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> Cow<'_, str> {
    let text = text.replace('+', " ");
    let bytes = encoding::percent::percent_decode(&text)
        .unwrap()
        .into_owned();
    Cow::Owned(String::from_utf8(bytes).unwrap())
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    tls: Option<rustls::ClientConnection>,
    read: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body ended where the head declared it.
    pub whole: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `<Code>` of an error document.
    pub fn code(&self) -> String {
        element(&self.text(), "Code")
    }

    /// Asserts an S3 error document, with a request id that the head names too.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{}",
            self.text()
        );
        assert_eq!(
            Some(element(&self.text(), "RequestId").as_str()),
            self.header("x-amz-request-id")
        );
    }

    #[track_caller]
    pub fn assert_ok(&self) -> &Self {
        assert!(
            (200..300).contains(&self.status),
            "{} {}",
            self.status,
            self.text()
        );
        assert!(self.whole, "the response was cut");
        self
    }
}

/// The text of the first `<name>` in `xml`.
pub fn element(xml: &str, name: &str) -> String {
    let after = xml
        .split_once(&format!("<{name}>"))
        .map_or("", |(_, after)| after);
    after
        .split_once(&format!("</{name}>"))
        .map_or("", |(text, _)| text)
        .to_owned()
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            tls: None,
            read: Vec::new(),
        }
    }

    /// The same over TLS, to a server of this name; the handshake comes with the first write.
    pub fn connect_tls(addr: SocketAddr, name: &'static str, config: rustls::ClientConfig) -> Self {
        let tls = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap());
        Self {
            tls: Some(tls.unwrap()),
            ..Self::connect(addr)
        }
    }

    /// What a proxy says in front of the connection, before TLS.
    pub fn behind(mut self, header: &[u8]) -> Self {
        let _ = self.stream.write_all(header);
        self
    }

    /// The TLS version that was agreed on.
    pub fn tls_version(&self) -> Option<rustls::ProtocolVersion> {
        self.tls.as_ref()?.protocol_version()
    }

    /// How much of a TLS handshake there was.
    pub fn tls_handshake(&self) -> Option<rustls::HandshakeKind> {
        self.tls.as_ref()?.handshake_kind()
    }

    /// Writes; a peer that has gone already is found when its response is read.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).write_all(bytes),
        };
    }

    /// Reads one response to `method`, interim ones skipped.
    pub fn read_reply(&mut self, method: &str) -> Reply {
        loop {
            let reply = self.read_one(method);
            if reply.status != 100 {
                return reply;
            }
        }
    }

    pub fn read_one(&mut self, method: &str) -> Reply {
        let end = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the connection ended before a response: {:?}",
                String::from_utf8_lossy(&self.read)
            );
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
            whole: true,
        };
        if method == "HEAD" || status == 204 || status == 304 || status < 200 {
            return reply;
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.whole = self.read_chunked(&mut reply.body);
            return reply;
        }
        let length: usize = reply
            .header("content-length")
            .map_or(0, |l| l.parse().unwrap());
        while self.read.len() < length && self.fill() {}
        let at = length.min(self.read.len());
        reply.whole = at == length;
        reply.body = self.read.drain(..at).collect();
        reply
    }

    fn read_chunked(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let end = loop {
                if let Some(at) = find(&self.read, b"\r\n") {
                    break at;
                }
                if !self.fill() {
                    return false;
                }
            };
            let size =
                usize::from_str_radix(std::str::from_utf8(&self.read[..end]).unwrap(), 16).unwrap();
            while self.read.len() < end + 2 + size + 2 {
                if !self.fill() {
                    return false;
                }
            }
            body.extend_from_slice(&self.read[end + 2..end + 2 + size]);
            self.read.drain(..end + 2 + size + 2);
            if size == 0 {
                return true;
            }
        }
    }

    /// Reads once more; false at the end.
    pub fn fill(&mut self) -> bool {
        matches!(self.try_fill(), Ok(1..))
    }

    /// Reads once more; how many bytes, or why there are none. The end of a child process of this one
    /// is a signal, which ends a read that has a time limit.
    pub fn try_fill(&mut self) -> std::io::Result<usize> {
        let mut buf = [0; 65536];
        loop {
            let got = match &mut self.tls {
                None => self.stream.read(&mut buf),
                Some(tls) => rustls::Stream::new(tls, &mut self.stream).read(&mut buf),
            };
            if got
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Interrupted)
            {
                continue;
            }
            let got = got?;
            self.read.extend_from_slice(&buf[..got]);
            return Ok(got);
        }
    }

    /// Waits until the peer has read all that was written, so that what is written next comes by itself.
    #[track_caller]
    pub fn wait_until_read(&self) {
        let ours = self.stream.local_addr().unwrap();
        let Ok(theirs) = self.stream.peer_addr() else {
            return; // it has gone
        };
        eventually("the peer reads", || unread(ours, theirs) == 0);
    }

    /// Whether the peer closes within `limit`.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let mut buf = [0; 65536];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }
}

/// How many bytes are on their way between two ends on this machine: neither acknowledged nor read.
fn unread(from: SocketAddr, to: SocketAddr) -> u64 {
    let name = |addr: SocketAddr| match addr {
        SocketAddr::V4(addr) => {
            let octets = u32::from_le_bytes(addr.ip().octets());
            format!("{octets:08X}:{:04X}", addr.port())
        }
        SocketAddr::V6(addr) => panic!("{addr}"),
    };
    let (from, to) = (name(from), name(to));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queues = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (sent, received) = fields.get(4)?.split_once(':')?;
        let queue = match (*fields.get(1)?, *fields.get(2)?) {
            (local, remote) if local == from && remote == to => sent,
            (local, remote) if local == to && remote == from => received,
            _ => return None,
        };
        u64::from_str_radix(queue, 16).ok()
    });
    queues.sum()
}

/// A TLS client that trusts `ca` alone and shows a certificate and its key, if given; all are PEM files.
pub fn tls_client(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificates = |file: &Path| {
        let certificates = CertificateDer::pem_file_iter(file).unwrap();
        certificates.map(Result::unwrap).collect::<Vec<_>>()
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca) {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder
                .with_client_auth_cert(certificates(cert), key)
                .unwrap()
        }
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A COS that does what the test says: each connection is given to the next closure of the script;
/// the last one serves all that follow.
pub struct Script {
    pub addr: SocketAddr,
    pub heads: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<Mutex<usize>>,
}

/// What a script does with one connection.
pub type Act = Arc<dyn Fn(&mut Peer) + Send + Sync>;

/// The scripted side of one connection.
pub struct Peer {
    pub client: Client,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// Reads one request head; `None` when the connection ends.
    pub fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = find(&self.client.read, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.client.fill() {
                return None;
            }
        };
        let head = String::from_utf8(self.client.read.drain(..end).collect()).unwrap();
        self.heads.lock().unwrap().push(head.clone());
        Some(head)
    }

    /// Reads `length` bytes of body; how many there were before the connection ended.
    pub fn body(&mut self, length: usize) -> usize {
        while self.client.read.len() < length && self.client.fill() {}
        let got = self.client.read.len().min(length);
        self.client.read.drain(..got);
        got
    }

    pub fn respond(&mut self, bytes: &str) {
        self.client.write(bytes.as_bytes());
    }
}

impl Script {
    pub fn new(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (all_heads, count) = (Arc::clone(&heads), Arc::clone(&connections));
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                *count.lock().unwrap() += 1;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let Some(act) = acts.get(index).or(acts.last()).cloned() else {
                    return;
                };
                let mut peer = Peer {
                    client: Client {
                        stream,
                        tls: None,
                        read: Vec::new(),
                    },
                    heads: Arc::clone(&all_heads),
                };
                std::thread::spawn(move || act(&mut peer));
            }
        });
        Self {
            addr,
            heads,
            connections,
        }
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

pub fn act(act: impl Fn(&mut Peer) + Send + Sync + 'static) -> Act {
    Arc::new(act)
}

/// Waits until `met`, or fails.
#[track_caller]
pub fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The two languages that COS is spoken to in: `[upstream] signature`.
pub const SIGNATURES: [&str; 2] = ["s3", "cos"];

/// What no client may ever read: the real bucket, its account and domain, and our keys there.
const HIDDEN: [&str; 5] = [BUCKET, "1250000000", "myqcloud", "AKID", "q-sign"];

impl World {
    /// With COS spoken to in `signature`.
    pub fn speaking(signature: &str) -> Self {
        let upstream = format!("[upstream]\nsignature = \"{signature}\"");
        Self::edited(|toml| toml.replacen("[upstream]", &upstream, 1))
    }

    /// With a configuration that `edit` has changed.
    pub fn edited(edit: impl Fn(String) -> String) -> Self {
        let emulator = emulator();
        let toml = edit(toml(emulator.cos_addr(), emulator.sts_addr(), ""));
        let gateway = Gateway::start(&toml);
        Self { gateway, emulator }
    }

    /// A request by acme, its response held to what every response must be.
    #[track_caller]
    pub fn fetch(&self, method: &str, target: &str) -> Reply {
        self.signed(method, target).fetch()
    }

    /// Puts an object of acme's; `target` is its path.
    #[track_caller]
    pub fn put(&self, target: &str, body: &str) {
        self.signed("PUT", target).body(body).fetch().assert_ok();
    }

    /// What is stored under a real key.
    pub fn stored(&self, key: &str) -> Option<String> {
        let bytes = self.emulator.object_bytes(BUCKET, key)?;
        Some(String::from_utf8(bytes).unwrap())
    }

    /// How many requests have reached COS.
    pub fn upstream_requests(&self) -> u64 {
        self.emulator.counters().counts().cos_requests
    }
}

impl Call {
    /// The same request with its signature in the query, good for `expires` seconds.
    pub fn presigned(mut self, expires: u32) -> Self {
        let (id, secret) = self.key.take().unwrap();
        let amz_date = self.time.amz();
        let map = header_map(&self.headers);
        let (raw_path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let path = encoding::percent::percent_decode(raw_path).unwrap();
        let query = decoded_query(query);
        let request = Signable {
            method: &self.method,
            path: &path,
            query: &query,
            headers: &map,
        };
        let scope = CredentialScope {
            date: &amz_date[..8],
            region: "ap-guangzhou",
            service: "s3",
        };
        let key = SigningKey::derive(
            &Secret::new(secret),
            scope.date,
            scope.region,
            scope.service,
        );
        let query = sigv4::SigV4Signer {
            access_key: &id,
            key: &key,
            scope: &scope,
            amz_date: &amz_date,
        }
        .presigned_query(&request, expires);
        self.target = format!("{raw_path}?{query}");
        self
    }

    /// Sends it and holds the response to what every response must be.
    #[track_caller]
    pub fn fetch(&self) -> Reply {
        let reply = self.send();
        reply.assert_presentable();
        reply
    }

    /// Sends it with `line` added to the head after it was signed.
    #[track_caller]
    pub fn fetch_with_line(&self, line: &str) -> Reply {
        let mut bytes = self.head();
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(format!("{line}\r\n\r\n").as_bytes());
        bytes.extend_from_slice(&self.body);
        exchange(self.addr, &self.method, &bytes)
    }
}

impl Reply {
    /// Asserts what holds for every response: it has a request id, and reveals nothing of the real store.
    #[track_caller]
    pub fn assert_presentable(&self) {
        let id = self.header("x-amz-request-id").unwrap_or_default();
        assert_eq!(id.len(), 16, "no request id: {self:?}");
        assert!(self.whole, "the response was cut");
        let printed = format!("{:?} {}", self.headers, self.text());
        for hidden in HIDDEN {
            assert!(!printed.contains(hidden), "{hidden} is shown: {printed}");
        }
    }
}

/// Writes `bytes` on a connection of its own, and holds the response to what every response must be.
#[track_caller]
pub fn exchange(addr: SocketAddr, method: &str, bytes: &[u8]) -> Reply {
    let mut client = Client::connect(addr);
    client.write(bytes);
    let reply = client.read_reply(method);
    reply.assert_presentable();
    reply
}

/// The texts of all `<name>` in `xml`.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = xml.split(&open).skip(1);
    texts
        .filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned()))
        .collect()
}

/// cosgate in front of a scripted COS; STS is the emulator's.
pub struct Scripted {
    pub gateway: Gateway,
    pub script: Script,
    pub emulator: Emulator,
}

impl Scripted {
    pub fn new(acts: Vec<Act>) -> Self {
        Self::with(acts, "")
    }

    pub fn with(acts: Vec<Act>, more: &str) -> Self {
        Self::edited(acts, |toml| toml + more)
    }

    /// With a configuration that `edit` has changed.
    pub fn edited(acts: Vec<Act>, edit: impl Fn(String) -> String) -> Self {
        let emulator = emulator();
        let script = Script::new(acts);
        let gateway = Gateway::start(&edit(toml(script.addr, emulator.sts_addr(), "")));
        Self {
            gateway,
            script,
            emulator,
        }
    }

    pub fn signed(&self, method: &str, target: &str) -> Call {
        Call::new(self.gateway.addr, method, target).signed_by(ACME)
    }

    /// How many connections COS has seen.
    pub fn connections(&self) -> usize {
        *self.script.connections.lock().unwrap()
    }
}

/// The value of a header in a head as text.
pub fn header_of<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// What COS reports of an error.
pub fn cos_error(status: u16, code: &str, message: &str) -> String {
    let document = format!(
        "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>NWQ=</RequestId></Error>"
    );
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nx-cos-request-id: NWQ=\r\n\r\n{document}",
        document.len()
    )
}

impl Peer {
    /// The connection will end with a reset, when the act returns.
    pub fn reset(&mut self) {
        socket2::SockRef::from(&self.client.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Reads `length` bytes of body, and gives them.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        while self.client.read.len() < length && self.client.fill() {}
        let got = self.client.read.len().min(length);
        self.client.read.drain(..got).collect()
    }

    /// Responds to every request, bodies read, with `response`.
    pub fn always(&mut self, response: &str) {
        while let Some(head) = self.head() {
            let length = header_of(&head, "content-length").map_or(0, |l| l.parse().unwrap());
            self.body(length);
            self.respond(response);
        }
    }
}

/// What `Content-MD5` says of `body`.
pub fn md5_base64(body: &[u8]) -> String {
    use base64::Engine as _;
    use md5::Digest as _;
    base64::prelude::BASE64_STANDARD.encode(md5::Md5::digest(body))
}

/// A target signed in its query, good for five minutes.
pub fn presigned(addr: SocketAddr, method: &str, path: &str, (id, secret): (&str, &str)) -> String {
    let amz_date = wall_clock().amz();
    let date = &amz_date[..8];
    let scope = CredentialScope {
        date,
        region: "ap-guangzhou",
        service: "s3",
    };
    let host = addr.to_string();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_str(&host).unwrap());
    let credential = format!("{id}/{date}/ap-guangzhou/s3/aws4_request");
    let mut query: Vec<(Cow<'_, str>, Cow<'_, str>)> = vec![
        ("X-Amz-Algorithm".into(), "AWS4-HMAC-SHA256".into()),
        ("X-Amz-Credential".into(), credential.into()),
        ("X-Amz-Date".into(), amz_date.clone().into()),
        ("X-Amz-Expires".into(), "300".into()),
        ("X-Amz-SignedHeaders".into(), "host".into()),
    ];
    let request = Signable {
        method,
        path: path.as_bytes(),
        query: &query,
        headers: &headers,
    };
    let key = SigningKey::derive(&Secret::new(secret), date, scope.region, scope.service);
    let authorization = sigv4::SigV4Signer {
        access_key: id,
        key: &key,
        scope: &scope,
        amz_date: &amz_date,
    }
    .authorization(&request, "UNSIGNED-PAYLOAD");
    let signature = authorization.rsplit('=').next().unwrap().to_owned();
    query.push(("X-Amz-Signature".into(), signature.into()));
    let query: Vec<_> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", value.replace('/', "%2F")))
        .collect();
    format!("{path}?{}", query.join("&"))
}

/// cosgate as a program of its own, so that its memory, its limits and its signals are its own too.
pub struct Program {
    pub addr: SocketAddr,
    pub process: std::process::Child,
    printed: Printed,
    folder: Option<tempfile::TempDir>,
}

impl Program {
    /// `cosgate serve`.
    pub fn serve(toml: &str) -> Self {
        Self::serve_under(&[], toml)
    }

    /// The same, started by a command that ends in the program and its arguments, as `prlimit` does.
    pub fn serve_under(by: &[&str], toml: &str) -> Self {
        Self::start(by, std::process::Stdio::null(), toml)
    }

    /// The same with a socket that listens already, as systemd passes it.
    pub fn serve_on(listener: &TcpListener, by: &[&str], toml: &str) -> Self {
        let socket = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
        let passed = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        let by = [&["sh", "-c", passed, "sh"], by].concat();
        Self::start(&by, socket.into(), toml)
    }

    fn start(by: &[&str], input: std::process::Stdio, toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("cosgate.toml");
        std::fs::write(&config, toml).unwrap();
        let program = program();
        let mut words = by.iter().copied().chain([program.as_str()]);
        let mut command = std::process::Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["serve", "--config"])
            .arg(&config)
            .env("ACCOUNT_ID", ACCOUNT.0)
            .env("ACCOUNT_SECRET", ACCOUNT.1)
            .env("ACME_SECRET", ACME.1)
            .env("GLOBEX_SECRET", GLOBEX.1)
            .stdin(input)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let mut process = command.spawn().unwrap();
        let printed = Printed::from(process.stderr.take().unwrap());
        Self {
            addr: printed.address("listen="),
            process,
            printed,
            folder: Some(folder),
        }
    }

    /// `cosgate dev`.
    pub fn dev() -> Self {
        let mut process = std::process::Command::new(program())
            .args(["dev", "--listen", "127.0.0.1:0"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let printed = Printed::from(process.stdout.take().unwrap());
        Self {
            addr: printed.address("ready on http://"),
            process,
            printed,
            folder: None,
        }
    }

    /// The file that it serves.
    pub fn config(&self) -> PathBuf {
        let folder = self.folder.as_ref().map(tempfile::TempDir::path);
        folder.unwrap().join("cosgate.toml")
    }

    /// What `serve` has declared on standard error so far, `dev` on standard output.
    pub fn printed(&self) -> String {
        self.printed.text()
    }

    /// The address that follows `mark` there.
    pub fn address(&self, mark: &str) -> SocketAddr {
        self.printed.address(mark)
    }

    /// Sends the signal of this name.
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        run("kill", &["-s", name, &pid]);
    }

    /// Waits for the end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the program ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// KiB that `/proc` says of `field`: `VmRSS` now, `VmHWM` at most so far.
    pub fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program under test; `COSGATE_TEST_PROGRAM` names another build of it.
fn program() -> String {
    std::env::var("COSGATE_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_cosgate").into())
}

/// Runs a system's own command.
#[track_caller]
pub fn run(command: &str, arguments: &[&str]) {
    let status = std::process::Command::new(command).args(arguments).status();
    assert!(status.unwrap().success(), "{command} {arguments:?}");
}

/// What a program says, read as it comes.
pub struct Printed(Arc<Mutex<String>>);

impl Printed {
    pub fn from(mut printed: impl std::io::Read + Send + 'static) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&text);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = printed.read(&mut bytes) {
                into.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self(text)
    }

    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// The address that follows `mark`, once it was printed.
    #[track_caller]
    pub fn address(&self, mark: &str) -> SocketAddr {
        let mut found = None;
        eventually(mark, || {
            let text = self.text();
            found = text.split_once(mark).and_then(|(_, after)| {
                let (address, _) = after.split_once(char::is_whitespace)?;
                address.parse().ok()
            });
            found.is_some()
        });
        found.unwrap()
    }
}

/// An authority and what it has signed, as files.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The certificate and the key of `name`.
    pub fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        self.pair_of(name, &[name])
    }

    /// The certificate and the key of several names, in files called `name`.
    pub fn pair_of(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = ["pem", "key"].map(|end| self.folder.path().join(format!("{name}.{end}")));
        std::fs::write(&paths[0], certificate.pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        paths.into()
    }

    /// The same with a common name and a URI; `not_after` is a year.
    pub fn named(&self, common_name: &str, uri: &str, not_after: i32) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = common_name.replace(' ', "-");
        let paths = ["pem", "key"].map(|end| self.folder.path().join(format!("{file}.{end}")));
        std::fs::write(&paths[0], certificate.pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        paths.into()
    }

    /// A revocation list of these certificates, good to the start of a year.
    pub fn revoke(&self, certificates: &[&Path], next_update: i32) -> PathBuf {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let revoked = |file: &&Path| {
            let der = CertificateDer::from_pem_file(file).unwrap();
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            RevokedCertParams {
                serial_number: certificate.raw_serial().to_vec().into(),
                revocation_time: rcgen::date_time_ymd(2001, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2001, 1, 1),
            next_update: rcgen::date_time_ymd(next_update, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: certificates.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.path().join("crl.pem");
        let list = list.signed_by(&self.issuer).unwrap();
        std::fs::write(&path, list.pem().unwrap()).unwrap();
        path
    }

    /// cosgate and what is behind it, with a certificate for `localhost`; more keys of `[server.tls]`.
    pub fn serve(&self, more: &str) -> World {
        World::with(&self.tls(more))
    }

    /// The configuration of that.
    pub fn tls(&self, more: &str) -> String {
        let (cert, key) = self.pair("localhost");
        format!(
            "[server.tls]\ncert = '{}'\nkey = '{}'\n{more}",
            cert.display(),
            key.display()
        )
    }
}

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
