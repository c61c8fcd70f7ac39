//! Clients on a Unix socket: the kernel identifies their user.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic, and measures real time"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{ACME, Call, GLOBEX, PATIENCE, World, eventually};

const KEY: &str = "/photos/acme/a";
const PUBLIC: &str = "/photos/public/a";
/// A user that owns nothing.
const STRANGER: u32 = 4242;
/// The request and the socket for the test's own program when it runs as another user.
const VARIABLES: [&str; 2] = ["COSGATE_TEST_SOCKET", "COSGATE_TEST_SAYS"];

/// cosgate on a Unix socket.
struct Socket {
    world: World,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Socket {
    /// `server` contains keys of `[server]`, and `acme` keys of that tenant.
    fn new(server: &str, acme: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = folder.path().join("s3.sock");
        let world = World::edited(|toml| {
            let listen = format!("listen = \"unix:{}\"\n{server}", path.display());
            toml.replacen("listen = \"127.0.0.1:0\"", &listen, 1)
                .replacen("[tenants.acme]", &format!("[tenants.acme]\n{acme}"), 1)
        });
        Self {
            world,
            path,
            folder,
        }
    }

    /// The user that runs cosgate, and these tests.
    fn own(&self) -> u32 {
        self.folder.path().metadata().unwrap().uid()
    }

    fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.world.gateway.addr, method, target).header("host", "localhost")
    }
}

/// The whole response.
fn exchange(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[track_caller]
fn assert_status(response: &str, status: u16) {
    let line = format!("HTTP/1.1 {status} ");
    assert!(
        response.starts_with(&line),
        "{status} was wanted: {response}"
    );
}

/// The same from [`STRANGER`]; `None` if these tests may not change their user.
fn send_as_another_user(path: &Path, request: &[u8]) -> Option<String> {
    // The other user must be able to run the program.
    let program = path.with_file_name("speaker");
    if !program.exists() {
        // Not `std::fs::copy`: a child of another test could hold the file open for writing, and then it cannot be run.
        let copied = Command::new("cp")
            .arg(std::env::current_exe().unwrap())
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
    }
    let spoken = Command::new(program)
        .args([
            "--exact",
            "unix_socket::request_as_another_user",
            "--nocapture",
        ])
        .env(VARIABLES[0], path)
        .env(VARIABLES[1], String::from_utf8_lossy(request).as_ref())
        .current_dir("/")
        .uid(STRANGER)
        .gid(STRANGER)
        .output();
    match spoken {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("left out: only root can be another user");
            None
        }
        spoken => {
            let shown = String::from_utf8(spoken.unwrap().stdout).unwrap();
            let response = shown.find("HTTP/1.1 ").unwrap_or(0);
            Some(shown.get(response..).unwrap().to_owned())
        }
    }
}

/// Not a test, except when [`send_as_another_user`] runs it.
#[test]
fn request_as_another_user() {
    let [Some(socket), Some(request)] = VARIABLES.map(std::env::var_os) else {
        return;
    };
    match UnixStream::connect(&socket) {
        Ok(_) => println!(
            "{}",
            exchange(Path::new(&socket), request.to_string_lossy().as_bytes())
        ),
        Err(error) => println!("{error}"),
    }
}

#[test]
fn user_identifies_its_tenant() {
    let own = tempfile::tempdir()
        .unwrap()
        .path()
        .metadata()
        .unwrap()
        .uid();
    let socket = Socket::new("", &format!("unix_users = [{own}]"));
    assert_eq!(socket.own(), own);
    let exchange = |call: &Call| exchange(&socket.path, &call.bytes());
    assert_status(&exchange(&socket.call("PUT", KEY).body("mine")), 200);
    let got = exchange(&socket.call("GET", KEY));
    assert_status(&got, 200);
    assert!(got.ends_with("mine"), "{got}");
    let log = &socket.world.gateway.log;
    log.assert_contains(&format!(
        "\"uid\":{own},\"tenant\":\"acme\",\"identity\":\"unix\""
    ));
    assert!(!log.text().contains("\"client\""), "{}", log.text());
    // Only objects of that tenant, and not for web pages, for chosen response headers or through a proxy.
    assert_status(&exchange(&socket.call("GET", "/photos/globex/a")), 403);
    let page = socket
        .call("GET", KEY)
        .header("origin", "https://evil.example");
    assert_status(&exchange(&page), 403);
    let typed = format!("{KEY}?response-content-type=text%2Fhtml");
    assert_status(&exchange(&socket.call("GET", &typed)), 400);
    for forwarded in ["x-forwarded-for", "forwarded"] {
        let call = socket.call("GET", KEY).header(forwarded, "127.0.0.1");
        assert_status(&exchange(&call), 403);
    }
    // A signature identifies its signer, in every form.
    let signed = Call::new(socket.world.gateway.addr, "PUT", "/photos/globex/a").signed_by(GLOBEX);
    assert_status(&exchange(&signed.body("theirs")), 200);
    log.assert_contains("\"tenant\":\"globex\",\"identity\":\"sigv4\"");
    let wrong = Call::new(socket.world.gateway.addr, "GET", KEY).signed_by((ACME.0, "wrong"));
    let refused = exchange(&wrong);
    assert_status(&refused, 403);
    assert!(refused.contains("SignatureDoesNotMatch"), "{refused}");
}

