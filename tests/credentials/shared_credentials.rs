//! Keys that several replicas share through a real Redis (Debian's `redis-server`).
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cosgate::emulator::{Emulator, EmulatorConfig, Faults};
use cosgate::secret::Secret;
use tokio::time::Instant;

use crate::redis_server::{Redis, free_port, url};
use crate::support::{
    ACCOUNT, ACME, Authority, BUCKET, Call, GLOBEX, Gateway, Log, PATIENCE, emulator, toml,
};

const REPLICAS: usize = 3;

fn gateway(emulator: &Emulator, redis: u16, key: &str) -> Gateway {
    let shared = format!(
        "[credentials.shared]\nredis = \"{}\"\nkey = \"{key}\"\n",
        url(redis)
    );
    Gateway::start(&toml(emulator.cos_addr(), emulator.sts_addr(), &shared))
}

const UNOPENED: &str = "cosgate_shared_entries_unopened_total";
const KEY: &str = "a-key-of-the-shared-cache-0123456789";

/// Stores and reads an object in the folder of `key`'s tenant.
fn use_folder(gateway: &Gateway, key: (&str, &str), folder: &str) {
    let target = format!("/photos/{folder}/a");
    let call = |method| Call::new(gateway.addr, method, &target).signed_by(key);
    call("PUT").body(folder).send().assert_ok();
    assert_eq!(call("GET").send().assert_ok().text(), folder);
}

fn sts_calls(emulator: &Emulator) -> u64 {
    emulator.counters().counts().sts_calls
}

#[test]
fn replicas_make_one_call_and_survive_redis() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let emulator = emulator();
    let gateways = [0; REPLICAS].map(|_| gateway(&emulator, redis.port, KEY));
    let all_use = |key, folder| {
        thread::scope(|scope| {
            for gateway in gateways.iter().cycle().take(REPLICAS * 5) {
                scope.spawn(move || use_folder(gateway, key, folder));
            }
        });
    };
    all_use(ACME, "acme");
    assert_eq!(sts_calls(&emulator), 1, "of all three");
    let late = gateway(&emulator, redis.port, KEY);
    use_folder(&late, ACME, "acme");
    assert_eq!(sts_calls(&emulator), 1, "of one that comes later too");

    redis.kill();
    all_use(ACME, "acme");
    assert_eq!(sts_calls(&emulator), 1, "live keys are nobody's business");
    let began = Instant::now();
    all_use(GLOBEX, "globex");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(sts_calls(&emulator), 1 + 3, "each for itself");
}

#[test]
fn does_not_reuse_a_refused_key_from_redis() {
    let Some(redis) = Redis::start() else { return };
    let emulator = emulator();
    let gateways = [0; 2].map(|_| gateway(&emulator, redis.port, KEY));
    for gateway in &gateways {
        use_folder(gateway, ACME, "acme");
    }
    // Expiry times are whole seconds, so that the next key expires later than the first.
    emulator.faults().set(Faults {
        sts_lifetime: Some(2000),
        ..Faults::default()
    });
    emulator.revoke_all_keys();
    let get = |gateway: &Gateway| {
        let call = Call::new(gateway.addr, "GET", "/photos/acme/a");
        call.signed_by(ACME).send().assert_ok();
    };
    gateways.iter().for_each(get);
    assert_eq!(
        sts_calls(&emulator),
        2,
        "the second takes the first one's new key"
    );
}

/// Two machines with the same configuration, and profile files with keys of different accounts.
#[test]
fn replicas_of_other_accounts_share_no_key() {
    let Some(redis) = Redis::start() else { return };
    let second = ("AKIDsecondsecondsecond", "secret-of-the-second-account");
    let emulator = Emulator::start(EmulatorConfig {
        keys: [ACCOUNT, second]
            .map(|(id, secret)| (id.to_owned(), Secret::new(secret)))
            .to_vec(),
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        ..EmulatorConfig::default()
    })
    .unwrap();
    let profile = tempfile::NamedTempFile::new().unwrap();
    let shared = format!(
        "[credentials.shared]\nredis = \"{}\"\nkey = \"{KEY}\"\n",
        url(redis.port)
    );
    let toml = toml(emulator.cos_addr(), emulator.sts_addr(), &shared).replace(
        "secret_id = \"env:ACCOUNT_ID\"\nsecret_key = \"env:ACCOUNT_SECRET\"",
        &format!(
            "profile = \"ci\"\nprofile_file = \"{}\"",
            profile.path().display()
        ),
    );
    for ((id, secret), calls) in [(ACCOUNT, 1), (second, 2), (ACCOUNT, 2)] {
        let text = format!("[ci]\nsecret_id = {id}\nsecret_key = {secret}\n");
        std::fs::write(profile.path(), text).unwrap();
        use_folder(&Gateway::start(&toml), ACME, "acme");
        assert_eq!(sts_calls(&emulator), calls, "{id}");
    }
}

