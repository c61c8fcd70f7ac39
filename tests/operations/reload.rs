//! Reloads of the program: by signal, by the admin listener, and by files that change.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cosgate::emulator::Emulator;
use rustls::version::TLS13;

use crate::support::{
    self, ACME, Authority, Call, Client, Program, Reply, eventually, tls_client, toml,
};

const PHOTO: &str = "/photos/acme/photo-0001.jpg";
const SIGNALS: usize = 50;

fn text(emulator: &Emulator, more: &str) -> String {
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), more);
    text.replace("admin = \"\"", "admin = \"127.0.0.1:0\"")
}

fn get(addr: SocketAddr, key: (&str, &str)) -> Reply {
    Call::new(addr, "GET", PHOTO).signed_by(key).send()
}

fn put(program: &Program) {
    let call = Call::new(program.addr, "PUT", PHOTO).signed_by(ACME);
    call.body("mine").send().assert_ok();
}

fn post_reload(program: &Program) -> Reply {
    Call::new(program.address("admin="), "POST", "/reload").send()
}

/// As careful people write a file: nobody sees half of it.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn signals_under_load_lose_no_request() {
    let emulator = support::emulator();
    let program = Arc::new(Program::serve(&text(&emulator, "")));
    put(&program);
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (program, is_over) = (Arc::clone(&program), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut client = Client::connect(program.addr);
                let mut count = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    let target = format!("/photos/acme/{number}/photo-{count:04}.jpg");
                    let call = Call::new(program.addr, "PUT", &target).signed_by(ACME);
                    client.write(&call.body(format!("{number} {count}")).bytes());
                    client.read_reply("PUT").assert_ok();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let reloads = || {
        program
            .printed()
            .matches("the configuration is reloaded")
            .count()
    };
    for number in 1..=SIGNALS {
        let limits = format!("[tenants.acme.limits]\nobject_size = {}", 1000 + number);
        replace(&program.config(), &text(&emulator, &limits));
        program.signal("HUP");
        eventually("the reload is logged", || reloads() >= number);
    }
    is_over.store(true, Ordering::Relaxed);
    let requests: u32 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    assert!(requests > 50, "{requests}");
    assert!(
        program.printed().contains("~ tenant acme (limits)"),
        "{}",
        program.printed()
    );
}

#[test]
fn the_response_to_post_reload_has_every_problem_or_every_change() {
    let emulator = support::emulator();
    let good = text(&emulator, "");
    let program = Program::serve(&good);
    put(&program);
    let same = post_reload(&program);
    assert_eq!((same.status, same.text().as_str()), (200, "reloaded\n"));
    let bad = good
        .replace("prefixes = [\"acme/*\"]", "prefixes = []")
        .replace(
            "region = \"ap-guangzhou\"\nthreads",
            "regiun = \"x\"\nthreads",
        );
    replace(&program.config(), &bad);
    let refused = post_reload(&program);
    assert_eq!(refused.status, 422);
    for part in [
        "cosgate.toml:6:1: error: unknown key `regiun`",
        "`prefixes`",
        "help:",
        "nothing has changed",
    ] {
        assert!(refused.text().contains(part), "{part}: {}", refused.text());
    }
    program_prints(&program, "unknown key `regiun`");
    assert_eq!(get(program.addr, ACME).assert_ok().text(), "mine");
    let other = good
        .replace("threads = 1", "threads = 2")
        .replace(ACME.0, "ACMEKEY0000000000002");
    replace(&program.config(), &other);
    let taken = post_reload(&program);
    assert_eq!(taken.status, 200);
    for part in [
        "- key ACMEKEY0000000000001",
        "+ key ACMEKEY0000000000002",
        "needs a restart: [server] threads",
    ] {
        assert!(taken.text().contains(part), "{part}: {}", taken.text());
    }
    get(program.addr, ACME).assert_error(403, "InvalidAccessKeyId");
    get(program.addr, ("ACMEKEY0000000000002", ACME.1)).assert_ok();
    let admin = program.address("admin=");
    assert_eq!(Call::new(admin, "GET", "/reload").send().status, 405);
    let of_page = Call::new(admin, "POST", "/reload").header("origin", "http://127.0.0.1");
    assert_eq!(of_page.send().status, 403);
    let metrics = Call::new(admin, "GET", "/metrics").send().text();
    for line in [
        "cosgate_reloads_total{result=\"taken\"} 2",
        "cosgate_reloads_total{result=\"refused\"} 1",
        "cosgate_configurations 1",
        "cosgate_access_keys_ending{within=\"7d\"} 0",
    ] {
        assert!(
            metrics.lines().any(|printed| printed == line),
            "{line}: {metrics}"
        );
    }
}

