//! Reloads: no request is lost, none mixes two configurations, and nothing of the old ones remains.
#![expect(clippy::disallowed_methods, reason = "real time is measured")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cosgate::clock::wall_clock;
use cosgate::proxy::Shared;
use rustls::version::TLS13;

use crate::support::{
    self, ACME, Authority, BUCKET, Call, Client, GLOBEX, Reply, World, eventually, tls_client, toml,
};

const PHOTO: &str = "/photos/acme/photo-0001.jpg";
/// The duration of random requests and reloads.
const SOAK: Duration = Duration::from_secs(3);
const CLIENTS: usize = 6;

fn text(world: &World, more: &str) -> String {
    toml(world.emulator.cos_addr(), world.emulator.sts_addr(), more)
}

fn reload(world: &World, text: &str) -> Vec<String> {
    world.gateway.reload(text).unwrap().changes
}

fn send(client: &mut Client, call: &Call) -> Reply {
    client.write(&call.bytes());
    client.read_reply(&call.method)
}

/// acme's bucket is the folder `root`, and its objects are attachments or not. A mix of both would be visible.
fn rooted(world: &World, root: &str, attachment: bool) -> String {
    let own = format!("root = \"{root}/\"\nattachment = {attachment}\nprefixes = [\"acme/*\"]");
    text(world, "").replacen("prefixes = [\"acme/*\"]", &own, 1)
}

/// The work of one client until the end: GETs and PUTs on one connection. Gives their number.
fn work(world: &World, number: usize, is_over: &AtomicBool) -> u64 {
    let mut client = Client::connect(world.gateway.addr);
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let got = send(&mut client, &world.signed("GET", PHOTO));
        let is_saved = got.header("content-disposition").is_some();
        let seen = (got.assert_ok().text(), is_saved);
        let known = [("blue".to_owned(), false), ("green".to_owned(), true)];
        assert!(
            known.contains(&seen),
            "a mix of two configurations: {seen:?}"
        );
        let key = format!("/photos/acme/{number}/照片 {}.jpg", count % 7).replace(' ', "%20");
        let key = key.replace("照片", "%E7%85%A7%E7%89%87");
        let body = format!("{number}-{count}");
        send(&mut client, &world.signed("PUT", &key).body(body)).assert_ok();
        let other = Call::new(world.gateway.addr, "GET", "/photos/globex/k").signed_by(GLOBEX);
        assert_eq!(send(&mut client, &other).assert_ok().text(), "globex's");
        count += 3;
    }
    count
}

#[test]
fn random_reloads_lose_and_mix_no_requests() {
    let world = Arc::new(World::new());
    for (root, content) in [("blue", "blue"), ("green", "green")] {
        let key = format!("{root}/acme/photo-0001.jpg");
        world
            .emulator
            .put_object(BUCKET, &key, content.as_bytes())
            .unwrap();
    }
    world
        .emulator
        .put_object(BUCKET, "globex/k", b"globex's")
        .unwrap();
    let (blue, green) = (rooted(&world, "blue", false), rooted(&world, "green", true));
    reload(&world, &blue);
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (world, is_over) = (Arc::clone(&world), Arc::clone(&is_over));
            std::thread::spawn(move || work(&world, number, &is_over))
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(15);
    let mut snapshots: Vec<Weak<Shared>> = Vec::new();
    let started = Instant::now();
    while started.elapsed() < SOAK {
        let text = if random.bool() { &blue } else { &green };
        reload(&world, text);
        snapshots.push(Arc::downgrade(&world.gateway.live.shared()));
        std::thread::sleep(Duration::from_millis(random.u64(..40)));
    }
    is_over.store(true, Ordering::Relaxed);
    let requests: u64 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    assert!(snapshots.len() > 20, "{} reloads", snapshots.len());
    assert!(requests > 100, "{requests} requests");
    // globex did not change: one key has served it all the time.
    let counts = world.emulator.counters().counts();
    let of_globex: u64 = counts
        .sts_by_name
        .iter()
        .filter(|(name, _)| name.contains("globex"))
        .map(|(_, calls)| calls)
        .sum();
    assert_eq!(of_globex, 1, "{:?}", counts.sts_by_name);
    // Idle connections keep no configuration.
    let idle: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(world.gateway.addr);
            send(&mut client, &world.signed("GET", PHOTO)).assert_ok();
            client
        })
        .collect();
    let last = reload(&world, &text(&world, ""));
    assert!(!last.is_empty());
    eventually("old snapshots are freed", || {
        world.gateway.live.sweep() == 1 // the test itself holds the first
    });
    let left = snapshots
        .iter()
        .filter(|old| old.strong_count() > 0)
        .count();
    assert_eq!(left, 0, "of {}", snapshots.len());
    drop(idle);
}

