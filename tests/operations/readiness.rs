//! The start and the end as a load balancer and systemd see them: readiness, the drain, sockets that are passed on.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and measures real time"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cosgate::emulator::{Emulator, FaultFile, Faults, StsFault};
use serde_json::{Value, json};

use crate::cli;
use crate::support::{self, ACME, Call, Client, GLOBEX, Program, Reply, eventually, toml};

const PHOTO: &str = "/photos/acme/photo-0001.jpg";

fn text(emulator: &Emulator, more: &str) -> String {
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), more);
    text.replace("admin = \"\"", "admin = \"127.0.0.1:0\"")
}

fn readyz(admin: SocketAddr) -> Reply {
    Call::new(admin, "GET", "/readyz").send()
}

/// What `cosgate health` says of `/readyz`, and whether it succeeds.
fn health(admin: SocketAddr) -> (bool, String) {
    let output = cli::run(&["health", &format!("http://{admin}/readyz")]);
    let printed = cli::stdout(&output) + &cli::stderr(&output);
    (output.status.success(), printed)
}

/// The part of this name, as `/readyz?verbose` says it.
fn part(admin: SocketAddr, name: &str) -> Value {
    let reply = Call::new(admin, "GET", "/readyz?verbose").send();
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let document: Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(document["ready"], reply.status == 200);
    let parts = document["parts"].as_array().unwrap();
    parts
        .iter()
        .find(|part| part["part"] == name)
        .unwrap()
        .clone()
}

fn get(addr: SocketAddr) -> Reply {
    Call::new(addr, "GET", PHOTO).signed_by(ACME).send()
}

#[test]
fn is_not_ready_before_an_issuer_has_given_a_key() {
    let emulator = support::emulator();
    emulator.faults().set(Faults {
        sts: Some(StsFault::Http500),
        ..Faults::default()
    });
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    let reply = readyz(admin);
    assert_eq!(reply.status, 503);
    let printed = reply.text();
    assert!(
        printed.starts_with("not ready\nkeys: no issuer has given a key yet"),
        "{printed}"
    );
    assert_eq!(Call::new(admin, "GET", "/livez").send().status, 200);
    emulator.faults().set(Faults::default());
    eventually("the probes themselves find that STS is back", || {
        readyz(admin).status == 200
    });
    assert_eq!(get(program.addr).status, 404);
    emulator.faults().set(Faults {
        sts: Some(StsFault::Http500),
        ..Faults::default()
    });
    assert_eq!(readyz(admin).text(), "ok\n", "live keys serve on");
    assert_eq!(get(program.addr).status, 404);
}

#[test]
fn the_first_probe_has_a_key_fetched_and_gets_200() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    assert_eq!(emulator.counters().counts().sts_calls, 0);
    assert_eq!(readyz(program.address("admin=")).status, 200);
    assert_eq!(emulator.counters().counts().sts_calls, 1);
}

#[test]
fn health_fails_until_cosgate_is_ready() {
    let emulator = support::emulator();
    emulator.faults().set(Faults {
        sts: Some(StsFault::Http500),
        ..Faults::default()
    });
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    let (is_healthy, printed) = health(admin);
    assert!(!is_healthy);
    let reason = "/readyz: 503: not ready\nkeys: no issuer has given a key yet";
    assert!(printed.contains(reason), "{printed}");
    emulator.faults().set(Faults::default());
    eventually("STS is back", || {
        health(admin) == (true, "200: ok\n".to_owned())
    });
    drop(program);
    let (is_healthy, printed) = health(admin);
    assert!(!is_healthy && printed.contains("refused"), "{printed}");
}

