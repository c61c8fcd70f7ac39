//! The program itself: every command, what it prints, how it ends, and what it never prints.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::support::{
    self, ACCOUNT, ACME, BUCKET, Call, Client, GLOBEX, Reply, Script, act, emulator, tls_client,
    toml,
};
use cosgate::emulator::{CosFault, Emulator, EmulatorConfig, EmulatorRole, Faults, StsFault};
use cosgate::secret::Secret;
use serde_json::Value;
use tempfile::TempDir;

const COMMANDS: [&str; 10] = [
    "certs",
    "check",
    "credentials",
    "dev",
    "doctor",
    "emulator",
    "explain",
    "health",
    "keygen",
    "serve",
];

/// The program, with the secrets of the tests' configuration in its environment.
pub(crate) fn cosgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cosgate"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ACCOUNT_ID", ACCOUNT.0)
        .env("ACCOUNT_SECRET", ACCOUNT.1)
        .env("ACME_SECRET", ACME.1)
        .env("GLOBEX_SECRET", GLOBEX.1)
        .env_remove("COSGATE_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    cosgate(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A configuration in a folder of its own.
pub(crate) struct File {
    _folder: TempDir,
    path: PathBuf,
}

impl File {
    pub(crate) fn new(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("cosgate.toml");
        fs::write(&path, text).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

pub(crate) fn file_for(emulator: &Emulator) -> File {
    File::new(&toml(emulator.cos_addr(), emulator.sts_addr(), ""))
}

/// A command that runs until it is signalled to end.
struct Running {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![
            read(child.stdout.take().unwrap(), &out),
            read(child.stderr.take().unwrap(), &err),
        ];
        Self {
            child,
            out,
            err,
            readers,
        }
    }

    fn serve(file: &File) -> Self {
        Self::start(cosgate(&["serve", "--config", file.path()]))
    }

    fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// The address after `before` in what the program has declared.
    fn address(&self, before: &str) -> SocketAddr {
        let mut found = None;
        support::eventually(before, || {
            let printed = self.out() + &self.err();
            found = printed.split_once(before).and_then(|(_, after)| {
                let end = after.find(|c: char| c != ':' && c != '.' && !c.is_ascii_digit())?;
                after[..end].parse().ok()
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// Sends a signal, and waits for the end: the exit status.
    fn end(&mut self, signal: &str) -> i32 {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        let status = self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status.code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..n]);
            into.lock().unwrap().push_str(&text);
        }
    })
}

#[test]
fn every_command_explains_itself_with_examples() {
    let general = run(&["--help"]);
    assert!(general.status.success());
    for command in COMMANDS {
        assert!(
            stdout(&general).contains(&format!("\n  {command} ")),
            "{command}"
        );
        let help = run(&[command, "--help"]);
        assert!(help.status.success(), "{command}");
        let text = stdout(&help);
        assert!(text.contains("Example"), "{text}");
        assert!(text.contains(&format!("  cosgate {command}")), "{text}");
    }
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_right() {
    for (arguments, printed) in [
        (&["serv"][..], "serve"),
        (&["serve"][..], "--config"),
        (&["check", "--config", "/does/not/exist"][..], "--config"),
        (
            &["credentials", "-c", "x", "-t", "y", "-f", "xml"][..],
            "aws-process",
        ),
        (&["dev", "--listen", "0.0.0.0:9000"][..], "127.0.0.1:9000"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(printed), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn check_says_ok_or_names_every_problem() {
    let emulator = emulator();
    let good = file_for(&emulator);
    let output = run(&["check", "--config", good.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("ok"));

    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let text = text
        .replace("listen = ", "lissten = ")
        .replace("bucket = \"shared-1250000000\"", "bucket = \"shared\"")
        .replace("[\"globex/*\"]", "[\"globex/../*\"]")
        .replace("env:ACME_SECRET", "env:NOT_SET_ANYWHERE");
    let bad = File::new(&text);
    let output = run(&["check", "--config", bad.path()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    let printed = stderr(&output);
    for part in [
        "did you mean `listen`?",
        "APPID",
        "globex/../*",
        "NOT_SET_ANYWHERE",
    ] {
        assert!(printed.contains(part), "{part} is not in\n{printed}");
    }
    let lines = printed.lines().filter(|line| line.contains(": error: "));
    assert!(lines.count() >= 4, "{printed}");
    let output = run(&["serve", "--config", bad.path()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), printed);
}

#[test]
fn check_prints_what_changes_between_two_files_and_no_secret() {
    let emulator = emulator();
    let old = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let more = "[tenants.initech]\nissuer = \"main\"\naccess_keys = [{ id = \"INITECHKEY0000000001\", secret = \"a-secret-of-initech-0123456789\" }]\n\
                [[tenants.initech.grants]]\nname = \"photos\"\nbucket = \"shared-1250000000\"\nregion = \"ap-guangzhou\"\nprefixes = [\"initech/*\"]\nactions = [\"read\"]\n";
    let new = old.replacen("acme/*", "acme/photos/*", 1) + more;
    let anyone = new.find("[tenants.anyone]").unwrap();
    let after = new.find("[tenants.initech]").unwrap();
    let new = format!("{}{}", &new[..anyone], &new[after..]);
    let (old, new) = (File::new(&old), File::new(&new));
    let output = run(&["check", "--diff", old.path(), new.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    for line in [
        "~ tenant acme (~ grant photos (prefixes))\n",
        "- tenant anyone",
        "+ tenant initech",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    assert!(
        !printed.contains("globex") && !printed.contains("a-secret-of-initech"),
        "{printed}"
    );
    let same = run(&["check", "--diff", old.path(), old.path()]);
    assert_eq!(
        (same.status.code(), stdout(&same).contains("tenant")),
        (Some(0), false)
    );
}

#[test]
fn check_names_certificates_that_would_not_serve() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |name: &str| {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (cert, key) = (
            folder.path().join(name),
            folder.path().join(format!("{name}.key")),
        );
        fs::write(&cert, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        (cert, key)
    };
    let ((cert, key), (_, other)) = (pair("one.test"), pair("two.test"));
    let junk = folder.path().join("junk.pem");
    fs::write(
        &junk,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let text = |key: &Path, ca: &Path| {
        format!(
            "[server.tls]\ncert = {cert:?}\nkey = {key:?}\n[upstream]\nca_file = {ca:?}\n[sts]\nca_file = {ca:?}\n"
        )
    };
    let good = File::new(&text(&key, &cert));
    let output = run(&["check", "--config", good.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let bad = File::new(&text(&other, &junk));
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", bad.path()]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let printed = stderr(&output);
        for part in [
            "two.test.key",
            "belong together",
            "[upstream] ca_file",
            "[sts] ca_file",
        ] {
            assert!(printed.contains(part), "{part} is not in\n{printed}");
        }
    }
}

#[test]
fn the_examples_that_come_with_cosgate_are_good() {
    let output = cosgate(&["check", "--config", "config/example.toml"])
        .env("TENCENTCLOUD_SECRET_ID", "AKIDexample")
        .env("TENCENTCLOUD_SECRET_KEY", "example")
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = run(&["check", "-c", "config/development.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn keygen_makes_a_pair_that_a_configuration_takes() {
    let output = run(&["keygen"]);
    assert!(output.status.success());
    let text = stdout(&output);
    let line = text.lines().find(|l| l.starts_with("access_keys")).unwrap();
    let export = text
        .lines()
        .find(|l| l.starts_with("export COSGATE"))
        .unwrap();
    let (name, secret) = export["export ".len()..].split_once('=').unwrap();
    assert_ne!(stdout(&run(&["keygen"])), text);

    let emulator = emulator();
    let config = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let start = config.find("access_keys").unwrap();
    let end = start + config[start..].find('\n').unwrap();
    let file = File::new(&format!("{}{line}{}", &config[..start], &config[end..]));
    let output = cosgate(&["check", "-c", file.path()])
        .env(name, secret)
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn certs_makes_what_serves_and_what_connects() {
    let folder = TempDir::new().unwrap();
    let certs = folder.path().join("new/certs");
    let path = |name: &str| certs.join(name);
    let made = run(&["certs", certs.to_str().unwrap(), "--name", "s3.test"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let printed = stdout(&made);
    for name in ["ca", "server", "client"] {
        assert!(printed.contains(&format!("{name}.pem")), "{printed}");
        let key = fs::metadata(path(&format!("{name}.key"))).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert!(!printed.contains("PRIVATE KEY"));

    // The lines for the configuration are taken as they are, client_ca included.
    let (_, section) = printed.split_once("[server.tls]\n").unwrap();
    let (section, _) = section.split_once("\n\n").unwrap();
    let section = format!(
        "[server.tls]\n{}",
        section.replace("# client_ca", "client_ca")
    );
    let emulator = emulator();
    let file = File::new(&toml(emulator.cos_addr(), emulator.sts_addr(), &section));
    let serve = Running::serve(&file);
    let listen = serve.address("listen=");
    for name in [
        "localhost",
        "photos.s3.localhost",
        "127.0.0.1",
        "::1",
        "s3.test",
    ] {
        let (cert, key) = (path("client.pem"), path("client.key"));
        let tls = tls_client(&path("ca.pem"), Some((&cert, &key)), rustls::ALL_VERSIONS);
        let mut client = Client::connect_tls(listen, name, tls);
        let call = Call::new(listen, "PUT", "/photos/acme/k").signed_by(ACME);
        client.write(&call.body("over TLS").bytes());
        client.read_reply("PUT").assert_ok();
    }
}

#[test]
fn certs_overwrites_nothing_and_takes_no_bad_name() {
    let folder = TempDir::new().unwrap();
    let client = folder.path().join("client.pem");
    fs::write(&client, "mine").unwrap();
    let output = run(&["certs", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let printed = stderr(&output);
    assert!(
        printed.contains("client.pem exists already") && printed.contains("another folder"),
        "{printed}"
    );
    assert_eq!(stdout(&output), "");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&client).unwrap(), "mine");

    let new = folder.path().join("new");
    for (arguments, part) in [
        (
            ["certs", new.to_str().unwrap(), "--name", "https://a"],
            "*.NAME",
        ),
        (
            ["certs", client.to_str().unwrap(), "--name", "a.test"],
            "give a folder",
        ),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert!(!new.exists());
}

/// A key as a tool would have read it.
struct Key {
    id: String,
    secret: String,
    token: Option<String>,
}

impl Key {
    fn request(&self, emulator: &Emulator, method: &str, target: &str) -> Reply {
        let host = format!("{BUCKET}.cos.ap-guangzhou.myqcloud.com");
        let call = Call::new(emulator.cos_addr(), method, target).header("host", &host);
        let call = match &self.token {
            Some(token) => call.header("x-amz-security-token", token),
            None => call,
        };
        call.signed_by((&self.id, &self.secret)).send()
    }
}

fn text(json: &Value, path: &str) -> String {
    let value = json.pointer(path).and_then(Value::as_str);
    value
        .unwrap_or_else(|| panic!("no {path} in {json}"))
        .to_owned()
}

/// Has a shell read what `--format env` printed.
fn sourced(exports: &str, variables: [&str; 3]) -> Key {
    let [id, secret, token] = variables.map(|name| {
        let script = format!("{exports}\nprintf %s \"${name}\"");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        stdout(&output)
    });
    Key {
        id,
        secret,
        token: Some(token),
    }
}

#[test]
fn credentials_prints_a_key_that_opens_the_tenants_folder_and_no_other() {
    let emulator = emulator();
    let file = file_for(&emulator);
    let print = |format: &str| {
        let output = run(&[
            "credentials",
            "-c",
            file.path(),
            "--tenant",
            "acme",
            "--format",
            format,
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        stdout(&output)
    };
    let parsed = |format: &str, id: &str, secret: &str, token: &str| {
        let json: Value = serde_json::from_str(&print(format)).unwrap();
        Key {
            id: text(&json, id),
            secret: text(&json, secret),
            token: Some(text(&json, token)),
        }
    };
    let keys = [
        parsed(
            "json",
            "/credentials/tmpSecretId",
            "/credentials/tmpSecretKey",
            "/credentials/sessionToken",
        ),
        parsed(
            "raw",
            "/Credentials/TmpSecretId",
            "/Credentials/TmpSecretKey",
            "/Credentials/Token",
        ),
        parsed(
            "aws-process",
            "/AccessKeyId",
            "/SecretAccessKey",
            "/SessionToken",
        ),
        sourced(
            &print("env"),
            [
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN",
            ],
        ),
        sourced(
            &print("env"),
            [
                "TENCENTCLOUD_SECRET_ID",
                "TENCENTCLOUD_SECRET_KEY",
                "TENCENTCLOUD_SESSION_TOKEN",
            ],
        ),
    ];
    for key in keys {
        key.request(&emulator, "PUT", "/acme/a").assert_ok();
        key.request(&emulator, "GET", "/acme/a").assert_ok();
        for (method, target) in [("GET", "/globex/a"), ("PUT", "/globex/a"), ("GET", "/")] {
            let refused = key.request(&emulator, method, target);
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (403, "AccessDenied")
            );
        }
    }
    let default = run(&["credentials", "-c", file.path(), "-t", "acme"]);
    let json: Value = serde_json::from_str(&stdout(&default)).unwrap();
    let life = json["expiredTime"].as_i64().unwrap() - json["startTime"].as_i64().unwrap();
    assert_eq!(life, 1800);
}

/// `cosgate credentials` without a configuration, asking the emulator.
fn without_configuration(emulator: &Emulator, arguments: &[&str]) -> Output {
    let host = format!("http://{}", emulator.sts_addr());
    let mut command = cosgate(&["credentials", "--host", &host]);
    command
        .args(arguments)
        .env("TENCENTCLOUD_SECRET_ID", ACCOUNT.0)
        .env("TENCENTCLOUD_SECRET_KEY", ACCOUNT.1);
    command.output().unwrap()
}

fn sdk_key(output: &Output) -> Key {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    let json: Value = serde_json::from_str(&stdout(output)).unwrap();
    Key {
        id: text(&json, "/credentials/tmpSecretId"),
        secret: text(&json, "/credentials/tmpSecretKey"),
        token: Some(text(&json, "/credentials/sessionToken")),
    }
}

#[test]
fn credentials_needs_no_configuration() {
    let emulator = emulator();
    let scope = ["--bucket", BUCKET, "--region", "ap-guangzhou"];
    let prefix = [
        "--allow-prefix",
        "in/*",
        "--allow-action",
        "name/cos:PutObject",
    ];
    let all = [&scope[..], &prefix[..], &["--duration", "25m"]].concat();
    let output = without_configuration(&emulator, &all);
    let key = sdk_key(&output);
    key.request(&emulator, "PUT", "/in/a").assert_ok();
    for (method, target) in [("GET", "/in/a"), ("PUT", "/out/a"), ("DELETE", "/in/a")] {
        assert_eq!(
            key.request(&emulator, method, target).status,
            403,
            "{method} {target}"
        );
    }
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let life = json["expiredTime"].as_i64().unwrap() - json["startTime"].as_i64().unwrap();
    assert_eq!(life, 1500);

    let policy = File::new(&format!(
        r#"{{"version": "2.0", "statement": {{"effect": "allow", "action": "name/cos:*",
            "resource": "qcs::cos:ap-guangzhou:uid/1250000000:{BUCKET}/raw/*",
            "condition": {{"ip_equal": {{"qcs:ip": "127.0.0.0/8"}}}}}}}}"#
    ));
    let output = without_configuration(&emulator, &["--policy", policy.path()]);
    assert!(
        stderr(&output).contains("warning: statement 1"),
        "{}",
        stderr(&output)
    );
    let key = sdk_key(&output);
    key.request(&emulator, "PUT", "/raw/a").assert_ok();
    assert_eq!(key.request(&emulator, "PUT", "/in/b").status, 403);

    // As `getPolicy` of the Node STS SDK writes it.
    let (name, appid) = BUCKET.rsplit_once('-').unwrap();
    let policy = File::new(&format!(
        r#"{{"version": "2.0", "statement": [{{"action": "name/cos:PutObject", "effect": "allow",
            "principal": {{"qcs": "*"}},
            "resource": "qcs::cos:ap-guangzhou:uid/{appid}:prefix//{appid}/{name}/old/*"}}]}}"#
    ));
    let key = sdk_key(&without_configuration(
        &emulator,
        &["--bucket", BUCKET, "--policy", policy.path()],
    ));
    key.request(&emulator, "PUT", "/old/a").assert_ok();
    assert_eq!(key.request(&emulator, "PUT", "/older").status, 403);

    for (arguments, printed) in [
        (vec!["--bucket", BUCKET], "the key has no scope"),
        ([&scope[..], &["--allow-prefix", "*"]].concat(), "action"),
        (
            [&all[..], &["--host", "http://sts.example"]].concat(),
            "plain http",
        ),
        (
            [&all[..], &["--proxy", "socks5://h"]].concat(),
            "not a proxy",
        ),
        (
            [&scope[..], &prefix[..], &["--duration", "37h"]].concat(),
            "1s to 36h",
        ),
        (
            [&all[..], &["--role", "arn:aws:iam::1:role/x"]].concat(),
            "qcs::cam",
        ),
    ] {
        let output = if printed == "plain http" {
            cosgate(&["credentials"])
                .args(&arguments)
                .env("TENCENTCLOUD_SECRET_ID", ACCOUNT.0)
                .env("TENCENTCLOUD_SECRET_KEY", ACCOUNT.1)
                .output()
                .unwrap()
        } else {
            without_configuration(&emulator, &arguments)
        };
        assert_ne!(output.status.code(), Some(0));
        assert!(
            stderr(&output).contains(printed),
            "{printed}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "");
    }
    let bare = run(&[&["credentials"], &all[..]].concat());
    assert!(stderr(&bare).contains("TENCENTCLOUD_SECRET_ID is not set"));
}

/// An HTTP proxy that opens tunnels (RFC 9110 section 9.3.6), and the heads that it was sent.
fn tunnels() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let to = head.strip_prefix("CONNECT ").unwrap();
            let to = to.split(' ').next().unwrap().to_owned();
            kept.lock().unwrap().push(head);
            if to.starts_with("refused") {
                client.write_all(b"HTTP/1.1 407 No\r\n\r\n").unwrap();
                continue;
            }
            let mut server = TcpStream::connect(to).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from, &mut back));
            thread::spawn(move || io::copy(&mut server, &mut client));
        }
    });
    (addr, heads)
}

const ROLE: &str = "qcs::cam::uin/100000000001:roleName/uploads";

#[test]
fn credentials_of_a_role_come_through_a_proxy_in_every_form() {
    let emulator = Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        roles: vec![EmulatorRole {
            arn: ROLE.to_owned(),
            external_id: Some("ext:id/1".to_owned()),
            web_identity: None,
        }],
        ..EmulatorConfig::default()
    })
    .unwrap();
    let (addr, heads) = tunnels();
    let proxy = format!("http://user:pass%40word@{addr}");
    let arguments = |format| {
        [
            &["--bucket", BUCKET, "--region", "ap-guangzhou"][..],
            &[
                "--allow-prefix",
                "in/*",
                "--allow-action",
                "name/cos:PutObject",
            ],
            &[
                "--role",
                ROLE,
                "--session-name",
                "ci",
                "--external-id",
                "ext:id/1",
            ],
            &["--proxy", &proxy, "--format", format],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>()
    };
    let print = |format| {
        let arguments = arguments(format);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = without_configuration(&emulator, &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let parsed = |format, id, secret, token| {
        let json: Value = serde_json::from_str(&print(format)).unwrap();
        [text(&json, id), text(&json, secret), text(&json, token)]
    };
    let lines = |format, names: [&str; 3]| {
        let printed = print(format);
        names.map(|name| {
            let line = printed
                .lines()
                .find_map(|line| line.trim().strip_prefix(name));
            line.unwrap().trim_matches(['"', ' ']).to_owned()
        })
    };
    let aws = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ];
    let exported = sourced(&print("env"), aws);
    for [id, secret, token] in [
        parsed(
            "json",
            "/credentials/tmpSecretId",
            "/credentials/tmpSecretKey",
            "/credentials/sessionToken",
        ),
        parsed(
            "raw",
            "/Credentials/TmpSecretId",
            "/Credentials/TmpSecretKey",
            "/Credentials/Token",
        ),
        parsed(
            "aws-process",
            "/AccessKeyId",
            "/SecretAccessKey",
            "/SessionToken",
        ),
        lines("cos", ["secretid:", "secretkey:", "sessiontoken:"]),
        lines("coscmd", ["secret_id =", "secret_key =", "token ="]),
        [exported.id, exported.secret, exported.token.unwrap()],
    ] {
        let key = Key {
            id,
            secret,
            token: Some(token),
        };
        key.request(&emulator, "PUT", "/in/a").assert_ok();
        assert_eq!(key.request(&emulator, "PUT", "/out/a").status, 403);
        assert_eq!(key.request(&emulator, "GET", "/in/a").status, 403);
    }
    let counts = emulator.counters().counts();
    assert_eq!(counts.sts_by_name.get("ci"), Some(&6));
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 6);
    let sts = emulator.sts_addr();
    let authorization = "Basic dXNlcjpwYXNzQHdvcmQ="; // user:pass@word
    assert_eq!(
        heads[0],
        format!(
            "CONNECT {sts} HTTP/1.1\r\nhost: {sts}\r\nproxy-authorization: {authorization}\r\n\r\n"
        )
    );
}

#[test]
fn a_proxy_that_opens_no_tunnel_is_reported_and_its_password_is_not() {
    let (addr, _) = tunnels();
    let output = cosgate(&["credentials", "--host", "refused.example"])
        .args(["--bucket", BUCKET, "--region", "ap-guangzhou"])
        .args([
            "--allow-prefix",
            "*",
            "--allow-action",
            "name/cos:PutObject",
        ])
        .args(["--proxy", &format!("http://user:CANARY@{addr}/")])
        .env("TENCENTCLOUD_SECRET_ID", ACCOUNT.0)
        .env("TENCENTCLOUD_SECRET_KEY", ACCOUNT.1)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = stderr(&output);
    assert!(printed.contains("status 407"), "{printed}");
    assert!(!printed.contains("CANARY") && stdout(&output).is_empty());
}

#[test]
fn credentials_of_a_static_issuer_are_its_own_key() {
    let emulator = emulator();
    let config = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let config = config
        .replace("kind = \"federation\"", "kind = \"static\"")
        .replace("duration = \"30m\"", "");
    let file = File::new(&config);
    let output = run(&[
        "credentials",
        "-c",
        file.path(),
        "-t",
        "acme",
        "-f",
        "aws-process",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let key = Key {
        id: text(&json, "/AccessKeyId"),
        secret: text(&json, "/SecretAccessKey"),
        token: None,
    };
    assert_eq!(key.id, ACCOUNT.0);
    key.request(&emulator, "PUT", "/acme/a").assert_ok();
    assert_eq!(emulator.counters().counts().sts_calls, 0);
}

#[test]
fn credentials_says_why_there_is_no_key_and_prints_nothing_else() {
    let emulator = emulator();
    let file = file_for(&emulator);
    for (name, help) in [
        ("acmee", "did you mean `acme`?"),
        ("somebody-else", "acme, globex, anyone"),
    ] {
        let output = run(&["credentials", "-c", file.path(), "-t", name]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains(help), "{}", stderr(&output));
    }
    let refused = StsFault::Error("AuthFailure.SecretIdNotFound".into());
    for (fault, printed) in [
        (refused, "check secret_id and secret_key of [issuers.main]"),
        (StsFault::Down, "run the command again"),
        (StsFault::Hang, "no response"), // the call or the wait for it ends first
    ] {
        emulator.faults().change(|faults| faults.sts = Some(fault));
        let output = run(&["credentials", "-c", file.path(), "-t", "acme"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains(printed), "{}", stderr(&output));
        assert!(stderr(&output).contains("`acme`"), "{}", stderr(&output));
        assert!(!stderr(&output).contains("by itself"), "it has ended");
    }
}

#[test]
fn serve_serves_and_ends_well_on_either_signal() {
    for signal in ["-TERM", "-INT", "-QUIT"] {
        let emulator = emulator();
        let file = file_for(&emulator);
        let mut serve = Running::serve(&file);
        let listen = serve.address("listen=");
        let put = Call::new(listen, "PUT", "/photos/acme/a").signed_by(ACME);
        put.body("hello").send().assert_ok();
        assert_eq!(serve.end(signal), 0, "{}", serve.err());
        let log = serve.out();
        assert_eq!(log.lines().count(), 1, "{log}");
        let line: Value = serde_json::from_str(log.trim()).unwrap();
        assert_eq!(line["tenant"], "acme");
        assert_eq!(line["status"], 200);
    }
}

#[test]
fn serve_says_which_address_is_taken() {
    let emulator = emulator();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = file_for(&emulator);
    let output = cosgate(&["serve", "-c", file.path()])
        .env("COSGATE_SERVER_LISTEN", &address)
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = stderr(&output);
    assert!(
        printed.contains(&address) && printed.contains("[server] listen"),
        "{printed}"
    );
}

#[test]
fn the_emulator_ends_well_on_either_signal_and_leaves_nothing() {
    for signal in ["-TERM", "-INT", "-QUIT"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = cosgate(&["emulator", "--cos", "127.0.0.1:0", "--sts", "127.0.0.1:0"]);
        command
            .args(["--admin", "127.0.0.1:0"])
            .env("TMPDIR", folder.path());
        let mut emulator = Running::start(command);
        support::eventually("bucket ", || emulator.out().contains("bucket "));
        assert_eq!(emulator.end(signal), 0, "{}", emulator.err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn dev_listens_on_loopback_only() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9000"] {
        let output = run(&["dev", "--listen", address]);
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert!(stderr(&output).contains("loopback only"), "{address}");
    }
}

#[test]
fn the_emulator_warns_of_listeners_that_other_machines_can_reach() {
    let listeners = ["--cos", "--sts", "--admin"];
    for open in [&[][..], &["--cos"], &["--sts", "--admin"]] {
        let mut arguments = vec!["emulator"];
        for listener in listeners {
            let is_open = open.contains(&listener);
            arguments.extend([listener, if is_open { "0.0.0.0:0" } else { "127.0.0.1:0" }]);
        }
        let mut emulator = Running::start(cosgate(&arguments));
        support::eventually("bucket ", || emulator.out().contains("bucket "));
        assert_eq!(emulator.end("-TERM"), 0, "{}", emulator.err());
        let warnings = emulator.err().matches("other machines can reach").count();
        assert_eq!(warnings, open.len(), "{}", emulator.err());
    }
}

#[test]
fn dev_says_which_flag_takes_another_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["dev", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let printed = stderr(&output);
    assert!(
        printed.contains(&address) && printed.contains("--listen"),
        "{printed}"
    );
}

/// The response to a request without headers, head included.
fn fetch(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn dev_has_metrics_and_faults_at_the_printed_addresses() {
    let dev = Dev::start(&["--listen", "127.0.0.1:0"]);
    let metrics = fetch(
        dev.running.address("metrics are on http://"),
        "GET",
        "/metrics",
    );
    assert!(metrics.contains("cosgate_requests_total"), "{metrics}");
    let faults = dev.running.address("faults can be set with PUT http://");
    for path in ["/faults", "/counters"] {
        let response = fetch(faults, "GET", path);
        assert!(response.starts_with("HTTP/1.1 200 "), "{path}: {response}");
    }
    let given = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let given = given.to_string();
    let dev = Dev::start(&["--listen", "127.0.0.1:0", "--admin", &given]);
    assert!(
        dev.text.contains(&format!("http://{given}/metrics")),
        "{}",
        dev.text
    );
    let remote = run(&["dev", "--faults-admin", "0.0.0.0:0"]);
    assert_eq!(remote.status.code(), Some(2));
    assert!(
        stderr(&remote).contains("--faults-admin 127.0.0.1"),
        "{}",
        stderr(&remote)
    );
}

#[test]
fn dev_writes_json_to_a_pipe_and_short_lines_on_request() {
    for (format, line) in [
        (&[][..], "\"operation\":\"PutObject\""),
        (&["--log-format", "json"], "\"operation\":\"PutObject\""),
        (&["--log-format", "short"], "PUT    demo/public/x"),
    ] {
        let dev = Dev::start(&[&["--listen", "127.0.0.1:0"], format].concat());
        let listen = dev.running.address("cosgate is ready on http://");
        let response = fetch(listen, "PUT", "/demo/public/x");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        support::eventually(line, || dev.running.out().contains(line));
        assert!(
            !dev.running.out().contains('\u{1b}'),
            "{}",
            dev.running.out()
        );
    }
}

/// `cosgate dev`, and what it has printed.
struct Dev {
    running: Running,
    text: String,
}

impl Dev {
    fn start(more: &[&str]) -> Self {
        let running = Running::start(cosgate(&[&["dev"], more].concat()));
        support::eventually("the whole text", || {
            running.out().contains("Ctrl-C ends it.")
        });
        let text = running.out();
        Self { running, text }
    }

    /// The line that holds `of`.
    fn line(&self, of: &str) -> &str {
        let line = self.text.lines().find(|line| line.contains(of));
        line.unwrap_or_else(|| panic!("no {of:?} in {}", self.text))
            .trim()
    }

    /// Pastes it into a shell that, as zsh does, refuses a pattern that matches nothing; what it says.
    fn paste(&self, of: &str) -> String {
        let line = self
            .line(of)
            .replace("curl", "curl --noproxy '*' -sS --fail-with-body");
        let pasted = Command::new("bash")
            .args(["-O", "failglob", "-c", &line])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        let pasted = pasted.unwrap();
        let printed = stdout(&pasted);
        assert!(
            pasted.status.success(),
            "{line}: {printed} {}",
            stderr(&pasted)
        );
        printed
    }

    /// Pastes all that needs nothing but curl and cosgate.
    fn paste_all(&self) {
        self.paste("-T README.md");
        self.paste("--aws-sigv4");
        assert!(self.paste("/.cosgate/credentials").contains("AccessKeyId"));
        assert!(self.paste(" credentials --host").contains("tmpSecretId"));
    }
}

#[test]
fn dev_is_ready_at_once_and_its_lines_work() {
    for signature in ["s3", "cos"] {
        let mut dev = Dev::start(&["--listen", "127.0.0.1:0", "--signature", signature]);
        let listen = dev.running.address("cosgate is ready on http://");
        dev.paste_all();
        let back = Call::new(listen, "GET", "/demo/public/README.md").send();
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        assert_eq!(back.assert_ok().body, fs::read(readme).unwrap());
        assert_eq!(dev.running.end("-INT"), 0, "{}", dev.running.err());
    }
}

/// Clients look up `localhost` or a name below it; a page of a stranger can only have another name.
#[test]
fn dev_serves_under_localhost_and_all_names_below_it() {
    let alice = (
        "COSGATEDEMOALICE0001",
        "cosgate-demo-alice-secret-00000000000000",
    );
    let dev = Dev::start(&["--listen", "127.0.0.1:0"]);
    let listen = dev.running.address("cosgate is ready on http://");
    let port = listen.port();
    let photo = "2024%20%E5%A4%8F/photo-0001.jpg";
    for (host, front) in [
        ("localhost", "/demo"),
        ("s3.localhost", "/demo"),
        ("demo.localhost", ""),
        ("demo.s3.localhost", ""),
        ("Demo.LocalHost", ""),
    ] {
        let host = format!("{host}:{port}");
        let call = |method: &str, folder: &str| {
            let target = format!("{front}/{folder}/{photo}");
            Call::new(listen, method, &target).header("host", &host)
        };
        let put = call("PUT", "alice").signed_by(alice).body(host.as_str());
        put.send().assert_ok();
        let back = call("GET", "alice").signed_by(alice).send();
        assert_eq!(back.assert_ok().text(), host);
        call("PUT", "public").body(host.as_str()).send().assert_ok();
        assert_eq!(call("GET", "public").send().assert_ok().text(), host);
        let page = call("GET", "public").header("origin", "http://other.example");
        page.send().assert_error(403, "AccessDenied");
    }
    for host in [
        "other.example",
        "demo.localhost.other.example",
        "notlocalhost",
        "localhost.example",
    ] {
        let target = format!("/demo/public/{photo}");
        let call = Call::new(listen, "GET", &target).header("host", host);
        call.send().assert_error(403, "AccessDenied");
    }
}

#[test]
fn the_lines_of_dev_work_on_an_ipv6_address() {
    let dev = Dev::start(&["--listen", "[::1]:0"]);
    dev.paste_all();
    let (_, after) = dev.text.split_once("ready on http://").unwrap();
    let listen: SocketAddr = after.lines().next().unwrap().parse().unwrap();
    let port = listen.port();
    // The brackets are a pattern to a shell, and belong into the SDK's IP.
    for part in [
        format!("aws --endpoint-url 'http://[::1]:{port}' s3 ls"),
        format!("--s3-endpoint 'http://[::1]:{port}' "),
        format!("--host '[::1]:{port}' --host-bucket '[::1]:{port}' "),
        format!("IP=\"[::1]\", Port={port}"),
        format!("endpoint_url=\"http://[::1]:{port}\""),
    ] {
        assert!(dev.text.contains(&part), "no {part:?} in {}", dev.text);
    }
}

#[test]
fn dev_serves_https_with_the_certificates_of_a_folder_and_says_what_each_client_needs() {
    let folder = TempDir::new().unwrap();
    let certs = folder.path().join("it's certs");
    let certs = certs.to_str().unwrap();
    assert!(run(&["certs", certs]).status.success());
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let mut dev = Dev::start(&["--listen", listen, "--tls", certs]);
        dev.paste_all();
        let authority = format!("'{}/ca.pem'", certs.replace('\'', r"'\''"));
        for trust in [
            format!("export AWS_CA_BUNDLE={authority}\n"),
            format!("AWS_CA_BUNDLE={authority} python3 -c 'import boto3; "),
            format!("env -u AWS_CA_BUNDLE rclone --ca-cert {authority} "),
            format!("s3cmd --ca-certs {authority} --host "),
            format!("REQUESTS_CA_BUNDLE={authority} python3 -c 'from qcloud_cos "),
            "Scheme=\"https\"".to_owned(),
        ] {
            assert!(dev.text.contains(&trust), "no {trust:?} in {}", dev.text);
        }
        assert_eq!(dev.running.end("-INT"), 0, "{}", dev.running.err());
    }
}

#[test]
fn the_demo_tenants_are_as_many_as_is_documented() {
    let number = "three demo tenants and an anonymous one";
    let help = stdout(&run(&["dev", "--help"]));
    let readme = fs::read_to_string("README.md").unwrap();
    for printed in [help, readme] {
        let printed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(printed.contains(number), "{printed}");
    }
    let dev = Dev::start(&["--listen", "127.0.0.1:0"]);
    let keys = |text: &str| {
        let ids = text.split(|c: char| !c.is_ascii_alphanumeric());
        let ids = ids.filter(|id| id.starts_with("COSGATEDEMO"));
        ids.map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!(keys(&dev.text), 3);
}

#[test]
fn dev_says_how_to_make_certificates_that_are_not_there() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path().to_str().unwrap();
    let output = run(&["dev", "--tls", folder]);
    assert_eq!(output.status.code(), Some(2));
    let printed = stderr(&output);
    assert!(
        printed.contains("ca.pem") && printed.contains(&format!("cosgate certs {folder}")),
        "{printed}"
    );
}

/// Secrets that are nowhere else.
const CANARIES: [&str; 5] = [
    "canaryAccountSecret0000000000001",
    "canaryLocalSecret00000000000000000000001",
    "canaryTemporarySecret00000000001",
    "canaryTemporaryToken000000000001",
    "canaryStaticToken00000000000001",
];

/// A session of the program in which everything is logged that can be, with all its output.
struct Session {
    serve: Running,
    listen: SocketAddr,
    heard: String,
    secrets: Vec<String>,
}

impl Session {
    fn start(file: &File) -> Self {
        let mut command = cosgate(&["serve", "--config", file.path()]);
        let [account, local, _, _, token] = CANARIES;
        command
            .env("COSGATE_LOG", "trace")
            .env("ACCOUNT_SECRET", account)
            .env("STATIC_TOKEN", token)
            .env("ACME_SECRET", local);
        let serve = Running::start(command);
        let listen = serve.address("listen=");
        Self {
            serve,
            listen,
            heard: String::new(),
            secrets: CANARIES.iter().map(ToString::to_string).collect(),
        }
    }

    fn fetch(&mut self, call: &Call) -> u16 {
        let reply = call.send();
        let headers = reply.headers.iter().flat_map(|(name, value)| [name, value]);
        self.heard.extend(headers.map(String::as_str));
        self.heard += &reply.text();
        let head = String::from_utf8(call.head()).unwrap();
        self.secrets.extend(signature(&head));
        reply.status
    }

    fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.listen, method, target).signed_by((ACME.0, CANARIES[1]))
    }

    /// Ends the program, and looks through all that it ever sent: to clients, to scrapers, to its logs.
    fn end(mut self) {
        let admin = self.serve.address("admin=");
        for page in ["/metrics", "/readyz", "/livez", "/"] {
            let reply = Call::new(admin, "GET", page).send();
            self.heard += &reply.text();
        }
        assert!(self.heard.contains("cosgate_requests_total"));
        assert_eq!(self.serve.end("-TERM"), 0);
        let printed = format!("{}{}{}", self.heard, self.serve.out(), self.serve.err());
        for secret in &self.secrets {
            let at = printed.find(secret.as_str());
            let around =
                at.map(|at| &printed[at.saturating_sub(200)..(at + 40).min(printed.len())]);
            assert_eq!(around, None, "{secret} got");
        }
        // It was not silent for lack of words.
        assert!(
            printed.contains("DEBUG") && printed.contains("WARN"),
            "{printed}"
        );
        assert!(printed.contains(r#""tenant":"acme""#), "{printed}");
    }
}

/// The signature in a request's head, or in the value of its `authorization`.
fn signature(text: &str) -> Option<String> {
    let at = text.find("ignature=")? + "ignature=".len();
    let end = text[at..].find(|c: char| !c.is_ascii_hexdigit());
    Some(text[at..end.map_or(text.len(), |end| at + end)].to_owned())
}

fn canary_config(cos: SocketAddr, sts: SocketAddr) -> String {
    let more = r#"
[issuers.fixed]
kind = "static"
secret_id = "env:ACCOUNT_ID"
secret_key = "env:ACCOUNT_SECRET"
token = "env:STATIC_TOKEN"
"#;
    toml(cos, sts, more)
        .replace("admin = \"\"", "admin = \"127.0.0.1:0\"")
        .replace(
            "[tenants.anyone]\nissuer = \"main\"",
            "[tenants.anyone]\nissuer = \"fixed\"",
        )
}

/// Says what only a client knows, in every place where clients say such things.
fn send_secrets(session: &mut Session) {
    let sent_by_clients = [
        "canaryBearer.eyJhbGciOiJub25lIn0.canary",
        "canaryCookie0000000000000000001",
        "canaryCustomerKey00000000000001",
        "canarySessionToken0000000000001",
        "canaryBasic00000000000000000001",
    ];
    session
        .secrets
        .extend(sent_by_clients.map(ToOwned::to_owned));
    let [bearer, cookie, customer, token, basic] = sent_by_clients;
    let listen = session.listen;
    let plain = |target: &str| Call::new(listen, "GET", target);
    for (call, status) in [
        (
            plain("/photos/public/a").header("authorization", &format!("Bearer {bearer}")),
            400,
        ),
        (
            plain("/photos/public/a").header("authorization", &format!("Basic {basic}")),
            400,
        ),
        (
            plain(&format!("/photos/public/a?X-Amz-Security-Token={token}")),
            400,
        ),
        (
            session
                .call("GET", "/photos/acme/a")
                .header("x-amz-security-token", token),
            400,
        ),
        (
            session
                .call("GET", "/photos/acme/a")
                .header("cookie", cookie),
            200,
        ),
        (
            session
                .call("GET", "/photos/acme/a")
                .header("x-amz-server-side-encryption-customer-key", customer),
            403,
        ),
    ] {
        assert_eq!(session.fetch(&call), status, "{:?}", call.headers);
    }
    for (target, status) in [("/photos/acme/a", 200), ("/photos/globex/a", 403)] {
        let presigned = session.call("GET", target).presigned(60);
        let (_, signature) = presigned.target.rsplit_once('=').unwrap();
        session.secrets.push(signature.to_owned());
        assert_eq!(session.fetch(&presigned), status);
        let damaged = plain(&presigned.target.replace("/a?", "/b?"));
        assert_eq!(session.fetch(&damaged), 403);
    }
}

#[test]
fn no_secret_is_ever_shown_in_a_session_with_every_kind_of_failure() {
    use cosgate::emulator::EmulatorConfig;
    use cosgate::secret::Secret;

    let emulator = Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(CANARIES[0]))],
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        ..EmulatorConfig::default()
    });
    let emulator = emulator.unwrap();
    let file = File::new(&canary_config(emulator.cos_addr(), emulator.sts_addr()));
    let mut session = Session::start(&file);
    let sts = |fault: Option<StsFault>| emulator.faults().change(|faults| faults.sts = fault);

    sts(Some(StsFault::Error("AuthFailure.SignatureFailure".into())));
    let globex = Call::new(session.listen, "GET", "/photos/globex/a").signed_by(GLOBEX);
    assert_eq!(session.fetch(&globex), 503);
    sts(None);
    let put = session.call("PUT", "/photos/acme/a").body("hello");
    // STS is shown the same key again some seconds after it has refused it.
    support::eventually("acme's key", || session.fetch(&put) == 200);
    assert_eq!(session.fetch(&session.call("GET", "/photos/acme/a")), 200);
    assert_eq!(session.fetch(&session.call("GET", "/photos/globex/a")), 403);
    let wrong = Call::new(session.listen, "GET", "/photos/acme/a").signed_by((ACME.0, "wrong"));
    assert_eq!(session.fetch(&wrong), 403);
    let mangled = session.call("PUT", "/photos/acme/b").body("hello");
    let mangled = mangled.payload(&"0".repeat(64));
    assert_eq!(session.fetch(&mangled), 400);
    for (status, code) in [
        (403, "SignatureDoesNotMatch"),
        (403, "AccessDenied"),
        (500, "InternalError"),
    ] {
        emulator.faults().set(Faults {
            cos: Some(CosFault::Error {
                status,
                code: code.to_owned(),
            }),
            ..Faults::default()
        });
        assert_ne!(session.fetch(&session.call("GET", "/photos/acme/a")), 200);
    }
    emulator.faults().clear();
    emulator.revoke_all_keys();
    assert_eq!(session.fetch(&session.call("GET", "/photos/acme/a")), 200);

    let nobody = Call::new(session.listen, "GET", "/photos/public/a");
    assert_eq!(session.fetch(&nobody), 503); // COS does not take the static token

    send_secrets(&mut session);

    let before = session.secrets.len();
    session.secrets.push(GLOBEX.1.to_owned());
    for head in emulator.counters().heads() {
        for (name, value) in head.headers {
            match name.as_str() {
                "authorization" => session.secrets.extend(signature(&value)),
                "x-amz-security-token" => session.secrets.push(value),
                _ => {}
            }
        }
    }
    assert!(session.secrets.len() > before + 10);
    session.end();
}

#[test]
fn what_sts_and_cos_repeat_of_our_secrets_goes_no_further() {
    let [account, _, secret, token, _] = CANARIES;
    let sts_response = |body: String| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let error = sts_response(format!(
        r#"{{"Response":{{"Error":{{"Code":"AuthFailure.SignatureFailure","Message":"your key {account} made another signature"}},"RequestId":"r"}}}}"#
    ));
    let odd = sts_response(format!(
        r#"{{"Response":{{"Credentials":{{"Token":"{token}","TmpSecretId":1,"TmpSecretKey":"{secret}"}},"ExpiredTime":"{secret}","RequestId":"r"}}}}"#
    ));
    let key = sts_response(format!(
        r#"{{"Response":{{"Credentials":{{"Token":"{token}","TmpSecretId":"AKIDcanary","TmpSecretKey":"{secret}"}},"ExpiredTime":4000000000,"RequestId":"r"}}}}"#
    ));
    let respond_with = |text: String| {
        act(move |peer| {
            let head = peer.head().unwrap_or_default();
            let length = support::find(head.as_bytes(), b"content-length: ");
            let length = length.map_or("", |at| &head[at + 16..]);
            peer.body(length.split('\r').next().unwrap().parse().unwrap_or(0));
            peer.respond(&text);
        })
    };
    let sts = Script::new(vec![
        respond_with(odd),
        respond_with(key),
        respond_with(error),
    ]);
    // As AWS's own servers do: the whole request, its token included, in the refusal.
    let cos = Script::new(vec![act(|peer| {
        while let Some(head) = peer.head() {
            let head = head.replace("\r\n", "&#10;");
            let body = format!(
                "<Error><Code>SignatureDoesNotMatch</Code><Message>{head}</Message><StringToSign>{head}</StringToSign><CanonicalRequest>{head}</CanonicalRequest></Error>"
            );
            peer.respond(&format!(
                "HTTP/1.1 403 Forbidden\r\nx-amz-security-token: {}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n{body}",
                CANARIES[3],
                body.len()
            ));
        }
    })]);
    let file = File::new(&canary_config(cos.addr, sts.addr));
    let mut session = Session::start(&file);
    for _ in 0..3 {
        assert_eq!(session.fetch(&session.call("GET", "/photos/acme/a")), 503);
    }
    assert!(cos.heads()[0].contains(token));
    let globex = Call::new(session.listen, "GET", "/photos/globex/a").signed_by(GLOBEX);
    assert_eq!(session.fetch(&globex), 503);
    session.end();
}