#[test]
fn request_keeps_its_configuration_during_a_reload() {
    let world = World::new();
    let body = vec![b'x'; 200_000];
    let call = world.signed("PUT", PHOTO).body(body.clone());
    let mut client = Client::connect(world.gateway.addr);
    client.write(&call.head());
    client.write(&body[..100_000]);
    client.wait_until_read();
    let before = text(&world, "");
    let without = before.replacen(ACME.0, "ACMEKEY0000000000002", 1);
    let changes = reload(&world, &without);
    let expected = "~ tenant acme (- key ACMEKEY0000000000001, + key ACMEKEY0000000000002)";
    assert_eq!(changes, [expected]);
    assert_eq!(world.gateway.live.sweep(), 1, "the upload has its own");
    client.write(&body[100_000..]);
    client.read_reply("PUT").assert_ok();
    let refused = send(&mut client, &world.signed("GET", PHOTO));
    refused.assert_error(403, "InvalidAccessKeyId");
    let new = Call::new(world.gateway.addr, "GET", PHOTO);
    let new = send(
        &mut client,
        &new.signed_by(("ACMEKEY0000000000002", ACME.1)),
    );
    assert!(new.assert_ok().body == body, "on the same connection");
}

#[test]
fn reload_fetches_keys_only_for_changed_scopes() {
    let world = World::new();
    let calls = || world.emulator.counters().counts().sts_calls;
    let use_both = || {
        world.put("/photos/acme/k", "a");
        let call = Call::new(world.gateway.addr, "PUT", "/photos/globex/k");
        call.signed_by(GLOBEX).body("b").send().assert_ok();
    };
    use_both();
    assert_eq!(calls(), 2);
    let same = text(&world, "");
    let wider = same.replacen(
        "prefixes = [\"acme/*\"]",
        "prefixes = [\"acme/*\", \"more/*\"]",
        1,
    );
    let limits = "[upstream.limits]\nhead_timeout = \"31s\"";
    let shorter = same.replacen("duration = \"30m\"", "duration = \"31m\"", 1);
    for (what, text, expected) in [
        ("nothing", same, 2),
        ("limits, and so who calls STS", text(&world, limits), 2),
        ("the scope of one", wider, 3),
        ("the duration of all", shorter, 5),
    ] {
        reload(&world, &text);
        use_both();
        assert_eq!(calls(), expected, "{what}");
    }
    // The limits of connections were changed and restored; only that opens connections.
    assert_eq!(world.emulator.counters().counts().cos_connections, 3);
}

#[test]
fn reload_keeps_counters_of_tenants() {
    let world = World::new();
    let limited = |limits: &str| text(&world, &format!("[tenants.acme.limits]\n{limits}"));
    reload(&world, &limited("concurrent_requests = 1"));
    let mut upload = Client::connect(world.gateway.addr);
    let call = world.signed("PUT", PHOTO).body("half");
    upload.write(&call.head());
    upload.wait_until_read();
    let send = || world.fetch("GET", "/photos?location").status;
    eventually("the upload counts", || send() == 503);
    for limits in [
        "concurrent_requests = 1",
        "concurrent_requests = 1\nobject_size = 7000",
    ] {
        reload(&world, &limited(limits));
        assert_eq!(send(), 503, "{limits}");
    }
    reload(&world, &limited("concurrent_requests = 2"));
    assert_eq!(send(), 200, "the limit is a new one");
    upload.write(b"half");
    upload.read_reply("PUT").assert_ok();
    reload(&world, &limited("requests_per_second = 1\nburst = 2"));
    assert_eq!([send(), send(), send()], [200, 200, 503]);
    reload(
        &world,
        &limited("requests_per_second = 1\nburst = 2\nupload_rate = \"1GiB\""),
    );
    assert_eq!(send(), 503, "a reload pays for nothing");
}