#[test]
fn reports_the_state_of_each_part() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    let held = |name: &str, required: bool, detail: &str| json!({ "part": name, "holds": true, "required": required, "detail": detail });
    assert_eq!(
        part(admin, "configuration"),
        held("configuration", true, "3 tenants, 0 templates")
    );
    // An issuer has given its key a moment before the tenant has it.
    let has_key = held("keys", true, "1 tenants have a live key");
    eventually("the key is there", || part(admin, "keys") == has_key);
    assert_eq!(part(admin, "sts"), held("sts", false, "calls are made"));
    assert_eq!(
        part(admin, "cos"),
        held("cos", false, "1 regions can be reached")
    );
}

#[test]
fn needs_cos_where_that_is_configured() {
    let emulator = support::emulator();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let away = |text: String| {
        let cos = emulator.cos_addr().to_string();
        text.replacen(&cos, &closed.to_string(), 1)
    };
    let program = Program::serve(&away(text(&emulator, "")));
    let admin = program.address("admin=");
    assert_eq!(readyz(admin).status, 200, "it is not required");
    let state = part(admin, "cos");
    assert_eq!(
        (&state["holds"], &state["required"]),
        (&json!(false), &json!(false))
    );
    let required =
        text(&emulator, "").replacen("[server]", "[server]\nready_requires = [\"cos\"]", 1);
    let program = Program::serve(&away(required.clone()));
    let reply = readyz(program.address("admin="));
    assert_eq!(reply.status, 503);
    let printed = reply.text();
    assert!(printed.contains("cos: ap-guangzhou: "), "{printed}");
    let program = Program::serve(&required);
    assert_eq!(readyz(program.address("admin=")).status, 200);
    // The buckets of templates are reached as those of tenants are.
    let template = "[identities.corp]\nissuer = \"https://id.example.com\"\naudience = \"cosgate\"\n\
        jwks = \"https://id.example.com/keys\"\n[templates.web]\nissuer = \"main\"\nidentity = \"corp\"\n\
        [[templates.web.grants]]\nname = \"photos\"\nbucket = \"photos-1250000000\"\nregion = \"ap-shanghai\"\n\
        prefixes = [\"{claim.sub}/*\"]\nactions = [\"read\"]\n";
    let program = Program::serve(&away(required + template));
    let printed = readyz(program.address("admin=")).text();
    assert!(printed.contains("ap-shanghai: "), "{printed}");
}

/// STS can refuse the policy of one tenant for ever, and give keys to all others.
#[test]
fn another_tenant_shows_that_an_issuer_gives_keys() {
    let emulator = support::emulator();
    let list = "[[faults]]\nservice = \"sts\"\ntenant = \"acme\"\ndo = { error = \"InvalidParameter.PolicyTooLong\" }\n";
    emulator.faults().set(Faults {
        faults: FaultFile::parse("faults.toml", list).unwrap().faults,
        ..Faults::default()
    });
    let program = Program::serve(&text(&emulator, ""));
    let admin = program.address("admin=");
    eventually("another tenant has a key", || readyz(admin).status == 200);
}

#[test]
fn needs_sts_where_that_is_configured() {
    let emulator = support::emulator();
    let required =
        text(&emulator, "").replacen("[server]", "[server]\nready_requires = [\"sts\"]", 1);
    let program = Program::serve(&required);
    let admin = program.address("admin=");
    assert_eq!(readyz(admin).status, 200);
    emulator.faults().set(Faults {
        sts: Some(StsFault::Http500),
        ..Faults::default()
    });
    eventually("globex's calls open the breaker", || {
        let call = Call::new(program.addr, "GET", "/photos/globex/a");
        call.signed_by(GLOBEX).send();
        readyz(admin).status == 503
    });
    assert!(
        readyz(admin)
            .text()
            .contains("sts: calls of 1 of 1 issuers fail")
    );
    emulator.faults().set(Faults::default());
    eventually("a call that succeeds closes it", || {
        let call = Call::new(program.addr, "GET", "/photos/globex/a");
        call.signed_by(GLOBEX).send();
        readyz(admin).status == 200
    });
}