fn program_prints(program: &Program, text: &str) {
    eventually(text, || program.printed().contains(text));
}

#[test]
fn secrets_and_certificates_are_taken_when_they_change_and_a_file_that_is_edited_is_not() {
    let emulator = support::emulator();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (cert, key) = old.pair("localhost");
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("acme");
    fs::write(&secret, ACME.1).unwrap();
    let tls = format!(
        "[server.tls]\ncert = '{}'\nkey = '{}'",
        cert.display(),
        key.display()
    );
    let of_file = format!("file:{}", secret.display());
    let program = Program::serve(&text(&emulator, &tls).replace("env:ACME_SECRET", &of_file));
    let fetch = |authority: &Authority, secret: &str| {
        let tls = tls_client(&authority.ca(), None, &[&TLS13]);
        let mut client = Client::connect_tls(program.addr, "localhost", tls);
        let call = Call::new(program.addr, "GET", PHOTO).signed_by((ACME.0, secret));
        client.write(&call.bytes());
        client.fill().then(|| client.read_reply("GET").status)
    };
    assert_eq!(fetch(&old, ACME.1), Some(404));
    // Somebody is editing the file meanwhile.
    replace(&program.config(), "[server");
    replace(&secret, "another-secret-of-acme-0123456789");
    eventually("the new secret counts", || {
        fetch(&old, "another-secret-of-acme-0123456789") == Some(404)
    });
    assert_eq!(fetch(&old, ACME.1), Some(403));
    program_prints(
        &program,
        "~ tenant acme (~ key ACMEKEY0000000000001 (secret))",
    );
    assert!(!program.printed().contains("another-secret"));
    // A certificate without its key changes nothing.
    let pair = new.pair("localhost");
    replace(&cert, &fs::read_to_string(pair.0).unwrap());
    program_prints(&program, "is not that of the certificate");
    assert_eq!(fetch(&old, "another-secret-of-acme-0123456789"), Some(404));
    replace(&key, &fs::read_to_string(pair.1).unwrap());
    eventually("the new certificate is shown", || {
        fetch(&new, "another-secret-of-acme-0123456789") == Some(404)
    });
    assert_eq!(fetch(&old, "another-secret-of-acme-0123456789"), None);
}

#[test]
fn files_are_watched_where_that_is_configured_and_those_that_are_included_too() {
    let emulator = support::emulator();
    let program = Program::serve(&text(&emulator, ""));
    let folder = program.config().with_file_name("tenants.d");
    fs::create_dir(&folder).unwrap();
    let watched = text(&emulator, "[include]\nfiles = [\"tenants.d/*.toml\"]")
        .replace("threads = 1", "threads = 1\nreload_on_change = true");
    replace(&program.config(), &watched);
    program.signal("HUP");
    program_prints(&program, "the configuration is reloaded");
    let initech = "[tenants.initech]\nissuer = \"main\"\n\
        access_keys = [{ id = \"INITECHKEY0000000001\", secret = \"file:secret\" }]\n\
        [[tenants.initech.grants]]\nname = \"photos\"\nbucket = \"shared-1250000000\"\nregion = \"ap-guangzhou\"\n\
        prefixes = [\"initech/*\"]\nactions = [\"read\", \"write\"]\n";
    replace(
        &folder.join("secret"),
        "initech-local-secret-0000000000000000000",
    );
    replace(&folder.join("initech.toml"), initech);
    program_prints(&program, "+ tenant initech");
    let key = (
        "INITECHKEY0000000001",
        "initech-local-secret-0000000000000000000",
    );
    let call = Call::new(program.addr, "PUT", "/photos/initech/photo-0001.jpg");
    call.signed_by(key).body("mine").send().assert_ok();
    replace(
        &folder.join("initech.toml"),
        &initech.replace("[\"read\", \"write\"]", "[\"rad\"]"),
    );
    program_prints(&program, "tenants.d/initech.toml:9:");
    replace(&folder.join("initech.toml"), "");
    program_prints(&program, "- tenant initech");
}