#[test]
fn invalid_configuration_changes_nothing() {
    let world = World::new();
    world.put(PHOTO, "mine");
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, "no keys").unwrap();
    let identity = format!(
        "[identities.corp]\nissuer = \"https://id.example\"\naudience = \"s3\"\njwks = \"file:{}\"\n\
         [templates.web]\nissuer = \"main\"\nidentity = \"corp\"\n[[templates.web.grants]]\nname = \"web\"\n\
         bucket = \"{BUCKET}\"\nregion = \"ap-guangzhou\"\nprefixes = [\"web/{{claim.sub}}/*\"]\nactions = [\"read\"]",
        keys.display()
    );
    let bad = text(&world, &identity).replacen(ACME.0, "ACMEKEY0000000000002", 1);
    let before = Arc::as_ptr(&world.gateway.live.shared());
    let error = world.gateway.reload(&bad).unwrap_err();
    assert!(error.to_string().contains("identities.corp"), "{error}");
    assert_eq!(Arc::as_ptr(&world.gateway.live.shared()), before);
    assert_eq!(world.fetch("GET", PHOTO).assert_ok().text(), "mine");
}

#[test]
fn reports_keys_that_need_a_restart() {
    let world = World::new();
    let other = text(&world, "")
        .replacen("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:1\"", 1)
        .replacen("threads = 1", "threads = 2", 1)
        .replacen(ACME.0, "ACMEKEY0000000000002", 1);
    for _ in 0..2 {
        let reloaded = world.gateway.reload(&other).unwrap();
        assert_eq!(reloaded.fixed, ["[server] listen", "[server] threads"]);
    }
    assert_eq!(world.gateway.live.shared().config().server.threads, 1);
    world
        .fetch("GET", PHOTO)
        .assert_error(403, "InvalidAccessKeyId");
}

/// acme and globex are identified by a certificate; `acme` is the name of acme's.
fn known(
    world: &World,
    authority: &Authority,
    tls: &(PathBuf, PathBuf),
    names: [&str; 2],
) -> String {
    let [acme, globex] = names.map(|name| format!("client_certs = [\"san:dns:{name}\"]"));
    let more = format!(
        "[server.tls]\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'",
        tls.0.display(),
        tls.1.display(),
        authority.ca().display()
    );
    text(world, &more)
        .replacen("[tenants.acme]", &format!("[tenants.acme]\n{acme}"), 1)
        .replacen(
            "[tenants.globex]",
            &format!("[tenants.globex]\n{globex}"),
            1,
        )
}

#[test]
fn reload_applies_to_client_certificates() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let pair = ours.pair("localhost");
    let world = World::new();
    reload(
        &world,
        &known(&world, &ours, &pair, ["one.example", "two.example"]),
    );
    let (cert, key) = ours.pair("one.example");
    let connect = || {
        let tls = tls_client(&ours.ca(), Some((&cert, &key)), &[&TLS13]);
        Client::connect_tls(world.gateway.addr, "localhost", tls)
    };
    let call = |method: &str, target: &str| Call::new(world.gateway.addr, method, target);
    let mut client = connect();
    send(&mut client, &call("PUT", PHOTO).body("acme's")).assert_ok();
    send(&mut client, &call("GET", "/photos/globex/k")).assert_error(403, "AccessDenied");
    // The name belongs to another tenant now, and so does the open connection.
    let changes = reload(
        &world,
        &known(&world, &ours, &pair, ["two.example", "one.example"]),
    );
    assert_eq!(
        changes,
        ["~ tenant acme (admission)", "~ tenant globex (admission)"]
    );
    send(&mut client, &call("GET", PHOTO)).assert_error(403, "AccessDenied");
    send(
        &mut client,
        &call("PUT", "/photos/globex/k").body("globex's"),
    )
    .assert_ok();
    // After a change of the authority, clients that it has not accepted are disconnected.
    reload(
        &world,
        &known(&world, &theirs, &pair, ["two.example", "one.example"]),
    );
    assert!(client.closes_within(Duration::from_secs(5)));
    let mut refused = connect();
    refused.write(&call("GET", PHOTO).bytes());
    assert!(!refused.fill());
}