/// The replica has a key without a call of STS, whose response would have corrected its clock.
#[test]
fn wrong_clock_with_a_shared_key_fails_no_client() {
    let Some(redis) = Redis::start() else { return };
    for signature in ["s3", "cos"] {
        let emulator = emulator();
        let shared = format!(
            "[credentials.shared]\nredis = \"{}\"\nkey = \"{KEY}\"\n",
            url(redis.port)
        );
        let text = toml(emulator.cos_addr(), emulator.sts_addr(), &shared)
            .replace("duration = \"30m\"", "duration = \"2h\"")
            .replacen(
                "[upstream]",
                &format!("[upstream]\nsignature = \"{signature}\""),
                1,
            );
        use_folder(&Gateway::start(&text), ACME, "acme");
        for late in [1200, -1200] {
            for method in ["GET", "HEAD"] {
                let gateway = Gateway::start_late([127, 0, 0, 1].into(), &text, late);
                let call = Call::new(gateway.addr, method, "/photos/acme/a");
                let reply = call.signed_by(ACME).send();
                assert_eq!(reply.status, 200, "{signature} {late} {method}");
                use_folder(&gateway, ACME, "acme");
            }
        }
        // In its own API, COS uses the same error for a late time and an expired key.
        assert!(
            signature == "cos" || sts_calls(&emulator) == 1,
            "{signature}"
        );
    }
}

#[test]
fn late_clock_does_not_extend_shared_keys() {
    let Some(redis) = Redis::start() else { return };
    let emulator = emulator();
    let shared = format!(
        "[credentials.shared]\nredis = \"{}\"\nkey = \"{KEY}\"\n",
        url(redis.port)
    );
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), &shared);
    emulator.faults().set(Faults {
        sts_lifetime: Some(8),
        ..Faults::default()
    });
    let late = Gateway::start_late([127, 0, 0, 1].into(), &text, 1200);
    use_folder(&Gateway::start(&text), ACME, "acme");
    thread::sleep(Duration::from_millis(4500)); // less than half of its life is left
    let call = Call::new(late.addr, "GET", "/photos/acme/a").signed_by(ACME);
    call.send().assert_ok();
    // The second request is refused for its time, and repeated once.
    assert_eq!(sts_calls(&emulator), 3);
}

#[test]
fn shared_keys_are_sealed_for_their_scope() {
    let Some(redis) = Redis::start() else { return };
    let log = Log::of_program();
    let emulator = emulator();
    let first = gateway(&emulator, redis.port, KEY);
    use_folder(&first, ACME, "acme");
    let mut connection = redis.connection();
    let mut names = || -> Vec<String> {
        redis::cmd("KEYS")
            .arg("cosgate:key:*")
            .query(&mut connection)
            .unwrap()
    };
    let acme = names();
    assert_eq!(acme.len(), 1, "and the lease is given back: {acme:?}");
    use_folder(&first, GLOBEX, "globex");
    let globex: Vec<_> = names()
        .into_iter()
        .filter(|name| !acme.contains(name))
        .collect();
    assert_eq!(sts_calls(&emulator), 2);

    let mut connection = redis.connection();
    let mut get =
        |name: &str| -> Vec<u8> { redis::cmd("GET").arg(name).query(&mut connection).unwrap() };
    let [own, foreign] = [get(&acme[0]), get(&globex[0])];
    for sealed in [&own, &foreign] {
        for word in ["acme", "globex", "token", "AKID"] {
            let found = sealed
                .windows(word.len())
                .any(|part| part == word.as_bytes());
            assert!(!found, "{word} can be read");
        }
    }
    let mut cut = own;
    cut.pop();
    let mut calls = 2;
    for (wrong, unopened) in [
        (foreign, 1),
        (cut, 1),
        (b"garbage".to_vec(), 1),
        (Vec::new(), 0),
        (vec![b'x'; 1 << 20], 1),
    ] {
        let mut connection = redis.connection();
        let set = redis::cmd("SET").arg(&acme[0]).arg(wrong).to_owned();
        set.exec(&mut connection).unwrap();
        let gateway = gateway(&emulator, redis.port, KEY);
        use_folder(&gateway, ACME, "acme");
        calls += 1;
        assert_eq!(sts_calls(&emulator), calls, "a key of its own");
        assert_eq!(gateway.metric(UNOPENED, ""), unopened);
    }
    assert_eq!(first.metric(UNOPENED, ""), 0);
    // A replica with another secret cannot open the entries, and reports it.
    let other = "another-key-of-a-cache-0123456789-01";
    let other = gateway(&emulator, redis.port, other);
    use_folder(&other, ACME, "acme");
    assert_eq!(sts_calls(&emulator), calls + 1);
    assert_eq!(other.metric(UNOPENED, ""), 1);
    let shown = "does not open: give all cosgates that use it the same `key`";
    log.assert_contains(shown);
}