#[test]
fn other_users_are_refused_or_anonymous() {
    let closed = Socket::new("", "");
    let get = closed.call("GET", PUBLIC);
    assert_status(&exchange(&closed.path, &get.clone().body("").bytes()), 404);
    assert_eq!(closed.path.metadata().unwrap().mode() & 0o777, 0o600);
    let Some(shown) = send_as_another_user(&closed.path, &get.bytes()) else {
        return;
    };
    assert!(shown.contains("Permission denied"), "{shown}");
    for (server, acme, public, private) in [
        ("", "", 403, 403),
        ("", "unix_users = [4242]", 403, 404),
        ("allow_remote_anonymous = true", "", 404, 403),
    ] {
        let open = Socket::new(&format!("socket_mode = \"0666\"\n{server}"), acme);
        let send = |target| {
            let call = open.call("GET", target);
            send_as_another_user(&open.path, &call.bytes()).unwrap()
        };
        assert_status(&send(PUBLIC), public);
        assert_status(&send(KEY), private);
        open.world.gateway.log.assert_contains("\"uid\":4242");
        // Their signatures are still accepted.
        let signed = Call::new(open.world.gateway.addr, "GET", KEY).signed_by(ACME);
        assert_status(
            &send_as_another_user(&open.path, &signed.bytes()).unwrap(),
            404,
        );
    }
}

#[test]
fn limits_connections_per_user() {
    let server = "socket_mode = \"0666\"\nlimits.connections_per_address = 2";
    let socket = Socket::new(server, "");
    let bytes = socket.call("GET", PUBLIC).bytes();
    let held = [(); 2].map(|()| UnixStream::connect(&socket.path).unwrap());
    let send = || {
        let mut stream = UnixStream::connect(&socket.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut response = String::new();
        let _ = stream.write_all(&bytes); // the connection may be closed already
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_string(&mut response);
        response
    };
    assert_eq!(send(), "");
    let refused = "cosgate_connections_refused_total";
    assert_eq!(socket.world.gateway.metric(refused, ""), 1);
    if let Some(shown) = send_as_another_user(&socket.path, &bytes) {
        assert_status(&shown, 403);
    }
    drop(held);
    eventually("its connections have ended", || !send().is_empty());
    assert_status(&send(), 404);
}

#[test]
fn allowed_addresses_need_a_trusted_proxy() {
    let own = tempfile::tempdir()
        .unwrap()
        .path()
        .metadata()
        .unwrap()
        .uid();
    let acme = format!("allowed_ips = [\"10.0.0.0/8\"]\nunix_users = [{own}]");
    for (server, from, status) in [
        ("", None, 403),
        ("", Some("10.0.0.1"), 403),
        ("trusted_proxies = [\"unix:4242\"]", Some("10.0.0.1"), 403),
        ("trusted_proxies = [\"unix:OWN\"]", None, 403),
        ("trusted_proxies = [\"unix:OWN\"]", Some("192.0.2.1"), 403),
        ("trusted_proxies = [\"unix:OWN\"]", Some("10.0.0.1"), 404),
    ] {
        let socket = Socket::new(&server.replace("OWN", &own.to_string()), &acme);
        let mut signed = Call::new(socket.world.gateway.addr, "GET", KEY).signed_by(ACME);
        if let Some(from) = from {
            signed = signed.header("x-forwarded-for", from);
        }
        assert_status(&exchange(&socket.path, &signed.bytes()), status);
        // The user of the socket cannot avoid this.
        assert_status(
            &exchange(&socket.path, &socket.call("GET", KEY).bytes()),
            403,
        );
    }
}

#[test]
fn trusted_user_sends_proxy_headers() {
    let own = tempfile::tempdir().unwrap().path().metadata().unwrap();
    let acme = format!(
        "allowed_ips = [\"10.0.0.0/8\"]\nunix_users = [{}]",
        own.uid()
    );
    let trusted = format!("trusted_proxies = [\"unix:{}\"]", own.uid());
    let socket = Socket::new(&format!("proxy_protocol = true\n{trusted}"), &acme);
    let signed = Call::new(socket.world.gateway.addr, "GET", KEY).signed_by(ACME);
    for (header, status) in [
        ("PROXY TCP4 10.1.2.3 198.51.100.1 50000 443\r\n", 404),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\n", 403),
        ("PROXY UNKNOWN\r\n", 403),
    ] {
        let shown = [header.as_bytes(), &signed.bytes()].concat();
        assert_status(&exchange(&socket.path, &shown), status);
        // A client behind the proxy does not count as the user of the proxy.
        let unsigned = socket.call("GET", KEY).bytes();
        let shown = [header.as_bytes(), &unsigned].concat();
        assert_status(&exchange(&socket.path, &shown), 403);
    }
}

#[test]
fn drain_removes_the_socket_and_completes_requests() {
    let mut socket = Socket::new("", "");
    let call = socket.call("PUT", PUBLIC).body("whole");
    let mut stream = UnixStream::connect(&socket.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&call.head()).unwrap();
    stream.write_all(b"wh").unwrap();
    let mut idle = UnixStream::connect(&socket.path).unwrap();
    eventually("the upload is in flight", || {
        socket.world.emulator.counters().heads().len() == 1
    });
    socket.world.gateway.drain();
    eventually("the file is gone", || !socket.path.exists());
    let mut nothing = Vec::new();
    idle.read_to_end(&mut nothing).unwrap();
    stream.write_all(b"ole").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert_status(&response, 200);
    assert_eq!(socket.world.stored("public/a").as_deref(), Some("whole"));
    socket.world.gateway.join();
}

#[test]
fn times_out_slow_heads() {
    let socket = Socket::new("limits = { head_timeout = \"200ms\" }", "");
    let mut stream = UnixStream::connect(&socket.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    let started = Instant::now();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    assert!(started.elapsed() < Duration::from_secs(5));
}