#[test]
fn reload_takes_another_file_of_revoked_certificates() {
    let authority = Authority::new("ours");
    let pair = authority.pair("localhost");
    let (cert, key) = authority.pair("one.example");
    let lists = [(&[][..], "none.pem"), (&[&*cert], "revoked.pem")].map(|(revoked, name)| {
        let list = authority.revoke(revoked, 2100);
        let own = list.with_file_name(name);
        std::fs::copy(&list, &own).unwrap();
        own
    });
    let world = World::new();
    let known = |list: &Path| {
        let known = known(&world, &authority, &pair, ["one.example", "two.example"]);
        let tls = format!("[server.tls]\nclient_crl = '{}'", list.display());
        known.replacen("[server.tls]", &tls, 1)
    };
    let connect = || {
        let tls = tls_client(&authority.ca(), Some((&cert, &key)), &[&TLS13]);
        Client::connect_tls(world.gateway.addr, "localhost", tls)
    };
    let call = |method: &str| Call::new(world.gateway.addr, method, PHOTO);
    reload(&world, &known(&lists[0]));
    let mut before = connect();
    send(&mut before, &call("PUT").body("acme's")).assert_ok();
    reload(&world, &known(&lists[1]));
    assert!(before.closes_within(Duration::from_secs(5)));
    let mut refused = connect();
    refused.write(&call("GET").bytes());
    assert!(!refused.fill());
}

#[test]
fn new_connections_use_the_new_certificate() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let serve = |authority: &Authority| authority.tls("");
    let world = World::with(&serve(&old));
    let connect = |authority: &Authority| {
        let tls = tls_client(&authority.ca(), None, &[&TLS13]);
        Client::connect_tls(world.gateway.addr, "localhost", tls)
    };
    let mut first = connect(&old);
    send(&mut first, &world.signed("PUT", PHOTO).body("mine")).assert_ok();
    let changes = reload(&world, &text(&world, &serve(&new)));
    let expected = [
        "~ table [server.tls] (cert, key)",
        "~ certificates and rules of [server.tls]",
    ];
    assert_eq!(changes, expected);
    let mut second = connect(&new);
    assert_eq!(
        send(&mut second, &world.signed("GET", PHOTO))
            .assert_ok()
            .text(),
        "mine"
    );
    assert_eq!(
        send(&mut first, &world.signed("GET", PHOTO))
            .assert_ok()
            .text(),
        "mine"
    );
    let mut third = connect(&old);
    third.write(&world.signed("GET", PHOTO).bytes());
    assert!(!third.fill(), "the old certificate is shown no more");
}

#[test]
fn access_key_expires_with_its_session_keys() {
    let world = World::new();
    let key = format!("id = \"{}\"", ACME.0);
    let until =
        |end: &str| text(&world, "").replacen(&key, &format!("{key}, not_after = \"{end}\""), 1);
    reload(&world, &until("2100-01-01T00:00:00Z"));
    world.put(PHOTO, "mine");
    let changes = reload(&world, &until("2001-01-01T00:00:00Z"));
    assert_eq!(
        changes,
        [format!("~ tenant acme (~ key {} (not_after))", ACME.0)]
    );
    let refused = world.fetch("GET", PHOTO);
    refused.assert_error(403, "InvalidAccessKeyId");
    assert!(
        refused.text().contains("2001-01-01T00:00:00"),
        "{}",
        refused.text()
    );
    // A client that does not know the secret does not learn that the key expired.
    let stranger = Call::new(world.gateway.addr, "GET", PHOTO).signed_by((ACME.0, "another"));
    stranger.send().assert_error(403, "SignatureDoesNotMatch");
    let presigned = support::presigned(world.gateway.addr, "GET", PHOTO, ACME);
    let call = Call::new(world.gateway.addr, "GET", &presigned);
    call.send().assert_error(403, "InvalidAccessKeyId");
}