#[test]
fn replicas_share_keys_over_tls_and_trust_no_other_authority() {
    let (authority, other) = (Authority::new("Redis CA"), Authority::new("Another CA"));
    let Some((_redis, port)) = Redis::start_with_tls(&authority, "sesame") else {
        return;
    };
    let emulator = emulator();
    let start = |ca: &Path| {
        let shared = format!(
            "[credentials.shared]\nredis = \"rediss://:sesame@localhost:{port}\"\nkey = \"{KEY}\"\nca_file = \"{}\"\n",
            ca.display()
        );
        Gateway::start(&toml(emulator.cos_addr(), emulator.sts_addr(), &shared))
    };
    let ca = authority.ca();
    for gateway in [start(&ca), start(&ca)] {
        use_folder(&gateway, ACME, "acme");
        assert_eq!(sts_calls(&emulator), 1, "one call for both");
    }
    use_folder(&start(&other.ca()), ACME, "acme");
    assert_eq!(
        sts_calls(&emulator),
        2,
        "a Redis that is not verified gets no key"
    );
}

/// A Sentinel is a Redis that names a master: here it is one that the test speaks for.
#[test]
fn sentinels_name_the_master_and_the_next_one_is_used_after_a_failure() {
    let (Some(mut first), Some(second)) = (Redis::start(), Redis::start()) else {
        return;
    };
    let master = Arc::new(AtomicU16::new(first.port));
    let sentinel = sentinel(&master);
    let away = free_port();
    let emulator = emulator();
    let start = || {
        let shared = format!(
            "[credentials.shared]\nredis = \"redis://mymaster\"\nkey = \"{KEY}\"\nsentinels = [\"127.0.0.1:{away}\", \"{sentinel}\"]\n"
        );
        Gateway::start(&toml(emulator.cos_addr(), emulator.sts_addr(), &shared))
    };
    let gateway = start();
    use_folder(&gateway, ACME, "acme");
    use_folder(&start(), ACME, "acme");
    assert_eq!(
        sts_calls(&emulator),
        1,
        "the second finds the first one's key"
    );
    master.store(second.port, Ordering::Relaxed);
    first.kill();
    use_folder(&start(), ACME, "acme");
    assert_eq!(sts_calls(&emulator), 2, "the new master knows no key yet");
    use_folder(&start(), ACME, "acme");
    assert_eq!(sts_calls(&emulator), 2);
}

/// Responds to whatever it is sent as a Sentinel that knows `master`.
fn sentinel(master: &Arc<AtomicU16>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let master = Arc::clone(master);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let port = master.load(Ordering::Relaxed).to_string();
            thread::spawn(move || {
                let mut read = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut read) {
                    let text = String::from_utf8_lossy(read.get(..length).unwrap()).into_owned();
                    // The client introduces itself first, with two commands of which it needs no result.
                    for command in text.split('*').skip(1) {
                        let is_question = command.contains("get-master-addr-by-name");
                        assert!(!is_question || command.contains("\r\nmymaster\r\n"));
                        let reply = if is_question {
                            format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
                        } else {
                            "+OK\r\n".to_owned()
                        };
                        let _ = stream.write_all(reply.as_bytes());
                    }
                }
            });
        }
    });
    address
}

#[test]
fn unreachable_redis_fails_no_request() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [free_port(), silent.local_addr().unwrap().port()] {
        let emulator = emulator();
        let gateway = gateway(&emulator, port, KEY);
        let began = Instant::now();
        use_folder(&gateway, ACME, "acme");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        let began = Instant::now();
        use_folder(&gateway, GLOBEX, "globex");
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "it is left alone for a while"
        );
        assert_eq!(sts_calls(&emulator), 2);
    }
}

/// A Redis that responds to a lookup with 512 MiB. Gives its port, and the bytes that were read when the connection
/// ended.
fn flooding_redis() -> (u16, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (ended, taken) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                let text = String::from_utf8_lossy(bytes.get(..count).unwrap()).into_owned();
                if text.contains("GETRANGE") {
                    let _ = stream.write_all(b"$536870912\r\n");
                    let block = vec![b'x'; 64 * 1024];
                    let blocks = (0..8192).take_while(|_| stream.write_all(&block).is_ok());
                    let _ = ended.send(blocks.count() * block.len());
                    break;
                }
                for _ in text.lines().filter(|line| line.starts_with('*')) {
                    let _ = stream.write_all(b"+OK\r\n");
                }
            }
        }
    });
    (port, taken)
}

#[test]
fn limits_the_response_of_redis() {
    let (port, taken) = flooding_redis();
    let emulator = emulator();
    let gateway = gateway(&emulator, port, KEY);
    let began = Instant::now();
    use_folder(&gateway, ACME, "acme");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(sts_calls(&emulator), 1, "called without the Redis");
    let taken = taken.recv_timeout(PATIENCE).unwrap(); // it got a request, and its connection was cut
    assert!(taken < 16 << 20, "{taken} bytes, most of them the system's");
}
