//! Sources of an issuer's own key, over sockets: roles, web identities, chains, the metadata service, profile files,
//! watched files and commands. The embedded STS and COS verify the results.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail anywhere"
)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use cosgate::emulator::{Emulator, EmulatorConfig, EmulatorRole, Faults};
use cosgate::secret::Secret;
use cosgate::sign::tc3;
use serde_json::{Value, json};

use crate::support::{
    ACCOUNT, ACME, BUCKET, Call, Client, GLOBEX, Gateway, Program, Reply, Script, act, eventually,
    toml,
};

const ROLE: &str = "qcs::cam::uin/100000000001:roleName/cosgate";
const POD: &str = "qcs::cam::uin/100000000001:roleName/pod";
const EXTERNAL: &str = "ext:id/1";

/// COS and STS with a role for keys and one for pods, and a cosgate with this one issuer.
struct World {
    emulator: Emulator,
    gateway: Gateway,
}

impl World {
    fn with(issuers: &str) -> Self {
        let emulator = emulator();
        let gateway = Gateway::start(&with_issuers(&emulator, issuers));
        Self { emulator, gateway }
    }

    fn put(&self, key: &str) -> Reply {
        let target = format!("/photos/{key}");
        Call::new(self.gateway.addr, "PUT", &target)
            .signed_by(ACME)
            .body("text")
            .send()
    }

    /// The number of keys that STS has issued under this name.
    fn issued(&self, name: &str) -> u64 {
        let counts = self.emulator.counters().counts();
        counts.sts_by_name.get(name).copied().unwrap_or(0)
    }
}

fn emulator() -> Emulator {
    let pod = ("OIDC".to_owned(), Secret::new("header.claims.signature"));
    let role = |arn: &str, external_id: Option<&str>, web_identity| EmulatorRole {
        arn: arn.to_owned(),
        external_id: external_id.map(str::to_owned),
        web_identity,
    };
    Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![(BUCKET.to_owned(), "ap-guangzhou".to_owned())],
        roles: vec![role(ROLE, Some(EXTERNAL), None), role(POD, None, Some(pod))],
        ..EmulatorConfig::default()
    })
    .unwrap()
}

fn with_issuers(emulator: &Emulator, issuers: &str) -> String {
    let text = toml(emulator.cos_addr(), emulator.sts_addr(), "");
    let start = text.find("[issuers.main]").unwrap();
    let end = text.find("[tenants.acme]").unwrap();
    format!("{}{issuers}\n{}", &text[..start], &text[end..])
}

fn role(base: &str) -> String {
    format!(
        "[issuers.main]\nkind = \"assume-role\"\nrole_arn = \"{ROLE}\"\nexternal_id = \"{EXTERNAL}\"\n\
         tags = [{{ key = \"team\", value = \"storage\" }}]\nsource_identity = \"100000000001\"\n{base}\n"
    )
}

fn web_identity(name: &str, file: &Path) -> String {
    format!(
        "[issuers.{name}]\nkind = \"web-identity\"\nprovider_id = \"OIDC\"\nrole_arn = \"{POD}\"\ntoken_file = \"{}\"\n",
        file.display()
    )
}

