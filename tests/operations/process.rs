//! The process: signals that do not end it, descriptors that clients cannot take, logs whose readers
//! have stopped.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, and measures real time"
)]

use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    self, ACCOUNT, ACME, Call, Client, GLOBEX, Printed, Program, eventually, toml,
};
use cosgate::emulator::{CosFault, Emulator, Faults};

const KEY: &str = "/photos/acme/k";
const SECOND: Duration = Duration::from_secs(1);

fn cosgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cosgate"));
    command
        .args(arguments)
        .env("ACCOUNT_ID", ACCOUNT.0)
        .env("ACCOUNT_SECRET", ACCOUNT.1)
        .env("ACME_SECRET", ACME.1)
        .env("GLOBEX_SECRET", GLOBEX.1)
        .env_remove("COSGATE_LOG")
        .stdin(Stdio::null());
    command
}

/// A process that does not outlive its test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Owned {
    fn signal(&self, name: &str) {
        support::run("kill", &["-s", name, &self.0.id().to_string()]);
    }

    fn wait(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn with_admin(emulator: &Emulator, admin: &str) -> String {
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    text.replace("admin = \"\"", &format!("admin = \"{admin}\""))
}

fn get(addr: SocketAddr) -> Call {
    Call::new(addr, "GET", KEY).signed_by(ACME)
}

fn metric(admin: SocketAddr, name: &str) -> u64 {
    let page = Call::new(admin, "GET", "/metrics").send().text();
    let line = page.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn signals_that_do_not_end_it_leave_every_server_serving() {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cosgate.toml");
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    fs::write(&config, text).unwrap();
    let any = "127.0.0.1:0";
    for (arguments, mark) in [
        (vec!["serve", "-c", config.to_str().unwrap()], "listen="),
        (vec!["dev", "--listen", any], "ready on http://"),
        (
            vec!["emulator", "--cos", any, "--sts", any, "--admin", any],
            "COS    http://",
        ),
    ] {
        let mut command = cosgate(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Owned(command.spawn().unwrap());
        let out = Printed::from(process.0.stdout.take().unwrap());
        let err = Printed::from(process.0.stderr.take().unwrap());
        let addr = if mark == "listen=" {
            err.address(mark)
        } else {
            out.address(mark)
        };
        for name in ["USR1", "USR2", "PIPE", "HUP"] {
            process.signal(name);
        }
        let logged = match mark {
            "listen=" => "the configuration is reloaded",
            _ => "SIGHUP ignored",
        };
        eventually("SIGHUP is logged", || err.text().contains(logged));
        assert!(get(addr).send().status >= 200, "{arguments:?}");
        process.signal("QUIT");
        assert_eq!(process.wait(), Some(0), "{arguments:?}: {}", err.text());
    }
}

#[test]
fn writes_the_program_log_as_json() {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cosgate.toml");
    let text = toml(
        emulator.cos_addr(),
        emulator.sts_addr(),
        "[log]\nprogram = \"json\"\n",
    );
    let is_json = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        ["time", "level", "target", "message"]
            .iter()
            .all(|name| line[name].is_string())
    };

    fs::write(&config, &text).unwrap();
    let mut command = cosgate(&["serve", "-c", config.to_str().unwrap()]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Owned(command.spawn().unwrap());
    let err = Printed::from(process.0.stderr.take().unwrap());
    eventually("it serves", || err.text().contains("cosgate serves"));
    let as_text = text.replace("program = \"json\"", "program = \"text\"");
    fs::write(&config, as_text).unwrap();
    process.signal("HUP");
    eventually("a reload changes it", || {
        err.text().contains(": reloaded change=")
    });
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    let printed = err.text();
    let (before, after) = printed.split_once("cosgate serves").unwrap();
    assert!(before.lines().rev().skip(1).all(is_json), "{before}");
    assert!(
        !after.lines().skip(1).any(|line| line.starts_with('{')),
        "{after}"
    );

    fs::write(&config, "[server]\nlisten = 7\n").unwrap();
    let mut command = cosgate(&["serve", "-c", config.to_str().unwrap()]);
    let out = command.env("COSGATE_LOG_PROGRAM", "json").output().unwrap();
    let printed = String::from_utf8(out.stderr).unwrap();
    assert!(
        !out.status.success() && printed.contains("listen"),
        "{printed}"
    );
    assert!(printed.lines().all(is_json), "{printed}");
}

#[test]
fn reopens_the_access_log_at_a_signal() {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let (log, old) = (
        folder.path().join("access.log"),
        folder.path().join("access.log.1"),
    );
    let more = format!("[log]\naccess_file = {log:?}\naccess_share = \"100%\"\n");
    let (mut out, stdout) = pipe().unwrap();
    let (_err, stderr) = pipe().unwrap();
    let mut muted = Muted::start(&emulator, "info", &more, stdout, stderr);
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    get(muted.addr).send();
    eventually("a line", || lines(&log) == 1);
    fs::rename(&log, &old).unwrap();
    get(muted.addr).send();
    eventually("the old file goes on", || lines(&old) == 2);
    muted.process.signal("USR1");
    eventually("there is a new file", || log.exists());
    get(muted.addr).send();
    muted.process.signal("TERM");
    assert_eq!(muted.process.wait(), Some(0));
    assert_eq!((lines(&old), lines(&log)), (2, 1));
    let mut printed = String::new();
    drop(muted);
    out.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "", "the file takes the place of standard output");
}

/// Its configuration is a pipe: it is being read as long as the test likes.
#[cfg(target_os = "linux")]
#[test]
fn signals_before_the_server_is_up_do_not_end_it() {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cosgate.toml");
    let path = config.to_str().unwrap();
    support::run("mkfifo", &[path]);
    let mut command = cosgate(&["serve", "-c", path]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Owned(command.spawn().unwrap());
    let err = Printed::from(process.0.stderr.take().unwrap());
    let mut writer = fs::OpenOptions::new().write(true).open(&config).unwrap(); // it reads now
    for name in ["HUP", "USR1", "USR2"] {
        process.signal(name);
    }
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    writer.write_all(text.as_bytes()).unwrap();
    drop(writer);
    let addr = err.address("listen=");
    assert_eq!(get(addr).send().status, 404);
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
}

#[test]
fn the_admin_pages_are_served_while_clients_hold_all_descriptors_that_they_may() {
    let emulator = support::emulator();
    let toml = with_admin(&emulator, "127.0.0.1:0");
    let program = Program::serve_under(&["prlimit", "--nofile=100:100"], &toml);
    let printed = program.printed();
    let warning = printed
        .lines()
        .find(|line| line.contains("file descriptors"));
    let warning = warning.unwrap_or_else(|| panic!("no warning in {printed}"));
    for part in ["limit=100", "connections=16384", "LimitNOFILE", "ulimit -n"] {
        assert!(warning.contains(part), "{warning}");
    }
    let admin = program.address("admin=");
    let mut first = Client::connect(program.addr);
    first.write(&get(program.addr).bytes());
    assert_eq!(first.read_one("GET").status, 404);
    let idle: Vec<_> = (0..150)
        .map(|_| TcpStream::connect(program.addr).unwrap())
        .collect();
    eventually("accepting pauses", || {
        program.printed().contains("accepting pauses")
    });
    for _ in 0..3 {
        for page in ["/readyz", "/livez", "/metrics"] {
            let started = Instant::now();
            let reply = Call::new(admin, "GET", page).send();
            assert_eq!(reply.status, 200);
            assert!(
                started.elapsed() < 5 * SECOND,
                "{page}: {:?}",
                started.elapsed()
            );
        }
    }
    let open = metric(admin, "cosgate_connections ");
    assert!((10..64).contains(&open), "{open} clients");
    // Who was there is served, by new connections to COS too.
    let other = Call::new(program.addr, "GET", "/photos/acme/other").signed_by(ACME);
    for call in [get(program.addr), other] {
        first.write(&call.bytes());
        assert_eq!(first.read_one("GET").status, 404);
    }
    drop(idle);
    assert_eq!(get(program.addr).send().status, 404, "accepting goes on");
}

#[test]
fn the_admin_pages_are_served_while_others_hold_connections_and_send_nothing() {
    let emulator = support::emulator();
    let program = Program::serve(&with_admin(&emulator, "127.0.0.1:0"));
    let admin = program.address("admin=");
    let _silent: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect_timeout(&admin, 5 * SECOND).unwrap();
            stream.write_all(b"GET /live").unwrap();
            stream
        })
        .collect();
    for page in ["/readyz", "/livez", "/metrics"] {
        let started = Instant::now();
        assert_eq!(Call::new(admin, "GET", page).send().status, 200);
        let took = started.elapsed();
        assert!(took < 5 * SECOND, "{page}: {took:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let emulator = support::emulator();
    let toml = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let program = Program::serve_under(&["prlimit", "--nofile=90:4000"], &toml);
    let limits = format!("/proc/{}/limits", program.process.id());
    let limits = fs::read_to_string(limits).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = line.unwrap().split_ascii_whitespace().collect();
    assert_eq!(words.get(3..5), Some(["4000", "4000"].as_slice()));
}

/// Connections that find no room in the queue of the listener come back after a second.
#[test]
fn a_thousand_connections_at_once_are_made_at_once() {
    const MANY: usize = 1000;
    cosgate::transport::descriptors::raise_limit().unwrap();
    let emulator = support::emulator();
    let program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let connect = |_| {
        let started = Instant::now();
        (Client::connect(program.addr), started.elapsed())
    };
    let (mut clients, mut times): (Vec<_>, Vec<_>) = (0..MANY).map(connect).unzip();
    times.sort();
    let late = times.get(MANY * 99 / 100).unwrap();
    assert!(*late < SECOND, "p99 {late:?}");
    let unsigned = Call::new(program.addr, "GET", KEY).bytes();
    for client in &mut clients {
        client.write(&unsigned);
    }
    for client in &mut clients {
        assert_eq!(client.read_one("GET").status, 403);
    }
}

/// A pipe in which there is no room, and whose reader has stopped.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'x'; 1 << 16]).unwrap(); // what a pipe holds (pipe(7))
    (reader, writer)
}

/// `serve` at known addresses, since it cannot say them.
struct Muted {
    process: Owned,
    addr: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Muted {
    fn start(emulator: &Emulator, log: &str, more: &str, out: PipeWriter, err: PipeWriter) -> Self {
        let (addr, admin) = (free(), free());
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("cosgate.toml");
        let text = with_admin(emulator, &admin.to_string()) + more;
        fs::write(&config, text).unwrap();
        let mut command = cosgate(&["serve", "-c", config.to_str().unwrap()]);
        command
            .env("COSGATE_SERVER_LISTEN", addr.to_string())
            .env("COSGATE_LOG", log)
            .stdout(out)
            .stderr(err);
        let process = Owned(command.spawn().unwrap());
        eventually("it listens", || TcpStream::connect(addr).is_ok());
        Self {
            process,
            addr,
            admin,
            _folder: folder,
        }
    }
}

fn failing(emulator: &Emulator, fails: bool) {
    let error = CosFault::Error {
        status: 500,
        code: "InternalError".to_owned(),
    };
    emulator.faults().set(Faults {
        cos: fails.then_some(error),
        ..Faults::default()
    });
}

#[test]
fn logs_whose_readers_have_stopped_hold_up_nobody() {
    let emulator = support::emulator();
    let (_out, stdout) = full_pipe();
    let (_err, stderr) = full_pipe();
    // The configuration is warned about, too.
    let literal =
        "[issuers.other]\nkind = \"federation\"\nsecret_id = \"AKID\"\nsecret_key = \"KEY\"\n";
    let mut muted = Muted::start(&emulator, "info", literal, stdout, stderr);
    for fails in [true, false] {
        failing(&emulator, fails);
        for _ in 0..300 {
            let started = Instant::now();
            let status = get(muted.addr).send().status;
            assert_eq!(status >= 500, fails, "{status}");
            assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
        }
    }
    let started = Instant::now();
    muted.process.signal("TERM");
    assert_eq!(muted.process.wait(), Some(0));
    assert!(started.elapsed() < 15 * SECOND, "{:?}", started.elapsed());
}

#[test]
fn lost_lines_are_counted_and_reported_when_the_log_flows_again() {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let certs = certs.to_str().unwrap();
    let made = cosgate(&["certs", certs]).stdout(Stdio::null()).status();
    assert!(made.unwrap().success());
    let tls =
        format!("[server.tls]\ncert = \"{certs}/server.pem\"\nkey = \"{certs}/server.key\"\n");
    let (_, stdout) = full_pipe();
    let (err, stderr) = full_pipe();
    let mut muted = Muted::start(&emulator, "debug", &tls, stdout, stderr);
    let lost = || metric(muted.admin, "cosgate_program_log_dropped_total");
    assert_eq!(lost(), 0);
    // Each handshake that fails is a line for those who debug.
    for _ in 0..2000 {
        let mut client = TcpStream::connect(muted.addr).unwrap();
        client.write_all(b"this is no TLS at all\r\n\r\n").unwrap();
        let _ = client.read(&mut [0; 64]);
    }
    eventually("lines are lost", || lost() > 0);
    let err = Printed::from(err);
    eventually("the loss is reported", || {
        err.text().contains("log lines lost lines=")
    });
    muted.process.signal("TERM");
    assert_eq!(muted.process.wait(), Some(0));
}

#[test]
fn serve_goes_on_when_nobody_reads_its_access_log() {
    let emulator = support::emulator();
    let (out, stdout) = pipe().unwrap();
    drop(out);
    let (err, stderr) = pipe().unwrap();
    let err = Printed::from(err);
    let mut muted = Muted::start(&emulator, "info", "", stdout, stderr);
    for _ in 0..10 {
        assert_eq!(get(muted.addr).send().status, 404);
    }
    eventually("the lines are counted", || {
        metric(muted.admin, "cosgate_access_log_dropped_total") >= 10
    });
    eventually("the operator is notified", || {
        err.text().contains("access log lines lost")
    });
    muted.process.signal("TERM");
    assert_eq!(muted.process.wait(), Some(0));
}

#[test]
fn a_cause_is_logged_once_a_second_with_the_number_of_the_others() {
    let emulator = support::emulator();
    let mut program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    failing(&emulator, true);
    let started = Instant::now();
    for _ in 0..100 {
        assert!(get(program.addr).send().status >= 500);
    }
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    program.signal("TERM");
    assert_eq!(program.wait(), Some(0));
    let logged = || {
        let printed = program.printed();
        let lines = printed
            .lines()
            .filter(|line| line.contains("request failed"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let suppressed = |line: &String| {
        let (_, count) = line.rsplit_once(" suppressed=")?;
        count.parse::<usize>().ok()
    };
    // Each line reports one failure, or how many were left out.
    eventually("all are logged", || {
        let counts = logged();
        counts
            .iter()
            .map(|line| suppressed(line).unwrap_or(1))
            .sum::<usize>()
            == 100
    });
    assert!(logged().len() <= seconds + 2, "{:?}", logged());
}

/// Runs a command whose reader has left, as `head` does: its exit status and standard error.
fn without_reader(arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = cosgate(arguments);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn();
    let output = output.unwrap().wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn every_command_ends_quietly_when_its_reader_has_left() {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cosgate.toml");
    fs::write(&config, toml(emulator.cos_addr(), emulator.sts_addr(), "")).unwrap();
    let (config, certs) = (config.to_str().unwrap(), folder.path().join("certs"));
    let explain = ["explain", "-c", config, "-t", "acme", "GET", KEY];
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["help", "serve"],
        &["explain", "--help"],
        &["keygen"],
        &["check", "-c", config],
        &["certs", certs.to_str().unwrap()],
        &["credentials", "-c", config, "-t", "acme"],
        &explain,
        &[&explain[..], &["-f", "json"]].concat(),
    ] {
        assert_eq!(
            without_reader(arguments),
            (Some(0), String::new()),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_command_whose_complaint_nobody_reads_does_not_panic() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = cosgate(&["check", "-c", "/does/not/exist"]);
    let status = command.stdout(Stdio::null()).stderr(writer).status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = cosgate(&["keygen"]);
    let output = command.stdout(full.unwrap()).stderr(Stdio::piped()).spawn();
    let output = output.unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        printed.contains("cannot write to standard output"),
        "{printed}"
    );
}

#[test]
fn dev_and_the_emulator_serve_on_when_nobody_reads_what_they_print() {
    let [dev, cos, sts, admin] = [free(), free(), free(), free()].map(|addr| addr.to_string());
    let emulator = ["emulator", "--cos", &cos, "--sts", &sts, "--admin", &admin];
    for (arguments, addr) in [(&["dev", "--listen", &dev][..], &dev), (&emulator, &cos)] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = cosgate(arguments);
        command.stdout(writer).stderr(Stdio::piped());
        let mut process = Owned(command.spawn().unwrap());
        eventually("it listens", || TcpStream::connect(addr).is_ok());
        let public = Call::new(addr.parse().unwrap(), "GET", "/demo/public/none");
        for _ in 0..3 {
            assert!(matches!(public.send().status, 403 | 404));
        }
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0));
        let mut printed = String::new();
        process
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut printed)
            .unwrap();
        assert!(!printed.contains("panicked"), "{printed}");
    }
}