#[test]
fn keys_of_all_tenants_are_fetched_before_it_is_ready_and_those_of_new_ones_after_a_reload() {
    const TENANTS: usize = 40;
    let emulator = support::emulator();
    let tenant = |number: usize| {
        format!(
            "[tenants.t{number}]\nissuer = \"main\"\naccess_keys = [{{ id = \"KEYOFTHETENANT{number:06}\", \
             secret = \"secretsecretsecretsecretsecret{number:06}\" }}]\n[[tenants.t{number}.grants]]\n\
             name = \"photos\"\nbucket = \"{}\"\nregion = \"ap-guangzhou\"\nprefixes = [\"{number}/*\"]\n\
             actions = [\"read\"]\n",
            support::BUCKET
        )
    };
    let tenants = |count: usize| (0..count).map(tenant).collect::<String>();
    let text = |count: usize| {
        text(
            &emulator,
            &format!("[credentials]\nwarm = true\n{}", tenants(count)),
        )
    };
    let program = Program::serve(&text(TENANTS));
    let admin = program.address("admin=");
    eventually("it is ready", || readyz(admin).status == 200);
    let calls = || emulator.counters().counts().sts_calls;
    assert_eq!(calls(), TENANTS as u64 + 3, "one for each tenant");
    std::fs::write(program.config(), text(TENANTS + 5)).unwrap();
    let reply = Call::new(admin, "POST", "/reload").send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        readyz(admin).status,
        200,
        "new tenants take nothing from the others"
    );
    eventually("the new tenants have keys", || {
        calls() == TENANTS as u64 + 8
    });
}

#[test]
fn a_drain_with_a_delay_fails_the_probe_first_and_closes_the_listener_later() {
    let emulator = support::emulator();
    let delay = "[server.limits]\ndrain_delay = \"1500ms\"\n";
    let mut program = Program::serve(&text(&emulator, delay));
    let admin = program.address("admin=");
    assert_eq!(readyz(admin).status, 200);
    program.signal("TERM");
    eventually("the probe fails", || readyz(admin).text() == "draining\n");
    let failed = Instant::now();
    let reply = get(program.addr);
    assert_eq!(reply.status, 404, "new connections are served");
    assert_eq!(reply.header("connection"), Some("close"), "once");
    eventually("the listener closes", || {
        TcpStream::connect(program.addr).is_err()
    });
    assert!(
        failed.elapsed() > Duration::from_secs(1),
        "{:?}",
        failed.elapsed()
    );
    assert_eq!(program.wait(), Some(0));
    let printed = program.printed();
    assert!(
        printed.contains("the drain has ended") && printed.contains("cut_short=0"),
        "{printed}"
    );
}

#[test]
fn a_second_signal_ends_the_delay() {
    let emulator = support::emulator();
    let delay = "[server.limits]\ndrain_delay = \"1h\"\n";
    let mut program = Program::serve(&text(&emulator, delay));
    let admin = program.address("admin=");
    program.signal("TERM");
    eventually("the probe fails", || readyz(admin).text() == "draining\n");
    let reload = Call::new(admin, "POST", "/reload").send();
    assert_eq!(reload.status, 503, "{}", reload.text());
    program.signal("TERM");
    assert_eq!(program.wait(), Some(0));
}

#[test]
fn systemd_is_notified_of_the_start_a_reload_the_end_and_that_it_lives() {
    let emulator = support::emulator();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    // Watchdog messages come between all others.
    let hear_next = || loop {
        let printed = hear();
        if printed.trim() != "WATCHDOG=1" {
            break printed;
        }
    };
    let address = format!("NOTIFY_SOCKET={}", path.display());
    let mut program = Program::serve_under(
        &["env", &address, "WATCHDOG_USEC=100000"],
        &text(&emulator, ""),
    );
    assert_eq!(hear_next().trim(), "READY=1");
    while hear().trim() != "WATCHDOG=1" {}
    program.signal("HUP");
    let printed = hear_next();
    assert!(
        printed.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{printed}"
    );
    assert_eq!(hear_next().trim(), "READY=1");
    program.signal("TERM");
    // The default `drain_timeout`, and a time for the end.
    assert_eq!(
        hear_next().trim(),
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=75000000"
    );
    assert_eq!(program.wait(), Some(0));
}