/// Rotation: a tenant has its old key and its new one at once, until the old one is removed.
#[test]
fn two_access_keys_work_until_one_is_removed_and_their_ends_are_counted() {
    const NEW: (&str, &str) = (
        "ACMEKEY0000000000002",
        "new-secret-of-acme-0123456789abcdef",
    );
    let world = World::new();
    let both = |days: i64| {
        let end = wall_clock().plus(days * 86_400 + 3600).iso8601();
        let new = format!("{{ id = \"{}\", secret = \"{}\" }}, ", NEW.0, NEW.1);
        let old = format!(
            "access_keys = [{new}{{ id = \"{}\", not_after = \"{end}\",",
            ACME.0
        );
        text(&world, "").replacen(&format!("access_keys = [{{ id = \"{}\",", ACME.0), &old, 1)
    };
    let ends = |within: &str| {
        let label = format!("within=\"{within}\"");
        world.gateway.metric("cosgate_access_keys_ending", &label)
    };
    let head = |key| {
        Call::new(world.gateway.addr, "GET", PHOTO)
            .signed_by(key)
            .send()
    };
    world.put(PHOTO, "mine");
    head(NEW).assert_error(403, "InvalidAccessKeyId");
    for (days, expected) in [(20, [0, 0, 1]), (5, [0, 1, 1]), (0, [1, 1, 1])] {
        reload(&world, &both(days));
        assert_eq!(["1d", "7d", "30d"].map(ends), expected, "{days} days");
    }
    for key in [ACME, NEW] {
        reload(&world, &both(1));
        head(key).assert_ok();
    }
    let old = format!("{{ id = \"{}\",", ACME.0);
    let new = format!("{{ id = \"{}\",", NEW.0);
    let changed = text(&world, "").replacen(&old, &new, 1);
    let changed = changed.replacen("\"env:ACME_SECRET\"", &format!("\"{}\"", NEW.1), 1);
    reload(&world, &changed);
    head(NEW).assert_ok();
    head(ACME).assert_error(403, "InvalidAccessKeyId");
    assert_eq!(ends("30d"), 0);
}

/// A thousand more tenants make a reload long. Requests continue meanwhile.
#[test]
fn long_reload_delays_no_request() {
    let world = Arc::new(World::new());
    world.put(PHOTO, "mine");
    let mut many = text(&world, "");
    for number in 0..1000 {
        many += &format!(
            "[tenants.t{number}]\nissuer = \"main\"\naccess_keys = [{{ id = \"KEYOFTHETENANT{number:06}\", secret = \"env:ACME_SECRET\" }}]\n\
             [[tenants.t{number}.grants]]\nname = \"photos\"\nbucket = \"{BUCKET}\"\nregion = \"ap-guangzhou\"\n\
             prefixes = [\"t{number}/*\"]\nactions = [\"read\"]\n"
        );
    }
    let (is_over, slowest) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let client = {
        let (world, is_over, slowest) = (
            Arc::clone(&world),
            Arc::clone(&is_over),
            Arc::clone(&slowest),
        );
        std::thread::spawn(move || {
            let mut client = Client::connect(world.gateway.addr);
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                send(&mut client, &world.signed("GET", PHOTO)).assert_ok();
                let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                slowest.fetch_max(took, Ordering::Relaxed);
            }
        })
    };
    let mut longest = Duration::ZERO;
    for text in [&many, &text(&world, ""), &many] {
        let began = Instant::now();
        reload(&world, text);
        longest = longest.max(began.elapsed());
    }
    is_over.store(true, Ordering::Relaxed);
    client.join().unwrap();
    let slowest = Duration::from_millis(slowest.load(Ordering::Relaxed));
    println!("reloads up to {longest:?}, requests up to {slowest:?}");
    assert!(
        slowest < longest.max(Duration::from_millis(500)),
        "{slowest:?} of {longest:?}"
    );
}

#[test]
fn reports_changes_without_secrets() {
    let world = World::new();
    let variants: HashMap<&str, (&str, &str)> = HashMap::from([
        (
            "env:ACME_SECRET",
            (
                "env:GLOBEX_SECRET",
                "~ tenant acme (~ key ACMEKEY0000000000001 (secret))",
            ),
        ),
        (
            "[\"s3.localhost\"]",
            ("[\"s3.example\"]", "~ table [server] (domains)"),
        ),
        (
            "duration = \"30m\"",
            ("duration = \"40m\"", "~ issuer main (duration)"),
        ),
        ("[tenants.anyone", ("[tenants.public", "+ tenant public")),
    ]);
    for (from, (to, expected)) in variants {
        let changes = reload(&world, &text(&world, "").replace(from, to));
        assert!(
            changes.iter().any(|change| change == expected),
            "{to}: {changes:?}"
        );
        assert!(!format!("{changes:?}").contains("local-secret"));
        reload(&world, &text(&world, ""));
    }
}