/// A temporary key of the account in the form of the metadata service.
fn temporary_key(emulator: &Emulator) -> Value {
    let body = json!({"RoleArn": ROLE, "RoleSessionName": "machine", "ExternalId": EXTERNAL});
    let body = body.to_string();
    let now = cosgate::clock::wall_clock();
    let host = emulator.sts_addr().to_string();
    let call = tc3::ApiCall {
        method: "POST",
        host: &host,
        service: "sts",
        content_type: "application/json",
        query: "",
        payload: body.as_bytes(),
        time: now,
    };
    let key = tc3::ApiSigningKey::derive(&Secret::new(ACCOUNT.1), &now.date_dashed(), "sts");
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nx-tc-action: AssumeRole\r\n\
         x-tc-version: 2018-08-13\r\nx-tc-region: r\r\nx-tc-timestamp: {}\r\nauthorization: {}\r\n\
         content-length: {}\r\n\r\n{body}",
        now.unix(),
        tc3::authorization(&call, ACCOUNT.0, &key),
        body.len(),
    );
    let mut client = Client::connect(emulator.sts_addr());
    client.write(request.as_bytes());
    let reply = client.read_reply("POST");
    let response: Value = serde_json::from_slice(&reply.body).unwrap();
    let credentials = &response["Response"]["Credentials"];
    json!({
        "TmpSecretId": credentials["TmpSecretId"],
        "TmpSecretKey": credentials["TmpSecretKey"],
        "Token": credentials["Token"],
        "ExpiredTime": response["Response"]["ExpiredTime"],
        "Code": "Success",
    })
}