/// The socket stays open while one program ends and the next one starts, so no connection is refused.
#[test]
fn a_restart_with_a_passed_socket_loses_no_request() {
    const RESTARTS: usize = 3;
    const BETWEEN: usize = 300;
    let emulator = support::emulator();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let text = text(&emulator, "");
    let mut program = Program::serve_on(&listener, &[], &text);
    assert_eq!(program.addr, addr);
    let (is_over, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, served) = (Arc::clone(&is_over), Arc::clone(&served));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(get(addr).status, 404);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for restart in 1..=RESTARTS {
        eventually("requests are served", || {
            served.load(Ordering::Relaxed) > restart * BETWEEN
                || clients.iter().any(JoinHandle::is_finished)
        });
        program.signal("TERM");
        assert_eq!(program.wait(), Some(0));
        program = Program::serve_on(&listener, &[], &text);
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(get(addr).status, 404);
}

#[test]
fn another_cosgate_takes_over_a_port_that_is_shared() {
    let emulator = support::emulator();
    let shared = text(&emulator, "").replacen("[server]", "[server]\nreuse_port = true", 1);
    let mut old = Program::serve(&shared);
    let addr = old.addr;
    let admin = old.address("admin=");
    let same = shared
        .replacen("127.0.0.1:0", &addr.to_string(), 1)
        .replacen("127.0.0.1:0", &admin.to_string(), 1);
    let new = Program::serve(&same);
    assert_eq!((new.addr, new.address("admin=")), (addr, admin));
    let upload = Call::new(addr, "PUT", PHOTO).signed_by(ACME).body("half");
    let mut uploads: Vec<_> = (0..20).map(|_| Client::connect(addr)).collect();
    for upload_of_both in &mut uploads {
        let bytes = upload.bytes();
        upload_of_both.write(&bytes[..bytes.len() - 2]);
    }
    old.signal("TERM");
    // Those that the old one has hold it back. Its pages would say that it drains.
    // A probe whose connection it had not accepted yet is cut, and tries again.
    let is_ready = || -> std::io::Result<bool> {
        let mut probe = TcpStream::connect(admin)?;
        write!(
            probe,
            "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
        )?;
        let mut response = String::new();
        probe.read_to_string(&mut response)?;
        Ok(response.starts_with("HTTP/1.1 200 "))
    };
    eventually("the new one alone responds", || {
        (0..20).all(|_| is_ready().is_ok_and(|is_ready| is_ready))
    });
    for upload_of_both in &mut uploads {
        upload_of_both.write(b"lf");
    }
    assert_eq!(old.wait(), Some(0));
    for _ in 0..20 {
        assert_eq!(get(addr).status, 200);
    }
}

/// More than a runtime accepts in one go: the kernel resets what waits in a listener that closes.
#[test]
fn connections_that_wait_when_the_drain_begins_are_served() {
    const WAITING: usize = 300;
    let emulator = support::emulator();
    let mut program = Program::serve(&text(&emulator, ""));
    assert_eq!(get(program.addr).status, 404, "the key is there");
    program.signal("STOP");
    let request = format!("GET {PHOTO} HTTP/1.1\r\nHost: {}\r\n\r\n", program.addr);
    let waiting: Vec<_> = (0..WAITING)
        .map(|_| {
            let mut client = TcpStream::connect(program.addr).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client
        })
        .collect();
    program.signal("TERM");
    program.signal("CONT");
    let mut served = 0;
    for mut client in waiting {
        let mut response = Vec::new();
        let end = client.read_to_end(&mut response);
        served += usize::from(end.is_ok() && response.starts_with(b"HTTP/1.1 403"));
    }
    assert_eq!((served, program.wait()), (WAITING, Some(0)));
}