/// A metadata service with one of these responses for each call; the last one repeats.
fn metadata(responses: Vec<String>) -> (Script, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let script = Script::new(vec![act(move |peer| {
        if peer.head().is_none() {
            return;
        }
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let number = usize::try_from(number).unwrap().min(responses.len() - 1);
        let body = &responses[number];
        let length = body.len();
        peer.respond(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
    })]);
    (script, calls)
}

fn cvm_role(script: &Script) -> String {
    role(&format!(
        "cvm_role = \"machine\"\nmetadata_endpoint = \"http://{}\"",
        script.addr
    ))
}

#[test]
fn role_keys_are_limited_and_named_by_tenant() {
    let world = World::with(&role(
        "secret_id = \"env:ACCOUNT_ID\"\nsecret_key = \"env:ACCOUNT_SECRET\"\nsession_name = \"cosgate.{tenant}\"",
    ));
    world.put("acme/a").assert_ok();
    assert_eq!(world.issued("cosgate.acme"), 1);
    let other = Call::new(world.gateway.addr, "GET", "/photos/globex/none").signed_by(GLOBEX);
    other.send().assert_error(404, "NoSuchKey");
    assert_eq!(world.issued("cosgate.globex"), 1);
}

#[test]
fn rejects_wrong_external_id() {
    let issuer = role("secret_id = \"env:ACCOUNT_ID\"\nsecret_key = \"env:ACCOUNT_SECRET\"");
    let world = World::with(&issuer.replace(EXTERNAL, "ext:id/2"));
    assert_eq!(world.put("acme/a").status, 503);
    world.gateway.log.assert_contains("let the role trust it");
}

#[test]
fn fetches_the_machine_role_once() {
    let emulator = emulator();
    let key = temporary_key(&emulator).to_string();
    let (script, calls) = metadata(vec![key]);
    let gateway = Gateway::start(&with_issuers(&emulator, &cvm_role(&script)));
    let world = World { emulator, gateway };
    world.put("acme/a").assert_ok();
    let other = Call::new(world.gateway.addr, "GET", "/photos/globex/none").signed_by(GLOBEX);
    other.send().assert_error(404, "NoSuchKey");
    assert_eq!((world.issued("acme"), world.issued("globex")), (1, 1));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let head = &script.heads()[0];
    assert!(
        head.starts_with("GET /latest/meta-data/cam/security-credentials/machine HTTP/1.1\r\n"),
        "{head}"
    );
}

/// The vendor's thread and the cores share the issuer's own key. One of the clients disconnects while the key is
/// fetched.
#[test]
fn proxy_and_vendor_share_one_fetch() {
    let emulator = emulator();
    let key = temporary_key(&emulator).to_string();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let (response, responses) = mpsc::channel();
    let responses = Mutex::new(responses);
    let script = Script::new(vec![act(move |peer| {
        if peer.head().is_none() {
            return;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        responses.lock().unwrap().recv().unwrap();
        let length = key.len();
        peer.respond(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{key}"
        ));
    })]);
    let toml = with_issuers(&emulator, &cvm_role(&script));
    let toml = toml.replacen("[tenants.acme]\n", "[tenants.acme]\nvend = true\n", 1);
    let gateway = Gateway::start(&toml);
    let world = World { emulator, gateway };
    let send = || {
        Call::new(world.gateway.addr, "POST", "/.cosgate/credentials")
            .signed_by(ACME)
            .body("{}")
    };
    let mut hasty = Client::connect(world.gateway.addr);
    hasty.write(&send().bytes());
    eventually("the metadata service gets a request", || {
        calls.load(Ordering::SeqCst) == 1
    });
    drop(hasty);
    let put = Call::new(world.gateway.addr, "PUT", "/photos/acme/a")
        .signed_by(ACME)
        .body("x");
    let waiting: Vec<_> = [put, send()]
        .into_iter()
        .cycle()
        .take(8)
        .map(|call| {
            let mut client = Client::connect(call.addr);
            client.write(&call.bytes());
            client
        })
        .collect();
    waiting.iter().for_each(Client::wait_until_read);
    response.send(()).unwrap();
    for mut client in waiting {
        client.read_reply("PUT").assert_ok();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(world.issued("acme"), 2, "the proxy's and the clients'");
}

#[test]
fn fetches_a_revoked_machine_key_again() {
    let emulator = emulator();
    let old = temporary_key(&emulator);
    let new = temporary_key(&emulator).to_string();
    assert!(emulator.revoke_key(old["TmpSecretId"].as_str().unwrap()));
    let (script, calls) = metadata(vec![old.to_string(), new]);
    let gateway = Gateway::start(&with_issuers(&emulator, &cvm_role(&script)));
    World { emulator, gateway }.put("acme/a").assert_ok();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn rejects_other_metadata_responses_without_logging() {
    let responses = [
        "<html>".to_owned(),
        r#"{"Code":"Failed"}"#.to_owned(),
        r#"{"TmpSecretId":"CANARY","TmpSecretKey":"CANARY","Token":"CANARY","ExpiredTime":1}"#
            .to_owned(),
        " ".repeat(100_000),
    ];
    all_at_once(responses, |response| {
        let (script, calls) = metadata(vec![response]);
        let world = World::with(&cvm_role(&script));
        assert_eq!(world.put("acme/a").status, 503);
        world.gateway.log.assert_contains("cvm_role: ");
        assert!(!world.gateway.log.text().contains("CANARY"));
        assert!((1..=4).contains(&calls.load(Ordering::SeqCst)));
        assert_eq!(world.emulator.counters().counts().sts_calls, 0);
    });
}

#[test]
fn reads_the_pod_token_at_each_call() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "stale.claims.signature\n").unwrap();
    let world = World::with(&web_identity("main", &file));
    assert_eq!(world.put("acme/a").status, 503);
    world.gateway.log.assert_contains("WebIdentityTokenError");
    assert!(!world.gateway.log.text().contains("stale.claims"));
    fs::write(&file, "header.claims.signature\n").unwrap();
    let other = Call::new(world.gateway.addr, "GET", "/photos/globex/none").signed_by(GLOBEX);
    other.send().assert_error(404, "NoSuchKey");
    assert_eq!(world.issued("globex"), 1);
    eventually("acme's key", || world.put("acme/a").status == 200);
}

#[test]
fn role_chain_narrows_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "header.claims.signature").unwrap();
    let issuers = role("base = \"tke\"") + &web_identity("tke", &file);
    let world = World::with(&issuers);
    world.put("acme/a").assert_ok();
    let other = Call::new(world.gateway.addr, "GET", "/photos/globex/none").signed_by(GLOBEX);
    other.send().assert_error(404, "NoSuchKey");
    let [base, acme, globex] = ["cosgate", "acme", "globex"].map(|name| world.issued(name));
    assert_eq!((base, acme, globex), (1, 1, 1));
}

#[test]
fn reloads_a_valid_profile_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let profile = |id: &str| {
        fs::write(
            &file,
            format!("[ci]\nsecret_id = {id}\nsecret_key = {}\n", ACCOUNT.1),
        )
        .unwrap();
    };
    profile(ACCOUNT.0);
    let federation = "[issuers.main]\nkind = \"federation\"\nduration = \"30m\"\n";
    let issuer = format!(
        "{federation}profile = \"ci\"\nprofile_file = \"{}\"\n",
        file.display()
    );
    let world = World::with(&issuer);
    fs::write(&file, "[ci]\nsecret_id = half").unwrap();
    world.put("acme/a").assert_ok();
    profile("AKIDothersothersothers");
    let other = Call::new(world.gateway.addr, "GET", "/photos/globex/none").signed_by(GLOBEX);
    assert_eq!(other.send().status, 503);
    world
        .gateway
        .log
        .assert_contains("AuthFailure.SecretIdNotFound");
    profile(ACCOUNT.0);
    Call::new(world.gateway.addr, "GET", "/photos/public/none")
        .unsigned()
        .send()
        .assert_error(404, "NoSuchKey");
}

#[test]
fn watches_secret_files() {
    let folder = tempfile::tempdir().unwrap();
    let (id, key) = (folder.path().join("id"), folder.path().join("key"));
    fs::write(&id, "AKIDoldoldoldold\n").unwrap();
    fs::write(&key, "old\n").unwrap();
    let world = World::with(&format!(
        "[issuers.main]\nkind = \"federation\"\nsecret_id = \"file:{}\"\nsecret_key = \"file:{}\"\n",
        id.display(),
        key.display()
    ));
    fs::write(&id, ACCOUNT.0).unwrap();
    fs::write(&key, ACCOUNT.1).unwrap();
    world.put("acme/a").assert_ok();
}

/// The file of the secret is written while STS refuses the new id with the old secret.
#[test]
fn replacing_key_files_in_turn_fails_no_client() {
    let folder = tempfile::tempdir().unwrap();
    let (id, key) = (folder.path().join("id"), folder.path().join("key"));
    fs::write(&id, "AKIDoldoldoldold\n").unwrap();
    fs::write(&key, "old\n").unwrap();
    let world = World::with(&format!(
        "[issuers.main]\nkind = \"federation\"\nsecret_id = \"file:{}\"\nsecret_key = \"file:{}\"\n",
        id.display(),
        key.display()
    ));
    world.emulator.faults().set(Faults {
        sts_latency_ms: 500,
        ..Faults::default()
    });
    fs::write(&id, ACCOUNT.0).unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| world.put("acme/a").assert_ok().status);
        eventually("STS gets a request", || {
            world.emulator.counters().counts().sts_calls == 1
        });
        fs::write(&key, ACCOUNT.1).unwrap();
        assert_eq!(client.join().unwrap(), 200);
    });
    assert_eq!(world.issued("acme"), 1);
}

#[test]
fn runs_a_key_command_without_a_shell() {
    let emulator = emulator();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a key; $(none)");
    fs::write(&file, temporary_key(&emulator).to_string()).unwrap();
    let command = format!("command = [\"/bin/cat\", \"{}\"]", file.display());
    let gateway = Gateway::start(&with_issuers(&emulator, &role(&command)));
    let world = World { emulator, gateway };
    world.put("acme/a").assert_ok();
    assert_eq!(world.issued("acme"), 1);
}

#[test]
fn failing_command_is_reported_in_time() {
    let federation = "[issuers.main]\nkind = \"federation\"\n";
    let temporary = r#"{\"SecretId\":\"A\",\"SecretKey\":\"CANARY\",\"Token\":\"CANARY\"}"#;
    let all = [
        (role("command = [\"/bin/false\"]"), "/bin/false failed"),
        (role("command = [\"/bin/none\"]"), "cannot start /bin/none"),
        (
            role("command = [\"/bin/echo\", \"CANARY\"]"),
            "not the JSON of a key",
        ),
        (role("command = [\"/usr/bin/yes\"]"), "more than 64 KiB"),
        (
            role("command = [\"/bin/sleep\", \"60\"]"),
            "no response in time",
        ),
        (
            format!("{federation}command = [\"/bin/echo\", \"{temporary}\"]\n"),
            "TempKeyNotAllowed",
        ),
    ];
    all_at_once(all, |(issuer, text)| {
        let world = World::with(&issuer);
        assert_eq!(world.put("acme/a").status, 503, "{text}");
        world.gateway.log.assert_contains(text);
        assert!(!world.gateway.log.text().contains("CANARY"));
        assert_eq!(world.emulator.counters().counts().sts_calls, 0, "{text}");
    });
}

#[test]
fn command_gets_only_listed_variables() {
    let emulator = emulator();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, seen) = (path("key"), path("environment"));
    fs::write(&key, temporary_key(&emulator).to_string()).unwrap();
    for (listed, expected) in [
        ("", [None, None]),
        (
            "command_env = [\"GLOBEX_SECRET\", \"NOT_SET\"]",
            [None, Some(GLOBEX.1)],
        ),
    ] {
        let script = format!("cat /proc/$$/environ > {seen}; cat {key}");
        let command = format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\n{listed}");
        // The environment of cosgate contains the secrets of the tenants and of the account.
        let program = Program::serve(&with_issuers(&emulator, &role(&command)));
        let put = Call::new(program.addr, "PUT", "/photos/acme/a").signed_by(ACME);
        put.body("text").send().assert_ok();
        let seen = fs::read_to_string(&seen).unwrap();
        let value = |name: &str| {
            let mut variables = seen.split('\0').filter_map(|pair| pair.split_once('='));
            variables.find_map(|(key, value)| (key == name).then_some(value))
        };
        let inherited = std::env::var("PATH").unwrap();
        assert_eq!(value("PATH"), Some(inherited.as_str()));
        assert_eq!([value("ACME_SECRET"), value("GLOBEX_SECRET")], expected);
        assert!(
            !seen.contains(ACCOUNT.1) && !seen.contains(ACME.1),
            "{seen}"
        );
    }
}

#[test]
fn accepts_a_command_with_long_error_output() {
    let emulator = emulator();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, temporary_key(&emulator).to_string()).unwrap();
    // More than a pipe holds: without a reader, the command would block.
    let script = format!("head -c 300000 /dev/zero >&2; cat {}", file.display());
    let command = format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]");
    let gateway = Gateway::start(&with_issuers(&emulator, &role(&command)));
    World { emulator, gateway }.put("acme/a").assert_ok();
}

#[test]
fn kills_a_timed_out_command() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "sleep 300 >/dev/null & echo $! > {}; exec yes",
        file.display()
    );
    let world = World::with(&role(&format!(
        "command = [\"/bin/sh\", \"-c\", \"{script}\"]"
    )));
    assert_eq!(world.put("acme/a").status, 503);
    world.gateway.log.assert_contains("more than 64 KiB");
    let pid = fs::read_to_string(&file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    eventually("what it has started is killed", || {
        fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}

/// Each case waits some seconds for a key that does not arrive.
fn all_at_once<T: Send, const N: usize>(all: [T; N], check: impl Fn(T) + Sync) {
    let check = &check;
    thread::scope(|scope| {
        for one in all {
            scope.spawn(move || check(one));
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn process_memory_is_protected() {
    let emulator = emulator();
    let program = Program::serve(&toml(emulator.cos_addr(), emulator.sts_addr(), ""));
    let proc = format!("/proc/{}", program.process.id());
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap().split_ascii_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"]);
    // The files of a process that cannot be dumped belong to root, under any user.
    eventually("the program is not dumpable", || {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(format!("{proc}/mem")).is_ok_and(|mem| mem.uid() == 0)
    });
}
